package claude

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// wire is one line of a stream, as far as the checks look at it.
type wire struct {
	Type    string  `json:"type"`
	Subtype string  `json:"subtype"`
	Session string  `json:"session_id"`
	UUID    string  `json:"uuid"`
	Parent  *string `json:"parent_tool_use_id"`
	Error   string  `json:"error"`
	Replay  bool    `json:"isReplay"`
	Message struct {
		ID         string  `json:"id"`
		Type       string  `json:"type"`
		Role       string  `json:"role"`
		Model      string  `json:"model"`
		StopReason *string `json:"stop_reason"`
		Usage      usage   `json:"usage"`
		message
	} `json:"message"`
	Attempt    int    `json:"attempt"`
	MaxRetries int    `json:"max_retries"`
	IsError    bool   `json:"is_error"`
	Result     string `json:"result"`
	Turns      int    `json:"num_turns"`
	Reason     string `json:"terminal_reason"`
	Stop       string `json:"stop_reason"`
	Status     *int   `json:"api_error_status"`
	Cost       float64
	Usage      usage `json:"usage"`
	ModelUsage map[string]struct {
		Cost float64 `json:"costUSD"`
	} `json:"modelUsage"`
	Errors []string `json:"errors"`
	raw    map[string]json.RawMessage
}

func (w *wire) has(fields ...string) (missing []string) {
	for _, f := range fields {
		if _, ok := w.raw[f]; !ok {
			missing = append(missing, f)
		}
	}
	return missing
}

// always are the fields that every recorded event of a kind has. (Of init's, the ones that say what the program is.)
func always() map[string][]string {
	result := []string{
		"is_error", "duration_ms", "duration_api_ms", "num_turns", "stop_reason", "total_cost_usd", "usage", "modelUsage", "permission_denials",
	}
	return map[string][]string{
		"system/init": {
			"cwd", "tools", "mcp_servers", "model", "permissionMode", "slash_commands", "apiKeySource", "claude_code_version", "output_style",
			"agents", "skills", "plugins", "analytics_disabled", "product_feedback_disabled", "memory_paths", "fast_mode_state",
		},
		"system/api_retry":              {"attempt", "max_retries", "retry_delay_ms", "error_status", "error"},
		"assistant/":                    {"message", "parent_tool_use_id", "request_id"},
		"user/":                         {"message", "parent_tool_use_id", "timestamp"},
		"result/success":                append([]string{"result", "fast_mode_state"}, result...),
		"result/error_during_execution": append([]string{"errors"}, result...),
		"result/error_max_turns":        append([]string{"errors", "terminal_reason"}, result...),
		"result/error_max_budget_usd":   append([]string{"errors"}, result...),
	}
}

var anyUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// checker reads a stream as Claude Code writes it, and keeps what is wrong with it.
type checker struct {
	t       testing.TB
	line    int
	session string
	uuids   map[string]bool
	uses    map[string]bool // of tools: true once answered
	spent   float64

	// Of the turn that runs.
	open    bool
	users   int
	retries int
	asked   map[string]usage // by message id
	last    *wire            // assistant event
	results int              // of the whole stream
}

func (c *checker) wrong(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("line %d: %s", c.line, fmt.Sprintf(format, args...))
}

// checkStream checks the order of events, ids, usage and fields of a stream. It returns how many results there were.
func checkStream(t testing.TB, lines [][]byte) int {
	t.Helper()
	c := &checker{t: t, uuids: map[string]bool{}, uses: map[string]bool{}, asked: map[string]usage{}}
	for _, line := range lines {
		c.line++
		var w wire
		if err := json.Unmarshal(line, &w.raw); err != nil {
			c.wrong("no JSON object: %v: %s", err, line)
			continue
		}
		if err := json.Unmarshal(line, &w); err != nil {
			c.wrong("%v: %s", err, line)
		}
		_ = json.Unmarshal(w.raw["total_cost_usd"], &w.Cost) // its absence is seen by the fields
		c.event(&w)
	}
	return c.results
}

func (c *checker) event(w *wire) {
	c.t.Helper()
	if strings.HasPrefix(w.Type, "control_") {
		return // belongs to the process, not to the session
	}
	kind := w.Type + "/" + w.Subtype
	if missing := w.has(always()[kind]...); len(missing) > 0 {
		c.wrong("%s lacks %v", kind, missing)
	}
	if !anyUUID.MatchString(w.UUID) || c.uuids[w.UUID] {
		c.wrong("uuid = %q, want one of its own", w.UUID)
	}
	c.uuids[w.UUID] = true
	if c.session == "" {
		c.session = w.Session
	}
	if !anyUUID.MatchString(w.Session) || w.Session != c.session {
		c.wrong("session_id = %q, want %q", w.Session, c.session)
	}
	turn := slices.Contains([]string{"assistant", "user", "stream_event"}, w.Type) || kind == "system/api_retry"
	if turn && !c.open && !w.Replay {
		c.wrong("%s outside of a turn", kind)
	}
	switch {
	case kind == "system/init":
		if c.open {
			c.wrong("a second init in one turn")
		}
		c.open, c.users, c.retries, c.asked, c.last = true, 0, 0, map[string]usage{}, nil
	case kind == "system/model_fallback":
		c.retries = 0
	case kind == "system/api_retry":
		c.retries++
		if w.Attempt != c.retries || w.Attempt > w.MaxRetries {
			c.wrong("attempt %d of %d, want %d", w.Attempt, w.MaxRetries, c.retries)
		}
	case w.Type == "assistant":
		c.assistant(w)
	case w.Type == "user":
		c.user(w)
	case w.Type == "result":
		c.result(w)
	}
}

