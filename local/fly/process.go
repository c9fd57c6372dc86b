package fly

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is the process tree of a started machine.
type process struct {
	cmd       *exec.Cmd
	env       []string
	done      chan struct{} // closed when all of it has ended
	runDir    string        // its own, when it is not isolated
	requested bool          // guarded by Server.mu; the API asked for its end
	again     bool          // guarded by Server.mu; and for another start
	oom       bool          // guarded by Server.mu
}

// exit is how a main process ended.
type exit struct{ code, signal int }

// exitRequest is what an exit event carries.
func exitRequest(e exit, requested, oom bool) map[string]any {
	signal := -1
	if e.signal > 0 {
		signal = e.signal
	}
	return map[string]any{"restart_count": 0, "exit_event": map[string]any{
		"exit_code": e.code, "guest_exit_code": e.code, "guest_signal": signal, "signal": signal, "oom_killed": oom,
		"requested_stop": requested, "restarting": false, "exited_at": stamp(), "guest_error": "", "error": "",
	}}
}

// boot starts the machine's process after the boot delay. s.mu must be held.
func (s *Server) boot(m *machine) {
	m.State = "starting"
	m.add("start", "starting", "user", nil)
	s.boots[m.ID]++
	boot := s.boots[m.ID]
	s.live.Go(func() {
		for { // an update kills the old process first
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(s.cfg.BootDelay):
			}
			s.mu.Lock()
			p := s.procs[m.ID]
			if p == nil {
				break
			}
			s.mu.Unlock()
			<-p.done
		}
		defer s.mu.Unlock()
		if s.closed || m.State != "starting" || s.boots[m.ID] != boot {
			return
		}
		if err := s.launch(m); err != nil {
			m.State = "failed"
			s.log.Error("machine not started", "machine", m.ID, "err", err)
			s.touch()
			return
		}
		m.State = "started"
		m.add("start", "started", "flyd", nil)
		s.touch()
	})
}

// launch starts the machine's main process. s.mu must be held.
func (s *Server) launch(m *machine) error {
	cfg, err := m.config()
	if err != nil {
		return err
	}
	argv := s.cfg.Runner
	if custom := append(append(append([]string{}, cfg.Init.Exec...), cfg.Init.Entrypoint...), cfg.Init.Cmd...); len(custom) > 0 {
		argv = custom
	}
	if len(argv) == 0 {
		return errors.New("nothing to run")
	}
	data, mount := "", "/data"
	if len(cfg.Mounts) > 0 {
		data, mount = s.volumeDir(cfg.Mounts[0].Volume), cfg.Mounts[0].Path
	}
	p := &process{done: make(chan struct{})}
	if err := s.prepare(p, m, cfg, argv, data, mount); err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	ready, up, err := os.Pipe()
	if err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	p.cmd.ExtraFiles = []*os.File{up}
	err = p.cmd.Start()
	_, _ = in.Close(), up.Close() // the child has them
	if err != nil {
		return errors.Join(err, out.Close(), ready.Close())
	}
	// A machine whose mounts are not in place yet has not booted. The pipe ends with the set-up.
	if p.runDir == "" {
		_, _ = io.ReadAll(ready)
	}
	_ = ready.Close()
	s.procs[m.ID] = p
	s.live.Go(func() { s.collect(m.ID, m.Region, out) })
	s.live.Go(func() { s.await(m, p, cfg) })
	return nil
}

// environment is what a machine's processes see: nothing of the stand-in's own.
func (s *Server) environment(m *machine, cfg config, path, data, run string) []string {
	env := []string{
		"PATH=" + path, "HOME=/root", "LANG=C.UTF-8", "FLAUDEBOT_DATA=" + data, "FLAUDEBOT_RUN_DIR=" + run,
		"FLY_APP_NAME=" + m.OwnedBy, "FLY_MACHINE_ID=" + m.ID, "FLY_ALLOC_ID=" + m.ID, "FLY_REGION=" + m.Region,
		"FLY_MACHINE_VERSION=" + m.InstanceID, "FLY_IMAGE_REF=" + cfg.Image, "FLY_PRIVATE_IP=" + m.PrivateIP,
	}
	for k, v := range cfg.Env {
		env = append(env, k+"="+v)
	}
	for k, v := range s.cfg.Env {
		env = append(env, k+"="+v)
	}
	return env
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// await waits for the end of the main process, and does what the restart policy says.
func (s *Server) await(m *machine, p *process, cfg config) {
	err := p.cmd.Wait()
	p.sweep()
	e := exitOf(err, p.cmd.ProcessState)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(p.done)
	delete(s.procs, m.ID)
	m.ExitedAt = time.Now().UnixMilli()
	m.add("exit", "stopped", "flyd", exitRequest(e, p.requested, p.oom))
	switch {
	case m.State == "destroying" || (cfg.AutoDestroy && !p.again && !s.closed):
		s.destroyed(m)
	case m.State == "starting": // an update is under way
	case !s.closed && (p.again || (!p.requested && s.restarts(m, cfg, e))):
		m.Restarts++
		s.boot(m)
	default:
		m.State = "stopped"
	}
	s.touch()
}

// restarts follows the policy; Fly's default is on-failure, up to 10 times.
func (s *Server) restarts(m *machine, cfg config, e exit) bool {
	policy, most := "on-failure", 10
	if cfg.Restart != nil && cfg.Restart.Policy != "" {
		policy = cfg.Restart.Policy
		if cfg.Restart.MaxRetries > 0 {
			most = cfg.Restart.MaxRetries
		}
	}
	return m.Restarts < most && (policy == "always" || (policy == "on-failure" && e.code != 0))
}

func exitOf(err error, st *os.ProcessState) exit {
	var ee *exec.ExitError
	if err == nil || !errors.As(err, &ee) {
		if st == nil {
			return exit{code: 1}
		}
		return exit{code: st.ExitCode()}
	}
	if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exit{code: 128 + int(ws.Signal()), signal: int(ws.Signal())}
	}
	return exit{code: ee.ExitCode()}
}

