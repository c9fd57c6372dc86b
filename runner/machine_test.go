package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for an event.
const patience = 120 * time.Second

const (
	runnerEnv = "FLAUDEBOT_TEST_RUNNER"
	fakeEnv   = "FLAUDEBOT_TEST_FAKE"
)

// machine is a volume and what runs on it.
type machine struct {
	t     *testing.T
	cfg   Config
	env   []string // of process 1
	fence int64
	turns int

	linger int // seconds, of every turn

	cmd *exec.Cmd
	log *bytes.Buffer // of process 1; read it when it has ended
	out *bytes.Buffer
}

// newMachine makes a machine that does not run yet.
func newMachine(t *testing.T) *machine {
	t.Helper()
	// A socket's path is short: no t.TempDir.
	dir, err := os.MkdirTemp("", "fb") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	claude := filepath.Join(dir, "claude")
	writeFake(t, claude, self)
	return &machine{t: t, fence: 1, cfg: Config{
		Data: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), Claude: claude, UID: -1,
		Grace: Grace{Interrupt: 5 * time.Second, Term: 500 * time.Millisecond, Result: 5 * time.Second},
	}}
}

// atOnce keeps a process with the race detector from waiting a second at its end.
const atOnce = "GORACE=atexit_sleep_ms=0"

// writeFake writes a claude command that is this test's program.
func writeFake(t *testing.T, name, program string) {
	t.Helper()
	script := "#!/bin/sh\n" + atOnce + " " + fakeEnv + "=1 exec '" + program + "' \"$@\"\n"
	if err := os.WriteFile(name, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// boot starts the runner as a process of its own.
func (m *machine) boot() *machine {
	m.t.Helper()
	m.start(nil)
	m.hello()
	return m
}

// start starts process 1. wrap puts something around its command.
func (m *machine) start(wrap func(*exec.Cmd)) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{
		"Data": m.cfg.Data, "RunDir": m.cfg.RunDir, "Claude": m.cfg.Claude, "UID": m.cfg.UID,
		"Unwatched": m.cfg.Unwatched, "Unacked": m.cfg.Unacked, "SetUp": m.cfg.SetUp, "Grace": m.cfg.Grace, "VMStat": m.cfg.VMStat,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(self)
	log := &bytes.Buffer{}
	m.log, m.out = log, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = m.out, m.log
	cmd.WaitDelay = time.Second
	cmd.Env = append([]string{runnerEnv + "=" + string(raw), "PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", atOnce}, m.env...)
	if wrap != nil {
		wrap(cmd)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.cmd = cmd
	m.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			m.exit()
		}
		if strings.Contains(log.String(), "DATA RACE") {
			m.t.Error("process 1 has a data race")
		}
		if m.t.Failed() {
			m.t.Logf("process 1 logged:\n%s", log)
		}
	})
}

// runnerMain is process 1 of a test.
func runnerMain() int {
	cfg := Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Getenv: os.Getenv, Version: "test"}
	if err := json.Unmarshal([]byte(os.Getenv(runnerEnv)), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := Run(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 97
	}
	return code
}

