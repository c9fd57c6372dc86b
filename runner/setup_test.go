package runner

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// setUpTurn is a turn with a set-up command.
func (m *machine) setUpTurn(command string) Turn {
	t := m.turn("hello")
	t.Settings.SetUp = command
	return t
}

// TestSetUp: the set-up command is run once in a workspace, before Claude Code, as its user and with its variables.
func TestSetUp(t *testing.T) {
	t.Parallel()
	ran := func(m *machine) int {
		raw, _ := os.ReadFile(filepath.Join(m.cfg.workspace(), "ran"))
		return strings.Count(string(raw), "\n")
	}
	phases := func(m *machine, turn Turn) (out []Phase) {
		for _, e := range m.follow(turn, func(Event) bool { return false }) {
			if e.Kind == KindPhase {
				out = append(out, e.Phase)
			}
		}
		return out
	}
	t.Run("once, after the clone, across boots; a changed one again", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		repo := gitRepo(t, "main")
		first := m.setUpTurn("test -f branch && echo x >> ../ran")
		first.Repos = []Repo{{URL: repo}}
		m.begin(first, Secrets{})
		got := phases(m, first)
		if i := slices.Index(got, PhaseSetUp); i < 1 || got[i-1] != PhaseCloning || ran(m) != 1 {
			t.Fatalf("phases = %v, it ran %d times; want it once, after the clone", got, ran(m))
		}
		m.end(first)
		if err := m.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		m.exit()
		m.boot()
		again := m.setUpTurn(first.Settings.SetUp)
		again.Repos = first.Repos
		m.begin(again, Secrets{})
		if got := phases(m, again); slices.Contains(got, PhaseSetUp) || ran(m) != 1 {
			t.Errorf("phases = %v, it ran %d times; want it once", got, ran(m))
		}
		m.end(again)
		changed := m.setUpTurn("echo y >> ../ran")
		changed.Repos = first.Repos
		if out, _ := m.run(changed, Secrets{}); out.Failure != FailNone || ran(m) != 2 {
			t.Errorf("a changed command: %+v, ran %d times", out, ran(m))
		}
	})
	t.Run("with the channel's variables and secrets, and nothing else of ours", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.setUpTurn(`echo "$STAGE $NPM_TOKEN $ANTHROPIC_API_KEY $FLAUDEBOT_TEST_RUNNER" > seen`)
		turn.Settings.Env = map[string]string{"STAGE": "test"}
		if out, _ := m.run(turn, Secrets{AnthropicAPIKey: "sk-ant-0123456789", Env: map[string]string{"NPM_TOKEN": "npm_0123456789"}}); out.Failure != FailNone {
			t.Fatalf("outcome = %+v", out)
		}
		raw, err := os.ReadFile(filepath.Join(m.cfg.workspace(), "seen"))
		if err != nil || strings.TrimSpace(string(raw)) != "test npm_0123456789" {
			t.Errorf("it saw %q, %v", raw, err)
		}
	})
	t.Run("a failure ends the turn with the end of its output, secrets removed, and the next turn tries again", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.setUpTurn("seq 1 20000; echo token $NPM_TOKEN; test -f ready; echo not reached")
		secrets := Secrets{Env: map[string]string{"NPM_TOKEN": "npm_0123456789"}}
		out, answer := m.run(turn, secrets)
		if out.Failure != FailSetUp || out.ExitCode != 1 || answer != "" || out.Repos != nil {
			t.Errorf("outcome = %+v, %q; want it failed, and Claude Code never started", out, answer)
		}
		if !strings.Contains(out.Error, "exit code 1") || !strings.HasSuffix(out.Error, "\n20000\ntoken [redacted]") || len(out.Error) > 2000 {
			t.Errorf("error = %q", out.Error)
		}
		if err := os.WriteFile(filepath.Join(m.cfg.workspace(), "ready"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		turn.ID += "-again"
		if out, _ := m.run(turn, secrets); out.Failure != FailNone {
			t.Errorf("after it was mended: %+v", out)
		}
	})
	t.Run("one that takes too long is ended with all that it started", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.cfg.SetUp = 300 * time.Millisecond
		m.boot()
		out, _ := m.run(m.setUpTurn("setsid sh -c 'echo $$ > pid; sleep 1000' & echo waiting; sleep 1000"), Secrets{})
		if out.Failure != FailSetUp || out.ExitCode != 124 || out.Error != "the set-up command took longer than 300ms:\nwaiting" {
			t.Errorf("outcome = %+v", out)
		}
		m.goneAfter(t, "pid")
	})
	t.Run("a stop ends it, and it is run again", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.begin(m.setUpTurn("echo x >> ran; test -f quick || sleep 1000"), Secrets{})
		until(t, "it runs", func() bool { return ran(m) == 1 })
		m.stop(turn)
		if out, _ := m.end(turn); out.Failure != FailStopped || out.ExitCode != 130 {
			t.Errorf("outcome = %+v", out)
		}
		if err := os.WriteFile(filepath.Join(m.cfg.workspace(), "quick"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		turn.ID += "-again"
		if out, _ := m.run(turn, Secrets{}); out.Failure != FailNone || ran(m) != 2 {
			t.Errorf("again: %+v, ran %d times", out, ran(m))
		}
	})
	t.Run("one that a crash cut short is run again", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.begin(m.setUpTurn("echo x >> ran; test -f quick || sleep 1000"), Secrets{})
		until(t, "it runs", func() bool { return ran(m) == 1 })
		if err := m.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		m.exit()
		if err := os.WriteFile(filepath.Join(m.cfg.workspace(), "quick"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		m.boot()
		if r := m.take(turn, Secrets{}); r.Status != StatusInterrupted {
			t.Errorf("the turn itself: %+v, want interrupted", r)
		}
		turn.ID += "-again"
		if out, _ := m.run(turn, Secrets{}); out.Failure != FailNone || ran(m) != 2 {
			t.Errorf("the next turn: %+v, ran %d times", out, ran(m))
		}
	})
	t.Run("what it leaves running ends with it", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		if out, _ := m.run(m.setUpTurn("setsid sh -c 'echo $$ > pid; sleep 1000' > /dev/null 2>&1 & until test -s pid; do sleep 0.01; done"), Secrets{}); out.Failure != FailNone {
			t.Errorf("outcome = %+v", out)
		}
		m.goneAfter(t, "pid")
	})
}

// goneAfter fails unless the process whose id is in the workspace's file has ended.
func (m *machine) goneAfter(t *testing.T, file string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.cfg.workspace(), file))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || there(pid) {
		t.Errorf("process %s is still there (%v)", raw, err)
	}
}
