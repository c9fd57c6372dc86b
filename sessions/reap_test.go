package sessions

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
)

const day = 24 * time.Hour

// limited is a replica whose sessions have a time to live and an idle time.
func (b *bot) limited(ttl, idle time.Duration) *replica {
	return b.replica(func(sv *ServiceConfig, m *MachinesConfig) {
		sv.IdleTTL, m.TTL = idle, ttl
		m.Settings.LingerSeconds = 60
	})
}

func TestReaper(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ttl, idle time.Duration
		why       EndReason
	}{
		"its time to live":  {10 * day, 0, EndByTTL},
		"its idle time":     {0, 10 * day, EndByIdle},
		"what comes first":  {30 * day, 10 * day, EndByIdle},
		"what comes sooner": {10 * day, 30 * day, EndByTTL},
	} {
		t.Run(name+": a notice a day before, once, then the end", func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.limited(c.ttl, c.idle).start()
			b.answered(r, r.accept(turn("101", "hello", true)))
			s := *r.session()
			end, why := s.endsAt(c.idle)
			if why != c.why {
				t.Fatalf("it will end by %s, want %s", why, c.why)
			}
			b.reap(r, end.Add(-day-time.Minute))
			if got := b.front.noticed(); len(got) != 0 {
				t.Errorf("more than a day before: %+v", got)
			}
			for range 3 {
				b.reap(r, end.Add(-day+time.Minute))
			}
			if got := b.front.noticed(); len(got) != 1 || got[0].Kind != NoticeEndsSoon || !got[0].At.Equal(end) || got[0].Session.SessionID != s.SessionID {
				t.Errorf("notices = %+v, want one for %v", got, end)
			}
			b.reap(r, end.Add(-time.Second))
			b.have(1, 1)
			b.reap(r, end)
			b.have(0, 0)
			if got := r.session(); !got.Ended() || got.EndReason != c.why || got.onFly() {
				t.Errorf("on record is %+v", got)
			}
			if bye := b.front.goodbyes(); len(bye) != 1 || !bye[0].outcome.Destroyed {
				t.Errorf("the end was posted as %+v", bye)
			}
			b.reap(r, end.Add(day))
			if len(b.front.goodbyes()) != 1 || len(b.front.noticed()) != 1 {
				t.Error("something was said again")
			}
		})
	}
	for name, c := range map[string]struct{ ttl, idle time.Duration }{"its time to live": {10 * day, 0}, "its idle time": {0, 10 * day}} {
		t.Run(name+" was over before anybody was there to tell: the notice comes first", func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.limited(c.ttl, c.idle).start()
			b.answered(r, r.accept(turn("101", "hello", true)))
			late := time.Now().Add(100 * day)
			b.reap(r, late)
			b.have(1, 1)
			end, _ := r.session().endsAt(c.idle)
			if end.Sub(late) < warnBefore || end.Sub(late) > 3*warnBefore {
				t.Fatalf("it ends %s after it was seen to be over, want some time for its notice", end.Sub(late))
			}
			b.reap(r, end.Add(-time.Hour))
			if got := b.front.noticed(); len(got) != 1 || !got[0].At.Equal(end) {
				t.Errorf("notices = %+v, want one for %v", got, end)
			}
			b.reap(r, end)
			b.have(0, 0)
		})
	}
	t.Run("a turn between notice and end keeps the session, and is told again", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(0, 10*day).start()
		b.answered(r, r.accept(turn("101", "hello", true)))
		end, _ := r.session().endsAt(10 * day)
		b.reap(r, end.Add(-time.Hour))
		b.answered(r, r.accept(turn("102", "still here", false)))
		b.reap(r, end)
		later, _ := r.session().endsAt(10 * day)
		if !later.After(end) || r.session().Ended() {
			t.Fatalf("on record is %+v", r.session())
		}
		if got := b.front.noticed(); len(got) != 2 || !got[1].At.Equal(later) {
			t.Errorf("notices = %+v, want one for each end", got)
		}
	})
	t.Run("never while a turn is running, nor a notice", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(10*day, 0).start()
		one := r.accept(turn("101", "hold", true))
		b.until("a running turn", func() bool { return b.runner.ran(one.ID) == 1 })
		for _, when := range []time.Duration{10*day - time.Hour, 100 * day} {
			if err := r.Reap(t.Context(), time.Now().Add(when)); err != nil {
				t.Fatal(err)
			}
		}
		if st, err := r.Status(t.Context(), thread()); err != nil || st.Running == nil || len(st.Queued) != 0 || st.Session.Ended() || len(b.front.noticed()) != 0 {
			t.Errorf("Status = %+v, %v, told %v; want the turn alone", st, err, b.front.noticed())
		}
		b.runner.release()
		b.answered(r, one)
		end, _ := r.session().endsAt(0)
		b.reap(r, end.Add(-time.Hour))
		b.reap(r, end)
		b.have(0, 0)
	})
	t.Run("never while a turn is queued", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(10*day, 0)
		r.start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.reap(r, time.Now().Add(10*day-time.Hour)) // it is told of its end
		r.stop()
		other := b.limited(10*day, 0)
		two := other.accept(turn("102", "two", false))
		if err := other.Reap(t.Context(), time.Now().Add(100*day)); err != nil {
			t.Fatal(err)
		}
		other.start()
		if out := b.answered(other, two); out.Answer != "answer to two" {
			t.Errorf("the turn that waited ended with %+v", out)
		}
	})
	t.Run("a turn that came after its time was seen to be over keeps it", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(0, 10*day).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		seen := *r.session() // what a slow reaper knows
		b.reap(r, time.Now().Add(10*day-time.Hour))
		b.answered(r, r.accept(turn("102", "two", false)))
		if err := r.reapOne(t.Context(), seen, time.Now().Add(11*day)); err != nil {
			t.Fatal(err)
		}
		b.idle(r)
		if s := r.session(); s.Ended() {
			t.Errorf("on record is %+v", s)
		}
		b.have(1, 1)
		end, _ := r.session().endsAt(10 * day)
		b.reap(r, end.Add(-time.Hour))
		b.reap(r, end) // and it does end when nobody comes any more
		b.have(0, 0)
	})
	t.Run("a fresh session is not ended in the place of the old one", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(10*day, 0).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		seen := *r.session()
		if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		b.answered(r, r.accept(turn("102", "two", true)))
		if err := r.reapOne(t.Context(), seen, time.Now().Add(11*day)); err != nil {
			t.Fatal(err)
		}
		b.idle(r)
		if s := r.session(); s.Ended() || s.SessionID == seen.SessionID {
			t.Errorf("on record is %+v, want the fresh session", s)
		}
	})
	t.Run("a notice that could not be given is given the next time", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		b.front.deaf = 2
		r := b.limited(10*day, 0).start()
		b.answered(r, r.accept(turn("101", "hello", true)))
		for range 4 {
			b.reap(r, time.Now().Add(10*day-time.Hour))
		}
		if got := b.front.noticed(); len(got) != 1 {
			t.Errorf("notices = %+v, want one", got)
		}
	})
	t.Run("two replicas give one notice and one end", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r, other := b.limited(10*day, 0).start(), b.limited(10*day, 0).start()
		b.answered(r, r.accept(turn("101", "hello", true)))
		for _, when := range []time.Duration{10*day - time.Hour, 10 * day} {
			for _, one := range []*replica{r, other, r} {
				b.reap(one, time.Now().Add(when))
			}
		}
		if len(b.front.noticed()) != 1 || len(b.front.goodbyes()) != 1 {
			t.Errorf("%d notices and %d ends", len(b.front.noticed()), len(b.front.goodbyes()))
		}
	})
	t.Run("without limits a session stays for ever", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(0, 0).start()
		b.answered(r, r.accept(turn("101", "hello", true)))
		b.reap(r, time.Now().Add(10000*day))
		b.have(1, 1)
		if len(b.front.noticed()) != 0 {
			t.Errorf("notices = %+v", b.front.noticed())
		}
	})
	t.Run("a session in trouble does not keep the others from their end", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(0, 10*day).start()
		b.answered(r, r.accept(turn("101", "hello", true)))
		bad := Thread{"T1", "C1", "9"}
		if err := r.store.Put(t.Context(), Session{SessionID: "bad", Thread: bad, LastTurn: time.Now().Add(day)}, 1); err != nil {
			t.Fatal(err)
		}
		b.mini.HSet(r.store.session(bad), "json", "{")
		for _, when := range []time.Duration{10*day - time.Hour, 11 * day} {
			if err := r.Reap(t.Context(), time.Now().Add(when)); err == nil {
				t.Error("Reap = nil, want what is wrong")
			}
		}
		b.idle(r)
		b.have(0, 0)
	})
	t.Run("it looks by itself", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(sv *ServiceConfig, m *MachinesConfig) {
			sv.IdleTTL, sv.ReapEvery, m.Settings.LingerSeconds = time.Second, 50*time.Millisecond, 60
		}).start()
		r.accept(turn("101", "hello", true))
		b.until("the end", func() bool { return len(b.front.goodbyes()) == 1 })
		b.idle(r)
		b.have(0, 0)
	})
}

