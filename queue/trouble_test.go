package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// TestTrouble: whatever happens to Redis or on the way to it while two replicas work and people go on writing, every job that was
// accepted runs once and in order, the log says what it is, and when it is over all goes on by itself. A job that takes long keeps
// its claim through what is shorter than a lease, and is taken up again after what is longer.
func TestTrouble(t *testing.T) {
	t.Parallel()
	const (
		kept = iota + 1
		lost
	)
	for _, c := range []struct {
		name  string
		args  []string // for redis-server
		code  string   // what the log says; "": nothing
		alarm bool
		claim int // what becomes of the claim of the long job; 0: either
		begin func(*load)
		end   func(*load)
	}{
		{"a slow network", nil, "", false, kept, func(l *load) {
			l.each(func(x *toxic) { x.add("latency", map[string]any{"latency": 40, "jitter": 30}) })
			l.more(20)
		}, (*load).heal},
		{"a network that swallows all answers", nil, "NETWORK", false, lost, func(l *load) {
			l.each(func(x *toxic) { x.add("timeout", map[string]any{"timeout": 0}) })
		}, (*load).heal},
		{"a network that resets connections", nil, "NETWORK", false, 0, func(l *load) {
			l.each(func(x *toxic) { x.add("reset_peer", map[string]any{"timeout": 10}) })
		}, (*load).heal},
		{"a network that cuts answers short", nil, "NETWORK", false, 0, func(l *load) {
			l.each(func(x *toxic) { x.add("limit_data", map[string]any{"bytes": 900}) })
		}, (*load).heal},
		{"Redis is away for several leases", nil, "NETWORK", false, lost, func(l *load) { l.each((*toxic).down) }, func(l *load) { l.each((*toxic).up) }},
		// With everysec a write may be put off behind an fsync, and is lost with the process.
		{"Redis is killed, and back at once", []string{"--appendonly", "yes", "--appendfsync", "always"}, "NETWORK", false, kept, func(l *load) { l.redis.kill() }, func(l *load) { l.redis.start() }},
		{"its scripts are flushed", nil, "", false, kept, func(l *load) {
			for range 10 {
				l.check(l.redis.admin.ScriptFlush(l.Context()).Err())
				l.more(2)
			}
		}, func(*load) {}},
		{"somebody's script does not end", []string{"--busy-reply-threshold", "20"}, "BUSY", true, 0, func(l *load) {
			go func() { _ = l.redis.admin.Eval(context.WithoutCancel(l.Context()), "while true do end", nil).Err() }()
		}, func(l *load) { l.check(l.redis.admin.ScriptKill(l.Context()).Err()) }},
		{"it cannot save its snapshot", []string{"--save", "3600 1000000", "--enable-protected-configs", "yes"}, "MISCONF", true, 0, func(l *load) {
			l.check(os.Mkdir(filepath.Join(l.redis.dir, "taken"), 0o700)) // a file cannot be put there
			l.check(l.redis.admin.ConfigSet(l.Context(), "dbfilename", "taken").Err())
			l.check(l.redis.admin.BgSave(l.Context()).Err())
		}, func(l *load) {
			l.check(l.redis.admin.ConfigSet(l.Context(), "dbfilename", "dump.rdb").Err())
			l.check(l.redis.admin.BgSave(l.Context()).Err())
		}},
		{"it is restarted and reads its data for long", []string{"--appendonly", "yes", "--loading-process-events-interval-bytes", "1024"}, "LOADING", false, 0, func(l *load) {
			pipe := l.redis.admin.Pipeline()
			for i := range 1000 {
				pipe.Set(l.Context(), fmt.Sprint("filler", i), strings.Repeat("x", 100), 0)
			}
			_, err := pipe.Exec(l.Context())
			l.check(err)
			l.check(l.redis.admin.BgRewriteAOF(l.Context()).Err())
			l.until("its data is in one file", func() bool {
				info := l.redis.admin.Info(l.Context(), "persistence").Val()
				return strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0")
			})
			l.redis.kill()
			l.redis.launch("--key-load-delay", "1500") // µs
		}, func(l *load) { l.redis.await() }},
		{"a password is set", nil, "NOAUTH", true, 0, func(l *load) {
			l.check(l.redis.admin.ConfigSet(l.Context(), "requirepass", "secret").Err())
			l.redis.disconnect()
		}, func(l *load) { l.check(l.redis.admin.ConfigSet(l.Context(), "requirepass", "").Err()) }},
		{"its replicas are gone", nil, "NOREPLICAS", false, 0, func(l *load) {
			l.check(l.redis.admin.ConfigSet(l.Context(), "min-replicas-to-write", "1").Err())
		}, func(l *load) { l.check(l.redis.admin.ConfigSet(l.Context(), "min-replicas-to-write", "0").Err()) }},
		{"a cluster that does not serve its slots", []string{"--cluster-enabled", "yes"}, "CLUSTERDOWN", false, 0, func(l *load) {
			l.check(l.redis.admin.ClusterDelSlotsRange(l.Context(), 0, 16383).Err())
		}, func(l *load) { l.check(l.redis.admin.ClusterAddSlotsRange(l.Context(), 0, 16383).Err()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var r *redisProc
			if slices.Contains(c.args, "--cluster-enabled") {
				r = startCluster(t, 1)[0]
			} else {
				r = startRedis(t, c.args...)
			}
			l := newLoad(t, r)
			l.start()
			l.more(20)
			c.begin(l)
			if c.code != "" {
				level := map[bool]string{false: "WARN", true: "ERROR"}[c.alarm]
				l.until("the log says "+c.code, func() bool { return l.logged("level=" + level + ` msg="Redis trouble"`).with("code=" + c.code + " ") })
			}
			if c.claim == lost {
				next(t, l.losses)
			}
			c.end(l)
			l.more(20)
			l.finish()
			if c.code != "" && !l.logged(`msg="Redis trouble is over"`).with("lasted=") {
				t.Error("the log does not say that the trouble is over")
			}
			if c.claim == kept && l.lost > 0 {
				t.Errorf("the long job lost its claim %d times, want it kept", l.lost)
			}
			l.inOrder()
		})
	}
}

// TestFailover: the server becomes a replica under a running queue, and the address leads to another one. Connections to the old
// one stay open, as they do behind a name or a virtual address.
func TestFailover(t *testing.T) {
	t.Parallel()
	old, fresh := startRedis(t), startRedis(t)
	_, port, _ := net.SplitHostPort(old.addr)
	if err := fresh.admin.ReplicaOf(t.Context(), "127.0.0.1", port).Err(); err != nil {
		t.Fatal(err)
	}
	l := newLoad(t, old)
	l.until("the other one follows", func() bool {
		return strings.Contains(fresh.admin.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	l.via = newProxy(t, old.addr)
	l.start()
	l.more(20)
	// A failover that waits for its replica, as an ordered one does: what a hasty one loses is TestCutBack.
	l.check(old.admin.Do(t.Context(), "CLIENT", "PAUSE", soon.Milliseconds(), "WRITE").Err())
	l.until("the other one has all", func() bool {
		return offset(old.admin, "master_repl_offset") == offset(fresh.admin, "slave_repl_offset")
	})
	l.check(fresh.admin.ReplicaOf(t.Context(), "NO", "ONE").Err())
	l.via.lead(fresh.addr)
	_, port, _ = net.SplitHostPort(fresh.addr)
	l.check(old.admin.ReplicaOf(t.Context(), "127.0.0.1", port).Err())
	l.check(old.admin.ClientUnpause(t.Context()).Err())
	l.redis = fresh
	l.more(40)
	l.finish()
	if !l.logged("level=WARN").with("code=READONLY ") && !l.logged("level=WARN").with("code=UNBLOCKED ") {
		t.Error("the log says nothing of the failover")
	}
	l.inOrder()
}

func offset(rdb *redis.Client, field string) string {
	for line := range strings.Lines(rdb.Info(context.Background(), "replication").Val()) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "none"
}

// TestEmptied: a Redis that comes back with nothing. The queue forgets what waited, as it must; who worked learns that the claim
// is lost; what is enqueued from then on runs, under fences above all earlier ones.
func TestEmptied(t *testing.T) {
	t.Parallel()
	l := newLoad(t, startRedis(t))
	l.start()
	l.more(20)
	l.stopProducers()
	l.redis.kill()
	l.redis.start()
	next(t, l.losses)
	l.forget()
	l.startProducers()
	l.more(20)
	l.close()
	l.stopProducers()
	l.drain()
	if l.fell > 0 {
		t.Errorf("%d claims had a fence that was not above the one before", l.fell)
	}
}

// TestCutBack: power fails, or a replica that lags takes over, and the last second is undone: enqueues, claims, stages and ends.
// What is left keeps its order, fences still rise, and with a journal by job id, as the runner in each machine keeps it, nothing
// runs twice. What was accepted and is lost can be enqueued again, and runs then, once.
func TestCutBack(t *testing.T) {
	t.Parallel()
	r := startRedis(t, "--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes")
	l := newLoad(t, r)
	l.forgetful = true
	l.start()
	for range 2 {
		l.more(30)
		size := r.aofSize()
		l.more(30) // what comes now is undone
		r.kill()
		r.cutAOF(size)
		r.start()
	}
	l.more(30)
	l.stopProducers()
	lost := l.missing()
	for _, j := range lost {
		l.put(j)
	}
	l.close()
	l.drain()
	t.Logf("%d jobs accepted, %d of them lost with the end of the file, %d claimed anew that had run", l.accepted(), len(lost), l.again)
	if l.fell > 0 {
		t.Errorf("%d claims had a fence that was not above the one before", l.fell)
	}
	l.ranOnce()
	if l.again == 0 && len(lost) == 0 {
		t.Error("nothing was undone: this proves nothing")
	}
}

// TestTroubleOf has those codes that no other test meets.
func TestTroubleOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]queue.Trouble{
		"MASTERDOWN Link with MASTER is down":                   {Code: "MASTERDOWN"},
		"TRYAGAIN Multiple keys request during rehashing":       {Code: "TRYAGAIN"},
		"READONLY You can't write against a read only replica.": {Code: "READONLY"},
		"NOSCRIPT No matching script. Please use EVAL.":         {Code: "NOSCRIPT"},
		"OOM command not allowed when used memory > 'maxmemory'.": {
			Code: "OOM", Alarm: true,
		},
		"WRONGPASS invalid username-password pair or user is disabled.": {Code: "WRONGPASS", Alarm: true},
		"NOPERM User bot has no permissions to run the 'get' command":   {Code: "NOPERM", Alarm: true},
		"MOVED 3999 127.0.0.1:6381":                                     {Code: "MOVED", Alarm: true},
		"CROSSSLOT Keys in request don't hash to the same slot":         {Code: "CROSSSLOT", Alarm: true},
		"WRONGTYPE Operation against a key":                             {Code: "WRONGTYPE", Alarm: true},
		"ERR max number of clients reached":                             {Code: "MAXCLIENTS", Alarm: true},
		"BUSYGROUP something else":                                      {Code: "ERR", Alarm: true},
		"ERR user_script:1: attempt to index a nil value":               {Code: "ERR", Alarm: true},
	} {
		err := fmt.Errorf("claim: %w", redisError(text))
		if got := queue.TroubleOf(err); got.Code != want.Code || got.Alarm != want.Alarm || got.Means == "" {
			t.Errorf("TroubleOf(%q) = %+v, want code %s, alarm %v, and what it means", text, got, want.Code, want.Alarm)
		}
	}
	if got := queue.TroubleOf(fmt.Errorf("dial: %w", context.DeadlineExceeded)); got.Code != "NETWORK" || got.Alarm {
		t.Errorf("TroubleOf(no answer) = %+v, want NETWORK, to be waited out", got)
	}
}

type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

// redisProc is a redis-server that a test ends and starts again.
type redisProc struct {
	*testing.T
	addr, dir string
	args      []string
	cmd       *exec.Cmd
	admin     *redis.Client
}

func startRedis(t *testing.T, args ...string) *redisProc {
	t.Helper()
	r := newRedis(t, args...)
	r.start()
	return r
}

func newRedis(t *testing.T, args ...string) *redisProc {
	t.Helper()
	r := &redisProc{T: t, dir: t.TempDir(), args: args, addr: freeAddr(t)}
	r.admin = redis.NewClient(&redis.Options{Addr: r.addr, MaxRetries: -1, PoolSize: 2, ReadTimeout: soon})
	t.Cleanup(func() { _ = r.admin.Close(); r.kill() })
	return r
}

// launch starts it; await waits until it answers.
func (r *redisProc) launch(args ...string) {
	r.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		r.Skip("left out: redis-server is not installed")
	}
	_, port, _ := net.SplitHostPort(r.addr)
	r.cmd = exec.Command(bin, slices.Concat([]string{"--port", port, "--bind", "127.0.0.1", "--dir", r.dir, "--save", ""}, r.args, args)...)
	if err := r.cmd.Start(); err != nil {
		r.Fatal(err)
	}
}

func (r *redisProc) await() {
	r.Helper()
	for end := time.Now().Add(soon); r.admin.Ping(r.Context()).Err() != nil; {
		if time.Now().After(end) {
			r.Fatal("redis-server does not answer")
		}
	}
}

func (r *redisProc) start() { r.Helper(); r.launch(); r.await() }

func (r *redisProc) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// disconnect closes all other connections.
func (r *redisProc) disconnect() {
	r.Helper()
	if err := r.admin.ClientKillByFilter(r.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		r.Fatal(err)
	}
}

func (r *redisProc) aof() string {
	r.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) != 1 {
		r.Fatalf("the AOF is %v, %v; want one file", files, err)
	}
	return files[0]
}

