package bot

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/yuin/goldmark/ast"
	gfm "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
)

// Slack's markdown block takes Markdown, but not all of what Claude writes looks there as it was meant. So an answer is parsed, and each block
// is written anew in the forms that Slack documents: what Slack has no form for gets the nearest one that it has, and nothing is left out.
//
//	as it is        emphasis, lists, task lists, tables up to 20 columns, quotes, links to the web, code
//	another form    code that is indented or between ~~~ → between ```, underlined headings → #, reference links → where they stand,
//	                hard breaks → two spaces, entities → their characters, a heading that is nested or too long → bold
//	no form         images → links, links within a repository and to other schemes → text and target, tables that are wide or nested → lists,
//	                formulas → code, HTML → its text, what looks like HTML and is not → itself
//
// The same parse gives the plain text of a message, for notifications, for screen readers, and for when Slack takes no blocks.

// maxNesting is how deep lists and quotes are kept apart; Slack itself shows no more.
const maxNesting = 8

// Limits of what Slack makes of Markdown.
const (
	maxColumns = 20
	maxHeading = 150 // characters
)

// unit is one block of an answer, as it is posted, with what it takes to cut it.
type unit struct {
	kind  kind
	text  string
	head  string   // the first line of a code block, the first two of a table
	lines []string // of a code block; rows of a table
	inner []unit   // blocks of a quote, entries of a list, and what is in an entry
}

type kind int

const (
	kindText kind = iota
	kindHeading
	kindCode
	kindTable
	kindList
	kindItem
	kindQuote
)

// shaper writes a parsed document.
type shaper struct {
	src    []byte
	plain  bool            // for people who see no blocks, in Slack's mrkdwn
	linked map[string]bool // labels of link definitions that are used
}

// shape parses Markdown. What would take the parser too long is not meant for reading: it stays as it is.
func shape(markdown string, plain bool) []unit {
	s := shaper{src: []byte(nest(markdown)), plain: plain, linked: map[string]bool{}}
	if deep.MatchString(markdown) {
		return []unit{{text: s.words(markdown)}}
	}
	doc := newParser(false).Parse(text.NewReader(s.src))
	if !s.crowded(doc) {
		doc = newParser(true).Parse(text.NewReader(s.src))
	}
	_ = ast.Walk(doc, func(n ast.Node, _ bool) (ast.WalkStatus, error) {
		if l, ok := n.(*ast.Link); ok && l.Reference != nil {
			s.linked[strings.ToLower(string(l.Reference.Value))] = true
		}
		return ast.WalkContinue, nil
	})
	return s.units(doc, 0)
}

var (
	numberMark = regexp.MustCompile(`^\d{1,9}[.)] +`)
	bulletMark = regexp.MustCompile(`^[-*+] `)
	fenceOpens = regexp.MustCompile("^(```+|~~~+)")
)

// nest puts bullets into the numbered entry above them where they are indented too little for that: by one or two spaces, as many write it.
// Markdown would end the numbers there, and begin them anew behind it.
func nest(markdown string) string {
	var b strings.Builder
	width, shift, decided, fence := 0, 0, false, ""
	for line := range strings.Lines(markdown) {
		words := strings.TrimLeft(line, " ")
		indent := len(line) - len(words)
		switch {
		case fence != "":
			if strings.HasPrefix(line, fence) {
				fence = ""
			}
		case strings.TrimSpace(line) == "":
		case indent == 0:
			width, shift, decided = len(numberMark.FindString(line)), 0, false
			fence = fenceOpens.FindString(line)
		case width > 0:
			if !decided && indent < width && bulletMark.MatchString(words) {
				shift = width - indent
			}
			decided = true
			b.WriteString(strings.Repeat(" ", shift))
		}
		b.WriteString(line)
	}
	return b.String()
}

// deep is a line that opens very many blocks in each other.
var deep = regexp.MustCompile(`(?m)^(?:[ \t]*(?:>|[-+*][ \t]|\d+[.)][ \t])){100}`)

// maxMarks is how many marks one paragraph may have: the parser compares each with each.
const maxMarks = 1000

// crowded reports whether a paragraph has more marks than that.
func (s *shaper) crowded(doc ast.Node) bool {
	found := false
	_ = ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering || n.Type() != ast.TypeBlock || n.IsRaw() {
			return ast.WalkContinue, nil
		}
		marks := 0
		for i := range n.Lines().Len() {
			seg := n.Lines().At(i)
			marks += len(anyMark.FindAllIndex(seg.Value(s.src), -1))
		}
		found = found || marks > maxMarks
		return ast.WalkContinue, nil
	})
	return found
}

