package bot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// The sockets are our own rather than slack-go's: its client reconnects without a pause where Slack closes right after hello, drops
// the old socket before it has a new one, and hides why Slack closed.

// lanes take in what was said in several threads side by side. That of one thread shares a lane, so that it stays in order.
type lanes []chan func(context.Context)

func newLanes() lanes {
	l := make(lanes, 16)
	for i := range l {
		l[i] = make(chan func(context.Context), 256)
	}
	return l
}

// of is the lane of an event's thread.
func (l lanes) of(e innerEvent) chan<- func(context.Context) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(e.Channel + e.Item.Channel + e.thread())) // never fails
	return l[h.Sum32()%uint32(len(l))]                              //nolint:gosec // there are few
}

// do has something done in the lane of an event's thread, and waits for it.
func (l lanes) do(ctx context.Context, e innerEvent, do func(context.Context) error) error {
	done := make(chan error, 1)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case l.of(e) <- func(ctx context.Context) { done <- do(ctx) }:
		return <-done
	}
}

// Bounds of one socket.
const (
	ackTimeout   = 2 * time.Second  // for writing an ack: Slack waits 3 s for it
	helloTimeout = 10 * time.Second // from the dial to Slack's first word
	drainTime    = 30 * time.Second // how long a socket is heard that Slack asked to be replaced; Slack closes it before
	maxAck       = 20 << 10         // bytes; Slack ignores a longer ack
	maxFrame     = 4 << 20          // bytes
)

// Pace of dialling. All sockets of a replica share a rate well below Slack's limit of apps.connections.open (Tier 3: 50 a minute for
// the whole app). Beside it a socket that does not last is tried again after a pause that doubles.
const (
	dialEvery  = 3 * time.Second
	dialBurst  = 6
	firstPause = 250 * time.Millisecond
	maxPause   = 30 * time.Second
	lasting    = 15 * time.Second // a socket that lived so long was a good one
)

// Run receives until ctx ends; what it has heard by then it stores and acks. ready is called when Slack said hello. It is called once.
func (b *Bot) Run(ctx context.Context, ready func()) error {
	leave := sync.OnceFunc(func() { close(b.left) })
	defer leave()
	defer context.AfterFunc(ctx, leave)()
	g, ctx := errgroup.WithContext(ctx)
	stay, drop := context.WithCancel(context.WithoutCancel(ctx))
	defer drop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(leaveTime, drop) })()
	laned := newLanes()
	var working sync.WaitGroup
	defer working.Wait()
	for _, lane := range laned {
		defer close(lane) // nobody is left who puts anything into it
		working.Go(func() {
			for do := range lane {
				do(stay)
			}
		})
	}
	g.Go(func() error { b.keepMarks(ctx); return nil })
	caughtUp := make(chan struct{})
	g.Go(func() error { b.catchUps(ctx, laned, sync.OnceFunc(func() { close(caughtUp) })); return nil })
	select {
	case <-caughtUp:
	case <-time.After(catchUpFirst):
	}
	for range b.cfg.Connections {
		g.Go(func() error { return b.connect(ctx, laned, ready) })
	}
	return g.Wait()
}

