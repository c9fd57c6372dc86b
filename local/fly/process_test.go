package fly_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flaudebot/local/fly"
)

// logged is what a machine has said.
func (w *world) logged(id string) string {
	w.t.Helper()
	var out strings.Builder
	data, _ := w.do("GET", "/api/v1/apps/acme/logs?instance="+id, nil).is(200).obj()["data"].([]any)
	for _, d := range data {
		text, _ := at(d, "attributes.message").(string)
		out.WriteString(text + "\n")
	}
	return out.String()
}

// kinds of machines: what holds for both is tested with both.
func eachKind(t *testing.T, do func(t *testing.T, cfg fly.Config)) {
	t.Helper()
	t.Run("isolated", func(t *testing.T) {
		t.Parallel()
		isolated(t)
		do(t, fly.Config{})
	})
	t.Run("a process group", func(t *testing.T) {
		t.Parallel()
		do(t, fly.Config{Plain: true})
	})
}

func isolated(t *testing.T) {
	t.Helper()
	srv, err := fly.New(fly.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if !srv.Isolated() {
		t.Skip("left out: namespaces, for root on Linux, are not available")
	}
}

// withMark finds the processes that have a text in their command line, on Linux.
func withMark(t *testing.T, mark string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		t.Skip("left out: /proc is not available")
	}
	var out []int
	for _, path := range lines {
		raw, err := os.ReadFile(path)
		if err == nil && bytes.Contains(raw, []byte(mark)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			out = append(out, pid)
		}
	}
	return out
}

func TestExit(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, cfg fly.Config) {
		w := newWorld(t, cfg)
		for _, c := range []struct {
			name, script string
			end          func(w *world, id string)
			code         float64
			requested    bool
			oom          bool
		}{
			{"by itself, well", "exit 0", nil, 0, false, false},
			{"by itself, badly", "exit 42", nil, 42, false, false},
			{"by its own signal", "kill -KILL $$", nil, 137, false, false},
			{"by a stop, as its handler says", "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done", func(w *world, id string) {
				w.do("POST", of(id, "stop"), obj{"signal": "SIGTERM", "timeout": "60s"}).is(200)
			}, 7, true, false},
			{"by a stop that it does not handle", "echo up; exec sleep 1000", func(w *world, id string) {
				w.do("POST", of(id, "stop"), obj{"signal": "SIGTERM", "timeout": "60s"}).is(200)
			}, 143, true, false},
			{"by a stop without a signal: it is SIGINT", "trap 'exit 9' INT; echo up; while :; do sleep 0.02; done", func(w *world, id string) {
				w.do("POST", of(id, "stop"), nil).is(200)
			}, 9, true, false},
			{"by force when it does not listen", "trap '' TERM; echo up; while :; do sleep 0.02; done", func(w *world, id string) {
				w.do("POST", of(id, "stop"), obj{"signal": "SIGTERM", "timeout": "100ms"}).is(200)
			}, 137, true, false},
			{"by force when it is out of memory", "echo up; exec sleep 1000", func(w *world, id string) {
				w.local("kill", obj{"machine": id, "oom_killed": true})
			}, 137, false, true},
			{"by a signal that is sent to it", "echo up; exec sleep 1000", func(w *world, id string) {
				w.do("POST", of(id, "signal"), obj{"signal": "SIGUSR1"}).is(200, `{"ok":true}`)
			}, 128 + float64(syscall.SIGUSR1), false, false},
			{"by a signal that has a number", "echo up; exec sleep 1000", func(w *world, id string) {
				w.do("POST", of(id, "signal"), obj{"signal": 9}).is(200)
			}, 137, false, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				w := w.in(t)
				id := w.machine(strings.NewReplacer(" ", "-", ",", "", ":", "", "SIGINT", "int").Replace(c.name), running(c.script))
				if c.end != nil {
					w.until("it is up", func() bool { return strings.Contains(w.logged(id), "up") })
					c.end(w, id)
				}
				w.wait(id, "stopped")
				got := w.exits(id)
				if len(got) != 1 || got[0]["exit_code"] != c.code || got[0]["requested_stop"] != c.requested || got[0]["oom_killed"] != c.oom {
					t.Fatalf("exits = %v, want code %v, requested %v, oom %v", got, c.code, c.requested, c.oom)
				}
				if at, err := time.Parse(time.RFC3339, got[0]["exited_at"].(string)); err != nil || time.Since(at) > time.Hour {
					t.Errorf("exited_at = %v", got[0]["exited_at"])
				}
			})
		}
	})
	t.Run("a stop's signal and time are the config's, unless it has its own", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{Unsettled: fly.Unsettled{StopSignal: "SIGTERM"}})
		script := "trap 'exit 1' INT; trap 'exit 2' TERM; trap 'exit 3' USR1; trap 'exit 4' USR2; echo up; while :; do sleep 0.02; done"
		for name, c := range map[string]struct {
			config, stop obj
			code         float64
		}{
			"own":    {obj{"signal": "SIGUSR1"}, obj{"signal": "SIGUSR2"}, 4},
			"config": {obj{"signal": "SIGUSR1"}, obj{}, 3},
			"usual":  {obj{}, obj{}, 2},
		} {
			more := running(script)
			more["stop_config"] = c.config
			id := w.started(name, more)
			w.until("it is up", func() bool { return strings.Contains(w.logged(id), "up") })
			w.do("POST", of(id, "stop"), c.stop).is(200)
			w.wait(id, "stopped")
			if got := w.exits(id); got[0]["exit_code"] != c.code {
				t.Errorf("%s: exit %v, want %v", name, got[0]["exit_code"], c.code)
			}
		}
	})
}

