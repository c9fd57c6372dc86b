package bot

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark/ast"
	gfm "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
)

func TestDisarm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"a broadcast":                 {"<!here> look", "<\u200b!here> look"},
		"a mention":                   {"ask <@U123>", "ask <\u200b@U123>"},
		"a channel":                   {"in <#C123|general>", "in <\u200b#C123|general>"},
		"a link under another name":   {"<https://evil.example|https://bank.example>", "<\u200bhttps://evil.example|https://bank.example>"},
		"a generic in code stays":     {"`List<String>`", "`List<String>`"},
		"a comparison stays":          {"a < b && c > d", "a < b && c > d"},
		"a quote stays":               {"> quoted", "> quoted"},
		"a link in Markdown stays":    {"[docs](https://example.com/?a=1&b=2)", "[docs](https://example.com/?a=1&b=2)"},
		"a broadcast in code as well": {"`<!channel>`", "`<\u200b!channel>`"},
		"a declaration stays":         {"<!DOCTYPE html> <!-- x --> <![CDATA[y]]>", "<!DOCTYPE html> <!-- x --> <![CDATA[y]]>"},
		"text that runs backwards":    {"a\u202egnp.exe", "agnp.exe"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := disarm(c.in); got != c.want {
				t.Errorf("disarm(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	t.Run("keeps a short answer whole", func(t *testing.T) {
		t.Parallel()
		in := "# Title\n\nText with `code`.\n\n```go\nx := 1\n\ny := 2\n```"
		if got := split(in); len(got) != 1 || got[0] != in {
			t.Errorf("split = %q, want it as it was", got)
		}
	})
	t.Run("an empty answer has no messages", func(t *testing.T) {
		t.Parallel()
		if got := split(" \n\n"); got != nil {
			t.Errorf("split = %q, want none", got)
		}
	})
	t.Run("cuts between paragraphs", func(t *testing.T) {
		t.Parallel()
		para := strings.Repeat("word ", 900)
		got := split(para + "\n\n" + para + "\n\n" + para)
		if len(got) != 2 || strings.Count(got[0], "word") != 1800 {
			t.Errorf("split into %d, the first with %d words; want 2, the first with 1800", len(got), strings.Count(got[0], "word"))
		}
	})
	t.Run("closes and opens a code block that it must cut", func(t *testing.T) {
		t.Parallel()
		got := split("```go\n" + strings.Repeat("line of code\n", 2000) + "```")
		if len(got) < 3 {
			t.Fatalf("split into %d, want at least 3", len(got))
		}
		for i, m := range got {
			if !strings.HasPrefix(m, "```go\n") || !strings.HasSuffix(m, "\n```") {
				t.Errorf("message %d = %.20q … %q, want a whole code block", i, m, m[len(m)-10:])
			}
		}
	})
	t.Run("a code block in a list is one, also where it is indented further", func(t *testing.T) {
		t.Parallel()
		block := "    ```go\n    x := 1\n\n    y := 2\n    ```"
		para := strings.Repeat("word ", 1999)
		got := split("- an entry:\n\n" + block + "\n\n" + para)
		if want := "- an entry:\n  ```go\n  x := 1\n\n  y := 2\n  ```"; len(got) != 2 || got[0] != want {
			t.Errorf("split = %.80q …, want the code block whole in the first of two", got)
		}
		long := "1. an entry:\n\n    ```go\n" + strings.Repeat("    line of code\n", 1500) + "    ```\n2. another"
		parts := split(long)
		for i, m := range parts[1:] {
			if !strings.HasPrefix(m, "```go\nline of code\n") {
				t.Errorf("message %d = %.40q, want a code block that is not indented", i+1, m)
			}
		}
		if last := parts[len(parts)-1]; !strings.HasSuffix(last, "\n```\n\n2. another") {
			t.Errorf("the last message ends with %q, want the next entry there", last[len(last)-40:])
		}
	})
	t.Run("a fence in indented code opens no code block", func(t *testing.T) {
		t.Parallel()
		in := "text\n\n    ```\n    not a fence\n\n" + strings.Repeat("word ", 1999)
		if got := split(in); len(got) != 2 || got[0] != "text\n\n````\n```\nnot a fence\n````" {
			t.Errorf("split = %.60q, want the code as it is, in the first of two", got)
		}
	})
	t.Run("a table is cut between rows, each part under its head", func(t *testing.T) {
		t.Parallel()
		head := "| n | what |\n|---|:---:|"
		rows := func(from, to int) (out string) {
			for i := from; i < to; i++ {
				out += fmt.Sprintf("\n| %d | x |", i)
			}
			return out
		}
		got := split("Results:\n" + head + rows(0, 250) + "\n\nThat is all.")
		want := []string{"Results:\n\n" + head + rows(0, 99), head + rows(99, 198), head + rows(198, 250) + "\n\nThat is all."}
		if !slices.Equal(got, want) {
			t.Errorf("split = %q, want %q", got, want)
		}
		wide := "| a | b |\n|---|---|\n" + strings.Repeat("| "+strings.Repeat("é", 3000)+" | b |\n", 7)
		parts := split(wide)
		if len(parts) != 3 {
			t.Errorf("split into %d, want 3", len(parts))
		}
		for i, m := range parts {
			if !strings.HasPrefix(m, "| a | b |\n|---|---|\n| é") || utf8.RuneCountInString(m) > maxMarkdown {
				t.Errorf("message %d = %.40q", i, m)
			}
		}
		if in := "| a | b |\n|---|---|\n| 1 | 2 |"; split(in)[0] != in {
			t.Errorf("split = %q, want it as it was", split(in))
		}
	})
	t.Run("many headings are more blocks than a message may have", func(t *testing.T) {
		t.Parallel()
		got := split(strings.Repeat("# heading\n", 60))
		if len(got) != 2 {
			t.Errorf("split into %d, want 2", len(got))
		}
	})
}

