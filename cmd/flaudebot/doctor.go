package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flaudebot/deploy"
	"flaudebot/doctor"
	"flaudebot/fly"
	"flaudebot/sessions"
)

// doctorCommand looks for what keeps the bot from working. It ends with 1 if there is a problem.
func doctorCommand(ctx context.Context, c cli) error {
	flags := c.settingsFlags()
	live := flags.Bool("live", false, "run one turn on a machine of its own as well, which costs a few cents, and measure what it takes")
	asJSON := flags.Bool("json", false, "print each finding as a line of JSON")
	if err := c.parseAll(flags, "\nUsage: "+c.command.line()); err != nil {
		return err
	}
	s, err := readSettings()
	if err != nil {
		return err
	}
	r := report{out: c.stdout, json: *asJSON}
	cfg, wrong := s.examine("slack", "redis", "fly", "claude")
	redis.SetLogger(redisLog{cfg.logger(c.stderr)})
	found := slices.Concat(settingsFindings(wrong), unknownFindings(os.Environ(), "settings", ""), openFile(string(*c.envFile)))
	if *c.envFile == "" {
		r.tell(c.fileMissing(wrong))
	}
	r.tell(doctor.Redacted(found, cfg.secretValues()))
	r.tell(doctor.Examine(ctx, cfg.patient(wrong)))
	if *live && ctx.Err() == nil {
		r.tell(c.liveRun(ctx, cfg, wrong))
	}
	if ctx.Err() != nil {
		return exitCode(130)
	}
	return r.end()
}

// liveRun runs one turn, unless settings keep it from that.
func (c cli) liveRun(ctx context.Context, cfg config, wrong map[string]badSettings) []doctor.Finding {
	if len(wrong["fly"])+len(wrong["claude"])+len(wrong["rest"]) > 0 {
		return []doctor.Finding{{Level: doctor.Warning, About: "live", What: "no turn was run, since settings are wrong", Fix: "correct them first"}}
	}
	machines, err := openMachines(cfg, cfg.logger(c.stderr), nil)
	if err != nil {
		return doctor.Redacted([]doctor.Finding{{Level: doctor.Problem, About: "live", What: err.Error(), Fix: "correct the settings of Fly"}}, cfg.secretValues())
	}
	record, leave, err := c.liveRecord(ctx, cfg, wrong)
	found := doctor.Live(ctx, machines, runOf(doctor.LivePrompt, record), cfg.secretValues())
	if err != nil {
		found = append(found, doctor.Redacted([]doctor.Finding{warning("live", "the live run is not on record: "+err.Error(), "see what is said of redis")}, cfg.secretValues())...)
	}
	leave()
	return found
}

// recordTime bounds how long a live run waits for the Redis that would keep its record: what is wrong with that is said elsewhere.
const recordTime = 10 * time.Second

// liveRecord opens what puts the live run on record; nil, with the reason, if nothing can.
func (c cli) liveRecord(ctx context.Context, cfg config, wrong map[string]badSettings) (record *sessions.Service, leave func(), err error) {
	nothing := func() {}
	if len(wrong["redis"]) > 0 {
		return nil, nothing, errors.New("REDIS_URL is not as it must be")
	}
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	if record, leave, err = openSessions(ctx, c, cfg, false); err != nil {
		return nil, nothing, err
	}
	return record, leave, nil
}

// fileMissing is the finding of settings that are missing where no file of them was named; none if all are there.
func (c cli) fileMissing(wrong map[string]badSettings) []doctor.Finding {
	for _, bad := range wrong {
		if bad.missing() {
			return []doctor.Finding{warning("settings", "settings are missing in the environment, and no file of them was named",
				fmt.Sprintf("%s %s --env-file flaudebot.env, if they are there (%s setup writes it)", c.self, c.command.name, c.self))}
		}
	}
	return nil
}

// openFile is the finding of a file of settings that others may read; none if it is not so, or there is none.
func openFile(name string) []doctor.Finding {
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm()&0o077 == 0 || !info.Mode().IsRegular() {
		return nil
	}
	return []doctor.Finding{{Level: doctor.Warning, About: "settings", What: "others on this machine may read " + name + ", which holds secrets", Fix: "chmod 600 " + name}}
}

