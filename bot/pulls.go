package bot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// trailersTime bounds how long Slack is asked for what commits say: work does not wait for it.
const trailersTime = 5 * time.Second

// trailers are what commits say that are made for somebody in a thread: who asked, and where. Where Slack does not tell the link, it is left out.
func (b *Bot) trailers(ctx context.Context, thread sessions.Thread, user string) []string {
	if b.cfg.PlainCommits || user == "" {
		return nil
	}
	limit := trailersTime
	if end, ok := ctx.Deadline(); ok { // as of a click: there must be time left for what it asks for
		limit = min(limit, time.Until(end)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := []string{"Requested-by: " + trailerName(b.people.name(ctx, user), user)}
	if link := b.permalink(ctx, thread); link != "" {
		out = append(out, "Slack-thread: "+link)
	}
	return out
}

// trailerName is a person in a commit. Their name is their own to choose: it must neither end the line nor look like an address or a mention.
func trailerName(name, id string) string {
	name = strings.Join(strings.FieldsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("<>@", r)
	}), " ")
	if name = clip(name, 80); name == "" || name == id {
		return "Slack " + id
	}
	return name + " (Slack " + id + ")"
}

// linkAction begins the action of a button that leads to a page: Slack tells of a press, and there is nothing to do.
const linkAction = "link-"

// linkButton leads to a page. Within a message each has a number of its own.
func linkButton(n int, label, url string) *slack.ButtonBlockElement {
	b := button(fmt.Sprint(linkAction, n), clip(label, maxLabel), "", "")
	b.URL = url
	return b
}

// linkLines are the pages that buttons lead to, for readers without blocks.
func linkLines(buttons []slack.BlockElement) string {
	var out []string
	for _, e := range buttons {
		if b, ok := e.(*slack.ButtonBlockElement); ok && b.URL != "" {
			out = append(out, "\n"+escape(b.Text.Text+": "+b.URL))
		}
	}
	return strings.Join(out, "")
}

// withButtons is a text with buttons below it, if there are any.
func withButtons(text string, buttons []slack.BlockElement) answer {
	if len(buttons) == 0 {
		return plainly(text)
	}
	a := offering(text, buttons...)
	a.text += linkLines(buttons)
	return a
}

// maxLabel is the most characters that Slack takes on a button.
const maxLabel = 75

// madeButtons lead to the pull requests and branches that a turn has made.
func madeButtons(o sessions.Outcome) []slack.BlockElement {
	var out []slack.BlockElement
	for _, p := range o.Pulls {
		out = append(out, linkButton(len(out)+1, sayPull(p, severalDirs(o)), p.URL))
	}
	for _, br := range o.Branches {
		if br.URL != "" {
			out = append(out, linkButton(len(out)+1, sayBranch(br, severalDirs(o)), br.URL))
		}
	}
	return out
}

// pullButtons lead to all pull requests of a session.
func pullButtons(s sessions.Session) []slack.BlockElement {
	return madeButtons(sessions.Outcome{Outcome: runner.Outcome{Repos: s.State, Pulls: s.Did.Pulls}})
}

// severalDirs reports whether a turn had more than one repository: then each is named.
func severalDirs(o sessions.Outcome) bool { return len(o.Repos) > 1 }

// unlinked names the branches that a turn pushed to where nobody knows their pages.
func unlinked(o sessions.Outcome) []runner.Branch {
	var out []runner.Branch
	for _, br := range o.Branches {
		if br.URL == "" {
			out = append(out, br)
		}
	}
	return out
}

// pullModal is the callback id of the modal that asks what a pull request is to be.
const pullModal = "pull"

// How long the press of "Open pull request", and its submission, may take: Slack waits 3 s for each.
const (
	pullTime   = 2 * time.Second
	submitTime = 2500 * time.Millisecond
)

// canPull reports whether a turn left something that a pull request can be opened with.
func canPull(s sessions.Session, o sessions.Outcome) bool {
	for _, r := range hosted(s, o.Repos) {
		pushed := slices.ContainsFunc(o.Branches, func(b runner.Branch) bool { return b.Dir == r.Dir })
		opened := slices.ContainsFunc(o.Pulls, func(p runner.Pull) bool { return p.Dir == r.Dir })
		if r.Changed > 0 || r.Unpushed > 0 || pushed && !opened {
			return true
		}
	}
	return false
}

// hosted are the repositories, of those, that are at a Git host.
func hosted(s sessions.Session, states []runner.RepoState) []runner.RepoState {
	var out []runner.RepoState
	for _, st := range states {
		if slices.ContainsFunc(s.Repos, func(r runner.Repo) bool { return r.Folder() == st.Dir && r.Hosted() }) {
			out = append(out, st)
		}
	}
	return out
}

