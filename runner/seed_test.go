package runner

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const aSession = "0b4cf1f4-6b3f-4d5e-9e0c-1d2f3a4b5c6d"

func TestSeed(t *testing.T) {
	t.Parallel()
	seed := func(t *testing.T, env ...string) (*machine, int, string) {
		t.Helper()
		m := newMachine(t)
		m.env = append([]string{"FLAUDE_SESSION_ID=" + aSession, "ANTHROPIC_API_KEY=sk-a-real-key"}, env...)
		m.start(nil)
		code := m.exit()
		return m, code, m.out.String()
	}
	t.Run("prints the answer between the markers, clones and keeps the conversation", func(t *testing.T) {
		t.Parallel()
		repo := gitRepo(t, "main", "dev")
		m, code, out := seed(t, "FLAUDE_PROMPT=hello", `FLAUDE_REPOS=[{"url":"`+repo+`","branch":"dev","target_dir":"x"}]`)
		want := "[flaude:session:" + aSession + "]\nYou said: hello\n[flaude:manifest:{\"files\":[\"x/branch\"]}]\n[flaude:exit:0]\n"
		if code != 0 || out != want {
			t.Errorf("exit code %d, output:\n%s\nwant:\n%s", code, out, want)
		}
		m.env[len(m.env)-2] = "FLAUDE_PROMPT=env"
		m.start(nil)
		if code := m.exit(); code != 0 || !strings.Contains(m.out.String(), "--resume "+aSession) {
			t.Errorf("the second time: exit code %d:\n%s", code, m.out)
		}
		if strings.Contains(m.out.String(), "sk-a-real-key") || strings.Contains(m.out.String(), "FLAUDE_") {
			t.Errorf("Claude Code sees what is process 1's:\n%s", m.out)
		}
	})
	t.Run("exits with Claude Code's own code", func(t *testing.T) {
		t.Parallel()
		if _, code, out := seed(t, "FLAUDE_PROMPT=complain: it went wrong"); code != 1 || !strings.HasSuffix(out, "it went wrong\n[flaude:manifest:{\"files\":[]}]\n[flaude:exit:1]\n") {
			t.Errorf("exit code %d, output:\n%s", code, out)
		}
		if _, code, out := seed(t, "FLAUDE_PROMPT=exit: 3"); code != 3 || !strings.HasSuffix(out, "\n[flaude:exit:3]\n") {
			t.Errorf("exit code %d, output:\n%s", code, out)
		}
	})
	t.Run("prints JSON when it is asked for", func(t *testing.T) {
		t.Parallel()
		_, code, out := seed(t, "FLAUDE_PROMPT=hello", "FLAUDE_OUTPUT_FORMAT=json")
		lines := strings.Split(out, "\n")
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[1]), &got); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v:\n%s", code, err, out)
		}
		want := map[string]any{"type": "result", "result": "You said: hello", "is_error": false, "session_id": aSession, "total_cost_usd": 0.25}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
	t.Run("makes a session id where none is given, and refuses what is none", func(t *testing.T) {
		t.Parallel()
		_, code, out := seed(t, "FLAUDE_PROMPT=hello", "FLAUDE_SESSION_ID=")
		id, ok := strings.CutPrefix(strings.SplitN(out, "]", 2)[0], "[flaude:session:")
		if code != 0 || !ok || !sessionID.MatchString(id) {
			t.Errorf("exit code %d, output:\n%s", code, out)
		}
		if m, code, _ := seed(t, "FLAUDE_PROMPT=hello", "FLAUDE_SESSION_ID=x"); code != 97 || !strings.Contains(m.log.String(), "want a UUID") {
			t.Errorf("exit code %d, log:\n%s", code, m.log)
		}
		if m, code, _ := seed(t, "FLAUDE_PROMPT=hello", "FLAUDE_REPOS=[1]"); code != 97 || !strings.Contains(m.log.String(), "FLAUDE_REPOS") {
			t.Errorf("exit code %d, log:\n%s", code, m.log)
		}
	})
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
