package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flaudebot/queue"
)

// warnBefore is how long before its end a session's thread is told.
const warnBefore = 24 * time.Hour

// reapLoop looks for sessions that are over until ctx ends.
func (sv *Service) reapLoop(ctx context.Context) error {
	tick := time.NewTicker(sv.cfg.ReapEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := sv.Reap(ctx, time.Now()); err != nil && ctx.Err() == nil {
			sv.log.WarnContext(ctx, "reaper put off", "err", err)
		}
	}
}

// Reap ends the sessions whose time is over at now, tells those that have a day left, and removes what crashes
// left behind on Fly. It never touches a session that has a turn queued or running. Any number of replicas may
// reap at once.
func (sv *Service) Reap(ctx context.Context, now time.Time) error {
	began := time.Now()
	if err := sv.remember(ctx); err != nil { // what nobody knows is not removed before
		return err
	}
	all, err := sv.store.All(ctx, "")
	if err != nil && len(all) == 0 {
		return err
	}
	defer func() { sv.log.DebugContext(ctx, "reaped", "sessions", len(all), "duration", time.Since(began)) }()
	for _, s := range all {
		if oneErr := sv.reapOne(ctx, s, now); oneErr != nil {
			err = errors.Join(err, fmt.Errorf("session %s: %w", s.SessionID, oneErr))
		}
		if ctx.Err() != nil {
			return err
		}
	}
	return errors.Join(err, sv.restNowAndThen(ctx, all, now), sv.sweepNowAndThen(ctx, now))
}

func (sv *Service) reapOne(ctx context.Context, s Session, now time.Time) error {
	hour := now.Unix() / 3600
	for _, left := range s.Left {
		if err := sv.enqueueEnd(ctx, s, left.SessionID, "", TurnID(fmt.Sprintf("end:%s:%d", left.SessionID, hour))); err != nil {
			return err
		}
	}
	if s.Ended() {
		// Its end could not remove everything: try again, once an hour.
		if !s.onFly() || now.Sub(s.EndedAt) < sv.cfg.Machines.cfg.Patience+time.Minute {
			return nil
		}
		return sv.enqueueEnd(ctx, s, s.SessionID, "", TurnID(fmt.Sprintf("end:%s:%d", s.SessionID, hour)))
	}
	at, why := s.endsAt(sv.cfg.IdleTTL)
	switch {
	case at.IsZero():
		return nil
	case !now.Before(at):
		told, err := sv.store.WasOnce(ctx, noticeOf(s, at))
		switch {
		case err != nil:
			return err
		case !told: // as when no replica ran in the day before it
			_, err := sv.store.Keep(ctx, s.Thread, s.Kept, s.spared(now, sv.cfg.IdleTTL), nil)
			return err
		}
		return sv.enqueueEnd(ctx, s, s.SessionID, why, TurnID(fmt.Sprintf("end:%s:%s:%d", s.SessionID, s.LastID, at.UnixMicro())))
	case at.Sub(now) <= s.warnAhead(why, sv.cfg.IdleTTL):
		return sv.warn(ctx, s, at)
	}
	return nil
}

// warnAhead is how long before its end the thread is told: a day, or half of a time that is shorter than two.
func (s Session) warnAhead(why EndReason, idle time.Duration) time.Duration {
	whole := idle
	if why == EndByTTL {
		whole = s.ttl()
	}
	return min(warnBefore, whole/2)
}

// endsAt is when the session will be over, and why; zero: never.
func (s Session) endsAt(idle time.Duration) (time.Time, EndReason) {
	at, why := s.ttlEnd(), EndByTTL
	if end := s.idleEnd(idle); !end.IsZero() && (at.IsZero() || end.Before(at)) {
		at, why = end, EndByIdle
	}
	if at.IsZero() {
		return at, ""
	}
	return at, why
}

// ttlEnd is when the session's time to live is over; zero: never.
func (s Session) ttlEnd() time.Time {
	if s.TTLSeconds == 0 {
		return time.Time{}
	}
	return later(s.CreatedAt.Add(s.ttl()), s.kept().TTL)
}

// idleEnd is when nobody will have used the session for too long; zero: never.
func (s Session) idleEnd(idle time.Duration) time.Time {
	if idle == 0 {
		return time.Time{}
	}
	return later(s.LastTurn.Add(idle), s.kept().Idle)
}

func (s Session) ttl() time.Duration { return time.Duration(s.TTLSeconds) * time.Second }

