package fly

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// state is all that survives a restart of the stand-in.
type state struct {
	Apps     map[string]*app     `json:"apps"`
	Volumes  map[string]*volume  `json:"volumes"`
	Machines map[string]*machine `json:"machines"`
}

type app struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Org       string   `json:"org"`
	Network   string   `json:"network"`
	CreatedAt int64    `json:"created_at"` // unix ms
	Key       string   `json:"key"`        // idempotency key it was created with
	Policies  []policy `json:"policies,omitempty"`
}

// policy is a network policy. It is kept, and holds nobody to anything: the machines here have no network of their own.
type policy struct {
	ID       string          `json:"id"`
	Name     string          `json:"name"`
	Selector json.RawMessage `json:"selector"`
	Rules    []policyRule    `json:"rules"`
}

type policyRule struct {
	Action    string `json:"action"`
	Direction string `json:"direction"`
	Ports     []struct {
		Protocol string `json:"protocol"`
		Port     int    `json:"port"`
	} `json:"ports"`
}

type volume struct {
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
	FSType     string  `json:"fstype"`
	HostStatus string  `json:"host_status"`
	Retention  int     `json:"snapshot_retention"` // days
	AutoBackup bool    `json:"auto_backup_enabled"`
	BytesTotal int64   `json:"bytes_total"`
	BytesUsed  int64   `json:"bytes_used"` // when one volume is read

	OwnedBy   string `json:"local_app"`                  // the app, which Fly does not tell
	DeletedAt int64  `json:"local_deleted_at,omitempty"` // unix ms
}

// machine is Fly's machine object; config is kept as it came, unknown fields included.
type machine struct {
	ID         string                     `json:"id"`
	Name       string                     `json:"name"`
	State      string                     `json:"state"`
	Region     string                     `json:"region"`
	InstanceID string                     `json:"instance_id"`
	Version    string                     `json:"version"`
	PrivateIP  string                     `json:"private_ip"`
	Config     map[string]json.RawMessage `json:"config"`
	CreatedAt  string                     `json:"created_at"`
	UpdatedAt  string                     `json:"updated_at"`
	Events     []event                    `json:"events"`
	HostStatus string                     `json:"host_status"`
	ImageRef   map[string]string          `json:"image_ref"`
	Cordoned   bool                       `json:"cordoned"`

	OwnedBy     string    `json:"local_app"`
	Versions    []version `json:"local_versions"`
	Lease       *lease    `json:"local_lease,omitempty"`
	ExitedAt    int64     `json:"local_exited_at,omitempty"`    // unix ms: start is refused just after
	DestroyedAt int64     `json:"local_destroyed_at,omitempty"` // unix ms: it is forgotten some time after
	Restarts    []int64   `json:"local_restarts,omitempty"`     // unix ms, by the restart policy

	former    string    // the state before State
	enteredAt time.Time // when State began
}

// version is a config that a machine has, or had.
type version struct {
	Version string                     `json:"version"`
	Config  map[string]json.RawMessage `json:"user_config"`
}

type lease struct {
	Nonce       string `json:"nonce,omitempty"`
	ExpiresAt   int64  `json:"expires_at"` // unix seconds
	Owner       string `json:"owner"`
	Description string `json:"description"`
	Version     string `json:"version"`
}

type event struct {
	ID        string         `json:"id"`
	Type      string         `json:"type"`
	Status    string         `json:"status"`
	Source    string         `json:"source"`
	Timestamp int64          `json:"timestamp"`
	Request   map[string]any `json:"request,omitempty"`
}

// config are the fields of a machine's config that the stand-in acts on.
type config struct {
	Image string            `json:"image"`
	Env   map[string]string `json:"env"`
	Init  struct {
		Exec       []string `json:"exec"`
		Entrypoint []string `json:"entrypoint"`
		Cmd        []string `json:"cmd"`
		SwapMB     int      `json:"swap_size_mb"`
	} `json:"init"`
	Mounts []struct {
		Volume string `json:"volume"`
		Path   string `json:"path"`
	} `json:"mounts"`
	Guest *struct {
		MemoryMB int `json:"memory_mb"`
	} `json:"guest"`
	Schedule string `json:"schedule"`
	Restart  *struct {
		Policy     string `json:"policy"`
		MaxRetries int    `json:"max_retries"`
	} `json:"restart"`
	AutoDestroy bool `json:"auto_destroy"`
	StopConfig  *struct {
		Signal  string   `json:"signal"`
		Timeout duration `json:"timeout"`
	} `json:"stop_config"`
	Metadata map[string]string `json:"metadata"`
	Files    []configFile      `json:"files"`
}

// mountPath is where the machine's volume appears, or would.
func (c config) mountPath() string {
	if len(c.Mounts) > 0 {
		return c.Mounts[0].Path
	}
	return "/data"
}

// duration reads Go's text, or a number of nanoseconds.
type duration time.Duration

