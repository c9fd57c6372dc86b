package bot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// All that the bot says of its own accord, in one place. What happened, and what to do.

const (
	sayEmpty          = "Hello! Mention me together with what you would like done, for example: “@flaude why does the login test fail?”"
	sayEnded          = "The session of this thread has ended, so I left your reply alone. Mention me here to begin a fresh one."
	sayNotYou         = "I may only work for full members of this workspace, so I left your message alone. A member can ask me on your behalf."
	sayWrongChannel   = "I am not set up to work in this channel. Ask in one of the channels where I am, or ask whoever runs me to allow this one."
	sayNotThere       = "That thread is in a channel where you are not, or where I am not."
	sayTryAgain       = "Slack did not tell me who you are just now. Please try again in a moment."
	sayNoSession      = "There is no live session here."
	sayNoneHere       = "There are no live sessions in this channel. Mention me to begin one."
	sayNoneOfYours    = "You have no live sessions. Mention me in a channel, or write to me, to begin one."
	sayNoChannel      = "Which channel do you mean? `/flaude config` opens the settings of the one that you are in, `/flaude config #channel` those of another."
	sayOpenSettings   = "The settings of this channel open with this button, or with `/flaude config`."
	saySettingsCome   = "The settings come in a moment."
	sayMayNotChange   = "You may not change these settings: admins of this workspace can, and those whom they name."
	saySecretThere    = "There is a secret of that name: change that one."
	sayManySecrets    = "There are as many secrets as I can show here: remove one first."
	sayAllByDefault   = "All as by default."
	sayVolumeLate     = "The size of a volume can be chosen in the message that begins a session, and this one has begun. Send your message again without `volume:`."
	sayNotHere        = "Only some people may use me in this channel, so I left your message alone. `/flaude config` shows who, and whom to ask."
	sayNoLink         = "That is no link to a thread. Take one with “Copy link” from the menu of any message in it."
	sayCostsWhat      = "`/flaude costs` shows what this channel has cost this month, `/flaude costs mine` what you have, `/flaude costs all` the whole workspace. Put `last`, or a month such as `2026-10`, behind it for another one."
	sayCostsNotAll    = "The costs of the whole workspace are for its admins. `/flaude costs` shows those of this channel, `/flaude costs mine` yours."
	sayBySession      = "*By session*"
	sayByChannel      = "*By channel*"
	sayByPerson       = "*By person*"
	sayCostsEstimated = "Claude’s part is what Claude Code reports, and what was counted of a turn that was cut short. Fly’s is estimated from its list prices; a machine that runs just now comes in when its turn is over."
	sayListWhat       = "`/flaude list` shows the live sessions here, `/flaude list mine` yours everywhere; with a link to a message it shows those of that channel."
	sayNothingRuns    = "Nothing is running here."
	sayStoppedForGood = "Stopped: the session is being ended."
	sayStopping       = "Stopping. The conversation stays: reply to go on."
	sayNow            = "Stopping what runs: your message comes next, in the same conversation."
	sayUnderway       = "Your message does not wait any more."
	sayNotNext        = "Another message comes before yours by now, so I left what runs alone."
	sayMuted          = "Muted: replies here are left to you, unless they mention me. `!unmute` ends that."
	sayIsMuted        = "Muted: only mentions count. `!unmute` ends that."
	sayUnmuted        = "I am listening again: every reply here is for me, unless it begins with `!aside`."
	sayTakenBack      = "Taken back: this message will not be run."
	sayEditedRunning  = "I am at work on this message as it was. To have it as it reads now, press Stop, and then Retry."
	sayEditedDone     = "I have dealt with this message as it was. Shall I run it again as it reads now?"
	sayTrouble        = "I could not reach my memory just now, so nothing was done. Please try again in a moment."
	sayKept           = "I cannot reach my memory just now. Your message is not lost: I take it up as soon as I can, so there is no need to send it again."
	sayOldButton      = "That button belongs to something that is over."
	sayKeptTooLate    = "This session has ended, or is just being ended, so it could not be kept. Mention me in its thread to begin a fresh one."
	sayWasRemoved     = "This session was to be removed, and has been."
	sayRunOver        = "This was a single run on a machine of its own, so I left your reply alone. Mention me here to begin a session that goes on."
	saySlackAway      = "Slack did not let me read that message just now. Please try again in a moment."
	sayRetryGone      = "The message of that turn is gone, so I cannot run it again. Send it once more."
	sayCannotSee      = "it is in a channel where you are not, or where I am not, or it is gone"
	saySlackSilent    = "Slack did not let me read it just now"
	sayManyLinks      = "I read a few links of a message at most"
	sayLate           = "I was away when you wrote this, and that is a while ago. Shall I still do it?"
	sayAskedAlready   = "That was asked for already."
	sayErrandBegins   = "On it."
	sayFetching       = "Fetching. When the machine sleeps it has to wake first, which takes some seconds."
	sayIntoThread     = "On it: it comes into the thread."
	sayDiffGoesOn     = "The diff goes on: the file has more of it."
	sayNothingToFetch = "None of that is a file that I could bring."
	sayEmptyFile      = "The file is empty, and Slack takes no empty files."
	sayNoFilesHere    = "Slack does not take that file here, so I cannot show it."
	sayErrandDone     = "Done."
	sayOpenThere      = "Open it there"
	sayBaseHint       = "If empty, the branch that was cloned."
	sayUntitled       = "Work of a Slack thread"
	sayUncommitted    = "What is not committed"
	sayLeaveOut       = "Leave it out"
	sayCommitToo      = "Commit it, under the title"
	saySaveThenEnd    = "Push to a branch, then end"
	saySaveWork       = "Push what is nowhere else"
	sayKeptOn         = "Somebody wrote here while I pushed, so the session goes on. End it when you are done."
	sayNoBranch       = "Git takes no such name for a branch: letters, digits, dots, dashes and slashes will do."
	sayNoTitle        = "It needs a title."
	saySameBranch     = "It needs a branch of its own, other than the one that it is to be merged into."
	sayAllPushed      = "Everything in this session's repositories is committed and pushed."
	sayCutShort       = "The answer goes on, and Slack takes no files here. Ask me for the rest."
	sayNothingToSay   = "Done. Claude had nothing to say about it."
	sayWhatToRun      = "Say what to run: `/flaude run PROMPT`."
	sayInviteMe       = "I am not in this channel: invite me first."
	sayRunning        = "Running it. The answer comes in its thread."
	sayAgain          = "Running it again."
	sayGoingOn        = "Going on."
	sayWhich          = "Which one?"
	sayEndThis        = "End this session?"
	sayWhatGoes       = "Its machine and its files go. What is pushed stays."
	sayVolumeSize     = "A volume's size is a whole number of GB: `volume:20`."
	saySecrets        = "Variables whose values nobody sees here again, and which I take out of all that I show."
	sayNoSecrets      = "Whoever runs me has set no key to keep secrets with (`FLAUDEBOT_SECRETS_KEY`)."
	sayChannelHint    = "One where you and I are."
	saySecretHint     = "At least 8 characters. It is stored encrypted."
	saySecretNameHint = "Of the variable that Claude's commands see."
	saySecretStays    = "Left empty, it stays as it is."
	sayAllAsZip       = "All of them, as a ZIP file"
	sayLastRan        = "Last turn ran with"
	sayShowDiff       = "Show the diff"
	sayShowFiles      = "Show the changed files"
	sayFetchDiff      = "Fetch the diff"
	sayFetchAll       = "Fetch all changed files"
	sayNoNamedRepos   = "I work on the repositories that I am set up with, and may not take others from a message. Whoever runs me can allow that (FLAUDEBOT_NAMED_REPOS)."
	sayHelp           = "Mention me in a channel to start a session: `@flaude fix the flaky test`. Each thread is one conversation with its own machine and files. " +
		"In a direct message no mention is needed, and each message outside of a thread starts a session of its own.\n" +
		"• Name another repository with `repo:owner/name`, a branch with `branch:name` behind it, and none with `repo:none`, in the message that starts the session.\n" +
		"• Choose for one message with `model:opus` or `effort:high` before or behind it, where the channel lets you.\n" +
		"• Reply in the thread to go on; attach files; edit or delete a message that still waits. Begin with `!aside` to talk among yourselves (I read along, and do nothing), or `!mute` the thread until `!unmute`.\n" +
		"• Stop what runs with its button, with the word “stop”, or with ❌ on the message.\n" +
		"• In the thread: `@flaude status`, `stop`, `end`, `mute`, `help`, or a word with `!` before it. “Manage this session” in the menu of any message shows it with buttons.\n" +
		"• `/flaude list` shows the live sessions here, with a link to a message those of its channel, `/flaude list mine` yours everywhere. `/flaude run PROMPT` runs one prompt on a fresh machine.\n" +
		"• `/flaude costs` shows what this channel has cost this month, `/flaude costs mine` what you have; `last` behind it shows last month.\n" +
		"• `/flaude status`, `/flaude stop` and `/flaude end` take a link to a thread; without one they act on the only session that you can mean, or ask which.\n" +
		"• `/flaude config` shows the settings of the channel, such as its repositories and the model; admins change them there.\n" +
		"• Only you see what `/flaude` answers, unless you put `public` behind it."
)

