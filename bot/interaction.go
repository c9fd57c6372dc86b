package bot

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

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
		ID       string `json:"id"`
		Kind     string `json:"callback_id"`
		Metadata string `json:"private_metadata"`
		Root     string `json:"root_view_id"`
		Previous string `json:"previous_view_id"`
		State    struct {
			Values filled `json:"values"`
		} `json:"state"`
	} `json:"view"`
	MessageTS   string `json:"message_ts"`
	TriggerID   string `json:"trigger_id"`
	CallbackID  string `json:"callback_id"`
	ResponseURL string `json:"response_url"`
	Actions     []struct {
		ActionID string `json:"action_id"`
		ActionTS string `json:"action_ts"`
		BlockID  string `json:"block_id"`
		Value    string `json:"value"`
		Option   struct {
			Value string `json:"value"`
			Text  struct {
				Text string `json:"text"`
			} `json:"text"`
		} `json:"selected_option"`
	} `json:"actions"`
}

// interaction acts on a click or a shortcut. Whoever sees a button can press it: each press is checked.
func (b *Bot) interaction(ctx context.Context, payload json.RawMessage, ack func(any)) {
	var p interactionPayload
	if err := json.Unmarshal(payload, &p); err != nil {
		ack(nil)
		return
	}
	ctx = sessions.AskedBy(ctx, p.User.ID)
	switch {
	case p.Type == "message_action" && p.CallbackID == "manage_session":
		ack(nil)
		b.shortcut(ctx, p)
	case p.Type == "block_actions" && len(p.Actions) > 0 && p.Actions[0].ActionID == "details":
		ack(nil)
		b.showDetail(ctx, p)
	case p.Type == "view_submission" && strings.HasPrefix(p.View.Kind, configKind):
		ack(b.submitConfig(ctx, p))
	case p.Type == "block_actions" && len(p.Actions) > 0 && strings.HasPrefix(p.View.Kind, configKind):
		ack(nil)
		b.pressConfig(ctx, p)
	case p.Type == "block_actions" && len(p.Actions) > 0:
		ack(nil) // Slack waits 3 s, and shows no answer here: what comes of it is said below
		if strings.HasPrefix(p.Actions[0].ActionID, linkAction) {
			return
		}
		limit, cancel := context.WithTimeout(ctx, pressTime)
		defer cancel()
		a := b.press(limit, p)
		if a.text != "" {
			b.answerPress(ctx, p, a)
		}
	case p.Type == "view_submission" && p.View.Kind == pullModal:
		limit, cancel := context.WithTimeout(ctx, submitTime)
		defer cancel()
		ack(b.submitPull(limit, ctx, p))
	default:
		ack(nil)
	}
}

// How long a click and a shortcut may take, so that there is time to say what came of them. Slack opens a modal for 3 s.
const (
	pressTime  = 5 * time.Second
	manageTime = 2 * time.Second
)

