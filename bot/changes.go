package bot

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// What a turn changed: a few lines below its answer, its diff and its files in modals, and in the thread as files. The content stays on the session's
// volume until somebody asks for it: an errand brings it.

// The buttons and the picker, by their action ids.
const (
	actDiff     = "changes_diff"      // of an answer: the diff in a modal
	actFiles    = "changes_files"     // of an answer: a modal to pick files in
	actDiffFile = "changes_diff_file" // of that modal: the diff as a file in the thread
	actGet      = "changes_get"       // a picker: one file into the thread
	actGetAll   = "changes_get_all"   // all of them
)

// changesTitle is the title of both modals.
const changesTitle = "Changes"

// maxChangeLines is how many files an answer names.
const maxChangeLines = 5

// changeLines tell what a turn changed, the first files by name, "" if it is nothing that is known of.
func changeLines(c *runner.Changes) string {
	if c == nil || c.Total == 0 {
		return ""
	}
	lines := []string{sayChanged(c)}
	shown := c.Files[:min(len(c.Files), maxChangeLines)]
	for _, f := range shown {
		lines = append(lines, changeLine(f))
	}
	if more := c.Total - len(shown); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// changeLine is a file with what became of it.
func changeLine(f runner.Change) string {
	line := codeName(f.Path)
	if f.Was != "" {
		line += " (was " + codeName(f.Was) + ")"
	}
	switch f.State {
	case runner.ChangeAdded:
		line += " new"
	case runner.ChangeRemoved:
		line += " removed"
	case runner.ChangeModified, runner.ChangeRenamed:
	}
	switch {
	case strings.HasSuffix(f.Path, "/"):
		return line + " · repository"
	case f.Binary && f.State == runner.ChangeRemoved:
		return line
	case f.Binary:
		return line + " · " + bytesOf(f.Size)
	case f.Added == 0 && f.Removed == 0:
		return line
	}
	return line + fmt.Sprintf(" · +%d −%d", f.Added, f.Removed)
}

// maxName bounds a file's name where people read it, in characters: the end of a path tells the most.
const maxName = 70

// plainName is a file's name as plain text, whatever it holds: one line that neither hides nor turns around what is beside it.
func plainName(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return '\uFFFD'
		}
		return r
	}, name)
	if n := utf8.RuneCountInString(name); n > maxName {
		name = "…" + string([]rune(name)[n-maxName+1:])
	}
	return name
}

// codeName is a file's name as code within mrkdwn: nothing in it is a form of Slack's, nor ends the code.
func codeName(name string) string {
	return "`" + escape(strings.ReplaceAll(plainName(name), "`", "ˋ")) + "`"
}

