package sessions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

const lineFull = "Fly has no room just now"

// full has the local Fly make nothing in regions: region → why.
func (w *world) full(why map[string]string) { w.local("trouble", map[string]any{"full": why}) }

func inOrder(regions ...string) func(*MachinesConfig) {
	return func(cfg *MachinesConfig) { cfg.Regions = regions }
}

// TestRegions: what Fly has no room for in a region is made in the next one, if nothing binds it to the first.
func TestRegions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		full map[string]string
		want string
	}{
		"there is room":                                  {nil, "fra"},
		"no room in the first region":                    {map[string]string{"fra": "region"}, "ams"},
		"no room on its hosts":                           {map[string]string{"fra": "host"}, "ams"},
		"no room beside its volumes":                     {map[string]string{"fra": "placement"}, "ams"},
		"no room for volumes":                            {map[string]string{"fra": "volume"}, "ams"},
		"over the quota of the first region":             {map[string]string{"fra": "quota"}, "ams"},
		"no room in the first, over quota in the second": {map[string]string{"fra": "region", "ams": "quota"}, "cdg"},
	} {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, once %v", name, once), func(t *testing.T) {
				t.Parallel()
				sc := newWorld(t).script(inOrder("fra", "ams", "cdg"))
				sc.full(c.full)
				want := c.want
				if once {
					sc.s = sc.m.ephemeral("run", Spec{Thread: thread()}, time.Now())
					if c.full["fra"] == "volume" {
						want = "fra" // it has none
					}
				}
				out, _ := sc.unsettled(sc.run("one"))
				if out.Answer != "answer to one" {
					t.Fatalf("RunTurn = %+v", out)
				}
				if got := sc.machinesIn(testApp); len(got) != 1 || got[0].Region != want || sc.s.Region != want || sc.saved.Region != want {
					t.Errorf("there are %+v, the session is in %s, its record says %s; want %s", got, sc.s.Region, sc.saved.Region, want)
				}
				vols := sc.volumesIn(testApp)
				if once && len(vols) != 0 || !once && (len(vols) != 1 || vols[0].Region != want || vols[0].ID != sc.saved.VolumeID) {
					t.Errorf("there are the volumes %+v, want nothing left behind", vols)
				}
				sc.full(map[string]string{}) // what is there stays where it is
				if !once {
					sc.turn("two")
					sc.have(1, 1)
				}
			})
		}
	}
	t.Run("a host without room: another one of the region is tried before another region", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(inOrder("fra", "ams"))
		sc.faults(map[string]any{"method": "machine.create", "nth": 1, "status": 412, "body": `{"error":"insufficient resources to create new machine with existing volume id 'vol_x'","status":"volume_placement_capacity"}`})
		if out := sc.turn("one"); out.Answer != "answer to one" || sc.s.Region != "fra" {
			t.Errorf("RunTurn = %+v in %s, want it in fra", out, sc.s.Region)
		}
		sc.have(1, 1)
	})
	t.Run("no room anywhere: all are tried again, and it goes on when there is some", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(inOrder("fra", "ams"))
		sc.full(map[string]string{"*": "region"})
		go func() {
			sc.until("the line", func() bool { return sc.told(lineFull) })
			sc.full(map[string]string{"fra": "region"})
		}()
		if out := sc.turn("one"); out.Answer != "answer to one" || sc.s.Region != "ams" {
			t.Errorf("RunTurn = %+v in %s", out, sc.s.Region)
		}
		sc.have(1, 1)
	})
	t.Run("a channel that names a region gets no other", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Regions, m.Patience = []string{"fra", "ams"}, time.Second }).start()
		r.channelSettings(func(s *Settings) { s.Region = "fra" }, nil)
		b.full(map[string]string{"fra": "region"})
		if out := b.answered(r, r.accept(turn("1.0", "x", true))); out.Failure != FailCapacity {
			t.Errorf("it ended with %+v in %s, want %s", out, r.session().Region, FailCapacity)
		}
		b.have(0, 0)
	})
	t.Run("a crash at any save, and a volume that cannot be removed, leave nothing where there was no room", func(t *testing.T) {
		t.Parallel()
		crash := errors.New("crash")
		for nth := 1; ; nth++ {
			sc := newWorld(t).script(inOrder("fra", "ams"))
			sc.full(map[string]string{"fra": "region"})
			sc.faults(map[string]any{"method": "volume.delete", "nth": 1, "status": 503})
			left := nth
			_, err := sc.m.RunTurn(t.Context(), &sc.s, func() Run {
				r := sc.run("one")
				r.Save = func(ctx context.Context, s Session) error {
					if left--; left == 0 {
						return crash
					}
					return sc.save(ctx, s)
				}
				return r
			}())
			crashed := errors.Is(err, crash)
			if crashed { // the next owner knows what was saved
				if sc.s = sc.saved; sc.s.SessionID == "" {
					return // a session is on record before anything is made for it
				}
				sc.turn("one")
			}
			if sc.s.Region != "ams" {
				t.Errorf("save %d: it is in %s", nth, sc.s.Region)
			}
			sc.have(1, 1)
			if !crashed {
				return
			}
		}
	})
}

