package fly

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// configFile is a file of a machine's config: it is written at each boot, before the main process starts.
type configFile struct {
	GuestPath string `json:"guest_path"`
	RawValue  string `json:"raw_value"` // base64
	Mode      uint32 `json:"mode"`      // a number: octal 0600 is 384; 0: 0644
}

// check refuses a file as Fly does, or since it would be the host's: a machine here has its own /run, /tmp and volume, and no more.
func (f configFile) check(mount string) error {
	p := f.GuestPath
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		return fail(400, "invalid_argument: file %q must have an absolute path", p)
	}
	if _, err := base64.StdEncoding.DecodeString(f.RawValue); err != nil {
		return fail(400, "invalid_argument: file %s: raw_value is not base64", p)
	}
	for _, own := range []string{"/run", "/tmp", mount} {
		if strings.HasPrefix(p, own+"/") {
			return nil
		}
	}
	return fail(400, "invalid_argument: file %s: the local Fly writes files below /run, /tmp and the volume's path only", p)
}

// write puts the file to where place says that its path is.
func (f configFile) write(place func(guest string) string) error {
	raw, err := base64.StdEncoding.DecodeString(f.RawValue)
	if err != nil {
		return fmt.Errorf("file %s: %w", f.GuestPath, err)
	}
	mode := fs.FileMode(f.Mode)
	if mode == 0 {
		mode = 0o644
	}
	at := place(f.GuestPath)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil { //nolint:gosec // a machine's file system
		return fmt.Errorf("file %s: %w", f.GuestPath, err)
	}
	_ = os.Remove(at) // of an earlier boot
	return errors.Join(os.WriteFile(at, raw, mode), os.Chmod(at, mode))
}

// writeTree writes files into a folder of the host that stands for the machine's root; "": there are none.
func writeTree(files []configFile) (string, error) {
	if len(files) == 0 {
		return "", nil
	}
	root, err := os.MkdirTemp("", "fb-files-")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if err := f.write(func(guest string) string { return filepath.Join(root, guest) }); err != nil {
			return "", errors.Join(err, os.RemoveAll(root))
		}
	}
	return root, nil
}
