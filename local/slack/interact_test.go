package slack_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/local/slack"
)

func plain(text string) args  { return args{"type": "plain_text", "text": text} }
func mrkdwn(text string) args { return args{"type": "mrkdwn", "text": text} }

func button(action, value string) args {
	return args{"type": "button", "action_id": action, "value": value, "text": plain(action)}
}

func stopButton() []any {
	return []any{
		args{"type": "section", "block_id": "head", "text": mrkdwn("working"), "accessory": button("more", "m")},
		args{"type": "actions", "elements": []any{button("stop", "turn-1"), args{"type": "button", "text": plain("nameless")}}},
	}
}

func modal(title string, blocks ...any) args {
	return args{"type": "modal", "title": plain(title), "close": plain("Close"), "callback_id": "c", "private_metadata": "p", "blocks": blocks}
}

func note(text string) args { return args{"type": "section", "text": mrkdwn(text)} }

func TestClicks(t *testing.T) {
	t.Parallel()
	in(t, "a click tells who pressed what where", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		ts := w.api(bot, "chat.postMessage", args{"channel": general, "thread_ts": root, "text": "x", "blocks": stopButton()})["ts"]
		s.event()
		got, res := s.answers(nil, func() map[string]any {
			return w.local(member, "click", args{"channel": general, "ts": ts, "action_id": "stop", "value": "turn-1"})
		})
		w.want("answer", res, args{"ok": true})
		w.want("payload", got["payload"], args{
			"type": "block_actions", "user.id": "U0MEMBER", "user.team_id": "T0LOCAL", "team.id": "T0LOCAL", "api_app_id": "A0FLAUDE",
			"container.type": "message", "container.message_ts": ts, "container.channel_id": general, "container.thread_ts": root,
			"container.is_ephemeral": false, "channel.id": general, "message.ts": ts, "message.thread_ts": root, "message.bot_id": "B0FLAUDE",
			"actions.0.action_id": "stop", "actions.0.value": "turn-1", "actions.0.type": "button", "actions.0.block_id": "b1", "actions.0.text.text": "stop",
		})
		got, _ = s.answers(nil, func() map[string]any {
			return w.local(admin, "click", args{"channel": general, "ts": ts, "action_id": "more", "value": "m"})
		})
		w.want("an accessory", got["payload"], args{"actions.0.block_id": "head", "user.id": "U0ADMIN"})
		got, _ = s.answers(nil, func() map[string]any {
			return w.local(admin, "click", args{"channel": general, "ts": ts, "action_id": "a1-1"})
		})
		w.want("a button that Slack named", got["payload"], args{"actions.0.text.text": "nameless"})
	})
	in(t, "what is not there cannot be pressed", slack.Config{}, func(_ *testing.T, w *world) {
		w.connect()
		ts := w.api(bot, "chat.postMessage", args{"channel": payments, "text": "x", "blocks": stopButton()})["ts"]
		for _, c := range []struct {
			token string
			a     args
			code  string
		}{
			{member, args{"channel": payments, "ts": "1.000000", "action_id": "stop"}, "message_not_found"},
			{member, args{"channel": payments, "ts": ts, "action_id": "go"}, "action_not_found"},
			{member, args{"channel": payments, "ts": ts, "action_id": "stop", "value": "turn-2"}, "action_not_found"},
			{guest, args{"channel": payments, "ts": ts, "action_id": "stop"}, "channel_not_found"},
			{member, args{"view_id": "V1", "action_id": "stop"}, "not_found"},
			{bot, args{"channel": payments, "ts": ts, "action_id": "stop"}, "not_allowed_token_type"},
		} {
			w.want("click", w.local(c.token, "click", c.a), args{"ok": false, "error": c.code})
		}
	})
	in(t, "only its person can press an ephemeral message", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		ts := w.api(bot, "chat.postEphemeral", args{"channel": general, "user": "U0MEMBER", "text": "x", "blocks": stopButton()})["message_ts"]
		press := args{"channel": general, "ts": ts, "action_id": "stop"}
		w.want("another's click", w.local(admin, "click", press), args{"error": "message_not_found"})
		got, _ := s.answers(nil, func() map[string]any { return w.local(member, "click", press) })
		w.want("payload", got["payload"], args{"container.is_ephemeral": true, "message": nil})
	})
}

