package runner

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWarm: the Claude Code of one turn does the next, if the runner lingers and nothing is in doubt; else a new one resumes the conversation.
func TestWarm(t *testing.T) {
	t.Parallel()
	lingering := func(t *testing.T) *machine {
		t.Helper()
		m := newMachine(t)
		m.linger = 600
		return m.boot()
	}
	// which says which process does a turn of that prompt.
	which := func(t *testing.T, m *machine, prompt string, change func(*Turn, *Secrets)) (pid int, out Outcome) {
		t.Helper()
		turn, secrets := m.turn(prompt), Secrets{}
		if change != nil {
			change(&turn, &secrets)
		}
		out, answer := m.run(turn, secrets)
		pid, err := strconv.Atoi(strings.TrimSpace(answer))
		if err != nil || out.Failure != FailNone || out.ExitCode != 0 {
			t.Fatalf("outcome = %+v, %q", out, answer)
		}
		return pid, out
	}
	alive := func(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
	gone := func(t *testing.T, pid int) {
		t.Helper()
		if alive(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}

	t.Run("it does turn after turn, each with its own cost", func(t *testing.T) {
		t.Parallel()
		m := lingering(t)
		first, out := which(t, m, "which:", nil)
		if out.Lane != "" || out.Resumed {
			t.Errorf("the first outcome = %+v", out)
		}
		for range 3 {
			pid, out := which(t, m, "which:", nil)
			if pid != first || out.Lane != LaneProcess || out.CostUSD != 0.25 || !out.Resumed {
				t.Errorf("process %d after %d, outcome = %+v", pid, first, out)
			}
		}
		if !alive(first) {
			t.Error("it did not wait")
		}
		call[SleepReply](m, "sleep", SleepRequest{Fence: m.fence})
		m.exit()
		gone(t, first)
	})
	t.Run("it goes with its turn where the runner does not linger", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		first, _ := which(t, m, "which:", nil)
		gone(t, first)
		if pid, out := which(t, m, "which:", nil); pid == first || out.Lane != "" || !out.Resumed {
			t.Errorf("process %d after %d, outcome = %+v", pid, first, out)
		}
	})
	t.Run("an interrupted turn lets it stay", func(t *testing.T) {
		t.Parallel()
		m := lingering(t)
		first, _ := which(t, m, "which:", nil)
		turn := m.begin(m.turn("work:"), Secrets{})
		m.working(turn)
		m.stop(turn)
		if out, _ := m.end(turn); out.Failure != FailStopped || out.ExitCode != 130 || out.Lane != LaneProcess {
			t.Errorf("outcome = %+v", out)
		}
		if pid, _ := which(t, m, "which:", nil); pid != first {
			t.Errorf("process %d after %d", pid, first)
		}
	})

	t.Run("what its turn left behind ends all the same", func(t *testing.T) {
		t.Parallel()
		m := lingering(t)
		first, _ := which(t, m, "which:", nil)
		orphan, _ := which(t, m, "sh: setsid sleep 1000 >/dev/null 2>&1 & echo $!", nil)
		gone(t, orphan)
		if pid, _ := which(t, m, "which:", nil); pid != first {
			t.Errorf("process %d after %d", pid, first)
		}
	})
	t.Run("one that says nothing to the prompt is replaced", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.linger, m.cfg.Grace.Hear = 600, 300*time.Millisecond
		m.boot()
		first, _ := which(t, m, "which:", nil)
		if pid, out := which(t, m, "hesitate:", nil); pid == first || out.Lane != "" {
			t.Errorf("process %d after %d, outcome = %+v", pid, first, out)
		}
		gone(t, first)
	})

	// other runs a turn that a new process has to do.
	other := func(t *testing.T, before, after string, change func(*Turn, *Secrets)) {
		t.Helper()
		m := lingering(t)
		first, _ := which(t, m, before, nil)
		pid, out := which(t, m, after, change)
		if pid == first || out.Lane != "" || !out.Resumed {
			t.Errorf("process %d after %d, outcome = %+v", pid, first, out)
		}
		gone(t, first)
	}
	for name, change := range map[string]func(*Turn, *Secrets){
		"another model":      func(t *Turn, _ *Secrets) { t.Settings.Model = "opus" },
		"other instructions": func(t *Turn, _ *Secrets) { t.Settings.Instructions = "be brief" },
		"another variable":   func(t *Turn, _ *Secrets) { t.Settings.Env = map[string]string{"A": "b"} },
		"another secret":     func(_ *Turn, s *Secrets) { s.Env = map[string]string{"TOKEN": "abcdefgh"} },
		"another credential": func(_ *Turn, s *Secrets) { s.AnthropicAPIKey = "sk-another-one" },
		"another mode":       func(t *Turn, _ *Secrets) { t.Settings.PermissionMode = ModePlan },
	} {
		t.Run(name+" needs a new one", func(t *testing.T) {
			t.Parallel()
			other(t, "which:", "which:", change)
		})
	}
	t.Run("one that went without a word to the prompt is replaced", func(t *testing.T) {
		t.Parallel()
		other(t, "which:", "dodge:", nil)
	})
	t.Run("one that did something by itself is replaced", func(t *testing.T) {
		t.Parallel()
		other(t, "wander:", "which:", nil)
	})
	t.Run("one that left a command behind is not kept", func(t *testing.T) {
		t.Parallel()
		other(t, "linger:", "which:", nil)
	})
	t.Run("one that died is replaced", func(t *testing.T) {
		t.Parallel()
		m := lingering(t)
		first, _ := which(t, m, "which:", nil)
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); alive(first) && time.Now().Before(end); {
			m.hello()
		}
		if pid, out := which(t, m, "which:", nil); pid == first || out.Lane != "" {
			t.Errorf("process %d after %d, outcome = %+v", pid, first, out)
		}
	})
	t.Run("a turn that fails ends it", func(t *testing.T) {
		t.Parallel()
		m := lingering(t)
		first, _ := which(t, m, "which:", nil)
		if out, _ := m.say("raw: {\"type\":\"result\",\"is_error\":true,\"result\":\"no\"}"); out.Failure == FailNone {
			t.Errorf("outcome = %+v", out)
		}
		gone(t, first)
	})
	t.Run("a conversation that was cut back needs a new one", func(t *testing.T) {
		t.Parallel()
		m := lingering(t)
		first, _ := which(t, m, "which:", nil)
		if err := os.Truncate(m.transcript(), 10); err != nil {
			t.Fatal(err)
		}
		if pid, _ := which(t, m, "which:", nil); pid == first {
			t.Errorf("process %d goes on", pid)
		}
	})
}
