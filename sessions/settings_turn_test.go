package sessions

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flaudebot/fly"
	"flaudebot/runner"
)

// channelSettings stores settings for the channel of the tests' thread over those that it has.
func (r *replica) channelSettings(change func(*Settings), values map[string]string) Settings {
	r.t.Helper()
	s := mustSettings(r.t, r, thread().Channel)
	change(&s)
	s, err := r.SaveSettings(r.t.Context(), thread().Team, thread().Channel, "U9", s, values)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// TestSettingsOfTurns: a turn runs with what its channel has set when it begins.
func TestSettingsOfTurns(t *testing.T) {
	t.Parallel()
	keyed := func(b *bot) *replica {
		return b.replica(func(c *ServiceConfig, m *MachinesConfig) {
			c.Keys = keyring(t, secretsKey(1))
			m.Settings = runner.Settings{Model: "sonnet", TimeoutSeconds: 7200, GitName: "Robot"}
			m.Secrets = runner.Secrets{AnthropicAPIKey: "sk-ant-0123456789"}
		}).start()
	}
	t.Run("they are handed over, the defaults where nothing is set, and a change counts from the next turn", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := keyed(b)
		r.channelSettings(func(s *Settings) {
			s.Effort, s.Instructions, s.Env, s.Secrets, s.SetUp = "low", "Be brief.", map[string]string{"STAGE": "test"}, []string{"NPM_TOKEN"}, "npm ci"
			s.Timeout = new(time.Minute)
		}, map[string]string{"NPM_TOKEN": "npm_0123456789"})
		held := r.accept(turn("1.0", "hold", true))
		b.until("the turn at work", func() bool { return b.runner.ran(held.ID) == 1 })
		r.channelSettings(func(s *Settings) { s.Model, s.Effort, s.Timeout, s.Secrets = "opus", "", nil, nil }, nil)
		b.runner.release()
		b.answered(r, held)
		b.answered(r, r.accept(turn("2.0", "x", false)))
		takes := b.runner.taken()
		want := runner.Settings{
			Model: "sonnet", Effort: "low", Instructions: "Be brief.", Env: map[string]string{"STAGE": "test"}, SetUp: "npm ci", TimeoutSeconds: 60, GitName: "Robot",
		}
		if diff := cmp.Diff(want, takes[0].Turn.Settings); diff != "" {
			t.Errorf("the first turn (-want +got):\n%s", diff)
		}
		if got := takes[0].Secrets; got.AnthropicAPIKey == "" || !cmp.Equal(got.Env, map[string]string{"NPM_TOKEN": "npm_0123456789"}) {
			t.Errorf("the first turn's secrets: %v", got)
		}
		want.Model, want.Effort, want.TimeoutSeconds = "opus", "", 7200
		if diff := cmp.Diff(want, takes[len(takes)-1].Turn.Settings); diff != "" || takes[len(takes)-1].Secrets.Env != nil {
			t.Errorf("the next turn (-want +got):\n%s", diff)
		}
		st, err := r.Status(t.Context(), thread())
		wantUse := &InUse{Version: 2, Model: "opus", PermissionMode: runner.ModeBypass, Env: []string{"STAGE"}, Instructions: true, SetUp: true, TimeoutSeconds: 7200}
		if err != nil || !cmp.Equal(st.Session.InUse, wantUse) {
			t.Errorf("the session shows %+v, %v; want %+v", st.Session.InUse, err, wantUse)
		}
		raw, err := json.Marshal(b.machinesIn(testApp))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"npm_", "sk-ant", "Be brief", "npm ci", "hold"} {
			if strings.Contains(string(raw), secret) {
				t.Errorf("the machine's config holds %q", secret)
			}
		}
	})
	t.Run("a message overrides what it may for its own turn", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := keyed(b)
		r.channelSettings(func(s *Settings) { s.Overrides = []Override{OverrideModel, OverrideVolume} }, nil)
		first := turn("1.0", "x", true)
		first.Overrides = Overrides{Model: "haiku", Effort: "max", VolumeGB: 7}
		b.answered(r, r.accept(first))
		b.answered(r, r.accept(turn("2.0", "y", false)))
		takes := b.runner.taken()
		if got := takes[0].Turn.Settings; got.Model != "haiku" || got.Effort != "" {
			t.Errorf("the first turn runs with %+v, want haiku, and the effort that it may not choose left alone", got)
		}
		if got := takes[1].Turn.Settings; got.Model != "sonnet" {
			t.Errorf("the next turn runs with %+v, want sonnet again", got)
		}
		if v := b.volumesIn(testApp); len(v) != 1 || v[0].SizeGB != 7 {
			t.Errorf("volumes = %+v, want one of 7 GB", v)
		}
	})
	t.Run("a session is made as its channel says", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := keyed(b)
		guest := Guest{CPUKind: "shared", CPUs: 4, MemoryMB: 2048}
		repos := []runner.Repo{{URL: "https://github.com/acme/api", Branch: "next"}}
		r.channelSettings(func(s *Settings) {
			s.Guest, s.Region, s.VolumeGB, s.TTL, s.Linger, s.Repos = guest, "ord", 3, new(time.Hour), new(time.Minute), repos
		}, nil)
		b.answered(r, r.accept(turn("1.0", "x", true)))
		s := r.session()
		if s.Region != "ord" || s.VolumeGB != 3 || s.TTLSeconds != 3600 || s.Guest != guest || !slices.Equal(s.Repos, repos) {
			t.Errorf("session = %+v", s)
		}
		mach, vol := b.machinesIn(testApp)[0], b.volumesIn(testApp)[0]
		if mach.Region != "ord" || *mach.Config.Guest != guest || vol.SizeGB != 3 || vol.Region != "ord" {
			t.Errorf("machine in %s with %+v, volume of %d GB in %s", mach.Region, mach.Config.Guest, vol.SizeGB, vol.Region)
		}
		if mach.State != "started" {
			t.Errorf("the machine is %s, want it to linger", mach.State)
		}
		r.channelSettings(func(s *Settings) {
			s.Region, s.VolumeGB, s.TTL, s.Linger, s.Repos = "fra", 5, nil, new(time.Duration(0)), []runner.Repo{}
		}, nil)
		b.answered(r, r.accept(turn("2.0", "y", false)))
		if s := r.session(); s.Region != "ord" || s.VolumeGB != 3 || s.TTLSeconds != 3600 || !slices.Equal(s.Repos, repos) {
			t.Errorf("the session that is there became %+v, want it as it was", s)
		}
		b.until("the machine asleep, since it lingers no more", func() bool { return b.machinesIn(testApp)[0].State == "stopped" })
	})
	t.Run("what the channel trusts and sets up are its own repositories", func(t *testing.T) {
		t.Parallel()
		own, other := runner.Repo{URL: "https://github.com/acme/api"}, runner.Repo{URL: "https://github.com/acme/other"}
		for name, tt := range map[string]struct {
			named []runner.Repo // by the message that begins the session
			after []runner.Repo // what the channel has by the second turn
			want  []bool
		}{
			"none is named":                      {nil, []runner.Repo{own}, []bool{true, true}},
			"a branch of its own is named":       {[]runner.Repo{{URL: own.URL, Branch: "next"}}, []runner.Repo{own}, []bool{true, true}},
			"another is named":                   {[]runner.Repo{other, own}, []runner.Repo{own}, []bool{false, false}},
			"it is not among the channel's soon": {nil, []runner.Repo{other}, []bool{true, false}},
			"nothing is named":                   {[]runner.Repo{}, []runner.Repo{own}, []bool{false, false}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBot(t)
				b.front.repos = tt.named
				r := keyed(b)
				r.channelSettings(func(s *Settings) { s.Trust, s.SetUp, s.Repos = true, "npm ci", []runner.Repo{own} }, nil)
				b.answered(r, r.accept(turn("1.0", "x", true)))
				if got := r.session().InUse.Trust; got != tt.want[0] {
					t.Errorf("the session shows trust %v, want %v", got, tt.want[0])
				}
				r.channelSettings(func(s *Settings) { s.Repos = tt.after }, nil)
				b.answered(r, r.accept(turn("2.0", "y", false)))
				for i, take := range b.runner.taken() {
					if got := take.Turn.Settings; got.Trust != tt.want[i] || (got.SetUp != "") != tt.want[i] {
						t.Errorf("turn %d: trust %v, set-up %q, want %v", i+1, got.Trust, got.SetUp, tt.want[i])
					}
				}
			})
		}
	})
	t.Run("a single run has them as well", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := keyed(b)
		r.channelSettings(func(s *Settings) { s.Model, s.Region = "haiku", "ord" }, nil)
		once := turn("1.0", "x", true)
		once.Kind = KindOnce
		b.answered(r, r.accept(once))
		if got := b.runner.taken()[0].Turn.Settings.Model; got != "haiku" {
			t.Errorf("model = %s, want haiku", got)
		}
	})
	t.Run("a secret that cannot be opened ends the turn with a reason before anything is made, and the thread goes on with the key", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := keyed(b)
		r.channelSettings(func(s *Settings) { s.Secrets = []string{"NPM_TOKEN"} }, map[string]string{"NPM_TOKEN": "npm_0123456789"})
		r.stop()
		keyless := b.replica(nil).start()
		out := b.answered(keyless, keyless.accept(turn("1.0", "x", true)))
		if out.Failure != runner.FailSettings || !strings.Contains(out.Error, "NPM_TOKEN: FLAUDEBOT_SECRETS_KEY is not set") {
			t.Errorf("outcome = %+v", out)
		}
		b.have(0, 0)
		keyless.stop()
		if out := b.answered(keyed(b), r.accept(turn("2.0", "y", false))); out.Failure != runner.FailNone {
			t.Errorf("with the key: %+v", out)
		}
	})
	t.Run("settings that cannot be read end the turn with a reason", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := keyed(b)
		r.channelSettings(func(s *Settings) { s.Model = "opus" }, nil)
		if err := b.rdb.HSet(t.Context(), r.store.settings(thread().Team, thread().Channel), "json", "{").Err(); err != nil {
			t.Fatal(err)
		}
		if out := b.answered(r, r.accept(turn("1.0", "x", true))); out.Failure != runner.FailSettings || !strings.Contains(out.Error, "damaged settings") {
			t.Errorf("outcome = %+v", out)
		}
		b.have(0, 0)
	})
	t.Run("a turn that has started is followed whatever becomes of the settings", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := keyed(b)
		r.channelSettings(func(s *Settings) { s.Secrets = []string{"NPM_TOKEN"} }, map[string]string{"NPM_TOKEN": "npm_0123456789"})
		held := r.accept(turn("1.0", "hold", true))
		b.until("the turn at work", func() bool { return b.runner.ran(held.ID) == 1 })
		r.stop()
		keyless := b.replica(nil).start()
		b.runner.release()
		if out := b.answered(keyless, held); out.Failure != runner.FailNone || b.runner.ran(held.ID) != 1 {
			t.Errorf("outcome = %+v, it ran %d times", out, b.runner.ran(held.ID))
		}
	})
}

