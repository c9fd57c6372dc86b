package sessions

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
//	                                   kept: json, until when somebody has kept it; meter: json, up to when its machine's time is added up
//	fb:{sessions}:live         zset    thread → unix time of its last turn, in seconds; sessions that have something on Fly
//	fb:{sessions}:marks        hash    team:channel → ts since when, and of the newest message that was taken in
//	fb:{sessions}:used:<place> string  json: the repositories that were used in a channel, or by a user, the last first; expires
//	fb:{sessions}:muted:<thread>  zset  "ts muted" or "ts unmuted", all of score 0: when replies were left alone, or taken again; expires
//	fb:{sessions}:once:<key>   string  something that is done or said once; expires
//	fb:{sessions}:settings:<team>:<channel>  hash  version; json: what its admins have set; secrets: json, name → sealed value
//	fb:{sessions}:costs:<month> hash   "thread session person what" → how much of it was used; expires
//	fb:{sessions}:spent:<month> hash   "all", "channel …", "person …" or "thread …" → USD that were spent; "more …" → that were allowed besides; expires
//	fb:{sessions}:spent:turn:<turn> string  USD that were added to that month for the turn; expires
//	fb:{sessions}:audit        stream  json: who asked, and what ran, see audit.go; drops entries by age
//	fb:{sessions}:memory       hash    epoch: random, and gone with everything else when Redis has lost its data
//	fb:{sessions}:limit        string  unix ms when Claude's usage limit resets; expires then
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
	charge *redis.Script
	record *redis.Script
	spend  *redis.Script

	charged  func(Cost)    // told of what was added up
	auditFor time.Duration // how long the audit record keeps its entries
}

func newStore(rdb redis.UniversalClient, prefix string) *store {
	return &store{
		rdb: rdb, prefix: storePrefix(prefix), save: redis.NewScript(saveScript), keep: redis.NewScript(keepScript), mark: redis.NewScript(markScript),
		pulse: redis.NewScript(pulseScript), change: redis.NewScript(settingsScript), charge: redis.NewScript(chargeScript), record: redis.NewScript(recordScript),
		spend:   redis.NewScript(spendScript),
		charged: func(Cost) {}, auditFor: auditDefault,
	}
}

func (st *store) session(thread Thread) string { return st.prefix + "s:" + thread.Key() }
func (st *store) muted(thread Thread) string   { return st.prefix + "muted:" + thread.Key() }
func (st *store) marks() string                { return st.prefix + "marks" }
func (st *store) live() string                 { return st.prefix + "live" }

// errStale says that a newer claim has written the session.
var errStale = errors.New("a newer claim has written this session")

// errUnreadable says that a record is damaged.
var errUnreadable = errors.New("unreadable session record")

// Put writes the thread's session under the claim with the given fencing token.
func (st *store) Put(ctx context.Context, s Session, fence int64) error {
	body, err := writeFields(s, s.Rest)
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
	got, err := st.rdb.HMGet(ctx, st.session(thread), recordFields()...).Result()
	if err != nil {
		return nil, fmt.Errorf("read the session of %s: %w", thread.Key(), err)
	}
	return readRecord(thread, got)
}

// recordFields are those that make a session.
func recordFields() []string { return []string{"json", "kept", "meter"} }

// readRecord makes a session of its fields.
func readRecord(thread Thread, got []any) (*Session, error) {
	body, has := got[0].(string)
	if !has {
		return nil, nil
	}
	var s Session
	var err error
	if s.Rest, err = readFields([]byte(body), &s); err != nil {
		return nil, fmt.Errorf("%w of %s: %w", errUnreadable, thread.Key(), err)
	}
	if kept, has := got[1].(string); has {
		if err := json.Unmarshal([]byte(kept), &s.Kept); err != nil {
			return nil, fmt.Errorf("%w of %s: until when it is kept: %w", errUnreadable, thread.Key(), err)
		}
	}
	if meter, has := got[2].(string); has {
		if err := json.Unmarshal([]byte(meter), &s.Meter); err != nil {
			return nil, fmt.Errorf("%w of %s: up to when it is metered: %w", errUnreadable, thread.Key(), err)
		}
	}
	return &s, nil
}

