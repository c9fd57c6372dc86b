package bot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// The settings of a channel, in a modal: the most usual fields first, the others on pages that are laid on it. Whoever may not change them
// sees them. What is saved is what was changed on one page: each block's id tells how its field stood when it was shown, so that of two
// people who change a field at once the second is told. Secrets have a page each, and their values are never shown.

// Callback ids of the modals. Each carries a configPlace as its private metadata.
const (
	configKind    = "settings"
	configPick    = configKind + " of"     // which channel
	configPage    = configKind + " page"   // fields
	configSecret  = configKind + " secret" // one secret
	configShown   = configKind + " shown"  // for those who may not change them
	actionPage    = "settings page"
	actionSecret  = "settings secret"
	actionAdd     = "settings secret new"
	actionConfig  = "settings"
	secretName    = "secret_name"
	secretValue   = "secret_value"
	secretRemoval = "secret_removal"
)

// configPlace is what a modal of settings is about.
type configPlace struct {
	Channel string `json:"channel"`
	Page    string `json:"page,omitempty"`
	Secret  string `json:"secret,omitempty"` // its name; "": a new one
}

func (p configPlace) String() string {
	raw, _ := json.Marshal(p) // strings always encode
	return string(raw)
}

func configPlaceOf(metadata string) configPlace {
	var p configPlace
	_ = json.Unmarshal([]byte(metadata), &p) // else it is nowhere
	return p
}

// filled is what is filled in in a modal: block → action → value.
type filled map[string]map[string]struct {
	Value   string   `json:"value"`
	Chosen  *choice  `json:"selected_option"`
	Several []choice `json:"selected_options"`
	Users   []string `json:"selected_users"`
	Channel string   `json:"selected_conversation"`
}

type choice struct {
	Value string `json:"value"`
}

// of are the values of a block.
func (f filled) of(block string) (values []string) {
	v := f[block]["value"]
	switch {
	case v.Chosen != nil && v.Chosen.Value != byDefault:
		values = one(v.Chosen.Value)
	case v.Value != "":
		values = one(strings.ReplaceAll(v.Value, "\r\n", "\n"))
	case v.Channel != "":
		values = one(v.Channel)
	case len(v.Users) > 0:
		values = v.Users
	}
	for _, c := range v.Several {
		values = append(values, c.Value)
	}
	return values
}

// blockOf is the id of a field's block, which tells how the field stands. Slack keeps what was filled in when a modal is brought up to date,
// unless the id is another one: as when the field was changed meanwhile.
func blockOf(f sessions.Field, values []string) string { return string(f) + "@" + digest(values) }

// digest tells values apart.
func digest(values []string) string {
	raw, _ := json.Marshal(append([]string{}, values...)) // strings always encode
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:6])
}

// field finds the block of a field, and how the field stood; "": the modal has none.
func (f filled) field(field sessions.Field) (block, was string) {
	for id := range f {
		if name, was, ok := strings.Cut(id, "@"); ok && name == string(field) {
			return id, was
		}
	}
	return "", ""
}

// channelToken is a channel as Slack writes it in a command.
var channelToken = regexp.MustCompile(`^<#([CDG][A-Z0-9]+)(\|[^>]*)?>$`)

// config opens the settings of the channel of a command, or of the one that it names.
func (b *Bot) config(ctx context.Context, c slashCommand, rest string) answer {
	channel := c.ChannelID
	thread, isLink := parseLink(c.TeamID, rest)
	named := channelToken.FindStringSubmatch(rest)
	switch {
	case named != nil:
		channel = named[1]
	case isLink:
		channel = thread.Channel
	case rest != "":
		return plainly(sayNoChannel)
	}
	return b.showConfig(ctx, c.TriggerID, c.TeamID, channel, c.UserID, channel != c.ChannelID)
}

// configAt opens the settings of a channel for who pressed a button.
func (b *Bot) configAt(ctx context.Context, p interactionPayload, channel string) answer {
	return b.showConfig(ctx, p.TriggerID, p.Team.ID, channel, p.User.ID, channel != p.Channel.ID)
}

// showConfig opens the settings of a channel, or asks of which one.
func (b *Bot) showConfig(ctx context.Context, trigger, team, channel, user string, elsewhere bool) answer {
	if strings.HasPrefix(channel, "D") {
		return b.openConfig(ctx, trigger, pickView())
	}
	view, why := b.configOf(ctx, team, channel, user, elsewhere)
	if why != "" {
		return plainly(why)
	}
	return b.openConfig(ctx, trigger, view)
}

