package bot

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// modalState is a modal as Slack gets it, and what it then says of what was filled in.
type modalState struct {
	View   slack.ModalViewRequest `json:"view"`
	Errors map[string]string      `json:"errors,omitempty"`
}

// TestViews shows every modal in every state that it can be in: testdata/views.json is what people see (FLAUDEBOT_TEST_UPDATE=1 writes it
// anew), and Slack's checker takes each of them.
func TestViews(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	id := fmt.Sprint(w.config(admin).view["id"])
	takes := func(name string, v slack.ModalViewRequest) {
		t.Helper()
		if _, err := w.bot.api.UpdateViewContext(t.Context(), v, "", "", id); err != nil {
			var bad slack.SlackErrorResponse
			if errors.As(err, &bad) {
				err = fmt.Errorf("%w: %v", err, bad.ResponseMetadata.Messages)
			}
			t.Errorf("%s: Slack refuses it: %v", name, err)
		}
	}
	got := w.modals()
	for name, v := range got {
		takes(name, v.View)
	}
	goldenFile(t, filepath.Join("testdata", "views.json"), got)
	for name, v := range w.fullModals() {
		takes(name, v)
	}
}

// allSet are settings of which each is another than by default.
func allSet() sessions.Settings {
	return sessions.Settings{
		Repos:        []runner.Repo{{URL: "https://github.com/acme/app", Branch: "dev"}, {URL: "https://git.example/x/<lib>.git"}},
		SetUp:        "npm ci\nnpx playwright install <chromium>",
		Env:          map[string]string{"NODE_ENV": "test", "GREETING": "<!here> & *you*"},
		Secrets:      []string{"NPM_TOKEN", "SENTRY_DSN"},
		Instructions: "Be short.\nWrite tests for <everything>.",
		Model:        "claude-opus-4-8", Fallback: "sonnet,haiku", Effort: "high",
		AllowedTools: []string{"Edit", "Bash(git log *)"}, PermissionMode: runner.ModePlan, Hosts: []string{"pypi.org", "*.npmjs.org"}, Trust: true, MCP: `{"mcpServers": {"docs": {"command": "docs"}}}`,
		Guest: sessions.Guest{CPUKind: "shared", CPUs: 3, MemoryMB: 1536}, Region: "fra", VolumeGB: 20,
		TTL: new(36 * time.Hour), Linger: new(time.Duration(0)), Timeout: new(90 * time.Minute), BudgetUSD: new(250.0),
		MentionOnly: true, Users: []string{"U0MEMBER", "S0TEAM", "S0GONE"}, Admins: []string{"U0MEMBER"},
		Overrides: []sessions.Override{sessions.OverrideModel, sessions.OverrideVolume},
		Version:   3, ChangedBy: "U0ADMIN", ChangedAt: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
	}
}

