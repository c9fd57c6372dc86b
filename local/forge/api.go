package forge

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

type fields = map[string]any

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the asker may have gone
}

// call is a request to an API about a repository.
type call struct {
	repo string
	site string // scheme and host
	r    *http.Request
	body map[string]any
}

func (c call) text(name string) string {
	text, _ := c.body[name].(string)
	return text
}

func callOf(r *http.Request, repo string) call {
	c := call{repo: repo, site: "http://" + r.Host, r: r}
	_ = json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&c.body) // a GET has none
	return c
}

// gitHub checks who asks as GitHub does.
func (s *Server) gitHub(do func(http.ResponseWriter, call)) http.HandlerFunc {
	const docs = "https://docs.github.com/rest/pulls/pulls"
	return func(w http.ResponseWriter, r *http.Request) {
		repo, right := r.PathValue("owner")+"/"+r.PathValue("name"), s.right(r)
		switch {
		case right == None && r.Header.Get("Authorization") != "":
			answer(w, http.StatusUnauthorized, fields{"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"})
		case !s.has(repo), right == None:
			answer(w, http.StatusNotFound, fields{"message": "Not Found", "documentation_url": docs, "status": "404"})
		case r.Method == http.MethodPost && right < Write:
			answer(w, http.StatusForbidden, fields{"message": "Resource not accessible by personal access token", "documentation_url": docs + "#create-a-pull-request", "status": "403"})
		default:
			do(w, callOf(r, repo))
		}
	}
}

func (s *Server) findGitHub(w http.ResponseWriter, c call) {
	q := c.r.URL.Query()
	owner, _, _ := strings.Cut(c.repo, "/")
	head, named := strings.CutPrefix(q.Get("head"), owner+":")
	out := []fields{}
	for _, p := range s.open(c.repo, "") {
		if state := q.Get("state"); state == "closed" || q.Has("head") && (!named || p.head != head) || q.Get("base") != "" && p.base != q.Get("base") {
			continue
		}
		out = append(out, s.asGitHub(c, p))
	}
	answer(w, http.StatusOK, out)
}

func (s *Server) asGitHub(c call, p *pull) fields {
	owner, _, _ := strings.Cut(c.repo, "/")
	side := func(name string) fields {
		commit, _ := s.branch(c.repo, name)
		return fields{"label": owner + ":" + name, "ref": name, "sha": commit}
	}
	return fields{
		"url": fmt.Sprintf("%s/api/v3/repos/%s/pulls/%d", c.site, c.repo, p.number), "html_url": fmt.Sprintf("%s/%s/pull/%d", c.site, c.repo, p.number),
		"id": 1000 + p.number, "number": p.number, "state": "open", "draft": false, "title": p.title, "body": p.body, "head": side(p.head), "base": side(p.base),
	}
}

func (s *Server) openGitHub(w http.ResponseWriter, c call) {
	invalid := func(err fields) {
		err["resource"] = "PullRequest"
		answer(w, http.StatusUnprocessableEntity, fields{
			"message": "Validation Failed", "errors": []fields{err}, "documentation_url": "https://docs.github.com/rest/pulls/pulls#create-a-pull-request", "status": "422",
		})
	}
	owner, _, _ := strings.Cut(c.repo, "/")
	p := pull{repo: c.repo, head: strings.TrimPrefix(c.text("head"), owner+":"), base: c.text("base"), title: c.text("title"), body: c.text("body"), by: "github"}
	if p.title == "" {
		invalid(fields{"code": "missing_field", "field": "title"})
		return
	}
	for field, name := range map[string]string{"head": p.head, "base": p.base} {
		if _, ok := s.branch(c.repo, name); !ok {
			invalid(fields{"code": "invalid", "field": field})
			return
		}
	}
	if !s.hasNews(c.repo, p.base, p.head) {
		invalid(fields{"code": "custom", "message": fmt.Sprintf("No commits between %s and %s", p.base, p.head)})
		return
	}
	made, other := s.add(p)
	if other != nil {
		invalid(fields{"code": "custom", "message": fmt.Sprintf("A pull request already exists for %s:%s.", owner, p.head)})
		return
	}
	answer(w, http.StatusCreated, s.asGitHub(c, made))
}

