package sessions

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

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

// Verdict is what the reaper does with something on Fly.
type Verdict string

const (
	VerdictKeep   Verdict = "keep"
	VerdictStop   Verdict = "stop"   // it runs for nobody
	VerdictRemove Verdict = "remove" // it was left behind
)

// Holding is a machine or a volume on Fly that carries our mark.
type Holding struct {
	Machine string        `json:"machine,omitempty"` // its id; or else
	Volume  string        `json:"volume,omitempty"`
	Name    string        `json:"name"`
	State   string        `json:"state"`
	Session string        `json:"session,omitempty"` // as its marks say; of a volume as the record does
	Thread  Thread        `json:"thread,omitzero"`
	Owner   string        `json:"owner,omitempty"`
	Known   bool          `json:"known"` // a session has it on record
	Age     time.Duration `json:"age_ns"`
	// USD is what it has cost, by Fly's list prices: a machine's image since its creation, and those of its runs that Fly still tells of; or a volume.
	USD     float64 `json:"usd_estimate"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`

	s *Session // as much of it as it takes to stop or to destroy a machine; nil: that is not to be done
}

// Holdings is the account of all machines and volumes that carry our mark, and of what a sweep would do with each. Nothing is done.
func (sv *Service) Holdings(ctx context.Context, now time.Time) ([]Holding, error) {
	if err := sv.store.rdb.HGet(ctx, sv.store.memory(), "epoch").Err(); err != nil {
		if errors.Is(err, redis.Nil) {
			return nil, errors.New("Redis is new, or has lost its data: start the bot first, which rebuilds its sessions") //nolint:staticcheck // a name
		}
		return nil, fmt.Errorf("look whether Redis remembers: %w", err)
	}
	return sv.holdings(ctx, now)
}

// Sweep does what [Service.Holdings] says, at once.
func (sv *Service) Sweep(ctx context.Context, all []Holding) error {
	var err error
	for _, h := range all {
		err = errors.Join(err, sv.act(ctx, h))
	}
	return err
}

// sweep removes what carries our mark on Fly and no session knows: what a crash left behind, an answer that was
// lost, or a list that was not complete when a session was removed. A machine that runs for nobody is stopped.
//
// A list that came back empty proves nothing, ours included: a Redis that has lost its data must not cost anybody
// their work. So a machine goes only if its thread's record is there and knows nothing of it, or if it is an
// ephemeral one, or if it has been left alone for as long as any session may be; and a volume after the same
// rules. A machine whose lease is held belongs to somebody who is at work.
func (sv *Service) sweep(ctx context.Context, now time.Time) error {
	all, err := sv.holdings(ctx, now)
	for _, h := range all {
		if !h.Known {
			sv.nameUnknown(ctx, h)
		}
	}
	return errors.Join(err, sv.Sweep(ctx, all))
}

// nameUnknown tells the log once a day of something that no session has.
func (sv *Service) nameUnknown(ctx context.Context, h Holding) {
	if first, err := sv.store.Once(ctx, "unknown:"+h.Machine+h.Volume, 24*time.Hour); err != nil || !first {
		return
	}
	sv.log.WarnContext(ctx, "nobody's: no session has it on record", "machine", h.Machine, "volume", h.Volume, "name", h.Name, "state", h.State,
		"session", h.Session, "thread", h.Thread.Key(), "owner", h.Owner, "age", h.Age.Round(time.Minute), "usd", fmt.Sprintf("%.2f", h.USD),
		"verdict", h.Verdict, "why", h.Why)
}

