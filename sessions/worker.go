package sessions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"flaudebot/fly"
	"flaudebot/queue"
	"flaudebot/runner"
)

// Run claims turns and works on them, and ends sessions that are over, until ctx ends. Turns that are
// running then go on in their machines; another replica takes them over at once.
func (sv *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return sv.cfg.Queue.Run(ctx, sv.handle) })
	g.Go(func() error { return sv.reapLoop(ctx) })
	g.Go(func() error { sv.watch(ctx); return nil })
	return g.Wait()
}

// handle works on one claim. Most of its time it waits deep below, with as many others as there are turns: what is done before and after that
// stands in functions of its own, so that it needs little stack.
func (sv *Service) handle(ctx context.Context, c *queue.Claim) queue.Verdict {
	ctx, w := sv.workOn(ctx, c)
	if w == nil {
		return queue.Done()
	}
	return w.verdict(ctx, w.do(ctx))
}

// workOn takes up a claim, with a context for it; nil: its record cannot be read.
func (sv *Service) workOn(ctx context.Context, c *queue.Claim) (context.Context, *work) {
	t, err := turnOf(c.Job)
	if err != nil {
		sv.log.ErrorContext(ctx, "turn dropped: its record cannot be read", "turn", c.Job.ID, "err", err)
		return ctx, nil
	}
	ctx = aboutTurn(ctx, t.ID)
	w := &work{sv: sv, claim: c, turn: t, log: sv.log.With("turn", t.ID, "fence", c.Fence), broke: make(chan struct{})}
	if len(c.Att) > 0 {
		var err error
		if w.note.rest, err = readFields(c.Att, &w.note); err != nil {
			w.log.WarnContext(ctx, "notes of the earlier owner cannot be read", "err", err)
		}
	}
	over := w.tookOver()
	w.note.By = sv.cfg.Queue.Owner()
	w.watch.tell = func(s Step, d time.Duration) { sv.cfg.Observer.TurnSpent(w.turn, s, d) }
	w.log.InfoContext(ctx, "turn claimed", "kind", t.Kind, "stage", c.Stage, "attach", c.Attach, "takeover", over)
	sv.cfg.Observer.TurnClaimed(t, over)
	if !c.Attach && t.isWork() {
		sv.cfg.Observer.TurnSpent(t, StepQueued, max(time.Since(t.At), 0))
	}
	w.watch.enter(StepClaimed)
	return ctx, w
}

// verdict is what becomes of the claim after err.
func (w *work) verdict(ctx context.Context, err error) queue.Verdict {
	left := LeftPutOff
	defer func() {
		w.watch.enter("")
		w.sv.cfg.Observer.TurnLeft(w.turn, left)
	}()
	var limited *limitedError
	switch {
	case err == nil:
		left = LeftDone
		w.log.InfoContext(ctx, "turn finished")
		return queue.Done()
	case ctx.Err() != nil || errors.Is(err, queue.ErrLost):
		left = LeftHanded
		if isLost(ctx, err) {
			left = LeftLost
		}
		w.sv.cfg.Front.Quiet(w.turn)
		w.log.InfoContext(ctx, "turn let go", "err", err, "cause", context.Cause(ctx))
		return queue.Handoff()
	case errors.Is(err, errHostAway):
		w.log.WarnContext(ctx, "turn waits for its machine's host", "since", w.note.AwaySince, "err", err)
		return queue.Retry(w.sv.cfg.AwayEvery)
	case errors.As(err, &limited):
		w.log.InfoContext(ctx, "turn waits for Claude's usage limit", "until", limited.until, "try", w.note.Try)
		return queue.Retry(limited.pause(w.turn.At, time.Now()))
	case errors.Is(err, errEarlier):
		w.log.InfoContext(ctx, "turn lets those go first that were said before it")
		return queue.Yield()
	case w.hopeless(err):
		if err := w.giveUp(ctx, err); err != nil {
			return queue.Retry(retryAfter)
		}
		left = LeftDone
		return queue.Done()
	default:
		w.log.WarnContext(ctx, "turn put off", "err", err, "tries", w.claim.Tries)
		return queue.Retry(retryAfter)
	}
}

