package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"flaudebot/local/port"
)

// split is the world with the parts in processes of their own: local, a real redis-server, serve.
type split struct {
	*slackWorld
	fly, claude, redis string
	env                []string
	data               string
}

// freeAddr is [port.Free].
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// redisServer starts a real redis-server and returns its URL.
func redisServer(t *testing.T, args ...string) string {
	t.Helper()
	addr := freeAddr(t)
	startRedis(t, addr, t.TempDir(), args...)
	return "redis://" + addr
}

// startRedis starts a real redis-server on an address, with what is in its folder; kill ends it as a crash does.
func startRedis(t *testing.T, addr, dir string, args ...string) (kill func()) {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("left out: redis-server is not installed")
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(bin, append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--appendonly", "yes", "--save", ""}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	rdb := goredis.NewClient(&goredis.Options{Addr: addr})
	defer func() { _ = rdb.Close() }()
	deadline := time.Now().Add(testPatience)
	for {
		err := rdb.Ping(t.Context()).Err()
		if err == nil || strings.Contains(err.Error(), "NOAUTH") {
			return kill
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server does not answer: %v", err)
		}
	}
}

// splitWorld starts local and redis-server; serve is up to the test.
func splitWorld(t *testing.T, args ...string) *split {
	t.Helper()
	return splitWorldOn(t, redisServer(t), args...)
}

// splitWorldOn starts local; Redis is there.
func splitWorldOn(t *testing.T, redis string, args ...string) *split {
	t.Helper()
	w := &split{fly: freeAddr(t), claude: freeAddr(t), redis: redis, data: t.TempDir()}
	args = append([]string{"local", "--slack", "127.0.0.1:0", "--fly", w.fly, "--claude", w.claude, "--git", "127.0.0.1:0", "--data", w.data}, args...)
	w.slackWorld = newSlackWorld(t, start(t, []string{"FLAUDEBOT_TEST_CLAUDE=" + os.Getenv("FLAUDEBOT_TEST_CLAUDE")}, args...))
	w.env = []string{
		"SLACK_API_URL=" + w.base + "/api/", "SLACK_APP_TOKEN=xapp-local", "SLACK_BOT_TOKEN=xoxb-local",
		"FLY_FLAPS_BASE_URL=http://" + w.fly, "FLY_API_BASE_URL=http://" + w.fly, "FLY_API_TOKEN=fly-local",
		"FLAUDEBOT_FLY_APP=test-app", "FLAUDEBOT_FLY_ORG=personal",
		"ANTHROPIC_BASE_URL=http://" + w.claude, "ANTHROPIC_API_KEY=sk-ant-local", "REDIS_URL=" + w.redis,
		"FLAUDEBOT_REPOS=" + filepath.Join(w.data, "repo"), "FLAUDEBOT_LEASE=3s", "FLAUDEBOT_LOG_LEVEL=debug",
	}
	return w
}

// in is the same world, for a subtest that runs beside others.
func (w *split) in(t *testing.T) *split {
	t.Helper()
	same, slack := *w, *w.slackWorld
	slack.t = t
	same.slackWorld = &slack
	return &same
}

func TestMainPath(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	bot := start(t, w.env, "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"remember the number 42")

	t.Run("a mention has its mark and its live message within a second", func(t *testing.T) {
		asked, _ := strconv.ParseFloat(root, 64)
		marked, live := 0.0, ""
		w.until("the mark and the live message", func() bool {
			if marked == 0 && has(t, w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {root}, "limit": {"1"}}), `"eyes"`) {
				marked = float64(time.Now().UnixMicro()) / 1e6 // Slack's time is this machine's
			}
			for _, m := range w.thread(general, root) {
				if m.Part == "live" {
					live = m.TS
				}
			}
			return live != "" && marked != 0
		})
		shown, _ := strconv.ParseFloat(live, 64)
		if shown-asked > 1 || marked-asked > 1 {
			t.Errorf("the live message came %.3f s after the mention, its mark stood there after %.3f s", shown-asked, marked-asked)
		}
	})
	t.Run("a mention is answered with its exit code", func(t *testing.T) {
		text, code := w.answer(general, root, root)
		if code != "0" {
			t.Errorf("exit code = %s, want 0: %s", code, text)
		}
	})
	t.Run("a reply is the next turn of the same conversation", func(t *testing.T) {
		ts := w.say(member, general, root, "what number did I ask you to remember?")
		text, code := w.answer(general, root, ts)
		if code != "0" || !strings.Contains(text, "42") {
			t.Errorf("answer = %q (exit %s), want 42", text, code)
		}
		if !strings.Contains(text, "turn 2") {
			t.Errorf("answer = %q, want turn 2 in its footer", text)
		}
	})
	t.Run("the machine sleeps between turns", func(t *testing.T) {
		w.until("the machine is stopped", func() bool {
			machines := flyList(t, "http://"+w.fly, "test-app", "machines")
			return len(machines) == 1 && machines[0]["state"] == "stopped"
		})
	})
	t.Run("a file stays on the volume, and the repository was cloned", func(t *testing.T) {
		ts := w.say(member, general, root, "write notes.txt: kept")
		if _, code := w.answer(general, root, ts); code != "0" {
			t.Fatalf("exit code = %s, want 0", code)
		}
		ts = w.say(member, general, root, "run: cat notes.txt && ls repo && id -u")
		text, code := w.answer(general, root, ts)
		if code != "0" || !strings.Contains(text, "kept") || !strings.Contains(text, "greet.sh") {
			t.Errorf("answer = %q (exit %s), want the file and the repository", text, code)
		}
	})
	t.Run("a failing turn says so and the thread goes on", func(t *testing.T) {
		ts := w.say(member, general, root, "fail with 3")
		if text, code := w.answer(general, root, ts); code != "3" {
			t.Errorf("exit code = %s, want 3: %s", code, text)
		}
		ts = w.say(member, general, root, "what number did I ask you to remember?")
		if text, _ := w.answer(general, root, ts); !strings.Contains(text, "42") {
			t.Errorf("answer = %q, want 42", text)
		}
	})
	t.Run("the slash command ends the session, once its owner knows that a file is nowhere else, and nothing is left", func(t *testing.T) {
		res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "end"})
		if res["ok"] != true {
			t.Fatalf("/flaude end = %v", res)
		}
		w.click(t, map[string]any{"channel": general, "ts": w.whispered(t, member, general, "", "1 file in no repository: `notes.txt`"), "action_id": "end"})
		w.until("machine and volume are gone", func() bool {
			return len(flyList(t, "http://"+w.fly, "test-app", "machines")) == 0 &&
				len(flyList(t, "http://"+w.fly, "test-app", "volumes")) == 0
		})
	})
	t.Run("the log holds no prompt, no answer and no secret, at its most talkative", func(t *testing.T) {
		log := bot.logs()
		if !strings.Contains(log, "turn finished") {
			t.Fatalf("the log tells nothing: %.2000s", log)
		}
		for _, word := range []string{"remember", "notes.txt", "kept", "xapp-local", "xoxb-local", "fly-local", "sk-ant-local"} {
			if strings.Contains(log, word) {
				t.Errorf("the log holds %q", word)
			}
		}
	})
}

