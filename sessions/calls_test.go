package sessions

import (
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
)

// refusedCall is the name of calls that were too many.
const refusedCall = "refused"

// callName is how a call of Fly's is named in docs/calls.md, which is what the local Fly names it too.
func callName(call string) string {
	f := strings.Fields(call)
	if f[2] == strconv.Itoa(http.StatusTooManyRequests) {
		return refusedCall
	}
	path := regexp.MustCompile(`/(machines|volumes)/[^/]+`).ReplaceAllString(strings.TrimPrefix(f[1], "/v1/apps/"+testApp), "/$1/ID")
	switch f[0] + " " + path {
	case "GET ":
		return "app.get"
	case "GET /volumes":
		return "volume.list"
	case "POST /volumes":
		return "volume.create"
	case "POST /machines":
		return "machine.create"
	case "GET /machines/ID":
		return "machine.get"
	case "POST /machines/ID":
		return "machine.update"
	case "DELETE /machines/ID/lease":
		return "machine.lease-release"
	case "GET /api/v1/apps/" + testApp + "/logs":
		return "logs"
	}
	return "machine." + path[strings.LastIndex(path, "/")+1:]
}

// counted are the calls since the last count, by name; what was refused with 412 and waited out is left out.
func (w *world) counted() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for _, call := range w.calls {
		if !strings.HasSuffix(call, " "+strconv.Itoa(http.StatusPreconditionFailed)) {
			out[callName(call)]++
		}
	}
	w.calls = nil
	return out
}

// lanes runs a turn in each lane, and tells what it cost. With look it waits until the machine has come to rest, which costs calls of its own.
func lanes(t *testing.T, tk *talk, way string, look bool, lane func(name string, calls map[string]int)) {
	t.Helper()
	tk.counted()
	turn := func(name, prompt string) {
		t.Helper()
		out, nonce := tk.unsettled(tk.run(prompt))
		if out.Failure != "" {
			t.Fatalf("%s: %+v", name, out)
		}
		calls := tk.counted()
		if look && way == "config" { // the runner ends by itself: how soon is not counted
			tk.until("a stopped machine", func() bool { return tk.state() == "stopped" })
			tk.counted()
		}
		if err := tk.m.Settle(t.Context(), tk.s, TurnID(out.Turn), int64(tk.turns), nonce); err != nil {
			t.Fatal(err)
		}
		for name, n := range tk.counted() {
			calls[name] += n
		}
		if name != "" { // it only has the machine linger
			lane(name, calls)
		}
		if look && tk.m.linger(tk.s) == 0 {
			tk.rested()
		}
	}
	turn(way+": first turn", "one")
	if way == "config" {
		turn("config: later turn", "two")
		return
	}
	turn("exec: machine is stopped", "two")
	tk.m = tk.world.machines(func(cfg *MachinesConfig) {
		tk.transport(cfg)
		cfg.Fly = tk.m.cfg.Fly
		cfg.Handover = ExecHandover{Fly: cfg.Fly}
		cfg.LeaseTTL, cfg.Settings.LingerSeconds = time.Minute, 60
	})
	turn("", "three")
	turn("exec: machine lingers", "four")
}

// rested waits until the machine may be started again.
func (tk *talk) rested() {
	tk.t.Helper()
	tk.until("a machine at rest", func() bool {
		mach := tk.machine()
		exit, ok := mach.LastExit()
		return mach.State == "stopped" && ok && time.Since(exit.At) > 600*time.Millisecond
	})
	tk.counted()
}

// newCountedTalk has machines whose boots take long enough to be waited for.
func newCountedTalk(t *testing.T, way string, cfg localfly.Config, client func(url string) *fly.Client) *talk {
	t.Helper()
	cfg.BootDelay = 800 * time.Millisecond
	tk := newTalkOn(t, transports()[way], cfg)
	tk.m = tk.world.machines(func(m *MachinesConfig) {
		if client != nil {
			m.Fly = client(tk.url)
		}
		tk.transport(m)
		m.LeaseTTL = time.Minute
	})
	return tk
}

// TestCalls: docs/calls.md says what a turn costs in calls.
func TestCalls(t *testing.T) {
	t.Parallel()
	table := callsTable(t)
	for _, way := range []string{"exec", "config"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			tk := newCountedTalk(t, way, localfly.Config{}, nil)
			lanes(t, tk, way, true, func(lane string, calls map[string]int) {
				want := table[lane]
				if want == nil {
					t.Fatalf("docs/calls.md has no column %q", lane)
				}
				for _, name := range slices.Sorted(maps.Keys(calls)) {
					if want[name] == "" {
						t.Errorf("%s: %d calls of %s, which docs/calls.md does not name", lane, calls[name], name)
					}
				}
				for name, cell := range want {
					least, more := strings.CutSuffix(cell, "+")
					n, err := strconv.Atoi(least)
					if err != nil || calls[name] < n || !more && calls[name] > n {
						t.Errorf("%s: %d calls of %s, docs/calls.md says %s", lane, calls[name], name, cell)
					}
				}
			})
		})
	}
}

// callsTable is the table of docs/calls.md: lane → call → number.
func callsTable(t *testing.T) map[string]map[string]string {
	t.Helper()
	raw, err := os.ReadFile("../docs/calls.md")
	if err != nil {
		t.Fatal(err)
	}
	var head []string
	out := map[string]map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if head == nil {
			head = cells
			continue
		}
		for i, lane := range head[2:] {
			if out[lane] == nil {
				out[lane] = map[string]string{}
			}
			out[lane][cells[0]] = cells[i+2]
		}
	}
	return out
}

// TestCallsWithinLimits: no turn in any lane runs into Fly's rate limits.
func TestCallsWithinLimits(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"exec", "config"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			tk := newCountedTalk(t, way, localfly.Config{RateLimits: true}, func(url string) *fly.Client {
				c, err := fly.New(fly.Config{BaseURL: url, LogsBaseURL: url, Token: "fly-local", Tries: 1})
				if err != nil {
					t.Fatal(err)
				}
				return c
			})
			lanes(t, tk, way, false, func(lane string, calls map[string]int) {
				// The client keeps the limits by its own clock: on a busy machine a call may be late on its way, and the next one come too close behind it.
				if n := calls[refusedCall]; n > 1 {
					t.Errorf("%s: %d calls were refused", lane, n)
				}
			})
		})
	}
}
