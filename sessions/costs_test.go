package sessions

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// total is what all of a month has cost so far.
func (r *replica) total(now time.Time) Cost {
	r.t.Helper()
	all, err := r.Costs(r.t.Context(), "", CostMonth(now), now)
	if err != nil {
		r.t.Fatal(err)
	}
	var sum Cost
	for _, c := range all {
		sum.add(c)
	}
	return sum
}

func near(got, want, off float64) bool { return math.Abs(got-want) <= off }

// stuckFront never posts an answer: it says when it was to.
type stuckFront struct {
	*fakeFront
	asked chan struct{}
}

func (f stuckFront) Finish(ctx context.Context, _ Session, _ Turn, _ string, _ Outcome, _ bool) error {
	close(f.asked)
	<-ctx.Done()
	return ctx.Err()
}

// TestCharge: what a turn costs is added up once, whoever settles it how often, and its machine's time as Fly tells it.
func TestCharge(t *testing.T) {
	t.Parallel()
	t.Run("a turn is charged with its model and with its machine's time", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.answered(r, r.accept(turn("102", "two", false)))
		s := r.session()
		b.until("a stopped machine", func() bool { return b.stateOf(s) == "stopped" })
		b.reap(r, time.Now())
		mach, err := b.fly.Machine(t.Context(), testApp, s.MachineID)
		if err != nil {
			t.Fatal(err)
		}
		ran := 0.0
		for _, run := range mach.Runs(time.Now()) {
			ran += run.To.Sub(run.From).Seconds()
		}
		got := r.total(time.Now())
		if got.Turns != 2 || !near(got.ModelUSD, 1, 1e-9) || !near(got.MachineSeconds, ran, 0.01) || ran == 0 {
			t.Errorf("Costs = %+v, want 2 turns, $1 and %f s", got, ran)
		}
		if !near(got.MachineUSD, ran*r.cfg.Machines.cfg.Guest.PricePerSecond(), 1e-6) {
			t.Errorf("the machine costs $%f", got.MachineUSD)
		}
		if ttl := b.mini.TTL(r.store.costs(CostMonth(time.Now()))); ttl != costsFor {
			t.Errorf("the month is kept for %s, want %s", ttl, costsFor)
		}
		b.reap(r, time.Now().Add(time.Hour))
		if again := r.total(time.Now()); again.MachineSeconds != got.MachineSeconds || again.ModelUSD != got.ModelUSD {
			t.Errorf("looked at again they are %+v, want %+v", again, got)
		}
	})
	t.Run("one that is settled again after a crash is charged once", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		asked := make(chan struct{})
		first := b.replica(func(sv *ServiceConfig, _ *MachinesConfig) { sv.Front = stuckFront{b.front, asked} }).start()
		one := first.accept(turn("101", "one", true))
		<-asked // it is charged, and not posted
		first.stop()
		if got := first.total(time.Now()); got.Turns != 1 || got.ModelUSD != 0.5 {
			t.Fatalf("Costs = %+v: the test shows nothing", got)
		}
		second := b.replica(nil).start()
		b.answered(second, one)
		if got := second.total(time.Now()); got.Turns != 1 || got.ModelUSD != 0.5 {
			t.Errorf("Costs = %+v, want one turn", got)
		}
	})
	t.Run("an ephemeral run is charged, and leaves no meter", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		once := turn("101", "one", true)
		once.Kind = KindOnce
		b.answered(r, r.accept(once))
		if got := r.total(time.Now()); got.Turns != 1 || got.ModelUSD != 0.5 || got.MachineSeconds <= 0 || got.DiskGBDays != 0 {
			t.Errorf("Costs = %+v", got)
		}
		if b.mini.Exists(r.store.session(thread())) {
			t.Error("it left a record")
		}
	})
	t.Run("Redis that is away puts the turn off, and nothing is lost", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		w := work{sv: r.Service, turn: turn("101", "one", true), log: r.log}
		b.mini.SetError("LOADING")
		err := w.charge(t.Context(), Session{SessionID: "s1", Thread: thread()}, &Outcome{})
		b.mini.SetError("")
		if err == nil {
			t.Error("charge = nil, want that it was not added up")
		}
	})
}

