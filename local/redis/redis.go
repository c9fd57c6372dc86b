// Package redis is the Redis of the demo: miniredis in the same process, spoken to over TCP by the same
// client as any other. With a file it keeps what it holds from one start to the next.
//
// It is for trying flaudebot out. It keeps a copy of its data every second, so the last second may be lost.
package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Server is a running Redis.
type Server struct {
	mini *miniredis.Miniredis
	file string
	stop context.CancelFunc
	done sync.WaitGroup
}

// Start starts one on a free port of loopback. file is where its data is kept; empty: nowhere.
func Start(file string) (*Server, error) {
	mini := miniredis.NewMiniRedis()
	mini.ClockTTL(true)
	if err := mini.Start(); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{mini: mini, file: file, stop: stop}
	if file == "" {
		return s, nil
	}
	if err := s.load(ctx); err != nil {
		stop()
		mini.Close()
		return nil, err
	}
	s.done.Go(func() { s.keep(ctx) })
	return s, nil
}

// URL is its address for a client.
func (s *Server) URL() string { return "redis://" + s.mini.Addr() }

// Close keeps the data a last time and ends the server.
func (s *Server) Close() error {
	s.stop()
	s.done.Wait()
	var err error
	if s.file != "" {
		err = s.dump(context.Background())
	}
	s.mini.Close()
	return err
}

func (s *Server) keep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = s.dump(ctx) // Close reports the last one
		}
	}
}

// entry is one key with its value, in the form that its type asks for.
type entry struct {
	Type   string            `json:"type"`
	TTLMS  int64             `json:"ttl_ms,omitempty"` // 0: none
	Str    string            `json:"str,omitempty"`
	List   []string          `json:"list,omitempty"` // also a set's members
	Hash   map[string]string `json:"hash,omitempty"`
	ZSet   []redis.Z         `json:"zset,omitempty"`
	Stream []redis.XMessage  `json:"stream,omitempty"` // without its consumer groups
}

// dump writes every key to the file. A blocked client does not see it.
func (s *Server) dump(ctx context.Context) error {
	rdb := s.client()
	defer func() { _ = rdb.Close() }()
	out := map[string]entry{}
	for it := rdb.Scan(ctx, 0, "*", 1000).Iterator(); it.Next(ctx); {
		e, err := read(ctx, rdb, it.Val())
		if err != nil {
			return fmt.Errorf("keep key %s: %w", it.Val(), err)
		}
		out[it.Val()] = e
	}
	body, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode the data: %w", err)
	}
	tmp := s.file + ".new"
	if err := os.WriteFile(tmp, body, 0o600); err != nil {
		return fmt.Errorf("keep the data: %w", err)
	}
	return os.Rename(tmp, s.file)
}

func (s *Server) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.mini.Addr(), DisableIdentity: true, PoolSize: 1})
}

func read(ctx context.Context, rdb *redis.Client, key string) (entry, error) {
	var e entry
	var err error
	if e.Type, err = rdb.Type(ctx, key).Result(); err != nil {
		return e, err
	}
	if ttl, err := rdb.PTTL(ctx, key).Result(); err == nil && ttl > 0 {
		e.TTLMS = ttl.Milliseconds()
	}
	switch e.Type {
	case "string":
		e.Str, err = rdb.Get(ctx, key).Result()
	case "list":
		e.List, err = rdb.LRange(ctx, key, 0, -1).Result()
	case "set":
		e.List, err = rdb.SMembers(ctx, key).Result()
	case "hash":
		e.Hash, err = rdb.HGetAll(ctx, key).Result()
	case "zset":
		e.ZSet, err = rdb.ZRangeWithScores(ctx, key, 0, -1).Result()
	case "stream":
		e.Stream, err = rdb.XRange(ctx, key, "-", "+").Result()
	case "none": // it expired in between
	default:
		err = fmt.Errorf("a %s cannot be kept", e.Type)
	}
	if errors.Is(err, redis.Nil) { // it expired in between
		return entry{}, nil
	}
	return e, err
}

func (s *Server) load(ctx context.Context) error {
	body, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the kept data: %w", err)
	}
	var all map[string]entry
	if err := json.Unmarshal(body, &all); err != nil {
		return fmt.Errorf("read the kept data in %s: %w", s.file, err)
	}
	rdb := s.client()
	defer func() { _ = rdb.Close() }()
	for key, e := range all {
		if err := write(ctx, rdb, key, e); err != nil {
			return fmt.Errorf("restore key %s: %w", key, err)
		}
	}
	return nil
}

func write(ctx context.Context, rdb *redis.Client, key string, e entry) error {
	var err error
	switch e.Type {
	case "string":
		err = rdb.Set(ctx, key, e.Str, 0).Err()
	case "list":
		err = rdb.RPush(ctx, key, anys(e.List)...).Err()
	case "set":
		err = rdb.SAdd(ctx, key, anys(e.List)...).Err()
	case "hash":
		err = rdb.HSet(ctx, key, e.Hash).Err()
	case "zset":
		err = rdb.ZAdd(ctx, key, e.ZSet...).Err()
	case "stream":
		for _, m := range e.Stream {
			err = errors.Join(err, rdb.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: m.ID, Values: m.Values}).Err())
		}
	}
	if err == nil && e.TTLMS > 0 {
		err = rdb.PExpire(ctx, key, time.Duration(e.TTLMS)*time.Millisecond).Err()
	}
	return err
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}
