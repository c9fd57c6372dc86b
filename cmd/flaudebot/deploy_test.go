package main

import (
	"bufio"
	"bytes"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	localfly "flaudebot/local/fly"
)

// flyctlScript stands in for flyctl. What it answers is in files beside it; one that begins with Error is what it says as it fails, and a deploy
// that is to Hang does so until it is interrupted. It notes how it was called, and with whose token. "deployed" and "scaled" are the machines from then on, "later" those at the fourth look.
const flyctlScript = `#!/bin/sh
cd "$(dirname "$0")" || exit 3
echo "$*" >>calls
echo "${FLY_API_TOKEN-none}" >>tokens
say() {
	case $(cat "$1") in Error*) cat "$1" >&2; exit 1 ;; esac
	cat "$1"
}
become() { [ ! -e "$1" ] || mv "$1" machines; }
case "$1 $2" in
"config show") say config ;;
"secrets list") say secrets ;;
"machine list")
	[ "$(grep -c '^machine list' calls)" -lt 4 ] || become later
	say machines ;;
"deploy --app")
	if grep -q ^Hang deploy; then
		trap 'echo interrupted >>calls; kill $pid; exit 1' INT
		sleep 600 & pid=$!
		echo "==> Building image"
		wait $pid
	fi
	say deploy && become deployed ;;
"scale count") say scale && become scaled ;;
*) echo "Error: unknown command \"$1\" for \"flyctl\"" >&2; exit 1 ;;
esac
`

// flyctlAnswers are those of an app that is well, as flyctl prints them: `config show` has the form of internal/appconfig/config.go, `secrets list`
// that of internal/command/secrets/list.go, `machine list` that of fly-go's machine_types.go.
func flyctlAnswers() map[string]string {
	secrets := []string{}
	for _, name := range []string{"ANTHROPIC_API_KEY", "FLAUDEBOT_FLY_APP", "FLAUDEBOT_IMAGE", "FLY_API_TOKEN", "FLY_FLAPS_BASE_URL", "REDIS_URL", "SLACK_APP_TOKEN", "SLACK_BOT_TOKEN"} {
		secrets = append(secrets, `{"name": "`+name+`", "digest": "4bf5122f344554c5", "status": "Staged"}`)
	}
	return map[string]string{
		"config": `{
  "app": "acme-bot", "primary_region": "iad", "kill_signal": "SIGTERM", "kill_timeout": "30s",
  "build": {"dockerfile": "Dockerfile"}, "deploy": {"strategy": "rolling"}, "env": {"FLAUDEBOT_HTTP": ":8080"}, "processes": {"bot": "serve"},
  "checks": {
    "alive": {"port": 8080, "type": "http", "interval": "30s", "timeout": "5s", "grace_period": "10s", "method": "get", "path": "/healthz", "processes": ["bot"]},
    "ready": {"port": 8080, "type": "http", "interval": "15s", "timeout": "5s", "grace_period": "30s", "method": "get", "path": "/readyz", "processes": ["bot"]}
  },
  "restart": [{"policy": "always", "processes": ["bot"]}], "vm": [{"size": "shared-cpu-1x", "memory": "512mb", "processes": ["bot"]}]
}`,
		"secrets":  "[" + strings.Join(secrets, ",") + "]",
		"machines": "[" + machineOne + "," + machineTwo + "," + machineOfConsole + "]",
		"deploy":   "==> Building image\n",
		"scale":    "Executing scale plan\n",
	}
}