// modals are all modals, by who makes them, in all their states.
func (w *workspace) modals() map[string]modalState {
	w.t.Helper()
	out := map[string]modalState{}
	add := func(name string, v slack.ModalViewRequest, errors map[string]string) {
		out[name] = modalState{v, errors}
	}
	w.settingsModals(add)
	pullModals(add)
	w.sessionModals(add)

	about := errandTurn(runner.Errand{Kind: runner.ErrandDiff, Of: "T:C:1.2"}, sayShowDiff)
	about.Errand.Private = true
	fetched := func(kind runner.ErrandKind, o sessions.Outcome) slack.ModalViewRequest {
		turn := about
		turn.Errand = &sessions.Errand{Errand: runner.Errand{Kind: kind, Of: "T:C:1.2"}, Private: true}
		a := w.bot.errandAnswer(session("1.2"), turn, o, false)
		a.title = changesTitle
		return modal(a)
	}
	for name, v := range map[string]slack.ModalViewRequest{
		"changes, to come":             modal(answer{text: sayFetching, title: changesTitle}),
		"changes, behind another turn": modal(answer{text: sayErrandPlace(1), title: changesTitle}),
		"changes, a diff": fetched(runner.ErrandDiff, sessions.Outcome{
			Outcome: runner.Outcome{Changes: changed(1)}, Payload: []byte("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-<!here>\n+```<@U0ADMIN>\n+" + strings.Repeat("long ", 40) + "\n"),
		}),
		"changes, a long diff": fetched(runner.ErrandDiff, sessions.Outcome{
			Outcome: runner.Outcome{Changes: changed(1)}, Payload: []byte(strings.Repeat("+x\n", 30*maxDiffBlock)),
		}),
		"changes, no diff":          fetched(runner.ErrandDiff, sessions.Outcome{Outcome: runner.Outcome{Failure: sessions.FailNotUp, Error: "no machine <!here>"}}),
		"changes, files":            fetched(runner.ErrandChanges, sessions.Outcome{Outcome: runner.Outcome{Changes: changed(2, hostile())}}),
		"changes, many files":       fetched(runner.ErrandChanges, sessions.Outcome{Outcome: runner.Outcome{Changes: changed(150)}}),
		"changes, no files":         fetched(runner.ErrandChanges, sessions.Outcome{Outcome: runner.Outcome{Changes: changed(0, runner.Change{Path: "gone", State: runner.ChangeRemoved})}}),
		"changes, on their way":     modal(answer{text: sayIntoThread, title: changesTitle}),
		"details, of an old button": modal(answer{text: sayOldButton, title: "Details"}),
	} {
		add("modal, "+name, v, nil)
	}
	for name, d := range details() {
		add("modal, details "+name, modal(detailAnswer(d)), nil)
	}
	return out
}

// settingsModals are the modals of a channel's settings.
func (w *workspace) settingsModals(add func(string, slack.ModalViewRequest, map[string]string)) {
	ctx, set := w.t.Context(), allSet()
	add("pickView, where a channel is chosen", pickView(), nil)
	add("pickView, of a channel that is elsewhere", pickView(), map[string]string{"channel": sayNotThere})
	for _, p := range pages() {
		add("pageView, "+p.id+", as by default", w.bot.pageView(ctx, general, p, sessions.Settings{}, mayName), nil)
		add("pageView, "+p.id+", all set", w.bot.pageView(ctx, general, p, set, mayName), nil)
	}
	access, _ := pageOf(pageAccess)
	add("pageView, access, for who was named", w.bot.pageView(ctx, general, access, set, mayChange), nil)
	first := pages()[0]
	add("pageView, common, changed meanwhile", w.bot.pageView(ctx, general, first, set, mayChange), map[string]string{
		blockOf(first.inputs[0].field, first.inputs[0].get(set)): sayChangedMeanwhile("mira"),
		blockOf(first.inputs[2].field, first.inputs[2].get(set)): sayMayNotChange,
	})
	machine, _ := pageOf(pageMachine)
	wrong := map[string]string{}
	for _, in := range machine.inputs {
		if err := in.set(&sessions.Settings{}, []string{"-1"}); err != nil {
			wrong[blockOf(in.field, in.get(set))] = sentence(err.Error())
		}
	}
	add("pageView, machine, filled in wrongly", w.bot.pageView(ctx, general, machine, set, mayName), wrong)
	w.sessions.set(func(f *fakeSessions) { f.keyless = true })
	environment, _ := pageOf(pageEnvironment)
	add("pageView, environment, without a key for secrets", w.bot.pageView(ctx, general, environment, sessions.Settings{}, mayName), nil)
	w.sessions.set(func(f *fakeSessions) { f.keyless = false })
	add("comingView, of settings", comingView(w.bot.pageView(ctx, general, first, set, mayName)), nil)
	add("secretView, a new one", secretView(general, ""), nil)
	add("secretView, a new one that is there already", secretView(general, ""), map[string]string{secretName: saySecretThere})
	add("secretView, one too many", secretView(general, ""), map[string]string{secretName: sayManySecrets})
	add("secretView, one that is there", secretView(general, "NPM_TOKEN"), nil)
	add("shownView, as by default", w.bot.shownView(general, sessions.Settings{}), nil)
	add("shownView, all set", w.bot.shownView(general, set), nil)
}

