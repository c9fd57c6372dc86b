// Package forge is a Git host on this machine: repositories over smart HTTP, the part of GitHub's and of GitLab's REST API that opens and
// finds pull requests, in their wire formats, and pages to look at what came of it.
//
//	/OWNER/NAME.git                                Git, through its own http-backend
//	/api/v3/repos/OWNER/NAME/pulls                 GitHub (docs.github.com/rest/pulls/pulls), as GitHub Enterprise has it
//	/api/v4/projects/OWNER%2FNAME/merge_requests   GitLab (docs.gitlab.com/api/merge_requests)
//	/OWNER/NAME, …/tree/BRANCH, …/pull/N, …/compare/BASE...HEAD, …/-/tree/BRANCH, …/-/merge_requests/N
//	/api/v3/rate_limit, /api/v4/version            what any token may read, for whoever tries one
//
// Both number one list of pull requests. A token may push and open, or only read; a branch may be protected.
package forge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"flaudebot/local/edge"
)

// Right is what a token may do.
type Right int

const (
	None  Right = iota // the token is not known
	Read               // clone, and look at pull requests
	Write              // push, and open them
)

// Config says what the host has.
type Config struct {
	Dir    string           // of the repositories; they stay there
	Tokens map[string]Right // the password of Git, and the bearer of the API
	// Private has reading take a token too.
	Private bool
	// Protected are branches that nobody may push to.
	Protected []string
	Log       *slog.Logger
}

// Server is the host.
type Server struct {
	cfg     Config
	backend string // git http-backend
	faults  edge.Faults

	mu    sync.Mutex
	pulls []*pull // guarded by mu; in order of their numbers
}

// pull is a pull request.
type pull struct {
	repo                    string // owner/name
	number                  int
	head, base, title, body string
	by                      string // what opened it: github or gitlab
}

// New returns a host whose repositories are in a folder. [errors.ErrUnsupported] where Git has no http-backend.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	out, err := exec.CommandContext(context.Background(), "git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("ask Git where its programs are: %w", err)
	}
	s := &Server{cfg: cfg, backend: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")}
	if _, err := os.Stat(s.backend); err != nil {
		return nil, fmt.Errorf("%w: Git has no http-backend: %w", errors.ErrUnsupported, err)
	}
	return s, os.MkdirAll(cfg.Dir, 0o755) //nolint:gosec // nothing in it is secret
}

