package runner

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// told is the list of changes as people would write it.
func (c *Changes) told() string {
	if c == nil {
		return "unknown"
	}
	var lines []string
	for _, f := range c.Files {
		line := string(f.State) + " " + f.Path
		if f.Was != "" {
			line += " from " + f.Was
		}
		if f.Binary {
			line += " binary"
		} else {
			line += fmt.Sprintf(" +%d -%d", f.Added, f.Removed)
		}
		lines = append(lines, line)
	}
	if c.Partial {
		lines = append(lines, "partial")
	}
	return strings.Join(lines, "\n")
}

// project makes a repository that turns clone.
func project(t *testing.T) Repo {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "app")
	inShell(t, ".", `git init -q -b main "$1" && cd "$1" && printf 'one\ntwo\nthree\n' > a.txt && seq 20 > moved.txt && printf '*.log\n' > .gitignore &&
		printf 'x\000y' > b.bin && git add -A && git commit -qm begin`, dir)
	return Repo{URL: dir}
}

// inShell runs a script in a folder, as a person with a name.
func inShell(t *testing.T, dir, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-euc", script, "sh"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@t")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

func TestChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before string // what stands in the workspace before the turn
		do     string // what the turn does
		want   string
		diff   []string
	}{
		{"nothing", `echo dirty >> app/a.txt; echo new > app/new; git -C app add new`, `true`, ``, nil},
		{
			"edited, new and removed files", ``, `cd app; printf 'one\n2\nthree\nfour\n' > a.txt; rm b.bin; printf 'x\ny\n' > n.txt`,
			"modified app/a.txt +2 -1\nremoved app/b.bin binary\nadded app/n.txt +2 -0",
			[]string{"--- a/app/a.txt\n+++ b/app/a.txt\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n", "+++ b/app/n.txt\n"},
		},
		{
			"a repository whose files are traps", ``, `mkdir r; cd r; git init -q; echo x > f; printf '%040d\n' 1 > .git/HEAD; mkfifo .git/packed-refs`,
			"added r/ +0 -0", nil,
		},
		{"what was committed in the turn", ``, `cd app; echo four >> a.txt; git commit -qam more; echo five >> a.txt`, "modified app/a.txt +2 -0", nil},
		{"what was committed and taken back is nothing", ``, `cd app; echo four >> a.txt; git commit -qam more; git reset -q --hard HEAD~1`, ``, nil},
		{"what a person had not committed is not the turn's", `echo mine >> app/a.txt; echo mine > app/mine.txt`, `cd app; echo its >> a.txt; git add -A; git commit -qm all`, "modified app/a.txt +1 -0", nil},
		{"a renamed file", ``, `cd app; git mv moved.txt "new name.txt"; echo 21 >> "new name.txt"`, "renamed app/new name.txt from app/moved.txt +1 -0", nil},
		{"another branch", `cd app; git checkout -qb side; echo side > side.txt; git add -A; git commit -qm side; git checkout -q main`, `cd app; git checkout -q side`, "added app/side.txt +1 -0", nil},
		{"what is ignored", ``, `cd app; echo noise > x.log; mkdir -p node_modules/y; echo z > node_modules/y/z`, ``, nil},
		{"files in no repository", `echo a > notes.txt; mkdir d; echo b > d/b`, `echo more >> notes.txt; rm d/b; echo c > d/c.md`, "removed d/b +0 -1\nadded d/c.md +1 -0\nmodified notes.txt +1 -0", []string{"+++ b/notes.txt\n"}},
		{
			"a large file", `head -c 2000000 /dev/zero > big; head -c 2000000 /dev/zero > same; head -c 2000000 /dev/zero > gone`, `printf x >> big; touch same; rm gone; head -c 1500000 /dev/zero > app/new.bin`,
			"added app/new.bin binary\nmodified big binary\nremoved gone binary", nil,
		},
		{
			"a file that outgrows the comparing of lines, and one that no longer does", `echo a > app/grows; head -c 2000000 /dev/zero > shrinks`, `head -c 2000000 /dev/zero >> app/grows; echo b > shrinks`,
			"modified app/grows binary\nmodified shrinks binary", nil,
		},
		{"a large file that Git holds", `cd app; head -c 2000000 /dev/zero > big; git add big; git commit -qm big`, `printf x >> app/big`, "modified app/big binary", nil},
		{"a repository that is begun", ``, `mkdir p; cd p; git init -q; echo x > x; git add x; git commit -qm x`, "added p/x +1 -0", nil},
		{"a repository that is cloned, and one that is removed", `git clone -q app other`, `git clone -q app third; rm -rf other`, "removed other/ +0 -0\nadded third/ +0 -0", nil},
		{"the workspace as a repository", `git init -q; echo x > x; git add x; git commit -qm x`, `echo y >> x; echo z >> app/a.txt; echo n > n`, "modified app/a.txt +1 -0\nadded n +1 -0\nmodified x +1 -0", nil},
		{"links lead nowhere", `ln -s /etc/passwd l`, `rm l; ln -s /etc/shadow l; ln -s / app/root; mkfifo pipe`, "added app/root +1 -0\nmodified l +1 -1", []string{"+/etc/shadow\n"}},
		{"a folder that becomes a link", ``, `mv app elsewhere; ln -s / app`, "added app +1 -0\nremoved app/ +0 -0\nadded elsewhere/ +0 -0", nil},
		{
			"names that would break a list", ``, `cd app; touch -- "$(printf 'a\nb')" ":(top)" "tab$(printf '\t')x" "-n"; echo x > "*"`,
			"added app/* +1 -0\nadded app/-n +0 -0\nadded app/:(top) +0 -0\nadded app/a\nb +0 -0\nadded app/tab\tx +0 -0", nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t).boot()
			first := m.turn("hello")
			first.Repos = []Repo{project(t)}
			m.run(first, Secrets{})
			inShell(t, m.cfg.workspace(), c.before)
			status := inShell(t, m.cfg.workspace(), "git -C app status --porcelain; git -C app stash list; ls app/.git")
			turn := m.turn("sh: set -eu; " + c.do)
			turn.Repos = first.Repos
			out, answer := m.run(turn, Secrets{})
			if answer != "" {
				t.Fatalf("the turn said %q", answer)
			}
			if got := out.Changes.told(); got != c.want {
				t.Errorf("changes:\n%s\nwant:\n%s", got, c.want)
			}
			raw, _ := os.ReadFile(m.cfg.diffFile(turn.ID))
			if int64(len(raw)) != out.Changes.DiffBytes {
				t.Errorf("the diff has %d bytes, told are %d", len(raw), out.Changes.DiffBytes)
			}
			for _, want := range c.diff {
				if !strings.Contains(string(raw), want) {
					t.Errorf("the diff lacks %q:\n%s", want, raw)
				}
			}
			if c.name == "nothing" {
				if now := inShell(t, m.cfg.workspace(), "git -C app status --porcelain; git -C app stash list; ls app/.git"); now != status {
					t.Errorf("the repository was changed by the look:\n%s\nwant:\n%s", now, status)
				}
			}
			if left, err := os.ReadDir(m.cfg.surveyDir()); err == nil {
				t.Errorf("what was known of the workspace is still there: %v", left)
			}
		})
	}
}