func (r *redisProc) aofSize() int64 {
	r.Helper()
	info, err := os.Stat(r.aof())
	if err != nil {
		r.Fatal(err)
	}
	return info.Size()
}

func (r *redisProc) cutAOF(size int64) {
	r.Helper()
	if err := os.Truncate(r.aof(), size); err != nil {
		r.Fatal(err)
	}
}

const (
	loadLease = 900 * time.Millisecond
	loadKeys  = 4
)

// load is a queue at work: two replicas behind bad networks of their own, somebody who enqueues and does not give up, and a journal of
// what ran, by job id, which outlives everything.
type load struct {
	*testing.T
	redis     *redisProc
	dial      func() redis.UniversalClient // instead of one behind a bad network
	via       *proxy                       // on the way from the bad networks to Redis; nil: none
	nets      []*toxic
	log       logLines
	losses    chan struct{} // gets something each time the long job loses its claim
	release   chan struct{} // closed: the long job may end
	forgetful bool          // Redis may forget: a job that has run may be claimed as one that was never

	replicas []func() // stop them
	put      func(queue.Job)
	stop     chan struct{} // closed: no more jobs
	feeding  sync.WaitGroup

	mu      sync.Mutex
	taken   map[string][]string // guarded by mu; :: key → ids that were accepted, in order
	ran     map[string][]string // guarded by mu; :: key → ids that ran, in order
	journal map[string]bool     // guarded by mu; ids that ran
	fence   map[string]int64    // guarded by mu; :: key → the highest
	at      map[string]string   // guarded by mu; :: key → fence and owner of who works on it
	lost    int                 // guarded by mu; how often the long job lost its claim
	fell    int                 // guarded by mu; claims with a fence below an earlier one
	again   int                 // guarded by mu; jobs claimed as new that had run
	total   int                 // guarded by mu; jobs that ran
	next    int                 // guarded by mu; number of the next id
}

