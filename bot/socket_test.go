package bot

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flaudebot/local/slack"
	"flaudebot/sessions"
)

// impatient is a Slack that waits half a second for an ack and sends an event again at once.
func impatient() slack.Config {
	return slack.Config{AckTimeout: 500 * time.Millisecond, RetryDelays: []time.Duration{0, 0, 0}}
}

// trouble asks local Slack for some.
func (w *workspace) trouble(what map[string]any) {
	w.t.Helper()
	if res := w.local(admin, "trouble", what); res["ok"] != true {
		w.t.Fatalf("trouble = %v", res)
	}
}

// fault has calls of a method fail.
func (w *workspace) fault(what map[string]any) {
	w.t.Helper()
	raw, err := json.Marshal(what)
	if err != nil {
		w.t.Fatal(err)
	}
	if res := w.call(admin, "/local/faults", "application/json", raw); res["ok"] != true {
		w.t.Fatalf("faults = %v", res)
	}
}

// deliveries is what local Slack saw of what it passed.
func (w *workspace) deliveries() map[string]any {
	w.t.Helper()
	return w.local(admin, "deliveries", nil)
}

func (w *workspace) connections() int {
	w.t.Helper()
	n, _ := w.deliveries()["connections"].(float64)
	return int(n)
}

// allAcked waits until every event was acked, or given up.
func (w *workspace) allAcked() {
	w.t.Helper()
	w.until("all acks", func() bool {
		d := w.deliveries()
		acks, _ := d["acks"].(float64)
		given, _ := d["given_up"].(float64)
		return d["events"] == acks+given
	})
}

// turns counts the turns of a message: each was accepted so often.
func (w *workspace) turns(ts string) int {
	return w.sessions.count(func(f *fakeSessions) (n int) {
		for _, turn := range f.accepted {
			if turn.TS == ts {
				n++
			}
		}
		return n
	})
}

// TestSocketBreaks: wherever a socket breaks, what came is taken in, once.
func TestSocketBreaks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cut  func(w *workspace)
	}{
		{"in the middle of an event", func(w *workspace) { w.trouble(map[string]any{"cut": "event"}) }},
		{"between an event and its ack", func(w *workspace) { w.trouble(map[string]any{"cut": "sent"}) }},
		{"while an ack is on its way", func(w *workspace) { w.trouble(map[string]any{"cut": "ack"}) }},
		{"before hello, when the next one is dialled", func(w *workspace) {
			w.trouble(map[string]any{"refuse": "hello"})
			w.local(admin, "socket", map[string]any{})
			w.until("a few dials", func() bool { opens, _ := w.deliveries()["opens"].([]any); return len(opens) >= 3 })
			w.trouble(map[string]any{"refuse": "nothing"})
		}},
		{"at the dial", func(w *workspace) {
			w.fault(map[string]any{"method": "link", "drop": true, "nth": 1})
			w.local(admin, "socket", map[string]any{})
		}},
		{"when Slack gives no address", func(w *workspace) {
			w.fault(map[string]any{"method": "apps.connections.open", "body": "<html>Bad gateway", "status": 502, "nth": 1})
			w.local(admin, "socket", map[string]any{})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			c.cut(w)
			ts := w.say(member, general, "", mention+"survive this")
			w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
			w.settled(general)
			w.allAcked()
			if d := w.deliveries(); w.turns(ts) != 1 || d["given_up"] != 0.0 {
				t.Errorf("%d turns, deliveries %v; want one and nothing given up", w.turns(ts), d)
			}
		})
	}
	t.Run("while a turn runs: its live message goes on, and its answer comes", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", mention+"go")
		turn := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, Thread: sessions.Thread{Team: team, Channel: general, TS: root}, TS: root, User: "U0MEMBER"}
		live, err := w.bot.Begin(t.Context(), session(root), turn, false)
		if err != nil {
			t.Fatal(err)
		}
		w.local(admin, "socket", map[string]any{})
		w.bot.Progress(t.Context(), session(root), turn, live, sessions.Progress{Step: sessions.StepRunning, Since: time.Now(), Tool: "Bash", On: "still at it"})
		w.until("the progress", func() bool { return has(w.thread(general, root), "still at it") })
		if err := w.bot.Finish(t.Context(), session(root), turn, live, outcome("done"), false); err != nil {
			t.Fatal(err)
		}
		w.until("a socket", func() bool { return w.connections() == 1 })
		w.local(member, "click", map[string]any{"channel": general, "ts": w.find(root, "done"), "action_id": "none"})
		w.settled(general)
	})
}

