package port

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFree: who is given an address can listen there, and nobody else is given it meanwhile.
func TestFree(t *testing.T) {
	t.Parallel()
	taken := map[string]bool{}
	for range 50 {
		addr, err := Free()
		if err != nil || taken[addr] {
			t.Fatalf("Free = %s, %v; given out before: %v", addr, err, taken[addr])
		}
		taken[addr] = true
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "10000")
	if !reserve(name) || reserve(name) {
		t.Error("a port is given to two")
	}
	if err := os.Chtimes(name, time.Time{}, time.Now().Add(-2*reservedFor)); err != nil {
		t.Fatal(err)
	}
	if !reserve(name) {
		t.Error("a port that was reserved long ago is never given out again")
	}
}
