package bot

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// command types a command into general, and returns its answer as JSON.
func (w *workspace) command(token, text string) string {
	w.t.Helper()
	res := w.local(token, "command", map[string]any{"channel": general, "command": "/flaude", "text": text})
	if res["ok"] != true {
		w.t.Fatalf("/flaude %s = %v", text, res)
	}
	return w.text(res["response"])
}

// sessionsIn makes live sessions with roots in general, each about something.
func (w *workspace) sessionsIn(abouts ...string) []sessions.Session {
	w.t.Helper()
	var all []sessions.Session
	for _, about := range abouts {
		s := session(w.say(member, general, "", about))
		s.About = about
		all = append(all, s)
	}
	w.sessions.set(func(f *fakeSessions) { f.live = all })
	return all
}

// runs has a turn at work in each of the sessions.
func (w *workspace) runs(all ...sessions.Session) {
	w.sessions.set(func(f *fakeSessions) {
		f.statuses = map[sessions.Thread]sessions.Status{}
		for _, s := range all {
			running := sessions.Turn{ID: turnID(team, general, s.Thread.TS), Kind: sessions.KindTurn, Thread: s.Thread, User: "U0MEMBER", Text: "count"}
			f.statuses[s.Thread] = sessions.Status{Session: &s, Running: &running}
		}
	})
}

// TestPickers: a command without a link acts on the only session that can be meant; of several it shows what each is about, with a button.
func TestPickers(t *testing.T) {
	t.Parallel()
	type step struct {
		name, text string
		busy       int // of three sessions so many are at work
		want, not  []string
		stops      int
	}
	for _, s := range []step{
		{name: "list says of each what it is about, and how it stands", text: "list", busy: 1, want: []string{
			"1. “fix the &lt;login&gt; test”", "2. “b”", "· at work now", "· last used <!date^", `"action_id":"manage"`,
		}},
		{name: "end shows all", text: "end", busy: 1, want: []string{"Which one?", "fix the", "“b”", "“c”", `"action_id":"end"`}},
		{name: "status shows all", text: "status", busy: 1, want: []string{"Which one?", "“b”", "“c”", `"action_id":"manage"`}},
		{name: "stop where nothing runs", text: "stop", want: []string{sayNothingRuns}},
		{name: "stop where one runs stops it", text: "stop", busy: 1, want: []string{sayStopping}, stops: 1},
		{name: "stop where several run shows those", text: "stop", busy: 2, want: []string{"Which one?", "fix the", "“b”", `"action_id":"stop"`}, not: []string{"“c”"}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			all := w.sessionsIn("fix the <login> test", "b", "c")
			w.runs(all[:s.busy]...)
			got := w.command(member, s.text)
			if !has(got, s.want...) || slices.ContainsFunc(s.not, func(not string) bool { return has(got, not) }) {
				t.Errorf("/flaude %s = %s, want %q without %q", s.text, got, s.want, s.not)
			}
			if n := w.sessions.count(func(f *fakeSessions) int { return len(f.stops) + len(f.cancels) }); n != s.stops {
				t.Errorf("%d turns were stopped, want %d", n, s.stops)
			}
		})
	}
	for _, word := range []string{"stop", "end"} {
		t.Run("the button to "+word+" acts on its session", func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			all := w.sessionsIn("a", "b")
			w.runs(all...)
			w.command(member, word)
			w.local(member, "click", map[string]any{
				"channel": general, "ts": w.whisperWith("", "Which one?"), "action_id": word, "value": offerOf(all[1].Thread, ""),
			})
			var got []sessions.Thread
			w.until("it does", func() bool {
				w.sessions.set(func(f *fakeSessions) { got = slices.Concat(f.stops, f.ends) })
				return len(got) > 0
			})
			if got[0] != all[1].Thread {
				t.Errorf("acted on %v, want %v", got[0], all[1].Thread)
			}
		})
	}
	t.Run("a list fits into an ack, whatever its sessions are about", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		one := w.sessionsIn(strings.Repeat("🦫", 200))[0]
		w.sessions.set(func(f *fakeSessions) { f.live = slices.Repeat([]sessions.Session{one}, 25) })
		got := w.command(member, "list")
		if len(got) > maxAck || !has(got, "1. “🦫", "that were used before these") {
			t.Errorf("the answer has %d bytes: %.300s", len(got), got)
		}
	})
}

