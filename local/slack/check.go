package slack

import (
	"fmt"
	"regexp"
	"unicode/utf8"
)

// problem is why Slack would refuse a message: its error code, and what is wrong where.
type problem struct{ code, text string }

// limits of Block Kit, in characters or pieces, as Slack documents them.
const (
	maxBlocks, maxModalBlocks = 50, 100
	maxSection                = 3000
	maxHeader                 = 150
	maxContextElements        = 10
	maxActions                = 25
	maxButtonText             = 75
	maxButtonValue            = 2000
	maxID                     = 255
	maxMarkdown               = 12000
	maxAllText                = 13200 // of all blocks of a message, measured
	maxTableRows              = 100
	maxTableColumns           = 20
	maxExpanded               = 50 // blocks that Slack makes of markdown count as well
)

// checker collects the problems of a message.
type checker struct {
	problems []problem
	actions  map[string]bool
	blockIDs map[string]bool
	text     int
	expanded int
}

func (c *checker) bad(format string, args ...any) {
	c.problems = append(c.problems, problem{"invalid_blocks", fmt.Sprintf(format, args...)})
}

// checkBlocks tells what Slack would refuse in the blocks of a message or of a modal.
func checkBlocks(blocks []any, modal bool) []problem {
	c := &checker{actions: map[string]bool{}, blockIDs: map[string]bool{}}
	most := maxBlocks
	if modal {
		most = maxModalBlocks
	}
	if len(blocks) > most {
		c.bad("no more than %d items allowed [json-pointer:/blocks]", most)
	}
	for i, b := range blocks {
		where := fmt.Sprintf("/blocks/%d", i)
		m, ok := b.(map[string]any)
		if !ok {
			c.bad("must be an object [json-pointer:%s]", where)
			continue
		}
		c.block(m, where, modal)
	}
	if c.text > maxAllText {
		c.problems = append(c.problems, problem{"msg_blocks_too_long", fmt.Sprintf("the blocks hold %d characters", c.text)})
	}
	if c.expanded > maxExpanded {
		c.bad("no more than %d items allowed once markdown is expanded: %d", maxExpanded, c.expanded)
	}
	return c.problems
}

func (c *checker) block(b map[string]any, where string, modal bool) {
	kind, _ := b["type"].(string)
	c.expanded++
	if id, ok := b["block_id"].(string); ok && id != "" {
		if c.blockIDs[id] || utf8.RuneCountInString(id) > maxID {
			c.bad("block_id %q is taken or too long [json-pointer:%s]", id, where)
		}
		c.blockIDs[id] = true
	}
	switch kind {
	case "section":
		c.section(b, where)
	case "header":
		c.object(b["text"], where+"/text", maxHeader, "plain_text")
	case "divider":
	case "context":
		elements, _ := b["elements"].([]any)
		c.between(len(elements), 1, maxContextElements, where+"/elements")
		for i, e := range elements {
			at := fmt.Sprintf("%s/elements/%d", where, i)
			if m, _ := e.(map[string]any); m["type"] == "image" {
				c.image(m, at)
			} else {
				c.object(e, at, maxSection, "mrkdwn", "plain_text")
			}
		}
	case "actions":
		elements, _ := b["elements"].([]any)
		c.between(len(elements), 1, maxActions, where+"/elements")
		for i, e := range elements {
			c.element(e, fmt.Sprintf("%s/elements/%d", where, i))
		}
	case "markdown":
		text, _ := b["text"].(string)
		c.length(text, 1, maxMarkdown, where+"/text")
		if modal {
			c.bad("markdown is for messages only [json-pointer:%s]", where)
		}
		c.expanded += expands(text) - 1
	case "image":
		c.image(b, where)
	case "table":
		c.table(b, where)
	case "input":
		if !modal {
			c.bad("input is for modals only [json-pointer:%s]", where)
		}
		c.object(b["label"], where+"/label", 2000, "plain_text")
		c.element(b["element"], where+"/element")
	case "rich_text", "video", "file", "plan", "task_card", "context_actions", "container", "data_table":
	default:
		c.bad("unsupported type: %s [json-pointer:%s/type]", kind, where)
	}
}

