package fly

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// setUp is process 1 of a machine's new namespaces: it makes the mounts, and then stands in front of the main process as
// Fly's init does. So the main process gets its signals as anywhere, orphans are reaped, and all ends with it. $1 is the
// volume's folder or empty, $2 where it appears, $3 the folder of programs, $4 that of the config's files or empty; then what of /tmp is
// shared, --, and the command.
// All of that may be below the host's /tmp, and so is held in /run until the machine's own is in place.
const setUp = `set -e
umask 022
data=$1 at=$2 bin=$3 files=$4
shift 4
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/flaudebot /run/flaudebot-bin /run/.volume /run/.files
if [ -n "$files" ]; then mount --bind "$files" /run/.files; fi
if [ -n "$bin" ]; then mount --bind "$bin" /run/flaudebot-bin; fi
if [ -n "$data" ]; then mount --bind "$data" /run/.volume; else mount -t tmpfs -o mode=755 tmpfs /run/.volume; fi
n=0
for share; do
	if [ "$share" = -- ]; then break; fi
	n=$((n+1))
	mkdir "/run/.share$n"
	mount --bind "$share" "/run/.share$n"
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
n=0
while [ "$1" != -- ]; do
	n=$((n+1))
	mkdir -p "$1"
	mount --move "/run/.share$n" "$1"
	rmdir "/run/.share$n"
	shift
done
shift
mkdir -p "$at"
mount --move /run/.volume "$at"
rmdir /run/.volume
if [ -n "$files" ]; then
	cp -r /run/.files/. /
	umount /run/.files
fi
rmdir /run/.files
sh -c 'echo ok >&3; exec 3>&-; exec "$@"' sh "$@" || exit $?
exit 0`

// mountBounded mounts a file system of so many MB, or gives one that is mounted another size.
func mountBounded(dir string, mb int, again bool) error {
	flags := uintptr(0)
	if again {
		flags = syscall.MS_REMOUNT
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%dm,mode=755", mb))
}

func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }

func inNamespaces(cmd *exec.Cmd) {
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, Setsid: true,
	}
}

// isolation tries a machine's namespaces out: being root is not enough in a container. It returns why there are none.
func isolation(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("this is not root")
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return errors.New("nsenter is not on the PATH")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// The volume appears in a /tmp of its own, and a command gets in.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", setUp, "sh", "", "/tmp/data", "", "", "--", "nsenter", "-t", "1", "-m", "-p", "-i", "--", "true")
	inNamespaces(cmd)
	up, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = up.Close() }()
	cmd.ExtraFiles = []*os.File{up}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("a process with its own mounts could not be made: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

const isolatedPath = "/run/flaudebot-bin:" + systemPath

func (s *Server) prepare(p *process, m *machine, cfg config, argv []string, data, mount string) error {
	if !s.Isolated() {
		if err := s.prepareGroup(p, m, cfg, argv, data); err != nil {
			return err
		}
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		return nil
	}
	p.env = s.environment(m, cfg, map[string]string{"PATH": isolatedPath, "FLAUDEBOT_DATA": mount, "FLAUDEBOT_RUN_DIR": "/run/flaudebot"})
	var err error
	if p.files, err = writeTree(cfg.Files); err != nil {
		return err
	}
	args := []string{"-c", setUp, "sh", data, mount, s.cfg.BinDir, p.files}
	for _, share := range s.cfg.Share {
		if strings.HasPrefix(share, "/tmp/") { // the rest is seen anyway
			args = append(args, share)
		}
	}
	p.cmd = exec.Command("/bin/sh", append(append(args, "--"), argv...)...)
	p.cmd.Env = p.env
	inNamespaces(p.cmd)
	return nil
}

// inside is a command that runs in the machine.
func (p *process) inside(ctx context.Context, argv []string) *exec.Cmd {
	var cmd *exec.Cmd
	if p.runDir == "" {
		cmd = exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(p.cmd.Process.Pid), "-m", "-p", "-i", "--"}, argv...)...)
		cmd.Dir = "/"
	} else {
		cmd = p.besides(ctx, argv)
	}
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// findMain finds the main process, which is the one child of process 1; nil: it has ended at once.
func (p *process) findMain() *os.Process {
	parent := "PPid:\t" + strconv.Itoa(p.cmd.Process.Pid) + "\n"
	for _, pid := range p.members() {
		status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil || !strings.Contains(string(status), parent) {
			continue
		}
		if main, err := os.FindProcess(pid); err == nil {
			return main
		}
	}
	return nil
}

// eachMember sends a signal to all of the machine's processes, also those that were born meanwhile.
func (p *process) eachMember(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // the one that all others come from
	if p.runDir != "" {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig) // also who cleared its environment
	}
	reached := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		for _, pid := range p.members() {
			if !reached[pid] {
				reached[pid], fresh = true, true
				_ = syscall.Kill(pid, sig) // over already
			}
		}
	}
}

// members are the process ids of the machine: what shares its PID namespace or, without one, what has its folder in the
// environment, in whichever group or session.
func (p *process) members() []int {
	own, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "ns", "pid"))
	mark := []byte("\x00FLAUDEBOT_RUN_DIR=" + p.runDir + "\x00")
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if p.runDir == "" {
			if ns, err := os.Readlink(filepath.Join(dir, "ns", "pid")); err == nil && own != "" && ns == own {
				out = append(out, pid)
			}
		} else if env, err := os.ReadFile(filepath.Join(dir, "environ")); err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			out = append(out, pid)
		}
	}
	return out
}
