package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// What a [Machines.Trial] measures.
const (
	TrialCreate = "create" // from the request until the runner in the new machine answers
	TrialExec   = "exec"   // of one question to the runner
	TrialStop   = "stop"   // from the request until Fly says that it is stopped
	TrialWake   = "wake"   // of a stopped machine, until its runner answers
	TrialTurn   = "turn"   // on a machine that is up; or all of it, where the handover starts the machine
)

// Trial runs one prompt as [Machines.RunOnce] does, and tells on the way how long Fly takes for what a session needs. The machine is destroyed
// whatever happens, also when ctx ends.
func (m *Machines) Trial(ctx context.Context, r Run, tell func(what string, took time.Duration)) (RunResult, error) {
	if !m.starts() {
		s := m.ephemeral(r.Turn, Spec{}, time.Now())
		if err := m.try(ctx, &s, tell); err != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), onceCleanup)
			defer cancel()
			gone := m.discard(clean, s, "", onceCleanup)
			return RunResult{MachineID: s.MachineID, ExitCode: 1, Destroyed: gone == nil}, errors.Join(err, gone)
		}
	}
	began := time.Now()
	res, err := m.RunOnce(ctx, Spec{}, r)
	if err == nil && res.Outcome.Failure == "" {
		tell(TrialTurn, time.Since(began))
	}
	return res, err
}

// try takes a machine through its life, up to the moment before its turn.
func (m *Machines) try(ctx context.Context, s *Session, tell func(string, time.Duration)) error {
	began := time.Now()
	step := func(what string) {
		tell(what, time.Since(began))
		began = time.Now()
	}
	if err := m.EnsureApp(ctx); err != nil {
		return err
	}
	mach, err := m.createMachine(ctx, *s)
	if err != nil {
		return err
	}
	s.MachineID = mach.ID
	if err := m.answers(ctx, *s); err != nil {
		return err
	}
	step(TrialCreate)
	if err := m.ask(ctx, *s); err != nil {
		return err
	}
	step(TrialExec)
	if err := m.cfg.Fly.StopMachine(ctx, s.AppName, s.MachineID, fly.StopMachine{Signal: "SIGTERM", Timeout: 30 * time.Second}, ""); err != nil {
		return err
	}
	if err := m.comesTo(ctx, *s, "stopped"); err != nil {
		return err
	}
	step(TrialStop)
	if err := m.cfg.Fly.StartMachine(ctx, s.AppName, s.MachineID, ""); err != nil {
		return err
	}
	if err := m.answers(ctx, *s); err != nil {
		return err
	}
	step(TrialWake)
	return nil
}

// answers waits until the machine is up and its runner answers. One that ends by itself is given up.
func (m *Machines) answers(ctx context.Context, s Session) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.BootTimeout)
	defer cancel()
	for {
		if err := m.comesTo(ctx, s, "started"); err != nil {
			return err
		}
		err := m.ask(ctx, s)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errRunner) && !isPassing(err) && !errors.Is(err, fly.ErrPrecondition) || ctx.Err() != nil {
			return err
		}
		if pauseFor(ctx, 500*time.Millisecond, nil, true) != nil {
			return err
		}
	}
}

// ask asks the runner who it is.
func (m *Machines) ask(ctx context.Context, s Session) error {
	var reply runner.HelloReply
	return m.cfg.Handover.Call(ctx, Target{App: s.AppName, Machine: s.MachineID}, "hello", runner.HelloRequest{}, &reply)
}

// comesTo waits until the machine is in a state; one that it cannot come to by itself from where it is is an error.
func (m *Machines) comesTo(ctx context.Context, s Session, state string) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.BootTimeout)
	defer cancel()
	for try := 1; ; try++ {
		mach, err := m.cfg.Fly.WaitMachine(ctx, s.AppName, s.MachineID, fly.WaitMachine{States: []string{state, "stopped", "failed", "destroyed"}})
		switch {
		case err != nil:
			return fmt.Errorf("wait for machine %s to be %s: %w", s.MachineID, state, err)
		case mach.State == state:
			return nil
		case try == 3: // just after a start Fly may still show what was before it
			return fmt.Errorf("machine %s is %s by itself, and was to be %s: %w", s.MachineID, mach.State, state, errNotUp)
		}
		if err := pauseFor(ctx, time.Second, nil, true); err != nil {
			return err
		}
	}
}
