package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"flaudebot/runner"
)

// TestRealClaudeHosts: where a channel names the hosts that may be reached, the real Claude Code works as ever, and neither it nor its commands reach
// anything else; it is kept for the next turn, and one without such settings is free again.
func TestRealClaudeHosts(t *testing.T) {
	t.Parallel()
	program := realClaude(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can hold Claude's user to some hosts")
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("out")) }))
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	m := newRealMachine(t, program)
	m.env = append(m.env, "FLAUDEBOT_CLAUDE_USER=10001")
	m.boot()
	m.settings = runner.Settings{Hosts: []string{"pypi.org"}, LingerSeconds: 60}
	ask := `run: curl -sS -m 5 http://127.0.0.1:` + port + ` 2>&1 && echo "got it"; curl -sS -m 5 --noproxy '*' http://192.0.2.1 2>&1; curl -sS -m 5 https://evil.example/x 2>&1; curl -sS -m 5 http://evil.example/x 2>&1; true`
	turn := m.begin(ask)
	notes := ""
	m.follow(turn, func(e runner.Event) bool {
		if e.Kind == runner.KindNote {
			notes += e.Text + "\n"
		}
		return false
	})
	r := askRunner[runner.ResultReply](m, "result", runner.ResultRequest{Turn: turn})
	if r.Outcome.Failure != runner.FailNone || strings.Contains(r.Text, "got it") || !strings.Contains(r.Text, "evil.example: the settings of this channel do not name this host") {
		t.Errorf("outcome = %+v %q, want nothing reached", r.Outcome, r.Text)
	}
	if !slices.Equal(r.Outcome.Unreached, []string{"evil.example"}) {
		t.Errorf("the outcome names %q as not reached", r.Outcome.Unreached)
	}
	if strings.Count(notes, "evil.example is not among the hosts") != 1 {
		t.Errorf("it is told %q, want the host that was asked for, once", notes)
	}
	if out, answer := m.say("say: still here"); out.Lane != runner.LaneProcess || !strings.Contains(answer, "still here") {
		t.Errorf("the next turn: %+v %q, want it in the same process", out, answer)
	}
	m.settings.Hosts = nil
	if out, answer := m.say("run: curl -sS -m 5 http://127.0.0.1:" + port + ` 2>&1 && echo "got it"`); out.Failure != runner.FailNone || !strings.Contains(answer, "got it") {
		t.Errorf("without hosts: %+v %q, want it reached", out, answer)
	}
}
