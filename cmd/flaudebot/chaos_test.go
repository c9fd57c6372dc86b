package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	goredis "github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// chaosSize is how much happens in a run.
type chaosSize struct {
	replicas, threads, turns, faults int
	lasts                            time.Duration // in which turns are said and faults made
	fault                            time.Duration // longest life of one that lasts
	settle                           time.Duration // how long the end may take after it
	generosity                       int           // times Slack's least rate limits
	seed                             uint64
}

// chaosFromEnv is a small run; with FLAUDEBOT_TEST_CHAOS=1 (`make chaos`) it is a large one. Each number can be set, by FLAUDEBOT_TEST_CHAOS_
// and REPLICAS, THREADS, TURNS, FAULTS, LASTS, FAULT, GENEROSITY and SEED. With FLAUDEBOT_TEST_CHAOS_LOGS the replicas' logs of a run that failed
// are kept in that folder.
func chaosFromEnv() chaosSize {
	size := chaosSize{
		replicas: 2, threads: 6, turns: 2, faults: 8, lasts: 6 * time.Second, fault: time.Second, settle: 2 * time.Minute, generosity: 4,
		seed: uint64(time.Now().UnixNano()), //nolint:gosec // any number
	}
	if os.Getenv("FLAUDEBOT_TEST_CHAOS") == "1" {
		size = chaosSize{
			replicas: 3, threads: 200, turns: 5, faults: 80, lasts: 12 * time.Minute, fault: 6 * time.Second, settle: 20 * time.Minute, generosity: 4, seed: size.seed,
		}
	}
	for name, n := range map[string]*int{
		"REPLICAS": &size.replicas, "THREADS": &size.threads, "TURNS": &size.turns, "FAULTS": &size.faults, "GENEROSITY": &size.generosity,
	} {
		if v, err := strconv.Atoi(os.Getenv("FLAUDEBOT_TEST_CHAOS_" + name)); err == nil {
			*n = v
		}
	}
	if d, err := time.ParseDuration(os.Getenv("FLAUDEBOT_TEST_CHAOS_LASTS")); err == nil {
		size.lasts = d
	}
	if d, err := time.ParseDuration(os.Getenv("FLAUDEBOT_TEST_CHAOS_FAULT")); err == nil {
		size.fault = d
	}
	if s, err := strconv.ParseUint(os.Getenv("FLAUDEBOT_TEST_CHAOS_SEED"), 10, 64); err == nil {
		size.seed = s
	}
	return size
}

// TestChaos lets people talk in many threads while replicas, Redis, the network to it, Fly and Slack fail in every way at random, and
// then draws up a ledger: every turn that was said ran once and was answered once, in order, and nothing is left behind. Judged by
// what is seen from outside: the lines that the commands wrote, Slack's history, Fly's lists, Redis' keys, the processes.
func TestChaos(t *testing.T) {
	t.Parallel()
	c := newChaos(t, chaosFromEnv())
	c.run()
	c.judge()
}

// chaosLease is the lease of the replicas: short, so that a crash is over soon.
const chaosLease = 2 * time.Second

// chaos is one run.
type chaos struct {
	*split
	t     *testing.T
	size  chaosSize
	began time.Time
	rand  *rand.Rand // of the faults; of run's goroutine alone
	fleet *fleet
	up    []*replica // of run's goroutine alone
	wit   *witness
	rdb   *goredis.Client
	net   *toxiproxy.Proxy // between the replicas and Redis
	redis struct {
		addr, dir string
		kill      func()
	}
	threads []*chat

	mu   sync.Mutex
	log  []string // guarded by mu; what was done when
	made int      // guarded by mu; faults
}

