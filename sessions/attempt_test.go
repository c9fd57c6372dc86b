package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

func TestTurns(t *testing.T) {
	t.Parallel()
	sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Repos = []runner.Repo{{URL: "/repo"}} })
	t.Run("the first turn makes volume and machine", func(t *testing.T) {
		out := sc.turn("one")
		if out.ExitCode != 0 || out.Answer != "answer to one" || out.CostUSD != 0.5 || !out.EndedAt.After(out.StartedAt) {
			t.Errorf("RunTurn = %+v", out)
		}
		sc.have(1, 1)
		if sc.saved.MachineID != sc.s.MachineID || sc.saved.VolumeID != sc.s.VolumeID || !sc.saved.Handed {
			t.Errorf("on record is %+v, want %+v", sc.saved, sc.s)
		}
	})
	t.Run("the machine is left stopped, and nobody holds it", func(t *testing.T) {
		if state := sc.state(); state != "stopped" {
			t.Errorf("the machine is %s", state)
		}
		if _, err := sc.world.fly.AcquireLease(t.Context(), testApp, sc.s.MachineID, time.Second, "other"); err != nil {
			t.Errorf("its lease: %v", err)
		}
	})
	t.Run("a follow-up wakes the stopped machine and never updates its config", func(t *testing.T) {
		before, err := sc.world.fly.Machine(t.Context(), testApp, sc.s.MachineID)
		if err != nil {
			t.Fatal(err)
		}
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("RunTurn = %+v", out)
		}
		after, err := sc.world.fly.Machine(t.Context(), testApp, sc.s.MachineID)
		if err != nil || after.InstanceID != before.InstanceID {
			t.Errorf("its version is %s after %s, %v", after.InstanceID, before.InstanceID, err)
		}
		sc.have(1, 1)
		if n := sc.asked("POST /v1/apps/acme/machines/" + sc.s.MachineID + " "); n != 0 {
			t.Errorf("it was updated %d times", n)
		}
		if n := sc.asked("POST /v1/apps/acme/machines/" + sc.s.MachineID + "/start"); n == 0 {
			t.Error("it was not started")
		}
		if state := sc.state(); state != "stopped" {
			t.Errorf("it is %s afterwards", state)
		}
	})
	t.Run("both turns are of one conversation, whose repositories need not be repeated", func(t *testing.T) {
		takes := sc.runner.taken()
		if len(takes) != 2 {
			t.Fatalf("%d turns were handed over, want 2", len(takes))
		}
		for _, take := range takes {
			if take.Turn.SessionID != sc.s.SessionID || len(take.Turn.Repos) != 1 || take.Turn.Repos[0].URL != "/repo" {
				t.Errorf("the runner was handed %+v", take.Turn)
			}
		}
	})
	t.Run("settling again changes nothing", func(t *testing.T) {
		for range 2 {
			if err := sc.m.Settle(t.Context(), sc.s, "turn-2", 2, ""); err != nil {
				t.Errorf("Settle = %v", err)
			}
		}
		if state := sc.state(); state != "stopped" {
			t.Errorf("it is %s afterwards", state)
		}
	})
}

