package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/local/claude"
	"flaudebot/queue"
	"flaudebot/runner"
	"flaudebot/sessions"
)

// settingsKey is the key for secrets in this world.
func settingsKey() string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) }

// admins is what changes the settings of channels in a world, beside its bot.
func (w *split) admins() *sessions.Service {
	w.t.Helper()
	opts, err := redis.ParseURL(w.redis)
	if err != nil {
		w.t.Fatal(err)
	}
	opts.MaxRetries = -1
	rdb := redis.NewClient(opts)
	w.t.Cleanup(func() { _ = rdb.Close() })
	q, err := queue.New(rdb, queue.Config{Prefix: "fb:", Lease: 3 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := sessions.ParseKeys(settingsKey())
	if err != nil {
		w.t.Fatal(err)
	}
	service, err := sessions.NewService(sessions.ServiceConfig{Redis: rdb, Prefix: "fb:", Queue: q, Keys: keys})
	if err != nil {
		w.t.Fatal(err)
	}
	return service
}

// set changes a channel's settings.
func (w *split) set(admins *sessions.Service, channel string, values map[string]string, change func(*sessions.Settings)) {
	w.t.Helper()
	team, _ := w.api(admin, "auth.test", nil)["team_id"].(string)
	s, err := admins.Settings(w.t.Context(), team, channel)
	if err != nil {
		w.t.Fatal(err)
	}
	change(&s)
	if _, err := admins.SaveSettings(w.t.Context(), team, channel, "U0ADMIN", s, values); err != nil {
		w.t.Fatal(err)
	}
}

// said waits for a message of a turn that holds the text, and returns all that its thread holds of the turn.
func (w *slackWorld) said(channel, thread, ts, text string) string {
	w.t.Helper()
	all := ""
	w.until(text, func() bool {
		all = ""
		for _, m := range w.thread(channel, thread) {
			if strings.HasSuffix(m.Turn, ":"+ts) {
				all += m.Text + "\n"
			}
		}
		return strings.Contains(all, text)
	})
	return all
}

// TestChannelSettings is a channel with settings, from Redis to the thread.
func TestChannelSettings(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	bot := start(t, append(w.env, "FLAUDEBOT_SECRETS_KEY="+settingsKey()), "serve")
	admins, general, payments := w.admins(), w.channel("general"), w.channel("payments")
	const secret = "npm_5up3r-s3cr3t"
	w.set(admins, general, map[string]string{"NPM_TOKEN": secret}, func(s *sessions.Settings) {
		s.SetUp = `test "$NPM_TOKEN" = ` + secret + ` && echo ran >> ../setups && sleep 3`
		s.Env, s.Secrets = map[string]string{"STAGE": "testing"}, []string{"NPM_TOKEN"}
		s.Guest = sessions.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 1024}
	})
	root := w.say(member, general, "", mention+"run: cat setups; echo $STAGE $NPM_TOKEN")
	t.Run("the set-up command is told of while it runs", func(*testing.T) {
		w.said(general, root, root, "Setting up")
	})
	t.Run("commands have the variables and the secret, which nobody is shown", func(t *testing.T) {
		if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "ran\ntesting [redacted]") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
	})
	t.Run("the next turn finds the workspace set up, once", func(t *testing.T) {
		ts := w.say(member, general, root, "run: cat setups")
		if text, code := w.answer(general, root, ts); code != "0" || strings.Count(text, "ran") != 1 {
			t.Errorf("answer = %q (exit %s), want it to have run once", text, code)
		}
	})
	t.Run("the machine is as the channel wants it, and changes with it", func(t *testing.T) {
		guest := func() string { return toJSON(t, flyList(t, "http://"+w.fly, "test-app", "machines")[0]["config"]) }
		if got := guest(); !strings.Contains(got, `"memory_mb":1024`) || strings.Contains(got, secret) {
			t.Errorf("config = %s", got)
		}
		w.set(admins, general, nil, func(s *sessions.Settings) { s.Guest.MemoryMB = 512 })
		ts := w.say(member, general, root, "run: cat setups")
		if text, code := w.answer(general, root, ts); code != "0" || !strings.Contains(text, "ran") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		if got := guest(); !strings.Contains(got, `"memory_mb":512`) || !strings.Contains(got, `"path":"/data"`) {
			t.Errorf("config = %s", got)
		}
	})
	t.Run("another channel has none of it", func(t *testing.T) {
		ts := w.say(member, payments, "", mention+"run: ls; echo stage=$STAGE token=$NPM_TOKEN")
		if text, code := w.answer(payments, ts, ts); code != "0" || strings.Contains(text, "setups") || !strings.Contains(text, "stage= token=\n") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
	})
	t.Run("a set-up command that fails is told of with its last words, and the session goes on when it is mended", func(t *testing.T) {
		w.set(admins, payments, nil, func(s *sessions.Settings) { s.SetUp = "echo no such package >&2; false" })
		ts := w.say(member, payments, "", mention+"run: echo here")
		text, code := w.answer(payments, ts, ts)
		if code != "1" || !strings.Contains(text, "The set-up command of this channel failed") || !strings.Contains(text, "no such package") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		w.set(admins, payments, nil, func(s *sessions.Settings) { s.SetUp = "echo mended" })
		if text, code := w.answer(payments, ts, w.say(member, payments, ts, "run: echo here")); code != "0" || !strings.Contains(text, "here") {
			t.Errorf("after it was mended: %q (exit %s)", text, code)
		}
	})
	t.Run("a session's settings are on its record", func(t *testing.T) {
		all, err := admins.List(t.Context(), "T0LOCAL", general)
		if err != nil || len(all) != 1 || all[0].InUse == nil || all[0].InUse.Version != 2 || all[0].InUse.Secrets[0] != "NPM_TOKEN" {
			t.Errorf("sessions = %+v, %v", all, err)
		}
	})
	t.Run("the bot's log holds no secret", func(t *testing.T) {
		if strings.Contains(bot.logs(), secret) || strings.Contains(bot.logs(), settingsKey()) {
			t.Error("it does")
		}
	})
	t.Run("nothing that was said in Slack holds it", func(t *testing.T) {
		if all := toJSON(t, w.thread(general, root)); strings.Contains(all, "s3cr3t") {
			t.Errorf("the thread holds it: %s", all)
		}
	})
}

