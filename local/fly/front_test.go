package fly_test

import (
	"net/http"
	"testing"

	"flaudebot/local/fly"
)

func TestFront(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fly.Config{})
	for _, c := range []struct {
		name, method, path, auth string
		status                   int
		text                     string
	}{
		{"Bearer is taken", "GET", "/v1/apps", "Bearer fly-local", 200, `"acme"`},
		{"FlyV1 is taken, with several tokens", "GET", "/v1/apps", "FlyV1 fly-local-a,fly-local-b", 200, `"acme"`},
		{"a wrong token is refused", "GET", "/v1/apps", "Bearer nonsense", 401, `{"error":"Authenticate: token validation error"}`},
		{"so is one without its scheme", "GET", "/v1/apps", "fly-local", 401, "token validation error"},
		{"so is it for the logs", "GET", "/api/v1/apps/acme/logs", "Bearer nonsense", 401, "token validation error"},
		{"a deploy token makes no apps", "POST", "/v1/apps", "Bearer fly-local-deploy", 403, `{"error":"unauthorized"}`},
		{"and sees no list of them", "GET", "/v1/apps", "Bearer fly-local-deploy", 403, `{"error":"unauthorized"}`},
		{"but uses the one that it is for", "GET", "/v1/apps/acme", "Bearer fly-local-deploy", 200, `"acme"`},
		{"a path that there is not", "GET", "/v1/nothing", "Bearer fly-local", 404, "not_found"},
		{"a machine's id that is none", "GET", of("nonsense", ""), "Bearer fly-local", 400, "invalid machine ID, 'nonsense'"},
		{"a machine that there is not", "GET", of("0123456789abcd", ""), "Bearer fly-local", 404, "not_found: machine not found"},
		{"an app that there is not", "GET", "/v1/apps/other/machines", "Bearer fly-local", 404, "other"},
		{"half a body", "POST", machines, "Bearer fly-local", 400, "invalid_argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := w.in(t).do(c.method, c.path, "{", "Authorization: "+c.auth).is(c.status, c.text)
			if got.header.Get("Fly-Request-Id") == "" {
				t.Error("no request id")
			}
		})
	}
	t.Run("a foreign host is refused, with a request id as well", func(t *testing.T) {
		t.Parallel()
		got := w.in(t).do("GET", "/v1/apps", nil, "Host: evil.example").is(403)
		if got.header.Get("Fly-Request-Id") == "" {
			t.Error("no request id")
		}
	})
	t.Run("request ids differ", func(t *testing.T) {
		t.Parallel()
		w := w.in(t)
		a, b := w.do("GET", "/v1/apps", nil), w.do("GET", "/v1/apps", nil)
		if a.header.Get("Fly-Request-Id") == b.header.Get("Fly-Request-Id") {
			t.Error("two calls have one id")
		}
	})
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	// limited counts how many of n calls are answered with 429.
	limited := func(w *world, n int, method, path string) int {
		count := 0
		for range n {
			if got := w.do(method, path, nil); got.status == http.StatusTooManyRequests {
				got.refused(429, "rate limit exceeded")
				count++
			}
		}
		return count
	}
	t.Run("an action of a machine has a burst of 3, apart from other actions and machines", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{RateLimits: true})
		a, b := w.machine("a", nil), w.machine("b", nil)
		if got := limited(w, 4, "GET", of(a, "metadata")); got != 1 {
			t.Errorf("%d of 4 calls limited, want 1", got)
		}
		if got := limited(w, 3, "GET", of(b, "metadata")) + limited(w, 3, "GET", of(a, "events")); got != 0 {
			t.Errorf("%d calls of others limited, want none", got)
		}
	})
	t.Run("reading a machine has a burst of 10", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{RateLimits: true})
		id := w.machine("a", nil)
		if got := limited(w, 12, "GET", of(id, "")); got < 1 || got > 2 {
			t.Errorf("%d of 12 calls limited, want 1 or 2", got)
		}
	})
	t.Run("lists of an app have a burst of 3", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{RateLimits: true})
		if got := limited(w, 4, "GET", machines); got != 1 {
			t.Errorf("%d of 4 calls limited, want 1", got)
		}
	})
	t.Run("Retry-After comes where it is switched on", func(t *testing.T) {
		t.Parallel()
		for _, on := range []bool{true, false} {
			w := newWorld(t, fly.Config{RateLimits: true, Unsettled: fly.Unsettled{RetryAfter: on}})
			limited(w, 3, "GET", machines)
			if got := w.do("GET", machines, nil).is(429).header.Get("Retry-After"); (got != "") != on {
				t.Errorf("switched on %v: Retry-After %q", on, got)
			}
		}
	})
	t.Run("without them nothing is limited", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		if got := limited(w, 20, "GET", machines); got != 0 {
			t.Errorf("%d calls limited, want none", got)
		}
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	t.Run("each kind has Fly's words", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		for _, c := range []struct {
			call         string
			status       int
			text         string
			method, path string
		}{
			{"machine.create", 409, "aborted: could not reserve resource for machine: insufficient memory", "POST", machines},
			{"machine.create", 412, `"status":"volume_placement_capacity"`, "POST", machines},
			{"machine.create", 422, `"status":"insufficient_capacity"`, "POST", machines},
			{"machine.create", 403, "over the allowed quota", "POST", machines},
			{"machine.create", 408, "deadline_exceeded", "POST", machines},
			{"machine.list", 503, "internal", "GET", machines},
			{"machine.get", 404, "not_found: machine not found", "GET", of("0123456789abcd", "")},
			{"machine.start", 412, "failed_precondition: machine still active, refusing to start", "POST", of("0123456789abcd", "start")},
			{"machine.suspend", 500, "internal", "POST", of("0123456789abcd", "suspend")},
			{"machine.update", 500, "internal", "POST", of("0123456789abcd", "")},
			{"machine.update", 500, "internal", "PUT", of("0123456789abcd", "")},
			{"volume.create", 409, "aborted", "POST", "/v1/apps/acme/volumes"},
			{"volume.extend", 500, "internal", "PUT", "/v1/apps/acme/volumes/vol_1/extend"},
			{"app.get", 401, "Authenticate: token validation error", "GET", "/v1/apps/acme"},
			{"app.list", 500, "internal", "GET", "/v1/apps"},
			{"app.create", 403, "unauthorized", "POST", "/v1/apps"},
			{"logs", 429, "rate limit exceeded", "GET", "/api/v1/apps/acme/logs"},
		} {
			w.local("faults", obj{"method": c.call, "nth": 1, "status": c.status})
			w.do(c.method, c.path, nil).is(c.status, c.text)
			if got := w.do(c.method, c.path, nil); got.status == c.status && c.status != 404 {
				t.Errorf("%s %d: it came twice", c.call, c.status)
			}
		}
	})
	t.Run("a creation's answer is lost after it took effect", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		w.local("faults", obj{"method": "machine.create", "nth": 1, "status": 408, "after_effect": true})
		w.create("m", nil).refused(408, "deadline_exceeded")
		w.create("m", nil).refused(409, "unique machine name violation")
	})
	t.Run("a fault of every call can be taken back", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		w.local("faults", obj{"status": 503})
		w.do("GET", "/v1/apps", nil).is(503)
		w.local("faults", obj{})
		w.do("GET", "/v1/apps", nil).is(200)
	})
}

