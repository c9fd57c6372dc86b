package runner

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// claude runs Claude Code for the turn.
func (t *turn) claude() (Outcome, string) {
	transcript, resume, err := t.transcript()
	if err != nil {
		return Outcome{ExitCode: 1, Failure: FailStart, Error: err.Error()}, ""
	}
	before := size(transcript)
	t.phase(PhaseStarting)
	kills := t.cfg.memoryKills()
	p, lane, err := t.ask(transcript, resume)
	if err != nil {
		return Outcome{ExitCode: 1, Failure: FailStart, Error: err.Error()}, ""
	}
	stays := p.mayStay(t) && grows(transcript, before)
	if stays {
		t.cfg.warm.keep(p, transcript)
		t.cfg.sweep(0)
	} else {
		p.finish()
	}
	flush(transcript)
	out, answer := p.outcome(t, resume, stays)
	if out.Failure == FailKilled && t.cfg.memoryKills() > kills {
		out.Failure = FailMemory
	}
	out.Denied, out.Lane, out.SpentUSD = p.stream.denied, lane, p.gate.meter.settle()
	if out.Failure == FailNone && (size(transcript) <= before || t.cfg.torn(transcript)) {
		out.Failure, out.ExitCode = FailDisk, 1
		out.Error = "the conversation could not be kept: the volume may be full"
	}
	return out, answer
}

// ask has a process do the turn: the one that did the turn before, or a new one.
func (t *turn) ask(transcript string, resume bool) (*claudeProcess, Lane, error) {
	key := t.key()
	if p := t.cfg.warm.take(t.cfg, key, transcript); p != nil && p.do(t, t.cfg.Grace.Hear) {
		return p, LaneProcess, nil
	}
	gate, err := t.cfg.openGateway(t.secrets)
	if err != nil {
		return nil, "", err
	}
	p := start(t.cfg, key, gate, t.command(gate, resume))
	p.do(t, 0)
	return p, "", nil
}

