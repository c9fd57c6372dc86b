package bot

import (
	"strings"
	"testing"

	"flaudebot/sessions"
)

func TestOverridesIn(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]struct {
		rest string
		o    sessions.Overrides
	}{
		"model:opus fix it":                          {"fix it", sessions.Overrides{Model: "opus"}},
		"fix it model:opus effort:high":              {"fix it", sessions.Overrides{Model: "opus", Effort: "high"}},
		"Model:Opus fix it. Effort:MAX.":             {"fix it.", sessions.Overrides{Model: "opus", Effort: "max"}},
		"repo:acme/app model:opus fix it volume:20":  {"repo:acme/app fix it", sessions.Overrides{Model: "opus", VolumeGB: 20}},
		"fix it volume:20GB repo:acme/app":           {"fix it repo:acme/app", sessions.Overrides{VolumeGB: 20}},
		"model:claude-opus-4-7[1m] go":               {"go", sessions.Overrides{Model: "claude-opus-4-7[1m]"}},
		"model:us.anthropic.claude-opus-4-7-v1:0 go": {"go", sessions.Overrides{Model: "us.anthropic.claude-opus-4-7-v1:0"}},
		"effort:low\nfix\n  it\n\nmodel:haiku":       {"fix\n  it", sessions.Overrides{Model: "haiku", Effort: "low"}},
		"model:haiku":                                {"", sessions.Overrides{Model: "haiku"}},
		"":                                           {"", sessions.Overrides{}},
		"set model:opus in the file":                 {"set model:opus in the file", sessions.Overrides{}},
		"rename the field to model:User":             {"rename the field to model:User", sessions.Overrides{}},
		"what is effort:huge":                        {"what is effort:huge", sessions.Overrides{}},
		"the-model:opus is":                          {"the-model:opus is", sessions.Overrides{}},
		"fix it model:opus, please":                  {"fix it model:opus, please", sessions.Overrides{}},
	} {
		rest, o, err := overridesIn(words)
		if err != nil || rest != want.rest || o != want.o {
			t.Errorf("overridesIn(%q) = %q, %+v, %v, want %q, %+v", words, rest, o, err, want.rest, want.o)
		}
	}
	for words, want := range map[string]string{
		"model:opsu go": "I know no model “opsu”.", "effort:huge go": "There is no effort “huge”: choose one of low,", "volume:big go": "A volume's size is a whole number",
		"volume:0 go": "A volume's size is a whole number", "model:<!here> go": "I know no model “&lt;!here&gt;”.",
	} {
		if rest, _, err := overridesIn(words); err == nil || !strings.HasPrefix(err.Error(), want) || rest != words {
			t.Errorf("overridesIn(%q) = %q, %v, want %q", words, rest, err, want)
		}
	}
}

// TestMessageOverrides: what a message chooses goes with its turn and not to Claude, if its channel lets it; else that is said, and nothing is run.
func TestMessageOverrides(t *testing.T) {
	t.Parallel()
	type step struct {
		name, text string
		set        sessions.Settings
		want       sessions.Overrides
		prompt     string
		said       string // "": it is a turn
	}
	for _, s := range []step{
		{name: "model and effort", text: "model:haiku effort:low go", want: sessions.Overrides{Model: "haiku", Effort: "low"}, prompt: "go"},
		{name: "a volume is not allowed at first", text: "volume:20 go", said: "do not let a message choose the volume. Send your message again without that; what can be chosen here is like `model:opus`, `effort:high`."},
		{
			name: "a volume where it is", text: "go volume:20", set: sessions.Settings{Overrides: []sessions.Override{sessions.OverrideVolume}},
			want: sessions.Overrides{VolumeGB: 20}, prompt: "go",
		},
		{name: "nothing where nothing is", text: "go model:opus", set: sessions.Settings{Overrides: []sessions.Override{}}, said: "do not let a message choose the model"},
		{name: "a volume that is too large", text: "volume:9999 go", set: sessions.Settings{Overrides: []sessions.Override{sessions.OverrideVolume}}, said: "A volume has 1 to 500 GB"},
		{name: "what makes no sense", text: "effort:huge go", said: "There is no effort “huge”"},
		{name: "choices alone are no prompt", text: "model:opus", said: sayEmpty},
		{name: "nor with a repository", text: "repo:none model:opus", said: sayEmpty},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, nil)
			w.set(general, s.set)
			root := w.say(member, general, "", mention+s.text)
			if s.said != "" {
				w.until("it is said", func() bool { return has(w.thread(general, root), s.said) })
				w.settled(general)
				if turn := w.sessions.turn(root); turn != nil {
					t.Errorf("it is run: %+v", turn)
				}
				return
			}
			w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
			if turn := w.sessions.turn(root); turn.Overrides != s.want || turn.Text != s.prompt {
				t.Errorf("turn = %q with %+v, want %q with %+v", turn.Text, turn.Overrides, s.prompt, s.want)
			}
		})
	}
	t.Run("a volume in a session that has begun", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{Overrides: []sessions.Override{sessions.OverrideVolume, sessions.OverrideModel}})
		s := w.sessionsIn("a")[0]
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
		w.say(member, general, s.Thread.TS, mention+"volume:20 go")
		w.until("it is said", func() bool { return has(w.thread(general, s.Thread.TS), sayVolumeLate) })
		reply := w.say(member, general, s.Thread.TS, "go on model:haiku")
		w.until("a reply may choose its model", func() bool {
			turn := w.sessions.turn(reply)
			return turn != nil && turn.Overrides.Model == "haiku" && turn.Text == "go on"
		})
	})
	t.Run("a long message, which is read again at its turn", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		long := strings.Repeat("word ", 6000) + "end"
		root := w.say(member, general, "", mention+"model:haiku "+long)
		w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
		turn := *w.sessions.turn(root)
		p, err := w.bot.Prompt(t.Context(), session(root), turn, true)
		if err != nil || p.Text != long || turn.Overrides.Model != "haiku" {
			t.Errorf("Prompt = %.60q…, %v with %+v", p.Text, err, turn.Overrides)
		}
	})
	t.Run("a single run", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.command(member, "run model:haiku count the lines")
		w.sessions.set(func(f *fakeSessions) {
			if len(f.accepted) != 1 || f.accepted[0].Overrides.Model != "haiku" || f.accepted[0].Text != "count the lines" {
				t.Errorf("accepted %+v", f.accepted)
			}
		})
		if got := w.command(member, "run volume:20 count"); !has(got, "do not let a message choose the volume") {
			t.Errorf("run volume:20 = %s", got)
		}
	})
}

