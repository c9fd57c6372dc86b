package queue

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Trouble is what an error of Redis means to whoever depends on it.
type Trouble struct {
	Code  string // what Redis calls it; NETWORK for what never reached it or had no answer, ERR for all that is not in the table
	Means string // for whoever reads the log, with what to do if there is something to do
	Alarm bool   // it does not pass by itself: somebody must act. Else it is waited out
	Final bool   // our own settings are wrong: it makes no sense to start
}

// troubles are the errors that are met when a Redis is ill, restarted, replaced or set up wrong. Whatever the code, a call that was refused
// has written nothing, and the queue tries again: what a code decides is what is said, how loudly, and whether a start waits for its end.
func troubles() []Trouble {
	return []Trouble{
		{"LOADING", "Redis is reading its data after a restart", false, false},
		{"READONLY", "this Redis is a replica, as during a failover; if it stays so, REDIS_URL leads to the wrong server", false, false},
		{"MASTERDOWN", "this Redis is a replica that has lost its master, as during a failover", false, false},
		{"CLUSTERDOWN", "the cluster serves none or not all of its slots, as during a failover", false, false},
		{"TRYAGAIN", "the slot of our keys is being moved to another node of the cluster", false, false},
		{"NOREPLICAS", "Redis has fewer replicas than min-replicas-to-write wants", false, false},
		{"NOSCRIPT", "Redis has forgotten the scripts, and is given them again", false, false},
		{"UNBLOCKED", "Redis has changed its role, as during a failover", false, false},
		{"BUSY", "somebody's script or function keeps Redis from everything else: SCRIPT KILL ends it", true, false},
		{"OOM", "Redis is full: raise maxmemory. What runs goes on, nothing new is taken", true, false},
		{"MISCONF", "Redis takes no writes, since it cannot write its snapshot to disk: see its log", true, false},
		{"NOAUTH", "Redis wants a password: correct REDIS_URL", true, true},
		{"WRONGPASS", "Redis refuses the user or password of REDIS_URL: correct it", true, true},
		{"NOPERM", "the user of REDIS_URL lacks a right: docs/operations.md has the rule", true, true},
		{"MOVED", "this Redis is one node of a cluster: allow INFO, by which that is noticed, or name further nodes in REDIS_URL (?addr=host:port)", true, true},
		{"CROSSSLOT", "this Redis is a cluster that takes our keys for those of several slots", true, true},
		{"WRONGTYPE", "something else than flaudebot writes under FLAUDEBOT_PREFIX", true, true},
	}
}

// TroubleOf looks an error up. It is of a call to Redis.
func TroubleOf(err error) Trouble {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return Trouble{"NETWORK", "Redis is away or does not answer", false, false}
	}
	text := reply.Error()
	for _, t := range troubles() {
		if strings.HasPrefix(text, t.Code+" ") {
			return t
		}
	}
	if strings.HasPrefix(text, "ERR max number of clients") {
		return Trouble{"MAXCLIENTS", "Redis has as many clients as it takes: raise maxclients", true, false}
	}
	return Trouble{"ERR", "Redis refuses a call for a reason that is not known here", true, true}
}

// sayAgain is after how long trouble that goes on is logged again.
const sayAgain = time.Minute

// illness remembers what does not get through, so that a minute without Redis is a few lines in the log and not hundreds.
type illness struct {
	log *slog.Logger

	mu    sync.Mutex
	now   map[string]*symptom // guarded by mu; :: what does not get through
	heard time.Time           // guarded by mu; since when all gets through; zero: nothing was tried
}

type symptom struct {
	code        string
	since, said time.Time
}

// ails logs that something did not get through, unless that was said a short time ago.
func (i *illness) ails(ctx context.Context, what string, err error) {
	t := TroubleOf(err)
	i.mu.Lock()
	defer i.mu.Unlock()
	s, at := i.now[what], time.Now()
	if s == nil {
		s = &symptom{since: at}
		i.now[what] = s
	}
	if s.code == t.Code && at.Sub(s.said) < sayAgain {
		return
	}
	s.code, s.said = t.Code, at
	level := slog.LevelWarn
	if t.Alarm {
		level = slog.LevelError
	}
	i.log.Log(ctx, level, "Redis trouble", "what", what, "code", t.Code, "means", t.Means, "err", err)
}

// well logs that something gets through again, if it did not.
func (i *illness) well(ctx context.Context, what string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.now[what]
	if s == nil {
		if i.heard.IsZero() {
			i.heard = time.Now()
		}
		return
	}
	delete(i.now, what)
	i.heard = time.Now()
	i.log.InfoContext(ctx, "Redis trouble is over", "what", what, "lasted", time.Since(s.since).Round(time.Millisecond))
}

// state is the code of what does not get through for longest, and since when; "": all does.
func (i *illness) state() (code string, since time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	since = i.heard
	for _, s := range i.now {
		if code == "" || s.since.Before(since) {
			code, since = s.code, s.since
		}
	}
	return code, since
}
