package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

const (
	postVolume  = "POST /v1/apps/acme/volumes"
	postMachine = "POST /v1/apps/acme/machines 200" // a creation, and neither a start nor an update
)

func TestCreate(t *testing.T) {
	t.Parallel()
	t.Run("a volume of 1 GB, unless the settings or the session say otherwise", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for _, c := range []struct{ settings, session, want int }{{0, 0, 1}, {5, 0, 5}, {0, 3, 3}, {5, 2, 2}} {
			m := w.machines(func(cfg *MachinesConfig) { cfg.VolumeGB = c.settings })
			s := m.Begin(Spec{Thread: thread(), VolumeGB: c.session}, time.Now())
			if err := m.Create(t.Context(), &s, keepNothing); err != nil {
				t.Fatal(err)
			}
			vol, err := w.fly.Volume(t.Context(), testApp, s.VolumeID)
			if err != nil || vol.SizeGB != c.want {
				t.Errorf("settings %d GB, session %d GB: the volume has %+v, %v; want %d GB", c.settings, c.session, vol, err, c.want)
			}
		}
	})
	t.Run("each id is stored before the next step", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		m := w.machines(nil)
		s := m.Begin(Spec{Thread: thread()}, time.Now())
		var saves []Session
		err := m.Create(t.Context(), &s, func(_ context.Context, s Session) error {
			saves = append(saves, s)
			if n := w.asked("POST /v1/apps/acme/machines"); n != len(saves)-1 {
				t.Errorf("save %d came after %d machine creations", len(saves), n)
			}
			return nil
		})
		if err != nil || len(saves) != 2 {
			t.Fatalf("Create = %v with %d saves, want 2", err, len(saves))
		}
		if saves[0].VolumeID == "" || saves[0].MachineID != "" {
			t.Errorf("the first save is %+v, want the volume alone", saves[0])
		}
		if saves[1].MachineID == "" || saves[1].VolumeID != saves[0].VolumeID {
			t.Errorf("the second save is %+v, want machine and volume", saves[1])
		}
	})
	t.Run("nothing is made for what exists", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		for range 3 {
			if err := sc.m.Create(t.Context(), &sc.s, sc.save); err != nil {
				t.Fatal(err)
			}
		}
		sc.have(1, 1)
	})
	t.Run("the machine is made where its volume is, whatever the settings say now", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.ensureApp("older")
		old := w.machines(func(cfg *MachinesConfig) { cfg.App, cfg.Regions = "older", []string{"ams"} })
		s := old.Begin(Spec{Thread: thread()}, time.Now())
		if err := old.createVolume(t.Context(), &s, keepNothing); err != nil {
			t.Fatal(err)
		}
		m := w.machines(nil)
		if err := m.Create(t.Context(), &s, keepNothing); err != nil {
			t.Fatalf("Create = %v", err)
		}
		if got := w.machinesIn("older"); len(got) != 1 || got[0].Region != "ams" || s.AppName != "older" || s.Region != "ams" {
			t.Errorf("the older app has %+v, and the session says %s in %s", got, s.AppName, s.Region)
		}
		if err := m.Destroy(t.Context(), s); err != nil {
			t.Fatalf("Destroy = %v", err)
		}
		if left := len(w.machinesIn("older")) + len(w.volumesIn("older")); left != 0 {
			t.Errorf("%d things are left in the older app", left)
		}
	})
	t.Run("settings that were mended count until there is something on Fly", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		s := w.machines(func(cfg *MachinesConfig) { cfg.App, cfg.Regions = "mistyped", []string{"nowhere"} }).Begin(Spec{Thread: thread()}, time.Now())
		if err := w.machines(nil).Create(t.Context(), &s, keepNothing); err != nil || s.AppName != testApp || s.Region != "fra" {
			t.Errorf("Create = %v for %s in %s, want it in %s", err, s.AppName, s.Region, testApp)
		}
	})
}

func keepNothing(context.Context, Session) error { return nil }

