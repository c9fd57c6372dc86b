package edge_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flaudebot/local/edge"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	guarded := edge.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		func(r *http.Request) bool { return r.URL.Path == "/link" })
	for _, c := range []struct {
		name, host, origin, path string
		want                     int
	}{
		{"answers on 127.0.0.1", "127.0.0.1:8700", "", "/", 200},
		{"answers on localhost", "localhost:8700", "", "/", 200},
		{"answers on ::1", "[::1]:8700", "", "/", 200},
		{"answers its own page", "127.0.0.1:8700", "http://127.0.0.1:8700", "/", 200},
		{"refuses a name that points here", "evil.example:8700", "", "/", 403},
		{"refuses another page", "127.0.0.1:8700", "https://evil.example", "/", 403},
		{"refuses a page on another port", "127.0.0.1:8700", "http://127.0.0.1:9999", "/", 403},
		{"refuses a page without an origin of its own", "127.0.0.1:8700", "null", "/", 403},
		{"lets an exempt path carry any origin", "127.0.0.1:8700", "https://api.slack.com", "/link", 200},
		{"refuses a foreign host on an exempt path", "evil.example", "https://api.slack.com", "/link", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, c.path, nil)
			r.Host = c.host
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			w := httptest.NewRecorder()
			guarded.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("status = %d, want %d", w.Code, c.want)
			}
		})
	}
}

// faulty is a server whose calls are named by their path, and that counts what took effect.
func faulty(t *testing.T) (faults *edge.Faults, get func(path string) (int, error), effects *atomic.Int32) {
	t.Helper()
	faults, effects = &edge.Faults{}, new(atomic.Int32)
	h := faults.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		effects.Add(1)
		_, _ = io.WriteString(w, "fine")
	}), func(r *http.Request) string { return strings.Trim(r.URL.Path, "/") },
		func(w http.ResponseWriter, status int) { http.Error(w, "fault", status) })
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return faults, func(path string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}, effects
}

func TestFaults(t *testing.T) {
	t.Parallel()
	t.Run("the n-th call of a method fails once", func(t *testing.T) {
		t.Parallel()
		faults, get, effects := faulty(t)
		faults.Add(edge.Fault{Method: "a", Nth: 2, Status: 503})
		var got []int
		for _, path := range []string{"/a", "/b", "/a", "/a"} {
			status, err := get(path)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, status)
		}
		if want := []int{200, 200, 503, 200}; !equal(got, want) || effects.Load() != 3 {
			t.Errorf("answers %v with %d effects, want %v with 3", got, effects.Load(), want)
		}
	})
	t.Run("an answer is lost after the call took effect", func(t *testing.T) {
		t.Parallel()
		faults, get, effects := faulty(t)
		faults.Add(edge.Fault{Method: "a", Nth: 1, Drop: true, AfterEffect: true})
		if status, err := get("/a"); err == nil {
			t.Errorf("answer = %d, want none", status)
		}
		if effects.Load() != 1 {
			t.Errorf("effects = %d, want 1", effects.Load())
		}
	})
	t.Run("a call is dropped before it takes effect", func(t *testing.T) {
		t.Parallel()
		faults, get, effects := faulty(t)
		faults.Add(edge.Fault{Drop: true, Nth: 1})
		if status, err := get("/a"); err == nil || effects.Load() != 0 {
			t.Errorf("answer = %d with %d effects, want none", status, effects.Load())
		}
	})
	t.Run("a call is delayed and then answered", func(t *testing.T) {
		t.Parallel()
		faults, get, _ := faulty(t)
		faults.Add(edge.Fault{DelayMS: 30})
		began := time.Now()
		if status, err := get("/a"); err != nil || status != 200 || time.Since(began) < 30*time.Millisecond {
			t.Errorf("answer = %d, %v after %v, want 200 after 30ms", status, err, time.Since(began))
		}
	})
	t.Run("a call is answered with somebody else's words", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			fault       edge.Fault
			status      int
			kind, after string
		}{
			{edge.Fault{Body: `{"ok":false}`, Nth: 1}, 200, "application/json", ""},
			{edge.Fault{Body: "<html>Bad gateway", Status: 502, RetryAfter: 7, Nth: 1}, 502, "text/html; charset=utf-8", "7"},
		} {
			faults := &edge.Faults{}
			faults.Add(c.fault)
			h := faults.Wrap(http.NotFoundHandler(), func(*http.Request) string { return "a" }, nil)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/a", nil))
			if w.Code != c.status || w.Body.String() != c.fault.Body || w.Header().Get("Content-Type") != c.kind || w.Header().Get("Retry-After") != c.after {
				t.Errorf("%+v: answer = %d %v %s", c.fault, w.Code, w.Header(), w.Body)
			}
		}
	})
	t.Run("whose token is spared is left alone, and not counted", func(t *testing.T) {
		t.Parallel()
		faults := &edge.Faults{}
		faults.Add(edge.Fault{Spare: "xoxp-", Nth: 2, Status: 503})
		var got []bool
		for _, token := range []string{"xoxb-1", "xoxp-1", "xoxb-1"} {
			_, hit := faults.Take("a", token)
			got = append(got, hit)
		}
		if !slices.Equal(got, []bool{false, false, true}) {
			t.Errorf("hit = %v, want the second call of those that are not spared", got)
		}
	})
	t.Run("an empty body clears them, also over HTTP", func(t *testing.T) {
		t.Parallel()
		faults, get, _ := faulty(t)
		post := func(body string) string {
			w := httptest.NewRecorder()
			faults.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/local/faults", strings.NewReader(body)))
			return w.Body.String()
		}
		if got := post(`{"method":"a","status":500}`); !strings.Contains(got, `"ok":true`) {
			t.Fatalf("POST = %s, want ok", got)
		}
		if status, _ := get("/a"); status != 500 {
			t.Errorf("answer = %d, want 500", status)
		}
		if got := post(`{`); !strings.Contains(got, `"ok":false`) {
			t.Errorf("POST of half a JSON = %s, want not ok", got)
		}
		post("")
		if status, _ := get("/a"); status != 200 {
			t.Errorf("answer = %d, want 200", status)
		}
	})
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
