package claude

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// agent is one run of the claude command.
type agent struct {
	flags
	env        map[string]string
	out        io.Writer
	errOut     io.Writer
	cwd        string
	session    string
	transcript string
	messages   []message // the conversation so far
	cost       float64

	mu   sync.Mutex
	stop context.CancelFunc // guarded by mu; of the turn that runs
}

// Main is the claude command: a small agent that asks the Messages API for each step and runs the tools itself. Flags,
// output, transcripts, error texts and exit codes follow Claude Code's.
func Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f, err := parse(args)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	switch {
	case f.version:
		fmt.Fprintf(stdout, "%s (Claude Code, scripted stand-in)\n", version)
		return 0
	case f.help:
		fmt.Fprintln(stdout, "Usage: claude -p [options] [prompt]   (a scripted stand-in)")
		return 0
	case !f.print:
		fmt.Fprintln(stderr, "the stand-in has no terminal interface: use -p")
		return 1
	}
	a := &agent{flags: f, env: environment(env), out: stdout, errOut: stderr}
	if f.skipAsking && os.Geteuid() == 0 && a.env["IS_SANDBOX"] != "1" {
		fmt.Fprintln(stderr, "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons")
		return 1
	}
	if code, ok := a.open(); !ok {
		return code
	}
	return a.serve(ctx, stdin)
}

func environment(env []string) map[string]string {
	out := map[string]string{}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		out[k] = v
	}
	return out
}

var notAlnum = regexp.MustCompile(`[^A-Za-z0-9]`)

// open finds or begins the conversation; false: the code to end with.
func (a *agent) open() (int, bool) {
	var err error
	if a.cwd, err = os.Getwd(); err != nil {
		fmt.Fprintln(a.errOut, err)
		return 1, false
	}
	dir := a.env["CLAUDE_CONFIG_DIR"]
	if dir == "" {
		dir = filepath.Join(a.env["HOME"], ".claude")
	}
	file := func(id string) string {
		return filepath.Join(dir, "projects", notAlnum.ReplaceAllString(a.cwd, "-"), id+".jsonl")
	}
	a.session = a.sessionID
	switch {
	case a.resume != "":
		if a.messages = load(file(a.resume)); a.messages == nil {
			text := "No conversation found with session ID: " + a.resume
			fmt.Fprintln(a.errOut, text)
			a.session = a.resume
			a.emit(a.resultEvent("error_during_execution", true, map[string]any{"errors": []string{text}}))
			return 1, false
		}
		if !a.fork || a.session == "" {
			a.session = a.resume
		}
	case a.session == "":
		a.session = newUUID()
	default:
		if _, err := os.Stat(file(a.session)); err == nil {
			fmt.Fprintf(a.errOut, "Error: Session ID %s is already in use.\n", a.session)
			return 1, false
		}
	}
	a.transcript = file(a.session)
	_ = os.MkdirAll(filepath.Dir(a.transcript), 0o700) // a full disk is seen by who reads the transcript
	return 0, true
}

// load reads a transcript; nil: there is none.
func load(name string) []message {
	raw, err := os.ReadFile(name)
	if err != nil || len(raw) == 0 {
		return nil
	}
	out := []message{}
	for line := range bytes.Lines(raw) {
		var l struct {
			Type    string  `json:"type"`
			Message message `json:"message"`
		}
		if json.Unmarshal(line, &l) == nil && (l.Type == "user" || l.Type == "assistant") {
			out = append(out, l.Message)
		}
	}
	return whole(out)
}

// whole drops a tool use without a result at the end, as Claude Code does on resuming.
func whole(all []message) []message {
	for len(all) > 0 {
		last := all[len(all)-1]
		uses := false
		for _, b := range last.blocks() {
			uses = uses || b.Type == "tool_use"
		}
		if last.Role != "assistant" || !uses {
			break
		}
		all = all[:len(all)-1]
	}
	return all
}

