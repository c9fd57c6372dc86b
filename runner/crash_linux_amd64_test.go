package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestCrashes kills the machine, or the runner alone, before one of the steps that it makes on the system: a sample of all steps, all
// of them with FLAUDEBOT_TEST_CRASHES=all (`make crash`). Then it boots again on the same volume, and is asked what the bot asks.
// A step is a system call of the runner, of Git or of Claude Code that changes something or tells somebody something.
func TestCrashes(t *testing.T) {
	t.Parallel()
	program := crashProgram(t)
	clean := &crash{t: t}
	clean.play(program)
	n := len(clean.steps)
	kinds := map[string]int{}
	for _, s := range clean.steps {
		kinds[s]++
	}
	t.Logf("a clean run makes %d steps: %v", n, kinds)
	if n < 100 {
		t.Fatalf("a clean run makes %d steps: they are not all counted", n)
	}
	var all []blow
	for at := 1; at <= n; at++ {
		all = append(all, blow{at, false}, blow{at, true})
	}
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number
	if s, err := strconv.ParseUint(os.Getenv("FLAUDEBOT_TEST_CRASHES_SEED"), 10, 64); err == nil {
		seed = s
	}
	sample, low, high := 4, 0, 0
	env := os.Getenv("FLAUDEBOT_TEST_CRASHES")
	if k, err := fmt.Sscanf(env, "%d-%d", &low, &high); k == 2 && err == nil {
		all = slices.DeleteFunc(all, func(b blow) bool { return b.At < low || b.At > high })
		sample = len(all)
	} else if env == "all" {
		sample = len(all)
	} else if k, err := strconv.Atoi(env); err == nil {
		sample = min(k, len(all))
	}
	t.Logf("%d of %d crashes, FLAUDEBOT_TEST_CRASHES_SEED=%d", sample, len(all), seed)
	var sum tally
	t.Cleanup(func() { t.Logf("crashes of the runner: %s", sum.String()) })
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(all))[:sample] { //nolint:gosec // a sample
		b := all[i]
		who := map[bool]string{false: "the machine", true: "the runner alone"}[b.Alone]
		t.Run(fmt.Sprintf("%s before step %d", who, b.At), func(t *testing.T) {
			t.Parallel()
			c := &crash{t: t, blow: b}
			defer func() { sum.add(t, c.struck) }()
			c.play(program)
			if c.struck == "" {
				t.Error("the blow never landed")
			}
		})
	}
}

// tally counts crashes.
type tally struct {
	mu                   sync.Mutex
	all, landed, unclean int // guarded by mu
}

func (s *tally) add(t *testing.T, struck string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all++
	if struck != "" {
		s.landed++
	}
	if t.Failed() {
		s.unclean++
	}
	t.Logf("killed before: %s (%s)", struck, map[bool]string{false: "clean", true: "DIRTY"}[t.Failed()])
}

func (s *tally) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d, landed %d, clean %d, dirty %d", s.all, s.landed, s.all-s.unclean, s.unclean)
}

