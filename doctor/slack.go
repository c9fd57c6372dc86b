package doctor

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/slack-go/slack"
)

// Slack says how Slack is reached.
type Slack struct {
	AppToken, BotToken string   // "": there is none, which is said with the settings
	APIURL             string   // with / at its end
	Scopes             []string // that the manifest asks for
	Users, Channels    []string // ids that are allowed, if that is limited
}

// Where a person finds things of the app, at https://api.slack.com/apps.
const (
	atOAuth    = "the app's page OAuth & Permissions"
	atBasic    = "the app's page Basic Information, App-Level Tokens"
	atManifest = "the app's page App Manifest"
)

func (s *Slack) look(ctx context.Context, e *examination) []Finding {
	var out []Finding
	api := slack.New(s.BotToken, slack.OptionHTTPClient(e.http), slack.OptionAPIURL(s.APIURL), slack.OptionAppLevelToken(s.AppToken))
	app := "" // that the bot token is of
	if s.BotToken != "" {
		var found []Finding
		app, found = s.bot(ctx, api)
		out = append(out, found...)
	}
	if s.AppToken != "" {
		out = append(out, s.socket(ctx, api, app)...)
	}
	return out
}

// bot looks at the bot token, and returns the id of its app, where Slack tells.
func (s *Slack) bot(ctx context.Context, api *slack.Client) (app string, out []Finding) {
	who, err := api.AuthTestContext(ctx)
	if err != nil {
		return "", []Finding{s.refused("SLACK_BOT_TOKEN", "copy the Bot User OAuth Token again from "+atOAuth+" into SLACK_BOT_TOKEN", err)}
	}
	if who.BotID == "" {
		return "", []Finding{bad("copy the Bot User OAuth Token (xoxb-…) from "+atOAuth+" into SLACK_BOT_TOKEN", "SLACK_BOT_TOKEN is a person's token, %s's, and not a bot's", who.User)}
	}
	out = append(out, ok("SLACK_BOT_TOKEN is of @%s (%s) in the workspace %s (%s)", who.User, who.UserID, who.Team, who.TeamID))
	out = append(out, s.scopes(who.Header.Get("X-OAuth-Scopes"))...)
	if b, err := api.GetBotInfoContext(ctx, slack.GetBotInfoParameters{Bot: who.BotID}); err == nil {
		app = b.AppID
	}
	out = append(out, s.places(ctx, api, who.User)...)
	return app, append(out, s.allowed(ctx, api)...)
}

// scopes compares what Slack has granted with what the manifest asks for.
func (s *Slack) scopes(header string) []Finding {
	if header == "" {
		return []Finding{warn("compare "+atOAuth+" with `flaudebot manifest`", "Slack does not say which scopes the bot token has")}
	}
	granted := strings.FieldsFunc(header, func(r rune) bool { return r == ',' || r == ' ' })
	var missing, extras []string
	for _, scope := range s.Scopes {
		switch {
		case slices.Contains(granted, scope):
		case scope == "assistant:write": // an app without Slack's features for agents is a choice, and the bot does without
			extras = append(extras, scope)
		default:
			missing = append(missing, scope)
		}
	}
	fix := "paste what `flaudebot manifest` prints into " + atManifest + ", save, and reinstall the app to the workspace"
	var out []Finding
	if len(missing) > 0 {
		out = append(out, bad(fix, "the bot token lacks the scopes %s", strings.Join(missing, ", ")))
	}
	if len(extras) > 0 {
		out = append(out, warn(fix, "the bot token lacks %s: Slack shows no status of its own while a turn runs", strings.Join(extras, ", ")))
	}
	if out == nil {
		out = append(out, ok("the bot token has the %d scopes of the manifest", len(s.Scopes)))
	}
	return out
}

// places tells in how many channels the bot is: elsewhere it hears no mention.
func (s *Slack) places(ctx context.Context, api *slack.Client, name string) []Finding {
	list, next, err := api.GetConversationsForUserContext(ctx, &slack.GetConversationsForUserParameters{
		Types: []string{"public_channel", "private_channel"}, Limit: 200, ExcludeArchived: true,
	})
	more := ""
	if next != "" {
		more = "more than "
	}
	// What cannot be read here is Slack's side of the app's events: that takes a configuration token, which is a person's and lasts for hours.
	const events = "; which events the app is sent Slack shows on its page Event Subscriptions alone"
	switch {
	case err != nil:
		return []Finding{warn("give the bot the scopes of the manifest, and try again", "in which channels the bot is cannot be told: %s", code(err))}
	case len(list) == 0:
		return []Finding{warn("type /invite @"+name+" in a channel", "the bot is in no channel, so nobody can mention it there%s", events)}
	}
	return []Finding{ok("the bot is in %s%d channels%s", more, len(list), events)}
}