// add appends a message to the conversation and to the transcript.
func (a *agent) add(m message) {
	a.messages = append(a.messages, m)
	f, err := os.OpenFile(a.transcript, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	raw, _ := json.Marshal(map[string]any{
		"type": m.Role, "message": m, "sessionId": a.session, "uuid": newUUID(), "cwd": a.cwd, "version": version, "timestamp": stamp(),
	})
	_, _ = f.Write(append(raw, '\n')) // as above
}

func stamp() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

// serve runs the turns that come on stdin, or the one of the command line.
func (a *agent) serve(ctx context.Context, stdin io.Reader) int {
	if a.input != "stream-json" {
		raw, err := io.ReadAll(stdin)
		if err != nil {
			fmt.Fprintln(a.errOut, err)
			return 1
		}
		text := strings.TrimLeft(a.prompt+"\n"+string(raw), "\n")
		switch {
		case text == "":
			fmt.Fprintln(a.errOut, "Error: Input must be provided either through stdin or as a prompt argument when using --print")
			return 1
		case strings.TrimSpace(text) == "":
			return 0
		}
		content, _ := json.Marshal(text)
		return a.turn(ctx, content)
	}
	turns, bad := a.listen(stdin)
	code := 0
	for content := range turns {
		code = a.turn(ctx, content)
	}
	if err := <-bad; err != nil {
		fmt.Fprintf(a.errOut, "Error parsing streaming input line: %s\n", err)
		return 1
	}
	return code
}

// listen reads stdin: messages become turns, an interrupt is acted on at once.
func (a *agent) listen(stdin io.Reader) (<-chan json.RawMessage, <-chan error) {
	turns, bad := make(chan json.RawMessage, 16), make(chan error, 1)
	go func() {
		defer close(bad)
		defer close(turns)
		lines := bufio.NewReader(stdin)
		for {
			line, err := lines.ReadBytes('\n')
			if len(bytes.TrimSpace(line)) > 0 {
				if err := a.hear(line, turns); err != nil {
					bad <- err
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return turns, bad
}

func (a *agent) hear(line []byte, turns chan<- json.RawMessage) error {
	var in struct {
		Type    string `json:"type"`
		ID      string `json:"request_id"`
		Message struct {
			Content json.RawMessage `json:"content"`
		} `json:"message"`
		Request struct {
			Subtype string `json:"subtype"`
		} `json:"request"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return err
	}
	switch in.Type {
	case "user":
		turns <- in.Message.Content
	case "control_request":
		a.emit(map[string]any{"type": "control_response", "response": map[string]any{"subtype": "success", "request_id": in.ID}})
		if in.Request.Subtype == "interrupt" {
			a.mu.Lock()
			if a.stop != nil {
				a.stop()
			}
			a.mu.Unlock()
		}
	}
	return nil
}

func (a *agent) emit(v map[string]any) {
	if a.output != "stream-json" {
		return
	}
	raw, _ := json.Marshal(v)
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.out.Write(append(raw, '\n')) // a reader that is gone changes nothing, as with Claude Code
}

func (a *agent) event(kind string, fields map[string]any) map[string]any {
	fields["type"], fields["session_id"], fields["uuid"] = kind, a.session, newUUID()
	return fields
}

// turn runs one turn and returns the exit code it would end the process with.
func (a *agent) turn(ctx context.Context, content json.RawMessage) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.stop = cancel
	a.mu.Unlock()
	began := time.Now()
	a.emit(a.event("system", map[string]any{
		"subtype": "init", "cwd": a.cwd, "model": a.model, "permissionMode": "bypassPermissions", "tools": toolNames(),
		"mcp_servers": []any{}, "slash_commands": []any{}, "agents": []any{}, "skills": []any{}, "apiKeySource": a.keySource(), "claude_code_version": version,
	}))
	a.add(message{Role: "user", Content: content})
	steps := 0
	for {
		reply, err := a.ask(ctx)
		if ctx.Err() != nil {
			return a.interrupted(began, steps)
		}
		if err != nil {
			return a.broken(err, began)
		}
		a.add(message{Role: "assistant", Content: reply.Content})
		texts, uses := a.show(reply)
		if len(uses) == 0 {
			a.finish(strings.Join(texts, "\n"), began, steps)
			return 0
		}
		steps++
		if !a.use(ctx, uses) {
			return a.interrupted(began, steps)
		}
	}
}

func (a *agent) keySource() string {
	if a.env["ANTHROPIC_API_KEY"] != "" {
		return "ANTHROPIC_API_KEY"
	}
	return "none"
}

// apiReply is the answer of the Messages API.
type apiReply struct {
	ID      string          `json:"id"`
	Model   string          `json:"model"`
	Content json.RawMessage `json:"content"`
	Usage   map[string]any  `json:"usage"`
}

// apiError is a refusal of it.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

func toolNames() []string { return []string{"Bash", "Read", "Write", "TodoWrite"} }

// ask asks for the next step, again where Claude Code would.
func (a *agent) ask(ctx context.Context) (*apiReply, error) {
	if a.env["ANTHROPIC_BASE_URL"] == "" || (a.env["ANTHROPIC_API_KEY"] == "" && a.env["CLAUDE_CODE_OAUTH_TOKEN"] == "") {
		return nil, &apiError{status: 401, text: "Not logged in · Please run /login"}
	}
	tries, err := strconv.Atoi(a.env["CLAUDE_CODE_MAX_RETRIES"])
	if err != nil {
		tries = 10
	}
	for attempt := 1; ; attempt++ {
		reply, err := a.askOnce(ctx)
		var e *apiError
		if err == nil || ctx.Err() != nil || attempt > tries || (errors.As(err, &e) && e.status != 429 && e.status < 500 && e.status != 401) {
			return reply, err
		}
		fields := map[string]any{"subtype": "api_retry", "attempt": attempt, "max_retries": tries, "retry_delay_ms": 100.0, "error": "server_error", "error_status": nil}
		if e != nil {
			fields["error_status"], fields["error"] = e.status, kindOf(e.status)
		}
		a.emit(a.event("system", fields))
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func kindOf(status int) string {
	switch {
	case status == 401 || status == 403:
		return "authentication_failed"
	case status == 429:
		return "rate_limit"
	case status >= 500:
		return "server_error"
	case status == 404:
		return "model_not_found"
	default:
		return "unknown"
	}
}

func (a *agent) askOnce(ctx context.Context) (*apiReply, error) {
	tools := []map[string]string{}
	for _, name := range toolNames() {
		tools = append(tools, map[string]string{"name": name})
	}
	body, _ := json.Marshal(map[string]any{
		"model": a.model, "max_tokens": 8192, "messages": a.messages, "tools": tools, "system": "Working directory: " + a.cwd,
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(a.env["ANTHROPIC_BASE_URL"], "/")+"/v1/messages?beta=true", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key := a.env["ANTHROPIC_API_KEY"]; key != "" {
		req.Header.Set("X-Api-Key", key)
	} else {
		req.Header.Set("Authorization", "Bearer "+a.env["CLAUDE_CODE_OAUTH_TOKEN"])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		var e struct {
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		_ = json.Unmarshal(raw, &e)
		return nil, &apiError{status: res.StatusCode, text: fmt.Sprintf("API Error: %d %s", res.StatusCode, e.Error.Message)}
	}
	var reply apiReply
	a.cost += 0.0021
	return &reply, json.Unmarshal(raw, &reply)
}

// show emits the reply, an event a block, and returns its texts and its tool uses.
func (a *agent) show(r *apiReply) (texts []string, uses []block) {
	for _, b := range (message{Content: r.Content}).blocks() {
		switch b.Type {
		case "text":
			texts = append(texts, b.Text)
		case "tool_use":
			uses = append(uses, b)
		}
		a.emit(a.event("assistant", map[string]any{
			"message": map[string]any{"id": r.ID, "type": "message", "role": "assistant", "model": r.Model, "content": []block{b}, "stop_reason": nil, "usage": r.Usage}, "parent_tool_use_id": nil,
		}))
	}
	return texts, uses
}

// use runs the tools and puts their results into the conversation; false: it was interrupted.
func (a *agent) use(ctx context.Context, uses []block) bool {
	var results []map[string]any
	for _, u := range uses {
		text, failed := a.tool(ctx, u)
		if ctx.Err() != nil {
			text, failed = "The user doesn't want to proceed with this tool use. The tool use was rejected.", true
		}
		r := map[string]any{"type": "tool_result", "tool_use_id": u.ID, "content": text, "is_error": failed}
		results = append(results, r)
	}
	content, _ := json.Marshal(results)
	a.add(message{Role: "user", Content: content})
	a.emit(a.event("user", map[string]any{
		"message": map[string]any{"role": "user", "content": results}, "parent_tool_use_id": nil, "tool_use_result": results[0]["content"], "timestamp": stamp(),
	}))
	return ctx.Err() == nil
}

// tool runs one.
func (a *agent) tool(ctx context.Context, u block) (text string, failed bool) {
	var in struct {
		Command string `json:"command"`
		Path    string `json:"file_path"`
		Content string `json:"content"`
		Timeout int    `json:"timeout"`
	}
	if err := json.Unmarshal(u.Input, &in); err != nil {
		return "InputValidationError: " + err.Error(), true
	}
	switch u.Name {
	case "Bash":
		return a.bash(ctx, in.Command, max(in.Timeout, 120000))
	case "Write":
		if err := os.WriteFile(in.Path, []byte(in.Content), 0o644); err != nil { //nolint:gosec // what was asked for
			return err.Error(), true
		}
		return "File created successfully at: " + in.Path, false
	case "Read":
		raw, err := os.ReadFile(in.Path)
		if err != nil {
			return err.Error(), true
		}
		return string(raw), false
	case "TodoWrite":
		select { // so that a person sees it go on
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
		return "Todos have been modified successfully.", false
	}
	return "No such tool available: " + u.Name, true
}

// bash runs a command in a session of its own, as Claude Code does.
func (a *agent) bash(ctx context.Context, command string, timeoutMS int) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(timeoutMS)*time.Millisecond)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command) //nolint:gosec // what was asked for
	for k, v := range a.env {
		if k != "CLAUDE_CODE_OAUTH_TOKEN" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text := strings.ToValidUTF8(out.String(), "\uFFFD")
	if len(text) > 30000 {
		text = text[:30000] + "\n… [output cut]"
	}
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		return fmt.Sprintf("Exit code %d\n%s", ee.ExitCode(), text), true
	case err != nil:
		return err.Error(), true
	}
	return text, false
}

func (a *agent) resultEvent(subtype string, isError bool, more map[string]any) map[string]any {
	fields := map[string]any{
		"subtype": subtype, "is_error": isError, "duration_ms": 0, "duration_api_ms": 0, "num_turns": 1, "total_cost_usd": a.cost,
		"usage": map[string]any{"input_tokens": 1200, "output_tokens": 100}, "modelUsage": map[string]any{a.model: map[string]any{"costUSD": a.cost}},
		"permission_denials": []any{}, "stop_reason": nil,
	}
	for k, v := range more {
		fields[k] = v
	}
	return a.event("result", fields)
}

func (a *agent) finish(text string, began time.Time, steps int) {
	r := a.resultEvent("success", false, map[string]any{
		"result": text, "terminal_reason": "completed", "stop_reason": "end_turn", "num_turns": steps + 1, "duration_ms": time.Since(began).Milliseconds(),
		"api_error_status": nil,
	})
	a.emit(r)
	switch a.output {
	case "text":
		fmt.Fprintln(a.out, text)
	case "json":
		_ = json.NewEncoder(a.out).Encode(r)
	}
}

func (a *agent) interrupted(began time.Time, steps int) int {
	reason := "aborted_streaming"
	if steps > 0 {
		reason = "aborted_tools"
	}
	content, _ := json.Marshal([]block{{Type: "text", Text: "[Request interrupted by user]"}})
	a.add(message{Role: "user", Content: content})
	a.emit(a.event("user", map[string]any{"message": map[string]any{"role": "user", "content": []block{{Type: "text", Text: "[Request interrupted by user]"}}}, "parent_tool_use_id": nil}))
	a.emit(a.resultEvent("error_during_execution", true, map[string]any{"terminal_reason": reason, "errors": []string{}, "duration_ms": time.Since(began).Milliseconds()}))
	return 0
}

var exitAsked = regexp.MustCompile(`told to fail with exit (\d+)`)

// broken ends a turn that the API refused, as Claude Code does: a result called success that is an error.
func (a *agent) broken(err error, began time.Time) int {
	var e *apiError
	status := any(nil)
	kind := "server_error"
	if errors.As(err, &e) {
		status, kind = e.status, kindOf(e.status)
	}
	text := err.Error()
	a.emit(a.event("assistant", map[string]any{
		"error": kind, "parent_tool_use_id": nil,
		"message": map[string]any{"id": newUUID(), "type": "message", "role": "assistant", "model": "<synthetic>", "content": []block{{Type: "text", Text: text}}, "stop_reason": nil, "usage": map[string]any{}},
	}))
	a.emit(a.resultEvent("success", true, map[string]any{"result": text, "api_error_status": status, "terminal_reason": "completed", "duration_ms": time.Since(began).Milliseconds()}))
	if a.output == "text" {
		fmt.Fprintln(a.out, text)
	}
	if m := exitAsked.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 && n < 256 {
			return n
		}
	}
	return 1
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