func newLoad(t *testing.T, r *redisProc) *load {
	return &load{
		T: t, redis: r, losses: make(chan struct{}, 100), release: make(chan struct{}), taken: map[string][]string{}, ran: map[string][]string{},
		journal: map[string]bool{}, fence: map[string]int64{}, at: map[string]string{},
	}
}

func (l *load) check(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// client is one behind a bad network of its own.
func (l *load) client() redis.UniversalClient {
	l.Helper()
	if l.dial != nil {
		return l.dial()
	}
	to := l.redis.addr
	if l.via != nil {
		to = l.via.addr
	}
	x := newToxic(l.T, to)
	l.nets = append(l.nets, x)
	rdb := redis.NewClient(&redis.Options{
		Addr: x.addr, MaxRetries: -1, Protocol: 2, DisableIdentity: true, ReadTimeout: 300 * time.Millisecond, DialerRetries: 1, ContextTimeoutEnabled: true,
	})
	l.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func (l *load) queue() *queue.Queue {
	l.Helper()
	q, err := queue.New(l.client(), queue.Config{
		Lease: loadLease, Poll: time.Second, Slots: 3, Grace: soon, Listener: l.client(), Log: slog.New(slog.NewTextHandler(&l.log, nil)),
	})
	l.check(err)
	return q
}

// start enqueues the long job and starts everything.
func (l *load) start() {
	l.Helper()
	q := l.queue()
	l.put = func(j queue.Job) { // until it is accepted, as Slack's redelivery and the bot's reading of what it missed do
		for l.Context().Err() == nil {
			res, err := q.Enqueue(l.Context(), j, queue.Enqueue{})
			if err == nil && (res.Status == queue.Queued || res.Status == queue.Duplicate) {
				l.mu.Lock()
				if !slices.Contains(l.taken[j.Key], j.ID) {
					l.taken[j.Key] = append(l.taken[j.Key], j.ID)
				}
				l.mu.Unlock()
				return
			}
			if err == nil { // the key is full: the workers are behind
				l.more(1)
			}
		}
	}
	l.put(job("long", "long"))
	for _, q := range []*queue.Queue{q, l.queue()} { // one of them enqueues as well, as a bot does
		l.replicas = append(l.replicas, work(l.T, q, l.handle))
	}
	l.until("the long job runs", func() bool { return l.has("long") })
	l.startProducers()
}

func (l *load) startProducers() {
	l.stop = make(chan struct{})
	for n := range loadKeys {
		key := fmt.Sprint("k", n)
		l.feeding.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				case <-l.Context().Done():
					return
				default:
				}
				l.mu.Lock()
				l.next++
				id := fmt.Sprint(key, "-", l.next)
				l.mu.Unlock()
				l.put(job(key, id))
			}
		})
	}
}

