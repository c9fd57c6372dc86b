package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// An errand is a turn whose program is the runner itself: what people ask of the workspace with a button. It is taken, journaled,
// stopped and acknowledged as any other turn, and runs once as they do.

// maxPayload bounds what an errand brings, in bytes: it travels in pieces of some 30 KiB, each an exec, of which Fly allows about one a second.
const maxPayload = 8 << 20

// check refuses an errand that this runner cannot do.
func (e Errand) check(repos []Repo) error {
	switch e.Kind {
	case ErrandState, ErrandChanges, ErrandDiff, ErrandGet:
		return nil
	case ErrandPublish:
		return e.Publish.check(repos)
	case ErrandRescue:
		if e.Rescue == nil {
			return errors.New("it does not say where to push")
		}
		return CheckBranch(e.Rescue.Branch)
	}
	return fmt.Errorf("the runner of this machine knows no errand %q", e.Kind)
}

// errand does the turn's errand. Its outcome has the states of the repositories where it looked at them.
func (t *turn) errand(ctx context.Context) (Outcome, string) {
	t.phase(PhaseRunning)
	out, answer := t.doErrand(ctx)
	switch {
	case t.stopped() && out.Failure != FailNone:
		return t.cut(Outcome{Repos: out.Repos}), ""
	case out.Failure != FailNone && out.ExitCode == 0:
		out.ExitCode = 1
	case len(t.payload) > maxPayload:
		t.payload = nil
		return Outcome{ExitCode: 1, Failure: FailErrand, Error: fmt.Sprintf("what was asked for is larger than %d MB", maxPayload>>20)}, ""
	}
	return out, answer
}

func (t *turn) doErrand(ctx context.Context) (Outcome, string) {
	switch t.Errand.Kind {
	case ErrandPublish:
		return t.publish(ctx), ""
	case ErrandRescue:
		return t.rescue(ctx), ""
	case ErrandState:
	case ErrandChanges, ErrandDiff, ErrandGet:
		return t.bring(ctx)
	}
	return Outcome{Repos: t.cfg.repoStates(t.Repos)}, ""
}

// payload reads at most n bytes of what an errand brought, from an offset on.
func (c Config) payload(rec *record, from int64, n int) ([]byte, error) {
	from = min(max(from, 0), rec.Outcome.PayloadBytes)
	n = int(min(int64(n), rec.Outcome.PayloadBytes-from))
	if rec.payload != nil {
		return rec.payload[from:][:n], nil
	}
	if n == 0 {
		return nil, nil
	}
	f, err := os.Open(c.turnFile(rec.Outcome.Turn, ".payload"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data := make([]byte, n)
	if got, err := f.ReadAt(data, from); err != nil && !(errors.Is(err, io.EOF) && got == n) {
		return nil, fmt.Errorf("read the payload of %s: %w", rec.Outcome.Turn, err)
	}
	return data, nil
}
