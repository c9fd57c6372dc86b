package bot

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// detail is what stands behind the last line of an answer. It is kept in the button that shows it, so that it lasts as long as the message
// and needs no record of its own: numbers and names of tools, nothing that was said.
type detail struct {
	Number   int              `json:"n"`
	Asked    int64            `json:"at"` // Unix time, s
	Queued   int64            `json:"q"`  // waiting behind others, s
	Woken    int64            `json:"w"`  // until the machine had the turn, s
	Ran      int64            `json:"r"`  // s
	ExitCode int              `json:"x"`
	CostUSD  float64          `json:"c"`
	Model    string           `json:"m,omitempty"`
	Usage    *runner.Usage    `json:"u,omitempty"`
	Tools    []runner.ToolUse `json:"t,omitempty"`
	More     int              `json:"more,omitempty"` // tools that are not named
	Files    *int             `json:"f,omitempty"`    // that it changed; nil: that is not known
	Added    int              `json:"a,omitempty"`    // lines
	Removed  int              `json:"d,omitempty"`    // lines
	Lane     runner.Lane      `json:"l,omitempty"`
}

// Bounds of what a button may hold: Slack takes 2,000 characters.
const (
	maxDetailTools = 10
	maxDetailName  = 60 // characters
)

func detailOf(t sessions.Turn, o sessions.Outcome) detail {
	between := func(from, to time.Time) int64 {
		if from.IsZero() || to.IsZero() {
			return 0
		}
		return max(int64(to.Sub(from).Round(time.Second)/time.Second), 0) // clocks differ
	}
	d := detail{
		Number: o.Number, Queued: between(t.At, o.Claimed), Woken: between(o.Claimed, o.StartedAt), Ran: int64(seconds(o)),
		ExitCode: o.ExitCode, CostUSD: o.CostUSD, Model: clip(o.Model, maxDetailName), Usage: o.Usage, Lane: o.Lane,
	}
	if !t.At.IsZero() {
		d.Asked = t.At.Unix()
	}
	if c := o.Changes; c != nil {
		d.Files, d.Added, d.Removed = new(c.Total), c.Added, c.Removed
	}
	for i, tool := range o.Tools {
		if i == maxDetailTools {
			d.More = len(o.Tools) - i
			break
		}
		d.Tools = append(d.Tools, runner.ToolUse{Tool: clip(tool.Tool, maxDetailName), Times: tool.Times})
	}
	return d
}

// detailButton shows it, with as many tools as it can hold. nil: there is nothing to show that the footer does not say.
func detailButton(t sessions.Turn, o sessions.Outcome) *slack.ButtonBlockElement {
	if t.Kind != sessions.KindTurn && t.Kind != sessions.KindOnce || o.Claimed.IsZero() {
		return nil
	}
	for d := detailOf(t, o); ; d.Tools, d.More = d.Tools[:len(d.Tools)-1], d.More+1 {
		value, err := json.Marshal(d)
		switch {
		case err == nil && utf8.RuneCount(value) <= maxValue:
			return button("details", "Details", string(value), "")
		case err != nil, len(d.Tools) == 0:
			return nil
		}
	}
}

// maxValue is what Slack takes as the value of a button, in characters.
const maxValue = 2000

// detailAnswer is what a modal shows of it.
func detailAnswer(d detail) answer {
	return answer{text: strings.Join(detailLines(d), "\n"), title: fmt.Sprintf("Turn %d", d.Number)}
}

// showDetail opens the detail behind an answer's last line.
func (b *Bot) showDetail(ctx context.Context, p interactionPayload) {
	limit, cancel := context.WithTimeout(ctx, manageTime)
	defer cancel()
	var d detail
	a := answer{text: sayOldButton, title: "Details"}
	if why := b.people.mayUse(limit, p.User.ID, p.Channel.ID); why != nil {
		a.text = why.sentence
	} else if err := json.Unmarshal([]byte(p.Actions[0].Value), &d); err == nil {
		a = detailAnswer(d)
	}
	if _, err := b.api.OpenViewContext(ctx, p.TriggerID, modal(a)); err != nil { // in time or never
		b.log.WarnContext(ctx, "details not opened", "err", err)
		b.answerPress(ctx, p, a)
	}
}
