package sessions

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
)

// claudeScript is a claude with the real one's flags and output, as far as the runner needs them. What it was asked it notes beside the
// workspace, for a witness; at a prompt that begins with "hold" it works until there is a file named go.
const claudeScript = `#!/bin/sh
session=
while [ $# -gt 0 ]; do
	case "$1" in --session-id|--resume) session=$2;; esac
	shift
done
prompt=
while read -r line; do
	case "$line" in *'"type":"user"'*) prompt=$(printf '%s\n' "$line" | sed 's/.*"content":"\([^"]*\)".*/\1/'); break;; esac
done
data=${FLAUDEBOT_AGENT}
echo "$prompt" >>"$data/witness"
dir=$CLAUDE_CONFIG_DIR/projects/$(pwd -P | sed 's/[^A-Za-z0-9]/-/g')
mkdir -p "$dir" && echo "$prompt" >>"$dir/$session.jsonl"
echo '{"type":"system","subtype":"init","session_id":"'$session'","model":"script"}'
case "$prompt" in hold*) until [ -e "$data/go" ]; do sleep 0.1; done;; esac
echo '{"type":"result","subtype":"success","is_error":false,"result":"answer to '$prompt'","total_cost_usd":0.5,"session_id":"'$session'"}'
cat >/dev/null
`

// gitScript is a git whose clones wait until there is a file named go.
const gitScript = `#!/bin/sh
data=${FLAUDEBOT_AGENT}
case "$*" in *clone*) : >"$data/cloning"; until [ -e "$data/go" ]; do sleep 0.1; done;; esac
PATH=${PATH#*:} exec git "$@"
`

// rig is a bot whose machines have real runners, asked by exec, with that claude.
type rig struct {
	*bot
	r       *replica
	refused atomic.Bool // Fly takes no connections
	tries   atomic.Int64
}

