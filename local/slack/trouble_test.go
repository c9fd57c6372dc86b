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

// trouble asks for some, which must be understood.
func (w *world) trouble(a args) {
	w.t.Helper()
	w.want("trouble", w.local(admin, "trouble", a), args{"ok": true})
}

// ended waits for the end of a connection, and checks that nothing comes before it.
func (s *socket) ended() {
	s.w.t.Helper()
	select {
	case f, open := <-s.frames:
		if open {
			s.w.t.Errorf("a frame before the end: %s", s.w.json(f))
		}
	case <-time.After(s.w.patience):
		s.w.t.Error("it never ends")
	}
}

// TestTrouble: each fault of the sockets does what it says, and no more.
func TestTrouble(t *testing.T) {
	t.Parallel()
	in(t, "sockets are refused, or end before or after hello, until they are not", slack.Config{}, func(t *testing.T, w *world) {
		open := func() string { return w.api(app, "apps.connections.open", nil)["url"].(string) }
		w.trouble(args{"refuse": "dial"})
		if _, res, err := websocket.Dial(context.Background(), open(), &websocket.DialOptions{HTTPClient: w.http}); err == nil || res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("dial = %v", err)
		}
		w.trouble(args{"refuse": "hello"})
		w.dial(open()).ended()
		for how, kind := range map[string]string{"after_hello": "hello", "link_disabled": "disconnect", "too_many_websockets": "disconnect"} {
			w.trouble(args{"refuse": how})
			s := w.dial(open())
			w.want(how, s.next(), args{"type": kind})
			s.ended()
		}
		w.trouble(args{"refuse": "nothing"})
		w.post(member, general, "", "hello")
		w.want("event", w.connect().event(), args{"text": "hello"})
		synctest.Wait() // the ack arrives
		w.want("what was granted", w.local(admin, "deliveries", nil), args{"connections": 1, "first": 0, "again": 1, "acks": 1})
		w.want("nonsense", w.local(admin, "trouble", args{"refuse": "softly"}), args{"ok": false, "error": "invalid_arguments"})
	})
	for where, comes := range map[string]bool{"event": false, "sent": true, "ack": true} {
		in(t, "a connection breaks once at "+where+", and the event comes again", slack.Config{}, func(_ *testing.T, w *world) {
			s := w.connect()
			w.trouble(args{"cut": where})
			w.post(member, general, "", "listen")
			if comes {
				f := s.next()
				if where == "ack" {
					s.ack(f, nil)
				}
			}
			s.ended()
			again := w.connect()
			f := again.next()
			w.want("again", f, args{"retry_attempt": 1, "payload.event.text": "listen"})
			again.ack(f, nil)
			time.Sleep(10 * time.Minute)
			again.none()
		})
	}
	in(t, "over a ghost passes nothing, and it stays open", slack.Config{AckTimeout: time.Second}, func(t *testing.T, w *world) {
		s := w.connect()
		w.local(admin, "socket", args{"close": "ghost", "one": true})
		for len(s.pings) > 0 {
			<-s.pings
		}
		w.post(member, general, "", "into the void")
		time.Sleep(time.Minute)
		s.none()
		if len(s.pings) > 0 {
			t.Error("it is still pinged")
		}
		other := w.connect()
		w.want("the other gets it in the end", other.event(), args{"text": "into the void"})
		w.local(admin, "socket", args{"close": "warning"})
		w.want("the other alone is warned", other.next(), args{"reason": "warning"})
		s.none()
	})
	in(t, "an event goes over two connections at once", slack.Config{}, func(t *testing.T, w *world) {
		one, two := w.connect(), w.connect()
		w.trouble(args{"copies": 2})
		w.post(member, general, "", "twice")
		a, b := one.next(), two.next()
		if at(a, "payload.event_id") != at(b, "payload.event_id") || a["envelope_id"] == b["envelope_id"] {
			t.Errorf("%s and %s, want one event in two envelopes", w.json(a), w.json(b))
		}
		one.ack(a, nil)
		two.ack(b, nil)
		time.Sleep(10 * time.Minute)
		one.none()
		two.none()
	})
	in(t, "events are kept back and come in another order", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.trouble(args{"hold": true})
		w.post(member, general, "", "one")
		w.post(member, general, "", "two")
		s.none()
		w.trouble(args{"release": "reversed"})
		w.want("first", s.event(), args{"text": "two"})
		w.want("second", s.event(), args{"text": "one"})
		w.post(member, general, "", "three")
		w.want("third", s.event(), args{"text": "three"})
	})
	in(t, "any frame can be sent", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.trouble(args{"frame": `{"type":"of another time"}`})
		w.want("frame", s.next(), args{"type": "of another time"})
	})
	in(t, "dials, uploads and downloads fail by name", slack.Config{}, func(t *testing.T, w *world) {
		fault := func(a args) {
			w.do(http.MethodPost, "http://"+host+"/local/faults", "", "application/json", w.json(a), nil)
		}
		for _, name := range []string{"link", "upload", "files"} {
			fault(args{"method": name, "status": 503, "nth": 1})
			path := map[string]string{"link": "/link", "upload": "/upload/F1", "files": "/files/F1"}[name]
			method := map[bool]string{true: http.MethodPost, false: http.MethodGet}[name == "upload"]
			if got := w.do(method, "http://"+host+path, bot, "", nil, nil); got.status != http.StatusServiceUnavailable {
				t.Errorf("%s = %d, want 503", name, got.status)
			}
		}
		fault(args{"method": "auth.test", "body": "<html>502", "status": 502, "nth": 1})
		if got := w.form(bot, "auth.test", nil); got.status != http.StatusBadGateway || !strings.HasPrefix(got.raw, "<html>") {
			t.Errorf("auth.test = %d %s, want a page", got.status, got.raw)
		}
		fault(args{"method": "auth.test", "status": 429, "retry_after": 7, "nth": 1})
		if got := w.form(bot, "auth.test", nil); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") != "7" {
			t.Errorf("auth.test = %d, Retry-After %s, want 429 and 7", got.status, got.header.Get("Retry-After"))
		}
	})
}