func TestRestartPolicy(t *testing.T) {
	t.Parallel()
	// Each run adds a line to the volume; how the machine ends depends on how many there are.
	const counted = `echo run >> "$FLAUDEBOT_DATA/runs"; n=$(wc -l < "$FLAUDEBOT_DATA/runs"); `
	for _, c := range []struct {
		name   string
		policy any
		script string
		runs   int // in all
		code   float64
	}{
		{"no: a crash is the end", obj{"policy": "no"}, "exit 1", 1, 1},
		{"on-failure: a good end is the end", obj{"policy": "on-failure"}, "exit 0", 1, 0},
		{"on-failure: it runs until it ends well", obj{"policy": "on-failure"}, "[ $n -ge 3 ]", 3, 0},
		{"none is on-failure", nil, "[ $n -ge 3 ]", 3, 0},
		{"none gives up after ten times more", nil, "exit 5", 11, 5},
		{"on-failure: it gives up after as many as it is told", obj{"policy": "on-failure", "max_retries": 2}, "exit 1", 3, 1},
		{"always: also after a good end", obj{"policy": "always", "max_retries": 4}, "exit 0", 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := newWorld(t, fly.Config{Dir: dir})
			vol := w.volume()
			more := running(counted + c.script)
			more["mounts"], more["restart"] = []obj{{"volume": vol, "path": "/data"}}, c.policy
			id := w.machine("m", more)
			w.until("it has come to rest", func() bool {
				x := w.exits(id)
				return w.state(id) == "stopped" && len(x) > 0 && x[0]["restarting"] == false
			})
			exits := w.exits(id)
			runs, err := os.ReadFile(filepath.Join(dir, "volumes", vol, "runs"))
			if n := strings.Count(string(runs), "\n"); err != nil || n != c.runs || len(exits) != c.runs {
				t.Errorf("%d runs and %d exits (%v), want %d", n, len(exits), err, c.runs)
			}
			if exits[0]["exit_code"] != c.code || exits[0]["restart_count"] != float64(c.runs-1) {
				t.Errorf("last exit = %v, want code %v after %d restarts", exits[0], c.code, c.runs-1)
			}
			if c.runs > 1 && exits[1]["restarting"] != true {
				t.Errorf("exit before = %v, want restarting", exits[1])
			}
		})
	}
	t.Run("a stop is no crash", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", obj{"restart": obj{"policy": "always"}})
		w.stopped(id)
		if got := w.exits(id); len(got) != 1 || got[0]["restarting"] != false {
			t.Errorf("exits = %v, want one that is the last", got)
		}
	})
	t.Run("auto_destroy ends the machine with its process", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		more := running("exit 3")
		more["auto_destroy"] = true
		id := w.machine("m", more)
		w.wait(id, "destroyed")
		if got := w.exits(id); len(got) != 1 || got[0]["exit_code"] != 3.0 {
			t.Errorf("exits = %v, want 3", got)
		}
	})
}

