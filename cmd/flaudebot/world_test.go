package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests of this package run this very binary: with FLAUDEBOT_TEST_MAIN set it is flaudebot.
func TestMain(m *testing.M) {
	if os.Getenv("FLAUDEBOT_TEST_MAIN") != "" || filepath.Base(os.Args[0]) == "claude" || filepath.Base(os.Args[0]) == "flaudebot" {
		main()
	}
	if keys := os.Getenv(findVariable); keys != "" {
		findKeys(keys, os.Args[1:], os.Stdout)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// patience bounds every wait for an event; nothing waits so long unless it will never come.
const testPatience = 150 * time.Second

// proc is a running flaudebot.
type proc struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	ready chan string // gets what it prints after ready
	url   string      // the same, once it was awaited
	said  string      // all that stands behind ready on that line
	done  chan struct{}

	mu  sync.Mutex
	log bytes.Buffer // standard error; guarded by mu
}

func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *proc) logs() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// self is the command line of flaudebot in tests.
func self(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append([]string{"FLAUDEBOT_TEST_MAIN=1", "FLAUDEBOT_LINGER=0", "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	return cmd
}

// start starts flaudebot and returns when it says that it is ready.
func start(t *testing.T, env []string, args ...string) *proc {
	t.Helper()
	p := launch(t, env, args...)
	p.awaitReady()
	return p
}

// launch starts flaudebot.
func launch(t *testing.T, env []string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, name: args[0], cmd: self(context.Background(), env, args...), done: make(chan struct{}), ready: make(chan string, 1)}
	p.cmd.Stderr = p
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("flaudebot %s logged:\n%s", args[0], tail(p.logs(), 12000))
		}
	})
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), "ready"); ok {
				p.said = strings.TrimSpace(rest)
				address, _, _ := strings.Cut(p.said, " ")
				p.ready <- address
			}
		}
		_ = p.cmd.Wait()
	}()
	return p
}

