package sessions

import (
	"context"
	"slices"
	"testing"

	"flaudebot/runner"
)

// ran are the turns that runners took, in order.
func (b *bot) ran() []TurnID {
	var out []TurnID
	for _, take := range b.runner.taken() {
		if id := TurnID(take.Turn.ID); !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// TestOrder: the messages of a thread run in the order in which they were said, whichever comes first.
func TestOrder(t *testing.T) {
	t.Parallel()
	one, two, three, four := turn("101", "one", true), turn("102", "two", false), turn("103", "three", false), turn("104", "four", false)
	ids := func(turns ...Turn) (out []TurnID) {
		for _, t := range turns {
			out = append(out, t.ID)
		}
		return out
	}
	inOrder := func(t *testing.T, b *bot, want ...Turn) {
		t.Helper()
		if got := b.ran(); !slices.Equal(got, ids(want...)) {
			t.Errorf("they ran as %v, want %v", got, ids(want...))
		}
		for _, turn := range want {
			b.wasOnce(turn)
		}
	}
	t.Run("of those that wait", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		again := turn("101", "one", false) // a button runs it once more: that is asked for last
		again.ID += "-retry"
		for i, turn := range []Turn{three, one, two, again, four} {
			res, err := r.Accept(t.Context(), turn)
			if want := []int{0, 0, 1, 3, 4}[i]; err != nil || res.Ahead != want {
				t.Errorf("Accept %s = %+v, %v, want %d ahead", turn.ID, res, err, want)
			}
		}
		r.start()
		b.answered(r, four)
		inOrder(t, b, one, two, three, again, four)
	})
	// A replica sleeps with what was said before: it is taken in when the next message's turn has begun.
	behind := func(t *testing.T, then func(r *replica)) *bot {
		t.Helper()
		b := newBot(t)
		var r *replica
		b.front.earlier = func(_ context.Context, at Turn) (bool, error) {
			if at.ID != three.ID || b.runner.ran(two.ID) > 0 {
				return false, nil
			}
			r.accept(two)
			then(r)
			return true, nil
		}
		r = b.replica(nil).start()
		b.answered(r, r.accept(one))
		r.accept(three)
		b.answered(r, two)
		b.answered(r, three)
		return b
	}
	t.Run("of one that is taken in while the next one begins", func(t *testing.T) {
		t.Parallel()
		b := behind(t, func(*replica) {})
		inOrder(t, b, one, two, three)
		b.front.mu.Lock()
		defer b.front.mu.Unlock()
		var shown []TurnID
		for _, p := range b.front.posts {
			if p.part == "live" {
				shown = append(shown, p.turn)
			}
		}
		if !slices.Equal(shown, ids(one, two, three)) {
			t.Errorf("live messages were shown of %v", shown)
		}
	})
	t.Run("unless the one that goes back is stopped meanwhile: that is told at once", func(t *testing.T) {
		t.Parallel()
		b := behind(t, func(r *replica) {
			if _, running, err := r.Cancel(t.Context(), thread(), three.ID); err != nil || !running {
				t.Errorf("Cancel = %v, %v", running, err)
			}
		})
		if out := b.front.of(three.ID, "1")[0].outcome; out.Failure != runner.FailStopped {
			t.Errorf("the third ended as %+v, want stopped", out)
		}
		if got := b.ran(); !slices.Equal(got, ids(one, two)) {
			t.Errorf("%v ran", got)
		}
		b.wasOnce(two)
	})
}