// kept is what the session was kept to, if it is the one that was meant.
func (s Session) kept() Kept {
	if s.Kept.Session != s.SessionID {
		return Kept{}
	}
	return s.Kept
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Keep puts off the end of a thread's session that was announced for a time: by its time to live once more, or by the idle time from now. It
// returns when the session will be over instead; zero: never. An end that was put off already, or that the session has outlived by being used,
// is left as it is. [ErrNoSession]: the session is over, or is being ended.
func (sv *Service) Keep(ctx context.Context, thread Thread, session string, announced time.Time) (time.Time, error) {
	for kept := false; !kept; { // again where somebody else, or the reaper, has kept it meanwhile: seldom more than once
		s, err := sv.soon(ctx, thread)
		if err != nil {
			return time.Time{}, err
		}
		if s == nil || s.Ended() || s.SessionID != session {
			return time.Time{}, ErrNoSession
		}
		if kept, err = sv.putOff(ctx, *s, announced); err != nil {
			return time.Time{}, err
		}
	}
	st, err := sv.Status(ctx, thread) // after it was written: an end that waits will see it
	if err != nil {
		return time.Time{}, err
	}
	if st.Session == nil || st.Session.Ended() || st.Session.SessionID != session || st.Running != nil && st.Running.Kind == KindEnd {
		return time.Time{}, ErrNoSession
	}
	return st.Session.EndsAt, nil
}

// putOff keeps a session whose end was announced, if that is its end still; false: it was kept since it was read.
func (sv *Service) putOff(ctx context.Context, s Session, announced time.Time) (bool, error) {
	idle := sv.cfg.IdleTTL
	if end, _ := s.endsAt(idle); end.IsZero() || end.After(announced) {
		return true, nil
	}
	was := s.Kept
	s.Kept = s.keep(announced, time.Now(), idle)
	until, _ := s.endsAt(idle)
	return sv.store.Keep(ctx, s.Thread, was, s.Kept, &Entry{
		ID: fmt.Sprintf("%s:%s:%d", SessionKept, s.SessionID, until.UnixMicro()), What: SessionKept, By: askedBy(ctx), Team: s.Thread.Team, Channel: s.Thread.Channel,
		Thread: s.Thread.TS, Session: s.SessionID, Until: until,
	})
}

// keep puts off the end that was announced, and the other one if it comes so soon after it that it would be announced as well.
func (s Session) keep(announced, now time.Time, idle time.Duration) Kept {
	k := s.kept()
	k.Session = s.SessionID
	if end := s.ttlEnd(); !end.IsZero() && end.Sub(announced) <= s.warnAhead(EndByTTL, idle) {
		k.TTL = later(end, now).Add(s.ttl()).UTC()
	}
	if end := s.idleEnd(idle); !end.IsZero() && end.Sub(announced) <= s.warnAhead(EndByIdle, idle) {
		k.Idle = now.Add(idle).UTC()
	}
	return k
}

// spared keeps a session long enough for its thread to be told of its end: one whose end nobody was there to announce, or a rebuilt one, since what
// it was kept to, and what its channel sets, is lost.
func (s Session) spared(now time.Time, idle time.Duration) Kept {
	k, until := s.kept(), func(why EndReason) time.Time { return now.Add(2 * s.warnAhead(why, idle)).UTC() }
	return Kept{Session: s.SessionID, TTL: later(k.TTL, until(EndByTTL)), Idle: later(k.Idle, until(EndByIdle))}
}

// enqueueEnd queues the end of a session of the thread unless a turn is queued or running: then the next look decides. why
// is empty for one that has ended and is not removed yet.
func (sv *Service) enqueueEnd(ctx context.Context, s Session, session string, why EndReason, id TurnID) error {
	due, _ := s.endsAt(sv.cfg.IdleTTL)
	job, err := jobOf(Turn{
		ID: id, Kind: KindEnd, Thread: s.Thread, User: s.Owner, At: time.Now().UTC(), Session: session, Reason: why, After: s.LastID, Due: due,
	})
	if err != nil {
		return err
	}
	_, err = sv.cfg.Queue.Enqueue(ctx, job, queue.Enqueue{OnlyIfIdle: true})
	return err
}

// noticeOf names the notice of an end.
func noticeOf(s Session, at time.Time) string {
	return fmt.Sprintf("warned:%s:%d", s.SessionID, at.UnixMicro())
}

// warn tells the thread, once for each session and end, that the session will end, unless it is in use. A notice
// that could not be given is tried again the next time.
func (sv *Service) warn(ctx context.Context, s Session, at time.Time) error {
	if q, err := sv.cfg.Queue.Inspect(ctx, s.Thread.Key()); err != nil || len(q.Jobs) > 0 {
		return err
	}
	key := noticeOf(s, at)
	first, err := sv.store.Once(ctx, key, 2*warnBefore)
	if err != nil || !first {
		return err
	}
	if err := sv.cfg.Front.Notify(ctx, Notice{Session: s, Kind: NoticeEndsSoon, At: at}); err != nil {
		sv.log.WarnContext(ctx, "notice not given", "session", s.SessionID, "err", err)
		return sv.store.Forget(ctx, key)
	}
	return nil
}