// gitLab checks who asks as GitLab does. A project's id is its path, escaped.
func (s *Server) gitLab(do func(http.ResponseWriter, call)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		repo, right := r.PathValue("id"), s.right(r)
		switch {
		case right == None:
			answer(w, http.StatusUnauthorized, fields{"message": "401 Unauthorized"})
		case !s.has(repo):
			answer(w, http.StatusNotFound, fields{"message": "404 Project Not Found"})
		case r.Method == http.MethodPost && right < Write:
			answer(w, http.StatusForbidden, fields{"message": "403 Forbidden"})
		default:
			do(w, callOf(r, repo))
		}
	}
}

func (s *Server) findGitLab(w http.ResponseWriter, c call) {
	q := c.r.URL.Query()
	out := []fields{}
	for _, p := range s.open(c.repo, q.Get("source_branch")) {
		if state := q.Get("state"); state != "" && state != "opened" && state != "all" || q.Get("target_branch") != "" && p.base != q.Get("target_branch") {
			continue
		}
		out = append(out, s.asGitLab(c, p))
	}
	answer(w, http.StatusOK, out)
}

func (s *Server) asGitLab(c call, p *pull) fields {
	return fields{
		"id": 1000 + p.number, "iid": p.number, "project_id": 1, "title": p.title, "description": p.body, "state": "opened", "source_branch": p.head,
		"target_branch": p.base, "web_url": fmt.Sprintf("%s/%s/-/merge_requests/%d", c.site, c.repo, p.number),
	}
}

func (s *Server) openGitLab(w http.ResponseWriter, c call) {
	p := pull{repo: c.repo, head: c.text("source_branch"), base: c.text("target_branch"), title: c.text("title"), body: c.text("description"), by: "gitlab"}
	var missing []string
	for _, name := range []string{"source_branch", "target_branch", "title"} {
		if c.text(name) == "" {
			missing = append(missing, name+" is missing")
		}
	}
	if len(missing) > 0 {
		answer(w, http.StatusBadRequest, fields{"error": strings.Join(missing, ", ")})
		return
	}
	if p.head == p.base {
		answer(w, http.StatusUnprocessableEntity, fields{"message": []string{"You can't use same project/branch for source and target"}})
		return
	}
	for field, name := range map[string]string{"source_branch": p.head, "target_branch": p.base} {
		if _, ok := s.branch(c.repo, name); !ok {
			answer(w, http.StatusBadRequest, fields{"message": fields{field: []string{"does not exist"}}})
			return
		}
	}
	made, other := s.add(p)
	if other != nil {
		answer(w, http.StatusConflict, fields{"message": []string{fmt.Sprintf("Another open merge request already exists for this source branch: !%d", other.number)}})
		return
	}
	answer(w, http.StatusCreated, s.asGitLab(c, made))
}

// knows answers whoever has a token, whatever its right, as GitHub (docs.github.com/rest/rate-limit) and GitLab (docs.gitlab.com/api/version) do.
func (s *Server) knows(w http.ResponseWriter, r *http.Request) {
	gitLab := strings.HasPrefix(r.URL.Path, "/api/v4/")
	switch right := s.right(r); {
	case gitLab && right == None:
		answer(w, http.StatusUnauthorized, fields{"message": "401 Unauthorized"})
	case gitLab:
		answer(w, http.StatusOK, fields{"version": "18.6.0", "revision": "local"})
	case right == None && r.Header.Get("Authorization") != "":
		answer(w, http.StatusUnauthorized, fields{"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"})
	default:
		answer(w, http.StatusOK, fields{"rate": fields{"limit": 5000, "used": 0, "remaining": 5000}, "resources": fields{}})
	}
}