func TestRestart(t *testing.T) {
	t.Parallel()
	script := "trap 'exit 5' TERM; trap 'exit 6' USR1; echo up; while :; do sleep 0.02; done"
	w := newWorld(t, fly.Config{})
	for name, c := range map[string]struct {
		query string
		code  float64
	}{
		"by the config's signal": {"", 5}, "by its own": {"?signal=SIGUSR1&timeout=60s", 6}, "by force": {"?force_stop=true", 137},
		"with nanoseconds": {"?timeout=60000000000", 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := w.in(t)
			more := running(script)
			more["stop_config"] = obj{"signal": "SIGTERM", "timeout": "60s"}
			id := w.started(strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", ""), more)
			w.until("it is up", func() bool { return strings.Contains(w.logged(id), "up") })
			w.do("POST", of(id, "restart"+c.query), nil).is(200, `{"ok":true}`)
			w.until("it is up again", func() bool { return strings.Count(w.logged(id), "up") == 2 })
			w.wait(id, "started")
			if got := w.exits(id); len(got) != 1 || got[0]["exit_code"] != c.code || got[0]["requested_stop"] != true {
				t.Errorf("exits = %v, want %v on request", got, c.code)
			}
		})
	}
	t.Run("what is not started is refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.do("POST", of(id, "restart?timeout=long"), nil).is(400)
		w.stopped(id)
		w.do("POST", of(id, "restart"), nil).refused(412, "current state: 'stopped'")
		w.do("POST", of(id, "signal"), obj{"signal": "SIGHUP"}).is(412)
	})
}

func TestExec(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, cfg fly.Config) {
		w := newWorld(t, cfg)
		id := w.started("m", obj{"env": obj{"GREETING": "hello"}})
		t.Run("its outputs and its code are told apart", func(t *testing.T) {
			w := w.in(t)
			got := w.do("POST", of(id, "exec"), obj{"command": []string{"sh", "-c", "cat; echo $GREETING; echo bad >&2; exit 3"}, "stdin": "in\n", "timeout": 10}).is(200).obj()
			if got["exit_code"] != 3.0 || got["stdout"] != "in\nhello\n" || got["stderr"] != "bad\n" {
				t.Errorf("answer = %v", got)
			}
		})
		t.Run("the older form is a line", func(t *testing.T) {
			w.in(t).do("POST", of(id, "exec"), obj{"cmd": "echo a b"}).is(200, `"stdout":"a b\n"`, `"exit_code":0`)
		})
		t.Run("a program that there is not is an exit code", func(t *testing.T) {
			w.in(t).do("POST", of(id, "exec"), obj{"command": []string{"/nowhere/at/all"}}).is(200, `"exit_code":127`)
		})
		t.Run("none is refused", func(t *testing.T) {
			w.in(t).do("POST", of(id, "exec"), obj{}).refused(400, "command is required")
		})
		t.Run("it knows its machine", func(t *testing.T) {
			w := w.in(t)
			version := w.do("GET", of(id, ""), nil).str("instance_id")
			_, got := w.exec(id, `echo $FLY_APP_NAME $FLY_MACHINE_ID $FLY_ALLOC_ID $FLY_REGION $FLY_MACHINE_VERSION $FLY_IMAGE_REF $FLY_VM_MEMORY_MB $PRIMARY_REGION`)
			if want := fmt.Sprintf("acme %s %s fra %s any 256 fra\n", id, id, version); got != want {
				t.Errorf("environment = %q, want %q", got, want)
			}
		})
		t.Run("one that takes too long is ended, and its children", func(t *testing.T) {
			w := w.in(t)
			mark := fmt.Sprintf("8%d.%d", os.Getpid(), map[bool]int{true: 1, false: 2}[cfg.Plain])
			w.do("POST", of(id, "exec"), obj{"command": []string{"sh", "-c", "sleep " + mark + "; true"}, "timeout": 1}).refused(408, "deadline_exceeded")
			w.until("they are gone", func() bool { return len(withMark(t, mark)) == 0 })
		})
		t.Run("one that runs ends with its machine", func(t *testing.T) {
			w := w.in(t)
			id := w.started("ends", nil)
			got := make(chan answer, 1)
			go func() {
				got <- w.do("POST", of(id, "exec"), obj{"command": []string{"sh", "-c", "echo running > $FLAUDEBOT_DATA/mark; sleep 1000"}, "timeout": 60})
			}()
			w.until("it runs", func() bool { code, _ := w.exec(id, "cat $FLAUDEBOT_DATA/mark"); return code == 0 })
			w.do("POST", of(id, "stop"), obj{"signal": "SIGKILL"}).is(200)
			if a := <-got; a.status == 200 && strings.Contains(a.raw, `"exit_code":0`) {
				t.Errorf("answer = %s, want that it was ended", a.raw)
			}
		})
	})
	t.Run("its length and outputs are limited where it is switched on", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{Unsettled: fly.Unsettled{ExecTimeout: time.Second, ExecOutput: 4}})
		id := w.started("m", nil)
		w.do("POST", of(id, "exec"), obj{"cmd": "echo 123456", "timeout": 60}).is(200, `"stdout":"1234"`)
		w.do("POST", of(id, "exec"), obj{"cmd": "sleep 1000", "timeout": 60}).refused(408, "longer than 1s")
	})
}

