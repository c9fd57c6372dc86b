package bot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

// TestAskedCosts: what may stand behind /flaude costs.
func TestAskedCosts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for words, want := range map[string]*costsAsked{
		"":             {month: "2026-03"},
		"last":         {month: "2026-02"},
		"Last month":   {month: "2026-02"},
		"mine 2025-12": {month: "2025-12", mine: true},
		"all last":     {month: "2026-02", all: true},
		"2026-13":      nil,
		"march":        nil,
		"mine all":     nil,
	} {
		got, ok := askedCosts(words, now)
		if ok != (want != nil) || ok && got != *want {
			t.Errorf("askedCosts(%q) = %+v, %t, want %+v", words, got, ok, want)
		}
	}
}

// TestCostsCommand: who may use the bot in a channel sees what that costs, everybody what they cost, and admins of the workspace everything.
func TestCostsCommand(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	s := w.sessionsIn("fix the login test")[0]
	elsewhere := sessions.Thread{Team: team, Channel: payments, TS: "5.000001"}
	w.sessions.set(func(f *fakeSessions) {
		f.statuses = map[sessions.Thread]sessions.Status{s.Thread: {Session: &s}, elsewhere: {Session: &sessions.Session{SessionID: "s2", Owner: "U0ADMIN", About: "a secret plan", Thread: elsewhere}}}
		f.costs = map[string][]sessions.Cost{sessions.CostMonth(time.Now()): {
			{Thread: s.Thread, Session: s.SessionID, Person: "U0MEMBER", Turns: 2, ModelUSD: 1, MachineSeconds: 90, MachineUSD: 0.002, DiskGBDays: 3, DiskUSD: 0.03, TotalUSD: 1.032},
			{Thread: s.Thread, Session: s.SessionID, Person: "U0ADMIN", Turns: 1, ModelUSD: 2, TotalUSD: 2},
			{Thread: elsewhere, Session: "s2", Person: "U0ADMIN", Turns: 1, ModelUSD: 4, TotalUSD: 4},
			{Thread: elsewhere, Session: "s2", Person: "U0MEMBER", Turns: 1, ModelUSD: 8, TotalUSD: 8},
		}}
	})
	for _, c := range []struct {
		name, token, words string
		want, not          []string
	}{
		{"of the channel, to any member", member, "", []string{
			"ephemeral", "*About $3.03* for <#" + general + "> in ", "Claude $3.00 in 3 turns", "machines 1 min, under $0.01", "disk 3.0 GB-days, about $0.03",
			"“fix the login test” (<", "<@U0ADMIN>: $2.00, 1 turn", "<@U0MEMBER>: $1.03, 2 turns", "estimated from its list prices",
		}, []string{"secret", "$4.00", "$8.00"}},
		{"one's own, wherever that was, and nothing of sessions that are others'", member, "mine", []string{
			"*About $9.03* for your turns and sessions in ", "“fix the login test”", "A session in <#" + payments + ">: $8.00",
		}, []string{"secret", "U0ADMIN"}},
		{"of the workspace, to an admin", admin, "all", []string{
			"*About $15.03* for the workspace in ", "<#" + payments + ">: $12.00", "<#" + general + ">: $3.03", "<@U0MEMBER>: $9.03",
		}, []string{"secret"}},
		{"not to a member", member, "all", []string{sayCostsNotAll}, []string{"$"}},
		{"of a month without any", member, "2020-01", []string{"Nothing has cost anything here in that month."}, nil},
		{"of what is not understood", member, "yesterday", []string{"Put `last`"}, []string{"$"}},
		{"to all of the channel, who are named without a ping", member, "public", []string{"in_channel", "mira: $1.03"}, []string{"<@U0MEMBER>"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.command(c.token, "costs "+c.words)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("/flaude costs %s lacks %q: %s", c.words, want, got)
				}
			}
			for _, not := range c.not {
				if strings.Contains(got, not) {
					t.Errorf("/flaude costs %s has %q: %s", c.words, not, got)
				}
			}
		})
	}
	t.Run("a guest sees none", func(t *testing.T) {
		if got := w.command("xoxp-local-guest", "costs mine"); !has(got, sayNotYou) {
			t.Errorf("told %s", got)
		}
	})
	t.Run("a table fits into an ack, whatever its sessions are about", func(t *testing.T) {
		var many []sessions.Cost
		w.sessions.set(func(f *fakeSessions) {
			for i := range 40 {
				one := session(fmt.Sprintf("9.%06d", i))
				one.SessionID, one.About = fmt.Sprint("s", i), strings.Repeat("🦫<&", 100)
				f.statuses[one.Thread] = sessions.Status{Session: &one}
				many = append(many, sessions.Cost{Thread: one.Thread, Session: one.SessionID, Person: fmt.Sprintf("U%d", i), TotalUSD: float64(i)})
			}
			f.costs[sessions.CostMonth(time.Now())] = many
		})
		got := w.command(member, "costs")
		if len(got) > maxAck || strings.Count(got, "… and 30 more") != 4 {
			t.Errorf("the answer has %d bytes: %.500s", len(got), got)
		}
	})
	t.Run("a store that is away is said", func(t *testing.T) {
		w.sessions.set(func(f *fakeSessions) { f.away = true })
		defer w.sessions.set(func(f *fakeSessions) { f.away = false })
		if got := w.command(member, "costs"); !has(got, sayTrouble) {
			t.Errorf("told %s", got)
		}
	})
}
