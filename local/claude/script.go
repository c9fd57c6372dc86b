package claude

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// message is a message of the conversation. Content is a text or a list of blocks.
type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type block struct {
	Type      string          `json:"type"`
	Text      string          `json:"text,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
	ToolUseID string          `json:"tool_use_id,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"`
	IsError   bool            `json:"is_error,omitempty"`
	Source    *source         `json:"source,omitempty"` // of an image
}

func (m message) blocks() []block {
	var text string
	if json.Unmarshal(m.Content, &text) == nil {
		return []block{{Type: "text", Text: text}}
	}
	var out []block
	_ = json.Unmarshal(m.Content, &out) // anything else says nothing to the script
	return out
}

// talk is what of a conversation matters to the script.
type talk struct {
	prompt  string   // of the turn: what the person said last
	before  []string // what people said before
	results []result // of the tools used in this turn
	tools   []string
	images  []Image // shown with what the person said last
	cwd     string  // "": not known
	action  string  // that a classifier asks about; "": it is no such request
}

type result struct {
	text  string
	error bool
}

// step is what comes next: a text, a tool, both, or a refusal.
type step struct {
	text   string
	tool   string
	input  map[string]any
	refuse string
	limit  time.Duration // the request reaches the subscription's limit, which resets after so long; the text is for afterwards
}

var workingDir = regexp.MustCompile(`(?i)working directory:\s*(/\S+)`)

// reminders are Claude Code's own additions to what a person said.
var reminders = regexp.MustCompile(`(?s)<system-reminder>.*?</system-reminder>`)

func read(req request) talk {
	t := talk{action: actionIn(req)}
	for _, tool := range req.Tools {
		t.tools = append(t.tools, tool.Name)
	}
	if m := workingDir.FindStringSubmatch(strings.ReplaceAll(string(req.System), `\n`, "\n")); m != nil {
		t.cwd = strings.TrimRight(m[1], `",`)
	}
	for _, m := range req.Messages {
		if m.Role != "user" {
			continue
		}
		said := ""
		for _, b := range m.blocks() {
			switch b.Type {
			case "text":
				if text := strings.TrimSpace(reminders.ReplaceAllString(b.Text, "")); text != "" {
					said = text
				}
			case "tool_result":
				t.results = append(t.results, result{text: flat(b.Content), error: b.IsError})
			}
		}
		if said != "" && !strings.HasPrefix(said, "[Request interrupted by user") && said != "Continue from where you left off." {
			if t.prompt != "" {
				t.before = append(t.before, t.prompt)
			}
			t.prompt, t.results, t.images = said, nil, shown(m.Content)
		}
	}
	return t
}

// flat is the text of a tool's result.
func flat(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var list []block
	_ = json.Unmarshal(raw, &list)
	var parts []string
	for _, b := range list {
		parts = append(parts, b.Text)
	}
	return strings.Join(parts, "\n")
}

// phrase is something that the script understands. The whole of what a person said must match.
type phrase struct {
	pattern *regexp.Regexp
	next    func(t talk, m []string) step
}

func phrases() []phrase {
	p := func(pattern string, next func(talk, []string) step) phrase {
		return phrase{regexp.MustCompile(`(?is)^` + pattern + `$`), next}
	}
	return []phrase{
		p(`remember the number (\d+)\.?`, func(_ talk, m []string) step {
			return step{text: "I will remember the number " + m[1] + "."}
		}),
		p(`what number did i ask you to remember\??`, recall),
		p(`run: (.+)`, func(t talk, m []string) step { return t.bash(m[1], 0) }),
		p(`write (\S+): (.*)`, write),
		p(`read (\S+)`, func(t talk, m []string) step { return t.bash("cat -- "+quote(m[1]), 0) }),
		p(`list files`, func(t talk, _ []string) step { return t.bash("ls -A", 0) }),
		p(`take (\d+) seconds?`, take),
		p(`fail with (\d+)`, func(_ talk, m []string) step {
			return step{refuse: "this request was told to fail with exit " + m[1]}
		}),
		p(`be limited for (\d+) seconds?(?:, after (.+))?`, limit),
		p(`todo: (.+)`, todo),
		p(`use (\S+) (\{.*\})`, use),
		p(`say: (.+)`, func(_ talk, m []string) step { return step{text: m[1]} }),
		p(`big (\d+)`, func(_ talk, m []string) step {
			n, _ := strconv.Atoi(m[1])
			return step{text: strings.Repeat("x", min(n, 8<<20))}
		}),
		p(`what do you see\??`, sees),
		p(`garble`, func(t talk, _ []string) step { return t.bash(`printf 'a\377\376b\n'`, 0) }),
		p(`crash`, func(t talk, _ []string) step { return t.bash("kill -9 $PPID", 0) }),
	}
}

// limit reaches the limit of the subscription, at once or after a command.
func limit(t talk, m []string) step {
	if m[2] != "" && len(t.results) == 0 {
		return t.bash(m[2], 0)
	}
	n, _ := strconv.Atoi(m[1])
	return step{text: "The limit has reset.", limit: time.Duration(min(n, 3600)) * time.Second}
}

