package claude

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func toolNames() []string { return []string{"Bash", "Read", "Write", "TodoWrite"} }

// bashTimeout is how long a command may take that names no limit of its own, as in Claude Code.
const bashTimeout = 2 * time.Minute

// mostOutput is how much of a command's output goes into the conversation, in bytes.
const mostOutput = 30000

// tool runs one.
func (a *agent) tool(ctx context.Context, u block) (text string, failed bool) {
	var in struct {
		Command string `json:"command"`
		Path    string `json:"file_path"`
		Content string `json:"content"`
		Timeout int    `json:"timeout"` // in milliseconds
	}
	if err := json.Unmarshal(u.Input, &in); err != nil {
		return "InputValidationError: " + err.Error(), true
	}
	switch u.Name {
	case "Bash":
		limit := bashTimeout
		if in.Timeout > 0 {
			limit = time.Duration(in.Timeout) * time.Millisecond
		}
		return a.bash(ctx, in.Command, limit)
	case "Write":
		err := os.MkdirAll(filepath.Dir(in.Path), 0o755) //nolint:gosec // the person's own files
		if err == nil {
			err = os.WriteFile(in.Path, []byte(in.Content), 0o644) //nolint:gosec // as above
		}
		if err != nil {
			return err.Error(), true
		}
		return "File created successfully at: " + in.Path, false
	case "Read":
		raw, err := os.ReadFile(in.Path)
		if err != nil {
			return err.Error(), true
		}
		return string(raw), false
	case "TodoWrite":
		select { // so that a person sees it go on
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
		return "Todos have been modified successfully.", false
	}
	return "No such tool available: " + u.Name, true
}

// bash runs a command in a session of its own, as Claude Code does.
func (a *agent) bash(ctx context.Context, command string, limit time.Duration) (text string, failed bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command) //nolint:gosec // what was asked for
	cmd.Dir = a.cwd
	for k, v := range a.env {
		if k != "CLAUDE_CODE_OAUTH_TOKEN" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text = strings.TrimRight(string([]rune(out.String())), "\n") // a byte that is no text becomes U+FFFD
	if len(text) > mostOutput {
		text = strings.ToValidUTF8(text[:mostOutput], "") + "\n… [output cut]"
	}
	var ee *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "Exit code 143\nCommand timed out after " + limit.String() + "\n" + text, true
	case errors.As(err, &ee):
		return fmt.Sprintf("Exit code %d\n%s", ee.ExitCode(), text), true
	case err != nil:
		return err.Error(), true
	}
	return text, false
}
