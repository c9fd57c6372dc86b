package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// module makes a small module with one test file.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example\n\ngo 1.24\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRun(t *testing.T) {
	t.Parallel()
	head := "package a\n\nimport \"testing\"\n\n"
	good := head + "func TestGood(t *testing.T) { t.Log(\"said in passing\") }\n"
	skip := head + `func TestGood(t *testing.T) {}
func TestSkip(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skip("left out: no\nmoon") }) }
`
	bad := head + `func TestBad(t *testing.T) {
	t.Run("is bad", func(t *testing.T) {
		for i := range 900 { t.Log("line", i) }
		t.Error("the end")
	})
}
`
	first, second := head+"func TestA(t *testing.T) { t.Fatal(\"first\") }\n", head+"func TestB(t *testing.T) { t.Fatal(\"second\") }\n"
	for name, tt := range map[string]struct {
		files    map[string]string
		complete bool
		code     int
		want     []string // in the output
		never    []string
	}{
		"what is well is said in a line": {
			files: map[string]string{"a_test.go": good},
			want:  []string{"ok   example ", "1 passed\n", "1 tests in 1 packages, 0 failed", "The longest: example TestGood 0 s.\n", "Nothing was left out."},
			never: []string{"said in passing", "FAIL"},
		},
		"what is left out is listed with its reason": {
			files: map[string]string{"a_test.go": skip}, want: []string{"1 left out", "Left out:\n  example TestSkip/sub: no moon\n"},
		},
		"what is left out fails where all is wanted": {
			files: map[string]string{"a_test.go": skip}, complete: true, code: 1, want: []string{"nothing may be left out"},
		},
		"where all is wanted and all is there it is well": {files: map[string]string{"a_test.go": good}, complete: true},
		"a failure is shown whole, under its name": {
			files: map[string]string{"a_test.go": bad},
			code:  1, want: []string{"── FAIL example TestBad/is_bad", "line 0\n", "line 899\n", "the end\n", "FAIL example ", "2 failed", "\nFailed:\n  example TestBad/is_bad: a_test.go:7: line 0\n"},
		},
		"a failure in one package hides none in another": {
			files: map[string]string{"a/a_test.go": first, "b/b_test.go": second},
			code:  1, want: []string{"── FAIL example/a TestA", "first", "── FAIL example/b TestB", "second"},
			never: []string{"DID NOT END"},
		},
		"a panic is shown with the test that it ended": {
			files: map[string]string{"a_test.go": head + "func TestBoom(t *testing.T) { panic(\"boom\") }\n"}, code: 1,
			want: []string{"example TestBoom", "panic: boom", "goroutine "},
		},
		"a process that ends by itself is a failure": {
			files: map[string]string{"a_test.go": "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestExit(t *testing.T) { os.Exit(3) }\n"},
			code:  1,
			want:  []string{"example TestExit", "FAIL example"},
		},
		"a package that fails after its tests is a failure": {
			files: map[string]string{
				"a_test.go": "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestGood(t *testing.T) {}\n" +
					"func TestMain(m *testing.M) {\n\tm.Run()\n\tprintln(\"leaked\")\n\tos.Exit(3)\n}\n",
			},
			code: 1, want: []string{"── FAIL example\n", "leaked", "1 tests in 1 packages, 1 failed"},
		},
		"a test package that cannot be built is a failure": {
			files: map[string]string{"a_test.go": head + "func TestX(t *testing.T) { undefined() }\n"}, code: 1,
			want: []string{"cannot be built: example", "undefined: undefined"},
		},
		"no test at all is a failure": {files: map[string]string{"a.go": "package a\n"}, code: 1, want: []string{"no test was run"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errOut bytes.Buffer
			code, err := run(t.Context(), module(t, tt.files), []string{"-vet=off", "./..."}, tt.complete, &out, &errOut)
			if err != nil || code != tt.code {
				t.Errorf("code %d, %v, want %d: %s%s", code, err, tt.code, out.String(), errOut.String())
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("lacks %q: %s", want, out.String())
				}
			}
			for _, never := range tt.never {
				if strings.Contains(out.String(), never) {
					t.Errorf("has %q: %s", never, out.String())
				}
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	t.Run("what still runs is named, the innermost of it, and nothing that waits for its turn", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		r := newReport(&out)
		r.line(`{"Action":"start","Package":"p"}` + "\n")
		r.line(`{"Action":"run","Package":"p","Test":"TestSlow"}` + "\n")
		r.line(`{"Action":"run","Package":"p","Test":"TestSlow/inner"}` + "\n")
		r.line(`{"Action":"run","Package":"p","Test":"TestLater"}` + "\n")
		r.line(`{"Action":"pause","Package":"p","Test":"TestLater"}` + "\n")
		r.tick(time.Now())
		if out.Len() > 0 {
			t.Errorf("said %q at once, want nothing", out.String())
		}
		r.tick(time.Now().Add(31 * time.Second))
		if got := out.String(); !strings.Contains(got, "p TestSlow/inner\n") || strings.Count(got, "\n") != 1 {
			t.Errorf("said %q, want the innermost test alone", got)
		}
		out.Reset()
		r.line(`{"Action":"pass","Package":"p","Test":"TestSlow/inner"}` + "\n")
		r.line(`{"Action":"cont","Package":"p","Test":"TestLater"}` + "\n")
		if r.tick(time.Now().Add(31 * time.Second)); !strings.Contains(out.String(), "p TestLater\n") {
			t.Errorf("said %q, want the test whose turn has come", out.String())
		}
	})
	t.Run("a test that never ended is a failure with what it said", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		r := newReport(&out)
		in := `{"Action":"run","Package":"p","Test":"TestSlow"}
{"Action":"output","Package":"p","Test":"TestSlow","Output":"=== RUN   TestSlow\n"}
{"Action":"output","Package":"p","Test":"TestSlow","Output":"waiting\n"}
{"Action":"output","Package":"p","Output":"panic: test timed out after 1s\n"}
{"Action":"fail","Package":"p","Elapsed":1}
`
		if err := r.read(strings.NewReader(in), nil); err != nil {
			t.Fatal(err)
		}
		code := r.finish(false, false)
		for _, want := range []string{"DID NOT END p TestSlow\nwaiting\n", "Failed:\n  p TestSlow: did not end\n", "panic: test timed out"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("lacks %q: %s", want, out.String())
			}
		}
		if code != 1 {
			t.Errorf("code %d, want 1", code)
		}
	})
	t.Run("an output that breaks off is a failure", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		r := newReport(&out)
		if err := r.read(strings.NewReader(`{"Action":"run","Package":"p","Test":"TestLost"}`+"\n"), nil); err != nil {
			t.Fatal(err)
		}
		if code := r.finish(true, false); code != 1 || !strings.Contains(out.String(), "DID NOT END p TestLost") {
			t.Errorf("code %d: %s", code, out.String())
		}
	})
	t.Run("go test's own verdict counts where nothing else is seen", func(t *testing.T) {
		t.Parallel()
		for _, good := range []bool{true, false} {
			var out bytes.Buffer
			r := newReport(&out)
			r.line(`{"Action":"pass","Package":"p","Test":"TestGood"}` + "\n")
			r.line(`{"Action":"pass","Package":"p"}` + "\n")
			if code := r.finish(good, true); (code == 0) != good {
				t.Errorf("code %d where go test is well: %v: %s", code, good, out.String())
			}
		}
	})
	t.Run("words that are no event are passed on", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		newReport(&out).line("go: downloading\n")
		if out.String() != "go: downloading\n" {
			t.Errorf("out = %q", out.String())
		}
	})
}
