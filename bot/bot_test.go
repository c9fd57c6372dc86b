package bot

import (
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/local/slack"
	"flaudebot/runner"
	"flaudebot/sessions"
)

func TestIntake(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)

	t.Run("a mention is one turn, though Slack tells of it twice, and is seen at once", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, "", mention+"fix the test")
		w.until("the reaction", func() bool { return has(w.thread(general, ts), `"eyes"`) })
		w.settled(general)
		n := w.sessions.count(func(f *fakeSessions) (n int) {
			for _, turn := range f.accepted {
				if turn.TS == ts {
					n++
				}
			}
			return n
		})
		if turn := w.sessions.turn(ts); n != 1 || turn.Text != "fix the test" || !turn.Mention || turn.User != "U0MEMBER" {
			t.Errorf("%d turns, %+v; want one that says what was asked", n, turn)
		}
	})
	t.Run("a repository that is named goes with the prompt; one that may not be had is refused in a sentence, and is no turn", func(t *testing.T) {
		w := newWorkspace(t, func(cfg *Config) { cfg.NamedRepos = []string{"https://github.com/acme/"} })
		ts := w.say(member, general, "", mention+"repo:acme/api branch:v2 fix the test")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		p, err := w.bot.Prompt(t.Context(), sessions.Session{}, *w.sessions.turn(ts), true)
		if want := []runner.Repo{{URL: "https://github.com/acme/api", Branch: "v2"}}; err != nil || p.Text != "fix the test" || !slices.Equal(p.Repos, want) {
			t.Errorf("Prompt = %q, %v, %v, want %v", p.Text, p.Repos, err, want)
		}
		if p, err := w.bot.Prompt(t.Context(), sessions.Session{}, *w.sessions.turn(ts), false); err != nil || p.Text != "repo:acme/api branch:v2 fix the test" || p.Repos != nil {
			t.Errorf("Prompt = %q, %v, %v in a later turn, want the words as they are", p.Text, p.Repos, err)
		}
		other := w.say(member, general, "", mention+"repo:evil/api fix the test")
		w.until("the sentence", func() bool { return has(w.thread(general, other), "I may not work on `evil/api`", "github.com/acme") })
		w.settled(general)
		if w.sessions.turn(other) != nil {
			t.Error("it became a turn")
		}
	})
	t.Run("what names a repository that may not be had is a prompt like others where a session has begun, or is about to", func(t *testing.T) {
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", mention+"begin")
		live, over := session(root), session(root)
		over.EndedAt = time.Now()
		turn := func(kind sessions.Kind) *sessions.Turn { return &sessions.Turn{ID: "before", Kind: kind, TS: root} }
		for name, c := range map[string]struct {
			status sessions.Status
			prompt bool
		}{
			"a live session":          {sessions.Status{Session: &live}, true},
			"its first turn runs":     {sessions.Status{Running: turn(sessions.KindTurn)}, true},
			"its first turn waits":    {sessions.Status{Queued: []sessions.Turn{*turn(sessions.KindTurn)}}, true},
			"none yet":                {sessions.Status{}, false},
			"it has ended":            {sessions.Status{Session: &over}, false},
			"it is being ended":       {sessions.Status{Session: &live, Running: turn(sessions.KindEnd)}, false},
			"its end waits":           {sessions.Status{Session: &live, Running: turn(sessions.KindTurn), Queued: []sessions.Turn{*turn(sessions.KindEnd)}}, false},
			"a run of its own is all": {sessions.Status{Running: turn(sessions.KindOnce)}, false},
		} {
			w.sessions.set(func(f *fakeSessions) { f.status = c.status })
			ts := w.say(member, general, root, mention+"what does branch:v2 change?")
			if c.prompt {
				w.until("a turn: "+name, func() bool { return w.sessions.turn(ts) != nil })
				continue
			}
			w.until("a sentence: "+name, func() bool {
				return has(w.thread(general, root), "Say of which repository", `"turn":"`+string(turnID(team, general, ts)))
			})
			w.settled(general)
			if w.sessions.turn(ts) != nil {
				t.Errorf("%s: it became a turn", name)
			}
		}
	})
	t.Run("people talking is no turn", func(t *testing.T) {
		w := w.in(t)
		root := w.say(member, general, "", "lunch?")
		reply := w.say(admin, general, root, "yes")
		w.settled(general)
		if w.sessions.turn(root) != nil || w.sessions.turn(reply) != nil {
			t.Error("a conversation of people became turns")
		}
	})
	t.Run("a direct message needs no mention", func(t *testing.T) {
		w := w.in(t)
		res := w.api(member, "conversations.open", url.Values{"users": {"U0FLAUDE"}})
		dm, _ := res["channel"].(map[string]any)
		ts := w.say(member, fmt.Sprint(dm["id"]), "", "hello there")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
	})
	t.Run("an event that could not be stored comes again", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) { f.fail = 2 })
		ts := w.say(member, general, "", mention+"do not lose me")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
	})
	t.Run("replies that came before the mention, which had to come again, are turns behind it, in order", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) { f.fail, f.busy = 2, true })
		defer w.sessions.set(func(f *fakeSessions) { f.busy, f.status.Queued = false, nil })
		root := w.say(member, general, "", mention+"begin")
		want := []string{root, w.say(member, general, root, "and then"), w.say(admin, general, root, "and last")}
		aside := w.say(member, general, root, "!aside what a day")
		inThread := func() []string {
			var got []string
			w.sessions.count(func(f *fakeSessions) int {
				for _, turn := range f.accepted {
					if turn.Thread.TS == root {
						got = append(got, turn.TS)
					}
				}
				return 0
			})
			return got
		}
		w.until("three turns", func() bool { return len(inThread()) >= 3 })
		w.settled(general)
		if got := inThread(); !slices.Equal(got, want) {
			t.Errorf("turns = %v, want %v without the aside %s", got, want, aside)
		}
	})
	t.Run("a mention that names the bot as well is one", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, "", "<@U0FLAUDE|flaude> fix it")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		if turn := w.sessions.turn(ts); turn.Text != "fix it" || !turn.Mention {
			t.Errorf("turn = %+v", turn)
		}
	})
	t.Run("what Slack tells of a channel is nobody's prompt", func(t *testing.T) {
		w := w.in(t)
		for i, e := range []innerEvent{
			{Subtype: "channel_topic", User: "U0MEMBER", Text: "set the topic: ask <@U0FLAUDE>"},
			{Subtype: "tombstone", User: "U0MEMBER", Text: mention + "This message was deleted."},
			{User: slackbot, Text: mention + "reminder"},
		} {
			e.Type, e.Channel, e.TS = "message", general, fmt.Sprintf("1700000000.00000%d", i)
			if err := w.bot.take(t.Context(), outerEvent{TeamID: team, Event: e}); err != nil || w.sessions.turn(e.TS) != nil {
				t.Errorf("%+v became a turn, %v", e, err)
			}
		}
	})
	t.Run("an empty mention is told what to do", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, "", mention)
		w.until("a sentence", func() bool { return has(w.thread(general, ts), sayEmpty, `"part":"note"`) })
	})
	t.Run("an edit that adds the mention begins a session, once", func(t *testing.T) {
		w := w.in(t)
		for _, was := range []string{"count the lines", mention + "!aside count the lines"} {
			ts := w.say(member, general, "", was)
			for _, now := range []string{mention + "count the lines", mention + "count the lines, please"} {
				w.api(member, "chat.update", url.Values{"channel": {general}, "ts": {ts}, "text": {now}})
				w.until("the turn", func() bool { turn := w.sessions.turn(ts); return turn != nil && "<@U0FLAUDE> "+turn.Text == now })
			}
			if turn := w.sessions.turn(ts); w.turns(ts) != 1 || !turn.Mention || turn.Thread.TS != ts {
				t.Errorf("%d turns, %+v; want one that begins its thread", w.turns(ts), turn)
			}
		}
	})
	t.Run("a guest is told once, privately", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(guest, general, "", mention+"mine coins")
		w.until("a whisper", func() bool { return has(w.whispered(guest, general, ""), sayNotYou) })
		w.say(guest, general, "", mention+"please")
		w.settled(general)
		if n := strings.Count(w.whispered(guest, general, ""), sayNotYou); n != 1 || w.sessions.turn(ts) != nil {
			t.Errorf("told %d times, want once and no turn", n)
		}
	})
	t.Run("too many waiting turns are told, and nothing is kept silently", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) { f.full = true })
		ts := w.say(member, general, "", mention+"one more")
		w.until("a sentence", func() bool { return has(w.thread(general, ts), sayFull(sessions.BoundThread)) })
		w.sessions.set(func(f *fakeSessions) { f.full = false })
	})
	t.Run("who has to wait for turns in other threads is told so", func(t *testing.T) {
		w := newWorkspace(t, func(cfg *Config) { cfg.Parks = true })
		for _, of := range []sessions.Bound{sessions.BoundPerson, sessions.BoundChannel} {
			ts := w.say(member, general, "", mention+"wait")
			w.until("it is taken in", func() bool { return w.sessions.turn(ts) != nil })
			turn := *w.sessions.turn(ts)
			w.sessions.set(func(f *fakeSessions) { f.status.Queued, f.status.Parked = []sessions.Turn{turn}, of })
			w.until("a sentence", func() bool { return strings.Contains(w.whispered(member, general, ts), sayParked(of)) })
			w.sessions.set(func(f *fakeSessions) { f.status = sessions.Status{} })
		}
	})
	t.Run("a text that is too long for the queue stays at Slack", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, "", mention+strings.Repeat("🦀", 9000))
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		turn := w.sessions.turn(ts)
		if !turn.AtSlack || turn.Text != "" {
			t.Errorf("turn holds %d bytes, want it at Slack", len(turn.Text))
		}
		p, err := w.bot.Prompt(t.Context(), sessions.Session{}, *turn, true)
		if err != nil || p.Text != strings.Repeat("🦀", 9000) {
			t.Errorf("prompt = %d bytes, %v; want the whole text", len(p.Text), err)
		}
	})
}