// TestTurnIsBegun: what a turn is told and what it tells on its way.
func TestTurnIsBegun(t *testing.T) {
	t.Parallel()
	t.Run("each stage is announced before its effect", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		var seen []string
		r.Stage = func(_ context.Context, s Stage) error {
			switch s {
			case StageStarting:
				if n := sc.asked(postVolume); n != 0 {
					t.Errorf("%d volumes were made before %s", n, s)
				}
			case StageStarted:
				if sc.runner.ran("turn-1") != 1 {
					t.Errorf("%s came before the runner had it", s)
				}
			default:
			}
			seen = append(seen, string(s))
			return nil
		}
		sc.unsettled(r)
		if !slices.Equal(seen, []string{"starting", "started"}) {
			t.Errorf("stages = %v", seen)
		}
	})
	t.Run("a stage that cannot be written ends the attempt, and nothing is made", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		lost := errors.New("lost")
		r.Stage = func(context.Context, Stage) error { return lost }
		if _, err := sc.m.RunTurn(t.Context(), &sc.s, r); !errors.Is(err, lost) {
			t.Errorf("RunTurn = %v, want that it lets go", err)
		}
		sc.have(0, 0)
	})
	t.Run("a record that cannot be saved ends the attempt", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		r.Save = func(context.Context, Session) error { return errStale }
		if _, err := sc.m.RunTurn(t.Context(), &sc.s, r); !errors.Is(err, errStale) {
			t.Errorf("RunTurn = %v, want that it lets go", err)
		}
		if sc.runner.ran("turn-1") != 0 {
			t.Error("the turn ran")
		}
	})
	t.Run("a lease that cannot be noted ends the attempt", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		r.KeepNonce = func(context.Context, string) error { return errStale }
		if _, err := sc.m.RunTurn(t.Context(), &sc.s, r); !errors.Is(err, errStale) {
			t.Errorf("RunTurn = %v, want that it lets go", err)
		}
	})
	t.Run("repositories of the first prompt replace those of the settings, and are on record before the turn", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Repos = []runner.Repo{{URL: "/settings"}} })
		r := sc.run("one")
		r.Prompt = func(_ context.Context, first bool) (Prompt, error) {
			if !first {
				t.Error("the first turn is not told that it is")
			}
			return Prompt{Text: "one", Repos: []runner.Repo{{URL: "/channel"}}}, nil
		}
		sc.unsettled(r)
		if got := sc.runner.taken()[0].Turn.Repos; len(got) != 1 || got[0].URL != "/channel" {
			t.Errorf("the runner was handed %v", got)
		}
		if len(sc.saved.Repos) != 1 || sc.saved.Repos[0].URL != "/channel" {
			t.Errorf("on record are %v", sc.saved.Repos)
		}
	})
	t.Run("attachments and long prompts go in pieces", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		got := map[string]int{}
		sc.runner.answers("put", func() (any, error) { got["pieces"]++; return runner.PutReply{Status: runner.StatusOK}, nil })
		long := strings.Repeat("x", runner.MaxBody)
		r := sc.run(long)
		r.Prompt = func(context.Context, bool) (Prompt, error) {
			body := io.NopCloser(strings.NewReader(strings.Repeat("y", 12*chunk)))
			return Prompt{Text: long, Files: []PromptFile{{Name: "big.txt", Size: 12 * chunk, Open: func(context.Context) (io.ReadCloser, error) { return body, nil }}}}, nil
		}
		sc.unsettled(r)
		take := sc.runner.taken()[0].Turn
		if got["pieces"] != 14 || !take.PromptPut || take.Prompt != "" || len(take.Files) != 1 || take.Files[0].Size != 12*chunk {
			t.Errorf("%d pieces and %+v, want twelve of the file, two of the prompt", got["pieces"], take)
		}
		if !sc.told("bringing big.txt into the workspace, 50 %") {
			t.Errorf("told %v, want how far the file has come", sc.notes)
		}
	})
	t.Run("while Slack is in the way of the prompt it is made again, and the wait is told", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		tries := 0
		r.Prompt = func(context.Context, bool) (Prompt, error) {
			if tries++; tries < 3 {
				return Prompt{}, errors.New("internal_error")
			}
			return Prompt{Text: "one"}, nil
		}
		if out, _ := sc.unsettled(r); out.Answer != "answer to one" || !sc.told("Slack does not answer just now") {
			t.Errorf("RunTurn = %+v after %d tries, told %v", out, tries, sc.notes)
		}
	})
	t.Run("a prompt that cannot be made is Slack's failure, not Fly's", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = time.Second })
		r := sc.run("one")
		r.Prompt = func(context.Context, bool) (Prompt, error) { return Prompt{}, errors.New("internal_error") }
		if out, _ := sc.unsettled(r); out.Failure != FailSlack || out.ExitCode != 1 || sc.runner.ran("turn-1") != 0 {
			t.Errorf("RunTurn = %+v, want %s", out, FailSlack)
		}
	})
	t.Run("a message that is gone is not waited for", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		tries := 0
		r.Prompt = func(context.Context, bool) (Prompt, error) {
			tries++
			return Prompt{}, errors.Join(errors.New("turn-1"), ErrMessageGone)
		}
		if out, _ := sc.unsettled(r); out.Failure != FailGone || tries != 1 || sc.runner.ran("turn-1") != 0 {
			t.Errorf("RunTurn = %+v after %d tries, want %s", out, tries, FailGone)
		}
	})
	t.Run("what JSON makes of a prompt decides whether it goes in pieces", func(t *testing.T) {
		t.Parallel()
		for prompt, inPieces := range map[string]bool{
			strings.Repeat("x", 40<<10):  false,
			strings.Repeat("<", 6<<10):   false, // seven bytes each, in the string that an exec makes of it
			strings.Repeat("<", 8<<10):   true,
			strings.Repeat("\"", 11<<10): false, // four
			strings.Repeat("\"", 14<<10): true,
		} {
			sc := newWorld(t).script(nil)
			sc.runner.answers("put", func() (any, error) { return runner.PutReply{Status: runner.StatusOK}, nil })
			sc.unsettled(sc.run(prompt))
			take := sc.runner.taken()[0]
			inner, err := json.Marshal(take)
			if err != nil {
				t.Fatal(err)
			}
			outer, err := json.Marshal(string(inner))
			if err != nil || len(outer) > runner.MaxBody {
				t.Errorf("%d times %q is a take of %d bytes, %v", len(prompt), prompt[:1], len(outer), err)
			}
			if take.Turn.PromptPut != inPieces {
				t.Errorf("%d times %q in pieces: %v, want %v", len(prompt), prompt[:1], take.Turn.PromptPut, inPieces)
			}
		}
	})
	t.Run("a piece that is refused is told as what is wrong with it", func(t *testing.T) {
		t.Parallel()
		for _, want := range []Failure{runner.FailDisk, runner.FailFile, runner.FailHandover} {
			sc := newWorld(t).script(nil)
			sc.runner.answers("put", func() (any, error) {
				return runner.PutReply{Status: runner.StatusInvalid, Failure: want, Reason: "because"}, nil
			})
			r := sc.run("one")
			r.Prompt = func(context.Context, bool) (Prompt, error) {
				return Prompt{Text: "one", Files: []PromptFile{{Name: "a", Open: func(context.Context) (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader("x")), nil
				}}}}, nil
			}
			if out, _ := sc.unsettled(r); out.Failure != want || !strings.Contains(out.Error, "because") || sc.runner.ran("turn-1") != 0 {
				t.Errorf("RunTurn = %+v, want %s", out, want)
			}
		}
	})
	t.Run("an attachment that cannot be had fails the turn alone", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		r.Prompt = func(context.Context, bool) (Prompt, error) {
			return Prompt{Text: "one", Files: []PromptFile{{Name: "a", Open: func(context.Context) (io.ReadCloser, error) { return nil, errors.New("gone") }}}}, nil
		}
		if out, _ := sc.unsettled(r); out.Failure != runner.FailFile || out.ExitCode != 1 {
			t.Errorf("RunTurn = %+v, want %s", out, runner.FailFile)
		}
	})
}

