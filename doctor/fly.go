package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"flaudebot/fly"
)

// Fly says how Fly is reached, and what session machines are like.
type Fly struct {
	BaseURL  string // of the Machines API
	Token    string
	App, Org string   // App "": not chosen yet, and the token alone is looked at
	Regions  []string // in order of preference; none: they are not looked at
	Guest    fly.Guest
	VolumeGB int
	Image    string // "": it is not looked at
}

const (
	newToken = "make a token with `fly tokens create org` (for an app that exists: `fly tokens create deploy -a APP`) and put it into FLY_API_TOKEN"
	fixRoom  = "name further regions in FLAUDEBOT_REGIONS, or choose a smaller FLAUDEBOT_GUEST"
)

func (f *Fly) look(ctx context.Context, e *examination) []Finding {
	client, err := fly.New(fly.Config{BaseURL: f.BaseURL, Token: f.Token, HTTP: e.http, Tries: 2})
	if err != nil {
		return []Finding{bad("correct FLY_FLAPS_BASE_URL", "%s", err)}
	}
	if f.App == "" {
		return f.tokenAlone(ctx, client)
	}
	var out [2][]Finding
	var wg sync.WaitGroup
	wg.Go(func() { out[0] = f.app(ctx, client) })
	if len(f.Regions) > 0 {
		wg.Go(func() { out[1] = f.regions(ctx, client) })
	}
	wg.Wait()
	if slices.ContainsFunc(out[0], func(found Finding) bool { return found.Level == Problem }) {
		return out[0] // with a token that is refused nothing else can be told
	}
	return slices.Concat(out[0], out[1])
}

// tokenAlone looks whether Fly knows the token, before there is an app to use it for.
func (f *Fly) tokenAlone(ctx context.Context, client *fly.Client) []Finding {
	if _, _, err := client.Regions(ctx); err != nil {
		return []Finding{f.trouble(err)}
	}
	return []Finding{ok("Fly knows the token")}
}

// app looks whether the app of the session machines can be used, or made. What only a write would show, as that a token may read and no more, a
// live run shows.
func (f *Fly) app(ctx context.Context, client *fly.Client) []Finding {
	app, err := client.App(ctx, f.App)
	switch {
	case errors.Is(err, fly.ErrNotFound):
		return f.mayCreate(ctx, client)
	case errors.Is(err, fly.ErrForbidden):
		return []Finding{bad("choose another name for FLAUDEBOT_FLY_APP, or "+newToken, "the token may not use the app %s: it is of another organization, or the token of another app", f.App)}
	case err != nil:
		return []Finding{f.trouble(err)}
	}
	machines, err := client.Machines(ctx, f.App, fly.MachineFilter{Summary: true})
	switch {
	case errors.Is(err, fly.ErrForbidden), errors.Is(err, fly.ErrUnauthorized):
		return []Finding{bad(newToken, "the token may not list the machines of the app %s", f.App)}
	case err != nil:
		return []Finding{f.trouble(err)}
	}
	out := []Finding{ok("the token may use the app %s, which has %d machines", f.App, len(machines))}
	if app.Network != "" && app.Network != f.App { // what runs in a session would reach what else is on that network
		out = append(out, warn("make the app anew: fly apps destroy "+f.App+", and fly apps create "+f.App+" --org "+f.Org+" --network "+f.App,
			"the app %s is on the private network %s, and not on one of its own: sessions may reach what else is there", f.App, app.Network))
	}
	return out
}

// mayCreate looks whether an app that is missing can be made.
func (f *Fly) mayCreate(ctx context.Context, client *fly.Client) []Finding {
	create := "fly apps create " + f.App + " --org " + f.Org + " --network " + f.App
	_, err := client.Apps(ctx, f.Org)
	switch {
	case err == nil:
		return []Finding{ok("the app %s does not exist yet: the bot makes it, in the organization %s", f.App, f.Org)}
	case errors.Is(err, fly.ErrForbidden), errors.Is(err, fly.ErrUnauthorized), errors.Is(err, fly.ErrNotFound):
		return []Finding{bad(create+" (or correct FLAUDEBOT_FLY_APP or FLAUDEBOT_FLY_ORG)", "there is no app %s that the token may use, and it may not make one in the organization %s", f.App, f.Org)}
	}
	return []Finding{f.trouble(err)}
}

