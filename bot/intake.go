package bot

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// outerEvent is an event as Slack wraps it.
type outerEvent struct {
	TeamID string     `json:"team_id"`
	Type   string     `json:"type"`
	Event  innerEvent `json:"event"`
	again  bool       // Slack sends it once more
	retry  int        // for the so many-th time
}

// innerEvent are the fields of all events that the bot acts on.
type innerEvent struct {
	Type        string      `json:"type"`
	Subtype     string      `json:"subtype"`
	User        string      `json:"user"`
	UserTeam    string      `json:"user_team"`
	BotID       string      `json:"bot_id"`
	Text        string      `json:"text"`
	TS          string      `json:"ts"`
	ThreadTS    string      `json:"thread_ts"`
	ParentUser  string      `json:"parent_user_id"` // who wrote the thread's first message
	Channel     string      `json:"channel"`
	ChannelType string      `json:"channel_type"`
	DeletedTS   string      `json:"deleted_ts"`
	Files       []slackFile `json:"files"`
	Attachments []shareMark `json:"attachments"`
	Edited      *struct {
		TS string `json:"ts"`
	} `json:"edited"`
	Message  *innerEvent `json:"message"`
	Previous *innerEvent `json:"previous_message"`
	Reaction string      `json:"reaction"`
	Tab      string      `json:"tab"` // of the app's home
	Item     struct {
		Channel string `json:"channel"`
		TS      string `json:"ts"`
	} `json:"item"`
	again  bool // Slack sends it once more
	retry  int  // for the so many-th time
	late   bool // it was missed for so long that its author may not want it any more
	missed bool // it was read later, not heard
}

// shareMark tells a forwarded message from other attachments.
type shareMark struct {
	IsShare bool `json:"is_share"`
}

type slackFile struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	Title    string `json:"title"`
	URL      string `json:"url_private_download"`
	Shown    string `json:"url_private"`
	External bool   `json:"is_external"`
	Mode     string `json:"mode"`
}

// thread is the ts of the thread's first message: a message outside of threads is the first of its own.
func (e innerEvent) thread() string {
	switch {
	case e.Message != nil:
		return e.Message.thread()
	case e.Previous != nil:
		return e.Previous.thread()
	case e.ThreadTS != "":
		return e.ThreadTS
	}
	return e.TS
}

// forwards reports whether the message forwards others.
func (e innerEvent) forwards() bool {
	return slices.ContainsFunc(e.Attachments, func(a shareMark) bool { return a.IsShare })
}

// buries reports whether the event tells that a thread's first message was deleted: while it has replies that is an edit to Slack, which leaves
// a tombstone.
func (e innerEvent) buries() bool {
	return e.Subtype == "message_changed" && e.Message != nil && e.Message.Subtype == "tombstone"
}

// take acts on an event. An error means that it could not be stored.
func (b *Bot) take(ctx context.Context, o outerEvent) (err error) {
	e := o.Event
	team := o.TeamID
	e.again, e.retry = o.again, o.retry
	if e.TS != "" && (e.Type == "app_mention" || e.Type == "message") {
		defer func() {
			if err == nil {
				b.marks.note(e.Channel, e.TS)
			}
		}()
	}
	switch e.Type {
	case "app_mention":
		return b.message(ctx, team, e)
	case "message":
		switch {
		case e.buries():
			e.DeletedTS = e.Message.TS
			return b.deleted(ctx, team, e)
		case e.Subtype == "message_changed":
			return b.edited(ctx, team, e)
		case e.Subtype == "message_deleted":
			return b.deleted(ctx, team, e)
		default:
			return b.message(ctx, team, e)
		}
	case "reaction_added":
		return b.reacted(ctx, team, e)
	case "app_home_opened":
		b.opened(ctx, e)
	case "agent_session_stopped":
		thread := sessions.Thread{Team: team, Channel: e.Channel, TS: e.ThreadTS}
		if why := b.people.mayUse(ctx, e.User, e.Channel); why != nil {
			return why.again()
		}
		t, err := b.sessions.Stop(sessions.AskedBy(ctx, e.User), thread)
		if err == nil && t == nil { // Slack leaves its status as it is
			b.native.set(ctx, b, thread, slack.AgentSessionSetStatusParameters{Status: slack.AgentSessionStatusActive})
		}
		return err
	}
	return nil
}

// incoming is a message that may be for the bot.
type incoming struct {
	team    string
	event   innerEvent
	thread  sessions.Thread
	words   string // without the bot's mention
	mention bool
	dm      bool
	root    bool             // it begins its thread
	status  *sessions.Status // of its thread, if that was asked for
}

// said is the ts of when it was said as it reads now.
func (in incoming) said() string {
	if in.event.Edited != nil {
		return in.event.Edited.TS
	}
	return in.event.TS
}

// begins reports whether the message is for the bot wherever it stands: such a one may begin a session.
func (in incoming) begins() bool { return in.mention || in.dm && in.root }

