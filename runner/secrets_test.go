package runner

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRedactor(t *testing.T) {
	t.Parallel()
	s := Secrets{AnthropicAPIKey: `sk-ant"/<key>\+1`, ClaudeOAuthToken: "oauth-token-1", GitToken: "ghp_0123456789", GitUsername: "robot", AnthropicBaseURL: "https://api.example"}
	hide := redactor(s)
	in := func(v any) string { raw, _ := json.Marshal(v); return string(raw) }
	for name, text := range map[string]string{
		"as it is":         s.AnthropicAPIKey + " " + s.ClaudeOAuthToken + s.GitToken,
		"in JSON":          in(map[string]string{"a": s.AnthropicAPIKey}),
		"in other JSON":    strings.ReplaceAll(strings.ReplaceAll(in(s.AnthropicAPIKey), `\u003c`, "<"), `\u003e`, ">"),
		"in a query":       "?x=" + url.QueryEscape(s.AnthropicAPIKey),
		"in a path":        "/" + url.PathEscape(s.AnthropicAPIKey) + "/",
		"as Git sends it":  "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("robot:"+s.GitToken)),
		"in base64":        base64.StdEncoding.EncodeToString([]byte(s.GitToken)),
		"in a header":      base64.StdEncoding.EncodeToString([]byte("ci:" + s.GitToken + "\n")),
		"in base64, late":  base64.RawURLEncoding.EncodeToString([]byte("user:" + s.ClaudeOAuthToken + "-x")),
		"among its likes":  "ghp_0123456789ghp_0123456789",
		"at either end":    s.GitToken,
		"where names meet": "robot:" + s.GitToken + "@host",
	} {
		got := hide.Replace(text)
		if !strings.Contains(got, "[redacted]") || strings.Contains(got, "key") || strings.Contains(got, "token-1") || strings.Contains(got, "0123456789") || strings.Contains(got, "MDEyMzQ1Njc4") ||
			strings.Contains(got, "wMTIzNDU2Nzg") || strings.Contains(got, "RoLXRva2Vu") {
			t.Errorf("%s: %s becomes %s", name, text, got)
		}
	}
	ofChannel := redactor(Secrets{Env: map[string]string{"PEM": "-----BEGIN-----\nabcdefgh12345\n-----END-----\n", "PADDED": "  spaced-secret "}})
	if got := ofChannel.Replace("1: abcdefgh12345, spaced-secret."); got != "1: [redacted], [redacted]." {
		t.Errorf("a line of a channel's secret, and one without its spaces, become %s", got)
	}
	if got := hide.Replace("robot at https://api.example"); got != "robot at https://api.example" {
		t.Errorf("what is no secret becomes %s", got)
	}
	if got := redactor(Secrets{GitToken: "short"}).Replace("a short word"); got != "a short word" {
		t.Errorf("a word becomes %s", got)
	}
	if got := redactor(Secrets{GitToken: "12345678", ClaudeOAuthToken: "12345678-and-more"}).Replace("12345678-and-more"); got != "[redacted]" {
		t.Errorf("one secret within another leaves %s", got)
	}
}

