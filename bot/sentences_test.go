package bot

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// TestAllIsShown: everything that sentences.go has the bot say stands in the lists of TestMessages and TestViews, whose pictures are looked at:
// each constant, and each literal of each function, so each of its branches.
func TestAllIsShown(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, nil)
	said := &strings.Builder{}
	for _, list := range []any{w.messages(), w.modals()} {
		raw, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		texts(parse(t, raw), said)
	}
	for name, literals := range literalsOf(t, "sentences.go") {
		for _, l := range literals {
			for part := range strings.SplitSeq(verb.ReplaceAllString(l, "\x00"), "\x00") {
				if strings.ContainsFunc(part, unicode.IsLetter) && !strings.Contains(said.String(), part) {
					t.Errorf("%s says %q in no state of testdata/messages.json and views.json: add one", name, part)
				}
			}
		}
	}
}

// verb is a place in a format.
var verb = regexp.MustCompile(`%[-+#0-9.]*[a-z]`)

// texts writes all strings of a JSON value, a line each.
func texts(v any, to *strings.Builder) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			texts(v[k], to)
		}
	case []any:
		for _, e := range v {
			texts(e, to)
		}
	case string:
		to.WriteString(v + "\n")
	}
}

// toClaude are those of sentences.go that Claude is told, and nobody else.
var toClaude = []string{"goOn", "inRepo"} //nolint:gochecknoglobals // a table

// literalsOf are the literals of a file, by the constant or the function that holds them. What is only compared with something is left out.
func literalsOf(t *testing.T, file string) map[string][]string {
	t.Helper()
	parsed, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	collect := func(name string, in ast.Node) {
		ast.Inspect(in, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CaseClause:
				for _, s := range n.Body {
					out[name] = append(out[name], literalsIn(s)...)
				}
				return false
			case ast.Expr, *ast.ReturnStmt:
				out[name] = append(out[name], literalsIn(n)...)
				return false
			}
			return true
		})
	}
	for _, d := range parsed.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if !slices.Contains(toClaude, d.Name.Name) {
				collect(d.Name.Name, d.Body)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.ValueSpec); ok && !slices.Contains(toClaude, s.Names[0].Name) {
					for _, v := range s.Values {
						out[s.Names[0].Name] = append(out[s.Names[0].Name], literalsIn(v)...)
					}
				}
			}
		}
	}
	return out
}

// literalsIn are the literals of a node that may be said.
func literalsIn(n ast.Node) []string {
	var out []string
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CaseClause:
			for _, s := range n.Body {
				out = append(out, literalsIn(s)...)
			}
			return false
		case *ast.BinaryExpr:
			return n.Op == gotoken.ADD
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok {
				if p, ok := f.X.(*ast.Ident); ok && p.Name == "strings" && f.Sel.Name != "Join" && f.Sel.Name != "Replace" {
					return false
				}
			}
		case *ast.BasicLit:
			if n.Kind == gotoken.STRING {
				s, _ := strconv.Unquote(n.Value) // the compiler takes it
				out = append(out, s)
			}
		}
		return true
	})
	return out
}

// TestModalsAreListed: whatever makes a modal is in the list of TestViews.
func TestModalsAreListed(t *testing.T) {
	t.Parallel()
	// These choose among the modals of others.
	choosers := []string{"configOf", "laidOn"}
	w := newWorkspace(t, nil)
	listed := map[string]bool{}
	for name := range w.modals() {
		by, _, _ := strings.Cut(name, ", ")
		listed[by] = true
	}
	for _, file := range sources(t) {
		for _, d := range declsOf(t, file) {
			f, ok := d.(*ast.FuncDecl)
			if !ok || slices.Contains(choosers, f.Name.Name) || listed[f.Name.Name] {
				continue
			}
			makes := f.Type.Results != nil && names(f.Type.Results, "ModalViewRequest")
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CompositeLit); ok && c.Type != nil && names(c.Type, "ModalViewRequest") {
					makes = true
				}
				return true
			})
			if makes {
				t.Errorf("%s: %s makes a modal that is not in the list of TestViews: add its states", file, f.Name.Name)
			}
		}
	}
}

// names reports whether a node names something.
func names(in ast.Node, name string) bool {
	found := false
	ast.Inspect(in, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.Name == name {
			found = true
		}
		return true
	})
	return found
}

// sources are the files of the package without its tests.
func sources(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
}

func declsOf(t *testing.T, file string) []ast.Decl {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.ParseFile(gotoken.NewFileSet(), file, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Decls
}
