// Package fly stands in for Fly: it speaks the Machines API, with a process tree for a machine and a folder
// for a volume.
//
// Wire forms, states, error texts and limits follow Fly's API closely enough that other clients of it work
// unchanged. Any image runs Config.Runner unless the machine's init says otherwise. As root on Linux a machine
// has mount and PID namespaces of its own, so that its volume is where it says and everything ends with it;
// elsewhere it is a plain process group that is told its folders by FLAUDEBOT_DATA and FLAUDEBOT_RUN_DIR.
//
// Faults are named by call: app.get app.create app.list app.delete volume.create volume.get volume.list
// volume.delete machine.create machine.get machine.list machine.update machine.start machine.stop machine.delete
// machine.wait machine.lease machine.exec machine.signal machine.restart machine.metadata machine.events logs.
package fly

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flaudebot/local/edge"
)

// Config says where the stand-in keeps its things and how it behaves.
type Config struct {
	Dir        string            // its own: state.json, volumes/<id>/
	Runner     []string          // what any image runs
	BinDir     string            // seen first in a machine's PATH
	Env        map[string]string // of every machine
	BootDelay  time.Duration     // from created or stopped to started
	RateLimits bool              // Fly's own
	Log        *slog.Logger
}

// Server is the stand-in. Close ends its machines.
type Server struct {
	cfg    Config
	log    *slog.Logger
	faults edge.Faults
	ctx    context.Context // ends with Close: what outlives a request
	cancel context.CancelFunc
	live   sync.WaitGroup // machines' processes and boots

	mu      sync.Mutex
	state   state                    // guarded by mu
	changed chan struct{}            // guarded by mu; closed and replaced at every change of a machine
	procs   map[string]*process      // guarded by mu; :: machine → its running process
	logs    map[string][]logLine     // guarded by mu; :: machine → its output
	buckets map[string]*rate.Limiter // guarded by mu
	boots   map[string]int           // guarded by mu; :: machine → its newest boot: an older one gives up
	closed  bool                     // guarded by mu
}

// New reads the kept state. Machines that were started come back stopped, with an exit event.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil { //nolint:gosec // passed through by machines' users
		return nil, fmt.Errorf("make %s: %w", cfg.Dir, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, log: cfg.Log, ctx: ctx, cancel: cancel, changed: make(chan struct{}),
		procs: map[string]*process{}, logs: map[string][]logLine{}, buckets: map[string]*rate.Limiter{},
		boots: map[string]int{},
	}
	if err := s.load(); err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// Close ends every machine's processes and keeps the state.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	procs := make([]*process, 0, len(s.procs))
	for _, p := range s.procs {
		procs = append(procs, p)
	}
	s.mu.Unlock()
	s.cancel()
	for _, p := range procs {
		p.kill()
	}
	s.live.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save()
}

// Handler answers as api.machines.dev does, and for logs as api.fly.io does.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.routeApps(mux)
	s.routeMachines(mux)
	mux.HandleFunc("GET /{$}", s.page)
	mux.Handle("POST /local/faults", &s.faults)
	mux.HandleFunc("POST /local/kill", s.killFromOutside)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found: no such route")
	})
	faulty := s.faults.Wrap(mux, s.callOf(mux), func(w http.ResponseWriter, status int) { refuse(w, status, faultText(status)) })
	return edge.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Fly-Request-Id", newULID()+"-local")
		if strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/api/") {
			if !s.mayCall(w, r) {
				return
			}
		}
		faulty.ServeHTTP(w, r)
	}), nil)
}

// faultText is what Fly says with a status when it is in trouble.
func faultText(status int) string {
	switch status {
	case http.StatusConflict:
		return "aborted: could not reserve resource for machine: insufficient memory available to fulfill request"
	case http.StatusPreconditionFailed:
		return "insufficient resources to create new machine with existing volume"
	case http.StatusUnprocessableEntity:
		return "insufficient capacity: no capacity available in this region"
	case http.StatusTooManyRequests:
		return "rate limit exceeded"
	case http.StatusRequestTimeout:
		return "deadline_exceeded: the request took too long"
	case http.StatusUnauthorized:
		return "Authenticate: token validation error"
	case http.StatusForbidden:
		return "unauthorized"
	}
	return "internal: a fault that was asked for"
}

