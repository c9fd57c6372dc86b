package queue_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

const soon = 20 * time.Second // nothing here takes so long unless it never comes

// server is a Redis that a test has for itself.
type server struct {
	addr string
	mini *miniredis.Miniredis // nil: a real one
}

// servers runs a test on miniredis and on a real redis-server.
func servers(t *testing.T, test func(*testing.T, server)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		m := miniredis.RunT(t)
		test(t, server{addr: m.Addr(), mini: m})
	})
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		test(t, server{addr: realRedis(t)})
	})
}

func realRedis(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("left out: redis-server is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	cmd := exec.Command(bin, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	for end := time.Now().Add(soon); rdb.Ping(t.Context()).Err() != nil; {
		if time.Now().After(end) {
			t.Fatal("redis-server does not answer")
		}
	}
	return addr
}

func (s server) queue(t *testing.T, cfg queue.Config) *queue.Queue {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	q, err := queue.New(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// work runs a replica until the test ends, or until stop is called.
func work(t *testing.T, q *queue.Queue, h queue.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := q.Run(ctx, h); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func put(t *testing.T, q *queue.Queue, key, id string) queue.Enqueued {
	t.Helper()
	res, err := q.Enqueue(t.Context(), job(key, id), queue.Enqueue{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func job(key, id string) queue.Job {
	return queue.Job{Key: key, ID: id, User: "u", Group: "g", Payload: []byte("payload of " + id)}
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(soon):
		t.Fatal("it never comes")
		panic("unreachable")
	}
}

func TestQueue(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		t.Run("hands out the jobs of a key in order, one at a time", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "order:", Slots: 8})
			var mu sync.Mutex
			got, at := map[string][]string{}, map[string]int{}
			done := make(chan struct{}, 100)
			work(t, q, func(_ context.Context, c *queue.Claim) queue.Verdict {
				mu.Lock()
				at[c.Job.Key]++
				if at[c.Job.Key] > 1 {
					t.Errorf("two jobs of %s at once", c.Job.Key)
				}
				got[c.Job.Key] = append(got[c.Job.Key], c.Job.ID)
				mu.Unlock()
				defer func() { mu.Lock(); at[c.Job.Key]--; mu.Unlock(); done <- struct{}{} }()
				return queue.Done()
			})
			for i := range 10 {
				for _, key := range []string{"a", "b", "c"} {
					put(t, q, key, fmt.Sprintf("%s%d", key, i))
				}
			}
			for range 30 {
				next(t, done)
			}
			for key, ids := range got {
				for i, id := range ids {
					if want := fmt.Sprintf("%s%d", key, i); id != want {
						t.Errorf("job %d of %s = %s, want %s", i, key, id, want)
					}
				}
			}
		})
		t.Run("knows a job that it has seen", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "dup:"})
			if got := put(t, q, "k", "1"); got.Status != queue.Queued || got.Ahead != 0 {
				t.Errorf("first = %+v, want queued with 0 ahead", got)
			}
			if got := put(t, q, "k", "1"); got.Status != queue.Duplicate {
				t.Errorf("again = %+v, want a duplicate", got)
			}
			if got := put(t, q, "k", "2"); got.Status != queue.Queued || got.Ahead != 1 {
				t.Errorf("second = %+v, want queued with 1 ahead", got)
			}
		})
		t.Run("refuses what is too much", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "full:", Limits: queue.Limits{PerKey: 2}})
			put(t, q, "k", "1")
			put(t, q, "k", "2")
			if got := put(t, q, "k", "3"); got.Status != queue.FullKey {
				t.Errorf("third = %+v, want FullKey", got)
			}
			big := job("k2", "big")
			big.Payload = make([]byte, queue.MaxPayload+1)
			if _, err := q.Enqueue(t.Context(), big, queue.Enqueue{}); !errors.Is(err, queue.ErrTooLarge) {
				t.Errorf("big = %v, want ErrTooLarge", err)
			}
			if got, err := q.Enqueue(t.Context(), job("k", "4"), queue.Enqueue{OnlyIfIdle: true}); err != nil || got.Status != queue.Busy {
				t.Errorf("only if idle = %+v, %v, want Busy", got, err)
			}
		})
		t.Run("tells a running job that it was cancelled, and drops a waiting one", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "cancel:"})
			started, ended := make(chan string, 9), make(chan string, 9)
			work(t, q, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				started <- c.Job.ID
				select {
				case <-c.Cancelled():
				case <-ctx.Done():
				}
				ended <- c.Job.ID
				return queue.Done()
			})
			put(t, q, "k", "1")
			next(t, started)
			put(t, q, "k", "2")
			put(t, q, "k", "3")
			if got, err := q.Cancel(t.Context(), "k", "2"); err != nil || got != queue.CancelledQueued {
				t.Errorf("Cancel(2) = %v, %v, want it gone from the queue", got, err)
			}
			if got, err := q.Cancel(t.Context(), "k", "1"); err != nil || got != queue.CancelledSignalled {
				t.Errorf("Cancel(1) = %v, %v, want it signalled", got, err)
			}
			if got := next(t, ended); got != "1" {
				t.Errorf("ended %s, want 1", got)
			}
			if got := next(t, started); got != "3" {
				t.Errorf("then %s, want 3: 2 was cancelled", got)
			}
			if got, err := q.Cancel(t.Context(), "k", "9"); err != nil || got != queue.CancelledGone {
				t.Errorf("Cancel(9) = %v, %v, want gone", got, err)
			}
		})
		t.Run("changes a waiting job, newer revisions only", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "edit:"})
			put(t, q, "k", "1")
			for _, c := range []struct {
				rev  string
				want queue.Edited
			}{{"100.2", queue.EditedOK}, {"100.1", queue.EditedOld}, {"100.3", queue.EditedOK}} {
				if got, err := q.Edit(t.Context(), "k", "1", c.rev, []byte("at "+c.rev)); err != nil || got != c.want {
					t.Errorf("Edit(%s) = %v, %v, want %v", c.rev, got, err, c.want)
				}
			}
			st, err := q.Inspect(t.Context(), "k")
			if err != nil || len(st.Jobs) != 1 || string(st.Jobs[0].Payload) != "at 100.3" {
				t.Errorf("Inspect = %+v, %v, want the newest payload", st, err)
			}
		})
		t.Run("closes a key: what runs is told, what waits is dropped, the last job comes last", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "close:"})
			order := make(chan string, 9)
			work(t, q, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				order <- c.Job.ID
				if c.Job.ID == "1" {
					select {
					case <-c.Cancelled():
					case <-ctx.Done():
					}
				}
				return queue.Done()
			})
			put(t, q, "k", "1")
			next(t, order)
			put(t, q, "k", "2")
			put(t, q, "k", "3")
			got, err := q.Close(t.Context(), job("k", "end"))
			if err != nil || got.Running != "1" || len(got.Dropped) != 2 || got.Dropped[0].ID != "2" {
				t.Errorf("Close = %+v, %v, want 1 running, 2 and 3 dropped", got, err)
			}
			if id := next(t, order); id != "end" {
				t.Errorf("after the close %s ran, want end", id)
			}
			if got, err := q.Close(t.Context(), job("k", "end")); err != nil || !got.Repeated {
				t.Errorf("Close again = %+v, %v, want it known", got, err)
			}
		})
		t.Run("puts a job off and keeps its place", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "retry:", Lease: 600 * time.Millisecond, Poll: 100 * time.Millisecond})
			order := make(chan string, 9)
			work(t, q, func(_ context.Context, c *queue.Claim) queue.Verdict {
				order <- fmt.Sprint(c.Job.ID, " ", c.Tries, " ", c.Attach)
				if c.Tries == 0 && c.Job.ID == "1" {
					return queue.Retry(10 * time.Millisecond)
				}
				return queue.Done()
			})
			put(t, q, "k", "1")
			put(t, q, "k", "2")
			for _, want := range []string{"1 0 false", "1 1 true", "2 0 false"} {
				if got := next(t, order); got != want {
					t.Errorf("claimed %s, want %s", got, want)
				}
			}
		})
	})
}

