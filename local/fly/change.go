package fly

import (
	"encoding/json"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// later does something to the machine after the delay, if it is in the given state then and nothing else was begun with
// it. What it waits for apart from time, says busy. s.mu must be held, and is held by do.
func (s *Server) later(m *machine, delay time.Duration, state string, do func()) {
	if s.closed {
		return
	}
	s.boots[m.ID]++
	turn := s.boots[m.ID]
	s.live.Go(func() {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(delay):
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for s.busy(m) {
			changed := s.changed
			s.mu.Unlock()
			select {
			case <-changed:
			case <-s.ctx.Done():
			}
			s.mu.Lock()
			if s.closed {
				return
			}
		}
		if !s.closed && m.State == state && s.boots[m.ID] == turn {
			do()
			s.touch()
		}
	})
}

// busy reports whether the next step of the machine has to wait. s.mu must be held.
func (s *Server) busy(m *machine) bool {
	p := s.procs[m.ID]
	switch m.State {
	case "starting":
		return s.trouble[m.ID].holds(m.State) || (p != nil && !p.frozen)
	case "replacing":
		return s.trouble[m.ID].holds(m.State) || p != nil
	}
	return s.trouble[m.ID].holds(m.State)
}

// prepareBoot leads a new machine to its first boot, or to its rest. s.mu must be held.
func (s *Server) prepareBoot(m *machine, skipLaunch bool) {
	s.later(m, s.cfg.BootDelay/2, "created", func() {
		if skipLaunch {
			s.rest(m, "launch")
		} else {
			s.boot(m, s.cfg.BootDelay/2)
		}
	})
}

// rest leaves the machine stopped without having run. s.mu must be held.
func (s *Server) rest(m *machine, why string) {
	m.enter("stopped")
	s.add(m, why, "stopped", "flyd", nil)
}

// boot starts the machine's process after a delay, or lets a suspended one go on. s.mu must be held.
func (s *Server) boot(m *machine, delay time.Duration) {
	m.enter("starting")
	s.add(m, "start", "starting", "user", nil)
	s.later(m, delay, "starting", func() {
		if p := s.procs[m.ID]; p != nil {
			p.frozen = false
			p.thaw()
		} else if err := s.launch(m); err != nil {
			s.log.Error("machine not started", "machine", m.ID, "err", err)
			m.enter("failed")
			s.add(m, "start", "failed", "flyd", nil)
			return
		}
		m.enter("started")
		s.add(m, "start", "started", "flyd", nil)
	})
}

func (s *Server) update(r *http.Request, m *machine) (any, error) {
	var in struct {
		Region         string                     `json:"region"`
		Config         map[string]json.RawMessage `json:"config"`
		CurrentVersion string                     `json:"current_version"`
		SkipLaunch     bool                       `json:"skip_launch"`
		LeaseTTL       int                        `json:"lease_ttl"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	switch {
	case m.State == "replacing":
		return nil, fail(409, "aborted: machine update failed due to concurrent update")
	case in.CurrentVersion != "" && in.CurrentVersion != m.InstanceID:
		return nil, fail(409, "aborted: current version is %s", m.InstanceID)
	case m.State == "destroyed" || m.State == "destroying":
		return nil, fail(412, "failed_precondition: unable to update machine from current state: '%s'", m.State)
	case !admits(in.Region, m.Region):
		return nil, fail(400, "invalid_argument: a machine's region cannot change, it is %s", m.Region)
	}
	old, err := m.config()
	if err != nil {
		return nil, err
	}
	next := *m
	next.Config = in.Config
	cfg, err := s.checkNew(&next, m.Region)
	if err != nil {
		return nil, err
	}
	if len(cfg.Mounts) > 0 && (len(old.Mounts) == 0 || cfg.Mounts[0].Volume != old.Mounts[0].Volume) {
		return nil, fail(400, "invalid_argument: a machine's volume cannot change")
	}
	s.attach(m, old, false)
	m.Config, m.InstanceID = in.Config, s.ids.next()
	m.Version = m.InstanceID
	m.keepVersion(cfg)
	s.attach(m, cfg, true)
	m.Restarts = nil
	m.enter("replacing")
	s.add(m, "update", "replacing", "user", nil)
	if p := s.procs[m.ID]; p != nil {
		p.note.requested = true
		s.end(p, s.stopOf(old))
	}
	s.later(m, 0, "replacing", func() {
		if in.SkipLaunch {
			s.rest(m, "update")
		} else {
			s.boot(m, s.cfg.BootDelay)
		}
	})
	shown := s.show(m, nil)
	if in.LeaseTTL > 0 {
		shown["nonce"] = m.newLease(time.Duration(in.LeaseTTL)*time.Second, "").Nonce
	}
	s.touch()
	return shown, nil
}

// stillActive is how long after an exit Fly refuses a start.
const stillActive = 400 * time.Millisecond

func (s *Server) start(_ *http.Request, m *machine) (any, error) {
	before := m.State
	switch before {
	case "started", "starting": // harmless
	case "stopped", "suspended":
		if err := s.mayMount(m); err != nil {
			return nil, err
		}
		if p := s.procs[m.ID]; time.Since(time.UnixMilli(m.ExitedAt)) < stillActive || (p != nil && !p.frozen) {
			return nil, fail(412, "failed_precondition: machine still active, refusing to start")
		}
		if s.trouble[""].Full[m.Region] == "host" {
			return nil, s.room(m.Region, false)
		}
		m.Restarts = nil
		s.boot(m, s.cfg.BootDelay)
		s.touch()
	case "replacing":
		return nil, fail(412, "failed_precondition: machine getting replaced, refusing to start")
	default:
		return nil, fail(412, "failed_precondition: unable to start machine from current state: '%s'", before)
	}
	return map[string]any{"previous_state": before, "migrated": false, "new_host": ""}, nil
}

// mayMount refuses a machine whose volume is lost. s.mu must be held.
func (s *Server) mayMount(m *machine) error {
	cfg, err := m.config()
	if err != nil {
		return err
	}
	for _, mount := range cfg.Mounts {
		if s.state.Volumes[mount.Volume] == nil {
			return fail(400, "invalid_argument: volume not found")
		}
	}
	return nil
}

// halt is how a machine is to be ended.
type halt struct {
	signal  syscall.Signal
	timeout time.Duration
}

// maxStop is the longest that Fly leaves a machine to end by itself.
const maxStop = 300 * time.Second

// stopOf is how a config has its machine ended. s.mu must be held.
func (s *Server) stopOf(cfg config) halt {
	h := halt{timeout: 5 * time.Second}
	h.signal, _ = signalOf(s.cfg.Unsettled.StopSignal)
	if cfg.StopConfig != nil {
		if sig, ok := signalOf(cfg.StopConfig.Signal); ok {
			h.signal = sig
		}
		if cfg.StopConfig.Timeout > 0 {
			h.timeout = min(time.Duration(cfg.StopConfig.Timeout), maxStop)
		}
	}
	return h
}

// haltOf is how a request has the machine ended; what it leaves open its config says.
func (s *Server) haltOf(m *machine, signal string, timeout time.Duration) (halt, error) {
	cfg, err := m.config()
	if err != nil {
		return halt{}, err
	}
	h := s.stopOf(cfg)
	if signal != "" {
		sig, ok := signalOf(signal)
		if !ok {
			return h, fail(400, "invalid_argument: unknown signal %q", signal)
		}
		h.signal = sig
	}
	if timeout > 0 {
		h.timeout = min(timeout, maxStop)
	}
	return h, nil
}

func (s *Server) stopCall(r *http.Request) (any, error) {
	if s.cfg.Unsettled.LeasedStopHangs {
		s.outlastLease(r)
	}
	return s.machineCall(guarded, s.stop)(r)
}

func (s *Server) stop(r *http.Request, m *machine) (any, error) {
	var in struct {
		Signal  string   `json:"signal"`
		Timeout duration `json:"timeout"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	h, err := s.haltOf(m, in.Signal, time.Duration(in.Timeout))
	if err != nil {
		return nil, err
	}
	p := s.procs[m.ID]
	switch m.State {
	case "replacing":
		return nil, fail(412, "failed_precondition: machine getting replaced, refusing to stop")
	case "stopped", "failed", "destroying", "destroyed":
		return map[string]any{"ok": true}, nil
	case "stopping":
	default:
		m.enter("stopping")
		s.add(m, "stop", "stopping", "user", nil)
	}
	if p != nil {
		p.note.requested, p.again = true, false
		s.end(p, h)
	} else if !s.trouble[m.ID].holds("stopping") {
		m.enter("stopped")
		s.add(m, "exit", "stopped", "flyd", exitRequest(exit{}, exitNote{requested: true}))
	}
	s.touch()
	return map[string]any{"ok": true}, nil
}

// end asks the process to end, and ends it after the timeout. s.mu must be held.
func (s *Server) end(p *process, h halt) {
	if p.frozen || s.closed { // what is suspended is dropped
		p.kill()
		return
	}
	p.signal(h.signal)
	s.live.Go(func() {
		select {
		case <-p.over.Done():
		case <-s.ctx.Done():
		case <-time.After(h.timeout):
			p.kill()
		}
	})
}

// suspend freezes the machine's processes. Their memory is kept as long as the stand-in lives.
func (s *Server) suspend(_ *http.Request, m *machine) (any, error) {
	cfg, err := m.config()
	if err != nil {
		return nil, err
	}
	most := s.cfg.Unsettled.SuspendMemory
	switch {
	case m.State == "suspended" || m.State == "suspending":
		return map[string]any{"ok": true}, nil
	case m.State != "started":
		return nil, fail(412, "failed_precondition: unable to suspend machine from current state: '%s'", m.State)
	case cfg.memory() > most:
		return nil, fail(412, "failed_precondition: machines with more than %d MB of memory cannot be suspended", most)
	case cfg.Init.SwapMB > 0 || cfg.Schedule != "":
		return nil, fail(412, "failed_precondition: machines with swap or a schedule cannot be suspended")
	}
	m.enter("suspending")
	s.add(m, "suspend", "suspending", "user", nil)
	s.later(m, 0, "suspending", func() {
		p := s.procs[m.ID]
		p.frozen = true
		p.freeze()
		m.enter("suspended")
		s.add(m, "suspend", "suspended", "flyd", nil)
	})
	s.touch()
	return map[string]any{"ok": true}, nil
}

func (s *Server) restart(r *http.Request, m *machine) (any, error) {
	if m.State != "started" {
		return nil, fail(412, "failed_precondition: unable to restart machine from current state: '%s'", m.State)
	}
	q := r.URL.Query()
	timeout, err := timeoutOf(q.Get("timeout"))
	if err != nil {
		return nil, err
	}
	h, err := s.haltOf(m, q.Get("signal"), timeout)
	if err != nil {
		return nil, err
	}
	if q.Get("force_stop") == "true" {
		h.signal = syscall.SIGKILL
	}
	p := s.procs[m.ID]
	p.note.requested, p.again = true, true
	m.enter("restarting")
	s.add(m, "restart", "stopping", "user", nil)
	s.end(p, h)
	s.touch()
	return map[string]any{"ok": true}, nil
}

// timeoutOf reads Go's text, seconds, or nanoseconds as Fly's own client sends them.
func timeoutOf(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n < int64(time.Millisecond) {
			return time.Duration(n) * time.Second, nil
		}
		return time.Duration(n), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fail(400, "invalid_argument: timeout: %s", err)
	}
	return d, nil
}

func (s *Server) signal(r *http.Request, m *machine) (any, error) {
	var in struct {
		Signal any `json:"signal"` // a name or a number
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	name, _ := in.Signal.(string)
	sig, ok := signalOf(name)
	if n, isNumber := in.Signal.(float64); isNumber {
		sig, ok = numbered(int(n))
	}
	if !ok {
		return nil, fail(400, "invalid_argument: unknown signal %v", in.Signal)
	}
	p := s.procs[m.ID]
	if p == nil {
		return nil, fail(412, "failed_precondition: machine is not started")
	}
	p.signal(sig)
	return map[string]any{"ok": true}, nil
}

func (s *Server) remove(r *http.Request, m *machine) (any, error) {
	force := r.URL.Query().Get("force") == "true" || r.URL.Query().Get("kill") == "true"
	switch m.State {
	case "stopped", "suspended", "failed", "destroying", "destroyed":
	default:
		if !force {
			return nil, fail(412, "failed_precondition: unable to destroy machine, not in a stopped state: '%s'", m.State)
		}
	}
	s.destroy(m)
	s.touch()
	return map[string]any{"ok": true}, nil
}

// destroy ends the machine and frees its volume, once its host can be reached. s.mu must be held.
func (s *Server) destroy(m *machine) {
	if m.State == "destroyed" || m.State == "destroying" {
		return
	}
	m.enter("destroying")
	s.add(m, "destroy", "destroying", "user", nil)
	if t := s.trouble[m.ID]; !t.unreachable() && !t.holds("destroying") {
		s.finishDestroy(m)
	}
}

func (s *Server) finishDestroy(m *machine) {
	if p := s.procs[m.ID]; p != nil {
		p.note.requested = true
		p.kill() // its end makes it destroyed
		return
	}
	s.destroyed(m)
}

// destroyed is the end of a machine. s.mu must be held.
func (s *Server) destroyed(m *machine) {
	m.enter("destroyed")
	m.Lease, m.DestroyedAt = nil, time.Now().UnixMilli()
	s.add(m, "destroy", "destroyed", "flyd", nil)
	if cfg, err := m.config(); err == nil {
		s.attach(m, cfg, false)
	}
	s.dropOrphans(m.OwnedBy)
}
