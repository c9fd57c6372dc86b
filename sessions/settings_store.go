package sessions

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"flaudebot/runner"
)

//go:embed settings.lua
var settingsScript string

// ErrSettingsChanged says that somebody else has changed the settings since they were read. See [SettingsChangedError].
var ErrSettingsChanged = errors.New("the settings were changed meanwhile")

// SettingsChangedError is [ErrSettingsChanged] with what they are by now: who changed them, when, and to what.
type SettingsChangedError struct{ Now Settings }

func (e SettingsChangedError) Error() string {
	return fmt.Sprintf("%s: by %s, version %d", ErrSettingsChanged, e.Now.ChangedBy, e.Now.Version)
}

// Is has errors.Is find [ErrSettingsChanged].
func (e SettingsChangedError) Is(err error) bool { return err == ErrSettingsChanged }

// errDamaged says that a channel's settings cannot be read.
var errDamaged = errors.New("damaged settings")

func (st *store) settings(team, channel string) string {
	return st.prefix + "settings:" + team + ":" + channel
}

// storedSettings are the settings of a channel with its secrets as they are stored.
type storedSettings struct {
	Settings
	sealed map[string]string // name → sealed value
	rest   Rest
}

// Settings reads a channel's settings; those of a channel that has none are zero.
func (st *store) Settings(ctx context.Context, team, channel string) (storedSettings, error) {
	var out storedSettings
	fields, err := st.rdb.HGetAll(ctx, st.settings(team, channel)).Result()
	if err != nil || len(fields) == 0 {
		if err != nil {
			err = fmt.Errorf("read the settings of %s: %w", channel, err)
		}
		return out, err
	}
	if out.rest, err = readFields([]byte(fields["json"]), &out.Settings); err != nil {
		return storedSettings{}, fmt.Errorf("%w of %s: %w", errDamaged, channel, err)
	}
	if err := json.Unmarshal([]byte(fields["secrets"]), &out.sealed); err != nil {
		return storedSettings{}, fmt.Errorf("%w of %s: secrets: %w", errDamaged, channel, err)
	}
	return out, nil
}

// PutSettings writes them if nobody else has since version was; false: somebody has. With them goes an entry of the audit record; nil: none.
func (st *store) PutSettings(ctx context.Context, team, channel string, version int64, s storedSettings, e *Entry) (bool, error) {
	entry := ""
	if e != nil {
		var err error
		if entry, err = encodeEntry(*e); err != nil {
			return false, err
		}
	}
	body, err := writeFields(s.Settings, s.rest)
	if err != nil {
		return false, fmt.Errorf("encode the settings of %s: %w", channel, err)
	}
	secrets, err := json.Marshal(s.sealed)
	if err != nil {
		return false, fmt.Errorf("encode the secrets of %s: %w", channel, err)
	}
	ok, err := st.change.Run(ctx, st.rdb, []string{st.settings(team, channel), st.audit()},
		strconv.FormatInt(version, 10), strconv.FormatInt(s.Version, 10), body, secrets, entry, st.minID()).Int()
	if err != nil {
		return false, fmt.Errorf("save the settings of %s: %w", channel, err)
	}
	return ok == 1, nil
}

// Settings are those of a channel, as its admins have set them: a zero field stands for the default.
func (sv *Service) Settings(ctx context.Context, team, channel string) (Settings, error) {
	s, err := sv.store.Settings(ctx, team, channel)
	return s.Settings, err
}

// DefaultSettings are what a channel has that sets nothing.
func (sv *Service) DefaultSettings() Settings {
	var def Settings
	if sv.cfg.Machines != nil {
		def = sv.cfg.Machines.defaults()
	}
	if usd := sv.cfg.Budgets.PerChannel; usd > 0 {
		def.BudgetUSD = &usd
	}
	return def
}

// KeepsSecrets reports whether secrets can be stored: there is a key for them.
func (sv *Service) KeepsSecrets() bool { return sv.cfg.Keys != nil }

