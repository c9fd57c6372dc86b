package sessions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"flaudebot/fly"
	"flaudebot/runner"
)

// Metadata keys of everything that is ours on Fly. Nothing without MetaManaged is ever touched.
const (
	MetaManaged = "managed_by"
	MetaSession = "flaudebot_session"
	MetaThread  = "flaudebot_thread"
	MetaOwner   = "flaudebot_owner" // Slack user who started the session
	MetaOnce    = "flaudebot_once"  // set on ephemeral machines, which no record knows
	managedBy   = "flaudebot"
)

// mountPath is where a session's volume appears in its machine.
const mountPath = "/data"

// MachinesConfig says how session machines are made. Zero values mean what each comment says.
type MachinesConfig struct {
	Fly      *fly.Client
	Handover Handover // nil: exec
	App      string   // Fly app of the session machines; made when missing
	Org      string   // organization to make it in
	Regions  []string // in order of preference, at least one: a new session is made in the first that has room
	Image    string
	Guest    fly.Guest // zero: performance, 2 CPUs, 4096 MB
	VolumeGB int       // 0: 1
	// MaxMemoryMB and MaxVolumeGB bound what people may choose for their session after a turn that had too little; 0: 16384 and 20.
	MaxMemoryMB, MaxVolumeGB int

	TTL      time.Duration // of a session since its creation; 0: none
	Env      map[string]string
	Secrets  runner.Secrets
	Settings runner.Settings
	Repos    []runner.Repo

	// BootTimeout bounds the way from a start to a runner that answers; 0: 5 minutes.
	BootTimeout time.Duration
	// Patience is for how long a turn that has not started yet waits for Fly to have room or to
	// answer at all; 0: 2 minutes. One that has started is followed up 30 times as long, since its
	// machine works on.
	Patience time.Duration
	// LeaseTTL is the life of the machine lease that is held during a turn; 0: 30 s.
	LeaseTTL time.Duration
	Log      *slog.Logger
	// OnceBudget is what a run of [Machines.RunOnce] may cost that names none itself; nil: there is no bound.
	OnceBudget *runner.Budget
}

// Machines is the life cycle of sessions on Fly. It keeps no state: what it learns goes into the
// [Session] that it is given, and to the caller's save function as soon as it exists.
type Machines struct {
	cfg MachinesConfig
	log *slog.Logger
}

