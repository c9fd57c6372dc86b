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

// conn is one Socket Mode connection. Each payload goes to one of them.
type conn struct {
	ws   *websocket.Conn
	acks map[string]chan json.RawMessage // guarded by Server.mu; :: envelope id → who waits
}

// envelope is a payload on its way to the app.
type envelope struct {
	kind    string
	payload fields
}

func (s *Server) connectionsOpen(c *call) (fields, error) {
	if !c.app {
		return nil, refuse("not_allowed_token_type")
	}
	ticket := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickets[ticket] = true
	return fields{"url": "ws://" + c.r.Host + "/link?ticket=" + ticket + "&app_id=" + appID}, nil
}

// maxConns is how many connections Slack allows an app.
const maxConns = 10

func (s *Server) link(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	ticket := r.URL.Query().Get("ticket")
	ok, full := s.tickets[ticket], len(s.conns) >= maxConns
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
	c := &conn{ws: ws, acks: map[string]chan json.RawMessage{}}
	if full {
		_ = send(r.Context(), ws, fields{"type": "disconnect", "reason": "too_many_websockets", "debug_info": fields{"host": "local"}})
		return
	}
	s.mu.Lock()
	n := len(s.conns) + 1
	s.mu.Unlock()
	if send(r.Context(), ws, fields{
		"type": "hello", "num_connections": n, "connection_info": fields{"app_id": appID},
		"debug_info": fields{"host": "local", "approximate_connection_time": 3600},
	}) != nil {
		return
	}
	s.join(c)
	defer s.drop(c)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.work.Go(func() { s.keepAlive(ctx, c) })
	s.hear(ctx, c)
}

func send(ctx context.Context, ws *websocket.Conn, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, raw)
}

// join makes a connection known, and gives it what came while there was none.
func (s *Server) join(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	waiting := s.pending
	s.pending = nil
	for _, e := range waiting {
		s.work.Go(func() { s.deliver(e) })
	}
}

func (s *Server) drop(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(s.conns, func(o *conn) bool { return o == c })
	for _, ch := range c.acks {
		close(ch)
	}
	c.acks = nil
}

// keepAlive sends pings, and asks for a new connection when this one is old.
func (s *Server) keepAlive(ctx context.Context, c *conn) {
	ping := time.NewTicker(s.cfg.PingInterval)
	defer ping.Stop()
	var refresh <-chan time.Time
	if s.cfg.RefreshAfter > 0 {
		refresh = time.After(s.cfg.RefreshAfter)
	}
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
		case <-refresh:
			_ = send(ctx, c.ws, fields{"type": "disconnect", "reason": "refresh_requested", "debug_info": fields{"host": "local"}})
		}
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
			continue
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

// pass sends an envelope over one connection and waits for its ack.
func (s *Server) pass(e *envelope, attempt int) (json.RawMessage, bool) {
	id := newUUID()
	ack := make(chan json.RawMessage, 1)
	s.mu.Lock()
	if len(s.conns) == 0 {
		s.mu.Unlock()
		return nil, false
	}
	s.next++
	c := s.conns[s.next%len(s.conns)]
	c.acks[id] = ack
	s.mu.Unlock()
	frame := fields{"envelope_id": id, "type": e.kind, "payload": e.payload, "accepts_response_payload": e.kind != "events_api"}
	if e.kind == "events_api" {
		frame["retry_attempt"], frame["retry_reason"] = attempt, ""
		if attempt > 0 {
			frame["retry_reason"] = "timeout"
		}
	}
	if send(context.Background(), c.ws, frame) != nil {
		return nil, false
	}
	select {
	case payload, ok := <-ack:
		return payload, ok
	case <-time.After(s.cfg.AckTimeout):
		return nil, false
	case <-s.done:
		return nil, false
	}
}

// deliver sends an event until it is acked: at once, and then after each of the delays.
func (s *Server) deliver(e *envelope) {
	for attempt := 0; ; attempt++ {
		if _, ok := s.pass(e, attempt); ok {
			return
		}
		s.mu.Lock()
		if len(s.conns) == 0 {
			s.pending = append(s.pending, e)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if attempt == len(s.cfg.RetryDelays) {
			s.log.Warn("event given up: it was never acked")
			return
		}
		select {
		case <-s.done:
			return
		case <-time.After(s.cfg.RetryDelays[attempt]):
		}
	}
}

// sendEvent wraps an event and delivers it. s.mu must be held.
func (s *Server) sendEvent(ch *channel, event fields) {
	if ch != nil && !ch.members[botUser] {
		return
	}
	e := &envelope{kind: "events_api", payload: fields{
		"token": "local", "team_id": teamID, "context_team_id": teamID, "api_app_id": appID, "type": "event_callback", "event_id": s.id("Ev"),
		"event_time": time.Now().Unix(), "event": event, "is_ext_shared_channel": ch != nil && ch.name == "general",
		"authorizations": []fields{{"team_id": teamID, "user_id": botUser, "is_bot": true, "is_enterprise_install": false}},
	}}
	s.work.Go(func() { s.deliver(e) })
}

// closeConns ends all connections: without a word, or after asking for a refresh.
func (s *Server) closeConns(how string) {
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	for _, c := range conns {
		if how == "refresh" {
			_ = send(context.Background(), c.ws, fields{"type": "disconnect", "reason": "refresh_requested", "debug_info": fields{"host": "local"}})
			continue
		}
		_ = c.ws.CloseNow()
	}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
