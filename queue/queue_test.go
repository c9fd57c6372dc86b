package queue_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"flaudebot/local/port"
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

// freeAddr is [port.Free].
func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func realRedis(t testing.TB) string {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("left out: redis-server is not installed")
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
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
	tamper(t.Fatal, q)
	return q
}

// script runs one script of a queue.
func script(t *testing.T, q *queue.Queue, name string, args ...any) any {
	t.Helper()
	reply, err := q.Script(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// step runs the script of that name, and returns what it has claimed.
func step(t *testing.T, q *queue.Queue, args ...any) []*queue.Claim {
	t.Helper()
	list, _ := script(t, q, "step", args...).([]any)
	return q.Claims(list[1])
}

// waiting waits until so many clients wait at a list. miniredis does not tell.
func (s server) waiting(t *testing.T, n int) {
	t.Helper()
	if s.mini != nil {
		return
	}
	rdb := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	for end := time.Now().Add(soon); !strings.Contains(rdb.Info(t.Context(), "clients").Val(), fmt.Sprintf("blocked_clients:%d\r", n)); {
		if time.Now().After(end) {
			t.Fatalf("there are never %d clients that wait", n)
		}
	}
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
		t.Run("somebody with much waiting does not keep a newcomer waiting", func(t *testing.T) {
			t.Parallel()
			q := s.queue(t, queue.Config{Prefix: "fair:", Slots: 1})
			add := func(user string, n int) {
				id := fmt.Sprint(user, n)
				if _, err := q.Enqueue(t.Context(), queue.Job{Key: id, ID: id, User: user, Group: "g"}, queue.Enqueue{}); err != nil {
					t.Fatal(err)
				}
			}
			for n := range 20 {
				add("busy", n)
			}
			ran, goOn := make(chan string, 40), make(chan struct{})
			work(t, q, func(_ context.Context, c *queue.Claim) queue.Verdict {
				ran <- c.Job.ID
				<-goOn
				return queue.Done()
			})
			next(t, ran)
			for range 8 { // by now the busy one is far on
				goOn <- struct{}{}
				next(t, ran)
			}
			var first []string
			for n := range 3 {
				add("new", n)
			}
			for range 6 {
				goOn <- struct{}{}
				first = append(first, next(t, ran))
			}
			close(goOn)
			if want := []string{"new0", "busy9", "new1", "busy10", "new2", "busy11"}; !alternate(first, want) {
				t.Errorf("the first jobs were %q, want the two in turn, such as %q", first, want)
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
			claimed(t, order, "1 0 false", "1 1 true", "2 0 false")
		})
		t.Run("hands out what has an order in that order, and what has none as it came", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "order:"})
			ahead := func(id, order string, want int64) {
				t.Helper()
				j := job("k", id)
				j.Order = order
				if got, err := q.Enqueue(t.Context(), j, queue.Enqueue{}); err != nil || got.Ahead != want {
					t.Errorf("Enqueue %s = %+v, %v, want %d ahead", id, got, err, want)
				}
			}
			ahead("d", "4", 0)
			ahead("b", "2", 0)
			ahead("c", "3", 1)
			ahead("any", "", 3)
			ahead("f", "6", 4)
			ahead("a", "1", 0)
			order := make(chan string, 9)
			yields := true
			work(t, q, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				order <- fmt.Sprint(c.Job.ID, " ", c.Job.Order, " ", c.Attach)
				if c.Job.ID == "c" && yields {
					yields = false
					if err := c.SetStage(ctx, "far", []byte("notes")); err != nil {
						t.Error(err)
					}
					ahead("late", "25", 1)
					ahead("next", "35", 2)
					return queue.Yield()
				}
				return queue.Done()
			})
			claimed(t, order, "a 1 false", "b 2 false", "c 3 false", "late 25 false", "c 3 false", "next 35 false", "d 4 false", "any  false", "f 6 false")
		})
		t.Run("puts off who yields to nobody", func(t *testing.T) {
			q := s.queue(t, queue.Config{Prefix: "nobody:"})
			order := make(chan string, 9)
			work(t, q, func(_ context.Context, c *queue.Claim) queue.Verdict {
				order <- fmt.Sprint(c.Job.ID, " ", c.Attach)
				if !c.Attach && c.Job.ID == "1" {
					return queue.Yield()
				}
				return queue.Done()
			})
			put(t, q, "k", "1")
			put(t, q, "k", "2")
			claimed(t, order, "1 false", "1 true", "2 false")
		})
	})
}

// claimed fails unless a queue hands out just these next.
func claimed(t *testing.T, order <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(t, order); got != w {
			t.Errorf("claimed %s, want %s", got, w)
		}
	}
}

