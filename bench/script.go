package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"flaudebot/runner"
)

// script is what the turns of a fleet do.
type script struct {
	every   time.Duration   // between two of a turn's events, on average
	finish  <-chan struct{} // closed when all turns are to end
	running *atomic.Int64   // turns that run
}

// eventText is what an event says: which it is, and of which turn.
const eventText = "Event %d of turn %s"

// eventsBatch is how long the real runner waits for more once there is news.
const eventsBatch = 800 * time.Millisecond

// scripted answers a runner's verbs as the real one does, for one turn at a time.
type scripted struct {
	script script

	mu     sync.Mutex
	bootID string        // guarded by mu
	fence  int64         // guarded by mu
	turn   *scriptedTurn // guarded by mu; the newest
}

type scriptedTurn struct {
	id     string
	linger time.Duration

	mu      sync.Mutex
	events  []runner.Event  // guarded by mu
	changed chan struct{}   // guarded by mu; closed and replaced at each event
	outcome *runner.Outcome // guarded by mu; nil: it runs
	over    chan struct{}   // closed when it has an outcome
	stop    chan struct{}   // closed when it is stopped
	stopped sync.Once
}

func newScripted(s script) *scripted { return &scripted{script: s} }

func (s *scripted) boot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bootID = newID(16)
}

var errVerb = errors.New("no such verb")

// answer answers a verb; leaves: the runner ends with it.
func (s *scripted) answer(ctx context.Context, verb string, body []byte) (reply any, leaves bool, err error) {
	switch verb {
	case "hello":
		return s.hello(), false, nil
	case "put":
		reply, err = ask(body, func(r runner.PutRequest) any {
			return runner.PutReply{Status: runner.StatusOK, Size: r.Offset + int64(len(r.Data))}
		})
	case "take":
		reply, err = ask(body, func(r runner.TakeRequest) any {
			out := s.take(r)
			if r.WaitMS > 0 && (out.Status == runner.StatusAccepted || out.Status == runner.StatusRunning) {
				out.News = new(s.events(ctx, runner.EventsRequest{Turn: r.Turn.ID, WaitMS: r.WaitMS}))
			}
			return out
		})
	case "events":
		reply, err = ask(body, func(r runner.EventsRequest) any { return s.events(ctx, r) })
	case "result":
		reply, err = ask(body, s.result)
	case "ack":
		reply, err = ask(body, func(r runner.AckRequest) any {
			var a runner.AckReply
			a, leaves = s.ack(r)
			return a
		})
	case "stop":
		reply, err = ask(body, s.stopTurn)
	case "sleep":
		leaves = s.current(nil).isOver()
		reply = runner.SleepReply{Status: map[bool]runner.Status{true: runner.StatusOK, false: runner.StatusBusy}[leaves]}
	default:
		err = fmt.Errorf("%w: %s", errVerb, verb)
	}
	return reply, leaves, err
}

// ask decodes the request of a verb.
func ask[R any](body []byte, do func(R) any) (any, error) {
	var r R
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("read a request: %w", err)
	}
	return do(r), nil
}

// current is the turn of that id, or the newest; nil: there is none.
func (s *scripted) current(id *string) *scriptedTurn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn != nil && id != nil && s.turn.id != *id {
		return nil
	}
	return s.turn
}

func (s *scripted) hello() runner.HelloReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := runner.HelloReply{Status: runner.StatusOK, BootID: s.bootID, Version: "bench", Fence: s.fence}
	if !s.turn.isOver() {
		out.Running = s.turn.id
	}
	return out
}

func (s *scripted) take(r runner.TakeRequest) runner.TakeReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Fence < s.fence:
		return runner.TakeReply{Status: runner.StatusFenced}
	case s.turn != nil && s.turn.id == r.Turn.ID:
		status, outcome := s.turn.status()
		return runner.TakeReply{Status: status, Outcome: outcome}
	case !s.turn.isOver():
		return runner.TakeReply{Status: runner.StatusBusy}
	}
	s.fence = r.Fence
	s.turn = &scriptedTurn{
		id: r.Turn.ID, linger: time.Duration(r.Turn.Settings.LingerSeconds) * time.Second,
		changed: make(chan struct{}), over: make(chan struct{}), stop: make(chan struct{}),
	}
	go s.turn.run(s.script)
	return runner.TakeReply{Status: runner.StatusAccepted}
}

