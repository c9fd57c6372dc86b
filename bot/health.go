package bot

import (
	"bytes"
	"time"
)

// Call is one call of a method of Slack's, as [Config.Observe] is told.
type Call struct {
	Method  string        // as Slack names it
	Status  int           // of the answer; 0: there was none. What our own limits held back for too long is 429
	Refused bool          // Slack's answer is that it is not ok
	Err     error         // why there was no answer
	Held    time.Duration // how long it waited for Slack's limits
	Took    time.Duration // from when it was sent until the answer was read; 0: it was not sent
}

// isRefusal reports whether an answer that begins so is one that something is not ok: Slack says that first.
func isRefusal(begin []byte) bool {
	return bytes.HasPrefix(bytes.Join(bytes.Fields(begin), nil), []byte(`{"ok":false`))
}

// Health is how this replica stands with Slack, by what it has heard: asking for it makes no call.
type Health struct {
	Sockets int       // that are up
	Since   time.Time // when the first of them came up, or the last one went; zero: there was none yet
	Heard   time.Time // when anything came over one, be it a ping; zero: nothing yet
	Event   time.Time // when something came that somebody did; zero: nothing yet
	// Waiting is how many calls wait for Slack's limits.
	Waiting int
}

// Health tells it.
func (b *Bot) Health() Health {
	at := func(ns int64) time.Time {
		if ns == 0 {
			return time.Time{}
		}
		return time.Unix(0, ns)
	}
	return Health{
		Sockets: int(b.sockets.Load()), Since: at(b.changed.Load()), Heard: at(b.heardAt.Load()), Event: at(b.eventAt.Load()), Waiting: b.out.waiting(),
	}
}