// openConfig opens a modal; the answer says why it could not be.
func (b *Bot) openConfig(ctx context.Context, trigger string, view slack.ModalViewRequest) answer {
	if _, err := b.api.OpenViewContext(ctx, trigger, view); err != nil {
		b.log.WarnContext(ctx, "settings not opened", "err", err)
		return plainly(saySettingsNotOpened)
	}
	return answer{}
}

// configOf is the modal of a channel's settings for somebody, or why they cannot see it. elsewhere: they are not in it just now.
func (b *Bot) configOf(ctx context.Context, team, channel, user string, elsewhere bool) (slack.ModalViewRequest, string) {
	var view slack.ModalViewRequest
	s, err := b.sessions.Settings(ctx, team, channel)
	if err != nil {
		b.log.WarnContext(ctx, "settings not read", "channel", channel, "err", err)
		return view, sayTrouble
	}
	why := b.people.mayTalk(ctx, user, channel, s)
	if why == nil && elsewhere {
		why = b.people.isIn(ctx, user, channel)
	}
	if why != nil {
		return view, why.sentence
	}
	rights, why := b.people.mayConfigure(ctx, user, s)
	if why != nil {
		return view, why.sentence
	}
	if rights == noRights {
		return b.shownView(channel, s), ""
	}
	return b.pageView(ctx, channel, pages()[0], s, rights), ""
}

// rights are what somebody may do with a channel's settings.
type rights int

const (
	noRights rights = iota
	mayChange
	mayName // also who else may
)

// mayConfigure tells what somebody may do with a channel's settings: admins of the workspace all, those whom they name nearly all.
func (p *people) mayConfigure(ctx context.Context, user string, s sessions.Settings) (rights, *refusal) {
	u, err := p.user(ctx, user)
	switch {
	case err != nil:
		return noRights, &refusal{sentence: sayTryAgain, transient: true}
	case u.TeamID != p.bot.team || u.Deleted || u.IsBot || u.IsStranger:
		return noRights, nil
	case u.IsAdmin || u.IsOwner:
		return mayName, nil
	case slices.Contains(s.Admins, user):
		return mayChange, nil
	}
	return noRights, nil
}

// pressConfig acts on a button in a modal of settings: it lays another one on it. Who pressed it is told in the channel where that cannot be.
func (b *Bot) pressConfig(ctx context.Context, p interactionPayload) {
	limit, cancel := context.WithTimeout(ctx, manageTime)
	defer cancel()
	at := configPlaceOf(p.View.Metadata)
	view, why := b.laidOn(limit, p, at)
	if why == "" {
		_, err := b.api.PushViewContext(limit, p.TriggerID, view) // in time or never
		if err == nil {
			return
		}
		b.log.WarnContext(ctx, "settings not opened", "err", err)
		why = saySettingsNotOpened
	}
	b.aside(ctx, func(ctx context.Context) { b.whisper(ctx, sessions.Thread{Channel: at.Channel}, p.User.ID, why) })
}

// laidOn is the modal that a button in another one opens, or why there is none.
func (b *Bot) laidOn(ctx context.Context, p interactionPayload, at configPlace) (view slack.ModalViewRequest, why string) {
	s, err := b.sessions.Settings(ctx, p.Team.ID, at.Channel)
	if err != nil {
		b.log.WarnContext(ctx, "settings not read", "channel", at.Channel, "err", err)
		return view, sayTrouble
	}
	rights, refused := b.people.mayConfigure(ctx, p.User.ID, s)
	switch {
	case refused != nil:
		return view, refused.sentence
	case rights == noRights: // they were taken away meanwhile
		return view, sayMayNotChange
	}
	switch action := p.Actions[0]; action.ActionID {
	case actionPage:
		if page, ok := pageOf(action.Value); ok {
			return b.pageView(ctx, at.Channel, page, s, rights), ""
		}
	case actionSecret:
		return secretView(at.Channel, action.Value), ""
	case actionAdd:
		return secretView(at.Channel, ""), ""
	}
	return view, sayOldButton
}

// submitConfig saves what was filled in, and returns what Slack is told.
func (b *Bot) submitConfig(ctx context.Context, p interactionPayload) any {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	at := configPlaceOf(p.View.Metadata)
	switch p.View.Kind {
	case configPick:
		view, why := b.configOf(ctx, p.Team.ID, joined(p.View.State.Values.of("channel")), p.User.ID, true)
		if why != "" {
			return wrong(map[string]string{"channel": unformatted(why)})
		}
		return b.instead(ctx, p.View.ID, view)
	case configPage:
		return b.submitPage(ctx, p, at)
	case configSecret:
		return b.submitSecret(ctx, p, at)
	}
	return nil
}

