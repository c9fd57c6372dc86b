package sessions

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"flaudebot/runner"
)

// TestMain runs many tests at once: they wait for machines that boot, and hardly compute. In the machines of some of them this very
// binary is flaudebot, the runner.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "flaudebot" {
		syscall.Exit(runnerMain()) // at once, also with the race detector
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// runnerMain is what cmd makes of "flaudebot runner".
func runnerMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cfg, err := runner.ConfigFromEnv(os.Getenv)
	code := 0
	switch {
	case err != nil:
	case len(os.Args) > 2:
		err = runner.Verb(ctx, cfg, os.Args[2], os.Stdin, os.Stdout)
	default:
		code, err = runner.Run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
