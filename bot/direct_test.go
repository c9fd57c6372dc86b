package bot

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

const direct = "D0MEMBER"

// TestDirectMessages: whoever opens them finds prompts to begin with, each message begins a conversation of its own, and that has a title.
func TestDirectMessages(t *testing.T) {
	t.Parallel()
	seen := func(w *workspace, token, channel, thread string) string {
		return w.text(w.local(token, "seen", map[string]any{"channel": channel, "thread_ts": thread}))
	}

	t.Run("prompts are offered to who may use the bot, and those that are pressed are understood", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.local(guest, "open", map[string]any{"channel": "D0GUEST"})
		w.local(member, "open", map[string]any{"channel": direct})
		w.until("the prompts", func() bool { return has(seen(w, member, direct, ""), `"suggested":`, suggestTitle, "Give me a tour") })
		for i, p := range suggested() {
			ts := w.say(member, direct, "", p.Message)
			if p.Message == "help" {
				w.until("the help", func() bool { return has(w.whispered(member, direct, ts), sayHelp[:40]) })
				continue
			}
			w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
			if i >= 4 || len(p.Title) > 40 {
				t.Errorf("prompt %d %q: Slack shows four, and short ones", i, p.Title)
			}
		}
		w.leave()
		w.bot.Close()
		if has(seen(w, guest, "D0GUEST", ""), `"suggested"`) {
			t.Error("a guest is offered what they may not ask")
		}
	})
	t.Run("a workspace without them is asked once", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.fault(map[string]any{"method": "assistant.threads.setSuggestedPrompts", "body": `{"ok":false,"error":"unknown_method"}`})
		w.local(member, "open", map[string]any{"channel": direct})
		w.until("it is known", w.bot.suggest.off.Load)
		w.fault(map[string]any{})
		w.local(admin, "open", map[string]any{"channel": "D0ADMIN"})
		ts := w.say(admin, "D0ADMIN", "", "hi")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		w.leave()
		w.bot.Close()
		if has(seen(w, admin, "D0ADMIN", ""), `"suggested"`) {
			t.Error("it was asked again")
		}
	})
	t.Run("a conversation is called what it began with, and keeps that", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, func(cfg *Config) { cfg.NamedRepos = []string{"https://github.com/acme/"} })
		ts := w.say(member, direct, "", "repo:acme/api\nmend &lt;the&gt; test\nand more")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		s, turn := session(ts), *w.sessions.turn(ts)
		s.Thread, s.Turns = turn.Thread, 0
		begin := func() {
			t.Helper()
			if _, err := w.bot.Begin(t.Context(), s, turn, false); err != nil {
				t.Fatal(err)
			}
			w.until("it is shown as running", func() bool { return has(seen(w, member, direct, ts), `"status":"processing"`) })
		}
		begin()
		if got := seen(w, member, direct, ts); !has(got, `"title":"mend <the> test"`) {
			t.Errorf("seen = %s", got)
		}
		if err := w.bot.Finish(t.Context(), s, turn, "", outcome("done"), false); err != nil {
			t.Fatal(err)
		}
		w.until("it is shown as ready", func() bool { return has(seen(w, member, direct, ts), `"status":"active"`) })
		w.api("xoxb-local", "agents.sessions.rename", url.Values{"channel_id": {direct}, "thread_ts": {ts}, "title": {"what people call it"}})
		s.Turns, turn.Text = 1, "and now this"
		begin()
		if got := seen(w, member, direct, ts); !has(got, `"title":"what people call it"`) {
			t.Errorf("seen = %s", got)
		}
	})
	t.Run("titles fit", func(t *testing.T) {
		t.Parallel()
		b := &Bot{}
		for text, want := range map[string]string{
			"": "notes.txt", "\n \n x\ty ": "x y", strings.Repeat("é", 100): strings.Repeat("é", maxTitle-1) + "…", "repo:nobody/may fix": "repo:nobody/may fix",
		} {
			turn := sessions.Turn{Text: text, Files: []sessions.Attachment{{Name: "notes.txt"}}, At: time.Now()}
			if got := b.title(t.Context(), turn); got != want {
				t.Errorf("title of %q = %q, want %q", text, got, want)
			}
		}
	})
}
