package bot

import (
	"context"
	"slices"
	"strings"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

const (
	// actionAllow raises the budget that stopped a turn, and has that go on.
	actionAllow = "allow"
	// allowedUSD is by how much, in USD.
	allowedUSD = 5
)

// allowance is what the button asks for.
type allowance struct {
	bound sessions.Bound
	user  string // whose turn it was
	begun bool   // Claude had done something already
}

// allowButton offers to raise the budget that stopped the turn; nil: none did.
func allowButton(t sessions.Turn, o sessions.Outcome) slack.BlockElement {
	if o.Failure != runner.FailBudget || o.Budget == nil {
		return nil
	}
	how := "retry"
	if o.CostUSD > 0 {
		how = "continue"
	}
	return button(actionAllow, sayAllow(), strings.Join([]string{string(t.ID), string(o.Budget.Bound), t.User, how}, " "), "")
}

// allowanceOf reads what [allowButton] has written. Not ok: nobody has written that.
func allowanceOf(value string) (turn string, a allowance, ok bool) {
	p := strings.Split(value, " ")
	if len(p) != 4 {
		return value, a, false
	}
	bounds := []sessions.Bound{sessions.BoundTurn, sessions.BoundThread, sessions.BoundPerson, sessions.BoundChannel, sessions.BoundAll}
	a = allowance{bound: sessions.Bound(p[1]), user: p[2], begun: p[3] == "continue"}
	return p[0], a, slices.Contains(bounds, a.bound) && a.user != ""
}

// mayAllow returns nil if the person may raise a budget: admins of the workspace any, and those whom they name for the channel the ones within that.
func (p *people) mayAllow(ctx context.Context, user, channel string, bound sessions.Bound) *refusal {
	s, err := p.bot.settingsOf(ctx, channel)
	if err != nil {
		return &refusal{sentence: sayTrouble, store: err}
	}
	rights, why := p.mayConfigure(ctx, user, s)
	switch {
	case why != nil:
		return why
	case rights == mayName, rights == mayChange && bound != sessions.BoundAll && bound != sessions.BoundPerson:
		return nil
	}
	return &refusal{sentence: sayMayNotAllow(bound)}
}

// pressAllow raises a budget, once for each message that offers it, and has the turn go on that it stopped.
func (b *Bot) pressAllow(ctx context.Context, p interactionPayload, thread sessions.Thread, turn sessions.TurnID, a allowance) answer {
	if why := b.people.mayAllow(ctx, p.User.ID, thread.Channel, a.bound); why != nil {
		return plainly(why.sentence)
	}
	if p.Container.MessageTS == "" {
		return plainly(sayOldButton)
	}
	goOn := b.pressRetry
	if a.begun {
		goOn = b.pressContinue
	}
	if a.bound == sessions.BoundTurn {
		return goOn(ctx, p, thread, turn, besides{usd: allowedUSD})
	}
	first, err := b.sessions.AllowMore(ctx, thread.Key()+":"+p.Container.MessageTS, thread, a.bound, a.user, p.User.ID, allowedUSD)
	if err != nil {
		b.log.WarnContext(ctx, "budget not raised", "bound", a.bound, "err", err)
		return plainly(sayTrouble)
	}
	raised := sayAllowedAlready()
	if first {
		raised = sayRaised()
		b.stubbornly(ctx, func(ctx context.Context) {
			b.say(ctx, thread, turn, sayAllowedMore(p.User.ID, a.user, a.bound))
		})
	}
	if a.bound == sessions.BoundPerson && a.user != p.User.ID { // what runs is charged to whoever asks for it
		if first {
			raised = sayAllowedFor(a.user)
		}
		return plainly(raised)
	}
	told := goOn(ctx, p, thread, turn, besides{})
	if told.text == sayAskedAlready { // by Retry, or by who pressed before
		return plainly(raised)
	}
	return told
}

// budgetsOf are the lines about the budgets of this month that somebody's turns in a channel are charged to.
func (b *Bot) budgetsOf(ctx context.Context, thread sessions.Thread, user string) ([]string, error) {
	all, err := b.sessions.Budgets(ctx, thread, user)
	var lines []string
	for _, one := range all {
		if one.Bound != sessions.BoundThread { // there is none that is meant
			lines = append(lines, "• "+sayBudget(one, user))
		}
	}
	return lines, err
}
