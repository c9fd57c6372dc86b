//go:build !linux

package fly

import (
	"context"
	"os/exec"
	"syscall"
)

// Isolated says whether machines have mounts and processes of their own.
func (s *Server) Isolated() bool { return false }

func (s *Server) prepare(p *process, m *machine, cfg config, argv []string, data, _ string) error {
	if err := s.plain(p, m, cfg, argv, data); err != nil {
		return err
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return nil
}

// inside is a command that runs beside the machine's main process, with its environment.
func (p *process) inside(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, lookIn(binDirOf(p.env), argv[0]), argv[1:]...)
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func (p *process) signal(sig syscall.Signal) { _ = syscall.Kill(p.cmd.Process.Pid, sig) }

// kill ends the machine's process group.
func (p *process) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