func (in incoming) id() sessions.TurnID { return turnID(in.team, in.event.Channel, in.event.TS) }

func turnID(team, channel, ts string) sessions.TurnID {
	return sessions.TurnID(team + ":" + channel + ":" + ts)
}

// nameOf is what a turn is named within its channel: the ts of its message, with what a button made of that behind a dash, or a command's
// name. "": it is none of those.
func nameOf(id sessions.TurnID) string {
	parts := strings.Split(string(id), ":")
	if len(parts) != 3 {
		return ""
	}
	return parts[2]
}

// messageOf is the ts of the message that a turn is named after, "" if it is named after something else.
func messageOf(id sessions.TurnID) string {
	name := nameOf(id)
	if strings.Contains(name, "-") {
		return ""
	}
	return name
}

func (b *Bot) read(team string, e innerEvent) incoming {
	in := incoming{
		team: team, event: e, thread: sessions.Thread{Team: team, Channel: e.Channel, TS: e.thread()},
		mention: e.Type == "app_mention" || b.mention.MatchString(e.Text), dm: e.ChannelType == "im" || strings.HasPrefix(e.Channel, "D"), root: e.thread() == e.TS,
	}
	in.words = b.withoutMention(e.Text)
	return in
}

// hasPlace reports whether channel, thread and message have names that tell one from another.
func (in incoming) hasPlace() bool {
	thread, ok := sessions.ParseThread(in.thread.Key())
	return ok && thread == in.thread && nameOf(in.id()) == in.event.TS
}

// mentionOf matches how a user is mentioned.
func mentionOf(user string) *regexp.Regexp {
	return regexp.MustCompile(`<@` + regexp.QuoteMeta(user) + `(\|[^>]*)?>`)
}

