package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrailers: commits that Claude's commands make carry the trailers of their turn, however they are made and without doing so twice.
func TestTrailers(t *testing.T) {
	t.Parallel()
	const mia, thread = "Requested-by: Mia Member (Slack U0MEMBER)", "Slack-thread: https://acme.slack.com/archives/C1/p1"
	m := newMachine(t).boot()
	repo := gitRepo(t, "main", "other")
	run := func(t *testing.T, by []string, script string) string {
		t.Helper()
		turn := m.turn("sh: set -e; cd repo; export GIT_EDITOR=true; " + script)
		turn.Repos, turn.Trailers = []Repo{{URL: repo}}, by
		out, answer := m.run(turn, Secrets{})
		if out.Failure != FailNone || strings.Contains(answer, "exit status") {
			t.Fatalf("outcome = %+v: %s", out, answer)
		}
		return answer
	}
	const show = "; git log -1 --format='%an <%ae>%n%B'"
	by := []string{mia, thread}
	marked := func(t *testing.T, got, subject string, trailers ...string) {
		t.Helper()
		want := "Claude <noreply@anthropic.com>\n" + subject + "\n\n" + strings.Join(trailers, "\n") + "\n\n"
		if got != want {
			t.Errorf("the commit says\n%s\nwant\n%s", got, want)
		}
	}
	for i, c := range []struct{ name, script, subject string }{
		{"-m", "git commit -q --allow-empty -m 'A change'", "A change"},
		{"a message with trailers of its own", "git commit -q --allow-empty -m 'B' -m 'Signed-off-by: x <x@y>'", "B\n\nSigned-off-by: x <x@y>"},
		{"--no-verify", "git commit -q --no-verify --allow-empty -m C", "C"},
		{"a message from standard input", "echo D | git commit -q --allow-empty -F -", "D"},
		{"an editor", "GIT_EDITOR='echo E >' git commit -q --allow-empty", "E"},
		{"--amend", "git commit -q --allow-empty -m F && git commit -q --amend --no-edit --allow-empty && git commit -q --amend -m G --allow-empty", "G"},
		{"a merge", "git checkout -q -b side; git commit -q --allow-empty -m side; git checkout -q main; git merge -q --no-ff --no-edit side; git branch -q -D side", "Merge branch 'side'"},
		{"a revert", "git commit -q --allow-empty -m H; echo x > f; git add f; git commit -q -m I; git revert --no-edit HEAD >/dev/null", "Revert \"I\""},
		{"a rebase", "git checkout -q -b top; echo y > g; git add g; git commit -q -m J; git checkout -q main; git commit -q --allow-empty -m under; git checkout -q top; " +
			"git rebase -q main; git checkout -q main; git merge -q --ff-only top; git branch -q -d top", "J"},
		{"a rebase that rewords", "echo k > k; git add k; git commit -q -m K; GIT_SEQUENCE_EDITOR='sed -i s/^pick/reword/' git rebase -q -i HEAD~1 >/dev/null", "K"},
	} {
		t.Run(fmt.Sprintf("%d %s", i, c.name), func(t *testing.T) {
			got := run(t, by, c.script+show)
			if strings.HasPrefix(c.name, "a message with") {
				got = strings.Replace(got, "x <x@y>\n", "x <x@y>\n\n", 1)
			}
			if strings.HasPrefix(c.subject, "Revert") { // its body names the commit
				head, tail, _ := strings.Cut(got, "\n\nThis reverts commit ")
				_, tail, _ = strings.Cut(tail, "\n\n")
				got = head + "\n\n" + tail
			}
			marked(t, got, c.subject, by...)
		})
	}
	t.Run("a later turn adds who asked then, and names the thread once", func(t *testing.T) {
		run(t, by, "git commit -q --allow-empty -m L")
		bob := "Requested-by: Bob (Slack U2)"
		got := run(t, []string{bob, thread, "no trailer", "Bad: two\nlines"}, "git commit -q --amend --no-edit --allow-empty"+show)
		if !strings.Contains(got, mia+"\n") || !strings.Contains(got, bob+"\n") || strings.Count(got, thread) != 1 || strings.Contains(got, "two") {
			t.Errorf("the commit says\n%s", got)
		}
	})
	t.Run("without trailers a message is as it was written", func(t *testing.T) {
		marked(t, strings.Replace(run(t, nil, "git commit -q --allow-empty -m M"+show), "M\n", "M\n\n\n", 1), "M", "")
	})
	t.Run("what others wrote is not marked when it is rebased or picked", func(t *testing.T) {
		got := run(t, by, "git checkout -q -b theirs origin/other; git -c user.name=Ann -c user.email=ann@x commit -q --no-verify --allow-empty -m 'Unmarked' ; "+
			"git reset -q --hard origin/other; git rebase -q --force-rebase HEAD~1; git log -1 --format=%B; git checkout -q main; git cherry-pick --allow-empty -X theirs theirs >/dev/null"+show)
		if strings.Contains(got, "Requested-by") || !strings.Contains(got, "t <t@localhost>\nOn other") {
			t.Errorf("the commits say\n%s", got)
		}
	})
	t.Run("an empty message stays one, and Git refuses it", func(t *testing.T) {
		if got := run(t, by, "git commit -q --allow-empty 2>&1 || echo refused"); !strings.Contains(got, "refused") {
			t.Errorf("Git says %s", got)
		}
	})
	t.Run("hooks of the repository run all the same, wherever it keeps them", func(t *testing.T) {
		hook := `mkdir -p $D; printf '#!/bin/sh\necho "ran $0" >> ../ran\n' > $D/pre-commit; chmod +x $D/pre-commit; `
		run(t, by, "D=.git/hooks; "+hook+"git commit -q --allow-empty -m N")
		run(t, by, "D=.husky; "+hook+"git config core.hooksPath .husky; git commit -q --allow-empty -m O")
		raw, err := os.ReadFile(filepath.Join(m.cfg.workspace(), "ran"))
		if err != nil || !strings.Contains(string(raw), ".git/hooks/pre-commit") || !strings.Contains(string(raw), ".husky/pre-commit") {
			t.Errorf("ran: %s, %v", raw, err)
		}
		if got := run(t, by, `printf '#!/bin/sh\nexit 1\n' > .husky/pre-commit; git commit -q --allow-empty -m P || echo refused`); !strings.Contains(got, "refused") {
			t.Errorf("a hook that refuses did not count: %s", got)
		}
	})
	t.Run("the author is whom the settings name", func(t *testing.T) {
		turn := m.turn("sh: cd repo; git commit -q --no-verify --allow-empty -m Q; git log -1 --format='%an <%ae> %cn'")
		turn.Repos, turn.Settings = []Repo{{URL: repo}}, Settings{GitName: "Acme Bot", GitEmail: "bot@acme.example"}
		if _, answer := m.run(turn, Secrets{}); answer != "Acme Bot <bot@acme.example> Acme Bot\n" {
			t.Errorf("the author is %s", answer)
		}
	})
}