func (l *load) stopProducers() {
	close(l.stop)
	l.feeding.Wait()
}

func (l *load) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal[id]
}

// handle runs a job unless the journal knows it, and brings it to its end in some steps.
func (l *load) handle(ctx context.Context, c *queue.Claim) queue.Verdict {
	l.begin(c)
	for _, stage := range []string{"started", "result", "posting"} {
		if err := c.SetStage(ctx, stage, []byte(c.Job.ID)); err != nil {
			return queue.Handoff()
		}
	}
	if c.Job.ID == "long" {
		select {
		case <-l.release:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), queue.ErrLost) {
				l.mu.Lock()
				l.lost++
				l.mu.Unlock()
				l.losses <- struct{}{}
			}
			return queue.Handoff()
		}
	}
	return queue.Done()
}

func (l *load) begin(c *queue.Claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Fence < l.fence[c.Job.Key] {
		l.fell++
		if !l.forgetful {
			l.Errorf("%s is claimed under fence %d after %d", c.Job.ID, c.Fence, l.fence[c.Job.Key])
		}
	}
	l.fence[c.Job.Key] = c.Fence
	if l.journal[c.Job.ID] {
		if !c.Attach {
			l.again++
			if !l.forgetful {
				l.Errorf("%s is claimed as new, and has run", c.Job.ID)
			}
		}
		return
	}
	l.journal[c.Job.ID] = true
	l.ran[c.Job.Key] = append(l.ran[c.Job.Key], c.Job.ID)
	l.total++
}

