package doctor

import (
	"math"
	"net/http"
	"slices"
	"sync"
	"time"
)

// timed is a transport that compares clocks by the Date of each answer.
type timed struct {
	next   http.RoundTripper // nil: the usual one
	clocks *clocks
}

// RoundTrip implements [http.RoundTripper].
func (t *timed) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	began := time.Now()
	res, err := next.RoundTrip(r)
	if err == nil {
		if at, dateErr := http.ParseTime(res.Header.Get("Date")); dateErr == nil {
			now := time.Now()
			t.clocks.note(at.Add(500 * time.Millisecond).Sub(began.Add(now.Sub(began) / 2))) // Date has no fraction: half a second is the best guess
		}
	}
	return res, err
}

// clocks collects by how much others are ahead of us.
type clocks struct {
	mu    sync.Mutex
	ahead []time.Duration // guarded by mu
}

func (c *clocks) note(ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = append(c.ahead, ahead)
}

// Offsets from which the clock is found wrong. Ages of messages and lives of sessions are told by it; TLS takes hours amiss.
const (
	offWarns = 5 * time.Second
	offBad   = time.Minute
)

// findings compares with what most others say, so that one wrong server does not make ours wrong.
func (c *clocks) findings() []Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ahead) == 0 {
		return nil // nobody answered: that is said elsewhere
	}
	slices.Sort(c.ahead)
	ahead := c.ahead[len(c.ahead)/2]
	seconds := int(math.Round(math.Abs(ahead.Seconds())))
	side := "behind"
	if ahead < 0 {
		side = "ahead of"
	}
	f := ok("the clock is right to about a second")
	const fix = "set the clock by NTP, such as `timedatectl set-ntp true`"
	switch {
	case ahead.Abs() >= offBad:
		f = bad(fix, "the clock is %d s %s that of the services asked", seconds, side)
	case ahead.Abs() >= offWarns:
		f = warn(fix, "the clock is %d s %s that of the services asked", seconds, side)
	}
	f.About = "clock"
	return []Finding{f}
}
