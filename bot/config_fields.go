package bot

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// Fields of a channel's settings that need no check of their own.
const (
	fieldTrust       sessions.Field = "trust"
	fieldMentionOnly sessions.Field = "mention_only"
	fieldModelName   sessions.Field = "model_name" // the model again, by any name
	fieldGroups      sessions.Field = "groups"     // of the users
)

// inputKind is how a field is filled in.
type inputKind int

const (
	asText inputKind = iota
	asArea
	asChoice
	asNumber
	asSwitch
	asSeveral
	asPeople
	asGroups
)

// option is one that can be chosen.
type option struct{ value, label string }

// byDefault is the choice of what the bot has by default: a value of Slack's cannot be empty.
const byDefault = "-"

// input is a field of a channel's settings as people fill it in: as no value, one, or several.
type input struct {
	field       sessions.Field
	kind        inputKind
	label, hint string
	options     []option
	get         func(s sessions.Settings) []string
	set         func(s *sessions.Settings, values []string) error
	usual       func(def sessions.Settings) string // what it is by default; nil: nothing
	zero        string                             // what "0" means, in words
	fresh       bool                               // a change counts for sessions that begin after it
	namers      bool                               // it is for admins of the workspace alone
	private     bool                               // its value is for those alone who may change it
}

// page are fields that are filled in together.
type page struct {
	id, title string
	inputs    []input
}

// Pages of a channel's settings. The first one is where they open.
const (
	pageCommon      = "common"
	pageClaude      = "claude"
	pageEnvironment = "environment"
	pageMachine     = "machine"
	pageAccess      = "access"
)

// pages are all that can be set for a channel, the most usual first.
func pages() []page {
	return []page{
		{pageCommon, "Channel settings", commonInputs()},
		{pageClaude, "Claude", claudeInputs()},
		{pageEnvironment, "Environment", environmentInputs()},
		{pageMachine, "Machine", machineInputs()},
		{pageAccess, "Who may, and how much", accessInputs()},
	}
}

func pageOf(id string) (page, bool) {
	all := pages()
	i := slices.IndexFunc(all, func(p page) bool { return p.id == id })
	if i < 0 {
		return page{}, false
	}
	return all[i], true
}

func commonInputs() []input {
	return []input{
		{
			field: sessions.FieldRepos, kind: asArea, label: "Repositories", fresh: true,
			hint: "One a line: owner/name or an address, with #branch behind it if you like. “none” for no repository. For sessions that begin from now on.",
			get:  func(s sessions.Settings) []string { return one(reposText(s.Repos)) },
			set: func(s *sessions.Settings, v []string) (err error) {
				s.Repos, err = sessions.ParseRepos(joined(v))
				return err
			},
			usual: func(def sessions.Settings) string { return strings.ReplaceAll(reposText(def.Repos), "\n", ", ") },
		},
		{
			field: sessions.FieldModel, kind: asChoice, label: "Model", options: modelOptions(),
			get: func(s sessions.Settings) []string { return one(s.Model) },
			set: func(s *sessions.Settings, v []string) error {
				s.Model = joined(v)
				return nil
			},
			usual: func(def sessions.Settings) string { return def.Model },
		},
		{
			field: sessions.FieldInstructions, kind: asArea, label: "Instructions",
			hint: "What Claude should always know or keep to in this channel.",
			get:  func(s sessions.Settings) []string { return one(s.Instructions) },
			set: func(s *sessions.Settings, v []string) error {
				s.Instructions = joined(v)
				return nil
			},
		},
		{
			field: fieldMentionOnly, kind: asSwitch, label: "Replies", options: []option{{"on", "Replies count only when they mention me"}},
			get: func(s sessions.Settings) []string { return onOff(s.MentionOnly) },
			set: func(s *sessions.Settings, v []string) error {
				s.MentionOnly = len(v) > 0
				return nil
			},
		},
	}
}

