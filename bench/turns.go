package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// condition is what a series of turns is measured under.
type condition struct {
	about              string
	boot, update, exec time.Duration
}

// conditions: the first is measured as it is, the others assume what Fly takes.
func (b bench) conditions() []condition {
	const boot, update, exec = 2 * time.Second, 20 * time.Second, 1500 * time.Millisecond
	if b.small {
		return []condition{{about: "no delays"}, {"small delays, to show that they work", 200 * time.Millisecond, 500 * time.Millisecond, 100 * time.Millisecond}}
	}
	return []condition{
		{about: "no delays"},
		{"assumed: a boot of 2 s (Fly: an app is ready about 2 s after the start, docs:reference/suspend-resume)", boot, 0, 0},
		{"assumed: an update of a machine of 20 s (Fly: about 20 s, docs:blueprints/warm-pool-user-machines)", 0, update, 0},
		{"assumed: both, and an exec of 1.5 s (Fly: 1 to 2 s, the same page)", boot, update, exec},
	}
}

// kindOfTurn is measured under a name, beside what flaude has.
type kindOfTurn struct{ name, theirs, about string }

// kindsOfTurn: flaude keeps no process, so its only kind of follow-up stands beside the warm one.
func kindsOfTurn() []kindOfTurn {
	return []kindOfTurn{{"first", "first", "first turn"}, {"stopped", "stopped", "follow-up, machine stopped"}, {"warm", "stopped", "follow-up, warm"}}
}

func reportTurns(ctx context.Context, b bench) error {
	fmt.Println("\nTurns on the same local Fly, runner and scripted agent: flaudebot from the message to the answer by the local Slack's clock, flaude from the\n" +
		"call to the answer that is read from the log. Overhead: what is neither boot, update nor agent, each of which is measured. Calls: of Fly's APIs.")
	bin, remove, err := buildFlaudebot(ctx)
	if err != nil {
		return err
	}
	defer remove()
	if b.python == "" {
		fmt.Println("flaude is left out: give a Python interpreter that has it with -flaude.")
	}
	for _, c := range b.conditions() {
		fmt.Printf("\n%s\n", c.about)
		tasks := []task{{What: "turns", Impl: "flaudebot", Binary: bin, Boot: c.boot, Update: c.update, Exec: c.exec}}
		if b.python != "" {
			theirs := tasks[0]
			theirs.Impl, theirs.Python = "flaude", b.python
			tasks = append(tasks, theirs)
		}
		got, err := b.compare(ctx, tasks...)
		if err != nil {
			return err
		}
		fmt.Printf(turnColumns, "medians, in ms", "answer", "boot", "update", "agent", "overhead", "calls until the answer")
		for _, k := range kindsOfTurn() {
			k.rows(got)
		}
	}
	return nil
}

// rows prints a kind of turn, beside flaude's if that was measured.
func (k kindOfTurn) rows(got []series) {
	rowOfTurn(k.about+", flaudebot", got[0], k.name)
	if len(got) == 1 {
		return
	}
	rowOfTurn(k.about+", flaude", got[1], k.theirs)
	row("  ratio within a round: answer", ratio(got[0].of(k.name+" answer"), got[1].of(k.theirs+" answer")), "x", 0, 0)
	row("  ratio within a round: overhead", ratio(got[0].of(k.name+" overhead"), got[1].of(k.theirs+" overhead")), "x", 0, 0.1)
}

const turnColumns = "%-39s %-24s %7s %7s %7s  %-24s %s\n"

func rowOfTurn(who string, s series, kind string) {
	middle := func(what string) string { return number(median(s.of(kind + " " + what))) }
	spread := func(what string) string {
		list := s.of(kind + " " + what)
		return fmt.Sprintf("%s (%s to %s)", number(median(list)), number(slices.Min(list)), number(slices.Max(list)))
	}
	fmt.Printf(turnColumns, who, spread("answer"), middle("boot"), middle("update"), middle("agent"), spread("overhead"),
		middle("calls")+", "+middle("all calls")+" in all")
}

// turns takes a session of each side through the kinds of turns.
func turns(ctx context.Context, t task) (figures, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	m, err := measure(ctx, t, self, t.Boot)
	if err != nil {
		return nil, err
	}
	defer m.stop()
	if t.Impl == "flaude" {
		err = m.flaude(ctx, t)
	} else {
		err = m.flaudebot(ctx, t)
	}
	return m.figures, err
}

// measured is a world in which turns are timed.
type measured struct {
	*world
	calls   *callCounter
	figures figures
}

