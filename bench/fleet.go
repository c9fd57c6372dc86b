package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flaudebot/fly"
	"flaudebot/runner"
)

// fleet is a Fly of many machines that costs next to nothing: no machine has a process, and what an exec asks its runner is answered from a script.
// It speaks HTTP/2 over TLS as Fly does, keeps Fly's limits of calls, refuses what is above them, and counts every call.
type fleet struct {
	url    string // https://host:port
	server *httptest.Server
	dir    string // its own
	script script

	mu       sync.Mutex
	volumes  []*fleetVolume           // guarded by mu
	machines []*fleetMachine          // guarded by mu; in the order of their creation
	byID     map[string]*fleetMachine // guarded by mu
	buckets  map[string]*rate.Limiter // guarded by mu; :: action and subject
	calls    []fleetCall              // guarded by mu
	counts   map[string]int           // guarded by mu; :: action
	refused  map[string]int           // guarded by mu; :: action → answers of 429
}

// fleetCall is a call that was answered.
type fleetCall struct {
	action     string
	began, end time.Time
	bytes      int64 // of the answer
}

type fleetVolume struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	State      string  `json:"state"`
	SizeGB     int     `json:"size_gb"`
	Region     string  `json:"region"`
	Zone       string  `json:"zone"`
	Encrypted  bool    `json:"encrypted"`
	Machine    *string `json:"attached_machine_id"`
	Alloc      *string `json:"attached_alloc_id"`
	CreatedAt  string  `json:"created_at"`
	Blocks     int64   `json:"blocks"`
	BlockSize  int     `json:"block_size"`
	BlocksFree int64   `json:"blocks_free"`
	FSType     string  `json:"fstype"`
	HostStatus string  `json:"host_status"`
	Retention  int     `json:"snapshot_retention"`
	AutoBackup bool    `json:"auto_backup_enabled"`
}

type fleetMachine struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	State      string          `json:"state"`
	Region     string          `json:"region"`
	ImageRef   fleetImage      `json:"image_ref"`
	InstanceID string          `json:"instance_id"`
	PrivateIP  string          `json:"private_ip"`
	CreatedAt  string          `json:"created_at"`
	UpdatedAt  string          `json:"updated_at"`
	Config     json.RawMessage `json:"config"`
	Events     []fleetEvent    `json:"events"`
	HostStatus string          `json:"host_status"`

	metadata map[string]string
	nonce    string // of its lease
	leased   time.Time
	changed  chan struct{} // closed and replaced when its state changes
	runner   *scripted     // nil: it never ran
}

type fleetImage struct {
	Registry   string            `json:"registry"`
	Repository string            `json:"repository"`
	Tag        string            `json:"tag"`
	Digest     string            `json:"digest"`
	Labels     map[string]string `json:"labels"`
}

type fleetEvent struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Status    string          `json:"status"`
	Source    string          `json:"source"`
	Timestamp int64           `json:"timestamp"` // unix ms
	Request   json.RawMessage `json:"request,omitempty"`
}

// openFleet serves until close is called.
func openFleet(s script) (*fleet, error) {
	f := &fleet{script: s, byID: map[string]*fleetMachine{}, buckets: map[string]*rate.Limiter{}, counts: map[string]int{}, refused: map[string]int{}}
	var err error
	if f.dir, err = os.MkdirTemp("", "flaudebot-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder for Fly's certificate: %w", err)
	}
	f.server = httptest.NewUnstartedServer(f.handler())
	f.server.EnableHTTP2 = true
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // callers go when they are stopped
	f.server.StartTLS()
	f.url = f.server.URL
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
	if err := os.WriteFile(f.certificate(), certificate, 0o600); err != nil {
		f.close()
		return nil, fmt.Errorf("keep Fly's certificate: %w", err)
	}
	return f, nil
}

// certificate is the file with what the bot has to trust.
func (f *fleet) certificate() string { return filepath.Join(f.dir, "fly.pem") }

