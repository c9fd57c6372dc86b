package runner

import (
	"context"
	"path/filepath"
	"strings"
	"time"
)

// gitTime bounds one question to a repository.
const gitTime = 20 * time.Second

// quiet has Git run neither hooks nor a monitor of the repository's own.
func quiet() []string {
	return []string{"-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"}
}

// at is the folder of a repository.
func (c Config) at(dir string) string { return filepath.Join(c.workspace(), dir) }

// git runs Git in a repository, as Claude's user: what that has set there reaches no further than its own commands do.
func (c Config) git(ctx context.Context, limit time.Duration, dir string, args ...string) (string, error) {
	text, err := c.output(ctx, limit, c.at(dir), "git", append(quiet(), args...)...)
	return strings.TrimSpace(text), err
}

// ask asks Git about a repository.
func (c Config) ask(ctx context.Context, dir string, args ...string) (string, error) {
	return c.git(ctx, gitTime, dir, args...)
}
