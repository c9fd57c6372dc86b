package bot

import (
	"html"
	"regexp"
	"strings"

	"github.com/yuin/goldmark/ast"
)

// Slack shows no HTML. Its tags go, and what they say stays: breaks, links, images, powers, and the simple marks.

var (
	htmlTag     = regexp.MustCompile(`(?s)<!--.*?-->|</?([a-zA-Z][a-zA-Z0-9-]*)(?:\s[^<>]*)?/?>`)
	htmlComment = regexp.MustCompile(`(?s)^<!--.*-->$`)
	attribute   = regexp.MustCompile(`(?is)\s(href|src|alt|title)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)`)
)

// knownTags are those of HTML. Others, such as <T> or <your-name>, are not meant as tags.
var knownTags = regexp.MustCompile(`^(?i:a|abbr|address|article|aside|b|big|blockquote|body|br|caption|center|cite|code|col|colgroup|dd|del|details|` +
	`dfn|div|dl|dt|em|figcaption|figure|font|footer|h[1-6]|head|header|hr|html|i|img|ins|kbd|li|main|mark|nav|ol|p|picture|pre|q|s|samp|section|` +
	`small|source|span|strike|strong|sub|summary|sup|table|tbody|td|tfoot|th|thead|time|tr|tt|u|ul|var|wbr)$`)

// tag is what is written in the place of a tag. known: it is one.
func (s *shaper) tag(raw string) (out string, known bool) {
	if htmlComment.MatchString(raw) {
		return "", true
	}
	m := htmlTag.FindStringSubmatch(raw)
	if m == nil || !knownTags.MatchString(m[1]) {
		return "", false
	}
	closing := strings.HasPrefix(raw, "</")
	bold, strike := "**", "~~"
	if s.plain {
		bold, strike = "*", "~"
	}
	switch name := strings.ToLower(m[1]); name {
	case "br":
		return "  \n", true
	case "hr":
		return "\n\n---\n\n", true
	case "p", "div", "tr", "ul", "ol", "table", "details", "blockquote", "dl", "section":
		return "\n", true
	case "td", "th":
		if closing {
			return " · ", true
		}
	case "li", "dt":
		if !closing {
			return "\n• ", true
		}
	case "img":
		return s.link(s.words(attributeOf(raw, "alt")), attributeOf(raw, "alt"), attributeOf(raw, "src")), true
	case "sup":
		if !closing {
			return "^", true
		}
	case "summary", "h1", "h2", "h3", "h4", "h5", "h6":
		if closing {
			return bold + "\n", true
		}
		return "\n" + bold, true
	case "b", "strong":
		return bold, true
	case "s", "del", "strike":
		return strike, true
	}
	return "", true
}

func attributeOf(tag, name string) string {
	for _, m := range attribute.FindAllStringSubmatch(tag, -1) {
		if strings.EqualFold(m[1], name) {
			return html.UnescapeString(strings.Trim(m[2], `"'`))
		}
	}
	return ""
}

// rawHTML is a tag in a paragraph.
func (s *shaper) rawHTML(n *ast.RawHTML) string {
	var b strings.Builder
	for i := range n.Segments.Len() {
		seg := n.Segments.At(i)
		b.Write(seg.Value(s.src))
	}
	raw := b.String()
	out, known := s.tag(raw)
	if !known {
		return s.words(raw)
	}
	if s.inCode(n) {
		return "`"
	}
	if strings.EqualFold(raw, "</a>") {
		if href := s.openedBy(n); webLink.MatchString(href) {
			return " (" + s.target(safeURL(href)) + ")"
		}
	}
	return out
}

var codeTag = regexp.MustCompile(`^</?(?i:code|kbd|samp|tt)>$`)

// inCode reports whether a tag opens or closes what can be written as code.
func (s *shaper) inCode(n *ast.RawHTML) bool {
	tagOf := func(n ast.Node) string {
		if raw, ok := n.(*ast.RawHTML); ok && raw.Segments.Len() == 1 {
			seg := raw.Segments.At(0)
			return string(seg.Value(s.src))
		}
		return ""
	}
	raw := tagOf(n)
	words := n.NextSibling()
	if strings.HasPrefix(raw, "</") {
		words = n.PreviousSibling()
	}
	t, ok := words.(*ast.Text)
	if !ok || !codeTag.MatchString(raw) || strings.ContainsAny(string(t.Segment.Value(s.src)), "`<&\\") {
		return false
	}
	other := words.NextSibling()
	if strings.HasPrefix(raw, "</") {
		other = words.PreviousSibling()
	}
	return codeTag.MatchString(tagOf(other)) && strings.HasPrefix(raw, "</") != strings.HasPrefix(tagOf(other), "</")
}

// openedBy is the address of the <a> before a </a>.
func (s *shaper) openedBy(n ast.Node) string {
	for p := n.PreviousSibling(); p != nil; p = p.PreviousSibling() {
		if raw, ok := p.(*ast.RawHTML); ok && raw.Segments.Len() > 0 {
			seg := raw.Segments.At(0)
			return attributeOf(string(seg.Value(s.src)), "href")
		}
	}
	return ""
}

var manyLines = regexp.MustCompile(`[ \t·]*\n(?:[ \t]*\n)*[ \t]*`)

// htmlBlock is a block of HTML; of one that is code, the code.
func (s *shaper) htmlBlock(n *ast.HTMLBlock) unit {
	raw := string(n.Lines().Value(s.src))
	if n.HasClosure() {
		raw += string(n.ClosureLine.Value(s.src))
	}
	if n.HTMLBlockType == ast.HTMLBlockType1 || n.HTMLBlockType == ast.HTMLBlockType4 {
		return s.codeBlock("html", strings.TrimRight(raw, "\n"))
	}
	var b strings.Builder
	at := 0
	for _, m := range htmlTag.FindAllStringIndex(raw, -1) {
		out, known := s.tag(raw[m[0]:m[1]])
		if !known {
			continue
		}
		if href := attributeOf(raw[m[0]:m[1]], "href"); webLink.MatchString(href) {
			out = s.target(safeURL(href)) + " "
		}
		b.WriteString(s.words(raw[at:m[0]]))
		b.WriteString(out)
		at = m[1]
	}
	b.WriteString(s.words(raw[at:]))
	return unit{text: strings.TrimSpace(manyLines.ReplaceAllString(b.String(), "\n"))}
}
