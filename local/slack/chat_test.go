package slack_test

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"flaudebot/local/slack"
)

func TestMessages(t *testing.T) {
	t.Parallel()
	in(t, "a person's message comes as if typed in a client", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		ts := w.post(member, general, "", "see &lt;b&gt; <https://example.com|the docs> <@U0ADMIN>")
		e := s.event()
		w.want("event", e, args{
			"type": "message", "user": "U0MEMBER", "team": "T0LOCAL", "ts": ts, "event_ts": ts, "bot_id": nil, "subtype": nil, "channel": general,
			"blocks.0.type": "rich_text", "blocks.0.elements.0.elements": []any{
				args{"type": "text", "text": "see <b> "},
				args{"type": "link", "url": "https://example.com", "text": "the docs"},
				args{"type": "text", "text": " "},
				args{"type": "user", "user_id": "U0ADMIN"},
			},
		})
		if id, _ := e["client_msg_id"].(string); len(id) != 36 {
			t.Errorf("client_msg_id = %v", e["client_msg_id"])
		}
	})
	in(t, "the app's own message comes back with its bot_id", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.post(bot, general, "", "hello <@U0FLAUDE>")
		w.want("event", s.event(), args{"type": "message", "user": "U0FLAUDE", "bot_id": "B0FLAUDE", "app_id": "A0FLAUDE", "client_msg_id": nil})
		s.none() // it mentions itself to nobody
	})
	in(t, "a mention comes as message and as app_mention: other event, same ts", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		ts := w.post(member, general, "", mention+"hello")
		first, second := s.next(), s.next()
		w.want("message", at(first, "payload.event"), args{"type": "message", "ts": ts, "channel_type": "channel"})
		w.want("app_mention", at(second, "payload.event"), args{"type": "app_mention", "ts": ts, "channel_type": nil, "channel": general})
		if at(first, "payload.event_id") == at(second, "payload.event_id") {
			t.Error("both events have the same id")
		}
		if at(first, "payload.event.client_msg_id") != at(second, "payload.event.client_msg_id") {
			t.Error("they have two client_msg_ids")
		}
	})
	in(t, "in a DM a mention is a message only", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.post(member, "D0MEMBER", "", mention+"hello")
		w.want("event", s.event(), args{"type": "message", "channel_type": "im", "channel": "D0MEMBER"})
		s.none()
	})
	in(t, "an edit is message_changed, and app_mention again if it mentions", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		ts := w.post(member, general, "", "hello")
		s.event()
		w.api(member, "chat.update", args{"channel": general, "ts": ts, "text": "bye"})
		w.want("event", s.event(), args{
			"type": "message", "subtype": "message_changed", "hidden": true, "message.ts": ts, "message.text": "bye", "message.edited.user": "U0MEMBER",
			"previous_message.text": "hello", "user": nil, "text": nil, "channel": general,
		})
		w.api(member, "chat.update", args{"channel": general, "ts": ts, "text": mention + "bye"})
		s.event()
		w.want("mention", s.event(), args{"type": "app_mention", "ts": ts, "edited.user": "U0MEMBER"})
	})
	in(t, "a deletion is message_deleted", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		ts := w.post(member, general, "", "hello")
		s.event()
		w.api(member, "chat.delete", args{"channel": general, "ts": ts})
		w.want("event", s.event(), args{
			"type": "message", "subtype": "message_deleted", "hidden": true, "deleted_ts": ts, "previous_message.text": "hello", "channel": general,
		})
		w.refused(member, "chat.delete", args{"channel": general, "ts": ts}, "message_not_found")
	})
	in(t, "one edits one's own messages, and deletes them; an admin deletes any", slack.Config{}, func(_ *testing.T, w *world) {
		ts := w.post(member, general, "", "mine")
		w.refused(guest, "chat.update", args{"channel": general, "ts": ts, "text": "x"}, "cant_update_message")
		w.refused(admin, "chat.update", args{"channel": general, "ts": ts, "text": "x"}, "cant_update_message")
		w.refused(bot, "chat.delete", args{"channel": general, "ts": ts}, "cant_delete_message")
		w.refused(guest, "chat.delete", args{"channel": general, "ts": ts}, "cant_delete_message")
		w.api(admin, "chat.delete", args{"channel": general, "ts": ts})
		w.refused(member, "chat.update", args{"channel": general, "ts": "1.0", "text": "x"}, "message_not_found")
	})
	in(t, "an edit without blocks drops them and shows (edited); one with blocks does not", slack.Config{}, func(_ *testing.T, w *world) {
		ts := w.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "blocks": stopButton()})["ts"]
		res := w.api(bot, "chat.update", args{"channel": general, "ts": ts, "text": "y", "blocks": stopButton()})
		w.want("with blocks", res, args{"text": "y", "message.edited": nil, "message.blocks.0.type": "section"})
		res = w.api(bot, "chat.update", args{"channel": general, "ts": ts, "text": "z"})
		w.want("without", res, args{"message.edited.user": "U0FLAUDE", "message.blocks": nil})
	})
	in(t, "ts are unique and rise", slack.Config{}, func(t *testing.T, w *world) { // in fake time all of it happens at once
		last := ""
		for range 20 {
			ts := w.post(member, general, "", "x")
			if ts <= last || len(ts) != len("946684800.000000") || ts[9] != '.' {
				t.Fatalf("%q after %q", ts, last)
			}
			last = ts
		}
	})
	in(t, "text is cut at 40,000 characters, with a warning", slack.Config{}, func(t *testing.T, w *world) {
		res := w.api(member, "chat.postMessage", args{"channel": general, "text": strings.Repeat("🙂", 40001)})
		w.want("answer", res, args{"warning": "message_truncated", "response_metadata.warnings.0": "message_truncated"})
		if text, _ := at(res, "message.text").(string); text != strings.Repeat("🙂", 40000) {
			t.Errorf("%d bytes are kept", len(text))
		}
		res = w.api(member, "chat.postMessage", args{"channel": general, "text": strings.Repeat("🙂", 40000)})
		w.want("answer", res, args{"warning": nil})
	})
	in(t, "an edit is refused above 4,000 characters", slack.Config{}, func(_ *testing.T, w *world) {
		ts := w.post(bot, general, "", "x")
		w.api(bot, "chat.update", args{"channel": general, "ts": ts, "text": strings.Repeat("é", 4000)})
		w.refused(bot, "chat.update", args{"channel": general, "ts": ts, "text": strings.Repeat("é", 4001)}, "msg_too_long")
	})
	in(t, "markdown_text takes 12,000 characters and stands alone", slack.Config{}, func(_ *testing.T, w *world) {
		res := w.api(bot, "chat.postMessage", args{"channel": general, "markdown_text": "**" + strings.Repeat("x", 11996) + "**"})
		w.want("message", res, args{"message.blocks.0.type": "markdown"})
		w.refused(bot, "chat.postMessage", args{"channel": general, "markdown_text": strings.Repeat("x", 12001)}, "msg_too_long")
		w.refused(bot, "chat.postMessage", args{"channel": general, "markdown_text": "x", "text": "y"}, "markdown_text_conflict")
	})
	for _, c := range []struct {
		name, token, code string
		a                 args
	}{
		{"no text", member, "no_text", args{"channel": general}},
		{"blocks that are no JSON", bot, "invalid_blocks_format", args{"channel": general, "text": "x", "blocks": "[{"}},
		{"blocks that are no list", bot, "invalid_blocks_format", args{"channel": general, "text": "x", "blocks": args{"type": "divider"}}},
		{"no such channel", member, "channel_not_found", args{"channel": "C9", "text": "x"}},
		{"no channel", member, "channel_not_found", args{"text": "x"}},
		{"another's DM", member, "channel_not_found", args{"channel": "D0ADMIN", "text": "x"}},
	} {
		in(t, "refused: "+c.name, slack.Config{}, func(_ *testing.T, w *world) { w.refused(c.token, "chat.postMessage", c.a, c.code) })
	}
	in(t, "a channel can be named", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("answer", w.api(member, "chat.postMessage", args{"channel": "#payments", "text": "x"}), args{"channel": payments})
	})
	in(t, "a permalink leads to the message in its thread", slack.Config{}, func(_ *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		ts := w.post(member, general, root, "reply")
		res := w.do("GET", "http://"+host+"/api/chat.getPermalink?channel="+general+"&message_ts="+ts, bot, "", nil, nil)
		w.want("answer", res.body, args{
			"permalink": "http://" + host + "/archives/" + general + "/p" + strings.Replace(ts, ".", "", 1) + "?thread_ts=" + root + "&cid=" + general,
		})
		w.refused(bot, "chat.getPermalink", args{"channel": general, "message_ts": "1.0"}, "message_not_found")
	})
	in(t, "an archived channel takes no messages", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		ts := w.post(member, payments, "", "x")
		s.event()
		w.refused(member, "conversations.archive", args{"channel": payments}, "restricted_action")
		w.api(admin, "conversations.archive", args{"channel": payments})
		w.want("event", s.event(), args{"type": "channel_archive", "channel": payments, "user": "U0ADMIN"})
		w.refused(admin, "conversations.archive", args{"channel": payments}, "already_archived")
		w.refused(member, "chat.postMessage", args{"channel": payments, "text": "x"}, "is_archived")
		w.refused(member, "chat.update", args{"channel": payments, "ts": ts, "text": "y"}, "is_archived")
		w.refused(bot, "chat.postEphemeral", args{"channel": payments, "user": "U0MEMBER", "text": "x"}, "is_archived")
		w.want("info", w.api(bot, "conversations.info", args{"channel": payments}), args{"channel.is_archived": true})
		w.api(admin, "conversations.unarchive", args{"channel": payments})
		w.refused(admin, "conversations.unarchive", args{"channel": payments}, "not_archived")
		w.post(member, payments, "", "y")
	})
}

