package bot

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// What the bot's own messages tell, when Redis has lost it: each carries the session and the turn that it belongs to.

// LookBack implements [sessions.Front].
func (b *Bot) LookBack() { b.missedSomething() }

// Recall implements [sessions.Front].
func (b *Bot) Recall(ctx context.Context, s sessions.Session) (sessions.Recalled, error) {
	var out sessions.Recalled
	first := "" // ts of the first message that was answered
	said := map[string]slack.Message{}
	params := &slack.GetConversationRepliesParameters{ChannelID: s.Thread.Channel, Timestamp: s.Thread.TS, IncludeAllMetadata: true, Limit: 200}
	for range maxPages {
		var page []slack.Message
		var more bool
		var cursor string
		err := b.patiently(ctx, func() (err error) {
			page, more, cursor, err = b.api.GetConversationRepliesContext(ctx, params)
			return err
		})
		if isGone(err) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("read %s: %w", s.Thread.Key(), err)
		}
		for _, m := range page {
			said[m.Timestamp] = m
			tr, ours := b.traceOf(m)
			if !ours || tr.session != s.SessionID || !tr.last() {
				continue
			}
			if strings.HasPrefix(tr.turn, "end:") {
				out.EndedAt = timeOf(m.Timestamp)
				continue
			}
			if isErrand(sessions.TurnID(tr.turn)) { // no turn of the conversation
				continue
			}
			out.Turns, out.LastID = max(out.Turns+1, tr.turns), sessions.TurnID(tr.turn)
			out.CostUSD = max(out.CostUSD, tr.cost)
			if first == "" {
				first = messageOf(sessions.TurnID(tr.turn))
			}
		}
		if !more || cursor == "" {
			break
		}
		params.Cursor = cursor
	}
	out.Owner, out.About = said[first].User, glimpse(b.withoutMention(said[first].Text))
	return out, nil
}

// trace is what a message of the bot tells of itself.
type trace struct {
	session, turn, part string
	isLast              bool // of several parts
	turns               int
	cost                float64
}

// last reports whether an answer is whole with it.
func (t trace) last() bool {
	return t.answers() && t.isLast
}

// answers tells a part of an answer from what else the bot says.
func (t trace) answers() bool {
	_, err := strconv.Atoi(t.part)
	return err == nil
}

func (b *Bot) traceOf(m slack.Message) (trace, bool) {
	if m.User != b.self || m.Metadata.EventType != eventType {
		return trace{}, false
	}
	p := m.Metadata.EventPayload
	t := trace{isLast: p["last"] != false} // those of older versions do not tell
	t.session, _ = p["session"].(string)
	t.turn, _ = p["turn"].(string)
	t.part, _ = p["part"].(string)
	turns, _ := p["turns"].(float64)
	t.turns = int(turns)
	t.cost, _ = p["cost_usd"].(float64)
	return t, true
}

// traces are what the bot's messages tell of the messages of a channel.
type traces struct {
	b       *Bot
	channel string
	ends    map[string]string // thread → ts of the message that told of its session's end
	done    map[string]bool   // turn → it was answered, or asked about
	live    map[string]bool   // turn → it was accepted
}

func newTraces(b *Bot, channel string) *traces {
	return &traces{b: b, channel: channel, ends: map[string]string{}, done: map[string]bool{}, live: map[string]bool{}}
}

func (tr *traces) add(thread sessions.Thread, m slack.Message) {
	t, ours := tr.b.traceOf(m)
	if !ours {
		return
	}
	switch {
	case strings.HasPrefix(t.turn, "end:"):
		tr.ends[thread.TS] = max(tr.ends[thread.TS], m.Timestamp)
	case t.part == partNote || t.last():
		tr.done[t.turn] = true
	default:
		tr.live[t.turn] = true
	}
}

// over reports whether a message was dealt with: it has its answer, or the session that it was for has ended since.
func (tr *traces) over(e innerEvent) bool {
	return tr.done[string(tr.id(e))] || e.TS < tr.ends[e.thread()]
}

// begun reports whether it was accepted.
func (tr *traces) begun(e innerEvent) bool { return tr.live[string(tr.id(e))] }

func (tr *traces) id(e innerEvent) sessions.TurnID { return turnID(tr.b.team, tr.channel, e.TS) }

// afterLoss reads a thread again, before anything is accepted in it, whose session was rebuilt after Redis had lost it: what stands
// before the message comes first. done: the message itself was taken in with the rest.
func (b *Bot) afterLoss(ctx context.Context, in incoming) (done bool, err error) {
	if in.event.missed || in.root { // nothing stands before the first message
		return false, nil
	}
	st, err := b.statusFor(ctx, &in)
	if err != nil || st.Session == nil || !st.Session.Rebuilt {
		return false, err
	}
	marks, err := b.sessions.Marks(ctx, b.team)
	lost, forgot := marks[""]
	if err != nil || !forgot {
		return false, err
	}
	seen := newTraces(b, in.thread.Channel)
	missed, err := b.saidIn(ctx, in.thread, lost.Since, seen)
	if err != nil {
		return false, err
	}
	if err := b.takeMissed(ctx, missed, seen, time.Now()); err != nil {
		return false, err
	}
	return b.sessions.Known(ctx, in.id())
}

// timeOf is the time of a ts.
func timeOf(ts string) time.Time {
	seconds, _, _ := strings.Cut(ts, ".")
	s, _ := strconv.ParseInt(seconds, 10, 64) // Slack's
	return time.Unix(s, 0).UTC()
}