func TestResponseURL(t *testing.T) {
	t.Parallel()
	// pressed clicks a button of an ephemeral message and returns the response_url.
	pressed := func(w *world, s *socket) string {
		ts := w.api(bot, "chat.postEphemeral", args{"channel": general, "user": "U0MEMBER", "text": "pick", "blocks": stopButton()})["message_ts"]
		got, _ := s.answers(nil, func() map[string]any {
			return w.local(member, "click", args{"channel": general, "ts": ts, "action_id": "stop"})
		})
		return at(got, "payload.response_url").(string)
	}
	post := func(w *world, address string, body args) answer {
		return w.do(http.MethodPost, address, "", "application/json", w.json(body), nil)
	}
	in(t, "answers ok and whispers to who pressed", slack.Config{}, func(t *testing.T, w *world) {
		address := pressed(w, w.connect())
		if res := post(w, address, args{"text": "done"}); res.status != http.StatusOK || res.raw != "ok" {
			t.Errorf("answer = %d %q, want ok", res.status, res.raw)
		}
		w.want("seen", w.local(member, "seen", args{"channel": general}), args{"ephemeral.1.text": "done"})
	})
	in(t, "replaces and removes the message that was pressed", slack.Config{}, func(_ *testing.T, w *world) {
		address := pressed(w, w.connect())
		post(w, address, args{"replace_original": true, "text": "ended"})
		w.want("replaced", w.local(member, "seen", args{"channel": general}), args{"ephemeral.0.text": "ended", "ephemeral.0.blocks": nil, "ephemeral.1": nil})
		post(w, address, args{"delete_original": true})
		w.want("removed", w.local(member, "seen", args{"channel": general}), args{"ephemeral": []any{}})
	})
	in(t, "replaces a message of a channel with an event", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		ts := w.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "blocks": stopButton()})["ts"]
		s.event()
		got, _ := s.answers(nil, func() map[string]any {
			return w.local(member, "click", args{"channel": general, "ts": ts, "action_id": "stop"})
		})
		post(w, at(got, "payload.response_url").(string), args{"replace_original": true, "text": "stopped"})
		w.want("event", s.event(), args{"subtype": "message_changed", "message.text": "stopped", "message.ts": ts, "previous_message.text": "x"})
	})
	in(t, "keeps to a thread only if told the thread", slack.Config{}, func(_ *testing.T, w *world) {
		address := pressed(w, w.connect())
		root := w.post(member, general, "", "root")
		post(w, address, args{"text": "in it", "thread_ts": root})
		w.want("seen", w.local(member, "seen", args{"channel": general, "thread_ts": root}), args{"ephemeral.0.text": "in it"})
	})
	in(t, "takes 5 posts in 30 minutes", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		address, other := pressed(w, s), pressed(w, s)
		for range 5 {
			post(w, address, args{"text": "again"})
		}
		if res := post(w, address, args{"text": "once more"}); res.status != http.StatusNotFound || res.raw != "used_url\n" {
			t.Errorf("the sixth = %d %q", res.status, res.raw)
		}
		time.Sleep(30*time.Minute + time.Second)
		if res := post(w, other, args{"text": "late"}); res.status != http.StatusNotFound || res.raw != "expired_url\n" {
			t.Errorf("a late one = %d %q", res.status, res.raw)
		}
	})
	in(t, "refuses what Slack refuses", slack.Config{}, func(t *testing.T, w *world) {
		address := pressed(w, w.connect())
		if res := post(w, address, args{"text": "x", "blocks": []any{args{"type": "x"}}}); res.status != http.StatusBadRequest || res.raw != "invalid_blocks\n" {
			t.Errorf("bad blocks = %d %q", res.status, res.raw)
		}
		if res := post(w, address, args{}); res.status != http.StatusBadRequest || res.raw != "no_text\n" {
			t.Errorf("nothing = %d %q", res.status, res.raw)
		}
	})
}

