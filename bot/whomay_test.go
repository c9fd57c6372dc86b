package bot

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flaudebot/sessions"
)

// who is somebody who tries something in #general, where a session is live.
type who struct {
	name    string
	user    string
	owner   string // of the session
	bot     bool
	allowed []string // FLAUDEBOT_ALLOWED_USERS
	may     []right
}

// right is what a role is allowed to do.
type right string

const (
	mayUse right = "start, follow up, stop"
	mayEnd right = "end the session"
)

func everyRole() []who {
	const adminID, memberID, guestID = "U0ADMIN", "U0MEMBER", "U0GUEST"
	return []who{
		{name: "the session's owner", user: memberID, owner: memberID, may: []right{mayUse, mayEnd}},
		{name: "another member", user: memberID, owner: adminID, may: []right{mayUse}},
		{name: "an admin", user: adminID, owner: memberID, may: []right{mayUse, mayEnd}},
		{name: "a guest", user: guestID, owner: memberID},
		{name: "a guest who is named", user: guestID, owner: memberID, allowed: []string{guestID}, may: []right{mayUse}},
		{name: "a member where others are named", user: memberID, owner: adminID, allowed: []string{guestID}},
		{name: "somebody of another workspace", user: "U0STRANGER", owner: memberID},
		{name: "another bot", user: "U0CI", owner: memberID, bot: true},
		{name: "nobody that Slack knows", user: "U0NOBODY", owner: memberID},
	}
}

// TestWhoMay: on every surface each role can do what docs/security.md says, and nothing else. Modals and settings are in TestConfigRights, TestManage and TestPressFromElsewhere.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	thread := sessions.Thread{Team: team, Channel: general, TS: "1700000000.000100"}
	type surface struct {
		name  string
		needs right
		do    func(w *workspace, p who)
		done  func(f *fakeSessions) bool
	}
	var n atomic.Int64
	fresh := func() string {
		return sessions.TSOf(time.Now().Add(-time.Minute + time.Duration(n.Add(1))*time.Millisecond))
	}
	event := func(w *workspace, p who, fields string) {
		t.Helper()
		bot := ""
		if p.bot {
			bot = `,"bot_id":"B0CI"`
		}
		raw := fmt.Sprintf(`{"team_id":%q,"event":{"user":%q,"channel":%q,"ts":%q%s,%s}}`, team, p.user, general, fresh(), bot, fields)
		outer, err := readEvent(envelope{Payload: json.RawMessage(raw)})
		if err != nil {
			t.Fatal(err)
		}
		_ = w.bot.take(t.Context(), outer)
	}
	click := func(w *workspace, p who, action, value string) {
		raw, _ := json.Marshal(map[string]any{
			"type": "block_actions", "team": map[string]any{"id": team}, "user": map[string]any{"id": p.user}, "channel": map[string]any{"id": general},
			"container": map[string]any{"message_ts": "1700000000.000200", "thread_ts": thread.TS}, "actions": []any{map[string]any{"action_id": action, "value": value, "action_ts": "1"}},
		})
		w.bot.interaction(t.Context(), raw, func(any) {})
	}
	command := func(w *workspace, p who, text string) {
		_ = w.bot.command(t.Context(), slashCommand{TeamID: team, ChannelID: general, UserID: p.user, TriggerID: fresh(), Text: text})
	}
	turnID := thread.Key()
	link := "https://local.slack.com/archives/" + general + "/p1700000000000100"
	accepted := func(f *fakeSessions) bool { return len(f.accepted) > 0 }
	stopped := func(f *fakeSessions) bool { return len(f.stops)+len(f.cancels) > 0 }
	ended := func(f *fakeSessions) bool { return len(f.ends) > 0 }
	all := []surface{
		{"a mention", mayUse, func(w *workspace, p who) { event(w, p, `"type":"app_mention","text":"<@U0FLAUDE> go"`) }, accepted},
		{"a mention with a file", mayUse, func(w *workspace, p who) {
			event(w, p, `"type":"app_mention","text":"<@U0FLAUDE> go","files":[{"id":"F1","name":"a.txt","size":1,"url_private_download":"http://127.0.0.1/x"}]`)
		}, func(f *fakeSessions) bool { return len(f.accepted) > 0 && len(f.accepted[0].Files) == 1 }},
		{"a reply", mayUse, func(w *workspace, p who) { event(w, p, `"type":"message","text":"go on","thread_ts":"`+thread.TS+`"`) }, accepted},
		{"an edit that adds a mention", mayUse, func(w *workspace, p who) {
			ts, bot := fresh(), ""
			if p.bot {
				bot = `"bot_id":"B0CI",`
			}
			event(w, p, fmt.Sprintf(`"type":"message","subtype":"message_changed","message":{%s"user":%q,"ts":%q,"text":"<@U0FLAUDE> go","edited":{"user":%q,"ts":"1"}},"previous_message":{"user":%q,"ts":%q,"text":"go"}`, bot, p.user, ts, p.user, p.user, ts))
		}, accepted},
		{"the word stop", mayUse, func(w *workspace, p who) { event(w, p, `"type":"message","text":"!stop","thread_ts":"`+thread.TS+`"`) }, stopped},
		{"the word end", mayEnd, func(w *workspace, p who) { event(w, p, `"type":"message","text":"!end","thread_ts":"`+thread.TS+`"`) }, ended},
		{"the Stop button", mayUse, func(w *workspace, p who) { click(w, p, "stop", turnID) }, stopped},
		{"the End button", mayEnd, func(w *workspace, p who) { click(w, p, "end", thread.Key()+"|"+sureMark) }, ended},
		{"the Diff button", mayUse, func(w *workspace, p who) { click(w, p, actDiffFile, turnID) }, accepted},
		{"/flaude run", mayUse, func(w *workspace, p who) { command(w, p, "run go") }, accepted},
		{"/flaude stop", mayUse, func(w *workspace, p who) { command(w, p, "stop "+link) }, stopped},
		{"/flaude end", mayEnd, func(w *workspace, p who) { command(w, p, "end "+link) }, ended},
	}
	for _, p := range everyRole() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, func(cfg *Config) { cfg.AllowedUsers = p.allowed })
			for _, s := range all {
				w.sessions.set(func(f *fakeSessions) {
					f.accepted, f.stops, f.cancels, f.ends = nil, nil, nil, nil
					live := sessions.Session{SessionID: "s1", Thread: thread, Owner: p.owner, MachineID: "m1", Turns: 1}
					f.statuses = map[sessions.Thread]sessions.Status{thread: {Session: &live, Running: &sessions.Turn{ID: sessions.TurnID(turnID), Kind: sessions.KindTurn, Thread: thread, User: p.owner}}}
					f.live = []sessions.Session{live}
				})
				s.do(w, p)
				want := strings.Contains(fmt.Sprint(p.may), string(s.needs))
				var got bool
				w.sessions.set(func(f *fakeSessions) { got = s.done(f) })
				if got != want {
					t.Errorf("%s: done = %v, want %v", s.name, got, want)
				}
			}
		})
	}
}

