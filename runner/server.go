package runner

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// server is the running runner.
type server struct {
	cfg  Config
	log  *slog.Logger
	boot string
	stir chan struct{} // holds one: the time to go may be another one now

	// changing is held by a verb that changes something, over what it writes to disk: the fence is checked and the
	// change made in one go. It comes before mu.
	changing sync.Mutex

	mu       sync.Mutex
	fence    int64             // guarded by mu; the newest seen
	running  *turn             // guarded by mu; nil: none
	leaving  bool              // guarded by mu; takes nothing more
	code     int               // guarded by mu; of the last turn
	last     string            // guarded by mu; the last turn that ended in this boot
	lastKept bool              // guarded by mu; its outcome is on disk
	asked    time.Time         // guarded by mu; last contact
	settled  time.Time         // guarded by mu; when it began to linger; zero: it does not
	lingers  time.Duration     // guarded by mu; of the last take
	owed     []string          // guarded by mu; turns whose outcome nobody acknowledged, the oldest first
	ends     map[string]ending // guarded by mu; the last turn's, and those for which the disk had no room
	secrets  Secrets           // guarded by mu; of the last take
	origins  []string          // guarded by mu; that Git may ask a credential for
}

// ending is what is kept in memory of a turn that is over.
type ending struct {
	record
	journal *journal
}

func newServer(cfg Config) (*server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.makeDirs(); err != nil {
		return nil, err
	}
	cfg.warm, cfg.enclosure = &warm{}, &enclosure{}
	fence, err := cfg.fence()
	if err != nil {
		return nil, err
	}
	return &server{
		cfg: cfg, log: cfg.Log, boot: rand.Text(), stir: make(chan struct{}, 1), fence: fence, asked: time.Now(),
		owed: cfg.unacked(), ends: map[string]ending{},
	}, nil
}

// Run is process 1: it serves the verbs until it is acknowledged, told to sleep, forgotten, or ctx ends. The exit
// code is that of its last turn. With FLAUDE_PROMPT in the environment it runs that prompt instead, the seed
// system's way. Only one at a time may be at work on a volume. What an earlier one left running is ended first.
func Run(ctx context.Context, cfg Config) (int, error) {
	if err := adopt(); err != nil {
		return 1, err
	}
	cfg.adopts = true
	s, err := newServer(cfg)
	if err != nil {
		return 1, err
	}
	if cfg.UID >= 0 {
		_ = os.Chmod("/.fly", 0o700) //nolint:gosec // a folder; Fly's sockets are root's alone, where there are any
	}
	unlock, err := s.cfg.lock()
	if err != nil {
		return 1, err
	}
	defer unlock()
	s.cfg.endStrays()
	s.cfg.tidy()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go reapOrphans(ctx)
	if cfg.Getenv != nil && cfg.Getenv("FLAUDE_PROMPT") != "" {
		return s.seed(ctx, cfg.Getenv, os.Stdout)
	}
	h, err := s.cfg.handed()
	if err != nil {
		s.log.Error("nothing is taken from the machine's config", "err", err)
	} else if h != nil && h.Turn() != "" {
		return s.serveHanded(ctx, *h, os.Stdout)
	}
	return s.serve(ctx)
}

// serve answers the verbs until it is time to go.
func (s *server) serve(ctx context.Context) (int, error) {
	stop, err := s.listen()
	if err != nil {
		return 1, err
	}
	defer stop()
	s.stay(ctx)
	s.mu.Lock()
	t := s.running
	s.mu.Unlock()
	if t != nil {
		t.interrupt(FailInterrupted)
		<-t.done
	}
	s.cfg.warm.end(s.cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code, nil
}

// stay returns when the runner shall go; from then on it takes nothing more.
func (s *server) stay(ctx context.Context) {
	for {
		at, ok := s.departure()
		var due <-chan time.Time
		if ok {
			due = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			s.leave(func() bool { return true })
			return
		case <-s.stir:
		case <-due:
			if s.leave(func() bool { at, ok := s.goAt(); return ok && !time.Now().Before(at) }) {
				return
			}
		}
	}
}

// leave notes that it goes, if it may: nothing is taken meanwhile.
func (s *server) leave(may func() bool) bool {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = s.leaving || may()
	return s.leaving
}

func (s *server) departure() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.goAt()
}

// goAt is when it shall go if nobody asks anything more; false: not before its turn has ended. s.mu must be held.
func (s *server) goAt() (time.Time, bool) {
	switch {
	case s.leaving:
		return time.Time{}, true
	case s.running != nil:
		return time.Time{}, false
	case !s.settled.IsZero():
		return s.settled.Add(s.lingers), true
	case len(s.owed) > 0:
		return s.asked.Add(max(s.cfg.Unwatched, s.cfg.Unacked)), true
	}
	return s.asked.Add(s.cfg.Unwatched), true
}