func TestThread(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"begin")
	live := session(root)
	w.sessions.set(func(f *fakeSessions) { f.status.Session = &live })

	t.Run("a reply needs no mention", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(admin, general, root, "and then?")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		if turn := w.sessions.turn(ts); turn.Mention || turn.Thread.TS != root {
			t.Errorf("turn = %+v, want one of the thread", turn)
		}
	})
	t.Run("an aside is left alone", func(t *testing.T) {
		w := w.in(t)
		var asides []string
		for _, text := range []string{
			"!aside what a mess", "<@U0ADMIN> look at this", "<@W0ADMIN|ada> look at this", "<!subteam^S0DEVS|@devs> look at this", "<!subteam^S0DEVS> look at this",
			"<!here> lunch", "<!here|here> lunch", "<!channel> lunch", "<!everyone> lunch",
		} {
			asides = append(asides, w.say(member, general, root, text))
		}
		last := w.say(member, general, root, "<!date^1392734382^{date}|that day> is what <!here> means")
		w.until("the reply after them", func() bool { return w.sessions.turn(last) != nil })
		for _, ts := range asides {
			if w.sessions.turn(ts) != nil {
				t.Errorf("the aside %s became a turn", ts)
			}
		}
	})
	t.Run("an edit changes a waiting turn", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, root, "ad a test")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		w.api(member, "chat.update", url.Values{"channel": {general}, "ts": {ts}, "text": {"add a test"}})
		w.until("the edit", func() bool {
			return w.sessions.count(func(f *fakeSessions) int {
				return len(slices.DeleteFunc(slices.Clone(f.edits), func(s string) bool { return !strings.HasPrefix(s, "add a test@") }))
			}) > 0
		})
	})
	t.Run("a deleted message takes its turn back", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, root, "never mind")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		w.api(member, "chat.delete", url.Values{"channel": {general}, "ts": {ts}})
		w.until("the cancel", func() bool {
			return w.sessions.count(func(f *fakeSessions) int {
				return len(slices.DeleteFunc(slices.Clone(f.cancels), func(id sessions.TurnID) bool { return id != turnID(team, general, ts) }))
			}) == 1
		})
	})
	t.Run("a deleted first message, of which a tombstone stays, takes its turn back", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, "", mention+"never mind")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		w.say(admin, general, ts, "<@U0MEMBER> are you sure?")
		w.api(member, "chat.delete", url.Values{"channel": {general}, "ts": {ts}})
		w.until("the cancel", func() bool {
			return w.sessions.count(func(f *fakeSessions) int {
				return len(slices.DeleteFunc(slices.Clone(f.cancels), func(id sessions.TurnID) bool { return id != turnID(team, general, ts) }))
			}) == 1
		})
	})
	t.Run("an edit of what is at work or was answered is not silent, and offers to run it again", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, root, "count the tests")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		running := sessions.Turn{ID: turnID(team, general, ts), Kind: sessions.KindTurn}
		w.sessions.set(func(f *fakeSessions) { f.begun, f.status.Running = true, &running })
		defer w.sessions.set(func(f *fakeSessions) { f.begun, f.status.Running, f.status.Over = false, nil, false })
		w.api(member, "chat.update", url.Values{"channel": {general}, "ts": {ts}, "text": {"count the files"}})
		w.until("what it means", func() bool { return has(w.whispered(member, general, root), sayEditedRunning) })
		w.sessions.set(func(f *fakeSessions) { f.status.Over = true }) // its answer stands there, and it is not quite done
		w.api(member, "chat.update", url.Values{"channel": {general}, "ts": {ts}, "text": {"count the lines"}})
		offer := ""
		w.until("the offer", func() bool { offer = w.whisperWith(root, sayEditedDone); return offer != "" })
		w.local(member, "click", map[string]any{"channel": general, "ts": offer, "action_id": "retry"})
		w.until("another turn", func() bool {
			return w.sessions.count(func(f *fakeSessions) int {
				n := 0
				for _, turn := range f.accepted {
					if turn.TS == ts && turn.ID != running.ID && turn.Text == "count the lines" {
						n++
					}
				}
				return n
			}) == 1
		})
	})
	t.Run("❌ on a message, or on its live message, stops its turn; other marks and other people do not", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, root, "take your time")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		s, turn := turnOf(root, ts)
		live, err := w.bot.Begin(t.Context(), s, turn, false)
		if err != nil {
			t.Fatal(err)
		}
		w.sessions.set(func(f *fakeSessions) { f.cancels = nil })
		mark := func(token, name, ts string) {
			w.api(token, "reactions.add", url.Values{"channel": {general}, "timestamp": {ts}, "name": {name}})
		}
		mark(member, "eyes", ts)
		mark(guest, "x", ts)
		mark(admin, "x", ts)
		mark(member, "x", live)
		cancelled := func() []sessions.TurnID {
			w.sessions.mu.Lock()
			defer w.sessions.mu.Unlock()
			return slices.Clone(w.sessions.cancels)
		}
		w.until("both", func() bool { return len(cancelled()) >= 2 })
		w.settled(general)
		if got := cancelled(); !slices.Equal(got, []sessions.TurnID{turn.ID, turn.ID}) {
			t.Errorf("cancelled = %v, want %s by the admin and by the member", got, turn.ID)
		}
		w.until("the answer", func() bool { return has(w.whispered(admin, general, root), sayStopping) })
	})
	t.Run("Continue goes on after a turn that was stopped, once", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, root, "a long one model:haiku")
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		s, turn := turnOf(root, ts)
		out := outcome("as far as I came")
		out.Failure = runner.FailStopped
		if err := w.bot.Finish(t.Context(), s, turn, "", out, false); err != nil {
			t.Fatal(err)
		}
		answer := w.find(root, "Stopped. The conversation stays")
		for range 2 {
			w.local(admin, "click", map[string]any{"channel": general, "ts": answer, "action_id": "continue"})
		}
		w.until("both answers", func() bool {
			got := w.whispered(admin, general, root)
			return has(got, "Going on.", "That was asked for already.")
		})
		var went []sessions.Turn
		w.sessions.count(func(f *fakeSessions) int {
			for _, turn := range f.accepted {
				if turn.Text == goOn {
					went = append(went, turn)
				}
			}
			return 0
		})
		if len(went) != 1 || went[0].User != "U0ADMIN" || went[0].TS != ts || went[0].Mention || went[0].Overrides.Model != "haiku" {
			t.Errorf("turns = %+v, want one of the admin's for %s that begins no session, with the message's model", went, ts)
		}
	})
	t.Run("Send now stops what runs for the message that waits next, and for no other", func(t *testing.T) {
		w := w.in(t)
		running := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, User: "U0ADMIN", TS: root}
		w.sessions.set(func(f *fakeSessions) { f.status.Running, f.busy, f.cancels = &running, true, nil })
		defer w.sessions.set(func(f *fakeSessions) { f.status.Running, f.status.Queued, f.busy, f.cancels = nil, nil, false, nil })
		ts := w.say(member, general, root, "no, look at the other one")
		offer := ""
		w.until("the offer", func() bool { offer = w.whisperWith(root, `"action_id":"now"`); return offer != "" })
		press := func(want string) {
			t.Helper()
			w.local(member, "click", map[string]any{"channel": general, "ts": offer, "action_id": "now"})
			w.until("what came of it", func() bool { return has(w.whispered(member, general, root), want) })
		}
		mine := *w.sessions.turn(ts)
		w.sessions.set(func(f *fakeSessions) {
			f.status.Queued = []sessions.Turn{{ID: "another", Kind: sessions.KindTurn}, mine}
		})
		press(sayNotNext)
		w.sessions.set(func(f *fakeSessions) { f.status.Queued = nil })
		press(sayUnderway)
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.cancels) }); n != 0 {
			t.Errorf("%d turns were stopped", n)
		}
		w.sessions.set(func(f *fakeSessions) { f.status.Queued = []sessions.Turn{mine} })
		press(sayNow)
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.cancels) }); n != 1 || w.stopped(root) != 1 {
			t.Errorf("%d turns were stopped, want the one that runs", n)
		}
	})
	t.Run("a muted thread is left to people, but for mentions and words to the bot", func(t *testing.T) {
		w := w.in(t)
		w.say(member, general, root, "!mute")
		w.until("that it is", func() bool { return has(w.thread(general, root), sayMuted) })
		quiet := w.say(member, general, root, "what do you think, team?")
		asked := w.say(member, general, root, mention+"and you?")
		w.until("the mention", func() bool { return w.sessions.turn(asked) != nil })
		w.say(admin, general, root, "!unmute")
		w.until("that it is no more", func() bool { return has(w.thread(general, root), sayUnmuted) })
		loud := w.say(member, general, root, "go on then")
		w.until("the reply after that", func() bool { return w.sessions.turn(loud) != nil })
		if _, err := w.bot.Earlier(t.Context(), *w.sessions.turn(loud)); err != nil { // reads the thread again
			t.Fatal(err)
		}
		if w.sessions.turn(quiet) != nil {
			t.Error("what was said while it was muted became a turn")
		}
	})
	t.Run("a thread is muted from when that is said until it is taken back, in whatever order the words come", func(t *testing.T) {
		w := w.in(t)
		say := func(words ...string) (last string) { // reaches the bot in the reverse order
			t.Helper()
			told := strings.Count(w.thread(general, root), sayMuted) + strings.Count(w.thread(general, root), sayUnmuted)
			w.trouble(map[string]any{"hold": true})
			for _, word := range words {
				last = w.say(member, general, root, word)
			}
			w.trouble(map[string]any{"release": "reversed"})
			w.until("what the bot says to it", func() bool {
				return strings.Count(w.thread(general, root), sayMuted)+strings.Count(w.thread(general, root), sayUnmuted) > told
			})
			return last
		}
		say("!mute")
		before := w.sessions.count(func(f *fakeSessions) int { return len(f.accepted) })
		say("what would you do, team?", "!unmute")
		say("!mute")
		loud := say("!unmute", "then do it")
		w.until("the reply after it", func() bool { return w.sessions.turn(loud) != nil })
		w.settled(general)
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.accepted) }) - before; n != 2 {
			t.Errorf("%d turns, want the reply that was said when the thread was muted no more, and the one that settles it", n)
		}
	})
	t.Run("stop is a word, not a prompt", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) {
			f.status.Running = &sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, User: "U0MEMBER", Text: "x"}
		})
		ts := w.say(member, general, root, mention+"stop")
		w.until("the answer", func() bool { return has(w.thread(general, root), sayStopping) })
		prompt := w.say(member, general, root, mention+"stop the server")
		w.until("a turn", func() bool { return w.sessions.turn(prompt) != nil })
		if n := w.stopped(root); n != 1 || w.sessions.turn(ts) != nil {
			t.Errorf("stopped %d times, want once and no turn", n)
		}
		w.sessions.set(func(f *fakeSessions) { f.status.Running = nil })
	})
	t.Run("a word to stop is not lost when it could not be noted", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) {
			f.status.Running, f.cancels, f.forget = &sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, User: "U0MEMBER", Text: "x"}, nil, 1
		})
		defer w.sessions.set(func(f *fakeSessions) { f.status.Running = nil })
		ts := w.say(member, general, root, mention+"stop")
		note := `"turn":"` + string(turnID(team, general, ts)) + `"`
		w.until("a sentence", func() bool { return has(w.thread(general, root), sayStopping, note) })
		if n := w.stopped(root); n < 2 {
			t.Errorf("asked to stop %d times, want again when Slack sent it again", n)
		}
	})
	t.Run("a word to end that comes again leaves a session alone that began after it", func(t *testing.T) {
		w := newWorkspace(t, nil) // of its own: Slack may send the word once more
		root := w.say(member, general, "", mention+"begin")
		fresh := session(root)
		fresh.Since = sessions.TSOf(time.Now().Add(time.Minute))
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &fresh })
		w.say(member, general, root, "!end")
		last := w.say(member, general, root, mention+"go on with the fresh one") // in the same lane
		w.until("what was said after it", func() bool { return w.sessions.turn(last) != nil })
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.ends) }); n != 0 {
			t.Errorf("it ended %d sessions, want none", n)
		}
	})
	t.Run("a word to stop that comes late leaves the turn alone that was asked for after it", func(t *testing.T) {
		w := w.in(t)
		said := sessions.TSOf(time.Now())
		w.sessions.set(func(f *fakeSessions) {
			f.status.Running, f.cancels = &sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, User: "U0MEMBER", Text: "x", TS: sessions.TSOf(time.Now().Add(time.Second))}, nil
		})
		defer w.sessions.set(func(f *fakeSessions) { f.status.Running = nil })
		e := innerEvent{Type: "message", User: "U0MEMBER", Text: mention + "stop", Channel: general, TS: said, ThreadTS: root}
		if err := w.bot.take(t.Context(), outerEvent{TeamID: team, Event: e, again: true}); err != nil {
			t.Fatal(err)
		}
		if n := w.stopped(root); n != 0 {
			t.Errorf("asked to stop %d times, want never", n)
		}
	})
	t.Run("only its owner and admins end a session; unpushed work is named first", func(t *testing.T) {
		w := w.in(t)
		other := live
		other.Owner = "U0ADMIN"
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &other })
		w.say(member, general, root, mention+"end")
		w.until("a refusal", func() bool { return has(w.thread(general, root), sayNotYours("U0ADMIN")) })
		dirty := live
		dirty.State = []runner.RepoState{{Dir: "repo", Changed: 2, Unpushed: 1}}
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &dirty })
		w.say(member, general, root, mention+"end")
		w.until("a question", func() bool {
			return has(w.thread(general, root), "2 changed files, 1 unpushed commit", "End it anyway")
		})
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.ends) }); n != 0 {
			t.Fatalf("ended %d times before anybody was sure", n)
		}
		ts := w.find(root, "End it anyway")
		click := func() {
			w.local(member, "click", map[string]any{"channel": general, "ts": ts, "action_id": "end", "value": live.Thread.Key() + "|" + live.SessionID + "|sure"})
		}
		fresh := dirty
		fresh.SessionID = "6f0c1d2e-0000-4000-8000-000000000001"
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &fresh })
		click()
		w.until("the question of the session that there is", func() bool { return has(w.whispered(member, general, root), "2 changed files, 1 unpushed commit") })
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.ends) }); n != 0 {
			t.Fatalf("ended %d times by the button of another session", n)
		}
		waits := errandTurn(runner.Errand{Kind: runner.ErrandState}, "Look what is not pushed")
		waits.ID, waits.Thread, waits.Errand.Private, waits.Errand.View = errandID(live.Thread, "1.1"), live.Thread, true, "V0CLOSED"
		w.sessions.set(func(f *fakeSessions) { f.status.Session, f.status.Queued = &dirty, []sessions.Turn{waits} })
		defer w.sessions.set(func(f *fakeSessions) { f.status.Queued = nil })
		click()
		w.until("the end", func() bool { return w.sessions.count(func(f *fakeSessions) int { return len(f.ends) }) == 1 })
		w.until("who waits for an errand is told", func() bool {
			return has(w.whispered(member, general, root), "Look what is not pushed: there is no live session here any more")
		})
	})
	t.Run("files that are in no repository are work as well", func(t *testing.T) {
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", mention+"begin")
		s := session(root)
		s.Did.Files = []string{"report.txt"}
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
		w.say(member, general, root, "!end")
		w.until("a question", func() bool {
			return has(w.thread(general, root), "1 file in no repository: `report.txt`", "Files below an answer", "End it anyway")
		})
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.ends) }); n != 0 {
			t.Fatalf("ended %d times before anybody was sure", n)
		}
	})
	t.Run("a reply after the end is told so", func(t *testing.T) {
		w := w.in(t)
		over := live
		over.EndedAt = time.Now()
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &over })
		w.say(member, general, root, "are you there?")
		w.until("a whisper", func() bool { return has(w.whispered(member, general, root), sayEnded) })
	})
}

