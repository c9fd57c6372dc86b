package fly

import (
	"encoding/json"
	"io"
	"net/http"
)

// Trouble is what is wrong with a machine until the next word on it. It is not kept over a restart of the stand-in.
type Trouble struct {
	Machine    string `json:"machine"`     // its id; "": of the lists
	Host       string `json:"host"`        // unreachable or unknown: the config is not shown, no call reaches it, its end waits
	Stuck      bool   `json:"stuck"`       // a boot does not come to its end
	StaleMS    int    `json:"stale_ms"`    // for how long after a change of state the former one is still shown
	EmptyLists int    `json:"empty_lists"` // how many lists of machines come back empty, for machine ""
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
	s.trouble[t.Machine] = t
	if m != nil && m.State == "destroying" && !t.unreachable() {
		s.finishDestroy(m)
	}
	s.touch()
	answer(w, 200, map[string]any{"ok": true})
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