// TestMeant: which session an end is for when it comes to its turn.
func TestMeant(t *testing.T) {
	t.Parallel()
	end := Turn{Kind: KindEnd, Session: "s1", Reason: EndByIdle, After: "t1"}
	asked := Turn{Kind: KindEnd, Session: "s1", Reason: EndByPerson}
	again := Turn{Kind: KindEnd, Session: "s1", After: "t1"}
	due := Turn{Kind: KindEnd, Session: "s1", Reason: EndByIdle, After: "t1", Due: at("2026-01-01T01:00:00Z")}
	idle := Session{SessionID: "s1", LastID: "t1", LastTurn: at("2026-01-01T00:00:00Z")}
	kept, keptBefore := idle, idle
	kept.Kept = Kept{Session: "s1", Idle: at("2026-01-02T00:00:00Z")}
	keptBefore.Kept = Kept{Session: "s0", Idle: at("2026-01-02T00:00:00Z")}
	for name, c := range map[string]struct {
		end  Turn
		s    Session
		want bool
	}{
		"by time: the session as it was seen":                        {end, Session{SessionID: "s1", LastID: "t1"}, true},
		"by time: not the session when it was used since":            {end, Session{SessionID: "s1", LastID: "t2"}, false},
		"by time: not another session":                               {end, Session{SessionID: "s2", LastID: "t1"}, false},
		"by time: the session that nobody has kept":                  {due, idle, true},
		"by time: not the session when it was kept since":            {due, kept, false},
		"by time: the session whose forerunner was kept":             {due, keptBefore, true},
		"by a person: the session":                                   {asked, Session{SessionID: "s1", LastID: "t2"}, true},
		"by a person: the session in the place of one that was lost": {asked, Session{SessionID: "s2", LastID: "t2"}, true},
		"tried again: the session that has ended":                    {again, Session{SessionID: "s1", LastID: "t1", EndedAt: at("2026-01-01T00:00:00Z")}, true},
		"tried again: not the fresh one":                             {again, Session{SessionID: "s2"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := (&work{turn: c.end}).meant(c.s, time.Hour); got != c.want {
				t.Errorf("meant = %v, want %v", got, c.want)
			}
		})
	}
}

