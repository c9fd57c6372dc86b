package sessions

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// Run is one attempt at a turn in a session, or the taking over of one.
type Run struct {
	Turn   TurnID
	Try    int           // how often it has reached Claude's usage limit before: to the runner each try is a turn of its own
	Adds   []runner.Repo // repositories that the session gets with the turn
	Prompt func(ctx context.Context, first bool) (Prompt, error)
	Errand *Errand    // instead of a prompt
	Larger Larger     // what it was asked to run on: then it runs on nothing smaller
	With   *Effective // what the turn runs with; nil: the defaults
	Fence  int64      // of the claim; the runner refuses an older one
	// Started says that an earlier owner saw the turn start: it is followed, never handed over again.
	Started bool
	// Offered says that an earlier owner may have handed the turn over: it may have done part of the work.
	Offered bool
	// Stop interrupts the turn when it is closed.
	Stop <-chan struct{}
	// Budget is what the turn may cost; nil: there is no bound. Spent is told what it has cost so far, and it is stopped when Broke is closed.
	Budget *runner.Budget
	Spent  func(context.Context, float64)
	Broke  <-chan struct{}
	// Stage is told before each outside effect; an error ends the attempt. Nil: nobody wants to know.
	Stage func(context.Context, Stage) error
	// Seen is told what Fly says of the machine when it is up, or at rest if the handover starts it. Nil: nobody wants to know.
	Seen func(*fly.Machine)
	// Progress is told what is going on. Nil: nobody wants to know.
	Progress func(Progress)
	Save     Save
	// Nonce is the machine lease of an earlier owner of the turn; KeepNonce is told ours.
	Nonce     string
	KeepNonce func(context.Context, string) error
	// Away says that the machine's host could not be reached when the turn was put off: it is looked at once.
	Away bool
	// NoWait has a host that cannot be reached be an outcome when patience ends. Else it is an error, and the turn is to be put off.
	NoWait bool
	// Record is called by [Machines.RunOnce]: with nil before anything is done, which an error keeps from being done, and with what the run came to.
	// Nil: it is not put on record.
	Record func(context.Context, *RunResult) error
}

var (
	// errLostMachine says that the machine is not running any more.
	errLostMachine = errors.New("the machine is not running")
	// errBusy says that the runner is at another turn.
	errBusy = errors.New("the runner is at another turn")
	// errPrompt says that the prompt could not be made: Slack is in the way.
	errPrompt = errors.New("read the message")
	// errNotUp says that the machine did not come up in time.
	errNotUp = errors.New("the machine did not come up")
)

// RunTurn wakes the session's machine, or makes it, runs one turn on it and returns its outcome. The machine is
// left running with the outcome unacknowledged: call [Machines.Settle] when the outcome is safe.
//
// What goes wrong with the turn is an outcome with a Failure. An error means that this process has to
// let go of the turn: ctx ended, or Stage or Save failed.
func (m *Machines) RunTurn(ctx context.Context, s *Session, r Run) (*Outcome, error) {
	ctx = aboutTurn(ctx, r.Turn)
	inSessionOf(ctx, s.SessionID)
	a := newAttempt(m, s, r)
	defer a.close()
	out, err := a.run(ctx)
	if err == nil {
		err = a.keepNonce(ctx)
	}
	if err == nil {
		out.Before = a.before
		if a.accepted && !a.before && !r.Started { // else an earlier owner knows
			out.Lane = cmp.Or(out.Lane, a.lane, runner.LaneRunner)
		}
		return out, nil
	}
	return a.without(ctx, err)
}

// without is what becomes of a turn that came to no outcome.
func (a *attempt) without(ctx context.Context, err error) (*Outcome, error) {
	var let letGo
	lost := isLost(ctx, err)
	if lost {
		a.free(ctx)
	}
	if lost || ctx.Err() != nil || errors.As(err, &let) {
		return nil, err
	}
	if errors.Is(err, errHostAway) && !a.r.NoWait { // for as long as it takes, and by whoever has the turn then
		return nil, err
	}
	f := a.failure(err)
	a.m.tellFailure(ctx, *a.s, a.r.Turn, f, err)
	return a.failed(f, err), nil
}

