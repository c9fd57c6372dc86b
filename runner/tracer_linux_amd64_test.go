package runner

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const (
	// tracerEnv makes this program a tracer: it starts process 1 of a machine, follows it and all that it starts from one
	// system call that may be a step to the next, and kills before the one that it was told.
	tracerEnv = "FLAUDEBOT_TEST_TRACER"
	// tracedEnv has process 1 stop before those, see [haltAtSteps].
	tracedEnv = "FLAUDEBOT_TEST_TRACED"
)

// blow says when to kill, and what.
type blow struct {
	At    int  // number of the step, from 1; 0: none
	Alone bool // only process 1 dies, not the whole machine
}

// What a tracer says on its third descriptor, a line each: "step WHAT" before each step, "struck" when what was to die is
// dead. It ends when all that it follows has ended.

const (
	ptraceGetSyscallInfo = 0x420e
	ptraceExitKill       = 0x100000
	ptraceTraceSeccomp   = 0x80
	ptraceEventSeccomp   = 7
	cloneThread          = 0x10000
)

// plainSteps are system calls after which something is otherwise than before, to somebody, whatever their arguments.
func plainSteps() map[uint64]string {
	return map[uint64]string{
		syscall.SYS_RENAME: "rename", syscall.SYS_RENAMEAT: "rename", 316: "rename", syscall.SYS_UNLINK: "unlink", syscall.SYS_UNLINKAT: "unlink",
		syscall.SYS_MKDIR: "mkdir", syscall.SYS_MKDIRAT: "mkdir", syscall.SYS_RMDIR: "rmdir", syscall.SYS_LINK: "link", syscall.SYS_LINKAT: "link",
		syscall.SYS_SYMLINK: "symlink", syscall.SYS_SYMLINKAT: "symlink", syscall.SYS_FSYNC: "fsync", syscall.SYS_FDATASYNC: "fsync",
		syscall.SYS_TRUNCATE: "truncate", syscall.SYS_FTRUNCATE: "truncate", syscall.SYS_CHMOD: "chmod", syscall.SYS_FCHMOD: "chmod",
		syscall.SYS_FCHMODAT: "chmod", syscall.SYS_CHOWN: "chown", syscall.SYS_LCHOWN: "chown", syscall.SYS_FCHOWN: "chown",
		syscall.SYS_FCHOWNAT: "chown", syscall.SYS_EXECVE: "exec", syscall.SYS_FLOCK: "flock", syscall.SYS_BIND: "bind", syscall.SYS_LISTEN: "listen",
		syscall.SYS_FORK: "fork", syscall.SYS_VFORK: "fork",
	}
}

// haltAtSteps has this process, and all that it starts, stop before each call that may be a step, by a filter in the kernel: to stop at every call
// would take ten times as long.
func haltAtSteps() error {
	type instruction struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}
	const (
		load, jumpIfEqual, give = 0x20, 0x15, 0x06
		allow, trace            = 0x7fff0000, 0x7ff00000
		seccomp, setFilter, all = 317, 1, 1
	)
	calls := append(slices.Collect(maps.Keys(plainSteps())), syscall.SYS_OPEN, syscall.SYS_CREAT, syscall.SYS_OPENAT, syscall.SYS_CLONE,
		syscall.SYS_WRITE, syscall.SYS_PWRITE64, syscall.SYS_WRITEV)
	program := []instruction{{code: load}} // the call's number
	for _, nr := range calls {
		program = append(program, instruction{jumpIfEqual, 0, 1, uint32(nr)}, instruction{code: give, k: trace}) //nolint:gosec // a call's number
	}
	program = append(program, instruction{code: give, k: allow})
	filter := struct {
		n       uint16
		program *instruction
	}{uint16(len(program)), &program[0]} //nolint:gosec // some dozens
	if failed, _, errno := syscall.RawSyscall(seccomp, setFilter, all, uintptr(unsafe.Pointer(&filter))); errno != 0 || failed != 0 {
		return fmt.Errorf("set a filter of system calls: %w (thread %d)", errno, failed)
	}
	return nil
}

type tracer struct {
	blow    blow
	main    int // process 1
	said    *os.File
	count   int
	struck  bool
	code    int
	threads map[int]bool
	plain   map[uint64]string
}

func tracerMain() int {
	runtime.LockOSThread() // the tracer is a thread
	syscall.CloseOnExec(3)
	t := &tracer{said: os.NewFile(3, "said"), threads: map[int]bool{}, code: 96, plain: plainSteps()}
	if err := json.Unmarshal([]byte(os.Getenv(tracerEnv)), &t.blow); err != nil {
		return 96
	}
	if err := adopt(); err != nil {
		return 96
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, tracerEnv+"=") }), tracedEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 96
	}
	t.main = cmd.Process.Pid
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for s := range told {
			_ = syscall.Kill(t.main, s.(syscall.Signal))
		}
	}()
	return t.follow()
}

func (t *tracer) say(what string) { _, _ = fmt.Fprintln(t.said, what) }

