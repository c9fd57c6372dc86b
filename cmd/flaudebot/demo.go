package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	localredis "flaudebot/local/redis"
	"flaudebot/sessions"
)

// demo is the bot in a local world with an embedded Redis: production code, by address only.
func demo(ctx context.Context, c cli) error {
	var f worldFlags
	flags := c.settingsFlags()
	f.register(flags)
	flags.StringVar(&f.redis, "redis", "", "`URL` of a Redis to use instead of the embedded one")
	err := c.parseAll(flags, " besides its flags (demo --help)")
	if errors.Is(err, errHelp) {
		fmt.Fprint(c.stdout, "\nThe bot's settings hold here as well, but for addresses, tokens and the app (serve --help lists them):\n\n"+
			"  FLAUDEBOT_BUDGET_PER_TURN=0.01 flaudebot demo --redis redis://127.0.0.1:6379\n")
	}
	if err != nil {
		return err
	}
	log := slog.New(sessions.LogHandler(slog.NewTextHandler(c.stderr, nil)))
	w, err := openWorld(f, log)
	if err != nil {
		return err
	}
	defer w.close()
	redisURL, closeRedis, err := w.openRedis()
	if err != nil {
		return err
	}
	defer closeRedis()
	cfg, err := w.settings(redisURL)
	if err != nil {
		return err
	}
	// The world outlives the bot, so that the bot can say good-bye to it.
	worldCtx, endWorld := context.WithCancel(context.WithoutCancel(ctx))
	defer endWorld()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.serve(worldCtx) })
	g.Go(func() error {
		defer endWorld()
		return serveWith(gctx, cfg, log, func() { fmt.Fprintf(c.stdout, "ready http://%s (Ctrl-C ends it)\n", w.slackAddr()) })
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// openRedis starts the embedded Redis unless another one was named.
func (w *world) openRedis() (url string, closeIt func(), err error) {
	if w.flags.redis != "" {
		return w.flags.redis, func() {}, nil
	}
	file := ""
	if !w.temporary {
		file = filepath.Join(w.dir, "redis.json")
	}
	srv, err := localredis.Start(file)
	if err != nil {
		return "", nil, err
	}
	return srv.URL(), func() {
		if err := srv.Close(); err != nil {
			w.log.Warn("the embedded Redis did not end well", "err", err)
		}
	}, nil
}

// secretsKey is the key for channels' secrets in this world, made with it.
func (w *world) secretsKey() (string, error) {
	name := filepath.Join(w.dir, "secrets.key")
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		raw = []byte(base64.StdEncoding.EncodeToString(key))
		err = os.WriteFile(name, raw, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("key for secrets: %w", err)
	}
	return string(raw), nil
}

// settings are the bot's in this world: what the environment says stands, but for the addresses and tokens.
func (w *world) settings(redisURL string) (config, error) {
	s, err := readSettings()
	if err != nil {
		return config{}, err
	}
	s.SlackAPIURL, s.SlackAppToken, s.SlackBotToken = "http://"+w.slackAddr()+"/api/", "xapp-local", "xoxb-local"
	s.FlyBaseURL, s.FlyLogsURL, s.FlyToken = "http://"+w.flyAddr(), "http://"+w.flyAddr(), "fly-local"
	s.FlyApp, s.FlyOrg, s.Image = "flaudebot-demo", "personal", "flaudebot-session:local"
	s.RedisURL = redisURL
	if s.Repos == "" {
		s.Repos = w.repoAddress()
	}
	if s.SecretsKey == "" {
		if s.SecretsKey, err = w.secretsKey(); err != nil {
			return config{}, err
		}
	}
	if s.GitToken == "" && w.hosted {
		s.GitToken = forgeToken
		s.Forges = strings.TrimPrefix(s.Forges+","+w.gitAddr()+"=github", ",")
	}
	if w.flags.agent != "auto" {
		s.AnthropicBaseURL, s.AnthropicAPIKey, s.ClaudeOAuthToken = "http://"+w.claudeAddr(), "sk-ant-local", ""
	}
	cfg, err := s.check("slack", "redis", "fly", "claude")
	cfg.embedded = w.flags.redis == ""
	return cfg, err
}
