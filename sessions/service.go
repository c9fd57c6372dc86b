package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// ServiceConfig says how a [Service] works.
type ServiceConfig struct {
	Redis    redis.UniversalClient // made with MaxRetries: -1
	Prefix   string                // of every key
	Queue    *queue.Queue
	Machines *Machines // nil: it is only looked at, with List and End
	Front    Front
	Keys     *Keyring      // for the secrets of channels; nil: there can be none
	IdleTTL  time.Duration // a session without a turn for so long is ended; 0: never
	// WatchEvery is the time between two looks whether Redis still holds what it held; 0: 5 s.
	WatchEvery time.Duration
	// ReapEvery is the time between two looks for sessions that are over; 0: 1 minute.
	ReapEvery time.Duration
	// AwayEvery is the time between two looks at a machine whose host cannot be reached, while a turn waits for it; 0: 30 s. Many threads
	// may wait for the same host.
	AwayEvery time.Duration
	// AuditFor is how long the record of who asked, and what ran, is kept; 0: 400 days.
	AuditFor time.Duration
	// Budgets bound what Claude's model may cost.
	Budgets BudgetConfig
	// Link is the address of a message in a thread, for that record; nil: it has none.
	Link     func(thread Thread, ts string) string
	Observer Observer // nil: nobody wants to know
	Log      *slog.Logger
}

// Service is sessions over the queue: it accepts turns from any replica, and works on those that it claims.
type Service struct {
	cfg    ServiceConfig
	store  *store
	log    *slog.Logger
	failed *atomic.Int64 // when a rebuild failed last, in unix ns
}

// NewService returns a service; Run makes it work.
func NewService(cfg ServiceConfig) (*Service, error) {
	if cfg.Redis == nil || cfg.Queue == nil {
		return nil, errors.New("sessions need Redis and a queue")
	}
	cfg.ReapEvery = orDefault(cfg.ReapEvery, time.Minute)
	cfg.AwayEvery = orDefault(cfg.AwayEvery, 30*time.Second)
	cfg.WatchEvery = orDefault(cfg.WatchEvery, 5*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = unobserved{}
	}
	store := newStore(cfg.Redis, cfg.Prefix)
	store.charged, store.auditFor = cfg.Observer.Charged, orDefault(cfg.AuditFor, auditDefault)
	return &Service{cfg: cfg, store: store, log: cfg.Log, failed: new(atomic.Int64)}, nil
}

// Accept stores a turn: behind those of its thread that are at work or were said before it. After it returned without an error the turn cannot be lost; offering the same
// turn again answers AcceptDuplicate.
func (sv *Service) Accept(ctx context.Context, t Turn) (Accepted, error) {
	if t.Kind == KindErrand && t.Errand == nil {
		return Accepted{}, fmt.Errorf("store turn %s: it is an errand that says nothing", t.ID)
	}
	job, err := jobOf(t)
	if err != nil {
		return Accepted{}, err
	}
	if err := sv.recordAsked(ctx, t); err != nil {
		return Accepted{}, fmt.Errorf("store turn %s: %w", t.ID, err)
	}
	res, err := sv.cfg.Queue.Enqueue(ctx, job, queue.Enqueue{})
	if err != nil {
		return Accepted{}, fmt.Errorf("store turn %s: %w", t.ID, err)
	}
	switch res.Status {
	case queue.Queued:
		return Accepted{Status: AcceptQueued, Ahead: sv.ahead(ctx, job.Key, int(res.Ahead))}, nil
	case queue.Duplicate:
		return Accepted{Status: AcceptDuplicate}, nil
	case queue.FullUser:
		return sv.refuse(ctx, t, BoundPerson)
	case queue.FullGroup:
		return sv.refuse(ctx, t, BoundChannel)
	case queue.FullTotal:
		return sv.refuse(ctx, t, BoundAll)
	default:
		return sv.refuse(ctx, t, BoundThread)
	}
}

// refuse records that there is no room for a turn.
func (sv *Service) refuse(ctx context.Context, t Turn, full Bound) (Accepted, error) {
	e := sv.entryOf(TurnRefused, t, t.User)
	e.Full = full
	return Accepted{Status: AcceptFull, Full: full}, sv.store.Record(ctx, e)
}

// ahead is how many turns of the thread a person has to wait for: one that is answered, and whose machine goes to sleep, is none.
func (sv *Service) ahead(ctx context.Context, key string, n int) int {
	if n == 0 {
		return 0
	}
	st, err := sv.cfg.Queue.Inspect(ctx, key)
	if err == nil && st.Running != "" && Stage(st.Stage) == StagePosted {
		n--
	}
	return n
}

