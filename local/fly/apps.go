package fly

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

var appName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,61}$`)

func (s *Server) routeApps(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/apps", handle(200, s.listApps))
	mux.HandleFunc("POST /v1/apps", handle(201, s.createApp))
	mux.HandleFunc("GET /v1/apps/{app}", s.limited("app-get", 200, s.getApp))
	mux.HandleFunc("GET /v1/apps/{app}/network_policies", handle(200, s.listPolicies))
	mux.HandleFunc("POST /v1/apps/{app}/network_policies", handle(201, s.createPolicy))
	mux.HandleFunc("DELETE /v1/apps/{app}", func(w http.ResponseWriter, r *http.Request) {
		r.SetPathValue("id", "all") // the one limit that is not kept by app
		s.limited("app-delete", 202, s.deleteApp)(w, r)
	})
}

// shownApp is the app as a caller sees it. s.mu must be held.
func (s *Server) shownApp(a *app) map[string]any {
	machines, volumes := 0, 0
	for _, m := range s.state.Machines {
		if m.OwnedBy == a.Name && m.State != "destroyed" {
			machines++
		}
	}
	for _, v := range s.state.Volumes {
		if v.OwnedBy == a.Name && v.State == "created" {
			volumes++
		}
	}
	status := "pending"
	if machines > 0 {
		status = "deployed"
	}
	return map[string]any{
		"id": a.ID, "name": a.Name, "status": status, "network": a.Network, "machine_count": machines, "volume_count": volumes,
		"organization": map[string]any{"slug": a.Org, "name": a.Org},
	}
}

func (s *Server) listApps(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	apps := []map[string]any{}
	for _, a := range s.state.Apps {
		if org := r.URL.Query().Get("org_slug"); org == "" || org == a.Org {
			apps = append(apps, s.shownApp(a))
		}
	}
	slices.SortFunc(apps, func(a, b map[string]any) int { return strings.Compare(a["name"].(string), b["name"].(string)) })
	return map[string]any{"total_apps": len(apps), "apps": apps}, nil
}

func (s *Server) createApp(r *http.Request) (any, error) {
	var in struct {
		Name    string `json:"name"`
		AppName string `json:"app_name"` // as Fly's guides have it
		Org     string `json:"org_slug"`
		Network string `json:"network"`
		Key     string `json:"idempotency_key"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Name == "" {
		in.Name = in.AppName
	}
	if !appName.MatchString(in.Name) {
		return nil, fail(422, "Validation failed: Name under 63 chars using numbers, lowercase letters and dashes")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.state.Apps[in.Name]; a != nil {
		if in.Key == "" || in.Key != a.Key {
			return nil, &apiError{status: 422, text: "Validation failed: Name has already been taken", code: "name_taken"}
		}
		return map[string]any{"id": a.ID, "created_at": a.CreatedAt}, nil
	}
	for _, a := range s.state.Apps {
		if in.Key != "" && in.Key == a.Key {
			return nil, fail(422, "Validation failed: idempotency_key has been used for another name")
		}
	}
	a := &app{ID: newHex(14), Name: in.Name, Org: in.Org, Network: in.Network, Key: in.Key, CreatedAt: time.Now().UnixMilli()}
	s.state.Apps[in.Name] = a
	s.touch()
	return map[string]any{"id": a.ID, "created_at": a.CreatedAt}, nil
}

// appOf finds the request's app. s.mu must be held.
func (s *Server) appOf(r *http.Request) (*app, error) {
	a := s.state.Apps[r.PathValue("app")]
	if a == nil {
		return nil, fail(404, "Could not find App %q", r.PathValue("app"))
	}
	return a, nil
}

func (s *Server) getApp(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.appOf(r)
	if err != nil {
		return nil, err
	}
	return s.shownApp(a), nil
}

// deleteApp takes its machines and volumes with it.
func (s *Server) deleteApp(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.appOf(r)
	if err != nil {
		return nil, err
	}
	delete(s.state.Apps, a.Name)
	for _, m := range s.state.sorted() {
		if m.OwnedBy == a.Name {
			s.destroy(m)
		}
	}
	s.dropOrphans(a.Name)
	s.touch()
	return nil, nil
}

func (s *Server) listPolicies(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.appOf(r)
	if err != nil {
		return nil, err
	}
	return append([]policy{}, a.Policies...), nil
}

// createPolicy takes what the guide of network policies has, and no more.
func (s *Server) createPolicy(r *http.Request) (any, error) {
	var in policy
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Name == "" || len(in.Selector) == 0 || len(in.Rules) == 0 {
		return nil, fail(422, "a policy needs a name, a selector and rules")
	}
	for _, rule := range in.Rules {
		if rule.Action != "allow" || rule.Direction != "ingress" && rule.Direction != "egress" || len(rule.Ports) == 0 {
			return nil, fail(422, "a rule allows ingress or egress on some ports")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.appOf(r)
	if err != nil {
		return nil, err
	}
	in.ID = newHex(14)
	a.Policies = append(a.Policies, in)
	s.touch()
	return in, nil
}