// TestRefresh: Slack asks for new sockets every few hours.
func TestRefresh(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("of %d at once leaves no gap: commands and events go on", n), func(t *testing.T) {
			t.Parallel()
			w := emptyWorkspace(t, slack.Config{AckTimeout: 20 * time.Second, RefreshGrace: 300 * time.Millisecond})
			w.replica(func(cfg *Config) { cfg.Connections = n })
			w.until("all sockets", func() bool { return w.connections() == n })
			opens := func() int { list, _ := w.deliveries()["opens"].([]any); return len(list) }
			var said []string
			for round, how := range []string{"warning", "refresh"} {
				w.local(admin, "socket", map[string]any{"close": how})
				for i := 0; opens() < n*(round+2) || w.connections() > n*2-n*round || i < 20; i++ {
					if i > 2000 {
						t.Fatalf("%d sockets were opened and %d are there", opens(), w.connections())
					}
					if i%5 == 0 {
						said = append(said, w.say(member, general, "", mention+fmt.Sprintf("during %s %d", how, i)))
					}
					if res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "list"}); res["ok"] != true {
						t.Fatalf("a command during %s = %v", how, res)
					}
				}
			}
			w.settled(general)
			for _, ts := range said {
				if w.turns(ts) != 1 {
					t.Errorf("a message became %d turns", w.turns(ts))
				}
			}
			if d := w.deliveries(); d["again"] != 0.0 {
				t.Errorf("deliveries = %v, want none again", d)
			}
		})
	}
}

// TestReconnectStorm: while Slack refuses sockets, or ends them right after hello, the bot dials calmly, and is back soon after.
func TestReconnectStorm(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"dial", "after_hello", "too_many_websockets", "link_disabled"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := emptyWorkspace(t, impatient())
			w.trouble(map[string]any{"refuse": how})
			began := time.Now()
			_, _, _ = w.launch(func(cfg *Config) { cfg.Connections = 2 })
			var opens []any
			w.until("several dials of both", func() bool { opens, _ = w.deliveries()["opens"].([]any); return len(opens) >= 6 })
			took := time.Since(began)
			t.Logf("%s: %d dials of two sockets in %s", how, len(opens), took.Round(time.Millisecond))
			if took < 3*firstPause { // both at once, after a pause, and after twice that
				t.Errorf("%d dials in %s, want pauses that double", len(opens), took)
			}
			w.trouble(map[string]any{"refuse": "nothing"})
			ts := w.say(member, general, "", mention+"are you back?")
			w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		})
	}
	t.Run("never faster than the rate that all sockets share", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		spare := int(w.bot.dials.Tokens())
		began := time.Now()
		for range spare + 1 {
			if err := w.bot.awaitDial(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < dialEvery/2 || spare > dialBurst {
			t.Errorf("%d dials in %s, want the last of them to wait", spare+1, took)
		}
	})
	t.Run("Slack's own Retry-After is kept", func(t *testing.T) {
		t.Parallel()
		w := emptyWorkspace(t, impatient())
		w.fault(map[string]any{"method": "apps.connections.open", "status": 429, "retry_after": 2, "nth": 1})
		began := time.Now()
		w.replica(nil)
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("up after %s, want after 2 s", took)
		}
	})
}

