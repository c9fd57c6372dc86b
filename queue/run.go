package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Handler works on a claim. Its context ends with [ErrLost] when the claim is lost, and with [ErrDraining]
// when the replica leaves: then it should return Handoff soon.
type Handler func(ctx context.Context, c *Claim) Verdict

// Run claims jobs and hands them to handle, each in a goroutine of its own, until ctx ends and every
// handler has returned. Trouble with Redis is logged and waited out. A queue runs once at a time.
func (q *Queue) Run(ctx context.Context, handle Handler) error {
	r := &replica{
		q: q, handle: handle, bell: make(chan struct{}, 1),
		slots: q.cfg.Slots, free: q.cfg.Slots, look: true, doubts: 1,
		held: map[string]*Claim{}, coming: map[string]bool{},
	}
	// Handlers, beats and the listener outlive ctx until the handlers are through.
	work, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)
	live, stopLive := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLive()
	r.start = func(c *Claim) func() { return r.startUnder(work, c) }
	stop := context.AfterFunc(ctx, func() {
		r.leave(live)
		stopWork(ErrDraining)
	})
	defer stop()
	q.running.Store(r)
	defer q.running.Store(nil)
	r.wentRound()
	defer q.round.Store(nil)
	var aux sync.WaitGroup
	aux.Go(func() { r.beats(live) })
	aux.Go(func() { r.listen(live) })
	r.dispatch(live)
	r.handlers.Wait()
	stopLive()
	r.wakeListener(context.WithoutCancel(ctx))
	aux.Wait()
	return nil
}

// replica is a running queue. One goroutine, the dispatcher, speaks for all handlers: a call finishes all
// claims that are done and claims for all slots that are free.
type replica struct {
	q        *Queue
	handle   Handler
	start    func(c *Claim) (begin func()) // has a claim handled, from when begin is called
	handlers sync.WaitGroup
	bell     chan struct{} // the dispatcher has something to do
	slots    int

	mu      sync.Mutex
	free    int               // guarded by mu; slots that nobody uses
	asked   int               // guarded by mu; slots for which the dispatcher is claiming
	look    bool              // guarded by mu; there may be something to claim
	doubts  int               // guarded by mu; calls that may have claimed something, and whose answer was lost
	leaving bool              // guarded by mu
	deaf    bool              // guarded by mu; the listener waits at the mailbox alone
	ended   []*Claim          // guarded by mu; done, and the dispatcher does not know yet
	held    map[string]*Claim // guarded by mu; :: key → claim that is handled, or done and not finished
	coming  map[string]bool   // guarded by mu; keys that an enqueue may be claiming, a slot each
}

// round is what the dispatcher is to do next.
type round struct {
	done    []*Claim // to be finished
	slots   int      // free ones that it claims for
	claim   int      // how many to claim
	adopt   bool     // take in what calls claimed whose answer was lost, instead of claiming
	leaving bool
	through bool // the replica leaves, and every slot is free
}

// dispatch carries on until the replica leaves and every slot is free.
func (r *replica) dispatch(ctx context.Context) {
	const soon = 20 * time.Millisecond
	var late []*Claim // done, and the call that was to finish them was not answered
	var quit time.Time
	again := soon
	for {
		t := r.next(late)
		if t.through {
			return
		}
		if len(t.done) == 0 && t.slots == 0 && !t.adopt {
			r.wait(ctx)
			continue
		}
		if t.leaving && (quit.IsZero() || len(t.done) > len(late)) {
			quit = time.Now().Add(r.q.cfg.Grace)
		}
		claims, err := r.do(ctx, t)
		if err == nil {
			r.q.ill.well(ctx, "claim")
			r.settled(t, claims)
			late, again = nil, soon
			continue
		}
		r.q.ill.ails(ctx, "claim", err)
		r.failed(t)
		if t.leaving && time.Now().After(quit) { // what it may have claimed is left to run out
			r.sure()
		}
		pause(ctx, again)
		again = min(2*again, time.Second)
		late = slices.DeleteFunc(t.done, func(c *Claim) bool {
			over := time.Now().After(c.until()) || t.leaving && time.Now().After(quit)
			if over {
				r.q.log.WarnContext(ctx, "claim not settled", "job", c.Job.ID, "err", err)
				r.release(c)
			}
			return over
		})
	}
}

