package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTraps has a subtest for each trap of Claude Code that the reference opens with, under the trap's number there, and
// for those of its later sections that concern us. Recordings show what the real one says; a stand-in process shows what
// it does. What only the real one can show is in cmd/flaudebot's TestRealClaude.
func TestTraps(t *testing.T) {
	t.Parallel()
	for name, trap := range map[string]func(*testing.T){
		"1 an API failure says success":                                         trapAPIFailure,
		"2 an interrupted process exits 0 without a result":                     trapNoResult,
		"3 commands survive in sessions of their own":                           trapSurvivors,
		"4 a conversation that was not kept is a success":                       trapNotKept,
		"5 an empty transcript can neither be resumed nor begun":                trapEmptyTranscript,
		"6 what a repository brings is obeyed":                                  trapRepositorySettings,
		"7 a prompt that begins with a slash is a command":                      trapSlash,
		"8 a blank prompt has no output":                                        trapBlank,
		"9 a line may have more than a megabyte":                                trapLongLine,
		"10 retries are silent for minutes":                                     trapRetries,
		"11 two processes may resume one session":                               trapTwoProcesses,
		"12 --max-turns 0 is no limit":                                          trapMaxTurns,
		"13 Claude Code goes on when nobody reads it":                           trapNobodyReads,
		"section 1: the result is not always the last line":                     trapAfterTheResult,
		"section 1: costs accumulate within a process":                          trapCosts,
		"section 1: the plan comes as one list or task by task":                 trapPlans,
		"section 1: a usage limit is told apart":                                trapLimits,
		"section 1: types that are unknown":                                     trapUnknownTypes,
		"section 2: a transcript is not synced, and belongs to one folder":      trapFolder,
		"section 3: the process stays until its input is closed":                trapStays,
		"section 3: a stop by request keeps the conversation, a signal may not": trapStop,
		"section 3: whoever obeys no request":                                   trapDeaf,
		"section 4: the environment":                                            trapEnvironment,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trap(t)
		})
	}
}

func recording(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "stream-json", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func trapAPIFailure(t *testing.T) {
	m := newMachine(t).boot()
	for name, want := range map[string]Failure{
		"error-401.ndjson":                 FailCredentials,
		"error-400-prompt-too-long.ndjson": FailClaude,
		"error-529-2retries.ndjson":        FailAPI,
		"error-max-turns.ndjson":           FailClaude,
		"oauth-rate-limit-rejected.ndjson": FailLimit,
	} {
		for _, code := range []int{0, 1} { // is_error decides, whatever the process ends with
			out, _ := m.say(fmt.Sprintf("play: %s %d", recording(t, name), code))
			if out.Failure != want || out.ExitCode != 1 || out.Error == "" {
				t.Errorf("%s with exit code %d: outcome = %+v, want %s, exit code 1 and a reason", name, code, out, want)
			}
		}
	}
	if out, _ := m.say("play: " + recording(t, "simple.ndjson") + " 0"); out.Failure != FailNone || out.ExitCode != 0 {
		t.Errorf("a good turn: outcome = %+v", out)
	}
}

func trapNoResult(t *testing.T) {
	m := newMachine(t).boot()
	for scene, want := range map[string]struct {
		code    int
		failure Failure
	}{
		"vanish": {1, FailClaude}, "mute": {1, FailStart}, "die": {137, FailKilled}, "exit: 3": {3, FailClaude},
		"play: " + recording(t, "interrupted-sigterm-text.ndjson") + " 143": {143, FailKilled},
		"play: " + recording(t, "interrupted-sigint-text.ndjson") + " 0":    {1, FailClaude},
	} {
		out, _ := m.say(scene)
		if out.ExitCode != want.code || out.Failure != want.failure || out.Error == "" {
			t.Errorf("%s: outcome = %+v, want %s with %d and a reason", scene, out, want.failure, want.code)
		}
	}
}

func trapSurvivors(t *testing.T) {
	for name, c := range map[string]struct {
		scene string
		stop  bool
	}{
		"when the turn has ended":       {"leave", false},
		"when the turn was stopped":     {"leave and wait", true},
		"when they hold its output":     {"hoard", false},
		"when the whole machine ends":   {"leave and wait", false},
		"when Claude Code obeys nobody": {"leave and stay deaf", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leftOutIfOrphansCannotBeFound(t)
			m := newMachine(t)
			m.cfg.Grace.Interrupt = 50 * time.Millisecond
			if c.scene == "leave and wait" {
				m.cfg.Grace.Interrupt = time.Minute
			}
			m.boot()
			file := filepath.Join(t.TempDir(), "pids")
			turn := m.begin(m.turn(c.scene+": "+file), Secrets{})
			switch {
			case c.stop:
				m.working(turn)
				m.stop(turn)
				m.end(turn)
			case c.scene == "leave and wait":
				m.working(turn)
				_ = m.cmd.Process.Signal(os.Interrupt)
				m.exit()
			default:
				m.end(turn)
			}
			for _, pid := range left(t, file) {
				if there(pid) {
					t.Errorf("process %d is still there", pid)
				}
			}
			if _, err := os.Stat(file + ".termed"); err != nil {
				t.Error("what obeys TERM was not asked to end before it was killed")
			}
		})
	}
}

