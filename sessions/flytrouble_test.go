package sessions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
	"flaudebot/runner"
)

const (
	lineSilence  = "Fly does not answer just now"
	lineSlower   = "Fly asks to go slower"
	lineHeld     = "another tool holds the machine"
	lineHost     = "the machine's host at Fly does not answer just now"
	lineChanging = "Fly is still changing the machine"
)

// TestAnswersLost: a request took effect and its answer was lost, whichever it was. The turns run once and are answered once, and
// nothing is left.
func TestAnswersLost(t *testing.T) {
	t.Parallel()
	lost := func(call string, nth int) map[string]any {
		return map[string]any{"method": call, "nth": nth, "drop": true, "after_effect": true}
	}
	deaf := map[string]any{"method": "machine.exec", "nth": 3, "status": 503} // the acknowledgement: then the machine is stopped from outside
	for name, c := range map[string]struct{ first, second, end []map[string]any }{
		"create app":               {first: []map[string]any{lost("app.create", 1)}},
		"create volume":            {first: []map[string]any{lost("volume.create", 1)}},
		"create machine":           {first: []map[string]any{lost("machine.create", 1)}},
		"lease":                    {first: []map[string]any{lost("machine.lease", 1)}},
		"lease of a woken machine": {second: []map[string]any{lost("machine.lease", 1)}},
		"start":                    {second: []map[string]any{lost("machine.start", 1)}},
		"exec: take":               {first: []map[string]any{lost("machine.exec", 1)}, second: []map[string]any{lost("machine.exec", 1)}},
		"exec: events":             {first: []map[string]any{lost("machine.exec", 2)}},
		"exec: ack":                {first: []map[string]any{lost("machine.exec", 3)}},
		"stop":                     {first: []map[string]any{deaf, lost("machine.stop", 1)}},
		"delete machine":           {end: []map[string]any{lost("machine.delete", 1)}},
		"delete volume":            {end: []map[string]any{lost("volume.delete", 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newReal(t, func(_ *ServiceConfig, m *MachinesConfig) {
				if name == "create app" {
					m.App = "other"
				}
			})
			for i, faults := range [][]map[string]any{c.first, c.second} {
				if i > 0 && faults == nil {
					continue
				}
				for _, f := range faults {
					b.faults(f)
				}
				one := b.say(fmt.Sprint(101+i), fmt.Sprintf("prompt %d", i))
				b.ranOnce(one, b.answered(b.r, one))
				if name != "create app" {
					b.atRest()
				}
				b.toldOnly(2, lineSilence, lineHeld)
			}
			for _, f := range c.end {
				b.faults(f)
			}
			if c.end != nil {
				b.end()
				b.gone()
			}
		})
	}
}

// storm is a Fly that is of no use for a while.
type storm struct {
	line  string // that people are told; "": none
	begin func(*rig)
}

func faulty(fault map[string]any) func(*rig) { return func(b *rig) { b.faults(fault) } }

// TestFlyStorms: Fly is of no use at any time of a session's life: before it has a machine, while that sleeps, in mid-turn for longer
// than the machine's lease lasts, when a turn settles and at its end. Everything goes on when Fly is back, and people are told one
// line meanwhile.
func TestFlyStorms(t *testing.T) {
	t.Parallel()
	calm := func(b *rig) { b.faults(nil); b.refused.Store(false) }
	for name, s := range map[string]storm{
		"429":                 {line: lineSlower, begin: faulty(map[string]any{"status": 429})},
		"503":                 {line: lineSilence, begin: faulty(map[string]any{"status": 503})},
		"connections refused": {line: lineSilence, begin: func(b *rig) { b.refused.Store(true) }},
		"a page of HTML":      {line: lineSilence, begin: faulty(map[string]any{"status": 200, "body": "<html>welcome</html>"})},
		"slow answers":        {begin: faulty(map[string]any{"delay_ms": 300})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newReal(t, func(_ *ServiceConfig, m *MachinesConfig) { m.LeaseTTL = time.Second })
			blow := func() {
				if s.line != "" {
					b.until("the line", func() bool { return b.line() == s.line })
				}
			}
			s.begin(b) // nothing is made yet
			one := b.say("101", "one")
			blow()
			calm(b)
			b.ranOnce(one, b.answered(b.r, one))
			b.atRest()

			s.begin(b) // its machine sleeps
			two := b.say("102", "hold two")
			blow()
			calm(b)
			b.begun("hold two")
			s.begin(b) // it is at work, and is being asked
			b.cut()
			blow()
			if s.line != "" { // for as long as it takes to lose the lease
				id := b.r.session().MachineID
				b.until("a machine that nobody holds", func() bool { return !b.leased(id) })
			}
			b.goOn()
			b.until("the outcome", func() bool { return b.outcomes() == 2 })
			calm(b)
			b.ranOnce(two, b.answered(b.r, two))
			b.atRest()

			three := b.say("103", "three") // it settles
			b.until("the answer", func() bool {
				if len(b.front.of(three.ID, "live")) > 0 && b.askedClaude("three") > 0 && b.outcomes() == 3 {
					s.begin(b)
				}
				return len(b.front.of(three.ID, "2")) > 0 || b.line() != ""
			})
			calm(b)
			b.ranOnce(three, b.answered(b.r, three))
			b.atRest()

			s.begin(b) // it ends
			tries := b.tries.Load()
			b.end()
			b.until("two tries", func() bool { return b.tries.Load() >= tries+2 })
			calm(b)
			b.gone()
			b.toldOnly(5, s.line, lineHeld, lineSilence) // five storms, and what was on its way is cut
		})
	}
}

