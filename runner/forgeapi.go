package runner

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// forgeTime bounds one request to a host's API, which is tried forgeTries times.
const (
	forgeTime  = 20 * time.Second
	forgeTries = 3
)

// openPull opens a pull request, or finds the open one of the branch. The token goes to the host of the repository's own address alone.
func (t *turn) openPull(ctx context.Context, r Repo, p Publish, base string) (Pull, error) {
	at, ok := placeOf(r.URL, t.Settings.Forges)
	switch {
	case !ok || at.kind == "":
		return Pull{}, refuse(FailNoForge, "nobody has told how pull requests are opened at %s", cmp.Or(at.host, "the place of this repository"))
	case !t.hasToken(r):
		return Pull{}, refuse(FailNoToken, "there is no token for %s", at.host)
	}
	api := forgeAPI{place: at, token: t.secrets.GitToken}
	found, ok, err := api.find(ctx, p.Branch)
	if err == nil && !ok {
		found, err = api.open(ctx, p, base)
		if err != nil { // somebody was faster, or the answer of an earlier try was lost
			if again, there, findErr := api.find(ctx, p.Branch); findErr == nil && there {
				found, err = again, nil
			}
		}
	}
	if err != nil {
		return Pull{}, err
	}
	found.Dir = p.Dir
	return found, nil
}

// forgeAPI asks a host about a repository.
type forgeAPI struct {
	place
	token string
}

// base is where the repository's part of the API begins.
func (f forgeAPI) base() string {
	switch {
	case f.kind == ForgeGitLab:
		return f.scheme + "://" + f.host + "/api/v4/projects/" + url.PathEscape(f.path)
	case f.host == "github.com":
		return "https://api.github.com/repos/" + escapePath(f.path)
	}
	return f.scheme + "://" + f.host + "/api/v3/repos/" + escapePath(f.path)
}

// samePlace follows an answer that leads elsewhere only where that is the same place: by itself the library takes the token along to
// other ports, to plain HTTP and to hosts below.
func samePlace(req *http.Request, via []*http.Request) error {
	if was := via[0].URL; req.URL.Scheme != was.Scheme || !strings.EqualFold(req.URL.Host, was.Host) || len(via) >= 5 {
		return http.ErrUseLastResponse
	}
	return nil
}

// forgePull is a pull request as both APIs tell it.
type forgePull struct {
	URL    string `json:"html_url"` // GitHub
	Number int    `json:"number"`
	WebURL string `json:"web_url"` // GitLab
	IID    int    `json:"iid"`
}

func (p forgePull) pull() Pull {
	return Pull{URL: cmp.Or(p.URL, p.WebURL), Number: strconv.Itoa(cmp.Or(p.Number, p.IID))}
}

// find finds the open pull request of a branch.
func (f forgeAPI) find(ctx context.Context, branch string) (Pull, bool, error) {
	path := "/merge_requests?" + url.Values{"state": {"opened"}, "source_branch": {branch}, "per_page": {"1"}}.Encode()
	if f.kind == ForgeGitHub {
		owner, _, _ := strings.Cut(f.path, "/")
		path = "/pulls?" + url.Values{"state": {"open"}, "head": {owner + ":" + branch}, "per_page": {"1"}}.Encode()
	}
	var all []forgePull
	if err := f.ask(ctx, http.MethodGet, path, nil, &all); err != nil || len(all) == 0 {
		return Pull{}, false, err
	}
	p := all[0].pull()
	p.Existed = true
	return p, true, f.check(p)
}

// check refuses a pull request whose address is none: people are shown it as a link.
func (f forgeAPI) check(p Pull) error {
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.ContainsAny(p.URL, "<>|\" \n") {
		return refuse(FailForge, "%s does not tell where the pull request is", f.host)
	}
	return nil
}

func (f forgeAPI) open(ctx context.Context, p Publish, base string) (Pull, error) {
	path, body := "/merge_requests", map[string]any{"source_branch": p.Branch, "target_branch": base, "title": p.Title, "description": p.Body}
	if f.kind == ForgeGitHub {
		path, body = "/pulls", map[string]any{"head": p.Branch, "base": base, "title": p.Title, "body": p.Body}
	}
	var made forgePull
	if err := f.ask(ctx, http.MethodPost, path, body, &made); err != nil {
		return Pull{}, err
	}
	pull := made.pull()
	return pull, f.check(pull)
}

// ask asks the API, again while the host is in trouble: asking twice is harmless, since a second pull request of a branch is refused.
func (f forgeAPI) ask(ctx context.Context, method, path string, body, into any) error {
	var err error
	for try := range forgeTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return err
			case <-time.After(time.Second << (try - 1)):
			}
		}
		var passing bool
		if passing, err = f.once(ctx, method, path, body, into); err == nil || !passing {
			return err
		}
	}
	return err
}

func (f forgeAPI) once(ctx context.Context, method, path string, body, into any) (passing bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, forgeTime)
	defer cancel()
	var sent io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return false, err
		}
		sent = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.base()+path, sent)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	req.Header.Set("User-Agent", "flaudebot")
	req.Header.Set("Accept", "application/json")
	if f.kind == ForgeGitHub {
		req.Header.Set("Accept", "application/vnd.github+json")
		req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := (&http.Client{CheckRedirect: samePlace}).Do(req)
	if err != nil {
		return true, refused{fmt.Errorf("ask %s: %w", f.host, err), FailRemote}
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	switch {
	case err != nil:
		return true, refused{fmt.Errorf("ask %s: %w", f.host, err), FailRemote}
	case res.StatusCode >= http.StatusInternalServerError || res.StatusCode == http.StatusTooManyRequests:
		return true, refuse(FailRemote, "%s answers %s", f.host, res.Status)
	case res.StatusCode >= http.StatusMultipleChoices:
		return false, f.refusal(res, raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, refuse(FailForge, "%s answers what is no JSON", f.host)
	}
	return false, nil
}

// refusal is a no of the API.
func (f forgeAPI) refusal(res *http.Response, raw []byte) error {
	text := forgeWords(raw)
	failure := FailForge
	switch {
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden, res.StatusCode == http.StatusNotFound:
		failure = FailNoRight // a repository that a token may not see is not found
	case strings.Contains(strings.ToLower(text), "no commits between"):
		failure = FailNothing
	}
	return refuse(failure, "%s answers %s: %s", f.host, res.Status, text)
}

// forgeWords is what both APIs say of an error: message is a text or, at GitLab, a list or a map of lists; GitHub adds errors.
func forgeWords(raw []byte) string {
	var body struct {
		Message any    `json:"message"`
		Error   any    `json:"error"`
		Errors  []any  `json:"errors"`
		Text    string `json:"error_description"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return "without saying why"
	}
	words := slices.Concat(wordsIn(body.Message), wordsIn(body.Error), wordsIn(body.Text), wordsIn(body.Errors))
	return clip(cmp.Or(strings.Join(slices.Compact(words), "; "), "without saying why"), 500)
}

func wordsIn(v any) []string {
	switch v := v.(type) {
	case string:
		if v = strings.TrimSpace(v); v != "" {
			return []string{v}
		}
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, wordsIn(e)...)
		}
		return out
	case map[string]any:
		if text, ok := v["message"].(string); ok {
			return []string{text}
		}
		var out []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			for _, text := range wordsIn(v[k]) {
				out = append(out, k+" "+text)
			}
		}
		return out
	}
	return nil
}