// TestNoRoomForFiles: the volume of a conversation is on a host without room: that is waited for, where it is.
func TestNoRoomForFiles(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]bool{"to start its machine": false, "for a machine in place of one that is gone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(inOrder("fra", "ams"))
			sc.turn("one")
			volume := sc.s.VolumeID
			if lose {
				if err := sc.world.fly.DeleteMachine(t.Context(), testApp, sc.s.MachineID, true, ""); err != nil {
					t.Fatal(err)
				}
			}
			sc.full(map[string]string{"fra": "host"})
			go func() {
				sc.until("the line", func() bool { return sc.told(lineFull) })
				sc.full(map[string]string{})
			}()
			if out := sc.turn("two"); out.Answer != "answer to two" || sc.s.VolumeID != volume || sc.s.Region != "fra" {
				t.Errorf("RunTurn = %+v on %s in %s, want it on %s", out, sc.s.VolumeID, sc.s.Region, volume)
			}
			sc.have(1, 1)
		})
	}
}

// TestOperatorIsTold: what does not pass before whoever runs the bot has done something is said so at once, and logged for them with its request.
func TestOperatorIsTold(t *testing.T) {
	t.Parallel()
	refusal := func(status int, text string) map[string]any {
		return map[string]any{"method": "volume.create", "status": status, "body": `{"error":"` + text + `"}`}
	}
	for name, c := range map[string]struct {
		full  map[string]string
		fault map[string]any
		want  Failure
		op    string
	}{
		"the quota of all regions":  {full: map[string]string{"*": "quota"}, want: FailQuota, op: "create machine"},
		"a payment method":          {full: map[string]string{"fra": "payment"}, want: FailPayment, op: "create machine"},
		"payment for volumes":       {full: map[string]string{"fra": "account"}, want: FailPayment, op: "create volume"},
		"a token that is no good":   {fault: refusal(401, "Authenticate: token validation error"), want: FailFlyAccess, op: "create volume"},
		"a token without the right": {fault: refusal(403, "unauthorized"), want: FailFlyAccess, op: "create volume"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log lockedLog
			sc := newWorld(t).script(func(cfg *MachinesConfig) {
				cfg.Regions, cfg.Log = []string{"fra", "ams"}, slog.New(slog.NewJSONHandler(&log, nil))
			})
			sc.full(c.full)
			if c.fault != nil {
				sc.faults(c.fault)
			}
			out, _ := sc.unsettled(sc.run("one"))
			if out.Failure != c.want || sc.runner.ran("turn-1") != 0 || len(sc.notes) > 0 {
				t.Errorf("RunTurn = %+v, told %q; want %s at once", out, sc.notes, c.want)
			}
			sc.have(0, 0)
			said := slices.DeleteFunc(bytes.Split([]byte(log.String()), []byte("\n")), func(line []byte) bool { return !bytes.Contains(line, []byte("turn failed around its machine")) })
			var line struct {
				Level     string `json:"level"`
				Failure   string `json:"failure"`
				Op        string `json:"fly_op"`
				RequestID string `json:"fly_request"`
				Status    int    `json:"fly_status"`
			}
			if len(said) != 1 || json.Unmarshal(said[0], &line) != nil || line.Level != "ERROR" || line.Failure != string(c.want) || line.Status < 400 ||
				!strings.HasPrefix(line.Op, c.op) || line.RequestID == "" && c.fault == nil {
				t.Errorf("the log says %s", said)
			}
		})
	}
}