// leased looks in the local Fly's own state whether somebody holds a machine.
func (b *rig) leased(id string) bool {
	raw, err := os.ReadFile(filepath.Join(b.dir, "state.json"))
	var state struct {
		Machines map[string]struct {
			Lease *struct {
				ExpiresAt int64 `json:"expires_at"`
			} `json:"local_lease"`
		} `json:"machines"`
	}
	if err != nil || json.Unmarshal(raw, &state) != nil {
		return true // it is being written
	}
	m, ok := state.Machines[id]
	return !ok || m.Lease != nil && m.Lease.ExpiresAt > time.Now().Unix()
}

// TestFlyAtRandom: many turns over a Fly that fails at random, where calls take effect and where they do not: nothing runs twice,
// nothing is answered twice, nothing is left. FLAUDEBOT_TEST_SEED repeats a run, FLAUDEBOT_TEST_TURNS makes it longer.
func TestFlyAtRandom(t *testing.T) {
	t.Parallel()
	seed, turns := uint64(time.Now().UnixNano()), 4
	if text := os.Getenv("FLAUDEBOT_TEST_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("FLAUDEBOT_TEST_TURNS"); text != "" {
		if _, err := fmt.Sscan(text, &turns); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("FLAUDEBOT_TEST_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	calls := []string{
		"machine.exec", "machine.exec", "machine.wait", "machine.wait", "machine.get", "machine.start", "machine.lease", "machine.stop",
		"volume.create", "volume.list", "machine.create", "machine.list", "machine.delete", "volume.delete", "app.get",
	}
	kinds := []map[string]any{
		{"status": 408},
		{"status": 408, "after_effect": true},
		{"drop": true},
		{"drop": true, "after_effect": true},
		{"status": 503},
		{"status": 429},
		{"delay_ms": 200},
		{"status": 200, "body": "<html></html>"},
	}
	b := newReal(t, func(_ *ServiceConfig, m *MachinesConfig) { m.LeaseTTL = time.Second })
	spoil := func() {
		for range 4 {
			fault := map[string]any{"method": calls[rnd.IntN(len(calls))], "nth": 1 + rnd.IntN(3)}
			maps.Copy(fault, kinds[rnd.IntN(len(kinds))])
			t.Logf("fault: %v", fault)
			b.faults(fault)
		}
	}
	for i := range turns {
		spoil()
		one := b.say(fmt.Sprint(101+i), fmt.Sprintf("prompt %d", i))
		b.ranOnce(one, b.answered(b.r, one))
		if rnd.IntN(3) == 0 {
			b.end()
			b.idle(b.r)
		}
	}
	b.faults(nil)
	b.idle(b.r)
	if _, err := b.r.End(t.Context(), thread(), "U1", ""); err == nil {
		b.idle(b.r)
	}
	// What an answer that was lost has left is nobody's, and the reaper's.
	for hour := 1; hour < 4; hour++ {
		b.reap(b.r, time.Now().Add(time.Duration(hour)*2*time.Hour))
	}
	b.have(0, 0)
}

// TestMachineStuck: a machine that does not leave a state is waited for, and people are told so; when it does not for as long as a boot
// may take, it is replaced by another one on the same volume.
func TestMachineStuck(t *testing.T) {
	t.Parallel()
	lines := map[string]string{
		"starting": "Fly is still starting the machine", "stopping": "Fly is still stopping the machine",
		"replacing": lineChanging, "destroying": "Fly is still removing the old machine", "created": "Fly is still starting the machine",
	}
	for state, line := range lines {
		for _, forever := range []bool{false, true} {
			name := state + ", for a while"
			if forever {
				name = state + ", for ever"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				local := localfly.Config{Runner: []string{"/bin/sh", "-c", mainProcess}}
				if state == "created" { // for long enough to be kept in it
					local.BootDelay = 3 * time.Second
				}
				sc := newWorldOn(t, local).script(func(cfg *MachinesConfig) {
					cfg.BootTimeout = time.Minute
					if forever {
						cfg.BootTimeout, cfg.Patience = 8*time.Second, 100*time.Millisecond
					}
				})
				before := ""
				if state == "created" { // its creation was the last thing that Fly did
					if err := sc.m.Create(t.Context(), &sc.s, sc.save); err != nil {
						t.Fatal(err)
					}
					before = sc.s.MachineID
					sc.local("trouble", map[string]any{"machine": before, "stuck_in": state})
					if got := sc.state(); got != state {
						t.Skipf("left out: it is %s already", got)
					}
				} else {
					sc.turn("zero")
					before = sc.s.MachineID
					sc.local("trouble", map[string]any{"machine": before, "stuck_in": state})
					sc.drive(t, state)
				}
				r := sc.run("one")
				if forever && state == "destroying" { // its volume is in it: nothing can take its place
					out, _ := sc.unsettled(r)
					if out.Failure != FailNotUp || !sc.told(line) {
						t.Errorf("RunTurn = %+v, told %q; want %s", out, sc.notes, FailNotUp)
					}
					sc.local("trouble", map[string]any{"machine": before})
					if out := sc.turn("two"); out.Answer != "answer to two" {
						t.Errorf("when it is gone: RunTurn = %+v", out)
					}
					sc.have(1, 1)
					return
				}
				if !forever {
					sc.m.cfg.BootTimeout = 40 * time.Second
					go func() {
						sc.until("the line", func() bool { return sc.told(line) })
						sc.local("trouble", map[string]any{"machine": before})
					}()
				}
				out, nonce := sc.unsettled(r)
				if out.Answer != "answer to one" || sc.runner.ran(r.Turn) != 1 || !sc.told(line) {
					t.Errorf("RunTurn = %+v after %d runs, told %q", out, sc.runner.ran(r.Turn), sc.notes)
				}
				sc.quiet()
				if kept := sc.s.MachineID == before; kept == (forever || state == "destroying") {
					t.Errorf("it ran on %s, before it was %s", sc.s.MachineID, before)
				}
				if err := sc.m.Settle(t.Context(), sc.s, r.Turn, 9, nonce); err != nil {
					t.Errorf("Settle = %v", err)
				}
				sc.have(1, 1)
			})
		}
	}
}

