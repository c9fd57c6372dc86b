package fly_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"flaudebot/fly"
)

// call is a request that the fake Fly got.
type call struct {
	method, path, query, body string
	header                    http.Header
	at                        time.Time
}

// fake is a Fly that answers as it is told, without sockets: in a bubble of fake time it works as well.
type fake struct {
	mu    sync.Mutex
	calls []call
	// answer writes the answer to the n-th call, the first is 0.
	answer func(n int, w http.ResponseWriter, r *http.Request)
}

// RoundTrip implements [http.RoundTripper].
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	f.mu.Lock()
	n := len(f.calls)
	f.calls = append(f.calls, call{r.Method, r.URL.Path, r.URL.RawQuery, string(body), r.Header, time.Now()})
	f.mu.Unlock()
	w := httptest.NewRecorder()
	f.answer(n, w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if w.Code == dropped {
		return nil, io.ErrUnexpectedEOF
	}
	return w.Result(), nil
}

// dropped is a status that says: there is no answer.
const dropped = 999

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// client is one that asks the fake; it may change its configuration.
func (f *fake) client(t *testing.T, change ...func(*fly.Config)) *fly.Client {
	t.Helper()
	cfg := fly.Config{Token: "fly-token", HTTP: &http.Client{Transport: f}, Unlimited: true}
	for _, c := range change {
		c(&cfg)
	}
	c, err := fly.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// always answers every call alike.
func always(status int, body string) *fake {
	return &fake{answer: func(_ int, w http.ResponseWriter, _ *http.Request) { say(w, status, body) }}
}

// first answers the first calls with a status each, and all that follow well.
func first(good string, statuses ...int) *fake {
	return &fake{answer: func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < len(statuses) {
			say(w, statuses[n], `{"error":"trouble"}`)
			return
		}
		say(w, 200, good)
	}}
}

func say(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Fly-Request-Id", "01REQ-fra")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// named is an answer that says of what it is.
const named = `{"id":"x","data":{"nonce":"n"},"volume":{"id":"x"}}`

func toJSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(raw)
}
