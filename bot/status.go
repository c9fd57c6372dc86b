package bot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// eventType of the metadata that every message of a turn carries: ids only, since others can read it.
const eventType = "flaudebot_turn"

func metadata(session string, turn sessions.TurnID, part string) slack.MsgOption {
	return slack.MsgOptionMetadata(slack.SlackMetadata{
		EventType: eventType, EventPayload: map[string]any{"session": session, "turn": string(turn), "part": part},
	})
}

// answerMetadata is that of a part of an answer. The last one tells how far the session has come, for a bot whose Redis has lost that:
// see [Bot.Recall].
func answerMetadata(s sessions.Session, t sessions.Turn, o sessions.Outcome, part string, last bool) slack.MsgOption {
	payload := map[string]any{"session": s.SessionID, "turn": string(t.ID), "part": part, "last": last}
	if last {
		payload["turns"], payload["cost_usd"] = o.Number, s.CostUSD
	}
	return slack.MsgOptionMetadata(slack.SlackMetadata{EventType: eventType, EventPayload: payload})
}

// partNote marks what is said in a thread beside its turns; turn is then the message that asked for it, if one did.
const partNote = "note"

// live is the live message of a running turn. One goroutine edits it, to the newest progress only.
type live struct {
	thread sessions.Thread
	turn   sessions.Turn
	ts     string
	wake   chan struct{}
	stop   context.CancelFunc
	done   sync.WaitGroup
	doubt  atomic.Bool // the answer to an edit never came: it may still take effect

	mu   sync.Mutex
	prog sessions.Progress // guarded by mu
}

// Begin implements [sessions.Front].
func (b *Bot) Begin(ctx context.Context, s sessions.Session, t sessions.Turn, look bool) (string, error) {
	if t.Kind == sessions.KindEnd || isPrivate(t) {
		return "", nil
	}
	if look {
		posts, err := b.look(ctx, t, "")
		if isGone(err) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if ts := posts[partLive]; ts != "" {
			return ts, nil
		}
	}
	text, blocks := liveMessage(t, sessions.Progress{Step: sessions.StepClaimed, Since: time.Now()}, time.Now())
	var ts string
	err := inForm(text, blocks, func(form ...slack.MsgOption) (err error) {
		ts, err = b.post(ctx, t.Thread, append(form, metadata(s.SessionID, t.ID, partLive))...)
		return err
	})
	if isGone(err) {
		return "", nil
	}
	shown := slack.AgentSessionSetStatusParameters{Status: slack.AgentSessionStatusProcessing}
	if s.Turns == 0 && t.Kind != sessions.KindErrand { // Slack takes a title for a session that it does not have yet
		shown.Title = b.title(ctx, t)
	}
	b.native.set(ctx, b, t.Thread, shown)
	b.aside(ctx, func(ctx context.Context) { b.movedUp(ctx, t.Thread) })
	return ts, err
}

// Progress implements [sessions.Front].
func (b *Bot) Progress(ctx context.Context, _ sessions.Session, t sessions.Turn, liveTS string, p sessions.Progress) {
	if liveTS == "" {
		return
	}
	b.mu.Lock()
	l := b.lives[string(t.ID)]
	if l == nil {
		ctx, stop := context.WithCancel(ctx)
		l = &live{thread: t.Thread, turn: t, ts: liveTS, wake: make(chan struct{}, 1), stop: stop, prog: p}
		b.lives[string(t.ID)] = l
		l.done.Go(func() { b.show(ctx, l) })
	}
	b.mu.Unlock()
	l.mu.Lock()
	l.prog = p
	l.mu.Unlock()
	l.again()
}

// Pace of one live message: Slack wants no message edited more often than every second or so; without news the elapsed
// time is brought up to date now and then.
const (
	editPause = 1200 * time.Millisecond
	editRest  = 15 * time.Second
)

