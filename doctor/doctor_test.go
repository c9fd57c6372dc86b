package doctor_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/doctor"
	"flaudebot/runner"
)

// broken is one thing that is wrong, and what is said of it.
type broken struct {
	what  string
	harm  func(*patient)
	level doctor.Level
	about string
	finds string // in what was found
	fix   string // in what to do
}

// TestExamine breaks one thing after the other. Each row is what is broken, the finding, and the fix in its words.
func TestExamine(t *testing.T) {
	t.Parallel()
	shared := redisServer(t)
	good := shared.Options().Addr
	nowhere := "127.0.0.1:1"
	t.Run("of one in good health there is nothing to say but that", func(t *testing.T) {
		p := newPatient(t, good)
		all := doctor.Examine(t.Context(), p.Config)
		about := map[string]int{}
		for _, f := range all {
			about[f.About]++
			if f.Level != doctor.OK || f.Fix != "" {
				t.Errorf("found %s", f)
			}
		}
		for name, n := range map[string]int{"slack": 4, "redis": 6, "fly": 3, "claude": 2, "git": 1, "clock": 1} {
			if about[name] != n {
				t.Errorf("%d findings about %s, want %d:\n%s", about[name], name, n, lines(all))
			}
		}
		if n := shared.DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("there are %d keys in Redis, want none: it is only looked at", n)
		}
	})
	own := func(args ...string) func(*patient) *redis.Client {
		return func(p *patient) *redis.Client {
			rdb := redisServer(p.T, args...)
			p.redis.Addr = rdb.Options().Addr
			return rdb
		}
	}
	for _, b := range []broken{
		{"the bot token was revoked", func(p *patient) { p.Slack.BotToken = "xoxb-gone" }, doctor.Problem, "slack", "Slack refuses SLACK_BOT_TOKEN: invalid_auth", "copy the Bot User OAuth Token again from the app's page OAuth & Permissions"},
		{"the bot token is a person's", func(p *patient) { p.Slack.BotToken = "xoxp-local-member" }, doctor.Problem, "slack", "SLACK_BOT_TOKEN is a person's token, mira's", "copy the Bot User OAuth Token (xoxb-…)"},
		{"the app token is unknown", func(p *patient) { p.Slack.AppToken = "xapp-gone" }, doctor.Problem, "slack", "Slack refuses SLACK_APP_TOKEN: invalid_auth", "make an app-level token with the scope connections:write"},
		{"the tokens are of two apps", func(p *patient) { p.Slack.BotToken = "xoxb-local-ci" }, doctor.Problem, "slack", "SLACK_APP_TOKEN is of the app A0FLAUDE and SLACK_BOT_TOKEN of A0CI", "take both from the same app"},
		{"a scope is missing", func(p *patient) {
			p.post("/slack/local/trouble", map[string]any{"lacks": []string{"files:read", "channels:history"}})
		}, doctor.Problem, "slack", "the bot token lacks the scopes channels:history, files:read", "paste what `flaudebot manifest` prints into the app's page App Manifest, save, and reinstall the app"},
		{"the scope for agents is missing", func(p *patient) { p.post("/slack/local/trouble", map[string]any{"lacks": []string{"assistant:write"}}) }, doctor.Warning, "slack", "lacks assistant:write", "reinstall the app"},
		{"the bot is in no channel", func(p *patient) {
			for _, channel := range []string{"C0GENERAL", "C0PAYMENTS"} {
				p.post("/slack/api/conversations.kick", map[string]any{"channel": channel, "user": "U0FLAUDE"})
			}
			p.Slack.Channels = nil
		}, doctor.Warning, "slack", "the bot is in no channel", "type /invite @flaudebot in a channel"},
		{"an allowed user is unknown", func(p *patient) { p.Slack.Users = []string{"U0MEMBER", "U0NOBODY", "S0NONE"} }, doctor.Problem, "slack", "FLAUDEBOT_ALLOWED_USERS names nobody of this workspace: U0NOBODY, S0NONE", "copy the ids again"},
		{"an allowed channel is unknown", func(p *patient) { p.Slack.Channels = []string{"C0NOWHERE"} }, doctor.Problem, "slack", "FLAUDEBOT_ALLOWED_CHANNELS names what the bot cannot see: C0NOWHERE", "invite the bot if the channel is private"},
		{"Slack has trouble of its own", func(p *patient) { p.fault("slack", map[string]any{"method": "auth.test", "status": 503}) }, doctor.Problem, "slack", "Slack answers 503", "slack-status.com"},
		{"Slack wants to be left alone", func(p *patient) {
			p.fault("slack", map[string]any{"method": "apps.connections.open", "status": 429, "retry_after": 7})
		}, doctor.Warning, "slack", "Slack asks to be left alone for 7s, so SLACK_APP_TOKEN could not be tried", "try again in a minute"},
		{"Slack's address leads nowhere", func(p *patient) { p.Slack.APIURL = "http://" + nowhere + "/api/" }, doctor.Problem, "slack", "Slack at 127.0.0.1:1 does not answer", "see that this machine reaches 127.0.0.1:1 (name, firewall, proxy), and that SLACK_API_URL is right"},

		{"Redis is away", func(p *patient) { p.redis.Addr = nowhere }, doctor.Problem, "redis", "does not answer", "start Redis there, or correct host and port in REDIS_URL"},
		{"Redis wants another password", func(p *patient) { own("--requirepass", "right")(p); p.redis.Password = "wrong" }, doctor.Problem, "redis", "refuses the user or password", "put the right user and password into REDIS_URL"},
		{"Redis drops what it likes", func(p *patient) { own("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")(p) }, doctor.Problem, "redis", "maxmemory-policy is allkeys-lru", "CONFIG SET maxmemory-policy noeviction"},
		{"Redis keeps nothing", func(p *patient) { own("--appendonly", "no")(p) }, doctor.Warning, "redis", "appendonly is off", "CONFIG SET appendonly yes"},
		{"Redis is nearly full", func(p *patient) {
			rdb := own()(p)
			used := rdb.InfoMap(p.Context(), "memory").Item("Memory", "used_memory")
			config(p.T, rdb, "maxmemory", used)
		}, doctor.Warning, "redis", "Redis is nearly full", "raise maxmemory"},
		{"the user of Redis lacks a command", func(p *patient) {
			rdb := own()(p)
			if err := rdb.Do(p.Context(), "acl", "setuser", "narrow", "on", ">right", "~*", "+@all", "-blpop").Err(); err != nil {
				p.Fatal(err)
			}
			p.redis.Username, p.redis.Password = "narrow", "right"
		}, doctor.Problem, "redis", "lacks rights: blpop", "give the user the rights that docs/operations.md lists"},
		{"the user of Redis lacks a right that only sessions need", func(p *patient) {
			rdb := own()(p)
			if err := rdb.Do(p.Context(), "acl", "setuser", "narrow", "on", ">right", "~*", "+@all", "-hincrbyfloat").Err(); err != nil {
				p.Fatal(err)
			}
			p.redis.Username, p.redis.Password = "narrow", "right"
		}, doctor.Problem, "redis", "lacks rights: hincrbyfloat", "docs/operations.md"},
		{"the user of Redis may not ask how it is set up", func(p *patient) {
			rdb := own()(p)
			if err := rdb.Do(p.Context(), "acl", "setuser", "narrow", "on", ">right", "~*", "+@all", "-info").Err(); err != nil {
				p.Fatal(err)
			}
			p.redis.Username, p.redis.Password = "narrow", "right"
		}, doctor.Warning, "redis", "does not say how it is set up", "allow the user INFO"},
		{"the data is of a newer flaudebot", func(p *patient) {
			if err := own()(p).HSet(p.Context(), "fb:{queue}:meta", "ver", 999).Err(); err != nil {
				p.Fatal(err)
			}
		}, doctor.Problem, "redis", "the data under fb: has layout 999", "run the newer flaudebot, or use another FLAUDEBOT_PREFIX"},

		{"Fly's token is refused", func(p *patient) { p.Fly.Token = "gone" }, doctor.Problem, "fly", "Fly refuses FLY_API_TOKEN", "make a token with `fly tokens create org`"},
		{"the app is missing, and the token may not make it", func(p *patient) { p.Fly.Token, p.Fly.App = "fly-local-deploy", "missing-app" }, doctor.Problem, "fly", "there is no app missing-app that the token may use, and it may not make one in the organization acme", "fly apps create missing-app --org acme --network missing-app"},
		{"the app is another organization's", func(p *patient) { p.fault("fly", map[string]any{"method": "app.get", "status": 403}) }, doctor.Problem, "fly", "the token may not use the app acme-sessions", "choose another name for FLAUDEBOT_FLY_APP"},
		{"the token may not list machines", func(p *patient) { p.fault("fly", map[string]any{"method": "machine.list", "status": 403}) }, doctor.Problem, "fly", "the token may not list the machines of the app acme-sessions", "make a token"},
		{"the app is on the network of others", func(p *patient) {
			p.post("/fly/v1/apps", map[string]any{"app_name": "other-app", "org_slug": "acme", "network": "default"})
			p.Fly.App = "other-app"
		}, doctor.Warning, "fly", "the app other-app is on the private network default", "fly apps create other-app --org acme --network other-app"},
		{"a region is none of Fly's", func(p *patient) { p.Fly.Regions = []string{"iad", "xxx"} }, doctor.Problem, "fly", "FLAUDEBOT_REGIONS names what is no region of Fly's, or is one no more: xxx", "choose among ams, arn, bom"},
		{"there is room nowhere", func(p *patient) {
			p.post("/fly/local/trouble", map[string]any{"full": map[string]string{"*": "region"}})
		}, doctor.Problem, "fly", "Fly has no room for a machine of 2 CPUs performance and 4096 MB just now in iad, ewr", "name further regions in FLAUDEBOT_REGIONS"},
		{"there is no room in the first region", func(p *patient) {
			p.post("/fly/local/trouble", map[string]any{"full": map[string]string{"iad": "region"}})
		}, doctor.Warning, "fly", "just now in iad: new sessions go elsewhere", "name further regions"},
		{"Fly does not say where there is room", func(p *patient) { p.fault("fly", map[string]any{"method": "platform.placements", "status": 404}) }, doctor.Warning, "fly", "whether there is room it does not say", "doctor --live"},
		{"the session image was not pushed", func(p *patient) { p.Fly.Image = p.host() + "/acme-sessions:missing" }, doctor.Problem, "fly", "acme-sessions:missing is not there", "FLAUDEBOT_FLY_APP=acme-sessions make images"},
		{"the session image has no name that makes sense", func(p *patient) { p.Fly.Image = "registry.fly.io/Acme Sessions" }, doctor.Problem, "fly", "is no name of an image", "correct FLAUDEBOT_IMAGE"},
		{"the registry is out of reach", func(p *patient) { p.Fly.Image = nowhere + "/acme:session" }, doctor.Warning, "fly", "whether the session image 127.0.0.1:1/acme:session is there cannot be told", "see that this machine reaches 127.0.0.1:1"},
		{"Fly wants to be paid", func(p *patient) {
			p.fault("fly", map[string]any{"method": "app.get", "status": 402, "body": `{"error":"add a credit card"}`})
		}, doctor.Problem, "fly", "Fly wants the organization to look after its billing", "Billing"},
		{"Fly's address leads nowhere", func(p *patient) { p.Fly.BaseURL = "http://" + nowhere }, doctor.Problem, "fly", "the Machines API at 127.0.0.1:1 does not answer", "FLY_FLAPS_BASE_URL"},

		{"Claude's key is refused", func(p *patient) { p.Claude.APIKey = "sk-ant-api-gone" }, doctor.Problem, "claude", "Claude's API refuses ANTHROPIC_API_KEY: invalid x-api-key", "make a key at https://console.anthropic.com"},
		{"Claude's token is refused", func(p *patient) { p.Claude.APIKey, p.Claude.OAuthToken = "", "sk-ant-oat-gone" }, doctor.Problem, "claude", "Claude's API refuses CLAUDE_CODE_OAUTH_TOKEN", "claude setup-token"},
		{"the two kinds of credential are mixed up", func(p *patient) { p.Claude.APIKey = "sk-ant-oat01-abc" }, doctor.Problem, "claude", "ANTHROPIC_API_KEY holds the token of a subscription", "put it into CLAUDE_CODE_OAUTH_TOKEN"},
		{"the model does not exist", func(p *patient) { p.fault("claude", map[string]any{"method": "other", "status": 404}) }, doctor.Problem, "claude", "has no model claude-local-1", "correct FLAUDEBOT_MODEL"},
		{"Claude's API is overloaded", func(p *patient) { p.fault("claude", map[string]any{"method": "models", "status": 529}) }, doctor.Warning, "claude", "answers 529, so ANTHROPIC_API_KEY could not be tried", "status.claude.com"},
		{"what stands in for Claude's API has no models", func(p *patient) { p.fault("claude", map[string]any{"method": "models", "status": 404}) }, doctor.Warning, "claude", "has no list of models", "doctor --live"},
		{"Claude's address leads nowhere", func(p *patient) { p.Claude.BaseURL = "http://" + nowhere }, doctor.Problem, "claude", "Claude's API at 127.0.0.1:1 does not answer", "ANTHROPIC_BASE_URL"},

		{"the Git token is refused", func(p *patient) { p.Git.Token = "gone" }, doctor.Problem, "git", "refuses GITHUB_TOKEN", "make a new token and put it into GITHUB_TOKEN"},
		{"there is no Git token, and the repository is private", func(p *patient) { p.Git.Token = "" }, doctor.Problem, "git", "is not there, or not for everybody", "set GITHUB_TOKEN to a token that may read it"},
		{"the repository does not exist", func(p *patient) { p.Git.Repos = []runner.Repo{{URL: p.repo("acme/nothing")}} }, doctor.Problem, "git", "acme/nothing.git is not there, or GITHUB_TOKEN may not read it", "give GITHUB_TOKEN access to it (contents: read and write)"},
		{"a repository is not read over HTTP", func(p *patient) { p.Git.Repos = []runner.Repo{{URL: "git@git.example:acme/site.git"}} }, doctor.Warning, "git", "git@git.example:acme/site.git is not read over HTTP, and was not tried", "flaudebot doctor --live"},
		{"the Git token may only read", func(p *patient) { p.Git.Token = "forge-reads" }, doctor.Warning, "git", "can be read, and not pushed to", "contents: read and write"},
		{"the Git token is refused, and there is no repository to try it on", func(p *patient) {
			p.Git.Token, p.Git.Repos, p.Git.Forges = "gone", nil, []runner.Forge{{Host: p.host(), Kind: runner.ForgeGitLab}}
		}, doctor.Problem, "git", "refuses GITHUB_TOKEN", "make a new token"},

		{"the clock is slow", func(p *patient) { p.ahead.Store(int64(40 * time.Second)) }, doctor.Warning, "clock", "the clock is 40 s behind", "timedatectl set-ntp true"},
		{"the clock is wrong", func(p *patient) { p.ahead.Store(int64(-10 * time.Minute)) }, doctor.Problem, "clock", "the clock is 600 s ahead of", "timedatectl set-ntp true"},
		{"a service hangs", func(p *patient) {
			p.fault("slack", map[string]any{"method": "auth.test", "delay_ms": 8000})
			p.Limit = 4 * time.Second
		}, doctor.Problem, "slack", "no answer in time", "see that this machine reaches"},
	} {
		t.Run(b.what, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, good)
			b.harm(p)
			all := doctor.Examine(t.Context(), p.Config)
			found := false
			for _, f := range all {
				found = found || f.Level == b.level && f.About == b.about && strings.Contains(f.What, b.finds) && strings.Contains(f.Fix, b.fix)
				if f.Level != doctor.OK && f.About != b.about {
					t.Errorf("it hides or spoils another: %s", f)
				}
				if f.Level != doctor.OK && f.Fix == "" {
					t.Errorf("there is no fix: %s", f)
				}
			}
			if !found || doctor.Bad(all) != (b.level == doctor.Problem) {
				t.Errorf("found\n%s\nwant a %s about %s with %q, and as its fix %q", lines(all), b.level, b.about, b.finds, b.fix)
			}
		})
	}
}

