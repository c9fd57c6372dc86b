package sessions

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
	"flaudebot/runner"
)

// talkingClaude is a claude with the real one's flags and output, as far as the runner needs them: it knows what it was asked before in the
// conversation, says something on the way, and does what the prompt's first word says.
const talkingClaude = `#!/bin/sh
session=
while [ $# -gt 0 ]; do
	case "$1" in --session-id|--resume) session=$2;; esac
	shift
done
while read -r line; do
	case "$line" in *'"type":"user"'*) prompt=$(printf '%s\n' "$line" | sed 's/.*"content":"\([^"]*\)".*/\1/'); break;; esac
done
data=${FLAUDEBOT_AGENT}
dir=$CLAUDE_CONFIG_DIR/projects/$(pwd -P | sed 's/[^A-Za-z0-9]/-/g')
mkdir -p "$dir"
before=$(cat "$dir/$session.jsonl" 2>/dev/null | tr '\n' ' ')
echo "$prompt" >>"$dir/$session.jsonl"
echo "$prompt" >>"$data/witness"
echo '{"type":"system","subtype":"init","session_id":"'$session'","model":"script"}'
for n in 1 2 3; do
	echo '{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"step '$n'"}]}}'
done
answer="answer to $prompt after $before"
case "$prompt" in
hold*) until [ -e "$data/go" ]; do sleep 0.1; done;;
big*) answer=$(cat "$data/big");;
fail*) echo '{"type":"result","subtype":"error_during_execution","is_error":true,"errors":["it failed"],"session_id":"'$session'"}'; exit 3;;
esac
echo '{"type":"result","subtype":"success","is_error":false,"result":"'$answer'","total_cost_usd":0.5,"session_id":"'$session'"}'
cat >/dev/null
`

// transports are the ways of handing turns over. Each is to pass the same tests.
func transports() map[string]func(*fly.Client, *slog.Logger) Handover {
	return map[string]func(*fly.Client, *slog.Logger) Handover{
		"exec": func(c *fly.Client, _ *slog.Logger) Handover { return ExecHandover{Fly: c} },
		"config": func(c *fly.Client, log *slog.Logger) Handover {
			return &ConfigHandover{Fly: c, Log: log, Late: time.Second}
		},
	}
}

// talk is a session whose machines have real runners.
type talk struct {
	*script
	make func(*fly.Client, *slog.Logger) Handover
	logs *syncBuffer // of the transport

	mu   sync.Mutex
	said []string // guarded by mu; by Claude, on the way
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newTalk(t *testing.T, transport func(*fly.Client, *slog.Logger) Handover) *talk {
	t.Helper()
	return newTalkOn(t, transport, localfly.Config{})
}

func newTalkOn(t *testing.T, transport func(*fly.Client, *slog.Logger) Handover, cfg localfly.Config) *talk {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "claude"), []byte(talkingClaude), 0o755); err != nil {
		t.Fatal(err)
	}
	linkSelf(t, filepath.Join(bin, "flaudebot"))
	cfg.BinDir, cfg.Runner, cfg.Env = bin, []string{"flaudebot", "runner"}, map[string]string{"FLAUDEBOT_CLAUDE_USER": "0"}
	w := newWorldOn(t, cfg)
	tk := &talk{make: transport, logs: &syncBuffer{}}
	tk.script = w.script(tk.transport)
	return tk
}

func (tk *talk) transport(cfg *MachinesConfig) {
	cfg.Handover = tk.make(cfg.Fly, slog.New(slog.NewTextHandler(tk.logs, nil)))
}

// restarted is the bot after a restart: it knows what was saved, and no more.
func (tk *talk) restarted() {
	tk.m = tk.world.machines(tk.transport)
	tk.s = tk.saved
}

// run is a turn whose steps are noted.
func (tk *talk) run(prompt string) Run {
	r := tk.script.run(prompt)
	r.Progress = func(p Progress) {
		tk.progress(p)
		tk.mu.Lock()
		defer tk.mu.Unlock()
		if p.Said != "" && !slices.Contains(tk.said, p.Said) {
			tk.said = append(tk.said, p.Said)
		}
	}
	return r
}

