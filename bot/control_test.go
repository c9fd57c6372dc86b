package bot

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// TestControlWords: a word that steers the bot is matched whole, however people write it, and nothing else is taken for one.
func TestControlWords(t *testing.T) {
	t.Parallel()
	b := &Bot{self: "U0FLAUDE", mention: mentionOf("U0FLAUDE")}
	const me = "<@U0FLAUDE>"
	for _, c := range []struct {
		text, want string
		plain      bool
	}{
		{"!stop", "stop", true},
		{"!STOP", "stop", true},
		{" ! Stop. ", "stop", true},
		{"`!stop`", "stop", true},
		{"*!end*", "end", true},
		{"“!mute”", "mute", true},
		{"!unmute!", "unmute", true},
		{me + " stop", "stop", true},
		{me + " Stop!", "stop", true},
		{me + ": stop.", "stop", true},
		{me + ", end", "end", true},
		{"stop " + me, "stop", true},
		{me + " help?", "help", true},
		{me + " status …", "status", true},
		{me + " settings", "settings", true},
		{"stop", "stop", false}, // whoever writes it means what runs
		{"Stop!", "stop", false},
		{"STOP.", "stop", false},
		{"end", "", false}, // may be an answer to Claude
		{"help", "", false},
		{"mute", "", false},
		{"stop the server", "", false},
		{me + " stop the server", "", false},
		{"!stop the server", "", false},
		{me + " end?", "", false},
		{me + " please stop", "", false},
		{me + " stopp", "", false},
		{me + " help me", "", false},
		{me + " list the files", "", false},
		{"stop?", "", false},
		{me, "", false},
		{"!", "", false},
	} {
		in := b.read(team, innerEvent{Text: c.text, Channel: general, ThreadTS: "1.0", TS: "2.0"})
		if word, plain := steering(in); word != c.want || plain != c.plain {
			t.Errorf("%q = %q, %v, want %q, %v", c.text, word, plain, c.want, c.plain)
		}
	}
	for text, want := range map[string]string{"help": "help", "Status?": "status", "end.": "end", "stop the world": ""} {
		if got := controlWord(b.read(team, innerEvent{Text: text, Channel: direct, TS: "1.0"})); got != want {
			t.Errorf("%q in a direct message = %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"!aside x": true, "!Aside: x": true, "`!aside` x": true, "<@U0ADMIN> x": true, "aside x": false, "what is !aside": false, "x <@U0ADMIN>": false,
	} {
		if got := isAside(text); got != want {
			t.Errorf("%q is an aside = %v, want %v", text, got, want)
		}
	}
}

// TestSteering: words to the bot are obeyed before the queue, also when a message becomes one by an edit, and never are a prompt.
func TestSteering(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"begin")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	live := session(root)
	running := sessions.Turn{ID: turnID(team, general, root), Kind: sessions.KindTurn, User: "U0MEMBER", TS: root}
	w.sessions.set(func(f *fakeSessions) { f.status.Session, f.status.Running = &live, &running })
	edit := func(ts, text string) {
		w.api(member, "chat.update", url.Values{"channel": {general}, "ts": {ts}, "text": {text}})
	}
	cancelled := func(id sessions.TurnID) bool {
		return w.sessions.count(func(f *fakeSessions) int { return strings.Count(strings.Join(idsOf(f.cancels), " "), string(id)) }) > 0
	}
	waiting := func(text string) (ts string) {
		ts = w.say(member, general, root, text)
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		w.sessions.set(func(f *fakeSessions) { f.status.Queued, f.cancels = []sessions.Turn{*turnIn(f, ts)}, nil })
		return ts
	}

	t.Run("stop alone stops what runs, unless the thread is muted", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(admin, general, root, "Stop!")
		w.until("it is stopped", func() bool { return w.stopped(root) == 1 })
		w.until("a sentence", func() bool {
			return has(w.thread(general, root), sayStopping, `"turn":"`+string(turnID(team, general, ts))+`"`)
		})
		w.sessions.set(func(f *fakeSessions) {
			f.muted, f.cancels = map[sessions.Thread]map[string]bool{live.Thread: {"1": true}}, nil
		})
		w.say(admin, general, root, "stop")
		w.say(admin, general, root, "!stop")
		w.until("it is stopped", func() bool { return w.stopped(root) == 1 })
		w.settled(general)
		w.sessions.set(func(f *fakeSessions) { f.muted = nil })
		if n := w.stopped(root); n != 1 || w.sessions.turn(ts) != nil {
			t.Errorf("stopped %d times, want once, by the word that is for the bot for sure", n)
		}
	})
	t.Run("stop stops an errand as well, unless that was asked for since", func(t *testing.T) {
		w := w.in(t)
		errand := errandTurn(runner.Errand{Kind: runner.ErrandState}, "Look")
		errand.ID, errand.TS, errand.At = errandID(live.Thread, "7.1"), "errand-7.1", time.Now().Add(-time.Minute)
		w.sessions.set(func(f *fakeSessions) { f.status.Running, f.cancels = &errand, nil })
		defer w.sessions.set(func(f *fakeSessions) { f.status.Running, f.cancels = &running, nil })
		w.say(member, general, root, "!stop")
		w.until("it is stopped", func() bool { return cancelled(errand.ID) })
		if errand.At = time.Now(); !askedSince(errand, sessions.TSOf(time.Now().Add(-time.Minute))) {
			t.Error("a word of a minute ago is about an errand of now")
		}
	})
	t.Run("a mention that is marked as an aside is none", func(t *testing.T) {
		w := w.in(t)
		ts := w.say(member, general, root, mention+"!aside it does well")
		w.settled(general)
		if w.sessions.turn(ts) != nil {
			t.Error("it became a turn")
		}
	})
	t.Run("an edit that makes of a waiting message an aside, or a word to the bot, takes it back", func(t *testing.T) {
		w := w.in(t)
		ts := waiting("and then the docs")
		edit(ts, "!aside and then the docs")
		w.until("it is taken back", func() bool { return cancelled(turnID(team, general, ts)) })
		w.until("its author is told", func() bool { return has(w.whispered(member, general, root), sayTakenBack) })
		ts = waiting("soon")
		edit(ts, "!stop")
		w.until("it is taken back, and obeyed", func() bool { return cancelled(turnID(team, general, ts)) && w.stopped(root) == 1 })
		w.settled(general)
		if n := w.sessions.count(func(f *fakeSessions) int { return len(f.edits) }); n != 0 {
			t.Errorf("the turn was changed %d times: it would have been a prompt", n)
		}
	})
	t.Run("an edit of what people said is theirs", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) { f.status, f.cancels = sessions.Status{}, nil })
		defer w.sessions.set(func(f *fakeSessions) { f.status.Session, f.status.Running = &live, &running })
		other := w.say(member, general, "", "people talking")
		ts := w.say(member, general, other, "hm")
		edit(ts, "stop")
		w.settled(general)
		if got := w.thread(general, other); has(got, sayNothingRuns) {
			t.Errorf("thread = %s", got)
		}
	})
	t.Run("status comes with what can be done about it", func(t *testing.T) {
		w := w.in(t)
		w.say(member, general, root, mention+"status?")
		offer := ""
		w.until("the buttons", func() bool { offer = w.whisperWith(root, `"action_id":"stop"`); return offer != "" })
		n := w.sessions.count(func(f *fakeSessions) int { return len(f.stops) })
		w.local(member, "click", map[string]any{"channel": general, "ts": offer, "action_id": "stop"})
		w.until("it is stopped", func() bool { return w.sessions.count(func(f *fakeSessions) int { return len(f.stops) }) > n })
	})
	t.Run("who waits behind several is told when only one is left", func(t *testing.T) {
		w := w.in(t)
		w.sessions.set(func(f *fakeSessions) {
			f.busy, f.status.Queued = true, []sessions.Turn{{ID: "another", Kind: sessions.KindTurn}}
		})
		defer w.sessions.set(func(f *fakeSessions) { f.busy, f.status.Queued = false, nil })
		ts := w.say(member, general, root, "third in line")
		w.until("the place", func() bool { return has(w.whispered(member, general, root), sayPlace(2)) })
		mine := *w.sessions.turn(ts)
		w.sessions.set(func(f *fakeSessions) { f.status.Queued = []sessions.Turn{mine} })
		s, next := turnOf(root, root)
		for range 2 {
			if _, err := w.bot.Begin(t.Context(), s, next, false); err != nil {
				t.Fatal(err)
			}
		}
		w.until("that it is next", func() bool { return has(w.whispered(member, general, root), sayNext(mine), "Send now") })
		soon := w.say(member, general, root, "first in line")
		w.until("the place", func() bool { return w.sessions.turn(soon) != nil })
		w.leave()
		w.bot.Close()
		if n := strings.Count(w.whispered(member, general, root), `"text":"`+sayNext(mine)); n != 2 { // the message and its block
			t.Errorf("told %d times, want once", n)
		}
	})
}

