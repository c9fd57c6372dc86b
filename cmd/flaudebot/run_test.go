package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// atWork waits until so many machines of the world run.
func (w *split) atWork(t *testing.T, n int) {
	t.Helper()
	w.in(t).until("machines at work", func() bool {
		started := 0
		for _, m := range flyList(t, "http://"+w.fly, "test-app", "machines") {
			if m["state"] == "started" {
				started++
			}
		}
		return started == n
	})
}

// makeApp makes the app of the session machines, so that there is something to list before a run has made it.
func (w *split) makeApp(t *testing.T) {
	t.Helper()
	body := strings.NewReader(`{"app_name":"test-app","org_slug":"personal","network":"test-app"}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.fly+"/v1/apps", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer fly-local-test")
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("make the app: %v, %v", res, err)
	}
	_ = res.Body.Close()
}

// TestInterruptedRun: whoever interrupts a run leaves no machine behind, also where the signal comes twice.
func TestInterruptedRun(t *testing.T) {
	t.Parallel()
	t.Run("two signals at once are one as timeout sends them", func(t *testing.T) {
		t.Parallel()
		w := splitWorld(t)
		w.makeApp(t)
		p := launch(t, w.env, "run", "take 300 seconds")
		w.atWork(t, 1)
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGINT} {
			_ = p.cmd.Process.Signal(sig)
		}
		p.end(syscall.SIGTERM)
		if code := p.cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit %d, want 130", code)
		}
		if m := flyList(t, "http://"+w.fly, "test-app", "machines"); len(m) != 0 {
			t.Errorf("%v is left", m)
		}
		if said := p.logs(); strings.Count(said, "flaudebot: ") != 1 || !strings.Contains(said, "flaudebot: interrupted: what runs is stopped and its machine destroyed") {
			t.Errorf("it said\n%s\nwant that it is interrupted, and nothing more", said)
		}
	})
	t.Run("before it has begun as well", func(t *testing.T) {
		t.Parallel()
		w := splitWorld(t)
		p := launch(t, slices.Concat(w.env, []string{"REDIS_URL=redis://127.0.0.1:1"}), "run", "say: never")
		w.in(t).until("it waits", func() bool { return strings.Contains(p.logs(), "waiting for Redis") })
		p.end(syscall.SIGINT)
		if code := p.cmd.ProcessState.ExitCode(); code != 130 || strings.Contains(p.logs(), "context canceled") {
			t.Errorf("exit %d, want 130; it said\n%s", code, p.logs())
		}
	})
	t.Run("a later one kills what does not come to its end", func(t *testing.T) {
		t.Parallel()
		w := splitWorld(t)
		w.makeApp(t)
		p := launch(t, w.env, "run", "take 300 seconds")
		w.atWork(t, 1)
		_ = w.proc.cmd.Process.Signal(syscall.SIGSTOP) // Fly says nothing any more
		defer func() { _ = w.proc.cmd.Process.Signal(syscall.SIGCONT) }()
		began := time.Now()
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for running := true; running; {
			_ = p.cmd.Process.Signal(syscall.SIGINT)
			select {
			case <-p.done:
				running = false
			case <-again.C:
			}
		}
		state, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if took := time.Since(began); !state.Signaled() || took < signalGrace {
			t.Errorf("it ended with %s after %s, want it killed, and not before %s", p.cmd.ProcessState, took, signalGrace)
		}
	})
}

// TestRunEach: several prompts at once from the command line, each on a machine that is gone in the end.
func TestRunEach(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	nothingLeft := func(t *testing.T) {
		t.Helper()
		if m, v := flyList(t, "http://"+w.fly, "test-app", "machines"), flyList(t, "http://"+w.fly, "test-app", "volumes"); len(m)+len(v) != 0 {
			t.Errorf("%v and %v are left", m, v)
		}
	}
	t.Run("arguments and lines of a file are prompts, and each result is printed as it comes", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "prompts")
		if err := os.WriteFile(file, []byte("say: from a line\n\n  fail with 7\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := self(t.Context(), w.env, "run", "--parallel", "2", "--file", file, "--json", "run: sleep 6; echo slow", "say: one")
		var log strings.Builder
		cmd.Stderr = &log
		out, _ := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("exit %d, want 1, since one failed\n%s", code, log.String())
		}
		var order []int
		codes := map[int]int{}
		for line := range strings.Lines(string(out)) {
			var r ranOnce
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			order = append(order, r.N)
			codes[r.N] = r.ExitCode
			want := map[int]string{1: "slow", 2: "one", 3: "from a line"}[r.N]
			if !strings.Contains(r.Answer, want) || !r.Destroyed || r.Machine == "" {
				t.Errorf("result %+v, want %q in its answer", r, want)
			}
		}
		if !maps.Equal(codes, map[int]int{1: 0, 2: 0, 3: 0, 4: 7}) || slices.Index(order, 2) > slices.Index(order, 1) {
			t.Errorf("results came as %v with %v, want the slow one after a quick one", order, codes)
		}
		nothingLeft(t)
	})
	t.Run("standard input, in words", func(t *testing.T) {
		cmd := self(t.Context(), w.env, "run", "--file", "-")
		cmd.Stdin = strings.NewReader("say: hello\n")
		out, err := cmd.Output()
		if text := string(out); err != nil || !strings.HasPrefix(text, "== 1 · exit 0 · ") || !strings.HasSuffix(text, " · say: hello\nhello\n") {
			t.Errorf("printed %q, %v", text, err)
		}
		nothingLeft(t)
	})
	t.Run("Ctrl-C ends them all, and destroys their machines", func(t *testing.T) {
		p := launch(t, w.env, "run", "--parallel", "2", "take 300 seconds", "take 200 seconds", "say: never")
		w.atWork(t, 2)
		p.end(syscall.SIGINT)
		if code := p.cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit %d, want 130", code)
		}
		nothingLeft(t)
	})
	for name, args := range map[string][]string{
		"too many at once":   {"--parallel", "1000", "x"},
		"no prompt":          {"--parallel", "2", " "},
		"no file":            {"--file", "/nonexistent"},
		"a number too small": {"--parallel", "-1", "x"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			cmd := self(t.Context(), w.env, append([]string{"run"}, args...)...)
			if out, err := cmd.CombinedOutput(); err == nil || len(out) == 0 {
				t.Errorf("printed %q, %v", out, err)
			}
		})
	}
}
