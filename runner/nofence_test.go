//go:build nofence || nofence_runner

package runner

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestWithoutJournal shows that TestCrashes notices: a runner that does not look into its journal runs a turn again that had begun.
func TestWithoutJournal(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestCrashes$", "-test.v", "-test.parallel", "4", "-test.timeout", "30m")
	cmd.Env = append(os.Environ(), "FLAUDEBOT_TEST_CRASHES=12", "FLAUDEBOT_TEST_CRASHES_SEED=1")
	out, _ := cmd.CombinedOutput() // it fails: that is the point
	dirty := 0
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "DIRTY") || strings.Contains(line, " ran ") {
			dirty++
			t.Log(strings.TrimSpace(line))
		}
	}
	if dirty == 0 {
		t.Errorf("every crash came out clean although the journal is not looked into:\n%s", out)
	}
}
