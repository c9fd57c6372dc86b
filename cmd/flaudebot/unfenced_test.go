//go:build nofence || nofence_queue || nofence_clock || nofence_runner || nofence_look

package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestWithoutFences shows that the ledger notices: with a fence taken out, which the tag does, some strikes do not come out clean. It runs
// this program again for them, in pieces that hurt that fence, until one has.
func TestWithoutFences(t *testing.T) {
	t.Parallel()
	dirty := 0
	for _, s := range unfenced() {
		if dirty > 0 {
			break
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+s.test+"$", "-test.v", "-test.parallel", "8", "-test.timeout", "30m")
		cmd.Env = append(os.Environ(), s.env+"="+s.strikes, s.env+"_SEED=1")
		out, _ := cmd.CombinedOutput() // it fails: that is the point
		if !bytes.Contains(out, []byte("strikes ")) {
			t.Fatalf("%s did not come to its end:\n%s", s.test, tail(string(out), 4000))
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, ": DIRTY") {
				dirty++
			}
			if strings.Contains(line, "strikes ") || strings.Contains(line, ": DIRTY") || strings.Contains(line, "want ") {
				t.Logf("%s %s: %s", s.test, s.strikes, strings.TrimSpace(line))
			}
		}
	}
	if dirty == 0 {
		t.Error("every strike came out clean although a fence is missing: the ledger proves nothing about it")
	}
}

// piece is a choice of strikes, by the name of the requests.
type piece struct{ test, env, strikes string }

func kills(strikes string) piece  { return piece{"TestStrike", "FLAUDEBOT_TEST_STRIKES", strikes} }
func pauses(strikes string) piece { return piece{"TestPause", "FLAUDEBOT_TEST_PAUSES", strikes} }
