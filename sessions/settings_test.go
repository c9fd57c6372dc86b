package sessions

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flaudebot/runner"
)

// everySetting has something in every field.
func everySetting() Settings {
	return Settings{
		Repos: []runner.Repo{{URL: "https://github.com/acme/api", Branch: "next", Dir: "backend"}}, SetUp: "npm ci",
		Env: map[string]string{"STAGE": "test"}, Secrets: []string{"NPM_TOKEN"}, Instructions: "Answer in French.",
		Model: "opus", Fallback: "sonnet", Effort: "low", AllowedTools: []string{"Read", "Bash(git log *)"}, PermissionMode: runner.ModeDontAsk, Trust: true,
		MCP: `{"mcpServers":{"docs":{"command":"docs-server"}}}`, Hosts: []string{"pypi.org", "*.npmjs.org"},
		Guest: Guest{CPUKind: "shared", CPUs: 2, MemoryMB: 1024}, Region: "fra", VolumeGB: 3,
		TTL: new(time.Duration(0)), Linger: new(time.Minute), Timeout: new(time.Hour), BudgetUSD: new(12.5),
		MentionOnly: true, Users: []string{"U1", "S1"}, Admins: []string{"U2"}, Overrides: []Override{OverrideVolume},
	}
}

// TestSettings: what an admin sets for a channel is kept as it is, under a version; secrets are kept apart and never come back.
func TestSettings(t *testing.T) {
	t.Parallel()
	const value = "npm_0123456789"
	open := func(t *testing.T, keys ...string) (*replica, *bot) {
		t.Helper()
		b := newBot(t)
		return b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.Keys = keyring(t, keys...) }), b
	}
	save := func(t *testing.T, r *replica, channel string, s Settings, values map[string]string) Settings {
		t.Helper()
		got, err := r.SaveSettings(t.Context(), "T1", channel, "U9", s, values)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	t.Run("a channel that was never set up has none", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t)
		if got, err := r.Settings(t.Context(), "T1", "C1"); err != nil || !cmp.Equal(got, Settings{}) {
			t.Errorf("Settings = %+v, %v", got, err)
		}
	})
	t.Run("the log says who changed which fields, and no value", func(t *testing.T) {
		t.Parallel()
		var log bytes.Buffer
		r := newBot(t).replica(func(c *ServiceConfig, _ *MachinesConfig) {
			c.Keys, c.Log = keyring(t, secretsKey(1)), slog.New(slog.NewTextHandler(&log, nil))
		})
		save(t, r, "C1", Settings{Instructions: "mind the gap", Env: map[string]string{"STAGE": "testing"}, Secrets: []string{"NPM_TOKEN"}}, map[string]string{"NPM_TOKEN": value})
		if said := log.String(); !strings.Contains(said, "by=U9") || !strings.Contains(said, `fields="[env instructions secrets]"`) {
			t.Errorf("the log says %q", said)
		}
		for _, word := range []string{"mind the gap", "testing", value} {
			if strings.Contains(log.String(), word) {
				t.Errorf("the log says %q: %s", word, log.String())
			}
		}
	})
	t.Run("every field comes back, to other channels nothing", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t, secretsKey(1))
		saved := save(t, r, "C1", everySetting(), map[string]string{"NPM_TOKEN": value})
		want := everySetting()
		want.Version, want.ChangedBy, want.ChangedAt = 1, "U9", saved.ChangedAt
		for _, got := range []Settings{saved, mustSettings(t, r, "C1")} {
			if diff := cmp.Diff(want, got); diff != "" || time.Since(got.ChangedAt) > time.Minute {
				t.Errorf("settings differ (-want +got):\n%s", diff)
			}
		}
		if got := mustSettings(t, r, "C2"); got.Version != 0 {
			t.Errorf("settings of another channel = %+v", got)
		}
	})
	t.Run("no repositories is something else than those of the bot", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t)
		save(t, r, "C1", Settings{Repos: []runner.Repo{}, Overrides: []Override{}}, nil)
		if got := mustSettings(t, r, "C1"); got.Repos == nil || len(got.Allowed()) != 0 {
			t.Errorf("settings = %+v, want no repositories and no overrides", got)
		}
	})
	t.Run("of two who change them at once, the second is told", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t)
		first := save(t, r, "C1", Settings{Model: "opus"}, nil)
		second := first
		first.Model, second.Model = "sonnet", "haiku"
		save(t, r, "C1", first, nil)
		_, err := r.SaveSettings(t.Context(), "T1", "C1", "U7", second, nil)
		var changed SettingsChangedError
		if !errors.Is(err, ErrSettingsChanged) || !errors.As(err, &changed) || changed.Now.Model != "sonnet" || changed.Now.ChangedBy != "U9" || changed.Now.Version != 2 {
			t.Errorf("SaveSettings = %v, want to be told of sonnet by U9", err)
		}
		if got := mustSettings(t, r, "C1"); got.Model != "sonnet" {
			t.Errorf("model = %s, want that of the first", got.Model)
		}
		ok, err := r.store.PutSettings(t.Context(), "T1", "C1", 1, storedSettings{Settings: second}, nil) // it came in between reading and writing
		if err != nil || ok {
			t.Errorf("PutSettings of an older version = %v, %v", ok, err)
		}
	})
	t.Run("Redis holds no secret", func(t *testing.T) {
		t.Parallel()
		r, b := open(t, secretsKey(1))
		save(t, r, "C1", Settings{Secrets: []string{"NPM_TOKEN"}}, map[string]string{"NPM_TOKEN": value})
		if dump := b.mini.Dump(); strings.Contains(dump, value) || !strings.Contains(dump, "NPM_TOKEN") {
			t.Errorf("Redis holds:\n%s", dump)
		}
	})
	t.Run("a secret stays until it is given a new value, or is not named any more", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t, secretsKey(1))
		s := save(t, r, "C1", Settings{Secrets: []string{"ONE", "TWO"}}, map[string]string{"ONE": "first-value", "TWO": "second-value"})
		s = save(t, r, "C1", s, map[string]string{"TWO": "a-newer-value"})
		if got := secretsOf(t, r, "C1"); !cmp.Equal(got, map[string]string{"ONE": "first-value", "TWO": "a-newer-value"}) {
			t.Errorf("secrets = %v", got)
		}
		s.Secrets = []string{"TWO"}
		save(t, r, "C1", s, nil)
		if got := secretsOf(t, r, "C1"); !cmp.Equal(got, map[string]string{"TWO": "a-newer-value"}) {
			t.Errorf("secrets = %v", got)
		}
	})
	t.Run("without a key a secret is refused in a sentence, and nothing is stored", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t)
		_, err := r.SaveSettings(t.Context(), "T1", "C1", "U9", Settings{Model: "opus", Secrets: []string{"ONE"}}, map[string]string{"ONE": "first-value"})
		var bad FieldErrors
		if !errors.As(err, &bad) || !strings.Contains(bad.Of(FieldSecrets), "FLAUDEBOT_SECRETS_KEY is not set") || r.KeepsSecrets() {
			t.Errorf("SaveSettings = %v", err)
		}
		if got := mustSettings(t, r, "C1"); got.Version != 0 {
			t.Errorf("settings = %+v, want none", got)
		}
	})
	t.Run("a secret without a value is refused", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t, secretsKey(1))
		_, err := r.SaveSettings(t.Context(), "T1", "C1", "U9", Settings{Secrets: []string{"ONE"}}, nil)
		var bad FieldErrors
		if !errors.As(err, &bad) || bad.Of(FieldSecrets) != "ONE has no value yet" {
			t.Errorf("SaveSettings = %v", err)
		}
	})
	t.Run("secrets move to a newer key when they are used", func(t *testing.T) {
		t.Parallel()
		r, b := open(t, secretsKey(1))
		save(t, r, "C1", Settings{Secrets: []string{"ONE"}}, map[string]string{"ONE": "first-value"})
		both := b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.Keys = keyring(t, secretsKey(2), secretsKey(1)) })
		if got := secretsOf(t, both, "C1"); got["ONE"] != "first-value" {
			t.Errorf("secrets = %v", got)
		}
		newer := b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.Keys = keyring(t, secretsKey(2)) })
		if got := secretsOf(t, newer, "C1"); got["ONE"] != "first-value" {
			t.Errorf("secrets without the older key = %v", got)
		}
		if got := mustSettings(t, newer, "C1"); got.Version != 1 {
			t.Errorf("version = %d, want 1: an admin at work on them is not to be told of a change", got.Version)
		}
		if _, err := r.effective(t.Context(), turn("1.0", "x", true)); !errors.Is(err, ErrSealed) {
			t.Errorf("with the older key alone: %v, want ErrSealed", err)
		}
	})
}