func newChaos(t *testing.T, size chaosSize) *chaos {
	t.Helper()
	c := &chaos{t: t, size: size, rand: rand.New(rand.NewPCG(size.seed, 0)), began: time.Now()} //nolint:gosec // it is to be repeatable
	t.Logf("FLAUDEBOT_TEST_CHAOS_SEED=%d: %d replicas, %d threads of %d turns, %d faults in %s", size.seed, size.replicas, size.threads, size.turns, size.faults, size.lasts)
	c.redis.addr, c.redis.dir = freeAddr(t), t.TempDir()
	c.startRedis()
	c.split = splitWorldOn(t, "redis://"+c.redis.addr, "--generosity", strconv.Itoa(size.generosity))
	c.wit, c.rdb = newWitness(t), client(t, "redis://"+c.redis.addr)
	c.net = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "redis", "127.0.0.1:0", c.redis.addr)
	if err := c.net.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.net.Stop)
	c.fleet = newFleet(t, append(slices.Clone(c.env),
		"REDIS_URL=redis://"+c.net.Listen, "FLAUDEBOT_LEASE="+chaosLease.String(), "FLAUDEBOT_REPOS=", "FLAUDEBOT_LOG_LEVEL=info",
		"FLAUDEBOT_ASK_AFTER=2h", "FLAUDEBOT_SLACK_PACE_PERCENT="+strconv.Itoa(100*size.generosity), "FLAUDEBOT_PATIENCE=10m", "FLAUDEBOT_MAX_PARALLEL=100",
	))
	for range size.replicas {
		c.up = append(c.up, c.fleet.start())
	}
	for _, r := range c.up {
		<-r.ready
	}
	places := []struct{ channel, token string }{{c.channel("general"), member}, {c.channel("payments"), member}, {"D0MEMBER", member}, {"D0ADMIN", admin}}
	for i := range size.threads {
		p := places[i%len(places)]
		c.threads = append(c.threads, &chat{
			c: c, name: fmt.Sprintf("T%d", i+1), channel: p.channel, token: p.token, rand: rand.New(rand.NewPCG(size.seed, uint64(i+1))), //nolint:gosec // as above
		})
	}
	return c
}

func (c *chaos) startRedis() {
	c.redis.kill = startRedis(c.t, c.redis.addr, c.redis.dir, "--appendfsync", "everysec")
}

// note adds to the fault log.
func (c *chaos) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprintf("%7.2f s  %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...)))
}

// run lets people talk and makes the faults, and returns when all is answered or can be waited for no longer.
func (c *chaos) run() {
	ctx, cancel := context.WithTimeout(c.t.Context(), c.size.lasts+c.size.settle)
	defer cancel()
	c.began = time.Now()
	over := make(chan struct{})
	go func() {
		defer close(over)
		var talking sync.WaitGroup
		for _, th := range c.threads {
			talking.Go(func() { th.talk(ctx) })
		}
		talking.Wait()
	}()
	c.makeFaults(ctx)
	<-over
	c.note("all that was said is answered, or given up")
	c.awaitRest(ctx)
}

// undo ends a fault.
type undo struct {
	at   time.Time
	room string
	do   func()
}

// fault is one way in which something can go wrong. Of each room one thing goes wrong at a time.
type fault struct {
	name, room string
	do         func(c *chaos) (lasts time.Duration, undo func())
}

