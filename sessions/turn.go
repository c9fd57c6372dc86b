package sessions

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"flaudebot/runner"
)

// TurnID names a turn by its Slack message: "team:channel:message_ts". A turn that comes from a slash
// command has "team:channel:cmd-<trigger id>", an errand "team:channel:errand-<what is unique of the click>".
type TurnID string

// try is the turn's name to the runner when it is run for the n-th time after the first.
func (id TurnID) try(n int) TurnID {
	if n == 0 {
		return id
	}
	return TurnID(fmt.Sprintf("%s~%d", id, n))
}

// Kind is what a job in a thread's queue asks for.
type Kind string

const (
	KindTurn Kind = "turn" // run a prompt in the thread's session, which is made if there is none
	KindOnce Kind = "once" // run a prompt on a machine of its own that is destroyed afterwards
	KindEnd  Kind = "end"  // destroy the thread's session
	// KindErrand has the runner of the thread's session do something of its own: it is no turn of the conversation, begins no session
	// and keeps none from its end.
	KindErrand Kind = "errand"
)

// Turn is one prompt, as it was accepted and is kept in the queue. It holds no secret.
type Turn struct {
	ID     TurnID    `json:"id"`
	Kind   Kind      `json:"kind"`
	Thread Thread    `json:"thread"`
	User   string    `json:"user"` // Slack user who asked
	TS     string    `json:"ts"`   // of the message
	Text   string    `json:"text"` // the prompt as typed, with Slack's escapes undone and the bot's mention removed
	At     time.Time `json:"at"`   // when it was accepted
	// Mention is set when the message mentioned the bot: only such a turn may begin a session.
	Mention bool         `json:"mention,omitempty"`
	Files   []Attachment `json:"files,omitempty"`
	// Again is set when the message may have been accepted before, by a Redis that has forgotten it: what stands in the thread
	// is looked at before anything is posted.
	Again bool `json:"again,omitempty"`
	// Overrides are what the message says otherwise than its channel's settings. What these do not allow, when the turn begins, does not count.
	Overrides Overrides `json:"overrides,omitzero"`
	// Larger is what the turn was asked to run on, since another one had too little; zero: what the session has.
	Larger Larger `json:"larger,omitzero"`
	// MoreUSD is what the turn was allowed to cost besides what every turn may, since another one had too little.
	MoreUSD float64 `json:"more_usd,omitempty"`
	// Adds are repositories that the session gets with this turn, besides those that it has.
	Adds []runner.Repo `json:"adds,omitempty"`
	// About is what a turn that may begin a session is about, in a few plain words.
	About string `json:"about,omitempty"`
	// AtSlack is set when the text is too long for the queue: the front reads it again when it is needed.
	AtSlack bool `json:"at_slack,omitempty"`
	// Forwards is set when the message forwards others: the front reads them when they are needed.
	Forwards bool `json:"forwards,omitempty"`
	// Session and Reason belong to KindEnd: which session is to go, and why.
	Session string    `json:"session,omitempty"`
	Reason  EndReason `json:"reason,omitempty"`
	// After belongs to an end by time: the session's last turn when its time was seen to be over. A turn that
	// has come since keeps the session.
	After TurnID `json:"after,omitempty"`
	// Due belongs to an end by time: when that was. A session that somebody has kept since is not over.
	Due time.Time `json:"due,omitzero"`
	// Errand belongs to KindErrand; Text then says in words what it is.
	Errand *Errand `json:"errand,omitempty"`
}

// Errand is what the runner is to do, and how that is told.
type Errand struct {
	runner.Errand

	// Private has only the person who asked be told what came of it.
	Private bool `json:"private,omitempty"`
	// View is the modal that waits for it, if one does.
	View string `json:"view,omitempty"`
	// ThenEnd has the session ended when all is pushed.
	ThenEnd bool `json:"then_end,omitempty"`
	// Trailers are lines that a commit of the errand carries.
	Trailers []string `json:"trailers,omitempty"`
}

// isWork reports whether the turn is one of a conversation.
func (t Turn) isWork() bool { return t.Kind == KindTurn || t.Kind == KindOnce }

// since is when the turn was asked for: the ts of its message, or when the button was pressed that runs that again.
func (t Turn) since() string {
	if t.isMessage() {
		return t.TS
	}
	return TSOf(t.At)
}

// isMessage tells the turn of a message from one that a command or a button asked for.
func (t Turn) isMessage() bool { return strings.HasSuffix(string(t.ID), ":"+t.TS) }

// Attachment is a file of the turn's message, still at Slack.
type Attachment struct {
	ID   string `json:"id"`
	Name string `json:"name"` // as the person named it: data, never a path
	Size int64  `json:"size"` // bytes
	URL  string `json:"url"`
}

