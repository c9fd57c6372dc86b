package runner

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// gitEnv has Git ask the runner for credentials, and nobody else; commits are the turn's author's, and signed by our hooks.
func (c Config) gitEnv() []string {
	self, err := os.Executable()
	if err != nil {
		self = "flaudebot"
	}
	settings := [][2]string{
		{"credential.helper", ""}, // drops inherited ones
		{"credential.helper", "!'" + strings.ReplaceAll(self, "'", `'\''`) + "' runner git-credential"},
		{"user.name", cmp.Or(c.gitName, "Claude")},
		{"user.email", c.committer()},
		{"core.hooksPath", c.hooks()},
	}
	env := []string{"GIT_CONFIG_COUNT=" + strconv.Itoa(len(settings)), "FLAUDEBOT_RUN_DIR=" + c.RunDir}
	for i, s := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	return env
}

// gitOrigins are scheme and host of the session's repositories that are reached over HTTP. The scheme counts: a token
// for https is not sent in the clear because somebody asks for http.
func gitOrigins(repos []Repo) []string {
	var out []string
	for _, r := range repos {
		if u, err := url.Parse(r.URL); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
			out = append(out, strings.ToLower(u.Scheme+"://"+u.Host))
		}
	}
	return out
}

// mayHave are those of the origins that may be sent the Git token.
func (s Secrets) mayHave(origins []string) []string {
	if s.GitOrigins == nil {
		return origins
	}
	return slices.DeleteFunc(origins, func(o string) bool {
		return !slices.ContainsFunc(s.GitOrigins, func(may string) bool { return strings.EqualFold(may, o) })
	})
}

type gitQuestion struct {
	Protocol string `json:"protocol"`
	Host     string `json:"host"`
}

type gitAnswer struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// credential answers Git, for the hosts of the session's repositories only.
func (s *server) credential(w http.ResponseWriter, r *http.Request) {
	var q gitQuestion
	if err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&q); err != nil {
		http.Error(w, "decode the question", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	var a gitAnswer
	if s.secrets.GitToken != "" && slices.Contains(s.origins, strings.ToLower(q.Protocol+"://"+q.Host)) {
		a = gitAnswer{Username: s.secrets.gitUser(), Password: s.secrets.GitToken}
	}
	s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(a) // the asker may have gone
}

// GitCredential is Git's credential helper: it passes what Git asks on stdin to the runner.
func GitCredential(ctx context.Context, cfg Config, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 1 || args[0] != "get" {
		return nil // store and erase are nothing to us
	}
	var q gitQuestion
	lines := bufio.NewScanner(io.LimitReader(stdin, 4096))
	for lines.Scan() {
		switch k, v, _ := strings.Cut(lines.Text(), "="); k {
		case "protocol":
			q.Protocol = v
		case "host":
			q.Host = v
		}
	}
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	res, err := post(ctx, &http.Client{Transport: unixTransport(cfg.gitSocket())}, "credential", body)
	if err != nil {
		return fmt.Errorf("ask the runner: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	var a gitAnswer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil || a.Password == "" {
		return err
	}
	_, err = fmt.Fprintf(stdout, "username=%s\npassword=%s\n", a.Username, a.Password)
	return err
}
