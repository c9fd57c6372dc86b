package bot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// TestMarkdown shows what becomes of each construct of Markdown: testdata/markdown holds it as Claude writes it, and beside it the messages
// that are posted (FLAUDEBOT_TEST_UPDATE=1 writes them anew). Slack's checker takes each of them, and none can ping.
func TestMarkdown(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	files, err := filepath.Glob("testdata/markdown/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".md"), func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got []shown
			for _, body := range split(string(source)) {
				p := part{markdown: body, text: plainText(body)}
				got = append(got, shown{p.fallback(), p.blocks()})
			}
			thread := sessions.Thread{Team: team, Channel: general, TS: w.say(member, general, "", file)}
			for i, m := range got {
				if _, err := w.bot.post(t.Context(), thread, slack.MsgOptionText(m.Text, false), slack.MsgOptionBlocks(m.Blocks...)); err != nil {
					t.Errorf("message %d: Slack refuses it: %v", i+1, err)
				}
			}
			goldenFile(t, strings.TrimSuffix(file, ".md")+".json", got)
		})
	}
}