// tellFailure logs why a turn has no outcome of its own. What does not pass before whoever runs the bot has done something is an error.
func (m *Machines) tellFailure(ctx context.Context, s Session, turn TurnID, f Failure, err error) {
	level := slog.LevelWarn
	if f == FailQuota || f == FailPayment || f == FailFlyAccess || f == FailHost {
		level = slog.LevelError
	}
	attrs := []any{"failure", f, "session", s.SessionID, "turn", turn, "machine", s.MachineID, "region", s.Region, "err", err}
	var ofFly *fly.Error
	if errors.As(err, &ofFly) {
		attrs = append(attrs, "fly_op", ofFly.Op, "fly_status", ofFly.Status, "fly_request", ofFly.RequestID)
	}
	m.log.Log(ctx, level, "turn failed around its machine", attrs...)
}

// failure is what an error around the turn means for it. What no runner can have had has not started.
func (a *attempt) failure(err error) Failure {
	f := failureOf(err)
	if f == FailMachine && !a.mayRun() && !a.r.Offered {
		return FailNotUp
	}
	return f
}

// letGo marks an error after which the turn is somebody else's.
type letGo struct{ error }

func (l letGo) Unwrap() error { return l.error }

type attempt struct {
	m     *Machines
	s     *Session
	r     Run
	with  Effective
	began time.Time
	lease sync.WaitGroup // the goroutine that refreshes the machine lease
	drop  context.CancelFunc
	kept  string // the nonce that KeepNonce was told last

	mu    sync.Mutex
	prog  Progress // guarded by mu
	nonce string   // guarded by mu; of the machine lease: a lease that ran out comes back under another one

	found    *fly.Machine // as a wait has just found it; nil: it has to be looked at
	stuck    string       // the state that the machine was last seen to stay in
	replaced bool         // a machine that was stuck has been replaced
	resized  bool         // the machine's size was changed, or cannot be
	grown    bool         // the volume cannot be made larger
	lasting  string       // a note that stays until the turn runs
	hadSize  Guest        // the size that it had before that; zero: it is not to be had back

	lane     runner.Lane // what had to be done to the machine; "": it was running
	accepted bool        // the runner has the turn, or an earlier owner saw that it did
	asked    bool        // the runner may have the turn: it was offered and has not refused it
	unfound  bool        // Fly did not find what was to be started
	before   bool        // the runner had it before it was offered, or at least before the answer to that came
	sawExit  bool
	sawOOM   bool
	exit     int // of the machine, when it died
}

func newAttempt(m *Machines, s *Session, r Run) *attempt {
	now := time.Now()
	if r.Stage == nil {
		r.Stage = func(context.Context, Stage) error { return nil }
	}
	if r.Seen == nil {
		r.Seen = func(*fly.Machine) {}
	}
	if r.Save == nil {
		r.Save = func(context.Context, Session) error { return nil }
	}
	with := m.orDefaults(r.With)
	with.Guest = s.guestOf(with)
	return &attempt{m: m, s: s, r: r, with: with, began: now, prog: Progress{Step: StepClaimed, Since: now}, accepted: r.Started}
}

// close ends the lease's refresher; the lease itself is released by Settle or runs out.
func (a *attempt) close() {
	if a.drop != nil {
		a.drop()
		a.drop = nil
	}
	a.lease.Wait()
}

// free releases the machine's lease for whoever has the turn now: a Redis that has lost the claim has lost the lease's nonce as well.
// The lease of another owner is not touched by it.
func (a *attempt) free(ctx context.Context) {
	a.close()
	if nonce := a.holds(); nonce != "" {
		a.m.release(ctx, a.s.AppName, a.s.MachineID, nonce)
	}
}

// turnID is the turn's name to the runner.
func (a *attempt) turnID() string { return string(a.r.Turn.try(a.r.Try)) }

// mayRun reports whether the turn may be at work on the machine: then only the runner knows how it ends.
func (a *attempt) mayRun() bool { return a.accepted || a.asked }

// report tells the progress after change.
func (a *attempt) report(change func(*Progress)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.prog)
	a.tell()
}

// tell tells the progress. a.mu must be held.
func (a *attempt) tell() {
	if a.r.Progress != nil {
		a.r.Progress(a.prog)
	}
}