// alternate compares how many of the newcomer's had their turn: which of two equals comes first is open.
func alternate(got, want []string) bool {
	count := func(ids []string) int {
		return len(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !strings.HasPrefix(id, "new") }))
	}
	for n := 2; n <= len(want); n += 2 {
		if count(got[:n]) != count(want[:n]) {
			return false
		}
	}
	return true
}

// beginner puts a job of a user and group under a key, and has the replica r claim what it may: one of each user, and one of each group.
func beginner(t *testing.T, q *queue.Queue) func(key, user, group string) []*queue.Claim {
	return func(key, user, group string) []*queue.Claim {
		t.Helper()
		if _, err := q.Enqueue(t.Context(), queue.Job{Key: key, ID: key, User: user, Group: group, Order: key}, queue.Enqueue{}); err != nil {
			t.Fatal(err)
		}
		return step(t, q, "r", 15000, 4, 0, 1, 1)
	}
}

// TestHandOn: a key that was given a free slot, and does not use it, hands it on.
func TestHandOn(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		for name, c := range map[string]struct {
			n    int // claimed when the slot of the group is free
			then func(q *queue.Queue) error
		}{
			"because its user has none": {4, func(*queue.Queue) error { return nil }},
			"because its key was closed": {0, func(q *queue.Queue) error {
				_, err := q.Close(t.Context(), queue.Job{Key: "b", ID: "last", User: "u9", Group: "g9"})
				return err
			}},
			"because somebody else's job comes before its own": {0, func(q *queue.Queue) error {
				_, err := q.Enqueue(t.Context(), queue.Job{Key: "b", ID: "earlier", User: "u9", Group: "g9", Order: "a"}, queue.Enqueue{})
				return err
			}},
			"because it was cancelled": {0, func(q *queue.Queue) error {
				_, err := q.Cancel(t.Context(), "b", "b")
				return err
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				q := s.queue(t, queue.Config{Prefix: name + ":", Owner: "r"})
				begin := beginner(t, q)
				a := begin("a", "u2", "g1") // runs
				begin("b", "u1", "g1")      // parked for the group
				begin("c", "u3", "g1")      // so is this
				begin("d", "u1", "g2")      // runs: now its user has no slot for b
				step(t, q, "r", 15000, c.n, 0, 1, 1, "a", "a", a[0].Fence)
				if err := c.then(q); err != nil {
					t.Fatal(err)
				}
				if st, err := q.Inspect(t.Context(), "c"); err != nil || (st.Place != "ready" && st.Place != "lease") {
					t.Errorf("c is in %q, %v; want it ready or claimed: its group has a slot, and b does not take it", st.Place, err)
				}
			})
		}
		t.Run("because its group has none", func(t *testing.T) {
			t.Parallel()
			q := s.queue(t, queue.Config{Prefix: "group:", Owner: "r"})
			begin := beginner(t, q)
			a := begin("a", "u1", "g1") // runs
			begin("b", "u1", "g2")      // parked for the user
			begin("c", "u1", "g3")      // so is this
			begin("d", "u2", "g2")      // runs: now its group has no slot for b
			step(t, q, "r", 15000, 4, 0, 1, 1, "a", "a", a[0].Fence)
			if st, err := q.Inspect(t.Context(), "c"); err != nil || st.Place != "lease" {
				t.Errorf("c is in %q, %v; want it claimed: its user has a slot, and b does not take it", st.Place, err)
			}
		})
		t.Run("a key whose head is somebody else's by now is not parked for who was its head", func(t *testing.T) {
			t.Parallel()
			q := s.queue(t, queue.Config{Prefix: "head:", Owner: "r"})
			begin := beginner(t, q)
			a := begin("a", "u1", "g1") // runs
			begin("c", "u1", "g3")      // parked for the user
			begin("b", "u1", "g2")      // so is this, behind it
			if _, err := q.Enqueue(t.Context(), queue.Job{Key: "b", ID: "earlier", User: "u9", Group: "g9", Order: "a"}, queue.Enqueue{}); err != nil {
				t.Fatal(err)
			}
			if got := step(t, q, "r", 15000, 4, 0, 1, 1); len(got) != 1 || got[0].Job.ID != "earlier" {
				t.Fatalf("claimed %v, want the earlier one", got)
			}
			c := step(t, q, "r", 15000, 4, 0, 1, 1, "a", "a", a[0].Fence)
			if len(c) != 1 || c[0].Job.ID != "c" {
				t.Fatalf("claimed %v, want c", c)
			}
			step(t, q, "r", 15000, 4, 0, 1, 1, "c", "c", c[0].Fence)
			if st, err := q.Inspect(t.Context(), "b"); err != nil || st.Place != "lease" {
				t.Errorf("b is in %q, %v; want it at work still", st.Place, err)
			}
		})
		t.Run("because its job yields to somebody else's", func(t *testing.T) {
			t.Parallel()
			q := s.queue(t, queue.Config{Prefix: "yields:", Owner: "r"})
			put := func(j queue.Job) {
				t.Helper()
				if _, err := q.Enqueue(t.Context(), j, queue.Enqueue{}); err != nil {
					t.Fatal(err)
				}
			}
			claim := func() []*queue.Claim { t.Helper(); return step(t, q, "r", 15000, 4, 0, 1, 1) }
			put(queue.Job{Key: "a", ID: "later", User: "u1", Group: "g1", Order: "2"})
			a := claim()
			put(queue.Job{Key: "b", ID: "b", User: "u1", Group: "g2"}) // parked for the user
			claim()
			put(queue.Job{Key: "a", ID: "earlier", User: "u2", Group: "g3", Order: "1"})
			script(t, q, "release", "a", "later", a[0].Fence, "yield", 0)
			if st, err := q.Inspect(t.Context(), "b"); err != nil || st.Place != "ready" {
				t.Errorf("b is in %q, %v; want it ready: its user has a slot", st.Place, err)
			}
			if got := claim(); len(got) != 2 {
				t.Errorf("%d are claimed, want a's and b's", len(got))
			}
		})
	})
}

