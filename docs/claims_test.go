package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestClaims: every test that a page names is there. Fuzz tests are looked for as text.
func TestClaims(t *testing.T) {
	t.Parallel()
	have := tests(t, "..")
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../README.md")
	name := regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z]*)(?:/[^`]*)?`")
	named := 0
	for _, page := range pages {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllStringSubmatch(string(raw), -1) {
			named++
			if strings.HasPrefix(m[1], "Fuzz") {
				if !fuzzed(t, m[1]) {
					t.Errorf("%s names %s, which is nowhere", page, m[1])
				}
			} else if len(have[m[1]]) == 0 {
				t.Errorf("%s names %s, which is nowhere", page, m[1])
			}
		}
	}
	if named < 50 {
		t.Errorf("%d tests are named in %d pages: they are not read well", named, len(pages))
	}
}

func fuzzed(t *testing.T, name string) bool {
	t.Helper()
	files, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "func "+name+"(") {
			return true
		}
	}
	return false
}

// TestLinks: every page, section and picture that a page leads to is there.
func TestLinks(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]+))?\)`)
	sections := 0
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		for _, m := range link.FindAllStringSubmatch(text(t, page), -1) {
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s leads to %s: %v", page, m[1], err)
				continue
			}
			if m[2] == "" {
				continue
			}
			if sections++; !slices.Contains(anchors(text(t, to)), m[2]) {
				t.Errorf("%s leads to #%s of %s, which has no such section", page, m[2], to)
			}
		}
	}
	if sections < 50 {
		t.Errorf("%d links lead to a section: the pages are not read well", sections)
	}
}

func text(t *testing.T, page string) string {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// anchors are the names by which a page's sections are linked to.
func anchors(page string) []string {
	var out []string
	odd := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(page, -1) {
		out = append(out, strings.ReplaceAll(odd.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

// TestThreatModel: each threat names the tests that show what holds it, or says that nothing does; and it says what does not hold.
func TestThreatModel(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "\n## Threat model\n")
	section, _, _ := strings.Cut(after, "\n## ")
	test := regexp.MustCompile("^(`(Test|Fuzz)[A-Z][A-Za-z]*`(, )?)+$")
	threats := 0
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| Threat |") {
			continue
		}
		threats++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 4 {
			t.Errorf("%d cells, want threat, what holds, what does not, tests: %s", len(cells), line)
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch threat, holds, not, tests := cells[0], cells[1], cells[2], cells[3]; {
		case threat == "" || holds == "":
			t.Errorf("a threat, or what holds it, is missing: %s", line)
		case strings.HasPrefix(holds, "nothing"):
			if tests != "" {
				t.Errorf("%s: nothing holds it, and %s shows that", threat, tests)
			}
		case not == "":
			t.Errorf("%s: what does not hold is missing", threat)
		case !test.MatchString(tests):
			t.Errorf("%s: no test is named in %q", threat, tests)
		}
	}
	if threats < 10 {
		t.Errorf("%d threats: the table is not read well", threats)
	}
}
