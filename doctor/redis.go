package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
	"flaudebot/sessions"
)

// Redis says how Redis is reached.
type Redis struct {
	Addr   string // host:port, for people
	Prefix string // of all keys
	// Open connects. What it returns is closed by the check.
	Open func(context.Context) (redis.UniversalClient, error)
}

// slowRedis is from where on Redis is too far away: a turn makes some dozens of calls, and a click has 3 s.
const slowRedis = 50 * time.Millisecond

func (r *Redis) look(ctx context.Context, _ *examination) []Finding {
	rdb, err := r.Open(ctx)
	if err != nil {
		return []Finding{r.trouble(err)}
	}
	defer func() { _ = rdb.Close() }()
	q, err := queue.New(rdb, queue.Config{Prefix: r.Prefix})
	if err != nil {
		return []Finding{bad("set FLAUDEBOT_PREFIX to a few letters", "%s", err)}
	}
	l, err := q.Look(ctx)
	if err != nil {
		return []Finding{r.trouble(err)}
	}
	out := slices.Concat(r.server(l), r.layout(l), r.latency(ctx, rdb))
	const fix = "give the user the rights that docs/operations.md lists under Redis (ACL SETUSER)"
	var unfit *queue.UnfitError
	storeErr := sessions.CheckRights(ctx, rdb, r.Prefix)
	switch {
	case l.Lacks != nil:
		out = append(out, bad(fix, "%s", l.Lacks))
	case errors.As(storeErr, &unfit):
		out = append(out, bad(fix, "%s", unfit))
	case storeErr != nil:
		out = append(out, r.trouble(storeErr))
	default:
		out = append(out, ok("the user of Redis has the rights that are needed"))
	}
	return out
}

// server judges what Redis says of itself.
func (r *Redis) server(l queue.Look) []Finding {
	s := l.Server
	if l.Silent {
		return []Finding{warn("allow the user INFO (ACL SETUSER … +info), or look yourself for appendonly yes and maxmemory-policy noeviction", "Redis at %s answers, and does not say how it is set up", r.Addr)}
	}
	var out []Finding
	name := strings.TrimSpace(s.Name + " " + s.Version)
	if s.Name == "" {
		name = strings.TrimSpace("Redis " + s.Version)
	}
	if s.Old() {
		out = append(out, bad("use Redis 7 or later, or Valkey", "%s at %s is too old", name, r.Addr))
	} else {
		out = append(out, ok("%s at %s answers", name, r.Addr))
	}
	switch s.AOF {
	case "0":
		out = append(out, warn("CONFIG SET appendonly yes, and the same in its configuration", "appendonly is off: a restart of Redis loses what was accepted since its last snapshot"))
	case "1":
		out = append(out, ok("appendonly is on"))
	}
	const mb = 1 << 20
	switch {
	case s.Evicts():
		out = append(out, bad("CONFIG SET maxmemory-policy noeviction, and the same in its configuration", "maxmemory-policy is %s: when Redis is full it silently drops queued turns", s.Policy))
	case s.MaxMemory > 0 && s.Used > s.MaxMemory/10*8:
		out = append(out, warn("raise maxmemory, or remove what else is in it", "Redis is nearly full: %.1f of %.1f MB", float64(s.Used)/mb, float64(s.MaxMemory)/mb))
	case s.MaxMemory > 0:
		out = append(out, ok("memory: %.1f of %.1f MB, and nothing is evicted", float64(s.Used)/mb, float64(s.MaxMemory)/mb))
	case s.Policy != "":
		out = append(out, ok("memory: %.1f MB, without a limit of its own", float64(s.Used)/mb))
	}
	return out
}

func (r *Redis) layout(l queue.Look) []Finding {
	switch {
	case l.Layout > l.Known:
		return []Finding{bad("run the newer flaudebot, or use another FLAUDEBOT_PREFIX", "the data under %s has layout %d, and this flaudebot knows %d", r.Prefix, l.Layout, l.Known)}
	case l.Layout == 0:
		return []Finding{ok("nothing is kept under %s yet", r.Prefix)}
	}
	return []Finding{ok("the data under %s has layout %d", r.Prefix, l.Layout)}
}

func (r *Redis) latency(ctx context.Context, rdb redis.UniversalClient) []Finding {
	var took []time.Duration
	for range 9 {
		began := time.Now()
		if err := rdb.Ping(ctx).Err(); err != nil {
			return []Finding{r.trouble(err)}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	usual := took[len(took)/2].Round(100 * time.Microsecond)
	if usual > slowRedis {
		return []Finding{warn("run the bot and Redis in the same region", "Redis takes %s for a call", usual)}
	}
	if usual < time.Millisecond {
		return []Finding{ok("Redis takes less than 1 ms for a call")}
	}
	return []Finding{ok("Redis takes %s for a call", usual)}
}

// trouble is the finding of an error of Redis.
func (r *Redis) trouble(err error) Finding {
	t := queue.TroubleOf(err)
	var cert *tls.CertificateVerificationError
	var unfit *queue.UnfitError
	switch {
	case errors.As(err, &cert):
		return bad("set FLAUDEBOT_REDIS_CA to the file of the CA that signed it", "Redis at %s shows a certificate that is not trusted: %s", r.Addr, cert.Err)
	case errors.As(err, &unfit):
		return bad("correct REDIS_URL", "Redis at %s: %s", r.Addr, unfit)
	case t.Code == "NOAUTH", t.Code == "WRONGPASS", t.Code == "ERR" && strings.Contains(err.Error(), "invalid password"):
		return bad("put the right user and password into REDIS_URL", "Redis at %s refuses the user or password", r.Addr)
	case t.Code == "NETWORK":
		return bad("start Redis there, or correct host and port in REDIS_URL (rediss:// for TLS)", "Redis at %s does not answer: %s", r.Addr, plain(err))
	}
	return bad("see docs/operations.md, Redis", "Redis at %s: %s (%s)", r.Addr, t.Means, err)
}