// TestPhases: the live message says what a turn waits for before Claude works: a machine that is made, one that wakes, and the clone.
func TestPhases(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	host, err := url.Parse(gitHost(t, map[string][]string{"one": {"main"}}))
	if err != nil {
		t.Fatal(err)
	}
	proxy, open := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: host.Scheme, Host: host.Host}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		<-open
		proxy.ServeHTTP(rw, r)
	}))
	let := sync.OnceFunc(func() { close(open) })
	t.Cleanup(func() {
		let()
		slow.Close()
	})
	start(t, append(append([]string{}, w.env...), "FLAUDEBOT_REPOS="+slow.URL+"/team/one.git"), "serve")
	general := w.channel("general")
	shows := func(root, ts, what string) {
		t.Helper()
		w.until("the live message says “"+what+"”", func() bool {
			for _, m := range w.thread(general, root) {
				if m.Part == "live" && strings.HasSuffix(m.Turn, ":"+ts) && strings.Contains(m.Text, what) {
					return true
				}
			}
			return false
		})
	}
	const held = 5000 // milliseconds, of which the live message has one edit at least
	w.flyFault(t, fmt.Sprintf(`{"method":"machine.create","delay_ms":%d}`, held))
	w.flyFault(t, fmt.Sprintf(`{"method":"machine.start","delay_ms":%d}`, held))
	root := w.say(member, general, "", mention+"run: cat one/which")
	shows(root, root, "Making a machine")
	shows(root, root, "Cloning")
	let()
	if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "one at main") {
		t.Fatalf("answer = %q (exit %s), want that of its clone", text, code)
	}
	w.until("the machine sleeps", func() bool {
		machines := flyList(t, "http://"+w.fly, "test-app", "machines")
		return len(machines) == 1 && machines[0]["state"] == "stopped"
	})
	next := w.say(member, general, root, "run: cat one/which")
	shows(root, next, "Waking the machine")
	if text, code := w.answer(general, root, next); code != "0" || !strings.Contains(text, "one at main") {
		t.Errorf("answer = %q (exit %s), want that of its clone", text, code)
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	first := start(t, w.env, "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"run: echo ran >> /data/workspace/ledger && sleep 4 && cat /data/workspace/ledger")
	w.until("the turn runs", func() bool {
		raw, _ := filepath.Glob(filepath.Join(w.data, "fly", "volumes", "*", "workspace", "ledger"))
		return len(raw) == 1
	})
	reply := w.say(member, general, root, "run: wc -l < /data/workspace/ledger")
	w.until("the reply was stored", func() bool {
		reactions := w.api(admin, "reactions.get", map[string][]string{"channel": {general}, "timestamp": {reply}, "full": {"true"}})
		return strings.Contains(toJSON(t, reactions), `"eyes"`)
	})
	first.kill()
	start(t, w.env, "serve")
	if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "ran") {
		t.Errorf("answer after the crash = %q (exit %s)", text, code)
	}
	if text, code := w.answer(general, root, reply); code != "0" || !strings.Contains(text, "1") {
		t.Errorf("the reply's answer = %q (exit %s), want one run of the first", text, code)
	}
	for _, ts := range []string{root, reply} {
		if n := w.answers(general, root, ts); n != 1 {
			t.Errorf("message %s has %d answers, want 1", ts, n)
		}
	}
}

