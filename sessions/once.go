package sessions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"flaudebot/runner"
)

// RunResult is how a prompt on an ephemeral machine ended.
type RunResult struct {
	MachineID      string
	ExitCode       int
	State          string // of the machine when it was left: "destroyed", or "unknown" if that could not be seen
	Destroyed      bool
	WorkspaceFiles []string // at most 200
	Outcome        Outcome
}

// ephemeral names the one-turn session of a turn, the same one every time: whoever takes the turn over
// finds its machine by that name.
func (m *Machines) ephemeral(t TurnID, spec Spec, now time.Time) Session {
	s := m.Begin(spec, now)
	s.SessionID = uuid.NewSHA1(uuid.NameSpaceURL, []byte("flaudebot:once:"+t)).String()
	s.Ephemeral = true
	return s
}

// onceCleanup bounds how long RunOnce tries to destroy its machine. It is longer than any lease on the machine
// whose nonce was lost.
const onceCleanup = 90 * time.Second

// recordTime bounds how long it takes to put on record what a run came to.
const recordTime = 10 * time.Second

// RunOnce runs one prompt on a machine without a volume, which is destroyed whatever happens, also when ctx
// ends. The error says that the machine could not be destroyed, or that ctx ended before the outcome: then
// the exit code is 130.
func (m *Machines) RunOnce(ctx context.Context, spec Spec, r Run) (RunResult, error) {
	if r.Record != nil {
		if err := r.Record(ctx, nil); err != nil {
			return RunResult{ExitCode: 1}, fmt.Errorf("nothing was run, since it could not be put on record: %w", err)
		}
	}
	s := m.ephemeral(r.Turn, spec, time.Now())
	if found, err := m.find(ctx, s); err == nil && found != "" {
		s.MachineID = found
	}
	nonce := ""
	r.NoWait, r.Budget = true, cmp.Or(r.Budget, m.cfg.OnceBudget)
	r.KeepNonce = func(_ context.Context, n string) error { nonce = n; return nil }
	out, runErr := m.RunTurn(ctx, &s, r)
	if runErr != nil {
		out = newAttempt(m, &s, r).failed(runner.FailInterrupted, runErr)
		out.ExitCode = 130
	}
	out.CostUSD = max(out.CostUSD, out.SpentUSD)
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), onceCleanup)
	defer cancel()
	err := m.discard(clean, s, nonce, onceCleanup)
	res := RunResult{MachineID: s.MachineID, ExitCode: out.ExitCode, State: "destroyed", Destroyed: err == nil, WorkspaceFiles: out.Files, Outcome: *out}
	res.Outcome.Destroyed = res.Destroyed
	if err != nil {
		res.State = "unknown"
	}
	if r.Record != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
		defer cancel()
		if err := r.Record(last, &res); err != nil { // there is an outcome all the same
			m.log.WarnContext(last, "what a run came to is not on record", "turn", r.Turn, "err", err)
		}
	}
	return res, errors.Join(runErr, err)
}

// RunEach runs prompts as [Machines.RunOnce] does, at most so many at once, and tells each result as it comes, one after the other: the index of
// its run, and what RunOnce returned. When ctx ends no further one begins, and those that never did are told with its cause. It returns when all
// are told, and so when no machine of theirs is left that could be destroyed.
func (m *Machines) RunEach(ctx context.Context, spec Spec, runs []Run, most int, tell func(i int, res RunResult, err error)) {
	var telling sync.Mutex
	var g errgroup.Group
	g.SetLimit(max(most, 1))
	for i, r := range runs {
		g.Go(func() error {
			res, err := RunResult{ExitCode: 130}, context.Cause(ctx)
			if err == nil {
				res, err = m.RunOnce(ctx, spec, r)
			}
			telling.Lock()
			defer telling.Unlock()
			tell(i, res, err)
			return nil
		})
	}
	_ = g.Wait() // none returns an error
}

// discard destroys a machine whose lease we hold.
func (m *Machines) discard(ctx context.Context, s Session, nonce string, patience time.Duration) error {
	if nonce != "" && s.MachineID != "" {
		if err := m.cfg.Fly.ReleaseLease(ctx, s.AppName, s.MachineID, nonce); err != nil {
			m.log.DebugContext(ctx, "lease not released", "machine", s.MachineID, "err", err)
		}
	}
	return m.remove(ctx, s, patience)
}

// find returns the id of the session's machine if there is one.
func (m *Machines) find(ctx context.Context, s Session) (string, error) {
	found, err := m.machinesOf(ctx, s)
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0].ID, nil
}
