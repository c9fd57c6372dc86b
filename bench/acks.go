package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"flaudebot/local/port"
)

func reportAcks(ctx context.Context, b bench) error {
	fmt.Println("\nAcks of 1,000 events that the local Slack sends at once to `flaudebot serve`, by its clock: 500 mentions, each the start of a session.")
	dir, err := os.MkdirTemp("", "flaudebot-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for flaudebot: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin := filepath.Join(dir, "flaudebot")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/flaudebot")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build flaudebot: %w\n%s", err, out)
	}
	got, err := b.compare(ctx, task{What: "acks", Binary: bin, Jobs: b.size(500, 20)})
	if err != nil {
		return err
	}
	row("p50", got[0].of("p50"), "ms", 0, 0)
	row("p99", got[0].of("p99"), "ms", 0, 100)
	row("slowest", got[0].of("max"), "ms", 0, 0)
	row("events that were sent again", got[0].of("again"), "", 0, 0)
	return nil
}

// acks has the local Slack send its events at once, two for each mention, and reads how long each took to be acked.
func acks(ctx context.Context, t task) (figures, error) {
	rdb := client(t.Redis, 0, 1)
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	w, err := startWorld(ctx, t)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	// Who asks is known by then, as people are who ask now and then.
	if err := w.say(ctx, "<@U0FLAUDE> good morning"); err != nil {
		return nil, err
	}
	if _, err := w.acked(ctx, 2); err != nil {
		return nil, err
	}
	if err := w.post(ctx, "/local/trouble", map[string]any{"hold": true}, nil); err != nil {
		return nil, err
	}
	for i := range t.Jobs {
		if err := w.say(ctx, fmt.Sprintf("<@U0FLAUDE> remember number %d", i)); err != nil {
			return nil, err
		}
	}
	if err := w.post(ctx, "/local/trouble", map[string]any{"release": "kept"}, nil); err != nil {
		return nil, err
	}
	return w.acked(ctx, 2*t.Jobs+2)
}

// acked waits until so many events were acked.
func (w *world) acked(ctx context.Context, n int) (figures, error) {
	for end := time.Now().Add(time.Minute); ; {
		var d struct {
			Acks  float64 `json:"acks"`
			Again float64 `json:"again"`
			P50   float64 `json:"ack_p50_ms"`
			P99   float64 `json:"ack_p99_ms"`
			Max   float64 `json:"ack_max_ms"`
		}
		if err := w.post(ctx, "/local/deliveries", map[string]any{}, &d); err != nil {
			return nil, err
		}
		if int(d.Acks) >= n {
			return figures{"p50": d.P50, "p99": d.P99, "max": d.Max, "again": d.Again}, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%.0f of %d events were acked within a minute", d.Acks, n)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// world is a local world with one replica of the bot.
type world struct {
	slack   string // http://host:port
	channel string
	procs   []*exec.Cmd
	dir     string
}

func startWorld(ctx context.Context, t task) (*world, error) {
	dir, err := os.MkdirTemp("", "flaudebot-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the world: %w", err)
	}
	w := &world{dir: dir}
	fly, err := port.Free()
	if err != nil {
		w.stop()
		return nil, err
	}
	claude, err := port.Free()
	if err != nil {
		w.stop()
		return nil, err
	}
	w.slack, err = w.start(ctx, t.Binary, nil, "local", "--slack", "127.0.0.1:0", "--fly", fly, "--claude", claude, "--git", "127.0.0.1:0", "--data", dir)
	if err != nil {
		w.stop()
		return nil, err
	}
	_, err = w.start(ctx, t.Binary, []string{
		"SLACK_API_URL=" + w.slack + "/api/", "SLACK_APP_TOKEN=xapp-local", "SLACK_BOT_TOKEN=xoxb-local",
		"FLY_FLAPS_BASE_URL=http://" + fly, "FLY_API_BASE_URL=http://" + fly, "FLY_API_TOKEN=fly-local", "FLAUDEBOT_FLY_APP=bench-app", "FLAUDEBOT_FLY_ORG=personal",
		"ANTHROPIC_BASE_URL=http://" + claude, "ANTHROPIC_API_KEY=sk-ant-local", "REDIS_URL=redis://" + t.Redis, "FLAUDEBOT_REPOS=" + filepath.Join(dir, "repo"),
		"FLAUDEBOT_MAX_PARALLEL=1", // machines do not run where the bot does
	}, "serve")
	if err != nil {
		w.stop()
		return nil, err
	}
	var list struct {
		Channels []struct{ ID, Name string }
	}
	if err := w.form(ctx, "conversations.list", url.Values{}, &list); err != nil {
		w.stop()
		return nil, err
	}
	for _, c := range list.Channels {
		if c.Name == "general" {
			w.channel = c.ID
		}
	}
	return w, nil
}

// start starts flaudebot, and returns what it says behind ready.
func (w *world) start(ctx context.Context, bin string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("hear flaudebot %s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start flaudebot %s: %w", args[0], err)
	}
	w.procs = append(w.procs, cmd)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "ready"); ok {
			go func() {
				for lines.Scan() { // so that it is never held up
				}
			}()
			return strings.TrimSpace(rest), nil
		}
	}
	return "", fmt.Errorf("flaudebot %s ended before it was ready", args[0])
}

func (w *world) stop() {
	for i := len(w.procs) - 1; i >= 0; i-- {
		_ = w.procs[i].Process.Signal(syscall.SIGTERM)
		_ = w.procs[i].Wait()
	}
	_ = os.RemoveAll(w.dir)
}

func (w *world) say(ctx context.Context, text string) error {
	return w.form(ctx, "chat.postMessage", url.Values{"channel": {w.channel}, "text": {text}}, nil)
}

// form calls a method of Slack as a person.
func (w *world) form(ctx context.Context, method string, form url.Values, into any) error {
	return w.call(ctx, "/api/"+method, "application/x-www-form-urlencoded", form.Encode(), into)
}

// post calls one of the local world's own methods.
func (w *world) post(ctx context.Context, path string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode a request: %w", err)
	}
	return w.call(ctx, path, "application/json", string(raw), into)
}

var errRefused = errors.New("refused")

func (w *world) call(ctx context.Context, path, contentType, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.slack+path, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer xoxp-local-member")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	var raw json.RawMessage
	var status struct{ OK bool }
	if err := json.NewDecoder(res.Body).Decode(&raw); err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	if err := json.Unmarshal(raw, &status); err != nil || !status.OK {
		return fmt.Errorf("%s: %w: %s", path, errRefused, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}
