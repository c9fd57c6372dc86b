package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

// machineOf is the machine of a thread's session, as the local Fly has it.
func (w *split) machineOf(t *testing.T, root string) map[string]any {
	t.Helper()
	for _, m := range flyList(t, "http://"+w.fly, "test-app", "machines") {
		if has(t, m["config"], root) {
			return m
		}
	}
	t.Fatalf("the thread %s has no machine", root)
	return nil
}

// volumeOf is the volume of a machine.
func (w *split) volumeOf(t *testing.T, machine map[string]any) map[string]any {
	t.Helper()
	for _, v := range flyList(t, "http://"+w.fly, "test-app", "volumes") {
		if v["attached_machine_id"] == machine["id"] {
			return v
		}
	}
	t.Fatalf("the machine %v has no volume", machine["id"])
	return nil
}

// exited is when a machine ended last.
func exited(machine map[string]any) time.Time {
	for _, e := range items(machine["events"]) {
		if ms, _ := e["timestamp"].(float64); e["type"] == "exit" {
			return time.UnixMilli(int64(ms))
		}
	}
	return time.Time{}
}

// postedAt is when a turn's answer was posted.
func (w *slackWorld) postedAt(t *testing.T, channel, root, ts string) time.Time {
	t.Helper()
	for _, m := range w.thread(channel, root) {
		if strings.HasSuffix(m.Turn, ":"+ts) && footer.MatchString(m.Text) {
			seconds, err := strconv.ParseFloat(m.TS, 64)
			if err != nil {
				t.Fatal(err)
			}
			return time.UnixMicro(int64(seconds * 1e6))
		}
	}
	t.Fatalf("%s has no answer", ts)
	return time.Time{}
}

var endsAt = regexp.MustCompile(`It ends by itself <!date\^(\d+)\^`)

