package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What a turn changed is measured on the disk: the workspace is looked at before Claude Code starts and after all of the turn's processes have
// ended, and the two are compared, whatever was committed in between. A runner that dies in between knows nothing of it, nor does the outcome of
// such a turn, which is another's.

// Bounds of a look at the workspace. What is beyond them is not looked at, and Changes.Partial says so.
const (
	lookBeforeLimit = 10 * time.Second // Claude waits for it
	lookLooseLimit  = 5 * time.Second  // of that, for what is in no repository
	lookAfterLimit  = 20 * time.Second // the answer waits for it
	maxLooked       = 2000             // files of a unit that Git has not seen as they are
	maxLookedBytes  = 64 << 20         // bytes of them
	maxRepos        = 20               // repositories that are compared, those beyond the turn's own included
	lookFree        = 2 * minFree      // bytes that must be free on the volume for it
)

// Bounds of what is told.
const (
	maxChanges     = 200      // entries
	maxChangesJSON = 16 << 10 // bytes of them as JSON: an outcome travels in one reply
	maxDiff        = 1 << 20  // bytes of the diff that is kept
	maxDiffRead    = 4 << 20  // bytes of the diff from which secrets are removed before it is cut
)

// survey is what is known of the workspace before a turn.
type survey struct {
	cfg    Config
	units  []*unit
	budget int64 // bytes that may still be looked at
}

// unit is a part of the workspace that is compared by itself: a repository, or all that is in none.
type unit struct {
	path   string // below the workspace; ".": what is in no repository
	shadow shadow
	state  state // before the turn
	lost   bool  // it could not be looked at before the turn
}

// state is a unit at one time.
type state struct {
	tree    string             // of the files that Git compares
	large   map[string]content // files that are compared by their content's digest
	nested  []string           // repositories in it, below the workspace
	skipped map[string]bool    // files that were not looked at
}

// surveyDir holds the shadow repositories; while the turn runs nobody but root gets there.
func (c Config) surveyDir() string { return filepath.Join(c.Data, ".survey") }

// lookBefore looks at the workspace before the turn; nil: that could not be done, and what the turn changes stays unknown.
func (t *turn) lookBefore(ctx context.Context) *survey {
	s, err := t.cfg.survey(ctx, t.Repos)
	if err != nil {
		t.cfg.Log.Warn("what the turn changes will not be known", "turn", t.ID, "err", err)
		return nil
	}
	return s
}

func (c Config) survey(ctx context.Context, repos []Repo) (*survey, error) {
	ctx, cancel := context.WithTimeout(ctx, lookBeforeLimit)
	defer cancel()
	free, err := freeBytes(c.Data)
	if err == nil && free < lookFree {
		err = fmt.Errorf("%w: %d MB are free", errFull, free>>20)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(c.surveyDir()), os.Mkdir(c.surveyDir(), 0o711)); err != nil { //nolint:gosec // Claude's user works below it
		return nil, err
	}
	s := &survey{cfg: c, budget: min(maxLookedBytes, free/4)}
	short, cancel := context.WithTimeout(ctx, lookLooseLimit)
	defer cancel()
	found := s.add(short, ".").state.nested
	for _, r := range repos {
		found = append(found, r.Folder())
	}
	slices.Sort(found)
	for _, dir := range slices.Compact(found) {
		if err := folder(c.workspace(), dir); err != nil { // it is not there
			continue
		}
		if len(s.units) > maxRepos {
			s.units = append(s.units, &unit{path: dir, lost: true})
			continue
		}
		s.add(ctx, dir)
	}
	return s, os.Chmod(c.surveyDir(), 0o700)
}

// add looks at a unit for the first time.
func (s *survey) add(ctx context.Context, dir string) *unit {
	u := &unit{path: dir}
	s.units = append(s.units, u)
	var err error
	if u.shadow, err = s.cfg.newShadow(ctx, dir, len(s.units)); err == nil {
		u.state, err = s.look(ctx, u)
	}
	if err != nil {
		u.lost = true
		s.cfg.Log.Warn("what a turn changes will not be known of a part of the workspace", "dir", dir, "err", err)
	}
	return u
}

