package runner

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeClaude is a claude command that plays back lines and keeps a transcript.
const fakeClaude = `#!/bin/sh
dir="$CLAUDE_CONFIG_DIR/projects/$(pwd -P | sed 's/[^A-Za-z0-9]/-/g')"
mkdir -p "$dir"
while [ $# -gt 0 ]; do case "$1" in --session-id|--resume) id="$2"; how="$1"; shift;; esac; shift; done
read -r line
echo "$line" >> "$dir/$id.jsonl"
echo '{"type":"system","subtype":"init","session_id":"'$id'","model":"fake"}'
echo '{"type":"a_type_of_tomorrow","x":1}'
case "$line" in
*fail*) echo '{"type":"result","subtype":"success","is_error":true,"result":"it went wrong","total_cost_usd":0.5}'; exit 3;;
*silent*) exit 0;;
esac
echo '{"type":"result","subtype":"success","is_error":false,"result":"'"$how"' '"$ANTHROPIC_API_KEY"'","total_cost_usd":0.25}'
`

// testConfig is a runner's configuration on folders of the test, with the fake claude.
func testConfig(t *testing.T, env map[string]string) Config {
	t.Helper()
	dir := t.TempDir()
	claude := filepath.Join(dir, "claude")
	if err := os.WriteFile(claude, []byte(fakeClaude), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Data: filepath.Join(dir, "data"), RunDir: t.TempDir(), Claude: claude, UID: -1, Getenv: func(k string) string { return env[k] }}
	if err := cfg.makeDirs(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

const aSession = "0b4cf1f4-6b3f-4d5e-9e0c-1d2f3a4b5c6d"

func TestSeed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prompt string
		code   int
		want   []string
	}{
		"prints the answer and the markers": {"hello", 0, []string{"--session-id", "[flaude:session:" + aSession + "]", "[flaude:manifest:{", "[flaude:exit:0]"}},
		"exits with Claude Code's own code": {"fail", 3, []string{"it went wrong", "[flaude:exit:3]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"FLAUDE_PROMPT": c.prompt, "FLAUDE_SESSION_ID": aSession, "ANTHROPIC_API_KEY": "sk-a-real-key"}
			s, err := newServer(testConfig(t, env))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			code, err := s.seed(t.Context(), s.cfg.Getenv, &out)
			if err != nil || code != c.code {
				t.Errorf("seed = %d, %v, want %d", code, err, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), "sk-a-real-key") {
				t.Errorf("Claude Code saw the credential:\n%s", out.String())
			}
		})
	}
	t.Run("reads repositories in each of the seed's forms", func(t *testing.T) {
		t.Parallel()
		for in, want := range map[string][]Repo{
			"":                         nil,
			"https://h/a, https://h/b": {{URL: "https://h/a"}, {URL: "https://h/b"}},
			`["https://h/a",{"url":"https://h/b","branch":"dev","target_dir":"x"}]`: {{URL: "https://h/a"}, {URL: "https://h/b", Branch: "dev", Dir: "x"}},
		} {
			got, err := seedRepos(in)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("seedRepos(%s): %v (-want +got):\n%s", in, err, diff)
			}
		}
	})
}
