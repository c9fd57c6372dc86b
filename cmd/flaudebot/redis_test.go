package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	goredis "github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"flaudebot/queue"
	"flaudebot/sessions"
)

// TestRedisKinds: two turns of a thread on each kind of Redis.
func TestRedisKinds(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	general := w.channel("general")
	apps := 0
	turns := func(t *testing.T, env ...string) {
		t.Helper()
		apps++ // an app belongs to one Redis: what the next one does not know it would take for lost
		p := start(t, slices.Concat(w.env, env, []string{fmt.Sprint("FLAUDEBOT_FLY_APP=kind-", apps)}), "serve")
		defer p.stop()
		root := w.say(member, general, "", mention+"remember the number 42")
		if text, code := w.answer(general, root, root); code != "0" {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		reply := w.say(member, general, root, "what number did I ask you to remember?")
		if text, code := w.answer(general, root, reply); code != "0" || !strings.Contains(text, "42") {
			t.Errorf("answer = %q (exit %s), want 42", text, code)
		}
		if strings.Contains(p.logs(), "NOPERM") || strings.Contains(p.logs(), "Redis trouble") {
			t.Errorf("there was trouble:\n%s", tail(p.logs(), 3000))
		}
	}
	t.Run("TLS, with a CA of its own", func(t *testing.T) {
		ca, args := certificates(t)
		_, port, _ := net.SplitHostPort(freeAddr(t))
		startRedis(t, freeAddr(t), t.TempDir(), append(args, "--tls-port", port)...)
		address := "REDIS_URL=rediss://127.0.0.1:" + port
		turns(t, address, "FLAUDEBOT_REDIS_CA="+ca)
		refused(t, slices.Concat(w.env, []string{address}), "shows a certificate that is not trusted: set FLAUDEBOT_REDIS_CA")
	})
	t.Run("a user with the rights that the documentation names, and no others", func(t *testing.T) {
		rdb, addr := aclRedis(t, documentedRule(t))
		turns(t, "REDIS_URL=redis://flaudebot:secret@"+addr)
		log, err := rdb.ACLLog(t.Context(), 100).Result()
		if err != nil || len(log) > 0 {
			t.Errorf("Redis refused %+v, %v; want nothing refused", log, err)
		}
	})
	t.Run("a cluster, noticed behind the address of one node", func(t *testing.T) {
		nodes := redisCluster(t, 3)
		turns(t, "REDIS_URL=redis://"+nodes[2])
		// One that knows further nodes needs none of them in particular.
		c, err := parseRedis("redis://"+freeAddr(t)+"?addr="+nodes[0]+"&addr="+nodes[1], "")
		if err != nil {
			t.Fatal(err)
		}
		var rdb *redisClients
		w.until("a connection with the first node away", func() bool { // the bot tries again as well, as long as it takes
			rdb, err = connectRedis(t.Context(), c)
			return err == nil
		})
		defer rdb.close()
		if all, err := rdb.calls.ZCard(t.Context(), "fb:{sessions}:live").Result(); err != nil || all != 1 {
			t.Errorf("there are %d live sessions, %v; want one", all, err)
		}
		c.one.DB, c.nodes = 3, nil
		c.one.Addr = nodes[0]
		if _, err := connectRedis(t.Context(), c); hopelessRedis(nodes[0], err) == nil {
			t.Errorf("with a database: %v, want a sentence", err)
		}
	})
}

// refused starts the bot with an environment that it must not run with: it says why, and ends.
func refused(t *testing.T, env []string, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	out, err := self(ctx, env, "serve").CombinedOutput()
	if err == nil || ctx.Err() != nil || !strings.Contains(string(out), want) {
		t.Errorf("serve = %v: %s, want it to end with %q", err, out, want)
	}
	if strings.Contains(string(out), "secret") {
		t.Errorf("a secret is shown: %s", out)
	}
}

// documentedRule is the rule of the user in docs/operations.md, as words for ACL SETUSER.
func documentedRule(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)ACL SETUSER flaudebot (.*?)\n` + "```").FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/operations.md has no rule for ACL SETUSER flaudebot")
	}
	rule := strings.Fields(strings.ReplaceAll(string(m[1]), "\\\n", " "))
	return slices.DeleteFunc(rule, func(word string) bool { return strings.HasPrefix(word, ">") })
}