const (
	machineOne       = `{"id": "1857705c0e9489", "name": "a", "state": "started", "region": "iad", "checks": [` + checkAlive + `,` + checkReady + `], "config": {"metadata": {"fly_process_group": "bot", "fly_platform_version": "v2"}}, "host_status": "ok", "cordoned": false}`
	machineTwo       = `{"id": "2866d45f7e1298", "name": "b", "state": "started", "region": "iad", "checks": [` + checkAlive + `,` + checkReady + `], "config": {"metadata": {"fly_process_group": "bot", "fly_platform_version": "v2"}}, "host_status": "ok", "cordoned": false}`
	machineStandby   = `{"id": "3d8d9e20c35189", "name": "c", "state": "stopped", "region": "iad", "config": {"metadata": {"fly_process_group": "bot"}, "standbys": ["1857705c0e9489"]}, "host_status": "ok", "cordoned": false}`
	machineAway      = `{"id": "4d891de2f66587", "name": "d", "state": "started", "region": "iad", "incomplete_config": {"metadata": {"fly_process_group": "bot"}}, "host_status": "unreachable", "cordoned": false}`
	machineOfConsole = `{"id": "5683d4ddc90d28", "name": "e", "state": "started", "region": "iad", "config": {"metadata": {"fly_process_group": "fly_app_console"}}, "host_status": "ok", "cordoned": false}`
	checkAlive       = `{"name": "alive", "status": "passing", "output": "{\"alive\":true}", "updated_at": "2026-11-29T10:00:00Z"}`
	checkReady       = `{"name": "ready", "status": "passing", "output": "{\"ready\":true}", "updated_at": "2026-11-29T10:00:00Z"}`
	checkNotReady    = `{"name": "ready", "status": "critical", "output": "{\"ready\":false}", "updated_at": "2026-11-29T10:00:00Z"}`
)

// answerEdit is a change of what is well: in a file, or with file settings in that with the settings, one text becomes another; old "" is all of it.
type answerEdit struct{ file, old, new string }

