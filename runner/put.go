package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
)

// What is put for a turn is bounded, so that attachments do not fill the volume: the conversation and the outcome need
// room on it too.
const (
	maxPutPrompt = 8 << 20   // bytes; Claude Code takes no more than 10 MB
	maxPutFile   = 32 << 20  // bytes
	maxPutTurn   = 128 << 20 // bytes, all of a turn's
	minFree      = 32 << 20  // bytes that must stay free on the volume
)

// putName matches what may be put. Letters, marks and digits are those of any script.
var putName = regexp.MustCompile(`^(prompt|file/[\pL\pN_-][\pL\pM\pN._-]*)$`)

// maxPutName is the longest name of what is put, in bytes: file systems take 255.
const maxPutName = 126

func isPutName(name string) bool { return len(name) <= maxPutName && putName.MatchString(name) }

// putDir is where the owner with that fence puts a turn's files: what an earlier one began does not mix with it.
func (c Config) putDir(turn string, fence int64) string {
	return filepath.Join(c.turnFile(turn, ".put"), strconv.FormatInt(fence, 10))
}

func putPath(dir, name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }

func (s *server) put(_ context.Context, r PutRequest) PutReply {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.admit(r.Fence); err != nil {
		return refusePut(err)
	}
	s.stayFor()
	if _, err := os.Lstat(s.cfg.putDir(r.Turn, r.Fence)); err != nil {
		s.dropPuts()
	}
	size, err := s.cfg.putChunk(r)
	if err != nil {
		if r.Name != "prompt" {
			err = refused{err, FailFile}
		}
		return refusePut(err)
	}
	return PutReply{Status: StatusOK, Size: size}
}

func refusePut(err error) PutReply {
	status, failure, reason := refusal(err)
	return PutReply{Status: status, Failure: failure, Reason: reason}
}

// stayFor has a runner that lingers wait anew for the turn that is being put. One that goes already lets it be put: the
// take will be told.
func (s *server) stayFor() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.settled.IsZero() {
		s.settled = s.asked
	}
}

// putChunk writes a chunk, and returns how many bytes of the file there are.
func (c Config) putChunk(r PutRequest) (int64, error) {
	if !isPutName(r.Name) || r.Offset < 0 {
		return 0, errors.New("a name must be prompt or file/NAME")
	}
	dir := c.putDir(r.Turn, r.Fence)
	path := putPath(dir, r.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, err
	}
	have := size(path)
	if r.Offset > have {
		return 0, fmt.Errorf("bytes %d to %d are missing", have, r.Offset)
	}
	if err := c.mayGrow(dir, r, have); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = f.WriteAt(r.Data, r.Offset)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return size(path), nil
}

// mayGrow refuses a chunk that would take more than the turn may have, or more than the volume can spare.
func (c Config) mayGrow(dir string, r PutRequest, have int64) error {
	end := r.Offset + int64(len(r.Data))
	most := int64(maxPutFile)
	if r.Name == "prompt" {
		most = maxPutPrompt
	}
	if end > most {
		return fmt.Errorf("it is larger than %d MB", most>>20)
	}
	more := end - have
	if more <= 0 {
		return nil
	}
	if all := treeSize(dir); all+more > maxPutTurn {
		return fmt.Errorf("all that was put for this turn is larger than %d MB", maxPutTurn>>20)
	}
	if free, err := freeBytes(c.Data); err == nil && free-more < minFree {
		return fmt.Errorf("%w: %d MB are free", errFull, free>>20)
	}
	return nil
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec,unconvert // types differ between systems
}

func treeSize(dir string) int64 {
	var all int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read takes no part
		}
		if info, err := d.Info(); err == nil {
			all += info.Size()
		}
		return nil
	})
	return all
}

// dropPuts removes what was put for turns that were never taken, and by earlier owners. s.changing must be held.
func (s *server) dropPuts() {
	s.mu.Lock()
	t := s.running
	s.mu.Unlock()
	names, _ := filepath.Glob(filepath.Join(s.cfg.own(), "turns", "*.put"))
	for _, name := range names {
		if t == nil || filepath.Dir(t.puts) != name {
			_ = os.RemoveAll(name)
		}
	}
}

// whole checks that an attachment arrived as it was sent.
func (f File) whole(path string) error {
	raw, err := f.read(path)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(raw); f.SHA256 != "" && hex.EncodeToString(sum[:]) != f.SHA256 {
		return fmt.Errorf("attachment %s did not arrive whole", f.Name)
	}
	return nil
}

// read reads an attachment that was put. An empty one has no chunks; what an earlier try put behind its end is not its.
func (f File) read(path string) ([]byte, error) {
	if f.Size == 0 {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("attachment %s was not put", f.Name)
	}
	if int64(len(raw)) < f.Size || f.Size < 0 {
		return nil, fmt.Errorf("attachment %s did not arrive whole", f.Name)
	}
	return raw[:f.Size], nil
}
