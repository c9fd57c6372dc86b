package sessions

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/runner"
)

// budgets has a replica work within them.
func (b *bot) budgets(c BudgetConfig) *replica {
	return b.replica(func(sv *ServiceConfig, _ *MachinesConfig) { sv.Budgets = c })
}

// by is a turn that somebody else asks for.
func by(t Turn, user string) Turn {
	t.User = user
	return t
}

// allowed is what the runner was told that a turn may cost; -1: there is no bound.
func (b *bot) allowed(id TurnID) float64 {
	b.t.Helper()
	for _, r := range b.runner.taken() {
		if r.Turn.ID == string(id) {
			if r.Turn.Budget == nil {
				return -1
			}
			return r.Turn.Budget.USD
		}
	}
	b.t.Fatalf("the runner never had %s", id)
	return 0
}

// TestBudgets: what a turn may cost is what is left of the budgets that it is charged to, and without any left it does not begin. A turn of the fake costs
// half a dollar.
func TestBudgets(t *testing.T) {
	t.Parallel()
	in := func(t Turn, channel string) Turn {
		t.Thread.Channel = channel
		t.ID = TurnID(strings.Replace(string(t.ID), ":C1:", ":"+channel+":", 1))
		return t
	}
	for name, c := range map[string]struct {
		bound   Bound
		budgets BudgetConfig
		other   Turn // that another budget pays
	}{
		"a thread's":  {BoundThread, BudgetConfig{PerThread: 0.8}, elsewhere(turn("200", "other", true))},
		"a person's":  {BoundPerson, BudgetConfig{PerPerson: 0.8}, by(turn("200", "other", false), "U9")},
		"a channel's": {BoundChannel, BudgetConfig{PerChannel: 0.8}, in(elsewhere(turn("200", "other", true)), "C2")},
		"that of all": {BoundAll, BudgetConfig{All: 0.8}, Turn{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			r := b.budgets(c.budgets).start()
			one := r.accept(turn("101", "one", true))
			if out := b.answered(r, one); out.Budget != nil || out.Failure != runner.FailNone {
				t.Errorf("the first turn: %+v, %+v", out.Outcome, out.Budget)
			}
			two := r.accept(turn("102", "two", false))
			if out := b.answered(r, two); out.Failure != runner.FailNone || out.Budget == nil || *out.Budget != (Budget{c.bound, 0.8, 1}) {
				t.Errorf("the second turn: %+v, %+v; want it told that the budget is used up", out.Outcome, out.Budget)
			}
			if got := []float64{b.allowed(one.ID), b.allowed(two.ID)}; !near(got[0], 0.8, 1e-9) || !near(got[1], 0.3, 1e-9) {
				t.Errorf("the runner was told $%v, want 0.8 and 0.3", got)
			}
			three := r.accept(turn("103", "three", false))
			if out := b.answered(r, three); out.Failure != runner.FailBudget || out.Budget == nil || out.Budget.Bound != c.bound || b.runner.ran(three.ID) != 0 {
				t.Errorf("the third turn: %+v, %+v; want it refused", out.Outcome, out.Budget)
			}
			if c.other.ID != "" {
				if out := b.answered(r, r.accept(c.other)); out.Failure != runner.FailNone || b.allowed(c.other.ID) < 0.8 {
					t.Errorf("what another budget pays: %+v", out.Outcome)
				}
			}
			for _, first := range []bool{true, false} { // once for each press
				if done, err := r.AllowMore(t.Context(), "press", thread(), c.bound, "U1", "UADMIN", 5); err != nil || done != first {
					t.Fatalf("AllowMore = %t, %v, want %t", done, err, first)
				}
			}
			left, err := r.Budgets(t.Context(), thread(), "U1")
			if err != nil || len(left) != 1 || left[0] != (Budget{c.bound, 5.8, 1}) {
				t.Errorf("Budgets = %+v, %v; want $5.8", left, err)
			}
			four := r.accept(turn("104", "four", false))
			if out := b.answered(r, four); out.Failure != runner.FailNone || !near(b.allowed(four.ID), 4.8, 1e-9) {
				t.Errorf("after more was allowed: %+v", out.Outcome)
			}
			var raised []Entry
			for _, e := range audit(t, r.Service, AuditFilter{}) {
				if e.What == BudgetRaised {
					raised = append(raised, e)
				}
			}
			if len(raised) != 1 || raised[0].By != "UADMIN" || raised[0].Raised.Bound != c.bound || raised[0].Raised.USD != 5 {
				t.Errorf("the record has %+v, want that more was allowed, once", raised)
			}
		})
	}
	t.Run("that of one channel, in its settings", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.budgets(BudgetConfig{PerChannel: 100}).start()
		set := func(usd *float64) {
			t.Helper()
			s, err := r.Settings(t.Context(), "T1", "C1")
			if err == nil {
				s.BudgetUSD = usd
				_, err = r.SaveSettings(t.Context(), "T1", "C1", "UADMIN", s, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		of := func(n string, channel string) float64 {
			t.Helper()
			asked := in(turn(n, "hello", true), channel)
			if channel != "C1" {
				asked = in(elsewhere(turn(n, "hello", true)), channel)
			}
			b.answered(r, r.accept(asked))
			return b.allowed(asked.ID)
		}
		if got := of("101", "C1"); got != 100 {
			t.Errorf("a channel that sets none may cost $%g, want that of each", got)
		}
		set(new(2.0))
		if got := of("102", "C1"); got != 1.5 {
			t.Errorf("one of its own has $%g left, want 1.50 of its 2", got)
		}
		if got, err := r.Budgets(t.Context(), thread(), "U1"); err != nil || !slices.Equal(got, []Budget{{BoundChannel, 2, 1}}) {
			t.Errorf("Budgets = %+v, %v", got, err)
		}
		if got := of("201", "C2"); got != 100 {
			t.Errorf("another channel may cost $%g", got)
		}
		set(new(0.0))
		if got := of("103", "C1"); got != -1 {
			t.Errorf("without limit it is told $%g", got)
		}
	})
	t.Run("a turn that was refused is none", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.budgets(BudgetConfig{All: 0.4}).start()
		b.answered(r, r.accept(turn("101", "one", true)))
		if out := b.answered(r, r.accept(turn("102", "two", false))); out.Failure != runner.FailBudget {
			t.Fatalf("the second turn: %+v, want it refused", out.Outcome)
		}
		if got := r.total(time.Now()); got.Turns != 1 {
			t.Errorf("the month has %d turns, want the one that began", got.Turns)
		}
	})
	t.Run("a turn's own", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.budgets(BudgetConfig{PerTurn: 2, All: 100}).start()
		more := turn("101", "one", true)
		more.MoreUSD = 5
		b.answered(r, r.accept(more))
		two := r.accept(turn("102", "two", false))
		b.answered(r, two)
		if b.allowed(more.ID) != 7 || b.allowed(two.ID) != 2 {
			t.Errorf("the runner was told $%g and $%g, want 7 and 2", b.allowed(more.ID), b.allowed(two.ID))
		}
		for _, e := range audit(t, r.Service, AuditFilter{}) {
			if e.What == TurnAsked && (e.Raised != nil) != (e.Turn == more.ID) {
				t.Errorf("on record is %+v, want what was allowed more with its turn", e)
			}
		}
	})
	t.Run("a single run's, from the command line", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		sc := w.script(func(c *MachinesConfig) { c.OnceBudget = BudgetConfig{PerTurn: 2, All: 1}.Once() })
		if _, err := sc.m.RunOnce(t.Context(), Spec{}, Run{Turn: "run:1", Fence: 1, Prompt: func(context.Context, bool) (Prompt, error) { return Prompt{Text: "one"}, nil }}); err != nil {
			t.Fatal(err)
		}
		if b := sc.runner.taken()[0].Turn.Budget; b == nil || b.USD != 2 {
			t.Errorf("the runner was told %+v, want $2", b)
		}
		if (BudgetConfig{All: 1}).Once() != nil {
			t.Error("the budget of all threads is one of a single run")
		}
	})
	t.Run("without any", func(t *testing.T) {
		t.Parallel()
		b := newBot(t)
		r := b.replica(nil).start()
		one := r.accept(turn("101", "one", true))
		if out := b.answered(r, one); out.Budget != nil || b.allowed(one.ID) != -1 {
			t.Errorf("it was allowed $%g, and told %+v", b.allowed(one.ID), out.Budget)
		}
		r = b.budgets(BudgetConfig{All: 1})
		if got, err := r.Budgets(t.Context(), thread(), "U1"); err != nil || len(got) != 1 || got[0].SpentUSD != 0.5 {
			t.Errorf("Budgets = %+v, %v; want what was spent before there was one", got, err)
		}
	})
}

