package bot

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of one message's Markdown. Slack documents 12,000 characters, and turns Markdown into at most 50 blocks.
const (
	maxMarkdown = 10000 // characters
	maxBlocks   = 40    // that Slack makes of it
	maxRows     = 99    // of a table, beside its head: Slack takes 100
)

// live forms of Slack's text: mentions, broadcasts, channels, dates, and links under another name.
var liveForm = regexp.MustCompile(`<([!@#]|[a-zA-Z][a-zA-Z0-9+.-]*:[^<>\s]*\|)`)

// disarm lets nothing that Claude writes ping or forge: a zero-width space after < breaks Slack's own forms, in code
// and outside of it, and leaves all else as it was written.
func disarm(markdown string) string {
	return liveForm.ReplaceAllString(markdown, "<\u200b$1")
}

// split cuts Markdown into messages, between paragraphs where it can. A code block that must be cut is closed and
// opened again, and a table has its head again. An empty text has no messages.
func split(markdown string) []string {
	markdown = disarm(markdown)
	if strings.TrimSpace(markdown) == "" {
		return nil
	}
	var out []string
	p := packer{}
	for _, para := range paragraphs(markdown) {
		for i, piece := range para.cut() {
			if !p.fits(piece) || i > 0 { // the parts of one are not shown one below the other
				out = append(out, p.take())
			}
			p.add(piece)
		}
	}
	return append(out, p.take())
}

// paragraph is text without a blank line, a whole code block, or a whole table.
type paragraph struct {
	text  string
	fence string // the opening line of a code block; "": none
	head  string // the first two lines of a table; "": none
}

// fenceLine opens a code block; after backticks the rest of the line holds none (CommonMark). It may be indented by three spaces, and in a list by
// as much as its entry.
var fenceLine = regexp.MustCompile("^( *)(```+[^`]*|~~~+.*)$")

// fenceMark is what such a line begins with, and what closes the block.
var fenceMark = regexp.MustCompile("^ *(```+|~~~+)")

// maxIndent is how far a fence may be indented outside of lists: above it is text of a code block of the other kind.
const maxIndent = 3

var (
	listEntry = regexp.MustCompile(`^\s*([-*+]|\d{1,9}[.)])\s`)
	// tableRule is the second line of a table (GitHub Flavored Markdown).
	tableRule = regexp.MustCompile(`^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$`)
)

// maxInfo bounds a fence's opening line, in characters: a language, not a novel.
const maxInfo = 60

// paragraphs cuts at blank lines outside of code blocks.
func paragraphs(markdown string) []paragraph {
	var out []paragraph
	var lines []string
	open, mark := "", ""
	inList, blank := false, true // the line before
	flush := func(fence string) {
		if text := strings.Join(lines, "\n"); strings.TrimSpace(text) != "" {
			out = append(out, table(text, fence)...)
		}
		lines = nil
	}
	for line := range strings.SplitSeq(markdown, "\n") {
		m := fenceMark.FindStringSubmatch(line)
		if open == "" && strings.TrimSpace(line) != "" {
			inList = listEntry.MatchString(line) || inList && (!blank || strings.HasPrefix(line, " "))
		}
		blank = strings.TrimSpace(line) == ""
		switch {
		case open == "" && opensFence(line, inList):
			flush("")
			open, mark = line, m[1]
			lines = append(lines, line)
		case open != "" && m != nil && strings.HasPrefix(m[1], mark) && strings.TrimSpace(line) == m[1]:
			lines = append(lines, line)
			flush(open)
			open = ""
		case open == "" && strings.TrimSpace(line) == "":
			flush("")
		default:
			lines = append(lines, line)
		}
	}
	if open != "" { // Claude was cut short
		lines = append(lines, mark)
	}
	flush(open)
	return out
}

func opensFence(line string, inList bool) bool {
	m := fenceLine.FindStringSubmatch(line)
	return m != nil && (inList || len(m[1]) <= maxIndent) && utf8.RuneCountInString(line) <= maxInfo
}

