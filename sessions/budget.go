package sessions

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"flaudebot/runner"
)

// What Claude's model costs can be bounded: for each turn, and in a month for each thread, person and channel and for all. What has been spent is added up
// in one hash a month, fb:{sessions}:spent:2026-11, while turns run: the runner's gateway counts what each of the API's responses costs and tells it, as
// the turn's sum so far, which is added once however often it is told. A turn begins with what is left, beyond which its own gateway asks for no further
// response; where others use up the same budget meanwhile, it is stopped. Months end in UTC.

//go:embed spend.lua
var spendScript string

// spentFor is how long a month is kept after its last change.
const spentFor = 62 * 24 * time.Hour

// BudgetConfig bounds what Claude's model may cost, in USD at list prices; 0: there is no bound. All but PerTurn are for a month.
type BudgetConfig struct {
	PerTurn, PerThread, PerPerson, PerChannel, All float64

	// Prices go before the list prices that the runner knows.
	Prices runner.Prices
}

// of is the bound for one of those that [Bound] names.
func (c BudgetConfig) of(b Bound) float64 {
	switch b {
	case BoundTurn:
		return c.PerTurn
	case BoundThread:
		return c.PerThread
	case BoundPerson:
		return c.PerPerson
	case BoundChannel:
		return c.PerChannel
	default:
		return c.All
	}
}

// errBudget says what a budget looks like.
var errBudget = errors.New("want an amount in USD such as 5 or 2.50; 0: no limit")

// ParseBudget reads an amount in USD; 0: no limit.
func ParseBudget(text string) (float64, error) {
	usd, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(text), "$"), 64)
	if err != nil {
		return 0, errBudget
	}
	return usd, checkBudget(usd)
}

func checkBudget(usd float64) error {
	if usd >= 0 && usd <= 10_000_000 { // NaN is neither
		return nil
	}
	return errBudget
}

// in is c in a channel with these settings.
func (c BudgetConfig) in(s Settings) BudgetConfig {
	if s.BudgetUSD != nil {
		c.PerChannel = *s.BudgetUSD
	}
	return c
}

// Budget is how much of a budget is used.
type Budget struct {
	Bound    Bound   `json:"bound"`
	USD      float64 `json:"usd"` // what was allowed besides included
	SpentUSD float64 `json:"spent_usd"`
}

// Left is what is left of it, in USD.
func (b Budget) Left() float64 { return b.USD - b.SpentUSD }

// nearlyAll is from which share of a budget on its use is told.
const nearlyAll = 0.8

// tight reports whether the budget is worth a word.
func (b Budget) tight() bool { return b.SpentUSD >= nearlyAll*b.USD }

// payer is somebody whose budget a turn is charged to.
type payer struct {
	bound Bound
	field string
}

// payers are those of a thread's turn, the widest first.
func payers(t Thread, user string) []payer {
	return []payer{
		{BoundAll, "all"},
		{BoundChannel, "channel " + t.Team + ":" + t.Channel},
		{BoundPerson, "person " + t.Team + ":" + user},
		{BoundThread, "thread " + t.Key()},
	}
}

func (st *store) spent(month string) string { return st.prefix + "spent:" + month }

// Spend adds up what a turn has cost by now, and returns the budgets that it is charged to, as they are then; 0 only looks. "": no turn is meant.
func (st *store) Spend(ctx context.Context, id TurnID, usd float64, c BudgetConfig, who []payer, now time.Time) ([]Budget, error) {
	args := []any{strconv.FormatFloat(usd, 'f', -1, 64), int(chargedFor.Seconds()), int(spentFor.Seconds())}
	for _, p := range who {
		args = append(args, p.field)
	}
	got, err := st.spend.Run(ctx, st.rdb, []string{st.prefix + "spent:turn:" + string(id), st.spent(CostMonth(now))}, args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("add up what turn %s has cost: %w", id, err)
	}
	number := func(i int) float64 {
		text, _ := got[i].(string)
		n, _ := strconv.ParseFloat(text, 64) // nothing is there yet
		return n
	}
	var out []Budget
	for i, p := range who {
		if limit := c.of(p.bound); limit > 0 {
			out = append(out, Budget{Bound: p.bound, USD: limit + number(len(who)+i), SpentUSD: number(i)})
		}
	}
	return out, nil
}

// Budgets are those of this month that a person's turns in a thread are charged to, the widest first. Where there is no bound there is none.
func (sv *Service) Budgets(ctx context.Context, t Thread, user string) ([]Budget, error) {
	s, err := sv.store.Settings(ctx, t.Team, t.Channel)
	if err != nil && !errors.Is(err, errDamaged) { // no turn runs with those
		return nil, err
	}
	return sv.store.Spend(ctx, "", 0, sv.cfg.Budgets.in(s.Settings), payers(t, user), time.Now())
}

