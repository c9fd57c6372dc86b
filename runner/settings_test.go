package runner

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFlags: settings become flags of Claude Code, each value as one argument that cannot be taken for another flag.
func TestFlags(t *testing.T) {
	t.Parallel()
	const guarded = " --setting-sources user --strict-mcp-config"
	for name, tt := range map[string]struct {
		settings Settings
		want     string
	}{
		"none":              {Settings{}, "--dangerously-skip-permissions" + guarded},
		"model and effort":  {Settings{Model: "opus", Fallback: "sonnet,haiku", Effort: "max"}, "--dangerously-skip-permissions" + guarded + " --model opus --fallback-model sonnet,haiku --effort max"},
		"a permission mode": {Settings{PermissionMode: ModePlan}, "--permission-mode plan" + guarded},
		"all is allowed":    {Settings{PermissionMode: ModeBypass}, "--dangerously-skip-permissions" + guarded},
		"tools":             {Settings{AllowedTools: []string{"Read", "Bash(git log *)"}}, "--permission-mode dontAsk" + guarded + " --allowedTools=Read --allowedTools=Bash(git log *)"},
		"tools in a mode":   {Settings{AllowedTools: []string{"Bash"}, PermissionMode: ModeAcceptEdits}, "--permission-mode acceptEdits" + guarded + " --allowedTools=Bash"},
		"MCP servers":       {Settings{MCP: `{"mcpServers":{}}`}, "--dangerously-skip-permissions" + guarded + ` --mcp-config={"mcpServers":{}}`},
		"trust":             {Settings{Trust: true}, "--dangerously-skip-permissions --setting-sources user,project"},
		"instructions": {
			Settings{Instructions: "--be brief"},
			"--dangerously-skip-permissions" + guarded + " --append-system-prompt # Standing instructions\n\nThe admins of the Slack channel that you work for have set these:\n\n--be brief",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			turn := &turn{Turn: Turn{Settings: tt.settings}, cfg: Config{Data: t.TempDir()}}
			if got := strings.Join(turn.flags(), " "); got != tt.want {
				t.Errorf("flags = %s\nwant    %s", got, tt.want)
			}
		})
	}
}

// TestSettingsRefused: what would be something else on a command line or in an environment never gets there.
func TestSettingsRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	for name, tt := range map[string]struct {
		settings Settings
		env      map[string]string
	}{
		"a flag as a model":             {Settings{Model: "--debug"}, nil},
		"a flag as a fallback":          {Settings{Fallback: "opus,-p"}, nil},
		"an unknown effort":             {Settings{Effort: "huge"}, nil},
		"an unknown mode":               {Settings{PermissionMode: "yolo"}, nil},
		"a flag as a tool":              {Settings{AllowedTools: []string{"--x"}}, nil},
		"MCP that is no JSON":           {Settings{MCP: "x"}, nil},
		"a variable of Claude Code's":   {Settings{Env: map[string]string{"ANTHROPIC_BASE_URL": "x"}}, nil},
		"a variable of the linker's":    {Settings{Env: map[string]string{"LD_PRELOAD": "x"}}, nil},
		"another one of the linker's":   {Settings{Env: map[string]string{"LD_AUDIT": "x"}}, nil},
		"where Git's settings are":      {Settings{Env: map[string]string{"XDG_CONFIG_HOME": "x"}}, nil},
		"a secret in such a variable":   {Settings{}, map[string]string{"CLAUDE_CODE_OAUTH_TOKEN": "x"}},
		"a value with a NUL byte":       {Settings{}, map[string]string{"TOKEN": "a\x00b"}},
		"a name that ends the variable": {Settings{}, map[string]string{"A=B": "x"}},
	} {
		turn := m.turn("hello")
		turn.Settings = tt.settings
		if r := m.take(turn, Secrets{Env: tt.env}); r.Status != StatusInvalid || r.Failure != FailSettings || r.Reason == "" {
			t.Errorf("%s: %+v, want it refused", name, r)
		}
	}
}

// TestCommandEnvironment: Claude Code has the channel's variables and secrets, beside what it had before.
func TestCommandEnvironment(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.turn("env:")
	turn.Settings.Env = map[string]string{"STAGE": "test", "TOKEN": "not this one"}
	out, answer := m.run(turn, Secrets{AnthropicAPIKey: "sk-ant-0123456789", Env: map[string]string{"TOKEN": "a-secret-of-the-channel"}})
	if out.Failure != FailNone || !strings.Contains(answer, "\nSTAGE=test\n") || !strings.Contains(answer, "\nTOKEN=[redacted]\n") || strings.Contains(answer, "sk-ant") {
		t.Errorf("outcome = %+v, answer:\n%s", out, answer)
	}
	if all := m.everything(); strings.Contains(all, "a-secret-of-the-channel") {
		t.Error("the secret is on the volume")
	}
	if out, answer := m.say("env:"); out.Failure != FailNone || strings.Contains(answer, "STAGE=") || strings.Contains(answer, "TOKEN=") {
		t.Errorf("the next turn, without them, has:\n%s", answer)
	}
}