// withoutMention is a text without the mentions of the bot, and without the space around them.
func (b *Bot) withoutMention(text string) string {
	parts := b.mention.Split(text, -1)
	for i, part := range parts {
		parts[i] = strings.TrimSpace(part)
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

// message takes in what somebody said. A mention comes as two events, and each of them perhaps several times: the
// turn's id makes them one.
func (b *Bot) message(ctx context.Context, team string, e innerEvent) error {
	if e.BotID != "" || e.User == "" || e.User == b.self || e.User == slackbot || e.TS == "" || !isSaid(e.Subtype) {
		return nil
	}
	if !e.again && b.stored.has(string(turnID(team, e.Channel, e.TS)), time.Now()) {
		return nil // the other event of a mention
	}
	in := b.read(team, e)
	if !in.hasPlace() {
		b.log.WarnContext(ctx, "event left alone: it does not say where it is", "channel", e.Channel, "ts", e.TS, "thread_ts", e.ThreadTS)
		return nil
	}
	begins := in.begins()
	if e.Edited != nil && e.Type == "app_mention" {
		return nil // an edit: message_changed tells of it
	}
	if !begins && in.root || isMarkedAside(in.words) {
		return nil // people talking
	}
	if !begins {
		live, err := b.replyCounts(ctx, &in)
		if err != nil || !live {
			return err
		}
	}
	if why := b.people.mayUse(ctx, e.User, e.Channel); why != nil {
		if err := why.again(); err != nil {
			if why.store != nil {
				b.tellKept(ctx, in)
			}
			return err
		}
		return b.tellOnce(ctx, in, "refused:"+e.User+":"+e.Channel, why.sentence)
	}
	if word := controlWord(in); word != "" {
		return b.control(ctx, in, word)
	}
	if isEmpty(in.words, e) {
		return b.sayOnce(ctx, in, "empty", sayEmpty)
	}
	if begins {
		if refused, err := b.refuseRepos(ctx, &in); err != nil || refused {
			return err
		}
	}
	if refused, err := b.refuseOverrides(ctx, &in, begins); err != nil || refused {
		return err
	}
	err := b.accept(ctx, in, begins)
	if err != nil {
		b.tellKept(ctx, in)
	}
	return err
}

// refuseRepos answers a message that would begin a session in repositories which it may not name, or says nothing beside them. In a session
// that has begun, such words are a prompt like others.
func (b *Bot) refuseRepos(ctx context.Context, in *incoming) (bool, error) {
	var problem nameError
	switch rest, repos, err := b.repositories(in.words); {
	case errors.As(err, &problem):
	case repos != nil && in.root && isEmpty(rest, in.event):
		return true, b.sayOnce(ctx, *in, "empty", sayEmpty)
	default:
		return false, nil
	}
	st, err := b.statusFor(ctx, in)
	if err != nil || hasSession(st) {
		return false, err
	}
	return true, b.sayOnce(ctx, *in, "repos", string(problem))
}

// isEmpty reports whether a message asks for nothing: words that choose how it is run are none.
func isEmpty(words string, e innerEvent) bool {
	rest, _, _ := overridesIn(words)
	return rest == "" && len(e.Files) == 0 && !e.forwards()
}

// slackbot is Slack's own user, which the API does not call a bot.
const slackbot = "USLACKBOT"

// isSaid tells what people say from what Slack tells of a channel: joins, topics, tombstones and the like.
func isSaid(subtype string) bool {
	return slices.Contains([]string{"", "file_share", "thread_broadcast", "me_message"}, subtype)
}

// replyCounts says whether a reply without a mention is for the bot: when its thread has a session, and the reply is
// no aside. In a thread whose session has ended that is said once.
func (b *Bot) replyCounts(ctx context.Context, in *incoming) (bool, error) {
	if isAside(in.event.Text) {
		return false, nil
	}
	st, err := b.statusFor(ctx, in)
	if err != nil {
		return false, err
	}
	if st.Session == nil && in.event.ParentUser == b.self && !hasTurn(st) { // begun by /flaude run
		return false, b.tellOnce(ctx, *in, "run over:"+in.thread.Key()+":"+in.event.User, sayRunOver)
	}
	busy := st.Running != nil || len(st.Queued) > 0
	if !ending(st) && saidBefore(st, in.event.TS) { // to people, or to a session that is over
		return false, nil
	}
	if busy && !ending(st) {
		return b.heeds(ctx, *in)
	}
	switch {
	case st.Session == nil && !busy:
		return false, nil
	case !isLive(st) || ending(st):
		return false, b.tellOnce(ctx, *in, "ended:"+in.thread.Key()+":"+in.event.User, sayEnded)
	}
	return b.heeds(ctx, *in)
}

// saidBefore reports whether something was said, a ts, before the session was asked for that the thread has, or is about to have.
func saidBefore(st sessions.Status, ts string) bool {
	if isLive(st) {
		return ts < st.Session.Since
	}
	first := ""
	for _, t := range slices.Concat(st.Queued, running(st)) {
		if t.Kind == sessions.KindTurn && (first == "" || t.TS < first) {
			first = t.TS
		}
	}
	return ts < first
}

// running is the turn that is at work, if one is.
func running(st sessions.Status) []sessions.Turn {
	if st.Running == nil {
		return nil
	}
	return []sessions.Turn{*st.Running}
}

// heeds is listens, and notes of a reply that is left to people by the channel's settings that it stays so: it may be read again when they
// are others. When a thread was muted is remembered.
func (b *Bot) heeds(ctx context.Context, in incoming) (bool, error) {
	counts, err := b.listens(ctx, in)
	if err != nil || counts {
		return counts, err
	}
	s, err := b.settingsOf(ctx, in.event.Channel)
	if err == nil && s.MentionOnly {
		err = b.sessions.PassOver(ctx, in.id())
	}
	return false, err
}

// listens reports whether a reply without a mention counts in its thread. Words to the bot always do.
func (b *Bot) listens(ctx context.Context, in incoming) (bool, error) {
	if word, plain := steering(in); word != "" && plain {
		return true, nil
	}
	s, err := b.settingsOf(ctx, in.event.Channel)
	if err != nil || s.MentionOnly {
		return false, err
	}
	muted, err := b.sessions.Muted(ctx, in.thread, in.event.TS)
	return !muted, err
}

// statusFor asks for the status of a message's thread, once.
func (b *Bot) statusFor(ctx context.Context, in *incoming) (sessions.Status, error) {
	if in.status == nil {
		st, err := b.sessions.Status(ctx, in.thread)
		if err != nil {
			return sessions.Status{}, err
		}
		in.status = &st
	}
	return *in.status, nil
}

// isLive reports whether a thread has a session that has not ended.
func isLive(st sessions.Status) bool { return st.Session != nil && !st.Session.Ended() }

// hasTurn reports whether a turn of a session runs or waits.
func hasTurn(st sessions.Status) bool {
	is := func(t sessions.Turn) bool { return t.Kind == sessions.KindTurn }
	return st.Running != nil && is(*st.Running) || slices.ContainsFunc(st.Queued, is)
}

// hasSession reports whether a message of the thread goes to a session that has begun, or is about to.
func hasSession(st sessions.Status) bool {
	return !ending(st) && (hasTurn(st) || isLive(st))
}

// waits reports whether a turn is queued, and not at work.
func waits(st sessions.Status, id sessions.TurnID) bool {
	return slices.ContainsFunc(st.Queued, func(t sessions.Turn) bool { return t.ID == id })
}

// ending reports whether the session's end is queued.
func ending(st sessions.Status) bool {
	if st.Running != nil && st.Running.Kind == sessions.KindEnd {
		return true
	}
	return slices.ContainsFunc(st.Queued, func(t sessions.Turn) bool { return t.Kind == sessions.KindEnd })
}

// toSomebody matches a text that begins with a mention: of a person, of a group, or of everybody.
var toSomebody = regexp.MustCompile(`^<(@[UW][A-Z0-9]+|!subteam\^S[A-Z0-9]+|!here|!channel|!everyone)(\|[^>]*)?>`)

// isAside tells a message that is meant for people.
func isAside(text string) bool {
	return isMarkedAside(text) || toSomebody.MatchString(strings.TrimSpace(text))
}

// isMarkedAside tells one that says so, with a mention or without.
func isMarkedAside(text string) bool {
	return strings.HasPrefix(strings.ToLower(strings.Trim(text, aroundWord)), "!aside")
}

// accept stores the turn and shows that it was heard.
func (b *Bot) accept(ctx context.Context, in incoming, begins bool) error {
	if in.event.late {
		return b.ask(ctx, in)
	}
	if done, err := b.afterLoss(ctx, in); err != nil || done {
		return err
	}
	t := b.turn(in, begins)
	res, err := b.store(ctx, t)
	if err != nil {
		return err
	}
	switch res.Status {
	case sessions.AcceptQueued:
		b.aside(ctx, func(ctx context.Context) { b.heard(ctx, t) })
		b.aside(ctx, func(ctx context.Context) { b.tellPlace(ctx, t, res.Ahead) })
		if begins {
			b.aside(ctx, func(ctx context.Context) { b.offerRepos(ctx, t) })
		}
	case sessions.AcceptFull:
		return b.sayOnce(ctx, in, "full", sayFull(res.Full))
	case sessions.AcceptDuplicate: // was heard before
	}
	if begins && (res.Status == sessions.AcceptQueued || in.event.again) {
		return b.overtaken(ctx, in)
	}
	return nil
}

// store stores a turn. The other event of a mention comes right behind the first, and is known by it.
func (b *Bot) store(ctx context.Context, t sessions.Turn) (sessions.Accepted, error) {
	res, err := b.sessions.Accept(ctx, t)
	if err == nil && res.Status != sessions.AcceptFull {
		b.stored.first(string(t.ID), time.Now())
	}
	return res, err
}

// tellKept tells who wrote a message that it could not be stored yet, when that was tried more than once. It is said once in a while:
// whoever writes while Redis is away needs to know that nothing is lost, not of each message.
func (b *Bot) tellKept(ctx context.Context, in incoming) {
	if !in.event.again || !b.kept.first(in.event.User, time.Now()) {
		return
	}
	thread := in.thread
	if in.root {
		thread.TS = "" // where they look
	}
	b.aside(ctx, func(ctx context.Context) { b.whisper(ctx, thread, in.event.User, sayKept) })
}

// underway counts what is being done.
type underway struct {
	mu   sync.Mutex
	n    int           // guarded by mu
	over chan struct{} // guarded by mu; closed when n is 0 again; nil: nobody waits for that
}

func (u *underway) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
}

func (u *underway) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 && u.over != nil {
		close(u.over)
		u.over = nil
	}
}

