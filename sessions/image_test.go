package sessions

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flaudebot/runner"
)

// TestNewImage: a bot that is started with another image moves each session to it with its next turn, on the machine and volume that it has.
func TestNewImage(t *testing.T) {
	t.Parallel()
	const next = "registry/session:2"
	deployed := func(_ *ServiceConfig, m *MachinesConfig) { m.Image = next }
	for name, linger := range map[string]time.Duration{"asleep": 0, "lingering": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			old := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Env = map[string]string{"TZ": "UTC"} }).start()
			old.channelSettings(func(s *Settings) { s.Linger = new(linger) }, nil)
			b.answered(old, old.accept(turn("101", "one", true)))
			before := b.machinesIn(testApp)[0]
			old.stop()
			r := b.replica(deployed).start()
			for i, ts := range []string{"102", "103"} {
				if out := b.answered(r, r.accept(turn(ts, "go on", false))); out.Answer != "answer to go on" {
					t.Errorf("turn %d ended with %+v", i+2, out)
				}
			}
			after := b.machinesIn(testApp)[0]
			if after.ID != before.ID || after.Config.Image != next || r.session().Image != next {
				t.Errorf("machine %s has %s, on record is %s; want %s with %s", after.ID, after.Config.Image, r.session().Image, before.ID, next)
			}
			was, is := asJSON(t, before.Config), asJSON(t, after.Config)
			delete(was, "image")
			delete(is, "image")
			if diff := cmp.Diff(was, is); diff != "" {
				t.Errorf("the rest of the config changed (-was +is):\n%s", diff)
			}
			if n := b.asked("POST /v1/apps/acme/machines/" + before.ID + " "); n != 1 {
				t.Errorf("it was updated %d times, want once", n)
			}
			b.have(1, 1)
		})
	}
	t.Run("an image that Fly does not take: the turn runs on the machine as it is, and says so", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		old := b.replica(nil).start()
		b.answered(old, old.accept(turn("101", "one", true)))
		old.stop()
		b.faults(map[string]any{"method": "machine.update", "status": 422, "body": `{"error":"failed to get manifest registry/session:2: manifest unknown"}`})
		r := b.replica(deployed).start()
		if out := b.answered(r, r.accept(turn("102", "two", false))); out.Answer != "answer to two" || !slices.Contains(b.front.told(), sayOldImage) {
			t.Errorf("it ended with %+v, told %q", out, b.front.told())
		}
		b.faults(nil)
		b.answered(r, r.accept(turn("103", "three", false)))
		if got := b.machinesIn(testApp)[0].Config.Image; got != next {
			t.Errorf("when Fly takes it the machine has %s", got)
		}
	})
	t.Run("a turn that is at work meanwhile is not disturbed", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		old := b.replica(nil).start()
		held := old.accept(turn("101", "hold", true))
		b.until("the turn at work", func() bool { return b.runner.ran(held.ID) == 1 })
		old.stop()
		r := b.replica(deployed).start()
		b.runner.release()
		if out := b.answered(r, held); out.Failure != runner.FailNone || b.runner.ran(held.ID) != 1 || b.machinesIn(testApp)[0].Config.Image == next {
			t.Errorf("it ended with %+v after %d runs", out, b.runner.ran(held.ID))
		}
	})
	t.Run("a machine that is made in place of one that is gone has it", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		old := b.replica(nil).start()
		b.answered(old, old.accept(turn("101", "one", true)))
		old.stop()
		b.until("no machine", func() bool {
			_ = b.fly.DeleteMachine(t.Context(), testApp, old.session().MachineID, true, "")
			return len(b.machinesIn(testApp)) == 0
		})
		r := b.replica(deployed).start()
		b.answered(r, r.accept(turn("102", "two", false)))
		if got := b.machinesIn(testApp)[0].Config.Image; got != next || b.asked("POST /v1/apps/acme/machines/"+r.session().MachineID+" ") != 0 {
			t.Errorf("it has %s", got)
		}
		b.have(1, 1)
	})
}
