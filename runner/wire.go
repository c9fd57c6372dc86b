package runner

import "time"

// Every verb of the runner (`flaudebot runner VERB`) reads one JSON request from standard input and
// writes one JSON reply to standard output. A verb exits 0 when it could answer, whatever the answer
// says; any other exit code means that the runner could not be asked, with the reason on standard error.
//
//	put     PutRequest     → PutReply      one chunk of a prompt or an attachment
//	take    TakeRequest    → TakeReply     hand a turn over; idempotent by turn id
//	events  EventsRequest  → EventsReply   what happened after event N; waits for news
//	result  ResultRequest  → ResultReply   the outcome, and the answer or the payload in pieces
//	ack     AckRequest     → AckReply      the outcome is in the thread: the runner may exit
//	stop    StopRequest    → StopReply     interrupt the running turn
//	sleep   SleepRequest   → SleepReply    exit now if no turn is running
//	hello   HelloRequest   → HelloReply    who are you, and what do you know?
//
// Every request that changes something carries the claim's fencing token; the runner answers
// [StatusFenced] to one that is older than the newest it has seen.

// MaxBody is the most that a request or a reply may hold, in bytes. Fly's exec is a request/response
// call without streaming whose output cap is not documented; it is reliable below about 64 KiB.
const MaxBody = 48 << 10

// Status is how a verb was answered.
type Status string

const (
	StatusAccepted    Status = "accepted"    // take: the journal has the turn on disk, and it will run
	StatusRunning     Status = "running"     // the turn is running now
	StatusDone        Status = "done"        // the turn has an outcome
	StatusInterrupted Status = "interrupted" // it had started, there is no outcome, and this is a new boot
	StatusUnknown     Status = "unknown"     // this runner has never heard of the turn
	StatusFenced      Status = "fenced"      // an older fencing token than one already seen
	StatusBusy        Status = "busy"        // another turn is running
	StatusExiting     Status = "exiting"     // the runner is on its way out and takes nothing more
	StatusInvalid     Status = "invalid"     // the request cannot be carried out; Failure and Reason say why
	StatusOK          Status = "ok"
)

// Turn is one prompt for one session, as it is handed over to the runner.
type Turn struct {
	ID        string `json:"id"`         // the Slack message: team:channel:ts
	SessionID string `json:"session_id"` // Claude Code's own id of the conversation: a UUID
	Prompt    string `json:"prompt,omitempty"`
	PromptPut bool   `json:"prompt_put,omitempty"` // the prompt was put under the name "prompt" since it is too long
	// PromptBytes is the length of a prompt that was put; 0: unknown.
	PromptBytes int64    `json:"prompt_bytes,omitempty"`
	Files       []File   `json:"files,omitempty"` // attachments, put before the take
	Repos       []Repo   `json:"repos,omitempty"` // cloned when the workspace does not have them yet
	Settings    Settings `json:"settings,omitzero"`
	// Fresh goes on with an empty conversation when the transcript cannot be resumed.
	Fresh bool `json:"fresh,omitempty"`
	// Trailers are lines that the commits of the turn carry, as "Requested-by: Mia": what is no such line is left out.
	Trailers []string `json:"trailers,omitempty"`
	// Errand has the runner do something of its own instead of running Claude Code: there is no prompt then.
	Errand *Errand `json:"errand,omitempty"`
	// Budget is what the turn may cost; nil: there is no limit.
	Budget *Budget `json:"budget,omitempty"`
}

// Budget bounds what a turn's responses cost. One that crosses it is the last: the turn is stopped when it asks for another.
type Budget struct {
	USD float64 `json:"usd"`
	// Prices go before the list prices that the runner knows.
	Prices Prices `json:"prices,omitempty"`
}

// Errand is an operation of the runner's own in the place of a prompt: Claude Code is not started, the conversation is not touched,
// and no credential of Claude's is needed.
type Errand struct {
	Kind    ErrandKind `json:"kind"`
	Publish *Publish   `json:"publish,omitempty"` // of ErrandPublish
	Rescue  *Rescue    `json:"rescue,omitempty"`  // of ErrandRescue
	// Of is the turn that ErrandChanges, ErrandDiff and ErrandGet are about.
	Of string `json:"of,omitempty"`
	// File is which of that turn's Changes.Files ErrandGet brings, from 1; 0: all of them, as a ZIP archive.
	File int `json:"file,omitempty"`
}

