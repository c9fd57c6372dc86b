package runner

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The journal is one file a turn, turns/<turn>.ndjson below the runner's own folder: a line an event, numbered from
// 1, with Claude Code's own line beside it. turns/<turn>.json is the outcome, written in one go: a turn with a
// journal and without an outcome that is not running was interrupted. turns/<turn>.acked says that the bot has it.

// maxRaw bounds Claude Code's own line in the journal; the conversation's transcript has the whole.
const maxRaw = 16 << 10

// journal records one turn.
type journal struct {
	mu      sync.Mutex
	file    *os.File      // guarded by mu
	events  []Event       // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at every event
}

type journalLine struct {
	Event
	Raw string `json:"raw,omitempty"`
}

// record is the file of an outcome.
type record struct {
	Outcome Outcome `json:"outcome"`
	Answer  string  `json:"answer"`
}

// turnFile is where a turn's things are. Ids are Slack's, but a name never leaves the folder whatever they hold.
func (c Config) turnFile(turn, suffix string) string {
	safe := strings.Map(func(r rune) rune {
		if r < 128 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '-') {
			return r
		}
		return '_'
	}, turn)
	sum := sha256.Sum256([]byte(turn))
	return filepath.Join(c.own(), "turns", safe[:min(len(safe), 80)]+"-"+hex.EncodeToString(sum[:4])+suffix)
}

func newJournal(c Config, turn string) (*journal, error) {
	f, err := os.OpenFile(c.turnFile(turn, ".ndjson"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin the journal of %s: %w", turn, err)
	}
	j := &journal{file: f, changed: make(chan struct{})}
	if err := errors.Join(f.Sync(), syncDir(filepath.Dir(f.Name()))); err != nil {
		// A journal that may not be on disk must not make the turn look interrupted.
		return nil, errors.Join(fmt.Errorf("begin the journal of %s: %w", turn, err), f.Close(), os.Remove(f.Name()))
	}
	return j, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// add numbers an event and records it. A full disk costs the record, not the turn.
func (j *journal) add(e Event, raw string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.N, e.At, e.Text = len(j.events)+1, time.Now().UTC(), clip(e.Text, 2000)
	j.events = append(j.events, e)
	if line, err := json.Marshal(journalLine{Event: e, Raw: clip(raw, maxRaw)}); err == nil {
		_, _ = j.file.Write(append(line, '\n'))
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// after returns the events with N > n, and a channel that is closed at the next one.
func (j *journal) after(n int) ([]Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events[min(max(n, 0), len(j.events)):]), j.changed
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = j.file.Close()
	close(j.changed)
	j.changed = make(chan struct{})
}

// clip cuts text at a rune's end.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// finish writes the outcome, so that it is whole or not there.
func (c Config) finish(turn string, r record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the outcome: %w", err)
	}
	return writeFile(c.turnFile(turn, ".json"), raw)
}

// writeFile replaces a file in one go and waits until it is on disk.
func writeFile(name string, raw []byte) error {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// outcome reads what a turn came to; false: it has no outcome.
func (c Config) outcome(turn string) (record, bool) {
	raw, err := os.ReadFile(c.turnFile(turn, ".json"))
	var r record
	if err != nil || json.Unmarshal(raw, &r) != nil {
		return record{}, false
	}
	return r, true
}

// heard reports whether the turn was ever accepted.
func (c Config) heard(turn string) bool {
	_, err := os.Lstat(c.turnFile(turn, ".ndjson"))
	return err == nil
}

// kept reads the events of a turn of an earlier boot. A torn last line is passed over.
func (c Config) kept(turn string) []Event {
	raw, err := os.ReadFile(c.turnFile(turn, ".ndjson"))
	if err != nil {
		return nil
	}
	var out []Event
	lines := bufio.NewReader(bytes.NewReader(raw))
	for {
		line, err := lines.ReadBytes('\n')
		var e Event
		if json.Unmarshal(line, &e) == nil {
			out = append(out, e)
		}
		if err != nil {
			return out
		}
	}
}

func (c Config) fenceFile() string { return filepath.Join(c.own(), "fence") }

// fence reads the newest fencing token seen on this volume.
func (c Config) fence() (int64, error) {
	raw, err := os.ReadFile(c.fenceFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the fence: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the fence: %w", err)
	}
	return n, nil
}

// unacked lists turns with an outcome that nobody acknowledged, the oldest first.
func (c Config) unacked() []string {
	names, _ := filepath.Glob(filepath.Join(c.own(), "turns", "*.json"))
	var all []Outcome
	for _, name := range names {
		if _, err := os.Lstat(strings.TrimSuffix(name, ".json") + ".acked"); err == nil {
			continue
		}
		var r record
		if raw, err := os.ReadFile(name); err == nil && json.Unmarshal(raw, &r) == nil {
			all = append(all, r.Outcome)
		}
	}
	slices.SortFunc(all, func(a, b Outcome) int { return a.EndedAt.Compare(b.EndedAt) })
	out := make([]string, len(all))
	for i, o := range all {
		out[i] = o.Turn
	}
	return out
}
