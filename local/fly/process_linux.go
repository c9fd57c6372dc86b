package fly

import (
	"context"
	"os"
	"os/exec"
	"syscall"
)

// setUp runs in a machine's new namespaces, before its main process takes its place as process 1.
// $1 is the volume's folder or empty, $2 where it appears, $3 the folder of programs.
const setUp = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p "$2"
if [ -n "$1" ]; then mount --bind "$1" "$2"; else mount -t tmpfs -o mode=755 tmpfs "$2"; fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/flaudebot-bin /run/flaudebot
if [ -n "$3" ]; then mount --bind "$3" /run/flaudebot-bin; fi
shift 3
echo ok >&3
exec 3>&-
exec "$@"`

// Isolated says whether machines have mounts and processes of their own.
func (s *Server) Isolated() bool { return os.Geteuid() == 0 }

const isolatedPath = "/run/flaudebot-bin:" + systemPath

func (s *Server) prepare(p *process, m *machine, cfg config, argv []string, data, mount string) error {
	if !s.Isolated() {
		if err := s.plain(p, m, cfg, argv, data); err != nil {
			return err
		}
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		return nil
	}
	p.env = s.environment(m, cfg, isolatedPath, mount, "/run/flaudebot")
	p.cmd = exec.Command("/bin/sh", append([]string{"-c", setUp, "sh", data, mount, s.cfg.BinDir}, argv...)...)
	p.cmd.Env = p.env
	p.cmd.Dir = "/"
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, Setsid: true,
	}
	return nil
}

// inside is a command that runs in the machine.
func (p *process) inside(ctx context.Context, argv []string) *exec.Cmd {
	var cmd *exec.Cmd
	if p.runDir == "" {
		cmd = exec.CommandContext(ctx, "nsenter", append([]string{"-t", itoa(p.cmd.Process.Pid), "-m", "-p", "-i", "--"}, argv...)...)
		cmd.Dir = "/"
	} else {
		cmd = exec.CommandContext(ctx, lookIn(binDirOf(p.env), argv[0]), argv[1:]...)
	}
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// signal goes to process 1 alone, as on Fly.
func (p *process) signal(sig syscall.Signal) { _ = syscall.Kill(p.cmd.Process.Pid, sig) }

// kill ends all of the machine: in a PID namespace everything ends with process 1.
func (p *process) kill() {
	if p.runDir != "" {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL)
}
