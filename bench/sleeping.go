package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"flaudebot/sessions"
)

func reportSleeping(ctx context.Context, b bench) error {
	n := b.size(10_000, 200)
	fmt.Printf("\nThe reaper's pass of `flaudebot serve` over %d sleeping sessions, each with a stopped machine and a volume.\n", n)
	bin, remove, err := buildFlaudebot(ctx)
	if err != nil {
		return err
	}
	defer remove()
	got, err := b.compare(ctx, task{What: "sleeping", Binary: bin, Keys: n})
	if err != nil {
		return err
	}
	s := got[0]
	row("the first pass, which lists machines and volumes", s.of("first"), "s", 0, 0)
	row("  from the first call of Fly's to the last byte of the last answer", s.of("calls took"), "s", 0, 0)
	row("  lists of machines", s.of("machine.list"), "", 0, 0)
	row("  bytes of such a list", s.of("machine.list bytes"), "MB", 0, 0)
	row("  lists of volumes", s.of("volume.list"), "", 0, 0)
	row("  bytes of such a list", s.of("volume.list bytes"), "MB", 0, 0)
	row("  other calls of Fly's", s.of("other calls"), "", 0, 0)
	row("  calls that Fly would have refused", s.of("refused"), "", 0, 0)
	row("a pass between, without lists", s.of("between"), "s", 0, 0)
	row("resident memory of the bot before", s.of("before"), "MiB", 0, 0)
	row("  at its peak, in the first pass", s.of("peak"), "MiB", 0, 0)
	row("  half a minute later", s.of("after"), "MiB", 0, 0)
	return nil
}

// reapEvery is the time between two passes of the reaper here. The first comes so long after the start.
const reapEvery = 5 * time.Second

// sleeping has the bot look after many sessions that sleep.
func sleeping(ctx context.Context, t task) (figures, error) {
	rdb := client(t.Redis, 0, 1)
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	f, err := openFleet(script{})
	if err != nil {
		return nil, err
	}
	defer f.close()
	s, err := newSleepers(ctx, f, rdb)
	if err != nil {
		return nil, err
	}
	var threads []sessions.Thread
	for i := range t.Keys {
		threads = append(threads, sessions.Thread{Team: "T0LOCAL", Channel: "C0GENERAL", TS: fmt.Sprintf("17600%05d.000100", i)})
	}
	now := time.Now()
	const days = 20 // younger than sessions that are over soon
	if err := s.add(ctx, threads, func(i int) time.Time {
		return now.Add(-time.Hour - days*24*time.Hour*time.Duration(i)/time.Duration(len(threads)))
	}); err != nil {
		return nil, err
	}
	if err := s.check(ctx, len(threads)); err != nil {
		return nil, err
	}
	w, err := startLocal(ctx, t, nil)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	log, heard, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("hear the bot: %w", err)
	}
	defer func() { _, _ = log.Close(), heard.Close() }()
	w.heard = heard
	checked := len(f.answered())
	if err := w.serve(ctx, f.url, f.env(), "FLAUDEBOT_REAP_EVERY="+reapEvery.String(), "FLAUDEBOT_LOG_LEVEL=debug", "FLAUDEBOT_LOG_FORMAT=json"); err != nil {
		return nil, err
	}
	out := figures{}
	if out["before"], err = settledMemory(ctx, w.botPID(), reapEvery/2); err != nil {
		return nil, err
	}
	passes := readPasses(log)
	first, err := nextPass(ctx, passes, t.Keys)
	if err != nil {
		return nil, err
	}
	out["first"] = first.Seconds()
	out.noteCalls(f.answered()[checked:])
	_, refused := f.counted()
	for _, n := range refused {
		out["refused"] += float64(n)
	}
	between, err := nextPass(ctx, passes, t.Keys)
	if err != nil {
		return nil, err
	}
	out["between"] = between.Seconds()
	peak, err := status(w.botPID(), "VmHWM")
	if err != nil {
		return nil, err
	}
	out["peak"] = peak / 1024
	out["after"], err = settledMemory(ctx, w.botPID(), 30*time.Second)
	return out, err
}

// noteCalls takes the figures of the calls that the pass made.
func (out figures) noteCalls(calls []fleetCall) {
	var began, end time.Time
	for _, c := range calls {
		switch c.action {
		case "app.get": // the bot's own look at its start
			continue
		case "machine.list", "volume.list":
			out[c.action]++
			out[c.action+" bytes"] = float64(c.bytes) / 1e6
		default:
			out["other calls"]++
		}
		if began.IsZero() || c.began.Before(began) {
			began = c.began
		}
		if c.end.After(end) {
			end = c.end
		}
	}
	out["calls took"] = end.Sub(began).Seconds()
}

// settledMemory is the least resident memory of a process within a while, in MiB: the garbage collector and what gives memory back to the
// system have had their time by then.
func settledMemory(ctx context.Context, pid int, within time.Duration) (float64, error) {
	var seen []float64
	for end := time.Now().Add(within); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		kib, err := status(pid, "VmRSS")
		if err != nil {
			return 0, err
		}
		seen = append(seen, kib/1024)
	}
	if len(seen) == 0 {
		return 0, ctx.Err()
	}
	return slices.Min(seen), nil
}

// pass is what the reaper logs at its end.
type pass struct {
	Msg      string        `json:"msg"`
	Level    string        `json:"level"`
	Sessions int           `json:"sessions"`
	Duration time.Duration `json:"duration"` // ns
	line     string
}

// readPasses reads a log until it ends: the reaper's passes, and what is wrong.
func readPasses(log io.Reader) <-chan pass {
	out := make(chan pass, 1000)
	go func() {
		defer close(out)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			p := pass{line: lines.Text()}
			if json.Unmarshal(lines.Bytes(), &p) == nil && (p.Msg == "reaped" || p.Level == "WARN" || p.Level == "ERROR") {
				out <- p
			}
		}
	}()
	return out
}

// nextPass waits for a pass of the reaper over so many sessions. A warning before it is an error.
func nextPass(ctx context.Context, passes <-chan pass, n int) (time.Duration, error) {
	for {
		select {
		case p, ok := <-passes:
			switch {
			case !ok:
				return 0, fmt.Errorf("the reaper's pass: %w", errMissed)
			case p.Msg == "Redis settings": // this one keeps nothing on disk
				continue
			case p.Msg != "reaped":
				return 0, fmt.Errorf("the bot says: %s", p.line)
			case p.Sessions != n:
				return 0, fmt.Errorf("the reaper saw %d of %d sessions: %w", p.Sessions, n, errMissed)
			}
			return p.Duration, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(5 * time.Minute):
			return 0, fmt.Errorf("the reaper's pass: %w within 5 minutes", errMissed)
		}
	}
}