func (c *checker) assistant(w *wire) {
	c.t.Helper()
	m := w.Message
	blocks := m.blocks()
	if m.Type != "message" || m.Role != "assistant" || m.ID == "" || m.Model == "" || len(blocks) != 1 {
		c.wrong("message = %s %s of %q by %q with %d blocks, want one block of an assistant's", m.Role, m.Type, m.ID, m.Model, len(blocks))
		return
	}
	if invented := m.Model == synthetic; invented != (w.Error != "") || invented != (m.StopReason != nil) {
		c.wrong("model %q with error %q and stop_reason %v: only what Claude Code says by itself has them", m.Model, w.Error, m.StopReason)
	}
	if blocks[0].Type == "tool_use" {
		if _, again := c.uses[blocks[0].ID]; again || blocks[0].ID == "" {
			c.wrong("tool_use id = %q, want one of its own", blocks[0].ID)
		}
		c.uses[blocks[0].ID] = false
	}
	if w.Parent != nil {
		return
	}
	if m.Model != synthetic {
		if _, seen := c.asked[m.ID]; seen && c.last.Message.ID != m.ID {
			c.wrong("message %s goes on after another", m.ID)
		}
		c.asked[m.ID] = m.Usage
	}
	c.last = w
}

func (c *checker) user(w *wire) {
	c.t.Helper()
	if w.Message.Role != "user" {
		c.wrong("role = %q, want user", w.Message.Role)
	}
	for _, b := range w.Message.blocks() {
		if b.Type != "tool_result" {
			continue
		}
		if done, used := c.uses[b.ToolUseID]; done || !used {
			c.wrong("tool_result for %q, which was not used or is answered", b.ToolUseID)
		}
		c.uses[b.ToolUseID] = true
	}
	if w.Parent == nil && !w.Replay {
		c.users++
	}
}

func (c *checker) result(w *wire) {
	c.t.Helper()
	c.results++
	unknown := !c.open && w.Turns == 0 // nothing ran: --resume of what does not exist
	if !c.open && !unknown {
		c.wrong("a result outside of a turn")
	}
	c.open = false
	if isError := w.Subtype != "success"; isError != (len(w.Errors) > 0) || isError != (len(w.has("result")) > 0) || isError && !w.IsError {
		c.wrong("%s with is_error %v, errors %q and result %q", w.Subtype, w.IsError, w.Errors, w.Result)
	}
	if _, ok := always()["result/"+w.Subtype]; !ok {
		c.wrong("subtype = %q", w.Subtype)
	}
	sum := 0.0
	for _, m := range w.ModelUsage {
		sum += m.Cost
	}
	if math.Abs(sum-w.Cost) > 1e-9 || w.Cost < c.spent {
		c.wrong("total_cost_usd = %v after %v, and %v by model", w.Cost, c.spent, sum)
	}
	c.spent = w.Cost
	local := w.Turns == 0 // one of Claude Code's own commands
	if unknown || local {
		return
	}
	if w.Turns != c.users+1 {
		c.wrong("num_turns = %d after %d messages of the user", w.Turns, c.users)
	}
	reasons := map[string]bool{
		"completed": w.Subtype == "success", "prompt_too_long": w.IsError, "max_turns": w.Subtype == "error_max_turns",
		"aborted_streaming": w.Subtype == "error_during_execution", "aborted_tools": w.Subtype == "error_during_execution",
		"": w.Subtype == "error_max_budget_usd",
	}
	if !reasons[w.Reason] {
		c.wrong("terminal_reason = %q of %s (is_error %v)", w.Reason, w.Subtype, w.IsError)
	}
	if w.Subtype != "success" {
		return
	}
	c.success(w)
}

