package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// badInput is something that goes wrong in a thread: what is said, what is done meanwhile, and what the person reads.
type badInput struct {
	name  string
	say   string
	while func(w *split, channel, root string) // the turn runs
	want  string                               // sentence that the person reads
	code  string
}

// TestBadInput: whatever is said, the person reads what became of it, and the thread goes on.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w, general := servedWorld(t)
	w.goWrong(t, general, []badInput{
		{"a prompt that begins with a dash", "-h", nil, "I am a script, not Claude.", "0"},
		{"a prompt that begins with a slash", "/clear", nil, "I am a script, not Claude.", "0"},
		{"40,000 characters of four bytes", strings.Repeat("🦀", 39900) + "\n\nremember the number 5", nil, "I will remember the number 5.", "0"},
	})
	t.Run("an empty mention is told what to do", func(t *testing.T) {
		root := w.say(member, general, "", mention)
		w.until("a sentence", func() bool {
			return strings.Contains(toJSON(t, w.api(admin, "conversations.replies", url.Values{"channel": {general}, "ts": {root}})), "Mention me together with what you would like done")
		})
		w.goesOn(t, general, root, mention)
	})
	t.Run("an unknown command gets help", func(t *testing.T) {
		res := w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "frobnicate"})
		if got := toJSON(t, res); !strings.Contains(got, "Mention me in a channel to start a session") {
			t.Errorf("/flaude frobnicate = %s, want help", got)
		}
	})
	t.Run("a binary attachment reaches the workspace byte by byte", func(t *testing.T) {
		data := make([]byte, 70_000)
		for i := range data {
			data[i] = byte(i * 7)
		}
		root := w.attach(t, general, "отчёт 日本.bin", data, mention+"run: sha256sum attachments/отчёт_日本.bin")
		text, code := w.answer(general, root, root)
		if want := fmt.Sprintf("%x", sha256.Sum256(data)); code != "0" || !strings.Contains(text, want) {
			t.Errorf("answer = %.500q (exit %s), want %s", text, code, want)
		}
		w.goesOn(t, general, root, "")
	})
	t.Run("an attachment over the limit is refused by name, and the prompt runs", func(t *testing.T) {
		root := w.attach(t, general, "film.mp4", make([]byte, 5<<20+1), mention+"say: seen")
		if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "seen") {
			t.Errorf("answer = %.500q (exit %s), want the prompt answered", text, code)
		}
		w.until("a private sentence", func() bool {
			seen := w.local(member, "seen", map[string]any{"channel": general, "thread_ts": root})
			return strings.Contains(toJSON(t, seen["ephemeral"]), "I can take attachments up to 5120 KB that are kept at Slack, so these stay behind: film.mp4.")
		})
		w.goesOn(t, general, root, "")
	})
	t.Run("guests and strangers are told so once, privately", func(t *testing.T) {
		for _, who := range []string{guest, stranger} {
			ts := w.say(who, general, "", mention+"say: hello")
			w.until("a private sentence", func() bool {
				seen := w.local(who, "seen", map[string]any{"channel": general})
				return strings.Contains(toJSON(t, seen["ephemeral"]), "I may only work for full members of this workspace")
			})
			w.say(who, general, "", mention+"say: hello again")
			if n := len(w.thread(general, ts)); n != 0 {
				t.Errorf("the bot said %d things in the thread of %s, want none", n, who)
			}
		}
	})
}

