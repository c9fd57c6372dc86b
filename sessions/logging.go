package sessions

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// logKey is where a context has what it is about.
type logKey struct{}

// about is the turn that a context belongs to, and its session once that is known.
type about struct {
	turn    TurnID
	session atomic.Pointer[string]
}

// aboutTurn returns ctx for what is done for a turn: lines that are logged with it say so, whoever writes them, see [LogHandler].
func aboutTurn(ctx context.Context, id TurnID) context.Context {
	if a, ok := ctx.Value(logKey{}).(*about); ok && a.turn == id {
		return ctx
	}
	return context.WithValue(ctx, logKey{}, &about{turn: id})
}

// inSessionOf notes the session of a context's turn; "": it is not known.
func inSessionOf(ctx context.Context, session string) {
	if a, ok := ctx.Value(logKey{}).(*about); ok && session != "" {
		a.session.Store(&session)
	}
}

// LogHandler returns a handler that adds the keys turn and session to lines that are written for a turn, where they do not have them by themselves.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next: next} }

type logHandler struct {
	next          slog.Handler
	turn, session bool // the logger has them already
}

func (h logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if a, ok := ctx.Value(logKey{}).(*about); ok {
		turn, session := h.turn, h.session
		r.Attrs(func(at slog.Attr) bool {
			turn, session = turn || at.Key == "turn", session || at.Key == "session"
			return true
		})
		r = r.Clone()
		if !turn {
			r.AddAttrs(slog.String("turn", string(a.turn)))
		}
		if id := a.session.Load(); id != nil && !session {
			r.AddAttrs(slog.String("session", *id))
		}
	}
	return h.next.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.next = h.next.WithAttrs(attrs)
	for _, at := range attrs {
		h.turn, h.session = h.turn || at.Key == "turn", h.session || at.Key == "session"
	}
	return h
}

func (h logHandler) WithGroup(name string) slog.Handler {
	h.next = h.next.WithGroup(name)
	return h
}
