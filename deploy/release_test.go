package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestRelease has `make release` build for this platform, of a tagged commit, and looks at what it made: an archive with its checksum, in which the
// binary knows its version and its commit.
func TestRelease(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	run := func(dir, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.com", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	tree, dist, platform := filepath.Join(work, "tree"), filepath.Join(work, "dist"), runtime.GOOS+"/"+runtime.GOARCH
	run(work, "mkdir", tree)
	run("..", "sh", "-c", `tar --exclude=./.git --exclude=./.tools --exclude=./bin --exclude=./dist -cf - . | tar -xf - -C "$0"`, tree)
	run(tree, "git", "init", "-q")
	run(tree, "git", "add", "-A")
	run(tree, "git", "commit", "-qm", "all of it")
	run(tree, "git", "tag", "v1.2.3")
	run(tree, "make", "release", "DIST="+dist, "PLATFORMS="+platform)
	name := "flaudebot_v1.2.3_" + runtime.GOOS + "_" + runtime.GOARCH
	run(dist, "sha256sum", "--check", "--strict", "SHA256SUMS")
	run(dist, "tar", "xzf", name+".tar.gz")
	commit := run(tree, "git", "rev-parse", "HEAD")
	if got, want := run(dist, "./"+name+"/flaudebot", "version"), "flaudebot v1.2.3 commit "+commit+", "+runtime.Version()+", "+platform; got != want {
		t.Errorf("version = %q, want %q", got, want)
	}
	for _, file := range []string{"README.md", "LICENSE", "CHANGELOG.md"} {
		if _, err := os.Stat(filepath.Join(dist, name, file)); err != nil {
			t.Errorf("the archive lacks %s: %v", file, err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "README.md"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "make", "release", "DIST="+dist, "PLATFORMS="+platform)
	cmd.Dir = tree
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "commit first") {
		t.Errorf("with a change that is not committed: %v\n%s", err, out)
	}
}
