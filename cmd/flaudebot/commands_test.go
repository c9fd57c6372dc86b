package main

import (
	"net/url"
	"strings"
	"testing"
)

// typed types a slash command into a channel and returns the answer to it.
func (w *slackWorld) typed(token, channel, text string) string {
	w.t.Helper()
	res := w.local(token, "command", map[string]any{"channel": channel, "command": "/flaude", "text": text})
	if res["ok"] != true {
		w.t.Fatalf("/flaude %s = %v", text, res)
	}
	shown, _ := res["response"].(map[string]any)
	said, _ := shown["text"].(string)
	return said
}

// linkTo is what “Copy link” gives for a message.
func linkTo(channel, ts string) string {
	return "https://local/archives/" + channel + "/p" + strings.ReplaceAll(ts, ".", "")
}

// rowWith is the block of a message that says something.
func rowWith(t *testing.T, message map[string]any, text string) map[string]any {
	t.Helper()
	for _, block := range items(message["blocks"]) {
		if has(t, block, text) {
			return block
		}
	}
	t.Fatalf("no row of %v says %q", message, text)
	return nil
}

// TestSlashCommands: what is typed into a channel runs a prompt that leaves nothing behind, and tells of and stops the turn of a thread.
func TestSlashCommands(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, w.env, "serve")
	general := w.channel("general")
	left := func() int {
		return len(flyList(t, "http://"+w.fly, "test-app", "machines")) + len(flyList(t, "http://"+w.fly, "test-app", "volumes"))
	}

	t.Run("run posts its prompt, answers in its thread and leaves nothing", func(t *testing.T) {
		if said := w.typed(member, general, "run run: echo hello"); !strings.Contains(said, "Running it. The answer comes in its thread.") {
			t.Errorf("/flaude run = %q", said)
		}
		root := ""
		for _, m := range items(w.api(member, "conversations.history", url.Values{"channel": {general}})["messages"]) {
			if text, _ := m["text"].(string); strings.HasSuffix(text, "> runs once: run: echo hello") {
				root, _ = m["ts"].(string)
			}
		}
		if root == "" {
			t.Fatal("its prompt does not stand in the channel")
		}
		if text, code := w.answer(general, root, "cmd-"+root); code != "0" || !strings.Contains(text, "hello") {
			t.Errorf("answer = %q (exit %s), want hello", text, code)
		}
		w.until("nothing is left on Fly", func() bool { return left() == 0 })
		w.until("no session is left to tell of", func() bool { // the answer comes a moment before the turn is over
			return w.typed(member, general, "status "+linkTo(general, root)) == "There is no live session here."
		})
	})

	t.Run("list with a link is of its channel", func(t *testing.T) {
		root, payments := w.say(member, general, "", mention+"run: echo listed"), w.channel("payments")
		w.answer(general, root, root)
		if said := w.typed(admin, payments, "list "+linkTo(general, root)); !strings.HasPrefix(said, "In <#"+general+">:\n1. “run: echo listed”") {
			t.Errorf("/flaude list = %q, want the session of the other channel", said)
		}
		if said := w.typed(admin, payments, "list all"); !strings.HasPrefix(said, "`/flaude list` shows") {
			t.Errorf("/flaude list all = %q, want what it takes", said)
		}
	})

	t.Run("end without a link asks which, and the shortcut ends the other", func(t *testing.T) {
		lab := w.channel("payments")
		ended := func(what, root string) {
			t.Helper()
			w.until(what, func() bool {
				return w.typed(admin, lab, "status "+linkTo(lab, root)) == "There is no live session here."
			})
		}
		begin := func(what string) (root string) {
			root = w.say(admin, lab, "", mention+"run: echo "+what)
			w.answer(lab, root, root)
			return root
		}
		one, other := begin("the one"), begin("the other")
		if said := w.typed(admin, lab, "end"); !strings.HasPrefix(said, "Which one?") {
			t.Fatalf("/flaude end = %q, want to be asked which", said)
		}
		shown := w.local(admin, "seen", map[string]any{"channel": lab})
		whispers := items(shown["ephemeral"])
		picker := whispers[len(whispers)-1]
		press, _ := rowWith(t, picker, "echo the one")["accessory"].(map[string]any)
		if res := w.local(admin, "click", map[string]any{"channel": lab, "ts": picker["ts"], "action_id": press["action_id"], "value": press["value"]}); res["ok"] != true {
			t.Fatalf("End = %v", res)
		}
		ended("the one that was picked ends", one)
		if said := w.typed(admin, lab, "status "+linkTo(lab, other)); !strings.Contains(said, "echo the other") {
			t.Errorf("/flaude status = %q, want the other session to go on", said)
		}
		if res := w.local(admin, "shortcut", map[string]any{"callback_id": "manage_session", "channel": lab, "ts": other}); res["ok"] != true {
			t.Fatalf("the shortcut = %v", res)
		}
		view := map[string]any{}
		w.until("its modal", func() bool {
			for _, v := range items(w.local(admin, "seen", map[string]any{"channel": lab})["views"]) {
				view = v
			}
			return has(t, view, "echo the other")
		})
		if res := w.local(admin, "click", map[string]any{"view_id": view["id"], "action_id": "end"}); res["ok"] != true {
			t.Fatalf("End session = %v", res)
		}
		ended("the other ends", other)
		w.until("none is left", func() bool { return w.typed(admin, lab, "end") == "There is no live session here." })
	})

	t.Run("status and stop with a link are about its thread", func(t *testing.T) {
		begin := func(seconds string) (root string) {
			root = w.say(member, general, "", mention+"take "+seconds+" seconds")
			w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "sleep "+seconds) })
			return root
		}
		root, other := begin("60"), begin("61")
		if said := w.typed(member, general, "status "+linkTo(general, root)); !strings.Contains(said, "Running: “take 60 seconds” by <@U0MEMBER>") {
			t.Errorf("/flaude status = %q, want the turn that runs", said)
		}
		if said := w.typed(member, general, "stop "+linkTo(general, root)); !strings.HasPrefix(said, "Stopping.") {
			t.Errorf("/flaude stop = %q", said)
		}
		if text, code := w.answer(general, root, root); code != "130" || !strings.Contains(text, "Stopped") {
			t.Errorf("answer = %q (exit %s), want it stopped with 130", text, code)
		}
		w.until("a stop finds nothing more to stop", func() bool {
			return w.typed(member, general, "stop "+linkTo(general, root)) == "Nothing is running here."
		})
		if n := w.answers(general, other, other); n != 0 {
			t.Errorf("the other thread has %d answers, want its turn left alone", n)
		}
		if said := w.typed(member, general, "status "+linkTo(general, other)); !strings.Contains(said, "Running: “take 61 seconds”") {
			t.Errorf("/flaude status of the other thread = %q, want its turn left alone", said)
		}
		w.typed(member, general, "stop "+linkTo(general, other))
		if _, code := w.answer(general, other, other); code != "130" {
			t.Errorf("the other thread's turn ended with %s, want 130", code)
		}
		next := w.say(member, general, root, "run: echo goes on")
		if text, code := w.answer(general, root, next); code != "0" || !strings.Contains(text, "goes on") {
			t.Errorf("answer = %q (exit %s), want the conversation to go on", text, code)
		}
	})
}