// TestGhost: a socket over which nothing comes any more, not even pings, is replaced; events go on over the other meanwhile, and what
// went into the ghost is found though Slack gives it up.
func TestGhost(t *testing.T) {
	t.Parallel()
	const silence = time.Second
	w := emptyWorkspace(t, slack.Config{AckTimeout: 100 * time.Millisecond, RetryDelays: []time.Duration{}, PingInterval: silence / 4})
	root := w.say(member, general, "", "the plan")
	live := session(root)
	w.sessions.live, w.sessions.status.Session = []sessions.Session{live}, &live
	w.sessions.marks = map[string]sessions.Mark{general: {Since: sessions.TSOf(time.Now().Add(-time.Hour)), UpTo: sessions.TSOf(time.Now().Add(-time.Minute))}}
	w.replica(func(cfg *Config) { cfg.Connections, cfg.Silence = 2, silence })
	w.until("both sockets", func() bool { return w.connections() == 2 })
	w.local(admin, "socket", map[string]any{"close": "ghost", "one": true})
	began := time.Now()
	w.trouble(map[string]any{"hold": true})
	var said []string
	for i := range 6 { // each is one event, and half of them go to each socket
		said = append(said, w.say(member, general, root, fmt.Sprintf("number %d", i)))
	}
	w.trouble(map[string]any{"release": "kept"})
	w.until("those of the other", func() bool {
		return slices.ContainsFunc(said, func(ts string) bool { return w.sessions.turn(ts) != nil })
	})
	w.until("another socket in its place", func() bool {
		list, _ := w.deliveries()["opens"].([]any)
		return len(list) >= 3 // on a busy machine the other one may be silent for as long
	})
	took := time.Since(began)
	if took > 10*silence {
		t.Errorf("the ghost was noticed after %s, want soon after %s", took, silence)
	}
	for _, ts := range said {
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
	}
	for _, ts := range said {
		if w.turns(ts) != 1 {
			t.Errorf("a message became %d turns", w.turns(ts))
		}
	}
	t.Logf("noticed and replaced after %s of silence, %v", took.Round(time.Millisecond), w.deliveries())
}

// TestTwice: however often and wherever an event comes, and whichever of a mention's two comes first, it is one turn.
func TestTwice(t *testing.T) {
	t.Parallel()
	t.Run("over two sockets at once, of one replica and of two", func(t *testing.T) {
		t.Parallel()
		w := emptyWorkspace(t, impatient())
		w.replica(func(cfg *Config) { cfg.Connections = 2 })
		w.replica(nil)
		w.until("all sockets", func() bool { return w.connections() == 3 })
		w.trouble(map[string]any{"copies": 3})
		root := w.say(member, general, "", mention+"once, please")
		live := session(root)
		w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &live })
		reply := w.say(member, general, root, "and this once")
		w.until("a turn", func() bool { return w.sessions.turn(reply) != nil })
		empty := w.say(member, general, "", mention) // answered with a sentence
		w.until("a sentence", func() bool { return has(w.thread(general, empty), sayEmpty) })
		w.say(member, general, root, mention+"status")
		w.until("a whisper", func() bool { return has(w.whispered(member, general, root), "3 turns") })
		w.settled(general)
		if w.turns(root) != 1 || w.turns(reply) != 1 || strings.Count(w.thread(general, empty), `"part":"note"`) != 1 ||
			strings.Count(w.whispered(member, general, root), `"is_ephemeral":true`) != 1 {
			t.Errorf("%d and %d turns, in the thread %s, whispered %s", w.turns(root), w.turns(reply), w.thread(general, empty), w.whispered(member, general, root))
		}
	})
	for _, order := range []string{"kept", "reversed"} {
		t.Run("app_mention and message of one message, "+order, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			w.trouble(map[string]any{"hold": true})
			ts := w.say(member, general, "", mention+"one turn")
			w.trouble(map[string]any{"release": order})
			w.settled(general)
			if turn := w.sessions.turn(ts); w.turns(ts) != 1 || !turn.Mention {
				t.Errorf("%d turns, %+v", w.turns(ts), turn)
			}
		})
	}
	t.Run("a reply that comes before its mention is a turn behind it", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.sessions.set(func(f *fakeSessions) { f.busy = true })
		w.trouble(map[string]any{"hold": true})
		root := w.say(member, general, "", mention+"begin")
		reply := w.say(member, general, root, "and then")
		w.trouble(map[string]any{"release": "reversed"})
		w.until("two turns", func() bool { return w.sessions.turn(root) != nil && w.sessions.turn(reply) != nil })
		w.sessions.count(func(f *fakeSessions) int {
			if f.accepted[0].TS != root || f.accepted[1].TS != reply {
				t.Errorf("turns = %v", f.accepted)
			}
			return 0
		})
	})
}