func TestTrouble(t *testing.T) {
	t.Parallel()
	t.Run("a host that cannot be reached", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		vol := w.volume()
		id := w.started("m", mounting(vol, "/data"))
		w.local("trouble", obj{"machine": id, "host": "unreachable"})
		got := w.do("GET", of(id, ""), nil).is(200).obj()
		if got["host_status"] != "unreachable" || got["config"] != nil || at(got, "incomplete_config.image") != "any" {
			t.Errorf("machine = %v, want no config and an incomplete one", got)
		}
		if got := w.do("GET", "/v1/apps/acme/volumes/"+vol, nil).str("host_status"); got != "unreachable" {
			t.Errorf("its volume's host_status = %s", got)
		}
		for _, call := range []string{"start", "stop", "restart", "suspend", "lease", "exec", ""} {
			w.do("POST", of(id, call), obj{"command": []string{"true"}}).refused(408, "deadline_exceeded")
		}
		w.do("DELETE", of(id, "?force=true"), nil).is(200)
		if got := w.state(id); got != "destroying" {
			t.Errorf("state = %s, want destroying until the host is back", got)
		}
		w.local("trouble", obj{"machine": id})
		w.wait(id, "destroyed")
	})
	t.Run("a boot that never ends, until it does", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.stopped(id)
		w.local("trouble", obj{"machine": id, "stuck": true})
		w.start(id)
		w.do("GET", of(id, "wait?timeout=1"), nil).refused(408, "started, currently starting")
		w.local("trouble", obj{"machine": id})
		w.wait(id, "started")
	})
	t.Run("a stuck machine can be destroyed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.stopped(id)
		w.local("trouble", obj{"machine": id, "stuck": true})
		w.start(id)
		w.do("DELETE", of(id, "?force=true"), nil).is(200)
		w.wait(id, "destroyed")
	})
	t.Run("a read after a wait that shows the former state", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.machine("m", nil)
		w.local("trouble", obj{"machine": id, "stale_ms": 60_000})
		if got := w.wait(id, "started").str("state"); got != "starting" {
			t.Errorf("state = %s, want the former one", got)
		}
		w.local("trouble", obj{"machine": id})
		if got := w.state(id); got != "started" {
			t.Errorf("state = %s, want the true one", got)
		}
	})
	t.Run("lists that come back empty", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		w.machine("m", nil)
		w.local("trouble", obj{"empty_lists": 1})
		for _, want := range []int{0, 1} {
			if got := w.do("GET", machines, nil).is(200).list(); len(got) != want {
				t.Errorf("%d machines, want %d", len(got), want)
			}
		}
	})
	for state, c := range map[string]struct{ reach, leave func(*world, string) }{
		"starting":   {func(w *world, id string) { w.stopped(id); w.start(id) }, func(w *world, id string) { w.wait(id, "started") }},
		"stopping":   {func(w *world, id string) { w.do("POST", of(id, "stop"), nil).is(200) }, func(w *world, id string) { w.wait(id, "stopped") }},
		"replacing":  {func(w *world, id string) { w.do("POST", of(id, ""), obj{"config": obj{"image": "new"}}).is(200) }, func(w *world, id string) { w.wait(id, "started") }},
		"destroying": {func(w *world, id string) { w.do("DELETE", of(id, "?force=true"), nil).is(200) }, func(w *world, id string) { w.wait(id, "destroyed") }},
	} {
		t.Run("a machine that does not leave the state "+state+", until it does", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fly.Config{})
			id := w.started("m", nil)
			w.local("trouble", obj{"machine": id, "stuck_in": state})
			c.reach(w, id)
			w.do("GET", of(id, "wait?timeout=1&state=started,stopped,destroyed"), nil).refused(408, "currently "+state)
			w.local("trouble", obj{"machine": id})
			c.leave(w, id)
		})
	}
	t.Run("a machine whose volume is lost does not start again", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		vol := w.volume()
		id := w.started("m", mounting(vol, "/data"))
		w.stopped(id)
		w.local("trouble", obj{"machine": id, "volume_gone": true})
		w.do("GET", "/v1/apps/acme/volumes/"+vol, nil).refused(404, "not_found")
		w.do("POST", of(id, "start"), nil).refused(400, "volume not found")
	})
	t.Run("lists that do not have yet what was made, and lists of volumes that come back empty", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		vol := w.volume()
		w.machine("m", mounting(vol, "/data"))
		for _, trouble := range []obj{{"new_ms": 60_000}, {"no_volumes": 1, "empty_lists": 1}} {
			w.local("trouble", trouble)
			if m, v := w.do("GET", machines, nil).is(200).list(), w.do("GET", "/v1/apps/acme/volumes", nil).is(200).list(); len(m)+len(v) != 0 {
				t.Errorf("with %v there are %d machines and %d volumes", trouble, len(m), len(v))
			}
			w.local("trouble", obj{})
			if m, v := w.do("GET", machines, nil).is(200).list(), w.do("GET", "/v1/apps/acme/volumes", nil).is(200).list(); len(m) != 1 || len(v) != 1 {
				t.Errorf("afterwards there are %d machines and %d volumes", len(m), len(v))
			}
		}
	})
	t.Run("what is not understood is said", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		w.do("POST", "/local/trouble", obj{"machine": "nonsense"}).is(200, `"ok":false`)
		w.do("POST", "/local/trouble", "{").is(200, `"ok":false`)
		w.do("POST", "/local/kill", obj{"machine": "nonsense"}).is(200, `"ok":false`)
		w.do("POST", "/local/kill", "{").is(200, `"ok":false`)
	})
}
