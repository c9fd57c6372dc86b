package bot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack-go/slack"
	"golang.org/x/time/rate"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// Config says how the bot works. Zero values mean what each comment says.
type Config struct {
	AppToken, BotToken string
	APIURL             string   // "": Slack's
	Connections        int      // sockets of this replica; 0: 2
	AllowedUsers       []string // ids of people and user groups; empty: full members of the workspace
	AllowedChannels    []string // ids; empty: wherever the bot is
	AttachmentLimit    int64    // bytes; 0: 5 MiB
	Parks              bool     // turns of a person or a channel may have to wait for others of theirs
	// NamedRepos are the places below which people may name repositories in a message, as [NamedPlace] returns them; none: nowhere.
	NamedRepos []string
	// Forges say what Git hosts are whose names do not: what they call a pull request.
	Forges []runner.Forge
	// AskAfter is the age from which a message that was missed is asked about instead of run; 0: 15 minutes.
	AskAfter time.Duration
	// PlainCommits has commits say nothing of who asked for them, and where.
	PlainCommits bool
	// Pace is how often Slack's methods are called, in times of what Slack documents; 0: 1. Replicas that share a limit go slower by themselves.
	Pace float64
	// Silence is how long a socket may bring nothing, not even a ping, before it is replaced; 0: 30 s. Slack pings more often.
	Silence time.Duration
	// Observe is told of every call of a method, also of those that Slack's limits kept from being sent; it must not block. nil: nobody wants to know.
	Observe func(Call)
	HTTP    *http.Client
	Log     *slog.Logger
	Version string
}

// ErrToken says that Slack refuses a token. Its text names the variable, never the value.
var ErrToken = errors.New("Slack refuses the token") //nolint:staticcheck // a name

// Bot is flaudebot in Slack. It implements [sessions.Front].
type Bot struct {
	cfg       Config
	log       *slog.Logger
	api       *slack.Client
	sessions  Sessions
	self      string         // user id of the bot
	mention   *regexp.Regexp // of the bot
	team      string
	workspace string // its address
	people    people
	settings  knownSettings
	out       *outbox
	dials     *rate.Limiter // apps.connections.open
	intake    underway      // events that came and are not acked yet
	hearing   chan struct{} // a place for each message that is being marked
	lookBack  chan struct{} // something may have been missed
	tryAfter  time.Duration // between two tries of a call, at first
	lookEvery time.Duration // between two looks for what was missed, in the long run
	lastEdit  time.Duration // for which an answered turn waits at most for Slack to take the last edit of its live message
	editAgain time.Duration // until that is repeated, where an earlier edit may arrive after it
	sockets   atomic.Int32  // that are up
	changed   atomic.Int64  // when the first of them came up, or the last one went, in unix ns; 0: there was none yet
	heardAt   atomic.Int64  // when anything came over one, be it a ping, in unix ns
	eventAt   atomic.Int64  // when something came that somebody did, in unix ns
	met       atomic.Bool   // Slack said hello to one of them
	marks     marks
	native    nativeStatus
	suggest   suggestions
	greeted   lately         // direct messages in which prompts were offered
	kept      lately         // who knows that a message waits until Redis is back
	stored    lately         // turns that Redis has taken
	asides    sync.WaitGroup // what is done beside events and turns
	left      chan struct{}  // closed when the bot was told to leave

	mu    sync.Mutex
	lives map[string]*live // guarded by mu; :: turn → its live message
}

// New introduces the bot to Slack. [ErrToken] if the bot token is refused; other trouble is waited out until ctx ends.
func New(ctx context.Context, cfg Config) (*Bot, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Connections == 0 {
		cfg.Connections = 2
	}
	if cfg.AttachmentLimit == 0 {
		cfg.AttachmentLimit = 5 << 20
	}
	if cfg.AskAfter == 0 {
		cfg.AskAfter = 15 * time.Minute
	}
	if cfg.Silence == 0 {
		cfg.Silence = 30 * time.Second
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{Timeout: 30 * time.Second}
	}
	checked := *cfg.HTTP
	checked.Transport = sessions.OwnersOnly(checked.Transport) // Slack knows no fence
	cfg.HTTP = &checked
	out := newOutbox(cfg.HTTP, cmp.Or(cfg.APIURL, slack.APIURL), cmp.Or(cfg.Pace, 1))
	if cfg.Observe != nil {
		out.observe = cfg.Observe
	}
	opts := []slack.Option{slack.OptionHTTPClient(out), slack.OptionAppLevelToken(cfg.AppToken)}
	if cfg.APIURL != "" {
		opts = append(opts, slack.OptionAPIURL(cfg.APIURL))
	}
	b := &Bot{
		cfg: cfg, log: cfg.Log, api: slack.New(cfg.BotToken, opts...), lives: map[string]*live{}, left: make(chan struct{}),
		lastEdit: settleTime, editAgain: sendTimeout, kept: lately{while: 10 * time.Minute}, stored: lately{while: 5 * time.Second}, greeted: lately{while: suggestAgain},
		out:   out,
		dials: rate.NewLimiter(rate.Every(dialEvery), dialBurst), lookEvery: 15 * time.Second, tryAfter: 500 * time.Millisecond,
		lookBack: make(chan struct{}, 1), hearing: make(chan struct{}, maxHeard),
	}
	b.people.bot = b
	b.marks.hold() // until the first look
	return b, b.introduce(ctx)
}

// introduce learns who the bot is.
func (b *Bot) introduce(ctx context.Context) error {
	for pause := 500 * time.Millisecond; ; pause = min(pause*2, 10*time.Second) {
		who, err := b.api.AuthTestContext(ctx)
		if err == nil {
			b.self, b.team, b.workspace, b.mention = who.UserID, who.TeamID, who.URL, mentionOf(who.UserID)
			return nil
		}
		if isTokenError(err) {
			return fmt.Errorf("SLACK_BOT_TOKEN: %w: %w; take it again from the app's page OAuth & Permissions", ErrToken, err)
		}
		b.log.WarnContext(ctx, "waiting for Slack", "err", err)
		after, _ := asksToWait(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(pause, after)):
		}
	}
}

func isTokenError(err error) bool {
	return slices.Contains([]string{
		"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type", "no_permission",
	}, err.Error())
}

// Close waits until all that was said beside has been said, at most for [leaveTime]. It must be called after Run has
// returned and no turn is worked on any more.
func (b *Bot) Close() { b.asides.Wait() }

// Use gives the bot its sessions. It must be called before Run.
func (b *Bot) Use(s Sessions) { b.sessions = s }

// settleTime outlasts most of what Slack asks for with 429.
const settleTime = 45 * time.Second

// sendTimeout bounds a call of Slack that is waited for also when its turn is another replica's by now.
const sendTimeout = 10 * time.Second

// wholly has do make a call that is waited for once it is on its way, whatever becomes of ctx: the next owner of the turn looks for
// what stands in the thread, and would not see what comes after.
func wholly(ctx context.Context, do func(context.Context) error) func() error {
	return func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return do(whole(ctx))
	}
}

// escape makes the three characters harmless that mean something in Slack's text.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// unescape undoes it.
func unescape(s string) string {
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(s)
}
