package slack_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"flaudebot/local/slack"
)

func TestSocketMode(t *testing.T) {
	t.Parallel()
	in(t, "apps.connections.open takes the app-level token as bearer only", slack.Config{}, func(t *testing.T, w *world) {
		res := w.api(app, "apps.connections.open", nil)
		if u, _ := res["url"].(string); !strings.HasPrefix(u, "ws://"+host+"/link?ticket=") {
			t.Errorf("url = %v", res["url"])
		}
		w.refused(bot, "apps.connections.open", nil, "not_allowed_token_type")
		w.refused(member, "apps.connections.open", nil, "not_allowed_token_type")
		w.refused("", "apps.connections.open", args{"token": app}, "invalid_auth")
		w.refused("", "apps.connections.open", nil, "not_authed")
		w.refused(app, "auth.test", nil, "not_allowed_token_type")
	})
	in(t, "a ticket opens one connection", slack.Config{}, func(t *testing.T, w *world) {
		address := w.api(app, "apps.connections.open", nil)["url"].(string)
		if s := w.dial(address); s.next()["type"] != "hello" {
			t.Error("no hello")
		}
		_, res, err := websocket.Dial(context.Background(), address, &websocket.DialOptions{HTTPClient: w.http})
		if err == nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("the second dial = %v", err)
		}
	})
	in(t, "hello comes first and counts the connections", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("hello", w.connect().hello, args{
			"type": "hello", "num_connections": 1, "connection_info.app_id": "A0FLAUDE", "debug_info.approximate_connection_time": 3600,
		})
		w.want("the second hello", w.connect().hello, args{"num_connections": 2})
	})
	in(t, "pings come at least every 10 s from the start, and the connection lives on", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		last := time.Now()
		for range 100 {
			at := <-s.pings
			if at.Sub(last) > 10*time.Second {
				t.Fatalf("a ping after %s", at.Sub(last))
			}
			last = at
		}
		w.post(member, general, "", "hello")
		w.want("event", s.event(), args{"text": "hello"})
	})
	in(t, "each payload goes to exactly one of up to 10 connections", slack.Config{}, func(t *testing.T, w *world) {
		var all []*socket
		for range 10 {
			all = append(all, w.connect())
		}
		over := w.dial(w.api(app, "apps.connections.open", nil)["url"].(string))
		w.want("the eleventh", over.next(), args{"type": "disconnect", "reason": "too_many_websockets"})
		if _, open := <-over.frames; open {
			t.Error("the eleventh goes on")
		}
		total := 0
		for range 40 {
			w.post(member, general, "", "one")
		}
		synctest.Wait()
		counts, ids := map[int]int{}, map[any]bool{}
		for i, s := range all {
			for len(s.frames) > 0 {
				f := s.next()
				s.ack(f, nil)
				counts[i]++
				ids[at(f, "payload.event_id")] = true
			}
		}
		time.Sleep(10 * time.Minute) // none comes again
		for i, s := range all {
			s.none()
			total += counts[i]
		}
		if total != 40 || len(ids) != 40 {
			t.Errorf("%d payloads of %d events came, want 40 of 40", total, len(ids))
		}
		if len(counts) < 2 {
			t.Errorf("all went to %v: one connection only", counts)
		}
	})
	in(t, "a connection that went makes room", slack.Config{}, func(t *testing.T, w *world) {
		var s *socket
		for range 10 {
			s = w.connect()
		}
		if err := s.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the other end takes note
		w.want("hello", w.connect().hello, args{"type": "hello", "num_connections": 10})
	})
	in(t, "events come in order, wrapped", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		for _, text := range []string{"one", "two", "three"} {
			w.post(member, general, "", text)
		}
		for i, text := range []string{"one", "two", "three"} {
			f := s.next()
			s.ack(f, nil)
			w.want(text, f, args{
				"type": "events_api", "accepts_response_payload": false, "retry_attempt": 0, "retry_reason": "", "payload.type": "event_callback",
				"payload.team_id": "T0LOCAL", "payload.api_app_id": "A0FLAUDE", "payload.event.text": text, "payload.event.channel": general,
				"payload.event.channel_type": "channel", "payload.event.user": "U0MEMBER", "payload.authorizations.0.user_id": "U0FLAUDE",
				"payload.is_ext_shared_channel": true,
			})
			if id, _ := at(f, "payload.event_id").(string); id == "" {
				t.Errorf("event %d has no id", i)
			}
		}
	})
}