// stopped counts how often the turn of a message was to be stopped.
func (w *workspace) stopped(ts string) int {
	return w.sessions.count(func(f *fakeSessions) (n int) {
		for _, id := range f.cancels {
			if id == turnID(team, general, ts) {
				n++
			}
		}
		return n
	})
}

// whisperWith is the ts of a message that only the member sees in a thread, "" if there is none with that text.
func (w *workspace) whisperWith(root, text string) string {
	w.t.Helper()
	list, _ := w.local(member, "seen", map[string]any{"channel": general, "thread_ts": root})["ephemeral"].([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok && has(w.text(m), text) {
			return fmt.Sprint(m["ts"])
		}
	}
	return ""
}

// find is the ts of the message of a thread that holds a text.
func (w *workspace) find(root, text string) string {
	w.t.Helper()
	res := w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {root}})
	list, _ := res["messages"].([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok && has(w.text(m), text) {
			return fmt.Sprint(m["ts"])
		}
	}
	w.t.Fatalf("no message with %q", text)
	return ""
}

func TestCommands(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	type step struct {
		name, text string
		live       int
		want       []string
	}
	var all []sessions.Session
	for range 2 {
		all = append(all, session(w.say(member, general, "", "root")))
	}
	for len(all) < 60 { // more than an ack may list
		all = append(all, all[1])
	}
	there := "https://local.example/archives/" + payments + "/p1700000000000100"
	for _, s := range []step{
		{"help", "help", 0, []string{"Mention me in a channel"}},
		{"an unknown word gets help", "frobnicate", 0, []string{"Mention me in a channel"}},
		{"list without sessions", "list", 0, []string{sayNoneHere}},
		{"list", "list", 2, []string{"1. A session", "2. A session", "<@U0MEMBER> · 3 turns · $0.42 · last used <!date^"}},
		{"list of more than an ack may hold", "list", 60, []string{"20. A session", "… and 40 sessions that were used before these."}},
		{"list with a link is of its channel", "list https://local.example/archives/C0GENERAL/p1700000000000100", 1, []string{sayListOf(general), "1. A session", "Manage"}},
		{"list with a link to where nothing is", "list " + there, 0, []string{sayListOf(payments), sayNoneHere}},
		{"list with a link to where one is not", "list https://local.example/archives/C0SECRET/p1700000000000100", 0, []string{sayNotThere}},
		{"list of what is no link", "list everything", 1, []string{sayListWhat}},
		{"end without sessions", "end", 0, []string{sayNoSession}},
		{"end of the only one", "end", 1, []string{"Ending the session."}},
		{"end with two shows a picker", "end", 2, []string{"Which one?", `"action_id":"end"`}},
		{"end of a thread that is linked", "end https://local.example/archives/C0GENERAL/p" + strings.ReplaceAll(all[0].Thread.TS, ".", ""), 2, []string{"Ending the session."}},
		{"end of what is no link", "end tomorrow", 2, []string{"That is no link to a thread."}},
		{"stop with two", "stop", 2, []string{sayNothingRuns}},
		{"stop where nothing runs", "stop", 1, []string{sayNothingRuns}},
		{"status", "status", 1, []string{"3 turns, $0.42, machine `148e1` in fra", sayNothingRuns}},
		{"run without a prompt", "run", 0, []string{"Say what to run"}},
		{"run with a repository alone", "run repo:none model:opus", 0, []string{"Say what to run"}},
		{"run in a repository that may not be named", "run repo:evil/api count", 0, []string{sayNoNamedRepos}},
		{"run with a branch of nothing", "run branch:v2 count", 0, []string{sayBranchOf("v2")}},
		{"run", "run count the lines", 0, []string{"Running it. The answer comes in its thread."}},
	} {
		t.Run(s.name, func(t *testing.T) {
			w := w.in(t)
			w.sessions.set(func(f *fakeSessions) {
				f.live, f.status.Session = all[:s.live], nil
				if s.live > 0 {
					f.status.Session = &all[0]
				}
			})
			res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": s.text})
			got := w.text(res["response"])
			if !has(got, s.want...) {
				t.Errorf("/flaude %s = %v, want %q", s.text, res, s.want)
			}
			if len(got) > 20<<10 {
				t.Errorf("the answer has %d bytes: Slack ignores an ack of more than 20 KB", len(got))
			}
		})
	}
	t.Run("a run that cannot be stored leaves nothing in the channel", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) { f.fail = 1 })
		res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "run vanish"})
		if got := w.text(res); !has(got, sayTrouble) {
			t.Errorf("response = %s, want %q", got, sayTrouble)
		}
		if got := w.text(w.api(admin, "conversations.history", url.Values{"channel": {general}})); has(got, "runs once: vanish") {
			t.Error("its message stands in the channel")
		}
	})
	t.Run("a guest is refused", func(t *testing.T) {
		w := w.in(t)
		res := w.local(guest, "command", map[string]any{"channel": general, "command": "/flaude", "text": "list"})
		if got := w.text(res); !has(got, sayNotYou) {
			t.Errorf("response = %s, want %q", got, sayNotYou)
		}
	})
}