// TestCreateAgain: whatever the crash, one volume and one machine are made and in the end on record.
func TestCreateAgain(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	failing := func(nth int) func(*script) Save { // the n-th save does not come to pass
		return func(sc *script) Save {
			return func(ctx context.Context, s Session) error {
				if nth--; nth == 0 {
					return crash
				}
				return sc.save(ctx, s)
			}
		}
	}
	saving := func(sc *script) Save { return sc.save }
	for name, c := range map[string]struct {
		fault map[string]any
		save  func(*script) Save
	}{
		"after the volume was made, before it was stored":  {nil, failing(1)},
		"after the machine was made, before it was stored": {nil, failing(2)},
		"when the answer of the volume's creation is lost": {map[string]any{"method": "volume.create", "nth": 1, "drop": true, "after_effect": true}, saving},
		"when the volume's creation fails":                 {map[string]any{"method": "volume.create", "nth": 1, "status": 503}, saving},
		"when the machine's creation fails":                {map[string]any{"method": "machine.create", "nth": 1, "status": 503}, saving},
		"when the volumes cannot be listed":                {map[string]any{"method": "volume.list", "nth": 1, "status": 500}, saving},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			sc.saved = sc.s
			if c.fault != nil {
				sc.faults(c.fault)
			}
			if err := sc.m.Create(t.Context(), &sc.s, c.save(sc)); err == nil {
				t.Fatal("Create = nil: the crash did not happen")
			}
			again := sc.saved // all that the next owner knows
			if err := sc.m.Create(t.Context(), &again, sc.save); err != nil {
				t.Fatalf("Create after the crash = %v", err)
			}
			sc.have(1, 1)
			if n := sc.asked(postVolume + " 200"); c.fault == nil && n != 1 {
				t.Errorf("%d volumes were made", n)
			}
			if n := sc.asked(postMachine); n != 1 {
				t.Errorf("%d machines were made", n)
			}
			if m, v := sc.machinesIn(testApp), sc.volumesIn(testApp); sc.saved.MachineID != m[0].ID || sc.saved.VolumeID != v[0].ID {
				t.Errorf("on record are %s and %s, on Fly %s and %s", sc.saved.MachineID, sc.saved.VolumeID, m[0].ID, v[0].ID)
			}
		})
	}
	t.Run("when the answer of the machine's creation is lost, it is found at once", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.faults(map[string]any{"method": "machine.create", "nth": 1, "drop": true, "after_effect": true})
		if err := sc.m.Create(t.Context(), &sc.s, sc.save); err != nil || sc.saved.MachineID == "" {
			t.Fatalf("Create = %v with %+v", err, sc.saved)
		}
		sc.have(1, 1)
	})
	t.Run("a machine of that name without the session's mark is not adopted", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		_, err := sc.world.fly.CreateMachine(t.Context(), testApp, fly.CreateMachine{
			Name: machineName(sc.s.SessionID), Region: "fra", Config: &fly.MachineConfig{Image: "other"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := sc.m.Create(t.Context(), &sc.s, sc.save); !errors.Is(err, fly.ErrNameTaken) || sc.s.MachineID != "" {
			t.Errorf("Create = %v with machine %q, want ErrNameTaken", err, sc.s.MachineID)
		}
	})
}

func TestCreateFails(t *testing.T) {
	t.Parallel()
	noRoom := map[string]any{
		"method": "machine.create", "nth": 1, "status": 422, "body": `{"error":"could not find a candidate host","status":"insufficient_capacity"}`,
	}
	for name, c := range map[string]struct {
		change func(*Session)
		fault  map[string]any
		left   int
	}{
		"no room: the volume of a session without a conversation goes":            {func(*Session) {}, noRoom, 0},
		"no room: that of one whose turns never came to the machine goes as well": {func(s *Session) { s.Turns = 2 }, noRoom, 0},
		"no room: the volume of a session with a conversation stays":              {func(s *Session) { s.State = []runner.RepoState{} }, noRoom, 1},
		"no room: the volume that a turn was handed over on stays":                {func(s *Session) { s.Handed = true }, noRoom, 1},
		"no answer: the volume stays, since the machine may have been made":       {func(*Session) {}, map[string]any{"method": "machine.create", "nth": 1, "status": 503}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			c.change(&sc.s)
			sc.faults(c.fault)
			if err := sc.m.Create(t.Context(), &sc.s, sc.save); err == nil {
				t.Fatal("Create = nil, want a failure")
			}
			sc.have(0, c.left)
			if kept := sc.saved.VolumeID != ""; kept != (c.left == 1) {
				t.Errorf("the record says volume %q, and there are %d", sc.saved.VolumeID, c.left)
			}
		})
	}
}