// metering is a session, and what Fly tells of its machine: it was started and stopped so many seconds ago.
type metering struct {
	*replica
	s    Session
	mach fly.Machine
}

func (b *bot) metering(ago ...int) *metering {
	now := time.Now()
	m := &metering{replica: b.replica(nil), mach: fly.Machine{ID: "m1", State: "stopped"}}
	m.s = m.record(Session{SessionID: "s1", Thread: thread(), Owner: "U1", MachineID: "m1", Guest: Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 1024}, CreatedAt: now})
	for i, s := range ago {
		e := fly.Event{Type: "start", Status: "started", Timestamp: now.Add(-time.Duration(s) * time.Second).UnixMilli()}
		m.mach.State = "started"
		if i%2 == 1 {
			e.Type, e.Status, m.mach.State = "exit", "stopped", "stopped"
		}
		m.mach.Events = append([]fly.Event{e}, m.mach.Events...)
	}
	return m
}

// ends has somebody's turn end now that was claimed so many seconds ago.
func (m *metering) ends(id, who string, claimed int, mach *fly.Machine) {
	m.t.Helper()
	w := &work{sv: m.Service, turn: turn(id, "x", true), log: m.log, machine: mach, stage: StageStarted}
	w.turn.User, w.note.Claimed = who, time.Now().Add(-time.Duration(claimed)*time.Second)
	out := Outcome{Outcome: runner.Outcome{StartedAt: w.note.Claimed, EndedAt: time.Now()}}
	if err := w.charge(m.t.Context(), m.s, &out); err != nil {
		m.t.Fatal(err)
	}
}

