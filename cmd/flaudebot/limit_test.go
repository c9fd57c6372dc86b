package main

import (
	"slices"
	"strings"
	"testing"
)

// TestLimitResets: when Claude's usage limit is reached the threads concerned say until when they wait, and go on by themselves.
func TestLimitResets(t *testing.T) {
	t.Parallel()
	limitResets(t, splitWorld(t))
}

// TestRealClaudeLimit is the same with the real Claude Code.
func TestRealClaudeLimit(t *testing.T) {
	t.Parallel()
	realClaude(t)
	limitResets(t, splitWorld(t, "--agent", "cli"))
}

func limitResets(t *testing.T, w *split) {
	t.Helper()
	subscription := slices.DeleteFunc(slices.Clone(w.env), func(e string) bool { return strings.HasPrefix(e, "ANTHROPIC_API_KEY=") })
	start(t, append(subscription, "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-local"), "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"be limited for 12 seconds, after echo done >> did")
	waits := func(root string) bool {
		return slices.ContainsFunc(w.thread(general, root), func(m message) bool {
			return hasAll(m.Text, "Claude's usage limit is reached: this goes on by itself when it resets: <!date^")
		})
	}
	w.until("it waits for the limit", func() bool { return waits(root) })
	next := w.say(member, general, root, "run: wc -l < did")
	other := w.say(member, general, "", mention+"remember the number 42")
	w.until("another thread waits for it as well", func() bool { return waits(other) })
	if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "The limit has reset.") {
		t.Errorf("answer = %q (exit %s)", text, code)
	}
	if text, code := w.answer(general, root, next); code != "0" || !strings.Contains(text, "2") { // the script does it again, as it was told to go on
		t.Errorf("answer = %q (exit %s), want that the turn before ran first", text, code)
	}
	if text, code := w.answer(general, other, other); code != "0" || !strings.Contains(text, "42") {
		t.Errorf("answer = %q (exit %s)", text, code)
	}
	for ts, thread := range map[string]string{root: root, next: root, other: other} {
		if n := w.answers(general, thread, ts); n != 1 {
			t.Errorf("message %s was answered %d times", ts, n)
		}
	}
}
