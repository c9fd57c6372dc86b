package slack_test

import (
	"net/http"
	"strings"
	"testing"

	"flaudebot/local/edge"
	"flaudebot/local/slack"
)

func TestPeople(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, token, id, channels string
		info                      args
	}{
		{"the admin", admin, "U0ADMIN", "C0GENERAL C0PAYMENTS D0ADMIN", args{"is_admin": true, "is_restricted": false, "is_stranger": false, "team_id": "T0LOCAL"}},
		{"the member", member, "U0MEMBER", "C0GENERAL C0PAYMENTS D0MEMBER", args{"is_admin": false, "is_restricted": false}},
		{"the guest, in general only", guest, "U0GUEST", "C0GENERAL D0GUEST", args{"is_restricted": true, "is_ultra_restricted": true}},
		{"the stranger, of another workspace", stranger, "U0STRANGER", "C0GENERAL", args{"is_stranger": true, "team_id": "T0OTHER", "is_admin": false}},
		{"the bot", bot, "U0FLAUDE", "C0GENERAL C0PAYMENTS D0ADMIN D0MEMBER D0GUEST", args{"is_bot": true}},
	} {
		in(t, c.name, slack.Config{}, func(t *testing.T, w *world) {
			w.want("auth.test", w.api(c.token, "auth.test", nil), args{"user_id": c.id, "team_id": at(w.api(bot, "users.info", args{"user": c.id}), "user.team_id")})
			w.want("users.info", w.api(bot, "users.info", args{"user": c.id})["user"], c.info)
			var ids []string
			list := w.api(c.token, "conversations.list", args{"types": "public_channel,private_channel,mpim,im"})
			for _, ch := range list["channels"].([]any) {
				ids = append(ids, at(ch, "id").(string))
			}
			if got := strings.Join(ids, " "); got != c.channels {
				t.Errorf("channels = %s, want %s", got, c.channels)
			}
			if strings.Contains(c.channels, payments) {
				return
			}
			for method, a := range map[string]args{
				"chat.postMessage": {"channel": payments, "text": "x"}, "conversations.history": {"channel": payments},
				"conversations.info": {"channel": payments}, "conversations.replies": {"channel": payments, "ts": "1.0"},
			} {
				w.refused(c.token, method, a, "channel_not_found")
			}
			w.want("seen", w.local(c.token, "seen", args{"channel": payments}), args{"ok": false, "error": "channel_not_found"})
		})
	}
	in(t, "a stranger's message tells where it comes from", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.post(stranger, general, "", mention+"hi")
		w.want("message", s.event(), args{"user": "U0STRANGER", "user_team": "T0OTHER", "source_team": "T0OTHER", "team": "T0OTHER"})
		w.want("app_mention", s.event(), args{"type": "app_mention", "user_team": "T0OTHER"})
		w.want("info", w.api(bot, "conversations.info", args{"channel": general}), args{"channel.is_ext_shared": true})
		w.want("info", w.api(bot, "conversations.info", args{"channel": payments}), args{"channel.is_ext_shared": false})
	})
	in(t, "the bot says who it is", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("auth.test", w.api(bot, "auth.test", nil), args{"user_id": "U0FLAUDE", "bot_id": "B0FLAUDE", "team_id": "T0LOCAL", "url": "http://" + host + "/"})
		w.want("bots.info", w.api(bot, "bots.info", args{"bot": "B0FLAUDE"}), args{"bot.user_id": "U0FLAUDE"})
		w.want("team.info", w.api(bot, "team.info", nil), args{"team.id": "T0LOCAL"})
		w.refused(bot, "users.info", args{"user": "U9"}, "user_not_found")
		w.refused(bot, "usergroups.users.list", args{"usergroup": "S1"}, "no_such_subteam")
		w.want("usergroups.list", w.api(bot, "usergroups.list", nil), args{"usergroups.0.id": "S0TEAM", "usergroups.0.handle": "team"})
	})
	in(t, "a bot is told of by its id, and without one it is the caller", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("another app's", w.api(bot, "bots.info", args{"bot": "B0CI"}), args{"bot.app_id": "A0CI", "bot.user_id": "U0CI"})
		w.want("its own", w.api(ci, "bots.info", nil), args{"bot.app_id": "A0CI"})
		w.refused(bot, "bots.info", args{"bot": "B9"}, "bot_not_found")
	})
	in(t, "a token's scopes are told with each answer to it", slack.Config{Scopes: []string{"chat:write", "files:read"}}, func(t *testing.T, w *world) {
		told := func(token, method string) string { return w.form(token, method, nil).header.Get("X-Oauth-Scopes") }
		if got := told(bot, "auth.test"); got != "chat:write,files:read" {
			t.Errorf("the bot's are %q", got)
		}
		if got := told(member, "auth.test"); got != "" {
			t.Errorf("a person's are %q", got)
		}
		w.local(admin, "trouble", args{"lacks": []string{"files:read"}})
		if got := told(bot, "auth.test"); got != "chat:write" {
			t.Errorf("without one they are %q", got)
		}
		w.local(admin, "trouble", args{"lacks": []string{}})
		if got := told(bot, "auth.test"); got != "chat:write,files:read" {
			t.Errorf("with it again they are %q", got)
		}
	})
	in(t, "a DM with the bot is opened from both sides", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("a person", w.api(guest, "conversations.open", args{"users": "U0FLAUDE"}), args{"channel.id": "D0GUEST", "channel.user": "U0FLAUDE"})
		w.want("the bot", w.api(bot, "conversations.open", args{"users": "U0GUEST"}), args{"channel.id": "D0GUEST", "channel.user": "U0GUEST"})
		w.refused(stranger, "conversations.open", args{"users": "U0FLAUDE"}, "user_not_found")
	})
	in(t, "conversations.list gives public channels unless asked, and no DMs for mpim", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("usual", w.api(admin, "conversations.list", nil), args{"channels.1.id": payments, "channels.2": nil})
		w.want("mpim", w.api(admin, "conversations.list", args{"types": "mpim"}), args{"channels": []any{}})
		w.refused(admin, "conversations.list", args{"types": "secret"}, "invalid_types")
	})
}