// requestAt is what the hosts of some repositories of a session call a pull request.
func (b *Bot) requestAt(s sessions.Session, repos []runner.RepoState) string {
	for _, st := range repos {
		i := slices.IndexFunc(s.Repos, func(r runner.Repo) bool { return r.Folder() == st.Dir })
		if i < 0 || s.Repos[i].Forge(b.cfg.Forges) != runner.ForgeGitLab {
			return pullRequest
		}
	}
	if len(repos) == 0 {
		return pullRequest
	}
	return mergeRequest
}

// pullNote is what the modal keeps for its submission.
type pullNote struct {
	Thread  string `json:"thread"`
	Dir     string `json:"dir,omitempty"`     // of the only repository
	Request string `json:"request,omitempty"` // what it is called there
}

// pressPull asks in a modal what the pull request is to be. What it suggests comes from the turn: its message, and the answer that the button is
// under.
func (b *Bot) pressPull(ctx context.Context, p interactionPayload, thread sessions.Thread, turn sessions.TurnID) answer {
	ctx, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	st, err := b.sessions.Status(ctx, thread)
	switch {
	case err != nil:
		return plainly(sayTrouble)
	case !isLive(st):
		return plainly(sayNoSession)
	}
	repos := hosted(*st.Session, st.Session.State)
	if work := slices.DeleteFunc(slices.Clone(repos), func(r runner.RepoState) bool { return r.Changed == 0 && r.Unpushed == 0 }); len(work) > 0 {
		repos = work
	}
	if len(repos) == 0 {
		return plainly(sayAllPushed)
	}
	said := ""
	if p.Message != nil {
		said = answerText(unescape(p.Message.Text))
	}
	view := pullView(b.requestAt(*st.Session, repos), *st.Session, repos, b.titleOf(ctx, thread, turn, said), said)
	if _, err := b.api.OpenViewContext(ctx, p.TriggerID, view); err != nil { // in time or never
		b.log.WarnContext(ctx, "modal not opened", "err", err)
		return plainly(saySlackAway)
	}
	return answer{}
}

// titleOf suggests a title: what the turn's message asks for, or else how its answer begins.
func (b *Bot) titleOf(ctx context.Context, thread sessions.Thread, turn sessions.TurnID, said string) string {
	ctx, cancel := context.WithTimeout(ctx, pullTime/2)
	defer cancel()
	asked := ""
	if ts, _, _ := strings.Cut(nameOf(turn), "-"); ts != "" {
		if m, err := b.messageAt(ctx, sessions.Turn{ID: turn, Thread: thread, TS: ts}); err == nil {
			asked = b.readable(ctx, b.withoutMention(m.Text))
		}
	}
	for _, text := range []string{asked, said} {
		first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
		if first = strings.TrimLeft(first, "#*_ "); first != "" {
			return clip(first, maxPullTitle)
		}
	}
	return sayUntitled
}

// How long the fields of the modal may be, in characters. Slack takes 3,000.
const (
	maxPullTitle = 72 // that is suggested
	maxPullBody  = 3000
)

// aroundAnswer is what stands below an answer in its plain text: what changed, links, and the footer.
var aroundAnswer = regexp.MustCompile(`(?s)(\n\*Changed \d+ files?\* · .*|(\n[^\n]*: https?://[^\n]*)*\nexit \d+ · .*)$`)

func answerText(text string) string {
	return clip(strings.TrimSpace(aroundAnswer.ReplaceAllString(text, "")), maxPullBody)
}

// pullView is the modal.
func pullView(request string, s sessions.Session, repos []runner.RepoState, title, body string) slack.ModalViewRequest {
	note := pullNote{Thread: s.Thread.Key(), Request: request}
	var blocks []slack.Block
	if len(repos) == 1 {
		note.Dir = repos[0].Dir
		blocks = append(blocks, section("`"+codeText(note.Dir)+"`: "+sayWork(repos[0])))
	} else {
		var options []option
		for _, r := range repos {
			options = append(options, option{r.Dir, r.Dir + ": " + sayWork(r)})
		}
		blocks = append(blocks, slack.NewInputBlock("repo", plainObject("Repository"), nil, pick(0, options...)))
	}
	branch, base := branches(s, repos, title)
	blocks = append(blocks,
		line("title", "Title", "", title, 200, false, false), line("body", "Text", "", body, maxPullBody, true, true),
		line("branch", "Branch", "", branch, 200, false, false), line("base", "Merge into", sayBaseHint, base, 200, false, true))
	if i := slices.IndexFunc(repos, func(r runner.RepoState) bool { return r.Changed > 0 }); i >= 0 {
		chosen := 0
		if repos[i].Unpushed == 0 { // there is nothing else
			chosen = 1
		}
		rest := pick(chosen, option{"leave", sayLeaveOut}, option{"commit", sayCommitToo})
		blocks = append(blocks, slack.NewInputBlock("rest", plainObject(sayUncommitted), nil, rest))
	}
	raw, _ := json.Marshal(note) // of texts
	return slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: pullModal, PrivateMetadata: string(raw), Title: plainObject(sayOpenPull(request)), Submit: plainObject("Open"), Close: plainObject("Cancel"),
		Blocks: slack.Blocks{BlockSet: blocks},
	}
}