// seconds are those of each person.
func (m *metering) seconds() map[string]float64 {
	m.t.Helper()
	all, err := m.Costs(m.t.Context(), "", CostMonth(time.Now()), time.Now())
	if err != nil {
		m.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, c := range SumCosts(all, CostByPerson) {
		out[c.Person] = c.MachineSeconds
	}
	return out
}

// TestMeter: each second of a machine is somebody's, and is counted once.
func TestMeter(t *testing.T) {
	t.Parallel()
	if now := time.Now().UTC(); now.Day() == 1 && now.Hour() == 0 {
		t.Skip("its times would lie in two months")
	}
	const off = 8.0 // seconds that this test may take; what it tells apart lies 10 and more apart
	check := func(t *testing.T, m *metering, want map[string]float64) {
		t.Helper()
		got := m.seconds()
		for who, s := range want {
			if !near(got[who], s, off) {
				t.Errorf("%s has %.1f s, want %.1f: %v", who, got[who], s, got)
			}
		}
		for who, s := range got {
			if !near(s, want[who], off) {
				t.Errorf("%s has %.1f s, want %.1f", who, s, want[who])
			}
		}
	}
	t.Run("a boot and the turn are whose turn it is", func(t *testing.T) {
		t.Parallel()
		m := newBot(t).metering(100)
		m.ends("101", "U1", 110, &m.mach)
		check(t, m, map[string]float64{"U1": 100})
	})
	t.Run("what lingers is whose turn was before", func(t *testing.T) {
		t.Parallel()
		m := newBot(t).metering(100)
		m.ends("101", "U1", 110, &m.mach)
		warm := m.mach
		warm.Events = append([]fly.Event(nil), m.mach.Events...)
		// As if that had been a minute ago, and another's turn had been claimed half a minute later.
		s, err := m.store.Get(t.Context(), thread())
		if err != nil {
			t.Fatal(err)
		}
		back := s.Meter
		back.UpTo -= 60_000
		if err := m.store.Charge(t.Context(), "", *s, &back, nil, nil); err != nil {
			t.Fatal(err)
		}
		m.ends("102", "U2", 30, &warm)
		check(t, m, map[string]float64{"U1": 130, "U2": 30})
	})
	t.Run("the tail of a run before is whose turn that was", func(t *testing.T) {
		t.Parallel()
		m := newBot(t).metering(500, 400, 100)
		old := m.mach
		old.Events = m.mach.Events[2:]
		m.ends("101", "U1", 10, &fly.Machine{}) // Fly told nothing of it: the turn's own time
		check(t, m, map[string]float64{"U1": 10})
		if err := m.meterMachine(t.Context(), m.s, old, time.Now()); err != nil {
			t.Fatal(err)
		}
		check(t, m, map[string]float64{"U1": 10}) // it lies before what is metered
	})
	t.Run("the reaper counts what ran on after the last turn, once, also in two replicas", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		m := b.metering(100)
		m.ends("101", "U2", 100, &m.mach)
		other := b.replica(nil)
		gone := m.mach
		gone.State = "stopped"
		gone.Events = append([]fly.Event{{Type: "exit", Status: "stopped", Timestamp: time.Now().Add(50 * time.Second).UnixMilli()}}, m.mach.Events...)
		for _, r := range []*replica{m.replica, other, m.replica} {
			if err := r.meterMachine(t.Context(), m.s, gone, time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		check(t, m, map[string]float64{"U2": 150})
		if s := m.session(); s.Meter.Runs {
			t.Errorf("the meter says %+v, want that it does not run", s.Meter)
		}
	})
	t.Run("a machine that was at rest when the turn came has run for the turns before it, and for this one when that is told", func(t *testing.T) {
		t.Parallel()
		m := newBot(t).metering(500, 400, 50, 10)
		m.s.Owner = "U1"
		rest := fly.Machine{State: "stopped", Events: m.mach.Events[2:]} // before the turn
		m.ends("101", "U2", 60, &rest)
		check(t, m, map[string]float64{"U1": 100})
		if err := m.meterMachine(t.Context(), m.s, m.mach, time.Now()); err != nil {
			t.Fatal(err)
		}
		check(t, m, map[string]float64{"U1": 100, "U2": 40})
	})
	t.Run("of two who have read the same meter only one counts", func(t *testing.T) {
		t.Parallel()
		m := newBot(t).metering(100, 50)
		stale := m.s
		if err := m.meterMachine(t.Context(), m.s, m.mach, time.Now()); err != nil {
			t.Fatal(err)
		}
		b := bill{}
		b.runs(m.mach.Runs(time.Now()), time.Time{}, time.Now(), stale, "U1", stale.Guest)
		if err := m.store.Charge(t.Context(), "", stale, &Meter{Session: "s1", UpTo: 1}, b, nil); !errors.Is(err, errMetered) {
			t.Errorf("Charge = %v, want that somebody else has metered it", err)
		}
		check(t, m, map[string]float64{"U1": 50})
	})
	t.Run("the meter of another session of the thread does not count", func(t *testing.T) {
		t.Parallel()
		m := newBot(t).metering(100, 50)
		if err := m.store.Charge(t.Context(), "", m.s, &Meter{Session: "s0", UpTo: time.Now().UnixMilli(), Who: "U9"}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := m.meterMachine(t.Context(), m.s, m.mach, time.Now()); err != nil {
			t.Fatal(err)
		}
		check(t, m, map[string]float64{"U1": 50})
	})
	t.Run("an end counts what the machine ran after its last turn", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = 600 }).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		s := r.session()
		before := r.total(time.Now()).MachineSeconds
		s.EndedAt = time.Now().Add(time.Minute)
		if err := r.chargeEnd(t.Context(), *s, nil); err != nil {
			t.Fatal(err)
		}
		if after := r.total(time.Now()).MachineSeconds; !near(after-before, 60, off) {
			t.Errorf("it adds %.1f s to %.1f, want the minute", after-before, before)
		}
	})
	t.Run("not while a turn is queued or running: that will", func(t *testing.T) {
		t.Parallel()
		m := newBot(t).metering(100)
		m.accept(turn("102", "waits", false))
		if err := m.meterIdle(t.Context(), m.s, m.mach, time.Now()); err != nil {
			t.Fatal(err)
		}
		check(t, m, map[string]float64{})
	})
}