func claudeInputs() []input {
	return []input{
		{
			field: sessions.FieldEffort, kind: asChoice, label: "Effort", options: plainOptions(runner.Efforts()...),
			get: func(s sessions.Settings) []string { return one(s.Effort) },
			set: func(s *sessions.Settings, v []string) error {
				s.Effort = joined(v)
				return nil
			},
			usual: func(def sessions.Settings) string { return def.Effort },
		},
		{
			field: fieldModelName, kind: asText, label: "Another model",
			hint: "By its full name, in place of the choice on the first page.",
			get: func(s sessions.Settings) []string {
				if slices.ContainsFunc(modelOptions(), func(o option) bool { return o.value == s.Model }) {
					return nil
				}
				return one(s.Model)
			},
			set: func(s *sessions.Settings, v []string) error {
				known := slices.ContainsFunc(modelOptions(), func(o option) bool { return o.value == s.Model })
				if name := joined(v); name != "" || !known {
					s.Model = name
				}
				return nil
			},
		},
		{
			field: sessions.FieldFallback, kind: asText, label: "Models to fall back on", hint: "When the model is overloaded; separated by commas.",
			get: func(s sessions.Settings) []string { return one(s.Fallback) },
			set: func(s *sessions.Settings, v []string) error {
				s.Fallback = strings.ReplaceAll(joined(v), " ", "")
				return nil
			},
			usual: func(def sessions.Settings) string { return def.Fallback },
		},
		{
			field: sessions.FieldMode, kind: asChoice, label: "Permission mode", options: modeOptions(),
			get: func(s sessions.Settings) []string { return one(s.PermissionMode) },
			set: func(s *sessions.Settings, v []string) error {
				s.PermissionMode = joined(v)
				return nil
			},
			usual: func(def sessions.Settings) string { return def.PermissionMode },
		},
		{
			field: sessions.FieldTools, kind: asArea, label: "Allowed tools",
			hint: "One a line: Edit, or Bash(git log *). With some named, Claude is refused all others.",
			get:  func(s sessions.Settings) []string { return one(strings.Join(s.AllowedTools, "\n")) },
			set: func(s *sessions.Settings, v []string) error {
				s.AllowedTools = linesOf(joined(v))
				return nil
			},
		},
		{
			field: sessions.FieldHosts, kind: asArea, label: "Hosts that may be reached",
			hint: "One a line: pypi.org and files.pythonhosted.org for pip, *.npmjs.org for all below it, or none. Claude itself and the repositories' hosts always are. Empty: all.",
			get:  func(s sessions.Settings) []string { return one(strings.Join(s.Hosts, "\n")) },
			set: func(s *sessions.Settings, v []string) error {
				s.Hosts = linesOf(joined(v))
				return nil
			},
			usual: func(def sessions.Settings) string { return strings.Join(def.Hosts, ", ") },
		},
		{
			field: fieldTrust, kind: asSwitch, label: "Trust",
			options: []option{{"on", "Obey the repository's own settings, hooks, skills and .mcp.json"}},
			get:     func(s sessions.Settings) []string { return onOff(s.Trust) },
			set: func(s *sessions.Settings, v []string) error {
				s.Trust = len(v) > 0
				return nil
			},
		},
		{
			field: sessions.FieldMCP, kind: asArea, label: "MCP servers", hint: `JSON, as in .mcp.json: {"mcpServers": {"name": {"command": "…"}}}. ${NAME} stands for a variable or secret.`,
			get: func(s sessions.Settings) []string { return one(s.MCP) }, private: true,
			set: func(s *sessions.Settings, v []string) error {
				s.MCP = joined(v)
				return nil
			},
		},
		{
			field: sessions.FieldOverrides, kind: asSeveral, label: "What a message may choose for itself",
			options: []option{{"model", "The model, by model:opus"}, {"effort", "The effort, by effort:high"}, {"volume", "The size of its volume, by volume:20"}},
			get: func(s sessions.Settings) []string {
				var out []string
				for _, o := range s.Allowed() {
					out = append(out, string(o))
				}
				return out
			},
			set: func(s *sessions.Settings, v []string) error {
				s.Overrides = []sessions.Override{}
				for _, o := range v {
					s.Overrides = append(s.Overrides, sessions.Override(o))
				}
				if slices.Equal(s.Overrides, sessions.Settings{}.Allowed()) {
					s.Overrides = nil
				}
				return nil
			},
		},
	}
}