// allowed looks the ids up that FLAUDEBOT_ALLOWED_USERS and FLAUDEBOT_ALLOWED_CHANNELS name.
func (s *Slack) allowed(ctx context.Context, api *slack.Client) []Finding {
	var unknown []string
	const most = 20 // of each kind: Slack counts calls
	for _, id := range s.Users[:min(len(s.Users), most)] {
		var err error
		if strings.HasPrefix(id, "S") {
			_, err = api.GetUserGroupMembersContext(ctx, id)
		} else {
			_, err = api.GetUserInfoContext(ctx, id)
		}
		if slices.Contains([]string{"user_not_found", "no_such_subteam", "users_not_found"}, code(err)) {
			unknown = append(unknown, id)
		}
	}
	var out []Finding
	if len(unknown) > 0 {
		out = append(out, bad("copy the ids again: of a person from the profile's menu, of a user group from its page", "FLAUDEBOT_ALLOWED_USERS names nobody of this workspace: %s", strings.Join(unknown, ", ")))
	}
	unknown = nil
	for _, id := range s.Channels[:min(len(s.Channels), most)] {
		if _, err := api.GetConversationInfoContext(ctx, &slack.GetConversationInfoInput{ChannelID: id}); code(err) == "channel_not_found" {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) > 0 {
		out = append(out, bad("copy the ids again from the end of About in the channel's details, and invite the bot if the channel is private", "FLAUDEBOT_ALLOWED_CHANNELS names what the bot cannot see: %s", strings.Join(unknown, ", ")))
	}
	return out
}

// socket looks at the app-level token. The socket that it could open is not opened: Slack might send somebody's click or command over it, and sends
// neither of them again.
func (s *Slack) socket(ctx context.Context, api *slack.Client, app string) []Finding {
	_, address, err := api.StartSocketModeContext(ctx)
	if err != nil {
		return []Finding{s.refused("SLACK_APP_TOKEN", "make an app-level token with the scope connections:write on "+atBasic+" and put it into SLACK_APP_TOKEN", err)}
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "wss" && u.Scheme != "ws" {
		return []Finding{bad("see that SLACK_API_URL is Slack's", "Slack grants a socket, and its address makes no sense")}
	}
	of := cmp.Or(u.Query().Get("app_id"), appOf(s.AppToken))
	if app != "" && of != "" && app != of {
		return []Finding{bad("take both from the same app at https://api.slack.com/apps", "SLACK_APP_TOKEN is of the app %s and SLACK_BOT_TOKEN of %s: the bot would hear what it cannot answer", of, app)}
	}
	return []Finding{ok("SLACK_APP_TOKEN opens sockets")}
}

// appOf is the app's id in an app-level token: xapp-1-A0123456789-…
func appOf(token string) string {
	if parts := strings.Split(token, "-"); len(parts) > 3 && strings.HasPrefix(parts[2], "A") {
		return parts[2]
	}
	return ""
}

// refused is the finding of a call that shows whether a token is good.
func (s *Slack) refused(name, fix string, err error) Finding {
	if limited, ok := errors.AsType[*slack.RateLimitedError](err); ok {
		return warn("try again in a minute", "Slack asks to be left alone for %s, so %s could not be tried", limited.RetryAfter, name)
	}
	if _, ok := errors.AsType[slack.SlackErrorResponse](err); ok {
		if err.Error() == "missing_scope" {
			return bad(fix, "%s lacks a scope: Slack says missing_scope", name)
		}
		return bad(fix, "Slack refuses %s: %s", name, err)
	}
	if status, ok := errors.AsType[slack.StatusCodeError](err); ok {
		return bad("see https://slack-status.com, and that SLACK_API_URL is right", "Slack answers %s to %s", status.Status, name)
	}
	return away("Slack", s.APIURL, "SLACK_API_URL", err)
}

// code is Slack's error code, or what else went wrong.
func code(err error) string {
	if err == nil {
		return ""
	}
	return plain(err)
}
