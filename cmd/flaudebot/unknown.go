package main

import (
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"flaudebot/doctor"
)

// unknownSetting is a name that looks like a setting of ours and is none, as a mistyped one. Nothing would tell otherwise that it does nothing.
type unknownSetting struct {
	name  string
	meant string // a setting; "": none is close
}

// fix is what to do about it.
func (u unknownSetting) fix() string {
	if u.meant != "" {
		return "call it " + u.meant + ", if that is meant"
	}
	return "remove it, or see `flaudebot serve --help` for what there is"
}

// unknownSettings finds them among NAME=value lines, of which the values are left alone.
//
// Not meant are FLAUDEBOT_TEST_…, by which the Makefile and the tests tell each other what to do (no setting may be called so), and the two that
// the runner gives to all that works in a session: flaudebot may well be tried out, or changed, in one.
func unknownSettings(environ []string) []unknownSetting {
	known := settingNames()
	var out []unknownSetting
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		switch {
		case !likeOurs(name), slices.Contains(known, name), strings.HasPrefix(name, "FLAUDEBOT_TEST_"), oneOf(name, "FLAUDEBOT_AGENT", "FLAUDEBOT_RUN_DIR"):
		default:
			out = append(out, unknownSetting{name, meantSetting(name, known)})
		}
	}
	slices.SortFunc(out, func(a, b unknownSetting) int { return strings.Compare(a.name, b.name) })
	return slices.Compact(out)
}

// settingNames are the names of all settings.
func settingNames() []string {
	var out []string
	for f := range reflect.TypeFor[settings]().Fields() {
		out = append(out, f.Tag.Get("envconfig"))
	}
	return out
}

// likeOurs reports whether a name begins with FLAUDEBOT_, or with that mistyped.
func likeOurs(name string) bool {
	first, _, more := strings.Cut(strings.ToUpper(name), "_")
	return more && distance(first, "FLAUDEBOT") <= 2
}

// meantSetting is the setting that a name is close to: a few letters differ, or it begins with FLAUDEBOT_ and should not.
func meantSetting(name string, known []string) string {
	name = strings.ToUpper(name)
	if bare := strings.TrimPrefix(name, "FLAUDEBOT_"); slices.Contains(known, bare) {
		return bare
	}
	best, nearest := "", 0
	for _, k := range known {
		most := max(1, len(strings.TrimPrefix(k, "FLAUDEBOT_"))/4)
		if d := distance(name, k); d <= most && (best == "" || d < nearest) {
			best, nearest = k, d
		}
	}
	return best
}

// distance is how many letters have to be added, removed, replaced, or exchanged with their neighbours to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1) // [i][j]: of the first i letters of a and the first j of b
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			if i == 0 || j == 0 {
				rows[i][j] = i + j
				continue
			}
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// warnOfUnknown tells the log of each.
func warnOfUnknown(environ []string, log *slog.Logger) {
	for _, u := range unknownSettings(environ) {
		log.Warn("this is no setting, and does nothing", "setting", u.name, "meant", u.meant)
	}
}

// unknownFindings are a warning of each. where says in which place they stand, when that is not the environment or the file of settings.
func unknownFindings(environ []string, about, where string) []doctor.Finding {
	var out []doctor.Finding
	for _, u := range unknownSettings(environ) {
		out = append(out, warning(about, u.name+where+" is no setting, and does nothing", u.fix()))
	}
	return out
}
