package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"flaudebot/doctor"
)

// TestDoctor: the command over a whole local world.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	env := slices.Concat(w.env, []string{"FLAUDEBOT_IMAGE=" + w.fly + "/test-app:session", "FLAUDEBOT_REPOS=", "FLAUDEBOT_LOG_LEVEL=warn"})
	examined := func(t *testing.T, env []string, args ...string) (all []doctor.Finding, code int) {
		t.Helper()
		cmd := self(t.Context(), env, append([]string{"doctor", "--json"}, args...)...)
		var log strings.Builder
		cmd.Stderr = &log
		out, _ := cmd.Output()
		for line := range strings.Lines(string(out)) {
			var f doctor.Finding
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all = append(all, f)
		}
		if log.Len() > 0 {
			t.Errorf("it logged %s", log.String())
		}
		return all, cmd.ProcessState.ExitCode()
	}
	nothingLeft := func(t *testing.T) {
		t.Helper()
		if m, v := flyList(t, "http://"+w.fly, "test-app", "machines"), flyList(t, "http://"+w.fly, "test-app", "volumes"); len(m)+len(v) != 0 {
			t.Errorf("%v and %v are left", m, v)
		}
	}
	t.Run("where all is well it says so, and ends with 0", func(t *testing.T) {
		all, code := examined(t, env)
		seen := map[string]bool{}
		for _, f := range all {
			seen[f.About] = true
			if f.Level != doctor.OK && !strings.Contains(f.What, "appendonly is off") { // the tests' Redis is quick
				t.Errorf("found %s", f)
			}
		}
		if code != 0 || len(seen) != 7 {
			t.Errorf("exit %d, of %v", code, seen)
		}
	})
	t.Run("a live run makes a machine, has it sleep, wakes it, runs a turn, and leaves nothing", func(t *testing.T) {
		all, code := examined(t, env, "--live")
		var text strings.Builder
		for _, f := range all {
			if f.About == "live" {
				text.WriteString(f.String() + "\n")
			}
		}
		for _, want := range []string{
			"a machine was made and its runner answered after ", "Fly's exec takes ", "the machine stopped in ", "a stopped machine was awake after ",
			"Claude Code answered a turn in ", " is destroyed",
		} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("printed\n%swant %q", text.String(), want)
			}
		}
		if code != 0 {
			t.Errorf("exit %d", code)
		}
		nothingLeft(t)
		record, err := self(t.Context(), env, "audit").Output()
		if err != nil || strings.Count(string(record), `"what":"turn_asked"`) != 1 || strings.Count(string(record), `"by":"operator"`) != 2 || !strings.Contains(string(record), `"what":"turn_ended"`) {
			t.Errorf("on record is %s, %v; want the turn", record, err)
		}
	})
	t.Run("without Redis a live run says that it is not on record", func(t *testing.T) {
		all, code := examined(t, slices.Concat(env, []string{"REDIS_URL="}), "--live")
		if code != 1 || !slices.ContainsFunc(all, func(f doctor.Finding) bool {
			return f.About == "live" && f.Level == doctor.Warning && strings.Contains(f.What, "not on record")
		}) || !slices.ContainsFunc(all, func(f doctor.Finding) bool { return strings.Contains(f.What, "Claude Code answered a turn in ") }) {
			t.Errorf("exit %d, found %v", code, all)
		}
		nothingLeft(t)
	})
	t.Run("a live run with a turn that fails says why, and leaves nothing", func(t *testing.T) {
		all, code := examined(t, slices.Concat(env, []string{"ANTHROPIC_API_KEY=sk-ant-wrong"}), "--live")
		last := all[max(len(all)-2, 0):]
		if code != 1 || last[0].Level != doctor.Problem || !strings.Contains(last[0].What, "the turn of the live run failed") || !strings.Contains(last[1].What, "is destroyed") {
			t.Errorf("exit %d, found %v", code, last)
		}
		nothingLeft(t)
	})
	t.Run("Ctrl-C ends a live run, and destroys its machine", func(t *testing.T) {
		p := launch(t, slices.Concat(env, []string{"FLAUDEBOT_REPOS=" + filepath.Join(w.data, "repo")}), "doctor", "--live")
		newSlackWorld(t, w.proc).until("a machine", func() bool { return len(flyList(t, "http://"+w.fly, "test-app", "machines")) > 0 })
		p.end(syscall.SIGINT)
		if code := p.cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit %d, want 130", code)
		}
		nothingLeft(t)
	})
	t.Run("settings come from a file as well, and what the environment sets stands", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings.env")
		if err := os.WriteFile(file, []byte("# ours\n"+strings.Join(env, "\n")+"\nANTHROPIC_API_KEY=sk-ant-other\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		all, code := examined(t, []string{"ANTHROPIC_API_KEY=sk-ant-local"}, "--env-file", file)
		if code != 0 {
			t.Errorf("exit %d: %v", code, all)
		}
		if slices.ContainsFunc(all, func(f doctor.Finding) bool { return strings.Contains(f.Fix, "chmod") }) {
			t.Errorf("found %v of a file of mode 0600", all)
		}
		if err := os.Chmod(file, 0o640); err != nil { //nolint:gosec // to be found
			t.Fatal(err)
		}
		all, code = examined(t, []string{"ANTHROPIC_API_KEY=sk-ant-local"}, "--env-file", file)
		if code != 0 || !slices.ContainsFunc(all, func(f doctor.Finding) bool { return f.Level == doctor.Warning && f.Fix == "chmod 600 "+file }) {
			t.Errorf("exit %d, found %v; want a warning of its mode", code, all)
		}
		for _, args := range [][]string{{"doctor", "--env-file", file}, {"--env-file=" + file, "doctor"}} { // wherever it is named
			if out, err := self(t.Context(), []string{"ANTHROPIC_API_KEY=sk-ant-local"}, args...).CombinedOutput(); err != nil || !strings.Contains(string(out), "chmod 600") {
				t.Errorf("%v = %v: %s", args, err, out)
			}
		}
		if out, err := self(t.Context(), nil, "--env-file", file, "sessions", "list").CombinedOutput(); err != nil {
			t.Errorf("sessions list = %v: %s", err, out)
		}
	})
	ca, tlsArgs := certificates(t)
	_, tlsPort, _ := net.SplitHostPort(freeAddr(t))
	startRedis(t, freeAddr(t), t.TempDir(), append(tlsArgs, "--tls-port", tlsPort)...)
	t.Run("Redis over TLS, with its CA", func(t *testing.T) {
		if all, code := examined(t, slices.Concat(env, []string{"REDIS_URL=rediss://127.0.0.1:" + tlsPort, "FLAUDEBOT_REDIS_CA=" + ca})); code != 0 {
			t.Errorf("exit %d, found %v", code, all)
		}
	})
	const token = "hunter2-and-more"
	for name, b := range map[string]struct {
		env              []string
		about, what, fix string
	}{
		"there are no settings":          {[]string{"SLACK_BOT_TOKEN="}, "settings", "SLACK_BOT_TOKEN is not set", "Slack app → OAuth & Permissions → Bot User OAuth Token"},
		"a token is of the wrong kind":   {[]string{"SLACK_BOT_TOKEN=xoxp-" + token}, "settings", "SLACK_BOT_TOKEN is not as it must be", "want a token that begins with xoxb-"},
		"a size is nonsense":             {[]string{"FLAUDEBOT_GUEST=huge"}, "settings", "FLAUDEBOT_GUEST=huge", ""},
		"Redis's address is nonsense":    {[]string{"REDIS_URL=" + token}, "settings", "REDIS_URL", "want redis://"},
		"Redis's password is wrong":      {[]string{"REDIS_URL=redis://x:" + token + "@" + strings.TrimPrefix(w.redis, "redis://")}, "redis", "refuses the user or password", "put the right user and password into REDIS_URL"},
		"Redis is reached without TLS":   {[]string{"REDIS_URL=rediss://" + strings.TrimPrefix(w.redis, "redis://")}, "redis", "does not answer", "correct host and port in REDIS_URL (rediss:// for TLS)"},
		"Redis's certificate is unknown": {[]string{"REDIS_URL=rediss://127.0.0.1:" + tlsPort}, "redis", "shows a certificate that is not trusted", "set FLAUDEBOT_REDIS_CA to the file of the CA"},
		"a repository is a region":       {[]string{"FLAUDEBOT_REPOS=fra, iad"}, "settings", "FLAUDEBOT_REPOS is not as it must be", "“fra” is no repository: want owner/name"},
		"both credentials of Claude":     {[]string{"CLAUDE_CODE_OAUTH_TOKEN=" + token}, "settings", "are both set", "leave one out"},
		"Fly's token is refused":         {[]string{"FLY_API_TOKEN=" + token}, "fly", "Fly refuses FLY_API_TOKEN", "fly tokens create org"},
		"Claude's key is refused":        {[]string{"ANTHROPIC_API_KEY=sk-ant-" + token}, "claude", "Claude's API refuses ANTHROPIC_API_KEY", "with `claude setup-token`"},
		"there is no credential":         {[]string{"ANTHROPIC_API_KEY="}, "settings", "neither CLAUDE_CODE_OAUTH_TOKEN nor ANTHROPIC_API_KEY is set", "`claude setup-token` makes the one"},
		"a region is none":               {[]string{"FLAUDEBOT_REGIONS=iad,qqq"}, "fly", "qqq", "choose among"},
		"a token with a space in it":     {[]string{"GITHUB_TOKEN=" + token + " "}, "settings", "GITHUB_TOKEN is not as it must be", "copy it again"},
		"Claude's address is no address": {[]string{"ANTHROPIC_BASE_URL=api"}, "settings", "ANTHROPIC_BASE_URL=api", "want an address such as https://host"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := self(t.Context(), slices.Concat(env, b.env), "doctor")
			out, _ := cmd.CombinedOutput()
			if strings.Contains(string(out), token) {
				t.Errorf("a secret is shown:\n%s", out)
			}
			found := false
			for line := range strings.Lines(string(out)) {
				found = found || strings.HasPrefix(line, "problem  "+b.about) && strings.Contains(line, b.what) && strings.Contains(line, ". Fix: ") && strings.Contains(line, b.fix)
			}
			if !found || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("exit %d:\n%s\nwant a problem about %s with %q and %q", cmd.ProcessState.ExitCode(), out, b.about, b.what, b.fix)
			}
			if strings.Count(string(out), "ok       ") < 5 {
				t.Errorf("one problem hides the rest:\n%s", out)
			}
		})
	}
}

