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
	place := t.Thread.Channel
	if strings.HasPrefix(place, "D") {
		place = t.User
	}
	used, err := b.sessions.UsedRepos(ctx, b.team, place)
	if err != nil {
		b.log.WarnContext(ctx, "no repositories offered", "turn", t.ID, "err", err)
		return
	}
	used = slices.DeleteFunc(used, func(r runner.Repo) bool { return !b.mayName(r.URL) || len([]rune(sessions.RepoText(r))) > maxOption })
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
	return b.acceptPressed(ctx, sessions.Turn{
		ID: turnID(thread.Team, thread.Channel, thread.TS+repoMark+digest([]string{sessions.RepoText(repos[0])})), Kind: sessions.KindTurn, Thread: thread,
		User: p.User.ID, TS: thread.TS, Text: inRepo(repos[0]), Adds: repos, At: time.Now().UTC(),
	}, sayGoingOnIn(repos[0]))
}
