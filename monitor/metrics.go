package monitor

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"flaudebot/bot"
	"flaudebot/fly"
	"flaudebot/queue"
	"flaudebot/sessions"
)

// Labels have few values each: kinds, failures, lanes, steps, methods and actions are words of our own code, results are of this file. No label names
// a thread, a channel, a person, a session or a machine.
type metrics struct {
	registry *prometheus.Registry

	turns       *prometheus.CounterVec
	turnSeconds *prometheus.HistogramVec
	stepSeconds *prometheus.HistogramVec
	running     prometheus.Gauge
	left        *prometheus.CounterVec
	lost        prometheus.Counter
	takeovers   prometheus.Counter

	modelUSD, machineSeconds, machineUSD, diskUSD prometheus.Counter

	slackCalls, flyCalls     *prometheus.CounterVec
	slackSeconds, flySeconds *prometheus.HistogramVec
	slackHeld, flyHeld       prometheus.Histogram
}

// newMetrics has a registry of its own.
func newMetrics(version string) *metrics {
	// From a word with Claude to a day's work, and from a call on a good day to one that was given up.
	long := []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200}
	step := []float64{.05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 3600}
	call := []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	m := &metrics{registry: prometheus.NewRegistry()}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	counter := func(name, help string) prometheus.Counter { return counters(name, help).WithLabelValues() }
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		m.registry.MustRegister(h)
		return h
	}
	m.turns = counters("flaudebot_turns_total", "Turns that were answered, by their outcome: ok, or what failed.", "kind", "outcome", "lane")
	m.turnSeconds = histograms("flaudebot_turn_seconds", "From when a turn was claimed first until its answer stood in the thread.", long, "kind", "lane")
	m.stepSeconds = histograms("flaudebot_turn_step_seconds", "What turns spent their time with; queued: until somebody worked on them, waiting: for something outside.", step, "step")
	m.left = counters("flaudebot_turns_left_total", "Times that this replica stopped to work on a turn: done, lost, handed, put_off.", "why")
	m.lost = counter("flaudebot_leases_lost_total", "Turns that this replica worked on when their lease ran out, or Redis gave them to another.")
	m.takeovers = counter("flaudebot_takeovers_total", "Turns that this replica went on with where another one had them.")
	m.modelUSD = counter("flaudebot_model_usd_total", "What Claude has cost, as Claude Code reports it; of what this replica has added up.")
	m.machineSeconds = counter("flaudebot_machine_seconds_total", "For how long session machines ran; of what this replica has added up.")
	m.machineUSD = counter("flaudebot_machine_usd_total", "What that costs, by Fly's list prices.")
	m.diskUSD = counter("flaudebot_disk_usd_total", "What volumes and images of sessions that ended have cost, by Fly's list prices.")
	m.slackCalls = counters("flaudebot_slack_calls_total", "Calls of Slack's methods: ok, refused, limited, error, away, unsent.", "method", "result")
	m.slackSeconds = histograms("flaudebot_slack_call_seconds", "How long Slack took to answer.", call, "method")
	m.slackHeld = histogram("flaudebot_slack_held_seconds", "How long calls waited for Slack's limits before they were sent.", call)
	m.flyCalls = counters("flaudebot_fly_calls_total", "Requests of Fly's API: ok, or what was wrong.", "action", "result")
	m.flySeconds = histograms("flaudebot_fly_call_seconds", "How long Fly took to answer; wait and exec wait for something.", call, "action")
	m.flyHeld = histogram("flaudebot_fly_held_seconds", "How long requests waited for Fly's limits before they were sent.", call)
	m.running = prometheus.NewGauge(prometheus.GaugeOpts{Name: "flaudebot_turns_running", Help: "Turns that this replica works on."})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flaudebot_build_info", Help: "1, with what the replica was built from.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.running, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// laneOf is a turn's lane as a label: a turn that never reached a machine has none.
func laneOf(o sessions.Outcome) string { return cmp.Or(string(o.Lane), "none") }