// TestCosts: what was used is added up by session, channel, person and month, at Fly's prices.
func TestCosts(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		out, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Run("each month has its share", func(t *testing.T) {
		t.Parallel()
		b := bill{}
		s := Session{SessionID: "s1", Thread: thread()}
		b.runs([]fly.Span{{From: at("2026-10-31T23:59:00Z"), To: at("2026-12-01T00:00:30Z")}}, time.Time{}, at("2027-01-01T00:00:00Z"), s, "U1", Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 256})
		field := "T1:C1:100.000001 s1 U1 run:shared-1x:256"
		for month, want := range map[string]float64{"2026-10": 60, "2026-11": 30 * 86400, "2026-12": 30} {
			if got := b[month][field]; got != want {
				t.Errorf("%s has %f s, want %f", month, got, want)
			}
		}
	})
	t.Run("the disk of a live session follows from its age", func(t *testing.T) {
		t.Parallel()
		r := newBot(t).replica(nil)
		r.record(Session{SessionID: "s1", Thread: thread(), Owner: "U1", MachineID: "m1", VolumeID: "v1", VolumeGB: 3, CreatedAt: at("2026-10-22T00:00:00Z")})
		now := at("2026-11-16T00:00:00Z")
		for month, days := range map[string]float64{"2026-09": 0, "2026-10": 10, "2026-11": 15, "2026-12": 0} {
			all, err := r.Costs(t.Context(), "T1", month, now)
			if err != nil {
				t.Fatal(err)
			}
			var sum Cost
			for _, c := range all {
				sum.add(c)
			}
			// 0.15 a month for each of 3 GB of volume and 1 GB of image
			if !near(sum.DiskGBDays, 3*days, 1e-6) || !near(sum.DiskUSD, 4*0.15*days/30, 1e-6) {
				t.Errorf("%s has %f GB-days for $%f, want those of %f days", month, sum.DiskGBDays, sum.DiskUSD, days)
			}
		}
		ended := Session{SessionID: "s2", Thread: Thread{"T1", "C1", "200.000001"}, MachineID: "m2", VolumeID: "v2", CreatedAt: at("2026-10-22T00:00:00Z"), EndedAt: now}
		r.record(ended) // it is not removed yet, and was added up
		if all, err := r.Costs(t.Context(), "T1", "2026-10", now); err != nil || len(all) != 1 {
			t.Errorf("with one that has ended: %v, %v", all, err)
		}
		if all, err := r.Costs(t.Context(), "T2", "2026-10", now); err != nil || len(all) != 0 {
			t.Errorf("another team has %v, %v", all, err)
		}
	})
	t.Run("that of one that ended is added up once, for as long as it was", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		b.until("the end", func() bool { return len(b.front.goodbyes()) == 1 })
		b.idle(r)
		s := r.session()
		for range 2 {
			s.VolumeID, s.MachineID = "v1", "m1" // as an end is repeated that could not remove all
			if err := r.chargeEnd(t.Context(), *s, nil); err != nil {
				t.Fatal(err)
			}
		}
		want := s.EndedAt.Sub(s.CreatedAt).Hours() / 24
		if got := r.total(time.Now().Add(time.Hour)); !near(got.DiskGBDays, want, 1e-9) || want == 0 {
			t.Errorf("it has %f GB-days, want %f", got.DiskGBDays, want)
		}
	})
	t.Run("they are added up, the highest first", func(t *testing.T) {
		t.Parallel()
		one, two := Thread{"T1", "C1", "1.0"}, Thread{"T1", "C2", "2.0"}
		all := []Cost{
			{Thread: one, Session: "s1", Person: "U1", Turns: 1, TotalUSD: 1},
			{Thread: one, Session: "s1", Person: "U2", Turns: 2, TotalUSD: 2},
			{Thread: two, Session: "s2", Person: "U1", Turns: 4, TotalUSD: 4},
		}
		for by, want := range map[CostBy][]Cost{
			CostBySession: {{Thread: two, Session: "s2", Turns: 4, TotalUSD: 4}, {Thread: one, Session: "s1", Turns: 3, TotalUSD: 3}},
			CostByChannel: {{Thread: Thread{"T1", "C2", ""}, Turns: 4, TotalUSD: 4}, {Thread: Thread{"T1", "C1", ""}, Turns: 3, TotalUSD: 3}},
			CostByPerson:  {{Person: "U1", Turns: 5, TotalUSD: 5}, {Person: "U2", Turns: 2, TotalUSD: 2}},
		} {
			got := SumCosts(all, by)
			if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
				t.Errorf("by %s: %+v, want %+v", by, got, want)
			}
		}
	})
	t.Run("what is no month is said", func(t *testing.T) {
		t.Parallel()
		if _, err := newBot(t).replica(nil).Costs(t.Context(), "", "November", time.Now()); err == nil || !strings.Contains(err.Error(), "2026-11") {
			t.Errorf("Costs = %v", err)
		}
	})
}

