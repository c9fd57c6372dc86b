package bot

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flaudebot/sessions"
)

// maxCosts is how many rows a table of costs has: those of sessions cost a call each for their link.
const maxCosts = 10

// costsAsked is what somebody wants to know the costs of.
type costsAsked struct {
	month     string
	mine, all bool // else those of the channel
}

// name is what people call the month.
func (q costsAsked) name() string {
	from, _, err := sessions.ParseMonth(q.month)
	if err != nil {
		return q.month
	}
	return from.Format("January 2006")
}

var aMonth = regexp.MustCompile(`^20\d\d-(0[1-9]|1[0-2])$`)

// askedCosts reads what stands behind /flaude costs; not ok: it is not understood.
func askedCosts(words string, now time.Time) (q costsAsked, ok bool) {
	q.month = sessions.CostMonth(now)
	for word := range strings.FieldsSeq(strings.ToLower(words)) {
		switch {
		case word == "mine":
			q.mine = true
		case word == "all":
			q.all = true
		case word == "last":
			first := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
			q.month = sessions.CostMonth(first.AddDate(0, 0, -1))
		case word == "month":
		case aMonth.MatchString(word):
			q.month = word
		default:
			return q, false
		}
	}
	return q, !(q.mine && q.all)
}

// costs says what a month has cost: in this channel, to who may use the bot here; what who asks has cost, wherever that was; or all of the
// workspace, to its admins.
func (b *Bot) costs(ctx context.Context, c slashCommand, words string) answer {
	q, ok := askedCosts(words, time.Now())
	if !ok {
		return plainly(sayCostsWhat)
	}
	if q.all {
		u, err := b.people.user(ctx, c.UserID)
		if err != nil {
			return plainly(sayTryAgain)
		}
		if !u.IsAdmin && !u.IsOwner {
			return plainly(sayCostsNotAll)
		}
	}
	found, err := b.sessions.Costs(ctx, c.TeamID, q.month, time.Now())
	if err != nil {
		return b.orTrouble(ctx, "costs", sessions.Thread{Team: c.TeamID, Channel: c.ChannelID}, answer{}, err)
	}
	found = slices.DeleteFunc(found, func(one sessions.Cost) bool {
		return q.mine && one.Person != c.UserID || !q.mine && !q.all && one.Thread.Channel != c.ChannelID
	})
	var budgets []string
	if q.month == sessions.CostMonth(time.Now()) {
		if budgets, err = b.budgetsOf(ctx, sessions.Thread{Team: c.TeamID, Channel: c.ChannelID}, c.UserID); err != nil {
			return b.orTrouble(ctx, "costs", sessions.Thread{Team: c.TeamID, Channel: c.ChannelID}, answer{}, err)
		}
	}
	if len(found) == 0 {
		return plainly(strings.Join(append([]string{sayNoCosts(q)}, budgets...), "\n"))
	}
	t := costTable{asked: q, channel: c.ChannelID, total: sessions.SumCosts(found, "")[0], budgets: budgets}
	if q.all {
		t.channels = sessions.SumCosts(found, sessions.CostByChannel)
	} else {
		t.sessions, t.more = b.costRows(ctx, c, sessions.SumCosts(found, sessions.CostBySession))
	}
	if !q.mine {
		t.people = sessions.SumCosts(found, sessions.CostByPerson)
	}
	return t.answer()
}

// costTable is what there is to tell of a month.
type costTable struct {
	asked    costsAsked
	channel  string
	total    sessions.Cost
	budgets  []string
	sessions []costRow
	more     int // sessions that are not named
	channels []sessions.Cost
	people   []sessions.Cost
}

// costRow is a session with what is known of it besides.
type costRow struct {
	sessions.Cost

	about string // "": nobody knows
	link  string
}

// costRows looks up what the costliest sessions are about.
func (b *Bot) costRows(ctx context.Context, c slashCommand, all []sessions.Cost) (rows []costRow, more int) {
	more = max(len(all)-maxCosts, 0)
	rows = make([]costRow, len(all)-more)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range rows {
		rows[i].Cost = all[i]
		g.Go(func() error {
			row := &rows[i]
			// What a session elsewhere is about, who is not its owner may not be meant to know: they may have been taken out of the channel.
			st, err := b.sessions.Status(ctx, row.Thread)
			if err == nil && st.Session != nil && st.Session.SessionID == row.Session && st.Session.About != "" &&
				(row.Thread.Channel == c.ChannelID || st.Session.Owner == c.UserID) {
				row.about = aboutSession(*st.Session)
			}
			row.link = b.permalink(ctx, row.Thread)
			return nil
		})
	}
	_ = g.Wait() // what is not known is left out
	return rows, more
}

// answer is the table as text, a section for each part of it.
func (t costTable) answer() answer {
	parts := [][]string{{sayCostsOf(t.asked, t.channel, t.total), sayCostParts(t.total)}}
	part := func(head string, lines []string, more int) {
		if len(lines) == 0 {
			return
		}
		if more > 0 {
			lines = append(lines, sayMore(more))
		}
		parts = append(parts, append([]string{head}, lines...))
	}
	part(sayBudgets, t.budgets, 0)
	var lines []string
	for _, s := range t.sessions {
		lines = append(lines, sayCostOfSession(s, t.asked.mine))
	}
	part(sayBySession, lines, t.more)
	short := func(all []sessions.Cost, name func(sessions.Cost) string) (lines []string, more int) {
		for i, s := range all {
			if i == maxCosts {
				return lines, len(all) - i
			}
			lines = append(lines, sayCostLine(name(s), s))
		}
		return lines, 0
	}
	lines, more := short(t.channels, func(s sessions.Cost) string { return "<#" + s.Thread.Channel + ">" })
	part(sayByChannel, lines, more)
	lines, more = short(t.people, func(s sessions.Cost) string { return "<@" + s.Person + ">" })
	part(sayByPerson, lines, more)
	parts = append(parts, []string{sayCostsEstimated})
	var a answer
	for _, p := range parts {
		a.text += strings.Join(p, "\n") + "\n"
		for len(p) > 0 {
			n, size := 0, 0
			for n < len(p) && (n == 0 || size+len(p[n]) < maxSection) {
				size += len(p[n]) + 1
				n++
			}
			a.blocks, p = append(a.blocks, section(strings.Join(p[:n], "\n"))), p[n:]
		}
	}
	a.text = strings.TrimSpace(a.text)
	return a
}

// maxSection is how much text stands in one section, in bytes: Slack takes 3,000 characters.
const maxSection = 2500
