package slack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"flaudebot/local/slack"
)

// What a client has from the start.
const (
	app      = "xapp-local"
	bot      = "xoxb-local"
	admin    = "xoxp-local-admin"
	member   = "xoxp-local-member"
	guest    = "xoxp-local-guest"
	stranger = "xoxp-local-stranger"
	ci       = "xoxb-local-ci"
	general  = "C0GENERAL"
	payments = "C0PAYMENTS"
	mention  = "<@U0FLAUDE> "
)

// args are those of a call.
type args = map[string]any

// world is the stand-in with raw HTTP and WebSocket clients. Its network is in memory and its time is fake: it moves on only
// when all wait, so that an hour takes no time and nothing depends on how busy the machine is.
type world struct {
	t        *testing.T
	http     *http.Client
	patience time.Duration // for a frame that is to come
}

// host is the address of the stand-in, as clients name it.
const host = "127.0.0.1:8700"

// inMemory is a listener whose connections are pipes.
type inMemory struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *inMemory) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *inMemory) Close() error   { close(l.done); return nil }
func (l *inMemory) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8700} }

func (l *inMemory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// in runs a subtest in a world of its own.
func in(t *testing.T, name string, cfg slack.Config, test func(*testing.T, *world)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			server, err := slack.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			l := &inMemory{conns: make(chan net.Conn), done: make(chan struct{})}
			h := &http.Server{Handler: server.Handler(), ReadHeaderTimeout: time.Minute}
			served := make(chan struct{})
			go func() { defer close(served); _ = h.Serve(l) }()
			transport := &http.Transport{DialContext: l.dial}
			t.Cleanup(func() {
				_ = server.Close()
				_ = h.Close()
				transport.CloseIdleConnections()
				<-served
			})
			test(t, &world{t: t, http: &http.Client{Transport: transport}, patience: 24 * time.Hour})
		})
	})
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (w *world) do(method, address, token, contentType string, body []byte, change func(*http.Request)) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if change != nil {
		change(req)
	}
	res, err := w.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	out := answer{status: res.StatusCode, header: res.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &out.body) // not all of it is JSON
	return out
}

// form calls a method with a form, as most clients do.
func (w *world) form(token, method string, a args) answer {
	w.t.Helper()
	form := url.Values{}
	for k, v := range a {
		if s, ok := v.(string); ok {
			form.Set(k, s)
		} else {
			form.Set(k, string(w.json(v)))
		}
	}
	return w.do(http.MethodPost, "http://"+host+"/api/"+method, token, "application/x-www-form-urlencoded", []byte(form.Encode()), nil)
}

// api calls a method that is to succeed.
func (w *world) api(token, method string, a args) map[string]any {
	w.t.Helper()
	res := w.form(token, method, a)
	if res.body["ok"] != true {
		w.t.Fatalf("%s = %d %s", method, res.status, res.raw)
	}
	return res.body
}

// refused calls a method that is to fail.
func (w *world) refused(token, method string, a args, code string) map[string]any {
	w.t.Helper()
	res := w.form(token, method, a)
	if res.status != http.StatusOK || res.body["ok"] != false || res.body["error"] != code {
		w.t.Errorf("%s = %d %s, want the error %s", method, res.status, res.raw, code)
	}
	return res.body
}

// local calls one of the verbs for people. It answers 200 whatever happens.
func (w *world) local(token, verb string, a args) map[string]any {
	w.t.Helper()
	res := w.do(http.MethodPost, "http://"+host+"/local/"+verb, token, "application/json", w.json(a), nil)
	if res.status != http.StatusOK || res.body == nil {
		w.t.Fatalf("%s = %d %s", verb, res.status, res.raw)
	}
	return res.body
}

