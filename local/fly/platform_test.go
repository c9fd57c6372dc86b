package fly_test

import (
	"encoding/base64"
	"testing"

	"flaudebot/local/fly"
)

func TestPlatform(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fly.Config{Region: "ams"})
	t.Run("regions are listed, with the nearest", func(t *testing.T) {
		w.in(t).do("GET", "/v1/platform/regions", nil).is(200, `"nearest":"ams"`, `"code":"iad"`, `"deprecated":false`, `"requires_paid_plan":false`)
	})
	t.Run("a placement names the regions with room, and reserves nothing", func(t *testing.T) {
		w := w.in(t)
		w.do("POST", "/local/trouble", obj{"full": obj{"iad": "region", "ewr": "volume"}}).is(200)
		ask := obj{"org_slug": "acme", "region": "iad,ewr,ord", "count": 2, "volume_size_bytes": 1 << 30}
		w.do("POST", "/v1/platform/placements", ask).is(200, `{"regions":[{"concurrency":1,"count":2,"region":"ord"}]}`)
		delete(ask, "volume_size_bytes")
		w.do("POST", "/v1/platform/placements", ask).is(200, `"region":"ewr"`)
		delete(ask, "org_slug")
		w.do("POST", "/v1/platform/placements", ask).refused(400, "org_slug is required")
	})
	t.Run("calls of the platform fail on demand", func(t *testing.T) {
		w := newWorld(t, fly.Config{})
		w.do("POST", "/local/faults", obj{"method": "platform.regions", "status": 503}).is(200)
		w.do("GET", "/v1/platform/regions", nil).refused(503, "internal")
	})
	t.Run("the registry has images, for whoever has a token", func(t *testing.T) {
		w := w.in(t)
		basic := func(user, token string) string {
			return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+token))
		}
		w.do("GET", "/v2/acme/manifests/session", nil, basic("x", "fly-local")).is(200)
		if got := w.do("HEAD", "/v2/acme/manifests/session", nil, basic("x", "fly-local")); got.status != 200 || got.header.Get("Docker-Content-Digest") == "" {
			t.Errorf("HEAD = %d %v", got.status, got.header)
		}
		w.do("GET", "/v2/acme/manifests/missing", nil, basic("x", "fly-local")).is(404, "MANIFEST_UNKNOWN")
		for _, header := range []string{basic("x", "other"), basic("me", "fly-local"), "Authorization: Bearer fly-local"} {
			if got := w.do("GET", "/v2/acme/manifests/session", nil, header).is(401, "UNAUTHORIZED"); got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: it does not say what it wants", header)
			}
		}
	})
}
