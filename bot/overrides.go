package bot

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// A message may choose what its turn runs with: "model:opus", "effort:high", "volume:20", whole words at its beginning or at its end. Words
// in between are a prompt. At the end only those count that make sense: "rename the field to model:User" is a prompt.

var (
	mayChoose  = regexp.MustCompile(`(?i)(?:model|effort|volume):`)
	chosenWord = regexp.MustCompile(`(?i)^(model|effort|volume):(\S+)$`)
	word       = regexp.MustCompile(`\S+`)
	// knownModel matches the names of models, as far as one can tell: aliases, and what Anthropic, Bedrock and Vertex call them.
	knownModel = regexp.MustCompile(`^(?:(?:opus|sonnet|haiku|opusplan|default|best)|(?:[a-z0-9.:/-]*\b)?claude-[a-z0-9.@:-]+)(?:\[1m\])?$`)
)

// overridesIn are what a message chooses, and its words without that. A [nameError] says what makes no sense.
func overridesIn(words string) (rest string, o sessions.Overrides, err error) {
	if !strings.Contains(words, ":") || !mayChoose.MatchString(words) { // as most, which may be long, and wait for an ack
		return strings.TrimSpace(words), o, nil
	}
	all := word.FindAllStringIndex(words, -1)
	said := func(i int) string { return words[all[i][0]:all[i][1]] }
	from, to := 0, len(all)
	var drop [][]int
	for ; from < to; from++ {
		m := chosenWord.FindStringSubmatch(said(from))
		if m == nil {
			if named.MatchString(said(from)) {
				continue
			}
			break
		}
		if err := choose(&o, m[1], m[2]); err != nil {
			return words, sessions.Overrides{}, err
		}
		drop = append(drop, all[from])
	}
	for ; to > from; to-- {
		m := chosenWord.FindStringSubmatch(said(to - 1))
		if m == nil && named.MatchString(said(to-1)) {
			continue
		}
		if m == nil || choose(&o, m[1], m[2]) != nil {
			break
		}
		drop = append(drop, all[to-1])
	}
	slices.SortFunc(drop, func(a, b []int) int { return b[0] - a[0] })
	for _, at := range drop {
		words = strings.TrimRight(words[:at[0]], " \t") + spaceFor(words, at) + strings.TrimLeft(words[at[1]:], " \t")
	}
	return strings.TrimSpace(words), o, nil
}

// spaceFor is the space that stays where a word goes: one, if there were words on both sides of it.
func spaceFor(words string, at []int) string {
	if before := words[:at[0]]; before == strings.TrimRight(before, " \t") || before == "" {
		return ""
	}
	return " "
}

// choose reads one choice.
func choose(o *sessions.Overrides, what, value string) error {
	value = strings.ToLower(strings.TrimRight(unescape(value), ".,;"))
	switch strings.ToLower(what) {
	case "model":
		if !knownModel.MatchString(value) {
			return nameError(sayNoModel(value))
		}
		o.Model = value
	case "effort":
		if !slices.Contains(runner.Efforts(), value) {
			return nameError(sayNoEffort(value))
		}
		o.Effort = value
	case "volume":
		gb, err := strconv.Atoi(strings.TrimSuffix(value, "gb"))
		if err != nil || gb < 1 {
			return nameError(sayVolumeSize)
		}
		o.VolumeGB = gb
	}
	return nil
}

// refuseOverrides answers a message that chooses what it may not.
func (b *Bot) refuseOverrides(ctx context.Context, in *incoming, begins bool) (bool, error) {
	_, o, err := overridesIn(in.words)
	var problem nameError
	if !errors.As(err, &problem) {
		if problem, err = b.checkOverrides(ctx, in, begins, o); err != nil || problem == "" {
			return false, err
		}
	}
	return true, b.sayOnce(ctx, *in, "overrides", string(problem))
}

// checkOverrides says why a message may not choose what it does, "" if it may.
func (b *Bot) checkOverrides(ctx context.Context, in *incoming, begins bool, o sessions.Overrides) (nameError, error) {
	if o == (sessions.Overrides{}) {
		return "", nil
	}
	s, err := b.settingsOf(ctx, in.event.Channel)
	if err != nil {
		return "", err
	}
	if problem := refusedOverride(s, o); problem != "" {
		return problem, nil
	}
	if o.VolumeGB == 0 {
		return "", nil
	}
	if !begins {
		return sayVolumeLate, nil
	}
	st, err := b.statusFor(ctx, in)
	if err == nil && hasSession(st) {
		return sayVolumeLate, nil
	}
	return "", err
}

// refusedOverride says what of a message's choices a channel does not allow, "": nothing.
func refusedOverride(s sessions.Settings, o sessions.Overrides) nameError {
	var bad sessions.FieldErrors
	if !errors.As(s.CheckOverrides(o), &bad) {
		return ""
	}
	return nameError(sayNotAllowed(bad[0].Problem, s.Allowed()))
}

// settingsOf are the settings of a channel, as they were some seconds ago at most, or as they were known last when the store is away.
func (b *Bot) settingsOf(ctx context.Context, channel string) (sessions.Settings, error) {
	s, fresh, had := b.settings.get(channel)
	if fresh {
		return s, nil
	}
	now, err := b.sessions.Settings(ctx, b.team, channel)
	switch {
	case err == nil:
		b.settings.put(channel, now)
		return now, nil
	case had:
		return s, nil
	}
	return s, err
}