func TestShortcuts(t *testing.T) {
	t.Parallel()
	in(t, "a message shortcut brings the message, with its thread", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		ts := w.post(admin, general, root, "reply")
		s.event()
		got, res := s.answers(nil, func() map[string]any {
			return w.local(member, "shortcut", args{"channel": general, "ts": ts, "callback_id": "manage_session"})
		})
		w.want("answer", res, args{"ok": true})
		w.want("payload", got["payload"], args{
			"type": "message_action", "callback_id": "manage_session", "message.ts": ts, "message.thread_ts": root, "message.text": "reply",
			"message_ts": ts, "channel.id": general, "user.id": "U0MEMBER",
		})
		w.want("another shortcut", w.local(member, "shortcut", args{"channel": general, "ts": ts, "callback_id": "x"}), args{"error": "shortcut_not_found"})
		w.want("no message", w.local(member, "shortcut", args{"channel": general, "ts": "1.0", "callback_id": "manage_session"}), args{"error": "message_not_found"})
	})
}

// triggered has a person start something that may open a modal, and returns the trigger id.
func triggered(w *world, s *socket) string {
	got, _ := s.answers(nil, func() map[string]any {
		return w.local(member, "command", args{"channel": general, "command": "/flaude"})
	})
	return at(got, "payload.trigger_id").(string)
}

