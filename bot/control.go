package bot

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// aroundWord is what people write around a control word and do not mean by it: "Stop.", "`!stop`", "@flaude: stop".
const aroundWord = " \t\n.,:;…`*_~'\"“”‘’()-–—"

// controlWord is a word that steers the bot instead of being a prompt. It is matched whole: "stop the server" is a prompt.
func controlWord(in incoming) string {
	word, _ := steering(in)
	return word
}

// steering is controlWord, and whether it is plain that the word is for the bot: by its mark, a mention, or where it is said. Stop is obeyed
// in any case: nobody who writes it while Claude works wants Claude to read it.
func steering(in incoming) (word string, plain bool) {
	words := strings.Trim(strings.ToLower(in.words), aroundWord)
	plain = strings.HasPrefix(words, "!") || in.begins()
	word = strings.Trim(words, aroundWord+"!")
	switch question := strings.TrimRight(word, "?"+aroundWord); question {
	case "status", "help", "list", "config", "settings":
		word = question
	default:
		if !slices.Contains([]string{"end", "stop", "mute", "unmute"}, word) {
			return "", false
		}
	}
	if !plain && word != "stop" {
		return "", false
	}
	return word, plain
}

// control acts on a control word. It acts first and notes afterwards that it did: whoever dies between the two leaves the word to
// Slack, which sends it again.
func (b *Bot) control(ctx context.Context, in incoming, word string) error {
	if in.event.late && !slices.Contains([]string{"end", "mute", "unmute"}, word) {
		return nil // what it was about is over
	}
	key := "control:" + string(in.id())
	if in.event.Edited != nil { // it was another word before
		key += ":" + in.event.Edited.TS
	}
	if done, err := b.sessions.Noted(ctx, key); err != nil || done {
		return err
	}
	r, over, err := b.obey(ctx, in, word)
	if err != nil || over {
		return err
	}
	if word == "unmute" && !in.event.missed { // what was missed after it comes next
		if err := b.overtaken(ctx, in); err != nil {
			return err
		}
	}
	first, err := b.sessions.Once(ctx, key)
	if err != nil || !first {
		return err
	}
	b.stubbornly(ctx, func(ctx context.Context) {
		if word == "end" || word == "stop" || r.tell != "" {
			b.say(ctx, in.thread, in.id(), r.text, r.blocks...)
			return
		}
		b.whisperIn(ctx, in.thread.Channel, in.thread.TS, in.event.User, r)
	})
	return nil
}

// obey does what a control word asks for. over: the word came late, and what it was about is over.
func (b *Bot) obey(ctx context.Context, in incoming, word string) (a answer, over bool, err error) {
	ctx = sessions.AskedBy(ctx, in.event.User)
	switch word {
	case "stop":
		return b.stopSince(ctx, in)
	case "end":
		a, err = b.end(ctx, in.thread, in.event.User, in.said(), false)
		if errors.Is(err, sessions.ErrBegunSince) {
			return answer{}, true, nil
		}
		return b.orTrouble(ctx, word, in.thread, a, err), false, nil
	case "mute", "unmute":
		return b.mute(ctx, in.thread, word, in.said()), false, nil
	}
	a = b.act(ctx, word, in.thread, in.event.User, false)
	if word == "status" && !slices.Contains([]string{sayNoSession, sayTrouble}, a.text) {
		a = offering(a.text, button("stop", "Stop the turn", offerOf(in.thread, ""), ""), button("end", "End session", offerOf(in.thread, ""), "danger"))
	}
	return a, false, nil
}

// stopSince stops the turn that runs in the thread of a word to stop. over: the word came late, and the turn that runs by now was
// asked for after it.
func (b *Bot) stopSince(ctx context.Context, in incoming) (a answer, over bool, err error) {
	st, err := b.sessions.Status(ctx, in.thread)
	if err != nil {
		return answer{}, false, err
	}
	if st.Running == nil || st.Running.Kind == sessions.KindEnd {
		return plainly(sayNothingRuns), false, nil
	}
	if askedSince(*st.Running, in.said()) {
		return answer{}, true, nil
	}
	_, running, err := b.sessions.Cancel(ctx, in.thread, st.Running.ID)
	if err != nil || !running { // it has ended since
		return plainly(sayNothingRuns), false, err
	}
	return plainly(sayStopping), false, nil
}

