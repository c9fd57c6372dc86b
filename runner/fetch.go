package runner

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// bring does the errands about what a turn changed.
func (t *turn) bring(ctx context.Context) (Outcome, string) {
	out, err := t.brought(ctx)
	if err != nil {
		return Outcome{Failure: FailErrand, Error: err.Error()}, ""
	}
	return out, ""
}

func (t *turn) brought(ctx context.Context) (out Outcome, err error) {
	rec, ok := t.cfg.outcome(t.Errand.Of)
	if !ok || rec.Outcome.Changes == nil {
		return out, errors.New("what that turn changed is not known any more")
	}
	changes := rec.Outcome.Changes
	if t.Errand.Kind == ErrandChanges {
		return Outcome{Changes: changes}, nil
	}
	if t.Errand.Kind == ErrandDiff {
		if t.payload, err = os.ReadFile(t.cfg.diffFile(t.Errand.Of)); errors.Is(err, fs.ErrNotExist) {
			err = errors.New("the diff of that turn is not kept any more")
		}
		sum := *changes
		sum.Files = nil // each reply with a piece of the diff would hold them
		return Outcome{Changes: &sum}, err
	}
	root, err := os.OpenRoot(t.cfg.workspace())
	if err != nil {
		return out, err
	}
	defer func() { _ = root.Close() }()
	if n := t.Errand.File; n > 0 {
		if n > len(changes.Files) {
			return out, errors.New("that turn changed no such file")
		}
		one := changes.Files[n-1]
		if t.payload, err = fetch(root, one.Path, maxPayload); err != nil {
			return out, fmt.Errorf("fetch %s: %w", one.Path, err)
		}
		return Outcome{Changes: &Changes{Files: []Change{one}, Total: 1}}, nil
	}
	return t.pack(ctx, root, changes)
}

// pack puts all files of the changes that are there, as they are now, into a ZIP archive, as many as there is room for.
func (t *turn) pack(ctx context.Context, root *os.Root, changes *Changes) (Outcome, error) {
	hide := redactor(t.secrets) // what is packed does not look as it does outside
	packed := &Changes{Total: changes.Total}
	var archive bytes.Buffer
	to := zip.NewWriter(&archive)
	room := int64(maxPayload)
	for _, one := range changes.Files {
		if one.State == ChangeRemoved || strings.HasSuffix(one.Path, "/") {
			packed.Total--
			continue
		}
		raw, err := fetch(root, one.Path, room)
		if err != nil || ctx.Err() != nil {
			packed.Partial = true
			continue
		}
		room -= int64(len(raw))
		w, err := to.Create(strings.ReplaceAll(hide.Replace(one.Path), `\`, "_")) // which some take for a folder's end
		if err == nil {
			_, err = io.WriteString(w, hide.Replace(string(raw)))
		}
		if err != nil {
			return Outcome{}, fmt.Errorf("pack %s: %w", one.Path, err)
		}
		packed.Files = append(packed.Files, one)
	}
	if err := errors.Join(to.Close(), ctx.Err()); err != nil {
		return Outcome{}, fmt.Errorf("pack the files: %w", err)
	}
	if len(packed.Files) == 0 {
		return Outcome{}, errors.New("none of the files is there any more, or each is too large")
	}
	t.payload = archive.Bytes()
	return Outcome{Changes: packed}, nil
}

// fetch reads a file of the workspace that has at most so many bytes. Nothing leads out of the workspace, and no link is followed at the end.
func fetch(root *os.Root, name string, most int64) ([]byte, error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("it is not there any more")
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no file")
	case info.Size() > most:
		return nil, fmt.Errorf("it has %d KB, and no more than %d KB can be fetched", info.Size()>>10, most>>10)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		return nil, errors.New("it is another one by now")
	}
	return io.ReadAll(io.LimitReader(f, most))
}
