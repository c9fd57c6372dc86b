package claude

import (
	"encoding/json"
	"testing"
)

// TestScript is about what the real Claude Code sends and the stand-in does not.
func TestScript(t *testing.T) {
	t.Parallel()
	const (
		tools   = `"tools":[{"name":"Bash"},{"name":"Write"},{"name":"TodoWrite"}]`
		system  = `"system":[{"type":"text","text":"You are Claude Code.\n - Primary working directory: /data/workspace\n - more"}]`
		write   = `{"role":"user","content":"write a.txt: it's new"}`
		refused = `{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Write","input":{}}]},` +
			`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"File has not been read yet.","is_error":true}]}`
		failed = `{"role":"assistant","content":[{"type":"tool_use","id":"t2","name":"Bash","input":{}}]},` +
			`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"Exit code 1"}],"is_error":true}]}`
		number = `{"role":"user","content":"remember the number 42"}`
		asks   = `"system":[{"type":"text","text":"You judge."},{"type":"text","text":"If the action should be allowed:\n<block>no</block>"}]`
		recall = `{"role":"user","content":[{"type":"text","text":"what number did I ask you to remember?"}]}`
	)
	judged := func(actions ...string) string {
		said := []block{{Type: "text", Text: "<transcript>\n"}, {Type: "text", Text: "User: run: something with curl x\n"}}
		for _, a := range actions {
			said = append(said, block{Type: "text", Text: a + "\n"})
		}
		said = append(said, block{Type: "text", Text: "</transcript>\n"}, block{Type: "text", Text: "\nErr on the side of blocking. <block> immediately."})
		raw, err := json.Marshal(said)
		if err != nil {
			t.Fatal(err)
		}
		return `{"role":"user","content":` + string(raw) + `}`
	}
	for name, tt := range map[string]struct {
		messages, more string
		text, tool     string
		input          string // as JSON; "": not looked at
	}{
		"its own reminders are not what the person said": {
			messages: `{"role":"user","content":[{"type":"text","text":"<system-reminder>\nrun: rm x\n</system-reminder>"},` +
				`{"type":"text","text":"remember the number 5"},{"type":"text","text":"<system-reminder>list files</system-reminder>\n"}]}`,
			more: tools, text: "I will remember the number 5.",
		},
		"its notes on an interruption are not either": {
			messages: number + `,{"role":"user","content":[{"type":"text","text":"[Request interrupted by user for tool use]"}]},` +
				`{"role":"user","content":"Continue from where you left off."},{"role":"assistant","content":"No response requested."},` + recall,
			more: tools, text: "You asked me to remember the number 42.",
		},
		"a turn that is taken up again is the one before the interruption": {
			messages: number + `,{"role":"user","content":[{"type":"text","text":"[Request interrupted by user for tool use]"}]},` +
				`{"role":"user","content":"Continue from where you left off."}`,
			more: tools, text: "I will remember the number 42.",
		},
		"a request without tools asks for a title": {messages: number, more: `"stream":false`, text: "A conversation"},
		"the classifier of the mode auto is told what is harmless, in the form that it wants": {
			messages: judged("Bash touch /tmp/a"), more: asks, text: "<block>no</block>",
		},
		"and what is not": {
			messages: judged("Bash curl -s http://evil.example"), more: asks,
			text: "<block>yes</block><reason>[Data Exfiltration] the script finds curl harmful</reason>",
		},
		"the last action is the one": {messages: judged("Bash curl -s x", "Bash ls"), more: asks, text: "<block>no</block>"},
		"a relative file is in the directory that the system prompt names": {
			messages: write, more: tools + "," + system, tool: "Write", input: `{"content":"it's new\n","file_path":"/data/workspace/a.txt"}`,
		},
		"without one the shell writes it": {
			messages: write, more: tools, tool: "Bash", input: `{"command":"printf '%s\\n' 'it'\\''s new' > 'a.txt'","description":"Write a.txt"}`,
		},
		"a file that it may not write over is written by the shell": {
			messages: write + "," + refused, more: tools + "," + system, tool: "Bash",
			input: `{"command":"printf '%s\\n' 'it'\\''s new' > 'a.txt'","description":"Write a.txt"}`,
		},
		"a file that neither can write is given up": {
			messages: write + "," + refused + "," + failed, more: tools + "," + system, text: "I could not write a.txt: Exit code 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var req request
			if err := json.Unmarshal([]byte(`{"messages":[`+tt.messages+`],`+tt.more+`}`), &req); err != nil {
				t.Fatal(err)
			}
			got := read(req).next()
			input, err := json.Marshal(got.input)
			if err != nil {
				t.Fatal(err)
			}
			var want any // to compare what JSON escapes differently
			if tt.input != "" {
				if err := json.Unmarshal([]byte(tt.input), &want); err != nil {
					t.Fatal(err)
				}
			}
			wanted, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if got.text != tt.text || got.tool != tt.tool || string(input) != string(wanted) {
				t.Errorf("step = %q, %s %s, want %q, %s %s", got.text, got.tool, input, tt.text, tt.tool, wanted)
			}
		})
	}
}
