package fly

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var machineName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

const machineRoute = "/v1/apps/{app}/machines"

// guarded calls are refused to those without the nonce while a lease is held.
func (s *Server) routeMachines(mux *http.ServeMux) {
	type call struct {
		pattern, action string
		status          int
		do              func(*http.Request) (any, error)
	}
	one := machineRoute + "/{id}"
	for _, c := range []call{
		{"GET " + machineRoute, "list", 200, s.listMachines},
		{"POST " + machineRoute, "create", 200, s.createMachine},
		{"GET " + one, "get", 200, s.machineCall(false, func(_ *http.Request, m *machine) (any, error) { return m.shown(), nil })},
		{"POST " + one, "update", 200, s.machineCall(true, s.update)},
		{"PUT " + one, "update", 200, s.machineCall(true, s.update)},
		{"DELETE " + one, "delete", 200, s.machineCall(true, s.remove)},
		{"POST " + one + "/start", "start", 200, s.machineCall(true, s.start)},
		{"POST " + one + "/stop", "stop", 200, s.machineCall(true, s.stop)},
		{"POST " + one + "/suspend", "stop", 200, s.machineCall(true, s.stop)}, // no snapshots here: always the cold path
		{"POST " + one + "/restart", "restart", 200, s.machineCall(true, s.restart)},
		{"POST " + one + "/signal", "signal", 200, s.machineCall(true, s.signal)},
		{"GET " + one + "/wait", "wait", 200, s.wait},
		{"POST " + one + "/lease", "lease", 201, s.machineCall(false, s.takeLease)},
		{"GET " + one + "/lease", "lease-get", 200, s.machineCall(false, s.readLease)},
		{"DELETE " + one + "/lease", "lease-release", 200, s.machineCall(false, s.dropLease)},
		{"POST " + one + "/exec", "exec", 200, s.exec},
		{"GET " + one + "/events", "events", 200, s.machineCall(false, listEvents)},
		{"GET " + one + "/versions", "versions", 200, s.machineCall(false, listVersions)},
		{"GET " + one + "/metadata", "metadata-get", 200, s.machineCall(false, readMetadata)},
		{"PATCH " + one + "/metadata", "metadata", 204, s.machineCall(false, s.patchMetadata)},
		{"PUT " + one + "/metadata", "metadata", 204, s.machineCall(false, s.patchMetadata)},
		{"GET " + one + "/metadata/{key}", "metadata-get", 200, s.machineCall(false, readMetadataKey)},
		{"POST " + one + "/metadata/{key}", "metadata", 204, s.machineCall(false, s.setMetadata)},
		{"DELETE " + one + "/metadata/{key}", "metadata", 204, s.machineCall(false, s.setMetadata)},
	} {
		mux.HandleFunc(c.pattern, func(w http.ResponseWriter, r *http.Request) {
			subject := r.PathValue("id")
			if subject == "" {
				subject = r.PathValue("app")
			}
			if s.limited(w, c.action, subject) {
				handle(c.status, c.do)(w, r)
			}
		})
	}
}

// machineCall finds the machine, under the lock, and checks the lease if the call is guarded by it.
func (s *Server) machineCall(guarded bool, do func(*http.Request, *machine) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		m, err := s.machineOf(r)
		if err != nil {
			return nil, err
		}
		if guarded {
			if err := m.mayChange(r); err != nil {
				return nil, err
			}
		}
		return do(r, m)
	}
}

// machineOf finds the request's machine. s.mu must be held.
func (s *Server) machineOf(r *http.Request) (*machine, error) {
	m := s.state.Machines[r.PathValue("id")]
	if m == nil || m.OwnedBy != r.PathValue("app") {
		return nil, fail(404, "not_found: machine not found")
	}
	return m, nil
}

func (m *machine) leased() bool { return m.Lease != nil && m.Lease.ExpiresAt > time.Now().Unix() }

func (m *machine) mayChange(r *http.Request) error {
	if m.leased() && r.Header.Get("Fly-Machine-Lease-Nonce") != m.Lease.Nonce {
		return m.heldByAnother()
	}
	return nil
}

