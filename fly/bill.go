package fly

import (
	"slices"
	"time"
)

// What Fly charges, in US dollars, as published in autumn 2026 (https://fly.io/docs/about/pricing/) for its regions in the USA; others cost
// more. A month has 30 days. What is not here is not counted: traffic, snapshots beyond the 10 GB that are free, and
// addresses, of which session machines have none.
const (
	PriceSharedCPU      = 0.695 // a month of one shared CPU, while the machine is started
	PricePerformanceCPU = 21.0  // a month of one dedicated CPU, while the machine is started
	PriceMemoryGB       = 5.0   // a month of 1 GB of memory, while the machine is started
	PriceVolumeGB       = 0.15  // a month of 1 GB of a volume, in any state
	PriceRootfsGB       = 0.15  // a month of 1 GB of a stopped machine's image

	BillingMonth = 30 * 24 * time.Hour
)

// PricePerSecond is what a started machine of that size costs, by list prices.
func (g Guest) PricePerSecond() float64 {
	cpu := PriceSharedCPU
	if g.CPUKind == "performance" {
		cpu = PricePerformanceCPU
	}
	return (float64(g.CPUs)*cpu + float64(g.MemoryMB)/1024*PriceMemoryGB) / BillingMonth.Seconds()
}

// Span is a time from one moment to another.
type Span struct{ From, To time.Time }

// Runs are the times in which the machine was started, as its events tell, the oldest first; one that is started has run until now. Fly keeps
// about twenty events: a run whose beginning it has forgotten is not among them.
func (m *Machine) Runs(now time.Time) []Span {
	var out []Span
	var from, last time.Time
	for _, e := range slices.Backward(m.Events) {
		last = time.UnixMilli(e.Timestamp)
		switch {
		case e.Type == "exit", e.Status == "stopped", e.Status == "suspended", e.Status == "destroyed":
			if !from.IsZero() {
				out, from = append(out, Span{from, last}), time.Time{}
			}
		case e.Status == "started" && from.IsZero():
			from = last
		}
	}
	if !from.IsZero() {
		if slices.Contains([]string{"stopped", "suspended", "destroyed", "failed"}, m.State) {
			now = last // nobody knows better
		}
		if now.After(from) {
			out = append(out, Span{from, now})
		}
	}
	return out
}