func TestChangesAreBounded(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.turn(`sh: for i in $(seq 1000 1299); do seq 3000 > "a-file-with-a-name-$i.txt"; done`)
	out, _ := m.run(turn, Secrets{})
	c := out.Changes
	if c == nil || c.Total != 300 || c.Added != 900_000 || len(c.Files) > maxChanges || jsonSize(c.Files) > maxChangesJSON || len(c.Files) < 100 {
		t.Fatalf("changes = %d of %+v", len(c.Files), c)
	}
	raw, err := os.ReadFile(m.cfg.diffFile(turn.ID))
	if err != nil || len(raw) > maxDiff+100 || !strings.HasSuffix(string(raw), "\n… the diff goes on, and is cut here\n") {
		t.Errorf("the diff has %d bytes, %v", len(raw), err)
	}
	// It is told again as it was, and in one reply.
	if r := m.take(turn, Secrets{}); r.Outcome == nil || r.Outcome.Changes.Total != 300 {
		t.Errorf("take = %+v", r)
	}
}

func TestChangesHideSecrets(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	sec := Secrets{GitToken: "ghp_0123456789abcdef"}
	turn := m.turn("sh: echo ghp_0123456789abcdef > key-ghp_0123456789abcdef.txt")
	out, _ := m.run(turn, sec)
	raw, err := os.ReadFile(m.cfg.diffFile(turn.ID))
	if err != nil || strings.Contains(string(raw), sec.GitToken) || !strings.Contains(string(raw), "+[redacted]\n") {
		t.Errorf("diff = %s, %v", raw, err)
	}
	if got := out.Changes.told(); got != "added key-[redacted].txt +1 -0" {
		t.Errorf("changes = %s", got)
	}
}

