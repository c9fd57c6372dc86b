package bot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flaudebot/local/slack"
	"flaudebot/sessions"
)

// witness sees the bot's calls of Slack's methods.
type witness struct {
	mu    sync.Mutex
	calls map[string][]called // guarded by mu; :: method → its calls, in the order in which they ended
}

type called struct {
	began, ended time.Time
	status       int    // 0: no answer
	asked        string // the form that was sent
}

func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	c := called{began: time.Now()}
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			asked, _ := io.ReadAll(body)
			c.asked = string(asked)
		}
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		c.status = res.StatusCode
	}
	c.ended = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == nil {
		w.calls = map[string][]called{}
	}
	name := path.Base(r.URL.Path)
	if dir := path.Dir(r.URL.Path); dir != "/api" {
		name = strings.Trim(dir, "/")
	}
	w.calls[name] = append(w.calls[name], c)
	return res, err
}

func (w *witness) of(method string) []called {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls[method])
}

// botMethods are the methods that the bot calls, and what it fetches and sends besides. deploy's TestManifest knows them by slack-go's names.
func botMethods() []string {
	return []string{
		"apps.connections.open", "auth.test", "users.info", "usergroups.users.list", "users.conversations", "conversations.history",
		"conversations.replies", "conversations.members", "chat.postMessage", "chat.postEphemeral", "chat.update", "chat.delete", "chat.getPermalink",
		"reactions.add", "reactions.remove", "views.open", "views.update", "agents.sessions.setStatus",
		"files.getUploadURLExternal", "upload", "files.completeUploadExternal", "files",
	}
}

// asWorker calls the front as the sessions' worker does: again when it fails, looking then.
func asWorker(t *testing.T, do func(look bool) error) {
	t.Helper()
	end := time.Now().Add(patience)
	for look := false; ; look = true {
		err := do(look)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it fails still: %v", err)
		}
		time.Sleep(5 * time.Millisecond) // the worker's pause
	}
}

// turnOf is the turn of the member's message, and its session.
func turnOf(root, ts string) (sessions.Session, sessions.Turn) {
	return session(root), sessions.Turn{
		ID: turnID(team, general, ts), Kind: sessions.KindTurn, Thread: sessions.Thread{Team: team, Channel: general, TS: root}, TS: ts, User: "U0MEMBER", Text: "go",
	}
}

// TestEveryMethodInTrouble: the first calls of every method fail, in each of the ways in which Slack fails, and everything that was to be
// stands in Slack in the end, once.
func TestEveryMethodInTrouble(t *testing.T) {
	t.Parallel()
	type fault = map[string]any
	for _, c := range []struct {
		name    string
		faults  []fault
		timeout time.Duration // of a call
	}{
		{"429 and Retry-After", []fault{{"status": 429, "retry_after": 1}}, 0},
		{"an answer that comes too late, and no effect", []fault{{"delay_ms": 1300, "drop": true}}, time.Second},
		{"no answer and no effect, a page and 502, a page and 200", []fault{
			{"drop": true}, {"body": "<html><h1>502 Bad Gateway</h1>", "status": 502}, {"body": "<html><h1>Down for maintenance</h1>"},
		}, 0},
		{"fatal_error, internal_error, service_unavailable, ratelimited", []fault{
			{"body": `{"ok":false,"error":"fatal_error"}`},
			{"body": `{"ok":false,"error":"internal_error"}`},
			{"body": `{"ok":false,"error":"service_unavailable"}`},
			{"body": `{"ok":false,"error":"ratelimited"}`},
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			everyMethod(t, c.faults, c.timeout)
		})
	}
}

