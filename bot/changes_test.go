package bot

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// changed is what a turn changed: so many files, beside those that are named.
func changed(files int, named ...runner.Change) *runner.Changes {
	c := &runner.Changes{Files: named, Total: len(named) + files, Added: 12, Removed: 4, DiffBytes: 100}
	for i := range files {
		c.Files = append(c.Files, runner.Change{Path: fmt.Sprintf("app/file-%d.go", i), State: runner.ChangeModified, Added: 2, Removed: 1})
	}
	return c
}

func hostile() runner.Change {
	return runner.Change{Path: "a`<!here>\n<https://evil.example|b>\u202e" + strings.Repeat("x", 100), State: runner.ChangeAdded, Added: 1}
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, want string }{
		{"app/main.go", "`app/main.go`"},
		{"a`b", "`aˋb`"},
		{"<!here> & <@U0ADMIN>", "`&lt;!here&gt; &amp; &lt;@U0ADMIN&gt;`"},
		{"two\nlines\x1b[31m", "`two\uFFFDlines\uFFFD[31m`"},
		{"gpj.\u202eexe", "`gpj.\uFFFDexe`"},
		{"very/" + strings.Repeat("long/", 30) + "name.go", "`…" + ("very/" + strings.Repeat("long/", 30) + "name.go")[162-69:] + "`"},
	} {
		if got := codeName(c.name); got != c.want {
			t.Errorf("codeName(%q) = %s, want %s", c.name, got, c.want)
		}
		if n := utf8.RuneCountInString(plainName(c.name)); n > maxName {
			t.Errorf("plainName(%q) has %d characters", c.name, n)
		}
	}
}