func TestWarnAhead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ ttl, idle, used, want time.Duration }{
		"a day before a long time to live":                               {30 * day, 0, 0, day},
		"a day before a long idle time":                                  {0, 30 * day, 0, day},
		"half of a time that is shorter than two days":                   {day, 0, 0, 12 * time.Hour},
		"half of a short idle time, however old the session":             {0, time.Hour, 300 * day, 30 * time.Minute},
		"that of the limit which comes first":                            {300 * day, time.Hour, 0, 30 * time.Minute},
		"that of the limit which comes first, if it is the time to live": {time.Hour, 30 * day, 0, 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			created := at("2026-01-01T00:00:00Z")
			s := Session{CreatedAt: created, LastTurn: created.Add(c.used), TTLSeconds: int64(c.ttl / time.Second)}
			_, why := s.endsAt(c.idle)
			if got := s.warnAhead(why, c.idle); got != c.want {
				t.Errorf("warnAhead = %s, want %s", got, c.want)
			}
		})
	}
}

// left makes machine and volume of a session that no record knows.
func (b *bot) left(r *replica, change func(*Session)) Session {
	b.t.Helper()
	m := r.cfg.Machines
	s := m.Begin(Spec{Thread: thread(), Owner: "U1"}, time.Now())
	if change != nil {
		change(&s)
	}
	if err := m.Create(b.t.Context(), &s, keepNothing); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.fly.WaitMachine(b.t.Context(), testApp, s.MachineID, fly.WaitMachine{States: []string{"started"}}); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// record puts a session on record.
func (r *replica) record(s Session) Session {
	r.t.Helper()
	if err := r.store.Put(r.t.Context(), s, 1); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// TestSweep: what a crash leaves behind goes after a time of grace, and nothing else does.
func TestSweep(t *testing.T) {
	t.Parallel()
	const later = 2 * time.Hour
	ended := func(s *Session) { s.EndedAt, s.EndReason, s.MachineID, s.VolumeID = time.Now(), EndByPerson, "", "" }
	for name, c := range map[string]struct {
		prepare           func(*testing.T, *bot, *replica)
		idle              time.Duration
		after             time.Duration
		machines, volumes int
	}{
		"what belongs to a session stays": {func(_ *testing.T, b *bot, r *replica) {
			r.record(b.left(r, nil))
		}, 30 * day, 10 * day, 1, 1},
		"what an earlier session of a thread left goes": {func(_ *testing.T, b *bot, r *replica) {
			b.left(r, nil)
			r.record(b.left(r, nil))
		}, 0, later, 1, 1},
		"what an ended session left goes": {func(_ *testing.T, b *bot, r *replica) {
			s := b.left(r, nil)
			ended(&s)
			r.record(s)
		}, 0, later, 0, 0},
		"nothing goes within the time of grace": {func(_ *testing.T, b *bot, r *replica) {
			s := b.left(r, nil)
			ended(&s)
			r.record(s)
		}, 0, 30 * time.Minute, 1, 1},
		"what is on record to be removed is left to the reaper": {func(_ *testing.T, b *bot, r *replica) {
			old, s := b.left(r, nil), b.left(r, nil)
			s.Left = old.remains()
			r.record(s)
		}, 0, later, 2, 2},
		"a machine that is still to be noted on the record stays": {func(_ *testing.T, b *bot, r *replica) {
			s := b.left(r, nil)
			s.MachineID = ""
			r.record(s)
		}, 0, later, 1, 1},
		"nothing goes in whose thread a turn is queued or running": {func(_ *testing.T, b *bot, r *replica) {
			b.left(r, nil)
			b.left(r, func(s *Session) { s.Ephemeral = true })
			r.accept(turn("101", "waits", true))
		}, 30 * day, 31 * day, 2, 1},
		"a Redis that has lost its records costs nobody their work": {func(_ *testing.T, b *bot, r *replica) {
			b.left(r, nil)
		}, 30 * day, 29 * day, 1, 1},
		"what no record knows goes when it was left alone for as long as any session may be": {func(_ *testing.T, b *bot, r *replica) {
			b.left(r, nil)
		}, 30 * day, 31 * day, 0, 0},
		"it stays if sessions may be left alone for ever": {func(_ *testing.T, b *bot, r *replica) {
			b.left(r, nil)
		}, 0, 10000 * day, 1, 1},
		"an ephemeral machine goes": {func(_ *testing.T, b *bot, r *replica) {
			b.left(r, func(s *Session) { s.Ephemeral = true })
			b.left(r, func(s *Session) { s.Ephemeral, s.Thread = true, Thread{} }) // of the command line
		}, 0, later, 0, 0},
		"a machine whose lease is held stays": {func(t *testing.T, b *bot, r *replica) {
			s := b.left(r, func(s *Session) { s.Ephemeral, s.Thread = true, Thread{} })
			if _, err := b.fly.AcquireLease(t.Context(), testApp, s.MachineID, time.Minute, "flaudebot turn"); err != nil {
				t.Fatal(err)
			}
		}, 0, later, 1, 0},
		"a second volume of a session goes, and the one on record stays": {func(t *testing.T, b *bot, r *replica) {
			s := r.record(b.left(r, nil))
			b.volume(t, volumeName(s.SessionID))
		}, 0, later, 1, 1},
		"a volume that the next turn will find stays": {func(t *testing.T, b *bot, r *replica) {
			s := r.record(r.cfg.Machines.Begin(Spec{Thread: thread()}, time.Now()))
			b.volume(t, volumeName(s.SessionID))
		}, 30 * day, 31 * day, 0, 1},
		"a volume whose session waits for a machine stays": {func(t *testing.T, b *bot, r *replica) {
			s := r.cfg.Machines.Begin(Spec{Thread: thread()}, time.Now())
			s.VolumeID = b.volume(t, volumeName(s.SessionID))
			r.record(s)
		}, 30 * day, 10 * day, 0, 1},
		"a volume that no record knows stays": {func(t *testing.T, b *bot, r *replica) {
			b.volume(t, volumeName(r.cfg.Machines.Begin(Spec{}, time.Now()).SessionID))
		}, 30 * day, 29 * day, 0, 1},
		"a volume that no record knows goes when it was left alone for as long as any session may be": {func(t *testing.T, b *bot, r *replica) {
			b.volume(t, volumeName(r.cfg.Machines.Begin(Spec{}, time.Now()).SessionID))
		}, 30 * day, 31 * day, 0, 0},
		"what is not marked as ours is never touched": {func(t *testing.T, b *bot, r *replica) {
			s := r.record(r.cfg.Machines.Begin(Spec{Thread: thread()}, time.Now()))
			all := map[string]string{MetaManaged: managedBy, MetaSession: "another", MetaThread: thread().Key()}
			b.machine(t, "fb-unmarked", nil)
			b.machine(t, "someones", all)
			b.machine(t, "fb-another", map[string]string{MetaManaged: "flaude", MetaSession: "another", MetaThread: thread().Key()})
			b.machine(t, "fb-short", map[string]string{MetaManaged: managedBy, MetaSession: "short", MetaThread: thread().Key()})
			b.machine(t, "fb-", map[string]string{MetaManaged: managedBy})
			b.volume(t, "data")
			b.volume(t, "fb_"+strings.Repeat("x", 27))
			b.volume(t, volumeName(s.SessionID)) // the session's own, to be adopted
		}, day, 10000 * day, 5, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.replica(func(sv *ServiceConfig, _ *MachinesConfig) { sv.IdleTTL = c.idle })
			c.prepare(t, b, r)
			if err := r.sweep(t.Context(), time.Now().Add(c.after)); err != nil {
				t.Fatalf("sweep = %v", err)
			}
			b.have(c.machines, c.volumes)
		})
	}
	t.Run("what goes is what was left, not what is on record", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		b.left(r, nil)
		s := r.record(b.left(r, nil))
		b.volume(t, volumeName(s.SessionID))
		if err := r.sweep(t.Context(), time.Now().Add(later)); err != nil {
			t.Fatal(err)
		}
		if m, v := b.machinesIn(testApp), b.volumesIn(testApp); len(m) != 1 || len(v) != 1 || m[0].ID != s.MachineID || v[0].ID != s.VolumeID {
			t.Errorf("left are %v and %v, want %s and %s", m, v, s.MachineID, s.VolumeID)
		}
	})
	t.Run("an empty list removes nothing, and a list that ignores its filter neither", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(sv *ServiceConfig, _ *MachinesConfig) { sv.IdleTTL = day })
		r.record(b.left(r, nil))
		b.machine(t, "someones", nil)
		for _, empty := range []string{"machines", "volumes", ""} {
			b.answering(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/machines") && !strings.HasSuffix(r.URL.Path, "/volumes") {
					return false
				}
				r.URL.RawQuery = ""
				if empty == "" || !strings.HasSuffix(r.URL.Path, empty) {
					return false
				}
				_, _ = w.Write([]byte("[]"))
				return true
			})
			if err := r.sweep(t.Context(), time.Now().Add(20*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		b.answering(nil)
		b.have(2, 1)
	})
	t.Run("without records that can be read no volume goes", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(sv *ServiceConfig, _ *MachinesConfig) { sv.IdleTTL = day })
		s := r.record(r.cfg.Machines.Begin(Spec{Thread: thread()}, time.Now()))
		b.volume(t, volumeName(s.SessionID))
		b.mini.HSet(r.store.session(s.Thread), "json", "{")
		if err := r.sweep(t.Context(), time.Now().Add(10*day)); err == nil {
			t.Error("sweep = nil, want what is wrong")
		}
		b.have(0, 1)
	})
	t.Run("an app that is not made yet has nothing to sweep", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.App = "absent" })
		if err := r.sweep(t.Context(), time.Now()); err != nil {
			t.Errorf("sweep = %v", err)
		}
	})
	t.Run("the reaper sweeps, every ten minutes, whichever replica", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		replicas := []*replica{b.replica(nil), b.replica(nil)}
		now := time.Now().Add(later).Truncate(sweepEvery)
		b.left(replicas[0], func(s *Session) { s.Ephemeral = true })
		if err := replicas[0].remember(t.Context()); err != nil { // it looks at what is there, once
			t.Fatal(err)
		}
		lists := b.asked("GET /v1/apps/acme/machines ")
		for minute := range 20 {
			if err := replicas[minute%2].Reap(t.Context(), now.Add(time.Duration(minute)*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.asked("GET /v1/apps/acme/machines ") - lists; n != 2 {
			t.Errorf("there were %d sweeps in twenty minutes, want 2", n)
		}
		b.have(0, 0)
	})
	t.Run("what Fly does not let go is said", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		b.left(r, func(s *Session) { s.Ephemeral = true })
		b.faults(map[string]any{"method": "machine.delete", "status": 403})
		if err := r.sweep(t.Context(), time.Now().Add(later)); err == nil || !strings.Contains(err.Error(), "left behind") {
			t.Errorf("sweep = %v, want what is wrong", err)
		}
	})
}

func (b *bot) volume(t *testing.T, name string) string {
	t.Helper()
	v, err := b.fly.CreateVolume(t.Context(), testApp, fly.CreateVolume{Name: name, Region: "fra", SizeGB: 1})
	if err != nil {
		t.Fatal(err)
	}
	return v.ID
}

func (b *bot) machine(t *testing.T, name string, metadata map[string]string) {
	t.Helper()
	_, err := b.fly.CreateMachine(t.Context(), testApp, fly.CreateMachine{
		Name: name, Region: "fra", Config: &fly.MachineConfig{Image: "image", Metadata: metadata},
	})
	if err != nil {
		t.Fatal(fmt.Errorf("machine %s: %w", name, err))
	}
}