// pullModals are those that ask what a pull request is to be.
func pullModals(add func(string, slack.ModalViewRequest, map[string]string)) {
	s := session("1.2")
	s.Repos = []runner.Repo{{URL: "https://github.com/acme/app", Branch: "dev"}, {URL: "https://github.com/acme/lib"}}
	app, lib := runner.RepoState{Dir: "app", Branch: "dev", Changed: 2, Unpushed: 1}, runner.RepoState{Dir: "lib", Branch: "fix-it", Unpushed: 3}
	title, body := "Mend the <login> test", "It waited for *one* second.\n\nNow it waits for the event."
	add("pullView, of one repository", pullView(pullRequest, s, []runner.RepoState{lib}, title, body), nil)
	add("pullView, of what is not committed", pullView(pullRequest, s, []runner.RepoState{{Dir: "app", Branch: "dev", Changed: 1}}, title, ""), nil)
	add("pullView, of what is pushed", pullView(pullRequest, s, []runner.RepoState{{Dir: "app", Branch: "dev"}}, title, ""), nil)
	add("pullView, of several repositories", pullView(pullRequest, s, []runner.RepoState{app, lib}, sayUntitled, body), nil)
	add("pullView, filled in wrongly", pullView(pullRequest, s, []runner.RepoState{lib}, title, body), map[string]string{"title": sayNoTitle, "branch": sayNoBranch})
	add("pullView, with one branch twice", pullView(pullRequest, s, []runner.RepoState{lib}, title, body), map[string]string{"branch": saySameBranch})
}

// sessionModals are those of “Manage this session”.
func (w *workspace) sessionModals(add func(string, slack.ModalViewRequest, map[string]string)) {
	ctx, s := w.t.Context(), session("1.2")
	running := sessions.Turn{ID: "T:C:1.2", Kind: sessions.KindTurn, User: "U0MEMBER", Text: "*fix* &lt;it&gt;"}
	much := s
	much.About, much.Repos = "fix the <login> test", []runner.Repo{{URL: "https://github.com/acme/app", Branch: "dev"}, {URL: "https://git.example/x/lib.git"}}
	much.Guest, much.VolumeGB, much.InUse = sessions.Guest{CPUKind: "shared", CPUs: 4, MemoryMB: 8192}, 20, inUseOfAll()
	none := s
	none.Repos, none.MachineID, none.Region = []runner.Repo{}, "", ""
	show := func(name string, st sessions.Status, muted bool, said answer) {
		w.sessions.set(func(f *fakeSessions) {
			f.statuses, f.muted = map[sessions.Thread]sessions.Status{s.Thread: st}, map[sessions.Thread]map[string]bool{s.Thread: {"1": muted}}
		})
		add("modalOf, "+name, modalOf(s.Thread, w.bot.withState(ctx, s.Thread, said)), nil)
	}
	show("an idle session", sessions.Status{Session: &none}, false, answer{})
	show("a session at work", sessions.Status{
		Session: &much, Running: &running, Queued: []sessions.Turn{running, {Kind: sessions.KindTurn, User: "U0ADMIN", Files: make([]sessions.Attachment, 2)}},
	}, false, answer{})
	show("a turn before there is a session", sessions.Status{Running: &running}, false, answer{})
	show("one that is being ended", sessions.Status{Session: &s, Running: &sessions.Turn{Kind: sessions.KindEnd}}, false, answer{})
	show("muted just now", sessions.Status{Session: &much}, true, plainly(sayMuted))
	show("stopped just now", sessions.Status{Session: &much}, false, plainly(sayStopping))
	show("none", sessions.Status{}, false, answer{})
	lost := unpushed()
	w.sessions.set(func(f *fakeSessions) {
		f.statuses = map[sessions.Thread]sessions.Status{s.Thread: {Session: &lost}}
	})
	asked, err := w.bot.end(ctx, s.Thread, lost.Owner, "", false)
	if err != nil {
		w.t.Fatal(err)
	}
	add("modalOf, asked before work is lost", modalOf(s.Thread, w.bot.withState(ctx, s.Thread, asked)), nil)
	w.sessions.set(func(f *fakeSessions) { f.away = true })
	add("modalOf, out of reach", modalOf(s.Thread, w.bot.managed(ctx, s.Thread)), nil)
	w.sessions.set(func(f *fakeSessions) { f.away, f.statuses = false, nil })
}

