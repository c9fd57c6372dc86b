package runner

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// seed runs one prompt the seed system's way: everything comes with the environment, the answer and three markers go
// to the log, and the exit code is the turn's.
func (s *server) seed(ctx context.Context, getenv func(string) string, w io.Writer) (int, error) {
	t, sec, err := seedTurn(getenv)
	if err != nil {
		return 1, err
	}
	s.mu.Lock()
	s.secrets, s.origins, s.leaving = sec, gitOrigins(t.Repos), true // no other turn is taken
	s.mu.Unlock()
	stop, err := s.listen()
	if err != nil {
		return 1, err
	}
	defer stop()
	j, err := newJournal(s.cfg, t.ID)
	if err != nil {
		return 1, err
	}
	fmt.Fprintf(w, "[flaude:session:%s]\n", t.SessionID)
	running := newTurn(s.cfg, t, t.Prompt, sec, j, "")
	s.mu.Lock()
	s.running = running
	s.mu.Unlock()
	defer context.AfterFunc(ctx, func() { running.interrupt(FailInterrupted) })()
	rec := running.run()
	s.ended(running, rec)
	printSeed(w, t, rec, getenv("FLAUDE_OUTPUT_FORMAT"))
	return rec.Outcome.ExitCode, nil
}

// seedTurn is the turn that the environment describes.
func seedTurn(getenv func(string) string) (Turn, Secrets, error) {
	repos, err := seedRepos(getenv("FLAUDE_REPOS"))
	if err != nil {
		return Turn{}, Secrets{}, err
	}
	session := getenv("FLAUDE_SESSION_ID")
	if session == "" {
		session = newUUID()
	}
	if !sessionID.MatchString(session) {
		return Turn{}, Secrets{}, fmt.Errorf("FLAUDE_SESSION_ID=%s: want a UUID", session)
	}
	t := Turn{ID: "seed-" + rand.Text(), SessionID: session, Prompt: getenv("FLAUDE_PROMPT"), Repos: repos}
	sec := Secrets{
		AnthropicAPIKey: getenv("ANTHROPIC_API_KEY"), ClaudeOAuthToken: getenv("CLAUDE_CODE_OAUTH_TOKEN"), AnthropicBaseURL: getenv("ANTHROPIC_BASE_URL"),
		GitUsername: getenv("GITHUB_USERNAME"), GitToken: getenv("GITHUB_TOKEN"),
	}
	_, err = t.check("")
	return t, sec, err
}

// printSeed prints the answer, as text or as JSON, and the markers that end it.
func printSeed(w io.Writer, t Turn, rec record, format string) {
	out := rec.Outcome
	if strings.HasPrefix(format, "json") {
		raw, _ := json.Marshal(map[string]any{"type": "result", "result": rec.Answer, "is_error": out.Failure != FailNone, "session_id": t.SessionID, "total_cost_usd": out.CostUSD})
		fmt.Fprintf(w, "%s\n", raw)
	} else {
		fmt.Fprintln(w, rec.Answer)
	}
	if out.Error != "" {
		fmt.Fprintln(w, out.Error)
	}
	manifest, _ := json.Marshal(map[string]any{"files": append([]string{}, out.Files...)})
	fmt.Fprintf(w, "[flaude:manifest:%s]\n[flaude:exit:%d]\n", manifest, out.ExitCode)
}

// seedRepos reads FLAUDE_REPOS: a JSON list of addresses or of {url, branch, target_dir}, or addresses apart by commas.
func seedRepos(value string) ([]Repo, error) {
	value = strings.TrimSpace(value)
	var out []Repo
	if !strings.HasPrefix(value, "[") {
		for u := range strings.SplitSeq(value, ",") {
			if u = strings.TrimSpace(u); u != "" {
				out = append(out, Repo{URL: u})
			}
		}
		return out, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		return nil, fmt.Errorf("FLAUDE_REPOS: %w", err)
	}
	for _, raw := range list {
		var one struct {
			URL    string `json:"url"`
			Branch string `json:"branch"`
			Target string `json:"target_dir"`
		}
		if json.Unmarshal(raw, &one.URL) != nil {
			if err := json.Unmarshal(raw, &one); err != nil {
				return nil, fmt.Errorf("FLAUDE_REPOS: %w", err)
			}
		}
		out = append(out, Repo{URL: one.URL, Branch: one.Branch, Dir: one.Target})
	}
	return out, nil
}

// newUUID returns a random UUID of version 4.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
