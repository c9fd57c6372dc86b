package bot

import (
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

// TestKeepIt: the notice that a session ends soon has a button that puts that off, once, and then says until when.
func TestKeepIt(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	root := w.say(member, general, "", mention+"begin")
	s := session(root)
	at := time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)
	w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
	tell := func(at time.Time) (ts string) {
		t.Helper()
		for range 2 { // one that could not be posted for sure is given again
			if err := w.bot.Notify(t.Context(), sessions.Notice{Session: s, Kind: sessions.NoticeEndsSoon, At: at}); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(w.thread(general, root), `"action_id":"keep"`); n != 1 {
			t.Fatalf("the button stands there %d times, want once", n)
		}
		return w.find(root, sayEndsSoon(at))
	}
	press := func(token, ts string) {
		w.local(token, "click", map[string]any{"channel": general, "ts": ts, "action_id": "keep"})
	}

	notice := tell(at)
	press(guest, notice)
	w.until("the guest is told", func() bool { return has(w.whispered(guest, general, root), sayNotYou) })
	press(admin, notice)
	w.until("until when it is kept", func() bool { return has(w.thread(general, root), sayKeptUntil("U0ADMIN", at.Add(24*time.Hour))) })
	if got := w.thread(general, root); has(got, `"action_id":"keep"`) || has(got, "will be removed") {
		t.Errorf("thread = %s, want the notice settled", got)
	}
	w.sessions.set(func(f *fakeSessions) {
		if len(f.keeps) != 1 || !f.keeps[0].Equal(at) {
			t.Errorf("kept = %v, want once, by the admin", f.keeps)
		}
		f.status.Session = nil
	})
	notice = tell(at.Add(24 * time.Hour))
	press(member, notice)
	w.until("that it is too late", func() bool {
		return has(w.whispered(member, general, root), sayKeptTooLate) && has(w.thread(general, root), sayWasRemoved)
	})
	w.sessions.set(func(f *fakeSessions) { f.away = true })
	defer w.sessions.set(func(f *fakeSessions) { f.away = false })
	notice = tell(at.Add(48 * time.Hour))
	press(member, notice)
	w.until("that nothing was done", func() bool { return has(w.whispered(member, general, root), sayTrouble) })
	if !has(w.thread(general, root), `"action_id":"keep"`) {
		t.Error("the button is gone though nothing was done")
	}
}