// env is what the bot needs beside the address.
func (f *fleet) env() string { return "SSL_CERT_FILE=" + f.certificate() }

func (f *fleet) client() (*fly.Client, error) {
	return fly.New(fly.Config{BaseURL: f.url, Token: "fly-local", HTTP: f.server.Client()})
}

func (f *fleet) close() {
	f.server.CloseClientConnections()
	f.server.Close()
	_ = os.RemoveAll(f.dir)
}

// flyError is a refusal in Fly's form.
type flyError struct {
	status int
	text   string
}

func (e *flyError) Error() string { return e.text }

var (
	errNoMachine = &flyError{http.StatusNotFound, "not_found: machine not found"}
	errTooMany   = &flyError{http.StatusTooManyRequests, "rate limit exceeded"}
)

func (f *fleet) handler() http.Handler {
	mux := http.NewServeMux()
	const app, machines = "/v1/apps/{app}", "/v1/apps/{app}/machines"
	const one = machines + "/{id}"
	for pattern, c := range map[string]struct {
		action string
		do     func(*http.Request) (any, error)
	}{
		"GET " + app: {"app.get", func(r *http.Request) (any, error) {
			return map[string]any{"id": "app1", "name": r.PathValue("app"), "status": "deployed"}, nil
		}},
		"GET " + app + "/volumes":         {"volume.list", f.listVolumes},
		"POST " + app + "/volumes":        {"volume.create", f.createVolume},
		"GET " + app + "/volumes/{id}":    {"volume.get", f.getVolume},
		"GET " + machines:                 {"machine.list", f.listMachines},
		"POST " + machines:                {"machine.create", f.createMachine},
		"GET " + one:                      {"machine.get", f.of(false, func(m *fleetMachine, _ *http.Request) (any, error) { return m.shown(), nil })},
		"DELETE " + one:                   {"machine.delete", f.of(true, f.destroy)},
		"POST " + one + "/start":          {"machine.start", f.of(true, f.start)},
		"POST " + one + "/stop":           {"machine.stop", f.of(true, f.stop)},
		"GET " + one + "/wait":            {"machine.wait", f.wait},
		"POST " + one + "/lease":          {"machine.lease", f.of(true, lease)},
		"DELETE " + one + "/lease":        {"machine.lease-release", f.of(true, release)},
		"GET " + one + "/events":          {"machine.events", f.of(false, func(m *fleetMachine, _ *http.Request) (any, error) { return slices.Clone(m.Events), nil })},
		"POST " + one + "/metadata/{key}": {"machine.metadata", f.of(false, func(*fleetMachine, *http.Request) (any, error) { return map[string]any{}, nil })},
		"DELETE " + app + "/volumes/{id}": {"volume.delete", f.deleteVolume},
		"POST " + one + "/exec":           {"machine.exec", f.exec},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { f.answer(w, r, c.action, c.do) })
	}
	return mux
}

// answer answers a call within Fly's limits, and counts it.
func (f *fleet) answer(w http.ResponseWriter, r *http.Request, action string, do func(*http.Request) (any, error)) {
	began := time.Now()
	var out any
	err := error(errTooMany)
	if f.within(action, r) {
		out, err = do(r)
	}
	status := http.StatusOK
	if err != nil {
		status, out = http.StatusInternalServerError, map[string]string{"error": err.Error()}
		if e := (*flyError)(nil); errors.As(err, &e) {
			status = e.status
		}
	}
	raw, err := json.Marshal(out)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{"error":"internal: no answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Fly-Request-Id", "fleet")
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the caller may have gone
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fleetCall{action, began, time.Now(), int64(len(raw))})
}

