package runner

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// minSecret is the shortest value that is removed; a shorter one would take ordinary words with it.
const minSecret = 8

// redaction removes secrets from text. It must come before anything that cuts the text, else a part of a secret stays.
type redaction struct{ known *strings.Replacer }

// redacted stands where a secret was.
const redacted = "[redacted]"

// Replace returns the text without known secrets, and without what looks like the token of a service that many use.
func (r redaction) Replace(text string) string {
	return withoutTokens(r.known.Replace(text))
}

// redactor knows the secrets: as they are, as JSON and addresses write them, and as Git sends them.
func redactor(s Secrets) redaction {
	var forms []string
	for _, v := range s.values() {
		if len(v) >= minSecret {
			forms = append(forms, v, inJSON(v, true), inJSON(v, false), url.QueryEscape(v), url.PathEscape(v))
			forms = append(forms, inBase64(v)...)
		}
	}
	if len(s.GitToken) >= minSecret {
		forms = append(forms, strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(s.gitUser()+":"+s.GitToken)), "="))
	}
	// Of two that begin alike the longer one comes first.
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
	var pairs []string
	for _, f := range slices.Compact(forms) {
		pairs = append(pairs, f, redacted)
	}
	return redaction{strings.NewReplacer(pairs...)}
}

// inLowerCase are the secrets as they are in names of hosts, which programs write in lower case.
func (s Secrets) inLowerCase() Secrets {
	low := Secrets{AnthropicAPIKey: strings.ToLower(s.AnthropicAPIKey), ClaudeOAuthToken: strings.ToLower(s.ClaudeOAuthToken), GitToken: strings.ToLower(s.GitToken), Env: map[string]string{}}
	for name, value := range s.Env {
		low.Env[name] = strings.ToLower(value)
	}
	return low
}

// values are all that must not be told. A secret of several lines is printed line by line, and one with spaces around it without them.
func (s Secrets) values() []string {
	out := []string{s.AnthropicAPIKey, s.ClaudeOAuthToken, s.GitToken}
	for _, v := range s.Env {
		out = append(out, v, strings.TrimSpace(v))
		if lines := strings.Split(strings.TrimSpace(v), "\n"); len(lines) > 1 {
			for _, line := range lines {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return out
}

// check refuses secrets that cannot be in an environment.
func (s Secrets) check() error {
	for name, value := range s.Env {
		if err := checkVariable(name, value); err != nil {
			return err
		}
	}
	return nil
}

// inBase64 is how base64 holds the text, also where other text stands before or behind it, as in the header of a request: at each of three
// places in a group, without the characters that it shares with what is around it.
func inBase64(text string) []string {
	out := []string{base64.RawStdEncoding.EncodeToString([]byte(text))}
	for before := range 3 {
		raw := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), text...))
		out = append(out, raw[(8*before+5)/6:8*(before+len(text))/6])
	}
	for _, form := range out {
		out = append(out, strings.NewReplacer("+", "-", "/", "_").Replace(form))
	}
	return out
}

// inJSON is how a JSON string holds the text; html: with <, > and & escaped as well.
func inJSON(text string, html bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if e.Encode(text) != nil {
		return text
	}
	return strings.Trim(strings.TrimSpace(b.String()), `"`)
}

// gitUser is the name that goes with the Git token.
func (s Secrets) gitUser() string { return cmp.Or(s.GitUsername, "x-access-token") }
