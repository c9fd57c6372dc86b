package fly

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"
)

// exec runs a command in a started machine. A command that takes too long is ended and answered with 408.
func (s *Server) exec(r *http.Request) (any, error) {
	var in struct {
		Command []string `json:"command"`
		Cmd     string   `json:"cmd"` // as older clients send it
		Stdin   string   `json:"stdin"`
		Timeout int      `json:"timeout"` // seconds
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if len(in.Command) == 0 {
		in.Command = strings.Fields(in.Cmd)
	}
	if len(in.Command) == 0 {
		return nil, fail(400, "invalid_argument: command is required")
	}
	timeout := 30 * time.Second
	if in.Timeout > 0 {
		timeout = time.Duration(in.Timeout) * time.Second
	}
	timeout = min(timeout, s.cfg.Unsettled.ExecTimeout)
	p, err := s.startedProcess(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	defer context.AfterFunc(p.over, cancel)() // it ends with the machine, also where no namespace and no /proc sees to that
	cmd := p.inside(ctx, in.Command)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in.Stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second // for what it left running with its output
	err = cmd.Run()
	if ctx.Err() == context.DeadlineExceeded { //nolint:errorlint // the context's own
		return nil, fail(408, "deadline_exceeded: the command took longer than %s", timeout)
	}
	e := exitOf(err, cmd.ProcessState)
	if cmd.ProcessState == nil {
		e.code = 127
		stderr.WriteString(err.Error())
	}
	return map[string]any{
		"exit_code": e.code, "exit_signal": e.signal, "stdout": s.capped(stdout.String()), "stderr": s.capped(stderr.String()),
	}, nil
}

// startedProcess is the process of the request's machine, if a command may run in it.
func (s *Server) startedProcess(r *http.Request) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.machineOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayUse(r, m, guarded); err != nil {
		return nil, err
	}
	p := s.procs[m.ID]
	if p == nil || m.State != "started" {
		return nil, fail(412, "failed_precondition: machine not running, current state: '%s'", m.State)
	}
	return p, nil
}

func (s *Server) capped(text string) string {
	if most := s.cfg.Unsettled.ExecOutput; most > 0 && len(text) > most {
		return text[:most]
	}
	return text
}
