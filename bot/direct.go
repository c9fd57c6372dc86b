package bot

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// Direct messages are a place to talk: each message outside of a thread begins a thread of its own. Where Slack offers it, whoever
// opens them finds prompts to begin with, and each conversation has a title in its history.

// suggestions offers prompts, where the workspace has that.
type suggestions struct {
	off atomic.Bool
}

// suggestAgain is how long prompts that were offered in a conversation are left as they are.
const suggestAgain = time.Minute

// opened offers prompts to somebody who opens their direct messages with the bot.
func (b *Bot) opened(ctx context.Context, e innerEvent) {
	if e.Tab != "messages" || b.suggest.off.Load() || !b.greeted.first(e.Channel, time.Now()) {
		return
	}
	b.aside(withUrgency(ctx, leisurely), func(ctx context.Context) {
		if b.people.mayUse(ctx, e.User, e.Channel) != nil {
			return // they are told when they ask
		}
		err := b.insist(ctx, func() error {
			// With a thread's ts Slack does nothing, silently, for an app that is an agent.
			return b.api.SetAssistantThreadsSuggestedPromptsContext(ctx, slack.AssistantThreadsSetSuggestedPromptsParameters{
				ChannelID: e.Channel, Title: suggestTitle, Prompts: suggested(),
			})
		})
		if lacks(err) {
			b.suggest.off.Store(true)
		}
		if err != nil {
			b.log.DebugContext(ctx, "no prompts offered", "channel", e.Channel, "err", err)
		}
	})
}

// lacks tells errors of Slack by which a workspace, or an app that was installed long ago, lacks what an agent has.
func lacks(err error) bool {
	return isCode(err, "unknown_method", "missing_scope", "feature_disabled", "not_allowed_token_type", "access_denied")
}

// maxTitle is the longest title of a conversation that Slack takes, in characters; more than a line of it is seen nowhere.
const maxTitle = 80

// title is what a conversation is called: the first line that it began with.
func (b *Bot) title(ctx context.Context, t sessions.Turn) string {
	words, _, err := b.repositories(t.Text)
	if err != nil {
		words = t.Text
	}
	for line := range strings.Lines(b.readable(ctx, words)) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			return clip(line, maxTitle)
		}
	}
	if len(t.Files) > 0 {
		return clip(strings.Join(strings.Fields(t.Files[0].Name), " "), maxTitle)
	}
	return ""
}
