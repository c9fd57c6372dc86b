package bot

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flaudebot/local/slack"
	"flaudebot/runner"
	"flaudebot/sessions"
)

const (
	team     = "T0LOCAL"
	general  = "C0GENERAL"
	admin    = "xoxp-local-admin"
	member   = "xoxp-local-member"
	guest    = "xoxp-local-guest"
	mention  = "<@U0FLAUDE> "
	patience = 120 * time.Second // nothing here takes so long unless it never comes
)

// workspace is the bot at a local Slack, over sessions that only note what they are asked.
type workspace struct {
	t        testing.TB
	base     string
	http     *http.Client
	bot      *Bot
	sessions *fakeSessions
	leave    func() // ends Run, and waits for it
	// lookEvery is the time between two looks for what was missed; 0: 100 ms.
	lookEvery time.Duration
}

func newWorkspace(t testing.TB, change func(*Config)) *workspace {
	t.Helper()
	return newWorkspaceAfter(t, change, nil)
}

// newWorkspaceAfter starts the bot after something has happened without it. What it was not there to take Slack has given up.
func newWorkspaceAfter(t testing.TB, change func(*Config), happen func(*workspace)) *workspace {
	t.Helper()
	scfg := slack.Config{AckTimeout: 500 * time.Millisecond, RetryDelays: []time.Duration{0, 0, 0}}
	if happen != nil {
		scfg.Window = time.Nanosecond // what nobody was there to take is given up
	}
	w := emptyWorkspace(t, scfg)
	if happen != nil {
		happen(w)
	}
	w.bot, w.leave = w.replica(change)
	return w
}

// emptyWorkspace is a local Slack without the bot.
func emptyWorkspace(t testing.TB, scfg slack.Config) *workspace {
	t.Helper()
	server, err := slack.New(scfg)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		_ = server.Close()
		h.Close()
	})
	return &workspace{t: t, base: h.URL, http: http.DefaultClient, sessions: &fakeSessions{once: map[string]bool{}, seen: map[sessions.TurnID]bool{}}}
}

// replica starts a bot, and returns when Slack has said hello to it. leave ends its Run, and waits for it.
func (w *workspace) replica(change func(*Config)) (b *Bot, leave func()) {
	w.t.Helper()
	b, leave, ready := w.launch(change)
	select {
	case <-ready:
	case <-time.After(patience):
		w.t.Fatal("Slack never said hello")
	}
	return b, leave
}

// launch starts a bot; ready is closed when Slack has said hello to it.
func (w *workspace) launch(change func(*Config)) (b *Bot, leave func(), ready chan struct{}) {
	w.t.Helper()
	cfg := Config{AppToken: "xapp-local", BotToken: "xoxb-local", APIURL: w.base + "/api/", Connections: 1, Pace: 1000}
	if change != nil {
		change(&cfg)
	}
	b, err := New(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	b.lookEvery, b.tryAfter = cmp.Or(w.lookEvery, 100*time.Millisecond), 20*time.Millisecond
	b.Use(w.sessions)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Run(ctx, sync.OnceFunc(func() { close(ready) })); err != nil {
			w.t.Errorf("Run = %v", err)
		}
	}()
	leave = func() { cancel(); <-done }
	w.t.Cleanup(leave)
	return b, leave, ready
}

// in is the workspace for a subtest.
func (w *workspace) in(t testing.TB) *workspace {
	sub := *w
	sub.t = t
	return &sub
}

func (w *workspace) call(token, path, contentType string, body []byte) map[string]any {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.base+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := w.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		w.t.Fatalf("%s: %s", path, raw)
	}
	return out
}

func (w *workspace) api(token, method string, form url.Values) map[string]any {
	w.t.Helper()
	return w.call(token, "/api/"+method, "application/x-www-form-urlencoded", []byte(form.Encode()))
}

func (w *workspace) local(token, method string, body map[string]any) map[string]any {
	w.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.call(token, "/local/"+method, "application/json", raw)
}

