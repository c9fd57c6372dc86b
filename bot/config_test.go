package bot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// form is a modal that somebody has open.
type form struct {
	w     *workspace
	token string
	view  map[string]any
}

// top is the modal that lies on top of all that a person has open.
func (w *workspace) top(token string) form {
	w.t.Helper()
	views, _ := w.local(token, "seen", map[string]any{"channel": general})["views"].([]any)
	if len(views) == 0 {
		return form{w: w, token: token}
	}
	v, _ := views[len(views)-1].(map[string]any)
	return form{w, token, v}
}

// opened waits until the modal on top has a title and shows something.
func (w *workspace) opened(token, title string, all ...string) (f form) {
	w.t.Helper()
	w.until("a modal “"+title+"” with "+strings.Join(all, ", "), func() bool {
		f = w.top(token)
		return f.title() == title && has(f.text(), all...)
	})
	return f
}

func (f form) text() string { return f.w.text(f.view) }

func (f form) title() string {
	title, _ := f.view["title"].(map[string]any)
	return fmt.Sprint(title["text"])
}

// block is the id of the block in which a field is filled in.
func (f form) block(field string) string {
	f.w.t.Helper()
	blocks, _ := f.view["blocks"].([]any)
	for _, b := range blocks {
		b, _ := b.(map[string]any)
		if id := fmt.Sprint(b["block_id"]); id == field || strings.HasPrefix(id, field+"@") {
			return id
		}
	}
	f.w.t.Fatalf("the modal has no %s: %s", field, f.text())
	return ""
}

// press presses a button of the modal.
func (f form) press(action, value string) {
	f.w.t.Helper()
	res := f.w.local(f.token, "click", map[string]any{"view_id": f.view["id"], "action_id": action, "value": value})
	if res["ok"] != true {
		f.w.t.Fatalf("press %s %s = %v", action, value, res)
	}
}

// Values as Slack sends them.
func typed(s string) map[string]any { return map[string]any{"type": "plain_text_input", "value": s} }

func picked(s string) map[string]any {
	return map[string]any{"type": "static_select", "selected_option": map[string]any{"value": s}}
}

func persons(ids ...string) map[string]any {
	return map[string]any{"type": "multi_users_select", "selected_users": ids}
}

func ticked(values ...string) map[string]any {
	options := []any{}
	for _, v := range values {
		options = append(options, map[string]any{"value": v})
	}
	return map[string]any{"type": "checkboxes", "selected_options": options}
}

// submit sends the modal with what is filled in, field → value, and returns what is wrong: field → problem.
func (f form) submit(values map[string]map[string]any) map[string]string {
	f.w.t.Helper()
	state, fieldOf := map[string]any{}, map[string]string{}
	for field, v := range values {
		state[f.block(field)] = map[string]any{"value": v}
		fieldOf[f.block(field)] = field
	}
	res := f.w.local(f.token, "submit", map[string]any{"view_id": f.view["id"], "values": state})
	if res["ok"] != true {
		f.w.t.Fatalf("submit = %v", res)
	}
	out := map[string]string{}
	said, _ := res["response"].(map[string]any)
	bad, _ := said["errors"].(map[string]any)
	for block, problem := range bad {
		out[fieldOf[block]] = fmt.Sprint(problem)
	}
	return out
}

// config opens the settings of general.
func (w *workspace) config(token string) form {
	w.t.Helper()
	w.command(token, "config") // it is answered by the modal alone, or by what was said meanwhile of another
	return w.opened(token, "Channel settings")
}

func (w *workspace) set(channel string, s sessions.Settings) {
	w.sessions.set(func(f *fakeSessions) {
		if f.settings == nil {
			f.settings, f.secrets = map[string]sessions.Settings{}, map[string]string{}
		}
		f.settings[channel] = s
	})
}

func (w *workspace) settingsOf(channel string) (s sessions.Settings) {
	w.sessions.set(func(f *fakeSessions) { s = f.settings[channel] })
	s.Version, s.ChangedBy = 0, ""
	return s
}