// drive has somebody bring the session's machine into a state.
func (sc *script) drive(t *testing.T, state string) {
	t.Helper()
	id := sc.s.MachineID
	switch state {
	case "starting", "stopping":
		if err := sc.world.fly.StartMachine(t.Context(), testApp, id, ""); err != nil {
			t.Fatal(err)
		}
		if state == "starting" {
			break
		}
		sc.until("a started machine", func() bool { return sc.state() == "started" })
		if err := sc.world.fly.StopMachine(t.Context(), testApp, id, fly.StopMachine{Signal: "SIGKILL"}, ""); err != nil {
			t.Fatal(err)
		}
	case "replacing":
		sc.update(t, "")
	case "destroying":
		if err := sc.world.fly.DeleteMachine(t.Context(), testApp, id, true, ""); err != nil {
			t.Fatal(err)
		}
	}
	sc.until(state, func() bool { return sc.state() == state })
}

// update has somebody update the session's machine, which restarts it.
func (sc *script) update(t *testing.T, nonce string) {
	t.Helper()
	mach, err := sc.world.fly.Machine(context.WithoutCancel(t.Context()), testApp, sc.s.MachineID)
	if err == nil {
		_, err = sc.world.fly.UpdateMachine(context.WithoutCancel(t.Context()), testApp, mach.ID, fly.UpdateMachine{Config: mach.Config}, nonce)
	}
	if err != nil {
		t.Errorf("update = %v", err)
	}
}

