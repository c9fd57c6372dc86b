package runner

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests of this package run this very binary: as claude it is a stand-in that does what the prompt's scene says,
// with FLAUDEBOT_TEST_RUNNER it is process 1, and as Git's helper it is the helper.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(tracerEnv) != "":
		os.Exit(tracerMain())
	case os.Getenv(fakeEnv) != "":
		os.Exit(fakeMain())
	case os.Getenv(runnerEnv) != "":
		if os.Getenv(tracedEnv) != "" {
			if err := haltAtSteps(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(97)
			}
		}
		os.Exit(runnerMain())
	case len(os.Args) > 2 && os.Args[1] == "runner" && os.Args[2] == "git-credential":
		syscall.Exit(helperMain()) // at once, also with the race detector
	}
	os.Exit(m.Run())
}

// fake is a claude command with the real one's flags, files and output, as far as the runner relies on them.
type fake struct {
	args       []string
	session    string
	resume     bool
	transcript string
	prompt     string
	blocks     []fakeBlock // of a prompt that is more than a text
	turns      int         // before this one, of this process
	cost       float64     // of this process
	in         *bufio.Reader
}

func fakeMain() int {
	f := &fake{args: os.Args[1:], in: bufio.NewReader(os.Stdin)}
	for i, a := range f.args {
		if a == "--session-id" || a == "--resume" {
			f.session, f.resume = f.args[i+1], a == "--resume"
		}
	}
	cwd, _ := os.Getwd()
	dir := filepath.Join(os.Getenv("CLAUDE_CONFIG_DIR"), "projects", regexp.MustCompile(`[^A-Za-z0-9]`).ReplaceAllString(cwd, "-"))
	f.transcript = filepath.Join(dir, f.session+".jsonl")
	info, err := os.Stat(f.transcript)
	switch {
	case f.resume && (err != nil || info.Size() == 0):
		text := "No conversation found with session ID: " + f.session
		fmt.Fprintln(os.Stderr, text)
		f.say(map[string]any{"type": "result", "subtype": "error_during_execution", "is_error": true, "errors": []string{text}})
		return 1
	case !f.resume && err == nil:
		fmt.Fprintf(os.Stderr, "Error: Session ID %s is already in use.\n", f.session)
		return 1
	}
	_ = os.MkdirAll(dir, 0o700)
	return f.next(0)
}

// next does what is asked next; when nothing is, the process ends.
func (f *fake) next(code int) int {
	for f.prompt = "interrupt"; f.prompt == "interrupt"; f.prompt = f.hear() { // which is harmless when nothing runs
		f.blocks = nil
	}
	if f.prompt == "" {
		return code
	}
	scene, rest, _ := strings.Cut(f.prompt, ":")
	if play := scenes()[scene]; play != nil {
		return play(f, strings.TrimSpace(rest))
	}
	return f.answers("You said: " + f.prompt)
}

// hear reads messages until one of the person's; empty: the input has ended.
func (f *fake) hear() string {
	for {
		line, err := f.in.ReadString('\n')
		var m struct {
			Type    string `json:"type"`
			Message struct {
				Content json.RawMessage `json:"content"`
			} `json:"message"`
			Request struct {
				Subtype string `json:"subtype"`
			} `json:"request"`
		}
		_ = json.Unmarshal([]byte(line), &m)
		switch {
		case m.Type == "user":
			return f.said(m.Message.Content)
		case m.Request.Subtype == "interrupt":
			return "interrupt"
		case err != nil:
			return ""
		}
	}
}

// said is the last text of what a person said; pictures and texts before it are kept.
func (f *fake) said(content json.RawMessage) string {
	var text string
	if json.Unmarshal(content, &text) == nil {
		return text
	}
	_ = json.Unmarshal(content, &f.blocks)
	if len(f.blocks) == 0 {
		return ""
	}
	return f.blocks[len(f.blocks)-1].Text
}

// fakeBlock is a part of what a person said.
type fakeBlock struct {
	Type   string `json:"type"`
	Text   string `json:"text"`
	Source struct {
		Type  string `json:"type"`
		Media string `json:"media_type"`
		Data  []byte `json:"data"`
	} `json:"source"`
}

func (f *fake) say(v any) {
	raw, _ := json.Marshal(v)
	fmt.Printf("%s\n", raw)
}

