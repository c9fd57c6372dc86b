package bot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"
	"golang.org/x/time/rate"

	"flaudebot/sessions"
)

// Slack sends an event again for about six minutes, and not at all when nobody was there to take it. So the bot notes how far it
// has taken in each channel, and reads what was said since when it starts, when it was without a socket, and when Redis was away. Reading
// too much is harmless: a message is one turn however often it is taken in.

// overlap is how far before a mark is read as well: events come again, and out of order, for so long.
const overlap = 10 * time.Minute

// catchUpFirst is how long sockets wait at the start, so that what was missed comes before what Slack sends again.
const catchUpFirst = 10 * time.Second

// Bounds of one look at what was missed.
const (
	maxMissedPages   = 5   // of 200 messages, of a channel or a thread
	maxMissedThreads = 300 // live sessions whose threads are read, the ones used last
	// threadsBack is how long before a mark a thread may have begun to be looked into, unless it has a live session.
	threadsBack = 48 * time.Hour
	// overlapFor is the age up to which a mark is overlapped: the queue knows for three days what it has seen.
	overlapFor = 48 * time.Hour
)

// missedSomething has the bot look for what it missed.
func (b *Bot) missedSomething() {
	b.marks.hold()
	select {
	case b.lookBack <- struct{}{}:
	default:
	}
}

// repliesMethod reads a thread.
const repliesMethod = "conversations.replies"

// catchUps looks for what was missed at the start, and whenever something may have been. first is called after the first look.
func (b *Bot) catchUps(ctx context.Context, laned lanes, first func()) {
	pause := rate.NewLimiter(rate.Every(b.lookEvery), 2)
	for pause.Wait(ctx) == nil {
		if err := b.catchUp(ctx, laned); err != nil && ctx.Err() == nil {
			b.log.WarnContext(ctx, "what was missed is not read yet", "err", err)
			b.missedSomething()
		}
		first()
		select {
		case <-ctx.Done():
		case <-b.lookBack:
			b.letAcksGo(ctx)
		}
	}
	first()
}

// catchUp reads what was said since the marks, channel by channel, the one that spoke last first, and takes it in. A channel that
// cannot be read does not keep the others waiting; its error is returned, and its mark stays where it is.
func (b *Bot) catchUp(ctx context.Context, laned lanes) error {
	ctx = withUrgency(ctx, leisurely)
	look := b.marks.look()          // before they are read
	live, err := b.liveThreads(ctx) // first: what Redis has lost is rebuilt by it
	if err != nil {
		return err
	}
	marks, err := b.sessions.Marks(ctx, b.team)
	if err != nil {
		return err
	}
	lost, forgot := marks[""]
	channels, err := b.channels(ctx)
	if err != nil {
		return err
	}
	now := time.Now() // what is late is so from here: the look itself may take long
	slices.SortFunc(channels, func(x, y string) int { return cmp.Compare(marks[y].UpTo, marks[x].UpTo) })
	var failed error
	for _, channel := range channels {
		mark, known := marks[channel]
		if forgot && (!known || mark.Since > lost.Since) { // its mark was lost
			mark, known = lost, true
			b.marks.note(channel, sessions.TSOf(now))
		}
		if !known { // from now on
			b.marks.note(channel, sessions.TSOf(now))
		} else if err := b.catchUpIn(ctx, laned, channel, mark, live[channel], now); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		b.marks.seen(look, channel)
	}
	if failed == nil {
		b.marks.seen(look, "")
	}
	b.writeMarks(ctx)
	return failed
}

// catchUpIn takes in what was missed in a channel, each thread in its lane, so that it does not get mixed up with what is said meanwhile.
func (b *Bot) catchUpIn(ctx context.Context, laned lanes, channel string, mark sessions.Mark, live []string, now time.Time) error {
	oldest := mark.UpTo
	if oldest > before(sessions.TSOf(now), overlapFor) {
		oldest = max(mark.Since, before(oldest, overlap))
	}
	seen := newTraces(b, channel)
	missed, err := b.saidSince(ctx, channel, oldest, live, seen)
	if err != nil {
		return err
	}
	threads := map[string][]innerEvent{}
	for _, e := range missed {
		threads[e.thread()] = append(threads[e.thread()], e)
	}
	for _, ts := range slices.Sorted(maps.Keys(threads)) {
		in := threads[ts]
		if err := laned.do(ctx, in[0], func(ctx context.Context) error { return b.takeMissed(ctx, in, seen, now) }); err != nil {
			return err
		}
	}
	return nil
}