// crashProgram is this program where every user can start it.
func crashProgram(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fb") //nolint:usetesting // its folder is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "claude.test")
	if err := os.WriteFile(name, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// crash is one run of three turns in two boots, with one blow, and of a fourth turn that shows that all is well.
type crash struct {
	t      *testing.T
	m      *machine
	blow   blow
	repo   string
	ledger string
	trace  *tracing      // of this boot; nil: nobody traces
	ended  chan struct{} // closed when process 1 of this boot, or its tracer, has ended
	final  bool          // nothing is traced any more
	turns  []crashTurn

	mu     sync.Mutex
	steps  []string // guarded by mu
	struck string   // before what; empty: not yet
}

// crashTurn is a turn with what became of it.
type crashTurn struct {
	Turn
	line        string // that its command writes
	out         Outcome
	answer      string
	interrupted bool
	want        string // what the volume tells after the blow: that it runs, was interrupted, is done; empty: it was not hit
	ran         int    // lines of its command when the machine was dead
}

func (c *crash) play(program string) {
	c.m = newMachine(c.t)
	dir := filepath.Dir(c.m.cfg.Data)
	writeFake(c.t, c.m.cfg.Claude, program)
	c.ledger, c.repo = filepath.Join(dir, "ledger"), gitRepo(c.t, "main")
	if err := os.WriteFile(c.ledger, nil, 0o666); err != nil {
		c.t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o755, c.ledger: 0o666} { // whatever the umask
		if err := os.Chmod(name, mode); err != nil {
			c.t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		c.m.cfg.UID = 12345
	}
	c.boot()
	for i := 0; !c.final; i++ {
		// A run may make some steps fewer than the clean one: it goes on until it was struck.
		if i >= 3 && (c.blow.At == 0 || c.hit()) || i == 6 {
			c.lookBack()
		}
		linger := 0
		if i == 1 {
			linger = 60
		}
		line := fmt.Sprint("L", i+1)
		turn := crashTurn{Turn: c.m.turn("ledger: " + c.ledger + " " + line), line: line}
		turn.Repos, turn.Settings.LingerSeconds = []Repo{{URL: c.repo}}, linger
		turn.Settings.SetUp = "echo setup >> '" + c.ledger + "'"
		if i == 0 {
			turn.Files = []File{{Name: "a", Size: 5}}
		}
		c.run(&turn)
		c.turns = append(c.turns, turn)
		c.ack(turn)
		if linger == 0 {
			c.dead(true)
			c.boot()
		}
	}
	demand[SleepReply](c, "sleep", SleepRequest{Fence: c.m.fence})
	c.dead(true)
	c.judge()
}

// boot starts process 1, under a tracer as long as the blow has not fallen.
func (c *crash) boot() {
	c.t.Helper()
	c.mu.Lock()
	struck, next := c.struck != "", c.blow
	if next.At > 0 {
		next.At -= len(c.steps)
	}
	c.mu.Unlock()
	c.trace = nil
	c.m.start(func(cmd *exec.Cmd) {
		if struck || c.final {
			return
		}
		var err error
		if c.trace, err = traced(cmd, next, c.step); err != nil {
			c.t.Fatal(err)
		}
	})
	if c.trace != nil {
		_ = c.trace.say.Close()
	}
	ended, cmd := make(chan struct{}), c.m.cmd
	c.ended = ended
	go func() { defer close(ended); _ = cmd.Wait() }()
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
}

func (c *crash) step(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, what)
	if len(c.steps) == c.blow.At {
		c.struck = what
	}
}

// hit reports whether the blow has fallen.
func (c *crash) hit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.struck != ""
}

// dead reports whether process 1 has ended; with wait it waits for that.
func (c *crash) dead(wait bool) bool {
	c.t.Helper()
	var struck chan struct{}
	if c.trace != nil {
		struck = c.trace.struck
	}
	var end, now <-chan time.Time
	if wait {
		end = time.After(patience)
	} else {
		now = time.After(0)
	}
	select {
	case <-struck:
		return true
	case <-c.ended:
		if c.trace != nil {
			<-c.trace.done // its last words
		}
		return true
	case <-now:
		return false
	case <-end:
		c.t.Fatal("process 1 does not end")
		return false
	}
}

// demand asks the runner; false: process 1 has ended.
func demand[Rep any](c *crash, verb string, req any) (Rep, bool) {
	c.t.Helper()
	var rep Rep
	raw, err := json.Marshal(req)
	if err != nil {
		c.t.Fatal(err)
	}
	client := &http.Client{Transport: unixTransport(c.m.cfg.socket())}
	defer client.CloseIdleConnections()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		var out bytes.Buffer
		res, err := post(ctx, client, verb, raw)
		if err == nil {
			_, err = out.ReadFrom(res.Body)
			_ = res.Body.Close()
		}
		cancel()
		switch {
		case err == nil && res.StatusCode != http.StatusOK:
			c.t.Fatalf("%s: %s %s", verb, res.Status, out.String())
		case err == nil:
			if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
				c.t.Fatalf("%s: %v", verb, err)
			}
			return rep, true
		case c.dead(false):
			return rep, false
		case time.Now().After(end):
			c.t.Fatalf("%s: %v", verb, err)
		}
	}
}