// TestRunnerStatus: what the runner says to a turn, and what comes of it.
func TestRunnerStatus(t *testing.T) {
	t.Parallel()
	done := &runner.Outcome{ExitCode: 4, Failure: runner.FailClaude, AnswerBytes: 5}
	take := func(s runner.Status) func(*script) {
		return func(sc *script) { sc.runner.once("take", runner.TakeReply{Status: s, Reason: "because"}, nil) }
	}
	refuse := func(f Failure) func(*script) {
		return func(sc *script) {
			sc.runner.once("take", runner.TakeReply{Status: runner.StatusInvalid, Failure: f, Reason: "because"}, nil)
		}
	}
	result := func(s runner.Status) func(*script) {
		return func(sc *script) {
			sc.runner.once("result", runner.ResultReply{Status: s, Outcome: done, Text: "whole"}, nil)
		}
	}
	for name, c := range map[string]struct {
		started bool // an earlier owner saw it start
		steer   func(*script)
		failure Failure
		code    int
		answer  string
		ran     int
		lets    bool
	}{
		"accepted: it is followed": {false, func(*script) {}, runner.FailNone, 0, "answer to one", 1, false},
		"running: it is followed": {false, func(sc *script) {
			sc.runner.once("take", runner.TakeReply{Status: runner.StatusRunning}, nil)
			sc.runner.once("events", runner.EventsReply{Status: runner.StatusDone, Outcome: done, Text: "whole"}, nil)
		}, runner.FailClaude, 4, "whole", 0, false},
		"done: its outcome is read": {false, func(sc *script) {
			take(runner.StatusDone)(sc)
			sc.runner.answers("result", func() (any, error) {
				return runner.ResultReply{Status: runner.StatusDone, Outcome: done, Text: "whole"}, nil
			})
		}, runner.FailClaude, 4, "whole", 0, false},
		"interrupted: it is not run again":                                         {false, take(runner.StatusInterrupted), FailMachine, 1, "", 0, false},
		"fenced: a newer owner has it":                                             {false, take(runner.StatusFenced), "", 0, "", 0, true},
		"invalid: there is nothing to ask":                                         {false, refuse(runner.FailNoPrompt), runner.FailNoPrompt, 1, "", 0, false},
		"invalid: the volume is full":                                              {false, refuse(runner.FailDisk), runner.FailDisk, 1, "", 0, false},
		"invalid: a repository makes no sense":                                     {false, refuse(runner.FailRepos), runner.FailRepos, 1, "", 0, false},
		"invalid: an attachment did not arrive":                                    {false, refuse(runner.FailFile), runner.FailFile, 1, "", 0, false},
		"invalid, by a runner that does not say why: the turn was not handed over": {false, refuse(""), runner.FailHandover, 1, "", 0, false},
		"busy: the other turn is stopped":                                          {false, take(runner.StatusBusy), runner.FailNone, 0, "answer to one", 1, false},
		"started, done: its outcome is read": {true, func(sc *script) {
			sc.runner.answers("result", func() (any, error) {
				return runner.ResultReply{Status: runner.StatusDone, Outcome: done, Text: "whole"}, nil
			})
		}, runner.FailClaude, 4, "whole", 0, false},
		"started, unknown: it is forgotten":         {true, result(runner.StatusUnknown), FailForgotten, 1, "", 0, false},
		"started, interrupted: it is not run again": {true, result(runner.StatusInterrupted), FailMachine, 1, "", 0, false},
		"started, running: it is followed": {true, func(sc *script) {
			result(runner.StatusRunning)(sc)
			sc.runner.once("events", runner.EventsReply{Status: runner.StatusDone, Outcome: done, Text: "whole"}, nil)
		}, runner.FailClaude, 4, "whole", 0, false},
		"unknown while it is followed: it is forgotten": {false, func(sc *script) {
			sc.runner.once("events", runner.EventsReply{Status: runner.StatusUnknown}, nil)
		}, FailForgotten, 1, "", 1, false},
		"interrupted while it is followed: it is not run again": {false, func(sc *script) {
			sc.runner.once("events", runner.EventsReply{Status: runner.StatusInterrupted}, nil)
		}, FailMachine, 1, "", 1, false},
		"done without its answer: that is read in pieces": {false, func(sc *script) {
			sc.runner.once("events", runner.EventsReply{Status: runner.StatusDone}, nil)
			pieces := []string{"who", "le"}
			sc.runner.answers("result", func() (any, error) {
				p := pieces[0]
				pieces = pieces[1:]
				return runner.ResultReply{Status: runner.StatusDone, Outcome: done, Text: p}, nil
			})
		}, runner.FailClaude, 4, "whole", 1, false},
		"an answer that was lost is asked for again": {false, func(sc *script) {
			sc.runner.once("take", nil, fly.ErrTimeout)
		}, runner.FailNone, 0, "answer to one", 1, false},
		"a runner that does not answer is asked again": {false, func(sc *script) {
			sc.runner.once("take", nil, errRunner)
		}, runner.FailNone, 0, "answer to one", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			if c.started {
				if err := sc.m.Create(t.Context(), &sc.s, sc.save); err != nil {
					t.Fatal(err)
				}
			}
			c.steer(sc)
			r := sc.run("one")
			r.Started = c.started
			out, err := sc.m.RunTurn(t.Context(), &sc.s, r)
			if (err != nil) != c.lets {
				t.Fatalf("RunTurn = %+v, %v, want an error: %v", out, err, c.lets)
			}
			if err == nil && (out.Failure != c.failure || out.ExitCode != c.code || out.Answer != c.answer) {
				t.Errorf("RunTurn = %+v, want %q, exit %d and %q", out, c.failure, c.code, c.answer)
			}
			if n := sc.runner.ran("turn-1"); n != c.ran {
				t.Errorf("it ran %d times, want %d", n, c.ran)
			}
		})
	}
	t.Run("busy: what is stopped is the turn that runs, and the wait is told", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		first := sc.run("hold the first")
		ctx, leave := context.WithCancel(t.Context())
		first.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				leave() // its owner leaves, and nobody comes back for it
			}
			return nil
		}
		var nonce string
		first.KeepNonce = func(_ context.Context, n string) error { nonce = n; return nil }
		if _, err := sc.m.RunTurn(ctx, &sc.s, first); err == nil {
			t.Fatal("RunTurn = nil, want that it lets go")
		}
		second := sc.run("two")
		second.Nonce = nonce
		out, _ := sc.unsettled(second)
		if out.Answer != "answer to two" || sc.runner.ran("turn-1") != 1 || sc.runner.ran("turn-2") != 1 {
			t.Errorf("RunTurn = %+v after %d and %d runs", out, sc.runner.ran("turn-1"), sc.runner.ran("turn-2"))
		}
		if !slices.Contains(sc.runner.verbs(), "stop") || !sc.told("an earlier turn is still ending") {
			t.Errorf("verbs = %v, told %v", sc.runner.verbs(), sc.notes)
		}
	})
	t.Run("exiting: the machine is awaited and woken again", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.runner.answers("take", func() (any, error) {
			sc.runner.steer["take"] = nil // once; the runner's lock is held
			return runner.TakeReply{Status: runner.StatusExiting}, nil
		})
		r := sc.run("one")
		r.KeepNonce = func(_ context.Context, nonce string) error { // a runner that says so stops soon
			go func() {
				sc.until("the runner was asked", func() bool { return slices.Contains(sc.runner.verbs(), "take") })
				_ = sc.world.fly.StopMachine(context.WithoutCancel(t.Context()), testApp, sc.s.MachineID, fly.StopMachine{Signal: "SIGTERM"}, nonce)
			}()
			return nil
		}
		if out, err := sc.m.RunTurn(t.Context(), &sc.s, r); err != nil || out.Answer != "answer to one" {
			t.Errorf("RunTurn = %+v, %v", out, err)
		}
		sc.have(1, 1)
	})
	t.Run("a runner that never answers is a machine that failed", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = 3 * time.Second })
		sc.runner.answers("take", func() (any, error) { return nil, errRunner })
		if out, _ := sc.unsettled(sc.run("one")); out.Failure != FailMachine || !sc.told("the machine does not answer yet") {
			t.Errorf("RunTurn = %+v, told %v, want %s", out, sc.notes, FailMachine)
		}
	})
}

