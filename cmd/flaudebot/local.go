package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"flaudebot/deploy"
	localclaude "flaudebot/local/claude"
	localfly "flaudebot/local/fly"
	localforge "flaudebot/local/forge"
	localslack "flaudebot/local/slack"
	"flaudebot/sessions"
)

// worldFlags say where the local world is and what answers in it.
type worldFlags struct {
	slack, fly, claude, git string // addresses
	data                    string // folder; empty: a temporary one, removed at the end
	agent                   string // scripted, cli or auto
	redis                   string // demo only
	generosity              int    // of Slack's rate limits
	boot                    time.Duration
}

func (f *worldFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.slack, "slack", "127.0.0.1:8700", "`address` of Slack and its page")
	flags.StringVar(&f.fly, "fly", "127.0.0.1:8701", "`address` of the Machines API")
	flags.StringVar(&f.claude, "claude", "127.0.0.1:8702", "`address` of the Messages API")
	flags.StringVar(&f.git, "git", "127.0.0.1:8703", "`address` of the Git host")
	flags.StringVar(&f.data, "data", "", "`folder` that is kept; without it a temporary one that is removed at the end")
	flags.DurationVar(&f.boot, "boot", 300*time.Millisecond, "`time` that a machine takes to boot")
	flags.StringVar(&f.agent, "agent", "scripted", "who answers: `scripted`, cli (the real Claude Code against scripted answers) or auto (the real one, with your credential)")
}

// registerLimits registers what only `local` has.
func (f *worldFlags) registerLimits(flags *flag.FlagSet) {
	flags.IntVar(&f.generosity, "generosity", 1, "how many `times` the calls a minute that Slack promises it grants")
}

func (f *worldFlags) check() error {
	if !oneOf(f.agent, "scripted", "cli", "auto") {
		return fmt.Errorf("--agent %s: want scripted, cli or auto", f.agent)
	}
	if f.boot < 0 {
		return fmt.Errorf("--boot %s: want a time such as 300ms, or 0", f.boot)
	}
	for _, addr := range []string{f.slack, f.fly, f.claude, f.git} {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("%q is no address: want 127.0.0.1:PORT", addr)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%s is not a loopback address: the local world's tokens are public and it runs commands", addr)
		}
	}
	return nil
}

// local runs the local world alone.
func local(ctx context.Context, c cli) error {
	var f worldFlags
	flags := c.flags()
	flags.Var(c.envFile, "env-file", "`FILE` with settings, such as the bot's: FLAUDEBOT_REPOS alone counts here, whose folders on this machine sessions may clone")
	f.register(flags)
	f.registerLimits(flags)
	envOut := flags.String("env-out", "", "`FILE` to write the settings to that a bot needs to run with it; without it they are printed")
	if err := c.parseAll(flags, " besides its flags (local --help)"); err != nil {
		return err
	}
	if _, err := os.Lstat(*envOut); err == nil {
		return fmt.Errorf("--env-out: %s exists, and may hold other settings: name another file, or remove it", *envOut)
	}
	log := slog.New(slog.NewTextHandler(c.stderr, nil))
	w, err := openWorld(f, log)
	if err != nil {
		return err
	}
	defer w.close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.serve(ctx) })
	env := w.botSettings()
	if *envOut != "" {
		if err := env.write(*envOut); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.stdout, "ready http://%s (Ctrl-C ends it)\n", w.slackAddr())
	if *envOut != "" {
		fmt.Fprintf(c.stdout, "The settings of a bot are in %s, without REDIS_URL, the address of a Redis of yours: %s setup --env-file %s asks for it\n", *envOut, c.self, *envOut)
	} else {
		fmt.Fprintln(c.stdout, strings.Join(env.lines, "\n"))
	}
	return g.Wait()
}

// botSettings are what a bot needs to run with this world, but for Redis.
func (w *world) botSettings() *envFile {
	slack, fly := "http://"+w.slackAddr(), "http://"+w.flyAddr()
	const app = "flaudebot-local"
	f := &envFile{lines: []string{"# What a bot needs to run with flaudebot local. It needs REDIS_URL as well, the address of a Redis 7 or later, which local has not."}}
	for _, s := range [][2]string{
		{"SLACK_API_URL", slack + "/api/"},
		{"SLACK_APP_TOKEN", "xapp-local"},
		{"SLACK_BOT_TOKEN", "xoxb-local"},
		{"FLY_FLAPS_BASE_URL", fly},
		{"FLY_API_BASE_URL", fly},
		{"FLY_API_TOKEN", "fly-local"},
		{"FLAUDEBOT_FLY_ORG", "personal"},
		{"FLAUDEBOT_FLY_APP", app},
		{"FLAUDEBOT_IMAGE", w.flyAddr() + "/" + app + ":session"},
		{"FLAUDEBOT_REPOS", w.repoAddress()},
	} {
		f.add(s[0], s[1])
	}
	if w.hosted {
		f.add("GITHUB_TOKEN", forgeToken)
		f.add("FLAUDEBOT_FORGES", w.gitAddr()+"=github")
	}
	if w.flags.agent != "auto" { // which takes a credential of yours
		f.add("ANTHROPIC_BASE_URL", "http://"+w.claudeAddr())
		f.add("ANTHROPIC_API_KEY", "sk-ant-local")
	}
	return f
}

