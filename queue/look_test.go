package queue_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// opened is a queue on a server, with a client beside it.
func opened(t *testing.T, s server) (*redis.Client, *queue.Queue) {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: s.addr, DisableIdentity: true})
	t.Cleanup(func() { _ = rdb.Close() })
	q, err := queue.New(rdb, queue.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return rdb, q
}

// TestLook: all that a start decides on is told, whatever is wrong, and nothing is written.
func TestLook(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		rdb, q := opened(t, s)
		l, err := q.Look(t.Context())
		if err != nil || l.Lacks != nil || l.Layout != 0 || l.Known == 0 || l.Server.Old() || l.Server.Evicts() {
			t.Errorf("Look = %+v, %v", l, err)
		}
		if n := rdb.DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("there are %d keys, want none", n)
		}
		if _, err := q.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l, err := q.Look(t.Context()); err != nil || l.Layout != l.Known {
			t.Errorf("Look = %+v, %v, want the layout that Check has marked", l, err)
		}
	})
	t.Run("with a user of few rights it tells the rest all the same", func(t *testing.T) {
		t.Parallel()
		addr := realRedis(t)
		root := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true})
		t.Cleanup(func() { _ = root.Close() })
		for _, args := range [][]any{
			{"acl", "setuser", "few", "on", ">p", "~*", "+@all", "-lset", "-info", "-hget"}, {"config", "set", "maxmemory", "100mb"}, {"config", "set", "maxmemory-policy", "allkeys-lru"},
		} {
			if err := root.Do(t.Context(), args...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		rdb := redis.NewClient(&redis.Options{Addr: addr, Username: "few", Password: "p", DisableIdentity: true})
		t.Cleanup(func() { _ = rdb.Close() })
		q, err := queue.New(rdb, queue.Config{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := q.Look(t.Context())
		if err != nil || l.Lacks == nil || !strings.Contains(l.Lacks.Error(), "lset") || !strings.Contains(l.Lacks.Error(), "hget") || !l.Silent || l.Layout != 0 {
			t.Errorf("Look = %+v, %v", l, err)
		}
		if err := root.Do(t.Context(), "acl", "setuser", "few", "+info").Err(); err != nil {
			t.Fatal(err)
		}
		if l, err := q.Look(t.Context()); err != nil || l.Silent || !l.Server.Evicts() || l.Server.MaxMemory != 100<<20 || l.Server.Used == 0 || l.Server.Version == "" {
			t.Errorf("Look = %+v, %v", l, err)
		}
	})
}

// TestRefusesNewerLayout: a replica does not work on data of a layout that it does not know, and changes nothing of it.
func TestRefusesNewerLayout(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		rdb, q := opened(t, s)
		if _, err := q.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		const meta = "fb:{queue}:meta"
		known, err := rdb.HGet(t.Context(), meta, "ver").Int()
		if err != nil || rdb.HSet(t.Context(), meta, "ver", known+1).Err() != nil {
			t.Fatal(err)
		}
		_, err = q.Check(t.Context())
		if unfit := (*queue.UnfitError)(nil); !errors.As(err, &unfit) || !strings.Contains(err.Error(), "run the newer one") {
			t.Errorf("Check = %v, want it refused", err)
		}
		if now := rdb.HGet(t.Context(), meta, "ver").Val(); now != strconv.Itoa(known+1) {
			t.Errorf("the layout is %s now, want it left", now)
		}
	})
}
