package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// heartbeat is how often it is said what still runs while nothing ends.
const heartbeat = 30 * time.Second

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Time       time.Time
	Action     string // run, output, pass, fail, skip, build-output, build-fail, …
	Package    string
	ImportPath string // of build-output
	Test       string // "": the package itself
	Elapsed    float64
	Output     string
}

// pkg is what is known of a package whose tests run.
type pkg struct {
	began   time.Time
	tests   map[string]*test // those that have not ended, and "" for the package's own output
	passed  int
	failed  int
	skipped int
}

type test struct {
	began  time.Time
	paused bool // waits for its turn among parallel tests
	output strings.Builder
}

// report follows one run of go test.
type report struct {
	out   io.Writer
	pkgs  map[string]*pkg
	built map[string]*strings.Builder // what the compiler said, by import path

	tests, failed, packages int
	took                    []timed  // tests that have no tests within
	failures                []string // the innermost tests that failed, each with what it said first
	leftOut                 []string
	began                   time.Time
}

// timed is how long a test took, in seconds: waiting for its turn among parallel tests does not count.
type timed struct {
	name    string
	seconds float64
}

func newReport(out io.Writer) *report {
	return &report{out: out, pkgs: map[string]*pkg{}, built: map[string]*strings.Builder{}, began: time.Now()}
}

func (r *report) leaveOut(what, why string) { r.leftOut = append(r.leftOut, what+": "+why) }

// read follows the events to their end. At each tick it says what has run for longer than a heartbeat.
func (r *report) read(in io.Reader, ticks <-chan time.Time) error {
	lines, ended := make(chan string), make(chan error, 1)
	go func() {
		defer close(lines)
		buf := bufio.NewReader(in)
		for {
			line, err := buf.ReadString('\n')
			if line != "" {
				lines <- line
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				ended <- err
				return
			}
		}
	}()
	for {
		select {
		case line, more := <-lines:
			if !more {
				return <-ended
			}
			r.line(line)
		case now := <-ticks:
			r.tick(now)
		}
	}
}

func (r *report) line(line string) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action == "" {
		fmt.Fprint(r.out, line) // not of test2json: go's own words
		return
	}
	switch {
	case e.Action == "build-output":
		b := r.built[e.ImportPath]
		if b == nil {
			b = &strings.Builder{}
			r.built[e.ImportPath] = b
		}
		b.WriteString(e.Output)
		return
	case e.Action == "build-fail":
		r.failed++
		r.block("cannot be built: "+e.ImportPath, r.built[e.ImportPath])
		return
	case e.Package == "":
		return
	}
	p := r.pkgs[e.Package]
	if p == nil {
		p = &pkg{began: time.Now(), tests: map[string]*test{}}
		r.pkgs[e.Package] = p
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &test{began: time.Now()}
		p.tests[e.Test] = t
	}
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pause":
		t.paused = true
	case "cont":
		t.paused, t.began = false, time.Now()
	case "pass", "fail", "skip":
		delete(p.tests, e.Test)
		if e.Test == "" {
			r.endPackage(e, p, t)
		} else {
			r.endTest(e, p, t)
		}
	}
}

// noise are the lines by which go test frames a test's own output.
var noise = regexp.MustCompile(`^\s*(=== (RUN|PAUSE|CONT|NAME|ATTR)|--- (PASS|FAIL|SKIP))\b`)

