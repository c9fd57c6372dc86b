package bot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// Finish implements [sessions.Front]: the answer is a message of its own, or several, since an edit notifies nobody.
func (b *Bot) Finish(ctx context.Context, s sessions.Session, t sessions.Turn, liveTS string, o sessions.Outcome, look bool) error {
	ctx = withUrgency(ctx, urgent)
	if isPrivate(t) {
		return b.tellPrivately(ctx, s, t, o)
	}
	l := b.quiet(t) // the answer does not wait for an edit
	posted := map[string]string{}
	if look {
		var err error
		if posted, err = b.look(ctx, t, fileOf(t, o)); err != nil && !isGone(err) {
			return err
		}
	}
	err := b.postParts(ctx, s, t, o, posted)
	doubt := look || l.unanswered()
	if isGone(err) { // edits may still be taken
		b.log.WarnContext(ctx, "the thread takes no messages any more", "turn", t.ID, "err", err)
		b.tellElsewhere(ctx, s, t, o, err)
	} else if err != nil {
		return err
	}
	if err := b.settle(ctx, t, cmp.Or(liveTS, posted[partLive]), o, doubt); err != nil {
		return err
	}
	return b.endAfter(ctx, s, t, o)
}

// postParts posts the parts that are not in the thread yet, in order.
func (b *Bot) postParts(ctx context.Context, s sessions.Session, t sessions.Turn, o sessions.Outcome, posted map[string]string) error {
	isEnding := b.isEnding(ctx, t, o)
	parts := b.parts(s, t, o, isEnding, maxParts)
	if i := slices.IndexFunc(parts, func(p part) bool { return p.file != "" }); i >= 0 && posted[partFile] == "" {
		err := b.uploadAnswer(ctx, t, fileOf(t, o), parts[i].file)
		switch {
		case err == nil:
		case isGone(err), isPassing(err), ctx.Err() != nil:
			return fmt.Errorf("upload the answer of %s: %w", t.ID, err)
		default: // Slack takes no files here
			b.log.WarnContext(ctx, "answer not uploaded", "turn", t.ID, "err", err)
			parts = b.parts(s, t, o, isEnding, maxPartsNoFile)
		}
	}
	parts[len(parts)-1].last = true
	for i, p := range parts {
		name := strconv.Itoa(i + 1)
		if posted[name] != "" {
			continue
		}
		if err := b.postPart(ctx, s, t, o, name, p); err != nil {
			return err
		}
	}
	return nil
}

// part is one message of an answer.
type part struct {
	markdown string // body
	text     string // body as plain text, for notifications and for readers without blocks
	changes  string // of the last part: what the turn changed, as mrkdwn
	footer   string // of the last part
	buttons  []slack.BlockElement
	whole    []slack.Block // instead of all that, but for the text
	file     string        // the whole answer, which goes with this part as a file
	last     bool
}

// How many messages an answer may take before it becomes a file, and before it is cut where Slack takes no files.
const (
	maxParts       = 3
	maxPartsNoFile = 20
)

// isEnding reports whether a turn was stopped since its session ends: then there is nothing to go on with.
func (b *Bot) isEnding(ctx context.Context, t sessions.Turn, o sessions.Outcome) bool {
	if o.Failure != runner.FailStopped {
		return false
	}
	st, err := b.sessions.Status(ctx, t.Thread)
	return err == nil && ending(st)
}

