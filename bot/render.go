package bot

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// Limits of one message's Markdown. Slack documents 12,000 characters, and turns Markdown into at most 50 blocks.
const (
	maxMarkdown = 10000 // characters
	maxBlocks   = 40    // that Slack makes of it
	maxRows     = 99    // of a table, beside its head: Slack takes 100
	// maxAnswer is how much of an answer is looked at, in bytes: more than the messages that it may take can hold.
	maxAnswer = 4 * maxPartsNoFile * maxMarkdown
)

// liveForm are Slack's own forms: mentions, broadcasts, channels, dates, and links under another name.
var liveForm = regexp.MustCompile(`<(![a-zA-Z]+|@[A-Za-z0-9]|#[A-Z0-9]|[a-zA-Z][a-zA-Z0-9+.-]*:[^<>\s]*\|)`)

// declaration is what begins like a broadcast and is HTML or XML.
var declaration = regexp.MustCompile(`^<!(?i:doctype|element|attlist|entity|notation)$`)

// override turns the direction of text around, by which code can look like what it is not.
var override = regexp.MustCompile("[\u202d\u202e]")

// disarm lets nothing that Claude writes ping or forge: a zero-width space after < breaks Slack's own forms, in code
// and outside of it, and leaves all else as it was written.
func disarm(markdown string) string {
	return liveForm.ReplaceAllStringFunc(override.ReplaceAllString(markdown, ""), func(m string) string {
		if declaration.MatchString(m) {
			return m
		}
		return "<\u200b" + m[1:]
	})
}

// split makes the messages of an answer, cut between blocks where it can. A code block that must be cut is closed and opened again in its
// language, a table has its head again, a list is cut between its entries. An empty text has no messages.
func split(markdown string) []string {
	if len(markdown) > maxAnswer {
		markdown = strings.ToValidUTF8(markdown[:maxAnswer], "")
	}
	p := packer{}
	for _, u := range shape(markdown, false) {
		for i, piece := range u.cut(maxMarkdown) {
			piece = disarm(piece)
			if !p.fits(piece) || i > 0 && len(u.inner) == 0 { // the parts of one are not shown one below the other
				p.flush()
			}
			p.add(piece)
		}
	}
	p.flush()
	return p.out
}

// fits reports whether a text can be posted in one message, by Slack's limits and a smaller one.
func fits(text string, limit int) bool {
	return sizeOf(text) <= limit && blocksOf(text) <= maxBlocks
}

// cut cuts a block into parts of at most so many characters.
func (u unit) cut(limit int) []string {
	if fits(u.text, limit) && (u.kind != kindTable || len(u.lines) <= maxRows) {
		return []string{u.text}
	}
	switch u.kind {
	case kindCode:
		if parts := u.cutLines(limit, 1<<20); parts != nil {
			return parts
		}
	case kindTable:
		if parts := u.cutLines(limit, maxRows); parts != nil {
			return parts
		}
	case kindList:
		return u.cutInner("\n", limit, func(s string) string { return s })
	case kindItem:
		if len(u.inner) > 0 {
			return u.cutInner("\n\n", limit, func(s string) string { return s })
		}
	case kindQuote:
		if len(u.inner) > 0 && limit > 200 {
			return u.cutInner("\n\n", limit, inQuote)
		}
	case kindText, kindHeading:
	}
	return cutText(u.text, limit)
}

// cutLines cuts a code block between lines, or a table between rows, each part under its head. nil: a row is too long for that.
func (u unit) cutLines(limit, most int) []string {
	var out, part []string
	room := limit - sizeOf(u.wrap(nil)) - 1
	left := room
	for _, line := range u.lines {
		size := sizeOf(line) + 1
		if len(part) > 0 && (size > left || len(part) == most) {
			out, part, left = append(out, u.wrap(part)), nil, room
		}
		if size > room && u.kind == kindTable {
			return nil
		}
		for _, piece := range cutText(line, room-1) {
			if len(part) > 0 && sizeOf(piece)+1 > left {
				out, part, left = append(out, u.wrap(part)), nil, room
			}
			part = append(part, piece)
			left -= sizeOf(piece) + 1
		}
		if line == "" {
			part, left = append(part, line), left-1
		}
	}
	return append(out, u.wrap(part))
}

