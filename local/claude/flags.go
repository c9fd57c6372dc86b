package claude

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// version is of the Claude Code whose output the stand-in follows.
const version = "2.1.197"

// flags are the command line of the claude command.
type flags struct {
	input, output string
	sessionID     string
	resume        string
	model         string
	prompt        string
	print         bool
	verbose       bool
	fork          bool
	skipAsking    bool
	version, help bool
	system        string // appended
	effort        string // "": high

	permissionMode string
	maxTurns       int  // rounds of tools; 0 = any number, as with Claude Code
	unkept         bool // no transcript
}

// valued flags take one value; those that the script does not act on are read over.
func valued(f *flags, turns *string) map[string]*string {
	var ignored string
	out := map[string]*string{
		"--input-format": &f.input, "--output-format": &f.output, "--session-id": &f.sessionID, "--resume": &f.resume, "-r": &f.resume,
		"--model": &f.model, "--append-system-prompt": &f.system, "--max-turns": turns, "--permission-mode": &f.permissionMode,
		"--effort": &f.effort,
	}
	for _, name := range []string{
		"--setting-sources", "--add-dir", "--permission-prompt-tool", "--allowedTools", "--disallowedTools",
		"--settings", "--mcp-config", "--fallback-model", "--system-prompt", "--max-budget-usd", "--name", "--tools", "--json-schema",
	} {
		out[name] = &ignored
	}
	return out
}

func switches(f *flags) map[string]*bool {
	var ignored bool
	out := map[string]*bool{
		"-p": &f.print, "--print": &f.print, "--verbose": &f.verbose, "--fork-session": &f.fork, "--dangerously-skip-permissions": &f.skipAsking,
		"--version": &f.version, "-v": &f.version, "--help": &f.help, "-h": &f.help,
		"--no-session-persistence": &f.unkept,
	}
	for _, name := range []string{
		"--strict-mcp-config", "--include-partial-messages", "--replay-user-messages", "--include-hook-events", "--bare", "--disable-slash-commands",
	} {
		out[name] = &ignored
	}
	return out
}

// fullName is what Claude Code asks the API for when it is given a model's alias.
func fullName(model string) string {
	if full := map[string]string{
		"opus": "claude-opus-4-8", "sonnet": "claude-sonnet-5", "haiku": "claude-haiku-4-5-20251001", "fable": "claude-fable-5",
	}[model]; full != "" {
		return full
	}
	return model
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// parse reads the command line as Claude Code does.
func parse(args []string) (flags, error) {
	f := flags{input: "text", output: "text", model: "claude-scripted"}
	turns := "0"
	vals, bools := valued(&f, &turns), switches(&f)
	var rest []string
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		switch {
		case args[i] == "--":
			rest = append(rest, args[i+1:]...)
			i = len(args)
		case bools[args[i]] != nil:
			*bools[args[i]] = true
		case vals[name] != nil && has && strings.HasPrefix(name, "--"):
			*vals[name] = value
		case vals[args[i]] != nil:
			if i+1 == len(args) {
				return f, fmt.Errorf("error: option '%s <value>' argument missing", args[i])
			}
			i++
			*vals[args[i-1]] = args[i]
		case strings.HasPrefix(args[i], "-") && args[i] != "-":
			return f, fmt.Errorf("error: unknown option '%s'", args[i])
		default:
			rest = append(rest, args[i])
		}
	}
	f.prompt, f.model = strings.Join(rest, " "), fullName(f.model)
	var err error
	f.maxTurns, err = strconv.Atoi(turns)
	switch {
	case err != nil:
		return f, fmt.Errorf("error: option '--max-turns <turns>' argument '%s' is invalid", turns)
	case f.output == "stream-json" && f.print && !f.verbose:
		//nolint:staticcheck,revive // its words
		return f, errors.New("Error: When using --print, --output-format=stream-json requires --verbose")
	case f.sessionID != "" && !uuidForm.MatchString(f.sessionID):
		return f, errors.New("Error: Invalid session ID. Must be a valid UUID.") //nolint:staticcheck,revive // its words
	case f.sessionID != "" && f.resume != "" && !f.fork:
		return f, errors.New( //nolint:staticcheck,revive // its words
			"Error: --session-id can only be used with --continue or --resume if --fork-session is also specified.")
	}
	return f, nil
}