func (m *machine) heldByAnother() error {
	return fail(409, "machine ID %s lease currently held by %s, expires at %s", m.ID, m.Lease.Owner,
		time.Unix(m.Lease.ExpiresAt, 0).UTC().Format(time.RFC3339))
}

func (s *Server) listMachines(r *http.Request) (any, error) {
	q := r.URL.Query()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	out := []any{}
	for _, m := range s.state.sorted() {
		if m.OwnedBy == r.PathValue("app") && m.matches(q) {
			shown := m.shown()
			if q.Get("summary") == "true" {
				for _, f := range []string{"config", "checks", "events", "host_status", "nonce"} {
					delete(shown, f)
				}
			}
			out = append(out, shown)
		}
	}
	return out, nil
}

func (m *machine) matches(q url.Values) bool {
	if m.State == "destroyed" && q.Get("include_deleted") != "true" {
		return false
	}
	if states := q.Get("state"); states != "" && !slices.Contains(strings.Split(states, ","), m.State) {
		return false
	}
	if region := q.Get("region"); region != "" && region != m.Region {
		return false
	}
	cfg, err := m.config()
	if err != nil {
		return false
	}
	for k, v := range q {
		if name, ok := strings.CutPrefix(k, "metadata."); ok && cfg.Metadata[name] != v[0] {
			return false
		}
	}
	return true
}

