package bot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// endsSoon is the notice that a session will end, with a button that puts that off.
func endsSoon(n sessions.Notice) answer {
	what := fmt.Sprintf("%s@%d", n.Session.SessionID, n.At.UnixNano())
	text, buttons := sayEndsSoon(n.At), []slack.BlockElement{button("keep", "Keep it", offerOf(n.Session.Thread, sessions.TurnID(what)), "primary")}
	if holdsWork(n.Session) {
		text += " " + sayUnpushed(n.Session)
	}
	if canSave(n.Session) {
		buttons = append(buttons, button("save", saySaveWork, n.Session.Thread.Key(), ""))
	}
	return offering(text, buttons...)
}

// pressKeep puts off the end that a notice tells of, and has the notice say so. However often it is pressed, that is done once.
func (b *Bot) pressKeep(ctx context.Context, p interactionPayload, thread sessions.Thread, what string) answer {
	session, nanos, _ := strings.Cut(what, "@")
	announced, err := strconv.ParseInt(nanos, 10, 64)
	if err != nil || session == "" {
		return plainly(sayOldButton)
	}
	until, err := b.sessions.Keep(ctx, thread, session, time.Unix(0, announced))
	said := sayKeptUntil(p.User.ID, until)
	switch {
	case errors.Is(err, sessions.ErrNoSession):
		said = sayWasRemoved
	case err != nil:
		b.log.WarnContext(ctx, "session not kept", "thread", thread.Key(), "err", err)
		return plainly(sayTrouble)
	}
	b.stubbornly(ctx, func(ctx context.Context) {
		err := b.insist(ctx, func() error {
			_, _, _, err := b.api.UpdateMessageContext(ctx, thread.Channel, p.Container.MessageTS, slack.MsgOptionText(said, false), slack.MsgOptionBlocks(section(said)))
			return err
		})
		if err != nil {
			b.log.DebugContext(ctx, "notice not changed", "thread", thread.Key(), "err", err)
		}
	})
	if said == sayWasRemoved {
		return plainly(sayKeptTooLate)
	}
	return answer{}
}