// more waits until so many more jobs ran.
func (l *load) more(n int) {
	l.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.total
	}
	want := count() + n
	l.until(fmt.Sprint(n, " more jobs"), func() bool { return count() >= want })
}

func (l *load) until(what string, look func() bool) {
	l.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(soon); !look(); <-tick.C {
		if time.Now().After(end) {
			l.Fatalf("%s: never. The log:\n%s", what, l.log.String())
		}
	}
}

func (l *load) each(do func(*toxic)) {
	for _, x := range l.nets {
		do(x)
	}
}

func (l *load) heal() { l.each((*toxic).heal) }

// close lets the long job end.
func (l *load) close() { close(l.release) }

// finish lets all end that was accepted.
func (l *load) finish() {
	l.Helper()
	l.close()
	l.stopProducers()
	l.drain()
}

// drain waits until nothing is left in the queue.
func (l *load) drain() {
	l.Helper()
	for _, place := range []string{"ready", "lease", "orphan", "delay", "count", "run"} {
		l.until("nothing is left in "+place, func() bool {
			n, err := l.redis.admin.Exists(l.Context(), "fb:{queue}:"+place).Result()
			return err == nil && n == 0
		})
	}
	for _, stop := range l.replicas {
		stop()
	}
}

// forget drops what is known of jobs that Redis has forgotten.
func (l *load) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken, l.ran = map[string][]string{}, map[string][]string{}
	l.forgetful = true
}

func (l *load) accepted() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ids := range l.taken {
		n += len(ids)
	}
	return n
}

// missing are the jobs that were accepted, and neither ran nor are in the queue.
func (l *load) missing() []queue.Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []queue.Job
	for key, ids := range l.taken {
		for _, id := range ids {
			if n, err := l.redis.admin.Exists(l.Context(), "fb:{queue}:d:"+id).Result(); err == nil && n == 0 && !l.journal[id] {
				out = append(out, job(key, id))
			}
		}
	}
	return out
}

