package queue_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// TestCommands: the rights that a start asks for are those of every command in the scripts, which a test of a running bot might not meet, and
// no others.
func TestCommands(t *testing.T) {
	t.Parallel()
	var known []string
	for _, line := range queue.Commands() {
		name, _, _ := strings.Cut(line, " ")
		known = append(known, name)
	}
	files, err := filepath.Glob("lua/*.lua")
	if err != nil || len(files) < 10 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	called := []string{"eval", "evalsha", "hsetnx", "blpop"} // by the queue itself
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`call\('([A-Z]+)'`).FindAllSubmatch(text, -1) {
			name := strings.ToLower(string(m[1]))
			if called = append(called, name); !slices.Contains(known, name) {
				t.Errorf("%s calls %s, which commands does not have", file, name)
			}
		}
	}
	for _, name := range known {
		if !slices.Contains(called, name) {
			t.Errorf("nobody calls %s", name)
		}
	}
}

// TestMissing: a user is told what it may not do, and for which keys.
func TestMissing(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	for _, c := range []struct {
		name string
		rule []string
		want string // in the error; "": none
	}{
		{"all rights", []string{"+@all", "~*"}, ""},
		{"two commands less", []string{"+@all", "~fb:*", "-blpop", "-zadd"}, "lacks rights: blpop, zadd, for keys that begin with fb:{queue}:"},
		{"other keys", []string{"+@all", "~other:*"}, "lacks the right to keys that begin with fb:{queue}:"},
		{"no scripts", []string{"+@all", "~*", "-eval"}, "NOPERM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			user := strings.ReplaceAll(c.name, " ", "-")
			if err := r.admin.ACLSetUser(t.Context(), user, append([]string{"on", "nopass"}, c.rule...)...).Err(); err != nil {
				t.Fatal(err)
			}
			rdb := redis.NewClient(&redis.Options{Addr: r.addr, Username: user, Password: "any", MaxRetries: -1})
			defer func() { _ = rdb.Close() }()
			err := queue.CheckRights(t.Context(), rdb, "fb:{queue}:", queue.Commands()...)
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("CheckRights = %v, want %q in it", err, c.want)
			}
		})
	}
}
