package runner

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// setUpLimit bounds the set-up command.
const setUpLimit = 15 * time.Minute

func (c Config) setUpFile() string { return filepath.Join(c.own(), "setup") }

// setUpError is how a set-up command failed, with the end of what it printed.
type setUpError struct {
	code int
	text string
}

func (e setUpError) Error() string { return e.text }

// setUp runs the channel's set-up command in a workspace where it has not been run to its end: what says so is written after that, so
// that one that was cut short is run again, and so is one that has changed. It stops at the first of its commands that fails. What it
// leaves running is ended.
func (t *turn) setUp(ctx context.Context) error {
	if isBlank(t.Settings.SetUp) {
		return nil
	}
	sum := sha256.Sum256([]byte(t.Settings.SetUp))
	mark := hex.EncodeToString(sum[:])
	if had, err := os.ReadFile(t.cfg.setUpFile()); err == nil && string(had) == mark {
		return nil
	}
	t.phase(PhaseSetUp)
	limit := cmp.Or(t.cfg.SetUp, setUpLimit)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := t.cfg.limited(limited, t.setUpDir(), shell(), "-e", "-c", t.Settings.SetUp)
	cmd.Env = append(cmd.Env, t.commandEnv()...)
	out := &tailBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	err := t.cfg.start(cmd.Run)
	if cmd.Process != nil {
		t.cfg.sweep(cmd.Process.Pid)
	}
	code := exitCode(cmd.ProcessState, err)
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		return setUpError{124, "the set-up command took longer than " + limit.String() + t.lastOf(out)}
	case cmd.ProcessState == nil:
		return setUpError{code, fmt.Sprintf("the set-up command could not be started: %s", err)}
	case code != 0:
		return setUpError{code, fmt.Sprintf("the set-up command ended with exit code %d%s", code, t.lastOf(out))}
	}
	if err := t.cfg.save(t.cfg.setUpFile(), []byte(mark)); err != nil {
		return fmt.Errorf("note that the set-up command has run: %w", err)
	}
	return nil
}

// setUpDir is where the set-up command is run: in the repository, or in the workspace when there are several or none.
func (t *turn) setUpDir() string {
	if len(t.Repos) == 1 {
		return filepath.Join(t.cfg.workspace(), t.Repos[0].Folder())
	}
	return t.cfg.workspace()
}

func shell() string {
	if path, err := exec.LookPath("bash"); err == nil {
		return path
	}
	return "sh"
}

// shownOutput is how much of the end of an output people are shown, in bytes.
const shownOutput = 1500

// lastOf is the end of what was printed, secrets removed, for behind a sentence.
func (t *turn) lastOf(out *tailBuffer) string {
	text := strings.TrimSpace(strings.ToValidUTF8(redactor(t.secrets).Replace(out.String()), "\uFFFD"))
	if cut := len(text) - shownOutput; cut > 0 {
		text = "…" + strings.ToValidUTF8(text[cut:], "")
	}
	if text == "" {
		return ""
	}
	return ":\n" + text
}

// tailBuffer keeps the last 32 KiB or so of what is written: more than is shown, so that a secret that is cut at its start is not.
type tailBuffer struct{ kept []byte }

const tailSize = 32 << 10

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p...)
	if len(b.kept) > 2*tailSize {
		b.kept = append(b.kept[:0], b.kept[len(b.kept)-tailSize:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string { return string(b.kept) }
