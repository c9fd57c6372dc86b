// Command flaudebot puts Claude Code into Slack.
//
// Here is wiring only: one file a subcommand, and settings.go, the only reader of the environment.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"flaudebot/sessions"
)

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// signalGrace is for how long after the first signal further ones are ignored: timeout(1) sends two of them, and so do a terminal and a supervisor
// together. A later one kills.
const signalGrace = 3 * time.Second

// command is one subcommand. It returns an [exitCode] to end with a code other than 1.
type command struct {
	name, args, about string
	run               func(context.Context, cli) error
	plain             bool // it has no flags, and so no help of its own
}

// usage is how it is called, and what it is for.
func (c command) usage(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s\n\n%s.\n", c.line(), strings.ToUpper(c.about[:1])+c.about[1:])
}

// line is how it is called.
func (c command) line() string { return strings.TrimSpace("flaudebot " + c.name + " " + c.args) }

// help is the usage, with what each flag does.
func (c command) help(w io.Writer, flags *flag.FlagSet) {
	c.usage(w)
	var said strings.Builder
	flags.SetOutput(&said)
	flags.PrintDefaults()
	fmt.Fprint(w, "\n"+strings.ReplaceAll("\n"+said.String(), "\n  -", "\n  --")[1:])
}

// cli is what a subcommand has of the outside.
type cli struct {
	self    string   // as the program was called
	command command  // that was asked for
	args    []string // after its name
	// envFile was named with --env-file, and is in the environment.
	envFile *envFileName
	environ []string // the environment before that
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
}

// exitCode is an error that says nothing but the code to exit with.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

var (
	// errUsage says that the command line makes no sense; the usage was printed.
	errUsage = errors.New("usage")
	// errHelp says that help was asked for, and printed.
	errHelp = errors.New("help")
)

// settingsFlags are the flags of a subcommand that needs settings: --env-file to begin with.
func (c cli) settingsFlags() *flag.FlagSet {
	flags := c.flags()
	flags.Var(c.envFile, "env-file", "`FILE` with settings, NAME=value a line; what the environment sets stands")
	return flags
}

// flags are those of a subcommand that needs no settings: none to begin with.
func (c cli) flags() *flag.FlagSet { return flag.NewFlagSet(c.command.name, flag.ContinueOnError) }

// loadEnvFile loads the file that was named, but for setup, which asks for what is not in it.
func (c cli) loadEnvFile() error {
	if *c.envFile == "" || c.command.name == "setup" {
		return nil
	}
	return loadEnvFile(string(*c.envFile))
}

// parse reads a subcommand's flags, and the file of settings that they name. Help that was asked for goes to standard output.
func (c cli) parse(flags *flag.FlagSet) error {
	flags.SetOutput(c.stderr)
	flags.Usage = func() {}
	named := *c.envFile
	err := flags.Parse(c.args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.command.help(c.stdout, flags)
		return errHelp
	case err != nil:
		fmt.Fprintf(c.stderr, "Usage: %s\nflaudebot %s --help says what each flag does\n", c.command.line(), c.command.name)
		return errUsage
	case *c.envFile != named:
		return c.loadEnvFile()
	}
	return nil
}

// parseWords reads the flags of a subcommand that has words besides, wherever among them the flags stand.
func (c cli) parseWords(flags *flag.FlagSet) (words []string, err error) {
	for {
		if err := c.parse(flags); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return words, nil
		}
		words, c.args = append(words, flags.Arg(0)), flags.Args()[1:]
	}
}

// parseAll reads the flags of a subcommand that takes nothing besides them. more is what is said behind the refusal of anything else.
func (c cli) parseAll(flags *flag.FlagSet, more string) error {
	if err := c.parse(flags); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(c.stderr, "flaudebot %s takes no arguments%s\n", c.command.name, more)
		return errUsage
	}
	return nil
}

