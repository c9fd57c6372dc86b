package fly

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is the process tree of a started machine.
type process struct {
	cmd    *exec.Cmd   // the first process: in namespaces it is their process 1
	main   *os.Process // what the machine is there for; nil: it has ended at once
	env    []string
	runDir string          // its own, when it is not isolated
	files  string          // folder of the config's files, when it is isolated; "": there are none
	over   context.Context // ends when all of it has ended
	end    context.CancelFunc

	note   exitNote // guarded by Server.mu
	again  bool     // guarded by Server.mu; its end is followed by another start
	frozen bool     // guarded by Server.mu; it is suspended
}

// exit is how a main process ended.
type exit struct{ code, signal int }

// exitNote is what else an exit event tells.
type exitNote struct {
	requested  bool // the API asked for it
	oom        bool
	restarting bool // the restart policy starts it again
	restarts   int  // by the policy, this one included
}

// exitRequest is what an exit event carries.
func exitRequest(e exit, n exitNote) map[string]any {
	signal := -1
	if e.signal > 0 {
		signal = e.signal
	}
	return map[string]any{"restart_count": n.restarts, "exit_event": map[string]any{
		"exit_code": e.code, "guest_exit_code": e.code, "guest_signal": signal, "signal": signal, "oom_killed": n.oom,
		"requested_stop": n.requested, "restarting": n.restarting, "exited_at": stamp(), "guest_error": "", "error": "",
	}}
}

// launch starts the machine's main process. s.mu must be held.
func (s *Server) launch(m *machine) error {
	cfg, err := m.config()
	if err != nil {
		return err
	}
	argv := s.cfg.Runner
	if custom := slices.Concat(cfg.Init.Exec, cfg.Init.Entrypoint, cfg.Init.Cmd); len(custom) > 0 {
		argv = custom
	}
	if len(argv) == 0 {
		return errors.New("nothing to run")
	}
	if err := s.grow(cfg); err != nil {
		return fmt.Errorf("grow its volume: %w", err)
	}
	data, mount := "", cfg.mountPath()
	if len(cfg.Mounts) > 0 {
		data = s.volumeDir(cfg.Mounts[0].Volume)
	}
	p := &process{}
	if err := s.prepare(p, m, cfg, argv, data, mount); err != nil {
		return err
	}
	out, err := p.run()
	if err != nil {
		p.sweep()
		return err
	}
	p.over, p.end = context.WithCancel(context.Background())
	s.procs[m.ID] = p
	s.live.Go(func() { s.collect(m.ID, m.Region, out) })
	s.live.Go(func() { s.await(m, p, cfg) })
	return nil
}

// run starts the process and returns its output. A machine whose mounts are not in place has not booted: that is awaited.
func (p *process) run() (*os.File, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	ready, up, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	defer func() { _ = ready.Close() }()
	p.cmd.ExtraFiles = []*os.File{up}
	err = p.cmd.Start()
	_, _ = in.Close(), up.Close() // the child has them
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	if p.runDir != "" {
		p.main = p.cmd.Process
		return out, nil
	}
	if said, _ := bufio.NewReader(ready).ReadString('\n'); said != "ok\n" { // the pipe ends with process 1
		p.kill()
		_ = p.cmd.Wait()
		why, _ := io.ReadAll(io.LimitReader(out, 4096))
		return nil, errors.Join(fmt.Errorf("its mounts could not be made: %s", strings.TrimSpace(string(why))), out.Close())
	}
	p.main = p.findMain()
	return out, nil
}

