package runner

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	forges := []Forge{{"git.acme.example", ForgeGitHub}, {"127.0.0.1:8703", ForgeGitLab}}
	for address, want := range map[string]string{
		"https://github.com/acme/app":              "github https://github.com/acme/app",
		"https://GitHub.com/acme/app.git":          "github https://github.com/acme/app",
		"git@github.com:acme/app.git":              "github https://github.com/acme/app",
		"ssh://git@gitlab.com:2222/a/b/c.git":      "gitlab https://gitlab.com/a/b/c",
		"https://gitlab.acme.example:8443/a/b/":    "gitlab https://gitlab.acme.example:8443/a/b",
		"https://git.acme.example/a/b":             "github https://git.acme.example/a/b",
		"http://127.0.0.1:8703/a/b.git":            "gitlab http://127.0.0.1:8703/a/b",
		"https://code.example/a/b":                 " https://code.example/a/b",
		"https://notgithub.example/a/b":            " https://notgithub.example/a/b",
		"https://github.com/only":                  "none",
		"/srv/git/app.git":                         "none",
		"file:///srv/git/app.git":                  "none",
		"https://github.com.evil.example/acme/app": "github https://github.com.evil.example/acme/app", // its pages are its own
	} {
		got := "none"
		if p, ok := placeOf(address, forges); ok {
			got = string(p.kind) + " " + p.page()
		}
		if got != want {
			t.Errorf("%s is %q, want %q", address, got, want)
		}
	}
	hub, _ := placeOf("https://github.com/acme/app", nil)
	lab, _ := placeOf("https://gitlab.com/acme/sub/app", nil)
	for want, got := range map[string]string{
		"https://github.com/acme/app/tree/fix/a%20b%23":           hub.branchPage("fix/a b#"),
		"https://github.com/acme/app/compare/main...fix?expand=1": hub.newPullPage("fix", "main"),
		"https://gitlab.com/acme/sub/app/-/tree/fix":              lab.branchPage("fix"),
		"https://gitlab.com/acme/sub/app/-/merge_requests/new?merge_request%5Bsource_branch%5D=fix&merge_request%5Btarget_branch%5D=main": lab.newPullPage("fix", "main"),
	} {
		if got != want {
			t.Errorf("the page is %s, want %s", got, want)
		}
	}
}