func TestProcessTree(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, cfg fly.Config) {
		w := newWorld(t, cfg)
		mark := fmt.Sprintf("9%d.%d", os.Getpid(), map[bool]int{true: 1, false: 2}[cfg.Plain])
		script := "setsid sleep " + mark + " & (sleep " + mark + " &) ; sleep " + mark + " & echo up; " + idle
		for name, end := range map[string]func(w *world, id string){
			"a stop":    func(w *world, id string) { w.stopped(id) },
			"a destroy": func(w *world, id string) { w.do("DELETE", of(id, "?force=true"), nil).is(200); w.wait(id, "destroyed") },
			"a kill":    func(w *world, id string) { w.local("kill", obj{"machine": id}); w.wait(id, "stopped") },
			"an update": func(w *world, id string) {
				w.do("POST", of(id, ""), obj{"config": obj{"image": "any"}, "skip_launch": true}).is(200)
				w.wait(id, "stopped")
			},
		} {
			t.Run("all of it ends with "+name, func(t *testing.T) {
				w := w.in(t)
				id := w.started(strings.ReplaceAll(name, " ", "-"), running(script))
				w.until("its children run", func() bool { return len(withMark(t, "sleep\x00"+mark)) == 3 })
				end(w, id)
				if left := withMark(t, "sleep\x00"+mark); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	})
}

func TestIsolated(t *testing.T) {
	t.Parallel()
	isolated(t)
	dir, bin, share := t.TempDir(), t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(bin, "tool"): "#!/bin/sh\necho tool\n", filepath.Join(share, "shared"): "shared\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	w := newWorld(t, fly.Config{Dir: dir, BinDir: bin, Share: []string{share}})
	vol := w.volume()
	id := w.started("m", mounting(vol, "/data"))
	other := w.started("other", nil)
	mine := fmt.Sprintf("mine-%d", os.Getpid())
	t.Run("its volume is at its path", func(t *testing.T) {
		w.in(t).exec(id, "echo kept > /data/file")
		if raw, err := os.ReadFile(filepath.Join(dir, "volumes", vol, "file")); err != nil || string(raw) != "kept\n" {
			t.Errorf("the volume's folder holds %q, %v", raw, err)
		}
	})
	t.Run("without a volume the path is empty, and its own", func(t *testing.T) {
		if _, got := w.in(t).exec(other, "ls -A /data; echo x > /data/y; ls /data"); got != "y\n" {
			t.Errorf("/data = %q", got)
		}
	})
	t.Run("it sees its own processes alone", func(t *testing.T) {
		_, got := w.in(t).exec(id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
		if strings.Contains(got, filepath.Base(os.Args[0])) {
			t.Errorf("processes = %q, want none of the host's", got)
		}
	})
	t.Run("an init is process 1, and the main process its child", func(t *testing.T) {
		if _, got := w.in(t).exec(id, "cat /proc/1/task/1/children | wc -w"); strings.TrimSpace(got) != "1" {
			t.Errorf("process 1 has %s children, want 1", got)
		}
	})
	t.Run("/tmp and /run are its own", func(t *testing.T) {
		w := w.in(t)
		_, got := w.exec(id, "ls -A /tmp; stat -c %a /tmp; echo x > /tmp/"+mine+"; echo x > /run/"+mine)
		top := strings.Split(strings.TrimPrefix(share, "/tmp/"), "/")[0]
		if strings.HasPrefix(share, "/tmp/") && got != top+"\n1777\n" {
			t.Errorf("/tmp = %q, want what is shared alone", got)
		}
		for _, path := range []string{"/tmp/" + mine, "/run/" + mine} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s is on the host", path)
			}
		}
		if _, got := w.exec(other, "ls /tmp/"+mine+" /run/"+mine+" 2>/dev/null"); got != "" {
			t.Errorf("another machine sees %q", got)
		}
	})
	t.Run("what is shared of /tmp is seen, and the programs are found", func(t *testing.T) {
		if _, got := w.in(t).exec(id, "cat "+filepath.Join(share, "shared")+"; tool"); got != "shared\ntool\n" {
			t.Errorf("it reads %q", got)
		}
	})
	t.Run("/tmp is empty after a start, the volume is not", func(t *testing.T) {
		w := w.in(t)
		w.stopped(id)
		w.start(id)
		w.wait(id, "started")
		if _, got := w.exec(id, "ls /tmp/"+mine+" 2>/dev/null; cat /data/file"); got != "kept\n" {
			t.Errorf("it finds %q", got)
		}
	})
	t.Run("a volume may be in /tmp", func(t *testing.T) {
		w := w.in(t)
		vol := w.volume()
		id := w.started("deep", mounting(vol, "/tmp/deep/data"))
		w.exec(id, "echo kept > /tmp/deep/data/file")
		if raw, err := os.ReadFile(filepath.Join(dir, "volumes", vol, "file")); err != nil || string(raw) != "kept\n" {
			t.Errorf("the volume's folder holds %q, %v", raw, err)
		}
	})
	t.Run("one whose mounts cannot be made has failed", func(t *testing.T) {
		w := w.in(t)
		vol := w.volume()
		if err := os.RemoveAll(filepath.Join(dir, "volumes", vol)); err != nil {
			t.Fatal(err)
		}
		w.wait(w.machine("broken", mounting(vol, "/data")), "failed")
	})
}