// TestChangedBefore: an edit or a deletion that comes before its message.
func TestChangedBefore(t *testing.T) {
	t.Parallel()
	t.Run("the edit's text is run, once", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.trouble(map[string]any{"hold": true})
		ts := w.say(member, general, "", mention+"delete everything")
		w.api(member, "chat.update", url.Values{"channel": {general}, "ts": {ts}, "text": {mention + "delete nothing"}})
		w.trouble(map[string]any{"release": "reversed"})
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		w.settled(general)
		if turn := w.sessions.turn(ts); w.turns(ts) != 1 || turn.Text != "delete nothing" {
			t.Errorf("%d turns, %+v; want one of the new text", w.turns(ts), turn)
		}
	})
	t.Run("what was deleted is not run", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.trouble(map[string]any{"hold": true})
		ts := w.say(member, general, "", mention+"never mind")
		w.api(member, "chat.delete", url.Values{"channel": {general}, "ts": {ts}})
		w.trouble(map[string]any{"release": "reversed"})
		w.settled(general)
		if w.turns(ts) != 0 {
			t.Error("it was run")
		}
	})
}

// TestOddFrames: what the bot has never heard of is acked or ignored, and nothing stops.
func TestOddFrames(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	for _, frame := range []string{
		"no JSON at all", "null", "[]", "42", `{"type":`, `{}`, `{"type":7}`, `{"type":"hello"}`, `{"envelope_id":"odd-1"}`,
		`{"type":"of another time","envelope_id":"odd-2","payload":{"x":1}}`,
		`{"type":"events_api","envelope_id":"odd-3"}`, `{"type":"events_api","envelope_id":"odd-4","payload":null}`,
		`{"type":"events_api","envelope_id":"odd-5","payload":"text"}`, `{"type":"events_api","envelope_id":"odd-6","payload":{}}`,
		`{"type":"events_api","envelope_id":"odd-7","payload":{"team_id":"T0LOCAL","event":{}}}`,
		`{"type":"events_api","envelope_id":"odd-8","payload":{"event":{"type":"message"}}}`,
		`{"type":"events_api","envelope_id":"odd-9","payload":{"event":{"type":"message","subtype":"message_changed"}}}`,
		`{"type":"events_api","envelope_id":"odd-10","payload":{"event":{"type":"message","subtype":"message_deleted"}}}`,
		`{"type":"events_api","envelope_id":"odd-11","payload":{"event":{"type":"app_mention"}}}`,
		`{"type":"events_api","envelope_id":"odd-12","payload":{"event":{"type":"agent_session_stopped"}}}`,
		`{"type":"events_api","envelope_id":"odd-13","payload":{"event":{"type":"saucer_landed","user":{"id":"U1"}}}}`,
		`{"type":"events_api","envelope_id":"odd-14","payload":{"type":"app_rate_limited","minute_rate_limited":1}}`,
		`{"type":"interactive","envelope_id":"odd-15"}`, `{"type":"interactive","envelope_id":"odd-16","payload":{"type":"block_actions","actions":[{}]}}`,
		`{"type":"interactive","envelope_id":"odd-17","payload":{"type":"message_action","callback_id":"manage_session"}}`,
		`{"type":"slash_commands","envelope_id":"odd-18"}`, `{"type":"slash_commands","envelope_id":"odd-19","payload":{"text":"end"}}`,
	} {
		w.trouble(map[string]any{"frame": frame})
	}
	w.settled(general)
	w.until("an ack of each envelope", func() bool {
		acked := w.text(w.deliveries()["stray"])
		for i := 1; i <= 19; i++ {
			if !has(acked, fmt.Sprintf(`"odd-%d"`, i)) {
				return false
			}
		}
		return true
	})
	t.Run("a socket that is closed for no reason is replaced", func(t *testing.T) {
		w := w.in(t)
		w.trouble(map[string]any{"frame": `{"type":"disconnect"}`})
		w.until("another", func() bool { opens, _ := w.deliveries()["opens"].([]any); return len(opens) == 2 })
		w.settled(general)
	})
	t.Run("an event with a field of another kind is understood for the rest", func(t *testing.T) {
		w := w.in(t)
		w.trouble(map[string]any{"frame": `{"type":"events_api","envelope_id":"odd-20","retry_attempt":"none","payload":{"team_id":"T0LOCAL","event":{
			"type":"app_mention","user":"U0MEMBER","channel":"C0GENERAL","text":"<@U0FLAUDE> do it","ts":"1700000000.000100","files":"none"}}}`})
		w.until("a turn", func() bool { return w.sessions.turn("1700000000.000100") != nil })
	})
}