func own(t *test) string {
	var b strings.Builder
	for line := range strings.Lines(t.output.String()) {
		if !noise.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// place is where a test's words come from: "name_test.go:12: ".
var place = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// first is the line with which a test began to fail, or as much of it as one reads at a glance: helpers log after it.
func first(said string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	if len(line) > 300 {
		line = strings.ToValidUTF8(line[:300], "") + "…"
	}
	return line
}

func (r *report) endTest(e event, p *pkg, t *test) {
	r.tests++
	name := e.Package + " " + e.Test
	if last := len(r.took) - 1; !slices.ContainsFunc(r.took[max(0, last-200):], func(one timed) bool { return strings.HasPrefix(one.name, name+"/") }) {
		r.took = append(r.took, timed{name, e.Elapsed})
	}
	switch e.Action {
	case "pass":
		p.passed++
	case "skip":
		p.skipped++
		why := strings.Join(strings.Fields(place.ReplaceAllString(own(t), "")), " ")
		r.leaveOut(name, strings.TrimPrefix(why, "left out: "))
	case "fail":
		p.failed++
		r.failed++
		said := own(t)
		if said == "" {
			said = "(it said nothing; see its subtests)\n"
		} else {
			r.failures = append(r.failures, name+": "+first(said))
		}
		r.block(fmt.Sprintf("FAIL %s (%.1f s)", name, e.Elapsed), said)
	}
}

func (r *report) endPackage(e event, p *pkg, own *test) {
	delete(r.pkgs, e.Package)
	if e.Action == "skip" { // it has no tests
		return
	}
	r.packages++
	if e.Action == "fail" {
		r.broken(e, p, own)
	}
	word := map[string]string{"pass": "ok  ", "fail": "FAIL"}[e.Action]
	more := ""
	if p.failed > 0 {
		more += fmt.Sprintf(", %d failed", p.failed)
	}
	if p.skipped > 0 {
		more += fmt.Sprintf(", %d left out", p.skipped)
	}
	fmt.Fprintf(r.out, "%s %-32s %6.1f s  %d passed%s\n", word, e.Package, e.Elapsed, p.passed, more)
}

// broken shows what a package that failed said outside of tests that ended: a panic, a race, a time limit.
func (r *report) broken(e event, p *pkg, whole *test) {
	for _, name := range slices.Sorted(maps.Keys(p.tests)) {
		r.failed++
		r.unended(e.Package+" "+name, p.tests[name])
	}
	if said := own(whole); p.failed == 0 || strings.Contains(said, "panic: ") || strings.Contains(said, "DATA RACE") {
		r.failed++
		r.block("FAIL "+e.Package, said)
	}
}

func (r *report) unended(name string, t *test) {
	r.failures = append(r.failures, name+": did not end")
	r.block("DID NOT END "+name, own(t))
}

// block shows something that went wrong, whole.
func (r *report) block(title string, said any) {
	text := strings.TrimRight(fmt.Sprint(said), "\n")
	fmt.Fprintf(r.out, "\n── %s\n%s\n\n", title, text)
}

// tick names the tests that have run for long. Of nested ones the innermost are told.
func (r *report) tick(now time.Time) {
	var long []string
	for path, p := range r.pkgs {
		for name, t := range p.tests {
			inner := false
			for other := range p.tests {
				inner = inner || name == "" && other != "" || strings.HasPrefix(other, name+"/")
			}
			if age := now.Sub(t.began); !inner && !t.paused && age >= heartbeat {
				long = append(long, fmt.Sprintf("     still running after %.0f s: %s %s\n", age.Seconds(), path, name))
			}
		}
	}
	slices.Sort(long)
	fmt.Fprint(r.out, strings.Join(long, ""))
}

// finish tells the whole, and returns the exit code. good is what go test itself says.
func (r *report) finish(good, complete bool) int {
	for _, path := range slices.Sorted(maps.Keys(r.pkgs)) { // go test was ended, or has lost them
		r.failed++
		for _, name := range slices.Sorted(maps.Keys(r.pkgs[path].tests)) {
			r.unended(path+" "+name, r.pkgs[path].tests[name])
		}
	}
	fmt.Fprintf(r.out, "\n%d tests in %d packages, %d failed, %d left out, %.0f s\n",
		r.tests, r.packages, r.failed, len(r.leftOut), time.Since(r.began).Seconds())
	slices.SortFunc(r.took, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	var slow []string
	for _, one := range r.took[:min(len(r.took), 10)] {
		slow = append(slow, fmt.Sprintf("%s %.0f s", one.name, one.seconds))
	}
	if len(slow) > 0 {
		fmt.Fprintf(r.out, "The longest: %s.\n", strings.Join(slow, ", "))
	}
	code := 0
	switch {
	case r.failed > 0:
		code = 1
	case !good:
		fmt.Fprintln(r.out, "go test failed; see above")
		code = 1
	case r.tests == 0:
		fmt.Fprintln(r.out, "no test was run")
		code = 1
	}
	switch {
	case len(r.leftOut) == 0:
		fmt.Fprintln(r.out, "Nothing was left out.")
	case complete:
		r.list("Left out, and FLAUDEBOT_TEST_COMPLETE=1: nothing may be left out:", r.leftOut)
		code = 1
	default:
		r.list("Left out:", r.leftOut)
	}
	if len(r.failures) > 0 { // last, for who sees the end alone
		r.list("Failed:", r.failures)
	}
	return code
}

func (r *report) list(title string, lines []string) {
	fmt.Fprintln(r.out, title)
	for _, line := range lines {
		fmt.Fprintln(r.out, "  "+line)
	}
}
