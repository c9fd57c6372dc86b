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
		"sessions":   {"queue", "fly", "runner"},
		"bot":        {"sessions", "runner"},
		"monitor":    {"bot", "sessions", "queue", "fly"},
		"doctor":     {"sessions", "queue", "fly", "runner"},
		"local/edge": {}, "local/port": {}, "local/chromium": {},
		"local/redis": {}, "local/slack": {"local/edge"}, "local/fly": {"local/edge"}, "local/claude": {"local/edge"}, "local/forge": {"local/edge"},
		"tools/testall": {},
		"bench":         {"queue", "fly", "runner", "sessions", "local/port", "local/claude"},
		"cmd/flaudebot": {"monitor", "doctor", "bot", "sessions", "queue", "fly", "runner", "deploy", "local/slack", "local/fly", "local/claude", "local/forge", "local/redis"},
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
		for _, f := range serial(file) {
			if strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s: %s does not begin with t.Parallel()", name, f)
			}
		}
	})
}

func TestSerial(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body string
		ok   bool
	}{
		"a test that begins with t.Parallel is parallel":        {"t.Parallel(); t.Log(1)", true},
		"a test without a body is not":                          {"", false},
		"a test that does something else first is not":          {"t.Log(1); t.Parallel()", false},
		"a test that calls something else named so is not":      {"other.Parallel()", false},
		"a test that sets the environment may not be":           {`t.Setenv("A", "b")`, true},
		"a test that changes the directory may not be":          {`x := 1; _ = x; t.Chdir("/")`, true},
		"a test whose subtest sets the environment may not be":  {`t.Run("x", func(t *testing.T) { t.Setenv("A", "b") })`, true},
		"a test that declares something first is not":           {"x := 1; _ = x", false},
		"a test that sets something of another name is no case": {`other.Setenv("A", "b")`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := "package p\nfunc TestX(t *testing.T) {" + tt.body + "}\n" +
				"func TestMain(m *testing.M) {}\nfunc (s suite) TestY() {}\nfunc Test(t *testing.T)\n"
			file, err := parser.ParseFile(token.NewFileSet(), "p_test.go", src, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"Test"} // a declaration alone is not parallel either
			if !tt.ok {
				want = []string{"TestX", "Test"}
			}
			if got := serial(file); !slices.Equal(got, want) {
				t.Errorf("serial = %v, want %v", got, want)
			}
		})
	}
}

// serial names the tests of a file that do not begin with t.Parallel, those left out that may not: the testing package forbids
// it together with Setenv and Chdir.
func serial(file *ast.File) []string {
	var out []string
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" {
			continue
		}
		parallel := false
		if f.Body != nil {
			if len(f.Body.List) > 0 {
				first, ok := f.Body.List[0].(*ast.ExprStmt)
				parallel = ok && callOfT(first.X, "Parallel")
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				parallel = parallel || ok && callOfT(e, "Setenv", "Chdir")
				return true
			})
		}
		if !parallel {
			out = append(out, f.Name.Name)
		}
	}
	return out
}

// callOfT says whether e calls one of the methods of t.
func callOfT(e ast.Expr, methods ...string) bool {
	c, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "t" && slices.Contains(methods, s.Sel.Name)
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