// TestMachineDies: a turn whose machine ends under it is not run again, and its outcome tells why.
func TestMachineDies(t *testing.T) {
	t.Parallel()
	started := func(t *testing.T, sc *script, then func(nonce string)) Run {
		t.Helper()
		r := sc.run("hold on")
		nonce := ""
		r.KeepNonce = func(_ context.Context, n string) error { nonce = n; return nil }
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				then(nonce)
			}
			return nil
		}
		return r
	}
	for name, c := range map[string]struct {
		kill    func(*script, string)
		failure Failure
		code    int
	}{
		"killed": {func(sc *script, _ string) {
			sc.local("kill", map[string]any{"machine": sc.s.MachineID})
		}, FailMachine, 137},
		"out of memory": {func(sc *script, _ string) {
			sc.local("kill", map[string]any{"machine": sc.s.MachineID, "oom_killed": true})
		}, FailMemory, 137},
		"destroyed by somebody": {func(sc *script, nonce string) {
			if err := sc.world.fly.DeleteMachine(context.WithoutCancel(sc.t.Context()), testApp, sc.s.MachineID, true, nonce); err != nil {
				sc.t.Errorf("DeleteMachine = %v", err)
			}
		}, FailMachine, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			out, err := sc.m.RunTurn(t.Context(), &sc.s, started(t, sc, func(nonce string) { c.kill(sc, nonce) }))
			if err != nil || out.Failure != c.failure || (c.code != 0 && out.ExitCode != c.code) || out.ExitCode == 0 {
				t.Errorf("RunTurn = %+v, %v, want %s and exit %d", out, err, c.failure, c.code)
			}
			if n := sc.runner.ran("turn-1"); n != 1 {
				t.Errorf("it ran %d times", n)
			}
			if out := sc.turn("the next"); out.Answer != "answer to the next" || out.Failure != runner.FailNone {
				t.Errorf("the next turn ended with %+v", out)
			}
			sc.have(1, 1)
		})
	}
	for name, woken := range map[string]bool{
		"out of memory while nobody followed: the exit event tells the next owner":           false,
		"out of memory, and an owner that woke the machine is gone: the exit event tells it": true,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			ctx, crash := context.WithCancel(t.Context())
			r := started(t, sc, func(string) { crash() })
			if _, err := sc.m.RunTurn(ctx, &sc.s, r); err == nil {
				t.Fatal("RunTurn = nil, want that it lets go")
			}
			sc.local("kill", map[string]any{"machine": sc.s.MachineID, "oom_killed": true})
			sc.until("a dead machine", func() bool { return sc.state() == "stopped" })
			sc.outlastLease(t)
			if woken {
				if err := sc.world.fly.StartMachine(t.Context(), testApp, sc.s.MachineID, ""); err != nil {
					t.Fatal(err)
				}
				sc.until("a started machine", func() bool { return sc.state() == "started" })
			}
			again := r
			again.Started, again.Fence, again.Stage = true, 2, nil
			if out, err := sc.m.RunTurn(t.Context(), &sc.s, again); err != nil || out.Failure != FailMemory || out.ExitCode != 137 {
				t.Errorf("RunTurn = %+v, %v, want %s and exit 137", out, err, FailMemory)
			}
		})
	}
}