// look takes a unit's state.
func (s *survey) look(ctx context.Context, u *unit) (state, error) {
	st := state{large: map[string]content{}, skipped: map[string]bool{}}
	names, err := u.shadow.unseen(ctx)
	if err != nil {
		return st, err
	}
	root, err := openFolder(s.cfg.workspace(), u.path)
	if err != nil {
		return st, err
	}
	defer func() { _ = root.Close() }()
	var small, large []string
	for i, name := range names {
		if i >= maxLooked || u.state.skipped[name] {
			st.skipped[name] = true
			continue
		}
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			st.nested = append(st.nested, path.Join(u.path, dir))
			continue
		}
		info, err := root.Lstat(name)
		switch {
		case err != nil: // it is gone
			small = append(small, name)
			continue
		case ctx.Err() != nil:
			return st, ctx.Err()
		case info.Mode().IsRegular() && info.Size() > maxSmall:
			st.large[name] = contentOf(root, name, info, &s.budget)
			large = append(large, name)
			continue
		case !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeSymlink:
			continue
		case info.Size() > s.budget:
			st.skipped[name] = true
			continue
		}
		s.budget -= info.Size()
		small = append(small, name)
	}
	st.tree, err = u.shadow.write(ctx, small, large)
	return st, err
}

// lookAfter compares the workspace with what it was, and returns the diff as well. It forgets what it was.
func (t *turn) lookAfter(s *survey) (*Changes, []byte) {
	if s == nil {
		return nil, nil
	}
	defer func() { _ = os.RemoveAll(t.cfg.surveyDir()) }()
	if err := os.Chmod(t.cfg.surveyDir(), 0o711); err != nil { //nolint:gosec // Claude's user works below it
		t.cfg.Log.Warn("what the turn changed is not known", "turn", t.ID, "err", err)
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookAfterLimit)
	defer cancel()
	free, _ := freeBytes(t.cfg.Data)
	s.budget = min(maxLookedBytes, max(free-minFree, 0))
	return s.compare(ctx)
}

func (s *survey) compare(ctx context.Context) (*Changes, []byte) {
	out := &Changes{}
	var all []Change
	var diff bytes.Buffer
	known := map[string]bool{}
	for _, u := range s.units {
		known[u.path] = true
	}
	if !s.units[0].lost {
		s.units[0].shadow.exclude(slices.Collect(maps.Keys(known)))
	}
	for i := 0; i < len(s.units); i++ { // new ones may be found
		u := s.units[i]
		if out.Partial = out.Partial || u.lost; u.lost {
			continue
		}
		if err := folder(s.cfg.workspace(), u.path); err != nil {
			all = append(all, Change{Path: u.path + "/", State: ChangeRemoved})
			continue
		}
		now, err := s.look(ctx, u)
		if err != nil {
			out.Partial = true
			continue
		}
		out.Partial = out.Partial || len(u.state.skipped) > 0 || len(now.skipped) > 0
		changes, err := u.shadow.compare(ctx, u.state.tree, now.tree)
		if err != nil {
			out.Partial = true
			continue
		}
		changes = slices.DeleteFunc(changes, func(c Change) bool { return c.link && known[path.Join(u.path, c.Path)] })
		all = append(all, inFolder(u.path, withLarge(changes, u.state.large, now.large))...)
		if room := maxDiffRead - diff.Len(); room > 0 && u.state.tree != now.tree {
			diff.Write(u.shadow.diff(ctx, u.path, u.state.tree, now.tree, room))
		}
		for _, dir := range now.nested {
			if known[dir] {
				continue
			}
			known[dir] = true
			fresh, err := s.begun(ctx, dir)
			if err != nil || fresh == nil || len(s.units) >= maxRepos {
				all = append(all, Change{Path: dir + "/", State: ChangeAdded})
				continue
			}
			s.units = append(s.units, fresh)
		}
	}
	out.fill(s.cfg.workspace(), all)
	return out, diff.Bytes()
}