// makeFaults makes the faults, each kind before any comes again.
func (c *chaos) makeFaults(ctx context.Context) {
	var deck []fault
	var begun []undo
	next := time.Now()
	pause := func() time.Duration {
		mean := c.size.lasts / time.Duration(c.size.faults+1)
		return mean/3 + time.Duration(c.rand.Int64N(int64(mean*4/3)))
	}
	for next = next.Add(pause()); ctx.Err() == nil && (c.made < c.size.faults || len(begun) > 0); {
		slices.SortFunc(begun, func(x, y undo) int { return x.at.Compare(y.at) })
		if len(begun) > 0 && (c.made >= c.size.faults || begun[0].at.Before(next)) {
			u := begun[0]
			begun = begun[1:]
			c.sleep(ctx, time.Until(u.at))
			u.do()
			continue
		}
		c.sleep(ctx, time.Until(next))
		if len(deck) == 0 {
			deck = chaosFaults()
			c.rand.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		i := slices.IndexFunc(deck, func(f fault) bool {
			return !slices.ContainsFunc(begun, func(u undo) bool { return u.room == f.room })
		})
		if i < 0 { // whatever is left goes wrong already
			next = begun[0].at.Add(time.Millisecond)
			continue
		}
		f := deck[i]
		deck = slices.Delete(deck, i, i+1)
		c.note("%s", f.name)
		c.made++
		lasts, end := f.do(c)
		if end != nil {
			begun = append(begun, undo{time.Now().Add(lasts), f.room, func() { end(); c.note("over: %s", f.name) }})
		}
		next = time.Now().Add(pause())
	}
	for _, r := range c.up {
		if !r.alive() && !r.told {
			c.t.Errorf("replica %d ended by itself:\n%s", r.n, c.fleet.tail(r))
		}
	}
}

func (c *chaos) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// while is a life of a fault.
func (c *chaos) while() time.Duration {
	return c.size.fault/4 + time.Duration(c.rand.Int64N(int64(c.size.fault*3/4)))
}

func chaosFaults() []fault {
	all := []fault{
		{"a replica is killed", "replicas", func(c *chaos) (time.Duration, func()) { return c.replace(1, syscall.SIGKILL) }},
		{"another replica is killed", "replicas", func(c *chaos) (time.Duration, func()) { return c.replace(1, syscall.SIGKILL) }},
		{"all replicas are killed", "replicas", func(c *chaos) (time.Duration, func()) { return c.replace(len(c.up), syscall.SIGKILL) }},
		{"a replica is told to leave", "leaving", func(c *chaos) (time.Duration, func()) { return c.replace(1, syscall.SIGTERM) }},
		{"a replica is paused for longer than its lease", "replicas", (*chaos).pause},
		{"Redis is killed and started again", "redis", func(c *chaos) (time.Duration, func()) {
			c.redis.kill()
			return c.while() / 2, c.startRedis
		}},
		{"Redis forgets its scripts", "redis", func(c *chaos) (time.Duration, func()) {
			c.rdb.ScriptFlush(c.t.Context())
			return 0, nil
		}},
		{"Redis drops its clients", "redis", func(c *chaos) (time.Duration, func()) {
			c.rdb.ClientKillByFilter(c.t.Context(), "TYPE", "normal")
			return 0, nil
		}},
		{"Redis stands still", "redis", func(c *chaos) (time.Duration, func()) {
			c.rdb.Do(c.t.Context(), "CLIENT", "PAUSE", c.while().Milliseconds())
			return 0, nil
		}},
		{"replies of Redis are cut", "redis", func(c *chaos) (time.Duration, func()) { return c.toxic("limit_data", "bytes", 1500+c.rand.IntN(3000)) }},
		{"Redis is slow", "redis", func(c *chaos) (time.Duration, func()) { return c.toxic("latency", "latency", 50+c.rand.IntN(200)) }},
		{"the network to Redis is away", "redis", func(c *chaos) (time.Duration, func()) {
			c.net.Stop()
			return c.while() / 2, func() {
				if err := c.net.Start(); err != nil {
					c.t.Errorf("the proxy to Redis: %v", err)
				}
			}
		}},
		{"a machine is killed", "machine", (*chaos).killMachine},
		{"an empty list of Fly", "fly", func(c *chaos) (time.Duration, func()) {
			c.post("http://"+c.fly+"/local/trouble", map[string]any{"empty_lists": 1})
			return 0, nil
		}},
		{"Slack closes all sockets", "sockets", func(c *chaos) (time.Duration, func()) { return c.sockets("socket", map[string]any{"close": ""}) }},
		{"Slack closes one socket", "sockets", func(c *chaos) (time.Duration, func()) {
			return c.sockets("socket", map[string]any{"close": "", "one": true})
		}},
		{"Slack refreshes the sockets", "sockets", func(c *chaos) (time.Duration, func()) { return c.sockets("socket", map[string]any{"close": "refresh"}) }},
		{"a socket becomes a ghost", "sockets", func(c *chaos) (time.Duration, func()) {
			return c.sockets("socket", map[string]any{"close": "ghost", "one": true})
		}},
		{"a socket breaks in the middle of an event", "sockets", func(c *chaos) (time.Duration, func()) { return c.sockets("trouble", map[string]any{"cut": "event"}) }},
		{"a socket breaks after an event", "sockets", func(c *chaos) (time.Duration, func()) { return c.sockets("trouble", map[string]any{"cut": "sent"}) }},
		{"a socket breaks at an ack", "sockets", func(c *chaos) (time.Duration, func()) { return c.sockets("trouble", map[string]any{"cut": "ack"}) }},
		{"Slack sends everything twice", "events", func(c *chaos) (time.Duration, func()) {
			c.post(c.base+"/local/trouble", map[string]any{"copies": 2})
			return c.while(), func() { c.post(c.base+"/local/trouble", map[string]any{"copies": 1}) }
		}},
		{"Slack refuses new sockets and closes the old", "sockets", func(c *chaos) (time.Duration, func()) {
			c.post(c.base+"/local/trouble", map[string]any{"refuse": "after_hello"})
			c.post(c.base+"/local/socket", map[string]any{"close": ""})
			return c.while(), func() { c.post(c.base+"/local/trouble", map[string]any{"refuse": "nothing"}) }
		}},
	}
	for _, trouble := range []struct {
		name string
		with map[string]any
	}{
		{"answers 503", map[string]any{"status": 503}},
		{"answers 429", map[string]any{"status": 429, "retry_after": 1}},
		{"loses answers", map[string]any{"drop": true, "after_effect": true}},
		{"drops calls", map[string]any{"drop": true}},
		{"is slow", map[string]any{"delay_ms": 700}},
	} {
		fly := []string{"", "machine.exec", "machine.start", "machine.create"}
		slack := []string{"", "chat.postMessage", "chat.update", "conversations.replies"}
		all = append(all, fault{"Fly " + trouble.name, "fly", func(c *chaos) (time.Duration, func()) {
			return c.calls("http://"+c.fly, fly[c.rand.IntN(len(fly))], trouble.with)
		}}, fault{"Slack " + trouble.name, "slack", func(c *chaos) (time.Duration, func()) {
			return c.calls(c.base, slack[c.rand.IntN(len(slack))], trouble.with)
		}})
	}
	return append(all, fault{"Fly's calls time out", "fly", func(c *chaos) (time.Duration, func()) {
		return c.calls("http://"+c.fly, "machine.wait", map[string]any{"status": 408, "delay_ms": 500})
	}})
}

// replace ends n replicas and starts others, at once where they were told to leave.
func (c *chaos) replace(n int, sig syscall.Signal) (time.Duration, func()) {
	var places []int
	for _, i := range c.rand.Perm(len(c.up))[:n] {
		c.note("  replica %d: %s", c.up[i].n, sig)
		c.up[i].tell(sig)
		places = append(places, i)
	}
	start := func() {
		for _, i := range places {
			c.up[i] = c.fleet.start()
		}
	}
	if sig != syscall.SIGTERM {
		return c.while() / 3, start
	}
	old, told := c.up[places[0]], time.Now()
	start()
	return killTimeout(c.t), func() { c.fleet.awaitEnd(old, told) }
}

func (c *chaos) pause() (time.Duration, func()) {
	r := c.up[c.rand.IntN(len(c.up))]
	c.note("  replica %d", r.n)
	_ = r.cmd.Process.Signal(syscall.SIGSTOP)
	return chaosLease*3/2 + c.while()/2, func() { _ = r.cmd.Process.Signal(syscall.SIGCONT) }
}

func (c *chaos) toxic(kind, attribute string, value int) (time.Duration, func()) {
	c.note("  %s %d", attribute, value)
	raw, err := json.Marshal(map[string]any{"name": kind, "type": kind, "stream": "downstream", "attributes": map[string]any{attribute: value}})
	if err == nil {
		_, err = c.net.Toxics.AddToxicJson(bytes.NewReader(raw))
	}
	if err != nil {
		c.t.Errorf("toxic %s: %v", kind, err)
	}
	return c.while(), func() { c.net.Toxics.ResetToxics(context.WithoutCancel(c.t.Context())) }
}

func (c *chaos) sockets(verb string, how map[string]any) (time.Duration, func()) {
	c.post(c.base+"/local/"+verb, how)
	return 0, nil
}

// calls makes the replicas' calls of a method go wrong; "": all.
func (c *chaos) calls(base, method string, how map[string]any) (time.Duration, func()) {
	c.note("  of %q", method)
	body := map[string]any{"method": method, "spare": "xoxp-"}
	maps.Copy(body, how)
	c.post(base+"/local/faults", body)
	return c.while(), func() { c.post(base+"/local/faults", map[string]any{}) }
}

// killMachine kills a machine as its host would: a turn that runs on it may end as one that was interrupted.
func (c *chaos) killMachine() (time.Duration, func()) {
	var started []map[string]any
	for _, m := range flyList(c.t, "http://"+c.fly, "test-app", "machines") {
		if m["state"] == "started" {
			started = append(started, m)
		}
	}
	if len(started) == 0 {
		c.note("  none runs")
		return 0, nil
	}
	m := started[c.rand.IntN(len(started))]
	config, _ := m["config"].(map[string]any)
	for _, th := range c.threads {
		if root := th.root(); root != "" && has(c.t, config["metadata"], root) {
			c.note("  that of %s", th.name)
			th.interrupt()
		}
	}
	c.post("http://"+c.fly+"/local/kill", map[string]any{"machine": m["id"]})
	return 0, nil
}

// post calls the stand-ins' own methods.
func (c *chaos) post(address string, body map[string]any) {
	raw, err := json.Marshal(body)
	if err != nil {
		c.t.Error(err)
		return
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(c.t.Context()), http.MethodPost, address, bytes.NewReader(raw))
	if err != nil {
		c.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+admin)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Errorf("POST %s: %v", address, err)
		return
	}
	_ = res.Body.Close()
}