// run brings a turn to its end as the bot does, over as many boots as that takes.
func (c *crash) run(turn *crashTurn) {
	c.t.Helper()
	for begun := false; !c.once(turn, &begun); c.boot() {
		c.dead(true)
		if !c.hit() || turn.want != "" {
			continue
		}
		turn.want, turn.ran = "runs", c.lines(turn.line)
		if _, err := os.Lstat(c.m.cfg.turnFile(turn.ID, ".ndjson")); err == nil {
			turn.want = "is interrupted"
		}
		if _, err := os.Lstat(c.m.cfg.turnFile(turn.ID, ".json")); err == nil {
			turn.want = "is done"
		}
		if c.blow.At%2 == 0 { // the replica died as well
			c.m.fence++
		}
	}
	got := "is done"
	if turn.interrupted {
		got = "is interrupted"
	} else if turn.out.Failure != FailNone || turn.out.ExitCode != 0 {
		c.t.Errorf("%s: outcome = %+v, want it good", turn.line, turn.out)
	}
	if want := strings.Replace(turn.want, "runs", "is done", 1); got != want && (want != "" || turn.interrupted) {
		c.t.Errorf("%s %s, want that it %q", turn.line, got, turn.want)
	}
}

// once does for a turn what can be done in this boot; false: process 1 has ended.
func (c *crash) once(turn *crashTurn, begun *bool) bool {
	c.t.Helper()
	var status Status
	if *begun {
		r, ok := demand[ResultReply](c, "result", ResultRequest{Turn: turn.ID})
		if !ok {
			return false
		}
		status = r.Status
	} else {
		for _, f := range turn.Files {
			r, ok := demand[PutReply](c, "put", PutRequest{Turn: turn.ID, Fence: c.m.fence, Name: "file/" + f.Name, Data: []byte("12345")})
			if !ok {
				return false
			}
			if r.Status != StatusOK {
				c.t.Fatalf("%s: put = %+v", turn.line, r)
			}
		}
		r, ok := demand[TakeReply](c, "take", TakeRequest{Turn: turn.Turn, Fence: c.m.fence})
		if !ok {
			return false
		}
		status = r.Status
	}
	switch status {
	case StatusAccepted, StatusRunning:
		*begun = true
		return c.follow(turn)
	case StatusDone:
		return c.result(turn)
	case StatusInterrupted:
		turn.interrupted = true
		return true
	case StatusExiting:
		c.dead(true)
		return false
	default:
		c.t.Fatalf("%s: the runner says %s", turn.line, status)
		return false
	}
}

func (c *crash) follow(turn *crashTurn) bool {
	c.t.Helper()
	for n := 0; ; {
		r, ok := demand[EventsReply](c, "events", EventsRequest{Turn: turn.ID, After: n, WaitMS: 10000})
		if !ok {
			return false
		}
		for _, e := range r.Events {
			if n++; e.N != n {
				c.t.Fatalf("%s: event %d has the number %d", turn.line, n, e.N)
			}
		}
		switch {
		case r.Status == StatusDone:
			return c.result(turn)
		case r.Status != StatusRunning:
			c.t.Fatalf("%s: events of a turn that was accepted in this boot: %s", turn.line, r.Status)
		}
	}
}

func (c *crash) result(turn *crashTurn) bool {
	c.t.Helper()
	r, ok := demand[ResultReply](c, "result", ResultRequest{Turn: turn.ID})
	if !ok {
		return false
	}
	if r.Status != StatusDone || r.Outcome == nil || int64(len(r.Text)) != r.Outcome.AnswerBytes {
		c.t.Fatalf("%s: result = %+v, want it done and whole", turn.line, r)
	}
	turn.out, turn.answer = *r.Outcome, r.Text
	return true
}