var anyMark = regexp.MustCompile("[*_~`$<\\[\\]]+")

// plainText is what a message says, for whoever does not see its blocks. It is Slack's mrkdwn, and cannot ping.
func plainText(markdown string) string {
	var out []string
	for _, u := range shape(markdown, true) {
		out = append(out, u.text)
	}
	return strings.TrimSpace(strings.Join(out, "\n\n"))
}

func (s *shaper) units(parent ast.Node, depth int) []unit {
	var out []unit
	for n := parent.FirstChild(); n != nil; n = n.NextSibling() {
		for _, u := range s.block(n, depth) {
			if strings.TrimSpace(u.text) != "" {
				out = append(out, u)
			}
		}
	}
	return out
}

func (s *shaper) block(n ast.Node, depth int) []unit {
	switch n := n.(type) {
	case *ast.Heading:
		return []unit{s.heading(n, depth)}
	case *ast.FencedCodeBlock:
		language, rest := string(n.Language(s.src)), ""
		if !simpleLanguage.MatchString(language) && n.Info != nil {
			language, rest = "", s.code(string(n.Info.Segment.Value(s.src)))
		}
		return []unit{{text: rest}, s.codeBlock(language, string(n.Lines().Value(s.src)))}
	case *ast.CodeBlock:
		return []unit{s.codeBlock("", string(n.Lines().Value(s.src)))}
	case *formula:
		return []unit{s.codeBlock("latex", string(n.Lines().Value(s.src)))}
	case *ast.Blockquote:
		return []unit{s.quote(s.units(n, depth+1), depth)}
	case *ast.List:
		return []unit{s.list(n, depth)}
	case *gfm.Table:
		return []unit{s.table(n, depth)}
	case *ast.ThematicBreak:
		if s.plain {
			return []unit{{text: "———"}}
		}
		return []unit{{text: "---"}}
	case *ast.HTMLBlock:
		return []unit{s.htmlBlock(n)}
	case *ast.LinkReferenceDefinition:
		if s.linked[strings.ToLower(string(n.Label))] {
			return nil
		}
		return []unit{{text: s.words(string(n.Label)+": ") + s.target(string(n.Destination))}}
	}
	return []unit{{text: s.inline(n)}}
}

func (s *shaper) heading(n *ast.Heading, depth int) unit {
	words := strings.ReplaceAll(s.inline(n), "\n", " ")
	switch {
	case words == "":
		return unit{}
	case s.plain:
		return unit{kind: kindHeading, text: "*" + strings.ReplaceAll(words, "*", "") + "*"}
	case depth == 0 && utf8.RuneCountInString(words) <= maxHeading:
		return unit{kind: kindHeading, text: strings.Repeat("#", n.Level) + " " + words}
	case strings.Contains(words, "**"):
		return unit{text: words}
	}
	return unit{text: "**" + words + "**"}
}

var (
	// simpleLanguage is the name of a language behind a fence. Others write a file's name there, or more.
	simpleLanguage = regexp.MustCompile(`^[A-Za-z0-9_+#-]{0,30}$`)
	backticks      = regexp.MustCompile("`+")
)

func longest(runs []string, least int) int {
	for _, r := range runs {
		least = max(least, len(r)+1)
	}
	return least
}

func (s *shaper) codeBlock(language, body string) unit {
	body = strings.TrimSuffix(body, "\n")
	u := unit{kind: kindCode, lines: strings.Split(body, "\n")}
	if s.plain {
		u.head = "```"
		u.text = "```\n" + escape(strings.ReplaceAll(body, "```", "`\u200b``")) + "\n```"
		return u
	}
	u.head = strings.Repeat("`", longest(backticks.FindAllString(body, -1), 3)) + language
	u.text = u.wrap(u.lines)
	return u
}

// wrap makes a code block of lines, or a table of rows.
func (u unit) wrap(lines []string) string {
	out := u.head + "\n" + strings.Join(lines, "\n")
	if u.kind == kindCode {
		out += "\n" + backticks.FindString(u.head)
	}
	return out
}

func (s *shaper) quote(inner []unit, depth int) unit {
	u := unit{kind: kindQuote, inner: inner, text: join(inner)}
	if depth < maxNesting {
		u.text = inQuote(u.text)
	}
	return u
}

