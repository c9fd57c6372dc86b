// Package claude stands in for Claude: the Messages API with scripted answers, enough for the real Claude Code to run
// whole turns with tools, and the claude command itself, a small agent over that API.
//
// What is answered is in script.go, for both. The API asks for its key, so that a wrong credential is found
// out here as well. Faults have the calls messages and models.
package claude

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flaudebot/local/edge"
)

// Key is the credential that the API accepts by default.
const Key = "sk-ant-local"

// mostBytes is the API's limit of a request.
const mostBytes = 32 << 20

// Config says how the API behaves.
type Config struct {
	Key string // "": Key
	Log *slog.Logger
}

// Server is the Messages API.
type Server struct {
	cfg    Config
	faults edge.Faults
	serial atomic.Int64

	mu      sync.Mutex
	seen    []Seen          // guarded by mu
	resets  time.Time       // guarded by mu; when the subscription's limit resets
	limited map[string]bool // guarded by mu; the prompts that have reached it
}

// Seen is a request as the API saw it, for tests that need a witness.
type Seen struct {
	At       time.Time `json:"at"`
	Model    string    `json:"model"`
	Effort   string    `json:"effort,omitempty"` // output_config.effort
	System   string    `json:"system,omitempty"` // the end of the system prompt, at most 4,000 bytes
	Tools    []string  `json:"tools,omitempty"`
	Prompt   string    `json:"prompt"`           // of the turn
	Step     int       `json:"step"`             // tool results since
	Messages int       `json:"messages"`         // in the conversation
	Images   []Image   `json:"images,omitempty"` // in the conversation
	Status   int       `json:"status"`
}

// New returns the API.
func New(cfg Config) *Server {
	if cfg.Key == "" {
		cfg.Key = Key
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg}
}

// Handler answers as api.anthropic.com does.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", s.messages)
	mux.HandleFunc("POST /v1/messages/count_tokens", s.count)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("GET /v1/models/{id}", s.models)
	mux.HandleFunc("GET /local/log", s.log)
	mux.Handle("POST /local/faults", &s.faults)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "The local Messages API.") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { refuse(w, http.StatusNotFound, "not found: "+r.URL.Path) })
	faulty := s.faults.Wrap(mux, func(r *http.Request) string {
		if name := strings.TrimPrefix(r.URL.Path, "/v1/"); name == "messages" || name == "models" {
			return name
		}
		return "other"
	}, func(w http.ResponseWriter, status int) { refuse(w, status, http.StatusText(status)) })
	return edge.Guard(s.numbered(faulty), nil)
}

// refuse answers in the API's form of an error.
func refuse(w http.ResponseWriter, status int, text string) {
	kind := map[int]string{
		400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
		413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error",
	}[status]
	if kind == "" {
		kind = "api_error"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "error", "error": map[string]string{"type": kind, "message": text}, "request_id": w.Header().Get("Request-Id"),
	})
}

// numbered gives every answer an id, as the API does.
func (s *Server) numbered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Request-Id", fmt.Sprintf("req_local%08d", s.serial.Add(1)))
		next.ServeHTTP(w, r)
	})
}

func (s *Server) mayAsk(r *http.Request) bool {
	return r.Header.Get("X-Api-Key") == s.cfg.Key || r.Header.Get("Authorization") == "Bearer "+s.cfg.Key
}

// request are the fields of a request that the script looks at.
type request struct {
	Model    string          `json:"model"`
	Stream   bool            `json:"stream"`
	Messages []message       `json:"messages"`
	System   json.RawMessage `json:"system"`
	Output   struct {
		Effort string `json:"effort"`
	} `json:"output_config"`
	Tools []struct {
		Name string `json:"name"`
	} `json:"tools"`
}