// outlastLease waits until the lease that a crash left has run out: its nonce is lost.
func (sc *script) outlastLease(t *testing.T) {
	t.Helper()
	sc.until("a lease that has run out", func() bool {
		lease, err := sc.world.fly.AcquireLease(t.Context(), testApp, sc.s.MachineID, time.Minute, "test")
		return err == nil && sc.world.fly.ReleaseLease(t.Context(), testApp, sc.s.MachineID, lease.Nonce) == nil
	})
}

// TestFlyTrouble: what may pass is waited out, and people are told what is waited for.
func TestFlyTrouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault map[string]any
		note  string
	}{
		"Fly's list of volumes fails":           {map[string]any{"method": "volume.list", "nth": 1, "status": 500}, "Fly does not answer just now"},
		"the volume's creation fails":           {map[string]any{"method": "volume.create", "nth": 1, "status": 503}, "Fly does not answer just now"},
		"the machine's creation times out":      {map[string]any{"method": "machine.create", "nth": 1, "status": 408}, "Fly does not answer just now"},
		"the machine's creation is lost":        {map[string]any{"method": "machine.create", "nth": 1, "drop": true}, "Fly does not answer just now"},
		"Fly asks to go slower":                 {map[string]any{"method": "machine.create", "nth": 1, "status": 429}, "Fly asks to go slower"},
		"the machine cannot be looked at":       {map[string]any{"method": "machine.get", "nth": 1, "status": 502}, "Fly does not answer just now"},
		"the lease's answer is lost on its way": {map[string]any{"method": "machine.lease", "nth": 1, "drop": true}, "Fly does not answer just now"},
		"Fly has no room for a moment":          {map[string]any{"method": "machine.create", "nth": 1, "status": 422, "body": `{"error":"could not find a candidate host"}`}, "Fly has no room just now"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := newWorld(t).script(nil)
			sc.faults(c.fault)
			if out := sc.turn("one"); out.Answer != "answer to one" || sc.runner.ran("turn-1") != 1 {
				t.Errorf("RunTurn = %+v", out)
			}
			if !sc.told(c.note) {
				t.Errorf("people were told %q, want %q", sc.notes, c.note)
			}
			sc.have(1, 1)
		})
	}
	t.Run("the wait for a machine that boots fails", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		waits := 0
		sc.answering(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/machines/") || waits > 0 {
				return false
			}
			if strings.HasSuffix(r.URL.Path, "/wait") {
				waits++
				w.WriteHeader(http.StatusBadGateway)
			} else {
				_, _ = w.Write([]byte(`{"id":"x","state":"starting"}`))
			}
			return true
		})
		if out := sc.turn("one"); out.Answer != "answer to one" || waits != 1 || !sc.told("Fly does not answer just now") {
			t.Errorf("RunTurn = %+v after %d waits, told %v", out, waits, sc.notes)
		}
	})
	t.Run("a stopped machine that Fly does not start at once", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		sc.faults(map[string]any{"method": "machine.start", "nth": 1, "status": 503})
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("RunTurn = %+v", out)
		}
	})
	t.Run("a turn that runs is followed through Fly's silence", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = 300 * time.Millisecond })
		r := sc.run("hold on")
		r.Stage = func(_ context.Context, s Stage) error {
			if s != StageStarted {
				return nil
			}
			fails := 3
			sc.runner.answers("events", func() (any, error) {
				if fails--; fails >= 0 {
					return nil, fly.ErrUnavailable
				}
				return nil, nil
			})
			go func() {
				sc.until("the trouble is over", func() bool { return sc.told("Fly does not answer just now") })
				sc.runner.release()
			}()
			return nil
		}
		if out, _ := sc.unsettled(r); out.Answer != "answer to hold on" || out.Failure != runner.FailNone {
			t.Errorf("RunTurn = %+v", out)
		}
	})
	t.Run("a lease that somebody else holds is waited out, never broken", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		lease, err := sc.world.fly.AcquireLease(t.Context(), testApp, sc.s.MachineID, time.Minute, "flyctl")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			sc.until("the wait is told", func() bool { return sc.told("another tool holds the machine") })
			if _, err := sc.world.fly.RefreshLease(context.WithoutCancel(t.Context()), testApp, sc.s.MachineID, time.Minute, lease.Nonce); err != nil {
				t.Errorf("the lease was broken: %v", err)
			}
			_ = sc.world.fly.ReleaseLease(context.WithoutCancel(t.Context()), testApp, sc.s.MachineID, lease.Nonce)
		}()
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("RunTurn = %+v", out)
		}
	})
	t.Run("the lease of an earlier owner of the turn is ours: it is released", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		lease, err := sc.world.fly.AcquireLease(t.Context(), testApp, sc.s.MachineID, time.Hour, "flaudebot turn")
		if err != nil {
			t.Fatal(err)
		}
		r := sc.run("two")
		r.Nonce = lease.Nonce
		if out, _ := sc.unsettled(r); out.Answer != "answer to two" || sc.told("another tool holds the machine") {
			t.Errorf("RunTurn = %+v, told %v", out, sc.notes)
		}
	})
	t.Run("while a turn runs its lease is kept, and no other tool stops the machine", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("hold on")
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				go func() {
					lease := "POST /v1/apps/acme/machines/" + sc.s.MachineID + "/lease 2"
					sc.until("two refreshes", func() bool { return sc.asked(lease) > 2 })
					err := sc.world.fly.StopMachine(context.WithoutCancel(t.Context()), testApp, sc.s.MachineID, fly.StopMachine{}, "")
					if !errors.Is(err, fly.ErrLeaseHeld) {
						t.Errorf("StopMachine by another = %v, want ErrLeaseHeld", err)
					}
					sc.runner.release()
				}()
			}
			return nil
		}
		if out, _ := sc.unsettled(r); out.Failure != runner.FailNone {
			t.Errorf("RunTurn = %+v", out)
		}
	})
}

