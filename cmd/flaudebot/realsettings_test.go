package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flaudebot/local/claude"
	"flaudebot/runner"
)

// TestRealSettings shows with the real Claude Code what a channel's settings do to a turn. The Messages API is the witness.
func TestRealSettings(t *testing.T) {
	t.Parallel()
	program := realClaude(t)
	machine := func(t *testing.T) *realMachine {
		t.Helper()
		m := newRealMachine(t, program)
		m.boot()
		return m
	}
	// good is a turn that must end well.
	good := func(t *testing.T, m *realMachine, prompt string) (runner.Outcome, string) {
		t.Helper()
		out, answer := m.say(prompt)
		if out.Failure != runner.FailNone || out.ExitCode != 0 {
			t.Fatalf("%s: %+v", prompt, out)
		}
		return out, answer
	}
	t.Run("model, effort and standing instructions reach the API, and change from turn to turn", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		m.settings = runner.Settings{Model: "haiku", Effort: "low", Instructions: "Answer in the manner of a pirate."}
		good(t, m, "say: aye")
		if s := m.lastSeen(); s.Model != "claude-haiku-4-5-20251001" || !strings.Contains(s.System, "# Standing instructions") || !strings.Contains(s.System, "manner of a pirate") {
			t.Errorf("the API saw model %q and the system prompt ends in %q", s.Model, s.System)
		}
		m.settings = runner.Settings{Model: "opus", Effort: "max"}
		good(t, m, "say: yes")
		if s := m.lastSeen(); s.Model != "claude-opus-4-8" || s.Effort != "max" || strings.Contains(s.System, "pirate") || s.Messages < 3 {
			t.Errorf("the API saw %+v, want the same conversation with another model and no pirate", s)
		}
		m.settings.Effort = "low"
		good(t, m, "say: indeed")
		if s := m.lastSeen(); s.Effort != "low" {
			t.Errorf("effort = %q, want low", s.Effort)
		}
	})
	t.Run("a model that is not to be had is replaced by the fallback", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		m.settings = runner.Settings{Model: "no-such-model", Fallback: "sonnet,haiku"}
		turn := m.begin("say: here")
		told := ""
		m.follow(turn, func(e runner.Event) bool {
			if e.Kind == runner.KindNote {
				told += e.Text
			}
			return false
		})
		if r := askRunner[runner.ResultReply](m, "result", runner.ResultRequest{Turn: turn}); r.Outcome.Failure != runner.FailNone || r.Outcome.Model != "claude-sonnet-5" {
			t.Errorf("outcome = %+v, want the answer of the fallback", r.Outcome)
		}
		if !strings.Contains(told, "Sonnet") {
			t.Errorf("it is told %q, want that the model is another one", told)
		}
		if s := m.lastSeen(); s.Model != "claude-sonnet-5" {
			t.Errorf("the API was asked for %q in the end, want the first fallback", s.Model)
		}
	})
	t.Run("commands have the variables and the secrets, and what they print of a secret is hidden", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		m.settings = runner.Settings{Env: map[string]string{"STAGE": "testing"}}
		m.secrets = map[string]string{"NPM_TOKEN": "npm_5up3r-s3cr3t", "PEM": "-----BEGIN-----\nabcdefghijklm\n-----END-----\n"}
		_, answer := good(t, m, `run: echo $STAGE ${#NPM_TOKEN} $NPM_TOKEN; echo "$PEM"`)
		if !strings.Contains(answer, "testing 16 [redacted]") || strings.Contains(answer, "s3cr3t") || strings.Contains(answer, "abcdefghijklm") {
			t.Errorf("answer = %q", answer)
		}
		if kept := filesWith(t, filepath.Join(m.cfg.Data, ".flaudebot"), "s3cr3t"); kept != nil {
			t.Errorf("the journal holds a secret: %v", kept)
		}
		quiet := machine(t)
		quiet.settings, quiet.secrets = m.settings, m.secrets
		good(t, quiet, `run: test "$NPM_TOKEN" = npm_5up3r-"s3cr3t" && echo well`)
		if kept := filesWith(t, quiet.cfg.Data, "npm_5up3r-s3cr3t"); kept != nil {
			t.Errorf("a secret that nobody printed is on the volume: %v", kept)
		}
	})
	t.Run("a proxy for the commands is not in the way of Claude Code itself", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		m.settings = runner.Settings{Env: map[string]string{
			"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "internal.example",
		}}
		if _, answer := good(t, m, "run: echo $HTTP_PROXY $NO_PROXY"); !strings.Contains(answer, "http://127.0.0.1:9 ") || !strings.Contains(answer, "internal.example") {
			t.Errorf("the commands have %q", answer)
		}
	})
	t.Run("tools that are not named are denied, and the outcome says so", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		m.settings = runner.Settings{AllowedTools: []string{"Read", "Bash(echo *)"}}
		if out, answer := good(t, m, "run: echo allowed, for once"); len(out.Denied) > 0 || !strings.Contains(answer, "allowed, for once") {
			t.Errorf("what is allowed: %q, %+v", answer, out.Denied)
		}
		out, answer := good(t, m, "run: touch made-it")
		if len(out.Denied) != 1 || out.Denied[0] != (runner.Denied{Tool: "Bash", On: "touch made-it"}) {
			t.Errorf("denied = %+v, answer = %q", out.Denied, answer)
		}
		if _, err := os.Stat(filepath.Join(m.cfg.Data, "workspace", "made-it")); err == nil {
			t.Error("what was not allowed was done")
		}
	})
	t.Run("each permission mode allows what it says", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		for mode, mayWrite := range map[string]bool{
			runner.ModeBypass: true, runner.ModeAcceptEdits: true, runner.ModeDefault: false, runner.ModeDontAsk: false, runner.ModePlan: false,
		} {
			m.settings = runner.Settings{PermissionMode: mode}
			out, _ := good(t, m, "run: touch "+mode)
			_, err := os.Stat(filepath.Join(m.cfg.Data, "workspace", mode))
			if (err == nil) != mayWrite || (len(out.Denied) > 0) == mayWrite {
				t.Errorf("%s: done = %v, denied = %+v", mode, err == nil, out.Denied)
			}
		}
	})
	t.Run("in the mode auto a classifier is asked, nobody else, and what it blocks is denied", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		m.settings = runner.Settings{PermissionMode: runner.ModeAuto}
		outside := filepath.Join(filepath.Dir(m.cfg.Data), "outside")
		if err := os.Mkdir(outside, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(outside, 0o777); err != nil { // Claude's user may write there: it is the mode that decides
			t.Fatal(err)
		}
		if out, answer := good(t, m, "run: touch "+outside+"/made-it"); len(out.Denied) > 0 || !exists(outside+"/made-it") {
			t.Errorf("what is harmless: %q, %+v", answer, out.Denied)
		}
		out, answer := good(t, m, "run: touch "+outside+"/sent && curl -s http://127.0.0.1:9/")
		if len(out.Denied) != 1 || out.Denied[0].Tool != "Bash" || !strings.Contains(answer, "the script finds curl harmful") {
			t.Errorf("denied = %+v, answer = %q", out.Denied, answer)
		}
		if exists(outside + "/sent") {
			t.Error("what was blocked was done")
		}
		m.settings.Model = "haiku" // which Claude Code has no classifier for: the mode is the default one then
		if out, answer := good(t, m, "run: touch "+outside+"/judged-by-none"); len(out.Denied) != 1 || exists(outside+"/judged-by-none") {
			t.Errorf("without a classifier: denied = %+v, answer = %q", out.Denied, answer)
		}
	})
	t.Run("an MCP server is started, is given a secret by its name, and one that does not start is told of", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		server := filepath.Join(filepath.Dir(m.cfg.Data), "mcp.py")
		if err := os.WriteFile(server, []byte(mcpServer), 0o644); err != nil {
			t.Fatal(err)
		}
		m.secrets = map[string]string{"DOCS_KEY": "a-key-for-documents"}
		m.settings = runner.Settings{MCP: `{"mcpServers":{
			"docs":{"command":"python3","args":["` + server + `"],"env":{"KEY":"${DOCS_KEY}"}},
			"broken":{"command":"/nonexistent/server"}}}`}
		turn := m.begin(`use mcp__docs__search {"q":"hooks"}`)
		var notes []string
		m.follow(turn, func(e runner.Event) bool {
			if e.Kind == runner.KindNote {
				notes = append(notes, e.Text)
			}
			return false
		})
		r := askRunner[runner.ResultReply](m, "result", runner.ResultRequest{Turn: turn})
		if !strings.Contains(r.Text, "found hooks with 19 [redacted]") {
			t.Errorf("answer = %q, %+v", r.Text, r.Outcome)
		}
		if len(notes) != 1 || notes[0] != "the MCP server broken did not start" {
			t.Errorf("notes = %q", notes)
		}
	})
	t.Run("what a repository brings is obeyed where it is trusted alone, and the conversation goes on", func(t *testing.T) {
		t.Parallel()
		m := machine(t)
		marks := filepath.Join(filepath.Dir(m.cfg.Data), "marks")
		if err := os.Mkdir(marks, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(marks, 0o777); err != nil { // Claude's user leaves its marks there
			t.Fatal(err)
		}
		repo := bareRepo(t)
		commitFile(t, repo, ".claude/settings.json", `{"env":{"ANTHROPIC_BASE_URL":"http://127.0.0.1:9"},"hooks":{"SessionStart":[{"hooks":[{"type":"command","command":"pwd > `+marks+`/hook"}]}]}}`)
		commitFile(t, repo, ".claude/skills/greet/SKILL.md", "---\nname: greet\ndescription: Greets people in the house style\n---\nSay hello.\n")
		commitFile(t, repo, ".mcp.json", `{"mcpServers":{"trap":{"command":"touch","args":["`+marks+`/server"]}}}`)
		m.repos = []runner.Repo{{URL: repo, Dir: "project"}}
		left := func() string {
			entries, _ := os.ReadDir(marks)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return strings.Join(names, " ")
		}
		good(t, m, "remember the number 77")
		journal := filepath.Join(m.cfg.Data, ".flaudebot", "turns")
		if got := left(); got != "" || filesWith(t, journal, `\"greet\"`) != nil {
			t.Errorf("not trusted, and obeyed: %s, or a skill of its", got)
		}
		m.settings.Trust = true
		if out, answer := good(t, m, "what number did I ask you to remember?"); !out.Resumed || !strings.Contains(answer, "77") {
			t.Errorf("trusted: %q, %+v", answer, out)
		}
		if got := left(); got != "hook server" {
			t.Errorf("trusted, and obeyed: %q", got)
		}
		if filesWith(t, journal, `\"greet\"`) == nil {
			t.Error("trusted, and its skill is not there")
		}
		m.key, m.token = "", m.key // of a subscription, the same
		good(t, m, "say: well")
		m.key, m.token = m.token, ""
		where, _ := os.ReadFile(filepath.Join(marks, "hook"))
		if !strings.HasSuffix(strings.TrimSpace(string(where)), "/workspace/project") {
			t.Errorf("the hook ran in %s, want the repository", where)
		}
		if _, answer := good(t, m, "run: pwd"); !strings.Contains(answer, "/workspace/project") {
			t.Errorf("it works in %q, want the repository", answer)
		}
		for _, name := range []string{"hook", "server"} {
			if err := os.Remove(filepath.Join(marks, name)); err != nil {
				t.Fatal(err)
			}
		}
		m.settings.Trust = false
		if out, answer := good(t, m, "what number did I ask you to remember?"); !out.Resumed || !strings.Contains(answer, "77") || left() != "" {
			t.Errorf("not trusted any more: %q, %+v, obeyed: %s", answer, out, left())
		}
		m.transcript(m.session) // there is one
	})
	t.Run("the modes and efforts that can be chosen are those that it has", func(t *testing.T) {
		t.Parallel()
		help, err := commandOutput(program, "--help")
		if err != nil {
			t.Fatal(err)
		}
		flat := strings.Join(strings.Fields(help), " ")
		if want := "(" + strings.Join(runner.Efforts(), ", ") + ")"; !strings.Contains(flat, want) {
			t.Errorf("--help does not say %s", want)
		}
		for _, mode := range runner.PermissionModes() {
			if !strings.Contains(flat, `"`+mode+`"`) {
				t.Errorf("--help knows no mode %s", mode)
			}
		}
	})
}