// aclRedis starts a Redis whose user flaudebot has the password secret and that rule.
func aclRedis(t *testing.T, rule []string) (admin *goredis.Client, addr string) {
	t.Helper()
	addr = strings.TrimPrefix(redisServer(t), "redis://")
	admin = goredis.NewClient(&goredis.Options{Addr: addr})
	t.Cleanup(func() { _ = admin.Close() })
	if err := admin.ACLSetUser(t.Context(), "flaudebot", append([]string{">secret"}, rule...)...).Err(); err != nil {
		t.Fatal(err)
	}
	return admin, addr
}

// TestRedisRights: every right that the documentation names is needed, and a start says which one is missing.
func TestRedisRights(t *testing.T) {
	t.Parallel()
	rule := documentedRule(t)
	admin, addr := aclRedis(t, rule)
	begin := func() error {
		s := goodSettings()
		s.RedisURL = "redis://flaudebot:secret@" + addr
		cfg, err := s.check(allParts()...)
		if err != nil {
			return err
		}
		log := slog.New(slog.DiscardHandler)
		rdb, err := openRedis(t.Context(), cfg, log)
		if err != nil {
			return err
		}
		defer rdb.close()
		q, err := openQueue(t.Context(), cfg, rdb, log)
		if err != nil {
			return err
		}
		service, err := sessions.NewService(sessions.ServiceConfig{Redis: rdb.calls, Queue: q, Prefix: cfg.Prefix})
		if err != nil {
			return err
		}
		return waitForRedis(t.Context(), cfg, log, service.Check)
	}
	if err := begin(); err != nil {
		t.Fatalf("with the whole rule: %v", err)
	}
	for _, right := range rule {
		command, ok := strings.CutPrefix(right, "+")
		if !ok || command == "info" || command == "hello" || command == "cluster|slots" { // none of them is needed everywhere
			continue
		}
		set(t, admin, rule, "-"+command)
		err := begin()
		if err == nil || !strings.Contains(err.Error(), command) || !strings.Contains(err.Error(), "docs/operations.md") || !strings.Contains(err.Error(), "Redis at ") {
			t.Errorf("without %s: %v; want it named, and where the rule is", command, err)
		}
	}
	for _, keys := range []string{"~other:*", "~fb:{queue}:*", "~fb:{sessions}:*"} {
		set(t, admin, rule, "resetkeys", keys)
		if err := begin(); err == nil || !strings.Contains(err.Error(), "lacks the right to keys that begin with fb:{") {
			t.Errorf("with keys %s: %v; want it said which are missing", keys, err)
		}
	}
	set(t, admin, rule, "-info")
	if err := begin(); err != nil {
		t.Errorf("without INFO: %v; want it to do without", err)
	}
}

func set(t *testing.T, admin *goredis.Client, rule []string, more ...string) {
	t.Helper()
	if err := admin.ACLSetUser(t.Context(), "flaudebot", slices.Concat([]string{"reset", ">secret"}, rule, more)...).Err(); err != nil {
		t.Fatal(err)
	}
}

// certificates makes a CA, and a certificate of it for a redis-server on loopback.
func certificates(t *testing.T) (ca string, args []string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	newKey := func() *ecdsa.PrivateKey {
		t.Helper()
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, key := newKey(), newKey()
	caCert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour), NotBefore: time.Now().Add(-time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caCert, caCert, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"}, NotAfter: time.Now().Add(time.Hour), NotBefore: time.Now().Add(-time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, caCert, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ca = write("ca.pem", "CERTIFICATE", caDER)
	return ca, []string{
		"--tls-cert-file", write("redis.pem", "CERTIFICATE", der), "--tls-key-file", write("redis.key", "EC PRIVATE KEY", keyDER),
		"--tls-ca-cert-file", ca, "--tls-auth-clients", "no",
	}
}

// redisCluster starts a cluster of n masters and returns their addresses. args are for each redis-server.
func redisCluster(t *testing.T, n int, args ...string) []string {
	t.Helper()
	nodes, clients := make([]string, n), make([]*goredis.Client, n)
	share := 16384/n + 1
	for i := range nodes {
		nodes[i] = freeAddr(t)
		startRedis(t, nodes[i], t.TempDir(), append([]string{"--cluster-enabled", "yes"}, args...)...)
		rdb := goredis.NewClient(&goredis.Options{Addr: nodes[i]})
		t.Cleanup(func() { _ = rdb.Close() })
		clients[i] = rdb
		if err := rdb.ClusterAddSlotsRange(t.Context(), i*share, min((i+1)*share, 16384)-1).Err(); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(nodes[0])
		if err := rdb.ClusterMeet(t.Context(), host, port).Err(); err != nil && i > 0 {
			t.Fatal(err)
		}
	}
	for _, rdb := range clients {
		for end := time.Now().Add(testPatience); ; {
			info := rdb.ClusterInfo(t.Context()).Val()
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprint("cluster_known_nodes:", n)) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the cluster is not ready: %s", info)
			}
		}
	}
	return nodes
}

