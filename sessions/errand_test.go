package sessions

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flaudebot/runner"
)

// errand is one that somebody asks for with a button.
func errand(name string) Turn {
	th := thread()
	return Turn{
		ID: TurnID(th.Team + ":" + th.Channel + ":errand-" + name), Kind: KindErrand, Thread: th, User: "U2", TS: "errand-" + name,
		Text: "Look", At: time.Now().UTC(), Errand: &Errand{Errand: runner.Errand{Kind: runner.ErrandState}},
	}
}

func TestErrand(t *testing.T) {
	t.Parallel()
	secrets := func(_ *ServiceConfig, m *MachinesConfig) {
		m.Secrets = runner.Secrets{AnthropicAPIKey: "sk-ant-secret", ClaudeOAuthToken: "oauth-secret", AnthropicBaseURL: "http://up", GitUsername: "u", GitToken: "git-secret"}
		m.Settings = runner.Settings{Model: "opus", GitName: "Acme", Forges: []runner.Forge{{Host: "git.acme.example", Kind: runner.ForgeGitLab}}}
	}
	t.Run("it runs behind the turn before it, brings all it has, and is no turn of the conversation", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(secrets).start()
		one := r.accept(turn("101", "hold", true))
		b.until("the turn at work", func() bool { return b.runner.ran(one.ID) == 1 })
		look := errand("1")
		if res, err := r.Accept(t.Context(), look); err != nil || res.Ahead != 1 {
			t.Fatalf("Accept = %+v, %v, want one ahead", res, err)
		}
		if res, err := r.Accept(t.Context(), look); err != nil || res.Status != AcceptDuplicate {
			t.Errorf("the same click again: %+v, %v", res, err)
		}
		if n := b.runner.ran(look.ID); n != 0 {
			t.Error("it did not wait for the turn before it")
		}
		b.runner.release()
		out := b.answered(r, look)
		if out.Answer != "did state" || string(out.Payload) != "what it brings" || out.Number != 1 {
			t.Errorf("outcome = %+v", out)
		}
		b.wasOnce(look)
		s := r.session()
		if s.Turns != 1 || s.LastID != one.ID || s.CostUSD != 0.5 || !slices.Equal(s.State, []runner.RepoState{{Dir: "seen"}}) {
			t.Errorf("on record is %+v, want one turn, and what the errand saw", s)
		}
		take := b.runner.taken()[1]
		if want := (runner.Secrets{GitUsername: "u", GitToken: "git-secret"}); !cmp.Equal(take.Secrets, want) || take.Turn.Prompt != "" {
			t.Errorf("it was handed over with %+v", take)
		}
		for i, take := range b.runner.taken() {
			if s := take.Turn.Settings; s.GitName != "Acme" || len(s.Forges) != 1 || (i == 1) != (s.Model == "") {
				t.Errorf("take %d has the settings %+v", i, s)
			}
		}
		b.until("the machine asleep", func() bool { return b.machinesIn(testApp)[0].State == "stopped" })
		// As idle as it was before it: the time of the last turn counts.
		before := s.LastTurn
		b.answered(r, r.accept(errand("2")))
		if s := r.session(); !s.LastTurn.Equal(before) {
			t.Errorf("the last turn is at %s, want %s", s.LastTurn, before)
		}
	})
	t.Run("it begins no session, and wakes none that has ended", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		if out := b.answered(r, r.accept(errand("1"))); out.Failure != FailEnded {
			t.Errorf("outcome = %+v", out)
		}
		if r.session() != nil {
			t.Error("it began a session")
		}
		b.have(0, 0)
		b.answered(r, r.accept(turn("101", "hello", true)))
		if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
			t.Fatal(err)
		}
		b.idle(r)
		if out := b.answered(r, r.accept(errand("2"))); out.Failure != FailEnded {
			t.Errorf("outcome = %+v", out)
		}
		b.have(0, 0)
	})
	t.Run("it is stopped while what it brings is read", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		b.answered(r, r.accept(turn("101", "hello", true)))
		large := r.accept(errand("large"))
		b.until("the errand done", func() bool { return b.runner.ran(large.ID) == 1 })
		if _, running, err := r.Cancel(t.Context(), thread(), large.ID); err != nil || !running {
			t.Fatalf("Cancel = %v, %v", running, err)
		}
		if out := b.answered(r, large); out.Failure != runner.FailStopped || out.Payload != nil {
			t.Errorf("outcome = %s with %d bytes", out.Failure, len(out.Payload))
		}
		b.answered(r, r.accept(turn("102", "and now", false)))
	})
	t.Run("an end drops one that waits, and says so", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		one := r.accept(turn("101", "hold", true))
		b.until("the turn at work", func() bool { return b.runner.ran(one.ID) == 1 })
		look := r.accept(errand("1"))
		e, err := r.End(t.Context(), thread(), "U1", "")
		if err != nil || len(e.Dropped) != 1 || e.Dropped[0].ID != look.ID {
			t.Errorf("End = %+v, %v", e, err)
		}
		b.idle(r)
	})
	t.Run("one that waits alone is no session to end", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil)
		r.accept(errand("1"))
		if _, err := r.End(t.Context(), thread(), "U1", ""); err == nil {
			t.Error("something was ended")
		}
	})
}

// TestErrandTakeover: a replica dies at each stage of an errand, and another one brings it to its end: it is done once and told once.
func TestErrandTakeover(t *testing.T) {
	t.Parallel()
	for _, stage := range []Stage{StageStarting, StageStarted, StageResult, StagePosting, StagePosted, stageDone} {
		t.Run(fmt.Sprintf("before %s is written", stage), func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			short := func(_ *ServiceConfig, m *MachinesConfig) { m.LeaseTTL = 2 * time.Second }
			second := b.replica(short).start()
			b.answered(second, second.accept(turn("101", "hello", true)))
			second.stop()

			first := b.replica(short)
			hook := &crash{stage: stage, nth: 1, before: true}
			first.warm()
			first.rdb.AddHook(hook)
			ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
			hook.die = cancel
			var gone sync.WaitGroup
			look := second.accept(errand("1"))
			gone.Go(func() { _ = first.Run(ctx) })
			t.Cleanup(func() { cancel(); gone.Wait() })
			b.until("the crash", hook.dead.Load)
			third := b.replica(short).start()
			out := b.answered(third, look)
			if out.Failure != runner.FailNone || string(out.Payload) != "what it brings" {
				t.Errorf("outcome = %+v", out)
			}
			b.wasOnce(look)
			if s := third.session(); s.Turns != 1 {
				t.Errorf("on record is %+v", s)
			}
		})
	}
}
