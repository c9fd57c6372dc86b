package bot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"flaudebot/sessions"
)

// FuzzPayloads: whatever comes over Slack's socket as an event, a click or a command, nothing breaks, and what becomes a turn says who asked, and where.
func FuzzPayloads(f *testing.F) {
	event := func(fields string) string {
		return `{"team_id":"T0LOCAL","event_id":"Ev1","event":{"type":"app_mention","user":"U0MEMBER","channel":"C0GENERAL","ts":"1700000000.000100"` + fields + `}}`
	}
	click := func(action string) string {
		return `{"type":"block_actions","team":{"id":"T0LOCAL"},"user":{"id":"U0MEMBER"},"channel":{"id":"C0GENERAL"},"container":{"message_ts":"1700000000.000200","thread_ts":"1700000000.000100"},"actions":[` + action + `]}`
	}
	for _, seed := range []string{
		event(`,"text":"<@U0FLAUDE> count the lines"`), event(`,"text":"<@U0FLAUDE>","files":[{"id":"F1","name":"../../etc/passwd","size":-1,"url_private_download":"x"}]`),
		event(`,"text":7`), event(`,"text":"<@U0FLAUDE> !stop","thread_ts":"1600000000.000100"`), event(`,"subtype":"message_changed","message":{"ts":"1","text":"<@U0FLAUDE> x"},"previous_message":null`),
		event(`,"text":"<@U0FLAUDE> repo:../x model:opus hi","blocks":[{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[{"type":"user","user_id":"U0FLAUDE"}]}]}]`),
		event(`,"text":"<@U0FLAUDE> see <https://local.slack.com/archives/C0GENERAL/p1700000000000100?thread_ts=1700000000.000100&amp;cid=C0GENERAL>"`),
		event(`,"attachments":[{"is_msg_unfurl":true,"text":"<!channel>","message_blocks":[{"message":{"blocks":[]}}]}],"text":"<@U0FLAUDE> this"`),
		`{"event":{"type":"reaction_added","item":{"type":"message","channel":"C0GENERAL","ts":"1"},"reaction":"x","user":"U0MEMBER"}}`, `{"event":{"type":"a_type_of_tomorrow"}}`, `{}`, `[]`, `nonsense`,
	} {
		f.Add(0, seed)
	}
	for _, action := range []string{
		`{"action_id":"stop","value":"T0LOCAL:C0GENERAL:1700000000.000100"}`, `{"action_id":"retry","value":"x"}`, `{"action_id":"end","value":"T0LOCAL:C1:1|sure"}`, `{"action_id":"details","value":"{}"}`,
		`{"action_id":"changes_get","block_id":"|","selected_option":{"value":"-1","text":{"text":"x"}}}`, `{"action_id":"pull_open","value":"{}"}`, `{"action_id":7}`, ``,
	} {
		f.Add(1, click(action))
	}
	f.Add(1, `{"type":"view_submission","user":{"id":"U0ADMIN"},"view":{"callback_id":"config_general","private_metadata":"{\"channel\":\"C0GENERAL\"}","state":{"values":{"a":{"b":{"value":null}}}}}}`)
	f.Add(1, `{"type":"message_action","callback_id":"manage_session","message":{"ts":"1"},"channel":{"id":"C0GENERAL"}}`)
	for _, text := range []string{"list mine public", "run repo:x model:opus do it", "end https://local.slack.com/archives/C0GENERAL/p1700000000000100", "config", "costs 2026-13", "frobnicate <!here>", ""} {
		f.Add(2, `{"command":"/flaude","team_id":"T0LOCAL","channel_id":"C0GENERAL","user_id":"U0MEMBER","trigger_id":"1","text":"`+text+`"}`)
	}
	w := newWorkspace(f, nil)
	n := 0
	f.Fuzz(func(t *testing.T, kind int, payload string) {
		ctx := t.Context()
		n++ // what was heard once is not heard again
		payload = strings.ReplaceAll(payload, "1700000000.000100", fmt.Sprintf("17%08d.000100", n))
		switch kind {
		case 0:
			if outer, err := readEvent(envelope{Payload: json.RawMessage(payload)}); err == nil {
				_ = w.bot.take(ctx, outer)
			}
		case 1:
			w.bot.interaction(ctx, json.RawMessage(payload), func(any) {})
		case 2:
			var typed slashCommand
			_ = json.Unmarshal([]byte(payload), &typed)
			_ = w.bot.command(ctx, typed)
		}
		w.sessions.set(func(f *fakeSessions) {
			for _, turn := range f.accepted {
				if turn.User == "" || turn.Thread.Channel == "" || turn.Thread.TS == "" || nameOf(turn.ID) == "" {
					t.Errorf("a turn of nobody, or of nowhere: %+v", turn)
				}
				for _, file := range turn.Files {
					if file.Size < 0 {
						t.Errorf("an attachment of %d bytes", file.Size)
					}
				}
			}
			f.accepted, f.seen = nil, map[sessions.TurnID]bool{}
		})
	})
}

// FuzzWords: what a message or a command says is taken apart without a loss: what is no option of ours stays in the prompt, and a link leads to one thread or none.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{
		"model:opus do it", "do it effort:max", "volume:99999999999999999999GB", "!stop", "`!end`.", "repo:acme/site#main=dir fix it", "stop the server",
		"https://local.slack.com/archives/C0GENERAL/p1700000000000100?thread_ts=1700000000.000100&amp;cid=C0GENERAL", "https://app.slack.com/client/T1/C1/thread/C1-1700000000.000100", "\u202e!stop", "--public",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if thread, ok := parseLink("T1", text); ok {
			if again, ok := sessions.ParseThread(thread.Key()); !ok || again != thread {
				t.Errorf("%q leads to %+v, which is no thread", text, thread)
			}
		}
		rest, _, err := overridesIn(text)
		if err == nil && len(strings.Fields(rest)) > len(strings.Fields(text)) {
			t.Errorf("%q became %q", text, rest)
		}
		if word := controlWord(incoming{words: text}); word != "" && len(strings.Fields(strings.Trim(text, aroundWord+"!?"))) != 1 {
			t.Errorf("%q is taken for the word %q", text, word)
		}
		if said, public := aloud(text); public && !strings.HasPrefix(text, said) && !strings.Contains(text, said) {
			t.Errorf("%q became %q", text, said)
		}
		if name := safeName(text, map[string]bool{}); strings.ContainsAny(name, "/\\\x00\n") || name == ".." || name == "." || name == "" {
			t.Errorf("the file %q becomes %q", text, name)
		}
	})
}