func TestModals(t *testing.T) {
	t.Parallel()
	in(t, "a trigger opens one modal, within 3 s", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		id := triggered(w, s)
		res := w.api(bot, "views.open", args{"trigger_id": id, "view": modal("Session", note("status"))})
		w.want("view", res, args{"view.title.text": "Session", "view.private_metadata": "p", "view.callback_id": "c", "view.state.values": args{}})
		w.refused(bot, "views.open", args{"trigger_id": id, "view": modal("Session", note("status"))}, "exchanged_trigger_id")
		w.refused(bot, "views.open", args{"trigger_id": "x", "view": modal("Session", note("status"))}, "invalid_trigger_id")
		id = triggered(w, s)
		time.Sleep(3*time.Second + time.Millisecond)
		w.refused(bot, "views.open", args{"trigger_id": id, "view": modal("Session", note("status"))}, "expired_trigger_id")
		w.refused(member, "views.open", args{"trigger_id": id, "view": modal("Session", note("status"))}, "not_allowed_token_type")
		w.want("its person sees it", w.local(member, "seen", args{"channel": general}), args{"views.0.title.text": "Session", "views.1": nil})
		w.want("nobody else", w.local(admin, "seen", args{"channel": general}), args{"views": []any{}})
	})
	in(t, "updates follow the hash", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		res := w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": modal("One", note("1"))})
		id, hash := at(res, "view.id"), at(res, "view.hash")
		w.api(bot, "views.update", args{"view_id": id, "hash": hash, "view": modal("Two", note("2"))})
		w.refused(bot, "views.update", args{"view_id": id, "hash": hash, "view": modal("Three", note("3"))}, "hash_conflict")
		w.refused(bot, "views.update", args{"view_id": "V9", "view": modal("Three", note("3"))}, "not_found")
		w.want("seen", w.local(member, "seen", args{"channel": general}), args{"views.0.title.text": "Two"})
	})
	in(t, "three may lie on each other", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.refused(bot, "views.push", args{"trigger_id": triggered(w, s), "view": modal("Alone", note("x"))}, "not_found")
		w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": modal("One", note("1"))})
		for _, title := range []string{"Two", "Three"} {
			w.api(bot, "views.push", args{"trigger_id": triggered(w, s), "view": modal(title, note("x"))})
		}
		w.refused(bot, "views.push", args{"trigger_id": triggered(w, s), "view": modal("Four", note("4"))}, "push_limit_reached")
		seen := w.local(member, "seen", args{"channel": general})
		w.want("seen", seen, args{"views.2.title.text": "Three", "views.0.previous_view_id": nil})
		w.want("each names what it lies on", seen, args{
			"views.1.previous_view_id": at(seen, "views.0.id"), "views.2.previous_view_id": at(seen, "views.1.id"), "views.2.root_view_id": at(seen, "views.0.id"),
		})
	})
	in(t, "a button of a modal is pressed in the modal", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		view := modal("Session", args{"type": "actions", "block_id": "do", "elements": []any{button("end", "t")}})
		id := at(w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": view}), "view.id")
		got, _ := s.answers(nil, func() map[string]any { return w.local(member, "click", args{"view_id": id, "action_id": "end"}) })
		w.want("payload", got["payload"], args{
			"type": "block_actions", "view.id": id, "view.private_metadata": "p", "container.type": "view", "actions.0.block_id": "do", "channel": nil,
		})
		w.want("another button", w.local(member, "click", args{"view_id": id, "action_id": "x"}), args{"error": "action_not_found"})
		w.want("another person", w.local(admin, "click", args{"view_id": id, "action_id": "end"}), args{"error": "not_found"})
	})
	in(t, "an option of a select is chosen", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		options := []any{args{"text": plain("one"), "value": "1"}, args{"text": plain("two"), "value": "2"}}
		pick := args{"type": "section", "block_id": "pick", "text": args{"type": "mrkdwn", "text": "Which?"}, "accessory": args{"type": "static_select", "action_id": "get", "options": options}}
		id := at(w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": modal("Files", pick)}), "view.id")
		got, _ := s.answers(nil, func() map[string]any {
			return w.local(member, "click", args{"view_id": id, "action_id": "get", "value": "2"})
		})
		w.want("payload", got["payload"], args{
			"actions.0.type": "static_select", "actions.0.block_id": "pick", "actions.0.selected_option.value": "2", "actions.0.selected_option.text.text": "two",
		})
		w.want("no such option", w.local(member, "click", args{"view_id": id, "action_id": "get", "value": "3"}), args{"error": "action_not_found"})
	})
	form := modal("Ask", args{"type": "input", "block_id": "q", "label": plain("Why?"), "element": args{"type": "plain_text_input", "action_id": "a"}})
	form["submit"] = plain("Send")
	for _, c := range []struct {
		name string
		ack  any
		left args
	}{
		{"an empty ack closes the modal", nil, args{"views": []any{}}},
		{"errors keep it", args{"response_action": "errors", "errors": args{"q": "No."}}, args{"views.0.title.text": "Ask"}},
		{"an update changes it", args{"response_action": "update", "view": modal("Thanks", note("x"))}, args{"views.0.title.text": "Thanks", "views.1": nil}},
		{"a push lays another on it", args{"response_action": "push", "view": modal("More", note("x"))}, args{"views.0.title.text": "Ask", "views.1.title.text": "More"}},
		{"clear closes all", args{"response_action": "clear"}, args{"views": []any{}}},
	} {
		in(t, "submission: "+c.name, slack.Config{}, func(_ *testing.T, w *world) {
			s := w.connect()
			id := at(w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": form}), "view.id")
			values := args{"q": args{"a": args{"type": "plain_text_input", "value": "because"}}}
			got, res := s.answers(c.ack, func() map[string]any { return w.local(member, "submit", args{"view_id": id, "values": values}) })
			w.want("payload", got["payload"], args{"type": "view_submission", "view.id": id, "view.state.values": values, "channel": nil})
			w.want("answer", res, args{"ok": true})
			w.want("left", w.local(member, "seen", args{"channel": general}), c.left)
		})
	}
	in(t, "what has to be filled in is, before a modal is sent", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		id := at(w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": form}), "view.id")
		for _, value := range []args{{}, {"q": args{}}, {"q": args{"a": args{"type": "plain_text_input", "value": nil}}}} {
			w.want("refused", w.local(member, "submit", args{"view_id": id, "values": value}), args{"error": "missing_value"})
		}
	})
	in(t, "errors of fields that the modal does not have are trouble", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		id := at(w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": form}), "view.id")
		values := args{"q": args{"a": args{"type": "plain_text_input", "value": "because"}}}
		ack := args{"response_action": "errors", "errors": args{"other": "No."}}
		_, res := s.answers(ack, func() map[string]any { return w.local(member, "submit", args{"view_id": id, "values": values}) })
		w.want("answer", res, args{"ok": false, "error": "invalid_errors"})
	})
	in(t, "closing tells the app if it asked to be told", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		id := at(w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": modal("Quiet", note("x"))}), "view.id")
		w.want("closed", w.local(member, "submit", args{"view_id": id, "close": true}), args{"ok": true})
		w.want("it has nothing to submit", w.local(member, "submit", args{"view_id": id}), args{"error": "not_found"})
		loud := modal("Loud", note("x"))
		loud["notify_on_close"] = true
		id = at(w.api(bot, "views.open", args{"trigger_id": triggered(w, s), "view": loud}), "view.id")
		w.want("no submit button", w.local(member, "submit", args{"view_id": id}), args{"error": "not_submittable"})
		got, _ := s.answers(nil, func() map[string]any { return w.local(member, "submit", args{"view_id": id, "close": true}) })
		w.want("payload", got["payload"], args{"type": "view_closed", "view.id": id})
		w.want("seen", w.local(member, "seen", args{"channel": general}), args{"views": []any{}})
	})
	for _, c := range []struct {
		name   string
		change func(args)
		say    string
	}{
		{"no modal", func(v args) { v["type"] = "home" }, "must be modal [json-pointer:/view/type]"},
		{"no title", func(v args) { delete(v, "title") }, "missing required field: title [json-pointer:/view]"},
		{"a title of 25", func(v args) { v["title"] = plain(strings.Repeat("x", 25)) }, "must be less than 25 characters [json-pointer:/view/title/text]"},
		{"a submit of 25", func(v args) { v["submit"] = plain(strings.Repeat("x", 25)) }, "must be less than 25 characters [json-pointer:/view/submit/text]"},
		{"metadata of 3,001", func(v args) { v["private_metadata"] = strings.Repeat("x", 3001) }, "must be less than 3001 characters [json-pointer:/view/private_metadata]"},
		{"a callback_id of 256", func(v args) { v["callback_id"] = strings.Repeat("x", 256) }, "must be less than 256 characters [json-pointer:/view/callback_id]"},
		{"no blocks", func(v args) { delete(v, "blocks") }, "missing required field: blocks [json-pointer:/view]"},
		{"101 blocks", func(v args) { v["blocks"] = many(101, args{"type": "divider"}) }, "no more than 100 items allowed [json-pointer:/blocks]"},
		{"markdown", func(v args) { v["blocks"] = []any{args{"type": "markdown", "text": "x"}} }, "unsupported type: markdown [json-pointer:/blocks/0/type]"},
		{"an input without submit", func(v args) { v["blocks"] = form["blocks"] }, "missing required field: submit, since there is an input block [json-pointer:/view]"},
	} {
		in(t, "refused: "+c.name, slack.Config{}, func(t *testing.T, w *world) {
			view := modal("Session", note("x"))
			c.change(view)
			res := w.refused(bot, "views.open", args{"trigger_id": triggered(w, w.connect()), "view": view}, "invalid_arguments")
			if got := string(w.json(at(res, "response_metadata.messages"))); !strings.Contains(got, "[ERROR] "+c.say) {
				t.Errorf("messages = %s, want %q", got, c.say)
			}
		})
	}
}