// TestBadAnswers: whatever Claude says, it stands in the thread, and the thread goes on.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	w, general := servedWorld(t)
	w.goWrong(t, general, []badInput{
		{"an answer of 1 MB on one line", "big 1000000", nil, "The whole answer is in the file answer-1.md.", "0"},
		{"output that is no UTF-8", "garble", nil, "The command ended with exit code 0.", "0"},
	})
	t.Run("an answer whose blocks Slack refuses comes as plain text, and as a file where it refuses that too", func(t *testing.T) {
		wit := newWitness(t)
		refuse := func() {
			if res := w.local(admin, "faults", map[string]any{"method": "chat.postMessage", "spare": "xoxp", "nth": 1, "body": `{"ok":false,"error":"invalid_blocks"}`}); res["ok"] != true {
				t.Fatalf("the fault = %v", res)
			}
		}
		asked := func(refusals int) (root string, text string, last message) {
			gate := fmt.Sprint("gate-", refusals)
			root = w.say(member, general, "", mention+"run: "+wit.await(gate)+"; echo and now it is here")
			w.said(general, root, root, gate) // its live message stands there: the answer is posted next
			for range refusals {
				refuse()
			}
			wit.open(gate)
			text, _ = w.answer(general, root, root)
			all := w.thread(general, root)
			return root, text, all[len(all)-1]
		}
		root, text, last := asked(1)
		if !strings.Contains(text, "and now it is here") || last.Part == "live" || strings.Contains(toJSON(t, last.Raw["blocks"]), "here") {
			t.Errorf("answer = %q, its message %v; want it as plain text", text, last.Raw)
		}
		w.goesOn(t, general, root, "")
		root, text, _ = asked(2)
		if file := w.fetched(t, general, root, "answer-1.md"); !strings.Contains(text, "answer-1.md") || !strings.Contains(file, "and now it is here") {
			t.Errorf("answer = %q, its file %q; want it as a file", text, file)
		}
		w.goesOn(t, general, root, "")
	})
}

// TestTurnDies: whatever ends a turn, the person reads what it was, and the thread goes on.
func TestTurnDies(t *testing.T) {
	t.Parallel()
	w, general := servedWorld(t)
	w.goWrong(t, general, []badInput{
		{"Claude Code is killed", "crash", nil, "Claude Code was killed in mid-turn. The conversation stays: press Retry, or reply to go on.", "137"},
		{"the machine is killed", "take 40 seconds", killMachine(false), "The machine ended in mid-turn. Files and conversation stay. It may have done part of the work: look before you press Retry.", "137"},
		{"the machine runs out of memory", "take 40 seconds", killMachine(true), "The machine ran out of memory. Files and conversation stay. Run this again on a larger machine with the button, or ask for a smaller step.", "137"},
	})
}

// TestNoRoom: where Fly has no room, the person reads that, and the thread goes on when it has.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	w, general := servedWorld(t, "FLAUDEBOT_PATIENCE=2s")
	w.flyFault(t, `{"method":"machine.create","status":422}`)
	root := w.say(member, general, "", mention+"say: hello")
	text, code := w.answer(general, root, root)
	if code != "1" || !strings.Contains(text, "Fly has no room for the machine just now. Press Retry in a few minutes.") {
		t.Errorf("answer = %q (exit %s)", text, code)
	}
	w.flyFault(t, `{}`)
	w.goesOn(t, general, root, "")
}

// servedWorld is a world with a bot.
func servedWorld(t *testing.T, env ...string) (w *split, general string) {
	t.Helper()
	w = splitWorld(t)
	start(t, append(w.env, env...), "serve")
	return w, w.channel("general")
}

// goWrong has each of them go wrong in a thread of its own.
func (w *split) goWrong(t *testing.T, general string, all []badInput) {
	t.Helper()
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			root := w.say(member, general, "", mention+c.say)
			if c.while != nil {
				w.until("the command runs", func() bool {
					return strings.Contains(toJSON(t, w.thread(general, root)), "sleep 40")
				})
				c.while(w, general, root)
			}
			text, code := w.answer(general, root, root)
			if code != c.code || !strings.Contains(text, c.want) {
				t.Errorf("answer = %.500q (exit %s), want %q (exit %s)", text, code, c.want, c.code)
			}
			w.goesOn(t, general, root, "")
		})
	}
}