// wait is one wait for something outside: the line that says so is told once, and goes when the wait is over.
type wait struct {
	a      *attempt
	note   string // guarded by a.mu; what was told
	before string // guarded by a.mu; what stood there
	done   bool   // guarded by a.mu
}

func (w *wait) say(note string) {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	if w.done || w.a.prog.Note == note {
		return
	}
	if w.note == "" || w.a.prog.Note != w.note {
		w.before = w.a.prog.Note
	}
	w.note, w.a.prog.Note = note, note
	w.a.tell()
}

func (w *wait) over() {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	w.done = true
	if w.note != "" && w.a.prog.Note == w.note {
		w.a.prog.Note = w.before
		w.a.tell()
	}
}

func (a *attempt) step(s Step) { a.report(func(p *Progress) { p.Step, p.Note = s, a.lasting }) }

func (a *attempt) stage(ctx context.Context, s Stage) error {
	if err := a.r.Stage(ctx, s); err != nil {
		return letGo{fmt.Errorf("write stage %s: %w", s, err)}
	}
	return nil
}

func (a *attempt) save(ctx context.Context, s Session) error {
	if err := a.r.Save(ctx, s); err != nil {
		return letGo{fmt.Errorf("save session %s: %w", s.SessionID, err)}
	}
	return nil
}

// maxWakes bounds how often a turn's machine is woken again after it died in mid-turn, to ask its
// runner what became of the turn.
const maxWakes = 3

func (a *attempt) run(ctx context.Context) (*Outcome, error) {
	if !a.accepted {
		if a.r.Larger.sizes() && !a.r.Offered {
			if err := a.patiently(ctx, a.rest); err != nil {
				return a.unlessStopped(err)
			}
		}
		if err := a.stage(ctx, StageStarting); err != nil {
			return nil, err
		}
	}
	for wakes := 0; ; wakes++ {
		out, err := a.once(ctx)
		if !errors.Is(err, errLostMachine) || wakes == maxWakes {
			return out, err
		}
	}
}

// once wakes the machine and brings the turn to an outcome, or to errLostMachine.
func (a *attempt) once(ctx context.Context) (*Outcome, error) {
	err := a.lineUp(ctx)
	if err == nil {
		err = a.patiently(ctx, a.wake)
	}
	if err != nil {
		return a.unlessStopped(err)
	}
	if a.stopped() && !a.mayRun() {
		return a.failed(runner.FailStopped, nil), nil
	}
	var status runner.Status
	var news *runner.EventsReply
	if a.accepted {
		reply, err := call[runner.ResultReply](ctx, a, "result", runner.ResultRequest{Turn: a.turnID()})
		if err != nil {
			return nil, err
		}
		status = reply.Status
	} else {
		reply, err := a.hand(ctx)
		if err != nil {
			return a.unlessStopped(err)
		}
		status, news = reply.Status, reply.News
		a.before = a.before || status == runner.StatusRunning || status == runner.StatusDone || status == runner.StatusInterrupted
		if status == runner.StatusInvalid {
			return nil, refusedBy(reply.Failure, reply.Reason)
		}
	}
	switch status {
	case runner.StatusAccepted, runner.StatusRunning:
		if err := a.started(ctx); err != nil {
			return nil, err
		}
		return a.follow(ctx, news)
	case runner.StatusDone:
		if err := a.started(ctx); err != nil {
			return nil, err
		}
		return a.result(ctx)
	case runner.StatusInterrupted:
		return a.interrupted(ctx), nil
	case runner.StatusFenced:
		return nil, letGo{errors.New("the runner has seen a newer owner of this turn")}
	case runner.StatusUnknown:
		return a.failed(FailForgotten, errors.New("the runner has no record of a turn that had started")), nil
	default: // exiting: it will be gone in a moment
		return nil, a.awaitExit(ctx)
	}
}

// unlessStopped is the outcome of a turn that did not start: that it was stopped, if it was, or else err.
func (a *attempt) unlessStopped(err error) (*Outcome, error) {
	var let letGo
	if a.stopped() && !a.mayRun() && !errors.As(err, &let) {
		return a.failed(runner.FailStopped, nil), nil
	}
	return nil, err
}

func (a *attempt) started(ctx context.Context) error {
	if a.accepted && a.r.Started {
		return nil
	}
	a.accepted, a.lasting = true, ""
	return a.stage(ctx, StageStarted)
}

