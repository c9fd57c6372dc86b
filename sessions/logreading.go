package sessions

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// reading is what was read of one turn in the log of its machine.
type reading struct {
	turn string
	from string // the log's token of the time at which the turn was handed over

	mu     sync.Mutex
	lines  *runner.LogReader    // guarded by mu
	next   string               // guarded by mu; the log's token
	reply  *runner.TakeReply    // guarded by mu; of the newest boot that was read
	boots  map[string]bool      // guarded by mu; those that told how they took the turn
	events map[int]runner.Event // guarded by mu
	end    *runner.LogEnd       // guarded by mu
	gap    time.Time            // guarded by mu; since when an event is missing before others; zero: none is
	used   time.Time            // guarded by ConfigHandover.mu
}

// idleReadings is how many readings are kept at least; of more, those go that nobody has used for forgottenReading.
const (
	idleReadings     = 100
	forgottenReading = 10 * time.Minute
)

// reading is that of what the machine's config hands over.
func (h *ConfigHandover) reading(at Target, mach *fly.Machine, had runner.Handed) (*reading, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if rd := h.readings[at.Machine]; rd != nil && rd.turn == had.Turn() && rd.lines.HasKey(had.Key) {
		rd.used = now
		return rd, nil
	}
	lines, err := runner.NewLogReader(had.Turn(), had.Key)
	if err != nil {
		return nil, err
	}
	from := handedAt(mach)
	rd := &reading{turn: had.Turn(), from: from, next: from, lines: lines, boots: map[string]bool{}, events: map[int]runner.Event{}, used: now}
	if h.readings == nil {
		h.readings = map[string]*reading{}
	}
	if len(h.readings) > idleReadings {
		maps.DeleteFunc(h.readings, func(_ string, old *reading) bool { return now.Sub(old.used) > forgottenReading })
	}
	h.readings[at.Machine] = rd
	return rd, nil
}

// find returns the reading of a turn; nil: the config does not hand it over.
func (h *ConfigHandover) find(ctx context.Context, at Target, turn string) (*reading, error) {
	h.mu.Lock()
	rd := h.readings[at.Machine]
	if rd != nil && rd.turn == turn {
		rd.used = time.Now()
		h.mu.Unlock()
		return rd, nil
	}
	h.mu.Unlock()
	mach, had, err := h.look(ctx, at)
	if err != nil || had.Turn() != turn {
		return nil, err
	}
	return h.reading(at, mach, had)
}

func (h *ConfigHandover) forget(at Target) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readings, at.Machine)
	delete(h.puts, at.Machine)
}

// clockSlack is by how much the clocks of the machine's host and of the log may differ.
const clockSlack = 5 * time.Second

// handedAt is the log's token of the time at which the machine's config was changed last: both are Fly's clock, in nanoseconds.
func handedAt(mach *fly.Machine) string {
	var at, oldest int64
	for _, e := range mach.Events {
		if e.Type == "update" || e.Type == "launch" {
			at = max(at, e.Timestamp)
		}
		if oldest == 0 || e.Timestamp < oldest {
			oldest = e.Timestamp
		}
	}
	if at == 0 { // Fly keeps few events
		at = oldest
	}
	if at == 0 {
		return ""
	}
	return strconv.FormatInt(time.UnixMilli(at).Add(-clockSlack).UnixNano(), 10)
}

// How often the log is read: news come in bursts.
const (
	pollFirst = 200 * time.Millisecond
	pollMost  = 3 * time.Second
)

// listen reads the log until it is enough, or for so long.
func (h *ConfigHandover) listen(ctx context.Context, at Target, rd *reading, limit time.Duration, enough func() bool) error {
	deadline := time.Now().Add(limit)
	for pause := pollFirst; !enough(); {
		more, err := h.poll(ctx, at, rd)
		if err != nil {
			return err
		}
		left := time.Until(deadline)
		switch {
		case enough() || left <= 0 && !more:
			return nil
		case more:
			pause = pollFirst
			continue
		}
		if err := pauseFor(ctx, min(pause, max(left, 0)), nil, true); err != nil {
			return err
		}
		pause = min(pause*3/2, pollMost)
	}
	return nil
}