// within counts a call, and reports whether Fly would answer it: one a second of each action, by machine, volume or app, and three at once; of a
// machine's reading five a second.
func (f *fleet) within(action string, r *http.Request) bool {
	subject := r.PathValue("id")
	if subject == "" {
		subject = r.PathValue("app")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[action]++
	b := f.buckets[action+" "+subject]
	if b == nil {
		b = rate.NewLimiter(1, 3)
		if action == "machine.get" {
			b = rate.NewLimiter(5, 10)
		}
		f.buckets[action+" "+subject] = b
	}
	if b.Allow() {
		return true
	}
	f.refused[action]++
	return false
}

// counted are the calls until now, all of them and those that were refused, by action.
func (f *fleet) counted() (all, refused map[string]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counts), maps.Clone(f.refused)
}

// of makes a call of a function that has the machine, under the lock; guarded ones need the nonce while a lease is held.
func (f *fleet) of(guarded bool, do func(*fleetMachine, *http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		m := f.byID[r.PathValue("id")]
		if m == nil {
			return nil, errNoMachine
		}
		if guarded {
			if err := m.mayChange(r); err != nil {
				return nil, err
			}
		}
		return do(m, r)
	}
}

func (m *fleetMachine) mayChange(r *http.Request) error {
	if m.nonce != "" && time.Now().Before(m.leased) && r.Header.Get("Fly-Machine-Lease-Nonce") != m.nonce {
		return &flyError{http.StatusConflict, "machine ID " + m.ID + " lease currently held by bench@localhost, expires at " + m.leased.UTC().Format(time.RFC3339)}
	}
	return nil
}

// shown is a copy that can be encoded without the lock.
func (m *fleetMachine) shown() *fleetMachine {
	out := *m
	out.Events = slices.Clone(m.Events)
	return &out
}

func (m *fleetMachine) enter(state, event, source string, request any) {
	m.State = state
	raw, _ := json.Marshal(request) // plain maps
	if request == nil {
		raw = nil
	}
	m.Events = slices.Insert(m.Events, 0, fleetEvent{newID(26), event, state, source, time.Now().UnixMilli(), raw})
	m.Events = m.Events[:min(len(m.Events), 20)]
	close(m.changed)
	m.changed = make(chan struct{})
}

func newID(digits int) string {
	raw := make([]byte, digits)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)[:digits]
}

func (f *fleet) listVolumes(*http.Request) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]fleetVolume, 0, len(f.volumes))
	for _, v := range f.volumes {
		out = append(out, *v)
	}
	return out, nil
}

