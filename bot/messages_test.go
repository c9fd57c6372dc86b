package bot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// shown is a message as Slack gets it.
type shown struct {
	Text   string        `json:"text"`
	Blocks []slack.Block `json:"blocks,omitempty"`
}

// TestMessages shows every message of a turn, in every state that it can be in: testdata/messages.json is what people
// see (FLAUDEBOT_TEST_UPDATE=1 writes it anew), and Slack's checker takes each of them.
func TestMessages(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	got := w.messages()
	for name, messages := range got {
		thread := sessions.Thread{Team: team, Channel: general, TS: w.say(member, general, "", name)}
		for i, m := range messages {
			opts := []slack.MsgOption{slack.MsgOptionText(m.Text, false)}
			if len(m.Blocks) > 0 {
				opts = append(opts, slack.MsgOptionBlocks(m.Blocks...))
			}
			if _, err := w.bot.post(t.Context(), thread, opts...); err != nil {
				t.Errorf("%s, message %d: Slack refuses it: %v", name, i+1, err)
			}
			for _, bad := range []string{"<!here>", "<!channel>", "<@U0ADMIN>"} {
				if strings.HasPrefix(name, "answer") && has(w.text(m), bad) {
					t.Errorf("%s, message %d can ping: %s", name, i+1, bad)
				}
			}
		}
	}
	goldenFile(t, filepath.Join("testdata", "messages.json"), got)
}

// messages are all messages in all their states.
func (w *workspace) messages() map[string][]shown {
	got := map[string][]shown{}
	for name, m := range liveStates() {
		got["live, "+name] = []shown{m}
	}
	for name, parts := range outcomes(w.bot) {
		for _, p := range parts {
			got["answer, "+name] = append(got["answer, "+name], shown{p.fallback(), p.blocks()})
		}
	}
	for name, s := range notes() {
		got["note, "+name] = []shown{{Text: s}}
	}
	for name, a := range answers() {
		got["told, "+name] = []shown{{a.text, a.blocks}}
	}
	return got
}

// goldenFile compares messages with those of a file.
func goldenFile(t *testing.T, file string, got any) {
	t.Helper()
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	have := shorten(parse(t, raw))
	if os.Getenv("FLAUDEBOT_TEST_UPDATE") != "" {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(have); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err = os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parse(t, raw), have); diff != "" {
		t.Errorf("people see something else (-want +got):\n%s", diff)
	}
}

func parse(t *testing.T, raw []byte) any {
	t.Helper()
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// shorten keeps the beginning and the length of long texts.
func shorten(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = shorten(e)
		}
	case []any:
		for i, e := range v {
			v[i] = shorten(e)
		}
	case string:
		if n := utf8.RuneCountInString(v); n > 2000 {
			return string([]rune(v)[:60]) + fmt.Sprintf(" … (%d characters) … ", n) + string([]rune(v)[n-60:])
		}
	}
	return v
}

func liveStates() map[string]shown {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	turn := sessions.Turn{ID: "T:C:1.2", Kind: sessions.KindTurn}
	todos := func(n int) []runner.Todo {
		var out []runner.Todo
		for i := range n {
			out = append(out, runner.Todo{Text: fmt.Sprint("step ", i+1), State: []string{"completed", "in_progress", "pending"}[min(i, 2)]})
		}
		return out
	}
	out := map[string]shown{}
	for name, p := range map[string]sessions.Progress{
		"claimed":           {Step: sessions.StepClaimed, Since: now},
		"a machine is made": {Step: sessions.StepCreating, Since: now.Add(-7 * time.Second)},
		"the machine wakes": {Step: sessions.StepWaking, Since: now.Add(-12 * time.Second)},
		"waiting":           {Step: sessions.StepWaiting, Since: now.Add(-70 * time.Second), Note: "Fly has no room in <fra>; trying again"},
		"waiting until a known time": {
			Step: sessions.StepWaiting, Since: now.Add(-70 * time.Second), Note: "Claude's usage limit is reached: this goes on by itself when it resets", Until: now.Add(2 * time.Hour),
		},
		"cloning":                      {Step: sessions.StepCloning, Since: now},
		"setting up":                   {Step: sessions.StepSetUp, Since: now.Add(-20 * time.Second)},
		"working":                      {Step: sessions.StepRunning, Since: now.Add(-59 * time.Second), Model: "claude-opus"},
		"working with a tool":          {Step: sessions.StepRunning, Since: now.Add(-2 * time.Minute), Tool: "Bash", On: "echo `id` <!here> && sleep 1"},
		"working with a server's tool": {Step: sessions.StepRunning, Since: now, Tool: "mcp__docs__search", On: "rate limits", Said: "I look that up."},
		"working with another tool":    {Step: sessions.StepRunning, Since: now, Tool: "<Odd>"},
		"working and talking":          {Step: sessions.StepRunning, Since: now.Add(-2 * time.Hour), Said: "I ask <@U0ADMIN> & <!channel>"},
		"working with a list":          {Step: sessions.StepRunning, Since: now, Todos: todos(3)},
		"working with a long list":     {Step: sessions.StepRunning, Since: now, Todos: todos(15)},
		"working on something long":    {Step: sessions.StepRunning, Since: now, Tool: "Write", On: strings.Repeat("very/long/", 100)},
		"stopping, without its button": {Step: sessions.StepStopping, Since: now},
		"answering":                    {Step: sessions.StepPosting, Since: now},
	} {
		text, blocks := liveMessage(turn, p, now)
		out[name] = shown{text, blocks}
	}
	for _, tool := range []string{
		"Read", "Edit", "Grep", "Glob", "WebFetch", "WebSearch", "Task", "BashOutput", "KillShell", "Skill", "git commit", "pull request", "merge request",
	} {
		text, blocks := liveMessage(turn, sessions.Progress{Step: sessions.StepRunning, Since: now, Tool: tool, On: "app/*.go"}, now)
		out["working with "+tool] = shown{text, blocks}
	}
	for name, p := range map[string]sessions.Progress{
		"errand, the machine wakes": {Step: sessions.StepWaking, Since: now.Add(-12 * time.Second)},
		"errand, at work":           {Step: sessions.StepRunning, Since: now.Add(-20 * time.Second), Tool: "git push", On: "flaudebot/fix"},
	} {
		text, blocks := liveMessage(errandTurn(runner.Errand{}, "Open a pull request"), p, now)
		out[name] = shown{text, blocks}
	}
	return out
}

