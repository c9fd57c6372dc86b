package runner

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// claudeProcess is one run of Claude Code.
type claudeProcess struct {
	turn     *turn
	cmd      *exec.Cmd
	stream   stream
	prompted chan struct{} // closed when the prompt was written, or will never be
	ended    chan struct{} // closed when the process has ended
	forced   atomic.Bool   // we ended it by a signal

	writing sync.Mutex     // held while a line is written
	stdin   io.WriteCloser // closing it ends a write that nobody reads
	stderr  bytes.Buffer
	err     error // of the start or the end
	state   *os.ProcessState
}

func newClaudeProcess(t *turn, cmd *exec.Cmd) *claudeProcess {
	return &claudeProcess{
		turn: t, cmd: cmd, stream: stream{workspace: t.cfg.workspace(), hide: redactor(t.secrets).Replace, pulls: t.pulls},
		prompted: make(chan struct{}), ended: make(chan struct{}),
	}
}

// run starts it, gives it the prompt, follows it and sees to it that nothing of it is left.
func (p *claudeProcess) run() {
	var out, in *os.File
	p.stdin, p.err = p.cmd.StdinPipe()
	if p.err == nil {
		out, in, p.err = os.Pipe()
	}
	if p.err != nil {
		return
	}
	p.cmd.Stdout, p.cmd.Stderr = in, &headBuffer{buf: &p.stderr}
	p.cmd.WaitDelay = time.Second
	p.err = p.cmd.Start()
	_ = in.Close()
	if p.err != nil {
		_ = out.Close()
		return
	}
	read := make(chan struct{})
	go p.halt()
	go func() { defer close(read); p.follow(out) }()
	go p.prompt()
	p.err = p.cmd.Wait() // closes stdin as well
	p.state = p.cmd.ProcessState
	close(p.ended)
	p.turn.cfg.sweep(p.cmd.Process.Pid)
	// What is out of reach may still hold its output open.
	select {
	case <-read:
	case <-time.After(2 * time.Second):
	}
	_ = out.Close()
	<-read
}

// prompt gives it the turn's prompt.
func (p *claudeProcess) prompt() {
	defer close(p.prompted)
	p.send(map[string]any{"type": "user", "message": map[string]any{"role": "user", "content": p.turn.content()}})
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
	p.writing.Lock()
	defer p.writing.Unlock()
	_, _ = p.stdin.Write(append(raw, '\n')) // its end is seen elsewhere
}

// follow reads the output, lines of any length, and ends the process after its result.
func (p *claudeProcess) follow(out io.Reader) {
	lines := bufio.NewReaderSize(out, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			p.line(line)
		}
		if err != nil {
			return
		}
	}
}

// line records what a line of output tells.
func (p *claudeProcess) line(line []byte) {
	had := p.stream.sawResult
	p.turn.journal.add(strings.TrimSpace(p.stream.hide(string(line))), p.stream.line(line)...)
	if p.stream.sawResult && !had {
		_ = p.stdin.Close()
		go p.force(p.turn.cfg.Grace.Result)
	}
}

// halt interrupts it when the turn is stopped: by request, so that the conversation stays whole, then by force.
func (p *claudeProcess) halt() {
	select {
	case <-p.ended:
		return
	case <-p.turn.stopNow:
	}
	go func() { // the pipe may be full of a prompt that nobody reads
		<-p.prompted
		p.send(map[string]any{"type": "control_request", "request_id": "stop", "request": map[string]any{"subtype": "interrupt"}})
	}()
	p.force(p.turn.cfg.Grace.Interrupt)
}

// force ends a process that does not end by itself: TERM, then KILL.
func (p *claudeProcess) force(patience time.Duration) {
	for _, step := range []struct {
		wait time.Duration
		sig  syscall.Signal
	}{{patience, syscall.SIGTERM}, {p.turn.cfg.Grace.Term, syscall.SIGKILL}} {
		select {
		case <-p.ended:
			return
		case <-time.After(step.wait):
			p.forced.Store(true)
			_ = syscall.Kill(-p.cmd.Process.Pid, step.sig)
		}
	}
}

// headBuffer keeps the first 8 KiB.
type headBuffer struct{ buf *bytes.Buffer }

func (b *headBuffer) Write(p []byte) (int, error) {
	if room := 8<<10 - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
