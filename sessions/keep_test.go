package sessions

import (
	"errors"
	"testing"
	"time"
)

// TestKeep: an end that was announced is put off once, however often that is asked for; the new one is announced in its time.
func TestKeep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ttl, idle, want time.Duration // want: from the announced end to the new one, at least
	}{
		"its time to live, by as much again":                {10 * day, 0, 10 * day},
		"its idle time, which begins anew":                  {0, 10 * day, 0},
		"its time to live, until its idle time":             {10 * day, 15 * day, 5 * day},
		"both, where one would come right behind the other": {10 * day, 10*day + time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.limited(c.ttl, c.idle).start()
			b.answered(r, r.accept(turn("101", "hello", true)))
			s := *r.session()
			end, _ := s.endsAt(c.idle)
			b.reap(r, end.Add(-time.Hour))
			slow := *r.session() // what a reaper knows that is slow
			if _, err := r.Keep(t.Context(), thread(), "another session", end); !errors.Is(err, ErrNoSession) {
				t.Errorf("Keep of another session = %v", err)
			}
			until, err := r.Keep(t.Context(), thread(), s.SessionID, end)
			if err != nil || !until.After(end) || until.Sub(end) < c.want || until.Sub(end) > c.want+time.Minute {
				t.Fatalf("Keep = %v (%v after the announced end), %v; want %v", until, until.Sub(end), err, c.want)
			}
			if again, err := r.Keep(t.Context(), thread(), s.SessionID, end); err != nil || !again.Equal(until) {
				t.Errorf("Keep again = %v, %v, want %v still", again, err, until)
			}
			if st, err := r.Status(t.Context(), thread()); err != nil || !st.Session.EndsAt.Equal(until) {
				t.Errorf("Status = %+v, %v, want that it ends at %v", st.Session, err, until)
			}
			if all, err := r.List(t.Context(), "", ""); err != nil || len(all) != 1 || !all[0].EndsAt.Equal(until) {
				t.Errorf("List = %+v, %v, want that it ends at %v", all, err, until)
			}
			// The end that a slow reaper queues comes to nothing, and a later one of the same session does not.
			if err := r.reapOne(t.Context(), slow, end); err != nil {
				t.Fatal(err)
			}
			b.idle(r)
			b.have(1, 1)
			if s := r.session(); s.Ended() || len(b.front.goodbyes()) != 0 {
				t.Fatalf("on record is %+v", s)
			}
			b.reap(r, until.Add(-time.Minute))
			if got := b.front.noticed(); len(got) != 2 || !got[1].At.Equal(until) {
				t.Errorf("notices = %+v, want one for each end", got)
			}
			b.reap(r, until)
			b.have(0, 0)
			if _, err := r.Keep(t.Context(), thread(), s.SessionID, until); !errors.Is(err, ErrNoSession) {
				t.Errorf("Keep after the end = %v, want ErrNoSession", err)
			}
			b.answered(r, r.accept(turn("102", "afresh", true)))
			fresh := *r.session()
			if got, _ := fresh.endsAt(c.idle); fresh.kept() != (Kept{}) || got.After(until) && c.ttl > 0 {
				t.Errorf("the next session of the thread ends at %v, want nothing of what the last one was kept to", got)
			}
		})
	}
}
