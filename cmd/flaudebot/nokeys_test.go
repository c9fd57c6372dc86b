package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"flaudebot/sessions"
)

// TestKeysStayAway: after turns of a channel with a secret, no key of the bot and no secret is in Redis, in what Fly holds of machines, on a volume, in Slack, in the
// bot's log or in what its commands print. The same search finds a secret that a command wrote down, and the words of people where they are kept.
func TestKeysStayAway(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	const secret, git = "npm_5up3r-s3cr3t", "ghp_ofTheBot0000000000000000000000000001"
	w.env = append(w.env, "FLAUDEBOT_SECRETS_KEY="+settingsKey(), "GITHUB_TOKEN="+git)
	bot := start(t, w.env, "serve")
	general := w.channel("general")
	w.set(w.admins(), general, map[string]string{"NPM_TOKEN": secret}, func(s *sessions.Settings) {
		s.Env, s.Secrets = map[string]string{"STAGE": "testing-4711"}, []string{"NPM_TOKEN"}
	})
	root := w.say(member, general, "", mention+"run: test -n \"$NPM_TOKEN\" && echo it is there")
	if text, _ := w.answer(general, root, root); !strings.Contains(text, "it is there") {
		t.Fatalf("answer = %q: the test shows nothing", text)
	}
	w.answer(general, root, w.say(member, general, root, "fail with 3"))
	busy := w.say(member, general, root, "take 60 seconds")
	w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "sleep 60") })
	waits := w.say(member, general, root, "what is said while that runs")
	thread := sessions.Thread{Team: "T0LOCAL", Channel: general, TS: root}
	w.until("it waits", func() bool {
		st, err := w.admins().Status(t.Context(), thread)
		return err == nil && len(st.Queued) == 1
	})

	places := func() map[string]string {
		return map[string]string{
			"Redis": w.dump(), "the thread": toJSON(t, w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {root}})), "the bot's log": bot.logs(), "the volumes": volumes(t, w.data),
			"what Fly holds": toJSON(t, flyList(t, "http://"+w.fly, "test-app", "machines")), "the record": w.says("audit"), "the list of sessions": w.says("sessions", "list"),
		}
	}
	in := func(all map[string]string, words string) (out []string) {
		for place, text := range all {
			if strings.Contains(text, words) {
				out = append(out, place)
			}
		}
		slices.Sort(out)
		return out
	}
	all := places()
	for _, key := range []string{secret, git, settingsKey(), "xapp-local", "xoxb-local", "fly-local", "sk-ant-local"} {
		if found := in(all, key); len(found) > 0 {
			t.Errorf("%s is in %v", key, found)
		}
	}
	if got := in(all, "what is said while that runs"); !slices.Equal(got, []string{"Redis", "the thread"}) {
		t.Errorf("what waits is in %v: the search shows nothing", got)
	}
	if got := in(all, "testing-4711"); !slices.Contains(got, "Redis") {
		t.Errorf("the value of a variable, which is no secret, is in %v: the search shows nothing", got)
	}

	w.say(member, general, root, "!stop")
	w.answer(general, root, busy)
	w.answer(general, root, waits)
	w.answer(general, root, w.say(member, general, root, "run: printf %s \"$NPM_TOKEN\" > written-down"))
	w.until("nothing runs or waits", func() bool {
		st, err := w.admins().Status(t.Context(), thread)
		return err == nil && st.Running == nil && len(st.Queued) == 0
	})
	all = places()
	if got := in(all, secret); !slices.Equal(got, []string{"the volumes"}) {
		t.Errorf("what a command wrote down is in %v", got)
	}
	if got := in(all, "what is said while that runs"); slices.Contains(got, "Redis") {
		t.Error("Redis keeps the words of a turn that is over")
	}
}

// dump is all that Redis holds.
func (w *split) dump() string {
	w.t.Helper()
	opts, err := redis.ParseURL(w.redis)
	if err != nil {
		w.t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	defer func() { _ = rdb.Close() }()
	ctx := w.t.Context()
	read := map[string]func(key string) (any, error){
		"string": func(key string) (any, error) { return rdb.Get(ctx, key).Result() },
		"hash":   func(key string) (any, error) { return rdb.HGetAll(ctx, key).Result() },
		"list":   func(key string) (any, error) { return rdb.LRange(ctx, key, 0, -1).Result() },
		"set":    func(key string) (any, error) { return rdb.SMembers(ctx, key).Result() },
		"zset":   func(key string) (any, error) { return rdb.ZRange(ctx, key, 0, -1).Result() },
		"stream": func(key string) (any, error) { return rdb.XRange(ctx, key, "-", "+").Result() },
	}
	var out strings.Builder
	keys := rdb.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		kind := rdb.Type(ctx, keys.Val()).Val()
		if kind == "none" { // it has expired since
			continue
		}
		get, ok := read[kind]
		if !ok {
			w.t.Fatalf("%s is a %s, which nobody knows to read", keys.Val(), kind)
		}
		value, err := get(keys.Val())
		if err != nil && !errors.Is(err, redis.Nil) {
			w.t.Fatal(err)
		}
		out.WriteString(keys.Val() + " " + toJSON(w.t, value) + "\n")
	}
	if err := keys.Err(); err != nil {
		w.t.Fatal(err)
	}
	return out.String()
}

// volumes are all files of all volumes.
func volumes(t *testing.T, data string) string {
	t.Helper()
	var out bytes.Buffer
	err := filepath.WalkDir(filepath.Join(data, "fly", "volumes"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // it has gone since
		}
		if raw, err := os.ReadFile(path); err == nil {
			out.Write(raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.Len() == 0 {
		t.Fatal("there is no file on any volume")
	}
	return out.String()
}