// next takes what has ended, and the free slots if there may be something for them.
func (r *replica) next(late []*Claim) round {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := round{done: append(late, r.ended...), leaving: r.leaving, through: r.leaving && r.free == r.slots && r.doubts == 0}
	r.ended = nil
	if r.leaving { // what it may have claimed without knowing is handed over too
		t.adopt = r.doubts > 0 && len(t.done) == 0
		return t
	}
	// While it is not known what was claimed, what is done is finished alone: it may be the first job of a
	// key whose second one was claimed with it, and the two must not be taken for one.
	if r.doubts > 0 && len(t.done) > 0 {
		return t
	}
	if r.look && r.free > 0 {
		t.slots = r.free
		r.free, r.asked, r.look = 0, t.slots, false
		t.adopt = r.doubts > 0
	}
	if !t.adopt {
		t.claim = t.slots + len(t.done)
	}
	return t
}

// do speaks to Redis.
func (r *replica) do(ctx context.Context, t round) ([]*Claim, error) {
	if t.adopt {
		return r.adopt(ctx)
	}
	return r.q.step(ctx, t.claim, t.done)
}

// settled enters what a round brought, and has it handled.
func (r *replica) settled(t round, claims []*Claim) {
	begin := r.starts(claims)
	r.mu.Lock()
	for _, c := range t.done {
		r.drop(c)
	}
	r.enter(claims, t.slots+len(t.done))
	r.asked = 0
	// Whoever got all that it asked for asks again.
	r.look = r.look || t.adopt || t.claim > 0 && len(claims) >= t.claim
	r.mu.Unlock()
	begin()
}

func (r *replica) starts(claims []*Claim) (begin func()) {
	all := make([]func(), len(claims))
	for i, c := range claims {
		all[i] = r.start(c)
	}
	return func() {
		for _, begin := range all {
			begin()
		}
	}
}

// enter notes claims that slots were kept for, and frees those that are left. The caller holds mu.
func (r *replica) enter(claims []*Claim, slots int) {
	for _, c := range claims {
		if old := r.held[c.Job.Key]; old != nil { // a key is claimed once: Redis has forgotten the older claim, or it is settled
			old.lose(ErrLost)
		}
		r.held[c.Job.Key] = c
	}
	r.free += slots - len(claims)
}

// failed gives back the slots of a round without an answer.
func (r *replica) failed(t round) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += t.slots
	r.asked = 0
	r.look = true
	if t.claim > 0 {
		r.doubts++
	}
}

// sure has the replica care no more for what it may have claimed.
func (r *replica) sure() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubts = 0
}

// reserve takes a slot for a job that is about to be enqueued, to claim it in the same call if it need not wait.
func (r *replica) reserve(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	// While it is not known what was claimed, nothing must be claimed beside the dispatcher: it would adopt that too.
	if r.leaving || r.doubts > 0 || r.free <= 0 || r.held[key] != nil || r.coming[key] {
		return false
	}
	r.free--
	r.coming[key] = true
	return true
}

// take has what an enqueue claimed handled, or gives its slot back.
func (r *replica) take(key string, claims []*Claim) {
	begin := r.starts(claims)
	r.mu.Lock()
	delete(r.coming, key)
	r.enter(claims, 1)
	r.mu.Unlock()
	if begin(); len(claims) == 0 {
		r.ring()
	}
}

// unsure gives the slot of an enqueue without an answer back: it may have claimed its job.
func (r *replica) unsure(key string) {
	r.mu.Lock()
	delete(r.coming, key)
	r.free++
	r.doubts++
	r.look = true
	r.mu.Unlock()
	r.ring()
}

// drop forgets a claim. The caller holds mu.
func (r *replica) drop(c *Claim) {
	if r.held[c.Job.Key] == c { // its next job may have been claimed meanwhile
		delete(r.held, c.Job.Key)
	}
}

// release frees the slot of a claim that is settled, or lost.
func (r *replica) release(c *Claim) {
	r.mu.Lock()
	r.drop(c)
	r.free++
	r.mu.Unlock()
	r.ring()
}

// wait waits for the bell.
func (r *replica) wait(ctx context.Context) {
	select {
	case <-r.bell:
	default:
		r.mu.Lock()
		wake := r.deaf && r.free > 0 && !r.leaving
		r.mu.Unlock()
		if wake {
			r.wakeListener(ctx)
		}
		<-r.bell
	}
	runtime.Gosched() // handlers that are about to end do so: one call finishes them all
}

