package sessions

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"flaudebot/runner"
)

// Thread is a Slack thread: the place of at most one live session.
type Thread struct {
	Team    string `json:"team"`
	Channel string `json:"channel"`
	TS      string `json:"ts"` // of the thread's first message
}

// Key is the thread's name everywhere: "team:channel:ts".
func (t Thread) Key() string { return t.Team + ":" + t.Channel + ":" + t.TS }

// ParseThread reads what [Thread.Key] wrote.
func ParseThread(key string) (Thread, bool) {
	p := strings.Split(key, ":")
	if len(p) != 3 || p[0] == "" || p[1] == "" || p[2] == "" {
		return Thread{}, false
	}
	return Thread{Team: p[0], Channel: p[1], TS: p[2]}, true
}

// Session is one durable Claude Code conversation on one machine with its own volume. The first seven
// fields are those of the seed system, with its names on the wire.
type Session struct {
	SessionID  string    `json:"session_id"` // Claude Code's own id: a UUID
	MachineID  string    `json:"machine_id"` // empty until the machine exists
	VolumeID   string    `json:"volume_id"`  // empty until the volume exists
	AppName    string    `json:"app_name"`
	Region     string    `json:"region"`
	CreatedAt  time.Time `json:"created_at"`
	TTLSeconds int64     `json:"ttl_seconds"` // since CreatedAt; 0 = none

	Thread    Thread        `json:"thread"`
	Owner     string        `json:"owner"`               // Slack user who started it
	About     string        `json:"about,omitempty"`     // [Turn.About] of its first turn; "": that had no words, or nobody knows
	Repos     []runner.Repo `json:"repos,omitzero"`      // nil: those of the settings, until the conversation has begun
	VolumeGB  int           `json:"volume_gb,omitempty"` // 0: the default
	Guest     Guest         `json:"guest,omitzero"`      // of its machine; zero: the default
	Image     string        `json:"image,omitempty"`     // of its machine, as it was asked for last; "": nobody knows
	Larger    Larger        `json:"larger,omitzero"`     // what somebody has chosen for it beyond the settings
	InUse     *InUse        `json:"in_use,omitempty"`    // what its last turn ran with; nil: nobody knows
	Turns     int           `json:"turns"`               // turns that ended
	LastTurn  time.Time     `json:"last_turn"`           // when the last one ended, or CreatedAt
	Since     string        `json:"since,omitempty"`     // ts of the message that began it; "": nobody knows
	CostUSD   float64       `json:"cost_usd"`
	Did       Did           `json:"did,omitzero"`
	EndedAt   time.Time     `json:"ended_at,omitzero"`
	EndReason EndReason     `json:"end_reason,omitempty"`
	EndID     TurnID        `json:"end_id,omitempty"` // the job that ended it
	// LastID is the turn that ended last: counting it again after a crash changes nothing.
	LastID TurnID `json:"last_id,omitempty"`
	// Ephemeral sessions have no volume, one turn, and no record in the store.
	Ephemeral bool `json:"ephemeral,omitempty"`
	// Handed is set when a turn was handed over on the volume: from then on it may hold a conversation.
	Handed bool `json:"handed,omitempty"`
	// Left is what earlier sessions of the thread still have on Fly.
	Left []Remains `json:"left,omitempty"`
	// State is what the workspace held after the last turn that its remotes do not have.
	// It is nil until a turn came as far as Claude Code.
	State []runner.RepoState `json:"state,omitzero"`
	// Unsure is set when a turn's machine has died since State was measured: the workspace may hold more.
	Unsure bool `json:"unsure,omitempty"`
	// Rebuilt is set when the record was made from what Fly has, since Redis had lost it, until the thread was asked for the rest.
	Rebuilt bool `json:"rebuilt,omitempty"`
	// Kept is what somebody has put the end off to. It stands beside the record, since it is written while others have the claim.
	Kept Kept `json:"-"`
	// Meter says up to when the time of its machine is added up. It stands beside the record as well.
	Meter Meter `json:"-"`
	// EndsAt is when the session will be over unless somebody uses it or keeps it, as [Service.Status] and [Service.List] tell; zero: never.
	EndsAt time.Time `json:"-"`

	Rest Rest `json:"-"` // what a newer version has added
}

