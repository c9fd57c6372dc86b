package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
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
		{"serve --help", 0, "--env-file FILE", ""},
		{"demo --help", 0, "Usage: flaudebot demo", ""},
		{"demo --help", 0, "--redis URL", ""},
		{"demo --help", 0, "FLAUDEBOT_BUDGET_PER_TURN=0.01 flaudebot demo", ""},
		{"demo --nonsense", 2, "", "not defined: -nonsense\nUsage: flaudebot demo "},
		{"demo now", 2, "", "flaudebot demo takes no arguments besides its flags"},
		{"demo --agent gpt", 1, "", "--agent gpt: want scripted, cli or auto"},
		{"local --boot -1s", 1, "", "--boot -1s: want a time such as 300ms, or 0"},
		{"local --slack 0.0.0.0:0", 1, "", "0.0.0.0:0 is not a loopback address"},
		{"run --help", 0, "Usage: flaudebot run", ""},
		{"run --help", 0, "--env-file FILE", ""},
		{"run", 2, "", "there is no prompt"},
		{"run hello --env-file f", 2, "", "--env-file stands behind a prompt: flags come first"},
		{"run hello --file=f", 2, "", "--file stands behind a prompt: flags come first"},
		{"run explain the flag --json of jq", 2, "", "flags come first, or put -- before the prompt\nUsage: flaudebot run [--parallel N]"},
		{"costs --env-file=", 2, "", "want the name of a file\nUsage: flaudebot costs"},
		{"--env-file= costs", 2, "", "--env-file: want the name of a file"},
		{"--env-file", 2, "", "--env-file: want the name of a file"},
		{"costs --env-file 1 --env-file 2", 2, "", "1 is named already, and one file it is\nUsage: flaudebot costs"},
		{"--env-file 1 --env-file=2 costs", 2, "", "--env-file: 1 is named already, and one file it is"},
		{"local --help", 0, "FLAUDEBOT_REPOS alone counts here", ""},
		{"sessions --help", 0, "Usage: flaudebot sessions list | end THREAD | reap [--dry-run]", ""},
		{"sessions --help", 0, "--env-file FILE", ""},
		{"sessions list --help", 0, "Usage: flaudebot sessions", ""},
		{"sessions list --dry-run", 2, "", "flaudebot sessions reap [--dry-run]"},
		{"sessions", 2, "", "Usage: flaudebot sessions list"},
		{"sessions end", 2, "", "flaudebot sessions end THREAD"},
		{"sessions reap --now", 2, "", "not defined: -now"},
		{"costs --help", 0, "Usage: flaudebot costs", ""},
		{"costs --help", 0, "--env-file FILE", ""},
		{"audit --help", 0, "--env-file FILE", ""},
		{"audit --env-file nowhere", 1, "", "nowhere: no such file or directory"},
		{"doctor --help", 0, "--env-file FILE", ""},
		{"deploy --help", 0, "--env-file FILE", ""},
		{"costs now", 2, "", "flaudebot costs takes no arguments"},
		{"costs --by week", 2, "", "--by week: want session, channel or person"},
		{"costs --month November", 2, "", `"November" is no month`},
		{"runner --help", 0, "Usage: flaudebot runner [VERB]", ""},
		{"manifest", 0, "socket_mode_enabled: true", ""},
		{"version", 0, "flaudebot ", ""},
		{"--version", 0, "flaudebot ", ""},
		{"-v", 0, "flaudebot ", ""},
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

// TestNoSettings: whoever runs a command without settings is told of the file that may have them; whoever named one is not.
func TestNoSettings(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(file, []byte("FLAUDEBOT_LOG_LEVEL=warn\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for command, hint := range map[string]string{
		"serve":         " serve --env-file flaudebot.env (",
		"run hello":     " run --env-file flaudebot.env … (",
		"sessions list": " sessions --env-file flaudebot.env … (",
		"costs":         " costs --env-file flaudebot.env (",
		"audit":         " audit --env-file flaudebot.env (",
		"doctor":        " doctor --env-file flaudebot.env, if they are there (",
		"deploy":        " deploy --env-file flaudebot.env, if they are there (",
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(command)
			cmd := self(t.Context(), []string{"PATH="}, args...)
			out, _ := cmd.CombinedOutput()
			if !strings.Contains(string(out), hint) || !strings.Contains(string(out), " setup writes ") || cmd.ProcessState.ExitCode() == 0 {
				t.Errorf("exit %d, printed\n%swant %q", cmd.ProcessState.ExitCode(), out, hint)
			}
			if oneOf(args[0], "doctor", "deploy") && !strings.HasPrefix(string(out), "warning  settings  settings are missing in the environment, and no file of them was named") {
				t.Errorf("printed\n%swant that first", out)
			}
			named := slices.Concat(args[:1], []string{"--env-file", file}, args[1:])
			if out, _ := self(t.Context(), []string{"PATH="}, named...).CombinedOutput(); strings.Contains(string(out), "flaudebot.env") || !strings.Contains(string(out), "is not set") {
				t.Errorf("%v printed\n%s", named, out)
			}
		})
	}
	t.Run("the file may be named anywhere among the words", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{
			{"--env-file", file, "sessions", "list"}, {"--env-file=" + file, "sessions", "list", "--env-file", file}, {"sessions", "--env-file", file, "list"}, {"sessions", "list", "--env-file", file}, {"costs", "--month", "2026-11", "--env-file=" + file},
		} {
			if out, _ := self(t.Context(), nil, args...).CombinedOutput(); !strings.Contains(string(out), "REDIS_URL is not set") || strings.Contains(string(out), "flaudebot.env") {
				t.Errorf("%v printed\n%s", args, out)
			}
		}
	})
	t.Run("a second file is refused", func(t *testing.T) {
		t.Parallel()
		cmd := self(t.Context(), nil, "--env-file", file, "costs", "--env-file", file+".old")
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), file+" is named already") {
			t.Errorf("exit %d, printed\n%s", cmd.ProcessState.ExitCode(), out)
		}
	})
}