// TestMissed: what was said while nobody listened, and Slack has given up.
func TestMissed(t *testing.T) {
	t.Parallel()
	tillLately := func() map[string]sessions.Mark {
		return map[string]sessions.Mark{general: {Since: sessions.TSOf(time.Now().Add(-48 * time.Hour)), UpTo: sessions.TSOf(time.Now().Add(-3 * time.Minute))}}
	}
	t.Run("is taken in at the start: once, in order, the rest left alone", func(t *testing.T) {
		t.Parallel()
		var want []string
		var root string
		w := newWorkspaceAfter(t, nil, func(w *workspace) {
			root = w.say(member, general, "", "the plan") // a live session's
			live := session(root)
			w.sessions.live, w.sessions.status.Session = []sessions.Session{live}, &live
			w.sessions.marks = tillLately()
			w.say(member, general, "", "people talking")
			want = append(want, w.say(member, general, root, "a reply"))
			told := w.api(member, "chat.postMessage", url.Values{
				"channel": {general}, "thread_ts": {root}, "text": {mention + "one for the channel too"}, "reply_broadcast": {"true"},
			})
			want = append(want, fmt.Sprint(told["ts"]))
			w.say(member, general, root, "!aside not for you")
			begun := w.say(member, general, "", mention+"begin")
			want = append(want, begun, w.say(admin, general, begun, "and a reply to it"), w.say(member, general, root, "another reply"))
			w.say(guest, general, "", mention+"mine coins")
		})
		w.settled(general)
		var got []string
		w.sessions.count(func(f *fakeSessions) int {
			for _, turn := range f.accepted {
				got = append(got, turn.TS)
			}
			return 0
		})
		// Threads do not wait for each other.
		for name, of := range map[string][]string{"the live session's": {want[0], want[1], want[4]}, "the new": {want[2], want[3]}} {
			in := slices.DeleteFunc(slices.Clone(got), func(ts string) bool { return !slices.Contains(of, ts) })
			if !slices.Equal(in, of) {
				t.Errorf("turns of %s thread = %v, want %v", name, in, of)
			}
		}
		if len(got) != len(want)+1 {
			t.Errorf("turns = %v, want %v and a last one", got, want)
		}
		if turn := w.sessions.turn(want[1]); turn == nil || turn.Thread.TS != root {
			t.Errorf("the reply that was sent to the channel too = %+v, want it in its thread", turn)
		}
	})
	t.Run("is asked about when it is old, and done when it is wanted", func(t *testing.T) {
		t.Parallel()
		var root, known string
		w := newWorkspaceAfter(t, func(cfg *Config) { cfg.AskAfter = time.Nanosecond }, func(w *workspace) {
			w.sessions.marks = tillLately()
			root, known = w.say(member, general, "", mention+"water the plants"), w.say(member, general, "", mention+"done long ago")
			w.sessions.seen[turnID(team, general, known)] = true
		})
		w.until("the question", func() bool { return has(w.thread(general, root), sayLate) })
		if w.sessions.turn(root) != nil || has(w.thread(general, known), sayLate) {
			t.Error("it was run without asking, or asked about what was done")
		}
		asked := w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {root}})
		list, _ := asked["messages"].([]any)
		question, _ := list[len(list)-1].(map[string]any)
		w.local(member, "click", map[string]any{"channel": general, "ts": question["ts"], "action_id": "retry"})
		w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	})
	t.Run("is left to people in a thread that was muted, however long ago that was said", func(t *testing.T) {
		t.Parallel()
		var root, quiet, loud string
		w := newWorkspaceAfter(t, func(cfg *Config) { cfg.AskAfter = time.Nanosecond }, func(w *workspace) {
			root = w.say(member, general, "", "the plan")
			live := session(root)
			w.sessions.live, w.sessions.status.Session = []sessions.Session{live}, &live
			w.sessions.marks = tillLately()
			w.say(member, general, root, "!mute")
			quiet = w.say(member, general, root, "what do you think, team?")
			w.say(member, general, root, "!unmute")
			loud = w.say(member, general, root, "then do it")
		})
		asked := func(ts string) bool { return has(w.thread(general, root), string(turnID(team, general, ts))) }
		w.until("the question about what was said after it", func() bool { return asked(loud) })
		w.settled(general)
		if asked(quiet) || w.sessions.turn(quiet) != nil {
			t.Error("what was said while it was muted is asked about")
		}
	})
	t.Run("nothing is read of a channel that the bot was never in before", func(t *testing.T) {
		t.Parallel()
		var root string
		w := newWorkspaceAfter(t, nil, func(w *workspace) { root = w.say(member, general, "", mention+"long before your time") })
		w.settled(general)
		if w.sessions.turn(root) != nil {
			t.Error("it was run")
		}
		w.until("a mark for the next time", func() bool {
			return w.sessions.count(func(f *fakeSessions) int { return len(f.marks) }) > 0
		})
	})
	t.Run("is found again after Redis has lost everything: what has its answer is left alone", func(t *testing.T) {
		t.Parallel()
		var answered, half, begun, asked, never, before, after string
		w := newWorkspaceAfter(t, func(cfg *Config) { cfg.AskAfter = time.Nanosecond }, func(w *workspace) {
			w.sessions.marks = map[string]sessions.Mark{"": {Since: sessions.TSOf(time.Now().Add(-time.Hour)), UpTo: sessions.TSOf(time.Now().Add(-time.Hour))}}
			begin := func(text string) string { return w.say(member, general, "", mention+text) }
			tells := func(root, turn string, payload string) {
				w.api("xoxb-local", "chat.postMessage", url.Values{
					"channel": {general}, "thread_ts": {root}, "text": {"x"},
					"metadata": {fmt.Sprintf(`{"event_type":%q,"event_payload":{"session":"s","turn":%q,%s}}`, eventType, turn, payload)},
				})
			}
			of := func(ts string) string { return string(turnID(team, general, ts)) }
			answered, half, begun, asked, never = begin("answered"), begin("half answered"), begin("begun"), begin("asked about"), begin("never seen")
			tells(answered, of(answered), `"part":"1","last":false`)
			tells(answered, of(answered), `"part":"2","last":true,"turns":1,"cost_usd":0.25`)
			tells(half, of(half), `"part":"1","last":false`)
			tells(begun, of(begun), `"part":"live"`)
			tells(asked, of(asked), `"part":"note"`)
			root := begin("a session")
			tells(root, of(root), `"part":"1"`) // by an older version
			before = w.say(member, general, root, mention+"before its end")
			tells(root, "end:s", `"part":"1","last":true`)
			after = w.say(member, general, root, mention+"after its end")
		})
		w.settled(general)
		for ts, want := range map[string]bool{answered: false, half: true, begun: true, asked: false, before: false} {
			turn := w.sessions.turn(ts)
			if (turn != nil) != want {
				t.Errorf("%s: taken in = %v, want %v", w.thread(general, ts), turn != nil, want)
			}
			if turn != nil && !turn.Again {
				t.Errorf("turn %+v does not say that it may have been accepted before", turn)
			}
		}
		for _, ts := range []string{never, after} {
			if w.sessions.turn(ts) != nil {
				t.Errorf("%s was run without asking", ts)
			}
		}
		w.until("it is asked about", func() bool { return has(w.thread(general, never), sayLate) })
	})
	t.Run("in the thread of a session that was rebuilt comes before what is said next", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", "people talking")
		w.settled(general)
		lost := w.say(member, general, root, "a reply that Redis has lost") // to people, as far as the bot knows
		w.settled(general)
		rebuilt := session(root)
		rebuilt.Rebuilt = true
		w.sessions.set(func(f *fakeSessions) {
			f.status.Session = &rebuilt
			f.marks = map[string]sessions.Mark{"": {Since: sessions.TSOf(time.Now().Add(-time.Hour))}}
		})
		next := w.say(member, general, root, "and the next")
		w.until("both turns", func() bool { return w.sessions.turn(lost) != nil && w.sessions.turn(next) != nil })
		var order []string
		w.sessions.count(func(f *fakeSessions) int {
			for _, turn := range f.accepted {
				if turn.Thread.TS == root {
					order = append(order, turn.TS)
				}
			}
			return 0
		})
		if want := []string{lost, next}; !slices.Equal(order, want) {
			t.Errorf("turns = %v, want %v", order, want)
		}
	})
	t.Run("is looked for again from where a look that failed began, whatever was heard since", func(t *testing.T) {
		t.Parallel()
		was := tillLately()
		w := newWorkspaceAfter(t, nil, func(w *workspace) {
			w.sessions.marks = maps.Clone(was)
			w.fault(map[string]any{"method": "conversations.history", "body": `{"ok":false,"error":"fatal_error"}`})
		})
		mark := func() string {
			w.bot.writeMarks(t.Context())
			marks, _ := w.sessions.Marks(t.Context(), team)
			return marks[general].UpTo
		}
		heard := w.say(member, general, "", mention+"heard as usual")
		w.until("a turn", func() bool { return w.sessions.turn(heard) != nil })
		if got := mark(); got != was[general].UpTo {
			t.Errorf("the next look begins at %s, want %s", got, was[general].UpTo)
		}
		w.fault(map[string]any{})
		w.until("a look, and its mark", func() bool { return mark() >= heard })
	})
	t.Run("is taken in when the last socket was away", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.settled(general)
		// An event that was lost on its way: it is in the channel, and nobody was told.
		w.sessions.set(func(f *fakeSessions) { f.fail = 100 })
		ts := w.say(member, general, "", mention+"lost on its way")
		w.until("Slack has given up", func() bool { return w.sessions.count(func(f *fakeSessions) int { return f.fail }) <= 92 })
		w.sessions.set(func(f *fakeSessions) { f.fail = 0 })
		w.local(admin, "socket", map[string]any{})
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
	})
}

