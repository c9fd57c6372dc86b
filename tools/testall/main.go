// Command testall runs `go test` with the flags it is given, tells how each package ended as soon as it has, shows every
// failure whole under the name of its test, and lists at the end what was left out: any test that skipped itself, and why.
// With FLAUDEBOT_TEST_COMPLETE=1 leaving anything out is a failure.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code, err := run(ctx, ".", os.Args[1:], os.Getenv("FLAUDEBOT_TEST_COMPLETE") == "1", os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testall:", err)
		code = 2
	}
	stop()
	os.Exit(code)
}

// run tests what is in dir and returns the exit code: 0 when all went well, 1 when not. An error means that `go test` could not be run at all.
func run(ctx context.Context, dir string, args []string, complete bool, out, errOut io.Writer) (int, error) {
	r := newReport(out)
	if slices.Contains(args, "-race") {
		cgo, err := exec.CommandContext(ctx, "go", "env", "CGO_ENABLED").Output()
		if err != nil {
			return 0, fmt.Errorf("asking go for CGO_ENABLED: %w", err)
		}
		if strings.TrimSpace(string(cgo)) != "1" {
			args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "-race" })
			r.leaveOut("the race detector", "a C compiler is not installed")
		}
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = errOut
	in, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fmt.Errorf("opening the output of go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting go test: %w", err)
	}
	ticks := time.NewTicker(heartbeat)
	defer ticks.Stop()
	readErr := r.read(in, ticks.C)
	waitErr := cmd.Wait()
	var ended *exec.ExitError
	switch {
	case readErr != nil:
		return 0, fmt.Errorf("reading the output of go test: %w", readErr)
	case waitErr != nil && !errors.As(waitErr, &ended):
		return 0, fmt.Errorf("running go test: %w", waitErr)
	}
	return r.finish(waitErr == nil, complete), nil
}
