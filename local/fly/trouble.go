package fly

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// Trouble is what is wrong with a machine until the next word on it. It is not kept over a restart of the stand-in.
type Trouble struct {
	Machine    string `json:"machine"`     // its id; "": of the lists
	Host       string `json:"host"`        // unreachable or unknown: the config is not shown, no call reaches it, its end waits
	Stuck      bool   `json:"stuck"`       // a boot does not come to its end
	StuckIn    string `json:"stuck_in"`    // the machine does not leave this state: created, starting, stopping, replacing or destroying
	VolumeGone bool   `json:"volume_gone"` // its volume is lost at once and for good: it is listed no more, and the machine does not start
	GBOfMB     int    `json:"gb_of_mb"`    // from now on each GB of its volume holds so many MB, while it is stopped and as root on Linux; 0: the host's disk is the bound
	StaleMS    int    `json:"stale_ms"`    // for how long after a change of state the former one is still shown
	EmptyLists int    `json:"empty_lists"` // how many lists of machines come back empty, for machine ""
	NoVolumes  int    `json:"no_volumes"`  // how many lists of volumes come back empty, for machine ""
	NewMS      int    `json:"new_ms"`      // for how long what was made is in no list yet, for machine ""
	// Full says why Fly makes nothing in a region, region → one of region, host, placement, volume, quota, payment and account; "*" stands
	// for all regions. Of host also: what is stopped there does not start. For machine "".
	Full map[string]string `json:"full"`
}

// fullness is a refusal for want of room or of means, in Fly's own words.
type fullness struct {
	status     int
	text, code string
	volumes    bool // it is said of volumes, and of machines otherwise
}

func fullnesses(region string) map[string]fullness {
	return map[string]fullness{
		"region":    {422, "could not find a candidate host", "insufficient_capacity", false},
		"host":      {409, "aborted: could not reserve resource for machine: insufficient memory available to fulfill request", "", false},
		"placement": {412, "insufficient resources to create new machine with existing volume id 'vol_x'", "volume_placement_capacity", false},
		"volume":    {400, "no capacity", "", true},
		"quota": {
			403, fmt.Sprintf("organization \"personal\" is using 204800 MB of memory in %s which is over the allowed quota. please consider other regions", region), "", false,
		},
		"payment": {422, "To create more than 1 machine per app please add a payment method. https://fly.io/dashboard/personal/billing", "", false},
		"account": {422, "We need your payment information to continue! Add a credit card or buy credit: https://fly.io/dashboard/personal/billing", "", true},
	}
}

// room refuses what there is no room for in a region. s.mu must be held.
func (s *Server) room(region string, volume bool) error {
	why, ok := s.trouble[""].Full[region]
	if !ok {
		why = s.trouble[""].Full["*"]
	}
	f, ok := fullnesses(region)[why]
	if !ok || f.volumes != volume {
		return nil
	}
	return &apiError{status: f.status, text: f.text, code: f.code}
}

// holds reports whether the machine is kept in the state.
func (t Trouble) holds(state string) bool {
	return t.StuckIn == state || t.Stuck && state == "starting"
}

func (t Trouble) unreachable() bool { return t.Host == "unreachable" || t.Host == "unknown" }

// takeTrouble is POST /local/trouble: a [Trouble] in place of what was said of the machine before.
func (s *Server) takeTrouble(w http.ResponseWriter, r *http.Request) {
	var t Trouble
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&t); err != nil {
		answer(w, 200, map[string]any{"ok": false, "error": "invalid_json: " + err.Error()})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.state.Machines[t.Machine]
	if t.Machine != "" && m == nil {
		answer(w, 200, map[string]any{"ok": false, "error": "no_machine"})
		return
	}
	if t.GBOfMB > 0 {
		if err := s.bound(m, t.GBOfMB); err != nil {
			answer(w, 200, map[string]any{"ok": false, "error": "not_bound: " + err.Error()})
			return
		}
	}
	s.trouble[t.Machine] = t
	if m != nil {
		s.goOn(m, t)
	}
	s.touch()
	answer(w, 200, map[string]any{"ok": true})
}

// goOn takes a machine out of a state that it was kept in, if it is not any more. s.mu must be held.
func (s *Server) goOn(m *machine, t Trouble) {
	if t.VolumeGone {
		s.loseVolume(m)
	}
	switch {
	case m.State == "destroying" && !t.unreachable() && !t.holds("destroying"):
		s.finishDestroy(m)
	case m.State == "stopping" && !t.holds("stopping") && s.procs[m.ID] == nil:
		m.enter("stopped")
	}
}

// loseVolume takes the machine's volume away, as its host's end would. What runs keeps what it has open. s.mu must be held.
func (s *Server) loseVolume(m *machine) {
	cfg, err := m.config()
	if err != nil {
		return
	}
	for _, mount := range cfg.Mounts {
		delete(s.state.Volumes, mount.Volume)
		s.unbound(mount.Volume)
		_ = os.RemoveAll(s.volumeDir(mount.Volume)) // as much as the machine lets go
	}
}

// unlisted reports whether what was made then is in no list yet. s.mu must be held.
func (s *Server) unlisted(createdAt string) bool {
	at, err := time.Parse(time.RFC3339Nano, createdAt)
	return err == nil && time.Since(at) < time.Duration(s.trouble[""].NewMS)*time.Millisecond
}

// killFromOutside is POST /local/kill: it ends a machine as its host would.
func (s *Server) killFromOutside(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Machine string `json:"machine"`
		OOM     bool   `json:"oom_killed"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&in); err != nil {
		answer(w, 200, map[string]any{"ok": false, "error": "invalid_json: " + err.Error()})
		return
	}
	s.mu.Lock()
	p := s.procs[in.Machine]
	if p != nil {
		p.note.oom = in.OOM
	}
	s.mu.Unlock()
	if p == nil {
		answer(w, 200, map[string]any{"ok": false, "error": "not_running"})
		return
	}
	p.kill()
	answer(w, 200, map[string]any{"ok": true})
}