// show edits a live message whenever there is news, within the limits, until the turn is over or the claim is lost.
func (b *Bot) show(ctx context.Context, l *live) {
	defer b.forget(l)
	ctx = withUrgency(ctx, leisurely)
	shown := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-time.After(editRest):
		}
		var pause time.Duration
		var over bool
		var call sync.WaitGroup
		call.Go(func() { shown, pause, over = b.showNews(ctx, l, shown) }) // there is one of this for each running turn: it keeps a small stack
		call.Wait()
		if over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// showNews edits a live message if it is to show something else than it did. It returns what it shows by then, and how long to leave it so; over:
// it is not edited any more.
func (b *Bot) showNews(ctx context.Context, l *live, shown string) (now string, pause time.Duration, over bool) {
	if text, _ := l.message(); text == shown {
		return shown, 0, false
	}
	call, err := b.out.ahead(ctx, "chat.update")
	if err != nil {
		return shown, 0, true
	}
	text, blocks := l.message() // the newest state, however long that took
	err = b.edit(call, l, text, blocks)
	pause = editPause
	var limited *slack.RateLimitedError
	switch {
	case err == nil:
		shown = text
	case errors.As(err, &limited): // the newest state is shown after it, not this one
		pause = max(pause, limited.RetryAfter)
		l.again()
	case isGone(err) || isCode(err, "message_not_found"): // somebody took it away; the answer comes all the same
		return shown, 0, true
	default:
		l.doubt.Store(l.doubt.Load() || isPassing(err))
		b.log.DebugContext(ctx, "live message not changed", "turn", l.turn.ID, "err", err)
	}
	return shown, pause, false
}

// edit edits a live message. An edit that was sent is waited for also when the turn is over: left alone, it could take effect
// after the one that settles the message.
func (b *Bot) edit(ctx context.Context, l *live, text string, blocks []slack.Block) error {
	return inForm(text, blocks, func(form ...slack.MsgOption) error {
		_, _, _, err := b.api.UpdateMessageContext(whole(ctx), l.thread.Channel, l.ts, form...)
		return err
	})
}

// message is what the live message is to show now.
func (l *live) message() (string, []slack.Block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return liveMessage(l.turn, l.prog, time.Now())
}

// again has the message edited once more.
func (l *live) again() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (b *Bot) forget(l *live) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lives[string(l.turn.ID)] == l {
		delete(b.lives, string(l.turn.ID))
	}
}

// quiet ends the editing of a turn's live message, and returns it.
func (b *Bot) quiet(t sessions.Turn) *live {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lives[string(t.ID)]
	if l != nil {
		l.stop()
	}
	return l
}

// Hold implements [sessions.Front].
func (b *Bot) Hold(ctx context.Context, _ sessions.Session, t sessions.Turn, liveTS string, p sessions.Progress) error {
	b.Quiet(t)
	if liveTS == "" {
		return nil
	}
	text, blocks := liveMessage(t, p, time.Now())
	if err := b.edit(ctx, &live{thread: t.Thread, ts: liveTS}, text, blocks); err != nil && !isGone(err) {
		return err
	}
	return nil
}

// Quiet implements [sessions.Front].
func (b *Bot) Quiet(t sessions.Turn) {
	_ = b.quiet(t).unanswered()
}

// unanswered waits until no edit is waited for any more, and reports whether the answer to one never came. nil: there were none.
func (l *live) unanswered() bool {
	if l == nil {
		return false
	}
	l.done.Wait()
	return l.doubt.Load()
}

