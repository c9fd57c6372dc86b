package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
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
	on := func(t *testing.T, terminal *os.File, file string) *exec.Cmd {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testPatience) // a Ctrl-C that is lost would have it ask on
		t.Cleanup(cancel)
		cmd := self(ctx, []string{"SLACK_API_URL=http://127.0.0.1:1/", "SLACK_APP_TOKEN=xapp-x", "FLY_FLAPS_BASE_URL=http://127.0.0.1:1"}, "setup", "--env-file", file)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // so that Ctrl-C is for it
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	cmd := on(t, program, file)
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
	state := func(f *os.File) unix.Termios {
		t.Helper()
		s, err := unix.IoctlGetTermios(int(f.Fd()), getTermios) //nolint:gosec // a small number
		if err != nil {
			t.Fatal(err)
		}
		return *s
	}
	t.Run("Ctrl-C at a hidden question leaves the terminal as it was, also with Enter right behind", func(t *testing.T) {
		for range 12 { // Enter has to come before the end of the program
			person, program := terminal(t)
			before := state(program)
			cmd := on(t, program, filepath.Join(t.TempDir(), "settings"))
			awaitPrompt(t, person)
			if hidden := state(program); hidden.Lflag&unix.ECHO != 0 || hidden.Lflag&unix.ISIG == 0 {
				t.Errorf("the terminal is %+v; want it to show nothing, and Ctrl-C to be a signal", hidden)
			}
			if _, err := person.WriteString("xoxb\x03\n"); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit %d, want 130", code)
			}
			if diff := cmp.Diff(before, state(program)); diff != "" {
				t.Fatalf("the terminal is left otherwise (-before +after):\n%s", diff)
			}
		}
	})
	if diff := cmp.Diff(map[string]string{"SLACK_BOT_TOKEN": "xoxb-unseen", "REDIS_URL": "redis://127.0.0.1:1", "FLY_API_TOKEN": "fly-unseen"}, f.values()); diff != "" {
		t.Errorf("the file (-want +got):\n%s", diff)
	}
}