func trapNotKept(t *testing.T) {
	m := newMachine(t).boot()
	for range 2 { // with no transcript, and with one that does not grow
		if out, answer := m.say("forget"); out.Failure != FailDisk || out.ExitCode != 1 || answer != "done" {
			t.Errorf("outcome = %+v, %q, want that of a full disk, with the answer", out, answer)
		}
		if out, _ := m.say("hello"); out.Failure != FailNone {
			t.Errorf("the next turn: outcome = %+v, want it good", out)
		}
	}
}

func trapEmptyTranscript(t *testing.T) {
	m := newMachine(t).boot()
	m.say("hello")
	if err := os.Truncate(m.transcript(), 0); err != nil {
		t.Fatal(err)
	}
	if out, _ := m.say("hello"); out.Failure != FailNone || out.Resumed {
		t.Errorf("outcome = %+v, want a conversation begun anew", out)
	}
}

func trapRepositorySettings(t *testing.T) {
	m := newMachine(t).boot()
	turn := m.turn("env")
	turn.Repos = []Repo{{URL: gitRepo(t, "main")}, {URL: gitRepo(t, "main"), Dir: "second"}}
	_, answer := m.run(turn, Secrets{})
	args, _, _ := strings.Cut(answer, "\n")
	for _, want := range []string{
		" --setting-sources user ", " --strict-mcp-config ",
		" --add-dir " + filepath.Join(m.cfg.workspace(), turn.Repos[0].Folder()), " --add-dir " + filepath.Join(m.cfg.workspace(), "second"),
	} {
		if !strings.Contains(args+" ", want) {
			t.Errorf("arguments = %s, want %s", args, want)
		}
	}
	// Their CLAUDE.md is read all the same, and the working directory is none of them.
	for _, want := range []string{"\nCLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD=1\n", "\nCWD=" + m.cfg.workspace() + "\n"} {
		if !strings.Contains(answer, want) {
			t.Errorf("%s is missing in:\n%s", strings.TrimSpace(want), answer)
		}
	}
}

func trapSlash(t *testing.T) {
	m := newMachine(t).boot()
	for prompt, want := range map[string]string{
		"/clear": "You said:  /clear", "/etc/passwd: what is it?": "You said:  /etc/passwd: what is it?",
		"-p is a flag": "You said: -p is a flag", "! ls": "You said: ! ls",
	} {
		if _, answer := m.say(prompt); answer != want {
			t.Errorf("%s: answer = %q, want %q", prompt, answer, want)
		}
	}
}

func trapBlank(t *testing.T) {
	m := newMachine(t).boot()
	for _, prompt := range []string{"", " ", "\n\t ", "\u00a0\u2003"} {
		if r := m.take(m.turn(prompt), Secrets{}); r.Status != StatusInvalid || !strings.Contains(r.Reason, "blank") {
			t.Errorf("take(%q) = %+v, want it refused as blank", prompt, r)
		}
	}
}

func trapLongLine(t *testing.T) {
	m := newMachine(t).boot()
	out, answer := m.say("long")
	if want := strings.Repeat("äb<", 400_000); answer != want || out.AnswerBytes != int64(len(want)) {
		t.Errorf("answer has %d bytes, the outcome says %d, want %d", len(answer), out.AnswerBytes, len(want))
	}
	journal, err := os.Stat(m.cfg.turnFile(out.Turn, ".ndjson"))
	if err != nil || journal.Size() > 4*maxRaw {
		t.Errorf("the journal has %d bytes, %v: want big lines cut", journal.Size(), err)
	}
}