// TestFields: what can be filled in is checked as Slack checks it.
func TestFields(t *testing.T) {
	t.Parallel()
	option := func(value string) args { return args{"text": plain(value), "value": value} }
	boxes := func(n int) args { return args{"type": "checkboxes", "action_id": "a", "options": many(n, option("x"))} }
	for _, c := range []struct {
		name    string
		element args
		say     string // "": Slack takes it
	}{
		{"text", args{"type": "plain_text_input", "max_length": 3000, "initial_value": "x", "placeholder": plain("p")}, ""},
		{"text of 3,001", args{"type": "plain_text_input", "max_length": 3001}, "must be between 1 and 3000 [json-pointer:/blocks/0/element/max_length]"},
		{"text that is longer than it may be", args{"type": "plain_text_input", "max_length": 2, "initial_value": "xyz"}, "must be less than 3 characters [json-pointer:/blocks/0/element/initial_value]"},
		{"a placeholder of 151", args{"type": "plain_text_input", "placeholder": plain(strings.Repeat("x", 151))}, "must be less than 151 characters [json-pointer:/blocks/0/element/placeholder/text]"},
		{"a number", args{"type": "number_input", "is_decimal_allowed": false, "initial_value": "20", "min_value": "1"}, ""},
		{"a number of no kind", args{"type": "number_input"}, "missing required field: is_decimal_allowed [json-pointer:/blocks/0/element]"},
		{"a number that is one", args{"type": "number_input", "is_decimal_allowed": false, "min_value": 1}, "must be a number in a string [json-pointer:/blocks/0/element/min_value]"},
		{"10 boxes", boxes(10), ""},
		{"11 boxes", boxes(11), "no more than 10 items allowed [json-pointer:/blocks/0/element/options]"},
		{"a choice", args{"type": "static_select", "options": []any{option("x")}, "initial_option": option("x")}, ""},
		{"a choice of nothing", args{"type": "static_select", "options": []any{option("x")}, "initial_option": option("y")}, "must be one of the options [json-pointer:/blocks/0/element/initial_option]"},
		{"a choice of 151", args{"type": "static_select", "options": []any{args{"text": plain("x"), "value": strings.Repeat("x", 151)}}}, "must be less than 151 characters [json-pointer:/blocks/0/element/options/0/value]"},
		{"a choice without a value", args{"type": "static_select", "options": []any{args{"text": plain("x"), "value": ""}}}, "missing required field: value [json-pointer:/blocks/0/element/options/0]"},
		{"choices at first, and none", args{"type": "multi_static_select", "options": []any{option("x")}, "initial_options": []any{}}, "no fewer than 1 items allowed [json-pointer:/blocks/0/element/initial_options]"},
		{"people", args{"type": "multi_users_select", "initial_users": []any{"U0ADMIN"}}, ""},
		{"a channel", args{"type": "conversations_select", "filter": args{"include": []any{"public"}}}, ""},
	} {
		in(t, c.name, slack.Config{}, func(t *testing.T, w *world) {
			view := modal("Ask", args{"type": "input", "block_id": "q", "label": plain("Why?"), "element": c.element})
			view["submit"] = plain("Send")
			post := args{"trigger_id": triggered(w, w.connect()), "view": view}
			if c.say == "" {
				w.api(bot, "views.open", post)
				return
			}
			res := w.refused(bot, "views.open", post, "invalid_arguments")
			if got := string(w.json(at(res, "response_metadata.messages"))); !strings.Contains(got, "[ERROR] "+c.say) {
				t.Errorf("messages = %s, want %q", got, c.say)
			}
		})
	}
}

