package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// unbounded is a generosity with which no limit of Slack's is felt.
const unbounded = 1000

func reportLoad(ctx context.Context, b bench) error {
	n := b.size(1000, 30)
	fmt.Printf("\n%d turns at once on one replica of `flaudebot serve`, each with news every %s on average, on a scripted Fly that keeps Fly's limits of calls.\n", n, newsEvery)
	bin, remove, err := buildFlaudebot(ctx)
	if err != nil {
		return err
	}
	defer remove()
	t := task{What: "load", Binary: bin, Keys: n, Seconds: b.size(60, 10), Generosity: unbounded}
	fmt.Println("\nSlack's limits a thousandfold: what the bot itself takes.")
	got, err := b.compare(ctx, t)
	if err != nil {
		return err
	}
	rowsOfLoad(got[0])
	fmt.Println("\nSlack's limits as they are, once: what people see.")
	t.Generosity = 1
	once, err := b.measure(ctx, t)
	if err != nil {
		return err
	}
	rowsOfLoad(series{once})
	return nil
}

func rowsOfLoad(s series) {
	row("from the first message until all turns run", s.of("start"), "s", 0, 0)
	row("resident memory of the bot before any turn", s.of("before"), "MiB", 0, 0)
	row("  while all turns run", s.of("running"), "MiB", 0, 0)
	row("  for each running turn", s.of("per turn"), "KiB", 0, 64)
	row("processor time of the bot, of one core", s.of("cpu"), "%", 0, 0)
	row("events in the journals", s.of("events"), "/s", 0, 0)
	row("  of those that a live message has shown", s.of("shown"), "%", 0, 0)
	row("edits of live messages that show news", s.of("edits"), "/s", 0, 0)
	row("from an event in the journal to its live message, p50", s.of("p50"), "s", 0, 0)
	row("  p99", s.of("p99"), "s", 0, 0)
	row("  events that no live message had reached at the end", s.of("waiting"), "%", 0, 0)
	row("calls of Fly's while all turns run", s.of("fly calls"), "/s", 0, 0)
	row("  calls that Fly refused, from the start to the end", s.of("fly refused"), "", 0, 0)
	row("calls that Slack refused, from the start to the end", s.of("slack refused"), "", 0, 0)
	row("all turns end at once: until all answers stand", s.of("end"), "s", 0, 0)
	row("  turns that have exactly one answer", s.of("answers"), "", 0, 0)
}

// newsEvery is the time between two events of a turn, on average.
const newsEvery = 5 * time.Second

// loaded is a bot with many turns at once.
type loaded struct {
	*world
	fleet    *fleet
	watch    *slackWatch
	sleepers *sleepers
	finish   chan struct{}
	running  *atomic.Int64
	threads  []sessions.Thread
	figures  figures
}

// load has one replica follow many turns, and then answer all of them.
func load(ctx context.Context, t task) (figures, error) {
	rdb := client(t.Redis, 0, 4)
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	l := &loaded{finish: make(chan struct{}), running: new(atomic.Int64), figures: figures{}}
	var err error
	if l.fleet, err = openFleet(script{every: newsEvery, finish: l.finish, running: l.running}); err != nil {
		return nil, err
	}
	defer l.fleet.close()
	if l.sleepers, err = newSleepers(ctx, l.fleet, rdb); err != nil {
		return nil, err
	}
	if l.world, err = startLocal(ctx, t, nil, "--generosity", strconv.Itoa(t.Generosity)); err != nil {
		return nil, err
	}
	defer l.stop()
	if l.watch, err = watchSlack(l.slack); err != nil {
		return nil, err
	}
	defer l.watch.close()
	err = l.serve(ctx, l.fleet.url, l.fleet.env(), "SLACK_API_URL="+l.watch.url+"/api/", "FLAUDEBOT_MAX_PARALLEL="+strconv.Itoa(t.Keys),
		"FLAUDEBOT_SLACK_PACE_PERCENT="+strconv.Itoa(100*t.Generosity))
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context, task) error{l.begin, l.follow, l.end} {
		if err := step(ctx, t); err != nil {
			return nil, err
		}
	}
	for _, n := range second(l.fleet.counted()) {
		l.figures["fly refused"] += float64(n)
	}
	for _, n := range second(l.watch.counted()) {
		l.figures["slack refused"] += float64(n)
	}
	return l.figures, nil
}

