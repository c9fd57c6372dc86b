package runner

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMemory: who was killed while the kernel killed something for want of memory has run out of it.
func TestMemory(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.cfg.VMStat = filepath.Join(filepath.Dir(m.cfg.Data), "vmstat")
	if err := os.WriteFile(m.cfg.VMStat, []byte("oom_kill_none 9\noom_kill 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.boot()
	for _, c := range []struct {
		scene string
		want  Failure
		code  int
	}{
		{"die", FailKilled, 137},
		{"starve: " + m.cfg.VMStat, FailMemory, 137},
		{"die", FailKilled, 137}, // that was before
		{"hello", FailNone, 0},
	} {
		if out, _ := m.say(c.scene); out.Failure != c.want || out.ExitCode != c.code {
			t.Errorf("%s: outcome = %+v, want %s with %d", c.scene, out, c.want, c.code)
		}
	}
}