// chat is a person in a thread.
type chat struct {
	c                    *chaos
	name, channel, token string
	rand                 *rand.Rand

	mu     sync.Mutex
	turns  []*said // guarded by mu
	killed bool    // guarded by mu; its machine was: it is not ended any more, since that would be asked about
}

// said is a turn as it was said.
type said struct {
	n    int // from 1
	ts   string
	kind string // plain, slow, stopped, edited
	// done is set when its answer was seen.
	done bool
	// interrupted is set when its machine was killed before that.
	interrupted bool
}

func (th *chat) root() string {
	th.mu.Lock()
	defer th.mu.Unlock()
	if len(th.turns) == 0 {
		return ""
	}
	return th.turns[0].ts
}

// interrupt notes that the machine was killed.
func (th *chat) interrupt() {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.killed = true
	for _, s := range th.turns {
		if !s.done {
			s.interrupted = true
		}
	}
}

// talk says the thread's turns, each at its time, and waits for their answers.
func (th *chat) talk(ctx context.Context) {
	c := th.c
	n := c.size.turns
	var times []time.Duration
	for range n {
		times = append(times, time.Duration(th.rand.Int64N(int64(c.size.lasts)*9/10)))
	}
	slices.Sort(times)
	mention := true
	for i := 0; i < n && ctx.Err() == nil; i++ {
		c.sleep(ctx, time.Until(c.began.Add(times[i])))
		switch p := th.rand.IntN(100); {
		case p < 10 && i > 0 && th.end(ctx):
			mention = true
			th.say(ctx, "plain", mention)
		case p < 22:
			s := th.say(ctx, "stopped", mention)
			th.stop(ctx, s)
		case p < 37 && i+1 < n:
			th.say(ctx, "slow", mention)
			s := th.say(ctx, "edited", false)
			th.edit(ctx, s)
			i++
		case p < 55:
			th.say(ctx, "slow", mention)
		default:
			th.say(ctx, "plain", mention)
		}
		mention = false
		if th.rand.IntN(3) > 0 {
			th.answered(ctx)
		}
	}
	th.answered(ctx)
}

