package sessions

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flaudebot/fly"
	"flaudebot/runner"
)

// TestExecHandover: verbs of the runner are asked by exec, with JSON in and out.
func TestExecHandover(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// It answers hello with what it was asked, as the version.
	program := `#!/bin/sh
case "$1 $2" in
"runner hello") echo "{\"status\":\"ok\",\"version\":\"$(tr -d '"{}')\"}";;
"runner ack") echo "no runner answers" >&2; echo "and more" >&2; exit 3;;
"runner stop") echo "not json";;
"runner sleep") echo '{"status":"ok"}'; kill -9 $$;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "flaudebot"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	sc := newWorldWith(t, dir).script(nil)
	if err := sc.m.Create(t.Context(), &sc.s, sc.save); err != nil {
		t.Fatal(err)
	}
	if _, err := sc.world.fly.WaitMachine(t.Context(), testApp, sc.s.MachineID, fly.WaitMachine{States: []string{"started"}}); err != nil {
		t.Fatal(err)
	}
	h, target := ExecHandover{Fly: sc.world.fly}, Target{App: testApp, Machine: sc.s.MachineID}

	t.Run("the request goes in, the reply comes out", func(t *testing.T) {
		var reply runner.HelloReply
		err := h.Call(t.Context(), target, "hello", runner.AckRequest{Turn: "t1", Fence: 7}, &reply)
		if err != nil || reply.Status != runner.StatusOK || reply.Version != "turn:t1,fence:7" {
			t.Errorf("Call = %+v, %v", reply, err)
		}
	})
	t.Run("a verb that fails says why, in one line", func(t *testing.T) {
		err := h.Call(t.Context(), target, "ack", runner.AckRequest{}, &runner.AckReply{})
		if !errors.Is(err, errRunner) || !strings.HasSuffix(err.Error(), "exit 3: no runner answers") {
			t.Errorf("Call = %v", err)
		}
	})
	t.Run("who has answered may be cut short by the machine's end", func(t *testing.T) {
		var reply runner.SleepReply
		if err := h.Call(t.Context(), target, "sleep", runner.SleepRequest{}, &reply); err != nil || reply.Status != runner.StatusOK {
			t.Errorf("Call = %+v, %v", reply, err)
		}
	})
	t.Run("a reply that is none is the runner's failure", func(t *testing.T) {
		if err := h.Call(t.Context(), target, "stop", runner.StopRequest{}, &runner.StopReply{}); !errors.Is(err, errRunner) {
			t.Errorf("Call = %v", err)
		}
	})
	t.Run("while another holds the machine only the nonce opens it", func(t *testing.T) {
		lease, err := sc.world.fly.AcquireLease(t.Context(), testApp, sc.s.MachineID, sc.m.cfg.LeaseTTL, "test")
		if err != nil {
			t.Fatal(err)
		}
		var reply runner.HelloReply
		if err := h.Call(t.Context(), target, "hello", runner.HelloRequest{}, &reply); !errors.Is(err, fly.ErrLeaseHeld) {
			t.Errorf("Call without it = %v, want ErrLeaseHeld", err)
		}
		target.Nonce = lease.Nonce
		if err := h.Call(t.Context(), target, "hello", runner.HelloRequest{}, &reply); err != nil {
			t.Errorf("Call with it = %v", err)
		}
	})
	t.Run("a machine that does not run is told apart", func(t *testing.T) {
		if err := h.Call(t.Context(), Target{App: testApp, Machine: "00000000000000"}, "hello", runner.HelloRequest{}, &runner.HelloReply{}); !errors.Is(err, fly.ErrNotFound) {
			t.Errorf("Call = %v, want ErrNotFound", err)
		}
	})
}
