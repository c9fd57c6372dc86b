package fly

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// bound gives the volume of a stopped machine a file system of its own, of as many times mb MB as it has GB, with what it holds. It grows when its
// machine boots after it was extended, as on Fly. It is lost with the stand-in. s.mu must be held.
func (s *Server) bound(m *machine, mb int) error {
	if m == nil || m.State != "stopped" {
		return errors.New("the machine is not stopped")
	}
	cfg, err := m.config()
	if err != nil || len(cfg.Mounts) == 0 {
		return errors.Join(errors.New("the machine has no volume"), err)
	}
	id := cfg.Mounts[0].Volume
	if s.bounds[id] != 0 {
		return errors.New("its volume has its bound")
	}
	v, dir := s.state.Volumes[id], s.volumeDir(id)
	aside := filepath.Join(s.cfg.Dir, "aside-"+id)
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // a file system's root
		return err
	}
	if err := mountBounded(dir, v.SizeGB*mb, false); err != nil {
		return err
	}
	s.bounds[id] = mb
	if out, err := exec.CommandContext(s.ctx, "cp", "-a", aside+"/.", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("fill the smaller volume: %w: %s", err, out)
	}
	return os.RemoveAll(aside)
}

// grow gives a volume that was extended its new size, at the boot of its machine. s.mu must be held.
func (s *Server) grow(cfg config) error {
	for _, mount := range cfg.Mounts {
		if mb := s.bounds[mount.Volume]; mb != 0 {
			return mountBounded(s.volumeDir(mount.Volume), s.state.Volumes[mount.Volume].SizeGB*mb, true)
		}
	}
	return nil
}

// unbound takes a volume's file system away, with all that is on it. s.mu must be held.
func (s *Server) unbound(id string) {
	if s.bounds[id] == 0 {
		return
	}
	delete(s.bounds, id)
	if err := unmount(s.volumeDir(id)); err != nil {
		s.log.Error("volume not unmounted", "volume", id, "err", err)
	}
}