// asked is the last request of a turn that the local Messages API answered well; the turn is known by its words.
func (w *split) asked(t *testing.T, prompt string) claude.Seen {
	t.Helper()
	for _, seen := range slices.Backward(apiLog(t, w.claude)) {
		if seen.Status == http.StatusOK && strings.Contains(seen.Prompt, prompt) {
			return seen
		}
	}
	t.Fatalf("the API was not asked about %q", prompt)
	return claude.Seen{}
}

// onVolumes names the files of that name that are on volumes.
func (w *split) onVolumes(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Join(w.data, "fly", "volumes"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			found = append(found, path)
		}
		if errors.Is(err, fs.ErrNotExist) { // sessions are at work there
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRealChannelSettings is the same with the real Claude Code: what the channel has set is what the Messages API is asked for and what the
// turn can do, and what it may not do is said in the thread.
func TestRealChannelSettings(t *testing.T) {
	t.Parallel()
	realClaude(t)
	world := splitWorld(t, "--agent", "cli")
	commitFile(t, filepath.Join(world.data, "repo"), ".claude/settings.json",
		`{"hooks":{"SessionStart":[{"hooks":[{"type":"command","command":"touch $HOME/hook-of-the-repository"}]}]}}`)
	commitFile(t, filepath.Join(world.data, "repo"), ".mcp.json",
		`{"mcpServers":{"trap":{"command":"sh","args":["-c","touch $HOME/server-of-the-repository"]}}}`)
	start(t, append(world.env, "FLAUDEBOT_SECRETS_KEY="+settingsKey()), "serve")
	admins := world.admins()

	t.Run("model, effort, tools and modes", func(t *testing.T) {
		t.Parallel()
		w := world.in(t)
		general := w.channel("general")
		w.set(admins, general, map[string]string{"NPM_TOKEN": "npm_5up3r-s3cr3t"}, func(s *sessions.Settings) {
			s.Model, s.Effort, s.Secrets = "haiku", "low", []string{"NPM_TOKEN"}
			s.AllowedTools = []string{"Bash(printenv *)"}
			s.SetUp = `test -n "$NPM_TOKEN" && pwd >> ../setups`
		})
		root := w.say(member, general, "", mention+"run: printenv NPM_TOKEN")
		if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "[redacted]") || strings.Contains(text, "s3cr3t") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		if seen := w.asked(t, "run: printenv NPM_TOKEN"); seen.Model != "claude-haiku-4-5-20251001" {
			t.Errorf("the API was asked for %s, want the channel's haiku", seen.Model)
		}
		w.set(admins, general, nil, func(s *sessions.Settings) { s.Model = "opus" })
		ts := w.say(member, general, root, "run: touch made-it")
		if text, _ := w.answer(general, root, ts); !strings.Contains(text, "did not allow Claude: Bash `touch made-it`") {
			t.Errorf("answer = %q, want it said what was not allowed", text)
		}
		if seen := w.asked(t, "run: touch made-it"); seen.Model != "claude-opus-4-8" || seen.Effort != "low" {
			t.Errorf("the API was asked for %s with effort %s, want opus and low from this turn on", seen.Model, seen.Effort)
		}
		w.set(admins, general, nil, func(s *sessions.Settings) { s.AllowedTools, s.PermissionMode = nil, runner.ModeAcceptEdits })
		ts = w.say(member, general, root, mention+"model:sonnet effort:max run: touch made-it && ls && wc -l setups")
		if text, code := w.answer(general, root, ts); code != "0" || !strings.Contains(text, "made-it") {
			t.Errorf("answer = %q (exit %s), want the new settings to count", text, code)
		} else if !strings.Contains(text, "1 setups") {
			t.Errorf("answer = %q, want that the set-up command ran once in three turns", text)
		}
		if seen := w.asked(t, "touch made-it && ls"); seen.Model != "claude-sonnet-5" || seen.Effort != "max" || strings.Contains(seen.Prompt, "model:") {
			t.Errorf("the API was asked for %s with effort %s by %q, want what the message chose, and nothing of that in the prompt", seen.Model, seen.Effort, seen.Prompt)
		}
	})

	t.Run("fallback, MCP servers and trust", func(t *testing.T) {
		t.Parallel()
		w := world.in(t)
		payments := w.channel("payments")
		server, err := json.Marshal(map[string]any{"mcpServers": map[string]any{
			"docs": map[string]any{"command": "python3", "args": []string{"-c", mcpServer}, "env": map[string]string{"KEY": "${DOCS_KEY}"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		w.set(admins, payments, map[string]string{"DOCS_KEY": "a-key-for-documents"}, func(s *sessions.Settings) {
			s.Model, s.Fallback, s.MCP, s.Secrets = "no-such-model", "sonnet", string(server), []string{"DOCS_KEY"}
		})
		const prompt = `use mcp__docs__search {"q":"hooks"}`
		root := w.say(member, payments, "", mention+prompt)
		if text, code := w.answer(payments, root, root); code != "0" || !strings.Contains(text, "found hooks with 19 [redacted]") {
			t.Errorf("answer = %q (exit %s), want that of the channel's MCP server, which was given its secret", text, code)
		}
		if !slices.ContainsFunc(apiLog(t, w.claude), func(s claude.Seen) bool { return s.Model == "no-such-model" && s.Status == http.StatusNotFound }) {
			t.Error("the API was never asked for the channel's model")
		}
		if seen := w.asked(t, prompt); seen.Model != "claude-sonnet-5" {
			t.Errorf("the API was asked for %s in the end, want the channel's fallback", seen.Model)
		}
		marks := func() []string {
			return slices.Concat(w.onVolumes(t, "hook-of-the-repository"), w.onVolumes(t, "server-of-the-repository"))
		}
		if got := marks(); len(got) > 0 {
			t.Errorf("the repository is not trusted, and was obeyed: %s", got)
		}
		w.set(admins, payments, nil, func(s *sessions.Settings) { s.Model, s.Fallback, s.Trust = "", "", true })
		ts := w.say(member, payments, root, prompt)
		if text, code := w.answer(payments, root, ts); code != "0" || !strings.Contains(text, "found hooks") {
			t.Errorf("answer = %q (exit %s), want the channel's own server beside the repository's", text, code)
		}
		if got := marks(); len(got) != 2 {
			t.Errorf("the repository is trusted, and %s is what it was obeyed in, want its hook and its server", got)
		}
	})
}

// TestDemoKeepsSecrets: the demo makes itself a key for secrets, and keeps it with the rest of its world.
func TestDemoKeepsSecrets(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	first, err := w.secretsKey()
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := sessions.ParseKeys(first); err != nil || keys == nil {
		t.Errorf("the key is none: %v", err)
	}
	if again, err := w.secretsKey(); err != nil || again != first {
		t.Errorf("the next start has %v, %v, want the same", again == first, err)
	}
	if other, err := (&world{dir: t.TempDir()}).secretsKey(); err != nil || other == first {
		t.Errorf("another world has the same key: %v", err)
	}
}
