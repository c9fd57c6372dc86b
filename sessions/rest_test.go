package sessions

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	"flaudebot/queue"
	"flaudebot/runner"
)

// unstoppable has Fly refuse to stop machines with a status, and runners that hear no acknowledgement; it returns how to end that.
func (b *bot) unstoppable(status int) (mend func()) {
	b.runner.answers("ack", func() (any, error) { return nil, errRunner })
	b.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/stop") {
			return false
		}
		w.WriteHeader(status)
		return true
	})
	return func() { b.answering(nil); b.runner.answers("ack", nil) }
}

func (b *bot) stateOf(s *Session) string {
	b.t.Helper()
	mach, err := b.fly.Machine(b.t.Context(), testApp, s.MachineID)
	if err != nil {
		b.t.Fatal(err)
	}
	return mach.State
}

// TestSettleIsBestEffort: a machine that cannot be stopped after its turn was answered holds nobody up, and is stopped later.
func TestSettleIsBestEffort(t *testing.T) {
	t.Parallel()
	short := func(_ *ServiceConfig, m *MachinesConfig) { m.Patience, m.LeaseTTL = 2*time.Second, time.Second }
	for name, status := range map[string]int{"Fly does not answer": 503, "Fly refuses the token": 401, "the host refuses": 412} {
		t.Run(name+": the next turn runs, and the reaper stops the machine", func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			mend := b.unstoppable(status)
			r := b.replica(short).start()
			b.answered(r, r.accept(turn("101", "one", true)))
			if out := b.answered(r, r.accept(turn("102", "two", false))); out.Answer != "answer to two" || out.Number != 2 {
				t.Errorf("the next turn ended with %+v", out)
			}
			s := r.session()
			if state := b.stateOf(s); state != "started" {
				t.Fatalf("the machine is %s: the test shows nothing", state)
			}
			mend()
			b.reap(r, time.Now().Add(restGrace-time.Minute))
			if state := b.stateOf(s); state != "started" {
				t.Errorf("the machine is %s before its time", state)
			}
			b.reap(r, time.Now().Add(2*restGrace))
			b.until("a stopped machine", func() bool { return b.stateOf(s) == "stopped" })
			if out := b.answered(r, r.accept(turn("103", "three", false))); out.Answer != "answer to three" {
				t.Errorf("the turn after that ended with %+v", out)
			}
		})
	}
	t.Run("an end is not held up either", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		b.unstoppable(503)
		r := b.replica(short).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		b.until("the end", func() bool { return len(b.front.goodbyes()) == 1 })
		b.idle(r)
		b.have(0, 0)
	})
	t.Run("a turn that is answered is done even when it was put off too often", func(t *testing.T) {
		t.Parallel()
		w := &work{sv: newBot(t).replica(nil).Service, turn: turn("101", "one", true), claim: &queue.Claim{Tries: maxTries}, stage: StagePosted}
		w.log = w.sv.log
		if err := w.giveUp(t.Context(), errStale); err != nil {
			t.Errorf("giveUp = %v", err)
		}
	})
}