func (a *attempt) stopped() bool { return isClosed(a.r.Stop) }

// exitTimeout bounds how long a runner that says that it goes may take for it.
const exitTimeout = time.Minute

// awaitExit waits until the machine of a runner that goes has stopped, and sees to it in the end.
func (a *attempt) awaitExit(ctx context.Context) error {
	a.asked = false
	wait, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	_, err := a.m.cfg.Fly.WaitMachine(wait, a.s.AppName, a.s.MachineID, fly.WaitMachine{States: []string{"stopped", "destroyed"}})
	if err != nil && ctx.Err() == nil {
		err = a.m.cfg.Fly.StopMachine(ctx, a.s.AppName, a.s.MachineID, fly.StopMachine{}, a.holds())
	}
	if err != nil && !errors.Is(err, fly.ErrNotFound) {
		return fmt.Errorf("wait until machine %s has stopped: %w", a.s.MachineID, err)
	}
	return errLostMachine
}

// quieten stops the turn that keeps the runner busy: this one has the claim, so nobody follows the other.
func (a *attempt) quieten(ctx context.Context) error {
	hello, err := call[runner.HelloReply](ctx, a, "hello", runner.HelloRequest{})
	if err != nil || hello.Running == "" {
		return err
	}
	_, err = call[runner.StopReply](ctx, a, "stop", runner.StopRequest{Turn: hello.Running, Fence: a.r.Fence})
	return err
}

// hand puts what the turn needs and takes it.
func (a *attempt) hand(ctx context.Context) (runner.TakeReply, error) {
	if a.r.Errand != nil {
		return a.take(ctx, a.errand())
	}
	prompt, err := a.prompt(ctx)
	if err != nil {
		return runner.TakeReply{}, err
	}
	named := !a.s.Begun() && (prompt.Repos != nil || len(prompt.Adds) > 0)
	if named {
		repos := prompt.Repos
		if repos == nil {
			repos = a.with.repos()
		}
		a.s.Repos, _ = withRepos(repos, prompt.Adds)
	}
	if inUse := a.with.inUse(a.settings()); !a.s.Handed || named || !reflect.DeepEqual(a.s.InUse, inUse) {
		a.s.Handed, a.s.InUse = true, inUse
		if err := a.save(ctx, *a.s); err != nil {
			return runner.TakeReply{}, err
		}
	}
	if a.s.Repos == nil {
		a.s.Repos = a.with.repos() // saved with the turn's end, if it came as far as Claude Code
	}
	if all, added := withRepos(a.s.Repos, a.r.Adds); added {
		a.s.Repos = all
		if err := a.save(ctx, *a.s); err != nil {
			return runner.TakeReply{}, err
		}
	}
	turn := runner.Turn{
		ID: a.turnID(), SessionID: a.s.SessionID, Prompt: prompt.Text,
		Repos: a.s.Repos, Settings: a.settings(), Trailers: prompt.Trailers, Budget: a.r.Budget,
	}
	if turn.Files, err = a.putFiles(ctx, prompt.Files); err != nil {
		return runner.TakeReply{}, err
	}
	request := runner.TakeRequest{Fence: a.r.Fence, Turn: turn, Secrets: a.secrets(), WaitMS: eventsWaitMS, Needs: turn.Needs()}
	if !fits(request) {
		if _, err := a.put(ctx, "prompt", stringReader(prompt.Text)); err != nil {
			return runner.TakeReply{}, err
		}
		turn.Prompt, turn.PromptPut, turn.PromptBytes = "", true, int64(len(prompt.Text))
		request.Turn = turn
	}
	return a.take(ctx, request)
}

// settings are those of the bot with the channel's in them. The channel trusts and sets up its own repositories: others, which a message has named, or
// which are not among the channel's any more, are neither obeyed nor set up.
func (a *attempt) settings() runner.Settings {
	s := a.with.forRunner(a.m.cfg.Settings)
	if !a.with.owns(a.s.Repos) {
		s.Trust, s.SetUp = false, ""
	}
	return s
}

// secrets are those of the bot, and the channel's.
func (a *attempt) secrets() runner.Secrets {
	s := a.m.cfg.Secrets
	s.Env = a.with.secrets
	return s
}

