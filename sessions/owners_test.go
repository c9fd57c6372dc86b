package sessions

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"flaudebot/fly"
	"flaudebot/queue"
	"flaudebot/runner"
)

// underClaim runs do as the handler of a claim, and returns when it has. After lose nothing renews the lease any more.
func underClaim(t *testing.T, do func(ctx context.Context, lose func())) {
	t.Helper()
	redisServer := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: redisServer.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	q, err := queue.New(rdb, queue.Config{Prefix: "owners:", Lease: 3 * time.Second, Grace: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Enqueue(t.Context(), queue.Job{Key: "k", ID: "1", User: "u", Group: "g"}, queue.Enqueue{}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	err = q.Run(ctx, func(ctx context.Context, _ *queue.Claim) queue.Verdict {
		defer leave()
		do(ctx, redisServer.Close)
		return queue.Handoff()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// counting is a server that counts the requests that [sendBody] has sent.
func counting(t *testing.T) (url string, sent *atomic.Int32) {
	t.Helper()
	sent = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) == "body" {
			sent.Add(1)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, sent
}

// sendBody sends a request with a body.
func sendBody(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("body"))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// TestOwnersOnly: nothing is sent for a turn whose lease may be over, also where nobody waits for the end of the context.
func TestOwnersOnly(t *testing.T) {
	t.Parallel()
	url, sent := counting(t)
	client := &http.Client{Transport: OwnersOnly(nil)}
	left := make(chan context.Context, 1)
	underClaim(t, func(ctx context.Context, lose func()) {
		if err := sendBody(ctx, client, url); err != nil {
			t.Errorf("a request of the turn's owner: %v", err)
		}
		lose()
		<-ctx.Done()
		left <- context.WithoutCancel(ctx)
		if err := sendBody(context.WithoutCancel(ctx), client, url); !errors.Is(err, queue.ErrLost) || !errors.Is(err, fly.ErrUnsent) {
			t.Errorf("a request of who was its owner: %v, want ErrLost, and that it was not sent", err)
		}
	})
	after := <-left
	if err := sendBody(after, client, url); !errors.Is(err, queue.ErrLost) {
		t.Errorf("a request of what is left of his work: %v, want ErrLost", err)
	}
	if err := sendBody(queue.Fenced(after), client, url); err != nil {
		t.Errorf("a request that has a fence of its own: %v", err)
	}
	if err := sendBody(t.Context(), client, url); err != nil {
		t.Errorf("a request for no turn: %v", err)
	}
	if n := sent.Load(); n != 3 {
		t.Errorf("%d requests were sent, want those of the owner, with a fence and for no turn", n)
	}
}

// TestOwnersOnlyLate: the lease runs out while a request waits for its connection. It is not written any more.
func TestOwnersOnlyLate(t *testing.T) {
	t.Parallel()
	url, sent := counting(t)
	underClaim(t, func(ctx context.Context, lose func()) {
		late := roundTripper(func(r *http.Request) (*http.Response, error) {
			lose()
			<-ctx.Done()
			return http.DefaultTransport.RoundTrip(r)
		})
		err := sendBody(context.WithoutCancel(ctx), &http.Client{Transport: OwnersOnly(late)}, url)
		if !errors.Is(err, queue.ErrLost) {
			t.Errorf("a request that came too late: %v, want ErrLost", err)
		}
	})
	if n := sent.Load(); n != 0 {
		t.Errorf("%d requests were sent, want none", n)
	}
}

// TestOverslept: a replica notices at one of its requests to Fly that its lease may be over. It lets go of the job, and whoever has it then
// brings it to the end that it would have had.
func TestOverslept(t *testing.T) {
	t.Parallel()
	one := turn("101", "one", true)
	sent := func(method, suffix string) func(*bot, *http.Request) bool {
		return func(_ *bot, r *http.Request) bool { return r.Method == method && strings.HasSuffix(r.URL.Path, suffix) }
	}
	for name, is := range map[string]func(*bot, *http.Request) bool{
		"records are rebuilt": sent(http.MethodGet, "/machines"),
		"a machine is made":   sent(http.MethodPost, "/machines"),
		"its lease is taken":  sent(http.MethodPost, "/lease"),
		"it is put to sleep": func(b *bot, r *http.Request) bool {
			return len(b.front.of(one.ID, "2")) > 0 && (strings.HasSuffix(r.URL.Path, "/stop") || slices.Contains(r.URL.Query()["state"], "stopped"))
		},
		"it is destroyed": func(_ *bot, r *http.Request) bool {
			return r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/v1/apps/"+testApp+"/machines/") && !strings.HasSuffix(r.URL.Path, "/lease")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t)
			client, err := fly.New(fly.Config{BaseURL: b.url, LogsBaseURL: b.url, Token: "fly-local", Unlimited: true, HTTP: &http.Client{
				Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					if is(b, r) && !b.front.isQuiet() {
						return nil, errors.Join(fly.ErrUnsent, queue.ErrLost)
					}
					return http.DefaultTransport.RoundTrip(r)
				}),
			}})
			if err != nil {
				t.Fatal(err)
			}
			r := b.replica(func(_ *ServiceConfig, m *MachinesConfig) { m.Fly = client }).start()
			if out := b.answered(r, r.accept(one)); out.Answer != "answer to one" || out.Failure != runner.FailNone {
				t.Errorf("the outcome is %+v", out)
			}
			b.wasOnce(one)
			if _, err := r.End(t.Context(), thread(), "U1", ""); err != nil {
				t.Fatal(err)
			}
			b.idle(r)
			if got := b.front.goodbyes(); len(got) != 1 || !got[0].outcome.Destroyed {
				t.Errorf("the ends are %+v, want one, of all", got)
			}
			b.have(0, 0)
			if !b.front.isQuiet() {
				t.Error("nothing was let go")
			}
		})
	}
}

// TestLeaseNobodyWaitsFor: a turn is let go while its request for the machine's lease is on the way. The lease is given back.
func TestLeaseNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	sc := newWorld(t).script(nil)
	sc.turn("one")
	ctx, letGo := context.WithCancel(t.Context())
	slow := roundTripper(func(r *http.Request) (*http.Response, error) {
		res, err := http.DefaultTransport.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/lease") || err != nil {
			return res, err
		}
		letGo()
		return res, r.Context().Err()
	})
	client, err := fly.New(fly.Config{BaseURL: sc.url, LogsBaseURL: sc.url, Token: "fly-local", Unlimited: true, HTTP: &http.Client{Transport: slow}})
	if err != nil {
		t.Fatal(err)
	}
	m := sc.machines(func(cfg *MachinesConfig) { cfg.Fly, cfg.LeaseTTL = client, time.Hour })
	if _, err := m.RunTurn(ctx, &sc.s, sc.run("two")); !errors.Is(err, context.Canceled) {
		t.Errorf("RunTurn = %v, want that it was let go", err)
	}
	if out := sc.turn("three"); out.Answer != "answer to three" || sc.told(lineHeld) {
		t.Errorf("the next owner: %+v, told %q", out, sc.notes)
	}
}
