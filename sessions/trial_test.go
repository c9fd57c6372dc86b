package sessions

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
)

// TestTrial: a machine is taken through its life, each step is measured, and nothing is left, whatever happens.
func TestTrial(t *testing.T) {
	t.Parallel()
	all := []string{TrialCreate, TrialExec, TrialStop, TrialWake, TrialTurn}
	type trial struct {
		*script
		told []string
		ctx  context.Context //nolint:containedctx // of a test
	}
	run := func(tr *trial, at string, then func()) (RunResult, error) {
		return tr.m.Trial(tr.ctx, tr.script.run("hello"), func(what string, took time.Duration) {
			if tr.told = append(tr.told, what); took <= 0 {
				tr.t.Errorf("%s took %s", what, took)
			}
			if what == at {
				then()
			}
		})
	}
	begin := func(t *testing.T, change func(*MachinesConfig)) *trial {
		return &trial{script: newWorld(t).script(change), ctx: t.Context()}
	}
	t.Run("each step is told as it is done, on one machine", func(t *testing.T) {
		t.Parallel()
		tr := begin(t, nil)
		res, err := run(tr, "", nil)
		if err != nil || !res.Destroyed || res.ExitCode != 0 || res.Outcome.Answer != "answer to hello" || !slices.Equal(tr.told, all) {
			t.Errorf("Trial = %+v, %v, told %v", res, err, tr.told)
		}
		if n := tr.asked("POST /v1/apps/" + testApp + "/machines 200"); n != 1 {
			t.Errorf("%d machines were made, want one", n)
		}
		tr.have(0, 0)
	})
	for _, at := range all[:4] {
		t.Run("it is given up after "+at, func(t *testing.T) {
			t.Parallel()
			tr := begin(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			tr.ctx = ctx
			res, err := run(tr, at, cancel)
			if !errors.Is(err, context.Canceled) || !res.Destroyed || slices.Contains(tr.told, TrialTurn) {
				t.Errorf("Trial = %+v, %v, told %v", res, err, tr.told)
			}
			tr.have(0, 0)
		})
	}
	t.Run("a machine that cannot be made, and one whose creation had no answer, leave nothing", func(t *testing.T) {
		t.Parallel()
		tr := begin(t, nil)
		tr.faults(map[string]any{"method": "machine.create", "status": 422})
		if res, err := run(tr, "", nil); !errors.Is(err, fly.ErrCapacity) || len(tr.told) > 0 {
			t.Errorf("Trial = %+v, %v", res, err)
		}
		tr.faults(map[string]any{})
		tr.faults(map[string]any{"method": "machine.create", "drop": true, "after_effect": true})
		tr.faults(map[string]any{"method": "machine.list", "nth": 1, "status": 400})
		if res, err := run(tr, "", nil); err == nil || !res.Destroyed {
			t.Errorf("Trial = %+v, %v", res, err)
		}
		tr.have(0, 0)
	})
	t.Run("an image whose program ends at once is found out", func(t *testing.T) {
		t.Parallel()
		w := newWorldOn(t, localfly.Config{Runner: []string{"/bin/sh", "-c", "exit 3"}})
		tr := &trial{script: w.script(nil), ctx: t.Context()}
		if res, err := run(tr, "", nil); !errors.Is(err, errNotUp) || !res.Destroyed {
			t.Errorf("Trial = %+v, %v, want that it is not up", res, err)
		}
		tr.have(0, 0)
	})
	t.Run("a machine that cannot be destroyed is said", func(t *testing.T) {
		t.Parallel()
		tr := begin(t, nil)
		tr.faults(map[string]any{"method": "machine.delete", "status": 403})
		tr.faults(map[string]any{"method": "machine.stop", "status": 403})
		if res, err := run(tr, "", nil); !errors.Is(err, fly.ErrForbidden) || res.Destroyed || res.MachineID == "" {
			t.Errorf("Trial = %+v, %v, want that it is not destroyed", res, err)
		}
	})
}
