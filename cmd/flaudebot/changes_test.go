package main

import (
	"archive/zip"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"flaudebot/local/chromium"
)

// TestChanges shows what a turn changed below its answer, with its diff and its files; TestRealClaudeChanges does so with the real Claude Code.
func TestChanges(t *testing.T) {
	t.Parallel()
	changes(t, splitWorld(t))
}

func TestRealClaudeChanges(t *testing.T) {
	t.Parallel()
	realClaude(t)
	changes(t, splitWorld(t, "--agent", "cli"))
}

func changes(t *testing.T, w *split) {
	t.Helper()
	start(t, w.env, "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"write repo/notes.txt: from Claude")
	w.answer(general, root, root)
	if text := w.offered(t, general, root, "changes_diff").Text; !hasAll(text, "*Changed 1 file* · +1 −0 lines\n`repo/notes.txt` new · +1 −0\n") {
		t.Errorf("the answer says %q", text)
	}
	if text, code := w.answer(general, root, w.say(member, general, root, "run: cd repo && git add -A && git commit -qm notes && echo more >> notes.txt && echo x > x.bin")); code != "0" ||
		!hasAll(text, "*Changed 2 files* · +2 −0 lines", "`repo/notes.txt` · +1 −0", "`repo/x.bin` new") {
		t.Errorf("the answer says %q", text)
	}
	second := w.offered(t, general, root, "changes_diff")
	modal := func() string {
		return toJSON(t, w.local(member, "seen", map[string]any{"channel": general})["views"])
	}
	press := func(what map[string]any) {
		t.Helper()
		if res := w.local(member, "click", what); res["ok"] != true {
			t.Fatalf("click on %v = %v", what, res)
		}
	}
	view := func() any {
		return items(w.local(member, "seen", map[string]any{"channel": general})["views"])[0]["id"]
	}
	press(map[string]any{"channel": general, "ts": second.TS, "action_id": "changes_diff"})
	w.until("the diff in a modal", func() bool { return hasAll(modal(), `b/repo/notes.txt`, `+more\n`, `+x`) })
	press(map[string]any{"view_id": view(), "action_id": "changes_diff_file"})
	w.until("the diff as a file", func() bool { return strings.Contains(w.fetched(t, general, root, "changes.diff"), "+more\n") })
	press(map[string]any{"channel": general, "ts": second.TS, "action_id": "changes_files"})
	w.until("the files in a modal", func() bool { return hasAll(modal(), "static_select", "repo/notes.txt") })
	press(map[string]any{"view_id": view(), "action_id": "changes_get", "value": "1"})
	w.until("the file", func() bool { return w.fetched(t, general, root, "notes.txt") == "from Claude\nmore\n" })
	w.until("a sentence about it", func() bool {
		return strings.Contains(toJSON(t, w.thread(general, root)), "`repo/notes.txt` is above, as it is now.")
	})
	press(map[string]any{"channel": general, "ts": second.TS, "action_id": "changes_files"})
	w.until("the files in a modal again", func() bool { return hasAll(modal(), "static_select", "changes_get_all") })
	press(map[string]any{"view_id": view(), "action_id": "changes_get_all"})
	w.until("all files, in one", func() bool { return w.fetched(t, general, root, "changes.zip") != "" })
	if got, want := unzipped(t, w.fetched(t, general, root, "changes.zip")), map[string]string{"repo/notes.txt": "from Claude\nmore\n", "repo/x.bin": "x\n"}; !maps.Equal(got, want) {
		t.Errorf("the file of all files holds %q, want %q", got, want)
	}
	// None of that was a turn of the conversation.
	if text, _ := w.answer(general, root, w.say(member, general, root, "say: hello")); !strings.Contains(text, "turn 3") || strings.Contains(text, "Changed") {
		t.Errorf("the next answer is %q, want the third turn, which changes nothing", text)
	}
}

// offered is the last message of a thread with a button of that action.
func (w *slackWorld) offered(t *testing.T, channel, thread, action string) message {
	t.Helper()
	var found message
	w.until("a button "+action, func() bool {
		for _, m := range w.thread(channel, thread) {
			if has(t, m.Raw, `"action_id":"`+action+`"`) {
				found = m
			}
		}
		return found.TS != ""
	})
	return found
}

// whispered waits for a message with a text that only this person sees in a thread, and returns its ts.
func (w *slackWorld) whispered(t *testing.T, token, channel, thread, text string) (ts string) {
	t.Helper()
	w.until("that "+text, func() bool {
		for _, m := range items(w.local(token, "seen", map[string]any{"channel": channel, "thread_ts": thread})["ephemeral"]) {
			if has(t, m, text) {
				ts, _ = m["ts"].(string)
			}
		}
		return ts != ""
	})
	return ts
}

// fetched is the content of a file in a thread, "" if there is none.
func (w *slackWorld) fetched(t *testing.T, channel, thread, name string) string {
	t.Helper()
	for _, m := range items(w.api(admin, "conversations.replies", url.Values{"channel": {channel}, "ts": {thread}})["messages"]) {
		for _, f := range items(m["files"]) {
			if f["name"] != name {
				continue
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f["url_private"].(string), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+member)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
	}
	return ""
}

// unzipped is what a ZIP file holds: name → content.
func unzipped(t *testing.T, content string) map[string]string {
	t.Helper()
	all, err := zip.NewReader(strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range all.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name] = string(raw)
	}
	return out
}

// TestPageShowsChanges looks at the changes in a browser, as people do.
func TestPageShowsChanges(t *testing.T) {
	t.Parallel()
	ctx := chromium.Open(t, 1280, 860, false)
	w := demoWorld(t, nil)
	open(t, ctx, w.base)
	general := w.channel("general")
	root := w.say(member, general, "", mention+"run: cd repo && printf 'one\\n```\\n&lt;b&gt;two&lt;/b&gt;\\n' > notes.md && echo '# greeted' >> greet.sh")
	if text, code := w.answer(general, root, root); code != "0" {
		t.Fatalf("answer = %q (exit %s)", text, code)
	}
	do(t, ctx, "the changes stand below the answer", press(".replies"), shows("#thread .content", "Changed 2 files"), shows("#thread .content code", "repo/notes.md"))
	do(t, ctx, "Diff shows the diff", press(`#thread button.block[data-action="changes_diff"]`), shows("#modal pre code", "+<b>two</b>"), shows("#modal pre code", "+# greeted"))
	screenshot(t, ctx, "changes-diff.png")
	do(t, ctx, "and brings it as a file", press(`#modal button.block[data-action="changes_diff_file"]`), shows("#modal", "it comes into the thread"),
		press(`#modal .actions.end button`), gone(`#modal[open]`), shows("#thread .message", "changes.diff"))
	do(t, ctx, "Files shows the files", press(`#thread button.block[data-action="changes_files"]`), visible(`#modal select[data-action="changes_get"]`))
	screenshot(t, ctx, "changes-files.png")
	do(t, ctx, "and brings one", choose(`#modal select[data-action="changes_get"]`, "2"), shows("#modal", "it comes into the thread"),
		press(`#modal .actions.end button`), gone(`#modal[open]`), shows("#thread .content", "is above, as it is now"))
	screenshot(t, ctx, "changes-thread.png")
}