var repoName = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)+$`)

// Add makes a repository, owner/name, of what another has, unless it is there.
func (s *Server) Add(name, from string) error {
	if !repoName.MatchString(name) {
		return fmt.Errorf("%q is no name of a repository", name)
	}
	dir := s.dir(name)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if out, err := exec.CommandContext(context.Background(), "git", "clone", "--quiet", "--bare", "--no-hardlinks", "--", from, dir).CombinedOutput(); err != nil { //nolint:gosec // a folder of ours
		return fmt.Errorf("clone %s: %w: %s", from, err, out)
	}
	if len(s.cfg.Protected) == 0 {
		return nil
	}
	var hook strings.Builder
	hook.WriteString("#!/bin/sh\nwhile read old new ref; do\n\tcase $ref in\n")
	for _, b := range s.cfg.Protected {
		// As GitHub says it.
		fmt.Fprintf(&hook, "\trefs/heads/%s) echo 'error: GH006: Protected branch update failed for refs/heads/%s.'; exit 1 ;;\n", b, b)
	}
	hook.WriteString("\tesac\ndone\n")
	return os.WriteFile(filepath.Join(dir, "hooks", "pre-receive"), []byte(hook.String()), 0o755) //nolint:gosec // it is to run
}

func (s *Server) dir(repo string) string {
	return filepath.Join(s.cfg.Dir, filepath.FromSlash(repo)+".git")
}

// has reports whether there is such a repository.
func (s *Server) has(repo string) bool {
	if !repoName.MatchString(repo) {
		return false
	}
	_, err := os.Stat(s.dir(repo))
	return err == nil
}

// git asks a repository.
func (s *Server) git(repo string, args ...string) (string, bool) {
	out, err := exec.CommandContext(context.Background(), "git", append([]string{"--git-dir", s.dir(repo)}, args...)...).Output() //nolint:gosec // a repository of ours
	return strings.TrimSpace(string(out)), err == nil
}

// branch returns the commit of a branch.
func (s *Server) branch(repo, name string) (string, bool) {
	return s.git(repo, "rev-parse", "--verify", "--quiet", "refs/heads/"+name+"^{commit}")
}

// Handler serves the host, on loopback names only.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v3/repos/{owner}/{name}/pulls", s.gitHub(s.findGitHub))
	mux.HandleFunc("POST /api/v3/repos/{owner}/{name}/pulls", s.gitHub(s.openGitHub))
	mux.HandleFunc("GET /api/v4/projects/{id}/merge_requests", s.gitLab(s.findGitLab))
	mux.HandleFunc("POST /api/v4/projects/{id}/merge_requests", s.gitLab(s.openGitLab))
	mux.HandleFunc("GET /api/v3/rate_limit", s.knows)
	mux.HandleFunc("GET /api/v4/version", s.knows)
	mux.HandleFunc("/", s.rest)
	faulty := s.faults.Wrap(mux, methodOf, func(w http.ResponseWriter, status int) {
		answer(w, status, fields{"message": http.StatusText(status)})
	})
	front := http.NewServeMux()
	front.Handle("POST /local/faults", &s.faults)
	front.Handle("/", faulty)
	return edge.Guard(front, nil)
}

// methodOf names a request for faults: find, open, git or page.
func methodOf(r *http.Request) string {
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/") && r.Method == http.MethodPost:
		return "open"
	case strings.HasPrefix(r.URL.Path, "/api/"):
		return "find"
	case gitPath.MatchString(r.URL.Path):
		return "git"
	}
	return "page"
}

var gitPath = regexp.MustCompile(`^/(.+?)(?:\.git)?/(info/refs|git-upload-pack|git-receive-pack)$`)

// rest is Git, or else a page.
func (s *Server) rest(w http.ResponseWriter, r *http.Request) {
	m := gitPath.FindStringSubmatch(r.URL.Path)
	if m == nil {
		s.page(w, r)
		return
	}
	user, password, _ := r.BasicAuth()
	right, writes := s.cfg.Tokens[password], strings.HasSuffix(r.URL.Path, "/git-receive-pack") || r.URL.Query().Get("service") == "git-receive-pack"
	switch {
	case password == "" && (writes || s.cfg.Private), password != "" && right == None:
		w.Header().Set("WWW-Authenticate", `Basic realm="local forge"`)
		http.Error(w, "Invalid username or token.", http.StatusUnauthorized)
		return
	case !s.has(m[1]):
		http.Error(w, "Repository not found.", http.StatusNotFound)
		return
	case writes && right < Write:
		http.Error(w, "Permission to "+m[1]+".git denied to "+user+".", http.StatusForbidden)
		return
	}
	h := cgi.Handler{
		Path: s.backend, Root: "/", Stderr: logWriter{s.cfg.Log},
		Env: []string{"GIT_PROJECT_ROOT=" + s.cfg.Dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=" + user, "GIT_CONFIG_NOSYSTEM=1"},
	}
	inner := r.Clone(r.Context())
	inner.URL.Path = "/" + m[1] + ".git/" + m[2] // the address may leave .git out
	h.ServeHTTP(w, inner)
}

type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("git", "said", strings.TrimSpace(string(p)))
	return len(p), nil
}

// right is what the token of a request to the API may do.
func (s *Server) right(r *http.Request) Right {
	token := r.Header.Get("PRIVATE-TOKEN")
	if kind, rest, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && slices.Contains([]string{"bearer", "token"}, strings.ToLower(kind)) {
		token = rest
	}
	return s.cfg.Tokens[token]
}

// open returns the open pull requests of a repository that are from a branch; "": of all.
func (s *Server) open(repo, head string) []*pull {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.pulls), func(p *pull) bool { return p.repo != repo || head != "" && p.head != head })
}

// add numbers a pull request, unless one of its branch is open.
func (s *Server) add(p pull) (made *pull, other *pull) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, q := range s.pulls {
		if q.repo == p.repo {
			n++
			if q.head == p.head && q.base == p.base {
				return nil, q
			}
		}
	}
	p.number = n + 1
	s.pulls = append(s.pulls, &p)
	return &p, nil
}

// hasNews reports whether a branch has commits that another does not.
func (s *Server) hasNews(repo, base, head string) bool {
	n, ok := s.git(repo, "rev-list", "--count", "refs/heads/"+base+"..refs/heads/"+head)
	return ok && n != "0"
}
