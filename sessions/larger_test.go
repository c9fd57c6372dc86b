package sessions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"flaudebot/runner"
)

func TestNextGuest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from string
		most int
		want string // "": there is none
	}{
		{"performance-2x:4096", 16384, "performance-2x:8192"},
		{"performance-2x:8192", 16384, "performance-2x:16384"},
		{"performance-2x:16384", 32768, "performance-4x:32768"}, // 8 GB a CPU
		{"performance-2x:4096", 6000, "performance-2x:5120"},    // as much as is allowed, in Fly's steps
		{"performance-2x:4096", 4096, ""},
		{"performance-2x:4096", 1024, ""},
		{"performance-16x:131072", 1 << 20, ""},
		{"shared-1x:512", 16384, "shared-1x:1024"},
		{"shared-1x:2048", 16384, "shared-2x:4096"},
		{"shared-8x:16384", 65536, ""},
	} {
		g, err := ParseGuest(c.from)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if next, ok := nextGuest(g, c.most); ok {
			got = GuestText(next)
			if err := CheckGuest(next); err != nil {
				t.Errorf("from %s: %s is no size: %v", c.from, got, err)
			}
		}
		if got != c.want {
			t.Errorf("from %s with at most %d MB: %q, want %q", c.from, c.most, got, c.want)
		}
	}
}

// twice is a guest with twice the memory of the usual one.
func twice() Guest { return Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 8192} }

// size is what the session's machine and volume have.
func (b *bot) size(r *replica) (Guest, int) {
	b.t.Helper()
	s := r.session()
	mach, err := b.fly.Machine(context.WithoutCancel(b.t.Context()), testApp, s.MachineID)
	if err != nil {
		b.t.Fatal(err)
	}
	vol, err := b.fly.Volume(context.WithoutCancel(b.t.Context()), testApp, s.VolumeID)
	if err != nil {
		b.t.Fatal(err)
	}
	return *mach.Config.Guest, vol.SizeGB
}

func larger(ts string, l Larger) Turn {
	t := turn(ts, "again", false)
	t.Larger = l
	return t
}