// goesOn proves that the thread is not bricked: the next reply is answered.
func (w *slackWorld) goesOn(t *testing.T, channel, root, before string) {
	t.Helper()
	next := w.say(member, channel, root, before+"say: still here")
	if text, code := w.answer(channel, root, next); code != "0" || !strings.Contains(text, "still here") {
		t.Errorf("the next reply = %.300q (exit %s), want it answered", text, code)
	}
}

// attach posts a message with a file, as Slack's clients do, and returns its ts.
func (w *slackWorld) attach(t *testing.T, channel, name string, data []byte, text string) string {
	t.Helper()
	return w.attachAll(t, channel, text, []upload{{name, data}})
}

// upload is a file that goes with a message.
type upload struct {
	name string
	data []byte
}

// attachAll posts a message with files and returns its ts.
func (w *slackWorld) attachAll(t *testing.T, channel, text string, files []upload) string {
	t.Helper()
	var list []map[string]string
	for _, f := range files {
		begin := w.api(member, "files.getUploadURLExternal", url.Values{"filename": {f.name}, "length": {strconv.Itoa(len(f.data))}})
		to, _ := begin["upload_url"].(string)
		id, _ := begin["file_id"].(string)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to, bytes.NewReader(f.data))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		list = append(list, map[string]string{"id": id, "title": f.name})
	}
	w.api(member, "files.completeUploadExternal", url.Values{"files": {toJSON(t, list)}, "channel_id": {channel}, "initial_comment": {text}})
	ts := ""
	w.until("the message with "+files[0].name, func() bool {
		for _, m := range items(w.api(admin, "conversations.history", url.Values{"channel": {channel}})["messages"]) {
			if strings.Contains(toJSON(t, m["files"]), `"`+list[0]["id"]+`"`) {
				ts, _ = m["ts"].(string)
			}
		}
		return ts != ""
	})
	return ts
}

// killMachine ends the machine of a thread from outside, as its host would.
func killMachine(oom bool) func(*split, string, string) {
	return func(w *split, channel, root string) {
		for _, m := range flyList(w.t, "http://"+w.fly, "test-app", "machines") {
			if strings.Contains(toJSON(w.t, m["config"]), channel+":"+root) {
				w.flyPost(w.t, "/local/kill", toJSON(w.t, map[string]any{"machine": m["id"], "oom_killed": oom}))
				return
			}
		}
		w.t.Errorf("no machine for the thread %s", root)
	}
}

func (w *split) flyFault(t *testing.T, fault string) {
	t.Helper()
	w.flyPost(t, "/local/faults", fault)
}

func (w *split) flyPost(t *testing.T, path, body string) {
	t.Helper()
	w.flyCall(t, http.MethodPost, path, body)
}

