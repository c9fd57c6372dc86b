package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// prefix of all keys of the queue here; the queue adds its hash tag.
const prefix = "bench:"

// Names as long as real ones.
func keyOf(i int) string   { return fmt.Sprintf("T024BE7LD:C0%07d:1712345678.%06d", i%100, i) }
func idOf(i int) string    { return fmt.Sprintf("T024BE7LD:C0%07d:%s", i%100, orderOf(i)) }
func orderOf(i int) string { return fmt.Sprintf("1712399999.%06d", i) } // a ts, as the bot's jobs have it
func userOf(i int) string  { return fmt.Sprintf("U%05d", i%300) }
func groupOf(i int) string { return fmt.Sprintf("C0%07d", i%100) }

func jobOf(key, id int, payload []byte) queue.Job {
	return queue.Job{Key: keyOf(key), ID: idOf(id), User: userOf(key), Group: groupOf(key), Order: orderOf(id), Payload: payload}
}

// side is one of the two that are compared.
type side interface {
	enqueue(ctx context.Context, i int) error
	work(ctx context.Context, done func()) (stop func() error, err error) // starts the workers; done is called after each job
	left(ctx context.Context) error                                       // nil when nothing is left behind
	close()
}

// throughput measures jobs per second of a side: enqueued alone, drained alone, and both together.
func throughput(ctx context.Context, j task) (figures, error) {
	out := figures{}
	for _, mixed := range []bool{false, true} {
		s, err := newSide(ctx, j)
		if err != nil {
			return nil, err
		}
		err = throughputOf(ctx, j, s, mixed, out)
		s.close()
		if err != nil {
			return nil, fmt.Errorf("%s with %d workers: %w", j.Impl, j.Workers, err)
		}
	}
	return out, nil
}

func throughputOf(ctx context.Context, j task, s side, mixed bool, out figures) error {
	var ended atomic.Int64
	all := make(chan struct{})
	done := func() {
		if ended.Add(1) == int64(j.Jobs) {
			close(all)
		}
	}
	perSecond := func(since time.Time) float64 { return float64(j.Jobs) / time.Since(since).Seconds() }
	rdb := client(j.Redis, 0, 1)
	defer func() { _ = rdb.Close() }()
	began := time.Now()
	if !mixed {
		if err := produce(ctx, j, s); err != nil {
			return err
		}
		out["enqueue"] = perSecond(began)
		began = time.Now()
	}
	if err := rdb.ConfigResetStat(ctx).Err(); err != nil {
		return fmt.Errorf("reset the counters: %w", err)
	}
	stop, err := s.work(ctx, done)
	if err != nil {
		return err
	}
	if mixed {
		if err := produce(ctx, j, s); err != nil {
			return err
		}
	}
	select {
	case <-all:
	case <-time.After(time.Minute):
		return fmt.Errorf("%d of %d jobs ran within a minute", ended.Load(), j.Jobs)
	}
	name := map[bool]string{true: "mixed", false: "drain"}[mixed]
	out[name] = perSecond(began)
	if err := stop(); err != nil {
		return err
	}
	if n := ended.Load(); n != int64(j.Jobs) {
		return fmt.Errorf("%d jobs ran, want %d", n, j.Jobs)
	}
	stats, err := commandStats(ctx, rdb)
	if err != nil {
		return err
	}
	out[name+" calls"] = float64(stats["evalsha"].n) / float64(j.Jobs)
	out[name+" µs"] = float64(stats["evalsha"].took.Microseconds()) / float64(j.Jobs)
	return s.left(ctx)
}