func TestMachineConfig(t *testing.T) {
	t.Parallel()
	sc := newWorld(t).script(func(cfg *MachinesConfig) {
		cfg.Image, cfg.Env = "registry/session:1", map[string]string{"TZ": "UTC"}
		cfg.Secrets = runner.Secrets{AnthropicAPIKey: "sk-secret-1", GitToken: "ghp-secret-2"}
		cfg.Repos = []runner.Repo{{URL: "https://example.com/one.git", Branch: "main", Dir: "here"}}
	})
	if out := sc.turn("the prompt"); out.ExitCode != 0 {
		t.Fatalf("the turn ended with %+v", out)
	}
	mach, err := sc.world.fly.Machine(t.Context(), testApp, sc.s.MachineID)
	if err != nil {
		t.Fatal(err)
	}
	cfg := mach.Config
	t.Run("image, guest and environment are those of the settings", func(t *testing.T) {
		t.Parallel()
		if cfg.Image != "registry/session:1" || cfg.Env["TZ"] != "UTC" || *cfg.Guest != (fly.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 4096}) {
			t.Errorf("the machine has %+v on %+v", cfg, cfg.Guest)
		}
	})
	t.Run("the guest can be another", func(t *testing.T) {
		t.Parallel()
		small := fly.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 512}
		m, err := NewMachines(MachinesConfig{Fly: sc.world.fly, App: testApp, Regions: []string{"fra"}, Image: "i", Guest: small})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.machineConfig(m.Begin(Spec{}, time.Now())).Guest; *got != small {
			t.Errorf("the guest is %+v, want %+v", got, small)
		}
		if got := m.machineConfig(sc.s).Guest; *got != *cfg.Guest {
			t.Errorf("that of a session that has a machine is %+v, want %+v", got, cfg.Guest)
		}
	})
	t.Run("the region is that of the settings", func(t *testing.T) {
		t.Parallel()
		if mach.Region != "fra" || sc.s.Region != "fra" {
			t.Errorf("the machine is in %q, the session in %q, want fra", mach.Region, sc.s.Region)
		}
	})
	t.Run("it is never restarted nor destroyed by itself, and stops by TERM", func(t *testing.T) {
		t.Parallel()
		if cfg.Restart.Policy != "no" || cfg.AutoDestroy || cfg.StopConfig == nil || cfg.StopConfig.Signal != "SIGTERM" {
			t.Errorf("restart %+v, auto_destroy %v, stop %+v", cfg.Restart, cfg.AutoDestroy, cfg.StopConfig)
		}
	})
	t.Run("the volume is at /data", func(t *testing.T) {
		t.Parallel()
		if len(cfg.Mounts) != 1 || cfg.Mounts[0] != (fly.Mount{Volume: sc.s.VolumeID, Path: "/data"}) {
			t.Errorf("mounts = %v", cfg.Mounts)
		}
	})
	t.Run("it is marked as ours, with session and thread", func(t *testing.T) {
		t.Parallel()
		want := map[string]string{"managed_by": "flaudebot", "flaudebot_session": sc.s.SessionID, "flaudebot_thread": thread().Key()}
		for k, v := range want {
			if cfg.Metadata[k] != v {
				t.Errorf("metadata = %v, want %s = %s", cfg.Metadata, k, v)
			}
		}
	})
	t.Run("it holds no prompt and no secret", func(t *testing.T) {
		t.Parallel()
		raw, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"the prompt", "sk-secret-1", "ghp-secret-2"} {
			if strings.Contains(string(raw), word) {
				t.Errorf("the machine's config holds %q: %s", word, raw)
			}
		}
	})
	t.Run("prompt, secrets, session id and repositories go with the turn", func(t *testing.T) {
		t.Parallel()
		got := sc.runner.taken()[0]
		if got.Turn.Prompt != "the prompt" || got.Secrets.AnthropicAPIKey != "sk-secret-1" || got.Secrets.GitToken != "ghp-secret-2" ||
			got.Turn.SessionID != sc.s.SessionID || len(got.Turn.Repos) != 1 || got.Turn.Repos[0] != (runner.Repo{URL: "https://example.com/one.git", Branch: "main", Dir: "here"}) {
			t.Errorf("the runner was handed %+v", got)
		}
	})
}

func TestEnsureApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machines(func(cfg *MachinesConfig) { cfg.App = "fresh" })
	for range 2 {
		if err := m.EnsureApp(t.Context()); err != nil {
			t.Fatalf("EnsureApp = %v, want nil, again as well", err)
		}
	}
	if n := w.asked("POST /v1/apps 201"); n != 2 { // the world's own is the other
		t.Errorf("%d apps were made, want the missing one once", n)
	}
	if app, err := w.fly.App(t.Context(), "fresh"); err != nil || app.Network != "fresh" {
		t.Errorf("App = %+v, %v, want it on a network of its own", app, err)
	}
	if apps, err := w.fly.Apps(t.Context(), "personal"); err != nil || len(apps) != 2 {
		t.Errorf("the organization has %v, %v, want both apps", apps, err)
	}
}

// TestIsolate: the app gets one network policy that lets nothing into sessions, beside those that it has.
func TestIsolate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machines(nil)
	other := fly.NetworkPolicy{
		Name: "ours", Selector: fly.PolicySelector{Metadata: map[string]string{"role": "web"}},
		Rules: []fly.PolicyRule{{Action: "allow", Direction: "egress", Ports: []fly.PolicyPort{{Protocol: "tcp", Port: 443}}}},
	}
	if err := w.fly.CreateNetworkPolicy(t.Context(), testApp, other); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Isolate(t.Context()); err != nil {
			t.Fatalf("Isolate = %v, want nil, again as well", err)
		}
	}
	if n := w.asked("POST /v1/apps/" + testApp + "/network_policies 201"); n != 2 {
		t.Errorf("%d policies were made, want one beside the other", n)
	}
	for name, want := range map[string]bool{policyName: true, "ours": true, "else": false} {
		if got, err := w.fly.HasNetworkPolicy(t.Context(), testApp, name); err != nil || got != want {
			t.Errorf("HasNetworkPolicy(%s) = %v, %v, want %v", name, got, err, want)
		}
	}
	if err := w.machines(func(c *MachinesConfig) { c.App = "nowhere" }).Isolate(t.Context()); !errors.Is(err, fly.ErrNotFound) {
		t.Errorf("Isolate of no app = %v", err)
	}
}

func TestNewMachines(t *testing.T) {
	t.Parallel()
	client := newWorld(t).fly
	for name, cfg := range map[string]MachinesConfig{
		"a client is needed": {App: "a", Image: "i"},
		"an app is needed":   {Fly: client, Image: "i"},
		"an image is needed": {Fly: client, App: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if m, err := NewMachines(cfg); err == nil {
				t.Errorf("NewMachines = %v, want an error", m)
			}
		})
	}
}

