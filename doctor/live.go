package doctor

import (
	"context"
	"fmt"
	"time"

	"flaudebot/sessions"
)

// LivePrompt is short to answer, and says whether it was.
const LivePrompt = "say: flaudebot is well"

// Live runs one turn, whose prompt is [LivePrompt], on a machine of its own, measures what a session would take on the way, and destroys the machine,
// also when ctx ends.
func Live(ctx context.Context, m *sessions.Machines, r sessions.Run, secrets []string) []Finding {
	var out []Finding
	says := map[string]string{
		sessions.TrialCreate: "a machine was made and its runner answered after %s",
		sessions.TrialExec:   "Fly's exec takes %s",
		sessions.TrialStop:   "the machine stopped in %s",
		sessions.TrialWake:   "a stopped machine was awake after %s",
		sessions.TrialTurn:   "Claude Code answered a turn in %s",
	}
	res, err := m.Trial(ctx, r, func(what string, took time.Duration) { out = append(out, ok(says[what], seconds(took))) })
	const fix = "mend what is said above, or see docs/operations.md"
	switch {
	case ctx.Err() != nil:
		out = append(out, warn("run it again", "the live run was interrupted"))
	case err != nil:
		out = append(out, bad(fix, "the live run did not come to its end: %s", err))
	case res.Outcome.Failure != "" || res.ExitCode != 0:
		out = append(out, bad(fix, "the turn of the live run failed (%s, exit %d): %s", res.Outcome.Failure, res.ExitCode, res.Outcome.Error))
	}
	switch {
	case res.MachineID == "":
	case res.Destroyed:
		out = append(out, ok("the machine %s is destroyed", res.MachineID))
	default:
		out = append(out, bad("fly machine destroy --force "+res.MachineID, "the machine %s is still there", res.MachineID))
	}
	for i := range out {
		out[i].About = "live"
	}
	return Redacted(out, secrets)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
