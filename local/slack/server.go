// Package slack stands in for Slack: the Web API methods that flaudebot uses and those a person needs, Socket Mode, a
// checker that refuses messages that Slack would refuse, and a page at / that looks like a workspace.
//
// People act through Slack's own methods with tokens of their own. What Slack has no method for is under /local/:
// command, click, shortcut, submit, seen, faults, socket. Faults are named by method. All tokens are public: the
// server answers on loopback only.
package slack

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
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
	AckTimeout   time.Duration   // 3 s
	PingInterval time.Duration   // 10 s
	RefreshAfter time.Duration   // life of a connection; 0: none is refreshed by itself
	RetryDelays  []time.Duration // of unacked events: at once, 1 min, 5 min
	Log          *slog.Logger
}

// Server is the stand-in.
type Server struct {
	cfg    Config
	log    *slog.Logger
	faults edge.Faults
	done   chan struct{}
	once   sync.Once
	work   sync.WaitGroup

	mu        sync.Mutex
	lastTS    int64                    // guarded by mu; microseconds
	serial    int                      // guarded by mu
	channels  []*channel               // guarded by mu
	files     map[string]*file         // guarded by mu
	ephemeral []ephemeral              // guarded by mu
	views     map[string]*view         // guarded by mu
	triggers  map[string]string        // guarded by mu; :: trigger id → user
	responses map[string]response      // guarded by mu; :: id → where a response_url leads
	sessions  map[string]string        // guarded by mu; :: channel:thread_ts → agent session status
	tickets   map[string]bool          // guarded by mu
	conns     []*conn                  // guarded by mu
	next      int                      // guarded by mu; connection that gets the next payload
	pending   []*envelope              // guarded by mu; events that no connection was there for
	buckets   map[string]*rate.Limiter // guarded by mu
	watchers  map[chan string]bool     // guarded by mu; pages
}

// Ids of the workspace.
const (
	teamID  = "T0LOCAL"
	botUser = "U0FLAUDE"
	botID   = "B0FLAUDE"
	appID   = "A0FLAUDE"
)

type person struct {
	id, name, real, token, team              string
	admin, restricted, ultraRestricted, away bool // away: of another workspace
	bot                                      bool
}

func people() []person {
	return []person{
		{id: "U0ADMIN", name: "ada", real: "Ada (admin)", token: "xoxp-local-admin", team: teamID, admin: true},
		{id: "U0MEMBER", name: "mira", real: "Mira (member)", token: "xoxp-local-member", team: teamID},
		{id: "U0GUEST", name: "gus", real: "Gus (guest)", token: "xoxp-local-guest", team: teamID, restricted: true, ultraRestricted: true},
		{id: "U0STRANGER", name: "stan", real: "Stan (another workspace)", token: "xoxp-local-stranger", team: "T0OTHER", away: true},
		{id: botUser, name: "flaudebot", real: "flaudebot", token: "xoxb-local", team: teamID, bot: true},
	}
}

func personBy(match func(person) bool) (person, bool) {
	for _, p := range people() {
		if match(p) {
			return p, true
		}
	}
	return person{}, false
}

func userByID(id string) (person, bool) { return personBy(func(p person) bool { return p.id == id }) }

type channel struct {
	id, name string
	im       string // the person of a DM
	members  map[string]bool
	archived bool
	messages []*msg
}

// msg is a message as it goes over the wire; metadata is kept apart, since it is shown on demand only.
type msg struct {
	fields   map[string]any
	metadata map[string]any
	deleted  bool
}

func (m *msg) str(name string) string {
	s, _ := m.fields[name].(string)
	return s
}

type ephemeral struct {
	user, channel string
	fields        map[string]any
}

type response struct {
	user, channel, thread, ts string // ts: of the message that was clicked
	ephemeral                 bool
}

// New returns a workspace with its channels.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.AckTimeout == 0 {
		cfg.AckTimeout = 3 * time.Second
	}
	if cfg.PingInterval == 0 {
		cfg.PingInterval = 10 * time.Second
	}
	if cfg.RetryDelays == nil {
		cfg.RetryDelays = []time.Duration{0, time.Minute, 5 * time.Minute}
	}
	all := func(ids ...string) map[string]bool {
		out := map[string]bool{}
		for _, id := range ids {
			out[id] = true
		}
		return out
	}
	return &Server{
		cfg: cfg, log: cfg.Log, done: make(chan struct{}),
		channels: []*channel{
			{id: "C0GENERAL", name: "general", members: all(botUser, "U0ADMIN", "U0MEMBER", "U0GUEST", "U0STRANGER")},
			{id: "C0PAYMENTS", name: "payments", members: all(botUser, "U0ADMIN", "U0MEMBER")},
			{id: "D0ADMIN", im: "U0ADMIN", members: all(botUser, "U0ADMIN")},
			{id: "D0MEMBER", im: "U0MEMBER", members: all(botUser, "U0MEMBER")},
			{id: "D0GUEST", im: "U0GUEST", members: all(botUser, "U0GUEST")},
		},
		files: map[string]*file{}, views: map[string]*view{}, triggers: map[string]string{}, responses: map[string]response{},
		sessions: map[string]string{}, tickets: map[string]bool{}, buckets: map[string]*rate.Limiter{}, watchers: map[chan string]bool{},
	}, nil
}

