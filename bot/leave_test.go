package bot

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flaudebot/sessions"
)

// gate holds back the n-th call of a method until it is opened, and gives it up when nobody waits for it any more.
type gate struct {
	method  string
	n       atomic.Int32
	reached chan struct{}
	open    chan struct{}
}

func newGate(method string, n int32) *gate {
	g := &gate{method: method, reached: make(chan struct{}), open: make(chan struct{})}
	g.n.Store(n)
	return g
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, g.method) && g.n.Add(-1) == 0 {
		close(g.reached)
		<-g.open
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestLeaving: what a bot has begun as it is told to leave comes to its end, and the end comes soon.
func TestLeaving(t *testing.T) {
	t.Parallel()
	began := func(w *workspace) (sessions.Session, sessions.Turn, string) {
		root := w.say(member, general, "", mention+"go")
		turn := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, Thread: sessions.Thread{Team: team, Channel: general, TS: root}, TS: root}
		live, err := w.bot.Begin(w.t.Context(), session(root), turn, false)
		if err != nil {
			w.t.Fatal(err)
		}
		return session(root), turn, live
	}
	t.Run("a post that is on its way is waited for: the next owner would look too early", func(t *testing.T) {
		t.Parallel()
		g := newGate("/chat.postMessage", 2) // after the live message
		w := newWorkspace(t, func(cfg *Config) { cfg.HTTP = &http.Client{Transport: g} })
		s, turn, live := began(w)
		ctx, leave := context.WithCancel(t.Context())
		finished := make(chan error)
		go func() { finished <- w.bot.Finish(ctx, s, turn, live, outcome("forty-two"), false) }()
		<-g.reached
		leave()
		close(g.open)
		if err := <-finished; !errors.Is(err, context.Canceled) { // the live message
			t.Errorf("Finish = %v, want that the rest is left to the next owner", err)
		}
		if posts, err := w.bot.look(t.Context(), turn, ""); err != nil || posts["1"] == "" {
			t.Errorf("in the thread stand %v, %v; want the answer", posts, err)
		}
	})
	t.Run("an edit that is on its way is waited for: it must not come after the next owner's", func(t *testing.T) {
		t.Parallel()
		g := newGate("/chat.update", 1)
		w := newWorkspace(t, func(cfg *Config) { cfg.HTTP = &http.Client{Transport: g} })
		_, turn, live := began(w)
		ctx, leave := context.WithCancel(t.Context())
		running := sessions.Progress{Step: sessions.StepRunning}
		w.bot.Progress(ctx, sessions.Session{}, turn, live, running)
		<-g.reached
		leave()
		go close(g.open)
		w.bot.Quiet(turn)
		if !has(w.thread(general, turn.TS), stepSentence(running)) {
			t.Error("the edit had not arrived when the bot was quiet")
		}
	})
	t.Run("what was heard is stored and acked", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.sessions.asked, w.sessions.answer = make(chan struct{}, 1), make(chan struct{})
		root := w.say(member, general, "", mention+"go")
		w.until("the turn", func() bool { return w.sessions.turn(root) != nil })
		w.api(member, "chat.delete", map[string][]string{"channel": {general}, "ts": {root}})
		<-w.sessions.asked
		left := make(chan struct{})
		go func() { defer close(left); w.leave() }()
		for range 50 { // it has every chance to do it wrong
			if w.connections() != 1 {
				t.Error("the socket is closed before what came over it is stored")
				break
			}
		}
		w.sessions.answer <- struct{}{}
		<-left
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.cancels) }); n != 1 {
			t.Errorf("%d turns were cancelled, want the one whose message was deleted", n)
		}
		w.until("the ack of every event", func() bool {
			d := w.deliveries()
			acks, _ := d["acks"].(float64)
			events, _ := d["events"].(float64)
			late, _ := d["stray"].([]any) // for Slack, as the machine is busy
			return int(acks)+len(late) >= int(events)
		})
	})
	t.Run("what Slack asks to wait with does not hold up the end", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.local(admin, "faults", map[string]any{"method": "reactions.add", "status": 429, "retry_after": 60})
		root := w.say(member, general, "", mention+"go")
		w.until("the turn", func() bool { return w.sessions.turn(root) != nil })
		w.leave()
		told := time.Now()
		w.bot.Close()
		if took := time.Since(told); took > leaveTime+5*time.Second {
			t.Errorf("it took %s to close", took)
		}
	})
}