func TestThreads(t *testing.T) {
	t.Parallel()
	in(t, "a reply names its thread", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		res := w.api(bot, "chat.postMessage", args{"channel": general, "thread_ts": root, "text": "reply"})
		w.want("answer", res, args{"message.thread_ts": root})
		w.want("event", s.event(), args{"thread_ts": root, "parent_user_id": "U0MEMBER"})
		w.want("history", w.api(bot, "conversations.history", args{"channel": general}), args{
			"messages.0.ts": root, "messages.0.thread_ts": root, "messages.0.reply_count": 1, "messages.0.latest_reply": res["ts"],
			"messages.0.reply_users": []string{"U0FLAUDE"}, "messages.1": nil,
		})
	})
	in(t, "a reply to a deleted first message is posted beside the thread", slack.Config{}, func(_ *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		w.api(member, "chat.delete", args{"channel": general, "ts": root})
		w.want("answer", w.api(bot, "chat.postMessage", args{"channel": general, "thread_ts": root, "text": "late"}), args{"message.thread_ts": nil})
		w.refused(bot, "conversations.replies", args{"channel": general, "ts": root}, "thread_not_found")
	})
	in(t, "a deleted first message with replies leaves a tombstone", slack.Config{}, func(_ *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		w.post(admin, general, root, "reply")
		w.api(member, "chat.delete", args{"channel": general, "ts": root})
		w.want("replies", w.api(bot, "conversations.replies", args{"channel": general, "ts": root}),
			args{"messages.0.subtype": "tombstone", "messages.0.ts": root, "messages.1.text": "reply"})
		w.want("history", w.api(bot, "conversations.history", args{"channel": general}), args{"messages.0.subtype": "tombstone"})
		w.want("answer", w.api(bot, "chat.postMessage", args{"channel": general, "thread_ts": root, "text": "late"}), args{"message.thread_ts": nil})
	})
	in(t, "of a deleted first message the app is told as of an edit, and of its end with its last reply", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		reply := w.post(admin, general, root, "reply")
		s.event()
		w.api(member, "chat.delete", args{"channel": general, "ts": root})
		w.want("event", s.event(), args{
			"subtype": "message_changed", "hidden": true, "deleted_ts": nil, "message.subtype": "tombstone", "message.ts": root, "message.thread_ts": root,
			"message.user": "USLACKBOT", "message.text": "This message was deleted.", "message.edited": nil, "message.reply_count": 1,
			"previous_message.text": "root", "previous_message.thread_ts": root, "previous_message.user": "U0MEMBER",
		})
		w.api(admin, "chat.delete", args{"channel": general, "ts": reply})
		w.want("event", s.event(), args{"subtype": "message_deleted", "deleted_ts": reply, "previous_message.text": "reply"})
		w.want("event", s.event(), args{"subtype": "message_deleted", "deleted_ts": root, "previous_message.subtype": "tombstone", "previous_message.ts": root})
		w.refused(bot, "conversations.replies", args{"channel": general, "ts": root}, "thread_not_found")
	})
	in(t, "a reply to a reply goes to its thread", slack.Config{}, func(_ *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		ts := w.post(member, general, root, "reply")
		w.want("answer", w.api(bot, "chat.postMessage", args{"channel": general, "thread_ts": ts, "text": "x"}), args{"message.thread_ts": root})
	})
	in(t, "a reply can be sent to the channel too", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		w.api(member, "chat.postMessage", args{"channel": general, "thread_ts": root, "reply_broadcast": true, "text": "for all"})
		w.want("event", s.event(), args{"subtype": "thread_broadcast", "thread_ts": root, "root.text": "root"})
		if got := texts(w.api(bot, "conversations.history", args{"channel": general})["messages"]); got != "for all|root" {
			t.Errorf("history = %s", got)
		}
	})
}

