package sessions

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"flaudebot/runner"
)

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