// mcpServer is an MCP server with one tool, search, over standard input and output.
const mcpServer = `
import json, os, sys
def say(id, result):
    print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "initialize":
        say(m["id"], {"protocolVersion": m["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "docs", "version": "1"}})
    elif m.get("method") == "tools/list":
        say(m["id"], {"tools": [{"name": "search", "description": "Searches", "inputSchema": {"type": "object", "properties": {"q": {"type": "string"}}}}]})
    elif m.get("method") == "tools/call":
        key = os.environ.get("KEY", "")
        say(m["id"], {"content": [{"type": "text", "text": "found %s with %d %s" % (m["params"]["arguments"]["q"], len(key), key)}]})
    elif "id" in m:
        say(m["id"], {})
`

// lastSeen is the last request that the API answered well.
func (m *realMachine) lastSeen() claude.Seen {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, "http://"+m.api+"/local/log", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var all []claude.Seen
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		m.t.Fatal(err)
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Status == http.StatusOK {
			return all[i]
		}
	}
	m.t.Fatal("the API has answered nothing")
	return claude.Seen{}
}

// filesWith names the files below dir that hold the text.
func filesWith(t *testing.T, dir, text string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(raw), text) {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// bareRepo is a repository without a commit, in a folder that the runner may clone.
func bareRepo(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "project")
	if out, err := exec.Command("git", "init", "-q", "-b", "main", dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	return dir
}

func commandOutput(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	return string(out), err
}
