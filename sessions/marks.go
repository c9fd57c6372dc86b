package sessions

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed mark.lua
var markScript string

// Mark is how far a channel was taken in, as Slack's ts.
type Mark struct {
	Since string // the first note: what was said before is nobody's business
	UpTo  string // the newest message that was taken in
}

// Mark notes how far each channel was taken in: everything up to a message's ts. A note never goes back.
func (sv *Service) Mark(ctx context.Context, team string, upTo map[string]string) error {
	if len(upTo) == 0 {
		return nil
	}
	args := []any{team + ":"}
	for _, channel := range slices.Sorted(maps.Keys(upTo)) {
		args = append(args, channel, upTo[channel])
	}
	if err := sv.store.mark.Run(ctx, sv.store.rdb, []string{sv.store.marks()}, args...).Err(); err != nil {
		return fmt.Errorf("note how far channels were taken in: %w", err)
	}
	return nil
}

// Marks returns what [Service.Mark] noted: channel → mark. After Redis has lost its data there is for a while a mark under ""
// as well: what was said since then is read again, in every channel whose own mark is younger.
func (sv *Service) Marks(ctx context.Context, team string) (map[string]Mark, error) {
	all, err := sv.store.rdb.HGetAll(ctx, sv.store.marks()).Result()
	if err != nil {
		return nil, fmt.Errorf("read how far channels were taken in: %w", err)
	}
	out := map[string]Mark{}
	lost, err := sv.store.rdb.Get(ctx, sv.store.lost()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read since when Redis remembers: %w", err)
	}
	if lost != "" {
		out[""] = Mark{Since: lost, UpTo: lost}
	}
	for field, text := range all {
		if channel, ours := strings.CutPrefix(field, team+":"); ours {
			since, upTo, _ := strings.Cut(text, " ")
			out[channel] = Mark{Since: since, UpTo: upTo}
		}
	}
	return out, nil
}

// Known reports whether the turn was ever accepted, within three days.
func (sv *Service) Known(ctx context.Context, id TurnID) (bool, error) {
	return sv.cfg.Queue.Seen(ctx, string(id))
}

// Noted reports whether [Service.Once] was called for key, within its thirty days.
func (sv *Service) Noted(ctx context.Context, key string) (bool, error) {
	n, err := sv.store.rdb.Exists(ctx, sv.store.prefix+"once:"+key).Result()
	if err != nil {
		return false, fmt.Errorf("look whether %s was noted: %w", key, err)
	}
	return n > 0, nil
}

const (
	mutedFor  = 90 * 24 * time.Hour // how long a thread stays muted at most
	muteNotes = 20                  // how many changes of a thread are remembered, the last ones

	mutedNote, unmutedNote = " muted", " unmuted" // behind the ts of the change
)

// Mute has replies of a thread without a mention left alone, or taken again: those that are said after at, a ts.
func (sv *Service) Mute(ctx context.Context, thread Thread, muted bool, at string) error {
	note, what := at+unmutedNote, ThreadUnmuted
	if muted {
		note, what = at+mutedNote, ThreadMuted
	}
	err := sv.store.Record(ctx, Entry{
		ID: fmt.Sprintf("%s:%s:%s", what, thread.Key(), at), What: what, By: askedBy(ctx), Team: thread.Team, Channel: thread.Channel, Thread: thread.TS,
	})
	if err != nil {
		return fmt.Errorf("mute %s: %w", thread.Key(), err)
	}
	_, err = sv.store.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		key := sv.store.muted(thread)
		p.ZAdd(ctx, key, redis.Z{Member: note}) // of one score: they are in the order of their text, and each ts is of one length
		p.ZRemRangeByRank(ctx, key, 0, -muteNotes-1)
		p.Expire(ctx, key, mutedFor)
		return nil
	})
	if err != nil {
		return fmt.Errorf("mute %s: %w", thread.Key(), err)
	}
	return nil
}

// Muted reports whether a thread was muted when something was said in it, at a ts; "": whether it is now. What is said and what mutes
// may arrive in another order than they were written in.
func (sv *Service) Muted(ctx context.Context, thread Thread, at string) (bool, error) {
	upTo := "+"
	if at != "" {
		upTo = "(" + at
	}
	last, err := sv.store.rdb.ZRevRangeByLex(ctx, sv.store.muted(thread), &redis.ZRangeBy{Max: upTo, Min: "-", Count: 1}).Result()
	if err != nil {
		return false, fmt.Errorf("look whether %s is muted: %w", thread.Key(), err)
	}
	return len(last) > 0 && strings.HasSuffix(last[0], mutedNote), nil
}