// inOrder: of each key the jobs that were accepted ran in order, once.
func (l *load) inOrder() {
	l.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, want := range l.taken {
		if got := l.ran[key]; !slices.Equal(got, want) {
			l.Errorf("of %s ran\n%v, want\n%v", key, got, want)
		}
	}
}

// ranOnce: all that was accepted ran once, and what was not lost ran in order.
func (l *load) ranOnce() {
	l.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, want := range l.taken {
		got := slices.Clone(l.ran[key])
		slices.Sort(got)
		want = slices.Clone(want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			l.Errorf("of %s ran\n%v, want\n%v", key, got, want)
		}
	}
}

// logLines is a log that tests read while it is written.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (w *logLines) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(b)
}

func (w *logLines) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

type lines []string

// logged returns the lines that hold some text.
func (l *load) logged(text string) lines {
	var out lines
	for line := range strings.Lines(l.log.String()) {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// with reports whether one of the lines holds that text too.
func (ls lines) with(text string) bool {
	return slices.ContainsFunc(ls, func(line string) bool { return strings.Contains(line, text) })
}

// TestResharding: while a cluster moves the slot of the queue from one node to another, with some keys here and some there, every call is
// refused as a whole; then all goes on at the new node.
func TestResharding(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3)
	l := newLoad(t, nodes[0])
	l.dial = func() redis.UniversalClient {
		rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[0].addr}, MaxRetries: -1, DisableIdentity: true, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = rdb.Close() })
		return rdb
	}
	slot := int(nodes[0].admin.ClusterKeySlot(t.Context(), "fb:{queue}:meta").Val())
	from := slot / (16384/3 + 1)
	a, b := nodes[from], nodes[(from+1)%3]
	l.redis = a
	l.start()
	l.more(20)
	id := func(r *redisProc) string { return r.admin.Do(t.Context(), "CLUSTER", "MYID").Val().(string) }
	set := func(r *redisProc, args ...any) {
		t.Helper()
		l.check(r.admin.Do(t.Context(), append([]any{"CLUSTER", "SETSLOT", slot}, args...)...).Err())
	}
	_, port, _ := net.SplitHostPort(b.addr)
	move := func(n int) (moved int) {
		t.Helper()
		keys := a.admin.ClusterGetKeysInSlot(t.Context(), slot, n).Val()
		args := []any{"MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS"}
		for _, k := range keys {
			args = append(args, k)
		}
		if len(keys) > 0 {
			l.check(a.admin.Do(t.Context(), args...).Err())
		}
		return len(keys)
	}
	set(b, "IMPORTING", id(a))
	set(a, "MIGRATING", id(b))
	move(10)
	l.until("the log says that it waits", func() bool { return l.logged("level=WARN").with("code=TRYAGAIN ") })
	for moved := 1; moved > 0; {
		moved = move(50)
	}
	for _, r := range []*redisProc{b, a, nodes[(from+2)%3]} {
		set(r, "NODE", id(b))
	}
	l.redis = b
	l.more(40)
	l.finish()
	l.inOrder()
}

// startCluster starts a cluster of masters that share the slots.
func startCluster(t *testing.T, n int) []*redisProc {
	t.Helper()
	nodes := make([]*redisProc, n)
	share := 16384/n + 1
	for i := range nodes {
		nodes[i] = newRedis(t, "--cluster-enabled", "yes")
		r := nodes[i]
		r.start()
		if err := r.admin.ClusterAddSlotsRange(t.Context(), i*share, min((i+1)*share, 16384)-1).Err(); err != nil {
			t.Fatal(err)
		}
		// As redis-cli does: nodes that begin with the same epoch settle it among themselves at any time after, and who thereby comes to a
		// higher one in the midst of a move takes back the slot from its new owner, until neither holds it.
		if err := r.admin.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(nodes[0].addr)
		if err := r.admin.ClusterMeet(t.Context(), host, port).Err(); err != nil && i > 0 {
			t.Fatal(err)
		}
	}
	for _, r := range nodes {
		for end := time.Now().Add(soon); ; {
			info := r.admin.ClusterInfo(t.Context()).Val()
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprint("cluster_known_nodes:", n)) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the cluster is not ready: %s", info)
			}
		}
	}
	return nodes
}
