package bot

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// Limits of what Slack lets be filled in, in characters and choices.
const (
	maxInput       = 3000
	maxPlaceholder = 150
	maxChoices     = 100
	maxChoice      = 75
)

func plainObject(text string) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.PlainTextType, text, false, false)
}

// pickView asks of which channel the settings are meant.
func pickView() slack.ModalViewRequest {
	e := slack.NewOptionsSelectBlockElement(slack.OptTypeConversations, plainObject("Choose a channel"), "value")
	e.Filter = &slack.SelectBlockElementFilter{Include: []string{"public", "private"}, ExcludeBotUsers: true}
	in := slack.NewInputBlock("channel", plainObject("Channel"), plainObject(sayChannelHint), e)
	return slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: configPick, Title: plainObject("Channel settings"), Submit: plainObject("Next"), Close: plainObject("Cancel"),
		Blocks: slack.Blocks{BlockSet: []slack.Block{in}},
	}
}

// pageView is a page to fill in. The first one leads to the others.
func (b *Bot) pageView(ctx context.Context, channel string, p page, s sessions.Settings, r rights) slack.ModalViewRequest {
	def := b.sessions.DefaultSettings()
	var blocks []slack.Block
	if p.id == pageCommon {
		blocks = append(blocks, section(saySettingsOf(channel)))
	}
	for _, in := range p.inputs {
		if in.namers && r != mayName {
			continue
		}
		if in.kind == asGroups {
			if in.options = b.groupOptions(ctx, in.get(s)); len(in.options) == 0 {
				continue
			}
		}
		blocks = append(blocks, in.block(s, def))
	}
	switch p.id {
	case pageCommon:
		blocks = append(blocks, slack.NewDividerBlock())
		for _, other := range pages()[1:] {
			row := section("*" + other.title + "*\n" + other.summary(s))
			row.Accessory = slack.NewAccessory(button(actionPage, "Edit", other.id, ""))
			row.BlockID = "page " + other.id
			blocks = append(blocks, row)
		}
		if s.ChangedBy != "" {
			blocks = append(blocks, slack.NewContextBlock("", slack.NewTextBlockObject(slack.MarkdownType, sayChangedLast(s.ChangedBy, s.ChangedAt), false, false)))
		}
	case pageEnvironment:
		blocks = append(blocks, b.secretRows(s)...)
	}
	return slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: configPage, PrivateMetadata: configPlace{Channel: channel, Page: p.id}.String(),
		Title: plainObject(p.title), Submit: plainObject("Save"), Close: plainObject("Cancel"), Blocks: slack.Blocks{BlockSet: blocks},
	}
}

// secretRows name the secrets, with a button for each.
func (b *Bot) secretRows(s sessions.Settings) []slack.Block {
	blocks := []slack.Block{slack.NewDividerBlock(), section("*Secrets*\n" + saySecrets)}
	if !b.sessions.KeepsSecrets() {
		return append(blocks, section(sayNoSecrets))
	}
	for _, name := range s.Secrets[:min(len(s.Secrets), maxSecrets)] {
		row := section("`" + name + "`")
		row.Accessory = slack.NewAccessory(button(actionSecret, "Change", name, ""))
		row.BlockID = "secret " + name
		blocks = append(blocks, row)
	}
	if len(s.Secrets) >= maxSecrets {
		return blocks
	}
	return append(blocks, slack.NewActionBlock("secret", button(actionAdd, "Add a secret", "", "")))
}