func everyMethod(t *testing.T, faults []map[string]any, timeout time.Duration) {
	t.Helper()
	w := emptyWorkspace(t, slack.Config{AckTimeout: 3 * time.Second, RetryDelays: []time.Duration{0, 0, 0}})
	w.sessions.marks = map[string]sessions.Mark{general: {Since: sessions.TSOf(time.Now().Add(-time.Hour)), UpTo: sessions.TSOf(time.Now().Add(-time.Minute))}}
	before := w.say(member, general, "", mention+"said while nobody was there")
	// Those that take long to fail, for others the rest is shown by what fails at once.
	waitedFor := []string{"users.info", "conversations.replies", "chat.postMessage", "chat.delete", "files.completeUploadExternal", "reactions.add"}
	fails := map[string]int{}
	for _, method := range botMethods() {
		for _, fault := range faults {
			if fault["body"] != nil && fault["status"] == nil && (method == "files" || method == "upload") {
				continue // as an attachment this is its text, or Slack's login page
			}
			if timeout > 0 && !slices.Contains(waitedFor, method) {
				continue
			}
			if fails[method] > 0 && (method == "auth.test" || method == "apps.connections.open") {
				continue // their pauses are long; other tests fail them more often
			}
			one := map[string]any{"method": method, "nth": 1}
			maps.Copy(one, fault)
			w.fault(one)
			fails[method]++
		}
	}
	seen := &witness{}
	w.bot, _ = w.replica(func(cfg *Config) {
		cfg.AllowedUsers, cfg.HTTP = []string{"S0NONE", "S0TEAM"}, &http.Client{Transport: seen, Timeout: timeout}
	})
	w.until("what was missed", func() bool { return w.sessions.turn(before) != nil })
	root := w.say(member, general, "", mention+"go")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	s, turn := turnOf(root, root)
	other := w.say(member, "C0PAYMENTS", "", "of another session")
	w.sessions.set(func(f *fakeSessions) {
		elsewhere := s
		elsewhere.Thread = sessions.Thread{Team: team, Channel: "C0PAYMENTS", TS: other}
		f.live, f.status.Session = []sessions.Session{elsewhere}, &s
	})

	// All at once: people ask for this and that, a turn is worked on, and another one whose thread is gone.
	told := make(chan string, 1)
	go func() { told <- w.askAround(root) }()
	w.say(member, general, root, mention+"status")
	w.local(member, "shortcut", map[string]any{"callback_id": "manage_session", "channel": general, "ts": root})
	doomed := w.say(member, general, "", mention+"then I delete this")
	w.until("a turn", func() bool { return w.sessions.turn(doomed) != nil })
	w.api(member, "chat.delete", url.Values{"channel": {general}, "ts": {doomed}})
	var live string
	asWorker(t, func(look bool) (err error) { live, err = w.bot.Begin(t.Context(), s, turn, look); return err })
	w.bot.Progress(t.Context(), s, turn, live, sessions.Progress{Step: sessions.StepRunning, Since: time.Now(), Tool: "Bash", On: "make"})
	w.until("an edit was tried", func() bool { return len(seen.of("chat.update")) > 0 })
	s2, lost := turnOf(doomed, doomed)
	asWorker(t, func(look bool) error { return w.bot.Finish(t.Context(), s2, lost, "", outcome("nowhere to go"), look) })
	long := strings.Repeat(strings.Repeat("word ", 1900)+"\n\n", 5)
	asWorker(t, func(look bool) error { return w.bot.Finish(t.Context(), s, turn, live, outcome(long), look) })
	_, withFile := turnOf(root, root)
	withFile.Files = []sessions.Attachment{w.upload(t, "notes.txt", "remember the milk")}
	p, err := w.bot.Prompt(t.Context(), sessions.Session{}, withFile, false)
	if err != nil || len(p.Files) != 1 {
		t.Fatalf("Prompt = %+v, %v", p, err)
	}
	body, err := p.Files[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(body); err != nil || string(text) != "remember the milk" {
		t.Errorf("the attachment = %q, %v", text, err)
	}
	_ = body.Close()

	// What stands there in the end.
	w.until("the live message is settled, the marks are changed", func() bool {
		got := w.thread(general, root)
		return has(got, "*Done*", `"white_check_mark"`) && !has(got, `"eyes"`)
	})
	got := w.thread(general, root)
	for _, once := range []string{`"part":"live"`, `"part":"1"`, `"name":"answer-1.md"`} {
		if n := strings.Count(got, once); n != 1 {
			t.Errorf("%s stands there %d times, want once", once, n)
		}
	}
	w.until("nothing of the other in the channel", func() bool {
		return !has(w.text(w.api(admin, "conversations.history", url.Values{"channel": {general}})), "nowhere to go")
	})
	w.until("a whisper, and a modal or another whisper in its place", func() bool {
		n := strings.Count(w.whispered(member, general, root), "3 turns, $0.42")
		return n >= 1 && has(w.views(), "3 turns, $0.42") || n >= 2
	})
	for !has(w.views(), "3 turns, $0.42") {
		n := len(seen.of("views.open"))
		w.local(member, "shortcut", map[string]any{"callback_id": "manage_session", "channel": general, "ts": root})
		w.until("a try to open a modal", func() bool { return len(seen.of("views.open")) > n })
	}
	list, _ := w.local(member, "seen", map[string]any{"channel": general})["views"].([]any)
	view, _ := list[len(list)-1].(map[string]any)
	w.sessions.set(func(f *fakeSessions) {
		since := s
		since.Turns = 4
		f.status.Session = &since
	})
	if res := w.local(member, "click", map[string]any{"view_id": view["id"], "action_id": "refresh"}); res["ok"] != true {
		t.Fatalf("click = %v in %v", res, view)
	}
	w.until("what came of it in the modal", func() bool {
		list, _ := w.local(member, "seen", map[string]any{"channel": general})["views"].([]any)
		return slices.ContainsFunc(list, func(v any) bool {
			v, _ = v.(map[string]any)
			return has(w.text(v), fmt.Sprint(view["id"]), "4 turns")
		})
	})
	if problem := <-told; problem != "" {
		t.Error(problem)
	}
	if n := w.turns(root) + w.turns(before); n != 2 {
		t.Errorf("%d turns, want 2", n)
	}

	// Every method was in trouble, and was called again, not before Slack wanted.
	for method, n := range fails {
		if (method == "files" || method == "chat.getPermalink") && n > 0 && faults[0]["drop"] != nil {
			n-- // the client repeats by itself what is as good twice
		}
		w.until(fmt.Sprintf("call %d of %s", n+1, method), func() bool { return len(seen.of(method)) > n })
		calls := seen.of(method)
		refused := slices.IndexFunc(calls, func(c called) bool { return c.status == http.StatusTooManyRequests })
		if refused < 0 {
			continue
		}
		for _, c := range calls[refused+1:] {
			// Another call may have been let go just before the refusal was read.
			gap, other := c.began.Sub(calls[refused].ended), c.asked != calls[refused].asked
			if gap > 0 && gap < time.Second && (!other || gap > time.Second/2) {
				t.Errorf("%s was called again after %s, want 1 s", method, gap)
			}
		}
	}
}

// askAround types commands, and says what is wrong with their answers.
func (w *workspace) askAround(root string) string {
	command := func(text string) string {
		return w.text(w.local(member, "command", map[string]any{"channel": "C0PAYMENTS", "command": "/flaude", "text": text}))
	}
	for end := time.Now().Add(patience); ; {
		got := command("list")
		if has(got, "|open>") {
			break
		}
		if !has(got, "1. A session") || time.Now().After(end) {
			return "/flaude list = " + got
		}
	}
	link := "https://local.example/archives/C0GENERAL/p" + strings.ReplaceAll(root, ".", "")
	for end := time.Now().Add(patience); ; {
		got := command("status " + link)
		if has(got, "3 turns") {
			return ""
		}
		if !has(got, sayTryAgain) || time.Now().After(end) {
			return "/flaude status = " + got
		}
	}
}

// views are the modals that the member has open, as JSON.
func (w *workspace) views() string {
	w.t.Helper()
	return w.text(w.local(member, "seen", map[string]any{"channel": general})["views"])
}

// upload is a file of the member's in general.
func (w *workspace) upload(t *testing.T, name, text string) sessions.Attachment {
	t.Helper()
	res := w.api(member, "files.getUploadURLExternal", url.Values{"filename": {name}, "length": {fmt.Sprint(len(text))}})
	id, _ := res["file_id"].(string)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.base+"/upload/"+id, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	sent, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = sent.Body.Close()
	w.api(member, "files.completeUploadExternal", url.Values{"files": {`[{"id":"` + id + `"}]`}, "channel_id": {general}})
	return sessions.Attachment{ID: id, Name: name, Size: int64(len(text)), URL: w.base + "/files/" + id}
}

// TestLostAnswers: Slack took a post and its answer was lost. It is found by its metadata, a file by its name, and not posted twice.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	lose := func(w *workspace, method string, nth int) {
		w.fault(map[string]any{"method": method, "nth": nth, "drop": true, "after_effect": true})
	}
	three := strings.Repeat("word ", 1500) + "\n\n" + strings.Repeat("more ", 1500) + "\n\n" + strings.Repeat("last ", 1500)
	for _, c := range []struct {
		name string
		do   func(t *testing.T, w *workspace, s sessions.Session, turn sessions.Turn)
		want []string // each stands there once
	}{
		{"the live message", func(t *testing.T, w *workspace, s sessions.Session, turn sessions.Turn) {
			lose(w, "chat.postMessage", 1)
			asWorker(t, func(look bool) error { _, err := w.bot.Begin(t.Context(), s, turn, look); return err })
		}, []string{`"part":"live"`}},
		{"the first part of an answer", func(t *testing.T, w *workspace, s sessions.Session, turn sessions.Turn) {
			lose(w, "chat.postMessage", 1)
			asWorker(t, func(look bool) error { return w.bot.Finish(t.Context(), s, turn, "", outcome(three), look) })
		}, []string{`"part":"1"`, `"part":"2"`, `"part":"3"`}},
		{"the part in the middle", func(t *testing.T, w *workspace, s sessions.Session, turn sessions.Turn) {
			lose(w, "chat.postMessage", 2)
			asWorker(t, func(look bool) error { return w.bot.Finish(t.Context(), s, turn, "", outcome(three), look) })
		}, []string{`"part":"1"`, `"part":"2"`, `"part":"3"`}},
		{"the last part", func(t *testing.T, w *workspace, s sessions.Session, turn sessions.Turn) {
			lose(w, "chat.postMessage", 3)
			asWorker(t, func(look bool) error { return w.bot.Finish(t.Context(), s, turn, "", outcome(three), look) })
		}, []string{`"part":"1"`, `"part":"2"`, `"part":"3"`}},
		{"a file", func(t *testing.T, w *workspace, s sessions.Session, turn sessions.Turn) {
			lose(w, "files.completeUploadExternal", 1)
			asWorker(t, func(look bool) error {
				return w.bot.Finish(t.Context(), s, turn, "", outcome(strings.Repeat(three, 2)), look)
			})
		}, []string{`"name":"answer-1.md"`, `"part":"1"`}},
		{"a notice", func(t *testing.T, w *workspace, s sessions.Session, _ sessions.Turn) {
			lose(w, "chat.postMessage", 1)
			n := sessions.Notice{Session: s, Kind: sessions.NoticeEndsSoon, At: time.Now().Add(24 * time.Hour)}
			asWorker(t, func(bool) error { return w.bot.Notify(t.Context(), n) })
		}, []string{`"action_id":"keep"`}},
		{"the answer to a control word", func(_ *testing.T, w *workspace, s sessions.Session, _ sessions.Turn) {
			w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
			lose(w, "chat.postMessage", 1)
			w.say(member, general, s.Thread.TS, mention+"end")
			w.until("the sentence", func() bool { return has(w.thread(general, s.Thread.TS), "Ending the session.") })
		}, []string{"Ending the session."}},
		{"a sentence to who wrote nothing", func(_ *testing.T, w *workspace, s sessions.Session, _ sessions.Turn) {
			lose(w, "chat.postMessage", 1)
			w.say(member, general, s.Thread.TS, mention)
			w.until("the sentence", func() bool { return has(w.thread(general, s.Thread.TS), sayEmpty) })
		}, []string{sayEmpty}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			root := w.say(member, general, "", mention+"go")
			w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
			s, turn := turnOf(root, root)
			c.do(t, w, s, turn)
			w.settled(general)
			w.allAcked()
			w.bot.asides.Wait()
			got := w.thread(general, root)
			for _, want := range c.want {
				if n := strings.Count(got, want); n != 1 {
					t.Errorf("%s stands there %d times, want once: %s", want, n, got)
				}
			}
		})
	}
	t.Run("a sentence that Slack did not take at first stands there too, and who is refused is told", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		for _, method := range []string{"chat.postMessage", "chat.postEphemeral"} {
			for range 2 {
				w.fault(map[string]any{"method": method, "nth": 1, "status": 503})
			}
		}
		root := w.say(member, general, "", mention)
		w.say(guest, general, "", mention+"mine coins")
		w.until("both", func() bool {
			return has(w.thread(general, root), sayEmpty) && has(w.whispered(guest, general, ""), sayNotYou)
		})
		w.settled(general)
		w.allAcked()
		if n := strings.Count(w.thread(general, root), sayEmpty) + strings.Count(w.whispered(guest, general, ""), sayNotYou); n != 2 {
			t.Errorf("told %d times, want once each", n)
		}
	})
	t.Run("the message of a run, which then is not begun", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		lose(w, "chat.postMessage", 1)
		res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "run half said"})
		if got := w.text(res); !has(got, sayTrouble) {
			t.Errorf("response = %s", got)
		}
		w.bot.asides.Wait()
		if has(w.text(w.api(admin, "conversations.history", url.Values{"channel": {general}})), "half said") {
			t.Error("its message stands in the channel")
		}
	})
}

