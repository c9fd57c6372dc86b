package bot

import (
	"context"
	"strings"
	"time"
	"unicode"

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
