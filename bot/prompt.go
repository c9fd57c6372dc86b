package bot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/slack-go/slack"

	"flaudebot/runner"
	"flaudebot/sessions"
)

// Prompt implements [sessions.Front]: what the person said comes last, with what it needs to be understood before it.
func (b *Bot) Prompt(ctx context.Context, s sessions.Session, t sessions.Turn, first bool) (sessions.Prompt, error) {
	around, err := b.around(ctx, s, t, first)
	if err != nil {
		return sessions.Prompt{}, err
	}
	words := t.Text
	if t.AtSlack {
		words = b.withoutMention(around.own.Text)
		if rest, _, err := overridesIn(words); err == nil {
			words = rest
		}
	}
	var parts []string
	var repos, adds []runner.Repo
	said := b.surround(ctx, t, words, around, first)
	if said != "" {
		parts = append(parts, said)
	}
	if first {
		rest, those, err := b.repositories(words)
		if err == nil { // else it was an edit that names what cannot be had, and is left to Claude as it is
			words, repos = rest, those
		}
		if err == nil && repos == nil {
			repos = b.namedBefore(ctx, s, t.Thread, around.before)
		}
		if err == nil && repos == nil {
			adds = b.linkedRepos(words)
		}
	}
	files, note := b.files(t)
	if note != "" {
		parts = append(parts, note)
	}
	asked := b.readable(ctx, words)
	if said != "" {
		asked = askedBy(b.people.name(ctx, t.User), asked)
	}
	parts = append(parts, asked)
	return sessions.Prompt{Text: strings.TrimSpace(strings.Join(parts, "\n\n")), Files: files, Repos: repos, Adds: adds, Trailers: b.trailers(ctx, t.Thread, t.User)}, nil
}

// namedBefore are the repositories that an earlier message named for a session of which no turn has come so far as to have any, nil if none did:
// somebody who says "once more" means these. A session's messages are no more than its turns; those before them were of an earlier session.
func (b *Bot) namedBefore(ctx context.Context, s sessions.Session, thread sessions.Thread, before []saidMessage) []runner.Repo {
	left := s.Turns
	for _, m := range slices.Backward(before) {
		if left == 0 {
			return nil
		}
		in := b.read(thread.Team, eventOf(thread, slack.Message{Msg: m.Msg}))
		known, err := b.sessions.Known(ctx, in.id())
		if err != nil {
			b.log.WarnContext(ctx, "not looked for repositories that were named before", "thread", thread.Key(), "err", err)
			return nil
		}
		if !known {
			continue
		}
		left--
		if _, repos, err := b.repositories(in.words); err == nil && repos != nil && in.begins() {
			return repos
		}
	}
	return nil
}

// askedBy are somebody's words, told apart from the context before them.
func askedBy(name, words string) string {
	name = strings.Join(strings.Fields(name), " ")
	if words == "" {
		return name + " sent you this without words of their own."
	}
	return name + " asks you:\n\n" + words
}

// messageAt reads a turn's message again.
func (b *Bot) messageAt(ctx context.Context, t sessions.Turn) (*slack.Message, error) {
	var page []slack.Message
	err := b.patiently(ctx, func() (err error) {
		page, _, _, err = b.api.GetConversationRepliesContext(ctx, &slack.GetConversationRepliesParameters{
			ChannelID: t.Thread.Channel, Timestamp: t.Thread.TS, Oldest: t.TS, Latest: t.TS, Inclusive: true, Limit: 10, IncludeAllMetadata: true,
		})
		return err
	})
	if isGone(err) {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the message of turn %s: %w", t.ID, err)
	}
	for i := range page {
		if page[i].Timestamp == t.TS {
			return &page[i], nil
		}
	}
	return nil, errGone
}

// errGone says that a message was deleted.
var errGone = sessions.ErrMessageGone

// maxPages bounds how much of a thread is read, in pages of 200: Slack gives the oldest first.
const maxPages = 20

// files are the attachments that can be had, and a note for Claude about all of them.
func (b *Bot) files(t sessions.Turn) ([]sessions.PromptFile, string) {
	var out []sessions.PromptFile
	var notes []string
	taken := map[string]bool{}
	for _, f := range t.Files {
		switch {
		case f.URL == "":
			notes = append(notes, fmt.Sprintf("- %q was attached but is kept outside of Slack, and is not here.", f.Name))
		case f.Size > b.cfg.AttachmentLimit:
			notes = append(notes, fmt.Sprintf("- %q was attached but is larger than %d KB, and is not here.", f.Name, b.cfg.AttachmentLimit>>10))
		default:
			name := safeName(f.Name, taken)
			out = append(out, sessions.PromptFile{Name: name, Size: f.Size, Open: b.opener(f)})
			notes = append(notes, "- attachments/"+name)
		}
	}
	if len(notes) == 0 {
		return nil, ""
	}
	return out, "Attached to the message:\n" + strings.Join(notes, "\n")
}

