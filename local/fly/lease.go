package fly

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// leased reports whether somebody holds the machine.
func (m *machine) leased() bool { return m.Lease != nil && m.Lease.ExpiresAt > time.Now().Unix() }

// newLease lasts for ttl at least: it ends with a whole second.
func (m *machine) newLease(ttl time.Duration, description string) *lease {
	m.Lease = &lease{Nonce: newHex(12), Owner: "local@localhost", Description: description}
	m.Lease.extend(ttl, m.InstanceID)
	return m.Lease
}

func (l *lease) extend(ttl time.Duration, version string) {
	l.ExpiresAt, l.Version = time.Now().Add(ttl+time.Second-1).Unix(), version
}

// mayChange refuses those who do not hold the machine while somebody does.
func (m *machine) mayChange(r *http.Request) error {
	if m.leased() && r.Header.Get("Fly-Machine-Lease-Nonce") != m.Lease.Nonce {
		return fail(409, "machine ID %s lease currently held by %s, expires at %s", m.ID, m.Lease.Owner,
			time.Unix(m.Lease.ExpiresAt, 0).UTC().Format(time.RFC3339))
	}
	return nil
}

// takeLease gives the machine to a caller, or to its holder for longer. The ttl in seconds may be in the query or in the body.
func (s *Server) takeLease(r *http.Request, m *machine) (any, error) {
	var in struct {
		TTL         int    `json:"ttl"`
		Description string `json:"description"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if t := r.URL.Query().Get("ttl"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return nil, fail(400, "invalid_argument: ttl: %q is no number of seconds", t)
		}
		in.TTL = n
	}
	if in.TTL < 0 {
		return nil, fail(400, "invalid_argument: ttl must not be negative")
	}
	if err := m.mayChange(r); err != nil {
		return nil, err
	}
	ttl := time.Duration(in.TTL) * time.Second
	if in.TTL == 0 {
		ttl = s.cfg.Unsettled.LeaseTTL
	}
	if m.leased() {
		m.Lease.extend(ttl, m.InstanceID)
	} else {
		m.newLease(ttl, in.Description)
	}
	s.touch()
	return map[string]any{"status": "success", "data": *m.Lease}, nil
}

func (s *Server) readLease(_ *http.Request, m *machine) (any, error) {
	if !m.leased() {
		return nil, fail(404, "not_found: lease not found")
	}
	shown := *m.Lease
	shown.Nonce = "" // the holder's secret
	return map[string]any{"status": "success", "data": shown}, nil
}

func (s *Server) dropLease(r *http.Request, m *machine) (any, error) {
	if !m.leased() {
		return nil, fail(404, "not_found: lease not found")
	}
	if err := m.mayChange(r); err != nil {
		return nil, err
	}
	m.Lease = nil
	s.touch()
	return map[string]any{"status": "success", "data": map[string]any{"ok": true}}, nil
}

// outlastLease returns when the caller may change the machine, or the request is over.
func (s *Server) outlastLease(r *http.Request) {
	for {
		s.mu.Lock()
		m, err := s.machineOf(r)
		if err != nil || m.mayChange(r) == nil {
			s.mu.Unlock()
			return
		}
		end, changed := time.Unix(m.Lease.ExpiresAt, 0), s.changed
		s.mu.Unlock()
		ctx, cancel := context.WithDeadline(s.ctx, end)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-r.Context().Done():
		}
		cancel()
		if r.Context().Err() != nil || s.ctx.Err() != nil {
			return
		}
	}
}