func (w *world) json(v any) []byte {
	w.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// post posts a message and returns its ts.
func (w *world) post(token, channel, thread, text string) string {
	w.t.Helper()
	a := args{"channel": channel, "text": text}
	if thread != "" {
		a["thread_ts"] = thread
	}
	return w.api(token, "chat.postMessage", a)["ts"].(string)
}

// at follows a path through JSON: names, and numbers as "0". What is not there is nil.
func at(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[name]
		case []any:
			i := int(name[0] - '0')
			if i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// want checks what stands at some paths.
func (w *world) want(what string, v any, expected map[string]any) {
	w.t.Helper()
	for path, e := range expected {
		if got := at(v, path); !bytes.Equal(w.json(got), w.json(e)) {
			w.t.Errorf("%s: %s = %s, want %s", what, path, w.json(got), w.json(e))
		}
	}
}

// texts are those of a list of messages.
func texts(v any) string {
	var out []string
	list, _ := v.([]any)
	for _, m := range list {
		s, _ := at(m, "text").(string)
		out = append(out, s)
	}
	return strings.Join(out, "|")
}

// socket is one Socket Mode connection.
type socket struct {
	w      *world
	ws     *websocket.Conn
	frames chan map[string]any // closed at its end
	pings  chan time.Time
	hello  map[string]any
}

// connect opens a connection, and reads its first frame.
func (w *world) connect() *socket {
	w.t.Helper()
	s := w.dial(w.form(app, "apps.connections.open", nil).body["url"].(string))
	s.hello = s.next()
	return s
}

func (w *world) dial(address string) *socket {
	w.t.Helper()
	s := &socket{w: w, frames: make(chan map[string]any, 100), pings: make(chan time.Time, 10000)}
	ws, res, err := websocket.Dial(w.t.Context(), address, &websocket.DialOptions{
		HTTPClient: w.http, HTTPHeader: http.Header{"Origin": {"https://api.slack.com"}}, // as slack-go
		OnPingReceived: func(context.Context, []byte) bool { s.pings <- time.Now(); return true },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if res.Body != nil {
		_ = res.Body.Close()
	}
	s.ws = ws
	ctx := context.WithoutCancel(w.t.Context())
	go func() {
		defer close(s.frames)
		for {
			_, raw, err := ws.Read(ctx)
			if err != nil {
				return
			}
			var frame map[string]any
			if json.Unmarshal(raw, &frame) == nil {
				s.frames <- frame
			}
		}
	}()
	w.t.Cleanup(func() { _ = ws.CloseNow() })
	return s
}

// next is the next frame, however long it takes.
func (s *socket) next() map[string]any {
	s.w.t.Helper()
	select {
	case f, ok := <-s.frames:
		if !ok {
			s.w.t.Fatal("the connection has ended")
		}
		return f
	case <-time.After(s.w.patience):
		s.w.t.Fatal("no frame comes")
	}
	return nil
}

// none checks that no frame waits, once all that is under way has come.
func (s *socket) none() {
	s.w.t.Helper()
	synctest.Wait()
	select {
	case f, ok := <-s.frames:
		if ok {
			s.w.t.Errorf("unexpected frame %s", s.w.json(f))
		}
	default:
	}
}

// ack acknowledges a frame, with a payload if it is not nil.
func (s *socket) ack(frame map[string]any, payload any) {
	s.w.t.Helper()
	body := args{"envelope_id": frame["envelope_id"]}
	if payload != nil {
		body["payload"] = payload
	}
	if err := s.ws.Write(s.w.t.Context(), websocket.MessageText, s.w.json(body)); err != nil {
		s.w.t.Fatal(err)
	}
}

// event takes the next frame, acks it and returns the event in it.
func (s *socket) event() map[string]any {
	s.w.t.Helper()
	f := s.next()
	s.ack(f, nil)
	e, _ := at(f, "payload.event").(map[string]any)
	if e == nil {
		s.w.t.Fatalf("no event: %s", s.w.json(f))
	}
	return e
}

// answers has a person do something that the app must answer: it returns what the app got, and what the person then gets.
func (s *socket) answers(payload any, do func() map[string]any) (got, then map[string]any) {
	s.w.t.Helper()
	done := make(chan map[string]any, 1)
	go func() { done <- do() }()
	f := s.next()
	s.ack(f, payload)
	return f, <-done
}
