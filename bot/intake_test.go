package bot

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLetAcksGo: what is not urgent waits until every event that came is acked, and not for ever.
func TestLetAcksGo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ acked, want time.Duration }{
		"nothing waits for an ack": {0, 0},
		"an event is acked":        {holdBack / 4, holdBack / 4},
		"events keep coming":       {2 * holdBack, holdBack},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &Bot{}
				if c.acked > 0 {
					b.intake.begin()
					time.AfterFunc(c.acked, b.intake.end)
				}
				began := time.Now()
				if !b.letAcksGo(t.Context()) {
					t.Error("it says that its context ended")
				}
				if waited := time.Since(began); waited != c.want {
					t.Errorf("it waits %s, want %s", waited, c.want)
				}
			})
		})
	}
}