// follow returns the exit code of process 1 when nothing is left.
func (t *tracer) follow() int {
	for {
		var ws syscall.WaitStatus
		tid, err := syscall.Wait4(-1, &ws, syscall.WALL, nil)
		switch {
		case err == syscall.EINTR: //nolint:errorlint // a number
			continue
		case err != nil: // nobody is left
			if t.struck && !t.blow.Alone {
				t.say("struck")
			}
			return t.code
		case ws.Exited() || ws.Signaled():
			t.ended(tid, ws)
			continue
		}
		if t.struck && !t.blow.Alone {
			_ = syscall.Kill(tid, syscall.SIGKILL) // it was born meanwhile
		}
		sig := t.stopped(tid, ws)
		_ = syscall.PtraceCont(tid, int(sig)) // it may have been killed
	}
}

func (t *tracer) ended(tid int, ws syscall.WaitStatus) {
	delete(t.threads, tid)
	if tid != t.main {
		return
	}
	t.code = ws.ExitStatus()
	if ws.Signaled() {
		t.code = 128 + int(ws.Signal())
	}
	if t.struck && t.blow.Alone {
		t.say("struck")
	}
}

// stopped looks at why a thread has stopped, and returns the signal that it is to get.
func (t *tracer) stopped(tid int, ws syscall.WaitStatus) syscall.Signal {
	sig := ws.StopSignal()
	fresh := !t.threads[tid]
	t.threads[tid] = true
	if fresh && tid == t.main {
		_ = syscall.PtraceSetOptions(tid, ptraceExitKill|ptraceTraceSeccomp|syscall.PTRACE_O_TRACECLONE|
			syscall.PTRACE_O_TRACEFORK|syscall.PTRACE_O_TRACEVFORK|syscall.PTRACE_O_TRACEEXEC)
		return 0
	}
	switch {
	case sig == syscall.SIGTRAP && ws.TrapCause() == ptraceEventSeccomp:
		if !t.struck {
			t.call(tid)
		}
		return 0
	case sig == syscall.SIGTRAP && ws.TrapCause() > 0, fresh && sig == syscall.SIGSTOP:
		return 0
	}
	return sig
}

// call counts a system call that is a step, and strikes before the one.
func (t *tracer) call(tid int) {
	var info struct {
		op   uint8
		_    [3]uint8
		_    uint32
		_    [2]uint64
		nr   uint64
		args [6]uint64
	}
	if _, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(info),
		uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 || info.op != 3 { // 3: a filter halts it
		return
	}
	what := t.step(tid, info.nr, info.args)
	if what == "" {
		return
	}
	t.count++
	t.say(fmt.Sprint("step ", what))
	if t.count != t.blow.At {
		return
	}
	t.struck = true
	if t.blow.Alone {
		_ = syscall.Kill(t.main, syscall.SIGKILL)
		return
	}
	for one := range t.threads {
		_ = syscall.Kill(one, syscall.SIGKILL)
	}
}

// step names a system call after which something is otherwise than before, to somebody; empty: it is none.
func (t *tracer) step(tid int, nr uint64, args [6]uint64) string {
	if name := t.plain[nr]; name != "" {
		return name + " by " + t.who(tid)
	}
	link := func(fd uint64) string {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(fd))) //nolint:gosec // a descriptor
		return to
	}
	switch nr {
	case syscall.SYS_OPEN, syscall.SYS_CREAT:
		if nr == syscall.SYS_CREAT || args[1]&(syscall.O_CREAT|syscall.O_TRUNC) != 0 {
			return "create by " + t.who(tid)
		}
	case syscall.SYS_OPENAT:
		if args[2]&(syscall.O_CREAT|syscall.O_TRUNC) != 0 {
			return "create by " + t.who(tid)
		}
	case syscall.SYS_CLONE:
		if args[0]&cloneThread == 0 {
			return "fork by " + t.who(tid)
		}
	case syscall.SYS_WRITE, syscall.SYS_PWRITE64, syscall.SYS_WRITEV:
		to := link(args[0])
		switch {
		case args[0] == 2, strings.HasPrefix(to, "anon_inode:"), strings.HasPrefix(to, "/dev/"), strings.HasPrefix(to, "/proc/"):
		case strings.HasPrefix(to, "/"):
			return "write to " + filepath.Ext(to) + " by " + t.who(tid)
		default:
			to, _, _ = strings.Cut(to, ":")
			return "write to a " + to + " by " + t.who(tid)
		}
	}
	return ""
}

// who names the program of a thread.
func (t *tracer) who(tid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", tid))
	args := strings.Split(string(raw), "\x00")
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	for line := range strings.Lines(string(status)) {
		if group, ok := strings.CutPrefix(line, "Tgid:"); ok && strings.TrimSpace(group) == strconv.Itoa(t.main) {
			return "the runner"
		}
	}
	name := filepath.Base(args[0])
	if name == "git" && len(args) > 1 {
		name += " " + args[1]
	}
	return name
}

// traced has process 1 of a machine be started under a tracer. step is told each step.
func traced(cmd *exec.Cmd, b blow, step func(string)) (*tracing, error) {
	said, say, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, tracerEnv+"="+string(raw))
	cmd.ExtraFiles = []*os.File{say}
	struck, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = said.Close() }()
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			if what, ok := strings.CutPrefix(lines.Text(), "step "); ok {
				step(what)
			} else {
				close(struck)
			}
		}
	}()
	return &tracing{struck: struck, done: done, say: say}, nil
}

// tracing is a tracer as it is seen from outside.
type tracing struct {
	struck chan struct{} // closed when the blow has fallen
	done   chan struct{} // closed when all that it follows has ended
	say    *os.File      // the tracer's end; to be closed when it was started
}
