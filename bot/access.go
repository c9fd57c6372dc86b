package bot

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// people knows who somebody is, for some minutes.
type people struct {
	bot *Bot

	mu     sync.Mutex
	users  map[string]known[*slack.User] // guarded by mu
	groups map[string]known[[]string]    // guarded by mu; :: user group → its members
}

type known[T any] struct {
	what  T
	until time.Time
}

// knownFor is how long what Slack said about somebody is believed.
const knownFor = 5 * time.Minute

// refusal says why somebody may not. It is transient when Slack did not answer.
type refusal struct {
	sentence  string
	transient bool
	store     error // why: the store is away
}

// again is the error with which an event is left to Slack, to be sent again when Slack says who somebody is.
func (r refusal) again() error {
	switch {
	case r.store != nil:
		return r.store
	case r.transient:
		return errWho
	}
	return nil
}

var errWho = errors.New("it is not known who this is: Slack does not answer")

// mayUse returns nil if the person may start, follow up and stop turns in the channel: those may whom the bot is set up for, and of them, where
// the channel's settings name people, the ones who are named.
func (p *people) mayUse(ctx context.Context, user, channel string) *refusal {
	s, err := p.bot.settingsOf(ctx, channel)
	if err != nil {
		return &refusal{sentence: sayTrouble, store: err}
	}
	if why := p.mayTalk(ctx, user, channel, s); why != nil {
		return why
	}
	if len(s.Users) > 0 {
		return p.listed(ctx, user, s.Users, sayNotHere)
	}
	return nil
}

// mayTalk returns nil if the bot is set up for the person in the channel. A guest whom the channel's settings name is meant, where the bot's
// own do not say who is.
func (p *people) mayTalk(ctx context.Context, user, channel string, s sessions.Settings) *refusal {
	cfg := p.bot.cfg
	if len(cfg.AllowedChannels) > 0 && !slices.Contains(cfg.AllowedChannels, channel) {
		return &refusal{sentence: sayWrongChannel}
	}
	u, err := p.user(ctx, user)
	if err != nil {
		if isCode(err, "user_not_found", "users_not_found", "user_not_visible") {
			return &refusal{sentence: sayNotYou}
		}
		return &refusal{sentence: sayTryAgain, transient: true}
	}
	if u.IsBot || u.Deleted || u.IsStranger || u.TeamID != p.bot.team {
		return &refusal{sentence: sayNotYou}
	}
	if len(cfg.AllowedUsers) > 0 { // a guest who is named is meant
		return p.listed(ctx, user, cfg.AllowedUsers, sayNotYou)
	}
	if (u.IsRestricted || u.IsUltraRestricted) && !slices.Contains(s.Users, user) {
		return &refusal{sentence: sayNotYou}
	}
	return nil
}

// listed returns nil if the person is among those who are allowed, people and user groups; otherwise is what they are told.
func (p *people) listed(ctx context.Context, user string, allowed []string, otherwise string) *refusal {
	for _, id := range allowed {
		if id == user {
			return nil
		}
		if strings.HasPrefix(id, "S") {
			members, err := p.group(ctx, id)
			if err != nil && (isPassing(err) || ctx.Err() != nil) {
				return &refusal{sentence: sayTryAgain, transient: true}
			}
			if err != nil { // there is no such group; those who are named otherwise are meant all the same
				p.bot.log.WarnContext(ctx, "user group not read", "group", id, "err", err)
			}
			if slices.Contains(members, user) {
				return nil
			}
		}
	}
	return &refusal{sentence: otherwise}
}

// maySee returns nil if the person may act on a thread that they name from elsewhere: in a channel that they are in.
func (p *people) maySee(ctx context.Context, user, channel string) *refusal {
	if why := p.mayUse(ctx, user, channel); why != nil {
		return why
	}
	return p.isIn(ctx, user, channel)
}

// mayPress returns nil if the person may act on a thread that a button, a menu or a modal names: what these carry comes back by way of the
// presser, so of another channel than the one that they are in just now it is worth as much as a link.
func (b *Bot) mayPress(ctx context.Context, p interactionPayload, thread sessions.Thread) *refusal {
	if thread.Channel == p.Channel.ID {
		return b.people.mayUse(ctx, p.User.ID, thread.Channel)
	}
	_, why := b.people.mayRead(ctx, p.User.ID, thread.Channel)
	return why
}

// isIn returns nil if the person is in the channel.
func (p *people) isIn(ctx context.Context, user, channel string) *refusal {
	params := &slack.GetUsersInConversationParameters{ChannelID: channel, Limit: 1000}
	for {
		var members []string
		var cursor string
		err := p.bot.patiently(ctx, func() (err error) {
			members, cursor, err = p.bot.api.GetUsersInConversationContext(ctx, params)
			return err
		})
		if isGone(err) {
			return &refusal{sentence: sayNotThere}
		}
		if err != nil {
			return &refusal{sentence: sayTryAgain, transient: true}
		}
		if slices.Contains(members, user) {
			return nil
		}
		if cursor == "" {
			return &refusal{sentence: sayNotThere}
		}
		params.Cursor = cursor
	}
}

// mayEnd returns nil if the person may end the session: its owner, and admins of the workspace.
func (p *people) mayEnd(ctx context.Context, user string, s sessions.Session) *refusal {
	if why := p.mayUse(ctx, user, s.Thread.Channel); why != nil {
		return why
	}
	if user == s.Owner {
		return nil
	}
	u, err := p.user(ctx, user)
	if err != nil {
		return &refusal{sentence: sayTryAgain, transient: true}
	}
	if u.IsAdmin || u.IsOwner {
		return nil
	}
	return &refusal{sentence: sayNotYours(s.Owner)}
}

func (p *people) user(ctx context.Context, id string) (*slack.User, error) {
	p.mu.Lock()
	k, ok := p.users[id]
	p.mu.Unlock()
	if ok && time.Now().Before(k.until) {
		return k.what, nil
	}
	var u *slack.User
	err := p.bot.patiently(ctx, func() (err error) {
		u, err = p.bot.api.GetUserInfoContext(ctx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == nil || len(p.users) > 10000 {
		p.users = map[string]known[*slack.User]{}
	}
	p.users[id] = known[*slack.User]{u, time.Now().Add(knownFor)}
	return u, nil
}

// name is what people call somebody.
func (p *people) name(ctx context.Context, id string) string {
	u, err := p.user(ctx, id)
	switch {
	case err != nil:
		return id
	case u.Profile.DisplayName != "":
		return u.Profile.DisplayName
	case u.RealName != "":
		return u.RealName
	}
	return u.Name
}

func (p *people) group(ctx context.Context, id string) ([]string, error) {
	p.mu.Lock()
	k, ok := p.groups[id]
	p.mu.Unlock()
	if ok && time.Now().Before(k.until) {
		return k.what, nil
	}
	var members []string
	err := p.bot.patiently(ctx, func() (err error) {
		members, err = p.bot.api.GetUserGroupMembersContext(ctx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.groups == nil {
		p.groups = map[string]known[[]string]{}
	}
	p.groups[id] = known[[]string]{members, time.Now().Add(knownFor)}
	return members, nil
}