// TestMisplacedTokens: a token in the setting of another service is told of, and sent to nobody.
func TestMisplacedTokens(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-and-more"
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if all := fmt.Sprint(r.URL, r.Header); strings.Contains(all, secret) {
			t.Errorf("it is sent: %s", all)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(srv.Close)
	env := []string{
		"SLACK_API_URL=" + srv.URL + "/", "SLACK_APP_TOKEN=xapp-x", "SLACK_BOT_TOKEN=xoxb-x", "REDIS_URL=redis://127.0.0.1:1", "FLY_FLAPS_BASE_URL=" + srv.URL, "FLY_API_BASE_URL=" + srv.URL,
		"FLY_API_TOKEN=fo1_x", "FLAUDEBOT_FLY_APP=test-app", "ANTHROPIC_BASE_URL=" + srv.URL, "ANTHROPIC_API_KEY=sk-ant-x", "FLAUDEBOT_REPOS=" + srv.URL + "/acme/site", "GITHUB_TOKEN=ghp_x",
	}
	for setting, token := range map[string]string{
		"SLACK_APP_TOKEN": "sk-ant-api03-", "SLACK_BOT_TOKEN": "ghp_", "FLY_API_TOKEN": "xoxb-", "ANTHROPIC_API_KEY": "xapp-", "CLAUDE_CODE_OAUTH_TOKEN": "fm2_", "GITHUB_TOKEN": "FlyV1 fm2_",
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			env := slices.Concat(env, []string{setting + "=" + token + secret})
			if setting == "CLAUDE_CODE_OAUTH_TOKEN" {
				env = append(env, "ANTHROPIC_API_KEY=")
			}
			for _, command := range []string{"doctor", "serve"} {
				out, err := self(t.Context(), env, command).CombinedOutput()
				if err == nil || !strings.Contains(string(out), setting+" holds what is for ") || strings.Contains(string(out), secret) {
					t.Errorf("%s = %v:\n%s", command, err, out)
				}
			}
		})
	}
	t.Cleanup(func() {
		if asked.Load() == 0 {
			t.Error("nobody was asked about the rest")
		}
	})
}