// world is the four stand-ins, listening.
type world struct {
	flags     worldFlags
	dir       string
	temporary bool
	log       *slog.Logger

	listeners map[string]net.Listener // :: slack, fly, claude, git → where it listens
	handlers  map[string]http.Handler
	hosted    bool // the repository is at the Git host
	closers   []func() error
}

func openWorld(f worldFlags, log *slog.Logger) (*world, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	w := &world{flags: f, log: log, listeners: map[string]net.Listener{}, handlers: map[string]http.Handler{}}
	if err := w.open(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) open() error {
	if err := w.makeDir(); err != nil {
		return err
	}
	for name, addr := range map[string]string{"slack": w.flags.slack, "fly": w.flags.fly, "claude": w.flags.claude, "git": w.flags.git} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("listen for %s: %w (choose another address: --%s 127.0.0.1:0 takes a free port, and make demo ARGS=\"--%s 127.0.0.1:0\" hands that on)", name, err, name, name)
		}
		w.listeners[name] = l
	}
	if err := makeRepo(filepath.Join(w.dir, "repo")); err != nil {
		return err
	}
	if err := w.openForge(); err != nil {
		return err
	}
	bin, err := w.makeBin()
	if err != nil {
		return err
	}
	agent, note := w.describeAgent()
	slack, err := localslack.New(localslack.Config{
		Dir: filepath.Join(w.dir, "slack"), Agent: agent, Note: note, RateLimits: true, Generosity: w.flags.generosity, Scopes: deploy.BotScopes(), Log: w.log.With("stand_in", "slack"),
	})
	if err != nil {
		return err
	}
	w.closers = append(w.closers, slack.Close)
	w.handlers["slack"] = slack.Handler()
	fly, err := localfly.New(localfly.Config{
		Dir: filepath.Join(w.dir, "fly"), Runner: []string{"flaudebot", "runner"}, BinDir: bin, Share: w.sharedFolders(),
		BootDelay: w.flags.boot, RateLimits: true, Env: runtimeSettings(), Log: w.log.With("stand_in", "fly"),
	})
	if err != nil {
		return err
	}
	w.closers = append(w.closers, fly.Close)
	w.handlers["fly"] = fly.Handler()
	w.handlers["claude"] = localclaude.New(localclaude.Config{Log: w.log.With("stand_in", "claude")}).Handler()
	return nil
}

// forgeToken is what the local Git host lets push, and open pull requests.
const forgeToken = "forge-local"

// openForge opens the Git host with the small repository in it. Where Git cannot serve one, sessions clone the folder.
func (w *world) openForge() error {
	s, err := localforge.New(localforge.Config{
		Dir: filepath.Join(w.dir, "git"), Tokens: map[string]localforge.Right{forgeToken: localforge.Write}, Protected: []string{"main"},
		Log: w.log.With("stand_in", "git"),
	})
	if errors.Is(err, errors.ErrUnsupported) {
		w.log.Warn("there is no Git host: nothing can be pushed", "err", err)
		w.handlers["git"] = http.NotFoundHandler()
		return nil
	}
	if err != nil {
		return err
	}
	w.handlers["git"], w.hosted = s.Handler(), true
	return s.Add("acme/repo", filepath.Join(w.dir, "repo"))
}

// runtimeSettings are those of Go's race detector, where this program is built with it: they go along to the machines, which run
// the same program.
func runtimeSettings() map[string]string {
	if v := environ("GORACE"); v != "" {
		return map[string]string{"GORACE": v}
	}
	return nil
}

// makeDir makes the data folder. Claude's user in a machine must be able to pass through it to the repository.
func (w *world) makeDir() error {
	if w.flags.data == "" {
		dir, err := os.MkdirTemp("", "flaudebot-")
		if err != nil {
			return fmt.Errorf("make a data folder: %w", err)
		}
		w.dir, w.temporary = dir, true
	} else {
		dir, err := filepath.Abs(w.flags.data)
		if err != nil {
			return fmt.Errorf("data folder %s: %w", w.flags.data, err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // to be passed through
			return fmt.Errorf("make the data folder: %w", err)
		}
		w.dir = dir
	}
	info, err := os.Stat(w.dir)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return os.Chmod(w.dir, info.Mode().Perm()|0o011)
}

// makeBin makes the folder that machines see first in their PATH: flaudebot, and claude as --agent says.
func (w *world) makeBin() (string, error) {
	bin := filepath.Join(w.dir, "bin")
	if err := os.RemoveAll(bin); err != nil {
		return "", fmt.Errorf("clear %s: %w", bin, err)
	}
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // another user runs from it
		return "", fmt.Errorf("make %s: %w", bin, err)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file: %w", err)
	}
	if err := place(self, filepath.Join(bin, "flaudebot")); err != nil {
		return "", err
	}
	if w.flags.agent == "scripted" {
		return bin, os.Symlink("flaudebot", filepath.Join(bin, "claude"))
	}
	real, err := findClaude()
	if err != nil {
		return "", err
	}
	return bin, place(real, filepath.Join(bin, "claude"))
}

