package fly_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"flaudebot/fly"
)

// TestPrices: sizes cost by the month what Fly's calculator says.
func TestPrices(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		guest fly.Guest
		month float64
	}{
		"the smallest":     {fly.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 256}, 1.945},
		"shared, 2 GB":     {fly.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 2048}, 10.695},
		"shared, two CPUs": {fly.Guest{CPUKind: "shared", CPUs: 2, MemoryMB: 4096}, 21.39},
		"one of its own":   {fly.Guest{CPUKind: "performance", CPUs: 1, MemoryMB: 2048}, 31},
		"the default":      {fly.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 4096}, 62},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.guest.PricePerSecond() * fly.BillingMonth.Seconds(); math.Abs(got-c.month) > 1e-9 {
				t.Errorf("a month of it costs $%f, want $%f", got, c.month)
			}
		})
	}
}

// TestRuns: when a machine ran is read off its events, which Fly lists with the newest first.
func TestRuns(t *testing.T) {
	t.Parallel()
	start := time.UnixMilli(1_700_000_000_000)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	ev := func(s int, kind, status string) fly.Event {
		return fly.Event{Type: kind, Status: status, Timestamp: at(s).UnixMilli()}
	}
	for name, c := range map[string]struct {
		state  string
		events []fly.Event // the oldest first
		want   []fly.Span
	}{
		"it never ran": {"stopped", []fly.Event{ev(0, "launch", "created"), ev(1, "launch", "stopped")}, nil},
		"it runs":      {"started", []fly.Event{ev(0, "launch", "created"), ev(1, "start", "starting"), ev(2, "start", "started")}, []fly.Span{{at(2), at(100)}}},
		"it ran twice, one by one": {"stopped", []fly.Event{
			ev(2, "start", "started"), ev(10, "stop", "stopping"), ev(12, "exit", "stopped"), ev(20, "start", "starting"), ev(21, "start", "started"), ev(31, "exit", "stopped"),
		}, []fly.Span{{at(2), at(12)}, {at(21), at(31)}}},
		"a start that failed is no run":                {"stopped", []fly.Event{ev(2, "start", "starting"), ev(3, "start", "failed"), ev(4, "exit", "stopped")}, nil},
		"a restart is two runs":                        {"started", []fly.Event{ev(2, "start", "started"), ev(4, "exit", "stopped"), ev(4, "restart", "starting"), ev(5, "start", "started")}, []fly.Span{{at(2), at(4)}, {at(5), at(100)}}},
		"a sleeper with its memory does not run":       {"suspended", []fly.Event{ev(2, "start", "started"), ev(4, "suspend", "suspended")}, []fly.Span{{at(2), at(4)}}},
		"a run whose beginning is forgotten is none":   {"stopped", []fly.Event{ev(12, "exit", "stopped"), ev(21, "start", "started"), ev(31, "exit", "stopped")}, []fly.Span{{at(21), at(31)}}},
		"an exit that Fly does not tell ends it early": {"stopped", []fly.Event{ev(2, "start", "started"), ev(9, "stop", "stopping")}, []fly.Span{{at(2), at(9)}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := fly.Machine{State: c.state, Events: slices.Clone(c.events)}
			slices.Reverse(m.Events)
			got := m.Runs(at(100))
			if !slices.EqualFunc(got, c.want, func(a, b fly.Span) bool { return a.From.Equal(b.From) && a.To.Equal(b.To) }) {
				t.Errorf("Runs = %v, want %v", got, c.want)
			}
		})
	}
}
