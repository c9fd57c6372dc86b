package slack

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// problem is why Slack would refuse a message: its error code, and what is wrong where.
type problem struct{ code, text string }

// surface is where blocks are shown.
type surface int

const (
	message surface = iota
	modal
)

// limits of Block Kit, in characters or pieces.
const (
	maxBlocks, maxModalBlocks = 50, 100
	maxSection                = 3000
	maxFields, maxField       = 10, 2000
	maxHeader                 = 150
	maxContextElements        = 10
	maxActions                = 25
	maxContextActions         = 5
	maxButtonText             = 75
	maxButtonValue            = 2000
	maxURL                    = 3000
	maxID                     = 255
	maxLabel, maxAlt          = 2000, 2000
	maxOptions, maxOption     = 100, 75
	maxOptionValue            = 150
	maxBoxes                  = 10 // of checkboxes and radio buttons
	maxInput, maxPlaceholder  = 3000, 150
	maxMarkdown               = 12000
	maxAllText                = 13200 // of all blocks of a message, measured
	maxTableRows              = 100
	maxTableColumns           = 20
	maxTasks                  = 50
	maxExpanded               = 50 // blocks that Slack makes of markdown count as well
	maxViewTitle              = 24
	maxPrivateMetadata        = 3000
	maxMetadata               = 4000 // bytes; measured by others
)

// checker collects the problems of a message.
type checker struct {
	on       surface
	problems []problem
	actions  map[string]bool
	blockIDs map[string]bool
	text     int
	expanded int
	plans    int
	tasks    int
}

func (c *checker) bad(where, format string, args ...any) {
	c.problems = append(c.problems, problem{"invalid_blocks", fmt.Sprintf(format, args...) + " [json-pointer:" + where + "]"})
}

// checkBlocks tells what Slack would refuse in the blocks of a message or of a modal.
func checkBlocks(blocks []any, on surface) []problem {
	c := &checker{on: on, actions: map[string]bool{}, blockIDs: map[string]bool{}}
	most := maxBlocks
	if on == modal {
		most = maxModalBlocks
	}
	if len(blocks) > most {
		c.bad("/blocks", "no more than %d items allowed", most)
	}
	for i, b := range blocks {
		where := fmt.Sprintf("/blocks/%d", i)
		m, ok := b.(map[string]any)
		if !ok {
			c.bad(where, "must be an object")
			continue
		}
		c.block(m, where)
	}
	if on == modal {
		return c.problems
	}
	if c.plans > 0 && c.tasks > 0 {
		c.bad("/blocks", "plan and task_card are not allowed in the same message")
	}
	if c.text > maxAllText {
		c.problems = append(c.problems, problem{"msg_blocks_too_long", fmt.Sprintf("the blocks hold %d characters", c.text)})
	}
	if len(blocks) <= most && c.expanded > maxExpanded {
		c.bad("/blocks", "no more than %d items allowed: markdown makes %d of them", maxExpanded, c.expanded)
	}
	return c.problems
}

// checkView tells what Slack would refuse in a modal.
func checkView(v fields) []problem {
	c := &checker{on: modal}
	if v["type"] != "modal" {
		c.bad("/view/type", "must be modal")
	}
	c.object(v["title"], "/view/title", maxViewTitle, "plain_text")
	for _, name := range []string{"submit", "close"} {
		if v[name] != nil {
			c.object(v[name], "/view/"+name, maxViewTitle, "plain_text")
		}
	}
	for name, most := range map[string]int{"private_metadata": maxPrivateMetadata, "callback_id": maxID, "external_id": maxID} {
		text, _ := v[name].(string)
		c.length(text, 0, most, "/view/"+name)
	}
	blocks, ok := v["blocks"].([]any)
	if !ok {
		c.bad("/view", "missing required field: blocks")
	}
	if v["submit"] == nil && slices.ContainsFunc(blocks, func(b any) bool { m, _ := b.(map[string]any); return m["type"] == "input" }) {
		c.bad("/view", "missing required field: submit, since there is an input block")
	}
	return append(c.problems, checkBlocks(blocks, modal)...)
}