const (
	// retryAfter is the pause before a turn that was put off is tried again.
	retryAfter = 5 * time.Second
	// maxTries is how often a turn may be put off before it is given up: its thread waits behind it.
	maxTries = 120
	// awayLimit is for how long a turn waits for a host that cannot be reached.
	awayLimit = 3 * 24 * time.Hour
)

// hopeless reports whether a turn is not to be tried again after err.
func (w *work) hopeless(err error) bool {
	return w.claim.Tries-w.note.Aways-w.note.Limits >= maxTries || errors.Is(err, errUnreadable)
}

// giveUp ends a turn that cannot be brought to its end, and tells its thread unless that has its answer.
func (w *work) giveUp(ctx context.Context, cause error) error {
	w.log.ErrorContext(ctx, "turn given up", "err", cause, "tries", w.claim.Tries, "stage", w.stage)
	if w.stage == StagePosted || (w.turn.Kind == KindEnd && w.turn.Reason != EndByPerson) {
		return nil
	}
	s := &Session{Thread: w.turn.Thread}
	if stored, err := w.sv.store.Get(ctx, w.turn.Thread); err == nil && stored != nil {
		s = stored
		inSessionOf(ctx, s.SessionID)
	}
	out := w.outcome(FailStuck)
	if errors.Is(cause, errUnreadable) {
		out = w.outcome(FailRecord)
	}
	out.Number = s.Turns + 1
	if w.turn.Kind == KindOnce {
		out.Number = 1
		w.dropOnce(ctx)
	}
	return w.finish(ctx, s, out)
}

// dropOnce destroys the machine of a single run that is given up. It is best effort: what stays is found by its marks.
func (w *work) dropOnce(ctx context.Context) {
	m := w.sv.cfg.Machines
	s := m.ephemeral(w.turn.ID, Spec{Thread: w.turn.Thread, Owner: w.turn.User}, w.turn.At)
	id, err := m.find(ctx, s)
	if err == nil && id != "" {
		s.MachineID = id
		err = m.discard(ctx, s, w.note.Nonce, m.cfg.Patience)
	}
	if err != nil {
		w.log.WarnContext(ctx, "machine of a single run not removed, the reaper goes on", "machine", s.MachineID, "err", err)
	}
}

// work is one owner's work on one turn.
type work struct {
	sv    *Service
	claim *queue.Claim
	turn  Turn
	note  note
	stage Stage
	// unsure is set when the live message may stand in the thread, and it is not known where.
	unsure bool
	with   Effective // what the turn runs with
	// machine is what Fly said of the turn's machine when it was up, or at rest if the handover starts it; nil: it was not asked.
	machine *fly.Machine
	budget  *runner.Budget // what the turn may cost; nil: there is no bound
	broke   chan struct{}  // closed when it is to be stopped for that
	locked  error          // why the channel's settings cannot be used: no turn begins without them
	watch   stopwatch
	// recorded is set when the audit record has the turn's end.
	recorded bool
	log      *slog.Logger
}

// note is what an owner of a turn leaves to the next one, beside the stage.
type note struct {
	Live  string `json:"live,omitempty"`  // ts of the live message
	Nonce string `json:"nonce,omitempty"` // of the machine lease
	// Claimed is when the first owner took the turn.
	Claimed time.Time `json:"claimed,omitzero"`
	// By is the replica that wrote the notes.
	By string `json:"by,omitempty"`
	// AwaySince is when the machine's host was first seen not to be reached, and Aways how often the turn was put off for that.
	AwaySince time.Time `json:"away_since,omitzero"`
	Aways     int       `json:"aways,omitempty"`
	// Limits is how often the turn was put off for Claude's usage limit, and Try how often it has reached that itself. SpentUSD is what those
	// tries cost, and Begun is set when one of them did some of the work.
	Limits   int     `json:"limits,omitempty"`
	Try      int     `json:"try,omitempty"`
	SpentUSD float64 `json:"spent_usd,omitempty"`
	Begun    bool    `json:"begun,omitempty"`
	// Outcome is kept here when it has no answer: the runner may know nothing of it.
	Outcome *runner.Outcome `json:"outcome,omitempty"`

	rest Rest
}

