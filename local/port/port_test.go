package port_test

import (
	"net"
	"testing"

	"flaudebot/local/port"
)

// TestFree: who is given an address can listen there, and nobody else is given it meanwhile.
func TestFree(t *testing.T) {
	t.Parallel()
	taken := map[string]bool{}
	for range 50 {
		addr, err := port.Free()
		if err != nil {
			t.Fatal(err)
		}
		if taken[addr] {
			t.Errorf("%s is taken", addr)
		}
		taken[addr] = true
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
}