func (s *Server) messages(w http.ResponseWriter, r *http.Request) {
	if !s.mayAsk(r) {
		s.note(Seen{Status: http.StatusUnauthorized})
		refuse(w, http.StatusUnauthorized, "invalid x-api-key")
		return
	}
	var req request
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBytes)).Decode(&req)
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		refuse(w, http.StatusRequestEntityTooLarge, "Request exceeds the maximum size")
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "invalid JSON: "+err.Error())
		return
	case req.Model == "":
		refuse(w, http.StatusBadRequest, "model: Field required")
		return
	case len(req.Messages) == 0:
		refuse(w, http.StatusBadRequest, "messages: at least one message is required")
		return
	}
	if !strings.HasPrefix(req.Model, "claude-") {
		s.note(Seen{Model: req.Model, Messages: len(req.Messages), Status: http.StatusNotFound})
		refuse(w, http.StatusNotFound, "model: "+req.Model)
		return
	}
	if id := unanswered(req.Messages); id != "" {
		refuse(w, http.StatusBadRequest, "messages: `tool_use` ids were found without `tool_result` blocks immediately after: "+id)
		return
	}
	seenImages, why := images(req.Messages)
	if why != "" {
		s.note(Seen{Model: req.Model, Messages: len(req.Messages), Status: http.StatusBadRequest})
		refuse(w, http.StatusBadRequest, why)
		return
	}
	talk := read(req)
	step := talk.next()
	if r.Header.Get("X-Api-Key") == "" { // a subscription's token
		if resets := s.limit(step.limit, talk.prompt); !resets.IsZero() {
			s.note(Seen{Model: req.Model, Prompt: talk.prompt, Step: len(talk.results), Messages: len(req.Messages), Status: http.StatusTooManyRequests})
			beyond(w, resets)
			return
		}
	}
	seen := Seen{Model: req.Model, Effort: req.Output.Effort, System: lastBytes(flat(req.System), 4000), Tools: talk.tools, Prompt: talk.prompt, Step: len(talk.results), Messages: len(req.Messages), Images: seenImages, Status: 200}
	if step.refuse != "" {
		seen.Status = http.StatusBadRequest
		s.note(seen)
		refuse(w, http.StatusBadRequest, step.refuse)
		return
	}
	s.note(seen)
	s.answer(w, req, step)
}

// limit is when the limit of the subscription resets; zero: it is not reached. A prompt reaches it once.
func (s *Server) limit(lasts time.Duration, prompt string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lasts > 0 && !s.limited[prompt] {
		if s.limited == nil {
			s.limited = map[string]bool{}
		}
		s.limited[prompt], s.resets = true, time.Now().Add(lasts+time.Second-1).Truncate(time.Second) // the API tells it in whole seconds
	}
	if time.Now().Before(s.resets) {
		return s.resets
	}
	return time.Time{}
}

// beyond refuses a request as the API does where the limit of a subscription is reached.
func beyond(w http.ResponseWriter, resets time.Time) {
	at := strconv.FormatInt(resets.Unix(), 10)
	for name, value := range map[string]string{
		"Status": "rejected", "Reset": at, "Representative-Claim": "five_hour", "5h-Status": "rejected", "5h-Reset": at, "5h-Utilization": "1.0",
		"Overage-Status": "rejected",
	} {
		w.Header().Set("Anthropic-Ratelimit-Unified-"+name, value)
	}
	refuse(w, http.StatusTooManyRequests, "This request would exceed your account's rate limit. Please try again later.")
}

// lastBytes is the end of a text, cut at a rune.
func lastBytes(text string, n int) string {
	if len(text) > n {
		text = strings.ToValidUTF8(text[len(text)-n:], "")
	}
	return text
}

// unanswered is a use of a tool that has no result in what the user says next; the API takes none. Messages of the same role
// that follow each other are one.
func unanswered(all []message) string {
	var open []string
	for i, m := range all {
		if i > 0 && m.Role == "assistant" && all[i-1].Role == "user" && len(open) > 0 {
			return open[0]
		}
		for _, b := range m.blocks() {
			switch b.Type {
			case "tool_use":
				open = append(open, b.ID)
			case "tool_result":
				open = slices.DeleteFunc(open, func(id string) bool { return id == b.ToolUseID })
			}
		}
	}
	if len(open) > 0 {
		return open[0]
	}
	return ""
}

func (s *Server) note(seen Seen) {
	seen.At = time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, seen)
	if len(s.seen) > 5000 {
		s.seen = s.seen[1000:]
	}
}

