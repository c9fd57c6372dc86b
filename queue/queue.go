// Package queue keeps jobs in order, one queue for each key, in Redis.
//
// A job is an opaque payload. Jobs of one key are handed out in the order in which they were enqueued, or in one of the caller's own,
// never two at once; keys do not wait for each other. A worker gets the head of a key as a [Claim]: a lease
// with an owner, an expiry and a fencing token that only rises. Whoever lost the lease can no longer finish,
// stage or return the job: every script compares the token before it writes.
//
// A replica that dies leaves its claims to the others when their leases run out; they get them with the
// stage and notes that the dead one wrote. The queue itself never runs a job again: what an attached claim
// means is the caller's matter.
//
// The package knows nothing of sessions, Slack or Fly. Keys and what holds between any two scripts are in layout.go.
package queue

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var scripts embed.FS

var (
	// ErrLost says that the claim is somebody else's now, or nobody's.
	ErrLost = errors.New("claim lost")
	// ErrDraining is the cause with which a handler's context ends when its replica leaves.
	ErrDraining = errors.New("this replica is leaving")
	// ErrTooLarge says that a payload is above MaxPayload.
	ErrTooLarge = errors.New("payload too large")
)

// MaxPayload is the largest payload in bytes: above it, Redis would serve nobody else for milliseconds.
const MaxPayload = 64 << 10

// Limits bound what waits and what runs; 0 means no limit, but for PerKey, where it means 30.
type Limits struct {
	PerKey, PerUser, PerGroup, Total         int // jobs enqueued
	Running, RunningPerUser, RunningPerGroup int // jobs claimed, over all replicas
}

// Config says how a queue works. Zero values mean what each comment says.
type Config struct {
	Prefix string        // of every key; "": fb:
	Owner  string        // name of this replica; "": random, as it should be
	Lease  time.Duration // life of a claim without a beat; 0: 15 s. Beats come at a third
	Slots  int           // jobs that this replica runs at once; 0: 10
	Poll   time.Duration // look without a doorbell after so long, at least 1 s as BLPOP counts; 0: 5 s
	Grace  time.Duration // time for handlers to end when the replica leaves; 0: 10 s
	Limits Limits
	Log    *slog.Logger

	// Listener waits at the doorbell, for Poll at a time. It should have a pool of its own, so that it takes no connection from the rest;
	// nil: the same client.
	Listener redis.UniversalClient
}

// Queue is one replica's view of the queue.
type Queue struct {
	rdb    redis.UniversalClient
	cfg    Config
	prefix string
	log    *slog.Logger
	script map[string]*redis.Script // :: file's name without .lua → script; never written after New

	ill *illness

	running atomic.Pointer[replica]   // nil: not running
	round   atomic.Pointer[time.Time] // when the loop that keeps the leases went round last; nil: it does not run
}

// New returns a queue on a client made with MaxRetries -1: one that repeats a claim by itself would leak it.
func New(rdb redis.UniversalClient, cfg Config) (*Queue, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "fb:"
	}
	if cfg.Owner == "" {
		cfg.Owner = rand.Text()
	}
	if cfg.Limits.PerKey == 0 {
		cfg.Limits.PerKey = 30
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Lease, cfg.Poll, cfg.Grace = orDefault(cfg.Lease, 15*time.Second), orDefault(cfg.Poll, 5*time.Second), orDefault(cfg.Grace, 10*time.Second)
	cfg.Slots, cfg.Poll = max(cfg.Slots, 1), max(cfg.Poll, time.Second)
	if cfg.Listener == nil {
		cfg.Listener = rdb
	}
	q := &Queue{
		rdb: rdb, cfg: cfg, prefix: cfg.Prefix + "{queue}:", log: cfg.Log, script: map[string]*redis.Script{},
		ill: &illness{log: cfg.Log, now: map[string]*symptom{}},
	}
	common, err := scripts.ReadFile("lua/common.lua")
	if err != nil {
		return nil, fmt.Errorf("read the scripts: %w", err)
	}
	for _, name := range []string{"enqueue", "step", "stage", "release", "beat", "tick", "adopt", "cancel", "edit", "close", "inspect", "load"} {
		body, err := scripts.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, fmt.Errorf("read script %s: %w", name, err)
		}
		q.script[name] = redis.NewScript(assemble(fences(string(common)), string(body)))
	}
	return q, nil
}

// assemble puts before a script what it needs of common, and no more: Redis carries out all of it at each call.
func assemble(common, script string) string {
	needed := words(script)
	parts := strings.Split("\n"+common, "\nlocal ")[1:]
	for _, part := range slices.Backward(parts) { // what a part needs stands before it
		declares, _, _ := strings.Cut(strings.TrimPrefix(part, "function "), "\n")
		declares, _, _ = strings.Cut(declares, "(")
		declares, _, _ = strings.Cut(declares, " =")
		for name := range strings.SplitSeq(declares, ", ") {
			if needed[name] {
				script = "local " + part + "\n" + script
				maps.Copy(needed, words(part))
				break
			}
		}
	}
	return script
}

