package claude

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// apiReply is the answer of the Messages API.
type apiReply struct {
	ID         string          `json:"id"`
	Model      string          `json:"model"`
	Content    json.RawMessage `json:"content"`
	StopReason string          `json:"stop_reason"`
	Usage      usage           `json:"usage"`
	request    string          // the API's id of the request
}

// apiError is a refusal of it.
type apiError struct {
	status  int // 0: nothing was asked, for want of a credential
	text    string
	request string // the API's id of the request
	resets  int64  // unix s: when the subscription's limit does; 0: it is not what is in the way
}

func (e *apiError) Error() string { return e.text }

// retried says whether Claude Code asks again.
func (e *apiError) retried() bool {
	return e.resets == 0 && (e.status == 401 || e.status == 403 || e.status == 429 || e.status >= 500)
}

// retryDelay is between two requests. Claude Code's own delays grow to half a minute; nobody learns from waiting here.
const retryDelay = 100 * time.Millisecond

// ask asks for the next step, again where Claude Code would, and counts what it took.
func (a *agent) ask(ctx context.Context, t *turnState) (*apiReply, error) {
	if a.env["ANTHROPIC_BASE_URL"] == "" || (a.env["ANTHROPIC_API_KEY"] == "" && a.env["CLAUDE_CODE_OAUTH_TOKEN"] == "") {
		return nil, &apiError{text: "Not logged in · Please run /login"}
	}
	began := time.Now()
	defer func() { t.asking += time.Since(began) }()
	tries, err := strconv.Atoi(a.env["CLAUDE_CODE_MAX_RETRIES"])
	if err != nil {
		tries = 10
	}
	for attempt := 1; ; attempt++ {
		reply, err := a.askOnce(ctx)
		if err == nil {
			a.count(t, reply.Usage)
			return reply, nil
		}
		var e *apiError
		refused := errors.As(err, &e)
		if ctx.Err() != nil || attempt > tries || refused && !e.retried() {
			return nil, err
		}
		fields := map[string]any{
			"subtype": "api_retry", "attempt": attempt, "max_retries": tries, "retry_delay_ms": float64(retryDelay.Milliseconds()),
			"error": "server_error", "error_status": nil,
		}
		if refused {
			fields["error_status"], fields["error"] = e.status, kindOf(e.status)
		}
		a.emit(a.event("system", fields))
		select {
		case <-ctx.Done():
		case <-time.After(retryDelay):
		}
	}
}

// count adds a request's usage to the turn and to the process.
func (a *agent) count(t *turnState, u usage) {
	t.used.add(u)
	s := a.spent[a.model]
	if s == nil {
		s = &spending{}
		a.spent[a.model] = s
	}
	s.add(u)
	s.cost += perRequest
}

func (a *agent) askOnce(ctx context.Context) (*apiReply, error) {
	tools := []map[string]string{}
	for _, name := range toolNames() {
		tools = append(tools, map[string]string{"name": name})
	}
	body, err := json.Marshal(map[string]any{
		"model": a.model, "max_tokens": 8192, "messages": a.messages, "tools": tools,
		"system": strings.TrimSpace("Working directory: " + a.cwd + "\n\n" + a.system), "output_config": map[string]string{"effort": cmp.Or(a.effort, "high")},
	})
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	url := strings.TrimRight(a.env["ANTHROPIC_BASE_URL"], "/") + "/v1/messages?beta=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key := a.env["ANTHROPIC_API_KEY"]; key != "" {
		req.Header.Set("X-Api-Key", key)
	} else {
		req.Header.Set("Authorization", "Bearer "+a.env["CLAUDE_CODE_OAUTH_TOKEN"])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the API: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the API's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var e struct {
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		_ = json.Unmarshal(raw, &e) // not the API's own: the status has to do
		refused := &apiError{status: res.StatusCode, text: wording(res.StatusCode, e.Error.Message), request: res.Header.Get("Request-Id")}
		if resets, err := strconv.ParseInt(res.Header.Get("Anthropic-Ratelimit-Unified-Reset"), 10, 64); err == nil && a.env["ANTHROPIC_API_KEY"] == "" {
			refused.resets, refused.text = resets, "You've hit your limit · resets "+time.Unix(resets, 0).UTC().Format("3:04pm")+" (UTC)"
			a.emit(a.event("rate_limit_event", map[string]any{"rate_limit_info": map[string]any{
				"status": "rejected", "resetsAt": resets, "rateLimitType": "five_hour", "overageStatus": "rejected", "isUsingOverage": false,
			}}))
		}
		return nil, refused
	}
	reply := &apiReply{request: res.Header.Get("Request-Id")}
	if err := json.Unmarshal(raw, reply); err != nil {
		return nil, fmt.Errorf("reading the API's answer: %w", err)
	}
	return reply, nil
}
