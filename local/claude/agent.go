package claude

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// agent is one run of the claude command. Its parts: transcript.go keeps the conversation, input.go reads what it is told,
// turn.go runs a turn, ask.go asks the Messages API, tools.go runs the tools and events.go says what happens.
type agent struct {
	flags
	env        map[string]string
	out        io.Writer
	errOut     io.Writer
	cwd        string // with symbolic links resolved
	session    string
	transcript string    // its file
	messages   []message // the conversation so far
	spent      map[string]*spending

	mu   sync.Mutex
	stop context.CancelFunc // guarded by mu; of the turn that runs
}

// Main is the claude command: a small agent that asks the Messages API for each step and runs the tools itself. Flags,
// output, transcripts, error texts and exit codes follow Claude Code's. The end of ctx is an interrupt (SIGINT): the turn
// ends with a result, the conversation stays resumable. SIGTERM is not handled, as Claude Code prints nothing on it.
//
// What it leaves out: a message that comes while a tool runs begins a turn of its own instead of joining the running one,
// --include-partial-messages streams nothing, and commands that run for long are not announced as tasks.
func Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f, err := parse(args)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	switch {
	case f.version:
		fmt.Fprintf(stdout, "%s (Claude Code, scripted stand-in)\n", version)
		return 0
	case f.help:
		fmt.Fprintln(stdout, "Usage: claude -p [options] [prompt]   (a scripted stand-in)")
		return 0
	case !f.print:
		fmt.Fprintln(stderr, "the stand-in has no terminal interface: use -p")
		return 1
	}
	a := &agent{flags: f, env: environment(env), out: stdout, errOut: stderr, spent: map[string]*spending{}}
	if f.skipAsking && os.Geteuid() == 0 && a.env["IS_SANDBOX"] != "1" {
		fmt.Fprintln(stderr, "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons")
		return 1
	}
	if code, ok := a.open(); !ok {
		return code
	}
	return a.serve(ctx, stdin)
}

func environment(env []string) map[string]string {
	out := map[string]string{}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		out[k] = v
	}
	return out
}

// serve runs the turns that come on stdin, or the one of the command line.
func (a *agent) serve(ctx context.Context, stdin io.Reader) int {
	if a.input != "stream-json" {
		raw, err := io.ReadAll(stdin)
		if err != nil {
			fmt.Fprintln(a.errOut, err)
			return 1
		}
		text := strings.TrimLeft(a.prompt+"\n"+string(raw), "\n")
		switch {
		case text == "":
			fmt.Fprintln(a.errOut, "Error: Input must be provided either through stdin or as a prompt argument when using --print")
			return 1
		case strings.TrimSpace(text) == "":
			return 0
		}
		content, _ := json.Marshal(text)
		return a.run(ctx, content)
	}
	turns, bad := a.listen(ctx, stdin)
	code := 0
	for {
		select {
		case <-ctx.Done():
			return code // nobody waits for the rest of stdin
		case content, more := <-turns:
			if more {
				code = a.run(ctx, content)
				continue
			}
		}
		if err := <-bad; err != nil {
			fmt.Fprintf(a.errOut, "Error parsing streaming input line: %s\n", err)
			return 1
		}
		return code
	}
}