// maxTakes is how often the lease of a turn that has not started may run out before it is given up as the cause. A replica that leaves
// hands its turns over: that does not count.
const maxTakes = 8

func (w *work) do(ctx context.Context) error {
	w.stage = Stage(w.claim.Stage)
	if w.stage == "" {
		w.stage = StageClaimed
	}
	if w.note.Claimed.IsZero() {
		w.note.Claimed = time.Now().UTC()
	}
	switch w.turn.Kind {
	case KindEnd:
		return w.end(ctx)
	case KindOnce:
		return w.once(ctx)
	case KindErrand:
		return w.errand(ctx)
	default:
		return w.inSession(ctx)
	}
}

// write stores the stage with the notes, fenced by the claim.
func (w *work) write(ctx context.Context, s Stage) error {
	att, err := writeFields(w.note, w.note.rest)
	if err != nil {
		return fmt.Errorf("encode notes: %w", err)
	}
	if err := w.claim.SetStage(ctx, string(s), att); err != nil {
		return err
	}
	w.stage = s
	return nil
}

func (w *work) save(ctx context.Context, s Session) error {
	if s.Ephemeral {
		return nil
	}
	return w.sv.store.Put(ctx, s, w.claim.Fence)
}

// errEarlier says that turns wait which were said before this one.
var errEarlier = errors.New("what was said before it comes first")

// earlier looks whether something was said in the thread before the turn that was not taken in when it was claimed: the replica that has it may
// be asleep, and Slack sends it again some seconds later. A turn that was begun is too late for that.
func (w *work) earlier(ctx context.Context) error {
	mine := w.claim.Job.Order
	if mine == "" || w.claim.Attach {
		return nil
	}
	found, err := w.sv.cfg.Front.Earlier(ctx, w.turn)
	if err == nil && found {
		var st queue.State
		st, err = w.sv.cfg.Queue.Inspect(ctx, w.claim.Job.Key)
		if slices.ContainsFunc(st.Jobs, func(j queue.Job) bool { return j.Order != "" && j.Order < mine }) {
			return errEarlier
		}
	}
	if err != nil {
		w.log.WarnContext(ctx, "not looked for what was said before", "err", err)
	}
	return nil
}

// inSession runs a turn in the session of its thread.
func (w *work) inSession(ctx context.Context) error {
	if err := w.earlier(ctx); err != nil {
		return err
	}
	if err := w.loadSettings(ctx); err != nil {
		return err
	}
	s, err := w.session(ctx)
	if err != nil {
		return w.withoutSession(ctx, err)
	}
	inSessionOf(ctx, s.SessionID)
	if s.Ended() { // it ended while this reply waited, and only a mention may begin another
		out := w.outcome(FailEnded)
		out.Number = s.Turns + 1
		return w.finish(ctx, s, out)
	}
	if err := w.run(ctx, s); err != nil {
		return err
	}
	return w.settle(ctx, s)
}

// loadSettings reads what the turn runs with, as its channel's settings are now.
func (w *work) loadSettings(ctx context.Context) (err error) {
	w.with, err = w.sv.effective(ctx, w.turn)
	if errors.Is(err, ErrSealed) || errors.Is(err, errDamaged) {
		w.locked, err = err, nil
	}
	return err
}

// settleLimit bounds how long a turn that is answered sees to its machine: its thread waits meanwhile.
const settleLimit = 45 * time.Second

// settle sees the machine of an answered turn to its rest. It is best effort: a machine that cannot be reached serves
// the next turn as it is, or else the reaper stops it.
func (w *work) settle(ctx context.Context, s *Session) error { return w.settleTry(ctx, s, w.note) }