// Close ends what runs beside requests.
func (s *Server) Close() error {
	s.once.Do(func() { close(s.done) })
	s.closeConns("")
	s.work.Wait()
	return nil
}

// Handler answers as slack.com does, and serves the page.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/{method}", s.faults.Wrap(http.HandlerFunc(s.api), func(r *http.Request) string { return r.PathValue("method") }, faultAnswer))
	mux.HandleFunc("GET /link", s.link)
	mux.HandleFunc("POST /upload/{file}", s.upload)
	mux.HandleFunc("GET /files/{file}", s.download)
	mux.HandleFunc("POST /response/{id}", s.respond)
	mux.Handle("POST /local/faults", &s.faults)
	mux.HandleFunc("POST /local/{method}", s.local)
	mux.HandleFunc("GET /local/events", s.watch)
	mux.HandleFunc("GET /local/about", s.about)
	mux.Handle("/", page())
	return edge.Guard(mux, func(r *http.Request) bool { return r.URL.Path == "/link" })
}

func faultAnswer(w http.ResponseWriter, status int) {
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	text := "internal_error"
	if status == http.StatusTooManyRequests {
		text = "ratelimited"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": false, "error": text})
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
	method := r.PathValue("method")
	c, err := s.open(r)
	if err == nil && !s.allowed(w, c, method) {
		return
	}
	var out fields
	if err == nil {
		do, ok := s.methods()[method]
		if !ok {
			err = refuse("unknown_method")
		} else {
			out, err = do(c)
		}
	}
	reply(w, out, err)
}

func reply(w http.ResponseWriter, out fields, err error) {
	if out == nil {
		out = fields{}
	}
	out["ok"] = err == nil
	if err != nil {
		out["error"] = err.Error()
		if e, ok := err.(*slackError); ok && len(e.messages) > 0 { //nolint:errorlint // made here
			out["response_metadata"] = fields{"messages": e.messages}
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(out) // the caller may have gone
}

// open reads arguments and token, from wherever Slack's clients put them.
func (s *Server) open(r *http.Request) (*call, error) {
	c := &call{r: r, args: map[string]any{}}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/json" {
		raw, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		if err != nil || (len(raw) > 0 && json.Unmarshal(raw, &c.args) != nil) {
			return nil, refuse("invalid_json")
		}
	} else {
		if kind == "multipart/form-data" {
			_ = r.ParseMultipartForm(8 << 20)
		}
		_ = r.ParseForm()
	}
	for k, v := range r.Form {
		c.args[k] = v[0]
	}
	for k, v := range r.URL.Query() {
		c.args[k] = v[0]
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		token = c.str("token")
	}
	if token == "" {
		return nil, refuse("not_authed")
	}
	if token == "xapp-local" {
		c.app = true
		return c, nil
	}
	var ok bool
	if c.caller, ok = personBy(func(p person) bool { return p.token == token }); !ok {
		return nil, refuse("invalid_auth")
	}
	return c, nil
}

// perMinute are the documented limits of methods, by tier; posting has one of its own for each channel.
func perMinute(method string) int {
	switch method {
	case "chat.update", "conversations.history", "conversations.replies", "reactions.add", "reactions.remove", "agents.sessions.setStatus", "chat.delete":
		return 50
	case "chat.startStream", "chat.stopStream", "usergroups.users.list", "conversations.list":
		return 20
	default:
		return 100
	}
}

// allowed keeps the rate limits for the bot. Bursts are tolerated, as by Slack.
func (s *Server) allowed(w http.ResponseWriter, c *call, method string) bool {
	if !s.cfg.RateLimits || !c.caller.bot {
		return true
	}
	key, limit, burst := method, rate.Limit(float64(perMinute(method))/60), perMinute(method)/2
	if method == "chat.postMessage" {
		key, limit, burst = method+" "+c.str("channel"), 1, 10
	}
	s.mu.Lock()
	b := s.buckets[key]
	if b == nil {
		b = rate.NewLimiter(limit, burst)
		s.buckets[key] = b
	}
	s.mu.Unlock()
	if b.Allow() {
		return true
	}
	faultAnswer(w, http.StatusTooManyRequests)
	return false
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

// about tells the page who answers.
func (s *Server) about(w http.ResponseWriter, _ *http.Request) {
	reply(w, fields{"agent": s.cfg.Agent, "note": s.cfg.Note}, nil)
}

// changed tells the pages what to look at again. s.mu must be held.
func (s *Server) changed(what string) {
	for w := range s.watchers {
		select {
		case w <- what:
		default: // it has something to look at already
		}
	}
}

// watch is a stream of changes for a page.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	ch := make(chan string, 64)
	s.mu.Lock()
	s.watchers[ch] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, ch)
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	fmt.Fprint(w, ": hello\n\n")
	_ = flush.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		case what := <-ch:
			fmt.Fprintf(w, "data: %s\n\n", what)
			_ = flush.Flush()
		}
	}
}