// AllowMore raises a budget of this month, once for each mark; false: that was done before. by is who allows it, user whose turns it is for where it is
// a person's.
func (sv *Service) AllowMore(ctx context.Context, mark string, t Thread, bound Bound, user, by string, usd float64) (bool, error) {
	field := ""
	for _, p := range payers(t, user) {
		if p.bound == bound {
			field = "more " + p.field
		}
	}
	if field == "" {
		return false, fmt.Errorf("allow more: %q has no budget of its own", bound)
	}
	e := Entry{
		ID: string(BudgetRaised) + ":" + mark, What: BudgetRaised, By: by, Team: t.Team, Channel: t.Channel, Thread: t.TS, Raised: &Raised{Bound: bound, USD: usd},
	}
	if bound == BoundPerson {
		e.Raised.Person = user
	}
	sums := map[string]map[string]float64{sv.store.spent(CostMonth(time.Now())): {field: usd}}
	done, err := sv.store.addUp(ctx, "more:"+mark, t, "", "", spentFor, sums, &e)
	if err != nil {
		return false, fmt.Errorf("allow more for %s: %w", field, err)
	}
	return done > 0, nil
}

// spend adds up what the turn has cost by now, tries before this one included.
func (w *work) spend(ctx context.Context, usd float64) ([]Budget, error) {
	return w.sv.store.Spend(ctx, w.turn.ID, usd, w.budgets(), payers(w.turn.Thread, w.turn.User), time.Now())
}

// budgets are those that hold in the turn's channel.
func (w *work) budgets() BudgetConfig { return w.sv.cfg.Budgets.in(w.with.Settings) }

// perTurn is what this turn may cost; 0: there is no bound.
func (w *work) perTurn() float64 {
	if limit := w.sv.cfg.Budgets.PerTurn; limit > 0 {
		return limit + w.turn.MoreUSD
	}
	return 0
}

// findBudget looks what the turn may cost; nil: there is no bound.
func (w *work) findBudget(ctx context.Context) error {
	if !w.turn.isWork() || w.budgets().unbounded() {
		return nil
	}
	budgets, err := w.spend(ctx, 0)
	if err != nil {
		return err
	}
	left := math.Inf(1)
	if limit := w.perTurn(); limit > 0 {
		left = limit - w.note.SpentUSD
	}
	for _, b := range budgets {
		left = min(left, b.Left())
	}
	w.budget = &runner.Budget{USD: max(left, 0), Prices: w.sv.cfg.Budgets.Prices}
	return nil
}

// Once is what a run outside of any thread may cost, which is charged to nobody else's budget; nil: there is no bound.
func (c BudgetConfig) Once() *runner.Budget {
	if c.PerTurn <= 0 {
		return nil
	}
	return &runner.Budget{USD: c.PerTurn, Prices: c.Prices}
}

func (c BudgetConfig) unbounded() bool {
	return c.PerTurn <= 0 && c.PerThread <= 0 && c.PerPerson <= 0 && c.PerChannel <= 0 && c.All <= 0
}

// spentMore takes in what the runner says that the turn has cost, and has it stopped when that, with what others spend, uses up a budget.
func (w *work) spentMore(ctx context.Context, usd float64) {
	budgets, err := w.spend(ctx, w.note.SpentUSD+usd)
	if err != nil {
		w.log.WarnContext(ctx, "not added up yet what the turn has cost", "err", err)
		return
	}
	for _, b := range budgets {
		if b.Left() < 0 && !isClosed(w.broke) {
			w.log.InfoContext(ctx, "a budget is used up", "bound", b.Bound, "spent_usd", b.SpentUSD, "usd", b.USD)
			close(w.broke)
		}
	}
}

// standing is the budget that is worth a word with the outcome: the one that is used up, or else the one that nearly is; nil: none.
func (w *work) standing(out Outcome, budgets []Budget) *Budget {
	if limit := w.perTurn(); limit > 0 {
		budgets = append(budgets, Budget{Bound: BoundTurn, USD: limit, SpentUSD: out.CostUSD})
	}
	var most *Budget
	for _, b := range budgets {
		if b.Bound == BoundTurn && out.Failure != runner.FailBudget {
			continue // it is over
		}
		if out.Failure == runner.FailBudget && b.Left() > 0 { // it is another one, or was raised meanwhile
			continue
		}
		if b.tight() && (most == nil || b.SpentUSD/b.USD > most.SpentUSD/most.USD) {
			most = &b
		}
	}
	return most
}
