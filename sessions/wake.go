package sessions

import (
	"cmp"
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
	"flaudebot/queue"
	"flaudebot/runner"
)

// errSessionLost says that the session's machine and volume are gone: the conversation cannot go on.
var errSessionLost = errors.New("the machine and its volume are gone")

// wake sees to it that the session has a machine, that it is started, and that its lease is ours.
func (a *attempt) wake(ctx context.Context) error {
	for {
		a.stuck = ""
		limit := a.m.cfg.BootTimeout
		inner, cancel := context.WithTimeout(ctx, limit)
		err := a.boot(inner)
		late := err != nil && inner.Err() != nil && ctx.Err() == nil
		cancel()
		if !late {
			return err
		}
		if stuckErr := a.unstick(ctx); stuckErr != nil {
			return fmt.Errorf("%w within %s: %w", errNotUp, limit, errors.Join(err, stuckErr))
		}
	}
}

var errNotStuck = errors.New("nothing to replace")

// unstick replaces a machine that stays in a state for as long as a boot may take: once for a turn, and on the same volume. Nothing that
// could be waited for runs in it.
func (a *attempt) unstick(ctx context.Context) error {
	if a.stuck == "" || a.replaced || a.s.Ephemeral || a.s.MachineID == "" {
		return errNotStuck
	}
	a.replaced = true
	a.m.log.WarnContext(ctx, "machine does not get on, and is replaced", "machine", a.s.MachineID, "state", a.stuck, "session", a.s.SessionID)
	ctx, cancel := context.WithTimeout(ctx, a.m.cfg.BootTimeout)
	defer cancel()
	return a.replace(ctx, a.stuck)
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
		case hostAway(mach) != nil:
			return hostAway(mach)
		case mach.State == "started" && a.outgrown(mach):
			err = a.resize(ctx, mach)
		case mach.State == "started":
			a.mark(ctx, mach)
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
	err := a.m.create(ctx, a.s, a.save, a.with)
	if !errors.Is(err, fly.ErrNotFound) {
		return err
	}
	if a.s.VolumeID == "" { // the volume of its record was gone, and nothing was on it
		return a.m.create(ctx, a.s, a.save, a.with)
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
		if a.outgrown(mach) {
			return a.resize(ctx, mach)
		}
		if a.accepted {
			a.noteExit(mach)
		}
		if err := a.hold(ctx); err != nil {
			return err
		}
		a.step(StepWaking)
		err := a.m.cfg.Fly.StartMachine(ctx, a.s.AppName, mach.ID, a.holds())
		if errors.Is(err, fly.ErrNotFound) {
			return a.missing(ctx)
		}
		if restored, restoreErr := a.restoreSize(ctx, mach, err); restored || restoreErr != nil {
			return restoreErr
		}
		if err != nil {
			return fmt.Errorf("start machine %s: %w", mach.ID, err)
		}
		return a.await(ctx, "starting", "started", "stopped")
	case "stopping", "suspending":
		return a.await(ctx, mach.State, "stopped", "suspended")
	case "destroyed", "destroying", "failed", "launch_failed":
		return a.replace(ctx, mach.State)
	default: // created, starting, restarting, updating, replacing
		a.step(StepWaking)
		return a.await(ctx, mach.State, "started", "stopped")
	}
}

// missing decides what it means that Fly does not find what is to be started: the volume is gone, or else the machine since it was
// looked at.
func (a *attempt) missing(ctx context.Context) error {
	if !a.s.Ephemeral {
		if gone, err := a.volumeGone(ctx); err != nil {
			return err
		} else if gone {
			return a.loseSession(ctx)
		}
	}
	return pauseFor(ctx, time.Second, nil, true)
}

// mark gives the machine the marks of its session again, should somebody have taken them: they tell whose it is.
func (a *attempt) mark(ctx context.Context, mach *fly.Machine) {
	if mach.Config == nil || !a.s.owns(*mach) {
		return
	}
	for key, value := range a.m.machineConfig(*a.s).Metadata {
		if mach.Config.Metadata[key] == value {
			continue
		}
		if err := a.m.cfg.Fly.SetMetadata(ctx, a.s.AppName, mach.ID, key, value); err != nil {
			a.m.log.WarnContext(ctx, "machine not marked", "machine", mach.ID, "mark", key, "err", err)
		}
	}
}

// slowAfter is how long a machine may take for a change of its state before people are told that it is waited for.
const slowAfter = 20 * time.Second

// slow says what a machine does that stays in a state for long.
func slow(state string) string {
	switch state {
	case "stopping", "suspending":
		return "Fly is still stopping the machine"
	case "destroying":
		return "Fly is still removing the old machine"
	case "replacing", "updating":
		return "Fly is still changing the machine"
	}
	return "Fly is still starting the machine"
}

// await waits until a machine that is in a state has come to one of the others, or for a stop of the turn if it does not run yet.
func (a *attempt) await(ctx context.Context, state string, states ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.stuck = state
	w := &wait{a: a}
	defer w.over()
	defer time.AfterFunc(min(slowAfter, a.m.cfg.BootTimeout/4), func() { w.say(slow(state)) }).Stop()
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
	a.stuck = ""
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
	nonce := cmp.Or(a.holds(), a.r.Nonce)
	if err := a.m.cfg.Fly.DeleteMachine(ctx, a.s.AppName, a.s.MachineID, true, nonce); err != nil {
		return fmt.Errorf("destroy machine %s: %w", a.s.MachineID, err)
	}
	return a.await(ctx, "destroying", "destroyed")
}

