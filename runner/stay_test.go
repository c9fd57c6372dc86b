package runner

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// staying is a runner whose stay is under test, on the bubble's clock. Its turns run no process.
type staying struct {
	*server
	t     *testing.T
	begun time.Time
	gone  chan time.Duration
}

const (
	unwatched = 5 * time.Minute
	unacked   = 10 * time.Minute
)

func newStaying(t *testing.T) *staying {
	t.Helper()
	s, err := newServer(Config{Data: t.TempDir(), RunDir: t.TempDir(), UID: -1, Unwatched: unwatched, Unacked: unacked})
	if err != nil {
		t.Fatal(err)
	}
	st := &staying{server: s, t: t, begun: time.Now(), gone: make(chan time.Duration, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		s.stay(ctx)
		st.gone <- time.Since(st.begun)
	}()
	return st
}

// goes checks when it goes, measured from the start.
func (s *staying) goes(want time.Duration) {
	s.t.Helper()
	if got := <-s.gone; got != want {
		s.t.Errorf("it goes after %s, want %s", got, want)
	}
}

// stays checks that it is still there.
func (s *staying) stays() {
	s.t.Helper()
	synctest.Wait()
	select {
	case at := <-s.gone:
		s.t.Fatalf("it went after %s", at)
	default:
	}
}

// runs starts a turn, as take does.
func (s *staying) runs(id string, linger time.Duration) *turn {
	s.t.Helper()
	j, err := newJournal(s.cfg, id)
	if err != nil {
		s.t.Fatal(err)
	}
	t := newTurn(s.cfg, Turn{ID: id}, "", Secrets{}, j, "")
	s.mu.Lock()
	s.running, s.settled, s.lingers = t, time.Time{}, linger
	s.mu.Unlock()
	s.stirUp()
	return t
}

func (s *staying) finishes(t *turn) {
	s.server.ended(t, record{Outcome: Outcome{Turn: t.ID, EndedAt: time.Now()}})
}

func (s *staying) acks(id string, want Status) {
	s.t.Helper()
	if got := s.ack(context.Background(), AckRequest{Turn: id, Fence: 1}); got.Status != want {
		s.t.Errorf("ack of %s = %s, want %s", id, got.Status, want)
	}
}

func TestStay(t *testing.T) {
	t.Parallel()
	for name, story := range map[string]func(*staying){
		"a runner that nobody asks goes": func(s *staying) { s.goes(unwatched) },
		"whoever asks keeps it": func(s *staying) {
			time.Sleep(4 * time.Minute)
			s.hello(context.Background(), HelloRequest{})
			time.Sleep(4 * time.Minute)
			s.result(context.Background(), ResultRequest{Turn: "x"})
			s.goes(8*time.Minute + unwatched)
		},
		"a stale owner does not": func(s *staying) {
			s.accept(TakeRequest{Fence: 7})
			time.Sleep(4 * time.Minute)
			if r := s.take(context.Background(), TakeRequest{Fence: 6}); r.Status != StatusFenced {
				s.t.Errorf("take = %+v, want fenced", r)
			}
			s.goes(unwatched)
		},
		"a turn is never given up because nobody watches": func(s *staying) {
			turn := s.runs("a", 0)
			time.Sleep(48 * time.Hour)
			s.stays()
			s.server.sleep(context.Background(), SleepRequest{Fence: 1}) // busy
			s.acks("a", StatusUnknown)
			s.stays()
			s.finishes(turn)
			s.goes(48*time.Hour + unacked)
		},
		"an outcome that is owed keeps it longer": func(s *staying) {
			s.finishes(s.runs("a", 0))
			s.goes(unacked)
		},
		"also one of an earlier boot": func(s *staying) {
			s.finishes(s.runs("a", 0))
			s.goes(unacked)
			again, err := newServer(s.cfg)
			if err != nil {
				s.t.Fatal(err)
			}
			next := &staying{server: again, t: s.t, begun: time.Now(), gone: make(chan time.Duration, 1)}
			go func() { again.stay(context.Background()); next.gone <- time.Since(next.begun) }()
			if r := next.hello(context.Background(), HelloRequest{}); len(r.Unacked) != 1 || r.Unacked[0] != "a" {
				s.t.Errorf("hello = %+v, want a unacknowledged", r)
			}
			next.goes(unacked)
		},
		"it goes at once when the outcome is safe": func(s *staying) {
			turn := s.runs("a", 0)
			time.Sleep(time.Second)
			s.finishes(turn)
			s.acks("a", StatusOK)
			if r := s.take(context.Background(), TakeRequest{Fence: 1, Turn: Turn{ID: "b", SessionID: aSession, Prompt: "x"}}); r.Status != StatusExiting {
				s.t.Errorf("take = %+v, want exiting", r)
			}
			if r := s.put(context.Background(), PutRequest{Fence: 1, Turn: "b", Name: "prompt", Data: []byte("x")}); r.Status != StatusOK {
				s.t.Errorf("put = %+v, want ok: the take tells", r)
			}
			s.goes(time.Second)
		},
		"it goes at once when its owner has nothing for it": func(s *staying) {
			s.acks("never taken", StatusUnknown)
			s.goes(0)
		},
		"it goes when it is told to sleep": func(s *staying) {
			turn := s.runs("a", time.Hour)
			if r := s.server.sleep(context.Background(), SleepRequest{Fence: 1}); r.Status != StatusBusy {
				s.t.Errorf("sleep = %+v, want busy", r)
			}
			s.finishes(turn)
			if r := s.server.sleep(context.Background(), SleepRequest{Fence: 1}); r.Status != StatusOK {
				s.t.Errorf("sleep = %+v, want ok", r)
			}
			s.goes(0)
		},
		"it lingers for a further turn": func(s *staying) {
			s.finishes(s.runs("a", time.Minute))
			s.acks("a", StatusOK)
			time.Sleep(30 * time.Second)
			s.acks("a", StatusOK) // again, since the first reply was lost
			s.goes(time.Minute)
		},
		"an earlier wait does not end a later one": func(s *staying) {
			s.finishes(s.runs("a", time.Minute))
			s.acks("a", StatusOK)
			time.Sleep(30 * time.Second)
			turn := s.runs("b", time.Minute)
			time.Sleep(10 * time.Second)
			s.finishes(turn)
			s.acks("b", StatusOK)
			s.goes(100 * time.Second)
		},
		"a turn that runs while it would have gone is left alone": func(s *staying) {
			s.finishes(s.runs("a", time.Minute))
			s.acks("a", StatusOK)
			time.Sleep(59 * time.Second)
			turn := s.runs("b", time.Minute)
			time.Sleep(time.Hour)
			s.stays()
			s.finishes(turn)
			s.acks("b", StatusOK)
			s.goes(time.Hour + 59*time.Second + time.Minute)
		},
		"what is put for the next turn keeps it": func(s *staying) {
			s.finishes(s.runs("a", time.Minute))
			s.acks("a", StatusOK)
			time.Sleep(50 * time.Second)
			s.put(context.Background(), PutRequest{Fence: 1, Turn: "b", Name: "prompt", Data: []byte("x")})
			s.goes(50*time.Second + time.Minute)
		},
		"a late acknowledgement of an earlier turn leaves the last one its time": func(s *staying) {
			s.finishes(s.runs("a", time.Minute))
			s.finishes(s.runs("b", 0))
			s.acks("a", StatusOK)
			s.goes(unacked)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { story(newStaying(t)) })
		})
	}
}
