package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"flaudebot/runner"
)

// TestLanes: a follow-up finds as much of the turn before as is still there.
func TestLanes(t *testing.T) {
	t.Parallel()
	lanes(t, splitWorld(t))
}

func TestRealLanes(t *testing.T) {
	t.Parallel()
	realClaude(t)
	lanes(t, splitWorld(t, "--agent", "cli"))
}

func lanes(t *testing.T, w *split) {
	t.Helper()
	bot := start(t, append(slices.Clone(w.env), "FLAUDEBOT_LINGER=5m"), "serve")
	general := w.channel("general")
	lane := regexp.MustCompile(`\\"l\\":\\"([a-z]+)\\"`)
	// took reads how a turn began, as its details tell.
	took := func(root, ts string) runner.Lane {
		t.Helper()
		for _, m := range w.thread(general, root) {
			if found := lane.FindStringSubmatch(toJSON(t, m.Raw)); found != nil && strings.HasSuffix(m.Turn, ":"+ts) {
				return runner.Lane(found[1])
			}
		}
		t.Errorf("no details of turn %s tell how it began", ts)
		return ""
	}
	ask := func(root, words string, want runner.Lane) string {
		t.Helper()
		ts := w.say(member, general, root, words)
		if root == "" {
			root = ts
		}
		text, code := w.answer(general, root, ts)
		if code != "0" {
			t.Fatalf("%s: answer = %q (exit %s)", words, text, code)
		}
		if got := took(root, ts); got != want {
			t.Errorf("%s: lane %q, want %q", words, got, want)
		}
		return text
	}
	root := w.say(member, general, "", mention+"write repo/notes.txt: one")
	if text, code := w.answer(general, root, root); code != "0" || took(root, root) != runner.LaneMachine {
		t.Fatalf("answer = %q (exit %s)", text, code)
	}
	if text := ask(root, "run: cat repo/notes.txt; echo two >> repo/notes.txt", runner.LaneProcess); !strings.Contains(text, "one") {
		t.Errorf("answer = %q", text)
	}

	t.Run("an interrupted turn leaves the conversation and the process", func(t *testing.T) {
		ts := w.say(member, general, root, "take 60 seconds")
		w.until("the command runs", func() bool {
			return slices.ContainsFunc(w.thread(general, root), func(m message) bool {
				return m.Part == "live" && strings.HasSuffix(m.Turn, ":"+ts) && strings.Contains(m.Text, "sleep 60")
			})
		})
		w.say(member, general, root, "!stop")
		if text, code := w.answer(general, root, ts); code != "130" {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		if text := ask(root, "run: cat repo/notes.txt", runner.LaneProcess); !strings.Contains(text, "two") {
			t.Errorf("answer = %q", text)
		}
	})
	t.Run("after other settings it is another process, on the machine that runs", func(*testing.T) {
		ask(root, "model:sonnet run: cat repo/notes.txt", runner.LaneRunner)
	})
	bot.stop()
	start(t, append(slices.Clone(w.env), "FLAUDEBOT_LINGER=5m"), "serve")
	t.Run("another replica finds it as well", func(*testing.T) {
		ask(root, "model:sonnet run: cat repo/notes.txt", runner.LaneProcess)
	})
	t.Run("a stopped machine is woken, one that is gone is made on its volume", func(t *testing.T) {
		machine := func(method, more string) {
			t.Helper()
			id := w.machineOf(t, root)["id"]
			w.until("nobody holds the machine's lease", func() bool {
				return w.flyCall(t, method, fmt.Sprintf("/v1/apps/test-app/machines/%s%s", id, more), "") == http.StatusOK
			})
		}
		machine(http.MethodPost, "/stop")
		w.until("it has stopped", func() bool { return w.machineOf(t, root)["state"] == "stopped" })
		ask(root, "run: cat repo/notes.txt", runner.LaneStart)
		machine(http.MethodDelete, "?force=true")
		if text := ask(root, "run: cat repo/notes.txt", runner.LaneMachine); !strings.Contains(text, "two") {
			t.Errorf("answer = %q", text)
		}
	})
}
