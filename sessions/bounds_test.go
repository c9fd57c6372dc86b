package sessions

import (
	"testing"
	"time"

	"flaudebot/queue"
)

// TestBounds: what is too much is refused or waits, and it is told for whom it is too much.
func TestBounds(t *testing.T) {
	t.Parallel()
	bounded := func(t *testing.T, l queue.Limits) (*bot, *replica) {
		t.Helper()
		b := newBot(t)
		return b, b.replica(func(cfg *ServiceConfig, _ *MachinesConfig) {
			q, err := queue.New(cfg.Redis, queue.Config{Prefix: testPrefix, Lease: 2 * time.Second, Slots: 8, Poll: time.Second, Limits: l})
			if err != nil {
				t.Fatal(err)
			}
			cfg.Queue = q
		})
	}
	refused := func(t *testing.T, r *replica, one Turn, want Bound) {
		t.Helper()
		if res, err := r.Accept(t.Context(), one); err != nil || res.Status != AcceptFull || res.Full != want {
			t.Errorf("Accept = %+v, %v, want full for the %s", res, err, want)
		}
	}
	t.Run("messages that wait", func(t *testing.T) {
		t.Parallel()
		_, r := bounded(t, queue.Limits{PerKey: 2, PerUser: 3, Total: 4})
		r.accept(turn("101", "one", true))
		r.accept(turn("102", "two", false))
		refused(t, r, turn("103", "three", false), BoundThread)
		r.accept(elsewhere(turn("201", "three", true)))
		refused(t, r, elsewhere(turn("301", "four", true)), BoundPerson)
		for i, ts := range []string{"401", "501"} {
			other := elsewhere(turn(ts, "of another", true))
			other.User = "U2"
			if i == 0 {
				r.accept(other)
				continue
			}
			refused(t, r, other, BoundAll)
		}
	})
	t.Run("messages that wait in one channel", func(t *testing.T) {
		t.Parallel()
		_, r := bounded(t, queue.Limits{PerGroup: 2})
		r.accept(turn("101", "one", true))
		r.accept(by(elsewhere(turn("201", "two", true)), "U2"))
		refused(t, r, by(elsewhere(turn("301", "three", true)), "U3"), BoundChannel)
		other := elsewhere(turn("401", "elsewhere", true))
		other.Thread.Channel = "C2"
		r.accept(other)
	})
	for of, l := range map[Bound]queue.Limits{BoundPerson: {RunningPerUser: 1}, BoundChannel: {RunningPerGroup: 1}} {
		t.Run("turns that run, of one "+string(of), func(t *testing.T) {
			t.Parallel()
			b, r := bounded(t, l)
			r.start()
			first := r.accept(turn("101", "hold", true))
			b.until("it runs", func() bool { return b.runner.ran(first.ID) == 1 })
			second := r.accept(elsewhere(turn("201", "two", true)))
			b.until("the other waits", func() bool {
				st, err := r.Status(t.Context(), second.Thread)
				return err == nil && st.Parked == of && st.Running == nil
			})
			other := elsewhere(turn("301", "of another", true))
			other.User, other.Thread.Channel = "U2", "C2"
			r.accept(other)
			b.until("the answer to somebody else", func() bool { return len(b.front.of(other.ID, "2")) > 0 })
			if n := b.runner.ran(second.ID); n != 0 {
				t.Errorf("it ran %d times meanwhile", n)
			}
			b.runner.release()
			b.until("its answer", func() bool { return len(b.front.of(second.ID, "2")) > 0 })
		})
	}
}
