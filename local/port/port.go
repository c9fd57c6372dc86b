// Package port finds addresses for what tests and benchmarks start: servers that have to be told where to listen. What can say by
// itself where it listens does not need it.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// ErrNone says that no free port was found.
var ErrNone = errors.New("no port is free")

// Free returns a loopback address, host:port, that nobody listens on. It is below the ports that the kernel gives out by itself, so that it
// is free still when it is used, as is the one 10,000 above, at which nodes of a Redis cluster speak to each other.
func Free() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000)) //nolint:gosec // any
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr, nil
		}
	}
	return "", ErrNone
}