// TestMachineByHand: somebody stops or updates the machine in mid-turn: the turn is told as interrupted, and not run again.
func TestMachineByHand(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(*testing.T, *script, string){
		"stopped": func(t *testing.T, sc *script, nonce string) {
			if err := sc.world.fly.StopMachine(context.WithoutCancel(t.Context()), testApp, sc.s.MachineID, fly.StopMachine{Signal: "SIGKILL"}, nonce); err != nil {
				t.Errorf("StopMachine = %v", err)
			}
		},
		"updated": func(t *testing.T, sc *script, nonce string) { sc.update(t, nonce) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			r := sc.run("hold on")
			nonce := ""
			r.KeepNonce = func(_ context.Context, n string) error { nonce = n; return nil }
			r.Stage = func(_ context.Context, s Stage) error {
				if s == StageStarted {
					act(t, sc, nonce)
				}
				return nil
			}
			out, err := sc.m.RunTurn(t.Context(), &sc.s, r)
			if err != nil || out.Failure != FailMachine || out.ExitCode == 0 || sc.runner.ran(r.Turn) != 1 {
				t.Errorf("RunTurn = %+v, %v after %d runs, want %s", out, err, sc.runner.ran(r.Turn), FailMachine)
			}
			if err := sc.m.Settle(t.Context(), sc.s, r.Turn, 1, nonce); err != nil {
				t.Errorf("Settle = %v", err)
			}
			if out := sc.turn("two"); out.Answer != "answer to two" {
				t.Errorf("the next turn ended with %+v", out)
			}
			sc.have(1, 1)
		})
	}
}

// TestForeignLease: somebody else holds the machine for longer than anybody waits: the thread is told who.
func TestForeignLease(t *testing.T) {
	t.Parallel()
	sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = 4 * time.Second })
	sc.turn("one")
	lease, err := sc.world.fly.AcquireLease(t.Context(), testApp, sc.s.MachineID, time.Hour, "flyctl")
	if err != nil {
		t.Fatal(err)
	}
	out, _ := sc.unsettled(sc.run("two"))
	if out.Failure != FailFly || !strings.Contains(out.Error, "currently held by local@localhost, expires at") || !sc.told(lineHeld) || sc.runner.ran("turn-2") != 0 {
		t.Errorf("RunTurn = %+v, told %q; want that it says who holds the machine", out, sc.notes)
	}
	if err := sc.world.fly.ReleaseLease(t.Context(), testApp, sc.s.MachineID, lease.Nonce); err != nil {
		t.Fatal(err)
	}
	if out := sc.turn("three"); out.Answer != "answer to three" {
		t.Errorf("when it is free: RunTurn = %+v", out)
	}
	sc.have(1, 1)
}