// asleep is a workspace whose bot is never sent again what it has not acked, and looks for nothing by itself: once its events are held, all that
// it takes in is what it is asked for.
func asleep(t *testing.T, change func(*Config)) *workspace {
	t.Helper()
	w := emptyWorkspace(t, slack.Config{AckTimeout: time.Hour})
	w.lookEvery = time.Hour
	w.bot, w.leave = w.replica(change)
	return w
}

// TestEarlier: what was said in a thread before a turn's message, and nobody has taken in, is taken in. What is known already, was answered or
// is at work, is left alone, and so is what is not for the bot.
func TestEarlier(t *testing.T) {
	t.Parallel()
	w := asleep(t, func(cfg *Config) { cfg.Pace = 1 })
	root := w.say(member, general, "", mention+"begin")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	s := session(root)
	w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
	at := func(ts string) sessions.Turn {
		return sessions.Turn{ID: turnID(team, general, ts), Kind: sessions.KindTurn, Thread: s.Thread, TS: ts}
	}
	if found, err := w.bot.Earlier(t.Context(), at(root)); err != nil || found {
		t.Errorf("Earlier = %v, %v before a thread's first message", found, err)
	}
	if err := w.bot.Finish(t.Context(), s, at(root), "", outcome("done"), false); err != nil {
		t.Fatal(err)
	}
	w.trouble(map[string]any{"hold": true}) // whoever has it sleeps
	working := w.say(member, general, root, "at work already")
	if _, err := w.bot.Begin(t.Context(), s, at(working), false); err != nil {
		t.Fatal(err)
	}
	w.say(member, general, root, "!aside not for you")
	second, third := w.say(member, general, root, "second"), w.say(admin, general, root, "third")
	last := w.say(member, general, root, "last")
	w.say(member, general, root, "said after it")
	accepted := func() (out []string) {
		w.sessions.count(func(f *fakeSessions) int {
			for _, turn := range f.accepted {
				out = append(out, turn.TS)
			}
			return 0
		})
		return out
	}
	if found, err := w.bot.Earlier(t.Context(), at(last)); err != nil || !found {
		t.Errorf("Earlier = %v, %v, want that there is something", found, err)
	}
	if got, want := accepted(), []string{root, second, third}; !slices.Equal(got, want) {
		t.Errorf("turns = %v, want %v", got, want)
	}
	if turn := w.sessions.turn(second); turn == nil || !turn.Again {
		t.Errorf("the second = %+v, want that it may have been accepted before", turn)
	}
	w.say(member, general, root, "one more")
	later := at(w.say(member, general, root, "and one more"))
	for calls := 1; ; calls++ {
		found, err := w.bot.Earlier(t.Context(), later)
		if err != nil {
			t.Fatalf("Earlier = %v", err)
		}
		if !found && calls > 1 { // above the rate it is left out
			break
		}
		if !found {
			t.Fatal("it does not look")
		}
		if calls == 200 {
			t.Fatal("it looks however often it has looked")
		}
	}
}

