package bot

import (
	"fmt"
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

// TestOfferedOnce: Redis is asked once to take a mention, of which Slack sends two events.
func TestOfferedOnce(t *testing.T) {
	t.Parallel()
	w := asleep(t, nil)
	for i := range 5 {
		ts := w.say(member, general, "", fmt.Sprintf("%snumber %d", mention, i))
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
	}
	w.allAcked()
	if n, _ := w.deliveries()["events"].(float64); n < 10 {
		t.Fatalf("%v events, want two for each", n)
	}
	if n := w.sessions.count(func(f *fakeSessions) int { return f.offered }); n != 5 {
		t.Errorf("Redis was asked %d times to take 5 mentions", n)
	}
}

// TestLately: a sentence that an outage calls for is said to each person once in ten minutes.
func TestLately(t *testing.T) {
	t.Parallel()
	l := lately{while: 10 * time.Minute}
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