func TestRedelivery(t *testing.T) {
	t.Parallel()
	in(t, "an event that is not acked within 3 s comes again at once, after 1 min and after 5 min, and then no more", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		start := time.Now()
		w.post(member, general, "", "listen")
		var id any
		for i, after := range []time.Duration{0, 3 * time.Second, 66 * time.Second, 369 * time.Second} {
			f := s.next()
			if at := time.Since(start).Round(time.Second); at != after {
				t.Errorf("attempt %d comes after %s, want %s", i, at, after)
			}
			reason := ""
			if i > 0 {
				reason = "timeout"
			} else {
				id = at(f, "payload.event_id")
			}
			w.want("attempt", f, args{"retry_attempt": i, "retry_reason": reason, "payload.event_id": id, "payload.event.text": "listen"})
		}
		time.Sleep(time.Hour)
		w.post(member, general, "", "next")
		for f := range s.frames { // the connection may have asked to be replaced meanwhile
			if f["type"] == "events_api" {
				w.want("what comes next", f, args{"payload.event.text": "next"})
				break
			}
		}
	})
	in(t, "an acked event comes once", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.post(member, general, "", "listen")
		s.event()
		time.Sleep(10 * time.Minute)
		s.none()
	})
	in(t, "a late ack counts for nothing", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		w.post(member, general, "", "listen")
		first := s.next()
		second := s.next()
		s.ack(first, nil)
		time.Sleep(2 * time.Minute)
		w.want("the third attempt", s.next(), args{"retry_attempt": 2})
		if first["envelope_id"] == second["envelope_id"] {
			t.Error("both attempts have the same envelope id")
		}
	})
	in(t, "an event of a connection that went comes on another at once", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		w.post(member, general, "", "listen")
		s.next()
		other := w.connect()
		start := time.Now()
		if err := s.ws.CloseNow(); err != nil {
			t.Fatal(err)
		}
		w.want("again", other.next(), args{"retry_attempt": 1, "payload.event.text": "listen"})
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
	in(t, "events that came while no connection was open come later, in order, as retries", slack.Config{}, func(_ *testing.T, w *world) {
		w.post(member, general, "", "one")
		w.post(member, general, "", "two")
		time.Sleep(5 * time.Minute)
		s := w.connect()
		for _, text := range []string{"one", "two"} {
			f := s.next()
			s.ack(f, nil)
			w.want(text, f, args{"retry_attempt": 1, "payload.event.text": text})
		}
		time.Sleep(10 * time.Minute)
		s.none()
	})
	in(t, "events that no connection came for within 6 min are lost", slack.Config{}, func(_ *testing.T, w *world) {
		w.post(member, general, "", "lost")
		time.Sleep(6*time.Minute + time.Second)
		s := w.connect()
		w.post(member, general, "", "heard")
		w.want("event", s.event(), args{"text": "heard"})
	})
	in(t, "slash commands and clicks never come again", slack.Config{}, func(t *testing.T, w *world) {
		w.want("a command with no app", w.local(member, "command", args{"channel": general, "command": "/flaude", "text": "list"}),
			args{"ok": false, "error": "dispatch_failed"})
		s := w.connect()
		ts := w.api(bot, "chat.postMessage", args{"channel": general, "text": "x", "blocks": stopButton()})["ts"]
		s.event()
		start := time.Now()
		w.want("a command that is not acked", w.local(member, "command", args{"channel": general, "command": "/flaude", "text": "list"}),
			args{"ok": false, "error": "operation_timeout"})
		w.want("a click that is not acked", w.local(member, "click", args{"channel": general, "ts": ts, "action_id": "stop"}),
			args{"ok": false, "error": "operation_timeout"})
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("the app had %s, want 3 s each", took)
		}
		w.want("the command", s.next(), args{"type": "slash_commands", "accepts_response_payload": true})
		w.want("the click", s.next(), args{"type": "interactive", "accepts_response_payload": true})
		time.Sleep(10 * time.Minute)
		s.none()
	})
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	in(t, "an old connection is warned, asked to go, spared, and closed", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		start := time.Now()
		for _, step := range []struct {
			reason string
			after  time.Duration
		}{{"warning", time.Hour - 10*time.Second}, {"refresh_requested", time.Hour}} {
			w.want("frame", s.next(), args{"type": "disconnect", "reason": step.reason})
			if after := time.Since(start); after != step.after {
				t.Errorf("%s after %s, want %s", step.reason, after, step.after)
			}
		}
		w.post(member, general, "", "still here")
		w.want("without another it gets what comes", s.event(), args{"text": "still here"})
		other := w.connect()
		for range 5 {
			w.post(member, general, "", "over there")
			other.event()
		}
		s.none()
		if f, open := <-s.frames; open {
			t.Errorf("it goes on: %s", w.json(f))
		}
		if after := time.Since(start); after != time.Hour+10*time.Second {
			t.Errorf("it ends after %s", after)
		}
	})
	in(t, "debug_reconnects=true gives a connection 360 s", slack.Config{}, func(t *testing.T, w *world) {
		start := time.Now()
		s := w.dial(w.api(app, "apps.connections.open", nil)["url"].(string) + "&debug_reconnects=true")
		w.want("hello", s.next(), args{"debug_info.approximate_connection_time": 360})
		s.next()
		w.want("frame", s.next(), args{"reason": "refresh_requested"})
		if after := time.Since(start); after != 360*time.Second {
			t.Errorf("asked to go after %s", after)
		}
	})
	in(t, "a person can have connections replaced, warned, or cut", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		for how, reason := range map[string]string{"warning": "warning", "link_disabled": "link_disabled", "refresh": "refresh_requested"} {
			w.want(how, w.local(admin, "socket", args{"close": how}), args{"ok": true})
			w.want(how, s.next(), args{"type": "disconnect", "reason": reason})
		}
		w.want("nonsense", w.local(admin, "socket", args{"close": "softly"}), args{"ok": false, "error": "invalid_arguments"})
		other := w.connect()
		w.local(admin, "socket", args{})
		if _, open := <-other.frames; open {
			t.Error("the connection goes on")
		}
	})
}

