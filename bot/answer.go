package bot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// Finish implements [sessions.Front]: the answer is a message of its own, or several, since an edit notifies nobody.
func (b *Bot) Finish(ctx context.Context, s sessions.Session, t sessions.Turn, liveTS string, o sessions.Outcome, look bool) error {
	quiet := b.quiet(t) // the answer does not wait for an edit
	posted := map[string]string{}
	if look {
		var err error
		if posted, err = b.look(ctx, t, answerFile(o)); err != nil && !isGone(err) {
			return err
		}
	}
	err := b.postParts(ctx, s, t, o, posted)
	quiet()
	if isGone(err) {
		b.log.WarnContext(ctx, "the thread takes no messages any more", "turn", t.ID, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	b.settle(ctx, t, liveTS, o)
	return nil
}

// postParts posts the parts that are not in the thread yet, in order.
func (b *Bot) postParts(ctx context.Context, s sessions.Session, t sessions.Turn, o sessions.Outcome, posted map[string]string) error {
	all := b.parts(s, t, o, b.isEnding(ctx, t, o))
	all[len(all)-1].last = true
	for i, p := range all {
		name := strconv.Itoa(i + 1)
		if posted[name] != "" {
			continue
		}
		if p.file != "" && posted[partFile] == "" {
			if err := b.uploadAnswer(ctx, t, answerFile(o), p.file); err != nil {
				b.log.WarnContext(ctx, "answer not uploaded", "turn", t.ID, "err", err)
				p.text += "\n\n" + "(The rest could not be uploaded as a file.)"
			}
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
	footer   string // of the last part
	buttons  []slack.BlockElement
	file     string // the whole answer, which goes with this part as a file
	last     bool
}

// maxParts is how many messages an answer may take before it becomes a file.
const maxParts = 3

// isEnding reports whether a turn was stopped since its session ends: then there is nothing to go on with.
func (b *Bot) isEnding(ctx context.Context, t sessions.Turn, o sessions.Outcome) bool {
	if o.Failure != runner.FailStopped {
		return false
	}
	st, err := b.sessions.Status(ctx, t.Thread)
	return err == nil && ending(st)
}

// parts makes the messages of an outcome.
func (b *Bot) parts(s sessions.Session, t sessions.Turn, o sessions.Outcome, isEnding bool) []part {
	if t.Kind == sessions.KindEnd {
		return []part{{text: sayGoodbye(s, o)}}
	}
	answer := strings.TrimSpace(strings.ToValidUTF8(o.Answer, "\uFFFD"))
	bodies := split(answer)
	var out []part
	if len(bodies) > maxParts {
		out = append(out, part{markdown: bodies[0] + "\n\n_The whole answer is in the file " + answerFile(o) + "._", file: answer})
	} else {
		for _, body := range bodies {
			out = append(out, part{markdown: body})
		}
	}
	for i := range out {
		out[i].text = escape(out[i].markdown)
	}
	switch {
	case isEnding:
		out = append(out, part{text: sayStoppedForGood})
	case o.Failure != runner.FailNone:
		out = append(out, part{text: failureSentence(o)})
	case len(out) == 0:
		out = append(out, part{text: "Done. Claude had nothing to say about it."})
	}
	last := &out[len(out)-1]
	last.footer = footerLine(o)
	if canRetry(o.Failure) && t.Kind == sessions.KindTurn && !isEnding {
		last.buttons = append(last.buttons, button("retry", "Retry", string(t.ID), "primary"))
	}
	return out
}

// answerFile is the name of the file that holds a long answer. Messages with files carry no metadata: the number
// of the turn tells whose it is.
func answerFile(o sessions.Outcome) string { return fmt.Sprintf("answer-%d.md", o.Number) }

// partFile stands for that file among the parts of an answer.
const partFile = "file"

// blocks of a part: Slack renders Claude's own Markdown.
func (p part) blocks() []slack.Block {
	var out []slack.Block
	if p.markdown != "" {
		out = append(out, slack.NewMarkdownBlock("", p.markdown))
	} else {
		out = append(out, section(p.text))
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
	if p.footer == "" {
		return text
	}
	return text + "\n" + p.footer
}

// postPart posts one part. What Slack refuses for its form is posted as plain text, and at last as a file.
func (b *Bot) postPart(ctx context.Context, s sessions.Session, t sessions.Turn, o sessions.Outcome, name string, p part) error {
	meta := answerMetadata(s, t, o, name, p.last)
	text := slack.MsgOptionText(p.fallback(), false)
	_, err := b.post(ctx, t.Thread, meta, text, slack.MsgOptionBlocks(p.blocks()...))
	if !isCode(err, "invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long") {
		return err
	}
	b.log.WarnContext(ctx, "Slack refuses the form of an answer", "turn", t.ID, "part", name, "err", err)
	if _, err = b.post(ctx, t.Thread, meta, text); !isCode(err, "msg_too_long", "no_text") {
		return err
	}
	if err := b.uploadAnswer(ctx, t, answerFile(o), p.markdown); err != nil {
		return err
	}
	p.text = "The answer is in the file."
	_, err = b.post(ctx, t.Thread, meta, slack.MsgOptionText(p.fallback(), false))
	return err
}

// errThreadGone says that the root of the thread was deleted: Slack posts replies beside it.
var errThreadGone = errors.New("the thread's first message is gone")

// post posts into a thread. It is not repeated when the answer is lost: it may stand there.
func (b *Bot) post(ctx context.Context, thread sessions.Thread, opts ...slack.MsgOption) (string, error) {
	opts = append(opts, slack.MsgOptionTS(thread.TS), slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl())
	var ts string
	err := b.patiently(ctx, func() error {
		_, at, msg, err := b.api.PostMessageWithResponseContext(ctx, thread.Channel, opts...)
		ts = at
		if err == nil && msg.ThreadTimestamp == "" {
			if _, _, err := b.api.DeleteMessageContext(ctx, thread.Channel, at); err != nil {
				b.log.WarnContext(ctx, "stray reply not removed", "thread", thread.Key(), "err", err)
			}
			return errThreadGone
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("post in %s: %w", thread.Key(), err)
	}
	return ts, nil
}

// look finds what of a turn stands in its thread already: part → ts. file is the name of its answer's file, if it has one.
func (b *Bot) look(ctx context.Context, t sessions.Turn, file string) (map[string]string, error) {
	found := map[string]string{}
	params := &slack.GetConversationRepliesParameters{ChannelID: t.Thread.Channel, Timestamp: t.Thread.TS, IncludeAllMetadata: true, Limit: 200}
	if !strings.Contains(t.TS, "-") {
		params.Oldest = t.TS
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
			return found, fmt.Errorf("look in %s: %w", t.Thread.Key(), err)
		}
		for _, m := range page {
			if m.User == b.self && m.Metadata.EventType == eventType && m.Metadata.EventPayload["turn"] == string(t.ID) {
				name, _ := m.Metadata.EventPayload["part"].(string)
				found[name] = m.Timestamp
			}
			if m.User == b.self && file != "" && slices.ContainsFunc(m.Files, func(f slack.File) bool { return f.Name == file }) {
				found[partFile] = m.Timestamp
			}
		}
		if !more || cursor == "" {
			return found, nil
		}
		params.Cursor = cursor
	}
}

func (b *Bot) uploadAnswer(ctx context.Context, t sessions.Turn, name, text string) error {
	return b.patiently(ctx, func() error {
		_, err := b.api.UploadFileContext(ctx, slack.UploadFileParameters{
			Filename: name, Title: "Answer", FileSize: len(text), Content: text, Channel: t.Thread.Channel, ThreadTimestamp: t.Thread.TS,
		})
		return err
	})
}

// settle makes the live message say that it is over, and marks the message. Best effort: the answer stands.
func (b *Bot) settle(ctx context.Context, t sessions.Turn, liveTS string, o sessions.Outcome) {
	b.native.set(ctx, b, t.Thread, slack.AgentSessionStatusActive)
	if liveTS != "" {
		text := fmt.Sprintf("*%s* · %d s", doneSentence(o), seconds(o))
		block := slack.NewContextBlock("", slack.NewTextBlockObject(slack.MarkdownType, text, false, false))
		err := b.patiently(ctx, func() error {
			_, _, _, err := b.api.UpdateMessageContext(ctx, t.Thread.Channel, liveTS, slack.MsgOptionText(text, false), slack.MsgOptionBlocks(block))
			return err
		})
		if err != nil {
			b.log.WarnContext(ctx, "live message not settled", "turn", t.ID, "err", err)
		}
	}
	if t.Kind == sessions.KindEnd {
		b.native.set(ctx, b, t.Thread, slack.AgentSessionStatusClosed)
		return
	}
	b.aside(ctx, func(ctx context.Context) {
		mark := "white_check_mark"
		if o.Failure != runner.FailNone {
			mark = "x"
		}
		b.react(ctx, t, mark)
		b.unreact(ctx, t, "eyes")
	})
}

// Notify implements [sessions.Front].
func (b *Bot) Notify(ctx context.Context, n sessions.Notice) error {
	text := sayEndsSoon(n.At)
	_, err := b.post(ctx, n.Session.Thread, metadata(n.Session.SessionID, "", partNote), slack.MsgOptionText(text, false))
	if isGone(err) {
		return nil
	}
	return err
}
