package bot

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// slashCommand are the fields of a slash command. It never says in which thread it was typed: Slack takes none there.
type slashCommand struct {
	TeamID    string `json:"team_id"`
	ChannelID string `json:"channel_id"`
	UserID    string `json:"user_id"`
	Text      string `json:"text"`
	TriggerID string `json:"trigger_id"`
}

// commandTime bounds what a command may take: Slack waits 3 s for its answer.
const commandTime = 2500 * time.Millisecond

// command does what a slash command asks for, and returns what the person is answered.
func (b *Bot) command(ctx context.Context, c slashCommand) answer {
	ctx, cancel := context.WithTimeout(sessions.AskedBy(ctx, c.UserID), commandTime)
	defer cancel()
	word, rest, _ := strings.Cut(strings.TrimSpace(c.Text), " ")
	word, rest = strings.ToLower(word), strings.TrimSpace(rest)
	if word == "config" || word == "settings" { // whoever may not use the bot here may still be who sets that
		return b.config(ctx, c, rest)
	}
	if why := b.people.mayUse(ctx, c.UserID, c.ChannelID); why != nil {
		return plainly(why.sentence)
	}
	if word == "run" {
		return b.runOnce(ctx, c, rest)
	}
	rest, public := aloud(rest)
	a := b.answerCommand(ctx, c, word, rest)
	if public {
		return b.publicly(ctx, a)
	}
	return a
}

func (b *Bot) answerCommand(ctx context.Context, c slashCommand, word, rest string) answer {
	switch word {
	case "list":
		return b.listFor(ctx, c, rest)
	case "end", "stop", "status":
		return b.inThread(ctx, c, word, rest)
	case "costs":
		return b.costs(ctx, c, rest)
	case "", "help":
		return plainly(sayHelp)
	}
	return plainly(sayUnknownWord(word))
}

// listFor lists the sessions of this channel, of the one that a link leads to, or all of who asks.
func (b *Bot) listFor(ctx context.Context, c slashCommand, which string) answer {
	channel, mine := c.ChannelID, strings.EqualFold(which, "mine")
	thread, isLink := parseLink(c.TeamID, which)
	switch {
	case isLink && thread.Channel != c.ChannelID:
		if why := b.people.maySee(ctx, c.UserID, thread.Channel); why != nil {
			return plainly(why.sentence)
		}
		channel = thread.Channel
	case which != "" && !isLink && !mine:
		return plainly(sayListWhat)
	}
	a, err := b.list(ctx, c.TeamID, channel, c.UserID, mine)
	if err == nil && isLink {
		a = headed(sayListOf(channel), a)
	}
	return b.orTrouble(ctx, "list", sessions.Thread{Team: c.TeamID, Channel: channel}, a, err)
}

// headed is an answer below a line of its own.
func headed(head string, a answer) answer {
	if len(a.blocks) > 0 {
		a.blocks = append([]slack.Block{section(head)}, a.blocks...)
	}
	a.text = head + "\n" + a.text
	return a
}

// loudly matches a last word that asks for an answer to all of the channel. Some keyboards make one dash of two.
var loudly = regexp.MustCompile(`(?i)(^|\s+)(--|—|–)?public$`)

// aloud is what follows a command without the word that asks for an answer to all, and whether that was there.
func aloud(rest string) (string, bool) {
	if at := loudly.FindStringIndex(rest); at != nil {
		return strings.TrimSpace(rest[:at[0]]), true
	}
	return rest, false
}

// acked is the body of an ack that answers a command: to the person alone, unless they asked for all. Nil: a modal answers.
func acked(a answer) any {
	if a.text == "" {
		return nil
	}
	out := map[string]any{"response_type": "ephemeral", "text": a.text}
	if a.public {
		out["response_type"] = "in_channel"
	}
	if len(a.blocks) > 0 {
		out["blocks"] = a.blocks
	}
	return out
}

// inThread acts on the thread that a link names, else on the only one of the channel that can be meant, else shows a picker.
func (b *Bot) inThread(ctx context.Context, c slashCommand, word, link string) answer {
	thread, ok := parseLink(c.TeamID, link)
	switch {
	case ok && thread.Channel != c.ChannelID:
		if why := b.people.maySee(ctx, c.UserID, thread.Channel); why != nil && !(why.sentence == sayNotThere && b.owns(ctx, c.UserID, thread)) {
			return plainly(why.sentence)
		}
	case !ok && link != "":
		return plainly(sayNoLink)
	case !ok:
		var a answer
		var err error
		if thread, a, err = b.pick(ctx, c, word); err != nil || thread.TS == "" {
			return b.orTrouble(ctx, word, sessions.Thread{Team: c.TeamID, Channel: c.ChannelID}, a, err)
		}
	}
	return b.tell(ctx, thread, b.act(ctx, word, thread, c.UserID, false))
}

