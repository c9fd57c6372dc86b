package runner

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// recordings are what the real Claude Code has said, as seeds.
func recordings(f *testing.F) {
	f.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "stream-json", "*.ndjson"))
	if err != nil || len(names) == 0 {
		f.Fatalf("there are no recordings: %v", err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(raw) {
			if len(line) < 20_000 {
				f.Add(line)
			}
		}
	}
}

// FuzzStream: whatever Claude Code writes, its events can be kept and told, and a known secret is in none of them.
func FuzzStream(f *testing.F) {
	recordings(f)
	const secret = "sk-ant-a-secret-of-ours"
	f.Add([]byte(`{"type":"assistant","message":{"content":[{"type":"tool_use","name":"Bash","input":{"command":"echo ` + secret + `"}},{"type":"text","text":"` + secret + `"}]}}`))
	f.Add([]byte(`{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":-1}}`))
	f.Add([]byte(`{"type":"result","modelUsage":{"x":{"inputTokens":-1}},"permission_denials":[{"tool_name":7}]}`))
	hide := redactor(Secrets{AnthropicAPIKey: secret}).Replace
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := &stream{workspace: "/data/workspace", hide: hide, pulls: newPullFinder([]Repo{{URL: "https://github.com/acme/site"}}, nil)}
		for line := range bytes.Lines(raw) {
			for _, e := range s.line(line) {
				told, err := json.Marshal(e)
				if err != nil || !utf8.Valid(told) {
					t.Fatalf("event %+v cannot be told: %v", e, err)
				}
				if strings.Contains(string(told), secret) {
					t.Fatalf("event %s holds the secret", told)
				}
			}
		}
		if len(s.toolsUsed()) > maxTools || len(s.denied) > maxDenied {
			t.Fatalf("%d tools and %d denials are told", len(s.toolsUsed()), len(s.denied))
		}
	})
}

// FuzzJournal: whatever a crash leaves of a journal and an outcome, they are read as far as they go.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"n":1,"kind":"phase"}`+"\n"+`{"n":2,"kind":"te`), []byte(`{"outcome":{"turn":"T:C:1"`))
	f.Add([]byte("\n\n{}\n[]\n"), []byte(`{"outcome":{"turn":"T:C:1","exit_code":3},"answer":"x"}`))
	f.Fuzz(func(t *testing.T, journal, outcome []byte) {
		c := Config{Data: t.TempDir(), RunDir: t.TempDir(), UID: -1}.withDefaults()
		if err := c.makeDirs(); err != nil {
			t.Fatal(err)
		}
		for suffix, raw := range map[string][]byte{".ndjson": journal, ".json": outcome} {
			if err := os.WriteFile(c.turnFile("T:C:1", suffix), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range c.kept("T:C:1") {
			if e.N <= 0 {
				t.Errorf("event %+v has no number", e)
			}
		}
		rec, done := c.outcome("T:C:1")
		if owed := c.unacked(); done != (len(owed) == 1) || done && owed[0] != rec.Outcome.Turn {
			t.Errorf("an outcome: %v, owed: %q", done, owed)
		}
	})
}

// FuzzLog: what is in a machine's log and was not written with the turn's key says nothing.
func FuzzLog(f *testing.F) {
	var out bytes.Buffer
	w, err := newLogWriter(&out, "T1:C1:1.5", NewLogKey())
	if err != nil {
		f.Fatal(err)
	}
	if err := w.tell(LogMessage{Event: &Event{N: 1, Kind: KindText, Text: "told by somebody else"}}); err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		f.Add(line)
	}
	f.Add("flaudebot")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := NewLogReader("T1:C1:1.5", NewLogKey())
		if err != nil {
			t.Fatal(err)
		}
		if m := r.Read(line); m != nil {
			t.Errorf("%q says %+v", line, m)
		}
	})
}

// FuzzChanges: a list of changes is read whole, or refused.
func FuzzChanges(f *testing.F) {
	f.Add(":100644 100644 a b M\x00one.txt\x003\t1\tone.txt\x00")
	f.Add(":100644 100644 a b R100\x00old\x00new\x000\t0\t\x00old\x00new\x00")
	f.Add(":000000 100644 a b A\x00pic\x00-\t-\tpic\x00")
	f.Fuzz(func(t *testing.T, raw string) {
		changes, err := parseChanges(split0([]byte(raw)))
		for _, c := range changes {
			if err == nil && (c.Path == "" && raw != "" && !strings.Contains(raw, "\x00\x00") || c.State == "" || c.Added < 0 || c.Removed < 0) {
				t.Errorf("%q is read as %+v", raw, c)
			}
		}
	})
}