// ring wakes the dispatcher.
func (r *replica) ring() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// seek has the dispatcher look for something to claim.
func (r *replica) seek() {
	r.mu.Lock()
	r.look = true
	r.mu.Unlock()
	r.ring()
}

// leave ends claiming, and leaves the doorbell to the others: a ring for what is handed over must not end here.
func (r *replica) leave(ctx context.Context) {
	r.mu.Lock()
	r.leaving = true
	r.mu.Unlock()
	r.ring()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r.wakeListener(ctx)
	r.ringOthers(ctx)
}

func (r *replica) startUnder(work context.Context, c *Claim) (begin func()) {
	ctx, lose := context.WithCancelCause(context.WithValue(work, claimKey{}, c))
	c.lose = func(why error) {
		c.gone.Store(c.gone.Load() || errors.Is(why, ErrLost))
		lose(why)
	}
	return func() {
		r.handlers.Go(func() {
			defer lose(nil)
			verdict := r.handle(ctx, c)
			c.over.Store(Held(ctx) == nil)
			r.end(ctx, c, verdict)
		})
	}
}

// end carries a verdict out: a claim that is done is finished by the dispatcher's next call, with all others, and what is
// given back is given back at once. A claim that is lost needs nothing.
func (r *replica) end(ctx context.Context, c *Claim, v Verdict) {
	switch {
	case errors.Is(context.Cause(ctx), ErrLost):
		r.release(c)
	case v.mode == "done":
		r.mu.Lock()
		r.ended = append(r.ended, c)
		r.mu.Unlock()
		r.ring()
	default:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.q.cfg.Grace)
		defer cancel()
		if err := c.giveBack(ctx, v); err != nil {
			r.q.log.WarnContext(ctx, "claim not settled", "job", c.Job.ID, "err", err)
		}
		r.release(c)
	}
}

// step finishes claims, and then claims up to n jobs.
func (q *Queue) step(ctx context.Context, n int, done []*Claim) ([]*Claim, error) {
	args := append([]any{q.cfg.Owner, q.cfg.Lease.Milliseconds(), n}, q.runLimits()...)
	for _, c := range done {
		args = append(args, c.Job.Key, c.Job.ID, c.Fence)
	}
	sent := time.Now()
	res, err := q.run(ctx, "step", args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("finish and claim: %w", err)
	}
	list, _ := res[1].([]any)
	return q.claims(list, sent), nil
}

func (q *Queue) runLimits() []any {
	l := q.cfg.Limits
	return []any{l.Running, l.RunningPerUser, l.RunningPerGroup}
}

// adopt returns the claims that are leased to this replica and that it does not know.
func (r *replica) adopt(ctx context.Context) ([]*Claim, error) {
	args := []any{r.q.cfg.Owner, r.q.cfg.Lease.Milliseconds()}
	r.mu.Lock()
	doubts := r.doubts
	for key := range r.held {
		args = append(args, key)
	}
	for key := range r.coming {
		args = append(args, key)
	}
	r.mu.Unlock()
	sent := time.Now()
	res, err := r.q.run(ctx, "adopt", args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	r.mu.Lock()
	if r.doubts == doubts {
		r.doubts = 0
	}
	r.mu.Unlock()
	return r.q.claims(res, sent), nil
}

func (r *replica) holding() []*Claim {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Claim, 0, len(r.held))
	for _, c := range r.held {
		out = append(out, c)
	}
	return out
}

// claims reads what told() in common.lua wrote.
func (q *Queue) claims(list []any, sent time.Time) []*Claim {
	out := make([]*Claim, 0, len(list))
	for _, e := range list {
		f := texts(e)
		c := &Claim{
			Job:   Job{Key: f[0], ID: f[1], User: f[3], Group: f[4], Order: f[2], Payload: []byte(f[5])},
			Fence: atoi(f[6]), Attach: f[7] == "attach", Stage: f[8], Att: []byte(f[9]),
			Tries: int(atoi(f[10])), Takes: int(atoi(f[11])),
			q: q, cancelled: make(chan struct{}), deadline: sent.Add(q.cfg.Lease),
		}
		if f[12] == "1" {
			c.signal()
		}
		out = append(out, c)
	}
	return out
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
