package bot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
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
		p := newPace(tier3, shareOfBurst)
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
		p := newPace(tier3, shareOfBurst)
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
		p := newPace(tier3, shareOfBurst)
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
	inFakeTime(t, "in a channel, where Slack counts by the second, fewer go at once", func(t *testing.T) {
		out := newOutbox(http.DefaultClient, "https://slack.test/api/", 1)
		n := 0
		for out.pace("chat.postMessage", "C1").take(urgent) {
			n++
		}
		if n != 9 {
			t.Errorf("%d messages at once, want 9", n)
		}
	})
	inFakeTime(t, "who gives up takes nothing away", func(t *testing.T) {
		p := newPace(tier3, shareOfBurst)
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
		p := newPace(tier3, shareOfBurst)
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

// newHand returns a bot, without sockets, at such a Slack that keeps its limits.
func newHand(t *testing.T) (*atHand, *workspace, *Bot) {
	t.Helper()
	server, err := slack.New(slack.Config{RateLimits: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	hand := &atHand{slack: server.Handler(), calls: map[string]int{}, refused: map[string]int{}}
	w := &workspace{t: t, base: "http://127.0.0.1", http: &http.Client{Transport: hand}, sessions: &fakeSessions{
		once: map[string]bool{}, seen: map[sessions.TurnID]bool{}, statuses: map[sessions.Thread]sessions.Status{},
	}}
	b, err := New(t.Context(), Config{AppToken: "xapp-local", BotToken: "xoxb-local", APIURL: w.base + "/api/", HTTP: w.http})
	if err != nil {
		t.Fatal(err)
	}
	b.Use(w.sessions)
	return hand, w, b
}

// TestHeldBack: a call that was waited for before Slack wanted to be left alone is not made before it may.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	inFakeTime(t, "for as long as it wants", func(t *testing.T) {
		_, w, b := newHand(t)
		root := w.say(member, general, "", mention+"wait")
		_, turn := turnOf(root, root)
		ctx, err := b.out.ahead(t.Context(), "reactions.add")
		if err != nil {
			t.Fatal(err)
		}
		b.out.pace("reactions.add", "").slower(10 * time.Second)
		began := time.Now()
		b.react(ctx, turn, heardMark)
		if took := time.Since(began); took < 10*time.Second || !has(w.thread(general, root), `"eyes"`) {
			t.Errorf("after %s: %s", took, w.thread(general, root))
		}
		b.Close()
	})
}

// TestHeardLate: the mark of a message that was taken in does not come behind that of its answer, however long it has to wait.
func TestHeardLate(t *testing.T) {
	t.Parallel()
	inFakeTime(t, "it is left out when the answer is there", func(t *testing.T) { heardLate(t, true) })
	inFakeTime(t, "it is set when the answer is not", func(t *testing.T) { heardLate(t, false) })
}

func heardLate(t *testing.T, answered bool) {
	t.Helper()
	_, w, b := newHand(t)
	root := w.say(member, general, "", mention+"be quick")
	_, turn := turnOf(root, root)
	if !answered {
		w.sessions.set(func(f *fakeSessions) { f.statuses[turn.Thread] = sessions.Status{Running: &turn} })
	}
	for b.out.pace("reactions.add", "").take(urgent) {
	}
	began := time.Now()
	b.heard(t.Context(), turn)
	if marked := has(w.thread(general, root), `"eyes"`); marked == answered || time.Since(began) <= markLate {
		t.Errorf("after %s: marked = %v", time.Since(began), marked)
	}
	b.Close()
}

// TestOutbox: two hundred turns run at once, with news every second, at a Slack that keeps its limits. It never has to refuse a call; answers, a
// tenth of them as files, do not wait behind progress, nor do further messages, and every live message goes on and is settled.
func TestOutbox(t *testing.T) {
	t.Parallel()
	const turns, begin, end = 200, 4 * time.Minute, 20 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		hand, w, b := newHand(t)
		began := time.Now()
		var mu sync.Mutex
		took := map[string][]time.Duration{} // guarded by mu
		var edits int                        // guarded by mu
		timed := func(what string, do func()) {
			from := time.Now()
			do()
			mu.Lock()
			defer mu.Unlock()
			took[what] = append(took[what], time.Since(from))
		}
		var all sync.WaitGroup
		// run runs a turn from its message to its answer; what of it is timed is named by the kind of turn.
		run := func(kind string, i int, root, answer string, last time.Time) {
			s, turn := turnOf(root, root)
			w.sessions.set(func(f *fakeSessions) { f.statuses[turn.Thread] = sessions.Status{Session: &s, Running: &turn} })
			b.aside(t.Context(), func(ctx context.Context) { timed(kind+" heard", func() { b.heard(ctx, turn) }) })
			all.Go(func() {
				var live string
				var err error
				timed(kind+" shown", func() { live, err = b.Begin(t.Context(), s, turn, false) })
				if err != nil {
					t.Errorf("Begin = %v", err)
				}
				for n := 0; time.Now().Before(last); n++ {
					b.Progress(t.Context(), s, turn, live, sessions.Progress{Step: sessions.StepRunning, Since: began, Tool: "Bash", On: fmt.Sprint("step ", n)})
					time.Sleep(time.Second)
				}
				if has(w.thread(general, root), "step ") {
					mu.Lock()
					edits++
					mu.Unlock()
				}
				timed(kind+" answered", func() { err = b.Finish(t.Context(), s, turn, live, outcome(answer), false) })
				if err != nil {
					t.Errorf("Finish = %v", err)
				}
				w.sessions.set(func(f *fakeSessions) { delete(f.statuses, turn.Thread) })
				if thread := w.thread(general, root); !has(thread, fmt.Sprint("answer ", i)) || !has(thread, "*Done*") || has(thread, `"action_id":"stop"`) {
					t.Errorf("thread = %s, want an answer and a live message that is settled", thread)
				}
			})
		}
		for i := range turns {
			answer := fmt.Sprint("answer ", i)
			if i%10 == 0 {
				answer += strings.Repeat("\n\nAnd more of it, as it is.", 3000)
			}
			run("at once", i, w.say(member, general, "", fmt.Sprintf("%sdo %d", mention, i)), answer, began.Add(begin+time.Duration(i)*(end-begin)/turns))
		}
		for i := turns; time.Since(began) < end; i++ { // while they run
			time.Sleep(47 * time.Second)
			if time.Since(began) > begin {
				run("meanwhile", i, w.say(member, general, "", fmt.Sprintf("%sdo %d", mention, i)), fmt.Sprint("answer ", i), time.Now().Add(time.Minute))
			}
		}
		all.Wait()
		b.Close()
		for what, most := range map[string]time.Duration{
			"at once answered": 8 * time.Second, "meanwhile answered": 8 * time.Second, "meanwhile shown": 2 * time.Second, "meanwhile heard": 2 * time.Second,
		} {
			slices.Sort(took[what])
			median, p99 := took[what][len(took[what])/2], took[what][len(took[what])*99/100]
			t.Logf("%d times %s: after %s (median), %s (p99)", len(took[what]), what, median, p99)
			if p99 > most {
				t.Errorf("%s after %s, want at most %s", what, p99, most)
			}
		}
		t.Logf("calls: %v", hand.calls)
		if edits < turns {
			t.Errorf("%d of %d live messages ever told news", edits, turns)
		}
		if n := hand.calls["files.completeUploadExternal"]; n != turns/10 {
			t.Errorf("%d answers became files, want %d", n, turns/10)
		}
		if len(hand.refused) > 0 {
			t.Errorf("Slack refused calls: %v", hand.refused)
		}
	})
}