func environmentInputs() []input {
	return []input{
		{
			field: sessions.FieldSetUp, kind: asArea, label: "Set-up command", hint: "Runs once in a session, after its repositories are cloned: install what is needed.",
			get: func(s sessions.Settings) []string { return one(s.SetUp) },
			set: func(s *sessions.Settings, v []string) error {
				s.SetUp = joined(v)
				return nil
			},
		},
		{
			field: sessions.FieldEnv, kind: asArea, label: "Variables", hint: "NAME=value, one a line. Everybody who can talk to Claude here can see them: secrets are below.",
			get: func(s sessions.Settings) []string {
				var lines []string
				for _, name := range slices.Sorted(maps.Keys(s.Env)) {
					lines = append(lines, name+"="+s.Env[name])
				}
				return one(strings.Join(lines, "\n"))
			},
			set:     func(s *sessions.Settings, v []string) (err error) { s.Env, err = envOf(joined(v)); return err },
			private: true,
		},
	}
}

func machineInputs() []input {
	return []input{
		{
			field: sessions.FieldGuest, kind: asChoice, label: "Size", options: guestOptions(), hint: "A running session gets it with its next turn.",
			get: func(s sessions.Settings) []string {
				if s.Guest == (sessions.Guest{}) {
					return nil
				}
				return one(sessions.GuestText(s.Guest))
			},
			set: func(s *sessions.Settings, v []string) (err error) {
				s.Guest = sessions.Guest{}
				if text := joined(v); text != "" {
					s.Guest, err = sessions.ParseGuest(text)
				}
				return err
			},
			usual: func(def sessions.Settings) string { return guestLabel(def.Guest) },
		},
		{
			field: sessions.FieldRegion, kind: asChoice, label: "Region", fresh: true, options: regionOptions(), hint: "Of sessions that begin from now on.",
			get: func(s sessions.Settings) []string { return one(s.Region) },
			set: func(s *sessions.Settings, v []string) error {
				s.Region = joined(v)
				return nil
			},
			usual: func(def sessions.Settings) string { return def.Region },
		},
		{
			field: sessions.FieldVolume, kind: asNumber, label: "Volume in GB", fresh: true, hint: "Of sessions that begin from now on.",
			get: func(s sessions.Settings) []string {
				if s.VolumeGB == 0 {
					return nil
				}
				return one(strconv.Itoa(s.VolumeGB))
			},
			set: func(s *sessions.Settings, v []string) (err error) {
				s.VolumeGB = 0
				if text := joined(v); text != "" {
					if s.VolumeGB, err = strconv.Atoi(text); err != nil || s.VolumeGB == 0 {
						return errors.New("want a whole number of GB")
					}
				}
				return nil
			},
			usual: func(def sessions.Settings) string { return strconv.Itoa(max(def.VolumeGB, 1)) },
		},
		spanInput(sessions.FieldTTL, "Life of a session", "Such as 7d or 12h; 0 for no end while it is used. Of sessions that begin from now on.", "no end while it is used", func(s *sessions.Settings) **time.Duration { return &s.TTL }),
		spanInput(sessions.FieldTimeout, "Longest turn", "Such as 45m or 2h; 0 for no limit.", "without limit", func(s *sessions.Settings) **time.Duration { return &s.Timeout }),
		spanInput(sessions.FieldLinger, "Wait for the next message", "How long the machine stays awake after a turn, such as 5m; 0 for not at all.", "not at all", func(s *sessions.Settings) **time.Duration { return &s.Linger }),
	}
}

