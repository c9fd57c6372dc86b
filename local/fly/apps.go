package fly

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

var (
	appName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	volumeName = regexp.MustCompile(`^[a-z0-9_]{1,30}$`)
)

// handle makes a handler of a function that answers with a value or a refusal.
func handle(status int, do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r)
		switch {
		case err != nil:
			answerError(w, err)
		case v == nil:
			w.WriteHeader(status)
		default:
			answer(w, status, v)
		}
	}
}

func (s *Server) routeApps(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/apps", handle(200, s.listApps))
	mux.HandleFunc("POST /v1/apps", handle(201, s.createApp))
	mux.HandleFunc("GET /v1/apps/{app}", handle(200, s.getApp))
	mux.HandleFunc("DELETE /v1/apps/{app}", handle(202, s.deleteApp))
	mux.HandleFunc("GET /v1/apps/{app}/volumes", handle(200, s.listVolumes))
	mux.HandleFunc("POST /v1/apps/{app}/volumes", func(w http.ResponseWriter, r *http.Request) {
		if s.limited(w, "volume-create", r.PathValue("app")) {
			handle(200, s.createVolume)(w, r)
		}
	})
	mux.HandleFunc("GET /v1/apps/{app}/volumes/{id}", handle(200, s.getVolume))
	mux.HandleFunc("PUT /v1/apps/{app}/volumes/{id}/extend", handle(200, s.extendVolume))
	mux.HandleFunc("DELETE /v1/apps/{app}/volumes/{id}", handle(200, s.deleteVolume))
	mux.HandleFunc("GET /api/v1/apps/{app}/logs", handle(200, s.readLogs))
}

func (a *app) shown(machines, volumes int) map[string]any {
	return map[string]any{
		"id": a.ID, "name": a.Name, "status": "deployed", "network": a.Network, "machine_count": machines, "volume_count": volumes,
		"organization": map[string]any{"slug": a.Org, "name": a.Org},
	}
}

// counted shows an app. s.mu must be held.
func (s *Server) counted(a *app) map[string]any {
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
	return a.shown(machines, volumes)
}

func (s *Server) listApps(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	apps := []any{}
	for _, a := range s.state.Apps {
		if org := r.URL.Query().Get("org_slug"); org == "" || org == a.Org {
			apps = append(apps, s.counted(a))
		}
	}
	return map[string]any{"total_apps": len(apps), "apps": apps}, nil
}

func (s *Server) createApp(r *http.Request) (any, error) {
	var in struct {
		Name    string `json:"name"`
		AppName string `json:"app_name"` // as Fly's guides have it
		Org     string `json:"org_slug"`
		Network string `json:"network"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Name == "" {
		in.Name = in.AppName
	}
	if !appName.MatchString(in.Name) {
		return nil, fail(422, "Validation failed: Name may only contain letters, numbers and dashes")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Apps[in.Name] != nil {
		return nil, &apiError{status: 422, text: "Validation failed: Name has already been taken", code: "name_taken"}
	}
	a := &app{ID: newHex(14), Name: in.Name, Org: in.Org, Network: in.Network}
	s.state.Apps[in.Name] = a
	s.touch()
	return map[string]any{"id": a.ID, "created_at": time.Now().UnixMilli()}, nil
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
	return s.counted(a), nil
}

func (s *Server) deleteApp(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.appOf(r)
	if err != nil {
		return nil, err
	}
	for _, m := range s.state.Machines {
		if m.OwnedBy == a.Name {
			s.destroy(m)
		}
	}
	delete(s.state.Apps, a.Name)
	s.touch()
	return nil, nil
}

func (s *Server) volumeDir(id string) string { return filepath.Join(s.cfg.Dir, "volumes", id) }

func (s *Server) listVolumes(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	out := []*volume{}
	for _, v := range s.state.Volumes {
		if v.OwnedBy == r.PathValue("app") && v.State != "destroyed" {
			out = append(out, v)
		}
	}
	return out, nil
}

func (s *Server) createVolume(r *http.Request) (any, error) {
	var in struct {
		Name   string `json:"name"`
		Region string `json:"region"`
		SizeGB *int   `json:"size_gb"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	size := 3 // Fly's default
	if in.SizeGB != nil {
		size = *in.SizeGB
	}
	if !volumeName.MatchString(in.Name) {
		return nil, fail(422, "Validation failed: volume name must be lowercase letters, digits and underscores, at most 30")
	}
	if size < 1 || size > 500 {
		return nil, fail(422, "Validation failed: size_gb must be between 1 and 500")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	v := &volume{
		ID: "vol_" + newHex(17), Name: in.Name, State: "created", SizeGB: size, Region: in.Region, Zone: "local", Encrypted: true,
		CreatedAt: stamp(), FSType: "ext4", Host: "ok", OwnedBy: r.PathValue("app"),
	}
	if err := os.MkdirAll(s.volumeDir(v.ID), 0o755); err != nil { //nolint:gosec // a file system's root
		return nil, err
	}
	s.state.Volumes[v.ID] = v
	s.touch()
	return v, nil
}

func (s *Server) volumeOf(r *http.Request) (*volume, error) {
	v := s.state.Volumes[r.PathValue("id")]
	if v == nil || v.OwnedBy != r.PathValue("app") {
		return nil, fail(404, "not_found: volume not found")
	}
	return v, nil
}

func (s *Server) getVolume(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.volumeOf(r)
	if err != nil {
		return nil, err
	}
	return *v, nil
}

func (s *Server) extendVolume(r *http.Request) (any, error) {
	var in struct {
		SizeGB int `json:"size_gb"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.volumeOf(r)
	if err != nil {
		return nil, err
	}
	if in.SizeGB < v.SizeGB || in.SizeGB > 500 {
		return nil, fail(422, "Validation failed: a volume only grows, to 500 GB at most")
	}
	v.SizeGB = in.SizeGB
	s.touch()
	return map[string]any{"volume": *v, "needs_restart": false}, nil
}

func (s *Server) deleteVolume(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.volumeOf(r)
	if err != nil {
		return nil, err
	}
	if v.Machine != nil {
		return nil, fail(412, "failed_precondition: volume is currently bound to machine: %s", *v.Machine)
	}
	v.State = "pending_destroy"
	if err := os.RemoveAll(s.volumeDir(v.ID)); err != nil {
		return nil, err
	}
	s.touch()
	return *v, nil
}
