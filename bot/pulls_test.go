package bot

import (
	"slices"
	"strings"
	"testing"

	"flaudebot/sessions"
)

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