// slackResult sorts a call.
func slackResult(c bot.Call) string {
	switch {
	case errors.Is(c.Err, fly.ErrUnsent): // it was another replica's turn by then
		return "unsent"
	case c.Err != nil:
		return "away"
	case c.Status == http.StatusTooManyRequests:
		return "limited"
	case c.Status/100 != 2:
		return "error"
	case c.Refused:
		return "refused"
	}
	return "ok"
}

// flyResult sorts a request.
func flyResult(err error) string {
	for _, r := range []struct {
		is   error
		word string
	}{
		{fly.ErrUnsent, "unsent"},
		{context.Canceled, "cancelled"},
		{fly.ErrRateLimited, "limited"},
		{fly.ErrUnauthorized, "unauthorized"},
		{fly.ErrForbidden, "forbidden"},
		{fly.ErrUnavailable, "unavailable"},
		{fly.ErrTimeout, "timeout"},
		{fly.ErrCapacity, "capacity"},
		{fly.ErrQuota, "quota"},
		{fly.ErrPayment, "payment"},
		{fly.ErrNotFound, "notfound"},
		{fly.ErrLeaseHeld, "leaseheld"},
		{fly.ErrNameTaken, "nametaken"},
		{fly.ErrPrecondition, "precondition"},
		{fly.ErrInvalid, "invalid"},
	} {
		if errors.Is(err, r.is) {
			return r.word
		}
	}
	if err != nil {
		return "refused"
	}
	return "ok"
}

// scraped are the metrics that are asked for when somebody scrapes: of the replica itself, and, from Redis, of all replicas.
type scraped struct{ m *Monitor }

// scrapeTime is how long a scrape waits for Redis.
const scrapeTime = 2 * time.Second

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements [prometheus.Collector]: what there is depends on how far the replica has come.
func (scraped) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector]. What Redis does not tell in time is left out.
func (s scraped) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	yes := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	ready := s.m.Ready(time.Now())
	gauge(desc("flaudebot_ready", "1 if /readyz says so."), yes(ready.Ready))
	up := desc("flaudebot_up", "1 if this replica's latest calls say that redis, slack or fly answers it.", "part")
	gauge(up, yes(ready.Parts.Redis.State == stateOK), "redis")
	gauge(up, yes(ready.Parts.Slack.State == stateOK), "slack")
	gauge(up, yes(ready.Parts.Fly.State == stateOK), "fly")
	if front := s.m.parts().front; front != nil {
		h := front.Health()
		gauge(desc("flaudebot_slack_sockets", "Sockets of this replica that Slack said hello on."), float64(h.Sockets))
		gauge(desc("flaudebot_slack_calls_waiting", "Calls of this replica that wait for Slack's limits."), float64(h.Waiting))
		if !h.Event.IsZero() {
			gauge(desc("flaudebot_slack_last_event_timestamp_seconds", "When somebody's doing came over a socket last."), float64(h.Event.UnixMilli())/1000)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	if q := s.m.parts().queue; q != nil {
		if l, err := q.Load(ctx); err == nil {
			s.load(gauge, l)
		}
	}
	if all := s.m.parts().sessions; all != nil {
		if n, err := all.Live(ctx); err == nil {
			gauge(desc("flaudebot_sessions_live", "Sessions that have something on Fly, of all replicas."), float64(n))
		}
	}
}

func (scraped) load(gauge func(*prometheus.Desc, float64, ...string), l queue.Load) {
	jobs := desc("flaudebot_queue_jobs", "Jobs of all replicas: claimed; ready to be; orphan: their replica died; delayed: they are tried again later; "+
		"parked: above a limit; behind others of their thread.", "state")
	claimed := l.Leased
	for state, n := range map[string]int64{
		"claimed": claimed, "ready": l.Ready, "orphan": l.Orphan, "delayed": l.Delayed, "parked": l.Parked,
		"behind": max(l.Jobs-claimed-l.Ready-l.Orphan-l.Delayed-l.Parked, 0),
	} {
		gauge(jobs, float64(n), state)
	}
	gauge(desc("flaudebot_queue_oldest_seconds", "For how long the job has been there that waits longest for a replica to take it, of all replicas."), l.Oldest.Seconds())
}
