package bot

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/slack-go/slack"
	"golang.org/x/sync/errgroup"

	"flaudebot/sessions"
)

// What sessions there are, and which one is meant.

// maxListed is how many sessions are listed, the ones used last: each costs a call for its link.
const maxListed = 20

// maxListBytes bounds the rows of a list, in bytes: an ack holds 20 KB, and each row stands in it twice, with a button.
const maxListBytes = 6 << 10

// listed is a session in a list, with what is known of it besides.
type listed struct {
	sessions.Session

	link string // to its thread, "" where Slack gives none
	busy bool   // a turn runs
}

// describe looks up what a list says of sessions, the ones used last; more is how many it leaves out. atWork: only those with a turn that runs.
// An error means that the store is away.
func (b *Bot) describe(ctx context.Context, found []sessions.Session, atWork bool) (all []listed, more int, err error) {
	if !atWork { // nothing is looked up that is not shown
		more = max(len(found)-maxListed, 0)
		found = found[:len(found)-more]
	}
	all = make([]listed, len(found))
	var g errgroup.Group
	g.SetLimit(8)
	for i, s := range found {
		g.Go(func() error {
			st, err := b.sessions.Status(ctx, s.Thread)
			all[i] = listed{Session: s, busy: st.Running != nil && st.Running.Kind != sessions.KindEnd}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	if atWork {
		all = slices.DeleteFunc(all, func(s listed) bool { return !s.busy })
		more = max(len(all)-maxListed, 0)
		all = all[:len(all)-more]
	}
	for i := range all {
		g.Go(func() error {
			all[i].link = b.permalink(ctx, all[i].Thread)
			return nil
		})
	}
	return all, more, g.Wait()
}

// Link is the address of a message of a thread, made as Slack makes it, without asking; "" where it is not known where the workspace is.
func (b *Bot) Link(thread sessions.Thread, ts string) string {
	if b.workspace == "" {
		return ""
	}
	link := strings.TrimSuffix(b.workspace, "/") + "/archives/" + thread.Channel + "/p" + strings.ReplaceAll(ts, ".", "")
	if ts != thread.TS {
		link += "?thread_ts=" + thread.TS + "&cid=" + thread.Channel
	}
	return link
}

func (b *Bot) permalink(ctx context.Context, t sessions.Thread) string {
	link, err := b.api.GetPermalinkContext(ctx, &slack.PermalinkParameters{Channel: t.Channel, Ts: t.TS})
	if err != nil {
		return ""
	}
	return link
}

// list shows the live sessions of a channel, or those of one person wherever they are, each with a button to manage it.
func (b *Bot) list(ctx context.Context, team, channel, user string, mine bool) (answer, error) {
	none := sayNoneHere
	if mine {
		channel, none = "", sayNoneOfYours
	}
	found, err := b.sessions.List(ctx, team, channel)
	if err != nil {
		return answer{}, err
	}
	if mine {
		found = slices.DeleteFunc(found, func(s sessions.Session) bool { return s.Owner != user })
	}
	if len(found) == 0 {
		return plainly(none), nil
	}
	all, more, err := b.describe(ctx, found, false)
	return rows("", all, more, mine, "manage", "Manage"), err
}

// rows is a list of sessions with a button for each, below a head if there is one.
func rows(head string, all []listed, more int, where bool, action, label string) answer {
	var a answer
	var lines []string
	add := func(line string, accessory *slack.Accessory) {
		row := section(line)
		row.Accessory = accessory
		lines, a.blocks = append(lines, line), append(a.blocks, row)
	}
	if head != "" {
		add(head, nil)
	}
	size := 0
	for i, s := range all {
		line := fmt.Sprintf("%d. %s", i+1, rowOf(s, where))
		if size += len(line); size > maxListBytes {
			more += len(all) - i
			break
		}
		style := ""
		if action == "end" {
			style = "danger"
		}
		add(line, slack.NewAccessory(button(action, label, offerOf(s.Thread, ""), style)))
	}
	if more > 0 {
		add(sayMoreSessions(more), nil)
	}
	a.text = strings.Join(lines, "\n")
	return a
}

// date is a time as each reader's Slack shows it.
func date(t time.Time) string {
	return fmt.Sprintf("<!date^%d^{date_short_pretty} {time}|%s>", t.Unix(), t.UTC().Format("2 January 15:04 UTC"))
}

// pick finds the session of a channel that a command without a link means: the only one, for stop the only one that is at work. Else a is
// what the person is answered: which there are.
func (b *Bot) pick(ctx context.Context, c slashCommand, word string) (thread sessions.Thread, a answer, err error) {
	found, err := b.sessions.List(ctx, c.TeamID, c.ChannelID)
	switch {
	case err != nil:
		return thread, a, err
	case len(found) == 0:
		return thread, plainly(sayNoSession), nil
	case len(found) == 1:
		return found[0].Thread, a, nil
	}
	all, more, err := b.describe(ctx, found, word == "stop")
	switch {
	case err != nil:
		return thread, a, err
	case len(all) == 0:
		return thread, plainly(sayNothingRuns), nil
	case len(all) == 1 && more == 0:
		return all[0].Thread, a, nil
	case word == "status":
		return thread, rows(sayWhich, all, more, false, "manage", "Manage"), nil
	case word == "stop":
		return thread, rows(sayWhich, all, more, false, "stop", "Stop"), nil
	}
	return thread, rows(sayWhich, all, more, false, "end", "End"), nil
}

// maxAbout bounds what a session says that it is about, in characters.
const maxAbout = 80

// aboutSession is what a session is about, in its own words.
func aboutSession(s sessions.Session) string {
	return "“" + escape(clip(withoutMarks(s.About), maxAbout)) + "”"
}

// glimpse is what a text is about: its first words, as plain text.
func glimpse(words string) string {
	words = named.ReplaceAllString(words, "")
	for line := range strings.Lines(words) {
		if line = withoutMarks(unescape(token.ReplaceAllStringFunc(line, plainToken))); line != "" {
			return clip(line, maxAbout)
		}
	}
	return ""
}

// Slack's own marks: those at the beginning of a line, and those around words, which count where no letter stands before or behind them.
var (
	lineMark = regexp.MustCompile(`^(?:\s*(?:>+|[•◦▪]))*\s*`)
	wordMark = []*regexp.Regexp{markAround("```"), markAround("`"), markAround(`\*`), markAround("_"), markAround("~")} //nolint:gochecknoglobals // a table
)

func markAround(mark string) *regexp.Regexp {
	one := mark[len(mark)-1:]
	inner := `[^\s` + one + `](?:[^` + one + `]*[^\s` + one + `])?`
	return regexp.MustCompile(`(^|[^\pL\pN` + one + `])` + mark + `(` + inner + `)` + mark + `($|[^\pL\pN` + one + `])`)
}

// withoutMarks is a line as people read it: what Slack would show in bold or as code is plain.
func withoutMarks(line string) string {
	if !strings.ContainsAny(line, "*_~`>•◦▪") { // as most, which may be long, and wait for an ack
		return strings.TrimSpace(line)
	}
	line = lineMark.ReplaceAllString(line, "")
	for plain := ""; plain != line; {
		plain = line
		for _, m := range wordMark {
			line = m.ReplaceAllString(line, "$1$2$3")
		}
	}
	return strings.TrimSpace(strings.ReplaceAll(line, "```", "")) // a block of code goes over several lines
}

// plainToken is one of Slack's forms without asking anybody for names.
func plainToken(m string) string {
	what, label, has := strings.Cut(m[1:len(m)-1], "|")
	switch {
	case strings.HasPrefix(what, "@"), strings.HasPrefix(what, "#"):
		if has {
			return what[:1] + label
		}
		return what[:1] + "…"
	case strings.HasPrefix(what, "!"):
		if has {
			return label
		}
		return "@" + what[1:]
	case has:
		return label
	}
	return what
}

// status says what goes on in a thread.
func (b *Bot) status(ctx context.Context, thread sessions.Thread) (answer, error) {
	st, err := b.sessions.Status(ctx, thread)
	if err != nil {
		return answer{}, err
	}
	if !goesOn(st) {
		return plainly(sayNoSession), nil
	}
	st = b.sized(st)
	muted, err := b.sessions.Muted(ctx, thread, "")
	if err != nil {
		return answer{}, err
	}
	return plainly(strings.Join(statusLines(st, muted), "\n")), nil
}

// sized fills in what a session has by default: the size of its machine and of its volume.
func (b *Bot) sized(st sessions.Status) sessions.Status {
	if st.Session != nil {
		s, def := *st.Session, b.sessions.DefaultSettings()
		s.Guest, s.VolumeGB = cmp.Or(s.Guest, def.Guest), cmp.Or(s.VolumeGB, def.VolumeGB)
		st.Session = &s
	}
	return st
}

// goesOn reports whether there is a live session in a thread, or will be.
func goesOn(st sessions.Status) bool {
	return isLive(st) || st.Running != nil || len(st.Queued) > 0
}

// statusLines say how a thread's session stands.
func statusLines(st sessions.Status, muted bool) []string {
	var lines []string
	if s := st.Session; isLive(st) {
		if s.About != "" {
			lines = append(lines, aboutSession(*s))
		}
		lines = append(lines, saySession(*s), sayHas(*s))
		if !s.EndsAt.IsZero() {
			lines = append(lines, sayEndsItself(s.EndsAt))
		}
		if s.InUse != nil {
			lines = append(lines, sayRanWith(*s.InUse))
		}
	}
	return append(lines, goingOn(st, muted)...)
}

// goingOn says what runs in a thread, and what waits.
func goingOn(st sessions.Status, muted bool) []string {
	var lines []string
	if muted {
		lines = append(lines, sayIsMuted)
	}
	if st.Running != nil {
		lines = append(lines, sayAtWork(*st.Running))
	} else {
		lines = append(lines, sayNothingRuns)
	}
	for i, t := range st.Queued {
		lines = append(lines, sayWaiting(i+1, t))
	}
	return lines
}

func orDash(s string) string { return cmp.Or(s, "-") }

var mentioned = regexp.MustCompile(`<@([UW][A-Z0-9]+)(\|[^>]*)?>`)

// publicly is an answer that all of a channel may see: it names people without pinging them.
func (b *Bot) publicly(ctx context.Context, a answer) answer {
	names := func(text string) string {
		return mentioned.ReplaceAllStringFunc(text, func(m string) string {
			return escape(b.people.name(ctx, mentioned.FindStringSubmatch(m)[1]))
		})
	}
	out := answer{text: names(a.text), tell: a.tell, public: true}
	for _, block := range a.blocks {
		if s, ok := block.(*slack.SectionBlock); ok && s.Text != nil {
			named := *s
			named.Text = slack.NewTextBlockObject(s.Text.Type, names(s.Text.Text), false, false)
			block = &named
		}
		out.blocks = append(out.blocks, block)
	}
	return out
}
