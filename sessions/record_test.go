package sessions

import (
	"encoding/json"
	"strings"
	"testing"

	"flaudebot/runner"
)

// TestNewerRecords: what a newer version has added to a record stays when this one writes it again, so that both can work beside each other.
func TestNewerRecords(t *testing.T) {
	t.Parallel()
	const added = `"added_later":{"what":[1,2]}`
	add := func(t *testing.T, b *bot, key string) {
		t.Helper()
		was := b.mini.HGet(key, "json")
		if was == "" {
			t.Fatalf("there is no record in %s", key)
		}
		b.mini.HSet(key, "json", "{"+added+","+strings.TrimPrefix(was, "{"))
	}
	kept := func(t *testing.T, b *bot, key string) {
		t.Helper()
		if now := b.mini.HGet(key, "json"); !strings.Contains(now, added) {
			t.Errorf("%s = %s, want %s in it", key, now, added)
		}
	}
	t.Run("of a session", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		key := r.store.session(thread())
		b.idle(r)
		add(t, b, key)
		if out := b.answered(r, r.accept(turn("102", "two", false))); out.Failure != runner.FailNone || out.Number != 2 {
			t.Errorf("the next turn: %+v", out)
		}
		b.idle(r)
		kept(t, b, key)
	})
	t.Run("of a channel's settings", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		s, err := r.SaveSettings(t.Context(), "T1", "C1", "U9", Settings{Model: "opus"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		key := r.store.settings("T1", "C1")
		add(t, b, key)
		s.Model = "haiku"
		if s, err = r.SaveSettings(t.Context(), "T1", "C1", "U9", s, nil); err != nil || s.Model != "haiku" {
			t.Fatalf("SaveSettings = %+v, %v", s, err)
		}
		kept(t, b, key)
	})
	t.Run("of settings whose secrets are sealed anew", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		with := func(keys ...string) *replica {
			return b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.Keys = keyring(t, keys...) })
		}
		old := with(secretsKey(1))
		if _, err := old.SaveSettings(t.Context(), "T1", "C1", "U9", Settings{Secrets: []string{"ONE"}}, map[string]string{"ONE": "first-value"}); err != nil {
			t.Fatal(err)
		}
		key := old.store.settings("T1", "C1")
		add(t, b, key)
		secretsOf(t, with(secretsKey(2), secretsKey(1)), "C1")
		if got := secretsOf(t, with(secretsKey(2)), "C1"); got["ONE"] != "first-value" {
			t.Fatalf("secrets = %v, want them sealed anew", got)
		}
		kept(t, b, key)
	})
	t.Run("of a turn's notes", func(t *testing.T) {
		t.Parallel()
		var n note
		rest, err := readFields([]byte(`{"live":"1.2",`+added+`,"outcome":{"exit_code":3,"new":true}}`), &n)
		if err != nil || n.Live != "1.2" || n.Outcome.ExitCode != 3 || len(rest) != 1 {
			t.Fatalf("notes = %+v, %s, %v", n, rest, err)
		}
		n.Live = "3.4"
		body, err := writeFields(n, rest)
		if err != nil || !json.Valid(body) || !strings.Contains(string(body), added) || !strings.Contains(string(body), `"live":"3.4"`) {
			t.Errorf("written again: %s, %v", body, err)
		}
	})
	for _, bad := range []string{"", "{", `{"live":1}`, `{"live":"x"} {}`, "[]"} {
		if _, err := readFields([]byte(bad), &note{}); err == nil {
			t.Errorf("readFields(%q) = nil, want an error", bad)
		}
	}
}