// secretView is where a secret's value is given; "" is a new one.
func secretView(channel, name string) slack.ModalViewRequest {
	value := slack.NewPlainTextInputBlockElement(nil, "value")
	value.Multiline, value.MaxLength = true, maxInput
	v := slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: configSecret, PrivateMetadata: configPlace{Channel: channel, Secret: name}.String(),
		Title: plainObject("Secret"), Submit: plainObject("Save"), Close: plainObject("Cancel"),
	}
	in := slack.NewInputBlock(secretValue, plainObject("Value"), plainObject(saySecretHint), value)
	if name == "" {
		e := slack.NewPlainTextInputBlockElement(plainObject("NPM_TOKEN"), "value")
		e.MaxLength = 128
		v.Blocks.BlockSet = []slack.Block{slack.NewInputBlock(secretName, plainObject("Name"), plainObject(saySecretNameHint), e), in}
		return v
	}
	in.Label, in.Hint, in.Optional = plainObject("New value"), plainObject(saySecretStays), true
	e := slack.NewCheckboxGroupsBlockElement("value", slack.NewOptionBlockObject("on", plainObject("Remove this secret"), nil))
	v.Blocks.BlockSet = []slack.Block{
		section("`" + name + "`"), in, slack.NewInputBlock(secretRemoval, plainObject("Removal"), nil, e).WithOptional(true),
	}
	return v
}

// shownView is for those who may see the settings and not change them.
func (b *Bot) shownView(channel string, s sessions.Settings) slack.ModalViewRequest {
	def := b.sessions.DefaultSettings()
	blocks := []slack.Block{section(sayShownSettings(channel))}
	for _, p := range pages() {
		var lines []string
		for _, in := range p.inputs {
			if line := in.line(s, def); line != "" {
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			lines = []string{sayAllByDefault}
		}
		title := p.title
		if p.id == pageCommon {
			title = "Common"
		}
		blocks = append(blocks, slack.NewDividerBlock(), section("*"+title+"*\n"+strings.Join(lines, "\n")))
	}
	return slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: configShown, Title: plainObject("Channel settings"), Close: plainObject("Close"), Blocks: slack.Blocks{BlockSet: blocks},
	}
}

// groupTime is how long Slack has to tell of user groups: it opens a modal for 3 s.
const groupTime = time.Second

// groupOptions are the user groups of the workspace, with those that are set. None if Slack does not tell.
func (b *Bot) groupOptions(ctx context.Context, set []string) []option {
	ctx, cancel := context.WithTimeout(ctx, groupTime)
	defer cancel()
	groups, err := b.api.GetUserGroupsContext(ctx)
	if err != nil {
		b.log.WarnContext(ctx, "user groups not read", "err", err)
		return nil
	}
	var out []option
	for _, id := range set {
		if !slices.ContainsFunc(groups, func(g slack.UserGroup) bool { return g.ID == id }) {
			out = append(out, option{id, id})
		}
	}
	for _, g := range groups {
		out = append(out, option{g.ID, "@" + g.Handle})
	}
	return out
}

// block is the field as it is filled in now.
func (in input) block(s, def sessions.Settings) slack.Block {
	values := in.get(s)
	usual := ""
	if in.usual != nil {
		usual = in.usual(def)
	}
	var hint *slack.TextBlockObject
	if in.hint != "" {
		hint = plainObject(in.hint)
	}
	out := slack.NewInputBlock(blockOf(in.field, values), plainObject(in.label), hint, in.element(values, usual))
	return out.WithOptional(true)
}

func (in input) element(values []string, usual string) slack.BlockElement {
	var placeholder *slack.TextBlockObject
	if usual != "" {
		placeholder = plainObject(clip("By default "+in.inWords(usual), maxPlaceholder))
	}
	switch in.kind {
	case asChoice:
		label := "As by default"
		if usual != "" {
			label += ": " + in.inWords(usual)
		}
		all := objects(append([]option{{byDefault, label}}, in.withSet(values)...))
		e := slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, nil, "value", all...)
		e.InitialOption = all[0]
		if chosen := pickedFrom(all, values); len(chosen) > 0 {
			e.InitialOption = chosen[0]
		}
		return e
	case asNumber:
		e := slack.NewNumberInputBlockElement(placeholder, "value", false)
		e.InitialValue, e.MinValue = joined(values), "1"
		return e
	case asSwitch, asSeveral:
		all := objects(in.options)
		e := slack.NewCheckboxGroupsBlockElement("value", all...)
		e.InitialOptions = pickedFrom(all, values)
		return e
	case asPeople:
		e := slack.NewOptionsMultiSelectBlockElement(slack.MultiOptTypeUser, plainObject("Choose people"), "value")
		e.InitialUsers = values
		return e
	case asGroups:
		all := objects(in.options)
		e := slack.NewOptionsMultiSelectBlockElement(slack.MultiOptTypeStatic, plainObject("Choose user groups"), "value", all...)
		e.InitialOptions = pickedFrom(all, values)
		return e
	case asText, asArea:
	}
	e := slack.NewPlainTextInputBlockElement(placeholder, "value")
	e.InitialValue, e.Multiline, e.MaxLength = clip(joined(values), maxInput), in.kind == asArea, maxInput // longer is nothing that was filled in here
	return e
}