// connect keeps one Socket Mode connection up. It gives up on a refused token only. When Slack asks for a new connection the old one
// is heard until Slack closes it, so that there is no gap.
func (b *Bot) connect(ctx context.Context, laned lanes, ready func()) error {
	var old sync.WaitGroup
	defer old.Wait()
	pause := time.Duration(0)
	for ctx.Err() == nil {
		if err := b.awaitDial(ctx, pause); err != nil {
			return nil //nolint:nilerr // it was told to end
		}
		began := time.Now()
		c, err := b.dial(ctx)
		if err == nil {
			c.lanes, c.leave = laned, make(chan struct{})
			done := make(chan struct{})
			old.Go(func() { defer close(done); err = c.receive(ctx, ready) })
			select {
			case <-done:
			case <-c.leave:
				pause = 0
				continue
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && isTokenError(err) {
			return fmt.Errorf("SLACK_APP_TOKEN: %w: %w; take it again from the app's page Basic Information", ErrToken, err)
		}
		switch lived := time.Since(began); {
		case lived > lasting:
			pause = 0
		case lived > 2*max(pause, firstPause): // it was of some use
			pause = firstPause
		default:
			pause = min(max(pause*2, firstPause), maxPause)
		}
		if after, _ := asksToWait(err); after > pause {
			pause = after
		}
		b.log.WarnContext(ctx, "socket ended", "err", err, "pause", pause)
	}
	return nil
}

// awaitDial waits until the next dial may be: after the pause, give or take, and within the rate that all sockets share.
func (b *Bot) awaitDial(ctx context.Context, pause time.Duration) error {
	if pause > 0 {
		pause += rand.N(pause/4 + 1) //nolint:gosec // it spreads dials
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
	}
	return b.dials.Wait(ctx)
}

// dial opens a socket.
func (b *Bot) dial(ctx context.Context) (*connection, error) {
	_, address, err := b.api.StartSocketModeContext(ctx)
	if err != nil {
		return nil, err
	}
	dialer := &websocket.Dialer{
		Proxy:            http.ProxyFromEnvironment,
		HandshakeTimeout: helloTimeout,
		WriteBufferSize:  maxAck + 1<<10, // an ack is one frame: Slack drops those that come in several
	}
	ws, res, err := dialer.DialContext(ctx, address, nil)
	if res != nil && res.Body != nil {
		_ = res.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err) // the address holds a ticket, which gorilla does not name
	}
	ws.SetReadLimit(maxFrame)
	return &connection{bot: b, ws: ws}, nil
}

// connection is one socket.
type connection struct {
	bot   *Bot
	ws    *websocket.Conn
	lanes lanes
	heard sync.WaitGroup // what came and is not acked yet
	leave chan struct{}  // closed when Slack asks for another one
	left  sync.Once
	up    bool // Slack said hello, and the socket has not ended since; of receive alone

	writing sync.Mutex // of acks
}

// errSilent says that nothing came over a socket for too long, not even a ping: it is open at our end alone.
var errSilent = errors.New("Slack is silent") //nolint:staticcheck // a name

// receive hears the socket until it ends. It must never wait, or pings starve and Slack closes the socket.
func (c *connection) receive(ctx context.Context, ready func()) error {
	defer c.lost()
	defer func() { _ = c.ws.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.ws.SetReadDeadline(time.Now()) })
	defer stop()
	wait := func(d time.Duration) {
		_ = c.ws.SetReadDeadline(time.Now().Add(d))
		if ctx.Err() != nil {
			_ = c.ws.SetReadDeadline(time.Now())
		}
	}
	alive := func() {
		c.bot.heardAt.Store(time.Now().UnixNano())
		wait(c.bot.cfg.Silence)
	}
	wait(helloTimeout)
	c.ws.SetPingHandler(func(data string) error {
		alive()
		_ = c.ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second)) // reading tells when it is broken
		return nil
	})
	for {
		_, raw, err := c.ws.ReadMessage()
		switch timeout := net.Error(nil); {
		case err == nil:
		case ctx.Err() != nil:
			c.heard.Wait() // Slack sends at once what is left unacked, and so behind what is said meanwhile
			return ctx.Err()
		case errors.As(err, &timeout) && timeout.Timeout():
			c.bot.missedSomething() // what went into it is lost, unless Slack sends it again
			return errSilent
		default:
			return fmt.Errorf("socket: %w", err)
		}
		alive()
		var frame envelope
		if err := json.Unmarshal(raw, &frame); err != nil && frame.ID == "" && frame.Type == "" {
			c.bot.log.DebugContext(ctx, "frame not understood", "err", err)
			continue
		}
		switch {
		case frame.Type == "hello":
			c.hello(ctx, ready)
		case frame.Type == "disconnect" && (frame.Reason == "warning" || frame.Reason == "refresh_requested"):
			c.drain(ctx)
		case frame.Type == "disconnect":
			return fmt.Errorf("Slack closes the socket: %s", frame.Reason) //nolint:staticcheck // a name
		case frame.ID != "":
			c.bot.eventAt.Store(time.Now().UnixNano())
			c.take(ctx, frame)
		}
	}
}