// suggestTitle stands above the prompts that somebody is offered who opens their direct messages with the bot.
const suggestTitle = "What shall we work on?"

// suggested are those prompts; Slack shows up to four, and sends the message of the one that is pressed.
func suggested() []slack.AssistantThreadsPrompt {
	return []slack.AssistantThreadsPrompt{
		{Title: "Show me around the code", Message: "Give me a tour of the repository: what it does, how it is built and tested, and where to begin reading."},
		{Title: "Find out why a test fails", Message: "Run the tests. For each one that fails, find out why, and propose the smallest change that mends it."},
		{Title: "Review the last week", Message: "Read the commits of the last week, and tell me what changed, what looks risky, and what lacks tests."},
		{Title: "What can you do?", Message: "help"},
	}
}

// saySettingsNotOpened: Slack opens a modal within 3 s of a command, or not at all.
const saySettingsNotOpened = "Slack did not open the settings just now. Please try again in a moment."

// sayInUse says what a turn ran with, of which settings it was told something.
func sayInUse(u sessions.InUse) string {
	parts := []string{"the default model"}
	if u.Model != "" {
		parts[0] = "model `" + escape(u.Model) + "`"
	}
	if u.Fallback != "" {
		parts = append(parts, "falling back to `"+escape(u.Fallback)+"`")
	}
	if u.Effort != "" {
		parts = append(parts, "effort "+escape(u.Effort))
	}
	if u.PermissionMode != "" && u.PermissionMode != runner.ModeBypass {
		parts = append(parts, "permission mode "+escape(u.PermissionMode))
	}
	for _, one := range []struct {
		n    int
		what string
	}{
		{len(u.AllowedTools), "allowed tool"}, {len(u.Hosts), "host that may be reached"}, {len(u.MCPServers), "MCP server"}, {len(u.Env), "variable"}, {len(u.Secrets), "secret"},
	} {
		if one.n > 0 {
			parts = append(parts, plural(one.n, one.what))
		}
	}
	for _, one := range []struct {
		is   bool
		what string
	}{
		{u.Instructions, "the channel's instructions"}, {u.SetUp, "a set-up command"}, {u.Trust, "trust in the repository's settings"},
	} {
		if one.is {
			parts = append(parts, one.what)
		}
	}
	if u.TimeoutSeconds > 0 {
		parts = append(parts, "at most "+elapsed(time.Duration(max(u.TimeoutSeconds, 5))*time.Second)+" a turn")
	}
	if u.LingerSeconds > 0 {
		parts = append(parts, "a machine that stays for "+elapsed(time.Duration(max(u.LingerSeconds, 5))*time.Second))
	}
	return strings.Join(parts, ", ")
}

// sayWhichRepo offers repositories to somebody whose session has begun without one.
const sayWhichRepo = "I begin without a repository. If this is about one of these, choose it, and I go on in it."

// sayHowToName tells somebody whose session has begun without a repository, once, how another gets one.
func sayHowToName(places []string) string {
	return "I begin without a repository, and a plain question needs none. To have me work on one, name it in the message that starts a thread: `repo:owner/name`, " +
		"or `repo:` with its address, below " + strings.Join(places, ", ") + ". I say this once."
}

// inRepo is what Claude is told when somebody has chosen a repository.
func inRepo(r runner.Repo) string {
	return "The repository " + sessions.RepoText(r) + " is in your workspace now. Go on in it with what you were asked."
}

func sayGoingOnIn(r runner.Repo) string {
	return "Going on in `" + escape(reposText([]runner.Repo{r})) + "`."
}

// sayAllowed says what a message may choose.
func sayAllowed(allowed []sessions.Override) string {
	if len(allowed) == 0 {
		return "nothing can be chosen in a message here."
	}
	var all []string
	for _, o := range allowed {
		all = append(all, map[sessions.Override]string{
			sessions.OverrideModel: "`model:opus`", sessions.OverrideEffort: "`effort:high`", sessions.OverrideVolume: "`volume:20`",
		}[o])
	}
	return "what can be chosen here is like " + strings.Join(all, ", ") + "."
}

func sayChangedMeanwhile(who string) string {
	return fmt.Sprintf("%s has changed these settings meanwhile. Close this and open it again to see them as they are.", who)
}

