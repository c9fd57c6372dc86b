package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// cloneLimit bounds one clone.
const cloneLimit = 15 * time.Minute

var dirName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// Folder is the repository's folder below the workspace.
func (r Repo) Folder() string {
	if r.Dir != "" {
		return r.Dir
	}
	return strings.TrimSuffix(path.Base(strings.ReplaceAll(strings.TrimRight(r.URL, "/"), ":", "/")), ".git")
}

// CheckRepos refuses repositories that no turn could be run with: what is no address, a folder's name that is none, two in one folder.
func CheckRepos(repos []Repo) error {
	seen := map[string]bool{}
	for _, r := range repos {
		switch {
		case r.URL == "" || strings.HasPrefix(r.URL, "-") || strings.HasPrefix(r.Branch, "-"):
			return fmt.Errorf("%q is no address of a repository", r.URL)
		case hasPassword(r.URL): // Git would keep it in the repository, where Claude Code reads it
			return errors.New("the address of a repository holds a password: set the Git token instead")
		case !dirName.MatchString(r.Folder()) || r.Folder() == "attachments":
			return fmt.Errorf("%q is no name for a repository's folder", r.Folder())
		case seen[r.Folder()]:
			return fmt.Errorf("two repositories would be in %s: give one a folder", r.Folder())
		}
		seen[r.Folder()] = true
	}
	return nil
}

func hasPassword(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return false
	}
	_, has := u.User.Password()
	return has
}

// cloneAll clones the repositories that the workspace does not have. Each is cloned aside and renamed when it is
// complete: a clone that was cut short is done again.
func (c Config) cloneAll(ctx context.Context, t *turn) error {
	told := false
	for _, r := range t.Repos {
		target := filepath.Join(c.workspace(), r.Folder())
		if _, err := os.Lstat(target); err == nil {
			continue
		}
		if !told {
			t.phase(PhaseCloning)
			told = true
		}
		aside := filepath.Join(c.workspace(), ".cloning-"+r.Folder())
		if c.UID >= 0 && isPath(r.URL) {
			aside = filepath.Join(c.own(), "cloning-"+r.Folder())
		}
		if err := os.RemoveAll(aside); err != nil {
			return fmt.Errorf("clone %s: %w", r.URL, err)
		}
		if err := c.clone(ctx, r, aside); err != nil {
			return errors.Join(fmt.Errorf("clone %s: %w", r.URL, err), os.RemoveAll(aside))
		}
		if err := os.Rename(aside, target); err != nil {
			return fmt.Errorf("clone %s: %w", r.URL, err)
		}
	}
	return nil
}

// clone clones as Claude's user. A folder of this machine, which that user may not be able to reach, is copied by the
// runner itself, out of Claude's reach and with nobody's Git settings, and then handed over.
func (c Config) clone(ctx context.Context, r Repo, to string) error {
	args := []string{"clone", "--quiet", "--no-hardlinks"}
	if r.Branch != "" {
		args = append(args, "--branch", r.Branch)
	}
	args = append(args, "--", r.URL, to)
	if c.UID < 0 || !isPath(r.URL) {
		_, err := c.output(ctx, cloneLimit, c.workspace(), "git", args...)
		return err
	}
	self := c
	self.UID = -1
	if _, err := self.output(ctx, cloneLimit, "/", "env", append([]string{"HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "git", "-c", "safe.directory=*"}, args...)...); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, c.UID, c.UID)
	})
}

func isPath(address string) bool {
	return strings.HasPrefix(address, "/") || strings.HasPrefix(address, "file://")
}

// repoStates measures what each repository holds that its remote does not. Of others in the workspace, which Claude has cloned, or which were the
// session's before its record was lost, those are told that hold something.
func (c Config) repoStates(repos []Repo) []RepoState {
	out := []RepoState{}
	for _, r := range repos {
		out = append(out, c.repoState(context.Background(), r.Folder()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), otherClonesLimit)
	defer cancel()
	for _, dir := range c.otherClones(ctx, repos) {
		if st := c.repoState(ctx, dir); st.Changed > 0 || st.Unpushed > 0 || st.Unknown {
			out = append(out, st)
		}
	}
	return out
}

func (c Config) repoState(ctx context.Context, dir string) RepoState {
	st := RepoState{Dir: dir}
	if _, err := os.Lstat(c.at(dir)); errors.Is(err, fs.ErrNotExist) { // nothing is there to be lost
		return st
	}
	git := func(args ...string) (string, error) { return c.ask(ctx, dir, args...) }
	tips := []string{"--branches"}
	branch, err := git("symbolic-ref", "--quiet", "--short", "HEAD")
	if err != nil { // it is detached, as after a clone of a tag
		branch, tips = "HEAD", append(tips, "HEAD")
	}
	changed, changedErr := git("status", "--porcelain")
	unpushed, unpushedErr := git(slices.Concat([]string{"log", "--oneline"}, tips, []string{"--not", "--remotes"})...)
	st.Branch, st.Changed, st.Unpushed = branch, lineCount(changed), lineCount(unpushed)
	st.Unknown = changedErr != nil || unpushedErr != nil
	return st
}

// Bounds of the look at repositories beside the session's. What could not be looked at in time may hold something.
const (
	maxOtherClones   = 10
	otherClonesLimit = 30 * time.Second // for all of them
)

// otherClones are folders of the workspace with a clone in them that is none of the session's repositories.
func (c Config) otherClones(ctx context.Context, repos []Repo) []string {
	entries, _ := os.ReadDir(c.workspace())
	var out []string
	for _, e := range entries {
		dir := e.Name()
		switch {
		case !e.IsDir() || !dirName.MatchString(dir) || len(out) == maxOtherClones:
		case slices.ContainsFunc(repos, func(r Repo) bool { return r.Folder() == dir }):
		case c.isClone(ctx, dir):
			out = append(out, dir)
		}
	}
	return out
}

// isClone reports whether a folder is a repository of its own that has a remote, or may have one.
func (c Config) isClone(ctx context.Context, dir string) bool {
	if _, err := os.Lstat(filepath.Join(c.at(dir), ".git")); err != nil {
		return false
	}
	remotes, err := c.ask(ctx, dir, "remote")
	return err != nil || remotes != ""
}

func lineCount(s string) int {
	if s == "" {
		return 0
	}
	return strings.Count(s, "\n") + 1
}
