package sessions

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/fly"
	"flaudebot/runner"
)

// Redis may lose what it was told: everything, when it is replaced or starts without its file, or the last second, when its machine
// dies or a replica takes over. What no record tells any more is still on Fly and in Slack: machines carry the marks of their session
// and thread, messages those of their turn. So records are made anew from the first, and what was said lately is read again.

//go:embed pulse.lua
var pulseScript string

const (
	// lostBack is how far what was said is read back after Redis has lost its data.
	lostBack = 6 * time.Hour
	// lostFor is for how long that is done at every look.
	lostFor = time.Hour
)

func (st *store) memory() string { return st.prefix + "memory" }
func (st *store) lost() string   { return st.prefix + "lost" }

// pulse is what tells one Redis from another.
type pulse struct {
	epoch string // "": it has lost everything, or is new
	run   string // of the server; "" where that is not told
}

func (st *store) feel(ctx context.Context) (pulse, error) {
	got, err := st.pulse.Run(ctx, st.rdb, []string{st.memory()}).StringSlice()
	if err != nil {
		return pulse{}, fmt.Errorf("look whether Redis is the same: %w", err)
	}
	return pulse{epoch: got[0], run: got[1]}, nil
}

// watch looks now and then whether Redis is the one that it was, until ctx ends.
func (sv *Service) watch(ctx context.Context) {
	tick := time.NewTicker(sv.cfg.WatchEvery)
	defer tick.Stop()
	var was pulse
	for {
		now, err := sv.store.feel(ctx)
		switch {
		case err != nil: // who needs Redis says so
		case now.epoch == "":
			if err := sv.remember(ctx); err != nil && ctx.Err() == nil {
				sv.log.ErrorContext(ctx, "Redis has lost its data, and the sessions are not rebuilt yet", "err", err)
			}
		default:
			if was != (pulse{}) && now != was {
				sv.log.WarnContext(ctx, "Redis was restarted or replaced: what was said lately is read again")
				sv.cfg.Front.LookBack()
			}
			was = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// current is the thread's newest session, live or ended, from a Redis that holds a record of every session.
func (sv *Service) current(ctx context.Context, thread Thread) (*Session, error) {
	s, err := sv.store.Get(ctx, thread)
	if err != nil || s != nil {
		return s, err
	}
	if err := sv.remember(ctx); err != nil {
		return nil, err
	}
	return sv.store.Get(ctx, thread)
}

// rebuildSoon bounds how long [Service.soon] waits for Fly: Slack waits 3 s for an ack.
const rebuildSoon = 1500 * time.Millisecond

// soon is [Service.current] for who cannot wait: while Fly does not answer it is what Redis knows. What is taken for no session's then is
// found again when the sessions are rebuilt, since what was said is read again.
func (sv *Service) soon(ctx context.Context, thread Thread) (*Session, error) {
	s, err := sv.store.Get(ctx, thread)
	if err != nil || s != nil || time.Since(time.Unix(0, sv.failed.Load())) < sv.cfg.WatchEvery {
		return s, err
	}
	limit, cancel := context.WithTimeout(ctx, rebuildSoon)
	defer cancel()
	if err := sv.remember(limit); err != nil {
		var ofFly *fly.Error
		if ctx.Err() != nil || (limit.Err() == nil && !errors.As(err, &ofFly)) {
			return nil, err
		}
		sv.log.WarnContext(ctx, "no session is known before those that Redis has lost are rebuilt", "thread", thread.Key(), "err", err)
		return nil, nil
	}
	return sv.store.Get(ctx, thread)
}

// remember returns when Redis holds a record of every session: at once, unless it has lost them. Any number of replicas may do
// so at once.
func (sv *Service) remember(ctx context.Context) error {
	err := sv.store.rdb.HGet(ctx, sv.store.memory(), "epoch").Err()
	if !errors.Is(err, redis.Nil) {
		if err != nil {
			return fmt.Errorf("look whether Redis remembers: %w", err)
		}
		return nil
	}
	if sv.cfg.Machines == nil { // this one only looks at what is there
		sv.log.WarnContext(ctx, "Redis is new, or has lost its data: the bot rebuilds its sessions when it runs")
		return nil
	}
	n, err := sv.rebuild(ctx, time.Now())
	if err != nil {
		sv.failed.Store(time.Now().UnixNano())
		return fmt.Errorf("rebuild the sessions that Redis has lost: %w", err)
	}
	if _, err := sv.cfg.Queue.Check(ctx); err != nil {
		return err
	}
	first, err := sv.store.rdb.HSetNX(ctx, sv.store.memory(), "epoch", rand.Text()).Result()
	if err != nil {
		return fmt.Errorf("mark that Redis remembers: %w", err)
	}
	if first && n > 0 {
		sv.log.ErrorContext(ctx, "Redis had lost its data: sessions were rebuilt from their machines", "sessions", n)
		sv.cfg.Front.LookBack()
	}
	return nil
}

// rebuild writes a record for each session that has a machine and none, and returns how many machines of sessions there are.
func (sv *Service) rebuild(ctx context.Context, now time.Time) (int, error) {
	machines, err := sv.everyMachine(ctx)
	if err != nil {
		return 0, err
	}
	threads := map[Thread][]Session{}
	for _, mach := range machines {
		if s, ok := sv.rebuilt(mach); ok {
			threads[s.Thread] = append(threads[s.Thread], s)
		}
	}
	n := 0
	for _, all := range threads {
		slices.SortFunc(all, func(a, b Session) int {
			return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.MachineID, b.MachineID))
		})
		newest := all[0]
		for _, older := range all[1:] {
			newest.Left = append(newest.Left, older.remains()...)
		}
		if err := sv.store.Put(ctx, newest, 0); err != nil && !errors.Is(err, errStale) {
			return 0, err
		}
		if _, err := sv.store.Keep(ctx, newest.Thread, Kept{}, newest.spared(now, sv.cfg.IdleTTL), nil); err != nil {
			return 0, err
		}
		n++
	}
	if n == 0 {
		return 0, nil
	}
	since := fmt.Sprintf("%d.000000", now.Add(-lostBack).Unix())
	if err := sv.store.rdb.SetNX(ctx, sv.store.lost(), since, lostFor).Err(); err != nil {
		return 0, fmt.Errorf("note since when Redis remembers: %w", err)
	}
	return n, nil
}

// everyMachine lists the machines that carry our mark, those too that only their volume tells of: a list proves nothing by what it lacks.
func (sv *Service) everyMachine(ctx context.Context) ([]fly.Machine, error) {
	m := sv.cfg.Machines
	machines, err := m.managed(ctx)
	if err != nil {
		return nil, err
	}
	volumes, err := m.cfg.Fly.Volumes(ctx, m.cfg.App)
	if ignoreNotFound(err) != nil {
		return nil, err
	}
	for _, v := range volumes {
		if v.AttachedMachineID == "" || !ourVolume.MatchString(v.Name) ||
			slices.ContainsFunc(machines, func(mach fly.Machine) bool { return mach.ID == v.AttachedMachineID }) {
			continue
		}
		mach, err := m.cfg.Fly.Machine(ctx, m.cfg.App, v.AttachedMachineID)
		if ignoreNotFound(err) != nil {
			return nil, err
		}
		if mach != nil {
			machines = append(machines, *mach)
		}
	}
	return machines, nil
}

// rebuilt is as much of a session as its machine tells; false: it has none.
func (sv *Service) rebuilt(mach fly.Machine) (Session, bool) {
	s, ok := sv.sessionOf(mach)
	if !ok || s.Ephemeral || s.Thread == (Thread{}) || mach.State == "destroyed" || mach.State == "destroying" {
		return Session{}, false
	}
	m := sv.cfg.Machines
	s.Image = mach.Config.Image
	s.Region, s.Owner, s.TTLSeconds = mach.Region, mach.Config.Metadata[MetaOwner], int64(m.cfg.TTL/time.Second)
	s.CreatedAt, _ = time.Parse(time.RFC3339, mach.CreatedAt)
	s.LastTurn = lastChange(mach).UTC()
	for _, mount := range mach.Config.Mounts {
		if mount.Path == mountPath {
			s.VolumeID = mount.Volume
		}
	}
	// It may hold a conversation, and work that was never pushed.
	s.Handed, s.Unsure, s.State, s.Repos, s.Rebuilt = true, true, []runner.RepoState{}, m.defaultRepos(), true
	return s, true
}

// recall completes a rebuilt session by what its thread tells.
func (w *work) recall(ctx context.Context, s *Session) error {
	got, err := w.sv.cfg.Front.Recall(ctx, *s)
	if err != nil {
		return fmt.Errorf("ask the thread about its session: %w", err)
	}
	s.Turns, s.LastID, s.CostUSD = got.Turns, got.LastID, got.CostUSD
	s.Owner, s.About = cmp.Or(s.Owner, got.Owner), cmp.Or(s.About, got.About)
	if got.Turns == 0 {
		s.State = nil // no turn came to an end: it begins as any other
	}
	if !got.EndedAt.IsZero() {
		s.EndedAt, s.EndReason = got.EndedAt, EndByPerson
	}
	s.Rebuilt = false
	w.log.InfoContext(ctx, "session recalled", "session", s.SessionID, "turns", s.Turns, "ended", s.Ended())
	return w.save(ctx, *s)
}
