package bot

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// TestLinkButtons: a button that leads to a page is acked, and nobody is told anything.
func TestLinkButtons(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"go")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	s := session(root)
	turn := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, Thread: s.Thread, TS: root, User: "U0MEMBER"}
	out := outcome("done")
	out.Pulls = []runner.Pull{{Dir: "app", Number: "12", URL: "https://github.com/acme/app/pull/12"}}
	if err := w.bot.Finish(t.Context(), s, turn, "", out, false); err != nil {
		t.Fatal(err)
	}
	ts := w.last(general, root)
	for _, token := range []string{member, guest} {
		if res := w.local(token, "click", map[string]any{"channel": general, "ts": ts, "action_id": linkAction + "1"}); res["ok"] != true {
			t.Errorf("click = %v", res)
		}
	}
	w.settled(general)
	if said := w.whispered(guest, general, root) + w.whispered(member, general, root); has(said, sayNotYou) || has(said, sayOldButton) {
		t.Errorf("somebody was told %s", said)
	}
}

func TestCommitsSayWhoAsked(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		w := newWorkspace(t, func(cfg *Config) { cfg.PlainCommits = plain })
		root := w.say(member, general, "", mention+"go")
		turn := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, Thread: sessions.Thread{Team: team, Channel: general, TS: root}, TS: root, User: "U0MEMBER", Text: "go"}
		p, err := w.bot.Prompt(t.Context(), sessions.Session{}, turn, true)
		if err != nil {
			t.Fatal(err)
		}
		link := "Slack-thread: " + w.bot.permalink(t.Context(), turn.Thread)
		want := []string{"Requested-by: " + w.bot.people.name(t.Context(), "U0MEMBER") + " (Slack U0MEMBER)", link}
		if plain {
			want = nil
		}
		if !slices.Equal(p.Trailers, want) || !strings.HasPrefix(link, "Slack-thread: http") {
			t.Errorf("plain: %v: trailers = %q, want %q", plain, p.Trailers, want)
		}
	}
	w := newWorkspace(t, nil)
	w.fault(map[string]any{"method": "chat.getPermalink", "delay_ms": 10000})
	click, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got := w.bot.trailers(click, sessions.Thread{Team: team, Channel: general, TS: "1.1"}, "U0MEMBER"); len(got) != 1 || click.Err() != nil {
		t.Errorf("trailers = %q, %v, want time left for what was asked for", got, click.Err())
	}
	for name, want := range map[string]string{
		"Mia Member": "Mia Member (Slack U1)", "a\nEvil: x": "a Evil: x (Slack U1)", "<x@y>": "x y (Slack U1)", "": "Slack U1", "U1": "Slack U1",
		strings.Repeat("ä", 100): strings.Repeat("ä", 79) + "… (Slack U1)",
	} {
		if got := trailerName(name, "U1"); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

// last is the ts of the last message of a thread.
func (w *workspace) last(channel, thread string) string {
	w.t.Helper()
	all, _ := w.api(admin, "conversations.replies", url.Values{"channel": {channel}, "ts": {thread}})["messages"].([]any)
	m, _ := all[len(all)-1].(map[string]any)
	ts, _ := m["ts"].(string)
	return ts
}

// atWork is a session of the member in a thread, with work in these repositories, and an answer under which a pull request can be opened.
func atWork(t *testing.T, repos []runner.Repo, states []runner.RepoState) (w *workspace, s sessions.Session, answer string) {
	t.Helper()
	w = newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"Fix the *flaky* login test\nplease")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	s = session(root)
	s.Repos, s.State = repos, states
	w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
	out := outcome("I mended it, see `login_test.go`.")
	out.Repos = states
	turn := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, Thread: s.Thread, TS: root, User: "U0MEMBER"}
	if err := w.bot.Finish(t.Context(), s, turn, "", out, false); err != nil {
		t.Fatal(err)
	}
	return w, s, w.last(general, root)
}