// Publish is a pull request that is to be opened.
type Publish struct {
	Dir    string `json:"dir"`            // folder of the repository
	Branch string `json:"branch"`         // to push to
	Base   string `json:"base,omitempty"` // to merge into; empty: the branch that was cloned
	Title  string `json:"title"`
	Body   string `json:"body,omitempty"` // Markdown; with the title at most 32 KiB
	Commit bool   `json:"commit,omitempty"`
}

// Rescue says what the branches begin with to which work is pushed.
type Rescue struct {
	Branch string `json:"branch"`
}

// ErrandKind says what an errand is.
type ErrandKind string

const (
	// ErrandState measures what the repositories hold that their remotes do not: Outcome.Repos.
	ErrandState ErrandKind = "state"
	// ErrandChanges tells what a turn changed: Outcome.Changes.
	ErrandChanges ErrandKind = "changes"
	// ErrandDiff brings the diff of a turn, as it was at its end.
	ErrandDiff ErrandKind = "diff"
	// ErrandGet brings files that a turn changed, as they are now: Outcome.Changes names those. What is no file any more, or too large, is left out
	// where there are others, and Partial says so.
	ErrandGet ErrandKind = "get"
	// ErrandPublish pushes a repository's work to a branch and opens a pull request for it: Outcome.Branches, Pulls, Repos. One that is
	// open for the branch already is found.
	ErrandPublish ErrandKind = "publish"
	// ErrandRescue pushes what no remote has, of all repositories, committed or not: Outcome.Branches, Repos.
	ErrandRescue ErrandKind = "rescue"
)

// File is an attachment that was put for a turn. It appears in the workspace under
// attachments/<Name>, and the prompt names it.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Repo is a Git repository that belongs to the session's workspace.
type Repo struct {
	URL    string `json:"url"`
	Branch string `json:"branch,omitempty"` // empty: the remote's default
	Dir    string `json:"dir,omitempty"`    // folder below the workspace; empty: the last part of the URL
}

// Settings are what a turn is run with.
type Settings struct {
	Model          string   `json:"model,omitempty"`           // empty: Claude Code's default
	Fallback       string   `json:"fallback,omitempty"`        // models to go on with when Model is overloaded, separated by commas
	Effort         string   `json:"effort,omitempty"`          // one of [Efforts]; empty: the model's default
	PermissionMode string   `json:"permission_mode,omitempty"` // one of [PermissionModes]; empty: bypassPermissions, or dontAsk with AllowedTools
	AllowedTools   []string `json:"allowed_tools,omitempty"`   // tools, or rules such as Bash(git log *); empty: as the mode says
	// Trust has what the first repository brings obeyed: its settings, hooks, skills, agents and .mcp.json. Claude Code works in its folder then.
	Trust        bool              `json:"trust,omitempty"`
	MCP          string            `json:"mcp,omitempty"`          // JSON as --mcp-config takes it; ${NAME} stands for a variable of Env or Secrets.Env
	Instructions string            `json:"instructions,omitempty"` // added to the system prompt
	Env          map[string]string `json:"env,omitempty"`          // for Claude Code and its commands
	// Hosts are those that Claude's user may reach, see [CheckHosts]; nil: all. Those of the repositories are among them.
	Hosts []string `json:"hosts,omitempty"`
	// SetUp is a shell command that is run once in the workspace, after the clone. A changed one is run again.
	SetUp          string `json:"set_up,omitempty"`
	TimeoutSeconds int    `json:"timeout_seconds,omitempty"` // 0 = no limit
	LingerSeconds  int    `json:"linger_seconds,omitempty"`  // wait this long for a further turn; 0 = exit after the ack
	GitName        string `json:"git_name,omitempty"`        // author of commits; empty: Claude
	GitEmail       string `json:"git_email,omitempty"`       // empty: noreply@anthropic.com
	// Forges say what Git hosts are whose names do not tell.
	Forges []Forge `json:"forges,omitempty"`
}

