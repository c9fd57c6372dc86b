package claude

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

var notAlnum = regexp.MustCompile(`[^A-Za-z0-9]`)

// file is the transcript of a session in this directory, where Claude Code keeps it.
func (a *agent) file(session string) string {
	dir := a.env["CLAUDE_CONFIG_DIR"]
	if dir == "" {
		dir = filepath.Join(a.env["HOME"], ".claude")
	}
	return filepath.Join(dir, "projects", notAlnum.ReplaceAllString(a.cwd, "-"), session+".jsonl")
}

// open finds or begins the conversation; false: the code to end with.
func (a *agent) open() (code int, ok bool) {
	cwd, err := os.Getwd()
	if err == nil {
		cwd, err = filepath.EvalSymlinks(cwd)
	}
	if err != nil {
		fmt.Fprintln(a.errOut, err)
		return 1, false
	}
	a.cwd = cwd
	a.session = a.sessionID
	if a.resume != "" {
		return a.reopen()
	}
	if a.session == "" {
		a.session = newUUID()
	}
	a.transcript = a.file(a.session)
	if _, err := os.Stat(a.transcript); err == nil {
		fmt.Fprintf(a.errOut, "Error: Session ID %s is already in use.\n", a.session)
		return 1, false
	}
	return 0, true
}

// reopen goes on with an old conversation, or with a copy of it under a new id.
func (a *agent) reopen() (code int, ok bool) {
	before := load(a.file(a.resume))
	if before == nil {
		text := "No conversation found with session ID: " + a.resume
		fmt.Fprintln(a.errOut, text)
		a.session = a.resume
		if !uuidForm.MatchString(a.session) {
			a.session = newUUID()
		}
		r := a.resultEvent("error_during_execution", a.begin())
		delete(r, "terminal_reason")
		r["num_turns"], r["errors"] = 0, []string{text}
		a.emit(r)
		return 1, false
	}
	if !a.fork {
		a.session, a.messages = a.resume, before
		a.transcript = a.file(a.session)
		return 0, true
	}
	if a.session == "" {
		a.session = newUUID()
	}
	a.transcript = a.file(a.session)
	for _, m := range before {
		a.add(m)
	}
	return 0, true
}

// load reads a transcript; nil: there is none. A line that was cut short is passed over.
func load(name string) []message {
	raw, err := os.ReadFile(name)
	if err != nil || len(raw) == 0 {
		return nil
	}
	out := []message{}
	for line := range bytes.Lines(raw) {
		var l struct {
			Type    string  `json:"type"`
			Message message `json:"message"`
		}
		if json.Unmarshal(line, &l) == nil && (l.Type == "user" || l.Type == "assistant") {
			out = append(out, l.Message)
		}
	}
	return answered(out)
}

// answered leaves out the uses of tools that never got a result, as Claude Code does on resuming: the API takes none.
func answered(all []message) []message {
	results := map[string]bool{}
	for _, m := range all {
		for _, b := range m.blocks() {
			results[b.ToolUseID] = true
		}
	}
	out := []message{}
	for _, m := range all {
		open := false
		for _, b := range m.blocks() {
			open = open || b.Type == "tool_use" && !results[b.ID]
		}
		if !open {
			out = append(out, m)
		}
	}
	return out
}

// add appends a message to the conversation and to the transcript. As with Claude Code, a transcript that cannot be written
// fails no turn: who starts it has to look.
func (a *agent) add(m message) {
	a.messages = append(a.messages, m)
	if a.unkept {
		return
	}
	raw, _ := json.Marshal(map[string]any{
		"type": m.Role, "message": m, "sessionId": a.session, "uuid": newUUID(), "cwd": a.cwd, "version": version, "timestamp": stamp(),
	})
	_ = os.MkdirAll(filepath.Dir(a.transcript), 0o700)
	f, err := os.OpenFile(a.transcript, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			raw = append([]byte("\n"), raw...) // a line was cut short there
		}
	}
	_, _ = f.Write(append(raw, '\n'))
}

func stamp() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
