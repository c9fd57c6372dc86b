package sessions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"flaudebot/fly"
	"flaudebot/runner"
)

// audit are the entries on record.
func audit(t *testing.T, sv *Service, f AuditFilter) []Entry {
	t.Helper()
	var out []Entry
	if err := sv.Audit(t.Context(), f, func(e Entry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// ids are the names of entries.
func ids(all []Entry) []string {
	out := make([]string, len(all))
	for i, e := range all {
		out[i] = e.ID
	}
	return out
}

// unnoting is a hook of a Redis client that notes nothing in sorted sets while it is on.
type unnoting struct{ on atomic.Bool }

func (d *unnoting) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d *unnoting) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (d *unnoting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if d.on.Load() && slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "zadd" }) {
			return errDead
		}
		return next(ctx, cmds)
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	t.Run("a turn that is offered several times was asked for once, and ends once, however often it is settled", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		one := r.accept(turn("101", "one", true))
		if got, err := r.Accept(t.Context(), one); err != nil || got.Status != AcceptDuplicate {
			t.Fatalf("Accept = %+v, %v", got, err)
		}
		r.start()
		b.answered(r, one)
		all := audit(t, r.Service, AuditFilter{})
		want := []string{"turn_asked:" + string(one.ID), "turn_ended:" + string(one.ID)}
		if !slices.Equal(ids(all), want) {
			t.Fatalf("on record: %q, want %q", ids(all), want)
		}
		asked, ended := all[0], all[1]
		if asked.By != one.User || *asked.Chars != 3 || asked.Thread != thread().TS || ended.Session != r.session().SessionID || ended.Ended.Number != 1 || ended.Ended.Claimed.IsZero() {
			t.Errorf("%+v, %+v", asked, ended)
		}
		ended.By = "U9"
		if err := r.store.Record(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
		if got := audit(t, r.Service, AuditFilter{}); len(got) != 2 || got[1].By == "U9" {
			t.Errorf("an entry was written twice: %q", ids(got))
		}
	})
	t.Run("a turn that no machine was asked for has its end too", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		one := r.accept(turn("101", "a reply in a thread without a session", false))
		b.answered(r, one)
		all := audit(t, r.Service, AuditFilter{})
		if len(all) != 2 || all[1].ID != "turn_ended:"+string(one.ID) || all[1].Ended.Failure != FailEnded || all[1].Ended.ExitCode != 1 {
			t.Errorf("on record: %q: %+v", ids(all), all)
		}
	})
	t.Run("a session whose time is over was ended by nobody", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.IdleTTL = time.Hour }).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.reap(r, time.Now().Add(50*time.Minute)) // the thread is told
		b.reap(r, time.Now().Add(61*time.Minute))
		b.until("the end", func() bool { return r.session().Ended() })
		b.idle(r)
		all := audit(t, r.Service, AuditFilter{})
		last := all[len(all)-1]
		if len(all) != 3 || last.ID != "session_ended:"+r.session().SessionID || last.By != "" || last.Over.Reason != EndByIdle || last.Over.Owner != "U1" || last.Over.Turns != 1 {
			t.Errorf("on record: %q, the last is %+v, %+v", ids(all), last, last.Over)
		}
	})
	t.Run("a turn for which there is no room was refused", func(t *testing.T) {
		t.Parallel()
		r := newBot(t).replica(nil)
		var last Turn
		for i := range 31 {
			last = turn(strings.Repeat("1", 3+i), "x", true)
			if _, err := r.Accept(t.Context(), last); err != nil {
				t.Fatal(err)
			}
		}
		all := audit(t, r.Service, AuditFilter{})
		if n := len(all); n != 32 || all[n-1].What != TurnRefused || all[n-1].Turn != last.ID || all[n-1].Full != BoundThread {
			t.Errorf("on record: %q", ids(all))
		}
	})
	t.Run("a stop is on record before it is done, and once for each person", func(t *testing.T) {
		t.Parallel()
		r := newBot(t).replica(nil)
		one := r.accept(turn("101", "one", true))
		for _, by := range []string{"U7", "U7", "U8"} {
			if _, _, err := r.Cancel(AskedBy(t.Context(), by), thread(), one.ID); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := r.Cancel(AskedBy(t.Context(), "U7"), thread(), "T1:C1:999"); err != nil {
			t.Fatal(err)
		}
		all := audit(t, r.Service, AuditFilter{})
		if len(all) != 2 || all[1].What != StopAsked || all[1].By != "U7" || !all[1].Waiting {
			t.Errorf("on record: %+v, want one stop: the others had nothing to stop", all)
		}
	})
	t.Run("that a thread is muted is on record before it is done, once for each time that somebody says so", func(t *testing.T) {
		t.Parallel()
		r := newBot(t).replica(nil)
		dies := &unnoting{}
		dies.on.Store(true)
		r.rdb.AddHook(dies)
		mute := func(by string, muted bool, at string) error {
			return r.Mute(AskedBy(t.Context(), by), thread(), muted, at)
		}
		if err := mute("U7", true, "200.000001"); !errors.Is(err, errDead) {
			t.Fatalf("Mute = %v: the test shows nothing", err)
		}
		want := []string{"thread_muted:" + thread().Key() + ":200.000001"}
		if got := ids(audit(t, r.Service, AuditFilter{})); !slices.Equal(got, want) {
			t.Fatalf("on record: %q, want %q before it is done", got, want)
		}
		dies.on.Store(false)
		for _, err := range []error{mute("U7", true, "200.000001"), mute("U8", false, "300.000001"), mute("U8", false, "300.000001")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		all := audit(t, r.Service, AuditFilter{})
		want = append(want, "thread_unmuted:"+thread().Key()+":300.000001")
		if !slices.Equal(ids(all), want) {
			t.Fatalf("on record: %q, want %q", ids(all), want)
		}
		if all[0].What != ThreadMuted || all[0].By != "U7" || all[0].Thread != thread().TS || all[1].What != ThreadUnmuted || all[1].By != "U8" || all[1].Channel != "C1" {
			t.Errorf("on record: %+v", all)
		}
	})
	t.Run("an end that several people put off at once was put off by one of them, and nothing is on record that was not done", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.limited(10*day, 0).start()
		b.answered(r, r.accept(turn("101", "hello", true)))
		s := *r.session()
		end, _ := s.endsAt(0)
		untils := make([]time.Time, 8)
		var g errgroup.Group
		for i := range untils {
			g.Go(func() (err error) {
				untils[i], err = r.Keep(AskedBy(t.Context(), fmt.Sprint("U", i)), thread(), s.SessionID, end)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Keep(AskedBy(t.Context(), "U9"), thread(), "another session", end); !errors.Is(err, ErrNoSession) {
			t.Fatalf("Keep = %v", err)
		}
		if ok, err := r.store.Keep(t.Context(), thread(), Kept{}, Kept{Session: s.SessionID}, &Entry{ID: "late", What: SessionKept}); err != nil || ok {
			t.Fatalf("Keep of what was kept since = %t, %v", ok, err)
		}
		kept := slices.DeleteFunc(audit(t, r.Service, AuditFilter{}), func(e Entry) bool { return e.What != SessionKept })
		if len(kept) != 1 {
			t.Fatalf("on record: %+v, want one", kept)
		}
		e := kept[0]
		if slices.ContainsFunc(untils, func(u time.Time) bool { return !u.Equal(e.Until) }) || !e.Until.Equal(r.session().kept().TTL) {
			t.Errorf("they were told %v, on record is %v", untils, e.Until)
		}
		if !strings.HasPrefix(e.By, "U") || e.By == "U9" || e.Session != s.SessionID || e.Thread != thread().TS {
			t.Errorf("on record: %+v", e)
		}
	})
	t.Run("a run of the command line is on record before it begins, and with what it came to", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		run := Run{
			Turn: "run:1", Fence: 1, Record: r.RecordOf("run:1", 5),
			Prompt: func(context.Context, bool) (Prompt, error) { return Prompt{Text: "hello"}, nil },
			Seen: func(*fly.Machine) {
				if got := ids(audit(t, r.Service, AuditFilter{})); !slices.Equal(got, []string{"turn_asked:run:1"}) {
					t.Errorf("with the machine there is on record: %q", got)
				}
			},
		}
		res, err := r.cfg.Machines.RunOnce(t.Context(), Spec{}, run)
		if err != nil {
			t.Fatal(err)
		}
		all := audit(t, r.Service, AuditFilter{Person: Operator})
		if !slices.Equal(ids(all), []string{"turn_asked:run:1", "turn_ended:run:1"}) {
			t.Fatalf("on record: %q", ids(all))
		}
		if asked, ended := all[0], all[1].Ended; *asked.Chars != 5 || asked.Kind != KindOnce || ended.ExitCode != 0 || ended.Machine != res.MachineID || ended.CostUSD != res.Outcome.CostUSD ||
			ended.CostUSD == 0 || ended.Number != 1 || ended.Asked.IsZero() {
			t.Errorf("on record: %+v, %+v", asked, ended)
		}
	})
	t.Run("what cannot be put on record is not run", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		b.mini.SetError("LOADING")
		res, err := r.cfg.Machines.RunOnce(t.Context(), Spec{}, Run{Turn: "run:1", Fence: 1, Record: r.RecordOf("run:1", 5)})
		if err == nil || res.ExitCode != 1 || res.MachineID != "" || b.asked(postMachine) != 0 {
			t.Errorf("RunOnce = %+v, %v", res, err)
		}
	})
	t.Run("a change of settings is on record with the names of what it changes, and one that came too late is not", func(t *testing.T) {
		t.Parallel()
		r := newBot(t).replica(nil)
		s, err := r.SaveSettings(t.Context(), "T1", "C1", "U9", Settings{Model: "opus", Instructions: "mind the gap"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.SaveSettings(t.Context(), "T1", "C1", "U8", Settings{Model: "haiku"}, nil); !errors.Is(err, ErrSettingsChanged) {
			t.Fatalf("SaveSettings = %v", err)
		}
		ok, err := r.store.PutSettings(t.Context(), "T1", "C1", 0, storedSettings{Settings: s}, &Entry{ID: "late", What: SettingsSet})
		if err != nil || ok {
			t.Fatalf("PutSettings of an older version = %t, %v", ok, err)
		}
		all := audit(t, r.Service, AuditFilter{Channel: "C1", Person: "U9"})
		if len(all) != 1 || len(audit(t, r.Service, AuditFilter{})) != 1 || all[0].ID != "settings_set:T1:C1:1" || all[0].Set.Version != 1 ||
			!slices.Equal(all[0].Set.Fields, []string{"instructions", "model"}) {
			t.Errorf("on record: %+v", all)
		}
	})
	t.Run("entries are dropped by age, and a long record is read whole and in order", func(t *testing.T) {
		t.Parallel()
		r := newBot(t).replica(nil)
		var want []string
		for i := range 1201 {
			id := "e" + strings.Repeat("x", i%7) + time.Duration(i).String()
			want = append(want, id)
			if err := r.store.Record(t.Context(), Entry{ID: id, What: TurnAsked}); err != nil {
				t.Fatal(err)
			}
		}
		if got := ids(audit(t, r.Service, AuditFilter{})); !slices.Equal(got, want) {
			t.Errorf("%d entries are read, want %d in order", len(got), len(want))
		}
		stop := errors.New("enough")
		if err := r.Audit(t.Context(), AuditFilter{}, func(Entry) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("Audit = %v, want what do returned", err)
		}
		r.store.auditFor = -time.Minute // all is older by then
		if err := r.store.Record(t.Context(), Entry{ID: "last", What: TurnAsked}); err != nil {
			t.Fatal(err)
		}
		if got := audit(t, r.Service, AuditFilter{}); len(got) > 1 {
			t.Errorf("%d entries are left", len(got))
		}
	})
}

// TestAuditOfEnded: what the record holds of a turn is bounded, and is about the turn.
func TestAuditOfEnded(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	r := b.replica(func(c *ServiceConfig, _ *MachinesConfig) {
		c.Link = func(th Thread, ts string) string { return "https://acme.slack.example/" + th.Channel + "/" + ts }
	})
	w := &work{sv: r.Service, turn: turn("101", "one", true)}
	out := Outcome{Number: 2, Outcome: runner.Outcome{
		ExitCode: 1, Failure: runner.FailClaude, Error: "words of a repository", CostUSD: 0.5, Model: "opus",
		Branches: []runner.Branch{{Dir: "app", Name: "fix"}}, Pulls: []runner.Pull{{Dir: "app", URL: "https://git.example/1"}},
		Commits: []runner.Commit{{Dir: "app", Hash: "c0ffee"}}, Changes: &runner.Changes{Total: 300, Added: 4, Removed: 5, Partial: true},
	}}
	for range 60 {
		out.Changes.Files = append(out.Changes.Files, runner.Change{Path: strings.Repeat("long/", 100)})
	}
	e := w.ended(Session{SessionID: "s1", MachineID: "m1"}, out)
	c := e.Ended.Changed
	if c.Files != 300 || c.Added != 4 || c.Removed != 5 || !c.Partial || len(c.Paths) != 50 || len(c.Paths[0]) != 300 {
		t.Errorf("changed: %d files, %d paths of %d bytes", c.Files, len(c.Paths), len(c.Paths[0]))
	}
	body, err := encodeEntry(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"exit_code":1`, `"failure":"claude"`, `"cost_usd":0.5`, `"model":"opus"`, `"machine":"m1"`, `"session":"s1"`, `"branches":["app fix"]`,
		`"pulls":["https://git.example/1"]`, `"commits":[{"dir":"app","hash":"c0ffee"}]`, `"link":"https://acme.slack.example/C1/101"`, `"number":2`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the entry lacks %s: %s", want, body)
		}
	}
	if strings.Contains(body, "words of a repository") || len(body) > 20<<10 {
		t.Errorf("the entry holds too much: %d bytes", len(body))
	}
}
