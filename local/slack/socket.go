package slack

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/coder/websocket"
)

// Limits of Socket Mode.
const (
	maxConns  = 10        // connections of an app
	maxAck    = 20 * 1024 // bytes; the payload of an ack as long as this is ignored
	debugLife = 360 * time.Second
	maxQueue  = 1024 // frames that wait to be written to one connection
)

// conn is one Socket Mode connection. Each payload goes to one of them.
type conn struct {
	ws       *websocket.Conn
	tcp      net.Conn
	out      chan frameTo
	refresh  chan struct{}
	life     time.Duration
	draining bool                // guarded by Server.mu; it was asked to go
	ghost    bool                // guarded by Server.mu; nothing passes over it any more
	acks     map[string]chan ack // guarded by Server.mu; :: envelope id → who waits
}

// ack is what the app answers an envelope with.
type ack struct {
	ID      string          `json:"envelope_id"`
	Payload json.RawMessage `json:"payload"`

	at time.Time // when it was read
}

// frameTo is a frame on its way to the app.
type frameTo struct {
	raw []byte
	cut string // where the connection breaks at it, if it does
}

// envelope is a payload on its way to the app.
type envelope struct {
	kind    string
	payload json.RawMessage
	made    time.Time
}

// passing is one attempt to pass an envelope.
type passing struct {
	id   string
	conn *conn
	ack  chan ack
	sent time.Time
}

// waiter is an event that waits for a connection.
type waiter struct {
	e       *envelope
	attempt int
	begun   chan *passing
}

func disconnect(reason string) fields {
	return fields{"type": "disconnect", "reason": reason, "debug_info": fields{"host": "local"}}
}

func (s *Server) connectionsOpen(c *call) (fields, error) {
	ticket := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickets[ticket] = true
	s.passed.opens = append(s.passed.opens, time.Now())
	return fields{"url": "ws://" + c.r.Host + "/link?ticket=" + ticket + "&app_id=" + appID}, nil
}

func (s *Server) link(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	ticket := r.URL.Query().Get("ticket")
	ok := s.tickets[ticket]
	delete(s.tickets, ticket)
	refused := s.trouble.refuse
	s.mu.Unlock()
	if !ok {
		http.Error(w, "invalid ticket", http.StatusForbidden)
		return
	}
	if refused == "dial" {
		http.Error(w, "try later", http.StatusServiceUnavailable)
		return
	}
	under := &raw{ResponseWriter: w}
	ws, err := websocket.Accept(under, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the ticket is the proof
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(1 << 20)
	c := &conn{
		ws: ws, tcp: under.conn, out: make(chan frameTo, maxQueue), refresh: make(chan struct{}, 1), life: s.cfg.RefreshAfter, acks: map[string]chan ack{},
	}
	if r.URL.Query().Get("debug_reconnects") == "true" {
		c.life = debugLife
	}
	switch {
	case refused == "hello":
		return
	case refused == "after_hello":
		_ = write(r.Context(), ws, encoded(fields{"type": "hello", "num_connections": 1}))
		return
	case refused == "link_disabled":
		turnAway(r.Context(), ws, refused)
		return
	case refused == "too_many_websockets" || !s.join(c):
		turnAway(r.Context(), ws, "too_many_websockets")
		return
	}
	defer s.drop(c)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.mu.Lock()
	s.spawn(func() { s.writeTo(ctx, c) })
	s.spawn(func() { s.keepAlive(ctx, c) })
	s.mu.Unlock()
	s.hear(ctx, c)
}

// turnAway closes a connection that is not to be, and says why.
func turnAway(ctx context.Context, ws *websocket.Conn, reason string) {
	_ = write(ctx, ws, encoded(disconnect(reason)))
	_ = ws.Close(websocket.StatusPolicyViolation, reason)
}

func encoded(frame fields) []byte {
	out, _ := json.Marshal(frame) // plain values
	return out
}

func write(ctx context.Context, ws *websocket.Conn, raw []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, raw)
}

// join says hello on a connection, makes it known, and gives it what came while there was none. It tells false where
// there are too many.
func (s *Server) join(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= maxConns || s.closed {
		return false
	}
	s.conns = append(s.conns, c)
	s.push(c, fields{
		"type": "hello", "num_connections": len(s.conns), "connection_info": fields{"app_id": appID},
		"debug_info": fields{
			"host": "local", "started": time.Now().UTC().Format("2006-01-02 15:04:05.000"), "build_number": 1,
			"approximate_connection_time": int(c.life / time.Second),
		},
	})
	waiting := s.waiting
	s.waiting = nil
	for _, w := range waiting {
		w.begun <- s.begin(w.e, w.attempt)
	}
	return true
}

