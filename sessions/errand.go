package sessions

import (
	"context"
	"fmt"

	"flaudebot/runner"
)

// errand has the runner of the thread's session do something of its own. Where no session is live, or where nothing was ever made for
// it, there is nothing to do it with.
func (w *work) errand(ctx context.Context) error {
	s, err := w.sv.current(ctx, w.turn.Thread)
	if err != nil {
		return w.withoutSession(ctx, err)
	}
	if s != nil && s.Rebuilt {
		if err := w.recall(ctx, s); err != nil {
			return err
		}
	}
	if s != nil {
		inSessionOf(ctx, s.SessionID)
	}
	if s == nil || s.Ended() || !s.onFly() {
		if s == nil {
			s = &Session{Thread: w.turn.Thread}
		}
		if w.stage == StagePosted {
			return nil
		}
		out := w.outcome(FailEnded)
		out.Number = s.Turns
		return w.finish(ctx, s, out)
	}
	if err := w.loadSettings(ctx); err != nil {
		return err
	}
	if err := w.run(ctx, s); err != nil {
		return err
	}
	return w.settle(ctx, s)
}

// looked takes what an errand saw of the repositories into the session. It is no turn: neither the count nor the time of the last one
// changes.
func (w *work) looked(s *Session, out Outcome) int {
	s.Did.addPulls(out.Pulls)
	if out.Repos != nil && s.Begun() {
		s.State, s.Unsure = out.Repos, false
	}
	return s.Turns
}

// errand is the request that hands an errand over: Claude's credential stays here.
func (a *attempt) errand() runner.TakeRequest {
	secrets := a.secrets() // the channel's have to be hidden in what it brings
	secrets.AnthropicAPIKey, secrets.ClaudeOAuthToken, secrets.AnthropicBaseURL = "", "", ""
	repos := a.s.Repos
	if repos == nil {
		repos = a.with.repos()
	}
	all := a.settings()
	needed := runner.Settings{
		TimeoutSeconds: all.TimeoutSeconds, LingerSeconds: all.LingerSeconds, GitName: all.GitName, GitEmail: all.GitEmail, Forges: all.Forges, Hosts: all.Hosts,
	}
	turn := runner.Turn{
		ID: a.turnID(), SessionID: a.s.SessionID, Repos: repos, Settings: needed,
		Errand: &a.r.Errand.Errand, Trailers: a.r.Errand.Trailers,
	}
	return runner.TakeRequest{Fence: a.r.Fence, Secrets: secrets, WaitMS: eventsWaitMS, Turn: turn, Needs: turn.Needs()}
}

// withPayload reads what an errand brought. That may take minutes: whoever stops the errand then does not want it any more.
func (a *attempt) withPayload(ctx context.Context, out *Outcome) (*Outcome, error) {
	for int64(len(out.Payload)) < out.PayloadBytes {
		if a.stopped() {
			return a.failed(runner.FailStopped, nil), nil
		}
		reply, err := call[runner.ResultReply](ctx, a, "result", runner.ResultRequest{
			Turn: a.turnID(), Offset: int64(len(out.Payload)), Payload: true,
		})
		if err != nil {
			return nil, err
		}
		if reply.Status != runner.StatusDone || len(reply.Data) == 0 {
			return nil, fmt.Errorf("read the payload: %w: it answers %s, and %d of %d bytes came", errRunner, reply.Status, len(out.Payload), out.PayloadBytes)
		}
		out.Payload = append(out.Payload, reply.Data...)
	}
	return out, nil
}