// TestManifestLink: what Slack is sent is the manifest itself.
func TestManifestLink(t *testing.T) {
	t.Parallel()
	printed := func(args ...string) string {
		var out, errOut strings.Builder
		if code := run(append([]string{"flaudebot", "manifest"}, args...), strings.NewReader(""), &out, &errOut); code != 0 {
			t.Fatalf("manifest %v = %d: %s", args, code, errOut.String())
		}
		return out.String()
	}
	u, err := url.Parse(strings.TrimSpace(printed("--link")))
	if err != nil || u.Host != "api.slack.com" || u.Path != "/apps" || u.Query().Get("new_app") != "1" || strings.Contains(u.RawQuery, "+") {
		t.Fatalf("link = %s, %v", u, err)
	}
	if got, want := u.Query().Get("manifest_yaml"), printed(); got != want {
		t.Errorf("the link holds %q, want %q", got, want)
	}
}

// TestMakeImages: who lacks what the image is made with is told where it is to be had.
func TestMakeImages(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("make")
	if err != nil {
		t.Skip("left out: make is not installed")
	}
	bin := t.TempDir()
	images := func() string {
		cmd := exec.CommandContext(t.Context(), program, "--no-print-directory", "-C", "../..", "images", "FLAUDEBOT_FLY_APP=")
		cmd.Env = []string{"PATH=" + bin}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("it went on:\n%s", out)
		}
		return string(out)
	}
	for _, step := range []struct{ want, then string }{
		{"make images needs docker: see https://docs.docker.com/", "docker"},
		{"make images needs flyctl, for Fly's registry: see https://fly.io/docs/flyctl/install/", "flyctl"},
		{"set FLAUDEBOT_FLY_APP to the Fly app of the session machines", ""},
	} {
		if out := images(); !strings.Contains(out, step.want) {
			t.Errorf("printed\n%swant %q", out, step.want)
		}
		if step.then == "" {
			return
		}
		if err := os.WriteFile(filepath.Join(bin, step.then), []byte("#!/bin/false\n"), 0o700); err != nil { //nolint:gosec // to be found
			t.Fatal(err)
		}
	}
}