// words are the names in a script.
func words(script string) map[string]bool {
	return set(strings.FieldsFunc(script, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }))
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// run calls a script. Its declared keys have the hash tag of all that it touches. The second one never exists: while a cluster moves the
// slot to another node, it refuses a call with a key here and a key there (TRYAGAIN), before the script can do one half of its work on each.
func (q *Queue) run(ctx context.Context, name string, args ...any) *redis.Cmd {
	return q.script[name].Run(ctx, q.rdb, []string{q.prefix + "meta", q.prefix + "never"}, append([]any{q.prefix}, args...)...)
}

// Job is one piece of work.
type Job struct {
	Key   string // jobs of one key run one after the other
	ID    string // enqueued once in three days
	User  string // fairness and limits count by it
	Group string // so do limits
	// Order puts it before those of its key that were never claimed and have a greater one, as text. "": behind all.
	Order   string
	Payload []byte
}

// Status is the answer to an Enqueue.
type Status string

const (
	Queued    Status = "OK"
	Duplicate Status = "DUP"        // the id was enqueued before
	Busy      Status = "BUSY"       // OnlyIfIdle, and the key has jobs
	FullKey   Status = "FULL_KEY"   // too many wait under the key
	FullUser  Status = "FULL_USER"  // too many of the user
	FullGroup Status = "FULL_GROUP" // too many of the group
	FullTotal Status = "FULL_TOTAL" // too many in all
)

// Enqueue are the conditions of an enqueue.
type Enqueue struct {
	OnlyIfIdle bool // not when the key has jobs
}

// Enqueued says what became of a job.
type Enqueued struct {
	Status Status
	Ahead  int64 // jobs of the key before it, the running one included
}

// Enqueue adds a job to its key: behind all that wait, but for [Job.Order]. Repeating one whose answer was lost is safe: it says Duplicate. If the queue is running here,
// and the job need not wait, it is claimed in the same call.
func (q *Queue) Enqueue(ctx context.Context, j Job, how Enqueue) (Enqueued, error) {
	if err := j.check(); err != nil {
		return Enqueued{}, err
	}
	r := q.running.Load()
	slot := r != nil && r.reserve(j.Key)
	out, claims, err := q.enqueue(ctx, j, how, slot)
	if err != nil {
		if slot {
			r.unsure(j.Key)
		}
		return Enqueued{}, err
	}
	if slot {
		r.take(j.Key, claims)
	}
	if r != nil && out.Status == Queued && out.Ahead == 0 && len(claims) == 0 {
		r.seek()
	}
	return out, nil
}

// enqueue adds a job, and claims it if this replica has a slot for it.
func (q *Queue) enqueue(ctx context.Context, j Job, how Enqueue, slot bool) (Enqueued, []*Claim, error) {
	idle := "0"
	if how.OnlyIfIdle {
		idle = "1"
	}
	l := q.cfg.Limits
	args := []any{j.Key, j.ID, j.User, j.Group, j.Payload, j.Order, l.PerKey, l.PerUser, l.PerGroup, l.Total, idle}
	if slot {
		args = append(append(args, q.cfg.Owner, q.cfg.Lease.Milliseconds()), q.runLimits()...)
	}
	sent := time.Now()
	res, err := q.run(ctx, "enqueue", args...).Slice()
	if err != nil {
		return Enqueued{}, nil, fmt.Errorf("enqueue %s: %w", j.ID, err)
	}
	list, _ := res[2].([]any)
	return Enqueued{Status: Status(text(res[0])), Ahead: atoi(text(res[1]))}, q.claims(list, sent), nil
}

// Seen reports whether a job of that id was enqueued within three days.
func (q *Queue) Seen(ctx context.Context, id string) (bool, error) {
	n, err := q.rdb.Exists(ctx, q.prefix+"d:"+id).Result()
	if err != nil {
		return false, fmt.Errorf("look whether %s was seen: %w", id, err)
	}
	return n > 0, nil
}

// Forestall has a job of that id never be enqueued: an enqueue says Duplicate, for three days. It returns false if one was before.
func (q *Queue) Forestall(ctx context.Context, id string) (bool, error) {
	err := q.rdb.SetArgs(ctx, q.prefix+"d:"+id, 1, redis.SetArgs{Mode: "NX", TTL: seenFor}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("forestall %s: %w", id, err)
	}
	return true, nil
}

// seenFor is how long the id of a job is known: DAY of the scripts, three times.
const seenFor = 3 * 24 * time.Hour