func mustSettings(t *testing.T, r *replica, channel string) Settings {
	t.Helper()
	s, err := r.Settings(t.Context(), "T1", channel)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// secretsOf are those that a turn in the channel is given.
func secretsOf(t *testing.T, r *replica, channel string) map[string]string {
	t.Helper()
	e, err := r.effective(t.Context(), Turn{Thread: Thread{Team: "T1", Channel: channel, TS: "1.0"}})
	if err != nil {
		t.Fatal(err)
	}
	return e.secrets
}

// TestCheckSettings: each field that no turn could be run with is told of in a sentence of its own.
func TestCheckSettings(t *testing.T) {
	t.Parallel()
	if err := everySetting().Check(map[string]string{"NPM_TOKEN": "npm_0123456789"}); err != nil {
		t.Errorf("Check = %v, want every field to be good", err)
	}
	if err := (Settings{}).Check(nil); err != nil {
		t.Errorf("Check of no settings = %v", err)
	}
	for name, tt := range map[string]struct {
		change func(*Settings)
		values map[string]string
		field  Field
		says   string
	}{
		"a token in an address":      {func(s *Settings) { s.Repos[0].URL = "https://ghp_x@github.com/acme/api" }, nil, FieldRepos, "leave user and token out"},
		"an option for an address":   {func(s *Settings) { s.Repos[0].URL = "--upload-pack=x" }, nil, FieldRepos, "want url"},
		"a folder elsewhere":         {func(s *Settings) { s.Repos[0].Dir = "../x" }, nil, FieldRepos, "below the workspace"},
		"two in a folder":            {func(s *Settings) { s.Repos = append(s.Repos, s.Repos[0]) }, nil, FieldRepos, "two repositories"},
		"a variable with a dash":     {func(s *Settings) { s.Env["A-B"] = "x" }, nil, FieldEnv, `"A-B" is no name`},
		"a variable of ours":         {func(s *Settings) { s.Env["ANTHROPIC_API_KEY"] = "x" }, nil, FieldEnv, "is set by flaudebot itself"},
		"Git's settings":             {func(s *Settings) { s.Env["GIT_CONFIG_COUNT"] = "0" }, nil, FieldEnv, "is set by flaudebot itself"},
		"a variable and a secret":    {func(s *Settings) { s.Env["NPM_TOKEN"] = "x" }, nil, FieldEnv, "a secret as well"},
		"a secret twice":             {func(s *Settings) { s.Secrets = []string{"A", "A"} }, nil, FieldSecrets, "named twice"},
		"a short secret":             {func(*Settings) {}, map[string]string{"NPM_TOKEN": "seven77"}, FieldSecrets, "shorter than 8 characters"},
		"a secret of spaces":         {func(*Settings) {}, map[string]string{"NPM_TOKEN": "  a        "}, FieldSecrets, "shorter than 8"},
		"a secret that is not named": {func(*Settings) {}, map[string]string{"OTHER": "0123456789"}, FieldSecrets, "not among the secrets"},
		"an option for a model":      {func(s *Settings) { s.Model = "--debug" }, nil, FieldModel, "no name of a model"},
		"a fallback on itself":       {func(s *Settings) { s.Fallback = "sonnet, opus" }, nil, FieldFallback, "another model"},
		"an unknown effort":          {func(s *Settings) { s.Effort = "huge" }, nil, FieldEffort, "low, medium, high, xhigh, max"},
		"an unknown mode":            {func(s *Settings) { s.PermissionMode = "yolo" }, nil, FieldMode, "bypassPermissions, acceptEdits"},
		"tools where all may":        {func(s *Settings) { s.PermissionMode = runner.ModeBypass }, nil, FieldTools, "every tool is allowed"},
		"an option for a tool":       {func(s *Settings) { s.AllowedTools = []string{"--tools"} }, nil, FieldTools, "is no tool"},
		"a host with its protocol":   {func(s *Settings) { s.Hosts = []string{"https://pypi.org"} }, nil, FieldHosts, "is no host that access can be held to"},
		"hosts beside SSH":           {func(s *Settings) { s.Repos = []runner.Repo{{URL: "ssh://git@github.com/a/b"}} }, nil, FieldHosts, "not reached by HTTPS"},
		"MCP that is no JSON":        {func(s *Settings) { s.MCP = "docs" }, nil, FieldMCP, "no JSON of MCP servers"},
		"MCP of another form":        {func(s *Settings) { s.MCP = `{"docs":{"command":"x"}}` }, nil, FieldMCP, "no server is named"},
		"MCP without a command":      {func(s *Settings) { s.MCP = `{"mcpServers":{"docs":{}}}` }, nil, FieldMCP, "docs needs a command"},
		"MCP without an address":     {func(s *Settings) { s.MCP = `{"mcpServers":{"docs":{"type":"http"}}}` }, nil, FieldMCP, "docs needs a url"},
		"an odd machine":             {func(s *Settings) { s.Guest.MemoryMB = 1000 }, nil, FieldGuest, "512 to 4096 MB in steps of 256"},
		"a machine of another kind":  {func(s *Settings) { s.Guest.CPUKind = "gpu" }, nil, FieldGuest, "want a size such as"},
		"a region by its name":       {func(s *Settings) { s.Region = "Frankfurt" }, nil, FieldRegion, "three letters"},
		"a huge volume":              {func(s *Settings) { s.VolumeGB = 501 }, nil, FieldVolume, "1 to 500 GB"},
		"a life of an instant":       {func(s *Settings) { s.TTL = new(time.Millisecond) }, nil, FieldTTL, "at least 1s, or 0"},
		"a long linger":              {func(s *Settings) { s.Linger = new(2 * time.Hour) }, nil, FieldLinger, "at most 1h"},
		"a negative time-out":        {func(s *Settings) { s.Timeout = new(-time.Hour) }, nil, FieldTimeout, "at least 1s, or 0"},
		"a negative budget":          {func(s *Settings) { s.BudgetUSD = new(-1.0) }, nil, FieldBudget, "want an amount in USD"},
		"a budget that is no number": {func(s *Settings) { s.BudgetUSD = new(math.NaN()) }, nil, FieldBudget, "want an amount in USD"},
		"people by name":             {func(s *Settings) { s.Users = []string{"ana"} }, nil, FieldUsers, "no Slack id"},
		"an id that is a form":       {func(s *Settings) { s.Users = []string{"U1>, <!CHANNEL"} }, nil, FieldUsers, "no Slack id"},
		"a group of admins":          {func(s *Settings) { s.Admins = []string{"S1"} }, nil, FieldAdmins, "no Slack id"},
		"an unknown override":        {func(s *Settings) { s.Overrides = []Override{"guest"} }, nil, FieldOverrides, "want model, effort or volume"},
		"more than a request holds":  {func(s *Settings) { s.Instructions = strings.Repeat("é\n", 12000) }, nil, FieldInstructions, "too long together"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := everySetting()
			tt.change(&s)
			var bad FieldErrors
			if err := s.Check(tt.values); !errors.As(err, &bad) || len(bad) != 1 || !strings.Contains(bad.Of(tt.field), tt.says) {
				t.Errorf("Check = %v, want one problem of %s that says %q", err, tt.field, tt.says)
			}
		})
	}
}

