// Package port finds addresses for what tests and benchmarks start: servers that have to be told where to listen. What can say by
// itself where it listens does not need it.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ErrNone says that no free port was found.
var ErrNone = errors.New("no port is free")

// Free returns a loopback address, host:port, that nobody listens on. It is below the ports that the kernel gives out by itself, so that it
// is free still when it is used, as is the one 10,000 above, at which nodes of a Redis cluster speak to each other. Nobody else on this machine
// is given it within some minutes.
func Free() (string, error) {
	dir := filepath.Join(os.TempDir(), "flaudebot-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil { //nolint:gosec // for everybody's tests
		return "", fmt.Errorf("look for a free port: %w", err)
	}
	for range 100 {
		n := 10_000 + rand.IntN(10_000) //nolint:gosec // any
		addr := fmt.Sprintf("127.0.0.1:%d", n)
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			if reserve(filepath.Join(dir, fmt.Sprint(n))) {
				return addr, nil
			}
		}
	}
	return "", ErrNone
}

// reservedFor is how long a port is somebody's who may not listen on it yet, or again.
const reservedFor = 5 * time.Minute

// reserve takes what a file stands for, unless somebody has it.
func reserve(name string) bool {
	if info, err := os.Stat(name); err == nil {
		if time.Since(info.ModTime()) < reservedFor {
			return false
		}
		_ = os.Remove(name)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o600)
	return err == nil && f.Close() == nil
}