func newReal(t *testing.T, change func(*ServiceConfig, *MachinesConfig)) *rig {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"claude": claudeScript, "git": gitScript} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	linkSelf(t, filepath.Join(bin, "flaudebot"))
	b := &rig{bot: &bot{
		world: newWorldOn(t, localfly.Config{
			BinDir: bin, Runner: []string{"flaudebot", "runner"}, Env: map[string]string{"FLAUDEBOT_CLAUDE_USER": "0"},
		}),
		mini: miniredis.RunT(t),
	}}
	b.rdb = b.redis()
	dial := (&net.Dialer{}).DialContext
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	client, err := fly.New(fly.Config{
		BaseURL: b.url, LogsBaseURL: b.url, Token: "fly-local", Unlimited: true, Tries: 1,
		HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			b.tries.Add(1)
			if b.refused.Load() {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			}
			return transport.RoundTrip(r)
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.r = b.replica(func(sv *ServiceConfig, m *MachinesConfig) {
		m.Fly, m.Handover = client, ExecHandover{Fly: client}
		if change != nil {
			change(sv, m)
		}
	}).start()
	return b
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// linkSelf gives this very program another name.
func linkSelf(t *testing.T, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Link(self, name) == nil {
		return
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}

// volumes are the folders of all volumes that there are.
func (b *rig) volumes() []string {
	dirs, _ := filepath.Glob(filepath.Join(b.dir, "volumes", "*"))
	return dirs
}

// asked counts how often Claude was asked something, in all volumes.
func (b *rig) askedClaude(prompt string) int {
	n := 0
	for _, dir := range b.volumes() {
		raw, _ := os.ReadFile(filepath.Join(dir, "witness"))
		for line := range strings.Lines(string(raw)) {
			if strings.TrimSpace(line) == prompt {
				n++
			}
		}
	}
	return n
}

// begun waits until Claude is at work on a prompt.
func (b *rig) begun(prompt string) {
	b.t.Helper()
	b.until("Claude at work", func() bool { return b.askedClaude(prompt) > 0 })
}

// goOn lets what holds in the machines go on.
func (b *rig) goOn() {
	b.t.Helper()
	for _, dir := range b.volumes() {
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.t.Error(err)
		}
	}
}

// ended reports whether a runner has the outcome of a turn in its journal.
func (b *rig) outcomes() int {
	n := 0
	for _, dir := range b.volumes() {
		names, _ := filepath.Glob(filepath.Join(dir, ".flaudebot", "turns", "*.json"))
		n += len(names)
	}
	return n
}

// line is what the thread shows to be waited for; "": nothing.
func (b *rig) line() string {
	b.front.mu.Lock()
	defer b.front.mu.Unlock()
	if len(b.front.lines) == 0 {
		return ""
	}
	return b.front.lines[len(b.front.lines)-1]
}

// toldOnly fails unless the thread was told these lines alone, each so many times at most, and shows none any more.
func (b *rig) toldOnly(most int, lines ...string) {
	b.t.Helper()
	b.front.mu.Lock()
	defer b.front.mu.Unlock()
	told := map[string]int{}
	for _, l := range b.front.lines {
		if l != "" {
			told[l]++
		}
	}
	for l, n := range told {
		if !slices.Contains(lines, l) || n > most {
			b.t.Errorf("the thread was told %q %d times, want of %q, and quietly", l, n, lines)
		}
	}
	if n := len(b.front.lines); n > 0 && b.front.lines[n-1] != "" {
		b.t.Errorf("the thread still says %q", b.front.lines[n-1])
	}
}

// ranOnce fails unless Claude was asked the turn's prompt once and each part of its answer was posted once.
func (b *rig) ranOnce(t Turn, out Outcome) {
	b.t.Helper()
	if n := b.askedClaude(t.Text); n != 1 {
		b.t.Errorf("%q ran %d times", t.Text, n)
	}
	b.postedOnce(t)
	if out.Failure != "" || out.ExitCode != 0 || out.Answer != "answer to "+t.Text {
		b.t.Errorf("%q ended with %+v", t.Text, out)
	}
}

func (b *rig) postedOnce(t Turn) {
	b.t.Helper()
	for _, part := range []string{"live", "1", "2"} {
		if n := len(b.front.of(t.ID, part)); n != 1 {
			b.t.Errorf("part %s of %q was posted %d times", part, t.Text, n)
		}
	}
}

// atRest fails unless the one machine is stopped, nobody holds it, and there is one volume.
func (b *rig) atRest() {
	b.t.Helper()
	b.idle(b.r)
	b.have(1, 1)
	all := b.machinesIn(testApp)
	if len(all) != 1 {
		return
	}
	id := all[0].ID
	b.until("a stopped machine", func() bool {
		mach, err := b.fly.Machine(b.t.Context(), testApp, id)
		return err == nil && mach.State == "stopped"
	})
	lease, err := b.fly.AcquireLease(b.t.Context(), testApp, id, time.Second, "test")
	if err != nil {
		b.t.Errorf("its lease: %v", err)
		return
	}
	if err := b.fly.ReleaseLease(b.t.Context(), testApp, id, lease.Nonce); err != nil {
		b.t.Error(err)
	}
}

// say is a turn of the thread, which mentions the bot.
func (b *rig) say(ts, text string) Turn {
	b.t.Helper()
	return b.r.accept(turn(ts, text, true))
}

// end ends the thread's session, and waits until it has.
func (b *rig) end() {
	b.t.Helper()
	if _, err := b.r.End(b.t.Context(), thread(), "U1", ""); err != nil {
		b.t.Fatal(err)
	}
}

// gone fails unless the session ended, with one goodbye, and left nothing.
func (b *rig) gone() {
	b.t.Helper()
	b.until("the goodbye", func() bool { return len(b.front.goodbyes()) > 0 })
	b.idle(b.r)
	b.have(0, 0)
	if bye := b.front.goodbyes(); len(bye) != 1 || !bye[0].outcome.Destroyed {
		b.t.Errorf("the end was posted as %+v", bye)
	}
}