// TestNativeStop: Slack's own Stop stops the turn; where none runs any more its status is put right.
func TestNativeStop(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"begin")
	status := func() string {
		return w.text(w.local(member, "seen", map[string]any{"channel": general, "thread_ts": root})["status"])
	}
	s, turn := turnOf(root, root)
	if _, err := w.bot.Begin(t.Context(), s, turn, false); err != nil {
		t.Fatal(err)
	}
	w.until("it is shown as running", func() bool { return has(status(), "processing") })
	w.sessions.set(func(f *fakeSessions) { f.status.Running = &turn })
	w.local(member, "stop", map[string]any{"channel": general, "thread_ts": root})
	w.until("it is stopped", func() bool {
		return w.sessions.count(func(f *fakeSessions) int { return len(f.stops) }) == 1
	})
	if !has(status(), "processing") {
		t.Error("it is shown as ready before it has stopped")
	}
	w.sessions.set(func(f *fakeSessions) { f.status.Running = nil })
	w.local(member, "stop", map[string]any{"channel": general, "thread_ts": root})
	w.until("it is shown as ready", func() bool { return has(status(), "active") })
}

// TestHeardFirst: that a message was taken in shows before the marks of turns that ended, where Slack's limits make them wait.
func TestHeardFirst(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, func(cfg *Config) { cfg.Pace = 1 })
	const many = 20 // takes a quarter of a minute
	var marks sync.WaitGroup
	var marked atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	defer marks.Wait()
	defer cancel()
	for range many {
		ts := w.say(admin, general, "", "said long ago")
		marks.Go(func() {
			w.bot.react(ctx, sessions.Turn{Thread: sessions.Thread{Channel: general}, TS: ts}, "white_check_mark")
			if ctx.Err() == nil {
				marked.Add(1)
			}
		})
	}
	w.until("none may be made at once", func() bool { return !w.bot.out.pace("reactions.add", "").take(leisurely) })
	ts := w.say(member, general, "", mention+"are you there?")
	w.until("it is heard", func() bool { return has(w.thread(general, ts), `"eyes"`) })
	if n := marked.Load(); n == many {
		t.Errorf("all %d marks came before it", n)
	}
}

func idsOf(all []sessions.TurnID) (out []string) {
	for _, id := range all {
		out = append(out, string(id))
	}
	return out
}

// turnIn is the turn of a message, for who holds f.mu.
func turnIn(f *fakeSessions, ts string) *sessions.Turn {
	i := slices.IndexFunc(f.accepted, func(t sessions.Turn) bool { return t.TS == ts })
	return &f.accepted[i]
}