// parts makes the messages of an outcome, at most so many of its answer.
func (b *Bot) parts(s sessions.Session, t sessions.Turn, o sessions.Outcome, isEnding bool, most int) []part {
	if t.Kind == sessions.KindEnd {
		return []part{{text: sayGoodbye(s, o), buttons: pullButtons(s)}}
	}
	if t.Kind == sessions.KindErrand {
		return b.errandParts(s, t, o, isEnding, most == maxParts)
	}
	answer := strings.TrimSpace(strings.ToValidUTF8(o.Answer, "\uFFFD"))
	bodies := split(answer)
	var out []part
	switch {
	case len(bodies) > most && most == maxParts:
		out = append(out, part{markdown: bodies[0] + "\n\n_" + sayInFile(answerFile(o)) + "_", file: answer})
	default:
		for _, body := range bodies[:min(len(bodies), most)] {
			out = append(out, part{markdown: body})
		}
		if len(bodies) > most {
			out[most-1].markdown += "\n\n_" + sayCutShort + "_"
		}
	}
	for i := range out {
		out[i].text = plainText(out[i].markdown)
	}
	if len(o.Denied) > 0 {
		out = append(out, part{text: sayDenied(o.Denied)})
	}
	if len(o.Unreached) > 0 {
		out = append(out, part{text: sayUnreached(o.Unreached)})
	}
	switch {
	case isEnding:
		out = append(out, part{text: sayStoppedForGood})
	case o.Failure != runner.FailNone:
		text := failureSentence(o)
		if o.Failure == runner.FailBudget {
			text = sayBroke(o, t.Kind == sessions.KindTurn)
		}
		out = append(out, part{text: text})
	case len(out) == 0:
		out = append(out, part{text: sayNothingToSay})
	}
	last := &out[len(out)-1]
	last.footer = footerLine(o)
	if canContinue(o.Failure) && t.Kind == sessions.KindTurn && !isEnding {
		last.buttons = append(last.buttons, button("continue", "Continue", string(t.ID), ""))
	}
	if o.Larger != nil && !isEnding {
		last.buttons = append(last.buttons, largerButton(t, *o.Larger))
	}
	if allow := allowButton(t, o); allow != nil && t.Kind == sessions.KindTurn && !isEnding {
		last.buttons = append(last.buttons, allow)
	}
	if canRetry(o.Failure) && t.Kind == sessions.KindTurn && !isEnding {
		last.buttons = append(last.buttons, button("retry", "Retry", string(t.ID), "primary"))
	}
	if (o.Failure == runner.FailTranscript || o.Failure == runner.FailDisk) && !isEnding { // as the sentence says
		last.buttons = append(last.buttons, button("end", "End session", t.Thread.Key(), "danger"))
	}
	last.buttons = append(last.buttons, madeButtons(o)...)
	if t.Kind == sessions.KindTurn && !isEnding && canPull(s, o) {
		last.buttons = append(last.buttons, button("pull", sayOpenPull(b.requestAt(s, hosted(s, o.Repos))), string(t.ID), ""))
	}
	last.changes = strings.TrimSpace(sayUnshown(o.Unshown) + "\n" + changeLines(o.Changes))
	if !isEnding { // else nobody can fetch it in a moment
		last.buttons = append(last.buttons, changeButtons(t, o.Outcome)...)
	}
	if details := detailButton(t, o); details != nil {
		last.buttons = append(last.buttons, details)
	}
	return out
}

// answerFile is the name of the file that holds a long answer. Messages with files carry no metadata: the number
// of the turn tells whose it is.
func answerFile(o sessions.Outcome) string { return fmt.Sprintf("answer-%d.md", o.Number) }

// fileOf is the name of the file that goes with an outcome, if one does.
func fileOf(t sessions.Turn, o sessions.Outcome) string {
	return cmp.Or(errandFile(t, o), answerFile(o))
}

// partLive is the live message among the messages of a turn.
const partLive = "live"

// partFile stands for that file among the parts of an answer.
const partFile = "file"

// blocks of a part: Slack renders Claude's own Markdown.
func (p part) blocks() []slack.Block {
	if p.whole != nil {
		return p.whole
	}
	var out []slack.Block
	if p.markdown != "" {
		out = append(out, slack.NewMarkdownBlock("", p.markdown))
	} else {
		out = append(out, section(p.text))
	}
	if p.changes != "" {
		out = append(out, section(p.changes))
	}
	if len(p.buttons) > 0 {
		out = append(out, slack.NewActionBlock("", p.buttons...))
	}
	if p.footer != "" {
		out = append(out, slack.NewContextBlock("", slack.NewTextBlockObject(slack.MarkdownType, p.footer, false, false)))
	}
	return out
}

// maxFallback keeps the text, footer included, below the 40,000 characters at which Slack cuts it.
const maxFallback = 39000

// fallback is the text of the message, footer last.
func (p part) fallback() string {
	text := clip(p.text, maxFallback)
	if p.changes != "" {
		text += "\n" + p.changes
	}
	text += linkLines(p.buttons)
	if p.footer == "" {
		return text
	}
	return text + "\n" + p.footer
}

// postPart posts one part. What Slack refuses for its form is posted as plain text, then as a file; where Slack takes no files either, as
// much of it as anything takes.
func (b *Bot) postPart(ctx context.Context, s sessions.Session, t sessions.Turn, o sessions.Outcome, name string, p part) error {
	meta := answerMetadata(s, t, o, name, p.last)
	form := func(form ...slack.MsgOption) error {
		_, err := b.post(ctx, t.Thread, append(form, meta)...)
		if isRefused(err) {
			b.log.WarnContext(ctx, "Slack refuses the form of an answer", "turn", t.ID, "part", name, "err", err)
		}
		return err
	}
	err := inForm(p.fallback(), p.blocks(), form)
	if !isRefused(err) {
		return err
	}
	short := part{text: sayOnlyInFile(answerFile(o)), footer: p.footer}
	if err := b.uploadAnswer(ctx, t, answerFile(o), cmp.Or(p.markdown, p.text)); err != nil {
		if isGone(err) || isPassing(err) || ctx.Err() != nil {
			return fmt.Errorf("upload the answer of %s: %w", t.ID, err)
		}
		b.log.WarnContext(ctx, "answer not uploaded", "turn", t.ID, "part", name, "err", err)
		short.text = clip(p.text, maxPlain)
	}
	return form(slack.MsgOptionText(short.fallback(), false))
}