// instead shows a modal in the place of one that was submitted. One that is too large for an ack comes by itself.
func (b *Bot) instead(ctx context.Context, id string, view slack.ModalViewRequest) any {
	raw, err := json.Marshal(view)
	if err == nil && len(raw) < maxAck-1<<10 {
		return slack.NewUpdateViewSubmissionResponse(&view)
	}
	b.aside(withUrgency(ctx, urgent), func(ctx context.Context) {
		if err := b.insist(ctx, func() error { _, err := b.api.UpdateViewContext(ctx, view, "", "", id); return err }); err != nil {
			b.log.WarnContext(ctx, "settings not shown", "err", err)
		}
	})
	loading := comingView(view)
	return slack.NewUpdateViewSubmissionResponse(&loading)
}

// comingView stands in the place of a modal of settings until that comes.
func comingView(view slack.ModalViewRequest) slack.ModalViewRequest {
	view.Submit, view.Blocks.BlockSet = nil, []slack.Block{section(saySettingsCome)}
	return view
}

// wrong says what is wrong with which block.
func wrong(problems map[string]string) any {
	for block, problem := range problems {
		problems[block] = clip(problem, 1900)
	}
	return slack.NewErrorsViewSubmissionResponse(problems)
}

// unformatted is a sentence where Slack shows no formatting.
func unformatted(s string) string { return unescape(strings.ReplaceAll(s, "`", "")) }

// change is made to a channel's settings; values are those of new secrets, no is why it cannot be made: block → problem.
type change func(s *sessions.Settings, r rights) (values, no map[string]string)

// saveConfig makes a change to the settings as they are, again if others change them meanwhile. It returns what they are then, or what is
// wrong. first is the block that shows what belongs to none.
func (b *Bot) saveConfig(
	ctx context.Context, p interactionPayload, channel, first string, place func(sessions.Field) string, do change,
) (is sessions.Settings, no map[string]string) {
	said := func(sentence string) map[string]string { return map[string]string{first: unformatted(sentence)} }
	for range 3 {
		now, err := b.sessions.Settings(ctx, p.Team.ID, channel)
		if err != nil {
			break
		}
		rights, why := b.people.mayConfigure(ctx, p.User.ID, now)
		switch {
		case why != nil:
			return is, said(why.sentence)
		case rights == noRights:
			return is, said(sayMayNotChange)
		}
		next := now
		values, no := do(&next, rights)
		if no != nil {
			return is, no
		}
		is, err = b.sessions.SaveSettings(ctx, p.Team.ID, channel, p.User.ID, next, values)
		var bad sessions.FieldErrors
		switch {
		case err == nil:
			return is, nil
		case errors.As(err, &bad):
			return is, problems(bad, first, place)
		case !errors.Is(err, sessions.ErrSettingsChanged):
			b.log.WarnContext(ctx, "settings not saved", "channel", channel, "err", err)
			return is, said(sayTrouble)
		}
	}
	return is, said(sayTrouble)
}

// problems puts what is wrong with fields at their blocks, and what has none here at the first.
func problems(bad sessions.FieldErrors, first string, place func(sessions.Field) string) map[string]string {
	out := map[string]string{}
	for _, e := range bad {
		block, problem := place(e.Field), sentence(e.Problem)
		if block == "" {
			block, problem = first, labelOf(e.Field)+": "+e.Problem
		}
		if out[block] == "" {
			out[block] = problem
		}
	}
	return out
}

// sentence is a problem as people read it.
func sentence(s string) string {
	if s == "" {
		return s
	}
	if first := s[:1]; strings.ToLower(first) == first && !strings.HasPrefix(s, "“") && !strings.HasPrefix(s, `"`) {
		return strings.ToUpper(first) + s[1:]
	}
	return s
}

// labelOf is what a field is called.
func labelOf(f sessions.Field) string {
	for _, p := range pages() {
		for _, in := range p.inputs {
			if in.field == f {
				return in.label
			}
		}
	}
	return "Secrets"
}

