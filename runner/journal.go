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
	"syscall"
	"time"
)

// The journal is one file a turn, turns/<turn>.ndjson below the runner's own folder: a line an event, numbered from
// 1, with Claude Code's own line beside it; a line of Claude Code that is no event is kept without a number. turns/<turn>.json is the outcome, written in one go: a turn with a
// journal and without an outcome that is not running was interrupted. turns/<turn>.acked says that the bot has it. turns/<turn>.payload, written
// before the outcome, is what an errand brings, until the bot has it.

// What the journals take of the volume is bounded; the conversation's transcript has the whole.
const (
	maxRaw      = 16 << 10 // bytes of one line of Claude Code's own
	maxRaws     = 8 << 20  // bytes of all such lines of a turn
	maxJournals = 30       // journals of acknowledged turns that are kept with their content
	maxTodos    = 16 << 10 // bytes of a task list in an event, as JSON
)

// journal records one turn.
type journal struct {
	mu      sync.Mutex
	file    *os.File      // guarded by mu
	events  []Event       // guarded by mu
	raws    int           // guarded by mu; bytes of Claude Code's own lines so far
	torn    bool          // guarded by mu; the last line may be incomplete
	changed chan struct{} // guarded by mu; closed and replaced at every event
}

type journalLine struct {
	Event
	Raw string `json:"raw,omitempty"`
}

// rawLine is a line that is no event.
type rawLine struct {
	At  time.Time `json:"at"`
	Raw string    `json:"raw"`
}

// record is the file of an outcome.
type record struct {
	Outcome Outcome `json:"outcome"`
	Answer  string  `json:"answer"`

	payload []byte // in a file of its own; nil when it is only there
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
	c.keepReserve()
	flags := os.O_CREATE | os.O_WRONLY
	if fenced {
		flags |= os.O_EXCL
	}
	begin := func() (*os.File, error) { return os.OpenFile(c.turnFile(turn, ".ndjson"), flags, 0o600) }
	f, err := begin()
	if errors.Is(err, syscall.ENOSPC) && c.dropReserve() {
		f, err = begin()
	}
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

// add numbers what a line of Claude Code's tells and records both. A full disk costs the record, not the turn.
func (j *journal) add(raw string, events ...Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	raw = clip(raw, maxRaw)
	if j.raws += len(raw); j.raws > maxRaws {
		raw = ""
	}
	now := time.Now().UTC()
	if len(events) == 0 {
		if raw != "" {
			j.write(rawLine{At: now, Raw: raw})
		}
		return
	}
	for _, e := range events {
		e.N, e.At = len(j.events)+1, now
		e.bound()
		j.events = append(j.events, e)
		j.write(journalLine{Event: e, Raw: raw})
		raw = ""
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// bound keeps an event small enough for a reply.
func (e *Event) bound() {
	e.Text, e.Tool, e.Model = clip(e.Text, 2000), clip(e.Tool, 200), clip(e.Model, 200)
	for len(e.Todos) > 1 && jsonSize(e.Todos) > maxTodos {
		e.Todos = e.Todos[:len(e.Todos)/2]
	}
}

// write appends a line. After one that did not fit it begins anew: only that one is lost. j.mu must be held.
func (j *journal) write(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		return
	}
	if j.torn {
		line = append([]byte{'\n'}, line...)
	}
	_, err = j.file.Write(append(line, '\n'))
	j.torn = err != nil
}

// after returns the events with N > n, and a channel that is closed at the next one.
func (j *journal) after(n int) ([]Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events[min(max(n, 0), len(j.events)):]), j.changed
}

// close waits until it is on disk, as far as the disk has room.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = j.file.Sync(), j.file.Close()
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
	if len(r.payload) > 0 {
		if err := c.save(c.turnFile(turn, ".payload"), r.payload); err != nil {
			return fmt.Errorf("keep the payload: %w", err)
		}
	}
	return c.save(c.turnFile(turn, ".json"), raw)
}

// reserveSize is kept on the volume for the outcome of the turn that fills it.
const reserveSize = 1 << 20

func (c Config) reserve() string { return filepath.Join(c.own(), "reserve") }

// keepReserve makes the reserve anew. Without room for it there is none.
func (c Config) keepReserve() {
	if size(c.reserve()) == reserveSize {
		return
	}
	if writeFile(c.reserve(), make([]byte, reserveSize)) != nil {
		_, _ = os.Remove(c.reserve()), os.Remove(c.reserve()+".new")
	}
}

func (c Config) dropReserve() bool { return os.Remove(c.reserve()) == nil }

// save is writeFile that falls back on the reserve when the disk is full.
func (c Config) save(name string, raw []byte) error {
	err := writeFile(name, raw)
	if err != nil && c.dropReserve() {
		err = writeFile(name, raw)
	}
	if err != nil {
		_ = os.Remove(name + ".new")
	}
	return err
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

// kept reads the events of a turn that is over. A torn line is passed over.
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
		if json.Unmarshal(line, &e) == nil && e.N > 0 {
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
	var all []Outcome
	for _, name := range c.outcomes() {
		if _, err := os.Lstat(name + ".acked"); err == nil {
			continue
		}
		var r record
		if raw, err := os.ReadFile(name + ".json"); err == nil && json.Unmarshal(raw, &r) == nil {
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

// outcomes names the files of all turns with an outcome, without what follows the dot.
func (c Config) outcomes() []string {
	names, _ := filepath.Glob(filepath.Join(c.own(), "turns", "*.json"))
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, ".json")
	}
	return names
}

// prune empties the journals of acknowledged turns but the newest, and removes their diffs: that they are there still says that the turn was
// heard of, and the outcome stays.
func (c Config) prune() {
	type old struct {
		name string
		at   time.Time
	}
	var all []old
	for _, name := range c.outcomes() {
		info, err := os.Lstat(name + ".ndjson")
		if _, notAcked := os.Lstat(name + ".acked"); err != nil || notAcked != nil || info.Size() == 0 {
			continue
		}
		all = append(all, old{name + ".ndjson", info.ModTime()})
	}
	slices.SortFunc(all, func(a, b old) int { return b.at.Compare(a.at) })
	for _, o := range all[min(maxJournals, len(all)):] {
		_ = os.Truncate(o.name, 0)
		_ = os.Remove(strings.TrimSuffix(o.name, ".ndjson") + ".diff")
	}
}