// published are the ends of an attempt at a pull request.
func published() map[string]runner.Outcome {
	branch := []runner.Branch{{Dir: "app", Name: "fix", URL: "https://github.com/acme/app/tree/fix"}}
	pull := runner.Pull{Dir: "app", Number: "12", URL: "https://github.com/acme/app/pull/12"}
	there := pull
	there.Existed = true
	out := map[string]runner.Outcome{
		"open":             {Pulls: []runner.Pull{pull}, Branches: branch},
		"open before":      {Pulls: []runner.Pull{there}, Branches: branch},
		"at GitLab":        {Pulls: []runner.Pull{{Dir: "app", Number: "5", URL: "https://gitlab.com/acme/app/-/merge_requests/5"}}},
		"not, and pushed":  {Failure: runner.FailForge, Error: "github.com answers 422: Validation Failed", Branches: branch, NewPull: "https://github.com/acme/app/compare/main...fix?expand=1"},
		"not, unknown":     {Failure: runner.FailNoForge, Branches: []runner.Branch{{Dir: "app", Name: "fix"}}},
		"not, in trouble":  {Failure: runner.FailRemote, Error: "github.com answers 503", Branches: branch, NewPull: "https://github.com/acme/app/compare/main...fix?expand=1"},
		"not, not even up": {Failure: sessions.FailCapacity},
	}
	for _, f := range []sessions.Failure{runner.FailNothing, runner.FailNoToken, runner.FailNoRight, runner.FailProtected, runner.FailTaken, runner.FailRemote, runner.FailErrand} {
		out["not pushed, "+string(f)] = runner.Outcome{ExitCode: 1, Failure: f, Error: "push: what Git said <!here>"}
	}
	return out
}

// rescued are the ends of a push of all that is nowhere else.
func rescued() map[string]runner.Outcome {
	branch := []runner.Branch{{Dir: "app", Name: "flaudebot/saved-5f0c1d2e", URL: "https://github.com/acme/app/tree/flaudebot/saved-5f0c1d2e"}}
	left := []runner.RepoState{{Dir: "app", Unpushed: 2}}
	return map[string]runner.Outcome{
		"all":           {Branches: branch, Repos: []runner.RepoState{{Dir: "app"}}},
		"nothing":       {Repos: []runner.RepoState{{Dir: "app"}}},
		"not all known": {Branches: branch, Repos: []runner.RepoState{{Dir: "lib", Unknown: true}}},
		"no right":      {Failure: runner.FailNoRight, Error: "app: push: 403", Repos: left},
		"no token":      {Failure: runner.FailNoToken, Error: "app: push: could not read Username", Repos: left},
		"no host":       {Failure: runner.FailRemote, Error: "app: push: could not resolve host", Repos: left},
		"no machine":    {Failure: sessions.FailNotUp, Repos: left},
		"something":     {Failure: runner.FailErrand, Error: "app: commit: something", Branches: branch, Repos: left},
	}
}

