package sessions

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
	"flaudebot/runner"
)

// TestOneSession: however many replicas accept turns of a thread at once, it has one session.
func TestOneSession(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	linger := func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = 60 }
	replicas := []*replica{b.replica(linger).start(), b.replica(linger).start()}
	const turns, each = 5, 4
	var queued, duplicate atomic.Int32
	var offers sync.WaitGroup
	for i := range turns * each {
		offers.Go(func() {
			res, err := replicas[i%2].Accept(t.Context(), turn(fmt.Sprintf("%d", 101+i%turns), "hello", true))
			switch {
			case err != nil:
				t.Errorf("Accept = %v", err)
			case res.Status == AcceptQueued:
				queued.Add(1)
			case res.Status == AcceptDuplicate:
				duplicate.Add(1)
			}
		})
	}
	offers.Wait()
	if queued.Load() != turns || duplicate.Load() != turns*(each-1) {
		t.Errorf("%d were queued and %d known, want %d and %d", queued.Load(), duplicate.Load(), turns, turns*(each-1))
	}
	for i := range turns {
		b.answered(replicas[0], turn(fmt.Sprintf("%d", 101+i), "", true))
	}
	b.have(1, 1)
	if m, v := b.asked(postMachine), b.asked(postVolume+" 200"); m != 1 || v != 1 {
		t.Errorf("%d machines and %d volumes were made", m, v)
	}
	ids := map[string]bool{}
	for _, take := range b.runner.taken() {
		ids[take.Turn.SessionID] = true
	}
	s := replicas[1].session()
	if len(ids) != 1 || !ids[s.SessionID] || s.Turns != turns || s.CostUSD != turns*0.5 {
		t.Errorf("sessions %v ran, on record is %+v", ids, s)
	}
	for i := range turns {
		b.wasOnce(turn(fmt.Sprintf("%d", 101+i), "", true))
	}
	if all, err := replicas[0].List(t.Context(), "T1", "C1"); err != nil || len(all) != 1 {
		t.Errorf("List = %v, %v, want one", names(all), err)
	}
	b.runner.mu.Lock()
	defer b.runner.mu.Unlock()
	if b.runner.crowded != 0 {
		t.Errorf("%d turns came while another one ran", b.runner.crowded)
	}
}

// wasOnce fails unless the turn ran once and each part of its answer was posted once.
func (b *bot) wasOnce(t Turn) {
	b.t.Helper()
	if n := b.runner.ran(t.ID); n != 1 {
		b.t.Errorf("%s ran %d times", t.ID, n)
	}
	for _, part := range []string{"live", "1", "2"} {
		if n := len(b.front.of(t.ID, part)); n != 1 {
			b.t.Errorf("part %s of %s was posted %d times", part, t.ID, n)
		}
	}
}

// crash is a hook of a replica's Redis client that ends the replica at the n-th write of a stage, as a kill
// would: from then on nothing it says reaches Redis.
type crash struct {
	stage  Stage
	nth    int
	before bool // it dies with the write on its lips
	die    func()
	dead   atomic.Bool
}

// stageDone stands for the end of the job.
const stageDone Stage = "done"

var errDead = errors.New("this replica is dead")

func (c *crash) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *crash) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if c.dead.Load() {
			return errDead
		}
		return next(ctx, cmds)
	}
}

func (c *crash) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if c.dead.Load() {
			return errDead
		}
		// EVALSHA hash 2 keys, then prefix, key, id, fence, stage, notes; the end of a job is a step with one more triple.
		args := cmd.Args()
		stage := Stage("")
		switch {
		case args[0] != "evalsha":
		case len(args) == 11:
			stage = Stage(fmt.Sprint(args[9]))
		case len(args) == 15:
			stage = stageDone
		}
		if stage != c.stage {
			return next(ctx, cmd)
		}
		if c.nth--; c.nth != 0 {
			return next(ctx, cmd)
		}
		if !c.before {
			_ = next(ctx, cmd)
		}
		c.dead.Store(true)
		c.die()
		cmd.SetErr(errDead)
		return errDead
	}
}