// TestEditsAreDropped: while Slack asks to leave chat.update alone, what there was to show is forgotten but for the newest.
func TestEditsAreDropped(t *testing.T) {
	t.Parallel()
	w := emptyWorkspace(t, impatient())
	seen := &witness{}
	w.bot, _ = w.replica(func(cfg *Config) { cfg.HTTP = &http.Client{Transport: seen} })
	root := w.say(member, general, "", mention+"go")
	s, turn := turnOf(root, root)
	live, err := w.bot.Begin(t.Context(), s, turn, false)
	if err != nil {
		t.Fatal(err)
	}
	w.fault(map[string]any{"method": "chat.update", "status": 429, "retry_after": 1, "nth": 1})
	for i := range 50 {
		w.bot.Progress(t.Context(), s, turn, live, sessions.Progress{Step: sessions.StepRunning, Since: time.Now(), Tool: "Bash", On: fmt.Sprint("command ", i)})
		if i == 0 {
			w.until("the first edit was refused", func() bool { return len(seen.of("chat.update")) == 1 })
		}
	}
	w.until("the newest", func() bool { return has(w.thread(general, root), "command 49") && len(seen.of("chat.update")) > 1 })
	if n := len(seen.of("chat.update")); n != 2 {
		t.Errorf("%d edits, want the one that was refused and the newest", n)
	}
}