// errandTurn is an errand that the member asks for.
func errandTurn(e runner.Errand, what string) sessions.Turn {
	return sessions.Turn{
		ID: "T:C:errand-1.2", Kind: sessions.KindErrand, User: "U0MEMBER", TS: "errand-1.2", Text: what, Thread: session("1.2").Thread,
		Errand: &sessions.Errand{Errand: e},
	}
}

func outcomes(b *Bot) map[string][]part {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	turn := sessions.Turn{ID: "T:C:1.2", Kind: sessions.KindTurn}
	make1 := func(answer string, code int, f sessions.Failure, err string) []part {
		return b.parts(session("1.2"), turn, sessions.Outcome{
			Outcome: runner.Outcome{ExitCode: code, Failure: f, Error: err, StartedAt: at, EndedAt: at.Add(61 * time.Second), CostUSD: 0.1234, Model: "claude-opus-4-8", Usage: &runner.Usage{Input: 1234, Output: 567, CacheRead: 38282, Steps: 4}, Tools: []runner.ToolUse{{Tool: "Bash", Times: 3}, {Tool: "mcp__docs__<search>", Times: 1}}},
			Answer:  answer, Number: 3, Claimed: at.Add(-time.Minute),
		}, false, maxParts)
	}
	out := map[string][]part{
		"short":            make1("**Done**: see `main.go`", 0, runner.FailNone, ""),
		"empty":            make1(" \n", 0, runner.FailNone, ""),
		"that would ping":  make1("<!here> <!channel> <@U0ADMIN> <https://evil.example|bank>", 0, runner.FailNone, ""),
		"in two messages":  make1(strings.Repeat("word ", 1500)+"\n\n"+strings.Repeat("more ", 1500), 0, runner.FailNone, ""),
		"as a file":        make1(strings.Repeat("a paragraph\n\n", 8000), 0, runner.FailNone, ""),
		"that is no UTF-8": make1("caf\xe9", 0, runner.FailNone, ""),
		"stopped for good": b.parts(session("1.2"), turn, sessions.Outcome{
			Outcome: runner.Outcome{ExitCode: 130, Failure: runner.FailStopped, StartedAt: at, EndedAt: at.Add(time.Second)}, Number: 3,
		}, true, maxParts),
		"with something that was not allowed": b.parts(session("1.2"), turn, sessions.Outcome{Answer: "I could not do all of it.", Outcome: runner.Outcome{
			StartedAt: at, EndedAt: at.Add(time.Second), Denied: []runner.Denied{
				{Tool: "Bash", On: "rm -rf `pwd` <!here>"}, {Tool: "Write", On: "a.txt"}, {Tool: "mcp__docs__search"}, {Tool: "Edit"}, {Tool: "Edit"}, {Tool: "Edit"},
			},
		}, Number: 3}, false, maxParts),
		"with hosts that were not reached": b.parts(session("1.2"), turn, sessions.Outcome{Answer: "I could not install it.", Outcome: runner.Outcome{
			StartedAt: at, EndedAt: at.Add(time.Second), Unreached: []string{"files.pythonhosted.org", "evil`<!here>"},
		}, Number: 3}, false, maxParts),
		"with what it made": b.parts(session("1.2"), turn, sessions.Outcome{Answer: "See the pull request.", Number: 3, Outcome: runner.Outcome{
			StartedAt: at, EndedAt: at, Repos: []runner.RepoState{{Dir: "app"}, {Dir: "lib"}},
			Pulls: []runner.Pull{
				{Dir: "app", Number: "12", URL: "https://github.com/acme/app/pull/12"}, {Dir: "lib", Number: "5", URL: "https://gitlab.com/acme/lib/-/merge_requests/5"},
			},
			Branches: []runner.Branch{
				{Dir: "app", Name: "fix", URL: "https://github.com/acme/app/tree/fix"},
				{Dir: "lib", Name: "a-<name>-" + strings.Repeat("x", 100), URL: "https://gitlab.com/acme/lib/-/tree/x"},
				{Dir: "lib", Name: "<else>where"},
			},
		}}, false, maxParts),
		"half done": make1("I began", 137, runner.FailKilled, "signal: killed"),
	}
	for _, f := range []sessions.Failure{
		runner.FailClaude, runner.FailStopped, runner.FailTimeout, runner.FailCredentials, runner.FailLimit, runner.FailAPI, runner.FailClone, runner.FailSetUp, runner.FailSettings,
		runner.FailTranscript, runner.FailDisk, runner.FailStart, runner.FailKilled, runner.FailInterrupted, sessions.FailMachine, sessions.FailNotUp, sessions.FailMemory,
		sessions.FailCapacity, sessions.FailQuota, sessions.FailPayment, sessions.FailHost, sessions.FailFly, sessions.FailFlyAccess, sessions.FailLost, sessions.FailForgotten,
		runner.FailNoPrompt,
		runner.FailFile, runner.FailRepos, runner.FailHandover, sessions.FailTooMuch,
		sessions.FailRepeated, sessions.FailEnded, sessions.FailSlack, sessions.FailGone,
		sessions.FailStuck, sessions.FailRecord,
	} {
		out["failure "+string(f)] = make1("", 1, f, "what it said <!here>\nin two lines")
	}
	for name, o := range map[string]sessions.Outcome{
		"memory, with more to be had": {Outcome: runner.Outcome{ExitCode: 137, Failure: sessions.FailMemory}, Larger: &sessions.Larger{Guest: sessions.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 8192}}},
		"memory, with a little more":  {Outcome: runner.Outcome{ExitCode: 137, Failure: sessions.FailMemory}, Larger: &sessions.Larger{Guest: sessions.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 1536}}},
		"disk, with more to be had":   {Outcome: runner.Outcome{ExitCode: 1, Failure: runner.FailDisk}, Larger: &sessions.Larger{VolumeGB: 2}},
		"a turn's budget":             broke(sessions.BoundTurn, 2.03),
		"a thread's budget":           broke(sessions.BoundThread, 1.5),
		"a person's budget":           broke(sessions.BoundPerson, 1.5),
		"a channel's budget":          broke(sessions.BoundChannel, 1.5),
		"the budget of all":           broke(sessions.BoundAll, 0),
		"a budget raised meanwhile":   {Outcome: runner.Outcome{ExitCode: 130, Failure: runner.FailBudget}},
	} {
		o.StartedAt, o.EndedAt, o.Number = at, at.Add(time.Second), 3
		out["failure "+name] = b.parts(session("1.2"), turn, o, false, maxParts)
	}
	single, spent := turn, broke(sessions.BoundAll, 1.5)
	single.Kind, spent.StartedAt, spent.EndedAt, spent.Number = sessions.KindOnce, at, at.Add(time.Second), 1
	out["failure a single run's budget"] = b.parts(session("1.2"), single, spent, false, maxParts)
	out["near a budget's end"] = b.parts(session("1.2"), turn, sessions.Outcome{
		Outcome: runner.Outcome{StartedAt: at, EndedAt: at.Add(61 * time.Second), CostUSD: 0.1234}, Answer: "I did it.", Number: 3,
		Budget: &sessions.Budget{Bound: sessions.BoundChannel, USD: 50, SpentUSD: 41.2},
	}, false, maxParts)
	look := errandTurn(runner.Errand{Kind: runner.ErrandState}, "Look what is not pushed")
	for _, f := range []sessions.Failure{
		runner.FailStopped, sessions.FailEnded, runner.FailTimeout, runner.FailHandover, sessions.FailMachine, sessions.FailNotUp, sessions.FailFlyAccess, sessions.FailPayment,
		sessions.FailLost, runner.FailErrand,
	} {
		out["errand failure "+string(f)] = b.parts(session("1.2"), look, sessions.Outcome{Outcome: runner.Outcome{ExitCode: 1, Failure: f, Error: "what it said <!here>"}}, false, maxParts)
	}
	for name, repos := range map[string][]runner.RepoState{"all is pushed": {{Dir: "repo"}}, "not all is pushed": {{Dir: "repo", Changed: 2}}} {
		out["errand, "+name] = b.parts(session("1.2"), look, sessions.Outcome{Outcome: runner.Outcome{Repos: repos}}, false, maxParts)
	}
	with := func(c *runner.Changes) []part {
		return b.parts(session("1.2"), turn, sessions.Outcome{
			Outcome: runner.Outcome{StartedAt: at, EndedAt: at.Add(61 * time.Second), CostUSD: 0.1234, Changes: c}, Answer: "I changed it.", Number: 3,
		}, false, maxParts)
	}
	out["that changed one file"] = with(changed(1))
	out["that changed many files"] = with(changed(400, hostile(),
		runner.Change{Path: "app/logo.png", State: runner.ChangeModified, Binary: true, Size: 20480}, runner.Change{Path: "new.go", Was: "old.go", State: runner.ChangeRenamed},
		runner.Change{Path: "gone.go", State: runner.ChangeRemoved, Removed: 7}, runner.Change{Path: "clone/", State: runner.ChangeAdded}))
	out["that changed what cannot be shown"] = with(&runner.Changes{Files: []runner.Change{{Path: "big", State: runner.ChangeRemoved, Binary: true}}, Total: 1, Partial: true})
	out["that was not shown a picture"] = b.parts(session("1.2"), turn, sessions.Outcome{
		Outcome: runner.Outcome{StartedAt: at, EndedAt: at, Unshown: []runner.Unshown{{Name: "fake.png", Why: "it is no PNG, JPEG, GIF or WebP picture"}}}, Answer: "I see nothing.", Number: 3,
	}, false, maxParts)
	out["that is cut short"] = b.parts(session("1.2"), turn, sessions.Outcome{
		Outcome: runner.Outcome{StartedAt: at, EndedAt: at}, Answer: strings.Repeat("a paragraph\n\n", 20000), Number: 3,
	}, false, maxPartsNoFile)
	out["that changed nothing"] = with(&runner.Changes{})
	get := func(e runner.Errand, c *runner.Changes, payload string, files int) []part {
		return b.parts(session("1.2"), errandTurn(e, "Fetch"), sessions.Outcome{Outcome: runner.Outcome{Changes: c}, Payload: []byte(payload)}, false, files)
	}
	out["errand, the diff as a file"] = get(runner.Errand{Kind: runner.ErrandDiff, Of: "T:C:1.2"}, changed(2), "diff", maxParts)
	out["errand, a file"] = get(runner.Errand{Kind: runner.ErrandGet, Of: "T:C:1.2", File: 1}, changed(0, hostile()), "x", maxParts)
	out["errand, a file of unknown name"] = get(runner.Errand{Kind: runner.ErrandGet, Of: "T:C:1.2", File: 1}, &runner.Changes{}, "x", maxParts)
	out["errand, an empty file"] = get(runner.Errand{Kind: runner.ErrandGet, Of: "T:C:1.2", File: 1}, changed(1), "", maxParts)
	out["errand, a file that Slack does not take"] = get(runner.Errand{Kind: runner.ErrandGet, Of: "T:C:1.2", File: 1}, changed(1), "x", maxPartsNoFile)
	out["errand, all files"] = get(runner.Errand{Kind: runner.ErrandGet, Of: "T:C:1.2"}, changed(3), "PK", maxParts)
	out["errand, all files that are there"] = get(runner.Errand{Kind: runner.ErrandGet, Of: "T:C:1.2"}, &runner.Changes{Files: changed(3).Files, Total: 9}, "PK", maxParts)
	for name, o := range published() {
		out["pull request, "+name] = b.parts(session("1.2"), errandTurn(runner.Errand{
			Kind: runner.ErrandPublish, Publish: &runner.Publish{Dir: "app", Branch: "flaudebot/`fix`"},
		}, sayOpenPull(pullRequest)), sessions.Outcome{Outcome: o}, false, maxParts)
	}
	for name, o := range rescued() {
		s := session("1.2")
		s.State = o.Repos
		turn := errandTurn(runner.Errand{Kind: runner.ErrandRescue}, saySaveThenEnd)
		turn.Errand.ThenEnd = true
		out["push, then end, "+name] = b.parts(s, turn, sessions.Outcome{Outcome: o}, false, maxParts)
	}
	for name, reason := range map[string]sessions.EndReason{"person": sessions.EndByPerson, "ttl": sessions.EndByTTL, "idle": sessions.EndByIdle} {
		s := session("1.2")
		s.EndReason = reason
		out["end by "+name] = b.parts(s, sessions.Turn{Kind: sessions.KindEnd}, sessions.Outcome{Destroyed: true}, false, maxParts)
	}
	much := session("1.2")
	much.EndReason, much.State = sessions.EndByIdle, []runner.RepoState{{Dir: "app", Changed: 2, Unpushed: 1}, {Dir: "lib"}, {Dir: "unknown", Unknown: true}}
	much.Did = sessions.Did{Worked: 83 * time.Minute, Files: []string{"a", "b"}, Pulls: []runner.Pull{
		{Dir: "app", Number: "12", URL: "https://github.com/acme/app/pull/12"}, {Dir: "lib", Number: "5", URL: "https://gitlab.com/acme/lib/-/merge_requests/5"},
	}}
	out["end with a summary"] = b.parts(much, sessions.Turn{Kind: sessions.KindEnd}, sessions.Outcome{Destroyed: true}, false, maxParts)
	out["end that is not through"] = b.parts(session("1.2"), sessions.Turn{Kind: sessions.KindEnd}, sessions.Outcome{
		Outcome: runner.Outcome{Failure: sessions.FailFly, Error: "503"},
	}, false, maxParts)
	out["end that was given up"] = b.parts(session("1.2"), sessions.Turn{Kind: sessions.KindEnd}, sessions.Outcome{
		Outcome: runner.Outcome{Failure: sessions.FailStuck},
	}, false, maxParts)
	return out
}

