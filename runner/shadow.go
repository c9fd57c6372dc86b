package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// shadow is a Git repository beside a folder of the workspace, whose files it compares. It has an index and objects of its own and borrows those of
// the repository that the folder may be, which it leaves as it is: what is staged, ignored or committed there stays so. The repository's own settings,
// and so its filters, hooks, monitors and helpers for diffs, are not obeyed; all of it runs as Claude's user.
type shadow struct {
	cfg    Config
	git    string // its folder
	tree   string // the folder that it looks at
	ignore string // the repository's own info/exclude, "": none
}

// maxSmall is the size up to which a file's lines are compared, in bytes.
const maxSmall = 1 << 20

// heavy are folders that are looked at only where a repository holds them: what is in them is made by tools, and much.
const heavy = "node_modules/\n.venv/\n__pycache__/\n"

// ours is in the workspace and nothing that a turn changes.
const ours = "/attachments/\n/.cloning-*/\n"

func (c Config) newShadow(ctx context.Context, dir string, n int) (shadow, error) {
	if err := folder(c.workspace(), dir); err != nil {
		return shadow{}, err
	}
	s := shadow{cfg: c, git: filepath.Join(c.surveyDir(), strconv.Itoa(n)), tree: filepath.Join(c.workspace(), filepath.FromSlash(dir))}
	if err := c.makeOwned(s.git); err != nil {
		return shadow{}, err
	}
	format, objects, index := "sha1", "", ""
	if _, err := os.Lstat(filepath.Join(s.tree, ".git")); err == nil {
		where, err := c.output(ctx, lookBeforeLimit, s.tree, "git", "rev-parse", "--path-format=absolute", "--show-object-format",
			"--git-path", "objects", "--git-path", "index", "--git-path", "info/exclude")
		lines := strings.Split(strings.TrimSuffix(where, "\n"), "\n")
		switch {
		case err != nil && dir != ".":
			return shadow{}, err
		case err == nil && len(lines) == 4:
			format, objects, index, s.ignore = lines[0], lines[1], lines[2], lines[3]
		}
	}
	exclude := heavy
	if dir == "." {
		exclude += ours
	}
	if err := s.make(format, objects, exclude); err != nil {
		return shadow{}, err
	}
	if index != "" { // what Git has seen already need not be read again; a copy with another time would be trusted too far
		if _, err := c.output(ctx, lookBeforeLimit, s.git, "sh", "-c", `test ! -e "$1" || cp -p -- "$1" index`, "sh", index); err != nil {
			return shadow{}, err
		}
	}
	return s, nil
}

// make makes what Git needs to take the folder for a repository.
func (s shadow) make(format, objects, exclude string) error {
	config := "[core]\nrepositoryformatversion = 1\nbare = false\n[extensions]\nobjectformat = " + format + "\n"
	err := errors.Join(s.put("HEAD", "ref: refs/heads/none\n"), s.put("config", config), s.put("info/exclude", exclude), s.put("refs/none", ""))
	if objects != "" {
		objects += "\n"
	}
	return errors.Join(err, s.put("objects/info/alternates", objects))
}

