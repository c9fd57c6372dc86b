package main

import (
	"net/url"
	"strings"
	"testing"
)

// TestContext: Claude is told what was said around a prompt: before the first turn, in asides since, and where a link leads.
func TestContext(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, w.env, "serve")
	general, payments := w.channel("general"), w.channel("payments")
	asks := func(root, words, number string) {
		t.Helper()
		ts := w.say(member, general, root, words+"what number did I ask you to remember?")
		if text, code := w.answer(general, root, ts); code != "0" || !strings.Contains(text, "the number "+number+".") {
			t.Errorf("answer = %q (exit %s), want %s", text, code, number)
		}
	}
	root := w.say(admin, general, "", "remember the number 11")
	asks(root, mention, "11")
	w.say(admin, general, root, "!aside remember the number 22")
	asks(root, "", "22")
	elsewhere := w.say(admin, payments, "", "remember the number 33")
	link, _ := w.api(admin, "chat.getPermalink", url.Values{"channel": {payments}, "message_ts": {elsewhere}})["permalink"].(string)
	asks(root, "see <"+link+">\n\n", "33")
}
