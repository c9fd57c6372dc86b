package sessions

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// TestManySessionsAtOnce: more sessions begin at once than Fly lets begin in the time that one may take to boot.
func TestManySessionsAtOnce(t *testing.T) {
	t.Parallel()
	const boot, many = 4 * time.Second, 12 // three go at once, and then one a second
	limited := func(w *world) func(*MachinesConfig) {
		c, err := fly.New(fly.Config{BaseURL: w.url, LogsBaseURL: w.url, Token: "fly-local"})
		if err != nil {
			t.Fatal(err)
		}
		return func(cfg *MachinesConfig) {
			cfg.Fly, cfg.Handover, cfg.BootTimeout, cfg.Patience = c, w.runner, boot, time.Second
		}
	}
	t.Run("each gets its turn, and those who wait for long are told", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		m := w.machines(limited(w))
		scripts := make([]*script, many)
		var all sync.WaitGroup
		for i := range many {
			sc := &script{world: w, m: m}
			sc.s = m.Begin(Spec{Thread: Thread{"T1", "C1", fmt.Sprint(i)}, Owner: "U1"}, time.Now())
			scripts[i] = sc
			all.Go(func() {
				r := sc.run("say: hello")
				r.Turn = TurnID(fmt.Sprintf("turn-%d", i))
				if out, err := m.RunTurn(t.Context(), &sc.s, r); err != nil || out.Failure != "" {
					t.Errorf("session %d: %+v, %v", i, out, err)
				}
				sc.quiet()
			})
		}
		all.Wait()
		if told := slices.ContainsFunc(scripts, func(sc *script) bool { return slices.Contains(sc.notes, sayInLine) }); !told {
			t.Errorf("nobody was told %q", sayInLine)
		}
		w.have(many, many)
	})
	t.Run("who stops waiting is out at once, and nothing was made", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		sc := w.script(limited(w))
		for range 3 { // of others: the next one has to wait
			if err := sc.m.cfg.Fly.AwaitCreation(t.Context(), testApp); err != nil {
				t.Fatal(err)
			}
		}
		r, stop := sc.run("one"), make(chan struct{})
		r.Stop = stop
		r.Stage = func(context.Context, Stage) error { close(stop); return nil }
		if out, err := sc.m.RunTurn(t.Context(), &sc.s, r); err != nil || out.Failure != runner.FailStopped {
			t.Errorf("RunTurn = %+v, %v, want that it was stopped", out, err)
		}
		w.have(0, 0)
	})
}
