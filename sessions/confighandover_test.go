package sessions

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flaudebot/fly"
	localfly "flaudebot/local/fly"
	"flaudebot/runner"
)

func (tk *talk) machine() *fly.Machine {
	tk.t.Helper()
	mach, err := tk.world.fly.Machine(tk.t.Context(), testApp, tk.s.MachineID)
	if err != nil {
		tk.t.Fatal(err)
	}
	return mach
}

// TestConfigHandover: what is particular to turns in the machine's config.
func TestConfigHandover(t *testing.T) {
	t.Parallel()
	byConfig := transports()["config"]
	t.Run("the rest of the config is kept, and after the turn prompt and secrets are out of it", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.m = tk.world.machines(func(cfg *MachinesConfig) {
			tk.transport(cfg)
			cfg.Secrets = runner.Secrets{AnthropicAPIKey: "sk-secret", GitToken: "ghp_secret"}
		})
		tk.good(tk.ask("one"), "one", "answer to one after")
		mach := tk.machine()
		config := *mach.Config
		config.Files = append(config.Files, fly.File{GuestPath: "/run/theirs", RawValue: "aGk="})
		config.Env = map[string]string{"THEIRS": "kept"}
		if _, err := tk.world.fly.UpdateMachine(t.Context(), testApp, mach.ID, fly.UpdateMachine{Config: &config, SkipLaunch: true}, ""); err != nil {
			t.Fatal(err)
		}
		var seen atomic.Pointer[runner.Handed]
		r := tk.run("two")
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				had, err := handedIn(tk.machine().Config)
				if err != nil {
					t.Error(err)
				}
				seen.Store(&had)
			}
			return nil
		}
		tk.good(tk.do(r), "two", "answer to two after one")
		if had := seen.Load(); had == nil || had.Take == nil || had.Take.Turn.Prompt != "two" || had.Take.Secrets.GitToken != "ghp_secret" {
			t.Errorf("in the turn the config hands over %+v", had)
		}
		mach = tk.machine()
		had, err := handedIn(mach.Config)
		if err != nil || had.Take != nil || len(had.Puts) != 0 || len(had.Key) != 0 || had.Turn() != "" {
			t.Errorf("after it the config hands over %+v, %v", had, err)
		}
		if len(mach.Config.Files) != 2 || mach.Config.Files[0].GuestPath != "/run/theirs" || mach.Config.Env["THEIRS"] != "kept" ||
			mach.Config.Metadata[MetaSession] != tk.s.SessionID || len(mach.Config.Mounts) != 1 || mach.Config.Restart.Policy != "no" {
			t.Errorf("of the config was kept: %+v", mach.Config)
		}
	})
	t.Run("the log tells nothing to who reads it alone", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.ask("one")
		page, err := tk.world.fly.Logs(t.Context(), testApp, fly.Logs{Machine: tk.s.MachineID})
		if err != nil || len(page.Entries) == 0 {
			t.Fatalf("Logs = %v, %v", page, err)
		}
		for _, line := range page.Entries {
			if strings.Contains(line.Message, "answer") || strings.Contains(line.Message, "step 1") {
				t.Errorf("the log says %q", line.Message)
			}
		}
	})
	t.Run("acknowledged turns are known to the runner at its next boot", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.ask("one")
		tk.ask("two")
		if names, _ := os.ReadDir(tk.disk(".flaudebot/turns")); countSuffix(names, ".acked") != 1 {
			t.Errorf("the volume holds %v, want the first turn acknowledged", names)
		}
	})
	for name, c := range map[string]struct {
		prompt, file int // bytes
	}{
		"an attachment that is too large is refused, with its limit": {10, maxPuts + 1},
		"a prompt that is too large is refused, with the limit":      {300 << 10, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tk := newTalk(t, byConfig)
			tk.ask("one")
			r := tk.run("")
			r.Prompt = func(context.Context, bool) (Prompt, error) {
				p := Prompt{Text: "large " + noise(c.prompt)}
				if c.file > 0 {
					p.Files = []PromptFile{{Name: "a.bin", Size: int64(c.file), Open: func(context.Context) (io.ReadCloser, error) {
						return io.NopCloser(bytes.NewReader(make([]byte, c.file))), nil
					}}}
				}
				return p, nil
			}
			if out := tk.do(r); out.Failure != FailTooMuch || !strings.Contains(out.Error, "192 KB are the most") || tk.world.claudes() != 1 {
				t.Errorf("it ended with %q: %s, want that it is too much", out.Failure, out.Error)
			}
			if tk.state() != "stopped" {
				t.Errorf("the machine is %s", tk.state())
			}
			tk.good(tk.ask("two"), "two", "answer to two after one")
		})
	}
	t.Run("the exit code that Fly saw is compared with the turn's", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.answering(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/machines/"+tk.s.MachineID) {
				return false
			}
			changeBody(tk.next, w, r, `"exit_code":0`, `"exit_code":9`)
			return true
		})
		tk.good(tk.ask("one"), "one", "answer to one after")
		if said := tk.logs.String(); !strings.Contains(said, "did not exit with its turn's code") || !strings.Contains(said, "told=0 exit=9") {
			t.Errorf("the log says %q", said)
		}
	})
	t.Run("an owner who was replaced neither restarts, stops nor clears what runs", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		r := tk.run("hold one")
		r.Fence = 5
		var once sync.Once
		r.Stage = func(_ context.Context, s Stage) error {
			if s == StageStarted {
				once.Do(func() {
					go func() {
						tk.begun("hold one")
						late := tk.make(tk.world.fly, slog.New(slog.DiscardHandler))
						at := Target{App: testApp, Machine: tk.s.MachineID}
						var take runner.TakeReply
						err := late.Call(t.Context(), at, "take", runner.TakeRequest{Fence: 4, Turn: runner.Turn{ID: "other"}}, &take)
						if err != nil || take.Status != runner.StatusFenced {
							t.Errorf("take = %+v, %v, want it fenced", take, err)
						}
						var stop runner.StopReply
						err = late.Call(t.Context(), at, "stop", runner.StopRequest{Fence: 4, Turn: "turn-1"}, &stop)
						if err != nil || stop.Status != runner.StatusFenced {
							t.Errorf("stop = %+v, %v, want it fenced", stop, err)
						}
						tk.write("go", "")
						var ack runner.AckReply
						err = late.Call(t.Context(), at, "ack", runner.AckRequest{Fence: 4, Turn: "turn-1"}, &ack)
						if err != nil || ack.Status != runner.StatusFenced {
							t.Errorf("ack = %+v, %v, want it fenced", ack, err)
						}
						tk.write("late", "")
					}()
				})
			}
			return nil
		}
		out, nonce := tk.unsettled(r)
		tk.good(out, "hold one", "answer to hold one after")
		tk.until("the end of the late owner", func() bool { _, err := os.Stat(tk.disk("late")); return err == nil })
		if err := tk.m.Settle(t.Context(), tk.s, r.Turn, 5, nonce); err != nil {
			t.Fatal(err)
		}
		if n := tk.world.asked("POST /v1/apps/acme/machines/" + tk.s.MachineID + " "); n != 2 {
			t.Errorf("the machine was updated %d times, want it for the turn and after it", n)
		}
	})
	t.Run("a boot that takes long is told", func(t *testing.T) {
		t.Parallel()
		tk := newTalkOn(t, byConfig, localfly.Config{BootDelay: 3 * time.Second})
		tk.m = tk.world.machines(func(cfg *MachinesConfig) {
			tk.transport(cfg)
			cfg.BootTimeout = 6 * time.Second
		})
		tk.good(tk.ask("one"), "one", "answer to one after")
		if !tk.told("Fly is still starting the machine") {
			t.Errorf("people were told %q", tk.notes)
		}
		tk.quiet()
	})
	t.Run("a machine that does not come up is said", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, func(c *fly.Client, _ *slog.Logger) Handover {
			return &ConfigHandover{Fly: c, Boot: 2 * time.Second, Late: time.Second}
		})
		tk.ask("one")
		tk.local("trouble", map[string]any{"machine": tk.s.MachineID, "stuck": true})
		out, _ := tk.unsettled(tk.run("two"))
		if out.Failure != FailMachine || !strings.Contains(out.Error, "the machine did not come up within 2s") {
			t.Errorf("it ended with %q: %s", out.Failure, out.Error)
		}
	})
	t.Run("no machine lingers", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.m = tk.world.machines(func(cfg *MachinesConfig) {
			tk.transport(cfg)
			cfg.Settings.LingerSeconds = 3600
		})
		tk.good(tk.ask("one"), "one", "answer to one after")
		tk.alone()
	})
	t.Run("no room for the machine is waited out", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.ask("one")
		var tries atomic.Int64
		tk.answering(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/machines/"+tk.s.MachineID) || tries.Add(1) > 2 {
				return false
			}
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"error":"insufficient resources available to fulfill request: could not reserve resource for machine","status":"insufficient_capacity"}`)
			return true
		})
		tk.good(tk.ask("two"), "two", "answer to two after one")
		if !tk.told("Fly has no room just now") {
			t.Error("nobody was told that Fly has no room")
		}
	})
	t.Run("a volume that is gone is said, and the next turn begins afresh", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.ask("one")
		tk.local("trouble", map[string]any{"machine": tk.s.MachineID, "volume_gone": true})
		if out := tk.ask("two"); out.Failure != FailLost {
			t.Errorf("without its volume: %q, %s", out.Failure, out.Error)
		}
		tk.good(tk.ask("three"), "three", "answer to three after")
	})
	t.Run("a machine that is gone is made again on its volume", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		tk.ask("one")
		if err := tk.world.fly.DeleteMachine(t.Context(), testApp, tk.s.MachineID, true, ""); err != nil {
			t.Fatal(err)
		}
		tk.good(tk.ask("two"), "two", "answer to two after one")
		tk.alone()
	})
	t.Run("a turn left in the config does not run when exec is the way again", func(t *testing.T) {
		t.Parallel()
		tk := newTalk(t, byConfig)
		r := tk.run("one")
		out, _ := tk.unsettled(r)
		tk.good(out, "one", "answer to one after")
		tk.make = transports()["exec"]
		tk.restarted()
		r.Started, r.Fence = true, 2
		tk.turns = 2
		tk.good(tk.do(r), "one", "answer to one after")
		tk.good(tk.ask("two"), "two", "answer to two after one")
		if handsOver(tk.machine()) {
			t.Error("the config still hands a turn over")
		}
	})
}

// TestHandoverFallback: what Fly refuses as such is not tried again; what passes is.
func TestHandoverFallback(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status   int
		body     string
		verb     string // which exec is refused; "": all
		fallback bool
	}{
		"the token may not":           {403, `{"error":"unauthorized"}`, "", true},
		"there is no such call":       {404, `404 page not found`, "", true},
		"it is not implemented":       {501, `{"error":"not implemented"}`, "", true},
		"it is refused in mid-turn":   {403, `{"error":"unauthorized"}`, "events", true},
		"a passing error of Fly's":    {503, `{"error":"unavailable"}`, "", false},
		"the command took too long":   {408, `{"error":"deadline_exceeded"}`, "", false},
		"the machine is not started":  {412, `{"error":"failed_precondition: machine not running"}`, "", false},
		"Fly asks to go slower (429)": {429, `{"error":"rate limit exceeded"}`, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tk := newTalk(t, func(client *fly.Client, log *slog.Logger) Handover {
				return &FallbackHandover{Exec: ExecHandover{Fly: client}, Config: &ConfigHandover{Fly: client, Late: time.Second}, Log: log}
			})
			var refusals atomic.Int64
			tk.answering(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/exec") || !c.fallback && refusals.Load() == 2 {
					return false
				}
				raw, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(raw))
				if c.verb != "" && !strings.Contains(string(raw), `"`+c.verb+`"`) {
					return false
				}
				refusals.Add(1)
				tk.write("go", "")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			})
			first := "one"
			if c.verb != "" { // it goes on until that is refused
				first = "hold one"
				go tk.stopWhenDone()
			}
			tk.good(tk.ask(first), first, "answer to "+first+" after")
			tk.good(tk.ask("two"), "two", "answer to two after "+first)
			tk.alone()
			warned := strings.Count(tk.logs.String(), "Fly refuses exec")
			if c.fallback && (warned != 1 || refusals.Load() != 1) || !c.fallback && (warned != 0 || refusals.Load() != 2) {
				t.Errorf("exec was refused %d times, and that was warned of %d times: %s", refusals.Load(), warned, tk.logs.String())
			}
		})
	}
}

// stopWhenDone stops the machine once a turn's outcome is on its volume: its runner would wait long for an acknowledgement that does not come.
func (tk *talk) stopWhenDone() {
	tk.until("an outcome", func() bool {
		names, _ := filepath.Glob(filepath.Join(tk.dir, "volumes", "*", ".flaudebot", "turns", "*.json"))
		return len(names) > 0
	})
	for _, mach := range tk.machinesIn(testApp) {
		tk.local("kill", map[string]any{"machine": mach.ID})
	}
}

func countSuffix(names []os.DirEntry, suffix string) int {
	n := 0
	for _, name := range names {
		if strings.HasSuffix(name.Name(), suffix) {
			n++
		}
	}
	return n
}

// noise is text that packs badly.
func noise(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw)
	return hex.EncodeToString(raw)
}

// changeBody answers as next does, but for a text.
func changeBody(next http.Handler, w http.ResponseWriter, r *http.Request, from, to string) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	w.WriteHeader(rec.Code)
	_, _ = io.WriteString(w, strings.ReplaceAll(rec.Body.String(), from, to))
}