// do runs a turn and settles it.
func (tk *talk) do(r Run) Outcome {
	tk.t.Helper()
	out, nonce := tk.unsettled(r)
	if err := tk.m.Settle(tk.t.Context(), tk.s, TurnID(out.Turn), r.Fence, nonce); err != nil {
		tk.t.Fatalf("Settle = %v", err)
	}
	return out
}

func (tk *talk) ask(prompt string) Outcome {
	tk.t.Helper()
	return tk.do(tk.run(prompt))
}

// disk is the folder of the session's volume.
func (tk *talk) disk(name string) string {
	return filepath.Join(tk.dir, "volumes", tk.s.VolumeID, name)
}

func (tk *talk) write(name, text string) {
	tk.t.Helper()
	if err := os.WriteFile(tk.disk(name), []byte(text), 0o644); err != nil {
		tk.t.Fatal(err)
	}
}

// asked counts how often Claude was asked something.
func (tk *talk) askedClaude(prompt string) int {
	raw, _ := os.ReadFile(tk.disk("witness"))
	return strings.Count("\n"+string(raw), "\n"+prompt+"\n")
}

func (tk *talk) begun(prompt string) {
	tk.t.Helper()
	tk.until("Claude at work", func() bool { return tk.askedClaude(prompt) > 0 })
}

// good fails unless a turn was good, and Claude was asked once.
func (tk *talk) good(out Outcome, prompt, answer string) {
	tk.t.Helper()
	if out.Failure != "" || out.ExitCode != 0 || strings.TrimSpace(out.Answer) != answer || out.CostUSD != 0.5 {
		tk.t.Errorf("%q = %q with exit code %d, failure %q (%s), cost %v; want %q", clipped(prompt), clipped(out.Answer), out.ExitCode, out.Failure, out.Error, out.CostUSD, clipped(answer))
	}
	if n := tk.askedClaude(prompt); n != 1 {
		tk.t.Errorf("Claude was asked %q %d times", clipped(prompt), n)
	}
}

func clipped(s string) string { return s[:min(len(s), 100)] }

// alone fails unless there is one machine, stopped, with one volume, and nobody holds it.
func (tk *talk) alone() {
	tk.t.Helper()
	tk.have(1, 1)
	tk.until("a stopped machine", func() bool { return tk.state() == "stopped" })
	lease, err := tk.world.fly.AcquireLease(tk.t.Context(), testApp, tk.s.MachineID, time.Second, "test")
	if err != nil {
		tk.t.Errorf("the machine is held: %v", err)
		return
	}
	if err := tk.world.fly.ReleaseLease(tk.t.Context(), testApp, tk.s.MachineID, lease.Nonce); err != nil {
		tk.t.Error(err)
	}
}

// lines has every page of the log changed before the bot reads it.
func (tk *talk) lines(change func(page *logPage)) {
	tk.answering(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/logs") {
			return false
		}
		changeLog(tk.t, tk.next, w, r, change)
		return true
	})
}

// logPage is a page of Fly's log as it is on the wire.
type logPage struct {
	Data []logLine      `json:"data"`
	Meta map[string]any `json:"meta"`
}

type logLine struct {
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Attributes map[string]any `json:"attributes"`
}

func (l logLine) text() string {
	text, _ := l.Attributes["message"].(string)
	return text
}

func changeLog(t *testing.T, next http.Handler, w http.ResponseWriter, r *http.Request, change func(*logPage)) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	var page logPage
	if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil {
		t.Errorf("a page of the log: %v", err)
	}
	change(&page)
	raw, err := json.Marshal(page)
	if err != nil {
		t.Error(err)
	}
	_, _ = w.Write(raw)
}

