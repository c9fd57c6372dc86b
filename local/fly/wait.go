package fly

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// awaited is what a wait call waits for.
type awaited struct {
	states  []string
	version string // "": any
	after   string // event id; "": now
	timeout time.Duration
}

func (s *Server) readWait(q url.Values) (awaited, error) {
	a := awaited{version: q.Get("version"), after: q.Get("from_event_id"), timeout: time.Minute}
	if a.version == "" {
		a.version = q.Get("instance_id")
	}
	if t := q.Get("timeout"); t != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(t, "s"))
		if err != nil || n < 1 || n > 60 {
			return a, fail(400, "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range [1s, 1m0s]")
		}
		a.timeout = time.Duration(n) * time.Second
	}
	for _, v := range q["state"] {
		for state := range strings.SplitSeq(v, ",") {
			switch state {
			case "started", "stopped", "suspended", "destroyed", "failed", "settled", "created", "replaced", "migrated":
				a.states = append(a.states, state)
			default:
				return a, fail(400, "invalid_argument: cannot wait for state %q", state)
			}
		}
	}
	if len(a.states) == 0 {
		a.states = []string{"started"}
	}
	if s.cfg.Unsettled.WaitNeedsVersion && a.version == "" && slices.Contains(a.states, "stopped") {
		return a, fail(400, "invalid_argument: an instance ID is required to wait for state stopped")
	}
	return a, nil
}

func (a awaited) has(state string) bool {
	if slices.Contains(a.states, state) {
		return true
	}
	switch state {
	case "started", "stopped", "suspended", "failed", "destroyed":
		return slices.Contains(a.states, "settled")
	}
	return false
}

// in looks for an awaited state: the one that the machine is in, or with an event id one that it came to after that,
// though it may have left it since. It returns the state, and the event with it; event is nil if it was not reached.
func (a awaited) in(m *machine) (state string, reached *event) {
	if a.version != "" && a.version != m.InstanceID && m.State != "destroyed" {
		if a.has("replaced") {
			return "replaced", &m.Events[0]
		}
		return "replaced", nil
	}
	if a.after == "" {
		if a.has(m.State) {
			return m.State, &m.Events[0]
		}
		return m.State, nil
	}
	for _, e := range slices.Backward(m.Events) {
		if e.ID > a.after && a.has(e.Status) {
			return e.Status, &e
		}
	}
	return m.State, nil
}

// wait answers when the machine is in one of the states, or 408 after the timeout of 1 to 60 s.
func (s *Server) wait(r *http.Request) (any, error) {
	a, err := s.readWait(r.URL.Query())
	if err != nil {
		return nil, err
	}
	deadline := time.After(a.timeout)
	for {
		s.mu.Lock()
		m, err := s.machineOf(r)
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		if a.version != "" && !slices.ContainsFunc(m.Versions, func(v version) bool { return v.Version == a.version }) {
			s.mu.Unlock()
			return nil, fail(404, "not_found: machine version not found")
		}
		current, reached := a.in(m)
		version, changed := m.InstanceID, s.changed
		s.mu.Unlock()
		if reached != nil {
			return map[string]any{"ok": true, "state": current, "version": version, "event_id": reached.ID}, nil
		}
		select {
		case <-changed:
		case <-deadline:
			return nil, fail(408, "deadline_exceeded: machine failed to reach desired state, %s, currently %s", strings.Join(a.states, ", "), current)
		case <-r.Context().Done():
			return nil, fail(408, "canceled: the caller has gone")
		case <-s.ctx.Done():
			return nil, fail(503, "unavailable: the stand-in is leaving")
		}
	}
}