// TestResize: a session whose channel wants another machine gets it at its next turn, on the same volume and with the rest of its config.
func TestResize(t *testing.T) {
	t.Parallel()
	small := Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 512}
	begun := func(t *testing.T, linger time.Duration) (*bot, *replica, fly.Machine) {
		t.Helper()
		b := newBot(t)
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Env = map[string]string{"TZ": "UTC"} }).start()
		r.channelSettings(func(s *Settings) { s.Linger = new(linger) }, nil)
		b.answered(r, r.accept(turn("1.0", "x", true)))
		before := b.machinesIn(testApp)[0]
		r.channelSettings(func(s *Settings) { s.Guest = small }, nil)
		return b, r, before
	}
	updates := func(b *bot, mach fly.Machine) int {
		return b.asked("POST /v1/apps/" + testApp + "/machines/" + mach.ID + " ")
	}
	for name, linger := range map[string]time.Duration{"asleep": 0, "lingering": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, r, before := begun(t, linger)
			if out := b.answered(r, r.accept(turn("2.0", "y", false))); out.Failure != runner.FailNone {
				t.Fatalf("outcome = %+v", out)
			}
			after := b.machinesIn(testApp)[0]
			if after.ID != before.ID || *after.Config.Guest != small || after.InstanceID == before.InstanceID {
				t.Errorf("machine %s has %+v, want %s with %+v", after.ID, after.Config.Guest, before.ID, small)
			}
			after.Config.Guest, before.Config.Guest = nil, nil
			was, is := asJSON(t, before.Config), asJSON(t, after.Config)
			for _, config := range []map[string]any{was, is} {
				delete(config, "guest")
			}
			if diff := cmp.Diff(was, is); diff != "" {
				t.Errorf("the rest of the config changed (-was +is):\n%s", diff)
			}
			b.answered(r, r.accept(turn("3.0", "z", false)))
			if n := updates(b, after); n != 1 {
				t.Errorf("it was updated %d times, want once", n)
			}
			b.have(1, 1)
		})
	}
	for name, fault := range map[string]map[string]any{
		"where Fly does not take it":          {"method": "machine.update", "status": 409, "nth": 1},
		"where Fly takes it, and has no room": {"method": "machine.start", "status": 409, "nth": 1},
	} {
		t.Run("the turn runs on the machine as it was "+name+", and the next one tries again", func(t *testing.T) {
			t.Parallel()
			b, r, before := begun(t, 0)
			b.faults(fault)
			out := b.answered(r, r.accept(turn("2.0", "y", false)))
			if got := *b.machinesIn(testApp)[0].Config.Guest; out.Failure != runner.FailNone || got != *before.Config.Guest || r.session().Guest == small {
				t.Errorf("outcome = %+v, machine has %+v, on record is %+v", out, got, r.session().Guest)
			}
			if !slices.Contains(b.front.told(), sayOldSize) {
				t.Errorf("it is told %q, want that the size stays", b.front.told())
			}
			b.faults(nil)
			b.answered(r, r.accept(turn("3.0", "z", false)))
			if got := *b.machinesIn(testApp)[0].Config.Guest; got != small || r.session().Guest != small {
				t.Errorf("machine %s has %+v, want %+v", before.ID, got, small)
			}
		})
	}
	t.Run("an update whose answer was lost is not made again", func(t *testing.T) {
		t.Parallel()
		b, r, before := begun(t, 0)
		b.faults(map[string]any{"method": "machine.update", "nth": 1, "drop": true, "after_effect": true})
		if out := b.answered(r, r.accept(turn("2.0", "y", false))); out.Failure != runner.FailNone || *b.machinesIn(testApp)[0].Config.Guest != small {
			t.Errorf("outcome = %+v", out)
		}
		if n := updates(b, before); n != 1 {
			t.Errorf("it was updated %d times, want once", n)
		}
		if s := r.session(); s.Guest != small {
			t.Errorf("on record is %+v", s.Guest)
		}
	})
	t.Run("a machine whose new size nobody came to note gets its old one back where there is no room", func(t *testing.T) {
		t.Parallel()
		b, r, before := begun(t, 0)
		config := *before.Config
		config.Guest = &small
		if _, err := b.fly.UpdateMachine(t.Context(), testApp, before.ID, fly.UpdateMachine{Config: &config, SkipLaunch: true}, ""); err != nil {
			t.Fatal(err)
		}
		b.faults(map[string]any{"method": "machine.start", "status": 409, "nth": 1})
		out := b.answered(r, r.accept(turn("2.0", "y", false)))
		if got := *b.machinesIn(testApp)[0].Config.Guest; out.Failure != runner.FailNone || got != *before.Config.Guest || r.session().Guest != got {
			t.Errorf("outcome = %+v, machine has %+v, on record is %+v", out, got, r.session().Guest)
		}
	})
	t.Run("a machine that somebody else has resized is left so", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("1.0", "x", true)))
		mach := b.machinesIn(testApp)[0]
		big := Guest{CPUKind: "performance", CPUs: 4, MemoryMB: 8192}
		config := *mach.Config
		config.Guest = &big
		if _, err := b.fly.UpdateMachine(t.Context(), testApp, mach.ID, fly.UpdateMachine{Config: &config, SkipLaunch: true}, ""); err != nil {
			t.Fatal(err)
		}
		b.answered(r, r.accept(turn("2.0", "y", false)))
		if got := *b.machinesIn(testApp)[0].Config.Guest; got != big {
			t.Errorf("it has %+v, want %+v", got, big)
		}
	})
	t.Run("no turn that may be at work is disturbed", func(t *testing.T) {
		t.Parallel()
		b, r, _ := begun(t, time.Minute)
		held := r.accept(turn("2.0", "hold", false))
		b.until("the turn at work", func() bool { return b.runner.ran(held.ID) == 1 })
		r.channelSettings(func(s *Settings) { s.Guest = Guest{CPUKind: "shared", CPUs: 2, MemoryMB: 1024} }, nil)
		r.stop()
		next := b.replica(nil).start()
		b.runner.release()
		if out := b.answered(next, held); out.Failure != runner.FailNone || b.runner.ran(held.ID) != 1 || *b.machinesIn(testApp)[0].Config.Guest != small {
			t.Errorf("outcome = %+v, it ran %d times", out, b.runner.ran(held.ID))
		}
	})
}

func asJSON(t *testing.T, v any) map[string]any {
	t.Helper()
	raw, err := json.Marshal(v)
	var out map[string]any
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
