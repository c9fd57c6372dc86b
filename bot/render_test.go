package bot

import (
	"strings"
	"testing"
	"unicode/utf8"
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
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		in = strings.ToValidUTF8(in, "")
		got := split(in)
		for i, m := range got {
			if n := utf8.RuneCountInString(m); n > maxMarkdown+200 || n == 0 {
				t.Fatalf("message %d has %d characters", i, n)
			}
			if liveForm.MatchString(m) {
				t.Fatalf("message %d can ping: %q", i, m)
			}
		}
		letters := func(s string) int { return strings.Count(s, "e") + strings.Count(s, "x") + strings.Count(s, "é") }
		if have, want := letters(strings.Join(got, "")), letters(in); have < want {
			t.Fatalf("%d letters of %d are left", have, want)
		}
	})
}
