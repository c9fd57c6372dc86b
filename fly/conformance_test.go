package fly_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
)

// waits loops until a machine of the test says hello or is told to end: its main process in all of these tests.
const mainProcess = `trap 'exit 7' TERM; echo hello >> "$FLAUDEBOT_DATA/log"; echo started; while :; do sleep 0.05; done`

// world is a local Fly with an app.
type world struct {
	*fly.Client
	t   *testing.T
	url string
	dir string
	srv *localfly.Server
}

const app = "acme"

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	srv, err := localfly.New(localfly.Config{Dir: dir, Runner: []string{"/bin/sh", "-c", mainProcess}})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(srv.Handler())
	t.Cleanup(func() {
		hs.Close()
		if err := srv.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	c, err := fly.New(fly.Config{BaseURL: hs.URL, LogsBaseURL: hs.URL, Token: "fly-local", Unlimited: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnsureApp(t.Context(), fly.CreateApp{Name: app, OrgSlug: "personal"}); err != nil {
		t.Fatal(err)
	}
	return &world{Client: c, t: t, url: hs.URL, dir: dir, srv: srv}
}

func config(volume string) *fly.MachineConfig {
	c := &fly.MachineConfig{
		Image: "any", Restart: &fly.Restart{Policy: "no"}, StopConfig: &fly.StopConfig{Signal: "SIGTERM", Timeout: fly.Duration(10 * time.Second)},
		Metadata: map[string]string{"managed_by": "test"},
	}
	if volume != "" {
		c.Mounts = []fly.Mount{{Volume: volume, Path: "/data"}}
	}
	return c
}

// started makes a volume and a machine that is started.
func (w *world) started(name string) (*fly.Volume, *fly.Machine) {
	w.t.Helper()
	vol, err := w.CreateVolume(w.t.Context(), app, fly.CreateVolume{Name: "v", Region: "fra", SizeGB: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := w.CreateMachine(w.t.Context(), app, fly.CreateMachine{Name: name, Region: "fra", Config: config(vol.ID)})
	if err != nil {
		w.t.Fatal(err)
	}
	return vol, w.wait(m.ID, "started")
}

func (w *world) wait(id string, states ...string) *fly.Machine {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	m, err := w.WaitMachine(ctx, app, id, fly.WaitMachine{States: states})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) exec(id, script string) *fly.ExecResult {
	w.t.Helper()
	res, err := w.Exec(w.t.Context(), app, id, fly.Exec{Command: []string{"sh", "-c", script}, Stdin: "from stdin", Timeout: 10 * time.Second}, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func TestMachineLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	vol, m := w.started("m1")

	t.Run("a command runs beside the main process and sees its volume", func(t *testing.T) {
		for range 100 { // the main process may need a moment to write
			if res := w.exec(m.ID, `cat "$FLAUDEBOT_DATA/log" 2>/dev/null; cat; exit 3`); strings.HasPrefix(res.Stdout, "hello") {
				if res.ExitCode != 3 || !strings.HasSuffix(res.Stdout, "from stdin") {
					t.Errorf("exec = %+v, want exit 3 and its input", res)
				}
				return
			}
		}
		t.Error("the volume is not seen")
	})
	t.Run("a stop ends it with the code of its main process", func(t *testing.T) {
		if err := w.StopMachine(t.Context(), app, m.ID, fly.StopMachine{}, ""); err != nil {
			t.Fatal(err)
		}
		stopped := w.wait(m.ID, "stopped")
		exit, ok := stopped.LastExit()
		if !ok || exit.ExitCode != 7 || !exit.RequestedStop {
			t.Errorf("LastExit = %+v, %v, want 7 on request", exit, ok)
		}
	})
	t.Run("a command is refused while it is stopped", func(t *testing.T) {
		_, err := w.Exec(t.Context(), app, m.ID, fly.Exec{Command: []string{"true"}, Timeout: time.Second}, "")
		if !errors.Is(err, fly.ErrPrecondition) {
			t.Errorf("Exec = %v, want ErrPrecondition", err)
		}
	})
	t.Run("it starts again just after its end, on the same volume", func(t *testing.T) {
		if err := w.StartMachine(t.Context(), app, m.ID, ""); err != nil {
			t.Fatal(err)
		}
		w.wait(m.ID, "started")
		if err := w.StartMachine(t.Context(), app, m.ID, ""); err != nil {
			t.Errorf("StartMachine of a started one = %v, want nil", err)
		}
	})
	t.Run("its name is taken as long as it lives", func(t *testing.T) {
		_, err := w.CreateMachine(t.Context(), app, fly.CreateMachine{Name: "m1", Config: config("")})
		var e *fly.Error
		if !errors.Is(err, fly.ErrNameTaken) || !errors.As(err, &e) || e.MachineID != m.ID {
			t.Errorf("CreateMachine = %v, want ErrNameTaken by %s", err, m.ID)
		}
	})
	t.Run("its volume stays until it is gone", func(t *testing.T) {
		if err := w.DeleteVolume(t.Context(), app, vol.ID); err == nil {
			t.Error("DeleteVolume of an attached volume = nil")
		}
		if err := w.DeleteMachine(t.Context(), app, m.ID, true, ""); err != nil {
			t.Fatal(err)
		}
		w.wait(m.ID, "destroyed")
		for range 2 {
			if err := w.DeleteVolume(t.Context(), app, vol.ID); err != nil {
				t.Errorf("DeleteVolume = %v, want nil, again as well", err)
			}
		}
		if vols, err := w.Volumes(t.Context(), app); err != nil || len(vols) != 0 {
			t.Errorf("Volumes = %v, %v, want none", vols, err)
		}
	})
}

func TestMachineLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	_, m := w.started("m1")
	ctx := t.Context()
	l, err := w.AcquireLease(ctx, app, m.ID, time.Minute, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AcquireLease(ctx, app, m.ID, time.Minute, "other"); !errors.Is(err, fly.ErrLeaseHeld) {
		t.Errorf("AcquireLease of a leased machine = %v, want ErrLeaseHeld", err)
	}
	if err := w.StopMachine(ctx, app, m.ID, fly.StopMachine{}, ""); !errors.Is(err, fly.ErrLeaseHeld) {
		t.Errorf("StopMachine without the nonce = %v, want ErrLeaseHeld", err)
	}
	if _, err := w.RefreshLease(ctx, app, m.ID, time.Minute, l.Nonce); err != nil {
		t.Errorf("RefreshLease = %v", err)
	}
	for range 2 {
		if err := w.ReleaseLease(ctx, app, m.ID, l.Nonce); err != nil {
			t.Errorf("ReleaseLease = %v, want nil, again as well", err)
		}
	}
	if err := w.StopMachine(ctx, app, m.ID, fly.StopMachine{}, ""); err != nil {
		t.Errorf("StopMachine after the release = %v", err)
	}
}

func TestMachineList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	_, m := w.started("m1")
	ctx := t.Context()
	if err := w.SetMetadata(ctx, app, m.ID, "thread", "t1"); err != nil {
		t.Fatal(err)
	}
	for want, f := range map[int]fly.MachineFilter{
		1: {Metadata: map[string]string{"thread": "t1", "managed_by": "test"}},
		0: {Metadata: map[string]string{"thread": "t2"}},
	} {
		if got, err := w.Machines(ctx, app, f); err != nil || len(got) != want {
			t.Errorf("Machines(%v) = %d, %v, want %d", f.Metadata, len(got), err, want)
		}
	}
}

func TestRestartOfFly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := localfly.New(localfly.Config{Dir: dir, Runner: []string{"/bin/sh", "-c", mainProcess}})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(first.Handler())
	c, err := fly.New(fly.Config{BaseURL: hs.URL, Token: "fly-local", Unlimited: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Client: c, t: t}
	if _, err := c.EnsureApp(t.Context(), fly.CreateApp{Name: app, OrgSlug: "personal"}); err != nil {
		t.Fatal(err)
	}
	_, m := w.started("m1")
	hs.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := newWorld(t, dir)
	got, err := again.Machine(t.Context(), app, m.ID)
	if err != nil || got.State != "stopped" {
		t.Fatalf("Machine = %+v, %v, want it stopped", got, err)
	}
	if exit, ok := got.LastExit(); !ok || exit.ExitCode == 0 {
		t.Errorf("LastExit = %+v, %v, want that it was killed", exit, ok)
	}
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("left out: root on Linux is not available")
	}
	w := newWorld(t, t.TempDir())
	vol, m := w.started("m1")
	res := w.exec(m.ID, `echo kept > /data/file; ls /proc | grep -c '^[0-9]'; mount | grep -c ' /data '`)
	lines := strings.Fields(res.Stdout)
	if len(lines) != 2 || len(lines[0]) > 1 || lines[1] != "1" {
		t.Errorf("processes and mounts of /data = %q, want a handful and 1", lines)
	}
	raw, err := os.ReadFile(filepath.Join(w.dir, "volumes", vol.ID, "file"))
	if err != nil || string(raw) != "kept\n" {
		t.Errorf("the volume's folder holds %q, %v, want what was written to /data", raw, err)
	}
}

// TestPlatform: which regions there are, and which of them have room just now.
func TestPlatform(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	all, nearest, err := w.Regions(t.Context())
	if err != nil || len(all) < 10 || nearest != "fra" || !slices.ContainsFunc(all, func(r fly.Region) bool { return r.Code == "iad" && !r.Deprecated }) {
		t.Errorf("Regions = %v, next %s, %v", all, nearest, err)
	}
	ask := fly.Placement{Org: "personal", Region: "iad,xxx", Compute: &fly.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 256}, Count: 1, VolumeBytes: 1 << 30}
	if placed, err := w.Placements(t.Context(), ask); err != nil || len(placed) != 1 || placed[0].Region != "iad" || placed[0].Count != 1 {
		t.Errorf("Placements = %v, %v, want iad alone", placed, err)
	}
	ask.Org = ""
	if _, err := w.Placements(t.Context(), ask); !errors.Is(err, fly.ErrInvalid) {
		t.Errorf("without an organization: %v", err)
	}
}
