package sessions

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"flaudebot/fly"
)

// What sessions cost is added up in one hash a month: fb:{sessions}:costs:2026-11, whose fields are "thread session person what". What it holds
// is what was used: dollars of the model, turns, seconds of a machine by its size, GB-days of a volume and of a machine's image. What that costs
// at Fly is worked out from its price list when it is asked for. Months end in UTC.
//
//   - The model's cost comes with a turn's outcome, and is added once for each turn, whoever settles it how often.
//   - A machine's time is read off its events, which the bot gets anyway: with each turn, and by the reaper as long as the machine ran when it
//     was looked at last. The meter in the session's hash says up to when it is added.
//   - The disk of a live session follows from its age, so nothing is written for it before it ends.

//go:embed charge.lua
var chargeScript string

const (
	costsFor   = 400 * 24 * time.Hour // how long a month is kept after its last change
	chargedFor = 30 * 24 * time.Hour  // how long it is known that something was added: far longer than any turn waits
	// rootfsGB is what a machine's image is taken to have, in GB: Fly does not tell.
	rootfsGB = 1

	usedModel, usedTurns, usedRun, usedVolume, usedRootfs = "model", "turns", "run:", "volume", "rootfs"
)

// Meter says up to when the time of a session's machine is added up.
type Meter struct {
	Session string `json:"session"` // the one that is meant: the thread may have another by now
	UpTo    int64  `json:"up_to"`   // unix ms
	Who     string `json:"who"`     // whose turn was the last: what runs after it is theirs
	Runs    bool   `json:"runs"`    // the machine ran then: there is more to come
}

// meter is what the session's own machine was metered up to.
func (s Session) meter() Meter {
	if s.Meter.Session != s.SessionID {
		return Meter{Session: s.SessionID, Who: s.Owner}
	}
	return s.Meter
}

// bill is what is to be added up: month → field → how much.
type bill map[string]map[string]float64

func (b bill) add(month string, s Session, who, what string, n float64) {
	if n <= 0 {
		return
	}
	if b[month] == nil {
		b[month] = map[string]float64{}
	}
	b[month][strings.Join([]string{s.Thread.Key(), s.SessionID, cmp.Or(who, "-"), what}, " ")] += n
}

