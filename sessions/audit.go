package sessions

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"flaudebot/runner"
)

// Who asked, and what ran, is kept in one stream, fb:{sessions}:audit, to which entries are only added, and which drops them by age. An entry has a name
// of its own that says what it is about. It is there once:
//
//   - That a turn was asked for, a stop, the end of a session, or that a thread is muted, is written before it is done. A crash in between leaves the
//     entry; whoever does it again writes it again, and the entry's name keeps it from being there twice.
//   - What a turn came to is written by the script that adds up its cost (charge.lua), the end of a session by the one that adds up its disk, a change of
//     settings by the one that makes it (settings.lua), an end that is put off by the one that puts it off (keep.lua): both, or neither.
//   - What a turn came to that no machine was asked for is written before its thread is told, by name; what a run at the command line came to, before
//     that is printed.
//
// It holds no word of a prompt or an answer, no value of a setting and no secret.

//go:embed record.lua
var recordScript string

// auditedFor is for how long the name of an entry is known: longer than anything is done again. The queue knows a turn for three days, and a turn
// waits for an unreachable host as long.
const auditedFor = 7 * 24 * time.Hour

// auditDefault is how long entries are kept.
const auditDefault = 400 * 24 * time.Hour

// Happening says what an entry is about.
type Happening string

const (
	TurnAsked    Happening = "turn_asked"    // somebody asked for a turn; where none of the next two follows, it waits, runs, or was taken back before it ran
	TurnRefused  Happening = "turn_refused"  // too many were waiting
	TurnEnded    Happening = "turn_ended"    // it came to its end, whatever that was
	StopAsked    Happening = "stop_asked"    // somebody asked for a turn to be stopped, or taken back
	EndAsked     Happening = "end_asked"     // somebody asked for the end of a session: what waits in its thread does not run
	SessionEnded Happening = "session_ended" // and it ended
	SettingsSet  Happening = "settings_set"  // somebody changed the settings of a channel
	BudgetRaised Happening = "budget_raised" // somebody allowed more than a budget

	SessionKept   Happening = "session_kept"   // somebody put off the end of a session
	ThreadMuted   Happening = "thread_muted"   // somebody had the replies in a thread left alone
	ThreadUnmuted Happening = "thread_unmuted" // or taken again
)

// Entry is one line of the record.
type Entry struct {
	ID   string    `json:"id"` // no two entries have the same
	At   time.Time `json:"at"` // when it was written
	What Happening `json:"what"`
	// By is the Slack user who did it, or "operator" at the command line. "": nobody did, as when a session's time is over, or Slack does not tell,
	// as with a message that was deleted.
	By      string `json:"by,omitempty"`
	Team    string `json:"team,omitempty"` // "" with the channel: at the command line
	Channel string `json:"channel,omitempty"`
	Thread  string `json:"thread,omitempty"` // ts of its first message
	Session string `json:"session,omitempty"`

	// Of a turn, and of a stop.
	Turn  TurnID `json:"turn,omitempty"`
	Kind  Kind   `json:"kind,omitempty"`
	Link  string `json:"link,omitempty"`         // to its message
	Chars *int   `json:"prompt_chars,omitempty"` // of what was typed; absent: it was too long to be counted
	Files int    `json:"attachments,omitempty"`
	// Waiting is set when the turn that was stopped had not begun.
	Waiting bool `json:"waiting,omitempty"`

	Full Bound `json:"full,omitempty"` // of TurnRefused: what was full

	Ended *EndedTurn    `json:"ended,omitempty"`    // of TurnEnded
	Over  *EndedSession `json:"over,omitempty"`     // of SessionEnded
	Set   *Set          `json:"settings,omitempty"` // of SettingsSet

	Raised *Raised   `json:"raised,omitempty"` // of BudgetRaised, and of a turn that was allowed more for itself
	Until  time.Time `json:"until,omitzero"`   // of SessionKept: when it ends instead
}

// Raised is what was allowed besides a budget.
type Raised struct {
	Bound  Bound   `json:"bound"`
	Person string  `json:"person,omitempty"` // whose, where it is a person's
	USD    float64 `json:"usd"`
}