// TestHandover: whatever the way in which turns are handed over, the same comes of them.
func TestHandover(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]func(*talk){
		"a turn, and a follow-up with the conversation": func(tk *talk) {
			tk.good(tk.ask("one"), "one", "answer to one after")
			tk.alone()
			out := tk.ask("two")
			tk.good(out, "two", "answer to two after one")
			if !out.Resumed {
				tk.t.Error("the conversation was not resumed")
			}
			tk.alone()
		},
		"a big answer comes whole": func(tk *talk) {
			tk.ask("one")
			big := make([]byte, 150<<10) // packs badly
			_, _ = rand.Read(big)
			tk.write("big", hex.EncodeToString(big))
			tk.good(tk.ask("big"), "big", hex.EncodeToString(big))
		},
		"a long prompt and attachments arrive whole": func(tk *talk) {
			prompt, file := "long"+strings.Repeat(" é and so on", 6000), make([]byte, 100<<10)
			_, _ = rand.Read(file)
			r := tk.run(prompt)
			r.Prompt = func(context.Context, bool) (Prompt, error) {
				return Prompt{Text: prompt, Files: []PromptFile{
					{Name: "a.bin", Size: int64(len(file)), Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file)), nil }},
					{Name: "empty", Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }},
				}}, nil
			}
			tk.good(tk.do(r), prompt, "answer to "+prompt+" after")
			for name, want := range map[string][]byte{"a.bin": file, "empty": nil} {
				if got, err := os.ReadFile(tk.disk("workspace/attachments/" + name)); err != nil || !bytes.Equal(got, want) {
					tk.t.Errorf("%s has %d bytes, %v, want %d", name, len(got), err, len(want))
				}
			}
		},
		"what Claude says on the way is told": func(tk *talk) {
			tk.ask("one")
			tk.mu.Lock()
			defer tk.mu.Unlock()
			if want := []string{"step 1", "step 2", "step 3"}; !slices.Equal(tk.said, want) {
				tk.t.Errorf("told %q, want %q", tk.said, want)
			}
		},
		"a stop in mid-turn, and the conversation goes on": func(tk *talk) {
			stop := make(chan struct{})
			r := tk.run("hold one")
			r.Stop = stop
			keep := r.Stage
			r.Stage = func(ctx context.Context, s Stage) error {
				if s == StageStarted {
					go func() {
						tk.begun("hold one")
						close(stop)
					}()
				}
				if keep != nil {
					return keep(ctx, s)
				}
				return nil
			}
			if out := tk.do(r); out.Failure != runner.FailStopped || out.ExitCode != 130 {
				tk.t.Errorf("stopped: %q with exit code %d, %s", out.Failure, out.ExitCode, out.Error)
			}
			tk.alone()
			tk.good(tk.ask("two"), "two", "answer to two after hold one")
		},
		"a failure and its exit code, which is the machine's too": func(tk *talk) {
			out := tk.ask("fail one")
			if out.Failure != runner.FailClaude || out.ExitCode != 3 || !strings.Contains(out.Error, "it failed") {
				tk.t.Errorf("failed: %q with exit code %d, %s", out.Failure, out.ExitCode, out.Error)
			}
			if code := tk.exitCode(); code != 3 {
				tk.t.Errorf("the machine's exit code is %d, want 3", code)
			}
			if said := tk.logs.String(); said != "" {
				tk.t.Errorf("it was warned: %s", said)
			}
			tk.good(tk.ask("two"), "two", "answer to two after fail one")
		},
		"the bot is restarted in mid-turn": func(tk *talk) {
			r := tk.run("hold one")
			tk.abandon(r, StageStarted)
			tk.begun("hold one")
			tk.restarted()
			r.Started, r.Fence = true, 2
			tk.turns = 2
			r.Progress = func(p Progress) { // what came before the restart is told again
				if p.Said == "step 3" {
					tk.write("go", "")
				}
			}
			tk.good(tk.do(r), "hold one", "answer to hold one after")
			tk.alone()
		},
		"the bot is restarted before it knows that the turn was taken": func(tk *talk) {
			r := tk.run("hold one")
			tk.abandon(r, StageStarting)
			tk.begun("hold one")
			tk.restarted()
			r.Offered, r.Fence = true, 2
			tk.turns = 2
			tk.write("go", "")
			tk.good(tk.do(r), "hold one", "answer to hold one after")
			tk.alone()
			tk.good(tk.ask("two"), "two", "answer to two after hold one")
		},
		"a turn that is done already is not run again": func(tk *talk) {
			r := tk.run("one")
			out, nonce := tk.unsettled(r)
			tk.good(out, "one", "answer to one after")
			tk.restarted()
			r.Offered, r.Nonce, r.Fence = true, nonce, 2
			tk.turns = 2
			tk.good(tk.do(r), "one", "answer to one after")
			tk.alone()
		},
		"a turn that is done and settled is not run again": func(tk *talk) {
			r := tk.run("one")
			tk.good(tk.do(r), "one", "answer to one after")
			tk.restarted()
			r.Started, r.Fence = true, 2
			tk.turns = 2
			tk.good(tk.do(r), "one", "answer to one after")
			tk.alone()
		},
		"the answer to the handing over is lost": func(tk *talk) {
			tk.ask("one")
			var once sync.Once
			tk.answering(func(w http.ResponseWriter, r *http.Request) bool {
				lost := false
				if r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, "/exec") || strings.HasSuffix(r.URL.Path, "/machines/"+tk.s.MachineID)) {
					once.Do(func() {
						lost = true
						tk.next.ServeHTTP(httptest.NewRecorder(), r)
						w.WriteHeader(http.StatusBadGateway)
					})
				}
				return lost
			})
			tk.good(tk.ask("two"), "two", "answer to two after one")
			tk.alone()
		},
		"the machine dies in mid-turn": func(tk *talk) {
			out := tk.killed("hold one", false)
			if out.Failure != FailMachine || out.ExitCode != 137 || tk.askedClaude("hold one") != 1 {
				tk.t.Errorf("killed: %q with exit code %d, %s, and Claude was asked %d times", out.Failure, out.ExitCode, out.Error, tk.askedClaude("hold one"))
			}
			tk.good(tk.ask("two"), "two", "answer to two after hold one")
			tk.alone()
		},
		"the machine runs out of memory": func(tk *talk) {
			if out := tk.killed("hold one", true); out.Failure != FailMemory || out.ExitCode != 137 {
				tk.t.Errorf("out of memory: %q with exit code %d, %s", out.Failure, out.ExitCode, out.Error)
			}
		},
		"another turn is at work whose owner is gone: it is stopped": func(tk *talk) {
			tk.abandon(tk.run("hold one"), StageStarted)
			tk.begun("hold one")
			tk.restarted()
			tk.good(tk.ask("two"), "two", "answer to two after hold one")
			tk.alone()
		},
		"an owner who was replaced changes nothing": func(tk *talk) {
			tk.ask("one")
			r := tk.run("two")
			r.Fence = 0
			if _, err := tk.m.RunTurn(tk.t.Context(), &tk.s, r); err == nil || tk.askedClaude("two") != 0 {
				tk.t.Errorf("RunTurn = %v, and Claude was asked %d times, want it refused", err, tk.askedClaude("two"))
			}
		},
		"a turn that the runner refuses": func(tk *talk) {
			r := tk.run("one")
			r.Adds = []runner.Repo{{URL: "https://a.b/c", Dir: "../up"}}
			if out := tk.do(r); out.Failure != runner.FailRepos || tk.askedClaude("one") != 0 {
				tk.t.Errorf("refused: %q, %s", out.Failure, out.Error)
			}
			tk.until("a stopped machine", func() bool { return tk.state() == "stopped" })
		},
		"an errand and what it brings": func(tk *talk) {
			tk.ask("one")
			tk.write("workspace/file.txt", strings.Repeat("what it is\n", 10000))
			r := tk.run("")
			r.Errand = &Errand{Errand: runner.Errand{Kind: runner.ErrandState}}
			if out := tk.do(r); out.Failure != "" || out.ExitCode != 0 {
				tk.t.Errorf("errand: %q, %s", out.Failure, out.Error)
			}
			tk.alone()
		},
		"lines of the log come twice, and in any order": func(tk *talk) {
			tk.lines(func(p *logPage) {
				slices.Reverse(p.Data)
				p.Data = append(p.Data, p.Data...)
			})
			tk.good(tk.ask("one"), "one", "answer to one after")
			tk.good(tk.ask("two"), "two", "answer to two after one")
			if want := []string{"step 1", "step 2", "step 3"}; !slices.Equal(tk.said, want) {
				tk.t.Errorf("told %q, want %q", tk.said, want)
			}
		},
		"lines of the log come late": func(tk *talk) {
			seen := map[string]bool{}
			tk.lines(func(p *logPage) {
				p.Data = slices.DeleteFunc(p.Data, func(l logLine) bool {
					late := !seen[l.ID] && strings.Contains(l.text(), "[flaudebot:")
					seen[l.ID] = true
					return late
				})
			})
			tk.good(tk.ask("one"), "one", "answer to one after")
			tk.alone()
		},
		"lines of the log are lost": func(tk *talk) {
			tk.lines(lostAfter(1))
			tk.good(tk.ask("one"), "one", "answer to one after")
			tk.alone()
		},
		"all lines of the log of a boot are lost": func(tk *talk) {
			tk.lines(lostAfter(0))
			tk.good(tk.ask("one"), "one", "answer to one after")
			tk.alone()
		},
		"lines of the log are damaged or forged": func(tk *talk) {
			first := ""
			tk.lines(func(p *logPage) {
				for i := range p.Data {
					f := toldLine.FindStringSubmatch(p.Data[i].text())
					if f == nil {
						continue
					}
					if first == "" {
						first = f[1]
					}
					if f[1] == first { // of the first boot
						p.Data[i].Attributes["message"] = strings.Replace(p.Data[i].text(), "A", "B", 1) + "\n[flaudebot:000000000000:00000000.1:1/1:00000000 AAAA]"
					}
				}
			})
			tk.good(tk.ask("one"), "one", "answer to one after")
			tk.alone()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for way, transport := range transports() {
				t.Run(way, func(t *testing.T) {
					t.Parallel()
					tk := newTalk(t, transport)
					c(tk)
					tk.used(way)
				})
			}
		})
	}
}

