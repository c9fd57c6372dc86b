package redis_test

import (
	"path/filepath"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"flaudebot/local/redis"
)

func TestServer(t *testing.T) {
	t.Parallel()
	t.Run("keeps every kind of key from one start to the next", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		file := filepath.Join(t.TempDir(), "redis.json")
		first := start(t, file)
		rdb := connect(t, first)
		rdb.Set(ctx, "s", "text", time.Hour)
		rdb.RPush(ctx, "l", "a", "b")
		rdb.HSet(ctx, "h", "k", "v")
		rdb.ZAdd(ctx, "z", goredis.Z{Score: 1795475384892, Member: "m"})
		rdb.SAdd(ctx, "set", "x")
		for _, id := range []string{"5-1", "7-0"} {
			rdb.XAdd(ctx, &goredis.XAddArgs{Stream: "stream", ID: id, Values: []string{"at", id}})
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}

		rdb = connect(t, start(t, file))
		if got := rdb.Get(ctx, "s").Val(); got != "text" {
			t.Errorf("GET s = %q, want text", got)
		}
		if ttl := rdb.TTL(ctx, "s").Val(); ttl <= 0 || ttl > time.Hour {
			t.Errorf("TTL s = %v, want up to an hour", ttl)
		}
		if got := rdb.LRange(ctx, "l", 0, -1).Val(); len(got) != 2 || got[0] != "a" {
			t.Errorf("LRANGE l = %v, want [a b]", got)
		}
		if got := rdb.HGet(ctx, "h", "k").Val(); got != "v" {
			t.Errorf("HGET h k = %q, want v", got)
		}
		if got := rdb.ZScore(ctx, "z", "m").Val(); got != 1795475384892 {
			t.Errorf("ZSCORE z m = %v, want 1795475384892", got)
		}
		if got := rdb.SIsMember(ctx, "set", "x").Val(); !got {
			t.Error("SISMEMBER set x = false, want true")
		}
		if got := rdb.XRange(ctx, "stream", "-", "+").Val(); len(got) != 2 || got[0].ID != "5-1" || got[1].Values["at"] != "7-0" {
			t.Errorf("XRANGE stream = %v, want both entries", got)
		}
	})
	t.Run("keeps nothing without a file", func(t *testing.T) {
		t.Parallel()
		s := start(t, "")
		if err := connect(t, s).Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func start(t *testing.T, file string) *redis.Server {
	t.Helper()
	s, err := redis.Start(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func connect(t *testing.T, s *redis.Server) *goredis.Client {
	t.Helper()
	opts, err := goredis.ParseURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	rdb := goredis.NewClient(opts)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}