// EndedTurn is how a turn ended.
type EndedTurn struct {
	Number   int             `json:"number"` // in its session, from 1
	ExitCode int             `json:"exit_code"`
	Failure  Failure         `json:"failure,omitempty"`
	CostUSD  float64         `json:"cost_usd"`
	Model    string          `json:"model,omitempty"`
	Machine  string          `json:"machine,omitempty"`
	Asked    time.Time       `json:"asked_at"`
	Claimed  time.Time       `json:"claimed_at,omitzero"`
	Started  time.Time       `json:"started_at"`
	EndedAt  time.Time       `json:"ended_at"`
	Changed  *ChangedFiles   `json:"changed,omitempty"` // absent: that is not known
	Commits  []runner.Commit `json:"commits,omitempty"`
	Branches []string        `json:"branches,omitempty"` // that it pushed
	Pulls    []string        `json:"pulls,omitempty"`    // that it told of
}

// ChangedFiles are the files that a turn changed.
type ChangedFiles struct {
	Files   int      `json:"files"`
	Added   int      `json:"added"`            // lines
	Removed int      `json:"removed"`          // lines
	Partial bool     `json:"partial,omitzero"` // there may be more
	Paths   []string `json:"paths,omitempty"`  // at most 50
}

// EndedSession is a session at its end.
type EndedSession struct {
	Reason  EndReason `json:"reason"`
	Owner   string    `json:"owner"`
	Created time.Time `json:"created_at"`
	Turns   int       `json:"turns"`
	CostUSD float64   `json:"cost_usd"`
}

// Set is a change of settings.
type Set struct {
	Version int64    `json:"version"`
	Fields  []string `json:"fields"` // that were changed: names, no values
}

const (
	maxAuditPaths = 50
	maxAuditPath  = 300 // bytes
)

// Operator is who asks at the command line.
const Operator = "operator"

// actorKey is where a context has who asks.
type actorKey struct{}

// AskedBy returns ctx for what is done since a Slack user asked for it.
func AskedBy(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, actorKey{}, user)
}

func askedBy(ctx context.Context) string {
	user, _ := ctx.Value(actorKey{}).(string)
	return user
}

func (st *store) audit() string { return st.prefix + "audit" }

// audited is the mark of an entry.
func (st *store) audited(id string) string { return st.prefix + "once:audit:" + id }

// minID is the lowest id that the stream keeps.
func (st *store) minID() string {
	return strconv.FormatInt(time.Now().Add(-st.auditFor).UnixMilli(), 10)
}

// entry encodes an entry.
func encodeEntry(e Entry) (string, error) {
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	body, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("encode the audit entry %s: %w", e.ID, err)
	}
	return string(body), nil
}

// Record adds an entry, unless it is there.
func (st *store) Record(ctx context.Context, e Entry) error {
	body, err := encodeEntry(e)
	if err != nil {
		return err
	}
	if err := st.record.Run(ctx, st.rdb, []string{st.audited(e.ID), st.audit()}, int(auditedFor.Seconds()), st.minID(), body).Err(); err != nil {
		return fmt.Errorf("record %s: %w", e.ID, err)
	}
	return nil
}

// entryOf begins an entry about a turn.
func (sv *Service) entryOf(what Happening, t Turn, by string) Entry {
	e := Entry{
		ID: string(what) + ":" + string(t.ID), What: what, By: by, Team: t.Thread.Team, Channel: t.Thread.Channel, Thread: t.Thread.TS, Turn: t.ID, Kind: t.Kind,
	}
	if sv.cfg.Link != nil && t.Thread.TS != "" {
		e.Link = sv.cfg.Link(t.Thread, cmp.Or(t.TS, t.Thread.TS))
	}
	return e
}

// recordAsked records that a turn was asked for.
func (sv *Service) recordAsked(ctx context.Context, t Turn) error {
	e := sv.entryOf(TurnAsked, t, t.User)
	e.Files = len(t.Files)
	if !t.AtSlack {
		n := utf8.RuneCountInString(t.Text)
		e.Chars = &n
	}
	if t.MoreUSD > 0 {
		e.Raised = &Raised{Bound: BoundTurn, USD: t.MoreUSD}
	}
	return sv.store.Record(ctx, e)
}

