package queue

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// listen waits at the doorbell and at this replica's mailbox, which comes first.
func (r *replica) listen(ctx context.Context) {
	for ctx.Err() == nil {
		got, err := r.q.cfg.Listener.BLPop(ctx, r.q.cfg.Poll, r.ears()...).Result()
		if err == nil || errors.Is(err, redis.Nil) {
			r.q.ill.well(ctx, "listen")
		}
		switch {
		case err == nil && strings.HasSuffix(got[0], "wake"):
			if r.seek(); r.left() { // it was waiting for a ring as it was told to leave
				r.ringOthers(ctx)
			}
		case err == nil:
			r.cancelled(got[1])
		case errors.Is(err, redis.Nil): // nothing for Poll: look anyway
			r.seek()
		case ctx.Err() == nil:
			r.q.ill.ails(ctx, "listen", err)
			pause(ctx, time.Second)
			r.seek()
		}
	}
}

// left reports whether the replica takes no more work.
func (r *replica) left() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaving
}

// ringOthers rings for another replica if work is left.
func (r *replica) ringOthers(ctx context.Context) {
	if _, err := r.q.step(ctx, 0, nil); err != nil && ctx.Err() == nil {
		r.q.log.DebugContext(ctx, "the others are not rung for", "err", err)
	}
}

// ears are where to listen. Without a free slot, and by who leaves, the doorbell is left to others: a token would be swallowed.
func (r *replica) ears() []string {
	box, wake := r.q.prefix+"ctl:"+r.q.cfg.Owner, r.q.prefix+"wake"
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deaf = r.leaving || r.free+r.asked <= 0; r.deaf {
		return []string{box}
	}
	return []string{box, wake}
}

// cancelled tells the handler of a job, named key␟id. Nothing at all only wakes the listener.
func (r *replica) cancelled(mail string) {
	key, id, _ := strings.Cut(mail, "\x1f")
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.held[key]; c != nil && c.Job.ID == id { // else it is a later job of the key
		c.signal()
	}
}

// wakeListener ends a BLPOP at once: the client does not interrupt one when its context ends.
func (r *replica) wakeListener(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	box := r.q.prefix + "ctl:" + r.q.cfg.Owner
	pipe := r.q.rdb.Pipeline()
	pipe.RPush(ctx, box, "")
	pipe.Expire(ctx, box, time.Minute)
	if _, err := pipe.Exec(ctx); err != nil {
		r.q.log.DebugContext(ctx, "listener not woken", "err", err)
	}
}