const help = "I am a script, not Claude. I understand: “remember the number N”, “what number did I ask you to remember?”, " +
	"“run: COMMAND”, “write FILE: TEXT”, “read FILE”, “list files”, “take N seconds”, “fail with N”, “todo: A; B; C”."

// next is the script.
func (t talk) next() step {
	if t.action != "" {
		return step{text: judge(t.action)}
	}
	if len(t.tools) == 0 {
		return step{text: "A conversation"} // Claude Code asks for a title
	}
	for _, said := range []string{t.prompt, lastParagraph(t.prompt), lastLine(t.prompt)} {
		for _, p := range phrases() {
			if m := p.pattern.FindStringSubmatch(strings.TrimSpace(said)); m != nil {
				return p.next(t, m)
			}
		}
	}
	return step{text: help}
}

func lastParagraph(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndex("\n\n"+s, "\n\n"):]
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

var told = regexp.MustCompile(`(?i)remember the number (\d+)`)

func recall(t talk, _ []string) step {
	for _, said := range slices.Backward(append(slices.Clip(t.before), t.prompt)) { // with what stands before the words of a prompt
		if all := told.FindAllStringSubmatch(said, -1); len(all) > 0 {
			return step{text: "You asked me to remember the number " + all[len(all)-1][1] + "."}
		}
	}
	return step{text: "You have not told me a number in this conversation."}
}

// bash runs a command, and then tells its output and its exit code.
func (t talk) bash(command string, timeoutMS int) step {
	if len(t.results) > 0 {
		return step{text: tellResult(t.results[len(t.results)-1])}
	}
	in := map[string]any{"command": command, "description": "Run what was asked for"}
	if timeoutMS > 0 {
		in["timeout"] = timeoutMS
	}
	return step{tool: "Bash", input: in}
}

var exitLine = regexp.MustCompile(`(?i)^(?:Error: )?exit code (\d+)\n?`)

// tellResult words a command's result: Claude Code puts "Exit code N" before the output of one that failed.
func tellResult(r result) string {
	code, text := "0", r.text
	if m := exitLine.FindStringSubmatch(text); m != nil {
		code, text = m[1], text[len(m[0]):]
	} else if r.error {
		code = "1"
	}
	text = strings.TrimRight(text, "\n")
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fmt.Sprintf("%s\n%s\n%s\nThe command ended with exit code %s.", fence, text, fence, code)
}

// use uses any tool, such as an MCP server's, and then tells its result.
func use(t talk, m []string) step {
	if n := len(t.results); n > 0 {
		return step{text: "The tool says: " + t.results[n-1].text}
	}
	var in map[string]any
	if json.Unmarshal([]byte(m[2]), &in) != nil || !slices.Contains(t.tools, m[1]) {
		return step{text: "I have no tool " + m[1] + " for that."}
	}
	return step{tool: m[1], input: in}
}

// write makes a file, by the shell where the tool for it is refused: Claude Code writes over no file that it has not read.
func write(t talk, m []string) step {
	if n := len(t.results); n > 0 && !t.results[n-1].error {
		return step{text: "I wrote " + m[1] + "."}
	} else if n > 1 {
		return step{text: "I could not write " + m[1] + ": " + t.results[n-1].text}
	}
	if t.cwd == "" && !filepath.IsAbs(m[1]) || len(t.results) > 0 {
		command := "printf '%s\\n' " + quote(m[2]) + " > " + quote(m[1])
		return step{tool: "Bash", input: map[string]any{"command": command, "description": "Write " + m[1]}}
	}
	path := m[1]
	if !filepath.IsAbs(path) {
		path = filepath.Join(t.cwd, path)
	}
	return step{tool: "Write", input: map[string]any{"file_path": path, "content": m[2] + "\n"}}
}

func take(t talk, m []string) step {
	n, _ := strconv.Atoi(m[1])
	if len(t.results) > 0 {
		return step{text: fmt.Sprintf("That took %d seconds.", n)}
	}
	s := t.bash(fmt.Sprintf("sleep %d", n), (n+30)*1000)
	s.text = fmt.Sprintf("Taking %d seconds.", n)
	return s
}

// todo goes through a list, an item a step.
func todo(t talk, m []string) step {
	var items []string
	for item := range strings.SplitSeq(m[1], ";") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	at := len(t.results)
	if at > len(items) || !slices.Contains(t.tools, "TodoWrite") {
		return step{text: "Done:\n\n- [x] " + strings.Join(items, "\n- [x] ")}
	}
	list := make([]map[string]any, len(items))
	for i, item := range items {
		state := "pending"
		if i < at {
			state = "completed"
		} else if i == at {
			state = "in_progress"
		}
		list[i] = map[string]any{"content": item, "status": state, "activeForm": item}
	}
	return step{tool: "TodoWrite", input: map[string]any{"todos": list}}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