// TestFlyRefuses: what does not pass by itself fails the turn, and the thread goes on when it is mended.
func TestFlyRefuses(t *testing.T) {
	t.Parallel()
	t.Run("the token is refused", func(t *testing.T) {
		t.Parallel()
		for _, status := range []int{401, 403} {
			sc := newWorld(t).script(nil)
			sc.answering(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPost {
					w.WriteHeader(status)
					_, _ = w.Write([]byte(`{"error":"unauthorized"}`))
				}
				return r.Method == http.MethodPost
			})
			if out := sc.turn("one"); out.Failure != FailFlyAccess || out.ExitCode != 1 || out.Error == "" || len(sc.notes) > 0 {
				t.Errorf("with %d: RunTurn = %+v, told %v; want %s at once", status, out, sc.notes, FailFlyAccess)
			}
			sc.answering(nil)
			if out := sc.turn("two"); out.Answer != "answer to two" {
				t.Errorf("after it was mended: RunTurn = %+v", out)
			}
		}
	})
	t.Run("there is no room: it waits, says so, and leaves no volume", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = 3 * time.Second })
		sc.faults(map[string]any{"method": "machine.create", "status": 409})
		for range 2 { // the second time there are turns behind it
			sc.s.Turns++
			if out := sc.turn("one"); out.Failure != FailCapacity || !sc.told("Fly has no room just now") {
				t.Errorf("RunTurn = %+v, told %v; want %s", out, sc.notes, FailCapacity)
			}
			sc.have(0, 0)
		}
		sc.faults(nil)
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("when there is room: RunTurn = %+v", out)
		}
		sc.have(1, 1)
	})
	t.Run("there is no room for the machine of a conversation: it is kept", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = 3 * time.Second })
		sc.turn("one")
		volume := sc.s.VolumeID
		destroyMachine(t, sc)
		sc.faults(map[string]any{"method": "machine.create", "status": 409})
		if out := sc.turn("two"); out.Failure != FailCapacity {
			t.Errorf("RunTurn = %+v, want %s", out, FailCapacity)
		}
		sc.have(0, 1)
		sc.faults(nil)
		if out := sc.turn("three"); out.Answer != "answer to three" || sc.s.VolumeID != volume {
			t.Errorf("when there is room: RunTurn = %+v on %s, want it on %s", out, sc.s.VolumeID, volume)
		}
	})
	t.Run("a machine that does not come up in time", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.BootTimeout, cfg.Patience = 2*time.Second, time.Millisecond })
		sc.faults(map[string]any{"method": "machine.wait", "delay_ms": 60000})
		sc.faults(map[string]any{"method": "machine.get", "delay_ms": 1})
		sc.answering(func(w http.ResponseWriter, r *http.Request) bool { // it is starting for ever
			one := r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/machines/") && !strings.HasSuffix(r.URL.Path, "/wait")
			if one {
				_, _ = w.Write([]byte(`{"id":"x","state":"starting"}`))
			}
			return one
		})
		r := sc.run("one")
		if out, _ := sc.unsettled(r); out.Failure != FailNotUp {
			t.Errorf("RunTurn = %+v, want %s: nothing was run", out, FailNotUp)
		}
		r.Offered = true
		if out, _ := sc.unsettled(r); out.Failure != FailMachine {
			t.Errorf("after an owner who may have handed it over: RunTurn = %+v, want %s", out, FailMachine)
		}
	})
}