// quiet is closed when nothing is being done.
func (u *underway) quiet() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over == nil {
		u.over = make(chan struct{})
	}
	over := u.over
	if u.n == 0 {
		close(over)
		u.over = nil
	}
	return over
}

// lately remembers what happened less than a while ago, in this replica.
type lately struct {
	while time.Duration

	mu      sync.Mutex
	noted   map[string]time.Time // guarded by mu; :: what → when
	cleared time.Time            // guarded by mu
}

// first reports whether something did not happen lately, and notes it.
func (l *lately) first(what string, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.Sub(l.cleared) > l.while {
		maps.DeleteFunc(l.noted, func(_ string, when time.Time) bool { return at.Sub(when) > l.while })
		l.cleared = at
	}
	if l.within(what, at) {
		return false
	}
	if l.noted == nil {
		l.noted = map[string]time.Time{}
	}
	l.noted[what] = at
	return true
}

// has reports whether something happened lately.
func (l *lately) has(what string, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.within(what, at)
}

// within is has for who holds mu.
func (l *lately) within(what string, at time.Time) bool {
	when, noted := l.noted[what]
	return noted && at.Sub(when) <= l.while
}

// overtaken takes in the replies that came before the message that makes the bot heed them, the one that they answer or an “!unmute”, as
// happens when Slack has to send that one again: to the bot they were people talking. All of them stand in the thread by now. It is done before the next event of the
// thread is taken, so that they stay in order; above a rate it is left out rather than holding up events.
func (b *Bot) overtaken(ctx context.Context, in incoming) error {
	ctx, ok := b.out.spare(ctx, repliesMethod)
	if !ok {
		b.missedSomething()
		return nil
	}
	page, _, _, err := b.api.GetConversationRepliesContext(ctx, &slack.GetConversationRepliesParameters{
		ChannelID: in.thread.Channel, Timestamp: in.thread.TS, Oldest: in.event.TS, Limit: 50,
	})
	if err != nil {
		b.log.WarnContext(ctx, "not looked for replies that came first", "thread", in.thread.Key(), "err", err)
		b.missedSomething()
		return nil
	}
	for _, m := range page {
		if m.Timestamp <= in.event.TS { // Slack gives a thread's first message always
			continue
		}
		if err := b.message(ctx, in.team, eventOf(in.thread, m)); err != nil {
			return err
		}
	}
	return nil
}

