// Package slack stands in for Slack: the Web API methods that flaudebot uses and those a person needs, Socket Mode, a
// checker that refuses messages that Slack would refuse, and a page at / that looks like a workspace.
//
// People act through Slack's own methods with tokens of their own. What Slack has no method for is under /local/:
// command, click, shortcut, submit, share, open, stop, seen. All tokens are public: the server answers on loopback only.
//
// It misbehaves on demand. /local/faults makes trouble for calls ([edge.Fault]): by the method's name, and by link, upload
// and files for dialling a socket, for the bytes of an upload and for those of a download; calls with a person's token in their
// header do not fail by that name. /local/socket makes trouble for
// the connections that are open, and /local/trouble for those to come and for what passes over them. /local/deliveries
// tells what was passed, and how.
package slack

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flaudebot/local/edge"
)

// Config says how the stand-in behaves. Zero durations take Slack's own.
type Config struct {
	Dir          string // reserved for what is kept; messages live in memory
	Agent, Note  string // who answers, for the page
	RateLimits   bool
	Scopes       []string        // of the bot's token, as X-OAuth-Scopes tells them; nil: that header is not sent
	Generosity   int             // how many times the calls a minute, and messages a second in a channel, that it grants at least Slack grants; 0: 1
	AckTimeout   time.Duration   // 3 s; for an event
	AskTimeout   time.Duration   // 3 s; for a slash command or a click
	PingInterval time.Duration   // 10 s
	RefreshAfter time.Duration   // life of a connection: 1 h
	RefreshGrace time.Duration   // from the warning to the request for a new one, and from there to its end: 10 s
	RetryDelays  []time.Duration // of unacked events: at once, 1 min, 5 min
	Window       time.Duration   // how long an event waits for a connection: 6 min
	TriggerLife  time.Duration   // how long a trigger id opens a modal: 3 s
	Log          *slog.Logger
}

// Server is the stand-in.
type Server struct {
	cfg     Config
	log     *slog.Logger
	methods map[string]method
	faults  edge.Faults
	done    chan struct{}
	work    sync.WaitGroup

	mu        sync.Mutex
	closed    bool                     // guarded by mu
	lastTS    int64                    // guarded by mu; microseconds
	serial    int                      // guarded by mu
	channels  []*channel               // guarded by mu
	files     map[string]*file         // guarded by mu
	ephemeral []ephemeral              // guarded by mu
	views     []*view                  // guarded by mu
	triggers  map[string]*trigger      // guarded by mu
	responses map[string]*response     // guarded by mu; :: id → where a response_url leads
	sessions  map[string]string        // guarded by mu; :: channel:thread_ts → agent session status
	titles    map[string]string        // guarded by mu; :: channel:thread_ts → title of an agent session
	tickets   map[string]bool          // guarded by mu
	conns     []*conn                  // guarded by mu
	next      int                      // guarded by mu; connection that gets the next payload
	waiting   []*waiter                // guarded by mu; events that no connection was there for
	trouble   trouble                  // guarded by mu
	passed    passed                   // guarded by mu
	buckets   map[string]*rate.Limiter // guarded by mu
	watchers  map[chan string]bool     // guarded by mu; pages
}

// New returns a workspace with its channels.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Generosity = max(cfg.Generosity, 1)
	if cfg.RetryDelays == nil {
		cfg.RetryDelays = []time.Duration{0, time.Minute, 5 * time.Minute}
	}
	for _, d := range []struct {
		of    *time.Duration
		usual time.Duration
	}{
		{&cfg.AckTimeout, 3 * time.Second},
		{&cfg.AskTimeout, 3 * time.Second},
		{&cfg.PingInterval, 10 * time.Second},
		{&cfg.RefreshAfter, time.Hour},
		{&cfg.RefreshGrace, 10 * time.Second},
		{&cfg.Window, 6 * time.Minute},
		{&cfg.TriggerLife, 3 * time.Second},
	} {
		if *d.of == 0 {
			*d.of = d.usual
		}
	}
	all := func(ids ...string) map[string]bool {
		out := map[string]bool{}
		for _, id := range ids {
			out[id] = true
		}
		return out
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, done: make(chan struct{}),
		channels: []*channel{
			{id: "C0GENERAL", name: "general", members: all(botUser, "U0ADMIN", "U0MEMBER", "U0GUEST", "U0STRANGER", "U0CI")},
			{id: "C0PAYMENTS", name: "payments", members: all(botUser, "U0ADMIN", "U0MEMBER")},
			{id: "D0ADMIN", im: "U0ADMIN", members: all(botUser, "U0ADMIN")},
			{id: "D0MEMBER", im: "U0MEMBER", members: all(botUser, "U0MEMBER")},
			{id: "D0GUEST", im: "U0GUEST", members: all(botUser, "U0GUEST")},
		},
		files: map[string]*file{}, triggers: map[string]*trigger{}, responses: map[string]*response{},
		sessions: map[string]string{}, titles: map[string]string{}, tickets: map[string]bool{}, buckets: map[string]*rate.Limiter{}, watchers: map[chan string]bool{},
	}
	s.methods = s.methodTable()
	return s, nil
}

// Close ends what runs beside requests.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	s.dropConns()
	s.work.Wait()
	return nil
}

// spawn runs something beside requests, unless all of it is to end. s.mu must be held.
func (s *Server) spawn(f func()) {
	if !s.closed {
		s.work.Go(f)
	}
}