// maxPlain is a length of text that Slack takes wherever it takes text.
const maxPlain = 3000

// errThreadGone says that the root of the thread was deleted: Slack posts replies beside it.
var errThreadGone = errors.New("the thread's first message is gone")

// post posts into a thread. It is not repeated when the answer is lost: it may stand there.
func (b *Bot) post(ctx context.Context, thread sessions.Thread, opts ...slack.MsgOption) (string, error) {
	opts = append(opts, slack.MsgOptionTS(thread.TS), slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl())
	var ts string
	err := b.patiently(ctx, wholly(ctx, func(ctx context.Context) error {
		_, at, msg, err := b.api.PostMessageWithResponseContext(ctx, thread.Channel, opts...)
		ts = at
		if err == nil && msg.ThreadTimestamp == "" {
			b.remove(ctx, thread.Channel, at)
			return errThreadGone
		}
		return err
	}))
	if err != nil {
		return "", fmt.Errorf("post in %s: %w", thread.Key(), err)
	}
	return ts, nil
}

// remove takes back a message of the bot's, in the end.
func (b *Bot) remove(ctx context.Context, channel, ts string) {
	try := func(ctx context.Context) error {
		_, _, err := b.api.DeleteMessageContext(ctx, channel, ts)
		if isCode(err, "message_not_found") {
			err = nil
		}
		if err != nil {
			b.log.WarnContext(ctx, "message not removed yet", "channel", channel, "err", err)
		}
		return err
	}
	if err := try(ctx); err != nil && (isPassing(err) || ctx.Err() != nil) {
		b.later(ctx, err, try)
	}
}

// look finds what of a turn stands in its thread already: part → ts. file is the name of its answer's file, if it has one.
func (b *Bot) look(ctx context.Context, t sessions.Turn, file string) (map[string]string, error) {
	found := map[string]string{}
	oldest, asked := "", ""
	if !strings.Contains(t.TS, "-") {
		oldest = t.TS
	}
	if t.Kind == sessions.KindErrand { // an earlier one may have brought a file of that name
		asked = sessions.TSOf(t.At)
	}
	err := b.eachOwn(ctx, t.Thread, oldest, func(m slack.Message, turn sessions.TurnID, part string) {
		if turn == t.ID {
			found[part] = m.Timestamp
		}
		if file != "" && m.Timestamp > asked && slices.ContainsFunc(m.Files, func(f slack.File) bool { return f.Name == file }) {
			found[partFile] = m.Timestamp
		}
	})
	return found, err
}

// eachOwn reads the bot's own messages of a thread, with what their metadata says. oldest is a ts, "" for all of them.
func (b *Bot) eachOwn(ctx context.Context, thread sessions.Thread, oldest string, do func(m slack.Message, turn sessions.TurnID, part string)) error {
	params := &slack.GetConversationRepliesParameters{
		ChannelID: thread.Channel, Timestamp: thread.TS, Oldest: oldest, IncludeAllMetadata: true, Limit: 200,
	}
	for {
		var page []slack.Message
		var more bool
		var cursor string
		err := b.patiently(ctx, func() (err error) {
			page, more, cursor, err = b.api.GetConversationRepliesContext(ctx, params)
			return err
		})
		if err != nil {
			return fmt.Errorf("look in %s: %w", thread.Key(), err)
		}
		for _, m := range page {
			if m.User != b.self {
				continue
			}
			tr, _ := b.traceOf(m)
			do(m, sessions.TurnID(tr.turn), tr.part)
		}
		if !more || cursor == "" {
			return nil
		}
		params.Cursor = cursor
	}
}

func (b *Bot) uploadAnswer(ctx context.Context, t sessions.Turn, name, text string) error {
	title := "Answer"
	if t.Kind == sessions.KindErrand {
		title = name
	}
	return b.patiently(ctx, wholly(ctx, func(ctx context.Context) error {
		_, err := b.api.UploadFileContext(ctx, slack.UploadFileParameters{
			Filename: name, Title: title, FileSize: len(text), Content: text, Channel: t.Thread.Channel, ThreadTimestamp: t.Thread.TS,
		})
		return err
	}))
}