func commands() []command {
	return []command{
		{"serve", "[--env-file FILE]", "run the bot (--help lists every setting)", serve, false},
		{"demo", "[--data DIR] [--agent scripted|cli|auto] [--redis URL]", "run the bot in a local world, with a page to talk to it", demo, false},
		{"local", "[--data DIR] [--agent scripted|cli|auto] [--env-out FILE]", "run the local world alone: Slack, Fly and the Messages API", local, false},
		{"run", "[--parallel N] [--file NAME|-] [--json] [--repo owner/name[#branch]] PROMPT…", "run a prompt, or several, each on a machine of its own, and print the answers", runOnce, false},
		{"sessions", "list | end THREAD | reap [--dry-run]", "list the live sessions, end one, or account for what is on Fly", sessionsCommand, false},
		{"costs", "[--month 2026-11] [--by session|channel|person] [--json]", "print what sessions have cost in a month", costsCommand, false},
		{"setup", "[--env-file FILE]", "ask for the settings that are missing, try them, and write them into a file", setupCommand, false},
		{"doctor", "[--live] [--json] [--env-file FILE]", "look for what keeps the bot from working, and say what to do", doctorCommand, false},
		{"deploy", "[--config deploy/fly.toml] [--wait 5m] [--env-file FILE]", "put the bot on Fly, when nothing keeps it from working there, and see that it works", deployCommand, false},
		{"audit", "[--since DATE] [--until DATE] [--channel ID] [--person ID]", "print who asked, and what ran, as lines of JSON", auditCommand, false},
		{"runner", "[VERB]", "process 1 of a session machine, and its verbs", runnerCommand, true},
		{"manifest", "[--link]", "print the manifest of the Slack app, or the link that makes the app of it", manifest, false},
		{"version", "", "print the version", version, true},
	}
}

func run(argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The stand-in for the claude command is this binary under that name, see local.go.
	if filepath.Base(argv[0]) == "claude" {
		return claudeStandIn(argv[1:], stdin, stdout, stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(signalGrace, stop) }) // until then further signals are taken, and mean nothing
	var envFile envFileName
	args, err := envFile.take(argv[1:])
	if err != nil {
		fmt.Fprintf(stderr, "flaudebot: %s\n", err)
		return 2
	}
	argv = append([]string{argv[0]}, args...)
	switch {
	case len(argv) < 2, oneOf(argv[1], "help", "-h", "--help"):
		usage(stdout)
		return 0
	case oneOf(argv[1], "-v", "--version"):
		argv[1] = "version"
	}
	for _, c := range commands() {
		if c.name == argv[1] {
			if c.plain && len(argv) > 2 && oneOf(argv[2], "-h", "--help") {
				c.usage(stdout)
				return 0
			}
			return cli{self: argv[0], command: c, args: argv[2:], envFile: &envFile, environ: os.Environ(), stdin: stdin, stdout: stdout, stderr: stderr}.run(ctx)
		}
	}
	fmt.Fprintf(stderr, "flaudebot: unknown command %q\n\n", argv[1])
	usage(stderr)
	return 2
}

// run runs the command, and says what went wrong.
func (c cli) run(ctx context.Context) int {
	err := c.loadEnvFile()
	if err == nil {
		err = c.command.run(ctx, c)
	}
	code := exitOf(err, c.stderr)
	if bad, ok := errors.AsType[badSettings](err); ok {
		for _, u := range unknownSettings(os.Environ()) { // which may be the ones that are missing, mistyped
			fmt.Fprintf(c.stderr, "%s is no setting, and does nothing: %s\n", u.name, u.fix())
		}
		if bad.missing() && *c.envFile == "" {
			fmt.Fprintln(c.stderr, c.whereSettings())
		}
	}
	return code
}

func exitOf(err error, stderr io.Writer) int {
	var code exitCode
	switch {
	case err == nil, errors.Is(err, errHelp):
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintf(stderr, "flaudebot: %s\n", err)
	if _, ok := errors.AsType[badSettings](err); ok {
		return 2
	}
	return 1
}

// whereSettings says where settings that are missing may come from.
func (c cli) whereSettings() string {
	rest := ""
	if len(c.args) > 0 {
		rest = " …"
	}
	return fmt.Sprintf("Settings come from the environment, or from a file: %s %s --env-file flaudebot.env%s (%s setup writes one)", c.self, c.command.name, rest, c.self)
}

func usage(w io.Writer) {
	fmt.Fprint(w, "flaudebot puts Claude Code into Slack.\n\nUsage: flaudebot COMMAND [--env-file FILE]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n            %s\n", c.name, c.args, c.about)
	}
}

// logger logs to standard error as the settings say.
func (c config) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // checked with the settings
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(sessions.LogHandler(slog.NewJSONHandler(w, opts)))
	}
	return slog.New(sessions.LogHandler(slog.NewTextHandler(w, opts)))
}
