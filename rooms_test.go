package flaudebot_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRooms keeps the architecture: who may import whom of our packages, tests left out.
func TestRooms(t *testing.T) {
	t.Parallel()
	may := map[string][]string{
		"queue": {}, "fly": {}, "runner": {}, "deploy": {},
		"sessions":    {"queue", "fly", "runner"},
		"bot":         {"sessions", "runner"},
		"local/edge":  {},
		"local/redis": {}, "local/slack": {"local/edge"}, "local/fly": {"local/edge"}, "local/claude": {"local/edge"},
		"cmd/flaudebot": {"bot", "sessions", "queue", "fly", "runner", "deploy", "local/slack", "local/fly", "local/claude", "local/redis"},
	}
	eachFile(t, func(room, name string, file *ast.File) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		allowed, known := may[room]
		if !known {
			t.Errorf("%s: the room %s is not in the table", name, room)
			return
		}
		for _, imp := range file.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			if ours, ok := strings.CutPrefix(path, "flaudebot/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: %s may import %v", name, ours, room, allowed)
			}
		}
	})
}

// TestParallel keeps tests fast, and independent of each other.
func TestParallel(t *testing.T) {
	t.Parallel()
	eachFile(t, func(_, name string, file *ast.File) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasSuffix(name, "_test.go") || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" || f.Recv != nil {
				continue
			}
			call, ok := f.Body.List[0].(*ast.ExprStmt)
			if !ok || !strings.Contains(text(call.X), "Parallel") {
				t.Errorf("%s: %s does not begin with t.Parallel()", name, f.Name.Name)
			}
		}
	})
}

func text(e ast.Expr) string {
	if c, ok := e.(*ast.CallExpr); ok {
		if s, ok := c.Fun.(*ast.SelectorExpr); ok {
			return s.Sel.Name
		}
	}
	return ""
}

func eachFile(t *testing.T, do func(room, name string, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		room := filepath.ToSlash(filepath.Dir(path))
		if !strings.HasSuffix(path, ".go") || room == "." || room == "docs" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		do(room, path, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