// press acts on a button and returns what its presser is told.
func (b *Bot) press(ctx context.Context, p interactionPayload) answer {
	action := p.Actions[0]
	if isAboutChanges(action.ActionID) {
		return b.pressChanges(ctx, p)
	}
	if action.ActionID == actionRepo {
		return b.pressRepo(ctx, p)
	}
	value, more, allowed, ok := action.Value, besides{}, allowance{}, true
	switch action.ActionID {
	case actionLarger:
		value, more.larger, ok = largerOf(value)
	case actionAllow:
		value, allowed, ok = allowanceOf(value)
	}
	thread, turn := target(p, action.ActionID, value)
	if thread.TS == "" || !ok {
		return plainly(sayOldButton)
	}
	if action.ActionID == actionConfig {
		return b.configAt(ctx, p, thread.Channel)
	}
	if shown, _ := sessions.ParseThread(p.View.Metadata); p.View.Kind == sessionModal && shown != thread {
		return alone(sayOldButton)
	}
	if why := b.mayPress(ctx, p, thread); why != nil {
		mayManage := why.sentence == sayNotThere && !why.transient && isManaging(action.ActionID) && b.owns(ctx, p.User.ID, thread)
		if !mayManage {
			return alone(why.sentence)
		}
	}
	switch action.ActionID {
	case "stop":
		return b.pressStop(ctx, thread, turn)
	case "manage":
		b.manage(ctx, p.TriggerID, thread, p.User.ID)
		return answer{}
	case "refresh":
		b.showInModal(ctx, p, answer{})
		return answer{}
	case "end":
		return b.tell(ctx, thread, b.act(ctx, "end", thread, p.User.ID, b.isSure(ctx, thread, action.Value)))
	case "mute", "unmute":
		return b.tell(ctx, thread, b.mute(ctx, thread, action.ActionID, action.ActionTS))
	case "pull":
		return b.pressPull(ctx, p, thread, turn)
	case "save":
		return b.pressSave(ctx, p, thread)
	case "retry", actionLarger:
		return b.pressRetry(ctx, p, thread, turn, more)
	case actionAllow:
		return b.pressAllow(ctx, p, thread, turn, allowed)
	case "now":
		return b.pressNow(ctx, thread, turn)
	case "keep":
		return b.pressKeep(ctx, p, thread, string(turn))
	case "continue":
		return b.pressContinue(ctx, p, thread, turn, more)
	}
	return answer{}
}

// isManaging tells what owners may do with their sessions also where they are not any more: nothing that shows what was said or made there.
func isManaging(action string) bool {
	return slices.Contains([]string{"stop", "manage", "refresh", "end", "mute", "unmute"}, action)
}

// offerOf is the value of a button about a turn in a message that one person sees: Slack does not say in which thread that is.
func offerOf(thread sessions.Thread, turn sessions.TurnID) string {
	return thread.Key() + "|" + string(turn)
}

