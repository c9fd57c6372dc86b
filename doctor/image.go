package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// flyRegistry holds the images of Fly's apps. It takes Fly's token.
const flyRegistry = "registry.fly.io"

// image is the name of a container image, as Docker reads it.
type image struct {
	registry, repository string
	reference            string // a tag or a digest
}

var (
	repositoryName = regexp.MustCompile(`^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$`)
	referenceName  = regexp.MustCompile(`^(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|sha256:[0-9a-f]{64})$`)
)

// parseImage reads an image's name. Without a registry it is Docker Hub's.
func parseImage(name string) (image, error) {
	i := image{registry: "registry-1.docker.io", repository: name, reference: "latest"}
	if first, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		i.registry, i.repository = first, rest
	}
	if before, digest, ok := strings.Cut(i.repository, "@"); ok {
		i.repository, i.reference = before, digest
		i.repository, _, _ = strings.Cut(i.repository, ":")
	} else if before, tag, ok := strings.Cut(i.repository, ":"); ok {
		i.repository, i.reference = before, tag
	}
	if i.registry == "registry-1.docker.io" && !strings.Contains(i.repository, "/") {
		i.repository = "library/" + i.repository
	}
	if !repositoryName.MatchString(i.repository) || !referenceName.MatchString(i.reference) {
		return image{}, fmt.Errorf("%q is no name of an image: want registry/name:tag", name)
	}
	return i, nil
}

// local reports whether the registry is on this machine: Docker speaks to such without TLS.
func (i image) local() bool {
	host, _, err := net.SplitHostPort(i.registry)
	if err != nil {
		host = i.registry
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (i image) address() string {
	scheme := "https"
	if i.local() {
		scheme = "http"
	}
	return scheme + "://" + i.registry + "/v2/" + i.repository + "/manifests/" + i.reference
}

// image looks whether the session image is where machines are to get it from.
func (f *Fly) image(ctx context.Context, e *examination) []Finding {
	if f.Image == "" {
		return nil
	}
	img, err := parseImage(f.Image)
	if err != nil {
		return []Finding{bad("correct FLAUDEBOT_IMAGE, or leave it out: "+flyRegistry+"/"+f.App+":session", "%s", err)}
	}
	push := "FLAUDEBOT_FLY_APP=" + f.App + " make images builds and pushes it (docker and flyctl are needed)"
	if img.registry != flyRegistry && !img.local() {
		push = "push it there, where everybody may read it, or correct FLAUDEBOT_IMAGE"
	}
	status, err := f.manifest(ctx, e, img)
	switch {
	case err != nil:
		return []Finding{warn("see that this machine reaches "+img.registry, "whether the session image %s is there cannot be told: %s", f.Image, plain(err))}
	case status == http.StatusOK:
		return []Finding{ok("the session image %s is there", f.Image)}
	case status == http.StatusNotFound:
		return []Finding{bad(push, "the session image %s is not there", f.Image)}
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && img.registry != flyRegistry && !img.local():
		return []Finding{bad(push, "the session image %s is not there, or not for everybody: Fly would not get it", f.Image)}
	}
	return []Finding{warn("`fly auth docker` and `docker manifest inspect "+f.Image+"` show more", "whether the session image %s is there cannot be told: its registry answers %d", f.Image, status)}
}

// manifest asks a registry for an image's manifest, as Docker does: Fly's own with Fly's token, any other without.
func (f *Fly) manifest(ctx context.Context, e *examination, img image) (status int, err error) {
	authorization := ""
	if img.registry == flyRegistry || img.local() {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth("x", strings.TrimPrefix(strings.TrimPrefix(f.Token, "FlyV1 "), "Bearer "))
		authorization = r.Header.Get("Authorization")
	}
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, img.address(), nil)
		if err != nil {
			return 0, err
		}
		for _, kind := range []string{"vnd.oci.image.index.v1", "vnd.oci.image.manifest.v1", "vnd.docker.distribution.manifest.list.v2", "vnd.docker.distribution.manifest.v2"} {
			req.Header.Add("Accept", "application/"+kind+"+json")
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		res, err := e.http.Do(req)
		if err != nil {
			return 0, err
		}
		_ = res.Body.Close()
		challenge, isBearer := strings.CutPrefix(res.Header.Get("WWW-Authenticate"), "Bearer ")
		if res.StatusCode != http.StatusUnauthorized || !isBearer || try > 0 {
			return res.StatusCode, nil
		}
		if authorization, err = e.registryToken(ctx, img, challenge, authorization); err != nil {
			return 0, err
		}
	}
}

var challengeField = regexp.MustCompile(`([a-z]+)="([^"]*)"`)

// registryToken gets the token that a registry asks for (https://distribution.github.io/distribution/spec/auth/token/).
func (e *examination) registryToken(ctx context.Context, img image, challenge, authorization string) (string, error) {
	q, realm := url.Values{}, ""
	for _, m := range challengeField.FindAllStringSubmatch(challenge, -1) {
		switch m[1] {
		case "realm":
			realm = m[2]
		case "service", "scope":
			q.Set(m[1], m[2])
		}
	}
	u, err := url.Parse(realm)
	if err != nil || u.Scheme != "https" && !img.local() || u.Host == "" {
		return "", fmt.Errorf("the registry names no place for tokens")
	}
	if registry := img.registry; authorization != "" && u.Host != registry {
		authorization = "" // the token is for the registry itself
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := e.http.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	var out struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&out); err != nil || out.Token+out.AccessToken == "" {
		return "", fmt.Errorf("the registry gives no token: it answers %d", res.StatusCode)
	}
	if out.Token == "" {
		out.Token = out.AccessToken
	}
	return "Bearer " + out.Token, nil
}
