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

// claudeProcess is one run of Claude Code. It does a turn, and further ones while it is as good as a new one: see warm.go.
type claudeProcess struct {
	cfg    Config
	key    string // what it was started with
	gate   *gateway
	cmd    *exec.Cmd
	gone   chan struct{} // closed when the process has ended
	ended  chan struct{} // closed when its output is read as well, and nothing of it is left
	forced atomic.Bool   // we ended it by a signal

	writing sync.Mutex     // held while a line is written
	stdin   io.WriteCloser // closing it ends a write that nobody reads
	stderr  headBuffer
	err     error            // of the start or the end; read when it has ended
	state   *os.ProcessState // read when it has ended

	mu     sync.Mutex
	turn   *turn         // guarded by mu; nil: it waits for one
	stream *stream       // guarded by mu while there is a turn; of the last turn
	over   chan struct{} // guarded by mu; closed at the turn's result
	odd    bool          // guarded by mu; it did something that no turn asked for
}

// start starts a process. It owns the gateway.
func start(cfg Config, key string, gate *gateway, cmd *exec.Cmd) *claudeProcess {
	p := &claudeProcess{cfg: cfg, key: key, gate: gate, cmd: cmd, gone: make(chan struct{}), ended: make(chan struct{})}
	if p.err = p.begin(); p.err != nil {
		gate.close()
		close(p.ended)
	}
	return p
}

func (p *claudeProcess) begin() error {
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	p.stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, in, &p.stderr
	p.cmd.WaitDelay = time.Second
	err = p.cfg.start(p.cmd.Start)
	_ = in.Close()
	if err != nil {
		_ = out.Close()
		return err
	}
	go p.attend(out)
	return nil
}

// attend reads what it says until it has ended, and sees to it that nothing of it is left.
func (p *claudeProcess) attend(out *os.File) {
	read := make(chan struct{})
	go func() { defer close(read); p.follow(out) }()
	p.err = p.cmd.Wait() // closes stdin as well
	p.state = p.cmd.ProcessState
	close(p.gone)
	if p.atWork() {
		p.cfg.sweep(p.cmd.Process.Pid)
	}
	// What is out of reach may still hold its output open.
	select {
	case <-read:
	case <-time.After(2 * time.Second):
	}
	_ = out.Close()
	<-read
	p.gate.close()
	close(p.ended)
}

// do has it do a turn, until there is a result or it has ended. false: it has ended, and said nothing of the turn, which then was not begun.
// It has so long to say something; 0: as long as it takes.
func (p *claudeProcess) do(t *turn, patience time.Duration) bool {
	over, done, prompted := p.attach(t), make(chan struct{}), make(chan struct{})
	defer close(done)
	if p.cmd.Process != nil {
		go p.halt(t, prompted, done)
		go func() { defer close(prompted); p.prompt(t) }()
	}
	if patience > 0 {
		silence := time.AfterFunc(patience, func() {
			if !p.spoke() {
				p.force(0, nil)
			}
		})
		defer silence.Stop()
	}
	select {
	case <-over:
		return true
	case <-p.ended:
	}
	return p.spoke()
}

// spoke reports whether it has said something of its turn.
func (p *claudeProcess) spoke() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stream.lines > 0
}

// attach gives it a turn. over is closed at that turn's result.
func (p *claudeProcess) attach(t *turn) (over <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &stream{workspace: t.cfg.workspace(), hide: redactor(t.secrets).Replace, pulls: t.pulls}
	if p.stream != nil {
		s.before = p.stream.told
	}
	p.stderr.reset()
	p.gate.meter.serve(t)
	p.turn, p.stream, p.over = t, s, make(chan struct{})
	return p.over
}

// atWork reports whether it has a turn.
func (p *claudeProcess) atWork() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turn != nil
}

// detach has it wait for a turn.
func (p *claudeProcess) detach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn = nil
}

// finish ends it after its turn: by the end of its input, then by force.
func (p *claudeProcess) finish() {
	if p.cmd.Process != nil {
		_ = p.stdin.Close()
		p.force(p.cfg.Grace.Result, nil)
	}
	<-p.ended
}

// prompt gives it the turn's prompt.
func (p *claudeProcess) prompt(t *turn) {
	p.send(map[string]any{"type": "user", "message": map[string]any{"role": "user", "content": t.content()}})
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

// follow reads the output, lines of any length.
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turn == nil {
		p.odd = p.odd || acts(line)
		return
	}
	had := p.stream.sawResult
	p.odd = p.odd || had && acts(line)
	p.turn.journal.add(strings.TrimSpace(p.stream.hide(string(line))), p.stream.line(line)...)
	if p.stream.sawResult && !had {
		close(p.over)
	}
}

// halt interrupts it when its turn is stopped: by request, so that the conversation stays whole, then by force.
func (p *claudeProcess) halt(t *turn, prompted, done <-chan struct{}) {
	select {
	case <-done:
		return
	case <-t.stopNow:
	}
	go func() { // the pipe may be full of a prompt that nobody reads
		<-prompted
		p.send(map[string]any{"type": "control_request", "request_id": "stop", "request": map[string]any{"subtype": "interrupt"}})
	}()
	p.force(p.cfg.Grace.Interrupt, done)
}

// force ends a process that does not end by itself: TERM, then KILL. enough: it need not end any more; nil: it must.
func (p *claudeProcess) force(patience time.Duration, enough <-chan struct{}) {
	for _, step := range []struct {
		wait time.Duration
		sig  syscall.Signal
	}{{patience, syscall.SIGTERM}, {p.cfg.Grace.Term, syscall.SIGKILL}} {
		select {
		case <-p.gone:
			return
		case <-enough:
			return
		case <-time.After(step.wait):
			p.forced.Store(true)
			_ = syscall.Kill(-p.cmd.Process.Pid, step.sig)
		}
	}
}

// headBuffer keeps the first 8 KiB since it was emptied.
type headBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *headBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if room := 8<<10 - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (b *headBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}

func (b *headBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
