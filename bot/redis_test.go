package bot

import (
	"testing"
	"time"
)

// TestTroubleIsSaid: whoever writes while Redis is away learns that the message is kept, and it is taken up. Commands and buttons: TestStoreAway.
func TestTroubleIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	w.sessions.set(func(f *fakeSessions) { f.away = true })
	ts := w.say(member, general, "", mention+"do not lose me")
	w.until("who wrote knows that it is kept", func() bool { return has(w.whispered(member, general, ""), sayKept) })
	w.sessions.set(func(f *fakeSessions) { f.away = false })
	w.until("it is taken up", func() bool { return w.sessions.turn(ts) != nil })
}

// TestLately: a sentence that an outage calls for is said to each person once in ten minutes.
func TestLately(t *testing.T) {
	t.Parallel()
	var l lately
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for _, c := range []struct {
		who   string
		after time.Duration
		want  bool
	}{
		{"U1", 0, true},
		{"U1", time.Minute, false},
		{"U2", time.Minute, true},
		{"U1", 10 * time.Minute, false},
		{"U1", 11 * time.Minute, true},
		{"U2", 10 * time.Minute, false},
		{"U1", 12 * time.Minute, false},
	} {
		if got := l.first(c.who, at.Add(c.after)); got != c.want {
			t.Errorf("%s after %s: first = %v, want %v", c.who, c.after, got, c.want)
		}
	}
}