func (c *checker) block(b map[string]any, where string) {
	kind, _ := b["type"].(string)
	c.expanded++
	if id, ok := b["block_id"].(string); ok && id != "" {
		if c.blockIDs[id] {
			c.bad(where+"/block_id", "block_id %q already exists", id)
		}
		c.blockIDs[id] = true
		c.longest(id, maxID, where+"/block_id")
	}
	if c.on == modal && slices.Contains([]string{"markdown", "plan", "task_card", "context_actions", "table"}, kind) {
		c.bad(where+"/type", "unsupported type: %s", kind)
		return
	}
	switch kind {
	case "section":
		c.section(b, where)
	case "header":
		c.object(b["text"], where+"/text", maxHeader, "plain_text")
	case "divider":
	case "context":
		for i, e := range c.list(b, "elements", 1, maxContextElements, where) {
			at := fmt.Sprintf("%s/elements/%d", where, i)
			if m, _ := e.(map[string]any); m["type"] == "image" {
				c.image(m, at)
			} else {
				c.object(e, at, maxSection, "mrkdwn", "plain_text")
			}
		}
	case "actions":
		for i, e := range c.list(b, "elements", 1, maxActions, where) {
			c.element(e, fmt.Sprintf("%s/elements/%d", where, i), pressable())
		}
	case "context_actions":
		for i, e := range c.list(b, "elements", 1, maxContextActions, where) {
			c.element(e, fmt.Sprintf("%s/elements/%d", where, i), []string{"feedback_buttons", "icon_button"})
		}
	case "markdown":
		text, _ := b["text"].(string)
		c.length(text, 1, maxMarkdown, where+"/text")
		c.expanded += expands(text) - 1
	case "image":
		c.image(b, where)
	case "table":
		c.table(b, where)
	case "input":
		c.input(b, where)
	case "plan":
		c.plan(b, where)
	case "task_card":
		c.tasks++
		c.task(b, where)
	case "rich_text":
		c.list(b, "elements", 1, 1<<10, where)
	case "video", "file", "container", "data_table":
	default:
		c.bad(where+"/type", "unsupported type: %s", kind)
	}
}

func (c *checker) section(b map[string]any, where string) {
	if b["text"] == nil && b["fields"] == nil {
		c.bad(where, "missing required field: text")
	}
	if b["text"] != nil {
		c.object(b["text"], where+"/text", maxSection, "mrkdwn", "plain_text")
	}
	if b["fields"] != nil {
		for i, f := range c.list(b, "fields", 1, maxFields, where) {
			c.object(f, fmt.Sprintf("%s/fields/%d", where, i), maxField, "mrkdwn", "plain_text")
		}
	}
	if b["accessory"] == nil {
		return
	}
	if m, _ := b["accessory"].(map[string]any); m["type"] == "image" {
		c.image(m, where+"/accessory")
		return
	}
	c.element(b["accessory"], where+"/accessory", pressable())
}

func (c *checker) input(b map[string]any, where string) {
	if c.on == message {
		c.bad(where+"/type", "unsupported type: input")
		return
	}
	c.object(b["label"], where+"/label", maxLabel, "plain_text")
	if b["hint"] != nil {
		c.object(b["hint"], where+"/hint", maxLabel, "plain_text")
	}
	c.element(b["element"], where+"/element", fillable())
}

func (c *checker) image(b map[string]any, where string) {
	if b["image_url"] == nil && b["slack_file"] == nil {
		c.bad(where, "missing required field: image_url")
	}
	if link, _ := b["image_url"].(string); b["image_url"] != nil {
		c.longest(link, maxURL, where+"/image_url")
	}
	alt, ok := b["alt_text"].(string)
	if !ok {
		c.bad(where, "missing required field: alt_text")
		return
	}
	c.length(alt, 0, maxAlt, where+"/alt_text")
}

func (c *checker) table(b map[string]any, where string) {
	for i, r := range c.list(b, "rows", 1, maxTableRows, where) {
		row, _ := r.([]any)
		at := fmt.Sprintf("%s/rows/%d", where, i)
		if len(row) < 1 {
			c.bad(at, "no fewer than 1 items allowed")
		}
		if len(row) > maxTableColumns {
			c.bad(at, "no more than %d items allowed", maxTableColumns)
		}
	}
}

func (c *checker) plan(b map[string]any, where string) {
	c.plans++
	title, _ := b["title"].(string)
	c.length(title, 1, maxSection, where+"/title")
	if b["tasks"] == nil {
		return
	}
	seen := map[any]bool{}
	for i, t := range c.list(b, "tasks", 1, maxTasks, where) {
		at := fmt.Sprintf("%s/tasks/%d", where, i)
		m, _ := t.(map[string]any)
		c.task(m, at)
		if id := m["task_id"]; id != nil {
			if seen[id] {
				c.bad(at+"/task_id", "task_id %q already exists", id)
			}
			seen[id] = true
		}
	}
}