// TestTakeover: a replica dies at each stage of a turn, and another one brings it to its end: it runs once and is
// answered once.
func TestTakeover(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{KindTurn, KindOnce} {
		for _, c := range []struct {
			stage Stage
			nth   int
		}{
			{StageClaimed, 1},
			{StageStarting, 1},
			{StageStarting, 2}, // with the machine's lease
			{StageStarted, 1},
			{StageResult, 1},
			{StagePosting, 1},
			{StagePosted, 1},
			{stageDone, 1},
		} {
			if kind == KindOnce && c.nth == 1 && c.stage != StageStarted && c.stage != StagePosting && c.stage != stageDone {
				continue // as with a session
			}
			for _, before := range []bool{true, false} {
				if c.stage == stageDone && !before {
					continue // then it is done
				}
				when := map[bool]string{true: "before", false: "after"}[before]
				t.Run(fmt.Sprintf("%s: %s %s is written, %d", kind, when, c.stage, c.nth), func(t *testing.T) {
					t.Parallel()
					b := newBot(t)
					short := func(_ *ServiceConfig, m *MachinesConfig) { m.LeaseTTL = 2 * time.Second }
					first := b.replica(short)
					hook := &crash{stage: c.stage, nth: c.nth, before: before}
					first.warm() // scripts are known: a write is one command
					first.rdb.AddHook(hook)
					ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
					hook.die = cancel
					var gone sync.WaitGroup
					gone.Go(func() { _ = first.Run(ctx) })
					t.Cleanup(func() { cancel(); gone.Wait() })

					second := b.replica(short)
					one := turn("101", "hello", true)
					one.Kind = kind
					second.accept(one)
					b.until("the crash", hook.dead.Load)
					died := time.Now()
					second.start()
					out := b.answered(second, one)
					if known := c.stage != StageClaimed || !before; out.Claimed.IsZero() || known && out.Claimed.After(died) {
						t.Errorf("claimed at %v, the first owner died at %v: want when the first claimed it, if that was written", out.Claimed, died)
					}
					if out.Failure != runner.FailNone || out.Answer != "answer to hello" {
						t.Errorf("the outcome is %+v", out)
					}
					b.wasOnce(one)
					record := slices.DeleteFunc(ids(audit(t, second.Service, AuditFilter{})), func(id string) bool { return id == "turn_asked:warm" })
					if want := []string{"turn_asked:" + string(one.ID), "turn_ended:" + string(one.ID)}; !slices.Equal(record, want) {
						t.Errorf("on record: %q, want %q", record, want)
					}
					if c.stage != stageDone && !b.front.wasQuieted(one.ID) {
						t.Error("the first owner let the turn go before its live message was quiet")
					}
					if kind == KindOnce {
						b.have(0, 0)
						return
					}
					two := second.accept(turn("102", "and", false))
					if out := b.answered(second, two); out.Number != 2 || out.Answer != "answer to and" {
						t.Errorf("the next turn ended with %+v", out)
					}
					b.wasOnce(two)
					b.have(1, 1)
					if s := second.session(); s.Turns != 2 || s.CostUSD != 1 {
						t.Errorf("on record is %+v, want two turns counted", s)
					}
				})
			}
		}
	}
}

// warm loads the queue's scripts.
func (r *replica) warm() {
	r.t.Helper()
	q := r.cfg.Queue
	stop := make(chan struct{})
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	th := Thread{Team: "T0", Channel: "C0", TS: "1"}
	if _, err := r.Accept(ctx, Turn{ID: "warm", Kind: KindEnd, Thread: th}); err != nil {
		r.t.Fatal(err)
	}
	sv := *r.Service
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = q.Run(ctx, func(ctx context.Context, c *queue.Claim) queue.Verdict {
			_ = c.SetStage(ctx, "warm", nil)
			defer close(stop)
			return sv.handle(ctx, c)
		})
	}()
	<-stop
	cancel()
	<-done
}