// TestTokenShapes: what nobody has told the runner of and looks like a token is not told either.
func TestTokenShapes(t *testing.T) {
	t.Parallel()
	hide := redactor(Secrets{})
	r := func(s string, n int) string { return strings.Repeat(s, n) }
	for name, token := range map[string]string{
		"Anthropic": "sk-ant-" + "api03-" + r("aB3_-", 10), "OpenAI": "sk-proj-" + r("aB3", 10), "GitHub": "ghp_" + r("aB3", 12), "GitHub, fine-grained": "github_pat_" + r("aB3_", 12),
		"GitLab": "glpat-" + r("aB3-", 6), "Slack": "xoxb-" + "1234567890-1234567890-aBc", "Slack, app level": "xapp-" + "1-A012345678-1234567890-abc",
		"Slack, webhook": "hooks.slack.com/services/" + "T01234567/B01234567/" + r("a", 24), "AWS": "AKIA" + r("A", 16), "Google": "AIza" + r("a", 35), "Fly": "fm2_" + r("aB+/", 12),
		"npm": "npm_" + r("a", 36), "Stripe": "sk_live_" + r("a", 24), "JSON Web Token": "eyJ" + r("a", 12) + ".eyJ" + r("b", 12) + "." + r("c", 20),
		"a private key": "-----BEGIN RSA PRIVATE" + " KEY-----\n" + r("MIIE\n", 20) + "-----END RSA PRIVATE" + " KEY-----",
	} {
		if got := hide.Replace("KEY=" + token + " and more"); got != "KEY="+redacted+" and more" {
			t.Errorf("%s: %q becomes %q", name, token, got)
		}
		if raw, _ := json.Marshal(token); strings.Contains(hide.Replace(string(raw)), token[len(token)-12:len(token)-4]) {
			t.Errorf("%s: in JSON it becomes %s", name, hide.Replace(string(raw)))
		}
	}
	for _, text := range []string{
		"sk-ant", "the ghp_ prefix", "task-proj-management-of-all-things-that-are-long", "commit 0123456789abcdef0123456789abcdef01234567", "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
		"npm_config_registry", "AKIA", "a.eyJ.b",
	} {
		if got := hide.Replace(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// TestSecrets shows that no secret reaches what people or Claude Code see.
func TestSecrets(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	sec := Secrets{AnthropicAPIKey: "sk-ant-api03-secret/part?x", GitToken: "ghp_secretsecretsecret"}
	hidden := func(what, text string) {
		t.Helper()
		if strings.Contains(text, "secret") {
			t.Errorf("%s holds a secret: %s", what, clip(text, 1000))
		}
	}
	// Long enough that the text of an event, of a tool's target and of a todo are cut within the secret.
	long := func(n int) string { return strings.Repeat("x", n-21) + sec.AnthropicAPIKey }
	said := jsonLine(map[string]any{"type": "assistant", "message": map[string]any{"content": []any{
		map[string]any{"type": "text", "text": long(2000)},
		map[string]any{"type": "tool_use", "name": "Bash", "id": "1", "input": map[string]any{"command": long(300)}},
		map[string]any{"type": "tool_use", "name": "TodoWrite", "id": "2", "input": map[string]any{"todos": []any{map[string]any{"content": long(200), "status": "pending"}}}},
		map[string]any{"type": "tool_use", "name": "mcp__" + sec.GitToken, "id": "3", "input": map[string]any{}},
	}}})
	odd := jsonLine(map[string]any{"type": "tomorrow", "x": url.QueryEscape(sec.AnthropicAPIKey) + sec.GitToken})
	for what, last := range map[string]string{
		"answer": jsonLine(map[string]any{"type": "result", "is_error": false, "result": "the key is " + sec.AnthropicAPIKey}),
		"error":  jsonLine(map[string]any{"type": "result", "is_error": true, "result": long(2000)}),
		"errors": jsonLine(map[string]any{"type": "result", "is_error": true, "errors": []string{sec.GitToken}}),
	} {
		turn := m.begin(m.turn("raw: "+said+"\n"+odd+"\n"+last), sec)
		for _, e := range m.follow(turn, func(Event) bool { return false }) {
			raw, _ := json.Marshal(e)
			hidden("an event", string(raw))
		}
		out, answer := m.end(turn)
		raw, _ := json.Marshal(out)
		hidden("the outcome", string(raw))
		hidden("the answer", answer)
		if what == "answer" && answer != "the key is [redacted]" {
			t.Errorf("answer = %q", answer)
		}
	}
	if out, _ := m.run(m.turn("complain: "+sec.GitToken), sec); !strings.Contains(out.Error, "[redacted]") {
		t.Errorf("outcome = %+v, want the secret removed from what Claude Code prints", out)
	}
	refused := m.turn("hello")
	refused.Repos = []Repo{{URL: "file:///nowhere/" + sec.GitToken, Dir: "x"}}
	if out, _ := m.run(refused, sec); out.Failure != FailClone || !strings.Contains(out.Error, "[redacted]") {
		t.Errorf("outcome = %+v, want the secret removed from what Git prints", out)
	}
	if err := os.WriteFile(filepath.Join(m.cfg.workspace(), sec.GitToken), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(m.cfg.workspace(), "a-"+sec.GitToken, ".git"), 0o750); err != nil {
		t.Fatal(err)
	}
	out, _ := m.run(m.turn("hello"), sec)
	hidden("a file's name", strings.Join(out.Files, " "))
	if len(out.Repos) != 1 || out.Repos[0].Dir != "a-[redacted]" {
		t.Errorf("repositories = %+v, want that of a secret's name without it", out.Repos)
	}
	// The prompts above, which hold the secrets on purpose, are in the stand-in's transcript; nothing else may be.
	_, env := m.run(m.turn("env"), sec)
	hidden("Claude Code's environment", env)
	if err := os.RemoveAll(m.cfg.claudeDir()); err != nil {
		t.Fatal(err)
	}
	hidden("the disk", m.everything())
	call[SleepReply](m, "sleep", SleepRequest{Fence: m.fence})
	m.exit()
	hidden("the log", m.log.String())
}

func jsonLine(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}
