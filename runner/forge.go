package runner

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// A forge is what a Git host is beside Git: where branches and pull requests have pages, and an API that opens them.

// ForgeKind says whose pages and API a host has.
type ForgeKind string

const (
	ForgeGitHub ForgeKind = "github" // github.com, GitHub Enterprise
	ForgeGitLab ForgeKind = "gitlab" // gitlab.com, GitLab of one's own
)

// Forge says what a host is whose name does not.
type Forge struct {
	Host string    `json:"host"` // with its port, if its address has one
	Kind ForgeKind `json:"kind"`
}

// place is a repository at a Git host.
type place struct {
	scheme, host string // of its pages
	path         string // owner/name
	kind         ForgeKind
}

// Hosted reports whether the repository is at a Git host, where there may be pull requests.
func (r Repo) Hosted() bool {
	_, ok := placeOf(r.URL, nil)
	return ok
}

// Forge tells whose pages and API the repository's host has; "": nobody knows, or it is at none.
func (r Repo) Forge(forges []Forge) ForgeKind {
	p, _ := placeOf(r.URL, forges)
	return p.kind
}

var scpLike = regexp.MustCompile(`^(?:[A-Za-z0-9_.-]+@)?([A-Za-z0-9.-]+):([^/].*)$`)

// placeOf reads a repository's address; false: it is at no host. Over SSH its pages are at https.
func placeOf(address string, forges []Forge) (place, bool) {
	p := place{}
	u, err := url.Parse(address)
	switch m := scpLike.FindStringSubmatch(address); {
	case err == nil && (u.Scheme == "https" || u.Scheme == "http"):
		p.scheme, p.host, p.path = u.Scheme, u.Host, u.Path
	case err == nil && u.Scheme == "ssh":
		p.scheme, p.host, p.path = "https", u.Hostname(), u.Path
	case m != nil:
		p.scheme, p.host, p.path = "https", m[1], m[2]
	default:
		return p, false
	}
	p.host, p.path = strings.ToLower(p.host), strings.TrimSuffix(strings.Trim(p.path, "/"), ".git")
	if p.host == "" || !strings.Contains(p.path, "/") {
		return p, false
	}
	p.kind = kindOf(p.host, forges)
	return p, true
}

// kindOf tells a host's kind: what the settings say, or else what its name does. "": nobody knows.
func kindOf(host string, forges []Forge) ForgeKind {
	if i := slices.IndexFunc(forges, func(f Forge) bool { return strings.EqualFold(f.Host, host) }); i >= 0 {
		return forges[i].Kind
	}
	for _, kind := range []ForgeKind{ForgeGitHub, ForgeGitLab} {
		if slices.Contains(strings.FieldsFunc(host, func(r rune) bool { return r == '.' || r == '-' || r == ':' }), string(kind)) {
			return kind
		}
	}
	return ""
}

func (p place) page() string { return p.scheme + "://" + p.host + "/" + escapePath(p.path) }

func escapePath(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// branchPage is where a branch is shown; "": nobody knows.
func (p place) branchPage(branch string) string {
	switch p.kind {
	case ForgeGitHub:
		return p.page() + "/tree/" + escapePath(branch)
	case ForgeGitLab:
		return p.page() + "/-/tree/" + escapePath(branch)
	}
	return ""
}

// branchOf is a branch of a repository, with its page where that is known.
func branchOf(r Repo, name string, forges []Forge) Branch {
	at, _ := placeOf(r.URL, forges)
	return Branch{Dir: r.Folder(), Name: name, URL: at.branchPage(name)}
}

// newPullPage is where a person opens a pull request of a branch; "": nobody knows.
func (p place) newPullPage(branch, base string) string {
	switch p.kind {
	case ForgeGitHub:
		return p.page() + "/compare/" + escapePath(base) + "..." + escapePath(branch) + "?expand=1"
	case ForgeGitLab:
		q := url.Values{"merge_request[source_branch]": {branch}, "merge_request[target_branch]": {base}}
		return p.page() + "/-/merge_requests/new?" + q.Encode()
	}
	return ""
}

// pullPath is what follows a repository's page in a pull request's.
var pullPath = regexp.MustCompile(`^/(?:pull|-/merge_requests)/([1-9][0-9]{0,9})(?:[^0-9A-Za-z_].*)?$`)

// pull reads the address of a pull request of the repository, with what may follow it; false: it is none.
func (p place) pull(address string) (Pull, bool) {
	rest, ok := strings.CutPrefix(address, p.page())
	if !ok {
		return Pull{}, false
	}
	m := pullPath.FindStringSubmatch(rest)
	if m == nil || p.kind == ForgeGitHub && strings.HasPrefix(rest, "/-/") || p.kind == ForgeGitLab && strings.HasPrefix(rest, "/pull/") {
		return Pull{}, false
	}
	path, _, _ := strings.Cut(rest, "/"+m[1])
	return Pull{URL: p.page() + path + "/" + m[1], Number: m[1]}, true
}
