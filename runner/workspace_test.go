package runner

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// gitRepo makes a repository with a commit on each branch, each with a file that names the branch.
func gitRepo(t *testing.T, branches ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=" + branches[0], "-C", dir}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	git("init", "-q")
	for i, b := range branches {
		if i > 0 {
			git("checkout", "-q", "-b", b)
		}
		if err := os.WriteFile(filepath.Join(dir, "branch"), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", ".")
		git("commit", "-q", "-m", "On "+b)
	}
	git("checkout", "-q", branches[0])
	return dir
}

func TestClone(t *testing.T) {
	t.Parallel()
	content := func(m *machine, name string) string {
		raw, _ := os.ReadFile(filepath.Join(m.cfg.workspace(), name))
		return string(raw)
	}
	t.Run("several repositories, each with its branch and folder, and once", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		repo := gitRepo(t, "main", "dev")
		turn := m.turn("hello")
		turn.Repos = []Repo{{URL: repo}, {URL: repo, Branch: "dev", Dir: "second"}}
		out, _ := m.run(turn, Secrets{})
		if content(m, "repo/branch") != "main" || content(m, "second/branch") != "dev" || len(out.Repos) != 2 {
			t.Errorf("files = %v, repositories = %+v", out.Files, out.Repos)
		}
		// Later turns neither clone nor touch what is there.
		if err := os.WriteFile(filepath.Join(m.cfg.workspace(), "repo", "new"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(repo); err != nil {
			t.Fatal(err)
		}
		turn.ID += "-again"
		m.begin(turn, Secrets{})
		for _, e := range m.follow(turn, func(Event) bool { return false }) {
			if e.Phase == PhaseCloning {
				t.Error("a later turn clones")
			}
		}
		out, _ = m.end(turn)
		if out.Failure != FailNone || out.Repos[0].Changed != 1 || out.Repos[1].Changed != 0 || out.Repos[1].Branch != "dev" {
			t.Errorf("outcome = %+v, want one changed file in the first", out)
		}
	})
	t.Run("commits on a detached HEAD count, and what Git does not tell is unknown", func(t *testing.T) {
		t.Parallel()
		cfg := volume(t)
		repo := gitRepo(t, "main")
		git := func(dir string, args ...string) {
			t.Helper()
			cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@localhost", "-C", dir}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("git %v: %v: %s", args, err, out)
			}
		}
		git(repo, "tag", "v1")
		var repos []Repo
		for _, dir := range []string{"tagged", "ahead", "broken", "gone", "unborn", "on-branch"} {
			repos = append(repos, Repo{URL: repo, Dir: dir})
			git(cfg.workspace(), "clone", "-q", "-c", "advice.detachedHead=false", "--branch", "v1", repo, dir)
		}
		at := func(dir string) string { return filepath.Join(cfg.workspace(), dir) }
		git(at("ahead"), "commit", "-q", "--allow-empty", "-m", "one")
		git(at("ahead"), "commit", "-q", "--allow-empty", "-m", "two")
		git(at("on-branch"), "checkout", "-q", "-b", "mine")
		git(at("on-branch"), "commit", "-q", "--allow-empty", "-m", "one")
		for _, gone := range []string{at("broken") + "/.git/objects", at("gone"), at("unborn")} {
			if err := os.RemoveAll(gone); err != nil {
				t.Fatal(err)
			}
		}
		git(cfg.workspace(), "init", "-q", "-b", "new", "unborn")
		want := []RepoState{
			{Dir: "tagged", Branch: "HEAD"},
			{Dir: "ahead", Branch: "HEAD", Unpushed: 2},
			{Dir: "broken", Branch: "HEAD", Unknown: true},
			{Dir: "gone"},
			{Dir: "unborn", Branch: "new"},
			{Dir: "on-branch", Branch: "mine", Unpushed: 1},
		}
		if got := cfg.repoStates(repos); !slices.Equal(got, want) {
			t.Errorf("states = %+v, want %+v", got, want)
		}
		others := []RepoState{{Dir: "ahead", Branch: "HEAD", Unpushed: 2}, {Dir: "broken", Branch: "HEAD", Unknown: true}, {Dir: "on-branch", Branch: "mine", Unpushed: 1}}
		if got := cfg.repoStates(nil); !slices.Equal(got, others) {
			t.Errorf("states of a session that knows of none = %+v, want %+v", got, others)
		}
	})
	t.Run("a clone that fails leaves nothing, and Claude Code is not started", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t).boot()
		good := gitRepo(t, "main")
		turn := m.turn("hello")
		turn.Repos = []Repo{{URL: good}, {URL: good, Branch: "no-such-branch", Dir: "second"}}
		out, _ := m.run(turn, Secrets{})
		if out.Failure != FailClone || out.ExitCode != 1 || !strings.Contains(out.Error, "no-such-branch") || out.Repos != nil {
			t.Errorf("outcome = %+v, want a clone that failed", out)
		}
		entries, err := os.ReadDir(m.cfg.workspace())
		if err != nil || len(entries) != 1 || entries[0].Name() != "repo" {
			t.Errorf("workspace = %v, %v, want the good one alone", entries, err)
		}
		turn.Repos[1].Branch, turn.ID = "", turn.ID+"-again"
		if out, _ := m.run(turn, Secrets{}); out.Failure != FailNone || out.Resumed || content(m, "second/branch") != "main" {
			t.Errorf("outcome = %+v, want the rest cloned", out)
		}
	})
	t.Run("a clone that is stopped or cut short is done again", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		hanging := filepath.Join(t.TempDir(), "git")
		pid := filepath.Join(filepath.Dir(hanging), "pid")
		// A git that writes a part of the clone and hangs, in a session of its own as well.
		script := "#!/bin/sh\nfor to; do :; done\nmkdir -p \"$to\"; echo part > \"$to/part\"\nsetsid sleep 1000 &\necho $! $$ > " + pid + ".new; mv " + pid + ".new " + pid + "\nsleep 1000\n"
		if err := os.WriteFile(hanging, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		path := m.pathWith(filepath.Dir(hanging))
		hangs := func(turn Turn) Turn {
			t.Helper()
			_ = os.Remove(pid)
			m.begin(turn, Secrets{})
			until(t, "the clone hangs", func() bool { _, err := os.Stat(pid); return err == nil })
			return turn
		}
		repo := gitRepo(t, "main")
		m.env = []string{path}
		m.boot()
		turn := m.turn("hello")
		turn.Repos = []Repo{{URL: repo}}
		m.stop(hangs(turn))
		if out, _ := m.end(turn); out.Failure != FailStopped || out.ExitCode != 130 {
			t.Errorf("outcome = %+v, want it stopped", out)
		}
		if content(m, ".cloning-repo/part") != "" {
			t.Error("a part of the clone is left")
		}
		for _, p := range left(t, pid) {
			if there(p) {
				t.Errorf("process %d of the clone is still there", p)
			}
		}
		turn.ID += "-2"
		hangs(turn)
		_ = m.cmd.Process.Kill()
		m.exit()
		if content(m, ".cloning-repo/part") == "" {
			t.Fatal("nothing of the clone is left: the test shows nothing")
		}
		m.env = nil
		m.boot()
		for _, p := range left(t, pid) {
			if atWork(p) {
				t.Errorf("process %d of the clone goes on after a new boot", p)
			}
		}
		turn.ID += "-3"
		out, _ := m.run(turn, Secrets{})
		if out.Failure != FailNone || content(m, "repo/branch") != "main" || content(m, "repo/part") != "" || content(m, ".cloning-repo/part") != "" {
			t.Errorf("outcome = %+v, want the whole repository and nothing beside it", out)
		}
	})
}

