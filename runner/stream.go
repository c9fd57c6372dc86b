package runner

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stream understands Claude Code's output, a line at a time. Types that it does not know are passed over.
type stream struct {
	workspace string              // tool inputs below it are shown relative to it
	hide      func(string) string // removes secrets, before anything is cut; nil: nothing to hide

	sawInit   bool
	sawResult bool
	isError   bool
	subtype   string
	answer    string    // of the result
	said      []string  // texts of this turn
	apiError  string    // assistant.error
	resets    time.Time // when the usage limit that was reached does; zero: none was, or nobody says
	errors    []string
	cost      float64
	model     string
	session   string
	todos     []Todo
	taskIDs   []string // of the todos, where they came from TaskCreate
	pending   map[string]string
	denied    []Denied
	pulls     *pullFinder    // nil: nobody wants to know
	usage     *Usage         // of the newest result: it holds those before it
	tools     map[string]int // name → how often it was used
	lines     int
	before    totals // what the process had used before this turn
	told      totals // what it has used by now
}

// totals are what a process has used, over all of its turns.
type totals struct {
	cost                                 float64
	input, output, cacheRead, cacheWrite int64
}

// wireEvent are the fields that we read of a line.
type wireEvent struct {
	Type      string          `json:"type"`
	Subtype   string          `json:"subtype"`
	SessionID string          `json:"session_id"`
	Model     string          `json:"model"`
	Parent    string          `json:"parent_tool_use_id"`
	Error     string          `json:"error"`
	IsError   bool            `json:"is_error"`
	Result    string          `json:"result"`
	Errors    []string        `json:"errors"`
	Cost      float64         `json:"total_cost_usd"`
	Steps     int             `json:"num_turns"`
	Attempt   int             `json:"attempt"`
	Status    *int            `json:"error_status"`
	Message   json.RawMessage `json:"message"`
	ToolUse   json.RawMessage `json:"tool_use_result"`
	Fallback  string          `json:"fallback_model"`
	Content   json.RawMessage `json:"content"` // text of a notice
	Denials   json.RawMessage `json:"permission_denials"`
	Servers   json.RawMessage `json:"mcp_servers"`
	Limit     struct {
		Status string `json:"status"`
		Resets int64  `json:"resetsAt"` // unix s
	} `json:"rate_limit_info"`
	Models map[string]struct {
		Input      int64 `json:"inputTokens"`
		Output     int64 `json:"outputTokens"`
		CacheRead  int64 `json:"cacheReadInputTokens"`
		CacheWrite int64 `json:"cacheCreationInputTokens"`
	} `json:"modelUsage"`
}

type wireMessage struct {
	Content json.RawMessage `json:"content"`
}

type wireBlock struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"` // of a tool's result
}

func (s *stream) hidden(text string) string {
	if s.hide == nil {
		return text
	}
	return s.hide(text)
}

// line reads one line and returns what it tells. A line that is no JSON tells nothing.
func (s *stream) line(raw []byte) []Event {
	s.lines++
	var e wireEvent
	if json.Unmarshal(raw, &e) != nil {
		return nil
	}
	switch e.Type {
	case "system":
		return s.system(e)
	case "assistant":
		return s.assistant(e)
	case "user":
		return s.user(e)
	case "rate_limit_event":
		if e.Limit.Status == "rejected" && e.Limit.Resets > 0 {
			s.resets = time.Unix(e.Limit.Resets, 0).UTC()
		}
	case "result":
		// Background work may bring a further one; the first is the turn's.
		if !s.sawResult {
			s.sawResult, s.isError, s.subtype, s.answer, s.errors = true, e.IsError, e.Subtype, e.Result, e.Errors
			s.refused(e)
		}
		s.count(e)
	}
	return nil
}

// count takes in what a result says was used. Its cost and tokens are those of the process, its steps those since the result before it.
func (s *stream) count(e wireEvent) {
	now := totals{cost: max(s.told.cost, s.before.cost, e.Cost)}
	for _, m := range e.Models {
		now.input, now.output = now.input+m.Input, now.output+m.Output
		now.cacheRead, now.cacheWrite = now.cacheRead+m.CacheRead, now.cacheWrite+m.CacheWrite
	}
	s.told = now
	s.cost = now.cost - s.before.cost
	u := Usage{
		Input: now.input - s.before.input, Output: now.output - s.before.output,
		CacheRead: now.cacheRead - s.before.cacheRead, CacheWrite: now.cacheWrite - s.before.cacheWrite, Steps: e.Steps,
	}
	if s.usage != nil {
		u.Steps += s.usage.Steps
	}
	s.usage = &u
}

// maxTools is how many tools an outcome names.
const maxTools = 20

// toolsUsed are the tools of the turn, the most used first.
func (s *stream) toolsUsed() []ToolUse {
	var out []ToolUse
	for name, n := range s.tools {
		out = append(out, ToolUse{Tool: name, Times: n})
	}
	slices.SortFunc(out, func(a, b ToolUse) int { return cmp.Or(b.Times-a.Times, cmp.Compare(a.Tool, b.Tool)) })
	return out[:min(len(out), maxTools)]
}