// Secrets go with a take and stay in the runner's memory: never on disk, and, Env apart, never in an environment that
// Claude Code or its commands can read.
type Secrets struct {
	AnthropicAPIKey  string `json:"anthropic_api_key,omitempty"`
	ClaudeOAuthToken string `json:"claude_oauth_token,omitempty"`
	AnthropicBaseURL string `json:"anthropic_base_url,omitempty"` // the gateway's upstream; empty: https://api.anthropic.com
	GitUsername      string `json:"git_username,omitempty"`
	GitToken         string `json:"git_token,omitempty"`
	// GitOrigins are scheme and host of the places that may be sent the Git token, where a repository of the session is there; nil: all of those.
	GitOrigins []string `json:"git_origins,omitempty"`
	// Env are variables for Claude Code and its commands, who are meant to use them. They are removed from all that is told of the turn.
	Env map[string]string `json:"env,omitempty"`
}

// PutRequest carries one chunk of a file that a turn will need. Chunks of a file are sent in order;
// sending one again is harmless.
type PutRequest struct {
	Turn   string `json:"turn"`
	Fence  int64  `json:"fence"`
	Name   string `json:"name"`   // "prompt", or "file/<name>" for an attachment
	Offset int64  `json:"offset"` // bytes
	Data   []byte `json:"data"`   // base64 on the wire
}

// PutReply says how many bytes of the file the runner has.
type PutReply struct {
	Status  Status  `json:"status"` // ok, fenced, invalid
	Failure Failure `json:"failure,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Size    int64   `json:"size"`
}

// TakeRequest hands a turn over.
type TakeRequest struct {
	Fence   int64   `json:"fence"`
	Turn    Turn    `json:"turn"`
	Secrets Secrets `json:"secrets,omitzero"`
	// WaitMS has the reply to a turn that runs wait for its first news, as [EventsRequest] does, and bring them along: a short turn then needs one call.
	WaitMS int `json:"wait_ms,omitempty"`
	// Needs are what the turn needs a runner for that knows it, see [Turn.Needs]: one that does not refuses the turn.
	Needs []Need `json:"needs,omitempty"`
}

// Need is something that protects somebody: a runner that does not know it must not run the turn without.
type Need string

const (
	NeedBudget Need = "budget" // Turn.Budget
	NeedHosts  Need = "hosts"  // Settings.Hosts
)

// Needs are what the turn must not be run without.
func (t Turn) Needs() []Need {
	var out []Need
	if t.Budget != nil {
		out = append(out, NeedBudget)
	}
	if len(t.Settings.Hosts) > 0 {
		out = append(out, NeedHosts)
	}
	return out
}

// TakeReply answers it: accepted, running, done (with the outcome), interrupted, busy, fenced, exiting, invalid.
type TakeReply struct {
	Status  Status       `json:"status"`
	Failure Failure      `json:"failure,omitempty"`
	Reason  string       `json:"reason,omitempty"`
	Outcome *Outcome     `json:"outcome,omitempty"`
	News    *EventsReply `json:"news,omitempty"` // since the turn began; of an accepted or running one that was waited for
}

// EventsRequest asks for the events of a turn with N > After.
type EventsRequest struct {
	Turn   string `json:"turn"`
	After  int    `json:"after"`
	WaitMS int    `json:"wait_ms"` // wait this long for news; at most 15000
}

// EventsReply holds them, as many as fit into MaxBody. With the last events of a turn that is done come its outcome
// and, if it fits, its answer: a short turn needs no further question.
type EventsReply struct {
	Status  Status   `json:"status"` // running, done, interrupted, unknown
	Events  []Event  `json:"events,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
	Text    string   `json:"text,omitempty"` // the whole answer, or nothing
}

// Kind is what an event tells.
type Kind string

const (
	KindPhase Kind = "phase" // Phase changed
	KindInit  Kind = "init"  // Claude Code started; Model
	KindText  Kind = "text"  // Claude said something in between; Text
	KindTool  Kind = "tool"  // Claude uses a tool; Tool, Text = what on
	KindTodo  Kind = "todo"  // Todos, the whole list
	KindRetry Kind = "retry" // the API is busy; Text
	KindNote  Kind = "note"  // something that the person should know; Text
	KindSpent Kind = "spent" // what the turn has cost so far; USD. Told only of a turn that has a budget
)

