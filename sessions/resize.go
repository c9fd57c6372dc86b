package sessions

import (
	"context"
	"errors"
	"fmt"

	"flaudebot/fly"
)

// outgrown reports whether the machine is to have another size by the settings, and may be changed: nothing of this turn runs in it, and
// no turn before it does. The record tells which size was asked for last, so that a size that Fly gives otherwise is not asked for
// again with every turn.
func (a *attempt) outgrown(mach *fly.Machine) bool {
	want := a.with.Guest
	return want != a.s.Guest && !a.resized && !a.mayRun() && !a.r.Offered && !a.s.Ephemeral &&
		mach.Config != nil && mach.Config.Guest != nil && a.s.owns(*mach)
}

// sayOldSize is told when there is no room for a machine of the new size.
const sayOldSize = "Fly does not give the machine its new size now, so I go on with the old one"

// resize gives the machine the size that the settings say. Without room for it the turn runs on the machine as it is.
func (a *attempt) resize(ctx context.Context, mach *fly.Machine) error {
	had, want := *mach.Config.Guest, a.with.Guest
	if had == want { // it was changed by an owner of a turn who did not come as far as to note it
		had = a.s.Guest
	} else {
		err := a.changeGuest(ctx, mach, want)
		if noRoom(err) {
			a.keepsSize(ctx, mach, err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	a.hadSize = had
	a.resized, a.s.Guest = true, want
	return a.save(ctx, *a.s)
}

// restoreSize gives a machine back the size that it had before this turn: that it may have the new one does not mean that its host
// has room to start it. False: its size is not what is in the way.
func (a *attempt) restoreSize(ctx context.Context, mach *fly.Machine, why error) (bool, error) {
	if a.hadSize == (Guest{}) || !noRoom(why) {
		return false, nil
	}
	if err := a.changeGuest(ctx, mach, a.hadSize); err != nil {
		return false, err
	}
	a.keepsSize(ctx, mach, why)
	a.s.Guest, a.hadSize = a.hadSize, Guest{}
	return true, a.save(ctx, *a.s)
}

func noRoom(err error) bool {
	return errors.Is(err, fly.ErrCapacity) || errors.Is(err, fly.ErrQuota) || errors.Is(err, fly.ErrInvalid)
}

// keepsSize has the turn go on with the machine's old size; the next one tries again.
func (a *attempt) keepsSize(ctx context.Context, mach *fly.Machine, why error) {
	a.resized = true
	a.m.log.WarnContext(ctx, "machine keeps its size", "machine", mach.ID, "want", GuestText(a.with.Guest), "err", why)
	a.lasting = sayOldSize
}

// changeGuest changes the size of a machine, and nothing else: the rest of its config stays as Fly has it. Whether it took effect when
// the answer was lost is seen at the next look.
func (a *attempt) changeGuest(ctx context.Context, mach *fly.Machine, to Guest) error {
	if err := a.hold(ctx); err != nil {
		return err
	}
	a.step(StepWaking)
	config := *mach.Config
	config.Guest = &to
	_, err := a.m.cfg.Fly.UpdateMachine(ctx, a.s.AppName, mach.ID, fly.UpdateMachine{
		Config: &config, CurrentVersion: mach.InstanceID, SkipLaunch: true,
	}, a.holds())
	if err != nil {
		return fmt.Errorf("change the size of machine %s: %w", mach.ID, err)
	}
	return a.await(ctx, "replacing", "started", "stopped")
}
