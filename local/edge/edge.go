// Package edge is what the three stand-ins have in common at their front door: they answer only on
// loopback names, refuse web pages of other origins, and misbehave on demand.
//
// Their tokens are public and they run commands, so a page in somebody's browser must not reach them.
package edge

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Guard refuses requests whose Host is not a loopback name or whose Origin is another host. Paths for
// which exempt answers true may carry any Origin: a WebSocket that is opened by a single-use ticket.
func Guard(next http.Handler, exempt func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			http.Error(w, "this server answers on loopback addresses only", http.StatusForbidden)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && (exempt == nil || !exempt(r)) {
			u, err := url.Parse(origin)
			if err != nil || u.Host != r.Host {
				http.Error(w, "requests from other origins are refused", http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(trimBrackets(host))
	return ip != nil && ip.IsLoopback()
}

func trimBrackets(h string) string {
	if len(h) > 1 && h[0] == '[' && h[len(h)-1] == ']' {
		return h[1 : len(h)-1]
	}
	return h
}

// Fault is one way to misbehave. Without Status, Body, Drop or DelayMS it does nothing.
type Fault struct {
	Method      string `json:"method"`       // the call's name, as the server names it; "" = any
	Spare       string `json:"spare"`        // calls with a bearer token that begins so are left alone; "" = none
	Nth         int    `json:"nth"`          // the n-th such call from now on, once; 0 = every one
	Status      int    `json:"status"`       // answer with this HTTP status
	Body        string `json:"body"`         // answer with this instead of what the server would say: JSON, or else it is sent as HTML
	RetryAfter  int    `json:"retry_after"`  // the header of that name, in seconds; 0: as the server has it
	Drop        bool   `json:"drop"`         // close the connection without an answer
	DelayMS     int    `json:"delay_ms"`     // wait before anything else, in milliseconds
	AfterEffect bool   `json:"after_effect"` // let the call take effect first, then lose its answer (by status, body or drop)
}

// Faults holds the faults of one server. The zero value misbehaves never.
type Faults struct {
	mu    sync.Mutex
	rules []*Fault // guarded by mu
}

// ServeHTTP is POST /local/faults: a JSON fault is added; an empty body or {} clears all.
func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var fault Fault
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&fault); err != nil && !errors.Is(err, io.EOF) {
		reply(w, map[string]any{"ok": false, "error": "invalid_json: " + err.Error()})
		return
	}
	f.Add(fault)
	reply(w, map[string]any{"ok": true})
}

// Add adds a fault; the zero fault clears all.
func (f *Faults) Add(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault == (Fault{}) {
		f.rules = nil
		return
	}
	f.rules = append(f.rules, &fault)
}

// Take returns the fault that applies to this call of method with a bearer token, and counts it.
func (f *Faults) Take(method, token string) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, rule := range f.rules {
		if rule.Method != "" && rule.Method != method {
			continue
		}
		if rule.Spare != "" && strings.HasPrefix(token, rule.Spare) {
			continue
		}
		if rule.Nth > 1 {
			rule.Nth--
			continue
		}
		if rule.Nth == 1 {
			f.rules = append(f.rules[:i:i], f.rules[i+1:]...)
		}
		return *rule, true
	}
	return Fault{}, false
}

// Wrap lets the faults act on next. name tells the name of a request's call. refuse writes the
// server's own form of an error with the given status.
func (f *Faults) Wrap(next http.Handler, name func(*http.Request) string, refuse func(http.ResponseWriter, int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, ok := f.Take(name(r), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		if fault.DelayMS > 0 {
			select {
			case <-time.After(time.Duration(fault.DelayMS) * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
		if fault.AfterEffect {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		if fault.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(fault.RetryAfter))
		}
		switch {
		case fault.Drop:
			panic(http.ErrAbortHandler)
		case fault.Body != "":
			say(w, fault)
		case fault.Status != 0:
			refuse(w, fault.Status)
		case fault.AfterEffect:
			panic(http.ErrAbortHandler)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// say answers with the fault's own words.
func say(w http.ResponseWriter, fault Fault) {
	kind := "text/html; charset=utf-8"
	if json.Valid([]byte(fault.Body)) {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	if fault.Status != 0 {
		w.WriteHeader(fault.Status)
	}
	_, _ = io.WriteString(w, fault.Body) // the caller may have gone
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the caller may have gone
}
