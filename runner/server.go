package runner

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// server is the running runner.
type server struct {
	cfg  Config
	log  *slog.Logger
	boot string
	exit chan struct{} // closed when it shall go
	once sync.Once

	mu      sync.Mutex
	fence   int64         // guarded by mu
	running *turn         // guarded by mu; nil: none
	leaving bool          // guarded by mu
	code    int           // guarded by mu; of the last turn
	asked   time.Time     // guarded by mu; last contact
	linger  *time.Timer   // guarded by mu
	lingers time.Duration // guarded by mu; of the last take
	secrets Secrets       // guarded by mu; of the last take
	hosts   []string      // guarded by mu; that Git may ask a credential for
}

// Run is process 1: it serves the verbs until it is acknowledged, told to sleep, forgotten, or ctx ends. The exit
// code is that of its last turn. With FLAUDE_PROMPT in the environment it runs that prompt instead, see [Seed].
func Run(ctx context.Context, cfg Config) (int, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Unwatched == 0 {
		cfg.Unwatched = 5 * time.Minute
	}
	if cfg.Unacked == 0 {
		cfg.Unacked = 10 * time.Minute
	}
	if err := cfg.makeDirs(); err != nil {
		return 1, err
	}
	fence, err := cfg.fence()
	if err != nil {
		return 1, err
	}
	s := &server{cfg: cfg, log: cfg.Log, boot: rand.Text(), exit: make(chan struct{}), fence: fence, asked: time.Now()}
	if cfg.Getenv != nil && cfg.Getenv("FLAUDE_PROMPT") != "" {
		return s.seed(ctx, cfg.Getenv, os.Stdout)
	}
	stop, err := s.listen()
	if err != nil {
		return 1, err
	}
	defer stop()
	go reapOrphans(ctx)
	s.stay(ctx)
	s.mu.Lock()
	s.leaving = true
	t := s.running
	s.mu.Unlock()
	if t != nil {
		t.interrupt(FailInterrupted)
		<-t.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code, nil
}

// stay returns when the runner shall go.
func (s *server) stay(ctx context.Context) {
	tick := time.NewTicker(min(s.cfg.Unwatched, s.cfg.Unacked, 10*time.Second) / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.exit:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		idle, busy := time.Since(s.asked), s.running != nil
		s.mu.Unlock()
		if !busy && idle > s.cfg.Unwatched && (idle > s.cfg.Unacked || len(s.cfg.unacked()) == 0) {
			s.log.Info("nobody asks: going to sleep")
			return
		}
	}
}

func (s *server) leave() { s.once.Do(func() { close(s.exit) }) }

// listen opens the verbs' socket, which is root's, and the credential helper's, which Claude's user may open.
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
	first, err := serveUnix(s.cfg.socket(), 0o600, verbs)
	if err != nil {
		return nil, err
	}
	second, err := serveUnix(s.cfg.gitSocket(), 0o666, git)
	if err != nil {
		_ = first.Close()
		return nil, err
	}
	return func() { _, _ = first.Close(), second.Close() }, nil
}

func serveUnix(path string, mode os.FileMode, h http.Handler) (*http.Server, error) {
	_ = os.Remove(path) // of an earlier boot
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	return srv, nil
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

// Verb is the exec'd side: it passes one request from stdin to the running runner and its reply to stdout. A
// runner that is still coming up is waited for.
func Verb(ctx context.Context, cfg Config, verb string, stdin io.Reader, stdout io.Writer) error {
	client := &http.Client{Transport: unixTransport(cfg.socket())}
	body, err := io.ReadAll(io.LimitReader(stdin, 4*MaxBody))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	res, err := post(ctx, client, verb, body)
	for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end) && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		res, err = post(ctx, client, verb, body)
	}
	if err != nil {
		return fmt.Errorf("no runner answers at %s: %w", cfg.socket(), err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("the runner refuses %s: %s: %s", verb, res.Status, text)
	}
	_, err = io.Copy(stdout, res.Body)
	return err
}

var verbName = regexp.MustCompile(`^[a-z]+$`)

func post(ctx context.Context, c *http.Client, verb string, body []byte) (*http.Response, error) {
	if !verbName.MatchString(verb) {
		return nil, fmt.Errorf("%q is no verb", verb)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runner/"+verb, bytesReader(body))
	if err != nil {
		return nil, err
	}
	return c.Do(req)
}

func unixTransport(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
}

// mayChange notes the contact and the fence; false: the fence is older than one already seen.
func (s *server) mayChange(fence int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Now()
	if fence < s.fence {
		return false
	}
	if fence > s.fence {
		if err := writeFile(s.cfg.fenceFile(), strconv.AppendInt(nil, fence, 10)); err != nil {
			s.log.Error("fence not kept", "err", err)
		}
		s.fence = fence
	}
	return true
}

func (s *server) contact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Now()
}

