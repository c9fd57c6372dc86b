package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"
)

// callCounter stands before the local Fly and takes note of every call.
type callCounter struct {
	url     string // http://host:port
	server  *http.Server
	mu      sync.Mutex
	calls   []call    // guarded by mu
	running int       // guarded by mu
	changed time.Time // guarded by mu
}

// call is one of Fly's APIs.
type call struct {
	method, path string
	began        time.Time
	took         time.Duration
}

func countCalls(fly string) (*callCounter, error) {
	to, err := url.Parse(fly)
	if err != nil {
		return nil, fmt.Errorf("count the calls of %s: %w", fly, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for calls: %w", err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // callers go when they are stopped
	c := &callCounter{url: "http://" + l.Addr().String(), changed: time.Now()}
	c.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done := c.begin(r)
		defer done()
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = c.server.Serve(l) }() // until it is closed
	return c, nil
}

func (c *callCounter) close() { _ = c.server.Close() }

func (c *callCounter) begin(r *http.Request) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
	began := time.Now()
	c.changed = began
	c.calls = append(c.calls, call{method: r.Method, path: r.URL.Path, began: began})
	i := len(c.calls) - 1
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running--
		c.changed = time.Now()
		c.calls[i].took = time.Since(began)
	}
}

// between are the calls that began between two times.
func (c *callCounter) between(from, to time.Time) []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.calls), func(one call) bool { return one.began.Before(from) || one.began.After(to) })
}

var machinePath = regexp.MustCompile(`/machines/([0-9a-f]{14})(/|$)`)

var updatePath = regexp.MustCompile(`/machines/[0-9a-f]{14}$`)

// updates reports whether the call changes a machine's config.
func (c call) updates() bool {
	return updatePath.MatchString(c.path) && (c.method == http.MethodPost || c.method == http.MethodPut)
}

// machine is the one that was called last.
func (c *callCounter) machine() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range slices.Backward(c.calls) {
		if found := machinePath.FindStringSubmatch(one.path); found != nil {
			return found[1], nil
		}
	}
	return "", errors.New("no call was about a machine")
}

// pause is how long no call comes between turns. By then Fly's limits, three calls at once and then one a second, hold none of the next turn's back.
const pause = 4 * time.Second

// rest waits until there was no call for a while.
func (c *callCounter) rest(ctx context.Context) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		c.mu.Lock()
		still := c.running == 0 && time.Since(c.changed) > pause
		c.mu.Unlock()
		if still || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return errors.New("the calls to Fly do not end")
		}
	}
}
