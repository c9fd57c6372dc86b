package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"flaudebot/local/chromium"
)

// TestUsing walks through what docs/using.md tells, and takes its pictures: FLAUDEBOT_TEST_PICTURES names the folder.
func TestUsing(t *testing.T) {
	t.Parallel()
	ctx := chromium.Open(t, 1120, 720, false)
	w := demoWorld(t, []string{"FLAUDEBOT_SECRETS_KEY=" + strings.Repeat("QUFB", 10) + "QUE="})
	open(t, ctx, w.base)
	do(t, ctx, "a mention begins a session, and the answer shows what it changed",
		send("channel", "@flaude write parser.go: package parser"), visible("#thread-pane"),
		shows("#thread .content", "exit 0 ·"), visible(`#thread button[data-action="details"]`), shows("#thread .content", "Changed 1 file"))
	screenshot(t, ctx, "using-answer.png")
	do(t, ctx, "Diff shows it", press(`#thread button[data-action="changes_diff"]`), shows("#modal", "package parser"))
	do(t, ctx, "close", press(`#modal .actions.end button`), gone("#modal[open]"))
	do(t, ctx, "Details shows what it took", press(`#thread button[data-action="details"]`), shows("#modal", "Tokens"))
	screenshot(t, ctx, "using-details.png")
	do(t, ctx, "close", press(`#modal .actions.end button`), gone("#modal[open]"))
	do(t, ctx, "Open pull request asks for what it is to be, and opens it",
		send("thread", "write repo/notes.txt: Mind the gap"), visible(`#thread button[data-action="pull"]`),
		press(`#thread button[data-action="pull"]`), shows("#modal", "Merge into"))
	screenshot(t, ctx, "using-pull.png")
	do(t, ctx, "it is open", press(`#modal button[type="submit"]`), gone("#modal[open]"), shows("#thread .content", "Pull request #1"))
	do(t, ctx, "a live message with Stop, and a reply that waits",
		send("thread", "take 120 seconds"), shows("#thread .content", "sleep 120"), visible(`#thread button[data-action="stop"]`),
		send("thread", "remember the number 7"), shows("#thread .content", "One turn of this thread comes before yours"))
	screenshot(t, ctx, "using-live.png")
	do(t, ctx, "Send now", press(`#thread button[data-action="now"]`), shows("#thread .content", "exit 130"), shows("#thread .content", "I will remember the number 7"))
	do(t, ctx, "the list of sessions is for one's own eyes", send("channel", "/flaude list"), shows("#messages .message.private", "Manage"))
	screenshot(t, ctx, "using-list.png")
	become := func(token string) step {
		return script(fmt.Sprintf(`$("person").value = %q; $("person").dispatchEvent(new Event("change"))`, token))
	}
	do(t, ctx, "an admin changes the channel's settings", become(admin), shows("#messages .content", "write parser.go"),
		send("channel", "/flaude config"), shows("#modal", "Settings"))
	screenshot(t, ctx, "using-settings.png")
	do(t, ctx, "back", press(`#modal .actions.end button`), gone("#modal[open]"), become(member), visible("[data-channel=D0MEMBER]"))
	do(t, ctx, "a direct message needs no mention", press("[data-channel=D0MEMBER]"), shows("#channel-title", "flaudebot"),
		send("channel", "remember the number 42"), press("#messages .replies"), shows("#thread .content", "I will remember the number 42"))
	screenshot(t, ctx, "using-direct.png")
}

// script runs statements in the page.
func script(statements string) step {
	eval := chromedp.Evaluate[string](`(() => { ` + statements + `; return ""; })()`)
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := eval(ctx, t)
		return chromedp.Void{}, err
	}
}