// success checks what ends with a text: an answer, or an error that calls itself a success.
func (c *checker) success(w *wire) {
	c.t.Helper()
	if missing := w.has("api_error_status"); len(missing) > 0 || w.Status != nil && !w.IsError {
		c.wrong("api_error_status missing %v, or of a good turn", missing)
	}
	if c.last == nil {
		c.wrong("a result without an answer")
		return
	}
	if w.IsError != (c.last.Error != "") {
		c.wrong("is_error = %v, and the last message has the error %q", w.IsError, c.last.Error)
	}
	if w.IsError {
		if w.Stop != "stop_sequence" {
			c.wrong("stop_reason = %q, want stop_sequence", w.Stop)
		}
	} else if missing := w.has("ttft_ms", "ttft_stream_ms", "time_to_request_ms"); len(missing) > 0 {
		c.wrong("a good turn lacks %v", missing)
	}
	if b := c.last.Message.blocks()[0]; b.Type == "text" && b.Text != w.Result {
		c.wrong("result = %q, want the last text %q", w.Result, b.Text)
	}
	for id, done := range c.uses {
		if !done {
			c.wrong("the tool use %s has no result at the end of the turn", id)
		}
	}
	var in usage
	for _, u := range c.asked {
		in.add(u)
	}
	if w.Usage.Input != in.Input || w.Usage.CacheRead != in.CacheRead || w.Usage.CacheCreation != in.CacheCreation || w.Usage.Output < len(c.asked) {
		c.wrong("usage = %+v, want the sum of the messages' %+v", w.Usage, in)
	}
}

// outputLines are the lines of output; those of a recorded exchange are unwrapped.
func outputLines(raw []byte) [][]byte {
	var out [][]byte
	for line := range bytes.Lines(raw) {
		var wrapped struct {
			Dir string          `json:"dir"`
			Msg json.RawMessage `json:"msg"`
		}
		switch {
		case json.Unmarshal(line, &wrapped) != nil || wrapped.Dir == "":
			out = append(out, line)
		case wrapped.Dir == "stdout":
			out = append(out, wrapped.Msg)
		}
	}
	return out
}

func TestRecordings(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("../../runner/testdata/stream-json/*.ndjson")
	if err != nil || len(names) < 35 {
		t.Fatalf("%d recordings, %v: want them all", len(names), err)
	}
	for _, name := range names {
		base := filepath.Base(name)
		t.Run("the real Claude Code passes the checks in "+base, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			killed := strings.HasPrefix(base, "interrupted-sigkill") || strings.HasPrefix(base, "interrupted-sigterm")
			if n := checkStream(t, outputLines(raw)); (n == 0) != killed {
				t.Errorf("%d results, and the process was killed: %v", n, killed)
			}
		})
	}
}

// failures collects what a check says, for the tests of the checks themselves.
type failures struct {
	testing.TB
	said []string
}

func (f *failures) Helper() {}
func (f *failures) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func TestChecks(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../runner/testdata/stream-json/tools-bash-write.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	good := outputLines(raw)
	swap := func(from, to string) func([][]byte) [][]byte {
		return func(lines [][]byte) [][]byte {
			all := bytes.Join(lines, nil)
			if !bytes.Contains(all, []byte(from)) {
				t.Fatalf("the recording has no %s", from)
			}
			return outputLines(bytes.Replace(all, []byte(from), []byte(to), 1))
		}
	}
	for name, tt := range map[string]struct {
		spoil func([][]byte) [][]byte
		want  string
	}{
		"a turn without an init":             {func(l [][]byte) [][]byte { return l[1:] }, "outside of a turn"},
		"two inits in one turn":              {func(l [][]byte) [][]byte { return append([][]byte{l[0]}, l...) }, "a second init"},
		"an event that comes twice":          {func(l [][]byte) [][]byte { return append(l[:2:2], l[1:]...) }, "want one of its own"},
		"a result of a tool that nobody ran": {func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }, "which was not used"},
		"a tool without a result":            {func(l [][]byte) [][]byte { return append(l[:3:3], l[4:]...) }, "has no result"},
		"another session in between":         {swap(`"session_id":"0ef6eaa5`, `"session_id":"1ef6eaa5`), "session_id ="},
		"an answer that is not the last":     {swap(`"result":"Done`, `"result":"Gone`), "want the last text"},
		"an error that says nothing":         {swap(`"is_error":false,"api`, `"is_error":true,"api`), "is_error = true"},
		"usage that does not add up":         {swap(`"usage":{"input_tokens":36`, `"usage":{"input_tokens":35`), "want the sum"},
		"turns that are miscounted":          {swap(`"num_turns":3`, `"num_turns":2`), "num_turns = 2"},
		"a cost that does not add up":        {swap(`"total_cost_usd":0.03`, `"total_cost_usd":0.04`), "by model"},
		"a reason of another end":            {swap(`"terminal_reason":"completed"`, `"terminal_reason":"max_turns"`), "terminal_reason ="},
		"a field that is missing":            {swap(`"duration_api_ms"`, `"x"`), "lacks [duration_api_ms]"},
		"a line that is no JSON":             {swap(`{"type":"result"`, `"type":"result"`), "no JSON object"},
	} {
		t.Run("the checks find "+name, func(t *testing.T) {
			t.Parallel()
			f := &failures{TB: t}
			checkStream(f, tt.spoil(good))
			if all := strings.Join(f.said, "\n"); !strings.Contains(all, tt.want) {
				t.Errorf("found %q, want %q", all, tt.want)
			}
		})
	}
}
