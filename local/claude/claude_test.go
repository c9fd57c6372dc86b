package claude

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// actAs makes the test's own binary be the claude command, as cmd/flaudebot is in a scripted machine.
const actAs = "FLAUDEBOT_TEST_ACT_AS_CLAUDE"

func TestMain(m *testing.M) {
	if os.Getenv(actAs) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := Main(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// desk is where claude is started: an API, a home and a working directory of its own.
type desk struct {
	t       *testing.T
	api     *httptest.Server
	program string // "": the stand-in
	home    string
	cwd     string
	key     string
	extra   []string      // environment
	hold    atomic.Bool   // the API answers nothing
	held    chan struct{} // gets each request that is not answered
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, home: t.TempDir(), cwd: t.TempDir(), key: Key, held: make(chan struct{}, 10)}
	api := New(Config{}).Handler()
	d.api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.hold.Load() {
			_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the client goes
			d.held <- struct{}{}
			<-r.Context().Done()
			return
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(d.api.Close)
	return d
}

func (d *desk) command(args ...string) *exec.Cmd {
	d.t.Helper()
	program := d.program
	env := []string{
		"HOME=" + d.home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "IS_SANDBOX=1",
		"ANTHROPIC_BASE_URL=" + d.api.URL, "ANTHROPIC_API_KEY=" + d.key,
		"CLAUDE_CONFIG_DIR=" + d.home + "/config", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1",
		"CLAUDE_CODE_MAX_RETRIES=1", "CLAUDE_CODE_ENABLE_TASKS=0",
	}
	if program == "" {
		program = os.Args[0]
		env = append(env, actAs+"=1", "GORACE=atexit_sleep_ms=0") // else each run takes a second more
	}
	cmd := exec.CommandContext(d.t.Context(), program, args...)
	cmd.Dir, cmd.Env = d.cwd, append(env, d.extra...)
	return cmd
}

// ended is how a run of claude ended.
type ended struct {
	code        int // -1: by a signal
	out, errOut string
}

// run runs claude with a text on its stdin.
func (d *desk) run(stdin string, args ...string) ended {
	d.t.Helper()
	cmd := d.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		d.t.Fatalf("starting claude: %v", err)
	}
	return ended{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// streaming are the flags of a turn whose events are read.
func streaming(more ...string) []string {
	return append([]string{"-p", "--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"}, more...)
}

// say runs one turn and checks its stream, which must have one result.
func (d *desk) say(prompt string, args ...string) (wire, ended) {
	d.t.Helper()
	end := d.run(prompt, streaming(args...)...)
	lines := outputLines([]byte(end.out))
	if n := checkStream(d.t, lines); n != 1 {
		d.t.Fatalf("%d results, want one: %s%s", n, end.out, end.errOut)
	}
	return resultOf(d.t, lines[len(lines)-1]), end
}

func resultOf(t *testing.T, line []byte) wire {
	t.Helper()
	var w wire
	if err := json.Unmarshal(line, &w); err != nil || w.Type != "result" {
		t.Fatalf("last line = %s, %v, want a result", line, err)
	}
	return w
}

// transcript is the file of a session of this desk.
func (d *desk) transcript(session string) string {
	a := agent{env: map[string]string{"CLAUDE_CONFIG_DIR": d.home + "/config"}}
	var err error
	if a.cwd, err = filepath.EvalSymlinks(d.cwd); err != nil {
		d.t.Fatal(err)
	}
	return a.file(session)
}

// running is a claude that is talked to.
type running struct {
	d     *desk
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan []byte // of stdout; closed at its end
	seen  [][]byte
}

func (d *desk) start(args ...string) *running {
	d.t.Helper()
	cmd := d.command(streaming(append([]string{"--input-format", "stream-json"}, args...)...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	r := &running{d: d, cmd: cmd, stdin: in, lines: make(chan []byte, 1000)}
	go func() {
		defer close(r.lines)
		dec := json.NewDecoder(out)
		for {
			var line json.RawMessage
			if dec.Decode(&line) != nil {
				return
			}
			r.lines <- line
		}
	}()
	d.t.Cleanup(func() { _ = cmd.Process.Kill() }) // ended as a rule
	return r
}

func (r *running) tell(v map[string]any) {
	r.d.t.Helper()
	if err := json.NewEncoder(r.stdin).Encode(v); err != nil {
		r.d.t.Fatal(err)
	}
}

func (r *running) say(prompt string) {
	r.d.t.Helper()
	r.tell(map[string]any{"type": "user", "message": map[string]any{"role": "user", "content": prompt}})
}

// until reads to the first line that has the text.
func (r *running) until(text string) []byte {
	r.d.t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case line, more := <-r.lines:
			if !more {
				r.d.t.Fatalf("the output ended before %s", text)
			}
			r.seen = append(r.seen, line)
			if bytes.Contains(line, []byte(text)) {
				return line
			}
		case <-late:
			r.d.t.Fatalf("no %s in time; seen %s", text, bytes.Join(r.seen, []byte("\n")))
		}
	}
}

// answer says something and returns the turn's result.
func (r *running) answer(prompt string) wire {
	r.d.t.Helper()
	r.say(prompt)
	return resultOf(r.d.t, r.until(`"type":"result"`))
}

// end waits for the process and returns its exit code, -1 for a signal. The whole stream is checked.
func (r *running) end() int {
	r.d.t.Helper()
	for line := range r.lines {
		r.seen = append(r.seen, line)
	}
	_ = r.cmd.Wait() // judged by its state
	checkStream(r.d.t, r.seen)
	return r.cmd.ProcessState.ExitCode()
}

// phrase table: what a person says, in order in one conversation, and what is answered.
type said struct {
	name   string
	say    string
	answer string // exact
	failed bool
	ran    []string // the tools, in order
}

func phraseTable() []said {
	const end = "The command ended with exit code "
	command := func(code int, out string) string { return fmt.Sprintf("```\n%s\n```\n%s%d.", out, end, code) }
	bash := []string{"Bash"}
	return []said{
		{
			name: "a number is not known before it was told", say: "what number did I ask you to remember?",
			answer: "You have not told me a number in this conversation.",
		},
		{name: "a number is taken in", say: "Remember the number 42", answer: "I will remember the number 42."},
		{
			name: "a number is remembered", say: "WHAT NUMBER did I ask you to remember",
			answer: "You asked me to remember the number 42.",
		},
		{name: "the last number counts", say: "remember the number 43.", answer: "I will remember the number 43."},
		{
			name: "a command's output and exit code are told", say: "run: echo one; echo two >&2; exit 3",
			answer: command(3, "one\ntwo"), ran: bash,
		},
		{name: "a command that is well ends with 0", say: "RUN: printf 'a  b\\n\\n'", answer: command(0, "a  b"), ran: bash},
		{
			name: "output with a fence of its own gets a longer one", say: "run: echo '```'",
			answer: "````\n```\n````\n" + end + "0.", ran: bash,
		},
		{name: "a command may have several lines", say: "run: echo a\necho b", answer: command(0, "a\nb"), ran: bash},
		{
			name: "a file is written, its folder made", say: "write new/notes.txt: first line",
			answer: "I wrote new/notes.txt.", ran: []string{"Write"},
		},
		{name: "a file is read", say: "read new/notes.txt", answer: command(0, "first line"), ran: bash},
		{
			name: "a file that is not there is said to be missing", say: "read gone.txt",
			answer: command(1, "cat: gone.txt: No such file or directory"), ran: bash,
		},
		{name: "a file that was there already is written over", say: "write old.txt: new text", answer: "I wrote old.txt."},
		{name: "what was written over is new", say: "read old.txt", answer: command(0, "new text"), ran: bash},
		{name: "files are listed", say: "list files", answer: command(0, "new\nold.txt"), ran: bash},
		{name: "time is taken", say: "take 1 seconds", answer: "That took 1 seconds.", ran: bash},
		{
			name: "a list is gone through item by item", say: "todo: plan; build ; test", answer: "Done:\n\n- [x] plan\n- [x] build\n- [x] test",
			ran: []string{"TodoWrite", "TodoWrite", "TodoWrite", "TodoWrite"},
		},
		{
			name: "a failure is a failure", say: "fail with 3", failed: true,
			answer: "API Error: 400 this request was told to fail with exit 3",
		},
		{
			name: "the conversation goes on after a failure", say: "what number did I ask you to remember?",
			answer: "You asked me to remember the number 43.",
		},
		{name: "bytes that are no text are replaced", say: "garble", answer: command(0, "a\uFFFD\uFFFDb"), ran: bash},
		{name: "anything else is answered with what it understands", say: "how are you? remember the number 9", answer: help},
		{
			name: "a phrase may end a longer message", say: "Earlier in this thread:\nsomebody: hello\n\nremember the number 44",
			answer: "I will remember the number 44.",
		},
	}
}

// converse goes through the phrases in one process.
func converse(t *testing.T, d *desk) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.cwd, "old.txt"), []byte("old text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := d.start()
	for _, tt := range phraseTable() {
		from := len(r.seen)
		got := r.answer(tt.say)
		if got.Result != tt.answer || got.IsError != tt.failed {
			t.Errorf("%s: %q is answered with %q (is_error %v), want %q (%v)", tt.name, tt.say, got.Result, got.IsError, tt.answer, tt.failed)
		}
		var ran []string
		for _, line := range r.seen[from:] {
			var w wire
			if json.Unmarshal(line, &w) == nil && w.Type == "assistant" {
				for _, b := range w.Message.blocks() {
					if b.Type == "tool_use" {
						ran = append(ran, b.Name)
					}
				}
			}
		}
		if tt.ran != nil && !slices.Equal(ran, tt.ran) {
			t.Errorf("%s: the tools were %v, want %v", tt.name, ran, tt.ran)
		}
	}
	_ = r.stdin.Close()
	r.end()
}

func TestPhrases(t *testing.T) {
	t.Parallel()
	t.Run("the stand-in answers each phrase", func(t *testing.T) {
		t.Parallel()
		converse(t, newDesk(t))
	})
	t.Run("the help names every phrase that people are promised", func(t *testing.T) {
		t.Parallel()
		for _, p := range []string{
			"remember the number N", "what number did I ask you to remember?", "run: COMMAND", "write FILE: TEXT", "read FILE", "list files",
			"take N seconds", "fail with N", "todo: A; B; C",
		} {
			if !strings.Contains(help, "“"+p+"”") {
				t.Errorf("the help does not name %q", p)
			}
		}
	})
	t.Run("the exit code is the one that was asked for", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		for prompt, want := range map[string]int{"fail with 7": 7, "fail with 0": 1, "fail with 300": 1, "run: exit 9": 0} {
			if end := d.run("", "-p", prompt); end.code != want {
				t.Errorf("%s: exit %d, want %d: %s%s", prompt, end.code, want, end.out, end.errOut)
			}
		}
	})
}

func TestRealClaude(t *testing.T) {
	t.Parallel()
	name := os.Getenv("FLAUDEBOT_TEST_CLAUDE")
	if name == "" {
		name = "claude"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("left out: Claude Code is not installed")
	}
	genuine := func(t *testing.T) *desk {
		t.Helper()
		d := newDesk(t)
		d.program = path
		return d
	}
	t.Run("it answers each phrase as the stand-in does", func(t *testing.T) {
		t.Parallel()
		converse(t, genuine(t))
	})
	t.Run("its exit code for a failure is 1, and the text the stand-in's", func(t *testing.T) {
		t.Parallel()
		d := genuine(t)
		got := d.run("fail with 7", "-p")
		d.program = ""
		if want := d.run("fail with 7", "-p"); got.code != 1 || want.code != 7 || got.out != want.out {
			t.Errorf("Claude Code ends with %d and %q, the stand-in with %d and %q", got.code, got.out, want.code, want.out)
		}
	})
	t.Run("a wrong key ends both alike", func(t *testing.T) {
		t.Parallel()
		d := genuine(t)
		d.key = "sk-ant-other"
		got, gotEnd := d.say("list files")
		d.program = ""
		want, wantEnd := d.say("list files")
		if got.Result != want.Result || *got.Status != http.StatusUnauthorized || *want.Status != *got.Status || gotEnd.code != wantEnd.code {
			t.Errorf("Claude Code: %q (%d), exit %d; the stand-in: %q (%d), exit %d",
				got.Result, *got.Status, gotEnd.code, want.Result, *want.Status, wantEnd.code)
		}
	})
	t.Run("it refuses flags and sessions with the stand-in's words", func(t *testing.T) {
		t.Parallel()
		d := genuine(t)
		const id = "11111111-1111-4111-8111-111111111111"
		for _, args := range refusals(id) {
			d.program = path
			got := d.run("hello", args...)
			d.program = ""
			if want := d.run("hello", args...); got.code != want.code || strings.TrimSpace(got.errOut) != strings.TrimSpace(want.errOut) {
				t.Errorf("%v: Claude Code ends with %d and %q, the stand-in with %d and %q", args, got.code, got.errOut, want.code, want.errOut)
			}
		}
	})
}

// refusals are command lines that end before anything is asked.
func refusals(id string) [][]string {
	return [][]string{
		{"-p", "--no-such-flag"},
		{"-p", "--output-format", "stream-json"},
		{"-p", "--session-id", "no-uuid"},
		{"-p", "--resume", id},
		{"-p", "--resume", id, "--session-id", id},
	}
}
