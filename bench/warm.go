package main

import (
	"context"
	"fmt"
)

func reportWarm(ctx context.Context, b bench) error {
	fmt.Println("\nFollow-ups with the real Claude Code against a scripted Messages API, from the message to the answer by the local Slack's clock.")
	if b.claude == "" {
		fmt.Println("Left out: give the real Claude Code with -claude.")
		return nil
	}
	bin, remove, err := buildFlaudebot(ctx)
	if err != nil {
		return err
	}
	defer remove()
	got, err := b.compare(ctx, task{What: "warm", Binary: bin, Claude: b.claude})
	if err != nil {
		return err
	}
	row("cold: the machine is stopped (its boot takes no time here)", got[0].of("start"), "ms", 0, 0)
	row("the machine runs, Claude Code is a new process", got[0].of("runner"), "ms", 0, 0)
	row("warm: the Claude Code that is still there", got[0].of("process"), "ms", 0, 0)
	row("  warm, of cold, within a round", ratio(got[0].of("process"), got[0].of("start")), "x", 0, 0)
	return nil
}

// warm times a follow-up for each thing that may still be there of the turn before.
func warm(ctx context.Context, t task) (figures, error) {
	m, err := measure(ctx, t, t.Claude, 0)
	if err != nil {
		return nil, err
	}
	defer m.stop()
	if err := m.serve(ctx, m.calls.url, "FLAUDEBOT_LINGER=5m"); err != nil {
		return nil, err
	}
	thread, _, err := m.exchange(ctx, "", "<@U0FLAUDE> say: one", "machine")
	if err != nil {
		return nil, err
	}
	for _, turn := range []struct{ text, lane string }{
		{"say: two", "process"},
		{"model:sonnet say: three", "runner"}, // other settings are for another process
		{"", ""},
		{"model:sonnet say: four", "start"},
	} {
		if err := m.calls.rest(ctx); err != nil {
			return nil, err
		}
		if turn.text == "" {
			if err := m.stopMachine(ctx); err != nil {
				return nil, err
			}
			continue
		}
		_, took, err := m.exchange(ctx, thread, turn.text, turn.lane)
		if err != nil {
			return nil, err
		}
		m.figures[turn.lane] = float64(took.to.Sub(took.from).Microseconds()) / 1000
	}
	return m.figures, nil
}