// takeMissed takes in what was missed in a thread, in order, unless the bot has dealt with it already.
func (b *Bot) takeMissed(ctx context.Context, missed []innerEvent, seen *traces, now time.Time) error {
	slices.SortFunc(missed, func(x, y innerEvent) int { return cmp.Compare(x.TS, y.TS) })
	for _, e := range missed {
		if !seen.over(e) {
			e.missed = true
			e.late = e.TS < before(sessions.TSOf(now), b.cfg.AskAfter) && !seen.begun(e)
			if err := b.message(ctx, b.team, e); err != nil {
				return err
			}
		}
		b.marks.note(e.Channel, e.TS)
	}
	return nil
}

// saidSince is what was said in a channel: beside threads, in those of its live sessions, and in those that began lately.
func (b *Bot) saidSince(ctx context.Context, channel, oldest string, live []string, seen *traces) ([]innerEvent, error) {
	threads := map[string]bool{}
	for _, ts := range live {
		threads[ts] = true
	}
	var out []innerEvent
	err := b.pages(ctx, func(cursor string) ([]slack.Message, string, error) {
		res, err := b.api.GetConversationHistoryContext(ctx, &slack.GetConversationHistoryParameters{
			ChannelID: channel, Oldest: before(oldest, threadsBack), Cursor: cursor, Limit: 200,
		})
		if err != nil {
			return nil, "", err
		}
		return res.Messages, res.ResponseMetaData.NextCursor, nil
	}, func(m slack.Message) {
		switch {
		case m.ThreadTimestamp != "" && m.ThreadTimestamp != m.Timestamp: // a reply that was sent to the channel too
			threads[m.ThreadTimestamp] = true
		case m.Timestamp > oldest:
			e := eventOf(sessions.Thread{Team: b.team, Channel: channel}, m)
			e.ThreadTS = ""
			out = append(out, e)
		}
		if m.LatestReply > oldest {
			threads[m.Timestamp] = true
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read channel %s: %w", channel, err)
	}
	for _, ts := range slices.Sorted(maps.Keys(threads)) {
		replies, err := b.saidIn(ctx, sessions.Thread{Team: b.team, Channel: channel, TS: ts}, oldest, seen)
		if err != nil {
			return nil, err
		}
		out = append(out, replies...)
	}
	return out, nil
}

// saidIn is what was replied in a thread.
func (b *Bot) saidIn(ctx context.Context, thread sessions.Thread, oldest string, seen *traces) ([]innerEvent, error) {
	var out []innerEvent
	err := b.pages(ctx, func(cursor string) ([]slack.Message, string, error) {
		page, _, next, err := b.api.GetConversationRepliesContext(ctx, &slack.GetConversationRepliesParameters{
			ChannelID: thread.Channel, Timestamp: thread.TS, Oldest: oldest, Cursor: cursor, Limit: 200, IncludeAllMetadata: true,
		})
		return page, next, err
	}, func(m slack.Message) {
		seen.add(thread, m)
		if m.Timestamp != thread.TS && m.Timestamp > oldest {
			out = append(out, eventOf(thread, m))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read thread %s: %w", thread.Key(), err)
	}
	return out, nil
}

// earlierTime bounds a look for what was said before a turn, which waits for it.
const earlierTime = 2 * time.Second

// Earlier implements [sessions.Front]. A message that the bot answers already, or has shown to be at work, is known.
func (b *Bot) Earlier(ctx context.Context, t sessions.Turn) (bool, error) {
	if t.TS == t.Thread.TS {
		return false, nil
	}
	limit, ok := b.out.spare(ctx, repliesMethod)
	if !ok {
		return false, nil
	}
	limit, cancel := context.WithTimeout(limit, earlierTime)
	defer cancel()
	oldest := before(t.TS, overlap)
	page, _, _, err := b.api.GetConversationRepliesContext(limit, &slack.GetConversationRepliesParameters{
		ChannelID: t.Thread.Channel, Timestamp: t.Thread.TS, Oldest: oldest, Latest: t.TS, Limit: 200, IncludeAllMetadata: true,
	})
	if err != nil {
		return false, fmt.Errorf("read thread %s: %w", t.Thread.Key(), err)
	}
	seen := newTraces(b, t.Thread.Channel)
	for _, m := range page {
		seen.add(t.Thread, m)
	}
	var said []innerEvent
	for _, m := range page {
		if e := eventOf(t.Thread, m); e.TS > oldest && e.TS < t.TS && e.BotID == "" && e.User != b.self && !seen.begun(e) && !seen.over(e) {
			said = append(said, e)
		}
	}
	return len(said) > 0, b.takeMissed(ctx, said, seen, time.Now())
}

// pages reads pages, within the limits, until there is none, or enough was read. What is gone has no pages.
func (b *Bot) pages(ctx context.Context, read func(cursor string) ([]slack.Message, string, error), each func(slack.Message)) error {
	cursor := ""
	for range maxMissedPages {
		var page []slack.Message
		var next string
		err := b.patiently(ctx, func() (err error) {
			page, next, err = read(cursor)
			if _, slower := asksToWait(err); slower {
				yield(ctx)
			}
			return err
		})
		if isGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range page {
			each(m)
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
	b.log.WarnContext(ctx, "more was missed than is read")
	return nil
}

// yieldFor is how much longer than Slack asks a look for what was missed waits. The owner of a turn that was taken over reads by the same
// method, to see whether its answer stands in the thread: that cannot wait behind what several new replicas read.
const yieldFor = 4 * time.Second

func yield(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(yieldFor):
	}
}

// channels are the ids of the conversations that the bot is in.
func (b *Bot) channels(ctx context.Context) ([]string, error) {
	var out []string
	for cursor := ""; ; {
		var page []slack.Channel
		err := b.patiently(ctx, func() (err error) {
			page, cursor, err = b.api.GetConversationsForUserContext(ctx, &slack.GetConversationsForUserParameters{
				Types: []string{"public_channel", "private_channel", "mpim", "im"}, ExcludeArchived: true, Limit: 200, Cursor: cursor,
			})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list the bot's channels: %w", err)
		}
		for _, c := range page {
			out = append(out, c.ID)
		}
		if cursor == "" {
			return out, nil
		}
	}
}

// liveThreads are the threads of live sessions by channel, the ones used last.
func (b *Bot) liveThreads(ctx context.Context) (map[string][]string, error) {
	all, err := b.sessions.List(ctx, b.team, "")
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, s := range all[:min(len(all), maxMissedThreads)] {
		out[s.Thread.Channel] = append(out[s.Thread.Channel], s.Thread.TS)
	}
	return out, nil
}

// ask asks whether a message is still to be done that was missed for long; Retry does it.
func (b *Bot) ask(ctx context.Context, in incoming) error {
	known, err := b.sessions.Known(ctx, in.id())
	if err != nil || known {
		return err
	}
	a := offerLate(in.id())
	return b.sayOnce(ctx, in, "late", a.text, a.blocks...)
}

// offerLate asks whether a message is still to be done.
func offerLate(turn sessions.TurnID) answer {
	return offering(sayLate, button("retry", "Do it now", string(turn), "primary"))
}

// before is a ts some time before another.
func before(ts string, d time.Duration) string {
	seconds, micros, _ := strings.Cut(ts, ".")
	s, _ := strconv.ParseInt(seconds, 10, 64) // our own, or Slack's
	return fmt.Sprintf("%010d.%s", max(s-int64(d/time.Second), 0), micros)
}
