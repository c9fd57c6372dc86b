package claude

import (
	"encoding/json"
	"fmt"
	"time"
)

// usage counts tokens, in the API's words.
type usage struct {
	Input         int `json:"input_tokens"`
	CacheCreation int `json:"cache_creation_input_tokens"`
	CacheRead     int `json:"cache_read_input_tokens"`
	Output        int `json:"output_tokens"`
}

func (u *usage) add(v usage) {
	u.Input += v.Input
	u.CacheCreation += v.CacheCreation
	u.CacheRead += v.CacheRead
	u.Output += v.Output
}

// spending is what the process has used of a model.
type spending struct {
	usage
	cost float64 // US dollars
}

// perRequest is what the stand-in says that a request costs, in US dollars.
const perRequest = 0.0021

// emit writes an event where a stream of them was asked for.
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

func (a *agent) emitInit() {
	a.emit(a.event("system", map[string]any{
		"subtype": "init", "cwd": a.cwd, "model": a.model, "permissionMode": a.permissions(), "tools": toolNames(),
		"mcp_servers": []any{}, "slash_commands": []any{}, "agents": []any{}, "skills": []any{}, "plugins": []any{},
		"apiKeySource": a.keySource(), "claude_code_version": version, "output_style": "default", "fast_mode_state": "off",
		"analytics_disabled": true, "product_feedback_disabled": true, "memory_paths": map[string]any{},
	}))
}

// permissions names the mode; the stand-in asks for no permission in any of them.
func (a *agent) permissions() string {
	switch {
	case a.skipAsking:
		return "bypassPermissions"
	case a.permissionMode != "":
		return a.permissionMode
	}
	return "default"
}

func (a *agent) keySource() string {
	if a.env["ANTHROPIC_API_KEY"] != "" {
		return "ANTHROPIC_API_KEY"
	}
	return "none"
}

// emitUser tells what was put into the conversation in the person's place. result is the tool's own account, nil for none.
func (a *agent) emitUser(content any, result any) {
	fields := map[string]any{"message": map[string]any{"role": "user", "content": content}, "parent_tool_use_id": nil, "timestamp": stamp()}
	if result != nil {
		fields["tool_use_result"] = result
	}
	a.emit(a.event("user", fields))
}

// resultEvent is the end of a turn. What the process spent accumulates, what the turn did does not.
func (a *agent) resultEvent(subtype string, t *turnState) map[string]any {
	models, cost := map[string]any{}, 0.0
	for name, s := range a.spent {
		cost += s.cost
		models[name] = map[string]any{
			"inputTokens": s.Input, "outputTokens": s.Output, "cacheReadInputTokens": s.CacheRead, "cacheCreationInputTokens": s.CacheCreation,
			"webSearchRequests": 0, "costUSD": s.cost, "contextWindow": 200000, "maxOutputTokens": 64000,
		}
	}
	var stop any
	if t.stop != "" {
		stop = t.stop
	}
	return a.event("result", map[string]any{
		"subtype": subtype, "is_error": subtype != "success", "duration_ms": time.Since(t.began).Milliseconds(),
		"duration_api_ms": t.asking.Milliseconds(),
		"num_turns":       t.users + 1, "stop_reason": stop, "total_cost_usd": cost, "usage": t.used, "modelUsage": models,
		"permission_denials": []any{}, "fast_mode_state": "off", "terminal_reason": "completed",
	})
}

// diagnostic is the only text in the errors of an interrupted turn.
func diagnostic(stop string) []string {
	if stop == "" {
		stop = "null"
	}
	return []string{fmt.Sprintf("[ede_diagnostic] result_type=user last_content_type=n/a stop_reason=%s", stop)}
}
