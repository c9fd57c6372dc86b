package runner

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpensNoPort: during a turn the runner listens on loopback alone, for the gateway, so that no other machine of the network can ask it for anything.
func TestOpensNoPort(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.begin(m.turn("work:"), Secrets{AnthropicAPIKey: "sk-ant-0123456789"})
	m.working(turn)
	open := listeners(t, m.cmd.Process.Pid)
	if len(open) == 0 {
		t.Fatal("it listens nowhere, and the gateway is open: the test shows nothing")
	}
	for _, at := range open {
		if !strings.HasPrefix(at, "tcp 0100007F:") { // 127.0.0.1, as the kernel writes it
			t.Errorf("it listens on %s", at)
		}
	}
	m.stop(turn)
	if out, _ := m.end(turn); out.Failure != FailStopped {
		t.Errorf("the turn ended with %+v", out)
	}
}

// listeners are the addresses on which a process takes in what comes from a network, as /proc/net has them.
func listeners(t *testing.T, pid int) (out []string) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("what process %d has open: %v, %v", pid, fds, err)
	}
	sockets := map[string]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			if inode, ok := strings.CutPrefix(to, "socket:["); ok {
				sockets[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	for kind, state := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} { // listening; not connected
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if f := strings.Fields(lines.Text()); len(f) > 9 && f[3] == state && sockets[f[9]] {
				out = append(out, kind+" "+f[1])
			}
		}
	}
	return out
}