// TestWhoHasLeft: whoever Slack says was deactivated may nothing any more, also an admin whom the channel's settings name.
func TestWhoHasLeft(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	s := sessions.Settings{Users: []string{"U0ADMIN"}, Admins: []string{"U0ADMIN"}}
	if rights, why := w.bot.people.mayConfigure(t.Context(), "U0ADMIN", s); rights != mayName || why != nil {
		t.Fatalf("before: %v, %v", rights, why)
	}
	w.bot.people.users = nil // what is known of somebody is believed for five minutes
	w.fault(map[string]any{"method": "users.info", "nth": 1, "body": `{"ok":true,"user":{"id":"U0ADMIN","team_id":"` + team + `","deleted":true,"is_admin":true,"is_owner":true}}`})
	if why := w.bot.people.mayTalk(t.Context(), "U0ADMIN", general, s); why == nil || why.sentence != sayNotYou {
		t.Errorf("they may use it: %+v", why)
	}
	if rights, _ := w.bot.people.mayConfigure(t.Context(), "U0ADMIN", s); rights != noRights {
		t.Errorf("they may configure it: %v", rights)
	}
	if why := w.bot.people.mayAllow(t.Context(), "U0ADMIN", general, sessions.BoundTurn); why == nil {
		t.Error("they may allow more than a budget")
	}
	if why := w.bot.people.mayEnd(t.Context(), "U0ADMIN", sessions.Session{Owner: "U0MEMBER"}); why == nil {
		t.Error("they may end what is others'")
	}
}