// TestLiveMessageIsSettled: when a turn is over its live message says so, and has no Stop button any more.
func TestLiveMessageIsSettled(t *testing.T) {
	t.Parallel()
	stop := `"action_id":"stop"`
	// begun is a turn with its live message.
	begun := func(t *testing.T, w *workspace) (s sessions.Session, turn sessions.Turn, live string) {
		t.Helper()
		root := w.say(member, general, "", mention+"go")
		s, turn = turnOf(root, root)
		live, err := w.bot.Begin(t.Context(), s, turn, false)
		if err != nil || !has(w.thread(general, root), stop) {
			t.Fatalf("Begin = %q, %v; want a live message with a Stop button", live, err)
		}
		return s, turn, live
	}
	settled := func(w *workspace, turn sessions.Turn) bool {
		got := w.thread(general, turn.TS)
		return has(got, "*Done*") && !has(got, stop)
	}
	t.Run("however often Slack asks to wait, the turn is not over before", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		s, turn, live := begun(t, w)
		for nth := range 3 {
			w.fault(map[string]any{"method": "chat.update", "status": 429, "retry_after": 1, "nth": nth + 1})
		}
		if err := w.bot.Finish(t.Context(), s, turn, live, outcome("forty-two"), false); err != nil || !settled(w, turn) {
			t.Errorf("Finish = %v; want the live message settled", err)
		}
	})
	t.Run("whoever loses the turn meanwhile leaves it to the next owner", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		s, turn, live := begun(t, w)
		w.fault(map[string]any{"method": "chat.update", "status": 503})
		ctx, lose := context.WithCancel(t.Context())
		finished := make(chan error, 1)
		go func() { finished <- w.bot.Finish(ctx, s, turn, live, outcome("forty-two"), false) }()
		w.until("the answer", func() bool { return has(w.thread(general, turn.TS), "forty-two") })
		select {
		case err := <-finished:
			t.Fatalf("Finish = %v before the live message is settled", err)
		default:
		}
		lose()
		if err := <-finished; !errors.Is(err, context.Canceled) {
			t.Errorf("Finish of who lost it = %v, want that", err)
		}
		w.fault(nil)
		next, _ := w.replica(nil)
		if err := next.Finish(t.Context(), s, turn, live, outcome("forty-two"), true); err != nil || !settled(w, turn) {
			t.Errorf("Finish of the next owner = %v; want the live message settled", err)
		}
		if n := strings.Count(w.thread(general, turn.TS), `"part":"1"`); n != 1 {
			t.Errorf("the answer stands there %d times, want once", n)
		}
	})
	t.Run("a Slack that does not come back in time keeps no thread waiting", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.bot.lastEdit = 100 * time.Millisecond
		s, turn, live := begun(t, w)
		w.fault(map[string]any{"method": "chat.update", "status": 503})
		if err := w.bot.Finish(t.Context(), s, turn, live, outcome("forty-two"), false); err != nil || settled(w, turn) {
			t.Errorf("Finish = %v", err)
		}
		w.fault(nil)
		w.until("a settled live message", func() bool { return settled(w, turn) })
	})
	t.Run("one whose post nobody was told of is found", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		s, turn, _ := begun(t, w)
		if err := w.bot.Finish(t.Context(), s, turn, "", outcome("forty-two"), true); err != nil || !settled(w, turn) {
			t.Errorf("Finish = %v; want the live message settled", err)
		}
	})
	for name, earlier := range map[string]bool{"an edit whose answer never came arrives last": false, "an edit of an earlier owner arrives last": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := emptyWorkspace(t, impatient())
			slow := &straggler{}
			w.bot, _ = w.replica(func(cfg *Config) { cfg.HTTP = &http.Client{Transport: slow} })
			w.bot.editAgain = 200 * time.Millisecond
			owner := w.bot
			if earlier {
				owner, _ = w.replica(nil)
				owner.editAgain = w.bot.editAgain
			}
			s, turn, live := begun(t, w)
			w.bot.Progress(t.Context(), s, turn, live, sessions.Progress{Step: sessions.StepRunning, Since: time.Now(), Tool: "Bash", On: "make"})
			w.until("an edit on its way", slow.has)
			if err := owner.Finish(t.Context(), s, turn, live, outcome("forty-two"), earlier); err != nil || !settled(w, turn) {
				t.Fatalf("Finish = %v; want the live message settled", err)
			}
			if err := slow.arrive(); err != nil {
				t.Fatal(err)
			}
			w.until("a live message that is settled again", func() bool { return settled(w, turn) })
		})
	}
}

