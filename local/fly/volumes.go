package fly

import (
	"cmp"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

var volumeName = regexp.MustCompile(`^[a-z0-9_]{1,30}$`)

func (s *Server) routeVolumes(mux *http.ServeMux) {
	const all = "/v1/apps/{app}/volumes"
	mux.HandleFunc("GET "+all, s.limited("volume-list", 200, s.listVolumes))
	mux.HandleFunc("POST "+all, s.limited("volume-create", 200, s.createVolume))
	mux.HandleFunc("GET "+all+"/{id}", s.limited("volume-get", 200, s.volumeCall(s.getVolume)))
	mux.HandleFunc("PUT "+all+"/{id}", s.limited("volume-update", 200, s.volumeCall(s.updateVolume)))
	mux.HandleFunc("PUT "+all+"/{id}/extend", s.limited("volume-extend", 200, s.volumeCall(s.extendVolume)))
	mux.HandleFunc("DELETE "+all+"/{id}", s.limited("volume-delete", 200, s.volumeCall(s.deleteVolume)))
}

func (s *Server) volumeDir(id string) string { return filepath.Join(s.cfg.Dir, "volumes", id) }

// volumeCall finds the volume, under the lock.
func (s *Server) volumeCall(do func(*http.Request, *volume) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget()
		v := s.state.Volumes[r.PathValue("id")]
		if v == nil || v.OwnedBy != r.PathValue("app") {
			return nil, fail(404, "not_found: volume not found")
		}
		return do(r, v)
	}
}

// shownVolume is the volume as a caller sees it: a copy. s.mu must be held.
func (s *Server) shownVolume(v *volume) volume {
	out := *v
	if v.Machine != nil && s.trouble[*v.Machine].unreachable() {
		out.HostStatus = s.trouble[*v.Machine].Host
	}
	return out
}

func (s *Server) listVolumes(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	s.forget()
	out := []volume{}
	if t := s.trouble[""]; t.NoVolumes > 0 {
		t.NoVolumes--
		s.trouble[""] = t
		return out, nil
	}
	for _, v := range s.state.Volumes {
		if v.OwnedBy == r.PathValue("app") && !s.unlisted(v.CreatedAt) {
			out = append(out, s.shownVolume(v))
		}
	}
	slices.SortFunc(out, func(a, b volume) int {
		return cmp.Or(strings.Compare(a.CreatedAt, b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

func (s *Server) createVolume(r *http.Request) (any, error) {
	var in struct {
		Name       string `json:"name"`
		Region     string `json:"region"`
		SizeGB     *int   `json:"size_gb"`
		Encrypted  *bool  `json:"encrypted"`
		Retention  *int   `json:"snapshot_retention"`
		AutoBackup *bool  `json:"auto_backup_enabled"`
		FSType     string `json:"fstype"`
		Source     string `json:"source_volume_id"`
		Snapshot   string `json:"snapshot_id"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	size := 3 // Fly's default
	if in.SizeGB != nil {
		size = *in.SizeGB
	}
	switch {
	case !volumeName.MatchString(in.Name):
		status := 422
		if s.cfg.Unsettled.VolumeNameIs400 {
			status = 400
		}
		return nil, fail(status, "Validation failed: volume name must be lowercase letters, digits and underscores, at most 30")
	case size < 1 || size > 500:
		return nil, fail(422, "Validation failed: size_gb must be between 1 and 500")
	case in.Source != "" || in.Snapshot != "":
		return nil, fail(501, "unimplemented: the local Fly makes no volume of another one or of a snapshot")
	}
	region := in.Region
	if s.cfg.Unsettled.VolumeTakesRegions || region == "" {
		region = s.place(region)
	} else if region == "any" || regionsOf(region) != nil || strings.Contains(region, ",") {
		return nil, fail(400, "invalid_argument: %q is no region", region)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	if err := s.room(region, true); err != nil {
		return nil, err
	}
	v := &volume{
		ID: "vol_" + newHex(17), Name: in.Name, State: "created", SizeGB: size, Region: region, Zone: newHex(4),
		Encrypted: or(in.Encrypted, true), CreatedAt: stamp(), FSType: cmp.Or(in.FSType, "ext4"), HostStatus: "ok",
		Retention: or(in.Retention, 5), AutoBackup: or(in.AutoBackup, true), BytesTotal: int64(size) << 30,
		OwnedBy: r.PathValue("app"),
	}
	if err := os.MkdirAll(s.volumeDir(v.ID), 0o755); err != nil { //nolint:gosec // a file system's root
		return nil, err
	}
	s.state.Volumes[v.ID] = v
	s.touch()
	return s.shownVolume(v), nil
}

func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

func (s *Server) getVolume(_ *http.Request, v *volume) (any, error) {
	out := s.shownVolume(v)
	_ = filepath.WalkDir(s.volumeDir(v.ID), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it is being written: what can be read is counted
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			out.BytesUsed += info.Size()
		}
		return nil
	})
	return out, nil
}

func (s *Server) updateVolume(r *http.Request, v *volume) (any, error) {
	var in struct {
		Retention  *int  `json:"snapshot_retention"`
		AutoBackup *bool `json:"auto_backup_enabled"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	v.Retention, v.AutoBackup = or(in.Retention, v.Retention), or(in.AutoBackup, v.AutoBackup)
	s.touch()
	return s.shownVolume(v), nil
}

func (s *Server) extendVolume(r *http.Request, v *volume) (any, error) {
	var in struct {
		SizeGB int `json:"size_gb"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.SizeGB < v.SizeGB || in.SizeGB > 500 {
		return nil, fail(422, "Validation failed: a volume only grows, to 500 GB at most")
	}
	v.SizeGB, v.BytesTotal = in.SizeGB, int64(in.SizeGB)<<30
	s.touch()
	needsRestart := s.bounds[v.ID] != 0 && v.Machine != nil && s.procs[*v.Machine] != nil
	return map[string]any{"volume": s.shownVolume(v), "needs_restart": needsRestart}, nil
}

func (s *Server) deleteVolume(_ *http.Request, v *volume) (any, error) {
	if v.Machine != nil {
		return nil, fail(412, "failed_precondition: volume is currently bound to machine: %s", *v.Machine)
	}
	if err := s.dropVolume(v); err != nil {
		return nil, err
	}
	s.touch()
	return s.shownVolume(v), nil
}

// dropVolume removes what is on it; its name goes on for a day. s.mu must be held.
func (s *Server) dropVolume(v *volume) error {
	if v.State == "pending_destroy" {
		return nil
	}
	v.State, v.DeletedAt = "pending_destroy", time.Now().UnixMilli()
	s.unbound(v.ID)
	return os.RemoveAll(s.volumeDir(v.ID))
}

// attach binds the machine's volume to it, or frees it. s.mu must be held.
func (s *Server) attach(m *machine, cfg config, on bool) {
	for _, mount := range cfg.Mounts {
		if v := s.state.Volumes[mount.Volume]; v != nil && (v.Machine == nil || *v.Machine == m.ID) {
			v.Machine, v.Alloc = nil, nil
			if on {
				v.Machine, v.Alloc = &m.ID, &m.ID
			}
		}
	}
}

// dropOrphans removes the volumes of an app that is gone, once no machine has them. s.mu must be held.
func (s *Server) dropOrphans(app string) {
	if s.state.Apps[app] != nil {
		return
	}
	for v := range maps.Values(s.state.Volumes) {
		if v.OwnedBy == app && v.Machine == nil {
			if err := s.dropVolume(v); err != nil {
				s.log.Error("volume not removed", "volume", v.ID, "err", err)
			}
		}
	}
}
