package runner

import (
	"strings"
	"testing"
)

// TestCommits: the commits that a turn made are told, also those that it pushed, and neither those of others nor those of an earlier turn.
func TestCommits(t *testing.T) {
	t.Parallel()
	repo := project(t)
	m := newMachine(t).boot()
	run := func(script string) string {
		t.Helper()
		turn := m.turn("sh: set -e; cd app; " + script)
		turn.Repos = []Repo{repo}
		out, answer := m.run(turn, Secrets{})
		if out.Failure != FailNone || strings.Contains(answer, "exit status") {
			t.Fatalf("outcome = %+v: %s", out, answer)
		}
		subjects := []string{}
		for _, c := range out.Commits {
			subjects = append(subjects, c.Dir+" "+strings.TrimSpace(inShell(t, m.cfg.at(c.Dir), `git -c safe.directory='*' log -1 --format=%s "$1"`, c.Hash)))
		}
		return strings.Join(subjects, ", ")
	}
	for _, c := range []struct{ name, script, want string }{
		{"none", "true", ""},
		{"on the branch", "git commit -q --allow-empty -m one; git commit -q --allow-empty -m two", "app two, app one"},
		{"on a branch of its own, and without one", "git checkout -q -b other; git commit -q --allow-empty -m three; git checkout -q --detach; git commit -q --allow-empty -m four", "app four, app three"},
		{"those that were pushed", "git checkout -q other; git commit -q --allow-empty -m five; git push -q origin HEAD:pushed", "app five"},
		{"not those of others", "GIT_COMMITTER_EMAIL=t@x git commit -q --allow-empty -m theirs", ""},
		{"not those of earlier turns, on a new branch", "git checkout -q -b again other", ""},
		{"amended: as it is now", "git commit -q --allow-empty --amend -m six", "app six"},
		{"no more than twenty", "for i in $(seq 30); do git commit -q --allow-empty -m more; done", strings.TrimSuffix(strings.Repeat("app more, ", 20), ", ")},
	} {
		if got := run(c.script); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