// TestEarlierBeforeSession: what people said before the mention that begins a session, among themselves or to one that had ended, is no turn of it.
// Another mention is.
func TestEarlierBeforeSession(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]bool{"where there was none": false, "after the end of another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := asleep(t, nil)
			root := w.say(admin, general, "", "shall we?")
			thread := sessions.Thread{Team: team, Channel: general, TS: root}
			if ended {
				over := session(root)
				over.EndedAt = time.Now()
				w.sessions.set(func(f *fakeSessions) { f.status.Session = &over })
			}
			w.say(member, general, root, "yes, do")
			w.say(admin, general, root, "thanks")
			w.settled(general)
			w.trouble(map[string]any{"hold": true}) // whoever has them sleeps
			other := w.say(admin, general, root, mention+"look at the parser")
			reply := w.say(member, general, root, "go on")
			begins := w.say(member, general, root, mention+"look at the lexer")
			turn := sessions.Turn{ID: turnID(team, general, begins), Kind: sessions.KindTurn, Thread: thread, TS: begins, Mention: true}
			w.sessions.set(func(f *fakeSessions) { f.status.Running, f.busy, f.seen[turn.ID] = &turn, true, true })
			if found, err := w.bot.Earlier(t.Context(), turn); err != nil || !found {
				t.Errorf("Earlier = %v, %v, want the other mention", found, err)
			}
			var got []string
			w.sessions.set(func(f *fakeSessions) {
				for _, t := range f.accepted {
					if t.Thread == thread {
						got = append(got, t.TS)
					}
				}
			})
			if want := []string{other, reply}; !slices.Equal(got, want) {
				t.Errorf("turns of %q, want %q", got, want)
			}
		})
	}
}