// used fails unless turns were handed over in that way, and in no other.
func (tk *talk) used(way string) {
	tk.t.Helper()
	path := "POST /v1/apps/acme/machines/" + tk.s.MachineID
	execs, updates := tk.world.asked(path+"/exec"), tk.world.asked(path+" ")
	if (way == "exec") != (execs > 0) || (way == "config") != (updates > 0) {
		tk.t.Errorf("%d commands and %d updates by way of %s", execs, updates, way)
	}
}

// toldLine finds the boot and the number of a message.
var toldLine = regexp.MustCompile(`\[flaudebot:[0-9a-f]+:([0-9a-f]+)\.(\d+):`)

// lostAfter loses what the first boot told after so many messages.
func lostAfter(n int) func(*logPage) {
	first := ""
	return func(p *logPage) {
		p.Data = slices.DeleteFunc(p.Data, func(l logLine) bool {
			f := toldLine.FindStringSubmatch(l.text())
			if f == nil {
				return false
			}
			if first == "" {
				first = f[1]
			}
			number, _ := strconv.Atoi(f[2])
			return f[1] == first && number > n
		})
	}
}

func (tk *talk) exitCode() int {
	tk.t.Helper()
	mach, err := tk.world.fly.Machine(tk.t.Context(), testApp, tk.s.MachineID)
	if err != nil {
		tk.t.Fatal(err)
	}
	exit, ok := mach.LastExit()
	if !ok {
		tk.t.Fatal("the machine has no exit event")
	}
	return exit.ExitCode
}

