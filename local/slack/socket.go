package slack

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
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
	out      chan []byte
	refresh  chan struct{}
	life     time.Duration
	draining bool                            // guarded by Server.mu; it was asked to go
	acks     map[string]chan json.RawMessage // guarded by Server.mu; :: envelope id → who waits
}

// envelope is a payload on its way to the app.
type envelope struct {
	kind    string
	payload fields
	made    time.Time
}

// passing is one attempt to pass an envelope.
type passing struct {
	id   string
	conn *conn
	ack  chan json.RawMessage
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
	return fields{"url": "ws://" + c.r.Host + "/link?ticket=" + ticket + "&app_id=" + appID}, nil
}

func (s *Server) link(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	ticket := r.URL.Query().Get("ticket")
	ok := s.tickets[ticket]
	delete(s.tickets, ticket)
	s.mu.Unlock()
	if !ok {
		http.Error(w, "invalid ticket", http.StatusForbidden)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the ticket is the proof
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(1 << 20)
	c := &conn{
		ws: ws, out: make(chan []byte, maxQueue), refresh: make(chan struct{}, 1), life: s.cfg.RefreshAfter, acks: map[string]chan json.RawMessage{},
	}
	if r.URL.Query().Get("debug_reconnects") == "true" {
		c.life = debugLife
	}
	if !s.join(c) {
		raw, _ := json.Marshal(disconnect("too_many_websockets"))
		_ = write(r.Context(), ws, raw)
		_ = ws.Close(websocket.StatusPolicyViolation, "too_many_websockets")
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
	for _, ack := range c.acks {
		close(ack)
	}
	c.acks = nil
}

// push queues a frame for a connection; one that does not read is dropped.
func (s *Server) push(c *conn, frame any) {
	raw, err := json.Marshal(frame)
	if err != nil {
		s.log.Error("frame not sent", "err", err)
		return
	}
	select {
	case c.out <- raw:
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
		case raw := <-c.out:
			if write(ctx, c.ws, raw) != nil {
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
			pctx, cancel := context.WithTimeout(ctx, s.cfg.PingInterval)
			err := c.ws.Ping(pctx)
			cancel()
			if err != nil {
				_ = c.ws.CloseNow()
				return
			}
		case <-warning.C:
			s.push(c, disconnect("warning"))
		case <-age.C:
			c.refreshSoon()
		case <-c.refresh:
			s.mu.Lock()
			c.draining = true
			s.mu.Unlock()
			s.push(c, disconnect("refresh_requested"))
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
		var ack struct {
			ID      string          `json:"envelope_id"`
			Payload json.RawMessage `json:"payload"`
		}
		if json.Unmarshal(raw, &ack) != nil {
			s.log.Warn("an ack was no JSON")
			continue
		}
		if len(raw) >= maxAck && len(ack.Payload) > 0 {
			s.log.Warn("the payload of an ack is ignored: it is too long", "bytes", len(raw), "most", maxAck-1)
			ack.Payload = nil
		}
		s.mu.Lock()
		if ch := c.acks[ack.ID]; ch != nil {
			delete(c.acks, ack.ID)
			ch <- ack.Payload
			close(ch)
		}
		s.mu.Unlock()
	}
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
	p := &passing{id: newUUID(), conn: free[s.next%len(free)], ack: make(chan json.RawMessage, 1)}
	p.conn.acks[p.id] = p.ack
	frame := fields{"envelope_id": p.id, "type": e.kind, "payload": e.payload, "accepts_response_payload": e.kind != "events_api"}
	if e.kind == "events_api" {
		frame["retry_attempt"], frame["retry_reason"] = attempt, ""
		if attempt > 0 {
			frame["retry_reason"] = "timeout"
		}
	}
	s.push(p.conn, frame)
	return p
}

// acked waits for the ack of an envelope, as long as Slack does.
func (s *Server) acked(p *passing) (payload json.RawMessage, ok bool) {
	timeout := time.NewTimer(s.cfg.AckTimeout)
	defer timeout.Stop()
	select {
	case payload, ok = <-p.ack:
	case <-timeout.C:
	case <-s.done:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(p.conn.acks, p.id) // an ack that comes later counts for nothing
	return payload, ok
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
		if _, ok := s.acked(p); ok {
			return
		}
	}
	s.log.Warn("an event is given up: it was never acked")
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
	e := &envelope{kind: "events_api", made: time.Now(), payload: fields{
		"token": "local", "team_id": teamID, "context_team_id": teamID, "context_enterprise_id": nil, "api_app_id": appID, "type": "event_callback",
		"event_id": s.id("Ev"), "event_time": time.Now().Unix(), "event": event, "is_ext_shared_channel": ch.name == "general",
		"authorizations": []fields{{"enterprise_id": nil, "team_id": teamID, "user_id": botUser, "is_bot": true, "is_enterprise_install": false}},
	}}
	p, w := s.beginOrWait(e, 0)
	s.spawn(func() { s.deliver(e, p, w) })
}

// eachConn does something with each connection.
func (s *Server) eachConn(do func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		do(c)
	}
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
