package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
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

// TestLinks: every page and picture that a page leads to is there.
func TestLinks(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)\s]*)?\)`)
	for _, page := range append(pages, "../README.md") {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(raw), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s leads to %s: %v", page, m[1], err)
			}
		}
	}
}
