package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flaudebot/local/port"
)

// buildFlaudebot builds the program as it stands, until remove is called.
func buildFlaudebot(ctx context.Context) (bin string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "flaudebot-bench-")
	if err != nil {
		return "", nil, fmt.Errorf("make a folder for flaudebot: %w", err)
	}
	bin = filepath.Join(dir, "flaudebot")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/flaudebot")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, fmt.Errorf("build flaudebot: %w\n%s", err, out)
	}
	return bin, func() { _ = os.RemoveAll(dir) }, nil
}

// benchApp is the app on the local Fly.
const benchApp = "bench-app"

// world is a local world, with one replica of the bot where it serves.
type world struct {
	bin, redis                  string
	slack, fly, claude, channel string // http://host:port, and the id of #general
	procs                       []*exec.Cmd
	dir                         string
	heard                       io.Writer // what the bot logs; nil: nobody wants to know
}

// startLocal starts `flaudebot local`, with more arguments and a claude command of its own if there is one.
func startLocal(ctx context.Context, t task, env []string, args ...string) (*world, error) {
	dir, err := os.MkdirTemp("", "flaudebot-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the world: %w", err)
	}
	w := &world{bin: t.Binary, redis: t.Redis, dir: dir}
	if err := w.open(ctx, env, args); err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

func (w *world) open(ctx context.Context, env, args []string) error {
	fly, err := port.Free()
	if err != nil {
		return err
	}
	claude, err := port.Free()
	if err != nil {
		return err
	}
	w.fly, w.claude = "http://"+fly, "http://"+claude
	args = append([]string{"local", "--slack", "127.0.0.1:0", "--fly", fly, "--claude", claude, "--git", "127.0.0.1:0", "--data", w.dir}, args...)
	if w.slack, err = w.start(ctx, env, args...); err != nil {
		return err
	}
	var list struct {
		Channels []struct{ ID, Name string }
	}
	if err := w.form(ctx, "conversations.list", url.Values{}, &list); err != nil {
		return err
	}
	for _, c := range list.Channels {
		if c.Name == "general" {
			w.channel = c.ID
		}
	}
	return nil
}

// repo is what sessions clone.
func (w *world) repo() string { return filepath.Join(w.dir, "repo") }

// serve starts a replica of the bot that finds Fly at the address. What env says counts.
func (w *world) serve(ctx context.Context, fly string, env ...string) error {
	_, err := w.start(ctx, append([]string{
		"SLACK_API_URL=" + w.slack + "/api/", "SLACK_APP_TOKEN=xapp-local", "SLACK_BOT_TOKEN=xoxb-local",
		"FLY_FLAPS_BASE_URL=" + fly, "FLY_API_BASE_URL=" + fly, "FLY_API_TOKEN=fly-local", "FLAUDEBOT_FLY_APP=" + benchApp, "FLAUDEBOT_FLY_ORG=personal",
		"ANTHROPIC_BASE_URL=" + w.claude, "ANTHROPIC_API_KEY=sk-ant-local", "REDIS_URL=redis://" + w.redis, "FLAUDEBOT_REPOS=" + w.repo(),
	}, env...), "serve")
	return err
}

// start starts flaudebot, and returns what it says behind ready.
func (w *world) start(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.bin, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	cmd.Stderr = w.heard
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
			address, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			return address, nil
		}
	}
	return "", fmt.Errorf("flaudebot %s ended before it was ready", args[0])
}

// botPID is the process that was started last.
func (w *world) botPID() int { return w.procs[len(w.procs)-1].Process.Pid }

func (w *world) stop() {
	for i := len(w.procs) - 1; i >= 0; i-- {
		_ = w.procs[i].Process.Signal(syscall.SIGTERM)
		_ = w.procs[i].Wait()
	}
	_ = os.RemoveAll(w.dir)
}

// say posts a message as a person, and returns its ts.
func (w *world) say(ctx context.Context, thread, text string) (string, error) {
	form := url.Values{"channel": {w.channel}, "text": {text}}
	if thread != "" {
		form.Set("thread_ts", thread)
	}
	var out struct{ TS string }
	err := w.form(ctx, "chat.postMessage", form, &out)
	return out.TS, err
}

