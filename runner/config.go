package runner

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Config says where the runner's things are.
type Config struct {
	Data    string // the volume
	RunDir  string // sockets; gone with the machine
	Claude  string // program
	UID     int    // user that Claude Code runs as; -1: the runner's own
	Version string
	Log     *slog.Logger
	Getenv  func(string) string // for the seed system's variables

	// Unwatched bounds how long a runner that nobody asks anything stays; 0: 5 minutes.
	Unwatched time.Duration
	// Unacked bounds how long an outcome that nobody acknowledges keeps it; 0: 10 minutes.
	Unacked time.Duration
	// SetUp bounds a channel's set-up command; 0: 15 minutes.
	SetUp time.Duration
	Grace Grace
	// VMStat is the file in which the kernel counts what it has killed for want of memory; "": /proc/vmstat.
	VMStat string

	gitName, gitEmail string // of the turn

	enclosure *enclosure // where commands reach the named hosts alone
	enclosed  bool       // the turn's do

	warm   *warm // Claude Code between two turns
	adopts bool  // what the turn's processes leave behind becomes this process's own, see adopt
}

// Grace is how long processes may take to end by themselves before they are made to.
type Grace struct {
	Interrupt time.Duration // after a stop's request; 0: 5 s
	Term      time.Duration // after SIGTERM; 0: 3 s
	Hear      time.Duration // a prompt, where Claude Code waited for one; 0: 10 s. 0.02 s is usual, before it asks the API
	Result    time.Duration // after the result; 0: 10 s. Claude Code itself gives background work 5 s
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.VMStat = cmp.Or(c.VMStat, "/proc/vmstat")
	c.Unwatched = cmp.Or(c.Unwatched, 5*time.Minute)
	c.Unacked = cmp.Or(c.Unacked, 10*time.Minute)
	c.Grace.Interrupt = cmp.Or(c.Grace.Interrupt, 5*time.Second)
	c.Grace.Term = cmp.Or(c.Grace.Term, 3*time.Second)
	c.Grace.Hear = cmp.Or(c.Grace.Hear, 10*time.Second)
	c.Grace.Result = cmp.Or(c.Grace.Result, 10*time.Second)
	return c
}

// defaultUID is the user of the session image, for machines without a user named claude.
const defaultUID = 10001

// ConfigFromEnv reads FLAUDEBOT_DATA, FLAUDEBOT_RUN_DIR, FLAUDEBOT_CLAUDE and FLAUDEBOT_CLAUDE_USER.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	or := func(name, def string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return def
	}
	c := Config{
		Data: or("FLAUDEBOT_DATA", "/data"), RunDir: or("FLAUDEBOT_RUN_DIR", "/run/flaudebot"), Claude: or("FLAUDEBOT_CLAUDE", "claude"),
		UID: -1, Getenv: getenv, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if os.Geteuid() != 0 {
		return c, nil
	}
	name := or("FLAUDEBOT_CLAUDE_USER", "claude")
	if n, err := strconv.Atoi(name); err == nil {
		c.UID = n
		return c, nil
	}
	u, err := user.Lookup(name)
	switch {
	case err == nil:
		c.UID, err = strconv.Atoi(u.Uid)
		return c, err
	case getenv("FLAUDEBOT_CLAUDE_USER") != "":
		return c, fmt.Errorf("FLAUDEBOT_CLAUDE_USER=%s: no such user", name)
	}
	c.UID = defaultUID
	return c, nil
}

func (c Config) own() string         { return filepath.Join(c.Data, ".flaudebot") } // nobody else's
func (c Config) workspace() string   { return filepath.Join(c.Data, "workspace") }
func (c Config) attachments() string { return filepath.Join(c.workspace(), "attachments") }
func (c Config) claudeDir() string   { return filepath.Join(c.Data, "claude") } // CLAUDE_CONFIG_DIR, as in the seed system
func (c Config) home() string        { return filepath.Join(c.Data, "home") }
func (c Config) socket() string      { return filepath.Join(c.RunDir, "runner.sock") }
func (c Config) gitSocket() string   { return filepath.Join(c.RunDir, "git.sock") }

// lock keeps a second runner from the volume: two that resume one conversation would lose one of its branches. The
// system unlocks it when the process ends, however it does.
func (c Config) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.own(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the volume: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // a descriptor
		return nil, errors.Join(fmt.Errorf("another runner is at work on %s: %w", c.Data, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// mark is in the environment of all that is run for a turn, and of nothing else.
func (c Config) mark() string { return "FLAUDEBOT_AGENT=" + c.Data }

// makeDirs makes the folders: the runner's own closed to others, the rest Claude's.
func (c Config) makeDirs() error {
	if err := os.MkdirAll(c.RunDir, 0o755); err != nil { //nolint:gosec // Claude's user reaches the git socket in it
		return fmt.Errorf("make %s: %w", c.RunDir, err)
	}
	if err := os.MkdirAll(c.Data, 0o755); err != nil { //nolint:gosec // without a volume there is no such folder yet
		return fmt.Errorf("make %s: %w", c.Data, err)
	}
	if err := os.MkdirAll(filepath.Join(c.own(), "turns"), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", c.own(), err)
	}
	for _, dir := range []string{c.workspace(), c.claudeDir(), c.home()} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // one machine, one person
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if c.UID >= 0 {
			if err := os.Chown(dir, c.UID, c.UID); err != nil {
				return fmt.Errorf("hand %s to Claude's user: %w", dir, err)
			}
		}
	}
	if err := c.makeHooks(); err != nil {
		return err
	}
	return c.makeGitSettings()
}

// makeGitSettings writes the Git settings of Claude's user where there are none: whole or not at all.
func (c Config) makeGitSettings() error {
	rc := filepath.Join(c.home(), ".gitconfig")
	if _, err := os.Lstat(rc); err == nil {
		return nil
	}
	// A repository on a local path belongs to somebody else as a rule.
	aside := filepath.Join(c.own(), "gitconfig.new")
	err := os.WriteFile(aside, []byte("[safe]\n\tdirectory = *\n"), 0o644) //nolint:gosec // no secret
	if err == nil && c.UID >= 0 {
		err = os.Lchown(aside, c.UID, c.UID)
	}
	if err == nil {
		err = os.Rename(aside, rc)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", rc, err)
	}
	return nil
}

// tidy sees to what a runner that was killed left half done: files that were to replace others, clones, and a folder that was not
// handed over yet.
func (c Config) tidy() {
	for _, pattern := range []string{
		filepath.Join(c.own(), "*.new"), filepath.Join(c.gitDir(), "*.new"), filepath.Join(c.hooks(), "*.new"), filepath.Join(c.own(), "turns", "*.new"),
		filepath.Join(c.own(), "cloning-*"), c.surveyDir(), filepath.Join(c.workspace(), ".cloning-*"),
	} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			if err := os.RemoveAll(name); err != nil {
				c.Log.Warn("left half done, and not removed", "name", name, "err", err)
			}
		}
	}
	diffs, _ := filepath.Glob(filepath.Join(c.own(), "turns", "*.diff"))
	for _, name := range diffs {
		if _, err := os.Lstat(strings.TrimSuffix(name, ".diff") + ".json"); errors.Is(err, fs.ErrNotExist) { // its turn was interrupted
			_ = os.Remove(name)
		}
	}
	if c.UID >= 0 {
		_ = os.Lchown(c.attachments(), c.UID, c.UID) // there may be none
	}
}