// TestOverrides: a message chooses what its channel lets it choose.
func TestOverrides(t *testing.T) {
	t.Parallel()
	def := Settings{Model: "opus", VolumeGB: 1}
	all := Overrides{Model: "haiku", Effort: "max", VolumeGB: 9}
	for name, tt := range map[string]struct {
		allowed []Override
		refused []Field
		model   string
		volume  int
	}{
		"as ever":        {nil, []Field{FieldVolume}, "haiku", 1},
		"nothing":        {[]Override{}, []Field{FieldModel, FieldEffort, FieldVolume}, "opus", 1},
		"the volume too": {[]Override{OverrideModel, OverrideEffort, OverrideVolume}, nil, "haiku", 9},
		"effort alone":   {[]Override{OverrideEffort}, []Field{FieldModel, FieldVolume}, "opus", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Settings{Overrides: tt.allowed}
			var bad FieldErrors
			if err := s.CheckOverrides(all); (err != nil) != (len(tt.refused) > 0) || (err != nil && !errors.As(err, &bad)) {
				t.Errorf("CheckOverrides = %v", err)
			}
			for _, f := range tt.refused {
				if !strings.Contains(bad.Of(f), "do not let a message choose") {
					t.Errorf("of %s: %q", f, bad.Of(f))
				}
			}
			if got := s.with(all).over(def); got.Model != tt.model || got.VolumeGB != tt.volume {
				t.Errorf("it runs with %s and %d GB, want %s and %d", got.Model, got.VolumeGB, tt.model, tt.volume)
			}
		})
	}
	if got := (Settings{Fallback: " sonnet, haiku,"}).with(Overrides{Model: "haiku"}).over(def).Fallback; got != "sonnet" {
		t.Errorf("fallback of a chosen model = %q, want sonnet alone", got)
	}
	var bad FieldErrors
	if err := (Settings{}).CheckOverrides(Overrides{Model: "-x", Effort: "huge"}); !errors.As(err, &bad) || bad.Of(FieldModel) == "" || bad.Of(FieldEffort) == "" {
		t.Errorf("CheckOverrides of nonsense = %v", err)
	}
	if err := (Settings{}).CheckOverrides(Overrides{}); err != nil {
		t.Errorf("CheckOverrides of nothing = %v", err)
	}
}

// TestTexts: sizes and repositories are read as they are written.
func TestTexts(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"shared-1x:256", "performance-2x:4096"} {
		if g, err := ParseGuest(text); err != nil || GuestText(g) != text {
			t.Errorf("ParseGuest(%s) = %+v, %v", text, g, err)
		}
	}
	repos, err := ParseRepos("https://github.com/acme/api#next=backend, \nhttps://github.com/acme/web\r\n")
	if err != nil || len(repos) != 2 || RepoText(repos[0]) != "https://github.com/acme/api#next=backend" || RepoText(repos[1]) != "https://github.com/acme/web" {
		t.Errorf("ParseRepos = %+v, %v", repos, err)
	}
}