func signalOf(name string) syscall.Signal {
	switch name {
	case "SIGTERM":
		return syscall.SIGTERM
	case "SIGKILL":
		return syscall.SIGKILL
	case "SIGHUP":
		return syscall.SIGHUP
	case "SIGQUIT":
		return syscall.SIGQUIT
	case "SIGUSR1":
		return syscall.SIGUSR1
	case "SIGUSR2":
		return syscall.SIGUSR2
	default:
		return syscall.SIGINT // Fly's default
	}
}

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
	if len(in.Command) == 0 && in.Cmd != "" {
		in.Command = strings.Fields(in.Cmd)
	}
	if len(in.Command) == 0 {
		return nil, fail(400, "invalid_argument: command is required")
	}
	if in.Timeout <= 0 || in.Timeout > 60 {
		in.Timeout = 30
	}
	s.mu.Lock()
	m, err := s.machineOf(r)
	var p *process
	if err == nil {
		if err = m.mayChange(r); err == nil {
			if p = s.procs[m.ID]; p == nil || m.State != "started" {
				err = fail(412, "failed_precondition: machine not running, current state: '%s'", m.State)
			}
		}
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(in.Timeout)*time.Second)
	defer cancel()
	cmd := p.inside(ctx, in.Command)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in.Stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil, fail(408, "deadline_exceeded: the command took longer than %d s", in.Timeout)
	}
	code := exitOf(err, cmd.ProcessState).code
	if cmd.ProcessState == nil {
		code = 127
		stderr.WriteString(err.Error())
	}
	return map[string]any{"exit_code": code, "stdout": stdout.String(), "stderr": stderr.String()}, nil
}

// logLine is a line of a machine's output.
type logLine struct {
	id, at, text, region string
}

// keptLines bounds the log of a machine.
const keptLines = 1000

// collect keeps a machine's output.
func (s *Server) collect(id, region string, out io.ReadCloser) {
	defer func() { _ = out.Close() }()
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			s.mu.Lock()
			kept := append(s.logs[id], logLine{id: newULID(), at: stamp(), text: strings.TrimRight(text, "\n"), region: region})
			s.logs[id] = kept[max(0, len(kept)-keptLines):]
			s.mu.Unlock()
			s.log.Debug("machine says", "machine", id, "text", strings.TrimSpace(text))
		}
		if err != nil {
			return
		}
	}
}

// readLogs answers as Fly's log API does; next_token is the id of the last line.
func (s *Server) readLogs(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	q := r.URL.Query()
	token, data := q.Get("next_token"), []any{}
	for _, m := range s.state.sorted() {
		if m.OwnedBy != r.PathValue("app") || (q.Get("instance") != "" && q.Get("instance") != m.ID) {
			continue
		}
		for _, l := range s.logs[m.ID] {
			if l.id <= q.Get("next_token") {
				continue
			}
			token = max(token, l.id)
			data = append(data, map[string]any{"id": l.id, "type": "log", "attributes": map[string]any{
				"timestamp": l.at, "message": l.text, "level": "info", "instance": m.ID, "region": l.region, "meta": map[string]any{"instance": m.ID},
			}})
		}
	}
	return map[string]any{"data": data, "meta": map[string]any{"next_token": token}}, nil
}

// killFromOutside ends a machine as a host would: {"machine": id, "oom_killed": true}.
func (s *Server) killFromOutside(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Machine string `json:"machine"`
		OOM     bool   `json:"oom_killed"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		answer(w, 200, map[string]any{"ok": false, "error": "invalid_json"})
		return
	}
	s.mu.Lock()
	p := s.procs[in.Machine]
	if p != nil {
		p.oom = in.OOM
	}
	s.mu.Unlock()
	if p == nil {
		answer(w, 200, map[string]any{"ok": false, "error": "not_running"})
		return
	}
	p.kill()
	answer(w, 200, map[string]any{"ok": true})
}

// plain prepares a machine without namespaces: a process group that is told where its folders are.
func (s *Server) plain(p *process, m *machine, cfg config, argv []string, data string) error {
	run, err := os.MkdirTemp("", "fb-run-")
	if err != nil {
		return err
	}
	p.runDir = run
	if data == "" {
		data = filepath.Join(run, "data")
	}
	p.env = s.environment(m, cfg, s.cfg.BinDir+":"+systemPath, data, run)
	p.cmd = exec.Command(lookIn(s.cfg.BinDir, argv[0]), argv[1:]...)
	p.cmd.Env = p.env
	return nil
}

// lookIn finds a program in the folder that a machine's PATH has first.
func lookIn(dir, name string) string {
	if path := filepath.Join(dir, name); !strings.Contains(name, "/") {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return name
}

func itoa(n int) string { return strconv.Itoa(n) }

// binDirOf is the first folder of the PATH in an environment.
func binDirOf(env []string) string {
	for _, kv := range env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			dir, _, _ := strings.Cut(path, ":")
			return dir
		}
	}
	return ""
}

// sweep removes what a process without namespaces leaves.
func (p *process) sweep() {
	if p.runDir != "" {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		_ = os.RemoveAll(p.runDir)
	}
}
