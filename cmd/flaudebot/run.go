package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"flaudebot/sessions"
)

// maxRuns bounds the machines of one command.
const maxRuns = 100

// runFlags are what run is told.
type runFlags struct {
	repo, file string
	parallel   int
	json       bool
}

// runOnce runs prompts on ephemeral machines, which are destroyed whatever happens. Of one prompt the answer alone goes to standard output, and the
// turn's exit code is the command's. Of several, which are asked for by --parallel or --file, each result is printed as it comes.
func runOnce(ctx context.Context, c cli) error {
	var f runFlags
	flags := c.settingsFlags()
	flags.StringVar(&f.repo, "repo", "", "`repositories` to clone instead of FLAUDEBOT_REPOS, in the same form, or none")
	flags.IntVar(&f.parallel, "parallel", 0, "each argument is a prompt of its own, and so `many` run at once; 1 to 100")
	flags.StringVar(&f.file, "file", "", "`name` of a file with a prompt a line, - for standard input; 4 at once unless --parallel says otherwise")
	flags.BoolVar(&f.json, "json", false, "of several prompts, print each result as a line of JSON")
	if err := c.parse(flags); err != nil {
		return err
	}
	if late := lateFlag(flags); late != "" && !slices.Contains(c.args, "--") {
		fmt.Fprintf(c.stderr, "flaudebot run: %s stands behind a prompt: flags come first, or put -- before the prompt\nUsage: %s\n", late, c.command.line())
		return errUsage
	}
	prompts, err := f.prompts(flags.Args(), c.stdin)
	if err != nil {
		return err
	}
	if len(prompts) == 0 {
		fmt.Fprintf(c.stderr, "flaudebot run: there is no prompt\nUsage: %s\n", c.command.line())
		return errUsage
	}
	parts := []string{"fly", "claude"}
	if os.Getenv("REDIS_URL") != "" { // it is put on record there
		parts = append(parts, "redis")
	}
	cfg, err := loadConfig(parts...)
	if err != nil {
		return err
	}
	if f.repo != "" {
		if cfg.repos, err = sessions.ParseRepos(f.repo); err != nil {
			return fmt.Errorf("--repo: %w", err)
		}
	}
	log := cfg.logger(c.stderr)
	warnOfUnknown(os.Environ(), log) // it may have been a budget
	machines, err := openMachines(cfg, log, nil)
	if err != nil {
		return err
	}
	silent := context.AfterFunc(ctx, func() {
		fmt.Fprintln(c.stderr, "flaudebot: interrupted: what runs is stopped and its machine destroyed, which takes some seconds")
	})
	defer silent()
	service, leave, err := openRecord(ctx, c, cfg)
	switch {
	case ctx.Err() != nil:
		return exitCode(130)
	case err != nil:
		return err
	}
	defer leave()
	var runs []sessions.Run
	for _, p := range prompts {
		runs = append(runs, runOf(p, service))
	}
	if f.several() {
		return c.runEach(ctx, machines, prompts, runs, f)
	}
	res, err := machines.RunOnce(ctx, sessions.Spec{}, runs[0])
	switch {
	case err != nil && ctx.Err() != nil:
		return interrupted(res, err)
	case err != nil:
		return err
	}
	if res.Outcome.Error != "" {
		fmt.Fprintf(c.stderr, "flaudebot: %s\n", res.Outcome.Error)
	}
	if res.Outcome.Answer != "" {
		fmt.Fprintln(c.stdout, strings.TrimRight(res.Outcome.Answer, "\n"))
	}
	if res.ExitCode != 0 {
		return exitCode(res.ExitCode)
	}
	return nil
}

// interrupted is how a run ends that somebody has interrupted: with 130, and a word only if its machine is still there.
func interrupted(res sessions.RunResult, err error) error {
	if res.MachineID == "" || res.Destroyed {
		return exitCode(130)
	}
	return fmt.Errorf("machine %s was not destroyed: %w", res.MachineID, err)
}

// lateFlag is a flag of ours among the prompts, which would be taken for one; "": there is none.
func lateFlag(flags *flag.FlagSet) string {
	for _, arg := range flags.Args() {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if strings.HasPrefix(arg, "--") && flags.Lookup(name) != nil {
			return "--" + name
		}
	}
	return ""
}