// SaveSettings stores what by, a Slack user, has set for a channel, and returns it as it is stored. s.Version must be that of the
// settings that were read: [ErrSettingsChanged] if others have changed them since. s.Secrets names all secrets that there are to be;
// values are those of the new and the changed ones, the others keep theirs, and what is not named any more is removed.
// What is wrong with a field is [FieldErrors].
func (sv *Service) SaveSettings(ctx context.Context, team, channel, by string, s Settings, values map[string]string) (Settings, error) {
	had, err := sv.store.Settings(ctx, team, channel)
	if err != nil {
		return Settings{}, err
	}
	if had.Version != s.Version {
		return Settings{}, SettingsChangedError{had.Settings}
	}
	all := maps.Clone(values)
	next := storedSettings{Settings: s, sealed: map[string]string{}, rest: had.rest}
	var bad FieldErrors
	for _, name := range s.Secrets {
		at := place{team, channel, name}
		value, given := values[name]
		sealed, kept := had.sealed[name]
		switch {
		case !given && !kept:
			bad = append(bad, FieldError{FieldSecrets, name + " has no value yet"})
			continue
		case given:
			if next.sealed[name], err = sv.cfg.Keys.seal(at, value); err != nil {
				return Settings{}, FieldErrors{{FieldSecrets, err.Error()}}
			}
			continue
		}
		next.sealed[name] = sealed
		if value, old, err := sv.cfg.Keys.open(at, sealed); err == nil { // else the next turn says so
			if all == nil {
				all = map[string]string{}
			}
			all[name] = value
			if old {
				if next.sealed[name], err = sv.cfg.Keys.seal(at, value); err != nil {
					return Settings{}, err
				}
			}
		}
	}
	if len(bad) > 0 {
		return Settings{}, bad[:1]
	}
	if err := s.Check(all); err != nil {
		return Settings{}, err
	}
	next.Version, next.ChangedBy, next.ChangedAt = s.Version+1, by, time.Now().UTC().Truncate(time.Second)
	fields := changed(had.Settings, s, values)
	ok, err := sv.store.PutSettings(ctx, team, channel, s.Version, next, &Entry{
		ID: fmt.Sprintf("%s:%s:%s:%d", SettingsSet, team, channel, next.Version), What: SettingsSet, By: by, Team: team, Channel: channel,
		Set: &Set{Version: next.Version, Fields: fields},
	})
	switch {
	case err != nil:
		return Settings{}, err
	case !ok:
		now, err := sv.Settings(ctx, team, channel)
		return Settings{}, errors.Join(SettingsChangedError{now}, err)
	}
	sv.log.InfoContext(ctx, "settings changed", "team", team, "channel", channel, "by", by, "version", next.Version, "fields", fields)
	return next.Settings, nil
}

