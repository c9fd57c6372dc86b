package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"flaudebot/sessions"
)

// TestStrike kills a replica around one of its requests, and lets another one go on: a sample of all requests, all of them with
// FLAUDEBOT_TEST_STRIKES=all (`make crash`), those around some requests with 20-40. Judged by what is seen from outside: the lines that the commands wrote, Slack's history,
// Fly's lists, and that nothing is held in Redis.
func TestStrike(t *testing.T) {
	t.Parallel()
	redis := redisServer(t)
	strikes(t, "FLAUDEBOT_TEST_STRIKES", 2, cleanRun(t, redis), []string{"killed before", "killed after"}, func(t *testing.T, s *striker, manner string) *ledger {
		s.after = manner == "killed after"
		return setLedger(t, redis, s, false)
	})
}

// TestPause stops a replica for longer than its lease around one of its requests, while another one comes up and takes over; then it goes
// on as if nothing had been. The same is judged, and at the end the one that was paused answers alone. FLAUDEBOT_TEST_PAUSES is as
// FLAUDEBOT_TEST_STRIKES.
func TestPause(t *testing.T) {
	t.Parallel()
	redis := redisServer(t)
	requests := make([]string, 400) // a run makes some more, which is enough to know for a sample
	if os.Getenv("FLAUDEBOT_TEST_PAUSES") != "" {
		requests = cleanRun(t, redis)
	}
	strikes(t, "FLAUDEBOT_TEST_PAUSES", 1, requests, []string{"paused at"}, func(t *testing.T, s *striker, _ string) *ledger {
		return setLedger(t, redis, s, true)
	})
}

// cleanRun returns the requests of a run that nobody disturbs.
func cleanRun(t *testing.T, redis string) []string {
	t.Helper()
	l := newLedger(t, redis, 0, false)
	l.play()
	all := l.striker.requests()
	t.Logf("a clean run makes %d requests", len(all))
	if len(all) < 100 {
		t.Fatalf("a clean run makes %d requests: they are not all counted", len(all))
	}
	return all
}

// strikes strikes around a sample of those requests in each of the manners, or around those that the environment's variable names: all, their
// numbers, or WORD:N for N of those with the word in their name. set sets the stage for one.
func strikes(t *testing.T, env string, sample int, requests, manners []string, set func(t *testing.T, s *striker, manner string) *ledger) {
	t.Helper()
	type one struct {
		at     int
		manner string
	}
	var all []one
	wanted := os.Getenv(env)
	word, number, byWord := strings.Cut(wanted, ":")
	if !byWord {
		word = ""
	}
	requests = slices.DeleteFunc(requests, func(r string) bool { return !strings.Contains(r, word) })
	for at := 1; at <= len(requests); at++ {
		for _, m := range manners {
			all = append(all, one{at, m})
		}
	}
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number
	if s, err := strconv.ParseUint(os.Getenv(env+"_SEED"), 10, 64); err == nil {
		seed = s
	}
	low, high := 0, 0
	if k, err := fmt.Sscanf(wanted, "%d-%d", &low, &high); k == 2 && err == nil {
		all = slices.DeleteFunc(all, func(s one) bool { return s.at < low || s.at > high })
		sample = len(all)
	} else if wanted == "all" {
		sample = len(all)
	} else if byWord {
		k, _ := strconv.Atoi(number)
		sample = min(k, len(all))
	} else if k, err := strconv.Atoi(wanted); err == nil {
		sample = min(k, len(all))
	}
	t.Logf("%d of %d strikes, %s_SEED=%d", sample, len(all), env, seed)
	sum := &tally{of: sample}
	t.Cleanup(func() {
		t.Logf("%s: %s", t.Name(), sum)
		if sum.all != sample {
			t.Errorf("%d of %d strikes came to an end", sum.all, sample)
		}
	})
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(all))[:sample] { //nolint:gosec // a sample
		s := all[i]
		t.Run(fmt.Sprintf("%s request %d", s.manner, s.at), func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			l := set(t, &striker{at: s.at, only: word}, s.manner)
			defer func() {
				what, _ := l.striker.landed()
				sum.add(t, s.manner, what, time.Since(began))
			}()
			l.play()
			if what, _ := l.striker.landed(); what == "" {
				t.Error("the strike never landed")
			}
		})
	}
}

// tally counts strikes.
type tally struct {
	of int

	mu                 sync.Mutex
	all, landed, dirty int // guarded by mu
}

func (s *tally) add(t *testing.T, manner, what string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all++
	if what != "" {
		s.landed++
	}
	verdict := "clean"
	if t.Failed() {
		s.dirty++
		verdict = "DIRTY"
	}
	t.Logf("%d of %d: %s %s: %s, %.1f s", s.all, s.of, manner, what, verdict, took.Seconds())
}