func (s *Server) drop(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(s.conns, func(o *conn) bool { return o == c })
	for _, waits := range c.acks {
		close(waits)
	}
	c.acks = nil
}

// push queues a frame for a connection; one that does not read is dropped. s.mu must be held.
func (s *Server) push(c *conn, frame fields) { s.pushCut(c, encoded(frame), "") }

// pushCut has the connection break at the frame, if cut says where. s.mu must be held.
func (s *Server) pushCut(c *conn, frame []byte, cut string) {
	if c.ghost {
		return
	}
	select {
	case c.out <- frameTo{frame, cut}:
	default:
		_ = c.ws.CloseNow()
	}
}

// writeTo writes what is queued, in order.
func (s *Server) writeTo(ctx context.Context, c *conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-c.out:
			if f.cut == "event" {
				writeHalf(c.tcp, f.raw)
				_ = c.ws.CloseNow()
				return
			}
			if write(ctx, c.ws, f.raw) != nil || f.cut != "" {
				_ = c.ws.CloseNow()
				return
			}
		}
	}
}

// keepAlive sends pings, and has a connection replaced when it is old: a warning, the request, and a while later its end.
func (s *Server) keepAlive(ctx context.Context, c *conn) {
	ping := time.NewTicker(s.cfg.PingInterval)
	defer ping.Stop()
	warning, age := time.NewTimer(max(c.life-s.cfg.RefreshGrace, 0)), time.NewTimer(c.life)
	defer warning.Stop()
	defer age.Stop()
	var end <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			_ = c.ws.CloseNow()
			return
		case <-ping.C:
			s.mu.Lock()
			ghost := c.ghost
			s.mu.Unlock()
			if ghost {
				continue
			}
			pctx, cancel := context.WithTimeout(ctx, s.cfg.PingInterval)
			err := c.ws.Ping(pctx)
			cancel()
			if err != nil {
				_ = c.ws.CloseNow()
				return
			}
		case <-warning.C:
			s.mu.Lock()
			s.push(c, disconnect("warning"))
			s.mu.Unlock()
		case <-age.C:
			c.refreshSoon()
		case <-c.refresh:
			s.mu.Lock()
			c.draining = true
			s.push(c, disconnect("refresh_requested"))
			s.mu.Unlock()
			end = time.After(s.cfg.RefreshGrace)
		case <-end:
			_ = c.ws.Close(websocket.StatusNormalClosure, "refresh_requested")
			return
		}
	}
}

// refreshSoon has the connection replaced now, whatever its age.
func (c *conn) refreshSoon() {
	select {
	case c.refresh <- struct{}{}:
	default: // asked already
	}
}

// hear reads acks until the connection ends.
func (s *Server) hear(ctx context.Context, c *conn) {
	for {
		_, raw, err := c.ws.Read(ctx)
		if err != nil {
			return
		}
		got := ack{at: time.Now()}
		if json.Unmarshal(raw, &got) != nil {
			s.log.Warn("an ack was no JSON")
			continue
		}
		if len(raw) >= maxAck && len(got.Payload) > 0 {
			s.log.Warn("the payload of an ack is ignored: it is too long", "bytes", len(raw), "most", maxAck-1)
			got.Payload = nil
		}
		if !s.heard(c, got) {
			_ = c.ws.CloseNow()
			return
		}
	}
}

// heard counts an ack; false: the connection is to break at it.
func (s *Server) heard(c *conn, got ack) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := c.acks[got.ID]
	if ch == nil && len(s.passed.stray) < maxStray {
		s.passed.stray = append(s.passed.stray, got.ID)
	}
	if ch == nil || c.ghost {
		return true
	}
	if s.takeCut("ack") {
		return false
	}
	delete(c.acks, got.ID)
	ch <- got
	close(ch)
	return true
}

// begin queues an envelope on one of the connections; nil if there is none. s.mu must be held.
func (s *Server) begin(e *envelope, attempt int) *passing {
	free := slices.DeleteFunc(slices.Clone(s.conns), func(c *conn) bool { return c.draining })
	if len(free) == 0 {
		free = s.conns
	}
	if len(free) == 0 {
		return nil
	}
	s.next++
	p := &passing{id: newUUID(), conn: free[s.next%len(free)], ack: make(chan ack, 1), sent: time.Now()}
	p.conn.acks[p.id] = p.ack
	cut := ""
	if e.kind == "events_api" {
		for _, where := range []string{"event", "sent"} {
			if s.takeCut(where) {
				cut = where
			}
		}
	}
	s.pushCut(p.conn, e.frame(p.id, attempt), cut)
	if e.kind == "events_api" {
		for range s.trouble.copies - 1 {
			s.next++
			s.pushCut(free[s.next%len(free)], e.frame(newUUID(), attempt), "")
		}
	}
	return p
}