func TestTakeover(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		t.Run("a leaving replica hands its job over at once, with stage and notes", func(t *testing.T) {
			first, second := s.queue(t, queue.Config{Prefix: "hand:"}), s.queue(t, queue.Config{Prefix: "hand:"})
			started := make(chan int64, 1)
			stop := work(t, first, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				if err := c.SetStage(ctx, "started", []byte("notes")); err != nil {
					t.Errorf("SetStage = %v", err)
				}
				started <- c.Fence
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), queue.ErrDraining) {
					t.Errorf("cause = %v, want ErrDraining", context.Cause(ctx))
				}
				return queue.Handoff()
			})
			put(t, first, "k", "1")
			fence := next(t, started)
			claims := make(chan *queue.Claim, 1)
			work(t, second, func(_ context.Context, c *queue.Claim) queue.Verdict {
				claims <- c
				return queue.Done()
			})
			stop()
			c := next(t, claims)
			if !c.Attach || c.Stage != "started" || string(c.Att) != "notes" || c.Takes != 1 {
				t.Errorf("claim = %+v, want it attached at started with its notes", c)
			}
			if c.Fence <= fence {
				t.Errorf("fence = %d, want more than %d", c.Fence, fence)
			}
		})
		t.Run("a replica that falls silent loses its claim, and cannot write any more", func(t *testing.T) {
			cfg := queue.Config{Prefix: "silent:", Lease: 600 * time.Millisecond, Poll: 100 * time.Millisecond}
			// The first replica speaks through a proxy that goes away.
			proxy := newProxy(t, s.addr)
			first := server{addr: proxy.addr}.queue(t, cfg)
			lost := make(chan error, 1)
			started := make(chan *queue.Claim, 1)
			work(t, first, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				started <- c
				<-ctx.Done()
				lost <- context.Cause(ctx)
				return queue.Done()
			})
			second := s.queue(t, cfg)
			put(t, second, "k", "1")
			old := next(t, started)
			proxy.cut()
			claims := make(chan *queue.Claim, 1)
			work(t, second, func(_ context.Context, c *queue.Claim) queue.Verdict {
				claims <- c
				return queue.Done()
			})
			c := next(t, claims)
			if !c.Attach || c.Fence <= old.Fence {
				t.Errorf("claim = %+v, want it attached with a higher fence than %d", c, old.Fence)
			}
			if cause := next(t, lost); !errors.Is(cause, queue.ErrLost) {
				t.Errorf("cause = %v, want ErrLost", cause)
			}
			proxy.mend()
			if err := old.SetStage(t.Context(), "result", nil); !errors.Is(err, queue.ErrLost) {
				t.Errorf("SetStage of the old owner = %v, want ErrLost", err)
			}
		})
	})
}

// proxy passes connections on until it is cut.
type proxy struct {
	addr, to string

	mu    sync.Mutex
	whole bool       // guarded by mu
	conns []net.Conn // guarded by mu
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), to: to, whole: true}
	t.Cleanup(func() { _ = l.Close(); p.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.pass(c)
		}
	}()
	return p
}

func (p *proxy) pass(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	up, err := net.Dial("tcp", p.to)
	if !p.whole || err != nil {
		_ = c.Close()
		return
	}
	p.conns = append(p.conns, c, up)
	for _, way := range [][2]net.Conn{{c, up}, {up, c}} {
		go func() {
			defer func() { _, _ = way[0].Close(), way[1].Close() }()
			buf := make([]byte, 4096)
			for {
				n, err := way[0].Read(buf)
				if err != nil {
					return
				}
				if _, err := way[1].Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = false
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = true
}