func spanInput(field sessions.Field, label, hint, zero string, of func(*sessions.Settings) **time.Duration) input {
	return input{
		field: field, kind: asText, label: label, hint: hint, zero: zero, fresh: field == sessions.FieldTTL,
		get: func(s sessions.Settings) []string { return one(spanText(*of(&s))) },
		set: func(s *sessions.Settings, v []string) (err error) {
			*of(s), err = spanOf(joined(v))
			return err
		},
		usual: func(def sessions.Settings) string { return spanText(*of(&def)) },
	}
}

func accessInputs() []input {
	isGroup := func(id string) bool { return strings.HasPrefix(id, "S") }
	isPerson := func(id string) bool { return !isGroup(id) }
	only := func(ids []string, keep func(string) bool) []string {
		return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !keep(id) })
	}
	return []input{
		{
			field: sessions.FieldUsers, kind: asPeople, label: "People who may use me here", hint: "With nobody and no group named, everybody may whom I am set up for.",
			get: func(s sessions.Settings) []string { return only(s.Users, isPerson) },
			set: func(s *sessions.Settings, v []string) error {
				s.Users = append(slices.Clone(v), only(s.Users, isGroup)...)
				return nil
			},
		},
		{
			field: fieldGroups, kind: asGroups, label: "User groups who may",
			get: func(s sessions.Settings) []string { return only(s.Users, isGroup) },
			set: func(s *sessions.Settings, v []string) error {
				s.Users = append(only(s.Users, isPerson), v...)
				return nil
			},
		},
		{
			field: sessions.FieldAdmins, kind: asPeople, label: "People who may change these settings", hint: "Beside the admins of this workspace, who alone name them.",
			get: func(s sessions.Settings) []string { return s.Admins }, namers: true,
			set: func(s *sessions.Settings, v []string) error {
				s.Admins = v
				return nil
			},
		},
		{
			field: sessions.FieldBudget, kind: asText, label: "Budget of a month, in dollars", zero: "without limit", namers: true,
			hint: "What Claude’s model may cost in this channel, such as 100; 0 for no limit. Admins of this workspace alone set it.",
			get:  func(s sessions.Settings) []string { return one(budgetText(s.BudgetUSD)) },
			set: func(s *sessions.Settings, v []string) error {
				s.BudgetUSD = nil
				text := joined(v)
				if text == "" {
					return nil
				}
				usd, err := sessions.ParseBudget(text)
				s.BudgetUSD = &usd
				return err
			},
			usual: func(def sessions.Settings) string { return budgetText(def.BudgetUSD) },
		},
	}
}

// budgetText writes a budget as [sessions.ParseBudget] reads it; nil is "".
func budgetText(usd *float64) string {
	if usd == nil {
		return ""
	}
	return strconv.FormatFloat(*usd, 'f', -1, 64)
}

// one is a value as values, which an empty one is none of.
func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func joined(values []string) string { return strings.TrimSpace(strings.Join(values, "\n")) }

// inside is a label within a sentence.
func inside(label string) string {
	if len(label) > 1 && strings.ToUpper(label[:2]) == label[:2] {
		return label
	}
	return lowerFirst(label)
}

func onOff(on bool) []string {
	if on {
		return []string{"on"}
	}
	return nil
}

