package bot

import (
	"cmp"
	"context"
	"strings"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// An errand is what a button has the runner do in a session's workspace, without Claude. It waits its turn in the thread's queue; the click is
// acked at once, and told what becomes of it: with a live message and an answer in the thread, or, where e.Private is set, to the one who
// clicked, in a modal that waits for it or in a message that only they see.

// errandID names an errand by the click that asked for it, an action's ts or a view's id: a click that is delivered twice asks once.
func errandID(thread sessions.Thread, click string) sessions.TurnID {
	return turnID(thread.Team, thread.Channel, "errand-"+click)
}

func isErrand(id sessions.TurnID) bool { return strings.HasPrefix(nameOf(id), "errand-") }

// submitErrand takes in what a click asks for, and returns what its presser is told: what it is begins with a verb, as in "Open a pull request".
func (b *Bot) submitErrand(ctx context.Context, thread sessions.Thread, user, click, what string, e sessions.Errand) answer {
	if click == "" {
		return plainly(sayOldButton)
	}
	id := errandID(thread, click)
	res, err := b.sessions.Accept(ctx, sessions.Turn{
		ID: id, Kind: sessions.KindErrand, Thread: thread, User: user, TS: nameOf(id), Text: what, At: time.Now().UTC(), Errand: &e,
	})
	switch {
	case err != nil:
		b.log.WarnContext(ctx, "errand not taken in", "turn", id, "err", err)
		return answer{text: sayTrouble, failed: true}
	case res.Status == sessions.AcceptFull:
		return answer{text: sayFull(res.Full), failed: true}
	case res.Status == sessions.AcceptDuplicate:
		return plainly(sayAskedAlready)
	case res.Ahead > 0:
		return plainly(sayErrandPlace(res.Ahead))
	}
	return plainly(sayErrandBegins)
}

// errandParts are the messages of an errand that is told in its thread. files: Slack takes them there.
func (b *Bot) errandParts(s sessions.Session, t sessions.Turn, o sessions.Outcome, isEnding, files bool) []part {
	a := b.errandAnswer(s, t, o, isEnding)
	p := part{text: a.text, whole: a.blocks}
	if errandFile(t, o) != "" {
		if p.file = string(o.Payload); !files {
			p = part{text: fetchedAnswer(t, o, false).text}
		}
	}
	return []part{p}
}

// errandAnswer says what became of an errand.
func (b *Bot) errandAnswer(s sessions.Session, t sessions.Turn, o sessions.Outcome, isEnding bool) answer {
	switch {
	case isEnding:
		return plainly(sayStoppedForGood)
	case t.Errand.Kind == runner.ErrandPublish:
		return publishAnswer(b.requestAt(s, []runner.RepoState{{Dir: t.Errand.Publish.Dir}}), t, o)
	case t.Errand.Kind == runner.ErrandRescue:
		return savedAnswer(s, t, o)
	case o.Failure != runner.FailNone:
		return plainly(sayErrandFailed(t, o))
	}
	switch t.Errand.Kind {
	case runner.ErrandPublish, runner.ErrandRescue: // see above
	case runner.ErrandState:
		s.State, s.Unsure = o.Repos, false
		if holdsWork(s) {
			return plainly(sayUnpushed(s))
		}
		return plainly(sayAllPushed)
	case runner.ErrandChanges:
		return filesAnswer(t, o.Changes)
	case runner.ErrandDiff:
		if t.Errand.Private {
			return diffAnswer(t, o)
		}
		return fetchedAnswer(t, o, true)
	case runner.ErrandGet:
		return fetchedAnswer(t, o, true)
	}
	return plainly(cmp.Or(escape(o.Answer), sayErrandDone))
}

// tellPrivately tells the one who clicked what became of an errand. It may be told twice after a crash: nobody can look.
func (b *Bot) tellPrivately(ctx context.Context, s sessions.Session, t sessions.Turn, o sessions.Outcome) error {
	a := b.errandAnswer(s, t, o, b.isEnding(ctx, t, o))
	if t.Errand.Of != "" {
		a.title = changesTitle
	}
	if t.Errand.View != "" {
		err := b.changeModal(ctx, t.Errand.View, modal(a), modal(a.simpler()))
		if err == nil {
			return nil
		}
		b.log.DebugContext(ctx, "modal not changed: it was closed", "turn", t.ID, "err", err)
	}
	err := b.insist(ctx, func() error { return b.postEphemeral(ctx, t.Thread.Channel, t.Thread.TS, t.User, a) })
	if err != nil && ctx.Err() != nil {
		return err // the next owner tells it
	}
	if err != nil {
		b.log.WarnContext(ctx, "nobody told what became of an errand", "turn", t.ID, "err", err)
	}
	return nil
}

// tellDropped tells those who asked for errands that the end of the session came before: a modal may wait for one. What becomes of messages
// is said in the thread.
func (b *Bot) tellDropped(ctx context.Context, s sessions.Session, e sessions.Ending) {
	for _, t := range e.Dropped {
		if t.Kind != sessions.KindErrand {
			continue
		}
		b.stubbornly(ctx, func(ctx context.Context) {
			_ = b.tellPrivately(ctx, s, t, sessions.Outcome{Outcome: runner.Outcome{Failure: sessions.FailEnded}}) // it says so itself
		})
	}
}

// isPrivate reports whether only one person is told of a turn.
func isPrivate(t sessions.Turn) bool { return t.Kind == sessions.KindErrand && t.Errand.Private }

// errandHead is the first line of an errand's live message.
func errandHead(t sessions.Turn, p sessions.Progress) string {
	if p.Step == sessions.StepRunning {
		return escape(t.Text)
	}
	return escape(t.Text) + ": " + lowerFirst(stepSentence(p))
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
