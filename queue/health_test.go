package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// TestLoad: what all replicas have to do is counted, and the job that waits longest for one is seen.
func TestLoad(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		q := s.queue(t, queue.Config{})
		load := func(want queue.Load) (oldest time.Duration) {
			t.Helper()
			got, err := q.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			oldest, got.Oldest = got.Oldest, 0
			if got != want {
				t.Errorf("Load = %+v, want %+v", got, want)
			}
			return oldest
		}
		if old := load(queue.Load{}); old != 0 {
			t.Errorf("nothing waits, and the oldest is %s old", old)
		}
		for _, id := range []string{"a1", "a2", "a3"} {
			put(t, q, "a", id)
		}
		put(t, q, "b", "b1")
		// b1 has been there for a minute: its id is known for so much less.
		rdb := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
		defer func() { _ = rdb.Close() }()
		if err := rdb.Expire(t.Context(), "fb:{queue}:d:b1", 3*24*time.Hour-time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if old := load(queue.Load{Jobs: 4, Ready: 2}); old < time.Minute || old > 2*time.Minute {
			t.Errorf("the oldest is %s old, want a minute", old)
		}
		claims := step(t, q, "me", 10_000, 2, 0, 0, 0)
		if len(claims) != 2 {
			t.Fatalf("%d claims, want 2", len(claims))
		}
		if old := load(queue.Load{Jobs: 4, Claimed: 2, Leased: 2}); old != 0 {
			t.Errorf("all waits behind its own thread, and the oldest is %s old", old)
		}
		script(t, q, "release", claims[0].Job.Key, claims[0].Job.ID, claims[0].Fence, "handoff", 0)
		script(t, q, "release", claims[1].Job.Key, claims[1].Job.ID, claims[1].Fence, "retry", 60_000)
		load(queue.Load{Jobs: 4, Claimed: 1, Orphan: 1, Delayed: 1})
		if err := rdb.Del(t.Context(), "fb:{queue}:d:b1", "fb:{queue}:d:a1").Err(); err != nil { // they have been there for longer than ids are known
			t.Fatal(err)
		}
		if old := load(queue.Load{Jobs: 4, Claimed: 1, Orphan: 1, Delayed: 1}); old != 3*24*time.Hour {
			t.Errorf("the oldest is %s old, want three days", old)
		}
		for _, key := range []string{"c", "d", "e", "f"} { // of one user, who may run three at once
			put(t, q, key, key+"1")
		}
		step(t, q, "me", 10_000, 9, 0, 3, 0)
		if old := load(queue.Load{Jobs: 8, Claimed: 3, Leased: 3, Delayed: 1, Parked: 2}); old != 0 {
			t.Errorf("all that waits is above a limit or put off, and the oldest is %s old", old)
		}
	})
}

// TestHealth: a replica knows how it stands with Redis without asking, and that its own loop goes round also when Redis does not answer.
func TestHealth(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	q := server{addr: r.addr}.queue(t, queue.Config{Lease: 300 * time.Millisecond})
	if h := q.Health(); !h.Round.IsZero() || !h.Since.IsZero() || h.Trouble != "" || h.Every != 100*time.Millisecond {
		t.Errorf("before it runs: %+v", h)
	}
	until := func(what string, is func(queue.Health) bool) queue.Health {
		t.Helper()
		for end := time.Now().Add(soon); ; {
			h := q.Health()
			if is(h) {
				return h
			}
			if time.Now().After(end) {
				t.Fatalf("%s: never: %+v", what, h)
			}
		}
	}
	stop := work(t, q, func(context.Context, *queue.Claim) queue.Verdict { return queue.Done() })
	until("it is well", func(h queue.Health) bool { return h.Trouble == "" && !h.Since.IsZero() })
	r.kill()
	ill := until("Redis is away", func(h queue.Health) bool { return h.Trouble == "NETWORK" })
	until("its loop goes round all the same", func(h queue.Health) bool { return h.Round.After(ill.Round.Add(200 * time.Millisecond)) })
	if h := q.Health(); !h.Since.Equal(ill.Since) {
		t.Errorf("it is ill since %s, and later since %s", ill.Since, h.Since)
	}
	r.start()
	until("it is well again", func(h queue.Health) bool { return h.Trouble == "" && h.Since.After(ill.Since) })
	stop()
	if h := q.Health(); !h.Round.IsZero() {
		t.Errorf("it has stopped: %+v", h)
	}
}
