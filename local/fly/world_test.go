package fly_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"flaudebot/local/fly"
)

// TestMain lets this binary be a stand-in of its own, for a test that kills it.
func TestMain(m *testing.M) {
	dir := os.Getenv("LOCAL_FLY_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	srv, err := fly.New(fly.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	hs := httptest.NewServer(srv.Handler())
	_, _ = os.Stdout.WriteString(hs.URL + "\n")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}

// world is a stand-in as a client of any kind sees it: HTTP and JSON.
type world struct {
	t   *testing.T
	url string
	srv *fly.Server
}

// idle is a main process that does nothing and ends with 7 when it is told to.
const idle = `trap 'exit 7' TERM INT; while :; do sleep 0.02; done`

func newWorld(t *testing.T, cfg fly.Config) *world {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Runner == nil {
		cfg.Runner = []string{"/bin/sh", "-c", idle}
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	srv, err := fly.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(srv.Handler())
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		hs.Close()
	})
	w := &world{t: t, url: hs.URL, srv: srv}
	w.do("POST", "/v1/apps", obj{"app_name": "acme", "org_slug": "personal"})
	return w
}

// in is the same stand-in for a subtest.
func (w *world) in(t *testing.T) *world {
	t.Helper()
	return &world{t: t, url: w.url, srv: w.srv}
}

type obj = map[string]any

// answer is what a call got.
type answer struct {
	t      *testing.T
	call   string
	status int
	header http.Header
	raw    string
}

// do makes a call with a token that is good; header lines are "Name: value".
func (w *world) do(method, path string, body any, headers ...string) answer {
	w.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			w.t.Fatal(err)
		}
		in = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, in)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer fly-local")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{t: w.t, call: method + " " + path, status: res.StatusCode, header: res.Header, raw: strings.TrimSpace(string(raw))}
}

// is demands a status, and texts in the body.
func (a answer) is(status int, texts ...string) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s = %d %s, want %d", a.call, a.status, a.raw, status)
	}
	for _, text := range texts {
		if !strings.Contains(a.raw, text) {
			a.t.Fatalf("%s = %s, want %s in it", a.call, a.raw, text)
		}
	}
	return a
}

// refused demands Fly's body of an error.
func (a answer) refused(status int, text string) {
	a.t.Helper()
	if got, _ := a.is(status).obj()["error"].(string); !strings.Contains(got, text) {
		a.t.Errorf("%s: error %q, want %q in it", a.call, got, text)
	}
}

func (a answer) obj() obj {
	a.t.Helper()
	var out obj
	if err := json.Unmarshal([]byte(a.raw), &out); err != nil {
		a.t.Fatalf("%s = %d %s, want an object", a.call, a.status, a.raw)
	}
	return out
}

func (a answer) list() []obj {
	a.t.Helper()
	var out []obj
	if err := json.Unmarshal([]byte(a.raw), &out); err != nil {
		a.t.Fatalf("%s = %d %s, want a list", a.call, a.status, a.raw)
	}
	return out
}

// str is a field by its path: "config.image".
func (a answer) str(path string) string {
	a.t.Helper()
	got, _ := at(a.obj(), path).(string)
	return got
}

func at(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(obj)
		v = m[name]
	}
	return v
}

const machines = "/v1/apps/acme/machines"

// of is the path of a machine's call.
func of(id, call string) string {
	if call == "" || call[0] == '?' {
		return machines + "/" + id + call
	}
	return machines + "/" + id + "/" + call
}

// volume makes one.
func (w *world) volume() string {
	w.t.Helper()
	return w.do("POST", "/v1/apps/acme/volumes", obj{"name": "data", "region": "fra", "size_gb": 1}).is(200).str("id")
}

// machine makes one that does not restart; more is merged into its config.
func (w *world) machine(name string, more obj) string {
	w.t.Helper()
	return w.create(name, more).is(200).str("id")
}

func (w *world) create(name string, more obj) answer {
	w.t.Helper()
	cfg := obj{"image": "any", "restart": obj{"policy": "no"}}
	maps.Copy(cfg, more)
	return w.do("POST", machines, obj{"name": name, "region": "fra", "config": cfg})
}

// started makes a machine and waits for it to be started.
func (w *world) started(name string, more obj) string {
	w.t.Helper()
	id := w.machine(name, more)
	w.wait(id, "started")
	return id
}

// running is a config with a main process of its own.
func running(script string) obj { return obj{"init": obj{"exec": []string{"/bin/sh", "-c", script}}} }

// mounting is a config with a volume.
func mounting(volume, path string) obj {
	return obj{"mounts": []obj{{"volume": volume, "path": path}}}
}

// wait returns the machine once it was in a state.
func (w *world) wait(id, state string) answer {
	w.t.Helper()
	w.do("GET", of(id, "wait?timeout=30&state="+state), nil).is(200)
	return w.do("GET", of(id, ""), nil)
}

func (w *world) state(id string) string {
	w.t.Helper()
	return w.do("GET", of(id, ""), nil).is(200).str("state")
}

// stopped stops a machine and waits for it.
func (w *world) stopped(id string) {
	w.t.Helper()
	w.do("POST", of(id, "stop"), nil).is(200)
	w.wait(id, "stopped")
}

// start starts a machine as soon as it may be started.
func (w *world) start(id string) {
	w.t.Helper()
	w.until("it may be started", func() bool { return w.do("POST", of(id, "start"), nil).status == 200 })
}

// exec returns a command's exit code and output.
func (w *world) exec(id, script string) (code float64, out string) {
	w.t.Helper()
	got := w.do("POST", of(id, "exec"), obj{"command": []string{"/bin/sh", "-c", script}, "timeout": 10}).is(200).obj()
	code, _ = got["exit_code"].(float64)
	stdout, _ := got["stdout"].(string)
	stderr, _ := got["stderr"].(string)
	return code, stdout + stderr
}

// exits are a machine's exit events, the newest first.
func (w *world) exits(id string) []obj {
	w.t.Helper()
	var out []obj
	for _, e := range w.do("GET", of(id, "events?limit=50"), nil).is(200).list() {
		if e["type"] == "exit" {
			x, _ := at(e, "request.exit_event").(obj)
			x["restart_count"] = at(e, "request.restart_count")
			out = append(out, x)
		}
	}
	return out
}

// until asks again and again, a moment apart, for what has no event of its own.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// local says something to the stand-in itself.
func (w *world) local(call string, body obj) {
	w.t.Helper()
	w.do("POST", "/local/"+call, body).is(200, `"ok":true`)
}
