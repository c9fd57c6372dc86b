package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How long the steps of a push may take.
const (
	commitTime = 2 * time.Minute
	pushTime   = 10 * time.Minute
)

// maxPublishText bounds what a pull request says, in bytes: GitHub takes 65,536 characters.
const maxPublishText = 32 << 10

var branchName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}$`)

// CheckBranch refuses what Git takes for no branch's name, and what would be awkward as one.
func CheckBranch(name string) error {
	parts := strings.Split(name, "/")
	bad := func(p string) bool { return p == "" || strings.HasPrefix(p, ".") || strings.HasSuffix(p, ".lock") }
	if !branchName.MatchString(name) || strings.Contains(name, "..") || strings.HasSuffix(name, ".") || slices.ContainsFunc(parts, bad) {
		return fmt.Errorf("%q is no name of a branch", name)
	}
	return nil
}

func (p *Publish) check(repos []Repo) error {
	if p == nil {
		return errors.New("it does not say what to push")
	}
	if !slices.ContainsFunc(repos, func(r Repo) bool { return r.Folder() == p.Dir }) {
		return fmt.Errorf("%q is no repository of this session", p.Dir)
	}
	if err := CheckBranch(p.Branch); err != nil {
		return err
	}
	if p.Base != "" {
		if err := CheckBranch(p.Base); err != nil {
			return err
		}
	}
	switch {
	case p.Branch == p.Base:
		return errors.New("a pull request needs two branches")
	case isBlank(p.Title):
		return errors.New("a pull request needs a title")
	case len(p.Title)+len(p.Body) > maxPublishText:
		return errors.New("title and text are too long")
	}
	return nil
}

// publish pushes a repository's work to a branch, and opens a pull request for it. Each step finds what an earlier try has done.
func (t *turn) publish(ctx context.Context) Outcome {
	p := t.Errand.Publish
	r := t.Repos[slices.IndexFunc(t.Repos, func(r Repo) bool { return r.Folder() == p.Dir })]
	base := t.cfg.baseOf(ctx, r, p.Base)
	if base == p.Branch {
		return Outcome{Failure: FailErrand, Error: fmt.Sprintf("%s is the branch that a pull request would be for: choose another name", base), Repos: t.cfg.repoStates(t.Repos)}
	}
	out := Outcome{}
	err := t.preparePush(ctx, r, *p, base)
	if err == nil {
		t.tell("git push", p.Branch)
		err = t.cfg.push(ctx, r, "HEAD", p.Branch, t.hasToken(r))
	}
	if err == nil {
		at, _ := placeOf(r.URL, t.Settings.Forges)
		out.Branches, out.NewPull = []Branch{branchOf(r, p.Branch, t.Settings.Forges)}, at.newPullPage(p.Branch, base)
		if at.kind == ForgeGitLab {
			t.tell("merge request", p.Branch)
		} else {
			t.tell("pull request", p.Branch)
		}
		var pull Pull
		if pull, err = t.openPull(ctx, r, *p, base); err == nil {
			out.Pulls, out.NewPull = []Pull{pull}, ""
		}
	}
	if err != nil {
		out.Failure, out.Error = errandFailure(err), err.Error()
	}
	out.Repos = t.cfg.repoStates(t.Repos)
	return out
}

// errandFailure tells what an error means for an errand.
func errandFailure(err error) Failure {
	if f := failureOf(err); f != FailHandover {
		return f
	}
	return FailErrand
}

// hasToken reports whether there is a token that the repository's host may have.
func (t *turn) hasToken(r Repo) bool {
	return t.secrets.GitToken != "" && len(t.secrets.mayHave(gitOrigins([]Repo{r}))) > 0
}

// tell says in the live message what is being done.
func (t *turn) tell(what, on string) {
	t.journal.add("", Event{Kind: KindTool, Tool: what, Text: redactor(t.secrets).Replace(on)})
}

// baseOf is the branch that a pull request is for: the one asked for, or that the repository was cloned with, or its default.
func (c Config) baseOf(ctx context.Context, r Repo, asked string) string {
	if asked != "" {
		return asked
	}
	if r.Branch != "" {
		if _, err := c.ask(ctx, r.Folder(), "rev-parse", "--verify", "--quiet", "refs/remotes/origin/"+r.Branch); err == nil {
			return r.Branch
		}
	}
	head, _ := c.ask(ctx, r.Folder(), "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
	return cmp.Or(strings.TrimPrefix(head, "origin/"), "main")
}

// preparePush has the work on a branch of its own, and what is not committed committed if it is asked for.
func (t *turn) preparePush(ctx context.Context, r Repo, p Publish, base string) error {
	dir := r.Folder()
	if conflicts, err := t.cfg.ask(ctx, dir, "ls-files", "--unmerged"); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	} else if conflicts != "" && p.Commit {
		return refuse(FailErrand, "a merge in %s has conflicts that are not resolved", dir)
	}
	if err := t.cfg.leaveBase(ctx, dir, p.Branch, base); err != nil {
		return fmt.Errorf("begin branch %s: %w", p.Branch, err)
	}
	if p.Commit {
		t.tell("git commit", p.Title)
		if err := t.cfg.commitAll(ctx, dir, p.Title, t.signed()); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	ahead, err := t.cfg.ask(ctx, dir, "rev-list", "--count", "refs/remotes/origin/"+base+"..HEAD")
	if n, numErr := strconv.Atoi(ahead); err == nil && numErr == nil && n == 0 {
		return refuse(FailNothing, "%s has no commits that %s does not have", dir, base)
	}
	return nil
}

// leaveBase begins the branch where the work is on the one that it is to be merged into, or on none. Work that is on a branch of
// its own stays there, and is pushed under the other name.
func (c Config) leaveBase(ctx context.Context, dir, branch, base string) error {
	current, err := c.ask(ctx, dir, "symbolic-ref", "--quiet", "--short", "HEAD")
	if err == nil && current != base {
		return nil
	}
	if _, err := c.ask(ctx, dir, "rev-parse", "--verify", "--quiet", "refs/heads/"+branch); err == nil {
		return nil
	}
	_, err = c.ask(ctx, dir, "switch", "--quiet", "--create", branch, "--no-track")
	return err
}

// commitAll commits all that is not committed, if there is anything.
func (c Config) commitAll(ctx context.Context, dir, title string, trailers []string) error {
	if _, err := c.git(ctx, commitTime, dir, "add", "--all"); err != nil {
		return err
	}
	if staged, err := c.ask(ctx, dir, "status", "--porcelain", "--untracked-files=no"); err != nil || staged == "" {
		return err
	}
	args := []string{"-c", "commit.gpgSign=false", "commit", "--quiet", "--no-verify", "--message", title}
	for _, line := range trailers {
		args = append(args, "--trailer", line)
	}
	_, err := c.git(ctx, commitTime, dir, args...)
	return err
}

// push pushes a commit to a branch of the repository's own remote, wherever its origin leads by now, and never by force.
func (c Config) push(ctx context.Context, r Repo, commit, branch string, token bool) error {
	dir := r.Folder()
	told, said, err := c.run(ctx, pushTime, c.at(dir), "git", slices.Concat(quiet(), []string{
		"push", "--porcelain", "--no-recurse-submodules", "--", r.URL, commit + ":refs/heads/" + branch,
	})...)
	if err != nil {
		return pushError(err, said+"\n"+told, token)
	}
	if _, err := c.ask(ctx, dir, "update-ref", "refs/remotes/origin/"+branch, commit); err != nil {
		return fmt.Errorf("note what was pushed: %w", err)
	}
	// It is what people expect; that it fails where there is no such branch here matters to nobody.
	_, _ = c.ask(ctx, dir, "branch", "--quiet", "--set-upstream-to=origin/"+branch, branch)
	return nil
}

// pushError tells from Git's words why a push failed.
func pushError(err error, said string, token bool) error {
	low := strings.ToLower(said)
	has := func(all ...string) bool {
		return slices.ContainsFunc(all, func(s string) bool { return strings.Contains(low, s) })
	}
	failure := FailErrand
	switch {
	case has("gh006", "gh013", "protected branch", "protected ref"):
		failure = FailProtected
	case has("non-fast-forward", "fetch first", "stale info", "directory file conflict", "cannot lock ref"):
		failure = FailTaken
	case has("could not read username", "terminal prompts disabled") && !token:
		failure = FailNoToken
	case has("could not read username", "terminal prompts disabled", "authentication failed", "error: 401", "error: 403", "permission", "denied",
		"not allowed to push", "write access", "not found", "host key verification"):
		failure = FailNoRight
	case has("could not resolve", "failed to connect", "couldn't connect", "connection", "timed out", "error: 5", "unexpected disconnect"):
		failure = FailRemote
	}
	return refused{fmt.Errorf("push: %s", cmp.Or(gitWords(said), err.Error())), failure}
}

var aboutPush = regexp.MustCompile(`^(To |hint:|Done$|error: failed to push some refs|fatal: the remote end hung up)`)

// gitWords is what of Git's words tells why, in a few lines.
func gitWords(said string) string {
	var out []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "remote:"))
		if rest, no := strings.CutPrefix(line, "!\t"); no { // REF, then why
			line = rest[strings.LastIndexByte(rest, '\t')+1:]
		}
		if line != "" && !aboutPush.MatchString(line) && len(out) < 6 {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// rescue pushes what no remote has, of all the session's repositories, to branches of their own: what is not committed is committed, and a branch that is not
// checked out is pushed as it is. A repository that cannot be pushed keeps none of the others from it.
func (t *turn) rescue(ctx context.Context) Outcome {
	prefix := t.Errand.Rescue.Branch
	out := Outcome{}
	var failed error
	for _, st := range t.cfg.repoStates(t.Repos) {
		at := slices.IndexFunc(t.Repos, func(r Repo) bool { return r.Folder() == st.Dir })
		if at < 0 || st.Changed == 0 && st.Unpushed == 0 && !st.Unknown { // where others may be pushed to nobody has said
			continue
		}
		done, err := t.rescueOne(ctx, t.Repos[at], prefix)
		out.Branches = append(out.Branches, done...)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", st.Dir, err))
			out.Failure = errandFailure(err)
		}
	}
	if failed != nil {
		out.Error = failed.Error()
	}
	out.Repos = t.cfg.repoStates(t.Repos)
	return out
}

func (t *turn) rescueOne(ctx context.Context, r Repo, prefix string) ([]Branch, error) {
	dir := r.Folder()
	t.tell("git commit", dir)
	if err := t.cfg.commitAll(ctx, dir, "Work of a session that ended", t.signed()); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	text, err := t.cfg.ask(ctx, dir, "for-each-ref", "--format=%(refname)", "refs/heads")
	if err != nil {
		return nil, fmt.Errorf("list branches: %w", err)
	}
	var out []Branch
	for _, ref := range append([]string{"HEAD"}, strings.Fields(text)...) {
		ahead, err := t.cfg.ask(ctx, dir, "rev-list", "--max-count=1", ref, "--not", "--remotes")
		if err != nil {
			return out, fmt.Errorf("look at %s: %w", ref, err)
		}
		if ahead == "" { // the one that is checked out was pushed as HEAD
			continue
		}
		branch := prefix
		if name, isBranch := strings.CutPrefix(ref, "refs/heads/"); isBranch {
			branch += "-" + strings.Trim(notInBranch.ReplaceAllString(name, "-"), "-.")
		}
		t.tell("git push", branch)
		if err := t.cfg.push(ctx, r, ref, branch, t.hasToken(r)); err != nil {
			return out, err
		}
		out = append(out, branchOf(r, branch, t.Settings.Forges))
	}
	return out, nil
}

var notInBranch = regexp.MustCompile(`[^A-Za-z0-9_-]+`)