// straggler loses the first edit on its way, until it is to arrive.
type straggler struct {
	mu   sync.Mutex
	edit *http.Request // guarded by mu
}

func (s *straggler) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path.Base(r.URL.Path) != "chat.update" || s.edit != nil {
		return http.DefaultTransport.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.edit = r.Clone(context.WithoutCancel(r.Context()))
	s.edit.Body = io.NopCloser(strings.NewReader(string(body)))
	return nil, errors.New("no answer")
}

func (s *straggler) has() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.edit != nil
}

// arrive has the edit take effect.
func (s *straggler) arrive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	res, err := http.DefaultTransport.RoundTrip(s.edit)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// TestNoFiles: where Slack takes no files, a long answer is posted all the same.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	w.fault(map[string]any{"method": "files.getUploadURLExternal", "body": `{"ok":false,"error":"file_uploads_disabled"}`})
	root := w.say(member, general, "", mention+"go")
	s, turn := turnOf(root, root)
	long := strings.Repeat(strings.Repeat("word ", 2000)+"\n\n", 5) + "the very end"
	if err := w.bot.Finish(t.Context(), s, turn, "", outcome(long), false); err != nil {
		t.Fatal(err)
	}
	if got := w.thread(general, root); !has(got, `"part":"5"`, "the very end") {
		t.Error("the answer does not stand there whole")
	}
}