// TestBudgetWhileOthersSpend: turns at work that are charged to one budget are stopped when together they use it up.
func TestBudgetWhileOthersSpend(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	first, second := b.budgets(BudgetConfig{PerChannel: 3}).start(), b.budgets(BudgetConfig{PerChannel: 3}).start()
	one := first.accept(turn("101", "hold one", true))
	b.until("the first runs", func() bool { return b.runner.ran(one.ID) == 1 })
	b.runner.spends(one.ID, 2)
	spent := func() float64 {
		got, err := second.Budgets(t.Context(), thread(), "")
		if err != nil {
			t.Fatal(err)
		}
		return got[0].SpentUSD
	}
	b.until("it is added up", func() bool { return spent() == 2 })
	first.stop() // whoever takes it over is told all of it again
	two := second.accept(elsewhere(turn("201", "hold two", true)))
	b.until("the second runs", func() bool { return b.runner.ran(two.ID) == 1 })
	if got := b.allowed(two.ID); got != 1 {
		t.Errorf("the second may cost $%g, want what is left", got)
	}
	b.runner.spends(two.ID, 0.75)
	b.until("it is added up", func() bool { return spent() == 2.75 })
	b.runner.spends(one.ID, 2.5)
	if out := b.answered(second, one); out.Failure != runner.FailBudget || out.CostUSD != 2.5 || out.Budget == nil || out.Budget.Bound != BoundChannel {
		t.Errorf("the first: %+v, %+v; want it stopped", out.Outcome, out.Budget)
	}
	b.runner.spends(two.ID, 0.8)
	if out := b.answered(second, two); out.Failure != runner.FailBudget || out.CostUSD != 0.8 {
		t.Errorf("the second: %+v; want it stopped at its next response", out.Outcome)
	}
	if got := spent(); !near(got, 3.3, 1e-9) {
		t.Errorf("$%g were spent, want 3.30: nothing twice", got)
	}
	if got := second.total(time.Now()); !near(got.ModelUSD, 3.3, 1e-9) {
		t.Errorf("the month's costs are $%g", got.ModelUSD)
	}
	if !slices.Contains(b.runner.verbs(), "stop") {
		t.Error("the runner was never told to stop")
	}
}

