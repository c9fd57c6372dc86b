package sessions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"flaudebot/fly"
)

const (
	// restEvery is the time between two looks for machines that run for nobody, whichever replica takes them.
	restEvery = 5 * time.Minute
	// restGrace is for how long a machine may run with nothing queued or running in its thread, beside its linger.
	restGrace = 5 * time.Minute
)

// restNowAndThen stops machines that run for nobody if no replica has looked lately: a turn that was answered may not
// have reached its machine. What machines have run since they were metered is added up.
func (sv *Service) restNowAndThen(ctx context.Context, all []Session, now time.Time) error {
	all = slices.DeleteFunc(slices.Clone(all), func(s Session) bool {
		return s.MachineID == "" || s.Ended() || sv.inUse(s, s.LastTurn, now) && !s.meter().Runs
	})
	if len(all) == 0 {
		return nil
	}
	first, err := sv.store.Once(ctx, fmt.Sprintf("rest:%d", now.Unix()/int64(restEvery/time.Second)), 2*restEvery)
	if err != nil || !first {
		return err
	}
	m := sv.cfg.Machines
	machines, err := m.managed(ctx)
	if err != nil {
		return err
	}
	found := map[string]fly.Machine{}
	for _, mach := range machines {
		found[mach.ID] = mach
	}
	for _, s := range all {
		mach, ok := found[s.MachineID]
		if !ok || !s.owns(mach) {
			continue
		}
		if s.meter().Runs {
			err = errors.Join(err, sv.meterIdle(ctx, s, mach, now))
		}
		if mach.State != "started" || sv.inUse(s, s.LastTurn, now) || sv.inUse(s, lastChange(mach), now) {
			continue
		}
		if restErr := sv.rest(ctx, s); restErr != nil {
			err = errors.Join(err, fmt.Errorf("stop machine %s, which runs for nobody: %w", s.MachineID, restErr))
		}
	}
	return err
}

// inUse reports whether a machine to which something happened last then may still run for somebody, or lingers.
func (sv *Service) inUse(s Session, last, now time.Time) bool {
	return now.Sub(last) < sv.cfg.Machines.linger(s)+restGrace
}

// rest stops the session's machine if its thread is idle. The machine's lease is taken before the thread is looked at: a
// turn holds it while it runs, and one that comes in between waits for it, and starts the machine again.
func (sv *Service) rest(ctx context.Context, s Session) error {
	m := sv.cfg.Machines
	lease, err := m.cfg.Fly.AcquireLease(ctx, s.AppName, s.MachineID, m.cfg.LeaseTTL, "flaudebot reaper")
	if errors.Is(err, fly.ErrLeaseHeld) || errors.Is(err, fly.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		free := context.WithoutCancel(ctx)
		if err := m.cfg.Fly.ReleaseLease(free, s.AppName, s.MachineID, lease.Nonce); err != nil {
			m.log.DebugContext(free, "lease not released", "machine", s.MachineID, "err", err)
		}
	}()
	if q, err := sv.cfg.Queue.Inspect(ctx, s.Thread.Key()); err != nil || len(q.Jobs) > 0 {
		return err
	}
	sv.log.WarnContext(ctx, "machine that runs for nobody is stopped", "machine", s.MachineID, "session", s.SessionID)
	return ignoreNotFound(m.sleep(ctx, s, lease.Nonce, false))
}