func TestPaging(t *testing.T) {
	t.Parallel()
	// follow calls a method page by page.
	follow := func(w *world, method string, a args, list string) (pages []string) {
		for range 20 {
			res := w.api(bot, method, a)
			pages = append(pages, texts(res[list]))
			next, _ := at(res, "response_metadata.next_cursor").(string)
			if more, ok := res["has_more"].(bool); ok && more != (next != "") {
				t.Errorf("has_more = %t with the cursor %q", more, next)
			}
			if next == "" {
				return pages
			}
			a["cursor"] = next
		}
		t.Fatal("the pages do not end")
		return nil
	}
	in(t, "history comes newest first, page by page", slack.Config{}, func(t *testing.T, w *world) {
		for i := range 5 {
			w.post(member, general, "", strconv.Itoa(i))
		}
		if got := fmt.Sprint(follow(w, "conversations.history", args{"channel": general, "limit": 2}, "messages")); got != "[4|3 2|1 0]" {
			t.Errorf("pages = %s", got)
		}
	})
	in(t, "replies come oldest first, page by page, also when one comes or goes meanwhile", slack.Config{}, func(t *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		for i := range 4 {
			w.post(member, general, root, strconv.Itoa(i))
		}
		if got := fmt.Sprint(follow(w, "conversations.replies", args{"channel": general, "ts": root, "limit": 2}, "messages")); got != "[root|0 1|2 3]" {
			t.Errorf("pages = %s", got)
		}
		res := w.api(bot, "conversations.replies", args{"channel": general, "ts": root, "limit": 2})
		next := w.api(bot, "conversations.replies", args{"channel": general, "ts": root, "limit": 2, "cursor": at(res, "response_metadata.next_cursor")})
		first := at(next, "messages.0.ts")
		w.api(member, "chat.delete", args{"channel": general, "ts": first})
		next = w.api(bot, "conversations.replies", args{"channel": general, "ts": root, "limit": 2, "cursor": at(res, "response_metadata.next_cursor")})
		if got := texts(next["messages"]); got != "2|3" {
			t.Errorf("after a deletion the second page is %s", got)
		}
	})
	in(t, "oldest and latest bound them, the first message of a thread apart", slack.Config{}, func(t *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		var ts []string
		for i := range 4 {
			ts = append(ts, w.post(member, general, root, strconv.Itoa(i)))
		}
		for _, c := range []struct {
			a    args
			want string
		}{
			{args{"oldest": ts[1]}, "root|2|3"},
			{args{"oldest": ts[1], "inclusive": true}, "root|1|2|3"},
			{args{"latest": ts[1]}, "root|0"},
			{args{"oldest": ts[0], "latest": ts[2], "inclusive": true}, "root|0|1|2"},
			{args{"oldest": "0"}, "root|0|1|2|3"},
			{args{"oldest": "4102444800"}, "root"},
		} {
			c.a["channel"], c.a["ts"] = general, root
			if got := texts(w.api(bot, "conversations.replies", c.a)["messages"]); got != c.want {
				t.Errorf("%s = %s, want %s", w.json(c.a), got, c.want)
			}
		}
		w.refused(bot, "conversations.history", args{"channel": general, "oldest": "soon"}, "invalid_ts_oldest")
		w.refused(bot, "conversations.history", args{"channel": general, "latest": "soon"}, "invalid_ts_latest")
	})
	in(t, "the usual page of history has 100, the longest 999", slack.Config{}, func(t *testing.T, w *world) {
		for range 101 {
			w.post(member, general, "", "x")
		}
		res := w.api(bot, "conversations.history", args{"channel": general})
		if n := len(res["messages"].([]any)); n != 100 || res["has_more"] != true {
			t.Errorf("%d messages, has_more %v", n, res["has_more"])
		}
		w.api(bot, "conversations.history", args{"channel": general, "limit": 999})
		w.refused(bot, "conversations.history", args{"channel": general, "limit": 1000}, "invalid_limit")
		w.refused(bot, "conversations.history", args{"channel": general, "limit": "x"}, "invalid_limit")
		w.refused(bot, "conversations.history", args{"channel": general, "cursor": "x"}, "invalid_cursor")
	})
	in(t, "channels, members and people have pages too", slack.Config{}, func(_ *testing.T, w *world) {
		res := w.api(admin, "conversations.list", args{"types": "public_channel,im", "limit": 2})
		w.want("channels", res, args{"channels.0.name": "general", "channels.1.name": "payments", "channels.2": nil})
		res = w.api(admin, "conversations.list", args{"types": "public_channel,im", "limit": 2, "cursor": at(res, "response_metadata.next_cursor")})
		w.want("the rest", res, args{"channels.0.is_im": true, "channels.0.user": "U0FLAUDE", "response_metadata.next_cursor": ""})
		res = w.api(bot, "conversations.members", args{"channel": general, "limit": 3})
		next := w.api(bot, "conversations.members", args{"channel": general, "limit": 3, "cursor": at(res, "response_metadata.next_cursor")})
		w.want("members", args{"a": res["members"], "b": next["members"]}, args{
			"a": []string{"U0ADMIN", "U0CI", "U0FLAUDE"}, "b": []string{"U0GUEST", "U0MEMBER", "U0STRANGER"},
		})
		res = w.api(bot, "users.list", args{"limit": 4})
		w.want("people", w.api(bot, "users.list", args{"limit": 4, "cursor": at(res, "response_metadata.next_cursor")}), args{"members.0.id": "U0FLAUDE"})
	})
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	meta := args{"event_type": "flaudebot_turn", "event_payload": args{"session": "s", "turn": "t", "part": "1"}}
	in(t, "is kept, and its payload given only to who asks for it", slack.Config{}, func(_ *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		w.api(bot, "chat.postMessage", args{"channel": general, "thread_ts": root, "text": "x", "metadata": meta})
		res := w.api(bot, "conversations.replies", args{"channel": general, "ts": root})
		w.want("unasked", res, args{"messages.1.metadata": args{"event_type": "flaudebot_turn"}})
		res = w.api(admin, "conversations.replies", args{"channel": general, "ts": root, "include_all_metadata": true})
		w.want("asked", res, args{"messages.1.metadata": meta})
	})
	in(t, "stays through an edit without, changes with one, goes with {}", slack.Config{}, func(_ *testing.T, w *world) {
		ts := w.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "metadata": meta})["ts"]
		now := func() any {
			return at(w.api(bot, "conversations.history", args{"channel": general, "include_all_metadata": true}), "messages.0")
		}
		w.api(bot, "chat.update", args{"channel": general, "ts": ts, "text": "y"})
		w.want("kept", now(), args{"metadata": meta, "text": "y"})
		w.api(bot, "chat.update", args{"channel": general, "ts": ts, "text": "y", "metadata": args{"event_type": "other", "event_payload": args{"a": 1}}})
		w.want("changed", now(), args{"metadata.event_type": "other", "metadata.event_payload.a": 1})
		w.api(bot, "chat.update", args{"channel": general, "ts": ts, "text": "y", "metadata": args{}})
		w.want("gone", now(), args{"metadata": nil})
	})
	for _, c := range []struct {
		name, warning string
		meta          args
	}{
		{"a type with a space", "invalid_metadata_schema", args{"event_type": "a turn", "event_payload": args{}}},
		{"no payload", "invalid_metadata_schema", args{"event_type": "a"}},
		{"a payload above 4,000 bytes", "metadata_too_large", args{"event_type": "a", "event_payload": args{"x": strings.Repeat("x", 4000)}}},
	} {
		in(t, c.name+" is ignored with a warning", slack.Config{}, func(_ *testing.T, w *world) {
			res := w.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "metadata": c.meta})
			w.want("answer", res, args{"warning": c.warning, "message.metadata": nil})
		})
	}
}

