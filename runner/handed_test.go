package runner

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// told are the messages of a turn that are read from lines.
func told(t *testing.T, turn string, key []byte, lines []string) []*LogMessage {
	t.Helper()
	r, err := NewLogReader(turn, key)
	if err != nil {
		t.Fatal(err)
	}
	var out []*LogMessage
	for _, line := range lines {
		if m := r.Read(line); m != nil {
			out = append(out, m)
		}
	}
	return out
}

// TestLogLines: what is told in a machine's log is read whole or not at all, whatever becomes of its lines.
func TestLogLines(t *testing.T) {
	t.Parallel()
	key, noise := NewLogKey(), make([]byte, 50<<10)
	_, _ = rand.Read(noise)
	text := base64.StdEncoding.EncodeToString(noise)
	var log bytes.Buffer
	w, err := newLogWriter(&log, "T1:C1:1.5", key)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []LogMessage{
		{Taken: &TakeReply{Status: StatusAccepted}},
		{Event: &Event{N: 1, Kind: KindText, Text: "secret"}},
		{End: &LogEnd{Outcome: Outcome{Turn: "T1:C1:1.5", ExitCode: 3}, Text: text, Data: noise[:10]}},
	} {
		if err := w.tell(m); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	whole := func(t *testing.T, got []*LogMessage, want int) {
		t.Helper()
		if len(got) != want {
			t.Errorf("%d messages were read, want %d", len(got), want)
		}
		for _, m := range got {
			if m.End != nil && (m.End.Text != text || m.End.Outcome.ExitCode != 3 || !bytes.Equal(m.End.Data, noise[:10])) {
				t.Errorf("the end is not what was told: %+v", m.End.Outcome)
			}
		}
	}
	t.Run("lines are short, and alone tell nothing", func(t *testing.T) {
		t.Parallel()
		if len(lines) < 20 {
			t.Errorf("there are %d lines, want many", len(lines))
		}
		for _, line := range lines {
			if len(line) > 2200 || strings.Contains(line, "secret") || strings.Contains(line, "T1:C1") {
				t.Errorf("line of %d bytes: %.100s", len(line), line)
			}
		}
	})
	t.Run("as they come", func(t *testing.T) { t.Parallel(); whole(t, told(t, "T1:C1:1.5", key, lines), 3) })
	t.Run("twice, backwards, with others in between", func(t *testing.T) {
		t.Parallel()
		all := slices.Concat(lines, []string{"", "runner: hello", "[flaudebot:", "2026 app[1] " + lines[0] + " \r"}, lines)
		slices.Reverse(all)
		whole(t, told(t, "T1:C1:1.5", key, all), 3)
	})
	t.Run("a missing one costs its message, until it comes", func(t *testing.T) {
		t.Parallel()
		whole(t, told(t, "T1:C1:1.5", key, lines[:len(lines)-1]), 2)
		whole(t, told(t, "T1:C1:1.5", key, slices.Concat(lines[:5], lines[6:], lines[5:6])), 3)
	})
	t.Run("a damaged one is as good as missing", func(t *testing.T) {
		t.Parallel()
		bad := slices.Clone(lines)
		bad[4] = bad[4][:len(bad[4])-20] + "AAAA" + bad[4][len(bad[4])-16:]
		whole(t, told(t, "T1:C1:1.5", key, bad), 2)
		whole(t, told(t, "T1:C1:1.5", key, append(bad, lines[4])), 3)
	})
	t.Run("what runs in the machine cannot forge one", func(t *testing.T) {
		t.Parallel()
		var forged bytes.Buffer
		f, err := newLogWriter(&forged, "T1:C1:1.5", NewLogKey())
		if err != nil {
			t.Fatal(err)
		}
		f.boot = w.boot
		if err := f.tell(LogMessage{Taken: &TakeReply{Status: StatusInterrupted}}); err != nil {
			t.Fatal(err)
		}
		whole(t, told(t, "T1:C1:1.5", key, append([]string{forged.String()}, lines...)), 3)
		// Nor can one message pass for another.
		whole(t, told(t, "T1:C1:1.5", key, []string{strings.Replace(lines[0], ".1:1/1", ".9:1/1", 1)}), 0)
	})
	t.Run("those of another turn are not read", func(t *testing.T) {
		t.Parallel()
		whole(t, told(t, "T1:C1:1.6", key, lines), 0)
	})
	t.Run("numbers that make no sense", func(t *testing.T) {
		t.Parallel()
		head := fmt.Sprintf("[flaudebot:%s:00000000", turnTag("T1:C1:1.5"))
		sum := fmt.Sprintf("%08x AAAA]", crc32.ChecksumIEEE([]byte{0, 0, 0}))
		for _, line := range []string{head + ".1:0/1:" + sum, head + ".1:2/1:" + sum, head + ".1:1/0:" + sum, head + ".1:1/99999:" + sum, head + ".1:1/1:" + sum} {
			whole(t, told(t, "T1:C1:1.5", key, []string{line}), 0)
		}
	})
}

// hand leaves something for the machine's next boot, as its config does.
func (m *machine) hand(h Handed) {
	m.t.Helper()
	raw, err := h.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	file, err := base64.StdEncoding.DecodeString(raw)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.MkdirAll(m.cfg.RunDir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.cfg.RunDir, filepath.Base(HandedPath)), file, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// handedBoot boots a machine with what it is handed, and returns what it told and its exit code. meanwhile is done when it is up.
func (m *machine) handedBoot(h Handed, meanwhile func()) ([]*LogMessage, int) {
	m.t.Helper()
	m.hand(h)
	m.start(nil)
	if meanwhile != nil {
		meanwhile()
	}
	code := m.exit()
	return told(m.t, h.Turn(), h.Key, strings.Split(m.out.String(), "\n")), code
}

// TestHanded: a runner does what its machine's config hands over, tells it in the log, and exits with the turn's code.
func TestHanded(t *testing.T) {
	t.Parallel()
	handed := func(m *machine, prompt string) Handed {
		turn := m.turn(prompt)
		return Handed{Key: NewLogKey(), Fence: 1, Take: &TakeRequest{Fence: 1, Turn: turn}}
	}
	t.Run("a turn, and again: it is told of again, and not run again", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		h := handed(m, "say hello")
		first, code := m.handedBoot(h, nil)
		if len(first) < 3 || first[0].Taken == nil || first[0].Taken.Status != StatusAccepted || code != 0 {
			t.Fatalf("told %v, and exited with %d", first, code)
		}
		end := first[len(first)-1].End
		if end == nil || end.Outcome.Failure != FailNone || int64(len(end.Text)) != end.Outcome.AnswerBytes {
			t.Fatalf("it ended with %+v", end)
		}
		if _, err := os.Stat(filepath.Join(m.cfg.RunDir, filepath.Base(HandedPath))); err == nil {
			t.Error("what was handed over is still on the disk")
		}
		h.Key = NewLogKey()
		again, code := m.handedBoot(h, nil)
		if again[0].Taken.Status != StatusDone || len(again) != len(first) || code != 0 {
			t.Errorf("again it told %d messages, first %+v, and exited with %d", len(again), again[0].Taken, code)
		}
		if diff := again[len(again)-1].End; diff.Text != end.Text || !diff.Outcome.EndedAt.Equal(end.Outcome.EndedAt) {
			t.Errorf("again it ended with %+v", diff)
		}
	})
	t.Run("without a take it tells what it knows", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		got, code := m.handedBoot(Handed{Key: NewLogKey(), Ask: "nobody"}, nil)
		if len(got) != 1 || got[0].Taken == nil || got[0].Taken.Status != StatusUnknown || code != 1 {
			t.Errorf("told %v, and exited with %d", got, code)
		}
	})
	t.Run("SIGUSR1 is a person's stop, SIGTERM the machine's end", func(t *testing.T) {
		t.Parallel()
		for sig, want := range map[syscall.Signal]Failure{syscall.SIGUSR1: FailStopped, syscall.SIGTERM: FailInterrupted} {
			m := newMachine(t)
			h := handed(m, "work:")
			got, code := m.handedBoot(h, func() {
				for m.hello().Running == "" { //nolint:revive // it is taken at any moment
				}
				m.working(h.Take.Turn)
				if err := m.cmd.Process.Signal(sig); err != nil {
					t.Error(err)
				}
			})
			if end := got[len(got)-1].End; end == nil || end.Outcome.Failure != want || code != 130 {
				t.Errorf("%s: it ended with %+v and exited with %d", sig, end, code)
			}
		}
	})
	t.Run("one that cannot be read leaves a runner that is asked by exec", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.hand(Handed{})
		if err := os.WriteFile(filepath.Join(m.cfg.RunDir, filepath.Base(HandedPath)), []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		m.boot()
	})
}