// TestRecall: a thread tells of a session what Redis has lost.
func TestRecall(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"go")
	s := session(root)
	at := func(ts string) sessions.Turn {
		return sessions.Turn{ID: turnID(team, general, ts), Kind: sessions.KindTurn, Thread: s.Thread, TS: ts}
	}
	recalled := func() sessions.Recalled {
		t.Helper()
		got, err := w.bot.Recall(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if _, err := w.bot.Begin(t.Context(), s, at(root), false); err != nil {
		t.Fatal(err)
	}
	if got := recalled(); got != (sessions.Recalled{}) {
		t.Errorf("Recall = %+v before the first answer, want nothing", got)
	}
	out := outcome(strings.Repeat("word ", 4000)) // of several messages
	out.Number, s.CostUSD = 1, 0.25
	if err := w.bot.Finish(t.Context(), s, at(root), "", out, false); err != nil {
		t.Fatal(err)
	}
	second := w.say(admin, general, root, "and")
	out = outcome("short")
	out.Number, s.CostUSD = 2, 0.5
	if err := w.bot.Finish(t.Context(), s, at(second), "", out, false); err != nil {
		t.Fatal(err)
	}
	want := sessions.Recalled{Owner: "U0MEMBER", About: "go", Turns: 2, LastID: at(second).ID, CostUSD: 0.5}
	if got := recalled(); got != want {
		t.Errorf("Recall = %+v, want %+v", got, want)
	}
	other := s
	other.SessionID = "5f0c1d2e-0000-4000-8000-000000000002"
	if got, err := w.bot.Recall(t.Context(), other); err != nil || got != (sessions.Recalled{}) {
		t.Errorf("Recall of another session = %+v, %v, want nothing", got, err)
	}
	end := sessions.Turn{ID: sessions.TurnID("end:" + s.SessionID), Kind: sessions.KindEnd, Thread: s.Thread}
	if err := w.bot.Finish(t.Context(), s, end, "", outcome(""), false); err != nil {
		t.Fatal(err)
	}
	if got := recalled(); time.Since(got.EndedAt) > time.Hour || got.Turns != 2 {
		t.Errorf("Recall = %+v, want that it has ended just now", got)
	}
	w.api(member, "chat.delete", url.Values{"channel": {general}, "ts": {root}})
	if _, err := w.bot.Recall(t.Context(), s); err != nil {
		t.Errorf("Recall of a thread whose root is gone = %v", err)
	}
}

// TestAddressedLate: an edit that adds the mention to an old message begins nothing: the talk has gone on since.
func TestAddressedLate(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, func(c *Config) { c.AskAfter = time.Nanosecond })
	ts := w.say(member, general, "", "count the lines")
	w.api(member, "chat.update", url.Values{"channel": {general}, "ts": {ts}, "text": {mention + "count the lines"}})
	w.settled(general)
	if w.sessions.turn(ts) != nil {
		t.Error("it became a turn")
	}
}

