package queue_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// TestLeaving: what a leaving replica has is the others' at once. Nothing here may wait for a lease to run out, or for another look at the
// queue: both would come too late.
func TestLeaving(t *testing.T) {
	t.Parallel()
	cfg := func(prefix string) queue.Config {
		return queue.Config{Prefix: prefix, Lease: time.Minute, Poll: time.Minute, Slots: 4}
	}
	servers(t, func(t *testing.T, s server) {
		t.Run("it does not take the ring for what it hands over, however long another of its jobs takes to end", func(t *testing.T) {
			first, second := s.queue(t, cfg("ring:")), s.queue(t, cfg("ring:"))
			started, seen := make(chan string, 2), make(chan string, 2)
			stop := work(t, first, func(ctx context.Context, c *queue.Claim) queue.Verdict {
				if c.Job.Key == "probe" {
					return queue.Done()
				}
				started <- c.Job.Key
				<-ctx.Done()
				if c.Job.Key == "slow" {
					next(t, seen) // until the other one was taken over
				}
				return queue.Handoff()
			})
			put(t, first, "slow", "1")
			put(t, first, "quick", "2")
			next(t, started)
			next(t, started)
			taken := make(chan string, 100)
			work(t, second, func(_ context.Context, c *queue.Claim) queue.Verdict {
				taken <- c.Job.Key
				return queue.Done()
			})
			// Who heard the last ring is served last at the doorbell: the next one would be the first replica's.
			for n, heard := 0, false; !heard; n++ {
				put(t, first, "probe", strconv.Itoa(n))
				for idle := false; !idle; {
					st, err := first.Inspect(t.Context(), "probe")
					if err != nil {
						t.Fatal(err)
					}
					idle = st.Place == ""
				}
				heard = len(taken) > 0
			}
			for len(taken) > 0 {
				<-taken
			}
			go stop()
			if key := next(t, taken); key != "quick" {
				t.Errorf("%s was taken over first, want quick", key)
			}
			seen <- ""
			next(t, taken)
		})
		t.Run("a claim whose reply was lost as it left is handed over too", func(t *testing.T) {
			rdb := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
			t.Cleanup(func() { _ = rdb.Close() })
			lose := &loseClaim{}
			rdb.AddHook(lose)
			first, err := queue.New(rdb, cfg("lost:"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, leave := context.WithCancel(context.WithoutCancel(t.Context()))
			lose.leave = leave
			put(t, first, "k", "1")
			lose.armed.Store(true)
			if err := first.Run(ctx, func(context.Context, *queue.Claim) queue.Verdict { return queue.Handoff() }); err != nil {
				t.Fatal(err)
			}
			if lose.armed.Load() {
				t.Fatal("no claim's reply was lost")
			}
			taken := make(chan *queue.Claim, 1)
			work(t, s.queue(t, cfg("lost:")), func(_ context.Context, c *queue.Claim) queue.Verdict {
				taken <- c
				return queue.Done()
			})
			if c := next(t, taken); !c.Attach {
				t.Errorf("claim = %+v, want it attached", c)
			}
		})
	})
}

// loseClaim loses the reply of the next claim, as its replica is told to leave.
type loseClaim struct {
	armed atomic.Bool
	leave func()
}

func (l *loseClaim) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *loseClaim) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *loseClaim) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		script, ok := cmd.(*redis.Cmd)
		if err != nil || !ok {
			return err
		}
		reply, _ := script.Val().([]any)
		if len(reply) != 2 {
			return nil
		}
		if claims, _ := reply[1].([]any); len(claims) == 1 && l.armed.CompareAndSwap(true, false) {
			l.leave()
			lost := errors.New("the reply was lost")
			cmd.SetErr(lost)
			return lost
		}
		return nil
	}
}