func (s *Server) log(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.seen)
}

func (s *Server) count(w http.ResponseWriter, r *http.Request) {
	if !s.mayAsk(r) {
		refuse(w, http.StatusUnauthorized, "invalid x-api-key")
		return
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBytes))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "Request exceeds the maximum size")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int{"input_tokens": len(raw) / 4})
}

// models lists the models that there are, or tells of one: whichever is asked for by its whole name is there.
func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	if !s.mayAsk(r) {
		refuse(w, http.StatusUnauthorized, "invalid x-api-key")
		return
	}
	model := func(id string) map[string]string {
		return map[string]string{"type": "model", "id": id, "display_name": id, "created_at": "2026-06-01T00:00:00Z"}
	}
	id := r.PathValue("id")
	var out any = map[string]any{"data": []any{model("claude-local-1")}, "first_id": "claude-local-1", "last_id": "claude-local-1", "has_more": false}
	switch {
	case id != "" && !strings.HasPrefix(id, "claude-"):
		refuse(w, http.StatusNotFound, "model: "+id)
		return
	case id != "":
		out = model(id)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the caller may have gone
}

// answer sends a step as one message, streamed or whole.
func (s *Server) answer(w http.ResponseWriter, req request, st step) {
	stop := "end_turn"
	var content []map[string]any
	if st.text != "" {
		content = append(content, map[string]any{"type": "text", "text": st.text})
	}
	n := s.serial.Add(1)
	if st.tool != "" {
		stop = "tool_use"
		content = append(content, map[string]any{"type": "tool_use", "id": fmt.Sprintf("toolu_local%08d", n), "name": st.tool, "input": st.input})
	}
	used := usage{Input: 1200, Output: 1 + len(st.text)/4}
	msg := map[string]any{
		"id": fmt.Sprintf("msg_local%08d", n), "type": "message", "role": "assistant", "model": req.Model,
		"content": content, "stop_reason": stop, "stop_sequence": nil, "usage": used,
	}
	if !req.Stream {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(msg)
		return
	}
	stream(w, msg, content, stop, used)
}

// stream sends the message as server-sent events, as the API's documentation shows them.
func stream(w http.ResponseWriter, msg map[string]any, content []map[string]any, stop string, used usage) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	send := func(kind string, fields map[string]any) {
		fields["type"] = kind
		raw, _ := json.Marshal(fields)
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, raw)
		_ = flush.Flush()
	}
	start := maps.Clone(msg)
	start["content"], start["stop_reason"] = []any{}, nil
	start["usage"] = usage{Input: used.Input, Output: 1} // the rest is said at the end
	send("message_start", map[string]any{"message": start})
	for i, b := range content {
		if b["type"] == "text" {
			send("content_block_start", map[string]any{"index": i, "content_block": map[string]any{"type": "text", "text": ""}})
			for _, part := range pieces(b["text"].(string)) {
				send("content_block_delta", map[string]any{"index": i, "delta": map[string]any{"type": "text_delta", "text": part}})
			}
		} else {
			empty := map[string]any{"type": "tool_use", "id": b["id"], "name": b["name"], "input": map[string]any{}}
			send("content_block_start", map[string]any{"index": i, "content_block": empty})
			raw, _ := json.Marshal(b["input"])
			send("content_block_delta", map[string]any{"index": i, "delta": map[string]any{"type": "input_json_delta", "partial_json": string(raw)}})
		}
		send("content_block_stop", map[string]any{"index": i})
	}
	send("message_delta", map[string]any{"delta": map[string]any{"stop_reason": stop, "stop_sequence": nil}, "usage": used})
	send("message_stop", map[string]any{})
}

// pieces cuts a text into what the API would send at a time: some words, or a part of a very long one.
func pieces(text string) []string {
	const most = 64 << 10
	if len(text) > most {
		var out []string
		for len(text) > 0 {
			n := min(most, len(text))
			for n < len(text) && text[n]&0xC0 == 0x80 {
				n++
			}
			out = append(out, text[:n])
			text = text[n:]
		}
		return out
	}
	return strings.SplitAfter(text, " ")
}