// TestCalls: whoever counts is told of each call, how long it was held back, and what it came to.
func TestCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answers := []string{`{"ok":true}`, `{ "ok": false, "error": "not_in_channel"}`, "429", "502", "drop"}
		client := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			time.Sleep(200 * time.Millisecond)
			next := answers[0]
			answers = answers[1:]
			w := httptest.NewRecorder()
			switch next {
			case "drop":
				return nil, errors.New("reset")
			case "429":
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(http.StatusTooManyRequests)
			case "502":
				w.WriteHeader(http.StatusBadGateway)
			default:
				_, _ = w.WriteString(next)
			}
			return w.Result(), nil
		})}
		out := newOutbox(client, "https://slack.test/api/", 1)
		var told []string
		out.observe = func(c Call) {
			told = append(told, fmt.Sprintf("%s %d refused %t lost %t held %s took %s", c.Method, c.Status, c.Refused, c.Err != nil, c.Held.Round(time.Second), c.Took))
		}
		call := func(ctx context.Context) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://slack.test/api/users.info?x=1", nil)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := out.Do(r); err == nil {
				_, _ = io.ReadAll(res.Body)
				_ = res.Body.Close()
				_ = res.Body.Close() // as slack-go may
			}
		}
		for range 3 {
			call(t.Context())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		call(ctx) // Slack wants to be left alone for longer
		if n := out.waiting(); n != 0 {
			t.Errorf("%d calls wait, want none", n)
		}
		call(t.Context())
		call(t.Context())
		want := []string{
			"users.info 200 refused false lost false held 0s took 200ms", "users.info 200 refused true lost false held 0s took 200ms", "users.info 429 refused false lost false held 0s took 200ms",
			"users.info 429 refused false lost false held 1s took 0s", "users.info 502 refused false lost false held 6s took 200ms", "users.info 0 refused false lost true held 1s took 200ms",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told of\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
		}
	})
}

// transport is a function that answers requests.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
