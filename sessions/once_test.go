package sessions

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"flaudebot/queue"
)

// TestRunEach: several prompts on machines of their own, at most so many at once, and each result as it comes.
func TestRunEach(t *testing.T) {
	t.Parallel()
	runs := func(sc *script, prompts ...string) (out []Run) {
		for _, p := range prompts {
			r := sc.run(p)
			r.Save = nil // several run at once, and of none anything is kept
			out = append(out, r)
		}
		return out
	}
	t.Run("results come as they are there, not one is lost, and one that fails harms no other", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		var order []int
		codes := map[int]int{}
		sc.m.RunEach(t.Context(), Spec{}, runs(sc, "hold until the last", "one", "cannot clone", "three"), 2, func(i int, res RunResult, err error) {
			if err != nil || !res.Destroyed || res.State != "destroyed" {
				t.Errorf("run %d = %+v, %v", i, res, err)
			}
			if n := len(sc.machinesIn(testApp)); n > 2 {
				t.Errorf("there are %d machines, want 2 at most", n)
			}
			order, codes[i] = append(order, i), res.ExitCode
			if len(order) == 3 {
				sc.runner.release()
			}
		})
		if !slices.Equal(order, []int{1, 2, 3, 0}) || codes[0] != 0 || codes[1] != 0 || codes[2] != 1 || codes[3] != 0 {
			t.Errorf("they came as %v with %v", order, codes)
		}
		sc.have(0, 0)
	})
	t.Run("when it is interrupted every machine goes, and what never began is told", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("somebody pressed Ctrl-C")
		all := runs(sc, "hold 1", "hold 2", "three", "four")
		go func() {
			sc.until("two at work", func() bool { return sc.runner.ran(all[0].Turn) == 1 && sc.runner.ran(all[1].Turn) == 1 })
			cancel(stopped)
		}()
		var mu sync.Mutex
		told := map[int]error{}
		sc.m.RunEach(ctx, Spec{}, all, 2, func(i int, res RunResult, err error) {
			mu.Lock()
			defer mu.Unlock()
			if told[i] = err; res.ExitCode != 130 || res.MachineID != "" && !res.Destroyed {
				t.Errorf("run %d = %+v, %v", i, res, err)
			}
		})
		if len(told) != 4 || !errors.Is(told[2], stopped) || !errors.Is(told[3], stopped) || sc.runner.ran(all[2].Turn) != 0 {
			t.Errorf("told %v", told)
		}
		sc.have(0, 0)
	})
}

// TestOnceGivenUp: a single run of a thread that is given up leaves no machine.
func TestOnceGivenUp(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	r := b.replica(nil)
	one := turn("101", "hello", true)
	one.Kind = KindOnce
	s := r.cfg.Machines.ephemeral(one.ID, Spec{Thread: one.Thread, Owner: one.User}, one.At)
	if err := r.cfg.Machines.Create(t.Context(), &s, keepNothing); err != nil {
		t.Fatal(err)
	}
	b.have(1, 0)
	r.accept(one)
	b.faults(map[string]any{"method": "machine.list", "nth": 1, "status": 500}) // the last thing that it was put off for
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- r.cfg.Queue.Run(ctx, func(ctx context.Context, c *queue.Claim) queue.Verdict {
			c.Tries, c.Attach = maxTries, true
			return r.handle(ctx, c)
		})
	}()
	if out := b.answered(r, one); out.Failure != FailStuck || b.runner.ran(one.ID) != 0 {
		t.Errorf("it ended with %+v", out)
	}
	b.have(0, 0)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
}