// changed names the fields that a change is about, for the log: no values.
func changed(was, is Settings, values map[string]string) []string {
	var out []string
	old, now := fieldsOf(was), fieldsOf(is)
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if string(old[name]) != string(now[name]) {
			out = append(out, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, there := old[name]; !there {
			out = append(out, name)
		}
	}
	if len(values) > 0 && !slices.Contains(out, string(FieldSecrets)) {
		out = append(out, string(FieldSecrets))
	}
	return out
}

func fieldsOf(s Settings) map[string]json.RawMessage {
	s.Version, s.ChangedBy, s.ChangedAt = 0, "", time.Time{}
	raw, _ := json.Marshal(s) // these types always encode
	var out map[string]json.RawMessage
	_ = json.Unmarshal(raw, &out)
	return out
}

// effective is what a turn in a channel runs with. With [ErrSealed] it lacks secrets, with errDamaged all that the channel has set.
func (sv *Service) effective(ctx context.Context, t Turn) (Effective, error) {
	team, channel := t.Thread.Team, t.Thread.Channel
	s, err := sv.store.Settings(ctx, team, channel)
	if err != nil && !errors.Is(err, errDamaged) {
		return Effective{}, err
	}
	e := Effective{Settings: s.Settings.with(t.Overrides).over(sv.DefaultSettings()), pinned: s.Region != ""}
	if err != nil {
		return e, err
	}
	if len(s.Secrets) > 0 {
		e.secrets = map[string]string{}
	}
	stale := false
	for _, name := range s.Secrets {
		value, old, err := sv.cfg.Keys.open(place{team, channel, name}, s.sealed[name])
		if err != nil {
			return e, err
		}
		e.secrets[name] = value
		stale = stale || old
	}
	if stale {
		sv.reseal(ctx, team, channel, s, e.secrets)
	}
	return e, nil
}

// reseal stores a channel's secrets under the newest key. It is best effort: the older key is still there.
func (sv *Service) reseal(ctx context.Context, team, channel string, s storedSettings, values map[string]string) {
	next := storedSettings{Settings: s.Settings, sealed: map[string]string{}, rest: s.rest}
	for name, value := range values {
		sealed, err := sv.cfg.Keys.seal(place{team, channel, name}, value)
		if err != nil {
			return
		}
		next.sealed[name] = sealed
	}
	if _, err := sv.store.PutSettings(ctx, team, channel, s.Version, next, nil); err != nil {
		sv.log.WarnContext(ctx, "secrets not sealed anew", "channel", channel, "err", err)
		return
	}
	sv.log.InfoContext(ctx, "secrets sealed anew under the newest key", "channel", channel)
}

// Effective is what a turn runs with: what its message says over the channel's settings, and those over the defaults.
type Effective struct {
	Settings
	secrets map[string]string
	pinned  bool // the region is the channel's own
}

// repos are the repositories of a session that names none; never nil.
func (e Effective) repos() []runner.Repo { return append([]runner.Repo{}, e.Repos...) }

// owns reports whether a session with these repositories, or with none yet, is about those of the channel: the first of them counts.
func (e Effective) owns(repos []runner.Repo) bool {
	if len(repos) == 0 {
		return repos == nil || len(e.Repos) == 0
	}
	return slices.ContainsFunc(e.Repos, func(r runner.Repo) bool { return r.URL == repos[0].URL })
}

// inUse is what may be shown of settings that a turn is handed over with.
func (e Effective) inUse(r runner.Settings) *InUse {
	return &InUse{
		Version: e.Version, Model: r.Model, Fallback: r.Fallback, Effort: r.Effort, PermissionMode: r.Mode(), AllowedTools: r.AllowedTools, Hosts: r.Hosts, Trust: r.Trust,
		MCPServers: runner.MCPServers(r.MCP), Env: slices.Sorted(maps.Keys(r.Env)), Secrets: e.Secrets,
		Instructions: r.Instructions != "", SetUp: r.SetUp != "", LingerSeconds: r.LingerSeconds, TimeoutSeconds: r.TimeoutSeconds,
	}
}

// InUse is what a session's last turn ran with, as it may be shown.
type InUse struct {
	Version        int64    `json:"version"` // of the channel's settings; 0: those of the bot alone
	Model          string   `json:"model,omitempty"`
	Fallback       string   `json:"fallback,omitempty"`
	Effort         string   `json:"effort,omitempty"`
	PermissionMode string   `json:"permission_mode,omitempty"`
	AllowedTools   []string `json:"allowed_tools,omitempty"`
	Hosts          []string `json:"hosts,omitempty"` // that commands may reach; empty: all
	Trust          bool     `json:"trust,omitempty"`
	MCPServers     []string `json:"mcp_servers,omitempty"`
	Env            []string `json:"env,omitempty"`     // names
	Secrets        []string `json:"secrets,omitempty"` // names
	Instructions   bool     `json:"instructions,omitempty"`
	SetUp          bool     `json:"set_up,omitempty"`
	LingerSeconds  int      `json:"linger_seconds,omitempty"`
	TimeoutSeconds int      `json:"timeout_seconds,omitempty"`
}
