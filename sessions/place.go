package sessions

import (
	"context"
	"errors"
	"slices"

	"flaudebot/fly"
)

// create makes what the session lacks of volume and machine, in the first of its regions that has room. What binds it to a place is a volume
// with a conversation on it; of any other nothing is left where there was no room for its machine.
func (m *Machines) create(ctx context.Context, s *Session, save Save, with Effective) error {
	if !s.onFly() { // nothing binds it to where it was named: the settings may have been mended
		s.AppName = m.cfg.App
	}
	if s.MachineID != "" {
		return nil
	}
	s.Guest = with.Guest
	var full []error
	for _, region := range m.regions(*s, with) {
		err := m.createIn(ctx, s, save, region)
		if errors.Is(err, fly.ErrHostCapacity) && !s.onFly() { // another host of the region may have room
			err = m.createIn(ctx, s, save, region)
		}
		if !noRoomThere(err) {
			return err
		}
		full = append(full, err)
		m.log.WarnContext(ctx, "no room in region", "region", region, "session", s.SessionID, "err", err)
		if s.onFly() { // its files are there, or could not be removed yet
			break
		}
	}
	return errors.Join(full...)
}

// regions are those that the session may be made in, in order: where its volume is comes first. A channel that names a region means that one.
func (m *Machines) regions(s Session, with Effective) []string {
	all := m.cfg.Regions
	if with.pinned || !slices.Contains(all, with.Region) {
		all = []string{with.Region}
	}
	if !s.onFly() {
		return all
	}
	return append([]string{s.Region}, slices.DeleteFunc(slices.Clone(all), func(r string) bool { return r == s.Region })...)
}

// noRoomThere reports whether another region may do what one refuses.
func noRoomThere(err error) bool {
	return errors.Is(err, fly.ErrCapacity) || errors.Is(err, fly.ErrQuota)
}

// createIn makes volume and machine in a region, or where the volume is. The volume of a session without a conversation goes again when there is
// no machine for it: the next try may find room on another host.
func (m *Machines) createIn(ctx context.Context, s *Session, save Save, region string) error {
	if s.VolumeID == "" {
		s.Region = region
	}
	if s.VolumeID == "" && !s.Ephemeral {
		if err := m.createVolume(ctx, s, save); err != nil {
			return err
		}
	}
	mach, err := m.createMachine(ctx, *s)
	if err != nil {
		if !s.Handed && !s.Begun() && s.VolumeID != "" && !isPassing(err) {
			m.dropVolume(ctx, s, save)
		}
		return err
	}
	s.MachineID, s.Region, s.Image = mach.ID, mach.Region, m.cfg.Image
	if mach.Config != nil && mach.Config.Image != s.Image { // an earlier owner has made it, of another one
		s.Image = ""
	}
	return save(ctx, *s)
}