// TestTrustedFolder: trust has Claude Code work in the repository, and the conversation moves along, there and back.
func TestTrustedFolder(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	repo := gitRepo(t, "main")
	say := func(trust bool) (Outcome, string) {
		turn := m.turn("env:")
		turn.Settings.Trust, turn.Repos = trust, []Repo{{URL: repo, Dir: "one"}, {URL: repo, Dir: "two"}}
		return m.run(turn, Secrets{})
	}
	at := func(dir string) string { return filepath.Join(m.cfg.workspace(), dir) }
	for i, trust := range []bool{false, true, true, false} {
		out, answer := say(trust)
		where, sources := at(""), "--setting-sources user --strict-mcp-config"
		if trust {
			where, sources = at("one"), "--setting-sources user,project"
		}
		if out.Failure != FailNone || out.Resumed != (i > 0) || !strings.Contains(answer, "\nCWD="+where+"\n") || !strings.Contains(answer, sources) {
			t.Errorf("turn %d: %+v, want it resumed in %s; it has:\n%s", i+1, out, where, answer)
		}
		if trust == strings.Contains(answer, "--add-dir "+at("one")) || !strings.Contains(answer, "--add-dir "+at("two")) {
			t.Errorf("turn %d: the folders beside it are wrong:\n%s", i+1, answer)
		}
	}
	if raw, err := os.ReadFile(m.transcript()); err != nil || strings.Count(string(raw), "\n") != 4 {
		t.Errorf("the conversation has %d turns, %v, want all four", strings.Count(string(raw), "\n"), err)
	}
	way := filepath.Join(m.cfg.claudeDir(), "projects", notAlnum.ReplaceAllString(at("one"), "-"))
	if err := errors.Join(os.RemoveAll(way), os.WriteFile(way, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, _ := say(true); out.Failure != FailStart || !strings.Contains(out.Error, "bring the conversation along") {
		t.Errorf("outcome = %+v, want none without the conversation", out)
	}
}

// TestDenied: what Claude wanted to do and was not allowed is told, secrets removed.
func TestDenied(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	line := jsonLine(map[string]any{
		"type": "result", "subtype": "success", "result": "I could not.", "permission_denials": []any{
			map[string]any{"tool_name": "Bash", "tool_use_id": "1", "tool_input": map[string]any{"command": "curl -H npm_0123456789 x\nand more"}},
			map[string]any{"tool_name": "Write", "tool_use_id": "2", "tool_input": map[string]any{"file_path": filepath.Join(m.cfg.workspace(), "a.txt")}},
		},
	})
	out, _ := m.run(m.turn("raw: "+line), Secrets{Env: map[string]string{"T": "npm_0123456789"}})
	want := []Denied{{Tool: "Bash", On: "curl -H [redacted] x …"}, {Tool: "Write", On: "a.txt"}}
	if out.Failure != FailNone || !slices.Equal(out.Denied, want) {
		t.Errorf("outcome = %+v, want denied %+v", out, want)
	}
}

// TestGitOrigins: the Git token goes nowhere but where the operator lets it.
func TestGitOrigins(t *testing.T) {
	t.Parallel()
	origins := func() []string {
		return gitOrigins([]Repo{{URL: "https://GitHub.com/a/b"}, {URL: "https://git.example/a/b"}})
	}
	if got := (Secrets{}).mayHave(origins()); len(got) != 2 {
		t.Errorf("without a list: %v, want both", got)
	}
	if got := (Secrets{GitOrigins: []string{"https://github.com"}}).mayHave(origins()); !slices.Equal(got, []string{"https://github.com"}) {
		t.Errorf("with a list: %v", got)
	}
	asked := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the host was asked") }))
	defer asked.Close()
	host := strings.TrimPrefix(asked.URL, "http://")
	atHost := &turn{
		Turn:    Turn{Settings: Settings{Forges: []Forge{{Host: host, Kind: ForgeGitHub}}}},
		secrets: Secrets{GitToken: "ghp_0123456789", GitOrigins: []string{"https://github.com"}},
	}
	var no refused
	if _, err := atHost.openPull(t.Context(), Repo{URL: asked.URL + "/a/b"}, Publish{}, "main"); !errors.As(err, &no) || no.failure != FailNoToken {
		t.Errorf("a pull request elsewhere: %v, want it said that there is no token for the place", err)
	}
	if got := (Secrets{GitOrigins: []string{}}).mayHave(origins()); len(got) != 0 {
		t.Errorf("with an empty list: %v", got)
	}
}