// regions looks whether the regions are Fly's, and where there is room.
func (f *Fly) regions(ctx context.Context, client *fly.Client) []Finding {
	all, nearest, err := client.Regions(ctx)
	if err != nil {
		return []Finding{warn("try again later", "Fly does not list its regions: %s", plain(err))}
	}
	var unknown, codes []string
	for _, r := range all {
		codes = append(codes, r.Code)
	}
	for _, code := range f.Regions {
		i := slices.IndexFunc(all, func(r fly.Region) bool { return r.Code == code })
		if i < 0 || all[i].Deprecated {
			unknown = append(unknown, code)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(codes)
		return []Finding{bad("choose among "+strings.Join(codes, ", ")+" (the next to here is "+nearest+")", "FLAUDEBOT_REGIONS names what is no region of Fly's, or is one no more: %s", strings.Join(unknown, ", "))}
	}
	full := make([]bool, len(f.Regions))
	errs := make([]error, len(f.Regions))
	var wg sync.WaitGroup
	for i, code := range f.Regions {
		wg.Go(func() {
			placed, err := client.Placements(ctx, fly.Placement{Org: f.Org, Region: code, Compute: &f.Guest, Count: 1, VolumeBytes: int64(f.VolumeGB) << 30})
			full[i] = err == nil && !slices.ContainsFunc(placed, func(p fly.Placed) bool { return p.Region == code && p.Count > 0 }) ||
				errors.Is(err, fly.ErrCapacity) || errors.Is(err, fly.ErrQuota)
			errs[i] = err
		})
	}
	wg.Wait()
	var without []string
	for i, code := range f.Regions {
		if full[i] {
			without = append(without, code)
		} else if errs[i] != nil {
			return []Finding{warn("`flaudebot doctor --live` makes a machine and so shows it", "the regions are Fly's, and whether there is room it does not say: %s", plain(errs[i]))}
		}
	}
	machine := fmt.Sprintf("%s CPUs %s and %d MB", fmt.Sprint(f.Guest.CPUs), f.Guest.CPUKind, f.Guest.MemoryMB)
	switch {
	case len(without) == len(f.Regions):
		return []Finding{bad(fixRoom, "Fly has no room for a machine of %s just now in %s", machine, strings.Join(without, ", "))}
	case len(without) > 0:
		return []Finding{warn(fixRoom, "Fly has no room for a machine of %s just now in %s: new sessions go elsewhere", machine, strings.Join(without, ", "))}
	}
	return []Finding{ok("Fly has room for a machine of %s in %s", machine, strings.Join(f.Regions, ", "))}
}

// trouble is the finding of an error of Fly.
func (f *Fly) trouble(err error) Finding {
	failed, _ := errors.AsType[*fly.Error](err)
	switch {
	case errors.Is(err, fly.ErrUnauthorized):
		return bad(newToken, "Fly refuses FLY_API_TOKEN: %s", err)
	case errors.Is(err, fly.ErrForbidden):
		return bad(newToken, "FLY_API_TOKEN may not do this: %s", err)
	case errors.Is(err, fly.ErrPayment):
		return bad("see https://fly.io/dashboard → Billing", "Fly wants the organization to look after its billing: %s", err)
	case errors.Is(err, fly.ErrRateLimited):
		return warn("try again in a minute", "Fly asks to be left alone: %s", err)
	case failed != nil && failed.Status == 0:
		return away("the Machines API", f.BaseURL, "FLY_FLAPS_BASE_URL", err)
	}
	return bad("see https://status.flyio.net and try again", "%s", err)
}
