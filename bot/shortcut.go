package bot

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// The modal of a session: how it stands, and buttons for what can be done with it.

// sessionModal is the callback id of that modal. Its private metadata is the thread's key.
const sessionModal = "session"

// shortcut shows the session of a message's thread, from the menu of any message of it.
func (b *Bot) shortcut(ctx context.Context, p interactionPayload) {
	if p.Message == nil {
		return
	}
	b.manage(ctx, p.TriggerID, sessions.Thread{Team: p.Team.ID, Channel: p.Channel.ID, TS: p.Message.thread()}, p.User.ID)
}

// manage shows a session in a modal, to somebody who pressed something just now.
func (b *Bot) manage(ctx context.Context, trigger string, thread sessions.Thread, user string) {
	limit, cancel := context.WithTimeout(ctx, manageTime)
	defer cancel()
	var a answer
	if why := b.people.mayUse(limit, user, thread.Channel); why != nil {
		a = plainly(why.sentence)
	} else {
		a = b.managed(limit, thread)
	}
	if _, err := b.api.OpenViewContext(ctx, trigger, modalOf(thread, a)); err != nil { // in time or never
		b.log.WarnContext(ctx, "modal not opened", "err", err)
		b.whisperIn(ctx, thread.Channel, thread.TS, user, a)
	}
}

// managed is what the modal shows of a session.
func (b *Bot) managed(ctx context.Context, thread sessions.Thread) answer {
	st, err := b.sessions.Status(ctx, thread)
	if err == nil && !goesOn(st) {
		return plainly(sayNoSession)
	}
	st = b.sized(st)
	muted := false
	if err == nil {
		muted, err = b.sessions.Muted(ctx, thread, "")
	}
	if err != nil {
		return b.orTrouble(ctx, "manage", thread, answer{}, err)
	}
	a := plainly(strings.Join(statusLines(st, muted), "\n"))
	if s := st.Session; isLive(st) {
		if s.About != "" {
			a.blocks = append(a.blocks, section("*"+aboutSession(*s)+"*"))
		}
		a.blocks = append(a.blocks, facts(*s))
	}
	a.blocks = append(a.blocks, section(strings.Join(goingOn(st, muted), "\n")), slack.NewActionBlock("", b.managers(st, muted, thread)...))
	return a
}

// managers are the buttons of the modal.
func (b *Bot) managers(st sessions.Status, muted bool, thread sessions.Thread) []slack.BlockElement {
	var out []slack.BlockElement
	if st.Running != nil && st.Running.Kind != sessions.KindEnd {
		out = append(out, button("stop", "Stop the turn", thread.Key(), ""))
	}
	if muted {
		out = append(out, button("unmute", "Listen to replies", thread.Key(), ""))
	} else {
		out = append(out, button("mute", "Mute", thread.Key(), ""))
	}
	if !ending(st) {
		end := button("end", "End session", thread.Key(), "danger")
		end.Confirm = confirm(sayEndThis, sayWhatGoes, "End it", "Keep it")
		out = append(out, end)
	}
	return append(out, button("refresh", "Refresh", thread.Key(), ""))
}

func confirm(title, text, yes, no string) *slack.ConfirmationBlockObject {
	words := func(s string) *slack.TextBlockObject {
		return slack.NewTextBlockObject(slack.PlainTextType, s, false, false)
	}
	return slack.NewConfirmationBlockObject(words(title), words(text), words(yes), words(no))
}

// facts are what is known of a session, side by side.
func facts(s sessions.Session) *slack.SectionBlock {
	var fields []*slack.TextBlockObject
	for _, f := range [][2]string{
		{"Started by", fmt.Sprintf("<@%s>, %s", s.Owner, date(s.CreatedAt))},
		{"Last used", date(s.LastTurn)},
		{"So far", fmt.Sprintf("%s, $%.2f", plural(s.Turns, "turn"), s.CostUSD)},
		{"Machine", fmt.Sprintf("`%s` in %s: %s", orDash(s.MachineID), orDash(s.Region), saySize(s))},
		{"Repositories", repositoryList(s.Repos)},
		{sayLastRan, inUse(s)},
	} {
		if f[1] != "" {
			fields = append(fields, slack.NewTextBlockObject(slack.MarkdownType, "*"+f[0]+"*\n"+clip(f[1], 1900), false, false))
		}
	}
	return slack.NewSectionBlock(nil, fields, nil)
}

// inUse says what the session's last turn ran with, "" if nobody knows.
func inUse(s sessions.Session) string {
	if s.InUse == nil {
		return ""
	}
	return sayInUse(*s.InUse)
}

// repositoryList names repositories in a line each, "" if it is not known which they are.
func repositoryList(repos []runner.Repo) string {
	if repos == nil {
		return ""
	}
	if len(repos) == 0 {
		return "none"
	}
	var lines []string
	for _, r := range repos {
		line := "`" + escape(shortAddress(r.URL)) + "`"
		if r.Branch != "" {
			line += " on `" + escape(r.Branch) + "`"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// shortAddress is a repository's address as people name it.
func shortAddress(address string) string {
	if short, ok := strings.CutPrefix(address, githubURL); ok {
		return strings.TrimSuffix(short, ".git")
	}
	return strings.TrimPrefix(address, "https://")
}

// showInModal shows in a modal what came of a press in it. That of a session goes on showing it, below what came.
func (b *Bot) showInModal(ctx context.Context, p interactionPayload, a answer) {
	view := modal(a)
	if p.View.Kind == sessionModal {
		thread, _ := sessions.ParseThread(p.View.Metadata)
		view = modalOf(thread, b.withState(ctx, thread, a))
	}
	if err := b.changeModal(ctx, p.View.ID, view, modal(plainly(a.text))); err != nil {
		b.log.WarnContext(ctx, "modal not changed", "err", err)
	}
}

// changeModal changes a modal, to what is simpler where Slack refuses the form.
func (b *Bot) changeModal(ctx context.Context, id string, view, simpler slack.ModalViewRequest) error {
	return b.insist(ctx, func() error {
		_, err := b.api.UpdateViewContext(ctx, view, "", "", id)
		if isRefused(err) {
			b.log.WarnContext(ctx, "Slack refuses the form of a modal", "err", err)
			_, err = b.api.UpdateViewContext(ctx, simpler, "", "", id)
		}
		return err
	})
}

// withState is what came of a press with the session below it. What asks something stands alone.
func (b *Bot) withState(ctx context.Context, thread sessions.Thread, said answer) answer {
	if len(said.blocks) > 0 {
		return said
	}
	now := b.managed(ctx, thread)
	switch {
	case said.text == "":
		return now
	case len(now.blocks) == 0: // there is none
		return said
	}
	now.blocks = append([]slack.Block{section(said.text), slack.NewDividerBlock()}, now.blocks...)
	return now
}

// modalOf is the modal of a session.
func modalOf(thread sessions.Thread, a answer) slack.ModalViewRequest {
	v := modal(a)
	v.CallbackID, v.PrivateMetadata = sessionModal, thread.Key()
	return v
}

// modal shows an answer.
func modal(a answer) slack.ModalViewRequest {
	blocks := a.blocks
	if len(blocks) == 0 {
		blocks = []slack.Block{section(a.text)}
	}
	return slack.ModalViewRequest{
		Type: slack.VTModal, Title: slack.NewTextBlockObject(slack.PlainTextType, cmp.Or(a.title, "Session"), false, false),
		Close: slack.NewTextBlockObject(slack.PlainTextType, "Close", false, false), Blocks: slack.Blocks{BlockSet: blocks},
	}
}