// TestSpentBeforeItDied: what a turn had cost counts also where its machine died under it, and nobody had followed it.
func TestSpentBeforeItDied(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	first := b.budgets(BudgetConfig{All: 10}).start()
	one := first.accept(turn("101", "hold one", true))
	b.until("it runs", func() bool { return b.runner.ran(one.ID) == 1 })
	s := first.session()
	first.stop()
	b.runner.spends(one.ID, 2)
	b.local("kill", map[string]any{"machine": s.MachineID})
	second := b.budgets(BudgetConfig{All: 10}).start()
	if out := b.answered(second, one); out.Failure != FailMachine || out.CostUSD != 2 {
		t.Errorf("it ended with %+v, want what it had cost", out.Outcome)
	}
	if got, err := second.Budgets(t.Context(), thread(), "U1"); err != nil || got[0].SpentUSD != 2 {
		t.Errorf("Budgets = %+v, %v", got, err)
	}
}

// TestStanding: the budget that is named with a turn's end is the one that stopped it, or else the one that is nearly used up.
func TestStanding(t *testing.T) {
	t.Parallel()
	near, over, free := Budget{BoundAll, 10, 9}, Budget{BoundChannel, 5, 5.1}, Budget{BoundPerson, 10, 1}
	for name, c := range map[string]struct {
		failure Failure
		usd     float64
		budgets []Budget
		want    *Budget
	}{
		"none is near":                    {runner.FailNone, 1, []Budget{free}, nil},
		"the nearest":                     {runner.FailNone, 1, []Budget{near, over, free}, &over},
		"what stopped it":                 {runner.FailBudget, 1, []Budget{near, over}, &over},
		"the turn's own":                  {runner.FailBudget, 2.2, []Budget{near}, &Budget{BoundTurn, 2, 2.2}},
		"the turn's own, which is over":   {runner.FailNone, 2.2, []Budget{free}, nil},
		"what was raised in the meantime": {runner.FailBudget, 1, []Budget{near}, nil},
	} {
		w := &work{sv: &Service{cfg: ServiceConfig{Budgets: BudgetConfig{PerTurn: 2}}}}
		got := w.standing(Outcome{Outcome: runner.Outcome{Failure: c.failure, CostUSD: c.usd}}, c.budgets)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