func (j Job) check() error {
	if len(j.Payload) > MaxPayload {
		return fmt.Errorf("enqueue %s: %w: %d bytes, at most %d", j.ID, ErrTooLarge, len(j.Payload), MaxPayload)
	}
	for _, s := range []string{j.Key, j.ID, j.User, j.Group, j.Order} {
		if strings.ContainsRune(s, 31) {
			return fmt.Errorf("enqueue %q: a name holds byte 31", j.ID)
		}
	}
	if j.Order == sameOrder {
		return fmt.Errorf("enqueue %q: %q is no order", j.ID, j.Order)
	}
	if j.Key == "" || j.ID == "" {
		return errors.New("enqueue: a job needs a key and an id")
	}
	return nil
}

// Cancelled is the answer to a Cancel.
type Cancelled string

const (
	CancelledQueued    Cancelled = "CANCELLED" // it waited, and is gone
	CancelledSignalled Cancelled = "SIGNALLED" // it was claimed: its owner, or the next one, is told
	CancelledGone      Cancelled = "GONE"
)

// Cancel takes a waiting job out of its key, or tells the owner of a running one.
func (q *Queue) Cancel(ctx context.Context, key, id string) (Cancelled, error) {
	res, err := q.run(ctx, "cancel", key, id).Text()
	if err != nil {
		return "", fmt.Errorf("cancel %s: %w", id, err)
	}
	return Cancelled(res), nil
}

// Edited is the answer to an Edit.
type Edited string

const (
	EditedOK      Edited = "OK"
	EditedOld     Edited = "OLD"     // a revision that is not newer than the one in place
	EditedRunning Edited = "RUNNING" // too late
	EditedGone    Edited = "GONE"
)

// Edit replaces the payload of a waiting job. Revisions are compared as text; an older one never wins.
func (q *Queue) Edit(ctx context.Context, key, id, revision string, payload []byte) (Edited, error) {
	if err := (Job{Key: key, ID: id, Group: revision, Payload: payload}).check(); err != nil {
		return "", err
	}
	res, err := q.run(ctx, "edit", key, id, revision, payload).Text()
	if err != nil {
		return "", fmt.Errorf("edit %s: %w", id, err)
	}
	return Edited(res), nil
}

// Closed says what a Close met.
type Closed struct {
	Repeated bool   // the last job was enqueued before: nothing was done now
	Running  string // id of the claimed job, whose owner is told to stop
	Dropped  []Job  // jobs that waited and are gone
}

// Close drops what waits under the last job's key, tells the owner of what runs to stop, and appends
// the last job, whatever the limits. What is enqueued later waits behind it.
func (q *Queue) Close(ctx context.Context, last Job) (Closed, error) {
	if err := last.check(); err != nil {
		return Closed{}, err
	}
	res, err := q.run(ctx, "close", last.Key, last.ID, last.User, last.Group, last.Payload).Slice()
	if err != nil {
		return Closed{}, fmt.Errorf("close %s: %w", last.Key, err)
	}
	out := Closed{Repeated: res[0] == "DUP", Running: text(res[1])}
	for _, element := range texts(res[2]) {
		out.Dropped = append(out.Dropped, parseElement(last.Key, element))
	}
	return out, nil
}

// State is what is going on under a key.
type State struct {
	Place   string // ready, lease, orphan, delay, park:…; "": no jobs
	Running string // id of the claimed job
	Stage   string
	Att     []byte
	Owner   string
	Fence   int64
	Since   time.Time // when the head was claimed first
	Jobs    []Job     // in order, the claimed one first
}

// Inspect looks at a key.
func (q *Queue) Inspect(ctx context.Context, key string) (State, error) {
	res, err := q.run(ctx, "inspect", key).Slice()
	if err != nil {
		return State{}, fmt.Errorf("inspect %s: %w", key, err)
	}
	s := texts(res[0])
	out := State{Place: s[0], Running: s[1], Stage: s[2], Att: []byte(s[3]), Owner: s[4], Fence: atoi(s[5])}
	if s[6] != "" {
		out.Since = time.UnixMilli(atoi(s[6]))
	}
	for _, element := range texts(res[1]) {
		out.Jobs = append(out.Jobs, parseElement(key, element))
	}
	return out, nil
}

// sameOrder stands in an element for an order that is the rest of its id.
const sameOrder = "="

// parseElement reads an element of a key's list: see layout.go.
func parseElement(key, element string) Job {
	f := strings.SplitN(element, "\x1f", 6)
	order := f[0]
	if order == sameOrder {
		order = f[1][1:]
	}
	return Job{Key: key, ID: key[:f[1][0]-32] + f[1][1:], User: f[2], Group: f[3], Order: order, Payload: []byte(f[5])}
}

func atoi(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // our scripts' own numbers
	return n
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func texts(v any) []string {
	list, _ := v.([]any)
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = text(e)
	}
	return out
}
