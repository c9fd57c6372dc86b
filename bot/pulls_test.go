package bot

import (
	"net/url"
	"slices"
	"strings"
	"testing"

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