func (c *checker) task(b map[string]any, where string) {
	for _, name := range []string{"task_id", "title"} {
		if text, _ := b[name].(string); text == "" {
			c.bad(where, "missing required field: %s", name)
		}
	}
	status, _ := b["status"].(string)
	if b["status"] != nil && !slices.Contains([]string{"pending", "in_progress", "complete", "error"}, status) {
		c.bad(where+"/status", "must be a valid enum value")
	}
}

// list is a list of a block, of allowed length.
func (c *checker) list(b map[string]any, name string, low, high int, where string) []any {
	list, ok := b[name].([]any)
	if !ok {
		c.bad(where, "missing required field: %s", name)
		return nil
	}
	if len(list) < low {
		c.bad(where+"/"+name, "no fewer than %d items allowed", low)
	}
	if len(list) > high {
		c.bad(where+"/"+name, "no more than %d items allowed", high)
	}
	return list
}

// object is a text object.
func (c *checker) object(v any, where string, most int, kinds ...string) {
	m, ok := v.(map[string]any)
	if !ok {
		at := strings.LastIndexByte(where, '/')
		c.bad(where[:at], "missing required field: %s", where[at+1:])
		return
	}
	kind, _ := m["type"].(string)
	if !slices.Contains(kinds, kind) {
		c.bad(where+"/type", "must be one of: %s", strings.Join(kinds, ", "))
		return
	}
	text, ok := m["text"].(string)
	if !ok {
		c.bad(where, "missing required field: text")
		return
	}
	before := len(c.problems)
	c.length(text, 1, most, where+"/text")
	if len(c.problems) > before { // Slack says this of the object first
		c.problems = slices.Insert(c.problems, before, problem{"invalid_blocks", "failed to match all allowed schemas [json-pointer:" + where + "]"})
	}
}

// pressable are the elements of actions, and those beside the text of a section.
func pressable() []string {
	return strings.Fields(`button static_select external_select users_select conversations_select channels_select multi_static_select
		multi_external_select multi_users_select multi_conversations_select multi_channels_select overflow datepicker timepicker datetimepicker
		checkboxes radio_buttons workflow_button`)
}

// fillable are the elements of an input.
func fillable() []string {
	return append(strings.Fields(`plain_text_input rich_text_input email_text_input url_text_input number_input file_input`), pressable()[1:]...)
}

// blockOf is the place of a block in that of an element.
var blockOf = regexp.MustCompile(`^/blocks/\d+`)

// element is something to press or to fill in.
func (c *checker) element(v any, where string, kinds []string) {
	m, _ := v.(map[string]any)
	kind, _ := m["type"].(string)
	id, _ := m["action_id"].(string)
	if kind == "" {
		c.bad(where, "missing required field: type")
		return
	}
	if !slices.Contains(kinds, kind) {
		c.bad(where+"/type", "unsupported type: %s", kind)
		return
	}
	c.longest(id, maxID, where+"/action_id")
	if id != "" { // unique within a block
		key := blockOf.FindString(where) + " " + id
		if c.actions[key] {
			c.bad(where+"/action_id", "action_id %q already exists", id)
		}
		c.actions[key] = true
	}
	switch kind {
	case "button":
		c.button(m, where)
	case "static_select", "multi_static_select":
		if m["option_groups"] == nil {
			c.options(m, where, maxOptions)
		}
	case "checkboxes", "radio_buttons":
		c.options(m, where, maxBoxes)
	case "plain_text_input":
		c.textInput(m, where)
	case "number_input":
		if _, ok := m["is_decimal_allowed"].(bool); !ok {
			c.bad(where, "missing required field: is_decimal_allowed")
		}
		for _, name := range []string{"initial_value", "min_value", "max_value"} {
			if text, ok := m[name].(string); m[name] != nil && (!ok || !isNumber.MatchString(text)) {
				c.bad(where+"/"+name, "must be a number in a string")
			}
		}
	}
	if m["placeholder"] != nil {
		c.object(m["placeholder"], where+"/placeholder", maxPlaceholder, "plain_text")
	}
}

var isNumber = regexp.MustCompile(`^-?\d+(\.\d+)?$`)

