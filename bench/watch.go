package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// slackWatch stands between the bot and the local Slack, and takes note of what live messages show, and since when. Events do not pass it.
type slackWatch struct {
	url    string // http://host:port
	to     string
	http   *http.Client
	server *http.Server

	mu      sync.Mutex
	shows   map[string][]show // guarded by mu; :: turn → what its live message showed, in order
	answers map[string]int    // guarded by mu; :: turn → parts of its answer that were posted
	counts  map[string]int    // guarded by mu; :: method
	refused map[string]int    // guarded by mu; :: method → answers of 429
}

// show is an event that a live message shows since then.
type show struct {
	n  int
	at time.Time
}

func watchSlack(slack string) (*slackWatch, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for Slack's calls: %w", err)
	}
	w := &slackWatch{
		url: "http://" + l.Addr().String(), to: slack, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}},
		shows: map[string][]show{}, answers: map[string]int{}, counts: map[string]int{}, refused: map[string]int{},
	}
	w.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: w, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = w.server.Serve(l) }() // until it is closed
	return w, nil
}

func (w *slackWatch) close() { _ = w.server.Close() }

// ServeHTTP implements [http.Handler].
func (w *slackWatch) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	status, header, answer, err := w.pass(r.Context(), r, body)
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadGateway)
		return
	}
	w.note(strings.TrimPrefix(r.URL.Path, "/api/"), body, status, answer)
	maps.Copy(out.Header(), header)
	out.WriteHeader(status)
	_, _ = out.Write(answer) // the bot may have gone
}

func (w *slackWatch) pass(ctx context.Context, r *http.Request, body []byte) (int, http.Header, []byte, error) {
	on, err := http.NewRequestWithContext(ctx, r.Method, w.to+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("pass a call on to Slack: %w", err)
	}
	on.Header = r.Header.Clone()
	res, err := w.http.Do(on)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("pass a call on to Slack: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read Slack's answer: %w", err)
	}
	return res.StatusCode, res.Header, answer, nil
}

var eventShown = regexp.MustCompile(`Event (\d+) of turn (\S+)`)

// note takes note of an answered call.
func (w *slackWatch) note(method string, body []byte, status int, answer []byte) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[method]++
	if status == http.StatusTooManyRequests {
		w.refused[method]++
	}
	if method != "chat.update" && method != "chat.postMessage" {
		return
	}
	var ok struct{ OK bool }
	form, err := url.ParseQuery(string(body))
	if json.Unmarshal(answer, &ok) != nil || !ok.OK || err != nil {
		return
	}
	if method == "chat.postMessage" {
		var meta struct {
			Payload struct{ Turn, Part string } `json:"event_payload"`
		}
		if json.Unmarshal([]byte(form.Get("metadata")), &meta) == nil && meta.Payload.Part != "" && meta.Payload.Part != "live" {
			w.answers[meta.Payload.Turn]++
		}
		return
	}
	if found := eventShown.FindStringSubmatch(form.Get("text")); found != nil {
		n, _ := strconv.Atoi(found[1]) // digits
		w.shows[found[2]] = append(w.shows[found[2]], show{n, now})
	}
}

// answered is how many turns have an answer.
func (w *slackWatch) answered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.answers)
}

// counted are the calls until now, all of them and those that were refused, by method.
func (w *slackWatch) counted() (all, refused map[string]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.counts), maps.Clone(w.refused)
}

// shown is what the live message of a turn has shown until now.
func (w *slackWatch) shown(turn string) []show {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]show(nil), w.shows[turn]...)
}