func inQuote(text string) string {
	return "> " + strings.ReplaceAll(text, "\n", "\n> ")
}

// join writes blocks one below the other.
func join(units []unit) string {
	var b strings.Builder
	for i, u := range units {
		if i > 0 {
			b.WriteString(between(units[i-1], u))
		}
		b.WriteString(u.text)
	}
	return b.String()
}

// between is what stands between two blocks: a list and code follow the words that they belong to.
func between(before, after unit) string {
	if before.kind == kindText && (after.kind == kindCode || after.kind == kindList && !startsLate.MatchString(after.text)) {
		return "\n"
	}
	return "\n\n"
}

// startsLate is a numbered list that begins with another number than 1: it would be taken for part of the paragraph before it.
var startsLate = regexp.MustCompile(`^([02-9]|1\d)`)

func (s *shaper) list(n *ast.List, depth int) unit {
	u := unit{kind: kindList}
	number := n.Start
	var all []string
	for item := n.FirstChild(); item != nil; item = item.NextSibling() {
		marker := "- "
		switch {
		case n.IsOrdered():
			marker = fmt.Sprintf("%d%c ", number, n.Marker)
			number++
		case s.plain:
			marker = "• "
		}
		e := s.item(marker, s.units(item, depth+1), depth)
		u.inner = append(u.inner, e)
		all = append(all, e.text)
	}
	u.text = strings.Join(all, "\n")
	return u
}

func (s *shaper) item(marker string, inner []unit, depth int) unit {
	indent := strings.Repeat(" ", utf8.RuneCountInString(marker))
	if s.plain {
		indent = "    "
	}
	if depth >= maxNesting {
		indent = ""
	}
	body := strings.ReplaceAll(join(inner), "\n", "\n"+indent)
	u := unit{kind: kindItem, inner: slices.Clone(inner), text: trimLines(marker + body)}
	if len(inner) > 0 && inner[0].kind == kindText {
		u.inner[0].text = marker + inner[0].text
	}
	return u
}

// trimLines leaves no line with blanks alone.
func trimLines(text string) string { return blankLine.ReplaceAllString(text, "") }

var blankLine = regexp.MustCompile(`(?m)^ +$`)

// table writes a table, as a list where Slack has none.
func (s *shaper) table(n *gfm.Table, depth int) unit {
	var rows [][]string
	for r := n.FirstChild(); r != nil; r = r.NextSibling() {
		var cells []string
		for c := r.FirstChild(); c != nil; c = c.NextSibling() {
			cells = append(cells, s.cell(c))
		}
		rows = append(rows, cells)
	}
	if s.plain || depth > 0 || len(n.Alignments) > maxColumns {
		return s.records(rows)
	}
	u := unit{kind: kindTable, head: row(rows[0]) + "\n|"}
	for _, a := range n.Alignments {
		u.head += map[gfm.Alignment]string{gfm.AlignLeft: ":---", gfm.AlignRight: "---:", gfm.AlignCenter: ":---:", gfm.AlignNone: "---"}[a] + "|"
	}
	for _, r := range rows[1:] {
		u.lines = append(u.lines, row(r))
	}
	u.text = u.head
	if len(u.lines) > 0 {
		u.text = u.wrap(u.lines)
	}
	return u
}

// records writes a table as a list, an entry a row: “head: cell”. It can be read aloud.
func (s *shaper) records(rows [][]string) unit {
	u := unit{kind: kindList}
	var all []string
	for _, r := range rows[1:] {
		var words []string
		for i, c := range r {
			switch head := rows[0][i]; {
			case c == "":
			case head == "":
				words = append(words, c)
			default:
				words = append(words, head+": "+c)
			}
		}
		if len(words) == 0 {
			continue
		}
		mark, apart := "- ", " · "
		if s.plain {
			mark, apart = "• ", "; "
		}
		e := unit{kind: kindItem, text: mark + strings.Join(words, apart)}
		u.inner = append(u.inner, e)
		all = append(all, e.text)
	}
	if len(all) == 0 { // only a head
		return unit{text: strings.Join(rows[0], " · ")}
	}
	u.text = strings.Join(all, "\n")
	return u
}

var barePipe = regexp.MustCompile(`(\\*)\|`)

