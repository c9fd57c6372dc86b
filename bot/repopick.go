package bot

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// A message that begins a session need not name a repository, and a plain question needs none: it is never held up. Where neither the channel
// nor the bot has one, and repositories were used there before, whoever asked may choose one of these: Claude then goes on in it. Where none was
// used they are told once how to name one.

const (
	actionRepo = "repo"
	repoBlock  = "repo " // followed by the key of the thread
	repoMark   = "-repo-"
	maxOffered = 10  // repositories
	maxOption  = 150 // characters of an option's value
)

// offerRepos offers somebody whose message began a session the repositories that were used there before, if the session has none.
func (b *Bot) offerRepos(ctx context.Context, t sessions.Turn) {
	if _, repos, err := b.repositories(t.Text); err != nil || repos != nil || b.linkedRepos(t.Text) != nil || len(b.sessions.DefaultSettings().Repos) > 0 {
		return
	}
	s, err := b.settingsOf(ctx, t.Thread.Channel)
	if err != nil || s.Repos != nil {
		return
	}
	used, err := b.usedRepos(ctx, t.Thread, t.User)
	if err != nil {
		b.log.WarnContext(ctx, "no repositories offered", "turn", t.ID, "err", err)
		return
	}
	if len(used) == 0 && len(b.cfg.NamedRepos) == 0 {
		return
	}
	st, err := b.sessions.Status(ctx, t.Thread)
	other := func(q sessions.Turn) bool { return q.ID != t.ID }
	if err != nil || st.Session != nil && st.Session.Begun() && !st.Session.Ended() || slices.ContainsFunc(st.Queued, other) || st.Running != nil && other(*st.Running) {
		return // it is no beginning
	}
	if len(used) == 0 {
		if first, err := b.sessions.Once(ctx, "how to name:"+t.User); err == nil && first {
			b.whisper(ctx, t.Thread, t.User, sayHowToName(b.namedPlaces()))
		}
		return
	}
	b.whisperIn(ctx, t.Thread.Channel, t.Thread.TS, t.User, repoOffer(t.Thread, used[:min(len(used), maxOffered)]))
}

// usedRepos are the repositories that were used in a thread's channel before, in a direct message by the person, of those that may be chosen.
func (b *Bot) usedRepos(ctx context.Context, thread sessions.Thread, user string) ([]runner.Repo, error) {
	place := thread.Channel
	if strings.HasPrefix(place, "D") {
		place = user
	}
	used, err := b.sessions.UsedRepos(ctx, b.team, place)
	return slices.DeleteFunc(used, func(r runner.Repo) bool { return !b.mayName(r.URL) || len([]rune(sessions.RepoText(r))) > maxOption }), err
}

// repoOffer has somebody choose a repository.
func repoOffer(thread sessions.Thread, repos []runner.Repo) answer {
	var options []option
	for _, r := range repos {
		options = append(options, option{sessions.RepoText(r), reposText([]runner.Repo{r})})
	}
	row := section(sayWhichRepo)
	row.BlockID = repoBlock + thread.Key()
	row.Accessory = slack.NewAccessory(slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, plainObject("Choose a repository"), actionRepo, objects(options)...))
	return answer{text: sayWhichRepo, blocks: []slack.Block{row}}
}

// pressRepo has Claude go on in a repository that somebody has chosen: one turn for each.
func (b *Bot) pressRepo(ctx context.Context, p interactionPayload) answer {
	key, ours := strings.CutPrefix(p.Actions[0].BlockID, repoBlock)
	thread, ok := sessions.ParseThread(key)
	repos, err := sessions.ParseRepos(p.Actions[0].Option.Value)
	if !ours || !ok || err != nil || len(repos) != 1 {
		return plainly(sayOldButton)
	}
	if why := b.mayPress(ctx, p, thread); why != nil {
		return plainly(why.sentence)
	}
	if !b.mayName(repos[0].URL) {
		return plainly(b.notNamed(repos[0].URL).Error())
	}
	st, err := b.sessions.Status(ctx, thread)
	if err != nil {
		return plainly(sayTrouble)
	}
	if !hasSession(st) {
		return plainly(sayNoSession)
	}
	return b.acceptPressed(ctx, goOnIn(p, thread, repos[0], thread.TS+repoMark+repoDigest(repos[0])), sayGoingOnIn(repos[0]))
}

// repoDigest is the repository in the name of the turn that goes on in it.
func repoDigest(r runner.Repo) string { return digest([]string{sessions.RepoText(r)}) }

// goOnIn is the turn, of that name, with which a session goes on in a repository.
func goOnIn(p interactionPayload, thread sessions.Thread, r runner.Repo, name string) sessions.Turn {
	return sessions.Turn{
		ID: turnID(thread.Team, thread.Channel, name), Kind: sessions.KindTurn, Thread: thread,
		User: p.User.ID, TS: thread.TS, Text: inRepo(r), Adds: []runner.Repo{r}, At: time.Now().UTC(),
	}
}

// retryRepo has Claude go on once more in the repository that was chosen in a turn of that name: it may be that it could not be cloned. Where nobody
// knows any more which one it was, Claude goes on with what the session has.
func (b *Bot) retryRepo(ctx context.Context, p interactionPayload, thread sessions.Thread, turn sessions.TurnID, name string, more besides) answer {
	_, chosen, _ := strings.Cut(name, repoMark)
	used, err := b.usedRepos(ctx, thread, p.User.ID)
	if err != nil {
		return plainly(sayTrouble)
	}
	i := slices.IndexFunc(used, func(r runner.Repo) bool { return repoDigest(r) == chosen })
	if i < 0 {
		return b.pressContinue(ctx, p, thread, turn, more)
	}
	t := goOnIn(p, thread, used[i], name+"-retry-"+p.Container.MessageTS)
	t.Larger, t.MoreUSD = more.larger, more.usd
	return b.acceptPressed(ctx, t, sayAgain)
}