// fullModals hold as much as they may.
func (w *workspace) fullModals() map[string]slack.ModalViewRequest {
	long := strings.Repeat("é<&", 2000)
	s := allSet()
	s.Secrets, s.Env = nil, map[string]string{}
	for i := range maxSecrets {
		s.Secrets = append(s.Secrets, fmt.Sprintf("%s_%d", strings.Repeat("S", 120), i))
		s.Env[fmt.Sprintf("%s_%d", strings.Repeat("E", 120), i)] = long
	}
	s.Instructions, s.SetUp, s.MCP, s.Fallback, s.Model = long, long, long, long, strings.Repeat("m", 150)
	s.AllowedTools = strings.Split(strings.Repeat("Bash(git log *)\n", 500), "\n")
	s.Repos = nil
	for i := range 60 {
		s.Repos = append(s.Repos, runner.Repo{URL: fmt.Sprintf("https://github.com/acme/%s%d", strings.Repeat("r", 90), i), Branch: strings.Repeat("b", 200)})
	}
	for i := range 200 {
		s.Users, s.Admins = append(s.Users, fmt.Sprint("U0", i), fmt.Sprint("S0", i)), append(s.Admins, fmt.Sprint("U1", i))
	}
	out := map[string]slack.ModalViewRequest{"full, shown": w.bot.shownView(general, s)}
	for _, p := range pages() {
		out["full, "+p.id] = w.bot.pageView(w.t.Context(), general, p, s, mayName)
	}
	states := make([]runner.RepoState, 60)
	work := session("1.2")
	work.Repos, work.About, work.InUse = s.Repos, long, inUseOfAll()
	for i := range states {
		states[i] = runner.RepoState{Dir: s.Repos[i].Folder(), Branch: strings.Repeat("b", 200), Changed: 1 << 20, Unpushed: 1 << 20}
	}
	out["full, several repositories"] = pullView(pullRequest, work, states, long, long)
	out["full, one repository"] = pullView(pullRequest, work, states[:1], long, long)
	out["full, secret"] = secretView(general, s.Secrets[0])
	st := sessions.Status{Session: &work, Running: &sessions.Turn{Kind: sessions.KindTurn, User: "U0MEMBER", Text: long}}
	for range 100 {
		st.Queued = append(st.Queued, *st.Running)
	}
	w.sessions.set(func(f *fakeSessions) { f.statuses = map[sessions.Thread]sessions.Status{work.Thread: st} })
	out["full, session"] = modalOf(work.Thread, w.bot.managed(w.t.Context(), work.Thread))
	full := details()["of a turn"]
	full.Model, full.Tools = long, nil
	for range 500 {
		full.Tools = append(full.Tools, runner.ToolUse{Tool: strings.Repeat("t", maxDetailName), Times: 1 << 30})
	}
	out["full, details"] = modal(detailAnswer(full))
	maps.Copy(out, map[string]slack.ModalViewRequest{
		"full, diff":  modal(diffAnswer(errandTurn(runner.Errand{Of: "T:C:1.2"}, ""), sessions.Outcome{Outcome: runner.Outcome{Changes: changed(1)}, Payload: []byte(strings.Repeat(long, 40))})),
		"full, files": modal(filesAnswer(errandTurn(runner.Errand{Of: "T:C:1.2"}, ""), changed(5000, hostile()))),
	})
	return out
}

// inUseOfAll is what a turn ran with of which everything was set.
func inUseOfAll() *sessions.InUse {
	return &sessions.InUse{
		Fallback: "sonnet", TimeoutSeconds: 1800, LingerSeconds: 60, Env: []string{"NODE_ENV"},
		Model: "opus", Effort: "high", PermissionMode: "plan", AllowedTools: []string{"Edit"}, MCPServers: []string{"a", "b"}, Secrets: []string{"A"}, Instructions: true, SetUp: true, Trust: true,
	}
}
