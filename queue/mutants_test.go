package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flaudebot/queue"
)

// A mutant is a script with one statement taken out, or one comparison turned. The model has to notice each: a statement that
// can go without anybody noticing is not needed, or not tested.
type mutant struct {
	script string // file without .lua
	line   int    // from 1
	what   string // what was done to the line
	text   string // the whole script
}

func (m mutant) name() string { return fmt.Sprintf("%s.lua:%d %s", m.script, m.line, m.what) }

// harmless are the mutants that the model need not notice, by what was changed, and why.
//
//nolint:gochecknoglobals // a table
var harmless = map[string]string{
	"common.lua without if not where then return end":  "every caller knows that the key is in a place; it keeps a key whose hash was evicted from failing scripts",
	"common.lua without book[field] = 0":               "a field that is asked for twice would be read twice, with the same result",
	"beat.lua without call('ZREM', P .. 'lease', '')":  "it opens the gate when memory is full, which miniredis never is: TestFullMemory",
	"adopt.lua without call('ZREM', P .. 'lease', '')": "the same",
	"stage.lua without call('ZREM', P .. 'lease', '')": "the same",
	"step.lua without budget = budget - 1":             "it bounds the time of one call, and not what comes of it",
	"step.lua without look('fair', users)":             "it reads at once what tag would read one by one, with the same result",
}

// mutantEnv tells a child which mutant to try, as the number of it.
const mutantEnv = "FLAUDEBOT_TEST_MUTANT"

// TestMutants lets the tests find mutants: a sample, another one when the scripts change, all of them with FLAUDEBOT_TEST_MUTANTS=all (`make mutants`), or those whose name
// holds what it says. Each is tried in a process of its own, since one may never end.
func TestMutants(t *testing.T) {
	t.Parallel()
	all := mutants(t)
	chosen := chooseMutants(t, all)
	tokens := make(chan struct{}, 2)
	var wait sync.WaitGroup
	for _, i := range chosen {
		wait.Go(func() {
			tokens <- struct{}{}
			defer func() { <-tokens }()
			tryMutant(t, i, all[i])
		})
	}
	wait.Wait()
}

// chooseMutants returns the numbers of those to try.
func chooseMutants(t *testing.T, all []mutant) []int {
	t.Helper()
	scripts := fnv.New64a()
	for _, m := range all {
		_, _ = io.WriteString(scripts, m.text)
	}
	seed := scripts.Sum64()
	if s, err := strconv.ParseUint(os.Getenv("FLAUDEBOT_TEST_MUTANTS_SEED"), 10, 64); err == nil {
		seed = s
	}
	order := rand.New(rand.NewPCG(seed, 0)).Perm(len(all)) //nolint:gosec // a sample
	switch which := os.Getenv("FLAUDEBOT_TEST_MUTANTS"); which {
	case "":
		t.Logf("%d of %d mutants, FLAUDEBOT_TEST_MUTANTS_SEED=%d", mutantSample, len(all), seed)
		return order[:mutantSample]
	case "all":
		return order
	default:
		return slices.DeleteFunc(order, func(i int) bool { return !strings.Contains(all[i].name(), which) })
	}
}

const mutantSample = 4

// manyCases is how many cases the model has to notice a mutant in.
const manyCases = "3000"

// tryMutant runs the model against a mutant, and then, if that notices nothing, the tests of behaviour, and the model for long.
func tryMutant(t *testing.T, i int, m mutant) {
	why, spared := harmless[m.script+".lua "+m.what]
	began := time.Now()
	model := func(cases string, limit time.Duration) ([]byte, bool) {
		return withMutant(t, i, limit, "^TestModel$/^miniredis$/^shard_1$", "-rapid.checks="+cases, "-rapid.shrinktime=1ms", "-rapid.nofailfile")
	}
	out, noticed := model("200", time.Minute) // one that never ends is noticed by that: it takes seconds
	if !noticed {
		out, noticed = withMutant(t, i, time.Minute, "^(TestQueue|TestHandOn|TestDoorbell|TestJanitor|TestLoad)$/^miniredis$", "-test.failfast")
	}
	if !noticed && !spared {
		out, noticed = model(manyCases, 4*time.Minute)
	}
	took := time.Since(began).Round(100 * time.Millisecond)
	switch {
	case !noticed && spared:
		t.Logf("survives: %s: %s", m.name(), why)
	case !noticed:
		t.Errorf("survives %s cases in %s: %s", manyCases, took, m.name())
	case spared:
		t.Errorf("noticed after %s, though it is listed as harmless: %s\n%s", took, m.name(), tailOf(out))
	default:
		t.Logf("noticed after %s: %s: %s", took, m.name(), verdict(out))
	}
}