// settingsFindings are the mistakes in the settings. Each of them says behind its colon what to do.
func settingsFindings(wrong map[string]badSettings) []doctor.Finding {
	var out []doctor.Finding
	for _, part := range []string{"slack", "redis", "fly", "claude", "rest"} {
		for _, bad := range wrong[part] {
			f := doctor.Finding{Level: doctor.Problem, About: "settings", What: bad.text, Fix: "correct it and look again"}
			if what, fix, ok := strings.Cut(bad.text, ": "); ok {
				f.What, f.Fix = what, fix
			}
			if settingName.MatchString(f.What) {
				f.What += " is not as it must be"
			}
			out = append(out, f)
		}
	}
	if out == nil {
		out = append(out, doctor.Finding{Level: doctor.OK, About: "settings", What: "all settings make sense"})
	}
	return out
}

// patient is what there is to look at: all of it whose own settings make sense, whatever is wrong with others.
func (c config) patient(wrong map[string]badSettings) doctor.Config {
	out := doctor.Config{Secrets: c.secretValues()}
	amiss := func(part, setting string) bool {
		return slices.ContainsFunc(wrong[part], func(bad badSetting) bool { return aboutSetting(bad.text, setting) })
	}
	if !amiss("fly", "FLAUDEBOT_REPOS") && !amiss("rest", "GITHUB_TOKEN") { // else there seem to be none
		out.Git = &doctor.Git{Username: c.GitUsername, Token: c.GitToken, Repos: c.repos, Forges: c.forges}
	}
	if isAddress(c.SlackAPIURL) && strings.HasSuffix(c.SlackAPIURL, "/") {
		s := &doctor.Slack{APIURL: c.SlackAPIURL, Scopes: deploy.BotScopes(), Users: c.allowedUsers, Channels: c.allowedChannels}
		if strings.HasPrefix(c.SlackAppToken, "xapp-") {
			s.AppToken = c.SlackAppToken
		}
		if strings.HasPrefix(c.SlackBotToken, "xoxb-") {
			s.BotToken = c.SlackBotToken
		}
		out.Slack = s
	}
	if len(wrong["redis"]) == 0 && c.redis.one != nil {
		out.Redis = &doctor.Redis{Addr: c.redis.one.Addr, Prefix: c.Prefix, Open: func(ctx context.Context) (redis.UniversalClient, error) {
			clients, err := connectRedis(ctx, c.redis)
			if err != nil {
				return nil, err
			}
			_ = clients.listener.Close() // nobody listens
			return clients.calls, nil
		}}
	}
	if c.FlyToken != "" && flyName(c.FlyApp) && isAddress(c.FlyBaseURL) {
		f := &doctor.Fly{BaseURL: c.FlyBaseURL, Token: c.FlyToken, App: c.FlyApp, Org: c.FlyOrg, Guest: c.guest, VolumeGB: c.volumeGB, Image: c.Image}
		if c.guest != (fly.Guest{}) {
			f.Regions = c.regions
		}
		out.Fly = f
	}
	if isAddress(c.AnthropicBaseURL) && c.AnthropicAPIKey+c.ClaudeOAuthToken != "" {
		out.Claude = &doctor.Claude{APIKey: c.AnthropicAPIKey, BaseURL: c.AnthropicBaseURL, Model: c.Model}
		if c.AnthropicAPIKey == "" {
			out.Claude.OAuthToken = c.ClaudeOAuthToken
		}
	}
	return out
}

func isAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// secretValues are all that nobody may be shown.
func (s settings) secretValues() []string {
	var out []string
	values := reflect.ValueOf(s)
	for f := range reflect.TypeFor[settings]().Fields() {
		if value := values.FieldByIndex(f.Index).String(); f.Tag.Get("secret") != "" && value != "" {
			out = append(out, value)
		}
	}
	if bare := bareFlyToken(s.FlyToken); bare != s.FlyToken { // which is how a service may say it back
		out = append(out, bare)
	}
	if u, err := url.Parse(s.RedisURL); err == nil && u.User != nil {
		if password, set := u.User.Password(); set && password != "" {
			out = append(out, password)
		}
	}
	return out
}

// report prints findings, and counts them.
type report struct {
	out                io.Writer
	json               bool
	problems, warnings int
	failed             error // to print
}

func (r *report) tell(all []doctor.Finding) {
	for _, f := range all {
		switch f.Level {
		case doctor.Problem:
			r.problems++
		case doctor.Warning:
			r.warnings++
		case doctor.OK:
		}
		var err error
		if r.json {
			err = json.NewEncoder(r.out).Encode(f)
		} else {
			_, err = fmt.Fprintln(r.out, f)
		}
		if r.failed == nil {
			r.failed = err
		}
	}
}

func (r *report) end() error {
	if r.failed != nil {
		return r.failed
	}
	if !r.json {
		fmt.Fprintf(r.out, "\n%s, %s\n", count(r.problems, "problem"), count(r.warnings, "warning"))
	}
	if r.problems > 0 {
		return exitCode(1)
	}
	return nil
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
