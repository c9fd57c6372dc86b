package sessions

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"flaudebot/fly"
)

// sweepEvery is the time between two sweeps, whichever replica makes them.
const sweepEvery = 10 * time.Minute

// sweepGrace is for how long nothing must have happened to a machine or volume before it counts as left behind.
const sweepGrace = time.Hour

// sweepNowAndThen sweeps if no replica has done so lately.
func (sv *Service) sweepNowAndThen(ctx context.Context, now time.Time) error {
	first, err := sv.store.Once(ctx, fmt.Sprintf("sweep:%d", now.Unix()/int64(sweepEvery/time.Second)), 2*sweepEvery)
	if err != nil || !first {
		return err
	}
	return sv.sweep(ctx, now)
}

// sweep removes what carries our mark on Fly and no session knows: what a crash left behind, an answer that was
// lost, or a list that was not complete when a session was removed.
//
// A list that came back empty proves nothing, ours included: a Redis that has lost its data must not cost anybody
// their work. So a machine goes only if its thread's record is there and knows nothing of it, or if it is an
// ephemeral one, or if it has been left alone for as long as any session may be; and a volume after the same
// rules. A machine whose lease is held belongs to somebody who is at work.
func (sv *Service) sweep(ctx context.Context, now time.Time) error {
	m := sv.cfg.Machines
	// What Fly has is listed before what we know: a session is on record before anything is made for it.
	machines, machErr := m.managed(ctx)
	volumes, volErr := m.cfg.Fly.Volumes(ctx, m.cfg.App)
	err := errors.Join(machErr, ignoreNotFound(volErr))
	for _, mach := range machines {
		err = errors.Join(err, sv.sweepMachine(ctx, mach, now))
	}
	if len(volumes) == 0 {
		return err
	}
	all, allErr := sv.store.All(ctx, "")
	if allErr != nil {
		return errors.Join(err, allErr)
	}
	for _, v := range volumes {
		err = errors.Join(err, sv.sweepVolume(ctx, v, all, now))
	}
	return err
}

func ignoreNotFound(err error) error {
	if errors.Is(err, fly.ErrNotFound) { // the app is not made yet
		return nil
	}
	return err
}

func (sv *Service) sweepMachine(ctx context.Context, mach fly.Machine, now time.Time) error {
	s, ok := sv.sessionOf(mach)
	last := lastChange(mach)
	if !ok || last.IsZero() || now.Sub(last) < sweepGrace {
		return nil
	}
	goes := s.Ephemeral || sv.idle(now.Sub(last))
	if s.Thread != (Thread{}) {
		record, err := sv.store.Get(ctx, s.Thread)
		if err != nil || (record != nil && record.knows(s)) {
			return err
		}
		if q, err := sv.cfg.Queue.Inspect(ctx, s.Thread.Key()); err != nil || len(q.Jobs) > 0 {
			return err
		}
		goes = goes || record != nil
	}
	if !goes {
		return nil
	}
	return sv.removeLeft(ctx, s)
}

// knows reports whether the record will see to it that the machine is removed.
func (s Session) knows(other Session) bool {
	if s.SessionID == other.SessionID {
		return !s.Ended() || s.MachineID != ""
	}
	return slices.ContainsFunc(s.Left, func(r Remains) bool { return r.SessionID == other.SessionID })
}

// idle reports whether something that nobody knows has been left alone for as long as a session may be.
func (sv *Service) idle(age time.Duration) bool { return sv.cfg.IdleTTL > 0 && age >= sv.cfg.IdleTTL }

var ourVolume = regexp.MustCompile(`^fb_[0-9a-f]{27}$`)

func (sv *Service) sweepVolume(ctx context.Context, v fly.Volume, all []Session, now time.Time) error {
	created, err := time.Parse(time.RFC3339, v.CreatedAt)
	if err != nil || !ourVolume.MatchString(v.Name) || v.AttachedMachineID != "" || now.Sub(created) < sweepGrace {
		return nil //nolint:nilerr // a volume whose age is not known is left alone
	}
	twin := false // its session has another one
	for _, s := range all {
		for _, r := range append(s.remains(), Remains{SessionID: s.SessionID}) {
			if r.VolumeID == v.ID {
				return nil
			}
			if volumeName(r.SessionID) == v.Name {
				if s.SessionID == r.SessionID && s.VolumeID == "" && !s.Ended() { // it will be adopted
					return nil
				}
				twin = true
			}
		}
	}
	if !twin && !sv.idle(now.Sub(created)) {
		return nil
	}
	sv.log.WarnContext(ctx, "volume left behind is removed", "volume", v.ID, "name", v.Name)
	m := sv.cfg.Machines
	if err := m.cfg.Fly.DeleteVolume(ctx, m.cfg.App, v.ID); err != nil {
		return fmt.Errorf("remove volume %s, which was left behind: %w", v.ID, err)
	}
	return nil
}

func (sv *Service) removeLeft(ctx context.Context, s Session) error {
	sv.log.WarnContext(ctx, "machine left behind is removed", "machine", s.MachineID, "session", s.SessionID)
	err := sv.cfg.Machines.Destroy(ctx, s)
	if err != nil && !errors.Is(err, fly.ErrLeaseHeld) {
		return fmt.Errorf("remove machine %s, which was left behind: %w", s.MachineID, err)
	}
	return nil
}

// sessionOf reads a session from the marks of its machine; not ok: it does not carry them all.
func (sv *Service) sessionOf(mach fly.Machine) (s Session, ok bool) {
	if mach.Config == nil {
		return Session{}, false
	}
	meta := mach.Config.Metadata
	s = Session{
		SessionID: meta[MetaSession], AppName: sv.cfg.Machines.cfg.App, MachineID: mach.ID, Ephemeral: meta[MetaOnce] != "",
	}
	s.Thread, _ = ParseThread(meta[MetaThread])
	return s, uuid.Validate(s.SessionID) == nil && s.owns(mach)
}

// lastChange is when something happened to the machine last; zero: nobody knows.
func lastChange(mach fly.Machine) time.Time {
	last, _ := time.Parse(time.RFC3339, mach.CreatedAt)
	for _, e := range mach.Events {
		if at := time.UnixMilli(e.Timestamp); at.After(last) {
			last = at
		}
	}
	return last
}
