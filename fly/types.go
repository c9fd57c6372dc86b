package fly

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// App is a Fly app.
type App struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Status  string `json:"status"`
	Network string `json:"network"`
}

// CreateApp asks for an app. Network is its private network, fixed at creation; empty: the organization's.
type CreateApp struct {
	Name    string `json:"name"`
	OrgSlug string `json:"org_slug"`
	Network string `json:"network,omitempty"`
}

// Volume is a disk on one host. It belongs to at most one machine.
type Volume struct {
	ID                string `json:"id"`
	Name              string `json:"name"`
	State             string `json:"state"`
	SizeGB            int    `json:"size_gb"`
	Region            string `json:"region"`
	AttachedMachineID string `json:"attached_machine_id"`
	CreatedAt         string `json:"created_at"`
	HostStatus        string `json:"host_status"`
}

// HostUnreachable is the host status of a machine or volume whose host Fly cannot reach: nothing is known of it but that it was there. Such
// hosts come back after minutes as a rule, after days at times.
const HostUnreachable = "unreachable"

// CreateVolume asks for a volume. Name: lower-case letters, digits and underscores, at most 30. Compute
// has it placed where such a machine fits. RequireUniqueZone is sent as false unless set, since Fly's
// default of true spreads volumes of one name over hosts until there are none left.
type CreateVolume struct {
	Name              string `json:"name"`
	Region            string `json:"region,omitempty"`
	SizeGB            int    `json:"size_gb"`
	RequireUniqueZone bool   `json:"require_unique_zone"`
	Compute           *Guest `json:"compute,omitempty"`
}

// Guest is the size of a machine.
type Guest struct {
	CPUKind  string `json:"cpu_kind"` // shared or performance
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memory_mb"`
}

// Duration is written as Go writes it ("30s"), and read as that or as a number of nanoseconds.
type Duration time.Duration

// MarshalJSON implements [json.Marshaler].
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		var n int64
		if err := json.Unmarshal(b, &n); err != nil {
			return fmt.Errorf("read duration %s: %w", b, err)
		}
		*d = Duration(n)
		return nil
	}
	parsed, err := time.ParseDuration(s)
	*d = Duration(parsed)
	return err
}

// Restart says what happens when the main process ends: no, on-failure (Fly's default) or always.
type Restart struct {
	Policy     string `json:"policy"`
	MaxRetries int    `json:"max_retries,omitempty"`
}

// StopConfig says how a machine is stopped. Fly's default signal is not settled: always set it.
type StopConfig struct {
	Signal  string   `json:"signal,omitempty"`
	Timeout Duration `json:"timeout,omitempty"` // at most 300 s
}

// Mount puts a volume into a machine.
type Mount struct {
	Volume string `json:"volume"`
	Path   string `json:"path"`
}

// MachineConfig is what of a machine's config we use. What else Fly sent is kept in it, so that an update,
// which replaces the whole, drops nothing.
type MachineConfig struct {
	Image       string            `json:"image"`
	Guest       *Guest            `json:"guest,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Mounts      []Mount           `json:"mounts,omitempty"`
	Restart     *Restart          `json:"restart,omitempty"`
	AutoDestroy bool              `json:"auto_destroy,omitempty"`
	StopConfig  *StopConfig       `json:"stop_config,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Files       []File            `json:"files,omitempty"`

	rest json.RawMessage // the whole as it was read
}

// File is written into the machine's file system at each boot. What else Fly sent of it is kept.
type File struct {
	GuestPath string `json:"guest_path"`
	RawValue  string `json:"raw_value,omitempty"` // base64; files of app secrets and the like have none
	Mode      int    `json:"mode,omitempty"`      // as a number: octal 0600 is 384

	rest map[string]json.RawMessage // the whole as it was read
}

type plainFile File

// UnmarshalJSON implements [json.Unmarshaler].
func (f *File) UnmarshalJSON(b []byte) error {
	var p plainFile
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*f = File(p)
	return json.Unmarshal(b, &f.rest)
}

// MarshalJSON implements [json.Marshaler].
func (f File) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(plainFile(f))
	if err != nil || len(f.rest) == 0 {
		return b, err
	}
	all := maps.Clone(f.rest)
	for _, k := range []string{"guest_path", "raw_value", "mode"} {
		delete(all, k)
	}
	own := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, err
	}
	maps.Copy(all, own)
	return json.Marshal(all)
}

type plainConfig MachineConfig

// UnmarshalJSON implements [json.Unmarshaler].
func (c *MachineConfig) UnmarshalJSON(b []byte) error {
	var p plainConfig
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*c = MachineConfig(p)
	c.rest = bytes.Clone(b) // a list has many of them: it is parsed for who writes it back
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (c MachineConfig) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(plainConfig(c))
	if err != nil || len(c.rest) == 0 {
		return b, err
	}
	own, all := map[string]any{}, map[string]any{}
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, err
	}
	if err := decodeNumbers(c.rest, &all); err != nil {
		return nil, err
	}
	if all == nil { // it was null
		return b, nil
	}
	return json.Marshal(overlay(all, own, configFields()))
}

func decodeNumbers(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // as they were written
	return d.Decode(v)
}

// fields names what of a JSON object is ours; a value that is not nil says the same of an object in it, or of those in a list.
type fields map[string]fields

