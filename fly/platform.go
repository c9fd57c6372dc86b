package fly

import (
	"context"
	"net/http"
)

// Region is a place where Fly has hosts.
type Region struct {
	Code       string `json:"code"`
	Name       string `json:"name"`
	Deprecated bool   `json:"deprecated"`
	Paid       bool   `json:"requires_paid_plan"`
}

// Regions lists Fly's regions, and names the one next to the caller.
func (c *Client) Regions(ctx context.Context) (all []Region, nearest string, err error) {
	var out struct {
		Regions []Region `json:"regions"`
		Nearest string   `json:"nearest"`
	}
	err = c.do(ctx, request{op: "list regions", method: http.MethodGet, path: "/platform/regions"}, &out)
	return out.Regions, out.Nearest, err
}

// Placement asks where a machine would find room.
type Placement struct {
	Org         string `json:"org_slug"`
	Region      string `json:"region"` // codes, separated by commas
	Compute     *Guest `json:"compute"`
	Count       int    `json:"count"` // of such machines
	VolumeBytes int64  `json:"volume_size_bytes,omitempty"`
}

// Placed is how many of the machines would find room in a region.
type Placed struct {
	Region string `json:"region"`
	Count  int    `json:"count"`
}

// Placements answers where a machine would find room just now. Nothing is reserved.
func (c *Client) Placements(ctx context.Context, in Placement) ([]Placed, error) {
	var out struct {
		Regions []Placed `json:"regions"`
	}
	err := c.do(ctx, request{op: "look for room in " + in.Region, method: http.MethodPost, path: "/platform/placements", body: in}, &out)
	return out.Regions, err
}