// withMutant runs tests of this package on a mutant, in a process of their own, and says whether they failed.
func withMutant(t *testing.T, i int, limit time.Duration, tests string, flags ...string) ([]byte, bool) {
	ctx, cancel := context.WithTimeout(t.Context(), limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"-test.run=" + tests, "-test.count=1", "-test.timeout=" + limit.String()}, flags...)...)
	cmd.Env = append(os.Environ(), mutantEnv+"="+strconv.Itoa(i))
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Errorf("mutant %d could not be tried: %v", i, err)
	}
	return out, err != nil
}

// verdict is the line in which the model says what is wrong.
func verdict(out []byte) string {
	for line := range bytes.Lines(out) {
		if i := bytes.Index(line, []byte("model_test.go:")); i >= 0 {
			return string(bytes.TrimSpace(line[i:]))
		}
	}
	return tailOf(out)
}

func tailOf(out []byte) string {
	return string(out[max(0, len(out)-600):])
}

// tamper puts the mutant that this process is to try into a queue.
func tamper(fatal func(...any), q *queue.Queue) {
	i, err := strconv.Atoi(os.Getenv(mutantEnv))
	if err != nil {
		return // none
	}
	all, err := allMutants()
	if err != nil {
		fatal(err)
	}
	if err := q.Replace(all[i].script, all[i].text); err != nil {
		fatal(err)
	}
}

func mutants(t *testing.T) []mutant {
	t.Helper()
	all, err := allMutants()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 150 {
		t.Fatalf("%d mutants, want at least 150: the scripts are not read well", len(all))
	}
	return all
}

func allMutants() ([]mutant, error) {
	files, err := filepath.Glob("lua/*.lua")
	if err != nil {
		return nil, err
	}
	var out []mutant
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		out = append(out, mutate(strings.TrimSuffix(filepath.Base(file), ".lua"), string(raw))...)
	}
	return out, nil
}

var (
	// statement is one that stands on a line by itself.
	statement = regexp.MustCompile(`^\s*([A-Za-z_][\w.]*\(.*\)|return\b.*|if .* then .* end|[A-Za-z_][\w.\[\], #+]* = .*)$`)
	declares  = regexp.MustCompile(`^\s*(local|function|for|end|else|elseif)\b`)
	compares  = regexp.MustCompile(`(==|~=|<=|>=|<|>)`)
)

// mutate makes all mutants of a script.
func mutate(script, text string) []mutant {
	var out []mutant
	lines := strings.Split(text, "\n")
	with := func(i int, line, what string) {
		changed := append(append(append([]string{}, lines[:i]...), line), lines[i+1:]...)
		out = append(out, mutant{script, i + 1, what, strings.Join(changed, "\n")})
	}
	for i, line := range lines {
		code, _, _ := strings.Cut(line, " --")
		if strings.HasPrefix(strings.TrimSpace(code), "--") {
			continue
		}
		if statement.MatchString(code) && !declares.MatchString(code) {
			with(i, "", "without "+strings.TrimSpace(code))
		}
		for _, at := range compares.FindAllStringIndex(code, -1) {
			op := code[at[0]:at[1]]
			with(i, code[:at[0]]+turn(op)+code[at[1]:], fmt.Sprintf("turned %s in %s", op, strings.TrimSpace(code)))
		}
	}
	return out
}

// turn is the opposite of a comparison.
func turn(op string) string {
	return map[string]string{"==": "~=", "~=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}[op]
}
