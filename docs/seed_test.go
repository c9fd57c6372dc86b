// Package docs holds tests that keep the documentation true.
package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestSeedTable: docs/seed.md has a row for all that the seed system promises, and every row names tests that exist.
func TestSeedTable(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("seed.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems(string(raw), tests(t, "..")) {
		t.Error(p)
	}
	firsts := strings.Join(firstCells(string(raw)), "\n")
	for _, name := range []string{
		"create_session", "run_session_turn", "destroy_session", "run_and_destroy", "ensure_app",
		"session_id", "machine_id", "volume_id", "app_name", "region", "created_at", "ttl_seconds", "expired", // Session
		"image", "claude_code_oauth_token", "github_username", "github_token", "prompt", "repos", "vm_size", "vm_cpus", "vm_memory_mb",
		"auto_destroy", "env", "metadata", "output_format", "volume_mount_path", // MachineConfig, beside those above
		"exit_code", "state", "destroyed", "workspace_files", // RunResult, beside machine_id
		"volume_size_gb",
	} {
		if !strings.Contains(firsts, "\n`"+name) {
			t.Errorf("no row is about %s", name)
		}
	}
	for _, note := range []string{"wake latency", "one prompt at a time", "TTL is a passive flag"} {
		if !strings.Contains(firsts, "\n"+note) {
			t.Errorf("no row is about this: %s", note)
		}
	}
}

// rows are the cells of the tables' rows, headings left out.
func rows(page string) [][]string {
	var out [][]string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| Seed") {
			out = append(out, strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"))
		}
	}
	return out
}

func firstCells(page string) []string {
	out := []string{""}
	for _, cells := range rows(page) {
		out = append(out, strings.TrimSpace(cells[0]))
	}
	return out
}

// problems says which rows name no test, or one that is not there.
func problems(page string, have map[string][]*subtests) []string {
	var out []string
	ref := regexp.MustCompile("`([^`]+)`")
	for _, cells := range rows(page) {
		named := ref.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(cells) != 3 || len(named) == 0 {
			out = append(out, fmt.Sprintf("the row %s has no test", cells[0]))
		}
		for _, m := range named {
			test, sub, _ := strings.Cut(m[1], "/")
			all, ok := have[test]
			switch {
			case !ok:
				out = append(out, fmt.Sprintf("%s, of the row %s, is nowhere", test, cells[0]))
			case sub != "" && !slices.ContainsFunc(all, func(s *subtests) bool { return s.has(sub) }):
				out = append(out, fmt.Sprintf("%s has no subtest %q, of the row %s", test, sub, cells[0]))
			}
		}
	}
	return out
}

// subtests are the strings of one test function that may name its subtests.
type subtests struct {
	names []string    // given to t.Run, or in a table
	ends  [][2]string // what stands before and after a name of the table, where t.Run is given name+": more"
}

func (s *subtests) has(name string) bool {
	if slices.Contains(s.names, name) {
		return true
	}
	return slices.ContainsFunc(s.ends, func(e [2]string) bool {
		rest, ok := strings.CutPrefix(name, e[0])
		if !ok {
			return false
		}
		rest, ok = strings.CutSuffix(rest, e[1])
		return ok && slices.Contains(s.names, rest)
	})
}

func TestSeedProblems(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "x_test.go", "package x\n"+
		"func TestA(t *testing.T) { t.Run(\"it works\", nil); println(\"said\"); for name := range map[string]int{\"one\": 1} { t.Run(name+\": more\", nil) } }\n"+
		"func TestB(t *testing.T) { for _, c := range []struct{ n string }{{\"two\"}, {n: \"three\"}} { t.Run(\"of \"+c.n, nil) } }\n"+
		"func helper() { t.Run(\"four\", nil) }\n", parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string][]*subtests{}
	collect(file, have)
	for cell, want := range map[string]string{
		"`TestA`":                           "",
		"`TestA`, `TestB`":                  "",
		"`TestA/it works`":                  "",
		"`TestA/one: more`":                 "",
		"`TestB/of two`":                    "",
		"`TestB/of three`":                  "",
		"":                                  "has no test",
		"TestA":                             "has no test",
		"`TestC`":                           "is nowhere",
		"`TestA`, `TestC`":                  "is nowhere",
		"`helper`":                          "is nowhere",
		"`TestA/four`":                      "no subtest",
		"`TestA/said`":                      "no subtest",
		"`TestA/it work`":                   "no subtest",
		"`TestA/one: less`":                 "no subtest",
		"`TestB/it works`":                  "no subtest",
		"`TestB/of four`":                   "no subtest",
		"`TestA/it works`, `TestA/is gone`": "no subtest",
	} {
		got := problems("| Seed system | Here | Test |\n|---|---|---|\n| a | b | "+cell+" |\n", have)
		if (want == "") != (len(got) == 0) || (want != "" && !strings.Contains(got[0], want)) {
			t.Errorf("a row with %s: problems = %q, want %q", cell, got, want)
		}
	}
}

// tests are all tests of the module below a folder, by name, with their subtests.
func tests(t *testing.T, dir string) map[string][]*subtests {
	t.Helper()
	out := map[string][]*subtests{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		collect(file, out)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// collect adds the tests of a file.
func collect(file *ast.File, out map[string][]*subtests) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil || f.Body == nil || !strings.HasPrefix(f.Name.Name, "Test") {
			continue
		}
		s := &subtests{}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Run" && len(n.Args) == 2 {
					s.named(n.Args[0])
				}
			case *ast.KeyValueExpr:
				s.add(n.Key)
				s.add(n.Value)
			case *ast.CompositeLit:
				for _, e := range n.Elts {
					s.add(e)
				}
			}
			return true
		})
		out[f.Name.Name] = append(out[f.Name.Name], s)
	}
}

// add adds a name if the expression is a string.
func (s *subtests) add(e ast.Expr) {
	if text, ok := literal(e); ok {
		s.names = append(s.names, text)
	}
}

// named adds what t.Run is given.
func (s *subtests) named(e ast.Expr) {
	s.add(e)
	if b, ok := e.(*ast.BinaryExpr); ok {
		before, isBefore := literal(b.X)
		after, isAfter := literal(b.Y)
		if isBefore || isAfter {
			s.ends = append(s.ends, [2]string{before, after})
		}
	}
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}
