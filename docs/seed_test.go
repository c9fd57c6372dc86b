// Package docs holds tests that keep the documentation true.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSeedTable: every row of docs/seed.md names a test that exists.
func TestSeedTable(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("seed.md")
	if err != nil {
		t.Fatal(err)
	}
	have := tests(t)
	rows := 0
	name := regexp.MustCompile("`(Test[A-Za-z]+)`")
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| Seed") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		m := name.FindStringSubmatch(cells[len(cells)-1])
		switch {
		case m == nil:
			t.Errorf("no test in the row %s", cells[0])
		case !have[m[1]]:
			t.Errorf("%s, of the row %s, is nowhere", m[1], cells[0])
		}
	}
	if rows < 12 {
		t.Errorf("the table has %d rows, want at least 12", rows)
	}
}

// tests are the names of all tests of the module.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Test") {
				out[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