// destroyMachine has somebody destroy the session's machine.
func destroyMachine(t *testing.T, sc *script) {
	t.Helper()
	if err := sc.world.fly.DeleteMachine(t.Context(), testApp, sc.s.MachineID, true, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := sc.world.fly.WaitMachine(t.Context(), testApp, sc.s.MachineID, fly.WaitMachine{States: []string{"destroyed"}}); err != nil {
		t.Fatal(err)
	}
}

// TestStop: a person stops a turn, wherever it is.
func TestStop(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	close(closed)
	stopped := func(t *testing.T, out Outcome) {
		t.Helper()
		if out.Failure != runner.FailStopped || out.ExitCode != 130 {
			t.Errorf("RunTurn = %+v, want %s and exit 130", out, runner.FailStopped)
		}
	}
	t.Run("before it starts: nothing is made", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("one")
		r.Stop = closed
		out, _ := sc.unsettled(r)
		stopped(t, out)
		sc.have(0, 0)
	})
	t.Run("in mid-turn: the runner is told, and the conversation goes on", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("hold on")
		stop := make(chan struct{})
		r.Stop = stop
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				close(stop)
			}
			return nil
		}
		out, nonce := sc.unsettled(r)
		stopped(t, out)
		if out.Answer != "answer to hold on" {
			t.Errorf("what Claude had said is lost: %+v", out)
		}
		if err := sc.m.Settle(t.Context(), sc.s, r.Turn, 1, nonce); err != nil {
			t.Fatal(err)
		}
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("the next turn ended with %+v", out)
		}
	})
	t.Run("in mid-turn: a stop that did not reach the runner is repeated", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.runner.once("stop", nil, fly.ErrUnavailable)
		r := sc.run("hold on")
		stop := make(chan struct{})
		r.Stop = stop
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				close(stop)
			}
			return nil
		}
		out, _ := sc.unsettled(r)
		stopped(t, out)
	})
	t.Run("while it waits for room: at once, and that is no failure of Fly's", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = time.Hour })
		sc.faults(map[string]any{"method": "machine.create", "status": 409})
		r := sc.run("one")
		stop := make(chan struct{})
		r.Stop = stop
		go func() {
			sc.until("the wait is told", func() bool { return sc.told("Fly has no room just now") })
			close(stop)
		}()
		out, _ := sc.unsettled(r)
		stopped(t, out)
		sc.have(0, 0)
	})
	t.Run("while the machine boots: it does not run, and the machine sleeps", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.BootTimeout = time.Hour })
		r := sc.run("one")
		stop := make(chan struct{})
		r.Stop = stop
		sc.answering(func(w http.ResponseWriter, r *http.Request) bool { // it is starting for ever
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/machines/") {
				return false
			}
			if strings.HasSuffix(r.URL.Path, "/wait") {
				close(stop)
				select {
				case <-r.Context().Done():
				case <-time.After(20 * time.Second): // Fly itself would let it wait for longer
					t.Error("it goes on waiting for the machine")
				}
			}
			_, _ = w.Write([]byte(`{"id":"x","state":"starting"}`))
			return true
		})
		out, nonce := sc.unsettled(r)
		stopped(t, out)
		sc.answering(nil)
		if n := sc.runner.ran("turn-1"); n != 0 || len(sc.runner.verbs()) != 0 {
			t.Errorf("it ran %d times, and the runner heard %v", n, sc.runner.verbs())
		}
		if err := sc.m.Settle(t.Context(), sc.s, r.Turn, 1, nonce); err != nil {
			t.Fatal(err)
		}
		sc.until("a stopped machine", func() bool { return sc.state() == "stopped" })
	})
	t.Run("while it is handed over and the answer was lost: it may run, so the runner is asked and told", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("hold on")
		stop := make(chan struct{})
		r.Stop = stop
		asked := 0
		sc.runner.answers("take", func() (any, error) {
			if asked++; asked == 1 {
				close(stop)
				return nil, fly.ErrUnavailable
			}
			return nil, nil
		})
		out, _ := sc.unsettled(r)
		stopped(t, out)
		if asked != 2 || !slices.Contains(sc.runner.verbs(), "stop") {
			t.Errorf("the runner heard %v, want a second take and a stop", sc.runner.verbs())
		}
	})
}

