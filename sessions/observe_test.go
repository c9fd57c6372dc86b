package sessions

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tally is an observer that writes everything down.
type tally struct {
	mu    sync.Mutex
	told  []string // guarded by mu
	spent Cost     // guarded by mu
}

func (o *tally) tell(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, fmt.Sprintf(format, args...))
}

func (o *tally) TurnClaimed(t Turn, takeover bool)         { o.tell("claimed %s takeover %t", t.TS, takeover) }
func (o *tally) TurnLeft(t Turn, why Left)                 { o.tell("left %s %s", t.TS, why) }
func (o *tally) TurnSpent(t Turn, s Step, _ time.Duration) { o.tell("spent %s %s", t.TS, s) }
func (o *tally) TurnEnded(t Turn, out Outcome, _ time.Duration) {
	o.tell("ended %s %q %s", t.TS, out.Failure, out.Lane)
}

func (o *tally) Charged(c Cost) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spent.add(c)
}

// of are the lines that begin so.
func (o *tally) of(begin string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, line := range o.told {
		if strings.HasPrefix(line, begin) {
			out = append(out, strings.TrimPrefix(line, begin+" "))
		}
	}
	return out
}

// TestObserver: whoever counts is told of each thing where and when it happens, once for all replicas where it happens once.
func TestObserver(t *testing.T) {
	t.Parallel()
	b := newBot(t)
	asked := make(chan struct{})
	var ones, twos tally
	first := b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.Front, c.Observer = stuckFront{b.front, asked}, &ones }).start()
	one := first.accept(turn("101", "one", true))
	<-asked // it is charged, and not posted
	first.stop()
	second := b.replica(func(c *ServiceConfig, _ *MachinesConfig) { c.Observer = &twos }).start()
	b.answered(second, one)
	b.answered(second, second.accept(turn("102", "two", false)))
	b.until("it lets go of the turn", func() bool { return len(twos.of("left")) == 2 })

	check := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("the first claims", ones.of("claimed"), "101 takeover false")
	check("and leaves", ones.of("left"), "101 handed")
	check("and ends nothing", ones.of("ended"))
	check("the second takes over one and claims the other", twos.of("claimed"), "101 takeover true", "102 takeover false")
	check("both end there", twos.of("left"), "101 done", "102 done")
	check("each turn ends once", twos.of("ended"), `101 "" `, `102 "" start`)
	check("each waits in the queue once", append(ones.of("spent 101 queued"), twos.of("spent 101 queued")...), "spent 101 queued")
	steps := slices.DeleteFunc(ones.of("spent"), func(line string) bool { return line == "101 waking" }) // the machine may be up when it is first looked at
	check("the first has made the machine, and did not get further than to post", steps, "101 queued", "101 claimed", "101 creating", "101 posting")
	check("the second turn spent its time", twos.of("spent 102"), "queued", "claimed", "waking", "posting", "settling")
	if total := second.total(time.Now()); !near(ones.spent.ModelUSD+twos.spent.ModelUSD, total.ModelUSD, 1e-9) ||
		!near(ones.spent.MachineSeconds+twos.spent.MachineSeconds, total.MachineSeconds, 1e-6) || total.ModelUSD != 1 {
		t.Errorf("told of %+v and %+v, added up are %+v", ones.spent, twos.spent, total)
	}
}
