package sessions

import (
	"context"
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

// Reap ends the sessions whose time is over at now, and tells those that have a day left. It never
// touches one that has a turn queued or running. Any number of replicas may reap at once.
func (sv *Service) Reap(ctx context.Context, now time.Time) error {
	all, err := sv.store.All(ctx, "")
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := sv.reapOne(ctx, s, now); err != nil {
			return fmt.Errorf("session %s: %w", s.SessionID, err)
		}
	}
	return nil
}

func (sv *Service) reapOne(ctx context.Context, s Session, now time.Time) error {
	if s.Ended() {
		// Its end could not remove everything: try again, once an hour.
		if now.Sub(s.EndedAt) < sv.cfg.Machines.cfg.Patience+time.Minute {
			return nil
		}
		return sv.enqueueEnd(ctx, s, s.EndReason, TurnID(fmt.Sprintf("end:%s:%d", s.SessionID, now.Unix()/3600)))
	}
	at, why := s.endsAt(sv.cfg.IdleTTL)
	switch {
	case at.IsZero():
		return nil
	case !now.Before(at):
		return sv.enqueueEnd(ctx, s, why, TurnID("end:"+s.SessionID))
	case at.Sub(now) <= min(warnBefore, at.Sub(s.CreatedAt)/4):
		return sv.warn(ctx, s, at)
	}
	return nil
}

// endsAt is when the session will be over, and why; zero: never.
func (s Session) endsAt(idle time.Duration) (time.Time, EndReason) {
	var at time.Time
	var why EndReason
	if s.TTLSeconds > 0 {
		at, why = s.CreatedAt.Add(time.Duration(s.TTLSeconds)*time.Second), EndByTTL
	}
	if idle > 0 {
		if end := s.LastTurn.Add(idle); at.IsZero() || end.Before(at) {
			at, why = end, EndByIdle
		}
	}
	return at, why
}

// enqueueEnd queues the session's end unless a turn is queued or running: then the next look decides.
func (sv *Service) enqueueEnd(ctx context.Context, s Session, why EndReason, id TurnID) error {
	job, err := jobOf(Turn{ID: id, Kind: KindEnd, Thread: s.Thread, User: s.Owner, At: time.Now().UTC(), Session: s.SessionID, Reason: why})
	if err != nil {
		return err
	}
	_, err = sv.cfg.Queue.Enqueue(ctx, job, queue.Enqueue{OnlyIfIdle: true})
	return err
}

// warn tells the thread, once for each session and end, that the session will end. A notice that could not
// be given is tried again the next time.
func (sv *Service) warn(ctx context.Context, s Session, at time.Time) error {
	key := fmt.Sprintf("warned:%s:%d", s.SessionID, at.Unix())
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
