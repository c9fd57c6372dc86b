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
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// TestStrike kills a replica around one of its requests, and lets another one go on: a sample of all requests, all of them with
// FLAUDEBOT_TEST_STRIKES=all (`make crash`), those around some requests with 20-40. Judged by what is seen from outside: the lines that the commands wrote, Slack's history,
// Fly's lists, and that nothing is held in Redis.
func TestStrike(t *testing.T) {
	t.Parallel()
	redis := redisServer(t)
	_, n := ledgerRun(t, redis, 0, false)
	t.Logf("a clean run makes %d requests", n)
	if n < 100 {
		t.Fatalf("a clean run makes %d requests: they are not all counted", n)
	}
	type strike struct {
		at    int
		after bool
	}
	var all []strike
	for at := 1; at <= n; at++ {
		all = append(all, strike{at, false}, strike{at, true})
	}
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number
	if s, err := strconv.ParseUint(os.Getenv("FLAUDEBOT_TEST_STRIKES_SEED"), 10, 64); err == nil {
		seed = s
	}
	sample, low, high := 2, 0, 0
	env := os.Getenv("FLAUDEBOT_TEST_STRIKES")
	if k, err := fmt.Sscanf(env, "%d-%d", &low, &high); k == 2 && err == nil {
		all = slices.DeleteFunc(all, func(s strike) bool { return s.at < low || s.at > high })
		sample = len(all)
	} else if env == "all" {
		sample = len(all)
	} else if k, err := strconv.Atoi(env); err == nil {
		sample = k
	}
	t.Logf("%d of %d strikes, FLAUDEBOT_TEST_STRIKES_SEED=%d", sample, len(all), seed)
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(all))[:sample] { //nolint:gosec // a sample
		s := all[i]
		when := map[bool]string{false: "before", true: "after"}[s.after]
		t.Run(fmt.Sprintf("%s request %d", when, s.at), func(t *testing.T) {
			t.Parallel()
			what, _ := ledgerRun(t, redis, s.at, s.after)
			if what == "" {
				t.Error("the strike never landed")
			}
			t.Logf("killed %s %s", when, what)
		})
	}
}

// ledgerRun plays two threads of three turns each, with a stop, an edit and an end, kills the replica around its request number at, and
// starts another one. It returns around which request that was, and how many requests there were.
func ledgerRun(t *testing.T, redis string, at int, after bool) (string, int) {
	t.Helper()
	l := newLedger(t, redis, at, after)
	l.play()
	return l.striker.landed()
}

// ledger is one run with what is known of it.
type ledger struct {
	*split
	t       *testing.T
	striker *striker
	file    string // to which the commands write a line each
	app     string
	prefix  string
	rdb     *goredis.Client
	general string

	mu  sync.Mutex
	bot *proc // guarded by mu
	end bool  // guarded by mu; the run is over: start no other
}

func newLedger(t *testing.T, redis string, at int, after bool) *ledger {
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
	s := &striker{at: at, after: after}
	w := splitWorldOn(t, redis)
	l := &ledger{split: w, t: t, striker: s, file: file, app: "ledger-app", prefix: filepath.Base(dir) + ":", general: w.channel("general")}
	opts, err := goredis.ParseURL(redis)
	if err != nil {
		t.Fatal(err)
	}
	l.rdb = goredis.NewClient(opts)
	t.Cleanup(func() { _ = l.rdb.Close() })
	l.env = append(l.env,
		"SLACK_API_URL="+s.proxyHTTP(t, "slack", w.base)+"/api/", "FLY_FLAPS_BASE_URL="+s.proxyHTTP(t, "fly", "http://"+w.fly),
		"REDIS_URL=redis://"+s.proxyRedis(t, opts.Addr), "FLAUDEBOT_PREFIX="+l.prefix, "FLAUDEBOT_FLY_APP="+l.app, "FLAUDEBOT_LEASE=1s",
	)
	s.kill = func() {
		l.mu.Lock()
		p := l.bot
		l.mu.Unlock()
		p.kill()
	}
	l.mu.Lock()
	l.bot = launch(t, l.env, "serve")
	l.mu.Unlock()
	go l.replace()
	t.Cleanup(l.over)
	l.awaitUp()
	return l
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
	p := l.bot
	l.mu.Unlock()
	p.stop()
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
	l.until("the end of the first thread's last turn", l.asleep)
	codes := []string{"0", "130", "0"}
	for range 4 { // a run may make some requests fewer than the clean one: it goes on until it was struck
		if what, _ := l.striker.landed(); what != "" || l.striker.at == 0 {
			break
		}
		ts := l.say(member, l.general, a.root, l.note(fmt.Sprintf("A%d", len(a.turns)+1), ""))
		a.turns, codes = append(a.turns, ts), append(codes, "0")
		l.answer(l.general, a.root, ts)
		l.until("the end of one more turn", l.asleep)
	}
	l.checkThread(a, codes)
	l.checkThread(b, []string{"0", "0", "0"})
	l.judge(len(a.turns))
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
