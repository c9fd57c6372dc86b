package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/deploy"
	"flaudebot/doctor"
	"flaudebot/fly"
)

// setupCommand asks for the settings that are missing, tries each answer as doctor does, and writes them into a file.
func setupCommand(ctx context.Context, c cli) error {
	flags := c.flags()
	flags.Var(c.envFile, "env-file", "`FILE` that settings are read from and written to, NAME=value a line (default flaudebot.env)")
	if err := c.parseAll(flags, "\nUsage: "+c.command.line()); err != nil {
		return err
	}
	name := cmp.Or(string(*c.envFile), "flaudebot.env")
	file, err := readEnvFile(name, true)
	if err != nil {
		return err
	}
	u := setup{cli: c, ask: newAsker(c.stdin, c.stdout), name: name, file: file}
	if err := u.learn(); err != nil {
		return err
	}
	redis.SetLogger(redisLog{u.known.logger(c.stderr)})
	for _, f := range unknownFindings(os.Environ(), "settings", "") {
		fmt.Fprintln(u.stdout, f)
	}
	return u.run(ctx)
}

// setup is what is known so far.
type setup struct {
	cli

	ask   *asker
	name  string   // of the file
	file  *envFile // as it was found
	known config   // from the environment, the file and the answers
	wrote bool     // something, to the file
	apart []string // settings that the environment sets, and the file does not
}

// learn reads what is there: what the environment sets, and else the file.
func (u *setup) learn() error {
	written := u.file.values()
	for _, q := range u.questions() {
		for _, name := range q.names {
			if _, set := os.LookupEnv(name); set && written[name] == "" {
				u.apart = append(u.apart, name)
			}
		}
	}
	if len(u.file.lines) > 0 {
		if err := loadEnvFile(u.name); err != nil {
			return err
		}
	}
	s, err := readSettings()
	u.known.settings = s
	return err
}

// question is one that is asked if none of its settings is there.
type question struct {
	names    []string // of the settings that answer it
	what     string   // a line that says what it is
	how      string   // how to come by it
	optional bool
	offer    func(context.Context) string // what Enter stands for; nil: nothing
	part     string                       // of doctor that tries the answer: slack, redis, fly, claude, git or none
}

func (u *setup) questions() []question {
	fixed := func(s string) func(context.Context) string { return func(context.Context) string { return s } }
	return []question{
		{
			names: []string{"SLACK_BOT_TOKEN"}, part: "slack", what: "bot token of the Slack app (xoxb-…)",
			how: "Open this link, choose a workspace, create the app, and press Install to Workspace:\n\n" + deploy.ManifestLink() +
				"\n\nThe token is on the app's page OAuth & Permissions: Bot User OAuth Token.",
		},
		{
			names: []string{"SLACK_APP_TOKEN"}, part: "slack", what: "app-level token of the Slack app (xapp-…)",
			how: "On the app's page Basic Information, App-Level Tokens, make one with the scope connections:write.",
		},
		{
			names: []string{"REDIS_URL"}, part: "redis", what: "address of Redis 7 or later (redis:// or rediss://)", offer: fixed("redis://127.0.0.1:6379/0"),
			how: "It needs appendonly yes and maxmemory-policy noeviction: docs/operations.md says whose have that. One that only the bot will reach can be named all the same.",
		},
		{
			names: []string{"FLY_API_TOKEN"}, part: "fly", what: "Fly token",
			how: "`fly tokens create org` makes one that may create the app of the session machines, `fly tokens create deploy -a APP` one for an app that exists.",
		},
		{names: []string{"FLAUDEBOT_FLY_ORG"}, what: "Fly organization of the session machines", offer: fixed("personal"), how: "`fly orgs list` shows them."},
		{
			names: []string{"FLAUDEBOT_FLY_APP"}, part: "fly", what: "name of the Fly app of the session machines", how: "It is created if it does not exist. Names are unique among all of Fly's.",
			offer: func(context.Context) string { return "flaudebot-" + strings.ToLower(rand.Text()[:8]) },
		},
		{
			names: []string{"FLAUDEBOT_REGIONS"}, part: "fly", what: "Fly regions of the session machines, separated by commas", offer: u.nearest,
			how: "A session is made in the first that has room: https://fly.io/docs/reference/regions/ lists them.",
		},
		{
			names: []string{"CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_API_KEY"}, part: "claude", what: "Claude credential",
			how: "Either what `claude setup-token` prints (sk-ant-oat…), for a subscription, or a key of the API (sk-ant-api…).",
		},
		{
			names: []string{"FLAUDEBOT_REPOS"}, optional: true, what: "repositories cloned into new sessions, such as https://github.com/acme/site, separated by commas",
			how: "Channels can have their own: /flaude config.",
		},
		{
			names: []string{"GITHUB_TOKEN"}, optional: true, part: "git", what: "token for Git over HTTPS, for those repositories",
			how: "As narrow as can be: a fine-grained token of GitHub for these repositories, contents and pull requests: read and write.",
		},
	}
}

