package runner

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorded reads the output lines of a recording of the real Claude Code; those of a whole exchange are unwrapped.
func recorded(t *testing.T, name string) [][]byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for line := range bytes.Lines(raw) {
		var wire struct {
			Dir string          `json:"dir"`
			Msg json.RawMessage `json:"msg"`
		}
		switch {
		case json.Unmarshal(line, &wire) != nil || wire.Dir == "":
			out = append(out, line)
		case wire.Dir == "stdout":
			out = append(out, wire.Msg)
		}
	}
	return out
}

func TestStream(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/stream-json/*.ndjson")
	if err != nil || len(names) < 35 {
		t.Fatalf("%d recordings, %v: want them all", len(names), err)
	}
	for _, name := range names {
		t.Run("reads "+filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			s := stream{workspace: "/data/workspace"}
			var result *wireEvent // the first one, read independently
			retries := 0
			for _, line := range recorded(t, name) {
				var e wireEvent
				if json.Unmarshal(line, &e) == nil && e.Type == "result" && result == nil {
					result = &e
				}
				for _, ev := range s.line(line) {
					if ev.Kind == KindRetry {
						retries++
					}
					if ev.Kind == "" {
						t.Errorf("an event without a kind: %+v", ev)
					}
				}
			}
			if (result != nil) != s.sawResult {
				t.Fatalf("result seen = %v, want %v", s.sawResult, result != nil)
			}
			if result != nil && (s.isError != result.IsError || s.answer != result.Result) {
				t.Errorf("result = %v %q, want %v %q", s.isError, s.answer, result.IsError, result.Result)
			}
			base := filepath.Base(name)
			if strings.HasPrefix(base, "tasks") && len(s.todos) == 0 {
				t.Error("the task list was not seen")
			}
			if strings.Contains(base, "529") && retries == 0 {
				t.Error("no retry was told")
			}
			if base == "error-401.ndjson" && s.apiError != "authentication_failed" {
				t.Errorf("the API's error = %q, want authentication_failed", s.apiError)
			}
		})
	}
	t.Run("counts tokens over all models, steps and tools, a later result's included", func(t *testing.T) {
		t.Parallel()
		for name, want := range map[string]struct {
			usage Usage
			tools []ToolUse
		}{
			"tools-read-edit.ndjson": {Usage{Input: 36, Output: 74, CacheRead: 57452, CacheWrite: 0, Steps: 3}, []ToolUse{{"Edit", 1}, {"Read", 1}}},
		} {
			s := stream{}
			for _, line := range recorded(t, filepath.Join("testdata", "stream-json", name)) {
				s.line(line)
			}
			if s.usage == nil || *s.usage != want.usage || !slices.Equal(s.toolsUsed(), want.tools) {
				t.Errorf("%s: usage = %+v, tools = %+v, want %+v", name, s.usage, s.toolsUsed(), want)
			}
		}
		s := stream{}
		s.line([]byte(`{"type":"result","num_turns":2,"modelUsage":{"a":{"inputTokens":1,"outputTokens":2},"b":{"inputTokens":10,"cacheReadInputTokens":3,"cacheCreationInputTokens":4}}}`))
		s.line([]byte(`{"type":"result","num_turns":1,"modelUsage":{"a":{"inputTokens":5,"outputTokens":7}}}`))
		if want := (Usage{Input: 5, Output: 7, Steps: 3}); *s.usage != want {
			t.Errorf("usage = %+v, want %+v: tokens of the process, steps of each", *s.usage, want)
		}
	})
	t.Run("an error that calls itself a success is an error", func(t *testing.T) {
		t.Parallel()
		s := stream{}
		s.line([]byte(`{"type":"result","subtype":"success","is_error":true,"result":"API Error"}`))
		if !s.isError {
			t.Error("isError = false, want true")
		}
	})
	t.Run("what it does not know tells nothing", func(t *testing.T) {
		t.Parallel()
		s := stream{}
		for _, line := range []string{"", "no json", `{"type":"tomorrow"}`, `{"type":"assistant","message":7}`, `[]`, `{"type":"system","subtype":"new"}`} {
			if got := s.line([]byte(line)); len(got) != 0 {
				t.Errorf("line(%s) = %v, want nothing", line, got)
			}
		}
	})
	t.Run("a file below the workspace is named relative to it", func(t *testing.T) {
		t.Parallel()
		s := stream{workspace: "/data/workspace"}
		got := s.line([]byte(`{"type":"assistant","message":{"content":[{"type":"tool_use","name":"Read","input":{"file_path":"/data/workspace/a/b.go"}}]}}`))
		if len(got) != 1 || got[0].Tool != "Read" || got[0].Text != "a/b.go" {
			t.Errorf("event = %+v, want Read a/b.go", got)
		}
	})
}