func bytesOf(n int64) string {
	switch {
	case n < 1<<10:
		return plural(int(n), "byte")
	case n < 1<<20:
		return fmt.Sprintf("%d KB", (n+1<<9)>>10)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}

// changeButtons are those below an answer. They name the turn as the runner knows it.
func changeButtons(t sessions.Turn, o runner.Outcome) []slack.BlockElement {
	var out []slack.BlockElement
	c, turn := o.Changes, cmp.Or(o.Turn, string(t.ID))
	if c == nil || t.Kind != sessions.KindTurn {
		return nil
	}
	if c.DiffBytes > 0 {
		out = append(out, button(actDiff, "Diff", turn, ""))
	}
	if slices.ContainsFunc(c.Files, canFetch) {
		out = append(out, button(actFiles, "Files", turn, ""))
	}
	return out
}

func canFetch(f runner.Change) bool {
	return f.State != runner.ChangeRemoved && !strings.HasSuffix(f.Path, "/")
}

// isAboutChanges tells the presses that pressChanges acts on.
func isAboutChanges(action string) bool { return strings.HasPrefix(action, "changes_") }

// pressChanges acts on a press of one of them, and returns what its presser is told where no modal tells it.
func (b *Bot) pressChanges(ctx context.Context, p interactionPayload) answer {
	action := p.Actions[0]
	value := action.Value
	if action.ActionID == actGet { // its values are numbers of files
		value = action.BlockID
	}
	place := p
	place.View.ID = "" // what is in a modal names its thread as well
	thread, turn := target(place, action.ActionID, value)
	if thread.TS == "" || nameOf(turn) == "" {
		return plainly(sayOldButton)
	}
	if why := b.mayPress(ctx, p, thread); why != nil {
		return plainly(why.sentence)
	}
	e := sessions.Errand{Errand: runner.Errand{Of: string(turn)}}
	var what string
	switch action.ActionID {
	case actDiff:
		e.Kind, e.Private = runner.ErrandDiff, true
		return b.fetchInModal(ctx, p, thread, sayShowDiff, e)
	case actFiles:
		e.Kind, e.Private = runner.ErrandChanges, true
		return b.fetchInModal(ctx, p, thread, sayShowFiles, e)
	case actDiffFile:
		e.Kind, what = runner.ErrandDiff, sayFetchDiff
	case actGetAll:
		e.Kind, what = runner.ErrandGet, sayFetchAll
	case actGet:
		n, err := strconv.Atoi(action.Option.Value)
		if err != nil || n < 1 {
			return plainly(sayOldButton)
		}
		e.Kind, e.File, what = runner.ErrandGet, n, sayFetch(action.Option.Text.Text)
	default:
		return answer{}
	}
	a := b.submitErrand(ctx, thread, p.User.ID, action.ActionTS, what, e)
	if a.title = changesTitle; a.text == sayErrandBegins {
		a.text = sayIntoThread
	}
	return a
}

// fetchInModal opens a modal at once, since Slack allows that for 3 s only, and has an errand fill it. Where none opens, the presser is told in a message
// that only they see.
func (b *Bot) fetchInModal(ctx context.Context, p interactionPayload, thread sessions.Thread, what string, e sessions.Errand) answer {
	limit, cancel := context.WithTimeout(ctx, manageTime)
	defer cancel()
	view, err := b.api.OpenViewContext(limit, p.TriggerID, modal(answer{text: sayFetching, title: changesTitle}))
	if err != nil {
		b.log.WarnContext(ctx, "modal not opened", "err", err)
		return b.submitErrand(ctx, thread, p.User.ID, p.Actions[0].ActionTS, what, e)
	}
	e.View = view.ID
	a := b.submitErrand(ctx, thread, p.User.ID, p.Actions[0].ActionTS, what, e)
	if a.text == sayErrandBegins {
		return answer{}
	}
	a.title = changesTitle
	// What the errand has told by now stays: the modal has another hash then.
	if _, err := b.api.UpdateViewContext(ctx, modal(a), "", view.Hash, view.ID); err != nil && !isCode(err, "hash_conflict") {
		b.log.WarnContext(ctx, "modal not changed", "err", err)
	}
	return answer{}
}

// How much of a diff a modal shows. Slack takes 100 blocks, and documents no length of such a text: that of a section is kept.
const (
	maxDiffBlocks = 12
	maxDiffBlock  = 2900 // characters
)

// offerAgain is the value of a button about the turn that an errand was about.
func offerAgain(t sessions.Turn) string { return offerOf(t.Thread, sessions.TurnID(t.Errand.Of)) }

// diffAnswer shows a diff, as much as fits.
func diffAnswer(t sessions.Turn, o sessions.Outcome) answer {
	diff := strings.TrimRight(strings.ToValidUTF8(string(o.Payload), "\uFFFD"), "\n")
	a := answer{text: sayChanged(o.Changes), title: changesTitle}
	a.blocks = []slack.Block{section(a.text)}
	pieces := pieces(diff, maxDiffBlock)
	for _, piece := range pieces[:min(len(pieces), maxDiffBlocks)] {
		text := slack.RichTextPreformatted{Type: slack.RTEPreformatted, Elements: []slack.RichTextSectionElement{slack.NewRichTextSectionTextElement(piece, nil)}}
		a.blocks = append(a.blocks, slack.NewRichTextBlock("", &text))
	}
	if len(pieces) > maxDiffBlocks {
		a.blocks = append(a.blocks, section(sayDiffGoesOn))
		a.text += "\n" + sayDiffGoesOn
	}
	a.blocks = append(a.blocks, slack.NewActionBlock("", button(actDiffFile, "As a file", offerAgain(t), "")))
	return a
}

// pieces cuts text at line ends, and lines that are longer than a piece wherever that is.
func pieces(text string, most int) []string {
	var out []string
	for text != "" {
		piece := head(text, most)
		text = strings.TrimPrefix(text[len(piece):], "\n")
		out = append(out, piece)
	}
	return out
}

// filesAnswer offers the files of a turn to pick from.
func filesAnswer(t sessions.Turn, c *runner.Changes) answer {
	a := answer{text: sayChanged(c), title: changesTitle}
	var options []option
	more := c.Total - len(c.Files)
	for i, f := range c.Files {
		switch {
		case !canFetch(f):
		case len(options) == maxChoices:
			more++
		default:
			options = append(options, option{strconv.Itoa(i + 1), plainName(f.Path)})
		}
	}
	if len(options) == 0 {
		a.text += "\n" + sayNothingToFetch
		return a
	}
	picker := slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, plainObject("A file"), actGet, objects(options)...)
	pick := section(sayPickFile(more))
	pick.BlockID, pick.Accessory = offerAgain(t), slack.NewAccessory(picker)
	a.blocks = []slack.Block{section(a.text), pick, slack.NewActionBlock("", button(actGetAll, sayAllAsZip, offerAgain(t), ""))}
	a.text += "\n" + sayPickFile(more)
	return a
}

// errandFile is the name of the file that an errand posts in its thread, "" if it posts none.
func errandFile(t sessions.Turn, o sessions.Outcome) string {
	if t.Kind != sessions.KindErrand || t.Errand.Private || o.Failure != runner.FailNone || len(o.Payload) == 0 {
		return ""
	}
	switch {
	case t.Errand.Kind == runner.ErrandDiff:
		return "changes.diff"
	case t.Errand.Kind == runner.ErrandGet && t.Errand.File == 0:
		return "changes.zip"
	case t.Errand.Kind == runner.ErrandGet && o.Changes != nil && len(o.Changes.Files) > 0:
		return safeName(path.Base(o.Changes.Files[0].Path), map[string]bool{})
	}
	return ""
}

// fetchedAnswer says what an errand has brought into the thread. taken: Slack took the file.
func fetchedAnswer(t sessions.Turn, o sessions.Outcome, taken bool) answer {
	switch {
	case len(o.Payload) == 0:
		return plainly(sayEmptyFile)
	case !taken:
		return plainly(sayNoFilesHere)
	case t.Errand.Kind == runner.ErrandDiff:
		return plainly(sayDiffAbove(o.Changes))
	case t.Errand.File == 0:
		return plainly(sayAllAbove(o.Changes))
	}
	return plainly(sayFileAbove(cmp.Or(o.Changes, &runner.Changes{}).Files))
}