// liveMessage shows a running turn.
func liveMessage(t sessions.Turn, p sessions.Progress, now time.Time) (string, []slack.Block) {
	what := stepSentence(p)
	if t.Kind == sessions.KindErrand {
		what = errandHead(t, p)
	}
	head := fmt.Sprintf("*%s* · %s", what, elapsed(now.Sub(p.Since)))
	if p.Model != "" {
		head += " · " + escape(p.Model)
	}
	lines := []string{head}
	if p.Note != "" {
		note := escape(clip(p.Note, 200))
		if !p.Until.IsZero() {
			note += ": " + date(p.Until)
		}
		lines = append(lines, "_"+note+"_")
	}
	if said := strings.TrimSpace(p.Said); said != "" && p.Step == sessions.StepRunning {
		lines = append(lines, escape(clip(said, 300)))
	}
	if p.Step == sessions.StepRunning && p.Tool != "" {
		lines = append(lines, toolSentence(p.Tool, p.On))
	}
	lines = append(lines, todoLines(p)...)
	text := strings.Join(lines, "\n")
	blocks := []slack.Block{section(text)}
	if p.Step != sessions.StepStopping {
		blocks = append(blocks, slack.NewActionBlock("", button("stop", "Stop", string(t.ID), "danger")))
	}
	return text, blocks
}

// maxTodos is how many entries of the task list are shown.
const maxTodos = 12

func todoLines(p sessions.Progress) []string {
	var out []string
	done := 0
	for _, t := range p.Todos {
		if t.State == "completed" {
			done++
		}
	}
	if len(p.Todos) > 0 {
		out = append(out, sayDone(done, len(p.Todos)))
	}
	for i, t := range p.Todos {
		if i == maxTodos {
			return append(out, sayMore(len(p.Todos)-i))
		}
		// Told apart by mark and by word, not by colour.
		mark := "☐ "
		text := escape(clip(t.Text, 120))
		switch t.State {
		case "completed":
			mark, text = "☑ ", "~"+text+"~"
		case "in_progress":
			mark, text = "▶ ", "*"+text+"* (now)"
		}
		out = append(out, mark+text)
	}
	return out
}

// elapsed is coarse, so that a message is not edited for a second.
func elapsed(d time.Duration) string {
	switch s := int(d / time.Second); {
	case s < 5:
		return "just now"
	case s < 60:
		return fmt.Sprintf("%d s", s/5*5)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	default:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
}

func button(action, label, value, style string) *slack.ButtonBlockElement {
	b := slack.NewButtonBlockElement(action, value, slack.NewTextBlockObject(slack.PlainTextType, label, false, false))
	if style != "" {
		b.Style = slack.Style(style)
	}
	return b
}

func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// nativeStatus shows Slack's own status of a session, where the workspace has that.
type nativeStatus struct {
	off atomic.Bool

	mu     sync.Mutex
	latest map[sessions.Thread]*string // guarded by mu; :: thread → the status that is being set, none when it was
}

// set sets the status beside all else. One that Slack does not take just now is set later, unless there is a newer one: a turn that is
// over must not be shown as running.
func (n *nativeStatus) set(ctx context.Context, b *Bot, thread sessions.Thread, status slack.AgentSessionSetStatusParameters) {
	if n.off.Load() {
		return
	}
	status.ChannelID, status.ThreadTS = thread.Channel, thread.TS
	mine := &status.Status
	n.mu.Lock()
	if n.latest == nil {
		n.latest = map[sessions.Thread]*string{}
	}
	n.latest[thread] = mine
	n.mu.Unlock()
	b.stubbornly(withUrgency(ctx, leisurely), func(ctx context.Context) {
		_ = b.insist(ctx, func() error {
			if n.isLatest(thread, mine) {
				return n.try(ctx, b, status)
			}
			return nil
		})
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.latest[thread] == mine {
			delete(n.latest, thread)
		}
	})
}

func (n *nativeStatus) isLatest(thread sessions.Thread, status *string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.latest[thread] == status
}

func (n *nativeStatus) try(ctx context.Context, b *Bot, status slack.AgentSessionSetStatusParameters) error {
	_, err := b.api.SetAgentSessionStatusContext(ctx, status)
	if lacks(err) || isCode(err, "invalid_arguments") {
		n.off.Store(true)
	}
	return err
}
