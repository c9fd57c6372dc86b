package slack_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"flaudebot/local/chromium"
	"flaudebot/local/slack"
)

// tab is the page in headless Chromium, over a workspace of its own.
type tab struct {
	*world
	ctx  context.Context
	base string
}

// patience bounds every wait in a browser; nothing takes so long unless it never comes.
const patience = 60 * time.Second

// inTab runs a subtest with the page in general, as the member.
func inTab(t *testing.T, browser context.Context, name string, test func(*testing.T, *tab)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		server, err := slack.New(slack.Config{Agent: "scripted", Note: "A stand-in answers."})
		if err != nil {
			t.Fatal(err)
		}
		h := httptest.NewServer(server.Handler())
		t.Cleanup(func() {
			_ = server.Close()
			h.CloseClientConnections() // the page's stream among them
			h.Close()
		})
		address := h.Listener.Addr().String()
		transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}
		p := &tab{world: &world{t: t, http: &http.Client{Transport: transport}, patience: patience}, ctx: browser, base: h.URL}
		p.load("/", 1280, 860)
		test(t, p)
		if said := p.js("say the exceptions", `window.failures.join("\n")`); said != "" {
			t.Errorf("the page failed: %s", said)
		}
	})
}

// load opens a path in a window of that size.
func (p *tab) load(path string, width, height int64) {
	p.t.Helper()
	p.do("open "+path, chromedp.EmulateViewport(width, height), chromedp.Navigate(p.base+path))
	p.js("note what fails", `window.failures = []; addEventListener("error", (e) => failures.push(e.message)); addEventListener("unhandledrejection", (e) => failures.push(String(e.reason))); ""`)
	p.until("the channels are there", `document.querySelector("button[data-channel]") && state.people.U0MEMBER && seen.channel`)
}

func (p *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// js evaluates an expression to a text.
func (p *tab) js(what, expression string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	return out
}

// until waits until an expression is true.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	poll := chromedp.Poll[bool](fmt.Sprintf("!!(%s)", expression), chromedp.WithPollingTimeout(patience), chromedp.WithPollingInterval(20*time.Millisecond))
	if _, err := chromedp.Run(ctx, poll); err != nil {
		page, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		p.t.Fatalf("%s: %v\nthe page shows:\n%s", what, err, page)
	}
}

