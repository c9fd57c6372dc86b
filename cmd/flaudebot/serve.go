package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flaudebot/bot"
	"flaudebot/fly"
	"flaudebot/monitor"
	"flaudebot/runner"
	"flaudebot/sessions"
)

// serve is the bot.
func serve(ctx context.Context, c cli) error {
	err := c.parseAll(c.settingsFlags(), ": its settings come from the environment, or from a file (serve --help)")
	if errors.Is(err, errHelp) {
		fmt.Fprint(c.stdout, "\nSettings, with their defaults:\n\n")
		return printSettings(c.stdout)
	}
	if err != nil {
		return err
	}
	cfg, err := loadConfig("slack", "redis", "fly", "claude")
	if err != nil {
		return err
	}
	return serveWith(ctx, cfg, cfg.logger(c.stderr), func() { fmt.Fprintln(c.stdout, "ready") })
}

// serveWith runs the bot until ctx ends. ready is called once, when Slack said hello and Redis answered.
func serveWith(ctx context.Context, cfg config, log *slog.Logger, ready func()) error {
	warnOfUnknown(os.Environ(), log)
	mon := monitor.New(buildVersion())
	stopHTTP, err := serveHTTP(ctx, cfg.HTTP, mon.Handler(), log)
	if err != nil {
		return err
	}
	defer stopHTTP()
	rdb, err := openRedis(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer rdb.close()
	q, err := openQueue(ctx, cfg, rdb, log)
	if err != nil {
		return err
	}
	mon.UseQueue(q)
	machines, err := openMachines(cfg, log, mon.FlyCalled)
	if err != nil {
		return err
	}
	front, err := openBot(ctx, cfg, log, mon.SlackCalled)
	if err != nil {
		return err
	}
	mon.UseFront(front)
	service, err := sessions.NewService(sessions.ServiceConfig{
		Redis: rdb.calls, Prefix: cfg.Prefix, Queue: q, Machines: machines, Front: front, IdleTTL: cfg.idleTTL, ReapEvery: cfg.reapEvery, Keys: cfg.keys, Log: log,
		Observer: mon, AuditFor: cfg.auditFor, Link: front.Link, Budgets: cfg.budgets,
	})
	if err != nil {
		return err
	}
	if err := waitForRedis(ctx, cfg, log, service.Check); err != nil {
		return err
	}
	mon.UseSessions(service)
	front.Use(service)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return service.Run(ctx) })
	g.Go(func() error { return front.Run(ctx, sync.OnceFunc(ready)) })
	g.Go(func() error { checkFly(ctx, machines, cfg.isolate, log); return nil })
	err = g.Wait()
	front.Close()
	log.Info("left", "cause", context.Cause(ctx))
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// checkFly makes what Fly has to have, and says early in the log what would otherwise be found out by the first turn. It tries again while Fly does not answer.
func checkFly(ctx context.Context, m *sessions.Machines, isolate bool, log *slog.Logger) {
	for told := false; ; told = true {
		err := m.EnsureApp(ctx)
		if err == nil && isolate {
			if err = m.Isolate(ctx); err == nil || ctx.Err() != nil {
				return
			}
			err = fmt.Errorf("keep sessions from reaching each other by a network policy (FLAUDEBOT_ISOLATE=false does without): %w", err)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if !told {
			log.ErrorContext(ctx, "the app of the session machines is not as it has to be: it is tried again every minute", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
	}
}

func openMachines(cfg config, log *slog.Logger, observe func(fly.Call)) (*sessions.Machines, error) {
	client, err := fly.New(fly.Config{
		BaseURL: cfg.FlyBaseURL, LogsBaseURL: cfg.FlyLogsURL, Token: cfg.FlyToken, Log: log, UserAgent: "flaudebot/" + buildVersion(),
		HTTP: &http.Client{Transport: sessions.OwnersOnly(nil)}, Observe: observe,
	})
	if err != nil {
		return nil, err
	}
	return sessions.NewMachines(sessions.MachinesConfig{
		Fly: client, Handover: handover(cfg, client, log), App: cfg.FlyApp, Org: cfg.FlyOrg, Regions: cfg.regions, Image: cfg.Image, Guest: cfg.guest,
		VolumeGB: cfg.volumeGB, MaxMemoryMB: cfg.maxMemoryMB, MaxVolumeGB: cfg.maxVolumeGB, TTL: cfg.ttl, Repos: cfg.repos, Patience: cfg.patience,
		Secrets: runner.Secrets{
			AnthropicAPIKey: cfg.AnthropicAPIKey, ClaudeOAuthToken: cfg.ClaudeOAuthToken, AnthropicBaseURL: cfg.AnthropicBaseURL,
			GitUsername: cfg.GitUsername, GitToken: cfg.GitToken, GitOrigins: cfg.gitOrigins(),
		},
		Settings: runner.Settings{
			Model: cfg.Model, TimeoutSeconds: int(cfg.turnTimeout / time.Second), LingerSeconds: int(cfg.linger / time.Second),
			GitName: cfg.gitAuthor.Name, GitEmail: cfg.gitAuthor.Address, Forges: cfg.forges, Hosts: cfg.hosts,
		},
		OnceBudget: cfg.budgets.Once(), Log: log,
	})
}

// handover is how turns reach their machines.
func handover(cfg config, client *fly.Client, log *slog.Logger) sessions.Handover {
	byConfig := &sessions.ConfigHandover{Fly: client, Log: log}
	if cfg.Handover == "config" {
		log.Warn("FLAUDEBOT_HANDOVER=config: prompts and secrets are in the config of the machines, where all who may read the Fly app can read them; no machine lingers")
		return byConfig
	}
	return &sessions.FallbackHandover{Exec: sessions.ExecHandover{Fly: client}, Config: byConfig, Log: log}
}

func openBot(ctx context.Context, cfg config, log *slog.Logger, observe func(bot.Call)) (*bot.Bot, error) {
	return bot.New(ctx, bot.Config{
		AppToken: cfg.SlackAppToken, BotToken: cfg.SlackBotToken, APIURL: cfg.SlackAPIURL,
		AllowedUsers: cfg.allowedUsers, AllowedChannels: cfg.allowedChannels, AttachmentLimit: cfg.attachmentBytes, Parks: cfg.limits.RunningPerUser+cfg.limits.RunningPerGroup > 0, AskAfter: cfg.askAfter, Pace: cfg.slackPace, NamedRepos: cfg.namedRepos,
		PlainCommits: !cfg.trailers, Forges: cfg.forges,
		HTTP: &http.Client{Timeout: 30 * time.Second}, Observe: observe, Log: log, Version: buildVersion(),
	})
}
