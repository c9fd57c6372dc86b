package bot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// controlWord is a word that steers the bot instead of being a prompt. It is matched whole: "stop the server" is a prompt.
func controlWord(in incoming) string {
	words := strings.ToLower(strings.TrimSpace(in.words))
	bang := strings.HasPrefix(words, "!")
	word := strings.TrimRight(strings.TrimPrefix(words, "!"), ".!")
	switch word {
	case "end", "stop":
		if bang || in.mention {
			return word
		}
	case "status", "help", "list":
		if in.mention {
			return word
		}
	}
	return ""
}

// control acts on a control word, once however often its message is delivered.
func (b *Bot) control(ctx context.Context, in incoming, word string) error {
	first, err := b.sessions.Once(ctx, "control:"+string(in.id()))
	if err != nil || !first {
		return err
	}
	r := b.act(ctx, word, in.thread, in.event.User, false)
	b.aside(ctx, func(ctx context.Context) {
		if word == "end" || word == "stop" {
			b.say(ctx, in.thread, in.id(), r.text, r.blocks...)
			return
		}
		b.whisper(ctx, in.thread, in.event.User, r.text)
	})
	return nil
}

// answer is what a person is told.
type answer struct {
	text   string
	blocks []slack.Block
	tell   string // what the thread is told besides
}

func plainly(text string) answer { return answer{text: text} }

