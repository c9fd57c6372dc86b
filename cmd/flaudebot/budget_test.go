package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"flaudebot/runner"
)

// TestRealClaudeBudget: what the gateway counts of the real Claude Code's requests is what that reports; with a budget the response that crosses it is
// the last, whether Claude Code asks for another or one of its commands does, and the conversation goes on with the next turn.
func TestRealClaudeBudget(t *testing.T) {
	t.Parallel()
	m := newRealMachine(t, realClaude(t))
	m.boot()
	for _, model := range []string{"haiku", "opus"} {
		m.settings.Model = model
		out, _ := m.say("run: echo counted")
		if out.ExitCode != 0 || out.CostUSD < 0.001 || math.Abs(out.SpentUSD-out.CostUSD) > 1e-9 {
			t.Errorf("%s: exit %d, Claude Code reports $%g and the gateway counted $%g", model, out.ExitCode, out.CostUSD, out.SpentUSD)
		}
	}
	m.settings = runner.Settings{Model: "haiku", LingerSeconds: 60}
	m.budget = &runner.Budget{USD: 0.001} // a response costs more
	out, answer := m.say("run: echo begun && touch /tmp/never")
	if out.Failure != runner.FailBudget || out.ExitCode != 130 || out.SpentUSD < 0.001 || out.SpentUSD > 0.003 {
		t.Errorf("above the budget: %+v %q, want it stopped after one response", out, answer)
	}
	m.budget = &runner.Budget{USD: 1}
	if out, answer := m.say("say: on we go"); out.ExitCode != 0 || !out.Resumed || !strings.Contains(answer, "on we go") {
		t.Errorf("the next turn: %+v %q", out, answer)
	}
	ask := `curl -sS -H "X-Api-Key: $ANTHROPIC_API_KEY" -d '{"model":"claude-haiku-4-5","max_tokens":9,"messages":[{"role":"user","content":"say: hi"}]}' $ANTHROPIC_BASE_URL/v1/messages | head -c 9`
	m.budget = nil
	plain, _ := m.say("run: echo nothing")
	if out, answer := m.say("run: " + ask); !strings.Contains(answer, "{") || out.SpentUSD < out.CostUSD+0.001 || out.CostUSD > plain.CostUSD+0.001 {
		t.Errorf("a command's own request: %+v %q; want it counted by the gateway beside Claude Code's $%g", out, answer, out.CostUSD)
	}
}

// TestBudget: a turn that crosses its channel's budget is stopped, a further one does not begin, and an admin has it go on.
func TestBudget(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	start(t, append(slices.Clone(w.env), "FLAUDEBOT_BUDGET_PER_CHANNEL=0.001"), "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"run: touch began")
	text, code := w.answer(general, root, root)
	if code != "130" || !strings.Contains(text, "The budget of this channel for this month is used up") || !strings.Contains(text, "so I stopped") || len(w.onVolumes(t, "began")) != 1 {
		t.Fatalf("answer = %q (exit %s), want it stopped after its first step", text, code)
	}
	next := w.say(admin, general, root, "say: hello")
	if text, _ := w.answer(general, root, next); !strings.Contains(text, "so nothing was run") {
		t.Errorf("the next turn = %q, want it not to begin", text)
	}
	last := w.thread(general, root)
	answer := last[len(last)-1]
	w.local(member, "click", map[string]any{"channel": general, "ts": answer.TS, "action_id": "allow"})
	w.whispered(t, member, general, root, "Only admins of this workspace can allow that, and those whom they name in the settings of this channel.")
	w.local(admin, "click", map[string]any{"channel": general, "ts": answer.TS, "action_id": "allow"})
	w.until("it goes on", func() bool {
		return slices.ContainsFunc(w.thread(general, root), func(m message) bool {
			return strings.Contains(fmt.Sprint(m.Raw), "exit 0") && strings.Contains(m.Text, "hello")
		})
	})
	if got := toJSON(t, w.local(member, "command", map[string]any{"channel": general, "command": "/flaude", "text": "costs"})); !strings.Contains(got, "of $5.00 spent for this channel this month") {
		t.Errorf("/flaude costs = %s, want the budget with what was allowed", got)
	}
}