func TestPosting(t *testing.T) {
	t.Parallel()
	t.Run("a post whose answer was lost is looked for, not repeated", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		b.front.lose = map[string]int{"live": 1, "2": 2}
		r := b.replica(nil).start()
		one := r.accept(turn("101", "hello", true))
		b.answered(r, one)
		b.wasOnce(one)
	})
	t.Run("a live message whose answer was lost, and that is not found at once, is looked for in the end", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		b.front.lose, b.front.blind = map[string]int{"live": 1}, true
		r := b.replica(nil).start()
		one := r.accept(turn("101", "hello", true))
		b.answered(r, one)
		b.wasOnce(one)
		if !b.front.lookedFor(one.ID) {
			t.Error("it was not looked for")
		}
	})
	t.Run("a turn that brings down everybody is given up", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		w := &work{sv: r.Service, turn: turn("101", "hello", true), claim: &queue.Claim{Takes: maxTakes + 1}, stage: StageClaimed}
		out, err := w.attempt(t.Context(), &Session{})
		if err != nil || out.Failure != FailRepeated {
			t.Errorf("attempt = %+v, %v, want %s", out, err, FailRepeated)
		}
	})
}

func TestAccept(t *testing.T) {
	t.Parallel()
	t.Run("a waiting turn can be edited and taken back, and one that is known is not taken again", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		one, two := r.accept(turn("101", "one", true)), turn("102", "two", false)
		if res, err := r.Accept(t.Context(), two); err != nil || res.Ahead != 1 {
			t.Errorf("Accept = %+v, %v, want one ahead", res, err)
		}
		if res, err := r.Accept(t.Context(), one); err != nil || res.Status != AcceptDuplicate {
			t.Errorf("Accept again = %+v, %v", res, err)
		}
		one.Text = "edited"
		if ok, err := r.Edit(t.Context(), one, "5"); err != nil || !ok {
			t.Errorf("Edit = %v, %v", ok, err)
		}
		if ok, err := r.Edit(t.Context(), one, "4"); err != nil || ok {
			t.Errorf("Edit with an older revision = %v, %v", ok, err)
		}
		if waiting, running, err := r.Cancel(t.Context(), thread(), two.ID); err != nil || !waiting || running {
			t.Errorf("Cancel = %v, %v, %v", waiting, running, err)
		}
		st, err := r.Status(t.Context(), thread())
		if err != nil || st.Running != nil || len(st.Queued) != 1 || st.Queued[0].Text != "edited" || st.Session != nil {
			t.Errorf("Status = %+v, %v", st, err)
		}
		r.start()
		if out := b.answered(r, one); out.Answer != "answer to edited" {
			t.Errorf("the outcome is %+v", out)
		}
		if n := b.runner.ran(two.ID); n != 0 {
			t.Error("the turn that was taken back ran")
		}
	})
	t.Run("one that was forestalled is not taken, and one that came before that is taken back", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		one, two := r.accept(turn("101", "one", true)), turn("102", "two", true)
		for _, late := range []Turn{one, two} {
			if err := r.Forestall(t.Context(), thread(), late.ID); err != nil {
				t.Fatal(err)
			}
		}
		if res, err := r.Accept(t.Context(), two); err != nil || res.Status != AcceptDuplicate {
			t.Errorf("Accept = %+v, %v, want it known", res, err)
		}
		if st, err := r.Status(t.Context(), thread()); err != nil || st.Running != nil || len(st.Queued) != 0 {
			t.Errorf("Status = %+v, %v, want that nothing waits", st, err)
		}
	})
	t.Run("one that was passed over is not taken, and one that came before that stays", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		one, two := r.accept(turn("101", "one", true)), turn("102", "two", true)
		for _, people := range []Turn{one, two} {
			if err := r.PassOver(t.Context(), people.ID); err != nil {
				t.Fatal(err)
			}
		}
		if res, err := r.Accept(t.Context(), two); err != nil || res.Status != AcceptDuplicate {
			t.Errorf("Accept = %+v, %v, want it known", res, err)
		}
		if st, err := r.Status(t.Context(), thread()); err != nil || len(st.Queued) != 1 || st.Queued[0].ID != one.ID {
			t.Errorf("Status = %+v, %v, want the first alone", st, err)
		}
	})
	t.Run("a turn that is answered, and whose machine goes to sleep, is ahead of nobody", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		r.accept(turn("101", "one", true))
		ctx, cancel := context.WithCancel(t.Context())
		running, accepted, ended := make(chan Stage), make(chan struct{}), make(chan error)
		go func() {
			ended <- r.cfg.Queue.Run(ctx, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				for _, stage := range []Stage{StageStarted, StagePosted} {
					if err := c.SetStage(ctx, string(stage), nil); err != nil {
						t.Errorf("SetStage = %v", err)
					}
					running <- stage
					<-accepted
				}
				<-ctx.Done()
				return queue.Handoff()
			})
		}()
		for i, want := range []int{1, 1} { // the second has the first of these before it, and not the one that is answered
			stage := <-running
			if res, err := r.Accept(t.Context(), turn(fmt.Sprint(102+i), "more", false)); err != nil || res.Ahead != want {
				t.Errorf("%s: Accept = %+v, %v; want %d ahead", stage, res, err, want)
			}
			if st, err := r.Status(t.Context(), thread()); err != nil || st.Running == nil || st.Over != (stage == StagePosted) {
				t.Errorf("%s: Status = %+v, %v; want it to tell whether the turn is over", stage, st, err)
			}
			accepted <- struct{}{}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Run("a running turn is stopped, and the thread goes on", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		if stopped, err := r.Stop(t.Context(), thread()); err != nil || stopped != nil {
			t.Errorf("Stop of nothing = %v, %v", stopped, err)
		}
		one := r.accept(turn("101", "hold", true))
		b.until("a running turn", func() bool { return b.runner.ran(one.ID) == 1 })
		if stopped, err := b.replica(nil).Stop(t.Context(), thread()); err != nil || stopped == nil || stopped.ID != one.ID {
			t.Errorf("Stop by another replica = %v, %v", stopped, err)
		}
		if out := b.answered(r, one); out.Failure != runner.FailStopped || out.ExitCode != 130 {
			t.Errorf("the outcome is %+v", out)
		}
		if out := b.answered(r, r.accept(turn("102", "two", false))); out.Answer != "answer to two" {
			t.Errorf("the next turn ended with %+v", out)
		}
	})
	t.Run("a reply in a thread without a session is told so, and begins none", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		if out := b.answered(r, r.accept(turn("101", "hello", false))); out.Failure != FailEnded || out.Number != 1 {
			t.Errorf("the outcome is %+v, want %s", out, FailEnded)
		}
		if s := r.session(); s != nil {
			t.Errorf("on record is %+v", s)
		}
		b.have(0, 0)
	})
	t.Run("what is said once is said once, whoever asks", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		for i, want := range []bool{true, false} {
			if first, err := b.replica(nil).Once(t.Context(), "hint"); err != nil || first != want {
				t.Errorf("replica %d: Once = %v, %v", i, first, err)
			}
		}
	})
	t.Run("a service needs Redis and a queue", func(t *testing.T) {
		t.Parallel()
		if sv, err := NewService(ServiceConfig{}); err == nil {
			t.Errorf("NewService = %v", sv)
		}
	})
}

