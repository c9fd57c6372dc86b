package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Commits say who asked for them and where, by trailers that Git hooks of ours add: Claude need not think of it. The hooks stand on the volume
// beside the workspace, where Claude's user can read and not change them, and Git is pointed at them by its environment, which no setting
// of a repository overrides. prepare-commit-msg runs for commit -m, --amend, merges, reverts and rebases alike, also with --no-verify;
// commit-msg comes after an editor. Each ends in the repository's own hook of its name.

// gitHooks are those that Git runs where people work. reference-transaction and post-index-change run so often that a shell for each would be
// felt, and are left out: a repository's own of these do not run.
func gitHooks() []string {
	return []string{
		"applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit", "prepare-commit-msg", "commit-msg", "post-commit",
		"pre-rebase", "post-checkout", "post-merge", "pre-push", "post-rewrite", "pre-auto-gc", "sendemail-validate",
	}
}

const hookScript = `#!/bin/sh
# flaudebot: commits say who asked for them. Then the repository's own hook of this name runs, as it would without this one.
name=${0##*/}
lines=${0%/*/*}/trailers

sign() {
	[ -s "$lines" ] || return 0
	# What is rebased or picked is its author's work: only Claude's own is marked.
	dir=$(git rev-parse --git-dir) || return 0
	author=
	if [ -f "$dir/rebase-merge/author-script" ]; then
		author=$(sed -n "s/^GIT_AUTHOR_EMAIL='\(.*\)'\$/\1/p" "$dir/rebase-merge/author-script")
	elif [ -f "$dir/CHERRY_PICK_HEAD" ]; then
		author=$(git log -1 --format=%ae CHERRY_PICK_HEAD)
	fi
	[ -z "$author" ] || [ "$author" = "$(git config user.email)" ] || return 0
	# Git refuses a message that is empty: it must stay so.
	grep -qv -e '^#' -e '^[[:space:]]*$' "$1" || return 0
	file=$1
	[ -z "$(tail -c 1 "$file")" ] || echo >>"$file" # as of a merge: the trailers would be part of its line
	set --
	while IFS= read -r line; do
		set -- "$@" --trailer "$line"
	done <"$lines"
	git interpret-trailers --in-place --if-exists addIfDifferent "$@" "$file"
}

case $name in
prepare-commit-msg | commit-msg) sign "$1" ;;
esac
own=$(unset GIT_CONFIG_COUNT && git rev-parse --git-path hooks)/$name
if [ -x "$own" ] && ! [ "$own" -ef "$0" ]; then
	exec "$own" "$@"
fi
exit 0
`

func (c Config) gitDir() string   { return filepath.Join(c.Data, "git") }
func (c Config) hooks() string    { return filepath.Join(c.gitDir(), "hooks") }
func (c Config) trailers() string { return filepath.Join(c.gitDir(), "trailers") }

// makeHooks writes the hooks, each whole or not at all.
func (c Config) makeHooks() error {
	if err := os.MkdirAll(c.hooks(), 0o755); err != nil { //nolint:gosec // Claude's user runs them
		return fmt.Errorf("make %s: %w", c.hooks(), err)
	}
	for _, name := range gitHooks() {
		if err := replaceFile(filepath.Join(c.hooks(), name), hookScript, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile writes a file that Claude's user may read, unless it is there as it should be.
func replaceFile(name, content string, mode os.FileMode) error {
	if have, err := os.ReadFile(name); err == nil && string(have) == content {
		return nil
	}
	err := os.WriteFile(name+".new", []byte(content), mode)
	if err == nil {
		err = os.Chmod(name+".new", mode) // whatever the umask
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

var trailerLine = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*: [^\x00-\x1f\x7f]{1,500}$`)

// signed are the trailers that are fit to be one line each.
func (t Turn) signed() []string {
	var out []string
	for _, line := range t.Trailers {
		if trailerLine.MatchString(line) {
			out = append(out, line)
		}
	}
	return out
}

// sign has the commits that are made from now on carry the turn's trailers.
func (c Config) sign(t Turn) error {
	text := strings.Join(t.signed(), "\n")
	if text != "" {
		text += "\n"
	}
	return replaceFile(c.trailers(), text, 0o644)
}
