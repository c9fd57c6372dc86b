package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"flaudebot/sessions"
)

// runOnce runs one prompt on an ephemeral machine: the answer alone goes to standard output, and the
// turn's exit code is the command's.
func runOnce(ctx context.Context, c cli) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	repo := flags.String("repo", "", "repositories to clone instead of FLAUDEBOT_REPOS: `url[#branch][=dir],…`")
	if err := c.parse(flags); err != nil {
		return err
	}
	prompt := strings.TrimSpace(strings.Join(flags.Args(), " "))
	if prompt == "" {
		fmt.Fprint(c.stderr, "flaudebot run: there is no prompt\nUsage: flaudebot run [--repo url[#branch]] PROMPT\n")
		return errUsage
	}
	cfg, err := loadConfig("fly", "claude")
	if err != nil {
		return err
	}
	if *repo != "" {
		if cfg.repos, err = sessions.ParseRepos(*repo); err != nil {
			return fmt.Errorf("--repo: %w", err)
		}
	}
	log := cfg.logger(c.stderr)
	machines, err := openMachines(cfg, log)
	if err != nil {
		return err
	}
	res, err := machines.RunOnce(ctx, sessions.Spec{}, sessions.Run{
		Turn:   sessions.TurnID("run:" + uuid.NewString()),
		Fence:  1,
		Prompt: func(context.Context, bool) (sessions.Prompt, error) { return sessions.Prompt{Text: prompt}, nil },
	})
	if err != nil {
		return err
	}
	if res.Outcome.Error != "" {
		fmt.Fprintf(c.stderr, "flaudebot: %s\n", res.Outcome.Error)
	}
	if res.Outcome.Answer != "" {
		fmt.Fprintln(c.stdout, strings.TrimRight(res.Outcome.Answer, "\n"))
	}
	if res.ExitCode != 0 {
		return exitCode(res.ExitCode)
	}
	return nil
}
