package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// gitHost serves repositories over HTTP: folder → branch → the file "which" says so. It returns the address below which they are.
func gitHost(t *testing.T, repos map[string][]string) string {
	t.Helper()
	root := t.TempDir()
	for name, branches := range repos {
		dir := filepath.Join(t.TempDir(), name)
		git := func(args ...string) {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("git %s: %v: %s", args, err, out)
			}
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		git("init", "-q", "-b", branches[0])
		for i, branch := range branches {
			if i > 0 {
				git("checkout", "-q", "-b", branch)
			}
			if err := os.WriteFile(filepath.Join(dir, "which"), []byte(name+" at "+branch+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			git("add", "which")
			git("commit", "-q", "-m", branch)
		}
		git("checkout", "-q", branches[0])
		bare := filepath.Join(root, "team", name+".git")
		git("clone", "-q", "--bare", ".", bare)
		git("--git-dir="+bare, "update-server-info")
	}
	h := httptest.NewServer(http.FileServer(http.Dir(root)))
	t.Cleanup(h.Close)
	return h.URL + "/team"
}

// TestNamedRepos: the message that begins a session says which repositories it is about, and a workspace has those, and no others.
func TestNamedRepos(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	host := gitHost(t, map[string][]string{"one": {"main"}, "two": {"main", "next"}})
	start(t, append(append([]string{}, w.env...), "FLAUDEBOT_NAMED_REPOS="+host), "serve")
	general := w.channel("general")
	t.Run("several, and a branch", func(t *testing.T) {
		root := w.say(member, general, "", mention+"repo:"+host+"/one.git repo:<"+host+"/two.git> branch:next run: ls && cat one/which two/which")
		text, code := w.answer(general, root, root)
		if code != "0" || !strings.Contains(text, "one at main") || !strings.Contains(text, "two at next") || strings.Contains(text, "repo\n") {
			t.Errorf("answer = %q (exit %s), want both repositories and no other", text, code)
		}
		ts := w.say(member, general, root, "run: cat two/which")
		if text, code := w.answer(general, root, ts); code != "0" || !strings.Contains(text, "two at next") {
			t.Errorf("answer = %q (exit %s), want the same in the next turn", text, code)
		}
	})
	t.Run("none", func(t *testing.T) {
		root := w.say(member, general, "", mention+"repo:none run: ls -A | wc -l")
		if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "0") {
			t.Errorf("answer = %q (exit %s), want an empty workspace", text, code)
		}
	})
	t.Run("those of the settings without a name", func(t *testing.T) {
		root := w.say(member, general, "", mention+"run: ls repo")
		if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "greet.sh") {
			t.Errorf("answer = %q (exit %s), want the repository of the settings", text, code)
		}
	})
	t.Run("one that is linked, besides those of the settings", func(t *testing.T) {
		root := w.say(member, general, "", mention+"run: ls && cat two/which # as in <"+host+"/two.git/tree/next|that branch>")
		if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "repo\ntwo\n") || !strings.Contains(text, "two at next") {
			t.Errorf("answer = %q (exit %s), want the repository of the settings and the linked branch", text, code)
		}
	})
	t.Run("a prompt that runs once has those that it names, and no others", func(t *testing.T) {
		w.typed(member, general, "run repo:"+host+"/two.git branch:next run: cat two/which")
		w.until("its answer", func() bool {
			for _, m := range items(w.api(member, "conversations.history", url.Values{"channel": {general}})["messages"]) {
				if text, _ := m["text"].(string); strings.Contains(text, "> runs once: repo:") {
					root, _ := m["ts"].(string)
					return strings.Contains(fmt.Sprint(w.thread(general, root)), "two at next")
				}
			}
			return false
		})
		if said := w.typed(member, general, "run repo:evil/api run: ls"); !strings.Contains(said, "I may not work on `evil/api`") {
			t.Errorf("/flaude run = %q, want it refused in a sentence", said)
		}
	})
	t.Run("one from elsewhere is refused in a sentence", func(*testing.T) {
		root := w.say(member, general, "", mention+"repo:evil/api run: ls")
		w.until("the sentence", func() bool {
			for _, m := range w.thread(general, root) {
				if strings.Contains(m.Text, "I may not work on `evil/api`") {
					return true
				}
			}
			return false
		})
	})
}

// TestRepoChosen: a session that began without a repository goes on in one that was used in its channel before, when its author chooses that.
func TestRepoChosen(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	host := gitHost(t, map[string][]string{"one": {"main"}})
	start(t, append(append([]string{}, w.env...), "FLAUDEBOT_NAMED_REPOS="+host, "FLAUDEBOT_REPOS="), "serve")
	general := w.channel("general")
	before := w.say(member, general, "", mention+"repo:"+host+"/one.git run: cat one/which")
	if text, code := w.answer(general, before, before); code != "0" || !strings.Contains(text, "one at main") {
		t.Fatalf("answer = %q (exit %s)", text, code)
	}
	root := w.say(member, general, "", mention+"run: ls -A | wc -l")
	if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "0") {
		t.Errorf("answer = %q (exit %s), want an empty workspace, at once", text, code)
	}
	offer := w.whispered(t, member, general, root, "I begin without a repository.")
	w.local(member, "click", map[string]any{"channel": general, "ts": offer, "action_id": "repo", "value": host + "/one.git"})
	w.until("the turn that goes on in it", func() bool { return strings.Contains(fmt.Sprint(w.thread(general, root)), "turn 2") })
	next := w.say(member, general, root, "run: cat one/which")
	if text, code := w.answer(general, root, next); code != "0" || !strings.Contains(text, "one at main") {
		t.Errorf("answer = %q (exit %s), want the repository", text, code)
	}
}

// TestRepoLate: a session whose first turn could not clone what it named goes on in that when a reply without a name follows, and the repository
// is offered in its channel from then on.
func TestRepoLate(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	there := atomic.Bool{}
	host, err := url.Parse(gitHost(t, map[string][]string{"one": {"main"}}))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: host.Scheme, Host: host.Host})
	late := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !there.Load() {
			http.NotFound(rw, r)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(late.Close)
	start(t, append(append([]string{}, w.env...), "FLAUDEBOT_NAMED_REPOS="+late.URL+"/team", "FLAUDEBOT_REPOS="), "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"repo:"+late.URL+"/team/one.git run: cat one/which")
	if text, code := w.answer(general, root, root); code == "0" || !strings.Contains(text, "one.git") {
		t.Fatalf("answer = %q (exit %s), want that it could not be cloned", text, code)
	}
	there.Store(true)
	again := w.say(member, general, root, "run: cat one/which")
	if text, code := w.answer(general, root, again); code != "0" || !strings.Contains(text, "one at main") {
		t.Errorf("answer = %q (exit %s), want the repository that the first message named", text, code)
	}
	other := w.say(member, general, "", mention+"run: ls -A | wc -l")
	w.answer(general, other, other)
	w.whispered(t, member, general, other, "I begin without a repository.")
}