// mayCall checks the token. fly-local-deploy is one that may not create apps.
func (s *Server) mayCall(w http.ResponseWriter, r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if (scheme != "Bearer" && scheme != "FlyV1") || !strings.HasPrefix(token, "fly-local") {
		refuse(w, http.StatusUnauthorized, "Authenticate: token validation error")
		return false
	}
	if strings.HasPrefix(token, "fly-local-deploy") && r.Method == http.MethodPost && r.URL.Path == "/v1/apps" {
		refuse(w, http.StatusForbidden, "unauthorized")
		return false
	}
	return true
}

// callOf names a request's call by the route that will answer it.
func (s *Server) callOf(mux *http.ServeMux) func(*http.Request) string {
	return func(r *http.Request) string {
		_, pattern := mux.Handler(r)
		return callName(pattern)
	}
}

func callName(pattern string) string {
	method, path, _ := strings.Cut(pattern, " ")
	path = strings.TrimPrefix(path, "/v1/apps")
	verb := map[string]string{"GET": "get", "POST": "create", "DELETE": "delete", "PUT": "update", "PATCH": "update"}[method]
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case strings.HasPrefix(path, "/api/"):
		return "logs"
	case path == "" && method == "GET":
		return "app.list"
	case len(parts) <= 1:
		return "app." + verb
	}
	thing := strings.TrimSuffix(parts[1], "s")
	switch {
	case len(parts) == 2 && method == "GET":
		return thing + ".list"
	case len(parts) == 3 && method == "POST":
		return thing + ".update"
	case len(parts) <= 3:
		return thing + "." + verb
	}
	return thing + "." + parts[3]
}

// limited keeps Fly's rate limits; false: the request was refused.
func (s *Server) limited(w http.ResponseWriter, action, subject string) bool {
	if !s.cfg.RateLimits {
		return true
	}
	s.mu.Lock()
	key := action + " " + subject
	b := s.buckets[key]
	if b == nil {
		b = rate.NewLimiter(1, 3)
		if action == "get" {
			b = rate.NewLimiter(5, 10)
		}
		s.buckets[key] = b
	}
	s.mu.Unlock()
	if b.Allow() {
		return true
	}
	refuse(w, http.StatusTooManyRequests, "rate limit exceeded")
	return false
}

// apiError is a refusal in Fly's form.
type apiError struct {
	status int
	text   string
	code   string // the "status" field, where Fly sends one
}

func (e *apiError) Error() string { return e.text }

func fail(status int, format string, args ...any) error {
	return &apiError{status: status, text: fmt.Sprintf(format, args...)}
}

func refuse(w http.ResponseWriter, status int, text string) {
	answerError(w, &apiError{status: status, text: text})
}

func answerError(w http.ResponseWriter, err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{status: http.StatusInternalServerError, text: "internal: " + err.Error()}
	}
	body := map[string]string{"error": e.text}
	if e.code != "" {
		body["status"] = e.code
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(body) // the caller may have gone
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller may have gone
}

// decode reads a JSON body; an empty one is the zero value.
func decode(r *http.Request, v any) error {
	err := json.NewDecoder(io.LimitReader(r.Body, 4<<20)).Decode(v)
	if err != nil && !errors.Is(err, io.EOF) {
		return fail(http.StatusBadRequest, "invalid_argument: %s", err)
	}
	return nil
}

// newULID returns 26 characters that sort by time.
func newULID() string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	ms := time.Now().UnixMilli()
	out := make([]byte, 26)
	for i := 9; i >= 0; i-- {
		out[i] = alphabet[ms&31]
		ms >>= 5
	}
	for i := range 16 {
		out[10+i] = alphabet[raw[i]&31]
	}
	return string(out)
}

func newHex(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)[:n]
}

// page is for people who look at the address in a browser.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "The local Fly.\n\n%d apps, %d volumes\n", len(s.state.Apps), len(s.state.Volumes))
	for _, m := range s.state.sorted() {
		fmt.Fprintf(w, "%s  %-10s  %s\n", m.ID, m.State, m.Name)
	}
}