// settleTry settles the try that left the notes.
func (w *work) settleTry(ctx context.Context, s *Session, n note) error {
	m := w.sv.cfg.Machines
	limit, cancel := context.WithTimeout(ctx, min(settleLimit, m.cfg.Patience))
	defer cancel()
	for pause := time.Second; ; pause *= 2 {
		err := m.Settle(limit, *s, w.turn.ID.try(n.Try), w.claim.Fence, n.Nonce)
		if err != nil && isPassing(err) && limit.Err() == nil {
			w.log.DebugContext(ctx, "machine not settled yet", "machine", s.MachineID, "err", err)
			if pauseFor(limit, pause, nil, true) == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, queue.ErrLost) {
			return err
		}
		if err != nil {
			w.log.WarnContext(ctx, "machine left as it is, the reaper sees to it", "machine", s.MachineID, "err", err)
		}
		return nil
	}
}

// once runs a turn on a machine of its own.
func (w *work) once(ctx context.Context) error {
	if err := w.loadSettings(ctx); err != nil {
		return err
	}
	s := w.sv.cfg.Machines.ephemeral(w.turn.ID, Spec{Thread: w.turn.Thread, Owner: w.turn.User, With: &w.with}, w.turn.At)
	inSessionOf(ctx, s.SessionID)
	if w.claim.Attach {
		id, err := w.sv.cfg.Machines.find(ctx, s)
		if err != nil {
			return err
		}
		s.MachineID = id
	}
	m := w.sv.cfg.Machines
	if err := w.run(ctx, &s); err != nil {
		if errors.As(err, new(*limitedError)) {
			w.dropOnce(ctx)
		}
		return err
	}
	return m.discard(ctx, s, w.note.Nonce, m.cfg.Patience)
}

// session returns the thread's session, made and stored if the turn may begin one.
func (w *work) session(ctx context.Context) (*Session, error) {
	s, err := w.sv.current(ctx, w.turn.Thread)
	if err != nil {
		return nil, err
	}
	if s != nil && s.Rebuilt {
		if err := w.recall(ctx, s); err != nil {
			return nil, err
		}
	}
	if s != nil && (!s.Ended() || !w.turn.Mention) {
		return s, nil
	}
	if s == nil && !w.turn.Mention {
		return &Session{Thread: w.turn.Thread, EndedAt: w.turn.At}, nil
	}
	fresh := w.sv.cfg.Machines.Begin(Spec{Thread: w.turn.Thread, Owner: w.turn.User, About: w.turn.About, With: &w.with}, time.Now())
	fresh.Since = w.turn.since()
	if s != nil { // it has ended, and may not be removed yet
		fresh.Left = s.remains()
	}
	if err := w.save(ctx, fresh); err != nil {
		return nil, err
	}
	return &fresh, nil
}

// withoutSession deals with a turn that has no session since Fly could not be asked: the records that Redis has lost are made from what
// is there. While that may pass it is put off, which the thread is shown; a refusal ends it.
func (w *work) withoutSession(ctx context.Context, err error) error {
	var ofFly *fly.Error
	if !errors.As(err, &ofFly) || ctx.Err() != nil || errors.Is(err, queue.ErrLost) {
		return err
	}
	s := Session{Thread: w.turn.Thread}
	if beginErr := w.begin(ctx, s); beginErr != nil {
		return errors.Join(err, beginErr)
	}
	if isPassing(err) {
		w.sv.cfg.Front.Progress(ctx, s, w.turn, w.note.Live, Progress{Step: StepWaiting, Since: time.Now(), Note: waitingFor(err)})
		return err
	}
	out := w.outcome(failureOf(err))
	out.Number, out.Error = 1, err.Error()
	return w.finish(ctx, &s, out)
}

// run brings the turn from wherever it is to an answer in the thread. Whoever loses it on the way gives the machine's lease back: a Redis that
// has lost the claim has lost the lease's nonce as well.
func (w *work) run(ctx context.Context, s *Session) error {
	err := w.bring(ctx, s)
	if isLost(ctx, err) && w.note.Nonce != "" {
		w.sv.cfg.Machines.release(ctx, s.AppName, s.MachineID, w.note.Nonce)
	}
	return err
}