// nearest is the region of Fly's next to here.
func (u *setup) nearest(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if client, err := fly.New(fly.Config{BaseURL: u.known.FlyBaseURL, Token: u.known.FlyToken, Tries: 1}); err == nil {
		if _, nearest, err := client.Regions(ctx); err == nil && nearest != "" {
			return nearest
		}
	}
	return "iad"
}

// run asks for what is missing, and writes each answer as it comes.
func (u *setup) run(ctx context.Context) error {
	missing := slices.DeleteFunc(u.questions(), u.answered)
	_, hasKey := os.LookupEnv("FLAUDEBOT_SECRETS_KEY")
	if len(missing) == 0 && hasKey {
		fmt.Fprintf(u.stdout, "nothing is missing in %s\n", u.name)
		return u.next()
	}
	if len(missing) > 0 {
		fmt.Fprintf(u.stdout, "flaudebot asks for what is missing in %s (%s), tries each answer, and writes it there at once.\n"+
			"Ctrl-C ends it, and the next time it asks for the rest.\n", u.name, count(len(missing), "question"))
	}
	if err := u.leave(ctx); err != nil {
		return err
	}
	for _, q := range missing {
		if err := u.put(ctx, q); err != nil {
			return err
		}
	}
	if !hasKey {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		added, err := u.add([]string{"FLAUDEBOT_SECRETS_KEY"}, "FLAUDEBOT_SECRETS_KEY", base64.StdEncoding.EncodeToString(key))
		if err != nil {
			return err
		}
		if added {
			fmt.Fprintf(u.stdout, "\nFLAUDEBOT_SECRETS_KEY is made: with it the secrets are sealed that admins set for a channel. Keep a copy of the file.\n")
		}
	}
	fmt.Fprintf(u.stdout, "\n%s is written, for your eyes alone (mode 0600)\n", u.name)
	return u.next()
}

