package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc on Linux.
const clockTick = 10 * time.Millisecond

// status reads a figure of a process's memory, such as VmRSS or VmHWM, in KiB.
func status(pid int, field string) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
		}
	}
	return 0, fmt.Errorf("%s of process %d: %w", field, pid, errMissed)
}

// processorTime is what a process has taken of the processors, its own and the kernel's for it.
func processorTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of a process: %w", err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // behind its name
	list := strings.Fields(rest)
	if len(list) < 13 {
		return 0, fmt.Errorf("the processor time of process %d: %w", pid, errMissed)
	}
	user, err1 := strconv.ParseInt(list[11], 10, 64)
	system, err2 := strconv.ParseInt(list[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}