// askedSince reports whether a turn was asked for after something was said, a ts. What no message of the thread asks for, such as an errand,
// has only the time of our own clock.
func askedSince(t sessions.Turn, said string) bool {
	if t.Kind == sessions.KindErrand || t.Kind == sessions.KindOnce {
		return sessions.TSOf(t.At.Add(-sessions.MaxSkew)) > said
	}
	return t.TS > said
}

// stopMark is the reaction that stands for Stop.
const stopMark = "x"

// reacted stops a turn, or takes it back, when somebody marks its message or its live message with ❌.
func (b *Bot) reacted(ctx context.Context, team string, e innerEvent) error {
	if e.Reaction != stopMark || e.User == "" || e.User == b.self || e.Item.TS == "" {
		return nil
	}
	if why := b.people.mayUse(ctx, e.User, e.Item.Channel); why != nil {
		return why.again()
	}
	thread := sessions.Thread{Team: team, Channel: e.Item.Channel, TS: e.Item.TS}
	m, err := b.messageAt(ctx, sessions.Turn{Thread: thread, TS: e.Item.TS})
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	thread.TS = cmp.Or(m.ThreadTimestamp, m.Timestamp)
	turn := turnID(team, thread.Channel, m.Timestamp)
	if tr, ours := b.traceOf(*m); ours {
		turn = sessions.TurnID(tr.turn)
	}
	waiting, running, err := b.sessions.Cancel(sessions.AskedBy(ctx, e.User), thread, turn)
	switch {
	case err != nil:
		return err
	case waiting:
		b.aside(ctx, func(ctx context.Context) { b.whisper(ctx, thread, e.User, sayTakenBack) })
	case running:
		b.aside(ctx, func(ctx context.Context) { b.whisper(ctx, thread, e.User, sayStopping) })
	}
	return nil
}

// movedUp tells who wrote the message that waits next in a thread that it does, unless they were told when they wrote it.
func (b *Bot) movedUp(ctx context.Context, thread sessions.Thread) {
	st, err := b.sessions.Status(ctx, thread)
	if err != nil || len(st.Queued) == 0 || st.Queued[0].Kind != sessions.KindTurn {
		return
	}
	next := st.Queued[0]
	if first, err := b.sessions.Once(ctx, nextKey(next)); err != nil || !first {
		return
	}
	b.whisperIn(ctx, thread.Channel, thread.TS, next.User, offerNow(next, sayNext(next)))
}

// nextKey notes that somebody was told that their message comes next.
func nextKey(t sessions.Turn) string { return "next:" + string(t.ID) }

// answer is what a person is told.
type answer struct {
	text   string
	blocks []slack.Block
	tell   string // what the thread is told besides
	title  string // of a modal that shows it; "": Session
	public bool   // all of the channel may see it
	failed bool   // nothing came of it, and it may be tried again as it is
}

func plainly(text string) answer { return answer{text: text} }

// alone is a text that stands in a modal without the session that this shows.
func alone(text string) answer { return answer{text: text, blocks: []slack.Block{section(text)}} }

// simpler is the answer without what is shown in a form of its own.
func (a answer) simpler() answer {
	a.blocks = slices.DeleteFunc(slices.Clone(a.blocks), func(b slack.Block) bool {
		return b.BlockType() != slack.MBTSection && b.BlockType() != slack.MBTAction
	})
	return a
}

// offering is a text with buttons below it.
func offering(text string, buttons ...slack.BlockElement) answer {
	return answer{text: text, blocks: []slack.Block{section(text), slack.NewActionBlock("", buttons...)}}
}

// act does what a control word asks for in a thread.
func (b *Bot) act(ctx context.Context, word string, thread sessions.Thread, user string, sure bool) answer {
	var a answer
	var err error
	switch word {
	case "stop":
		a, err = b.stop(ctx, thread)
	case "end":
		a, err = b.end(ctx, thread, user, "", sure)
	case "status":
		a, err = b.status(ctx, thread)
	case "list":
		a, err = b.list(ctx, thread.Team, thread.Channel, user, false)
	case "config", "settings":
		return offering(sayOpenSettings, button(actionConfig, "Channel settings", offerOf(thread, ""), ""))
	default:
		return plainly(sayHelp)
	}
	return b.orTrouble(ctx, word, thread, a, err)
}