func many(n int, v any) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestAgentSessions(t *testing.T) {
	t.Parallel()
	in(t, "processing shows Slack's own Stop button", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		status := func(v string) args { return args{"channel_id": general, "thread_ts": root, "status": v} }
		w.api(bot, "agents.sessions.setStatus", status("processing"))
		w.want("seen", w.local(member, "seen", args{"channel": general, "thread_ts": root}), args{"status": "processing"})
		w.want("stop", w.local(member, "stop", args{"channel": general, "thread_ts": root}), args{"ok": true})
		w.want("event", s.event(), args{"type": "agent_session_stopped", "channel": general, "thread_ts": root, "user": "U0MEMBER"})
		w.api(bot, "agents.sessions.setStatus", status("active"))
		w.want("nothing to stop", w.local(member, "stop", args{"channel": general, "thread_ts": root}), args{"error": "not_processing"})
		w.refused(bot, "agents.sessions.setStatus", status(""), "invalid_arguments")
		w.refused(bot, "agents.sessions.setStatus", args{"channel_id": general, "thread_ts": "1.000000", "status": "active"}, "invalid_thread_ts")
		w.api(bot, "agents.sessions.rename", args{"channel_id": general, "thread_ts": root, "title": "Parser"})
		w.refused(bot, "agents.sessions.rename", args{"channel_id": general, "thread_ts": root, "title": strings.Repeat("x", 201)}, "invalid_arguments")
		w.refused(member, "agents.sessions.setStatus", status("active"), "not_allowed_token_type")
	})
	in(t, "a session has the title that it began with, until it is named", slack.Config{}, func(_ *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		status := func(title string) args {
			return args{"channel_id": general, "thread_ts": root, "status": "processing", "title": title}
		}
		title := func(want string) {
			w.want("title", w.local(member, "seen", args{"channel": general, "thread_ts": root}), args{"title": want})
		}
		w.refused(bot, "agents.sessions.setStatus", status(strings.Repeat("x", 201)), "invalid_arguments")
		w.api(bot, "agents.sessions.setStatus", status("Fix the parser"))
		w.api(bot, "agents.sessions.setStatus", status("Another"))
		title("Fix the parser")
		w.api(bot, "agents.sessions.rename", args{"channel_id": general, "thread_ts": root, "title": "Parser"})
		title("Parser")
	})
	in(t, "who opens their DM with the app is announced, and finds the prompts that it suggests", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.want("open", w.local(member, "open", args{"channel": "D0MEMBER"}), args{"ok": true})
		w.want("event", s.event(), args{"type": "app_home_opened", "tab": "messages", "channel": "D0MEMBER", "user": "U0MEMBER"})
		w.want("a channel", w.local(member, "open", args{"channel": general}), args{"error": "channel_not_found"})
		prompts := func(n int) args {
			return args{"channel_id": "D0MEMBER", "title": "Try", "prompts": slices.Repeat([]any{args{"title": "Tour", "message": "Show me around"}}, n)}
		}
		seen := func() any { return at(w.local(member, "seen", args{"channel": "D0MEMBER"}), "suggested") }
		inThread := prompts(1)
		inThread["thread_ts"] = w.post(member, "D0MEMBER", "", "hi")
		if w.api(bot, "assistant.threads.setSuggestedPrompts", inThread); seen() != nil {
			t.Error("prompts of a thread are shown: an agent has none")
		}
		w.api(bot, "assistant.threads.setSuggestedPrompts", prompts(4))
		w.want("seen", seen(), args{"title": "Try", "prompts.3.message": "Show me around"})
		w.refused(bot, "assistant.threads.setSuggestedPrompts", prompts(5), "invalid_arguments")
		w.refused(bot, "assistant.threads.setSuggestedPrompts", prompts(0), "invalid_arguments")
		w.refused(bot, "assistant.threads.setSuggestedPrompts", args{"channel_id": "D0MEMBER", "prompts": []any{args{"title": "x"}}}, "invalid_arguments")
		w.refused(bot, "assistant.threads.setSuggestedPrompts", args{"channel_id": general, "prompts": []any{args{"title": "x", "message": "y"}}}, "channel_not_found")
		w.refused(member, "assistant.threads.setSuggestedPrompts", prompts(1), "not_allowed_token_type")
	})
}
