package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// at is a share of a sorted list: 0.5 is its middle.
func at(list []time.Duration, share float64) float64 {
	s := slices.Sorted(slices.Values(list))
	return float64(s[int(float64(len(s)-1)*share)].Microseconds()) / 1000
}

// running is a queue at work, on clients of its own.
type running struct {
	q     *queue.Queue
	rdb   *redis.Client
	leave func() error
}

func startQueue(ctx context.Context, addr string, db int, cfg queue.Config, h queue.Handler) (running, error) {
	cfg.Prefix = prefix
	rdb, ear := client(addr, db, 20), client(addr, db, 1)
	cfg.Listener = ear
	q, err := queue.New(rdb, cfg)
	if err != nil {
		return running{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx, h) }()
	return running{q, rdb, func() error {
		cancel()
		err := <-ended
		_, _ = rdb.Close(), ear.Close()
		return err
	}}, nil
}

// latency enqueues one job at a time into an idle queue: through the replica that runs it, and through another one's.
func latency(ctx context.Context, t task) (figures, error) {
	started := make(chan time.Time, 1)
	r, err := startQueue(ctx, t.Redis, 0, queue.Config{Slots: 10}, func(context.Context, *queue.Claim) queue.Verdict {
		started <- time.Now()
		return queue.Done()
	})
	if err != nil {
		return nil, err
	}
	if err := r.rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	rdb := client(t.Redis, 0, 2)
	defer func() { _ = rdb.Close() }()
	other, err := queue.New(rdb, queue.Config{Prefix: prefix})
	if err != nil {
		return nil, err
	}
	payload := []byte(strings.Repeat("x", 200))
	took := map[string][]time.Duration{}
	id := 0
	rest := func() { time.Sleep(10 * time.Millisecond) }
	for range t.Jobs {
		rest()
		began := time.Now()
		if err := rdb.Ping(ctx).Err(); err != nil {
			return nil, fmt.Errorf("ping: %w", err)
		}
		took["ping"] = append(took["ping"], time.Since(began))
		for name, q := range map[string]*queue.Queue{"own": r.q, "other": other} {
			rest()
			id++
			began := time.Now()
			if _, err := q.Enqueue(ctx, jobOf(id%1000, id, payload), queue.Enqueue{}); err != nil {
				return nil, err
			}
			took[name] = append(took[name], (<-started).Sub(began))
		}
	}
	out := figures{}
	for name, list := range took {
		out[name+" p50"], out[name+" p99"] = at(list, 0.5), at(list, 0.99)
	}
	return out, r.leave()
}

// idle counts what a replica sends that has nothing to do. What its scripts call in Redis is not sent.
func idle(ctx context.Context, t task) (figures, error) {
	r, err := startQueue(ctx, t.Redis, 0, queue.Config{}, func(context.Context, *queue.Claim) queue.Verdict { return queue.Done() })
	if err != nil {
		return nil, err
	}
	time.Sleep(time.Duration(t.Seconds) * 100 * time.Millisecond) // its start is over
	if err := r.rdb.ConfigResetStat(ctx).Err(); err != nil {
		return nil, fmt.Errorf("reset the counters: %w", err)
	}
	began := time.Now()
	time.Sleep(time.Duration(t.Seconds) * time.Second)
	stats, err := commandStats(ctx, r.rdb)
	if err != nil {
		return nil, err
	}
	seconds, n := time.Since(began).Seconds(), int64(0)
	for _, name := range []string{"evalsha", "eval", "blpop", "ping", "hello"} {
		n += stats[name].n
	}
	return figures{"commands": float64(n) / seconds}, r.leave()
}

// drain works until n jobs are done.
func drain(ctx context.Context, addr string, db, slots, n int) error {
	done := make(chan struct{}, n)
	r, err := startQueue(ctx, addr, db, queue.Config{Slots: slots}, func(context.Context, *queue.Claim) queue.Verdict {
		done <- struct{}{}
		return queue.Done()
	})
	if err != nil {
		return err
	}
	for range n {
		<-done
	}
	return r.leave()
}

