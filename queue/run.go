package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Handler works on a claim. Its context ends with [ErrLost] when the claim is lost, and with [ErrDraining]
// when the replica leaves: then it should return Handoff soon.
type Handler func(ctx context.Context, c *Claim) Verdict

// Run claims jobs and hands them to handle, each in a goroutine of its own, until ctx ends and every
// handler has returned. Trouble with Redis is logged and waited out.
func (q *Queue) Run(ctx context.Context, handle Handler) error {
	r := &replica{q: q, handle: handle, bell: make(chan struct{}, 1), free: make(chan struct{}, q.cfg.Slots), adopt: true}
	for range q.cfg.Slots {
		r.free <- struct{}{}
	}
	// Handlers, beats and the listener outlive ctx until the handlers are through.
	work, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)
	live, stopLive := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLive()
	var aux sync.WaitGroup
	aux.Go(func() { r.beats(live) })
	aux.Go(func() { r.listen(live) })
	r.dispatch(ctx, work)
	stopWork(ErrDraining)
	r.handlers.Wait()
	stopLive()
	r.wakeListener(context.WithoutCancel(ctx))
	aux.Wait()
	return nil
}

// replica is a running queue.
type replica struct {
	q        *Queue
	handle   Handler
	handlers sync.WaitGroup
	bell     chan struct{} // somebody may have work
	free     chan struct{} // a token for each free slot
	adopt    bool          // the reply of a claim may have been lost
	deaf     atomic.Bool   // the listener waits at the mailbox alone
}

// dispatch claims as many jobs as there are free slots, whenever there may be some.
func (r *replica) dispatch(ctx, work context.Context) {
	for ctx.Err() == nil {
		n := r.take(ctx)
		if n == 0 {
			return
		}
		claims, err := r.claim(ctx, n)
		if err == nil {
			r.q.ill.well(ctx, "claim")
		}
		for _, c := range claims {
			r.start(work, c)
		}
		for range n - min(n, len(claims)) {
			r.free <- struct{}{}
		}
		switch {
		case err != nil && ctx.Err() == nil:
			r.q.ill.ails(ctx, "claim", err)
			pause(ctx, time.Second)
		case len(claims) == 0:
			if r.deaf.Load() {
				r.wakeListener(ctx)
			}
			select {
			case <-ctx.Done():
			case <-r.bell:
			}
		}
	}
}

// take waits for a free slot and takes all that are free.
func (r *replica) take(ctx context.Context) int {
	select {
	case <-ctx.Done():
		return 0
	case <-r.free:
	}
	n := 1
	for {
		select {
		case <-r.free:
			n++
		default:
			return n
		}
	}
}

// claim claims up to n jobs; after a call whose answer was lost it takes in what that one claimed first.
func (r *replica) claim(ctx context.Context, n int) ([]*Claim, error) {
	if r.adopt {
		got, err := r.q.adopt(ctx)
		if err != nil {
			return nil, err
		}
		r.adopt = false
		if len(got) > 0 {
			return got, nil
		}
	}
	got, err := r.q.step(ctx, n, nil)
	if err != nil {
		r.adopt = true
	}
	return got, err
}

func (r *replica) start(work context.Context, c *Claim) {
	ctx, lose := context.WithCancelCause(context.WithValue(work, claimKey{}, c))
	c.lose = lose
	r.q.mu.Lock()
	if old := r.q.held[c.Job.Key]; old != nil { // a key is claimed once: Redis has forgotten the older claim, or it is settled
		old.lose(ErrLost)
	}
	r.q.held[c.Job.Key] = c
	r.q.mu.Unlock()
	r.handlers.Go(func() {
		defer lose(nil)
		verdict := r.handle(ctx, c)
		c.over.Store(true)
		settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.q.cfg.Grace)
		defer cancel()
		if !errors.Is(context.Cause(ctx), ErrLost) {
			if err := c.settle(settle, verdict); err != nil {
				r.q.log.WarnContext(ctx, "claim not settled", "job", c.Job.ID, "err", err)
			}
		}
		r.q.mu.Lock()
		if r.q.held[c.Job.Key] == c { // its next job may have been claimed meanwhile
			delete(r.q.held, c.Job.Key)
		}
		r.q.mu.Unlock()
		r.free <- struct{}{}
	})
}