func (w *workspace) say(token, channel, thread, text string) string {
	w.t.Helper()
	res := w.api(token, "chat.postMessage", url.Values{"channel": {channel}, "thread_ts": {thread}, "text": {text}})
	ts, _ := res["ts"].(string)
	if ts == "" {
		w.t.Fatalf("chat.postMessage = %v", res)
	}
	return ts
}

// thread is all that stands in a thread, as JSON.
func (w *workspace) thread(channel, ts string) string {
	w.t.Helper()
	return w.text(w.api(admin, "conversations.replies", url.Values{"channel": {channel}, "ts": {ts}, "include_all_metadata": {"true"}})["messages"])
}

// whispered is all that only this person sees, as JSON.
func (w *workspace) whispered(token, channel, thread string) string {
	w.t.Helper()
	return w.text(w.local(token, "seen", map[string]any{"channel": channel, "thread_ts": thread})["ephemeral"])
}

func (w *workspace) text(v any) string {
	w.t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		w.t.Fatal(err)
	}
	return out.String()
}

func (w *workspace) until(what string, look func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !look(); <-tick.C {
		if time.Now().After(end) {
			w.t.Fatalf("%s: it never comes", what)
		}
	}
}

// settled waits until everything that was posted before was taken in: events come in order, and those of other threads are taken in beside it.
func (w *workspace) settled(channel string) {
	w.t.Helper()
	ts := w.say(member, channel, "", mention+"a last word")
	w.until("the last word", func() bool { return w.sessions.turn(ts) != nil })
	if w.bot == nil {
		return
	}
	w.until("the end of what came before it", func() bool {
		w.bot.intake.mu.Lock()
		defer w.bot.intake.mu.Unlock()
		return w.bot.intake.n == 0
	})
}

// fakeSessions notes what it is asked, and answers as it was told.
type fakeSessions struct {
	mu       sync.Mutex
	accepted []sessions.Turn
	edits    []string // text@revision
	cancels  []sessions.TurnID
	stops    []sessions.Thread
	keeps    []time.Time
	ends     []sessions.Thread
	once     map[string]bool
	seen     map[sessions.TurnID]bool
	fail     int // so many times Accept fails
	full     bool
	forget   int                                 // so many times Once fails
	away     bool                                // everything fails
	looks    int                                 // calls of Status
	offered  int                                 // calls of Accept
	hangs    bool                                // everything waits until its context ends, and fails
	busy     bool                                // what was accepted waits
	muted    map[sessions.Thread]map[string]bool // since a ts
	begun    bool                                // nothing waits any more: no edit is taken
	marks    map[string]sessions.Mark
	status   sessions.Status
	statuses map[sessions.Thread]sessions.Status // of some threads; status: of the others
	live     []sessions.Session
	settings map[string]sessions.Settings // of channels
	secrets  map[string]string            // of all channels
	costs    map[string][]sessions.Cost   // month → what it has cost
	budgets  []sessions.Budget
	raised   []string                 // "mark bound user by usd"
	keyless  bool                     // secrets cannot be stored
	used     map[string][]runner.Repo // where → repositories that were used there
	asked    chan struct{}            // if not nil, Cancel tells that it was called
	answer   chan struct{}            // and waits for this
}

// reach is an error while the store is away. f.mu must be held.
func (f *fakeSessions) reach(ctx context.Context) error {
	if f.hangs {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
	}
	if f.away || f.hangs {
		return errors.New("Redis is away")
	}
	return nil
}