// Phase is where the runner is in a turn.
type Phase string

const (
	PhaseCloning  Phase = "cloning"
	PhaseSetUp    Phase = "setup"    // the set-up command runs
	PhaseStarting Phase = "starting" // Claude Code's process is starting
	PhaseRunning  Phase = "running"
	PhaseStopping Phase = "stopping"
)

// Event is one step of a turn. The journal holds the same with Claude Code's own line beside it.
type Event struct {
	N     int       `json:"n"` // from 1, without gaps
	At    time.Time `json:"at"`
	Kind  Kind      `json:"kind"`
	Phase Phase     `json:"phase,omitempty"`
	Model string    `json:"model,omitempty"`
	Tool  string    `json:"tool,omitempty"`
	Text  string    `json:"text,omitempty"` // at most 2,000 bytes
	Todos []Todo    `json:"todos,omitempty"`
	USD   float64   `json:"usd,omitempty"`
}

// Todo is an entry of Claude's task list. State is pending, in_progress or completed.
type Todo struct {
	Text  string `json:"text"`
	State string `json:"state"`
}

// ResultRequest asks for a turn's outcome and for the answer from byte Offset on, or else for its payload from there on.
type ResultRequest struct {
	Turn    string `json:"turn"`
	Offset  int64  `json:"offset"`
	Payload bool   `json:"payload,omitempty"`
}

// ResultReply holds them. Text is cut at a rune's end so that the reply fits into MaxBody; the answer
// is complete when Offset + len(Text) = Outcome.AnswerBytes, the payload when Offset + len(Data) = Outcome.PayloadBytes.
type ResultReply struct {
	Status  Status   `json:"status"` // done, running, interrupted, unknown
	Outcome *Outcome `json:"outcome,omitempty"`
	Text    string   `json:"text,omitempty"`
	Data    []byte   `json:"data,omitempty"` // base64 on the wire
}

// Failure says why a turn did not end well.
type Failure string

const (
	FailNone        Failure = ""
	FailClaude      Failure = "claude"      // Claude Code ended with an error
	FailCredentials Failure = "credentials" // the API refused the Claude credential
	FailLimit       Failure = "limit"       // a usage limit was hit; Error says when it resets
	FailAPI         Failure = "api"         // the API is overloaded or cannot be reached
	FailStopped     Failure = "stopped"     // a person stopped it
	FailBudget      Failure = "budget"      // it has cost what it was allowed to
	FailTimeout     Failure = "timeout"     // the turn's time limit
	FailClone       Failure = "clone"       // a repository could not be cloned
	FailSetUp       Failure = "setup"       // the set-up command failed
	FailSettings    Failure = "settings"    // the channel's settings cannot be used
	FailTranscript  Failure = "transcript"  // the conversation cannot be resumed
	FailDisk        Failure = "disk"        // the volume is full
	FailStart       Failure = "start"       // Claude Code could not be started
	FailKilled      Failure = "killed"      // Claude Code was killed by a signal that nobody here sent
	FailMemory      Failure = "memory"      // the machine ran out of memory
	FailInterrupted Failure = "interrupted" // the machine or the runner died in mid-turn
	FailNoPrompt    Failure = "noprompt"    // there is nothing to ask
	FailFile        Failure = "file"        // an attachment did not arrive, or cannot be placed
	FailRepos       Failure = "repos"       // an address or a folder among the repositories makes no sense
	FailHandover    Failure = "handover"    // the turn could not be handed to the runner
	FailErrand      Failure = "errand"      // an errand could not be done; Error says why
	FailNothing     Failure = "nothing"     // there is nothing to push
	FailNoToken     Failure = "notoken"     // there is no token for the Git host
	FailNoRight     Failure = "noright"     // the Git host refuses the token, or what it may do
	FailProtected   Failure = "protected"   // the branch is protected at the Git host
	FailTaken       Failure = "taken"       // the branch has other commits at the Git host
	FailRemote      Failure = "remote"      // the Git host does not answer
	FailForge       Failure = "forge"       // the Git host's API refuses
	FailNoForge     Failure = "noforge"     // nobody knows how pull requests are opened at the Git host
)

