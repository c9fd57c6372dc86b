package sessions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
	"flaudebot/queue"
	"flaudebot/runner"
)

const (
	testApp    = "acme"
	testPrefix = "fb:"
	soon       = 120 * time.Second // nothing here takes so long unless it never comes
)

// mainProcess waits for its end as a runner does.
const mainProcess = `trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done`

// world is a local Fly with an app, a runner in each machine that tests steer, and a thread to answer in.
type world struct {
	t      *testing.T
	fly    *fly.Client
	url    string
	dir    string // of the local Fly
	cut    func() // the connections that Fly has, and with them the requests on their way
	runner *fakeRunner
	front  *fakeFront
	next   http.Handler // the local Fly itself

	mu        sync.Mutex
	calls     []string                                          // guarded by mu; requests that Fly got, with their status
	intercept func(w http.ResponseWriter, r *http.Request) bool // guarded by mu; true: it has answered
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldWith(t, "")
}

// newWorldWith has the programs of a folder in its machines.
func newWorldWith(t *testing.T, programs string) *world {
	t.Helper()
	return newWorldOn(t, localfly.Config{BinDir: programs, Runner: []string{"/bin/sh", "-c", mainProcess}})
}

// newWorldOn has machines of that kind.
func newWorldOn(t *testing.T, cfg localfly.Config) *world {
	t.Helper()
	cfg.Dir, cfg.BootDelay = t.TempDir(), cmp.Or(cfg.BootDelay, 50*time.Millisecond)
	srv, err := localfly.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: cfg.Dir, next: srv.Handler()}
	hs := httptest.NewServer(w.watch(w.next))
	t.Cleanup(func() {
		hs.CloseClientConnections()
		hs.Close()
		if err := srv.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	w.url, w.cut = hs.URL, hs.CloseClientConnections
	w.fly = w.client("fly-local")
	w.ensureApp(testApp)
	w.runner = &fakeRunner{fly: w.fly, disks: map[string]*disk{}, runs: map[string]int{}, steer: map[string]func() (any, error){}, changed: make(chan struct{})}
	w.front = &fakeFront{}
	return w
}

func (w *world) client(token string) *fly.Client {
	w.t.Helper()
	c, err := fly.New(fly.Config{BaseURL: w.url, LogsBaseURL: w.url, Token: token, Unlimited: true, Tries: 1, HTTP: &http.Client{Transport: OwnersOnly(nil)}})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) ensureApp(name string) {
	w.t.Helper()
	if _, err := w.fly.EnsureApp(w.t.Context(), fly.CreateApp{Name: name, OrgSlug: "personal"}); err != nil {
		w.t.Fatal(err)
	}
}

// watch notes what Fly is asked.
func (w *world) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		intercept := w.intercept
		w.mu.Unlock()
		rec := &statusWriter{ResponseWriter: rw}
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.calls = append(w.calls, fmt.Sprintf("%s %s %d", r.Method, r.URL.Path, rec.status))
		}()
		if intercept == nil || !intercept(rec, r) {
			next.ServeHTTP(rec, r)
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// answering has Fly answer requests in another way; nil: as ever.
func (w *world) answering(f func(http.ResponseWriter, *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.intercept = f
}

// asked counts requests of Fly that begin so.
func (w *world) asked(prefix string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, c := range w.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

// local calls one of the local Fly's own methods: faults, kill.
func (w *world) local(what string, body map[string]any) {
	w.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.Post(w.url+"/local/"+what, "application/json", bytes.NewReader(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || out["ok"] != true {
		w.t.Fatalf("%s %v = %v, %v", what, body, out, err)
	}
}

func (w *world) faults(body map[string]any) { w.local("faults", body) }

// machines lists what is alive in an app; made counts all that ever were.
func (w *world) machinesIn(app string) []fly.Machine {
	w.t.Helper()
	list, err := w.fly.Machines(context.WithoutCancel(w.t.Context()), app, fly.MachineFilter{})
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.DeleteFunc(list, func(m fly.Machine) bool { return m.State == "destroyed" || m.State == "destroying" })
}

func (w *world) volumesIn(app string) []fly.Volume {
	w.t.Helper()
	list, err := w.fly.Volumes(context.WithoutCancel(w.t.Context()), app)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// have fails unless the app has so many machines and volumes.
func (w *world) have(machines, volumes int) {
	w.t.Helper()
	if m, v := w.machinesIn(testApp), w.volumesIn(testApp); len(m) != machines || len(v) != volumes {
		w.t.Errorf("there are %d machines and %d volumes, want %d and %d: %v %v", len(m), len(v), machines, volumes, m, v)
	}
}

// config is how machines are made here; change may be nil.
func (w *world) config(change func(*MachinesConfig)) MachinesConfig {
	cfg := MachinesConfig{
		Fly: w.fly, Handover: w.runner, App: testApp, Org: "personal", Regions: []string{"fra"}, Image: "image",
		BootTimeout: soon, Patience: soon, LeaseTTL: 3 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

func (w *world) machines(change func(*MachinesConfig)) *Machines {
	w.t.Helper()
	m, err := NewMachines(w.config(change))
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func thread() Thread { return Thread{Team: "T1", Channel: "C1", TS: "100.000001"} }

// script is a session that a test drives without Redis: what Save got is what a crash leaves.
type script struct {
	*world
	m     *Machines
	s     Session
	saved Session
	turns int

	mu    sync.Mutex
	notes []string // guarded by mu; what people were told they wait for
	line  string   // guarded by mu; what the thread shows of it now
}

func (w *world) script(change func(*MachinesConfig)) *script {
	sc := &script{world: w, m: w.machines(change)}
	sc.s = sc.m.Begin(Spec{Thread: thread(), Owner: "U1"}, time.Now())
	return sc
}

func (sc *script) save(_ context.Context, s Session) error {
	sc.saved = s
	return nil
}

func (sc *script) progress(p Progress) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.line = p.Note
	if p.Note != "" && !slices.Contains(sc.notes, p.Note) {
		sc.notes = append(sc.notes, p.Note)
	}
}

// quiet fails if the thread still shows that something is waited for.
func (sc *script) quiet() {
	sc.t.Helper()
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.line != "" {
		sc.t.Errorf("the thread still says %q", sc.line)
	}
}

func (sc *script) told(note string) bool {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return slices.Contains(sc.notes, note)
}

// run is a turn of the session with that prompt.
func (sc *script) run(prompt string) Run {
	sc.turns++
	return Run{
		Turn: TurnID(fmt.Sprintf("turn-%d", sc.turns)), Fence: int64(sc.turns), Save: sc.save, Progress: sc.progress,
		Prompt: func(context.Context, bool) (Prompt, error) { return Prompt{Text: prompt}, nil },
	}
}

// turn runs a turn and settles it as a worker does.
func (sc *script) turn(prompt string) Outcome {
	sc.t.Helper()
	out, nonce := sc.unsettled(sc.run(prompt))
	sc.quiet()
	if err := sc.m.Settle(sc.t.Context(), sc.s, TurnID(out.Turn), int64(sc.turns), nonce); err != nil {
		sc.t.Fatalf("Settle = %v", err)
	}
	return out
}

func (sc *script) unsettled(r Run) (out Outcome, nonce string) {
	sc.t.Helper()
	keep := r.KeepNonce
	r.KeepNonce = func(ctx context.Context, n string) error {
		nonce = n
		if keep != nil {
			return keep(ctx, n)
		}
		return nil
	}
	end, err := sc.m.RunTurn(sc.t.Context(), &sc.s, r)
	if err != nil {
		sc.t.Fatalf("RunTurn = %v", err)
	}
	out = *end
	if out.Repos != nil { // as the worker counts it
		sc.s.State = out.Repos
	}
	return out, nonce
}

func (sc *script) state() string {
	sc.t.Helper()
	mach, err := sc.world.fly.Machine(sc.t.Context(), sc.s.AppName, sc.s.MachineID)
	if err != nil {
		sc.t.Fatal(err)
	}
	return mach.State
}

// until waits until look says yes.
func (w *world) until(what string, look func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(soon); !look(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s", what, soon)
		}
	}
}

// fakeRunner answers as the runners of all machines: it keeps the journal of each disk, and a turn whose prompt
// begins with "hold" runs until it is released or stopped.
type fakeRunner struct {
	fly *fly.Client

	mu      sync.Mutex
	disks   map[string]*disk               // guarded by mu; :: volume, or machine without one → its journal
	runs    map[string]int                 // guarded by mu; :: turn → how often it was started
	crowded int                            // guarded by mu; turns that came while another one ran
	heard   []string                       // guarded by mu; verbs, in order
	takes   []runner.TakeRequest           // guarded by mu
	steer   map[string]func() (any, error) // guarded by mu; :: verb → its next answers; nil, nil: as ever
	changed chan struct{}                  // guarded by mu; closed and replaced when a turn ends
	resets  time.Time                      // guarded by mu; until then turns that are limited reach Claude's usage limit, which resets at it
}

type disk struct {
	fence  int64
	linger bool
	turns  map[string]*fakeTurn
}

type fakeTurn struct {
	boot    int
	done    bool
	outcome runner.Outcome
	answer  string
	payload string
	spent   []runner.Event
}

// spends has a turn that runs cost so much so far.
func (f *fakeRunner) spends(turn TurnID, usd float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.disks {
		if t := d.turns[string(turn)]; t != nil {
			t.spent = append(t.spent, runner.Event{N: len(t.spent) + 1, Kind: runner.KindSpent, USD: usd})
			t.outcome.CostUSD, t.outcome.SpentUSD = 0, usd // Claude Code tells only at its end
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// answers steers a verb.
func (f *fakeRunner) answers(verb string, how func() (any, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steer[verb] = how
}

// once steers only the next call of a verb.
func (f *fakeRunner) once(verb string, reply any, err error) {
	left := 1
	f.answers(verb, func() (any, error) {
		if left--; left < 0 {
			return nil, nil
		}
		return reply, err
	})
}

// Call implements Handover.
func (f *fakeRunner) Call(ctx context.Context, at Target, verb string, request, reply any) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	answer, err := f.answer(ctx, at, verb, request)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, reply)
}

func (f *fakeRunner) answer(ctx context.Context, at Target, verb string, request any) (any, error) {
	f.mu.Lock()
	f.heard = append(f.heard, verb)
	if how := f.steer[verb]; how != nil {
		if answer, err := how(); answer != nil || err != nil {
			f.mu.Unlock()
			return answer, err
		}
	}
	changed := f.changed
	f.mu.Unlock()
	mach, err := f.fly.Machine(ctx, at.App, at.Machine)
	if err != nil {
		return nil, err
	}
	if mach.State != "started" {
		return nil, fmt.Errorf("exec: %w", fly.ErrPrecondition)
	}
	boot, where := 0, at.Machine
	for _, e := range mach.Events {
		if e.Type == "exit" {
			boot++
		}
	}
	if err := f.up(ctx, at, boot); err != nil {
		return nil, err
	}
	if len(mach.Config.Mounts) > 0 {
		where = mach.Config.Mounts[0].Volume
	}
	if e, ok := request.(runner.EventsRequest); ok && f.running(where, e.Turn, boot) {
		select { // a short long poll: a machine that dies answers nothing
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if verb == "ack" && !f.lingers(where) {
		if err := f.fly.StopMachine(ctx, at.App, at.Machine, fly.StopMachine{Signal: "SIGTERM"}, at.Nonce); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reply(where, boot, request)
}

func (f *fakeRunner) lingers(where string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disks[where] != nil && f.disks[where].linger
}

// up waits until the machine's process has said of each of its boots that it is up: it hears no signal before.
func (f *fakeRunner) up(ctx context.Context, at Target, boot int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		log, err := f.fly.Logs(ctx, at.App, fly.Logs{Machine: at.Machine})
		if err != nil || len(log.Entries) > boot {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (f *fakeRunner) running(where, turn string, boot int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.disks[where]
	return d != nil && d.turns[turn] != nil && !d.turns[turn].done && d.turns[turn].boot == boot
}

// reply is what the runner says. f.mu must be held.
func (f *fakeRunner) reply(where string, boot int, request any) (any, error) {
	d := f.disks[where]
	if d == nil {
		d = &disk{turns: map[string]*fakeTurn{}}
		f.disks[where] = d
	}
	switch r := request.(type) {
	case runner.TakeRequest:
		return f.take(d, boot, r), nil
	case runner.EventsRequest:
		t, status := d.status(r.Turn, boot)
		reply := runner.EventsReply{Status: status}
		if t != nil {
			reply.Events = t.spent[min(r.After, len(t.spent)):]
		}
		if status == runner.StatusDone {
			reply.Outcome, reply.Text = &t.outcome, t.answer
		}
		return reply, nil
	case runner.ResultRequest:
		t, status := d.status(r.Turn, boot)
		reply := runner.ResultReply{Status: status}
		if status == runner.StatusDone {
			reply.Outcome, reply.Text = &t.outcome, t.answer[min(r.Offset, int64(len(t.answer))):]
			if r.Payload { // in pieces of five bytes
				rest := t.payload[r.Offset:]
				reply.Text, reply.Data = "", []byte(rest[:min(len(rest), 5)])
			}
		}
		return reply, nil
	case runner.StopRequest:
		if r.Fence < d.fence {
			return runner.StopReply{Status: runner.StatusFenced}, nil
		}
		if t, status := d.status(r.Turn, boot); status == runner.StatusRunning {
			f.finish(t, 130, cmp.Or(r.Why, runner.FailStopped))
		}
		return runner.StopReply{Status: runner.StatusOK}, nil
	case runner.AckRequest:
		return runner.AckReply{Status: runner.StatusOK}, nil
	case runner.HelloRequest:
		reply := runner.HelloReply{Status: runner.StatusOK}
		for id := range d.turns {
			if _, status := d.status(id, boot); status == runner.StatusRunning {
				reply.Running = id
			}
		}
		return reply, nil
	}
	return nil, fmt.Errorf("the fake does not know %T", request)
}

func (d *disk) status(turn string, boot int) (*fakeTurn, runner.Status) {
	t := d.turns[turn]
	switch {
	case t == nil:
		return nil, runner.StatusUnknown
	case t.done:
		return t, runner.StatusDone
	case t.boot != boot:
		return t, runner.StatusInterrupted
	}
	return t, runner.StatusRunning
}

// take starts a turn. f.mu must be held.
func (f *fakeRunner) take(d *disk, boot int, r runner.TakeRequest) runner.TakeReply {
	if r.Fence < d.fence {
		return runner.TakeReply{Status: runner.StatusFenced}
	}
	d.fence, d.linger = r.Fence, r.Turn.Settings.LingerSeconds > 0
	f.takes = append(f.takes, r)
	if _, status := d.status(r.Turn.ID, boot); status != runner.StatusUnknown {
		return runner.TakeReply{Status: status}
	}
	for id := range d.turns {
		if _, status := d.status(id, boot); status == runner.StatusRunning {
			f.crowded++
			return runner.TakeReply{Status: runner.StatusBusy}
		}
	}
	f.runs[r.Turn.ID]++
	t := &fakeTurn{boot: boot, answer: "answer to " + r.Turn.Prompt}
	t.outcome = runner.Outcome{Turn: r.Turn.ID, StartedAt: time.Now().UTC(), CostUSD: 0.5, Repos: []runner.RepoState{}, Files: []string{"a.txt"}}
	if e := r.Turn.Errand; e != nil {
		t.answer, t.payload = "did "+string(e.Kind), "what it brings"
		if strings.HasSuffix(r.Turn.ID, "large") {
			t.payload = strings.Repeat(t.payload, 1<<16)
		}
		t.outcome.CostUSD, t.outcome.PayloadBytes, t.outcome.Repos = 0, int64(len(t.payload)), []runner.RepoState{{Dir: "seen"}}
	}
	d.turns[r.Turn.ID] = t
	if strings.HasPrefix(r.Turn.Prompt, "cannot clone") {
		t.outcome.Repos = nil
		f.finish(t, 1, runner.FailClone)
		return runner.TakeReply{Status: runner.StatusAccepted}
	}
	if strings.Contains(r.Turn.Prompt, "limited") && !strings.Contains(r.Turn.ID, "~") {
		t.outcome.LimitResets = f.resets
		if strings.HasSuffix(r.Turn.Prompt, "in the middle") {
			t.outcome.Tools = []runner.ToolUse{{Tool: "Bash", Times: 1}}
		}
		f.finish(t, 1, runner.FailLimit)
		return runner.TakeReply{Status: runner.StatusAccepted}
	}
	if !strings.HasPrefix(r.Turn.Prompt, "hold") {
		f.finish(t, 0, runner.FailNone)
	}
	return runner.TakeReply{Status: runner.StatusAccepted}
}

// finish ends a turn. f.mu must be held.
func (f *fakeRunner) finish(t *fakeTurn, code int, why runner.Failure) {
	t.done = true
	t.outcome.ExitCode, t.outcome.Failure, t.outcome.EndedAt, t.outcome.AnswerBytes = code, why, time.Now().UTC(), int64(len(t.answer))
	close(f.changed)
	f.changed = make(chan struct{})
}

// release ends all turns that are held.
func (f *fakeRunner) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.disks {
		for _, t := range d.turns {
			if !t.done {
				f.finish(t, 0, runner.FailNone)
			}
		}
	}
}

func (f *fakeRunner) ran(turn TurnID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[string(turn)]
}

func (f *fakeRunner) taken() []runner.TakeRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.takes)
}

func (f *fakeRunner) verbs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.heard)
}

// fakeFront is a thread: it keeps what was posted, by turn and part as Slack's metadata does.
type fakeFront struct {
	mu      sync.Mutex
	posts   []post         // guarded by mu
	notices []Notice       // guarded by mu
	lines   []string       // guarded by mu; what the live messages said to be waited for, one after the other
	deaf    int            // guarded by mu; so many notices fail
	mute    int            // guarded by mu; so many recalls fail
	looks   int            // guarded by mu; how often it was to look back
	quieted []TurnID       // guarded by mu
	held    []TurnID       // guarded by mu
	lose    map[string]int // guarded by mu; :: part → so many posts of it take effect and their answer is lost
	blind   bool           // guarded by mu; whoever looks for the live message of a turn is refused
	looked  []TurnID       // guarded by mu; turns for which an end looked
	// earlier takes in what was said before a turn; nil: there is nothing. Set before the replicas start.
	earlier func(context.Context, Turn) (bool, error)
	// repos are those that each message names; nil: none. adds are those that it links. Set before the replicas start.
	repos, adds []runner.Repo
}

type post struct {
	turn    TurnID
	part    string
	session string
	outcome Outcome
}

func (f *fakeFront) Prompt(_ context.Context, _ Session, t Turn, _ bool) (Prompt, error) {
	return Prompt{Text: t.Text, Repos: f.repos, Adds: f.adds}, nil
}

// put posts one part unless a look finds it.
func (f *fakeFront) put(ctx context.Context, p post, look bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if look && slices.ContainsFunc(f.posts, func(q post) bool { return q.turn == p.turn && q.part == p.part }) {
		return nil
	}
	f.posts = append(f.posts, p)
	if f.lose[p.part] > 0 {
		f.lose[p.part]--
		return errors.New("the answer was lost")
	}
	return nil
}

func (f *fakeFront) Begin(ctx context.Context, s Session, t Turn, look bool) (string, error) {
	f.mu.Lock()
	blind := f.blind && look
	f.mu.Unlock()
	if blind {
		return "", errors.New("Slack is away")
	}
	return "live-" + string(t.ID), f.put(ctx, post{turn: t.ID, part: "live", session: s.SessionID}, look)
}

func (f *fakeFront) Progress(_ context.Context, _ Session, _ Turn, _ string, p Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) == 0 && p.Note != "" || len(f.lines) > 0 && f.lines[len(f.lines)-1] != p.Note {
		f.lines = append(f.lines, p.Note)
	}
}

func (f *fakeFront) Hold(ctx context.Context, s Session, t Turn, live string, p Progress) error {
	f.Progress(ctx, s, t, live, p)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, t.ID)
	return nil
}

// told is all that was said to be waited for.
func (f *fakeFront) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.lines)
}

func (f *fakeFront) Quiet(t Turn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quieted = append(f.quieted, t.ID)
}

// wasQuieted reports whether an owner of the turn has let its live message go.
func (f *fakeFront) wasQuieted(turn TurnID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.quieted, turn)
}

// isQuiet reports whether the owner of any job has let it go.
func (f *fakeFront) isQuiet() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.quieted) > 0
}

func (f *fakeFront) Finish(ctx context.Context, s Session, t Turn, _ string, o Outcome, look bool) error {
	if look {
		f.mu.Lock()
		f.looked = append(f.looked, t.ID)
		f.mu.Unlock()
	}
	for _, part := range []string{"1", "2"} {
		if err := f.put(ctx, post{turn: t.ID, part: part, session: s.SessionID, outcome: o}, look); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeFront) lookedFor(turn TurnID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.looked, turn)
}

func (f *fakeFront) Notify(_ context.Context, n Notice) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deaf > 0 {
		f.deaf--
		return errors.New("nobody listens")
	}
	f.notices = append(f.notices, n)
	return nil
}

// Recall tells what the posts do.
func (f *fakeFront) Recall(_ context.Context, s Session) (Recalled, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out Recalled
	if f.mute > 0 {
		f.mute--
		return out, errors.New("Slack is away")
	}
	for _, p := range f.posts {
		if p.part != "2" || p.session != s.SessionID {
			continue
		}
		if strings.HasPrefix(string(p.turn), "end:") {
			out.EndedAt = p.outcome.EndedAt
			continue
		}
		out.Turns, out.LastID, out.CostUSD, out.Owner = p.outcome.Number, p.turn, 0.5, "U1"
	}
	return out, nil
}

func (f *fakeFront) Earlier(ctx context.Context, t Turn) (bool, error) {
	if f.earlier == nil {
		return false, nil
	}
	return f.earlier(ctx, t)
}

func (f *fakeFront) LookBack() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
}