// torn reports whether the volume is full and the transcript ends within a line.
func (c Config) torn(transcript string) bool {
	if free, err := freeBytes(c.Data); err != nil || free > 64<<10 {
		return false
	}
	f, err := os.OpenFile(transcript, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	last := make([]byte, 1)
	_, err = f.ReadAt(last, size(transcript)-1)
	return err == nil && last[0] != '\n'
}

// flush waits until the transcript is on disk: Claude Code leaves that to the system, and the machine may be stopped
// hard. The file is Claude's user's: it must not lead root elsewhere, nor hold it up.
func flush(transcript string) {
	if f, err := os.OpenFile(transcript, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err == nil {
		_, _ = f.Sync(), f.Close()
	}
}

func size(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

var notAlnum = regexp.MustCompile(`[^A-Za-z0-9]`)

// transcript is where Claude Code keeps the conversation, and whether there is one. An empty file, left by a
// full disk, would be "not found" to --resume and "in use" to --session-id: it is removed.
func (t *turn) transcript() (path string, resume bool, err error) {
	dir := t.workdir()
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	path = filepath.Join(t.cfg.claudeDir(), "projects", notAlnum.ReplaceAllString(dir, "-"), t.SessionID+".jsonl")
	if _, there := os.Lstat(path); there != nil {
		if err := t.fetchTranscript(path); err != nil {
			return path, false, err
		}
	}
	switch info, err := os.Lstat(path); {
	case err != nil:
		return path, false, nil //nolint:nilerr // there is none
	case info.Size() == 0:
		_ = os.Remove(path)
		return path, false, nil
	case t.Fresh:
		_ = os.Rename(path, path+".set-aside-"+time.Now().UTC().Format("20060102T150405"))
		return path, false, nil
	}
	return path, true, nil
}

// workdir is the folder that Claude Code works in: the workspace, or the first repository when what that brings is trusted. Claude Code takes
// hooks and the like from nowhere else.
func (t *turn) workdir() string {
	if t.Settings.Trust && len(t.Repos) > 0 {
		dir := filepath.Join(t.cfg.workspace(), t.Repos[0].Folder())
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return t.cfg.workspace()
}

// fetchTranscript brings the conversation along, if there is one, from another folder that Claude Code has worked in, where it looks for it
// alone. It is Claude's user who moves it, and a crash leaves it in one place or the other. After an error no turn must begin: it would have
// forgotten all.
func (t *turn) fetchTranscript(path string) error {
	found, _ := filepath.Glob(filepath.Join(t.cfg.claudeDir(), "projects", "*", t.SessionID+".jsonl"))
	if len(found) == 0 {
		return nil
	}
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(size(b), size(a)) })
	const move = `mkdir -p "$3"; if [ -d "$1/$2" ]; then mv "$1/$2" "$3/"; fi; mv "$1/$2.jsonl" "$3/"`
	_, err := t.cfg.output(context.Background(), 20*time.Second, t.cfg.claudeDir(), "sh", "-c", move, "sh", filepath.Dir(found[0]), t.SessionID, filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("bring the conversation along: %w", err)
	}
	return nil
}

// flags are those of the settings.
func (t *turn) flags() []string {
	s := t.Settings
	var args []string
	if mode := s.Mode(); mode == ModeBypass {
		args = append(args, "--dangerously-skip-permissions")
	} else {
		args = append(args, "--permission-mode", mode)
	}
	if s.Trust {
		args = append(args, "--setting-sources", "user,project")
	} else {
		args = append(args, "--setting-sources", "user", "--strict-mcp-config")
	}
	if s.MCP != "" {
		args = append(args, "--mcp-config="+s.MCP)
	}
	for _, rule := range s.AllowedTools {
		args = append(args, "--allowedTools="+rule)
	}
	if s.Model != "" {
		args = append(args, "--model", s.Model)
	}
	if s.Fallback != "" {
		args = append(args, "--fallback-model", s.Fallback)
	}
	if s.Effort != "" {
		args = append(args, "--effort", s.Effort)
	}
	if text := t.systemPrompt(); text != "" {
		args = append(args, "--append-system-prompt", text)
	}
	return args
}

// systemPrompt is what is added to Claude Code's own.
func (t *turn) systemPrompt() string {
	var parts []string
	if !isBlank(t.Settings.Instructions) {
		parts = append(parts, "# Standing instructions\n\nThe admins of the Slack channel that you work for have set these:\n\n"+t.Settings.Instructions)
	}
	if dir := t.workdir(); dir != t.cfg.workspace() {
		parts = append(parts, "Messages name files, such as attachments/report.pdf, as they are below "+t.cfg.workspace()+"; other repositories are there as well.")
	}
	return strings.Join(parts, "\n\n")
}

// command is the command line and the environment. What a repository brings (settings, hooks, MCP servers) is not
// obeyed unless it is trusted: it could send what is said elsewhere. Its CLAUDE.md is read.
func (t *turn) command(gate *gateway, resume bool) *exec.Cmd {
	args := append([]string{"-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"}, t.flags()...)
	if resume {
		args = append(args, "--resume", t.SessionID)
	} else {
		args = append(args, "--session-id", t.SessionID)
	}
	for _, r := range t.Repos {
		if dir := filepath.Join(t.cfg.workspace(), r.Folder()); dir != t.workdir() {
			args = append(args, "--add-dir", dir)
		}
	}
	if t.workdir() != t.cfg.workspace() {
		args = append(args, "--add-dir", t.cfg.attachments())
	}
	cmd := t.cfg.asClaude(exec.Command(t.cfg.Claude, args...)) //nolint:gosec // the session image's program
	cmd.Dir = t.workdir()
	cmd.Env = append(cmd.Env, t.commandEnv()...)
	cmd.Env = append(cmd.Env, gate.env(t.secrets)...)
	cmd.Env = append(cmd.Env,
		"CLAUDE_CONFIG_DIR="+t.cfg.claudeDir(), "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD=1",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1", "CLAUDE_CODE_MAX_RETRIES=3", "CLAUDE_CODE_ENABLE_TASKS=0",
	)
	if t.Settings.Trust { // else its settings may lead Claude Code past the gateway
		cmd.Env = append(cmd.Env, "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST=1")
	}
	if t.cfg.UID < 0 && os.Geteuid() == 0 {
		cmd.Env = append(cmd.Env, "IS_SANDBOX=1") // else Claude Code refuses to run without asking, as root
	}
	return cmd
}

// asClaude has a command run as Claude's user, in a clean environment, in a process group of its own.
func (c Config) asClaude(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append([]string{
		"HOME=" + c.home(), "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=dumb", "USER=claude",
		"GIT_TERMINAL_PROMPT=0", "GIT_PAGER=cat", c.mark(),
	}, c.gitEnv()...)
	if c.enclosed {
		cmd.Env = append(cmd.Env, c.enclosure.env()...)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.UID >= 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.UID)} //nolint:gosec // a uid
	}
	return cmd
}

// output runs a command of ours as Claude's user, with a time limit.
func (c Config) output(ctx context.Context, limit time.Duration, dir, name string, args ...string) (string, error) {
	out, said, err := c.run(ctx, limit, dir, name, args...)
	if text := lastLine(said); err != nil && text != "" {
		err = errors.New(text)
	}
	return out, err
}

// run is output that tells all that was said on standard error.
func (c Config) run(ctx context.Context, limit time.Duration, dir, name string, args ...string) (out, said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := c.limited(ctx, dir, name, args...)
	var outBuf, errBuf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &outBuf, &errBuf
	err = c.start(cmd.Run)
	return outBuf.String(), errBuf.String(), err
}

// limited is a command as Claude's user that ends with ctx, and with it all that it has started in its process group.
func (c Config) limited(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := c.asClaude(exec.CommandContext(ctx, name, args...)) //nolint:gosec // the callers' own, or what a channel's admins wrote
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