// textInput is a field for text.
func (c *checker) textInput(m map[string]any, where string) {
	most := float64(maxInput)
	if v, ok := m["max_length"].(float64); ok {
		if v < 1 || v > maxInput {
			c.bad(where+"/max_length", "must be between 1 and %d", maxInput)
		}
		most = v
	}
	text, _ := m["initial_value"].(string)
	if float64(utf8.RuneCountInString(text)) > most {
		c.bad(where+"/initial_value", "must be less than %d characters", int(most)+1)
	}
}

// options are what can be chosen, and what is at first.
func (c *checker) options(m map[string]any, where string, most int) {
	var all []string
	read := func(o any, at string) string {
		option, _ := o.(map[string]any)
		value, ok := option["value"].(string)
		if !ok || value == "" {
			c.bad(at, "missing required field: value")
		}
		c.longest(value, maxOptionValue, at+"/value")
		raw, _ := json.Marshal(option) // it was JSON
		return string(raw)
	}
	for i, o := range c.list(m, "options", 1, most, where) {
		at := fmt.Sprintf("%s/options/%d", where, i)
		option, _ := o.(map[string]any)
		c.object(option["text"], at+"/text", maxOption, "plain_text", "mrkdwn")
		all = append(all, read(o, at))
	}
	first := []any{}
	if m["initial_option"] != nil {
		first = append(first, m["initial_option"])
	}
	if m["initial_options"] != nil {
		first = c.list(m, "initial_options", 1, most, where)
	}
	for _, o := range first {
		if !slices.Contains(all, read(o, where+"/initial_option")) {
			c.bad(where+"/initial_option", "must be one of the options")
		}
	}
}

func (c *checker) button(m map[string]any, where string) {
	c.object(m["text"], where+"/text", maxButtonText, "plain_text")
	if value, _ := m["value"].(string); utf8.RuneCountInString(value) > maxButtonValue {
		c.problems = append(c.problems, problem{
			"msg_too_large", fmt.Sprintf("must be less than %d characters [json-pointer:%s/value]", maxButtonValue+1, where),
		})
	}
	link, _ := m["url"].(string)
	c.longest(link, maxURL, where+"/url")
	switch m["style"] {
	case nil, "primary", "danger":
	default:
		c.bad(where+"/style", "must be a valid enum value")
	}
	if confirm, ok := m["confirm"].(map[string]any); ok {
		c.object(confirm["title"], where+"/confirm/title", 100, "plain_text")
		c.object(confirm["text"], where+"/confirm/text", 300, "plain_text", "mrkdwn")
		c.object(confirm["confirm"], where+"/confirm/confirm", 30, "plain_text")
		c.object(confirm["deny"], where+"/confirm/deny", 30, "plain_text")
	}
}

// length is that of text that is shown: it counts for the whole message as well.
func (c *checker) length(text string, low, high int, where string) {
	n := utf8.RuneCountInString(text)
	c.text += n
	if n < low {
		c.bad(where, "must be more than %d characters", low-1)
	}
	c.longest(text, high, where)
}

func (c *checker) longest(text string, high int, where string) {
	if utf8.RuneCountInString(text) > high {
		c.bad(where, "must be less than %d characters", high+1)
	}
}

// newBlock begins a heading, a fence or a paragraph after a blank line.
var newBlock = regexp.MustCompile("(?m)^(#{1,6} |```|~~~)|\n\n+")

// beforeBlock is a blank line that does not count, since what it separates does.
var beforeBlock = regexp.MustCompile("\n\n+(#{1,6} |```|~~~)")

// fenced is a code block, which is one block whatever is in it.
var fenced = regexp.MustCompile("(?s)```.*?```")

// expands estimates how many blocks Slack makes of markdown.
func expands(text string) int {
	text = beforeBlock.ReplaceAllString(fenced.ReplaceAllString(strings.TrimSpace(text), "```"), "\n$1")
	return 1 + len(newBlock.FindAllStringIndex(text, -1))
}

var eventType = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// metadataWarning tells why Slack would ignore metadata, "" if it would not. Messages are posted all the same.
func metadataWarning(m map[string]any) string {
	kind, _ := m["event_type"].(string)
	payload, ok := m["event_payload"].(map[string]any)
	raw, err := json.Marshal(payload)
	switch {
	case !eventType.MatchString(kind), !ok, err != nil:
		return "invalid_metadata_schema"
	case len(raw) > maxMetadata:
		return "metadata_too_large"
	}
	return ""
}

// texts of problems, for response_metadata.
func texts(problems []problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, "[ERROR] "+p.text)
	}
	return out
}