// Edit changes the text of a turn that is still waiting; false: it is not waiting any more, or a newer
// revision came first. revision is the edit's ts.
func (sv *Service) Edit(ctx context.Context, t Turn, revision string) (bool, error) {
	job, err := jobOf(t)
	if err != nil {
		return false, err
	}
	res, err := sv.cfg.Queue.Edit(ctx, job.Key, job.ID, revision, job.Payload)
	if err != nil {
		return false, fmt.Errorf("edit turn %s: %w", t.ID, err)
	}
	return res == queue.EditedOK, nil
}

// Cancel takes a waiting turn out of its queue, or stops it when it is running.
func (sv *Service) Cancel(ctx context.Context, thread Thread, id TurnID) (waiting, running bool, err error) {
	st, err := sv.cfg.Queue.Inspect(ctx, thread.Key())
	if err != nil {
		return false, false, fmt.Errorf("cancel turn %s: %w", id, err)
	}
	known := slices.ContainsFunc(st.Jobs, func(j queue.Job) bool { return j.ID == string(id) })
	if known { // written before it is done: it is not known any more when it is done again
		if err := sv.recordStop(ctx, thread, id, st.Running != string(id)); err != nil {
			return false, false, err
		}
	}
	res, err := sv.cfg.Queue.Cancel(ctx, thread.Key(), string(id))
	if err != nil {
		return false, false, fmt.Errorf("cancel turn %s: %w", id, err)
	}
	waiting, running = res == queue.CancelledQueued, res == queue.CancelledSignalled
	if !known && (waiting || running) { // it has come since
		err = sv.recordStop(ctx, thread, id, waiting)
	}
	return waiting, running, err
}

// recordStop records that whoever asks wants a turn stopped, or taken back.
func (sv *Service) recordStop(ctx context.Context, thread Thread, id TurnID, waiting bool) error {
	by := askedBy(ctx)
	e := sv.entryOf(StopAsked, Turn{ID: id, Thread: thread}, by)
	e.ID, e.Link, e.Waiting = e.ID+":"+by, "", waiting
	return sv.store.Record(ctx, e)
}

// Forestall has a turn never run that was not accepted yet: its message was deleted. One that was accepted meanwhile is taken back, or stopped.
func (sv *Service) Forestall(ctx context.Context, thread Thread, id TurnID) error {
	first, err := sv.cfg.Queue.Forestall(ctx, string(id))
	if err == nil && !first {
		_, _, err = sv.Cancel(ctx, thread, id)
	}
	return err
}

// PassOver has a turn never run that was not accepted yet: its message was left to people, and may be read again when the bot listens again.
// One that was accepted goes on.
func (sv *Service) PassOver(ctx context.Context, id TurnID) error {
	_, err := sv.cfg.Queue.Forestall(ctx, string(id))
	return err
}

// Stop interrupts the turn that is running in the thread; nil if there is none.
func (sv *Service) Stop(ctx context.Context, thread Thread) (*Turn, error) {
	st, err := sv.Status(ctx, thread)
	if err != nil || st.Running == nil || st.Running.Kind == KindEnd {
		return nil, err
	}
	if _, running, err := sv.Cancel(ctx, thread, st.Running.ID); err != nil || !running {
		return nil, err
	}
	return st.Running, nil
}

// End stops the running turn, drops the waiting ones and queues the session's end behind it: the session
// is destroyed when the running turn has posted its own end. by is the Slack user who asked, and said the ts of the message that
// asks: what began after it is left alone, and that is [ErrBegunSince]. "": it is asked for now.
func (sv *Service) End(ctx context.Context, thread Thread, by, said string) (Ending, error) {
	s, err := sv.current(ctx, thread)
	if err != nil {
		return Ending{}, err
	}
	st, err := sv.Status(ctx, thread)
	if err != nil {
		return Ending{}, err
	}
	st.Session = s
	switch {
	case (s == nil || s.Ended()) && !st.hasTurns():
		return Ending{}, ErrNoSession
	case st.BegunAfter(said):
		return Ending{}, fmt.Errorf("end the session of %s: %w", thread.Key(), ErrBegunSince)
	}
	if s == nil || s.Ended() { // its first turn has not come so far as to make one
		s = &Session{Thread: thread, Owner: by}
	}
	job, err := jobOf(endOf(*s, st, by, EndByPerson))
	if err != nil {
		return Ending{}, err
	}
	asked := sv.entryOf(EndAsked, Turn{ID: TurnID(job.ID), Thread: thread}, by)
	asked.Turn, asked.Link, asked.Session = "", "", s.SessionID
	if err := sv.store.Record(ctx, asked); err != nil {
		return Ending{}, fmt.Errorf("end the session of %s: %w", thread.Key(), err)
	}
	closed, err := sv.cfg.Queue.Close(ctx, job)
	if err != nil {
		return Ending{}, fmt.Errorf("end the session of %s: %w", thread.Key(), err)
	}
	ending := Ending{Session: *s}
	if closed.Running != "" && st.Running != nil {
		ending.Stopped = st.Running
	}
	for _, j := range closed.Dropped {
		if t, err := turnOf(j); err == nil && (t.Kind == KindTurn || t.Kind == KindErrand) {
			ending.Dropped = append(ending.Dropped, t)
		}
	}
	return ending, nil
}