// TestRebuild: what of a session is gone between two turns.
func TestRebuild(t *testing.T) {
	t.Parallel()
	t.Run("the machine is gone: another one is made on the volume", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		before := sc.s
		destroyMachine(t, sc)
		if out := sc.turn("two"); out.Answer != "answer to two" {
			t.Errorf("RunTurn = %+v", out)
		}
		if sc.s.VolumeID != before.VolumeID || sc.s.SessionID != before.SessionID || sc.s.MachineID == before.MachineID || sc.saved.MachineID != sc.s.MachineID {
			t.Errorf("the session is %+v after %+v, and %+v on record", sc.s, before, sc.saved)
		}
		sc.have(1, 1)
	})
	t.Run("the machine goes in mid-turn after it was woken: the new one's lease is kept, the old one's forgotten", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		r := sc.run("two")
		killed := false
		r.KeepNonce = func(_ context.Context, nonce string) error {
			if !killed {
				killed = true
				return sc.world.fly.DeleteMachine(t.Context(), testApp, sc.s.MachineID, true, nonce)
			}
			return nil
		}
		if out, _ := sc.unsettled(r); out.Answer != "answer to two" { // it hangs if a refresher is left
			t.Errorf("RunTurn = %+v", out)
		}
		sc.have(1, 1)
	})
	t.Run("a machine that failed is replaced", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		before := sc.s.MachineID
		path := "/v1/apps/acme/machines/" + before
		sc.answering(func(w http.ResponseWriter, r *http.Request) bool {
			failed := r.Method == http.MethodGet && r.URL.Path == path && sc.asked("DELETE "+path+" ") == 0
			if failed {
				_, _ = w.Write([]byte(`{"id":"` + before + `","state":"failed"}`))
			}
			return failed
		})
		if out := sc.turn("two"); out.Answer != "answer to two" || sc.s.MachineID == before {
			t.Errorf("RunTurn = %+v on %s", out, sc.s.MachineID)
		}
		sc.have(1, 1)
	})
	lose := func(t *testing.T, sc *script) {
		t.Helper()
		destroyMachine(t, sc)
		if err := sc.world.fly.DeleteVolume(t.Context(), testApp, sc.s.VolumeID); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("both are gone: that is said, and the next turn begins a fresh conversation", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.TTL = time.Hour })
		sc.turn("one")
		sc.s.CreatedAt = sc.s.CreatedAt.Add(-time.Minute)
		before := sc.s
		lose(t, sc)
		out := sc.turn("two")
		if out.Failure != FailLost || out.ExitCode != 1 || sc.runner.ran("turn-2") != 0 {
			t.Errorf("RunTurn = %+v, want %s", out, FailLost)
		}
		if sc.s.SessionID == before.SessionID || sc.s.onFly() || sc.s.Begun() || sc.s.Handed || !sc.s.CreatedAt.After(before.CreatedAt) ||
			sc.s.Thread != before.Thread || sc.s.Owner != before.Owner || sc.s.TTLSeconds != before.TTLSeconds || sc.saved.SessionID != sc.s.SessionID {
			t.Errorf("the session is %+v after %+v, and %+v on record", sc.s, before, sc.saved)
		}
		if out := sc.turn("three"); out.Answer != "answer to three" {
			t.Errorf("the next turn ended with %+v", out)
		}
		if last := sc.runner.taken(); last[len(last)-1].Turn.SessionID != sc.s.SessionID {
			t.Error("the next turn was handed over with the old session's id")
		}
		sc.have(1, 1)
	})
	t.Run("both are gone: what cannot be made afterwards leaves no volume", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Patience = time.Second })
		sc.s.Turns = 3
		sc.turn("one")
		lose(t, sc)
		sc.turn("two")
		sc.faults(map[string]any{"method": "machine.create", "status": 409})
		if out := sc.turn("three"); out.Failure != FailCapacity {
			t.Errorf("RunTurn = %+v, want %s", out, FailCapacity)
		}
		sc.have(0, 0)
	})
	t.Run("the volume is gone and the machine's id is not on record: no turn is stuck on it", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		lose(t, sc)
		sc.s.MachineID = ""
		if out := sc.turn("two"); out.Failure != FailLost {
			t.Errorf("RunTurn = %+v, want %s", out, FailLost)
		}
		if out := sc.turn("three"); out.Answer != "answer to three" {
			t.Errorf("the next turn ended with %+v", out)
		}
	})
	t.Run("a volume that nothing was on and that is gone is made anew, in the same turn", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		if err := sc.m.createVolume(t.Context(), &sc.s, sc.save); err != nil {
			t.Fatal(err)
		}
		if err := sc.world.fly.DeleteVolume(t.Context(), testApp, sc.s.VolumeID); err != nil {
			t.Fatal(err)
		}
		if out := sc.turn("one"); out.Answer != "answer to one" {
			t.Errorf("RunTurn = %+v", out)
		}
		sc.have(1, 1)
	})
	t.Run("a volume that Fly works on is not lost", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		before := sc.s
		destroyMachine(t, sc)
		sc.answering(func(w http.ResponseWriter, r *http.Request) bool {
			one := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/volumes/"+before.VolumeID)
			if one {
				_, _ = w.Write([]byte(`{"id":"` + before.VolumeID + `","state":"hydrating"}`))
			}
			return one
		})
		if out := sc.turn("two"); out.Answer != "answer to two" || sc.s.SessionID != before.SessionID {
			t.Errorf("RunTurn = %+v in session %s, want %s to go on", out, sc.s.SessionID, before.SessionID)
		}
	})
	t.Run("an ephemeral machine that is gone in mid-turn is lost, and no other one is made", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		r := sc.run("hold on")
		nonce := ""
		sc.s = sc.m.ephemeral(r.Turn, Spec{}, time.Now())
		r.KeepNonce = func(_ context.Context, n string) error { nonce = n; return nil }
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				return sc.world.fly.DeleteMachine(t.Context(), testApp, sc.s.MachineID, true, nonce)
			}
			return nil
		}
		if out, err := sc.m.RunTurn(t.Context(), &sc.s, r); err != nil || out.Failure != FailLost {
			t.Errorf("RunTurn = %+v, %v, want %s", out, err, FailLost)
		}
		if n := sc.asked(postMachine); n != 1 {
			t.Errorf("%d machines were made", n)
		}
	})
}

func TestSettle(t *testing.T) {
	t.Parallel()
	t.Run("without a machine there is nothing to settle", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		if err := sc.m.Settle(t.Context(), sc.s, "turn-1", 1, ""); err != nil || len(sc.runner.verbs()) != 0 {
			t.Errorf("Settle = %v after %v", err, sc.runner.verbs())
		}
	})
	t.Run("a runner that does not hear the acknowledgement is stopped from outside", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		out, nonce := sc.unsettled(sc.run("one"))
		sc.runner.answers("ack", func() (any, error) { return nil, errRunner })
		if err := sc.m.Settle(t.Context(), sc.s, TurnID(out.Turn), 1, nonce); err != nil {
			t.Fatalf("Settle = %v", err)
		}
		sc.until("a stopped machine", func() bool { return sc.state() == "stopped" })
	})
	t.Run("a machine that lingers for the next turn is left running", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(func(cfg *MachinesConfig) { cfg.Settings.LingerSeconds = 60 })
		out, nonce := sc.unsettled(sc.run("one"))
		sc.runner.answers("ack", func() (any, error) { return runner.AckReply{Status: runner.StatusOK}, nil })
		if err := sc.m.Settle(t.Context(), sc.s, TurnID(out.Turn), 1, nonce); err != nil || sc.state() != "started" {
			t.Errorf("Settle = %v with a machine that is %s, want it started", err, sc.state())
		}
		starts := sc.asked("POST /v1/apps/acme/machines/" + sc.s.MachineID + "/start")
		if out := sc.turn("two"); out.Answer != "answer to two" || sc.asked("POST /v1/apps/acme/machines/"+sc.s.MachineID+"/start") != starts {
			t.Errorf("the next turn ended with %+v, and needed a start", out)
		}
	})
	t.Run("a machine that is gone is no error", func(t *testing.T) {
		t.Parallel()
		sc := newWorld(t).script(nil)
		sc.turn("one")
		destroyMachine(t, sc)
		if err := sc.m.Settle(t.Context(), sc.s, "turn-1", 1, ""); err != nil {
			t.Errorf("Settle = %v", err)
		}
	})
}
