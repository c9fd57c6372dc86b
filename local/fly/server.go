// Package fly stands in for Fly: it speaks the Machines API, with a process tree for a machine and a folder
// for a volume.
//
// Wire forms, states, error texts and limits follow Fly's API closely enough that other clients of it work
// unchanged; on what is not known of Fly see [Unsettled]. Any image runs Config.Runner unless the machine's init
// says otherwise. As root on Linux, where the kernel lets it, a machine has mount and PID namespaces of its own, so
// that its volume is where it says, /tmp and /run are its own and everything ends with it; elsewhere it is a plain
// process group that is told its folders by FLAUDEBOT_DATA, FLAUDEBOT_RUN_DIR and TMPDIR. Beyond that the host's
// files are the machine's. Services, checks, files, secrets, snapshots, placement, what is above apps, and the socket
// /.fly/api with its tokens are not emulated.
//
// # Trouble on demand
//
// POST /local/faults makes calls fail, see [edge.Fault]. They are named: app.get app.create app.list app.delete
// volume.create volume.get volume.list volume.update volume.delete volume.extend machine.create machine.get
// machine.list machine.update machine.start machine.stop machine.suspend machine.delete machine.wait machine.lease
// machine.exec machine.signal machine.restart machine.metadata machine.events machine.versions platform.regions
// platform.placements logs.
//
// POST /local/trouble gives one machine a [Trouble], such as a host that cannot be reached, a state that it does not
// leave or a volume that is lost, or with machine "" the lists; POST /local/kill {"machine": id, "oom_killed": true} ends one as its host would.
package fly

import (
	"context"
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

// Config says where the stand-in keeps its things and how it behaves. Zero values mean what each comment says.
type Config struct {
	Dir        string            // its own: state.json, volumes/<id>/
	Runner     []string          // what any image runs; found in BinDir or on the system's PATH
	BinDir     string            // seen first in a machine's PATH
	Share      []string          // what of the host's /tmp machines see at the same place
	Env        map[string]string // of every machine
	Region     string            // of who names none; "": fra
	BootDelay  time.Duration     // from created or stopped to started
	Remembered time.Duration     // how long a destroyed machine answers, before 404; 0: 5 minutes
	RateLimits bool              // Fly's own
	Plain      bool              // process groups, also where more is possible
	Unsettled  Unsettled
	Log        *slog.Logger
}

// Server is the stand-in. Close ends its machines.
type Server struct {
	cfg    Config
	log    *slog.Logger
	plain  error // why machines are plain process groups; nil: they are not
	faults edge.Faults
	ids    ids
	ctx    context.Context // ends with Close: what outlives a request
	cancel context.CancelFunc
	live   sync.WaitGroup // machines' processes and boots

	mu      sync.Mutex
	state   state                    // guarded by mu
	changed chan struct{}            // guarded by mu; closed and replaced at every change of a machine
	procs   map[string]*process      // guarded by mu; :: machine → its running process
	logs    map[string][]logLine     // guarded by mu; :: machine → its output
	logged  int64                    // guarded by mu; token of the newest line
	buckets map[string]*rate.Limiter // guarded by mu
	boots   map[string]int           // guarded by mu; :: machine → its newest boot: an older one gives up
	trouble map[string]Trouble       // guarded by mu; :: machine, or "" for the lists → what is wrong with it
	bounds  map[string]int           // guarded by mu; :: volume with a bound → MB of each of its GB
	closed  bool                     // guarded by mu
}

// New reads the kept state. Machines that were started come back stopped, with an exit event.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Remembered == 0 {
		cfg.Remembered = 5 * time.Minute
	}
	if cfg.Region == "" {
		cfg.Region = "fra"
	}
	cfg.Unsettled = cfg.Unsettled.withDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil { //nolint:gosec // passed through by machines' users
		return nil, fmt.Errorf("make %s: %w", cfg.Dir, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, log: cfg.Log, ctx: ctx, cancel: cancel, changed: make(chan struct{}),
		procs: map[string]*process{}, logs: map[string][]logLine{}, buckets: map[string]*rate.Limiter{},
		boots: map[string]int{}, trouble: map[string]Trouble{}, bounds: map[string]int{},
	}
	if s.plain = errors.New("it was asked for"); !cfg.Plain {
		s.plain = isolation(ctx)
	}
	if s.plain != nil {
		s.log.Warn("machines are plain process groups here: as root on Linux each would have its own mounts and processes", "why", s.plain)
	}
	if err := s.load(); err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// Isolated says whether machines have mounts and processes of their own.
func (s *Server) Isolated() bool { return s.plain == nil }

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
	for id := range s.bounds {
		s.unbound(id)
	}
	return s.save()
}