// orTrouble is the answer to a control word, or else that nothing was done.
func (b *Bot) orTrouble(ctx context.Context, word string, thread sessions.Thread, a answer, err error) answer {
	if err != nil {
		b.log.WarnContext(ctx, "nothing done", "word", word, "thread", thread.Key(), "err", err)
		return plainly(sayTrouble)
	}
	return a
}

func (b *Bot) stop(ctx context.Context, thread sessions.Thread) (answer, error) {
	t, err := b.sessions.Stop(ctx, thread)
	if err != nil || t == nil {
		return plainly(sayNothingRuns), err
	}
	return plainly(sayStopping), nil
}

// mute has replies left to people, or taken again, those that are said after at, a ts: all of the thread are told.
func (b *Bot) mute(ctx context.Context, thread sessions.Thread, word, at string) answer {
	st, err := b.sessions.Status(ctx, thread)
	if err == nil && !isLive(st) && !hasTurn(st) {
		return plainly(sayNoSession)
	}
	if err == nil {
		err = b.sessions.Mute(ctx, thread, word == "mute", at)
	}
	said := sayUnmuted
	if word == "mute" {
		said = sayMuted
	}
	return b.orTrouble(ctx, word, thread, answer{text: said, tell: said}, err)
}

// end ends a thread's session, unless that began after it was said, a ts. Work that is nowhere else is named first.
func (b *Bot) end(ctx context.Context, thread sessions.Thread, user, said string, sure bool) (answer, error) {
	st, err := b.sessions.Status(ctx, thread)
	if err != nil {
		return answer{}, err
	}
	s := st.Session
	if (s == nil || s.Ended()) && st.Running == nil && len(st.Queued) == 0 {
		return plainly(sayNoSession), nil
	}
	if st.BegunAfter(said) {
		return answer{}, sessions.ErrBegunSince
	}
	if s == nil {
		s = &sessions.Session{Thread: thread, Owner: owner(st)}
	}
	if why := b.people.mayEnd(ctx, user, *s); why != nil {
		return plainly(why.sentence), nil
	}
	if holdsWork(*s) && !sure {
		buttons := []slack.BlockElement{endAnyway(*s)}
		if canSave(*s) {
			buttons = append([]slack.BlockElement{button("save", saySaveThenEnd, thread.Key()+sureMark, "primary")}, buttons...)
		}
		return offering(sayUnpushed(*s), buttons...), nil
	}
	e, err := b.sessions.End(ctx, thread, user, said)
	if errors.Is(err, sessions.ErrNoSession) {
		return plainly(sayNoSession), nil
	}
	if err != nil {
		return answer{}, err
	}
	b.tellDropped(ctx, *s, e)
	return answer{text: sayEnding(e), tell: sayEnding(e)}, nil
}

// holdsWork reports whether a session holds work that is nowhere else, or may.
func holdsWork(s sessions.Session) bool { return len(s.Unpushed())+len(s.Loose()) > 0 }

// sureMark ends the value of a button whose presser was told what is lost.
const sureMark = "|sure"

// endAnyway ends a session though it holds work that is nowhere else.
func endAnyway(s sessions.Session) *slack.ButtonBlockElement {
	return button("end", "End it anyway", s.Thread.Key()+"|"+s.SessionID+sureMark, "danger")
}

// isSure reports whether who presses a button was told what its thread's session holds: a button may outlive the session that it is about.
func (b *Bot) isSure(ctx context.Context, thread sessions.Thread, value string) bool {
	value, sure := strings.CutSuffix(value, sureMark)
	_, session, named := strings.Cut(value, "|")
	if !sure || !named {
		return false
	}
	st, err := b.sessions.Status(ctx, thread)
	return err == nil && st.Session != nil && st.Session.SessionID == session
}

func owner(st sessions.Status) string {
	if st.Running != nil {
		return st.Running.User
	}
	return st.Queued[0].User
}
