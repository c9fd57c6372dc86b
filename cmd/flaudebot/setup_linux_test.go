package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// terminal opens a pseudo-terminal: what a person types and sees, and what the program has.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("left out: there are no terminals here: %v", err)
	}
	var unlock, number int32
	for request, at := range map[uintptr]*int32{0x40045431: &unlock /* TIOCSPTLCK */, 0x80045430: &number /* TIOCGPTN */} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, person.Fd(), request, uintptr(unsafe.Pointer(at))); errno != 0 { //nolint:gosec // that is how it is asked
			t.Skipf("left out: there are no terminals here: %v", errno)
		}
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("left out: there are no terminals here: %v", err)
	}
	t.Cleanup(func() { _, _ = person.Close(), program.Close() })
	return person, program
}

// TestSetupOnATerminal: what is secret is not shown as it is typed, and what is not is; Ctrl-C ends it, and what was answered is written.
func TestSetupOnATerminal(t *testing.T) {
	t.Parallel()
	person, program := terminal(t)
	file := filepath.Join(t.TempDir(), "settings")
	cmd := self(t.Context(), []string{"SLACK_API_URL=http://127.0.0.1:1/", "SLACK_APP_TOKEN=xapp-x", "FLY_FLAPS_BASE_URL=http://127.0.0.1:1"}, "setup", "--env-file", file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // so that Ctrl-C is for it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	_ = program.Close() // when the program ends, so does what it says
	var seen strings.Builder
	seen.WriteString(awaitPrompt(t, person))
	for _, typed := range []string{"xoxb-unseen\n", "\n", "redis://127.0.0.1:1\n", "\n", "fly-unseen\n", "\n"} {
		if _, err := person.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		seen.WriteString(awaitPrompt(t, person))
	}
	if strings.Contains(seen.String(), "unseen") || strings.Contains(seen.String(), "redis://127.0.0.1:1") { // the address may hold a password
		t.Errorf("a secret is shown:\n%s", seen.String())
	}
	if !strings.Contains(seen.String(), "another answer, or Enter to use it all the same") {
		t.Errorf("it was not tried:\n%s", seen.String())
	}
	if _, err := person.WriteString("fly\x03"); err != nil { // in the midst of the organization's name
		t.Fatal(err)
	}
	_ = cmd.Wait()
	said, _ := io.ReadAll(person) // ends with an error, since nobody is there
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(string(said), "what was answered is in "+file) {
		t.Errorf("exit %d, said %q", code, said)
	}
	f, err := readEnvFile(file, false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"SLACK_BOT_TOKEN": "xoxb-unseen", "REDIS_URL": "redis://127.0.0.1:1", "FLY_API_TOKEN": "fly-unseen"}, f.values()); diff != "" {
		t.Errorf("the file (-want +got):\n%s", diff)
	}
}
