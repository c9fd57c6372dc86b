package main

import (
	"net/url"
	"strings"
	"testing"
)

// TestContext: Claude is told what was said around a prompt: before the first turn, in asides since, where a link leads, and in what
// was forwarded, each marked as what it is.
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
	w.say(member, payments, elsewhere, "it counts &lt;invoices&gt;")
	link, _ := w.api(admin, "chat.getPermalink", url.Values{"channel": {payments}, "message_ts": {elsewhere}})["permalink"].(string)
	asks(root, "see <"+link+">\n\n", "33")
	if got := lastPrompt(t, w.claude); !hasAll(got, `<slack_linked url="`+link+`" where="#payments">`+"\n"+`<message from="ada" at="`, "remember the number 33", `<message from="mira" at="`,
		"it counts &lt;invoices>", "</slack_linked>") || strings.Contains(got, "<slack_forwarded") {
		t.Errorf("prompt = %s\nwant the linked message and its thread, marked as that", got)
	}

	elsewhere = w.say(admin, payments, "", "remember the number 44")
	if res := w.local(member, "share", map[string]any{"channel": payments, "ts": elsewhere, "to": general, "thread_ts": root, "text": "what number did I ask you to remember?"}); res["ok"] != true {
		t.Fatalf("share = %v", res)
	} else if text, code := w.answer(general, root, res["ts"].(string)); code != "0" || !strings.Contains(text, "the number 44.") {
		t.Errorf("answer = %q (exit %s), want 44", text, code)
	}
	if got := lastPrompt(t, w.claude); !hasAll(got, `<slack_forwarded from="Ada (admin)" at="`, `" where="#payments" url="http`, ">\nremember the number 44\n</slack_forwarded>") || strings.Contains(got, "<slack_linked") {
		t.Errorf("prompt = %s\nwant the forwarded message, marked as that", got)
	}
}

// lastPrompt is what Claude was asked last.
func lastPrompt(t *testing.T, addr string) string {
	t.Helper()
	seen := apiLog(t, addr)
	if len(seen) == 0 {
		t.Fatal("Claude was asked nothing")
	}
	return seen[len(seen)-1].Prompt
}