// cell is the text of one cell: one line, without a bare |.
func (s *shaper) cell(n ast.Node) string {
	text := strings.ReplaceAll(strings.ReplaceAll(s.inline(n), "  \n", "; "), "\n", " ")
	if s.plain {
		return strings.ReplaceAll(text, `\|`, "|")
	}
	return barePipe.ReplaceAllStringFunc(text, func(m string) string {
		if len(m)%2 == 0 { // escaped already
			return m
		}
		return m[:len(m)-1] + `\|`
	})
}

func row(cells []string) string { return "| " + strings.Join(cells, " | ") + " |" }

// ── within a block ──

// inline writes what is in a block of text.
func (s *shaper) inline(n ast.Node) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		part := s.span(c)
		if b.Len() == 0 || strings.HasSuffix(b.String(), "\n") {
			part = guard(strings.TrimLeft(part, " "))
		}
		b.WriteString(part)
	}
	return strings.TrimRight(b.String(), " \n")
}

// blockMark begins a block of another kind where it stands at a line's beginning. In a paragraph it was indented, or stood elsewhere.
var blockMark = regexp.MustCompile("^([-+*]([ \t]|$)|#{1,6}([ \t]|$)|>|```|~~~|[-=_*][-=_* ]*$)")

func guard(line string) string {
	if blockMark.MatchString(line) {
		return `\` + line
	}
	return line
}

func (s *shaper) span(n ast.Node) string {
	switch n := n.(type) {
	case *ast.Text:
		return s.words(string(n.Segment.Value(s.src))) + s.breakOf(n)
	case *ast.String:
		return s.words(string(n.Value))
	case *ast.CodeSpan:
		return s.code(s.raw(n))
	case *ast.Emphasis:
		return s.emphasis(n)
	case *gfm.Strikethrough:
		if s.plain {
			return around("~", s.inline(n))
		}
		return around("~~", s.inline(n))
	case *gfm.TaskCheckBox:
		if n.IsChecked {
			return "[x] "
		}
		return "[ ] "
	case *ast.Link:
		return s.link(s.inline(n), s.raw(n), string(n.Destination))
	case *ast.Image:
		if _, within := n.Parent().(*ast.Link); within {
			return s.inline(n)
		}
		return s.link(s.inline(n), s.raw(n), string(n.Destination))
	case *ast.AutoLink:
		return s.autoLink(n)
	case *ast.RawHTML:
		return s.rawHTML(n)
	}
	return s.inline(n)
}

func (s *shaper) breakOf(n *ast.Text) string {
	switch {
	case n.HardLineBreak() && !s.plain:
		return "  \n"
	case n.HardLineBreak(), n.SoftLineBreak():
		return "\n"
	}
	return ""
}

func around(mark, words string) string {
	if words == "" {
		return ""
	}
	return mark + words + mark
}

func (s *shaper) emphasis(n *ast.Emphasis) string {
	words := s.inline(n)
	mark, at := "*", n.Pos()
	if at >= 0 && at < len(s.src) && s.src[at] == '_' {
		mark = "_"
	}
	if s.plain {
		if n.Level == 2 || at > 0 && isWord(rune(s.src[at-1])) {
			return around("*", words)
		}
		return around("_", words)
	}
	return around(strings.Repeat(mark, n.Level), words)
}

// raw is the text in a node, without any form.
func (s *shaper) raw(n ast.Node) string {
	var b strings.Builder
	_ = ast.Walk(n, func(c ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := c.(*ast.Text); ok && entering {
			b.Write(t.Segment.Value(s.src))
			if t.SoftLineBreak() || t.HardLineBreak() {
				b.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// code is a code span.
func (s *shaper) code(words string) string {
	words = strings.Join(strings.FieldsFunc(words, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	if strings.TrimSpace(words) == "" {
		return words
	}
	if s.plain {
		return "`" + escape(strings.ReplaceAll(words, "`", "'")) + "`"
	}
	mark := strings.Repeat("`", longest(backticks.FindAllString(words, -1), 1))
	if strings.HasPrefix(words, "`") || strings.HasSuffix(words, "`") || strings.HasPrefix(words, " ") && strings.HasSuffix(words, " ") {
		words = " " + words + " "
	}
	return mark + words + mark
}

var (
	entity  = regexp.MustCompile(`&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});`)
	escaped = regexp.MustCompile("\\\\([!-/:-@\\[-`{-~])")
)

// numbered writes an entity by its name where Slack knows it by that alone.
func numbered(entity string) string {
	switch html.UnescapeString(entity) {
	case "<":
		return "&lt;"
	case ">":
		return "&gt;"
	case "&":
		return "&amp;"
	}
	return entity
}