// Prompt is what Claude is given for a turn.
type Prompt struct {
	Text  string
	Files []PromptFile
	// Repos replaces the repositories of the settings for a new session; nil keeps them.
	Repos []runner.Repo
	// Adds are repositories that a new session has besides.
	Adds []runner.Repo
	// Trailers are lines that commits of the turn carry: who asked, and where.
	Trailers []string
}

// PromptFile is an attachment that Open reads. Name is safe: letters, marks and digits of any script, dot, dash, underscore.
type PromptFile struct {
	Name string
	Size int64 // bytes
	Open func(context.Context) (io.ReadCloser, error)
}

// Stage is how far a turn has come. Each is written before the outside effect that it announces.
type Stage string

const (
	StageClaimed  Stage = "claimed"
	StageStarting Stage = "starting"
	StageStarted  Stage = "started"
	StageResult   Stage = "result"
	StagePosting  Stage = "posting"
	StagePosted   Stage = "posted"
)

// hasOutcome reports whether nothing that the turn does is still to come.
func (s Stage) hasOutcome() bool { return s == StageResult || s == StagePosting || s == StagePosted }

// Step is where a running turn is, as a person would tell it.
type Step string

const (
	StepClaimed  Step = "claimed"  // it is this turn's turn
	StepCreating Step = "creating" // a volume and a machine are being made
	StepWaking   Step = "waking"   // the machine boots
	StepWaiting  Step = "waiting"  // something outside is in the way; Progress.Note says what
	StepCloning  Step = "cloning"
	StepSetUp    Step = "setup"   // the set-up command runs
	StepRunning  Step = "running" // Claude Code works
	StepStopping Step = "stopping"
	StepPosting  Step = "posting" // the answer is on its way
)

// Progress is the state of a running turn that the live message shows. Each one is complete: the newest
// replaces all older ones.
type Progress struct {
	Step   Step
	Since  time.Time // when the turn was claimed
	Note   string    // what is being waited for
	Until  time.Time // when that will be over; zero: nobody knows
	Model  string
	Tool   string // the tool in use
	On     string // what it is used on: a file, a command
	Said   string // what Claude said last
	Todos  []runner.Todo
	Events int // events seen so far
}

// Failure says what went wrong with a turn. Those of the runner keep their names; the others happen
// around it.
type Failure = runner.Failure

const (
	FailMachine   Failure = "machine"         // the machine died in mid-turn, or nobody knows how far the turn came on it
	FailNotUp     Failure = "notup"           // the machine did not come so far as to have the turn
	FailMemory            = runner.FailMemory // also when the machine itself died of it, which Fly's exit event tells
	FailCapacity  Failure = "capacity"        // Fly has no room
	FailQuota     Failure = "quota"           // Fly gives the organization no more
	FailPayment   Failure = "payment"         // Fly wants the organization to look after its billing
	FailHost      Failure = "host"            // the host that the session's files are on cannot be reached, for days
	FailFly       Failure = "fly"             // Fly refuses or cannot be reached
	FailFlyAccess Failure = "flyaccess"       // Fly refuses the token
	FailLost      Failure = "lost"            // volume or machine are gone for good
	FailTooMuch   Failure = "toomuch"         // the message brings more than can be handed over
	FailForgotten Failure = "forgotten"       // the machine knows nothing of a turn that had started
	FailSlack     Failure = "slack"           // Slack did not let the message be read
	FailGone      Failure = "gone"            // the message was deleted before it was read
	FailStuck     Failure = "stuck"           // something in our own keeping stayed in its way for too long
	FailRecord    Failure = "record"          // the session's record cannot be read
	FailEnded     Failure = "ended"           // the session ended while the message waited
	FailRepeated  Failure = "repeated"        // it brought down whoever worked on it, time and again
)

// Outcome is how a turn ended, with its answer.
type Outcome struct {
	runner.Outcome

	Answer  string    // Markdown, as Claude wrote it
	Payload []byte    // what an errand brings
	Number  int       // the turn's number in its session, from 1; of an errand: how many turns there were
	Claimed time.Time // when the turn was first claimed: until then it waited behind others
	// Destroyed is set when the machine was taken down with the turn (KindOnce, KindEnd).
	Destroyed bool
	// Larger is what the turn may be run on again, since it had too little; nil: nothing.
	Larger *Larger
	// Budget is the one that stopped the turn, or that is nearly used up; nil: none.
	Budget *Budget
	// Before is set when the runner had the turn before it was handed over: what became of that may stand in the thread.
	Before bool
}

// Duration is how long the turn took on the machine.
func (o Outcome) Duration() time.Duration { return o.EndedAt.Sub(o.StartedAt) }

// Notice is something that a thread is told outside of a turn.
type Notice struct {
	Session Session
	Kind    NoticeKind
	At      time.Time // when what is announced will happen
}

