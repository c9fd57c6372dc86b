package runner

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// upstream is an API that notes what reaches it.
type upstream struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request // guarded by mu
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.seen = append(u.seen, r)
		u.mu.Unlock()
		_, _ = io.WriteString(w, "event: first\n\n")
		w.(http.Flusher).Flush()
		if r.URL.Query().Has("wait") {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) last() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) == 0 {
		return nil
	}
	return u.seen[len(u.seen)-1]
}

func newGateway(t *testing.T, s Secrets) (*gateway, map[string]string) {
	t.Helper()
	g, err := Config{}.openGateway(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	env := map[string]string{}
	for _, kv := range g.env(s) {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	return g, env
}

func ask(t *testing.T, url string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestGateway(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	for name, c := range map[string]struct {
		secrets            Secrets
		variable           string
		send               func(pass string) http.Header
		wantKey, wantToken string
	}{
		"an API key": {
			Secrets{AnthropicAPIKey: "the-real-key"},
			"ANTHROPIC_API_KEY",
			func(pass string) http.Header { return http.Header{"X-Api-Key": {pass}} }, "the-real-key", "",
		},
		"an OAuth token": {
			Secrets{ClaudeOAuthToken: "the-real-token"},
			"CLAUDE_CODE_OAUTH_TOKEN",
			func(pass string) http.Header {
				return http.Header{"Authorization": {"Bearer " + pass}, "Anthropic-Beta": {"oauth-2025-04-20"}}
			}, "", "Bearer the-real-token",
		},
		"an OAuth token, of both": {
			Secrets{AnthropicAPIKey: "the-real-key", ClaudeOAuthToken: "the-real-token"},
			"CLAUDE_CODE_OAUTH_TOKEN",
			func(pass string) http.Header { return http.Header{"Authorization": {"Bearer " + pass}} }, "", "Bearer the-real-token",
		},
	} {
		t.Run("puts "+name+" in place of the turn's pass", func(t *testing.T) {
			c.secrets.AnthropicBaseURL = u.URL + "/base"
			_, env := newGateway(t, c.secrets)
			pass := env[c.variable]
			if len(env) != 2 || pass == "" || strings.Contains(pass, "real") || !strings.HasPrefix(env["ANTHROPIC_BASE_URL"], "http://127.0.0.1:") {
				t.Fatalf("environment = %v, want the address and one credential, which is none", env)
			}
			header := c.send(pass)
			header.Set("Anthropic-Version", "x")
			res := ask(t, env["ANTHROPIC_BASE_URL"]+"/v1/messages?beta=true", header)
			got := u.last()
			if res.StatusCode != http.StatusOK || got.Header.Get("X-Api-Key") != c.wantKey || got.Header.Get("Authorization") != c.wantToken {
				t.Errorf("%s: upstream saw %v", res.Status, got.Header)
			}
			// A pass in both places, as the CLI may send it, leaves none on the way out.
			ask(t, env["ANTHROPIC_BASE_URL"], http.Header{"X-Api-Key": {pass}, "Authorization": {"Bearer " + pass}})
			if both := u.last(); both.Header.Get("X-Api-Key") != c.wantKey || both.Header.Get("Authorization") != c.wantToken {
				t.Errorf("upstream saw %v, want the real credential alone", both.Header)
			}
			if got.URL.String() != "/base/v1/messages?beta=true" || got.Header.Get("Anthropic-Version") != "x" || got.Header.Get("Anthropic-Beta") != header.Get("Anthropic-Beta") {
				t.Errorf("upstream saw %s %v, want the request as it was", got.URL, got.Header)
			}
		})
	}
	t.Run("lets nobody else pass", func(t *testing.T) {
		v := newUpstream(t)
		s := Secrets{AnthropicAPIKey: "the-real-key", AnthropicBaseURL: v.URL}
		_, mine := newGateway(t, s)
		_, other := newGateway(t, s)
		if mine["ANTHROPIC_API_KEY"] == other["ANTHROPIC_API_KEY"] {
			t.Error("two gateways have one pass")
		}
		for _, header := range []http.Header{{}, {"X-Api-Key": {""}}, {"X-Api-Key": {other["ANTHROPIC_API_KEY"]}}, {"Authorization": {"Bearer the-real-key"}}} {
			if res := ask(t, mine["ANTHROPIC_BASE_URL"], header); res.StatusCode != http.StatusUnauthorized {
				t.Errorf("%v: %s, want 401", header, res.Status)
			}
		}
		if v.last() != nil {
			t.Error("a request reached the API")
		}
	})
	t.Run("goes to one place, whatever is asked for", func(t *testing.T) {
		v := newUpstream(t)
		_, env := newGateway(t, Secrets{AnthropicAPIKey: "the-real-key", AnthropicBaseURL: v.URL})
		elsewhere := newUpstream(t)
		header := http.Header{"X-Api-Key": {env["ANTHROPIC_API_KEY"]}, "X-Forwarded-Host": {elsewhere.Listener.Addr().String()}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env["ANTHROPIC_BASE_URL"]+"//"+elsewhere.Listener.Addr().String()+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header, req.Host = header, elsewhere.Listener.Addr().String()
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if elsewhere.last() != nil || v.last() == nil || v.last().Host != v.Listener.Addr().String() {
			t.Errorf("the request went elsewhere, or for another host: %+v", v.last())
		}
	})
	t.Run("passes on what streams as it comes", func(t *testing.T) {
		_, env := newGateway(t, Secrets{AnthropicAPIKey: "the-real-key", AnthropicBaseURL: u.URL})
		res := ask(t, env["ANTHROPIC_BASE_URL"]+"/?wait", http.Header{"X-Api-Key": {env["ANTHROPIC_API_KEY"]}})
		first := make([]byte, 12)
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "event: first" {
			t.Errorf("read %q, %v, while upstream holds the rest back", first, err)
		}
	})
	t.Run("is shut with the turn", func(t *testing.T) {
		g, env := newGateway(t, Secrets{AnthropicAPIKey: "k", AnthropicBaseURL: u.URL})
		g.close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env["ANTHROPIC_BASE_URL"], nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			t.Error("it answers")
		}
	})
	t.Run("needs an address", func(t *testing.T) {
		if _, err := (Config{}).openGateway(Secrets{AnthropicBaseURL: "nowhere"}); err == nil {
			t.Error("openGateway(nowhere) succeeds")
		}
	})
}
