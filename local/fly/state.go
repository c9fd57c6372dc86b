package fly

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// state is all that survives a restart of the stand-in.
type state struct {
	Apps     map[string]*app     `json:"apps"`
	Volumes  map[string]*volume  `json:"volumes"`
	Machines map[string]*machine `json:"machines"`
}

type app struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Org     string `json:"org"`
	Network string `json:"network"`
}

type volume struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	App       string  `json:"-"`
	State     string  `json:"state"`
	SizeGB    int     `json:"size_gb"`
	Region    string  `json:"region"`
	Zone      string  `json:"zone"`
	Encrypted bool    `json:"encrypted"`
	Machine   *string `json:"attached_machine_id"`
	Alloc     *string `json:"attached_alloc_id"`
	CreatedAt string  `json:"created_at"`
	FSType    string  `json:"fstype"`
	Host      string  `json:"host_status"`
	OwnedBy   string  `json:"local_app"` // the app, which Fly does not tell
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
	Nonce      string                     `json:"nonce,omitempty"`

	OwnedBy  string                       `json:"local_app"`
	Versions []map[string]json.RawMessage `json:"local_versions"`
	Lease    *lease                       `json:"local_lease,omitempty"`
	ExitedAt int64                        `json:"local_exited_at,omitempty"` // unix ms: start is refused just after
	Restarts int                          `json:"local_restarts,omitempty"`
}

type lease struct {
	Nonce       string `json:"nonce"`
	ExpiresAt   int64  `json:"expires_at"`
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
	} `json:"init"`
	Mounts []struct {
		Volume string `json:"volume"`
		Path   string `json:"path"`
	} `json:"mounts"`
	Restart *struct {
		Policy     string `json:"policy"`
		MaxRetries int    `json:"max_retries"`
	} `json:"restart"`
	AutoDestroy bool `json:"auto_destroy"`
	StopConfig  *struct {
		Signal  string   `json:"signal"`
		Timeout duration `json:"timeout"`
	} `json:"stop_config"`
	Metadata map[string]string `json:"metadata"`
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

// keptEvents is how many events Fly shows with a machine.
const keptEvents = 20

// add records an event, the newest first.
func (m *machine) add(kind, status, source string, request map[string]any) {
	e := event{ID: newULID(), Type: kind, Status: status, Source: source, Timestamp: time.Now().UnixMilli(), Request: request}
	m.Events = append([]event{e}, m.Events...)
	if len(m.Events) > 50 {
		m.Events = m.Events[:50]
	}
	m.UpdatedAt = stamp()
}

func stamp() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// shown is the machine as a caller sees it.
func (m *machine) shown() map[string]any {
	raw, _ := json.Marshal(m)
	var out map[string]any
	_ = json.Unmarshal(raw, &out)
	for _, own := range []string{"local_app", "local_versions", "local_lease", "local_exited_at", "local_restarts"} {
		delete(out, own)
	}
	if events, ok := out["events"].([]any); ok && len(events) > keptEvents {
		out["events"] = events[:keptEvents]
	}
	return out
}

func (s state) sorted() []*machine {
	return slices.SortedFunc(maps.Values(s.Machines), func(a, b *machine) int {
		if a.CreatedAt < b.CreatedAt {
			return -1
		}
		return 1
	})
}

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
		case "destroyed", "stopped":
		case "destroying":
			m.State = "destroyed"
		default:
			m.State = "stopped"
			m.add("exit", "stopped", "flyd", exitRequest(exit{code: 137, signal: 9}, false, false))
		}
	}
	return nil
}
