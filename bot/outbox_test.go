package bot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flaudebot/local/slack"
	"flaudebot/sessions"
)

// inFakeTime runs a test in time that passes when everybody waits.
func inFakeTime(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	})
}

// TestPace: one limit of Slack's.
func TestPace(t *testing.T) {
	t.Parallel()
	// A minute of Tier 3 is ten calls at once and forty more.
	inFakeTime(t, "no minute has more calls than are granted", func(t *testing.T) {
		p := newPace(tier3)
		var at []time.Time
		for range 200 {
			if err := p.wait(t.Context(), urgent); err != nil {
				t.Fatal(err)
			}
			at = append(at, time.Now())
		}
		for i := tier3; i < len(at); i++ {
			if in := at[i].Sub(at[i-tier3]); in < time.Minute {
				t.Fatalf("calls %d to %d came within %s", i-tier3, i, in)
			}
		}
		if took, most := at[199].Sub(at[0]), 190*1500*time.Millisecond+time.Second; took > most {
			t.Errorf("200 calls took %s, want at most %s", took, most)
		}
	})
	inFakeTime(t, "the urgent ones go first, and those of a kind as they came", func(t *testing.T) {
		p := newPace(tier3)
		for p.take(urgent) {
		}
		var mu sync.Mutex
		var got []string
		var all sync.WaitGroup
		for i, u := range []urgency{leisurely, usual, leisurely, urgent, usual, urgent} {
			all.Go(func() {
				if err := p.wait(t.Context(), u); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprintf("%d%d", u, i))
			})
			synctest.Wait()
		}
		all.Wait()
		if want := []string{"23", "25", "11", "14", "00", "02"}; !slices.Equal(got, want) {
			t.Errorf("urgency and number came as %v, want %v", got, want)
		}
	})
	inFakeTime(t, "who has time leaves some of a burst to the others", func(t *testing.T) {
		p := newPace(tier3)
		for u, want := range map[urgency]int{leisurely: 6, usual: 8, urgent: 10} {
			n := 0
			for p.take(u) {
				n++
			}
			if n != want {
				t.Errorf("%d calls at once of urgency %d, want %d", n, u, want)
			}
			time.Sleep(time.Minute)
		}
	})
	inFakeTime(t, "who gives up takes nothing away", func(t *testing.T) {
		p := newPace(tier3)
		for p.take(urgent) {
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := p.wait(ctx, urgent); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait = %v", err)
		}
		began := time.Now()
		if err := p.wait(t.Context(), urgent); err != nil || time.Since(began) > 1500*time.Millisecond {
			t.Errorf("wait = %v after %s", err, time.Since(began))
		}
	})
	inFakeTime(t, "Slack is left alone for as long as it wants, and asked less often for some minutes", func(t *testing.T) {
		p := newPace(tier3)
		p.slower(10 * time.Second)
		began := time.Now()
		calls := func() (n int) {
			for end := time.Now().Add(time.Minute); time.Now().Before(end); n++ {
				if err := p.wait(t.Context(), urgent); err != nil {
					t.Fatal(err)
				}
			}
			return n
		}
		if err := p.wait(t.Context(), urgent); err != nil || time.Since(began) < 10*time.Second {
			t.Errorf("wait = %v after %s", err, time.Since(began))
		}
		if n := calls(); n < 15 || n > 30 {
			t.Errorf("%d calls in the minute after that, want about half", n)
		}
		time.Sleep(10 * time.Minute)
		for p.take(urgent) {
		}
		if n := calls(); n < 38 || n > 41 {
			t.Errorf("%d calls a minute in the end, want 40", n)
		}
	})
}

// atHand is a Slack that is called without a network, in a tenth of a second each, and counts.
type atHand struct {
	slack http.Handler

	mu      sync.Mutex
	calls   map[string]int // guarded by mu; :: method
	refused map[string]int // guarded by mu; :: method → 429
}

func (a *atHand) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(100 * time.Millisecond):
	}
	rec := httptest.NewRecorder()
	r = r.Clone(context.WithoutCancel(r.Context()))
	r.RequestURI = ""
	a.slack.ServeHTTP(rec, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[path.Base(r.URL.Path)]++
	if rec.Code == http.StatusTooManyRequests {
		a.refused[path.Base(r.URL.Path)]++
	}
	return rec.Result(), nil
}

// TestOutbox: two hundred turns run at once, with news every second, at a Slack that keeps its limits. It never has to refuse a call; answers do
// not wait behind progress, and every live message goes on and is settled.
func TestOutbox(t *testing.T) {
	t.Parallel()
	const turns, begin, end = 200, 4 * time.Minute, 20 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		server, err := slack.New(slack.Config{RateLimits: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = server.Close() }()
		hand := &atHand{slack: server.Handler(), calls: map[string]int{}, refused: map[string]int{}}
		w := &workspace{t: t, base: "http://127.0.0.1", http: &http.Client{Transport: hand}, sessions: &fakeSessions{once: map[string]bool{}, seen: map[sessions.TurnID]bool{}}}
		b, err := New(t.Context(), Config{AppToken: "xapp-local", BotToken: "xoxb-local", APIURL: w.base + "/api/", HTTP: w.http})
		if err != nil {
			t.Fatal(err)
		}
		b.Use(w.sessions)
		began := time.Now()
		var mu sync.Mutex
		var took []time.Duration
		var edits int
		var all sync.WaitGroup
		for i := range turns {
			root := w.say(member, general, "", fmt.Sprintf("%sdo %d", mention, i))
			all.Go(func() {
				s, turn := turnOf(root, root)
				live, err := b.Begin(t.Context(), s, turn, false)
				if err != nil {
					t.Errorf("Begin = %v", err)
				}
				last := began.Add(begin + time.Duration(i)*(end-begin)/turns)
				for n := 0; time.Now().Before(last); n++ {
					b.Progress(t.Context(), s, turn, live, sessions.Progress{Step: sessions.StepRunning, Since: began, Tool: "Bash", On: fmt.Sprint("step ", n)})
					time.Sleep(time.Second)
				}
				if has(w.thread(general, root), "step ") {
					mu.Lock()
					edits++
					mu.Unlock()
				}
				asked := time.Now()
				if err := b.Finish(t.Context(), s, turn, live, outcome(fmt.Sprint("answer ", i)), false); err != nil {
					t.Errorf("Finish = %v", err)
				}
				mu.Lock()
				took = append(took, time.Since(asked))
				mu.Unlock()
				if thread := w.thread(general, root); !has(thread, fmt.Sprint("answer ", i)) || !has(thread, "*Done*") || has(thread, `"action_id":"stop"`) {
					t.Errorf("thread = %s, want an answer and a live message that is settled", thread)
				}
			})
		}
		all.Wait()
		b.Close()
		slices.Sort(took)
		t.Logf("answers after %s (median), %s (p99); calls %v", took[turns/2], took[turns*99/100], hand.calls)
		if most := 8 * time.Second; took[turns*99/100] > most {
			t.Errorf("an answer took %s, want at most %s", took[turns*99/100], most)
		}
		if edits < turns {
			t.Errorf("%d of %d live messages ever told news", edits, turns)
		}
		if len(hand.refused) > 0 {
			t.Errorf("Slack refused calls: %v", hand.refused)
		}
	})
}