func (s *stream) system(e wireEvent) []Event {
	switch e.Subtype {
	case "init":
		s.sawInit, s.model, s.session = true, e.Model, e.SessionID
		out := []Event{{Kind: KindInit, Model: e.Model}, {Kind: KindPhase, Phase: PhaseRunning}}
		var servers []struct {
			Name   string `json:"name"`
			Status string `json:"status"`
		}
		_ = json.Unmarshal(e.Servers, &servers) // another form tells nothing
		for _, m := range servers {
			if m.Status == "failed" {
				out = append(out, Event{Kind: KindNote, Text: fmt.Sprintf("the MCP server %s did not start", s.hidden(m.Name))})
			}
		}
		return out
	case "model_fallback":
		s.model = cmp.Or(e.Fallback, s.model)
		var said string
		_ = json.Unmarshal(e.Content, &said)
		return []Event{{Kind: KindInit, Model: s.model}, {Kind: KindNote, Text: s.hidden(said)}}
	case "api_retry":
		why := "the API does not answer"
		if e.Status != nil {
			why = fmt.Sprintf("the API answers %d", *e.Status)
		}
		return []Event{{Kind: KindRetry, Text: fmt.Sprintf("%s: attempt %d", why, e.Attempt)}}
	}
	return nil
}

// maxDenied is how many refused uses of tools are told of.
const maxDenied = 20

// refused notes the uses of tools that were not allowed.
func (s *stream) refused(e wireEvent) {
	var denials []struct {
		Tool  string          `json:"tool_name"`
		Input json.RawMessage `json:"tool_input"`
	}
	_ = json.Unmarshal(e.Denials, &denials) // another form tells nothing
	for _, d := range denials[:min(len(denials), maxDenied)] {
		s.denied = append(s.denied, Denied{Tool: clip(s.hidden(d.Tool), 100), On: s.target(wireBlock{Input: d.Input})})
	}
}

func (s *stream) assistant(e wireEvent) []Event {
	if e.Parent == "" { // a later answer clears it
		s.apiError = e.Error
	}
	var out []Event
	for _, b := range blocks(e.Message) {
		switch {
		case b.Type == "text" && e.Parent == "" && e.Error == "" && strings.TrimSpace(b.Text) != "":
			text := s.hidden(b.Text)
			s.said = append(s.said, text)
			out = append(out, Event{Kind: KindText, Text: text})
		case b.Type == "tool_use":
			if s.tools == nil {
				s.tools = map[string]int{}
			}
			s.tools[clip(s.hidden(b.Name), 100)]++
			if ev, ok := s.plan(b); ok {
				out = append(out, ev...)
				continue
			}
			out = append(out, Event{Kind: KindTool, Tool: s.hidden(b.Name), Text: s.target(b)})
		}
	}
	return out
}

func blocks(message json.RawMessage) []wireBlock {
	var m wireMessage
	var out []wireBlock
	if json.Unmarshal(message, &m) != nil || json.Unmarshal(m.Content, &out) != nil {
		return nil
	}
	return out
}

// plan follows the task list, in both of its forms; false: the block is another tool's.
func (s *stream) plan(b wireBlock) ([]Event, bool) {
	var in struct {
		Todos []struct {
			Content string `json:"content"`
			Status  string `json:"status"`
		} `json:"todos"`
		Subject string `json:"subject"`
		TaskID  string `json:"taskId"`
		Status  string `json:"status"`
	}
	switch b.Name {
	case "TodoWrite", "TaskCreate", "TaskUpdate":
	case "TaskList", "TaskGet":
		return nil, true
	default:
		return nil, false
	}
	if json.Unmarshal(b.Input, &in) != nil {
		return nil, true
	}
	switch b.Name {
	case "TodoWrite":
		s.todos = nil
		for _, t := range in.Todos {
			s.todos = append(s.todos, Todo{Text: clip(s.hidden(t.Content), 200), State: t.Status})
		}
	case "TaskCreate":
		// Its number comes with the tool's result.
		if s.pending == nil {
			s.pending = map[string]string{}
		}
		s.pending[b.ID] = in.Subject
		return nil, true
	case "TaskUpdate":
		for i, id := range s.taskIDs {
			if id == in.TaskID && in.Status != "" {
				s.todos[i].State = in.Status
			}
		}
	}
	return s.showTodos(), true
}

func (s *stream) showTodos() []Event {
	return []Event{{Kind: KindTodo, Todos: append([]Todo(nil), s.todos[:min(len(s.todos), 50)]...)}}
}

// user reads tool results: only a created task's number is of interest.
func (s *stream) user(e wireEvent) []Event {
	for _, b := range blocks(e.Message) {
		if b.Type == "tool_result" {
			s.pulls.output(flat(b.Content))
		}
		subject, ok := s.pending[b.ToolUseID]
		if b.Type != "tool_result" || !ok {
			continue
		}
		delete(s.pending, b.ToolUseID)
		var r struct {
			Task struct {
				ID string `json:"id"`
			} `json:"task"`
		}
		if json.Unmarshal(e.ToolUse, &r) != nil || r.Task.ID == "" {
			continue
		}
		s.todos = append(s.todos, Todo{Text: clip(s.hidden(subject), 200), State: "pending"})
		s.taskIDs = append(s.taskIDs, r.Task.ID)
		return s.showTodos()
	}
	return nil
}

// target says what a tool is used on, for people.
func (s *stream) target(b wireBlock) string {
	var in map[string]any
	if json.Unmarshal(b.Input, &in) != nil {
		return ""
	}
	for _, key := range []string{"command", "file_path", "notebook_path", "pattern", "path", "url", "query", "description", "prompt"} {
		text, ok := in[key].(string)
		if !ok || text == "" {
			continue
		}
		text = s.hidden(text)
		if rel, err := filepath.Rel(s.workspace, text); err == nil && filepath.IsAbs(text) && !strings.HasPrefix(rel, "..") {
			text = rel
		}
		first, _, more := strings.Cut(text, "\n")
		if more {
			first += " …"
		}
		return clip(first, 300)
	}
	return ""
}
