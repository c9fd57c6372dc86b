package queue

import (
	"context"
	"fmt"
	"time"
)

// Load is what all replicas together have to do.
type Load struct {
	Jobs    int64 // enqueued and not finished
	Claimed int64 // of them: claimed, over all replicas
	// How many keys are where; their other jobs wait behind these.
	Ready, Leased, Orphan, Delayed, Parked int64
	// Oldest is for how long the job has been enqueued that waits longest for a replica: one that may start, or has lost its owner.
	Oldest time.Duration
}

// loadMost bounds how many heads are looked at for the oldest: some 3 µs each. With more the answer may be a little too small.
const loadMost = 500

// Load asks how much there is to do.
func (q *Queue) Load(ctx context.Context) (Load, error) {
	n, err := q.run(ctx, "load", loadMost).Int64Slice()
	if err != nil {
		return Load{}, fmt.Errorf("ask for the load: %w", err)
	}
	return Load{
		Jobs: n[0], Claimed: n[1], Ready: n[2], Leased: n[3], Orphan: n[4], Delayed: n[5], Parked: n[6],
		Oldest: time.Duration(n[7]) * time.Millisecond,
	}, nil
}

// Owner is the name of this replica.
func (q *Queue) Owner() string { return q.cfg.Owner }

// Health is how this replica stands with Redis, by its own latest calls: asking for it makes none.
type Health struct {
	// Round is when the loop that keeps the leases went round last, whether Redis answered or not; zero: it does not run.
	Round time.Time
	// Every is how often it goes round.
	Every time.Duration
	// Trouble is the code of what is wrong ([Trouble]), "" if nothing is.
	Trouble string
	Since   time.Time // when that began, or when all was well again; zero: Redis was never asked
}

// Health tells it.
func (q *Queue) Health() Health {
	h := Health{Every: q.cfg.Lease / 3}
	if at := q.round.Load(); at != nil {
		h.Round = *at
	}
	h.Trouble, h.Since = q.ill.state()
	return h
}

// wentRound notes that the loop goes round. It takes the lock that all of the replica's work needs: if somebody keeps that for ever, it is not noted.
func (r *replica) wentRound() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.q.round.Store(&now)
}