// TestHostAway: the machine's host cannot be reached.
func TestHostAway(t *testing.T) {
	t.Parallel()
	t.Run("while it sleeps: it is waited for, and goes on when it is back", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		sc.local("trouble", map[string]any{"machine": sc.s.MachineID, "host": "unreachable"})
		go func() {
			sc.until("the line", func() bool { return sc.told(lineHost) })
			sc.local("trouble", map[string]any{"machine": sc.s.MachineID})
		}()
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("RunTurn = %+v", out)
		}
		sc.have(1, 1)
	})
	t.Run("for days: that is said, and nothing is made in its place", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = time.Second })
		sc.turn("one")
		sc.local("trouble", map[string]any{"machine": sc.s.MachineID, "host": "unreachable"})
		r := sc.run("two")
		r.Away, r.NoWait = true, true
		if out, _ := sc.unsettled(r); out.Failure != FailHost || !strings.Contains(out.Error, "host cannot be reached") {
			t.Errorf("RunTurn = %+v, want %s", out, FailHost)
		}
		sc.local("trouble", map[string]any{"machine": sc.s.MachineID})
		if out := sc.turn("three"); out.Answer != "answer to three" {
			t.Errorf("when it is back: RunTurn = %+v", out)
		}
		sc.have(1, 1)
	})
	t.Run("for longer than a turn is patient: the queue is kept, others go on meanwhile, and it goes on when it is back", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(cfg *ServiceConfig, m *MachinesConfig) {
			cfg.AwayEvery, m.Patience = 200*time.Millisecond, 500*time.Millisecond
			cfg.Queue = b.queue(cfg.Redis, 1) // one place for all threads
		}).start()
		b.answered(r, r.accept(turn("101", "zero", true)))
		id := r.session().MachineID
		b.local("trouble", map[string]any{"machine": id, "host": "unreachable"})
		first, second := r.accept(turn("102", "one", false)), r.accept(turn("103", "two", false))
		b.until("the line", func() bool { return slices.Contains(b.front.told(), lineHost) })

		other := turn("201", "other", true)
		other.Thread.TS, other.ID = "200.000001", "T1:C1:201"
		r.accept(other)
		b.until("the answer in another thread", func() bool { return len(b.front.of(other.ID, "2")) > 0 })
		b.until("two more looks", func() bool { return b.asked("GET /v1/apps/acme/machines/"+id) > 8 })
		if posts := b.front.of(first.ID, "1"); len(posts) > 0 || b.runner.ran(first.ID) > 0 {
			t.Errorf("the turn ended meanwhile, with %+v", posts)
		}
		b.local("trouble", map[string]any{"machine": id})
		b.answered(r, second)
		for _, one := range []Turn{first, second} {
			b.wasOnce(one)
			if out := b.front.of(one.ID, "1")[0].outcome; out.Answer != "answer to "+one.Text {
				t.Errorf("%s ended with %+v", one.ID, out)
			}
		}
		b.have(2, 2)
	})
	t.Run("a turn that waits for it can be stopped", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(cfg *ServiceConfig, m *MachinesConfig) {
			cfg.AwayEvery, m.Patience = time.Hour, 500*time.Millisecond
		}).start()
		b.answered(r, r.accept(turn("101", "zero", true)))
		id := r.session().MachineID
		b.local("trouble", map[string]any{"machine": id, "host": "unreachable"})
		one := r.accept(turn("102", "one", false))
		b.until("it is put off", func() bool {
			st, err := r.Status(t.Context(), thread())
			return err == nil && st.Running == nil && len(st.Queued) == 1 && slices.Contains(b.front.told(), lineHost)
		})
		if told := b.front.told(); told[len(told)-1] != lineHost {
			t.Errorf("the thread shows %q last, want %q", told[len(told)-1], lineHost)
		}
		if _, running, err := r.Cancel(t.Context(), thread(), one.ID); err != nil || !running {
			t.Fatalf("Cancel = %v, %v", running, err)
		}
		if out := b.answered(r, one); out.Failure != runner.FailStopped || b.runner.ran(one.ID) != 0 {
			t.Errorf("it ended with %+v", out)
		}
		b.local("trouble", map[string]any{"machine": id})
	})
	t.Run("a volume without a machine waits for it as well", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(func(cfg *ServiceConfig, m *MachinesConfig) {
			cfg.AwayEvery, m.Patience = 200*time.Millisecond, 500*time.Millisecond
		}).start()
		b.answered(r, r.accept(turn("101", "zero", true)))
		s := *r.session()
		b.until("its lease is over", func() bool { return b.fly.DeleteMachine(t.Context(), testApp, s.MachineID, true, "") == nil })
		b.until("no machine", func() bool { return len(b.machinesIn(testApp)) == 0 })
		b.answering(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, "/volumes/"+s.VolumeID) {
				return false
			}
			fmt.Fprintf(w, `{"id":%q,"name":%q,"state":"created","size_gb":1,"region":"fra","host_status":"unreachable"}`, s.VolumeID, volumeName(s.SessionID))
			return true
		})
		one := r.accept(turn("102", "one", false))
		b.until("the line", func() bool { return slices.Contains(b.front.told(), lineHost) })
		b.answering(nil)
		if out := b.answered(r, one); out.Answer != "answer to one" || r.session().VolumeID != s.VolumeID {
			t.Errorf("it ended with %+v", out)
		}
		b.have(1, 1)
	})
	t.Run("in mid-turn: the turn is followed when it is back", func(t *testing.T) {
		t.Parallel()
		b := newReal(t, nil)
		one := b.say("101", "hold one")
		b.begun("hold one")
		id := b.r.session().MachineID
		b.local("trouble", map[string]any{"machine": id, "host": "unreachable"})
		b.cut()
		b.until("the line", func() bool { return b.line() == lineHost })
		b.goOn()
		b.until("the outcome", func() bool { return b.outcomes() == 1 })
		b.local("trouble", map[string]any{"machine": id})
		b.ranOnce(one, b.answered(b.r, one))
		b.atRest()
		b.toldOnly(1, lineHost)
	})
}