// leave asks whether a file that exists may be changed.
func (u *setup) leave(ctx context.Context) error {
	if _, err := os.Stat(u.name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	answer, err := u.ask.line(ctx, fmt.Sprintf("\n%s exists. Add what is missing to it, and leave the rest as it is? [y/N] > ", u.name), false)
	if err != nil {
		return u.ended(ctx, "leave to write", err)
	}
	if !oneOf(strings.ToLower(strings.TrimSpace(answer)), "y", "yes") {
		fmt.Fprintln(u.stderr, "nothing was written")
		return exitCode(1)
	}
	return nil
}

// answered reports whether one of a question's settings is there, or is to stay away.
func (u *setup) answered(q question) bool {
	return slices.ContainsFunc(q.names, func(name string) bool {
		_, set := os.LookupEnv(name)
		return set && (u.known.get(name) != "" || q.optional) || u.file.declined(name)
	})
}

// put asks a question until the answer is good, or wanted all the same.
func (u *setup) put(ctx context.Context, q question) error {
	fmt.Fprintf(u.stdout, "\n%s: %s\n%s\n", strings.Join(q.names, " or "), q.what, q.how)
	offer, prompt := "", "> "
	switch {
	case q.offer != nil:
		offer = q.offer(ctx)
		prompt = "[" + offer + "] > "
	case q.optional:
		prompt = "[none] > "
	}
	kept := "" // an answer that may be used though there is a problem with it
	for {
		answer, err := u.ask.line(ctx, prompt, u.secret(q.names[0]))
		if err != nil {
			return u.ended(ctx, strings.Join(q.names, " or "), err)
		}
		answer = bare(answer)
		switch {
		case answer == "" && kept != "":
			return u.keep(q, kept)
		case answer == "" && offer != "":
			answer = offer
		case answer == "" && q.optional:
			return u.write(func(f *envFile) {
				for _, name := range q.names {
					f.decline(name)
				}
			})
		case answer == "":
			fmt.Fprintln(u.stdout, "an answer is needed here (Ctrl-C ends it)")
			continue
		}
		found := u.try(ctx, q, answer)
		if err := ctx.Err(); err != nil { // what was found may be no more than that
			return u.ended(ctx, strings.Join(q.names, " or "), err)
		}
		for _, f := range found {
			fmt.Fprintln(u.stdout, f)
		}
		if !doctor.Bad(found) {
			return u.keep(q, answer)
		}
		notStart := slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.About == "settings" }) // the bot would not, with it
		switch kept = ""; {
		case !notStart:
			kept, prompt = answer, "another answer, or Enter to use it all the same > "
		case offer != "":
			prompt = "another answer, or Enter for " + offer + " > "
		case q.optional:
			prompt = "another answer, or Enter for none > "
		default:
			prompt = "another answer > "
		}
	}
}

// bare is an answer without what was copied along with it: space, and the quotes that a shell has around a value.
func bare(answer string) string {
	for {
		less := unquoted(strings.TrimSpace(answer))
		if less == answer {
			return answer
		}
		answer = less
	}
}

// ended is why there is no further answer.
func (u *setup) ended(ctx context.Context, what string, err error) error {
	left := "nothing was written"
	if u.wrote {
		left = fmt.Sprintf("what was answered is in %s, and %s setup --env-file %s asks for the rest", u.name, u.self, u.name)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(u.stderr, "\n"+left)
		return exitCode(130)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the answers came to their end")
	}
	return fmt.Errorf("ask for %s: %w; %s", what, err, left)
}

// setting is which of the question's settings an answer is for.
func (q question) setting(answer string) string {
	if len(q.names) > 1 && strings.HasPrefix(answer, "sk-ant-oat") {
		return "CLAUDE_CODE_OAUTH_TOKEN"
	}
	return q.names[len(q.names)-1]
}

// keep writes an answer down.
func (u *setup) keep(q question, answer string) error {
	_, err := u.add(q.names, q.setting(answer), answer)
	return err
}

// add adds a setting to the file, unless somebody else has meanwhile, or another one that answers the same question: a second one would
// be in the first one's place, and a second key open nothing that was sealed with the first.
func (u *setup) add(names []string, name, value string) (added bool, err error) {
	there := ""
	err = u.write(func(f *envFile) {
		now := f.values()
		if i := slices.IndexFunc(names, func(n string) bool { return now[n] != "" }); i >= 0 {
			there, name, value = names[i], names[i], now[names[i]]
		}
		f.add(name, value)
	})
	if err != nil {
		return false, err
	}
	u.known.settings = u.known.with(name, value)
	if there != "" {
		fmt.Fprintf(u.stdout, "\n%s is in %s meanwhile, and stays as it is there\n", there, u.name)
	}
	return there == "", nil
}