// TestMembership: what an admin can do to a channel under the app's feet.
func TestMembership(t *testing.T) {
	t.Parallel()
	in(t, "the app is taken out and hears nothing, and is let in again", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.api(admin, "conversations.kick", args{"channel": general, "user": "U0FLAUDE"})
		w.refused(bot, "chat.postMessage", args{"channel": general, "text": "still here?"}, "not_in_channel")
		w.refused(admin, "conversations.kick", args{"channel": general, "user": "U0FLAUDE"}, "not_in_channel")
		w.post(member, general, "", "it is gone")
		synctest.Wait()
		s.none()
		w.api(admin, "conversations.invite", args{"channel": general, "users": "U0FLAUDE"})
		w.want("event", s.event(), args{"type": "member_joined_channel", "user": "U0FLAUDE"})
	})
	in(t, "a channel becomes a private one and keeps its id", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		w.refused(member, "admin.conversations.convertToPrivate", args{"channel_id": general}, "restricted_action")
		w.api(admin, "admin.conversations.convertToPrivate", args{"channel_id": general})
		w.post(member, general, "", "hush")
		w.want("event", s.event(), args{"text": "hush", "channel": general, "channel_type": "group"})
		w.want("list", w.api(bot, "users.conversations", args{"types": "private_channel"}), args{"channels.0.id": general})
	})
	in(t, "to the app a person's id names their DM", slack.Config{}, func(_ *testing.T, w *world) {
		w.want("post", w.api(bot, "chat.postMessage", args{"channel": "U0MEMBER", "text": "psst"}), args{"channel": "D0MEMBER"})
		w.refused(admin, "chat.postMessage", args{"channel": "U0MEMBER", "text": "psst"}, "channel_not_found")
	})
}