// line is what the command of a turn writes.
func (th *chat) line(n int) string { return fmt.Sprintf("%s-%d", th.name, n) }

func (th *chat) prompt(s *said, mentioned bool, note string) string {
	more := map[string]string{"slow": "; sleep 3", "stopped": "; sleep 100"}[s.kind]
	text := th.c.wit.note(th.line(s.n)+note, more)
	if !mentioned {
		text = strings.TrimPrefix(text, mention)
	}
	return text
}

// say says the next turn and returns when it was accepted: what comes later comes behind it.
func (th *chat) say(ctx context.Context, kind string, mentioned bool) *said {
	s := &said{n: len(th.turns) + 1, kind: kind}
	form := url.Values{"channel": {th.channel}, "text": {th.prompt(s, mentioned, "")}}
	if root := th.root(); root != "" {
		form.Set("thread_ts", root)
	}
	th.mu.Lock() // so that a machine that is killed finds it
	s.ts, _ = th.c.ask(ctx, th.token, "chat.postMessage", form)["ts"].(string)
	th.turns = append(th.turns, s)
	th.mu.Unlock()
	th.c.await(ctx, func() bool {
		return th.c.rdb.Exists(ctx, "fb:{queue}:d:T0LOCAL:"+th.channel+":"+s.ts).Val() == 1
	})
	return s
}

