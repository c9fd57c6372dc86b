package bot

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"flaudebot/runner"
)

// A message that begins a session may name what it is about: "repo:owner/name", "repo:" with a link, "branch:name" behind either,
// "repo:none" for nothing at all. A link to one that it may name gives it that besides those of the channel.

// named matches one such word, with the space before it. Slack puts links in angle brackets.
var named = regexp.MustCompile(`(?i)(^|\s+)(repo|branch):(<[^>]*>|\S+)`)

var (
	ownerAndName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$`)
	// branchPage is the page of a branch at GitHub, GitLab and Gitea.
	branchPage = regexp.MustCompile(`^(.+?)/(?:-/)?(?:tree|src/branch)/(.+)$`)
)

// githubURL is where "owner/name" is.
const githubURL = "https://github.com/"

// nameError says what is wrong with what a message names, to people.
type nameError string

func (e nameError) Error() string { return string(e) }

// repositories are those that a message names, and its words without them; nil: it names none. A [nameError] says what cannot be had.
func (b *Bot) repositories(words string) (rest string, repos []runner.Repo, err error) {
	if !strings.Contains(words, ":") { // as most, which may be long, and wait for an ack
		return words, nil, nil
	}
	for _, m := range named.FindAllStringSubmatch(words, -1) {
		what, value := strings.ToLower(m[2]), strings.TrimRight(plainLink(m[3]), ".,;")
		switch {
		case what == "branch" && len(repos) == 0:
			return "", nil, nameError(sayBranchOf(value))
		case what == "branch":
			repos[len(repos)-1].Branch = value
		case strings.EqualFold(value, "none"):
			if repos == nil {
				repos = []runner.Repo{}
			}
		default:
			r := repositoryOf(value)
			if !b.mayName(r.URL) {
				return "", nil, b.notNamed(value)
			}
			repos = append(repos, r)
		}
	}
	if repos == nil {
		return words, nil, nil
	}
	if err := runner.CheckRepos(repos); err != nil {
		return "", nil, nameError(sayNoWorkspace(err))
	}
	return strings.TrimSpace(named.ReplaceAllString(words, "")), repos, nil
}

// Links that say by themselves which repository they are about: the page of a branch, and that of a pull request or a merge request.
var (
	pageLink = regexp.MustCompile(`https?://[^\s<>|]+`)
	pullPage = regexp.MustCompile(`^(.+?)/(?:-/)?(?:pull|pulls|merge_requests)/\d+(?:/|$)`)
	isCommit = regexp.MustCompile(`^[0-9a-f]{7,40}$`)
)

// linkedRepos are the repositories that the links of a text lead to, as far as people may name them. A link may be there for another reason, so
// what is no repository for certain, or may not be named, is left as it is.
func (b *Bot) linkedRepos(words string) []runner.Repo {
	var out []runner.Repo
	for _, link := range pageLink.FindAllString(words, -1) {
		address, _, _ := strings.Cut(unescape(link), "#")
		address, _, _ = strings.Cut(address, "?")
		r, ok := b.linkedRepo(strings.TrimRight(address, "/.,;:!)"))
		if ok && b.mayName(r.URL) && !slices.ContainsFunc(out, func(had runner.Repo) bool { return had.URL == r.URL }) {
			out = append(out, r)
		}
	}
	if runner.CheckRepos(out) != nil {
		return nil
	}
	return out
}

// linkedRepo reads an address. Behind "tree" a folder can follow the branch, and a commit stand in its place: then it tells of the repository alone.
// What else stands below a host may be a group or a page of its own: a repository is what is named right below an owner that may be.
func (b *Bot) linkedRepo(address string) (runner.Repo, bool) {
	if page := pullPage.FindStringSubmatch(address); page != nil {
		return runner.Repo{URL: page[1]}, true
	}
	if page := branchPage.FindStringSubmatch(address); page != nil {
		r := runner.Repo{URL: page[1]}
		if branch := page[2]; !strings.Contains(branch, "/") && !isCommit.MatchString(branch) {
			r.Branch = branch
		}
		return r, true
	}
	for _, place := range b.cfg.NamedRepos {
		owner, err := url.Parse(place)
		at := len(place)
		if err == nil && owner.Host != "" && strings.Trim(owner.Path, "/") != "" && len(address) > at && strings.EqualFold(address[:at], place) && !strings.Contains(address[at:], "/") {
			return runner.Repo{URL: address}, true
		}
	}
	return runner.Repo{}, false
}

// plainLink is the address of a link as Slack writes one, or the text as it is.
func plainLink(s string) string {
	link, ok := strings.CutPrefix(s, "<")
	if !ok {
		return unescape(s)
	}
	link, _, _ = strings.Cut(strings.TrimSuffix(link, ">"), "|")
	return unescape(link)
}

// repositoryOf reads "owner/name" or an address, with "#branch" behind it, or that of a branch's page.
func repositoryOf(value string) runner.Repo {
	address, branch, _ := strings.Cut(value, "#")
	if ownerAndName.MatchString(address) {
		return runner.Repo{URL: githubURL + address, Branch: branch}
	}
	if page := branchPage.FindStringSubmatch(address); page != nil {
		address, branch = page[1], page[2]
	}
	return runner.Repo{URL: strings.TrimRight(address, "/"), Branch: branch}
}

// mayName reports whether an address lies where people may name repositories. The machine's Git gives the token to the hosts of a session's
// repositories, so these are nobody's choice but that of whoever runs the bot.
func (b *Bot) mayName(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.RawQuery != "" || strings.Contains(u.EscapedPath(), "%") || strings.Contains(u.Path+"/", "/../") {
		return false
	}
	for _, place := range b.cfg.NamedRepos {
		if strings.HasPrefix(strings.ToLower(address), strings.ToLower(place)) {
			return true
		}
	}
	return false
}

func (b *Bot) notNamed(value string) error {
	if len(b.cfg.NamedRepos) == 0 {
		return nameError(sayNoNamedRepos)
	}
	return nameError(sayForeignRepo(value, b.namedPlaces()))
}

// namedPlaces are the places below which people may name repositories, as they read them.
func (b *Bot) namedPlaces() []string {
	var places []string
	for _, p := range b.cfg.NamedRepos {
		places = append(places, "`"+escape(strings.TrimSuffix(strings.TrimPrefix(p, "https://"), "/"))+"`")
	}
	return places
}

// NamedPlace is a place below which people may name repositories, as [Config.NamedRepos] wants it: from host/owner, host, or an address.
func NamedPlace(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Host == "") != (u.Scheme == "file") {
		return "", errors.New("want host/owner or host, such as github.com/acme")
	}
	return strings.TrimRight(s, "/") + "/", nil
}