// isLost reports whether err says that the claim is somebody else's by now.
func isLost(ctx context.Context, err error) bool {
	return err != nil && (errors.Is(err, queue.ErrLost) || errors.Is(context.Cause(ctx), queue.ErrLost))
}

func (w *work) bring(ctx context.Context, s *Session) error {
	if w.stage == StagePosted {
		return nil
	}
	if err := w.begin(ctx, *s); err != nil {
		return err
	}
	if err := w.awaitLimit(ctx, *s); err != nil {
		return err
	}
	if err := w.findBudget(ctx); err != nil {
		return err
	}
	if err := w.takeLarger(ctx, s); err != nil {
		return err
	}
	out, err := w.attempt(ctx, s)
	if errors.Is(err, errHostAway) && ctx.Err() == nil {
		err = w.putOff(ctx, err)
	}
	if err != nil {
		return err
	}
	return w.deliver(ctx, s, *out)
}

// deliver keeps what came of the turn, and posts it, unless the turn is to be begun once more.
func (w *work) deliver(ctx context.Context, s *Session, out Outcome) error {
	out.CostUSD = max(out.CostUSD, out.SpentUSD)
	if out.Failure == runner.FailStopped && isClosed(w.broke) && !isClosed(w.claim.Cancelled()) { // not every way to stop it tells the runner why
		out.Failure = runner.FailBudget
	}
	if w.startsOver(out, time.Now()) {
		return w.startOver(ctx, s, out)
	}
	out.CostUSD += w.note.SpentUSD
	out.Number, out.Claimed = w.count(s, out), w.note.Claimed
	if w.turn.Kind == KindTurn {
		out.Larger = w.sv.cfg.Machines.larger(*s, out.Failure)
	}
	if err := w.save(ctx, *s); err != nil {
		return err
	}
	if err := w.charge(ctx, *s, &out); err != nil {
		return err
	}
	w.recorded = true
	if out.Answer == "" && out.PayloadBytes == 0 {
		kept := out.Outcome
		kept.CostUSD -= w.note.SpentUSD // which is added again by whoever reads it
		w.note.Outcome = &kept
	}
	if w.stage != StagePosting {
		if err := w.write(ctx, StageResult); err != nil {
			return err
		}
	}
	return w.finish(ctx, s, out)
}

// putOff notes that the turn waits for its machine's host, which gives its place in the replica to others. It keeps that in its thread.
func (w *work) putOff(ctx context.Context, why error) error {
	if w.note.AwaySince.IsZero() {
		w.note.AwaySince = time.Now().UTC()
	}
	w.note.Aways++
	return errors.Join(why, w.write(ctx, w.stage))
}

// begin shows the live message. A thread that takes none does not keep the turn from running; one that is being answered needs none.
func (w *work) begin(ctx context.Context, s Session) error {
	if w.note.Live != "" || w.stage == StagePosting {
		return nil
	}
	s.Turns = max(s.Turns, 0)
	for try := range 3 {
		live, err := w.sv.cfg.Front.Begin(ctx, s, w.turn, looks && (w.claim.Attach || w.turn.Again || try > 0))
		if err == nil {
			w.note.Live = live
			return w.write(ctx, w.stage)
		}
		w.log.WarnContext(ctx, "live message not shown", "err", err)
		if err := pauseFor(ctx, time.Second<<try, nil, true); err != nil {
			return err
		}
	}
	w.unsure = true
	return nil
}

