package sessions

import (
	"context"
	"errors"
	"fmt"

	"flaudebot/fly"
	"flaudebot/runner"
)

// Larger is a size that somebody has chosen for a session after a turn that had too little of something: it counts where the settings say less.
type Larger struct {
	Guest    Guest `json:"guest,omitzero"`
	VolumeGB int   `json:"volume_gb,omitempty"`
}

// and is both, by whichever is larger of each.
func (l Larger) and(other Larger) Larger {
	if other.Guest.MemoryMB > l.Guest.MemoryMB {
		l.Guest = other.Guest
	}
	l.VolumeGB = max(l.VolumeGB, other.VolumeGB)
	return l
}

// within is as much of it as the bot allows.
func (m *Machines) within(l Larger) Larger {
	if l.Guest.MemoryMB > m.cfg.MaxMemoryMB || CheckGuest(l.Guest) != nil {
		l.Guest = Guest{}
	}
	l.VolumeGB = min(l.VolumeGB, m.cfg.MaxVolumeGB)
	return l
}

// larger is what the session could be given after a failure; nil: nothing, as when it has as much as the bot allows.
func (m *Machines) larger(s Session, f Failure) *Larger {
	switch {
	case s.Ephemeral:
	case f == FailMemory:
		if g, ok := nextGuest(m.guest(s), m.cfg.MaxMemoryMB); ok {
			return &Larger{Guest: g}
		}
	case f == runner.FailDisk:
		if gb := min(2*m.volumeGB(s), m.cfg.MaxVolumeGB); gb > m.volumeGB(s) {
			return &Larger{VolumeGB: gb}
		}
	}
	return nil
}

// nextGuest is the next size up, of twice the memory or else the most: with as many CPUs as that needs at Fly.
func nextGuest(g Guest, most int) (Guest, bool) {
	step := 256
	if g.CPUKind == "performance" {
		step = 1024
	}
	mb := min(2*g.MemoryMB, most/step*step)
	if mb <= g.MemoryMB {
		return Guest{}, false
	}
	for _, cpus := range []int{1, 2, 4, 6, 8, 10, 12, 14, 16} {
		if g.CPUKind == "shared" && cpus > 8 {
			break
		}
		next := Guest{CPUKind: g.CPUKind, CPUs: cpus, MemoryMB: mb}
		if cpus >= g.CPUs && CheckGuest(next) == nil {
			return next, true
		}
	}
	return Guest{}, false
}

// guestOf is the size of the session's machine by the settings, or by what was chosen for it.
func (s Session) guestOf(with Effective) Guest {
	if s.Larger.Guest.MemoryMB > with.Guest.MemoryMB {
		return s.Larger.Guest
	}
	return with.Guest
}

// sizes reports whether the turn is there to run on something larger: then it runs on nothing else.
func (l Larger) sizes() bool { return l != Larger{} }

// takeLarger notes for the session what the turn was asked to run on. What is noted counts from then on, whatever becomes of the turn.
func (w *work) takeLarger(ctx context.Context, s *Session) error {
	next := s.Larger.and(w.sv.cfg.Machines.within(w.turn.Larger))
	if next == s.Larger {
		return nil
	}
	s.Larger = next
	return w.save(ctx, *s)
}

// rest has a machine that lingers stop before anything of the turn can be in it, so that it grows: nothing grows under what runs.
func (a *attempt) rest(ctx context.Context) error {
	if a.s.MachineID == "" {
		return nil
	}
	mach, err := a.m.cfg.Fly.Machine(ctx, a.s.AppName, a.s.MachineID)
	if errors.Is(err, fly.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = hostAway(mach)
	}
	if err != nil || mach.State != "started" {
		return err
	}
	if err := a.hold(ctx); err != nil {
		return err
	}
	if err := a.m.cfg.Fly.StopMachine(ctx, a.s.AppName, mach.ID, fly.StopMachine{}, a.holds()); err != nil {
		return fmt.Errorf("stop machine %s so that it grows: %w", mach.ID, err)
	}
	return a.await(ctx, "stopping", "stopped")
}

// cramped reports whether the session's volume is to be larger than it is.
func (a *attempt) cramped() bool {
	return a.s.VolumeID != "" && a.s.Larger.VolumeGB > a.m.volumeGB(*a.s) && !a.grown && !a.mayRun()
}

// growVolume extends the volume of a machine that is stopped: its file system grows when it starts. Whether it took effect when the answer was
// lost is seen at the next look.
func (a *attempt) growVolume(ctx context.Context) error {
	want := a.s.Larger.VolumeGB
	vol, err := a.m.cfg.Fly.Volume(ctx, a.s.AppName, a.s.VolumeID)
	if err == nil && vol.SizeGB < want {
		vol, _, err = a.m.cfg.Fly.ExtendVolume(ctx, a.s.AppName, a.s.VolumeID, want)
	}
	if noRoom(err) && !a.r.Larger.sizes() { // the turn does without
		a.grown = true
		a.m.log.WarnContext(ctx, "volume keeps its size", "volume", a.s.VolumeID, "want_gb", want, "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("make volume %s larger: %w", a.s.VolumeID, err)
	}
	a.s.VolumeGB = vol.SizeGB
	return a.save(ctx, *a.s)
}