// sizeOf is how many characters a text may have when it is posted: each < may get one more, see [disarm].
func sizeOf(text string) int { return utf8.RuneCountInString(text) + strings.Count(text, "<") }

// cutInner cuts between the blocks that are in this one, and cuts those as well where it must.
func (u unit) cutInner(apart string, limit int, dress func(string) string) []string {
	var out, part []string
	size, blocks := 0, 0
	flush := func() {
		if len(part) > 0 {
			out = append(out, dress(strings.Join(part, apart)))
		}
		part, size, blocks = nil, 0, 0
	}
	for _, in := range u.inner {
		dressed := dress(in.text)
		more, starts := sizeOf(dressed)+2*len(apart), blocksOf(dressed)
		if size+more > limit || blocks+starts > maxBlocks {
			flush()
		}
		if apart == "\n" { // entries of a list are in one block
			starts--
		}
		if fits(dressed, limit) {
			part, size, blocks = append(part, in.text), size+more, blocks+starts
			continue
		}
		for smaller := limit - 2; ; smaller /= 2 { // what a quote is dressed in makes it longer
			pieces := in.cut(smaller)
			if all(pieces, func(p string) bool { return fits(dress(p), limit) }) || smaller < 100 {
				for _, p := range pieces {
					out = append(out, dress(p))
				}
				break
			}
		}
	}
	flush()
	return out
}

func all(list []string, ok func(string) bool) bool {
	for _, s := range list {
		if !ok(s) {
			return false
		}
	}
	return true
}

// cutText cuts text, at line ends where it can.
func cutText(text string, limit int) []string {
	var out []string
	for text != "" {
		piece := head(text, limit-strings.Count(head(text, limit), "<"))
		for blocksOf(piece) > maxBlocks {
			piece = head(piece, utf8.RuneCountInString(piece)/2)
		}
		out = append(out, piece)
		text = strings.TrimPrefix(text[len(piece):], "\n")
	}
	return out
}

// head is the beginning of text, at most n runes, at a line's end if there is one in its second half.
func head(text string, n int) string {
	n = max(n, 1)
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

// fenced is a code block, which is one block whatever is in it.
var fenced = regexp.MustCompile("(?ms)^[> ]*(?:[-*+•]|\\d+[.)])? *```.*?^[> ]*```+$")

// blocksOf estimates how many blocks Slack makes of a text: one after each blank line, and one of each code block.
func blocksOf(text string) int {
	n, blank := 0, true
	for line := range strings.SplitSeq(fenced.ReplaceAllString(text, "```"), "\n") {
		words := strings.Trim(line, "> ")
		if words == "" {
			blank = true
			continue
		}
		if blank || strings.HasPrefix(words, "```") {
			n++
		}
		blank = false
	}
	return max(n, 1)
}

// packer fills messages.
type packer struct {
	out    []string
	now    strings.Builder
	size   int
	blocks int
}

func (p *packer) fits(piece string) bool {
	return p.size == 0 || p.size+utf8.RuneCountInString(piece)+2 <= maxMarkdown && p.blocks+blocksOf(piece) <= maxBlocks
}

func (p *packer) add(piece string) {
	if p.size > 0 {
		p.now.WriteString("\n\n")
	}
	p.now.WriteString(piece)
	p.size += utf8.RuneCountInString(piece) + 2
	p.blocks += blocksOf(piece)
}

func (p *packer) flush() {
	if p.size > 0 {
		p.out = append(p.out, p.now.String())
	}
	*p = packer{out: p.out}
}