// NewMachines checks the configuration.
func NewMachines(cfg MachinesConfig) (*Machines, error) {
	if cfg.Fly == nil || cfg.App == "" || cfg.Image == "" {
		return nil, errors.New("session machines need a Fly client, an app and an image")
	}
	if len(cfg.Regions) == 0 {
		return nil, errors.New("session machines need a region")
	}
	if cfg.Handover == nil {
		cfg.Handover = ExecHandover{Fly: cfg.Fly}
	}
	if cfg.Guest == (fly.Guest{}) {
		cfg.Guest = fly.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 4096}
	}
	cfg.VolumeGB = max(cfg.VolumeGB, 1)
	cfg.MaxMemoryMB, cfg.MaxVolumeGB = cmp.Or(cfg.MaxMemoryMB, 16384), cmp.Or(cfg.MaxVolumeGB, 20)
	cfg.BootTimeout = orDefault(cfg.BootTimeout, 5*time.Minute)
	cfg.Patience = orDefault(cfg.Patience, 2*time.Minute)
	cfg.LeaseTTL = orDefault(cfg.LeaseTTL, 30*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Machines{cfg: cfg, log: cfg.Log}, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// Spec describes a session that does not exist yet. Its zero value takes the defaults of the
// configuration.
type Spec struct {
	Thread   Thread
	Owner    string
	About    string
	Repos    []runner.Repo
	VolumeGB int
	TTL      time.Duration
	With     *Effective // what its turns run with; nil: the defaults
}

// Save stores a session's record. It is called as soon as an id exists, before anything is done with it.
type Save func(context.Context, Session) error

// EnsureApp makes the app of the session machines if there is none, on a network of its own, so that
// what runs in a session reaches neither the bot nor Redis.
func (m *Machines) EnsureApp(ctx context.Context) error {
	_, err := m.cfg.Fly.EnsureApp(ctx, fly.CreateApp{Name: m.cfg.App, OrgSlug: m.cfg.Org, Network: m.cfg.App})
	return err
}

// policyName is that of the network policy of the sessions' app.
const policyName = "flaudebot-sessions"

// Isolate has sessions of the app reach each other no more over Fly's private network: a network policy lets nothing in but on a port that only root could
// listen on, where nothing does. Fly knows none that lets nothing in at all. Machines have it from their next start on.
func (m *Machines) Isolate(ctx context.Context) error {
	had, err := m.cfg.Fly.HasNetworkPolicy(ctx, m.cfg.App, policyName)
	if err != nil || had {
		return err
	}
	return m.cfg.Fly.CreateNetworkPolicy(ctx, m.cfg.App, fly.NetworkPolicy{
		Name: policyName, Selector: fly.PolicySelector{All: true},
		Rules: []fly.PolicyRule{{Action: "allow", Direction: "ingress", Ports: []fly.PolicyPort{{Protocol: "tcp", Port: 1}}}},
	})
}

// Begin names a new session. Nothing exists on Fly yet.
func (m *Machines) Begin(spec Spec, now time.Time) Session {
	with := m.orDefaults(spec.With)
	return Session{
		SessionID: uuid.NewString(), AppName: m.cfg.App, Region: with.Region, Guest: with.Guest,
		CreatedAt: now.UTC().Truncate(time.Second), TTLSeconds: int64(orDefault(spec.TTL, *with.TTL) / time.Second),
		Thread: spec.Thread, Owner: spec.Owner, About: spec.About, Repos: spec.Repos, LastTurn: now.UTC(), VolumeGB: cmp.Or(max(spec.VolumeGB, 0), with.VolumeGB),
	}
}

// orDefaults is what a turn runs with; nil: the defaults.
func (m *Machines) orDefaults(with *Effective) Effective {
	var e Effective
	if with != nil {
		e = *with
	}
	e.Settings = e.over(m.defaults())
	return e
}

// defaults are the settings of a channel that sets nothing.
func (m *Machines) defaults() Settings {
	seconds := func(n int) *time.Duration { return new(time.Duration(n) * time.Second) }
	c := m.cfg
	return Settings{
		Repos: m.defaultRepos(), Model: c.Settings.Model, Fallback: c.Settings.Fallback, Effort: c.Settings.Effort, PermissionMode: c.Settings.PermissionMode,
		Hosts: c.Settings.Hosts, Guest: c.Guest, Region: c.Regions[0], VolumeGB: c.VolumeGB, TTL: new(c.TTL),
		Linger: seconds(c.Settings.LingerSeconds), Timeout: seconds(c.Settings.TimeoutSeconds),
	}
}

// defaultRepos are the repositories of the settings, never nil.
func (m *Machines) defaultRepos() []runner.Repo { return append([]runner.Repo{}, m.cfg.Repos...) }

// Create makes volume and machine for a session that Begin named, or what of them is missing: it may be
// called again after a crash at any point. On a failure that leaves no machine, the volume of a session
// without a conversation is removed: the next try may find room on another host.
func (m *Machines) Create(ctx context.Context, s *Session, save Save) error {
	return m.create(ctx, s, save, m.orDefaults(nil))
}

func (m *Machines) createVolume(ctx context.Context, s *Session, save Save) error {
	// A crash may have come between the creation and the save.
	found, err := m.volumesOf(ctx, *s)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		s.VolumeID, s.Region = found[0].ID, found[0].Region
		return save(ctx, *s)
	}
	guest := m.guest(*s)
	vol, err := m.cfg.Fly.CreateVolume(ctx, s.AppName, fly.CreateVolume{
		Name: volumeName(s.SessionID), Region: s.Region, SizeGB: m.volumeGB(*s), Compute: &guest,
	})
	if err != nil {
		return err
	}
	s.VolumeID, s.Region = vol.ID, vol.Region
	return save(ctx, *s)
}

// volumeGB is the size of a session's volume: its own, or else that of the configuration.
func (m *Machines) volumeGB(s Session) int {
	if s.VolumeGB > 0 {
		return s.VolumeGB
	}
	return m.cfg.VolumeGB
}

// guest is the size of a session's machine: its own, or else that of the configuration.
func (m *Machines) guest(s Session) fly.Guest { return cmp.Or(s.Guest, m.cfg.Guest) }

// volumesOf lists the volumes that have the session's name, which is its alone, and are in no machine.
func (m *Machines) volumesOf(ctx context.Context, s Session) ([]fly.Volume, error) {
	all, err := m.cfg.Fly.Volumes(ctx, s.AppName)
	if err != nil && !errors.Is(err, fly.ErrNotFound) {
		return nil, fmt.Errorf("look for the volume of session %s: %w", s.SessionID, err)
	}
	return slices.DeleteFunc(all, func(v fly.Volume) bool {
		return v.Name != volumeName(s.SessionID) || v.AttachedMachineID != ""
	}), nil
}