// TestNowhere: a thread that goes away under a turn. The turn ends, nobody waits, and who asked is told where that is possible.
func TestNowhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		happen func(w *workspace, root, live string)
		stands bool   // the answer comes all the same
		why    string // what the person is told in private
	}{
		{"the channel is archived", func(w *workspace, _, _ string) {
			w.api(admin, "conversations.archive", url.Values{"channel": {general}})
		}, false, "the channel is archived"},
		{"the bot is taken out of the channel", func(w *workspace, _, _ string) {
			w.api(admin, "conversations.kick", url.Values{"channel": {general}, "user": {"U0FLAUDE"}})
		}, false, "I am not in the channel any more"},
		{"the first message is deleted", func(w *workspace, root, _ string) {
			w.api(member, "chat.delete", url.Values{"channel": {general}, "ts": {root}})
		}, false, "the thread is gone"},
		{"the whole thread is deleted", func(w *workspace, root, live string) {
			w.api(admin, "chat.delete", url.Values{"channel": {general}, "ts": {live}})
			w.api(admin, "chat.delete", url.Values{"channel": {general}, "ts": {root}})
		}, false, "the thread is gone"},
		{"the live message is deleted", func(w *workspace, _, live string) {
			w.api(admin, "chat.delete", url.Values{"channel": {general}, "ts": {live}})
		}, true, ""},
		{"the channel becomes a private one", func(w *workspace, _, _ string) {
			w.api(admin, "admin.conversations.convertToPrivate", url.Values{"channel_id": {general}})
		}, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			root := w.say(member, general, "", mention+"go")
			w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
			s, turn := turnOf(root, root)
			w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
			live, err := w.bot.Begin(t.Context(), s, turn, false)
			if err != nil {
				t.Fatal(err)
			}
			c.happen(w, root, live)
			w.bot.Progress(t.Context(), s, turn, live, sessions.Progress{Step: sessions.StepRunning, Since: time.Now(), Tool: "Bash", On: "make"})
			for _, look := range []bool{false, true} {
				if err := w.bot.Finish(t.Context(), s, turn, live, outcome("forty-two"), look); err != nil {
					t.Fatalf("Finish = %v", err)
				}
				if c.why != "" {
					break
				}
			}
			w.bot.asides.Wait()
			if has(w.thread(general, root), "forty-two") != c.stands {
				t.Errorf("thread = %s, want the answer there: %v", w.thread(general, root), c.stands)
			}
			if c.name == "the first message is deleted" && (!has(w.thread(general, root), "Done") || has(w.thread(general, root), `"action_id":"stop"`)) {
				t.Errorf("thread = %s, want that its live message is settled", w.thread(general, root))
			}
			if has(w.text(w.api(admin, "conversations.history", url.Values{"channel": {general}})), "forty-two") {
				t.Error("the answer stands beside the thread")
			}
			dm := w.text(w.api(member, "conversations.history", url.Values{"channel": {"D0MEMBER"}}))
			if c.why == "" {
				if has(dm, "cannot answer there") {
					t.Errorf("the person is told %s", dm)
				}
				return
			}
			if !has(dm, "cannot answer there: "+c.why) {
				t.Fatalf("the person is told %s, want that %s", dm, c.why)
			}
			list, _ := w.api(member, "conversations.history", url.Values{"channel": {"D0MEMBER"}})["messages"].([]any)
			told, _ := list[0].(map[string]any)
			w.local(member, "click", map[string]any{"channel": "D0MEMBER", "ts": told["ts"], "action_id": "end"})
			w.until("the end of the session", func() bool { return w.sessions.count(func(f *fakeSessions) int { return len(f.ends) }) == 1 })
			link := "https://local.example/archives/C0GENERAL/p" + strings.ReplaceAll(root, ".", "")
			if got := w.text(w.local(member, "command", map[string]any{"channel": "C0PAYMENTS", "command": "/flaude", "text": "end " + link})); !has(got, "Ending the session.") {
				t.Errorf("/flaude end = %s", got)
			}
		})
	}
	t.Run("a message that is to be read again in a thread that is gone is not waited for", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", "the root")
		ts := w.say(member, general, root, mention+strings.Repeat("long ", 6000))
		w.until("a turn", func() bool { return w.sessions.turn(ts) != nil })
		turn := *w.sessions.turn(ts)
		for _, gone := range []string{ts, root} {
			w.api(admin, "chat.delete", url.Values{"channel": {general}, "ts": {gone}})
			if _, err := w.bot.Prompt(t.Context(), sessions.Session{}, turn, true); !turn.AtSlack || !errors.Is(err, sessions.ErrMessageGone) {
				t.Errorf("Prompt = %v, want %v", err, sessions.ErrMessageGone)
			}
		}
	})
}