// settle makes the live message say that it is over, and marks the message. An error says that the turn is another owner's by now, who
// has it settled. doubt: an edit of before may still be on its way.
func (b *Bot) settle(ctx context.Context, t sessions.Turn, liveTS string, o sessions.Outcome, doubt bool) error {
	status := slack.AgentSessionStatusActive
	if t.Kind == sessions.KindEnd {
		status = slack.AgentSessionStatusClosed
	}
	b.native.set(ctx, b, t.Thread, slack.AgentSessionSetStatusParameters{Status: status})
	if t.Kind == sessions.KindTurn || t.Kind == sessions.KindOnce {
		b.aside(ctx, func(ctx context.Context) {
			mark := "white_check_mark"
			if o.Failure != runner.FailNone {
				mark = "x"
			}
			b.react(ctx, t, mark)
			b.unreact(ctx, t, heardMark)
		})
	}
	if liveTS == "" {
		return nil
	}
	return b.settleLive(ctx, t, liveTS, o, doubt)
}

// settleLive settles the live message: it would say for ever that the turn runs, with a Stop button. Until Slack has taken that the turn is not
// over, so that whoever takes it over does it again; a Slack that takes it for too long keeps no thread waiting, and it is done beside all else.
func (b *Bot) settleLive(ctx context.Context, t sessions.Turn, liveTS string, o sessions.Outcome, doubt bool) error {
	what := doneSentence(o)
	if t.Kind == sessions.KindErrand {
		what = escape(t.Text) + ": " + lowerFirst(what)
	}
	text := fmt.Sprintf("*%s* · %d s", what, seconds(o))
	block := slack.NewContextBlock("", slack.NewTextBlockObject(slack.MarkdownType, text, false, false))
	update := func(ctx context.Context) error {
		err := inForm(text, []slack.Block{block}, func(form ...slack.MsgOption) error {
			_, _, _, err := b.api.UpdateMessageContext(ctx, t.Thread.Channel, liveTS, form...)
			return err
		})
		if isCode(err, "message_not_found") { // somebody deleted it
			err = nil
		}
		if err != nil {
			b.log.WarnContext(ctx, "live message not settled yet", "turn", t.ID, "err", err)
		}
		return err
	}
	limit, cancel := context.WithTimeout(ctx, b.lastEdit)
	defer cancel()
	err := b.insist(limit, func() error { return update(limit) })
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("settle the live message of %s: %w", t.ID, errors.Join(context.Cause(ctx), err))
	case err != nil && isPassing(err):
		b.later(ctx, err, update)
	case err == nil && doubt:
		b.onceMore(ctx, update)
	}
	return nil
}

// onceMore repeats an edit when what may have been on its way before it has arrived: that of an owner who was killed or asleep, or one whose
// answer never came.
func (b *Bot) onceMore(ctx context.Context, update func(context.Context) error) {
	b.stubbornly(ctx, func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-b.left:
		case <-time.After(b.editAgain):
		}
		_ = b.insist(ctx, func() error { return update(ctx) })
	})
}

// tellElsewhere tells who asked, in a direct message, that the answer has nowhere to go. The button ends a session that nobody can
// reach through its thread any more.
func (b *Bot) tellElsewhere(ctx context.Context, s sessions.Session, t sessions.Turn, o sessions.Outcome, why error) {
	if t.Kind == sessions.KindEnd || o.Failure == runner.FailStopped || o.Failure == sessions.FailGone || o.Failure == sessions.FailEnded {
		return // by somebody who knows
	}
	text := sayNowhere(t.Thread.Channel, why)
	a := plainly(text)
	if t.Kind == sessions.KindTurn && !s.Ended() {
		a = offering(text, button("end", "End session", s.Thread.Key(), "danger"))
	}
	b.stubbornly(ctx, func(ctx context.Context) {
		err := b.insist(ctx, func() error {
			return inForm(a.text, a.blocks, func(form ...slack.MsgOption) error {
				_, _, err := b.api.PostMessageContext(ctx, t.User, append(form, metadata(s.SessionID, t.ID, partNote))...)
				return err
			})
		})
		if err != nil {
			b.log.WarnContext(ctx, "nobody told that an answer has nowhere to go", "turn", t.ID, "err", err)
		}
	})
}

// Notify implements [sessions.Front]. One that could not be posted is given again some minutes later: perhaps it stands there.
func (b *Bot) Notify(ctx context.Context, n sessions.Notice) error {
	a := endsSoon(n)
	err := b.note(ctx, n.Session.Thread, n.Session.SessionID, "", true, a.text, a.blocks...)
	if isGone(err) {
		return nil
	}
	return err
}