// over adds something that goes on over a time, each month its share.
func (b bill) over(span fly.Span, s Session, who, what string, n func(time.Duration) float64) {
	for from := span.From.UTC(); from.Before(span.To); {
		next := time.Date(from.Year(), from.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		to := span.To
		if next.Before(to) {
			to = next
		}
		b.add(CostMonth(from), s, who, what, n(to.Sub(from)))
		from = to
	}
}

// runs adds what of a machine's runs lies between two times.
func (b bill) runs(spans []fly.Span, from, to time.Time, s Session, who string, guest Guest) {
	for _, span := range spans {
		b.over(fly.Span{From: later(span.From, from), To: earlier(span.To, to)}, s, who, usedRun+GuestText(guest), time.Duration.Seconds)
	}
}

// disk adds what a session has had on disk at Fly up to a time.
func (b bill) disk(s Session, to time.Time) {
	span := fly.Span{From: s.CreatedAt, To: to}
	days := func(gb int) func(time.Duration) float64 {
		return func(d time.Duration) float64 { return float64(gb) * d.Hours() / 24 }
	}
	if s.VolumeID != "" {
		b.over(span, s, s.Owner, usedVolume, days(max(s.VolumeGB, 1)))
	}
	if s.MachineID != "" {
		b.over(span, s, s.Owner, usedRootfs, days(rootfsGB))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (st *store) costs(month string) string { return st.prefix + "costs:" + month }

// errMetered says that somebody else has metered the session meanwhile.
var errMetered = errors.New("somebody else has metered this session")

// Charge adds a bill, once for each mark unless that is "", and has the session metered up to where next says; nil: it stays as it is. With it goes an
// entry of the audit record, unless that is there; nil: none.
func (st *store) Charge(ctx context.Context, mark string, s Session, next *Meter, b bill, e *Entry) error {
	was, now := "", ""
	if next != nil {
		raw, err := json.Marshal(next)
		if err != nil {
			return fmt.Errorf("encode the meter of session %s: %w", s.SessionID, err)
		}
		now = string(raw)
		if s.Meter != (Meter{}) {
			if raw, err = json.Marshal(s.Meter); err != nil {
				return fmt.Errorf("encode the meter of session %s: %w", s.SessionID, err)
			}
			was = string(raw)
		}
	}
	sums := map[string]map[string]float64{}
	for month, fields := range b {
		sums[st.costs(month)] = fields
	}
	done, err := st.addUp(ctx, mark, s.Thread, was, now, costsFor, sums, e)
	switch {
	case err != nil:
		return fmt.Errorf("add up what session %s costs: %w", s.SessionID, err)
	case done < 0:
		return errMetered
	case done > 0:
		st.charged(b.cost())
	}
	return nil
}

// addUp runs charge.lua: it adds sums (key of a hash → field → how much) to hashes that stay for so long, once for each mark unless that is "", and has
// the meter of a thread's session go from was to now, "": it is not touched. 1: done; 0: it was before; -1: the meter says something else.
func (st *store) addUp(ctx context.Context, mark string, t Thread, was, now string, stay time.Duration, sums map[string]map[string]float64, e *Entry) (int, error) {
	entry, entryID := "", ""
	if e != nil {
		var err error
		if entry, err = encodeEntry(*e); err != nil {
			return 0, err
		}
		entryID = e.ID
	}
	stays := int(chargedFor.Seconds())
	if mark == "" {
		stays = 0
	}
	keys := []string{st.prefix + "once:" + mark, st.session(t), st.audited(entryID), st.audit()}
	args := []any{stays, was, now, int(stay.Seconds()), entry, int(auditedFor.Seconds()), st.minID()}
	for key, fields := range sums {
		keys = append(keys, key)
		for field, n := range fields {
			args = append(args, len(keys), field, strconv.FormatFloat(n, 'f', -1, 64))
		}
	}
	return st.charge.Run(ctx, st.rdb, keys, args...).Int()
}

// charge adds up what a turn has cost, once, however often it is settled.
func (w *work) charge(ctx context.Context, s Session, out *Outcome) error {
	mark := "charged:" + string(w.turn.ID)
	if w.turn.isWork() {
		budgets, err := w.spend(ctx, out.CostUSD)
		if err != nil {
			return err
		}
		out.Budget = w.standing(*out, budgets)
	}
	now := time.Now()
	entry := w.ended(s, *out)
	return w.sv.metered(ctx, s, func(s Session) error {
		b := bill{}
		if w.turn.isWork() {
			if w.started() {
				b.add(CostMonth(now), s, w.turn.User, usedTurns, 1)
			}
			b.add(CostMonth(now), s, w.turn.User, usedModel, out.CostUSD)
		}
		spans, upTo, guest := w.ran(s, *out, now)
		m := s.meter()
		from := time.UnixMilli(m.UpTo)
		b.runs(spans, from, w.note.Claimed, s, m.Who, guest) // what lingered since the turn before
		b.runs(spans, later(from, w.note.Claimed), now, s, w.turn.User, guest)
		if s.Ephemeral { // it has no record, and this is its only turn
			return w.sv.store.Charge(ctx, mark, s, nil, b, &entry)
		}
		if !upTo.IsZero() {
			m.UpTo = max(m.UpTo, upTo.UnixMilli())
		}
		m.Who, m.Runs = w.turn.User, s.MachineID != ""
		return w.sv.store.Charge(ctx, mark, s, &m, b, &entry)
	})
}

// ran is when the machine ran, as Fly told when it was woken, and up to when that tells all; zero: it tells nothing. Where Fly told nothing it is
// the turn's own time.
func (w *work) ran(s Session, out Outcome, now time.Time) (spans []fly.Span, upTo time.Time, guest Guest) {
	guest = w.sv.cfg.Machines.guestOn(s, w.machine)
	if w.machine != nil {
		spans = w.machine.Runs(now)
		switch {
		case isAtRest(w.machine) && !s.Ephemeral: // the turn's own run began later, and is told later
			if len(spans) > 0 {
				upTo = spans[len(spans)-1].To
			}
			return spans, upTo, guest
		case len(spans) > 0:
			return spans, now, guest
		}
	}
	if w.started() && s.MachineID != "" {
		return []fly.Span{{From: out.StartedAt, To: out.EndedAt}}, now, guest
	}
	return nil, time.Time{}, guest
}

// guestOn is the size of a machine as Fly tells it; nil, or where it does not: what the session's is to be.
func (m *Machines) guestOn(s Session, mach *fly.Machine) Guest {
	if mach != nil && mach.Config != nil && mach.Config.Guest != nil {
		return *mach.Config.Guest
	}
	return m.guest(s)
}

// metered does what reads a session's meter, again when somebody else has metered it meanwhile.
func (sv *Service) metered(ctx context.Context, s Session, do func(Session) error) error {
	for range 10 {
		if !s.Ephemeral {
			stored, err := sv.store.Get(ctx, s.Thread)
			if err != nil {
				return err
			}
			if stored != nil {
				s.Meter = stored.Meter
			}
		}
		if err := do(s); !errors.Is(err, errMetered) {
			return err
		}
	}
	return errMetered
}

// meterMachine adds up what a session's machine has run since it was looked at last.
func (sv *Service) meterMachine(ctx context.Context, s Session, mach fly.Machine, now time.Time) error {
	return sv.metered(ctx, s, func(s Session) error {
		m := s.meter()
		spans := mach.Runs(now)
		b := bill{}
		b.runs(spans, time.UnixMilli(m.UpTo), now, s, m.Who, sv.cfg.Machines.guestOn(s, &mach))
		if len(spans) > 0 {
			m.UpTo = max(m.UpTo, spans[len(spans)-1].To.UnixMilli())
		}
		m.Runs = mach.State != "stopped" && mach.State != "suspended" && mach.State != "destroyed"
		return sv.store.Charge(ctx, "", s, &m, b, nil)
	})
}

// meterIdle does so unless a turn is at work, which does it when it ends, and then knows whose it is.
func (sv *Service) meterIdle(ctx context.Context, s Session, mach fly.Machine, now time.Time) error {
	if q, err := sv.cfg.Queue.Inspect(ctx, s.Thread.Key()); err != nil || len(q.Jobs) > 0 {
		return err
	}
	return sv.meterMachine(ctx, s, mach, now)
}

// chargeEnd adds up what a session has cost that ends: the rest of its machine's time, and its disk. With that goes the entry of its end.
func (sv *Service) chargeEnd(ctx context.Context, s Session, e *Entry) error {
	if s.meter().Runs && s.MachineID != "" {
		mach, err := sv.cfg.Machines.cfg.Fly.Machine(ctx, s.AppName, s.MachineID)
		if err == nil {
			err = sv.meterMachine(ctx, s, *mach, s.EndedAt)
		}
		if err != nil {
			sv.log.WarnContext(ctx, "the last run of a machine is not added up", "machine", s.MachineID, "session", s.SessionID, "err", err)
		}
	}
	b := bill{}
	b.disk(s, s.EndedAt)
	return sv.store.Charge(ctx, "disk:"+s.SessionID, s, nil, b, e)
}

// Cost is what a person's turns in a session have cost in a month. The model's cost is what Claude Code reports; what Fly charges is an estimate,
// by its list prices.
type Cost struct {
	Thread  Thread `json:"thread,omitzero"`
	Session string `json:"session,omitempty"`
	Person  string `json:"person,omitempty"` // Slack user who asked; of the disk: who started the session

	Turns          int     `json:"turns"`
	ModelUSD       float64 `json:"model_usd"`
	MachineSeconds float64 `json:"machine_seconds"`
	MachineUSD     float64 `json:"machine_usd_estimate"`
	DiskGBDays     float64 `json:"disk_gb_days"` // of the volume
	DiskUSD        float64 `json:"disk_usd_estimate"`
	TotalUSD       float64 `json:"total_usd_estimate"`
}

func (c *Cost) add(o Cost) {
	c.Turns += o.Turns
	c.ModelUSD += o.ModelUSD
	c.MachineSeconds += o.MachineSeconds
	c.MachineUSD += o.MachineUSD
	c.DiskGBDays += o.DiskGBDays
	c.DiskUSD += o.DiskUSD
	c.TotalUSD += o.TotalUSD
}

// use adds something that was used, at its price.
func (c *Cost) use(what string, n float64) {
	const month = float64(fly.BillingMonth / (24 * time.Hour)) // days
	var one Cost
	switch {
	case what == usedTurns:
		one.Turns = int(n)
	case what == usedModel:
		one.ModelUSD = n
	case what == usedVolume:
		one.DiskGBDays, one.DiskUSD = n, n*fly.PriceVolumeGB/month
	case what == usedRootfs:
		one.DiskUSD = n * fly.PriceRootfsGB / month
	case strings.HasPrefix(what, usedRun):
		one.MachineSeconds = n
		if guest, err := ParseGuest(strings.TrimPrefix(what, usedRun)); err == nil {
			one.MachineUSD = n * guest.PricePerSecond()
		}
	}
	one.TotalUSD = one.ModelUSD + one.MachineUSD + one.DiskUSD
	c.add(one)
}

// CostBy is what costs are added up by.
type CostBy string

const (
	CostBySession CostBy = "session"
	CostByChannel CostBy = "channel"
	CostByPerson  CostBy = "person"
)

// SumCosts adds costs up, the highest first. What they are not added up by is left empty.
func SumCosts(costs []Cost, by CostBy) []Cost {
	sums := map[Cost]*Cost{}
	for _, c := range costs {
		var key Cost
		switch by {
		case CostBySession:
			key.Thread, key.Session = c.Thread, c.Session
		case CostByChannel:
			key.Thread = Thread{Team: c.Thread.Team, Channel: c.Thread.Channel}
		case CostByPerson:
			key.Person = c.Person
		}
		if sums[key] == nil {
			sums[key] = new(key)
		}
		sums[key].add(c)
	}
	out := make([]Cost, 0, len(sums))
	for _, c := range sums {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Cost) int {
		return cmp.Or(cmp.Compare(b.TotalUSD, a.TotalUSD), strings.Compare(a.Thread.Key()+a.Session+a.Person, b.Thread.Key()+b.Session+b.Person))
	})
	return out
}

// CostMonth is the month of a time, as [Service.Costs] takes it: "2026-11".
func CostMonth(t time.Time) string { return t.UTC().Format("2006-01") }

// ParseMonth returns when a month began, and when the next one does.
func ParseMonth(month string) (from, to time.Time, err error) {
	from, err = time.Parse("2006-01", month)
	if err != nil {
		return from, to, fmt.Errorf("%q is no month: want one such as 2026-11", month)
	}
	return from, from.AddDate(0, 1, 0), nil
}

// Costs returns what each person's turns in each session have cost in a month ("2026-11", in UTC), of one team, or of all if team is empty. The
// disk of live sessions is counted up to now, a machine's time up to its last turn, or up to some minutes ago.
func (sv *Service) Costs(ctx context.Context, team, month string, now time.Time) ([]Cost, error) {
	from, to, err := ParseMonth(month)
	if err != nil {
		return nil, err
	}
	used, err := sv.store.rdb.HGetAll(ctx, sv.store.costs(month)).Result()
	if err != nil {
		return nil, fmt.Errorf("read the costs of %s: %w", month, err)
	}
	live, err := sv.store.All(ctx, "")
	if err != nil && !errors.Is(err, errUnreadable) {
		return nil, err
	}
	rows := map[Cost]*Cost{}
	use := func(field string, n float64) {
		p := strings.Split(field, " ")
		thread, ok := ParseThread(p[0])
		if !ok || len(p) != 4 || team != "" && thread.Team != team {
			return
		}
		key := Cost{Thread: thread, Session: p[1], Person: p[2]}
		if rows[key] == nil {
			rows[key] = new(key)
		}
		rows[key].use(p[3], n)
	}
	for field, text := range used {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("read the costs of %s: %s: %w", month, field, err)
		}
		use(field, n)
	}
	for _, s := range live {
		if s.Ended() { // its disk was added up
			continue
		}
		b := bill{}
		s.CreatedAt = later(s.CreatedAt, from)
		b.disk(s, earlier(now, to))
		for field, n := range b[month] {
			use(field, n)
		}
	}
	out := make([]Cost, 0, len(rows))
	for _, c := range rows {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Cost) int {
		return cmp.Or(strings.Compare(a.Thread.Key(), b.Thread.Key()), strings.Compare(a.Session, b.Session), strings.Compare(a.Person, b.Person))
	})
	return out, nil
}