func (f *fleet) createVolume(r *http.Request) (any, error) {
	var in struct {
		Name, Region string
		SizeGB       int `json:"size_gb"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, &flyError{http.StatusBadRequest, "invalid_argument: " + err.Error()}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.addVolume(in.Name, in.Region, in.SizeGB, time.Now()), nil
}

// addVolume makes a volume. f.mu must be held.
func (f *fleet) addVolume(name, region string, gb int, at time.Time) *fleetVolume {
	v := &fleetVolume{
		ID: "vol_" + newID(17), Name: name, State: "created", SizeGB: gb, Region: region, Zone: "7b2f", Encrypted: true, CreatedAt: at.UTC().Format(time.RFC3339Nano),
		Blocks: 248974, BlockSize: 4096, BlocksFree: 232000, FSType: "ext4", HostStatus: "ok", Retention: 5, AutoBackup: true,
	}
	f.volumes = append(f.volumes, v)
	return v
}

func (f *fleet) getVolume(r *http.Request) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.volumes {
		if v.ID == r.PathValue("id") {
			return *v, nil
		}
	}
	return nil, &flyError{http.StatusNotFound, "not_found: volume not found"}
}

func (f *fleet) deleteVolume(r *http.Request) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes = slices.DeleteFunc(f.volumes, func(v *fleetVolume) bool { return v.ID == r.PathValue("id") })
	return map[string]any{}, nil
}

func (f *fleet) listMachines(r *http.Request) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*fleetMachine, 0, len(f.machines))
	for _, m := range f.machines {
		if m.matches(r) {
			out = append(out, m.shown())
		}
	}
	return out, nil
}

func (m *fleetMachine) matches(r *http.Request) bool {
	if m.State == "destroyed" {
		return false
	}
	for k, v := range r.URL.Query() {
		if name, ok := strings.CutPrefix(k, "metadata."); ok && m.metadata[name] != v[0] {
			return false
		}
	}
	return true
}

func (f *fleet) createMachine(r *http.Request) (any, error) {
	var in struct {
		Name, Region string
		Config       json.RawMessage
		SkipLaunch   bool `json:"skip_launch"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, &flyError{http.StatusBadRequest, "invalid_argument: " + err.Error()}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.addMachine(in.Name, in.Region, in.Config, time.Now())
	if err != nil {
		return nil, &flyError{http.StatusBadRequest, "invalid_argument: " + err.Error()}
	}
	if !in.SkipLaunch {
		f.boot(m)
	}
	return m.shown(), nil
}

// addMachine makes a machine that was created then. f.mu must be held.
func (f *fleet) addMachine(name, region string, config json.RawMessage, at time.Time) (*fleetMachine, error) {
	var c struct {
		Image    string
		Metadata map[string]string
		Mounts   []struct{ Volume string }
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("read the config of machine %s: %w", name, err)
	}
	stamp := at.UTC().Format(time.RFC3339)
	m := &fleetMachine{
		ID: newID(14), Name: name, State: "created", Region: region, InstanceID: newID(26), PrivateIP: "fdaa:0:1:a7b:2c5:1:9c1f:2", CreatedAt: stamp, UpdatedAt: stamp,
		Config: config, HostStatus: "ok", metadata: c.Metadata, changed: make(chan struct{}),
		ImageRef: fleetImage{Registry: "registry.fly.io", Repository: benchApp, Tag: "session", Digest: "sha256:" + newID(64)},
	}
	for _, mount := range c.Mounts {
		for _, v := range slices.Backward(f.volumes) {
			if v.ID == mount.Volume {
				v.Machine, v.Alloc = &m.ID, &m.ID
				break
			}
		}
	}
	m.Events = []fleetEvent{{newID(26), "launch", "created", "user", at.UnixMilli(), nil}}
	f.machines = append(f.machines, m)
	f.byID[m.ID] = m
	return m, nil
}

// bootTime is what a machine takes from a start until its runner answers.
const bootTime = 300 * time.Millisecond

// boot starts a machine. f.mu must be held.
func (f *fleet) boot(m *fleetMachine) {
	m.enter("starting", "start", "user", nil)
	time.AfterFunc(bootTime, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if m.State != "starting" {
			return
		}
		if m.runner == nil {
			m.runner = newScripted(f.script)
		}
		m.runner.boot()
		m.enter("started", "start", "flyd", nil)
	})
}

func (f *fleet) start(m *fleetMachine, _ *http.Request) (any, error) {
	if m.State != "stopped" && m.State != "created" {
		return nil, &flyError{http.StatusPreconditionFailed, "failed_precondition: machine still active, refusing to start"}
	}
	f.boot(m)
	return map[string]any{"previous_state": "stopped", "migrated": false, "new_host": ""}, nil
}

func (f *fleet) stop(m *fleetMachine, _ *http.Request) (any, error) {
	if m.State == "started" || m.State == "starting" {
		m.exit(true)
	}
	return map[string]any{"ok": true}, nil
}

// exit ends the machine's main process.
func (m *fleetMachine) exit(asked bool) {
	m.enter("stopped", "exit", "flyd", exitRequest(asked, time.Now()))
}

// exitRequest is what Fly tells of a process that ended well.
func exitRequest(asked bool, at time.Time) any {
	return map[string]any{"restart_count": 0, "exit_event": map[string]any{
		"exit_code": 0, "guest_exit_code": 0, "guest_signal": -1, "signal": -1, "oom_killed": false, "requested_stop": asked, "restarting": false,
		"exited_at": at.UTC().Format(time.RFC3339Nano), "guest_error": "", "error": "",
	}}
}