func TestCalls(t *testing.T) {
	t.Parallel()
	in(t, "take the token as header, form or query, and arguments as form, JSON or query", slack.Config{}, func(_ *testing.T, w *world) {
		base := "http://" + host + "/api/conversations.info"
		for name, res := range map[string]answer{
			"header and form":  w.form(member, "conversations.info", args{"channel": general}),
			"all in the form":  w.form("", "conversations.info", args{"channel": general, "token": member}),
			"header and JSON":  w.do(http.MethodPost, base, member, "application/json; charset=utf-8", w.json(args{"channel": general}), nil),
			"header and query": w.do(http.MethodGet, base+"?channel="+general, member, "", nil, nil),
			"all in the query": w.do(http.MethodGet, base+"?channel="+general+"&token="+member, "", "", nil, nil),
			"multipart": w.do(http.MethodPost, base, member, "multipart/form-data; boundary=b",
				[]byte("--b\r\nContent-Disposition: form-data; name=\"channel\"\r\n\r\n"+general+"\r\n--b--\r\n"), nil),
		} {
			w.want(name, res.body, args{"ok": true, "channel.name": "general"})
		}
	})
	in(t, "are refused with Slack's codes", slack.Config{}, func(_ *testing.T, w *world) {
		w.refused("", "auth.test", nil, "not_authed")
		w.refused("xoxb-other", "auth.test", nil, "invalid_auth")
		w.refused(bot, "chat.nonsense", nil, "unknown_method")
		w.refused("", "chat.nonsense", nil, "unknown_method")
		for body, code := range map[string]string{`{"channel"`: "invalid_json", `["channel"]`: "json_not_object"} {
			res := w.do(http.MethodPost, "http://"+host+"/api/chat.postMessage", bot, "application/json", []byte(body), nil)
			w.want(body, res.body, args{"ok": false, "error": code})
		}
	})
}

