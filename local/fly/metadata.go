package fly

import (
	"encoding/json"
	"maps"
	"net/http"
)

func (m *machine) metadata() map[string]string {
	var out map[string]string
	_ = json.Unmarshal(m.Config["metadata"], &out) // checked when it came
	if out == nil {
		out = map[string]string{}
	}
	return out
}

// keepMetadata changes the machine's config without a new version of it. s.mu must be held.
func (s *Server) keepMetadata(m *machine, all map[string]string) (any, error) {
	for k, v := range all {
		if most := s.cfg.Unsettled.MetadataValue; most > 0 && len(v) > most {
			return nil, fail(400, "invalid_argument: the value of metadata %s is longer than %d bytes", k, most)
		}
	}
	raw, _ := json.Marshal(all)
	m.Config = maps.Clone(m.Config) // the old one may be on its way to a caller
	m.Config["metadata"] = raw
	m.UpdatedAt = stamp()
	s.touch()
	return nil, nil
}

func readMetadata(_ *http.Request, m *machine) (any, error) { return m.metadata(), nil }

func readMetadataKey(r *http.Request, m *machine) (any, error) {
	v, ok := m.metadata()[r.PathValue("key")]
	if !ok {
		return nil, fail(404, "not_found: no such metadata")
	}
	return map[string]string{"value": v}, nil
}

func (s *Server) setMetadata(r *http.Request, m *machine) (any, error) {
	all := m.metadata()
	if r.Method == http.MethodDelete {
		delete(all, r.PathValue("key"))
		return s.keepMetadata(m, all)
	}
	var in struct {
		Value string `json:"value"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	all[r.PathValue("key")] = in.Value
	return s.keepMetadata(m, all)
}

// patchMetadata sets several at once; null removes.
func (s *Server) patchMetadata(r *http.Request, m *machine) (any, error) {
	var in struct {
		Metadata map[string]*string `json:"metadata"`
		Version  string             `json:"machine_version"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Version != "" && in.Version != m.InstanceID {
		return nil, fail(412, "failed_precondition: machine version is %s", m.InstanceID)
	}
	all := m.metadata()
	for k, v := range in.Metadata {
		if v == nil {
			delete(all, k)
		} else {
			all[k] = *v
		}
	}
	return s.keepMetadata(m, all)
}