// TestAloud: what a command answers only its person sees, unless they ask for all with a last word.
func TestAloud(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		rest   string
		public bool
	}{
		"": {"", false}, "public": {"", true}, "--public": {"", true}, "—public": {"", true}, "<link> Public": {"<link>", true},
		"mine public": {"mine", true}, "publicly": {"publicly", false}, "nonpublic": {"nonpublic", false}, "public mine": {"public mine", false},
	} {
		if rest, public := aloud(text); rest != want.rest || public != want.public {
			t.Errorf("aloud(%q) = %q, %v, want %q, %v", text, rest, public, want.rest, want.public)
		}
	}
	w := newWorkspace(t, nil)
	w.sessionsIn("a", "b")
	if got := w.command(member, "list"); !has(got, "ephemeral", "<@U0MEMBER>") {
		t.Errorf("list = %s, want it ephemeral", got)
	}
	if got := w.command(member, "list public"); !has(got, "in_channel", "1. “a”", "mira · 3 turns") || has(got, "<@U0MEMBER>") {
		t.Errorf("list public = %s, want it in the channel, and nobody pinged", got)
	}
	if got := w.text(w.api(admin, "conversations.history", url.Values{"channel": {general}})); !has(got, "2. “b”") {
		t.Errorf("the channel holds %s", got)
	}
}

// TestMine: the list of one's own sessions is not that of a channel.
func TestMine(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	all := w.sessionsIn("a", "b", "c")
	all[1].Owner, all[2].Thread.Channel = "U0ADMIN", "C0PAYMENTS"
	if got := w.command(member, "list mine"); !has(got, "1. “a”\\n<#C0GENERAL>", "2. “c”\\n<#C0PAYMENTS>") || has(got, "“b”") {
		t.Errorf("list mine = %s", got)
	}
	w.sessions.set(func(f *fakeSessions) { f.live = nil })
	if got := w.command(member, "list mine"); !has(got, sayNoneOfYours) {
		t.Errorf("list mine = %s, want %q", got, sayNoneOfYours)
	}
}

func TestParseLink(t *testing.T) {
	t.Parallel()
	for link, want := range map[string]string{
		"https://acme.slack.com/archives/C0GENERAL/p1700000000000100":                                             "C0GENERAL 1700000000.000100",
		"<https://acme.slack.com/archives/C0GENERAL/p1700000000000100>":                                           "C0GENERAL 1700000000.000100",
		"https://acme.slack.com/archives/C0GENERAL/p1700000000000200?thread_ts=1700000000.000100&cid=C0GENERAL":   "C0GENERAL 1700000000.000100",
		"<https://acme.slack.com/archives/C0X/p1700000000000200?cid=C0X&amp;thread_ts=1700000000.000100|a reply>": "C0X 1700000000.000100",
		"https://app.slack.com/client/T0LOCAL/C0GENERAL/thread/C0GENERAL-1700000000.000100":                       "C0GENERAL 1700000000.000100",
		"https://acme.slack.com/archives/D0MIRA/p1700000000000100":                                                "D0MIRA 1700000000.000100",
		"https://acme.slack.com/archives/C0GENERAL":                                                               "", "tomorrow": "", "": "",
	} {
		got, ok := parseLink(team, link)
		if has := fmt.Sprint(got.Channel, " ", got.TS); ok != (want != "") || ok && (has != want || got.Team != team) {
			t.Errorf("parseLink(%q) = %+v, %v, want %q", link, got, ok, want)
		}
	}
}