func TestReactions(t *testing.T) {
	t.Parallel()
	in(t, "come and go with events", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		ts := w.post(member, general, "", "x")
		s.event()
		eyes := args{"channel": general, "timestamp": ts, "name": "eyes"}
		w.api(bot, "reactions.add", eyes)
		w.want("event", s.event(), args{
			"type": "reaction_added", "user": "U0FLAUDE", "reaction": "eyes", "item_user": "U0MEMBER", "item.ts": ts, "item.channel": general, "item.type": "message",
		})
		w.api(admin, "reactions.add", eyes)
		w.want("get", w.api(bot, "reactions.get", eyes), args{"message.reactions.0.count": 2, "message.reactions.0.users": []string{"U0FLAUDE", "U0ADMIN"}})
		w.refused(bot, "reactions.add", eyes, "already_reacted")
		w.api(bot, "reactions.remove", eyes)
		s.event()
		w.want("event", s.event(), args{"type": "reaction_removed", "user": "U0FLAUDE"})
		w.refused(bot, "reactions.remove", eyes, "no_reaction")
		w.api(admin, "reactions.remove", eyes)
		w.want("none are left", w.api(bot, "reactions.get", eyes), args{"message.reactions": nil})
		w.refused(bot, "reactions.add", args{"channel": general, "timestamp": ts, "name": "Not An Emoji"}, "invalid_name")
		w.refused(bot, "reactions.add", args{"channel": general, "timestamp": "1.0", "name": "eyes"}, "message_not_found")
	})
}