// linesOf are the lines of a text that hold something.
func linesOf(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// reposText writes repositories as [sessions.ParseRepos] reads them. "": those by default.
func reposText(repos []runner.Repo) string {
	if repos == nil {
		return ""
	}
	if len(repos) == 0 {
		return "none"
	}
	var lines []string
	for _, r := range repos {
		lines = append(lines, sessions.ShortRepoText(r))
	}
	return strings.Join(lines, "\n")
}

// envOf reads variables, NAME=value a line.
func envOf(text string) (map[string]string, error) {
	var out map[string]string
	for _, line := range linesOf(text) {
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		_, twice := out[name]
		switch {
		case !ok:
			return nil, errors.New("want NAME=value in each line")
		case twice:
			return nil, fmt.Errorf("%s is there twice", clip(name, 60))
		case out == nil:
			out = map[string]string{}
		}
		out[name] = strings.TrimSpace(value)
	}
	return out, nil
}

// spanText writes a span of time as spanOf reads it; nil is "".
func spanText(d *time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == nil:
		return ""
	case *d == 0:
		return "0"
	case *d%day == 0:
		return strconv.Itoa(int(*d/day)) + "d"
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// spanOf reads a span of time: 7d, 12h, 1h30m, 0. "" is nil.
func spanOf(text string) (*time.Duration, error) {
	if text == "" {
		return nil, nil
	}
	text = strings.ToLower(strings.ReplaceAll(text, " ", ""))
	var days time.Duration
	if number, rest, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > 3650 {
			return nil, errSpan
		}
		days, text = time.Duration(n)*24*time.Hour, rest
	}
	if text == "" {
		return &days, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return nil, errSpan
	}
	d += days
	return &d, nil
}

var errSpan = errors.New("want a time such as 7d, 12h or 30m, or 0")

func plainOptions(values ...string) []option {
	var out []option
	for _, v := range values {
		out = append(out, option{v, strings.ToUpper(v[:1]) + v[1:]})
	}
	return out
}

func modelOptions() []option { return plainOptions("opus", "sonnet", "haiku") }

func modeOptions() []option {
	return []option{
		{runner.ModeBypass, "Everything is allowed: the machine is the fence"},
		{runner.ModeAcceptEdits, "Edits are allowed, and the tools that are named"},
		{runner.ModeAuto, "Claude Code judges each step by itself"},
		{runner.ModeDontAsk, "Only the tools that are named"},
		{runner.ModeDefault, "Claude Code's default: nobody is asked, so little is allowed"},
		{runner.ModePlan, "Plans only: nothing is changed"},
	}
}

func guestOptions() []option {
	var out []option
	for _, size := range []string{
		"shared-1x:1024", "shared-2x:2048", "shared-4x:4096", "shared-8x:8192", "performance-1x:2048", "performance-2x:4096", "performance-2x:8192",
		"performance-4x:8192", "performance-4x:16384", "performance-8x:16384", "performance-8x:32768", "performance-16x:65536",
	} {
		g, _ := sessions.ParseGuest(size) // a test reads them all
		out = append(out, option{size, guestLabel(g)})
	}
	return out
}

// guestLabel says what a machine has.
func guestLabel(g sessions.Guest) string {
	kind := "shared CPU"
	if g.CPUKind == "performance" {
		kind = "dedicated CPU"
	}
	return plural(g.CPUs, kind) + ", " + memoryText(g.MemoryMB)
}

func regionOptions() []option {
	return []option{
		{"ams", "Amsterdam (ams)"},
		{"arn", "Stockholm (arn)"},
		{"bom", "Mumbai (bom)"},
		{"cdg", "Paris (cdg)"},
		{"dfw", "Dallas (dfw)"},
		{"ewr", "Secaucus, New Jersey (ewr)"},
		{"fra", "Frankfurt (fra)"},
		{"gru", "São Paulo (gru)"},
		{"iad", "Ashburn, Virginia (iad)"},
		{"jnb", "Johannesburg (jnb)"},
		{"lax", "Los Angeles (lax)"},
		{"lhr", "London (lhr)"},
		{"nrt", "Tokyo (nrt)"},
		{"ord", "Chicago (ord)"},
		{"sin", "Singapore (sin)"},
		{"sjc", "San Jose (sjc)"},
		{"syd", "Sydney (syd)"},
		{"yyz", "Toronto (yyz)"},
	}
}
