package runner

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"syscall"
	"time"
)

// killAll ends what a turn left: as process 1 with a user for Claude, all of that user's processes, since Claude Code
// starts each command in a session of its own; else its process group and what descends from it.
func (c Config) killAll(group int) {
	_ = syscall.Kill(-group, syscall.SIGKILL)
	if os.Getpid() != 1 || c.UID < 0 {
		return
	}
	for range 3 { // one may be born while we look
		found := false
		eachProcess(func(pid int, _ []byte) {
			if info, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == c.UID {
					found = syscall.Kill(pid, syscall.SIGKILL) == nil || found
				}
			}
		})
		if !found {
			return
		}
	}
}

func eachProcess(do func(pid int, stat []byte)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		if stat, err := os.ReadFile("/proc/" + e.Name() + "/stat"); err == nil {
			do(pid, stat)
		}
	}
}

// reapOrphans is process 1's duty. A zombie is left alone for a while, since a waiter here may be about to take it.
func reapOrphans(ctx context.Context) {
	if os.Getpid() != 1 {
		return
	}
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
		eachProcess(func(pid int, stat []byte) {
			if i := bytes.LastIndexByte(stat, ')'); i < 0 || !bytes.HasPrefix(stat[i:], []byte(") Z 1 ")) {
				return
			}
			if !seen[pid] {
				now[pid] = true
				return
			}
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		})
		seen = now
	}
}