func TestDestroy(t *testing.T) {
	t.Parallel()
	created := func(t *testing.T) *script {
		t.Helper()
		sc := newWorld(t).script(nil)
		if err := sc.m.Create(t.Context(), &sc.s, sc.save); err != nil {
			t.Fatal(err)
		}
		return sc
	}
	gone := func(t *testing.T, sc *script) {
		t.Helper()
		if err := sc.m.Destroy(t.Context(), sc.s); err != nil {
			t.Fatalf("Destroy = %v", err)
		}
		sc.have(0, 0)
	}
	t.Run("machine and volume go, and again is no error", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		for range 3 {
			gone(t, sc)
		}
	})
	t.Run("half done: the machine is gone, the volume there", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		sc.faults(map[string]any{"method": "volume.delete", "nth": 1, "status": 503})
		if err := sc.m.Destroy(t.Context(), sc.s); !errors.Is(err, fly.ErrUnavailable) {
			t.Fatalf("Destroy = %v, want Fly's failure", err)
		}
		sc.have(0, 1)
		gone(t, sc)
	})
	t.Run("half done: both are gone and Fly has forgotten them", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		sc.s.MachineID, sc.s.VolumeID = "00000000000000", "vol_00000000000000000"
		if err := sc.m.Destroy(t.Context(), sc.s); err != nil {
			t.Errorf("Destroy of what is not there = %v", err)
		}
		sc.have(1, 1) // and nothing else goes
	})
	t.Run("what a crash kept off the record is found by its name", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		sc.s.MachineID, sc.s.VolumeID = "", ""
		gone(t, sc)
	})
	t.Run("a session of which nothing was made needs nothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		if err := w.machines(func(c *MachinesConfig) { c.App = "absent" }).Destroy(t.Context(), Session{AppName: "absent", SessionID: w.script(nil).s.SessionID}); err != nil {
			t.Errorf("Destroy in an app that is not there = %v", err)
		}
		if err := w.machines(nil).Destroy(t.Context(), Session{Thread: thread()}); err != nil {
			t.Errorf("Destroy of nothing = %v", err)
		}
	})
	t.Run("a running machine goes as well", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		sc.until("a started machine", func() bool { return sc.state() == "started" })
		gone(t, sc)
	})
	t.Run("a machine whose lease somebody holds stays, and its volume", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		if _, err := sc.world.fly.AcquireLease(t.Context(), testApp, sc.s.MachineID, time.Minute, "other"); err != nil {
			t.Fatal(err)
		}
		if err := sc.m.Destroy(t.Context(), sc.s); !errors.Is(err, fly.ErrLeaseHeld) {
			t.Errorf("Destroy = %v, want ErrLeaseHeld", err)
		}
		sc.have(1, 1)
	})
	t.Run("a machine and a volume without the session's mark are never touched", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		other := sc.m.Begin(Spec{Thread: thread()}, time.Now())
		other.MachineID, other.VolumeID = sc.s.MachineID, sc.s.VolumeID // a record that is wrong
		if err := sc.m.Destroy(t.Context(), other); err != nil {
			t.Errorf("Destroy = %v", err)
		}
		sc.have(1, 1)
	})
	t.Run("an empty list destroys nothing", func(t *testing.T) {
		t.Parallel()
		sc := created(t)
		sc.answering(func(w http.ResponseWriter, r *http.Request) bool {
			list := r.Method == http.MethodGet && (strings.HasSuffix(r.URL.Path, "/machines") || strings.HasSuffix(r.URL.Path, "/volumes"))
			if list {
				_, _ = w.Write([]byte("[]"))
			}
			return list
		})
		unknown := sc.s
		unknown.MachineID, unknown.VolumeID = "", ""
		if err := sc.m.Destroy(t.Context(), unknown); err != nil {
			t.Errorf("Destroy = %v", err)
		}
		sc.answering(nil)
		sc.have(1, 1)
		if n := sc.asked("DELETE "); n != 0 {
			t.Errorf("%d deletions were asked for", n)
		}
		gone(t, sc) // the ids on record do not need a list
	})
}

