package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestTake(t *testing.T) {
	t.Parallel()
	t.Run("a turn runs once, however often it is handed over", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.turn("work")
		var accepted, running int
		var all sync.WaitGroup
		replies := make([]TakeReply, 8)
		for i := range replies {
			all.Go(func() { replies[i], _ = try[TakeReply](m, "take", TakeRequest{Fence: m.fence, Turn: turn}) })
		}
		all.Wait()
		for _, r := range replies {
			if r.Status == StatusAccepted {
				accepted++
			}
			if r.Status == StatusRunning {
				running++
			}
		}
		if accepted != 1 || running != 7 {
			t.Errorf("replies = %+v, want it accepted once and running otherwise", replies)
		}
		if h := m.hello(); h.Running != turn.ID {
			t.Errorf("hello = %+v, want it running", h)
		}
		m.working(turn)
		m.stop(turn)
		out, _ := m.end(turn)
		if r := m.take(turn, Secrets{}); r.Status != StatusDone || r.Outcome == nil || r.Outcome.EndedAt != out.EndedAt {
			t.Errorf("take = %+v, want it done with the outcome", r)
		}
	})
	t.Run("what was accepted is on the volume first", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.begin(m.turn("work"), Secrets{})
		_ = m.cmd.Process.Kill() // at once
		m.exit()
		m.boot()
		for range 2 {
			if r := m.take(turn, Secrets{}); r.Status != StatusInterrupted {
				t.Errorf("take after a new boot = %+v, want interrupted", r)
			}
		}
		if r := call[ResultReply](m, "result", ResultRequest{Turn: turn.ID}); r.Status != StatusInterrupted {
			t.Errorf("result = %+v, want interrupted", r)
		}
		if r := call[AckReply](m, "ack", AckRequest{Turn: turn.ID, Fence: m.fence}); r.Status != StatusOK {
			t.Errorf("ack = %+v, want ok", r)
		}
		m.exit()
	})
	t.Run("an outcome is known after a new boot, and owed until it is acknowledged", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		boot := m.hello().BootID
		turn := m.turn("exit: 3")
		m.run(turn, Secrets{})
		_ = m.cmd.Process.Kill()
		m.exit()
		m.boot()
		h := m.hello()
		if h.BootID == boot || !slices.Equal(h.Unacked, []string{turn.ID}) {
			t.Errorf("hello = %+v, want another boot and the turn unacknowledged", h)
		}
		if r := m.take(turn, Secrets{}); r.Status != StatusDone || r.Outcome.ExitCode != 3 {
			t.Errorf("take = %+v, want done with 3", r)
		}
		if out, answer := m.end(turn); out.ExitCode != 3 || answer != "not an error" {
			t.Errorf("result = %+v, %q", out, answer)
		}
		if events := m.follow(turn, func(Event) bool { return false }); len(events) < 3 || events[0].Kind != KindPhase {
			t.Errorf("events = %+v, want those of the last boot", events)
		}
	})
	t.Run("a take that waits brings the news", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		wait := func(turn Turn) TakeReply {
			return call[TakeReply](m, "take", TakeRequest{Fence: m.fence, Turn: turn, WaitMS: 10_000})
		}
		short := wait(m.turn("exit: 3"))
		if n := short.News; short.Status != StatusAccepted || n == nil || n.Status != StatusDone || len(n.Events) < 2 || n.Outcome.ExitCode != 3 || n.Text != "not an error" {
			t.Errorf("take = %+v with %+v, want accepted, and all of a short turn", short, n)
		}
		turn := m.turn("work")
		for _, want := range []Status{StatusAccepted, StatusRunning} {
			if r := wait(turn); r.Status != want || r.News == nil || r.News.Status != StatusRunning || len(r.News.Events) == 0 || r.News.Events[0].N != 1 {
				t.Errorf("take = %+v with %+v, want %s with its first events", r, r.News, want)
			}
		}
		if r := wait(m.turn("another")); r.Status != StatusBusy || r.News != nil {
			t.Errorf("take = %+v, want busy at once", r)
		}
	})
	t.Run("the machine's exit code is that of its last turn", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.turn("exit: 7")
		m.run(turn, Secrets{})
		if r := call[AckReply](m, "ack", AckRequest{Turn: turn.ID, Fence: m.fence}); r.Status != StatusOK {
			t.Fatalf("ack = %+v, want ok", r)
		}
		if code := m.exit(); code != 7 {
			t.Errorf("exit code = %d, want 7", code)
		}
		m.boot()
		if h := m.hello(); len(h.Unacked) != 0 {
			t.Errorf("hello = %+v, want nothing owed", h)
		}
	})
	t.Run("a machine that is stopped in mid-turn tells so", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.begin(m.turn("work"), Secrets{})
		m.working(turn)
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
		if code := m.exit(); code != 130 {
			t.Errorf("exit code = %d, want 130", code)
		}
		m.boot()
		if r := m.take(turn, Secrets{}); r.Status != StatusDone || r.Outcome.Failure != FailInterrupted {
			t.Errorf("take = %+v, want done as interrupted", r)
		}
	})
	t.Run("a turn that makes no sense is refused and leaves nothing", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		for want, c := range map[string]struct {
			failure Failure
			change  func(*Turn)
		}{
			"needs an id":         {FailHandover, func(t *Turn) { t.ID = "" }},
			"no session id":       {FailHandover, func(t *Turn) { t.SessionID = "../x" }},
			"prompt was not put":  {FailHandover, func(t *Turn) { t.PromptPut = true }},
			"prompt is blank":     {FailNoPrompt, func(t *Turn) { t.Prompt = " \n" }},
			"no name for an att":  {FailFile, func(t *Turn) { t.Files = []File{{Name: "../x"}} }},
			"was not put":         {FailFile, func(t *Turn) { t.Files = []File{{Name: "x", Size: 1}} }},
			"no address of a rep": {FailRepos, func(t *Turn) { t.Repos = []Repo{{URL: "--upload-pack=x"}} }},
			"no name for a repos": {FailRepos, func(t *Turn) { t.Repos = []Repo{{URL: "https://h/x", Dir: "../x"}} }},
			"two repositories":    {FailRepos, func(t *Turn) { t.Repos = []Repo{{URL: "https://h/x"}, {URL: "https://i/x.git"}} }},
			"holds a password":    {FailRepos, func(t *Turn) { t.Repos = []Repo{{URL: "https://me:hunter22@h/x"}} }},
		} {
			turn := m.turn("hello")
			c.change(&turn)
			r := m.take(turn, Secrets{})
			if r.Status != StatusInvalid || r.Failure != c.failure || !strings.Contains(r.Reason, want) || strings.Contains(r.Reason, "hunter22") {
				t.Errorf("take = %+v, want it invalid: %s, %s", r, c.failure, want)
			}
			if turn.ID != "" && call[ResultReply](m, "result", ResultRequest{Turn: turn.ID}).Status != StatusUnknown {
				t.Errorf("%s: the refused turn is heard of", want)
			}
		}
	})
}

