package bot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

// refusals are the answers by which Slack refuses a message for its form.
func refusals() []string {
	return []string{
		"invalid_blocks", "invalid_blocks_format", "invalid_attachments", "msg_blocks_too_long", "msg_too_long", "msg_too_large",
		"attachment_payload_limit_exceeded", "too_many_attachments", "block_mismatch", "invalid_arguments", "no_text",
	}
}

// TestRefusedForm shows that whatever Slack refuses for its form is said in a simpler one: nothing is dropped, and nothing is said twice.
func TestRefusedForm(t *testing.T) {
	t.Parallel()
	const markdown = "# Findings\n\n| a | b |\n|---|---|\n| **1** | 2 |"
	for _, code := range refusals() {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			ctx := t.Context()
			refuse := func(method string) {
				w.fault(map[string]any{"method": method, "nth": 1, "body": fmt.Sprintf(`{"ok":false,"error":%q}`, code)})
			}
			begin := func() (sessions.Session, sessions.Turn) {
				root := w.say(member, general, "", "please")
				return turnOf(root, root)
			}

			s, turn := begin()
			refuse("chat.postMessage")
			if err := w.bot.Finish(ctx, s, turn, "", outcome(markdown), false); err != nil {
				t.Fatalf("an answer: %v", err)
			}
			got := w.thread(general, turn.TS)
			if strings.Count(got, "*Findings*") != 1 || !has(got, "• a: *1*; b: 2") || has(got, `"markdown"`) || !has(got, `"last":true`) {
				t.Errorf("an answer that was refused as blocks: thread = %s, want it once as plain text, found again by its metadata", got)
			}

			s, turn = begin()
			refuse("chat.postMessage")
			refuse("chat.postMessage")
			if err := w.bot.Finish(ctx, s, turn, "", outcome(markdown), false); err != nil {
				t.Fatalf("an answer as a file: %v", err)
			}
			if got := w.thread(general, turn.TS); strings.Count(got, `"name":"answer-1.md"`) != 1 || !has(got, "The answer is in the file answer-1.md.") {
				t.Errorf("an answer that was refused as text: thread = %s, want a file", got)
			}

			s, turn = begin()
			refuse("chat.postMessage")
			refuse("chat.postMessage")
			w.fault(map[string]any{"method": "files.getUploadURLExternal", "nth": 1, "body": `{"ok":false,"error":"file_uploads_disabled"}`})
			if err := w.bot.Finish(ctx, s, turn, "", outcome(markdown), false); err != nil {
				t.Fatalf("an answer that nothing takes: %v", err)
			}
			if got := w.thread(general, turn.TS); !has(got, "*Findings*") {
				t.Errorf("an answer that was refused as a file: thread = %s, want what fits", got)
			}

			s, turn = begin()
			refuse("chat.postMessage")
			ts, err := w.bot.Begin(ctx, s, turn, false)
			if err != nil || !has(w.thread(general, turn.TS), "*Starting*") {
				t.Fatalf("a live message: %v", err)
			}
			refuse("chat.update")
			w.bot.Progress(ctx, s, turn, ts, sessions.Progress{Step: sessions.StepRunning, Since: time.Now(), Tool: "Bash", On: "make test"})
			w.until("the live message as text", func() bool { return has(w.thread(general, turn.TS), "make test") })
			w.bot.Quiet(turn)
			refuse("chat.update")
			if err := w.bot.Finish(ctx, s, turn, ts, outcome("done it"), false); err != nil || !has(w.thread(general, turn.TS), "*Done*") {
				t.Errorf("the end of a live message: %v", err)
			}

			refuse("chat.postMessage")
			w.bot.say(ctx, turn.Thread, "", "a note", section("a note"))
			if got := w.thread(general, turn.TS); strings.Count(got, `"a note"`) != 1 {
				t.Errorf("a note: thread = %s, want it once", got)
			}
			refuse("chat.postEphemeral")
			w.bot.whisperIn(ctx, general, turn.TS, "U0MEMBER", offering("for you", button("end", "End", turn.Thread.Key(), "")))
			if got := w.whispered(member, general, turn.TS); !has(got, "for you") {
				t.Errorf("whispered = %s, want it as text", got)
			}
		})
	}
}