func configFields() fields {
	return fields{
		"image": nil, "env": nil, "auto_destroy": nil, "metadata": nil, "files": nil,
		"guest":       {"cpu_kind": nil, "cpus": nil, "memory_mb": nil},
		"restart":     {"policy": nil, "max_retries": nil},
		"stop_config": {"signal": nil, "timeout": nil},
		"mounts":      {"volume": nil, "path": nil},
	}
}

// overlay is what was read, but for what is ours: there own counts, also in what it leaves out.
func overlay(read, own map[string]any, ours fields) map[string]any {
	out := maps.Clone(read)
	for k, inner := range ours {
		v, ok := own[k]
		if !ok {
			delete(out, k)
			continue
		}
		out[k] = merged(read[k], v, inner)
	}
	return out
}

func merged(read, own any, ours fields) any {
	if ours == nil {
		return own
	}
	switch v := own.(type) {
	case map[string]any:
		if was, ok := read.(map[string]any); ok {
			return overlay(was, v, ours)
		}
	case []any:
		was, _ := read.([]any)
		for i := range min(len(v), len(was)) {
			v[i] = merged(was[i], v[i], ours)
		}
	}
	return own
}

// Machine is a virtual machine.
type Machine struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	State      string         `json:"state"`
	Region     string         `json:"region"`
	InstanceID string         `json:"instance_id"` // another one after every update
	Config     *MachineConfig `json:"config"`      // nil when its host does not answer
	HostStatus string         `json:"host_status"`
	CreatedAt  string         `json:"created_at"`
	Nonce      string         `json:"nonce"` // only in the answer to a creation with a lease
	Events     []Event        `json:"events"`
}

// CreateMachine asks for a machine. Name is the only key that makes a creation idempotent.
type CreateMachine struct {
	Name        string         `json:"name"`
	Region      string         `json:"region,omitempty"`
	Config      *MachineConfig `json:"config"`
	SkipLaunch  bool           `json:"skip_launch,omitempty"`
	SkipSecrets bool           `json:"skip_secrets"`
	LeaseTTL    int            `json:"lease_ttl,omitempty"` // seconds
}

// UpdateMachine replaces a machine's whole config and restarts it.
type UpdateMachine struct {
	Config         *MachineConfig `json:"config"`
	CurrentVersion string         `json:"current_version,omitempty"` // refused unless this is its instance id
	SkipLaunch     bool           `json:"skip_launch,omitempty"`
}

// StopMachine says how to stop one; zero: as its config says.
type StopMachine struct {
	Signal  string
	Timeout time.Duration
}

// MachineFilter narrows a list of machines; all that is set must hold.
type MachineFilter struct {
	Metadata       map[string]string
	States         []string
	Region         string
	IncludeDeleted bool
	Summary        bool // without config, events and more
}

// WaitMachine says what to wait for: any of States.
type WaitMachine struct {
	States      []string
	InstanceID  string
	FromEventID string
}

// Event is something that happened to a machine; lists have the newest first.
type Event struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Status    string `json:"status"`
	Source    string `json:"source"`
	Timestamp int64  `json:"timestamp"` // unix milliseconds
	Request   *struct {
		ExitEvent    *ExitEvent `json:"exit_event"`
		MonitorEvent *struct {
			ExitEvent *ExitEvent `json:"exit_event"`
		} `json:"MonitorEvent"`
	} `json:"request"`
}

// ExitEvent tells how a machine's main process ended.
type ExitEvent struct {
	ExitCode      int  `json:"exit_code"`
	Signal        int  `json:"signal"`
	OOMKilled     bool `json:"oom_killed"` // something in the machine was killed for memory
	RequestedStop bool `json:"requested_stop"`

	At time.Time `json:"-"` // when the event was recorded
}

// LastExit returns the newest exit.
func (m *Machine) LastExit() (*ExitEvent, bool) {
	for _, e := range m.Events {
		if e.Type != "exit" || e.Request == nil {
			continue
		}
		exit := e.Request.ExitEvent
		if e.Request.MonitorEvent != nil && e.Request.MonitorEvent.ExitEvent != nil {
			exit = e.Request.MonitorEvent.ExitEvent
		}
		if exit == nil {
			exit = &ExitEvent{}
		}
		out := *exit
		out.At = time.UnixMilli(e.Timestamp)
		return &out, true
	}
	return nil, false
}

// Lease keeps others from changing a machine. Calls of its holder carry the nonce.
type Lease struct {
	Nonce     string `json:"nonce"`
	ExpiresAt int64  `json:"expires_at"` // unix seconds
	Owner     string `json:"owner"`
	Version   string `json:"version"`
}

// Exec is a command to run in a started machine. Fly is unreliable for commands above some 20 s and
// outputs above some 64 KiB.
type Exec struct {
	Command []string
	Stdin   string
	Timeout time.Duration
}

// ExecResult is how it ended; an ExitCode other than 0 is no error of the call.
type ExecResult struct {
	ExitCode int    `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}

// Logs asks for a page of an app's log.
type Logs struct {
	Machine   string
	NextToken string
}

// LogPage is one page. NextToken asks for what comes after it.
type LogPage struct {
	Entries   []LogEntry
	NextToken string
}

// LogEntry is one line of a machine's output.
type LogEntry struct {
	ID        string
	Timestamp string
	Message   string
	Machine   string
	Region    string
	Level     string
}
