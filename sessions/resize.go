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

// resize gives the machine the size that the settings say, and nothing else: the rest of its config stays as Fly has it. Without
// room for it the turn runs on the machine as it is.
func (a *attempt) resize(ctx context.Context, mach *fly.Machine) error {
	want := a.with.Guest
	if *mach.Config.Guest != want { // else an earlier owner of the turn has done so
		if err := a.hold(ctx); err != nil {
			return err
		}
		a.step(StepWaking)
		config := *mach.Config
		config.Guest = &want
		_, err := a.m.cfg.Fly.UpdateMachine(ctx, a.s.AppName, mach.ID, fly.UpdateMachine{
			Config: &config, CurrentVersion: mach.InstanceID, SkipLaunch: true,
		}, a.holds())
		switch {
		case errors.Is(err, fly.ErrCapacity), errors.Is(err, fly.ErrQuota), errors.Is(err, fly.ErrInvalid):
			a.resized = true
			a.m.log.WarnContext(ctx, "machine keeps its size", "machine", mach.ID, "want", GuestText(want), "has", GuestText(*mach.Config.Guest), "err", err)
			a.report(func(p *Progress) {
				p.Note = "Fly does not give the machine its new size now, so I go on with the old one"
			})
			return nil
		case err != nil: // whether it took effect is seen at the next look
			return fmt.Errorf("change the size of machine %s: %w", mach.ID, err)
		}
		if err := a.await(ctx, "replacing", "started", "stopped"); err != nil {
			return err
		}
	}
	a.resized, a.s.Guest = true, want
	return a.save(ctx, *a.s)
}