// refusedFiles names the attachments that are not taken.
func (b *Bot) refusedFiles(t sessions.Turn) []string {
	var out []string
	for _, f := range t.Files {
		if f.URL == "" || f.Size > b.cfg.AttachmentLimit {
			out = append(out, f.Name)
		}
	}
	return out
}

var (
	// unsafeRune matches what no file's name has here: letters, marks and digits are those of any script.
	unsafeRune    = regexp.MustCompile(`[^\pL\pM\pN._-]+`)
	fileExtension = regexp.MustCompile(`\.[\pL\pN]{1,12}$`)
)

// maxFileName is the longest name of a file, in bytes, without what makes it unique.
const maxFileName = 80

// safeName makes a file's name harmless and unique: never a path, never hidden. [runner.PutRequest] takes such names.
func safeName(name string, taken map[string]bool) string {
	name = unsafeRune.ReplaceAllString(strings.TrimLeft(name, "."), "_")
	ext := fileExtension.FindString(name)
	stem := strings.TrimLeftFunc(strings.TrimSuffix(name, ext), func(r rune) bool { return strings.ContainsRune(".-_", r) || unicode.IsMark(r) })
	stem = cmp.Or(stem, "file")
	name = strings.ToValidUTF8(stem[:min(len(stem), maxFileName-len(ext))], "") + ext
	unique := name
	for i := 2; taken[unique]; i++ {
		unique = fmt.Sprintf("%d-%s", i, name)
	}
	taken[unique] = true
	return unique
}

// opener downloads an attachment with the bot's token.
func (b *Bot) opener(f sessions.Attachment) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		var body io.ReadCloser
		limit, cancel := context.WithTimeout(ctx, fileTime)
		defer cancel()
		err := b.insist(limit, func() (err error) {
			body, err = b.download(ctx, f)
			return err
		})
		if err != nil && isPassing(err) {
			return nil, errors.New("Slack does not send it") //nolint:staticcheck // a name
		}
		return body, err
	}
}

// fileTime is how long an attachment is asked for while Slack does not send it.
const fileTime = time.Minute

// download begins one download. A status is told as those of Slack's methods are.
func (b *Bot) download(ctx context.Context, f sessions.Attachment) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
	if err != nil {
		return nil, err
	}
	if !b.slackHost(req.URL.Host) {
		return nil, errors.New("its address is not Slack's")
	}
	req.Header.Set("Authorization", "Bearer "+b.cfg.BotToken)
	res, err := b.cfg.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	// Without rights Slack answers with its login page, or leads there.
	asHTML := strings.HasSuffix(strings.ToLower(f.Name), ".html")
	login := strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") && (!asHTML || res.Request.URL.Path != req.URL.Path)
	switch {
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode >= http.StatusInternalServerError:
		err = statusError(res)
	case res.StatusCode != http.StatusOK || login:
		err = errors.New("Slack does not let me read it") //nolint:staticcheck // a name
	}
	if err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return &bounded{ReadCloser: res.Body, left: b.cfg.AttachmentLimit}, nil
}

// bounded ends with an error where more comes than Slack had announced.
type bounded struct {
	io.ReadCloser

	left int64 // bytes
}

func (r *bounded) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, errors.New("it is larger than Slack says, and than attachments may be")
	}
	return n, err
}

// slackHost keeps the token at Slack: its own hosts, or where the API is.
func (b *Bot) slackHost(host string) bool {
	if host == "slack.com" || strings.HasSuffix(host, ".slack.com") {
		return true
	}
	req, err := http.NewRequest(http.MethodGet, b.cfg.APIURL, nil) //nolint:noctx // only its host is of interest
	return err == nil && req.URL.Host == host
}

var token = regexp.MustCompile(`<([^<>]+)>`)

// readable undoes Slack's escapes: names for people, addresses for links.
func (b *Bot) readable(ctx context.Context, text string) string {
	text = token.ReplaceAllStringFunc(text, func(m string) string {
		what, label, has := strings.Cut(m[1:len(m)-1], "|")
		switch {
		case strings.HasPrefix(what, "@"):
			return "@" + b.people.name(ctx, what[1:])
		case strings.HasPrefix(what, "#"):
			if has {
				return "#" + label
			}
			return what
		case strings.HasPrefix(what, "!"):
			if has {
				return label
			}
			return "@" + what[1:]
		case has && label != what:
			return label + " (" + what + ")"
		}
		return what
	})
	return unescape(text)
}