// target is what a button is about: stop, retry and continue carry a turn, end and save a thread.
func target(p interactionPayload, action, value string) (sessions.Thread, sessions.TurnID) {
	value = strings.TrimSuffix(value, sureMark)
	if action == "end" || action == "save" || p.View.ID != "" {
		key, _, _ := strings.Cut(value, "|")
		thread, _ := sessions.ParseThread(key)
		return thread, ""
	}
	if key, turn, ok := strings.Cut(value, "|"); ok {
		thread, _ := sessions.ParseThread(key)
		return thread, sessions.TurnID(turn)
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

// pressRetry runs the prompt of a turn again, as a turn of its own, with more of something if that was offered: one for each message that offers it.
func (b *Bot) pressRetry(ctx context.Context, p interactionPayload, thread sessions.Thread, turn sessions.TurnID, more besides) answer {
	name := nameOf(turn)
	if name == "" || p.Container.MessageTS == "" {
		return plainly(sayOldButton)
	}
	ts, _, _ := strings.Cut(name, "-retry-")
	if message, _, again := strings.Cut(ts, "-continue-"); again {
		return b.pressContinue(ctx, p, thread, turnID(thread.Team, thread.Channel, message), more)
	}
	if strings.Contains(ts, repoMark) {
		return b.retryRepo(ctx, p, thread, turn, ts, more)
	}
	if strings.HasPrefix(ts, "cmd") {
		return plainly(sayRetryGone)
	}
	old := sessions.Turn{ID: turn, Thread: thread, TS: ts}
	m, err := b.messageAt(ctx, old)
	if errors.Is(err, errGone) {
		return plainly(sayRetryGone)
	}
	if err != nil {
		return plainly(saySlackAway)
	}
	e := eventOf(thread, *m)
	e.User = p.User.ID
	t := b.turn(b.read(thread.Team, e), true)
	t.ID, t.Larger, t.MoreUSD = turnID(thread.Team, thread.Channel, ts+"-retry-"+p.Container.MessageTS), more.larger, more.usd
	return b.acceptPressed(ctx, t, sayAgain)
}

// pressNow stops what is at work in favour of the turn that waits next.
func (b *Bot) pressNow(ctx context.Context, thread sessions.Thread, turn sessions.TurnID) answer {
	st, err := b.sessions.Status(ctx, thread)
	switch {
	case err != nil:
		return plainly(sayTrouble)
	case !waits(st, turn):
		return plainly(sayUnderway)
	case st.Queued[0].ID != turn:
		return plainly(sayNotNext)
	case st.Running == nil || st.Running.Kind == sessions.KindEnd:
		return plainly(sayUnderway)
	}
	if _, _, err := b.sessions.Cancel(ctx, thread, st.Running.ID); err != nil {
		return plainly(sayTrouble)
	}
	return plainly(sayNow)
}

// pressContinue has Claude go on after a turn that was stopped, as a turn of its own: one for each message that offers it. It belongs to
// the message of the turn that was stopped.
func (b *Bot) pressContinue(ctx context.Context, p interactionPayload, thread sessions.Thread, turn sessions.TurnID, more besides) answer {
	ts, _, _ := strings.Cut(nameOf(turn), "-")
	if ts == "" || p.Container.MessageTS == "" {
		return plainly(sayOldButton)
	}
	return b.acceptPressed(ctx, sessions.Turn{
		ID: turnID(thread.Team, thread.Channel, ts+"-continue-"+p.Container.MessageTS), Kind: sessions.KindTurn, Thread: thread,
		User: p.User.ID, TS: ts, Text: goOn, Overrides: b.chosenBy(ctx, thread, ts), Larger: more.larger, MoreUSD: more.usd, At: time.Now().UTC(),
	}, sayGoingOn)
}

// chosenTime bounds how long Slack is asked for a message of which the choices alone are of interest.
const chosenTime = 2 * time.Second

// chosenBy are the choices of a message for its turn, as far as Slack tells them: what goes on with it runs as it did.
func (b *Bot) chosenBy(ctx context.Context, thread sessions.Thread, ts string) sessions.Overrides {
	ctx, cancel := context.WithTimeout(ctx, chosenTime)
	defer cancel()
	m, err := b.messageAt(ctx, sessions.Turn{Thread: thread, TS: ts})
	if err != nil {
		b.log.DebugContext(ctx, "not read what a message chooses", "ts", ts, "err", err)
		return sessions.Overrides{}
	}
	_, o, _ := overridesIn(b.read(thread.Team, eventOf(thread, *m)).words)
	o.VolumeGB = 0 // which the session has
	return o
}

// acceptPressed takes in a turn that a button asked for, and returns what its presser is told.
func (b *Bot) acceptPressed(ctx context.Context, t sessions.Turn, done string) answer {
	res, err := b.sessions.Accept(ctx, t)
	switch {
	case err != nil:
		return plainly(sayTrouble)
	case res.Status == sessions.AcceptFull:
		return plainly(sayFull(res.Full))
	case res.Status == sessions.AcceptDuplicate:
		return plainly(sayAskedAlready)
	}
	if t.MoreUSD > 0 {
		b.stubbornly(ctx, func(ctx context.Context) { b.say(ctx, t.Thread, t.ID, sayAllowedMore(t.User, "", sessions.BoundTurn)) })
	}
	b.aside(ctx, func(ctx context.Context) { // the mark of the first try goes
		b.react(ctx, t, heardMark)
		b.unreact(ctx, t, stopMark)
	})
	if res.Ahead > 0 {
		return plainly(sayPlace(res.Ahead))
	}
	return plainly(done)
}

// answerPress tells the presser what happened. A picker that was used stays: another of its sessions may be meant next, and each press is checked.
func (b *Bot) answerPress(ctx context.Context, p interactionPayload, a answer) {
	thread := p.Container.ThreadTS
	if thread == "" && p.Message != nil {
		thread = p.Message.thread()
	}
	if p.View.ID != "" {
		b.showInModal(ctx, p, a)
		return
	}
	if p.Channel.ID == "" {
		return
	}
	b.whisperIn(ctx, p.Channel.ID, thread, p.User.ID, a)
}

func section(text string) *slack.SectionBlock {
	return slack.NewSectionBlock(slack.NewTextBlockObject(slack.MarkdownType, clip(text, 2900), false, false), nil, nil)
}
