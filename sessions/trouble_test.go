package sessions

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// TestRedisTroubleInTurn: a turn runs while Redis refuses everything, whatever it says. The turn goes on in its machine, ends there
// with nobody watching, and its answer comes when Redis is well: once. Meanwhile nothing is accepted.
func TestRedisTroubleInTurn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, refusal string
		long          bool // longer than the lease: the turn is let go, and taken up again
	}{
		{"reading its data, for long", "LOADING Redis is loading the dataset in memory", true},
		{"a replica, for long", "READONLY You can't write against a read only replica.", true},
		{"another password, for long", "NOAUTH Authentication required.", true},
		{"cannot save, for a moment", "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", false},
		{"a script that does not end, for a moment", "BUSY Redis is busy running a script.", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			var log lockedLog
			r := b.replica(func(cfg *ServiceConfig, _ *MachinesConfig) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) }).start()
			one := r.accept(turn("101", "hold", true))
			b.until("a running turn", func() bool { return b.runner.ran(one.ID) == 1 })
			b.mini.SetError(c.refusal)
			if _, err := r.Accept(t.Context(), turn("102", "two", false)); err == nil || !strings.Contains(err.Error(), c.refusal) {
				t.Errorf("Accept = %v, want Redis's refusal", err)
			}
			if c.long {
				b.until("it is let go", func() bool { return strings.Contains(log.String(), "turn let go") })
			}
			b.runner.release()
			if n := len(b.front.of(one.ID, "1")); n != 0 {
				t.Errorf("%d answers while nobody knows whose the turn is, want none", n)
			}
			b.mini.SetError("")
			b.answered(r, one)
			if n := len(b.front.of(one.ID, "1")); n != 1 {
				t.Errorf("%d answers, want one", n)
			}
			if n := b.runner.ran(one.ID); n != 1 {
				t.Errorf("the turn ran %d times, want once", n)
			}
			if !c.long && strings.Contains(log.String(), "turn let go") {
				t.Error("the turn was let go, want its claim kept")
			}
			if out := b.answered(r, r.accept(turn("102", "two", false))); out.Answer != "answer to two" || out.Number != 2 {
				t.Errorf("the next turn ended with %+v", out)
			}
			b.have(1, 1)
		})
	}
}

type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