// statusOf tells what is known of a turn.
func (s *server) statusOf(id string) (Status, *turn, *record) {
	s.mu.Lock()
	t := s.running
	s.mu.Unlock()
	if t != nil && t.ID == id {
		return StatusRunning, t, nil
	}
	if r, ok := s.cfg.outcome(id); ok {
		return StatusDone, nil, &r
	}
	if s.cfg.heard(id) {
		return StatusInterrupted, nil, nil
	}
	return StatusUnknown, nil, nil
}

var putName = regexp.MustCompile(`^(prompt|file/[A-Za-z0-9_-][A-Za-z0-9._-]{0,120})$`)

func (c Config) putFile(turn, name string) string {
	return filepath.Join(c.turnFile(turn, ".put"), filepath.FromSlash(name))
}

func (s *server) put(_ context.Context, r PutRequest) PutReply {
	if !s.mayChange(r.Fence) {
		return PutReply{Status: StatusFenced}
	}
	if !putName.MatchString(r.Name) || r.Offset < 0 {
		return PutReply{Status: StatusInvalid, Reason: "a name must be prompt or file/NAME"}
	}
	path := s.cfg.putFile(r.Turn, r.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return PutReply{Status: StatusInvalid, Reason: err.Error()}
	}
	if have := size(path); r.Offset > have {
		return PutReply{Status: StatusInvalid, Reason: fmt.Sprintf("bytes %d to %d are missing", have, r.Offset)}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteAt(r.Data, r.Offset)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return PutReply{Status: StatusInvalid, Reason: err.Error()}
	}
	return PutReply{Status: StatusOK, Size: size(path)}
}

func (s *server) take(_ context.Context, r TakeRequest) TakeReply {
	if !s.mayChange(r.Fence) {
		return TakeReply{Status: StatusFenced}
	}
	status, _, rec := s.statusOf(r.Turn.ID)
	switch status {
	case StatusUnknown:
	case StatusDone:
		return TakeReply{Status: status, Outcome: &rec.Outcome}
	default:
		return TakeReply{Status: status}
	}
	prompt, err := s.check(r.Turn)
	if err != nil {
		return TakeReply{Status: StatusInvalid, Reason: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.leaving:
		return TakeReply{Status: StatusExiting}
	case s.running != nil && s.running.ID == r.Turn.ID: // asked twice at once
		return TakeReply{Status: StatusRunning}
	case s.running != nil:
		return TakeReply{Status: StatusBusy}
	case s.cfg.heard(r.Turn.ID): // it ended meanwhile: the next question tells how
		return TakeReply{Status: StatusRunning}
	}
	if s.linger != nil && !s.linger.Stop() {
		return TakeReply{Status: StatusExiting}
	}
	s.linger = nil
	j, err := newJournal(s.cfg, r.Turn.ID)
	if err != nil {
		return TakeReply{Status: StatusInvalid, Reason: err.Error()}
	}
	s.secrets, s.hosts = r.Secrets, gitHosts(r.Turn.Repos)
	s.lingers = time.Duration(r.Turn.Settings.LingerSeconds) * time.Second
	t := newTurn(s.cfg, r.Turn, prompt, r.Secrets, j)
	s.running = t
	go func() {
		out := t.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running, s.code, s.asked = nil, out.ExitCode, time.Now()
		close(t.done)
		j.close()
	}()
	return TakeReply{Status: StatusAccepted}
}

var sessionID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// check refuses a turn that could not work, and returns its prompt.
func (s *server) check(t Turn) (string, error) {
	prompt := t.Prompt
	if t.PromptPut {
		raw, err := os.ReadFile(s.cfg.putFile(t.ID, "prompt"))
		if err != nil {
			return "", errors.New("the prompt was not put")
		}
		prompt = string(raw)
	}
	switch {
	case t.ID == "":
		return "", errors.New("a turn needs an id")
	case !sessionID.MatchString(t.SessionID):
		return "", fmt.Errorf("%q is no session id: want a UUID", t.SessionID)
	case isBlank(prompt):
		return "", errors.New("the prompt is blank")
	}
	for _, f := range t.Files {
		if !putName.MatchString("file/" + f.Name) {
			return "", fmt.Errorf("%q is no name for an attachment", f.Name)
		}
		if err := f.whole(s.cfg.putFile(t.ID, "file/"+f.Name)); err != nil {
			return "", err
		}
	}
	return prompt, checkRepos(t.Repos)
}

// whole checks that an attachment arrived as it was sent.
func (f File) whole(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("attachment %s was not put", f.Name)
	}
	if sum := sha256.Sum256(raw); int64(len(raw)) != f.Size || (f.SHA256 != "" && hex.EncodeToString(sum[:]) != f.SHA256) {
		return fmt.Errorf("attachment %s did not arrive whole", f.Name)
	}
	return nil
}

// eventsBudget keeps a reply with events below MaxBody.
const eventsBudget = MaxBody - 4<<10

// eventsBatch is how long a reply waits for more once there is news: each costs an exec, of which Fly allows one a
// second, and no one sees more.
const eventsBatch = 800 * time.Millisecond