func (c *checker) section(b map[string]any, where string) {
	fieldList, _ := b["fields"].([]any)
	if b["text"] == nil && len(fieldList) == 0 {
		c.bad("missing required field: text [json-pointer:%s]", where)
	}
	if b["text"] != nil {
		c.object(b["text"], where+"/text", maxSection, "mrkdwn", "plain_text")
	}
	if len(fieldList) > 10 {
		c.bad("no more than 10 items allowed [json-pointer:%s/fields]", where)
	}
	for i, f := range fieldList {
		c.object(f, fmt.Sprintf("%s/fields/%d", where, i), 2000, "mrkdwn", "plain_text")
	}
	if b["accessory"] != nil {
		c.element(b["accessory"], where+"/accessory")
	}
}

func (c *checker) image(b map[string]any, where string) {
	if b["image_url"] == nil && b["slack_file"] == nil {
		c.bad("missing required field: image_url [json-pointer:%s]", where)
	}
	alt, _ := b["alt_text"].(string)
	c.length(alt, 1, 2000, where+"/alt_text")
}

func (c *checker) table(b map[string]any, where string) {
	rows, _ := b["rows"].([]any)
	c.between(len(rows), 1, maxTableRows, where+"/rows")
	for i, r := range rows {
		cells, _ := r.([]any)
		c.between(len(cells), 1, maxTableColumns, fmt.Sprintf("%s/rows/%d", where, i))
	}
}

// object is a text object.
func (c *checker) object(v any, where string, most int, kinds ...string) {
	m, _ := v.(map[string]any)
	kind, _ := m["type"].(string)
	ok := false
	for _, k := range kinds {
		ok = ok || k == kind
	}
	if !ok {
		c.bad("must be a text object of type %v [json-pointer:%s]", kinds, where)
		return
	}
	text, _ := m["text"].(string)
	c.length(text, 1, most, where+"/text")
}

// element is something to click or to fill in.
func (c *checker) element(v any, where string) {
	m, _ := v.(map[string]any)
	kind, _ := m["type"].(string)
	id, _ := m["action_id"].(string)
	if kind == "" {
		c.bad("missing required field: type [json-pointer:%s]", where)
		return
	}
	if utf8.RuneCountInString(id) > maxID {
		c.bad("action_id is longer than %d [json-pointer:%s]", maxID, where)
	}
	// Slack wants action ids unique within a block; the block's place is in where.
	if id != "" {
		block := blockOf.FindString(where)
		if c.actions[block+" "+id] {
			c.bad("action_id %q already exists [json-pointer:%s]", id, where)
		}
		c.actions[block+" "+id] = true
	}
	if kind != "button" {
		return
	}
	c.object(m["text"], where+"/text", maxButtonText, "plain_text")
	value, _ := m["value"].(string)
	if utf8.RuneCountInString(value) > maxButtonValue {
		c.bad("value is longer than %d [json-pointer:%s]", maxButtonValue, where)
	}
	switch m["style"] {
	case nil, "primary", "danger":
	default:
		c.bad("style must be primary or danger [json-pointer:%s]", where)
	}
	if confirm, ok := m["confirm"].(map[string]any); ok {
		c.object(confirm["title"], where+"/confirm/title", 100, "plain_text")
		c.object(confirm["text"], where+"/confirm/text", 300, "plain_text", "mrkdwn")
		c.object(confirm["confirm"], where+"/confirm/confirm", 30, "plain_text")
		c.object(confirm["deny"], where+"/confirm/deny", 30, "plain_text")
	}
}

var blockOf = regexp.MustCompile(`^/blocks/\d+`)

func (c *checker) between(n, low, high int, where string) {
	if n < low || n > high {
		c.bad("must have %d to %d items, has %d [json-pointer:%s]", low, high, n, where)
	}
}

func (c *checker) length(text string, low, high int, where string) {
	n := utf8.RuneCountInString(text)
	c.text += n
	if n < low || n > high {
		c.bad("must be %d to %d characters, is %d [json-pointer:%s]", low, high, n, where)
	}
}

// newBlock begins a heading, a list, a fence or a paragraph after a blank line.
var newBlock = regexp.MustCompile("(?m)^(#{1,6} |```|~~~)|\n\n+")

// fenced is a code block, which is one block whatever is in it.
var fenced = regexp.MustCompile("(?s)```.*?```")

// expands estimates how many blocks Slack makes of markdown.
func expands(text string) int {
	return 1 + len(newBlock.FindAllStringIndex(fenced.ReplaceAllString(text, "```"), -1))
}

var eventType = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// metadataFits tells whether Slack would keep metadata; what does not fit it silently ignores.
func metadataFits(m map[string]any) bool {
	kind, _ := m["event_type"].(string)
	payload, ok := m["event_payload"].(map[string]any)
	return eventType.MatchString(kind) && ok && len(fmt.Sprint(payload)) < 4000
}