// TestLarger: a turn that had too little is offered more, and runs on that when somebody wants it. The session keeps it.
func TestLarger(t *testing.T) {
	t.Parallel()
	t.Run("what is offered", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			why  Failure
			kind Kind
			want string
		}{
			{FailMemory, KindTurn, "&{Guest:{CPUKind:performance CPUs:2 MemoryMB:8192} VolumeGB:0}"},
			{runner.FailDisk, KindTurn, "&{Guest:{CPUKind: CPUs:0 MemoryMB:0} VolumeGB:2}"},
			{runner.FailKilled, KindTurn, "<nil>"},
			{FailMemory, KindOnce, "<nil>"},
		} {
			b := newBot(t)
			r := b.replica(nil).start()
			b.runner.once("take", runner.TakeReply{Status: runner.StatusInvalid, Failure: c.why, Reason: "so it is"}, nil)
			one := turn("101", "one", true)
			one.Kind = c.kind
			out := b.answered(r, r.accept(one))
			if got := fmt.Sprintf("%+v", out.Larger); got != c.want || out.Failure != c.why {
				t.Errorf("%s after %s: offered %s, want %s", c.kind, out.Failure, got, c.want)
			}
		}
	})
	t.Run("a machine that died for want of memory", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		one := r.accept(turn("101", "hold", true))
		b.until("a running turn", func() bool { return b.runner.ran(one.ID) == 1 })
		b.local("kill", map[string]any{"machine": r.session().MachineID, "oom_killed": true})
		if out := b.answered(r, one); out.Failure != FailMemory || out.ExitCode != 137 || out.Larger == nil || out.Larger.Guest != twice() {
			t.Errorf("it ended with %+v, offered %+v", out, out.Larger)
		}
	})
	t.Run("a volume alone grows under a machine that lingers: it boots anew for that", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = 60 }).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		stops := b.asked("POST /v1/apps/acme/machines/" + r.session().MachineID + "/stop")
		if out := b.answered(r, r.accept(larger("102", Larger{VolumeGB: 2}))); out.Answer != "answer to again" {
			t.Errorf("it ended with %+v", out)
		}
		if _, gb := b.size(r); gb != 2 || b.asked("POST /v1/apps/acme/machines/"+r.session().MachineID+"/stop") != stops+1 {
			t.Errorf("it has %d GB, want 2 after a stop", gb)
		}
	})
	for name, linger := range map[string]int{"asleep": 0, "lingering": 60} {
		t.Run(name+": it grows before the turn, once, and stays so", func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = linger }).start()
			b.answered(r, r.accept(turn("101", "one", true)))
			before := *r.session()
			again := r.accept(larger("102", Larger{Guest: twice(), VolumeGB: 2}))
			if out := b.answered(r, again); out.Answer != "answer to again" || b.runner.ran(again.ID) != 1 {
				t.Errorf("it ended with %+v", out)
			}
			r.channelSettings(func(s *Settings) { s.Guest = Guest{CPUKind: "shared", CPUs: 2, MemoryMB: 2048} }, nil)
			b.answered(r, r.accept(turn("103", "three", false)))
			s := r.session()
			if guest, gb := b.size(r); guest != twice() || gb != 2 || s.Guest != twice() || s.VolumeGB != 2 || s.MachineID != before.MachineID || s.VolumeID != before.VolumeID {
				t.Errorf("it has %+v and %d GB, on record is %+v", guest, gb, s)
			}
			if n := b.asked("PUT /v1/apps/acme/volumes/"); n != 1 {
				t.Errorf("the volume was extended %d times", n)
			}
			b.have(1, 1)
		})
	}
	t.Run("no more than the bot allows", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.MaxMemoryMB, m.MaxVolumeGB = 4096, 3 }).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		b.answered(r, r.accept(larger("102", Larger{Guest: twice(), VolumeGB: 50})))
		if guest, gb := b.size(r); guest == twice() || gb != 3 {
			t.Errorf("it has %+v and %d GB, want the guest as it was and 3 GB", guest, gb)
		}
	})
	t.Run("without room for it the turn waits, and runs on nothing smaller", func(t *testing.T) {
		t.Parallel()
		for name, fault := range map[string]map[string]any{
			"to update": {"method": "machine.update", "status": 409},
			"to start":  {"method": "machine.start", "status": 409},
			"to extend": {"method": "volume.extend", "status": 400, "body": `{"error":"no capacity"}`},
		} {
			b := newBot(t)
			r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Patience = 2 * time.Second }).start()
			b.answered(r, r.accept(turn("101", "one", true)))
			b.faults(fault)
			again := r.accept(larger("102", Larger{Guest: twice(), VolumeGB: 2}))
			if out := b.answered(r, again); out.Failure != FailCapacity || b.runner.ran(again.ID) != 0 {
				t.Errorf("%s: it ended with %+v after %d runs, want %s", name, out, b.runner.ran(again.ID), FailCapacity)
			}
			b.faults(nil)
			if out := b.answered(r, r.accept(turn("103", "retry", false))); out.Answer != "answer to retry" {
				t.Errorf("%s: when there is room it ends with %+v", name, out)
			}
			if guest, gb := b.size(r); guest != twice() || gb != 2 {
				t.Errorf("%s: it has %+v and %d GB", name, guest, gb)
			}
		}
	})
	t.Run("whichever call dies with its owner, it has grown when the turn runs, once", func(t *testing.T) {
		t.Parallel()
		for nth := 1; ; nth++ {
			b := newBot(t)
			r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = 60 }).start()
			b.answered(r, r.accept(turn("101", "one", true)))
			r.stop()
			calls, died := 0, make(chan struct{})
			victim := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = 60 })
			ctx, die := context.WithCancelCause(context.Background())
			b.answering(func(_ http.ResponseWriter, req *http.Request) bool {
				if req.Method == http.MethodGet || strings.HasSuffix(req.URL.Path, "/lease") {
					return false
				}
				select {
				case <-died:
					return false
				default:
				}
				if calls++; calls == nth {
					close(died)
					die(errors.New("killed"))
				}
				return false // it takes effect all the same
			})
			done := make(chan struct{})
			go func() { defer close(done); _ = victim.Run(ctx) }()
			again := victim.accept(larger("102", Larger{Guest: twice(), VolumeGB: 2}))
			over := func() bool {
				select {
				case <-died:
					return true
				default:
					return len(b.front.of(again.ID, "2")) > 0
				}
			}
			b.until("the death, or the answer", over)
			die(nil)
			<-done
			b.answering(nil)
			second := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Settings.LingerSeconds = 60 }).start()
			if out := b.answered(second, again); out.Answer != "answer to again" || b.runner.ran(again.ID) != 1 {
				t.Errorf("call %d: it ended with %+v after %d runs", nth, out, b.runner.ran(again.ID))
			}
			if guest, gb := b.size(second); guest != twice() || gb != 2 {
				t.Errorf("call %d: it has %+v and %d GB", nth, guest, gb)
			}
			b.have(1, 1)
			select {
			case <-died:
			default:
				if nth < 4 {
					t.Errorf("there were only %d calls", nth)
				}
				return
			}
		}
	})
}