// TestStoreAway: whoever types a command or presses a button while Redis is away is told so.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(*fakeSessions){
		"refuses": func(f *fakeSessions) { f.away = true },
		"hangs":   func(f *fakeSessions) { f.hangs = true },
	} {
		t.Run("it "+name, func(t *testing.T) {
			t.Parallel()
			w := emptyWorkspace(t, slack.Config{})
			w.bot, _ = w.replica(nil)
			root := w.say(member, general, "", mention+"go")
			w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
			s, turn := turnOf(root, root)
			live, err := w.bot.Begin(t.Context(), s, turn, false)
			if err != nil {
				t.Fatal(err)
			}
			w.sessions.set(trouble)
			var all sync.WaitGroup
			for _, text := range []string{"list", "end", "stop", "status", "run something", "end https://local.example/archives/C0GENERAL/p" + strings.ReplaceAll(root, ".", "")} {
				all.Go(func() {
					res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": text})
					if got := w.text(res); !has(got, sayTrouble) {
						t.Errorf("/flaude %s = %s, want %q", text, got, sayTrouble)
					}
				})
			}
			w.local(member, "shortcut", map[string]any{"callback_id": "manage_session", "channel": general, "ts": root})
			w.local(member, "click", map[string]any{"channel": general, "ts": live, "action_id": "stop"})
			w.until("a whisper to who pressed Stop", func() bool { return has(w.whispered(member, general, root), sayTrouble) })
			w.until("a modal that says so", func() bool {
				return has(w.text(w.local(member, "seen", map[string]any{"channel": general})["views"]), sayTrouble)
			})
			all.Wait()
			w.sessions.set(func(f *fakeSessions) { f.away, f.hangs = false, false })
		})
	}
}

