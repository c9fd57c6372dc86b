package runner

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// gateway is where Claude Code believes the API to be. It adds the real credential to what carries the one of this
// turn, and sends it to one fixed place: nothing that Claude Code or its commands can read opens the API elsewhere.
type gateway struct {
	pass string // what Claude Code sends instead of the credential
	addr string
	srv  *http.Server
}

func openGateway(s Secrets) (*gateway, error) {
	base := s.AnthropicBaseURL
	if base == "" {
		base = "https://api.anthropic.com"
	}
	upstream, err := url.Parse(base)
	if err != nil || upstream.Host == "" {
		return nil, fmt.Errorf("%q is no address for the API", base)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the gateway: %w", err)
	}
	g := &gateway{pass: "flaudebot-" + rand.Text(), addr: l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Header.Del("X-Api-Key")
			r.Out.Header.Del("Authorization")
			if s.ClaudeOAuthToken != "" {
				r.Out.Header.Set("Authorization", "Bearer "+s.ClaudeOAuthToken)
			} else {
				r.Out.Header.Set("X-Api-Key", s.AnthropicAPIKey)
			}
		},
		FlushInterval: -1, // streams
		ErrorLog:      log.New(discard{}, "", 0),
	}
	g.srv = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !g.mayPass(r) {
				http.Error(w, `{"type":"error","error":{"type":"authentication_error","message":"not a request of this turn"}}`, http.StatusUnauthorized)
				return
			}
			proxy.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(discard{}, "", 0),
	}
	go func() { _ = g.srv.Serve(l) }()
	return g, nil
}

func (g *gateway) mayPass(r *http.Request) bool {
	for _, got := range []string{r.Header.Get("X-Api-Key"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")} {
		if subtle.ConstantTimeCompare([]byte(got), []byte(g.pass)) == 1 {
			return true
		}
	}
	return false
}

// env points Claude Code at the gateway. With an OAuth token it must believe to have one, since it then adds a
// header that the API asks for.
func (g *gateway) env(s Secrets) []string {
	name := "ANTHROPIC_API_KEY"
	if s.ClaudeOAuthToken != "" {
		name = "CLAUDE_CODE_OAUTH_TOKEN"
	}
	return []string{"ANTHROPIC_BASE_URL=http://" + g.addr, name + "=" + g.pass}
}

func (g *gateway) close() { _ = g.srv.Close() }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