// TestSilence: whatever a service says back, no finding holds a secret.
func TestSilence(t *testing.T) {
	t.Parallel()
	p := newPatient(t, redisServer(t).Options().Addr)
	p.Secrets = []string{"xoxb-s3cret", "xapp-s3cret", "fly-local-s3cret", "sk-ant-s3cret", "git/s3cret+", "r3dis"}
	p.Slack.BotToken, p.Slack.AppToken, p.Fly.Token, p.Claude.APIKey, p.Git.Token, p.redis.Password = "xoxb-s3cret", "xapp-s3cret", "fly-local-s3cret", "sk-ant-s3cret", "git/s3cret+", "r3dis"
	p.fault("slack", map[string]any{"body": `{"ok":false,"error":"no_such_token: xoxb-s3cret xapp-s3cret"}`})
	p.fault("fly", map[string]any{"status": 403, "body": `{"error":"token fly-local-s3cret is not allowed"}`})
	p.fault("claude", map[string]any{"status": 401, "body": `{"error":{"message":"bad key sk-ant-s3cret"}}`})
	p.Git.Repos = []runner.Repo{{URL: "http://x:git%2Fs3cret%2B@127.0.0.1:1/a/b"}}
	all := lines(doctor.Examine(t.Context(), p.Config))
	if strings.Contains(all, "s3cret") || strings.Contains(all, "r3dis") || strings.Count(all, "[redacted]") < 5 {
		t.Errorf("found\n%s\nwant none of the secrets, and what came in their place", all)
	}
}

// TestSlowRedis: a Redis that is far away is found.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	rdb := redisServer(t)
	p := newPatient(t, rdb.Options().Addr)
	p.redis.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return far{c}, err
	}
	all := lines(doctor.Examine(t.Context(), doctor.Config{Redis: p.Redis}))
	if !strings.Contains(all, "warning  redis     Redis takes ") || !strings.Contains(all, "Fix: run the bot and Redis in the same region") {
		t.Errorf("found\n%s\nwant that it is slow", all)
	}
}

// far is a connection on which everything takes a while.
type far struct{ net.Conn }

func (f far) Write(b []byte) (int, error) {
	<-time.After(60 * time.Millisecond)
	return f.Conn.Write(b)
}
