package runner

import (
	"archive/zip"
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// brings runs an errand about a turn, and returns what it brings.
func (m *machine) brings(e Errand, sec Secrets) (Outcome, []byte) {
	m.t.Helper()
	turn := m.turn("")
	turn.Errand = &e
	out, _ := m.run(turn, sec)
	var got []byte
	for int64(len(got)) < out.PayloadBytes {
		r := call[ResultReply](m, "result", ResultRequest{Turn: turn.ID, Offset: int64(len(got)), Payload: true})
		if len(r.Data) == 0 {
			m.t.Fatalf("result = %+v, want more of %d bytes", r, out.PayloadBytes)
		}
		got = append(got, r.Data...)
	}
	return out, got
}

func unpacked(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name] = string(text)
	}
	return out
}

func TestFetch(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	sec := Secrets{GitToken: "ghp_0123456789abcdef"}
	turn := m.turn(`sh: set -eu; mkdir d; echo one > d/a.txt; printf 'x\000ghp_0123456789abcdef' > bin; ln -s /etc/passwd link; : > empty; echo x > later; echo y > moves; seq 20000 > long`)
	out, _ := m.run(turn, sec)
	number := func(path string) int {
		return 1 + slices.IndexFunc(out.Changes.Files, func(c Change) bool { return c.Path == path })
	}
	ws := m.cfg.workspace()
	t.Run("what a turn changed", func(t *testing.T) {
		got, _ := m.brings(Errand{Kind: ErrandChanges, Of: turn.ID}, sec)
		if got.Changes.told() != out.Changes.told() || got.Changes.Total != 7 || got.Changes.DiffBytes != out.Changes.DiffBytes {
			t.Errorf("changes = %+v, want %+v", got.Changes, out.Changes)
		}
	})
	t.Run("its diff, as it was at its end", func(t *testing.T) {
		inShell(t, ws, "echo changed > d/a.txt")
		got, raw := m.brings(Errand{Kind: ErrandDiff, Of: turn.ID}, sec)
		kept, err := os.ReadFile(m.cfg.diffFile(turn.ID))
		if err != nil || !bytes.Equal(raw, kept) || !bytes.Contains(raw, []byte("+one\n")) || got.Changes == nil || got.Changes.Total != 7 || len(got.Changes.Files) > 0 {
			t.Errorf("diff = %d bytes of %d, %v", len(raw), len(kept), err)
		}
	})
	t.Run("a file, as it is now", func(t *testing.T) {
		got, raw := m.brings(Errand{Kind: ErrandGet, Of: turn.ID, File: number("d/a.txt")}, sec)
		if string(raw) != "changed\n" || len(got.Changes.Files) != 1 || got.Changes.Files[0].Path != "d/a.txt" {
			t.Errorf("%q, %+v", raw, got.Changes)
		}
		if _, raw := m.brings(Errand{Kind: ErrandGet, Of: turn.ID, File: number("long")}, sec); bytes.Count(raw, []byte("\n")) != 20000 {
			t.Errorf("a long one has %d bytes", len(raw))
		}
	})
	t.Run("known secrets are hidden, also in what is no text", func(t *testing.T) {
		if _, raw := m.brings(Errand{Kind: ErrandGet, Of: turn.ID, File: number("bin")}, sec); string(raw) != "x\x00[redacted]" {
			t.Errorf("%q", raw)
		}
	})
	t.Run("what is no file, and nothing outside of the workspace", func(t *testing.T) {
		secret := filepath.Join(m.cfg.RunDir, "moves")
		inShell(t, ws, `rm later moves; mkdir later; echo outside > "$1"; mv d away; ln -s "$2" d; echo outside > "$2/a.txt"; ln -s "$1" moves`, secret, m.cfg.RunDir)
		for name, want := range map[string]string{"link": "it is no file", "later": "it is no file", "moves": "it is no file", "d/a.txt": "escapes"} {
			got, raw := m.brings(Errand{Kind: ErrandGet, Of: turn.ID, File: number(name)}, sec)
			if got.Failure != FailErrand || len(raw) > 0 || !strings.Contains(got.Error, want) {
				t.Errorf("%s: %+v, %q, want it refused: %s", name, got, raw, want)
			}
		}
		for what, e := range map[string]Errand{"a file that it did not change": {Kind: ErrandGet, Of: turn.ID, File: 99}, "another turn": {Kind: ErrandGet, Of: "x"}, "its diff": {Kind: ErrandDiff, Of: "x"}} {
			if got, raw := m.brings(e, sec); got.Failure != FailErrand || len(raw) > 0 {
				t.Errorf("%s: %+v, %q", what, got, raw)
			}
		}
	})
	t.Run("all that are there, in an archive", func(t *testing.T) {
		got, raw := m.brings(Errand{Kind: ErrandGet, Of: turn.ID}, sec)
		files := unpacked(t, raw)
		if names := slices.Sorted(maps.Keys(files)); !slices.Equal(names, []string{"bin", "empty", "long"}) || files["bin"] != "x\x00[redacted]" {
			t.Errorf("the archive holds %q", names)
		}
		if c := got.Changes; len(c.Files) != 3 || c.Total != 7 || !c.Partial {
			t.Errorf("told are %+v", c)
		}
	})
	t.Run("too large a file", func(t *testing.T) {
		inShell(t, ws, "rm long; truncate -s 9M long")
		got, _ := m.brings(Errand{Kind: ErrandGet, Of: turn.ID, File: number("long")}, sec)
		if got.Failure != FailErrand || !strings.Contains(got.Error, "no more than 8192 KB can be fetched") {
			t.Errorf("%+v", got)
		}
		if got, raw := m.brings(Errand{Kind: ErrandGet, Of: turn.ID}, sec); len(unpacked(t, raw)) != 2 || !got.Changes.Partial {
			t.Errorf("%+v, want the others", got.Changes)
		}
	})
}