// edit edits a turn that waits, as a rule.
func (th *chat) edit(ctx context.Context, s *said) {
	th.c.ask(ctx, th.token, "chat.update", url.Values{"channel": {th.channel}, "ts": {s.ts}, "text": {th.prompt(s, false, "-edited")}})
}

// stop stops a turn when it runs, and says so again if need be.
func (th *chat) stop(ctx context.Context, s *said) {
	th.c.await(ctx, func() bool { return slices.Contains(th.c.wit.lines(), th.line(s.n)) || th.see()[s.ts] })
	for ctx.Err() == nil && !th.see()[s.ts] {
		th.c.ask(ctx, th.token, "chat.postMessage", url.Values{"channel": {th.channel}, "thread_ts": {th.root()}, "text": {"!stop"}})
		short, cancel := context.WithTimeout(ctx, 20*time.Second)
		th.c.await(short, func() bool { return th.see()[s.ts] })
		cancel()
	}
}

// end ends the session between turns.
func (th *chat) end(ctx context.Context) bool {
	th.answered(ctx)
	th.mu.Lock()
	killed := th.killed
	th.mu.Unlock()
	if killed {
		return false
	}
	goodbyes := th.goodbyes()
	for ctx.Err() == nil && th.goodbyes() == goodbyes {
		th.c.ask(ctx, th.token, "chat.postMessage", url.Values{"channel": {th.channel}, "thread_ts": {th.root()}, "text": {"!end"}})
		short, cancel := context.WithTimeout(ctx, 90*time.Second)
		th.c.await(short, func() bool { return th.goodbyes() > goodbyes })
		cancel()
	}
	return true
}

func (th *chat) goodbyes() int {
	n := 0
	for _, m := range th.messages() {
		if strings.Contains(m.Turn, "end:") {
			n++
		}
	}
	return n
}

// answered waits for the answers to all that was said.
func (th *chat) answered(ctx context.Context) {
	th.c.await(ctx, func() bool {
		seen := th.see()
		return !slices.ContainsFunc(th.turns, func(s *said) bool { return !seen[s.ts] })
	})
}

// see notes which turns are answered: ts → true.
func (th *chat) see() map[string]bool {
	out := map[string]bool{}
	for _, m := range th.messages() {
		if m.Part != "live" && footer.MatchString(m.Text) {
			out[m.Turn[strings.LastIndexByte(m.Turn, ':')+1:]] = true
		}
	}
	th.mu.Lock()
	defer th.mu.Unlock()
	for _, s := range th.turns {
		s.done = s.done || out[s.ts]
	}
	return out
}

func (th *chat) messages() []message {
	ctx := context.WithoutCancel(th.c.t.Context())
	res := th.c.ask(ctx, th.token, "conversations.replies", url.Values{"channel": {th.channel}, "ts": {th.root()}, "include_all_metadata": {"true"}, "limit": {"1000"}})
	return messagesOf(res)
}

