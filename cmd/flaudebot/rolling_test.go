package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// fleet is replicas of one bot, each in a process of its own, that come and go. Its logs are kept in files.
type fleet struct {
	t   *testing.T
	env []string
	dir string

	mu  sync.Mutex
	all []*replica // guarded by mu; in the order of their start
}

// replica is one process of a fleet.
type replica struct {
	n     int // from 1
	cmd   *exec.Cmd
	log   string        // file of its standard error
	ready chan struct{} // closed when it says that it is ready
	done  chan struct{} // closed when it has ended
	told  bool          // it was told to end, or killed; of who starts and ends replicas alone
}

func newFleet(t *testing.T, env []string) *fleet {
	f := &fleet{t: t, env: env, dir: t.TempDir()}
	t.Cleanup(f.stop)
	return f
}

// start starts one more replica.
func (f *fleet) start() *replica {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &replica{n: len(f.all) + 1, ready: make(chan struct{}), done: make(chan struct{})}
	r.log = filepath.Join(f.dir, fmt.Sprintf("replica-%d.log", r.n))
	r.cmd = self(context.Background(), f.env, "serve")
	file, err := os.Create(r.log)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // the child has it
	r.cmd.Stderr = file
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.all = append(f.all, r)
	go func() {
		defer close(r.done)
		said := sync.OnceFunc(func() { close(r.ready) })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "ready") {
				said()
			}
		}
		_ = r.cmd.Wait()
	}()
	return r
}

// startReady starts one more replica and returns when it is ready.
func (f *fleet) startReady() *replica {
	f.t.Helper()
	r := f.start()
	select {
	case <-r.ready:
	case <-r.done:
		f.t.Fatalf("replica %d ended before it was ready:\n%s", r.n, f.tail(r))
	case <-time.After(testPatience):
		f.t.Fatalf("replica %d is not ready:\n%s", r.n, f.tail(r))
	}
	return r
}

// tell sends a replica a signal that ends it.
func (r *replica) tell(sig os.Signal) {
	r.told = true
	_ = r.cmd.Process.Signal(sig)
}

// alive reports whether it has not ended.
func (r *replica) alive() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// awaitEnd waits for the end of a replica that was told to end, as long as Fly does, and returns how long it took.
func (f *fleet) awaitEnd(r *replica, since time.Time) time.Duration {
	f.t.Helper()
	select {
	case <-r.done:
	case <-time.After(time.Until(since.Add(killTimeout(f.t)))):
		if !r.alive() {
			break
		}
		f.t.Errorf("replica %d has not ended within Fly's kill timeout:\n%s", r.n, f.tail(r))
		r.tell(os.Kill)
		<-r.done
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		f.t.Errorf("replica %d ended with exit code %d, want 0:\n%s", r.n, code, f.tail(r))
	}
	return time.Since(since)
}

// stop ends all replicas, also those that were paused, as a crash does.
func (f *fleet) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.all {
		r.tell(os.Kill)
		<-r.done
	}
}

// tail is the end of a replica's log.
func (f *fleet) tail(r *replica) string {
	raw, _ := os.ReadFile(r.log)
	return tail(string(raw), 4000)
}

// lines are what the replicas logged that holds one of the words.
func (f *fleet) lines(words ...string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range f.all {
		raw, _ := os.ReadFile(r.log)
		for line := range strings.Lines(string(raw)) {
			if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
				out = append(out, fmt.Sprintf("replica %d: %s", r.n, strings.TrimSpace(line)))
			}
		}
	}
	return out
}

