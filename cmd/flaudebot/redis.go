package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"flaudebot/queue"
)

// redisConfig is how Redis is reached.
type redisConfig struct {
	one   *redis.Options // of a single server, or of each node of a cluster
	nodes []string       // host:port of nodes of a cluster; empty: it is noticed whether the one address leads to one
}

// parseRedis reads REDIS_URL and FLAUDEBOT_REDIS_CA. Its errors are sentences for whoever set them, without what is secret.
func parseRedis(address, caFile string) (redisConfig, error) {
	const want = "REDIS_URL: want redis://[user:password@]host:port[/db] or rediss://…, and for a cluster ?addr=host:port for each further node"
	u, err := url.Parse(address)
	if err != nil {
		return redisConfig{}, errors.New(want)
	}
	q := u.Query()
	further := q["addr"]
	q.Del("addr")
	u.RawQuery = q.Encode()
	opts, err := redis.ParseURL(u.String())
	if err != nil {
		return redisConfig{}, errors.New(want)
	}
	c := redisConfig{one: opts}
	for _, node := range further {
		if _, _, err := net.SplitHostPort(node); err != nil {
			return redisConfig{}, errors.New(want)
		}
	}
	if len(further) > 0 {
		c.nodes = append([]string{opts.Addr}, further...)
	}
	if len(c.nodes) > 0 && opts.DB != 0 {
		return redisConfig{}, errClusterDB
	}
	// The queue repeats what is safe to repeat, and nothing else; and it dials again by itself.
	opts.MaxRetries, opts.DialerRetries = -1, 1
	if opts.ReadTimeout == 0 {
		opts.ReadTimeout = 2 * time.Second // whoever presses a button waits, and Slack only for 3 s
	}
	opts.ContextTimeoutEnabled = true
	// Nothing is sent that a user of few rights may not: not who we are, not that we would like to hear of maintenance.
	opts.DisableIdentity = true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if caFile != "" {
		if opts.TLSConfig == nil {
			return redisConfig{}, errors.New("FLAUDEBOT_REDIS_CA is set, and REDIS_URL is not encrypted: want rediss://")
		}
		pem, err := os.ReadFile(caFile)
		pool := x509.NewCertPool()
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			return redisConfig{}, fmt.Errorf("FLAUDEBOT_REDIS_CA=%s: want a file that can be read, with certificates in PEM", caFile)
		}
		opts.TLSConfig.RootCAs = pool
	}
	return c, nil
}

var errClusterDB = errors.New("REDIS_URL names a database, and a cluster has none but 0: leave it out")

// redisClients are the connections to Redis.
type redisClients struct {
	calls    redis.UniversalClient
	listener redis.UniversalClient // its calls block for seconds, so it has a pool of its own
}

func (c *redisClients) close() {
	_, _ = c.calls.Close(), c.listener.Close()
}

// openRedis waits until Redis answers. What no waiting helps against is an error.
func openRedis(ctx context.Context, cfg config, log *slog.Logger) (*redisClients, error) {
	redis.SetLogger(redisLog{log})
	var out *redisClients
	err := waitForRedis(ctx, cfg, log, func(ctx context.Context) (err error) {
		out, err = connectRedis(ctx, cfg.redis)
		return err
	})
	return out, err
}

// redisLog takes in what the client says of its own accord: of each connection that fails, which the queue says once and better.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis client", "says", fmt.Sprintf(format, args...))
}

// connectRedis connects to a server, or to the cluster that it is a node of.
func connectRedis(ctx context.Context, c redisConfig) (*redisClients, error) {
	nodes := c.nodes
	if len(nodes) == 0 {
		one := c.one
		out := &redisClients{calls: redis.NewClient(one), listener: redis.NewClient(one)}
		err := out.calls.Ping(ctx).Err()
		// A server that does not say, since the user may not ask or since it is none of Redis's own, is taken for a single one.
		if err == nil && !strings.Contains(out.calls.Info(ctx, "server").Val(), "redis_mode:cluster") {
			return out, nil
		}
		out.close()
		if err != nil {
			return nil, err
		}
		if one.DB != 0 {
			return nil, &queue.UnfitError{Why: errClusterDB.Error()}
		}
		nodes = []string{one.Addr}
	}
	out := &redisClients{calls: newCluster(c.one, nodes), listener: newCluster(c.one, nodes)}
	if err := out.calls.Ping(ctx).Err(); err != nil {
		out.close()
		return nil, err
	}
	return out, nil
}

