package sessions

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestWhatStays: of a session that has ended Redis keeps for good its record, and nothing of what was said but the first words; all else that was
// written for it expires. docs/security.md tells people so.
func TestWhatStays(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	r := b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.Budgets.All = 100 }).start()
	if _, err := r.SaveSettings(t.Context(), "T1", "C1", "U9", Settings{Model: "opus"}, nil); err != nil {
		t.Fatal(err)
	}
	first := r.accept(turn("101", "hold "+strings.Repeat("word ", 100)+"first-secret", true))
	b.until("it runs", func() bool { return b.runner.ran(first.ID) == 1 })
	second := r.accept(turn("102", "second-secret", false))
	for _, said := range []string{"first-secret", "second-secret"} {
		if !strings.Contains(b.values(), said) {
			t.Fatalf("%s is not in Redis while it waits or runs: this shows nothing", said)
		}
	}
	b.runner.release()
	b.answered(r, first)
	b.answered(r, second)
	if _, err := r.End(t.Context(), thread(), "U1", "end-1"); err != nil {
		t.Fatal(err)
	}
	b.until("its end", func() bool { s := r.session(); return s != nil && s.Ended() })
	b.idle(r)
	b.until("nothing at work", func() bool {
		return len(b.mini.Keys()) > 0 && !slices.ContainsFunc(b.mini.Keys(), func(k string) bool { return strings.Contains(k, ":q:") })
	})
	for _, said := range []string{"first-secret", "second-secret"} {
		if strings.Contains(b.values(), said) {
			t.Errorf("%s is in Redis still: %s", said, b.values())
		}
	}
	r.stop()
	var kept []string
	for _, key := range b.mini.Keys() {
		if b.mini.TTL(key) == 0 {
			kept = append(kept, key)
		} else if most := b.mini.TTL(key); most > 400*24*time.Hour {
			t.Errorf("%s stays for %s", key, most)
		}
	}
	const at = "fb:{sessions}:"
	if want := []string{"fb:{queue}:meta", at + "audit", at + "memory", at + "s:" + thread().Key(), at + "settings:T1:C1"}; !slices.Equal(kept, want) {
		t.Errorf("for good there are %q, want %q", kept, want)
	}
}

// values are all that Redis holds, as text.
func (b *bot) values() string {
	b.t.Helper()
	var all []any
	for _, key := range b.mini.Keys() {
		kind := b.mini.Type(key)
		ctx := b.t.Context()
		switch kind {
		case "string":
			all = append(all, key, b.rdb.Get(ctx, key).Val())
		case "hash":
			all = append(all, key, b.rdb.HGetAll(ctx, key).Val())
		case "list":
			all = append(all, key, b.rdb.LRange(ctx, key, 0, -1).Val())
		case "set":
			all = append(all, key, b.rdb.SMembers(ctx, key).Val())
		case "zset":
			all = append(all, key, b.rdb.ZRange(ctx, key, 0, -1).Val())
		case "stream":
			all = append(all, key, b.rdb.XRange(ctx, key, "-", "+").Val())
		case "":
		default:
			b.t.Fatalf("%s is a %s", key, kind)
		}
	}
	return fmt.Sprint(all...)
}