// flyCall calls the local Fly, as somebody with a token, and returns the status of the answer.
func (w *split) flyCall(t *testing.T, method, path, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.fly+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer fly-local-test")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	for _, c := range []struct{ name, env, say, want string }{
		{"a wrong Claude credential", "ANTHROPIC_API_KEY=sk-ant-wrong", "say: hi", "Claude refuses my credential. Whoever runs me must renew CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_API_KEY; then press Retry."},
		{"a repository that does not exist", "FLAUDEBOT_REPOS=/nowhere/at/all", "say: hi", "I could not clone a repository, so nothing was run. Check its address and my access to it, then press Retry."},
		{"a wrong Git token", "GITHUB_TOKEN=ghp_wrong FLAUDEBOT_REPOS=" + privateRepo(t), "say: hi", "I could not clone a repository, so nothing was run. Check its address and my access to it, then press Retry."},
		{"a Fly token that may not create the app", "FLAUDEBOT_FLY_APP=other-app FLY_API_TOKEN=fly-local-deploy", "say: hi", "Fly refuses my token. Whoever runs me must check FLY_API_TOKEN and FLAUDEBOT_FLY_APP; then press Retry."},
		{"a wrong Fly token", "FLY_API_TOKEN=nonsense", "say: hi", "Fly refuses my token."},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := append(append([]string{}, w.env...), strings.Fields(c.env)...)
			prefix := "FLAUDEBOT_PREFIX=" + strings.ReplaceAll(c.name, " ", "-") + ":"
			p := start(t, append(env, prefix), "serve")
			general := w.channel("general")
			root := w.say(member, general, "", mention+c.say)
			if text, code := w.answer(general, root, root); code != "1" || !strings.Contains(text, c.want) {
				t.Errorf("answer = %q (exit %s), want %q", text, code, c.want)
			}
			p.stop()
			if strings.Contains(p.logs(), "sk-ant-wrong") || strings.Contains(p.logs(), "nonsense") || strings.Contains(p.logs(), "ghp_wrong") {
				t.Error("the log shows a token")
			}
			mended := start(t, append(append([]string{}, w.env...), prefix), "serve")
			w.goesOn(t, general, root, mention)
			mended.stop()
		})
	}
	locked := redisServer(t, "--requirepass", "right")
	for _, c := range []struct{ name, env, want string }{
		{"a wrong Redis password", "REDIS_URL=" + strings.Replace(locked, "redis://", "redis://:pass-wrong@", 1), "refuses the user or password of REDIS_URL: correct it"},
		{"a wrong Slack bot token", "SLACK_BOT_TOKEN=xoxb-wrong", "SLACK_BOT_TOKEN: Slack refuses the token"},
		{"a wrong Slack app token", "SLACK_APP_TOKEN=xapp-wrong", "SLACK_APP_TOKEN: Slack refuses the token"},
		{"a missing setting", "FLAUDEBOT_FLY_APP=", "FLAUDEBOT_FLY_APP is not set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := self(t.Context(), append(append([]string{}, w.env...), c.env), "serve")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("serve = %v: %s, want %q", err, out, c.want)
			}
			if strings.Contains(string(out), "-wrong") {
				t.Errorf("the token is shown: %s", out)
			}
		})
	}
}

// privateRepo answers as a Git host does to who may not read.
func privateRepo(t *testing.T) string {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		http.Error(rw, "no", http.StatusUnauthorized)
	}))
	t.Cleanup(h.Close)
	return h.URL + "/private.git"
}

// TestRedisAway: without Redis nothing is accepted and nothing is lost.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	general := w.channel("general")

	t.Run("away at start: it waits and is not ready", func(t *testing.T) {
		addr := freeAddr(t)
		p := launch(t, append(append([]string{}, w.env...), "REDIS_URL=redis://"+addr), "serve")
		w.until("it says what it waits for", func() bool { return strings.Contains(p.logs(), "waiting for Redis") })
		select {
		case <-p.ready:
			t.Fatal("it says that it is ready")
		default:
		}
		startRedis(t, addr, t.TempDir())
		p.awaitReady()
		root := w.say(member, general, "", mention+"say: hello")
		if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, "hello") {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
		p.stop()
	})
	t.Run("going away in mid-turn: the turn ends, what was said meanwhile is answered", func(t *testing.T) {
		addr, dir := freeAddr(t), t.TempDir()
		kill := startRedis(t, addr, dir)
		start(t, append(append([]string{}, w.env...), "REDIS_URL=redis://"+addr), "serve")
		root := w.say(member, general, "", mention+"run: touch /data/workspace/began && sleep 3")
		w.until("the command runs", func() bool {
			began, _ := filepath.Glob(filepath.Join(w.data, "fly", "volumes", "*", "workspace", "began"))
			return len(began) == 1
		})
		kill()
		reply := w.say(member, general, root, "say: kept")
		startRedis(t, addr, dir)
		if _, code := w.answer(general, root, root); code != "0" {
			t.Errorf("the turn ended with exit %s, want 0", code)
		}
		if text, code := w.answer(general, root, reply); code != "0" || !strings.Contains(text, "kept") {
			t.Errorf("the reply = %q (exit %s), want it answered", text, code)
		}
		if n := w.answers(general, root, root); n != 1 {
			t.Errorf("%d answers, want one", n)
		}
		w.goesOn(t, general, root, "")
	})
}
