package bot

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryone keeps that every message, in every state, is for everyone: whoever sees no blocks reads the same words in its text, what a mark
// or a colour says is said in words as well, times are in the reader's own zone, and nobody is blamed.
func TestEveryone(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("testdata", "messages.json"))
	if err != nil {
		t.Fatal(err)
	}
	var states map[string][]struct {
		Text   string           `json:"text"`
		Blocks []map[string]any `json:"blocks"`
	}
	if err := json.Unmarshal(raw, &states); err != nil {
		t.Fatal(err)
	}
	for name, messages := range states {
		for _, m := range messages {
			for _, wrong := range unfair(m.Text, m.Blocks) {
				t.Errorf("%s: %s\n%s", name, wrong, m.Text)
			}
		}
	}
	t.Run("sees what is missing", func(t *testing.T) {
		t.Parallel()
		section := func(text string) []map[string]any {
			return []map[string]any{{"type": "section", "text": map[string]any{"type": "mrkdwn", "text": text}}}
		}
		for text, blocks := range map[string][]map[string]any{
			"": section("Done"), "Done": section("Done, and more"), ":tada:": section(":tada:"), "✅ ❌": nil, "At 2026-05-04 03:02 it ends": nil, "You did it wrong": nil,
			"<!here> it is done": nil,
		} {
			if len(unfair(text, blocks)) == 0 {
				t.Errorf("%q passes", text)
			}
		}
	})
}

var (
	aWord     = regexp.MustCompile(`\pL[\pL\pN]*`)
	shortcode = regexp.MustCompile(`:[a-z0-9_+-]+:`)
	slackDate = regexp.MustCompile(`<!date\^\d+\^[^|>]*\|[^>]*>`)
	broadcast = regexp.MustCompile(`<!(?:here|channel|everyone|subteam)`)
	zoneless  = regexp.MustCompile(`\d{4}-\d\d-\d\d|\b\d\d:\d\d\b`)
	blame     = regexp.MustCompile(`(?i)\b(?:wrong|invalid|illegal|you (?:must|did|forgot|failed)|your (?:mistake|fault|error))\b`)
	// shortened is where the list of states leaves out the middle of a long text.
	shortened = regexp.MustCompile(`… \(\d+ characters\) …`)
)

// unfair tells what of a message is not for everyone.
func unfair(text string, blocks []map[string]any) []string {
	var out []string
	said := strings.ToLower(text)
	if len(aWord.FindAllString(shortcode.ReplaceAllString(text, ""), -1)) == 0 {
		out = append(out, "its text has no words")
	}
	if broadcast.MatchString(text) {
		out = append(out, "it pings everybody")
	}
	if zoneless.MatchString(slackDate.ReplaceAllString(text, "")) {
		out = append(out, "it has a time in one zone only")
	}
	if m := blame.FindString(text); m != "" {
		out = append(out, "it blames: "+m)
	}
	if shortened.MatchString(text) {
		return out
	}
	for _, b := range blocks {
		for _, shown := range wordsOf(b) {
			for _, w := range aWord.FindAllString(shortcode.ReplaceAllString(shown, ""), -1) {
				if !strings.Contains(said, strings.ToLower(w)) {
					out = append(out, "its text does not say "+w)
				}
			}
		}
	}
	return out
}

// wordsOf are the texts that a block shows. What a button says stands on it alone: the text tells what there is to do, where that matters.
func wordsOf(block map[string]any) []string {
	var out []string
	add := func(v any) {
		if o, ok := v.(map[string]any); ok {
			if s, ok := o["text"].(string); ok && o["type"] != "button" {
				out = append(out, s)
			}
		}
	}
	switch block["type"] {
	case "markdown":
		out = append(out, block["text"].(string))
	case "section", "header":
		add(block["text"])
		fields, _ := block["fields"].([]any)
		for _, f := range fields {
			add(f)
		}
	case "context":
		elements, _ := block["elements"].([]any)
		for _, e := range elements {
			add(e)
		}
	}
	return out
}

// TestSentences keeps that what people read stands in sentences.go, where it is read side by side; what Claude is told stands where it is
// put together, and the hints of a form beside its fields.
func TestSentences(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	sentence := regexp.MustCompile(`^([A-Z_*“].*\s.*[.?!:_*]|[A-Z“…][a-z']*( [a-z'“]+){3,})$`)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || slices.Contains([]string{"sentences.go", "prompt.go", "context.go", "config_fields.go"}, name) {
			continue
		}
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "Errorf" || f.Sel.Name == "New" || strings.HasSuffix(f.Sel.Name, "Context")) {
					return false // of an error, or of the log
				}
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != gotoken.STRING {
				return true
			}
			if words, err := strconv.Unquote(lit.Value); err == nil && sentence.MatchString(strings.TrimSpace(words)) {
				t.Errorf("%s says %q", name, words)
			}
			return true
		})
	}
}
