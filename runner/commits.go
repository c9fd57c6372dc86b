package runner

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxCommits bounds how many commits of a repository are told.
const maxCommits = 20

// tips are the commits that a repository's branches and its HEAD point at: folder → hashes. A repository that cannot be asked is left out.
func (c Config) tips(repos []Repo) map[string][]string {
	out := map[string][]string{}
	for _, r := range repos {
		all, err := c.ask(context.Background(), r.Folder(), "for-each-ref", "--format=%(objectname)", "refs/heads")
		if err != nil {
			continue
		}
		head, _ := c.ask(context.Background(), r.Folder(), "rev-parse", "--verify", "--quiet", "HEAD") // none where there is no commit yet
		hashes := strings.Fields(all + "\n" + head)
		slices.Sort(hashes)
		out[r.Folder()] = slices.Compact(hashes)
	}
	return out
}

// commits are those that came into the branches of the session's repositories since, by the committer of this turn: what was fetched is older, or somebody
// else's. Of each repository the newest are first.
func (t *turn) commits(before map[string][]string, since time.Time) []Commit {
	var out []Commit
	for _, r := range t.Repos {
		old, known := before[r.Folder()]
		if !known {
			continue
		}
		args := []string{
			"rev-list", "--max-count=" + strconv.Itoa(maxCommits), "--since=" + since.Add(-time.Second).UTC().Format(time.RFC3339),
			"--topo-order", "--fixed-strings", "--committer=<" + t.cfg.committer() + ">",
		}
		text, err := t.cfg.ask(context.Background(), r.Folder(), slices.Concat(args, []string{"--branches", "HEAD", "--not"}, old)...)
		if err != nil { // as where there is still no commit
			continue
		}
		for hash := range strings.FieldsSeq(text) {
			out = append(out, Commit{Dir: r.Folder(), Hash: hash})
		}
	}
	return out
}

// committer is the address that commits of the turn are by.
func (c Config) committer() string { return cmp.Or(c.gitEmail, "noreply@anthropic.com") }