// prompt has the front make what Claude is given, again and again while Slack is in the way.
func (a *attempt) prompt(ctx context.Context) (Prompt, error) {
	var prompt Prompt
	err := a.patiently(ctx, func(ctx context.Context) (err error) {
		if prompt, err = a.r.Prompt(ctx, !a.s.Begun()); err != nil {
			return fmt.Errorf("%w: %w", errPrompt, err)
		}
		return nil
	})
	return prompt, err
}

// take offers the turn, again and again while the runner is at another one.
func (a *attempt) take(ctx context.Context, request runner.TakeRequest) (runner.TakeReply, error) {
	if a.m.starts() {
		w := &wait{a: a}
		defer w.over()
		defer a.sayIfSlow(w, "starting").Stop()
	}
	var reply runner.TakeReply
	err := a.patiently(ctx, func(ctx context.Context) (err error) {
		a.asked = true
		if reply, err = call[runner.TakeReply](ctx, a, "take", request); err != nil || reply.Status != runner.StatusBusy {
			return err
		}
		a.asked = false
		return errors.Join(errBusy, a.quieten(ctx))
	})
	return reply, err
}

// follow tells the turn's progress until it has an outcome. first is what came with the reply to the take, or nil.
func (a *attempt) follow(ctx context.Context, first *runner.EventsReply) (*Outcome, error) {
	var stopper sync.WaitGroup
	defer stopper.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	target := a.target()
	stopper.Go(func() { a.stopWhenAsked(ctx, target) })
	after := 0
	for {
		reply, err := a.news(ctx, first, after)
		if err != nil {
			return nil, err
		}
		first = nil
		for _, e := range reply.Events {
			after = e.N
			if e.Kind != runner.KindSpent {
				a.report(func(p *Progress) { p.apply(e) })
			} else if a.r.Spent != nil {
				a.r.Spent(ctx, e.USD)
			}
		}
		switch reply.Status {
		case runner.StatusRunning:
		case runner.StatusDone:
			if reply.Outcome != nil {
				return a.withPayload(ctx, &Outcome{Outcome: *reply.Outcome, Answer: reply.Text})
			}
			if len(reply.Events) == 0 {
				return a.result(ctx)
			}
		case runner.StatusInterrupted:
			return a.interrupted(ctx), nil
		default:
			return a.failed(FailForgotten, fmt.Errorf("the runner answers %s to a turn that it had accepted", reply.Status)), nil
		}
	}
}

// news are the events after the n-th, the first of which may be there already.
func (a *attempt) news(ctx context.Context, first *runner.EventsReply, n int) (runner.EventsReply, error) {
	if first != nil {
		return *first, nil
	}
	return call[runner.EventsReply](ctx, a, "events", runner.EventsRequest{Turn: a.turnID(), After: n, WaitMS: eventsWaitMS})
}

// eventsWaitMS is how long the runner may hold a request for events that are still to come.
const eventsWaitMS = 10_000

// stopWhenAsked passes a stop on to the runner, until it has heard it.
func (a *attempt) stopWhenAsked(ctx context.Context, at Target) {
	var why Failure
	select {
	case <-ctx.Done():
		return
	case <-a.r.Stop:
	case <-a.r.Broke:
		why = runner.FailBudget
	}
	a.step(StepStopping)
	for {
		var reply runner.StopReply
		err := a.m.cfg.Handover.Call(ctx, at, "stop", runner.StopRequest{Turn: a.turnID(), Fence: a.r.Fence, Why: why}, &reply)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.m.log.WarnContext(ctx, "stop did not reach the runner", "turn", a.r.Turn, "machine", at.Machine, "err", err)
		if pauseFor(ctx, time.Second, nil, true) != nil {
			return
		}
	}
}

func (a *attempt) target() Target {
	return Target{App: a.s.AppName, Machine: a.s.MachineID, Nonce: a.holds()}
}

