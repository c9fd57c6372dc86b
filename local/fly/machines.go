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

var (
	machineName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	machineID   = regexp.MustCompile(`^[0-9a-f]{14}$`)
)

const machineRoute = "/v1/apps/{app}/machines"

func (s *Server) routeMachines(mux *http.ServeMux) {
	one := machineRoute + "/{id}"
	for _, c := range []struct {
		pattern, action string
		status          int
		do              func(*http.Request) (any, error)
	}{
		{"GET " + machineRoute, "list", 200, s.listMachines},
		{"POST " + machineRoute, "create", 200, s.createMachine},
		{"GET " + one, "get", 200, s.machineCall(open, func(r *http.Request, m *machine) (any, error) { return s.show(m, r.URL.Query()), nil })},
		{"POST " + one, "update", 200, s.machineCall(guarded, s.update)},
		{"PUT " + one, "update", 200, s.machineCall(guarded, s.update)},
		{"DELETE " + one, "delete", 200, s.machineCall(guarded, s.remove)},
		{"POST " + one + "/start", "start", 200, s.machineCall(guarded, s.start)},
		{"POST " + one + "/stop", "stop", 200, s.stopCall},
		{"POST " + one + "/suspend", "suspend", 200, s.machineCall(guarded, s.suspend)},
		{"POST " + one + "/restart", "restart", 200, s.machineCall(guarded, s.restart)},
		{"POST " + one + "/signal", "signal", 200, s.machineCall(onHost, s.signal)},
		{"POST " + one + "/cordon", "cordon", 200, s.machineCall(guarded, s.cordon(true))},
		{"POST " + one + "/uncordon", "uncordon", 200, s.machineCall(guarded, s.cordon(false))},
		{"GET " + one + "/wait", "wait", 200, s.wait},
		{"POST " + one + "/lease", "lease", 201, s.machineCall(onHost, s.takeLease)},
		{"GET " + one + "/lease", "lease-get", 200, s.machineCall(open, s.readLease)},
		{"DELETE " + one + "/lease", "lease-release", 200, s.machineCall(open, s.dropLease)},
		{"POST " + one + "/exec", "exec", 200, s.exec},
		{"GET " + one + "/events", "events", 200, s.machineCall(open, listEvents)},
		{"GET " + one + "/versions", "versions", 200, s.machineCall(open, listVersions)},
		{"GET " + one + "/metadata", "metadata-get", 200, s.machineCall(open, readMetadata)},
		{"PATCH " + one + "/metadata", "metadata", 204, s.machineCall(open, s.patchMetadata)},
		{"PUT " + one + "/metadata", "metadata", 204, s.machineCall(open, s.patchMetadata)},
		{"GET " + one + "/metadata/{key}", "metadata-get", 200, s.machineCall(open, readMetadataKey)},
		{"POST " + one + "/metadata/{key}", "metadata", 204, s.machineCall(open, s.setMetadata)},
		{"DELETE " + one + "/metadata/{key}", "metadata", 204, s.machineCall(open, s.setMetadata)},
	} {
		mux.HandleFunc(c.pattern, s.limited(c.action, c.status, c.do))
	}
}

// access is what a call of a machine needs.
type access int

const (
	open    access = iota
	onHost         // its host
	guarded        // its host, and the nonce while a lease is held
)

// machineCall finds the machine, under the lock, and checks that the call may be made now.
func (s *Server) machineCall(need access, do func(*http.Request, *machine) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		m, err := s.machineOf(r)
		if err == nil {
			err = s.mayUse(r, m, need)
		}
		if err != nil {
			return nil, err
		}
		return do(r, m)
	}
}

func (s *Server) mayUse(r *http.Request, m *machine, need access) error {
	// Who forces the end of a machine whose host is away need not wait for it, nor for its leases.
	if need != open && s.trouble[m.ID].unreachable() && r.Method != http.MethodDelete {
		return fail(408, "deadline_exceeded: the host of machine %s did not answer in time", m.ID)
	}
	if need == guarded {
		return m.mayChange(r)
	}
	return nil
}

// machineOf finds the request's machine. s.mu must be held.
func (s *Server) machineOf(r *http.Request) (*machine, error) {
	id := r.PathValue("id")
	if !machineID.MatchString(id) {
		return nil, fail(400, "invalid_argument: invalid machine ID, '%s'", id)
	}
	s.forget()
	m := s.state.Machines[id]
	if m == nil || m.OwnedBy != r.PathValue("app") {
		return nil, fail(404, "not_found: machine not found")
	}
	return m, nil
}

