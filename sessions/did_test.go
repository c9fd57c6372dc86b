package sessions

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"flaudebot/runner"
)

// TestLoose: what turns have left in the workspace and in no repository is nowhere else; what they have removed again is not there.
func TestLoose(t *testing.T) {
	t.Parallel()
	s := Session{Repos: []runner.Repo{{URL: "https://github.com/acme/app", Dir: "app"}}, State: []runner.RepoState{{Dir: "app"}, {Dir: "clone"}}}
	turn := func(state runner.ChangeState, files ...string) {
		out := Outcome{Outcome: runner.Outcome{Changes: &runner.Changes{Total: len(files)}}}
		for _, f := range files {
			out.Changes.Files = append(out.Changes.Files, runner.Change{Path: f, State: state})
		}
		s.Did.add(out)
	}
	turn(runner.ChangeAdded, "report.txt", "notes/a.md", "scratch", "app/main.go", "clone/x", "attachments/brief.pdf", "app", "attachments")
	turn(runner.ChangeRemoved, "scratch", "notes/a.md")
	turn(runner.ChangeAdded, "notes/a.md")
	if got, want := s.Loose(), []string{"report.txt", "notes/a.md", "app", "attachments"}; !slices.Equal(got, want) {
		t.Errorf("Loose = %q, want %q", got, want)
	}
}

// TestDid: the summary of a session counts each file and each pull request once, and is bounded.
func TestDid(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	turn := func(pull string, files ...string) Outcome {
		out := Outcome{Outcome: runner.Outcome{StartedAt: at, EndedAt: at.Add(time.Minute), Changes: &runner.Changes{Total: len(files)}}}
		for _, f := range files {
			out.Changes.Files = append(out.Changes.Files, runner.Change{Path: f})
		}
		if pull != "" {
			out.Pulls = []runner.Pull{{Dir: "app", URL: "https://github.com/acme/app/pull/" + pull, Number: pull, Existed: true}}
		}
		return out
	}
	var d Did
	d.add(turn("1", "a", "b"))
	d.add(turn("1", "b", "c"))
	d.add(Outcome{Outcome: runner.Outcome{StartedAt: at, EndedAt: at.Add(-time.Hour)}}) // a clock that went back
	d.addPulls(turn("2").Pulls)
	if d.Worked != 2*time.Minute || !slices.Equal(d.Files, []string{"a", "b", "c"}) || d.More || len(d.Pulls) != 2 || d.Pulls[0].Existed {
		t.Errorf("it did %+v", d)
	}
	for i := range 2 * maxDidFiles {
		d.add(turn(fmt.Sprint(i), fmt.Sprint("file-", i)))
	}
	if len(d.Files) != maxDidFiles || !d.More || len(d.Pulls) != maxDidPulls {
		t.Errorf("it did %d files and %d pull requests, more: %v", len(d.Files), len(d.Pulls), d.More)
	}
	var some Did
	out := turn("", "a")
	out.Changes.Total = 2
	if some.add(out); !some.More {
		t.Error("files that are not named are not counted")
	}
}
