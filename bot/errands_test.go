package bot

import (
	"net/url"
	"testing"

	"flaudebot/runner"
	"flaudebot/sessions"
)

func TestErrands(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*workspace, sessions.Session) {
		t.Helper()
		w := newWorkspace(t, nil)
		root := w.say(member, general, "", mention+"go")
		w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
		return w, session(root)
	}
	look := func(s sessions.Session, private bool, view string) sessions.Turn {
		turn := errandTurn(runner.Errand{Kind: runner.ErrandState}, "Look what is not pushed")
		turn.Thread, turn.Errand.Private, turn.Errand.View = s.Thread, private, view
		turn.ID = errandID(s.Thread, "7.1")
		return turn
	}
	pushed := sessions.Outcome{Outcome: runner.Outcome{Repos: []runner.RepoState{{Dir: "repo"}}}, Number: 3}

	t.Run("a click that comes twice asks once, and one that has to wait is told its place", func(t *testing.T) {
		t.Parallel()
		w, s := begin(t)
		e := look(s, false, "").Errand
		if a := w.bot.submitErrand(t.Context(), s.Thread, "U0MEMBER", "7.1", "Look", *e); a.text != sayErrandBegins {
			t.Errorf("the first = %q", a.text)
		}
		if a := w.bot.submitErrand(t.Context(), s.Thread, "U0MEMBER", "7.1", "Look", *e); a.text != sayAskedAlready {
			t.Errorf("the second = %q", a.text)
		}
		w.sessions.set(func(f *fakeSessions) { f.status.Queued = make([]sessions.Turn, 2) })
		if a := w.bot.submitErrand(t.Context(), s.Thread, "U0MEMBER", "7.2", "Look", *e); a.text != sayErrandPlace(2) {
			t.Errorf("the third = %q", a.text)
		}
		turn := w.sessions.turn("errand-7.1")
		if turn == nil || turn.ID != sessions.TurnID(s.Thread.Team+":"+s.Thread.Channel+":errand-7.1") || turn.Kind != sessions.KindErrand || turn.User != "U0MEMBER" {
			t.Errorf("the errand is %+v", turn)
		}
	})
	t.Run("its end stands in the thread once, and counts as no turn", func(t *testing.T) {
		t.Parallel()
		w, s := begin(t)
		turn := look(s, false, "")
		ts, err := w.bot.Begin(t.Context(), s, turn, false)
		if err != nil || ts == "" {
			t.Fatalf("Begin = %q, %v", ts, err)
		}
		for _, again := range []bool{false, true} {
			if err := w.bot.Finish(t.Context(), s, turn, ts, pushed, again); err != nil {
				t.Fatal(err)
			}
		}
		w.until("a settled live message", func() bool { return has(w.thread(general, s.Thread.TS), "Look what is not pushed: done") })
		n := 0
		for _, m := range w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {s.Thread.TS}})["messages"].([]any) {
			if m.(map[string]any)["text"] == sayAllPushed {
				n++
			}
		}
		if n != 1 {
			t.Errorf("its end stands there %d times: %s", n, w.thread(general, s.Thread.TS))
		}
		if got, err := w.bot.Recall(t.Context(), s); err != nil || got != (sessions.Recalled{}) {
			t.Errorf("Recall = %+v, %v, want no turn", got, err)
		}
	})
	t.Run("a private one is told to who clicked alone, and in a message where the modal was closed", func(t *testing.T) {
		t.Parallel()
		w, s := begin(t)
		for _, view := range []string{"", "V0CLOSED"} {
			turn := look(s, true, view)
			ts, err := w.bot.Begin(t.Context(), s, turn, false)
			if err != nil || ts != "" {
				t.Fatalf("Begin = %q, %v, want no live message", ts, err)
			}
			if err := w.bot.Finish(t.Context(), s, turn, ts, pushed, false); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.whispered(member, general, s.Thread.TS); !has(got, sayAllPushed) {
			t.Errorf("who clicked sees %s", got)
		}
		if has(w.whispered(admin, general, s.Thread.TS)+w.thread(general, s.Thread.TS), sayAllPushed) {
			t.Error("others see it")
		}
	})
}
