package bot

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"flaudebot/runner"
	"flaudebot/sessions"
)

func TestDetails(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	o := sessions.Outcome{
		Outcome: runner.Outcome{
			StartedAt: at.Add(40 * time.Second), EndedAt: at.Add(100 * time.Second), CostUSD: 0.5, Model: "claude-opus",
			Changes: &runner.Changes{Total: 2, Added: 1200, Removed: 4},
			Usage:   &runner.Usage{Input: 1000, Output: 20, CacheRead: 1234567, CacheWrite: 5, Steps: 4}, Tools: []runner.ToolUse{{Tool: "Bash", Times: 3}},
		},
		Answer: "done", Number: 7, Claimed: at.Add(10 * time.Second),
	}
	t.Run("waits are those behind others, for the machine, and of work", func(t *testing.T) {
		t.Parallel()
		got := strings.Join(detailLines(detailOf(sessions.Turn{At: at}, o)), "\n")
		for _, want := range []string{
			"*Asked*: <!date^1777863721^{date_short_pretty} {time}|4 May 03:02 UTC>", "*Waits*: 10 s behind other turns, 30 s until the machine was at work\n*Work*: 1 min 0 s",
			"*Model*: claude-opus", "$0.5000", "1,000 in, 20 out; cache: 1,234,567 read, 5 written", "*Steps*: 4", "*Tools*: Bash 3×", "*Files*: 2 changed, 1,200 lines added, 4 removed", "*Exit code*: 0",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("details = %s, want %q in them", got, want)
			}
		}
	})
	t.Run("a machine whose clock is behind has waited for nothing", func(t *testing.T) {
		t.Parallel()
		behind := o
		behind.StartedAt = at.Add(-time.Hour)
		if d := detailOf(sessions.Turn{At: at}, behind); d.Woken != 0 {
			t.Errorf("waited %d s, want 0", d.Woken)
		}
	})
	t.Run("of a turn that was killed only what is known", func(t *testing.T) {
		t.Parallel()
		killed := sessions.Outcome{Outcome: runner.Outcome{ExitCode: 137}, Number: 7, Claimed: at}
		if got := detailLines(detailOf(sessions.Turn{At: at}, killed)); len(got) != 2 || !strings.HasPrefix(got[0], "*Asked*: ") || got[1] != "*Exit code*: 137" {
			t.Errorf("details = %q, want when it was asked, and its exit code", got)
		}
		killed.StartedAt, killed.EndedAt = at.Add(3*time.Second), at.Add(8*time.Second) // while it ran
		killed.Tools = []runner.ToolUse{{Tool: "Bash", Times: 1}}
		got := strings.Join(detailLines(detailOf(sessions.Turn{At: at}, killed)), "\n")
		if !has(got, "*Waits*: 3 s until the machine was at work\n*Work*: 5 s\n*Tools*: Bash 1×\n") || strings.Contains(got, "Cost") {
			t.Errorf("details = %s, want what it did, and no cost that nobody counted", got)
		}
	})
	t.Run("what a turn did without is said", func(t *testing.T) {
		t.Parallel()
		plain := sessions.Outcome{Outcome: runner.Outcome{StartedAt: at, EndedAt: at, Usage: &runner.Usage{Steps: 1}}, Number: 7, Claimed: at}
		if got := strings.Join(detailLines(detailOf(sessions.Turn{At: at}, plain)), "\n"); !has(got, "*Waits*: none\n*Work*: 0 s\n*Cost*: $0.0000\n", "*Tools*: none\n") {
			t.Errorf("details = %s, want waits, work, cost and tools", got)
		}
	})
	t.Run("fit into their button, whatever the tools are called", func(t *testing.T) {
		t.Parallel()
		many := o
		many.Model, many.Tools = strings.Repeat("\"é", 200), nil
		for i := range 20 {
			many.Tools = append(many.Tools, runner.ToolUse{Tool: fmt.Sprint(strings.Repeat("<\"&", 50), i), Times: 1 << 30})
		}
		b := detailButton(sessions.Turn{Kind: sessions.KindTurn, At: at}, many)
		if b == nil || utf8.RuneCountInString(b.Value) > maxValue {
			t.Fatalf("button = %+v, want one of at most %d characters", b, maxValue)
		}
	})
	t.Run("Details shows them to whoever may use the bot", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", "please")
		s, turn := turnOf(root, root)
		turn.At = at
		if err := w.bot.Finish(t.Context(), s, turn, "", o, false); err != nil {
			t.Fatal(err)
		}
		ts := w.find(root, "turn 7")
		w.local(member, "click", map[string]any{"channel": general, "ts": ts, "action_id": "details"})
		w.until("the modal", func() bool {
			got := w.text(w.local(member, "seen", map[string]any{"channel": general}))
			return has(got, "Turn 7") && has(got, "*Tools*: Bash 3×")
		})
		w.local(guest, "click", map[string]any{"channel": general, "ts": ts, "action_id": "details"})
		w.until("a guest is told", func() bool {
			return has(w.text(w.local(guest, "seen", map[string]any{"channel": general})), "full members")
		})
	})
	t.Run("what never ran has none", func(t *testing.T) {
		t.Parallel()
		if b := detailButton(sessions.Turn{Kind: sessions.KindTurn}, sessions.Outcome{}); b != nil {
			t.Errorf("button = %+v, want none", b)
		}
	})
}