// eventOf is the event that told of a message.
func eventOf(thread sessions.Thread, m slack.Message) innerEvent {
	e := innerEvent{
		Type: "message", Subtype: m.SubType, User: m.User, BotID: m.BotID, Text: m.Text, TS: m.Timestamp, ThreadTS: thread.TS, Channel: thread.Channel,
		ParentUser: m.ParentUserId,
	}
	for _, a := range m.Attachments {
		e.Attachments = append(e.Attachments, shareMark{a.IsShare})
	}
	for _, f := range m.Files {
		e.Files = append(e.Files, slackFile{ID: f.ID, Name: f.Name, Size: int64(f.Size), URL: f.URLPrivateDownload, Shown: f.URLPrivate, Title: f.Title, External: f.IsExternal, Mode: f.Mode})
	}
	return e
}

// fresh is how old a message is at most that cannot have been accepted before: Slack sends one again, and a Redis that was cut back
// meanwhile does not know it any more.
const fresh = 5 * time.Second

// maxStored is the longest text that goes into the queue, in bytes; longer ones stay at Slack.
const maxStored = 24 << 10

func (b *Bot) turn(in incoming, begins bool) sessions.Turn {
	t := sessions.Turn{
		ID: in.id(), Kind: sessions.KindTurn, Thread: in.thread, User: in.event.User, TS: in.event.TS, Text: in.words,
		Mention: begins, Files: attachments(in.event.Files), Forwards: in.event.forwards(), At: time.Now().UTC(),
	}
	if rest, o, err := overridesIn(in.words); err == nil { // else it is an edit that chooses what makes no sense, and is left to Claude as it is
		t.Text, t.Overrides = rest, o
	}
	if begins {
		t.About = glimpse(t.Text)
	}
	t.Again = in.event.missed || in.event.again || t.At.Sub(timeOf(t.TS)) > fresh
	if len(t.Text) > maxStored {
		t.Text, t.AtSlack = "", true
	}
	return t
}

func attachments(files []slackFile) []sessions.Attachment {
	var out []sessions.Attachment
	for _, f := range files {
		if f.External || f.Mode == "tombstone" || f.Mode == "hidden_by_limit" {
			f.URL = ""
		} else if f.isDocument() {
			f.URL, f.Name = cmp.Or(f.URL, f.Shown), strings.TrimSuffix(cmp.Or(f.Title, f.Name, "canvas"), ".html")+".html"
		}
		out = append(out, sessions.Attachment{ID: f.ID, Name: f.Name, Size: max(f.Size, 0), URL: f.URL})
	}
	return out
}

// isDocument tells a canvas, or a post, which is one by now: Slack gives them as HTML.
func (f slackFile) isDocument() bool {
	return slices.Contains([]string{"canvas", "quip", "docs", "space"}, f.Mode)
}

// aside runs what is not to hold up the ack. [Bot.Close] waits for it.
func (b *Bot) aside(ctx context.Context, do func(context.Context)) { b.beside(ctx, asideTimeout, do) }

// stubbornly runs what is to be done in the end, whatever Slack is up to.
func (b *Bot) stubbornly(ctx context.Context, do func(context.Context)) {
	b.beside(ctx, stubbornTimeout, do)
}

// beside runs something for at most so long, and not much longer than the bot is there. That what it was about has ended, as ctx does
// with its turn, is no reason to leave it.
func (b *Bot) beside(ctx context.Context, limit time.Duration, do func(context.Context)) {
	b.asides.Go(func() {
		inner, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		go func() {
			select {
			case <-inner.Done():
				return
			case <-b.left:
			}
			select {
			case <-inner.Done():
			case <-time.After(leaveTime):
				cancel()
			}
		}()
		do(inner)
	})
}

// How long what is done beside may take, and how long from when the bot is told to leave: Fly waits 30 s then.
const (
	asideTimeout    = 30 * time.Second
	stubbornTimeout = 15 * time.Minute
	leaveTime       = 10 * time.Second
)

// Bounds of what is said while events come: a burst of them must not keep others from being taken in.
const (
	maxHeard = 8           // messages that are marked at once
	holdBack = time.Second // for which marks, and a look at what was missed, wait at most until every event that came is acked
)

// letAcksGo waits until every event that came is acked, for a while at most; false: ctx ended before.
func (b *Bot) letAcksGo(ctx context.Context) bool {
	select {
	case <-b.intake.quiet():
	case <-time.After(holdBack):
	case <-ctx.Done():
		return false
	}
	return true
}

