package sessions

import (
	"context"
	"errors"
	"fmt"

	"flaudebot/fly"
)

// outgrown reports whether the machine is to have another size or another image by the settings, and may be changed: nothing of this turn runs in
// it, and no turn before it does. The record tells what was asked for last, so that what Fly gives otherwise is not asked for again with
// every turn.
func (a *attempt) outgrown(mach *fly.Machine) bool {
	idle := !a.r.Offered || mach.State == "stopped" || mach.State == "suspended"
	return (a.with.Guest != a.s.Guest || a.m.cfg.Image != a.s.Image) && !a.resized && !a.mayRun() && idle && !a.s.Ephemeral &&
		mach.Config != nil && mach.Config.Guest != nil && a.s.owns(*mach)
}

const (
	// sayOldSize is told when there is no room for a machine of the new size.
	sayOldSize = "Fly does not give the machine its new size now, so I go on with the old one"
	// sayOldImage is told when Fly does not take the new image.
	sayOldImage = "Fly does not give the machine its new image now, so I go on with the old one"
)

// resize gives the machine the size and the image that the settings say. Where Fly does not have it so the turn runs on the machine as it is.
func (a *attempt) resize(ctx context.Context, mach *fly.Machine) error {
	had, want := *mach.Config.Guest, a.with.Guest
	if had != want || mach.Config.Image != a.m.cfg.Image {
		err := a.change(ctx, mach, want, a.m.cfg.Image)
		if noRoom(err) && !a.r.Larger.sizes() {
			a.keepsSize(ctx, mach, err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	if had == want { // it may have been changed by an owner of a turn who did not come as far as to note it
		had = a.s.Guest
	}
	if had != want {
		a.hadSize = had
	}
	a.resized, a.s.Guest, a.s.Image = true, want, a.m.cfg.Image
	return a.save(ctx, *a.s)
}

// restoreSize gives a machine back the size that it had before this turn: that it may have the new one does not mean that its host
// has room to start it. False: its size is not what is in the way.
func (a *attempt) restoreSize(ctx context.Context, mach *fly.Machine, why error) (bool, error) {
	if a.hadSize == (Guest{}) || !noRoom(why) {
		return false, nil
	}
	if err := a.change(ctx, mach, a.hadSize, mach.Config.Image); err != nil {
		return false, err
	}
	a.s.Guest, a.hadSize = a.hadSize, Guest{}
	if err := a.save(ctx, *a.s); err != nil {
		return false, err
	}
	if a.r.Larger.sizes() { // it is there to run on the new size: that is waited for
		a.resized = false
		return false, fmt.Errorf("start machine %s in its new size: %w", mach.ID, why)
	}
	a.keepsSize(ctx, mach, why)
	return true, nil
}

func noRoom(err error) bool {
	return errors.Is(err, fly.ErrCapacity) || errors.Is(err, fly.ErrQuota) || errors.Is(err, fly.ErrPayment) || errors.Is(err, fly.ErrInvalid)
}

// keepsSize has the turn go on with the machine as it is; the next one tries again.
func (a *attempt) keepsSize(ctx context.Context, mach *fly.Machine, why error) {
	a.resized, a.lasting = true, sayOldSize
	if a.with.Guest == a.s.Guest {
		a.lasting = sayOldImage
	}
	a.m.log.WarnContext(ctx, "machine keeps its size and image", "machine", mach.ID, "want", GuestText(a.with.Guest), "want_image", a.m.cfg.Image, "err", why)
}

// change changes size and image of a machine, and nothing else: the rest of its config stays as Fly has it. Whether it took effect when
// the answer was lost is seen at the next look.
func (a *attempt) change(ctx context.Context, mach *fly.Machine, to Guest, image string) error {
	if err := a.hold(ctx); err != nil {
		return err
	}
	a.step(StepWaking)
	config := *mach.Config
	config.Guest, config.Image = &to, image
	if err := a.reconfigure(ctx, mach, config); err != nil {
		return fmt.Errorf("change the size or the image of machine %s: %w", mach.ID, err)
	}
	return nil
}

// reconfigure replaces the config of a machine that is at rest, and leaves it so.
func (a *attempt) reconfigure(ctx context.Context, mach *fly.Machine, config fly.MachineConfig) error {
	_, err := a.m.cfg.Fly.UpdateMachine(ctx, a.s.AppName, mach.ID, fly.UpdateMachine{
		Config: &config, CurrentVersion: mach.InstanceID, SkipLaunch: true,
	}, a.holds())
	if err != nil {
		return err
	}
	err = a.await(ctx, "replacing", "started", "stopped")
	a.found = nil // the wait may have been met by what it was before
	return err
}