// TestListsLie: lists of Fly lack what there is.
func TestListsLie(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]map[string]any{
		"empty":        {"empty_lists": 3, "no_volumes": 1},
		"not yet true": {"new_ms": 60_000},
	} {
		t.Run(name+", and the answer of the machine's creation is lost: it is found by its name", func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			sc.local("trouble", trouble)
			sc.faults(map[string]any{"method": "machine.create", "nth": 1, "drop": true, "after_effect": true})
			if out := sc.turn("one"); out.Answer != "answer to one" {
				t.Errorf("RunTurn = %+v", out)
			}
			sc.local("trouble", map[string]any{})
			sc.have(1, 1)
		})
	}
	t.Run("not yet true, and the answer of the volume's creation is lost: the second one is used, and the first goes with the sweep", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.local("trouble", map[string]any{"new_ms": 60_000})
		b.faults(map[string]any{"method": "volume.create", "nth": 1, "drop": true, "after_effect": true})
		one := r.accept(turn("101", "one", true))
		if out := b.answered(r, one); out.Answer != "answer to one" {
			t.Errorf("the outcome is %+v", out)
		}
		b.wasOnce(one)
		b.local("trouble", map[string]any{})
		b.have(1, 2)
		b.reap(r, time.Now().Add(2*sweepGrace))
		b.have(1, 1)
		if v := b.volumesIn(testApp); len(v) == 1 && v[0].ID != r.session().VolumeID {
			t.Errorf("%s is left, want %s", v[0].ID, r.session().VolumeID)
		}
	})
}