// produce enqueues all jobs from ten producers; job i belongs to key i modulo the number of keys. All jobs of a key come from one producer, so
// that they have an order.
func produce(ctx context.Context, j task, s side) error {
	errs := make(chan error, producers)
	for p := range producers {
		go func() {
			for i := p; i < j.Jobs; i += producers {
				if err := s.enqueue(ctx, i); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var err error
	for range producers {
		err = errors.Join(err, <-errs)
	}
	return err
}

const producers = 10

func newSide(ctx context.Context, j task) (side, error) {
	rdb := client(j.Redis, 0, j.Workers+producers+10)
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	payload := []byte(strings.Repeat("x", 200))
	if j.Impl == "asynq" {
		opt := asynq.RedisClientOpt{Addr: j.Redis, PoolSize: j.Workers + producers + 10}
		return &asynqSide{rdb: rdb, opt: opt, client: asynq.NewClient(opt), workers: j.Workers, payload: payload}, nil
	}
	// A short lease, so that beats and ticks fall into a run that takes less than a second.
	q, err := queue.New(rdb, queue.Config{Prefix: prefix, Slots: j.Workers, Lease: time.Second})
	if err != nil {
		return nil, err
	}
	return &ourSide{rdb: rdb, q: q, keys: j.Keys, payload: payload}, nil
}

type ourSide struct {
	rdb     *redis.Client
	q       *queue.Queue
	keys    int
	payload []byte

	mu   sync.Mutex
	last map[string]string // guarded by mu; :: key → order of its last job
	err  error             // guarded by mu
}

func (s *ourSide) enqueue(ctx context.Context, i int) error {
	got, err := s.q.Enqueue(ctx, jobOf(i%s.keys, i, s.payload), queue.Enqueue{})
	if err == nil && got.Status != queue.Queued {
		err = fmt.Errorf("enqueue job %d: %s", i, got.Status)
	}
	return err
}

func (s *ourSide) work(ctx context.Context, done func()) (func() error, error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	s.last = map[string]string{}
	go func() {
		ended <- s.q.Run(ctx, func(_ context.Context, c *queue.Claim) queue.Verdict {
			s.mu.Lock()
			if c.Job.Order <= s.last[c.Job.Key] {
				s.err = fmt.Errorf("job %s of %s came after %s", c.Job.ID, c.Job.Key, s.last[c.Job.Key])
			}
			s.last[c.Job.Key] = c.Job.Order
			s.mu.Unlock()
			done()
			return queue.Done()
		})
	}()
	return func() error { cancel(); return errors.Join(<-ended, s.err) }, nil
}

// left looks for what a queue without jobs must not have.
func (s *ourSide) left(ctx context.Context) error {
	load, err := s.q.Load(ctx)
	if err != nil {
		return err
	}
	if load != (queue.Load{}) {
		return fmt.Errorf("left behind: %+v", load)
	}
	names, err := s.rdb.Keys(ctx, prefix+"*").Result()
	if err != nil {
		return fmt.Errorf("list the keys: %w", err)
	}
	for _, full := range names {
		kind, _, _ := strings.Cut(strings.TrimPrefix(full, prefix+"{queue}:"), ":")
		switch kind {
		case "s", "d", "meta", "wake", "ctl", "fair": // what is known of keys and ids, and how to wake whom
		default:
			return fmt.Errorf("left behind: %s", full)
		}
	}
	return nil
}

func (s *ourSide) close() { _ = s.rdb.Close() }

type asynqSide struct {
	rdb     *redis.Client
	opt     asynq.RedisClientOpt
	client  *asynq.Client
	workers int
	payload []byte
}

func (s *asynqSide) enqueue(ctx context.Context, i int) error {
	_, err := s.client.EnqueueContext(ctx, asynq.NewTask("turn", s.payload), asynq.TaskID(idOf(i)), asynq.Retention(0))
	return err
}

func (s *asynqSide) work(_ context.Context, done func()) (func() error, error) {
	srv := asynq.NewServer(s.opt, asynq.Config{Concurrency: s.workers, Logger: quiet{}, LogLevel: asynq.FatalLevel})
	err := srv.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { done(); return nil }))
	return func() error { srv.Shutdown(); return nil }, err
}

func (s *asynqSide) left(ctx context.Context) error {
	for _, name := range []string{"pending", "active"} {
		n, err := s.rdb.LLen(ctx, "asynq:{default}:"+name).Result()
		if err != nil || n > 0 {
			return fmt.Errorf("asynq left %d %s: %w", n, name, err)
		}
	}
	return nil
}

func (s *asynqSide) close() {
	_ = s.client.Close()
	_ = s.rdb.Close()
}

// quiet is a logger of asynq that says nothing.
type quiet struct{}

func (quiet) Debug(...any) {}
func (quiet) Info(...any)  {}
func (quiet) Warn(...any)  {}
func (quiet) Error(...any) {}
func (quiet) Fatal(...any) {}
