package runner

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// errand makes an errand for the machine's session.
func (m *machine) errand(e Errand) Turn {
	t := m.turn("")
	t.Errand = &e
	return t
}

// brought reads all of a payload.
func (m *machine) brought(out Outcome) []byte {
	m.t.Helper()
	var data []byte
	for int64(len(data)) < out.PayloadBytes {
		r := call[ResultReply](m, "result", ResultRequest{Turn: out.Turn, Offset: int64(len(data)), Payload: true})
		if len(r.Data) == 0 {
			m.t.Fatalf("the payload ends at byte %d of %d", len(data), out.PayloadBytes)
		}
		data = append(data, r.Data...)
	}
	return data
}

func TestErrand(t *testing.T) {
	t.Parallel()
	t.Run("it is done without Claude Code, once, and leaves the conversation alone", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.cfg.Claude = filepath.Join(t.TempDir(), "there-is-none")
		m.boot()
		repo := gitRepo(t, "main")
		look := m.errand(Errand{Kind: ErrandState})
		look.Repos = []Repo{{URL: repo}}
		out, answer := m.run(look, Secrets{})
		if out.Failure != FailNone || out.ExitCode != 0 || answer != "" || len(out.Repos) != 1 || out.CostUSD != 0 {
			t.Errorf("outcome = %+v, answer = %q", out, answer)
		}
		if r := m.take(look, Secrets{}); r.Status != StatusDone {
			t.Errorf("take again = %+v, want done", r)
		}
		if found, _ := filepath.Glob(filepath.Join(m.cfg.claudeDir(), "projects", "*", "*")); len(found) > 0 {
			t.Errorf("there is a transcript: %v", found)
		}
		if _, err := os.Lstat(filepath.Join(m.cfg.workspace(), "repo")); err == nil {
			t.Error("it has cloned")
		}
	})
	t.Run("one that this runner does not know is refused, and never begun", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		what := m.errand(Errand{Kind: "dance"})
		if r := m.take(what, Secrets{}); r.Status != StatusInvalid || r.Failure != FailErrand {
			t.Errorf("take = %+v", r)
		}
		if r := call[EventsReply](m, "events", EventsRequest{Turn: what.ID}); r.Status != StatusUnknown {
			t.Errorf("events = %+v", r)
		}
	})
}

// TestPayload: what an errand brings is kept until it is acknowledged, whatever becomes of the runner, and read in pieces.
func TestPayload(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cfg := m.cfg.withDefaults()
	if err := cfg.makeDirs(); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("\x00\xff of every kind\n"), 10000)
	rec := record{Outcome: Outcome{Turn: "T1:C1:errand-1", PayloadBytes: int64(len(want))}, payload: want}
	j, err := newJournal(cfg, rec.Outcome.Turn)
	if err != nil {
		t.Fatal(err)
	}
	j.close()
	if err := cfg.finish(rec.Outcome.Turn, rec); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if got := m.brought(rec.Outcome); !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, want the %d that were kept", len(got), len(want))
	}
	if r := call[ResultReply](m, "result", ResultRequest{Turn: rec.Outcome.Turn, Offset: 1 << 40, Payload: true}); len(r.Data) != 0 || r.Status != StatusDone {
		t.Errorf("behind its end = %+v", r)
	}
	call[AckReply](m, "ack", AckRequest{Turn: rec.Outcome.Turn, Fence: m.fence})
	names, _ := filepath.Glob(filepath.Join(cfg.own(), "turns", "*.payload"))
	if len(names) != 0 {
		t.Errorf("acknowledged, and still there: %s", strings.Join(names, " "))
	}
}
