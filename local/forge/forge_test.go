package forge_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flaudebot/local/forge"
)

type host struct {
	t   *testing.T
	url string
}

// newHost is a host with the repository acme/app, whose branch main is protected.
func newHost(t *testing.T) *host {
	t.Helper()
	from := filepath.Join(t.TempDir(), "seed")
	script := "git init -q -b main . && echo a > a && git add a && git -c user.name=t -c user.email=t@x commit -q -m Begin"
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t}
	h.sh(from, script)
	s, err := forge.New(forge.Config{
		Dir: t.TempDir(), Tokens: map[string]forge.Right{"write": forge.Write, "read": forge.Read}, Protected: []string{"main"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there
		if err := s.Add("acme/app", from); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

func (h *host) sh(dir, script string) (string, error) {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_TERMINAL_PROMPT=0", "URL=" + h.url, "HOST=" + strings.TrimPrefix(h.url, "http://")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ask asks an API, and returns status and answer.
func (h *host) ask(method, path, token string, body any) (int, string) {
	h.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, bytes.NewReader(raw))
	if err != nil {
		h.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, string(got)
}

// TestGit: Git clones and pushes as it does elsewhere, with a token where one is needed, and not to a protected branch.
func TestGit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const push = "git -C app -c user.name=t -c user.email=t@x commit -q --allow-empty -m B && git -C app push -q http://me:%@$HOST/acme/app HEAD:refs/heads/"
	for _, c := range []struct{ name, script, want string }{
		{"clone", "git clone -q $URL/acme/app app && cat app/a", "a\n"},
		{"push", strings.Replace(push, "%", "write", 1) + "fix", ""},
		{"push that is not allowed", strings.Replace(push, "%", "read", 1) + "fix", "403"},
		{"push with a wrong token", strings.Replace(push, "%", "wrong", 1) + "fix", "Authentication failed"},
		{"push to a protected branch", strings.Replace(push, "%", "write", 1) + "main", "GH006: Protected branch update failed for refs/heads/main."},
		{"a repository that is not there", "git clone -q $URL/acme/other other", "not found"},
	} {
		dir := t.TempDir()
		if c.name != "clone" {
			if out, err := h.sh(dir, "git clone -q $URL/acme/app app"); err != nil {
				t.Fatalf("clone: %v: %s", err, out)
			}
		}
		out, err := h.sh(dir, c.script)
		if good := c.name == "clone" || c.name == "push"; good != (err == nil) || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v: %s, want %q", c.name, err, out, c.want)
		}
	}
}

// TestAPI: pull requests are opened, found and refused in the words of GitHub and of GitLab.
func TestAPI(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if out, err := h.sh(t.TempDir(), `git clone -q $URL/acme/app app && cd app && git -c user.name=t -c user.email=t@x commit -q --allow-empty -m B &&
		git push -q http://me:write@$HOST/acme/app HEAD:refs/heads/fix HEAD:refs/heads/second HEAD~1:refs/heads/old`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	type m = map[string]any
	const hub, lab = "/api/v3/repos/acme/app/pulls", "/api/v4/projects/acme%2Fapp/merge_requests"
	for _, c := range []struct {
		name, method, path, token string
		body                      m
		status                    int
		want                      string
	}{
		{"none yet", "GET", hub + "?head=acme:fix&state=open", "read", nil, 200, "[]"},
		{"GitHub, opened", "POST", hub, "write", m{"head": "fix", "base": "main", "title": "Fix", "body": "B"}, 201, `"html_url":"` + h.url + `/acme/app/pull/1"`},
		{"GitHub, found", "GET", hub + "?head=acme:fix&state=open", "read", nil, 200, `"number":1`},
		{"GitHub, not of that branch", "GET", hub + "?head=acme:other", "read", nil, 200, "[]"},
		{"GitHub, twice", "POST", hub, "write", m{"head": "acme:fix", "base": "main", "title": "Fix"}, 422, "A pull request already exists for acme:fix."},
		{"GitHub, no title", "POST", hub, "write", m{"head": "fix", "base": "main"}, 422, `"missing_field"`},
		{"GitHub, no such branch", "POST", hub, "write", m{"head": "none", "base": "main", "title": "Fix"}, 422, `"field":"head"`},
		{"GitHub, nothing new", "POST", hub, "write", m{"head": "old", "base": "main", "title": "Fix"}, 422, "No commits between main and old"},
		{"GitHub, a wrong token", "POST", hub, "wrong", m{}, 401, "Bad credentials"},
		{"GitHub, no token", "POST", hub, "", m{}, 404, "Not Found"},
		{"GitHub, a token without the right", "POST", hub, "read", m{}, 403, "Resource not accessible by personal access token"},
		{"GitHub, another repository", "GET", "/api/v3/repos/acme/other/pulls", "write", nil, 404, "Not Found"},
		{"GitLab, opened", "POST", lab, "write", m{"source_branch": "second", "target_branch": "main", "title": "Second", "description": "D"}, 201, `"web_url":"` + h.url + `/acme/app/-/merge_requests/2"`},
		{"GitLab, found", "GET", lab + "?source_branch=second&state=opened", "read", nil, 200, `"iid":2`},
		{"GitLab, twice", "POST", lab, "write", m{"source_branch": "second", "target_branch": "main", "title": "Second"}, 409, "Another open merge request already exists for this source branch: !2"},
		{"GitLab, no title", "POST", lab, "write", m{"source_branch": "second", "target_branch": "main"}, 400, "title is missing"},
		{"GitLab, a wrong token", "GET", lab, "wrong", nil, 401, "401 Unauthorized"},
		{"GitLab, a token without the right", "POST", lab, "read", m{}, 403, "403 Forbidden"},
		{"GitLab, another project", "GET", "/api/v4/projects/acme%2Fother/merge_requests", "write", nil, 404, "404 Project Not Found"},
		{"the page of one", "GET", "/acme/app/pull/1", "", nil, 200, "Pull request #1: from fix into main"},
		{"the page of the other", "GET", "/acme/app/-/merge_requests/2", "", nil, 200, "Merge request !2"},
		{"the page of a branch", "GET", "/acme/app/tree/fix", "", nil, 200, "Branch fix"},
		{"the page of a new one", "GET", "/acme/app/compare/main...fix?expand=1", "", nil, 200, "New pull request"},
		{"the repository's page", "GET", "/acme/app", "", nil, 200, "Fix"},
		{"no page", "GET", "/acme/app/pull/9", "", nil, 404, ""},
	} {
		if status, body := h.ask(c.method, c.path, c.token, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d and %s", c.name, status, body, c.status, c.want)
		}
	}
	if status, _ := h.ask("POST", "/local/faults", "", m{"method": "find", "status": 503, "nth": 1}); status != 200 {
		t.Errorf("faults = %d", status)
	}
	if status, _ := h.ask("GET", hub, "read", nil); status != 503 {
		t.Errorf("with a fault: %d", status)
	}
}

// TestToken: whoever tries a token is told whether it is known, whatever it may do.
func TestToken(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, tt := range []struct {
		path, token string
		status      int
		holds       string
	}{
		{"/api/v3/rate_limit", "read", 200, "remaining"},
		{"/api/v3/rate_limit", "", 200, "remaining"},
		{"/api/v3/rate_limit", "other", 401, "Bad credentials"},
		{"/api/v4/version", "write", 200, "version"},
		{"/api/v4/version", "", 401, "401 Unauthorized"},
		{"/api/v4/version", "other", 401, "401 Unauthorized"},
	} {
		if status, text := h.ask("GET", tt.path, tt.token, nil); status != tt.status || !strings.Contains(text, tt.holds) {
			t.Errorf("GET %s with %q = %d %s, want %d with %s", tt.path, tt.token, status, text, tt.status, tt.holds)
		}
	}
}
