package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

// record is what flaudebot audit prints.
func (w *split) record(flags ...string) []sessions.Entry {
	w.t.Helper()
	return entriesOf(w.t, w.says(append([]string{"audit"}, flags...)...))
}

func entriesOf(t *testing.T, lines string) []sessions.Entry {
	t.Helper()
	var out []sessions.Entry
	for line := range strings.Lines(lines) {
		var e sessions.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("no line of JSON: %v: %s", err, line)
		}
		out = append(out, e)
	}
	return out
}

// one is the only entry of its kind about something; a test fails where there is another number of them.
func one(t *testing.T, all []sessions.Entry, what sessions.Happening, about func(sessions.Entry) bool) sessions.Entry {
	t.Helper()
	var found []sessions.Entry
	for _, e := range all {
		if e.What == what && about(e) {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Errorf("%d entries %s, want one: %s", len(found), what, toJSON(t, found))
		return sessions.Entry{}
	}
	return found[0]
}

// ofTurn tells the entries of the turn of a message.
func ofTurn(ts string) func(sessions.Entry) bool {
	return func(e sessions.Entry) bool { return strings.HasSuffix(string(e.Turn), ":"+ts) }
}

// TestAudit: who asked, and what ran, is on record, each thing once, also where the replica that did it was killed.
func TestAudit(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	w.env = append(w.env, "FLAUDEBOT_MAX_QUEUED_PER_THREAD=1")
	first := start(t, w.env, "serve")
	general := w.channel("general")
	began := time.Now()
	root := w.say(member, general, "", mention+"run: printf 'a\\nb\\n' > notes-4711.txt")
	w.answer(general, root, root)
	failing := w.say(admin, general, root, "run: false")
	w.answer(general, root, failing)

	w.said(general, root, w.say(admin, general, root, "!mute"), "Muted: replies here are left to you")
	manage := func() map[string]any {
		if res := w.local(member, "shortcut", map[string]any{"callback_id": "manage_session", "channel": general, "ts": root}); res["ok"] != true {
			t.Fatalf("the shortcut = %v", res)
		}
		view := map[string]any{}
		w.until("its modal", func() bool {
			for _, v := range items(w.local(member, "seen", map[string]any{"channel": general})["views"]) {
				view = v
			}
			return has(t, view, "Listen to replies")
		})
		return view
	}
	w.click(t, map[string]any{"view_id": manage()["id"], "action_id": "unmute"})
	w.until("that it listens", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "I am listening again") })

	busy := w.say(member, general, root, "take 60 seconds")
	w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "sleep 60") })
	waits := w.say(admin, general, root, "say nothing")
	w.until("it waits", func() bool {
		st, err := w.admins().Status(t.Context(), sessions.Thread{Team: "T0LOCAL", Channel: general, TS: root})
		return err == nil && len(st.Queued) == 1
	})
	refused := w.say(admin, general, root, "say nothing more")
	w.until("there is no room for another one", func() bool {
		return slices.ContainsFunc(w.record(), func(e sessions.Entry) bool { return e.What == sessions.TurnRefused })
	})
	w.api(admin, "chat.delete", map[string][]string{"channel": {general}, "ts": {waits}})
	w.until("that is taken back", func() bool {
		return slices.ContainsFunc(w.record(), func(e sessions.Entry) bool { return e.What == sessions.StopAsked && ofTurn(waits)(e) })
	})
	first.kill() // a takeover
	start(t, w.env, "serve")
	w.say(member, general, root, "!stop")
	w.answer(general, root, busy)
	w.typed(admin, general, "end "+linkTo(general, root))
	sure := w.whispered(t, admin, general, "", "in no repository")
	w.local(admin, "click", map[string]any{"channel": general, "ts": sure, "action_id": "end"})
	w.until("it is gone", func() bool { return len(flyList(t, "http://"+w.fly, "test-app", "volumes")) == 0 })

	const secret = "npm_5up3r-s3cr3t"
	w.set(w.admins(), general, map[string]string{"NPM_TOKEN": secret}, func(s *sessions.Settings) {
		s.Env, s.Secrets, s.Model = map[string]string{"STAGE": "testing"}, []string{"NPM_TOKEN"}, "opus"
	})

	w.says("run", "run: printf 4712")

	all := w.record()
	ofRun := func(e sessions.Entry) bool {
		return e.By == sessions.Operator && e.Channel == "" && e.Kind == sessions.KindOnce
	}
	ran := one(t, all, sessions.TurnAsked, ofRun)
	if ran.Chars == nil || *ran.Chars != 16 {
		t.Errorf("the run of the command line was asked for like this: %s", toJSON(t, ran))
	}
	if e := one(t, all, sessions.TurnEnded, ofRun); e.Turn != ran.Turn || e.Ended == nil || e.Ended.Machine == "" || e.Ended.CostUSD <= 0 || e.Ended.EndedAt.Before(ran.At) {
		t.Errorf("it ended like this: %s", toJSON(t, e))
	}
	ofThread := func(e sessions.Entry) bool { return e.Channel == general && e.Thread == root }
	if e := one(t, all, sessions.ThreadMuted, ofThread); e.By != "U0ADMIN" {
		t.Errorf("it was muted like this: %s", toJSON(t, e))
	}
	if e := one(t, all, sessions.ThreadUnmuted, ofThread); e.By != "U0MEMBER" {
		t.Errorf("it was unmuted like this: %s", toJSON(t, e))
	}
	set := one(t, all, sessions.SettingsSet, func(e sessions.Entry) bool { return e.Channel == general })
	if set.By != "U0ADMIN" || set.Set == nil || set.Set.Version != 1 || !slices.Equal(set.Set.Fields, []string{"env", "model", "secrets"}) {
		t.Errorf("the settings were changed like this: %s", toJSON(t, set))
	}
	asked := one(t, all, sessions.TurnAsked, ofTurn(root))
	if asked.By != "U0MEMBER" || asked.Channel != general || asked.Thread != root || asked.Chars == nil || *asked.Chars < 20 || asked.At.Before(began.Add(-time.Second)) ||
		!strings.HasSuffix(asked.Link, "/archives/"+general+"/p"+strings.ReplaceAll(root, ".", "")) {
		t.Errorf("the first turn was asked for like this: %s", toJSON(t, asked))
	}
	ended := one(t, all, sessions.TurnEnded, ofTurn(root))
	if e := ended.Ended; e == nil || ended.By != "U0MEMBER" || ended.Session == "" || e.ExitCode != 0 || e.Number != 1 || e.CostUSD <= 0 || e.Changed == nil ||
		e.Changed.Files != 1 || e.Changed.Added != 2 || !slices.Equal(e.Changed.Paths, []string{"notes-4711.txt"}) {
		t.Errorf("the first turn ended like this: %s", toJSON(t, ended))
	}
	one(t, all, sessions.TurnAsked, ofTurn(failing))
	one(t, all, sessions.TurnEnded, ofTurn(failing))
	one(t, all, sessions.TurnAsked, ofTurn(busy))
	if e := one(t, all, sessions.TurnEnded, ofTurn(busy)); e.Ended == nil || e.Ended.ExitCode != 130 || e.Ended.Failure != "stopped" {
		t.Errorf("the turn that was taken over and stopped ended like this: %s", toJSON(t, e))
	}
	if e := one(t, all, sessions.StopAsked, ofTurn(busy)); e.By != "U0MEMBER" || e.Waiting {
		t.Errorf("it was stopped like this: %s", toJSON(t, e))
	}
	one(t, all, sessions.TurnAsked, ofTurn(waits))
	if e := one(t, all, sessions.StopAsked, ofTurn(waits)); e.By != "" || !e.Waiting { // Slack does not tell who deletes
		t.Errorf("the turn that waited was taken back like this: %s", toJSON(t, e))
	}
	one(t, all, sessions.TurnAsked, ofTurn(refused))
	if e := one(t, all, sessions.TurnRefused, ofTurn(refused)); e.By != "U0ADMIN" || e.Full != sessions.BoundThread {
		t.Errorf("the turn that there was no room for was refused like this: %s", toJSON(t, e))
	}
	for _, ts := range []string{waits, refused} {
		if slices.ContainsFunc(all, func(e sessions.Entry) bool { return e.What == sessions.TurnEnded && ofTurn(ts)(e) }) {
			t.Errorf("turn %s never ran, and has an end", ts)
		}
	}
	ofSession := func(e sessions.Entry) bool { return e.Session == ended.Session }
	if e := one(t, all, sessions.EndAsked, ofSession); e.By != "U0ADMIN" || e.Thread != root {
		t.Errorf("the end was asked for like this: %s", toJSON(t, e))
	}
	if e := one(t, all, sessions.SessionEnded, ofSession); e.By != "U0ADMIN" || e.Over == nil || e.Over.Reason != sessions.EndByPerson || e.Over.Turns != 3 || e.Over.Owner != "U0MEMBER" {
		t.Errorf("the session ended like this: %s", toJSON(t, e))
	}
	ids := map[string]bool{}
	for _, e := range all {
		if ids[e.ID] {
			t.Errorf("%s is there twice", e.ID)
		}
		ids[e.ID] = true
	}
	printed := w.says("audit")
	for _, words := range []string{"printf", "seconds", "xoxb", "sk-ant", "fly-local", secret, "testing", "opus"} {
		if strings.Contains(printed, words) {
			t.Errorf("the record holds %q", words)
		}
	}

	tomorrow, yesterday := began.Add(24*time.Hour).UTC().Format(time.DateOnly), began.Add(-24*time.Hour).UTC().Format(time.DateOnly)
	for _, c := range []struct {
		flags []string
		want  func(sessions.Entry) bool
	}{
		{[]string{"--since", yesterday, "--until", began.Add(time.Hour).UTC().Format(time.RFC3339)}, func(sessions.Entry) bool { return true }},
		{[]string{"--since", tomorrow}, func(sessions.Entry) bool { return false }},
		{[]string{"--until", yesterday}, func(sessions.Entry) bool { return false }},
		{[]string{"--channel", "C0OTHER"}, func(sessions.Entry) bool { return false }},
		{[]string{"--channel", general, "--person", "U0ADMIN"}, func(e sessions.Entry) bool { return e.By == "U0ADMIN" }},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(e sessions.Entry) bool { return !c.want(e) })
		if got := w.record(c.flags...); toJSON(t, got) != toJSON(t, want) && len(got)+len(want) > 0 {
			t.Errorf("audit %v: %d entries, want %d of %d", c.flags, len(got), len(want), len(all))
		}
	}
}