// Lane is how much of the turn before was still there when a turn came. The runner knows of the first alone.
type Lane string

// Lanes, the quickest first. What one of them needs is not always there: then it is the next.
const (
	LaneProcess Lane = "process" // Claude Code: the turn was spared its start
	LaneRunner  Lane = "runner"  // the runner: it was spared the machine's
	LaneStart   Lane = "start"   // the machine: it was started
	LaneMachine Lane = "machine" // at most the volume: a machine was made
)

// Outcome is how a turn ended. The answer's text travels apart, see ResultReply.
type Outcome struct {
	Turn        string  `json:"turn"`
	ExitCode    int     `json:"exit_code"`
	Failure     Failure `json:"failure,omitempty"`
	Error       string  `json:"error,omitempty"` // for people; no secret; at most 2,000 bytes
	AnswerBytes int64   `json:"answer_bytes"`
	// LimitResets is when the usage limit resets that was reached (FailLimit); zero: Claude Code did not say.
	LimitResets time.Time `json:"limit_resets,omitzero"`
	// PayloadBytes is the size of what an errand brings beside its answer, at most 8 MiB. It is kept until it is acknowledged.
	PayloadBytes int64     `json:"payload_bytes,omitempty"`
	StartedAt    time.Time `json:"started_at"`
	EndedAt      time.Time `json:"ended_at"`
	CostUSD      float64   `json:"cost_usd"` // as Claude Code reports it
	// SpentUSD is what the gateway counted, at list prices: also of a turn that was killed, and of what Claude's commands asked the API for.
	SpentUSD float64     `json:"spent_usd,omitempty"`
	Model    string      `json:"model,omitempty"`
	Resumed  bool        `json:"resumed"`        // the conversation was resumed, rather than begun
	Lane     Lane        `json:"lane,omitempty"` // what of the turn before was still there, as far as the runner knows
	Repos    []RepoState `json:"repos,omitzero"` // nil: the turn did not come as far as Claude Code
	// Unshown are attachments that are called pictures and were not shown to Claude as such.
	Unshown []Unshown `json:"unshown,omitempty"`
	// Changes is what the turn changed in the workspace; nil: that is not known.
	Changes *Changes `json:"changes,omitempty"`
	// Pulls are pull requests of the session's repositories that the turn told of, and Branches those that it pushed; five of each at most.
	Pulls    []Pull   `json:"pulls,omitempty"`
	Branches []Branch `json:"branches,omitempty"`
	// Commits are those that the turn made, the newest first, at most 20 of each repository.
	Commits []Commit `json:"commits,omitempty"`
	// NewPull is the page where a person opens the pull request that an errand could not.
	NewPull string `json:"new_pull,omitempty"`
	// Files names what is in the workspace after the turn, at most 200 paths in order, .git left out.
	Files []string `json:"files,omitempty"`
	// Usage is what the turn took; nil: Claude Code did not tell, as when it was killed.
	Usage *Usage `json:"usage,omitempty"`
	// Tools are those that were used, subagents' included, the most used first, at most 20.
	Tools []ToolUse `json:"tools,omitempty"`
	// Denied are tools that Claude wanted to use and was not allowed, at most 20.
	Denied []Denied `json:"denied,omitempty"`
	// Unreached are hosts that were asked for and that the settings do not name, at most 10; with a port where it is not that of HTTP or HTTPS.
	Unreached []string `json:"unreached,omitempty"`
}

// Usage is what Claude Code counted in a turn, over all models.
type Usage struct {
	Input      int64 `json:"input"`       // tokens that were sent and not in the cache
	Output     int64 `json:"output"`      // tokens that came back
	CacheRead  int64 `json:"cache_read"`  // tokens
	CacheWrite int64 `json:"cache_write"` // tokens
	Steps      int   `json:"steps"`       // of Claude Code: one more than it used tools
}

// ToolUse tells how often a tool was used.
type ToolUse struct {
	Tool  string `json:"tool"`
	Times int    `json:"times"`
}

// Denied is a use of a tool that the permission mode did not allow.
type Denied struct {
	Tool string `json:"tool"`
	On   string `json:"on,omitempty"` // what it was to be used on: a file, a command
}