// openRecord opens what puts runs on record; nil: there is no Redis to keep it.
func openRecord(ctx context.Context, c cli, cfg config) (service *sessions.Service, leave func(), err error) {
	if cfg.RedisURL == "" {
		fmt.Fprintln(c.stderr, "flaudebot: what runs is not put on record, since REDIS_URL is not set")
		return nil, func() {}, nil
	}
	return openSessions(ctx, c, cfg, false)
}

// several reports whether each argument is a prompt of its own.
func (f *runFlags) several() bool { return f.parallel != 0 || f.file != "" }

// prompts are those of the command line and of the file.
func (f *runFlags) prompts(args []string, stdin io.Reader) ([]string, error) {
	if !f.several() {
		args = []string{strings.Join(args, " ")}
	} else if f.parallel == 0 {
		f.parallel = 4
	}
	if f.parallel < 0 || f.parallel > maxRuns {
		return nil, fmt.Errorf("--parallel %d: want 1 to %d", f.parallel, maxRuns)
	}
	if f.file != "" {
		in := stdin
		if f.file != "-" {
			file, err := os.Open(f.file)
			if err != nil {
				return nil, fmt.Errorf("--file: %w", err)
			}
			defer func() { _ = file.Close() }()
			in = file
		}
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			args = append(args, lines.Text())
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read the prompts of %s: %w", f.file, err)
		}
	}
	var out []string
	for _, prompt := range args {
		if prompt = strings.TrimSpace(prompt); prompt != "" {
			out = append(out, prompt)
		}
	}
	return out, nil
}

// runOf is the run of a prompt, which a service puts on record; nil: nobody does.
func runOf(prompt string, record *sessions.Service) sessions.Run {
	r := sessions.Run{
		Turn:   sessions.TurnID("run:" + uuid.NewString()),
		Fence:  1,
		Prompt: func(context.Context, bool) (sessions.Prompt, error) { return sessions.Prompt{Text: prompt}, nil },
	}
	if record != nil {
		r.Record = record.RecordOf(r.Turn, utf8.RuneCountInString(prompt))
	}
	return r
}

// ranOnce is a result as run prints it.
type ranOnce struct {
	N         int      `json:"n"` // of the prompt, from 1
	Prompt    string   `json:"prompt"`
	ExitCode  int      `json:"exit_code"`
	Answer    string   `json:"answer"`
	Error     string   `json:"error,omitempty"`
	Seconds   int      `json:"seconds"`
	CostUSD   float64  `json:"cost_usd"`
	Machine   string   `json:"machine_id,omitempty"`
	Destroyed bool     `json:"destroyed"` // true as well if there never was one
	Files     []string `json:"files,omitempty"`
}

// runEach runs several prompts. It ends with 0 if all did, with 130 if it was interrupted, and with 1 otherwise.
func (c cli) runEach(ctx context.Context, m *sessions.Machines, prompts []string, runs []sessions.Run, f runFlags) error {
	bad, left := false, error(nil)
	var failed error // to print
	m.RunEach(ctx, sessions.Spec{}, runs, f.parallel, func(i int, res sessions.RunResult, err error) {
		out := res.Outcome
		r := ranOnce{
			N: i + 1, Prompt: prompts[i], ExitCode: res.ExitCode, Answer: strings.TrimRight(out.Answer, "\n"), Error: out.Error, Seconds: int(out.Duration().Seconds()),
			CostUSD: out.CostUSD, Machine: res.MachineID, Destroyed: res.Destroyed || res.MachineID == "", Files: res.WorkspaceFiles,
		}
		if err != nil && r.Error == "" {
			r.Error = err.Error()
		}
		if !r.Destroyed {
			left = errors.Join(left, fmt.Errorf("machine %s was not destroyed: %w", r.Machine, err))
		}
		bad = bad || r.ExitCode != 0
		failed = errors.Join(failed, r.print(c.stdout, f.json))
	})
	switch {
	case left != nil || failed != nil:
		return errors.Join(left, failed)
	case ctx.Err() != nil:
		return exitCode(130)
	case bad:
		return exitCode(1)
	}
	return nil
}

// print writes the result, in words or as a line of JSON.
func (r ranOnce) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	first, _, _ := strings.Cut(r.Prompt, "\n")
	_, err := fmt.Fprintf(w, "== %d · exit %d · %d s · $%.2f · %s\n", r.N, r.ExitCode, r.Seconds, r.CostUSD, first)
	for _, text := range []string{r.Error, r.Answer} {
		if text != "" && err == nil {
			_, err = fmt.Fprintln(w, text)
		}
	}
	return err
}
