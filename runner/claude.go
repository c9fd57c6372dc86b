package runner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long a stop waits for each of its steps.
const (
	afterInterrupt = 5 * time.Second
	afterTerm      = 3 * time.Second
	afterResult    = 10 * time.Second // background work gets 5 s by Claude Code itself
)

// claude runs Claude Code for the turn.
func (t *turn) claude() (Outcome, string) {
	transcript, resume := t.transcript()
	before := size(transcript)
	gate, err := openGateway(t.secrets)
	if err != nil {
		return Outcome{ExitCode: 1, Failure: FailStart, Error: err.Error()}, ""
	}
	defer gate.close()
	t.phase(PhaseStarting)
	p := &claudeProcess{turn: t, stream: stream{workspace: t.cfg.workspace()}}
	p.run(t.command(gate, resume))
	out, answer := p.outcome(resume)
	if out.Failure == FailNone && size(transcript) <= before {
		out.Failure, out.ExitCode = FailDisk, 1
		out.Error = "the conversation could not be kept: the volume may be full"
	}
	return out, answer
}

func size(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

var notAlnum = regexp.MustCompile(`[^A-Za-z0-9]`)

// transcript is where Claude Code keeps the conversation, and whether there is one. An empty file, left by a
// full disk, would be "not found" to --resume and "in use" to --session-id: it is removed.
func (t *turn) transcript() (path string, resume bool) {
	dir := t.cfg.workspace()
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	path = filepath.Join(t.cfg.claudeDir(), "projects", notAlnum.ReplaceAllString(dir, "-"), t.SessionID+".jsonl")
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return path, false
	case info.Size() == 0:
		_ = os.Remove(path)
		return path, false
	case t.Fresh:
		_ = os.Rename(path, path+".set-aside-"+time.Now().UTC().Format("20060102T150405"))
		return path, false
	}
	return path, true
}

// command is the command line and the environment. What a repository brings (settings, hooks, MCP servers) is not
// obeyed: it could send the credential elsewhere. Its CLAUDE.md is read.
func (t *turn) command(gate *gateway, resume bool) *exec.Cmd {
	args := []string{
		"-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions",
		"--setting-sources", "user", "--strict-mcp-config",
	}
	if resume {
		args = append(args, "--resume", t.SessionID)
	} else {
		args = append(args, "--session-id", t.SessionID)
	}
	if t.Settings.Model != "" {
		args = append(args, "--model", t.Settings.Model)
	}
	for _, r := range t.Repos {
		args = append(args, "--add-dir", filepath.Join(t.cfg.workspace(), r.dir()))
	}
	cmd := t.cfg.asClaude(exec.Command(t.cfg.Claude, args...)) //nolint:gosec // the session image's program
	cmd.Dir = t.cfg.workspace()
	cmd.Env = append(cmd.Env, gate.env(t.secrets)...)
	cmd.Env = append(cmd.Env,
		"CLAUDE_CONFIG_DIR="+t.cfg.claudeDir(), "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD=1",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1", "CLAUDE_CODE_MAX_RETRIES=3", "CLAUDE_CODE_ENABLE_TASKS=0",
	)
	if t.cfg.UID < 0 && os.Geteuid() == 0 {
		cmd.Env = append(cmd.Env, "IS_SANDBOX=1") // else Claude Code refuses to run without asking, as root
	}
	return cmd
}

// asClaude has a command run as Claude's user, in a clean environment, in a process group of its own.
func (c Config) asClaude(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append([]string{
		"HOME=" + c.home(), "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=dumb", "USER=claude",
		"GIT_TERMINAL_PROMPT=0", "GIT_PAGER=cat",
	}, c.gitEnv()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.UID >= 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.UID)} //nolint:gosec // a uid
	}
	return cmd
}

// claudeProcess is one run of Claude Code.
type claudeProcess struct {
	turn   *turn
	stream stream
	ended  chan struct{} // closed when the process has ended

	mu     sync.Mutex
	stdin  io.WriteCloser // guarded by mu; nil once closed
	stderr bytes.Buffer
	err    error // of the start or the end
	state  *os.ProcessState
}

// run starts it, gives it the prompt, follows it and sees to it that nothing of it is left.
func (p *claudeProcess) run(cmd *exec.Cmd) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.err = err
		return
	}
	out, in, err := os.Pipe()
	if err != nil {
		p.err = err
		return
	}
	cmd.Stdout, cmd.Stderr = in, &tailBuffer{buf: &p.stderr}
	cmd.WaitDelay = time.Second
	p.err = cmd.Start()
	_ = in.Close()
	if p.err != nil {
		_ = out.Close()
		return
	}
	p.stdin = stdin
	p.ended = make(chan struct{})
	read := make(chan struct{})
	go p.halt(cmd)
	go func() { defer close(read); p.follow(cmd, out) }()
	p.send(map[string]any{"type": "user", "message": map[string]any{"role": "user", "content": notACommand(p.turn.prompt)}})
	p.err = cmd.Wait()
	p.state = cmd.ProcessState
	close(p.ended)
	p.turn.cfg.killAll(cmd.Process.Pid)
	// What it left behind may still hold its output open.
	select {
	case <-read:
	case <-time.After(2 * time.Second):
	}
	_ = out.Close()
	<-read
}

