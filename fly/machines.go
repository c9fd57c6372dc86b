package fly

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func machinePath(app, id string) string {
	return "/apps/" + url.PathEscape(app) + "/machines/" + url.PathEscape(id)
}

// AwaitCreation waits until Fly's limits let another machine be made in the app, after all those that wait already: whoever then makes one
// in this client hardly waits any more.
func (c *Client) AwaitCreation(ctx context.Context, app string) error {
	if err := c.limit.wait(ctx, c.cfg.Unlimited, "create-next", app); err != nil {
		return &Error{Op: "wait to create a machine of " + app, cause: err}
	}
	return nil
}

// CreateMachine makes a machine and, unless SkipLaunch is set, starts it. It is sent once: after an error
// that leaves open what happened, look for the name.
func (c *Client) CreateMachine(ctx context.Context, app string, in CreateMachine) (*Machine, error) {
	var out Machine
	err := c.do(ctx, request{
		op: "create machine " + in.Name + " in " + in.Region, method: http.MethodPost, path: "/apps/" + url.PathEscape(app) + "/machines",
		body: in, action: "create", subject: app, once: true,
	}, &out)
	if err == nil {
		err = identified("create machine "+in.Name, out.ID)
	}
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// Machine reads one. A destroyed machine answers with that state for a time, then [ErrNotFound].
func (c *Client) Machine(ctx context.Context, app, id string) (*Machine, error) {
	var out Machine
	if err := c.do(ctx, request{op: "get machine " + id, method: http.MethodGet, path: machinePath(app, id), action: "get", subject: id}, &out); err != nil {
		return nil, err
	}
	if err := identified("get machine "+id, out.ID); err != nil {
		return nil, err
	}
	return &out, nil
}

// Machines lists an app's machines. An empty list proves nothing: confirm by id before acting on it.
func (c *Client) Machines(ctx context.Context, app string, f MachineFilter) ([]Machine, error) {
	q := url.Values{}
	for k, v := range f.Metadata {
		q.Set("metadata."+k, v)
	}
	if len(f.States) > 0 {
		q.Set("state", strings.Join(f.States, ","))
	}
	if f.Region != "" {
		q.Set("region", f.Region)
	}
	if f.IncludeDeleted {
		q.Set("include_deleted", "true")
	}
	if f.Summary {
		q.Set("summary", "true")
	}
	var out list[Machine]
	err := c.do(ctx, request{
		op: "list machines of " + app, method: http.MethodGet, path: "/apps/" + url.PathEscape(app) + "/machines", query: q, action: "list", subject: app,
		timeout: listTimeout,
	}, &out)
	return out, err
}

// UpdateMachine replaces the machine's config: pass one that was read, changed.
func (c *Client) UpdateMachine(ctx context.Context, app, id string, in UpdateMachine, nonce string) (*Machine, error) {
	var out Machine
	err := c.do(ctx, request{
		op: "update machine " + id, method: http.MethodPost, path: machinePath(app, id), body: in, nonce: nonce, action: "update", subject: id, once: true,
	}, &out)
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// StartMachine starts a stopped machine, or returns nil if it is started. Fly refuses while an exit or an
// update is still being finished ("machine still active"): that is waited out until ctx ends, 30 s at most.
func (c *Client) StartMachine(ctx context.Context, app, id, nonce string) error {
	deadline := time.Now().Add(30 * time.Second)
	for pause := 250 * time.Millisecond; ; pause = min(pause*2, time.Second) {
		err := c.do(ctx, request{op: "start machine " + id, method: http.MethodPost, path: machinePath(app, id) + "/start", nonce: nonce, action: "start", subject: id}, nil)
		if err == nil || !errors.Is(err, ErrPrecondition) {
			return err
		}
		gone := false
		if m, getErr := c.Machine(ctx, app, id); getErr == nil {
			if m.State == "started" || m.State == "starting" {
				return nil
			}
			gone = slices.Contains([]string{"destroyed", "destroying", "failed", "launch_failed"}, m.State)
		}
		if gone || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// StopMachine asks a machine to stop; it returns before the machine has.
func (c *Client) StopMachine(ctx context.Context, app, id string, in StopMachine, nonce string) error {
	body := map[string]string{}
	if in.Signal != "" {
		body["signal"] = in.Signal
	}
	if in.Timeout > 0 {
		body["timeout"] = in.Timeout.String()
	}
	return c.do(ctx, request{op: "stop machine " + id, method: http.MethodPost, path: machinePath(app, id) + "/stop", body: body, nonce: nonce, action: "stop", subject: id}, nil)
}

// SignalMachine sends a signal to the machine's main process, such as SIGUSR1. No lease keeps it off.
func (c *Client) SignalMachine(ctx context.Context, app, id, signal string) error {
	return c.do(ctx, request{
		op: "signal machine " + id, method: http.MethodPost, path: machinePath(app, id) + "/signal", body: map[string]string{"signal": signal},
		action: "signal", subject: id,
	}, nil)
}

// DeleteMachine destroys a machine; with force also a running one. One that is gone is no error.
func (c *Client) DeleteMachine(ctx context.Context, app, id string, force bool, nonce string) error {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return c.do(ctx, request{
		op: "destroy machine " + id, method: http.MethodDelete, path: machinePath(app, id), query: q, nonce: nonce,
		action: "delete", subject: id, taken: []int{http.StatusNotFound},
	}, nil)
}

// waitSlice is how long one wait request may take: Fly accepts 1 to 60 s and answers 408 after it.
const waitSlice = 30 * time.Second

// WaitMachine returns the machine when it is in one of the states, or an error when ctx ends. "settled" is any state
// that lasts. One that is destroyed may be gone already: [ErrNotFound].
func (c *Client) WaitMachine(ctx context.Context, app, id string, in WaitMachine) (*Machine, error) {
	q := url.Values{"timeout": {strconv.Itoa(int(waitSlice / time.Second))}, "state": in.States}
	if in.InstanceID != "" {
		q.Set("version", in.InstanceID)
	}
	if in.FromEventID != "" {
		q.Set("from_event_id", in.FromEventID)
	}
	for {
		var reached struct {
			EventID string `json:"event_id"`
		}
		err := c.do(ctx, request{
			op: "wait for machine " + id, method: http.MethodGet, path: machinePath(app, id) + "/wait", query: q,
			action: "wait", subject: id, timeout: waitSlice + readTimeout,
		}, &reached)
		if err == nil {
			var m *Machine
			if m, err = c.Machine(ctx, app, id); err != nil {
				return nil, err
			}
			if in.met(m.State) {
				return m, nil
			}
			// It has gone on since, or is shown as it was before: wait and GET are answered from different caches.
			if in.FromEventID != "" && reached.EventID != "" {
				q.Set("from_event_id", reached.EventID)
			}
			_ = pause(ctx, 250*time.Millisecond)
		}
		if err == nil && ctx.Err() != nil {
			err = &Error{Op: "wait for machine " + id, kind: ErrTimeout, cause: ctx.Err()}
		}
		if err != nil && (ctx.Err() != nil || !errors.Is(err, ErrTimeout)) {
			return nil, err
		}
		if err != nil && pause(ctx, 500*time.Millisecond) != nil { // 408 may come at once, of a host that is away
			return nil, err
		}
	}
}

func (in WaitMachine) met(state string) bool {
	return slices.Contains(in.States, state) || slices.Contains(in.States, "settled") &&
		slices.Contains([]string{"created", "started", "stopped", "suspended", "failed", "destroyed"}, state)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// AcquireLease takes the machine's lease; [ErrLeaseHeld] if another holds it.
func (c *Client) AcquireLease(ctx context.Context, app, id string, ttl time.Duration, description string) (*Lease, error) {
	return c.lease(ctx, app, id, ttl, description, "", "lease machine "+id)
}

// RefreshLease makes a lease that we hold last for ttl from now.
func (c *Client) RefreshLease(ctx context.Context, app, id string, ttl time.Duration, nonce string) (*Lease, error) {
	return c.lease(ctx, app, id, ttl, "", nonce, "refresh the lease of machine "+id)
}

func (c *Client) lease(ctx context.Context, app, id string, ttl time.Duration, description, nonce, op string) (*Lease, error) {
	seconds := int(max(ttl, time.Second) / time.Second)
	var out struct {
		Data Lease `json:"data"`
	}
	err := c.do(ctx, request{
		op: op, method: http.MethodPost, path: machinePath(app, id) + "/lease", query: url.Values{"ttl": {strconv.Itoa(seconds)}},
		body: map[string]any{"ttl": seconds, "description": description}, nonce: nonce, action: "lease", subject: id,
	}, &out)
	if err == nil && nonce == "" {
		err = identified(op, out.Data.Nonce)
	}
	if err != nil {
		return nil, err
	}
	return &out.Data, nil
}

// Lease reads the machine's lease; [ErrNotFound] if there is none. The nonce is the holder's secret.
func (c *Client) Lease(ctx context.Context, app, id string) (*Lease, error) {
	var out struct {
		Data Lease `json:"data"`
	}
	if err := c.do(ctx, request{op: "read the lease of machine " + id, method: http.MethodGet, path: machinePath(app, id) + "/lease", action: "lease-get", subject: id}, &out); err != nil {
		return nil, err
	}
	return &out.Data, nil
}

// ReleaseLease gives a lease back; one that is gone is no error.
func (c *Client) ReleaseLease(ctx context.Context, app, id, nonce string) error {
	err := c.do(ctx, request{
		op: "release the lease of machine " + id, method: http.MethodDelete, path: machinePath(app, id) + "/lease", nonce: nonce,
		action: "lease-release", subject: id, taken: []int{http.StatusNotFound},
	}, nil)
	var e *Error
	if errors.As(err, &e) && strings.Contains(e.Message, "lease not found") {
		return nil
	}
	return err
}

// Exec runs a command in a started machine. It is sent once, but for 429: after an error that leaves open
// whether it ran, the caller knows if it may run again.
func (c *Client) Exec(ctx context.Context, app, id string, in Exec, nonce string) (*ExecResult, error) {
	var out ExecResult
	err := c.do(ctx, request{
		op: "exec in machine " + id, method: http.MethodPost, path: machinePath(app, id) + "/exec", nonce: nonce,
		body:   map[string]any{"command": in.Command, "stdin": in.Stdin, "timeout": int((in.Timeout + time.Second - 1) / time.Second)},
		action: "exec", subject: id, once: true, timeout: in.Timeout + readTimeout,
	}, &out)
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// Metadata reads a machine's metadata.
func (c *Client) Metadata(ctx context.Context, app, id string) (map[string]string, error) {
	out := map[string]string{}
	err := c.do(ctx, request{op: "read metadata of machine " + id, method: http.MethodGet, path: machinePath(app, id) + "/metadata", action: "metadata-get", subject: id}, &out)
	return out, err
}

// SetMetadata sets one entry. It needs no restart and makes no new version.
func (c *Client) SetMetadata(ctx context.Context, app, id, key, value string) error {
	return c.do(ctx, request{
		op: "set metadata " + key + " of machine " + id, method: http.MethodPost, path: machinePath(app, id) + "/metadata/" + url.PathEscape(key),
		body: map[string]string{"value": value}, action: "metadata", subject: id,
	}, nil)
}

// DeleteMetadata removes one entry; one that is gone is no error.
func (c *Client) DeleteMetadata(ctx context.Context, app, id, key string) error {
	return c.do(ctx, request{
		op: "delete metadata " + key + " of machine " + id, method: http.MethodDelete, path: machinePath(app, id) + "/metadata/" + url.PathEscape(key),
		action: "metadata", subject: id, taken: []int{http.StatusNotFound},
	}, nil)
}

// Events lists what happened to a machine, the newest first; Fly keeps about 20, and at most 50.
func (c *Client) Events(ctx context.Context, app, id string, limit int) ([]Event, error) {
	var out []Event
	err := c.do(ctx, request{
		op: "list events of machine " + id, method: http.MethodGet, path: machinePath(app, id) + "/events",
		query: url.Values{"limit": {strconv.Itoa(limit)}}, action: "events", subject: id,
	}, &out)
	return out, err
}
