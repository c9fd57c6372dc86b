package claude

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flaudebot/local/edge"
)

const (
	firstID  = "11111111-1111-4111-8111-111111111111"
	secondID = "22222222-2222-4222-8222-222222222222"
	recallIt = "what number did I ask you to remember?"
	its42    = "You asked me to remember the number 42."
)

func TestSessions(t *testing.T) {
	t.Parallel()
	begun := func(t *testing.T) *desk {
		t.Helper()
		d := newDesk(t)
		if got, _ := d.say("remember the number 42", "--session-id", firstID); got.Session != firstID {
			t.Fatalf("session = %s, want %s", got.Session, firstID)
		}
		return d
	}
	t.Run("a session goes on in another process", func(t *testing.T) {
		t.Parallel()
		d := begun(t)
		if got, end := d.say(recallIt, "--resume", firstID); got.Result != its42 || got.Session != firstID || end.code != 0 {
			t.Errorf("%s in %s, exit %d, want %s in %s", got.Result, got.Session, end.code, its42, firstID)
		}
	})
	t.Run("only the transcript is needed for it", func(t *testing.T) {
		t.Parallel()
		d := begun(t)
		from := d.transcript(firstID)
		info, err := os.Stat(from)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("transcript = %v, %v, want one for its owner only", info, err)
		}
		d.home = t.TempDir()
		to := d.transcript(firstID)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if got, _ := d.say(recallIt, "--resume", firstID); got.Result != its42 {
			t.Errorf("result = %q, want %q", got.Result, its42)
		}
	})
	t.Run("a session id is used once", func(t *testing.T) {
		t.Parallel()
		d := begun(t)
		end := d.run("again", streaming("--session-id", firstID)...)
		if want := "Error: Session ID " + firstID + " is already in use.\n"; end.code != 1 || end.errOut != want || end.out != "" {
			t.Errorf("exit %d, %q, %q, want 1 and %q alone", end.code, end.errOut, end.out, want)
		}
	})
	t.Run("a session that nobody began is not found", func(t *testing.T) {
		t.Parallel()
		got, end := newDesk(t).say("hello", "--resume", secondID)
		want := "No conversation found with session ID: " + secondID
		if end.code != 1 || strings.TrimSpace(end.errOut) != want || len(got.Errors) != 1 || got.Errors[0] != want || got.Session != secondID {
			t.Errorf("exit %d, %q, %+v, want 1 and %q", end.code, end.errOut, got.Errors, want)
		}
	})
	t.Run("a session is not found from another directory, and is from a link to its own", func(t *testing.T) {
		t.Parallel()
		d := begun(t)
		home := d.cwd
		d.cwd = t.TempDir()
		if end := d.run("hello", "-p", "--resume", firstID); end.code != 1 || !strings.Contains(end.errOut, "No conversation found") {
			t.Errorf("exit %d, %q, want it not found", end.code, end.errOut)
		}
		link := filepath.Join(d.cwd, "link")
		if err := os.Symlink(home, link); err != nil {
			t.Fatal(err)
		}
		d.cwd = link
		d.extra = []string{"PWD=" + link}
		if got, _ := d.say(recallIt, "--resume", firstID); got.Result != its42 {
			t.Errorf("result = %q, want %q", got.Result, its42)
		}
	})
	t.Run("an empty transcript is in use and not found", func(t *testing.T) {
		t.Parallel()
		d := begun(t)
		if err := os.Truncate(d.transcript(firstID), 0); err != nil {
			t.Fatal(err)
		}
		if end := d.run("x", "-p", "--session-id", firstID); end.code != 1 || !strings.Contains(end.errOut, "already in use") {
			t.Errorf("exit %d, %q, want it in use", end.code, end.errOut)
		}
		if end := d.run("x", "-p", "--resume", firstID); end.code != 1 || !strings.Contains(end.errOut, "No conversation found") {
			t.Errorf("exit %d, %q, want it not found", end.code, end.errOut)
		}
	})
	t.Run("a transcript that was cut short goes on after its last whole line", func(t *testing.T) {
		t.Parallel()
		d := begun(t)
		f, err := os.OpenFile(d.transcript(firstID), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(`{"type":"user","message":{"role":"user","content":"remember the nu`)
			_ = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		d.say("remember the number 77", "--resume", firstID)
		if got, _ := d.say(recallIt, "--resume", firstID); got.Result != "You asked me to remember the number 77." {
			t.Errorf("result = %q, want the number that was said after the cut", got.Result)
		}
	})
	t.Run("a fork knows what was said, and leaves the old session as it was", func(t *testing.T) {
		t.Parallel()
		d := begun(t)
		before, err := os.ReadFile(d.transcript(firstID))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := d.say(recallIt, "--resume", firstID, "--fork-session", "--session-id", secondID)
		if got.Result != its42 || got.Session != secondID {
			t.Errorf("%q in %s, want %q in %s", got.Result, got.Session, its42, secondID)
		}
		if got, _ := d.say(recallIt, "--resume", secondID); got.Result != its42 {
			t.Errorf("the fork resumed: %q, want %q", got.Result, its42)
		}
		if got, _ := d.say("list files", "--resume", firstID, "--fork-session"); got.Session == firstID {
			t.Error("a fork without an id has the old one")
		}
		if after, err := os.ReadFile(d.transcript(firstID)); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the old transcript has changed, %v", err)
		}
	})
	t.Run("a session that is not kept leaves no transcript", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.say("hello", "--session-id", firstID, "--no-session-persistence")
		if _, err := os.Stat(d.transcript(firstID)); !os.IsNotExist(err) {
			t.Errorf("transcript: %v, want none", err)
		}
	})
	t.Run("each session is one of its own without an id", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		one, _ := d.say("hello")
		two, _ := d.say("hello")
		if one.Session == two.Session {
			t.Errorf("two sessions are %s", one.Session)
		}
	})
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stdin string
		args  []string
		env   string
		code  int
		out   string // contained in stdout; "": it is empty
		err   string // contained in stderr
	}{
		"the version is Claude Code's":         {args: []string{"--version"}, out: version + " (Claude Code"},
		"help tells that it is a stand-in":     {args: []string{"--help"}, out: "stand-in"},
		"there is no terminal interface":       {code: 1, err: "use -p"},
		"an unknown flag is refused":           {args: []string{"-p", "-hello"}, code: 1, err: "error: unknown option '-hello'"},
		"a prompt may begin with - after --":   {args: []string{"-p", "--", "-hello"}, out: "I am a script"},
		"a prompt may begin with - on stdin":   {args: []string{"-p"}, stdin: "-hello", out: "I am a script"},
		"a prompt may come as an argument":     {args: []string{"-p", "remember the number 5"}, out: "number 5."},
		"a flag may have its value after =":    {args: []string{"-p", "--output-format=json"}, stdin: "hello", out: `"type":"result"`},
		"a flag without its value is refused":  {args: []string{"-p", "--model"}, code: 1, err: "argument missing"},
		"no prompt is refused":                 {args: []string{"-p"}, code: 1, err: "Input must be provided"},
		"a blank prompt is passed over":        {args: []string{"-p"}, stdin: " \n\t\n"},
		"a stream of events wants --verbose":   {args: []string{"-p", "--output-format", "stream-json"}, code: 1, err: "requires --verbose"},
		"rounds of tools have a limit":         {args: []string{"-p", "--max-turns", "2"}, stdin: "todo: a; b; c", code: 1, out: "maximum number of turns (2)"},
		"a limit of 0 is none":                 {args: []string{"-p", "--max-turns", "0"}, stdin: "todo: a; b; c", out: "[x] c"},
		"a limit that is no number is refused": {args: []string{"-p", "--max-turns", "two"}, stdin: "x", code: 1, err: "is invalid"},
		"a line of input that is no JSON ends it": {
			args: streaming("--input-format", "stream-json"), stdin: "hello\n", code: 1, err: "Error parsing streaming input line",
		},
		"without a credential it asks for a login": {args: []string{"-p"}, env: "ANTHROPIC_API_KEY=", stdin: "hello", code: 1, out: "Not logged in"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			if tt.env != "" {
				d.extra = []string{tt.env}
			}
			end := d.run(tt.stdin, tt.args...)
			wrongOut := tt.out == "" && end.out != "" || !strings.Contains(end.out, tt.out)
			if end.code != tt.code || wrongOut || tt.err == "" && end.errOut != "" || !strings.Contains(end.errOut, tt.err) {
				t.Errorf("exit %d, %q, %q, want %d, %q, %q", end.code, end.out, end.errOut, tt.code, tt.out, tt.err)
			}
		})
	}
	t.Run("root may not skip asking outside of a sandbox", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.extra = []string{"IS_SANDBOX=true"}
		end := d.run("hello", streaming()...)
		if refused := strings.Contains(end.errOut, "cannot be used with root/sudo"); refused != (os.Geteuid() == 0) {
			t.Errorf("exit %d, %q for user %d", end.code, end.errOut, os.Geteuid())
		}
	})
	t.Run("the token of a subscription is taken, and kept from commands", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.extra = []string{"ANTHROPIC_API_KEY=", "CLAUDE_CODE_OAUTH_TOKEN=" + Key}
		if got, _ := d.say("run: env | grep -c OAUTH"); !strings.HasPrefix(got.Result, "```\n0\n") {
			t.Errorf("result = %q, want no such variable", got.Result)
		}
	})
	t.Run("each limit of tools leaves a stream that is whole", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		got, end := d.say("todo: a; b; c", "--max-turns", "1", "--session-id", firstID)
		if got.Subtype != "error_max_turns" || end.code != 1 {
			t.Errorf("%s, exit %d, want error_max_turns, 1", got.Subtype, end.code)
		}
		if got, _ := d.say(recallIt, "--resume", firstID); got.IsError {
			t.Errorf("resumed: %+v", got)
		}
	})
}