func trapRetries(t *testing.T) {
	m := newMachine(t).boot()
	if _, answer := m.say("env"); !strings.Contains(answer, "\nCLAUDE_CODE_MAX_RETRIES=3\n") {
		t.Errorf("CLAUDE_CODE_MAX_RETRIES is not 3 in:\n%s", answer)
	}
	turn := m.begin(m.turn("play: "+recording(t, "error-529-default-retries.ndjson")+" 1"), Secrets{})
	told := 0
	for _, e := range m.follow(turn, func(Event) bool { return false }) {
		if e.Kind == KindRetry && strings.Contains(e.Text, "529") {
			told++
		}
	}
	if told != 10 {
		t.Errorf("%d retries are told, want 10", told)
	}
}

func trapTwoProcesses(t *testing.T) {
	m := newMachine(t).boot()
	turn := m.begin(m.turn("work"), Secrets{})
	if r := m.take(m.turn("hello"), Secrets{}); r.Status != StatusBusy {
		t.Errorf("take of a second turn = %+v, want busy", r)
	}
	other := newMachine(t)
	other.cfg.Data = m.cfg.Data
	other.start(nil)
	if code := other.exit(); code != 97 || !strings.Contains(other.log.String(), "another runner is at work") {
		t.Errorf("a second runner on the volume exits with %d: %s", code, other.log)
	}
	m.working(turn)
	m.stop(turn)
	m.end(turn)
}

func trapMaxTurns(t *testing.T) {
	m := newMachine(t).boot()
	if _, answer := m.say("env"); strings.Contains(answer, "--max-turns") || strings.Contains(answer, "CLAUDE_CODE_MAX_TURNS") {
		t.Errorf("turns are limited, by a number that nobody checked:\n%s", answer)
	}
	if out, _ := m.say("play: " + recording(t, "error-max-turns.ndjson") + " 1"); out.Failure != FailClaude || out.ExitCode != 1 {
		t.Errorf("a limit of turns: outcome = %+v", out)
	}
}

func trapNobodyReads(t *testing.T) {
	leftOutIfOrphansCannotBeFound(t)
	m := newMachine(t).boot()
	file := filepath.Join(t.TempDir(), "pids")
	turn := m.begin(m.turn("work and name itself: "+file), Secrets{})
	m.working(turn)
	_ = m.cmd.Process.Kill()
	m.exit()
	pid := left(t, file)[0]
	if !atWork(pid) {
		t.Fatal("Claude Code ended with the runner: the test shows nothing")
	}
	m.boot()
	if atWork(pid) {
		t.Error("the Claude Code of the last boot is at work on the conversation")
	}
	if r := m.take(turn, Secrets{}); r.Status != StatusInterrupted {
		t.Errorf("take of its turn = %+v, want interrupted", r)
	}
	if out, _ := m.say("hello"); out.Failure != FailNone || !out.Resumed {
		t.Errorf("the next turn: outcome = %+v, want the conversation resumed", out)
	}
}

func trapAfterTheResult(t *testing.T) {
	m := newMachine(t).boot()
	for _, name := range []string{"background-bash.ndjson", "background-bash-keepalive-wire.ndjson"} {
		out, answer := m.say("play: " + recording(t, name) + " 0")
		if out.Failure != FailNone || answer == "" {
			t.Errorf("%s: outcome = %+v, %q, want it good", name, out, answer)
		}
	}
	late := `{"type":"result","is_error":false,"result":"the answer","total_cost_usd":1}` + "\n" +
		`{"type":"system","subtype":"task_notification"}` + "\n" + `{"type":"result","is_error":true,"result":"of the background","origin":{"kind":"task-notification"}}`
	if out, answer := m.say("raw: " + late); out.Failure != FailNone || answer != "the answer" {
		t.Errorf("outcome = %+v, %q, want the first result's", out, answer)
	}
}