// TestChangesObeyNobody has a repository try to run its own programs in the look at it.
func TestChangesObeyNobody(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	first := m.turn("hello")
	first.Repos = []Repo{project(t)}
	m.run(first, Secrets{})
	trap := filepath.Join(m.cfg.RunDir, "trapped")
	inShell(t, m.cfg.workspace(), `cd app
		for key in filter.f.clean filter.f.smudge filter.f.process diff.f.textconv diff.f.command diff.external core.fsmonitor core.sshCommand core.pager; do git config $key "touch $1; cat"; done
		git config filter.f.required true
		mkdir hooks; for h in post-index-change pre-commit reference-transaction; do printf '#!/bin/sh\ntouch %s\n' "$1" > hooks/$h; chmod +x hooks/$h; done
		git config core.hooksPath "$PWD/hooks"
		printf '*.txt filter=f diff=f\n' > .git/info/attributes; printf '* filter=f diff=f\n' > .gitattributes; rm -f "$1"`, trap)
	turn := m.turn("sh: echo changed >> app/a.txt")
	turn.Repos = first.Repos
	out, _ := m.run(turn, Secrets{})
	if got := out.Changes.told(); got != "modified app/a.txt +1 -0" {
		t.Errorf("changes = %s", got)
	}
	// What else looks at the repository, after the answer, has its own test.
	if raw, _ := os.ReadFile(m.cfg.diffFile(turn.ID)); !strings.Contains(string(raw), "+changed\n") {
		t.Errorf("diff = %s", raw)
	}
	s, err := m.cfg.withDefaults().survey(t.Context(), first.Repos)
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(trap)
	inShell(t, m.cfg.workspace(), "echo again >> app/a.txt")
	if c, _ := s.compare(t.Context()); c.told() != "modified app/a.txt +1 -0" {
		t.Errorf("changes = %s", c.told())
	}
	if _, err := os.Lstat(trap); err == nil {
		t.Error("a program of the repository's own was run")
	}
}

// TestChangesWithoutTime shows that a look that takes too long holds nothing up, and says that it is not whole.
func TestChangesWithoutTime(t *testing.T) {
	t.Parallel()
	cfg := volume(t)
	s, err := cfg.survey(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, _ := s.compare(ctx); c.told() != "partial" {
		t.Errorf("changes = %s, want it told that they are not all", c.told())
	}
	if s, err = cfg.survey(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if c, _ := s.compare(t.Context()); c.told() != "partial" {
		t.Errorf("changes = %s, want it told that they are not all", c.told())
	}
}

// TestChangesAmongMany shows that what was not looked at before the turn is not taken for new after it, and that the rest is known.
func TestChangesAmongMany(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.turn("hello")
	turn.Repos = []Repo{project(t)}
	m.run(turn, Secrets{})
	inShell(t, m.cfg.workspace(), fmt.Sprintf(`mkdir many; cd many; seq %d | xargs touch`, maxLooked+50))
	next := m.turn("sh: echo x >> app/a.txt; echo x > early")
	next.Repos = turn.Repos
	out, _ := m.run(next, Secrets{})
	if got := out.Changes.told(); got != "modified app/a.txt +1 -0\nadded early +1 -0\npartial" {
		t.Errorf("changes:\n%s", got)
	}
}

func TestChangesAfterACrash(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.begin(m.turn("work:"), Secrets{})
	m.working(turn)
	if _, err := os.Lstat(m.cfg.surveyDir()); err != nil {
		t.Fatalf("nothing is known of the workspace before the turn: %v", err)
	}
	_ = m.cmd.Process.Kill()
	m.exit()
	m.boot()
	if _, err := os.Lstat(m.cfg.surveyDir()); err == nil {
		t.Error("it is still there after the next boot")
	}
	if r := m.take(turn, Secrets{}); r.Status != StatusInterrupted {
		t.Errorf("take = %+v, want it interrupted: it has no outcome, and no changes", r)
	}
	if out, _ := m.say("sh: echo x > after"); out.Changes.told() != "added after +1 -0" {
		t.Errorf("changes of the next turn = %s", out.Changes.told())
	}
}

func TestDiffsArePruned(t *testing.T) {
	t.Parallel()
	cfg := volume(t)
	var turns []string
	for i := range maxJournals + 2 {
		turn := fmt.Sprintf("T:C:%d", i)
		turns = append(turns, turn)
		j := newTestJournal(t, cfg, turn)
		j.add("", Event{Kind: KindNote, Text: "x"})
		j.close()
		if err := cfg.finish(turn, record{Outcome: Outcome{Turn: turn}}); err != nil {
			t.Fatal(err)
		}
		cfg.keepDiff(turn, "diff\n")
		if err := cfg.save(cfg.turnFile(turn, ".acked"), nil); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(cfg.turnFile(turn, ".ndjson"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	cfg.prune()
	kept := slices.DeleteFunc(slices.Clone(turns), func(turn string) bool { return size(cfg.diffFile(turn)) == 0 })
	if !slices.Equal(kept, turns[2:]) {
		t.Errorf("kept are the diffs of %v, want all but the two oldest", kept)
	}
}