// TestVolumeLost: the volume is gone, with its machine still there: that is said, and the thread goes on with a fresh conversation.
func TestVolumeLost(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	r := b.replica(nil).start()
	b.answered(r, r.accept(turn("101", "one", true)))
	old := r.session()
	b.local("trouble", map[string]any{"machine": old.MachineID, "volume_gone": true})
	two := r.accept(turn("102", "two", false))
	if out := b.answered(r, two); out.Failure != FailLost || b.runner.ran(two.ID) != 0 {
		t.Errorf("the outcome is %+v, want %s", out, FailLost)
	}
	three := r.accept(turn("103", "three", false))
	if out := b.answered(r, three); out.Answer != "answer to three" || r.session().SessionID == old.SessionID {
		t.Errorf("the next turn ended with %+v", out)
	}
	b.reap(r, time.Now().Add(time.Hour))
	b.have(1, 1)
	if m := b.machinesIn(testApp); len(m) == 1 && m[0].ID != r.session().MachineID {
		t.Errorf("%s is left, want %s", m[0].ID, r.session().MachineID)
	}
}

// TestMarksTaken: somebody edits the marks of a session's machine: its thread goes on with it, it gets them back, and it goes with its session.
func TestMarksTaken(t *testing.T) {
	t.Parallel()
	unmark := func(t *testing.T, sc *script) {
		t.Helper()
		for _, key := range []string{MetaManaged, MetaSession, MetaThread} {
			if err := sc.world.fly.DeleteMetadata(t.Context(), testApp, sc.s.MachineID, key); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("the next turn gives them back", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		before, err := sc.world.fly.Metadata(t.Context(), testApp, sc.s.MachineID)
		if err != nil {
			t.Fatal(err)
		}
		unmark(t, sc)
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("RunTurn = %+v", out)
		}
		for key, want := range before {
			if after, err := sc.world.fly.Metadata(t.Context(), testApp, sc.s.MachineID); err != nil || after[key] != want {
				t.Errorf("its mark %s is %q, %v, want %q", key, after[key], err, want)
			}
		}
		sc.have(1, 1)
	})
	t.Run("a machine that is not on record is known by its volume", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		unmark(t, sc)
		was := sc.s.MachineID
		sc.s.MachineID = ""
		if out := sc.turn("two"); out.Answer != "answer to two" || sc.s.MachineID != was {
			t.Errorf("RunTurn = %+v on %s, want %s", out, sc.s.MachineID, was)
		}
		sc.have(1, 1)
	})
	t.Run("the end removes it all the same", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		unmark(t, sc)
		if err := sc.m.Destroy(t.Context(), sc.s); err != nil {
			t.Errorf("Destroy = %v", err)
		}
		sc.have(0, 0)
	})
}

// TestStartRefused: Fly does not start a machine, in its own words for it: that is waited out.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		line   string
	}{
		"412: it is still active":       {412, ""}, // the client waits that out by itself
		"409: its host has no room":     {409, "Fly has no room just now"},
		"408: its host does not answer": {408, lineSilence},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			sc.turn("one")
			for range 2 {
				sc.faults(map[string]any{"method": "machine.start", "nth": 1, "status": c.status})
			}
			if out := sc.turn("two"); out.Answer != "answer to two" || c.line != "" && !sc.told(c.line) {
				t.Errorf("RunTurn = %+v, told %q, want %q", out, sc.notes, c.line)
			}
			sc.have(1, 1)
		})
	}
}

