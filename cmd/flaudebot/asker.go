package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// asker asks people, or takes the answers of a script. What is secret is not shown on a terminal as it is typed.
type asker struct {
	in       io.Reader
	out      io.Writer
	terminal int // its file descriptor; -1: the answers come from elsewhere
}

func newAsker(in io.Reader, out io.Writer) *asker {
	a := &asker{in: in, out: out, terminal: -1}
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // a small number
		a.terminal = int(f.Fd()) //nolint:gosec // a small number
	}
	return a
}

// line asks for a line. When ctx ends it returns at once, with the terminal as it was; who reads goes on to wait, and ends with the program.
func (a *asker) line(ctx context.Context, prompt string, secret bool) (string, error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if secret && a.terminal >= 0 {
		show, err := hide(a.terminal) // also what is typed before the reading begins
		if err != nil {
			return "", fmt.Errorf("ask the terminal: %w", err)
		}
		defer show()
	}
	fmt.Fprint(a.out, prompt)
	type read struct {
		text string
		err  error
	}
	got := make(chan read, 1)
	go func() {
		text, err := readLine(a.in)
		got <- read{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-got:
		if secret || a.terminal < 0 { // the end of the line was not shown
			fmt.Fprintln(a.out)
		}
		return r.text, r.err
	}
}

// hide has a terminal not show what is typed; all else stays, so that Ctrl-C is a signal. Whoever reads leaves the terminal alone, so that show
// has the last word, however long a read may outlive the question.
func hide(terminal int) (show func(), err error) {
	before, err := unix.IoctlGetTermios(terminal, getTermios)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(terminal, setTermios, &hidden); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(terminal, setTermios, before) }, nil
}

// readLine reads no further than the end of the line: what follows may be typed unseen.
func readLine(in io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for {
		n, err := in.Read(b[:])
		switch {
		case n > 0 && b[0] == '\n':
			return string(line), nil
		case n > 0:
			line = append(line, b[0])
		case err != nil && len(line) > 0 && err == io.EOF: //nolint:errorlint // a Reader says it so
			return string(line), nil
		case err != nil:
			return "", err
		}
		if len(line) > 64<<10 {
			return "", fmt.Errorf("a line of more than %d bytes", len(line))
		}
	}
}