// submitPage saves what was changed on a page.
func (b *Bot) submitPage(ctx context.Context, p interactionPayload, at configPlace) any {
	page, _ := pageOf(at.Page)
	blocks := p.View.State.Values
	first := ""
	for _, in := range page.inputs {
		if first == "" {
			first, _ = blocks.field(in.field)
		}
	}
	if first == "" {
		return nil
	}
	place := func(f sessions.Field) string {
		for _, shown := range []sessions.Field{f, map[sessions.Field]sessions.Field{sessions.FieldModel: fieldModelName, sessions.FieldUsers: fieldGroups}[f]} {
			if block, _ := blocks.field(shown); block != "" {
				return block
			}
		}
		return ""
	}
	var changed []input
	is, no := b.saveConfig(ctx, p, at.Channel, first, place, func(s *sessions.Settings, r rights) (_, no map[string]string) {
		changed = nil
		no = map[string]string{}
		for _, in := range page.inputs {
			if in.namers && r != mayName {
				continue
			}
			did, problem := blocks.apply(in, s)
			if problem != nil {
				block, _ := blocks.field(in.field)
				no[block] = sentence(problem.Error())
				if errors.Is(problem, errMeanwhile) {
					no[block] = unformatted(sayChangedMeanwhile(b.people.name(ctx, s.ChangedBy)))
				}
			}
			if did {
				changed = append(changed, in)
			}
		}
		if len(no) == 0 && len(changed) > 0 {
			return nil, nil
		}
		return nil, no
	})
	switch {
	case len(no) > 0:
		return wrong(no)
	case len(changed) > 0:
		b.saved(ctx, p, at.Channel, changed, is)
	}
	return nil
}

// errMeanwhile says that a field was changed by others and by who fills it in.
var errMeanwhile = errors.New("it was changed meanwhile")

// apply puts into settings what was filled in for a field, if that is something else than it was when it was shown.
func (f filled) apply(in input, s *sessions.Settings) (did bool, problem error) {
	block, was := f.field(in.field)
	if block == "" {
		return false, nil
	}
	next := *s
	if err := in.set(&next, f.of(block)); err != nil {
		return false, err
	}
	will, now := digest(in.get(next)), digest(in.get(*s))
	switch {
	case will == was || will == now:
		return false, nil
	case now != was:
		return false, errMeanwhile
	}
	*s = next
	return true, nil
}

// submitSecret saves, replaces or removes a secret.
func (b *Bot) submitSecret(ctx context.Context, p interactionPayload, at configPlace) any {
	blocks := p.View.State.Values
	name, first := at.Secret, secretValue
	if name == "" {
		name, first = joined(blocks.of(secretName)), secretName
	}
	value, removed := joined(blocks.of(secretValue)), len(blocks.of(secretRemoval)) > 0
	if value == "" && !removed && at.Secret != "" {
		return nil // it stays as it is
	}
	place := func(f sessions.Field) string {
		if f == sessions.FieldSecrets || f == sessions.FieldEnv {
			return first
		}
		return ""
	}
	is, no := b.saveConfig(ctx, p, at.Channel, first, place, func(s *sessions.Settings, _ rights) (map[string]string, map[string]string) {
		there := slices.Contains(s.Secrets, name)
		if removed {
			s.Secrets = slices.DeleteFunc(slices.Clone(s.Secrets), func(n string) bool { return n == name })
			return nil, nil
		}
		switch {
		case there && at.Secret == "":
			return nil, map[string]string{first: saySecretThere}
		case !there && len(s.Secrets) >= maxSecrets:
			return nil, map[string]string{first: sayManySecrets}
		case !there:
			s.Secrets = append(slices.Clone(s.Secrets), name)
			slices.Sort(s.Secrets)
		}
		return map[string]string{name: value}, nil
	})
	if no != nil {
		return wrong(no)
	}
	b.saved(ctx, p, at.Channel, []input{{label: "Secrets"}}, is)
	return nil
}

// maxSecrets is how many secrets a channel has at most: a modal shows so many.
const maxSecrets = 50

// saved tells who saved settings what that means, and brings the modals below up to date: what is filled in there stays.
func (b *Bot) saved(ctx context.Context, p interactionPayload, channel string, what []input, s sessions.Settings) {
	b.settings.put(channel, s)
	b.aside(withUrgency(ctx, urgent), func(ctx context.Context) {
		rights, why := b.people.mayConfigure(ctx, p.User.ID, s)
		update := func(id, page string) {
			at, ok := pageOf(page)
			if id == "" || id == p.View.ID || !ok || why != nil || rights == noRights {
				return
			}
			if _, err := b.api.UpdateViewContext(ctx, b.pageView(ctx, channel, at, s, rights), "", "", id); err != nil {
				b.log.DebugContext(ctx, "settings below not brought up to date", "err", err)
			}
		}
		if p.View.Kind == configSecret {
			update(p.View.Previous, pageEnvironment)
		}
		update(p.View.Root, pageCommon)
		b.whisper(ctx, sessions.Thread{Channel: channel}, p.User.ID, savedOf(what))
	})
}

// savedOf says what was saved, and from when it counts.
func savedOf(what []input) string {
	var turns, fresh []string
	for _, in := range what {
		if in.fresh {
			fresh = append(fresh, inside(in.label))
		} else {
			turns = append(turns, inside(in.label))
		}
	}
	return saySaved(turns, fresh)
}
