package runner

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// maxFound bounds the pull requests, and the branches, that one turn is said to have made.
const maxFound = 5

// remoteRefs are the branches of a repository's remotes as it knows them: ref → commit.
func (c Config) remoteRefs(dir string) map[string]string {
	out := map[string]string{}
	text, err := c.ask(context.Background(), dir, "for-each-ref", "--format=%(objectname) %(refname)", "refs/remotes")
	if err != nil {
		return out
	}
	for line := range strings.Lines(text) {
		commit, ref, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[ref] = commit
	}
	return out
}

// remotesOf are those of all repositories: folder → ref → commit.
func (c Config) remotesOf(repos []Repo) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, r := range repos {
		out[r.Folder()] = c.remoteRefs(r.Folder())
	}
	return out
}

// pushed are the branches that were pushed since: the log of a remote's branch tells a push from a fetch.
func (c Config) pushed(repos []Repo, before map[string]map[string]string, forges []Forge) []Branch {
	var out []Branch
	for _, r := range repos {
		dir := r.Folder()
		now := c.remoteRefs(dir)
		refs := make([]string, 0, len(now))
		for ref, commit := range now {
			if before[dir][ref] != commit {
				refs = append(refs, ref)
			}
		}
		slices.Sort(refs)
		for _, ref := range refs {
			_, name, ok := strings.Cut(strings.TrimPrefix(ref, "refs/remotes/"), "/")
			if !ok || name == "HEAD" || len(out) == maxFound || !c.wasPushed(dir, ref, before[dir][ref]) {
				continue
			}
			out = append(out, branchOf(r, name, forges))
		}
	}
	return out
}

func (c Config) wasPushed(dir, ref, before string) bool {
	text, err := c.ask(context.Background(), dir, "log", "--walk-reflogs", "--max-count=50", "--format=%H %gs", ref, "--")
	if err != nil {
		return false
	}
	for line := range strings.Lines(text) {
		commit, how, _ := strings.Cut(strings.TrimSpace(line), " ")
		if commit == before {
			return false
		}
		if strings.HasPrefix(how, "update by push") {
			return true
		}
	}
	return false
}

// pullFinder finds pull requests of the session's own repositories in what a turn says: all that the answer names, and those that a
// command tells in a line by themselves, as gh, glab and a push do. A command that lists many tells of none.
type pullFinder struct {
	places map[string]place // :: folder → where it is
	found  []Pull
}

func newPullFinder(repos []Repo, forges []Forge) *pullFinder {
	f := &pullFinder{places: map[string]place{}}
	for _, r := range repos {
		if p, ok := placeOf(r.URL, forges); ok {
			f.places[r.Folder()] = p
		}
	}
	return f
}

func (f *pullFinder) add(all ...Pull) {
	for _, p := range all {
		if len(f.found) < maxFound && !slices.ContainsFunc(f.found, func(q Pull) bool { return q.URL == p.URL }) {
			f.found = append(f.found, p)
		}
	}
}

func (f *pullFinder) pull(address string) (Pull, bool) {
	for _, dir := range slices.Sorted(maps.Keys(f.places)) {
		if p, ok := f.places[dir].pull(address); ok {
			p.Dir = dir
			return p, true
		}
	}
	return Pull{}, false
}

var webAddress = regexp.MustCompile(`https?://[^\s<>"'` + "`" + `()\[\]{}|*]+`)

// answer finds those that a text names.
func (f *pullFinder) answer(text string) {
	if f == nil {
		return
	}
	for _, address := range webAddress.FindAllString(text, -1) {
		if p, ok := f.pull(address); ok {
			f.add(p)
		}
	}
}

// maxTold is how many pull requests a command may tell of that has made them.
const maxTold = 2

// output finds those that a command tells.
func (f *pullFinder) output(text string) {
	if f == nil || !strings.Contains(text, "://") {
		return
	}
	var told []Pull
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "remote:"))
		if strings.ContainsAny(line, " \t") {
			continue
		}
		if p, ok := f.pull(line); ok && !slices.ContainsFunc(told, func(q Pull) bool { return q.URL == p.URL }) {
			told = append(told, p)
		}
	}
	if len(told) <= maxTold {
		f.add(told...)
	}
}

// flat is the text of a tool's result: a text, or a list of blocks.
func flat(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var list []struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(raw, &list)
	parts := make([]string, len(list))
	for i, b := range list {
		parts[i] = b.Text
	}
	return strings.Join(parts, "\n")
}
