package sessions

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// Guest is the size of a session's machine.
type Guest = fly.Guest

// Settings are what the admins of a channel have set for it: what its sessions are made of, what their turns run with, and who may use
// them. A zero field means the default, which [Service.DefaultSettings] tells. A change applies from the next turn of a session;
// Repos, Region, VolumeGB and TTL to sessions that begin after it.
//
// They hold no value of a secret: those are stored beside them, encrypted, and are never read back but for a turn.
type Settings struct {
	Repos        []runner.Repo     `json:"repos,omitzero"` // nil: the default; empty: none
	SetUp        string            `json:"set_up,omitempty"`
	Env          map[string]string `json:"env,omitempty"`
	Secrets      []string          `json:"secrets,omitempty"` // their names
	Instructions string            `json:"instructions,omitempty"`

	Model          string   `json:"model,omitempty"`
	Fallback       string   `json:"fallback,omitempty"` // models, separated by commas
	Effort         string   `json:"effort,omitempty"`
	AllowedTools   []string `json:"allowed_tools,omitempty"`
	PermissionMode string   `json:"permission_mode,omitempty"`
	Trust          bool     `json:"trust,omitempty"` // in the repository's own settings, hooks, skills and .mcp.json
	MCP            string   `json:"mcp,omitempty"`   // JSON as Claude Code's --mcp-config takes it
	Hosts          []string `json:"hosts,omitempty"` // that commands may reach, as [runner.CheckHosts] takes them; empty: all

	Guest    Guest          `json:"guest,omitzero"`
	Region   string         `json:"region,omitempty"`
	VolumeGB int            `json:"volume_gb,omitempty"`
	TTL      *time.Duration `json:"ttl,omitempty"`     // of a session since its creation; to 0: no limit
	Linger   *time.Duration `json:"linger,omitempty"`  // of a machine after a turn; to 0: none
	Timeout  *time.Duration `json:"timeout,omitempty"` // of a turn; to 0: no limit

	BudgetUSD *float64 `json:"budget_usd,omitempty"` // what the channel's turns may cost in a month; to 0: no limit

	MentionOnly bool     `json:"mention_only,omitempty"` // replies count only if they mention the bot
	Users       []string `json:"users,omitempty"`        // ids of people and user groups who may use it; empty: as the bot's own settings say
	Admins      []string `json:"admins,omitempty"`       // ids of people who may change these settings, beside the workspace's admins
	// Overrides are what a message may say otherwise for its own turn, or its own session; nil: model and effort.
	Overrides []Override `json:"overrides,omitzero"`

	// Version rises with each change: a change is refused when it was made to another version than the stored one. 0: nothing was ever set.
	Version   int64     `json:"version,omitempty"`
	ChangedBy string    `json:"changed_by,omitempty"` // Slack user
	ChangedAt time.Time `json:"changed_at,omitzero"`
}

// Field names a field of [Settings].
type Field string

// The fields, as they are named in JSON.
const (
	FieldRepos        Field = "repos"
	FieldSetUp        Field = "set_up"
	FieldEnv          Field = "env"
	FieldSecrets      Field = "secrets"
	FieldInstructions Field = "instructions"
	FieldModel        Field = "model"
	FieldFallback     Field = "fallback"
	FieldEffort       Field = "effort"
	FieldTools        Field = "allowed_tools"
	FieldMode         Field = "permission_mode"
	FieldMCP          Field = "mcp"
	FieldHosts        Field = "hosts"
	FieldGuest        Field = "guest"
	FieldRegion       Field = "region"
	FieldVolume       Field = "volume_gb"
	FieldTTL          Field = "ttl"
	FieldLinger       Field = "linger"
	FieldTimeout      Field = "timeout"
	FieldBudget       Field = "budget_usd"
	FieldUsers        Field = "users"
	FieldAdmins       Field = "admins"
	FieldOverrides    Field = "overrides"
)

// FieldError says what is wrong with a field, in a sentence for the person who filled it in. It holds no value of a secret.
type FieldError struct {
	Field   Field
	Problem string
}

func (e FieldError) Error() string { return string(e.Field) + ": " + e.Problem }

// FieldErrors are all that is wrong with settings, at most one a field.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	var all []string
	for _, one := range e {
		all = append(all, one.Error())
	}
	return strings.Join(all, "; ")
}

// Of is what is wrong with a field; "": nothing.
func (e FieldErrors) Of(f Field) string {
	i := slices.IndexFunc(e, func(one FieldError) bool { return one.Field == f })
	if i < 0 {
		return ""
	}
	return e[i].Problem
}

