package bot

import (
	"encoding/json"
	"maps"
	"net/url"
	"testing"

	"flaudebot/sessions"
)

// TestPressFromElsewhere: what a button or a modal names is of no more worth than a link. Whoever is not in a private channel acts on nothing
// there and is shown nothing of it, also when they send what a button there holds.
func TestPressFromElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(admin, payments, "", "a secret plan")
	w.api(admin, "admin.conversations.convertToPrivate", url.Values{"channel_id": {payments}})
	w.api(admin, "conversations.kick", url.Values{"channel": {payments}, "user": {"U0MEMBER"}})
	s := session(root)
	s.Thread.Channel, s.Owner, s.About = payments, "U0ADMIN", "a secret plan"
	w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
	turn := turnID(team, payments, root)

	// payload is a press of something by somebody, in general unless it is in a modal.
	payload := func(t *testing.T, user, action, value string, view map[string]any) (p interactionPayload) {
		t.Helper()
		raw := map[string]any{
			"type": "block_actions", "team": map[string]any{"id": team}, "user": map[string]any{"id": user}, "trigger_id": "Tr1",
			"actions": []any{map[string]any{
				"action_id": action, "action_ts": "1.000001", "value": value, "block_id": value,
				"selected_option": map[string]any{"value": "1"},
			}},
		}
		where := map[string]any{"channel": map[string]any{"id": general}, "container": map[string]any{"message_ts": "1.000002", "thread_ts": "1.000001"}}
		if view != nil {
			where = map[string]any{"view": view}
		}
		maps.Copy(raw, where)
		text, err := json.Marshal(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	inModal := map[string]any{"id": "V1", "callback_id": sessionModal, "private_metadata": s.Thread.Key()}
	accepted := func() int { return w.sessions.count(func(f *fakeSessions) int { return len(f.accepted) }) }
	before := accepted()
	for _, action := range []string{
		"stop", "manage", "refresh", "end", "mute", "unmute", "pull", "save", "retry", "now", "keep", "continue", actionLarger, actDiff, actFiles, actDiffFile, actGetAll, actGet,
	} {
		for _, view := range []map[string]any{nil, inModal} {
			value := offerOf(s.Thread, turn)
			if action == actionLarger {
				value += " 2"
			}
			if got := w.bot.press(t.Context(), payload(t, "U0MEMBER", action, value, view)); got.text != sayNotThere {
				t.Errorf("%s, modal %v: told %q", action, view != nil, got.text)
			}
		}
	}
	if got := w.bot.press(t.Context(), payload(t, "U0MEMBER", actionConfig, offerOf(s.Thread, ""), nil)); got.text != sayNotThere {
		t.Errorf("settings: told %q", got.text)
	}
	var p interactionPayload
	p.User.ID, p.View.Kind = "U0MEMBER", pullModal
	p.View.Metadata = `{"thread":"` + s.Thread.Key() + `","dir":"app"}`
	if got := w.text(w.bot.submitPull(t.Context(), t.Context(), p)); !has(got, sayNotThere) {
		t.Errorf("a pull request: told %s", got)
	}
	if n := accepted() - before; n != 0 {
		t.Errorf("%d turns were taken in", n)
	}
	if got := w.text(w.local(member, "seen", map[string]any{"channel": general})); has(got, "secret plan") {
		t.Errorf("they are shown %s", got)
	}

	t.Run("a modal shows the session that its buttons are about", func(t *testing.T) {
		other := sessions.Thread{Team: team, Channel: general, TS: "5.000001"}
		if got := w.bot.press(t.Context(), payload(t, "U0MEMBER", "refresh", other.Key(), inModal)); got.text != sayOldButton || len(got.blocks) == 0 {
			t.Errorf("told %+v", got)
		}
	})
	t.Run("who is in the channel may, and who owns the session may manage it", func(t *testing.T) {
		if got := w.bot.press(t.Context(), payload(t, "U0ADMIN", "mute", offerOf(s.Thread, ""), nil)); got.text != sayMuted {
			t.Errorf("told %q", got.text)
		}
		w.sessions.set(func(f *fakeSessions) { s.Owner = "U0MEMBER"; f.status.Session = &s })
		if got := w.bot.press(t.Context(), payload(t, "U0MEMBER", "unmute", offerOf(s.Thread, ""), nil)); got.text != sayUnmuted {
			t.Errorf("told %q", got.text)
		}
		if got := w.bot.press(t.Context(), payload(t, "U0MEMBER", actGetAll, offerOf(s.Thread, turn), nil)); got.text != sayNotThere {
			t.Errorf("told %q", got.text)
		}
	})
}
