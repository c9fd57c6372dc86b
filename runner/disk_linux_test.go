package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallVolume boots a machine whose volume has that many MB. It is mounted for process 1 alone.
func smallVolume(t *testing.T, mb int) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("left out: a small volume can be mounted by root only")
	}
	m := newMachine(t)
	if err := os.Mkdir(m.cfg.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	m.start(func(cmd *exec.Cmd) {
		script := fmt.Sprintf(`mount -t tmpfs -o size=%dm tmpfs "$1" && exec "$2"`, mb)
		cmd.Args = append([]string{"sh", "-c", script, "sh", m.cfg.Data}, cmd.Args...)
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args[5] = sh, cmd.Path
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
	m.hello()
	return m
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	t.Run("a turn that fills it says so, and the next one after room was made works", func(t *testing.T) {
		t.Parallel()
		m := smallVolume(t, 8)
		m.say("hello")
		turn := m.turn("fill")
		out, answer := m.run(turn, Secrets{})
		if out.Failure != FailDisk || out.ExitCode != 1 || answer != "filled" || !strings.Contains(out.Error, "full") {
			t.Errorf("outcome = %+v, %q, want a full disk", out, answer)
		}
		// It is on the disk, thanks to what was kept back for it: seen from inside, where the mount is.
		root := fmt.Sprintf("/proc/%d/root", m.cmd.Process.Pid)
		if size(filepath.Join(root, m.cfg.turnFile(turn.ID, ".json"))) == 0 {
			t.Error("the outcome is not on the disk")
		}
		m.fence++ // a new owner can still ask
		if r := m.take(turn, Secrets{}); r.Status != StatusDone {
			t.Errorf("take = %+v, want done", r)
		}
		if r := call[PutReply](m, "put", PutRequest{Turn: "x", Fence: m.fence, Name: "file/x", Data: []byte("x")}); r.Status != StatusInvalid || r.Failure != FailDisk || !strings.Contains(r.Reason, "nearly full") {
			t.Errorf("put = %+v, want it refused", r)
		}
		if out, _ := m.say("fill"); out.Failure != FailDisk {
			t.Errorf("a second one: outcome = %+v, want a full disk", out)
		}
		m.say("clean up")
		if out, _ := m.say("hello"); out.Failure != FailNone || !out.Resumed {
			t.Errorf("after room was made: outcome = %+v, want the conversation resumed", out)
		}
	})
	t.Run("attachments that do not fit any more are told as a full volume", func(t *testing.T) {
		t.Parallel()
		for err, want := range map[error]Failure{
			&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}:                    FailDisk,
			refused{&os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}, FailFile}: FailDisk,
			refused{os.ErrPermission, FailFile}:                                           FailFile,
			os.ErrPermission:                                                              FailHandover,
		} {
			if got := failureOf(err); got != want {
				t.Errorf("failureOf(%v) = %s, want %s", err, got, want)
			}
		}
	})
	t.Run("an outcome that does not fit is kept in memory", func(t *testing.T) {
		t.Parallel()
		m := smallVolume(t, 8)
		m.say("hello")
		turn := m.turn("fill and say much")
		out, answer := m.run(turn, Secrets{})
		if len(answer) != 3<<20 || out.AnswerBytes != 3<<20 {
			t.Errorf("outcome = %+v, with %d bytes, want the whole answer", out, len(answer))
		}
		m.say("clean up") // a further turn does not make it forget
		if r := m.take(turn, Secrets{}); r.Status != StatusDone {
			t.Errorf("take = %+v, want done", r)
		}
	})
}

// TestUser shows that Claude Code is a user of its own, which reaches what is its and nothing of the runner's.
func TestUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("left out: only root can run Claude Code as another user")
	}
	m := newMachine(t)
	// The user must be able to reach the program.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(m.cfg.Data)
	m.cfg.Claude, m.cfg.UID = filepath.Join(dir, "bin", "claude"), 12345
	if err := os.Mkdir(filepath.Dir(m.cfg.Claude), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.cfg.Claude+".test", program, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFake(t, m.cfg.Claude, m.cfg.Claude+".test")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.env = []string{"GITHUB_TOKEN=ghp-of-the-machine"}
	m.boot()
	turn := m.turn("look at: " + fmt.Sprint(m.cmd.Process.Pid))
	turn.Repos = []Repo{{URL: gitRepo(t, "main")}}
	if r := call[PutReply](m, "put", PutRequest{Turn: turn.ID, Fence: m.fence, Name: "file/a", Data: []byte("x")}); r.Status != StatusOK {
		t.Fatalf("put = %+v", r)
	}
	turn.Files = []File{{Name: "a", Size: 1}}
	out, answer := m.run(turn, Secrets{AnthropicAPIKey: "sk-ant-the-real-one", GitToken: "ghp-of-the-session"})
	if out.Failure != FailNone {
		t.Fatalf("outcome = %+v", out)
	}
	for _, want := range []string{
		"uid 12345", "write workspace: ok", "write repo: ok", "write attachment: ok", "write home: ok",
		"read journals: denied", "read fence: denied", "read environment of process 1: denied", "ask the runner: denied", "ask for a Git credential: ok",
		"read the hooks of commits: ok", "change a hook of commits: denied", "add a hook of commits: denied", "change who asked: denied",
	} {
		if !strings.Contains(answer, want) {
			t.Errorf("%s is missing in:\n%s", want, answer)
		}
	}
	if _, env := m.say("env"); strings.Contains(env, "IS_SANDBOX") {
		t.Error("a user of its own needs no word of a sandbox")
	}
}
