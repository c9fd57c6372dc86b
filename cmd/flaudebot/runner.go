package main

import (
	"context"

	"flaudebot/runner"
)

// runnerCommand is process 1 of a session machine, and, with a verb, what is exec'd beside it.
func runnerCommand(ctx context.Context, c cli) error {
	cfg, err := runner.ConfigFromEnv(environ)
	if err != nil {
		return err
	}
	cfg.Version = buildVersion()
	switch {
	case len(c.args) == 0:
		code, err := runner.Run(ctx, cfg)
		if err != nil {
			return err
		}
		if code != 0 {
			return exitCode(code)
		}
		return nil
	case c.args[0] == "git-credential":
		return runner.GitCredential(ctx, cfg, c.args[1:], c.stdin, c.stdout)
	default:
		return runner.Verb(ctx, cfg, c.args[0], c.stdin, c.stdout)
	}
}
