package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestBounds: whoever has as many turns at work or waiting as the bot's settings allow is told so, and what waits begins by itself.
func TestBounds(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, append(slices.Clone(w.env), "FLAUDEBOT_MAX_RUNNING_PER_PERSON=1", "FLAUDEBOT_MAX_QUEUED_PER_PERSON=2"), "serve")
	general := w.channel("general")
	first := w.say(member, general, "", mention+"run: touch began; while [ ! -e go ]; do sleep 0.1; done")
	w.until("it is at work", func() bool { return len(w.onVolumes(t, "began")) > 0 })
	second := w.say(member, general, "", mention+"remember the number 42")
	w.whispered(t, member, general, second, "As many of your messages are being worked on as may be at once. This one begins when one of them is done.")
	third := w.say(member, general, "", mention+"remember the number 43")
	w.until("it is refused", func() bool {
		return slices.ContainsFunc(w.thread(general, third), func(m message) bool {
			return m.Text == "As many messages of yours are waiting as I keep for one person, so I did not take this one. Send it again when some are answered."
		})
	})
	other := w.say(admin, general, "", mention+"remember the number 44")
	if text, code := w.answer(general, other, other); code != "0" {
		t.Errorf("somebody else's answer = %q (exit %s)", text, code)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(w.onVolumes(t, "began")[0]), "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ts := range []string{first, second} {
		if text, code := w.answer(general, ts, ts); code != "0" {
			t.Errorf("answer = %q (exit %s)", text, code)
		}
	}
}