func details() map[string]detail {
	return map[string]detail{
		"of a turn": {
			Number: 3, Asked: 1777863721, Queued: 75, Woken: 12, Ran: 3725, CostUSD: 0.1234, Model: "claude-opus-4-8",
			Usage: &runner.Usage{Input: 1234, Output: 567, CacheRead: 1038282, Steps: 1041},
			Tools: []runner.ToolUse{{Tool: "Bash", Times: 1040}, {Tool: "mcp__docs__<search>", Times: 1}}, More: 2, Files: new(3), Added: 12, Removed: 4, Lane: runner.LaneStart,
		},
		"of a turn that was killed":          {Number: 1, Asked: 1777863721, ExitCode: 137, Lane: runner.LaneMachine},
		"of a turn on a machine that ran":    {Number: 2, Asked: 1777863721, Ran: 3, Lane: runner.LaneRunner},
		"of a turn of a process that waited": {Number: 2, Asked: 1777863721, Ran: 3, Lane: runner.LaneProcess},
	}
}

func notes() map[string]string {
	s := session("1.2")
	s.State = []runner.RepoState{{Dir: "repo", Changed: 1}, {Dir: "other", Changed: 2, Unpushed: 3, Unknown: true}}
	nowhere := func(code string) string { return sayNowhere(general, slack.SlackErrorResponse{Err: code}) }
	var prompts strings.Builder
	prompts.WriteString(suggestTitle)
	for _, p := range suggested() {
		prompts.WriteString("\n• *" + p.Title + "*: " + p.Message)
	}
	plain := sessions.InUse{}
	return map[string]string{
		"suggested prompts":           prompts.String(),
		"nowhere, the thread is gone": nowhere("thread_not_found"), "nowhere, archived": nowhere("is_archived"), "nowhere, removed": nowhere("not_in_channel"), "nowhere, not allowed": nowhere("restricted_action"),
		"foreign repository": sayForeignRepo("<evil>/x", []string{"`github.com/acme`", "`git.example`"}), "no named repositories": sayNoNamedRepos,
		"how to name a repository": sayHowToName([]string{"`github.com/acme`", "`git.example`"}),
		"branch of":                sayBranchOf("<dev>"), "no workspace": sayNoWorkspace(errors.New("two repositories are called <app>")),
		"no model": sayNoModel("<gpt>"), "no effort": sayNoEffort("<huge>"), "no volume size": sayVolumeSize,
		"invite me": sayInviteMe, "what to run": sayWhatToRun, "running": sayRunning, "run, its thread": sayRunsOnce("U0MEMBER", "count &lt;it&gt; <@U0ADMIN>"), "run over": sayRunOver,
		"unknown word": sayUnknownWord("&lt;!here&gt; frobnicate"), "again": sayAgain, "going on": sayGoingOn, "slack away": saySlackAway,
		"asked already": sayAskedAlready, "errand begins": sayErrandBegins, "errand behind one": sayErrandPlace(1), "errand behind several": sayErrandPlace(3), "kept on": sayKeptOn,
		"unread link, silent": sayUnreadLink("https://local.slack.com/archives/C1/p1", saySlackSilent), "many links": sayUnreadLink("https://local.slack.com/archives/C1/p1", sayManyLinks),
		"only in a file": sayOnlyInFile("answer-3.md"), "ran with the defaults": sayRanWith(plain), "none of the choices allowed": sayNotAllowed("the effort", []sessions.Override{sessions.OverrideVolume}),
		"ending with errands that wait": sayEnding(sessions.Ending{Dropped: []sessions.Turn{{Kind: sessions.KindErrand}, {Kind: sessions.KindTurn}}}),
		"help":                          sayHelp, "fetching": sayFetching, "into the thread": sayIntoThread, "empty": sayEmpty, "full": sayFull(sessions.BoundThread), "full, of a person": sayFull(sessions.BoundPerson), "full, in all": sayFull(sessions.BoundAll), "full, of a channel": sayFull(sessions.BoundChannel),
		"parked, of a person": sayParked(sessions.BoundPerson), "parked, of a channel": sayParked(sessions.BoundChannel), "one ahead": sayPlace(1), "three ahead": sayPlace(3), "ended": sayEnded,
		"may not allow": sayMayNotAllow(sessions.BoundTurn), "may not allow for all": sayMayNotAllow(sessions.BoundAll), "raised": sayRaised(), "allowed for somebody": sayAllowedFor("U0MEMBER"),
		"allowed more": sayAllowedMore("U0ADMIN", "U0MEMBER", sessions.BoundChannel), "allowed a person more": sayAllowedMore("U0ADMIN", "U0MEMBER", sessions.BoundPerson),
		"allowed a turn more": sayAllowedMore("U0ADMIN", "", sessions.BoundTurn), "allowed already": sayAllowedAlready(),
		"not you": sayNotYou, "wrong channel": sayWrongChannel, "not there": sayNotThere, "try again": sayTryAgain, "no session": sayNoSession,
		"nothing runs": sayNothingRuns, "stopping": sayStopping, "trouble": sayTrouble, "kept": sayKept, "old button": sayOldButton, "taken back": sayTakenBack, "muted": sayMuted, "now": sayNow, "under way": sayUnderway, "not next": sayNotNext, "unmuted": sayUnmuted, "edited at work": sayEditedRunning, "retry gone": sayRetryGone,
		"unread link":   sayUnreadLink("https://local.slack.com/archives/C1/p1?a=1&b=2", sayCannotSee),
		"refused files": sayRefusedFiles([]string{"a<b>.bin", "film.mp4"}, 2<<20), "not yours": sayNotYours("U0ADMIN"), "unpushed": sayUnpushed(s),
		"unpushed, and files": sayUnpushed(sessions.Session{Did: sessions.Did{Files: []string{"report.txt", "a`<b>.md", "c", "d"}}}),
		"unpushed, unknown":   sayUnpushed(sessions.Session{State: []runner.RepoState{{Dir: "repo", Unknown: true}}}),
		"settings not opened": saySettingsNotOpened, "settings changed meanwhile": sayChangedMeanwhile("mira"),
		"settings saved": saySaved([]string{"model", "instructions"}, []string{"region"}), "may not change": sayMayNotChange, "settings come": saySettingsCome, "which channel": sayNoChannel, "secret there": saySecretThere,
		"many secrets": sayManySecrets, "open settings": sayOpenSettings, "volume too late": sayVolumeLate, "not here": sayNotHere,
		"no override":        string(refusedOverride(sessions.Settings{}, sessions.Overrides{VolumeGB: 9})),
		"no override at all": string(refusedOverride(sessions.Settings{Overrides: []sessions.Override{}}, sessions.Overrides{Model: "opus"})),
		"none here":          sayNoneHere, "none of yours": sayNoneOfYours, "no link": sayNoLink, "list what": sayListWhat, "costs what": sayCostsWhat, "costs of all": sayCostsNotAll,
		"no costs": sayNoCosts(costsAsked{month: "2026-10", mine: true}), "no costs here": sayNoCosts(costsAsked{month: "2026-10"}),
		"ending":           sayEnding(sessions.Ending{}),
		"ending in a turn": sayEnding(sessions.Ending{Stopped: &sessions.Turn{}, Dropped: make([]sessions.Turn, 2)}),
		"kept until":       sayKeptUntil("U0ADMIN", time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)), "kept for good": sayKeptUntil("U0ADMIN", time.Time{}), "kept too late": sayKeptTooLate, "was removed": sayWasRemoved,
	}
}