// answer is what the bot posted at the end of a turn.
type answer struct {
	at   time.Time // by the local Slack's clock
	text string
	lane string // how much of the turn before was still there
}

var (
	footer = regexp.MustCompile(`(?m)^exit (\d+) · `)
	lane   = regexp.MustCompile(`\\"l\\":\\"([a-z]+)\\"`)
)

// answerTo waits for the answer to the message ts, which has to be good.
func (w *world) answerTo(ctx context.Context, thread, ts string) (answer, error) {
	for end := time.Now().Add(3 * time.Minute); ; {
		var replies struct{ Messages []json.RawMessage }
		form := url.Values{"channel": {w.channel}, "ts": {thread}, "include_all_metadata": {"true"}, "limit": {"1000"}}
		if err := w.form(ctx, "conversations.replies", form, &replies); err != nil {
			return answer{}, err
		}
		var a answer
		for _, raw := range replies.Messages {
			if err := a.read(raw, ts); err != nil {
				return a, err
			}
		}
		if !a.at.IsZero() && a.lane != "" {
			return a, nil
		}
		if time.Now().After(end) {
			return a, fmt.Errorf("no answer to message %s within 3 minutes", ts)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// read takes from a message what it has of the answer to ts.
func (a *answer) read(raw json.RawMessage, ts string) error {
	var m struct {
		TS, Text string
		Metadata struct {
			Payload struct{ Turn, Part string } `json:"event_payload"`
		}
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("read a message: %w", err)
	}
	if !strings.HasSuffix(m.Metadata.Payload.Turn, ":"+ts) {
		return nil
	}
	if found := lane.FindSubmatch(raw); found != nil {
		a.lane = string(found[1])
	}
	if m.Metadata.Payload.Part == "live" {
		return nil
	}
	a.text += m.Text
	found := footer.FindStringSubmatch(m.Text)
	if found == nil {
		return nil
	}
	if found[1] != "0" {
		return fmt.Errorf("the turn of message %s failed: %s", ts, a.text)
	}
	var err error
	a.at, err = timeOf(m.TS)
	return err
}

// timeOf is the time that a message's ts stands for.
func timeOf(ts string) (time.Time, error) {
	s, err := strconv.ParseFloat(ts, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("ts %q is no time: %w", ts, err)
	}
	return time.UnixMicro(int64(s * 1e6)), nil
}

// form calls a method of Slack as a person.
func (w *world) form(ctx context.Context, method string, form url.Values, into any) error {
	return w.call(ctx, "/api/"+method, "application/x-www-form-urlencoded", form.Encode(), into)
}

// post calls one of the local Slack's own methods.
func (w *world) post(ctx context.Context, path string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode a request: %w", err)
	}
	return w.call(ctx, path, "application/json", string(raw), into)
}

var errRefused = errors.New("refused")

func (w *world) call(ctx context.Context, path, contentType, body string, into any) error {
	raw, err := request(ctx, http.MethodPost, w.slack+path, "Bearer xoxp-local-member", contentType, body)
	if err != nil {
		return err
	}
	var status struct{ OK bool }
	if err := json.Unmarshal(raw, &status); err != nil || !status.OK {
		return fmt.Errorf("%s: %w: %s", path, errRefused, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// atFly calls the local Fly itself, past what counts calls.
func (w *world) atFly(ctx context.Context, method, path string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode a request: %w", err)
	}
	for {
		raw, err := request(ctx, method, w.fly+path, "Bearer fly-local", "application/json", string(raw))
		if err != nil {
			return err
		}
		var refused struct{ Error string }
		if json.Unmarshal(raw, &refused) == nil && refused.Error != "" { // a list is none
			if refused.Error != "rate limit exceeded" {
				return fmt.Errorf("%s %s: %w: %s", method, path, errRefused, refused.Error)
			}
			time.Sleep(500 * time.Millisecond)
			continue
		}
		if into == nil {
			return nil
		}
		return json.Unmarshal(raw, into)
	}
}

func request(ctx context.Context, method, url, auth, contentType, body string) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", url, err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", auth)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", url, err)
	}
	defer func() { _ = res.Body.Close() }()
	var raw json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&raw); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return raw, nil
}
