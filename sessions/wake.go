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
	"slices"
	"strings"
	"sync"
	"time"

	"flaudebot/fly"
	"flaudebot/queue"
	"flaudebot/runner"
)

// errSessionLost says that the session's machine and volume are gone: the conversation cannot go on.
var errSessionLost = errors.New("the machine and its volume are gone")

// sayInLine is told when many sessions begin at once.
const sayInLine = "many sessions begin just now, and Fly takes one a second"

// lineUp waits until it is the turn of a session that has no machine to get one. However many begin at once, that is neither a slow boot nor
// trouble of Fly's, so it is done before either is waited for.
func (a *attempt) lineUp(ctx context.Context) error {
	if a.s.MachineID != "" || a.mayRun() {
		return nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-a.r.Stop:
			cancel()
		case <-waiting.Done():
		}
	}()
	w := &wait{a: a}
	defer w.over()
	defer time.AfterFunc(min(slowAfter, a.m.cfg.BootTimeout/4), func() { w.say(sayInLine) }).Stop()
	err := a.m.cfg.Fly.AwaitCreation(waiting, a.s.AppName)
	if err != nil && ctx.Err() == nil { // it was stopped
		return nil
	}
	return err
}

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
	a.found = nil
	for !a.stopped() || a.mayRun() {
		if a.accepted && !a.s.onFly() && !a.s.Ephemeral { // an earlier owner of the turn lost it
			return errSessionLost
		}
		if a.s.MachineID == "" {
			if err := a.create(ctx); err != nil {
				return err
			}
			a.lane = runner.LaneMachine
		}
		mach, err := a.look(ctx)
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
			a.r.Seen(mach)
			a.mark(ctx, mach)
			return a.hold(ctx)
		case !a.m.starts() && isAtRest(mach) && handsOver(mach):
			err = a.unhand(ctx, mach)
		case a.m.starts() && isAtRest(mach) && !a.outgrown(mach) && !a.cramped():
			a.r.Seen(mach)
			return a.ready(ctx, mach)
		default:
			err = a.advance(ctx, mach)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// look returns the machine as a wait has just found it, or else as it is.
func (a *attempt) look(ctx context.Context) (*fly.Machine, error) {
	if mach := a.found; mach != nil {
		a.found = nil
		return mach, nil
	}
	return a.m.cfg.Fly.Machine(ctx, a.s.AppName, a.s.MachineID)
}

// isAtRest reports whether the machine waits to be started.
func isAtRest(mach *fly.Machine) bool {
	return mach.State == "created" || mach.State == "stopped" || mach.State == "suspended"
}

// handsOver reports whether the machine's config hands a turn over, from a time when that was the way.
func handsOver(mach *fly.Machine) bool {
	if mach.Config == nil {
		return false
	}
	had, err := handedIn(mach.Config)
	return err == nil && had.Turn() != ""
}

// unhand takes out of the machine's config what its runner would do at boot, in place of being asked.
func (a *attempt) unhand(ctx context.Context, mach *fly.Machine) error {
	if err := a.hold(ctx); err != nil {
		return err
	}
	config := *mach.Config
	config.Files = slices.DeleteFunc(slices.Clone(config.Files), isHanded)
	if err := a.reconfigure(ctx, mach, config); err != nil {
		return fmt.Errorf("take a turn out of the config of machine %s: %w", mach.ID, err)
	}
	return nil
}

// ready leaves a machine that is at rest to the handover, which starts it.
func (a *attempt) ready(ctx context.Context, mach *fly.Machine) error {
	if a.accepted {
		a.noteExit(mach)
	}
	a.mark(ctx, mach)
	if a.unfound {
		a.unfound = false
		if err := a.missing(ctx); err != nil {
			return err
		}
	}
	a.step(StepWaking)
	return a.hold(ctx)
}

// notStarted sees to what kept the handover from starting the machine; nil: nothing that Fly has to make room for.
func (a *attempt) notStarted(ctx context.Context, why error) error {
	a.unfound = errors.Is(why, fly.ErrNotFound)
	if !errors.Is(why, fly.ErrCapacity) && (a.hadSize == (Guest{}) || !noRoom(why)) {
		return nil
	}
	mach, err := a.m.cfg.Fly.Machine(ctx, a.s.AppName, a.s.MachineID)
	if err != nil {
		return why
	}
	restored, err := a.restoreSize(ctx, mach, why)
	switch {
	case err != nil:
		return err
	case restored: // it may be tried again
		return fmt.Errorf("start machine %s: %w", mach.ID, fly.ErrPrecondition)
	}
	return why
}

func (a *attempt) create(ctx context.Context) error {
	a.step(StepCreating)
	if a.s.VolumeID == "" {
		if err := a.m.EnsureApp(ctx); err != nil {
			return err
		}
	}
	err := a.m.create(ctx, a.s, a.save, a.with)
	if noRoomThere(err) && a.s.VolumeID != "" {
		if _, awayErr := a.volumeGone(ctx); errors.Is(awayErr, errHostAway) {
			return awayErr
		}
	}
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
	if !vol.Dying() {
		err = volumeAway(vol)
	}
	return vol.Dying(), err
}

// advance moves the machine one step towards started.
func (a *attempt) advance(ctx context.Context, mach *fly.Machine) error {
	switch mach.State {
	case "stopped", "suspended":
		if a.outgrown(mach) {
			return a.resize(ctx, mach)
		}
		if a.cramped() {
			return a.growVolume(ctx)
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
		a.lane = cmp.Or(a.lane, runner.LaneStart)
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

// sayIfSlow tells people after a while that the machine stays in a state.
func (a *attempt) sayIfSlow(w *wait, state string) *time.Timer {
	return time.AfterFunc(min(slowAfter, a.m.cfg.BootTimeout/4), func() { w.say(slow(state)) })
}

// await waits until a machine that is in a state has come to one of the others, or for a stop of the turn if it does not run yet.
func (a *attempt) await(ctx context.Context, state string, states ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.stuck = state
	w := &wait{a: a}
	defer w.over()
	defer a.sayIfSlow(w, state).Stop()
	if !a.mayRun() {
		go func() {
			select {
			case <-a.r.Stop:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	mach, err := a.m.cfg.Fly.WaitMachine(ctx, a.s.AppName, a.s.MachineID, fly.WaitMachine{States: states})
	if err != nil && !errors.Is(err, fly.ErrNotFound) {
		return fmt.Errorf("wait for machine %s: %w", a.s.MachineID, err)
	}
	a.stuck, a.found = "", mach
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
	a.s.MachineID, a.found = "", nil
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

// refresh keeps a machine lease until ctx ends. again is told its nonce when that is another one.
func (m *Machines) refresh(ctx context.Context, app, machine, nonce string, again func(nonce string)) {
	tick := time.NewTicker(m.cfg.LeaseTTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		had := nonce
		var call sync.WaitGroup
		call.Go(func() { nonce = m.refreshOnce(ctx, app, machine, had) }) // there is one of this for each running turn: it keeps a small stack
		call.Wait()
		if nonce != had {
			again(nonce)
		}
	}
}

// refreshOnce makes a lease last longer, and returns its nonce. One that ran out, since Fly could not be reached for so long, is taken again unless
// somebody else has it.
func (m *Machines) refreshOnce(ctx context.Context, app, machine, nonce string) string {
	lease, err := m.cfg.Fly.RefreshLease(ctx, app, machine, m.cfg.LeaseTTL, nonce)
	if errors.Is(err, fly.ErrNotFound) {
		lease, err = m.acquire(ctx, app, machine)
	}
	if err != nil {
		if ctx.Err() == nil {
			m.log.WarnContext(ctx, "machine lease not refreshed", "machine", machine, "err", err)
		}
		return nonce
	}
	return cmp.Or(lease.Nonce, nonce)
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
	var err error
	if ackErr != nil || !m.starts() { // else it was seen stopped
		err = m.sleep(ctx, s, nonce, ackErr == nil)
	}
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
	if m.starts() { // it reads what is handed over at boot
		return 0
	}
	if s.InUse != nil {
		return time.Duration(s.InUse.LingerSeconds) * time.Second
	}
	return time.Duration(m.cfg.Settings.LingerSeconds) * time.Second
}

type digest struct{ hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

func (d digest) hex() string { return hex.EncodeToString(d.Sum(nil)) }

func stringReader(s string) io.Reader { return strings.NewReader(s) }