// TestBurst: events by the thousand at once, of five hundred messages, are taken in, each message once. What was taken is acked in time: Slack
// sends nothing again but what was left to it, when a thread's queue in the bot overflows. What Slack gives up on a busy machine is found.
func TestBurst(t *testing.T) {
	t.Parallel()
	t.Run("over many threads nothing is sent again", func(t *testing.T) {
		if d, left := burst(t, 0); d["again"] != 0.0 || left != 0 {
			t.Errorf("%v were sent again, %d were left to Slack; want none", d["again"], left)
		}
	})
	t.Run("in one thread what was left to Slack is sent again, and nothing else", func(t *testing.T) {
		d, left := burst(t, 1)
		again, _ := d["again"].(float64)
		given, _ := d["given_up"].(float64)
		late, _ := d["stray"].([]any) // acks that came too late: the machine is busy
		if sent := int(again + given); sent < left || sent > left+len(late) {
			t.Errorf("%v were sent again and %v given up, of %d that were left to Slack and %d that were acked late", again, given, left, len(late))
		}
	})
}

// leftToSlack counts the events that the bot leaves to Slack, by its log.
type leftToSlack struct {
	slog.Handler

	n *atomic.Int32
}

func (l leftToSlack) Enabled(context.Context, slog.Level) bool { return true }

func (l leftToSlack) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "event left to Slack: too many wait" {
		l.n.Add(1)
	}
	return nil
}

// burst is five hundred messages at once, every so many-th of them in one thread; 0: none. It returns what Slack saw, and how many events
// the bot left to it.
func burst(t *testing.T, inOne int) (deliveries map[string]any, left int) {
	t.Helper()
	// Slack waits for an ack for longer than it does, so that a busy machine is not the reason for what is sent again: bench/ measures acks.
	w := emptyWorkspace(t, slack.Config{AckTimeout: 10 * time.Second, RetryDelays: []time.Duration{0, time.Second, time.Second}})
	w.lookEvery = 3 * time.Second // as seldom as it is, seen from a burst
	counter := leftToSlack{slog.DiscardHandler, new(atomic.Int32)}
	w.replica(func(cfg *Config) { cfg.Connections, cfg.Log, cfg.Pace = 2, slog.New(counter), 1 })
	root := w.say(member, general, "", mention+"begin")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	live := session(root)
	w.sessions.set(func(f *fakeSessions) { f.status.Session = &live })
	w.trouble(map[string]any{"hold": true})
	said := make([]string, 500)
	var all sync.WaitGroup
	for part := range 10 {
		all.Go(func() {
			for i := part; i < len(said); i += 10 {
				thread := ""
				if inOne > 0 && i%inOne == 0 {
					thread = root
				}
				said[i] = w.say(member, general, thread, fmt.Sprintf("%snumber %d", mention, i))
			}
		})
	}
	all.Wait()
	w.trouble(map[string]any{"release": "kept"})
	w.until("all turns", func() bool {
		return w.sessions.count(func(f *fakeSessions) int { return len(f.accepted) }) >= len(said)+1
	})
	w.allAcked()
	counts := map[string]int{}
	w.sessions.count(func(f *fakeSessions) int {
		for _, turn := range f.accepted {
			counts[turn.TS]++
		}
		return 0
	})
	for _, ts := range said {
		if counts[ts] != 1 {
			t.Errorf("a message became %d turns", counts[ts])
		}
	}
	return w.deliveries(), int(counter.n.Load())
}