// pathWith is a PATH with a folder in front.
func (m *machine) pathWith(dir string) string { return "PATH=" + dir + ":" + os.Getenv("PATH") }

// TestTidy: what a runner that was killed left half done does not stay, nor is it in the way.
func TestTidy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if os.Geteuid() == 0 {
		m.cfg.UID = 12345
	}
	own, ws := m.cfg.own(), m.cfg.workspace()
	for _, name := range []string{
		filepath.Join(own, "fence.new"), filepath.Join(own, "gitconfig.new"), m.cfg.turnFile("a", ".json.new"),
		filepath.Join(own, "cloning-repo", "x"), filepath.Join(ws, ".cloning-repo", "x"), filepath.Join(ws, "attachments", "a"),
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.boot()
	for _, pattern := range []string{filepath.Join(own, "*.new"), filepath.Join(own, "turns", "*"), filepath.Join(own, "cloning-*"), filepath.Join(ws, ".cloning-*")} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left = %q, %v", left, err)
		}
	}
	if raw, err := os.ReadFile(filepath.Join(m.cfg.home(), ".gitconfig")); err != nil || !strings.Contains(string(raw), "directory = *") {
		t.Errorf("Git's settings = %q, %v", raw, err)
	}
	info, err := os.Stat(m.cfg.attachments())
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); m.cfg.UID >= 0 && (!ok || int(st.Uid) != m.cfg.UID) {
		t.Error("the folder of the attachments is not Claude's user's")
	}
}