// findClaude finds the real Claude Code.
func findClaude() (string, error) {
	name := environ("FLAUDEBOT_TEST_CLAUDE")
	if name == "" {
		name = "claude"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", errors.New("claude is not on the PATH: npm install -g @anthropic-ai/claude-code, or leave --agent out")
	}
	return filepath.EvalSymlinks(path)
}

// place puts an executable at a path that any user can reach: by a link where that works, else by a copy.
func place(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return os.Chmod(to, 0o755) //nolint:gosec // another user runs it
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("open %s: %w", from, err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755) //nolint:gosec // another user runs it
	if err != nil {
		return fmt.Errorf("create %s: %w", to, err)
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return out.Close()
}

// describeAgent says on the page who answers.
func (w *world) describeAgent() (agent, note string) {
	switch w.flags.agent {
	case "cli":
		return "Claude Code, scripted model", "The real Claude Code runs here. Its model is a script: try “remember the number 7”."
	case "auto":
		w.log.Warn("the real Claude Code will run on this machine, with your credential and your files within reach")
		return "Claude Code", "The real Claude Code answers, on this machine and with your credential."
	default:
		return "scripted", "A scripted stand-in answers, not Claude: try “remember the number 7” or “run: date > repo/now”."
	}
}

// makeRepo makes the small Git repository that sessions clone, unless it is there.
func makeRepo(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // cloned by another user
		return fmt.Errorf("make %s: %w", dir, err)
	}
	files := map[string]string{
		"README.md":     "# Greeter\n\nA tiny program to try flaudebot out. `sh greet_test.sh` tests it.\n",
		"greet.sh":      "#!/bin/sh\necho \"Hello, ${1:-world}\"\n",
		"greet_test.sh": "#!/bin/sh\n[ \"$(sh greet.sh Ada)\" = \"Hello, Ada\" ] && echo ok\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // public
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"},
		{"add", "."},
		{"-c", "user.name=flaudebot", "-c", "user.email=flaudebot@localhost", "commit", "--quiet", "--message", "Begin"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s in %s: %w: %s", args[0], dir, err, out)
		}
	}
	return nil
}

func (w *world) repo() string { return filepath.Join(w.dir, "repo") }

// repoAddress is where sessions clone it from.
func (w *world) repoAddress() string {
	if w.hosted {
		return "http://" + w.gitAddr() + "/acme/repo.git"
	}
	return w.repo()
}

// sharedFolders are those that machines clone from: their /tmp is their own, and these may be in the host's.
func (w *world) sharedFolders() []string {
	out := []string{w.repo()}
	repos, err := sessions.ParseRepos(environ("FLAUDEBOT_REPOS"))
	if err != nil {
		return out // said with the settings
	}
	for _, r := range repos {
		path := filepath.Clean(strings.TrimPrefix(r.URL, "file://"))
		if info, err := os.Stat(path); err == nil && info.IsDir() && filepath.IsAbs(path) {
			out = append(out, path)
		}
	}
	return out
}

func (w *world) slackAddr() string  { return w.listeners["slack"].Addr().String() }
func (w *world) flyAddr() string    { return w.listeners["fly"].Addr().String() }
func (w *world) gitAddr() string    { return w.listeners["git"].Addr().String() }
func (w *world) claudeAddr() string { return w.listeners["claude"].Addr().String() }

// serve answers until ctx ends.
func (w *world) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for name, l := range w.listeners {
		srv := &http.Server{
			Handler: w.handlers[name], ReadHeaderTimeout: 10 * time.Second,
			ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
		}
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", name, err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			return srv.Close() // sockets and event streams would hold a polite shutdown up
		})
	}
	return g.Wait()
}

// close ends every machine and removes what was temporary.
func (w *world) close() {
	for _, c := range w.closers {
		if err := c(); err != nil {
			w.log.Warn("stand-in did not end well", "err", err)
		}
	}
	for _, l := range w.listeners {
		_ = l.Close() // closed by its server as a rule
	}
	if w.temporary {
		if err := os.RemoveAll(w.dir); err != nil {
			w.log.Warn("temporary folder left behind", "dir", w.dir, "err", err)
		}
	}
}

// claudeStandIn is the claude command of scripted machines.
func claudeStandIn(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if runtime.GOOS != "windows" {
		signal.Ignore(syscall.SIGPIPE)
	}
	return localclaude.Main(ctx, args, os.Environ(), stdin, stdout, stderr)
}