// begun is a repository that was begun in the turn, as one that was empty before; nil for one that was cloned.
func (s *survey) begun(ctx context.Context, dir string) (*unit, error) {
	root, err := openFolder(s.cfg.workspace(), dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	if _, err := root.Lstat(".git/HEAD"); err != nil {
		return nil, nil //nolint:nilnil,nilerr // a work tree of another repository
	}
	if _, err := root.Lstat(".git/refs/remotes"); err == nil {
		return nil, nil //nolint:nilnil // as above
	}
	if _, err := root.Lstat(".git/packed-refs"); err == nil {
		packed, err := fetch(root, ".git/packed-refs", maxSmall) // it may be anything
		if err != nil || bytes.Contains(packed, []byte("refs/remotes/")) {
			return nil, err //nolint:nilnil // as above
		}
	}
	sh, err := s.cfg.newShadow(ctx, dir, len(s.units))
	if err != nil {
		return nil, err
	}
	tree, err := sh.empty(ctx)
	return &unit{path: dir, shadow: sh, state: state{tree: tree}}, err
}

// withLarge adds what is compared by its content's digest. A file that grew or shrank over that bound is gone, or new, to Git.
func withLarge(changes []Change, before, after map[string]content) []Change {
	at := map[string]int{}
	for i, c := range changes {
		at[c.Path] = i
	}
	put := func(name string, st ChangeState) {
		if i, ok := at[name]; ok {
			changes[i] = Change{Path: name, State: ChangeModified, Binary: true}
			return
		}
		changes = append(changes, Change{Path: name, State: st, Binary: true})
	}
	for name, now := range after {
		was, ok := before[name]
		switch {
		case !ok:
			put(name, ChangeAdded)
		case !was.same(now):
			put(name, ChangeModified)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			put(name, ChangeRemoved)
		}
	}
	return changes
}

// inFolder has paths begin with the folder's.
func inFolder(dir string, changes []Change) []Change {
	for i, c := range changes {
		changes[i].Path = path.Join(dir, c.Path)
		if c.Was != "" {
			changes[i].Was = path.Join(dir, c.Was)
		}
	}
	return changes
}

// fill counts all changes and takes as many as are told.
func (c *Changes) fill(workspace string, all []Change) {
	slices.SortFunc(all, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	c.Total = len(all)
	root, err := os.OpenRoot(workspace)
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	size := 0
	for _, one := range all {
		c.Added, c.Removed = c.Added+one.Added, c.Removed+one.Removed
		if info, err := root.Lstat(one.Path); err == nil && info.Mode().IsRegular() {
			one.Size = info.Size()
		}
		one.Path, one.Was = strings.ToValidUTF8(one.Path, "\uFFFD"), strings.ToValidUTF8(one.Was, "\uFFFD")
		if size += jsonSize(one) + 1; len(c.Files) < maxChanges && size <= maxChangesJSON {
			c.Files = append(c.Files, one)
		}
	}
}

// keepDiff keeps a turn's diff for an errand that asks for it, and returns its size. Without room for it there is none.
func (c Config) keepDiff(turn, diff string) int64 {
	if len(diff) > maxDiff {
		diff = diff[:strings.LastIndexByte(diff[:maxDiff], '\n')+1] + "… the diff goes on, and is cut here\n"
	}
	if diff == "" {
		return 0
	}
	if err := writeFile(c.diffFile(turn), []byte(diff)); err != nil {
		c.Log.Warn("diff not kept", "turn", turn, "err", err)
		_, _ = os.Remove(c.diffFile(turn)+".new"), os.Remove(c.diffFile(turn))
		return 0
	}
	return int64(len(diff))
}

func (c Config) diffFile(turn string) string { return c.turnFile(turn, ".diff") }

// folder tells whether a path below the workspace leads to a folder, over no link.
func folder(workspace, dir string) error {
	root, err := os.OpenRoot(workspace)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder: %w", dir, fs.ErrNotExist)
	}
	return err
}

// openFolder opens a folder below the workspace, out of which nothing leads.
func openFolder(workspace, dir string) (*os.Root, error) {
	root, err := os.OpenRoot(workspace)
	if err != nil || dir == "." {
		return root, err
	}
	defer func() { _ = root.Close() }()
	return root.OpenRoot(dir)
}
