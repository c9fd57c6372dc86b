package sessions

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"

	"flaudebot/fly"
)

// FallbackHandover hands over by exec until Fly refuses exec as such, and from then on by the machines' config.
type FallbackHandover struct {
	Exec   ExecHandover
	Config *ConfigHandover
	Log    *slog.Logger // nil: none

	refused atomic.Bool
}

// startsMachines reports that machines are left stopped for it, once exec is refused.
func (h *FallbackHandover) startsMachines() bool { return h.refused.Load() }

// Call implements [Handover].
func (h *FallbackHandover) Call(ctx context.Context, at Target, verb string, request, reply any) error {
	if h.refused.Load() {
		return h.Config.Call(ctx, at, verb, request, reply)
	}
	err := h.Exec.Call(ctx, at, verb, request, reply)
	if !isExecRefused(err) {
		return err
	}
	// A token that may do nothing, or a machine that is gone, says nothing about exec.
	if _, lookErr := h.Exec.Fly.Machine(ctx, at.App, at.Machine); lookErr != nil {
		return err
	}
	if h.refused.CompareAndSwap(false, true) && h.Log != nil {
		h.Log.WarnContext(ctx, "Fly refuses exec: from now on prompts and secrets are handed over in the machines' config, where all who may read the Fly app can read them",
			"machine", at.Machine, "err", err)
	}
	return h.Config.Call(ctx, at, verb, request, reply)
}

// isExecRefused reports whether an exec failed because there is no exec, or not for us; not because of something that passes.
func isExecRefused(err error) bool {
	var e *fly.Error
	if !errors.As(err, &e) || errors.Is(err, fly.ErrLeaseHeld) {
		return false
	}
	switch e.Status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}