// newCluster makes a client of a cluster. It follows keys to other nodes, and repeats what a node has refused.
func newCluster(o *redis.Options, nodes []string) *redis.ClusterClient {
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: nodes, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig, Protocol: o.Protocol, ClientName: o.ClientName,
		MaxRetries: o.MaxRetries, DialerRetries: o.DialerRetries, DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		ContextTimeoutEnabled: o.ContextTimeoutEnabled, PoolSize: o.PoolSize, PoolTimeout: o.PoolTimeout, DisableIdentity: o.DisableIdentity,
		MaintNotificationsConfig: o.MaintNotificationsConfig, DisableRoutingPolicies: true,
		NewClient: func(o *redis.Options) *redis.Client {
			c := redis.NewClient(o)
			c.AddHook(unrepeated{})
			return c
		},
	})
}

// unrepeated keeps the client of a cluster from repeating a call whose answer is missing, whatever MaxRetries says: it may have been a claim. The
// client repeats by the error's type, so it gets one that it does not know.
type unrepeated struct{}

func (unrepeated) DialHook(next redis.DialHook) redis.DialHook { return next }

func (unrepeated) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return doubtful(next(ctx, cmd)) }
}

func (unrepeated) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { return doubtful(next(ctx, cmds)) }
}

// doubtful wraps an error after which the call may have been done.
func doubtful(err error) error {
	var reply redis.Error
	var dial *net.OpError
	if err == nil || errors.As(err, &reply) || (errors.As(err, &dial) && dial.Op == "dial") {
		return err
	}
	return lostAnswerError{err.Error()}
}

// lostAnswerError wraps nothing, on purpose.
type lostAnswerError struct{ what string }

func (e lostAnswerError) Error() string { return e.what }

// waitForRedis repeats do until Redis is well enough for it. An error is one that no waiting helps against.
func waitForRedis(ctx context.Context, cfg config, log *slog.Logger, do func(context.Context) error) error {
	said, last := "", error(nil)
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return givenUp(ctx, cfg, cmp.Or(last, err))
		}
		last = err
		addr, t := cfg.redis.one.Addr, queue.TroubleOf(err)
		if why := hopelessRedis(addr, err); why != nil {
			return why
		}
		if t.Code != said {
			level := slog.LevelWarn
			if t.Alarm {
				level = slog.LevelError
			}
			log.Log(ctx, level, "waiting for Redis", "addr", addr, "code", t.Code, "means", t.Means, "err", err)
			said = t.Code
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// redisPatience is how long a command waits for Redis that somebody waits for.
const redisPatience = 15 * time.Second

// givenUp is why Redis is waited for no longer, after it was ill with err.
func givenUp(ctx context.Context, cfg config, err error) error {
	addr, t := cfg.redis.one.Addr, queue.TroubleOf(err)
	switch {
	case !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ctx.Err()
	case t.Code == "NETWORK":
		return fmt.Errorf("Redis at %s does not answer: start it there, or correct host and port in REDIS_URL (rediss:// for TLS) (%w)", addr, err) //nolint:staticcheck // a name
	}
	return fmt.Errorf("Redis at %s: %s (%w)", addr, t.Means, err) //nolint:staticcheck // a name
}

// hopelessRedis returns the sentence for an error that somebody has to mend settings for; nil: it may pass.
func hopelessRedis(addr string, err error) error {
	var unfit *queue.UnfitError
	var cert *tls.CertificateVerificationError
	t := queue.TroubleOf(err)
	switch {
	case errors.As(err, &unfit):
		return fmt.Errorf("Redis at %s: %w; see docs/operations.md", addr, err) //nolint:staticcheck // a name
	case errors.As(err, &cert):
		return fmt.Errorf("Redis at %s shows a certificate that is not trusted: set FLAUDEBOT_REDIS_CA to the file of its CA (%w)", addr, cert.Err) //nolint:staticcheck // a name
	case t.Code == "NOAUTH", t.Code == "WRONGPASS", t.Code == "ERR" && strings.Contains(err.Error(), "invalid password"):
		return fmt.Errorf("Redis at %s refuses the user or password of REDIS_URL: correct it", addr) //nolint:staticcheck // a name
	case t.Final:
		return fmt.Errorf("Redis at %s: %s (%w)", addr, t.Means, err) //nolint:staticcheck // a name
	}
	return nil
}

func openQueue(ctx context.Context, cfg config, rdb *redisClients, log *slog.Logger) (*queue.Queue, error) {
	q, err := queue.New(rdb.calls, queue.Config{Prefix: cfg.Prefix, Lease: cfg.lease, Slots: cfg.maxParallel, Limits: cfg.limits, Listener: rdb.listener, Log: log})
	if err != nil {
		return nil, err
	}
	level := slog.LevelWarn
	if cfg.embedded { // it has no settings to tell of, and what it keeps is known
		level = slog.LevelDebug
	}
	err = waitForRedis(ctx, cfg, log, func(ctx context.Context) error {
		warnings, err := q.Check(ctx)
		for _, w := range warnings {
			log.Log(ctx, level, "Redis settings", "warning", w)
		}
		return err
	})
	return q, err
}