// answers are what commands tell.
func answers() map[string]answer {
	s := listed{Session: session("1.2"), link: "https://local.example/archives/C0GENERAL/p1", busy: true}
	nameless := s
	s.InUse = &sessions.InUse{
		Fallback: "sonnet", TimeoutSeconds: 1800, LingerSeconds: 60,
		Model: "opus", Effort: "high", PermissionMode: "plan", AllowedTools: []string{"Edit"}, Hosts: []string{"pypi.org", "*.npmjs.org"}, MCPServers: []string{"a", "b"}, Secrets: []string{"A"}, Instructions: true, SetUp: true, Trust: true,
	}
	s.About, nameless.busy, nameless.link = "fix the <login> test & *go on*", false, ""
	running := sessions.Turn{ID: "T:C:1.2", Kind: sessions.KindTurn, User: "U0MEMBER", Text: "fix &lt;it&gt;"}
	st := sessions.Status{Session: &s.Session, Running: &running, Queued: []sessions.Turn{running, {Kind: sessions.KindTurn, User: "U0ADMIN", Files: make([]sessions.Attachment, 2)}}}
	about := errandTurn(runner.Errand{Kind: runner.ErrandDiff, Of: "T:C:1.2"}, sayShowDiff)
	s.EndsAt = time.Date(2026, 5, 11, 3, 2, 1, 0, time.UTC)
	s.Guest, s.VolumeGB = sessions.Guest{CPUKind: "shared", CPUs: 4, MemoryMB: 8192}, 20
	errands := sessions.Status{Running: &about}
	for _, what := range []string{sayShowFiles, sayFetchDiff, sayFetchAll, sayFetch("app/<x>.go")} {
		errands.Queued = append(errands.Queued, errandTurn(runner.Errand{}, what))
	}
	return map[string]answer{
		"a diff": diffAnswer(about, sessions.Outcome{Outcome: runner.Outcome{Changes: changed(1)}, Payload: []byte("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-<!here>\n+```<@U0ADMIN>\n")}),
		"a long diff": diffAnswer(about, sessions.Outcome{
			Outcome: runner.Outcome{Changes: changed(1)}, Payload: []byte(strings.Repeat("+"+strings.Repeat("x", 99)+"\n", 500)),
		}),
		"files to fetch":                        filesAnswer(about, changed(2, hostile())),
		"many files to fetch":                   filesAnswer(about, changed(150)),
		"no files to fetch":                     filesAnswer(about, changed(0, runner.Change{Path: "gone", State: runner.ChangeRemoved})),
		"yours is next":                         offerNow(running, sayNext(running)),
		"which repository":                      repoOffer(s.Thread, []runner.Repo{{URL: "https://github.com/acme/app", Branch: "dev"}, {URL: "https://git.example/x/y.git"}}),
		"the chosen one":                        plainly(sayGoingOnIn(runner.Repo{URL: "https://github.com/acme/app"})),
		"a list":                                rows("", []listed{s, nameless}, 3, false, "manage", "Manage"),
		"one's own":                             rows("", []listed{s}, 0, true, "manage", "Manage"),
		"a list of a channel that is elsewhere": rows(sayListOf(general), []listed{s}, 0, false, "manage", "Manage"),
		"costs": costTable{
			asked: costsAsked{month: "2026-05"}, channel: general, total: sessions.Cost{Turns: 3, ModelUSD: 1.2, MachineSeconds: 620, MachineUSD: 0.015, DiskGBDays: 4.2, DiskUSD: 0.02, TotalUSD: 1.235},
			sessions: []costRow{
				{sessions.Cost{Turns: 2, TotalUSD: 1.2}, aboutSession(s.Session), s.link}, {sessions.Cost{Turns: 1, TotalUSD: 0.001}, "", ""},
			}, more: 2, people: []sessions.Cost{{Person: "U0MEMBER", Turns: 3, TotalUSD: 1.235}},
		}.answer(),
		"costs of a direct message": costTable{asked: costsAsked{month: "2026-05"}, channel: "D0MEMBER", total: sessions.Cost{Turns: 1, ModelUSD: 0.2, TotalUSD: 0.2}}.answer(),
		"costs within budgets": costTable{
			asked: costsAsked{month: "2026-05"}, channel: "C1", total: sessions.Cost{Turns: 1, ModelUSD: 0.2, TotalUSD: 0.2},
			budgets: []string{"• " + sayBudget(sessions.Budget{Bound: sessions.BoundAll, USD: 500, SpentUSD: 12}, "U0MEMBER"), "• " + sayBudget(sessions.Budget{Bound: sessions.BoundPerson, USD: 50, SpentUSD: 8.5}, "U0MEMBER")},
		}.answer(),
		"costs of the workspace": costTable{
			asked: costsAsked{month: "2026-05", all: true}, total: sessions.Cost{TotalUSD: 0.002, DiskUSD: 0.002},
			channels: []sessions.Cost{{Thread: sessions.Thread{Team: team, Channel: general}, TotalUSD: 0.002}},
		}.answer(),
		"which to end":          rows("Which one?", []listed{s, nameless}, 0, false, "end", "End"),
		"a status with errands": plainly(strings.Join(statusLines(errands, false), "\n")),
		"nothing changed":       filesAnswer(about, &runner.Changes{}),
		"a late message":        offerLate("T:C:1.2"), "edited when it was done": offerEdited(s.Thread, "T:C:1.2"),
		"a status":             plainly(strings.Join(statusLines(st, true), "\n")),
		"an idle session":      plainly(strings.Join(statusLines(sessions.Status{Session: &nameless.Session}, false), "\n")),
		"ends soon":            endsSoon(sessions.Notice{Session: session("1.2"), Kind: sessions.NoticeEndsSoon, At: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}),
		"ends soon, with work": endsSoon(sessions.Notice{Session: unpushed(), Kind: sessions.NoticeEndsSoon, At: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}),
	}
}

// unpushed is a session whose work can be pushed.
func unpushed() sessions.Session {
	s := session("1.2")
	s.Repos, s.State = []runner.Repo{{URL: "https://github.com/acme/app"}}, []runner.RepoState{{Dir: "app", Changed: 1}}
	return s
}

// broke is the outcome of a turn that a budget has stopped, after it has cost something itself or before.
func broke(of sessions.Bound, usd float64) sessions.Outcome {
	return sessions.Outcome{
		Outcome: runner.Outcome{ExitCode: 130, Failure: runner.FailBudget, CostUSD: usd},
		Budget:  &sessions.Budget{Bound: of, USD: 50, SpentUSD: 50.07},
	}
}
