package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"flaudebot/local/chromium"
)

// js runs statements on the page.
func js(statements string) step {
	run := chromedp.Evaluate[string](fmt.Sprintf(`(() => { %s; return "" })()`, statements))
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := run(ctx, t)
		return chromedp.Void{}, err
	}
}

// as has a person use the page.
func as(token string) step {
	return js(fmt.Sprintf(`const p = document.querySelector("#person"); p.value = %q; p.onchange()`, token))
}

// fillIn fills in a field of the modal.
func fillIn(field, value string) step {
	return js(fmt.Sprintf(`const n = document.querySelector('#modal [data-field^=%q]'); fill(n, [%q])`, field, value))
}

// edit opens a page of the settings.
func edit(page string) step { return press(`#modal button[data-key$=" ` + page + `"]`) }

const save = `#modal button[type="submit"]`

// TestPageSettings: an admin sets a channel up on the page, and a turn in it runs with that.
func TestPageSettings(t *testing.T) {
	t.Parallel()
	for _, look := range []struct {
		name          string
		dark          bool
		width, height int
	}{{"light", false, 1280, 1000}, {"dark", true, 620, 1000}} {
		t.Run(look.name, func(t *testing.T) {
			t.Parallel()
			ctx := chromium.Open(t, look.width, look.height, look.dark)
			w := demoWorld(t, []string{"FLAUDEBOT_SECRETS_KEY=" + settingsKey()})
			shoot := func(name string) { screenshot(t, ctx, "settings-"+name+"-"+look.name+".png") }
			open(t, ctx, w.base)
			do(t, ctx, "/flaude config opens the settings", as(admin), send("channel", "/flaude config"), shows("#modal", "Settings of"), shows("#modal", "Instructions"))
			shoot("common")
			do(t, ctx, "the page for Claude", edit("claude"), shows("#modal h2", "Claude"))
			shoot("claude")
			do(t, ctx, "is saved, and the first page shows that", fillIn("effort@", "high"), press(save), shows("#modal", "effort: High"))
			do(t, ctx, "the environment", edit("environment"), shows("#modal h2", "Environment"), fillIn("env@", "STAGE=test"),
				press(`#modal button[data-action="settings secret new"]`), shows("#modal h2", "Secret"), fillIn("secret_name", "NPM_TOKEN"), fillIn("secret_value", "a-long-secret"))
			shoot("secret")
			do(t, ctx, "a secret is named, and what was filled in below it is still there", press(save), shows("#modal", "NPM_TOKEN"), press(save), shows("#modal", "variables: 1 line · 1 secret"))
			do(t, ctx, "the machine", edit("machine"), shows("#modal h2", "Machine"))
			shoot("machine")
			do(t, ctx, "what is wrong is said at its field", fillIn("ttl@", "soon"), press(save), shows("#modal .field .error", "Want a time such as 7d"))
			shoot("wrong")
			do(t, ctx, "and is not saved", press(`#modal .actions.end button[type="button"]`), shows("#modal", "Settings of"))
			do(t, ctx, "who may", edit("access"), shows("#modal h2", "Who may, and how much"))
			shoot("access")
			do(t, ctx, "is left", press(`#modal .actions.end button[type="button"]`), shows("#modal", "Settings of"))
			do(t, ctx, "the first page is saved", fillIn("instructions@", "Be short."), fillIn("model@", "haiku"), press(save), shows("#messages .message.private", "Saved: model, instructions, from"))
			do(t, ctx, "a turn", send("channel", "@flaude effort:low remember the number 7"), shows("#thread .content", "exit 0"))
			do(t, ctx, "runs with that", press("#close-thread"), send("channel", "/flaude status"), shows("#messages .message.private", "effort low"))
			do(t, ctx, "the session's modal", js(`document.querySelector("#messages .message[data-user=U0ADMIN] [data-tool=manage]").click()`), shows("#modal", "Last turn ran with"))
			shoot("session")
			do(t, ctx, "is closed", press(`#modal .actions.end button[type="button"]`), gone("#modal[open]"))
			do(t, ctx, "a member sees the settings", as(member), visible(`button[data-channel]`), send("channel", "/flaude config"), shows("#modal", "Admins of this workspace can change them"))
			shoot("shown")
			text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("#modal").innerText`))
			if err != nil || strings.Contains(text, "NPM_TOKEN") || strings.Contains(text, "STAGE") || !strings.Contains(text, "Be short.") {
				t.Errorf("a member sees %q, %v", text, err)
			}
		})
	}
}
