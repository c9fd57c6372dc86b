package slack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// trouble is what goes wrong with connections, and with what passes over them, on demand.
type trouble struct {
	refuse  string      // what becomes of new connections: "dial", "hello", "after_hello", "too_many_websockets", "link_disabled"; "": they are fine
	cut     string      // where the next connection breaks, once: "event", "sent", "ack"; "": nowhere
	copies  int         // how many copies of each event go out at once; 0: one
	holding bool        // events are kept back
	held    []*envelope // those
	lacks   []string    // scopes that the bot's token is told not to have
}

// passed is what a witness wants to know of what was passed to the app.
type passed struct {
	opens   []time.Time     // calls of apps.connections.open that were granted
	events  int             // that there were
	first   int             // of those: sent when they happened, and acked or not by now
	again   int             // sent once more, or late
	givenUp int             // never acked
	acks    []time.Duration // from an event's sending to its ack
	stray   []string        // ids that were acked and that nobody waited for: late, or of frames that were asked for
}

// maxStray is how many of them are kept.
const maxStray = 1000

// socket makes trouble for the connections that are open: {"close": ""} drops them without a word; "refresh" asks for new ones
// and closes the old a while later, as Slack does every few hours; "warning" and "link_disabled" say just that; "ghost" leaves
// them open, and nothing passes over them any more, as when TCP is half open. {"one": true} does it to the oldest alone.
func (s *Server) socket(c *call) (fields, error) {
	how := c.str("close")
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := slices.DeleteFunc(slices.Clone(s.conns), func(conn *conn) bool { return conn.ghost && how != "" })
	if c.flag("one") && len(conns) > 1 {
		conns = conns[:1]
	}
	for _, conn := range conns {
		switch how {
		case "":
			_ = conn.ws.CloseNow()
		case "refresh":
			conn.refreshSoon()
		case "warning", "link_disabled":
			s.push(conn, disconnect(how))
		case "ghost":
			conn.ghost = true
		default:
			return nil, refuse("invalid_arguments")
		}
	}
	return nil, nil
}

// makeTrouble makes trouble for what is to come; what is not named stays as it is.
//
//   - {"refuse": "dial"} refuses sockets, "hello" closes them before they hear anything, "after_hello" right after,
//     "too_many_websockets" and "link_disabled" with that reason; "nothing" ends it.
//   - {"cut": "event"} breaks the connection in the middle of the next event, "sent" right after it, "ack" when its ack
//     comes, which counts for nothing. It happens once.
//   - {"copies": 2} sends each event over so many connections at once. Acks of the copies count for nothing.
//   - {"hold": true} keeps events back; {"release": "kept"} sends those that were kept back in order, "reversed" the last first.
//   - {"lacks": ["chat:write"]} leaves scopes out of what Slack tells of the bot's token; [] ends it.
//   - {"frame": "…"} sends a frame, whatever it holds.
func (s *Server) makeTrouble(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch how := c.str("refuse"); how {
	case "":
	case "nothing":
		s.trouble.refuse = ""
	case "dial", "hello", "after_hello", "too_many_websockets", "link_disabled":
		s.trouble.refuse = how
	default:
		return nil, refuse("invalid_arguments")
	}
	switch where := c.str("cut"); where {
	case "":
	case "event", "sent", "ack":
		s.trouble.cut = where
	default:
		return nil, refuse("invalid_arguments")
	}
	if n, ok := c.args["copies"].(float64); ok {
		s.trouble.copies = int(n)
	}
	if c.flag("hold") {
		s.trouble.holding = true
	}
	if list, ok := c.args["lacks"].([]any); ok {
		s.trouble.lacks = nil
		for _, scope := range list {
			s.trouble.lacks = append(s.trouble.lacks, fmt.Sprint(scope))
		}
	}
	if frame := c.str("frame"); frame != "" && len(s.conns) > 0 {
		s.conns[0].out <- frameTo{raw: []byte(frame)}
	}
	return nil, s.release(c.str("release"))
}

// release sends what was kept back. s.mu must be held.
func (s *Server) release(order string) error {
	held := s.trouble.held
	switch order {
	case "":
		return nil
	case "kept":
	case "reversed":
		slices.Reverse(held)
	default:
		return refuse("invalid_arguments")
	}
	s.trouble.holding, s.trouble.held = false, nil
	for _, e := range held {
		s.pass(e)
	}
	return nil
}

// deliveries tells what was passed to the app. opens are milliseconds since 1970; acks are counted, and measured in milliseconds.
func (s *Server) deliveries(*call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	opens := []int64{}
	for _, at := range s.passed.opens {
		opens = append(opens, at.UnixMilli())
	}
	acks := slices.Sorted(slices.Values(s.passed.acks))
	share := func(of float64) float64 {
		if len(acks) == 0 {
			return 0
		}
		return float64(acks[int(float64(len(acks)-1)*of)].Microseconds()) / 1000
	}
	return fields{
		"opens": opens, "connections": len(s.conns), "events": s.passed.events, "first": s.passed.first, "again": s.passed.again, "given_up": s.passed.givenUp, "acks": len(acks),
		"stray": append([]string{}, s.passed.stray...), "ack_p50_ms": share(0.5), "ack_p99_ms": share(0.99), "ack_max_ms": share(1),
	}, nil
}

// takeCut tells whether the next connection is to break here, and counts that. s.mu must be held.
func (s *Server) takeCut(where string) bool {
	if s.trouble.cut != where {
		return false
	}
	s.trouble.cut = ""
	return true
}

// raw keeps what is below a WebSocket.
type raw struct {
	http.ResponseWriter

	conn net.Conn
}

// Hijack implements [http.Hijacker].
func (r *raw) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	conn, rw, err = http.NewResponseController(r.ResponseWriter).Hijack()
	r.conn = conn
	return conn, rw, err
}

// writeHalf writes the first half of a text frame.
func writeHalf(conn net.Conn, text []byte) {
	header := []byte{0x81, 127} // the last frame of a text; its length follows in 8 bytes
	header = binary.BigEndian.AppendUint64(header, uint64(len(text)))
	_, _ = conn.Write(append(header, text[:len(text)/2]...)) // it breaks anyway
}