func TestLocalVerbs(t *testing.T) {
	t.Parallel()
	in(t, "answer 200 with ok and error, whatever happens", slack.Config{}, func(t *testing.T, w *world) {
		w.want("no such verb", w.local(member, "dance", nil), args{"ok": false, "error": "unknown_method"})
		w.want("no token", w.local("", "seen", args{"channel": general}), args{"ok": false, "error": "not_authed"})
		w.want("a wrong token", w.local("xoxp-x", "seen", args{"channel": general}), args{"ok": false, "error": "invalid_auth"})
		w.want("the app's token", w.local(app, "seen", args{"channel": general}), args{"ok": false, "error": "not_allowed_token_type"})
		w.want("the bot's token", w.local(bot, "seen", args{"channel": general}), args{"ok": false, "error": "not_allowed_token_type"})
		for body, code := range map[string]string{`{"channel"`: "invalid_json", `7`: "json_not_object", `null`: "channel_not_found", ``: "channel_not_found"} {
			res := w.do(http.MethodPost, "http://"+host+"/local/seen", member, "", []byte(body), nil)
			if res.status != http.StatusOK {
				t.Errorf("%q = %d", body, res.status)
			}
			w.want(body, res.body, args{"ok": false, "error": code})
		}
		w.want("JSON by any name", w.do(http.MethodPost, "http://"+host+"/local/seen", member, "application/x-www-form-urlencoded",
			w.json(args{"channel": general}), nil).body, args{"ok": true, "messages": []any{}, "ephemeral": []any{}, "views": []any{}})
	})
	in(t, "seen shows a channel without its replies, and a thread with its first message", slack.Config{}, func(_ *testing.T, w *world) {
		root := w.post(member, general, "", "root")
		w.post(admin, general, root, "reply")
		w.post(guest, general, "", "beside")
		w.want("channel", w.local(guest, "seen", args{"channel": general}), args{"messages.0.text": "root", "messages.0.reply_count": 1, "messages.1.text": "beside", "messages.2": nil})
		w.want("thread", w.local(guest, "seen", args{"channel": general, "thread_ts": root}), args{"messages.0.text": "root", "messages.1.text": "reply", "messages.2": nil})
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	faults := func(w *world, f any) map[string]any {
		return w.do(http.MethodPost, "http://"+host+"/local/faults", member, "application/json", w.json(f), nil).body
	}
	in(t, "a call fails with a status, once or for ever, until cleared", slack.Config{}, func(t *testing.T, w *world) {
		w.want("set", faults(w, edge.Fault{Method: "chat.postMessage", Nth: 2, Status: 500}), args{"ok": true})
		w.post(bot, general, "", "first")
		if res := w.form(bot, "chat.postMessage", args{"channel": general, "text": "second"}); res.status != 500 || res.body["error"] != "internal_error" {
			t.Errorf("the second = %d %s", res.status, res.raw)
		}
		w.post(bot, general, "", "third")
		faults(w, edge.Fault{Method: "auth.test", Status: 429})
		for range 2 {
			if res := w.form(bot, "auth.test", nil); res.status != 429 || res.header.Get("Retry-After") != "1" || res.body["error"] != "ratelimited" {
				t.Errorf("auth.test = %d %s", res.status, res.raw)
			}
		}
		faults(w, args{})
		w.api(bot, "auth.test", nil)
		if got := texts(w.api(bot, "conversations.history", args{"channel": general})["messages"]); got != "third|first" {
			t.Errorf("history = %s", got)
		}
	})
	in(t, "an answer is lost though the call took effect", slack.Config{}, func(t *testing.T, w *world) {
		faults(w, edge.Fault{Method: "chat.postMessage", Nth: 1, Drop: true, AfterEffect: true})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+"/api/chat.postMessage?text=x&channel="+general, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bot)
		if res, err := w.http.Do(req); err == nil {
			_ = res.Body.Close()
			t.Errorf("an answer: %s", res.Status)
		}
		if got := texts(w.api(bot, "conversations.history", args{"channel": general})["messages"]); got != "x" {
			t.Errorf("history = %q, want the message", got)
		}
	})
}

func TestDoor(t *testing.T) {
	t.Parallel()
	in(t, "foreign hosts and pages are refused", slack.Config{}, func(t *testing.T, w *world) {
		for name, change := range map[string]func(*http.Request){
			"a host that points here": func(r *http.Request) { r.Host = "evil.example" },
			"a page of another site":  func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
			"a page on another port":  func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:9") },
			"a page without origin":   func(r *http.Request) { r.Header.Set("Origin", "null") },
		} {
			for _, path := range []string{"/", "/api/auth.test", "/local/seen", "/local/faults", "/local/events", "/upload/F1", "/files/F1", "/response/1"} {
				method := http.MethodPost
				if path == "/" || path == "/local/events" || path == "/files/F1" {
					method = http.MethodGet
				}
				if res := w.do(method, "http://"+host+path, member, "", nil, change); res.status != http.StatusForbidden {
					t.Errorf("%s: %s = %d", name, path, res.status)
				}
			}
		}
		res := w.do(http.MethodPost, "http://"+host+"/api/auth.test", member, "", nil, func(r *http.Request) { r.Header.Set("Origin", "http://"+host) })
		w.want("its own page", res.body, args{"ok": true})
	})
	in(t, "the page runs no scripts but its own", slack.Config{Agent: "scripted", Note: "A stand-in answers."}, func(t *testing.T, w *world) {
		res := w.do(http.MethodGet, "http://"+host+"/", "", "", nil, nil)
		if csp := res.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("policy = %q", csp)
		}
		w.want("about", w.do(http.MethodGet, "http://"+host+"/local/about", "", "", nil, nil).body, args{"agent": "scripted", "note": "A stand-in answers."})
	})
}
