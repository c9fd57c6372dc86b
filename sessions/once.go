package sessions

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

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

// RunOnce runs one prompt on a machine without a volume, which is destroyed whatever happens, also when ctx
// ends. The error says that the machine could not be destroyed, or that ctx ended before the outcome: then
// the exit code is 130.
func (m *Machines) RunOnce(ctx context.Context, spec Spec, r Run) (RunResult, error) {
	s := m.ephemeral(r.Turn, spec, time.Now())
	if found, err := m.find(ctx, s); err == nil && found != "" {
		s.MachineID = found
	}
	nonce := ""
	r.KeepNonce = func(_ context.Context, n string) error { nonce = n; return nil }
	out, runErr := m.RunTurn(ctx, &s, r)
	if runErr != nil {
		out = newAttempt(m, &s, r).failed(runner.FailInterrupted, runErr)
		out.ExitCode = 130
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), onceCleanup)
	defer cancel()
	err := m.discard(clean, s, nonce, onceCleanup)
	res := RunResult{MachineID: s.MachineID, ExitCode: out.ExitCode, State: "destroyed", Destroyed: err == nil, WorkspaceFiles: out.Files, Outcome: out}
	res.Outcome.Destroyed = res.Destroyed
	if err != nil {
		res.State = "unknown"
	}
	return res, errors.Join(runErr, err)
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