// awaitReady returns when it says that it is ready.
func (p *proc) awaitReady() {
	p.t.Helper()
	select {
	case p.url = <-p.ready:
	case <-p.done:
		p.t.Fatalf("flaudebot %s ended before it was ready:\n%s", p.name, p.logs())
	case <-time.After(testPatience):
		p.t.Fatalf("flaudebot %s is not ready:\n%s", p.name, p.logs())
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// stop ends it politely and waits.
func (p *proc) stop() { p.end(syscall.SIGTERM) }

// end sends it a signal and waits for its end.
func (p *proc) end(sig os.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("flaudebot %s did not end within 30 s of %s", p.name, sig)
	}
}

// kill ends it as a crash would.
func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// demoWorld starts the demo on free ports.
func demoWorld(t *testing.T, env []string, args ...string) *slackWorld {
	t.Helper()
	args = append([]string{"demo", "--slack", "127.0.0.1:0", "--fly", "127.0.0.1:0", "--claude", "127.0.0.1:0", "--git", "127.0.0.1:0"}, args...)
	return newSlackWorld(t, start(t, env, args...))
}

// slackWorld is the local Slack as people see it.
type slackWorld struct {
	t    *testing.T
	proc *proc
	base string // http://host:port
}

func newSlackWorld(t *testing.T, p *proc) *slackWorld {
	return &slackWorld{t: t, proc: p, base: p.url}
}

const (
	admin    = "xoxp-local-admin"
	member   = "xoxp-local-member"
	guest    = "xoxp-local-guest"
	stranger = "xoxp-local-stranger"
	mention  = "<@U0FLAUDE> "
)

// api calls a method of Slack as a person.
func (w *slackWorld) api(token, method string, form url.Values) map[string]any {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.base+"/api/"+method, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return w.do(token, method, req)
}

// local calls one of the local world's own methods as a person.
func (w *slackWorld) local(token, method string, body map[string]any) map[string]any {
	w.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.base+"/local/"+method, bytes.NewReader(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return w.do(token, method, req)
}

func (w *slackWorld) do(token, method string, req *http.Request) map[string]any {
	w.t.Helper()
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		w.t.Fatalf("%s: %s: %s", method, res.Status, raw)
	}
	if res.StatusCode == http.StatusTooManyRequests {
		select { // as any polite client
		case <-time.After(time.Second):
		case <-w.t.Context().Done():
		}
	}
	return out
}

// channel returns a channel's id by its name.
func (w *slackWorld) channel(name string) string {
	w.t.Helper()
	res := w.api(admin, "conversations.list", url.Values{"types": {"public_channel,private_channel,im"}})
	for _, c := range items(res["channels"]) {
		if c["name"] == name {
			return c["id"].(string)
		}
	}
	w.t.Fatalf("no channel %s in %v", name, res)
	return ""
}

// say posts a message as a person and returns its ts.
func (w *slackWorld) say(token, channel, thread, text string) string {
	w.t.Helper()
	form := url.Values{"channel": {channel}, "text": {text}}
	if thread != "" {
		form.Set("thread_ts", thread)
	}
	res := w.api(token, "chat.postMessage", form)
	ts, _ := res["ts"].(string)
	if res["ok"] != true || ts == "" {
		w.t.Fatalf("chat.postMessage = %v", res)
	}
	return ts
}

// message is what the bot posted.
type message struct {
	TS   string
	Text string
	Turn string
	Part string
	Raw  map[string]any
}

func items(v any) []map[string]any {
	var out []map[string]any
	list, _ := v.([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// thread returns the bot's messages of a thread that carry a turn's metadata, in order.
func (w *slackWorld) thread(channel, ts string) []message {
	w.t.Helper()
	res := w.api(admin, "conversations.replies", url.Values{
		"channel": {channel}, "ts": {ts}, "include_all_metadata": {"true"}, "limit": {"1000"},
	})
	return messagesOf(res)
}

// messagesOf are those of an answer of Slack that carry a turn's metadata.
func messagesOf(res map[string]any) []message {
	var out []message
	for _, m := range items(res["messages"]) {
		meta, _ := m["metadata"].(map[string]any)
		payload, _ := meta["event_payload"].(map[string]any)
		if payload == nil {
			continue
		}
		msg := message{Raw: m}
		msg.TS, _ = m["ts"].(string)
		msg.Text, _ = m["text"].(string)
		msg.Turn, _ = payload["turn"].(string)
		msg.Part, _ = payload["part"].(string)
		out = append(out, msg)
	}
	return out
}

var footer = regexp.MustCompile(`(?m)^exit (\d+) · \d+ s · \$\d+\.\d\d · turn (\d+)$`)

// until waits until look says yes.
func (w *slackWorld) until(what string, look func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(testPatience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !look() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s", what, testPatience)
		}
		<-tick.C
	}
}

// answer waits for the last part of the answer to the message ts and returns its whole text.
func (w *slackWorld) answer(channel, thread, ts string) (text string, code string) {
	w.t.Helper()
	w.until("answer to "+ts, func() bool {
		text, code = "", ""
		for _, m := range w.thread(channel, thread) {
			if m.Part == "live" || !strings.HasSuffix(m.Turn, ":"+ts) {
				continue
			}
			text += m.Text + "\n"
			if f := footer.FindStringSubmatch(m.Text); f != nil {
				code = f[1]
			}
		}
		return code != ""
	})
	return text, code
}

// answers counts the footers of a turn in the thread.
func (w *slackWorld) answers(channel, thread, ts string) int {
	n := 0
	for _, m := range w.thread(channel, thread) {
		if strings.HasSuffix(m.Turn, ":"+ts) && m.Part != "live" && footer.MatchString(m.Text) {
			n++
		}
	}
	return n
}

// flyList lists something on the local Fly.
func flyList(t *testing.T, base, app, what string) []map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/v1/apps/%s/%s", base, app, what), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer fly-local-test")
	for {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusTooManyRequests {
			<-time.After(300 * time.Millisecond)
			continue
		}
		var out []map[string]any
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatalf("GET %s: %s: %s", what, res.Status, raw)
		}
		alive := out[:0]
		for _, m := range out {
			if s := m["state"]; s != "destroyed" && s != "destroying" && s != "pending_destroy" {
				alive = append(alive, m)
			}
		}
		return alive
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