// saySaved names what was saved: what counts from the next turn, and what from the next session.
func saySaved(turns, fresh []string) string {
	var parts []string
	if len(turns) > 0 {
		parts = append(parts, strings.Join(turns, ", ")+", from the next turn")
	}
	if len(fresh) > 0 {
		parts = append(parts, strings.Join(fresh, ", ")+", for sessions that begin from now on")
	}
	return "Saved: " + strings.Join(parts, "; ") + "."
}

func sayNoModel(named string) string {
	return fmt.Sprintf("I know no model “%s”. Name one such as `model:opus`, `model:sonnet` or `model:haiku`, or by its full name.", escape(clip(named, 60)))
}

func sayNoEffort(named string) string {
	return fmt.Sprintf("There is no effort “%s”: choose one of %s.", escape(clip(named, 60)), strings.Join(runner.Efforts(), ", "))
}

// sayFetch is what an errand is called that brings one file.
func sayFetch(name string) string { return "Fetch " + name }

// sayUnknownWord answers a command that there is none of.
func sayUnknownWord(word string) string {
	return "I do not know “" + escape(clip(unescape(word), 40)) + "”.\n" + sayHelp
}

// sayRunsOnce begins the thread of a single run.
func sayRunsOnce(user, prompt string) string {
	return "<@" + user + "> runs once: " + escape(clip(unescape(prompt), 500))
}

// sayNotAllowed says why a message may not choose what it does.
func sayNotAllowed(problem string, allowed []sessions.Override) string {
	return sentence(escape(problem)) + ". Send your message again without that; " + sayAllowed(allowed)
}

// saySettingsOf stands above the settings of a channel for those who may change them.
func saySettingsOf(channel string) string {
	return "Settings of <#" + channel + ">. They count from the next turn; what a machine and its workspace are made of, from the next session."
}

// sayShownSettings stands above them for the others.
func sayShownSettings(channel string) string {
	return "Settings of <#" + channel + ">. Admins of this workspace can change them, and those whom they name."
}

func sayChangedLast(by string, at time.Time) string {
	return "Changed last by <@" + by + ">, " + date(at) + "."
}

// sayOnlyInFile stands in the place of an answer that Slack takes as a file alone.
func sayOnlyInFile(name string) string { return "The answer is in the file " + name + "." }

func sayInFile(name string) string { return "The whole answer is in the file " + name + "." }

func sayBranchOf(branch string) string {
	return "Say of which repository: `repo:owner/name branch:" + escape(branch) + "`."
}

func sayNoWorkspace(why error) string {
	return "That does not make a workspace: " + escape(why.Error()) + "."
}

func sayForeignRepo(named string, places []string) string {
	return fmt.Sprintf("I may not work on `%s`. Repositories that I may be given are below %s.", escape(clip(named, 100)), strings.Join(places, ", "))
}

// sayNowhere tells somebody that what was done for them cannot be told where they asked.
func sayNowhere(channel string, why error) string {
	reason := "the thread is gone"
	switch {
	case isCode(why, "is_archived"):
		reason = "the channel is archived"
	case isCode(why, "not_in_channel", "channel_not_found"):
		reason = "I am not in the channel any more"
	case isCode(why, "restricted_action"):
		reason = "I may not write there"
	}
	return fmt.Sprintf("I am done with what you asked me in <#%s>, and cannot answer there: %s. Files and conversation are kept until the session ends.", channel, reason)
}

// sayFull refuses a message since too many wait already.
func sayFull(of sessions.Bound) string {
	many := "Too many messages are waiting here already"
	switch of {
	case sessions.BoundPerson:
		many = "As many messages of yours are waiting as I keep for one person"
	case sessions.BoundAll:
		many = "As many messages are waiting, in all channels, as I keep"
	case sessions.BoundChannel:
		many = "As many messages of this channel are waiting as I keep for one"
	case sessions.BoundThread, sessions.BoundTurn:
	}
	return many + ", so I did not take this one. Send it again when some are answered."
}

// sayParked tells why a message waits that nothing in its thread comes before.
func sayParked(of sessions.Bound) string {
	if of == sessions.BoundChannel {
		return "As many messages of this channel are being worked on as may be at once. Yours begins when one of them is done."
	}
	return "As many of your messages are being worked on as may be at once. This one begins when one of them is done."
}

func sayPlace(ahead int) string {
	if ahead == 1 {
		return "Got it. One turn of this thread comes before yours."
	}
	return fmt.Sprintf("Got it. %d turns of this thread come before yours.", ahead)
}

