package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

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
		slack := newSlackWorld(t, w.proc)
		slack.until("two machines at work", func() bool {
			n := 0
			for _, m := range flyList(t, "http://"+w.fly, "test-app", "machines") {
				if m["state"] == "started" {
					n++
				}
			}
			return n == 2
		})
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