func TestRunOnce(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	for _, c := range []struct {
		name, prompt, want string
		code               int
	}{
		{"prints the answer alone and exits well", "say: forty-two", "forty-two\n", 0},
		{"exits with the turn's exit code", "fail with 7", "", 7},
		{"takes a prompt that begins with a dash", "-x is what?", "", 0},
	} {
		cmd := self(t.Context(), w.env, "run", "--", c.prompt)
		var log strings.Builder
		cmd.Stderr = &log
		out, _ := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != c.code || (c.want != "" && string(out) != c.want) {
			t.Errorf("%s: printed %q and exited %d, want %q and %d\n%s", c.name, out, code, c.want, c.code, log.String())
		}
		if strings.Contains(log.String(), "REDIS_URL") {
			t.Errorf("%s: it is said to be on no record:\n%s", c.name, log.String())
		}
	}
	alone := self(t.Context(), append(append([]string{}, w.env...), "REDIS_URL="), "run", "say: forty-three")
	var log strings.Builder
	alone.Stderr = &log
	if out, err := alone.Output(); err != nil || string(out) != "forty-three\n" || !strings.Contains(log.String(), "not put on record, since REDIS_URL is not set") {
		t.Errorf("without Redis: printed %q, %v, want the answer, and that it is not on record\n%s", out, err, log.String())
	}
	if left := flyList(t, "http://"+w.fly, "test-app", "machines"); len(left) != 0 {
		t.Errorf("machines left: %v", left)
	}
}

// TestLeave: a signal ends all of the local world, in mid-turn too.
func TestLeave(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sleep string // a command of its own, to find it by
		sig         os.Signal
	}{{"SIGINT", "3001", os.Interrupt}, {"SIGTERM", "3002", syscall.SIGTERM}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			temp, fly := t.TempDir(), freeAddr(t)
			p := start(t, []string{"TMPDIR=" + temp}, "demo", "--slack", "127.0.0.1:0", "--fly", fly, "--claude", "127.0.0.1:0", "--git", "127.0.0.1:0")
			w := newSlackWorld(t, p)
			general := w.channel("general")
			root := w.say(member, general, "", mention+"take "+c.sleep+" seconds")
			w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "sleep "+c.sleep) })
			machines := flyList(t, "http://"+fly, "flaudebot-demo", "machines")
			if len(machines) != 1 {
				t.Fatalf("%d machines, want one", len(machines))
			}
			id, _ := machines[0]["id"].(string)
			if ran := processesOf(t, id, "sleep "+c.sleep); len(ran) < 2 {
				t.Fatalf("the machine runs %q: want its runner and the command", ran)
			}
			p.end(c.sig)
			if code := p.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("it exited %d, want 0", code)
			}
			if left := processesOf(t, id, "sleep "+c.sleep); len(left) > 0 {
				t.Errorf("left running: %q", left)
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("the temporary folder holds %v, %v; want nothing", left, err)
			}
		})
	}
}

// processesOf names the processes of a machine, by what is in their environment, and those that run a command.
func processesOf(t *testing.T, machine, command string) []string {
	t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	if len(dirs) == 0 {
		t.Skip("left out: there is no /proc to look for processes in")
	}
	var out []string
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ")) // it may have ended, or be somebody else's
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		shown := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		if (err == nil && strings.Contains(string(env), "FLY_MACHINE_ID="+machine)) || strings.HasSuffix(shown, command) {
			out = append(out, shown)
		}
	}
	return out
}