func (f *fakeFront) lookedBack() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks
}

func (f *fakeFront) noticed() []Notice {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.notices)
}

// of returns the posts of one part of a turn.
func (f *fakeFront) of(turn TurnID, part string) []post {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.posts), func(p post) bool { return p.turn != turn || p.part != part })
}

// goodbyes are the posts of ends.
func (f *fakeFront) goodbyes() []post {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.posts), func(p post) bool { return !strings.HasPrefix(string(p.turn), "end:") || p.part != "1" })
}

// bot is Redis with replicas of the service over one world.
type bot struct {
	*world
	mini *miniredis.Miniredis
	rdb  *redis.Client // the test's own
}

func newBot(t *testing.T) *bot {
	t.Helper()
	b := &bot{world: newWorld(t), mini: miniredis.RunT(t)}
	b.rdb = b.redis()
	return b
}

func (b *bot) redis() *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: b.mini.Addr(), MaxRetries: -1})
	b.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// replica is one service.
type replica struct {
	*Service
	t    *testing.T
	rdb  *redis.Client
	stop func()
}

// replica makes a service that works when it is started; change may be nil.
func (b *bot) replica(change func(*ServiceConfig, *MachinesConfig)) *replica {
	b.t.Helper()
	rdb := b.redis()
	cfg := ServiceConfig{Redis: rdb, Prefix: testPrefix, Queue: b.queue(rdb, 8), Front: b.front, ReapEvery: time.Hour}
	mcfg := b.config(nil)
	if change != nil {
		change(&cfg, &mcfg)
	}
	var err error
	if cfg.Machines, err = NewMachines(mcfg); err != nil {
		b.t.Fatal(err)
	}
	sv, err := NewService(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return &replica{Service: sv, t: b.t, rdb: rdb}
}

// queue is one that works on so many turns at once.
func (b *bot) queue(rdb redis.UniversalClient, slots int) *queue.Queue {
	b.t.Helper()
	q, err := queue.New(rdb, queue.Config{Prefix: testPrefix, Lease: 2 * time.Second, Slots: slots, Poll: time.Second})
	if err != nil {
		b.t.Fatal(err)
	}
	return q
}

// start works until the test ends or stop is called.
func (r *replica) start() *replica {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			r.t.Errorf("Run = %v", err)
		}
	}()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(r.stop)
	return r
}

