package sessions

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
)

// TestLogKeys: a line that is written for a turn says which, and in which session, once.
func TestLogKeys(t *testing.T) {
	t.Parallel()
	ctx := aboutTurn(t.Context(), "T:C:1")
	known := aboutTurn(t.Context(), "T:C:1")
	inSessionOf(known, "")
	inSessionOf(known, "s-1")
	for name, c := range map[string]struct {
		ctx  context.Context //nolint:containedctx // of the line
		line func(context.Context, *slog.Logger)
		want string
	}{
		"a line about nothing has neither": {t.Context(), func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "x") }, "msg=x"},
		"a line of a turn has the turn":    {ctx, func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "x", "a", 1) }, "msg=x a=1 turn=T:C:1"},
		"and the session when it is known": {known, func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "x") }, "msg=x turn=T:C:1 session=s-1"},
		"what the line says itself stands": {known, func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "x", "turn", "other") }, "msg=x turn=other session=s-1"},
		"what the logger says too":         {known, func(ctx context.Context, l *slog.Logger) { l.With("session", "s-2").InfoContext(ctx, "x") }, "msg=x session=s-2 turn=T:C:1"},
		"a context of it says the same": {known, func(ctx context.Context, l *slog.Logger) {
			l.InfoContext(context.WithoutCancel(aboutTurn(ctx, "T:C:1")), "x")
		}, "msg=x turn=T:C:1 session=s-1"},
		"a context of another turn does not": {known, func(ctx context.Context, l *slog.Logger) { l.InfoContext(aboutTurn(ctx, "T:C:2"), "x") }, "msg=x turn=T:C:2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			c.line(c.ctx, slog.New(LogHandler(slog.NewTextHandler(&out, nil))))
			_, got, _ := strings.Cut(strings.TrimSpace(out.String()), "level=INFO ")
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
