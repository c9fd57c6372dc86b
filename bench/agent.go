package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"flaudebot/local/claude"
)

// agentTimes is the file, in Claude's own folder, in which the scripted agent notes how long its turns took.
const agentTimes = "bench-turns"

// agentTurn is a turn of the agent: from the start of its process, or from the prompt in one that is kept, to its result. In µs.
type agentTurn struct{ Began, Ended int64 }

// agent is the claude command of a measurement: the scripted one, with a clock.
func agent() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c := &agentClock{began: time.Now()}
	return claude.Main(ctx, os.Args[1:], os.Environ(), heard{os.Stdin, c}, told{os.Stdout, c}, os.Stderr)
}

// agentClock times one turn after the other.
type agentClock struct {
	mu    sync.Mutex
	began time.Time // guarded by mu; zero between turns
}

// heard is what the agent is told: a prompt begins a turn.
type heard struct {
	io.Reader
	clock *agentClock
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if bytes.Contains(p[:n], []byte(`"type":"user"`)) {
		h.clock.begin()
	}
	return n, err
}

// told is what the agent says: a result ends a turn.
type told struct {
	io.Writer
	clock *agentClock
}

func (t told) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	if bytes.Contains(p, []byte(`"type":"result"`)) {
		t.clock.note()
	}
	return n, err
}

func (c *agentClock) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.IsZero() {
		c.began = time.Now()
	}
}

func (c *agentClock) note() {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(os.Getenv("CLAUDE_CONFIG_DIR"), agentTimes), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // read by who measures
	if err == nil {
		err = json.NewEncoder(f).Encode(agentTurn{c.began.UnixMicro(), time.Now().UnixMicro()})
		_ = f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the turn's time was not noted:", err)
	}
	c.began = time.Time{}
}

// agentTime is how long agents ran between two times, by the notes on the volumes.
func (w *world) agentTime(from, to time.Time) (time.Duration, error) {
	files, err := filepath.Glob(filepath.Join(w.dir, "fly", "volumes", "*", "claude", agentTimes))
	if err != nil {
		return 0, fmt.Errorf("look for the agents' notes: %w", err)
	}
	var sum time.Duration
	for _, name := range files {
		raw, err := os.ReadFile(name) //nolint:gosec // found here
		if err != nil {
			return 0, fmt.Errorf("read an agent's notes: %w", err)
		}
		for notes := json.NewDecoder(bytes.NewReader(raw)); ; {
			var t agentTurn
			if err := notes.Decode(&t); err == io.EOF {
				break
			} else if err != nil {
				return 0, fmt.Errorf("read an agent's notes: %w", err)
			}
			began, ended := time.UnixMicro(t.Began), time.UnixMicro(t.Ended)
			if !ended.Before(from) && !began.After(to) {
				sum += ended.Sub(began)
			}
		}
	}
	return sum, nil
}