func (s *server) events(ctx context.Context, r EventsRequest) EventsReply {
	s.contact()
	if _, t, _ := s.statusOf(r.Turn); t != nil {
		wait := time.NewTimer(time.Duration(min(max(r.WaitMS, 0), 15000)) * time.Millisecond)
		defer wait.Stop()
		if events := t.await(ctx, r.After, wait.C); events != nil {
			return EventsReply{Status: StatusRunning, Events: fitting(events)}
		}
	}
	status, t, rec := s.statusOf(r.Turn)
	if t != nil {
		return EventsReply{Status: StatusRunning}
	}
	all := s.cfg.kept(r.Turn)
	rest := all[min(max(r.After, 0), len(all)):]
	reply := EventsReply{Status: status, Events: fitting(rest)}
	if rec == nil || len(reply.Events) < len(rest) {
		return reply
	}
	raw, _ := json.Marshal(reply)
	whole := reply
	whole.Outcome, whole.Text = &rec.Outcome, rec.Answer
	if len(rec.Answer) > eventsBudget || len(raw) > eventsBudget {
		return reply
	}
	if raw, _ = json.Marshal(whole); len(raw) > eventsBudget {
		return reply
	}
	return whole
}

// await returns events after n: nil when the turn is over or nothing came in time.
func (t *turn) await(ctx context.Context, n int, timeout <-chan time.Time) []Event {
	var enough <-chan time.Time
	for {
		events, changed := t.journal.after(n)
		if len(events) > 0 && enough == nil {
			enough = time.After(eventsBatch)
		}
		select {
		case <-changed:
		case <-t.done:
			return nil
		case <-enough:
			return events
		case <-ctx.Done():
			return events
		case <-timeout:
			return events
		}
	}
}

// fitting returns as many events as go into one reply.
func fitting(events []Event) []Event {
	size := 0
	for i, e := range events {
		raw, _ := json.Marshal(e)
		if size += len(raw) + 1; size > eventsBudget && i > 0 {
			return events[:i]
		}
	}
	return events
}

func (s *server) result(_ context.Context, r ResultRequest) ResultReply {
	s.contact()
	status, _, rec := s.statusOf(r.Turn)
	if rec == nil {
		return ResultReply{Status: status}
	}
	from := min(max(r.Offset, 0), int64(len(rec.Answer)))
	return ResultReply{Status: status, Outcome: &rec.Outcome, Text: piece(rec.Answer[from:])}
}

// piece returns the beginning of text that fits into a reply once it is JSON, cut at a rune's end.
func piece(text string) string {
	n := min(len(text), MaxBody*3/4)
	for {
		for n > 0 && n < len(text) && text[n]&0xC0 == 0x80 {
			n--
		}
		raw, _ := json.Marshal(text[:n])
		if len(raw) <= MaxBody-8<<10 {
			return text[:n]
		}
		n = n * 3 / 4
	}
}

func (s *server) ack(_ context.Context, r AckRequest) AckReply {
	if !s.mayChange(r.Fence) {
		return AckReply{Status: StatusFenced}
	}
	status, _, rec := s.statusOf(r.Turn)
	if rec != nil {
		if err := os.WriteFile(s.cfg.turnFile(r.Turn, ".acked"), nil, 0o600); err != nil {
			s.log.Error("acknowledgement not kept", "turn", r.Turn, "err", err)
		}
		_ = os.RemoveAll(s.cfg.turnFile(r.Turn, ".put"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		s.goSoon()
	}
	if status != StatusDone && status != StatusInterrupted {
		return AckReply{Status: StatusUnknown}
	}
	return AckReply{Status: StatusOK}
}

// goSoon leaves after the linger time of the last turn. s.mu must be held.
func (s *server) goSoon() {
	wait := s.lingers
	if wait == 0 {
		s.leaving = true
		// The reply to this very request comes first.
		time.AfterFunc(50*time.Millisecond, s.leave)
		return
	}
	s.linger = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.running == nil {
			s.leaving = true
			s.leave()
		}
	})
}

func (s *server) stop(_ context.Context, r StopRequest) StopReply {
	if !s.mayChange(r.Fence) {
		return StopReply{Status: StatusFenced}
	}
	status, t, _ := s.statusOf(r.Turn)
	if t != nil {
		t.interrupt(FailStopped)
		return StopReply{Status: StatusOK}
	}
	return StopReply{Status: status}
}

func (s *server) sleep(_ context.Context, r SleepRequest) SleepReply {
	if !s.mayChange(r.Fence) {
		return SleepReply{Status: StatusFenced}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return SleepReply{Status: StatusBusy}
	}
	s.leaving = true
	time.AfterFunc(50*time.Millisecond, s.leave)
	return SleepReply{Status: StatusOK}
}

func (s *server) hello(context.Context, HelloRequest) HelloReply {
	s.contact()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := HelloReply{Status: StatusOK, BootID: s.boot, Version: s.cfg.Version, Fence: s.fence, Unacked: s.cfg.unacked()}
	if s.running != nil {
		r.Running = s.running.ID
	}
	return r
}
