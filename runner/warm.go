package runner

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// warm keeps Claude Code while the runner lingers after a turn: the next one is spared its start. It is used again only if a new process would
// be started just so; on any doubt it is ended, and a new one resumes the conversation.
type warm struct {
	mu         sync.Mutex
	p          *claudeProcess // guarded by mu; nil: none
	transcript string         // guarded by mu; of its conversation
	size       int64          // guarded by mu; of that, in bytes, after its last turn
}

// keep has a process wait for the next turn.
func (w *warm) keep(p *claudeProcess, transcript string) {
	p.detach()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.p, w.transcript, w.size = p, transcript, size(transcript)
}

// take returns the process that waits, if it can do a turn, which a process with that key and transcript would do. Another one is ended. Nothing but
// it may run.
func (w *warm) take(cfg Config, key, transcript string) *claudeProcess {
	w.mu.Lock()
	p := w.p
	fits := p != nil && p.key == key && w.transcript == transcript && size(transcript) >= w.size && p.isFine()
	if fits {
		w.p = nil
	}
	w.mu.Unlock()
	if fits {
		return p
	}
	w.end(cfg)
	return nil
}

// end ends the process that waits, and what it may have started. Nothing but it may run.
func (w *warm) end(cfg Config) {
	w.mu.Lock()
	p, transcript := w.p, w.transcript
	w.p = nil
	w.mu.Unlock()
	if p != nil {
		p.finish()
		flush(transcript)
		cfg.sweep(0)
	}
}

// endFree ends a process that waits outside of the enclosure: nothing that runs in it may get out by way of that.
func (w *warm) endFree(cfg Config) {
	w.mu.Lock()
	free := w.p != nil && !w.p.cfg.enclosed
	w.mu.Unlock()
	if free {
		w.end(cfg)
	}
}

// pid is that of the process that waits; 0: none does.
func (w *warm) pid() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.p == nil || w.p.hasGone() {
		return 0
	}
	return w.p.cmd.Process.Pid
}

// key is the same for turns that Claude Code is started for in the same way.
func (t *turn) key() string {
	cmd := t.command(&gateway{}, true)
	return fmt.Sprintf("%q %q %q %q %q", cmd.Args, cmd.Dir, cmd.Env, t.Settings.Hosts, []string{t.secrets.AnthropicAPIKey, t.secrets.ClaudeOAuthToken, t.secrets.AnthropicBaseURL})
}

// mayStay reports whether the process may do the turn after this one: it did as it should, it has nothing else to do, and somebody may come.
func (p *claudeProcess) mayStay(t *turn) bool {
	return t.Settings.LingerSeconds > 0 && p.didWell(t) && !p.forced.Load() && p.isFine() && p.cfg.isAlone(p.cmd.Process.Pid)
}

// didWell reports whether its turn came to an end after which another may follow.
func (p *claudeProcess) didWell(t *turn) bool {
	p.mu.Lock() // more than the result may come
	defer p.mu.Unlock()
	s := p.stream
	return s.sawResult && (!s.isError || t.stopped() && t.why != FailInterrupted) && s.session == t.SessionID
}

// isFine reports whether it is there, and did only what it was asked.
func (p *claudeProcess) isFine() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.odd && !p.hasGone()
}

func (p *claudeProcess) hasGone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// acts reports whether a line of output tells that Claude Code does something, rather than how it is.
func acts(line []byte) bool {
	var e wireEvent
	return json.Unmarshal(line, &e) != nil || e.Type != "system" || e.Subtype == "init"
}

// growth bounds the wait for what Claude Code still writes to the transcript after its result.
const growth = time.Second

// grows reports whether a transcript has become larger, or does so at once.
func grows(transcript string, before int64) bool {
	for end := time.Now().Add(growth); size(transcript) <= before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