func (s *Server) listMachines(r *http.Request) (any, error) {
	q := r.URL.Query()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	s.forget()
	out := []any{}
	if t := s.trouble[""]; t.EmptyLists > 0 {
		t.EmptyLists--
		s.trouble[""] = t
		return out, nil
	}
	for _, m := range s.state.sorted() {
		if m.OwnedBy == r.PathValue("app") && m.matches(q) && !s.unlisted(m.CreatedAt) {
			out = append(out, s.show(m, q))
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
	metadata := m.metadata()
	for k, v := range q {
		if name, ok := strings.CutPrefix(k, "metadata."); ok && metadata[name] != v[0] {
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
	version := s.ids.next()
	m := &machine{
		ID: newHex(14), Name: in.Name, State: "created", Config: in.Config, InstanceID: version, Version: version,
		PrivateIP: "fdaa:0:1::1", CreatedAt: stamp(), HostStatus: "ok", OwnedBy: r.PathValue("app"),
	}
	cfg, err := s.checkNew(m, in.Region)
	if err == nil {
		err = s.room(m.Region, false)
	}
	if err != nil {
		return nil, err
	}
	m.keepVersion(cfg)
	s.add(m, "launch", "pending", "user", nil)
	s.add(m, "launch", "created", "user", nil)
	s.state.Machines[m.ID] = m
	s.attach(m, cfg, true)
	shown := s.show(m, nil)
	if in.LeaseTTL > 0 {
		shown["nonce"] = m.newLease(time.Duration(in.LeaseTTL)*time.Second, "").Nonce
	}
	s.prepareBoot(m, in.SkipLaunch)
	s.touch()
	return shown, nil
}

// keepVersion takes note of the machine's config, which is a new one.
func (m *machine) keepVersion(cfg config) {
	m.ImageRef = imageRef(cfg.Image)
	m.Versions = append(m.Versions, version{Version: m.InstanceID, Config: m.Config})
}

func imageRef(image string) map[string]string {
	rest, digest, _ := strings.Cut(image, "@")
	registry, name, ok := strings.Cut(rest, "/")
	if !ok || !strings.ContainsAny(registry, ".:") {
		registry, name = "docker-hub-mirror.fly.io", rest
	}
	name, tag, _ := strings.Cut(name, ":")
	return map[string]string{"registry": registry, "repository": name, "tag": tag, "digest": digest}
}

// checkNew refuses a machine that Fly would refuse, and settles its region. s.mu must be held.
func (s *Server) checkNew(m *machine, region string) (config, error) {
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
	for _, f := range cfg.Files {
		if err := f.check(cfg.mountPath()); err != nil {
			return cfg, err
		}
	}
	m.Region = s.place(region)
	for _, mount := range cfg.Mounts {
		v := s.state.Volumes[mount.Volume]
		switch {
		case v == nil || v.OwnedBy != m.OwnedBy || v.State != "created":
			return cfg, fail(400, "invalid_argument: volume not found")
		case v.Machine != nil && *v.Machine != m.ID:
			return cfg, fail(412, "failed_precondition: volume is currently bound to machine: %s", *v.Machine)
		case !admits(region, v.Region):
			return cfg, fail(400, "invalid_argument: volume %s is in region %s", v.ID, v.Region)
		case !strings.HasPrefix(mount.Path, "/"):
			return cfg, fail(400, "invalid_argument: mount path must be absolute")
		}
		m.Region = v.Region
	}
	return cfg, nil
}

func (s *Server) cordon(on bool) func(*http.Request, *machine) (any, error) {
	return func(_ *http.Request, m *machine) (any, error) {
		m.Cordoned = on
		s.touch()
		return map[string]any{"ok": true}, nil
	}
}

func listEvents(r *http.Request, m *machine) (any, error) {
	n, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || n < 1 {
		n = shownEvents
	}
	return m.Events[:min(n, len(m.Events))], nil
}

// listVersions has the newest first.
func listVersions(_ *http.Request, m *machine) (any, error) {
	out := slices.Clone(m.Versions)
	slices.Reverse(out)
	return out, nil
}