// MaxSkew is how far our clock and Slack's may be apart.
const MaxSkew = 5 * time.Second

// since is the ts from which the session's end may be asked for. Where only our own clock tells, it is a little later: who asks in vain asks again.
func (s Session) since() string { return cmp.Or(s.Since, TSOf(s.CreatedAt.Add(MaxSkew))) }

// TSOf is a time as Slack writes it in a ts.
func TSOf(t time.Time) string { return fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000) }

// Begun reports whether there is a conversation: a turn has come as far as Claude Code.
func (s Session) Begun() bool { return s.State != nil }

// Kept says until when a session is kept in spite of its times.
type Kept struct {
	Session string    `json:"session"`      // the one that is meant: the thread may have another by now
	TTL     time.Time `json:"ttl,omitzero"` // in place of the end of its time to live
	Idle    time.Time `json:"idle,omitzero"`
}

// Remains is what is still to be removed of a session whose record was taken by the next one in its thread.
type Remains struct {
	SessionID string `json:"session_id"`
	AppName   string `json:"app_name"`
	MachineID string `json:"machine_id,omitempty"`
	VolumeID  string `json:"volume_id,omitempty"`
}

// onFly reports whether the session has something on Fly.
func (s Session) onFly() bool { return s.MachineID != "" || s.VolumeID != "" }

// remains is Left with what the session itself has on Fly.
func (s Session) remains() []Remains {
	left := slices.Clone(s.Left)
	if s.onFly() {
		left = append(left, Remains{SessionID: s.SessionID, AppName: s.AppName, MachineID: s.MachineID, VolumeID: s.VolumeID})
	}
	return left
}

// session is as much of the session as it takes to destroy it.
func (r Remains) session() Session {
	return Session{SessionID: r.SessionID, AppName: r.AppName, MachineID: r.MachineID, VolumeID: r.VolumeID}
}

// EndReason says why a session ended.
type EndReason string

const (
	EndByPerson EndReason = "person"
	EndByTTL    EndReason = "ttl"  // its time to live, counted from its creation
	EndByIdle   EndReason = "idle" // no turn for too long
)

// Ended reports whether the session was destroyed, or is being.
func (s Session) Ended() bool { return !s.EndedAt.IsZero() }

// Loose lists the files that turns have left in no repository, by their paths below the workspace: they are nowhere else.
func (s Session) Loose() []string {
	var dirs []string
	for _, r := range s.Repos {
		dirs = append(dirs, r.Folder())
	}
	for _, r := range s.State { // clones beside them as well
		dirs = append(dirs, r.Dir)
	}
	return slices.DeleteFunc(slices.Clone(s.Did.Files), func(path string) bool {
		top, _, below := strings.Cut(path, "/")
		return slices.Contains(s.Did.Gone, path) || below && (top == attachmentsDir || slices.Contains(dirs, top))
	})
}

// attachmentsDir is where the files of messages are, which their thread has.
const attachmentsDir = "attachments"

// Unpushed lists the repositories that hold work which no remote has, or may hold some.
func (s Session) Unpushed() []runner.RepoState {
	states := slices.Clone(s.State)
	if s.Unsure {
		for i := range states {
			states[i].Unknown = true
		}
		for _, r := range s.Repos {
			if !slices.ContainsFunc(states, func(st runner.RepoState) bool { return st.Dir == r.Folder() }) {
				states = append(states, runner.RepoState{Dir: r.Folder(), Unknown: true})
			}
		}
		if len(states) == 0 && s.Begun() { // of one whose record was lost nobody knows which repositories it has
			states = append(states, runner.RepoState{Dir: "workspace", Unknown: true})
		}
	}
	return slices.DeleteFunc(states, func(r runner.RepoState) bool { return r.Changed == 0 && r.Unpushed == 0 && !r.Unknown })
}