// measure starts a world on an empty Redis in which a program is Claude Code. The caller stops it.
func measure(ctx context.Context, t task, claude string, boot time.Duration) (measured, error) {
	rdb := client(t.Redis, 0, 1)
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return measured{}, fmt.Errorf("empty Redis: %w", err)
	}
	w, err := startLocal(ctx, t, []string{"FLAUDEBOT_TEST_CLAUDE=" + claude}, "--agent", "cli", "--boot", boot.String(), "--generosity", "50")
	if err != nil {
		return measured{}, err
	}
	c, err := countCalls(w.fly)
	if err != nil {
		w.stop()
		return measured{}, err
	}
	return measured{world: w, calls: c, figures: figures{}}, nil
}

func (m measured) stop() {
	m.calls.close()
	m.world.stop()
}

// slow makes calls of Fly's take longer, from now on.
func (m measured) slow(ctx context.Context, t task) error {
	for call, delay := range map[string]time.Duration{"machine.update": t.Update, "machine.exec": t.Exec} {
		if delay > 0 {
			if err := m.atFly(ctx, http.MethodPost, "/local/faults", map[string]any{"method": call, "delay_ms": delay.Milliseconds()}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// note takes the figures of a turn that ran from one time to the other.
func (m measured) note(ctx context.Context, kind string, from, to time.Time) error {
	until := m.calls.between(from, to)
	machine, err := m.calls.machine()
	if err != nil {
		return err
	}
	if err := m.calls.rest(ctx); err != nil {
		return err
	}
	boot, err := m.bootTime(ctx, machine, from, to)
	if err != nil {
		return err
	}
	agent, err := m.agentTime(from, to)
	if err != nil {
		return err
	}
	if agent == 0 {
		return fmt.Errorf("%s: no agent ran between %s and %s", kind, from, to)
	}
	var update time.Duration
	for _, c := range until {
		if c.updates() {
			update += c.took
		}
	}
	whole := to.Sub(from)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	for what, d := range map[string]time.Duration{
		"answer": whole, "boot": boot, "update": update, "agent": agent, "overhead": whole - boot - update - agent,
	} {
		m.figures[kind+" "+what] = ms(d)
	}
	m.figures[kind+" calls"] = float64(len(until))
	m.figures[kind+" all calls"] = float64(len(m.calls.between(from, time.Now())))
	return nil
}

// bootTime is how long the machine was starting, or being made, between two times, by its events.
func (m measured) bootTime(ctx context.Context, machine string, from, to time.Time) (time.Duration, error) {
	var events []struct {
		Status    string
		Timestamp int64 // unix ms
	}
	if err := m.atFly(ctx, http.MethodGet, "/v1/apps/"+benchApp+"/machines/"+machine+"/events?limit=50", nil, &events); err != nil {
		return 0, err
	}
	slices.Reverse(events) // the oldest first
	var sum, began int64
	for _, e := range events {
		if e.Timestamp < from.UnixMilli() || e.Timestamp > to.UnixMilli() {
			continue
		}
		switch {
		case (e.Status == "created" || e.Status == "starting") && began == 0:
			began = e.Timestamp
		case e.Status == "started" && began != 0:
			sum, began = sum+e.Timestamp-began, 0
		}
	}
	return time.Duration(sum) * time.Millisecond, nil
}

// stopMachine has the machine of the last calls stopped, and ready to be started again.
func (m measured) stopMachine(ctx context.Context) error {
	machine, err := m.calls.machine()
	if err != nil {
		return err
	}
	path := "/v1/apps/" + benchApp + "/machines/" + machine
	if err := m.atFly(ctx, http.MethodPost, path+"/stop", map[string]any{}, nil); err != nil {
		return err
	}
	return m.rested(ctx, path)
}

// rested waits until a machine has been stopped for as long as Fly refuses to start it.
func (m measured) rested(ctx context.Context, path string) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(300 * time.Millisecond) {
		var machine struct{ State string }
		if err := m.atFly(ctx, http.MethodGet, path, nil, &machine); err != nil {
			return err
		}
		if machine.State == "stopped" {
			time.Sleep(600 * time.Millisecond)
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is %s a minute after it was stopped", path, machine.State)
		}
	}
}

// span is the time of a turn, from what was asked to the answer.
type span struct{ from, to time.Time }

// exchange says something to the bot and waits for the answer, of a turn that finds as much of the one before as the lane says.
func (m measured) exchange(ctx context.Context, thread, text, lane string) (root string, took span, err error) {
	ts, err := m.say(ctx, thread, text)
	if err != nil {
		return "", took, err
	}
	if thread == "" {
		thread = ts
	}
	got, err := m.answerTo(ctx, thread, ts)
	if err != nil {
		return "", took, err
	}
	if got.lane != lane {
		return "", took, fmt.Errorf("%q began as %q, want %q", text, got.lane, lane)
	}
	took.to = got.at
	took.from, err = timeOf(ts)
	return thread, took, err
}

// ask is an exchange from which the figures are taken.
func (m measured) ask(ctx context.Context, thread, text, kind, lane string) (root string, err error) {
	root, took, err := m.exchange(ctx, thread, text, lane)
	if err != nil {
		return "", err
	}
	return root, m.note(ctx, kind, took.from, took.to)
}

func (m measured) flaudebot(ctx context.Context, t task) error {
	if err := m.serve(ctx, m.calls.url, "FLAUDEBOT_LINGER=5m"); err != nil {
		return err
	}
	// A session before those that count: the app is there, who asks is known.
	if _, err := m.ask(ctx, "", "<@U0FLAUDE> say: hello", "before", "machine"); err != nil {
		return err
	}
	if err := m.slow(ctx, t); err != nil {
		return err
	}
	thread, err := m.ask(ctx, "", "<@U0FLAUDE> say: one", "first", "machine")
	if err != nil {
		return err
	}
	if _, err := m.ask(ctx, thread, "say: two", "warm", "process"); err != nil {
		return err
	}
	if err := m.stopMachine(ctx); err != nil {
		return err
	}
	_, err = m.ask(ctx, thread, "say: three", "stopped", "start")
	return err
}

//go:embed drive_flaude.py
var flaudeDriver string

func (m measured) flaude(ctx context.Context, t task) (err error) {
	f, err := startFlaude(ctx, t.Python, map[string]any{
		"fly": m.calls.url, "app": benchApp, "repo": m.repo(), "env": map[string]string{"ANTHROPIC_BASE_URL": m.claude},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	for _, c := range []struct{ do, prompt, kind string }{
		{"ensure", "", ""},
		{"first", "say: hello", "before"}, // as with flaudebot
		{"end", "", ""},
		{"slow", "", ""},
		{"first", "say: one", "first"},
		{"follow_up", "say: two", "stopped"},
	} {
		if c.do == "slow" {
			if err := m.slow(ctx, t); err != nil {
				return err
			}
			continue
		}
		got, err := f.do(c.do, c.prompt)
		if err != nil {
			return err
		}
		if c.do == "ensure" && got.Version != "0.6.1" {
			return fmt.Errorf("%s has flaude %s, want 0.6.1", t.Python, got.Version)
		}
		if c.kind == "" {
			continue
		}
		if want := strings.TrimPrefix(c.prompt, "say: "); got.ExitCode != 0 || got.Answer != want {
			return fmt.Errorf("flaude's turn ended with %d and %q, want 0 and %q", got.ExitCode, got.Answer, want)
		}
		began := time.UnixMicro(int64(got.Began * 1e6))
		if err := m.note(ctx, c.kind, began, began.Add(time.Duration(got.AnswerMS*float64(time.Millisecond)))); err != nil {
			return err
		}
		if err := m.rested(ctx, "/v1/apps/"+benchApp+"/machines/"+got.Machine); err != nil {
			return err
		}
	}
	return nil
}

// flaudeProcess is a Python process that drives flaude.
type flaudeProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startFlaude(ctx context.Context, python string, setup map[string]any) (*flaudeProcess, error) {
	raw, err := json.Marshal(setup)
	if err != nil {
		return nil, fmt.Errorf("encode what flaude is told: %w", err)
	}
	f := &flaudeProcess{cmd: exec.CommandContext(ctx, python, "-c", flaudeDriver, string(raw))}
	f.cmd.Stderr = os.Stderr
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("speak to %s: %w", python, err)
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("hear %s: %w", python, err)
	}
	f.out = bufio.NewScanner(out)
	if err := f.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", python, err)
	}
	return f, nil
}

// flaudeTurn is what the driver answers.
type flaudeTurn struct {
	Version  string
	Began    float64 // unix s
	AnswerMS float64 `json:"answer_ms"`
	ExitCode int     `json:"exit_code"`
	Answer   string
	Machine  string
}

func (f *flaudeProcess) do(what, prompt string) (flaudeTurn, error) {
	var got flaudeTurn
	if err := json.NewEncoder(f.in).Encode(map[string]string{"do": what, "prompt": prompt}); err != nil {
		return got, fmt.Errorf("have flaude do %s: %w", what, err)
	}
	if !f.out.Scan() {
		return got, fmt.Errorf("flaude ended at %s: %w", what, errors.Join(f.out.Err(), f.stop()))
	}
	if err := json.Unmarshal(f.out.Bytes(), &got); err != nil {
		return got, fmt.Errorf("read what flaude did at %s: %w", what, err)
	}
	return got, nil
}

// stop ends it, once.
func (f *flaudeProcess) stop() error {
	_ = f.in.Close()
	if f.cmd.ProcessState != nil {
		return nil
	}
	if err := f.cmd.Wait(); err != nil {
		return fmt.Errorf("end flaude: %w", err)
	}
	return nil
}
