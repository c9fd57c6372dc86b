package bot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// TestRepoOffer: a message that begins a session without a repository is run, and its author may choose one of those that were used there.
func TestRepoOffer(t *testing.T) {
	t.Parallel()
	app, lib := runner.Repo{URL: "https://github.com/acme/app", Branch: "dev"}, runner.Repo{URL: "https://github.com/acme/lib"}
	elsewhere := runner.Repo{URL: "https://git.example/x/y"}
	world := func(t *testing.T) *workspace {
		w := newWorkspace(t, func(c *Config) { c.NamedRepos = []string{"https://github.com/acme/"} })
		w.sessions.used = map[string][]runner.Repo{general: {app, elsewhere, lib}, "U0ADMIN": {lib}}
		return w
	}
	offer := func(w *workspace, token, channel, root string) (ts, shown string) {
		list, _ := w.local(token, "seen", map[string]any{"channel": channel, "thread_ts": root})["ephemeral"].([]any)
		for _, e := range list {
			if m, _ := e.(map[string]any); has(w.text(m), sayWhichRepo) {
				return fmt.Sprint(m["ts"]), w.text(m)
			}
		}
		return "", ""
	}
	t.Run("which is a turn of its own in the session", func(t *testing.T) {
		t.Parallel()
		w := world(t)
		root := w.say(member, general, "", mention+"what is this about?")
		var ts, shown string
		w.until("the offer", func() bool { ts, shown = offer(w, member, general, root); return ts != "" })
		if !has(shown, "acme/app#dev", "acme/lib") || has(shown, "git.example") {
			t.Errorf("offered: %s, want those that may be named", shown)
		}
		if w.sessions.turn(root) == nil {
			t.Fatal("the message waits for the choice")
		}
		s := session(root)
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
		choose := func() {
			w.local(member, "click", map[string]any{"channel": general, "ts": ts, "action_id": actionRepo, "value": "https://github.com/acme/app#dev"})
		}
		choose()
		w.until("who chose is told", func() bool { return has(w.whispered(member, general, root), "Going on in `acme/app#dev`.") })
		choose()
		w.until("once", func() bool { return has(w.whispered(member, general, root), sayAskedAlready) })
		w.sessions.set(func(f *fakeSessions) {
			got := f.accepted[len(f.accepted)-1]
			if diff := cmp.Diff([]runner.Repo{app}, got.Adds); len(f.accepted) != 2 || diff != "" || got.Thread != s.Thread || got.Mention || !has(got.Text, "Go on in it") {
				t.Errorf("accepted %d turns, the last is %+v", len(f.accepted), got)
			}
		})
	})
	t.Run("which is tried again, where it could not be cloned", func(t *testing.T) {
		t.Parallel()
		w := world(t)
		root := w.say(member, general, "", mention+"what is this about?")
		var ts string
		w.until("the offer", func() bool { ts, _ = offer(w, member, general, root); return ts != "" })
		s := session(root)
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
		w.local(member, "click", map[string]any{"channel": general, "ts": ts, "action_id": actionRepo, "value": "https://github.com/acme/lib"})
		last := func() (t sessions.Turn) {
			w.sessions.set(func(f *fakeSessions) { t = f.accepted[len(f.accepted)-1] })
			return t
		}
		w.until("its turn", func() bool { return len(last().Adds) == 1 })
		failed := last()
		out := outcome("")
		out.Failure, out.ExitCode = runner.FailClone, 1
		for range 2 { // and so when it fails once more
			if err := w.bot.Finish(t.Context(), s, failed, "", out, false); err != nil {
				t.Fatal(err)
			}
			var answer string
			w.until("a button", func() bool {
				answer = w.find(root, string(failed.ID))
				return answer != ""
			})
			w.local(member, "click", map[string]any{"channel": general, "ts": answer, "action_id": "retry"})
			w.until("another try", func() bool { return last().ID != failed.ID })
			again := last()
			if diff := cmp.Diff(failed.Adds, again.Adds); diff != "" || again.Text != failed.Text || again.User != "U0MEMBER" {
				t.Fatalf("it is %+v, want it to go on in the repository: %s", again, diff)
			}
			failed = again
		}
	})
	t.Run("in a direct message those of the person", func(t *testing.T) {
		t.Parallel()
		w := world(t)
		root := w.say(admin, "D0ADMIN", "", "what is this about?")
		var shown string
		w.until("the offer", func() bool { _, shown = offer(w, admin, "D0ADMIN", root); return shown != "" })
		if !has(shown, "acme/lib") || has(shown, "acme/app") {
			t.Errorf("offered: %s", shown)
		}
	})
	t.Run("where none was used somebody is told once how to name one", func(t *testing.T) {
		t.Parallel()
		w := world(t)
		w.sessions.used = nil
		told := func(token, thread string) bool {
			return has(w.whispered(token, general, thread), sayHowToName([]string{"`github.com/acme`"}))
		}
		root := w.say(member, general, "", mention+"what is this about?")
		w.until("that", func() bool { return told(member, root) })
		again, another := w.say(member, general, "", mention+"and this?"), w.say(admin, general, "", mention+"and this?")
		w.until("that somebody else is told", func() bool { return told(admin, another) })
		w.settled(general)
		w.bot.offerRepos(t.Context(), *w.sessions.turn(again)) // what was begun beside it does the same
		if told(member, again) {
			t.Error("they are told again")
		}
	})
	t.Run("where none may be named nothing is said", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", mention+"what is this about?")
		w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
		w.bot.offerRepos(t.Context(), *w.sessions.turn(root))
		if got := w.whispered(member, general, root); has(got, "repository") {
			t.Errorf("they are told %s", got)
		}
	})
	for _, c := range []struct {
		name, text string
		change     func(w *workspace)
	}{
		{"not where the message names one", mention + "repo:acme/lib go", nil},
		{"not where it links to one", mention + "why does <https://github.com/acme/lib/pull/3> fail?", nil},
		{"not where it wants none", mention + "repo:none go", nil},
		{"not where the channel has some", mention + "go", func(w *workspace) { w.set(general, sessions.Settings{Repos: []runner.Repo{lib}}) }},
		{"not where the channel wants none", mention + "go", func(w *workspace) { w.set(general, sessions.Settings{Repos: []runner.Repo{}}) }},
		{"not where none was used", mention + "go", func(w *workspace) { w.sessions.used = nil }},
		{"not in a session that has begun", mention + "go", func(w *workspace) {
			s := session("1.2")
			s.State = []runner.RepoState{}
			w.sessions.status.Session = &s
		}},
		{"not behind another turn of the thread", mention + "go", func(w *workspace) { w.sessions.status.Queued = []sessions.Turn{{ID: "other"}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			if c.change != nil {
				c.change(w)
			}
			root := w.say(member, general, "", c.text)
			w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
			w.bot.offerRepos(t.Context(), *w.sessions.turn(root)) // what was begun beside it does the same
			if ts, shown := offer(w, member, general, root); ts != "" {
				t.Errorf("offered: %s", shown)
			}
		})
	}
	t.Run("what may not be named any more cannot be chosen, nor in a session that has ended", func(t *testing.T) {
		t.Parallel()
		w := world(t)
		root := w.say(member, general, "", mention+"what is this about?")
		var ts string
		w.until("the offer", func() bool { ts, _ = offer(w, member, general, root); return ts != "" })
		w.local(member, "click", map[string]any{"channel": general, "ts": ts, "action_id": actionRepo, "value": "https://github.com/acme/lib"})
		w.until("there is no session", func() bool { return has(w.whispered(member, general, root), sayNoSession) })
		var p interactionPayload
		raw := fmt.Sprintf(`{"user":{"id":"U0MEMBER"},"actions":[{"block_id":%q,"selected_option":{"value":%q}}]}`, repoBlock+team+":"+general+":"+root, elsewhere.URL)
		if err := json.Unmarshal([]byte(raw), &p); err != nil {
			t.Fatal(err)
		}
		if a := w.bot.pressRepo(t.Context(), p); !strings.HasPrefix(a.text, "I may not work on") {
			t.Errorf("pressRepo = %q", a.text)
		}
	})
}
