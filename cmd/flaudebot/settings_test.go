package main

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flaudebot/fly"
	"flaudebot/runner"
	"flaudebot/sessions"
)

// goodSettings pass every check.
func goodSettings() settings {
	var s settings
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		v.Field(i).SetString(v.Type().Field(i).Tag.Get("default"))
	}
	s.SlackAppToken, s.SlackBotToken, s.RedisURL = "xapp-1-secret", "xoxb-secret", "redis://:hunter2@localhost:6379/0"
	s.FlyToken, s.FlyApp, s.AnthropicAPIKey = "fly-secret", "acme-sessions", "sk-ant-secret"
	return s
}

func allParts() []string { return []string{"slack", "redis", "fly", "claude"} }

func TestSettings(t *testing.T) {
	t.Parallel()
	t.Run("defaults are those that the documentation names", func(t *testing.T) {
		t.Parallel()
		c, err := goodSettings().check(allParts()...)
		if err != nil {
			t.Fatal(err)
		}
		if c.volumeGB != 1 || c.ttl != 0 || c.idleTTL.Hours() != 30*24 || c.linger.Minutes() != 5 || c.lease.Seconds() != 15 {
			t.Errorf("volume %d GB, ttl %v, idle %v, linger %v, lease %v; want 1, 0, 720h, 5m, 15s", c.volumeGB, c.ttl, c.idleTTL, c.linger, c.lease)
		}
		if want := (fly.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 4096}); c.guest != want {
			t.Errorf("guest = %+v, want %+v", c.guest, want)
		}
		if c.Image != "registry.fly.io/acme-sessions:session" {
			t.Errorf("image = %s", c.Image)
		}
		if c.redis.one.MaxRetries != -1 {
			t.Errorf("MaxRetries = %d, want -1: a repeated claim would leak", c.redis.one.MaxRetries)
		}
	})
	t.Run("a Fly token is taken as flyctl prints it, and hidden with and without its scheme", func(t *testing.T) {
		t.Parallel()
		s := goodSettings()
		s.FlyToken = "FlyV1 fm2_a,fm2_b"
		c, err := s.check(allParts()...)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"FlyV1 fm2_a,fm2_b", "fm2_a,fm2_b"} {
			if !slices.Contains(c.secretValues(), secret) {
				t.Errorf("%q is not hidden", secret)
			}
		}
	})
	t.Run("each token is taken where it belongs", func(t *testing.T) {
		t.Parallel()
		for _, change := range []func(*settings){
			func(s *settings) { s.FlyToken = "fo1_abc" }, func(s *settings) { s.FlyToken = "Bearer fm2_abc" }, func(s *settings) { s.FlyToken = "FlyV1 fm1r_a,fm2_b" },
			func(s *settings) { s.AnthropicAPIKey = "sk-ant-api03-abc" }, func(s *settings) { s.AnthropicAPIKey, s.ClaudeOAuthToken = "", "sk-ant-oat01-abc" },
			func(s *settings) { s.GitToken = "github_pat_abc" }, func(s *settings) { s.GitToken = "glpat-abc" }, func(s *settings) { s.GitToken = "of-a-forge" },
		} {
			s := goodSettings()
			change(&s)
			if c, err := s.check(allParts()...); err != nil || c.settings != func() settings { s.Image = c.Image; return s }() {
				t.Errorf("check = %v, and the settings are changed", err)
			}
		}
	})
	t.Run("the Git token goes to GitHub and to what is named, and nowhere else", func(t *testing.T) {
		t.Parallel()
		s := goodSettings()
		s.Repos, s.NamedRepos, s.Forges = "https://Git.example/a/b,/srv/repo,git@ssh.example:a/c", "gitlab.com/acme", "code.example=gitlab"
		c, err := s.check(allParts()...)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"https://code.example", "https://git.example", "https://github.com", "https://gitlab.com"}
		if diff := cmp.Diff(want, c.gitOrigins()); diff != "" {
			t.Errorf("gitOrigins (-want +got):\n%s", diff)
		}
	})
	for _, c := range []struct {
		name   string
		change func(*settings)
		want   string
	}{
		{"no app token", func(s *settings) { s.SlackAppToken = "" }, "SLACK_APP_TOKEN is not set"},
		{"tokens swapped", func(s *settings) { s.SlackAppToken = "xoxb-secret" }, "SLACK_APP_TOKEN holds the bot token, which is for SLACK_BOT_TOKEN: want the app-level token, which begins with xapp- (Slack app → Basic Information"},
		{"the app-level token for the bot's", func(s *settings) { s.SlackBotToken = "xapp-secret" }, "SLACK_BOT_TOKEN holds the app-level token, which is for SLACK_APP_TOKEN: want the bot token, which begins with xoxb- (Slack app → OAuth"},
		{"Claude's key for the app's", func(s *settings) { s.SlackAppToken = "sk-ant-api-secret" }, "SLACK_APP_TOKEN holds what is for ANTHROPIC_API_KEY: want a token that begins with xapp-"},
		{"Slack's token for Fly's", func(s *settings) { s.FlyToken = "xoxb-secret" }, "FLY_API_TOKEN holds what is for SLACK_BOT_TOKEN: put each into its own setting"},
		{"a person's token of Slack for Fly's", func(s *settings) { s.FlyToken = "xoxp-secret" }, "FLY_API_TOKEN holds a token of Slack's, which no setting takes"},
		{"Claude's key for Fly's", func(s *settings) { s.FlyToken = "sk-ant-secret" }, "FLY_API_TOKEN holds what is for CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_API_KEY"},
		{"Slack's token for Claude's key", func(s *settings) { s.AnthropicAPIKey = " xapp-secret" }, "ANTHROPIC_API_KEY holds what is for SLACK_APP_TOKEN"},
		{"Fly's token for Claude's key", func(s *settings) { s.AnthropicAPIKey = "FlyV1 fm2_secret" }, "ANTHROPIC_API_KEY holds what is for FLY_API_TOKEN"},
		{"a subscription's token for the API's key", func(s *settings) { s.AnthropicAPIKey = "sk-ant-oat01-secret" }, "ANTHROPIC_API_KEY holds what is for CLAUDE_CODE_OAUTH_TOKEN"},
		{"the API's key for a subscription's token", func(s *settings) { s.AnthropicAPIKey, s.ClaudeOAuthToken = "", "sk-ant-api03-secret" }, "CLAUDE_CODE_OAUTH_TOKEN holds what is for ANTHROPIC_API_KEY"},
		{"Git's token for a subscription's", func(s *settings) { s.AnthropicAPIKey, s.ClaudeOAuthToken = "", "github_pat_secret" }, "CLAUDE_CODE_OAUTH_TOKEN holds what is for GITHUB_TOKEN"},
		{"Fly's token for Git's", func(s *settings) { s.GitToken = "fm2_secret" }, "GITHUB_TOKEN holds what is for FLY_API_TOKEN"},
		{"Redis's address for Git's token", func(s *settings) { s.GitToken = "rediss://x:secret@redis.example" }, "GITHUB_TOKEN holds what is for REDIS_URL"},
		{"a person's token for the app's", func(s *settings) { s.SlackAppToken = "xoxp-secret" }, "SLACK_APP_TOKEN: want a token that begins with xapp-"},
		{"a token with a line break", func(s *settings) { s.SlackBotToken = "xoxb-sec\nret" }, "SLACK_BOT_TOKEN: holds a space or a line break"},
		{"an API address without its slash", func(s *settings) { s.SlackAPIURL = "https://slack.com/api" }, "must end in /"},
		{"no Redis", func(s *settings) { s.RedisURL = "" }, "REDIS_URL is not set"},
		{"a Redis address that is none", func(s *settings) { s.RedisURL = "localhost:hunter2" }, "REDIS_URL: want redis://"},
		{"no Fly token", func(s *settings) { s.FlyToken = "" }, "FLY_API_TOKEN is not set"},
		{"an app name with capitals", func(s *settings) { s.FlyApp = "Acme" }, "FLAUDEBOT_FLY_APP=Acme: want lower-case"},
		{"an organization by its name", func(s *settings) { s.FlyOrg = "Acme Inc." }, "FLAUDEBOT_FLY_ORG=Acme Inc.: want the organization's slug"},
		{"a base address with the version", func(s *settings) { s.FlyBaseURL = "https://api.machines.dev/v1" }, "leave /v1 out"},
		{"an address for a host", func(s *settings) { s.Hosts = "pypi.org,10.0.0.1" }, `FLAUDEBOT_HOSTS: "10.0.0.1" is no host`},
		{"isolation that may be", func(s *settings) { s.Isolate = "maybe" }, "FLAUDEBOT_ISOLATE=maybe: want true or false"},
		{"a budget in words", func(s *settings) { s.BudgetAt = "plenty" }, "FLAUDEBOT_BUDGET_PER_CHANNEL=plenty: want an amount in USD"},
		{"a budget below nothing", func(s *settings) { s.BudgetTurn = "-1" }, "FLAUDEBOT_BUDGET_PER_TURN=-1: want an amount in USD"},
		{"a price without its model", func(s *settings) { s.Prices = "5/25" }, `FLAUDEBOT_PRICES: "5/25" is no price: want MODEL=INPUT/OUTPUT`},
		{"a record that is kept for no day", func(s *settings) { s.AuditDays = "0" }, "FLAUDEBOT_AUDIT_DAYS=0"},
		{"an address to listen on without a port", func(s *settings) { s.HTTP = "localhost" }, "FLAUDEBOT_HTTP=localhost: want [host]:port"},
		{"an address to listen on with a port that there is not", func(s *settings) { s.HTTP = ":80800" }, "FLAUDEBOT_HTTP=:80800: want [host]:port"},
		{"an address to listen on that is a URL", func(s *settings) { s.HTTP = "http://localhost:80" }, "FLAUDEBOT_HTTP=http://localhost:80: want [host]:port"},
		{"a handover that there is not", func(s *settings) { s.Handover = "smoke" }, "FLAUDEBOT_HANDOVER=smoke: want exec or config"},
		{"a guest without memory", func(s *settings) { s.Guest = "performance-2x" }, "FLAUDEBOT_GUEST=performance-2x: want a size such as"},
		{"a region by its name", func(s *settings) { s.Regions = "iad,Frankfurt" }, `FLAUDEBOT_REGIONS: "Frankfurt" is no Fly region`},
		{"a region twice", func(s *settings) { s.Regions = "iad,iad" }, "FLAUDEBOT_REGIONS: iad is named twice"},
		{"no region", func(s *settings) { s.Regions = " ," }, "FLAUDEBOT_REGIONS is empty: want Fly regions"},
		{"a guest that Fly does not have", func(s *settings) { s.Guest = "shared-1x:4096" }, "shared-1x has 256 to 2048 MB"},
		{"a volume of nothing", func(s *settings) { s.VolumeGB = "0" }, "FLAUDEBOT_VOLUME_SIZE_GB=0: want 1 to 500"},
		{"a duration without its unit", func(s *settings) { s.TTL = "3600" }, "FLAUDEBOT_TTL=3600: want a duration such as"},
		{"a lease too short to keep", func(s *settings) { s.Lease = "10ms" }, "FLAUDEBOT_LEASE=10ms: want at least 1s"},
		{"a user's name instead of an id", func(s *settings) { s.AllowedUsers = "ada" }, "FLAUDEBOT_ALLOWED_USERS: ada is no Slack id"},
		{"two Claude credentials", func(s *settings) { s.ClaudeOAuthToken = "oauth-secret" }, "leave one out"},
		{"words instead of a key for secrets", func(s *settings) { s.SecretsKey = "correct-horse" }, "FLAUDEBOT_SECRETS_KEY: key 1: want 32 random bytes in base64"},
		{"no Claude credential", func(s *settings) { s.AnthropicAPIKey = "" }, "neither CLAUDE_CODE_OAUTH_TOKEN nor ANTHROPIC_API_KEY is set: `claude setup-token` makes the one"},
		{"a token inside of a repository's address", func(s *settings) { s.Repos = "https://u:secret@github.com/a/b" }, "set GITHUB_USERNAME and GITHUB_TOKEN"},
		{"a token as the user of a repository's address", func(s *settings) { s.Repos = "https://secret@github.com/a/b" }, "set GITHUB_USERNAME and GITHUB_TOKEN"},
		{"an answer that was meant for the regions as a repository", func(s *settings) { s.Repos = "fra, iad" }, "FLAUDEBOT_REPOS: “fra” is no repository: want owner/name for one at GitHub, or an address (https://"},
		{"no repository beside one", func(s *settings) { s.Repos = "none, acme/site" }, "FLAUDEBOT_REPOS: “none” is no repository"},
		{"a path that begins nowhere", func(s *settings) { s.Repos = "./a/b" }, "FLAUDEBOT_REPOS: “./a/b” is no repository"},
		{"a name with its host and no scheme", func(s *settings) { s.Repos = "github.com/acme/site" }, "FLAUDEBOT_REPOS: “github.com/acme/site” is no repository"},
		{"a token as a repository", func(s *settings) { s.Repos = "secret-secret-secret-secret-secret" }, "FLAUDEBOT_REPOS: one of them is no repository"},
		{"a repository outside of the workspace", func(s *settings) { s.Repos = "https://github.com/a/b=../x" }, "a plain name below the workspace"},
		{"two repositories in one folder", func(s *settings) { s.Repos = "https://github.com/a/site,https://github.com/b/site" }, "two repositories would be in site"},
		{"a repository in the attachments' folder", func(s *settings) { s.Repos = "https://github.com/a/attachments" }, "is no name for a repository's folder"},
		{"a forge of no kind", func(s *settings) { s.Forges = "git.acme.example=github, code.acme.example=svn" }, "FLAUDEBOT_FORGES: code.acme.example=svn: want host=github"},
		{"an author without an address", func(s *settings) { s.GitAuthor = "Claude" }, "FLAUDEBOT_GIT_AUTHOR=Claude: want a name and an address"},
		{"trailers that may be", func(s *settings) { s.CommitTrailers = "maybe" }, "FLAUDEBOT_COMMIT_TRAILERS=maybe: want true or false"},
		{"a Fly token with a line break", func(s *settings) { s.FlyToken = "fly\nsecret" }, "FLY_API_TOKEN: holds a space or a line break"},
		{"a Fly token with a space in it", func(s *settings) { s.FlyToken = "FlyV1 fm2_ secret" }, "FLY_API_TOKEN: holds a space or a line break"},
		{"a Claude key with a space", func(s *settings) { s.AnthropicAPIKey = "sk-ant secret" }, "ANTHROPIC_API_KEY: holds a space or a line break"},
		{"a Git token with a line break", func(s *settings) { s.GitToken = "ghp-secret\n" }, "GITHUB_TOKEN: holds a space or a line break"},
		{"a base address with a password and the version", func(s *settings) { s.FlyBaseURL = "https://me:hunter2@fly.example/v1" }, "FLY_FLAPS_BASE_URL=[redacted]: leave /v1 out"},
		{"a time limit below what it is counted in", func(s *settings) { s.TurnTimeout = "500ms" }, "FLAUDEBOT_TURN_TIMEOUT=500ms: want at least 1s, or 0"},
		{"an unknown log format", func(s *settings) { s.LogFormat = "xml" }, "want text or json"},
	} {
		t.Run("says what is wrong: "+c.name, func(t *testing.T) {
			t.Parallel()
			s := goodSettings()
			c.change(&s)
			_, err := s.check(allParts()...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("check = %v, want %q in it", err, c.want)
			}
			for _, secret := range []string{"secret", "hunter2"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a secret: %v", err)
				}
			}
		})
	}
	t.Run("reports all mistakes at once", func(t *testing.T) {
		t.Parallel()
		_, err := settings{LogLevel: "loud"}.check(allParts()...)
		for _, name := range []string{"SLACK_APP_TOKEN", "SLACK_BOT_TOKEN", "REDIS_URL", "FLY_API_TOKEN", "FLAUDEBOT_FLY_APP", "CLAUDE_CODE_OAUTH_TOKEN", "FLAUDEBOT_LOG_LEVEL"} {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("check = %v, want %s in it", err, name)
			}
		}
	})
	t.Run("the example of hosts is one that pip can work with", func(t *testing.T) {
		t.Parallel()
		f, _ := reflect.TypeFor[settings]().FieldByName("Hosts")
		_, example, _ := strings.Cut(f.Tag.Get("desc"), ", as ")
		example, _, _ = strings.Cut(example, " ")
		s := goodSettings()
		s.Hosts = example
		c, err := s.check(allParts()...)
		if err != nil || !slices.Contains(c.hosts, "pypi.org") || !slices.Contains(c.hosts, "files.pythonhosted.org") {
			t.Errorf("%q are the hosts %v, %v", example, c.hosts, err)
		}
	})
	t.Run("help lists every setting", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		if err := printSettings(&out); err != nil {
			t.Fatal(err)
		}
		for f := range reflect.TypeFor[settings]().Fields() {
			name, desc := f.Tag.Get("envconfig"), f.Tag.Get("desc")
			if name == "" || desc == "" || !strings.Contains(out.String(), name+" ") || !strings.Contains(out.String(), desc) {
				t.Errorf("serve --help does not tell of %s (%s)", f.Name, name)
			}
		}
	})
	t.Run("the configuration page lists every setting with its default", func(t *testing.T) {
		t.Parallel()
		page, err := os.ReadFile("../../docs/configuration.md")
		if err != nil {
			t.Fatal(err)
		}
		for f := range reflect.TypeFor[settings]().Fields() {
			def := f.Tag.Get("default")
			switch {
			case f.Tag.Get("needs") != "":
				def = "required"
			case def == "":
				def = "-"
			}
			row := "| `" + f.Tag.Get("envconfig") + "` | " + def + " | " + f.Tag.Get("desc") + " |"
			if !strings.Contains(string(page), row) {
				t.Errorf("docs/configuration.md has no row %s", row)
			}
		}
	})
}