// TestFiles: the files of a machine's config are written at each boot, as Fly does.
func TestFiles(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		t.Run(map[bool]string{false: "in namespaces", true: "without namespaces"}[plain], func(t *testing.T) {
			t.Parallel()
			if !plain {
				isolated(t)
			}
			w := newWorld(t, fly.Config{Plain: plain})
			files := func(text string, more ...any) obj {
				file := obj{"guest_path": "/run/flaudebot/file", "raw_value": base64.StdEncoding.EncodeToString([]byte(text)), "mode": 0o600}
				return obj{"image": "i", "files": append([]any{file}, more...)}
			}
			const read = `cat "$FLAUDEBOT_RUN_DIR/file"; stat -c %a "$FLAUDEBOT_RUN_DIR/file"`
			id := w.started("m", files("one\n"))
			if _, got := w.exec(id, read); got != "one\n600\n" {
				t.Errorf("the file and its mode are %q", got)
			}
			w.exec(id, `echo changed > "$FLAUDEBOT_RUN_DIR/file"`)
			w.stopped(id)
			w.start(id)
			w.wait(id, "started")
			if _, got := w.exec(id, read); got != "one\n600\n" {
				t.Errorf("after another boot they are %q", got)
			}
			w.do("POST", "/v1/apps/acme/machines/"+id, obj{"config": files("two\n")}).is(200)
			w.wait(id, "started")
			if _, got := w.exec(id, read); got != "two\n600\n" {
				t.Errorf("after an update they are %q", got)
			}
			for _, path := range []string{"relative", "/run/../etc/x", "/etc/x"} {
				w.do("POST", "/v1/apps/acme/machines/"+id, obj{"config": files("x", obj{"guest_path": path})}).is(400, "invalid_argument: file")
			}
			w.do("POST", "/v1/apps/acme/machines/"+id, obj{"config": files("x", obj{"guest_path": "/run/x", "raw_value": "no base64!"})}).is(400, "not base64")
		})
	}
}