// markLate is how long a mark waits for its place until it is looked whether it is still wanted.
const markLate = time.Second

// heard shows at once that a message was taken in. A mark that has to wait does not come behind that of the answer.
func (b *Bot) heard(ctx context.Context, t sessions.Turn) {
	if !hasMessage(t) || !b.letAcksGo(ctx) {
		return
	}
	began := time.Now()
	select {
	case b.hearing <- struct{}{}:
		defer func() { <-b.hearing }()
	case <-ctx.Done():
		return
	}
	ctx, err := b.out.ahead(withUrgency(ctx, usual), "reactions.add")
	if err == nil && (time.Since(began) < markLate || b.awaited(ctx, t)) {
		b.react(ctx, t, heardMark)
	}
}

// awaited reports whether a turn has no answer yet, as far as is known.
func (b *Bot) awaited(ctx context.Context, t sessions.Turn) bool {
	st, err := b.sessions.Status(ctx, t.Thread)
	return err != nil || waits(st, t.ID) || st.Running != nil && st.Running.ID == t.ID
}

// tellPlace tells who wrote a message what there is to tell of it: its place if others are ahead, and files that are not taken.
func (b *Bot) tellPlace(ctx context.Context, t sessions.Turn, ahead int) {
	refused := b.refusedFiles(t)
	if ahead == 0 && b.cfg.Parks {
		b.aside(ctx, func(ctx context.Context) { b.tellParked(ctx, t) })
	}
	if ahead == 0 && len(refused) == 0 || !b.letAcksGo(ctx) {
		return
	}
	if ahead > 0 {
		b.whisperIn(ctx, t.Thread.Channel, t.Thread.TS, t.User, place(t, ahead))
	}
	if ahead == 1 { // they are told later else, see movedUp
		_, _ = b.sessions.Once(ctx, nextKey(t)) // twice is no harm
	}
	if len(refused) > 0 {
		b.whisper(ctx, t.Thread, t.User, sayRefusedFiles(refused, b.cfg.AttachmentLimit))
	}
}

// parkedAfter is how long a turn may wait for its place among those that run before who asked is told of it.
const parkedAfter = time.Second

// tellParked tells who wrote a message if it waits for turns in other threads.
func (b *Bot) tellParked(ctx context.Context, t sessions.Turn) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(parkedAfter):
	}
	st, err := b.sessions.Status(ctx, t.Thread)
	if err == nil && st.Parked != "" && len(st.Queued) > 0 && st.Queued[0].ID == t.ID {
		b.whisper(ctx, t.Thread, t.User, sayParked(st.Parked))
	}
}

// place tells who wrote a message that others come before it. Behind the one at work alone it may be sent now.
func place(t sessions.Turn, ahead int) answer {
	text := sayPlace(ahead)
	if ahead > 1 {
		return plainly(text)
	}
	return offerNow(t, text)
}

// offerNow is a text with a button that stops what runs for a turn.
func offerNow(t sessions.Turn, text string) answer {
	return offering(text, button("now", "Send now", offerOf(t.Thread, t.ID), ""))
}

// heardMark is the reaction that shows that a message was taken in: people look for it right away, and at other marks when they come by.
const heardMark = "eyes"

// hasMessage tells turns that were asked for by a message from those of commands.
func hasMessage(t sessions.Turn) bool { return t.TS != "" && !strings.Contains(t.TS, "-") }

func (b *Bot) react(ctx context.Context, t sessions.Turn, name string) {
	if !hasMessage(t) {
		return
	}
	ctx = withUrgency(ctx, leisurely)
	if name == heardMark {
		ctx = withUrgency(ctx, usual)
	}
	err := b.insist(ctx, func() error {
		return b.api.AddReactionContext(ctx, name, slack.NewRefToMessage(t.Thread.Channel, t.TS))
	})
	if err != nil && !isCode(err, "already_reacted") {
		b.log.DebugContext(ctx, "reaction not added", "turn", t.ID, "err", err)
	}
}

func (b *Bot) unreact(ctx context.Context, t sessions.Turn, name string) {
	if !hasMessage(t) {
		return
	}
	ctx = withUrgency(ctx, leisurely)
	err := b.insist(ctx, func() error {
		return b.api.RemoveReactionContext(ctx, name, slack.NewRefToMessage(t.Thread.Channel, t.TS))
	})
	if err != nil && !isCode(err, "no_reaction") {
		b.log.DebugContext(ctx, "reaction not removed", "turn", t.ID, "err", err)
	}
}

// whisper says something in a thread to one person.
func (b *Bot) whisper(ctx context.Context, thread sessions.Thread, user, text string) {
	b.whisperIn(ctx, thread.Channel, thread.TS, user, plainly(text))
}