// result reads the outcome and the whole answer.
func (a *attempt) result(ctx context.Context) (*Outcome, error) {
	out := &Outcome{}
	var answer []byte
	for {
		reply, err := call[runner.ResultReply](ctx, a, "result", runner.ResultRequest{Turn: a.turnID(), Offset: int64(len(answer))})
		if err != nil {
			return nil, err
		}
		if reply.Status == runner.StatusInterrupted {
			return a.interrupted(ctx), nil
		}
		if reply.Status != runner.StatusDone || reply.Outcome == nil {
			return nil, fmt.Errorf("read the result: %w: it answers %s", errRunner, reply.Status)
		}
		out.Outcome = *reply.Outcome
		answer = append(answer, reply.Text...)
		if int64(len(answer)) >= out.AnswerBytes {
			break
		}
		if reply.Text == "" {
			return nil, fmt.Errorf("read the result: %w: the answer ends at byte %d of %d", errRunner, len(answer), out.AnswerBytes)
		}
	}
	out.Answer = string(answer)
	return a.withPayload(ctx, out)
}

// interrupted is the outcome of a turn whose machine died under it. The exit event tells more, also of a
// death that an earlier owner of the turn would have seen.
func (a *attempt) interrupted(ctx context.Context) *Outcome {
	if !a.sawExit {
		if mach, err := a.m.cfg.Fly.Machine(ctx, a.s.AppName, a.s.MachineID); err == nil {
			a.noteExit(mach)
		}
	}
	spent := a.spentBefore(ctx)
	if a.sawOOM {
		out := a.failed(FailMemory, nil)
		out.ExitCode, out.SpentUSD = 137, spent
		return out
	}
	out := a.failed(FailMachine, nil)
	out.SpentUSD = spent
	if a.exit > 0 {
		out.ExitCode = a.exit
	}
	return out
}

// spentBefore is what a turn had cost that came to no outcome, as far as its journal tells.
func (a *attempt) spentBefore(ctx context.Context) (usd float64) {
	if a.r.Budget == nil { // then it was not noted
		return 0
	}
	for after := 0; ; {
		reply, err := call[runner.EventsReply](ctx, a, "events", runner.EventsRequest{Turn: a.turnID(), After: after})
		if err != nil || len(reply.Events) == 0 {
			return usd
		}
		for _, e := range reply.Events {
			after = max(after, e.N)
			usd = max(usd, e.USD)
		}
	}
}

