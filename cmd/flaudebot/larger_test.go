package main

import (
	"strings"
	"testing"
)

// TestLarger: a session whose machine ran out of memory, and one whose volume is full, go on with more at the press of a button, and keep it.
func TestLarger(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, append(w.env, "FLAUDEBOT_GUEST=shared-1x:1024"), "serve")
	general := w.channel("general")
	memory := func(t *testing.T, w *split, root string) any {
		config, _ := w.machineOf(t, root)["config"].(map[string]any)
		guest, _ := config["guest"].(map[string]any)
		return guest["memory_mb"]
	}
	pressed := func(t *testing.T, w *split, root, ts string) string {
		t.Helper()
		offer := w.offered(t, general, root, "larger")
		if !strings.HasSuffix(offer.Turn, ":"+ts) {
			t.Fatalf("the button belongs to %s", offer.Turn)
		}
		for range 2 { // pressed twice is wanted once
			w.click(t, map[string]any{"channel": general, "ts": offer.TS, "action_id": "larger"})
		}
		return ts + "-retry-" + offer.TS
	}

	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		w := w.in(t)
		root := w.say(member, general, "", mention+"run: echo ran >> runs; wc -l < runs; sleep $(test $(wc -l < runs) -gt 1 && echo 0 || echo 40)")
		w.until("it is at work", func() bool { return len(w.onVolumes(t, "runs")) > 0 })
		killMachine(true)(w, general, root)
		if text, code := w.answer(general, root, root); code != "137" || !hasAll(text, "ran out of memory", "on a larger machine with the button") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		again := pressed(t, w, root, root)
		if text, code := w.answer(general, root, again); code != "0" || !strings.Contains(text, "\n2\n") {
			t.Errorf("answer = %q (exit %s), want that of its second run", text, code)
		}
		if got := memory(t, w, root); got != 2048.0 {
			t.Errorf("it ran with %v MB, want twice as many", got)
		}
		if text, code := w.answer(general, root, w.say(member, general, root, "run: wc -l < runs")); code != "0" || !strings.Contains(text, "\n2\n") {
			t.Errorf("answer = %q (exit %s), want that it ran twice in all", text, code)
		}
		if got := memory(t, w, root); got != 2048.0 {
			t.Errorf("the next turn ran with %v MB", got)
		}
	})
	t.Run("disk", func(t *testing.T) {
		t.Parallel()
		w := w.in(t)
		root := w.say(member, general, "", mention+"remember the number 42")
		if text, code := w.answer(general, root, root); code != "0" {
			t.Fatalf("answer = %q (exit %s)", text, code)
		}
		mach := w.machineOf(t, root)
		w.until("a machine that sleeps", func() bool { return w.machineOf(t, root)["state"] == "stopped" })
		w.flyPost(t, "/local/trouble", toJSON(t, map[string]any{"machine": mach["id"], "gb_of_mb": 12}))
		ts := w.say(member, general, root, "run: (head -c 14M /dev/zero > big && ls -s big) || seq 3000") // which the conversation has no room for
		if text, code := w.answer(general, root, ts); code != "1" || !hasAll(text, "volume is full", "on a larger one with the button") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		again := pressed(t, w, root, ts)
		if text, code := w.answer(general, root, again); code != "0" || !strings.Contains(text, "14336 big") {
			t.Errorf("answer = %q (exit %s), want that it fits", text, code)
		}
		if got := w.volumeOf(t, mach)["size_gb"]; got != 2.0 {
			t.Errorf("the volume has %v GB, want 2", got)
		}
		if text, code := w.answer(general, root, w.say(member, general, root, "what number did I ask you to remember?")); code != "0" || !strings.Contains(text, "42") {
			t.Errorf("answer = %q (exit %s), want the same conversation", text, code)
		}
		if n := w.answers(general, root, again); n != 1 {
			t.Errorf("it was answered %d times", n)
		}
	})
}