// whisperIn tells one person an answer, in a thread if there is one. Nobody can look whether it was told: when that is not known it is
// told again, since twice is better than never.
func (b *Bot) whisperIn(ctx context.Context, channel, thread, user string, a answer) {
	err := b.insist(ctx, func() error { return b.postEphemeral(ctx, channel, thread, user, a) })
	if err != nil {
		b.log.DebugContext(ctx, "nothing whispered", "channel", channel, "err", err)
	}
}

func (b *Bot) postEphemeral(ctx context.Context, channel, thread, user string, a answer) error {
	return inForm(a.text, a.blocks, func(form ...slack.MsgOption) error {
		if thread != "" {
			form = append(form, slack.MsgOptionTS(thread))
		}
		_, err := b.api.PostEphemeralContext(ctx, channel, user, form...)
		return err
	})
}

// sayTime bounds what is said before an event is acked: Slack waits 3 s for the ack.
const sayTime = 2500 * time.Millisecond

// once does something that shows, one time for the key: it is noted when it was done. Of the deliveries of a message that come at
// once, one does it. If that fails, or dies, the event is not acked, and the next delivery does it: look tells it that it may be done.
func (b *Bot) once(ctx context.Context, in incoming, key string, do func(ctx context.Context, look bool) error) error {
	if done, err := b.sessions.Noted(ctx, key); err != nil || done {
		return err
	}
	delivery := strconv.Itoa(in.event.retry)
	if in.event.missed {
		delivery = "missed at " + strconv.FormatInt(time.Now().Unix(), 10)
	}
	first, err := b.sessions.Once(ctx, key+":"+delivery)
	if err != nil || !first {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, sayTime)
	defer cancel()
	if err := do(limit, in.event.again || in.event.missed); err != nil {
		if isPassing(err) || limit.Err() != nil {
			return err
		}
		b.log.WarnContext(ctx, "nothing said", "thread", in.thread.Key(), "err", err)
	}
	_, err = b.sessions.Once(ctx, key)
	return err
}

// tellOnce whispers a sentence to who wrote a message, once for the key.
func (b *Bot) tellOnce(ctx context.Context, in incoming, key, sentence string) error {
	thread := in.thread.TS
	if in.root {
		thread = "" // where they look
	}
	return b.once(ctx, in, key, func(ctx context.Context, _ bool) error {
		return b.postEphemeral(ctx, in.thread.Channel, thread, in.event.User, plainly(sentence))
	})
}

// sayOnce answers a message in its thread, once however often it is delivered.
func (b *Bot) sayOnce(ctx context.Context, in incoming, what, sentence string, blocks ...slack.Block) error {
	return b.once(ctx, in, "said:"+what+":"+string(in.id()), func(ctx context.Context, look bool) error {
		return b.note(ctx, in.thread, "", in.id(), look, sentence, blocks...)
	})
}

// say posts a plain message in a thread, in the end; asked is the message that asked for it, if one did.
func (b *Bot) say(ctx context.Context, thread sessions.Thread, asked sessions.TurnID, sentence string, blocks ...slack.Block) {
	look := false
	err := b.insist(ctx, func() error {
		err := b.note(ctx, thread, "", asked, look, sentence, blocks...)
		look = true
		return err
	})
	if err != nil {
		b.log.WarnContext(ctx, "nothing said", "thread", thread.Key(), "err", err)
	}
}

// noteAge is how far back a note is looked for that nobody asked for.
const noteAge = 20 * time.Minute

// note posts a note in a thread, unless look finds it there.
func (b *Bot) note(ctx context.Context, thread sessions.Thread, session string, asked sessions.TurnID, look bool, sentence string, blocks ...slack.Block) error {
	if look {
		stands := false
		oldest := before(sessions.TSOf(time.Now()), noteAge)
		if ts := messageOf(asked); ts != "" {
			oldest = ts
		}
		err := b.eachOwn(ctx, thread, oldest, func(m slack.Message, turn sessions.TurnID, part string) {
			stands = stands || part == partNote && turn == asked && unescape(m.Text) == unescape(sentence)
		})
		if err != nil || stands {
			return err
		}
	}
	return inForm(sentence, blocks, func(form ...slack.MsgOption) error {
		_, err := b.post(ctx, thread, append(form, metadata(session, asked, partNote))...)
		return err
	})
}