// hasTurns reports whether something is queued or running that may begin a session.
func (st Status) hasTurns() bool {
	return (st.Running != nil && st.Running.isWork()) || slices.ContainsFunc(st.Queued, Turn.isWork)
}

// endOf is the job that ends a session: one for each session, however often it is asked for.
func endOf(s Session, st Status, by string, why EndReason) Turn {
	id := s.SessionID
	if id == "" && st.Running != nil {
		id = string(st.Running.ID)
	} else if id == "" && len(st.Queued) > 0 {
		id = string(st.Queued[0].ID)
	}
	return Turn{
		ID: TurnID("end:" + id), Kind: KindEnd, Thread: s.Thread, User: by, At: time.Now().UTC(),
		Session: s.SessionID, Reason: why,
	}
}

// Status tells what is going on in the thread.
func (sv *Service) Status(ctx context.Context, thread Thread) (Status, error) {
	s, err := sv.soon(ctx, thread)
	if err != nil {
		return Status{}, err
	}
	q, err := sv.cfg.Queue.Inspect(ctx, thread.Key())
	if err != nil {
		return Status{}, fmt.Errorf("look at the queue of %s: %w", thread.Key(), err)
	}
	if s != nil {
		s.EndsAt, _ = s.endsAt(sv.cfg.IdleTTL)
	}
	st := Status{Session: s, Since: q.Since, Over: Stage(q.Stage).hasOutcome()}
	switch {
	case strings.HasPrefix(q.Place, "park:u:"):
		st.Parked = BoundPerson
	case strings.HasPrefix(q.Place, "park:g:"):
		st.Parked = BoundChannel
	}
	for _, j := range q.Jobs {
		t, err := turnOf(j)
		switch {
		case err != nil:
			return Status{}, err
		case j.ID == q.Running:
			st.Running = &t
		default:
			st.Queued = append(st.Queued, t)
		}
	}
	return st, nil
}

// List returns the live sessions of a channel, or of all channels of the team if channel is empty, or of
// all teams if team is empty as well; the one used last first.
func (sv *Service) List(ctx context.Context, team, channel string) ([]Session, error) {
	if err := sv.remember(ctx); err != nil {
		return nil, err
	}
	prefix := ""
	if team != "" {
		prefix = team + ":"
	}
	if channel != "" {
		prefix += channel + ":"
	}
	all, err := sv.store.All(ctx, prefix)
	all = slices.DeleteFunc(all, Session.Ended)
	for i := range all {
		all[i].EndsAt, _ = all[i].endsAt(sv.cfg.IdleTTL)
	}
	return all, err
}

// Once reports true for the first of all callers in all replicas who name key, for thirty days.
func (sv *Service) Once(ctx context.Context, key string) (bool, error) {
	return sv.store.Once(ctx, key, 30*24*time.Hour)
}

// jobOf packs a turn for the queue. Limits count for the person and for the channel. Messages of a thread are ordered as Slack orders them,
// whichever comes first.
func jobOf(t Turn) (queue.Job, error) {
	body, err := json.Marshal(t)
	if err != nil {
		return queue.Job{}, fmt.Errorf("encode turn %s: %w", t.ID, err)
	}
	job := queue.Job{Key: t.Thread.Key(), ID: string(t.ID), User: t.User, Group: t.Thread.Channel, Payload: body}
	if t.Kind == KindTurn && t.isMessage() {
		job.Order = t.TS
	}
	return job, nil
}

func turnOf(j queue.Job) (Turn, error) {
	var t Turn
	if err := json.Unmarshal(j.Payload, &t); err != nil {
		return Turn{}, fmt.Errorf("decode turn %s: %w", j.ID, err)
	}
	return t, nil
}
