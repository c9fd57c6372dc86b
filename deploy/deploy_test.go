package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"flaudebot/deploy"
)

func read(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestManifest(t *testing.T) {
	t.Parallel()
	var m struct {
		Display struct {
			Name string `yaml:"name"`
			Desc string `yaml:"description"`
		} `yaml:"display_information"`
		Features struct {
			Commands []struct {
				Command string `yaml:"command"`
				Escape  bool   `yaml:"should_escape"`
			} `yaml:"slash_commands"`
			Shortcuts []struct {
				Name, Type string
				Callback   string `yaml:"callback_id"`
			} `yaml:"shortcuts"`
		} `yaml:"features"`
		OAuth struct {
			Scopes struct{ Bot []string } `yaml:"scopes"`
		} `yaml:"oauth_config"`
		Settings struct {
			Events struct {
				Bot []string `yaml:"bot_events"`
			} `yaml:"event_subscriptions"`
			Socket bool `yaml:"socket_mode_enabled"`
		} `yaml:"settings"`
	}
	if err := yaml.Unmarshal(deploy.Manifest(), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Display.Name) > 35 || len(m.Display.Desc) > 140 {
		t.Errorf("name has %d and description %d characters, want at most 35 and 140", len(m.Display.Name), len(m.Display.Desc))
	}
	if !m.Settings.Socket {
		t.Error("Socket Mode is off")
	}
	if len(m.Features.Commands) != 1 || m.Features.Commands[0].Command != "/flaude" || !m.Features.Commands[0].Escape {
		t.Errorf("slash commands = %+v, want /flaude with escapes", m.Features.Commands)
	}
	if len(m.Features.Shortcuts) != 1 || m.Features.Shortcuts[0].Callback != "manage_session" || len(m.Features.Shortcuts[0].Name) > 24 {
		t.Errorf("shortcuts = %+v, want manage_session", m.Features.Shortcuts)
	}
	// Events and the scopes that Slack wants for them.
	for event, scope := range map[string]string{
		"app_mention": "app_mentions:read", "message.channels": "channels:history", "message.groups": "groups:history",
		"message.im": "im:history", "message.mpim": "mpim:history", "agent_session_stopped": "assistant:write",
	} {
		if !slices.Contains(m.Settings.Events.Bot, event) || !slices.Contains(m.OAuth.Scopes.Bot, scope) {
			t.Errorf("event %s and scope %s belong together, and one is missing", event, scope)
		}
	}
	// Methods that the bot calls and their scopes.
	for method, scope := range map[string]string{
		"chat.postMessage": "chat:write", "reactions.add": "reactions:write", "users.info": "users:read", "files upload": "files:write",
		"files download": "files:read", "usergroups.users.list": "usergroups:read", "conversations.members": "channels:read", "slash commands": "commands",
	} {
		if !slices.Contains(m.OAuth.Scopes.Bot, scope) {
			t.Errorf("%s needs the scope %s", method, scope)
		}
	}
}

func TestDockerfiles(t *testing.T) {
	t.Parallel()
	bot, session := read(t, "Dockerfile"), read(t, "session.Dockerfile")
	for name, want := range map[string]string{
		"the bot's entry point":      `ENTRYPOINT ["/usr/local/bin/flaudebot"]`,
		"the bot is not root":        "USER nonroot",
		"the bot's binary is static": "CGO_ENABLED=0",
	} {
		if !strings.Contains(bot, want) {
			t.Errorf("%s: Dockerfile lacks %q", name, want)
		}
	}
	for name, want := range map[string]string{
		"the runner is process 1":       `ENTRYPOINT ["/usr/local/bin/flaudebot", "runner"]`,
		"Claude Code has its own user":  "--uid 10001",
		"Claude Code is pinned":         "tools/claude-code/package-lock.json",
		"what turns use is there":       "git gh jq ripgrep",
		"no credential is in the image": "npm ci",
	} {
		if !strings.Contains(session, want) {
			t.Errorf("%s: session.Dockerfile lacks %q", name, want)
		}
	}
	if regexp.MustCompile(`(?i)\b(token|api_key|secret)\s*=`).MatchString(bot + session) {
		t.Error("an image sets something that looks like a secret")
	}
}

func TestFlyTOML(t *testing.T) {
	t.Parallel()
	toml := read(t, "fly.toml")
	for _, want := range []string{`kill_signal = "SIGTERM"`, `kill_timeout = "30s"`, `bot = "serve"`, `strategy = "rolling"`} {
		if !strings.Contains(toml, want) {
			t.Errorf("fly.toml lacks %s", want)
		}
	}
	if strings.Contains(toml, "[http_service]") || strings.Contains(toml, "[[services]]") {
		t.Error("fly.toml opens a port")
	}
}

func TestPinOfClaudeCode(t *testing.T) {
	t.Parallel()
	var pkg struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err := json.Unmarshal([]byte(read(t, "../tools/claude-code/package.json")), &pkg); err != nil {
		t.Fatal(err)
	}
	v := pkg.Dependencies["@anthropic-ai/claude-code"]
	if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(v) {
		t.Errorf("version = %q, want one exact version", v)
	}
	if strings.Contains(read(t, "../tools/claude-code/package-lock.json"), `"resolved"`) {
		t.Error("the lock file names a registry's host")
	}
}

func TestStaticBinary(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "flaudebot")
	cmd := exec.Command("go", "build", "-o", out, "../cmd/flaudebot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if raw, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, raw)
	}
	raw, err := exec.Command(out, "manifest").Output()
	if err != nil || string(raw) != string(deploy.Manifest()) {
		t.Errorf("flaudebot manifest = %d bytes, %v, want the manifest", len(raw), err)
	}
}
