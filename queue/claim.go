package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Claim is this replica's right to work on the head of a key. It belongs to the handler that got it.
type Claim struct {
	Job    Job
	Fence  int64 // only rises for a key
	Attach bool  // it was claimed before: see Stage and Att for how far it came
	Stage  string
	Att    []byte // notes of the owner before
	Tries  int    // how often it was put off
	Takes  int    // how often a lease on it ran out: nobody knows why

	q         *Queue
	cancelled chan struct{}
	cancel    sync.Once
	lose      context.CancelCauseFunc
	gone      atomic.Bool // somebody said that it is lost
	over      atomic.Bool // its handler has returned, as the owner still

	mu       sync.Mutex
	deadline time.Time // guarded by mu; until when the lease is surely ours, by our own clock
}

// Cancelled is closed when somebody cancelled the job.
func (c *Claim) Cancelled() <-chan struct{} { return c.cancelled }

func (c *Claim) signal() { c.cancel.Do(func() { close(c.cancelled) }) }

func (c *Claim) extend(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = until
}

func (c *Claim) until() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline
}

// claimKey is where a handler's context has its claim.
type claimKey struct{}

// Held returns [ErrLost] when ctx is a handler's, or comes from one, and its lease may be over by our own clock: the process
// may have been asleep, and another one may be at work. To be asked right before an effect that cannot be fenced.
func Held(ctx context.Context) error {
	c, ok := ctx.Value(claimKey{}).(*Claim)
	if clocked && ok && (c.gone.Load() || !c.over.Load() && time.Now().After(c.until())) {
		return fmt.Errorf("%s of %s: %w", c.Job.ID, c.Job.Key, ErrLost)
	}
	return nil
}

// Fenced returns ctx for an effect that has a fence of its own: it may be had without the lease, and [Held] has nothing against it.
func Fenced(ctx context.Context) context.Context { return context.WithValue(ctx, claimKey{}, nil) }

// SetStage writes how far the job has come, with notes for the next owner. It is tried again while
// Redis does not answer and the lease may still be ours; [ErrLost] when it is not.
func (c *Claim) SetStage(ctx context.Context, stage string, att []byte) error {
	res, err := c.insist(ctx, func(ctx context.Context) (string, error) {
		return c.q.run(ctx, "stage", c.Job.Key, c.Job.ID, c.Fence, stage, att).Text()
	})
	if err != nil {
		return fmt.Errorf("stage %s of %s: %w", stage, c.Job.ID, err)
	}
	if res != "OK" {
		c.gone.Store(true)
		return fmt.Errorf("stage %s of %s: %w", stage, c.Job.ID, ErrLost)
	}
	return nil
}

// insist repeats a script that is safe to repeat until it is answered or the lease is over.
func (c *Claim) insist(ctx context.Context, do func(context.Context) (string, error)) (string, error) {
	pause := 20 * time.Millisecond
	for {
		res, err := do(ctx)
		if err == nil {
			c.q.ill.well(ctx, "write")
			return res, nil
		}
		if ctx.Err() != nil {
			return "", errors.Join(context.Cause(ctx), err)
		}
		if time.Now().After(c.until()) {
			return "", errors.Join(ErrLost, err)
		}
		c.q.ill.ails(ctx, "write", err)
		select {
		case <-ctx.Done():
			return "", errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
		pause = min(pause*2, time.Second)
	}
}

// Verdict is what becomes of a job after its handler.
type Verdict struct {
	mode  string
	delay time.Duration
}

// Done finishes the job: the next of its key may go.
func Done() Verdict { return Verdict{mode: "done"} }

// Retry puts the job off. It keeps its place, so its key waits.
func Retry(after time.Duration) Verdict { return Verdict{mode: "retry", delay: after} }

// Handoff leaves the job to another replica at once.
func Handoff() Verdict { return Verdict{mode: "handoff"} }

// Yield lets the jobs of the key go first that wait and have an earlier [Job.Order]; the job begins anew after them. If there is none, or it
// was cancelled, it is put off like by Retry(0), and is attached to.
func Yield() Verdict { return Verdict{mode: "yield"} }

// giveBack leaves a claim that is not done to whoever comes next.
func (c *Claim) giveBack(ctx context.Context, v Verdict) error {
	_, err := c.insist(ctx, func(ctx context.Context) (string, error) {
		return c.q.run(ctx, "release", c.Job.Key, c.Job.ID, c.Fence, v.mode, v.delay.Milliseconds()).Text()
	})
	return err
}