// act does what a control word asks for in a thread.
func (b *Bot) act(ctx context.Context, word string, thread sessions.Thread, user string, sure bool) answer {
	var a answer
	var err error
	switch word {
	case "stop":
		a, err = b.stop(ctx, thread)
	case "end":
		a, err = b.end(ctx, thread, user, sure)
	case "status":
		a, err = b.status(ctx, thread)
	case "list":
		a, err = b.list(ctx, thread.Team, thread.Channel, "")
	default:
		return plainly(sayHelp)
	}
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

// end ends a thread's session. Work that is nowhere else is named first.
func (b *Bot) end(ctx context.Context, thread sessions.Thread, user string, sure bool) (answer, error) {
	st, err := b.sessions.Status(ctx, thread)
	if err != nil {
		return answer{}, err
	}
	s := st.Session
	if (s == nil || s.Ended()) && st.Running == nil && len(st.Queued) == 0 {
		return plainly(sayNoSession), nil
	}
	if s == nil {
		s = &sessions.Session{Thread: thread, Owner: owner(st)}
	}
	if why := b.people.mayEnd(ctx, user, *s); why != nil {
		return plainly(why.sentence), nil
	}
	if len(s.Unpushed()) > 0 && !sure {
		text := sayUnpushed(*s)
		return answer{text: text, blocks: []slack.Block{
			slack.NewSectionBlock(slack.NewTextBlockObject(slack.MarkdownType, text, false, false), nil, nil),
			slack.NewActionBlock("", button("end", "End it anyway", thread.Key()+"|sure", "danger")),
		}}, nil
	}
	e, err := b.sessions.End(ctx, thread, user)
	if errors.Is(err, sessions.ErrNoSession) {
		return plainly(sayNoSession), nil
	}
	if err != nil {
		return answer{}, err
	}
	return answer{text: sayEnding(e), tell: sayEnding(e)}, nil
}

func owner(st sessions.Status) string {
	if st.Running != nil {
		return st.Running.User
	}
	return st.Queued[0].User
}

func (b *Bot) status(ctx context.Context, thread sessions.Thread) (answer, error) {
	st, err := b.sessions.Status(ctx, thread)
	if err != nil {
		return answer{}, err
	}
	var lines []string
	switch s := st.Session; {
	case s != nil && !s.Ended():
		lines = append(lines, fmt.Sprintf("Session of <@%s>: %s, $%.2f, machine `%s` in %s.", s.Owner, plural(s.Turns, "turn"), s.CostUSD, orDash(s.MachineID), orDash(s.Region)))
	case st.Running == nil && len(st.Queued) == 0:
		return plainly(sayNoSession), nil
	}
	if st.Running != nil {
		lines = append(lines, "Running: "+about(*st.Running))
	} else {
		lines = append(lines, sayNothingRuns)
	}
	for i, t := range st.Queued {
		lines = append(lines, fmt.Sprintf("%d. waiting: %s", i+1, about(t)))
	}
	return plainly(strings.Join(lines, "\n")), nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func about(t sessions.Turn) string {
	if t.Kind == sessions.KindEnd {
		return "the session's end"
	}
	text, _, _ := strings.Cut(t.Text, "\n")
	return "“" + escape(clip(unescape(text), 60)) + "” by <@" + t.User + ">"
}

// list shows the live sessions of a channel; with an action, a button for each.
func (b *Bot) list(ctx context.Context, team, channel, action string) (answer, error) {
	all, err := b.sessions.List(ctx, team, channel)
	if err != nil {
		return answer{}, err
	}
	if len(all) == 0 {
		return plainly("There are no live sessions in this channel."), nil
	}
	var lines []string
	var blocks []slack.Block
	for i, s := range all {
		line := fmt.Sprintf("%d. session of <@%s>, %s, last used <!date^%d^{date_short_pretty} {time}|%s>", i+1, s.Owner, plural(s.Turns, "turn"),
			s.LastTurn.Unix(), s.LastTurn.UTC().Format(time.DateTime))
		if link := b.permalink(ctx, s.Thread); link != "" {
			line += " · <" + link + "|open>"
		}
		lines = append(lines, line)
		if i < 20 {
			section := slack.NewSectionBlock(slack.NewTextBlockObject(slack.MarkdownType, line, false, false), nil, nil)
			if action != "" {
				section.Accessory = slack.NewAccessory(button(action, "End", s.Thread.Key(), "danger"))
			}
			blocks = append(blocks, section)
		}
	}
	return answer{text: strings.Join(lines, "\n"), blocks: blocks}, nil
}

func (b *Bot) permalink(ctx context.Context, t sessions.Thread) string {
	link, err := b.api.GetPermalinkContext(ctx, &slack.PermalinkParameters{Channel: t.Channel, Ts: t.TS})
	if err != nil {
		return ""
	}
	return link
}

// slashCommand are the fields of a slash command. It never says in which thread it was typed: Slack takes none there.
type slashCommand struct {
	TeamID    string `json:"team_id"`
	ChannelID string `json:"channel_id"`
	UserID    string `json:"user_id"`
	Text      string `json:"text"`
	TriggerID string `json:"trigger_id"`
}

// command answers a slash command, to the person alone.
func (b *Bot) command(ctx context.Context, payload json.RawMessage) any {
	var c slashCommand
	if err := json.Unmarshal(payload, &c); err != nil {
		return ephemeral(plainly(sayHelp))
	}
	ctx, cancel := context.WithTimeout(ctx, 2500*time.Millisecond) // Slack waits 3 s
	defer cancel()
	if why := b.people.mayUse(ctx, c.UserID, c.ChannelID); why != nil {
		return ephemeral(plainly(why.sentence))
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(c.Text), " ")
	word, rest = strings.ToLower(word), strings.TrimSpace(rest)
	switch word {
	case "list":
		return ephemeral(b.act(ctx, word, sessions.Thread{Team: c.TeamID, Channel: c.ChannelID}, c.UserID, false))
	case "end", "stop", "status":
		return ephemeral(b.inThread(ctx, c, word, rest))
	case "run":
		return ephemeral(b.runOnce(ctx, c, rest))
	}
	return ephemeral(plainly(sayHelp))
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
		if why := b.people.maySee(ctx, c.UserID, thread.Channel); why != nil {
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
			a.text = "Which one? \n" + a.text
			return a
		case len(live) > 1:
			return plainly("There are several live sessions here: add a link to a thread.")
		}
		thread = live[0].Thread
	}
	a := b.act(ctx, word, thread, c.UserID, false)
	if a.tell != "" {
		b.aside(ctx, func(ctx context.Context) { b.say(ctx, thread, "", a.tell) })
	}
	return a
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
	_, ts, err := b.api.PostMessageContext(ctx, c.ChannelID, slack.MsgOptionText(text, false), slack.MsgOptionDisableLinkUnfurl())
	if isGone(err) {
		return plainly("I am not in this channel: invite me first.")
	}
	if err != nil {
		return plainly(sayTrouble)
	}
	t := sessions.Turn{
		ID: sessions.TurnID(c.TeamID + ":" + c.ChannelID + ":cmd-" + ts), Kind: sessions.KindOnce, User: c.UserID, TS: "cmd-" + ts,
		Thread: sessions.Thread{Team: c.TeamID, Channel: c.ChannelID, TS: ts}, Text: prompt, At: time.Now().UTC(), Mention: true,
	}
	res, err := b.sessions.Accept(ctx, t)
	if err != nil || res.Status == sessions.AcceptFull { // nothing will come in its thread
		if _, _, err := b.api.DeleteMessageContext(context.WithoutCancel(ctx), c.ChannelID, ts); err != nil {
			b.log.WarnContext(ctx, "message of a refused run not removed", "err", err)
		}
	}
	if err != nil {
		return plainly(sayTrouble)
	}
	if res.Status == sessions.AcceptFull {
		return plainly(sayFull)
	}
	return plainly("Running it. The answer comes in its thread.")
}

// interactionPayload are the fields of a click, a shortcut or a modal.
type interactionPayload struct {
	Type string `json:"type"`
	Team struct {
		ID string `json:"id"`
	} `json:"team"`
	User struct {
		ID     string `json:"id"`
		TeamID string `json:"team_id"`
	} `json:"user"`
	Channel struct {
		ID string `json:"id"`
	} `json:"channel"`
	Container struct {
		MessageTS string `json:"message_ts"`
		ThreadTS  string `json:"thread_ts"`
	} `json:"container"`
	Message *innerEvent `json:"message"`
	View    struct {
		ID string `json:"id"`
	} `json:"view"`
	MessageTS   string `json:"message_ts"`
	TriggerID   string `json:"trigger_id"`
	CallbackID  string `json:"callback_id"`
	ResponseURL string `json:"response_url"`
	Actions     []struct {
		ActionID string `json:"action_id"`
		Value    string `json:"value"`
	} `json:"actions"`
}

// interaction acts on a click or a shortcut. Whoever sees a button can press it: each press is checked.
func (b *Bot) interaction(ctx context.Context, payload json.RawMessage, ack func(any)) {
	var p interactionPayload
	if err := json.Unmarshal(payload, &p); err != nil {
		ack(nil)
		return
	}
	switch {
	case p.Type == "message_action" && p.CallbackID == "manage_session":
		ack(nil)
		b.manage(ctx, p)
	case p.Type == "block_actions" && len(p.Actions) > 0:
		ack(nil) // Slack waits 3 s, and shows no answer here: what comes of it is said below
		a := b.press(ctx, p)
		if a.text != "" {
			b.answerPress(ctx, p, a)
		}
	default:
		ack(nil)
	}
}

// press acts on a button and returns what its presser is told.
func (b *Bot) press(ctx context.Context, p interactionPayload) answer {
	action := p.Actions[0]
	thread, turn := target(p, action.ActionID, action.Value)
	if thread.TS == "" {
		return plainly(sayOldButton)
	}
	if why := b.people.mayUse(ctx, p.User.ID, thread.Channel); why != nil {
		return plainly(why.sentence)
	}
	switch action.ActionID {
	case "stop":
		return b.pressStop(ctx, thread, turn)
	case "end":
		a := b.act(ctx, "end", thread, p.User.ID, strings.HasSuffix(action.Value, "|sure"))
		if a.tell != "" {
			b.say(ctx, thread, "", a.tell)
		}
		return a
	case "retry":
		return b.pressRetry(ctx, p, thread, turn)
	}
	return answer{}
}

// target is what a button is about: stop and retry carry a turn, end a thread.
func target(p interactionPayload, action, value string) (sessions.Thread, sessions.TurnID) {
	value = strings.TrimSuffix(value, "|sure")
	if action == "end" || p.View.ID != "" {
		thread, _ := sessions.ParseThread(value)
		return thread, ""
	}
	thread := sessions.Thread{Team: p.Team.ID, Channel: p.Channel.ID, TS: p.Container.ThreadTS}
	if thread.TS == "" && p.Message != nil {
		thread.TS = p.Message.thread()
	}
	return thread, sessions.TurnID(value)
}

func (b *Bot) pressStop(ctx context.Context, thread sessions.Thread, turn sessions.TurnID) answer {
	if turn == "" {
		return b.act(ctx, "stop", thread, "", false)
	}
	waiting, running, err := b.sessions.Cancel(ctx, thread, turn)
	switch {
	case err != nil:
		return plainly(sayTrouble)
	case waiting || running:
		return plainly(sayStopping)
	}
	return plainly(sayNothingRuns)
}

// pressRetry runs the prompt of a turn again, as a turn of its own: one for each message that offers it.
func (b *Bot) pressRetry(ctx context.Context, p interactionPayload, thread sessions.Thread, turn sessions.TurnID) answer {
	parts := strings.SplitN(string(turn), ":", 3)
	if len(parts) != 3 || p.Container.MessageTS == "" {
		return plainly(sayOldButton)
	}
	ts, _, _ := strings.Cut(parts[2], "-retry-")
	if strings.HasPrefix(ts, "cmd") {
		return plainly(sayRetryGone)
	}
	old := sessions.Turn{ID: turn, Thread: thread, TS: ts}
	m, err := b.messageAt(ctx, old)
	if err != nil {
		return plainly(sayRetryGone)
	}
	e := innerEvent{User: p.User.ID, Text: m.Text, TS: ts, ThreadTS: thread.TS, Channel: thread.Channel}
	for _, f := range m.Files {
		e.Files = append(e.Files, slackFile{ID: f.ID, Name: f.Name, Size: int64(f.Size), URL: f.URLPrivateDownload, External: f.IsExternal})
	}
	t := b.turn(b.read(thread.Team, e), true)
	t.ID = turnID(thread.Team, thread.Channel, ts+"-retry-"+p.Container.MessageTS)
	res, err := b.sessions.Accept(ctx, t)
	switch {
	case err != nil:
		return plainly(sayTrouble)
	case res.Status == sessions.AcceptFull:
		return plainly(sayFull)
	case res.Status == sessions.AcceptDuplicate:
		return plainly("It is being run again already.")
	case res.Ahead > 0:
		return plainly(sayPlace(res.Ahead))
	}
	return plainly("Running it again.")
}

// answerPress tells the presser what happened; a picker that was used is replaced.
func (b *Bot) answerPress(ctx context.Context, p interactionPayload, a answer) {
	thread := p.Container.ThreadTS
	if thread == "" && p.Message != nil {
		thread = p.Message.thread()
	}
	if p.View.ID != "" {
		b.showInModal(ctx, p.View.ID, a)
		return
	}
	if p.Channel.ID == "" {
		return
	}
	opts := []slack.MsgOption{slack.MsgOptionText(a.text, false)}
	if len(a.blocks) > 0 {
		opts = append(opts, slack.MsgOptionBlocks(a.blocks...))
	}
	if thread != "" {
		opts = append(opts, slack.MsgOptionTS(thread))
	}
	err := b.patiently(ctx, func() error {
		_, err := b.api.PostEphemeralContext(ctx, p.Channel.ID, p.User.ID, opts...)
		return err
	})
	if err != nil {
		b.log.DebugContext(ctx, "press not answered", "err", err)
	}
}

// manage shows a session in a modal, from the menu of any message of its thread.
func (b *Bot) manage(ctx context.Context, p interactionPayload) {
	if p.Message == nil {
		return
	}
	thread := sessions.Thread{Team: p.Team.ID, Channel: p.Channel.ID, TS: p.Message.thread()}
	a := answer{}
	if why := b.people.mayUse(ctx, p.User.ID, thread.Channel); why != nil {
		a = plainly(why.sentence)
	} else if a = b.act(ctx, "status", thread, p.User.ID, false); a.text != sayNoSession && a.text != sayTrouble {
		a.blocks = []slack.Block{section(a.text), slack.NewActionBlock("",
			button("stop", "Stop the turn", thread.Key(), ""), button("end", "End session", thread.Key(), "danger"))}
	}
	if _, err := b.api.OpenViewContext(ctx, p.TriggerID, modal(a)); err != nil {
		b.log.WarnContext(ctx, "modal not opened", "err", err)
	}
}

func (b *Bot) showInModal(ctx context.Context, view string, a answer) {
	if _, err := b.api.UpdateViewContext(ctx, modal(a), "", "", view); err != nil {
		b.log.WarnContext(ctx, "modal not changed", "err", err)
	}
}

func section(text string) slack.Block {
	return slack.NewSectionBlock(slack.NewTextBlockObject(slack.MarkdownType, clip(text, 2900), false, false), nil, nil)
}

func modal(a answer) slack.ModalViewRequest {
	blocks := a.blocks
	if len(blocks) == 0 {
		blocks = []slack.Block{section(a.text)}
	}
	return slack.ModalViewRequest{
		Type: slack.VTModal, Title: slack.NewTextBlockObject(slack.PlainTextType, "Session", false, false),
		Close: slack.NewTextBlockObject(slack.PlainTextType, "Close", false, false), Blocks: slack.Blocks{BlockSet: blocks},
	}
}