// TestDoorbell: a step that leaves work which somebody else could take rings, and no other does: else replicas would wake each other for
// nothing, for ever.
func TestDoorbell(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		for name, c := range map[string]struct {
			orphans, ready int // before the step, which claims one
			running        int // limit of running jobs
			rings          bool
		}{
			"nothing is left":               {ready: 1},
			"nothing was there":             {},
			"a key without an owner":        {orphans: 2, rings: true},
			"a key that is ready":           {ready: 2, rings: true},
			"one that nobody may claim yet": {ready: 2, running: 1},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				prefix := "doorbell " + name + ":"
				q := s.queue(t, queue.Config{Prefix: prefix, Owner: "r"})
				rdb := redis.NewClient(&redis.Options{Addr: s.addr})
				t.Cleanup(func() { _ = rdb.Close() })
				for i := range c.orphans + c.ready {
					key := fmt.Sprint(i)
					if _, err := q.Enqueue(t.Context(), queue.Job{Key: key, ID: key, User: key, Group: key}, queue.Enqueue{}); err != nil {
						t.Fatal(err)
					}
				}
				for _, claim := range step(t, q, "leaves", 15000, c.orphans, 0, 0, 0) {
					script(t, q, "release", claim.Job.Key, claim.Job.ID, claim.Fence, "handoff", 0)
				}
				if err := rdb.Del(t.Context(), prefix+"{queue}:wake").Err(); err != nil { // whoever heard it is this step's replica
					t.Fatal(err)
				}
				step(t, q, "r", 15000, 1, c.running, 0, 0)
				if n, err := rdb.LLen(t.Context(), prefix+"{queue}:wake").Result(); err != nil || (n > 0) != c.rings {
					t.Errorf("%d tokens at the doorbell, %v; want it rung: %t", n, err, c.rings)
				}
			})
		}
	})
}

// TestJanitor: a slot that nobody was handed, as when a limit was raised, is handed on by the next tick, and no other.
func TestJanitor(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		q := s.queue(t, queue.Config{Prefix: "janitor:", Owner: "r"})
		for _, key := range []string{"runs", "waits"} {
			if _, err := q.Enqueue(t.Context(), queue.Job{Key: key, ID: key, User: "u", Group: key}, queue.Enqueue{}); err != nil {
				t.Fatal(err)
			}
		}
		script(t, q, "step", "r", 15000, 4, 0, 1, 0) // one a user
		for _, c := range []struct {
			name        string
			most        int // keys to look at
			user, group int // limits
			want        string
		}{
			{"the limit is as it was", 500, 1, 0, "park:u:u"},
			{"the limit was raised, and there is no time to look", 0, 2, 0, "park:u:u"},
			{"the limit was raised", 500, 2, 1, "ready"},
		} {
			script(t, q, "tick", c.most, c.user, c.group)
			if st, err := q.Inspect(t.Context(), "waits"); err != nil || st.Place != c.want {
				t.Errorf("%s: the key is in %q, %v; want %q", c.name, st.Place, err, c.want)
			}
		}
		script(t, q, "step", "r", 15000, 4, 0, 1, 0) // parked again
		script(t, q, "tick", 500, 0, 1)
		if st, err := q.Inspect(t.Context(), "waits"); err != nil || st.Place != "ready" {
			t.Errorf("the limit was taken away: the key is in %q, %v; want it ready", st.Place, err)
		}
	})
}

