package main

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// TestPulls shows a turn's work on its way to a pull request, and the rest of it to a branch before the session ends;
// TestRealClaudePulls does so with the real Claude Code.
func TestPulls(t *testing.T) {
	t.Parallel()
	pulls(t, demoWorld(t, nil))
}

func TestRealClaudePulls(t *testing.T) {
	t.Parallel()
	real := realClaude(t)
	pulls(t, demoWorld(t, []string{"FLAUDEBOT_TEST_CLAUDE=" + real}, "--agent", "cli"))
}

var pullPage = regexp.MustCompile(`http://127\.0\.0\.1:\d+/acme/repo/pull/1`)

func pulls(t *testing.T, w *slackWorld) {
	t.Helper()
	general := w.channel("general")
	root := w.say(member, general, "", mention+"run: cd repo && echo hi > notes.txt && git add -A && git commit -qm Notes --no-verify && git log -1 --format='%an%n%(trailers)'")
	link, _ := w.api(member, "chat.getPermalink", url.Values{"channel": {general}, "message_ts": {root}})["permalink"].(string)
	text, code := w.answer(general, root, root)
	if code != "0" || !strings.Contains(text, "Claude\nRequested-by: ") || !hasAll(text, "(Slack U0MEMBER)", "Slack-thread: "+link) {
		t.Errorf("the commit says %q", text)
	}
	w.answer(general, root, w.say(member, general, root, "run: cd repo && echo more >> notes.txt; git push -q origin HEAD:main 2>&1 | head -1"))

	// A pull request with what is committed and what is not.
	offer := w.offered(t, general, root, "pull")
	w.click(t, map[string]any{"channel": general, "ts": offer.TS, "action_id": "pull"})
	w.submit(t, general, map[string]map[string]any{
		"title": {"value": "Add notes"}, "body": {"value": "As asked."}, "branch": {"value": "flaudebot/notes"}, "base": {"value": ""},
		"rest": {"selected_option": map[string]any{"value": "commit"}},
	})
	page := ""
	w.until("the pull request", func() bool {
		page = pullPage.FindString(toJSON(t, w.thread(general, root)))
		return page != ""
	})
	if got := read(t, page); !hasAll(got, "Add notes", "As asked.", "Requested-by: ", "from flaudebot/notes into main", "notes.txt") || strings.Count(got, "Author: Claude") != 2 {
		t.Errorf("its page says %s", got)
	}
	if text, _ := w.answer(general, root, w.say(member, general, root, "run: cd repo && git status --short --branch && env && git config --list")); !strings.Contains(text, "## flaudebot/notes...origin/flaudebot/notes") ||
		strings.Contains(text, forgeToken) || !strings.Contains(text, "turn 3") {
		t.Errorf("the next turn finds %q", text)
	}

	// What came since is pushed before the session ends.
	w.answer(general, root, w.say(member, general, root, "run: echo last > repo/last.txt"))
	w.say(member, general, root, "!end")
	w.click(t, map[string]any{"channel": general, "ts": w.offered(t, general, root, "save").TS, "action_id": "save"})
	w.until("the end", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "The session has ended") })
	if said := toJSON(t, w.thread(general, root)); !hasAll(said, "The session has ended: 4 turns, ", ", 2 files changed, 1 pull request.") || strings.Contains(said, "went with it") {
		t.Errorf("the summary is not in the thread: %s", tail(said, 3000))
	}
	saved := regexp.MustCompile(`http://127\.0\.0\.1:\d+/acme/repo/tree/flaudebot/saved-[0-9a-f]{8}`).FindString(toJSON(t, w.thread(general, root)))
	if saved == "" || !hasAll(read(t, saved), "Work of a session that ended", "last.txt") {
		t.Errorf("the branch %s has %s", saved, read(t, saved))
	}
}

// TestMergeRequest: at GitLab the same leads to a merge request, by its API, and is called that.
func TestMergeRequest(t *testing.T) {
	t.Parallel()
	git := freeAddr(t)
	w := demoWorld(t, []string{"FLAUDEBOT_FORGES=" + git + "=gitlab"}, "--git", git)
	general := w.channel("general")
	root := w.say(member, general, "", mention+"run: cd repo && echo hi > notes.txt")
	w.answer(general, root, root)
	offer := w.offered(t, general, root, "pull")
	if !has(t, offer.Raw, `"text":"Open merge request"`) || has(t, offer.Raw, "pull request") {
		t.Errorf("the button is in %s, want it to say merge request", toJSON(t, offer.Raw))
	}
	w.click(t, map[string]any{"channel": general, "ts": offer.TS, "action_id": "pull"})
	w.submit(t, general, map[string]map[string]any{
		"title": {"value": "Add notes"}, "body": {"value": "As asked."}, "branch": {"value": "flaudebot/notes"}, "base": {"value": ""},
		"rest": {"selected_option": map[string]any{"value": "commit"}},
	})
	page := "http://" + git + "/acme/repo/-/merge_requests/1"
	w.until("the merge request", func() bool { return has(t, w.thread(general, root), page) })
	if said := toJSON(t, w.thread(general, root)); !hasAll(said, "Merge request !1", "Open merge request: ") || strings.Contains(strings.ToLower(said), "pull request") {
		t.Errorf("the thread says %s, want merge request and no pull request", said)
	}
	if got := read(t, page); !hasAll(got, "Merge request !1: from flaudebot/notes into main", "Add notes", "As asked.", "Requested-by: ", "notes.txt") {
		t.Errorf("its page says %s", got)
	}
}

// click presses a button.
func (w *slackWorld) click(t *testing.T, what map[string]any) {
	t.Helper()
	if res := w.local(member, "click", what); res["ok"] != true {
		t.Fatalf("click on %v = %v", what, res)
	}
}

// submit sends the modal that the member has open, once there is one.
func (w *slackWorld) submit(t *testing.T, channel string, values map[string]map[string]any) {
	t.Helper()
	filled := map[string]any{}
	for block, v := range values {
		v["type"] = "plain_text_input"
		if v["selected_option"] != nil {
			v["type"] = "static_select"
		}
		filled[block] = map[string]any{"value": v}
	}
	var open []map[string]any
	w.until("a modal", func() bool {
		open = items(w.local(member, "seen", map[string]any{"channel": channel})["views"])
		return len(open) > 0
	})
	if res := w.local(member, "submit", map[string]any{"view_id": open[0]["id"], "values": filled}); res["ok"] != true || strings.Contains(toJSON(t, res), "errors") {
		t.Fatalf("submit = %v", res)
	}
}

// read is what a page says.
func read(t *testing.T, address string) string {
	t.Helper()
	res, err := http.Get(address) //nolint:noctx // of a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
