package sessions

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

//go:embed save.lua
var saveScript string

//go:embed keep.lua
var keepScript string

// store keeps the sessions in Redis. Its keys share one hash tag, so that Redis Cluster keeps them together:
//
//	fb:{sessions}:s:<thread>   hash    json: the thread's newest session, live or ended; fence: of the claim that wrote it;
//	                                   kept: json, until when somebody has kept it
//	fb:{sessions}:live         zset    thread → unix time of its last turn, in seconds; sessions that have something on Fly
//	fb:{sessions}:marks        hash    team:channel → ts since when, and of the newest message that was taken in
//	fb:{sessions}:used:<place> string  json: the repositories that were used in a channel, or by a user, the last first; expires
//	fb:{sessions}:once:<key>   string  something that is done or said once; expires
//	fb:{sessions}:settings:<team>:<channel>  hash  version; json: what its admins have set; secrets: json, name → sealed value
//	fb:{sessions}:memory       hash    epoch: random, and gone with everything else when Redis has lost its data
//	fb:{sessions}:lost         string  ts since when is read again what was said, after Redis has lost its data; expires
//
// A session is written only under the claim of its thread's queue, and never by an older claim than
// the one that wrote it last. The record never expires: the link from a thread to its session stays.
type store struct {
	rdb    redis.UniversalClient
	prefix string
	save   *redis.Script
	keep   *redis.Script
	mark   *redis.Script
	pulse  *redis.Script
	change *redis.Script
}

func newStore(rdb redis.UniversalClient, prefix string) *store {
	return &store{
		rdb: rdb, prefix: prefix + "{sessions}:", save: redis.NewScript(saveScript), keep: redis.NewScript(keepScript), mark: redis.NewScript(markScript),
		pulse: redis.NewScript(pulseScript), change: redis.NewScript(settingsScript),
	}
}

func (st *store) session(thread Thread) string { return st.prefix + "s:" + thread.Key() }
func (st *store) marks() string                { return st.prefix + "marks" }
func (st *store) live() string                 { return st.prefix + "live" }

// errStale says that a newer claim has written the session.
var errStale = errors.New("a newer claim has written this session")

// errUnreadable says that a record is damaged.
var errUnreadable = errors.New("unreadable session record")

// Put writes the thread's session under the claim with the given fencing token.
func (st *store) Put(ctx context.Context, s Session, fence int64) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode session %s: %w", s.SessionID, err)
	}
	live := "1"
	if s.Ended() && len(s.remains()) == 0 {
		live = "0"
	}
	ok, err := st.save.Run(ctx, st.rdb, []string{st.session(s.Thread), st.live()},
		body, fence, s.Thread.Key(), s.LastTurn.Unix(), live).Int()
	if err != nil {
		return fmt.Errorf("save session %s: %w", s.SessionID, err)
	}
	if ok == 0 {
		return errStale
	}
	return nil
}

// Get returns the thread's newest session, live or ended; nil if it never had one.
func (st *store) Get(ctx context.Context, thread Thread) (*Session, error) {
	got, err := st.rdb.HMGet(ctx, st.session(thread), "json", "kept").Result()
	if err != nil {
		return nil, fmt.Errorf("read the session of %s: %w", thread.Key(), err)
	}
	body, has := got[0].(string)
	if !has {
		return nil, nil
	}
	var s Session
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return nil, fmt.Errorf("%w of %s: %w", errUnreadable, thread.Key(), err)
	}
	if kept, has := got[1].(string); has {
		if err := json.Unmarshal([]byte(kept), &s.Kept); err != nil {
			return nil, fmt.Errorf("%w of %s: until when it is kept: %w", errUnreadable, thread.Key(), err)
		}
	}
	return &s, nil
}

// Keep writes until when a thread's session is kept, whoever has the claim.
func (st *store) Keep(ctx context.Context, thread Thread, k Kept) error {
	if err := st.rdb.HSet(ctx, st.session(thread), "kept", k.text()).Err(); err != nil {
		return fmt.Errorf("keep session %s: %w", k.Session, err)
	}
	return nil
}

// text is what the record's field holds, "" if nobody has kept the session.
func (k Kept) text() string {
	if k == (Kept{}) {
		return ""
	}
	body, _ := json.Marshal(k) // a name and times always encode
	return string(body)
}

// KeepUnlessKept is Keep where nobody has kept the session since was read: whoever has is not overruled.
func (st *store) KeepUnlessKept(ctx context.Context, thread Thread, was, k Kept) error {
	if err := st.keep.Run(ctx, st.rdb, []string{st.session(thread)}, was.text(), k.text()).Err(); err != nil {
		return fmt.Errorf("keep session %s: %w", k.Session, err)
	}
	return nil
}

// All lists the sessions that are live or have something left on Fly, and whose thread's key begins
// with prefix; the one used last first. With the error of a record that cannot be read come all others.
func (st *store) All(ctx context.Context, prefix string) ([]Session, error) {
	keys, err := st.rdb.ZRevRange(ctx, st.live(), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var out []Session
	var bad error
	for _, key := range keys {
		thread, ok := ParseThread(key)
		if !ok || !strings.HasPrefix(key, prefix) {
			continue
		}
		s, err := st.Get(ctx, thread)
		switch {
		case errors.Is(err, errUnreadable):
			bad = errors.Join(bad, err)
		case err != nil:
			return nil, err
		case s != nil:
			out = append(out, *s)
		}
	}
	return out, bad
}

// Once reports true to the first who names key within ttl.
func (st *store) Once(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	first, err := st.rdb.SetNX(ctx, st.prefix+"once:"+key, 1, ttl).Result()
	if err != nil {
		return false, fmt.Errorf("remember %s: %w", key, err)
	}
	return first, nil
}

// WasOnce reports whether somebody has named key.
func (st *store) WasOnce(ctx context.Context, key string) (bool, error) {
	n, err := st.rdb.Exists(ctx, st.prefix+"once:"+key).Result()
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", key, err)
	}
	return n > 0, nil
}

// Forget undoes Once.
func (st *store) Forget(ctx context.Context, key string) error {
	if err := st.rdb.Del(ctx, st.prefix+"once:"+key).Err(); err != nil {
		return fmt.Errorf("forget %s: %w", key, err)
	}
	return nil
}

// Check returns a [queue.UnfitError] when the user of Redis lacks a right that sessions need; any other error is Redis's own.
func (sv *Service) Check(ctx context.Context) error {
	return queue.CheckRights(ctx, sv.store.rdb, sv.store.prefix, storeCommands()...)
}

// storeCommands are all that the store and its scripts send, in the form of [queue.Missing].
func storeCommands() []string {
	return []string{
		"evalsha x 1 KEY", "eval x 1 KEY", "hget KEY f", "hset KEY f v", "hmget KEY f g", "hgetall KEY", "zadd KEY 1 m", "zrem KEY m", "zrevrange KEY 0 1",
		"hsetnx KEY f v", "get KEY", "set KEY x", "del KEY", "exists KEY",
	}
}
