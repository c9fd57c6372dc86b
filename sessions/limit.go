package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/runner"
)

// When a turn reaches the usage limit of Claude's subscription, Claude Code says when that resets. All turns are on the same credential, so all
// that have not begun wait for it, each at the head of its thread and outside of any replica, and go on by themselves. The turn that met the limit
// is run again: to the runner that is another turn, since it never does one twice.

const (
	// longestLimit is the longest that a limit is waited for: a week is the longest that Claude's subscriptions have.
	longestLimit = 8 * 24 * time.Hour
	// afterReset is how long after the reset the first turn goes on, since clocks differ.
	afterReset = time.Second
	// spread is over how long turns go on then, those that were asked for first before the others.
	spread = 3 * time.Second
)

// goOn stands before the prompt of a turn that had begun.
const goOn = "You had begun with what follows when your usage limit was reached. It has reset: go on where you stopped.\n\n"

// limitedError says that a turn waits until Claude's usage limit has reset.
type limitedError struct{ until time.Time }

func (e *limitedError) Error() string {
	return "Claude's usage limit resets at " + e.until.Format(time.RFC3339)
}

// pause is how long a turn waits from now that was asked for at a time.
func (e *limitedError) pause(asked, now time.Time) time.Duration {
	waits := max(e.until.Sub(asked), 0)
	return max(e.until.Sub(now), 0) + afterReset + time.Duration(float64(spread)/(1+waits.Hours()))
}

// awaitLimit has a turn that has not begun put off while the limit is reached. Who does not want to wait may stop it.
func (w *work) awaitLimit(ctx context.Context, s Session) error {
	if !w.turn.isWork() || w.stage != StageClaimed || isClosed(w.claim.Cancelled()) {
		return nil
	}
	until, err := w.sv.store.Limit(ctx)
	if err != nil {
		return err
	}
	if !time.Now().Before(until) {
		return nil
	}
	return w.hold(ctx, s, until)
}

// hold shows what the turn waits for, and puts it off.
func (w *work) hold(ctx context.Context, s Session, until time.Time) error {
	w.note.Limits++
	if err := w.write(ctx, w.stage); err != nil {
		return err
	}
	p := Progress{Step: StepWaiting, Since: w.note.Claimed, Note: "Claude's usage limit is reached: this goes on by itself when it resets", Until: until}
	if err := w.sv.cfg.Front.Hold(ctx, s, w.turn, w.note.Live, p); err != nil && ctx.Err() == nil {
		w.log.WarnContext(ctx, "not shown that the turn waits for Claude's usage limit", "err", err)
	}
	return &limitedError{until}
}

// startsOver reports whether the turn is to be run again when the limit that it reached has reset.
func (w *work) startsOver(out Outcome, now time.Time) bool {
	return w.turn.isWork() && out.Failure == runner.FailLimit && !isClosed(w.claim.Cancelled()) &&
		out.LimitResets.After(now.Add(-time.Minute)) && out.LimitResets.Before(now.Add(longestLimit))
}

// startOver has all turns wait for the reset, and this one begin anew then.
func (w *work) startOver(ctx context.Context, s *Session, out Outcome) error {
	if err := w.sv.store.SetLimit(ctx, out.LimitResets); err != nil {
		return err
	}
	if err := w.save(ctx, *s); err != nil {
		return err
	}
	met := w.note
	w.note.Try++
	w.note.Nonce = ""
	w.note.SpentUSD += out.CostUSD
	w.note.Begun = w.note.Begun || len(out.Tools) > 0
	if err := w.write(ctx, StageClaimed); err != nil { // a next owner comes here again
		return err
	}
	if w.turn.Kind == KindTurn {
		if err := w.settleTry(ctx, s, met); err != nil {
			return err
		}
	}
	return w.hold(ctx, *s, out.LimitResets)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (st *store) limit() string { return st.prefix + "limit" }

// SetLimit notes when Claude's usage limit resets.
func (st *store) SetLimit(ctx context.Context, until time.Time) error {
	rest := time.Until(until)
	if rest <= 0 {
		return nil
	}
	if err := st.rdb.Set(ctx, st.limit(), until.UnixMilli(), rest).Err(); err != nil {
		return fmt.Errorf("note Claude's usage limit: %w", err)
	}
	return nil
}

// Limit is when Claude's usage limit resets; zero: it is not reached.
func (st *store) Limit(ctx context.Context) (time.Time, error) {
	ms, err := st.rdb.Get(ctx, st.limit()).Int64()
	switch {
	case errors.Is(err, redis.Nil):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("look whether Claude's usage limit is reached: %w", err)
	}
	return time.UnixMilli(ms), nil
}
