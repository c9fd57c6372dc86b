package main

import (
	"net/url"
	"strings"
	"testing"
)

// TestControl: people change their minds about messages that wait, run and have failed, and leave a thread to themselves.
func TestControl(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, w.env, "serve")
	general := w.channel("general")
	const long = "take 300 seconds"
	runs := func(root, ts string) { w.said(general, root, ts, "sleep 300") }
	call := func(t *testing.T, token, method string, form url.Values) {
		t.Helper()
		form.Set("channel", general)
		if res := w.api(token, method, form); res["ok"] != true {
			t.Fatalf("%s = %v", method, res)
		}
	}
	heard := func(ts string) { // events of a thread are taken in one after the other
		w.until("a message is taken in", func() bool {
			reactions := w.api(admin, "reactions.get", url.Values{"channel": {general}, "timestamp": {ts}, "full": {"true"}})
			return has(t, reactions, `"eyes"`)
		})
	}
	stopped := func(t *testing.T, root, ts string) {
		t.Helper()
		if text, code := w.answer(general, root, ts); code != "130" || !strings.Contains(text, "Stopped. The conversation stays") {
			t.Errorf("answer = %q (exit %s), want one that says that it was stopped", text, code)
		}
	}

	root := w.say(member, general, "", mention+long)
	runs(root, root)
	edited := w.say(member, general, root, "run: echo as it was | tee -a said")
	deleted := w.say(member, general, root, "run: echo never | tee -a said")
	heard(edited)
	heard(deleted)
	call(t, member, "chat.update", url.Values{"ts": {edited}, "text": {"run: echo as it reads now | tee -a said"}})
	call(t, member, "chat.delete", url.Values{"ts": {deleted}})
	last := w.say(member, general, root, "run: cat said")
	heard(last)
	t.Run("a ❌ on the running message stops it", func(t *testing.T) {
		call(t, member, "reactions.add", url.Values{"timestamp": {root}, "name": {"x"}})
		stopped(t, root, root)
	})
	t.Run("an edited message that waited runs as it reads then", func(t *testing.T) {
		if text, code := w.answer(general, root, edited); code != "0" || !strings.Contains(text, "as it reads now") || strings.Contains(text, "as it was") {
			t.Errorf("answer = %q (exit %s), want that of its new words", text, code)
		}
	})
	t.Run("a deleted message that waited never runs", func(t *testing.T) {
		text, code := w.answer(general, root, last)
		if code != "0" || !strings.Contains(text, "as it reads now") || strings.Contains(text, "as it was") || strings.Contains(text, "never") {
			t.Errorf("answer = %q (exit %s), want what the edited message wrote alone", text, code)
		}
		if n := w.answers(general, root, deleted); n != 0 {
			t.Errorf("it has %d answers", n)
		}
	})
	t.Run("deleting the message that runs stops it", func(t *testing.T) {
		ts := w.say(member, general, root, long)
		runs(root, ts)
		call(t, member, "chat.delete", url.Values{"ts": {ts}})
		stopped(t, root, ts)
	})
	t.Run("deleting a thread's first message, of which a tombstone stays, stops it", func(t *testing.T) {
		first := w.say(member, general, "", mention+long)
		runs(first, first)
		call(t, member, "chat.delete", url.Values{"ts": {first}})
		w.said(general, first, first, "Stopped")
		w.until("nothing runs in its thread", func() bool {
			return w.typed(member, general, "stop "+linkTo(general, first)) == "Nothing is running here."
		})
	})
	t.Run("Slack's own Stop stops what runs", func(t *testing.T) {
		ts := w.say(member, general, root, long)
		runs(root, ts)
		w.until("Slack offers it", func() bool {
			return w.local(member, "stop", map[string]any{"channel": general, "thread_ts": root})["ok"] == true
		})
		stopped(t, root, ts)
	})
	t.Run("Retry runs a failed message again", func(t *testing.T) {
		ts := w.say(member, general, root, "fail with 3")
		if text, code := w.answer(general, root, ts); code != "3" {
			t.Fatalf("answer = %q (exit %s), want exit 3", text, code)
		}
		failed := w.offered(t, general, root, "retry")
		if !strings.HasSuffix(failed.Turn, ":"+ts) {
			t.Fatalf("the last Retry belongs to %s", failed.Turn)
		}
		w.click(t, map[string]any{"channel": general, "ts": failed.TS, "action_id": "retry"})
		if text, code := w.answer(general, root, ts+"-retry-"+failed.TS); code != "3" {
			t.Errorf("answer = %q (exit %s), want that of a second try", text, code)
		}
		if n := w.answers(general, root, ts); n != 1 {
			t.Errorf("the first try has %d answers, want its own", n)
		}
	})
	t.Run("an edited message that was answered runs again as it reads now, once, if that is wanted", func(t *testing.T) {
		ts := w.say(member, general, root, "run: echo as it was >> again")
		if text, code := w.answer(general, root, ts); code != "0" {
			t.Fatalf("answer = %q (exit %s)", text, code)
		}
		call(t, member, "chat.update", url.Values{"ts": {ts}, "text": {"run: echo as it reads now >> again; cat again"}})
		offer := w.whispered(t, member, general, root, "Run it again")
		for range 2 { // pressed twice is wanted once
			w.click(t, map[string]any{"channel": general, "ts": offer, "action_id": "retry"})
		}
		if text, code := w.answer(general, root, ts+"-retry-"+offer); code != "0" || !strings.Contains(text, "as it was\nas it reads now\n") {
			t.Errorf("answer = %q (exit %s), want that of its new words", text, code)
		}
		if text, code := w.answer(general, root, w.say(member, general, root, "run: wc -l < again")); code != "0" || !strings.Contains(text, "\n2\n") {
			t.Errorf("answer = %q (exit %s), want two lines: each of its words ran once", text, code)
		}
	})
	t.Run("a muted thread is left to people until it is not", func(t *testing.T) {
		w.said(general, root, w.say(member, general, root, "!mute"), "Muted: replies here are left to you")
		between := w.say(admin, general, root, "run: echo among people | tee -a said")
		w.said(general, root, w.say(member, general, root, "!unmute"), "I am listening again")
		ts := w.say(member, general, root, "run: cat said")
		if text, code := w.answer(general, root, ts); code != "0" || !strings.Contains(text, "as it reads now") || strings.Contains(text, "among people") {
			t.Errorf("answer = %q (exit %s), want one, in which nothing of the muted reply was run", text, code)
		}
		for _, m := range w.thread(general, root) {
			if strings.HasSuffix(m.Turn, ":"+between) {
				t.Errorf("the muted reply has %q", m.Text)
			}
		}
	})
}
