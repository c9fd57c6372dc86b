package runner

import (
	"bytes"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGitCredential(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.turn("work")
	turn.Repos = []Repo{{URL: "https://Git.example/a/b.git"}, {URL: "http://plain.example:8080/c"}, {URL: "git@ssh.example:d/e"}}
	for _, r := range turn.Repos { // they are there already: nothing is cloned
		if err := os.Mkdir(filepath.Join(m.cfg.workspace(), r.Folder()), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	helper := func(verb, question string) string {
		t.Helper()
		var out bytes.Buffer
		if err := GitCredential(t.Context(), m.cfg, []string{verb}, strings.NewReader(question), &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := helper("get", "protocol=https\nhost=git.example\n"); got != "" {
		t.Errorf("before any turn: %q, want nothing", got)
	}
	m.begin(turn, Secrets{GitToken: "ghp_0123456789"})
	const token = "username=x-access-token\npassword=ghp_0123456789\n"
	for question, want := range map[string]string{
		"protocol=https\nhost=git.example\npath=any/other\n": token,
		"protocol=http\nhost=plain.example:8080\n":           token,
		"protocol=http\nhost=git.example\n":                  "", // in the clear, which nobody asked for
		"protocol=https\nhost=plain.example:8080\n":          "",
		"protocol=http\nhost=plain.example\n":                "",
		"protocol=https\nhost=ssh.example\n":                 "",
		"protocol=https\nhost=evil.example\n":                "",
		"protocol=https\nhost=git.example.evil.example\n":    "",
		"protocol=https\nhost=\n":                            "",
		"":                                                   "",
	} {
		if got := helper("get", question); got != want {
			t.Errorf("get of %q = %q, want %q", question, got, want)
		}
	}
	for _, verb := range []string{"store", "erase"} {
		if got := helper(verb, "protocol=https\nhost=git.example\npassword=x\n"); got != "" {
			t.Errorf("%s = %q, want nothing", verb, got)
		}
	}
	m.stop(turn)
	m.end(turn)
}

// TestGitOverHTTP clones from a server that asks for the token, through Git's own helper call.
func TestGitOverHTTP(t *testing.T) {
	t.Parallel()
	backend, err := exec.Command("git", "--exec-path").Output()
	program := filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend")
	if _, statErr := os.Stat(program); err != nil || statErr != nil {
		t.Skip("left out: there is no git-http-backend")
	}
	root := filepath.Dir(gitRepo(t, "main"))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, token, _ := r.BasicAuth(); user != "robot" || token != "ghp_0123456789" {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		(&cgi.Handler{Path: program, Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	m := newMachine(t).boot()
	turn := m.turn("hello")
	turn.Repos = []Repo{{URL: srv.URL + "/repo"}}
	if out, _ := m.run(turn, Secrets{GitUsername: "robot", GitToken: "not-this-one"}); out.Failure != FailClone || strings.Contains(out.Error, "not-this-one") {
		t.Errorf("with a wrong token: outcome = %+v, want a clone that failed", out)
	}
	turn.ID += "-again"
	out, _ := m.run(turn, Secrets{GitUsername: "robot", GitToken: "ghp_0123456789"})
	if out.Failure != FailNone || len(out.Repos) != 1 || out.Repos[0].Branch != "main" {
		t.Errorf("outcome = %+v, want the repository cloned", out)
	}
	if strings.Contains(m.everything(), "ghp_0123456789") {
		t.Error("the token is on the disk")
	}
}
