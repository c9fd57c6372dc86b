package sessions

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flaudebot/runner"
)

// TestAdds: a turn brings its session a repository, which later turns have too; one that cannot be cloned is taken back, so that they can run.
func TestAdds(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	r := b.replica(nil).start()
	one, two := runner.Repo{URL: "https://git.example/a/one"}, runner.Repo{URL: "https://git.example/b/one"}
	b.answered(r, r.accept(turn("1.000001", "go", true)))
	adding := turn("2.000001", "go on in it", false)
	adding.Adds = []runner.Repo{one}
	b.answered(r, r.accept(adding))
	again := turn("3.000001", "go on in both", false)
	again.Adds = []runner.Repo{one, two}
	b.answered(r, r.accept(again))
	failing := turn("4.000001", "cannot clone this", false)
	failing.Adds = []runner.Repo{{URL: "https://git.example/a/nothing"}}
	if out := b.answered(r, r.accept(failing)); out.Failure != runner.FailClone {
		t.Errorf("outcome = %+v, want that it could not be cloned", out)
	}
	b.answered(r, r.accept(turn("5.000001", "and without it", false)))
	var got []string
	for _, take := range b.runner.taken() {
		var folders []string
		for _, repo := range take.Turn.Repos {
			folders = append(folders, repo.URL+" in "+repo.Folder())
		}
		got = append(got, strings.Join(folders, ", "))
	}
	first := "https://git.example/a/one in one"
	both := first + ", https://git.example/b/one in one-2"
	if diff := cmp.Diff([]string{"", first, both, both + ", https://git.example/a/nothing in nothing", both}, got); diff != "" {
		t.Errorf("the turns had (-want +got):\n%s", diff)
	}
	for _, place := range []string{thread().Channel, "U1"} {
		used, err := r.UsedRepos(t.Context(), thread().Team, place)
		if diff := cmp.Diff([]runner.Repo{one, two}, used); err != nil || diff != "" {
			t.Errorf("used in %s, %v (-want +got):\n%s", place, err, diff)
		}
	}
}

// TestLinked: what the message that begins a session links to is there besides the channel's repositories, which come first; a later one brings
// nothing.
func TestLinked(t *testing.T) {
	t.Parallel()
	own, other := runner.Repo{URL: "https://git.example/a/own.git", Branch: "dev"}, runner.Repo{URL: "https://git.example/b/other"}
	for name, tt := range map[string]struct{ channel, linked, want []runner.Repo }{
		"besides the channel's":       {[]runner.Repo{own}, []runner.Repo{other}, []runner.Repo{own, other}},
		"where the channel has none":  {[]runner.Repo{}, []runner.Repo{other}, []runner.Repo{other}},
		"one that the channel has":    {[]runner.Repo{own}, []runner.Repo{{URL: "https://git.example/A/own"}}, []runner.Repo{own}},
		"nothing, as plain words are": {[]runner.Repo{own}, nil, []runner.Repo{own}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			b.front.adds = tt.linked
			r := b.replica(nil).start()
			r.channelSettings(func(s *Settings) { s.Trust, s.Repos = true, tt.channel }, nil)
			b.answered(r, r.accept(turn("1.0", "x", true)))
			trusts := len(tt.channel) > 0
			if got := r.session().InUse.Trust; got != trusts {
				t.Errorf("the session shows trust %v, want %v", got, trusts)
			}
			r.channelSettings(func(s *Settings) { s.Repos = []runner.Repo{own, other} }, nil)
			b.answered(r, r.accept(turn("2.0", "y", true)))
			for i, take := range b.runner.taken() {
				if diff := cmp.Diff(tt.want, take.Turn.Repos); diff != "" {
					t.Errorf("turn %d (-want +got):\n%s", i+1, diff)
				}
			}
			if got := b.runner.taken()[0].Turn.Settings.Trust; got != trusts {
				t.Errorf("trust = %v, want %v", got, trusts)
			}
		})
	}
}

// TestAddAgain: what a turn brings that is there already stays when another one cannot be cloned.
func TestAddAgain(t *testing.T) {
	t.Parallel()
	one, two := runner.Repo{URL: "https://git.example/a/one"}, runner.Repo{URL: "https://git.example/b/two"}
	all, added := withRepos([]runner.Repo{one}, []runner.Repo{one, two})
	if !added || len(all) != 2 {
		t.Fatalf("with = %v", all)
	}
	if got := withoutRepos(all, []runner.Repo{one, two}, []runner.RepoState{{Dir: "one"}}); len(got) != 1 || got[0] != one {
		t.Errorf("without = %v, want the one that was there", got)
	}
}

// TestUsedRepos: the repositories that were used in a place are told, the last first, ten at most.
func TestUsedRepos(t *testing.T) {
	t.Parallel()
	r := newBot(t).replica(nil)
	repo := func(n int) runner.Repo {
		return runner.Repo{URL: fmt.Sprintf("https://git.example/a/%d", n), Branch: "dev"}
	}
	note := func(place string, repos ...runner.Repo) {
		t.Helper()
		if err := r.noteUsed(t.Context(), "T1", place, repos); err != nil {
			t.Fatal(err)
		}
	}
	used := func(place string) (out []string) {
		t.Helper()
		repos, err := r.UsedRepos(t.Context(), "T1", place)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range repos {
			out = append(out, RepoText(one))
		}
		return out
	}
	if got := used("C1"); got != nil {
		t.Errorf("used = %v before anything was", got)
	}
	for n := range 12 {
		note("C1", repo(n))
	}
	note("C2", runner.Repo{URL: "https://git.example/a/5", Dir: "five"})
	note("C1", repo(5))
	if got := used("C1"); len(got) != 10 || got[0] != "https://git.example/a/5#dev" || got[1] != "https://git.example/a/11#dev" || got[9] != "https://git.example/a/2#dev" {
		t.Errorf("used = %v", got)
	}
	if got := used("C2"); len(got) != 1 || got[0] != "https://git.example/a/5" {
		t.Errorf("used elsewhere = %v", got)
	}
}
