package queue

import (
	"context"
	"fmt"
	"time"
)

// beats keeps the leases and, while that works, looks after those of others: soon after the next one runs out.
func (r *replica) beats(ctx context.Context) {
	every := r.q.cfg.Lease / 3
	late := min(every, time.Second) // a beat that is a little late still finds its lease
	beat, due := time.NewTicker(every), time.NewTimer(every)
	defer beat.Stop()
	defer due.Stop()
	good := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		case <-beat.C:
			r.wentRound()
			if err := r.beat(ctx); err != nil {
				good = 0
				if ctx.Err() == nil {
					r.q.ill.ails(ctx, "beat", err)
				}
				continue
			}
			r.q.ill.well(ctx, "beat")
			good++
		}
		// The first replica back after an outage must not reap all the others.
		if good < 2 {
			continue
		}
		next, err := r.q.tick(ctx)
		switch {
		case err == nil:
			r.q.ill.well(ctx, "tick")
		case ctx.Err() == nil:
			r.q.ill.ails(ctx, "tick", err)
			good = 0
		}
		due.Reset(min(next+late, every))
	}
}

// tickMost bounds how long one tick takes: some 10 µs a lease that ran out.
const tickMost = 500

// tick moves what is due, and says when something is due next.
func (q *Queue) tick(ctx context.Context) (time.Duration, error) {
	l := q.cfg.Limits
	ms, err := q.run(ctx, "tick", tickMost, l.RunningPerUser, l.RunningPerGroup).Int64()
	if err != nil {
		return 0, fmt.Errorf("tick: %w", err)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// beatChunk bounds how long one script runs: some 4 µs a lease.
const beatChunk = 500

// beat extends all leases. Also without any: a replica that reaches Redis again must know how long it does.
func (r *replica) beat(ctx context.Context) error {
	held := r.holding()
	defer loseExpired(held)
	for rest := held; ; {
		n := min(len(rest), beatChunk)
		if err := r.q.beat(ctx, rest[:n]); err != nil {
			return err
		}
		if rest = rest[n:]; len(rest) == 0 {
			return nil
		}
	}
}

func (q *Queue) beat(ctx context.Context, held []*Claim) error {
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
func loseExpired(held []*Claim) {
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