// hello counts the socket in.
func (c *connection) hello(ctx context.Context, ready func()) {
	c.bot.log.InfoContext(ctx, "Slack said hello")
	if !c.up {
		c.up = true
		if c.bot.sockets.Add(1) == 1 {
			c.bot.changed.Store(time.Now().UnixNano())
			if c.bot.met.Swap(true) { // there was one, and then there was none
				c.bot.missedSomething()
			}
		}
	}
	ready()
}

// lost counts it out.
func (c *connection) lost() {
	if c.up {
		c.up = false
		if c.bot.sockets.Add(-1) == 0 {
			c.bot.changed.Store(time.Now().UnixNano())
		}
	}
}

// drain has another socket opened in place of this one, which is heard for a while more.
func (c *connection) drain(ctx context.Context) {
	c.left.Do(func() {
		c.bot.log.InfoContext(ctx, "Slack asks for a new socket")
		close(c.leave)
		time.AfterFunc(drainTime, func() { _ = c.ws.Close() })
	})
}

// envelope is what Slack wraps everything in.
type envelope struct {
	Type    string          `json:"type"`
	ID      string          `json:"envelope_id"`
	Reason  string          `json:"reason"`        // of a disconnect
	Retry   int             `json:"retry_attempt"` // 0: the first delivery, as far as Slack knows
	Payload json.RawMessage `json:"payload"`
}

// ack acknowledges an envelope on the socket that it came over; body is what a person is answered, if anything.
func (c *connection) ack(ctx context.Context, id string, body any) bool {
	raw, err := json.Marshal(struct {
		ID      string `json:"envelope_id"`
		Payload any    `json:"payload,omitempty"`
	}{id, body})
	if err == nil && len(raw) >= maxAck {
		err = fmt.Errorf("%d bytes are more than Slack takes", len(raw))
	}
	if err == nil {
		c.writing.Lock()
		_ = c.ws.SetWriteDeadline(time.Now().Add(ackTimeout))
		err = c.ws.WriteMessage(websocket.TextMessage, raw)
		c.writing.Unlock()
	}
	if err != nil {
		c.bot.log.WarnContext(ctx, "ack not sent", "err", err)
	}
	return err == nil
}

// take stores what came and then acks it. What could not be stored is not acked, so that Slack sends it again.
func (c *connection) take(ctx context.Context, e envelope) {
	b := c.bot
	switch e.Type {
	case "slash_commands":
		// Slack sends neither of them again: they are acted on also when the bot is told to leave meanwhile.
		b.aside(withUrgency(ctx, urgent), func(ctx context.Context) { // somebody waits, for 3 s
			var typed slashCommand
			_ = json.Unmarshal(e.Payload, &typed) // what it says for sure is acted on
			a := b.command(ctx, typed)
			if !c.ack(ctx, e.ID, acked(a)) {
				b.whisperIn(ctx, typed.ChannelID, "", typed.UserID, a)
			}
		})
	case "interactive":
		b.aside(withUrgency(ctx, urgent), func(ctx context.Context) { b.interaction(ctx, e.Payload, func(body any) { c.ack(ctx, e.ID, body) }) })
	case "events_api":
		outer, err := readEvent(e)
		if err != nil {
			b.log.WarnContext(ctx, "event not understood", "err", err)
			c.ack(ctx, e.ID, nil)
			return
		}
		c.heard.Add(1)
		b.intake.begin()
		do := func(ctx context.Context) {
			defer c.heard.Done()
			defer b.intake.end()
			if err := b.take(ctx, outer); err != nil {
				b.log.WarnContext(ctx, "event not stored, and so not acked", "err", err)
				b.missedSomething() // Slack may give up before it can be
				return
			}
			c.ack(ctx, e.ID, nil)
		}
		select {
		case c.lanes.of(outer.Event) <- do:
		default: // too much at once: Slack sends it again
			b.intake.end()
			c.heard.Done()
			b.log.WarnContext(ctx, "event left to Slack: too many wait")
			b.missedSomething()
		}
	default:
		c.ack(ctx, e.ID, nil)
	}
}

// readEvent decodes an event. A field of another type than it has always had does not cost the rest.
func readEvent(e envelope) (outerEvent, error) {
	var outer outerEvent
	err := json.Unmarshal(e.Payload, &outer)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		err = nil
	}
	outer.again, outer.retry = e.Retry > 0, e.Retry
	return outer, err
}