func TestChangedFiles(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"go")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	s, turn := session(root), *w.sessions.turn(root)
	changes := changed(7, runner.Change{Path: "app/gone.go", State: runner.ChangeRemoved, Removed: 3}, hostile())
	if err := w.bot.Finish(t.Context(), s, turn, "", sessions.Outcome{Outcome: runner.Outcome{Changes: changes}, Answer: "Done.", Number: 1}, false); err != nil {
		t.Fatal(err)
	}
	answerTS := ""
	for _, m := range w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {root}})["messages"].([]any) {
		if text := w.text(m); has(text, actDiff, actFiles) {
			answerTS, _ = m.(map[string]any)["ts"].(string)
		}
	}
	if got := w.thread(general, root); answerTS == "" || !has(got, "*Changed 9 files* · +12 −4 lines", "`app/gone.go` removed · +0 −3", "and 4 more") || has(got, "<!here>") {
		t.Fatalf("the thread says %s", got)
	}
	modals := func() string {
		return w.text(w.local(member, "seen", map[string]any{"channel": general})["views"])
	}
	// errand waits for the one that a press asks for.
	seen := map[sessions.TurnID]bool{}
	errand := func(t *testing.T) sessions.Turn {
		t.Helper()
		var found sessions.Turn
		w.until("an errand", func() bool {
			return w.sessions.count(func(f *fakeSessions) int {
				for _, one := range f.accepted {
					if one.Kind == sessions.KindErrand && !seen[one.ID] {
						found = one
						return 1
					}
				}
				return 0
			}) == 1
		})
		seen[found.ID] = true
		return found
	}
	finish := func(t *testing.T, e sessions.Turn, o runner.Outcome, payload string, look bool) {
		t.Helper()
		o.PayloadBytes = int64(len(payload))
		if err := w.bot.Finish(t.Context(), s, e, "", sessions.Outcome{Outcome: o, Payload: []byte(payload)}, look); err != nil {
			t.Fatal(err)
		}
	}
	press := func(t *testing.T, what map[string]any) {
		t.Helper()
		if res := w.local(member, "click", what); res["ok"] != true {
			t.Fatalf("click on %v = %v", what, res)
		}
	}
	view := func() string {
		views, _ := w.local(member, "seen", map[string]any{"channel": general})["views"].([]any)
		if len(views) == 0 {
			return ""
		}
		id, _ := views[0].(map[string]any)["id"].(string)
		return id
	}
	// files counts the files of that name in the thread, and returns the last one's size.
	files := func(name string) (n int, size float64) {
		for _, m := range w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {root}})["messages"].([]any) {
			list, _ := m.(map[string]any)["files"].([]any)
			for _, f := range list {
				if f := f.(map[string]any); f["name"] == name {
					n++
					size, _ = f["size"].(float64)
				}
			}
		}
		return n, size
	}

	t.Run("the diff comes into a modal, and from there into the thread", func(t *testing.T) {
		press(t, map[string]any{"channel": general, "ts": answerTS, "action_id": actDiff})
		e := errand(t)
		if e.Errand.Kind != runner.ErrandDiff || e.Errand.Of != string(turn.ID) || !e.Errand.Private || e.Errand.View != view() {
			t.Errorf("the errand is %+v of the modal %s", e.Errand, view())
		}
		if got := modals(); !has(got, sayFetching) {
			t.Errorf("the modal says %s", got)
		}
		diff := "--- a/x\n+++ b/x\n+```<!here>\n" + strings.Repeat("+"+strings.Repeat("y", 99)+"\n", 500)
		finish(t, e, runner.Outcome{Changes: changes}, diff, false)
		if got := modals(); !has(got, "rich_text_preformatted", "+```<!here>", sayDiffGoesOn, actDiffFile) {
			t.Errorf("the modal says %.2000s", got)
		}
		press(t, map[string]any{"view_id": view(), "action_id": actDiffFile})
		e = errand(t)
		if e.Errand.Kind != runner.ErrandDiff || e.Errand.Of != string(turn.ID) || e.Errand.Private || e.Thread != s.Thread {
			t.Errorf("the errand is %+v in %v", e.Errand, e.Thread)
		}
		w.until("the modal says what comes", func() bool { return has(modals(), sayIntoThread) })
		for _, again := range []bool{false, true} { // the second one is a replica that took it over
			finish(t, e, runner.Outcome{Changes: changes}, diff, again)
		}
		if n, size := files("changes.diff"); n != 1 || int(size) != len(diff) || !has(w.thread(general, root), "The diff is in the file above. *Changed 9 files*") {
			t.Errorf("%d files, the last of %v bytes; the thread says %s", n, size, w.thread(general, root))
		}
	})
	t.Run("files are picked, one or all", func(t *testing.T) {
		press(t, map[string]any{"channel": general, "ts": answerTS, "action_id": actFiles})
		e := errand(t)
		if e.Errand.Kind != runner.ErrandChanges || !e.Errand.Private {
			t.Errorf("the errand is %+v", e.Errand)
		}
		finish(t, e, runner.Outcome{Changes: changes}, "", false)
		if got := modals(); !has(got, "static_select", "app/file-0.go", actGetAll) || has(got, "app/gone.go") {
			t.Errorf("the modal says %s", got)
		}
		press(t, map[string]any{"view_id": view(), "action_id": actGet, "value": "3"})
		e = errand(t)
		if e.Errand.Kind != runner.ErrandGet || e.Errand.File != 3 || e.Errand.Of != string(turn.ID) || e.Text != "Fetch app/file-0.go" {
			t.Errorf("the errand is %+v: %s", e.Errand, e.Text)
		}
		finish(t, e, runner.Outcome{Changes: &runner.Changes{Files: changes.Files[2:3], Total: 1}}, "package app\n", false)
		if n, size := files("file-0.go"); n != 1 || size != 12 || !has(w.thread(general, root), "`app/file-0.go` is above, as it is now.") {
			t.Errorf("%d files; the thread says %s", n, w.thread(general, root))
		}
		press(t, map[string]any{"channel": general, "ts": answerTS, "action_id": actFiles})
		finish(t, errand(t), runner.Outcome{Changes: changes}, "", false)
		press(t, map[string]any{"view_id": view(), "action_id": actGetAll})
		e = errand(t)
		if e.Errand.Kind != runner.ErrandGet || e.Errand.File != 0 {
			t.Errorf("the errand is %+v", e.Errand)
		}
		finish(t, e, runner.Outcome{Changes: &runner.Changes{Files: changes.Files[2:], Total: 8, Partial: true}}, "PK", false)
		if n, _ := files("changes.zip"); n != 1 || !has(w.thread(general, root), "The file above holds 7 of the 8 files that changed") {
			t.Errorf("%d files; the thread says %s", n, w.thread(general, root))
		}
	})
	t.Run("a file of the same name may be fetched again, and an empty one is told", func(t *testing.T) {
		one := sessions.Turn{
			ID: errandID(s.Thread, "9.1"), Kind: sessions.KindErrand, Thread: s.Thread, User: "U0MEMBER", TS: "errand-9.1", Text: "Fetch it", At: time.Now().UTC(),
			Errand: &sessions.Errand{Errand: runner.Errand{Kind: runner.ErrandGet, Of: string(turn.ID), File: 3}},
		}
		finish(t, one, runner.Outcome{Changes: &runner.Changes{Files: changes.Files[2:3], Total: 1}}, "package app2\n", true)
		if n, size := files("file-0.go"); n != 2 || size != 13 {
			t.Errorf("%d files, the last of %v bytes", n, size)
		}
		one.ID, one.TS = errandID(s.Thread, "9.2"), "errand-9.2"
		finish(t, one, runner.Outcome{Changes: &runner.Changes{Files: changes.Files[2:3], Total: 1}}, "", false)
		if !has(w.thread(general, root), sayEmptyFile) {
			t.Error("nobody is told that the file is empty")
		}
	})
	t.Run("who may not use the bot gets nothing", func(t *testing.T) {
		before := w.sessions.count(func(f *fakeSessions) int { return len(f.accepted) })
		w.local(guest, "click", map[string]any{"channel": general, "ts": answerTS, "action_id": actDiff})
		w.until("a refusal", func() bool { return has(w.whispered(guest, general, root), sayNotYou) })
		if after := w.sessions.count(func(f *fakeSessions) int { return len(f.accepted) }); after != before {
			t.Error("an errand was asked for")
		}
	})
	t.Run("a modal that Slack refuses still offers the file", func(t *testing.T) {
		press(t, map[string]any{"channel": general, "ts": answerTS, "action_id": actDiff})
		e := errand(t)
		w.fault(map[string]any{"method": "views.update", "nth": 1, "body": `{"ok":false,"error":"invalid_arguments"}`})
		finish(t, e, runner.Outcome{Changes: changes}, "+x\n", false)
		if got := modals(); !has(got, "*Changed 9 files*", actDiffFile) || has(got, "rich_text") {
			t.Errorf("the modal says %s", got)
		}
	})
	t.Run("a modal that was closed is no end", func(t *testing.T) {
		press(t, map[string]any{"channel": general, "ts": answerTS, "action_id": actFiles})
		e := errand(t)
		w.local(member, "submit", map[string]any{"view_id": view(), "close": true})
		finish(t, e, runner.Outcome{Changes: changes}, "", false)
		w.until("a message that one person sees", func() bool { return has(w.whispered(member, general, root), actGet) })
		seen := w.local(member, "seen", map[string]any{"channel": general, "thread_ts": root})["ephemeral"].([]any)
		ts, _ := seen[len(seen)-1].(map[string]any)["ts"].(string)
		press(t, map[string]any{"channel": general, "ts": ts, "action_id": actGet, "value": "4"})
		if e := errand(t); e.Errand.File != 4 || e.Thread != s.Thread || e.Errand.Of != string(turn.ID) {
			t.Errorf("the errand is %+v in %v", e.Errand, e.Thread)
		}
	})
	t.Run("one that has to wait says so, unless it is through by then", func(t *testing.T) {
		w.sessions.set(func(f *fakeSessions) { f.status.Queued = make([]sessions.Turn, 2) })
		defer w.sessions.set(func(f *fakeSessions) { f.status.Queued = nil })
		press(t, map[string]any{"channel": general, "ts": answerTS, "action_id": actDiff})
		w.until("its place", func() bool { return has(modals(), sayErrandPlace(2)) })
	})
}