// is checks an expression now.
func (p *tab) is(what, expression string) {
	p.t.Helper()
	if got := p.js(what, fmt.Sprintf("String(%s)", expression)); got != "true" {
		p.t.Errorf("%s: %s is %s", what, expression, got)
	}
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.do("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

func (p *tab) typeIn(selector, keys string) {
	p.t.Helper()
	p.do("type in "+selector, chromedp.SendKeys(chromedp.CSS(selector), keys))
}

// shown waits for a message and returns the selector of it.
func (p *tab) shown(pane string, ts any) string {
	p.t.Helper()
	selector := fmt.Sprintf(`#%s .message[data-ts="%s"]`, pane, ts)
	p.until("the message is shown", fmt.Sprintf(`document.querySelector(%q)`, selector))
	return selector
}

// outline writes elements with what matters of them, so that what is shown can be read.
const outline = `(n) => { const w = (n) => n.nodeType === 3 ? n.data.replace(/&/g, "&amp;").replace(/</g, "&lt;") :
	n.matches("svg, .copy, .more") ? "" : (n.matches("div:not(.actions):not(.context), thead, tbody, figure, .content span:not([class]), span[title]") ? [...n.childNodes].map(w).join("") :
	"<" + n.localName + ["href", "start", "class", "src"].filter((a) => n.getAttribute(a) && !(a === "class" && /^(block )?$|^h\d$/.test(n.className))).map((a) => " " + a + "=" + n.getAttribute(a)).join("") + ">" +
	[...n.childNodes].map(w).join("") + "</" + n.localName + ">"); return [...n.childNodes].map(w).join(""); }`

func TestPage(t *testing.T) {
	t.Parallel()
	browser := chromium.Open(t, 1280, 860, false)
	if err := chromedp.Do(browser); err != nil { // this call starts it: it lives as long as the context of it
		t.Fatal(err)
	}
	t.Run("renders", func(t *testing.T) { pageRenders(t, browser) })
	t.Run("acts", func(t *testing.T) { pageActs(t, browser) })
}

func pageRenders(t *testing.T, browser context.Context) {
	t.Helper()
	inTab(t, browser, "messages", func(t *testing.T, p *tab) {
		type sample struct{ name, mrkdwn, markdown, want, ts string }
		var cases []sample
		for _, c := range []sample{
			{name: "mrkdwn: emphasis", mrkdwn: "*b* _i_ ~s~ `c` 2*3*4 a_b_c", want: "<p><strong>b</strong> <em>i</em> <s>s</s> <code>c</code> 2*3*4 a_b_c</p>"},
			{name: "mrkdwn: entities", mrkdwn: "&lt;b&gt; &amp;amp; `&lt;`", want: "<p>&lt;b> &amp;amp; <code>&lt;</code></p>"},
			{name: "mrkdwn: links", mrkdwn: "<https://a.example/?a=1&amp;b=2|docs> <https://b.example>", want: "<p><a href=https://a.example/?a=1&b=2>docs</a> <a href=https://b.example>https://b.example</a></p>"},
			{
				name: "mrkdwn: people, channels, broadcasts", mrkdwn: "<@U0ADMIN> <@U0FLAUDE> <#C1|random> <!here>",
				want: "<p><span class=mention>@ada</span> <span class=mention>@flaude</span> <span class=mention>#random</span> <span class=mention>@here</span></p>",
			},
			{name: "mrkdwn: quotes and fences", mrkdwn: "a\n> q\n> r\nb\n```\nx  <\n y\n```\nc", want: "<p>a</p><blockquote>q\nr</blockquote><p>b</p><pre><code>x  &lt;\n y</code></pre><p>c</p>"},
			{name: "mrkdwn: an open fence", mrkdwn: "a ``` b", want: "<p>a</p><p>``` b</p>"},
			{name: "mrkdwn: emoji", mrkdwn: ":tada: :no_such: 10:30:00", want: "<p>🎉 :no_such: 10:30:00</p>"},
			{name: "headings", markdown: "# One\n## Two ##\n###### Six\n#no", want: "<h3>One</h3><h3>Two</h3><h3>Six</h3><p>#no</p>"},
			{
				name: "emphasis", markdown: "**b** *i* _i_ __b__ ~~s~~ ***bi*** snake_case_name 2*3 \\*no\\*",
				want: "<p><strong>b</strong> <em>i</em> <em>i</em> <strong>b</strong> <s>s</s> <strong><em>bi</em></strong> snake_case_name 2*3 *no*</p>",
			},
			{name: "code", markdown: "`a*b*` ``x ` y``", want: "<p><code>a*b*</code> <code>x ` y</code></p>"},
			{name: "fences with a language", markdown: "```go\nif a < b {\n\treturn\n}\n```\n~~~\n``` no end\n~~~", want: "<span class=language>go</span><pre><code>if a &lt; b {\n\treturn\n}</code></pre><pre><code>``` no end</code></pre>"},
			{name: "a fence that never ends", markdown: "a\n```\nb", want: "<p>a</p><pre><code>b</code></pre>"},
			{
				name: "links", markdown: "[d](https://a.example/x_(y)) <https://b.example> https://c.example/?q=1. [x](javascript:alert(1)) ![i](https://d.example/p.png)",
				want: "<p><a href=https://a.example/x_(y)>d</a> <a href=https://b.example>https://b.example</a> <a href=https://c.example/?q=1>https://c.example/?q=1</a>. x <a href=https://d.example/p.png>i</a></p>",
			},
			{name: "lists in lists", markdown: "1. a\n2. b\n   - c\n   - d\n     1. e\n3. f", want: "<ol start=1><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li><li><p>d</p><ol start=1><li><p>e</p></li></ol></li></ul></li><li><p>f</p></li></ol>"},
			{name: "a list that goes on after a blank line", markdown: "- a\n\n- b\n\nc", want: "<ul><li><p>a</p></li><li><p>b</p></li></ul><p>c</p>"},
			{name: "code in a list", markdown: "1. Run:\n   ```sh\n   make\n     test\n   ```\n2. Done", want: "<ol start=1><li><p>Run:</p><span class=language>sh</span><pre><code>make\n  test</code></pre></li><li><p>Done</p></li></ol>"},
			{name: "tabs in code in a list", markdown: "- a\n\t```\n\tx\n\t\ty\n\t```", want: "<ul><li><p>a</p><pre><code>x\n\ty</code></pre></li></ul>"},
			{name: "tasks", markdown: "- [x] a\n- [ ] b", want: "<ul><li class=task><span class=box done>✓</span><p>a</p></li><li class=task><span class=box></span><p>b</p></li></ul>"},
			{name: "a list from 7", markdown: "7. a\n8. b", want: "<ol start=7><li><p>a</p></li><li><p>b</p></li></ol>"},
			{name: "quotes", markdown: "> a\n> - b\n\nc", want: "<blockquote><p>a</p><ul><li><p>b</p></li></ul></blockquote><p>c</p>"},
			{name: "tables", markdown: "| a | b | c |\n|:--|:-:|--:|\n| `x` | y \\| z | **w** |\n| 1 |\nend", want: "<table><tr><th>a</th><th class=center>b</th><th class=right>c</th></tr><tr><td><code>x</code></td><td class=center>y | z</td><td class=right><strong>w</strong></td></tr><tr><td>1</td></tr></table><p>end</p>"},
			{name: "a pipe is no table", markdown: "a | b\nc", want: "<p>a | b\nc</p>"},
			{name: "rules", markdown: "a\n\n---\n\nb", want: "<p>a</p><hr></hr><p>b</p>"},
			{name: "paragraphs keep their lines", markdown: "a\nb\n\nc", want: "<p>a\nb</p><p>c</p>"},
		} {
			a := args{"channel": general, "text": c.mrkdwn}
			if c.markdown != "" {
				a["text"], a["blocks"] = "x", []any{md(c.markdown)}
			}
			c.ts = p.api(bot, "chat.postMessage", a)["ts"].(string)
			cases = append(cases, c)
		}
		for _, c := range cases {
			selector := p.shown("messages", c.ts)
			if got := p.js(c.name, fmt.Sprintf(`(%s)(document.querySelector(%q))`, outline, selector+" .content")); got != c.want {
				t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
			}
		}
	})
	inTab(t, browser, "blocks", func(t *testing.T, p *tab) {
		blocks := []any{
			args{"type": "header", "text": plain("Head")},
			args{"type": "section", "text": mrkdwn("*s*"), "accessory": with(button("end", "1"), "style", "danger"), "fields": []any{plain("f1"), mrkdwn("_f2_")}},
			args{"type": "divider"},
			args{"type": "context", "elements": []any{mrkdwn("exit 0 · _3 s_")}},
			args{"type": "actions", "elements": []any{button("retry", "1"), button("stop", "2")}},
			args{"type": "plan", "title": "Plan", "tasks": []any{args{"task_id": "1", "type": "task_card", "title": "do", "status": "complete"}}},
			args{"type": "table", "rows": []any{[]any{args{"type": "raw_text", "text": "c<1"}}}},
		}
		selector := p.shown("messages", p.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "blocks": blocks})["ts"])
		want := "<h2><p>Head</p></h2><p><strong>s</strong></p><p>f1</p><p><em>f2</em></p><button class=block danger>end</button><hr></hr>" +
			"<div class=context>exit 0 · <em>3 s</em></div><div class=actions><button>retry</button><button>stop</button></div>" +
			"<p><strong>Plan</strong></p><p class=card>☑ do</p><table><tr><td>c&lt;1</td></tr></table>"
		if got := p.js("blocks", fmt.Sprintf(`(%s)(document.querySelector(%q))`, outline, selector+" .content")); got != want {
			t.Errorf("blocks:\n got %s\nwant %s", got, want)
		}
	})
	inTab(t, browser, "nothing in a message becomes HTML", func(_ *testing.T, p *tab) {
		evil := `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>"><svg onload=window.pwned=1>`
		link := `<javascript:window.pwned=1|x> <data:text/html,x|y> [x](javascript:window.pwned=1) [y](data:text/html,<script>) <https://a.example/"onmouseover="window.pwned=1|z>`
		blocks := []any{
			args{"type": "header", "text": plain(evil)},
			args{"type": "section", "text": mrkdwn(evil + link), "fields": []any{plain(evil)}, "accessory": with(button("a", evil), "text", plain(evil[:70]))},
			args{"type": "context", "elements": []any{mrkdwn(evil), plain(link)}},
			args{"type": "image", "image_url": "javascript:window.pwned=1", "alt_text": evil},
			md(evil + "\n\n" + link + "\n\n```" + "\"><script>window.pwned=1</script>" + "\n" + evil + "\n```\n\n| " + evil + " |\n|---|\n| " + link + " |\n\n- [ ] " + evil + "\n> " + evil),
			args{"type": "table", "rows": []any{[]any{args{"type": "raw_text", "text": evil}}}},
		}
		for _, a := range []args{
			{"text": evil + link}, {"text": "x", "blocks": blocks}, {"markdown_text": evil + link}, {"text": "```" + evil + "``` `" + evil + "`"},
		} {
			p.shown("messages", p.api(bot, "chat.postMessage", with(a, "channel", general))["ts"])
			ts := p.api(bot, "chat.postEphemeral", with(with(a, "channel", general), "user", "U0MEMBER"))["message_ts"]
			p.shown("messages", ts)
		}
		up := p.api(bot, "files.getUploadURLExternal", args{"filename": evil, "length": 1})
		p.putBytes(up, "x")
		p.api(bot, "files.completeUploadExternal", args{"files": []any{args{"id": up["file_id"], "title": evil}}, "channel_id": general})
		p.until("the file is shown", `document.querySelector("#messages .file")`)
		p.is("no script ran", `window.pwned === undefined`)
		p.is("no element came from a message", `document.querySelectorAll("#messages script, #messages iframe, #messages [onerror], #messages [onload], #messages [onmouseover], #messages [style]:not(.avatar)").length === 0`)
		p.is("pictures are those of image blocks", `[...document.querySelectorAll("#messages img")].every((i) => i.closest("figure"))`)
		p.is("links lead to the web", `[...document.querySelectorAll("#messages a")].every((a) => /^https?:$/.test(a.protocol))`)
		p.is("text is text", `document.querySelector("#messages .content").textContent.includes("<script>window.pwned=1</script>")`)
	})
	inTab(t, browser, "long text stays within its place", func(_ *testing.T, p *tab) {
		p.post(member, general, "", strings.Repeat("x", 40000))
		p.post(member, general, "", strings.Repeat("two words ", 4000))
		p.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "blocks": []any{
			md("```\n" + strings.Repeat("long ", 400) + "\n```\n\n|" + strings.Repeat(" column |", 20) + "\n|" + strings.Repeat("---|", 20) + "\n|" + strings.Repeat(" value |", 20) + "\n\n# " + strings.Repeat("h", 500)),
		}})
		last := p.shown("messages", p.api(bot, "chat.postMessage", args{"channel": general, "text": strings.Repeat("*a* _b_ `c` ", 3300) + strings.Repeat("*", 300)})["ts"])
		for _, width := range []int64{1280, 390, 320} {
			p.load("/", width, 800)
			p.until("the messages are shown", fmt.Sprintf(`document.querySelector(%q)`, last))
			p.is(fmt.Sprintf("nothing is wider than %d", width), `document.documentElement.scrollWidth <= innerWidth && $("messages").scrollWidth <= $("messages").clientWidth`)
		}
		p.is("they are folded", `document.querySelectorAll("#messages .folded").length >= 3 && document.querySelector("#messages .message").offsetHeight < 700`)
		p.do("look at the top", run(`$("messages").scrollTop = 0`))
		p.click("#messages .more")
		p.is("and can be unfolded", `document.querySelector("#messages .message").offsetHeight > 2000`)
	})
}