func (d *duration) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		parsed, err := time.ParseDuration(text)
		*d = duration(parsed)
		return err
	}
	var n int64
	err := json.Unmarshal(b, &n)
	*d = duration(n)
	return err
}

func (m *machine) config() (config, error) {
	var c config
	raw, err := json.Marshal(m.Config)
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		return c, fail(400, "invalid_argument: config: %s", err)
	}
	return c, nil
}

// memory of the machine in MB; Fly's smallest is what one gets that names none.
func (c config) memory() int {
	if c.Guest == nil || c.Guest.MemoryMB == 0 {
		return 256
	}
	return c.Guest.MemoryMB
}

// How many events Fly shows with a machine, and how many it knows.
const (
	shownEvents = 20
	keptEvents  = 50
)

// add records an event, the newest first. s.mu must be held.
func (s *Server) add(m *machine, kind, status, source string, request map[string]any) {
	e := event{ID: s.ids.next(), Type: kind, Status: status, Source: source, Timestamp: time.Now().UnixMilli(), Request: request}
	m.Events = append([]event{e}, m.Events...)
	m.Events = m.Events[:min(keptEvents, len(m.Events))]
	m.UpdatedAt = stamp()
}

// enter changes the machine's state. s.mu must be held.
func (m *machine) enter(state string) {
	if m.State != state {
		m.former, m.State, m.enteredAt = m.State, state, time.Now()
	}
}

// stamp is the time in RFC 3339, always equally long: stamps sort as the times do.
func stamp() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00") }

// show is the machine as a caller sees it. s.mu must be held.
func (s *Server) show(m *machine, q url.Values) map[string]any {
	raw, _ := json.Marshal(m)
	var out map[string]any
	_ = json.Unmarshal(raw, &out)
	for name := range out {
		if strings.HasPrefix(name, "local_") {
			delete(out, name)
		}
	}
	if events, ok := out["events"].([]any); ok && len(events) > shownEvents {
		out["events"] = events[:shownEvents]
	}
	trouble := s.trouble[m.ID]
	if trouble.unreachable() {
		out["host_status"], out["config"], out["incomplete_config"] = trouble.Host, nil, out["config"]
	}
	if stale := time.Duration(trouble.StaleMS) * time.Millisecond; stale > 0 && m.former != "" && time.Since(m.enteredAt) < stale {
		out["state"] = m.former
	}
	if q.Get("include_leases") == "true" && m.leased() {
		out["lease"] = map[string]any{"description": m.Lease.Description, "expires_at": m.Lease.ExpiresAt, "owner": m.Lease.Owner}
	}
	if q.Get("summary") == "true" {
		for _, f := range []string{"config", "incomplete_config", "checks", "events", "host_status", "nonce"} {
			delete(out, f)
		}
	}
	return out
}

func (s state) sorted() []*machine {
	return slices.SortedFunc(maps.Values(s.Machines), func(a, b *machine) int {
		return cmp.Or(strings.Compare(a.CreatedAt, b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
}

// forget drops what has been gone for so long that Fly knows it no more. s.mu must be held.
func (s *Server) forget() {
	now := time.Now()
	for id, m := range s.state.Machines {
		if m.State == "destroyed" && now.Sub(time.UnixMilli(m.DestroyedAt)) > s.cfg.Remembered {
			delete(s.state.Machines, id)
			delete(s.logs, id)
			delete(s.boots, id)
			delete(s.trouble, id)
		}
	}
	for id, v := range s.state.Volumes {
		if v.State == "pending_destroy" && now.Sub(time.UnixMilli(v.DeletedAt)) > rememberedVolume {
			delete(s.state.Volumes, id)
		}
	}
}

// rememberedVolume is how long a deleted volume answers.
const rememberedVolume = 24 * time.Hour

func (s *Server) stateFile() string { return filepath.Join(s.cfg.Dir, "state.json") }

// save writes the state atomically. s.mu must be held.
func (s *Server) save() error {
	raw, err := json.Marshal(s.state)
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	tmp := s.stateFile() + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return fmt.Errorf("keep the state: %w", err)
	}
	return os.Rename(tmp, s.stateFile())
}

// touch keeps the state and wakes those who wait for a change. s.mu must be held.
func (s *Server) touch() {
	s.forget()
	if err := s.save(); err != nil {
		s.log.Error("state not kept", "err", err)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) load() error {
	s.state = state{Apps: map[string]*app{}, Volumes: map[string]*volume{}, Machines: map[string]*machine{}}
	raw, err := os.ReadFile(s.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s.state)
	}
	if err != nil {
		return fmt.Errorf("read the kept state in %s: %w", s.stateFile(), err)
	}
	for _, m := range s.state.Machines {
		switch m.State {
		case "destroyed", "stopped", "failed":
		case "suspended": // its memory is lost: it starts cold
		case "destroying":
			s.destroyed(m)
		default:
			m.enter("stopped")
			s.add(m, "exit", "stopped", "flyd", exitRequest(exit{code: 137, signal: 9}, exitNote{}))
		}
	}
	return s.save()
}