func TestProcessGroup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, fly.Config{Dir: dir, Plain: true})
	if w.srv.Isolated() {
		t.Fatal("it says that it is isolated")
	}
	vol := w.volume()
	id := w.started("m", mounting(vol, "/data"))
	_, got := w.exec(id, `echo kept > "$FLAUDEBOT_DATA/file"; echo $FLAUDEBOT_DATA; echo $FLAUDEBOT_RUN_DIR; echo x > $TMPDIR/x; echo $TMPDIR`)
	lines := strings.Fields(got)
	if len(lines) != 3 || lines[0] != filepath.Join(dir, "volumes", vol) || !strings.HasPrefix(lines[2], lines[1]+"/") {
		t.Fatalf("folders = %q, want the volume's and its own", lines)
	}
	w.stopped(id)
	if _, err := os.Stat(lines[1]); err == nil {
		t.Errorf("%s was left", lines[1])
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	const path = "/api/v1/apps/acme/logs?"
	// page is the messages of a page and the token of the next.
	page := func(w *world, query string) (messages []string, token string) {
		got := w.do("GET", path+query, nil).is(200).obj()
		data, _ := got["data"].([]any)
		for _, d := range data {
			text, _ := at(d, "attributes.message").(string)
			messages = append(messages, text)
		}
		token, _ = at(got, "meta.next_token").(string)
		return messages, token
	}
	t.Run("a line tells its machine, time and region", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", running("echo out; echo err >&2; exec sleep 1000"))
		w.until("both outputs are there", func() bool { return w.logged(id) == "out\nerr\n" })
		got := w.do("GET", path+"instance="+id, nil).is(200, `"provider":"app"`).obj()["data"].([]any)
		if at(got[0], "attributes.instance") != id || at(got[0], "attributes.region") != "fra" {
			t.Errorf("line = %v", got[0])
		}
		if _, err := time.Parse(time.RFC3339Nano, at(got[0], "attributes.timestamp").(string)); err != nil {
			t.Error(err)
		}
	})
	t.Run("pages miss nothing and repeat nothing, whatever comes within a moment", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		_, token := page(w, "")
		id := w.started("m", running("seq 1 500; exec sleep 1000"))
		var all []string
		last, _ := strconv.ParseInt(token, 10, 64)
		if last < time.Now().Add(-time.Hour).UnixNano() {
			t.Fatalf("token = %s, want a time in ns", token)
		}
		w.until("all are there", func() bool {
			more, next := page(w, "instance="+id+"&next_token="+token)
			if n, err := strconv.ParseInt(next, 10, 64); err != nil || n < last || (len(more) > 0 && n == last) {
				t.Fatalf("token = %s after %d", next, last)
			}
			if len(more) > 100 {
				t.Fatalf("a page of %d lines", len(more))
			}
			all, token = append(all, more...), next
			last, _ = strconv.ParseInt(next, 10, 64)
			return len(all) >= 500
		})
		for i, text := range all {
			if text != strconv.Itoa(i+1) {
				t.Fatalf("line %d = %s", i+1, text)
			}
		}
	})
	t.Run("without a token the newest come", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		w.started("m", running("seq 1 300; exec sleep 1000"))
		w.until("the last is there", func() bool {
			got, _ := page(w, "")
			return len(got) == 100 && got[0] == "201" && got[99] == "300"
		})
	})
	t.Run("they are of the app, of one machine or of a region", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		a, b := w.started("a", running("echo a; exec sleep 1000")), w.started("b", running("echo b; exec sleep 1000"))
		w.until("both have said something", func() bool { return w.logged(a) == "a\n" && w.logged(b) == "b\n" })
		for query, want := range map[string]int{"": 2, "region=fra": 2, "region=ams": 0, "instance=" + a: 1} {
			if got, _ := page(w, query); len(got) != want {
				t.Errorf("logs with %q = %v, want %d", query, got, want)
			}
		}
		w.do("GET", "/api/v1/apps/other/logs", nil).is(404)
		w.do("GET", path+"next_token=nonsense", nil).is(400)
	})
}

