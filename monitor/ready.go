package monitor

import (
	"cmp"
	"time"
)

// States of a part.
const (
	stateOK      = "ok"
	stateUnknown = "unknown" // it was not asked yet
	stateAway    = "away"    // it does not answer, or fails
	stateRefused = "refused" // it does not take our credential
)

// outageGrace is for how long an outage of Slack keeps a replica from being ready. It is shorter than what `fly deploy` waits for (5 minutes): a
// release that mends something must come through while Slack is away, and one that does not find Slack for a reason of its own is held up meanwhile.
const outageGrace = 3 * time.Minute

// Readiness is what /readyz tells, as JSON.
type Readiness struct {
	Ready   bool   `json:"ready"`
	Why     string `json:"why,omitempty"` // it is not
	Version string `json:"version"`
	Parts   struct {
		Redis Part `json:"redis"`
		Slack Part `json:"slack"`
		Fly   Part `json:"fly"`
	} `json:"parts"`
}

// Part is how one of those stands that a replica depends on. Where Counts is false the replica is ready without it.
type Part struct {
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Counts bool      `json:"counts"`
	Code   string    `json:"code,omitempty"` // of Redis's trouble: docs/operations.md has the list

	Sockets   *int       `json:"sockets,omitempty"`    // of Slack, that are up
	LastHeard *time.Time `json:"last_heard,omitempty"` // when it said something last, be it a ping
	LastEvent *time.Time `json:"last_event,omitempty"` // when somebody did something in Slack last
}

// Ready tells whether the replica is ready at now. Redis counts, and always: without it nothing can be accepted. Slack counts until it has been away for
// three minutes. Fly counts only while it refuses the token, which waiting does not mend: without Fly, messages are accepted and wait.
func (m *Monitor) Ready(now time.Time) Readiness {
	m.mu.Lock()
	know, ofFly := m.know, m.fly
	m.mu.Unlock()
	r := Readiness{Version: m.version}
	redis, slack, fly := &r.Parts.Redis, &r.Parts.Slack, &r.Parts.Fly
	*redis = Part{State: stateUnknown, Since: m.began, Counts: true}
	if know.queue != nil {
		h := know.queue.Health()
		redis.State, redis.Code = stateOK, h.Trouble
		redis.Since = know.since // it answered then
		if !h.Since.IsZero() {
			redis.Since = h.Since
		}
		if h.Trouble != "" {
			redis.State = stateAway
		}
	}
	*slack = Part{State: stateUnknown, Since: m.began}
	if know.front != nil {
		h := know.front.Health()
		slack.Sockets, slack.LastHeard, slack.LastEvent = &h.Sockets, timeOrNil(h.Heard), timeOrNil(h.Event)
		switch {
		case h.Sockets > 0:
			slack.State, slack.Since = stateOK, h.Since
		case !h.Since.IsZero():
			slack.State, slack.Since = stateAway, h.Since
		}
	}
	slack.Counts = now.Sub(slack.Since) < outageGrace || slack.State == stateOK
	*fly = Part{State: cmp.Or(ofFly.state, stateUnknown), Since: m.began, LastHeard: timeOrNil(ofFly.heard)}
	if !ofFly.since.IsZero() {
		fly.Since = ofFly.since
	}
	fly.Counts = fly.State == stateRefused
	switch {
	case redis.State == stateUnknown:
		r.Why = "Redis has not answered yet"
	case redis.State != stateOK:
		r.Why = "Redis does not answer as it should: " + redis.Code
	case fly.Counts:
		r.Why = "Fly refuses FLY_API_TOKEN"
	case slack.Counts && slack.State != stateOK:
		r.Why = "no socket to Slack is up"
	}
	r.Ready = r.Why == ""
	return r
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Liveness is what /healthz tells, as JSON.
type Liveness struct {
	Alive   bool   `json:"alive"`
	Why     string `json:"why,omitempty"` // it is not
	Version string `json:"version"`
	// Round is when the loop that keeps the leases of turns went round last; null: it does not run yet.
	Round *time.Time `json:"round"`
}

// stuckAfter is for how long that loop may be late.
const stuckAfter = time.Minute

// Alive tells whether the process lives at now and is not stuck: the loop that keeps the leases goes round every third of FLAUDEBOT_LEASE, whether
// Redis answers or not, and each time needs the lock that all work on turns needs. Where it is three rounds and a minute late only a restart helps.
func (m *Monitor) Alive(now time.Time) Liveness {
	l := Liveness{Alive: true, Version: m.version}
	if q := m.parts().queue; q != nil {
		h := q.Health()
		if l.Round = timeOrNil(h.Round); l.Round != nil && now.Sub(h.Round) > 3*h.Every+stuckAfter {
			l.Alive, l.Why = false, "the loop that keeps the leases is stuck"
		}
	}
	return l
}
