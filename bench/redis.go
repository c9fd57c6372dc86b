package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/local/port"
)

// startRedis runs a redis-server without persistence, in a folder of its own, until stop is called.
func startRedis(ctx context.Context) (addr string, stop func(), err error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, fmt.Errorf("find redis-server: %w", err)
	}
	if addr, err = port.Free(); err != nil {
		return "", nil, fmt.Errorf("find a place for redis-server: %w", err)
	}
	_, number, _ := net.SplitHostPort(addr)
	dir, err := os.MkdirTemp("", "flaudebot-bench-")
	if err != nil {
		return "", nil, fmt.Errorf("make a folder for redis-server: %w", err)
	}
	cmd := exec.CommandContext(ctx, bin, "--port", number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir,
		"--maxmemory-policy", "noeviction")
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, fmt.Errorf("start redis-server: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	rdb := client(addr, 0, 1)
	defer func() { _ = rdb.Close() }()
	for end := time.Now().Add(10 * time.Second); ; {
		err := rdb.Ping(ctx).Err()
		if err == nil {
			return addr, stop, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			stop()
			return "", nil, fmt.Errorf("wait for redis-server: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// client is one as the product makes it: it repeats nothing by itself.
func client(addr string, db, pool int) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, DB: db, MaxRetries: -1, PoolSize: pool})
}

// calls is how often a command was called, and for how long in all, says the server.
type calls struct {
	n    int64
	took time.Duration
}

// commandStats reads what the server counted since its last CONFIG RESETSTAT, by command.
func commandStats(ctx context.Context, rdb *redis.Client) (map[string]calls, error) {
	info, err := rdb.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, fmt.Errorf("read commandstats: %w", err)
	}
	out := map[string]calls{}
	for line := range strings.Lines(info) {
		name, rest, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "cmdstat_")), ":")
		if !ok {
			continue
		}
		var c calls
		for part := range strings.SplitSeq(rest, ",") {
			k, v, _ := strings.Cut(part, "=")
			n, _ := strconv.ParseInt(v, 10, 64)
			switch k {
			case "calls":
				c.n = n
			case "usec":
				c.took = time.Duration(n) * time.Microsecond
			}
		}
		out[name] = c
	}
	return out, nil
}

// usedMemory is what the server's data take, in bytes, after it came to rest.
func usedMemory(ctx context.Context, rdb *redis.Client) (float64, error) {
	last := int64(-1)
	for {
		if err := rdb.Do(ctx, "MEMORY", "PURGE").Err(); err != nil {
			return 0, fmt.Errorf("purge the server's memory: %w", err)
		}
		info, err := rdb.Info(ctx, "memory").Result()
		if err != nil {
			return 0, fmt.Errorf("read the server's memory: %w", err)
		}
		var used int64
		for line := range strings.Lines(info) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
				used, _ = strconv.ParseInt(v, 10, 64)
			}
		}
		if last >= 0 && max(used-last, last-used) < 256 { // tables are resized little by little
			return float64(used), nil
		}
		last = used
		time.Sleep(500 * time.Millisecond)
	}
}
