package fly

import (
	"net/http"
	"slices"
	"strings"
)

// regionCodes are those that Fly has.
func regionCodes() []string {
	return strings.Fields("ams arn bom cdg dfw ewr fra gru iad jnb lax lhr nrt ord sin sjc syd yyz")
}

func (s *Server) routePlatform(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/platform/regions", handle(200, func(*http.Request) (any, error) {
		all := []map[string]any{}
		for _, code := range regionCodes() {
			all = append(all, map[string]any{"code": code, "name": code, "gateway_available": true, "requires_paid_plan": false, "deprecated": false})
		}
		return map[string]any{"regions": all, "nearest": s.cfg.Region}, nil
	}))
	mux.HandleFunc("POST /v1/platform/placements", handle(200, s.placements))
	mux.HandleFunc("GET /v2/{name...}", s.registry)
}

// placements tells in which of the regions asked for there is room. What Fly says of one without is not known: here it is left out.
func (s *Server) placements(r *http.Request) (any, error) {
	var in struct {
		Org    string `json:"org_slug"`
		Region string `json:"region"`
		Count  int    `json:"count"`
		Volume int64  `json:"volume_size_bytes"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Org == "" {
		return nil, fail(400, "invalid_argument: org_slug is required")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []map[string]any{}
	for code := range strings.SplitSeq(in.Region, ",") {
		if slices.Contains(regionCodes(), code) && s.room(code, false) == nil && (in.Volume == 0 || s.room(code, true) == nil) {
			out = append(out, map[string]any{"region": code, "count": max(in.Count, 1), "concurrency": 1})
		}
	}
	return map[string]any{"regions": out}, nil
}

// registry answers for registry.fly.io: every image is there that has a tag other than missing. It takes the token as Docker gives it, by Basic.
func (s *Server) registry(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, text string) {
		answer(w, status, map[string]any{"errors": []map[string]string{{"code": code, "message": text}}})
	}
	if user, token, _ := r.BasicAuth(); user != "x" || !strings.HasPrefix(token, "fly-local") {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	_, tag, ok := strings.Cut(r.PathValue("name"), "/manifests/")
	if !ok || tag == "missing" {
		refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
}