func (f *fake) init() {
	f.say(map[string]any{"type": "system", "subtype": "init", "session_id": f.session, "model": "fake"})
}

func (f *fake) text(s string) {
	f.say(map[string]any{"type": "assistant", "message": map[string]any{"content": []any{map[string]any{"type": "text", "text": s}}}})
}

func (f *fake) result(text string, more map[string]any) {
	f.cost += 0.25
	r := map[string]any{"type": "result", "subtype": "success", "is_error": false, "result": text, "total_cost_usd": f.cost, "session_id": f.session}
	maps.Copy(r, more)
	f.say(r)
}

// keep writes the turn to the transcript, with as much beside it as the real one's: it takes room on the disk.
func (f *fake) keep() {
	t, err := os.OpenFile(f.transcript, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintf(t, "%q %5000d\n", f.prompt, 0)
		_ = t.Close()
	}
}

// answers ends a good turn: like the real one it goes only when its input is closed, and does what is asked meanwhile.
func (f *fake) answers(text string) int {
	f.init()
	f.keep()
	f.result(text, nil)
	f.turns++
	return f.next(0)
}

// interrupted is what the real one does on an interrupt that was asked for.
func (f *fake) interrupted() int {
	f.result("", map[string]any{"subtype": "error_during_execution", "is_error": true, "terminal_reason": "aborted_tools"})
	f.turns++
	return f.next(0)
}