// TestConfig: an admin changes the settings of a channel in a modal.
func TestConfig(t *testing.T) {
	t.Parallel()
	t.Run("the first page has what is set most, and is saved", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		f := w.config(admin)
		if !has(f.text(), "As by default: Opus", "Settings of <#C0GENERAL>", "*Machine*", sayAllByDefault) {
			t.Errorf("the modal shows %s", f.text())
		}
		no := f.submit(map[string]map[string]any{
			"repos": typed("acme/app#dev\nhttps://git.example/x/lib.git"), "model": picked("sonnet"), "instructions": typed("Be short."), "mention_only": ticked("on"),
		})
		want := sessions.Settings{
			Repos: []runner.Repo{{URL: "https://github.com/acme/app", Branch: "dev"}, {URL: "https://git.example/x/lib.git"}},
			Model: "sonnet", Instructions: "Be short.", MentionOnly: true,
		}
		if diff := cmp.Diff(want, w.settingsOf(general)); len(no) > 0 || diff != "" {
			t.Errorf("errors %v, settings (-want +got):\n%s", no, diff)
		}
		w.until("who saved is told", func() bool {
			return has(w.text(w.local(admin, "seen", map[string]any{"channel": general})["ephemeral"]), "Saved: model, instructions, replies, from the next turn; repositories, for sessions that begin from now on.")
		})
		if f := w.top(admin); f.view != nil {
			t.Errorf("a modal is open still: %s", f.text())
		}
		f = w.config(admin)
		if !has(f.text(), `acme/app#dev\nhttps://git.example/x/lib.git`, "Changed last by <@U0ADMIN>") {
			t.Errorf("opened again, it shows %s", f.text())
		}
		no = f.submit(map[string]map[string]any{"repos": typed(" "), "model": picked(byDefault), "instructions": typed(""), "mention_only": ticked()})
		if diff := cmp.Diff(sessions.Settings{}, w.settingsOf(general)); len(no) > 0 || diff != "" {
			t.Errorf("emptied: errors %v, settings (-want +got):\n%s", no, diff)
		}
	})
	t.Run("each other page is saved by itself, and the first one shows what came of it", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		for _, s := range []struct {
			page, title string
			fill        map[string]map[string]any
			want        sessions.Settings
			shown       string
		}{
			{"claude", "Claude", map[string]map[string]any{
				"effort": picked("high"), "model_name": typed("claude-opus-4-7"), "fallback": typed("sonnet, haiku"), "permission_mode": picked("acceptEdits"),
				"allowed_tools": typed("Edit\nBash(git log *)"), "hosts": typed("pypi.org\n*.npmjs.org"), "trust": ticked("on"), "overrides": ticked("volume"), "mcp": typed(`{"mcpServers":{"a":{"command":"b"}}}`),
			}, sessions.Settings{
				Effort: "high", Model: "claude-opus-4-7", Fallback: "sonnet,haiku", PermissionMode: "acceptEdits", AllowedTools: []string{"Edit", "Bash(git log *)"}, Hosts: []string{"pypi.org", "*.npmjs.org"}, Trust: true,
				Overrides: []sessions.Override{"volume"}, MCP: `{"mcpServers":{"a":{"command":"b"}}}`,
			}, "effort: High · another model: claude-opus-4-7"},
			{"environment", "Environment", map[string]map[string]any{"set_up": typed("npm ci"), "env": typed("A=1\n B = x=y ")}, sessions.Settings{
				SetUp: "npm ci", Env: map[string]string{"A": "1", "B": "x=y"},
			}, "set-up command: 1 line · variables: 2 lines"},
			{"machine", "Machine", map[string]map[string]any{
				"guest": picked("shared-4x:4096"), "region": picked("fra"), "volume_gb": {"type": "number_input", "value": "20"}, "ttl": typed("7d"), "timeout": typed("1h30m"), "linger": typed("0"),
			}, sessions.Settings{
				Guest: sessions.Guest{CPUKind: "shared", CPUs: 4, MemoryMB: 4096}, Region: "fra", VolumeGB: 20,
				TTL: new(7 * 24 * time.Hour), Timeout: new(90 * time.Minute), Linger: new(time.Duration(0)),
			}, "size: 4 shared CPUs, 4 GB · region: Frankfurt (fra) · volume in GB: 20 · life of a session: 7d · longest turn: 1h30m · wait for the next message: not at all"},
			{"access", "Who may, and how much", map[string]map[string]any{
				"users": persons("U0MEMBER", "U0GUEST"), "groups": {"type": "multi_static_select", "selected_options": []any{map[string]any{"value": "S0TEAM"}}}, "admins": persons("U0MEMBER"),
				"budget_usd": typed("$12.50"),
			}, sessions.Settings{Users: []string{"U0MEMBER", "U0GUEST", "S0TEAM"}, Admins: []string{"U0MEMBER"}, BudgetUSD: new(12.5)}, "people who may use me here: 2"},
		} {
			w.set(general, sessions.Settings{})
			w.config(admin).press(actionPage, s.page)
			no := w.opened(admin, s.title).submit(s.fill)
			if diff := cmp.Diff(s.want, w.settingsOf(general)); len(no) > 0 || diff != "" {
				t.Errorf("%s: errors %v, settings (-want +got):\n%s", s.page, no, diff)
			}
			first := w.opened(admin, "Channel settings", s.shown)
			first.press(actionPage, s.page)
			if no := w.opened(admin, s.title).submit(nil); len(no) > 0 {
				t.Errorf("%s, as it stands: errors %v", s.page, no)
			}
		}
	})
	t.Run("what is wrong is said at its field, and nothing is saved", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		no := w.config(admin).submit(map[string]map[string]any{"repos": typed("what"), "model": picked("sonnet")})
		if !has(no["repos"], "owner/name") {
			t.Errorf("errors = %v, want one of repos", no)
		}
		w.top(admin).press(actionPage, "machine")
		no = w.opened(admin, "Machine").submit(map[string]map[string]any{
			"ttl": typed("soon"), "linger": typed("3d"), "volume_gb": {"type": "number_input", "value": "9999"}, "timeout": typed("1h"),
		})
		if !has(no["ttl"], "Want a time such as 7d") || len(no) != 1 {
			t.Errorf("errors = %v, want one of ttl", no)
		}
		no = w.top(admin).submit(map[string]map[string]any{"linger": typed("3d"), "volume_gb": {"type": "number_input", "value": "9999"}})
		if !has(no["linger"], "Want at most 1h0m0s") || !has(no["volume_gb"], "A volume has 1 to 500 GB") {
			t.Errorf("errors = %v, want those of linger and volume", no)
		}
		w.config(admin).press(actionPage, "access")
		if no = w.opened(admin, "Who may, and how much").submit(map[string]map[string]any{"budget_usd": typed("plenty")}); !has(no["budget_usd"], "Want an amount in USD") {
			t.Errorf("errors = %v, want one of the budget", no)
		}
		if diff := cmp.Diff(sessions.Settings{}, w.settingsOf(general)); diff != "" {
			t.Errorf("settings (-want +got):\n%s", diff)
		}
	})
	t.Run("of two admins who change a field at once the second is told, and other fields go through", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{Admins: []string{"U0MEMBER"}})
		mine, theirs := w.config(admin), w.config(member)
		theirs.submit(map[string]map[string]any{"instructions": typed("Theirs"), "repos": typed("acme/theirs")})
		no := mine.submit(map[string]map[string]any{"instructions": typed("Mine"), "model": picked("haiku"), "repos": typed("")})
		if no["instructions"] != sayChangedMeanwhile("mira") || len(no) != 1 {
			t.Errorf("errors = %v, want one of instructions", no)
		}
		if no := mine.submit(map[string]map[string]any{"instructions": typed(""), "model": picked("haiku"), "repos": typed("")}); len(no) > 0 {
			t.Errorf("errors = %v, want none: only the model was changed", no)
		}
		if got := w.settingsOf(general); got.Model != "haiku" || got.Instructions != "Theirs" || len(got.Repos) != 1 {
			t.Errorf("settings = %+v, want both changes", got)
		}
	})
	t.Run("secrets are given, changed and removed, and never shown", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.config(admin).press(actionPage, "environment")
		env := w.opened(admin, "Environment")
		env.press(actionAdd, "")
		if no := w.opened(admin, "Secret").submit(map[string]map[string]any{secretName: typed("NPM_TOKEN"), secretValue: typed("short")}); !has(no[secretName], "shorter than 8") {
			t.Errorf("errors = %v", no)
		}
		w.top(admin).submit(map[string]map[string]any{secretName: typed("NPM_TOKEN"), secretValue: typed("a-long-secret")})
		env = w.opened(admin, "Environment", "NPM_TOKEN")
		env.press(actionSecret, "NPM_TOKEN")
		w.opened(admin, "Secret", "NPM_TOKEN").submit(map[string]map[string]any{secretValue: typed("another-secret")})
		w.sessions.set(func(f *fakeSessions) {
			if f.secrets["NPM_TOKEN"] != "another-secret" || len(f.settings[general].Secrets) != 1 {
				t.Errorf("secrets = %v, %v", f.secrets, f.settings[general].Secrets)
			}
		})
		env = w.opened(admin, "Environment", "NPM_TOKEN")
		if got := w.text(w.local(admin, "seen", map[string]any{"channel": general})); has(got, "long-secret") || has(got, "another-secret") {
			t.Errorf("a value is shown: %s", got)
		}
		env.press(actionAdd, "")
		if no := w.opened(admin, "Secret").submit(map[string]map[string]any{secretName: typed("NPM_TOKEN"), secretValue: typed("yet-another")}); no[secretName] != saySecretThere {
			t.Errorf("errors = %v", no)
		}
		w.local(admin, "submit", map[string]any{"view_id": w.top(admin).view["id"], "close": true})
		w.opened(admin, "Environment").press(actionSecret, "NPM_TOKEN")
		w.opened(admin, "Secret", "NPM_TOKEN").submit(map[string]map[string]any{secretRemoval: ticked("on")})
		w.until("it is gone", func() bool { f := w.top(admin); return f.title() == "Environment" && !has(f.text(), "NPM_TOKEN") })
		if got := w.settingsOf(general); len(got.Secrets) != 0 {
			t.Errorf("secrets = %v, want none", got.Secrets)
		}
	})
	t.Run("without a key for secrets that is said", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.sessions.keyless = true
		w.config(admin).press(actionPage, "environment")
		if f := w.opened(admin, "Environment", "FLAUDEBOT_SECRETS_KEY"); has(f.text(), "Add a secret") {
			t.Errorf("the modal shows %s", f.text())
		}
	})
	t.Run("in a direct message it is asked which channel", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.local(admin, "command", map[string]any{"channel": "D0ADMIN", "command": "/flaude", "text": "config"})
		f := w.opened(admin, "Channel settings", "conversations_select")
		if no := f.submit(map[string]map[string]any{"channel": {"type": "conversations_select", "selected_conversation": "C0NOWHERE"}}); no["channel"] != sayNotThere {
			t.Errorf("errors = %v", no)
		}
		f.submit(map[string]map[string]any{"channel": {"type": "conversations_select", "selected_conversation": general}})
		w.opened(admin, "Channel settings", "Settings of <#C0GENERAL>", "instructions@")
	})
	t.Run("settings that are too large for an ack are shown all the same", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		long := strings.Repeat("語", maxInput)
		w.set(general, sessions.Settings{Instructions: long, Repos: []runner.Repo{{URL: "https://git.example/" + strings.Repeat("é", 2900)}, {URL: "https://git.example/" + strings.Repeat("ü", 2900)}}})
		w.local(admin, "command", map[string]any{"channel": "D0ADMIN", "command": "/flaude", "text": "config"})
		f := w.opened(admin, "Channel settings", "conversations_select")
		f.submit(map[string]map[string]any{"channel": {"type": "conversations_select", "selected_conversation": general}})
		w.opened(admin, "Channel settings", "instructions@", long)
	})
	t.Run("@flaude config offers a button", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		root := w.say(admin, general, "", mention+"config")
		var ts string
		w.until("the button", func() bool {
			list, _ := w.local(admin, "seen", map[string]any{"channel": general, "thread_ts": root})["ephemeral"].([]any)
			for _, e := range list {
				m, _ := e.(map[string]any)
				ts = fmt.Sprint(m["ts"])
			}
			return ts != ""
		})
		w.local(admin, "click", map[string]any{"channel": general, "ts": ts, "action_id": actionConfig})
		w.opened(admin, "Channel settings", "instructions@")
	})
}