// fill enqueues one job under each of n keys.
func fill(ctx context.Context, q *queue.Queue, from, n, firstID int) error {
	payload := []byte(strings.Repeat("x", 200))
	errs := make(chan error, 4)
	for part := range 4 {
		go func() {
			for i := part; i < n; i += 4 {
				if _, err := q.Enqueue(ctx, jobOf(from+i, firstID+i, payload), queue.Enqueue{}); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// growth measures the server's time for scripts at several numbers of sleeping sessions, each in a database of its own.
func growth(ctx context.Context, t task) (figures, error) {
	rdbs, qs := make([]*redis.Client, len(t.Sizes)), make([]*queue.Queue, len(t.Sizes))
	for i, n := range t.Sizes {
		rdbs[i] = client(t.Redis, i, 4)
		defer func() { _ = rdbs[i].Close() }()
		q, err := queue.New(rdbs[i], queue.Config{Prefix: prefix})
		if err != nil {
			return nil, err
		}
		if qs[i] = q; i == 0 {
			if err := rdbs[0].FlushAll(ctx).Err(); err != nil {
				return nil, fmt.Errorf("empty Redis: %w", err)
			}
		}
		if err := fill(ctx, q, 0, n, 0); err != nil {
			return nil, err
		}
		if err := drain(ctx, t.Redis, i, 200, n); err != nil {
			return nil, err
		}
	}
	spent := func(i int, do func() error) (float64, error) {
		if err := rdbs[i].ConfigResetStat(ctx).Err(); err != nil {
			return 0, fmt.Errorf("reset the counters: %w", err)
		}
		if err := do(); err != nil {
			return 0, err
		}
		stats, err := commandStats(ctx, rdbs[i])
		return float64(stats["evalsha"].took.Nanoseconds()) / 1000 / float64(t.Jobs), err
	}
	took := map[string][]float64{}
	for round := range t.Rounds + 1 {
		var turn []float64
		for i, n := range t.Sizes {
			from := round * t.Jobs % (n - t.Jobs + 1)
			in, err := spent(i, func() error { return fill(ctx, qs[i], from, t.Jobs, 1_000_000*(round+1)) })
			if err != nil {
				return nil, err
			}
			out, err := spent(i, func() error { return drain(ctx, t.Redis, i, 10, t.Jobs) })
			if err != nil {
				return nil, err
			}
			turn = append(turn, in+out)
			if round > 0 {
				took[fmt.Sprint("enqueue ", i)] = append(took[fmt.Sprint("enqueue ", i)], in)
				took[fmt.Sprint("claim and finish ", i)] = append(took[fmt.Sprint("claim and finish ", i)], out)
				took[fmt.Sprint("ratio ", i)] = append(took[fmt.Sprint("ratio ", i)], turn[i]/turn[0])
			}
		}
	}
	out := figures{}
	for name, list := range took {
		out[name] = median(list)
	}
	return out, nil
}

// memory measures what sessions take in Redis.
func memory(ctx context.Context, t task) (figures, error) {
	rdb := client(t.Redis, 0, 4)
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	q, err := queue.New(rdb, queue.Config{Prefix: prefix})
	if err != nil {
		return nil, err
	}
	out := figures{}
	last, err := usedMemory(ctx, rdb)
	if err != nil {
		return nil, err
	}
	grown := func(name string) error {
		now, err := usedMemory(ctx, rdb)
		out[name], last = (now-last)/float64(t.Keys), now
		return err
	}
	// Sessions come and go to sleep some at a time, as they do, and the marks of their turns expire: Redis's tables have the size for those
	// that are there, not for all that ever was.
	const some = 500
	for from := 0; from < t.Keys; from += some {
		if err := fill(ctx, q, from, some, from); err != nil {
			return nil, err
		}
		if err := drain(ctx, t.Redis, 0, 100, some); err != nil {
			return nil, err
		}
		if err := forget(ctx, rdb, from, some); err != nil {
			return nil, err
		}
	}
	if err := grown("idle session"); err != nil {
		return nil, err
	}
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	if last, err = usedMemory(ctx, rdb); err != nil {
		return nil, err
	}
	for i, name := range []string{"first queued turn, with the session", "second queued turn", "third queued turn"} {
		if err := fill(ctx, q, 0, t.Keys, i*t.Keys); err != nil {
			return nil, err
		}
		if err := grown(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// forget deletes the marks of turns that were seen, as three days do.
func forget(ctx context.Context, rdb *redis.Client, from, n int) error {
	pipe := rdb.Pipeline()
	for i := range n {
		pipe.Del(ctx, prefix+"{queue}:d:"+idOf(from+i))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("delete the marks: %w", err)
	}
	return nil
}

// replica claims a job, says so, and holds it until it is killed or told to leave.
func replica(ctx context.Context, t task) (figures, error) {
	rdb := client(t.Redis, 0, 10)
	defer func() { _ = rdb.Close() }()
	q, err := queue.New(rdb, queue.Config{Prefix: prefix, Lease: takeoverLease})
	if err != nil {
		return nil, err
	}
	return nil, q.Run(ctx, func(ctx context.Context, _ *queue.Claim) queue.Verdict {
		fmt.Println("claimed")
		<-ctx.Done()
		return queue.Handoff()
	})
}