// scenes are told by the prompt's first word.
func scenes() map[string]func(f *fake, rest string) int {
	return map[string]func(f *fake, rest string) int{
		// play: RECORDING, EXIT CODE
		"play": func(f *fake, rest string) int {
			name, code, _ := strings.Cut(rest, " ")
			raw, err := os.ReadFile(name)
			if err != nil {
				return 99
			}
			f.keep()
			for line := range strings.Lines(string(raw)) {
				var wire struct {
					Dir string          `json:"dir"`
					Msg json.RawMessage `json:"msg"`
				}
				if json.Unmarshal([]byte(line), &wire) == nil && wire.Dir != "" {
					if line = string(wire.Msg) + "\n"; wire.Dir != "stdout" {
						continue
					}
				}
				_, _ = os.Stdout.WriteString(line)
			}
			n := 0
			_, _ = fmt.Sscan(code, &n)
			return n
		},
		// raw: JSON lines, then the process ends well
		"raw": func(f *fake, rest string) int {
			f.keep()
			fmt.Println(rest)
			return 0
		},
		"vanish": func(f *fake, _ string) int { f.init(); return 0 },
		"mute":   func(*fake, string) int { return 0 },
		"forget": func(f *fake, _ string) int { f.init(); f.result("done", nil); return 0 },
		"exit": func(f *fake, rest string) int {
			n := 0
			_, _ = fmt.Sscan(rest, &n)
			f.init()
			f.keep()
			f.result("not an error", nil)
			return n
		},
		"complain": func(_ *fake, rest string) int { fmt.Fprintln(os.Stderr, rest); return 1 },
		"die": func(f *fake, _ string) int {
			f.init()
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			time.Sleep(time.Hour)
			return 0
		},
		// starve: the file where the kernel counts; it counts one more, and kills
		"starve": func(f *fake, file string) int {
			f.init()
			_ = os.WriteFile(file, []byte("oom_kill_none 9\noom_kill 4\n"), 0o644)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			time.Sleep(time.Hour)
			return 0
		},
		"env": func(f *fake, _ string) int {
			env := os.Environ()
			slices.Sort(env)
			wd, _ := os.Getwd()
			return f.answers(strings.Join(f.args, " ") + "\n" + strings.Join(env, "\n") + "\nCWD=" + wd + fmt.Sprintf("\nUID=%d", os.Getuid()))
		},
		"long": func(f *fake, _ string) int {
			f.say(map[string]any{"type": "user", "message": map[string]any{"content": []any{map[string]any{"type": "tool_result", "content": strings.Repeat("p", 1_110_000)}}}})
			return f.answers(strings.Repeat("äb<", 400_000))
		},
		// leave: processes in sessions of their own stay behind, one that obeys TERM and one that does not
		"leave": func(f *fake, rest string) int {
			f.leave(rest)
			return f.answers("left")
		},
		"leave and wait": func(f *fake, rest string) int {
			f.leave(rest)
			return f.works()
		},
		"leave and stay deaf": func(f *fake, rest string) int {
			f.leave(rest)
			return f.hears(nil)
		},
		"work and name itself": func(f *fake, rest string) int {
			_ = os.WriteFile(rest, fmt.Appendf(nil, "%d 0", os.Getpid()), 0o600)
			return f.works()
		},
		// late: makes it although it is asked to stop
		"late": func(f *fake, _ string) int {
			return f.hears(func() (int, bool) { f.hear(); f.result("made it", nil); return 0, true })
		},
		// ledger: FILE LINE: runs a command that appends the line, in a session of its own; answers with the number of the turn
		"ledger": func(f *fake, rest string) int {
			file, line, _ := strings.Cut(rest, " ")
			f.init()
			f.keep()
			cmd := exec.Command("sh", "-c", `echo "$2" >> "$1" && echo "$2" > "notes-$2"`, "sh", file, line)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if out, err := cmd.CombinedOutput(); err != nil {
				f.result(fmt.Sprint(err, string(out)), nil)
				return 1
			}
			f.text("done")
			raw, _ := os.ReadFile(f.transcript)
			f.result(fmt.Sprintf("turn %d of %s", strings.Count(string(raw), "\n"), f.session), nil)
			_, _ = io.Copy(io.Discard, f.in)
			return 0
		},
		// which: names the process
		"which": func(f *fake, _ string) int { return f.answers(fmt.Sprint(os.Getpid())) },
		// dodge: goes without a word, unless it is new
		"dodge": func(f *fake, _ string) int {
			if f.turns > 0 {
				return 0
			}
			return f.answers(fmt.Sprint(os.Getpid()))
		},
		// hesitate: says nothing any more, unless it is new
		"hesitate": func(f *fake, _ string) int {
			if f.turns > 0 {
				time.Sleep(time.Hour)
			}
			return f.answers(fmt.Sprint(os.Getpid()))
		},
		// wander: goes on by itself after its result, as for background work
		"wander": func(f *fake, _ string) int {
			f.init()
			f.keep()
			f.result(fmt.Sprint(os.Getpid()), nil)
			f.text("by the way")
			f.turns++
			return f.next(0)
		},
		// linger: leaves a command behind that is its own
		"linger": func(f *fake, _ string) int {
			_ = exec.Command("sleep", "1000").Start()
			return f.answers(fmt.Sprint(os.Getpid()))
		},
		// sh: SCRIPT in the workspace, as Claude's commands are run; answers with what it says
		"sh": func(f *fake, rest string) int {
			out, err := exec.Command("sh", "-c", rest).CombinedOutput()
			if err != nil {
				out = append(out, "\n"+err.Error()...)
			}
			return f.answers(string(out))
		},
		"fill": func(f *fake, _ string) int { f.fill(); return f.answers("filled") },
		"fill and say much": func(f *fake, _ string) int {
			f.fill()
			return f.answers(strings.Repeat("x", 3<<20))
		},
		"clean up": func(f *fake, _ string) int {
			_ = os.Remove("filling")
			return f.answers("cleaned")
		},
		// look at the pictures: tells what came before the prompt
		"look at the pictures": func(f *fake, _ string) int {
			var out []string
			for _, b := range f.blocks {
				switch b.Type {
				case "image":
					out = append(out, fmt.Sprintf("%s %s %x", b.Source.Type, b.Source.Media, sha256.Sum256(b.Source.Data)))
				default:
					out = append(out, b.Text)
				}
			}
			return f.answers(strings.Join(append(out, f.prompt), "\n"))
		},
		"look at": func(f *fake, rest string) int { return f.answers(look(rest)) },
		// work: until it is interrupted
		"work": func(f *fake, _ string) int { return f.works() },
		// deaf: obeys no request, but TERM
		"deaf": func(f *fake, _ string) int { return f.hears(nil) },
		"stubborn": func(f *fake, _ string) int {
			signal.Ignore(syscall.SIGTERM)
			return f.hears(nil)
		},
		// stay: does not go after its result
		"stay": func(f *fake, _ string) int {
			signal.Ignore(syscall.SIGTERM)
			f.init()
			f.keep()
			f.result("stayed", nil)
			time.Sleep(time.Hour)
			return 0
		},
		"hoard": func(f *fake, rest string) int { // an orphan holds the output open
			f.leave(rest)
			f.init()
			f.keep()
			f.result("hoarded", nil)
			return 0
		},
	}
}

