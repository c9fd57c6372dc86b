package sessions

import (
	"slices"
	"time"

	"flaudebot/runner"
)

// Did is what the turns of a session came to, for the summary at its end.
type Did struct {
	Worked time.Duration `json:"worked,omitempty"` // of all turns, on the machine
	// Files are those that changed, each once, at most 100; More says that there were others.
	Files []string      `json:"files,omitempty"`
	Gone  []string      `json:"gone,omitempty"` // those of Files that turns have removed since
	More  bool          `json:"more,omitempty"`
	Pulls []runner.Pull `json:"pulls,omitempty"` // at most 10
}

const (
	maxDidFiles = 100
	maxDidPulls = 10
)

// add counts a turn.
func (d *Did) add(out Outcome) {
	d.Worked += max(out.Duration(), 0)
	d.addPulls(out.Pulls)
	if out.Changes == nil {
		return
	}
	d.More = d.More || out.Changes.Partial || out.Changes.Total > len(out.Changes.Files)
	for _, f := range out.Changes.Files {
		d.Gone = slices.DeleteFunc(d.Gone, func(path string) bool { return path == f.Path })
		if f.State == runner.ChangeRemoved {
			d.Gone = append(d.Gone, f.Path)
		}
		switch {
		case slices.Contains(d.Files, f.Path):
		case len(d.Files) == maxDidFiles:
			d.More = true
		default:
			d.Files = append(d.Files, f.Path)
		}
	}
}

// addPulls adds those that are not known yet.
func (d *Did) addPulls(all []runner.Pull) {
	for _, p := range all {
		if len(d.Pulls) < maxDidPulls && !slices.ContainsFunc(d.Pulls, func(q runner.Pull) bool { return q.URL == p.URL }) {
			d.Pulls = append(d.Pulls, runner.Pull{Dir: p.Dir, URL: p.URL, Number: p.Number})
		}
	}
}
