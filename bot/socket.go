package bot

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/slack-go/slack/socketmode"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// lanes is how many threads are taken in side by side. Events of one thread share a lane, so that they stay in order.
const lanes = 16

// ackTimeout bounds the queueing of an ack: Slack waits 3 s for it.
const ackTimeout = 2 * time.Second

// Run receives until ctx ends. ready is called when Slack said hello.
func (b *Bot) Run(ctx context.Context, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	queues := make([]chan func(), lanes)
	for i := range queues {
		queues[i] = make(chan func(), 256)
		g.Go(func() error { return work(ctx, queues[i]) })
	}
	g.Go(func() error { b.keepMarks(ctx); return nil })
	caughtUp := make(chan struct{})
	g.Go(func() error { b.catchUps(ctx, sync.OnceFunc(func() { close(caughtUp) })); return nil })
	select {
	case <-caughtUp:
	case <-time.After(catchUpFirst):
	}
	for range b.cfg.Connections {
		g.Go(func() error { return b.connect(ctx, queues, ready) })
	}
	return g.Wait()
}

func work(ctx context.Context, queue <-chan func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case do := <-queue:
			do()
		}
	}
}

// connect keeps one Socket Mode connection. The library reconnects by itself, without a pause after a good dial: the
// dialer is throttled. It gives up on a refused token only.
func (b *Bot) connect(ctx context.Context, queues []chan func(), ready func()) error {
	throttle := rate.NewLimiter(rate.Every(time.Second), 3)
	dialer := &websocket.Dialer{
		HandshakeTimeout: 10 * time.Second,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if err := throttle.Wait(ctx); err != nil {
				return nil, err
			}
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, addr)
		},
	}
	for pause := time.Second; ctx.Err() == nil; pause = min(pause*2, time.Minute) {
		client := socketmode.New(b.api, socketmode.OptionDialer(dialer))
		c := &connection{bot: b, client: client, queues: queues, ready: ready}
		cctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); c.receive(cctx) }()
		err := client.RunContext(cctx)
		cancel()
		<-done
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		if err != nil && isTokenError(err) {
			return fmt.Errorf("SLACK_APP_TOKEN: %w: %w; take it again from the app's page Basic Information", ErrToken, err)
		}
		b.log.WarnContext(ctx, "socket ended", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// connection is one socket.
type connection struct {
	bot    *Bot
	client *socketmode.Client
	queues []chan func()
	ready  func()
	up     bool // Slack said hello, and the socket has not ended since; of receive alone
}

// lost counts a socket out.
func (c *connection) lost() {
	if c.up {
		c.up = false
		c.bot.sockets.Add(-1)
	}
}

// receive drains the library's events: it must never wait, or pings starve and the socket is closed.
func (c *connection) receive(ctx context.Context) {
	defer c.lost()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-c.client.Events:
			c.event(ctx, e)
		}
	}
}

func (c *connection) event(ctx context.Context, e socketmode.Event) {
	switch e.Type {
	case socketmode.EventTypeConnecting: // again, when it is up
		c.lost()
	case socketmode.EventTypeHello:
		c.bot.log.InfoContext(ctx, "Slack said hello")
		if !c.up {
			c.up = true
			if c.bot.sockets.Add(1) == 1 && c.bot.met.Swap(true) { // there was one, and then there was none
				c.bot.missedSomething()
			}
		}
		c.ready()
	case socketmode.EventTypeEventsAPI, socketmode.EventTypeSlashCommand, socketmode.EventTypeInteractive:
		if e.Request != nil {
			c.take(ctx, envelope{e.Request.Type, e.Request.EnvelopeID, e.Request.RetryAttempt, e.Request.Payload})
		}
	case socketmode.EventTypeErrorBadMessage:
		// The library could not decode it; perhaps we can. Unacked, it would come again three times.
		if bad, ok := e.Data.(*socketmode.ErrorBadMessage); ok {
			var frame envelope
			if json.Unmarshal(bad.Message, &frame) == nil && frame.ID != "" {
				c.take(ctx, frame)
			}
		}
	case socketmode.EventTypeConnectionError, socketmode.EventTypeIncomingError, socketmode.EventTypeErrorWriteFailed:
		c.bot.log.DebugContext(ctx, "socket trouble", "type", e.Type)
	}
}

// envelope is what Slack wraps everything in.
type envelope struct {
	Type    string          `json:"type"`
	ID      string          `json:"envelope_id"`
	Retry   int             `json:"retry_attempt"` // 0: the first delivery, as far as Slack knows
	Payload json.RawMessage `json:"payload"`
}

// take stores what came and then acks it. What could not be stored is not acked, so that Slack sends it again.
func (c *connection) take(ctx context.Context, e envelope) {
	ack := func(body any) {
		actx, cancel := context.WithTimeout(ctx, ackTimeout)
		defer cancel()
		if err := c.client.AckCtx(actx, e.ID, body); err != nil {
			c.bot.log.WarnContext(ctx, "ack not sent", "err", err)
		}
	}
	switch e.Type {
	case "slash_commands":
		// Slack sends neither of them again: they are acted on also when the bot is told to leave meanwhile.
		c.bot.aside(ctx, func(ctx context.Context) { ack(c.bot.command(ctx, e.Payload)) })
	case "interactive":
		c.bot.aside(ctx, func(ctx context.Context) { c.bot.interaction(ctx, e.Payload, ack) })
	case "events_api":
		var outer outerEvent
		if err := json.Unmarshal(e.Payload, &outer); err != nil {
			c.bot.log.WarnContext(ctx, "event not understood", "err", err)
			ack(nil)
			return
		}
		outer.again = e.Retry > 0
		do := func() {
			if err := c.bot.take(ctx, outer); err != nil {
				c.bot.log.WarnContext(ctx, "event not stored, and so not acked", "err", err)
				c.bot.unstored.Store(true)
				return
			}
			ack(nil)
			if c.bot.unstored.Swap(false) { // Redis is back; Slack may have given up meanwhile
				c.bot.missedSomething()
			}
		}
		select {
		case c.queues[lane(outer.Event)] <- do:
		default: // too much at once: Slack sends it again
			c.bot.log.WarnContext(ctx, "event left to Slack: too many wait")
			c.bot.unstored.Store(true)
		}
	default:
		ack(nil)
	}
}

func lane(e innerEvent) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(e.Channel + e.Item.Channel + e.thread())) // never fails
	return int(h.Sum32() % lanes)
}