// stirUp has stay look at the time to go again.
func (s *server) stirUp() {
	select {
	case s.stir <- struct{}{}:
	default: // it will look anyway
	}
}

// contact notes that somebody asks.
func (s *server) contact() {
	s.mu.Lock()
	s.asked = time.Now()
	s.mu.Unlock()
	s.stirUp()
}

// ended keeps the outcome of the turn that ran.
func (s *server) ended(t *turn, rec record) {
	err := s.cfg.finish(t.ID, rec)
	if err != nil {
		s.log.Error("outcome not kept on disk", "turn", t.ID, "err", err)
	}
	t.journal.close()
	s.mu.Lock()
	if s.lastKept {
		delete(s.ends, s.last)
	}
	s.ends[t.ID], s.lastKept = ending{rec, t.journal}, err == nil
	s.running, s.code, s.last, s.asked = nil, rec.Outcome.ExitCode, t.ID, time.Now()
	s.owed = append(s.owed, t.ID)
	s.mu.Unlock()
	close(t.done)
	s.stirUp()
}

// statusOf tells what is known of a turn.
func (s *server) statusOf(id string) (Status, *turn, *record) {
	s.mu.Lock()
	t := s.running
	end, known := s.ends[id]
	s.mu.Unlock()
	switch {
	case t != nil && t.ID == id:
		return StatusRunning, t, nil
	case known:
		return StatusDone, nil, &end.record
	}
	if r, ok := s.cfg.outcome(id); ok {
		return StatusDone, nil, &r
	}
	if s.cfg.heard(id) {
		return StatusInterrupted, nil, nil
	}
	return StatusUnknown, nil, nil
}

// happened returns the events after n of a turn that is over.
func (s *server) happened(id string, n int) []Event {
	s.mu.Lock()
	end, known := s.ends[id]
	s.mu.Unlock()
	if known {
		events, _ := end.journal.after(n)
		return events
	}
	return slices.DeleteFunc(s.cfg.kept(id), func(e Event) bool { return e.N <= n })
}

// forget removes a turn from those whose outcome is owed.
func (s *server) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed = slices.DeleteFunc(s.owed, func(one string) bool { return one == id })
}

// listen opens the verbs' socket, which is root's, and the credential helper's, which Claude's user may open. stop
// waits a moment for those who still read a reply: a machine that ends takes them with it.
func (s *server) listen() (stop func(), err error) {
	verbs := http.NewServeMux()
	route(verbs, "put", s.put)
	route(verbs, "take", s.take)
	route(verbs, "events", s.events)
	route(verbs, "result", s.result)
	route(verbs, "ack", s.ack)
	route(verbs, "stop", s.stop)
	route(verbs, "sleep", s.sleep)
	route(verbs, "hello", s.hello)
	git := http.NewServeMux()
	git.HandleFunc("POST /credential", s.credential)
	open := &connections{left: make(chan struct{}, 1), open: map[net.Conn]bool{}}
	first, err := serveUnix(s.cfg.socket(), 0o600, verbs, open.note)
	if err != nil {
		return nil, err
	}
	second, err := serveUnix(s.cfg.gitSocket(), 0o666, git, nil)
	if err != nil {
		_ = first.Close()
		return nil, err
	}
	return func() {
		open.await(time.Second)
		_, _ = first.Close(), second.Close()
	}, nil
}

func serveUnix(path string, mode os.FileMode, h http.Handler, note func(net.Conn, http.ConnState)) (*http.Server, error) {
	_ = os.Remove(path) // of an earlier boot
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ConnState: note}
	go func() { _ = srv.Serve(l) }()
	return srv, nil
}

// connections counts who is connected.
type connections struct {
	left chan struct{} // holds one: somebody went

	mu   sync.Mutex
	open map[net.Conn]bool // guarded by mu
}

func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != http.StateClosed && state != http.StateHijacked {
		c.open[conn] = true
		return
	}
	delete(c.open, conn)
	select {
	case c.left <- struct{}{}:
	default:
	}
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// await returns when all have gone, or after the limit.
func (c *connections) await(limit time.Duration) {
	end := time.After(limit)
	for c.count() > 0 {
		select {
		case <-c.left:
		case <-end:
			return
		}
	}
}

// route serves a verb: JSON in, JSON out.
func route[Req, Rep any](mux *http.ServeMux, verb string, do func(context.Context, Req) Rep) {
	mux.HandleFunc("POST /"+verb, func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if err := json.NewDecoder(io.LimitReader(r.Body, 4*MaxBody)).Decode(&req); err != nil {
			http.Error(w, fmt.Sprintf("decode the request: %s", err), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(do(r.Context(), req)) // the asker may have gone
	})
}
