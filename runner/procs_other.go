//go:build !linux

package runner

import (
	"context"
	"syscall"
)

// adopt: only Linux lets a process inherit the orphans of its descendants.
func adopt() error { return nil }

// sweep ends a process group, if there is one; commands that left it are out of reach here.
func (c Config) sweep(group int) {
	if group > 0 {
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
}

// isAlone is not known here.
func (c Config) isAlone(int) bool { return false }

// endStrays cannot find them here.
func (c Config) endStrays() {}

func reapOrphans(context.Context) {}