func (s *Server) createMachine(r *http.Request) (any, error) {
	var in struct {
		Name       string                     `json:"name"`
		Region     string                     `json:"region"`
		Config     map[string]json.RawMessage `json:"config"`
		SkipLaunch bool                       `json:"skip_launch"`
		LeaseTTL   int                        `json:"lease_ttl"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	if in.Name == "" {
		in.Name = "local-" + newHex(8)
	}
	m := &machine{
		ID: newHex(14), Name: in.Name, State: "created", Region: in.Region, Config: in.Config, InstanceID: newULID(),
		PrivateIP: "fdaa:0:1::1", CreatedAt: stamp(), HostStatus: "ok", OwnedBy: r.PathValue("app"),
	}
	m.Version = m.InstanceID
	cfg, err := s.checkNew(m)
	if err != nil {
		return nil, err
	}
	m.ImageRef = imageRef(cfg.Image)
	m.Versions = append(m.Versions, m.Config)
	m.add("launch", "created", "user", nil)
	shown := m.shown()
	if in.LeaseTTL > 0 {
		m.Lease = &lease{Nonce: newHex(12), ExpiresAt: time.Now().Unix() + int64(in.LeaseTTL), Owner: "local@localhost", Version: m.InstanceID}
		shown["nonce"] = m.Lease.Nonce
	}
	s.state.Machines[m.ID] = m
	s.attach(m, cfg, true)
	if in.SkipLaunch {
		m.State = "stopped"
	} else {
		s.boot(m)
	}
	s.touch()
	return shown, nil
}

func imageRef(image string) map[string]string {
	repo, tag, _ := strings.Cut(image, ":")
	registry, name, ok := strings.Cut(repo, "/")
	if !ok {
		registry, name = "docker-hub-mirror.fly.io", repo
	}
	return map[string]string{"registry": registry, "repository": name, "tag": tag}
}

// checkNew refuses a machine that Fly would refuse. s.mu must be held.
func (s *Server) checkNew(m *machine) (config, error) {
	cfg, err := m.config()
	if err != nil {
		return cfg, err
	}
	if cfg.Image == "" {
		return cfg, fail(400, "invalid_argument: config.image is required")
	}
	if !machineName.MatchString(m.Name) {
		return cfg, fail(400, "invalid_argument: invalid machine name %q", m.Name)
	}
	for _, other := range s.state.Machines {
		if other.OwnedBy == m.OwnedBy && other.Name == m.Name && other.State != "destroyed" && other.ID != m.ID {
			return cfg, fail(409, "already_exists: unique machine name violation, machine ID %s already exists with name \"%s\"", other.ID, m.Name)
		}
	}
	if len(cfg.Mounts) > 1 {
		return cfg, fail(400, "invalid_argument: only one mount is supported")
	}
	for _, mount := range cfg.Mounts {
		v := s.state.Volumes[mount.Volume]
		switch {
		case v == nil || v.OwnedBy != m.OwnedBy || v.State != "created":
			return cfg, fail(400, "invalid_argument: volume not found")
		case v.Machine != nil && *v.Machine != m.ID:
			return cfg, fail(412, "failed_precondition: volume is currently bound to machine: %s", *v.Machine)
		case m.Region != "" && v.Region != m.Region:
			return cfg, fail(400, "invalid_argument: volume %s is in region %s", v.ID, v.Region)
		case !strings.HasPrefix(mount.Path, "/"):
			return cfg, fail(400, "invalid_argument: mount path must be absolute")
		}
		m.Region = v.Region
	}
	return cfg, nil
}

// attach binds the machine's volume to it, or frees it. s.mu must be held.
func (s *Server) attach(m *machine, cfg config, on bool) {
	for _, mount := range cfg.Mounts {
		if v := s.state.Volumes[mount.Volume]; v != nil {
			v.Machine = nil
			if on {
				v.Machine = &m.ID
			}
		}
	}
}

func (s *Server) update(r *http.Request, m *machine) (any, error) {
	var in struct {
		Config         map[string]json.RawMessage `json:"config"`
		CurrentVersion string                     `json:"current_version"`
		SkipLaunch     bool                       `json:"skip_launch"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.CurrentVersion != "" && in.CurrentVersion != m.InstanceID {
		return nil, fail(409, "aborted: current version is %s", m.InstanceID)
	}
	if m.State == "destroyed" || m.State == "destroying" {
		return nil, fail(412, "failed_precondition: unable to update machine from current state: '%s'", m.State)
	}
	next := *m
	next.Config = in.Config
	cfg, err := s.checkNew(&next)
	if err != nil {
		return nil, err
	}
	old, _ := m.config()
	s.attach(m, old, false)
	m.Config, m.InstanceID, m.ImageRef = in.Config, newULID(), imageRef(cfg.Image)
	m.Version = m.InstanceID
	m.Versions = append(m.Versions, m.Config)
	s.attach(m, cfg, true)
	m.add("update", "replacing", "user", nil)
	if p := s.procs[m.ID]; p != nil {
		p.kill()
	}
	m.Restarts = 0
	if in.SkipLaunch {
		m.State = "stopped"
	} else {
		s.boot(m)
	}
	s.touch()
	return m.shown(), nil
}

// stillActive is how long after an exit Fly refuses a start.
const stillActive = 400 * time.Millisecond

func (s *Server) start(_ *http.Request, m *machine) (any, error) {
	switch {
	case m.State == "started" || m.State == "starting":
	case m.State != "stopped" && m.State != "suspended":
		return nil, fail(412, "failed_precondition: unable to start machine from current state: '%s'", m.State)
	case time.Since(time.UnixMilli(m.ExitedAt)) < stillActive || s.procs[m.ID] != nil:
		return nil, fail(412, "failed_precondition: machine still active, refusing to start")
	}
	before := m.State
	if before != "started" && before != "starting" {
		m.Restarts = 0
		s.boot(m)
		s.touch()
	}
	return map[string]any{"previous_state": before, "migrated": false, "new_host": ""}, nil
}

func (s *Server) stop(r *http.Request, m *machine) (any, error) {
	var in struct {
		Signal  string   `json:"signal"`
		Timeout duration `json:"timeout"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if cfg, err := m.config(); err == nil && cfg.StopConfig != nil {
		if in.Signal == "" {
			in.Signal = cfg.StopConfig.Signal
		}
		if in.Timeout == 0 {
			in.Timeout = cfg.StopConfig.Timeout
		}
	}
	if in.Timeout == 0 {
		in.Timeout = duration(5 * time.Second)
	}
	s.halt(m, in.Signal, time.Duration(in.Timeout))
	s.touch()
	return map[string]any{"ok": true}, nil
}

// halt asks the machine's process to end, and ends it after the timeout. s.mu must be held.
func (s *Server) halt(m *machine, signal string, timeout time.Duration) {
	p := s.procs[m.ID]
	if p == nil {
		if m.State == "starting" || m.State == "created" {
			m.State = "stopped"
			m.add("exit", "stopped", "flyd", exitRequest(exit{code: 0}, true, false))
		}
		return
	}
	m.State = "stopping"
	m.add("stop", "stopping", "user", nil)
	p.requested = true
	p.signal(signalOf(signal))
	s.live.Go(func() {
		select {
		case <-p.done:
		case <-s.ctx.Done():
		case <-time.After(timeout):
			p.kill()
		}
	})
}

func (s *Server) restart(_ *http.Request, m *machine) (any, error) {
	if m.State != "started" {
		return nil, fail(412, "failed_precondition: unable to restart machine from current state: '%s'", m.State)
	}
	p := s.procs[m.ID]
	p.requested, p.again = true, true
	m.add("restart", "stopping", "user", nil)
	p.kill()
	s.touch()
	return map[string]any{"ok": true}, nil
}

func (s *Server) signal(r *http.Request, m *machine) (any, error) {
	var in struct {
		Signal any `json:"signal"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	p := s.procs[m.ID]
	if p == nil {
		return nil, fail(412, "failed_precondition: machine is not started")
	}
	name, _ := in.Signal.(string)
	if n, ok := in.Signal.(float64); ok && n == 9 {
		name = "SIGKILL"
	}
	p.signal(signalOf(name))
	return map[string]any{"ok": true}, nil
}

func (s *Server) remove(r *http.Request, m *machine) (any, error) {
	force := r.URL.Query().Get("force") == "true" || r.URL.Query().Get("kill") == "true"
	if !force && m.State != "stopped" && m.State != "suspended" && m.State != "failed" && m.State != "destroyed" {
		return nil, fail(412, "failed_precondition: unable to destroy machine, not in a stopped state: '%s'", m.State)
	}
	s.destroy(m)
	s.touch()
	return map[string]any{"ok": true}, nil
}

// destroy ends the machine and frees its volume. s.mu must be held.
func (s *Server) destroy(m *machine) {
	if m.State == "destroyed" || m.State == "destroying" {
		return
	}
	m.add("destroy", "destroying", "user", nil)
	if p := s.procs[m.ID]; p != nil {
		m.State = "destroying"
		p.kill() // its end makes it destroyed
		return
	}
	s.destroyed(m)
}

// destroyed is the end of a machine. s.mu must be held.
func (s *Server) destroyed(m *machine) {
	m.State = "destroyed"
	m.Lease = nil
	m.add("destroy", "destroyed", "flyd", nil)
	if cfg, err := m.config(); err == nil {
		s.attach(m, cfg, false)
	}
}

// wait answers when the machine is in one of the states, or 408 after the timeout of 1 to 60 s.
func (s *Server) wait(r *http.Request) (any, error) {
	q := r.URL.Query()
	timeout := 60
	if t := q.Get("timeout"); t != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(t, "s"))
		if err != nil || n < 1 || n > 60 {
			return nil, fail(400, "invalid_argument: timeout must be between 1 and 60 seconds")
		}
		timeout = n
	}
	var states []string
	for _, v := range q["state"] {
		states = append(states, strings.Split(v, ",")...)
	}
	if len(states) == 0 {
		states = []string{"started"}
	}
	deadline := time.After(time.Duration(timeout) * time.Second)
	for {
		s.mu.Lock()
		m, err := s.machineOf(r)
		changed := s.changed
		var shown map[string]any
		if err == nil && slices.Contains(states, m.State) {
			shown = map[string]any{"ok": true, "state": m.State, "version": m.InstanceID, "event_id": ""}
			if len(m.Events) > 0 {
				shown["event_id"] = m.Events[0].ID
			}
		}
		s.mu.Unlock()
		if err != nil || shown != nil {
			return shown, err
		}
		select {
		case <-changed:
		case <-deadline:
			return nil, fail(408, "deadline_exceeded: machine did not reach state %s in time", strings.Join(states, ", "))
		case <-r.Context().Done():
			return nil, fail(408, "canceled")
		case <-s.ctx.Done():
			return nil, fail(503, "unavailable: the stand-in is leaving")
		}
	}
}

