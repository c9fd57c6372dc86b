package main

import (
	"context"
	"fmt"
	"time"
)

func reportAcks(ctx context.Context, b bench) error {
	fmt.Println("\nAcks of 1,000 events that the local Slack sends at once to `flaudebot serve`, by its clock: 500 mentions, each the start of a session.")
	bin, remove, err := buildFlaudebot(ctx)
	if err != nil {
		return err
	}
	defer remove()
	got, err := b.compare(ctx, task{What: "acks", Binary: bin, Jobs: b.size(500, 20)})
	if err != nil {
		return err
	}
	row("p50", got[0].of("p50"), "ms", 0, 0)
	row("p99", got[0].of("p99"), "ms", 0, 100)
	row("slowest", got[0].of("max"), "ms", 0, 0)
	row("events that were sent again", got[0].of("again"), "", 0, 0)
	return nil
}

// acks has the local Slack send its events at once, two for each mention, and reads how long each took to be acked.
func acks(ctx context.Context, t task) (figures, error) {
	rdb := client(t.Redis, 0, 1)
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	w, err := startLocal(ctx, t, nil)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	if err := w.serve(ctx, w.fly, "FLAUDEBOT_MAX_PARALLEL=1"); err != nil { // machines do not run where the bot does
		return nil, err
	}
	// Who asks is known by then, as people are who ask now and then.
	if _, err := w.say(ctx, "", "<@U0FLAUDE> good morning"); err != nil {
		return nil, err
	}
	if _, err := w.acked(ctx, 2); err != nil {
		return nil, err
	}
	if err := w.post(ctx, "/local/trouble", map[string]any{"hold": true}, nil); err != nil {
		return nil, err
	}
	for i := range t.Jobs {
		if _, err := w.say(ctx, "", fmt.Sprintf("<@U0FLAUDE> remember number %d", i)); err != nil {
			return nil, err
		}
	}
	if err := w.post(ctx, "/local/trouble", map[string]any{"release": "kept"}, nil); err != nil {
		return nil, err
	}
	return w.acked(ctx, 2*t.Jobs+2)
}

// acked waits until so many events were acked.
func (w *world) acked(ctx context.Context, n int) (figures, error) {
	for end := time.Now().Add(time.Minute); ; {
		var d struct {
			Acks  float64 `json:"acks"`
			Again float64 `json:"again"`
			P50   float64 `json:"ack_p50_ms"`
			P99   float64 `json:"ack_p99_ms"`
			Max   float64 `json:"ack_max_ms"`
		}
		if err := w.post(ctx, "/local/deliveries", map[string]any{}, &d); err != nil {
			return nil, err
		}
		if int(d.Acks) >= n {
			return figures{"p50": d.P50, "p99": d.P99, "max": d.Max, "again": d.Again}, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%.0f of %d events were acked within a minute", d.Acks, n)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