func (f *fakeSessions) set(change func(*fakeSessions)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// turn is the turn of a message, nil if there is none.
func (f *fakeSessions) turn(ts string) *sessions.Turn {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.accepted {
		if t.TS == ts {
			return &t
		}
	}
	return nil
}

func (f *fakeSessions) count(what func(*fakeSessions) int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return what(f)
}

func (f *fakeSessions) Accept(ctx context.Context, t sessions.Turn) (sessions.Accepted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered++
	if err := f.reach(ctx); err != nil {
		return sessions.Accepted{}, err
	}
	switch {
	case f.fail > 0:
		f.fail--
		return sessions.Accepted{}, errors.New("Redis is away")
	case f.seen[t.ID]:
		return sessions.Accepted{Status: sessions.AcceptDuplicate}, nil
	case f.full:
		return sessions.Accepted{Status: sessions.AcceptFull, Full: sessions.BoundThread}, nil
	}
	f.seen[t.ID] = true
	f.accepted = append(f.accepted, t)
	if f.busy {
		f.status.Queued = append(f.status.Queued, t)
	}
	return sessions.Accepted{Status: sessions.AcceptQueued, Ahead: len(f.status.Queued)}, nil
}

func (f *fakeSessions) Edit(ctx context.Context, t sessions.Turn, revision string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return false, err
	}
	i := slices.IndexFunc(f.accepted, func(a sessions.Turn) bool { return a.ID == t.ID })
	if i < 0 || f.begun {
		return false, nil
	}
	f.accepted[i].Text = t.Text
	f.edits = append(f.edits, t.Text+"@"+revision)
	return true, nil
}

func (f *fakeSessions) Cancel(ctx context.Context, _ sessions.Thread, id sessions.TurnID) (bool, bool, error) {
	if f.asked != nil {
		f.asked <- struct{}{}
		<-f.answer
	}
	if err := ctx.Err(); err != nil {
		return false, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return false, false, err
	}
	f.cancels = append(f.cancels, id)
	return false, f.seen[id], nil
}

func (f *fakeSessions) Mute(ctx context.Context, thread sessions.Thread, muted bool, at string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.muted == nil {
		f.muted = map[sessions.Thread]map[string]bool{}
	}
	if f.muted[thread] == nil {
		f.muted[thread] = map[string]bool{}
	}
	f.muted[thread][at] = muted
	return f.reach(ctx)
}

func (f *fakeSessions) Muted(ctx context.Context, thread sessions.Thread, at string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := ""
	for since := range f.muted[thread] {
		if at == "" || since < at {
			last = max(last, since)
		}
	}
	return f.muted[thread][last], f.reach(ctx)
}

func (f *fakeSessions) Forestall(ctx context.Context, _ sessions.Thread, id sessions.TurnID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[id] = true
	return f.reach(ctx)
}

func (f *fakeSessions) PassOver(ctx context.Context, id sessions.TurnID) error {
	return f.Forestall(ctx, sessions.Thread{}, id)
}

func (f *fakeSessions) Stop(ctx context.Context, thread sessions.Thread) (*sessions.Turn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return nil, err
	}
	f.stops = append(f.stops, thread)
	if st, ok := f.statuses[thread]; ok {
		return st.Running, nil
	}
	return f.status.Running, nil
}

func (f *fakeSessions) End(ctx context.Context, thread sessions.Thread, _, _ string) (sessions.Ending, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return sessions.Ending{}, err
	}
	f.ends = append(f.ends, thread)
	return sessions.Ending{Stopped: f.status.Running, Dropped: f.status.Queued}, nil
}

func (f *fakeSessions) Keep(ctx context.Context, _ sessions.Thread, session string, announced time.Time) (time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return time.Time{}, err
	}
	if f.status.Session == nil || f.status.Session.SessionID != session {
		return time.Time{}, sessions.ErrNoSession
	}
	f.keeps = append(f.keeps, announced)
	return announced.Add(24 * time.Hour), nil
}

func (f *fakeSessions) Status(ctx context.Context, thread sessions.Thread) (sessions.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return sessions.Status{}, err
	}
	f.looks++
	if st, ok := f.statuses[thread]; ok {
		return st, nil
	}
	return f.status, nil
}