// words is text outside of code, as it stands in the source.
func (s *shaper) words(source string) string {
	if s.plain {
		return escape(entity.ReplaceAllStringFunc(escaped.ReplaceAllString(source, "$1"), html.UnescapeString))
	}
	source = entity.ReplaceAllStringFunc(source, func(m string) string {
		out := html.UnescapeString(m)
		switch {
		case out == m, strings.ContainsAny(out, "<>&"), strings.ContainsAny(out, "\r\n\t\x00"):
			return numbered(m)
		case len(out) == 1 && strings.ContainsAny(out, "\\`*_{}[]()#+-.!|~"):
			return `\` + out
		}
		return out
	})
	source = strings.ReplaceAll(source, `\<`, "<")
	return strings.ReplaceAll(source, "<", "&lt;")
}

// webLink are the targets that Slack makes links of.
var webLink = regexp.MustCompile(`^(?i:https?://|mailto:)[^\s]`)

// link writes a link. Where a link leads must not be hidden: neither one that nobody can follow from Slack, nor one whose text names another
// address.
func (s *shaper) link(label, raw, target string) string {
	target = strings.TrimSpace(target)
	raw = strings.Trim(strings.TrimSpace(raw), "`")
	switch {
	case target == "" || strings.HasPrefix(target, "#"):
		return label
	case !webLink.MatchString(target) && (raw == target || raw == ""):
		return s.code(target)
	case !webLink.MatchString(target):
		return label + " (" + s.code(clip(target, 300)) + ")"
	}
	target = safeURL(target)
	switch {
	case label == "" || raw == target:
		return s.target(target)
	case namesOther(raw, target):
		return s.code(raw) + " (" + s.target(target) + ")"
	case s.plain:
		return label + " (" + s.target(target) + ")"
	}
	return "[" + label + "](" + target + ")"
}

// target is an address that Slack makes a link of by itself.
func (s *shaper) target(address string) string {
	if s.plain {
		return escape(address)
	}
	if !webLink.MatchString(address) {
		return s.words(address)
	}
	return "[" + strings.ReplaceAll(markUp.ReplaceAllString(address, `\$0`), "<", "&lt;") + "](" + safeURL(address) + ")"
}

// markUp is what of an address would be taken for Markdown.
var markUp = regexp.MustCompile("[_*~\\[\\]`]")

// safeURL has nothing in it that would end a link or be taken for one of Slack's own forms.
func safeURL(address string) string {
	return strings.NewReplacer(" ", "%20", "(", "%28", ")", "%29", "<", "%3C", ">", "%3E", "|", "%7C", `"`, "%22", "\\", "%5C", "`", "%60",
		"\n", "", "\r", "", "\t", "%09").Replace(address)
}

var address = regexp.MustCompile(`(?i)^(?:[a-z][a-z0-9+.-]*://)?((?:[a-z0-9-]+\.)+[a-z]{2,})(?::\d+)?(?:[/?#]\S*)?$`)

// namesOther reports whether a link's text is an address, and of another host than the link leads to.
func namesOther(label, target string) bool {
	m := address.FindStringSubmatch(label)
	if m == nil {
		return false
	}
	if !strings.Contains(label, "://") && !strings.HasPrefix(strings.ToLower(label), "www.") && !strings.Contains(label, "/") {
		if ext := strings.ToLower(label[strings.LastIndexByte(label, '.')+1:]); !slices.Contains(domains(), ext) {
			return false // a file's name: main.go
		}
	}
	u, err := url.Parse(target)
	if err != nil {
		return true
	}
	host := func(h string) string { return strings.TrimPrefix(strings.ToLower(h), "www.") }
	return host(u.Hostname()) != host(m[1])
}

// domains are the ends of names that are read as an address also when nothing else says so.
func domains() []string {
	return []string{"com", "org", "net", "io", "dev", "app", "co", "ai", "de", "uk", "eu", "gov", "edu", "info", "example"}
}

func (s *shaper) autoLink(n *ast.AutoLink) string {
	label := string(n.Label(s.src))
	if n.AutoLinkType == ast.AutoLinkEmail || webLink.MatchString(string(n.URL(s.src))) {
		if s.plain {
			return escape(label)
		}
		if n.AutoLinkType == ast.AutoLinkEmail || strings.ContainsAny(label, "<>|`") {
			return s.words(label)
		}
		return label
	}
	return s.code(label)
}