// TestLeave: a click that came is acted on though the bot is told to leave: Slack sends it once.
func TestLeave(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"go")
	turn := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, Thread: sessions.Thread{Team: team, Channel: general, TS: root}, TS: root}
	live, err := w.bot.Begin(t.Context(), session(root), turn, false)
	if err != nil {
		t.Fatal(err)
	}
	w.sessions.asked, w.sessions.answer = make(chan struct{}, 1), make(chan struct{})
	w.local(member, "click", map[string]any{"channel": general, "ts": live, "action_id": "stop"})
	<-w.sessions.asked
	w.leave()
	close(w.sessions.answer)
	w.bot.Close()
	if n := w.sessions.count(func(f *fakeSessions) int { return len(f.cancels) }); n != 1 {
		t.Errorf("%d turns were stopped, want the one that was clicked", n)
	}
	if !has(w.whispered(member, general, root), sayStopping) {
		t.Error("whoever clicked was not told")
	}
}

func TestFront(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	ctx := t.Context()
	begin := func(w *workspace) (sessions.Session, sessions.Turn) {
		root := w.say(member, general, "", mention+"go")
		return session(root), sessions.Turn{
			ID: turnID(team, general, root), Kind: sessions.KindTurn, Thread: sessions.Thread{Team: team, Channel: general, TS: root}, TS: root, User: "U0MEMBER", Text: "go",
		}
	}

	t.Run("a turn that is taken over is begun and answered once", func(t *testing.T) {
		w := w.in(t)
		s, turn := begin(w)
		first, err := w.bot.Begin(ctx, s, turn, false)
		if err != nil || first == "" {
			t.Fatalf("Begin = %q, %v", first, err)
		}
		if again, err := w.bot.Begin(ctx, s, turn, true); err != nil || again != first {
			t.Errorf("Begin after a takeover = %q, %v; want the message that is there", again, err)
		}
		for _, look := range []bool{false, true} {
			if err := w.bot.Finish(ctx, s, turn, first, outcome("forty-two"), look); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(w.thread(general, turn.TS), `"part":"1"`); n != 1 {
			t.Errorf("the answer stands there %d times, want once", n)
		}
	})
	t.Run("a long answer goes as a file, once", func(t *testing.T) {
		w := w.in(t)
		s, turn := begin(w)
		long := strings.Repeat("a paragraph\n\n", 8000)
		for _, look := range []bool{false, true} {
			if err := w.bot.Finish(ctx, s, turn, "", outcome(long), look); err != nil {
				t.Fatal(err)
			}
		}
		got := w.thread(general, turn.TS)
		if n := strings.Count(got, `"name":"answer-1.md"`); n != 1 || !has(got, "The whole answer is in the file answer-1.md.") {
			t.Errorf("the file stands there %d times, want once and named", n)
		}
	})
	t.Run("the live message shows the newest progress, and nothing after its end", func(t *testing.T) {
		w := w.in(t)
		s, turn := begin(w)
		ts, err := w.bot.Begin(ctx, s, turn, false)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			w.bot.Progress(ctx, s, turn, ts, sessions.Progress{Step: sessions.StepRunning, Since: time.Now(), Tool: "Bash", On: fmt.Sprint("command ", i)})
		}
		w.until("the newest", func() bool { return has(w.thread(general, turn.TS), "command 49") })
		if err := w.bot.Finish(ctx, s, turn, ts, outcome("done it"), false); err != nil {
			t.Fatal(err)
		}
		if got := w.thread(general, turn.TS); has(got, "command 49") || !has(got, "*Done*") {
			t.Errorf("thread = %s, want the live message settled", got)
		}
		w.bot.mu.Lock()
		defer w.bot.mu.Unlock()
		if len(w.bot.lives) != 0 {
			t.Errorf("%d live messages are still edited", len(w.bot.lives))
		}
	})
	t.Run("a thread whose first message is gone takes no answer, and that is no error", func(t *testing.T) {
		w := w.in(t)
		s, turn := begin(w)
		w.api(member, "chat.delete", url.Values{"channel": {general}, "ts": {turn.TS}})
		if err := w.bot.Finish(ctx, s, turn, "", outcome("to nobody"), false); err != nil {
			t.Errorf("Finish = %v", err)
		}
		if got := w.text(w.api(admin, "conversations.history", url.Values{"channel": {general}})); has(got, "to nobody") {
			t.Error("the answer stands in the channel")
		}
	})
}

// outcome is a good one.
func outcome(answer string) sessions.Outcome {
	at := time.Now()
	return sessions.Outcome{Outcome: runner.Outcome{StartedAt: at.Add(-2 * time.Second), EndedAt: at}, Answer: answer, Number: 1}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	for n, ok := range map[int]bool{0: true, 9: true, 10: true, 11: false, 5000: false} {
		r := &bounded{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", n))), left: 10}
		got, err := io.ReadAll(r)
		if (err == nil) != ok || (ok && len(got) != n) {
			t.Errorf("%d bytes of at most 10 = %d, %v; want ok %t", n, len(got), err, ok)
		}
	}
}

func TestSafeName(t *testing.T) {
	t.Parallel()
	taken := map[string]bool{}
	for _, c := range []struct{ in, want string }{
		{"notes.txt", "notes.txt"},
		{"notes.txt", "2-notes.txt"},
		{"../../etc/passwd", "etc_passwd"},
		{".bashrc", "bashrc"},
		{"-rf", "rf"},
		{"", "file"},
		{"日本.png", "日本.png"},
		{"отчёт за май.pdf", "отчёт_за_май.pdf"},
		{"Cafe\u0301.txt", "Cafe\u0301.txt"},
		{"हिन्दी.txt", "हिन्दी.txt"},
		{"🦀.png", "file.png"},
		{"🦀🦀.png", "2-file.png"},
		{"\u202egnp.exe", "gnp.exe"},
		{"\u0301x\xff.txt", "x_.txt"},
		{strings.Repeat("界", 40) + ".png", strings.Repeat("界", 25) + ".png"},
		{"a b\x00c", "a_b_c"},
		{strings.Repeat("x", 90) + ".go", strings.Repeat("x", 77) + ".go"},
	} {
		if got := safeName(c.in, taken); got != c.want {
			t.Errorf("safeName(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}