// pick is a menu, of whose options one is chosen at first.
func pick(chosen int, options ...option) *slack.SelectBlockElement {
	all := objects(options)
	e := slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, nil, "value", all...)
	e.InitialOption = all[chosen]
	return e
}

// line is a field to write in, of several lines where lines is set.
func line(name, label, hint, text string, most int, lines, optional bool) *slack.InputBlock {
	e := slack.NewPlainTextInputBlockElement(nil, "value")
	e.InitialValue, e.MaxLength, e.Multiline = clip(text, most), most, lines
	in := slack.NewInputBlock(name, plainObject(label), nil, e)
	if hint != "" {
		in.Hint = plainObject(hint)
	}
	in.Optional = optional
	return in
}

// branches suggests what to push to, and what to merge it into: the branch that the work is on, unless that is the one that was cloned.
func branches(s sessions.Session, repos []runner.RepoState, title string) (branch, base string) {
	branch = "flaudebot/" + slug(title)
	if len(repos) > 1 {
		return branch, ""
	}
	if i := slices.IndexFunc(s.Repos, func(r runner.Repo) bool { return r.Folder() == repos[0].Dir }); i >= 0 {
		base = s.Repos[i].Branch
	}
	if on := repos[0].Branch; on != base && !slices.Contains([]string{"", "HEAD", "main", "master"}, on) && runner.CheckBranch(on) == nil {
		branch = on
	}
	return branch, base
}

var notInSlug = regexp.MustCompile(`[^a-z0-9]+`)

// slug makes a name of some words.
func slug(text string) string {
	s := strings.Trim(notInSlug.ReplaceAllString(strings.ToLower(text), "-"), "-")
	if len(s) > 40 {
		s = s[:40]
		if i := strings.LastIndexByte(s, '-'); i > 10 {
			s = s[:i]
		}
	}
	return cmp.Or(strings.Trim(s, "-"), "work")
}

// submitPull takes the modal, and returns what its ack says: what is wrong with it, or nothing. beyond is for what may take longer.
func (b *Bot) submitPull(ctx, beyond context.Context, p interactionPayload) any {
	wrong := func(block, why string) any { return wrong(map[string]string{block: why}) }
	var note pullNote
	_ = json.Unmarshal([]byte(p.View.Metadata), &note) // else it names no thread
	thread, ok := sessions.ParseThread(note.Thread)
	if !ok {
		return wrong("title", sayOldButton)
	}
	if why := b.mayPress(ctx, p, thread); why != nil {
		return wrong("title", why.sentence)
	}
	in := func(block string) string { return joined(p.View.State.Values.of(block)) }
	what := runner.Publish{
		Dir: cmp.Or(note.Dir, in("repo")), Title: in("title"), Branch: in("branch"), Base: in("base"), Commit: in("rest") == "commit",
	}
	switch {
	case what.Title == "":
		return wrong("title", sayNoTitle)
	case runner.CheckBranch(what.Branch) != nil:
		return wrong("branch", sayNoBranch)
	case what.Base != "" && runner.CheckBranch(what.Base) != nil:
		return wrong("base", sayNoBranch)
	case what.Base == what.Branch:
		return wrong("branch", saySameBranch)
	}
	trailers := b.trailers(ctx, thread, p.User.ID)
	what.Body = pullBody(in("body"), trailers)
	a := b.submitErrand(ctx, thread, p.User.ID, p.View.ID, sayOpenPull(cmp.Or(note.Request, pullRequest)), sessions.Errand{
		Errand: runner.Errand{Kind: runner.ErrandPublish, Publish: &what}, Trailers: trailers,
	})
	switch {
	case a.failed: // what was written stays
		return wrong("title", a.text)
	case a.text == sayErrandBegins || a.text == sayAskedAlready: // the live message tells
	default:
		b.aside(beyond, func(ctx context.Context) { b.whisper(ctx, thread, p.User.ID, a.text) })
	}
	return nil
}