func (f *fakeSessions) List(ctx context.Context, _, channel string) ([]sessions.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return nil, err
	}
	var out []sessions.Session
	for _, s := range f.live {
		if channel == "" || s.Thread.Channel == channel {
			out = append(out, s)
		}
	}
	return out, nil
}

func (f *fakeSessions) Costs(ctx context.Context, _, month string, _ time.Time) ([]sessions.Cost, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.costs[month]), f.reach(ctx)
}

func (f *fakeSessions) Budgets(ctx context.Context, _ sessions.Thread, _ string) ([]sessions.Budget, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.budgets), f.reach(ctx)
}

func (f *fakeSessions) AllowMore(ctx context.Context, mark string, _ sessions.Thread, bound sessions.Bound, user, by string, usd float64) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return false, err
	}
	if slices.ContainsFunc(f.raised, func(had string) bool { return strings.HasPrefix(had, mark+" ") }) {
		return false, nil
	}
	f.raised = append(f.raised, fmt.Sprint(mark, " ", bound, " ", user, " ", by, " ", usd))
	return true, nil
}

func (f *fakeSessions) Noted(ctx context.Context, key string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return false, err
	}
	return f.once[key], nil
}

func (f *fakeSessions) Known(ctx context.Context, id sessions.TurnID) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return false, err
	}
	return f.seen[id], nil
}

func (f *fakeSessions) Mark(ctx context.Context, _ string, upTo map[string]string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return err
	}
	if f.marks == nil {
		f.marks = map[string]sessions.Mark{}
	}
	for channel, ts := range upTo {
		m := f.marks[channel]
		f.marks[channel] = sessions.Mark{Since: cmp.Or(m.Since, ts), UpTo: max(m.UpTo, ts)}
	}
	return nil
}

func (f *fakeSessions) Marks(ctx context.Context, _ string) (map[string]sessions.Mark, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return nil, err
	}
	return maps.Clone(f.marks), nil
}

func (f *fakeSessions) Once(ctx context.Context, key string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return false, err
	}
	if f.forget > 0 {
		f.forget--
		return false, errors.New("Redis is away")
	}
	first := !f.once[key]
	f.once[key] = true
	return first, nil
}

func (f *fakeSessions) Settings(ctx context.Context, _, channel string) (sessions.Settings, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settings[channel], f.reach(ctx)
}

func (f *fakeSessions) UsedRepos(ctx context.Context, _, place string) ([]runner.Repo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used[place], f.reach(ctx)
}

func (f *fakeSessions) DefaultSettings() sessions.Settings {
	return sessions.Settings{Model: "opus", Region: "iad", VolumeGB: 1, Guest: sessions.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 4096}, Timeout: new(time.Hour)}
}

func (f *fakeSessions) KeepsSecrets() bool { return !f.keyless }

func (f *fakeSessions) SaveSettings(ctx context.Context, _, channel, by string, s sessions.Settings, values map[string]string) (sessions.Settings, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reach(ctx); err != nil {
		return s, err
	}
	if now := f.settings[channel]; now.Version != s.Version {
		return s, sessions.SettingsChangedError{Now: now}
	}
	if err := s.Check(values); err != nil {
		return s, err
	}
	s.Version, s.ChangedBy = s.Version+1, by
	if f.settings == nil {
		f.settings, f.secrets = map[string]sessions.Settings{}, map[string]string{}
	}
	f.settings[channel] = s
	maps.Copy(f.secrets, values)
	return s, nil
}

// session is a live one of the member, in a thread of general.
func session(ts string) sessions.Session {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	return sessions.Session{
		SessionID: "5f0c1d2e-0000-4000-8000-000000000001", MachineID: "148e1", Region: "fra", CreatedAt: at, LastTurn: at, Turns: 3, CostUSD: 0.42,
		Thread: sessions.Thread{Team: team, Channel: general, TS: ts}, Owner: "U0MEMBER",
	}
}

func has(s string, all ...string) bool {
	for _, sub := range all {
		if !strings.Contains(s, sub) {
			return false
		}
	}
	return true
}