// TestConfigRights: who may not change settings sees them, without variables' values and secrets' names; those who are named change all but
// who is named.
func TestConfigRights(t *testing.T) {
	t.Parallel()
	s := sessions.Settings{
		Repos: []runner.Repo{{URL: "https://github.com/acme/app"}}, Instructions: "Be <short>.\nBe kind.", Env: map[string]string{"A": "a-value"}, Secrets: []string{"NPM_TOKEN"},
		Users: []string{"U0MEMBER"}, Model: "haiku", MentionOnly: true,
	}
	t.Run("a member sees them", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, s)
		f := w.config(member)
		if !has(f.text(), "acme/app", "Model: Haiku", ">Be &lt;short&gt;.", "Variables: _set_", "Longest turn: 1h, as by default", "<@U0MEMBER>", "Replies count only") {
			t.Errorf("the modal shows %s", f.text())
		}
		if has(f.text(), "NPM_TOKEN") || has(f.text(), "a-value") || f.view["submit"] != nil {
			t.Errorf("the modal shows too much: %s", f.text())
		}
	})
	t.Run("one who is named changes them", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		mine := s
		mine.Admins = []string{"U0MEMBER"}
		w.set(general, mine)
		w.config(member).press(actionPage, "access")
		f := w.opened(member, "Who may, and how much")
		if has(f.text(), "admins@") || has(f.text(), "budget_usd@") {
			t.Errorf("they can name others, or how much may be spent: %s", f.text())
		}
		f.submit(map[string]map[string]any{"users": persons()})
		if got := w.settingsOf(general); len(got.Users) != 0 || len(got.Admins) != 1 {
			t.Errorf("settings = %+v", got)
		}
	})
	t.Run("one who is not named any more changes nothing", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{Admins: []string{"U0MEMBER"}})
		f := w.config(member)
		w.set(general, sessions.Settings{Version: 2})
		if no := f.submit(map[string]map[string]any{"instructions": typed("mine")}); no["instructions"] != sayMayNotChange {
			t.Errorf("errors = %v", no)
		}
		if got := w.settingsOf(general); got.Instructions != "" {
			t.Errorf("settings = %+v", got)
		}
	})
	t.Run("a button that opens nothing says why", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{Admins: []string{"U0MEMBER"}})
		f := w.config(member)
		w.sessions.set(func(f *fakeSessions) { f.away = true })
		f.press(actionPage, "access")
		w.until("why", func() bool { return has(w.whispered(member, general, ""), sayTrouble) })
		w.sessions.set(func(f *fakeSessions) { f.away = false })
		w.set(general, sessions.Settings{Version: 2})
		f.press(actionPage, "access")
		w.until("why", func() bool { return has(w.whispered(member, general, ""), sayMayNotChange) })
	})
	t.Run("those of a channel where one is not stay closed", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		if got := w.command(guest, "config"); !has(got, sayNotYou) {
			t.Errorf("/flaude config = %s", got)
		}
		if got := w.command(member, "config <#C0NOWHERE|nowhere>"); !has(got, sayNotThere) {
			t.Errorf("/flaude config #nowhere = %s", got)
		}
		if got := w.command(member, "config what"); !has(got, "Which channel do you mean?") {
			t.Errorf("/flaude config what = %s", got)
		}
	})
	t.Run("when the store is away that is said", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		f := w.config(admin)
		w.sessions.set(func(f *fakeSessions) { f.away = true })
		if no := f.submit(map[string]map[string]any{"instructions": typed("mine")}); no["instructions"] != sayTrouble {
			t.Errorf("errors = %v", no)
		}
		if got := w.command(admin, "config"); !has(got, sayTrouble) {
			t.Errorf("/flaude config = %s", got)
		}
	})
}