func TestGlimpse(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]string{
		"fix the test":                      "fix the test",
		"\n  \n fix &lt;b&gt; it\nand then": "fix <b> it",
		"repo:acme/app branch:dev fix it":   "fix it",
		"ask <@U0ADMIN> in <#C0GENERAL|general>, <!subteam^S1|@team>, <https://a.example/x|the page>, <https://a.example>": "ask @… in #general, @team, the page, https://a.example",
		"*Fix* the `login` test, _please_: ~all of it~ *now*":                                                              "Fix the login test, please: all of it now",
		"&gt; • *_both_* and 2*3*4, snake_case_name, a * b * c":                                                            "both and 2*3*4, snake_case_name, a * b * c",
		"```\ngo test```":       "go test",
		"":                      "",
		strings.Repeat("é", 99): strings.Repeat("é", 79) + "…",
	} {
		if got := glimpse(words); got != want {
			t.Errorf("glimpse(%q) = %q, want %q", words, got, want)
		}
	}
}

// TestManage: the modal of a session says how it stands, also after a press in it.
func TestManage(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	s := w.sessionsIn("fix <it>")[0]
	s.Repos, s.VolumeGB = []runner.Repo{{URL: "https://github.com/acme/app", Branch: "dev"}}, 20 // its machine is of the size by default
	w.runs(s)
	reply := w.say(member, general, s.Thread.TS, "!aside by the way")
	modal := func() (id string, shown string) {
		views, _ := w.local(member, "seen", map[string]any{"channel": general})["views"].([]any)
		if len(views) == 0 {
			return "", ""
		}
		v, _ := views[len(views)-1].(map[string]any)
		return fmt.Sprint(v["id"]), w.text(v)
	}
	until := func(what string, all ...string) {
		t.Helper()
		w.until(what, func() bool { _, got := modal(); return has(got, all...) })
	}
	press := func(action string) {
		t.Helper()
		id, _ := modal()
		if res := w.local(member, "click", map[string]any{"view_id": id, "action_id": action}); res["ok"] != true {
			t.Fatalf("press %s = %v", action, res)
		}
	}
	w.local(member, "shortcut", map[string]any{"callback_id": "manage_session", "channel": general, "ts": reply})
	until("the session", "fix &lt;it&gt;", "3 turns, $0.42", "acme/app` on `dev", "2 dedicated CPUs, 4 GB, a volume of 20 GB", "Running: “count” by <@U0MEMBER>", `"action_id":"stop"`, `"action_id":"mute"`, `"action_id":"end"`, "Keep it")
	press("mute")
	until("that it is muted, and the session", sayMuted, "3 turns, $0.42", `"action_id":"unmute"`)
	w.until("the thread is told", func() bool { return has(w.thread(general, s.Thread.TS), sayMuted) })
	press("stop")
	until("that it is being stopped, and the session", sayStopping, "3 turns, $0.42")
	w.sessions.set(func(f *fakeSessions) { f.statuses = map[sessions.Thread]sessions.Status{s.Thread: {Session: &s}} })
	press("refresh")
	until("that nothing runs", sayNothingRuns, "3 turns, $0.42")
	if _, got := modal(); has(got, `"action_id":"stop"`) || has(got, sayStopping) {
		t.Errorf("the modal shows %s, want no button to stop", got)
	}
	press("end")
	until("that it is being ended", "Ending the session.")

	t.Run("is opened from a list too", func(t *testing.T) {
		w := w.in(t)
		w.command(member, "list")
		w.local(member, "click", map[string]any{"channel": general, "ts": w.whisperWith("", "1. “fix"), "action_id": "manage", "value": offerOf(s.Thread, "")})
		until("the session", "fix &lt;it&gt;", "3 turns, $0.42")
	})
	t.Run("tells a guest nothing", func(t *testing.T) {
		w := w.in(t)
		w.local(guest, "shortcut", map[string]any{"callback_id": "manage_session", "channel": general, "ts": reply})
		w.until("a refusal", func() bool {
			got := w.text(w.local(guest, "seen", map[string]any{"channel": general})["views"])
			return has(got, sayNotYou) && !has(got, "fix")
		})
	})
}