func trapCosts(t *testing.T) {
	m := newMachine(t).boot()
	out, _ := m.say("raw: " + `{"type":"result","is_error":false,"result":"a","total_cost_usd":0.5}` + "\n" + `{"type":"result","is_error":false,"result":"b","total_cost_usd":0.75}`)
	if out.CostUSD != 0.75 {
		t.Errorf("cost = %v, want 0.75: the second figure holds the first", out.CostUSD)
	}
	if out, _ := m.say("hello"); out.CostUSD != 0.25 {
		t.Errorf("cost of the next turn = %v, want 0.25: a process of its own begins at 0", out.CostUSD)
	}
}

func trapPlans(t *testing.T) {
	m := newMachine(t).boot()
	if _, answer := m.say("env"); !strings.Contains(answer, "\nCLAUDE_CODE_ENABLE_TASKS=0\n") {
		t.Error("CLAUDE_CODE_ENABLE_TASKS is not 0")
	}
	for _, name := range []string{"tasks.ndjson", "tasks-todowrite-legacy.ndjson"} {
		turn := m.begin(m.turn("play: "+recording(t, name)+" 0"), Secrets{})
		var last []Todo
		for _, e := range m.follow(turn, func(Event) bool { return false }) {
			if e.Kind == KindTodo {
				last = e.Todos
			}
			if strings.HasPrefix(e.Tool, "Task") || e.Tool == "TodoWrite" {
				t.Errorf("%s: the plan's tool %s is told as work", name, e.Tool)
			}
		}
		if len(last) < 2 || last[0].Text == "" || last[0].State != "completed" {
			t.Errorf("%s: the plan ends as %+v, want a list whose first entry is completed", name, last)
		}
	}
}

func trapLimits(t *testing.T) {
	m := newMachine(t).boot()
	out, _ := m.say("play: " + recording(t, "oauth-rate-limit-rejected.ndjson") + " 1")
	if out.Failure != FailLimit || !strings.Contains(out.Error, "resets") || out.LimitResets.Unix() != 1795482313 {
		t.Errorf("outcome = %+v, want a limit and when it resets", out)
	}
	if out, _ := m.say("play: " + recording(t, "oauth-rate-limit-warning.ndjson") + " 0"); out.Failure != FailNone {
		t.Errorf("a warning: outcome = %+v, want it good", out)
	}
}

func trapUnknownTypes(t *testing.T) {
	m := newMachine(t).boot()
	out, answer := m.say("raw: " + `{"type":"a_type_of_tomorrow","x":1}` + "\nno json\n{\n" + `{"type":"result","is_error":false,"result":"fine"}`)
	if out.Failure != FailNone || answer != "fine" {
		t.Errorf("outcome = %+v, %q, want it good", out, answer)
	}
	journal, err := os.ReadFile(m.cfg.turnFile(out.Turn, ".ndjson"))
	if err != nil || !strings.Contains(string(journal), "a_type_of_tomorrow") {
		t.Errorf("the journal does not keep the line: %v\n%s", err, journal)
	}
}

func trapFolder(t *testing.T) {
	m := newMachine(t).boot()
	first, _ := m.say("hello")
	again, _ := m.say("hello")
	_ = m.cmd.Process.Kill()
	m.exit()
	m.boot()
	_, third := m.say("env")
	if first.Resumed || !again.Resumed || !strings.Contains(third, "--resume "+aSession) || !strings.Contains(third, "\nCWD="+m.cfg.workspace()+"\n") {
		t.Errorf("resumed = %v, then %v, then:\n%s\nwant false, true and the same folder again", first.Resumed, again.Resumed, third)
	}
	turn := m.turn("hello")
	turn.Settings.Model = "opus"
	turn.Prompt = "env"
	if _, answer := m.run(turn, Secrets{}); !strings.Contains(answer, "--model opus") {
		t.Error("a resumed turn does not name the model, which may change by itself")
	}
	turn = m.turn("hello")
	turn.Fresh = true
	if out, _ := m.run(turn, Secrets{}); out.Resumed || out.Failure != FailNone {
		t.Errorf("a fresh turn: outcome = %+v, want a conversation begun anew", out)
	}
	for _, text := range []string{"No conversation found with session ID: x", "Error: Session ID x is already in use."} {
		if out, _ := m.say("complain: " + text); out.Failure != FailTranscript || out.Error != text {
			t.Errorf("%s: outcome = %+v, want a transcript that cannot be resumed", text, out)
		}
	}
}

