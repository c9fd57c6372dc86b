package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/runner"
)

// What repositories were used where, so that they can be chosen: fb:{sessions}:used:<team>:<channel or user>, a list in JSON, the one used
// last first. It expires.

const (
	maxUsed = 10
	usedFor = 180 * 24 * time.Hour
)

func (st *store) used(team, place string) string { return st.prefix + "used:" + team + ":" + place }

// UsedRepos returns the repositories that sessions of a place have worked on, a channel or a user, the one used last first.
func (sv *Service) UsedRepos(ctx context.Context, team, place string) ([]runner.Repo, error) {
	raw, err := sv.store.rdb.Get(ctx, sv.store.used(team, place)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	var out []runner.Repo
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("read which repositories were used in %s: %w", place, err)
	}
	return out, nil
}

// noteUsed notes them. Of two notes at once one may be lost: they are suggestions.
func (sv *Service) noteUsed(ctx context.Context, team, place string, repos []runner.Repo) error {
	had, err := sv.UsedRepos(ctx, team, place)
	if err != nil {
		return err
	}
	now := slices.Clone(repos)
	for i := range now {
		now[i].Dir = "" // is the session's own affair
	}
	for _, r := range had {
		if !slices.ContainsFunc(now, func(n runner.Repo) bool { return n.URL == r.URL && n.Branch == r.Branch }) {
			now = append(now, r)
		}
	}
	raw, err := json.Marshal(now[:min(len(now), maxUsed)])
	if err != nil {
		return fmt.Errorf("encode repositories: %w", err)
	}
	if err := sv.store.rdb.Set(ctx, sv.store.used(team, place), raw, usedFor).Err(); err != nil {
		return fmt.Errorf("note which repositories were used in %s: %w", place, err)
	}
	return nil
}

// used notes the repositories of a session after a turn that went well in them.
func (w *work) used(ctx context.Context, s Session, out Outcome) {
	if w.turn.Kind != KindTurn || out.Failure != runner.FailNone || len(s.Repos) == 0 {
		return
	}
	for _, place := range []string{s.Thread.Channel, w.turn.User} {
		if err := w.sv.noteUsed(ctx, s.Thread.Team, place, s.Repos); err != nil {
			w.log.WarnContext(ctx, "repositories not noted", "err", err)
		}
	}
}

// withRepos are a session's repositories with those that a turn brings, and whether it did not have them all. One whose folder is taken gets
// another.
func withRepos(have, more []runner.Repo) (all []runner.Repo, added bool) {
	all = slices.Clone(have)
	for _, r := range more {
		if slices.ContainsFunc(all, func(had runner.Repo) bool { return sameAddress(had.URL, r.URL) }) {
			continue
		}
		taken := func(folder string) bool {
			return slices.ContainsFunc(all, func(had runner.Repo) bool { return had.Folder() == folder })
		}
		for n, folder := 2, r.Folder(); taken(r.Folder()); n++ {
			r.Dir = fmt.Sprintf("%s-%d", folder, n)
		}
		all, added = append(all, r), true
	}
	return all, added
}

// sameAddress reports whether two addresses are of one repository, written as hosts take it: with ".git" or without, in either case.
func sameAddress(a, b string) bool {
	plain := func(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "/"), ".git") }
	return strings.EqualFold(plain(a), plain(b))
}

// withoutRepos are a session's repositories without those that a turn brought. One that was looked at before was there already.
func withoutRepos(have, gone []runner.Repo, seen []runner.RepoState) []runner.Repo {
	return slices.DeleteFunc(slices.Clone(have), func(had runner.Repo) bool {
		return slices.ContainsFunc(gone, func(r runner.Repo) bool { return r.URL == had.URL }) &&
			!slices.ContainsFunc(seen, func(st runner.RepoState) bool { return st.Dir == had.Folder() })
	})
}