// Override is something that a message may say otherwise than the channel.
type Override string

// What a message may override.
const (
	OverrideModel  Override = "model"  // of the turn
	OverrideEffort Override = "effort" // of the turn
	OverrideVolume Override = "volume" // size of the volume, in the message that begins a session
)

// Overrides are what a message says otherwise than its channel. Zero fields say nothing.
type Overrides struct {
	Model    string `json:"model,omitempty"`
	Effort   string `json:"effort,omitempty"`
	VolumeGB int    `json:"volume_gb,omitempty"`
}

// Allowed are the overrides that the channel allows.
func (s Settings) Allowed() []Override {
	if s.Overrides == nil {
		return []Override{OverrideModel, OverrideEffort}
	}
	return s.Overrides
}

// CheckOverrides returns [FieldErrors] for what the channel does not allow, or makes no sense; nil: the message may have its way.
func (s Settings) CheckOverrides(o Overrides) error {
	var v fieldCheck
	for _, one := range []struct {
		field Field
		what  Override
		said  bool
	}{
		{FieldModel, OverrideModel, o.Model != ""}, {FieldEffort, OverrideEffort, o.Effort != ""}, {FieldVolume, OverrideVolume, o.VolumeGB != 0},
	} {
		if one.said && !slices.Contains(s.Allowed(), one.what) {
			v.add(one.field, "the settings of this channel do not let a message choose the %s", one.what)
		}
	}
	v.model(FieldModel, o.Model)
	v.effort(o.Effort)
	v.volume(o.VolumeGB)
	return v.result()
}

// with is s with what a message says otherwise, as far as s allows it.
func (s Settings) with(o Overrides) Settings {
	allowed := s.Allowed()
	if o.Model != "" && slices.Contains(allowed, OverrideModel) {
		s.Model = o.Model
	}
	if o.Effort != "" && slices.Contains(allowed, OverrideEffort) {
		s.Effort = o.Effort
	}
	if o.VolumeGB > 0 && slices.Contains(allowed, OverrideVolume) {
		s.VolumeGB = o.VolumeGB
	}
	return s
}

// over is s where it says something, and the defaults elsewhere. Instructions, commands and people are the channel's alone.
func (s Settings) over(def Settings) Settings {
	if s.Repos == nil {
		s.Repos = def.Repos
	}
	s.Model = cmp.Or(s.Model, def.Model)
	s.Fallback = cmp.Or(s.Fallback, def.Fallback)
	s.Effort = cmp.Or(s.Effort, def.Effort)
	s.PermissionMode = cmp.Or(s.PermissionMode, def.PermissionMode)
	if len(s.Hosts) == 0 {
		s.Hosts = def.Hosts
	}
	s.Guest = cmp.Or(s.Guest, def.Guest)
	s.Region = cmp.Or(s.Region, def.Region)
	s.VolumeGB = cmp.Or(s.VolumeGB, def.VolumeGB)
	s.TTL, s.Linger, s.Timeout = cmp.Or(s.TTL, def.TTL), cmp.Or(s.Linger, def.Linger), cmp.Or(s.Timeout, def.Timeout)
	s.BudgetUSD = cmp.Or(s.BudgetUSD, def.BudgetUSD)
	// A model is no fallback for itself, also where a message chose it.
	s.Fallback = strings.Join(slices.DeleteFunc(modelList(s.Fallback), func(m string) bool { return m == s.Model }), ",")
	return s
}

// modelList reads models, separated by commas.
func modelList(text string) []string {
	var out []string
	for m := range strings.SplitSeq(text, ",") {
		if m = strings.TrimSpace(m); m != "" {
			out = append(out, m)
		}
	}
	return out
}

// Limits of what is set. A request that hands a turn over holds at most runner.MaxBody with everything in it.
const (
	maxVolumeGB = 500
	maxLinger   = time.Hour
	maxWire     = 28 << 10 // of settings and secrets together, as they travel
	minSecret   = 8        // characters: a shorter value could not be hidden in what a turn tells
	maxList     = 50       // entries of a list
)

