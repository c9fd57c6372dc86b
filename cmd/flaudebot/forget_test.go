package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRedisForgot: a Redis that comes back empty, or as it was some seconds ago, costs nobody a turn, an answer or a conversation.
func TestRedisForgot(t *testing.T) {
	t.Parallel()
	addr, dir := freeAddr(t), t.TempDir()
	kill := startRedis(t, addr, dir)
	w := splitWorldOn(t, "redis://"+addr)
	general := w.channel("general")
	ledger := filepath.Join("/data/workspace", "ledger") // in each machine
	note := func(line, more string) string { return "run: echo " + line + " >> " + ledger + more }
	lines := func() (out []string) {
		files, _ := filepath.Glob(filepath.Join(w.data, "fly", "volumes", "*", "workspace", "ledger"))
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, strings.Fields(string(raw))...)
		}
		return out
	}
	ran := func(line string) (n int) {
		for _, l := range lines() {
			if l == line {
				n++
			}
		}
		return n
	}
	// once fails unless a message was answered once, and its command ran once.
	once := func(t *testing.T, root, ts, line string) {
		t.Helper()
		if _, code := w.answer(general, root, ts); code != "0" {
			t.Errorf("%s ended with exit %s, want 0", line, code)
		}
		if n := w.answers(general, root, ts); n != 1 {
			t.Errorf("%s has %d answers, want one", line, n)
		}
		if n := ran(line); n != 1 {
			t.Errorf("%s ran %d times, want once", line, n)
		}
	}
	twoMachines := func(t *testing.T) {
		t.Helper()
		if m, v := flyList(t, "http://"+w.fly, "test-app", "machines"), flyList(t, "http://"+w.fly, "test-app", "volumes"); len(m) != 2 || len(v) != 2 {
			t.Errorf("there are %d machines and %d volumes, want two of each", len(m), len(v))
		}
	}
	start(t, w.env, "serve")
	a := w.say(member, general, "", mention+note("A1", ""))
	b := w.say(member, general, "", mention+"remember the number 42")
	once(t, a, a, "A1")
	w.answer(general, b, b)

	t.Run("everything", func(t *testing.T) {
		a2 := w.say(member, general, a, note("A2", " && sleep 3"))
		w.until("the command", func() bool { return ran("A2") == 1 })
		a3 := w.say(member, general, a, note("A3", ""))
		kill()
		kill = startRedis(t, addr, t.TempDir())
		b2 := w.say(member, general, b, mention+"what number did I ask you to remember?") // a mention, which might begin another session
		once(t, a, a2, "A2")
		once(t, a, a3, "A3")
		text, code := w.answer(general, b, b2)
		if code != "0" || !strings.Contains(text, "42") || !strings.Contains(text, "turn 2") {
			t.Errorf("the conversation went on with %q, want 42 as its turn 2", text)
		}
		a4 := w.say(member, general, a, note("A4", ""))
		once(t, a, a4, "A4")
		if text, _ := w.answer(general, a, a4); !strings.Contains(text, "turn 4") {
			t.Errorf("the next turn was answered with %q, want turn 4", text)
		}
		twoMachines(t)
		w.until("rest", func() bool { return asleep(t, w) })
	})
	t.Run("the last seconds", func(t *testing.T) {
		dir := t.TempDir()
		kill()
		kill = startRedis(t, addr, dir)
		ts := w.say(member, general, b, note("B0", ""))
		once(t, b, ts, "B0")
		w.until("rest", func() bool { return asleep(t, w) })
		aof, err := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
		if err != nil || len(aof) != 1 {
			t.Fatalf("logs of Redis are %v, %v", aof, err)
		}
		before, err := os.Stat(aof[0])
		if err != nil {
			t.Fatal(err)
		}
		a5 := w.say(member, general, a, note("A5", ""))
		once(t, a, a5, "A5")
		b3 := w.say(member, general, b, note("B3", " && sleep 2"))
		w.until("the command", func() bool { return ran("B3") == 1 })
		b4 := w.say(member, general, b, note("B4", ""))
		kill()
		if err := os.Truncate(aof[0], before.Size()); err != nil {
			t.Fatal(err)
		}
		startRedis(t, addr, dir)
		once(t, b, b3, "B3")
		once(t, b, b4, "B4")
		a6 := w.say(member, general, a, note("A6", ""))
		once(t, a, a6, "A6")
		once(t, a, a5, "A5")
		twoMachines(t)
	})
}

// asleep: every machine is stopped.
func asleep(t *testing.T, w *split) bool {
	t.Helper()
	for _, m := range flyList(t, "http://"+w.fly, "test-app", "machines") {
		if m["state"] != "stopped" {
			return false
		}
	}
	return true
}