// asking is the modal that a person has open, as JSON, and its id.
func (w *workspace) asking(token string) (view, id string) {
	w.t.Helper()
	w.until("a modal", func() bool {
		views, _ := w.local(token, "seen", map[string]any{"channel": general})["views"].([]any)
		for _, v := range views {
			v, _ := v.(map[string]any)
			id, _ = v["id"].(string)
			view = w.text(v)
		}
		return id != ""
	})
	return view, id
}

func fillIn(values map[string]string) map[string]any {
	out := map[string]any{}
	for name, text := range values {
		v := map[string]any{"type": "plain_text_input", "value": text}
		if name == "repo" || name == "rest" {
			v = map[string]any{"type": "static_select", "selected_option": map[string]any{"value": text}}
		}
		out[name] = map[string]any{"value": v}
	}
	return out
}

func TestOpenPull(t *testing.T) {
	t.Parallel()
	app, lib := runner.Repo{URL: "https://github.com/acme/app", Branch: "dev"}, runner.Repo{URL: "git@gitlab.com:acme/lib.git"}
	t.Run("the modal suggests what the turn was about, and asks the runner for what was written", func(t *testing.T) {
		t.Parallel()
		w, s, answer := atWork(t, []runner.Repo{app, lib}, []runner.RepoState{{Dir: "app", Branch: "dev", Changed: 2}, {Dir: "lib"}})
		w.local(member, "click", map[string]any{"channel": general, "ts": answer, "action_id": "pull"})
		view, id := w.asking(member)
		for _, want := range []string{
			`"initial_value":"Fix the *flaky* login test"`, "\"initial_value\":\"I mended it, see `login_test.go`.\"",
			`"initial_value":"flaudebot/fix-the-flaky-login-test"`, `"initial_value":"dev"`, "`app`: 2 files not committed",
			`"initial_option":{"text":{"emoji":false,"text":"Commit it, under the title"`,
		} {
			if !has(view, want) {
				t.Errorf("the modal is without %s: %s", want, view)
			}
		}
		for block, values := range map[string]map[string]string{
			"title":  {"title": " ", "branch": "fix", "rest": "leave"},
			"branch": {"title": "T", "branch": "a b", "rest": "leave"},
			"base":   {"title": "T", "branch": "fix", "base": "--x", "rest": "leave"},
		} {
			res := w.local(member, "submit", map[string]any{"view_id": id, "values": fillIn(values)})
			if !has(w.text(res), `"response_action":"errors"`, `"`+block+`":`) {
				t.Errorf("%s: submit = %v", block, res)
			}
		}
		values := fillIn(map[string]string{"title": "Fix it", "body": "For *you*", "branch": "fix", "base": "dev", "rest": "commit"})
		w.local(member, "submit", map[string]any{"view_id": id, "values": values})
		turn := w.sessions.turn("errand-" + id)
		if turn == nil || turn.User != "U0MEMBER" || turn.Thread != s.Thread || turn.Text != sayOpenPull(pullRequest) || turn.Errand.Private {
			t.Fatalf("the errand is %+v", turn)
		}
		trailers := w.bot.trailers(t.Context(), s.Thread, "U0MEMBER")
		want := runner.Publish{Dir: "app", Branch: "fix", Base: "dev", Title: "Fix it", Body: "For *you*\n\n---\n" + strings.Join(trailers, "\n"), Commit: true}
		if *turn.Errand.Publish != want || !slices.Equal(turn.Errand.Trailers, trailers) || len(trailers) != 2 {
			t.Errorf("it asks for %+v, want %+v", *turn.Errand.Publish, want)
		}
	})
	t.Run("several repositories are a choice, and work on a branch of its own stays there", func(t *testing.T) {
		t.Parallel()
		states := []runner.RepoState{{Dir: "app", Branch: "mine", Unpushed: 1}, {Dir: "lib", Branch: "main", Changed: 1}}
		w, _, answer := atWork(t, []runner.Repo{app, lib}, states)
		w.local(member, "click", map[string]any{"channel": general, "ts": answer, "action_id": "pull"})
		view, id := w.asking(member)
		if !has(view, "app: 1 commit not pushed", "lib: 1 file not committed") {
			t.Errorf("the modal is %s", view)
		}
		w.local(member, "submit", map[string]any{"view_id": id, "values": fillIn(map[string]string{"repo": "lib", "title": "T", "branch": "b", "rest": "leave"})})
		turn := w.sessions.turn("errand-" + id)
		if turn == nil || turn.Errand.Publish.Dir != "lib" || turn.Errand.Publish.Commit {
			t.Errorf("the errand is %+v", turn)
		}
		if branch, base := branches(sessions.Session{Repos: []runner.Repo{app}}, states[:1], "x"); branch != "mine" || base != "dev" {
			t.Errorf("suggested is %s into %s", branch, base)
		}
	})
	t.Run("what was written stays while it cannot be stored, and others may not", func(t *testing.T) {
		t.Parallel()
		w, s, answer := atWork(t, []runner.Repo{app}, []runner.RepoState{{Dir: "app", Unpushed: 1}})
		w.local(guest, "click", map[string]any{"channel": general, "ts": answer, "action_id": "pull"})
		w.until("a refusal", func() bool { return has(w.whispered(guest, general, s.Thread.TS), sayNotYou) })
		w.local(member, "click", map[string]any{"channel": general, "ts": answer, "action_id": "pull"})
		_, id := w.asking(member)
		w.sessions.set(func(f *fakeSessions) { f.away = true })
		values := fillIn(map[string]string{"title": "T", "branch": "b"})
		if res := w.local(member, "submit", map[string]any{"view_id": id, "values": values}); !has(w.text(res), sayTrouble) {
			t.Errorf("submit = %v", res)
		}
		w.sessions.set(func(f *fakeSessions) { f.away = false })
		w.local(member, "submit", map[string]any{"view_id": id, "values": values})
		if w.sessions.turn("errand-"+id) == nil {
			t.Error("it was not asked for")
		}
	})
	for text, want := range map[string]string{
		"I did.\nexit 0 · 3 s · $0.10 · turn 3": "I did.",
		"I did.\nPull request #1: https://github.com/acme/app/pull/1\nexit 0 · 3 s · $0.10 · turn 3 · pushed x": "I did.",
		"I did.\n*Changed 2 files* · +1 −0 lines\n`a` new\nexit 0 · 3 s · $0.10 · turn 3":                       "I did.",
		"exit 0 is good\nsee: https://example.org":                                                              "exit 0 is good\nsee: https://example.org",
	} {
		if got := answerText(text); got != want {
			t.Errorf("answerText(%q) = %q, want %q", text, got, want)
		}
	}
	for name, c := range map[string]struct {
		repos []runner.Repo
		out   sessions.Outcome
		want  bool
	}{
		"changes":                  {[]runner.Repo{app}, sessions.Outcome{Outcome: runner.Outcome{Repos: []runner.RepoState{{Dir: "app", Changed: 1}}}}, true},
		"nothing new":              {[]runner.Repo{app}, sessions.Outcome{Outcome: runner.Outcome{Repos: []runner.RepoState{{Dir: "app"}}}}, false},
		"a folder of this machine": {[]runner.Repo{{URL: "/srv/app"}}, sessions.Outcome{Outcome: runner.Outcome{Repos: []runner.RepoState{{Dir: "app", Changed: 1}}}}, false},
		"a branch that was pushed": {[]runner.Repo{app}, sessions.Outcome{Outcome: runner.Outcome{Repos: []runner.RepoState{{Dir: "app"}}, Branches: []runner.Branch{{Dir: "app", Name: "x"}}}}, true},
		"one that was opened as well": {[]runner.Repo{app}, sessions.Outcome{Outcome: runner.Outcome{
			Repos: []runner.RepoState{{Dir: "app"}}, Branches: []runner.Branch{{Dir: "app", Name: "x"}}, Pulls: []runner.Pull{{Dir: "app", Number: "1"}},
		}}, false},
	} {
		if got := canPull(sessions.Session{Repos: c.repos}, c.out); got != c.want {
			t.Errorf("%s: canPull = %v", name, got)
		}
	}
	for text, want := range map[string]string{"Fix the flaky test!": "fix-the-flaky-test", "ÄÖ": "work", "": "work", strings.Repeat("word ", 20): "word-word-word-word-word-word-word-word"} {
		if got := slug(text); got != want {
			t.Errorf("slug(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestPushThenEnd: who ends a session with work that is nowhere else is asked first, and can have it pushed before.
func TestPushThenEnd(t *testing.T) {
	t.Parallel()
	app := runner.Repo{URL: "https://github.com/acme/app"}
	ask := func(t *testing.T) (*workspace, sessions.Session, sessions.Turn) {
		t.Helper()
		w, s, _ := atWork(t, []runner.Repo{app}, []runner.RepoState{{Dir: "app", Changed: 1}})
		w.say(member, general, s.Thread.TS, "!end")
		w.until("the question", func() bool { return has(w.thread(general, s.Thread.TS), saySaveThenEnd) })
		ts := w.find(s.Thread.TS, saySaveThenEnd)
		w.local(member, "click", map[string]any{"channel": general, "ts": ts, "action_id": "save"})
		var turn *sessions.Turn
		w.until("the errand", func() bool {
			w.sessions.set(func(f *fakeSessions) {
				for _, a := range f.accepted {
					if a.Kind == sessions.KindErrand {
						turn = &a
					}
				}
			})
			return turn != nil
		})
		if !turn.Errand.ThenEnd || turn.Errand.Kind != runner.ErrandRescue || turn.Errand.Rescue.Branch != "flaudebot/saved-5f0c1d2e" {
			t.Errorf("the errand is %+v of %+v", turn.Errand, turn.Errand.Rescue)
		}
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.ends) }); n != 0 {
			t.Error("it was ended at once")
		}
		return w, s, *turn
	}
	saved := func(f sessions.Failure) sessions.Outcome {
		return sessions.Outcome{Outcome: runner.Outcome{Failure: f, Repos: []runner.RepoState{{Dir: "app"}}, Branches: []runner.Branch{{Dir: "app", Name: "flaudebot/saved-5f0c1d2e"}}}}
	}
	for name, c := range map[string]struct {
		failure sessions.Failure
		state   runner.RepoState
		waiting bool
		other   bool
		ends    int
		says    string
	}{
		"all is pushed":            {ends: 1, says: "Pushed, with what was not committed: `flaudebot/saved-5f0c1d2e` in `app`."},
		"the push fails":           {failure: runner.FailNoRight, state: runner.RepoState{Dir: "app", Changed: 1}, says: "does not let my token push there, so nothing was ended"},
		"something is left":        {state: runner.RepoState{Dir: "app", Unknown: true}, says: "I could not look"},
		"somebody wrote meanwhile": {waiting: true, says: sayKeptOn},
		"another session is there": {other: true, says: "Pushed, with what was not committed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s, turn := ask(t)
			s.State = []runner.RepoState{c.state}
			if c.other {
				fresh := s
				fresh.SessionID = "6f0c1d2e-0000-4000-8000-000000000001"
				w.sessions.set(func(f *fakeSessions) { f.status.Session = &fresh })
			}
			if c.waiting {
				w.sessions.set(func(f *fakeSessions) { f.status.Queued = []sessions.Turn{{ID: "x", Kind: sessions.KindTurn}} })
			}
			for _, again := range []bool{false, true} {
				if err := w.bot.Finish(t.Context(), s, turn, "", saved(c.failure), again); err != nil {
					t.Fatal(err)
				}
			}
			ends := w.sessions.count(func(f *fakeSessions) int { return len(f.ends) })
			if (ends > 0) != (c.ends > 0) { // asked for twice it is ended once
				t.Errorf("ended %d times", ends)
			}
			if got := w.thread(general, s.Thread.TS); !has(got, c.says) || strings.Count(got, sayKeptOn) > 1 {
				t.Errorf("the thread says %s", got)
			}
		})
	}
}