// table is a paragraph, or the text before a table and the table.
func table(text, fence string) []paragraph {
	if fence != "" {
		return []paragraph{{text: text, fence: fence}}
	}
	lines := strings.Split(text, "\n")
	for i := 1; i < len(lines); i++ {
		if !strings.Contains(lines[i-1], "|") || !strings.Contains(lines[i], "|") || !tableRule.MatchString(lines[i]) {
			continue
		}
		out := []paragraph{{text: strings.Join(lines[i-1:], "\n"), head: lines[i-1] + "\n" + lines[i]}}
		if i > 1 {
			out = append([]paragraph{{text: strings.Join(lines[:i-1], "\n")}}, out...)
		}
		return out
	}
	return []paragraph{{text: text}}
}

// cutTable cuts a table that is too long for a message, between rows, each part under its head.
func (p paragraph) cutTable() []string {
	var out []string
	part, rows := p.head, 0
	for row := range strings.SplitSeq(strings.TrimPrefix(p.text, p.head+"\n"), "\n") {
		if rows > 0 && (rows == maxRows || utf8.RuneCountInString(part)+utf8.RuneCountInString(row) >= maxMarkdown) {
			out = append(out, part)
			part, rows = p.head, 0
		}
		part, rows = part+"\n"+row, rows+1
	}
	return append(out, part)
}

// cut cuts a paragraph that is too long for a message by itself, at line ends where it can.
func (p paragraph) cut() []string {
	if p.head != "" && (utf8.RuneCountInString(p.text) > maxMarkdown || strings.Count(p.text, "\n") > maxRows) {
		if parts := p.cutTable(); !slices.ContainsFunc(parts, func(s string) bool { return utf8.RuneCountInString(s) > maxMarkdown }) {
			return parts
		}
	}
	if utf8.RuneCountInString(p.text) <= maxMarkdown && blocksOf(p.text) <= maxBlocks {
		return []string{p.text}
	}
	closing := ""
	body := p.text
	if p.fence != "" {
		p.text, p.fence = dedent(p.text, p.fence)
		closing = fenceMark.FindStringSubmatch(p.fence)[1]
		body = strings.TrimSuffix(strings.TrimPrefix(p.text, p.fence+"\n"), closing)
		body = strings.TrimSuffix(body, "\n")
	}
	var out []string
	for body != "" {
		piece := head(body, maxMarkdown-utf8.RuneCountInString(p.fence)-len(closing)-2)
		if p.fence == "" {
			piece = headBlocks(piece)
		}
		body = strings.TrimPrefix(body[len(piece):], "\n")
		if p.fence != "" {
			piece = p.fence + "\n" + piece + "\n" + closing
		}
		out = append(out, piece)
	}
	return out
}

// dedent takes the indentation of a fence off a code block: what is cut out of a list does not belong to it any more.
func dedent(text, fence string) (string, string) {
	bare := strings.TrimLeft(fence, " ")
	indent := fence[:len(fence)-len(bare)]
	if indent == "" {
		return text, fence
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		for range indent {
			line = strings.TrimPrefix(line, " ")
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n"), bare
}

// head is the beginning of text, at most n runes, at a line's end if there is one in its second half.
func head(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	end := 0
	for range n {
		_, size := utf8.DecodeRuneInString(text[end:])
		end += size
	}
	if i := strings.LastIndexByte(text[:end], '\n'); i > end/2 {
		return text[:i]
	}
	return text[:end]
}

// headBlocks is the beginning of text that Slack makes no more blocks of than a message may have.
func headBlocks(text string) string {
	starts := blockStarts.FindAllStringIndex(text, -1)
	if len(starts) < maxBlocks {
		return text
	}
	return strings.TrimSuffix(text[:starts[maxBlocks-1][0]], "\n")
}

// packer fills one message.
type packer struct {
	parts  []string
	size   int
	blocks int
}

// blockStarts are lines that Slack makes blocks of their own of.
var blockStarts = regexp.MustCompile(`(?m)^#{1,6} `)

func blocksOf(piece string) int { return 1 + len(blockStarts.FindAllStringIndex(piece, -1)) }

func (p *packer) fits(piece string) bool {
	return len(p.parts) == 0 || (p.size+utf8.RuneCountInString(piece)+2 <= maxMarkdown && p.blocks+blocksOf(piece) <= maxBlocks)
}

func (p *packer) add(piece string) {
	p.parts = append(p.parts, piece)
	p.size += utf8.RuneCountInString(piece) + 2
	p.blocks += blocksOf(piece)
}

func (p *packer) take() string {
	out := strings.Join(p.parts, "\n\n")
	*p = packer{}
	return out
}