// TestDeploy: nothing is deployed unless all that can be looked at before is well, and a deploy has succeeded when the machines work.
func TestDeploy(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("left out: there is no shell")
	}
	machines, err := localfly.New(localfly.Config{Dir: t.TempDir(), Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	world := httptest.NewServer(machines.Handler())
	t.Cleanup(func() { world.Close(); _ = machines.Close() })
	const secret = "hunter2-and-more"
	wellSettings := strings.Join([]string{
		"# ours", "SLACK_APP_TOKEN=xapp-" + secret, "SLACK_BOT_TOKEN=xoxb-" + secret, "REDIS_URL=redis://x:" + secret + "@bot.upstash.io:6379", "ANTHROPIC_API_KEY=sk-ant-" + secret,
		"FLY_API_TOKEN=fly-local-" + secret, "FLY_FLAPS_BASE_URL=" + world.URL, "FLAUDEBOT_FLY_APP=acme-sessions", "FLAUDEBOT_IMAGE=" + strings.TrimPrefix(world.URL, "http://") + "/acme-sessions:session", "",
	}, "\n")
	const toml = "../../deploy/fly.toml"
	const (
		looks  = "config show --local --config " + toml + "\nsecrets list --json --app acme-bot\nmachine list --json --app acme-bot\n"
		deploy = "deploy --app acme-bot --config " + toml + " --dockerfile ../../deploy/Dockerfile --ha=false\n"
		list   = "machine list --json --app acme-bot\n"
		scale  = "scale count bot=2 --yes --app acme-bot\n"
	)

	type result struct {
		out, calls, tokens string
		code               int
	}
	// command is the command line of a deploy, and the folder of the flyctl that it finds.
	command := func(t *testing.T, edits []answerEdit, env []string, args ...string) (*exec.Cmd, string) {
		t.Helper()
		dir := t.TempDir()
		files := flyctlAnswers()
		files["settings"], files["flyctl"] = wellSettings, flyctlScript
		for _, e := range edits {
			before := files[e.file]
			if files[e.file] = e.new; e.old != "" {
				if files[e.file] = strings.Replace(before, e.old, e.new, 1); files[e.file] == before {
					t.Fatalf("%s has no %q", e.file, e.old)
				}
			}
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), map[bool]os.FileMode{true: 0o700, false: 0o600}[name == "flyctl"]); err != nil {
				t.Fatal(err)
			}
		}
		if args == nil {
			args = []string{"--env-file", filepath.Join(dir, "settings")}
		}
		path := "PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH")
		return self(t.Context(), slices.Concat([]string{path}, env), slices.Concat([]string{"deploy", "--config", toml, "--wait", "0s"}, args)...), dir
	}
	calls := func(dir string) string {
		out, _ := os.ReadFile(filepath.Join(dir, "calls")) //nolint:gosec // our own
		return string(out)
	}
	deployed := func(t *testing.T, edits []answerEdit, env []string, args ...string) result {
		t.Helper()
		cmd, dir := command(t, edits, env, args...)
		out, _ := cmd.CombinedOutput()
		if bytes.Contains(out, []byte(secret)) {
			t.Errorf("a secret is shown:\n%s", out)
		}
		tokens, _ := os.ReadFile(filepath.Join(dir, "tokens")) //nolint:gosec // our own
		return result{strings.ReplaceAll(string(out), dir+string(filepath.Separator), ""), calls(dir), string(tokens), cmd.ProcessState.ExitCode()}
	}

	t.Run("it deploys where all is well, and ends when both machines pass their checks", func(t *testing.T) {
		t.Parallel()
		got := deployed(t, nil, nil)
		if want := looks + deploy + list + list; got.code != 0 || got.calls != want || !strings.HasSuffix(got.out, "\nacme-bot is deployed\n") {
			t.Errorf("exit %d, calls\n%swant\n%sprinted\n%s", got.code, got.calls, want, got.out)
		}
		for _, want := range []string{"the session image ", "go machine by machine", "has all that the bot needs", "acme-bot has 2 machines\n", "==> Building image", "machine 2866d45f7e1298 is started, and passes 2 checks"} {
			if !strings.Contains(got.out, want) {
				t.Errorf("printed\n%swant %q", got.out, want)
			}
		}
		if strings.Contains(got.out, "warning") {
			t.Errorf("it warns:\n%s", got.out)
		}
		if strings.ReplaceAll(got.tokens, "none\n", "") != "" {
			t.Errorf("flyctl was given the token of the sessions: %q", got.tokens)
		}
	})
	t.Run("flyctl has the token of whoever calls it", func(t *testing.T) {
		t.Parallel()
		if got := deployed(t, nil, []string{"FLY_API_TOKEN=fly-local-of-ci"}); got.code != 0 || strings.ReplaceAll(got.tokens, "fly-local-of-ci\n", "") != "" {
			t.Errorf("exit %d, tokens %q:\n%s", got.code, got.tokens, got.out)
		}
	})
	t.Run("without a file, app and image come from the environment", func(t *testing.T) {
		t.Parallel()
		env := []string{"FLY_API_TOKEN=fly-local", "FLY_FLAPS_BASE_URL=" + world.URL, "FLAUDEBOT_FLY_APP=acme-sessions", "FLAUDEBOT_IMAGE=" + strings.TrimPrefix(world.URL, "http://") + "/acme-sessions:"}
		if got := deployed(t, nil, append(slices.Clone(env[:3]), env[3]+"session"), "--wait", "0s"); got.code != 0 || !strings.Contains(got.calls, deploy) {
			t.Errorf("exit %d:\n%s", got.code, got.out)
		}
		if got := deployed(t, nil, append(slices.Clone(env[:3]), env[3]+"missing"), "--wait", "0s"); got.code != 1 || strings.Contains(got.calls, deploy) {
			t.Errorf("exit %d with an image that is missing:\n%s", got.code, got.out)
		}
	})
	t.Run("the first deploy makes two machines that run, and none that stands by", func(t *testing.T) {
		t.Parallel()
		got := deployed(t, []answerEdit{{"machines", "", "[]"}, {"deployed", "", "[" + machineOne + "]"}, {"scaled", "", "[" + machineOne + "," + machineTwo + "]"}}, nil)
		if want := looks + deploy + list + scale + list; got.code != 0 || got.calls != want {
			t.Errorf("exit %d, calls\n%swant\n%sprinted\n%s", got.code, got.calls, want, got.out)
		}
	})
	t.Run("more machines than two are left alone", func(t *testing.T) {
		t.Parallel()
		third := strings.Replace(machineTwo, "2866d45f7e1298", "6e82dd92b24d87", 1)
		if got := deployed(t, []answerEdit{{"machines", machineOne, machineOne + "," + third}}, nil); got.code != 0 || strings.Contains(got.calls, "scale") {
			t.Errorf("exit %d, calls\n%s%s", got.code, got.calls, got.out)
		}
	})
	t.Run("it waits for a check that does not pass yet", func(t *testing.T) {
		t.Parallel()
		edits := []answerEdit{{"deployed", "", "[" + machineOne + "," + strings.Replace(machineTwo, checkReady, checkNotReady, 1) + "]"}, {"later", "", "[" + machineOne + "," + machineTwo + "]"}}
		got := deployed(t, edits, []string{"FLY_API_TOKEN=fly-local", "FLY_FLAPS_BASE_URL=" + world.URL, "FLAUDEBOT_FLY_APP=acme-sessions"}, "--wait", testPatience.String())
		if want := looks + deploy + list + list + list; got.code != 0 || got.calls != want {
			t.Errorf("exit %d, calls\n%swant\n%sprinted\n%s", got.code, got.calls, want, got.out)
		}
	})
	for name, b := range map[string]struct {
		edits []answerEdit
		want  string
	}{
		"the app lacks a setting of the file": {[]answerEdit{{"settings", "# ours", "FLAUDEBOT_MODEL=opus"}}, "settings sets what acme-bot does not have: FLAUDEBOT_MODEL. Fix: fly secrets import --stage -a acme-bot < settings"},
		"a secret counts more than fly.toml":  {[]answerEdit{{"secrets", "[", `[{"name": "FLAUDEBOT_HTTP"},`}}, "FLAUDEBOT_HTTP is a secret of acme-bot as well, which counts more than what " + toml + " sets. Fix: fly secrets unset --stage -a acme-bot FLAUDEBOT_HTTP"},
		"fly.toml sets what is no setting":    {[]answerEdit{{"config", `{"FLAUDEBOT_HTTP"`, `{"FLAUDEBOT_LOG_LEVELS": "warn", "FLAUDEBOT_HTTP"`}}, "FLAUDEBOT_LOG_LEVELS below [env] in " + toml + " is no setting, and does nothing. Fix: call it FLAUDEBOT_LOG_LEVEL, if that is meant"},
		"a secret is no setting":              {[]answerEdit{{"secrets", "[", `[{"name": "FLAUDEBOT_BUDGETS"},`}}, "FLAUDEBOT_BUDGETS among the secrets of acme-bot is no setting, and does nothing. Fix: call it FLAUDEBOT_BUDGET, if that is meant"},
		"an import would cut a value short":   {[]answerEdit{{"settings", "# ours", "FLAUDEBOT_REPOS=https://github.com/acme/site#main"}}, "cuts FLAUDEBOT_REPOS short. Fix: fly secrets set --stage -a acme-bot 'FLAUDEBOT_REPOS=…'"},
	} {
		t.Run("it warns, and deploys: "+name, func(t *testing.T) {
			t.Parallel()
			if got := deployed(t, b.edits, nil); got.code != 0 || !strings.Contains(got.calls, deploy) || !finding(got.out, "warning", b.want) {
				t.Errorf("exit %d, printed\n%swant a warning with %q", got.code, got.out, b.want)
			}
		})
	}

	type refusal struct {
		edits []answerEdit
		env   []string
		args  []string
		want  string // in the one problem that there is
	}
	refused := map[string]refusal{
		"flyctl is not installed":                    {env: []string{"PATH="}, want: "flyctl is not installed. Fix: see https://fly.io/docs/flyctl/install/"},
		"there is no fly.toml":                       {args: []string{"--config", "nowhere/fly.toml"}, want: "nowhere/fly.toml: no such file or directory. Fix: run it where flaudebot's repository is"},
		"flyctl is not logged in":                    {edits: []answerEdit{{"config", "", "Error: no access token available. Please login with 'flyctl auth login'"}}, want: "no access token available. Please login with 'flyctl auth login'. Fix: `fly auth login`"},
		"the app is that of the sessions":            {edits: []answerEdit{{"config", "acme-bot", "acme-sessions"}}, want: "acme-sessions is the app of the session machines (FLAUDEBOT_FLY_APP), which the bot would share a network and secrets with. Fix: in " + toml + " name another app"},
		"all machines are replaced at once":          {edits: []answerEdit{{"config", "rolling", "immediate"}}, want: `the strategy of deploys is "immediate": all machines might be replaced at once. Fix: in ` + toml + ` set strategy = "rolling" below [deploy]`},
		"no strategy is named":                       {edits: []answerEdit{{"config", `"deploy": {"strategy": "rolling"}, `, ""}}, want: `the strategy of deploys is ""`},
		"nothing runs the bot":                       {edits: []answerEdit{{"config", `{"bot": "serve"}`, `{"app": "serve"}`}}, want: `no process bot runs serve. Fix: in ` + toml + ` set bot = "serve" below [processes]`},
		"nobody answers where it is asked":           {edits: []answerEdit{{"config", `":8080"`, `":9090"`}}, want: `port 8080 is asked for /readyz, and FLAUDEBOT_HTTP below [env] is ":9090": nobody answers there. Fix: in ` + toml + ` set FLAUDEBOT_HTTP = ":8080" below [env]`},
		"nobody asks whether a release is ready":     {edits: []answerEdit{{"config", "/readyz", "/healthz"}}, want: "no check asks /readyz: a release that does not work would replace the one that does. Fix: "},
		"it is another process that is asked":        {edits: []answerEdit{{"config", `"/readyz", "processes": ["bot"]`, `"/readyz", "processes": ["web"]`}}, want: "no check asks /readyz"},
		"a secret is in fly.toml":                    {edits: []answerEdit{{"config", `{"FLAUDEBOT_HTTP"`, `{"GITHUB_TOKEN": "` + secret + `", "FLAUDEBOT_HTTP"`}}, want: "GITHUB_TOKEN stands below [env], where all can read it who may see the app. Fix: "},
		"the app does not exist":                     {edits: []answerEdit{{"secrets", "", "Error: Could not find App"}}, want: "Could not find App. Fix: `fly auth login`, if flyctl is not logged in; `fly apps create acme-bot`"},
		"the app is another token's":                 {edits: []answerEdit{{"secrets", "", "Error: unauthorized: xoxb-" + secret}}, env: []string{"FLY_API_TOKEN=fly-local"}, want: "unauthorized: [redacted]. Fix: `unset FLY_API_TOKEN`, which flyctl prefers to its login"},
		"flyctl answers what it never did":           {edits: []answerEdit{{"secrets", "", "Update available\n"}}, want: "flyctl secrets list: invalid character"},
		"no credential of Claude is set":             {edits: []answerEdit{{"secrets", "ANTHROPIC_API_KEY", "OTHER"}}, want: "acme-bot lacks CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_API_KEY. Fix: fly secrets import --stage -a acme-bot < settings"},
		"both credentials of Claude are set":         {edits: []answerEdit{{"secrets", "[", `[{"name": "CLAUDE_CODE_OAUTH_TOKEN"},`}}, want: "are both set in acme-bot, which the bot refuses. Fix: fly secrets unset --stage -a acme-bot ANTHROPIC_API_KEY"},
		"no secret is set at all":                    {edits: []answerEdit{{"secrets", "", "[]"}}, want: "acme-bot lacks SLACK_APP_TOKEN, SLACK_BOT_TOKEN, REDIS_URL, FLY_API_TOKEN, FLAUDEBOT_FLY_APP, CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_API_KEY. Fix: "},
		"the session image was not pushed":           {edits: []answerEdit{{"settings", ":session", ":missing"}}, want: "is not there. Fix: FLAUDEBOT_FLY_APP=acme-sessions make images builds and pushes it"},
		"Fly refuses the token of the sessions":      {edits: []answerEdit{{"settings", "fly-local", "fly-other"}}, want: "Fly refuses FLY_API_TOKEN"},
		"a setting makes no sense":                   {edits: []answerEdit{{"settings", "# ours", "FLAUDEBOT_LINGER=soon"}}, env: []string{"FLAUDEBOT_LINGER=soon"}, want: "FLAUDEBOT_LINGER=soon"},
		"a token of the file is of the wrong kind":   {edits: []answerEdit{{"settings", "xoxb-", "xoxp-"}}, want: "want a token that begins with xoxb-"},
		"flyctl does not list the machines":          {edits: []answerEdit{{"machines", "", "Error: failed to list VMs: internal"}}, want: "flyctl machine list: Error: failed to list VMs: internal. Fix: "},
		"the second machine sleeps until one dies":   {edits: []answerEdit{{"machines", machineTwo, machineStandby}}, want: "machine 3d8d9e20c35189 sleeps until the host of 1857705c0e9489 is gone, and runs no bot. Fix: fly machine destroy --force -a acme-bot 3d8d9e20c35189, and the deploy makes one that does"},
		"a third machine sleeps until one dies also": {edits: []answerEdit{{"machines", machineTwo, machineTwo + "," + machineStandby}}, want: "machine 3d8d9e20c35189 sleeps"},
	}
	for f := range reflect.TypeFor[settings]().Fields() {
		if name := f.Tag.Get("envconfig"); f.Tag.Get("needs") != "" {
			refused["the bot needs "+name] = refusal{edits: []answerEdit{{"secrets", `"` + name + `"`, `"OTHER"`}}, want: "acme-bot lacks " + name + ". Fix: fly secrets import --stage -a acme-bot < settings"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		b := refused[name]
		t.Run("nothing is deployed: "+name, func(t *testing.T) {
			t.Parallel()
			args := b.args
			if args != nil {
				file := filepath.Join(t.TempDir(), "settings")
				if err := os.WriteFile(file, []byte(wellSettings), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--env-file", file)
			}
			got := deployed(t, b.edits, b.env, args...)
			if got.code != 1 || strings.Contains(got.calls, "deploy ") || !strings.HasSuffix(got.out, "flaudebot: nothing was deployed: correct what is called a problem, and try again\n") {
				t.Errorf("exit %d, calls\n%s%s", got.code, got.calls, got.out)
			}
			if !finding(got.out, "problem", b.want) || strings.Count(got.out, "problem  ") != 1 {
				t.Errorf("printed\n%swant one problem with %q", got.out, b.want)
			}
		})
	}
	t.Run("nothing is deployed: the file of settings is missing", func(t *testing.T) {
		t.Parallel()
		if got := deployed(t, nil, nil, "--env-file", "nowhere.env"); got.code != 1 || got.calls != "" || !strings.Contains(got.out, "nowhere.env: no such file or directory") {
			t.Errorf("exit %d, calls\n%s%s", got.code, got.calls, got.out)
		}
	})

	two := func(second string) []answerEdit {
		return []answerEdit{{"deployed", "", "[" + machineOne + "," + second + "]"}}
	}
	for name, b := range map[string]struct {
		edits []answerEdit
		calls string // after the looks
		want  string
	}{
		"flyctl fails to build":              {[]answerEdit{{"deploy", "", "Error: failed to fetch an image or build from source"}}, deploy, "flaudebot: the deploy ended before its time, and machines that it did not come to run what they ran: correct what flyctl says, and try again: flyctl deploy: exit status 1"},
		"flyctl cannot make another machine": {[]answerEdit{{"machines", "", "[]"}, {"deployed", "", "[" + machineOne + "]"}, {"scale", "", "Error: no capacity"}}, deploy + list + scale, "correct what flyctl says, and try again: flyctl scale: exit status 1"},
		"there is one machine afterwards":    {[]answerEdit{{"deployed", "", "[" + machineOne + "]"}}, deploy + list + scale + list, "problem  machines  acme-bot has 1 machine, and not 2. Fix: fly scale count bot=2 -a acme-bot\n"},
		"a machine has stopped":              {two(strings.Replace(machineTwo, "started", "stopped", 1)), deploy + list + list, "problem  machines  machine 2866d45f7e1298 is stopped, and not started. Fix: fly machine start -a acme-bot 2866d45f7e1298; `fly logs -a acme-bot --machine 2866d45f7e1298` tells why\n"},
		"a machine does not pass a check":    {two(strings.Replace(machineTwo, checkReady, strings.Replace(checkNotReady, "false", "false, xoxb-"+secret, 1), 1)), deploy + list + list, "problem  machines  machine 2866d45f7e1298 does not pass its checks: ready is critical {\"ready\":false, [redacted]}. Fix: `fly logs -a acme-bot --machine 2866d45f7e1298` tells why"},
		"a machine was never checked":        {two(strings.Replace(machineTwo, checkAlive+","+checkReady, "", 1)), deploy + list + list, "problem  machines  machine 2866d45f7e1298 has no checks. Fix: put [checks.ready] back"},
		"the host of a machine is away":      {two(machineAway), deploy + list + list, "problem  machines  machine 4d891de2f66587 is on a host that is unreachable. Fix: see https://status.flyio.net"},
	} {
		t.Run("a deploy has failed when "+name, func(t *testing.T) {
			t.Parallel()
			got := deployed(t, b.edits, nil)
			if got.code != 1 || got.calls != looks+b.calls || !strings.Contains(got.out, b.want) || strings.Contains(got.out, "acme-bot is deployed") {
				t.Errorf("exit %d, calls\n%swant\n%sprinted\n%swant %q", got.code, got.calls, looks+b.calls, got.out, b.want)
			}
		})
	}
	t.Run("Ctrl-C is told to flyctl, which gives back what it holds, and nothing follows", func(t *testing.T) {
		t.Parallel()
		cmd, dir := command(t, []answerEdit{{"deploy", "", "Hang"}}, nil)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "==> Building image" {
				break
			}
		}
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if want := looks + deploy + "interrupted\n"; calls(dir) != want || cmd.ProcessState.ExitCode() != 130 {
			t.Errorf("exit %d, calls\n%swant\n%s", cmd.ProcessState.ExitCode(), calls(dir), want)
		}
	})
	t.Run("make deploy is this, with the file that setup writes", func(t *testing.T) {
		t.Parallel()
		if _, err := exec.LookPath("make"); err != nil {
			t.Skip("left out: make is not installed")
		}
		out, err := exec.CommandContext(t.Context(), "make", "-n", "-C", "../..", "deploy", "ENV_FILE=flaudebot.env").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "bin/flaudebot deploy --env-file flaudebot.env\n") || strings.Contains(string(out), "flyctl") {
			t.Errorf("make deploy = %v:\n%s", err, out)
		}
		if strings.Contains(string(out), "there is no flaudebot.env here") {
			t.Errorf("make deploy does not see the file:\n%s", out)
		}
		out, err = exec.CommandContext(t.Context(), "make", "-n", "--no-print-directory", "-C", "../..", "deploy", "ENV_FILE=").CombinedOutput()
		if first, rest, _ := strings.Cut(string(out), "\n"); err != nil || !strings.Contains(first, "make deploy: there is no flaudebot.env here") || !strings.Contains(rest, "bin/flaudebot deploy") {
			t.Errorf("make deploy without a file = %v:\n%s\nwant that first", err, out)
		}
	})
}

// finding reports whether a finding of a level has a text.
func finding(out, level, text string) bool {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, level) && strings.Contains(line, text) {
			return true
		}
	}
	return false
}