func TestEphemeral(t *testing.T) {
	t.Parallel()
	in(t, "only one person sees it, in no history", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		w.api(bot, "chat.postEphemeral", args{"channel": general, "user": "U0MEMBER", "thread_ts": root, "text": "psst"})
		s.none()
		w.want("its person", w.local(member, "seen", args{"channel": general, "thread_ts": root}), args{"ephemeral.0.text": "psst", "ephemeral.0.is_ephemeral": true})
		w.want("another", w.local(admin, "seen", args{"channel": general, "thread_ts": root}), args{"ephemeral": []any{}})
		w.want("elsewhere", w.local(member, "seen", args{"channel": general}), args{"ephemeral": []any{}})
		if got := texts(w.api(member, "conversations.replies", args{"channel": general, "ts": root})["messages"]); got != "root" {
			t.Errorf("replies = %s", got)
		}
		w.refused(bot, "chat.postEphemeral", args{"channel": payments, "user": "U0GUEST", "text": "psst"}, "user_not_in_channel")
	})
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	limited := slack.Config{RateLimits: true}
	in(t, "a channel takes one message a second after a burst, and Retry-After says when", limited, func(t *testing.T, w *world) {
		post := args{"channel": general, "text": "x"}
		for range 10 {
			w.api(bot, "chat.postMessage", post)
		}
		res := w.form(bot, "chat.postMessage", post)
		if res.status != 429 || res.header.Get("Retry-After") != "1" || res.body["error"] != "rate_limited" || res.body["ok"] != false {
			t.Fatalf("the eleventh = %d %s, Retry-After %q", res.status, res.raw, res.header.Get("Retry-After"))
		}
		w.api(bot, "chat.postMessage", args{"channel": payments, "text": "another channel has its own"})
		for range 5 {
			time.Sleep(time.Second)
			w.api(bot, "chat.postMessage", post)
			if again := w.form(bot, "chat.postMessage", post); again.status != 429 {
				t.Fatalf("two within a second = %d", again.status)
			}
		}
		w.post(member, general, "", "people type as they like")
	})
	for _, c := range []struct {
		method    string
		token     string
		a         args
		perMinute int
	}{
		{"conversations.list", bot, nil, 20},
		{"chat.update", bot, args{"channel": general, "text": "y"}, 50},
		{"conversations.replies", bot, args{"channel": general}, 50},
		{"users.info", bot, args{"user": "U0MEMBER"}, 100},
		{"apps.connections.open", app, nil, 50},
	} {
		in(t, fmt.Sprintf("%s: %d a minute", c.method, c.perMinute), limited, func(t *testing.T, w *world) {
			a := args{}
			maps.Copy(a, c.a)
			if a["channel"] != nil {
				a["ts"] = w.post(bot, general, "", "x")
			}
			for range c.perMinute / 2 { // a burst
				w.api(c.token, c.method, a)
			}
			res := w.form(c.token, c.method, a)
			if res.status != 429 || res.body["error"] != "ratelimited" || res.header.Get("Retry-After") == "" {
				t.Fatalf("after the burst = %d %s", res.status, res.raw)
			}
			for start, n := time.Now(), 0; ; n++ {
				if time.Since(start) >= 3*time.Minute {
					if most := c.perMinute * 3; n < most*8/10 || n > most*11/10 {
						t.Errorf("%d calls in three minutes, want about %d", n, most)
					}
					break
				}
				for res := w.form(c.token, c.method, a); res.status == 429; res = w.form(c.token, c.method, a) {
					wait, err := time.ParseDuration(res.header.Get("Retry-After") + "s")
					if err != nil || wait < time.Second {
						t.Fatalf("Retry-After = %q", res.header.Get("Retry-After"))
					}
					time.Sleep(wait)
				}
			}
		})
	}
	in(t, "a generous Slack grants all of them so many times", slack.Config{RateLimits: true, Generosity: 3}, func(t *testing.T, w *world) {
		ts := w.post(member, general, "", "x")
		for method, most := range map[string]int{"chat.postMessage": 30, "reactions.get": 75} {
			a := args{"channel": general, "text": "x", "timestamp": ts}
			for range most { // a burst
				w.api(bot, method, a)
			}
			if res := w.form(bot, method, a); res.status != 429 {
				t.Errorf("%s after %d calls = %d", method, most, res.status)
			}
		}
	})
	in(t, "are off unless asked for", slack.Config{}, func(_ *testing.T, w *world) {
		for range 100 {
			w.post(bot, general, "", "x")
		}
	})
}