// attempt runs the turn, or takes it over where an earlier owner left it.
func (w *work) attempt(ctx context.Context, s *Session) (*Outcome, error) {
	if w.note.Outcome != nil {
		return &Outcome{Outcome: *w.note.Outcome}, nil
	}
	if w.claim.Takes > maxTakes && !w.started() {
		return new(w.outcome(FailRepeated)), nil
	}
	if w.locked != nil && !w.started() {
		out := w.outcome(runner.FailSettings)
		out.Error = w.locked.Error()
		return &out, nil
	}
	if w.budget != nil && w.budget.USD <= 0 && w.stage == StageClaimed {
		return new(w.outcome(runner.FailBudget)), nil
	}
	return w.sv.cfg.Machines.RunTurn(ctx, s, Run{
		Turn:   w.turn.ID,
		Try:    w.note.Try,
		Errand: w.turn.Errand,
		Larger: w.turn.Larger,
		Adds:   w.turn.Adds,
		With:   &w.with,
		Fence:  w.claim.Fence,
		Prompt: func(ctx context.Context, first bool) (Prompt, error) {
			prompt, err := w.sv.cfg.Front.Prompt(ctx, *s, w.turn, first)
			if w.note.Begun {
				prompt.Text = goOn + prompt.Text
			}
			return prompt, err
		},
		Started: w.started(),
		Offered: w.claim.Attach && w.stage != StageClaimed,
		Stop:    w.claim.Cancelled(),
		Budget:  w.budget,
		Spent:   w.spentMore,
		Broke:   w.broke,
		Stage:   func(ctx context.Context, st Stage) error { return w.write(ctx, st) },
		Seen:    func(mach *fly.Machine) { w.machine = mach },
		Progress: func(p Progress) {
			w.watch.enter(p.Step)
			w.sv.cfg.Front.Progress(ctx, *s, w.turn, w.note.Live, p)
		},
		Save:   w.save,
		Nonce:  w.note.Nonce,
		Away:   !w.note.AwaySince.IsZero(),
		NoWait: !w.note.AwaySince.IsZero() && time.Since(w.note.AwaySince) > awayLimit,
		KeepNonce: func(ctx context.Context, nonce string) error {
			w.note.Nonce = nonce
			return w.write(ctx, w.stage)
		},
	})
}

func (w *work) started() bool {
	return w.stage == StageStarted || w.stage == StageResult || w.stage == StagePosting
}

// count adds the turn to the session once, and returns its number.
func (w *work) count(s *Session, out Outcome) int {
	if w.turn.Kind == KindErrand {
		return w.looked(s, out)
	}
	if s.LastID == w.turn.ID {
		return s.Turns
	}
	s.Turns++
	s.LastID, s.LastTurn = w.turn.ID, time.Now().UTC()
	s.CostUSD += out.CostUSD
	s.Did.add(out)
	switch {
	case out.Repos != nil:
		s.State, s.Unsure = out.Repos, false
	case w.started() && diedUnder(out.Failure):
		s.Unsure = true
		if s.Repos == nil {
			s.Repos = w.with.repos() // those that it was handed
		}
	case s.Begun() && out.Failure == runner.FailClone:
		s.Repos = withoutRepos(s.Repos, w.turn.Adds, s.State) // else no turn could follow
	case !s.Begun():
		s.Repos = nil // what could not be cloned must not stay: the settings may be mended
	}
	return s.Turns
}

// diedUnder reports whether nobody knows what a turn that had started has left in the workspace.
func diedUnder(f Failure) bool { return f == FailMachine || f == FailMemory || f == FailForgotten }

// finish posts the outcome, again and again until the thread has it: the session waits meanwhile.
func (w *work) finish(ctx context.Context, s *Session, out Outcome) error {
	if !w.recorded && w.turn.Kind != KindEnd { // no machine was asked for it, and so nothing charged
		if err := w.sv.store.Record(ctx, w.ended(*s, out)); err != nil {
			return err
		}
		w.recorded = true
	}
	look := looks && (w.claim.Attach || w.turn.Again || out.Before || w.unsure || w.stage == StagePosting)
	if err := w.write(ctx, StagePosting); err != nil {
		return err
	}
	w.watch.enter(StepPosting)
	w.used(ctx, *s, out) // before it is said: who asks next in that place is offered them
	pause := time.Second
	for {
		err := w.sv.cfg.Front.Finish(ctx, *s, w.turn, w.note.Live, out, look)
		if err == nil {
			return w.posted(ctx, out)
		}
		if ctx.Err() != nil { // the next owner goes on
			return err
		}
		w.log.WarnContext(ctx, "outcome not posted yet", "err", err)
		if err := pauseFor(ctx, pause, nil, true); err != nil {
			return err
		}
		look, pause = looks, min(pause*2, 30*time.Second)
	}
}