// TestMachineKilled: the machine is killed at each point of a turn that can be seen from here. What had not begun runs once, what had
// is told as interrupted and not run again, what had ended is answered.
func TestMachineKilled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at     string // the machine dies when this is asked of its runner; "": while is awaited
		while  func(*rig)
		prompt string
		clones bool
		answer bool
		ran    int
	}{
		"before it was given the turn":     {at: "take", prompt: "one", answer: true, ran: 1},
		"while it clones":                  {while: func(b *rig) { b.until("a clone", b.cloning) }, prompt: "one", clones: true},
		"while Claude works":               {while: func(b *rig) { b.begun("hold one") }, prompt: "hold one", ran: 1},
		"when the turn has ended":          {at: "events", while: func(b *rig) { b.until("the outcome", func() bool { return b.outcomes() == 1 }) }, prompt: "one", answer: true, ran: 1},
		"while the acknowledgement is due": {at: "ack", prompt: "one", answer: true, ran: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newReal(t, func(_ *ServiceConfig, m *MachinesConfig) {
				if c.clones {
					m.Repos = []runner.Repo{{URL: "https://127.0.0.1:1/none.git"}}
				}
			})
			killed := false
			kill := func() {
				if !killed {
					killed = true
					b.local("kill", map[string]any{"machine": b.machinesIn(testApp)[0].ID})
				}
			}
			if c.at != "" {
				b.answering(func(_ http.ResponseWriter, r *http.Request) bool {
					if verbOf(r) == c.at && !killed {
						if c.while != nil {
							c.while(b)
						}
						kill()
					}
					return false
				})
			}
			one := b.say("101", c.prompt)
			if c.at == "" {
				c.while(b)
				kill()
			}
			out := b.answered(b.r, one)
			if c.answer {
				b.ranOnce(one, out)
			} else {
				b.postedOnce(one)
				if n := b.askedClaude(c.prompt); n != c.ran || out.Failure != FailMachine || out.ExitCode == 0 {
					t.Errorf("it ran %d times and ended with %+v, want %d and %s", n, out, c.ran, FailMachine)
				}
			}
			b.atRest()
			b.goOn()
			if c.clones {
				return // there is nothing to clone from
			}
			two := b.say("102", "two")
			b.ranOnce(two, b.answered(b.r, two))
			b.atRest()
		})
	}
}

func (b *rig) cloning() bool {
	return slices.ContainsFunc(b.volumes(), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "cloning"))
		return err == nil
	})
}

// verbOf is what an exec asks of the runner; "": it is no exec.
func verbOf(r *http.Request) string {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/exec") {
		return ""
	}
	raw, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(raw))
	var in struct {
		Command []string `json:"command"`
	}
	if err != nil || json.Unmarshal(raw, &in) != nil || len(in.Command) < 4 {
		return ""
	}
	return in.Command[3]
}

// TestNothingIsDropped: what is said while the machine boots, or while a turn is stuck, waits for its turn and is answered, in order.
func TestNothingIsDropped(t *testing.T) {
	t.Parallel()
	inOrder := func(b *bot, turns []Turn) {
		b.t.Helper()
		b.front.mu.Lock()
		defer b.front.mu.Unlock()
		var order []TurnID
		for _, p := range b.front.posts {
			if p.part == "2" {
				order = append(order, p.turn)
			}
		}
		for i, one := range turns {
			if i >= len(order) || order[i] != one.ID {
				b.t.Fatalf("the answers came as %v", order)
			}
		}
	}
	t.Run("two replies while the first machine is made", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		one, two, three := r.accept(turn("101", "one", true)), turn("102", "two", false), turn("103", "three", false)
		var said sync.Once
		b.answering(func(_ http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/machines") {
				said.Do(func() { r.accept(two); r.accept(three) })
			}
			return false
		})
		r.start()
		b.answered(r, three)
		turns := []Turn{one, two, three}
		for _, one := range turns {
			b.wasOnce(one)
		}
		inOrder(b, turns)
		b.have(1, 1)
	})
	t.Run("five behind one that fails", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		b.faults(map[string]any{"method": "machine.create", "status": 409})
		r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) {
			m.Patience, m.LeaseTTL, m.Settings.LingerSeconds = 5*time.Second, time.Second, 60
		})
		var turns []Turn
		for i := range 6 {
			turns = append(turns, r.accept(turn(fmt.Sprint(101+i), fmt.Sprint(i), true)))
		}
		r.start()
		b.until("the first end", func() bool { return len(b.front.of(turns[0].ID, "2")) > 0 })
		b.faults(nil)
		b.answered(r, turns[5])
		if out := b.front.of(turns[0].ID, "1")[0].outcome; out.Failure != FailCapacity {
			t.Errorf("the first ended with %+v, want %s", out, FailCapacity)
		}
		for _, one := range turns[2:] { // the second may have met the end of the trouble
			b.wasOnce(one)
		}
		inOrder(b, turns)
		b.have(1, 1)
	})
}