// holdings judges all that carries our mark. What cannot be judged is kept, and is in the error.
func (sv *Service) holdings(ctx context.Context, now time.Time) ([]Holding, error) {
	m := sv.cfg.Machines
	// What Fly has is listed before what we know: a session is on record before anything is made for it.
	machines, machErr := m.managed(ctx)
	volumes, volErr := m.cfg.Fly.Volumes(ctx, m.cfg.App)
	err := errors.Join(machErr, ignoreNotFound(volErr))
	if len(machines)+len(volumes) == 0 {
		return nil, err
	}
	records, allErr := sv.store.All(ctx, "")
	err = errors.Join(err, allErr)
	threads := make(map[Thread]*Session, len(records))
	for i, s := range records {
		threads[s.Thread] = &records[i]
	}
	out := make([]Holding, 0, len(machines)+len(volumes))
	for _, mach := range machines {
		h, ours, judgeErr := sv.judgeMachine(ctx, mach, threads, now)
		if ours {
			out = append(out, h)
		}
		err = errors.Join(err, judgeErr)
	}
	owners := volumeOwners(records)
	for _, v := range volumes {
		if h, ours := sv.judgeVolume(v, machines, owners, now); ours {
			if allErr != nil && h.Verdict != VerdictKeep {
				h.Verdict, h.Why = VerdictKeep, "not all records can be read"
			}
			out = append(out, h)
		}
	}
	return out, err
}

// act does what was judged.
func (sv *Service) act(ctx context.Context, h Holding) error {
	switch {
	case h.Verdict == VerdictStop:
		if err := sv.rest(ctx, *h.s); err != nil {
			return fmt.Errorf("stop machine %s, which runs for nobody: %w", h.Machine, err)
		}
	case h.Verdict == VerdictRemove && h.Volume != "":
		sv.log.WarnContext(ctx, "volume left behind is removed", "volume", h.Volume, "name", h.Name)
		m := sv.cfg.Machines
		if err := m.cfg.Fly.DeleteVolume(ctx, m.cfg.App, h.Volume); err != nil {
			return fmt.Errorf("remove volume %s, which was left behind: %w", h.Volume, err)
		}
	case h.Verdict == VerdictRemove:
		return sv.removeLeft(ctx, *h.s)
	}
	return nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, fly.ErrNotFound) { // the app is not made yet
		return nil
	}
	return err
}

// judgeMachine says what is to happen to a machine; not ours: it does not carry all our marks, or its host does not tell them.
func (sv *Service) judgeMachine(ctx context.Context, mach fly.Machine, threads map[Thread]*Session, now time.Time) (h Holding, ours bool, err error) {
	s, ok := sv.sessionOf(mach)
	if !ok || mach.State == "destroyed" {
		return h, false, nil
	}
	h = Holding{
		Machine: mach.ID, Name: mach.Name, State: mach.State, Session: s.SessionID, Thread: s.Thread, Owner: mach.Config.Metadata[MetaOwner],
		Verdict: VerdictKeep,
	}
	if created, err := time.Parse(time.RFC3339, mach.CreatedAt); err == nil {
		h.Age = now.Sub(created)
	}
	h.USD = machineUSD(mach, h.Age, now)
	record := threads[s.Thread]
	if record == nil && s.Thread != (Thread{}) { // what has nothing on Fly any more is on record all the same
		if record, err = sv.store.Get(ctx, s.Thread); err != nil {
			h.Why = "its record cannot be read"
			return h, true, err
		}
	}
	h.Known = record != nil && record.knows(s)
	last := lastChange(mach)
	verdict, why := sv.sentence(mach, s, record, h.Known, last, now)
	if verdict != VerdictKeep && s.Thread != (Thread{}) {
		q, err := sv.cfg.Queue.Inspect(ctx, s.Thread.Key())
		if err != nil || len(q.Jobs) > 0 {
			h.Why = "something is queued or running in its thread"
			return h, true, err
		}
	}
	h.Verdict, h.Why = verdict, why
	if verdict != VerdictKeep { // of most it is not needed
		h.s = new(s)
	}
	return h, true, nil
}

