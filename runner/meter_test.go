package runner

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	sonnetStart = `event: message_start
data: {"type":"message_start","message":{"model":"claude-sonnet-4-5","usage":{"input_tokens":1000000,"cache_read_input_tokens":1000000,"output_tokens":1}}}

`
	sonnetText = `event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}

`
	sonnetEnd = `event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":200000}}

event: message_stop
data: {"type":"message_stop"}

`
	sonnetWhole = `{"type":"message","model":"claude-sonnet-4-5","usage":{"input_tokens":1000000,"output_tokens":200000}}`
)

// priced is an API whose answers are of one kind.
func priced(t *testing.T, kind, body string, status int) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(status)
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, body)
			_ = z.Close()
			return
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv
}

// charged is a turn that a gateway charges.
func charged(t *testing.T, g *gateway, b *Budget) *turn {
	t.Helper()
	cfg := Config{Data: t.TempDir(), RunDir: t.TempDir(), UID: -1}
	if err := cfg.makeDirs(); err != nil {
		t.Fatal(err)
	}
	turn := Turn{ID: "T1:C1:1.1", Budget: b}
	j, err := newJournal(cfg, turn.ID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.close)
	tr := newTurn(cfg, turn, "", Secrets{}, j, "")
	g.meter.serve(tr)
	return tr
}

func TestGatewayMeters(t *testing.T) {
	t.Parallel()
	letters := fmt.Sprintf(sonnetText, strings.Repeat("x", 300_000))
	for name, c := range map[string]struct {
		path, kind, body string
		status           int
		want             float64
	}{
		"a stream":                    {"/v1/messages?beta=true", "text/event-stream; charset=utf-8", sonnetStart + letters + sonnetEnd, 200, 3 + 0.3 + 3},
		"one that is broken off":      {"/v1/messages", "text/event-stream", sonnetStart + letters, 200, 3 + 0.3 + 1.5},
		"one in lines that end in CR": {"/v1/messages", "text/event-stream", strings.ReplaceAll(sonnetStart+sonnetEnd, "\n", "\r\n"), 200, 6.3},
		"an answer in one piece":      {"/v1/messages", "application/json", sonnetWhole, 200, 6},
		"a refusal":                   {"/v1/messages", "application/json", sonnetWhole, 429, 0},
		"a count of tokens":           {"/v1/messages/count_tokens", "application/json", sonnetWhole, 200, 0},
		"something else":              {"/v1/messages", "text/plain", "hello", 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := priced(t, c.kind, c.body, c.status)
			g, env := newGateway(t, Secrets{AnthropicAPIKey: "sk-ant-real", AnthropicBaseURL: api.URL})
			charged(t, g, nil)
			res := ask(t, env["ANTHROPIC_BASE_URL"]+c.path, http.Header{"X-Api-Key": {g.pass}, "Accept-Encoding": {"gzip, br"}})
			got, err := io.ReadAll(res.Body)
			if err != nil || string(got) != c.body || res.StatusCode != c.status {
				t.Errorf("the answer = %d %.200q, %v; want it as the API sent it", res.StatusCode, got, err)
			}
			if usd := g.meter.settle(); math.Abs(usd-c.want) > 1e-4 {
				t.Errorf("metered $%g, want $%g", usd, c.want)
			}
			if usd := g.meter.settle(); usd != 0 {
				t.Errorf("the next turn begins with $%g", usd)
			}
		})
	}
}

