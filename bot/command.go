package bot

import (
	"context"
	"fmt"
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
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	word, rest, _ := strings.Cut(strings.TrimSpace(c.Text), " ")
	word, rest = strings.ToLower(word), strings.TrimSpace(rest)
	if why := b.people.mayUse(ctx, c.UserID, c.ChannelID); why != nil {
		return plainly(why.sentence)
	}
	switch word {
	case "list":
		return b.act(ctx, word, sessions.Thread{Team: c.TeamID, Channel: c.ChannelID}, c.UserID, false)
	case "end", "stop", "status":
		return b.inThread(ctx, c, word, rest)
	case "run":
		return b.runOnce(ctx, c, rest)
	case "", "help":
		return plainly(sayHelp)
	}
	return plainly("I do not know “" + escape(clip(unescape(word), 40)) + "”.\n" + sayHelp)
}

// ephemeral is the body of an ack that answers a command.
func ephemeral(a answer) map[string]any {
	out := map[string]any{"response_type": "ephemeral", "text": a.text}
	if len(a.blocks) > 0 {
		out["blocks"] = a.blocks
	}
	return out
}

// inThread acts on the thread that a link names, else on the only live one of the channel, else shows a picker.
func (b *Bot) inThread(ctx context.Context, c slashCommand, word, link string) answer {
	thread, ok := parseLink(c.TeamID, link)
	if !ok && link != "" {
		return plainly("That is no link to a thread. Take one with “Copy link” from the menu of its first message.")
	}
	if ok && thread.Channel != c.ChannelID {
		if why := b.people.maySee(ctx, c.UserID, thread.Channel); why != nil && !(why.sentence == sayNotThere && b.owns(ctx, c.UserID, thread)) {
			return plainly(why.sentence)
		}
	}
	if !ok {
		live, err := b.sessions.List(ctx, c.TeamID, c.ChannelID)
		if err != nil {
			return plainly(sayTrouble)
		}
		switch {
		case len(live) == 0:
			return plainly(sayNoSession)
		case len(live) > 1 && word == "end":
			a, err := b.list(ctx, c.TeamID, c.ChannelID, "end")
			if err != nil {
				return plainly(sayTrouble)
			}
			a.text, a.blocks = "Which one?\n"+a.text, append([]slack.Block{section("Which one?")}, a.blocks...)
			return a
		case len(live) > 1:
			return plainly("There are several live sessions here: add a link to a thread.")
		}
		thread = live[0].Thread
	}
	a := b.act(ctx, word, thread, c.UserID, false)
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

var messageLink = regexp.MustCompile(`/archives/([A-Z0-9]+)/p(\d{10})(\d{6})(?:\?.*thread_ts=(\d{10}\.\d{6}))?`)

// parseLink reads a link to a message: its thread.
func parseLink(team, link string) (sessions.Thread, bool) {
	m := messageLink.FindStringSubmatch(strings.ReplaceAll(link, "&amp;", "&"))
	if m == nil {
		return sessions.Thread{}, false
	}
	ts := m[2] + "." + m[3]
	if m[4] != "" {
		ts = m[4]
	}
	return sessions.Thread{Team: team, Channel: m[1], TS: ts}, true
}

// runOnce begins a thread for a prompt that gets a machine of its own.
func (b *Bot) runOnce(ctx context.Context, c slashCommand, prompt string) answer {
	if prompt == "" {
		return plainly("Say what to run: `/flaude run PROMPT`.")
	}
	first, err := b.sessions.Once(ctx, "run:"+c.TriggerID)
	if err != nil || !first {
		return plainly(sayTrouble)
	}
	text := fmt.Sprintf("<@%s> runs once: %s", c.UserID, escape(clip(unescape(prompt), 500)))
	asked := sessions.TurnID("run:" + c.TriggerID)
	_, ts, err := b.api.PostMessageContext(ctx, c.ChannelID, slack.MsgOptionText(text, false), slack.MsgOptionDisableLinkUnfurl(), metadata("", asked, partNote))
	if isGone(err) {
		return plainly("I am not in this channel: invite me first.")
	}
	if err != nil {
		b.stubbornly(ctx, func(ctx context.Context) { b.removeRun(ctx, c.ChannelID, asked) })
		return plainly(sayTrouble)
	}
	t := sessions.Turn{
		ID: sessions.TurnID(c.TeamID + ":" + c.ChannelID + ":cmd-" + ts), Kind: sessions.KindOnce, User: c.UserID, TS: "cmd-" + ts,
		Thread: sessions.Thread{Team: c.TeamID, Channel: c.ChannelID, TS: ts}, Text: prompt, At: time.Now().UTC(), Mention: true,
	}
	res, err := b.sessions.Accept(ctx, t)
	if err != nil || res.Status == sessions.AcceptFull { // nothing will come in its thread
		b.remove(ctx, c.ChannelID, ts)
	}
	if err != nil {
		return plainly(sayTrouble)
	}
	if res.Status == sessions.AcceptFull {
		return plainly(sayFull)
	}
	return plainly("Running it. The answer comes in its thread.")
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