// step finishes a claim if there is one, and claims up to n jobs.
func (q *Queue) step(ctx context.Context, n int, done *Claim) ([]*Claim, error) {
	l := q.cfg.Limits
	args := []any{q.cfg.Owner, q.cfg.Lease.Milliseconds(), n, l.Running, l.RunningPerUser, l.RunningPerGroup}
	if done != nil {
		args = append(args, done.Job.Key, done.Job.ID, done.Fence)
	}
	sent := time.Now()
	res, err := q.run(ctx, "step", args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	list, _ := res[1].([]any)
	return q.claims(list, sent), nil
}

// adopt returns the claims that are leased to this replica and that no handler works on.
func (q *Queue) adopt(ctx context.Context) ([]*Claim, error) {
	args := []any{q.cfg.Owner, q.cfg.Lease.Milliseconds()}
	for _, c := range q.holding() {
		args = append(args, c.Job.Key)
	}
	sent := time.Now()
	res, err := q.run(ctx, "adopt", args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	return q.claims(res, sent), nil
}

func (q *Queue) holding() []*Claim {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]*Claim, 0, len(q.held))
	for _, c := range q.held {
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
			Job: Job{Key: f[0], ID: f[1], User: f[3], Group: f[4], Payload: []byte(f[5])},
			Seq: atoi(f[2]), Fence: atoi(f[6]), Attach: f[7] == "attach", Stage: f[8], Att: []byte(f[9]),
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

// beats keeps the leases and, while that works, looks after those of others.
func (r *replica) beats(ctx context.Context) {
	tick := time.NewTicker(r.q.cfg.Lease / 3)
	defer tick.Stop()
	good := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.q.beat(ctx); err != nil {
			good = 0
			if ctx.Err() == nil {
				r.q.ill.ails(ctx, "beat", err)
			}
			continue
		}
		r.q.ill.well(ctx, "beat")
		// The first replica back after an outage must not reap all the others.
		if good++; good < 2 {
			continue
		}
		l := r.q.cfg.Limits
		err := r.q.run(ctx, "tick", 500, l.RunningPerUser, l.RunningPerGroup).Err()
		switch {
		case err == nil:
			r.q.ill.well(ctx, "tick")
		case ctx.Err() == nil:
			r.q.ill.ails(ctx, "tick", err)
		}
	}
}

// beatChunk bounds how long one script runs: some 4 µs a lease.
const beatChunk = 500

func (q *Queue) beat(ctx context.Context) error {
	held := q.holding()
	defer q.loseExpired(held)
	for { // also without any: a replica that reaches Redis again must know how long it does
		n := min(len(held), beatChunk)
		if err := q.beatSome(ctx, held[:n]); err != nil {
			return err
		}
		if held = held[n:]; len(held) == 0 {
			return nil
		}
	}
}

func (q *Queue) beatSome(ctx context.Context, held []*Claim) error {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.Lease/3)
	defer cancel()
	args := []any{q.cfg.Owner, q.cfg.Lease.Milliseconds()}
	for _, c := range held {
		args = append(args, c.Job.Key, c.Fence)
	}
	sent := time.Now()
	res, err := q.run(ctx, "beat", args...).Slice()
	if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	lost, cancelled := set(texts(res[0])), set(texts(res[1]))
	for _, c := range held {
		switch {
		case lost[c.Job.Key]:
			c.lose(ErrLost)
		default:
			c.extend(sent.Add(q.cfg.Lease))
		}
		if cancelled[c.Job.Key] {
			c.signal()
		}
	}
	return nil
}

// loseExpired gives up claims whose lease may be over by our own clock.
func (q *Queue) loseExpired(held []*Claim) {
	now := time.Now()
	for _, c := range held {
		if now.After(c.until()) {
			c.lose(ErrLost)
		}
	}
}

func set(list []string) map[string]bool {
	out := make(map[string]bool, len(list))
	for _, s := range list {
		out[s] = true
	}
	return out
}

// listen waits at the doorbell and at this replica's mailbox, which comes first.
func (r *replica) listen(ctx context.Context) {
	box, wake := r.q.prefix+"ctl:"+r.q.cfg.Owner, r.q.prefix+"wake"
	for ctx.Err() == nil {
		keys := []string{box, wake}
		full := len(r.free) == 0
		if full { // a token would be swallowed
			keys = keys[:1]
		}
		r.deaf.Store(full)
		got, err := r.q.cfg.Listener.BLPop(ctx, r.q.cfg.Poll, keys...).Result()
		if err == nil || errors.Is(err, redis.Nil) {
			r.q.ill.well(ctx, "listen")
		}
		switch {
		case err == nil && strings.HasSuffix(got[0], "wake"):
			r.ring()
		case err == nil:
			r.q.cancelled(got[1])
		case errors.Is(err, redis.Nil): // nothing for Poll: look anyway
			r.ring()
		case ctx.Err() == nil:
			r.q.ill.ails(ctx, "listen", err)
			pause(ctx, time.Second)
			r.ring()
		}
	}
}

func (r *replica) ring() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// cancelled tells the handler of a key; an empty key only wakes the listener.
func (q *Queue) cancelled(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := q.held[key]; c != nil {
		c.signal()
	}
}

// wakeListener ends a BLPOP at once: the client does not interrupt one when its context ends.
func (r *replica) wakeListener(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	box := r.q.prefix + "ctl:" + r.q.cfg.Owner
	pipe := r.q.rdb.Pipeline()
	pipe.RPush(ctx, box, "")
	pipe.Expire(ctx, box, time.Minute)
	if _, err := pipe.Exec(ctx); err != nil {
		r.q.log.DebugContext(ctx, "listener not woken", "err", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
