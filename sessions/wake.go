package sessions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// errSessionLost says that the session's machine and volume are gone: the conversation cannot go on.
var errSessionLost = errors.New("the machine and its volume are gone")

// wake sees to it that the session has a machine, that it is started, and that its lease is ours.
func (a *attempt) wake(ctx context.Context) error {
	limit := a.m.cfg.BootTimeout
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := a.boot(inner)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w within %s: %w", errNotUp, limit, err)
	}
	return err
}

func (a *attempt) boot(ctx context.Context) error {
	for !a.stopped() || a.mayRun() {
		if a.accepted && !a.s.onFly() && !a.s.Ephemeral { // an earlier owner of the turn lost it
			return errSessionLost
		}
		if a.s.MachineID == "" {
			if err := a.create(ctx); err != nil {
				return err
			}
		}
		mach, err := a.m.cfg.Fly.Machine(ctx, a.s.AppName, a.s.MachineID)
		switch {
		case errors.Is(err, fly.ErrNotFound):
			err = a.replace(ctx, "destroyed")
		case err != nil:
			return fmt.Errorf("look at machine %s: %w", a.s.MachineID, err)
		case mach.State == "started":
			return a.hold(ctx)
		default:
			err = a.advance(ctx, mach)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *attempt) create(ctx context.Context) error {
	a.step(StepCreating)
	if a.s.VolumeID == "" {
		if err := a.m.EnsureApp(ctx); err != nil {
			return err
		}
	}
	err := a.m.Create(ctx, a.s, a.save)
	if !errors.Is(err, fly.ErrNotFound) {
		return err
	}
	if a.s.VolumeID == "" { // the volume of its record was gone, and nothing was on it
		return a.m.Create(ctx, a.s, a.save)
	}
	if gone, volErr := a.volumeGone(ctx); volErr == nil && gone {
		return a.loseSession(ctx)
	}
	return err
}

// volumeGone reports whether nothing can be mounted from the session's volume any more.
func (a *attempt) volumeGone(ctx context.Context) (bool, error) {
	vol, err := a.m.cfg.Fly.Volume(ctx, a.s.AppName, a.s.VolumeID)
	switch {
	case errors.Is(err, fly.ErrNotFound):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("look at volume %s: %w", a.s.VolumeID, err)
	}
	return vol.Dying(), nil
}

// advance moves the machine one step towards started.
func (a *attempt) advance(ctx context.Context, mach *fly.Machine) error {
	switch mach.State {
	case "stopped", "suspended":
		if a.accepted {
			a.noteExit(mach)
		}
		if err := a.hold(ctx); err != nil {
			return err
		}
		a.step(StepWaking)
		if err := a.m.cfg.Fly.StartMachine(ctx, a.s.AppName, mach.ID, a.nonce); err != nil {
			return fmt.Errorf("start machine %s: %w", mach.ID, err)
		}
		return a.await(ctx, "started", "stopped")
	case "stopping", "suspending":
		return a.await(ctx, "stopped", "suspended")
	case "destroyed", "destroying", "failed", "launch_failed":
		return a.replace(ctx, mach.State)
	default: // created, starting, restarting, updating, replacing
		a.step(StepWaking)
		return a.await(ctx, "started", "stopped")
	}
}

// await waits for one of the states, or for a stop of the turn if it does not run yet.
func (a *attempt) await(ctx context.Context, states ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !a.mayRun() {
		go func() {
			select {
			case <-a.r.Stop:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	_, err := a.m.cfg.Fly.WaitMachine(ctx, a.s.AppName, a.s.MachineID, fly.WaitMachine{States: states})
	if err != nil && !errors.Is(err, fly.ErrNotFound) {
		return fmt.Errorf("wait for machine %s: %w", a.s.MachineID, err)
	}
	return nil
}

// replace makes room for a new machine on the session's volume; state is the old one's. A session whose volume is gone as well is lost: its
// record begins anew, so that the next turn in the thread starts a fresh conversation.
func (a *attempt) replace(ctx context.Context, state string) error {
	if a.s.Ephemeral {
		return errSessionLost
	}
	if gone, err := a.volumeGone(ctx); err != nil {
		return err
	} else if gone {
		return a.loseSession(ctx)
	}
	if state != "destroyed" {
		if err := a.dropMachine(ctx); err != nil {
			return err
		}
	}
	a.forgetMachine()
	return a.save(ctx, *a.s)
}

// dropMachine destroys a machine that cannot be used any more.
func (a *attempt) dropMachine(ctx context.Context) error {
	nonce := a.nonce
	if nonce == "" {
		nonce = a.r.Nonce
	}
	if err := a.m.cfg.Fly.DeleteMachine(ctx, a.s.AppName, a.s.MachineID, true, nonce); err != nil {
		return fmt.Errorf("destroy machine %s: %w", a.s.MachineID, err)
	}
	return a.await(ctx, "destroyed")
}

// forgetMachine lets go of a machine that is gone, and of its lease.
func (a *attempt) forgetMachine() {
	a.close()
	a.s.MachineID, a.nonce = "", ""
}

// loseSession gives the thread a fresh session in place of one that cannot go on. What the old one may still have on
// Fly stays on the record until it is removed.
func (a *attempt) loseSession(ctx context.Context) error {
	fresh := a.m.Begin(Spec{
		Thread: a.s.Thread, Owner: a.s.Owner, Repos: a.s.Repos, VolumeGB: a.s.VolumeGB,
		TTL: time.Duration(a.s.TTLSeconds) * time.Second,
	}, time.Now())
	a.s.Left = a.s.remains()
	a.forgetMachine()
	a.s.SessionID, a.s.CreatedAt, a.s.VolumeID = fresh.SessionID, fresh.CreatedAt, ""
	a.s.State, a.s.Unsure, a.s.Handed = nil, false, false
	if err := a.save(ctx, *a.s); err != nil {
		return err
	}
	return errSessionLost
}

// hold takes the machine's lease, so that no other tool stops or changes the machine during the turn, and
// keeps it fresh. The lease of an earlier owner of the same turn is released first: it is ours.
func (a *attempt) hold(ctx context.Context) error {
	if a.nonce != "" {
		return nil
	}
	if a.r.Nonce != "" {
		if err := a.m.cfg.Fly.ReleaseLease(ctx, a.s.AppName, a.s.MachineID, a.r.Nonce); err != nil {
			a.m.log.DebugContext(ctx, "earlier lease not released", "machine", a.s.MachineID, "err", err)
		}
		a.r.Nonce = ""
	}
	lease, err := a.m.cfg.Fly.AcquireLease(ctx, a.s.AppName, a.s.MachineID, a.m.cfg.LeaseTTL, "flaudebot turn")
	if err != nil {
		return fmt.Errorf("lease machine %s: %w", a.s.MachineID, err)
	}
	a.nonce = lease.Nonce
	if a.r.KeepNonce != nil {
		if err := a.r.KeepNonce(ctx, lease.Nonce); err != nil {
			return letGo{err}
		}
	}
	refresh, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.drop = cancel
	machine, nonce := a.s.MachineID, lease.Nonce
	a.lease.Go(func() { a.m.refresh(refresh, a.s.AppName, machine, nonce) })
	return nil
}

// refresh keeps a machine lease until ctx ends.
func (m *Machines) refresh(ctx context.Context, app, machine, nonce string) {
	tick := time.NewTicker(m.cfg.LeaseTTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := m.cfg.Fly.RefreshLease(ctx, app, machine, m.cfg.LeaseTTL, nonce); err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "machine lease not refreshed", "machine", machine, "err", err)
		}
	}
}

// settleTimeout bounds how long Settle waits for the machine to stop by itself.
const settleTimeout = 15 * time.Second

// Settle tells the runner that the outcome is safe, sees the machine stopped, and releases its lease. It
// may be called again, and by another owner of the turn.
func (m *Machines) Settle(ctx context.Context, s Session, turn TurnID, fence int64, nonce string) error {
	if s.MachineID == "" {
		return nil
	}
	target := Target{App: s.AppName, Machine: s.MachineID, Nonce: nonce}
	var reply runner.AckReply
	ackErr := m.cfg.Handover.Call(ctx, target, "ack", runner.AckRequest{Turn: string(turn), Fence: fence}, &reply)
	err := m.sleep(ctx, s, nonce, ackErr == nil)
	if nonce != "" {
		if relErr := m.cfg.Fly.ReleaseLease(ctx, s.AppName, s.MachineID, nonce); relErr != nil && !errors.Is(relErr, fly.ErrNotFound) {
			m.log.DebugContext(ctx, "lease not released", "machine", s.MachineID, "err", relErr)
		}
	}
	return err
}

// sleep sees the machine stopped: by itself when its runner knows that it may go, else by a stop.
func (m *Machines) sleep(ctx context.Context, s Session, nonce string, acked bool) error {
	if acked && m.cfg.Settings.LingerSeconds > 0 {
		return nil
	}
	if acked {
		wait, cancel := context.WithTimeout(ctx, settleTimeout)
		_, err := m.cfg.Fly.WaitMachine(wait, s.AppName, s.MachineID, fly.WaitMachine{States: []string{"stopped", "destroyed"}})
		cancel()
		if err == nil || errors.Is(err, fly.ErrNotFound) || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	err := m.cfg.Fly.StopMachine(ctx, s.AppName, s.MachineID, fly.StopMachine{Signal: "SIGTERM", Timeout: 30 * time.Second}, nonce)
	if err != nil && !errors.Is(err, fly.ErrNotFound) {
		return fmt.Errorf("stop machine %s: %w", s.MachineID, err)
	}
	return nil
}

type digest struct{ hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

func (d digest) hex() string { return hex.EncodeToString(d.Sum(nil)) }

func stringReader(s string) io.Reader { return strings.NewReader(s) }