// pullBody is the text of a pull request, with who asked for it and where.
func pullBody(text string, trailers []string) string {
	text = strings.TrimSpace(text)
	if len(trailers) == 0 {
		return text
	}
	return strings.TrimSpace(text + "\n\n---\n" + strings.Join(trailers, "\n"))
}

// publishAnswer says what became of a pull request, or of what its host calls one.
func publishAnswer(request string, t sessions.Turn, o sessions.Outcome) answer {
	branch := t.Errand.Publish.Branch
	var buttons []slack.BlockElement
	var text string
	if o.Failure == runner.FailNone && len(o.Pulls) > 0 {
		text = sayPulled(o.Pulls[0], branch, t.User)
	} else if text = sayNotPulled(request, branch, o); text == "" {
		text = sayErrandFailed(t, o)
	}
	if o.NewPull != "" {
		buttons = append(buttons, linkButton(0, sayOpenThere, o.NewPull))
	}
	buttons = append(buttons, madeButtons(o)...)
	return withButtons(text, buttons)
}

// canSave reports whether what a session holds that is nowhere else can be pushed.
func canSave(s sessions.Session) bool { return len(hosted(s, s.Unpushed())) > 0 }

// pressSave has all that is nowhere else pushed. The session ends behind it where the button says so.
func (b *Bot) pressSave(ctx context.Context, p interactionPayload, thread sessions.Thread) answer {
	thenEnd := strings.HasSuffix(p.Actions[0].Value, sureMark)
	st, err := b.sessions.Status(ctx, thread)
	switch {
	case err != nil:
		return plainly(sayTrouble)
	case !isLive(st):
		return plainly(sayNoSession)
	}
	if thenEnd {
		if why := b.people.mayEnd(ctx, p.User.ID, *st.Session); why != nil {
			return plainly(why.sentence)
		}
	}
	what := saySaveWork
	if thenEnd {
		what = saySaveThenEnd
	}
	return b.submitErrand(ctx, thread, p.User.ID, p.Actions[0].ActionTS, what, sessions.Errand{
		Errand:  runner.Errand{Kind: runner.ErrandRescue, Rescue: &runner.Rescue{Branch: "flaudebot/saved-" + st.Session.SessionID[:min(len(st.Session.SessionID), 8)]}},
		ThenEnd: thenEnd, Trailers: b.trailers(ctx, thread, p.User.ID),
	})
}

// savedAnswer says where that is now.
func savedAnswer(s sessions.Session, t sessions.Turn, o sessions.Outcome) answer {
	text := sayPushedAll(o.Branches)
	switch o.Failure {
	case runner.FailNone:
	case runner.FailErrand, runner.FailNoToken, runner.FailNoRight, runner.FailProtected, runner.FailTaken, runner.FailRemote:
		text = sayNotSaved(o)
	default:
		text = sayErrandFailed(t, o)
	}
	left := holdsWork(s)
	if o.Failure == runner.FailNone && left {
		text += "\n" + sayUnpushed(s)
	}
	buttons := madeButtons(o)
	if t.Errand.ThenEnd && (left || o.Failure != runner.FailNone) {
		buttons = append(buttons, endAnyway(s))
	}
	return withButtons(text, buttons)
}

// endAfter ends a session whose work is safe now, unless somebody has written in its thread meanwhile. It may be called again.
func (b *Bot) endAfter(ctx context.Context, s sessions.Session, t sessions.Turn, o sessions.Outcome) error {
	if t.Kind != sessions.KindErrand || !t.Errand.ThenEnd || o.Failure != runner.FailNone || holdsWork(s) {
		return nil
	}
	st, err := b.sessions.Status(ctx, t.Thread)
	switch {
	case err != nil:
		return err
	case st.Session == nil || st.Session.SessionID != s.SessionID: // another owner has ended it
		return nil
	case slices.ContainsFunc(st.Queued, func(q sessions.Turn) bool { return q.Kind == sessions.KindTurn }):
		return b.note(ctx, t.Thread, s.SessionID, t.ID, true, sayKeptOn)
	}
	e, err := b.sessions.End(ctx, t.Thread, t.User, sessions.TSOf(t.At.Add(sessions.MaxSkew)))
	switch {
	case errors.Is(err, sessions.ErrNoSession), errors.Is(err, sessions.ErrBegunSince): // as above
		return nil
	case err != nil:
		return err
	}
	if len(e.Dropped) > 0 { // it came in this very moment
		e.Stopped = nil // which is the errand itself
		b.tellDropped(ctx, s, e)
		b.stubbornly(ctx, func(ctx context.Context) { b.say(ctx, t.Thread, t.ID, sayEnding(e)) })
	}
	return nil
}