// forgetMachine lets go of a machine that is gone, and of its lease.
func (a *attempt) forgetMachine() {
	a.close()
	a.s.MachineID = ""
	a.setNonce("")
}

// holds is the nonce of the machine lease; "": we have none.
func (a *attempt) holds() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nonce
}

func (a *attempt) setNonce(nonce string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nonce = nonce
}

// heldAnew reports whether the lease is ours under another nonce than that: ours had run out, and its refresher has taken it again or is just
// about to know so.
func (a *attempt) heldAnew(ctx context.Context, nonce string) bool {
	if a.holds() == nonce {
		_ = pauseFor(ctx, 500*time.Millisecond, nil, true)
	}
	return a.holds() != nonce
}

// keepNonce has the newest nonce kept for the next owner of the turn.
func (a *attempt) keepNonce(ctx context.Context) error {
	nonce := a.holds()
	if nonce == "" || nonce == a.kept || a.r.KeepNonce == nil {
		return nil
	}
	if err := a.r.KeepNonce(ctx, nonce); err != nil {
		return letGo{err}
	}
	a.kept = nonce
	return nil
}

// loseSession gives the thread a fresh session in place of one that cannot go on. What the old one may still have on
// Fly stays on the record until it is removed.
func (a *attempt) loseSession(ctx context.Context) error {
	fresh := a.m.Begin(Spec{
		Thread: a.s.Thread, Owner: a.s.Owner, Repos: a.s.Repos, VolumeGB: a.s.VolumeGB,
		TTL: time.Duration(a.s.TTLSeconds) * time.Second, With: &a.with,
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
	if a.holds() != "" {
		return nil
	}
	if a.r.Nonce != "" {
		if err := a.m.cfg.Fly.ReleaseLease(ctx, a.s.AppName, a.s.MachineID, a.r.Nonce); err != nil {
			a.m.log.DebugContext(ctx, "earlier lease not released", "machine", a.s.MachineID, "err", err)
		}
		a.r.Nonce = ""
	}
	lease, err := a.m.acquire(ctx, a.s.AppName, a.s.MachineID)
	if err != nil {
		return fmt.Errorf("lease machine %s: %w", a.s.MachineID, err)
	}
	a.setNonce(lease.Nonce)
	if err := a.keepNonce(ctx); err != nil {
		return err
	}
	refresh, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.drop = cancel
	machine, nonce := a.s.MachineID, lease.Nonce
	a.lease.Go(func() { a.m.refresh(refresh, a.s.AppName, machine, nonce, a.setNonce) })
	return nil
}

// leaseWait is for how long the answer to a request for a lease is waited for that nobody wants any more.
const leaseWait = 3 * time.Second

// acquire takes a machine's lease. When ctx ends while the request is on its way, its answer is waited for a little longer, and the lease
// given back: under a nonce that nobody knows it would keep the next owner of the turn from the machine.
func (m *Machines) acquire(ctx context.Context, app, machine string) (*fly.Lease, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(leaseWait, cancel) })()
	lease, err := m.cfg.Fly.AcquireLease(asking, app, machine, m.cfg.LeaseTTL, "flaudebot turn")
	if err == nil && ctx.Err() != nil {
		m.release(ctx, app, machine, lease.Nonce)
		return nil, context.Cause(ctx)
	}
	return lease, err
}

// releaseTime bounds how long a lease is given back: it ends by itself.
const releaseTime = 5 * time.Second

// release gives a machine's lease back, also when the turn is another owner's by now: the nonce is its fence.
func (m *Machines) release(ctx context.Context, app, machine, nonce string) {
	ctx, cancel := context.WithTimeout(queue.Fenced(context.WithoutCancel(ctx)), releaseTime)
	defer cancel()
	if err := m.cfg.Fly.ReleaseLease(ctx, app, machine, nonce); err != nil {
		m.log.DebugContext(ctx, "lease not released", "machine", machine, "err", err)
	}
}

// refresh keeps a machine lease until ctx ends. One that ran out, since Fly could not be reached for so long, is taken again unless somebody
// else has it: again is told its nonce.
func (m *Machines) refresh(ctx context.Context, app, machine, nonce string, again func(nonce string)) {
	tick := time.NewTicker(m.cfg.LeaseTTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lease, err := m.cfg.Fly.RefreshLease(ctx, app, machine, m.cfg.LeaseTTL, nonce)
		if errors.Is(err, fly.ErrNotFound) {
			lease, err = m.acquire(ctx, app, machine)
		}
		switch {
		case err == nil && lease.Nonce != "" && lease.Nonce != nonce:
			nonce = lease.Nonce
			again(nonce)
		case err != nil && ctx.Err() == nil:
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
	if acked && m.linger(s) > 0 {
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

// linger is for how long the session's machine waits for a further turn.
func (m *Machines) linger(s Session) time.Duration {
	if s.InUse != nil {
		return time.Duration(s.InUse.LingerSeconds) * time.Second
	}
	return time.Duration(m.cfg.Settings.LingerSeconds) * time.Second
}

type digest struct{ hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

func (d digest) hex() string { return hex.EncodeToString(d.Sum(nil)) }

func stringReader(s string) io.Reader { return strings.NewReader(s) }
