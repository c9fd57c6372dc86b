package slack_test

import (
	"strings"
	"testing"

	"flaudebot/local/slack"
)

func TestShare(t *testing.T) {
	t.Parallel()
	in(t, "a forwarded message is an attachment that says whose it is, from where", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		ts := w.post(admin, payments, "", "the build is red")
		s.event()
		res := w.local(member, "share", args{"channel": payments, "ts": ts, "to": general, "text": mention + "fix it"})
		w.want("the answer", res, args{"ok": true, "channel": general})
		w.want("the event", s.event(), args{
			"text": mention + "fix it", "user": "U0MEMBER", "attachments.0.is_share": true, "attachments.0.text": "the build is red", "attachments.0.author_id": "U0ADMIN",
			"attachments.0.channel_name": "payments", "attachments.0.from_url": "http://" + host + "/archives/" + payments + "/p" + strings.Replace(ts, ".", "", 1),
			"attachments.0.message_blocks.0.message.blocks.0.type": "rich_text", "attachments.0.ts": ts,
		})
		w.want("a mention too", s.event(), args{"type": "app_mention", "attachments.0.is_share": true})
		w.want("from where one is not", w.local(guest, "share", args{"channel": payments, "ts": ts, "to": general}), args{"error": "channel_not_found"})
		w.want("to where one is not", w.local(guest, "share", args{"channel": general, "ts": res["ts"], "to": payments}), args{"error": "channel_not_found"})
	})
	in(t, "another app posts attachments, and says that it is one", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.want("posted", w.api(ci, "chat.postMessage", args{"channel": general, "attachments": []any{args{"title": "Build 7", "text": "failed", "is_share": true}}}), args{"ok": true})
		w.want("the event", s.event(), args{
			"bot_id": "B0CI", "user": "U0CI", "bot_profile.name": "CI", "attachments.0.title": "Build 7", "attachments.0.id": 1, "attachments.0.is_share": nil,
		})
		w.want("auth.test", w.api(ci, "auth.test", nil), args{"user_id": "U0CI", "bot_id": "B0CI"})
		w.refused(ci, "views.open", args{"trigger_id": "x", "view": args{}}, "not_allowed_token_type")
		w.refused(ci, "chat.postMessage", args{"channel": payments, "text": "x"}, "not_in_channel")
		w.refused(ci, "chat.postMessage", args{"channel": general, "attachments": "x"}, "invalid_attachments")
		w.refused(ci, "chat.postMessage", args{"channel": general, "attachments": make([]args, 101)}, "too_many_attachments")
		w.refused(ci, "chat.postMessage", args{"channel": general, "attachments": []any{args{"blocks": []any{args{"type": "nonsense"}}}}}, "invalid_blocks")
	})
	in(t, "a public channel is known to full members and apps that are not in it, and its messages are not", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("in public", w.api(ci, "conversations.info", args{"channel": payments}), args{"channel.name": "payments", "channel.is_member": false, "channel.is_private": false})
		w.refused(ci, "conversations.history", args{"channel": payments}, "not_in_channel")
		w.refused(guest, "conversations.info", args{"channel": payments}, "channel_not_found")
		w.api(admin, "admin.conversations.convertToPrivate", args{"channel_id": payments})
		w.refused(ci, "conversations.info", args{"channel": payments}, "channel_not_found")
	})
}