func second[A, B any](_ A, b B) B { return b }

// place is where somebody asks.
type place struct{ channel, token string }

// places are the channels, and direct messages with the bot: Slack takes one message a second in each.
func places() []place {
	return []place{{"C0GENERAL", "xoxp-local-member"}, {"C0PAYMENTS", "xoxp-local-member"}, {"D0MEMBER", "xoxp-local-member"}, {"D0ADMIN", "xoxp-local-admin"}}
}

// batch is how many messages are written before the bot hears of them: it hears of each within seconds.
const batch = 20

// begin writes the messages, each in a thread that has a session which sleeps, and waits until all their turns run.
func (l *loaded) begin(ctx context.Context, t task) (err error) {
	if l.figures["before"], err = settledMemory(ctx, l.botPID(), 5*time.Second); err != nil {
		return err
	}
	began := time.Now()
	last := began.Add(-time.Hour)
	for part := range slices.Chunk(slices.Collect(indexes(t.Keys)), batch) {
		if err := l.post(ctx, "/local/trouble", map[string]any{"hold": true}, nil); err != nil {
			return err
		}
		var threads []sessions.Thread
		for _, i := range part {
			p := places()[i%len(places())]
			ts, err := l.sayAs(ctx, p, fmt.Sprintf("<@U0FLAUDE> do number %d", i))
			if err != nil {
				return err
			}
			threads = append(threads, sessions.Thread{Team: "T0LOCAL", Channel: p.channel, TS: ts})
		}
		if err := l.sleepers.add(ctx, threads, func(int) time.Time { return last }); err != nil {
			return err
		}
		if err := l.post(ctx, "/local/trouble", map[string]any{"release": "kept"}, nil); err != nil {
			return err
		}
		l.threads = append(l.threads, threads...)
	}
	if err := until(ctx, 30*time.Minute, "all turns run", func() bool { return l.running.Load() == int64(t.Keys) }); err != nil {
		return fmt.Errorf("%w: %d do", err, l.running.Load())
	}
	l.figures["start"] = time.Since(began).Seconds()
	return nil
}

// until waits until something holds.
func until(ctx context.Context, limit time.Duration, what string, holds func() bool) error {
	for end := time.Now().Add(limit); !holds(); time.Sleep(100 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %w within %s", what, errMissed, limit)
		}
	}
	return nil
}

// sayAs posts a message where somebody may.
func (w *world) sayAs(ctx context.Context, p place, text string) (string, error) {
	raw, err := request(ctx, "POST", w.slack+"/api/chat.postMessage", "Bearer "+p.token, "application/x-www-form-urlencoded",
		url.Values{"channel": {p.channel}, "text": {text}}.Encode())
	if err != nil {
		return "", err
	}
	var out struct {
		OK bool
		TS string
	}
	if err := json.Unmarshal(raw, &out); err != nil || !out.OK {
		return "", fmt.Errorf("post in %s: %w: %s", p.channel, errRefused, raw)
	}
	return out.TS, nil
}

const (
	// calm is how long is waited when all turns run, until what their start has taken is over.
	calm = 15 * time.Second
	// late is how long is waited for news that came last.
	late = 5 * time.Second
)