// environment is what a machine's processes see: nothing of the stand-in's own.
func (s *Server) environment(m *machine, cfg config, own map[string]string) []string {
	env := map[string]string{
		"HOME": "/root", "LANG": "C.UTF-8",
		"FLY_APP_NAME": m.OwnedBy, "FLY_MACHINE_ID": m.ID, "FLY_ALLOC_ID": m.ID, "FLY_REGION": m.Region, "PRIMARY_REGION": m.Region,
		"FLY_MACHINE_VERSION": m.InstanceID, "FLY_IMAGE_REF": cfg.Image, "FLY_PRIVATE_IP": m.PrivateIP,
		"FLY_VM_MEMORY_MB": strconv.Itoa(cfg.memory()), "FLY_PROCESS_GROUP": m.metadata()["fly_process_group"],
	}
	for _, more := range []map[string]string{own, cfg.Env, s.cfg.Env} {
		maps.Copy(env, more)
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// await waits for the end of the main process, and does what the restart policy says.
func (s *Server) await(m *machine, p *process, cfg config) {
	err := p.cmd.Wait()
	p.sweep()
	e := exitOf(err, p.cmd.ProcessState)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.end()
	delete(s.procs, m.ID)
	m.ExitedAt = time.Now().UnixMilli()
	kept := m.State == "destroying" || m.State == "replacing" || s.closed // what comes next is settled
	gone := cfg.AutoDestroy && !p.again && !kept
	p.note.restarting = !kept && !gone && !p.note.requested && m.restarts(cfg, e)
	p.note.restarts = len(m.Restarts)
	s.add(m, "exit", "stopped", "flyd", exitRequest(e, p.note))
	switch {
	case m.State == "destroying":
		if t := s.trouble[m.ID]; !t.unreachable() && !t.holds("destroying") {
			s.destroyed(m)
		}
	case m.State == "replacing":
	case gone:
		s.destroyed(m)
	case p.again && !s.closed:
		s.boot(m, s.cfg.BootDelay)
	case p.note.restarting:
		s.add(m, "restart", "starting", "flyd", nil)
		s.boot(m, s.cfg.BootDelay)
	case m.State == "stopping" && s.trouble[m.ID].holds("stopping"):
	default:
		m.enter("stopped")
	}
	s.touch()
}

// restartWindow is the time in which the restarts are counted.
const restartWindow = 5 * time.Minute

// restarts follows the policy, and counts; Fly's default is on-failure, up to 10 times in a window.
func (m *machine) restarts(cfg config, e exit) bool {
	policy, most := "on-failure", 10
	if cfg.Restart != nil && cfg.Restart.Policy != "" {
		policy = cfg.Restart.Policy
		if cfg.Restart.MaxRetries > 0 {
			most = cfg.Restart.MaxRetries
		}
	}
	now := time.Now()
	m.Restarts = slices.DeleteFunc(m.Restarts, func(at int64) bool { return now.Sub(time.UnixMilli(at)) > restartWindow })
	if len(m.Restarts) >= most || policy != "always" && (policy != "on-failure" || e.code == 0) {
		return false
	}
	m.Restarts = append(m.Restarts, now.UnixMilli())
	return true
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

// signals are those that Fly sends.
func signals() map[string]syscall.Signal {
	return map[string]syscall.Signal{
		"SIGHUP": syscall.SIGHUP, "SIGINT": syscall.SIGINT, "SIGQUIT": syscall.SIGQUIT, "SIGKILL": syscall.SIGKILL,
		"SIGUSR1": syscall.SIGUSR1, "SIGUSR2": syscall.SIGUSR2, "SIGTERM": syscall.SIGTERM,
	}
}

func signalOf(name string) (syscall.Signal, bool) {
	sig, ok := signals()[name]
	return sig, ok
}

func numbered(n int) (syscall.Signal, bool) {
	for _, sig := range signals() {
		if int(sig) == n {
			return sig, true
		}
	}
	return 0, false
}

// prepareGroup prepares a machine without namespaces: a process group that is told where its folders are.
func (s *Server) prepareGroup(p *process, m *machine, cfg config, argv []string, data string) error {
	run, err := os.MkdirTemp("", "fb-run-")
	if err != nil {
		return err
	}
	p.runDir = run
	temp := filepath.Join(run, "tmp")
	if err := errors.Join(os.Chmod(run, 0o711), os.Mkdir(temp, 0o700), os.Chmod(temp, 0o777|os.ModeSticky)); err != nil { //nolint:gosec // other users' too
		return err
	}
	if data == "" {
		data = filepath.Join(run, "data")
		if err := os.Mkdir(data, 0o755); err != nil { //nolint:gosec // a file system's root
			return err
		}
	}
	place := func(guest string) string { // its environment tells where they are
		for _, own := range [][2]string{{cfg.mountPath(), data}, {"/run/flaudebot", run}, {"/tmp", temp}} {
			if rest, ok := strings.CutPrefix(guest, own[0]+"/"); ok {
				return filepath.Join(own[1], rest)
			}
		}
		return filepath.Join(run, guest)
	}
	for _, f := range cfg.Files {
		if err := f.write(place); err != nil {
			return err
		}
	}
	p.env = s.environment(m, cfg, map[string]string{
		"PATH": s.cfg.BinDir + ":" + systemPath, "FLAUDEBOT_DATA": data, "FLAUDEBOT_RUN_DIR": run, "TMPDIR": temp,
	})
	p.cmd = exec.Command(lookIn(s.cfg.BinDir, argv[0]), argv[1:]...)
	p.cmd.Env = p.env
	return nil
}

// besides is a command of a machine without namespaces.
func (p *process) besides(ctx context.Context, argv []string) *exec.Cmd {
	return exec.CommandContext(ctx, lookIn(binDirOf(p.env), argv[0]), argv[1:]...)
}

// lookIn finds a program in the folder that a machine's PATH has first.
func lookIn(dir, name string) string {
	if path := filepath.Join(dir, name); dir != "" && !strings.Contains(name, "/") {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return name
}

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

// signal goes to the main process alone, as on Fly.
func (p *process) signal(sig syscall.Signal) {
	if p.main != nil {
		_ = p.main.Signal(sig) // over already
	}
}

// kill ends all of the machine: in a PID namespace everything ends with process 1.
func (p *process) kill() {
	if p.runDir != "" {
		p.eachMember(syscall.SIGKILL)
	}
	_ = p.cmd.Process.Kill() // over already
}

// freeze and thaw stop all of the machine, and let it go on.
func (p *process) freeze() { p.eachMember(syscall.SIGSTOP) }
func (p *process) thaw()   { p.eachMember(syscall.SIGCONT) }

// sweep removes what the process leaves on the host.
func (p *process) sweep() {
	if p.files != "" {
		_ = os.RemoveAll(p.files)
	}
	if p.runDir != "" {
		if p.cmd.Process != nil {
			p.eachMember(syscall.SIGKILL)
		}
		_ = os.RemoveAll(p.runDir)
	}
}