// Unshown is an attachment that Claude has as a file only.
type Unshown struct {
	Name string `json:"name"`
	Why  string `json:"why"` // for people
}

// Changes is what a turn changed in the workspace, measured on the disk: what the files were before it against what they are after it,
// whatever was committed in between.
type Changes struct {
	Files   []Change `json:"files,omitempty"` // in order of their paths, at most 200 and at most 16 KiB of them
	Total   int      `json:"total"`           // files that changed, those that are not named included
	Added   int      `json:"added"`           // lines
	Removed int      `json:"removed"`         // lines
	// Partial says that not all could be looked at: there was too much, or too little time.
	Partial bool `json:"partial,omitempty"`
	// DiffBytes is the size of the diff that ErrandDiff brings; 0: there is none.
	DiffBytes int64 `json:"diff_bytes,omitempty"`
}

// Change is a file that is not what it was. One whose path ends in a slash is a repository as a whole.
type Change struct {
	Path    string      `json:"path"`          // below the workspace
	Was     string      `json:"was,omitempty"` // the path before it was renamed
	State   ChangeState `json:"state"`
	Added   int         `json:"added,omitempty"`   // lines
	Removed int         `json:"removed,omitempty"` // lines
	Binary  bool        `json:"binary,omitempty"`  // its lines are not compared: it is no text, or larger than 1 MiB
	Size    int64       `json:"size,omitempty"`    // bytes, after the turn

	link bool // it is a repository within another, to Git
}

// ChangeState is what became of a file.
type ChangeState string

const (
	ChangeAdded    ChangeState = "added"
	ChangeModified ChangeState = "modified"
	ChangeRemoved  ChangeState = "removed"
	ChangeRenamed  ChangeState = "renamed"
)

// Pull is a pull request, or what its host has for one.
type Pull struct {
	Dir    string `json:"dir"`
	URL    string `json:"url"`
	Number string `json:"number"`
	// Existed is set when an errand found it open already.
	Existed bool `json:"existed,omitempty"`
}

// Branch is one that was pushed. URL is its page, empty where nobody knows it.
type Branch struct {
	Dir  string `json:"dir"`
	Name string `json:"name"`
	URL  string `json:"url,omitempty"`
}

// Commit is one that a turn made.
type Commit struct {
	Dir  string `json:"dir"`
	Hash string `json:"hash"`
}

// RepoState is what a repository in the workspace holds that its remote does not.
type RepoState struct {
	Dir      string `json:"dir"`
	Branch   string `json:"branch,omitempty"`
	Changed  int    `json:"changed"`  // files changed or added, not committed
	Unpushed int    `json:"unpushed"` // commits that no remote branch has
	// Unknown says that Git did not tell, or not all: there may be more.
	Unknown bool `json:"unknown,omitempty"`
}

// AckRequest says that the outcome is safe elsewhere.
type AckRequest struct {
	Turn  string `json:"turn"`
	Fence int64  `json:"fence"`
}

// AckReply answers it: ok, fenced, unknown.
type AckReply struct {
	Status Status `json:"status"`
}

// StopRequest interrupts a turn. Stopping one that is over is ok.
type StopRequest struct {
	Turn  string `json:"turn"`
	Fence int64  `json:"fence"`
	// Why is the outcome's failure: FailBudget, or FailStopped, which is that of an empty one.
	Why Failure `json:"why,omitempty"`
}

// StopReply answers it: ok, done, fenced, unknown.
type StopReply struct {
	Status Status `json:"status"`
}

// SleepRequest asks the runner to exit at once.
type SleepRequest struct {
	Fence int64 `json:"fence"`
}

// SleepReply answers it: ok, busy, fenced.
type SleepReply struct {
	Status Status `json:"status"`
}

// HelloRequest asks the runner who it is.
type HelloRequest struct{}

// HelloReply tells what a new owner needs to know.
type HelloReply struct {
	Status  Status `json:"status"`
	BootID  string `json:"boot_id"` // another one after every start of the runner
	Version string `json:"version"`
	Fence   int64  `json:"fence"`             // the newest seen
	Running string `json:"running,omitempty"` // id of the turn that is running
	// Unacked lists turns with an outcome that nobody has acknowledged, oldest first.
	Unacked []string `json:"unacked,omitempty"`
}