// abandon runs a turn until its owner dies after that stage was written and Claude is at work.
func (tk *talk) abandon(r Run, last Stage) {
	tk.t.Helper()
	ctx, die := context.WithCancel(tk.t.Context())
	defer die()
	r.Stage = func(ctx context.Context, s Stage) error {
		if s == StageStarted && last != StageStarted {
			<-ctx.Done() // it never came to write it
			return ctx.Err()
		}
		return nil
	}
	r.KeepNonce = nil
	go func() {
		tk.until("Claude at work", func() bool { return tk.world.claudes() > 0 })
		die()
	}()
	if _, err := tk.m.RunTurn(ctx, &tk.s, r); err == nil {
		tk.t.Fatal("the turn ended although its owner died")
	}
	tk.saved = tk.s
}

// claudes counts the prompts that Claude was asked, on all volumes.
func (w *world) claudes() int {
	n := 0
	names, _ := filepath.Glob(filepath.Join(w.dir, "volumes", "*", "witness"))
	for _, name := range names {
		raw, _ := os.ReadFile(name)
		n += strings.Count(string(raw), "\n")
	}
	return n
}

// killed runs a turn whose machine is killed in mid-turn.
func (tk *talk) killed(prompt string, oom bool) Outcome {
	tk.t.Helper()
	r := tk.run(prompt)
	r.Stage = func(_ context.Context, s Stage) error {
		if s == StageStarted {
			go func() {
				tk.begun(prompt)
				tk.local("kill", map[string]any{"machine": tk.s.MachineID, "oom_killed": oom})
			}()
		}
		return nil
	}
	return tk.do(r)
}