// ack says that the outcome is in the thread, until it was heard.
func (c *crash) ack(turn crashTurn) {
	c.t.Helper()
	for {
		r, ok := demand[AckReply](c, "ack", AckRequest{Turn: turn.ID, Fence: c.m.fence})
		switch {
		case ok && r.Status == StatusOK:
			return
		case ok:
			c.t.Fatalf("%s: ack = %+v", turn.line, r)
		}
		c.dead(true)
		c.boot()
	}
}

// lookBack asks, on a machine that nobody kills any more, for all that was: the answers are the same.
func (c *crash) lookBack() {
	c.t.Helper()
	demand[SleepReply](c, "sleep", SleepRequest{Fence: c.m.fence})
	c.dead(true)
	c.final = true
	c.boot()
	if h, ok := demand[HelloReply](c, "hello", HelloRequest{}); !ok || h.Running != "" || len(h.Unacked) > 0 || h.Fence != c.m.fence {
		c.t.Errorf("hello = %+v, want nothing running, nothing owed, and the fence %d", h, c.m.fence)
	}
	if c.blow.At == 0 { // nothing was: what a take answers then others show
		return
	}
	for _, turn := range c.turns {
		r, _ := demand[TakeReply](c, "take", TakeRequest{Turn: turn.Turn, Fence: c.m.fence})
		switch {
		case turn.interrupted && r.Status != StatusInterrupted, !turn.interrupted && r.Status != StatusDone:
			c.t.Errorf("%s: take = %+v, want what was told: interrupted: %v", turn.line, r, turn.interrupted)
		case r.Outcome != nil && !r.Outcome.EndedAt.Equal(turn.out.EndedAt):
			c.t.Errorf("%s: another outcome: %+v, was %+v", turn.line, r.Outcome, turn.out)
		}
		e, _ := demand[EventsReply](c, "events", EventsRequest{Turn: turn.ID})
		for i, one := range e.Events {
			if one.N != i+1 {
				c.t.Errorf("%s: event %d of its journal has the number %d", turn.line, i+1, one.N)
			}
		}
		if len(e.Events) == 0 && !turn.interrupted {
			c.t.Errorf("%s: its journal is empty", turn.line)
		}
	}
}

// lines counts what a command wrote.
func (c *crash) lines(line string) int {
	raw, err := os.ReadFile(c.ledger)
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for word := range strings.FieldsSeq(string(raw)) {
		if word == line {
			n++
		}
	}
	return n
}

// judge looks at what is left.
func (c *crash) judge() {
	c.t.Helper()
	c.judgeCommands()
	c.judgeSetUp()
	c.judgeVolume()
	c.judgeWorkspace()
	mark := []byte(c.m.cfg.Data)
	for _, p := range processes() {
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid)); err == nil && bytes.Contains(env, mark) && !p.zombie {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			c.t.Errorf("process %d is left: %q", p.pid, line)
		}
	}
}

// judgeCommands: each ran once, or at most once if that was told; the conversation is one, in order.
func (c *crash) judgeCommands() {
	c.t.Helper()
	files, _ := filepath.Glob(filepath.Join(c.m.cfg.claudeDir(), "projects", "*", "*"))
	if len(files) != 1 {
		c.t.Errorf("transcripts = %q, want one", files)
		return
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		c.t.Fatal(err)
	}
	var said []string
	for line := range strings.Lines(string(raw)) {
		if prompt, err := strconv.QuotedPrefix(line); err == nil {
			said = append(said, prompt[strings.LastIndexByte(prompt, ' ')+1:len(prompt)-1])
		} else {
			c.t.Errorf("the transcript has the line %q", line)
		}
	}
	if !slices.IsSorted(said) || len(slices.Compact(slices.Clone(said))) != len(said) {
		c.t.Errorf("turns of the conversation = %q, want each once, in order", said)
	}
	for i, turn := range c.turns {
		n := c.lines(turn.line)
		switch {
		case turn.interrupted && !c.blow.Alone && n != turn.ran, n > 1, n != 1 && !turn.interrupted:
			c.t.Errorf("%s ran %d times, %d of them before the blow; interrupted: %v", turn.line, n, turn.ran, turn.interrupted)
		}
		at := slices.Index(said, turn.line)
		if want := fmt.Sprintf("turn %d of %s", at+1, aSession); !turn.interrupted && turn.answer != want {
			c.t.Errorf("%s: answer = %q, want %q", turn.line, turn.answer, want)
		}
		if !turn.interrupted && turn.out.Resumed != (at > 0) {
			c.t.Errorf("turn %d: resumed = %v, with %d before it", i+1, turn.out.Resumed, at)
		}
	}
}

