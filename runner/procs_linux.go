package runner

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prSetChildSubreaper is PR_SET_CHILD_SUBREAPER of prctl(2).
const prSetChildSubreaper = 36

// adopt makes this process the parent of all orphans below it. Claude Code starts each command in a session of its
// own, so that a process group misses it; but it stays a descendant. On Fly a machine's own init is process 1.
func adopt() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("become the parent of orphans: %w", errno)
	}
	return nil
}

// proc is a process as /proc tells it.
type proc struct {
	pid, parent int
	zombie      bool
}

// sweep ends all that a turn started: TERM, then KILL. Between the steps of a turn the runner has no other children but Claude Code that waits
// for the next one, which is spared.
// A runner that does not adopt reaches the process group alone.
func (c Config) sweep(group int) {
	if !c.adopts {
		if group > 0 {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
		return
	}
	spared := c.warm.pid()
	left := endAll(c.Grace.Term, func() []proc {
		return slices.DeleteFunc(descendants(os.Getpid()), func(p proc) bool { return p.pid == spared })
	})
	if left > 0 {
		c.Log.Error("processes of the turn are left", "count", left)
	}
}

// isAlone reports whether a process has started nothing that is still there, or is about to go.
func (c Config) isAlone(pid int) bool {
	if !c.adopts {
		return false // nobody knows
	}
	alive := func(p proc) bool { return !p.zombie }
	for end := time.Now().Add(100 * time.Millisecond); slices.ContainsFunc(descendants(pid), alive); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// endStrays ends what a runner that was killed left running: a Claude Code that nobody reads goes on, and would write
// to the conversation beside the one that resumes it.
func (c Config) endStrays() {
	mark := append([]byte(c.mark()), 0)
	endAll(c.Grace.Term, func() []proc {
		var out []proc
		for _, p := range processes() {
			env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "environ"))
			if err == nil && p.pid != os.Getpid() && (bytes.HasPrefix(env, mark) || bytes.Contains(env, append([]byte{0}, mark...))) {
				out = append(out, p)
			}
		}
		return out
	})
}

// killPatience bounds how long killed processes may take to disappear.
const killPatience = 5 * time.Second

// endAll has what list names end by itself, then kills what is left, and returns how many would not go. It looks
// again and again, since one may be born while it looks.
func endAll(grace time.Duration, list func() []proc) (left int) {
	told := map[int]bool{}
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		sig, passed := syscall.SIGTERM, time.Since(begun)
		if passed > grace {
			sig, told = syscall.SIGKILL, nil
		}
		left = signalAll(list(), sig, told)
		if left == 0 || passed > grace+killPatience {
			return left
		}
	}
}

// signalAll signals those that were not told yet (nil: all), reaps those that are ended and ours, and returns how many
// are alive.
func signalAll(all []proc, sig syscall.Signal, told map[int]bool) int {
	alive := 0
	for _, p := range all {
		if p.zombie {
			if p.parent == os.Getpid() {
				_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
			}
			continue
		}
		alive++
		if !told[p.pid] {
			_ = syscall.Kill(p.pid, sig)
		}
		if told != nil {
			told[p.pid] = true
		}
	}
	return alive
}

// descendants lists what descends from a process.
func descendants(root int) []proc {
	children := map[int][]proc{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var out []proc
	for next := []int{root}; len(next) > 0; next = next[1:] {
		for _, p := range children[next[0]] {
			out = append(out, p)
			next = append(next, p.pid)
		}
	}
	return out
}

// processes lists all that /proc shows.
func processes() []proc {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []proc
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := readProc(pid); ok {
			out = append(out, p)
		}
	}
	return out
}

// readProc reads /proc/PID/stat: the name, in brackets, may hold anything.
func readProc(pid int) (proc, bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return proc{}, false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return proc{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return proc{pid: pid, parent: parent, zombie: fields[0] == "Z" || fields[0] == "X"}, err == nil
}

// reapOrphans takes the ended orphans of a turn that goes on. A zombie is left alone for a while, since a waiter here
// may be about to take it.
func reapOrphans(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	seen := map[int]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := map[int]bool{}
		for _, p := range processes() {
			switch {
			case !p.zombie || p.parent != os.Getpid():
			case seen[p.pid]:
				_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
			default:
				now[p.pid] = true
			}
		}
		seen = now
	}
}