func TestAcks(t *testing.T) {
	t.Parallel()
	list := args{"channel": general, "command": "/flaude", "text": "list"}
	in(t, "the answer to a command comes with the ack and only its person sees it", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		got, res := s.answers(args{"response_type": "ephemeral", "text": "No sessions."}, func() map[string]any { return w.local(member, "command", list) })
		w.want("what the app gets", got, args{
			"type": "slash_commands", "payload.command": "/flaude", "payload.text": "list", "payload.user_id": "U0MEMBER", "payload.user_name": "mira",
			"payload.channel_id": general, "payload.channel_name": "general", "payload.team_id": "T0LOCAL", "payload.api_app_id": "A0FLAUDE",
			"payload.is_enterprise_install": "false", "payload.thread_ts": nil,
		})
		w.want("what the person gets", res, args{"ok": true, "response.text": "No sessions."})
		w.want("what the person sees", w.local(member, "seen", args{"channel": general}), args{"ephemeral.0.text": "No sessions.", "messages": []any{}})
		w.want("what another sees", w.local(admin, "seen", args{"channel": general}), args{"ephemeral": []any{}})
	})
	in(t, "an answer for all is a message of the app", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		s.answers(args{"response_type": "in_channel", "text": "Two sessions."}, func() map[string]any { return w.local(member, "command", list) })
		w.want("what another sees", w.local(admin, "seen", args{"channel": general}), args{"messages.0.text": "Two sessions.", "messages.0.bot_id": "B0FLAUDE"})
	})
	in(t, "a payload that makes an ack 20 KB long is ignored; one byte less is not", slack.Config{}, func(t *testing.T, w *world) {
		s := w.connect()
		empty := len(`{"envelope_id":"00000000-0000-4000-8000-000000000000","payload":{"text":""}}`)
		_, res := s.answers(args{"text": strings.Repeat("x", 20479-empty)}, func() map[string]any { return w.local(member, "command", list) })
		if text, _ := at(res, "response.text").(string); len(text) != 20479-empty {
			t.Errorf("an ack of 20479 bytes: %.80s", w.json(res))
		}
		_, res = s.answers(args{"text": strings.Repeat("x", 20480-empty)}, func() map[string]any { return w.local(member, "command", list) })
		w.want("an ack of 20480 bytes", res, args{"ok": true, "response": nil})
	})
	in(t, "an answer with blocks that Slack refuses is not shown", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		_, res := s.answers(args{"text": "x", "blocks": []any{args{"type": "nonsense"}}}, func() map[string]any { return w.local(member, "command", list) })
		w.want("response", res, args{"ok": true, "response": nil})
		w.want("seen", w.local(member, "seen", args{"channel": general}), args{"ephemeral": []any{}})
	})
	in(t, "what the app whispers before it acks is the response too", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		done := make(chan map[string]any, 1)
		go func() { done <- w.local(member, "command", list) }()
		f := s.next()
		w.api(bot, "chat.postEphemeral", args{"channel": general, "user": "U0MEMBER", "text": "psst"})
		s.ack(f, nil)
		w.want("response", <-done, args{"response.text": "psst"})
	})
	in(t, "commands are refused in threads, and unknown ones anywhere", slack.Config{}, func(_ *testing.T, w *world) {
		ts := w.post(member, general, "", "root")
		w.want("in a thread", w.local(member, "command", args{"channel": general, "command": "/flaude", "thread_ts": ts}),
			args{"ok": false, "error": "command_not_supported_in_threads"})
		w.want("unknown", w.local(member, "command", args{"channel": general, "command": "/nope"}), args{"ok": false, "error": "invalid_command"})
		w.want("not there", w.local(guest, "command", args{"channel": payments, "command": "/flaude"}), args{"ok": false, "error": "channel_not_found"})
	})
}