// NoticeKind is what a notice tells.
type NoticeKind string

const (
	NoticeEndsSoon NoticeKind = "ends_soon" // the session will be removed at Notice.At
)

// Front is where turns come from and where they are answered: Slack. The worker calls it for one turn
// from one goroutine, Progress apart, and only while it holds the claim.
//
// After a takeover look is set: an earlier owner may have posted already, so a method looks in the thread for
// a message with this turn's metadata before it posts one.
type Front interface {
	// Earlier takes in what was said in the thread before the turn's message and is not taken in yet, as when the replica that has it
	// sleeps. It reports whether there was anything. It may leave that out when it costs too much.
	Earlier(ctx context.Context, t Turn) (bool, error)
	// Prompt makes what Claude is given: the text with its context, and the attachments. first is
	// set for the first turn of a conversation; else the session's last turn tells what Claude knows already.
	// After an error it is asked again for a while, unless the error is [ErrMessageGone].
	Prompt(ctx context.Context, s Session, t Turn, first bool) (Prompt, error)
	// Begin shows the live message, and returns its ts.
	Begin(ctx context.Context, s Session, t Turn, look bool) (liveTS string, err error)
	// Progress changes the live message. It does not block and may drop all but the newest. ctx is the
	// claim's: when it ends, the message is another owner's.
	Progress(ctx context.Context, s Session, t Turn, liveTS string, p Progress)
	// Hold has the live message show p for as long as the turn is put off, in place of what Progress has told.
	Hold(ctx context.Context, s Session, t Turn, liveTS string, p Progress) error
	// Quiet ends the changing of the live message by this owner. It returns when no change is on its way any more, after some
	// seconds at most: one that arrives after the next owner's last would stay.
	Quiet(t Turn)
	// Finish posts what of the outcome is not in the thread yet and settles the live message. It
	// returns nil only when every part stands in the thread, or when the thread can take none any more, and the
	// live message is settled, or could not be for so long that the thread should not wait for it. liveTS may be empty though
	// a live message stands there: look finds it.
	Finish(ctx context.Context, s Session, t Turn, liveTS string, o Outcome, look bool) error
	// Notify posts a notice.
	Notify(ctx context.Context, n Notice) error
	// Recall reads what the thread tells of a session whose record was lost.
	Recall(ctx context.Context, s Session) (Recalled, error)
	// LookBack has what was said lately read again: Redis may have lost what it was told. It does not block.
	LookBack()
}

// Recalled is what a thread tells of its session.
type Recalled struct {
	Owner   string    // "": nobody knows
	About   string    // of the first turn that was answered
	Turns   int       // that were answered
	LastID  TurnID    // the last of them
	CostUSD float64   // of all of them
	EndedAt time.Time // zero: it has not ended
}

// Accepted says what became of a turn that was offered to [Service.Accept].
type Accepted struct {
	Status AcceptStatus
	Ahead  int   // turns of the thread before this one, the running one included
	Full   Bound // what AcceptFull ran into
}

// Bound is whom a limit on turns, or a budget, is for.
type Bound string

const (
	BoundTurn    Bound = "turn"
	BoundThread  Bound = "thread"
	BoundPerson  Bound = "person"
	BoundChannel Bound = "channel"
	BoundAll     Bound = "all"
)

// AcceptStatus is the answer of [Service.Accept].
type AcceptStatus string

const (
	AcceptQueued    AcceptStatus = "queued"
	AcceptDuplicate AcceptStatus = "duplicate" // the message is known: nothing to do
	AcceptFull      AcceptStatus = "full"      // too many are waiting already
)

// Status is what is going on in a thread.
type Status struct {
	Session *Session // the thread's newest session, nil if it never had one
	Running *Turn    // the turn at work
	Over    bool     // it has its outcome: all that is to come is its answer, and its machine's sleep
	Since   time.Time
	Queued  []Turn // waiting, in order
	// Parked is set when the first of Queued does not begin since so many turns run that it has to wait for one of them: whose those are.
	Parked Bound
}

// BegunAfter reports whether what is live in the thread began after a message, of which this is the ts. "": no.
func (st Status) BegunAfter(said string) bool {
	if said == "" {
		return false
	}
	if st.Session != nil && !st.Session.Ended() {
		return st.Session.since() > said
	}
	turns := st.Queued
	if st.Running != nil {
		turns = append([]Turn{*st.Running}, turns...)
	}
	i := slices.IndexFunc(turns, Turn.isWork)
	return i >= 0 && turns[i].since() > said
}

// Ending is what [Service.End] did.
type Ending struct {
	Session Session
	Stopped *Turn  // the turn that is being stopped
	Dropped []Turn // turns that were waiting and will not run
}