// turn is a message in the thread of the tests; begins: it mentions the bot.
func turn(ts, text string, mention bool) Turn {
	th := thread()
	return Turn{
		ID: TurnID(th.Team + ":" + th.Channel + ":" + ts), Kind: KindTurn, Thread: th, User: "U1", TS: ts, Text: text,
		At: time.Now().UTC(), Mention: mention,
	}
}

func (r *replica) accept(t Turn) Turn {
	r.t.Helper()
	if res, err := r.Accept(r.t.Context(), t); err != nil || res.Status != AcceptQueued {
		r.t.Fatalf("Accept = %+v, %v, want it queued", res, err)
	}
	return t
}

// session reads the record of the tests' thread.
func (r *replica) session() *Session {
	r.t.Helper()
	s, err := r.store.Get(context.WithoutCancel(r.t.Context()), thread())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// answered waits until a turn is through, and returns its outcome.
func (b *bot) answered(r *replica, t Turn) Outcome {
	b.t.Helper()
	b.until("the answer to "+string(t.ID), func() bool { return len(b.front.of(t.ID, "2")) > 0 })
	b.idle(r)
	return b.front.of(t.ID, "1")[0].outcome
}

// idle waits until nothing is queued or running in the thread.
func (b *bot) idle(r *replica) {
	b.t.Helper()
	b.until("an idle thread", func() bool {
		st, err := r.Status(b.t.Context(), thread())
		return err == nil && st.Running == nil && len(st.Queued) == 0
	})
}

// reap looks at all sessions as if it were that time, and waits until what came of it is done.
func (b *bot) reap(r *replica, now time.Time) {
	b.t.Helper()
	if err := r.Reap(b.t.Context(), now); err != nil {
		b.t.Fatalf("Reap = %v", err)
	}
	b.idle(r)
}
