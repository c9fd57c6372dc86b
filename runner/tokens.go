package runner

import (
	"cmp"
	"slices"
	"strings"
)

// A token of a service that many use is known by its form, as the services' own scanners for leaked ones do it: a beginning, and behind it so many characters of a kind. Megabytes are looked
// through for them, so there is no regular expression: the beginnings are searched for, and the rest is read once.

// tokenForm is a form of tokens.
type tokenForm struct {
	begins []string
	of     func(byte) bool // what follows is made of it
	least  int             // so many characters of it follow, or more
	most   int             // not more than these; 0: any number
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isWord(c byte) bool    { return isAlnum(c) || c == '_' }
func isDashed(c byte) bool  { return isWord(c) || c == '-' }
func isUpper(c byte) bool   { return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' }
func isSegment(c byte) bool { return isAlnum(c) || c == '/' }
func isBase64(c byte) bool  { return isDashed(c) || c == '+' || c == '/' || c == '=' }

func tokenForms() []tokenForm {
	return []tokenForm{
		{[]string{"sk-ant-", "sk-proj-", "sk-svcacct-", "sk-admin-"}, isDashed, 24, 0},                                         // Anthropic, OpenAI
		{[]string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "npm_"}, isAlnum, 36, 0},                                             // GitHub, npm
		{[]string{"github_pat_"}, isWord, 40, 0},                                                                               // GitHub, fine-grained
		{[]string{"glpat-", "xapp-", "xoxa-", "xoxb-", "xoxc-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"}, isDashed, 20, 0}, // GitLab, Slack
		{[]string{"hooks.slack.com/services/"}, isSegment, 20, 0},
		{[]string{"AKIA", "ASIA"}, isUpper, 16, 16},                           // AWS: the id that goes with a key
		{[]string{"AIza"}, isDashed, 35, 0},                                   // Google
		{[]string{"fm1_", "fm1a_", "fm1r_", "fm2_", "fo1_"}, isBase64, 40, 0}, // Fly
		{[]string{"sk_live_", "rk_live_"}, isAlnum, 16, 0},                    // Stripe
	}
}

// span is a part of a text, in bytes.
type span struct{ from, to int }

// tokensIn finds what looks like a token, and private keys as PEM.
func tokensIn(text string) []span {
	var out []span
	for _, form := range tokenForms() {
		for _, begin := range form.begins {
			out = append(out, found(text, begin, func(at int) (int, bool) {
				end := run(text, at+len(begin), form.of)
				n := end - at - len(begin)
				return end, n >= form.least && (form.most == 0 || n <= form.most && (end == len(text) || !isWord(text[end])))
			})...)
		}
	}
	out = append(out, found(text, "eyJ", func(at int) (int, bool) { return webTokenEnd(text, at) })...)
	out = append(out, found(text, "-----BEGIN ", func(at int) (int, bool) { return privateKeyEnd(text, at) })...)
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	return out
}

// found are the places at which a beginning stands that no word runs into, as far as end tells that they are tokens, and where they end. Of what is none it tells
// up to where there can be no other, so that nothing is read again and again.
func found(text, begin string, end func(at int) (int, bool)) []span {
	var out []span
	for from := 0; ; {
		i := strings.Index(text[from:], begin)
		if i < 0 {
			return out
		}
		at := from + i
		from = at + len(begin)
		if at > 0 && isWord(text[at-1]) && isWord(begin[0]) {
			continue
		}
		to, ok := end(at)
		if ok {
			out = append(out, span{at, to})
		}
		from = max(from, to)
	}
}

// run is where characters of a kind end that begin at a place.
func run(text string, at int, of func(byte) bool) int {
	for at < len(text) && of(text[at]) {
		at++
	}
	return at
}

// webTokenEnd is where a JSON Web Token ends: three parts with dots between them, the first two of which are JSON.
func webTokenEnd(text string, at int) (int, bool) {
	for part := range 3 {
		if part < 2 && !strings.HasPrefix(text[at:], "eyJ") {
			return at, false
		}
		end := run(text, at, isDashed)
		switch {
		case end-at < 10:
			return end, false
		case part == 2:
			return end, true
		case end == len(text) || text[end] != '.':
			return end, false
		}
		at = end + 1
	}
	return at, false
}

// privateKeyEnd is where a private key ends, or what is there of it.
func privateKeyEnd(text string, at int) (int, bool) {
	const kind = "PRIVATE KEY-----"
	head, _, ok := strings.Cut(text[at:min(len(text), at+80)], kind)
	if !ok || strings.Trim(strings.TrimPrefix(head, "-----BEGIN "), "ABCDEFGHIJKLMNOPQRSTUVWXYZ ") != "" {
		return at, false
	}
	body := at + len(head) + len(kind)
	end := strings.Index(text[body:], "-----END ")
	if end < 0 {
		return len(text), true
	}
	end += body
	if last := strings.Index(text[end:min(len(text), end+80)], kind); last >= 0 {
		return end + last + len(kind), true
	}
	return end, true
}

// withoutTokens replaces what looks like a token.
func withoutTokens(text string) string {
	tokens := tokensIn(text)
	if len(tokens) == 0 {
		return text
	}
	var out strings.Builder
	at := 0
	for _, t := range tokens {
		if t.to <= at { // within the one before
			continue
		}
		if t.from >= at {
			out.WriteString(text[at:t.from])
			out.WriteString(redacted)
		}
		at = t.to
	}
	out.WriteString(text[at:])
	return out.String()
}
