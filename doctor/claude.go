package doctor

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Claude says how Claude's API is reached: with one of the two credentials.
type Claude struct {
	APIKey, OAuthToken string
	BaseURL            string
	Model              string // "": Claude Code's default
}

const (
	newKey   = "make a key at https://console.anthropic.com → API Keys and put it into ANTHROPIC_API_KEY, or a token of a subscription with `claude setup-token` and put that into CLAUDE_CODE_OAUTH_TOKEN instead"
	newOAuth = "make a new token with `claude setup-token` and put it into CLAUDE_CODE_OAUTH_TOKEN"
)

// look asks the API which models there are: it costs nothing, and wants a credential.
func (c *Claude) look(ctx context.Context, e *examination) []Finding {
	name, fix := "ANTHROPIC_API_KEY", newKey
	if c.OAuthToken != "" {
		name, fix = "CLAUDE_CODE_OAUTH_TOKEN", newOAuth
	}
	var out []Finding
	switch {
	case strings.HasPrefix(c.APIKey, "sk-ant-oat"):
		return []Finding{bad("put it into CLAUDE_CODE_OAUTH_TOKEN, and leave ANTHROPIC_API_KEY out", "ANTHROPIC_API_KEY holds the token of a subscription")}
	case strings.HasPrefix(c.OAuthToken, "sk-ant-api"):
		return []Finding{bad("put it into ANTHROPIC_API_KEY, and leave CLAUDE_CODE_OAUTH_TOKEN out", "CLAUDE_CODE_OAUTH_TOKEN holds a key of the API")}
	}
	status, said, err := c.get(ctx, e, "/v1/models?limit=1")
	switch {
	case err != nil:
		return []Finding{away("Claude's API", c.BaseURL, "ANTHROPIC_BASE_URL", err)}
	case status == http.StatusOK:
		out = append(out, ok("Claude's API takes %s", name))
	case status == http.StatusUnauthorized && c.OAuthToken != "" && strings.Contains(said, "not supported"): // tokens of subscriptions are for Claude Code alone
		return []Finding{ok("CLAUDE_CODE_OAUTH_TOKEN is set; only Claude Code itself can try it, as `flaudebot doctor --live` does")}
	case status == http.StatusUnauthorized:
		return []Finding{bad(fix, "Claude's API refuses %s: %s", name, said)}
	case status == http.StatusForbidden && c.OAuthToken != "": // it is known, and may not list models
		return []Finding{ok("Claude's API knows CLAUDE_CODE_OAUTH_TOKEN; only Claude Code itself can try it further, as `flaudebot doctor --live` does")}
	case status == http.StatusForbidden:
		return []Finding{bad(fix, "%s may not use Claude's API: %s", name, said)}
	case status == http.StatusNotFound:
		return []Finding{warn("`flaudebot doctor --live` runs a turn and so shows it", "what is at %s has no list of models, so %s could not be tried", host(c.BaseURL), name)}
	case status == http.StatusTooManyRequests, status >= 500:
		return []Finding{warn("see https://status.claude.com and try again", "Claude's API answers %d, so %s could not be tried: %s", status, name, said)}
	default:
		return []Finding{bad("see that ANTHROPIC_BASE_URL is right", "Claude's API answers %d: %s", status, said)}
	}
	if !strings.HasPrefix(c.Model, "claude-") { // a name such as opus is Claude Code's own
		return out
	}
	switch status, _, err := c.get(ctx, e, "/v1/models/"+url.PathEscape(c.Model)); {
	case err != nil:
	case status == http.StatusNotFound:
		out = append(out, bad("correct FLAUDEBOT_MODEL: a name of https://docs.claude.com/en/docs/about-claude/models, or opus, sonnet or haiku", "Claude's API has no model %s for this credential", c.Model))
	case status == http.StatusOK:
		out = append(out, ok("there is the model %s", c.Model))
	}
	return out
}

// get asks the API, and returns what it says against the request.
func (c *Claude) get(ctx context.Context, e *examination, path string) (status int, said string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.BaseURL, "/")+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Anthropic-Version", "2023-06-01")
	if c.OAuthToken != "" {
		req.Header.Set("Authorization", "Bearer "+c.OAuthToken)
		req.Header.Set("Anthropic-Beta", "oauth-2025-04-20")
	} else {
		req.Header.Set("X-Api-Key", c.APIKey)
	}
	res, err := e.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	var body struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&body) != nil || body.Error.Message == "" {
		return res.StatusCode, http.StatusText(res.StatusCode), nil
	}
	return res.StatusCode, body.Error.Message, nil
}

func host(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return address
}