// sentence is what is to happen to a machine that nothing uses.
func (sv *Service) sentence(mach fly.Machine, s Session, record *Session, known bool, last, now time.Time) (Verdict, string) {
	quiet := now.Sub(last)
	live := known && record.SessionID == s.SessionID && !record.Ended()
	if live {
		s = *record
	}
	forNobody := mach.State == "started" && !last.IsZero() && !sv.inUse(s, later(last, s.LastTurn), now)
	switch {
	case live && forNobody && s.MachineID == mach.ID:
		return VerdictStop, "it runs for nobody"
	case known && !live:
		return VerdictKeep, "its session has ended, and it is about to be removed"
	case known:
		return VerdictKeep, "its session has it on record"
	case last.IsZero():
		return VerdictKeep, "no session knows it, and nobody knows how old it is"
	case quiet >= sweepGrace && (s.Ephemeral || record != nil || sv.idle(quiet)):
		return VerdictRemove, "no session knows it"
	case forNobody && !s.Ephemeral:
		return VerdictStop, "no session knows it, and it runs"
	case s.Ephemeral || record != nil:
		return VerdictKeep, "no session knows it, and it has been quiet for less than " + sweepGrace.String()
	}
	return VerdictKeep, "no session knows it, nor its thread: it goes when it has been quiet for as long as any session may be"
}

// machineUSD is what a machine has cost: its image since its creation, and the runs that Fly tells of.
func machineUSD(mach fly.Machine, age time.Duration, now time.Time) float64 {
	usd := rootfsGB * fly.PriceRootfsGB * float64(age) / float64(fly.BillingMonth)
	if mach.Config.Guest != nil {
		for _, run := range mach.Runs(now) {
			usd += run.To.Sub(run.From).Seconds() * mach.Config.Guest.PricePerSecond()
		}
	}
	return usd
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

// volumeOwner is a session, live or not, that has a volume or may have one.
type volumeOwner struct {
	Session

	id, volume string // of the session, which may be an earlier one of the thread, and of its volume
}

// volumeOwners are they, by volume and by the name that their volume has.
func volumeOwners(records []Session) map[string]volumeOwner {
	out := map[string]volumeOwner{}
	for _, s := range records {
		for _, r := range append(s.remains(), Remains{SessionID: s.SessionID, VolumeID: s.VolumeID}) {
			o := volumeOwner{s, r.SessionID, r.VolumeID}
			out[volumeName(r.SessionID)] = o
			if r.VolumeID != "" {
				out[r.VolumeID] = o
			}
		}
	}
	return out
}

// judgeVolume says what is to happen to a volume; not ours: it has no name of ours.
func (sv *Service) judgeVolume(v fly.Volume, machines []fly.Machine, owners map[string]volumeOwner, now time.Time) (h Holding, ours bool) {
	if !ourVolume.MatchString(v.Name) || v.Dying() {
		return h, false
	}
	h = Holding{Volume: v.ID, Name: v.Name, State: v.State, Verdict: VerdictKeep}
	created, err := time.Parse(time.RFC3339, v.CreatedAt)
	if err == nil {
		h.Age = now.Sub(created)
		h.USD = float64(v.SizeGB) * fly.PriceVolumeGB * float64(h.Age) / float64(fly.BillingMonth)
	}
	owner, known := owners[v.ID]
	twin, named := owners[v.Name]
	adopted := named && twin.id == twin.SessionID && twin.volume == "" && !twin.Ended()
	h.Known = known || adopted
	if !known {
		owner = twin
	}
	if known || named {
		h.Session, h.Thread, h.Owner = owner.id, owner.Thread, owner.Owner
	} else if i := slices.IndexFunc(machines, func(mach fly.Machine) bool { return mach.ID == v.AttachedMachineID }); i >= 0 && machines[i].Config != nil {
		meta := machines[i].Config.Metadata
		h.Session, h.Owner = meta[MetaSession], meta[MetaOwner]
		h.Thread, _ = ParseThread(meta[MetaThread])
	}
	switch {
	case known:
		h.Why = "its session has it on record"
	case v.AttachedMachineID != "":
		h.Why = "it is in a machine, and goes with that"
	case adopted:
		h.Why = "its session takes it with its next turn"
	case err != nil:
		h.Why = "no session knows it, and nobody knows how old it is"
	case h.Age < sweepGrace:
		h.Why = "no session knows it, and it is younger than " + sweepGrace.String()
	case named:
		h.Verdict, h.Why = VerdictRemove, "its session has another one"
	case sv.idle(h.Age):
		h.Verdict, h.Why = VerdictRemove, "no session knows it"
	default:
		h.Why = "no session knows it: it goes when it is as old as any session may be quiet"
	}
	return h, true
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
