package bot

import (
	"strconv"
	"strings"

	"github.com/slack-go/slack"

	"flaudebot/sessions"
)

// actionLarger runs a turn again that had too little of something.
const actionLarger = "larger"

// besides is what a turn that is run again, or gone on with, has besides what it had.
type besides struct {
	larger sessions.Larger
	usd    float64 // that it may cost more
}

// largerButton offers to run the turn again on what it had too little of.
func largerButton(t sessions.Turn, l sessions.Larger) slack.BlockElement {
	return button(actionLarger, sayRunLarger(l), string(t.ID)+" "+largerText(l), "primary")
}

// largerText is a size as the value of a button: a guest, or a number of GB.
func largerText(l sessions.Larger) string {
	if l.VolumeGB > 0 {
		return strconv.Itoa(l.VolumeGB)
	}
	return sessions.GuestText(l.Guest)
}

// largerOf reads what [largerButton] has written: the turn, and the size. Not ok: nobody has written that.
func largerOf(value string) (turn string, l sessions.Larger, ok bool) {
	turn, text, ok := strings.Cut(value, " ")
	if !ok {
		return value, sessions.Larger{}, false
	}
	if gb, err := strconv.Atoi(text); err == nil {
		return turn, sessions.Larger{VolumeGB: gb}, gb > 0
	}
	g, err := sessions.ParseGuest(text)
	return turn, sessions.Larger{Guest: g}, err == nil
}
