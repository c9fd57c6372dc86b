package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// turnState is what is counted in one turn.
type turnState struct {
	began  time.Time
	asking time.Duration // spent waiting for the API
	users  int           // messages put in for the person: tool results and interruptions
	steps  int           // rounds of tools
	used   usage
	stop   string // the API's last reason to stop
}

func (a *agent) begin() *turnState { return &turnState{began: time.Now()} }

// run runs one turn and returns the exit code it would end the process with.
func (a *agent) run(all context.Context, content json.RawMessage) int {
	ctx, cancel := context.WithCancel(all)
	defer cancel()
	a.mu.Lock()
	a.stop = cancel
	a.mu.Unlock()
	t := a.begin()
	a.emitInit()
	a.add(message{Role: "user", Content: content})
	for {
		reply, err := a.ask(ctx, t)
		if ctx.Err() != nil {
			return a.interrupted(t, "aborted_streaming", "[Request interrupted by user]")
		}
		if err != nil {
			return a.broken(err, t)
		}
		t.stop = reply.StopReason
		a.add(message{Role: "assistant", Content: reply.Content})
		text, uses := a.show(reply)
		if len(uses) == 0 {
			a.finish(text, t)
			return 0
		}
		t.steps++
		if !a.use(ctx, t, uses) {
			code := a.interrupted(t, "aborted_tools", "[Request interrupted by user for tool use]")
			if all.Err() != nil {
				code = 1 // a signal; the control request ends no process
			}
			return code
		}
		if a.maxTurns > 0 && t.steps >= a.maxTurns {
			return a.exhausted(t)
		}
	}
}

// show emits the reply, an event a block, and returns its last text and its uses of tools.
func (a *agent) show(r *apiReply) (text string, uses []block) {
	for _, b := range (message{Content: r.Content}).blocks() {
		switch b.Type {
		case "text":
			text = b.Text
		case "tool_use":
			uses = append(uses, b)
		}
		a.emit(a.event("assistant", map[string]any{
			"message": map[string]any{
				"id": r.ID, "type": "message", "role": "assistant", "model": r.Model, "content": []block{b},
				"stop_reason": nil, "stop_sequence": nil, "usage": r.Usage,
			},
			"parent_tool_use_id": nil, "request_id": r.request,
		}))
	}
	return text, uses
}

// rejected is what a tool that was interrupted is said to have answered.
const rejected = "The user doesn't want to proceed with this tool use. The tool use was rejected (eg. if it was a file edit, the new_string " +
	"was NOT written to the file). STOP what you are doing and wait for the user to tell you how to proceed."

// use runs the tools and puts their results into the conversation; false: it was interrupted.
func (a *agent) use(ctx context.Context, t *turnState, uses []block) bool {
	var all []any
	for _, u := range uses {
		text, failed := a.tool(ctx, u)
		account := any(text)
		switch {
		case ctx.Err() != nil:
			text, failed, account = rejected, true, "User rejected tool use"
		case failed:
			account = "Error: " + text
		case u.Name == "Bash":
			account = map[string]any{"stdout": text, "stderr": "", "interrupted": false, "isImage": false, "noOutputExpected": false}
		}
		r := map[string]any{"type": "tool_result", "tool_use_id": u.ID, "content": text, "is_error": failed}
		all = append(all, r)
		t.users++
		a.emitUser([]any{r}, account)
	}
	content, _ := json.Marshal(all)
	a.add(message{Role: "user", Content: content})
	return ctx.Err() == nil
}

func (a *agent) finish(text string, t *turnState) {
	r := a.resultEvent("success", t)
	r["result"], r["api_error_status"] = text, nil
	r["ttft_ms"], r["ttft_stream_ms"], r["time_to_request_ms"] = t.asking.Milliseconds(), t.asking.Milliseconds(), 0
	a.tell(r, text)
}

// tell gives the result in the form that was asked for.
func (a *agent) tell(r map[string]any, text string) {
	a.emit(r)
	switch a.output {
	case "text":
		fmt.Fprintln(a.out, text)
	case "json":
		_ = json.NewEncoder(a.out).Encode(r)
	}
}

// interrupted ends a turn that was stopped. The note that it leaves keeps the conversation whole.
func (a *agent) interrupted(t *turnState, reason, note string) int {
	said := []block{{Type: "text", Text: note}}
	content, _ := json.Marshal(said)
	a.add(message{Role: "user", Content: content})
	t.users++
	a.emitUser(said, nil)
	r := a.resultEvent("error_during_execution", t)
	r["terminal_reason"], r["errors"] = reason, diagnostic(t.stop)
	a.tell(r, "Execution error")
	return 0
}

// exhausted ends a turn that reached --max-turns.
func (a *agent) exhausted(t *turnState) int {
	text := fmt.Sprintf("Reached maximum number of turns (%d)", a.maxTurns)
	r := a.resultEvent("error_max_turns", t)
	r["terminal_reason"], r["errors"] = "max_turns", []string{text}
	a.tell(r, "Error: "+text)
	return 1
}

var exitAsked = regexp.MustCompile(`told to fail with exit (\d+)`)

// broken ends a turn that the API refused, as Claude Code does: a result called success that is an error. The code is 1, or,
// unlike Claude Code's, the one that the person asked for.
func (a *agent) broken(err error, t *turnState) int {
	var e *apiError
	var status any // null: there was no answer
	kind := "server_error"
	text := "API Error: " + err.Error()
	request := ""
	if errors.As(err, &e) {
		kind, text, request = kindOf(e.status), e.text, e.request
		if e.status != 0 {
			status = e.status
		}
	}
	t.stop = "stop_sequence"
	a.emit(a.event("assistant", map[string]any{
		"error": kind, "parent_tool_use_id": nil, "request_id": request,
		"message": map[string]any{
			"id": newUUID(), "type": "message", "role": "assistant", "model": synthetic, "content": []block{{Type: "text", Text: text}},
			"stop_reason": "stop_sequence", "stop_sequence": "", "usage": usage{},
		},
	}))
	r := a.resultEvent("success", t)
	r["is_error"], r["result"], r["api_error_status"] = true, text, status
	a.tell(r, text)
	if m := exitAsked.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 && n < 256 {
			return n
		}
	}
	return 1
}

// synthetic is the model of what Claude Code says by itself.
const synthetic = "<synthetic>"

// kindOf words a status as the stream does; 0: no credential at all.
func kindOf(status int) string {
	switch {
	case status == 0 || status == 401 || status == 403:
		return "authentication_failed"
	case status == 429:
		return "rate_limit"
	case status >= 500:
		return "server_error"
	case status == 404:
		return "model_not_found"
	case status == 413:
		return "invalid_request"
	default:
		return "unknown"
	}
}

// wording is the text of a refusal as Claude Code shows it.
func wording(status int, message string) string {
	if status == 401 && strings.Contains(message, "x-api-key") {
		return "Invalid API key · Fix external API key"
	}
	return fmt.Sprintf("API Error: %d %s", status, message)
}
