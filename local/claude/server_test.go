package claude

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// ask posts a body to the API.
func ask(t *testing.T, api *httptest.Server, path, body string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func newAPI(t *testing.T) *httptest.Server {
	t.Helper()
	api := httptest.NewServer(New(Config{}).Handler())
	t.Cleanup(api.Close)
	return api
}

const bash = `"tools":[{"name":"Bash"}]`

// body is a request that says something.
func body(say string, more ...string) string {
	raw, _ := json.Marshal(say)
	return `{"model":"claude-x","max_tokens":10,"messages":[{"role":"user","content":` + string(raw) + `}],` +
		strings.Join(append(more, bash), ",") + `}`
}

// sse is one event of a stream.
type sse struct {
	name string
	data struct {
		Type    string `json:"type"`
		Index   int    `json:"index"`
		Message struct {
			ID         string          `json:"id"`
			Content    []block         `json:"content"`
			StopReason *string         `json:"stop_reason"`
			Usage      json.RawMessage `json:"usage"`
		} `json:"message"`
		Block block `json:"content_block"`
		Delta struct {
			Type       string `json:"type"`
			Text       string `json:"text"`
			JSON       string `json:"partial_json"`
			StopReason string `json:"stop_reason"`
		} `json:"delta"`
		Usage usage `json:"usage"`
	}
}

// events reads a stream as a client of server-sent events does.
func events(t *testing.T, r io.Reader) []sse {
	t.Helper()
	var out []sse
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		name, ok := strings.CutPrefix(lines.Text(), "event: ")
		if !ok || !lines.Scan() {
			t.Fatalf("line = %q, want an event", lines.Text())
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		e := sse{name: name}
		if !ok || json.Unmarshal([]byte(data), &e.data) != nil || e.data.Type != name {
			t.Fatalf("line = %q, want the data of %s", lines.Text(), name)
		}
		if !lines.Scan() || lines.Text() != "" {
			t.Fatalf("line = %q, want an empty one", lines.Text())
		}
		out = append(out, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStreaming(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, say string) []sse {
		t.Helper()
		res := ask(t, newAPI(t), "/v1/messages?beta=true", body(say, `"stream":true`), "X-Api-Key", Key)
		if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || kind != "text/event-stream" {
			t.Fatalf("status %d, %s, want a stream", res.StatusCode, kind)
		}
		return events(t, res.Body)
	}
	kinds := func(all []sse) []string {
		var out []string
		for _, e := range all {
			if len(out) == 0 || out[len(out)-1] != e.name || e.name != "content_block_delta" {
				out = append(out, e.name)
			}
		}
		return out
	}
	t.Run("a text comes in pieces between its start and its end", func(t *testing.T) {
		t.Parallel()
		all := read(t, "remember the number 5")
		want := []string{"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"}
		if got := kinds(all); !slices.Equal(got, want) {
			t.Errorf("events = %v, want %v", got, want)
		}
		start, text, deltas := all[0].data.Message, "", 0
		if start.ID == "" || len(start.Content) != 0 || start.StopReason != nil {
			t.Errorf("message_start = %+v, want an id and nothing yet", start)
		}
		for _, e := range all {
			if e.name == "content_block_delta" && e.data.Delta.Type == "text_delta" {
				text += e.data.Delta.Text
				deltas++
			}
			if e.name == "message_delta" && (e.data.Delta.StopReason != "end_turn" || e.data.Usage.Output < 2) {
				t.Errorf("message_delta = %+v, want end_turn and the usage", e.data)
			}
		}
		if text != "I will remember the number 5." || deltas < 3 {
			t.Errorf("text = %q in %d pieces", text, deltas)
		}
	})
	t.Run("a tool's input comes as pieces of JSON after the text", func(t *testing.T) {
		t.Parallel()
		all := read(t, "take 3 seconds")
		input, stop := "", ""
		for _, e := range all {
			second := e.name == "content_block_start" && e.data.Index == 1
			if second && (e.data.Block.Type != "tool_use" || e.data.Block.Name != "Bash" || e.data.Block.ID == "") {
				t.Errorf("block 1 = %+v, want a use of Bash", e.data.Block)
			}
			if e.data.Delta.Type == "input_json_delta" {
				input += e.data.Delta.JSON
			}
			if e.name == "message_delta" {
				stop = e.data.Delta.StopReason
			}
		}
		var in struct {
			Command string `json:"command"`
			Timeout int    `json:"timeout"`
		}
		if err := json.Unmarshal([]byte(input), &in); err != nil || in.Command != "sleep 3" || in.Timeout < 3000 || stop != "tool_use" {
			t.Errorf("input = %s, %v, stop_reason %q, want sleep 3 and tool_use", input, err, stop)
		}
	})
	t.Run("a very long text of many-byte characters is cut between characters", func(t *testing.T) {
		t.Parallel()
		const long = 70000
		text, deltas := "", 0
		for _, e := range read(t, "say: "+strings.Repeat("字", long)) {
			if e.data.Delta.Type == "text_delta" {
				text += e.data.Delta.Text
				deltas++
			}
		}
		if text != strings.Repeat("字", long) || deltas < 3 {
			t.Errorf("%d bytes in %d pieces, want %d characters unharmed", len(text), deltas, long)
		}
	})
	t.Run("without stream the same message comes whole", func(t *testing.T) {
		t.Parallel()
		res := ask(t, newAPI(t), "/v1/messages", body("remember the number 5"), "Authorization", "Bearer "+Key)
		var m apiReply
		err := json.NewDecoder(res.Body).Decode(&m)
		b := (message{Content: m.Content}).blocks()
		if err != nil || len(b) != 1 || b[0].Text != "I will remember the number 5." || m.StopReason != "end_turn" {
			t.Errorf("message = %+v, %v", m, err)
		}
		if res.Header.Get("Request-Id") == "" {
			t.Error("the answer has no request id")
		}
	})
}

func TestErrors(t *testing.T) {
	t.Parallel()
	good, key := body("hello"), []string{"X-Api-Key", Key}
	for name, tt := range map[string]struct {
		path, body string
		header     []string
		status     int
		kind       string
		message    string
	}{
		"another key":           {"/v1/messages", good, []string{"X-Api-Key", "sk-ant-other"}, 401, "authentication_error", "invalid x-api-key"},
		"another token":         {"/v1/messages", good, []string{"Authorization", "Bearer sk-ant-other"}, 401, "authentication_error", "invalid x-api-key"},
		"no key":                {"/v1/messages", good, nil, 401, "authentication_error", "invalid x-api-key"},
		"no key for a count":    {"/v1/messages/count_tokens", good, nil, 401, "authentication_error", "invalid x-api-key"},
		"a body that is broken": {"/v1/messages", "{", key, 400, "invalid_request_error", "invalid JSON"},
		"no model":              {"/v1/messages", `{"messages":[{"role":"user","content":""}]}`, key, 400, "invalid_request_error", "model"},
		"no message":            {"/v1/messages", `{"model":"claude-x","messages":[]}`, key, 400, "invalid_request_error", "at least one message"},
		"a body of 33 MiB":      {"/v1/messages", `{"model":"` + strings.Repeat("x", 33<<20), key, 413, "request_too_large", "maximum size"},
		"a path that is not there": {
			"/v1/tomorrow", good, key, 404, "not_found_error", "/v1/tomorrow",
		},
		"a use of a tool without its result": {
			"/v1/messages", `{"model":"claude-x","messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_7"}]},` +
				`{"role":"user","content":"y"}]}`, key, 400, "invalid_request_error", "toolu_7",
		},
		"what was told to fail": {"/v1/messages", body("fail with 3"), key, 400, "invalid_request_error", "exit 3"},
	} {
		t.Run(name+" is refused in the API's form", func(t *testing.T) {
			t.Parallel()
			res := ask(t, newAPI(t), tt.path, tt.body, tt.header...)
			var e struct {
				Type  string `json:"type"`
				Error struct {
					Type    string `json:"type"`
					Message string `json:"message"`
				} `json:"error"`
				Request string `json:"request_id"`
			}
			if err := json.NewDecoder(res.Body).Decode(&e); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.status || e.Type != "error" || e.Error.Type != tt.kind || !strings.Contains(e.Error.Message, tt.message) {
				t.Errorf("%d %+v, want %d %s %q", res.StatusCode, e, tt.status, tt.kind, tt.message)
			}
			if e.Request == "" || e.Request != res.Header.Get("Request-Id") {
				t.Errorf("request_id = %q, in the header %q, want the same", e.Request, res.Header.Get("Request-Id"))
			}
		})
	}
	t.Run("a foreign Host is refused", func(t *testing.T) {
		t.Parallel()
		req := httptest.NewRequest(http.MethodPost, "http://evil.example/v1/messages", strings.NewReader(good))
		req.Header.Set("X-Api-Key", Key)
		w := httptest.NewRecorder()
		New(Config{}).Handler().ServeHTTP(w, req)
		if w.Code != http.StatusForbidden {
			t.Errorf("status %d, want 403", w.Code)
		}
	})
	t.Run("what was asked can be looked up, refusals too", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		ask(t, api, "/v1/messages", good)
		ask(t, api, "/v1/messages", body("list files"), "X-Api-Key", Key)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL+"/local/log", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		var seen []Seen
		if err := json.NewDecoder(res.Body).Decode(&seen); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 2 || seen[0].Status != 401 || seen[0].Prompt != "" ||
			seen[1].Status != 200 || seen[1].Prompt != "list files" {
			t.Errorf("seen = %+v", seen)
		}
	})
}

// TestModels: the models, for whoever has a credential.
func TestModels(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	for _, tt := range []struct {
		path, name, value string
		status            int
		holds             string
	}{
		{"/v1/models?limit=1", "X-Api-Key", Key, 200, `"has_more":false`},
		{"/v1/models", "Authorization", "Bearer " + Key, 200, `"type":"model"`},
		{"/v1/models/claude-x", "X-Api-Key", Key, 200, `"id":"claude-x"`},
		{"/v1/models/gpt-1", "X-Api-Key", Key, 404, "not_found_error"},
		{"/v1/models", "X-Api-Key", "sk-ant-other", 401, "authentication_error"},
		{"/v1/models/claude-x", "X-Api-Key", "", 401, "invalid x-api-key"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(tt.name, tt.value)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tt.status || !strings.Contains(string(raw), tt.holds) {
			t.Errorf("GET %s = %d %s, want %d with %s", tt.path, res.StatusCode, raw, tt.status, tt.holds)
		}
	}
}