// TestHoldings: the account of what is ours on Fly says whose it is, how old, what it has cost and what happens to it, and changes nothing.
func TestHoldings(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	var log strings.Builder
	r := b.replica(func(sv *ServiceConfig, _ *MachinesConfig) { sv.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	if _, err := r.Holdings(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "has lost its data") {
		t.Errorf("Holdings of a Redis that remembers nothing = %v", err)
	}
	if err := r.remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	known := r.record(b.left(r, nil))
	lost := b.left(r, nil) // of the same thread, whose record knows nothing of it
	script := b.left(r, func(s *Session) { s.Thread = Thread{} })
	b.machine(t, "someones", nil)
	later := time.Now().Add(24 * time.Hour)
	all, err := r.Holdings(t.Context(), later)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Holding{}
	for _, h := range all {
		got[h.Machine+h.Volume] = h
	}
	if len(got) != 6 {
		t.Errorf("there are %d of them, want three machines with their volumes: %+v", len(got), all)
	}
	for name, c := range map[string]struct {
		id, session, owner string
		known              bool
		verdict            Verdict
		usd                float64
	}{
		"a session's machine, which runs on":   {known.MachineID, known.SessionID, "U1", true, VerdictStop, 62.0/30 + 0.15/30},
		"its volume":                           {known.VolumeID, known.SessionID, "U1", true, VerdictKeep, 0.15 / 30},
		"a machine that its thread has not":    {lost.MachineID, lost.SessionID, "U1", false, VerdictRemove, 62.0/30 + 0.15/30},
		"its volume, which goes with it":       {lost.VolumeID, lost.SessionID, "U1", false, VerdictKeep, 0.15 / 30},
		"a machine of no thread, which runs":   {script.MachineID, script.SessionID, "U1", false, VerdictStop, 62.0/30 + 0.15/30},
		"the volume of that, which nobody has": {script.VolumeID, script.SessionID, "U1", false, VerdictKeep, 0.15 / 30},
	} {
		h := got[c.id]
		if h.Session != c.session || h.Owner != c.owner || h.Known != c.known || h.Verdict != c.verdict || !near(h.USD, c.usd, 0.01) || !near(h.Age.Hours(), 24, 0.1) || h.Why == "" {
			t.Errorf("%s: %+v, want it of %s, owner %s, known %t, %s, $%f", name, h, c.session, c.owner, c.known, c.verdict, c.usd)
		}
	}
	if _, ours := r.judgeVolume(fly.Volume{Name: volumeName(known.SessionID), State: "pending_destroy"}, nil, nil, later); ours {
		t.Error("a volume that Fly has let go of is in the account")
	}
	b.have(4, 3)
	if b.stateOf(&known) != "started" || log.Len() > 0 {
		t.Errorf("something was done: %s", log.String())
	}
	for range 2 {
		if err := r.sweep(t.Context(), later); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*Session{&known, &script} {
		b.until("a stopped machine", func() bool { return b.stateOf(s) == "stopped" })
	}
	b.have(3, 2)
	for _, id := range []string{lost.MachineID, script.MachineID} {
		if n := strings.Count(log.String(), `msg="nobody's: no session has it on record" machine=`+id); n != 1 {
			t.Errorf("%s was named %d times, want once:\n%s", id, n, log.String())
		}
	}
	if strings.Contains(log.String(), "nobody's: no session has it on record\" machine="+known.MachineID) {
		t.Errorf("the session's own was named:\n%s", log.String())
	}
}
