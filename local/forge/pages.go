package forge

import (
	"html/template"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// The pages show what a person would look at there: a repository, a branch, a pull request, and the way to a new one.

func pages() *template.Template {
	return template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}} · {{.Repo}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
pre{white-space:pre-wrap;border:1px solid #8888;border-radius:6px;padding:1rem;overflow-wrap:anywhere}small{opacity:.7}</style>
<p><small>A stand-in for a Git host, on this machine alone</small><br><a href="/{{.Repo}}">{{.Repo}}</a></p>
<h1>{{.Title}}</h1>
{{with .About}}<p>{{.}}</p>{{end}}
{{with .Body}}<pre>{{.}}</pre>{{end}}
{{with .Links}}<ul>{{range .}}<li><a href="{{.Address}}">{{.Text}}</a></li>{{end}}</ul>{{end}}
{{with .Log}}<h2>Commits</h2><pre>{{.}}</pre>{{end}}
</html>
`))
}

type link struct{ Address, Text string }

type pageData struct {
	Repo, Title, About, Body, Log string
	Links                         []link
}

var pagePath = regexp.MustCompile(`^/(.+?)(?:/(?:-/)?(tree|pull|merge_requests|compare)/(.+))?$`)

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	m := pagePath.FindStringSubmatch(strings.TrimSuffix(r.URL.Path, "/"))
	if r.Method != http.MethodGet || m == nil || !s.has(m[1]) {
		http.NotFound(w, r)
		return
	}
	d, ok := pageData{Repo: m[1]}, true
	switch m[2] {
	case "":
		s.repoPage(&d)
	case "tree":
		d.Title, d.Log, ok = s.branchPage(m[1], m[3])
	case "pull", "merge_requests":
		ok = s.pullPage(&d, m[3])
	case "compare":
		base, head, _ := strings.Cut(m[3], "...")
		d.Title, d.About = "New pull request", "From "+head+" into "+base+". This stand-in opens pull requests through its API alone."
		d.Log, ok = s.log(m[1], "refs/heads/"+base+"..refs/heads/"+head)
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_ = pages().Execute(w, d) // the reader may have gone
}

func (s *Server) repoPage(d *pageData) {
	d.Title = d.Repo
	for _, p := range s.open(d.Repo, "") {
		d.Links = append(d.Links, link{p.path(), p.name() + ": " + p.title})
	}
	text, _ := s.git(d.Repo, "for-each-ref", "--format=%(refname:short)", "refs/heads")
	for name := range strings.FieldsSeq(text) {
		d.Links = append(d.Links, link{"/" + d.Repo + "/tree/" + name, "Branch " + name})
	}
}

func (s *Server) branchPage(repo, name string) (title, log string, ok bool) {
	log, ok = s.log(repo, "refs/heads/"+name)
	return "Branch " + name, log, ok
}

func (s *Server) pullPage(d *pageData, number string) bool {
	n, err := strconv.Atoi(number)
	if err != nil {
		return false
	}
	for _, p := range s.open(d.Repo, "") {
		if p.number == n {
			d.Title, d.About, d.Body = p.title, p.name()+": from "+p.head+" into "+p.base, p.body
			d.Log, _ = s.log(d.Repo, "refs/heads/"+p.base+"..refs/heads/"+p.head)
			return true
		}
	}
	return false
}

func (s *Server) log(repo, what string) (string, bool) {
	return s.git(repo, "log", "--max-count=20", "--stat", what, "--")
}

func (p *pull) name() string {
	if p.by == "gitlab" {
		return "Merge request !" + strconv.Itoa(p.number)
	}
	return "Pull request #" + strconv.Itoa(p.number)
}

func (p *pull) path() string {
	if p.by == "gitlab" {
		return "/" + p.repo + "/-/merge_requests/" + strconv.Itoa(p.number)
	}
	return "/" + p.repo + "/pull/" + strconv.Itoa(p.number)
}