func TestParseRepos(t *testing.T) {
	t.Parallel()
	got, err := sessions.ParseRepos("https://github.com/a/b, https://github.com/a/c#main=web ,git@github.com:a/d.git=d,/srv/tree/repo, acme/site#next=new," +
		"ssh://git@git.example/a/e,file:///srv/f,http://127.0.0.1:8703/a/g.git,https://gitlab.com/a/b/h/-/tree/dev")
	if err != nil {
		t.Fatal(err)
	}
	want := []runner.Repo{
		{URL: "https://github.com/a/b"},
		{URL: "https://github.com/a/c", Branch: "main", Dir: "web"},
		{URL: "git@github.com:a/d.git", Dir: "d"},
		{URL: "/srv/tree/repo"},
		{URL: "https://github.com/acme/site", Branch: "next", Dir: "new"},
		{URL: "ssh://git@git.example/a/e"},
		{URL: "file:///srv/f"},
		{URL: "http://127.0.0.1:8703/a/g.git"},
		{URL: "https://gitlab.com/a/b/h", Branch: "dev"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseRepos (-want +got):\n%s", diff)
	}
	for text, empty := range map[string]bool{"": false, " , ": false, "none": true, " None\n": true} {
		if got, err := sessions.ParseRepos(text); err != nil || len(got) != 0 || (got != nil) != empty {
			t.Errorf("ParseRepos(%q) = %#v, %v", text, got, err)
		}
	}
}