// follow measures while all turns run.
func (l *loaded) follow(ctx context.Context, t task) error {
	if _, err := settledMemory(ctx, l.botPID(), calm); err != nil {
		return err
	}
	calls := len(l.fleet.answered())
	from := time.Now()
	cpu, err := processorTime(l.botPID())
	if err != nil {
		return err
	}
	var memory []float64
	for end := from.Add(time.Duration(t.Seconds) * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(500 * time.Millisecond) {
		kib, err := status(l.botPID(), "VmRSS")
		if err != nil {
			return err
		}
		memory = append(memory, kib/1024)
	}
	to := time.Now()
	took, err := processorTime(l.botPID())
	if err != nil {
		return err
	}
	if n := l.running.Load(); n != int64(t.Keys) {
		return fmt.Errorf("%d of %d turns run at the end: %w", n, t.Keys, errMissed)
	}
	seconds := to.Sub(from).Seconds()
	l.figures["running"] = median(memory)
	l.figures["per turn"] = (median(memory) - l.figures["before"]) * 1024 / float64(t.Keys)
	l.figures["cpu"] = 100 * (took - cpu).Seconds() / seconds
	l.figures["fly calls"] = float64(len(l.fleet.answered())-calls) / seconds
	if _, err := settledMemory(ctx, l.botPID(), late); err != nil {
		return err
	}
	l.delays(from, to)
	return nil
}

// delays takes the figures of the events that came between two times.
func (l *loaded) delays(from, to time.Time) {
	now := time.Now()
	var all []float64
	events, shown, waiting, edits := 0, 0, 0, 0
	for turn, journal := range l.fleet.journals() {
		shows := l.watch.shown(turn)
		for _, s := range shows {
			if !s.at.Before(from) && s.at.Before(to) {
				edits++
			}
		}
		for _, e := range journal {
			if e.Kind != runner.KindText || e.At.Before(from) || !e.At.Before(to) {
				continue
			}
			events++
			at := slices.IndexFunc(shows, func(s show) bool { return s.n >= e.N })
			switch {
			case at < 0: // it took so long at least
				waiting++
				all = append(all, now.Sub(e.At).Seconds())
				continue
			case shows[at].n == e.N:
				shown++
			}
			all = append(all, shows[at].at.Sub(e.At).Seconds())
		}
	}
	slices.Sort(all)
	if len(all) == 0 {
		return
	}
	share := func(n int) float64 { return 100 * float64(n) / float64(events) }
	l.figures["p50"], l.figures["p99"] = all[len(all)/2], all[len(all)*99/100]
	l.figures["shown"], l.figures["waiting"] = share(shown), share(waiting)
	l.figures["events"] = float64(events) / to.Sub(from).Seconds()
	l.figures["edits"] = float64(edits) / to.Sub(from).Seconds()
}

// end ends all turns at once, and counts their answers in Slack.
func (l *loaded) end(ctx context.Context, t task) error {
	began := time.Now()
	close(l.finish)
	if err := until(ctx, 30*time.Minute, "all turns are answered", func() bool { return l.watch.answered() == t.Keys }); err != nil {
		return fmt.Errorf("%w: %d are", err, l.watch.answered())
	}
	l.figures["end"] = time.Since(began).Seconds()
	for _, thread := range l.threads {
		n, err := l.answersIn(ctx, thread)
		if err != nil {
			return err
		}
		if n == 1 {
			l.figures["answers"]++
		}
	}
	if int(l.figures["answers"]) != t.Keys {
		return fmt.Errorf("%.0f of %d turns have exactly one answer: %w", l.figures["answers"], t.Keys, errMissed)
	}
	return nil
}

// answersIn is how many answers stand in a thread that say that all went well.
func (l *loaded) answersIn(ctx context.Context, thread sessions.Thread) (int, error) {
	token := places()[slices.IndexFunc(places(), func(p place) bool { return p.channel == thread.Channel })].token
	raw, err := request(ctx, "POST", l.slack+"/api/conversations.replies", "Bearer "+token, "application/x-www-form-urlencoded",
		url.Values{"channel": {thread.Channel}, "ts": {thread.TS}, "include_all_metadata": {"true"}, "limit": {"100"}}.Encode())
	if err != nil {
		return 0, err
	}
	var out struct {
		OK       bool
		Messages []struct {
			Text     string
			Metadata struct {
				Payload struct{ Part string } `json:"event_payload"`
			}
		}
	}
	if err := json.Unmarshal(raw, &out); err != nil || !out.OK {
		return 0, fmt.Errorf("read thread %s: %w: %s", thread.Key(), errRefused, raw)
	}
	n := 0
	for _, m := range out.Messages {
		if m.Metadata.Payload.Part == "1" && footer.FindString(m.Text) == "exit 0 · " {
			n++
		}
	}
	return n, nil
}
