package runner

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// outcome judges the run: good is a result that is no error from a process that ended well, and nothing else.
// stays: the process goes on, since a good or an interrupted turn lets it.
func (p *claudeProcess) outcome(t *turn, resume, stays bool) (Outcome, string) {
	s := p.stream
	out := Outcome{CostUSD: s.cost, Model: s.model, Resumed: resume, Usage: s.usage, Tools: s.toolsUsed()}
	answer := s.answer
	if answer == "" {
		answer = strings.Join(s.said, "\n\n")
	}
	if !stays {
		out.ExitCode = exitCode(p.state, p.err)
	}
	if s.sawResult && p.forced.Load() { // it stayed although it was done: what it would have been
		out.ExitCode = 0
	}
	if s.sawResult && !s.isError && out.ExitCode == 0 { // a stop that came too late changes nothing
		return out, answer
	}
	if t.stopped() {
		return t.cut(out), strings.Join(s.said, "\n\n")
	}
	if out.ExitCode == 0 {
		out.ExitCode = 1
	}
	if out.Failure, out.Error = p.failure(out.ExitCode); out.Failure == FailLimit {
		out.LimitResets = s.resets
	}
	if s.sawResult && s.isError {
		answer = strings.Join(s.said, "\n\n")
	}
	return out, answer
}

// failure tells what kind of failure it was, and why, for people.
func (p *claudeProcess) failure(code int) (Failure, string) {
	s := p.stream
	text := p.complaint()
	if text == "" {
		text = fmt.Sprintf("Claude Code ended with exit code %d and without a result", code)
		if s.sawResult {
			text = fmt.Sprintf("Claude Code ended with exit code %d", code)
		}
	}
	switch {
	case p.state == nil && p.err != nil:
		return FailStart, p.err.Error()
	case strings.Contains(text, "No conversation found") || strings.Contains(text, "is already in use"):
		return FailTranscript, text
	case s.apiError == "authentication_failed" || strings.Contains(text, "Not logged in"):
		return FailCredentials, text
	case s.apiError == "rate_limit":
		return FailLimit, text
	case s.apiError == "server_error" || s.apiError == "overloaded":
		return FailAPI, text
	case !s.sawResult && code > 128:
		return FailKilled, text
	case !s.sawInit && !s.sawResult:
		return FailStart, text
	}
	return FailClaude, text
}

// complaint is what Claude Code itself says about a failure. An answer that is no error says nothing about one.
func (p *claudeProcess) complaint() string {
	s := p.stream
	switch {
	case len(s.errors) > 0:
		return strings.Join(s.errors, "; ")
	case s.isError && s.answer != "":
		return s.answer
	}
	return strings.TrimSpace(p.stderr.String())
}

// exitCode is the process's own, or 128 + n for signal n.
func exitCode(st *os.ProcessState, err error) int {
	if st == nil {
		if errors.Is(err, exec.ErrNotFound) {
			return 127
		}
		return 1
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return st.ExitCode()
}