// TestChannelMachines: what a channel has set of machines and times is what its sessions have, a message chooses otherwise where it may,
// and all of it is told.
func TestChannelMachines(t *testing.T) {
	t.Parallel()
	world := splitWorld(t)
	start(t, world.env, "serve")
	admins, general, payments := world.admins(), world.channel("general"), world.channel("payments")
	world.set(admins, general, nil, func(s *sessions.Settings) {
		s.Region, s.VolumeGB, s.Guest = "fra", 3, sessions.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 1024}
		s.TTL = new(48 * time.Hour)
		s.Overrides = []sessions.Override{sessions.OverrideModel, sessions.OverrideEffort, sessions.OverrideVolume}
	})
	const linger = 3 * time.Second
	world.set(admins, payments, nil, func(s *sessions.Settings) {
		s.Model, s.Linger, s.Overrides = "sonnet", new(linger), []sessions.Override{sessions.OverrideEffort}
	})

	t.Run("region, sizes, life and time-out", func(t *testing.T) {
		t.Parallel()
		w := world.in(t)
		status := func(root string) string { return w.typed(member, general, "status "+linkTo(general, root)) }
		for _, tt := range []struct {
			name, choice string
			volume       float64
			model        string // that the API is asked for
			effort       string
			ranWith      string // as the status says
		}{
			{"as the channel has it", "", 3, "claude-scripted", "high", "the default model"},
			{"as the message has it", "volume:5 model:haiku effort:low ", 5, "claude-haiku-4-5-20251001", "low", "model `haiku`, effort low"},
		} {
			began := time.Now()
			root := w.say(member, general, "", mention+tt.choice+"run: echo "+tt.name)
			if text, code := w.answer(general, root, root); code != "0" || !strings.Contains(text, tt.name) {
				t.Fatalf("%s: answer = %q (exit %s)", tt.name, text, code)
			}
			m := w.machineOf(t, root)
			v := w.volumeOf(t, m)
			if m["region"] != "fra" || v["region"] != "fra" || v["size_gb"] != tt.volume || !has(t, m["config"], `"memory_mb":1024`) {
				t.Errorf("%s: a machine in %v with %v and a volume of %v GB in %v, want fra, 1024 MB and %v GB", tt.name, m["region"], m["config"], v["size_gb"], v["region"], tt.volume)
			}
			if seen := w.asked(t, tt.name); seen.Model != tt.model || seen.Effort != tt.effort || strings.Contains(seen.Prompt, "volume:") {
				t.Errorf("%s: the API was asked for %s with effort %s by %q", tt.name, seen.Model, seen.Effort, seen.Prompt)
			}
			if details := w.offered(t, general, root, "details"); !has(t, details.Raw, tt.model) {
				t.Errorf("%s: the details of the answer do not name the model: %v", tt.name, details.Raw)
			}
			said := status(root)
			if want := fmt.Sprintf("It has 1 shared CPU, 1 GB, a volume of %v GB.", tt.volume); !strings.Contains(said, want) || !strings.Contains(said, "in fra") || !strings.Contains(said, "ran with "+tt.ranWith) {
				t.Errorf("%s: /flaude status = %q, want it to say %q and %q", tt.name, said, want, tt.ranWith)
			}
			unix, err := strconv.ParseInt(append(endsAt.FindStringSubmatch(said), "", "")[1], 10, 64)
			if life := time.Unix(unix, 0).Sub(began); err != nil || life < 48*time.Hour-time.Minute || life > 48*time.Hour+testPatience {
				t.Errorf("%s: /flaude status = %q, which is %s after its beginning; want 48 h", tt.name, said, life)
			}
		}
	})
	t.Run("a turn that takes longer than the channel lets it ends, and can be continued", func(t *testing.T) {
		t.Parallel()
		w := world.in(t)
		root := w.say(member, general, "", mention+"remember the number 41")
		if text, code := w.answer(general, root, root); code != "0" {
			t.Fatalf("answer = %q (exit %s)", text, code)
		}
		w.set(admins, general, nil, func(s *sessions.Settings) { s.Timeout = new(2 * time.Second) })
		ts := w.say(member, general, root, "take 300 seconds")
		text, code := w.answer(general, root, ts)
		if code != "124" || !strings.Contains(text, "This took longer than a turn may take, so I stopped it. Press Continue") || !strings.Contains(text, "2s") {
			t.Errorf("answer = %q (exit %s), want it said that its time was up, with 124", text, code)
		}
		w.set(admins, general, nil, func(s *sessions.Settings) { s.Timeout = nil })
		over := w.offered(t, general, root, "continue")
		if !strings.HasSuffix(over.Turn, ":"+ts) {
			t.Fatalf("Continue belongs to %s", over.Turn)
		}
		w.click(t, map[string]any{"channel": general, "ts": over.TS, "action_id": "continue"})
		if text, code := w.answer(general, root, ts+"-continue-"+over.TS); code != "0" {
			t.Errorf("after Continue: answer = %q (exit %s), want a turn without that limit", text, code)
		}
		ts = w.say(member, general, root, "what number did I ask you to remember?")
		if text, code := w.answer(general, root, ts); code != "0" || !strings.Contains(text, "41") {
			t.Errorf("answer = %q (exit %s), want the conversation to go on", text, code)
		}
	})
	t.Run("what a message may not choose is said in its thread, and not run", func(t *testing.T) {
		t.Parallel()
		w := world.in(t)
		root := w.say(member, payments, "", mention+"effort:low run: echo begun where little may be chosen")
		if text, code := w.answer(payments, root, root); code != "0" {
			t.Fatalf("answer = %q (exit %s)", text, code)
		}
		if seen := w.asked(t, "echo begun where little may be chosen"); seen.Model != "claude-sonnet-5" || seen.Effort != "low" {
			t.Errorf("the API was asked for %s with effort %s, want the channel's model and the message's effort", seen.Model, seen.Effort)
		}
		for _, tt := range []struct{ thread, choice, said string }{
			{root, "model:opus", "The settings of this channel do not let a message choose the model. Send your message again without that; what can be chosen here is like `effort:high`."},
			{"", mention + "volume:5", "The settings of this channel do not let a message choose the volume. Send your message again without that; what can be chosen here is like `effort:high`."},
			{root, "effort:huge", "There is no effort “huge”: choose one of low, medium, high, xhigh, max."},
		} {
			ts := w.say(member, payments, tt.thread, tt.choice+" run: echo not to be run")
			thread := ts
			if tt.thread != "" {
				thread = tt.thread
			}
			w.said(payments, thread, ts, tt.said)
			if n := w.answers(payments, thread, ts); n != 0 {
				t.Errorf("%s: it has %d answers", tt.choice, n)
			}
		}
		ts := w.say(member, payments, root, "run: echo goes on")
		if text, code := w.answer(payments, root, ts); code != "0" || !strings.Contains(text, "turn 2") {
			t.Errorf("answer = %q (exit %s), want that of the second turn", text, code)
		}
		for _, seen := range apiLog(t, w.claude) {
			if strings.HasSuffix(strings.TrimSpace(seen.Prompt), "not to be run") { // others read it as what was said before
				t.Errorf("it was run: %+v", seen)
			}
		}
	})
	t.Run("a size can be chosen in the message alone that begins a session", func(t *testing.T) {
		t.Parallel()
		w := world.in(t)
		root := w.say(admin, general, "", mention+"run: echo begun")
		if text, code := w.answer(general, root, root); code != "0" {
			t.Fatalf("answer = %q (exit %s)", text, code)
		}
		w.said(general, root, w.say(admin, general, root, "volume:7 run: echo late"), "The size of a volume can be chosen in the message that begins a session")
		if v := w.volumeOf(t, w.machineOf(t, root)); v["size_gb"] != 3.0 {
			t.Errorf("the volume has %v GB, want the 3 that it had", v["size_gb"])
		}
	})
	t.Run("a machine waits for the next message as long as the channel has it, and then sleeps", func(t *testing.T) {
		t.Parallel()
		w := world.in(t)
		root := w.say(admin, payments, "", mention+"run: echo first")
		if text, code := w.answer(payments, root, root); code != "0" {
			t.Fatalf("answer = %q (exit %s)", text, code)
		}
		w.until("the machine sleeps", func() bool { return w.machineOf(t, root)["state"] == "stopped" })
		if waited := exited(w.machineOf(t, root)).Sub(w.postedAt(t, payments, root, root)); waited < linger {
			t.Errorf("it ended %s after the answer, want %s at least", waited, linger)
		}
		if said := w.typed(admin, payments, "status "+linkTo(payments, root)); !strings.Contains(said, "a machine that stays for ") {
			t.Errorf("/flaude status = %q, want it to tell of that", said)
		}
	})
}