// Handler answers as api.machines.dev does, and for logs as api.fly.io does.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.routeApps(mux)
	s.routeVolumes(mux)
	s.routeMachines(mux)
	s.routePlatform(mux)
	mux.HandleFunc("GET /api/v1/apps/{app}/logs", handle(200, s.readLogs))
	mux.HandleFunc("GET /{$}", s.page)
	mux.Handle("POST /local/faults", &s.faults)
	mux.HandleFunc("POST /local/trouble", s.takeTrouble)
	mux.HandleFunc("POST /local/kill", s.killFromOutside)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found: no such route")
	})
	call := s.callOf(mux)
	faulty := s.faults.Wrap(mux, call, func(w http.ResponseWriter, status int) {
		name := ""
		if n, ok := w.(named); ok {
			name = n.call
		}
		answerError(w, faultOf(name, status))
	})
	guarded := edge.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch api := strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/api/"); {
		case !api: // faults can be cleared, whatever they are
			mux.ServeHTTP(w, r)
		case s.mayCall(w, r):
			faulty.ServeHTTP(named{w, call(r)}, r)
		}
	}), nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Fly-Request-Id", s.ids.next()+"-local")
		w.Header().Set("Fly-Span-Id", newHex(16))
		guarded.ServeHTTP(w, r)
	})
}

// named is an answer that knows its call.
type named struct {
	http.ResponseWriter
	call string
}

// handle makes a handler of a function that answers with a value or a refusal.
func handle(status int, do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r)
		switch {
		case err != nil:
			answerError(w, err)
		case v == nil:
			w.WriteHeader(status)
		default:
			answer(w, status, v)
		}
	}
}

// limited is handle within Fly's rate limits: each action on its own, by machine, volume or app.
func (s *Server) limited(action string, status int, do func(*http.Request) (any, error)) http.HandlerFunc {
	next := handle(status, do)
	return func(w http.ResponseWriter, r *http.Request) {
		subject := r.PathValue("id")
		if subject == "" {
			subject = r.PathValue("app")
		}
		if s.within(action, subject) {
			next(w, r)
			return
		}
		if s.cfg.Unsettled.RetryAfter {
			w.Header().Set("Retry-After", "1")
		}
		refuse(w, http.StatusTooManyRequests, "rate limit exceeded")
	}
}

// within counts a call, and reports whether it is within the rate limit.
func (s *Server) within(action, subject string) bool {
	if !s.cfg.RateLimits {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := action + " " + subject
	b := s.buckets[key]
	if b == nil {
		b = rate.NewLimiter(1, 3)
		switch action {
		case "get":
			b = rate.NewLimiter(5, 10)
		case "app-delete":
			b = rate.NewLimiter(100.0/60, 100)
		}
		s.buckets[key] = b
	}
	return b.Allow()
}

// faultOf is what Fly says to a call with a status when it is in trouble.
func faultOf(call string, status int) error {
	switch status {
	case http.StatusConflict:
		return fail(status, "aborted: could not reserve resource for machine: insufficient memory available to fulfill request")
	case http.StatusPreconditionFailed:
		if call == "machine.start" {
			return fail(status, "failed_precondition: machine still active, refusing to start")
		}
		return &apiError{
			status: status, code: "volume_placement_capacity",
			text: "insufficient resources to create new machine with existing volume",
		}
	case http.StatusUnprocessableEntity:
		return &apiError{status: status, code: "insufficient_capacity", text: "insufficient capacity: could not find a candidate host in this region"}
	case http.StatusTooManyRequests:
		return fail(status, "rate limit exceeded")
	case http.StatusRequestTimeout:
		return fail(status, "deadline_exceeded: the request took too long")
	case http.StatusUnauthorized:
		return fail(status, "Authenticate: token validation error")
	case http.StatusForbidden:
		if strings.HasSuffix(call, ".create") && call != "app.create" {
			return fail(status, `organization "local" is using 204800 MB of memory in this region which is over the allowed quota. please consider other regions`)
		}
		return fail(status, "unauthorized")
	case http.StatusNotFound:
		thing, _, _ := strings.Cut(call, ".")
		return fail(status, "not_found: %s not found", thing)
	}
	return fail(status, "internal: a fault that was asked for")
}

// mayCall checks the token. fly-local-deploy is one for the machines of an app: it may neither create nor list apps.
func (s *Server) mayCall(w http.ResponseWriter, r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if (scheme != "Bearer" && scheme != "FlyV1") || !strings.HasPrefix(token, "fly-local") {
		refuse(w, http.StatusUnauthorized, "Authenticate: token validation error")
		return false
	}
	if strings.HasPrefix(token, "fly-local-deploy") && r.URL.Path == "/v1/apps" {
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
	case strings.HasPrefix(path, "/v1/platform/"):
		return "platform." + parts[2]
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
		return thing + ".update" // Fly takes POST and PUT for it
	case len(parts) <= 3:
		return thing + "." + verb
	}
	return thing + "." + parts[3]
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