// putBytes does the second step of an upload.
func (p *tab) putBytes(up map[string]any, data string) {
	p.t.Helper()
	if res := p.world.do(http.MethodPost, up["upload_url"].(string), "", "", []byte(data), nil); res.status != http.StatusOK {
		p.t.Fatalf("upload = %d", res.status)
	}
}

func pageActs(t *testing.T, browser context.Context) {
	t.Helper()
	const enter, shiftEnter, escape = "\r", "\n", "\u001b"
	inTab(t, browser, "Enter sends, Shift+Enter begins a line, and a mention opens its thread", func(_ *testing.T, p *tab) {
		p.is("it says who answers", `$("about").textContent.includes("scripted") && $("about").textContent.includes("A stand-in answers.")`)
		p.typeIn("#text", "one @ada `@ada` <b> https://a.example/x.")
		p.do("a line", chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierShift)))
		p.typeIn("#text", "two"+enter)
		p.until("it is sent", `document.querySelector("#messages .message .content") && !$("text").value`)
		p.want("it is in Slack's form", p.api(bot, "conversations.history", args{"channel": general}), args{
			"messages.0.text": "one <@U0ADMIN> `@ada` &lt;b&gt; <https://a.example/x>.\ntwo", "messages.0.user": "U0MEMBER",
		})
		p.typeIn("#text", "@flaude hello"+enter)
		p.until("its thread opens", `!$("thread-pane").hidden && document.activeElement === $("thread-text") && document.querySelector("#thread .mention")`)
		p.typeIn("#thread-text", "/flaude end"+enter)
		p.until("commands are refused in threads", `$("toast").textContent === "/flaude is not supported in threads. Sorry!"`)
		p.is("and stay in the box", `$("thread-text").value === "/flaude end"`)
		p.do("clear", run(`$("thread-text").value = ""`))
		p.typeIn("#thread-text", "a reply"+enter)
		p.until("a reply is sent", `document.querySelectorAll("#thread .message").length === 2 && document.querySelector("#messages .replies")`)
		p.typeIn("#thread-text", "a draft")
		p.do("Escape", chromedp.KeyEvent(escape))
		p.is("Escape closes the thread, and the focus goes back to it", `$("thread-pane").hidden && document.activeElement.className === "replies"`)
		p.do("Enter", chromedp.KeyEvent(enter))
		p.until("Enter opens it again, with the draft", `!$("thread-pane").hidden && $("thread-text").value === "a draft"`)
	})
	inTab(t, browser, "a slash command is answered for one's eyes only", func(_ *testing.T, p *tab) {
		s := p.connect()
		p.typeIn("#text", "/flaude list all"+enter)
		f := s.next()
		p.want("the app gets it", f["payload"], args{"command": "/flaude", "text": "list all", "user_id": "U0MEMBER"})
		s.ack(f, args{"response_type": "ephemeral", "text": "No *sessions*."})
		p.until("the answer is shown", `document.querySelector("#messages .message.private strong")`)
		p.is("and marked", `document.querySelector("#messages .private .only").textContent.startsWith("Only visible to you")`)
		p.click("#messages .private .dismiss")
		p.until("it can be dismissed", `!document.querySelector("#messages .private")`)
	})
	inTab(t, browser, "a button is disabled while its click is under way, also when its message changes", func(_ *testing.T, p *tab) {
		s := p.connect()
		post := args{"channel": general, "text": "x", "blocks": stopButton()}
		post["ts"] = p.api(bot, "chat.postMessage", post)["ts"]
		s.event()
		p.shown("messages", post["ts"])
		p.click(`#messages button[data-action="stop"]`)
		f := s.next()
		p.until("it is disabled", `document.querySelector('#messages button[data-action="stop"]').disabled`)
		p.is("others are not", `!document.querySelector('#messages button[data-action="more"]').disabled`)
		blocks := stopButton()
		blocks[0].(args)["text"] = mrkdwn("stopping")
		p.api(bot, "chat.update", with(post, "blocks", blocks))
		s.event()
		p.until("the message changes", `document.querySelector("#messages .content").textContent.includes("stopping")`)
		p.is("it still is", `document.querySelector('#messages button[data-action="stop"]').disabled`)
		s.ack(f, nil)
		p.until("until it is acked", `!document.querySelector('#messages button[data-action="stop"]').disabled`)
	})
	inTab(t, browser, "a confirmation comes first", func(t *testing.T, p *tab) {
		s := p.connect()
		sure := args{"title": plain("End it?"), "text": plain("Work is lost."), "confirm": plain("End"), "deny": plain("Keep")}
		p.shown("messages", p.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "blocks": []any{actions(with(button("end", "1"), "confirm", sure))}})["ts"])
		s.event()
		p.click(`#messages button[data-action="end"]`)
		p.until("it asks", `$("ask").open && $("ask").textContent.includes("Work is lost.")`)
		p.click("#ask button:not(.danger)")
		p.click(`#messages button[data-action="end"]`)
		p.click("#ask .danger")
		f := s.next()
		s.ack(f, nil)
		p.want("one click", f["payload"], args{"actions.0.action_id": "end"})
		if len(s.frames) > 0 {
			t.Error("the refused click came too")
		}
	})
	inTab(t, browser, "a modal is filled in, complains, is sent, and closed with Escape", func(_ *testing.T, p *tab) {
		s := p.connect()
		ts := p.post(member, general, "", "root")
		s.event()
		at1 := p.shown("messages", ts)
		form := modal("Ask", note("*Say* why"), args{"type": "input", "block_id": "q", "label": plain("Why?"), "element": args{"type": "plain_text_input", "action_id": "a"}},
			actions(button("more", "1")))
		form["submit"] = plain("Send")
		shortcut := func() {
			p.do("the shortcut", run(fmt.Sprintf(`document.querySelector(%q).click()`, at1+" [data-tool=manage]")))
			f := s.next()
			s.ack(f, nil)
			p.api(bot, "views.open", args{"trigger_id": at(f, "payload.trigger_id"), "view": form})
			p.until("the modal opens", `$("modal").open && $("modal").textContent.includes("Why?")`)
		}
		shortcut()
		p.typeIn("#modal input", "because"+enter)
		f := s.next()
		p.want("submission", f["payload"], args{"type": "view_submission", "view.state.values.q.a.value": "because"})
		s.ack(f, args{"response_action": "errors", "errors": args{"q": "Not good enough."}})
		p.until("it complains", `$("modal").querySelector(".error")?.textContent === "Not good enough."`)
		p.is("and keeps what was typed", `$("modal").querySelector("input").value === "because"`)
		p.click(`#modal button[data-action="more"]`)
		f = s.next()
		s.ack(f, nil)
		p.want("a button in it", f["payload"], args{"type": "block_actions", "container.type": "view"})
		p.click("#modal [type=submit]")
		s.ack(s.next(), nil)
		p.until("it closes when taken", `!$("modal").open`)
		shortcut()
		p.do("Escape", chromedp.KeyEvent(escape))
		p.until("Escape closes it", `!$("modal").open`)
		p.want("also for Slack", p.local(member, "seen", args{"channel": general}), args{"views": []any{}})
	})
	inTab(t, browser, "what is filled in stays while another modal lies on it, and is sent in the form of its kind", func(_ *testing.T, p *tab) {
		s := p.connect()
		p.shown("messages", p.post(member, general, "", "root"))
		s.event()
		option := func(value string) args { return args{"text": plain("the " + value), "value": value} }
		field := func(id string, element args) args {
			return args{"type": "input", "block_id": id, "optional": true, "label": plain(id), "element": with(element, "action_id", "a")}
		}
		form := modal(
			"Ask", field("text", args{"type": "plain_text_input", "multiline": true}), field("number", args{"type": "number_input", "is_decimal_allowed": false, "initial_value": "3"}),
			field("choice", args{"type": "static_select", "options": []any{option("x"), option("y")}, "initial_option": option("x")}),
			field("boxes", args{"type": "checkboxes", "options": []any{option("x"), option("y")}, "initial_options": []any{option("y")}}),
			field("people", args{"type": "multi_users_select", "initial_users": []any{"U0ADMIN"}}),
			field("several", args{"type": "multi_static_select", "options": []any{option("x"), option("y")}}),
			field("channel", args{"type": "conversations_select"}), actions(button("more", "1")),
		)
		form["submit"] = plain("Send")
		p.do("the shortcut", run(`document.querySelector("#messages [data-tool=manage]").click()`))
		f := s.next()
		s.ack(f, nil)
		id := at(p.api(bot, "views.open", args{"trigger_id": at(f, "payload.trigger_id"), "view": form}), "view.id")
		p.until("the modal opens", `$("modal").open && $("modal").textContent.includes("boxes")`)
		p.do("fill in", run(`for (const [name, values] of Object.entries({ text: ["two\nlines"], choice: ["y"], boxes: ["x"], several: ["x", "y"], channel: ["C0GENERAL"] }))
			fill(document.querySelector('[data-field="' + name + ' a"]'), values)`))
		p.click(`#modal button[data-action="more"]`)
		f = s.next()
		s.ack(f, nil)
		above := p.api(bot, "views.push", args{"trigger_id": at(f, "payload.trigger_id"), "view": modal("More", note("above"))})
		p.until("another lies on it", `$("modal").textContent.includes("above")`)
		p.api(bot, "views.update", args{"view_id": id, "view": with(form, "title", plain("Ask again"))})
		p.local(member, "submit", args{"view_id": at(above, "view.id"), "close": true})
		p.until("it is back, brought up to date", `$("modal-title").textContent === "Ask again"`)
		p.click("#modal [type=submit]")
		f = s.next()
		s.ack(f, nil)
		p.want("submission", f["payload"], args{
			"view.state.values.text.a.value": "two\nlines", "view.state.values.number.a.value": "3", "view.state.values.choice.a.selected_option.value": "y",
			"view.state.values.choice.a.selected_option.text.text": "the y", "view.state.values.boxes.a.selected_options.0.value": "x", "view.state.values.boxes.a.selected_options.1": nil,
			"view.state.values.people.a.selected_users": []any{"U0ADMIN"}, "view.state.values.several.a.selected_options.1.value": "y",
			"view.state.values.channel.a.selected_conversation": "C0GENERAL", "view.state.values.number.a.type": "number_input",
		})
	})
	inTab(t, browser, "one's own messages are edited in place and deleted", func(_ *testing.T, p *tab) {
		other := p.shown("messages", p.post(admin, general, "", "not mine"))
		p.is("others' have no such tools", fmt.Sprintf(`!document.querySelector(%q)`, other+" [data-tool=edit], "+other+" [data-tool=trash]"))
		mine := p.shown("messages", p.post(member, general, "", "frist <@U0ADMIN>"))
		press := func(tool string) {
			p.do(tool, run(fmt.Sprintf(`document.querySelector(%q).click()`, mine+" [data-tool="+tool+"]")))
		}
		press("edit")
		p.until("it is edited as typed", `document.activeElement.matches(".editor textarea") && document.activeElement.value === "frist @ada"`)
		p.post(admin, general, "", "meanwhile")
		p.until("another message comes", `document.body.textContent.includes("meanwhile")`)
		p.is("and the editor keeps the focus", `document.activeElement.matches(".editor textarea")`)
		p.do("write", run(`document.activeElement.value = "first @ada"`))
		p.do("Enter", chromedp.KeyEvent(enter))
		p.until("it is changed", fmt.Sprintf(`document.querySelector(%q).textContent.includes("(edited)")`, mine))
		p.want("in Slack's form", p.api(bot, "conversations.history", args{"channel": general}), args{"messages.1.text": "first <@U0ADMIN>"})
		press("edit")
		p.until("again", `document.activeElement.matches(".editor textarea")`)
		p.do("Escape", chromedp.KeyEvent(escape))
		p.until("Escape leaves it as it is", `!document.querySelector(".editor")`)
		press("trash")
		p.click("#ask .danger")
		p.until("it is gone", fmt.Sprintf(`!document.querySelector(%q)`, mine))
	})
	inTab(t, browser, "reactions are added and taken back", func(_ *testing.T, p *tab) {
		ts := p.post(admin, general, "", "x")
		sel := p.shown("messages", ts)
		p.api(bot, "reactions.add", args{"channel": general, "timestamp": ts, "name": "eyes"})
		p.until("the app's is shown", fmt.Sprintf(`document.querySelector(%q)`, sel+" .reactions button"))
		p.click(sel + " .reactions button")
		p.until("two now", fmt.Sprintf(`document.querySelector(%q)?.textContent.endsWith("2")`, sel+" .reactions .mine"))
		p.click(sel + " .reactions button")
		p.until("one again", fmt.Sprintf(`document.querySelector(%q)?.textContent.endsWith("1")`, sel+" .reactions button:not(.mine)"))
	})
	inTab(t, browser, "files are sent and can be downloaded", func(t *testing.T, p *tab) {
		file := filepath.Join(t.TempDir(), "notes.txt")
		if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.do("choose", chromedp.SetUploadFiles(chromedp.CSS("#composer .file-input"), []string{file}))
		p.until("it is named", `document.querySelector("#composer .attached").textContent === "notes.txt"`)
		p.typeIn("#text", "see"+enter)
		p.until("it is shown", `document.querySelector("#messages .file")?.textContent.includes("5 bytes")`)
		p.until("the composer is empty", `document.querySelector("#composer .attached").hidden && !$("text").value`)
		p.do("download", run(`fetch(document.querySelector("#messages .file").href).then((r) => r.text()).then((x) => { window.got = x; })`))
		p.until("the bytes come back", `window.got === "hello"`)
	})
	inTab(t, browser, "people see what is theirs", func(_ *testing.T, p *tab) {
		p.api(bot, "chat.postEphemeral", args{"channel": general, "user": "U0MEMBER", "text": "for mira"})
		p.post(stranger, general, "", "from afar")
		p.until("mira sees both", `document.body.textContent.includes("for mira") && document.body.textContent.includes("from afar")`)
		become := func(token string) {
			p.do("become "+token, run(fmt.Sprintf(`$("person").value = %q; $("person").dispatchEvent(new Event("change"))`, token)))
		}
		become(guest)
		p.until("gus sees general and the DM only", `[...document.querySelectorAll("[data-channel]")].map((b) => b.dataset.channel).join() === "C0GENERAL,D0GUEST"`)
		p.until("and one message", `document.querySelectorAll("#messages .message").length === 1`)
		p.typeIn("#text", "I am gus"+enter)
		p.until("what he says is his", `[...document.querySelectorAll("#messages .name")].at(-1).textContent === "gus"`)
		become(stranger)
		p.until("stan sees general only", `[...document.querySelectorAll("[data-channel]")].map((b) => b.dataset.channel).join() === "C0GENERAL"`)
		become(admin)
		p.until("ada sees her DM", `document.querySelector("[data-channel=D0ADMIN]")`)
		p.post(member, payments, "", "elsewhere")
		p.until("what comes elsewhere is marked", `document.querySelector("[data-channel=C0PAYMENTS]").classList.contains("unread")`)
		p.click("[data-channel=C0PAYMENTS]")
		p.until("until one looks", `!document.querySelector("[data-channel=C0PAYMENTS]").classList.contains("unread") && document.body.textContent.includes("elsewhere")`)
		become(member)
	})
	inTab(t, browser, "a live update keeps one's place", func(_ *testing.T, p *tab) {
		var ts any
		for range 40 {
			ts = p.api(bot, "chat.postMessage", args{"channel": general, "text": "line\nline\nline"})["ts"]
		}
		p.shown("messages", ts)
		atEnd := `Math.abs($("messages").scrollHeight - $("messages").scrollTop - $("messages").clientHeight) < 3`
		p.until("one begins at the end", atEnd)
		p.shown("messages", p.post(admin, general, "", "more"))
		p.until("and stays there", atEnd)
		p.do("scroll up", run(`$("messages").scrollTop = 400`))
		p.is("the place", `$("messages").scrollTop === 400`)
		p.do("note", run(`window.first = document.querySelector("#messages .message"); window.focused = document.querySelector("#messages [data-tool=react]"); focused.focus({ preventScroll: true })`))
		p.shown("messages", p.post(admin, general, "", "a late one"))
		p.api(bot, "chat.update", args{"channel": general, "ts": ts, "text": "changed"})
		p.until("it changes", `document.body.textContent.includes("changed")`)
		p.is("the place is the same", `$("messages").scrollTop === 400`)
		p.is("so are the messages", `window.first.isConnected`)
		p.is("so is the focus", `document.activeElement === window.focused`)
		p.click("#channel-pane .jump")
		p.until("a button leads to what is new", atEnd+` && document.querySelector("#channel-pane .jump").hidden`)
	})
	inTab(t, browser, "a link to a message opens it here", func(_ *testing.T, p *tab) {
		root := p.post(member, general, "", "root")
		ts := p.post(member, general, root, "reply")
		link := p.api(bot, "chat.getPermalink", args{"channel": general, "message_ts": ts})["permalink"].(string)
		_, path, _ := strings.Cut(link, host)
		p.load(path, 1280, 860)
		p.until("the thread is open", `!$("thread-pane").hidden && $("thread").textContent.includes("reply")`)
		p.is("its address is that of the thread", fmt.Sprintf(`location.pathname === "/archives/C0GENERAL/p%s"`, strings.Replace(root, ".", "", 1)))
	})
	inTab(t, browser, "a forwarded message and what an app attaches are shown", func(_ *testing.T, p *tab) {
		ts := p.post(admin, payments, "", "the build is *red*")
		res := p.local(member, "share", args{"channel": payments, "ts": ts, "to": general, "text": "look"})
		forwarded := p.shown("messages", res["ts"])
		p.is("it says whose it is, and from where", fmt.Sprintf(`["look", "Ada (admin)", "the build is red", "Posted in #payments"].every((s) => document.querySelector(%q).textContent.includes(s))`, forwarded))
		p.is("it leads there", fmt.Sprintf(`document.querySelector(%q).pathname === "/archives/C0PAYMENTS/p%s"`, forwarded+" .attachment a", strings.Replace(ts, ".", "", 1)))
		alert := p.api(ci, "chat.postMessage", args{"channel": general, "attachments": []any{args{"title": "Build 7", "text": "failed", "fields": []any{args{"title": "in", "value": "3 s"}}}}})
		p.is("an app's attachment", fmt.Sprintf(`["Build 7", "failed", "in 3 s"].every((s) => document.querySelector(%q).textContent.includes(s))`, p.shown("messages", alert["ts"])))
	})
	inTab(t, browser, "a DM shows the prompts that the app suggests, and sends the one that is pressed", func(_ *testing.T, p *tab) {
		p.click("[data-channel=D0MEMBER]")
		p.api(bot, "assistant.threads.setSuggestedPrompts", args{
			"channel_id": "D0MEMBER", "title": "What shall we do?", "prompts": []any{args{"title": "Tour", "message": "Show me <around>"}, args{"title": "Help", "message": "help"}},
		})
		p.until("they are there", `!$("suggested").hidden && $("suggested").ariaLabel === "What shall we do?" && $("suggested").querySelectorAll("button").length === 2`)
		p.click("#suggested button")
		p.until("it is said", `$("messages").textContent.includes("Show me <around>")`)
		p.click("[data-channel=C0GENERAL]")
		p.until("elsewhere there are none", `$("suggested").hidden && $("channel-title").textContent === "# general"`)
	})
	inTab(t, browser, "a small screen has a drawer for the channels", func(_ *testing.T, p *tab) {
		p.load("/", 390, 800)
		p.is("it is closed", `getComputedStyle($("side")).visibility === "hidden"`)
		p.click("#menu")
		p.until("it opens", `$("side").getBoundingClientRect().left === 0 && $("menu").ariaExpanded === "true"`)
		p.click("[data-channel=C0PAYMENTS]")
		p.until("and closes when one goes", `$("channel-title").textContent === "# payments" && getComputedStyle($("side")).visibility === "hidden"`)
		p.is("all buttons have names", `[...document.querySelectorAll("button, textarea, select, input:not([hidden])")].every((b) => b.textContent.trim() || b.ariaLabel || b.closest("label"))`)
	})
}

// run evaluates statements for their effect.
func run(statements string) chromedp.Action[chromedp.Void] {
	eval := chromedp.Evaluate[string](`(() => { ` + statements + `; return ""; })()`)
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := eval(ctx, t)
		return chromedp.Void{}, err
	}
}
