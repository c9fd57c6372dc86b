package bot

import (
	"context"
	"sync"
	"time"
)

// markEvery is how often marks are written.
const markEvery = 2 * time.Second

// marks are how far channels were taken in by this replica, until they are written. The next look begins at a mark, so one that would
// pass over what was missed is held back until that was looked for.
type marks struct {
	mu    sync.Mutex
	upTo  map[string]string // guarded by mu; :: channel → ts
	holds int               // guarded by mu; how often something may have been missed
	looks map[string]int    // guarded by mu; :: channel → the hold that was looked into since; "" → in every channel
}

func (m *marks) note(channel, ts string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.upTo == nil {
		m.upTo = map[string]string{}
	}
	m.upTo[channel] = max(m.upTo[channel], ts)
}

// hold keeps the marks of all channels from being written: something may have been missed.
func (m *marks) hold() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds++
}

// look begins a look for what was missed up to now.
func (m *marks) look() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holds
}

// seen says that a look has dealt with a channel, "" for all of them.
func (m *marks) seen(look int, channel string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.looks == nil || channel == "" {
		m.looks = map[string]int{"": m.looks[""]}
	}
	m.looks[channel] = look
}

// take returns the marks that may be written, and forgets them.
func (m *marks) take() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]string{}
	for channel, ts := range m.upTo {
		if max(m.looks[channel], m.looks[""]) >= m.holds {
			out[channel] = ts
			delete(m.upTo, channel)
		}
	}
	return out
}

// keepMarks writes the marks now and then, and at the end.
func (b *Bot) keepMarks(ctx context.Context) {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		b.writeMarks(ctx)
	}
}

func (b *Bot) writeMarks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markEvery)
	defer cancel()
	upTo := b.marks.take()
	if err := b.sessions.Mark(ctx, b.team, upTo); err != nil {
		b.log.DebugContext(ctx, "marks not written", "err", err)
		for channel, ts := range upTo {
			b.marks.note(channel, ts)
		}
	}
}
