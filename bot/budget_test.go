package bot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// TestPressAllow: a turn that a budget has stopped offers to raise it, to those who may, once; then it goes on.
func TestPressAllow(t *testing.T) {
	t.Parallel()
	const channelAdmin = "U0GUEST" // whom the channel's settings name
	for name, c := range map[string]struct {
		bound sessions.Bound
		spent float64 // by the turn itself
		token string
		told  string // why not; "": it is raised
		goes  string // how the turn goes on
	}{
		"a turn's, by an admin":                            {sessions.BoundTurn, 1, admin, "", "-continue-"},
		"a channel's, by an admin":                         {sessions.BoundChannel, 1, admin, "", "-continue-"},
		"a channel's, where nothing was run":               {sessions.BoundChannel, 0, admin, "", "-retry-"},
		"that of all, by an admin":                         {sessions.BoundAll, 1, admin, "", "-continue-"},
		"a person's, by an admin":                          {sessions.BoundPerson, 1, admin, sayAllowedFor("U0MEMBER"), ""},
		"a thread's, by whom the channel's settings name":  {sessions.BoundThread, 1, guest, "", "-continue-"},
		"that of all, by whom the channel's settings name": {sessions.BoundAll, 1, guest, sayMayNotAllow(sessions.BoundAll), ""},
		"a person's, by whom the channel's settings name":  {sessions.BoundPerson, 1, guest, sayMayNotAllow(sessions.BoundPerson), ""},
		"a turn's, by a member":                            {sessions.BoundTurn, 1, member, sayMayNotAllow(sessions.BoundTurn), ""},
		"a channel's, by a member":                         {sessions.BoundChannel, 1, member, sayMayNotAllow(sessions.BoundChannel), ""},
		"a person's, by that person":                       {sessions.BoundPerson, 1, member, sayMayNotAllow(sessions.BoundPerson), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, func(c *Config) { c.AllowedUsers = []string{"U0ADMIN", "U0MEMBER", channelAdmin} })
			w.sessions.set(func(f *fakeSessions) {
				f.settings = map[string]sessions.Settings{general: {Version: 1, Admins: []string{channelAdmin}}}
			})
			root := w.say(member, general, "", mention+"count the files")
			w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
			s, turn := turnOf(root, root)
			turn.User = "U0MEMBER"
			out := broke(c.bound, c.spent)
			out.Number, out.StartedAt, out.EndedAt = 1, time.Now(), time.Now()
			if err := w.bot.Finish(t.Context(), s, turn, "", out, false); err != nil {
				t.Fatal(err)
			}
			answer := w.find(root, failureSentence(out))
			if got := w.thread(general, root); answer == "" || !has(got, "Allow $5 more") {
				t.Fatalf("thread = %s, want it offered", got)
			}
			w.local(c.token, "click", map[string]any{"channel": general, "ts": answer, "action_id": actionAllow})
			var raised []string
			var more *sessions.Turn
			look := func() {
				w.sessions.set(func(f *fakeSessions) {
					raised = append([]string(nil), f.raised...)
					for _, t := range f.accepted {
						if c.goes != "" && t.ID == turnID(team, general, root+c.goes+answer) {
							more = &t
						}
					}
				})
			}
			if c.told != "" {
				w.until("they are told", func() bool { return has(w.whispered(c.token, general, root), c.told) })
				look()
				if allowed := strings.HasPrefix(c.told, "Done"); len(raised) > 0 != allowed {
					t.Errorf("raised: %q", raised)
				} else if allowed {
					w.until("the thread is told", func() bool { return has(w.thread(general, root), sayAllowedMore("U0ADMIN", "U0MEMBER", c.bound)) })
				}
				return
			}
			w.until("it goes on", func() bool { look(); return more != nil })
			if c.bound == sessions.BoundTurn {
				if more.MoreUSD != 5 || len(raised) > 0 {
					t.Errorf("it may cost $%g more, raised: %q", more.MoreUSD, raised)
				}
				w.until("the thread is told", func() bool { return has(w.thread(general, root), sayAllowedMore("U0ADMIN", "", c.bound)) })
			} else if len(raised) != 1 || !strings.Contains(raised[0], answer+" "+string(c.bound)+" U0MEMBER ") || !strings.HasSuffix(raised[0], " 5") || more.MoreUSD != 0 {
				t.Errorf("raised: %q, $%g more", raised, more.MoreUSD)
			} else {
				by := map[string]string{admin: "U0ADMIN", guest: channelAdmin}[c.token]
				w.until("the thread is told", func() bool { return has(w.thread(general, root), sayAllowedMore(by, "U0MEMBER", c.bound)) })
				w.local(admin, "click", map[string]any{"channel": general, "ts": answer, "action_id": actionAllow})
				w.until("who presses once more is told", func() bool { return has(w.whispered(admin, general, root), sayAllowedAlready()) })
				look()
				if n := strings.Count(fmt.Sprint(w.thread(general, root)), "allowed $5 more"); len(raised) != 1 || n != 1 {
					t.Errorf("after another press: raised %q, told %d times", raised, n)
				}
			}
		})
	}
}

func TestAllowanceOf(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "T:C:1.2", "T:C:1.2 all U1", "T:C:1.2 everything U1 retry", "T:C:1.2 all  retry", "T:C:1.2 all U1 retry x"} {
		if _, got, ok := allowanceOf(value); ok {
			t.Errorf("allowanceOf(%q) = %+v, want nothing", value, got)
		}
	}
}

// TestBudgetIsSaid: budgets are shown with the costs of the month, and in an answer when one is nearly used up.
func TestBudgetIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	w.sessions.set(func(f *fakeSessions) {
		f.budgets = []sessions.Budget{{Bound: sessions.BoundAll, USD: 500, SpentUSD: 12}, {Bound: sessions.BoundChannel, USD: 50, SpentUSD: 8.5}, {Bound: sessions.BoundThread, USD: 1}}
	})
	got := fmt.Sprint(w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "costs"}))
	if !strings.Contains(got, "$12.00 of $500.00 spent for all channels together this month") || !strings.Contains(got, "$8.50 of $50.00 spent for this channel") ||
		strings.Contains(got, "this thread") {
		t.Errorf("/flaude costs = %s, want the budgets", got)
	}
	o := sessions.Outcome{Outcome: runner.Outcome{CostUSD: 1}, Number: 2, Budget: &sessions.Budget{Bound: sessions.BoundChannel, USD: 50, SpentUSD: 41.2}}
	if line := footerLine(o); !strings.Contains(line, "turn 2 · $41.20 of $50.00 spent for this channel this month") {
		t.Errorf("footer = %q", line)
	}
}
