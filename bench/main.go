// Command bench measures what flaudebot's queue costs, beside asynq on the same Redis where there is something to compare, and
// prints a table with the targets. README.md says how it is measured and what came out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// task is one measurement. Each is taken in a process of its own.
type task struct {
	What, Impl, Redis   string
	Binary              string // of flaudebot
	Workers, Jobs, Keys int
	Sizes               []int // numbers of sleeping sessions
	Rounds, Seconds     int
	Python, Claude      string        // paths: an interpreter that has flaude, the real Claude Code
	Boot, Update, Exec  time.Duration // how much longer these take on the local Fly
	Generosity          int           // how many times what it promises the local Slack grants
}

// figures are what a measurement brought, by name.
type figures map[string]float64

func main() {
	if filepath.Base(os.Args[0]) == "claude" { // in a machine of the local Fly
		os.Exit(agent())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	redis.SetLogger(silent{})
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func run(ctx context.Context) error {
	one := flag.String("task", "", "take one measurement, given as JSON, and print its figures (what the other processes do)")
	rounds := flag.Int("rounds", 5, "rounds of each measurement; one more before them does not count")
	small := flag.Bool("small", false, "sizes that show only that everything works")
	only := flag.String("only", "", "what to measure, of "+strings.Join(names(), ", ")+"; all if empty")
	python := flag.String("flaude", "", "`path` of a Python interpreter that has flaude 0.6.1 installed; turns are measured without flaude if empty")
	claude := flag.String("claude", os.Getenv("FLAUDEBOT_TEST_CLAUDE"), "`path` of the real Claude Code; what needs it is left out if empty")
	flag.Parse()
	if *one != "" {
		return measureOne(ctx, *one)
	}
	if *only != "" && !slices.Contains(names(), *only) {
		return fmt.Errorf("-only %s: give one of %s", *only, strings.Join(names(), ", "))
	}
	addr, stop, err := startRedis(ctx)
	if err != nil {
		return err
	}
	defer stop()
	b := bench{redis: addr, rounds: *rounds, small: *small, python: *python, claude: *claude}
	for _, part := range parts() {
		if *only == "" || *only == part.name {
			if err := part.run(ctx, b); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	return nil
}

func names() []string {
	var out []string
	for _, p := range parts() {
		out = append(out, p.name)
	}
	return out
}

// measureOne is the work of a process that takes one measurement.
func measureOne(ctx context.Context, raw string) error {
	var t task
	if err := json.Unmarshal([]byte(raw), &t); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	measure, ok := map[string]func(context.Context, task) (figures, error){
		"throughput": throughput, "latency": latency, "idle": idle, "growth": growth, "memory": memory, "replica": replica, "acks": acks,
		"turns": turns, "warm": warm, "load": load, "sleeping": sleeping,
	}[t.What]
	if !ok {
		return fmt.Errorf("there is no measurement %q", t.What)
	}
	f, err := measure(ctx, t)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// bench is a series of measurements.
type bench struct {
	redis  string
	rounds int
	small  bool
	python string // with flaude; "": there is none
	claude string // "": there is none
}

// size is n, or a tiny number if only the working of things is to be shown.
func (b bench) size(n, tiny int) int {
	if b.small {
		return tiny
	}
	return n
}

// command is a process that takes a measurement.
func (b bench) command(ctx context.Context, t task) (*exec.Cmd, error) {
	t.Redis = b.redis
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "-task", string(raw))
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends what it has started
	cmd.WaitDelay = 30 * time.Second
	return cmd, nil
}

func (b bench) measure(ctx context.Context, t task) (figures, error) {
	cmd, err := b.command(ctx, t)
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("measure %s %s: %w", t.What, t.Impl, err)
	}
	f := figures{}
	if err := json.Unmarshal(out, &f); err != nil {
		return nil, fmt.Errorf("read the figures of %s: %w", t.What, err)
	}
	return f, nil
}

// series are the figures of each round.
type series []figures

// compare takes measurements side by side: all of them in each round, in a shuffled order, and drops the first round.
func (b bench) compare(ctx context.Context, tasks ...task) ([]series, error) {
	out := make([]series, len(tasks))
	for round := range b.rounds + 1 {
		for _, i := range rand.Perm(len(tasks)) { //nolint:gosec // an order
			f, err := b.measure(ctx, tasks[i])
			if err != nil {
				return nil, err
			}
			if round > 0 {
				out[i] = append(out[i], f)
			}
		}
	}
	return out, nil
}

// errMissed says that a figure could not be taken.
var errMissed = errors.New("no such figure")