// TestGatewayEndsABudget: the response that crosses it comes whole; a further one is not asked for, and the turn is stopped.
func TestGatewayEndsABudget(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, sonnetWhole)
	}))
	t.Cleanup(api.Close)
	g, env := newGateway(t, Secrets{AnthropicAPIKey: "sk-ant-real", AnthropicBaseURL: api.URL})
	tr := charged(t, g, &Budget{USD: 7})
	post := func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, env["ANTHROPIC_BASE_URL"]+path, bytes.NewReader(make([]byte, 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", g.pass)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	if code, body := post("/v1/messages/batches"); code != http.StatusForbidden || !strings.Contains(body, "cannot be counted") {
		t.Errorf("a batch = %d %s, want it refused: nobody counts what it costs", code, body)
	}
	for range 2 { // $6 are below, $12 above
		if code, _ := post("/v1/messages"); code != http.StatusOK || tr.stopped() {
			t.Fatalf("a response = %d, stopped: %v", code, tr.stopped())
		}
	}
	if code, _ := post("/v1/messages/count_tokens"); code != http.StatusOK || tr.stopped() {
		t.Errorf("what costs nothing = %d, stopped: %v; want it answered", code, tr.stopped())
	}
	go func() {
		<-tr.stopNow
		g.close()
	}()
	if code, body := post("/v1/messages"); code == http.StatusOK && body != "" {
		t.Errorf("a response after the budget = %d %s", code, body)
	}
	if !tr.stopped() || tr.why != FailBudget {
		t.Errorf("stopped: %v, why: %q", tr.stopped(), tr.why)
	}
	close(asked)
	var paths []string
	for p := range asked {
		paths = append(paths, p)
	}
	if got := strings.Join(paths, " "); got != "/v1/messages /v1/messages /v1/messages/count_tokens" {
		t.Errorf("the API was asked for %s", got)
	}
	if out := tr.cut(Outcome{}); out.Failure != FailBudget || out.ExitCode != 130 {
		t.Errorf("the outcome = %+v", out)
	}
	events, _ := tr.journal.after(0)
	if len(events) != 2 || events[0].Kind != KindSpent || events[1].USD != 12 {
		t.Errorf("events = %+v, want what was spent after each response", events)
	}
}

// TestBudgetOfManyAtOnce: requests that are made at once cannot use up more than the budget and one response, and those that are broken off cost their prompt.
func TestBudgetOfManyAtOnce(t *testing.T) {
	t.Parallel()
	const three = `{"type":"message","model":"claude-sonnet-4-5","usage":{"input_tokens":0,"output_tokens":200000}}` // dollars
	ask := `{"model":"claude-sonnet-4-5","max_tokens":200000}`
	open := func(t *testing.T, usd float64, answer http.HandlerFunc) (*gateway, *turn, func(ctx context.Context, body string) error) {
		t.Helper()
		api := httptest.NewServer(answer)
		t.Cleanup(api.Close)
		g, env := newGateway(t, Secrets{AnthropicAPIKey: "sk-ant-real", AnthropicBaseURL: api.URL})
		return g, charged(t, g, &Budget{USD: usd}), func(ctx context.Context, body string) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, env["ANTHROPIC_BASE_URL"]+"/v1/messages", strings.NewReader(body))
			if err != nil {
				return err
			}
			req.Header.Set("X-Api-Key", g.pass)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, res.Body)
			return errors.Join(err, res.Body.Close())
		}
	}
	t.Run("many at once", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int32
		g, tr, post := open(t, 7, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, three)
		})
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { _ = post(t.Context(), ask) })
		}
		<-tr.stopNow
		g.close()
		all.Wait()
		if n, usd := asked.Load(), g.meter.settle(); n != 3 || usd != 9 {
			t.Errorf("%d requests cost $%g, want 3 for $9: the third crosses the budget of $7", n, usd)
		}
	})
	t.Run("an answer that cannot be read", func(t *testing.T) {
		t.Parallel()
		g, _, post := open(t, 10, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
		if err := post(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		if usd := g.meter.settle(); math.Abs(usd-3) > 0.01 {
			t.Errorf("it has cost $%g, want what it may have cost at most", usd)
		}
	})
	t.Run("after its end nothing more, until there is another turn", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int32
		g, _, post := open(t, 10, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			_, _ = io.WriteString(w, three)
		})
		g.meter.settle()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := post(ctx, ask); err == nil || asked.Load() != 0 {
			t.Errorf("it was answered: %v, %d", err, asked.Load())
		}
		charged(t, g, nil)
		if err := post(t.Context(), ask); err != nil || asked.Load() != 1 {
			t.Errorf("the next turn's = %v, %d", err, asked.Load())
		}
	})
	t.Run("one that is broken off before its answer", func(t *testing.T) {
		t.Parallel()
		there := make(chan struct{})
		g, _, post := open(t, 1, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			close(there)
			<-r.Context().Done()
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-there; cancel() }()
		if err := post(ctx, `{"model":"claude-sonnet-4-5","max_tokens":9,"stream":true,"messages":"`+strings.Repeat("x", 300_000)+`"}`); err == nil {
			t.Fatal("it was answered")
		}
		if usd := g.meter.settle(); math.Abs(usd-0.3) > 0.01 { // it waits until the request is over
			t.Errorf("it has cost $%g, want about $0.30: its prompt", usd)
		}
	})
}