// frame is an attempt to pass an envelope, under an id. It is put together by hand: all of a burst are made at once, before the first ack
// is heard.
func (e *envelope) frame(id string, attempt int) []byte {
	more := `"accepts_response_payload":true`
	if e.kind == "events_api" {
		why := ""
		if attempt > 0 {
			why = "timeout"
		}
		more = fmt.Sprintf(`"accepts_response_payload":false,"retry_attempt":%d,"retry_reason":%q`, attempt, why)
	}
	return fmt.Appendf(nil, `{"envelope_id":%q,"type":%q,"payload":%s,%s}`, id, e.kind, e.payload, more)
}

// acked waits for the ack of an envelope, as long as Slack does.
func (s *Server) acked(p *passing, limit time.Duration) (got ack, ok bool) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case got, ok = <-p.ack:
	case <-timeout.C:
	case <-s.done:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(p.conn.acks, p.id) // an ack that comes later counts for nothing
	return got, ok
}

// deliver sees an event through: it is sent until it is acked, at once and then after each of the delays. One that meets
// no connection waits for one, as long as Slack would try.
func (s *Server) deliver(e *envelope, p *passing, w *waiter) {
	for attempt := 0; attempt <= len(s.cfg.RetryDelays); attempt++ {
		if attempt > 0 {
			select {
			case <-s.done:
				return
			case <-time.After(s.cfg.RetryDelays[attempt-1]):
			}
			s.mu.Lock()
			p, w = s.beginOrWait(e, attempt)
			s.mu.Unlock()
		}
		if w != nil {
			attempt = w.attempt
			p = s.await(w)
		}
		if p == nil {
			break
		}
		got, ok := s.acked(p, s.cfg.AckTimeout)
		s.count(attempt, got.at.Sub(p.sent), ok)
		if ok {
			return
		}
	}
	s.log.Warn("an event is given up: it was never acked")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed.givenUp++
}

// count notes one delivery of an event.
func (s *Server) count(attempt int, took time.Duration, acked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if attempt == 0 {
		s.passed.first++
	} else {
		s.passed.again++
	}
	if acked {
		s.passed.acks = append(s.passed.acks, took)
	}
}

// beginOrWait queues an event on a connection, or, where there is none, for one to come. s.mu must be held.
func (s *Server) beginOrWait(e *envelope, attempt int) (*passing, *waiter) {
	if p := s.begin(e, attempt); p != nil {
		return p, nil
	}
	w := &waiter{e: e, attempt: max(attempt, 1), begun: make(chan *passing, 1)}
	s.waiting = append(s.waiting, w)
	return nil, w
}

// await waits for the connection; nil if none came in time.
func (s *Server) await(w *waiter) *passing {
	timeout := time.NewTimer(time.Until(w.e.made.Add(s.cfg.Window)))
	defer timeout.Stop()
	select {
	case p := <-w.begun:
		return p
	case <-timeout.C:
	case <-s.done:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(o *waiter) bool { return o == w })
	select {
	case p := <-w.begun:
		return p
	default:
		return nil
	}
}

// sendEvent wraps an event and has it delivered. Events are first sent in the order of these calls. s.mu must be held.
func (s *Server) sendEvent(ch *channel, event fields) {
	if !ch.members[botUser] {
		return
	}
	e := &envelope{kind: "events_api", made: time.Now(), payload: encoded(fields{
		"token": "local", "team_id": teamID, "context_team_id": teamID, "context_enterprise_id": nil, "api_app_id": appID, "type": "event_callback",
		"event_id": s.id("Ev"), "event_time": time.Now().Unix(), "event": event, "is_ext_shared_channel": ch.name == "general",
		"authorizations": []fields{{"enterprise_id": nil, "team_id": teamID, "user_id": botUser, "is_bot": true, "is_enterprise_install": false}},
	})}
	s.passed.events++
	if s.trouble.holding {
		s.trouble.held = append(s.trouble.held, e)
		return
	}
	s.pass(e)
}

// pass has an event delivered. s.mu must be held.
func (s *Server) pass(e *envelope) {
	p, w := s.beginOrWait(e, 0)
	s.spawn(func() { s.deliver(e, p, w) })
}

// dropConns ends all connections without a word.
func (s *Server) dropConns() {
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.ws.CloseNow()
	}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