// ended is what the record says of the turn's outcome.
func (w *work) ended(s Session, out Outcome) Entry {
	e := w.sv.entryOf(TurnEnded, w.turn, w.turn.User)
	e.Session = s.SessionID
	e.Ended = endedTurn(out, s.MachineID)
	e.Ended.Asked, e.Ended.Claimed = w.turn.At, w.note.Claimed
	return e
}

// endedTurn is an outcome without when it was asked for and claimed.
func endedTurn(out Outcome, machine string) *EndedTurn {
	e := &EndedTurn{
		Number: out.Number, ExitCode: out.ExitCode, Failure: out.Failure, CostUSD: out.CostUSD, Model: out.Model, Machine: machine,
		Started: out.StartedAt, EndedAt: out.EndedAt, Commits: out.Commits,
	}
	if c := out.Changes; c != nil {
		e.Changed = &ChangedFiles{Files: c.Total, Added: c.Added, Removed: c.Removed, Partial: c.Partial}
		for _, f := range c.Files[:min(len(c.Files), maxAuditPaths)] {
			e.Changed.Paths = append(e.Changed.Paths, f.Path[:min(len(f.Path), maxAuditPath)])
		}
	}
	for _, b := range out.Branches {
		e.Branches = append(e.Branches, b.Dir+" "+b.Name)
	}
	for _, p := range out.Pulls {
		e.Pulls = append(e.Pulls, p.URL)
	}
	return e
}

// RecordOf returns what puts a run of the command line on record, for [Run.Record]. chars is the length of its prompt.
func (sv *Service) RecordOf(id TurnID, chars int) func(context.Context, *RunResult) error {
	t := Turn{ID: id, Kind: KindOnce, User: Operator, At: time.Now().UTC()}
	return func(ctx context.Context, res *RunResult) error {
		if res == nil {
			e := sv.entryOf(TurnAsked, t, t.User)
			e.Chars = &chars
			return sv.store.Record(ctx, e)
		}
		e := sv.entryOf(TurnEnded, t, t.User)
		e.Ended = endedTurn(res.Outcome, res.MachineID)
		e.Ended.Number, e.Ended.ExitCode, e.Ended.Asked = 1, res.ExitCode, t.At
		return sv.store.Record(ctx, e)
	}
}

// over is what the record says of a session's end.
func (w *work) over(s Session) Entry {
	by := w.turn.User
	if w.turn.Reason != EndByPerson {
		by = ""
	}
	e := w.sv.entryOf(SessionEnded, w.turn, by)
	e.ID, e.Turn, e.Kind, e.Link, e.Session = string(SessionEnded)+":"+s.SessionID, "", "", "", s.SessionID
	e.Over = &EndedSession{Reason: w.turn.Reason, Owner: s.Owner, Created: s.CreatedAt, Turns: s.Turns, CostUSD: s.CostUSD}
	return e
}

// AuditFilter says which entries are wanted; a zero field wants all.
type AuditFilter struct {
	Since, Until time.Time // of when they were written; Until is left out itself
	Channel      string    // id
	Person       string    // id of who did it
}

// Audit hands the entries out, in the order in which they were written. An error of do ends it.
func (sv *Service) Audit(ctx context.Context, f AuditFilter, do func(Entry) error) error {
	const page = 500
	from, to := "-", "+"
	if !f.Since.IsZero() {
		from = strconv.FormatInt(f.Since.UnixMilli(), 10)
	}
	if !f.Until.IsZero() {
		to = "(" + strconv.FormatInt(f.Until.UnixMilli(), 10)
	}
	for {
		got, err := sv.store.rdb.XRangeN(ctx, sv.store.audit(), from, to, page).Result()
		if err != nil {
			return fmt.Errorf("read the audit record: %w", err)
		}
		for _, m := range got {
			from = "(" + m.ID
			e, err := entryIn(m)
			if err != nil {
				return err
			}
			if f.Channel != "" && e.Channel != f.Channel || f.Person != "" && e.By != f.Person {
				continue
			}
			if err := do(e); err != nil {
				return err
			}
		}
		if len(got) < page {
			return nil
		}
	}
}

func entryIn(m redis.XMessage) (Entry, error) {
	var e Entry
	body, _ := m.Values["json"].(string)
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		return e, fmt.Errorf("read entry %s of the audit record: %w", m.ID, err)
	}
	return e, nil
}
