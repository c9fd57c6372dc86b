package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/deploy"
	"flaudebot/doctor"
	"flaudebot/fly"
	localclaude "flaudebot/local/claude"
	localfly "flaudebot/local/fly"
	localforge "flaudebot/local/forge"
	"flaudebot/local/port"
	localslack "flaudebot/local/slack"
	"flaudebot/runner"
)

// secret is in none of the findings, whatever is wrong.
const secret = "fly-local-2f9e1c77"

// patient is a flaudebot in good health, in a world of its own, for a test to make ill.
type patient struct {
	*testing.T
	doctor.Config

	ahead atomic.Int64 // by how much, in ns, the world's clocks are ahead of ours
	world *httptest.Server
	redis *redis.Options
}

// newPatient starts the stand-ins. They share a door: a path's first part says whose it is.
func newPatient(t *testing.T, redisAt string) *patient {
	t.Helper()
	p := &patient{T: t, redis: &redis.Options{Addr: redisAt, DisableIdentity: true, DialerRetries: 1, MaxRetries: -1}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	slack, err := localslack.New(localslack.Config{Scopes: deploy.BotScopes()})
	must(err)
	machines, err := localfly.New(localfly.Config{Dir: t.TempDir(), Plain: true})
	must(err)
	repo := filepath.Join(t.TempDir(), "repo")
	for _, args := range [][]string{{"init", "-q", repo}, {"-C", repo, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "Begin"}} {
		if out, err := exec.CommandContext(t.Context(), "git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	forge, err := localforge.New(localforge.Config{
		Dir: t.TempDir(), Tokens: map[string]localforge.Right{"forge-writes": localforge.Write, "forge-reads": localforge.Read}, Private: true,
	})
	must(err)
	must(forge.Add("acme/site", repo))
	doors := map[string]http.Handler{"slack": slack.Handler(), "fly": machines.Handler(), "claude": localclaude.New(localclaude.Config{}).Handler(), "git": forge.Handler()}
	mux := http.NewServeMux()
	for name, h := range doors {
		mux.Handle("/"+name+"/", http.StripPrefix("/"+name, h))
	}
	mux.Handle("/v2/", doors["fly"]) // the registry is at a host, not below a path
	mux.Handle("/api/", doors["git"])
	p.world = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Duration(p.ahead.Load())).UTC().Format(http.TimeFormat))
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		p.world.Close()
		_, _ = slack.Close(), machines.Close()
	})
	p.Config = doctor.Config{
		Secrets: []string{secret},
		Slack:   &doctor.Slack{AppToken: "xapp-local", BotToken: "xoxb-local", APIURL: p.world.URL + "/slack/api/", Scopes: deploy.BotScopes(), Users: []string{"U0MEMBER", "S0TEAM"}, Channels: []string{"C0GENERAL"}},
		Redis: &doctor.Redis{Addr: redisAt, Prefix: "fb:", Open: func(ctx context.Context) (redis.UniversalClient, error) {
			rdb := redis.NewClient(p.redis)
			return rdb, rdb.Ping(ctx).Err()
		}},
		Fly: &doctor.Fly{
			BaseURL: p.world.URL + "/fly", Token: secret, App: "acme-sessions", Org: "acme", Regions: []string{"iad", "ewr"},
			Guest: fly.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 4096}, VolumeGB: 1, Image: p.host() + "/acme-sessions:session",
		},
		Claude: &doctor.Claude{APIKey: localclaude.Key, BaseURL: p.world.URL + "/claude", Model: "claude-local-1"},
		Git:    &doctor.Git{Username: "x-access-token", Token: "forge-writes", Repos: []runner.Repo{{URL: p.repo("acme/site")}}},
	}
	p.post("/fly/v1/apps", map[string]any{"app_name": "acme-sessions", "org_slug": "acme", "network": "acme-sessions"})
	return p
}

func (p *patient) host() string { return strings.TrimPrefix(p.world.URL, "http://") }

func (p *patient) repo(name string) string { return p.world.URL + "/git/" + name + ".git" }

// post tells the world something.
func (p *patient) post(path string, body map[string]any) {
	p.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		p.Fatal(err)
	}
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPost, p.world.URL+path, bytes.NewReader(raw))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+map[bool]string{true: secret, false: "xoxp-local-admin"}[strings.HasPrefix(path, "/fly/")])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if out, _ := io.ReadAll(res.Body); res.StatusCode/100 != 2 || bytes.Contains(out, []byte(`"ok":false`)) {
		p.Fatalf("POST %s = %s: %s", path, res.Status, out)
	}
}

// fault makes calls of one of the stand-ins fail.
func (p *patient) fault(who string, f map[string]any) { p.post("/"+who+"/local/faults", f) }

// redisServer starts a Redis with settings of its own.
func redisServer(t *testing.T, args ...string) *redis.Client {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("left out: redis-server is not installed")
	}
	addr, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(addr, ":")
	dir := t.TempDir()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), bin, append([]string{"--port", number, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes"}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + number, DisableIdentity: true})
	t.Cleanup(func() {
		_ = rdb.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		reply, err := redis.Error(nil), rdb.Ping(t.Context()).Err()
		if err == nil || errors.As(err, &reply) { // it wants a password
			return rdb
		}
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not answer")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// config sets a setting of Redis.
func config(t *testing.T, rdb *redis.Client, name, value string) {
	t.Helper()
	if err := rdb.ConfigSet(t.Context(), name, value).Err(); err != nil {
		t.Fatal(err)
	}
}

func lines(all []doctor.Finding) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}
