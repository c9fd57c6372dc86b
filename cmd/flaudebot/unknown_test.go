package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestUnknownSettings: what looks like a setting and is none is said, by its name alone, with what may be meant.
func TestUnknownSettings(t *testing.T) {
	t.Parallel()
	const value = "hunter2"
	for name, want := range map[string]string{ // "-": it is not noticed
		"FLAUDEBOT_BUDGET_PER_CHANEL":  "FLAUDEBOT_BUDGET_PER_CHANNEL",
		"FLAUDEBOT_BUGDET":             "FLAUDEBOT_BUDGET",
		"FLAUDEBOT_REGION":             "FLAUDEBOT_REGIONS",
		"FLAUDEBOT_TLL":                "FLAUDEBOT_TTL",
		"FLAUDBOT_TTL":                 "FLAUDEBOT_TTL",
		"flaudebot_ttl":                "FLAUDEBOT_TTL",
		"FLAUDEBOT_REDIS_URL":          "REDIS_URL",
		"FLAUDEBOT_GITHUB_TOKEN":       "GITHUB_TOKEN",
		"FLAUDEBOT_COFFEE":             "",
		"FLAUDEBOT_":                   "",
		"FLAUDEBOT_BUDGET_PER_CHANNEL": "-",
		"FLAUDEBOT_TEST_CLAUDE":        "-",
		"FLAUDEBOT_RUN_DIR":            "-",
		"FLAUDEBOT":                    "-",
		"GITHUB_TOKENS":                "-",
		"REDIS_URI":                    "-",
	} {
		got := unknownSettings([]string{"PATH=/bin", name + "=" + value})
		switch {
		case want == "-" && len(got) != 0, want != "-" && !slices.Equal(got, []unknownSetting{{name, want}}):
			t.Errorf("%s: %v, want %q", name, got, want)
		}
	}
	for _, name := range settingNames() {
		if strings.HasPrefix(name, "FLAUDEBOT_TEST_") || len(unknownSettings([]string{name + "="})) > 0 {
			t.Errorf("%s is a setting, and is taken for none", name)
		}
	}

	file := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(file, []byte("FLAUDEBOT_BUDGET_PER_CHANEL="+value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"FLAUDEBOT_COFFEE=" + value}
	const finding = "warning  settings  FLAUDEBOT_BUDGET_PER_CHANEL is no setting, and does nothing. Fix: call it FLAUDEBOT_BUDGET_PER_CHANNEL, if that is meant\n" +
		"warning  settings  FLAUDEBOT_COFFEE is no setting, and does nothing. Fix: remove it, or see `flaudebot serve --help` for what there is\n"
	for _, command := range []string{"doctor", "deploy", "setup"} {
		t.Run(command+" warns of it", func(t *testing.T) {
			t.Parallel()
			out, _ := self(t.Context(), append(env, "PATH="), command, "--env-file", file).CombinedOutput()
			if !strings.Contains(string(out), finding) || strings.Contains(string(out), value) {
				t.Errorf("printed\n%swant\n%s", out, finding)
			}
		})
	}
	for _, c := range []struct{ name, meant, command string }{
		{"FLAUDEBOT_FLY_AP", "FLAUDEBOT_FLY_APP", "serve"},
		{"FLAUDEBOT_FLY_AP", "FLAUDEBOT_FLY_APP", "run hello"},
		{"FLAUDEBOT_REDIS_URL", "REDIS_URL", "sessions list"},
		{"FLAUDEBOT_REDIS_URL", "REDIS_URL", "costs"},
		{"FLAUDEBOT_REDIS_URL", "REDIS_URL", "audit"},
	} {
		t.Run(c.command+" names it beside what is missing", func(t *testing.T) {
			t.Parallel()
			out, _ := self(t.Context(), []string{c.name + "=" + value}, strings.Fields(c.command)...).CombinedOutput()
			want := c.name + " is no setting, and does nothing: call it " + c.meant + ", if that is meant\n"
			if !strings.Contains(string(out), c.meant+" is not set") || strings.Count(string(out), want) != 1 || strings.Contains(string(out), value) {
				t.Errorf("printed\n%swant\n%s", out, want)
			}
		})
	}
	logged := []string{
		`level=WARN msg="this is no setting, and does nothing" setting=FLAUDEBOT_BUDGET_PER_CHANEL meant=FLAUDEBOT_BUDGET_PER_CHANNEL` + "\n",
		`level=WARN msg="this is no setting, and does nothing" setting=FLAUDEBOT_COFFEE meant=""` + "\n",
	}
	nowhere := "http://127.0.0.1:1/"
	needed := []string{
		"SLACK_APP_TOKEN=xapp-x", "SLACK_BOT_TOKEN=xoxb-x", "SLACK_API_URL=" + nowhere, "REDIS_URL=redis://127.0.0.1:1", "FLY_API_TOKEN=x", "FLY_FLAPS_BASE_URL=" + nowhere,
		"FLAUDEBOT_FLY_APP=x", "ANTHROPIC_API_KEY=x", "FLAUDEBOT_PATIENCE=1s",
	}
	for name, args := range map[string][]string{
		"serve": {"serve", "--env-file", file},
		"demo":  {"demo", "--env-file", file, "--slack", "127.0.0.1:0", "--fly", "127.0.0.1:0", "--claude", "127.0.0.1:0", "--git", "127.0.0.1:0"},
		"run":   {"run", "--env-file", file, "hello"},

		"sessions": {"sessions", "list", "--env-file", file},
		"costs":    {"costs", "--env-file", file},
		"audit":    {"audit", "--env-file", file},
	} {
		t.Run(name+" logs it", func(t *testing.T) {
			t.Parallel()
			p := launch(t, slices.Concat(needed, env), args...)
			newSlackWorld(t, p).until("the warnings", func() bool {
				return !slices.ContainsFunc(logged, func(line string) bool { return !strings.Contains(p.logs(), line) })
			})
			p.stop()
			if strings.Contains(p.logs(), value) {
				t.Errorf("a value is shown:\n%s", p.logs())
			}
		})
	}
}