// failed is the outcome of a turn that did not come to one by itself.
func (a *attempt) failed(f Failure, err error) *Outcome {
	out := &Outcome{Outcome: runner.Outcome{
		Turn: a.turnID(), ExitCode: 1, Failure: f, StartedAt: a.began.UTC(), EndedAt: time.Now().UTC(),
	}}
	if f == runner.FailStopped {
		out.ExitCode = 130
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// call asks the runner, again and again where the answer was lost, until it answers or the machine
// turns out not to run any more (errLostMachine).
func call[Reply any](ctx context.Context, a *attempt, verb string, request any) (Reply, error) {
	var reply Reply
	err := a.patiently(ctx, func(ctx context.Context) error {
		reply = *new(Reply)
		if err := a.keepNonce(ctx); err != nil {
			return err
		}
		at := a.target()
		err := a.m.cfg.Handover.Call(ctx, at, verb, request, &reply)
		if errors.Is(err, fly.ErrLeaseHeld) && a.heldAnew(ctx, at.Nonce) {
			err = a.m.cfg.Handover.Call(ctx, a.target(), verb, request, &reply)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if a.m.starts() {
			if why := a.notStarted(ctx, err); why != nil {
				return why
			}
		}
		if gone := a.lookForDeath(ctx); gone != nil {
			return gone
		}
		return err
	})
	return reply, err
}

// lookForDeath returns errLostMachine if the machine is not running, and remembers how it died.
func (a *attempt) lookForDeath(ctx context.Context) error {
	mach, err := a.m.cfg.Fly.Machine(ctx, a.s.AppName, a.s.MachineID)
	if errors.Is(err, fly.ErrNotFound) {
		return errLostMachine
	}
	if err != nil {
		return nil //nolint:nilerr // Fly does not say that it is dead
	}
	if err := hostAway(mach); err != nil || slices.Contains([]string{"started", "starting", "created", "replacing", "updating"}, mach.State) {
		return err
	}
	a.noteExit(mach)
	return errLostMachine
}

// noteExit remembers how the machine ended last.
func (a *attempt) noteExit(mach *fly.Machine) {
	if exit, ok := mach.LastExit(); ok {
		a.sawExit, a.sawOOM, a.exit = true, exit.OOMKilled, exit.ExitCode
	}
}

// errHostAway says that the machine's host cannot be reached: Fly knows nothing of the machine but that it was there.
var errHostAway = errors.New("the machine's host cannot be reached")

func hostAway(mach *fly.Machine) error {
	if mach.HostStatus == fly.HostUnreachable {
		return fmt.Errorf("look at machine %s: %w", mach.ID, errHostAway)
	}
	return nil
}

// volumeAway is hostAway of a volume.
func volumeAway(vol *fly.Volume) error {
	if vol.HostStatus == fly.HostUnreachable {
		return fmt.Errorf("look at volume %s: %w", vol.ID, errHostAway)
	}
	return nil
}

// patiently repeats do while what is in its way may pass, telling the thread what is waited for.
func (a *attempt) patiently(ctx context.Context, do func(context.Context) error) error {
	patience := a.m.cfg.Patience
	if a.accepted {
		patience *= 30
	}
	deadline := time.Now().Add(patience)
	pause := 500 * time.Millisecond
	w := &wait{a: a}
	over := w.over
	defer func() { over() }()
	for {
		err := do(ctx)
		if err == nil || ctx.Err() != nil || !worthWaiting(err) {
			return err
		}
		var let letGo
		if errors.As(err, &let) || (a.stopped() && !a.mayRun()) {
			return err
		}
		away := errors.Is(err, errHostAway)
		if away && a.r.Away || time.Now().After(deadline) {
			if away && !a.r.NoWait { // the turn is put off, and the thread goes on to say why
				w.say(waitingFor(err))
				over = func() {}
			}
			return err
		}
		w.say(waitingFor(err))
		if err := pauseFor(ctx, pause, a.r.Stop, a.mayRun()); err != nil {
			return err
		}
		pause = min(pause*2, 15*time.Second)
	}
}

// pauseFor waits; a stop ends the wait early unless the turn runs on the machine anyway.
func pauseFor(ctx context.Context, d time.Duration, stop <-chan struct{}, accepted bool) error {
	if accepted {
		stop = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-stop:
		return nil
	case <-t.C:
		return nil
	}
}

func worthWaiting(err error) bool {
	if errors.Is(err, errPrompt) {
		return !errors.Is(err, ErrMessageGone)
	}
	return isPassing(err) || errors.Is(err, fly.ErrCapacity) || errors.Is(err, errRunner) || errors.Is(err, errBusy) ||
		errors.Is(err, fly.ErrPrecondition) || errors.Is(err, errHostAway)
}

func waitingFor(err error) string {
	switch {
	case errors.Is(err, errPrompt):
		return "Slack does not answer just now"
	case errors.Is(err, fly.ErrCapacity):
		return "Fly has no room just now"
	case errors.Is(err, errHostAway):
		return "the machine's host at Fly does not answer just now"
	case errors.Is(err, fly.ErrLeaseHeld):
		return "another tool holds the machine"
	case errors.Is(err, errBusy):
		return "an earlier turn is still ending"
	case errors.Is(err, errRunner):
		return "the machine does not answer yet"
	case errors.Is(err, fly.ErrRateLimited):
		return "Fly asks to go slower"
	case errors.Is(err, fly.ErrPrecondition):
		return "Fly is still changing the machine"
	default:
		return "Fly does not answer just now"
	}
}

// refused is a runner's no to a turn, or to what was put for it.
type refused struct {
	failure Failure
	reason  string
}

func (r refused) Error() string { return r.reason }

// refusedBy is the error of a refusal. A runner of an older image does not say what fails: only its reason tells.
func refusedBy(f Failure, reason string) error {
	if f == runner.FailNone {
		f = runner.FailHandover
	}
	return refused{f, reason}
}

// failureOf tells what an error around the turn means for it.
func failureOf(err error) Failure {
	var no refused
	switch {
	case errors.As(err, &no):
		return no.failure
	case errors.Is(err, ErrMessageGone):
		return FailGone
	case errors.Is(err, errPrompt):
		return FailSlack
	case errors.Is(err, errAttachment):
		return runner.FailFile
	case errors.Is(err, errLostMachine), errors.Is(err, errRunner), errors.Is(err, errBusy), errors.Is(err, errNotUp):
		return FailMachine
	case errors.Is(err, fly.ErrCapacity):
		return FailCapacity
	case errors.Is(err, fly.ErrPayment):
		return FailPayment
	case errors.Is(err, fly.ErrQuota):
		return FailQuota
	case errors.Is(err, errHostAway):
		return FailHost
	case errors.Is(err, fly.ErrUnauthorized), errors.Is(err, fly.ErrForbidden):
		return FailFlyAccess
	case errors.Is(err, errSessionLost):
		return FailLost
	default:
		return FailFly
	}
}

// apply takes an event of the runner into the progress.
func (p *Progress) apply(e runner.Event) {
	p.Events, p.Note = e.N, ""
	switch e.Kind {
	case runner.KindPhase:
		switch e.Phase {
		case runner.PhaseCloning:
			p.Step = StepCloning
		case runner.PhaseSetUp:
			p.Step = StepSetUp
		case runner.PhaseStopping:
			p.Step = StepStopping
		case runner.PhaseStarting, runner.PhaseRunning:
			p.Step = StepRunning
		}
	case runner.KindInit:
		p.Model = e.Model
	case runner.KindText:
		p.Said, p.Tool, p.On = e.Text, "", "" // the tool has done what it was used for
	case runner.KindTool:
		p.Tool, p.On = e.Tool, e.Text
	case runner.KindTodo:
		p.Todos = e.Todos
	case runner.KindRetry, runner.KindNote:
		p.Note = e.Text
	case runner.KindSpent: // nothing of it is shown
	}
}

// errAttachment says that an attachment could not be brought into the machine.
var errAttachment = errors.New("attachment")

// chunk is how much of a file goes into one put: with base64 and its frame it stays below runner.MaxBody.
const chunk = 32 << 10

// fits reports whether a take is short enough to travel in one piece, as the string within JSON that an exec makes of its JSON.
func fits(request runner.TakeRequest) bool {
	inner, err := json.Marshal(request)
	if err != nil {
		return true // the call will tell
	}
	outer, err := json.Marshal(string(inner))
	return err != nil || len(outer) <= runner.MaxBody
}

func (a *attempt) putFiles(ctx context.Context, files []PromptFile) ([]runner.File, error) {
	var out []runner.File
	for _, f := range files {
		body, err := f.Open(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", errAttachment, f.Name, err)
		}
		put, err := a.put(ctx, "file/"+f.Name, &told{Reader: body, attempt: a, file: f})
		if closeErr := body.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", errAttachment, f.Name, err)
		}
		out = append(out, runner.File{Name: f.Name, Size: put.size, SHA256: put.sum})
	}
	return out, nil
}

// told reads an attachment and tells how far it has come: one of a few megabytes takes minutes.
type told struct {
	io.Reader

	attempt *attempt
	file    PromptFile
	read    int64 // bytes
}

// slowFile is the size above which it is told, in bytes.
const slowFile = 10 * chunk

func (r *told) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.read += int64(n)
	if r.file.Size > slowFile {
		note := fmt.Sprintf("bringing %s into the workspace, %d %%", r.file.Name, min(100*r.read/r.file.Size, 100))
		r.attempt.report(func(p *Progress) { p.Note = note })
	}
	return n, err
}

type putFile struct {
	size int64
	sum  string
}

// put sends one file in chunks.
func (a *attempt) put(ctx context.Context, name string, body io.Reader) (putFile, error) {
	sum := newDigest()
	buf := make([]byte, chunk)
	for offset := int64(0); ; {
		n, err := io.ReadFull(body, buf)
		if n > 0 {
			sum.Write(buf[:n])
			reply, callErr := call[runner.PutReply](ctx, a, "put", runner.PutRequest{
				Turn: a.turnID(), Fence: a.r.Fence, Name: name, Offset: offset, Data: buf[:n],
			})
			switch {
			case callErr != nil:
				return putFile{}, callErr
			case reply.Status == runner.StatusFenced:
				return putFile{}, letGo{errors.New("the runner has seen a newer owner of this turn")}
			case reply.Status != runner.StatusOK:
				return putFile{}, refusedBy(reply.Failure, reply.Reason)
			}
			offset += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return putFile{size: offset, sum: sum.hex()}, nil
		}
		if err != nil {
			return putFile{}, err
		}
	}
}
