package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"flaudebot/bot"
	"flaudebot/fly"
	"flaudebot/queue"
	"flaudebot/sessions"
)

// someQueue is one of a certain health; its Redis tells of no load.
type someQueue queue.Health

func (q someQueue) Health() queue.Health                     { return queue.Health(q) }
func (q someQueue) Load(context.Context) (queue.Load, error) { return queue.Load{}, errors.New("away") }
func (q someQueue) Live(context.Context) (int64, error)      { return 0, errors.New("away") }

// someFront is Slack's side, of a certain health.
type someFront bot.Health

func (f someFront) Health() bot.Health { return bot.Health(f) }

// TestReady: what counts for a replica's readiness, and what does not.
func TestReady(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	up, well := someFront{Sockets: 2, Since: ago(time.Hour)}, someQueue{Since: ago(time.Hour)}
	refused := fly.Call{Action: "apps", Took: 1, Err: flyError(t, http.StatusUnauthorized)}
	for name, c := range map[string]struct {
		queue Queue
		front Front
		fly   []fly.Call
		began time.Duration // ago
		why   string        // "": it is ready
	}{
		"it is ready when Redis answers and a socket is up":       {well, up, nil, time.Hour, ""},
		"it is not before Redis has answered, however long":       {nil, nil, nil, time.Hour, "Redis has not answered yet"},
		"it is not while Redis is in trouble, however long":       {someQueue{Trouble: "OOM", Since: ago(time.Hour)}, up, nil, 2 * time.Hour, "Redis does not answer as it should: OOM"},
		"it is not when it just began and has no socket":          {well, someFront{}, nil, time.Minute, "no socket to Slack is up"},
		"it is not while Slack is not asked yet who it is":        {well, nil, nil, time.Minute, "no socket to Slack is up"},
		"it is not when Slack went away just now":                 {well, someFront{Since: ago(time.Minute)}, nil, time.Hour, "no socket to Slack is up"},
		"it is when Slack is away for long":                       {well, someFront{Since: ago(4 * time.Minute)}, nil, time.Hour, ""},
		"it is when Slack was never there, for long":              {well, nil, nil, 4 * time.Minute, ""},
		"it is when Fly is away":                                  {well, up, []fly.Call{{Action: "list", Took: 1, Err: flyError(t, http.StatusBadGateway)}}, time.Hour, ""},
		"it is not while Fly refuses the token":                   {well, up, []fly.Call{refused}, time.Hour, "Fly refuses FLY_API_TOKEN"},
		"it is again when Fly takes it":                           {well, up, []fly.Call{refused, {Action: "list", Took: 1}}, time.Hour, ""},
		"it is when Fly refuses exec alone: there is another way": {well, up, []fly.Call{{Action: "exec", Took: 1, Err: flyError(t, http.StatusForbidden)}}, time.Hour, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := New("v1")
			m.began = ago(c.began)
			if c.queue != nil {
				m.UseQueue(c.queue)
			}
			if c.front != nil {
				m.UseFront(c.front)
			}
			for _, call := range c.fly {
				m.FlyCalled(call)
			}
			if r := m.Ready(now); r.Why != c.why || r.Ready != (c.why == "") {
				t.Errorf("Ready = %+v, want why %q", r, c.why)
			}
			w := httptest.NewRecorder()
			m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
			want := http.StatusServiceUnavailable
			if c.why == "" {
				want = http.StatusOK
			}
			if w.Code != want || !json.Valid(w.Body.Bytes()) {
				t.Errorf("/readyz = %d %s, want %d", w.Code, w.Body, want)
			}
		})
	}
}

// TestAlive: a process is stuck when the loop of its leases is; not when it waits for others.
func TestAlive(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		queue Queue
		alive bool
	}{
		"it lives while it waits for Redis at its start":      {nil, true},
		"it lives before its loop runs":                       {someQueue{Every: 5 * time.Second}, true},
		"it lives when Redis is away and the loop goes round": {someQueue{Every: 5 * time.Second, Round: now.Add(-5 * time.Second), Trouble: "NETWORK"}, true},
		"it lives when a long lease makes rounds rare":        {someQueue{Every: 200 * time.Second, Round: now.Add(-5 * time.Minute)}, true},
		"it is stuck when the loop has not gone round":        {someQueue{Every: 5 * time.Second, Round: now.Add(-76 * time.Second)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := New("v1")
			if c.queue != nil {
				m.UseQueue(c.queue)
			}
			if l := m.Alive(now); l.Alive != c.alive || (l.Why == "") != c.alive {
				t.Errorf("Alive = %+v, want %t", l, c.alive)
			}
		})
	}
}

// flyError is what the client makes of an answer with a status.
func flyError(t *testing.T, status int) error {
	t.Helper()
	client, err := fly.New(fly.Config{Token: "t", Unlimited: true, Tries: 1, HTTP: &http.Client{Transport: answers(status)}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Machine(t.Context(), "app", "machine")
	return err
}

// answers is a server that has one answer.
type answers int

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.WriteHeader(int(a))
	res := w.Result()
	res.Request = r
	return res, nil
}

// TestResults: calls are sorted into few words.
func TestResults(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]bot.Call{
		"ok": {Status: 200}, "refused": {Status: 200, Refused: true}, "limited": {Status: 429}, "error": {Status: 502},
		"away": {Err: errors.New("reset")}, "unsent": {Err: fly.ErrUnsent},
	} {
		if got := slackResult(c); got != want {
			t.Errorf("slackResult(%+v) = %s, want %s", c, got, want)
		}
	}
	for want, err := range map[string]error{
		"ok": nil, "limited": flyError(t, 429), "notfound": flyError(t, 404), "unauthorized": flyError(t, 401), "unavailable": flyError(t, 503),
		"invalid": flyError(t, 400), "refused": errors.New("strange"), "cancelled": context.Canceled,
	} {
		if got := flyResult(err); got != want {
			t.Errorf("flyResult(%v) = %s, want %s", err, got, want)
		}
	}
}

// TestScrapeWithoutRedis: what Redis would have told is left out, and all else is there.
func TestScrapeWithoutRedis(t *testing.T) {
	t.Parallel()
	m := New("v1")
	m.UseQueue(someQueue{Trouble: "NETWORK"})
	m.UseSessions(someQueue{})
	m.TurnEnded(sessions.Turn{Kind: sessions.KindTurn}, sessions.Outcome{}, time.Second)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	page := w.Body.String()
	if w.Code != http.StatusOK || strings.Contains(page, "flaudebot_queue_") || !strings.Contains(page, `flaudebot_turns_total{kind="turn",lane="none",outcome="ok"} 1`) ||
		!strings.Contains(page, `flaudebot_up{part="redis"} 0`) {
		t.Errorf("/metrics = %d\n%s", w.Code, page)
	}
}