// judgeSetUp: the set-up command ran to its end, and again only where the blow fell before that was noted.
func (c *crash) judgeSetUp() {
	c.t.Helper()
	if n := c.lines("setup"); n < 1 || n > 2 || n == 2 && c.struck == "" {
		c.t.Errorf("the set-up command ran %d times, struck: %q", n, c.struck)
	}
}

// judgeVolume: the runner's own folder holds what belongs to the turns, and nothing else.
func (c *crash) judgeVolume() {
	c.t.Helper()
	own := c.m.cfg.own()
	want := []string{"fence", "lock", "reserve", "setup"}
	for _, turn := range c.turns {
		for _, suffix := range []string{".ndjson", ".json", ".acked", ".diff"} {
			if suffix == ".diff" && (turn.out.Changes == nil || turn.out.Changes.DiffBytes == 0) {
				continue
			}
			if suffix == ".ndjson" || !turn.interrupted {
				name, _ := filepath.Rel(own, c.m.cfg.turnFile(turn.ID, suffix))
				want = append(want, name)
			}
		}
	}
	c.compare("the runner's folder", own, want)
}

// judgeWorkspace: the clone is whole, the rest is there, and all of it is Claude's user's.
func (c *crash) judgeWorkspace() {
	c.t.Helper()
	ws := c.m.cfg.workspace()
	var want []string
	for i, turn := range c.turns {
		note := "notes-" + turn.line
		if _, err := os.Lstat(filepath.Join(ws, note)); err == nil || !turn.interrupted {
			want = append(want, note)
		}
		if _, err := os.Lstat(filepath.Join(ws, "attachments", "a")); i == 0 && (err == nil || !turn.interrupted) {
			want = append(want, "attachments/a")
			if raw, _ := os.ReadFile(filepath.Join(ws, "attachments", "a")); string(raw) != "12345" && !turn.interrupted {
				c.t.Errorf("the attachment is %q", raw)
			}
		}
	}
	c.compare("the workspace", ws, append(want, "repo/branch"))
	for _, args := range [][]string{{"status", "--porcelain"}, {"fsck", "--strict"}} {
		cmd := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", filepath.Join(ws, "repo")}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_OPTIONAL_LOCKS=0"}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			c.t.Errorf("git %v: %v: %s", args, err, out)
		}
	}
	if raw, err := os.ReadFile(filepath.Join(c.m.cfg.home(), ".gitconfig")); err != nil || !strings.Contains(string(raw), "directory = *") {
		c.t.Errorf("Git's settings = %q, %v", raw, err)
	}
	if c.m.cfg.UID < 0 {
		return
	}
	for _, dir := range []string{ws, c.m.cfg.home(), c.m.cfg.claudeDir()} {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			info, statErr := os.Lstat(path)
			if err != nil || statErr != nil {
				c.t.Errorf("%s: %v, %v", path, err, statErr)
			} else if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != c.m.cfg.UID {
				if d.Name() == "a" && c.turns[0].interrupted {
					return nil // half placed: the next one of that name replaces it
				}
				c.t.Errorf("%s is not Claude's user's", path)
			}
			return nil
		})
	}
}

// compare says which files a folder has and which it should have; what Git keeps is left out.
func (c *crash) compare(what, dir string, want []string) {
	c.t.Helper()
	var got []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		name, _ := filepath.Rel(dir, path)
		empty, _ := filepath.Glob(filepath.Join(path, "*"))
		if err == nil && (!d.IsDir() || len(empty) == 0 && name != "attachments") {
			got = append(got, name)
		}
		return nil
	})
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		c.t.Errorf("%s holds %q, want %q", what, got, want)
	}
}