// write changes the file as it is now: somebody may have changed it since it was read.
func (u *setup) write(change func(*envFile)) error {
	now, err := readEnvFile(u.name, true)
	if err != nil {
		return err
	}
	if len(now.lines) == 0 {
		now.lines = []string{"# Settings of flaudebot, NAME=value a line: flaudebot serve --help lists them all."}
	}
	change(now)
	if err := now.write(u.name); err != nil {
		return err
	}
	u.wrote = true
	return nil
}

// try is what doctor has to say about an answer.
func (u *setup) try(ctx context.Context, q question, answer string) []doctor.Finding {
	name := q.setting(answer)
	cfg, wrong := u.known.with(name, answer).examine("slack", "redis", "fly", "claude")
	for part, all := range wrong {
		wrong[part] = slices.DeleteFunc(all, func(bad badSetting) bool { return !aboutSetting(bad.text, name) })
	}
	if found := settingsFindings(wrong); doctor.Bad(found) {
		return doctor.Redacted(found, cfg.secretValues())
	}
	all := cfg.patient(wrong)
	ask := doctor.Config{Secrets: all.Secrets}
	switch q.part {
	case "slack":
		ask.Slack = all.Slack
	case "redis":
		ask.Redis = all.Redis
	case "fly":
		ask.Fly = &doctor.Fly{BaseURL: cfg.FlyBaseURL, Token: cfg.FlyToken, App: cfg.FlyApp, Org: cfg.FlyOrg, Guest: cfg.guest, VolumeGB: cfg.volumeGB} // the image comes later
		if name == "FLAUDEBOT_REGIONS" {
			ask.Fly.Regions = cfg.regions
		}
	case "claude":
		ask.Claude = all.Claude
	case "git":
		ask.Git = all.Git
	default:
		return nil
	}
	return slices.DeleteFunc(doctor.Examine(ctx, ask), func(f doctor.Finding) bool { return f.About == "clock" && f.Level == doctor.OK })
}

// aboutSetting reports whether a mistake is in a setting.
func aboutSetting(text, name string) bool {
	rest, ok := strings.CutPrefix(text, name)
	return ok && rest != "" && strings.ContainsRune("=: ", rune(rest[0]))
}

// next says what is to be done next.
func (u *setup) next() error {
	app, image := u.known.FlyApp, ""
	if u.known.Image == "" {
		image = fmt.Sprintf("  fly apps create %s --org %s --network %s   # unless it exists\n  FLAUDEBOT_FLY_APP=%s make images\n", app, u.known.FlyOrg, app, app)
	}
	if len(u.apart) > 0 {
		fmt.Fprintf(u.stdout, "Set in the environment, and not in the file: %s\n", strings.Join(u.apart, ", "))
	}
	_, err := fmt.Fprintf(u.stdout, "\nNext:\n%s  %s doctor --live --env-file %s\n  %s serve --env-file %s\n", image, u.self, u.name, u.self, u.name)
	return err
}

// secret reports whether a setting is to be typed unseen.
func (u *setup) secret(name string) bool {
	for f := range reflect.TypeFor[settings]().Fields() {
		if f.Tag.Get("envconfig") == name {
			return f.Tag.Get("secret") != ""
		}
	}
	return false
}

// get is a setting by its name.
func (s settings) get(name string) string {
	for f := range reflect.TypeFor[settings]().Fields() {
		if f.Tag.Get("envconfig") == name {
			return reflect.ValueOf(s).FieldByIndex(f.Index).String()
		}
	}
	return ""
}

// with is the settings with another value of one of them.
func (s settings) with(name, value string) settings {
	for f := range reflect.TypeFor[settings]().Fields() {
		if f.Tag.Get("envconfig") == name {
			reflect.ValueOf(&s).Elem().FieldByIndex(f.Index).SetString(value)
		}
	}
	return s
}