// withSet are the options, with what is set and is none of them.
func (in input) withSet(values []string) []option {
	out := slices.Clone(in.options)
	for _, v := range values {
		if !slices.ContainsFunc(out, func(o option) bool { return o.value == v }) {
			out = append(out, option{v, v})
		}
	}
	return out
}

func objects(options []option) []*slack.OptionBlockObject {
	var out []*slack.OptionBlockObject
	for _, o := range options[:min(len(options), maxChoices)] {
		out = append(out, slack.NewOptionBlockObject(o.value, plainObject(clip(o.label, maxChoice)), nil))
	}
	return out
}

func pickedFrom(all []*slack.OptionBlockObject, values []string) []*slack.OptionBlockObject {
	var out []*slack.OptionBlockObject
	for _, o := range all {
		if slices.Contains(values, o.Value) {
			out = append(out, o)
		}
	}
	return out
}

// summary says in a line what of a page is set.
func (p page) summary(s sessions.Settings) string {
	var parts []string
	for _, in := range p.inputs {
		if slices.Equal(in.get(s), in.get(sessions.Settings{})) {
			continue
		}
		parts = append(parts, in.short(s))
	}
	if p.id == pageEnvironment && len(s.Secrets) > 0 {
		parts = append(parts, plural(len(s.Secrets), "secret"))
	}
	if len(parts) == 0 {
		return sayAllByDefault
	}
	return clip(strings.Join(parts, " · "), 500)
}

// short is a field that is set, in a few words.
func (in input) short(s sessions.Settings) string {
	values := in.get(s)
	label := inside(in.label)
	switch lines := linesOf(joined(values)); {
	case in.kind == asSwitch:
		return label
	case in.kind == asPeople || in.kind == asGroups:
		return label + ": " + strconv.Itoa(len(values))
	case in.kind == asArea:
		return label + ": " + plural(len(lines), "line")
	case len(lines) == 0:
		return label + ": none"
	default:
		return label + ": " + escape(clip(in.inWords(strings.Join(lines, ", ")), 60))
	}
}

// line is a field for those who may not change it, "" if there is nothing to say.
func (in input) line(s, def sessions.Settings) string {
	values := in.get(s)
	usual := ""
	if in.usual != nil {
		usual = in.inWords(in.usual(def))
	}
	text := ""
	switch {
	case in.private && len(values) > 0:
		text = "_set_"
	case in.kind == asPeople:
		text = "<@" + strings.Join(values, ">, <@") + ">"
	case in.kind == asGroups:
		text = "<!subteam^" + strings.Join(values, ">, <!subteam^") + ">"
	case in.kind == asSwitch && len(values) > 0:
		return "• " + in.options[0].label
	case in.kind == asArea && len(values) > 0:
		text = "\n>" + strings.ReplaceAll(escape(clip(joined(values), 500)), "\n", "\n>")
	case len(values) > 0:
		text = escape(in.inWords(strings.Join(values, ", ")))
	case usual != "":
		text = escape(usual) + ", as by default"
	}
	if text == "" || len(values) == 0 && (in.kind == asPeople || in.kind == asGroups) {
		return ""
	}
	return "• " + in.label + ": " + text
}

// inWords is a value as people say it.
func (in input) inWords(value string) string {
	if value == "0" && in.zero != "" {
		return in.zero
	}
	for _, o := range in.options {
		if o.value == value {
			return o.label
		}
	}
	return value
}
