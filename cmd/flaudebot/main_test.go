package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestCommandLine: what is typed wrong is told apart from what was asked for, and help is no mistake.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args        string
		code        int
		out, errOut string // what is in them; "": nothing
	}{
		{"", 0, "Usage: flaudebot COMMAND", ""},
		{"help", 0, "Usage: flaudebot COMMAND", ""},
		{"frobnicate", 2, "", `unknown command "frobnicate"`},
		{"serve --help", 0, "SLACK_APP_TOKEN", ""},
		{"serve now", 2, "", "its settings come from the environment"},
		{"demo --help", 0, "", "Usage of demo"},
		{"demo --nonsense", 2, "", "not defined: -nonsense"},
		{"demo --agent gpt", 1, "", "--agent gpt: want scripted, cli or auto"},
		{"local --boot -1s", 1, "", "--boot -1s: want a time such as 300ms, or 0"},
		{"local --slack 0.0.0.0:0", 1, "", "0.0.0.0:0 is not a loopback address"},
		{"run --help", 0, "", "Usage of run"},
		{"run", 2, "", "there is no prompt"},
		{"sessions --help", 0, "Usage: flaudebot sessions list | end THREAD | reap [--dry-run]", ""},
		{"sessions", 2, "", "Usage: flaudebot sessions list"},
		{"sessions end", 2, "", "flaudebot sessions end THREAD"},
		{"sessions reap --now", 2, "", "flaudebot sessions reap [--dry-run]"},
		{"costs --help", 0, "", "Usage of costs"},
		{"costs now", 2, "", "flaudebot costs takes no arguments"},
		{"costs --by week", 2, "", "--by week: want session, channel or person"},
		{"costs --month November", 2, "", `"November" is no month`},
		{"runner --help", 0, "Usage: flaudebot runner [VERB]", ""},
		{"manifest", 0, "socket_mode_enabled: true", ""},
		{"version", 0, "flaudebot ", ""},
	} {
		t.Run("flaudebot "+c.args, func(t *testing.T) {
			t.Parallel()
			var out, errOut bytes.Buffer
			code := run(append([]string{"flaudebot"}, strings.Fields(c.args)...), strings.NewReader(""), &out, &errOut)
			if code != c.code {
				t.Errorf("exit code = %d, want %d", code, c.code)
			}
			for name, got := range map[string][2]string{"stdout": {out.String(), c.out}, "stderr": {errOut.String(), c.errOut}} {
				if !strings.Contains(got[0], got[1]) || (got[1] == "") != (got[0] == "") {
					t.Errorf("%s = %q, want %q", name, got[0], got[1])
				}
			}
		})
	}
}