func TestFence(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	m.fence = 5
	turn := m.begin(m.turn("work"), Secrets{})
	m.working(turn)
	refused := func(when string) {
		t.Helper()
		got := map[string]Status{
			"take":  call[TakeReply](m, "take", TakeRequest{Fence: 4, Turn: m.turn("hello")}).Status,
			"put":   call[PutReply](m, "put", PutRequest{Fence: 4, Turn: "x", Name: "prompt"}).Status,
			"ack":   call[AckReply](m, "ack", AckRequest{Fence: 4, Turn: turn.ID}).Status,
			"stop":  call[StopReply](m, "stop", StopRequest{Fence: 4, Turn: turn.ID}).Status,
			"sleep": call[SleepReply](m, "sleep", SleepRequest{Fence: 4}).Status,
		}
		for verb, status := range got {
			if status != StatusFenced {
				t.Errorf("%s: %s with an older fence = %s, want fenced", when, verb, status)
			}
		}
	}
	refused("while the turn runs")
	_ = m.cmd.Process.Kill()
	m.exit()
	m.boot()
	if h := m.hello(); h.Fence != 5 {
		t.Errorf("hello after a new boot = %+v, want the fence 5", h)
	}
	refused("after a new boot")
	m.fence = 6
	if r := m.take(turn, Secrets{}); r.Status != StatusInterrupted {
		t.Errorf("take with a newer fence = %+v, want interrupted", r)
	}
}