func (s *tally) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("strikes %d, landed %d, clean %d, dirty %d", s.all, s.landed, s.all-s.dirty, s.dirty)
}

// ledger is a run of two threads of three turns each, with a stop, an edit and an end, and what is known of it.
type ledger struct {
	*split
	t       *testing.T
	striker *striker
	file    string // to which the commands write a line each
	app     string
	prefix  string
	rdb     *goredis.Client
	general string

	direct []string // the environment of a replica that nobody strikes

	mu     sync.Mutex
	bot    *proc         // guarded by mu; the one that is struck, or came after it
	second *proc         // guarded by mu; that came up while it was paused
	came   chan struct{} // guarded by mu; closed when it is ready, and the other one goes on
	end    bool          // guarded by mu; the run is over: start no other
}

// newLedger sets the stage for a replica that is killed around its request number at (0: around none), and one that comes after it.
func newLedger(t *testing.T, redis string, at int, after bool) *ledger {
	t.Helper()
	return setLedger(t, redis, &striker{at: at, after: after}, false)
}

// setLedger sets the stage for s, which kills or pauses.
func setLedger(t *testing.T, redis string, s *striker, pause bool) *ledger {
	t.Helper()
	// Commands run as Claude's own user, in a machine that has a /tmp of its own.
	dir, err := os.MkdirTemp("/var/tmp", "flaudebot-ledger-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "ledger")
	if err := os.WriteFile(file, nil, 0o666); err != nil { //nolint:gosec // Claude's user writes to it
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o755, file: 0o666} { // whatever the umask
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	w := splitWorldOn(t, redis)
	l := &ledger{split: w, t: t, striker: s, file: file, app: "ledger-app", prefix: filepath.Base(dir) + ":", general: w.channel("general")}
	opts, err := goredis.ParseURL(redis)
	if err != nil {
		t.Fatal(err)
	}
	l.rdb = goredis.NewClient(opts)
	t.Cleanup(func() { _ = l.rdb.Close() })
	l.direct = append(l.env, "FLAUDEBOT_PREFIX="+l.prefix, "FLAUDEBOT_FLY_APP="+l.app, "FLAUDEBOT_LEASE="+ledgerLease.String())
	s.kill = func() {
		l.mu.Lock()
		p := l.bot
		l.mu.Unlock()
		p.kill()
	}
	if pause {
		s.pause = l.pause
	}
	l.env = append(slices.Clone(l.direct),
		"SLACK_API_URL="+s.proxyHTTP(t, "slack", w.base)+"/api/", "FLY_FLAPS_BASE_URL="+s.proxyHTTP(t, "fly", "http://"+w.fly),
		"REDIS_URL=redis://"+s.proxyRedis(t, opts.Addr),
	)
	l.mu.Lock()
	l.bot = launch(t, l.env, "serve")
	l.mu.Unlock()
	go l.replace()
	t.Cleanup(l.over)
	l.awaitUp()
	return l
}

// ledgerLease is how long a claim lives.
const ledgerLease = time.Second

// pause stops the replica, has another one come up, and lets the first go on when its leases are over for long.
func (l *ledger) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end {
		return
	}
	_ = l.bot.cmd.Process.Signal(syscall.SIGSTOP)
	long := time.After(3 * ledgerLease)
	l.second, l.came = launch(l.t, l.direct, "serve"), make(chan struct{})
	go func(first, second *proc, came chan struct{}) {
		defer close(came)
		select {
		case <-second.ready:
		case <-second.done:
			l.t.Errorf("the second replica ended:\n%s", tail(second.logs(), 2000))
		}
		<-long
		_ = first.cmd.Process.Signal(syscall.SIGCONT)
	}(l.bot, l.second, l.came)
}

// alone has the replica that was paused answer one more turn, with nobody beside it.
func (l *ledger) alone(a *thread) {
	l.t.Helper()
	l.mu.Lock()
	first, second, came := l.bot, l.second, l.came
	l.mu.Unlock()
	<-came
	second.stop()
	select {
	case <-first.done:
		l.t.Errorf("the replica that was paused has ended:\n%s", tail(first.logs(), 2000))
	default:
	}
	ts := l.say(member, l.general, a.root, l.note(fmt.Sprintf("A%d", len(a.turns)+1), ""))
	a.turns = append(a.turns, ts)
	text, _ := l.answer(l.general, a.root, ts)
	if want := fmt.Sprintf("turn %d", len(a.turns)); !strings.Contains(text, want) {
		l.t.Errorf("the answer of the replica that was paused = %q, want %q in it", text, want)
	}
	l.awaitSleep("the end of the turn of the replica that was paused")
}

// awaitUp returns when a replica is ready: what was said before the very first start is nobody's business.
func (l *ledger) awaitUp() {
	l.t.Helper()
	var first *proc
	l.until("a replica that is ready", func() bool {
		l.mu.Lock()
		p := l.bot
		l.mu.Unlock()
		if p == first {
			return false // the one that was killed
		}
		select {
		case <-p.ready:
			return true
		case <-p.done:
			first = p
		case <-time.After(testPatience):
		}
		return false
	})
}

// replace starts another replica when the first has been killed.
func (l *ledger) replace() {
	<-l.bot.done
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.end {
		l.bot = launch(l.t, l.env, "serve")
	}
}

func (l *ledger) over() {
	l.mu.Lock()
	l.end = true
	p, second := l.bot, l.second
	l.mu.Unlock()
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	p.stop()
	if second != nil {
		second.stop()
	}
}

// turnIn says something in a thread, and what it leaves in the ledger.
func (l *ledger) note(line, more string) string {
	return "run: echo " + line + " >> " + l.file + more
}

// play is the scenario. Messages are events, which Slack sends again; a command that nobody took is typed again, as a person would.
func (l *ledger) play() {
	a1 := l.say(member, l.general, "", mention+l.note("A1", ""))
	b1 := l.say(member, l.general, "", mention+l.note("B1", " && sleep 1"))
	a := thread{root: a1, turns: []string{a1}}
	b := thread{root: b1, turns: []string{b1}}
	for _, say := range []struct {
		t    *thread
		text string
	}{{&b, l.note("B2", "")}, {&a, l.note("A2", " && sleep 55")}, {&b, l.note("B3", "")}} {
		say.t.turns = append(say.t.turns, l.say(member, l.general, say.t.root, say.text))
	}
	l.api(member, "chat.update", url.Values{"channel": {l.general}, "ts": {b.turns[1]}, "text": {l.note("B2", " # edited")}})
	l.stop(a)
	a.turns = append(a.turns, l.say(member, l.general, a.root, l.note("A3", "")))
	for _, ts := range a.turns {
		l.answer(l.general, a.root, ts)
	}
	for _, ts := range b.turns {
		l.answer(l.general, b.root, ts)
	}
	l.endSecond(b)
	l.awaitSleep("the end of the first thread's last turn")
	codes := []string{"0", "130", "0"}
	for range 4 { // a run may make some requests fewer than the clean one: it goes on until it was struck
		if what, _ := l.striker.landed(); what != "" || l.striker.at == 0 {
			break
		}
		ts := l.say(member, l.general, a.root, l.note(fmt.Sprintf("A%d", len(a.turns)+1), ""))
		a.turns, codes = append(a.turns, ts), append(codes, "0")
		l.answer(l.general, a.root, ts)
		l.awaitSleep("the end of one more turn")
	}
	if what, _ := l.striker.landed(); what != "" && l.striker.pause != nil {
		l.alone(&a)
		codes = append(codes, "0")
	}
	l.checkThread(a, codes)
	l.checkThread(b, []string{"0", "0", "0"})
	l.judge(len(a.turns))
	l.checkRecord(a, b)
}

// checkRecord: the audit record has every turn, stop and end, each once.
func (l *ledger) checkRecord(a, b thread) {
	l.t.Helper()
	raw, err := self(l.t.Context(), l.direct, "audit").Output()
	if err != nil {
		l.t.Fatalf("flaudebot audit: %v", err)
	}
	all := entriesOf(l.t, string(raw))
	for _, ts := range append(slices.Clone(a.turns), b.turns...) {
		one(l.t, all, sessions.TurnAsked, ofTurn(ts))
		if e := one(l.t, all, sessions.TurnEnded, ofTurn(ts)); e.By != "U0MEMBER" || e.Ended == nil {
			l.t.Errorf("turn %s ended like this: %s", ts, toJSON(l.t, e))
		}
	}
	one(l.t, all, sessions.StopAsked, ofTurn(a.turns[1]))
	of := func(root string) func(sessions.Entry) bool {
		return func(e sessions.Entry) bool { return e.Thread == root }
	}
	one(l.t, all, sessions.EndAsked, of(b.root))
	one(l.t, all, sessions.SessionEnded, of(b.root))
	if want := 2*(len(a.turns)+len(b.turns)) + 3; len(all) != want {
		l.t.Errorf("the record has %d entries, want %d:\n%s", len(all), want, raw)
	}
}

type thread struct {
	root  string
	turns []string
}

// stop says once that the second turn is to stop, when it runs.
func (l *ledger) stop(a thread) {
	l.t.Helper()
	l.until("the second turn's command", func() bool {
		raw, err := os.ReadFile(l.file)
		return err == nil && bytes.Contains(raw, []byte("A2"))
	})
	l.say(member, l.general, a.root, "!stop")
	l.until("the second turn's end", func() bool { return l.answers(l.general, a.root, a.turns[1]) > 0 })
}

func has(t *testing.T, v any, text string) bool {
	t.Helper()
	return strings.Contains(toJSON(t, v), text)
}

// endSecond ends the second session, by a command that is typed until it is taken.
func (l *ledger) endSecond(b thread) {
	l.t.Helper()
	again := time.NewTicker(4 * time.Second)
	defer again.Stop()
	link := "https://local/archives/" + l.general + "/p" + strings.ReplaceAll(b.root, ".", "")
	said := regexp.MustCompile(`The session has ended`)
	l.until("the second session's end", func() bool {
		for _, m := range l.thread(l.general, b.root) {
			if said.MatchString(m.Text) {
				return true
			}
		}
		l.local(member, "command", map[string]any{"channel": l.general, "command": "/flaude", "text": "end " + link})
		select {
		case <-again.C:
		case <-l.t.Context().Done():
		}
		return false
	})
}

// awaitSleep waits until nothing goes on any more.
func (l *ledger) awaitSleep(what string) {
	l.t.Helper()
	defer func() {
		if l.t.Failed() {
			l.t.Logf("machines: %s\nvolumes: %s\nnothing in Redis: %v", toJSON(l.t, flyList(l.t, "http://"+l.fly, l.app, "machines")),
				toJSON(l.t, flyList(l.t, "http://"+l.fly, l.app, "volumes")), l.free())
		}
	}()
	l.until(what, l.asleep)
}

// asleep: one machine is left, and it is stopped and not leased; one volume is left.
func (l *ledger) asleep() bool {
	machines := flyList(l.t, "http://"+l.fly, l.app, "machines")
	volumes := flyList(l.t, "http://"+l.fly, l.app, "volumes")
	return len(machines) == 1 && machines[0]["state"] == "stopped" && len(volumes) == 1 && l.free()
}

// free: nothing is held or waits in Redis.
func (l *ledger) free() bool {
	for _, place := range []string{"lease", "ready", "orphan", "delay", "parks", "run"} {
		if n, err := l.rdb.Exists(l.t.Context(), l.prefix+"{queue}:"+place).Result(); err != nil || n != 0 {
			return false
		}
	}
	return true
}

// checkThread: each turn has one answer, in order, with its exit code, and one live message, which is settled.
func (l *ledger) checkThread(th thread, codes []string) {
	l.t.Helper()
	var order []string
	lives := map[string]int{}
	for _, m := range l.thread(l.general, th.root) {
		ts := m.Turn[strings.LastIndexByte(m.Turn, ':')+1:]
		if !slices.Contains(th.turns, ts) {
			continue
		}
		if m.Part == "live" {
			lives[ts]++
			if has(l.t, m.Raw, `"stop"`) {
				l.t.Errorf("the live message of %s still has its Stop button: %s", ts, m.Text)
			}
			continue
		}
		if f := footer.FindStringSubmatch(m.Text); f != nil {
			order = append(order, ts)
			if i := slices.Index(th.turns, ts); f[1] != codes[i] {
				l.t.Errorf("turn %d of the thread ended with exit %s, want %s: %s", i+1, f[1], codes[i], m.Text)
			}
		}
	}
	if !slices.Equal(order, th.turns) {
		l.t.Errorf("answers of the thread = %q, want one each, in order: %q", order, th.turns)
	}
	for _, ts := range th.turns {
		if lives[ts] != 1 {
			l.t.Errorf("%s has %d live messages, want one", ts, lives[ts])
		}
	}
}

// judge: every command ran once, in order within its thread.
func (l *ledger) judge(turnsOfA int) {
	l.t.Helper()
	raw, err := os.ReadFile(l.file)
	if err != nil {
		l.t.Fatal(err)
	}
	got := map[string][]string{}
	for line := range strings.FieldsSeq(string(raw)) {
		got[line[:1]] = append(got[line[:1]], line)
	}
	for name, n := range map[string]int{"A": turnsOfA, "B": 3} {
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint(name, i+1))
		}
		if !slices.Equal(got[name], want) {
			l.t.Errorf("commands of thread %s that ran = %q, want %q", name, got[name], want)
		}
	}
}
