package bot

import (
	"context"
	"fmt"
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
	ctx, cancel := context.WithTimeout(ctx, trailersTime)
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
