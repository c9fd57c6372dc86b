package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"flaudebot/fly"
)

// execTimeout bounds one exec. Fly's exec is unreliable above 20 to 30 s.
const execTimeout = 20 * time.Second

// errRunner says that the machine answered and its runner did not.
var errRunner = errors.New("the runner does not answer")

// Target is a runner to talk to.
type Target struct {
	App     string
	Machine string
	Nonce   string // of the machine's lease, if we hold it
}

// Handover is how the bot talks to the runner in a machine: it asks one verb and gets one reply, both
// JSON. Asking again is always safe: the runner's verbs are idempotent.
type Handover interface {
	Call(ctx context.Context, at Target, verb string, request, reply any) error
}

// ExecHandover asks through the exec call of the Machines API: it works from anywhere, and sessions
// stay unreachable from the network.
type ExecHandover struct {
	Fly *fly.Client
}

// askRunner runs a verb, which is its $0. Nothing is documented of the environment of an exec: where the PATH is missing, or
// is not the image's, the runner is found all the same.
const askRunner = `PATH="${PATH:-/usr/bin:/bin}:/usr/local/bin" exec flaudebot runner "$0"`

// Call implements [Handover].
func (h ExecHandover) Call(ctx context.Context, at Target, verb string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode %s: %w", verb, err)
	}
	res, err := h.Fly.Exec(ctx, at.App, at.Machine, fly.Exec{
		Command: []string{"/bin/sh", "-c", askRunner, verb},
		Stdin:   string(body),
		Timeout: execTimeout,
	}, at.Nonce)
	if err != nil {
		return fmt.Errorf("ask the runner to %s: %w", verb, err)
	}
	if res.ExitCode != 0 && !json.Valid([]byte(res.Stdout)) { // else it answered, and was cut short since the machine ends
		return fmt.Errorf("ask the runner to %s: %w: exit %d: %s", verb, errRunner, res.ExitCode, firstLine(res.Stderr))
	}
	if err := json.Unmarshal([]byte(res.Stdout), reply); err != nil {
		return fmt.Errorf("decode the reply to %s: %w: %w", verb, errRunner, err)
	}
	return nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > 200 {
		s = s[:200]
	}
	return s
}

// machineStarter is a Handover that starts the machines itself: what it hands over is read at boot.
type machineStarter interface{ startsMachines() bool }

// starts reports whether machines are left stopped for the handover.
func (m *Machines) starts() bool {
	h, ok := m.cfg.Handover.(machineStarter)
	return ok && h.startsMachines()
}
