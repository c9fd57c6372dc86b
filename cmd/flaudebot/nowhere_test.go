package main

import (
	"net/url"
	"strings"
	"testing"
)

// TestNowhere: a channel is archived under a turn. The turn comes to its end, its machine goes to sleep, who asked is told in a direct
// message, and ends the session from there: nothing is left.
func TestNowhere(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, w.env, "serve")
	payments := w.channel("payments")
	root := w.say(member, payments, "", mention+"take 3 seconds")
	w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(payments, root)), "sleep 3") })
	w.api(admin, "conversations.archive", url.Values{"channel": {payments}})
	told := func() []map[string]any {
		return items(w.api(member, "conversations.history", url.Values{"channel": {"D0MEMBER"}})["messages"])
	}
	w.until("a direct message", func() bool {
		return strings.Contains(toJSON(t, told()), "cannot answer there: the channel is archived")
	})
	w.until("the machine sleeps", func() bool {
		machines := flyList(t, "http://"+w.fly, "test-app", "machines")
		return len(machines) == 1 && machines[0]["state"] == "stopped"
	})
	w.local(member, "click", map[string]any{"channel": "D0MEMBER", "ts": told()[0]["ts"], "action_id": "end"})
	w.until("nothing is left on Fly", func() bool {
		return len(flyList(t, "http://"+w.fly, "test-app", "machines")) == 0 && len(flyList(t, "http://"+w.fly, "test-app", "volumes")) == 0
	})
	if n := len(told()); n != 1 {
		t.Errorf("%d direct messages, want one: %s", n, toJSON(t, told()))
	}
}
