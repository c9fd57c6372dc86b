package queue_test

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// BenchmarkTakeover is what it takes to reap 2,000 leases that ran out, and to attach to all of them: a replica with as many jobs
// is gone, or all of them are.
func BenchmarkTakeover(b *testing.B) {
	const n = 2000
	rdb := redis.NewClient(&redis.Options{Addr: realRedis(b), MaxRetries: -1})
	b.Cleanup(func() { _ = rdb.Close() })
	q, err := queue.New(rdb, queue.Config{Prefix: "takeover:", Owner: "r"})
	if err != nil {
		b.Fatal(err)
	}
	script := func(name string, args ...any) any {
		b.Helper()
		reply, err := q.Script(b.Context(), name, args...)
		if err != nil {
			b.Fatal(err)
		}
		return reply
	}
	claim := func() int {
		b.Helper()
		reply, _ := script("step", "r", 15000, n, 0, 0, 0).([]any)
		return len(q.Claims(reply[1]))
	}
	for i := range n {
		id := fmt.Sprintf("T024BE7LD:C0%07d:1712345678.%06d", i%100, i)
		if _, err := q.Enqueue(b.Context(), queue.Job{Key: id, ID: id, User: fmt.Sprint("u", i%300), Group: fmt.Sprint("g", i%100), Payload: make([]byte, 200)}, queue.Enqueue{}); err != nil {
			b.Fatal(err)
		}
	}
	if got := claim(); got != n {
		b.Fatalf("%d claims, want %d", got, n)
	}
	for later := 1; b.Loop(); later++ {
		b.StopTimer()
		if err := rdb.HSet(b.Context(), "takeover:{queue}:meta", "skew", later*20_000).Err(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for range n / 500 {
			script("tick", 500, 0, 0)
		}
		if got := claim(); got != n {
			b.Fatalf("%d claims, want %d", got, n)
		}
	}
}