// FuzzSplit: every message stays within Slack's limits, nothing can ping, and no word is lost.
func FuzzSplit(f *testing.F) {
	for _, seed := range []string{
		"", "text", "```\ncode", "```" + strings.Repeat("x", 20000) + "\nbelow", "```ls``` lists\n\nmore", "~~~\na\n~~~\n\n<!here>",
		strings.Repeat("é", 25000), strings.Repeat("# h\n", 200), strings.Repeat("<!a", 6000), "````\n```\n````", "> a\n\n- b\n  - c",
		"a\n|x|\n|-|\n" + strings.Repeat("|e|\n", 300), "|x|\n|-|\n" + strings.Repeat("é", 12000), "- a\n\n      ```\n" + strings.Repeat("      x\n", 3000),
		strings.Repeat(">", 5000) + "e", strings.Repeat("- ", 3000) + "e", strings.Repeat("[", 5000), strings.Repeat("*e ", 5000), "> " + strings.Repeat("- e\n> ", 4000),
		"|e" + strings.Repeat("|x", 22) + "|\n|-" + strings.Repeat("|-", 22) + "|\n|", "$$\nx\n$$ $e_1$ \\(x\\)", "<b>e</b><T><!-- x -->&lt;!here&gt;", "[e](<!here>) ![x](y \"z\") [e]\n\n[e]: <!x>", "1. e\n" + strings.Repeat("   ```\n   <!x\n   ```\n", 800),
	} {
		f.Add(seed)
	}
	files, err := filepath.Glob("testdata/markdown/*.md")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(source))
	}
	f.Fuzz(func(t *testing.T, in string) {
		in = strings.ToValidUTF8(in, "")
		got := split(in)
		for i, m := range got {
			if n := utf8.RuneCountInString(m); n > maxMarkdown+200 || n == 0 {
				t.Fatalf("message %d has %d characters", i, n)
			}
			if n := blocksOf(m); n > maxBlocks {
				t.Fatalf("message %d makes %d blocks", i, n)
			}
			if slackForm.MatchString(m) {
				t.Fatalf("message %d can ping: %q", i, m)
			}
			if plain := plainText(m); strings.Contains(plain, "<") || (plain == "") != (strings.Trim(m, " \n") == "") && missing(plain, said(m)) != "" {
				t.Fatalf("message %d as plain text: %q", i, plain)
			}
		}
		if lost := missing(strings.Join(got, ""), said(nest(in))); lost != "" { // numbers at the edge are marks or text by that
			t.Fatalf("%q is lost, or out of its place, of %q: %q", lost, in, got)
		}
	})
}

// slackForm is what Slack would act on, told in other words than where it is disarmed.
var slackForm = regexp.MustCompile(`(?i)<(!(here|channel|everyone|group|subteam|date)|@[UWB][A-Z0-9]|#[CDG][A-Z0-9]|(https?|mailto|slack):[^<>\s]*\|)`)

// missing is the rest of the letters and digits of a text from the first on that does not stand in another in its place: there may be more, such as
// the head of a table that goes on.
func missing(have, text string) string {
	want := []rune(strings.Map(letterOrDigit, text))
	for _, r := range have {
		if len(want) > 0 && r == want[0] {
			want = want[1:]
		}
	}
	return string(want)
}

func letterOrDigit(r rune) rune {
	if unicode.IsLetter(r) || unicode.IsDigit(r) {
		return r
	}
	return -1
}

// said are the words of Markdown in their order: its text and its code, without targets of links, without HTML, and without the heads of tables: where
// a table is shown as a list they stand before each cell that has something in it.
func said(markdown string) string {
	src := []byte(markdown)
	var b strings.Builder
	_ = ast.Walk(newParser(true).Parse(text.NewReader(src)), func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *gfm.TableHeader:
			return ast.WalkSkipChildren, nil
		case *ast.Text:
			b.Write(n.Segment.Value(src))
		case *ast.AutoLink:
			b.Write(n.Label(src))
		case *ast.CodeBlock, *ast.FencedCodeBlock, *formula:
			b.Write(n.Lines().Value(src))
		}
		return ast.WalkContinue, nil
	})
	return entity.ReplaceAllString(b.String(), "")
}