// TestConfigFields: what a field shows is read again as what it was, and every choice is one that can be saved.
func TestConfigFields(t *testing.T) {
	t.Parallel()
	for _, p := range pages() {
		for _, in := range p.inputs {
			for _, o := range in.options {
				var s sessions.Settings
				if err := in.set(&s, []string{o.value}); err != nil {
					t.Errorf("%s = %q: %v", in.field, o.value, err)
				}
				if err := s.Check(nil); err != nil {
					t.Errorf("%s = %q: %v", in.field, o.value, err)
				}
				if got := in.get(s); len(got) != 1 || got[0] != o.value {
					t.Errorf("%s = %q is shown as %q", in.field, o.value, got)
				}
			}
		}
	}
	for text, want := range map[string]string{"0": "0", "24h": "1d", "1h30m": "1h30m", "90s": "1m30s", "2h": "2h", "7d": "7d", "1d12h": "36h", " 30 m": "30m", "1D": "1d"} {
		d, err := spanOf(strings.TrimSpace(text))
		if err != nil || spanText(d) != want {
			t.Errorf("spanOf(%q) = %v, %v, want %s", text, spanText(d), err, want)
		}
	}
	for _, text := range []string{"soon", "d", "-1h", "1", "99999d", "1w"} {
		if d, err := spanOf(text); err == nil {
			t.Errorf("spanOf(%q) = %v, want an error", text, *d)
		}
	}
	for text, want := range map[string]string{
		"": "", "none": "none", "acme/app": "acme/app", "acme/app#dev=code": "acme/app#dev=code", "https://github.com/acme/app/tree/dev/x": "acme/app#dev/x",
		"https://github.com/acme/app.git": "acme/app.git", "git@git.example:x/y.git": "git@git.example:x/y.git", "a/b, c/d": "a/b\nc/d",
	} {
		repos, err := sessions.ParseRepos(text)
		if err != nil || reposText(repos) != want {
			t.Errorf("ParseRepos(%q) = %q, %v, want %q", text, reposText(repos), err, want)
		}
	}
}