func TestEphemeral(t *testing.T) {
	t.Parallel()
	t.Run("the result tells all, and the machine is gone", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		res, err := sc.m.RunOnce(t.Context(), Spec{}, sc.run("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if res.MachineID == "" || res.ExitCode != 0 || res.State != "destroyed" || !res.Destroyed ||
			len(res.WorkspaceFiles) != 1 || res.WorkspaceFiles[0] != "a.txt" || res.Outcome.Answer != "answer to hello" || !res.Outcome.Destroyed {
			t.Errorf("RunOnce = %+v", res)
		}
		if mach, err := sc.world.fly.Machine(t.Context(), testApp, res.MachineID); err == nil && mach.State != "destroyed" {
			t.Errorf("machine %s is %s", res.MachineID, mach.State)
		}
		sc.have(0, 0)
		if n := sc.asked(postVolume); n != 0 {
			t.Errorf("%d volumes were made, want none", n)
		}
	})
	t.Run("the exit code is the turn's", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.runner.answers("events", func() (any, error) {
			return runner.EventsReply{Status: runner.StatusDone, Outcome: &runner.Outcome{ExitCode: 7, Failure: runner.FailClaude}}, nil
		})
		res, err := sc.m.RunOnce(t.Context(), Spec{}, sc.run("fail"))
		if err != nil || res.ExitCode != 7 || res.Outcome.Failure != runner.FailClaude || !res.Destroyed {
			t.Errorf("RunOnce = %+v, %v, want exit 7", res, err)
		}
		sc.have(0, 0)
	})
	t.Run("it is destroyed when the caller gives up in mid-turn", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := sc.run("hold")
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				cancel()
			}
			return nil
		}
		res, err := sc.m.RunOnce(ctx, Spec{}, r)
		if !errors.Is(err, context.Canceled) || !res.Destroyed || res.ExitCode != 130 || res.Outcome.Failure != runner.FailInterrupted {
			t.Errorf("RunOnce = %+v, %v, want it destroyed and exit 130", res, err)
		}
		sc.have(0, 0)
	})
	t.Run("it is destroyed when the caller gives up while it is made", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		sc.faults(map[string]any{"method": "machine.get", "delay_ms": 100})
		sc.answering(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/machines/") {
				cancel()
			}
			return false
		})
		res, err := sc.m.RunOnce(ctx, Spec{}, sc.run("hello"))
		if !errors.Is(err, context.Canceled) || !res.Destroyed {
			t.Errorf("RunOnce = %+v, %v, want it destroyed", res, err)
		}
		sc.have(0, 0)
	})
	t.Run("it is destroyed when its lease was taken and the answer lost", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.LeaseTTL, cfg.Patience = time.Second, time.Millisecond })
		sc.faults(map[string]any{"method": "machine.lease", "nth": 1, "drop": true, "after_effect": true})
		res, err := sc.m.RunOnce(t.Context(), Spec{}, sc.run("hello"))
		if err != nil || !res.Destroyed || res.Outcome.Failure != FailFly {
			t.Errorf("RunOnce = %+v, %v, want it destroyed after the lease ran out", res, err)
		}
		sc.have(0, 0)
	})
	t.Run("a machine that cannot be destroyed is said", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.faults(map[string]any{"method": "machine.delete", "status": 403})
		res, err := sc.m.RunOnce(t.Context(), Spec{}, sc.run("hello"))
		if !errors.Is(err, fly.ErrForbidden) || res.Destroyed || res.State != "unknown" || res.ExitCode != 0 {
			t.Errorf("RunOnce = %+v, %v, want that it is not destroyed", res, err)
		}
	})
	t.Run("one that was begun before is taken over and destroyed", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("hello")
		s := sc.m.ephemeral(r.Turn, Spec{}, time.Now())
		if err := sc.m.Create(t.Context(), &s, keepNothing); err != nil {
			t.Fatal(err)
		}
		res, err := sc.m.RunOnce(t.Context(), Spec{}, r)
		if err != nil || res.MachineID != s.MachineID || !res.Destroyed {
			t.Errorf("RunOnce = %+v, %v, want machine %s used and destroyed", res, err, s.MachineID)
		}
		sc.have(0, 0)
	})
}