// sayUnshown tells which pictures Claude has as files only, "" if there are none.
func sayUnshown(pictures []runner.Unshown) string {
	var lines []string
	for i, p := range pictures {
		if i == maxChangeLines {
			lines = append(lines, fmt.Sprintf("and %d more", len(pictures)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("Claude has %s as a file, and was not shown it as a picture: %s.", codeName(p.Name), escape(p.Why)))
	}
	return strings.Join(lines, "\n")
}

// sayChanged tells how much a turn changed.
func sayChanged(c *runner.Changes) string {
	if c == nil || c.Total == 0 {
		return "Nothing changed."
	}
	text := "*Changed " + plural(c.Total, "file") + "*"
	if c.Added > 0 || c.Removed > 0 {
		text += fmt.Sprintf(" · +%d −%d lines", c.Added, c.Removed)
	}
	if c.Partial {
		text += " · there may be more: I could not look at everything"
	}
	return text
}

func sayPickFile(more int) string {
	if more > 0 {
		return fmt.Sprintf("Pick a file to have it in the thread, as it is now. %s not listed here: ask for it in the thread.", plural(more, "more file")+" "+isOrAre(more))
	}
	return "Pick a file to have it in the thread, as it is now."
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// sayDiffAbove goes with a diff as a file.
func sayDiffAbove(c *runner.Changes) string {
	return "The diff is in the file above. " + sayChanged(c)
}

// sayAllAbove goes with an archive of changed files.
func sayAllAbove(c *runner.Changes) string {
	if left := c.Total - len(c.Files); left > 0 {
		return fmt.Sprintf("The file above holds %d of the %s that changed, as they are now. The rest is gone by now, is no plain file, or is more than I can bring at once.",
			len(c.Files), plural(c.Total, "file"))
	}
	return fmt.Sprintf("The file above holds %s, as they are now.", plural(len(c.Files), "changed file"))
}

// sayFileAbove goes with one file.
func sayFileAbove(files []runner.Change) string {
	if len(files) == 0 {
		return "The file is above, as it is now."
	}
	return codeName(files[0].Path) + " is above, as it is now."
}

// sayNext tells who waited behind several turns that only one is left before theirs.
func sayNext(t sessions.Turn) string { return "Yours comes next: " + about(t) + "." }

// sayErrandPlace tells how many turns somebody has to wait for who pressed a button.
func sayErrandPlace(ahead int) string {
	if ahead == 1 {
		return "I will do that as soon as the turn before it has ended."
	}
	return fmt.Sprintf("I will do that as soon as the %d turns before it have ended.", ahead)
}

// sayErrandFailed says why what a button asked for could not be done, and what to do about it.
func sayErrandFailed(t sessions.Turn, o sessions.Outcome) string {
	what, detail := escape(t.Text), quoted(o.Error)
	switch o.Failure {
	case runner.FailStopped:
		return what + ": stopped."
	case sessions.FailEnded:
		return what + ": there is no live session here any more, so there was nothing to do that with."
	case runner.FailTimeout:
		return what + ": this took too long, so I stopped it. Press the button again." + detail
	case runner.FailNoPrompt, runner.FailHandover:
		return what + ": the machine of this session runs an older version of mine that cannot do that. End the session and begin a fresh one when your work is safe." + detail
	case sessions.FailMachine, runner.FailInterrupted, sessions.FailMemory, sessions.FailForgotten:
		return what + ": the machine ended before it was through. It may have done part of it: look before you press the button again." + detail
	case sessions.FailQuota, sessions.FailPayment:
		return what + ": Fly gives my organization no machine, so nothing was done. Whoever runs me must look at its quota and billing there." + detail
	case sessions.FailNotUp, sessions.FailCapacity, sessions.FailFly, sessions.FailHost:
		return what + ": I could not get the machine ready, so nothing was done. Press the button again in a few minutes." + detail
	case sessions.FailFlyAccess:
		return what + ": Fly refuses my token, so nothing was done. Whoever runs me must check FLY_API_TOKEN and FLAUDEBOT_FLY_APP." + detail
	case sessions.FailLost:
		return what + ": the machine and its files are gone." + detail
	default:
		return what + ": that did not work." + detail
	}
}

// What Git hosts call it.
const (
	pullRequest  = "pull request"
	mergeRequest = "merge request" // GitLab
)

// requestOf is what the host of a pull request calls it.
func requestOf(p runner.Pull) string {
	if strings.Contains(p.URL, "/-/merge_requests/") {
		return mergeRequest
	}
	return pullRequest
}

// sayOpenPull is on the button that opens one.
func sayOpenPull(request string) string { return "Open " + request }

// sayNotPulled says why a pull request, or what its host calls one, was not opened, and what to do about it.
func sayNotPulled(request, branch string, o sessions.Outcome) string {
	pushed := len(o.Branches) > 0
	did := "I could not push `" + codeText(branch) + "`"
	if pushed {
		did = "I pushed `" + codeText(branch) + "`, but could not open the " + request
	}
	var why string
	switch o.Failure {
	case runner.FailNothing:
		return "There is nothing to open a " + request + " with: no commits that the other branch does not have." + quoted(o.Error)
	case runner.FailNoToken:
		why = "I have no token for its Git host. Whoever runs me must set GITHUB_TOKEN"
	case runner.FailNoRight:
		why = "the Git host does not let my token do that. Whoever runs me must give GITHUB_TOKEN the right to write contents and " + request + "s of this repository"
	case runner.FailProtected:
		why = "that branch is protected at the Git host. Choose another name for it"
	case runner.FailTaken:
		why = "that branch has commits at the Git host that are not here. Choose another name for it, or ask me to bring them in first"
	case runner.FailRemote:
		why = "the Git host does not answer just now. Press the button again in a few minutes"
	case runner.FailNoForge:
		why = "nobody has told me what that Git host is. Open it there, or have whoever runs me set FLAUDEBOT_FORGES"
	case runner.FailForge:
		why = "the Git host does not take it"
	case runner.FailErrand:
		why = "Git does not do it"
	default:
		return ""
	}
	if pushed {
		why = strings.Replace(why, "Press the button again", "Open it there, or press the button again", 1)
	}
	return did + ": " + why + "." + quoted(o.Error)
}

// sayPulled says that a pull request is there.
func sayPulled(p runner.Pull, branch, user string) string {
	name := "<" + p.URL + "|" + escape(sayPull(p, false)) + ">"
	if p.Existed {
		return name + " is open for `" + codeText(branch) + "` already, and has what was pushed now."
	}
	return name + " is open, from `" + codeText(branch) + "`, for <@" + user + ">."
}

// sayPushedAll names the branches that hold what was nowhere else.
func sayPushedAll(branches []runner.Branch) string {
	if len(branches) == 0 {
		return "There was nothing to push: all of it is at its Git host."
	}
	var names []string
	for _, b := range branches {
		names = append(names, "`"+codeText(b.Name)+"` in `"+codeText(b.Dir)+"`")
	}
	return "Pushed, with what was not committed: " + strings.Join(names, ", ") + "."
}

// sayNotSaved says that some work is still nowhere else.
func sayNotSaved(o sessions.Outcome) string {
	why := "Git, or its host, did not take all of it. Nothing was ended."
	switch o.Failure {
	case runner.FailNoToken:
		why = "I have no token for its Git host, so nothing was ended. Whoever runs me must set GITHUB_TOKEN."
	case runner.FailNoRight:
		why = "The Git host does not let my token push there, so nothing was ended."
	case runner.FailRemote:
		why = "The Git host does not answer just now, so nothing was ended. Try again in a few minutes."
	default: // see above
	}
	return "I could not push everything. " + why + quoted(o.Error)
}

// codeText is text within backticks.
func codeText(s string) string { return escape(strings.ReplaceAll(s, "`", "'")) }

// sayWork says what a repository holds that its remote does not.
func sayWork(r runner.RepoState) string {
	var what []string
	if r.Changed > 0 {
		what = append(what, plural(r.Changed, "file")+" not committed")
	}
	if r.Unpushed > 0 {
		what = append(what, plural(r.Unpushed, "commit")+" not pushed")
	}
	if len(what) == 0 {
		return "all is pushed"
	}
	return strings.Join(what, ", ")
}

// quoted is what somebody else said of an error, as a quote below a sentence.
func quoted(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	return "\n> " + strings.ReplaceAll(escape(text), "\n", "\n> ")
}

// sayUnreadLink tells that Claude does not get a linked message, and why.
func sayUnreadLink(link, why string) string {
	return fmt.Sprintf("I go on without <%s|the message that you linked>: %s.", escape(link), why)
}

func sayRefusedFiles(names []string, limit int64) string {
	return fmt.Sprintf("I can take attachments up to %d KB that are kept at Slack, so these stay behind: %s.", limit>>10, escape(strings.Join(names, ", ")))
}

func sayNotYours(owner string) string {
	return fmt.Sprintf("Only <@%s>, who started this session, or an admin can end it.", owner)
}

// sayUnpushed names the work that an end would throw away.
func sayUnpushed(s sessions.Session) string {
	var parts []string
	known := false
	for _, r := range s.Unpushed() {
		var what []string
		if r.Changed > 0 {
			what = append(what, plural(r.Changed, "changed file"))
		}
		if r.Unpushed > 0 {
			what = append(what, plural(r.Unpushed, "unpushed commit"))
		}
		known = known || len(what) > 0
		if r.Unknown {
			what = append(what, "I could not look")
		}
		parts = append(parts, fmt.Sprintf("`%s`: %s", escape(r.Dir), strings.Join(what, ", ")))
	}
	fetch := ""
	if loose := s.Loose(); len(loose) > 0 {
		known, fetch = true, " Files below an answer brings files into this thread."
		parts = append(parts, sayLoose(loose))
	}
	holds := "may hold"
	if known {
		holds = "holds"
	}
	return "This session " + holds + " work that is nowhere else — " + strings.Join(parts, "; ") + ". Ending it throws that away." + fetch
}

// sayLoose names files that are in no repository.
func sayLoose(files []string) string {
	const most = 3
	var names []string
	for _, f := range files[:min(len(files), most)] {
		names = append(names, "`"+codeText(clip(f, 100))+"`")
	}
	if len(files) > most {
		names = append(names, "…")
	}
	return plural(len(files), "file") + " in no repository: " + strings.Join(names, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sayEnding(e sessions.Ending) string {
	s := "Ending the session."
	if e.Stopped != nil {
		s += " The running turn is being stopped."
	}
	messages, errands := 0, 0
	for _, t := range e.Dropped {
		if t.Kind == sessions.KindErrand {
			errands++
		} else {
			messages++
		}
	}
	var dropped []string
	if messages > 0 {
		dropped = append(dropped, plural(messages, "waiting message"))
	}
	if errands > 0 {
		dropped = append(dropped, plural(errands, "waiting request"))
	}
	if len(dropped) > 0 {
		s += fmt.Sprintf(" Cancelled, and not run: %s.", strings.Join(dropped, " and "))
	}
	return s
}

func sayGoodbye(s sessions.Session, o sessions.Outcome) string {
	switch o.Failure {
	case runner.FailNone:
	case sessions.FailStuck, sessions.FailRecord:
		return "I could not end the session: what I know of it cannot be read or written. Whoever runs me should look at my logs."
	default:
		return "The session has ended, but I could not remove its machine yet: " + escape(o.Error) + ". I will keep trying."
	}
	why := ""
	switch s.EndReason {
	case sessions.EndByTTL:
		why = " because its time was up"
	case sessions.EndByIdle:
		why = " because nobody used it for a long time"
	case sessions.EndByPerson:
	}
	what := []string{plural(s.Turns, "turn")}
	if s.Did.Worked >= time.Second {
		what = append(what, took(s.Did.Worked)+" of work")
	}
	what = append(what, fmt.Sprintf("$%.2f", s.CostUSD))
	switch n := len(s.Did.Files); {
	case n > 0 && s.Did.More:
		what = append(what, "more than "+plural(n, "file")+" changed")
	case n > 0:
		what = append(what, plural(n, "file")+" changed")
	}
	for _, request := range []string{pullRequest, mergeRequest} {
		if n := len(slices.DeleteFunc(slices.Clone(s.Did.Pulls), func(p runner.Pull) bool { return requestOf(p) != request })); n > 0 {
			what = append(what, plural(n, request))
		}
	}
	return "The session has ended" + why + ": " + strings.Join(what, ", ") + "." + sayThrownAway(s) + " Its machine and files are gone. Mention me here to begin a fresh one."
}

// sayThrownAway names the work that went with a session.
func sayThrownAway(s sessions.Session) string {
	var parts []string
	for _, r := range s.Unpushed() {
		if r.Changed > 0 || r.Unpushed > 0 {
			parts = append(parts, "`"+codeText(r.Dir)+"`: "+sayWork(r))
		}
	}
	if loose := s.Loose(); len(loose) > 0 {
		parts = append(parts, sayLoose(loose))
	}
	if len(parts) == 0 {
		return ""
	}
	return " What was nowhere else went with it: " + strings.Join(parts, "; ") + "."
}

// took says how long something took in all.
func took(d time.Duration) string {
	switch s := int(d / time.Second); {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	default:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
}

func sayEndsSoon(at time.Time) string {
	return "This session will be removed " + date(at) + ", with its files. Press “Keep it” to put that off, or push what you want to keep."
}

// sayKeptUntil stands in the place of the notice that a session ends soon.
func sayKeptUntil(user string, until time.Time) string {
	if until.IsZero() {
		return fmt.Sprintf("Kept by <@%s>: this session does not end by itself.", user)
	}
	return fmt.Sprintf("Kept by <@%s> until %s.", user, date(until))
}

// failureSentence says what went wrong with a turn and what to do about it.
func failureSentence(o sessions.Outcome) string {
	detail := quoted(o.Error)
	switch o.Failure {
	case runner.FailStopped:
		return "Stopped. The conversation stays: press Continue, or reply to go on."
	case runner.FailTimeout:
		return "This took longer than a turn may take, so I stopped it. Press Continue, or ask for a smaller step." + detail
	case runner.FailBudget:
		return sayBroke(o, true)
	case runner.FailCredentials:
		return "Claude refuses my credential. Whoever runs me must renew CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_API_KEY; then press Retry." + detail
	case runner.FailLimit:
		return "Claude's usage limit is reached. Press Retry when it has reset." + detail
	case runner.FailAPI:
		return "Claude's API does not answer just now. Press Retry in a few minutes." + detail
	case runner.FailClone:
		return "I could not clone a repository, so nothing was run. Check its address and my access to it, then press Retry." + detail
	case runner.FailSetUp:
		return "The set-up command of this channel failed, so Claude was not started. Mend it in the channel's settings, then press Retry." + detail
	case runner.FailSettings:
		return "The settings of this channel cannot be used as they are, so nothing was run. An admin can mend them; then press Retry." + detail
	case runner.FailTranscript:
		return "The conversation so far cannot be resumed. End the session and mention me to begin a fresh one." + detail
	case runner.FailDisk:
		if o.Larger != nil {
			return "The session's volume is full. Run this again on a larger one with the button, or ask me to delete what is not needed." + detail
		}
		return "The session's volume is full. Ask me to delete what is not needed, or end the session and begin one with a larger volume." + detail
	case runner.FailStart:
		return "Claude Code could not be started. Whoever runs me should check the session image; then press Retry." + detail
	case runner.FailKilled:
		return "Claude Code was killed in mid-turn. The conversation stays: press Retry, or reply to go on." + detail
	case sessions.FailMachine, runner.FailInterrupted:
		return "The machine ended in mid-turn. Files and conversation stay. It may have done part of the work: look before you press Retry." + detail
	case sessions.FailNotUp:
		return "The machine did not get ready, so nothing was run. Files and conversation stay. Press Retry; if it happens again, whoever runs me should look at the machine." + detail
	case sessions.FailMemory:
		if o.Larger != nil {
			return "The machine ran out of memory. Files and conversation stay. Run this again on a larger machine with the button, or ask for a smaller step." + detail
		}
		return "The machine ran out of memory. Files and conversation stay. Press Retry, or ask for a smaller step." + detail
	case sessions.FailCapacity:
		return "Fly has no room for the machine just now. Press Retry in a few minutes." + detail
	case sessions.FailQuota:
		return "Fly gives my organization no more machines or memory. Whoever runs me must have the quota raised, or end sessions; then press Retry." + detail
	case sessions.FailPayment:
		return "Fly makes no machine before a payment is settled. Whoever runs me must look at the billing page of my organization at Fly; then press Retry." + detail
	case sessions.FailHost:
		return "The host at Fly that keeps the files of this session has not answered for days. Files and conversation are still there: press Retry to wait on, or mention me in a new thread." + detail
	case sessions.FailFly:
		return "Fly does not do what I ask just now. Press Retry in a few minutes." + detail
	case sessions.FailFlyAccess:
		return "Fly refuses my token. Whoever runs me must check FLY_API_TOKEN and FLAUDEBOT_FLY_APP; then press Retry." + detail
	case sessions.FailLost:
		return "The machine and its files are gone, and the conversation with them. Your next message here begins a fresh one." + detail
	case sessions.FailForgotten:
		return "The machine knows nothing of this turn any more, so I cannot say how it ended. It may have done part of the work: look before you press Retry." + detail
	case runner.FailNoPrompt:
		return "There was nothing to ask: the message is blank. Send it again with words." + detail
	case runner.FailRepos:
		return "A repository among my settings makes no sense, so nothing was run. Whoever runs me must mend FLAUDEBOT_REPOS; then press Retry." + detail
	case runner.FailHandover:
		return "I could not hand your message to the machine, so nothing was run. Press Retry; if it happens again, whoever runs me should look at the machine." + detail
	case sessions.FailTooMuch:
		return "Your message brings more than I can hand to the machine, so nothing was run. Send less, or put it into a repository." + detail
	case runner.FailFile:
		return "I could not get an attachment into the workspace, so nothing was run. Attach it again, or press Retry." + detail
	case sessions.FailRepeated:
		return "This message brought me down several times, so I gave it up. Try to say it differently." + detail
	case sessions.FailSlack:
		return "Slack did not let me read your message just now, so nothing was run. Press Retry in a few minutes." + detail
	case sessions.FailGone:
		return "The message was deleted before I could read it, so nothing was run."
	case sessions.FailStuck:
		return "Something of my own stayed in the way of this message for too long, so I gave it up. It may have done part of the work: look before you press Retry." + detail
	case sessions.FailRecord:
		return "What I know of this thread's session cannot be read, so nothing was run. Ask in a new thread; whoever runs me should look at my logs." + detail
	case sessions.FailEnded:
		return "The session ended while this message waited. Mention me to begin a fresh one."
	case runner.FailNone, runner.FailClaude: // told by what Claude Code said
	case runner.FailErrand, runner.FailNothing, runner.FailNoToken, runner.FailNoRight, runner.FailProtected, runner.FailTaken, runner.FailRemote, runner.FailForge,
		runner.FailNoForge: // of errands alone, see sayErrandFailed
	}
	return fmt.Sprintf("Claude ended with an error (exit %d). The conversation stays: press Retry, or reply to go on.", o.ExitCode) + detail
}

// sayBroke says which budget is used up, and how the thread goes on: it has buttons for that, or, after a single run, none.
func sayBroke(o sessions.Outcome, buttons bool) string {
	ask, again := "The conversation stays. An admin can allow more with the button", " The conversation stays: press Retry."
	if !buttons {
		ask, again = "Whoever runs me can raise it", ""
	}
	b := o.Budget
	switch {
	case b == nil: // it was raised meanwhile
		return "This was stopped since a budget was used up." + again
	case b.Bound == sessions.BoundTurn:
		return fmt.Sprintf("I stopped since this has cost %s and a turn may cost %s. %s. Or ask for a smaller step.", dollars(b.SpentUSD), dollars(b.USD), ask)
	}
	did := "nothing was run"
	if o.CostUSD > 0 {
		did = "I stopped"
	}
	now := o.EndedAt.UTC()
	next := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	return fmt.Sprintf("The budget of %s for this month is used up (%s of %s), so %s. %s; else there is a new one from %s on.",
		whoseBudget(b.Bound, ""), dollars(b.SpentUSD), dollars(b.USD), did, ask, date(next))
}

// whoseBudget names whom a budget is for: user, where it is a person's; "": who asked.
func whoseBudget(b sessions.Bound, user string) string {
	switch b {
	case sessions.BoundTurn:
		return "this turn"
	case sessions.BoundThread:
		return "this thread"
	case sessions.BoundPerson:
		if user != "" {
			return "<@" + user + ">"
		}
		return "the person who asked"
	case sessions.BoundChannel:
		return "this channel"
	default:
		return "all channels together"
	}
}

// sayBudget says how much of a budget is used, see [whoseBudget].
func sayBudget(b sessions.Budget, user string) string {
	return fmt.Sprintf("%s of %s spent for %s this month", dollars(b.SpentUSD), dollars(b.USD), whoseBudget(b.Bound, user))
}

// sayBudgets stands above the budgets that turns are charged to.
const sayBudgets = "*Budgets*"

// sayAllow is on the button that raises a budget.
func sayAllow() string { return fmt.Sprintf("Allow $%d more", allowedUSD) }

// sayMayNotAllow tells who may raise a budget.
func sayMayNotAllow(of sessions.Bound) string {
	if of == sessions.BoundAll || of == sessions.BoundPerson {
		return "Only admins of this workspace can allow that."
	}
	return "Only admins of this workspace can allow that, and those whom they name in the settings of this channel."
}

// sayAllowedFor tells who raised the budget of somebody else that these can go on.
func sayAllowedFor(user string) string {
	return fmt.Sprintf("Done: <@%s> has $%d more this month, and can press Retry.", user, allowedUSD)
}

// sayAllowedMore tells a thread who raised a budget: user is whose it is where it is a person's.
func sayAllowedMore(by, user string, of sessions.Bound) string {
	whose := whoseBudget(of, user)
	if of != sessions.BoundTurn {
		whose += " this month"
	}
	return fmt.Sprintf("<@%s> allowed $%d more for %s.", by, allowedUSD, whose)
}

// sayAllowedAlready tells who would raise a budget again by the same button.
func sayAllowedAlready() string {
	return fmt.Sprintf("$%d more were allowed here already. When those are used up as well, the next answer has this button again.", allowedUSD)
}

// sayRaised tells who raised a budget that what it stopped was asked for again already.
func sayRaised() string {
	return fmt.Sprintf("Done: there are $%d more this month. Press Retry below the last answer, or reply to go on.", allowedUSD)
}

// sayRunLarger is on the button that runs a turn again on what it had too little of. The session keeps that.
func sayRunLarger(l sessions.Larger) string {
	if l.VolumeGB > 0 {
		return fmt.Sprintf("Run again with a volume of %d GB", l.VolumeGB)
	}
	return "Run again with " + memoryText(l.Guest.MemoryMB) + " of memory"
}

// memoryText is an amount of memory.
func memoryText(mb int) string {
	if mb%1024 == 0 {
		return fmt.Sprintf("%d GB", mb/1024)
	}
	return fmt.Sprintf("%d MB", mb)
}

// sayDenied names what Claude was not allowed to do: there is nobody in a turn who could be asked.
func sayDenied(denied []runner.Denied) string {
	const most = 5
	var parts []string
	for _, d := range denied[:min(len(denied), most)] {
		what := escape(d.Tool)
		if d.On != "" {
			what += " `" + escape(strings.ReplaceAll(clip(d.On, 100), "`", "'")) + "`"
		}
		parts = append(parts, what)
	}
	if more := len(denied) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return "The settings of this channel did not allow Claude: " + strings.Join(parts, ", ") + ". An admin of the channel can allow more."
}

// sayUnreached names hosts that were asked for and may not be reached.
func sayUnreached(hosts []string) string {
	var parts []string
	for _, h := range hosts {
		parts = append(parts, "`"+escape(strings.ReplaceAll(h, "`", "'"))+"`")
	}
	return "Not reached, since the settings of this channel do not name them: " + strings.Join(parts, ", ") + ". An admin of the channel can allow more, by HTTP and HTTPS on their usual ports."
}

// goOn is what Claude is told when somebody presses Continue.
const goOn = "Go on from where you were stopped."

// canContinue tells ends of a turn after which there is something to go on with.
func canContinue(f sessions.Failure) bool { return f == runner.FailStopped || f == runner.FailTimeout }

// canRetry tells failures after which running the same prompt again makes sense.
func canRetry(f sessions.Failure) bool {
	switch f {
	case runner.FailNone, runner.FailNoPrompt, sessions.FailEnded, sessions.FailGone, sessions.FailRecord, sessions.FailTooMuch, runner.FailTranscript, runner.FailDisk:
		return false
	}
	return true
}

// footerLine is the last line of every turn's answer.
func footerLine(o sessions.Outcome) string {
	parts := []string{fmt.Sprintf("exit %d · %d s · $%.2f · turn %d", o.ExitCode, seconds(o), o.CostUSD, o.Number)}
	for _, b := range unlinked(o) {
		parts = append(parts, "pushed "+escape(b.Name))
	}
	if o.Budget != nil && o.Failure != runner.FailBudget {
		parts = append(parts, sayBudget(*o.Budget, ""))
	}
	return strings.Join(parts, " · ")
}

// sayPull is what a pull request is called on a button.
func sayPull(p runner.Pull, several bool) string {
	name := "Pull request #" + p.Number
	if requestOf(p) == mergeRequest {
		name = "Merge request !" + p.Number
	}
	if several {
		name += " in " + p.Dir
	}
	return name
}

// sayBranch is what a branch is called on a button.
func sayBranch(b runner.Branch, several bool) string {
	if several {
		return "Branch " + b.Name + " in " + b.Dir
	}
	return "Branch " + b.Name
}

// sayListOf stands above the sessions of a channel that was named by a link.
func sayListOf(channel string) string { return "In <#" + channel + ">:" }

// sayMoreSessions ends a list of sessions that is cut short.
func sayMoreSessions(n int) string {
	return fmt.Sprintf("… and %s that were used before these.", plural(n, "session"))
}

// rowOf says of a session what it is about, whose it is, and how it stands.
func rowOf(s listed, where bool) string {
	what := "A session"
	if s.About != "" {
		what = aboutSession(s.Session)
	}
	parts := []string{"<@" + s.Owner + ">", plural(s.Turns, "turn"), fmt.Sprintf("$%.2f", s.CostUSD)}
	if where {
		parts[0] = "<#" + s.Thread.Channel + ">"
	}
	if s.busy {
		parts = append(parts, "at work now")
	} else {
		parts = append(parts, "last used "+date(s.LastTurn))
	}
	if !s.EndsAt.IsZero() {
		parts = append(parts, "ends "+date(s.EndsAt))
	}
	if s.link != "" {
		parts = append(parts, "<"+s.link+"|open>")
	}
	return what + "\n" + strings.Join(parts, " · ")
}

// sayWhichCosts says what costs are told of.
func sayWhichCosts(q costsAsked, channel string) string {
	month := q.name()
	switch {
	case q.mine:
		return "your turns and sessions in " + month
	case q.all:
		return "the workspace in " + month
	}
	return placeOf(channel) + " in " + month
}

// placeOf is a channel, or a conversation that has no name.
func placeOf(channel string) string {
	if strings.HasPrefix(channel, "D") {
		return "this conversation"
	}
	return "<#" + channel + ">"
}

func sayNoCosts(q costsAsked) string {
	if !q.mine && !q.all {
		return "Nothing has cost anything here in that month."
	}
	return "There were no costs for " + sayWhichCosts(q, "") + "."
}

func sayCostsOf(q costsAsked, channel string, total sessions.Cost) string {
	what := estimated(total.TotalUSD)
	return "*" + strings.ToUpper(what[:1]) + what[1:] + "* for " + sayWhichCosts(q, channel) + "."
}

// sayCostParts says what costs are made of.
func sayCostParts(c sessions.Cost) string {
	return fmt.Sprintf("Claude %s in %s · machines %s, %s · disk %.1f GB-days, %s", dollars(c.ModelUSD), plural(c.Turns, "turn"),
		took(time.Duration(c.MachineSeconds*float64(time.Second))), estimated(c.MachineUSD), c.DiskGBDays, estimated(c.DiskUSD))
}

func sayCostLine(name string, c sessions.Cost) string {
	return fmt.Sprintf("• %s: %s, %s", name, dollars(c.TotalUSD), plural(c.Turns, "turn"))
}

func sayCostOfSession(s costRow, where bool) string {
	what := cmp.Or(s.about, "A session")
	if s.link != "" {
		what += " (<" + s.link + "|open>)"
	}
	if where {
		what += " in " + placeOf(s.Thread.Channel)
	}
	return sayCostLine(what, s.Cost)
}

// dollars is an amount; a small one is not nothing.
func dollars(usd float64) string {
	if usd > 0 && usd < 0.01 {
		return "under $0.01"
	}
	return fmt.Sprintf("$%.2f", usd)
}

// estimated is an amount that is not known exactly.
func estimated(usd float64) string {
	if usd > 0 && usd < 0.01 {
		return dollars(usd)
	}
	return "about " + dollars(usd)
}

// about is a turn in a few words.
func about(t sessions.Turn) string {
	if t.Kind == sessions.KindEnd {
		return "the session's end"
	}
	if t.Kind == sessions.KindErrand {
		return escape(t.Text) + ", for <@" + t.User + ">"
	}
	what := glimpse(t.Text)
	if t.AtSlack {
		what = withoutMarks(t.About)
	}
	switch {
	case what != "":
		what = "“" + escape(what) + "”"
	case len(t.Files) > 0:
		what = plural(len(t.Files), "file")
	default:
		what = "a message"
	}
	return what + " by <@" + t.User + ">"
}

func sayEndsItself(at time.Time) string { return "It ends by itself " + date(at) + "." }

func sayRanWith(u sessions.InUse) string { return "Its last turn ran with " + sayInUse(u) + "." }

func sayAtWork(t sessions.Turn) string { return "Running: " + about(t) }

// sayWaiting is a turn that waits, with its place.
func sayWaiting(place int, t sessions.Turn) string {
	return fmt.Sprintf("%d. waiting: %s", place, about(t))
}

// sayDone counts the entries of the task list.
func sayDone(done, all int) string { return fmt.Sprintf("%d of %d done", done, all) }

func sayMore(n int) string { return fmt.Sprintf("… and %d more", n) }

// saySession tells of a live session.
func saySession(s sessions.Session) string {
	return fmt.Sprintf("Session of <@%s>: %s, $%.2f, machine `%s` in %s, last used %s.",
		s.Owner, plural(s.Turns, "turn"), s.CostUSD, orDash(s.MachineID), orDash(s.Region), date(s.LastTurn))
}

// saySize is what a session works with.
func saySize(s sessions.Session) string {
	return guestLabel(s.Guest) + fmt.Sprintf(", a volume of %d GB", s.VolumeGB)
}

func sayHas(s sessions.Session) string { return "It has " + saySize(s) + "." }

// sayLane says what of the turn before was still there.
func sayLane(l runner.Lane) string {
	switch l {
	case runner.LaneProcess:
		return "Claude Code was still there"
	case runner.LaneRunner:
		return "the machine was still running"
	case runner.LaneStart:
		return "the machine was woken"
	case runner.LaneMachine:
		return "a machine was made"
	}
	return ""
}

// detailLines say what stands behind the footer, a line each. What nobody knows is left out: a turn that was killed may have told nothing.
func detailLines(d detail) []string {
	var out []string
	line := func(name, words string) { out = append(out, "*"+name+"*: "+words) }
	if d.Asked > 0 {
		line("Asked", date(time.Unix(d.Asked, 0)))
	}
	var waits []string
	if d.Queued > 0 {
		waits = append(waits, howLong(d.Queued)+" behind other turns")
	}
	if d.Woken > 0 {
		waits = append(waits, howLong(d.Woken)+" until the machine was at work")
	}
	counted := d.Usage != nil
	if began := d.Ran > 0 || counted; began || len(waits) > 0 {
		line("Waits", cmp.Or(strings.Join(waits, ", "), "none"))
		if began {
			line("Work", howLong(d.Ran))
		}
	}
	if start := sayLane(d.Lane); start != "" {
		line("Start", start)
	}
	if d.Model != "" {
		line("Model", escape(d.Model))
	}
	if d.CostUSD > 0 || counted {
		line("Cost", fmt.Sprintf("$%.4f", d.CostUSD))
	}
	if u := d.Usage; counted {
		line("Tokens", fmt.Sprintf("%s in, %s out; cache: %s read, %s written", grouped(u.Input), grouped(u.Output), grouped(u.CacheRead), grouped(u.CacheWrite)))
		line("Steps", grouped(int64(u.Steps)))
	}
	var tools []string
	for _, t := range d.Tools {
		tools = append(tools, fmt.Sprintf("%s %d×", escape(t.Tool), t.Times))
	}
	if d.More > 0 {
		tools = append(tools, fmt.Sprintf("%d more", d.More))
	}
	if len(tools) > 0 || counted {
		line("Tools", cmp.Or(strings.Join(tools, ", "), "none"))
	}
	if d.Files != nil {
		line("Files", fmt.Sprintf("%s changed, %s lines added, %s removed", grouped(int64(*d.Files)), grouped(int64(d.Added)), grouped(int64(d.Removed))))
	}
	line("Exit code", strconv.Itoa(d.ExitCode))
	return out
}

// howLong is a time in seconds, for people.
func howLong(s int64) string {
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	}
	return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
}

// grouped writes a number with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func seconds(o sessions.Outcome) int {
	return max(int(o.Duration().Round(time.Second)/time.Second), 0)
}

// stepSentence says where a turn is.
func stepSentence(p sessions.Progress) string {
	switch p.Step {
	case sessions.StepCreating:
		return "Making a machine"
	case sessions.StepWaking:
		return "Waking the machine"
	case sessions.StepWaiting:
		return "Waiting"
	case sessions.StepCloning:
		return "Cloning"
	case sessions.StepSetUp:
		return "Setting up"
	case sessions.StepRunning:
		return "Working"
	case sessions.StepStopping:
		return "Stopping"
	case sessions.StepPosting:
		return "Answering"
	case sessions.StepClaimed, sessions.StepQueued, sessions.StepSettling:
	}
	return "Starting"
}

// toolSentence says what Claude is doing with a tool, in the words of people.
func toolSentence(tool, on string) string {
	what := ""
	if on != "" {
		what = " `" + escape(strings.ReplaceAll(clip(on, 150), "`", "'")) + "`"
	}
	switch tool {
	case "Bash":
		return "Running" + what
	case "Read", "NotebookRead":
		return "Reading" + what
	case "Edit", "MultiEdit", "NotebookEdit":
		return "Editing" + what
	case "Write":
		return "Writing" + what
	case "Grep":
		return "Searching for" + what
	case "Glob":
		return "Looking for files" + what
	case "WebFetch":
		return "Reading the page" + what
	case "WebSearch":
		return "Searching the web for" + what
	case "Task", "Agent":
		return "Having a helper do" + what
	case "BashOutput", "TaskOutput":
		return "Looking at a command in the background"
	case "KillShell", "TaskStop":
		return "Ending a command in the background"
	case "Skill", "SlashCommand":
		return "Using a skill" + what
	case "git commit": // of an errand, as the next two
		return "Committing" + what
	case "git push":
		return "Pushing" + what
	case pullRequest, mergeRequest:
		return "Opening a " + tool + " for" + what
	}
	if server, name, ok := strings.Cut(strings.TrimPrefix(tool, "mcp__"), "__"); ok && strings.HasPrefix(tool, "mcp__") {
		tool = server + ": " + name
	}
	return "Using " + escape(tool) + what
}

func doneSentence(o sessions.Outcome) string {
	switch {
	case o.Failure == runner.FailStopped:
		return "Stopped"
	case o.Failure != runner.FailNone:
		return "Failed"
	}
	return "Done"
}