// Handler answers as slack.com does, and serves the page.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	faulty := func(pattern, name string, h http.HandlerFunc) {
		mux.Handle(pattern, s.faults.Wrap(h, func(r *http.Request) string {
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer xoxp-") {
				return "a person's " + cmp.Or(name, r.PathValue("method"))
			}
			return cmp.Or(name, r.PathValue("method"))
		}, faultAnswer))
	}
	faulty("/api/{method}", "", s.api)
	faulty("GET /link", "link", s.link)
	faulty("POST /upload/{file}", "upload", s.upload)
	faulty("GET /files/{file}", "files", s.download)
	mux.HandleFunc("POST /response/{id}", s.respond)
	mux.Handle("POST /local/faults", &s.faults)
	mux.HandleFunc("POST /local/{method}", s.local)
	mux.HandleFunc("GET /local/events", s.watch)
	mux.HandleFunc("GET /local/about", s.about)
	mux.Handle("/", pageHandler())
	return edge.Guard(mux, func(r *http.Request) bool { return r.URL.Path == "/link" })
}

// faultAnswer is what Slack says when it has trouble of its own.
func faultAnswer(w http.ResponseWriter, status int) {
	text := "internal_error"
	if status == http.StatusTooManyRequests {
		if w.Header().Get("Retry-After") == "" {
			w.Header().Set("Retry-After", "1")
		}
		text = "ratelimited"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(fields{"ok": false, "error": text})
}

// call is one call of a method.
type call struct {
	r      *http.Request
	args   map[string]any
	caller person
	app    bool // by the app-level token
}

func (c *call) str(name string) string {
	switch v := c.args[name].(type) {
	case string:
		return v
	case nil:
		return ""
	default:
		raw, _ := json.Marshal(v)
		return string(raw)
	}
}

func (c *call) flag(name string) bool {
	v := c.str(name)
	return v == "true" || v == "1"
}

// value decodes an argument that is JSON, as it is or as text.
func (c *call) value(name string) any {
	text, ok := c.args[name].(string)
	if !ok {
		return c.args[name]
	}
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return nil
	}
	return v
}

// slackError is a refusal by Slack: its code, with more to say about it.
type slackError struct {
	code     string
	messages []string
}

func (e *slackError) Error() string { return e.code }

func refuse(code string, messages ...string) error { return &slackError{code, messages} }

type fields = map[string]any

func (s *Server) api(w http.ResponseWriter, r *http.Request) {
	c, err := open(r, false)
	m, known := s.methods[r.PathValue("method")]
	var out fields
	switch {
	case !known:
		err = refuse("unknown_method")
	case err != nil:
	case c.app != m.app || (m.bot && c.caller.id != botUser):
		err = refuse("not_allowed_token_type")
	case !s.allowed(w, c, r.PathValue("method"), m):
		return
	default:
		s.tellScopes(w, c)
		out, err = m.do(c)
	}
	reply(w, out, err)
}

// tellScopes is the header in which Slack tells what the caller's token may.
func (s *Server) tellScopes(w http.ResponseWriter, c *call) {
	switch {
	case s.cfg.Scopes == nil:
	case c.app:
		w.Header().Set("X-OAuth-Scopes", "connections:write")
	case c.caller.id == botUser:
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("X-OAuth-Scopes", strings.Join(slices.DeleteFunc(slices.Clone(s.cfg.Scopes), func(scope string) bool { return slices.Contains(s.trouble.lacks, scope) }), ","))
	}
}

func reply(w http.ResponseWriter, out fields, err error) {
	if out == nil {
		out = fields{}
	}
	out["ok"] = err == nil
	if err != nil {
		out["error"] = err.Error()
		var e *slackError
		if errors.As(err, &e) && len(e.messages) > 0 {
			out["response_metadata"] = fields{"messages": e.messages}
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(out) // the caller may have gone
}

// maxBody bounds a call, in bytes.
const maxBody = 4 << 20

// open reads arguments and token, from wherever Slack's clients put them. With json the body is JSON whatever it is called.
func open(r *http.Request, isJSON bool) (*call, error) {
	c := &call{r: r, args: map[string]any{}}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case isJSON || kind == "application/json":
		raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
		if err == nil && len(raw) > 0 {
			err = json.Unmarshal(raw, &c.args)
		}
		var not *json.UnmarshalTypeError
		switch {
		case errors.As(err, &not):
			return nil, refuse("json_not_object")
		case err != nil:
			return nil, refuse("invalid_json")
		case c.args == nil: // it was null
			c.args = fields{}
		}
	case kind == "multipart/form-data":
		if r.ParseMultipartForm(maxBody) != nil {
			return nil, refuse("invalid_form_data")
		}
	default:
		r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
		if r.ParseForm() != nil {
			return nil, refuse("invalid_form_data")
		}
	}
	for k, v := range r.Form {
		c.args[k] = v[0]
	}
	for k, v := range r.URL.Query() {
		c.args[k] = v[0]
	}
	token, byHeader := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !byHeader {
		token = c.str("token")
	}
	delete(c.args, "token")
	if token == "" {
		return nil, refuse("not_authed")
	}
	if token == "xapp-local" && byHeader { // as a parameter Slack refuses it
		c.app = true
		return c, nil
	}
	var ok bool
	if c.caller, ok = personBy(func(p person) bool { return p.token == token }); !ok {
		return nil, refuse("invalid_auth")
	}
	return c, nil
}

// stamp returns the next ts: unique and rising. s.mu must be held.
func (s *Server) stamp() string {
	s.lastTS = max(s.lastTS+1, time.Now().UnixMicro())
	return fmt.Sprintf("%d.%06d", s.lastTS/1e6, s.lastTS%1e6)
}

// id returns a new id with a prefix. s.mu must be held.
func (s *Server) id(prefix string) string {
	s.serial++
	return fmt.Sprintf("%s0LOCAL%05d", prefix, s.serial)
}
