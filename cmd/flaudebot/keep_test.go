package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

// TestTimeToLive: the thread of a session whose time is nearly over is told, “Keep it” puts that off, and a session that nobody keeps ends, with all that it had
// on Fly. Who kept it, and until when, is on record.
func TestTimeToLive(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, append(slices.Clone(w.env), "FLAUDEBOT_TTL=16s", "FLAUDEBOT_REAP_EVERY=1s"), "serve")
	general := w.channel("general")
	kept := w.say(member, general, "", mention+"remember the number 42")
	left := w.say(member, general, "", mention+"remember the number 43")
	for _, root := range []string{kept, left} {
		if text, code := w.answer(general, root, root); code != "0" {
			t.Fatalf("answer = %q (exit %s)", text, code)
		}
	}
	says := func(root, words string) bool {
		return slices.ContainsFunc(w.thread(general, root), func(m message) bool { return strings.HasPrefix(m.Text, words) })
	}

	notice := w.offered(t, general, kept, "keep")
	if !strings.HasPrefix(notice.Text, "This session will be removed <!date^") {
		t.Errorf("the notice says %q", notice.Text)
	}
	w.click(t, map[string]any{"channel": general, "ts": notice.TS, "action_id": "keep"})
	w.until("that it is kept", func() bool { return says(kept, "Kept by <@U0MEMBER> until <!date^") })

	all := w.record()
	if e := one(t, all, sessions.SessionKept, func(e sessions.Entry) bool { return e.Thread == kept }); e.By != "U0MEMBER" || e.Channel != general || e.Session == "" ||
		e.Until.Before(time.Now()) || !says(kept, fmt.Sprintf("Kept by <@U0MEMBER> until <!date^%d^", e.Until.Unix())) {
		t.Errorf("it was kept like this: %s", toJSON(t, e))
	}
	if slices.ContainsFunc(all, func(e sessions.Entry) bool { return e.What == sessions.SessionKept && e.Thread == left }) {
		t.Error("nobody kept the other one, and that is on record")
	}

	w.until("the end of the other, which was told of as well", func() bool {
		return says(left, "This session will be removed <!date^") && says(left, "The session has ended because its time was up: 1 turn, ")
	})
	w.until("what it had on Fly is gone, and nothing else", func() bool {
		machines, volumes := flyList(t, "http://"+w.fly, "test-app", "machines"), flyList(t, "http://"+w.fly, "test-app", "volumes")
		return len(machines) == 1 && has(t, machines[0], kept) && len(volumes) == 1 && volumes[0]["attached_machine_id"] == machines[0]["id"]
	})
	if text, code := w.answer(general, kept, w.say(member, general, kept, "what number did I ask you to remember?")); code != "0" || !hasAll(text, "42", "turn 2") {
		t.Errorf("answer = %q (exit %s), want the conversation that was kept", text, code)
	}
}