// tell tells a thread what an answer has for all of it.
func (b *Bot) tell(ctx context.Context, thread sessions.Thread, a answer) answer {
	if a.tell != "" {
		b.stubbornly(ctx, func(ctx context.Context) { b.say(ctx, thread, "", a.tell) })
	}
	return a
}

// owns reports whether somebody owns a thread's session. They may act on it wherever its channel has gone.
func (b *Bot) owns(ctx context.Context, user string, thread sessions.Thread) bool {
	st, err := b.sessions.Status(ctx, thread)
	return err == nil && st.Session != nil && st.Session.Owner == user
}

// Links to a message, as “Copy link” gives them, and to a thread, as a browser shows them.
var (
	messageLink = regexp.MustCompile(`/archives/([A-Z0-9]+)/p(\d{10})(\d{6})(?:\?.*thread_ts=(\d{10}\.\d{6}))?`)
	threadPage  = regexp.MustCompile(`/client/[A-Z0-9]+/.*thread/([A-Z0-9]+)-(\d{10}\.\d{6})`)
)

// parseLink reads a link to a message or a thread: the thread.
func parseLink(team, link string) (sessions.Thread, bool) {
	link = strings.ReplaceAll(link, "&amp;", "&")
	if m := threadPage.FindStringSubmatch(link); m != nil {
		return sessions.Thread{Team: team, Channel: m[1], TS: m[2]}, true
	}
	m := messageLink.FindStringSubmatch(link)
	if m == nil {
		return sessions.Thread{}, false
	}
	return sessions.Thread{Team: team, Channel: m[1], TS: cmp.Or(m[4], m[2]+"."+m[3])}, true
}

// runOnce begins a thread for a prompt that gets a machine of its own.
func (b *Bot) runOnce(ctx context.Context, c slashCommand, prompt string) answer {
	prompt, chosen, err := overridesIn(prompt)
	if err != nil {
		return plainly(err.Error())
	}
	var refused nameError
	if rest, _, err := b.repositories(prompt); errors.As(err, &refused) {
		return plainly(string(refused))
	} else if rest == "" {
		return plainly(sayWhatToRun)
	}
	if s, err := b.settingsOf(ctx, c.ChannelID); err != nil {
		return plainly(sayTrouble)
	} else if problem := refusedOverride(s, chosen); problem != "" {
		return plainly(string(problem))
	}
	first, err := b.sessions.Once(ctx, "run:"+c.TriggerID)
	if err != nil || !first {
		return plainly(sayTrouble)
	}
	text := sayRunsOnce(c.UserID, prompt)
	asked := sessions.TurnID("run:" + c.TriggerID)
	_, ts, err := b.api.PostMessageContext(ctx, c.ChannelID, slack.MsgOptionText(text, false), slack.MsgOptionDisableLinkUnfurl(), metadata("", asked, partNote))
	if isGone(err) {
		return plainly(sayInviteMe)
	}
	if err != nil {
		b.stubbornly(ctx, func(ctx context.Context) { b.removeRun(ctx, c.ChannelID, asked) })
		return plainly(sayTrouble)
	}
	t := sessions.Turn{
		ID: sessions.TurnID(c.TeamID + ":" + c.ChannelID + ":cmd-" + ts), Kind: sessions.KindOnce, User: c.UserID, TS: "cmd-" + ts,
		Thread: sessions.Thread{Team: c.TeamID, Channel: c.ChannelID, TS: ts}, Text: prompt, Overrides: chosen, At: time.Now().UTC(), Mention: true,
	}
	res, err := b.sessions.Accept(ctx, t)
	if err != nil || res.Status == sessions.AcceptFull { // nothing will come in its thread
		b.remove(ctx, c.ChannelID, ts)
	}
	if err != nil {
		return plainly(sayTrouble)
	}
	if res.Status == sessions.AcceptFull {
		return plainly(sayFull(res.Full))
	}
	return plainly(sayRunning)
}

// removeRun removes the message of a run that was not begun, if it stands in the channel: Slack did not say.
func (b *Bot) removeRun(ctx context.Context, channel string, asked sessions.TurnID) {
	var page []slack.Message
	err := b.insist(ctx, func() error {
		res, err := b.api.GetConversationHistoryContext(ctx, &slack.GetConversationHistoryParameters{
			ChannelID: channel, Oldest: before(sessions.TSOf(time.Now()), noteAge), Limit: 200, IncludeAllMetadata: true,
		})
		if err == nil {
			page = res.Messages
		}
		return err
	})
	if err != nil {
		b.log.WarnContext(ctx, "not looked for the message of a run that was not begun", "err", err)
	}
	for _, m := range page {
		if tr, ours := b.traceOf(m); ours && tr.turn == string(asked) {
			b.remove(ctx, channel, m.Timestamp)
		}
	}
}
