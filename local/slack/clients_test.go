package slack_test

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flaudebot/local/slack"
)

// TestOtherClients runs Slack's own Node libraries, which know nothing of this server.
func TestOtherClients(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("FLAUDEBOT_TEST_SLACK_CLIENTS")
	if dir == "" {
		t.Skip("left out: FLAUDEBOT_TEST_SLACK_CLIENTS names no folder with the node_modules of tools/slack-clients")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("left out: node is not installed")
	}
	server, err := slack.New(slack.Config{RateLimits: true, RefreshGrace: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		_ = server.Close()
		h.Close()
	})
	script, err := filepath.Abs("testdata/clients.cjs")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, script, h.URL)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "ok all\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
