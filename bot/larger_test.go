package bot

import (
	"testing"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// TestPressLarger: an answer that had too little of something offers to run it again on more, to whoever may use the bot, once.
func TestPressLarger(t *testing.T) {
	t.Parallel()
	guest8 := sessions.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 8192}
	for name, c := range map[string]struct {
		failure sessions.Failure
		larger  sessions.Larger
		button  string
	}{
		"memory": {sessions.FailMemory, sessions.Larger{Guest: guest8}, "Run again with 8 GB of memory"},
		"disk":   {runner.FailDisk, sessions.Larger{VolumeGB: 2}, "Run again with a volume of 2 GB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			root := w.say(member, general, "", mention+"count the files model:opus")
			w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
			s, turn := turnOf(root, root)
			now := time.Now()
			out := sessions.Outcome{Number: 1, Larger: &c.larger, Outcome: runner.Outcome{ExitCode: 1, Failure: c.failure, StartedAt: now, EndedAt: now}}
			if err := w.bot.Finish(t.Context(), s, turn, "", out, false); err != nil {
				t.Fatal(err)
			}
			answer := w.find(root, failureSentence(out))
			if got := w.thread(general, root); answer == "" || !has(got, c.button) {
				t.Fatalf("thread = %s, want it offered", got)
			}
			press := func(token string) {
				w.local(token, "click", map[string]any{"channel": general, "ts": answer, "action_id": actionLarger})
			}
			again := func() (out []sessions.Turn) {
				w.sessions.set(func(f *fakeSessions) {
					for _, t := range f.accepted {
						if t.ID == turnID(team, general, root+"-retry-"+answer) {
							out = append(out, t)
						}
					}
				})
				return out
			}
			press(guest)
			w.until("the guest is told", func() bool { return has(w.whispered(guest, general, root), sayNotYou) })
			if len(again()) != 0 {
				t.Errorf("a guest had it run")
			}
			press(admin)
			w.until("a turn", func() bool { return len(again()) == 1 })
			if got := again()[0]; got.Larger != c.larger || got.Text != "count the files" || got.User != "U0ADMIN" || got.Overrides.Model != "opus" {
				t.Errorf("turn = %+v, want the same words on %+v", got, c.larger)
			}
			press(member)
			w.until("that it was asked for", func() bool { return has(w.whispered(member, general, root), sayAskedAlready) })
			if len(again()) != 1 {
				t.Error("it runs twice")
			}
		})
	}
}

func TestLargerOf(t *testing.T) {
	t.Parallel()
	turn := sessions.Turn{ID: "T:C:1.2"}
	for _, l := range []sessions.Larger{{VolumeGB: 4}, {Guest: sessions.Guest{CPUKind: "shared", CPUs: 4, MemoryMB: 8192}}} {
		if id, got, ok := largerOf(string(turn.ID) + " " + largerText(l)); !ok || id != string(turn.ID) || got != l {
			t.Errorf("largerOf = %s, %+v, %v, want %+v", id, got, ok, l)
		}
	}
	for _, value := range []string{"", "T:C:1.2", "T:C:1.2 ", "T:C:1.2 0", "T:C:1.2 -2", "T:C:1.2 huge", "T:C:1.2 shared-1x:99999"} {
		if _, got, ok := largerOf(value); ok {
			t.Errorf("largerOf(%q) = %+v, want nothing", value, got)
		}
	}
}
