package monitor

import (
	"context"
	"errors"
	"sync"
	"time"

	"flaudebot/bot"
	"flaudebot/fly"
	"flaudebot/queue"
	"flaudebot/sessions"
)

// Queue is what is asked of the queue: [queue.Queue].
type Queue interface {
	Load(ctx context.Context) (queue.Load, error)
	Health() queue.Health
}

// Sessions is what is asked of the sessions: [sessions.Service].
type Sessions interface {
	Live(ctx context.Context) (int64, error)
}

// Front is what is asked of Slack's side: [bot.Bot].
type Front interface {
	Health() bot.Health
}

// Monitor is told what a replica does, and tells it. It is a [sessions.Observer].
type Monitor struct {
	version string
	began   time.Time
	metrics *metrics

	mu   sync.Mutex
	know parts    // guarded by mu
	fly  flyState // guarded by mu
}

// parts are those that a replica has by now; nil: not yet.
type parts struct {
	queue    Queue
	since    time.Time // since when there is one
	sessions Sessions
	front    Front
}

// New returns a monitor of a replica that begins now.
func New(version string) *Monitor {
	m := &Monitor{version: version, began: time.Now(), metrics: newMetrics(version)}
	m.metrics.registry.MustRegister(scraped{m})
	return m
}

// UseQueue has the monitor look at a queue: one that has reached its Redis.
func (m *Monitor) UseQueue(q Queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.know.queue, m.know.since = q, time.Now()
}

// UseFront has it look at Slack's side.
func (m *Monitor) UseFront(f Front) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.know.front = f
}

// UseSessions has it look at the sessions.
func (m *Monitor) UseSessions(s Sessions) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.know.sessions = s
}

func (m *Monitor) parts() parts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.know
}

// TurnClaimed implements [sessions.Observer].
func (m *Monitor) TurnClaimed(_ sessions.Turn, takeover bool) {
	m.metrics.running.Inc()
	if takeover {
		m.metrics.takeovers.Inc()
	}
}

// TurnLeft implements [sessions.Observer].
func (m *Monitor) TurnLeft(_ sessions.Turn, why sessions.Left) {
	m.metrics.running.Dec()
	m.metrics.left.WithLabelValues(string(why)).Inc()
	if why == sessions.LeftLost {
		m.metrics.lost.Inc()
	}
}

// TurnSpent implements [sessions.Observer].
func (m *Monitor) TurnSpent(_ sessions.Turn, s sessions.Step, d time.Duration) {
	m.metrics.stepSeconds.WithLabelValues(string(s)).Observe(d.Seconds())
}

// TurnEnded implements [sessions.Observer].
func (m *Monitor) TurnEnded(t sessions.Turn, o sessions.Outcome, took time.Duration) {
	outcome := string(o.Failure)
	if outcome == "" {
		outcome = "ok"
	}
	m.metrics.turns.WithLabelValues(string(t.Kind), outcome, laneOf(o)).Inc()
	m.metrics.turnSeconds.WithLabelValues(string(t.Kind), laneOf(o)).Observe(took.Seconds())
}

// Charged implements [sessions.Observer].
func (m *Monitor) Charged(c sessions.Cost) {
	m.metrics.modelUSD.Add(c.ModelUSD)
	m.metrics.machineSeconds.Add(c.MachineSeconds)
	m.metrics.machineUSD.Add(c.MachineUSD)
	m.metrics.diskUSD.Add(c.DiskUSD)
}

// SlackCalled is for [bot.Config.Observe].
func (m *Monitor) SlackCalled(c bot.Call) {
	m.metrics.slackCalls.WithLabelValues(c.Method, slackResult(c)).Inc()
	m.metrics.slackHeld.Observe(c.Held.Seconds())
	if c.Took > 0 {
		m.metrics.slackSeconds.WithLabelValues(c.Method).Observe(c.Took.Seconds())
	}
}

// FlyCalled is for [fly.Config.Observe].
func (m *Monitor) FlyCalled(c fly.Call) {
	m.metrics.flyCalls.WithLabelValues(c.Action, flyResult(c.Err)).Inc()
	m.metrics.flyHeld.Observe(c.Held.Seconds())
	if c.Took > 0 {
		m.metrics.flySeconds.WithLabelValues(c.Action).Observe(c.Took.Seconds())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fly.hear(c, time.Now())
}

// flyState is what Fly's latest answers say of it.
type flyState struct {
	state string
	since time.Time // since when
	heard time.Time // when it answered last, whatever it said; zero: never
}

// hear takes in what a request came to. One that was not sent, or that nobody waited for, says nothing.
func (f *flyState) hear(c fly.Call, now time.Time) {
	var e *fly.Error
	state := stateOK
	switch {
	case c.Took == 0, errors.Is(c.Err, context.Canceled), errors.Is(c.Err, fly.ErrUnsent):
		return
	case errors.Is(c.Err, fly.ErrUnauthorized), errors.Is(c.Err, fly.ErrForbidden) && c.Action != "exec": // a token may do all but that
		state = stateRefused
	case errors.Is(c.Err, fly.ErrUnavailable):
		state = stateAway
	}
	if c.Err == nil || errors.As(c.Err, &e) && e.Status != 0 {
		f.heard = now
	}
	if f.state != state {
		f.state, f.since = state, now
	}
}
