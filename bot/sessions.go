package bot

import (
	"context"
	"time"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// Sessions is what the bot needs of [sessions.Service].
type Sessions interface {
	// Accept stores a turn. After it returned without an error the turn cannot be lost.
	Accept(ctx context.Context, t sessions.Turn) (sessions.Accepted, error)
	// Edit changes the text of a turn that is still waiting; false: it is not waiting any more.
	// revision is the edit's ts: an older one never wins.
	Edit(ctx context.Context, t sessions.Turn, revision string) (bool, error)
	// Cancel takes a waiting turn out of its queue, or stops it when it is running.
	Cancel(ctx context.Context, thread sessions.Thread, id sessions.TurnID) (waiting, running bool, err error)
	// Forestall has a turn never run that was not accepted yet, and takes one back, or stops it, that was meanwhile.
	Forestall(ctx context.Context, thread sessions.Thread, id sessions.TurnID) error
	// PassOver has a turn never run that was not accepted yet, and leaves one alone that was.
	PassOver(ctx context.Context, id sessions.TurnID) error
	// Stop interrupts the turn that is running in the thread, nil if there is none.
	Stop(ctx context.Context, thread sessions.Thread) (*sessions.Turn, error)
	// End stops the running turn, drops the waiting ones, and has the session destroyed when that is
	// done; by is the Slack user, said the ts of the message that asks for it, "" if none does. [sessions.ErrNoSession] if the thread
	// has no live session, [sessions.ErrBegunSince] if that began after the message.
	End(ctx context.Context, thread sessions.Thread, by, said string) (sessions.Ending, error)
	// Keep puts off the end of a session that was announced for a time, and returns when it will be over instead, zero: never. An end that was
	// put off already stays as it is. [sessions.ErrNoSession] if the session is over.
	Keep(ctx context.Context, thread sessions.Thread, session string, announced time.Time) (time.Time, error)
	// Status tells what is going on in the thread.
	Status(ctx context.Context, thread sessions.Thread) (sessions.Status, error)
	// List returns the live sessions of a channel, or of all channels if channel is empty, newest first.
	List(ctx context.Context, team, channel string) ([]sessions.Session, error)
	// Costs returns what each person's turns in each session of a team have cost in a month ("2026-11").
	Costs(ctx context.Context, team, month string, now time.Time) ([]sessions.Cost, error)
	// Budgets are those of this month that a person's turns in a thread are charged to, the widest first.
	Budgets(ctx context.Context, thread sessions.Thread, user string) ([]sessions.Budget, error)
	// AllowMore raises one of them, in USD, once for each mark; false: that was done before. by is the Slack user who allows it, user whose turns it is for where it is a person's.
	AllowMore(ctx context.Context, mark string, thread sessions.Thread, bound sessions.Bound, user, by string, usd float64) (bool, error)
	// Mute has replies of a thread without a mention left alone, or taken again: those that are said after at, a ts.
	Mute(ctx context.Context, thread sessions.Thread, muted bool, at string) error
	// Muted reports whether a thread was muted at a ts; "": whether it is now.
	Muted(ctx context.Context, thread sessions.Thread, at string) (bool, error)
	// Noted reports whether Once was called for key.
	Noted(ctx context.Context, key string) (bool, error)
	// Known reports whether a turn was ever accepted, within three days.
	Known(ctx context.Context, id sessions.TurnID) (bool, error)
	// Mark notes how far each channel was taken in: everything up to a message's ts. A note never goes back.
	Mark(ctx context.Context, team string, upTo map[string]string) error
	// Marks returns those notes: channel → mark.
	Marks(ctx context.Context, team string) (map[string]sessions.Mark, error)
	// Once reports true for the first of all callers in all replicas who name key, for at least three
	// days: what is said to somebody only once.
	Once(ctx context.Context, key string) (bool, error)
	// UsedRepos returns the repositories that sessions of a channel, or of a user, have worked on, the one used last first.
	UsedRepos(ctx context.Context, team, place string) ([]runner.Repo, error)
	// Settings are those of a channel, as its admins have set them.
	Settings(ctx context.Context, team, channel string) (sessions.Settings, error)
	// DefaultSettings are what a channel has that sets nothing.
	DefaultSettings() sessions.Settings
	// KeepsSecrets reports whether secrets can be stored.
	KeepsSecrets() bool
	// SaveSettings stores what somebody has set for a channel, if its version is still that of the stored ones, else
	// [sessions.ErrSettingsChanged]; what is wrong with a field is [sessions.FieldErrors].
	SaveSettings(ctx context.Context, team, channel, by string, s sessions.Settings, values map[string]string) (sessions.Settings, error)
}