// edited changes the turn of a message that was edited while it waits. An edit that overtook its message is taken in for it, and so is one that
// makes a message one for the bot.
func (b *Bot) edited(ctx context.Context, team string, e innerEvent) error {
	m := e.Message
	if m == nil || m.Edited == nil || m.BotID != "" || m.User == b.self || (e.Previous != nil && e.Previous.Text == m.Text) {
		return nil
	}
	m.Channel, m.ChannelType = e.Channel, e.ChannelType
	in := b.read(team, *m)
	if why := b.people.mayUse(ctx, m.User, e.Channel); why != nil {
		return why.again()
	}
	begins := in.begins()
	if controlWord(in) != "" || isMarkedAside(in.words) || !begins && isAside(m.Text) || in.words == "" && len(m.Files) == 0 && !m.forwards() {
		return b.editedAway(ctx, in, b.overtook(team, e))
	}
	t, revision := b.turn(in, begins), m.Edited.TS
	done, err := b.sessions.Edit(ctx, t, revision)
	if err != nil || done {
		return err
	}
	known, err := b.sessions.Known(ctx, t.ID)
	switch {
	case err != nil:
		return err
	case known:
		if !begins {
			if counts, err := b.listens(ctx, in); err != nil || !counts { // people talking
				return err
			}
		}
		return b.editedLate(ctx, in, revision)
	case !b.overtook(team, e) && !b.addresses(team, e, in):
		return nil
	}
	m.Edited, m.again = nil, e.again
	if err := b.message(ctx, team, *m); err != nil {
		return err
	}
	_, err = b.sessions.Edit(ctx, t, revision) // another replica may have taken in the message meanwhile
	return err
}

// editedAway acts on an edit after which a message is no prompt any more: one that waits is taken back, and what it says to the bot is done.
func (b *Bot) editedAway(ctx context.Context, in incoming, early bool) error {
	ctx = sessions.AskedBy(ctx, in.event.User)
	known, err := b.sessions.Known(ctx, in.id())
	if err != nil {
		return err
	}
	if !known && early { // its message may come yet, as it was
		if err := b.sessions.Forestall(ctx, in.thread, in.id()); err != nil {
			return err
		}
	}
	st, err := b.statusFor(ctx, &in)
	if err != nil {
		return err
	}
	if waits(st, in.id()) {
		if _, _, err := b.sessions.Cancel(ctx, in.thread, in.id()); err != nil {
			return err
		}
		b.aside(ctx, func(ctx context.Context) { b.whisper(ctx, in.thread, in.event.User, sayTakenBack) })
	}
	word := controlWord(in)
	if word == "" {
		return nil
	}
	if !in.begins() {
		if counts, err := b.replyCounts(ctx, &in); err != nil || !counts {
			return err
		}
	}
	return b.control(ctx, in, word)
}

// offerEdited offers to run a message again that was edited when it was done.
func offerEdited(thread sessions.Thread, turn sessions.TurnID) answer {
	return offering(sayEditedDone, button("retry", "Run it again", offerOf(thread, turn), "primary"))
}

// editedLate tells who edited a message that is at work, or was answered, what that means, and offers to run it again.
func (b *Bot) editedLate(ctx context.Context, in incoming, revision string) error {
	st, err := b.statusFor(ctx, &in)
	if err != nil || !isLive(st) || ending(st) || waits(st, in.id()) {
		return err // over, or a newer edit counts
	}
	a := plainly(sayEditedRunning)
	if st.Running == nil || st.Running.ID != in.id() || st.Over {
		a = offerEdited(in.thread, in.id())
	}
	return b.once(ctx, in, "edited:"+string(in.id())+":"+revision, func(ctx context.Context, _ bool) error {
		return b.postEphemeral(ctx, in.thread.Channel, in.thread.TS, in.event.User, a)
	})
}

// overtook tells whether a change may have come before the message that it changes: the message is young, and was for the bot.
func (b *Bot) overtook(team string, e innerEvent) bool {
	if e.Previous == nil || e.Previous.TS < before(sessions.TSOf(time.Now()), overlap) {
		return false
	}
	was := b.unchanged(team, e)
	return was.begins() || (!was.root && !isAside(was.event.Text))
}

// addresses reports whether an edit makes a message one for the bot that was people talking. To be done now it must not be old.
func (b *Bot) addresses(team string, e innerEvent, now incoming) bool {
	if e.Previous == nil || !now.begins() || now.event.TS < before(sessions.TSOf(time.Now()), b.cfg.AskAfter) {
		return false
	}
	was := b.unchanged(team, e)
	return !was.begins() || isMarkedAside(was.words)
}

// unchanged is a message as it was before a change.
func (b *Bot) unchanged(team string, e innerEvent) incoming {
	was := *e.Previous
	was.Channel, was.ChannelType = e.Channel, e.ChannelType
	return b.read(team, was)
}

// deleted takes the turn of a deleted message back, or stops it. That of a message which is still to come is not taken in.
func (b *Bot) deleted(ctx context.Context, team string, e innerEvent) error {
	if e.Previous == nil || e.Previous.BotID != "" {
		return nil
	}
	thread := sessions.Thread{Team: team, Channel: e.Channel, TS: e.Previous.thread()}
	id := turnID(team, e.Channel, e.DeletedTS)
	waiting, running, err := b.sessions.Cancel(ctx, thread, id)
	if err != nil || waiting || running || !b.overtook(team, e) {
		return err
	}
	return b.sessions.Forestall(ctx, thread, id)
}