// Check returns [FieldErrors] for settings that no turn could be run with; values are those of secrets that are to be stored with them.
func (s Settings) Check(values map[string]string) error {
	var v fieldCheck
	v.repos(s.Repos)
	v.variables(s, values)
	v.model(FieldModel, s.Model)
	for _, m := range modelList(s.Fallback) {
		v.model(FieldFallback, m)
		if m == s.Model {
			v.add(FieldFallback, "choose another model to fall back on than %s itself", s.Model)
		}
	}
	v.effort(s.Effort)
	v.tools(s)
	v.hosts(s)
	if err := runner.CheckMCP(s.MCP); err != nil {
		v.add(FieldMCP, "%s", err)
	}
	if s.Guest != (Guest{}) {
		v.err(FieldGuest, CheckGuest(s.Guest))
	}
	if s.Region != "" && !IsRegion(s.Region) {
		v.add(FieldRegion, "%q is no Fly region: want three letters such as iad or fra", s.Region)
	}
	v.volume(s.VolumeGB)
	v.span(FieldTTL, s.TTL, 0)
	v.span(FieldLinger, s.Linger, maxLinger)
	v.span(FieldTimeout, s.Timeout, 0)
	if s.BudgetUSD != nil {
		v.err(FieldBudget, checkBudget(*s.BudgetUSD))
	}
	v.ids(FieldUsers, s.Users, "UWS")
	v.ids(FieldAdmins, s.Admins, "UW")
	for _, o := range s.Overrides {
		if !slices.Contains([]Override{OverrideModel, OverrideEffort, OverrideVolume}, o) {
			v.add(FieldOverrides, "%q is nothing that a message can choose: want model, effort or volume", o)
		}
	}
	v.size(s, values)
	return v.result()
}

type fieldCheck struct{ bad FieldErrors }

func (v *fieldCheck) result() error {
	if len(v.bad) == 0 {
		return nil
	}
	return v.bad
}

// add notes a problem; the first of a field counts.
func (v *fieldCheck) add(f Field, format string, args ...any) {
	if v.bad.Of(f) == "" {
		v.bad = append(v.bad, FieldError{f, fmt.Sprintf(format, args...)})
	}
}

func (v *fieldCheck) err(f Field, err error) {
	if err != nil {
		v.add(f, "%s", err)
	}
}

func (v *fieldCheck) repos(repos []runner.Repo) {
	for _, r := range repos {
		v.err(FieldRepos, checkRepo(r))
	}
	if len(repos) > maxList {
		v.add(FieldRepos, "want at most %d repositories", maxList)
	}
	v.err(FieldRepos, runner.CheckRepos(repos))
}

