package sessions

import (
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/runner"
)

// limits has turns that are limited reach a usage limit that resets in so long.
func (b *bot) limits(in time.Duration) time.Time {
	b.runner.mu.Lock()
	defer b.runner.mu.Unlock()
	b.runner.resets = time.Now().Add(in)
	return b.runner.resets
}

// isHeld waits until the turn has been put off for the limit.
func (b *bot) isHeld(t Turn) {
	b.t.Helper()
	b.until("it is put off", func() bool {
		b.front.mu.Lock()
		defer b.front.mu.Unlock()
		return slices.Contains(b.front.held, t.ID)
	})
}

// elsewhere is the turn in a thread of its own.
func elsewhere(t Turn) Turn {
	t.Thread.TS = t.TS
	return t
}

// TestLimit: when Claude's usage limit is reached everything waits until it resets, and goes on by itself.
func TestLimit(t *testing.T) {
	t.Parallel()
	t.Run("the turn that meets it is run again, what was said since comes behind it, and other threads wait as well", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "zero", true)))
		resets := b.limits(15 * time.Second)
		one := r.accept(turn("102", "limited one", false))
		b.isHeld(one)
		two := r.accept(turn("103", "two", false))
		other := r.accept(elsewhere(turn("201", "other", true)))
		b.isHeld(other)
		if n := b.runner.ran(other.ID); n != 0 {
			t.Errorf("the other thread's turn ran %d times meanwhile", n)
		}
		if told := b.front.told(); !strings.Contains(told[len(told)-1], "usage limit") {
			t.Errorf("the thread was told %q", told)
		}
		for _, one := range []Turn{one, two, other} {
			out := b.answered(r, one)
			if out.Failure != runner.FailNone || out.Answer != "answer to "+one.Text {
				t.Errorf("%s ended with %+v", one.ID, out)
			}
			if posts := b.front.of(one.ID, "1"); len(posts) != 1 {
				t.Errorf("%s was answered %d times", one.ID, len(posts))
			}
			if one.ID != two.ID && out.StartedAt.Before(resets) {
				t.Errorf("%s went on %s before the reset", one.ID, resets.Sub(out.StartedAt))
			}
		}
		if want := []TurnID{"T1:C1:101", "T1:C1:102", "T1:C1:102~1", "T1:C1:103"}; !slices.Equal(slices.DeleteFunc(b.ran(), func(id TurnID) bool { return id == other.ID }), want) {
			t.Errorf("%q ran, want %q and the other thread's", b.ran(), want)
		}
		if out := b.front.of(one.ID, "1")[0].outcome; out.CostUSD != 1 || out.Number != 2 {
			t.Errorf("it cost %v as turn %d, want what both tries cost, as turn 2", out.CostUSD, out.Number)
		}
	})
	t.Run("a turn that had begun is told to go on", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.limits(2 * time.Second)
		one := r.accept(turn("101", "limited in the middle", true))
		if out := b.answered(r, one); out.Answer != "answer to "+goOn+one.Text {
			t.Errorf("it ended with %+v", out)
		}
	})
	t.Run("another replica goes on", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		first := b.replica(nil).start()
		b.limits(3 * time.Second)
		one := first.accept(turn("101", "limited one", true))
		b.isHeld(one)
		first.stop()
		if out := b.answered(b.replica(nil).start(), one); out.Failure != runner.FailNone || b.runner.ran(one.ID) != 1 || b.runner.ran(one.ID.try(1)) != 1 {
			t.Errorf("it ended with %+v", out)
		}
	})
	t.Run("a single run gets a new machine", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.limits(3 * time.Second)
		one := turn("101", "limited one", true)
		one.Kind = KindOnce
		r.accept(one)
		b.isHeld(one)
		b.until("no machine", func() bool { return len(b.machinesIn(testApp)) == 0 })
		if out := b.answered(r, one); out.Failure != runner.FailNone || b.runner.ran(one.ID.try(1)) != 1 {
			t.Errorf("it ended with %+v", out)
		}
		b.until("no machine", func() bool { return len(b.machinesIn(testApp)) == 0 })
	})
	for name, ts := range map[string]string{"whoever met the limit may stop instead": "101", "whoever waits for it may stop instead": "201"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.replica(nil).start()
			b.limits(time.Hour)
			one := elsewhere(turn("101", "limited one", true))
			r.accept(one)
			b.isHeld(one)
			if ts != one.TS {
				one = elsewhere(turn(ts, "two", true))
				r.accept(one)
				b.isHeld(one)
			}
			if _, _, err := r.Cancel(t.Context(), one.Thread, one.ID); err != nil {
				t.Fatal(err)
			}
			if out := b.answered(r, one); out.Failure != runner.FailStopped || b.runner.ran(one.ID.try(1)) != 0 {
				t.Errorf("it ended with %+v", out)
			}
		})
	}
	t.Run("a limit of which nobody says when it resets is an outcome, and so is one far away", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		if out := b.answered(r, r.accept(turn("101", "limited one", true))); out.Failure != runner.FailLimit {
			t.Errorf("it ended with %+v", out)
		}
		b.limits(longestLimit + time.Hour)
		if out := b.answered(r, r.accept(turn("102", "limited two", false))); out.Failure != runner.FailLimit {
			t.Errorf("it ended with %+v", out)
		}
		if out := b.answered(r, r.accept(turn("103", "three", false))); out.Failure != runner.FailNone {
			t.Errorf("the next ended with %+v", out)
		}
	})
	t.Run("they go on in the order in which they were asked for", func(t *testing.T) {
		t.Parallel()
		now := time.Now()
		e := &limitedError{now.Add(2 * time.Hour)}
		last := time.Duration(0)
		for _, ago := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, 0} {
			p := e.pause(now.Add(-ago), now)
			if p <= last || p < 2*time.Hour || p > 2*time.Hour+afterReset+spread {
				t.Errorf("asked for %s ago: it waits %s, want more than %s and little more than 2 h", ago, p, last)
			}
			last = p
		}
	})
}
