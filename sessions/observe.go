package sessions

import (
	"context"
	"strings"
	"sync"
	"time"
)

// Observer is told what this replica does, for whoever counts it. Its methods must not block, and are called from many goroutines at once.
type Observer interface {
	// TurnClaimed is called when this replica begins to work on a turn, or goes on with it; takeover: where another replica had it.
	TurnClaimed(t Turn, takeover bool)
	// TurnLeft is called when it does so no more.
	TurnLeft(t Turn, why Left)
	// TurnSpent is called when a turn has spent some time with a step. [StepQueued] comes once for each turn, the others are of this replica alone.
	TurnSpent(t Turn, s Step, d time.Duration)
	// TurnEnded is called when a turn has its end, and its thread has been told. took is the time since it was claimed first.
	TurnEnded(t Turn, o Outcome, took time.Duration)
	// Charged is called when something was added to what sessions cost. It comes once for all that is.
	Charged(c Cost)
}

// Left says why a replica works on a turn no more.
type Left string

const (
	LeftDone   Left = "done"    // it has its end
	LeftLost   Left = "lost"    // the lease ran out, or Redis gave the turn to another one
	LeftHanded Left = "handed"  // the replica leaves
	LeftPutOff Left = "put_off" // it is tried again later
)

// StepQueued is where a turn is before anybody works on it. No person is told of it.
const StepQueued Step = "queued"

// StepSettling is where a turn is that was answered: its machine is seen to its rest. No person is told of that either.
const StepSettling Step = "settling"

// unobserved is the observer where nobody wants to know.
type unobserved struct{}

func (unobserved) TurnClaimed(Turn, bool)                 {}
func (unobserved) TurnLeft(Turn, Left)                    {}
func (unobserved) TurnSpent(Turn, Step, time.Duration)    {}
func (unobserved) TurnEnded(Turn, Outcome, time.Duration) {}
func (unobserved) Charged(Cost)                           {}

// stopwatch measures the steps of a turn on this replica.
type stopwatch struct {
	tell func(Step, time.Duration)

	mu   sync.Mutex
	step Step      // guarded by mu
	at   time.Time // guarded by mu; since when
}

// enter notes that the turn is at a step, "" when nobody works on it any more.
func (s *stopwatch) enter(step Step) {
	s.mu.Lock()
	was, since, now := s.step, s.at, time.Now()
	if was == step {
		s.mu.Unlock()
		return
	}
	s.step, s.at = step, now
	s.mu.Unlock()
	if was != "" {
		s.tell(was, now.Sub(since))
	}
}

// tookOver reports whether another replica had the turn before, with the notes that it left. One that was killed before its first note is known by
// its lease, which ran out.
func (w *work) tookOver() bool {
	if !w.claim.Attach {
		return false
	}
	if w.note.By == "" {
		return w.claim.Takes > 0
	}
	return w.note.By != w.sv.cfg.Queue.Owner()
}

// cost is what a bill comes to.
func (b bill) cost() Cost {
	var sum Cost
	for _, fields := range b {
		for field, n := range fields {
			sum.use(field[strings.LastIndex(field, " ")+1:], n)
		}
	}
	return sum
}

// Live is how many sessions have something on Fly: those that are live, and those whose end could not remove everything yet.
func (sv *Service) Live(ctx context.Context) (int64, error) {
	return sv.store.Live(ctx)
}