// TestRest: the reaper stops no machine that somebody uses.
func TestRest(t *testing.T) {
	t.Parallel()
	started := func(t *testing.T, change func(*ServiceConfig, *MachinesConfig)) (*bot, *replica, *Session) {
		t.Helper()
		b := newBot(t)
		r := b.replica(change)
		s := b.left(r, nil)
		r.record(s)
		return b, r, &s
	}
	t.Run("not while a turn is queued", func(t *testing.T) {
		t.Parallel()
		b, r, s := started(t, nil)
		r.accept(turn("101", "one", true))
		if err := r.Reap(t.Context(), time.Now().Add(2*restGrace)); err != nil || b.stateOf(s) != "started" {
			t.Errorf("Reap = %v, the machine is %s", err, b.stateOf(s))
		}
	})
	t.Run("not while a turn is running", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		one := r.accept(turn("101", "hold", true))
		b.until("a running turn", func() bool { return b.runner.ran(one.ID) == 1 })
		if err := r.Reap(t.Context(), time.Now().Add(2*restGrace)); err != nil {
			t.Fatal(err)
		}
		b.runner.release()
		if out := b.answered(r, one); out.Failure != runner.FailNone || b.runner.ran(one.ID) != 1 {
			t.Errorf("the turn ended with %+v", out)
		}
	})
	t.Run("not while somebody holds its lease", func(t *testing.T) {
		t.Parallel()
		b, r, s := started(t, nil)
		if _, err := b.fly.AcquireLease(t.Context(), testApp, s.MachineID, time.Minute, "somebody"); err != nil {
			t.Fatal(err)
		}
		if err := r.Reap(t.Context(), time.Now().Add(2*restGrace)); err != nil || b.stateOf(s) != "started" {
			t.Errorf("Reap = %v, the machine is %s", err, b.stateOf(s))
		}
	})
	t.Run("not while it lingers", func(t *testing.T) {
		t.Parallel()
		b, r, s := started(t, func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = 3600 })
		if err := r.Reap(t.Context(), time.Now().Add(time.Hour)); err != nil || b.stateOf(s) != "started" {
			t.Errorf("Reap = %v, the machine is %s", err, b.stateOf(s))
		}
		b.reap(r, time.Now().Add(time.Hour+2*restGrace))
		b.until("a stopped machine", func() bool { return b.stateOf(s) == "stopped" })
		if _, err := b.fly.AcquireLease(t.Context(), testApp, s.MachineID, time.Minute, "somebody"); errors.Is(err, fly.ErrLeaseHeld) {
			t.Error("the reaper keeps the lease")
		}
	})
}

// TestUnsure: after a machine has died in mid-turn nobody knows what the workspace holds, until the next turn tells.
func TestUnsure(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Repos = []runner.Repo{{URL: "/some/site"}} }).start()
	one := r.accept(turn("101", "hold", true))
	b.until("a running turn", func() bool { return b.runner.ran(one.ID) == 1 })
	b.local("kill", map[string]any{"machine": r.session().MachineID})
	if out := b.answered(r, one); out.Failure != FailMachine {
		t.Fatalf("the outcome is %+v", out)
	}
	if got := r.session().Unpushed(); len(got) != 1 || got[0] != (runner.RepoState{Dir: "site", Unknown: true}) {
		t.Errorf("Unpushed = %+v, want that nobody knows", got)
	}
	b.answered(r, r.accept(turn("102", "two", false)))
	if got := r.session().Unpushed(); len(got) != 0 {
		t.Errorf("Unpushed = %+v, want what the last turn told", got)
	}
}

// TestGivenUp: nothing keeps a thread waiting for ever.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	t.Run("a turn that was put off too often is told so", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		s := r.cfg.Machines.Begin(Spec{Thread: thread(), Owner: "U1"}, time.Now())
		if err := r.store.Put(t.Context(), s, 1<<52); err != nil { // by a claim that is newer than any
			t.Fatal(err)
		}
		one, end := r.accept(turn("101", "one", true)), turn("102", "", false)
		end.ID, end.Kind, end.Reason, end.Session = "end:x", KindEnd, EndByPerson, s.SessionID
		r.accept(end)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- r.cfg.Queue.Run(ctx, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				c.Tries = maxTries
				return r.handle(ctx, c)
			})
		}()
		if out := b.answered(r, one); out.Failure != FailStuck || out.Number != 1 {
			t.Errorf("the outcome is %+v, want %s", out, FailStuck)
		}
		if bye := b.front.goodbyes(); len(bye) != 1 || bye[0].outcome.Failure != FailStuck {
			t.Errorf("the end was posted as %+v", bye)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Run("before that it is put off", func(t *testing.T) {
		t.Parallel()
		w := &work{claim: &queue.Claim{Tries: maxTries - 1}}
		if w.hopeless(errStale) {
			t.Error("it is given up early")
		}
	})
	t.Run("a record that cannot be read is told at once", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		if err := b.rdb.HSet(t.Context(), r.store.session(thread()), "json", "{").Err(); err != nil {
			t.Fatal(err)
		}
		one := r.accept(turn("101", "one", true))
		b.until("the answer", func() bool { return len(b.front.of(one.ID, "2")) > 0 })
		if out := b.front.of(one.ID, "1")[0].outcome; out.Failure != FailRecord || out.Number != 1 {
			t.Errorf("the outcome is %+v, want %s", out, FailRecord)
		}
		b.until("an empty queue", func() bool {
			q, err := r.cfg.Queue.Inspect(t.Context(), thread().Key())
			return err == nil && len(q.Jobs) == 0
		})
	})
}