// fault lets the API misbehave.
func (d *desk) fault(f edge.Fault) {
	d.t.Helper()
	raw, err := json.Marshal(f)
	if err != nil {
		d.t.Fatal(err)
	}
	res, err := http.Post(d.api.URL+"/local/faults", "application/json", bytes.NewReader(raw)) //nolint:noctx // of a test
	if err != nil {
		d.t.Fatal(err)
	}
	_ = res.Body.Close()
}

func TestRetries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status  int
		kind    string
		retries int
	}{
		{400, "unknown", 0},
		{401, "authentication_failed", 1},
		{403, "authentication_failed", 1},
		{404, "model_not_found", 0},
		{413, "invalid_request", 0},
		{429, "rate_limit", 1},
		{500, "server_error", 1},
		{529, "server_error", 1},
		{0, "server_error", 1}, // the connection is lost
	} {
		t.Run(fmt.Sprintf("status %d is %s and asked again %d times", tt.status, tt.kind, tt.retries), func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.fault(edge.Fault{Method: "messages", Status: tt.status, Drop: tt.status == 0})
			got, end := d.say("hello")
			if n := strings.Count(end.out, `"api_retry"`); n != tt.retries {
				t.Errorf("%d retries, want %d", n, tt.retries)
			}
			if !got.IsError || end.code != 1 || !strings.Contains(end.out, `"error":"`+tt.kind+`"`) {
				t.Errorf("is_error %v, exit %d, want %s: %s", got.IsError, end.code, tt.kind, end.out)
			}
			if (got.Status == nil) != (tt.status == 0) || got.Status != nil && *got.Status != tt.status {
				t.Errorf("api_error_status = %v, want %d", got.Status, tt.status)
			}
		})
	}
	t.Run("what helps the second time is no failure", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.fault(edge.Fault{Method: "messages", Nth: 1, Status: 529})
		if got, end := d.say("remember the number 4"); got.IsError || end.code != 0 || !strings.Contains(end.out, `"api_retry"`) {
			t.Errorf("is_error %v, exit %d, want a retry that helps: %s", got.IsError, end.code, end.out)
		}
	})
}