// TestRunThread: a reply in the thread of a single run is no turn, and its author is told once what to do.
func TestRunThread(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "run count the lines"})
	var root string
	w.until("the run", func() bool {
		return w.sessions.count(func(f *fakeSessions) int {
			for _, turn := range f.accepted {
				root = turn.Thread.TS
			}
			return len(f.accepted)
		}) == 1
	})
	first, second := w.say(member, general, root, "and the words?"), w.say(member, general, root, "hello?")
	w.until("a whisper", func() bool { return has(w.whispered(member, general, root), sayRunOver) })
	other := w.say(admin, general, root, mention+"count the words")
	w.until("a turn", func() bool { return w.sessions.turn(other) != nil })
	w.settled(general)
	if n := strings.Count(w.whispered(member, general, root), sayRunOver); n != 1 || w.sessions.turn(first) != nil || w.sessions.turn(second) != nil {
		t.Errorf("told %d times, want once and no turn", n)
	}
}

// TestStopLooksOnce: a word to stop looks at the thread once.
func TestStopLooksOnce(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"go")
	w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	s, turn := turnOf(root, root)
	w.sessions.set(func(f *fakeSessions) { f.status.Session, f.status.Running, f.looks = &s, &turn, 0 })
	e := innerEvent{Type: "app_mention", User: "U0MEMBER", Text: mention + "stop", Channel: general, TS: sessions.TSOf(time.Now()), ThreadTS: root}
	if err := w.bot.take(context.WithoutCancel(t.Context()), outerEvent{TeamID: team, Event: e}); err != nil {
		t.Fatal(err)
	}
	if n := w.sessions.count(func(f *fakeSessions) int { return f.looks }); n != 1 || w.stopped(root) != 1 {
		t.Errorf("looked %d times and stopped %d, want once each", n, w.stopped(root))
	}
}