// TestChannelRules: who may use the bot in a channel, and whether replies count there, is obeyed on every surface.
func TestChannelRules(t *testing.T) {
	t.Parallel()
	t.Run("who is not named is told so, wherever they try", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{Users: []string{"U0ADMIN"}})
		s := w.sessionsIn("a")[0]
		w.runs(s)
		root := w.say(member, general, "", mention+"go")
		w.until("a refusal", func() bool { return has(w.whispered(member, general, ""), sayNotHere) })
		for _, text := range []string{"list", "status", "stop", "end", "run go", "help"} {
			if got := w.command(member, text); !has(got, sayNotHere) {
				t.Errorf("/flaude %s = %s", text, got)
			}
		}
		w.local(member, "shortcut", map[string]any{"callback_id": "manage_session", "channel": general, "ts": s.Thread.TS})
		w.opened(member, "Session", sayNotHere)
		w.api(member, "reactions.add", map[string][]string{"channel": {general}, "timestamp": {s.Thread.TS}, "name": {stopMark}})
		ok := w.say(admin, general, "", mention+"go")
		w.until("who is named is heard", func() bool { return w.sessions.turn(ok) != nil })
		w.sessions.set(func(f *fakeSessions) {
			if n := len(f.stops) + len(f.cancels) + len(f.ends); n != 0 || len(f.accepted) != 1 {
				t.Errorf("%d stops and ends, and turns %+v; want the admin's alone", n, f.accepted)
			}
		})
		if w.sessions.turn(root) != nil {
			t.Error("a turn of one who is not named")
		}
		if w.config(member).title() != "Channel settings" {
			t.Error("they cannot see who is")
		}
	})
	t.Run("a user group is named", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{Users: []string{"S0TEAM"}})
		root := w.say(member, general, "", mention+"go")
		w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
	})
	t.Run("a guest who is named is meant, unless the bot's own settings name others", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{Users: []string{"U0GUEST"}})
		root := w.say(guest, general, "", mention+"go")
		w.until("a turn", func() bool { return w.sessions.turn(root) != nil })
		w = newWorkspace(t, func(c *Config) { c.AllowedUsers = []string{"U0MEMBER"} })
		w.set(general, sessions.Settings{Users: []string{"U0GUEST"}})
		if got := w.command(guest, "list"); !has(got, sayNotYou) {
			t.Errorf("/flaude list = %s, want %q", got, sayNotYou)
		}
	})
	t.Run("where only mentions count a plain reply is left alone, and a word to the bot is not", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		w.set(general, sessions.Settings{MentionOnly: true})
		s := w.sessionsIn("a")[0]
		w.sessions.set(func(f *fakeSessions) { f.status.Session = &s })
		plain := w.say(member, general, s.Thread.TS, "and this?")
		w.say(member, general, s.Thread.TS, "!status")
		w.until("a word to the bot", func() bool { return has(w.whispered(member, general, s.Thread.TS), "3 turns") })
		asked := w.say(member, general, s.Thread.TS, mention+"and this?")
		w.until("a mention", func() bool { return w.sessions.turn(asked) != nil })
		if w.sessions.turn(plain) != nil {
			t.Error("a plain reply is run")
		}
	})
	t.Run("a change counts at once where it was made", func(t *testing.T) {
		t.Parallel()
		w := newWorkspace(t, nil)
		first := w.say(member, general, "", mention+"go")
		w.until("a turn", func() bool { return w.sessions.turn(first) != nil })
		w.config(admin).press(actionPage, "access")
		w.opened(admin, "Who may, and how much").submit(map[string]map[string]any{"users": persons("U0ADMIN")})
		w.say(member, general, "", mention+"go")
		w.until("a refusal", func() bool { return has(w.whispered(member, general, ""), sayNotHere) })
	})
}