func (f *fleet) destroy(m *fleetMachine, _ *http.Request) (any, error) {
	m.enter("destroyed", "destroy", "user", nil)
	return map[string]any{"ok": true}, nil
}

func (f *fleet) wait(r *http.Request) (any, error) {
	q := r.URL.Query()
	seconds, err := strconv.Atoi(q.Get("timeout"))
	if err != nil || seconds < 1 || seconds > 60 {
		return nil, &flyError{http.StatusBadRequest, "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range [1s, 1m0s]"}
	}
	end := time.After(time.Duration(seconds) * time.Second)
	for {
		f.mu.Lock()
		m := f.byID[r.PathValue("id")]
		if m == nil {
			f.mu.Unlock()
			return nil, errNoMachine
		}
		state, changed, event := m.State, m.changed, m.Events[0].ID
		f.mu.Unlock()
		if slices.Contains(q["state"], state) {
			return map[string]any{"ok": true, "state": state, "event_id": event}, nil
		}
		select {
		case <-changed:
		case <-end:
			return nil, &flyError{http.StatusRequestTimeout, "deadline_exceeded: machine failed to reach desired state, currently " + state}
		case <-r.Context().Done():
			return nil, &flyError{http.StatusRequestTimeout, "canceled: the caller has gone"}
		}
	}
}

func lease(m *fleetMachine, r *http.Request) (any, error) {
	seconds, err := strconv.Atoi(r.URL.Query().Get("ttl"))
	if err != nil {
		return nil, &flyError{http.StatusBadRequest, "invalid_argument: ttl"}
	}
	if m.nonce == "" || time.Now().After(m.leased) {
		m.nonce = newID(12)
	}
	m.leased = time.Now().Add(time.Duration(seconds) * time.Second)
	return map[string]any{"status": "success", "data": map[string]any{
		"nonce": m.nonce, "expires_at": m.leased.Unix(), "owner": "bench@localhost", "version": m.InstanceID,
	}}, nil
}

func release(m *fleetMachine, _ *http.Request) (any, error) {
	m.nonce = ""
	return map[string]any{"status": "success", "data": map[string]any{"ok": true}}, nil
}

// exec has the runner of a started machine answer a verb.
func (f *fleet) exec(r *http.Request) (any, error) {
	var in struct {
		Command []string
		Stdin   string
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Command) == 0 {
		return nil, &flyError{http.StatusBadRequest, "invalid_argument: command is required"}
	}
	found, err := f.of(true, func(m *fleetMachine, _ *http.Request) (any, error) {
		if m.State != "started" {
			return nil, &flyError{http.StatusPreconditionFailed, "failed_precondition: machine not running, current state: '" + m.State + "'"}
		}
		return m, nil
	})(r)
	if err != nil {
		return nil, err
	}
	m := found.(*fleetMachine)
	reply, leaves, err := m.runner.answer(r.Context(), in.Command[len(in.Command)-1], []byte(in.Stdin))
	if err != nil {
		return map[string]any{"exit_code": 1, "stdout": "", "stderr": err.Error()}, nil
	}
	raw, err := json.Marshal(reply)
	if err != nil {
		return nil, fmt.Errorf("encode a runner's reply: %w", err)
	}
	if leaves {
		f.mu.Lock()
		m.exit(false)
		f.mu.Unlock()
	}
	return map[string]any{"exit_code": 0, "stdout": string(raw), "stderr": ""}, nil
}

// answered are the calls that were answered until now.
func (f *fleet) answered() []fleetCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// journals are the events of the newest turn of each machine, by turn.
func (f *fleet) journals() map[string][]runner.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string][]runner.Event{}
	for _, m := range f.machines {
		if m.runner == nil {
			continue
		}
		if t := m.runner.current(nil); t != nil {
			events, _ := t.after(0)
			out[t.id] = events
		}
	}
	return out
}