// TestSilentRedis: a Redis that falls silent with its connections open keeps nobody waiting who presses a button: Slack waits 3 s.
func TestSilentRedis(t *testing.T) {
	t.Parallel()
	bad := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "redis", "127.0.0.1:0", strings.TrimPrefix(redisServer(t), "redis://"))
	if err := bad.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bad.Stop)
	c, err := parseRedis("redis://"+bad.Listen, "")
	if err != nil {
		t.Fatal(err)
	}
	rdb, err := connectRedis(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.close()
	if _, err := bad.Toxics.AddToxicJson(strings.NewReader(`{"name":"silent","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // on the connection that is open, and on one that has to be made
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond) // as for a slash command
		began := time.Now()
		err := rdb.calls.Get(ctx, "x").Err()
		cancel()
		if took := time.Since(began); err == nil || queue.TroubleOf(err).Code != "NETWORK" || took > 2900*time.Millisecond {
			t.Errorf("Get = %v after %s, want no answer within 3 s", err, took)
		}
	}
}

// TestUnrepeated: the client of a cluster repeats no call whose answer is missing. The library alone does, also without MaxRetries.
func TestUnrepeated(t *testing.T) {
	t.Parallel()
	for _, ours := range []bool{true, false} {
		t.Run(fmt.Sprint("ours: ", ours), func(t *testing.T) {
			t.Parallel()
			bad := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "redis", "127.0.0.1:0", "")
			if err := bad.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(bad.Stop)
			_, port, _ := net.SplitHostPort(bad.Listen)
			node := redisCluster(t, 1, "--cluster-announce-port", port)[0] // so that the client comes through the bad network
			bad.Stop()
			bad.Upstream = node
			if err := bad.Start(); err != nil {
				t.Fatal(err)
			}
			c, err := parseRedis("redis://"+bad.Listen, "")
			if err != nil {
				t.Fatal(err)
			}
			rdb := newCluster(c.one, []string{bad.Listen})
			if !ours {
				rdb = goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{bad.Listen}, MaxRetries: -1, DisableIdentity: true})
			}
			t.Cleanup(func() { _ = rdb.Close() })
			if err := rdb.Ping(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			limit, err := json.Marshal(map[string]any{"name": "cut", "type": "limit_data", "stream": "downstream", "attributes": map[string]any{"bytes": 700}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bad.Toxics.AddToxicJson(bytes.NewReader(limit)); err != nil {
				t.Fatal(err)
			}
			const calls = 600
			failed := 0
			for range calls {
				if err := rdb.Incr(t.Context(), "n").Err(); err != nil {
					failed++
				}
			}
			admin := goredis.NewClient(&goredis.Options{Addr: node})
			defer func() { _ = admin.Close() }()
			n, err := admin.Get(t.Context(), "n").Int()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls, %d without an answer, done %d times", calls, failed, n)
			if ours && (n > calls || failed == 0) {
				t.Errorf("%d calls, %d of them without an answer, were done %d times; want some failed, and none done twice", calls, failed, n)
			}
			if !ours && n <= calls {
				t.Errorf("%d calls were done %d times: the library repeats none any more, and the hook is needless", calls, n)
			}
		})
	}
}

// TestRedisAddress: what REDIS_URL may say.
func TestRedisAddress(t *testing.T) {
	t.Parallel()
	notACert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notACert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, address, ca string
		nodes             []string
		want              string // in the error
	}{
		{name: "one server", address: "redis://:hunter2@a:1/3"},
		{name: "retries are not the address's to choose", address: "redis://a:1?max_retries=5"},
		{name: "a cluster", address: "rediss://u:hunter2@a:1?addr=b:2&addr=c:3", nodes: []string{"a:1", "b:2", "c:3"}},
		{name: "no address", address: "localhost:hunter2", want: "want redis://"},
		{name: "a node without its port", address: "redis://:hunter2@a:1?addr=b", want: "?addr=host:port for each further node"},
		{name: "an unknown parameter", address: "redis://:hunter2@a:1?adr=b:2", want: "want redis://"},
		{name: "a database of a cluster", address: "redis://:hunter2@a:1/2?addr=b:2", want: "a cluster has none but 0"},
		{name: "a CA without TLS", address: "redis://:hunter2@a:1", ca: notACert, want: "is not encrypted: want rediss://"},
		{name: "a CA that is none", address: "rediss://:hunter2@a:1", ca: notACert, want: "with certificates in PEM"},
		{name: "a CA that is not there", address: "rediss://:hunter2@a:1", ca: notACert + "x", want: "want a file that can be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseRedis(c.address, c.ca)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("parseRedis = %v, want %q in it, and no secret", err, c.want)
				}
				return
			}
			if err != nil || got.one.MaxRetries != -1 || got.one.DialerRetries != 1 || !slices.Equal(got.nodes, c.nodes) {
				t.Errorf("parseRedis = %+v, %v, want nodes %v and no retries", got, err, c.nodes)
			}
		})
	}
}

// TestHopelessRedis: a start waits for what passes, and ends with a sentence for what does not.
func TestHopelessRedis(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"LOADING Redis is loading the dataset in memory":       "",
		"READONLY You can't write against a read only replica": "",
		"CLUSTERDOWN The cluster is down":                      "",
		"BUSY Redis is busy running a script":                  "",
		"MISCONF Redis is configured to save RDB snapshots":    "",
		"OOM command not allowed":                              "",
		"ERR max number of clients reached":                    "",
		"NOAUTH Authentication required.":                      "refuses the user or password",
		"WRONGPASS invalid username-password pair":             "refuses the user or password",
		"NOPERM User x has no permissions":                     "lacks a right: docs/operations.md has the rule",
		"MOVED 12 10.0.0.1:6379":                               "one node of a cluster",
		"ERR unknown command 'EVAL'":                           "unknown command",
	} {
		got := hopelessRedis("a:1", fmt.Errorf("claim: %w", redisReply(text)))
		if (got == nil) != (want == "") || (got != nil && !strings.Contains(got.Error(), want)) {
			t.Errorf("hopelessRedis(%s) = %v, want %q", text, got, want)
		}
	}
	if err := hopelessRedis("a:1", errors.New("connection refused")); err != nil {
		t.Errorf("hopelessRedis(away) = %v, want it waited for", err)
	}
	if err := hopelessRedis("a:1", &queue.UnfitError{Why: "too old"}); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("hopelessRedis(unfit) = %v, want the reason", err)
	}
}

type redisReply string

func (e redisReply) Error() string { return string(e) }
func (redisReply) RedisError()     {}

// TestRedisGivenUp: a command that somebody waits for gives up on a Redis that does not answer, and says what to do; whoever may wait does.
func TestRedisGivenUp(t *testing.T) {
	t.Parallel()
	env := []string{
		"REDIS_URL=redis://127.0.0.1:1", "FLY_API_TOKEN=x", "FLY_FLAPS_BASE_URL=http://127.0.0.1:1", "FLAUDEBOT_FLY_APP=test-app", "ANTHROPIC_API_KEY=sk-ant-x",
	}
	for _, args := range []string{"sessions list", "sessions end T:C:1.2", "sessions reap", "costs", "audit", "run say: hello"} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			cmd := self(t.Context(), env, strings.Fields(args)...)
			out, _ := cmd.CombinedOutput()
			const want = "flaudebot: Redis at 127.0.0.1:1 does not answer: start it there, or correct host and port in REDIS_URL"
			if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), want) || strings.Contains(string(out), "deadline") {
				t.Errorf("exit %d, printed\n%swant %q", code, out, want)
			}
		})
	}
	cfg, err := goodSettings().check("redis")
	if err != nil {
		t.Fatal(err)
	}
	wait := func(ctx context.Context, err error) error {
		return waitForRedis(ctx, cfg, slog.New(slog.DiscardHandler), func(context.Context) error { return err })
	}
	t.Run("what Redis said last is what it says", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), redisPatience)
			defer cancel()
			if err := wait(ctx, redisReply("LOADING Redis is loading the dataset in memory")); err == nil || !strings.HasPrefix(err.Error(), "Redis at localhost:6379: Redis is reading its data after a restart") {
				t.Errorf("it gives up with %v", err)
			}
		})
	})
	t.Run("without a limit it is waited for until somebody ends it", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(24*time.Hour, cancel)
			if err := wait(ctx, errors.New("refused")); !errors.Is(err, context.Canceled) {
				t.Errorf("it gives up with %v", err)
			}
		})
	})
}
