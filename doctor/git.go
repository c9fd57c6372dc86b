package doctor

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"flaudebot/runner"
)

// Git says which repositories new sessions clone, and with what.
type Git struct {
	Username, Token string // "": none
	Repos           []runner.Repo
	Forges          []runner.Forge // what Git hosts are whose names do not tell
}

// look asks for each repository as Git itself does when it begins to fetch, and to push: that is the same at every Git host.
func (g *Git) look(ctx context.Context, e *examination) []Finding {
	if len(g.Repos) == 0 {
		return g.hosts(ctx, e)
	}
	found := make([][]Finding, len(g.Repos))
	var wg sync.WaitGroup
	gate := make(chan struct{}, 4)
	for i, r := range g.Repos {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			found[i] = []Finding{g.repo(ctx, e, r.URL)}
		})
	}
	wg.Wait()
	return slices.Concat(found...)
}

func (g *Git) repo(ctx context.Context, e *examination, address string) Finding {
	if !strings.HasPrefix(address, "https://") && !strings.HasPrefix(address, "http://") {
		return warn("run `flaudebot doctor --live`, whose turn clones it", "%s is not read over HTTP, and was not tried", address)
	}
	status, err := g.ask(ctx, e, address, "git-upload-pack")
	const fix = "give GITHUB_TOKEN access to it (contents: read and write), or correct the address in FLAUDEBOT_REPOS"
	switch {
	case err != nil:
		return away("Git", address, "FLAUDEBOT_REPOS", err)
	case status == http.StatusUnauthorized && g.Token != "":
		return bad("make a new token and put it into GITHUB_TOKEN", "%s refuses GITHUB_TOKEN", host(address))
	case status == http.StatusUnauthorized:
		return bad("set GITHUB_TOKEN to a token that may read it, or correct the address in FLAUDEBOT_REPOS", "%s is not there, or not for everybody", address)
	case status == http.StatusNotFound, status == http.StatusForbidden:
		return bad(fix, "%s is not there, or GITHUB_TOKEN may not read it", address)
	case status != http.StatusOK:
		return warn("try again later", "whether %s can be read cannot be told: %s answers %d", address, host(address), status)
	case g.Token == "":
		return warn("set GITHUB_TOKEN to a token that may write it", "%s can be read; without a token nothing is pushed", address)
	}
	switch status, err = g.ask(ctx, e, address, "git-receive-pack"); {
	case err != nil, status >= 500, status == http.StatusTooManyRequests:
		return warn("try again later", "%s can be read; whether it can be pushed to cannot be told", address)
	case status != http.StatusOK:
		return warn("give GITHUB_TOKEN access to it (contents: read and write)", "%s can be read, and not pushed to: %s answers %d", address, host(address), status)
	}
	return ok("%s can be read and pushed to", address)
}

// ask begins to fetch or to push, and goes no further.
func (g *Git) ask(ctx context.Context, e *examination, address, service string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(address, "/")+"/info/refs?service="+service, nil)
	if err != nil {
		return 0, err
	}
	if g.Token != "" {
		req.SetBasicAuth(g.Username, g.Token)
	}
	return e.status(req)
}

// hosts tries the token where no repository is named to try it on: at each host whose API is known.
func (g *Git) hosts(ctx context.Context, e *examination) []Finding {
	if g.Token == "" {
		return []Finding{ok("no repositories are cloned into new sessions, and there is no token for Git")}
	}
	var out []Finding
	forges := g.Forges
	if len(forges) == 0 {
		forges = []runner.Forge{{Host: "github.com", Kind: runner.ForgeGitHub}}
	}
	for _, f := range forges {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, tryToken(f), nil)
		if err != nil {
			out = append(out, bad("correct FLAUDEBOT_FORGES", "%s is no host", f.Host))
			continue
		}
		req.Header.Set("Authorization", "Bearer "+g.Token)
		switch status, err := e.status(req); {
		case err != nil:
			out = append(out, away("Git", f.Host, "FLAUDEBOT_FORGES", err))
		case status == http.StatusUnauthorized:
			out = append(out, bad("make a new token and put it into GITHUB_TOKEN", "%s refuses GITHUB_TOKEN", f.Host))
		case status == http.StatusOK:
			out = append(out, ok("%s takes GITHUB_TOKEN", f.Host))
		default:
			out = append(out, warn("name a repository in FLAUDEBOT_REPOS to try it on", "whether %s takes GITHUB_TOKEN cannot be told: it answers %d", f.Host, status))
		}
	}
	return out
}

// tryToken is what any token of a host may read, whatever its rights. GitHub: docs.github.com/rest/rate-limit; GitLab: docs.gitlab.com/api/version.
func tryToken(f runner.Forge) string {
	scheme := "https"
	if (image{registry: f.Host}).local() {
		scheme = "http"
	}
	switch {
	case f.Kind == runner.ForgeGitLab:
		return fmt.Sprintf("%s://%s/api/v4/version", scheme, f.Host)
	case f.Host == "github.com":
		return "https://api.github.com/rate_limit"
	}
	return fmt.Sprintf("%s://%s/api/v3/rate_limit", scheme, f.Host)
}

// status makes a request of which only the status matters.
func (e *examination) status(req *http.Request) (int, error) {
	res, err := e.http.Do(req)
	if err != nil {
		return 0, err
	}
	_ = res.Body.Close()
	return res.StatusCode, nil
}
