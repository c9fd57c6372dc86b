package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// TestRestore: a copy of Redis's dump, taken while the bot works, is put in place of a Redis that is gone, as docs/operations.md says. The thread goes on with its
// conversation, and what only Redis knows is there: it is still muted.
func TestRestore(t *testing.T) {
	t.Parallel()
	addr, dir := freeAddr(t), t.TempDir()
	kill := startRedis(t, addr, dir)
	w := splitWorldOn(t, "redis://"+addr)
	general := w.channel("general")
	bot := start(t, w.env, "serve")
	root := w.say(member, general, "", mention+"remember the number 42")
	if _, code := w.answer(general, root, root); code != "0" {
		t.Fatalf("exit %s", code)
	}
	w.say(member, general, root, "!mute")
	w.until("it is muted", func() bool {
		return strings.Contains(toJSON(t, w.thread(general, root)), "replies here are left to you")
	})

	rdb := goredis.NewClient(&goredis.Options{Addr: addr})
	defer func() { _ = rdb.Close() }()
	if err := rdb.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(filepath.Join(dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	bot.stop()
	kill()

	fresh := t.TempDir()
	if err := os.WriteFile(filepath.Join(fresh, "dump.rdb"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	startRedis(t, addr, fresh, "--appendonly", "no")
	if err := rdb.ConfigSet(t.Context(), "appendonly", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	w.until("the append-only file is written", func() bool {
		info := rdb.Info(t.Context(), "persistence").Val()
		return strings.Contains(info, "aof_enabled:1") && strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0")
	})
	start(t, w.env, "serve")
	aside := w.say(member, general, root, "people talking")
	w.say(member, general, root, mention+"!unmute")
	next := w.say(member, general, root, "what number did I ask you to remember?")
	if text, code := w.answer(general, root, next); code != "0" || !strings.Contains(text, "42") {
		t.Errorf("answer = %q (exit %s)", text, code)
	}
	if n := w.answers(general, root, aside); n != 0 {
		t.Errorf("what was said in the muted thread was answered %d times", n)
	}
}