// await looks again and again, the more seldom the more threads there are.
func (c *chaos) await(ctx context.Context, look func() bool) {
	tick := time.NewTicker(200*time.Millisecond + 10*time.Millisecond*time.Duration(c.size.threads))
	defer tick.Stop()
	for ctx.Err() == nil && !look() {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// ask calls a method of Slack as a person.
func (c *chaos) ask(ctx context.Context, token, method string, form url.Values) map[string]any {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/api/"+method, strings.NewReader(form.Encode()))
	if err != nil {
		c.t.Error(err)
		return nil
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+token)
	var out map[string]any
	res, err := http.DefaultClient.Do(req)
	if err == nil {
		err = json.NewDecoder(res.Body).Decode(&out)
		_ = res.Body.Close()
	}
	if err != nil || out["ok"] != true {
		if ctx.Err() == nil {
			c.t.Errorf("%s: %v, %v", method, out, err)
		}
		return map[string]any{}
	}
	return out
}

// awaitRest waits until nothing runs and nothing is held any more.
func (c *chaos) awaitRest(ctx context.Context) {
	for {
		left := c.orphans()
		if len(left) == 0 || ctx.Err() != nil {
			return
		}
		c.sleep(ctx, 500*time.Millisecond+10*time.Millisecond*time.Duration(c.size.threads))
	}
}

// orphans are what must not be left when all is answered.
func (c *chaos) orphans() []string {
	var out []string
	for _, place := range []string{"lease", "ready", "orphan", "delay", "parks", "run", "count"} {
		if n, err := c.rdb.Exists(c.t.Context(), "fb:{queue}:"+place).Result(); err != nil || n != 0 {
			out = append(out, fmt.Sprintf("Redis has %s: %s %v", place, strings.Join(c.rdb.ZRange(c.t.Context(), "fb:{queue}:"+place, 0, -1).Val(), " "), err))
		}
	}
	if len(out) > 0 {
		return out // no need to ask Fly
	}
	sessions := map[string]bool{} // what the sessions have on Fly
	for _, thread := range c.rdb.ZRange(c.t.Context(), "fb:{sessions}:live", 0, -1).Val() {
		var s struct {
			Machine string `json:"machine_id"`
			Volume  string `json:"volume_id"`
		}
		raw := c.rdb.HGet(c.t.Context(), "fb:{sessions}:s:"+thread, "json").Val()
		if err := json.Unmarshal([]byte(raw), &s); err != nil {
			out = append(out, fmt.Sprintf("the record of %s: %v", thread, err))
		}
		sessions[s.Machine], sessions[s.Volume] = true, true
	}
	for _, m := range flyList(c.t, "http://"+c.fly, "test-app", "machines") {
		id, _ := m["id"].(string)
		if m["state"] != "stopped" {
			out = append(out, fmt.Sprintf("machine %s is %s", id, m["state"]))
		}
		if !sessions[id] {
			out = append(out, "machine "+id+" is of no session")
		}
		if left := processesOf(c.t, id, "no such command"); len(left) > 0 {
			out = append(out, fmt.Sprintf("machine %s has processes: %q", id, left))
		}
	}
	for _, v := range flyList(c.t, "http://"+c.fly, "test-app", "volumes") {
		if id, _ := v["id"].(string); !sessions[id] {
			out = append(out, "volume "+id+" is of no session")
		}
	}
	return out
}

// judge draws up the ledger.
func (c *chaos) judge() {
	c.t.Helper()
	book := map[string]int{}
	ran := c.wit.lines()
	if c.t.Failed() {
		book["failed"]++
	}
	for _, th := range c.threads {
		if wrong := th.judge(ran, book); len(wrong) > 0 {
			var said []string
			for _, m := range th.messages() {
				said = append(said, fmt.Sprintf("%s %s %s: %.100q", m.TS, m.Turn, m.Part, m.Text))
			}
			c.t.Errorf("thread %s (%s %s):\n  %s\nwhat stands there:\n  %s\nwhat was logged of it:\n  %s", th.name, th.channel, th.root(),
				strings.Join(wrong, "\n  "), strings.Join(said, "\n  "), strings.Join(c.fleet.lines(th.root()), "\n  "))
		}
	}
	left := c.orphans()
	book["orphans"] += len(left)
	for _, what := range left {
		c.t.Errorf("left behind: %s", what)
	}
	c.t.Logf("what went wrong when:\n%s", strings.Join(c.log, "\n"))
	c.t.Logf("LEDGER after %s, %d faults, seed %d: accepted %d, run %d, answered %d, lost %d, doubled %d, out of order %d, ended wrongly %d, orphans %d (stopped %d, interrupted %d, edits that won %d, ends %d)",
		time.Since(c.began).Round(time.Second), c.made, c.size.seed, book["accepted"], book["run"], book["answered"], book["lost"], book["doubled"], book["order"], book["wrong"],
		book["orphans"], book["stopped"], book["interrupted"], book["edited"], book["ends"])
	if dir := os.Getenv("FLAUDEBOT_TEST_CHAOS_LOGS"); dir != "" && c.t.Failed() {
		if err := os.CopyFS(filepath.Join(dir, strconv.FormatUint(c.size.seed, 10)), os.DirFS(c.fleet.dir)); err != nil {
			c.t.Log(err)
		}
	}
}

// judge tells what is wrong with a thread, and counts.
func (th *chat) judge(ran []string, book map[string]int) (wrong []string) {
	say := func(kind, format string, args ...any) {
		book[kind]++
		wrong = append(wrong, kind+": "+fmt.Sprintf(format, args...))
	}
	answers, lives := map[string][]string{}, map[string]int{}
	var order []int
	parts := map[string]int{}
	byTS := map[string]*said{}
	for _, s := range th.turns {
		byTS[s.ts] = s
	}
	for _, m := range th.messages() {
		ts := m.Turn[strings.LastIndexByte(m.Turn, ':')+1:]
		s := byTS[ts]
		if strings.Contains(m.Turn, "end:") {
			book["ends"]++
		}
		if s == nil || m.Part == partNoteOfTurn {
			continue
		}
		if parts[m.Turn+" "+m.Part]++; parts[m.Turn+" "+m.Part] == 2 {
			say("doubled", "part %s of turn %d stands there twice", m.Part, s.n)
		}
		if m.Part == "live" {
			lives[ts]++
			if has(th.c.t, m.Raw, `"action_id":"stop"`) {
				say("orphans", "the live message of turn %d has its Stop button", s.n)
			}
			continue
		}
		if f := footer.FindStringSubmatch(m.Text); f != nil {
			answers[ts] = append(answers[ts], f[1])
			order = append(order, s.n)
		}
	}
	if !slices.IsSorted(order) {
		say("order", "answers came as %v", order)
	}
	var lines []int
	for _, s := range th.turns {
		book["accepted"]++
		plain, edited := 0, 0
		for _, l := range ran {
			switch l {
			case th.line(s.n):
				plain++
			case th.line(s.n) + "-edited":
				edited++
			}
		}
		book["run"] += min(plain+edited, 1)
		book["answered"] += min(len(answers[s.ts]), 1)
		book["edited"] += edited
		if plain+edited > 1 {
			say("doubled", "turn %d ran %d times", s.n, plain+edited)
		}
		if len(answers[s.ts]) == 0 {
			say("lost", "turn %d (%s, %s) has no answer", s.n, s.kind, s.ts)
			continue
		}
		if len(answers[s.ts]) > 1 {
			say("doubled", "turn %d has %d answers", s.n, len(answers[s.ts]))
		}
		code := answers[s.ts][0]
		switch {
		case code == "0" && plain+edited == 0:
			say("lost", "turn %d is answered and did not run", s.n)
		case code == "0":
		case code == "130" && s.kind == "stopped":
			book["stopped"]++
		case s.interrupted:
			book["interrupted"]++
		default:
			say("wrong", "turn %d (%s, %s) ended with exit %s", s.n, s.kind, s.ts, code)
		}
		if plain+edited > 0 {
			lines = append(lines, slices.IndexFunc(ran, func(l string) bool { return l == th.line(s.n) || l == th.line(s.n)+"-edited" }))
		}
	}
	if !slices.IsSorted(lines) {
		say("order", "turns ran in another order than they were said")
	}
	return wrong
}

// partNoteOfTurn marks what is said beside an answer.
const partNoteOfTurn = "note"
