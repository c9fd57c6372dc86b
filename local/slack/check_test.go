package slack_test

import (
	"maps"
	"strings"
	"testing"

	"flaudebot/local/slack"
)

func long(n int) string { return strings.Repeat("é", n) } // characters, not bytes

// numbered makes n elements that differ in their action_id.
func numbered(n int) []any {
	var out []any
	for i := range n {
		out = append(out, button("a"+strings.Repeat("i", i), "v"))
	}
	return out
}

func with(m args, name string, v any) args {
	out := args{}
	maps.Copy(out, m)
	if out[name] = v; v == nil {
		delete(out, name)
	}
	return out
}

func actions(elements ...any) args { return args{"type": "actions", "elements": elements} }
func section(text string) args     { return args{"type": "section", "text": mrkdwn(text)} }
func md(text string) args          { return args{"type": "markdown", "text": text} }

// TestBlockKit posts blocks at each limit, which are taken, and past it, which are refused with a code and with what is
// wrong where.
func TestBlockKit(t *testing.T) {
	t.Parallel()
	divider, context := args{"type": "divider"}, func(e ...any) args { return args{"type": "context", "elements": e} }
	image := args{"type": "image", "image_url": "https://example.com/a.png", "alt_text": "a"}
	confirm := func(c args) args { return with(button("a", "v"), "confirm", c) }
	sure := args{"title": plain("Sure?"), "text": plain("It ends."), "confirm": plain("End"), "deny": plain("Keep")}
	cell := args{"type": "raw_text", "text": "x"}
	table := func(rows, columns int) args { return args{"type": "table", "rows": many(rows, many(columns, cell))} }
	task := func(id string) args {
		return args{"type": "task_card", "task_id": id, "title": "x", "status": "pending"}
	}
	for _, c := range []struct {
		name   string
		blocks []any
		code   string   // "": taken
		say    []string // all that is said, in order
	}{
		{"50 blocks", many(50, divider), "", nil},
		{"51 blocks", many(51, divider), "invalid_blocks", []string{"no more than 50 items allowed [json-pointer:/blocks]"}},
		{"a block that is no object", []any{"x"}, "invalid_blocks", []string{"must be an object [json-pointer:/blocks/0]"}},
		{"an unknown block", []any{divider, args{"type": "carousel"}}, "invalid_blocks", []string{"unsupported type: carousel [json-pointer:/blocks/1/type]"}},
		{"an input in a message", []any{args{"type": "input"}}, "invalid_blocks", []string{"unsupported type: input [json-pointer:/blocks/0/type]"}},
		{"a block_id of 255", []any{with(divider, "block_id", long(255))}, "", nil},
		{"a block_id of 256", []any{with(divider, "block_id", long(256))}, "invalid_blocks", []string{"must be less than 256 characters [json-pointer:/blocks/0/block_id]"}},
		{
			"a block_id twice",
			[]any{with(divider, "block_id", "x"), with(divider, "block_id", "x")},
			"invalid_blocks",
			[]string{`block_id "x" already exists [json-pointer:/blocks/1/block_id]`},
		},

		{"a section of 3,000", []any{section(long(3000))}, "", nil},
		{"a section of 3,001", []any{section(long(3001))}, "invalid_blocks", []string{
			"failed to match all allowed schemas [json-pointer:/blocks/0/text]", "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
		}},
		{"an empty section", []any{section("")}, "invalid_blocks", []string{
			"failed to match all allowed schemas [json-pointer:/blocks/0/text]", "must be more than 0 characters [json-pointer:/blocks/0/text/text]",
		}},
		{"a section without text", []any{args{"type": "section"}}, "invalid_blocks", []string{"missing required field: text [json-pointer:/blocks/0]"}},
		{
			"a text object without text",
			[]any{args{"type": "section", "text": args{"type": "mrkdwn"}}},
			"invalid_blocks",
			[]string{"missing required field: text [json-pointer:/blocks/0/text]"},
		},
		{
			"a text object of another type",
			[]any{args{"type": "section", "text": args{"type": "markdown", "text": "x"}}},
			"invalid_blocks",
			[]string{"must be one of: mrkdwn, plain_text [json-pointer:/blocks/0/text/type]"},
		},
		{"10 fields of 2,000 are too much text, 6 are not", []any{args{"type": "section", "fields": many(6, mrkdwn(long(2000)))}}, "", nil},
		{"11 fields", []any{args{"type": "section", "fields": many(11, mrkdwn("x"))}}, "invalid_blocks", []string{"no more than 10 items allowed [json-pointer:/blocks/0/fields]"}},
		{"a field of 2,001", []any{args{"type": "section", "fields": []any{mrkdwn(long(2001))}}}, "invalid_blocks", []string{
			"failed to match all allowed schemas [json-pointer:/blocks/0/fields/0]", "must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]",
		}},
		{"a button beside a section", []any{with(section("x"), "accessory", button("a", "v"))}, "", nil},
		{"an image beside a section", []any{with(section("x"), "accessory", image)}, "", nil},
		{
			"text input beside a section",
			[]any{with(section("x"), "accessory", args{"type": "plain_text_input"})},
			"invalid_blocks",
			[]string{"unsupported type: plain_text_input [json-pointer:/blocks/0/accessory/type]"},
		},

		{"a header of 150", []any{args{"type": "header", "text": plain(long(150))}}, "", nil},
		{"a header of 151", []any{args{"type": "header", "text": plain(long(151))}}, "invalid_blocks", []string{
			"failed to match all allowed schemas [json-pointer:/blocks/0/text]", "must be less than 151 characters [json-pointer:/blocks/0/text/text]",
		}},
		{"a header in mrkdwn", []any{args{"type": "header", "text": mrkdwn("x")}}, "invalid_blocks", []string{"must be one of: plain_text [json-pointer:/blocks/0/text/type]"}},

		{"10 pieces of context", []any{context(many(10, mrkdwn("x"))...)}, "", nil},
		{"11 pieces of context", []any{context(many(11, mrkdwn("x"))...)}, "invalid_blocks", []string{"no more than 10 items allowed [json-pointer:/blocks/0/elements]"}},
		{"no context", []any{args{"type": "context"}}, "invalid_blocks", []string{"missing required field: elements [json-pointer:/blocks/0]"}},
		{"an image in context", []any{context(image, plain("x"))}, "", nil},
		{"a button in context", []any{context(button("a", "v"))}, "invalid_blocks", []string{"must be one of: mrkdwn, plain_text [json-pointer:/blocks/0/elements/0/type]"}},

		{"25 actions", []any{actions(numbered(25)...)}, "", nil},
		{"26 actions", []any{actions(numbered(26)...)}, "invalid_blocks", []string{"no more than 25 items allowed [json-pointer:/blocks/0/elements]"}},
		{"empty actions", []any{args{"type": "actions", "elements": []any{}}}, "invalid_blocks", []string{"no fewer than 1 items allowed [json-pointer:/blocks/0/elements]"}},
		{"an action without a type", []any{actions(args{"action_id": "a"})}, "invalid_blocks", []string{"missing required field: type [json-pointer:/blocks/0/elements/0]"}},
		{
			"an action_id twice in a block",
			[]any{actions(button("a", "1"), button("a", "2"))},
			"invalid_blocks",
			[]string{`action_id "a" already exists [json-pointer:/blocks/0/elements/1/action_id]`},
		},
		{"an action_id in two blocks", []any{actions(button("a", "1")), actions(button("a", "2"))}, "", nil},
		{"an action_id of 256", []any{actions(button(strings.Repeat("a", 256), "v"))}, "invalid_blocks", []string{
			"must be less than 256 characters [json-pointer:/blocks/0/elements/0/action_id]",
			"failed to match all allowed schemas [json-pointer:/blocks/0/elements/0/text]", // its text is the id
			"must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]",
		}},
		{"a button text of 75", []any{actions(with(button("a", "v"), "text", plain(long(75))))}, "", nil},
		{"a button text of 76", []any{actions(with(button("a", "v"), "text", plain(long(76))))}, "invalid_blocks", []string{
			"failed to match all allowed schemas [json-pointer:/blocks/0/elements/0/text]", "must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]",
		}},
		{
			"a button in mrkdwn",
			[]any{actions(with(button("a", "v"), "text", mrkdwn("x")))},
			"invalid_blocks",
			[]string{"must be one of: plain_text [json-pointer:/blocks/0/elements/0/text/type]"},
		},
		{
			"a button without text",
			[]any{actions(with(button("a", "v"), "text", nil))},
			"invalid_blocks",
			[]string{"missing required field: text [json-pointer:/blocks/0/elements/0]"},
		},
		{"a value of 2,000", []any{actions(button("a", long(2000)))}, "", nil},
		{"a value of 2,001", []any{actions(button("a", long(2001)))}, "msg_too_large", []string{"must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]"}},
		{"a url of 3,001", []any{actions(with(button("a", "v"), "url", long(3001)))}, "invalid_blocks", []string{"must be less than 3001 characters [json-pointer:/blocks/0/elements/0/url]"}},
		{"a style", []any{actions(with(button("a", "v"), "style", "danger"))}, "", nil},
		{"an unknown style", []any{actions(with(button("a", "v"), "style", "red"))}, "invalid_blocks", []string{"must be a valid enum value [json-pointer:/blocks/0/elements/0/style]"}},
		{"a confirmation", []any{actions(confirm(sure))}, "", nil},
		{"a confirmation without deny", []any{actions(confirm(with(sure, "deny", nil)))}, "invalid_blocks", []string{"missing required field: deny [json-pointer:/blocks/0/elements/0/confirm]"}},
		{"a confirmation of 301", []any{actions(confirm(with(sure, "text", plain(long(301)))))}, "invalid_blocks", []string{
			"failed to match all allowed schemas [json-pointer:/blocks/0/elements/0/confirm/text]", "must be less than 301 characters [json-pointer:/blocks/0/elements/0/confirm/text/text]",
		}},
		{"a menu without options", []any{actions(args{"type": "static_select", "action_id": "m"})}, "invalid_blocks", []string{"missing required field: options [json-pointer:/blocks/0/elements/0]"}},
		{
			"a menu of 101",
			[]any{actions(args{"type": "static_select", "action_id": "m", "options": many(101, args{"text": plain("x"), "value": "x"})})},
			"invalid_blocks",
			[]string{"no more than 100 items allowed [json-pointer:/blocks/0/elements/0/options]"},
		},
		{
			"6 context_actions",
			[]any{args{"type": "context_actions", "elements": many(6, args{"type": "icon_button"})}},
			"invalid_blocks",
			[]string{"no more than 5 items allowed [json-pointer:/blocks/0/elements]"},
		},
		{
			"a button in context_actions",
			[]any{args{"type": "context_actions", "elements": []any{button("a", "v")}}},
			"invalid_blocks",
			[]string{"unsupported type: button [json-pointer:/blocks/0/elements/0/type]"},
		},

		{"an image", []any{image}, "", nil},
		{"an image without address", []any{with(image, "image_url", nil)}, "invalid_blocks", []string{"missing required field: image_url [json-pointer:/blocks/0]"}},
		{"an image without alt_text", []any{with(image, "alt_text", nil)}, "invalid_blocks", []string{"missing required field: alt_text [json-pointer:/blocks/0]"}},
		{"an alt_text of 2,001", []any{with(image, "alt_text", long(2001))}, "invalid_blocks", []string{"must be less than 2001 characters [json-pointer:/blocks/0/alt_text]"}},

		{"markdown of 12,000", []any{md(long(12000))}, "", nil},
		{"markdown of 12,001", []any{md(long(12001))}, "invalid_blocks", []string{"must be less than 12001 characters [json-pointer:/blocks/0/text]"}},
		{"empty markdown", []any{md("")}, "invalid_blocks", []string{"must be more than 0 characters [json-pointer:/blocks/0/text]"}},
		{"13,200 characters in all", []any{md(long(12000)), section(long(1200))}, "", nil},
		{"13,201 characters in all", []any{md(long(12000)), section(long(1201))}, "msg_blocks_too_long", []string{"the blocks hold 13201 characters"}},
		{"markdown of 50 headings", []any{md(strings.TrimSpace(strings.Repeat("# x\n", 49)))}, "", nil},
		{"markdown of 60 headings", []any{md(strings.Repeat("# x\ny\n", 60))}, "invalid_blocks", []string{"no more than 50 items allowed: markdown makes 61 of them [json-pointer:/blocks]"}},
		{"60 blank lines in code", []any{md("```\n" + strings.Repeat("x\n\n", 60) + "```")}, "", nil},

		{"a table of 100 by 20", []any{table(100, 20)}, "", nil},
		{"a table of 101", []any{table(101, 1)}, "invalid_blocks", []string{"no more than 100 items allowed [json-pointer:/blocks/0/rows]"}},
		{"a table 21 wide", []any{table(1, 21)}, "invalid_blocks", []string{"no more than 20 items allowed [json-pointer:/blocks/0/rows/0]"}},
		{"an empty row", []any{table(1, 0)}, "invalid_blocks", []string{"no fewer than 1 items allowed [json-pointer:/blocks/0/rows/0]"}},

		{"a plan", []any{args{"type": "plan", "title": "p", "tasks": []any{task("1"), task("2")}}}, "", nil},
		{"a plan of 51", []any{args{"type": "plan", "title": "p", "tasks": many(51, with(task("1"), "task_id", "same"))}}, "invalid_blocks", nil},
		{
			"a task twice",
			[]any{args{"type": "plan", "title": "p", "tasks": []any{task("1"), task("1")}}},
			"invalid_blocks",
			[]string{`task_id "1" already exists [json-pointer:/blocks/0/tasks/1/task_id]`},
		},
		{"a task completed", []any{with(task("1"), "status", "completed")}, "invalid_blocks", []string{"must be a valid enum value [json-pointer:/blocks/0/status]"}},
		{
			"a plan and a loose task",
			[]any{args{"type": "plan", "title": "p"}, task("1")},
			"invalid_blocks",
			[]string{"plan and task_card are not allowed in the same message [json-pointer:/blocks]"},
		},
	} {
		in(t, c.name, slack.Config{}, func(_ *testing.T, w *world) {
			post := args{"channel": general, "text": "x", "blocks": c.blocks}
			if c.code == "" {
				w.api(bot, "chat.postMessage", post)
				return
			}
			res := w.refused(bot, "chat.postMessage", post, c.code)
			var want []any
			for _, s := range c.say {
				want = append(want, "[ERROR] "+s)
			}
			if c.say != nil {
				w.want("answer", res, args{"response_metadata.messages": want})
			}
			for _, method := range []string{"chat.update", "chat.postEphemeral"} { // the same rules everywhere
				a := with(with(post, "user", "U0MEMBER"), "ts", w.post(bot, general, "", "x"))
				w.refused(bot, method, a, c.code)
			}
		})
	}
}