// killTimeout is how long Fly waits for the end of a replica that was told to end.
func killTimeout(t *testing.T) time.Duration {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/fly.toml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^kill_timeout = "(\w+)"`).FindSubmatch(raw)
	if m == nil {
		t.Fatal("deploy/fly.toml has no kill_timeout")
	}
	d, err := time.ParseDuration(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// witness is a file to which the commands of turns append a line each: it tells what ran, and in which order.
type witness struct {
	t    *testing.T
	dir  string
	file string
}

// newWitness makes it where Claude's own user can write, and outside /tmp, of which machines have their own.
func newWitness(t *testing.T) *witness {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "flaudebot-witness-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &witness{t: t, dir: dir, file: filepath.Join(dir, "lines")}
	if err := os.WriteFile(w.file, nil, 0o666); err != nil { //nolint:gosec // Claude's user writes to it
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o755, w.file: 0o666} { // whatever the umask
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// note is a prompt that has a line written, and does something more.
func (w *witness) note(line, more string) string {
	return mention + "run: echo " + line + " >> " + w.file + more
}

// await is a command that ends once the gate is open.
func (w *witness) await(gate string) string {
	return fmt.Sprintf("until [ -e %s/%s ]; do sleep 0.05; done", w.dir, gate)
}

// open lets the commands go on that await the gate.
func (w *witness) open(gate string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, gate), nil, 0o644); err != nil { //nolint:gosec // Claude's user looks for it
		w.t.Fatal(err)
	}
}

// lines are what was written.
func (w *witness) lines() []string {
	raw, err := os.ReadFile(w.file)
	if err != nil {
		return nil // the run is over
	}
	return strings.Fields(string(raw))
}

// TestHandOver: a replica that is told to end finishes the post that is on its way, and hands its turns over at once: the lease would
// run out only after a minute. Another replica brings them to their end, and it is gone within Fly's kill timeout.
func TestHandOver(t *testing.T) {
	t.Parallel()
	s, wit := splitWorld(t), newWitness(t)
	rdb := client(t, s.redis)
	f := newFleet(t, append(slices.Clone(s.env), "FLAUDEBOT_LEASE=60s", "FLAUDEBOT_REPOS="))
	first := f.startReady()
	general := s.channel("general")
	say := func(name string) string {
		return s.say(member, general, "", wit.note(name, "; "+wit.await(name)))
	}
	state := func(thread, field string) string {
		return rdb.HGet(t.Context(), "fb:{queue}:s:T0LOCAL:"+general+":"+thread, field).Val()
	}
	posting, running := say("posting"), say("running")
	s.until("both commands run", func() bool { return len(wit.lines()) == 2 })
	owner := state(running, "own")
	f.startReady()

	s.local(admin, "faults", map[string]any{"method": "chat.postMessage", "spare": "xoxp-", "nth": 1, "delay_ms": 1500})
	wit.open("posting")
	s.until("the first answer is on its way", func() bool { return state(posting, "stage") == "posting" })
	told := time.Now()
	first.tell(syscall.SIGTERM)
	for name, thread := range map[string]string{"running": running, "posting": posting} {
		s.until("another owner of the turn that is "+name, func() bool {
			now := state(thread, "own")
			return now != owner && (now != "" || state(thread, "run") == "") // or it is finished already
		})
		took := time.Since(told)
		t.Logf("the turn that is %s was taken over %s after the signal", name, took.Round(time.Millisecond))
		if took > 30*time.Second {
			t.Errorf("the turn that is %s was taken over after %s: it waited for its lease", name, took)
		}
	}
	t.Logf("the replica was gone %s after the signal", f.awaitEnd(first, told).Round(time.Millisecond))
	for _, line := range f.lines("turn let go") {
		if strings.Contains(line, "chat.postMessage") {
			t.Errorf("the post that was on its way was given up: %q", line)
		}
	}
	wit.open("running")
	for _, ts := range []string{posting, running} {
		if text, code := s.answer(general, ts, ts); code != "0" {
			t.Errorf("the answer = %q (exit %s), want exit 0", text, code)
		}
		s.until("the turn's end", func() bool { return state(ts, "run") == "" })
		if n := s.answers(general, ts, ts); n != 1 {
			t.Errorf("%d answers, want one", n)
		}
	}
	if lines := wit.lines(); len(lines) != 2 {
		t.Errorf("the commands ran %q, want each once", lines)
	}
}

// client is a client of Redis.
func client(t *testing.T, address string) *goredis.Client {
	t.Helper()
	opts, err := goredis.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	rdb := goredis.NewClient(opts)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// TestRollingRestart: three replicas are replaced one after the other, twice, while turns keep arriving in several threads. Each of
// them runs once, is answered once and in order, and none waits for a lease to run out.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const lease = 60 * time.Second
	s, wit := splitWorld(t), newWitness(t)
	rdb := client(t, s.redis)
	f := newFleet(t, append(slices.Clone(s.env), "FLAUDEBOT_LEASE="+lease.String(), "FLAUDEBOT_REPOS="))
	var now []*replica
	for range 3 {
		now = append(now, f.start())
	}
	for _, r := range now {
		<-r.ready
	}
	var threads []*talk
	for i, name := range []string{"general", "general", "payments", "payments"} {
		threads = append(threads, &talk{slackWorld: s.slackWorld, channel: s.channel(name), name: fmt.Sprintf("T%d", i+1)})
	}
	over := make(chan struct{})
	var talking sync.WaitGroup
	for _, th := range threads {
		talking.Go(func() { th.on(wit, rdb, over) })
	}
	for range 2 {
		for i, old := range now {
			told := time.Now()
			old.tell(syscall.SIGTERM)
			now[i] = f.start()
			t.Logf("replica %d was gone %s after the signal", old.n, f.awaitEnd(old, told).Round(time.Millisecond))
			select {
			case <-now[i].ready:
			case <-now[i].done:
				t.Fatalf("replica %d ended before it was ready:\n%s", now[i].n, f.tail(now[i]))
			}
		}
	}
	close(over)
	talking.Wait()
	for _, th := range threads {
		for _, ts := range th.said {
			if text, code := s.answer(th.channel, th.said[0], ts); code != "0" {
				t.Errorf("%s: %s was answered with %q (exit %s), want exit 0", th.name, ts, text, code)
			}
		}
		th.check(t, wit, lease)
		if t.Failed() {
			t.Logf("what was logged of thread %s:\n%s", th.name, strings.Join(f.lines(th.said[0]), "\n"))
		}
	}
}

// talk is a person in a thread who says one thing after the other.
type talk struct {
	*slackWorld
	channel, name string
	said          []string // ts of each turn
}

// on says the next thing as soon as the one before it is accepted and the one before that answered, until it is over.
func (th *talk) on(wit *witness, rdb *goredis.Client, over <-chan struct{}) {
	for {
		root := ""
		if len(th.said) > 0 {
			root = th.said[0]
		}
		line := fmt.Sprintf("%s-%d", th.name, len(th.said)+1)
		text := wit.note(line, "; sleep 0.3")
		if root != "" { // only the first one calls the bot
			text = strings.TrimPrefix(text, mention)
		}
		th.said = append(th.said, th.say(member, th.channel, root, text))
		turn := "T0LOCAL:" + th.channel + ":" + th.said[len(th.said)-1]
		th.until("the acceptance of "+line, func() bool { return rdb.Exists(th.t.Context(), "fb:{queue}:d:"+turn).Val() == 1 })
		if n := len(th.said); n > 1 {
			th.answer(th.channel, th.said[0], th.said[n-2])
		}
		select {
		case <-over:
			return
		default:
		}
	}
}

// check: each turn ran once, has one answer, in order, and none waited for long.
func (th *talk) check(t *testing.T, wit *witness, long time.Duration) {
	t.Helper()
	var ran, want, order []string
	for _, line := range wit.lines() {
		if strings.HasPrefix(line, th.name+"-") {
			ran = append(ran, line)
		}
	}
	for i := range th.said {
		want = append(want, fmt.Sprintf("%s-%d", th.name, i+1))
	}
	if !slices.Equal(ran, want) {
		t.Errorf("%s: what ran = %q, want %q", th.name, ran, want)
	}
	longest := time.Duration(0)
	for _, m := range th.thread(th.channel, th.said[0]) {
		if m.Part != "live" && footer.MatchString(m.Text) {
			ts := m.Turn[strings.LastIndexByte(m.Turn, ':')+1:]
			order = append(order, ts)
			longest = max(longest, timeOf(m.TS).Sub(timeOf(ts)))
		}
	}
	if !slices.Equal(order, th.said) {
		t.Errorf("%s: answers = %q, want one each, in order: %q", th.name, order, th.said)
	}
	t.Logf("%s: %d turns, the longest took %s", th.name, len(th.said), longest.Round(time.Millisecond))
	if longest >= long {
		t.Errorf("%s: a turn took %s: it waited for a lease to run out", th.name, longest)
	}
}

// timeOf is the time of a ts.
func timeOf(ts string) time.Time {
	d, _ := time.ParseDuration(ts + "s") // Slack's own
	return time.Unix(0, int64(d))
}