// TestFullMemory: when Redis is full, what runs goes on and ends, and what is new is refused without a trace.
func TestFullMemory(t *testing.T) {
	t.Parallel()
	s := server{addr: realRedis(t)}
	q := s.queue(t, queue.Config{Prefix: "full:", Lease: 3 * time.Second})
	put(t, q, "k", "runs")
	rdb := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	claimed, full, beaten := make(chan int64), make(chan struct{}), make(chan error, 1)
	work(t, q, func(ctx context.Context, c *queue.Claim) queue.Verdict {
		claimed <- c.Fence
		<-full
		beaten <- c.SetStage(ctx, "posting", []byte("notes"))
		return queue.Done()
	})
	next(t, claimed)
	for name, value := range map[string]string{"maxmemory": "1000", "maxmemory-policy": "noeviction"} {
		if err := rdb.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Enqueue(t.Context(), job("k", "new"), queue.Enqueue{}); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Enqueue = %v, want it refused for want of memory", err)
	}
	if st, err := q.Inspect(t.Context(), "k"); err != nil || len(st.Jobs) != 1 {
		t.Errorf("the key holds %d jobs, %v; want the one that runs", len(st.Jobs), err)
	}
	expiry := func() float64 { return rdb.ZScore(t.Context(), "full:{queue}:lease", "k").Val() }
	before := expiry()
	for end := time.Now().Add(soon); expiry() <= before; {
		if time.Now().After(end) {
			t.Fatal("no beat gets through")
		}
	}
	close(full)
	if err := next(t, beaten); err != nil {
		t.Errorf("SetStage = %v, want it to go through", err)
	}
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
			if !c.Attach || c.Stage != "started" || string(c.Att) != "notes" || c.Takes != 0 {
				t.Errorf("claim = %+v, want it attached at started with its notes, and nothing held against it", c)
			}
			if c.Fence <= fence {
				t.Errorf("fence = %d, want more than %d", c.Fence, fence)
			}
		})
		t.Run("a replica that leaves keeps no token to itself", func(t *testing.T) {
			cfg := queue.Config{Prefix: "token:", Poll: time.Minute} // nobody looks without a token
			first, second := s.queue(t, cfg), s.queue(t, cfg)
			started, claims := make(chan struct{}, 1), make(chan *queue.Claim, 1)
			stop := work(t, first, func(ctx context.Context, _ *queue.Claim) queue.Verdict {
				started <- struct{}{}
				<-ctx.Done()
				return queue.Handoff()
			})
			put(t, first, "k", "1")
			next(t, started) // while its listener is at the doorbell, and has been there for longer than the other's
			work(t, second, func(_ context.Context, c *queue.Claim) queue.Verdict {
				claims <- c
				return queue.Done()
			})
			s.waiting(t, 2)
			stop()
			if c := next(t, claims); !c.Attach {
				t.Errorf("claim = %+v, want it attached to", c)
			}
		})
		t.Run("who overslept a lease knows it before anybody says so, and afterwards; what is left of a turn that was its own may be said", func(t *testing.T) {
			for overslept, want := range map[bool]error{false: nil, true: queue.ErrLost} {
				q := s.queue(t, queue.Config{Prefix: fmt.Sprint("oversleep-", overslept, ":")})
				held := make(chan context.Context, 1)
				stop := work(t, q, func(ctx context.Context, c *queue.Claim) queue.Verdict {
					inner := context.WithoutCancel(ctx)
					if err := queue.Held(inner); err != nil {
						t.Errorf("Held = %v, want it held", err)
					}
					if overslept {
						c.Oversleep()
					}
					if err := queue.Held(inner); !errors.Is(err, want) {
						t.Errorf("Held = %v, want %v", err, want)
					}
					held <- inner
					return queue.Done()
				})
				put(t, q, "k", "1")
				ctx := next(t, held)
				stop()
				if err := queue.Held(ctx); !errors.Is(err, want) {
					t.Errorf("Held after the turn = %v, want %v", err, want)
				}
			}
			if err := queue.Held(t.Context()); err != nil {
				t.Errorf("Held without a claim = %v", err)
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
			if !c.Attach || c.Fence <= old.Fence || c.Takes != 1 {
				t.Errorf("claim = %+v, want it attached with a higher fence than %d, and once held against it", c, old.Fence)
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
	addr string

	mu    sync.Mutex
	to    string     // guarded by mu
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

// lead has new connections go elsewhere.
func (p *proxy) lead(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = true
}