func TestInterrupts(t *testing.T) {
	t.Parallel()
	// In the middle of what, and how.
	const marked = "run: echo $$ > pid; exec sleep 60"
	tool := func(d *desk, r *running) int {
		r.say(marked)
		r.until(`"name":"Bash"`)
		return d.pid()
	}
	text := func(d *desk, r *running) int {
		d.hold.Store(true)
		r.say("hello")
		<-d.held
		d.hold.Store(false)
		return 0
	}
	signal := func(s os.Signal) func(*running) {
		return func(r *running) {
			r.d.t.Helper()
			if err := r.cmd.Process.Signal(s); err != nil {
				r.d.t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		during func(*desk, *running) int
		how    func(*running)
		code   int
		reason string // "": no result
	}{
		"SIGINT while a tool runs":  {tool, signal(os.Interrupt), 1, "aborted_tools"},
		"SIGINT while Claude talks": {text, signal(os.Interrupt), 0, "aborted_streaming"},
		"SIGTERM while a tool runs": {tool, signal(syscall.SIGTERM), -1, ""},
		"SIGTERM while it talks":    {text, signal(syscall.SIGTERM), -1, ""},
		"SIGKILL while a tool runs": {tool, signal(os.Kill), -1, ""},
	} {
		t.Run(name+" leaves a conversation that can be resumed", func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			r := d.start("--session-id", firstID)
			r.answer("remember the number 42")
			pid := tt.during(d, r)
			tt.how(r)
			code := r.end()
			if code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			last := r.seen[len(r.seen)-1]
			if tt.reason != "" {
				if w := resultOf(t, last); w.Reason != tt.reason || w.Subtype != "error_during_execution" {
					t.Errorf("%s with %s, want %s", w.Subtype, w.Reason, tt.reason)
				}
			} else if bytes.Contains(last, []byte(`"aborted`)) {
				t.Errorf("last line = %s, want nothing about the end", last)
			}
			if pid != 0 {
				// The command has a session of its own: only an interrupt reaches it.
				alive := tt.reason == ""
				d.ends(pid, !alive)
			}
			if got, _ := d.say(recallIt, "--resume", firstID); got.Result != its42 {
				t.Errorf("resumed: %q, want %q", got.Result, its42)
			}
		})
	}
	t.Run("a request to interrupt ends the turn and not the process", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		r := d.start()
		r.answer("remember the number 42")
		pid := tool(d, r)
		r.tell(map[string]any{"type": "control_request", "request_id": "r1", "request": map[string]string{"subtype": "interrupt"}})
		if line := r.until(`"control_response"`); !bytes.Contains(line, []byte(`"request_id":"r1"`)) || !bytes.Contains(line, []byte(`"success"`)) {
			t.Errorf("response = %s", line)
		}
		if w := resultOf(t, r.until(`"type":"result"`)); w.Reason != "aborted_tools" {
			t.Errorf("terminal_reason = %q, want aborted_tools", w.Reason)
		}
		d.ends(pid, true)
		r.tell(map[string]any{"type": "control_request", "request_id": "r2", "request": map[string]string{"subtype": "interrupt"}})
		r.until(`"request_id":"r2"`)
		if w := r.answer(recallIt); w.Result != its42 {
			t.Errorf("after it: %q, want %q", w.Result, its42)
		}
		r.tell(map[string]any{"type": "control_request", "request_id": "r3", "request": map[string]string{"subtype": "no_such"}})
		if line := r.until(`"request_id":"r3"`); !bytes.Contains(line, []byte("Unsupported control request subtype: no_such")) {
			t.Errorf("response = %s, want an error", line)
		}
		_ = r.stdin.Close()
		if code := r.end(); code != 0 {
			t.Errorf("exit %d, want 0", code)
		}
	})
}

// within waits for a condition.
func (d *desk) within(what string, cond func() bool) {
	d.t.Helper()
	for late := time.Now().Add(20 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			d.t.Fatalf("%s: not in time", what)
		}
	}
}

// pid is what the command of the turn wrote down.
func (d *desk) pid() (pid int) {
	d.t.Helper()
	d.within("the command begins", func() bool {
		raw, err := os.ReadFile(filepath.Join(d.cwd, "pid"))
		if err != nil || !bytes.HasSuffix(raw, []byte("\n")) {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil
	})
	return pid
}

// ends checks that a process ends, or that it is left alone; then it is ended.
func (d *desk) ends(pid int, want bool) {
	d.t.Helper()
	if !want {
		if err := syscall.Kill(pid, 0); err != nil {
			d.t.Errorf("the command has ended: %v, want it left alone", err)
		}
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		return
	}
	d.within("the command ends", func() bool { return syscall.Kill(pid, 0) != nil })
}