// notACommand keeps a prompt that begins with / from being one of Claude Code's own commands.
func notACommand(prompt string) string {
	if strings.HasPrefix(prompt, "/") {
		return " " + prompt
	}
	return prompt
}

func (p *claudeProcess) send(v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stdin != nil {
		_, _ = p.stdin.Write(append(raw, '\n')) // its end is seen elsewhere
	}
}

func (p *claudeProcess) closeStdin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stdin != nil {
		_ = p.stdin.Close()
		p.stdin = nil
	}
}

// follow reads the output, lines of any length, and ends the process after its result.
func (p *claudeProcess) follow(cmd *exec.Cmd, out io.Reader) {
	hide := redactor(p.turn.secrets)
	lines := bufio.NewReaderSize(out, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			had := p.stream.sawResult
			events := p.stream.line(line)
			raw := strings.TrimSpace(hide.Replace(string(line[:min(len(line), 4*maxRaw)])))
			for i, e := range events {
				e.Text = hide.Replace(e.Text)
				if i > 0 {
					raw = ""
				}
				p.turn.journal.add(e, raw)
			}
			if p.stream.sawResult && !had {
				p.closeStdin()
				go p.endAfterResult(cmd)
			}
		}
		if err != nil {
			return
		}
	}
}

// endAfterResult ends a process that stays although its turn is over.
func (p *claudeProcess) endAfterResult(cmd *exec.Cmd) {
	for _, step := range []struct {
		wait time.Duration
		sig  syscall.Signal
	}{{afterResult, syscall.SIGTERM}, {afterTerm, syscall.SIGKILL}} {
		select {
		case <-p.ended:
			return
		case <-time.After(step.wait):
			_ = syscall.Kill(-cmd.Process.Pid, step.sig)
		}
	}
}

// halt interrupts it when the turn is stopped: by request, so that the conversation stays whole, then by force.
func (p *claudeProcess) halt(cmd *exec.Cmd) {
	select {
	case <-p.ended:
		return
	case <-p.turn.stopNow:
	}
	// The pipe may be full of a prompt that nobody reads.
	go p.send(map[string]any{"type": "control_request", "request_id": "stop", "request": map[string]any{"subtype": "interrupt"}})
	for _, step := range []struct {
		wait time.Duration
		sig  syscall.Signal
	}{{afterInterrupt, syscall.SIGTERM}, {afterTerm, syscall.SIGKILL}} {
		select {
		case <-p.ended:
			return
		case <-time.After(step.wait):
			_ = syscall.Kill(-cmd.Process.Pid, step.sig)
		}
	}
}

// outcome judges the run: good is a result that is no error from a process that ended well, and nothing else.
func (p *claudeProcess) outcome(resume bool) (Outcome, string) {
	s := &p.stream
	out := Outcome{CostUSD: s.cost, Model: s.model, Resumed: resume}
	answer := s.answer
	if answer == "" {
		answer = strings.Join(s.said, "\n\n")
	}
	out.ExitCode = exitCode(p.state, p.err)
	if s.sawResult && !s.isError && out.ExitCode == 0 { // a stop that came too late changes nothing
		return out, answer
	}
	select {
	case <-p.turn.stopNow:
		return p.turn.cut(out), strings.Join(s.said, "\n\n")
	default:
	}
	if out.ExitCode == 0 {
		out.ExitCode = 1
	}
	out.Failure, out.Error = p.failure(out.ExitCode)
	if s.sawResult && s.isError {
		answer = strings.Join(s.said, "\n\n")
	}
	return out, answer
}

func (p *claudeProcess) failure(code int) (Failure, string) {
	s := &p.stream
	text := s.answer
	if len(s.errors) > 0 {
		text = strings.Join(s.errors, "; ")
	}
	stderr := strings.TrimSpace(p.stderr.String())
	if text == "" {
		text = stderr
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

// tailBuffer keeps the first 8 KiB.
type tailBuffer struct{ buf *bytes.Buffer }

func (b *tailBuffer) Write(p []byte) (int, error) {
	if room := 8<<10 - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

// output runs a command of ours as Claude's user, with a time limit.
func (c Config) output(ctx context.Context, limit time.Duration, dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := c.asClaude(exec.CommandContext(ctx, name, args...)) //nolint:gosec // git
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		if text := lastLine(errOut.String()); text != "" {
			return out.String(), errors.New(text)
		}
		return out.String(), err
	}
	return out.String(), nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