// run is the turn: it begins, says something now and then, and ends when it is told.
func (t *scriptedTurn) run(s script) {
	s.running.Add(1)
	defer s.running.Add(-1)
	began := time.Now()
	t.add(runner.Event{Kind: runner.KindPhase, Phase: runner.PhaseStarting})
	t.add(runner.Event{Kind: runner.KindInit, Model: "claude-sonnet-5"})
	t.add(runner.Event{Kind: runner.KindPhase, Phase: runner.PhaseRunning})
	out := runner.Outcome{Turn: t.id, Lane: runner.LaneRunner, StartedAt: began, Resumed: true, Repos: []runner.RepoState{}, CostUSD: 0.01, Model: "claude-sonnet-5"}
	for out.EndedAt.IsZero() {
		select {
		case <-time.After(s.every/2 + rand.N(s.every)): //nolint:gosec // a pace
			t.add(runner.Event{Kind: runner.KindText})
		case <-s.finish:
			out.EndedAt, out.AnswerBytes = time.Now(), int64(len(answerText))
		case <-t.stop:
			out.EndedAt, out.ExitCode, out.Failure = time.Now(), 130, runner.FailStopped
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outcome = &out
	close(t.over)
}

const answerText = "All of it is done."

// add writes an event into the journal.
func (t *scriptedTurn) add(e runner.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.N, e.At = len(t.events)+1, time.Now()
	if e.Kind == runner.KindText {
		e.Text = fmt.Sprintf(eventText, e.N, t.id)
	}
	t.events = append(t.events, e)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *scriptedTurn) isOver() bool {
	if t == nil {
		return true
	}
	status, _ := t.status()
	return status == runner.StatusDone
}

func (t *scriptedTurn) status() (runner.Status, *runner.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.outcome == nil {
		return runner.StatusRunning, nil
	}
	return runner.StatusDone, t.outcome
}

// after are the events behind n, and what is closed at the next one.
func (t *scriptedTurn) after(n int) ([]runner.Event, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.events[min(max(n, 0), len(t.events)):], t.changed
}

// events answers when there is news, with what comes within a moment of it, as the real runner does.
func (s *scripted) events(ctx context.Context, r runner.EventsRequest) runner.EventsReply {
	t := s.current(&r.Turn)
	if t == nil {
		return runner.EventsReply{Status: runner.StatusUnknown}
	}
	timeout := time.NewTimer(time.Duration(r.WaitMS) * time.Millisecond)
	defer timeout.Stop()
	var enough <-chan time.Time
	for waits := true; waits; {
		events, changed := t.after(r.After)
		if len(events) > 0 && enough == nil {
			enough = time.After(eventsBatch)
		}
		select {
		case <-changed:
		case <-t.over:
			waits = false
		case <-enough:
			waits = false
		case <-timeout.C:
			waits = false
		case <-ctx.Done():
			waits = false
		}
	}
	events, _ := t.after(r.After)
	status, outcome := t.status()
	out := runner.EventsReply{Status: status, Events: events, Outcome: outcome}
	if outcome != nil && outcome.AnswerBytes > 0 {
		out.Text = answerText
	}
	return out
}

func (s *scripted) result(r runner.ResultRequest) any {
	t := s.current(&r.Turn)
	if t == nil {
		return runner.ResultReply{Status: runner.StatusUnknown}
	}
	status, outcome := t.status()
	out := runner.ResultReply{Status: status, Outcome: outcome}
	if outcome != nil && outcome.AnswerBytes > r.Offset {
		out.Text = answerText[r.Offset:]
	}
	return out
}

func (s *scripted) ack(r runner.AckRequest) (runner.AckReply, bool) {
	t := s.current(&r.Turn)
	if t == nil || !t.isOver() {
		return runner.AckReply{Status: runner.StatusUnknown}, false
	}
	return runner.AckReply{Status: runner.StatusOK}, t.linger == 0
}

func (s *scripted) stopTurn(r runner.StopRequest) any {
	t := s.current(&r.Turn)
	switch {
	case t == nil:
		return runner.StopReply{Status: runner.StatusUnknown}
	case t.isOver():
		return runner.StopReply{Status: runner.StatusDone}
	}
	t.stopped.Do(func() { close(t.stop) })
	return runner.StopReply{Status: runner.StatusOK}
}