// posted notes that the thread has the outcome.
func (w *work) posted(ctx context.Context, out Outcome) error {
	if err := w.write(ctx, StagePosted); err != nil {
		return err
	}
	w.sv.cfg.Observer.TurnEnded(w.turn, out, max(time.Since(w.note.Claimed), 0))
	w.watch.enter(StepSettling)
	return nil
}

// outcome is one that no machine was asked for.
func (w *work) outcome(f Failure) Outcome {
	now := time.Now().UTC()
	return Outcome{Outcome: runner.Outcome{Turn: string(w.turn.ID), ExitCode: 1, Failure: f, StartedAt: now, EndedAt: now}}
}

// end destroys the thread's session. The record is marked first, so that nobody counts on it meanwhile.
func (w *work) end(ctx context.Context) error {
	s, err := w.sv.store.Get(ctx, w.turn.Thread)
	if err != nil || s == nil || w.stage == StagePosted {
		return err
	}
	inSessionOf(ctx, s.SessionID)
	if w.turn.Reason == "" { // from the reaper, for what an earlier end could not remove
		if i := slices.IndexFunc(s.Left, func(r Remains) bool { return r.SessionID == w.turn.Session }); i >= 0 {
			return w.endLeft(ctx, s, i)
		}
	}
	if !w.meant(*s, w.sv.cfg.IdleTTL) {
		return nil
	}
	again := s.Ended() && s.EndID != w.turn.ID // an earlier end could not remove everything, and said so
	if again && !s.onFly() {
		return nil
	}
	began := time.Now().UTC()
	if !s.Ended() {
		s.EndedAt, s.EndReason, s.EndID = began, w.turn.Reason, w.turn.ID
		if err := w.save(ctx, *s); err != nil {
			return err
		}
	}
	var entry *Entry
	if !again { // else that has one
		e := w.over(*s)
		entry = &e
	}
	if err := w.sv.chargeEnd(ctx, *s, entry); err != nil {
		return err
	}
	out := w.outcome(runner.FailNone)
	out.ExitCode, out.StartedAt, out.Number, out.CostUSD = 0, began, s.Turns, s.CostUSD
	if err := w.destroy(ctx, s); err != nil {
		if ctx.Err() != nil || errors.Is(err, queue.ErrLost) {
			return err
		}
		w.log.ErrorContext(ctx, "session not removed, the reaper goes on", "session", s.SessionID, "err", err)
		if again {
			return nil
		}
		out.Failure, out.Error, out.ExitCode = failureOf(err), err.Error(), 1
	} else {
		out.Destroyed = true
	}
	out.EndedAt = time.Now().UTC()
	return w.finish(ctx, s, out)
}

// meant reports whether the end is for this session. One that a person asked for always is: nothing could begin
// between them. One by time is not when the session was used since, or kept.
func (w *work) meant(s Session, idle time.Duration) bool {
	if w.turn.Reason == EndByPerson {
		return true
	}
	if s.SessionID != w.turn.Session {
		return false
	}
	end, _ := s.endsAt(idle)
	return s.Ended() || s.LastID == w.turn.After && (w.turn.Due.IsZero() || !end.After(w.turn.Due))
}

// endLeft removes what an earlier session of the thread has left; its thread was told long ago.
func (w *work) endLeft(ctx context.Context, s *Session, i int) error {
	m := w.sv.cfg.Machines
	if err := m.remove(ctx, s.Left[i].session(), m.cfg.Patience); err != nil {
		w.log.WarnContext(ctx, "earlier session not removed, the reaper goes on", "session", s.Left[i].SessionID, "err", err)
		return ctx.Err()
	}
	s.Left = slices.Delete(s.Left, i, i+1)
	return w.save(ctx, *s)
}

func (w *work) destroy(ctx context.Context, s *Session) error {
	m := w.sv.cfg.Machines
	if err := m.remove(ctx, *s, m.cfg.Patience); err != nil {
		return err
	}
	s.MachineID, s.VolumeID = "", ""
	return w.save(ctx, *s)
}