// dropVolume removes the volume of a session whose machine cannot be made. It is best effort: what
// stays is found by its name.
func (m *Machines) dropVolume(ctx context.Context, s *Session, save Save) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := m.cfg.Fly.DeleteVolume(ctx, s.AppName, s.VolumeID); err != nil {
		m.log.WarnContext(ctx, "volume left behind", "volume", s.VolumeID, "session", s.SessionID, "err", err)
		return
	}
	s.VolumeID = ""
	if err := save(ctx, *s); err != nil {
		m.log.WarnContext(ctx, "session not saved", "session", s.SessionID, "err", err)
	}
}

// createMachine makes a machine where the session's volume is, under a name that is its only idempotency
// key: if the name is taken, or the answer was lost, the machine of that name is ours if it carries the
// same session.
func (m *Machines) createMachine(ctx context.Context, s Session) (*fly.Machine, error) {
	mach, err := m.cfg.Fly.CreateMachine(ctx, s.AppName, fly.CreateMachine{
		Name: machineName(s.SessionID), Region: s.Region, Config: m.machineConfig(s), SkipSecrets: true, SkipLaunch: m.starts(),
	})
	if err == nil {
		return mach, nil
	}
	if !errors.Is(err, fly.ErrNameTaken) && !isPassing(err) {
		return nil, err
	}
	var taken *fly.Error
	if errors.As(err, &taken) && taken.MachineID != "" { // what a list does not have yet its id tells
		mach, lookErr := m.cfg.Fly.Machine(ctx, s.AppName, taken.MachineID)
		if lookErr == nil && s.owns(*mach) && mach.State != "destroyed" && mach.State != "destroying" {
			return mach, nil
		}
		return nil, errors.Join(err, lookErr)
	}
	found, lookErr := m.machinesOf(ctx, s)
	if lookErr != nil {
		return nil, errors.Join(err, lookErr)
	}
	if len(found) > 0 {
		return &found[0], nil
	}
	return nil, err
}

// managed lists the machines that carry our mark; none of an app that is not made yet.
func (m *Machines) managed(ctx context.Context) ([]fly.Machine, error) {
	machines, err := m.cfg.Fly.Machines(ctx, m.cfg.App, fly.MachineFilter{Metadata: map[string]string{MetaManaged: managedBy}})
	return machines, ignoreNotFound(err)
}

// machinesOf lists the session's machines that are not on their way out: at most one, since the name is
// the session's.
func (m *Machines) machinesOf(ctx context.Context, s Session) ([]fly.Machine, error) {
	found, err := m.cfg.Fly.Machines(ctx, s.AppName, fly.MachineFilter{Metadata: map[string]string{MetaSession: s.SessionID}})
	if err != nil && !errors.Is(err, fly.ErrNotFound) {
		return nil, fmt.Errorf("look for the machine of session %s: %w", s.SessionID, err)
	}
	return slices.DeleteFunc(found, func(mach fly.Machine) bool {
		return mach.State == "destroyed" || mach.State == "destroying" || !s.owns(mach)
	}), nil
}

// owns reports whether a machine has the session's name, and its marks or, should somebody have taken those, its volume.
func (s Session) owns(mach fly.Machine) bool {
	if mach.Name != machineName(s.SessionID) || mach.Config == nil {
		return false
	}
	if mach.Config.Metadata[MetaManaged] == managedBy && mach.Config.Metadata[MetaSession] == s.SessionID {
		return true
	}
	return s.VolumeID != "" && slices.ContainsFunc(mach.Config.Mounts, func(at fly.Mount) bool { return at.Volume == s.VolumeID })
}

// machineConfig is the same for every turn: it holds no prompt and no secret, and is never updated for one. Its guest alone may change.
func (m *Machines) machineConfig(s Session) *fly.MachineConfig {
	guest := m.guest(s)
	cfg := &fly.MachineConfig{
		Image:      m.cfg.Image,
		Guest:      &guest,
		Env:        m.cfg.Env,
		Restart:    &fly.Restart{Policy: "no"},
		StopConfig: &fly.StopConfig{Signal: "SIGTERM", Timeout: fly.Duration(30 * time.Second)},
		Metadata:   map[string]string{MetaManaged: managedBy, MetaSession: s.SessionID, MetaThread: s.Thread.Key()},
	}
	if s.Owner != "" {
		cfg.Metadata[MetaOwner] = s.Owner
	}
	if s.Ephemeral {
		cfg.Metadata[MetaOnce] = "1"
	}
	if s.VolumeID != "" {
		cfg.Mounts = []fly.Mount{{Volume: s.VolumeID, Path: mountPath}}
	}
	return cfg
}