// TestReadme: every command of the README is one that there is, with flags that it has.
func TestReadme(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile("(?:bin/)?flaudebot ([a-z]+)((?: (?:--[a-z-]+(?: [a-z0-9.]+)?))*)").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(m[0], "bin/") && m[2] == "" { // a sentence
			continue
		}
		n++
		var out, errOut strings.Builder
		if code := run([]string{"flaudebot", m[1], "--help"}, strings.NewReader(""), &out, &errOut); code != 0 {
			t.Errorf("%s: there is no command %s", m[0], m[1])
		}
		help := out.String() + errOut.String()
		for _, flag := range regexp.MustCompile("--([a-z-]+)").FindAllStringSubmatch(m[2], -1) {
			if !oneOf(flag[1], "env-file", "help") && !strings.Contains(help, "-"+flag[1]) {
				t.Errorf("%s: it has no --%s:\n%s", m[0], flag[1], help)
			}
		}
	}
	for _, m := range regexp.MustCompile("`(?:[A-Z_]+=[a-z0-9.-]+ )?make ([a-z]+)`|(?m)^make ([a-z]+)$").FindAllStringSubmatch(string(page), -1) {
		n++
		if target := m[1] + m[2]; !strings.Contains(string(makefile), "\n"+target+":") {
			t.Errorf("there is no make %s", target)
		}
	}
	if n < 10 {
		t.Errorf("%d commands were found, want more", n)
	}
}