// fullPage is how many lines a page of Fly's log has at most; a shorter one is the last.
const fullPage = 100

// poll reads one page; more: there is another.
func (h *ConfigHandover) poll(ctx context.Context, at Target, rd *reading) (more bool, err error) {
	rd.mu.Lock()
	token := rd.next
	rd.mu.Unlock()
	page, err := h.Fly.Logs(ctx, at.App, fly.Logs{Machine: at.Machine, NextToken: token})
	if err != nil {
		return false, err
	}
	rd.mu.Lock()
	defer rd.mu.Unlock()
	for _, line := range page.Entries {
		if m := rd.lines.Read(line.Message); m != nil {
			rd.apply(m)
		}
	}
	if rd.next == token && page.NextToken != "" { // else another has read meanwhile
		rd.next = page.NextToken
	}
	return len(page.Entries) >= fullPage && page.NextToken != token, nil
}

// apply takes a message in. rd.mu must be held.
func (rd *reading) apply(m *runner.LogMessage) {
	switch {
	case m.Taken != nil && !rd.boots[m.Boot]:
		rd.boots[m.Boot], rd.reply = true, m.Taken
	case m.Event != nil:
		rd.events[m.Event.N] = *m.Event
	case m.End != nil:
		rd.end = m.End
	}
}

// again has the log read from the turn's beginning: lines may have come behind the place that was read up to.
func (rd *reading) again() {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.next = rd.from
}

// forgetTaken has the next boot's word on the turn waited for.
func (rd *reading) forgetTaken() {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.reply = nil
}

func (rd *reading) taken() *runner.TakeReply {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.reply
}

func (rd *reading) outcome() *runner.LogEnd {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.end
}

// over reports whether nothing more is to come.
func (rd *reading) over() bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.isOver()
}

// isOver is over. rd.mu must be held.
func (rd *reading) isOver() bool {
	return rd.end != nil || rd.reply != nil && rd.reply.Status != runner.StatusAccepted && rd.reply.Status != runner.StatusDone
}

// gapWait is for how long an event is waited for that others have overtaken.
const gapWait = 3 * time.Second

// ready are the events after n that can be told: in order, and without those that are waited for. rd.mu must be held.
func (rd *reading) ready(n int) []runner.Event {
	numbers := slices.Sorted(maps.Keys(rd.events))
	var out []runner.Event
	for _, at := range numbers {
		if at <= n {
			continue
		}
		if at != n+1 && !rd.isOver() {
			if rd.gap.IsZero() {
				rd.gap = time.Now()
			}
			if time.Since(rd.gap) < gapWait {
				return out
			}
		}
		rd.gap = time.Time{}
		out, n = append(out, rd.events[at]), at
	}
	return out
}

func (rd *reading) news(after int) bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.isOver() || len(rd.ready(after)) > 0
}

// status is what is known of the turn. rd.mu must be held.
func (rd *reading) status() runner.Status {
	switch {
	case rd.end != nil:
		return runner.StatusDone
	case rd.reply == nil || rd.reply.Status == runner.StatusAccepted || rd.reply.Status == runner.StatusDone: // its outcome is to come
		return runner.StatusRunning
	}
	return rd.reply.Status
}

func (rd *reading) since(after int) runner.EventsReply {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	reply := runner.EventsReply{Status: rd.status(), Events: rd.ready(after)}
	if rd.end != nil {
		reply.Outcome, reply.Text = &rd.end.Outcome, rd.end.Text
	}
	return reply
}

func (rd *reading) result(r runner.ResultRequest) runner.ResultReply {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	reply := runner.ResultReply{Status: rd.status()}
	if rd.end == nil {
		return reply
	}
	reply.Outcome = &rd.end.Outcome
	if r.Payload {
		reply.Data = rd.end.Data[min(max(r.Offset, 0), int64(len(rd.end.Data))):]
	} else {
		reply.Text = rd.end.Text[min(max(r.Offset, 0), int64(len(rd.end.Text))):]
	}
	return reply
}