func TestPullsInWhatIsSaid(t *testing.T) {
	t.Parallel()
	repos := []Repo{{URL: "https://github.com/acme/app"}, {URL: "git@gitlab.com:acme/sub/lib.git"}}
	const hub, lab = "https://github.com/acme/app/pull/", "https://gitlab.com/acme/sub/lib/-/merge_requests/"
	for _, c := range []struct {
		name, output, answer string
		want                 []string
	}{
		{"in the answer, in every dress", "", "I opened [#12](" + hub + "12), **" + hub + "13**, " + hub + "14/files#diff and <" + lab + "5|!5>.", []string{"app 12", "app 13", "app 14", "lib 5"}},
		{"each once", hub + "12\n", hub + "12 " + hub + "12.", []string{"app 12"}},
		{"as gh tells it", "Creating pull request for fix into main in acme/app\n\n" + hub + "12\n", "", []string{"app 12"}},
		{"as a push to GitLab tells it", "remote: \nremote: View merge request for fix:\nremote:   " + lab + "5\nremote:\n", "", []string{"lib 5"}},
		{"a list is of none", strings.Join([]string{hub + "1", hub + "2", hub + "3"}, "\n"), "", nil},
		{"amid other words of a command it is of none", "see " + hub + "12 for why\n", "", nil},
		{"the page to make one is none", "remote: Create a pull request:\nremote:      " + hub + "new/fix\n", hub + "new/fix", nil},
		{"other repositories and hosts", "https://github.com/acme/other/pull/1\n", "https://github.com/acme/app2/pull/1 https://evil.example/acme/app/pull/1 https://github.com.evil.example/acme/app/pull/2 http://github.com/acme/app/pull/3", nil},
		{"no number", "", hub + "0 " + hub + "x " + hub + "12x " + hub, nil},
		{"five at most", "", strings.Join([]string{hub + "1", hub + "2", hub + "3", hub + "4", hub + "5", hub + "6"}, " "), []string{"app 1", "app 2", "app 3", "app 4", "app 5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newPullFinder(repos, nil)
			f.output(c.output)
			f.answer(c.answer)
			var got []string
			for _, p := range f.found {
				got = append(got, p.Dir+" "+p.Number)
				if p.URL != hub+p.Number && p.URL != lab+p.Number {
					t.Errorf("its address is %s", p.URL)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// TestPushed: the branches that a turn pushed are told, and not those that it fetched, nor those of an earlier turn.
func TestPushed(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	bare := filepath.Join(t.TempDir(), "app.git")
	seed := gitRepo(t, "main")
	other := filepath.Join(t.TempDir(), "other")
	for _, args := range [][]string{{"clone", "-q", "--bare", seed, bare}, {"clone", "-q", bare, other}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	if err := os.Chmod(bare, 0o777); err != nil {
		t.Fatal(err)
	}
	run := func(script string) Outcome {
		t.Helper()
		turn := m.turn("sh: set -e; cd app; " + script)
		turn.Repos = []Repo{{URL: bare}}
		out, answer := m.run(turn, Secrets{})
		if out.Failure != FailNone || strings.Contains(answer, "exit status") {
			t.Fatalf("outcome = %+v: %s", out, answer)
		}
		return out
	}
	names := func(out Outcome) string {
		var all []string
		for _, b := range out.Branches {
			all = append(all, b.Dir+" "+b.Name)
		}
		return fmt.Sprint(all)
	}
	if got := names(run("git commit -q --allow-empty -m A; git push -q origin HEAD:fix/it; git push -q origin HEAD:second")); got != "[app fix/it app second]" {
		t.Errorf("pushed %s", got)
	}
	theirs := exec.Command("sh", "-c", "git -c user.name=t -c user.email=t@x commit -q --allow-empty -m theirs && git push -q origin HEAD:theirs")
	theirs.Dir = other
	if out, err := theirs.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := names(run("git fetch -q")); got != "[]" {
		t.Errorf("after a fetch: pushed %s", got)
	}
	if got := names(run("git fetch -q; git commit -q --allow-empty -m B; git push -q origin HEAD:second")); got != "[app second]" {
		t.Errorf("pushed again: %s", got)
	}
}

// TestForgeLeadsElsewhere: the token goes to the repository's own host, whatever that answers, and what that tells becomes no form of Slack's.
func TestForgeLeadsElsewhere(t *testing.T) {
	t.Parallel()
	got := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
		_, _ = w.Write([]byte(`[{"html_url":"http://elsewhere/a/b/pull/1","number":1}]`))
	}))
	t.Cleanup(other.Close)
	answer := ""
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case answer != "":
			_, _ = w.Write([]byte(answer))
		case r.URL.Path == "/moved":
			_, _ = w.Write([]byte(`[{"html_url":"http://` + r.Host + `/a/b/pull/7","number":7}]`))
		case r.URL.Query().Get("head") == "a:stays":
			http.Redirect(w, r, "/moved", http.StatusMovedPermanently)
		default:
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(own.Close)
	api := forgeAPI{place: place{scheme: "http", host: strings.TrimPrefix(own.URL, "http://"), path: "a/b", kind: ForgeGitHub}, token: "a-token"}
	_, _, err := api.find(t.Context(), "leaves")
	if failureOf(err) != FailForge {
		t.Errorf("find = %v", err)
	}
	if _, err = api.open(t.Context(), Publish{Branch: "leaves", Title: "T"}, "main"); failureOf(err) != FailForge {
		t.Errorf("open = %v", err)
	}
	if len(got) > 0 {
		t.Errorf("the other place was asked, with %q", <-got)
	}
	if p, ok, err := api.find(t.Context(), "stays"); err != nil || !ok || p.Number != "7" {
		t.Errorf("find = %+v, %v, %v; want what moved at the host itself", p, ok, err)
	}
	for _, address := range []string{"", "javascript:x", "https://h/x> <!channel>", "https://h/x|y"} {
		answer = `[{"html_url":"` + address + `","number":1}]`
		if _, _, err := api.find(t.Context(), "b"); failureOf(err) != FailForge {
			t.Errorf("%q: find = %v", address, err)
		}
	}
}