func helperMain() int {
	cfg := Config{RunDir: os.Getenv("FLAUDEBOT_RUN_DIR")}
	if err := GitCredential(context.Background(), cfg, os.Args[3:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// exit waits for the end of process 1 and returns its code.
func (m *machine) exit() int {
	m.t.Helper()
	timer := time.AfterFunc(patience, func() {
		m.t.Error("process 1 does not end")
		_ = m.cmd.Process.Kill()
	})
	defer timer.Stop()
	_ = m.cmd.Wait()
	return m.cmd.ProcessState.ExitCode()
}

// call asks the runner.
func call[Rep any](m *machine, verb string, req any) Rep {
	m.t.Helper()
	rep, err := try[Rep](m, verb, req)
	if err != nil {
		m.t.Fatalf("%s: %v", verb, err)
	}
	return rep
}

func try[Rep any](m *machine, verb string, req any) (Rep, error) {
	var rep Rep
	raw, err := json.Marshal(req)
	if err != nil {
		return rep, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out bytes.Buffer
	if err := Verb(ctx, m.cfg, verb, bytes.NewReader(raw), &out); err != nil {
		return rep, err
	}
	if out.Len() > MaxBody {
		return rep, fmt.Errorf("the reply to %s has %d bytes, want at most %d", verb, out.Len(), MaxBody)
	}
	return rep, json.Unmarshal(out.Bytes(), &rep)
}

func (m *machine) hello() HelloReply {
	m.t.Helper()
	return call[HelloReply](m, "hello", HelloRequest{})
}

// turn makes a turn for the machine's session.
func (m *machine) turn(prompt string) Turn {
	m.turns++
	return Turn{
		ID: fmt.Sprintf("T1:C1:%d.%d", time.Now().UnixNano(), m.turns), SessionID: aSession, Prompt: prompt, Settings: Settings{LingerSeconds: m.linger},
	}
}

func (m *machine) take(t Turn, sec Secrets) TakeReply {
	m.t.Helper()
	return call[TakeReply](m, "take", TakeRequest{Fence: m.fence, Turn: t, Secrets: sec})
}

// begin takes a turn that must be accepted.
func (m *machine) begin(t Turn, sec Secrets) Turn {
	m.t.Helper()
	if r := m.take(t, sec); r.Status != StatusAccepted {
		m.t.Fatalf("take = %+v, want accepted", r)
	}
	return t
}

// run runs a turn to its end.
func (m *machine) run(t Turn, sec Secrets) (Outcome, string) {
	m.t.Helper()
	return m.end(m.begin(t, sec))
}

// say runs a turn with that prompt to its end.
func (m *machine) say(prompt string) (Outcome, string) {
	m.t.Helper()
	return m.run(m.turn(prompt), Secrets{})
}

// end waits until the turn is done, and reads all of its answer.
func (m *machine) end(t Turn) (Outcome, string) {
	m.t.Helper()
	m.follow(t, func(Event) bool { return false })
	var answer strings.Builder
	for {
		r := call[ResultReply](m, "result", ResultRequest{Turn: t.ID, Offset: int64(answer.Len())})
		if r.Status != StatusDone {
			m.t.Fatalf("result = %+v, want done", r)
		}
		answer.WriteString(r.Text)
		if int64(answer.Len()) >= r.Outcome.AnswerBytes || r.Text == "" {
			return *r.Outcome, answer.String()
		}
	}
}

// follow reads events until one is the wanted or the turn is over, and returns all that came.
func (m *machine) follow(t Turn, wanted func(Event) bool) []Event {
	m.t.Helper()
	return m.look(t, 15*time.Second, wanted)
}

// look is follow with another time that the runner may hold a reply: news are held back for a moment, unless it is short.
func (m *machine) look(t Turn, hold time.Duration, wanted func(Event) bool) []Event {
	m.t.Helper()
	var all []Event
	for {
		r := call[EventsReply](m, "events", EventsRequest{Turn: t.ID, After: len(all), WaitMS: int(hold.Milliseconds())})
		for _, e := range r.Events {
			if all = append(all, e); e.N != len(all) {
				m.t.Fatalf("event %d has the number %d", len(all), e.N)
			}
			if wanted(e) {
				return all
			}
		}
		if r.Status != StatusRunning && (r.Outcome != nil || len(r.Events) == 0) {
			return all
		}
	}
}

// working waits until Claude Code is at work on the turn.
func (m *machine) working(t Turn) {
	m.t.Helper()
	events := m.look(t, 20*time.Millisecond, func(e Event) bool { return e.Kind == KindText })
	if events[len(events)-1].Kind != KindText {
		m.t.Fatalf("the turn came to an end: %+v", events)
	}
}

func (m *machine) stop(t Turn) {
	m.t.Helper()
	if r := call[StopReply](m, "stop", StopRequest{Turn: t.ID, Fence: m.fence}); r.Status != StatusOK {
		m.t.Fatalf("stop = %+v, want ok", r)
	}
}

// transcript is where the only conversation is kept.
func (m *machine) transcript() string {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(m.cfg.claudeDir(), "projects", "*", aSession+".jsonl"))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("conversations = %v, %v, want one", found, err)
	}
	return found[0]
}

// everything is all that is on the disk and in the log, the volume's Git repositories left out.
func (m *machine) everything() string {
	var all strings.Builder
	_ = filepath.WalkDir(m.cfg.Data, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			raw, _ := os.ReadFile(path)
			all.Write(raw)
		}
		return nil
	})
	return all.String()
}