// text is what the record's field holds, "" if nobody has kept the session.
func (k Kept) text() string {
	if k == (Kept{}) {
		return ""
	}
	body, _ := json.Marshal(k) // a name and times always encode
	return string(body)
}

// Keep writes until when a thread's session is kept, whoever has the claim, if nobody has kept it since was read: whoever has is not overruled, and
// false is returned. With it goes an entry of the audit record; nil: none.
func (st *store) Keep(ctx context.Context, thread Thread, was, k Kept, e *Entry) (bool, error) {
	entry := ""
	if e != nil {
		var err error
		if entry, err = encodeEntry(*e); err != nil {
			return false, err
		}
	}
	ok, err := st.keep.Run(ctx, st.rdb, []string{st.session(thread), st.audit()}, was.text(), k.text(), entry, st.minID()).Bool()
	if err != nil {
		return false, fmt.Errorf("keep session %s: %w", k.Session, err)
	}
	return ok, nil
}

// readAtOnce is how many records are read in one round trip.
const readAtOnce = 500

// All lists the sessions that are live or have something left on Fly, and whose thread's key begins
// with prefix; the one used last first. With the error of a record that cannot be read come all others.
func (st *store) All(ctx context.Context, prefix string) ([]Session, error) {
	keys, err := st.rdb.ZRevRange(ctx, st.live(), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var threads []Thread
	for _, key := range keys {
		if thread, ok := ParseThread(key); ok && strings.HasPrefix(key, prefix) {
			threads = append(threads, thread)
		}
	}
	var out []Session
	var bad error
	for part := range slices.Chunk(threads, readAtOnce) {
		pipe := st.rdb.Pipeline()
		records := make([]*redis.SliceCmd, len(part))
		for i, thread := range part {
			records[i] = pipe.HMGet(ctx, st.session(thread), recordFields()...)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, fmt.Errorf("read sessions: %w", err)
		}
		for i, thread := range part {
			s, err := readRecord(thread, records[i].Val())
			switch {
			case err != nil:
				bad = errors.Join(bad, err)
			case s != nil:
				out = append(out, *s)
			}
		}
	}
	return out, bad
}

// Live counts what All lists.
func (st *store) Live(ctx context.Context) (int64, error) {
	n, err := st.rdb.ZCard(ctx, st.live()).Result()
	if err != nil {
		return 0, fmt.Errorf("count sessions: %w", err)
	}
	return n, nil
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
	return checkStore(ctx, sv.store.rdb, sv.store.prefix)
}

// CheckRights is what [Service.Check] does, without a service. Prefix is that of all keys.
func CheckRights(ctx context.Context, rdb redis.Scripter, prefix string) error {
	return checkStore(ctx, rdb, storePrefix(prefix))
}

// storePrefix is what the keys of sessions begin with.
func storePrefix(prefix string) string { return prefix + "{sessions}:" }

func checkStore(ctx context.Context, rdb redis.Scripter, prefix string) error {
	return queue.CheckRights(ctx, rdb, prefix, storeCommands()...)
}

// storeCommands are all that the store and its scripts send, in the form of [queue.Missing].
func storeCommands() []string {
	return []string{
		"evalsha x 1 KEY", "eval x 1 KEY", "hget KEY f", "hset KEY f v", "hmget KEY f g", "hgetall KEY", "zadd KEY 1 m", "zrem KEY m", "zcard KEY", "zrevrange KEY 0 1",
		"hsetnx KEY f v", "get KEY", "set KEY x", "del KEY", "exists KEY",
		"hincrbyfloat KEY f 1", "expire KEY 1", "zrevrangebylex KEY + -", "zremrangebyrank KEY 0 0", "multi", "exec", "xadd KEY minid ~ 1 * f v", "xrange KEY - + count 1",
	}
}