// TestChannelPeople: in a channel that names people the others are told so, and where replies need a mention those without one are left alone.
func TestChannelPeople(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, w.env, "serve")
	payments := w.channel("payments")
	w.set(w.admins(), payments, nil, func(s *sessions.Settings) { s.Users, s.MentionOnly = []string{"U0MEMBER"}, true })
	const notHere = "Only some people may use me in this channel, so I left your message alone. `/flaude config` shows who, and whom to ask."
	told := func(token, thread string) int { // how often somebody was told that
		return strings.Count(toJSON(t, w.local(token, "seen", map[string]any{"channel": payments, "thread_ts": thread})["ephemeral"]), "Only some people may use me")
	}

	refused := w.say(admin, payments, "", mention+"run: echo by one who is not named")
	w.until("who is not named is told so", func() bool { return told(admin, "")+told(admin, refused) == 1 })
	if said := w.typed(admin, payments, "run echo by one who is not named"); said != notHere {
		t.Errorf("/flaude run = %q, want %q", said, notHere)
	}
	root := w.say(member, payments, "", mention+"run: echo begun | tee -a said")
	if text, code := w.answer(payments, root, root); code != "0" || !strings.Contains(text, "begun") {
		t.Errorf("answer = %q (exit %s), want that who is named is heard", text, code)
	}
	inThread := w.say(admin, payments, root, mention+"run: echo by one who is not named | tee -a said")
	plain := w.say(member, payments, root, "run: echo among people | tee -a said")
	asked := w.say(member, payments, root, mention+"run: cat said")
	text, code := w.answer(payments, root, asked)
	if code != "0" || !strings.Contains(text, "begun") || strings.Contains(text, "among people") || strings.Contains(text, "not named") {
		t.Errorf("answer = %q (exit %s), want that of the second turn, which mentions the bot, and none between", text, code)
	}
	for what, ts := range map[string]string{"the plain reply": plain, "the reply of one who is not named": inThread} {
		if n := w.answers(payments, root, ts); n != 0 {
			t.Errorf("%s has %d answers", what, n)
		}
	}
	if n := told(admin, "") + told(admin, refused) + told(admin, root); n != 2 {
		t.Errorf("who is not named is told so %d times, want once in a while for their messages, and for the command", n)
	}
	if n := told(member, "") + told(member, root) + told(member, refused); n != 0 {
		t.Errorf("another person sees %d times what the refused one was told", n)
	}
	if said := w.thread(payments, refused); len(said) != 0 {
		t.Errorf("the refused one's thread has %+v", said)
	}
	if machines := flyList(t, "http://"+w.fly, "test-app", "machines"); len(machines) != 1 {
		t.Errorf("there are %d machines, want that of the named one's session alone", len(machines))
	}
	for _, seen := range apiLog(t, w.claude) {
		if said := strings.TrimSpace(seen.Prompt); !strings.HasSuffix(said, "run: echo begun | tee -a said") && !strings.HasSuffix(said, "run: cat said") {
			t.Errorf("it was run: %q", said)
		}
	}
}