// hears works without an end, unless what it hears ends it.
func (f *fake) hears(more func() (int, bool)) int {
	f.init()
	f.keep()
	f.text("at work")
	if more != nil {
		if code, ok := more(); ok {
			return code
		}
	}
	for {
		time.Sleep(time.Hour)
	}
}

func (f *fake) works() int {
	return f.hears(func() (int, bool) {
		if f.hear() == "interrupt" {
			return f.interrupted(), true
		}
		return 0, false // nobody reads any more: goes on, as the real one does
	})
}

// fill leaves no room on the volume.
func (f *fake) fill() {
	out, err := os.Create("filling")
	if err != nil {
		panic(err)
	}
	for _, n := range []int{64 << 10, 1 << 10, 1} {
		for err = nil; err == nil; {
			_, err = out.Write(make([]byte, n))
		}
	}
	_ = out.Close()
}

// look tries what Claude's user may and may not do.
func look(process1 string) string {
	var out strings.Builder
	try := func(what string, err error) {
		word := "ok"
		switch {
		case errors.Is(err, fs.ErrPermission):
			word = "denied"
		case err != nil:
			word = err.Error()
		}
		fmt.Fprintf(&out, "%s: %s\n", what, word)
	}
	write := func(name string) error {
		return os.WriteFile(name, []byte("y"), 0o644)
	}
	fmt.Fprintf(&out, "uid %d\n", os.Getuid())
	try("write workspace", write("x"))
	try("write repo", write("repo/branch"))
	try("write attachment", write("attachments/a"))
	try("write home", write(os.Getenv("HOME")+"/x"))
	_, err := os.ReadDir("../.flaudebot/turns")
	try("read journals", err)
	_, err = os.ReadFile("../.flaudebot/fence")
	try("read fence", err)
	hooks, _ := exec.Command("git", "config", "core.hooksPath").Output()
	dir := strings.TrimSpace(string(hooks))
	_, err = os.ReadFile(filepath.Join(dir, "commit-msg"))
	try("read the hooks of commits", err)
	try("change a hook of commits", write(filepath.Join(dir, "commit-msg")))
	try("add a hook of commits", write(filepath.Join(dir, "another")))
	try("change who asked", write(filepath.Join(filepath.Dir(dir), "trailers")))
	_, err = os.ReadFile("/proc/" + process1 + "/environ")
	try("read environment of process 1", err)
	dial := func(name string) error {
		c, err := net.Dial("unix", filepath.Join(os.Getenv("FLAUDEBOT_RUN_DIR"), name))
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	try("ask the runner", dial("runner.sock"))
	try("ask for a Git credential", dial("git.sock"))
	return out.String()
}

// leave starts processes in sessions of their own, and tells their ids in the file.
func (f *fake) leave(file string) {
	var pids []string
	for _, script := range []string{
		`trap '' PIPE; trap 'echo termed >> "$0.termed"; exit' TERM; echo up; while :; do sleep 0.05; done`,
		`trap '' TERM HUP INT; echo up; while :; do sleep 1000; done`,
	} {
		cmd := exec.Command("env", "-i", "PATH="+os.Getenv("PATH"), "sh", "-c", script, file)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, _ := cmd.StdoutPipe()
		cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{os.Stdout} // both stay open
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		_, _ = out.Read(make([]byte, 3)) // its trap is set
		pids = append(pids, fmt.Sprint(cmd.Process.Pid))
	}
	if err := os.WriteFile(file, []byte(strings.Join(pids, " ")), 0o600); err != nil {
		panic(err)
	}
}

// there reports whether a process is there, one that has ended and that nobody has taken included.
func there(pid int) bool { return syscall.Kill(pid, 0) == nil }

// left reads what a scene left behind.
func left(t *testing.T, file string) []int {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscan(string(raw), &a, &b); err != nil {
		t.Fatal(err)
	}
	return []int{a, b}
}

// until waits for what has no event of its own.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
