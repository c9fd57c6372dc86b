package fly

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// NetworkPolicy says what reaches machines of an app over Fly's private network, or leaves them: once there is a rule for a direction, nothing else does. What comes
// by Fly's proxy is not meant. It counts for a machine from its next start on. Source: https://fly.io/docs/machines/guides-examples/network-policies.
type NetworkPolicy struct {
	Name     string         `json:"name"`
	Selector PolicySelector `json:"selector"`
	Rules    []PolicyRule   `json:"rules"`
}

// PolicySelector says which machines are meant.
type PolicySelector struct {
	All      bool              `json:"all,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// PolicyRule allows traffic.
type PolicyRule struct {
	Action    string       `json:"action"`    // allow, which is all there is
	Direction string       `json:"direction"` // ingress or egress
	Ports     []PolicyPort `json:"ports"`
}

// PolicyPort is a port of a protocol, such as tcp.
type PolicyPort struct {
	Protocol string `json:"protocol"`
	Port     int    `json:"port"`
}

func policiesPath(app string) string { return "/apps/" + url.PathEscape(app) + "/network_policies" }

// HasNetworkPolicy reports whether an app has a policy of that name.
func (c *Client) HasNetworkPolicy(ctx context.Context, app, name string) (bool, error) {
	var out json.RawMessage // Fly documents the request, and not the form of the answer
	if err := c.do(ctx, request{op: "list network policies of " + app, method: http.MethodGet, path: policiesPath(app)}, &out); err != nil {
		return false, err
	}
	var all any
	_ = json.Unmarshal(out, &all) // it was JSON
	return named(all, name), nil
}

// named reports whether something in a JSON value has that name.
func named(v any, name string) bool {
	switch v := v.(type) {
	case map[string]any:
		if v["name"] == name {
			return true
		}
		for _, one := range v {
			if named(one, name) {
				return true
			}
		}
	case []any:
		for _, one := range v {
			if named(one, name) {
				return true
			}
		}
	}
	return false
}

// CreateNetworkPolicy adds a policy to an app.
func (c *Client) CreateNetworkPolicy(ctx context.Context, app string, p NetworkPolicy) error {
	return c.do(ctx, request{op: "create network policy " + p.Name, method: http.MethodPost, path: policiesPath(app), body: p, once: true}, nil)
}
