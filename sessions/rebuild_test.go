package sessions

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"flaudebot/runner"
)

// TestRedisForgets: whatever Redis loses, a thread goes on with its conversation, on its machine.
func TestRedisForgets(t *testing.T) {
	t.Parallel()
	watchful := func(c *ServiceConfig, m *MachinesConfig) {
		c.WatchEvery, m.LeaseTTL = 200*time.Millisecond, 2*time.Second
	}
	// same fails unless the thread's session is the one that it was, and everything it had is there once.
	same := func(t *testing.T, b *bot, r *replica, was *Session, turns int) {
		t.Helper()
		b.have(1, 1)
		s := r.session()
		if s == nil || s.SessionID != was.SessionID || s.MachineID != was.MachineID || s.VolumeID != was.VolumeID || s.Ended() || s.Rebuilt {
			t.Fatalf("on record is %+v, want the session %+v", s, was)
		}
		if s.Turns != turns || s.Owner != was.Owner || !s.CreatedAt.Equal(was.CreatedAt) && s.CreatedAt.Sub(was.CreatedAt).Abs() > soon {
			t.Errorf("on record is %+v, want what it was, %+v, with %d turns", s, was, turns)
		}
		if len(s.Left) != 0 {
			t.Errorf("left are %v", s.Left)
		}
	}
	for name, mention := range map[string]bool{"a reply": false, "a mention": true} {
		t.Run(name+" goes on with the conversation", func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.replica(watchful).start()
			b.answered(r, r.accept(turn("101", "one", true)))
			b.answered(r, r.accept(turn("102", "two", false)))
			was := r.session()
			b.mini.FlushAll()
			three := r.accept(turn("103", "three", mention))
			if out := b.answered(r, three); out.Number != 3 || out.Answer != "answer to three" {
				t.Errorf("the outcome is %+v, want the third turn's", out)
			}
			b.wasOnce(three)
			same(t, b, r, was, 3)
			if takes := b.runner.taken(); takes[2].Turn.SessionID != was.SessionID || takes[2].Fence <= takes[1].Fence {
				t.Errorf("the third turn was handed over as %+v, want the same session and a higher fence than %d", takes[2], takes[1].Fence)
			}
			if b.front.lookedBack() == 0 {
				t.Error("what was said meanwhile was not read again")
			}
			if marks, err := r.Marks(t.Context(), "T1"); err != nil || marks[""].Since == "" {
				t.Errorf("Marks = %v, %v, want one for channels that have lost theirs", marks, err)
			}
		})
	}
	t.Run("a turn that runs meanwhile is followed, when its message is found again", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(c *ServiceConfig, m *MachinesConfig) {
			watchful(c, m)
			m.LeaseTTL = time.Hour // whoever has lost the claim gives it back
		}).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		was := r.session()
		two := r.accept(turn("102", "hold two", false))
		b.until("the second turn", func() bool { return b.runner.ran(two.ID) == 1 })
		b.mini.FlushAll()
		b.until("the session", func() bool { return r.session() != nil })
		two.Again = true
		r.accept(two)
		three := r.accept(turn("103", "three", false))
		b.runner.release()
		if out := b.answered(r, three); out.Number != 3 {
			t.Errorf("the third turn's outcome is %+v", out)
		}
		if out := b.front.of(two.ID, "1")[0].outcome; out.Number != 2 || out.Answer != "answer to hold two" || out.Failure != runner.FailNone {
			t.Errorf("the second turn's outcome is %+v", out)
		}
		b.wasOnce(two)
		b.wasOnce(three)
		same(t, b, r, was, 3)
	})
	t.Run("a turn that ends before it is known that Redis has lost it gives its machine's lease back", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(c *ServiceConfig, m *MachinesConfig) {
			watchful(c, m)
			m.LeaseTTL = time.Hour
		}).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		forget := sync.OnceFunc(b.mini.FlushAll)
		b.runner.answers("events", func() (any, error) { forget(); return nil, nil })
		two := r.accept(turn("102", "two", false))
		b.until("the session", func() bool { return b.front.wasQuieted(two.ID) && r.session() != nil })
		two.Again = true
		if out := b.answered(r, r.accept(two)); out.Answer != "answer to two" || out.Failure != runner.FailNone {
			t.Errorf("the outcome is %+v", out)
		}
		b.wasOnce(two)
	})
	for name, again := range map[string]bool{
		"a turn that was answered meanwhile is not answered again":                              true,
		"nor is one that Slack has sent once more: its runner knows of it, if nobody else does": false,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.replica(watchful).start()
			one := r.accept(turn("101", "one", true))
			b.answered(r, one)
			was := r.session()
			b.mini.FlushAll()
			one.Again = again
			r.accept(one)
			b.idle(r)
			if again {
				b.wasOnce(one)
			}
			if got := b.front.of(one.ID, "1"); len(got) != 1 {
				t.Errorf("it has %d answers, want one", len(got))
			}
			same(t, b, r, was, 1)
		})
	}
	t.Run("a session that has ended does not come back", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(watchful).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		was := r.session()
		b.faults(map[string]any{"method": "machine.delete", "status": 403})
		if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		b.idle(r)
		b.mini.FlushAll()
		if out := b.answered(r, r.accept(turn("102", "two", false))); out.Failure != FailEnded {
			t.Errorf("the outcome of a reply is %+v, want that the session has ended", out)
		}
		if out := b.answered(r, r.accept(turn("103", "three", true))); out.Number != 1 || out.Failure != runner.FailNone {
			t.Errorf("the outcome of a mention is %+v, want a fresh session's first", out)
		}
		if s := r.session(); s.SessionID == was.SessionID || len(s.Left) != 1 || s.Left[0].SessionID != was.SessionID || s.Left[0].VolumeID != was.VolumeID {
			t.Errorf("on record is %+v, want a fresh session that sees to what %+v has left", s, was)
		}
	})
	t.Run("of two sessions of a thread the newer one lives, and the other is removed", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(watchful)
		old := b.left(r, func(s *Session) { s.CreatedAt = s.CreatedAt.Add(-time.Hour) })
		b.until("another second", func() bool { return time.Now().UTC().Truncate(time.Second).After(old.CreatedAt.Add(time.Hour)) })
		fresh := b.left(r, nil)
		if err := r.remember(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := r.session()
		if s.SessionID != fresh.SessionID || s.Owner != "U1" || len(s.Left) != 1 || s.Left[0].MachineID != old.MachineID || s.Left[0].VolumeID != old.VolumeID {
			t.Fatalf("on record is %+v, want %+v with the remains of %+v", s, fresh, old)
		}
		r.start()
		b.reap(r, time.Now())
		b.have(1, 1)
	})
	t.Run("what is on record is left as it is, and machines of single runs are no sessions", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		s := b.left(r, nil)
		s.Turns = 7
		r.record(s)
		b.left(r, func(s *Session) { s.Ephemeral, s.Thread.TS = true, "999.000001" })
		if err := r.remember(t.Context()); err != nil {
			t.Fatal(err)
		}
		if all, err := r.List(t.Context(), "", ""); err != nil || len(all) != 1 || all[0].Turns != 7 {
			t.Errorf("List = %+v, %v, want the one that is on record", all, err)
		}
	})
	t.Run("while Fly cannot be asked nothing begins and nothing is removed", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(watchful).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		was := r.session()
		b.listing(http.StatusServiceUnavailable, "")
		b.mini.FlushAll()
		two := r.accept(turn("102", "two", true))
		if err := r.Reap(t.Context(), time.Now().Add(24*time.Hour)); err == nil {
			t.Error("Reap = nil, want that it is put off")
		}
		b.until("the turn is put off", func() bool {
			st, err := r.cfg.Queue.Inspect(t.Context(), thread().Key())
			return err == nil && st.Place == "delay"
		})
		b.answering(nil)
		if out := b.answered(r, two); out.Number != 2 {
			t.Errorf("the outcome is %+v", out)
		}
		same(t, b, r, was, 2)
	})
	t.Run("a token that Fly refuses ends the turn, and the next one goes on when it is mended", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(watchful).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		was := r.session()
		b.listing(http.StatusUnauthorized, "")
		b.mini.FlushAll()
		two := r.accept(turn("102", "two", true))
		if out := b.answered(r, two); out.Failure != FailFlyAccess {
			t.Errorf("the outcome is %+v, want that Fly refuses the token", out)
		}
		b.answering(nil)
		if out := b.answered(r, r.accept(turn("103", "three", true))); out.Failure != runner.FailNone {
			t.Errorf("the outcome is %+v", out)
		}
		if s := r.session(); s.SessionID != was.SessionID {
			t.Errorf("on record is %+v, want %+v", s, was)
		}
		b.have(1, 1)
	})
	t.Run("a list that lacks a machine is completed by the volumes", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(watchful).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		was := r.session()
		b.listing(http.StatusOK, "[]")
		b.mini.FlushAll()
		b.until("the session", func() bool { return r.session() != nil })
		b.answering(nil)
		if out := b.answered(r, r.accept(turn("102", "two", true))); out.Number != 2 {
			t.Errorf("the outcome is %+v", out)
		}
		same(t, b, r, was, 2)
	})
	t.Run("a thread that cannot be read is asked again", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(watchful).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		was := r.session()
		b.front.mu.Lock()
		b.front.mute = 1
		b.front.mu.Unlock()
		b.mini.FlushAll()
		if out := b.answered(r, r.accept(turn("102", "two", false))); out.Number != 2 {
			t.Errorf("the outcome is %+v", out)
		}
		same(t, b, r, was, 2)
	})
	t.Run("nothing ends by time before its thread could be told, whatever it was kept to", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(10*day, 12*day).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.mini.FlushAll()
		st, err := r.Status(t.Context(), thread())
		if err != nil || st.Session == nil {
			t.Fatalf("Status = %+v, %v, want the session", st, err)
		}
		old := *st.Session
		old.CreatedAt, old.LastTurn = old.CreatedAt.Add(-30*day), old.LastTurn.Add(-30*day)
		if end, _ := old.endsAt(12 * day); time.Until(end) <= warnBefore || time.Until(end) > 2*warnBefore {
			t.Errorf("one that is older ends in %s, want some time behind its notice", time.Until(end))
		}
		if _, err := r.Keep(t.Context(), thread(), st.Session.SessionID, st.Session.EndsAt); err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Keep(t.Context(), thread(), Kept{}, st.Session.spared(time.Now(), 12*day), nil); err != nil {
			t.Fatal(err)
		}
		if now := r.session(); !now.kept().TTL.After(st.Session.EndsAt) {
			t.Errorf("kept to %+v, want what somebody asked for", now.kept())
		}
	})
	t.Run("an end asks about work that may not be pushed", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) {
			m.Repos = []runner.Repo{{URL: "https://git.example/acme/app.git"}}
		}).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.mini.FlushAll()
		st, err := r.Status(t.Context(), thread())
		if err != nil || st.Session == nil {
			t.Fatalf("Status = %+v, %v, want the session", st, err)
		}
		if work := st.Session.Unpushed(); len(work) != 1 || !work[0].Unknown {
			t.Errorf("unpushed is %+v, want that nobody knows", work)
		}
	})
}

// listing answers for the list of machines.
func (b *bot) listing(status int, body string) {
	b.answering(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, "/machines") || q.Method != http.MethodGet {
			return false
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
		return true
	})
}
