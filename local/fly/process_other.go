//go:build !linux

package fly

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// isolation returns why machines have no mounts and processes of their own.
func isolation(context.Context) error { return errors.New("this is not Linux") }

func mountBounded(string, int, bool) error { return errors.ErrUnsupported }

func unmount(string) error { return errors.ErrUnsupported }

func (s *Server) prepare(p *process, m *machine, cfg config, argv []string, data, _ string) error {
	if err := s.prepareGroup(p, m, cfg, argv, data); err != nil {
		return err
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return nil
}

// inside is a command that runs beside the machine's main process, with its environment.
func (p *process) inside(ctx context.Context, argv []string) *exec.Cmd {
	cmd := p.besides(ctx, argv)
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func (p *process) findMain() *os.Process { return p.cmd.Process }

// eachMember sends a signal to the machine's process group; what left it is not found here.
func (p *process) eachMember(sig syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, sig) }