func TestPut(t *testing.T) {
	t.Parallel()
	put := func(t *testing.T, m *machine, r PutRequest, want Status) PutReply {
		t.Helper()
		r.Fence = m.fence
		got := call[PutReply](m, "put", r)
		if got.Status != want {
			t.Fatalf("put of %s at %d = %+v, want %s", r.Name, r.Offset, got, want)
		}
		return got
	}
	sum := func(b string) string { s := sha256.Sum256([]byte(b)); return hex.EncodeToString(s[:]) }
	t.Run("attachments and a long prompt arrive in pieces", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.turn("")
		for range 2 { // each piece twice: a lost reply does no harm
			put(t, m, PutRequest{Turn: turn.ID, Name: "file/a.bin", Data: []byte("one\x00")}, StatusOK)
		}
		for range 2 {
			if r := put(t, m, PutRequest{Turn: turn.ID, Name: "file/a.bin", Offset: 4, Data: []byte("two")}, StatusOK); r.Size != 7 {
				t.Errorf("put = %+v, want 7 bytes", r)
			}
		}
		put(t, m, PutRequest{Turn: turn.ID, Name: "file/a.bin", Offset: 9, Data: []byte("gap")}, StatusInvalid)
		put(t, m, PutRequest{Turn: turn.ID, Name: "file/../../x", Data: []byte("x")}, StatusInvalid)
		put(t, m, PutRequest{Turn: turn.ID, Name: "prompt", Data: []byte("a prompt that was longer before it was edited")}, StatusOK)
		put(t, m, PutRequest{Turn: turn.ID, Name: "prompt", Data: []byte("a prompt")}, StatusOK)
		turn.PromptPut, turn.PromptBytes = true, 8
		turn.Files = []File{{Name: "a.bin", Size: 7, SHA256: sum("something else")}}
		if r := m.take(turn, Secrets{}); r.Status != StatusInvalid || !strings.Contains(r.Reason, "did not arrive whole") {
			t.Errorf("take with a wrong digest = %+v, want it invalid", r)
		}
		turn.Files = []File{{Name: "a.bin", Size: 7, SHA256: sum("one\x00two")}, {Name: "empty", SHA256: sum("")}}
		out, answer := m.run(turn, Secrets{})
		if answer != "You said: a prompt" || !slices.Equal(out.Files, []string{"attachments/a.bin", "attachments/empty"}) {
			t.Errorf("answer = %q, files = %v", answer, out.Files)
		}
		if raw, err := os.ReadFile(filepath.Join(m.cfg.workspace(), "attachments", "a.bin")); err != nil || string(raw) != "one\x00two" {
			t.Errorf("attachment = %q, %v", raw, err)
		}
	})
	t.Run("what another owner began does not mix with it", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		turn := m.turn("")
		put(t, m, PutRequest{Turn: turn.ID, Name: "prompt", Data: []byte("what it was before")}, StatusOK)
		m.fence++
		turn.PromptPut = true
		if r := m.take(turn, Secrets{}); r.Status != StatusInvalid {
			t.Errorf("take = %+v, want the prompt missing", r)
		}
		put(t, m, PutRequest{Turn: turn.ID, Name: "prompt", Data: []byte("new")}, StatusOK)
		if _, answer := m.run(turn, Secrets{}); answer != "You said: new" {
			t.Errorf("answer = %q, want the new prompt alone", answer)
		}
	})
	t.Run("what the running turn has still to read stays", func(t *testing.T) {
		t.Parallel()
		s, err := newServer(volume(t))
		if err != nil {
			t.Fatal(err)
		}
		mine := s.cfg.putDir("a", 1)
		s.running = newTurn(s.cfg, Turn{ID: "a"}, "", Secrets{}, nil, mine)
		for _, r := range []PutRequest{{Turn: "a", Fence: 1}, {Turn: "b", Fence: 1}, {Turn: "c", Fence: 2}} {
			r.Name, r.Data = "file/x", []byte("x")
			if got := s.put(t.Context(), r); got.Status != StatusOK {
				t.Fatalf("put = %+v, want ok", got)
			}
		}
		if size(putPath(mine, "file/x")) != 1 || size(putPath(s.cfg.putDir("b", 1), "file/x")) != 0 {
			t.Error("want the running turn's kept, and nothing of a turn that was never taken")
		}
	})
	t.Run("a fence that cannot be kept, and a journal that cannot begin, are told as what they are", func(t *testing.T) {
		t.Parallel()
		s, err := newServer(volume(t))
		if err != nil {
			t.Fatal(err)
		}
		turn := Turn{ID: "a", SessionID: "6f1c2f52-6f5c-4c39-8f0a-2f3a0a5b9a11", Prompt: "hello"}
		if err := os.RemoveAll(filepath.Join(s.cfg.own(), "turns")); err != nil {
			t.Fatal(err)
		}
		if r := s.take(t.Context(), TakeRequest{Fence: 1, Turn: turn}); r.Status != StatusInvalid || r.Failure != FailHandover {
			t.Errorf("take without a place for the journal = %+v, want %s", r, FailHandover)
		}
		if err := os.Mkdir(s.cfg.fenceFile()+".new", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.cfg.fenceFile()+".new/x", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := s.take(t.Context(), TakeRequest{Fence: 2, Turn: turn}); r.Status != StatusInvalid || r.Failure != FailHandover || !strings.Contains(r.Reason, "fence") {
			t.Errorf("take without a place for the fence = %+v, want %s", r, FailHandover)
		}
		if r := s.put(t.Context(), PutRequest{Turn: "a", Fence: 3, Name: "file/x", Data: []byte("x")}); r.Status != StatusInvalid || r.Failure != FailHandover {
			t.Errorf("put without a place for the fence = %+v, want %s", r, FailHandover)
		}
	})
	t.Run("an attachment that cannot be placed is no full volume", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		if err := os.WriteFile(filepath.Join(m.cfg.workspace(), "attachments"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		turn := m.turn("hello")
		put(t, m, PutRequest{Turn: turn.ID, Name: "file/a", Data: []byte("x")}, StatusOK)
		turn.Files = []File{{Name: "a", Size: 1, SHA256: sum("x")}}
		if out, _ := m.run(turn, Secrets{}); out.Failure != FailFile || !strings.Contains(out.Error, "in the way") {
			t.Errorf("outcome = %+v, want %s", out, FailFile)
		}
	})
	t.Run("it cannot fill the volume", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		big := func(name string, size int64) {
			t.Helper()
			path := putPath(m.cfg.putDir("x", m.fence), name)
			put(t, m, PutRequest{Turn: "x", Name: name, Data: []byte("x")}, StatusOK)
			if err := os.Truncate(path, size); err != nil { // sparse: the test needs no room
				t.Fatal(err)
			}
		}
		big("prompt", maxPutPrompt)
		r := put(t, m, PutRequest{Turn: "x", Name: "prompt", Offset: maxPutPrompt, Data: []byte("x")}, StatusInvalid)
		if !strings.Contains(r.Reason, "larger than 8 MB") || r.Failure != FailHandover {
			t.Errorf("put = %+v", r)
		}
		big("file/1", maxPutFile)
		put(t, m, PutRequest{Turn: "x", Name: "file/1", Offset: maxPutFile, Data: []byte("x")}, StatusInvalid)
		big("file/2", maxPutFile)
		big("file/3", maxPutFile)
		big("file/4", maxPutTurn-3*maxPutFile-maxPutPrompt)
		r = put(t, m, PutRequest{Turn: "x", Name: "file/5", Data: []byte("x")}, StatusInvalid)
		if !strings.Contains(r.Reason, "larger than 128 MB") || r.Failure != FailFile {
			t.Errorf("put = %+v", r)
		}
		// What was put for a turn that was never taken goes when the next one comes.
		put(t, m, PutRequest{Turn: "y", Name: "file/5", Data: []byte("x")}, StatusOK)
		if _, err := os.Stat(m.cfg.turnFile("x", ".put")); err == nil {
			t.Error("what was put for another turn is kept")
		}
	})
}

// TestPutName: a name is one folder's, in any script, and none that is hidden, leads elsewhere or is longer than file systems take.
func TestPutName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"prompt": true, "file/a-b_c.tar.gz": true, "file/日本.png": true, "file/отчёт_2026.pdf": true, "file/Cafe\u0301.txt": true, "file/हिन्दी.txt": true, "file/_": true,
		"file/" + strings.Repeat("x", 121): true, "file/" + strings.Repeat("x", 122): false, "file/" + strings.Repeat("界", 40): true, "file/" + strings.Repeat("界", 41): false,
		"": false, "other": false, "file/": false, "file/.": false, "file/..": false, "file/.hidden": false, "file/a/b": false, "file/a b": false, "file/a\x00": false,
		"file/\u0301": false, "file/\u202egnp.exe": false, "file/a\n": false, "file/\xff": false, "file/a∕b": false, "file/🦀": false,
	} {
		if isPutName(name) != ok {
			t.Errorf("%q may be put: %v, want %v", name, !ok, ok)
		}
	}
}
