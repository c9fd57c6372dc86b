package bot

import (
	"bytes"
	"regexp"

	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// newParser parses CommonMark with GitHub's tables, task lists, strikethrough and bare addresses, and TeX's formulas; without what is
// within a paragraph, if it is to find blocks only.
func newParser(whole bool) parser.Parser {
	var within []util.PrioritizedValue
	if whole {
		within = append(parser.DefaultInlineParsers(),
			util.Prioritized(formulaParser{}, 150), util.Prioritized(extension.NewStrikethroughParser(), 500),
			util.Prioritized(extension.NewTaskCheckBoxParser(), 0), util.Prioritized(extension.NewLinkifyParser(), 999))
	}
	return parser.NewParser(
		parser.WithBlockParsers(append(parser.DefaultBlockParsers(), util.Prioritized(formulaParser{}, 150))...),
		parser.WithInlineParsers(within...),
		parser.WithParagraphTransformers(append(parser.DefaultParagraphTransformers(), util.Prioritized(extension.NewTableParagraphTransformer(), 200))...),
		parser.WithASTTransformers(util.Prioritized(extension.NewTableASTTransformer(), 0)),
	)
}

// formula is one between $$ or \[ and \] on lines of their own. Slack shows none, so it is shown as it is written: marks in it are not Markdown.
type formula struct {
	ast.BaseBlock
	closing string
}

// Kind is that of code, for whoever asks: it is told apart by its type.
func (*formula) Kind() ast.NodeKind              { return ast.KindCodeBlock }
func (*formula) IsRaw() bool                     { return true }
func (n *formula) Dump(source []byte, level int) { ast.DumpHelper(n, source, level, nil, nil) }

// formulaParser finds formulas: as blocks, and within a line between $, \( and \).
type formulaParser struct{}

func (formulaParser) Trigger() []byte { return []byte{'$', '\\'} }

func (formulaParser) Open(_ ast.Node, reader text.Reader, _ parser.Context) (ast.Node, parser.State) {
	line, _ := reader.PeekLine()
	switch string(bytes.TrimSpace(line)) {
	case "$$":
		reader.AdvanceToEOL()
		return &formula{closing: "$$"}, parser.NoChildren
	case `\[`:
		reader.AdvanceToEOL()
		return &formula{closing: `\]`}, parser.NoChildren
	}
	return nil, parser.NoChildren
}

func (formulaParser) Continue(n ast.Node, reader text.Reader, _ parser.Context) parser.State {
	line, seg := reader.PeekLine()
	if f, ok := n.(*formula); ok && string(bytes.TrimSpace(line)) == f.closing {
		reader.AdvanceToEOL()
		return parser.Close
	}
	n.Lines().Append(seg)
	reader.AdvanceToEOL()
	return parser.Continue | parser.NoChildren
}

func (formulaParser) Close(ast.Node, text.Reader, parser.Context) {}
func (formulaParser) CanInterruptParagraph() bool                 { return true }
func (formulaParser) CanAcceptIndentedLine() bool                 { return false }

// A formula between single $ has a mark of TeX in it, or is one letter: others are prices and shell variables.
var (
	texInline = regexp.MustCompile(`^\\\((.+?)\\\)`)
	texDouble = regexp.MustCompile(`^\$\$([^$\n]+)\$\$`)
	texSingle = regexp.MustCompile("^\\$([A-Za-z]|[^\\s$`](?:[^$`\\n]*[\\\\^_={}+][^$`\\n]*)?[^\\s$`])\\$(?:[^A-Za-z0-9$]|$)")
	texMark   = regexp.MustCompile(`^[A-Za-z]$|[\\^_={}+]`)
)

// Parse finds one within a line.
func (formulaParser) Parse(_ ast.Node, block text.Reader, _ parser.Context) ast.Node {
	line, seg := block.PeekLine()
	var m []int
	switch before := block.PrecendingCharacter(); {
	case line[0] == '\\':
		m = texInline.FindSubmatchIndex(line)
	case bytes.HasPrefix(line, []byte("$$")):
		m = texDouble.FindSubmatchIndex(line)
	case before != '$' && before != '\\' && !isWord(before):
		if m = texSingle.FindSubmatchIndex(line); m != nil && !texMark.Match(line[m[2]:m[3]]) {
			m = nil
		}
	}
	if m == nil {
		return nil
	}
	end := m[3] + 1
	if line[0] == '\\' || bytes.HasPrefix(line, []byte("$$")) {
		end++
	}
	block.Advance(end)
	span := ast.NewCodeSpan()
	span.AppendChild(span, ast.NewRawTextSegment(text.NewSegment(seg.Start+m[2], seg.Start+m[3])))
	return span
}

func isWord(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '_'
}
