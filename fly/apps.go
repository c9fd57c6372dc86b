package fly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// App reads an app; [ErrNotFound]: the name is free; [ErrForbidden]: it is another organization's.
func (c *Client) App(ctx context.Context, name string) (*App, error) {
	var out App
	if err := c.do(ctx, request{op: "get app " + name, method: http.MethodGet, path: "/apps/" + url.PathEscape(name), action: "app-get", subject: name}, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// Apps lists an organization's apps.
func (c *Client) Apps(ctx context.Context, org string) ([]App, error) {
	var out struct {
		Apps []App `json:"apps"`
	}
	err := c.do(ctx, request{op: "list apps of " + org, method: http.MethodGet, path: "/apps", query: url.Values{"org_slug": {org}}}, &out)
	return out.Apps, err
}

// CreateApp makes an app; [ErrNameTaken] if somebody has the name.
func (c *Client) CreateApp(ctx context.Context, in CreateApp) error {
	return c.do(ctx, request{op: "create app " + in.Name, method: http.MethodPost, path: "/apps", body: in, action: "app-create", subject: in.OrgSlug, once: true}, nil)
}

// EnsureApp returns the app, made if there was none. Just after its creation Fly may not know it for some
// seconds: that is waited out, up to a minute. A creation whose answer was lost is looked for once.
func (c *Client) EnsureApp(ctx context.Context, in CreateApp) (*App, error) {
	app, err := c.App(ctx, in.Name)
	if !errors.Is(err, ErrNotFound) {
		return app, err
	}
	err = c.CreateApp(ctx, in)
	if errors.Is(err, ErrTimeout) || errors.Is(err, ErrUnavailable) {
		if app, lookErr := c.App(ctx, in.Name); lookErr == nil {
			return app, nil
		}
	}
	if err != nil && !errors.Is(err, ErrNameTaken) {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		app, err := c.App(ctx, in.Name)
		if err == nil || !(errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized)) || time.Now().After(deadline) {
			return app, err
		}
		if pause(ctx, 500*time.Millisecond) != nil {
			return nil, err
		}
	}
}

func volumePath(app, id string) string {
	return "/apps/" + url.PathEscape(app) + "/volumes/" + url.PathEscape(id)
}

// CreateVolume makes a volume. It is sent once: volume names are not unique.
func (c *Client) CreateVolume(ctx context.Context, app string, in CreateVolume) (*Volume, error) {
	var out Volume
	err := c.do(ctx, request{
		op: "create volume " + in.Name + " in " + in.Region, method: http.MethodPost, path: "/apps/" + url.PathEscape(app) + "/volumes",
		body: in, action: "volume-create", subject: app, once: true,
	}, &out)
	if err == nil {
		err = identified("create volume "+in.Name, out.ID)
	}
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// Volume reads one; a deleted one answers for a day with a dying state.
func (c *Client) Volume(ctx context.Context, app, id string) (*Volume, error) {
	var out Volume
	if err := c.do(ctx, request{op: "get volume " + id, method: http.MethodGet, path: volumePath(app, id), action: "volume-get", subject: id}, &out); err != nil {
		return nil, err
	}
	if err := identified("get volume "+id, out.ID); err != nil {
		return nil, err
	}
	return &out, nil
}

// Volumes lists an app's volumes that are not on their way out.
func (c *Client) Volumes(ctx context.Context, app string) ([]Volume, error) {
	var all list[Volume]
	err := c.do(ctx, request{
		op: "list volumes of " + app, method: http.MethodGet, path: "/apps/" + url.PathEscape(app) + "/volumes", action: "volume-list", subject: app,
		timeout: listTimeout,
	}, &all)
	out := all[:0]
	for _, v := range all {
		if !v.Dying() {
			out = append(out, v)
		}
	}
	return out, err
}

// Dying reports whether the volume is on its way out, or gone: nothing can be mounted from it any more.
func (v Volume) Dying() bool {
	switch v.State {
	case "scheduling_destroy", "fork_cleanup", "waiting_for_detach", "pending_destroy", "destroying", "destroyed":
		return true
	}
	return false
}

// ExtendVolume makes a volume larger; it never shrinks. The file system on it grows at once, or when its machine starts the next time.
func (c *Client) ExtendVolume(ctx context.Context, app, id string, sizeGB int) (vol *Volume, needsRestart bool, err error) {
	var out struct {
		Volume       Volume `json:"volume"`
		NeedsRestart bool   `json:"needs_restart"`
	}
	err = c.do(ctx, request{
		op: fmt.Sprintf("extend volume %s to %d GB", id, sizeGB), method: http.MethodPut, path: volumePath(app, id) + "/extend",
		body: map[string]int{"size_gb": sizeGB}, action: "volume-extend", subject: id, once: true,
	}, &out)
	if err == nil {
		err = identified("extend volume "+id, out.Volume.ID)
	}
	if err != nil {
		return nil, false, err
	}
	return &out.Volume, out.NeedsRestart, nil
}

// DeleteVolume removes a volume; its machine must be destroyed first. One that is gone or dying is no error.
func (c *Client) DeleteVolume(ctx context.Context, app, id string) error {
	return c.do(ctx, request{op: "delete volume " + id, method: http.MethodDelete, path: volumePath(app, id), action: "volume-delete", subject: id, taken: []int{http.StatusNotFound}}, nil)
}

// Logs reads a page of an app's log.
func (c *Client) Logs(ctx context.Context, app string, in Logs) (*LogPage, error) {
	q := url.Values{}
	if in.Machine != "" {
		q.Set("instance", in.Machine)
	}
	if in.NextToken != "" {
		q.Set("next_token", in.NextToken)
	}
	var out struct {
		Data []struct {
			ID         string `json:"id"`
			Attributes struct {
				Timestamp string `json:"timestamp"`
				Message   string `json:"message"`
				Level     string `json:"level"`
				Instance  string `json:"instance"`
				Region    string `json:"region"`
			} `json:"attributes"`
		} `json:"data"`
		Meta struct {
			NextToken json.RawMessage `json:"next_token"` // a number in quotes, or bare
		} `json:"meta"`
	}
	if err := c.do(ctx, request{op: "read logs of " + app, method: http.MethodGet, path: "/apps/" + url.PathEscape(app) + "/logs", query: q, logs: true}, &out); err != nil {
		return nil, err
	}
	page := &LogPage{}
	if next := strings.Trim(string(out.Meta.NextToken), `"`); next != "null" {
		page.NextToken = next
	}
	for _, d := range out.Data {
		a := d.Attributes
		page.Entries = append(page.Entries, LogEntry{ID: d.ID, Timestamp: a.Timestamp, Message: a.Message, Machine: a.Instance, Region: a.Region, Level: a.Level})
	}
	return page, nil
}
