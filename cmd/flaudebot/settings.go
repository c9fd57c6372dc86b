package main

import (
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/kelseyhightower/envconfig"

	"flaudebot/bot"
	"flaudebot/queue"
	"flaudebot/runner"
	"flaudebot/sessions"
)

// settings is the environment as it was found, with defaults in place. Everything is text here, so that
// one look finds all mistakes; [settings.check] makes a [config] of it. `serve --help` is made from this struct.
type settings struct {
	SlackAppToken string `envconfig:"SLACK_APP_TOKEN" needs:"yes" secret:"yes" desc:"app-level token of the Slack app (xapp-…), scope connections:write"`
	SlackBotToken string `envconfig:"SLACK_BOT_TOKEN" needs:"yes" secret:"yes" desc:"bot token of the Slack app (xoxb-…)"`
	SlackAPIURL   string `envconfig:"SLACK_API_URL" default:"https://slack.com/api/" desc:"Slack's Web API"`
	RedisURL      string `envconfig:"REDIS_URL" needs:"yes" secret:"yes" desc:"redis:// or rediss:// address of Redis 7 or later, or of a node of a cluster; more nodes as ?addr=host:port&addr=…"`
	RedisCA       string `envconfig:"FLAUDEBOT_REDIS_CA" desc:"file with the CA that signed Redis's certificate (PEM), for rediss://; empty: the system's"`

	FlyToken    string `envconfig:"FLY_API_TOKEN" needs:"yes" secret:"yes" desc:"Fly token that may use, or create, the app of the session machines"`
	FlyBaseURL  string `envconfig:"FLY_FLAPS_BASE_URL" default:"https://api.machines.dev" desc:"Machines API, without /v1"`
	FlyLogsURL  string `envconfig:"FLY_API_BASE_URL" default:"https://api.fly.io" desc:"Fly's log API"`
	FlyApp      string `envconfig:"FLAUDEBOT_FLY_APP" needs:"yes" desc:"Fly app of the session machines, created if missing"`
	FlyOrg      string `envconfig:"FLAUDEBOT_FLY_ORG" default:"personal" desc:"Fly organization to create it in"`
	Regions     string `envconfig:"FLAUDEBOT_REGIONS" default:"iad" desc:"Fly regions of the session machines, separated by commas: a new session is made in the first that has room"`
	Image       string `envconfig:"FLAUDEBOT_IMAGE" desc:"session image; by default registry.fly.io/FLAUDEBOT_FLY_APP:session. Another one counts from the next turn of a session"`
	Guest       string `envconfig:"FLAUDEBOT_GUEST" default:"performance-2x:4096" desc:"size of a session machine: shared-NNx or performance-NNx, and memory in MB"`
	VolumeGB    string `envconfig:"FLAUDEBOT_VOLUME_SIZE_GB" default:"1" desc:"size of a session's volume in GB, 1 to 500"`
	MaxMemory   string `envconfig:"FLAUDEBOT_MAX_MEMORY_MB" default:"16384" desc:"most memory, in MB, that the people of a session may give its machine when a turn ran out of it"`
	MaxVolume   string `envconfig:"FLAUDEBOT_MAX_VOLUME_SIZE_GB" default:"20" desc:"largest size, in GB, that they may give its volume when it was full"`
	TTL         string `envconfig:"FLAUDEBOT_TTL" default:"0" desc:"life of a session since its creation; 0: no limit"`
	IdleTTL     string `envconfig:"FLAUDEBOT_IDLE_TTL" default:"720h" desc:"life of a session since its last turn; 0: no limit"`
	ReapEvery   string `envconfig:"FLAUDEBOT_REAP_EVERY" default:"1m" desc:"how often each replica looks for sessions whose time is over: notices and ends come so much late at most"`
	Repos       string `envconfig:"FLAUDEBOT_REPOS" desc:"repositories cloned into a new session, separated by commas: owner/name at GitHub, or url, with [#branch][=dir] behind it; none"`
	NamedRepos  string `envconfig:"FLAUDEBOT_NAMED_REPOS" desc:"where repositories may be that people name in a message (repo:…): host/owner or host, separated by commas; empty: nowhere"`
	Linger      string `envconfig:"FLAUDEBOT_LINGER" default:"5m" desc:"how long a machine, and Claude Code in it, wait for a further turn before the machine stops; 0: not at all"`
	Handover    string `envconfig:"FLAUDEBOT_HANDOVER" default:"exec" desc:"how turns reach their machines: exec, through Fly's exec; config, in the machine's config, where all who may read the Fly app can read them"`
	Lease       string `envconfig:"FLAUDEBOT_LEASE" default:"15s" desc:"life of a claim: a replica that died is replaced after so long"`
	MaxParallel string `envconfig:"FLAUDEBOT_MAX_PARALLEL" default:"50" desc:"turns that one replica follows at once"`
	MaxRunning  string `envconfig:"FLAUDEBOT_MAX_RUNNING" default:"0" desc:"turns that run at once, in all replicas together; 0: no limit"`
	MaxPerson   string `envconfig:"FLAUDEBOT_MAX_RUNNING_PER_PERSON" default:"0" desc:"of these, turns of one person; 0: no limit"`
	MaxChannel  string `envconfig:"FLAUDEBOT_MAX_RUNNING_PER_CHANNEL" default:"0" desc:"of these, turns of one channel; 0: no limit"`
	MaxQueued   string `envconfig:"FLAUDEBOT_MAX_QUEUED_PER_THREAD" default:"30" desc:"messages that wait in one thread"`
	MaxQueuedBy string `envconfig:"FLAUDEBOT_MAX_QUEUED_PER_PERSON" default:"0" desc:"messages of one person that wait or are worked on; 0: no limit"`
	MaxQueuedAt string `envconfig:"FLAUDEBOT_MAX_QUEUED_PER_CHANNEL" default:"0" desc:"messages of one channel that wait or are worked on; 0: no limit"`
	MaxQueuedIn string `envconfig:"FLAUDEBOT_MAX_QUEUED" default:"0" desc:"messages that wait or are worked on in all; 0: no limit"`
	BudgetTurn  string `envconfig:"FLAUDEBOT_BUDGET_PER_TURN" default:"0" desc:"what Claude's model may cost in a turn, in USD at list prices: a turn is stopped before it asks for more; 0: no limit"`
	BudgetIn    string `envconfig:"FLAUDEBOT_BUDGET_PER_THREAD" default:"0" desc:"what it may cost in a thread and a month (UTC); 0: no limit"`
	BudgetBy    string `envconfig:"FLAUDEBOT_BUDGET_PER_PERSON" default:"0" desc:"what turns of one person may cost in a month; 0: no limit"`
	BudgetAt    string `envconfig:"FLAUDEBOT_BUDGET_PER_CHANNEL" default:"0" desc:"what turns of one channel may cost in a month; 0: no limit"`
	Budget      string `envconfig:"FLAUDEBOT_BUDGET" default:"0" desc:"what all turns may cost in a month; 0: no limit"`
	Prices      string `envconfig:"FLAUDEBOT_PRICES" desc:"prices of models that are new, or not Anthropic's: MODEL=INPUT/OUTPUT[/CACHED],… in USD for a million tokens, MODEL being a part of the name; a model that nobody knows counts as the dearest one"`
	TurnTimeout string `envconfig:"FLAUDEBOT_TURN_TIMEOUT" default:"2h" desc:"longest turn; 0: no limit"`
	Patience    string `envconfig:"FLAUDEBOT_PATIENCE" default:"2m" desc:"how long a turn waits for Fly to have room or to answer before it fails"`

	AskAfter  string `envconfig:"FLAUDEBOT_ASK_AFTER" default:"15m" desc:"age from which a message that was missed is asked about instead of run"`
	SlackPace string `envconfig:"FLAUDEBOT_SLACK_PACE_PERCENT" default:"100" desc:"how often Slack's methods are called at most, in percent of what Slack documents; replicas that share a limit slow down by themselves"`

	AllowedUsers    string `envconfig:"FLAUDEBOT_ALLOWED_USERS" desc:"Slack ids of people (U…) and user groups (S…) who may use the bot; empty: full members of the workspace"`
	AllowedChannels string `envconfig:"FLAUDEBOT_ALLOWED_CHANNELS" desc:"Slack ids of channels where it answers; empty: wherever it is"`
	AttachmentKB    string `envconfig:"FLAUDEBOT_ATTACHMENT_LIMIT_KB" default:"5120" desc:"largest attachment that is taken, in KB; a machine gets about 30 KB a second, since Fly allows it one call a second"`

	Isolate string `envconfig:"FLAUDEBOT_ISOLATE" default:"true" desc:"whether sessions are kept from reaching each other by a network policy of Fly, which the bot makes for their app: true or false"`

	Hosts string `envconfig:"FLAUDEBOT_HOSTS" desc:"hosts that commands in sessions may reach where a channel names none itself, as pypi.org,files.pythonhosted.org,*.npmjs.org for pip and npm; none; empty: all of the Internet"`

	ClaudeOAuthToken string `envconfig:"CLAUDE_CODE_OAUTH_TOKEN" secret:"yes" desc:"Claude credential of a subscription (claude setup-token); this or ANTHROPIC_API_KEY"`
	AnthropicAPIKey  string `envconfig:"ANTHROPIC_API_KEY" secret:"yes" desc:"Claude credential of the API; this or CLAUDE_CODE_OAUTH_TOKEN"`
	AnthropicBaseURL string `envconfig:"ANTHROPIC_BASE_URL" default:"https://api.anthropic.com" desc:"where the gateway in each machine sends Claude Code's requests"`
	Model            string `envconfig:"FLAUDEBOT_MODEL" desc:"Claude model; empty: Claude Code's default"`
	GitUsername      string `envconfig:"GITHUB_USERNAME" default:"x-access-token" desc:"user name for Git over HTTPS"`
	GitToken         string `envconfig:"GITHUB_TOKEN" secret:"yes" desc:"token for Git over HTTPS"`
	Forges           string `envconfig:"FLAUDEBOT_FORGES" desc:"what Git hosts of your own are, for pull requests: host=github or host=gitlab, separated by commas; a name with github or gitlab in it tells by itself"`
	GitAuthor        string `envconfig:"FLAUDEBOT_GIT_AUTHOR" default:"Claude <noreply@anthropic.com>" desc:"author of the commits that are made in sessions: Name <address>"`
	CommitTrailers   string `envconfig:"FLAUDEBOT_COMMIT_TRAILERS" default:"true" desc:"whether commits say who asked for them and in which thread (Requested-by, Slack-thread): true or false"`

	SecretsKey string `envconfig:"FLAUDEBOT_SECRETS_KEY" secret:"yes" desc:"key for the secrets that admins set for a channel: 32 random bytes in base64, as openssl rand -base64 32 makes them; NEW,OLD to change it; empty: no secrets can be set"`

	AuditDays string `envconfig:"FLAUDEBOT_AUDIT_DAYS" default:"400" desc:"for how many days the record of who asked, and what ran, is kept (flaudebot audit)"`
	HTTP      string `envconfig:"FLAUDEBOT_HTTP" desc:"address on which /healthz, /readyz and /metrics are served, such as :8080 or 127.0.0.1:8080; empty: nowhere"`
	Prefix    string `envconfig:"FLAUDEBOT_PREFIX" default:"fb:" desc:"what every Redis key begins with"`
	LogLevel  string `envconfig:"FLAUDEBOT_LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat string `envconfig:"FLAUDEBOT_LOG_FORMAT" default:"text" desc:"text or json"`
}

// config is what the settings mean.
type config struct {
	settings

	redis           redisConfig
	embedded        bool     // Redis is the demo's own
	regions         []string // in order of preference
	guest           sessions.Guest
	volumeGB        int
	maxMemoryMB     int
	maxVolumeGB     int
	ttl, idleTTL    time.Duration
	reapEvery       time.Duration
	linger, lease   time.Duration
	turnTimeout     time.Duration
	patience        time.Duration
	askAfter        time.Duration
	maxParallel     int
	limits          queue.Limits
	budgets         sessions.BudgetConfig
	hosts           []string
	isolate         bool
	auditFor        time.Duration
	slackPace       float64 // 1: what Slack documents
	attachmentBytes int64
	repos           []runner.Repo
	namedRepos      []string
	forges          []runner.Forge
	gitAuthor       mail.Address
	trailers        bool
	allowedUsers    []string
	allowedChannels []string
	keys            *sessions.Keyring // nil: none
}

// gitOrigins are the places that may be sent the Git token, also where the admins of a channel name repositories: those that whoever runs
// the bot has named, and GitHub, whose token it is.
func (c config) gitOrigins() []string {
	out := []string{"https://github.com"}
	add := func(address string) {
		if u, err := url.Parse(address); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
			out = append(out, strings.ToLower(u.Scheme+"://"+u.Host))
		}
	}
	for _, r := range c.repos {
		add(r.URL)
	}
	for _, place := range c.namedRepos {
		add(place)
	}
	for _, f := range c.forges {
		add("https://" + f.Host)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// loadConfig reads the environment. parts names what the command needs of it: slack, redis, fly, claude.
func loadConfig(parts ...string) (config, error) {
	s, err := readSettings()
	if err != nil {
		return config{}, err
	}
	return s.check(parts...)
}

func readSettings() (settings, error) {
	var s settings
	if err := envconfig.Process("", &s); err != nil {
		return settings{}, fmt.Errorf("read the environment: %w", err)
	}
	return s, nil
}

// badSetting is a mistake, with what to do about it behind the first colon.
type badSetting struct {
	text    string
	missing bool // nothing is set where something has to be
}

// badSettings lists every mistake.
type badSettings []badSetting

func (b badSettings) Error() string {
	var text strings.Builder
	text.WriteString("settings that need your attention:")
	for _, bad := range b {
		text.WriteString("\n  " + bad.text)
	}
	return text.String()
}

// missing reports whether one is that a setting is missing.
func (b badSettings) missing() bool {
	return slices.ContainsFunc(b, func(bad badSetting) bool { return bad.missing })
}

// check validates all settings that parts need and reports all mistakes at once, secrets by name only.
func (s settings) check(parts ...string) (config, error) {
	c, wrong := s.examine(parts...)
	var all badSettings
	for _, part := range append(parts, "rest") {
		all = append(all, wrong[part]...)
	}
	if len(all) > 0 {
		return c, all
	}
	return c, nil
}

// examine validates the settings that parts need, and what all of them need, which is the part rest: part → its mistakes.
func (s settings) examine(parts ...string) (config, map[string]badSettings) {
	c := config{settings: s}
	wrong := map[string]badSettings{}
	for _, part := range append(parts, "rest") {
		var v validator
		switch part {
		case "slack":
			v.slack(&c)
		case "redis":
			v.redis(&c)
		case "fly":
			v.fly(&c)
		case "claude":
			v.claude(&c)
		case "rest":
			v.rest(&c)
		}
		wrong[part] = v.bad
	}
	return c, wrong
}

type validator struct{ bad badSettings }

func (v *validator) add(format string, args ...any) {
	v.bad = append(v.bad, badSetting{text: fmt.Sprintf(format, args...)})
}

// missing adds that something is not set. fix says how to come by it.
func (v *validator) missing(what, fix string) {
	v.bad = append(v.bad, badSetting{text: what + ": " + fix, missing: true})
}

func (v *validator) slack(c *config) {
	v.token("SLACK_APP_TOKEN", c.SlackAppToken, "xapp-", "Slack app → Basic Information → App-Level Tokens, scope connections:write")
	v.token("SLACK_BOT_TOKEN", c.SlackBotToken, "xoxb-", "Slack app → OAuth & Permissions → Bot User OAuth Token")
	v.address("SLACK_API_URL", c.SlackAPIURL)
	if c.SlackAPIURL != "" && !strings.HasSuffix(c.SlackAPIURL, "/") {
		v.add("SLACK_API_URL=%s: must end in /, since the method's name is appended", redactAddress(c.SlackAPIURL))
	}
	c.allowedUsers = v.ids("FLAUDEBOT_ALLOWED_USERS", c.AllowedUsers, "UWS")
	c.allowedChannels = v.ids("FLAUDEBOT_ALLOWED_CHANNELS", c.AllowedChannels, "CGD")
	c.attachmentBytes = int64(v.number("FLAUDEBOT_ATTACHMENT_LIMIT_KB", c.AttachmentKB, 1, 20480)) << 10
}

func (v *validator) redis(c *config) {
	if c.RedisURL == "" {
		v.missing("REDIS_URL is not set", "give the address of a Redis 7, such as redis://localhost:6379/0")
		return
	}
	var err error
	if c.redis, err = parseRedis(c.RedisURL, c.RedisCA); err != nil {
		v.add("%s", err)
	}
	if c.Prefix == "" || strings.ContainsAny(c.Prefix, "{} \n") {
		v.add("FLAUDEBOT_PREFIX=%q: want a few letters, without braces and spaces", c.Prefix)
	}
}

func (v *validator) fly(c *config) {
	if c.FlyToken == "" {
		v.missing("FLY_API_TOKEN is not set", "`fly tokens create org` makes one that may create the app, `fly tokens create deploy -a APP` one for an app that exists")
	}
	v.place("FLY_API_TOKEN", &c.FlyToken)
	v.address("FLY_FLAPS_BASE_URL", c.FlyBaseURL)
	v.address("FLY_API_BASE_URL", c.FlyLogsURL)
	if strings.HasSuffix(strings.TrimRight(c.FlyBaseURL, "/"), "/v1") {
		v.add("FLY_FLAPS_BASE_URL=%s: leave /v1 out", redactAddress(c.FlyBaseURL))
	}
	switch {
	case c.FlyApp == "":
		v.missing("FLAUDEBOT_FLY_APP is not set", "choose a name for the Fly app of the session machines")
	case !flyName(c.FlyApp):
		v.add("FLAUDEBOT_FLY_APP=%s: want lower-case letters, digits and dashes, a letter first, at most 62", c.FlyApp)
	}
	if strings.Trim(c.FlyOrg, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(c.FlyOrg, "-") {
		v.add("FLAUDEBOT_FLY_ORG=%s: want the organization's slug, of lower-case letters, digits and dashes, as `fly orgs list` shows it", c.FlyOrg)
	}
	c.regions = v.regions("FLAUDEBOT_REGIONS", c.Regions)
	if c.Image == "" {
		c.Image = "registry.fly.io/" + c.FlyApp + ":session"
	}
	if !oneOf(c.Handover, "exec", "config") {
		v.add("FLAUDEBOT_HANDOVER=%s: want exec or config", c.Handover)
	}
	c.guest = v.guest("FLAUDEBOT_GUEST", c.Guest)
	c.volumeGB = v.number("FLAUDEBOT_VOLUME_SIZE_GB", c.VolumeGB, 1, 500)
	c.maxMemoryMB = v.number("FLAUDEBOT_MAX_MEMORY_MB", c.MaxMemory, 256, 131072)
	c.maxVolumeGB = v.number("FLAUDEBOT_MAX_VOLUME_SIZE_GB", c.MaxVolume, 1, 500)
	c.repos = v.repos("FLAUDEBOT_REPOS", c.Repos)
}

func (v *validator) claude(c *config) {
	if c.ClaudeOAuthToken == "" && c.AnthropicAPIKey == "" {
		v.missing("neither CLAUDE_CODE_OAUTH_TOKEN nor ANTHROPIC_API_KEY is set", "`claude setup-token` makes the one, of a subscription, and https://console.anthropic.com → API Keys the other")
	}
	if c.ClaudeOAuthToken != "" && c.AnthropicAPIKey != "" {
		v.add("CLAUDE_CODE_OAUTH_TOKEN and ANTHROPIC_API_KEY are both set: leave one out, so that it is clear who pays")
	}
	v.place("CLAUDE_CODE_OAUTH_TOKEN", &c.ClaudeOAuthToken)
	v.place("ANTHROPIC_API_KEY", &c.AnthropicAPIKey)
	v.address("ANTHROPIC_BASE_URL", c.AnthropicBaseURL)
}

func (v *validator) rest(c *config) {
	v.secrets(c.settings)
	v.place("GITHUB_TOKEN", &c.GitToken)
	c.namedRepos = v.places("FLAUDEBOT_NAMED_REPOS", c.NamedRepos)
	c.forges = v.forges("FLAUDEBOT_FORGES", c.Forges)
	c.gitAuthor = v.author("FLAUDEBOT_GIT_AUTHOR", c.GitAuthor)
	if c.trailers = c.CommitTrailers == "true"; !oneOf(c.CommitTrailers, "true", "false") {
		v.add("FLAUDEBOT_COMMIT_TRAILERS=%s: want true or false", c.CommitTrailers)
	}
	c.ttl = v.duration("FLAUDEBOT_TTL", c.TTL, 0, 0)
	c.idleTTL = v.duration("FLAUDEBOT_IDLE_TTL", c.IdleTTL, 0, 0)
	c.reapEvery = v.duration("FLAUDEBOT_REAP_EVERY", c.ReapEvery, time.Second, time.Hour)
	c.linger = v.duration("FLAUDEBOT_LINGER", c.Linger, 0, time.Hour)
	c.lease = v.duration("FLAUDEBOT_LEASE", c.Lease, time.Second, 10*time.Minute)
	c.turnTimeout = v.duration("FLAUDEBOT_TURN_TIMEOUT", c.TurnTimeout, 0, 0)
	c.patience = v.duration("FLAUDEBOT_PATIENCE", c.Patience, time.Second, 24*time.Hour)
	c.keys = v.keys("FLAUDEBOT_SECRETS_KEY", c.SecretsKey)
	c.askAfter = v.duration("FLAUDEBOT_ASK_AFTER", c.AskAfter, time.Second, 0)
	c.slackPace = float64(v.number("FLAUDEBOT_SLACK_PACE_PERCENT", c.SlackPace, 10, 100_000)) / 100
	v.listen("FLAUDEBOT_HTTP", c.HTTP)
	c.auditFor = time.Duration(v.number("FLAUDEBOT_AUDIT_DAYS", c.AuditDays, 1, 36500)) * 24 * time.Hour
	c.maxParallel = v.number("FLAUDEBOT_MAX_PARALLEL", c.MaxParallel, 1, 10000)
	c.limits = queue.Limits{
		Running:        v.number("FLAUDEBOT_MAX_RUNNING", c.MaxRunning, 0, 100_000),
		RunningPerUser: v.number("FLAUDEBOT_MAX_RUNNING_PER_PERSON", c.MaxPerson, 0, 100_000), RunningPerGroup: v.number("FLAUDEBOT_MAX_RUNNING_PER_CHANNEL", c.MaxChannel, 0, 100_000),
		PerKey: v.number("FLAUDEBOT_MAX_QUEUED_PER_THREAD", c.MaxQueued, 1, 1000), PerUser: v.number("FLAUDEBOT_MAX_QUEUED_PER_PERSON", c.MaxQueuedBy, 0, 1_000_000),
		PerGroup: v.number("FLAUDEBOT_MAX_QUEUED_PER_CHANNEL", c.MaxQueuedAt, 0, 1_000_000),
		Total:    v.number("FLAUDEBOT_MAX_QUEUED", c.MaxQueuedIn, 0, 10_000_000),
	}
	c.hosts = strings.FieldsFunc(c.Hosts, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	if err := runner.CheckHosts(c.hosts); err != nil {
		v.add("FLAUDEBOT_HOSTS: %v", err)
	}
	if repo := runner.SSHBesideHosts(c.repos); len(c.hosts) > 0 && repo != "" {
		v.add("FLAUDEBOT_REPOS: %s is not reached by HTTPS: access can be held to FLAUDEBOT_HOSTS only where all repositories are", repo)
	}
	if c.isolate = c.Isolate == "true"; !oneOf(c.Isolate, "true", "false") {
		v.add("FLAUDEBOT_ISOLATE=%s: want true or false", c.Isolate)
	}
	c.budgets = sessions.BudgetConfig{
		PerTurn: v.dollars("FLAUDEBOT_BUDGET_PER_TURN", c.BudgetTurn), PerThread: v.dollars("FLAUDEBOT_BUDGET_PER_THREAD", c.BudgetIn),
		PerPerson: v.dollars("FLAUDEBOT_BUDGET_PER_PERSON", c.BudgetBy), PerChannel: v.dollars("FLAUDEBOT_BUDGET_PER_CHANNEL", c.BudgetAt),
		All: v.dollars("FLAUDEBOT_BUDGET", c.Budget),
	}
	prices, err := runner.ParsePrices(c.Prices)
	if err != nil {
		v.add("FLAUDEBOT_PRICES: %v", err)
	}
	c.budgets.Prices = prices
	if !oneOf(c.LogLevel, "debug", "info", "warn", "error") {
		v.add("FLAUDEBOT_LOG_LEVEL=%s: want debug, info, warn or error", c.LogLevel)
	}
	if !oneOf(c.LogFormat, "text", "json") {
		v.add("FLAUDEBOT_LOG_FORMAT=%s: want text or json", c.LogFormat)
	}
}

// listen refuses what nothing can listen on; empty is nowhere.
func (v *validator) listen(name, value string) {
	if value == "" {
		return
	}
	host, port, err := net.SplitHostPort(value)
	_, numErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numErr != nil || strings.ContainsAny(host, " /") {
		v.add("%s=%s: want [host]:port, such as :8080", name, value)
	}
}

func (v *validator) token(name, value, prefix, where string) {
	switch {
	case value == "":
		v.missing(name+" is not set", where)
	case strings.HasPrefix(value, prefix):
	case strings.HasPrefix(value, "xapp-"):
		v.add("%s holds the app-level token, which is for SLACK_APP_TOKEN: want the bot token, which begins with %s (%s)", name, prefix, where)
	case strings.HasPrefix(value, "xoxb-"):
		v.add("%s holds the bot token, which is for SLACK_BOT_TOKEN: want the app-level token, which begins with %s (%s)", name, prefix, where)
	case homeOf(value) != "":
		v.add("%s holds what is for %s: want a token that begins with %s (%s)", name, homeOf(value), prefix, where)
	default:
		v.add("%s: want a token that begins with %s (%s)", name, prefix, where)
	}
}

// homeOf is which setting a token is for, by what it begins with; "": that is not known.
func homeOf(value string) string {
	value = strings.TrimSpace(value)
	for _, known := range []struct{ prefix, setting string }{ // the first that fits counts
		{"xapp-", "SLACK_APP_TOKEN"},
		{"xoxb-", "SLACK_BOT_TOKEN"},
		{"sk-ant-oat", "CLAUDE_CODE_OAUTH_TOKEN"},
		{"sk-ant-api", "ANTHROPIC_API_KEY"},
		{"sk-ant-", "CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_API_KEY"},
		{"FlyV1 ", "FLY_API_TOKEN"},
		{"fm1_", "FLY_API_TOKEN"},
		{"fm1a_", "FLY_API_TOKEN"},
		{"fm1r_", "FLY_API_TOKEN"},
		{"fm2_", "FLY_API_TOKEN"},
		{"fo1_", "FLY_API_TOKEN"},
		{"ghp_", "GITHUB_TOKEN"},
		{"gho_", "GITHUB_TOKEN"},
		{"ghu_", "GITHUB_TOKEN"},
		{"ghs_", "GITHUB_TOKEN"},
		{"github_pat_", "GITHUB_TOKEN"},
		{"glpat-", "GITHUB_TOKEN"},
		{"redis://", "REDIS_URL"},
		{"rediss://", "REDIS_URL"},
	} {
		if strings.HasPrefix(value, known.prefix) {
			return known.setting
		}
	}
	return ""
}

// place refuses the token of another service, and takes it out: whoever goes on with the rest of the settings would send it to the wrong one.
func (v *validator) place(name string, value *string) {
	if home := homeOf(*value); home != "" && !strings.Contains(home, name) {
		v.add("%s holds what is for %s: put each into its own setting", name, home)
		*value = ""
	}
	if strings.HasPrefix(strings.TrimSpace(*value), "xox") {
		v.add("%s holds a token of Slack's, which no setting takes: leave it out", name)
		*value = ""
	}
}

// secrets refuses what cannot be a token or a key, for all that are marked as such.
func (v *validator) secrets(s settings) {
	values := reflect.ValueOf(s)
	for f := range reflect.TypeFor[settings]().Fields() {
		name, value := f.Tag.Get("envconfig"), values.FieldByIndex(f.Index).String()
		if name == "FLY_API_TOKEN" {
			value = bareFlyToken(value)
		}
		if f.Tag.Get("secret") != "" && strings.ContainsAny(value, " \t\r\n") {
			v.add("%s: holds a space or a line break: copy it again", name)
		}
	}
}

// bareFlyToken is a token of Fly's without the scheme that flyctl prints before it.
func bareFlyToken(s string) string {
	return strings.TrimPrefix(strings.TrimPrefix(s, "FlyV1 "), "Bearer ")
}

func (v *validator) address(name, value string) {
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		v.add("%s=%s: want an address such as https://host", name, redactAddress(value))
	}
}

// redactAddress hides what may be a password.
func redactAddress(value string) string {
	if strings.Contains(value, "@") {
		return "[redacted]"
	}
	return value
}

func (v *validator) number(name, value string, low, high int) int {
	n, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil || n < low || n > high {
		v.add("%s=%s: want %d to %d", name, value, low, high)
		return low
	}
	return n
}

// dollars reads an amount in USD.
func (v *validator) dollars(name, value string) float64 {
	usd, err := sessions.ParseBudget(value)
	if err != nil {
		v.add("%s=%s: %s", name, value, err)
		return 0
	}
	return usd
}

// duration reads a Go duration of at least low, and at most high if that is not 0.
func (v *validator) duration(name, value string, low, high time.Duration) time.Duration {
	d, err := time.ParseDuration(strings.TrimSpace(value))
	switch {
	case err != nil || d < 0:
		v.add("%s=%s: want a duration such as 30s, 15m or 48h", name, value)
	case d < low:
		v.add("%s=%s: want at least %s", name, value, low)
	case d > 0 && d < time.Second:
		v.add("%s=%s: want at least 1s, or 0", name, value)
	case high > 0 && d > high:
		v.add("%s=%s: want at most %s", name, value, high)
	}
	return d
}

func (v *validator) ids(name, value, first string) []string {
	var out []string
	for id := range strings.SplitSeq(value, ",") {
		id = strings.TrimSpace(id)
		if id == "" {
			continue
		}
		if !strings.ContainsRune(first, rune(id[0])) || strings.ToUpper(id) != id {
			v.add("%s: %s is no Slack id: want ids that begin with one of %s, separated by commas, not names", name, id, first)
			continue
		}
		out = append(out, id)
	}
	return out
}

// regions reads Fly regions, the preferred one first.
func (v *validator) regions(name, value string) []string {
	var out []string
	for item := range strings.SplitSeq(value, ",") {
		switch item = strings.TrimSpace(item); {
		case item == "":
		case !sessions.IsRegion(item):
			v.add("%s: %q is no Fly region: want three letters each, such as iad,ewr", name, item)
		case slices.Contains(out, item):
			v.add("%s: %s is named twice", name, item)
		default:
			out = append(out, item)
		}
	}
	if len(out) == 0 && !slices.ContainsFunc(v.bad, func(bad badSetting) bool { return aboutSetting(bad.text, name) }) {
		v.add("%s is empty: want Fly regions such as iad,ewr", name)
	}
	return out
}

// places reads where repositories may be that people name.
func (v *validator) places(name, value string) []string {
	var out []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		place, err := bot.NamedPlace(item)
		if err != nil {
			v.add("%s: %s: %s", name, redactAddress(item), err)
			continue
		}
		out = append(out, place)
	}
	return out
}

// forges reads what Git hosts are.
func (v *validator) forges(name, value string) []runner.Forge {
	var out []runner.Forge
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		host, kind, _ := strings.Cut(item, "=")
		f := runner.Forge{Host: strings.ToLower(strings.TrimSpace(host)), Kind: runner.ForgeKind(strings.TrimSpace(kind))}
		if f.Host == "" || strings.ContainsAny(f.Host, "/@ ") || f.Kind != runner.ForgeGitHub && f.Kind != runner.ForgeGitLab {
			v.add("%s: %s: want host=github or host=gitlab", name, redactAddress(item))
			continue
		}
		out = append(out, f)
	}
	return out
}

// author reads who commits are by.
func (v *validator) author(name, value string) mail.Address {
	a, err := mail.ParseAddress(value)
	if err != nil || a.Name == "" || strings.ContainsAny(a.Name+a.Address, "<>\n") {
		v.add("%s=%s: want a name and an address, as Claude <noreply@anthropic.com>", name, value)
		return mail.Address{}
	}
	return *a
}

func (v *validator) guest(name, value string) sessions.Guest {
	g, err := sessions.ParseGuest(value)
	if err != nil {
		v.add("%s=%s: %s", name, value, err)
	}
	return g
}

func (v *validator) repos(name, value string) []runner.Repo {
	out, err := sessions.ParseRepos(value)
	if err != nil {
		v.add("%s: %s", name, err)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// keys reads the keys for secrets.
func (v *validator) keys(name, value string) *sessions.Keyring {
	k, err := sessions.ParseKeys(value)
	if err != nil {
		v.add("%s: %s", name, err)
	}
	return k
}

func flyName(s string) bool {
	if s == "" || len(s) > 62 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func oneOf(s string, all ...string) bool {
	return slices.Contains(all, s)
}

// printSettings writes every setting with its default and meaning, read off the struct.
func printSettings(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for f := range reflect.TypeFor[settings]().Fields() {
		def := f.Tag.Get("default")
		switch {
		case f.Tag.Get("needs") != "":
			def = "required"
		case def == "":
			def = "-"
		}
		if _, err := fmt.Fprintf(tw, "  %s\t%s\t%s\n", f.Tag.Get("envconfig"), def, f.Tag.Get("desc")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// environ is the process's environment; a place of its own, so that nothing else reads it.
func environ(name string) string { return os.Getenv(name) }
