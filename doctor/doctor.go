// Package doctor finds out what keeps a flaudebot from working before people do: it asks Slack, Redis, Fly, Claude's API and the Git hosts
// what they think of its settings, and says of each thing that it looked at whether it is well, and what to do if it is not.
//
// The checks run side by side, each with a time limit, and know nothing of each other: one that fails or hangs hides no other. They change
// nothing, with one exception: [Live] makes a machine, runs a turn on it and destroys it. What only a real event, a real turn or a config
// token of Slack could tell is said to be unknown, not passed over. No finding holds a secret: whatever an outside service says back is searched for
// all of them.
//
// It reads no environment and prints nothing: `flaudebot doctor` and `flaudebot setup` do.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Level says how bad a finding is.
type Level string

// The levels. With a problem the bot does not work, or not for some of what it is for; with a warning it does, and something may go wrong later.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Problem Level = "problem"
)

// Finding is what was found out about one thing.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"`         // settings, slack, redis, fly, claude, git, clock or live
	What  string `json:"what"`          // what was found
	Fix   string `json:"fix,omitempty"` // what to do; "" where there is nothing to do
}

// String is the finding on one line.
func (f Finding) String() string {
	line := fmt.Sprintf("%-8s %-9s %s", f.Level, f.About, oneLine(f.What))
	if f.Fix != "" {
		line += ". Fix: " + oneLine(f.Fix)
	}
	return line
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Bad reports whether a problem is among the findings.
func Bad(all []Finding) bool {
	for _, f := range all {
		if f.Level == Problem {
			return true
		}
	}
	return false
}

// Config says what to look at. What is nil is not looked at, since its settings are missing or make no sense.
type Config struct {
	Slack  *Slack
	Redis  *Redis
	Fly    *Fly
	Claude *Claude
	Git    *Git

	Secrets []string      // what no finding may hold
	Limit   time.Duration // of each check; 0: 20 s
	HTTP    *http.Client  // nil: one of its own
}

// check is one of those that run side by side.
type check struct {
	about string
	look  func(context.Context, *examination) []Finding
}

// examination is what the checks share.
type examination struct {
	http   *http.Client
	clocks *clocks
}

// Examine makes every check, and returns when the last one is over. Findings come in the order of the configuration's fields.
func Examine(ctx context.Context, c Config) []Finding {
	if c.Limit == 0 {
		c.Limit = 20 * time.Second
	}
	client := http.Client{}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	e := &examination{clocks: &clocks{}}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error { // what a request carries is for whom it was sent to
		if r.URL.Host != via[0].URL.Host || len(via) > 5 {
			return http.ErrUseLastResponse
		}
		return nil
	}
	client.Transport = &timed{next: client.Transport, clocks: e.clocks}
	e.http = &client
	var checks []check
	if c.Slack != nil {
		checks = append(checks, check{"slack", c.Slack.look})
	}
	if c.Redis != nil {
		checks = append(checks, check{"redis", c.Redis.look})
	}
	if c.Fly != nil {
		checks = append(checks, check{"fly", c.Fly.look}, check{"fly", c.Fly.image})
	}
	if c.Claude != nil {
		checks = append(checks, check{"claude", c.Claude.look})
	}
	if c.Git != nil {
		checks = append(checks, check{"git", c.Git.look})
	}
	found := make([][]Finding, len(checks))
	var wg sync.WaitGroup
	for i, k := range checks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.Limit)
			defer cancel()
			found[i] = k.look(ctx, e)
			for j := range found[i] {
				found[i][j].About = k.about
			}
		})
	}
	wg.Wait()
	var out []Finding
	for _, f := range slices.Concat(found...) {
		if !slices.Contains(out, f) { // as of a service that did not answer two questions
			out = append(out, f)
		}
	}
	return Redacted(append(out, e.clocks.findings()...), c.Secrets)
}

// Redacted is findings without secrets. What is shorter than four characters is no secret, and would be found everywhere.
func Redacted(all []Finding, secrets []string) []Finding {
	var pairs []string
	for _, s := range secrets {
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s)} {
			if len(form) >= 4 {
				pairs = append(pairs, form, "[redacted]")
			}
		}
	}
	r := strings.NewReplacer(pairs...)
	for i := range all {
		all[i].What, all[i].Fix = r.Replace(all[i].What), r.Replace(all[i].Fix)
	}
	return all
}

func ok(format string, args ...any) Finding {
	return Finding{Level: OK, What: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) Finding {
	return Finding{Level: Warning, Fix: fix, What: fmt.Sprintf(format, args...)}
}

func bad(fix, format string, args ...any) Finding {
	return Finding{Level: Problem, Fix: fix, What: fmt.Sprintf(format, args...)}
}

// away is the finding of a service that does not answer at all.
func away(name, address, setting string, err error) Finding {
	host := address
	if u, parseErr := url.Parse(address); parseErr == nil && u.Host != "" {
		host = u.Host
	}
	return bad("see that this machine reaches "+host+" (name, firewall, proxy), and that "+setting+" is right", "%s at %s does not answer: %s", name, host, plain(err))
}

// plain is an error of the network without the address, which may hold a ticket or a password.
func plain(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	switch timeout, _ := errors.AsType[net.Error](err); {
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		return "no answer in time"
	}
	return err.Error()
}
