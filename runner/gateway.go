package runner

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// gateway is where Claude Code believes the API to be. It adds the real credential to what carries the one of this
// turn, and sends it to one fixed place: nothing that Claude Code or its commands can read opens the API elsewhere. What passes is metered.
type gateway struct {
	held  bool   // Claude's user is held to some hosts
	pass  string // what Claude Code sends instead of the credential
	addr  string
	srv   *http.Server
	meter meter
	gone  chan struct{} // closed when it is
	once  sync.Once
}

func (c Config) openGateway(s Secrets) (*gateway, error) {
	base := s.AnthropicBaseURL
	if base == "" {
		base = "https://api.anthropic.com"
	}
	upstream, err := url.Parse(base)
	if err != nil || upstream.Host == "" {
		return nil, fmt.Errorf("%q is no address for the API", base)
	}
	var l net.Listener
	err = c.start(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the gateway: %w", err)
	}
	g := &gateway{held: c.enclosed, pass: "flaudebot-" + rand.Text(), addr: l.Addr().String(), gone: make(chan struct{})}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Header.Del("Accept-Encoding") // the meter reads along
			r.Out.Header.Del("X-Api-Key")
			r.Out.Header.Del("Authorization")
			if s.ClaudeOAuthToken != "" {
				r.Out.Header.Set("Authorization", "Bearer "+s.ClaudeOAuthToken)
			} else {
				r.Out.Header.Set("X-Api-Key", s.AnthropicAPIKey)
			}
		},
		ModifyResponse: g.meter.measure,
		FlushInterval:  -1, // streams
		ErrorLog:       log.New(discard{}, "", 0),
	}
	g.srv = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !g.mayPass(r) {
				http.Error(w, `{"type":"error","error":{"type":"authentication_error","message":"not a request of this turn"}}`, http.StatusUnauthorized)
				return
			}
			g.forward(proxy, w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(discard{}, "", 0),
	}
	go func() { _ = g.srv.Serve(l) }()
	return g, nil
}

// forward sends on what carries the pass, unless that would get by a budget or the named hosts.
func (g *gateway) forward(proxy http.Handler, w http.ResponseWriter, r *http.Request) {
	spends, counted := costs(r)
	limited := g.meter.limited()
	switch {
	case !spends:
		proxy.ServeHTTP(w, r)
		return
	case !counted && limited:
		forbid(w, "there is a budget, and what this costs cannot be counted")
		return
	case !counted && g.held:
		forbid(w, "this channel names the hosts that may be reached, and what this would reach is not known")
		return
	}
	asked := &request{}
	if limited || g.held {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestRequest)) // only when it is read it is seen that nobody waits any more
		if err != nil {
			http.Error(w, `{"type":"error","error":{"type":"request_too_large","message":"the request is too large, or broken off"}}`, http.StatusRequestEntityTooLarge)
			return
		}
		if g.held {
			if what := reachesOut(body); what != "" {
				forbid(w, "this channel names the hosts that may be reached, and by "+what+" the API would reach others")
				return
			}
		}
		if limited {
			asked = g.meter.newRequest(body)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	if !g.meter.admit(r.Context(), asked) { // the turn is being stopped: there is nothing to tell Claude Code, which would try again
		select {
		case <-r.Context().Done():
		case <-g.gone:
		}
		return
	}
	defer func() { g.meter.over(asked, r.Context().Err() != nil) }()
	proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, asked)))
}

func forbid(w http.ResponseWriter, why string) {
	http.Error(w, `{"type":"error","error":{"type":"permission_error","message":"`+why+`"}}`, http.StatusForbidden)
}

// largestRequest is the most that a request may hold where there is a budget, in bytes: the API takes 32 MB (https://platform.claude.com/docs/en/api/errors).
const largestRequest = 40 << 20

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

func (g *gateway) close() {
	g.once.Do(func() { close(g.gone) })
	_ = g.srv.Close()
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
