package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
)

// TestDemo: what a person at a terminal sees of it.
func TestDemo(t *testing.T) {
	t.Parallel()
	w := demoWorld(t, []string{"FLAUDEBOT_BUDGET_PER_TURN=0.01"})
	if want := w.base + " (Ctrl-C ends it)"; w.proc.said != want {
		t.Errorf("it says that it is ready at %q, want %q", w.proc.said, want)
	}
	general := w.channel("general")
	root := w.say(admin, general, "", mention+"take 1 second") // a step, and a request after it
	if text, code := w.answer(general, root, root); code != "130" || !strings.Contains(text, "a turn may cost $0.01") {
		t.Errorf("answer = %q (exit %s), want the bot's settings to hold here as well", text, code)
	}
	w.until("its live message is settled", func() bool { // which comes after the answer
		return !slices.ContainsFunc(w.thread(general, root), func(m message) bool { return m.Part == "live" && has(t, m.Raw, `"stop"`) })
	})
	logged := w.proc.logs() // what is under way when it ends may well be warned of
	w.proc.end(syscall.SIGINT)
	if code := w.proc.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("Ctrl-C ended it with %d", code)
	}
	for line := range strings.Lines(logged) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			t.Errorf("nothing is wrong, and the log says %s", line)
		}
	}
}

// TestDemoRedis: the demo takes a Redis of one's own, and has its usual place in it.
func TestDemoRedis(t *testing.T) {
	t.Parallel()
	url := redisServer(t)
	w := demoWorld(t, nil, "--redis", url)
	general := w.channel("general")
	root := w.say(member, general, "", mention+"remember the number 42")
	w.answer(general, root, root)
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	defer func() { _ = rdb.Close() }()
	if keys, err := rdb.Keys(t.Context(), "fb:*").Result(); err != nil || len(keys) == 0 {
		t.Errorf("Redis has %v, %v; want the bot's keys", keys, err)
	}
}