func trapStays(t *testing.T) {
	m := newMachine(t)
	m.cfg.Grace.Result, m.cfg.Grace.Term = 50*time.Millisecond, 50*time.Millisecond
	m.boot()
	out, answer := m.say("stay")
	if out.Failure != FailNone || out.ExitCode != 0 || answer != "stayed" {
		t.Errorf("one that had to be killed after its result: outcome = %+v, %q, want what it would have been", out, answer)
	}
	m = newMachine(t)
	m.cfg.Grace.Result = patience
	m.boot()
	if out, _ := m.say("hello"); out.Failure != FailNone || out.EndedAt.Sub(out.StartedAt) > patience/2 {
		t.Errorf("outcome = %+v, want it good at once: its input was closed", out)
	}
}

func trapStop(t *testing.T) {
	m := newMachine(t)
	m.cfg.Grace.Interrupt = patience
	m.boot()
	turn := m.begin(m.turn("work"), Secrets{})
	m.working(turn)
	m.stop(turn)
	out, answer := m.end(turn)
	if out.Failure != FailStopped || out.ExitCode != 130 || answer != "at work" || out.EndedAt.Sub(out.StartedAt) > patience/2 {
		t.Errorf("outcome = %+v, %q, want it stopped at once with 130, and what was said", out, answer)
	}
	if r := call[StopReply](m, "stop", StopRequest{Turn: turn.ID, Fence: m.fence}); r.Status != StatusDone {
		t.Errorf("stop of a turn that is over = %+v, want done", r)
	}
	if out, _ := m.say("hello"); out.Failure != FailNone || !out.Resumed {
		t.Errorf("the next turn: outcome = %+v, want the conversation resumed", out)
	}
	late := m.begin(m.turn("late"), Secrets{})
	m.working(late)
	m.stop(late)
	if out, answer := m.end(late); out.Failure != FailNone || out.ExitCode != 0 || answer != "made it" {
		t.Errorf("a turn that was done all the same: outcome = %+v, %q, want it good", out, answer)
	}
}

func trapDeaf(t *testing.T) {
	for scene, grace := range map[string]Grace{
		"deaf":     {Interrupt: 50 * time.Millisecond, Term: patience, Result: patience},
		"stubborn": {Interrupt: 50 * time.Millisecond, Term: 50 * time.Millisecond, Result: patience},
	} {
		t.Run(scene, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.cfg.Grace = grace
			m.boot()
			turn := m.begin(m.turn(scene), Secrets{})
			m.working(turn)
			m.stop(turn)
			if out, _ := m.end(turn); out.Failure != FailStopped || out.ExitCode != 130 || out.EndedAt.Sub(out.StartedAt) > patience/2 {
				t.Errorf("outcome = %+v, want it stopped soon with 130", out)
			}
			slow := m.turn(scene)
			slow.Settings.TimeoutSeconds = 1
			if out, _ := m.run(slow, Secrets{}); out.Failure != FailTimeout || out.ExitCode != 124 || !strings.Contains(out.Error, "1s") {
				t.Errorf("outcome = %+v, want its time limit with 124", out)
			}
		})
	}
}

func trapEnvironment(t *testing.T) {
	m := newMachine(t)
	m.env = []string{"GITHUB_TOKEN=ghp-of-the-machine", "FLY_API_TOKEN=fo1-of-the-machine", "CLAUDE_CODE_OAUTH_TOKEN=of-the-machine"}
	m.boot()
	_, answer := m.say("env")
	for _, want := range []string{
		"CLAUDE_CONFIG_DIR=" + m.cfg.claudeDir(), "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1",
		"HOME=" + m.cfg.home(), "GIT_TERMINAL_PROMPT=0", "ANTHROPIC_BASE_URL=http://127.0.0.1:",
	} {
		if !strings.Contains(answer, "\n"+want) {
			t.Errorf("%s is missing in:\n%s", want, answer)
		}
	}
	if strings.Contains(answer, "of-the-machine") {
		t.Errorf("Claude Code sees a secret of process 1:\n%s", answer)
	}
	// Root may not run it without asking, unless it is told that it is in a sandbox; another user needs no such word.
	if sandbox := strings.Contains(answer, "\nIS_SANDBOX=1\n"); sandbox != (os.Geteuid() == 0) {
		t.Errorf("IS_SANDBOX set = %v as user %d", sandbox, os.Geteuid())
	}
}