func (v *fieldCheck) variables(s Settings, values map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		v.err(FieldEnv, runner.CheckEnvName(name))
		if slices.Contains(s.Secrets, name) {
			v.add(FieldEnv, "%s is a secret as well: leave one out", name)
		}
		if strings.ContainsRune(s.Env[name], 0) {
			v.add(FieldEnv, "the value of %s holds a NUL byte", name)
		}
	}
	for i, name := range s.Secrets {
		v.err(FieldSecrets, runner.CheckEnvName(name))
		if slices.Contains(s.Secrets[:i], name) {
			v.add(FieldSecrets, "%s is named twice", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch value := values[name]; {
		case !slices.Contains(s.Secrets, name):
			v.add(FieldSecrets, "%s has a value and is not among the secrets", name)
		case len(strings.TrimSpace(value)) < minSecret:
			v.add(FieldSecrets, "%s is shorter than %d characters, so it could not be hidden in what I show: make it a plain variable, or choose a longer one", name, minSecret)
		case strings.ContainsRune(value, 0):
			v.add(FieldSecrets, "the value of %s holds a NUL byte", name)
		}
	}
	if strings.ContainsRune(s.SetUp, 0) {
		v.add(FieldSetUp, "the set-up command holds a NUL byte")
	}
	if strings.ContainsRune(s.Instructions, 0) {
		v.add(FieldInstructions, "the instructions hold a NUL byte")
	}
}

func (v *fieldCheck) model(f Field, name string) {
	if name != "" {
		v.err(f, runner.CheckModel(name))
	}
}

func (v *fieldCheck) effort(effort string) {
	if effort != "" && !slices.Contains(runner.Efforts(), effort) {
		v.add(FieldEffort, "%q is no effort: want one of %s", effort, strings.Join(runner.Efforts(), ", "))
	}
}

func (v *fieldCheck) tools(s Settings) {
	for _, rule := range s.AllowedTools {
		v.err(FieldTools, runner.CheckTool(rule))
	}
	if s.PermissionMode != "" && !slices.Contains(runner.PermissionModes(), s.PermissionMode) {
		v.add(FieldMode, "%q is no permission mode: want one of %s", s.PermissionMode, strings.Join(runner.PermissionModes(), ", "))
	}
	if s.PermissionMode == runner.ModeBypass && len(s.AllowedTools) > 0 {
		v.add(FieldTools, "with the mode %s every tool is allowed: choose another mode, or name no tools", runner.ModeBypass)
	}
}

func (v *fieldCheck) hosts(s Settings) {
	v.err(FieldHosts, runner.CheckHosts(s.Hosts))
	if repo := runner.SSHBesideHosts(s.Repos); len(s.Hosts) > 0 && repo != "" {
		v.add(FieldHosts, "%s is not reached by HTTPS: access can be held to hosts only where all repositories are", repo)
	}
}

func (v *fieldCheck) volume(gb int) {
	if gb < 0 || gb > maxVolumeGB {
		v.add(FieldVolume, "a volume has 1 to %d GB", maxVolumeGB)
	}
}

func (v *fieldCheck) span(f Field, d *time.Duration, most time.Duration) {
	switch {
	case d == nil:
	case *d < 0 || (*d > 0 && *d < time.Second):
		v.add(f, "want at least 1s, or 0")
	case most > 0 && *d > most:
		v.add(f, "want at most %s", most)
	}
}

func (v *fieldCheck) ids(f Field, ids []string, first string) {
	for _, id := range ids {
		if !slackID.MatchString(id) || !strings.ContainsRune(first, rune(id[0])) { // they are shown within Slack's own forms
			v.add(f, "%q is no Slack id: want ids that begin with one of %s", id, first)
		}
	}
	if len(ids) > maxList {
		v.add(f, "want at most %d", maxList)
	}
}

var slackID = regexp.MustCompile(`^[A-Z][A-Z0-9]+$`)

// size bounds what travels with every turn.
func (v *fieldCheck) size(s Settings, values map[string]string) {
	total := runner.WireSize(s.forRunner(runner.Settings{}), values)
	if total <= maxWire {
		return
	}
	largest, most := FieldInstructions, len(s.Instructions)
	for f, n := range map[Field]int{
		FieldSetUp: len(s.SetUp), FieldMCP: len(s.MCP), FieldEnv: runner.WireSize(runner.Settings{Env: s.Env}, nil), FieldSecrets: runner.WireSize(runner.Settings{}, values),
	} {
		if n > most {
			largest, most = f, n
		}
	}
	v.add(largest, "the settings are too long together, by %d of %d characters: this is the longest", total-maxWire, maxWire)
}

// forRunner is what a turn is handed over with: def, which has what no channel sets as well, with these settings in it.
func (s Settings) forRunner(def runner.Settings) runner.Settings {
	out := def
	out.Model, out.Fallback, out.Effort = s.Model, s.Fallback, s.Effort
	out.AllowedTools, out.PermissionMode, out.Trust, out.MCP = s.AllowedTools, s.PermissionMode, s.Trust, s.MCP
	out.Hosts = s.Hosts
	out.Instructions, out.Env, out.SetUp = s.Instructions, s.Env, s.SetUp
	if s.Timeout != nil {
		out.TimeoutSeconds = int(*s.Timeout / time.Second)
	}
	if s.Linger != nil {
		out.LingerSeconds = int(*s.Linger / time.Second)
	}
	return out
}

var regionName = regexp.MustCompile(`^[a-z]{3}$`)

// IsRegion reports whether that may be the code of a Fly region.
func IsRegion(code string) bool { return regionName.MatchString(code) }

// ParseGuest reads a size such as shared-2x:2048 or performance-2x:4096: CPUs of a kind, and memory in MB.
func ParseGuest(value string) (Guest, error) {
	size, memory, ok := strings.Cut(strings.TrimSpace(value), ":")
	kind, cpus, okCPU := strings.Cut(strings.TrimSuffix(size, "x"), "-")
	n, errCPU := strconv.Atoi(cpus)
	mb, errMem := strconv.Atoi(memory)
	if !ok || !okCPU || errCPU != nil || errMem != nil {
		return Guest{}, errGuest
	}
	g := Guest{CPUKind: kind, CPUs: n, MemoryMB: mb}
	return g, CheckGuest(g)
}

// GuestText writes what [ParseGuest] reads.
func GuestText(g Guest) string { return fmt.Sprintf("%s-%dx:%d", g.CPUKind, g.CPUs, g.MemoryMB) }

var errGuest = errors.New("want a size such as shared-2x:2048 or performance-2x:4096")

// CheckGuest refuses sizes that Fly does not have.
func CheckGuest(g Guest) error {
	step, low, high := 256, 256, 2048
	if g.CPUKind == "performance" {
		step, low, high = 1024, 2048, 8192
	}
	switch n := g.CPUs; {
	case (g.CPUKind != "shared" && g.CPUKind != "performance") || n < 1 || n > 16:
		return errGuest
	case g.MemoryMB < low*n || g.MemoryMB > high*n || g.MemoryMB%step != 0:
		return fmt.Errorf("%s-%dx has %d to %d MB in steps of %d", g.CPUKind, n, low*n, high*n, step)
	}
	return nil
}

// githubURL is where "owner/name" is.
const githubURL = "https://github.com/"

var (
	// ownerAndName is a repository at GitHub, with a branch and a folder behind it.
	ownerAndName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+(#[^=\s]*)?(=\S*)?$`)
	// branchPage is the page of a branch at GitHub, GitLab and Gitea.
	branchPage = regexp.MustCompile(`^(https?://[^/]+/[^/]+/.+?)/(?:-/)?(?:tree|src/branch)/(.+)$`)
	// repoAddress is what Git takes for an address of another machine, or of a folder.
	repoAddress = regexp.MustCompile(`^(?i:https?|ssh|git|file)://.|^[A-Za-z0-9._-]+@[A-Za-z0-9._-]+:.|^/.`)
)

// ParseRepos reads repositories, separated by commas or line breaks: owner/name for one of GitHub's, the page of a branch, or an address, with
// [#branch][=dir] behind it. "none" is an empty list, and nothing is nil.
func ParseRepos(value string) ([]runner.Repo, error) {
	if strings.EqualFold(strings.TrimSpace(value), "none") {
		return []runner.Repo{}, nil
	}
	var out []runner.Repo
	for item := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		if page := branchPage.FindStringSubmatch(item); page != nil {
			item = page[1] + "#" + page[2]
		}
		if ownerAndName.MatchString(item) {
			item = githubURL + item
		}
		if !repoAddress.MatchString(item) {
			return nil, noRepo(item)
		}
		var r runner.Repo
		rest, dir, hasDir := cutLast(item, "=")
		r.URL, r.Branch, _ = strings.Cut(rest, "#")
		r.Dir = dir
		if hasDir && dir == "" {
			return nil, errDir
		}
		if err := checkRepo(r); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, runner.CheckRepos(out)
}

// noRepo says that something is no repository. What may hold a token is not repeated.
func noRepo(item string) error {
	what := "“" + item + "”"
	if len(item) > 30 || strings.Contains(item, "@") {
		what = "one of them"
	}
	return fmt.Errorf("%s is no repository: want owner/name for one at GitHub, or an address (https://…, ssh://…, git@host:…, a path that begins with /); or none alone", what)
}

// ShortRepoText writes what [ParseRepos] reads, as people do: owner/name for a repository at GitHub.
func ShortRepoText(r runner.Repo) string {
	text := RepoText(r)
	if short, ok := strings.CutPrefix(text, githubURL); ok && ownerAndName.MatchString(short) {
		return short
	}
	return text
}

// RepoText writes what [ParseRepos] reads.
func RepoText(r runner.Repo) string {
	text := r.URL
	if r.Branch != "" {
		text += "#" + r.Branch
	}
	if r.Dir != "" {
		text += "=" + r.Dir
	}
	return text
}

var errDir = errors.New("a folder must be a plain name below the workspace")

func checkRepo(r runner.Repo) error {
	if strings.HasPrefix(r.Dir, "/") || strings.Contains(r.Dir, "..") {
		return errDir
	}
	// A token goes as a user name as well.
	if u, err := url.Parse(r.URL); err == nil && u.User != nil && (u.Scheme == "https" || u.Scheme == "http") {
		return errors.New("leave user and token out of the address and set GITHUB_USERNAME and GITHUB_TOKEN")
	}
	if r.URL == "" || strings.ContainsAny(r.URL, " \t") || strings.HasPrefix(r.URL, "-") {
		return errors.New("want url[#branch][=dir], separated by commas")
	}
	return nil
}

// cutLast cuts a folder off; an = inside of a query or a path with a later slash is part of the address.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 || strings.Contains(s[i:], "/") && strings.Contains(s[i:], "://") {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
