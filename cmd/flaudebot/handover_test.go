package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// byConfig has the bot of a world hand turns over in the machines' configs.
func byConfig(w *split) *split {
	w.env = append(append([]string{}, w.env...), "FLAUDEBOT_HANDOVER=config")
	return w
}

// TestHandoverByConfig: a thread whose turns are handed over in the machine's config is a thread like any other.
func TestHandoverByConfig(t *testing.T) {
	t.Parallel()
	w := byConfig(splitWorld(t))
	serve := func() *proc { return start(t, w.env, "serve") }
	bot := serve()
	if !strings.Contains(bot.logs(), "FLAUDEBOT_HANDOVER=config: prompts and secrets are in the config of the machines") {
		t.Errorf("at its start the bot does not warn:\n%s", tail(bot.logs(), 2000))
	}
	general := w.channel("general")
	ask := func(t *testing.T, root, text, code, want string) {
		t.Helper()
		if got, exit := w.answer(general, root, w.say(member, general, root, text)); exit != code || !strings.Contains(got, want) {
			t.Errorf("answer to %q = %q (exit %s), want %q (exit %s)", text, got, exit, want, code)
		}
	}
	root := w.say(member, general, "", mention+"remember the number 42")
	if text, code := w.answer(general, root, root); code != "0" {
		t.Fatalf("answer = %q (exit %s)", text, code)
	}
	t.Run("a reply is the next turn of the same conversation", func(t *testing.T) {
		ask(t, root, "what number did I ask you to remember?", "0", "42")
	})
	t.Run("a file stays on the volume, and the repository was cloned", func(t *testing.T) {
		ask(t, root, "write notes.txt: kept", "0", "")
		ask(t, root, "run: cat notes.txt && ls repo", "0", "greet.sh")
	})
	t.Run("a failing turn says so and the thread goes on", func(t *testing.T) {
		ask(t, root, "fail with 3", "3", "")
		ask(t, root, "what number did I ask you to remember?", "0", "42")
	})
	t.Run("what Claude runs finds neither prompt nor secrets of what was handed over", func(t *testing.T) {
		ask(t, root, "run: ls -A /run/flaudebot; env; cat /proc/1/environ 2>&1 | tr '\\0' '\\n'", "0", "git.sock")
		if text, _ := w.answer(general, root, w.say(member, general, root, "run: ls -A /run/flaudebot; env")); strings.Contains(text, "handed") || strings.Contains(text, "sk-ant-local") {
			t.Errorf("Claude's commands see %q", text)
		}
	})
	t.Run("Stop stops a turn", func(t *testing.T) {
		ts := w.say(member, general, root, "take 120 seconds")
		w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "sleep 120") })
		w.until("a stop that is taken", func() bool {
			return w.local(member, "stop", map[string]any{"channel": general, "thread_ts": root})["ok"] == true
		})
		if text, code := w.answer(general, root, ts); code != "130" {
			t.Errorf("answer = %q (exit %s), want exit 130", text, code)
		}
	})
	t.Run("the bot dies in mid-turn", func(t *testing.T) {
		ts := w.say(member, general, root, "run: echo ran >> /data/workspace/ledger && sleep 4 && cat /data/workspace/ledger")
		w.until("the turn runs", func() bool {
			names, _ := filepath.Glob(filepath.Join(w.data, "fly", "volumes", "*", "workspace", "ledger"))
			return len(names) == 1
		})
		bot.kill()
		bot = serve()
		if text, code := w.answer(general, root, ts); code != "0" || strings.Count(text, "ran") != 1 {
			t.Errorf("answer = %q (exit %s), want that it ran once", text, code)
		}
		if n := w.answers(general, root, ts); n != 1 {
			t.Errorf("it has %d answers, want 1", n)
		}
	})
	t.Run("the machine sleeps between turns", func(t *testing.T) {
		w.until("the machine is stopped", func() bool {
			machines := flyList(t, "http://"+w.fly, "test-app", "machines")
			return len(machines) == 1 && machines[0]["state"] == "stopped"
		})
	})
	t.Run("a prompt on a machine of its own", func(t *testing.T) {
		out, err := self(t.Context(), w.env, "run", "say: forty-two").Output()
		if err != nil || string(out) != "forty-two\n" {
			t.Errorf("it printed %q, %v", out, err)
		}
	})
	t.Run("the end leaves nothing", func(t *testing.T) {
		if res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "end"}); res["ok"] != true {
			t.Fatalf("/flaude end = %v", res)
		}
		w.click(t, map[string]any{"channel": general, "ts": w.whispered(t, member, general, "", "files in no repository"), "action_id": "end"})
		w.until("machine and volume are gone", func() bool {
			return len(flyList(t, "http://"+w.fly, "test-app", "machines")) == 0 && len(flyList(t, "http://"+w.fly, "test-app", "volumes")) == 0
		})
	})
	t.Run("the log holds no prompt, no answer and no secret", func(t *testing.T) {
		for _, word := range []string{"remember", "notes.txt", "fly-local", "sk-ant-local"} {
			if strings.Contains(bot.logs(), word) {
				t.Errorf("the log holds %q", word)
			}
		}
	})
}

// TestChangesByConfig: the diff of a turn and its files come by way of the machine's log.
func TestChangesByConfig(t *testing.T) {
	t.Parallel()
	changes(t, byConfig(splitWorld(t)))
}

// TestChangesByConfigCLI is the same with the real Claude Code.
func TestChangesByConfigCLI(t *testing.T) {
	t.Parallel()
	realClaude(t)
	changes(t, byConfig(splitWorld(t, "--agent", "cli")))
}