func (s *Server) takeLease(r *http.Request, m *machine) (any, error) {
	var in struct {
		TTL         int    `json:"ttl"`
		Description string `json:"description"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if t, err := strconv.Atoi(r.URL.Query().Get("ttl")); err == nil {
		in.TTL = t
	}
	if in.TTL <= 0 {
		in.TTL = 13
	}
	nonce := r.Header.Get("Fly-Machine-Lease-Nonce")
	if m.leased() {
		if m.Lease.Nonce != nonce {
			return nil, m.heldByAnother()
		}
	} else {
		m.Lease = &lease{Nonce: newHex(12), Owner: "local@localhost"}
	}
	m.Lease.ExpiresAt = time.Now().Unix() + int64(in.TTL)
	m.Lease.Version = m.InstanceID
	if in.Description != "" {
		m.Lease.Description = in.Description
	}
	s.touch()
	return map[string]any{"status": "success", "data": *m.Lease}, nil
}

func (s *Server) readLease(_ *http.Request, m *machine) (any, error) {
	if !m.leased() {
		return nil, fail(404, "lease not found")
	}
	shown := *m.Lease
	shown.Nonce = ""
	return map[string]any{"status": "success", "data": shown}, nil
}

func (s *Server) dropLease(r *http.Request, m *machine) (any, error) {
	if !m.leased() {
		return nil, fail(404, "lease not found")
	}
	if err := m.mayChange(r); err != nil {
		return nil, err
	}
	m.Lease = nil
	s.touch()
	return map[string]any{"status": "success", "data": map[string]any{"ok": true}}, nil
}

func listEvents(r *http.Request, m *machine) (any, error) {
	n, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || n < 1 {
		n = keptEvents
	}
	return m.Events[:min(n, 50, len(m.Events))], nil
}

func listVersions(_ *http.Request, m *machine) (any, error) {
	out := []any{}
	for _, v := range m.Versions {
		out = append(out, map[string]any{"version": m.InstanceID, "user_config": v})
	}
	return out, nil
}

func (m *machine) metadata() map[string]string {
	out := map[string]string{}
	_ = json.Unmarshal(m.Config["metadata"], &out) // checked when it came
	return out
}

func (s *Server) keepMetadata(m *machine, all map[string]string) {
	raw, _ := json.Marshal(all)
	m.Config["metadata"] = raw
	s.touch()
}

func readMetadata(_ *http.Request, m *machine) (any, error) { return m.metadata(), nil }

func readMetadataKey(r *http.Request, m *machine) (any, error) {
	v, ok := m.metadata()[r.PathValue("key")]
	if !ok {
		return nil, fail(404, "not_found: no such metadata")
	}
	return map[string]string{"value": v}, nil
}

func (s *Server) setMetadata(r *http.Request, m *machine) (any, error) {
	all := m.metadata()
	if r.Method == http.MethodDelete {
		delete(all, r.PathValue("key"))
	} else {
		var in struct {
			Value string `json:"value"`
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		all[r.PathValue("key")] = in.Value
	}
	s.keepMetadata(m, all)
	return nil, nil
}

func (s *Server) patchMetadata(r *http.Request, m *machine) (any, error) {
	var in struct {
		Metadata map[string]*string `json:"metadata"`
		Version  string             `json:"machine_version"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Version != "" && in.Version != m.InstanceID {
		return nil, fail(412, "failed_precondition: machine version is %s", m.InstanceID)
	}
	all := m.metadata()
	for k, v := range in.Metadata {
		if v == nil {
			delete(all, k)
		} else {
			all[k] = *v
		}
	}
	s.keepMetadata(m, all)
	return nil, nil
}