// put writes a file of the shadow's own, with its folders. They are Claude's user's: no link in them leads root elsewhere.
func (s shadow) put(name, text string) error {
	root, err := os.OpenRoot(s.git)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for i, r := range name {
		if r != '/' {
			continue
		}
		err := root.Mkdir(name[:i], 0o755)
		if err == nil && s.cfg.UID >= 0 {
			err = root.Lchown(name[:i], s.cfg.UID, s.cfg.UID)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return root.WriteFile(name, []byte(text), 0o644)
}

// exclude leaves folders out that are looked at by themselves.
func (s shadow) exclude(dirs []string) {
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, "\n", "?", " ", `\ `)
	var text strings.Builder
	text.WriteString(heavy + ours)
	for _, dir := range dirs {
		if dir != "." {
			text.WriteString("/" + escape.Replace(dir) + "/\n")
		}
	}
	if err := s.put("info/exclude", text.String()); err != nil {
		s.cfg.Log.Warn("folders are looked at twice", "err", err)
	}
}

// unseen names files that are not as the index has them, new and removed ones included; a repository within ends in a slash.
func (s shadow) unseen(ctx context.Context) ([]string, error) {
	args := []string{"ls-files", "-z", "--modified", "--others", "--exclude-standard"}
	if s.ignore != "" {
		if _, err := os.Lstat(s.ignore); err == nil {
			args = append(args, "--exclude-from="+s.ignore)
		}
	}
	raw, err := s.run(ctx, nil, args...)
	if err != nil {
		return nil, err
	}
	return split0(raw), nil
}

// write takes files into the index as they are, small ones with their content, and returns its tree.
func (s shadow) write(ctx context.Context, small, large []string) (string, error) {
	for _, part := range []struct {
		names []string
		args  []string
	}{{small, []string{"update-index", "-z", "--add", "--remove", "--replace", "--stdin"}}, {large, []string{"update-index", "-z", "--force-remove", "--stdin"}}} {
		if len(part.names) == 0 {
			continue
		}
		if _, err := s.run(ctx, strings.NewReader(strings.Join(part.names, "\x00")+"\x00"), part.args...); err != nil {
			return "", err
		}
	}
	raw, err := s.run(ctx, nil, "write-tree", "--missing-ok")
	return strings.TrimSpace(string(raw)), err
}

// empty is the tree of nothing.
func (s shadow) empty(ctx context.Context) (string, error) {
	raw, err := s.run(ctx, strings.NewReader(""), "mktree")
	return strings.TrimSpace(string(raw)), err
}

// diffTree compares two trees as nobody's settings say.
func diffTree(before, after string, more ...string) []string {
	return append(append([]string{"diff-tree", "-r", "-M", "-l300", "--no-ext-diff", "--no-textconv", "--no-color"}, more...), before, after)
}

// compare lists what differs between two trees.
func (s shadow) compare(ctx context.Context, before, after string) ([]Change, error) {
	if before == after {
		return nil, nil
	}
	raw, err := s.run(ctx, nil, diffTree(before, after, "-z", "--raw", "--numstat")...)
	if err != nil {
		return nil, err
	}
	return parseChanges(split0(raw))
}

// diff is the difference of two trees as a patch, of at most so many bytes.
func (s shadow) diff(ctx context.Context, dir, before, after string, most int) []byte {
	prefix := ""
	if dir != "." {
		prefix = dir + "/"
	}
	out := &bounder{left: most}
	err := s.stream(ctx, nil, out, diffTree(before, after, "-p", "--src-prefix=a/"+prefix, "--dst-prefix=b/"+prefix)...)
	if err != nil && !errors.Is(err, errEnough) {
		s.cfg.Log.Warn("diff cut short", "dir", dir, "err", err)
	}
	return out.Bytes()
}

// run returns what a Git command prints.
func (s shadow) run(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	out := &bounder{left: 16 << 20}
	if err := s.stream(ctx, in, out, args...); err != nil {
		return nil, fmt.Errorf("git %s: %w", args[0], err)
	}
	return out.Bytes(), nil
}

func (s shadow) stream(ctx context.Context, in io.Reader, out *bounder, args ...string) error {
	options := []string{
		"-c", "core.untrackedCache=false", "-c", "core.quotePath=false", "-c", "core.compression=1", "-c", "core.fsync=none", "-c", "gc.auto=0",
	}
	cmd := s.cfg.limited(ctx, s.tree, "git", slices.Concat(quiet(), options, args)...)
	cmd.Env = append(cmd.Env, "GIT_DIR="+s.git, "GIT_WORK_TREE="+s.tree, "HOME=/nonexistent", "GIT_CONFIG_COUNT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_ATTR_NOSYSTEM=1", "GIT_LITERAL_PATHSPECS=1")
	cmd.Stdin = in
	var said headBuffer
	cmd.Stdout, cmd.Stderr = out, &said
	err := s.cfg.start(cmd.Run)
	switch text := lastLine(said.String()); {
	case out.full:
		return errEnough
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && text != "":
		return errors.New(text)
	}
	return err
}

// errEnough says that a command printed more than is wanted.
var errEnough = errors.New("it is more than is looked at")

// bounder takes so many bytes, and then an error.
type bounder struct {
	bytes.Buffer

	left int
	full bool
}

func (b *bounder) Write(p []byte) (int, error) {
	if len(p) > b.left {
		_, _ = b.Buffer.Write(p[:b.left])
		b.left, b.full = 0, true
		return 0, errEnough
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}

func split0(raw []byte) []string {
	text := strings.TrimSuffix(string(raw), "\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}

// link is the mode of a repository within another.
const link = "160000"

// parseChanges reads what Git prints with -z --raw --numstat: first all entries, then the lines of each.
func parseChanges(words []string) ([]Change, error) {
	errForm := errors.New("git prints what is no list of changes")
	var out []Change
	at := map[string]int{}
	take := func(n int) []string {
		if len(words) < n {
			return nil
		}
		got := words[:n]
		words = words[n:]
		return got
	}
	for len(words) > 0 {
		head := take(1)[0]
		if entry, ok := strings.CutPrefix(head, ":"); ok {
			fields := strings.Fields(entry)
			if len(fields) != 5 {
				return nil, errForm
			}
			c := Change{link: fields[0] == link || fields[1] == link}
			switch fields[4][0] {
			case 'A':
				c.State = ChangeAdded
			case 'D':
				c.State = ChangeRemoved
			case 'R':
				c.State = ChangeRenamed
			default:
				c.State = ChangeModified
			}
			names := take(1)
			if c.State == ChangeRenamed && names != nil {
				c.Was = names[0]
				names = take(1)
			}
			if names == nil {
				return nil, errForm
			}
			c.Path = names[0]
			at[c.Path] = len(out)
			out = append(out, c)
			continue
		}
		fields := strings.SplitN(head, "\t", 3)
		if len(fields) != 3 {
			return nil, errForm
		}
		name := fields[2]
		if name == "" { // renamed: both names follow
			names := take(2)
			if names == nil {
				return nil, errForm
			}
			name = names[1]
		}
		i, ok := at[name]
		if !ok {
			return nil, errForm
		}
		added, err1 := strconv.Atoi(fields[0])
		removed, err2 := strconv.Atoi(fields[1])
		out[i].Added, out[i].Removed, out[i].Binary = added, removed, err1 != nil || err2 != nil
	}
	return out, nil
}

// content tells one content of a large file from another.
type content struct {
	size int64
	at   time.Time
	sum  string // SHA-256; "": there was too much to read
}

func (c content) same(other content) bool {
	if c.sum != "" && other.sum != "" {
		return c.sum == other.sum
	}
	return c.size == other.size && c.at.Equal(other.at)
}

// contentOf reads a large file as far as the budget allows.
func contentOf(root *os.Root, name string, info os.FileInfo, budget *int64) content {
	c := content{size: info.Size(), at: info.ModTime()}
	if c.size > *budget {
		return c
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return c
	}
	defer func() { _ = f.Close() }()
	if now, err := f.Stat(); err != nil || !now.Mode().IsRegular() {
		return c
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, c.size))
	*budget -= n
	if err == nil && n == c.size {
		c.sum = string(sum.Sum(nil))
	}
	return c
}