// Destroy removes machine and volume. It may be called again after any failure, and for a session of
// which some is gone already. What does not carry the session's mark is left alone.
func (m *Machines) Destroy(ctx context.Context, s Session) error {
	if s.AppName == "" { // it was never made
		return nil
	}
	if err := m.destroyMachine(ctx, s); err != nil {
		return err
	}
	return m.destroyVolume(ctx, s)
}

func (m *Machines) destroyMachine(ctx context.Context, s Session) error {
	id := s.MachineID
	if id == "" { // a crash may have come between its creation and the save
		found, err := m.find(ctx, s)
		if err != nil || found == "" {
			return err
		}
		id = found
	}
	mach, err := m.cfg.Fly.Machine(ctx, s.AppName, id)
	switch {
	case errors.Is(err, fly.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("look at machine %s: %w", id, err)
	case mach.State == "destroyed":
		return nil
	case mach.Config != nil && !s.owns(*mach): // without its config we go by the id that Fly gave us
		m.log.WarnContext(ctx, "machine left alone: it does not carry the session's mark", "machine", id, "session", s.SessionID)
		return nil
	}
	if err := m.cfg.Fly.DeleteMachine(ctx, s.AppName, id, true, ""); err != nil {
		return fmt.Errorf("destroy machine %s: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = m.cfg.Fly.WaitMachine(ctx, s.AppName, id, fly.WaitMachine{States: []string{"destroyed"}})
	if err != nil && !errors.Is(err, fly.ErrNotFound) {
		return fmt.Errorf("wait for machine %s to be destroyed: %w", id, err)
	}
	return nil
}

func (m *Machines) destroyVolume(ctx context.Context, s Session) error {
	if s.VolumeID == "" {
		if s.Ephemeral {
			return nil
		}
		found, err := m.volumesOf(ctx, s) // as with the machine
		if err != nil || len(found) == 0 {
			return err
		}
		s.VolumeID = found[0].ID
	}
	vol, err := m.cfg.Fly.Volume(ctx, s.AppName, s.VolumeID)
	switch {
	case errors.Is(err, fly.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("look at volume %s: %w", s.VolumeID, err)
	case vol.Dying():
		return nil
	case vol.Name != volumeName(s.SessionID):
		m.log.WarnContext(ctx, "volume left alone: it does not have the session's name", "volume", s.VolumeID, "session", s.SessionID)
		return nil
	}
	if err := m.cfg.Fly.DeleteVolume(ctx, s.AppName, s.VolumeID); err != nil {
		return fmt.Errorf("remove volume %s: %w", s.VolumeID, err)
	}
	return nil
}

// remove destroys a session, again and again for as long as what is in the way may pass, up to patience.
func (m *Machines) remove(ctx context.Context, s Session, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for pause := 500 * time.Millisecond; ; pause = min(pause*2, 15*time.Second) {
		err := m.Destroy(ctx, s)
		if err == nil || !(isPassing(err) || errors.Is(err, fly.ErrPrecondition)) || time.Now().Add(pause).After(deadline) {
			return err
		}
		if pauseErr := pauseFor(ctx, pause, nil, true); pauseErr != nil {
			return errors.Join(err, pauseErr)
		}
	}
}

// machineName is the machine's name: Fly allows letters, digits and dashes, under 63.
func machineName(sessionID string) string { return "fb-" + sessionID }

// volumeName is the volume's name: Fly allows lower-case letters, digits and underscores, at most 30.
func volumeName(sessionID string) string {
	return "fb_" + strings.ReplaceAll(sessionID, "-", "")[:27]
}

// isPassing reports whether a Fly error may go away by itself and leaves open what happened.
func isPassing(err error) bool {
	return errors.Is(err, fly.ErrUnavailable) || errors.Is(err, fly.ErrTimeout) || errors.Is(err, fly.ErrRateLimited) ||
		errors.Is(err, fly.ErrLeaseHeld) || errors.Is(err, context.DeadlineExceeded)
}
