package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flaudebot/bot"
	"flaudebot/fly"
	"flaudebot/runner"
	"flaudebot/sessions"
)

// serve is the bot.
func serve(ctx context.Context, c cli) error {
	if len(c.args) > 0 {
		if !oneOf(c.args[0], "--help", "-h") {
			fmt.Fprintf(c.stderr, "flaudebot serve takes no arguments: its settings come from the environment (serve --help)\n")
			return errUsage
		}
		fmt.Fprint(c.stdout, "flaudebot serve runs the bot. Its settings come from the environment:\n\n")
		return printSettings(c.stdout)
	}
	cfg, err := loadConfig("slack", "redis", "fly", "claude")
	if err != nil {
		return err
	}
	return serveWith(ctx, cfg, cfg.logger(c.stderr), func() { fmt.Fprintln(c.stdout, "ready") })
}

// serveWith runs the bot until ctx ends. ready is called once, when Slack said hello and Redis answered.
func serveWith(ctx context.Context, cfg config, log *slog.Logger, ready func()) error {
	rdb, err := openRedis(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer rdb.close()
	q, err := openQueue(ctx, cfg, rdb, log)
	if err != nil {
		return err
	}
	machines, err := openMachines(cfg, log)
	if err != nil {
		return err
	}
	front, err := openBot(ctx, cfg, log)
	if err != nil {
		return err
	}
	service, err := sessions.NewService(sessions.ServiceConfig{
		Redis: rdb.calls, Prefix: cfg.Prefix, Queue: q, Machines: machines, Front: front, IdleTTL: cfg.idleTTL, ReapEvery: cfg.reapEvery, Keys: cfg.keys, Log: log,
	})
	if err != nil {
		return err
	}
	if err := waitForRedis(ctx, cfg, log, service.Check); err != nil {
		return err
	}
	front.Use(service)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return service.Run(ctx) })
	g.Go(func() error { return front.Run(ctx, sync.OnceFunc(ready)) })
	g.Go(func() error { checkFly(ctx, machines, log); return nil })
	err = g.Wait()
	front.Close()
	log.Info("left", "cause", context.Cause(ctx))
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// checkFly says early in the log what would otherwise be found out by the first turn.
func checkFly(ctx context.Context, m *sessions.Machines, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := m.EnsureApp(ctx); err != nil && ctx.Err() == nil {
		log.ErrorContext(ctx, "the app of the session machines is not usable: turns will fail until that is mended", "err", err)
	}
}

func openMachines(cfg config, log *slog.Logger) (*sessions.Machines, error) {
	client, err := fly.New(fly.Config{
		BaseURL: cfg.FlyBaseURL, LogsBaseURL: cfg.FlyLogsURL, Token: cfg.FlyToken, Log: log, UserAgent: "flaudebot/" + buildVersion(),
		HTTP: &http.Client{Transport: sessions.OwnersOnly(nil)},
	})
	if err != nil {
		return nil, err
	}
	return sessions.NewMachines(sessions.MachinesConfig{
		Fly: client, App: cfg.FlyApp, Org: cfg.FlyOrg, Region: cfg.Region, Image: cfg.Image, Guest: cfg.guest,
		VolumeGB: cfg.volumeGB, TTL: cfg.ttl, Repos: cfg.repos, Patience: cfg.patience,
		Secrets: runner.Secrets{
			AnthropicAPIKey: cfg.AnthropicAPIKey, ClaudeOAuthToken: cfg.ClaudeOAuthToken, AnthropicBaseURL: cfg.AnthropicBaseURL,
			GitUsername: cfg.GitUsername, GitToken: cfg.GitToken, GitOrigins: cfg.gitOrigins(),
		},
		Settings: runner.Settings{
			Model: cfg.Model, TimeoutSeconds: int(cfg.turnTimeout / time.Second), LingerSeconds: int(cfg.linger / time.Second),
			GitName: cfg.gitAuthor.Name, GitEmail: cfg.gitAuthor.Address, Forges: cfg.forges,
		},
		Log: log,
	})
}

func openBot(ctx context.Context, cfg config, log *slog.Logger) (*bot.Bot, error) {
	return bot.New(ctx, bot.Config{
		AppToken: cfg.SlackAppToken, BotToken: cfg.SlackBotToken, APIURL: cfg.SlackAPIURL,
		AllowedUsers: cfg.allowedUsers, AllowedChannels: cfg.allowedChannels, AttachmentLimit: cfg.attachmentBytes, AskAfter: cfg.askAfter, Pace: cfg.slackPace, NamedRepos: cfg.namedRepos,
		PlainCommits: !cfg.trailers, Forges: cfg.forges,
		HTTP: &http.Client{Timeout: 30 * time.Second}, Log: log, Version: buildVersion(),
	})
}