func TestRestartOfTheStandIn(t *testing.T) {
	t.Parallel()
	t.Run("what was started comes back stopped, all else as it was", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		w := newWorld(t, fly.Config{Dir: dir})
		vol := w.volume()
		id := w.started("m", obj{"mounts": []obj{{"volume": vol, "path": "/data"}}, "unknown": "kept"})
		w.do("POST", of(id, "metadata/a"), obj{"value": "b"}).is(204)
		nonce, _ := at(w.do("POST", of(id, "lease?ttl=600"), nil).is(201).obj(), "data.nonce").(string)
		stopped, gone := w.started("stopped", nil), w.started("gone", nil)
		w.stopped(stopped)
		w.do("DELETE", of(gone, "?force=true"), nil).is(200)
		w.wait(gone, "destroyed")
		before := w.do("GET", of(stopped, ""), nil).raw
		if err := w.srv.Close(); err != nil {
			t.Fatal(err)
		}

		w = newWorld(t, fly.Config{Dir: dir})
		got := w.do("GET", of(id, ""), nil).is(200, `"state":"stopped"`, `"unknown":"kept"`, `"metadata":{"a":"b"}`).obj()
		exits := w.exits(id)
		if len(exits) != 1 || exits[0]["exit_code"] != 137.0 || exits[0]["requested_stop"] != false {
			t.Errorf("exits = %v, want that it was killed", exits)
		}
		newest, _ := got["events"].([]any)[0].(obj)
		if newest["type"] != "exit" || newest["status"] != "stopped" {
			t.Errorf("newest event = %v, want an exit", newest)
		}
		if got := w.do("GET", of(stopped, ""), nil).raw; got != before {
			t.Errorf("a stopped machine = %s, was %s", got, before)
		}
		w.do("GET", of(gone, ""), nil).is(200, `"state":"destroyed"`)
		w.do("GET", "/v1/apps/acme/volumes/"+vol, nil).is(200, `"attached_machine_id":"`+id+`"`)
		w.do("POST", of(id, "start"), nil).is(409)
		w.until("it may be started", func() bool {
			return w.do("POST", of(id, "start"), nil, "Fly-Machine-Lease-Nonce: "+nonce).status == 200
		})
		w.wait(id, "started")
	})
	t.Run("nothing runs on when the stand-in is killed", func(t *testing.T) {
		t.Parallel()
		mark := fmt.Sprintf("8%d.1", os.Getpid())
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "LOCAL_FLY_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		url, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, url: strings.TrimSpace(url)}
		w.do("POST", "/v1/apps", obj{"name": "acme"}).is(201)
		id := w.started("m", running("setsid sleep "+mark+" & exec sleep "+mark))
		w.until("it runs", func() bool { return len(withMark(t, "sleep\x00"+mark)) == 2 })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()

		w = newWorld(t, fly.Config{Dir: dir})
		if w.srv.Isolated() {
			w.until("it has ended", func() bool { return len(withMark(t, "sleep\x00"+mark)) == 0 })
		}
		w.do("GET", of(id, ""), nil).is(200, `"state":"stopped"`)
		if got := w.exits(id); len(got) != 1 {
			t.Errorf("exits = %v, want one", got)
		}
	})
	t.Run("what cannot be read is said", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := fly.New(fly.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "state.json") {
			t.Errorf("New = %v, want the file's name", err)
		}
	})
}