func TestRunOnceTurn(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	r := b.replica(nil).start()
	one := turn("101", "hello", true)
	one.Kind = KindOnce
	r.accept(one)
	if out := b.answered(r, one); out.Answer != "answer to hello" {
		t.Errorf("the outcome is %+v", out)
	}
	b.have(0, 0)
	if s := r.session(); s != nil {
		t.Errorf("it left a record: %+v", s)
	}
}

func TestEnd(t *testing.T) {
	t.Parallel()
	t.Run("in mid-turn: the turn is stopped and posts its end, the waiting ones are dropped, then all is destroyed", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		one := r.accept(turn("101", "hold", true))
		b.until("a running turn", func() bool { return b.runner.ran(one.ID) == 1 })
		two, three := r.accept(turn("102", "two", false)), r.accept(turn("103", "three", true))
		before := r.session()
		ending, err := b.replica(nil).End(t.Context(), thread(), "U2", "")
		if err != nil || ending.Stopped == nil || ending.Stopped.ID != one.ID || len(ending.Dropped) != 2 ||
			ending.Dropped[0].ID != two.ID || ending.Dropped[1].ID != three.ID || ending.Session.SessionID != before.SessionID {
			t.Fatalf("End = %+v, %v", ending, err)
		}
		b.idle(r)
		if out := b.front.of(one.ID, "1"); len(out) != 1 || out[0].outcome.Failure != runner.FailStopped {
			t.Errorf("the turn's end is %+v", out)
		}
		for _, dropped := range []Turn{two, three} {
			if b.runner.ran(dropped.ID) != 0 || len(b.front.of(dropped.ID, "live")) != 0 {
				t.Errorf("%s was not dropped", dropped.ID)
			}
		}
		b.have(0, 0)
		s := r.session()
		if !s.Ended() || s.EndReason != EndByPerson || s.onFly() || s.SessionID != before.SessionID {
			t.Errorf("on record is %+v", s)
		}
		b.front.mu.Lock()
		last := b.front.posts[len(b.front.posts)-1]
		b.front.mu.Unlock()
		if bye := b.front.goodbyes(); len(bye) != 1 || !bye[0].outcome.Destroyed || last.turn != bye[0].turn {
			t.Errorf("the end was posted as %+v, and last came %+v", bye, last)
		}
		if all, err := r.List(t.Context(), "", ""); err != nil || len(all) != 0 {
			t.Errorf("List = %v, %v", names(all), err)
		}

		if ending, err := r.End(t.Context(), thread(), "U1", ""); !errors.Is(err, ErrNoSession) {
			t.Errorf("End of what has ended = %+v, %v, want ErrNoSession", ending, err)
		}
		reply := r.accept(turn("104", "are you there?", false))
		if out := b.answered(r, reply); out.Failure != FailEnded || out.Number != r.session().Turns+1 || b.runner.ran(reply.ID) != 0 {
			t.Errorf("a reply after the end: %+v, want %s", out, FailEnded)
		}
		b.have(0, 0)
		mention := r.accept(turn("105", "again", true))
		if out := b.answered(r, mention); out.Answer != "answer to again" || out.Number != 1 {
			t.Errorf("a mention after the end: %+v", out)
		}
		if fresh := r.session(); fresh.SessionID == s.SessionID || fresh.Ended() || len(fresh.Left) != 0 {
			t.Errorf("on record is %+v, want a fresh session", fresh)
		}
		b.have(1, 1)
	})
	t.Run("there is nothing to end", func(t *testing.T) {
		t.Parallel()
		r := newBot(t).replica(nil)
		if ending, err := r.End(t.Context(), thread(), "U1", ""); !errors.Is(err, ErrNoSession) {
			t.Errorf("End = %+v, %v, want ErrNoSession", ending, err)
		}
	})
	t.Run("an end that comes again leaves alone what began after it", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		const said = "103.000000"
		refused := func(when string) {
			t.Helper()
			if ending, err := r.End(t.Context(), thread(), "U1", said); !errors.Is(err, ErrBegunSince) {
				t.Errorf("End of %s = %+v, %v, want ErrBegunSince", when, ending, err)
			}
		}
		fresh := r.accept(turn("104", "of the fresh session", true))
		refused("a mention that waits")
		r.start()
		b.answered(r, fresh)
		refused("a session")
		if s := r.session(); s.Ended() || s.Since != "104" {
			t.Errorf("on record is %+v", s)
		}
		if _, err := r.End(t.Context(), thread(), "U1", "105.000000"); err != nil {
			t.Errorf("End that was said after it: %v", err)
		}
		b.idle(r)
		again := turn("104", "of the fresh session", true) // its Retry button was pressed, after the end was said
		again.ID += "-retry-104.5"
		b.answered(r, r.accept(again))
		if _, err := r.End(t.Context(), thread(), "U1", "105.000000"); !errors.Is(err, ErrBegunSince) {
			t.Errorf("End of a session that a Retry began: %v, want ErrBegunSince", err)
		}
		unknown := Session{CreatedAt: time.Unix(103, 0)} // made from what Fly has
		for at, want := range map[string]bool{"103.000000": true, "104.000000": true, "109.000000": false} {
			if got := (Status{Session: &unknown}).BegunAfter(at); got != want {
				t.Errorf("by our own clock it began after %s: %v, want %v", at, got, want)
			}
		}
	})
	t.Run("what waits without a session is dropped", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		one := r.accept(turn("101", "one", true))
		if ending, err := r.End(t.Context(), thread(), "U1", ""); err != nil || len(ending.Dropped) != 1 || ending.Dropped[0].ID != one.ID {
			t.Errorf("End = %+v, %v", ending, err)
		}
		if ending, err := r.End(t.Context(), thread(), "U1", ""); !errors.Is(err, ErrNoSession) {
			t.Errorf("End while the end waits = %+v, %v, want ErrNoSession: there is nothing more to end", ending, err)
		}
		r.start()
		b.idle(r)
		if b.runner.ran(one.ID) != 0 || r.session() != nil {
			t.Errorf("it ran, or left %+v", r.session())
		}
	})
	t.Run("twice is once", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.faults(map[string]any{"method": "machine.delete", "nth": 1, "delay_ms": 300})
		for range 3 {
			if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil && !errors.Is(err, ErrNoSession) {
				t.Errorf("End = %v", err)
			}
		}
		b.idle(r)
		b.have(0, 0)
		if bye := b.front.goodbyes(); len(bye) != 1 {
			t.Errorf("the end was posted %d times: %+v", len(bye), bye)
		}
	})
	t.Run("of a session that was lost meanwhile ends the one in its place", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		s := r.session()
		sc := &script{world: b.world, s: *s}
		destroyMachine(t, sc)
		if err := b.fly.DeleteVolume(t.Context(), testApp, s.VolumeID); err != nil {
			t.Fatal(err)
		}
		var end sync.Once
		b.answering(func(_ http.ResponseWriter, req *http.Request) bool {
			if strings.HasSuffix(req.URL.Path, "/volumes/"+s.VolumeID) {
				end.Do(func() {
					if _, err := b.replica(nil).End(context.WithoutCancel(t.Context()), thread(), "U1", ""); err != nil {
						t.Errorf("End = %v", err)
					}
				})
			}
			return false
		})
		b.answered(r, r.accept(turn("102", "two", false)))
		if got := r.session(); got.SessionID == s.SessionID || !got.Ended() {
			t.Errorf("on record is %+v, want the session after %s, ended", got, s.SessionID)
		}
		if len(b.front.goodbyes()) != 1 {
			t.Errorf("the end was posted %d times", len(b.front.goodbyes()))
		}
	})
	t.Run("one that cannot remove everything says so, and is tried again until it can", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.faults(map[string]any{"method": "volume.delete", "status": 403})
		if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		b.idle(r)
		if bye := b.front.goodbyes(); len(bye) != 1 || bye[0].outcome.Failure != FailFlyAccess || bye[0].outcome.Destroyed {
			t.Fatalf("the end was posted as %+v", bye)
		}
		if s := r.session(); !s.Ended() || s.VolumeID == "" {
			t.Errorf("on record is %+v, want that the volume is left", s)
		}
		b.reap(r, time.Now()) // too early
		if n := b.asked("DELETE /v1/apps/acme/volumes"); n != 1 {
			t.Errorf("%d removals were tried, want one so far", n)
		}
		later := time.Now().Add(time.Hour)
		b.reap(r, later)
		b.reap(r, later.Add(time.Second)) // once an hour
		if n, bye := b.asked("DELETE /v1/apps/acme/volumes"), b.front.goodbyes(); n != 2 || len(bye) != 1 {
			t.Errorf("%d removals were tried and told %d times, want 2 and 1", n, len(bye))
		}
		b.faults(nil)
		b.reap(r, later.Add(time.Hour))
		b.have(0, 0)
		if bye := b.front.goodbyes(); len(bye) != 2 || !bye[1].outcome.Destroyed {
			t.Errorf("what was told is %+v, want that it is gone now", bye)
		}
		b.reap(r, later.Add(2*time.Hour)) // and that was that
		if len(b.front.goodbyes()) != 2 {
			t.Errorf("the end was posted %d times", len(b.front.goodbyes()))
		}
	})
	t.Run("a fresh session begins before the old one is removed: nothing is forgotten", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.faults(map[string]any{"method": "machine.delete", "status": 403})
		if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		b.idle(r)
		old := r.session()
		if out := b.answered(r, r.accept(turn("102", "two", true))); out.Answer != "answer to two" {
			t.Errorf("the fresh session's turn ended with %+v", out)
		}
		b.have(2, 2)
		fresh := r.session()
		if fresh.SessionID == old.SessionID || len(fresh.Left) != 1 || fresh.Left[0].MachineID != old.MachineID || fresh.Left[0].VolumeID != old.VolumeID {
			t.Fatalf("on record is %+v, want that %+v is left", fresh, old)
		}
		b.reap(r, time.Now().Add(time.Minute))
		b.have(2, 2)
		b.faults(nil)
		b.reap(r, time.Now().Add(2*time.Hour))
		b.have(1, 1)
		s := r.session()
		if len(s.Left) != 0 || s.Ended() || s.MachineID != fresh.MachineID || b.machinesIn(testApp)[0].ID != s.MachineID {
			t.Errorf("on record is %+v, want the fresh session alone", s)
		}
		if bye := b.front.goodbyes(); len(bye) != 1 {
			t.Errorf("the end was posted %d times", len(bye))
		}
	})
	t.Run("a crash in the middle of it is gone on with", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		r.stop()
		first := b.replica(nil)
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		var gone sync.WaitGroup
		t.Cleanup(func() { cancel(); gone.Wait() })
		b.answering(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/volumes/") {
				cancel() // the machine is gone, the volume not yet
			}
			return false
		})
		if _, err := first.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		gone.Go(func() { _ = first.Run(ctx) })
		<-ctx.Done()
		second := b.replica(nil).start()
		b.idle(second)
		b.have(0, 0)
		if bye := b.front.goodbyes(); len(bye) != 1 || !bye[0].outcome.Destroyed {
			t.Errorf("the end was posted as %+v", bye)
		}
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	r := newBot(t).replica(nil)
	for i, s := range []Session{
		{SessionID: "a", Thread: Thread{"T1", "C1", "1"}, LastTurn: at("2026-01-01T00:00:00Z")},
		{SessionID: "b", Thread: Thread{"T1", "C1", "2"}, LastTurn: at("2026-01-03T00:00:00Z")},
		{SessionID: "c", Thread: Thread{"T1", "C2", "3"}, LastTurn: at("2026-01-02T00:00:00Z")},
		{SessionID: "d", Thread: Thread{"T2", "C1", "4"}, LastTurn: at("2026-01-04T00:00:00Z")},
		{SessionID: "ended", Thread: Thread{"T1", "C1", "5"}, LastTurn: at("2026-01-05T00:00:00Z"), EndedAt: at("2026-01-06T00:00:00Z"), VolumeID: "v"},
	} {
		if err := r.store.Put(t.Context(), s, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		team, channel string
		want          []string
	}{{"", "", []string{"d", "b", "c", "a"}}, {"T1", "", []string{"b", "c", "a"}}, {"T1", "C1", []string{"b", "a"}}, {"T1", "C9", nil}} {
		if got, err := r.List(t.Context(), c.team, c.channel); err != nil || !slices.Equal(names(got), c.want) {
			t.Errorf("List(%q, %q) = %v, %v, want %v", c.team, c.channel, names(got), err, c.want)
		}
	}
}
