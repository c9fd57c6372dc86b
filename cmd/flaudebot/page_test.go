package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"flaudebot/local/chromium"
)

// step is something done in a browser.
type step = chromedp.Action[chromedp.Void]

// do runs steps in the browser.
func do(t *testing.T, ctx context.Context, what string, steps ...step) {
	t.Helper()
	run, cancel := context.WithTimeout(ctx, testPatience)
	defer cancel()
	if err := chromedp.Do(run, steps...); err != nil {
		page, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
		t.Fatalf("%s: %v\nthe page shows:\n%s", what, err, page)
	}
}

// shows waits until an element shows a text.
func shows(selector, text string) step {
	poll := chromedp.Poll[bool](fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.textContent.includes(%q))`, selector, text),
		chromedp.WithPollingTimeout(60*time.Second), chromedp.WithPollingInterval(100*time.Millisecond))
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := poll(ctx, t)
		if err != nil {
			err = fmt.Errorf("%s never shows %q: %w", selector, text, err)
		}
		return chromedp.Void{}, err
	}
}

func visible(selector string) step { return chromedp.WaitVisible(chromedp.CSS(selector)) }
func click(selector string) step   { return chromedp.Click(chromedp.CSS(selector)) }

// press clicks on what is there at that moment: a live update may put another element in its place.
func press(selector string) step {
	poll := chromedp.Poll[bool](fmt.Sprintf(`(() => { const e = document.querySelector(%q); if (e) e.click(); return !!e })()`, selector),
		chromedp.WithPollingTimeout(60*time.Second), chromedp.WithPollingInterval(100*time.Millisecond))
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := poll(ctx, t)
		return chromedp.Void{}, err
	}
}

// choose takes an option of a select by its value.
func choose(selector, value string) step {
	evaluate := chromedp.Evaluate[bool](fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.value = %q; e.dispatchEvent(new Event('change')); return true })()`, selector, value))
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := evaluate(ctx, t)
		return chromedp.Void{}, err
	}
}

// gone waits until there is no such element.
func gone(selector string) step {
	poll := chromedp.Poll[bool](fmt.Sprintf(`!document.querySelector(%q)`, selector), chromedp.WithPollingTimeout(60*time.Second), chromedp.WithPollingInterval(100*time.Millisecond))
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := poll(ctx, t)
		return chromedp.Void{}, err
	}
}

// screenshot keeps a picture where FLAUDEBOT_TEST_PICTURES says, else nowhere.
func screenshot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if len(png) < 5000 {
		t.Errorf("the picture %s has %d bytes: the page is empty", name, len(png))
	}
	if dir := os.Getenv("FLAUDEBOT_TEST_PICTURES"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
			t.Error(err)
		}
	}
}

func send(pane, text string) step {
	box, form := "#text", "#composer"
	if pane == "thread" {
		box, form = "#thread-text", "#thread-composer"
	}
	return chromedp.Steps(chromedp.SendKeys(chromedp.CSS(box), text), click(form+" .send"))
}

// open opens the page. The first call lives as long as the browser, so it has no time limit of its own.
func open(t *testing.T, ctx context.Context, address string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Navigate(address)); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, "the page opens", visible(`button[data-channel]`))
}

func TestPage(t *testing.T) {
	t.Parallel()
	ctx := chromium.Open(t, 1280, 860, false)
	w := demoWorld(t, nil)
	open(t, ctx, w.base)
	do(t, ctx, "the page says who answers", shows("#about", "scripted"))
	do(t, ctx, "a mention is answered", send("channel", "@flaude remember the number 42"), visible("#thread-pane"),
		shows("#thread .content", "I will remember the number 42."), shows("#thread .content", "exit 0 ·"))
	do(t, ctx, "Details shows what it took", press(`#thread button.block[data-action="details"]`), shows("#modal", "Tokens"), shows("#modal", "Waits"),
		press(`#modal .actions.end button`), gone(`#modal[open]`))
	do(t, ctx, "a follow-up remembers", send("thread", "what number did I ask you to remember?"), shows("#thread .content", "asked me to remember the number 42"),
		shows("#thread .content", "turn 2"))
	do(t, ctx, "a list is worked through", send("thread", "todo: read the failing test; mend the parser; run the suite"), shows("#thread .content", "mend the parser"))
	do(t, ctx, "and done", shows("#thread .content", "turn 3"))
	do(t, ctx, "a live message has a Stop button", send("thread", "take 50 seconds"), shows("#thread .content", "sleep 50"),
		visible(`#thread button.block[data-action="stop"]`))
	screenshot(t, ctx, "page-light.png")
	do(t, ctx, "Stop stops it", press(`#thread button.block[data-action="stop"]`), shows("#thread .content", "exit 130"))
	do(t, ctx, "/flaude end ends the only session", send("channel", "/flaude end"), shows("#messages .message.private", "Ending the session"),
		shows("#thread .content", "The session has ended"))

	do(t, ctx, "two sessions", send("channel", "@flaude remember the number 1"), shows("#thread .content", "remember the number 1."), shows("#thread .content", "exit 0"),
		send("channel", "@flaude remember the number 2"), shows("#thread .content", "remember the number 2."), shows("#thread .content", "exit 0"))
	do(t, ctx, "/flaude end with two sessions shows a picker", send("channel", "/flaude end"),
		visible(`#messages .message.private button.block[data-action="end"]`))
	buttons, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.querySelectorAll('#messages .message.private button.block[data-action="end"]').length`))
	if err != nil || buttons != 2 {
		t.Errorf("the picker has %d buttons, %v, want 2", buttons, err)
	}
	do(t, ctx, "and its button ends one", press(`#messages .message.private button.block[data-action="end"]`),
		shows("#messages .message, #thread .message", "Ending the session"))
}

func TestPageInTheDark(t *testing.T) {
	t.Parallel()
	ctx := chromium.Open(t, 620, 900, true)
	w := demoWorld(t, nil)
	say := "@flaude say: ## Findings\n\nThe parser fails on **empty** input, see `parse.go`:\n\n```go\nif len(in) == 0 {\n\treturn ErrEmpty\n}\n```\n\n" +
		"| case | before | after |\n|---|---|---|\n| empty | panic | ErrEmpty |\n| one | ok | ok |\n\n1. mended\n2. tested\n   - race detector on\n\n> All green."
	open(t, ctx, w.base)
	general := w.channel("general")
	root := w.say(member, general, "", strings.ReplaceAll(say, "@flaude ", mention))
	if text, code := w.answer(general, root, root); code != "0" {
		t.Fatalf("answer = %q (exit %s)", text, code)
	}
	do(t, ctx, "Markdown is rendered", press(".replies"), visible("#thread table"),
		visible("#thread pre code"), visible("#thread ol li"), visible("#thread blockquote"))
	screenshot(t, ctx, "page-dark.png")
}
