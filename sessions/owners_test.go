package sessions

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// TestOwnersOnly: nothing is sent for a turn whose lease may be over, also where nobody waits for the end of the context.
func TestOwnersOnly(t *testing.T) {
	t.Parallel()
	var sent atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent.Add(1) }))
	t.Cleanup(server.Close)
	client := &http.Client{Transport: OwnersOnly(nil)}
	send := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, http.NoBody)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	redisServer := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: redisServer.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	q, err := queue.New(rdb, queue.Config{Prefix: "owners:", Lease: 500 * time.Millisecond, Grace: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Enqueue(t.Context(), queue.Job{Key: "k", ID: "1", User: "u", Group: "g"}, queue.Enqueue{}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	left := make(chan context.Context, 1)
	err = q.Run(ctx, func(ctx context.Context, _ *queue.Claim) queue.Verdict {
		defer leave()
		if err := send(ctx); err != nil {
			t.Errorf("a request of the turn's owner: %v", err)
		}
		redisServer.Close() // nothing renews the lease any more
		<-ctx.Done()
		if err := send(context.WithoutCancel(ctx)); !errors.Is(err, queue.ErrLost) {
			t.Errorf("a request of who was its owner: %v, want ErrLost", err)
		}
		left <- context.WithoutCancel(ctx)
		return queue.Handoff()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := send(<-left); !errors.Is(err, queue.ErrLost) {
		t.Errorf("a request of what is left of his work: %v, want ErrLost", err)
	}
	if err := send(t.Context()); err != nil {
		t.Errorf("a request for no turn: %v", err)
	}
	if n := sent.Load(); n != 2 {
		t.Errorf("%d requests were sent, want those of the owner and for no turn", n)
	}
}
