package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"flaudebot/doctor"
)

const (
	// botGroup is the process group of fly.toml that runs the bot.
	botGroup = "bot"
	// botMachines are in it: one works while the other is replaced, or its host is away.
	botMachines = 2
)

// deployCommand puts the bot on Fly, with flyctl: it looks for what would keep it from working first, and whether it works afterwards.
func deployCommand(ctx context.Context, c cli) error {
	flags := c.settingsFlags()
	d := deployment{cli: c}
	flags.StringVar(&d.config, "config", "deploy/fly.toml", "`file` that flyctl deploys by, with a Dockerfile beside it")
	flags.DurationVar(&d.wait, "wait", 5*time.Minute, "how long the machines may take to pass their checks when all is deployed")
	if err := c.parseAll(flags, "\nUsage: "+c.command.line()); err != nil {
		return err
	}
	d.file = string(*c.envFile)
	r := report{out: c.stdout}
	found, err := d.before(ctx)
	if err != nil {
		return err
	}
	r.tell(found)
	if err := r.stops(ctx, "nothing was deployed: correct what is called a problem, and try again"); err != nil {
		return err
	}
	// Without services flyctl would make one machine, and a second that sleeps until the host of the first is gone.
	err = d.run(ctx, "deploy", "--app", d.app, "--config", d.config, "--dockerfile", filepath.Join(filepath.Dir(d.config), "Dockerfile"), "--ha=false")
	if err == nil {
		err = d.scale(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return exitCode(130)
		}
		return fmt.Errorf("the deploy ended before its time, and machines that it did not come to run what they ran: correct what flyctl says, and try again: %w", err)
	}
	fmt.Fprintf(c.stdout, "\nwaiting for the machines of %s to pass their checks, for %s at most\n", d.app, d.wait)
	r.tell(doctor.Redacted(d.after(ctx), d.secrets))
	if err := r.stops(ctx, "the release is deployed, and does not work: do what stands behind each problem"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "\n%s is deployed\n", d.app)
	return err
}

// stops is the error that ends a deploy after what was told; nil: it goes on. problems says what it means that there are some.
func (r *report) stops(ctx context.Context, problems string) error {
	switch {
	case ctx.Err() != nil:
		return exitCode(130)
	case r.failed != nil:
		return r.failed
	case r.problems > 0:
		return errors.New(problems)
	}
	return nil
}

// deployment is what is known of one.
type deployment struct {
	cli

	config string        // fly.toml
	file   string        // of settings; "": there is none
	wait   time.Duration // for the machines

	app      string   // the bot's
	sessions string   // the app of the session machines
	secrets  []string // that are not to be shown
}

// before are the findings of all that is looked at before a deploy. Nothing is changed.
func (d *deployment) before(ctx context.Context) ([]doctor.Finding, error) {
	found, err := d.settings(ctx)
	if err != nil {
		return nil, err
	}
	if !installed("flyctl") {
		return append(found, problem("fly", "flyctl is not installed", "see https://fly.io/docs/flyctl/install/, then `fly auth login`")), nil
	}
	var toml flyTOML
	more := d.readTOML(ctx, &toml)
	if found = append(found, more...); !doctor.Bad(more) {
		found = append(found, d.lookAtSecrets(ctx, toml)...)
		found = append(found, d.lookAtMachines(ctx)...)
	}
	return doctor.Redacted(found, d.secrets), nil
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// settings looks at the settings, and at the app and the image of the session machines, as doctor does. Of the file that the secrets are imported
// from all must make sense; without one no more is needed here than what names app and image.
func (d *deployment) settings(ctx context.Context) ([]doctor.Finding, error) {
	parts := []string{"fly"}
	if d.file != "" {
		parts = []string{"slack", "redis", "fly", "claude"}
	}
	s, err := readSettings()
	if err != nil {
		return nil, err
	}
	cfg, wrong := s.examine(parts...)
	d.sessions, d.secrets = cfg.FlyApp, cfg.secretValues()
	var found []doctor.Finding
	if d.file == "" {
		found = d.fileMissing(wrong)
	}
	found = slices.Concat(found, settingsFindings(wrong), unknownFindings(os.Environ(), "settings", ""))
	if machines := cfg.patient(wrong).Fly; machines != nil {
		machines.Regions = nil // where there is room just now is nothing that a deploy depends on
		for _, f := range doctor.Examine(ctx, doctor.Config{Fly: machines}) {
			if f.About == "fly" {
				found = append(found, f)
			}
		}
	}
	return found, nil
}

// flyTOML is what matters here of fly.toml, in the form of `flyctl config show` (flyctl, internal/appconfig/config.go).
type flyTOML struct {
	App    string `json:"app"`
	Deploy struct {
		Strategy string `json:"strategy"`
	} `json:"deploy"`
	Env       map[string]string `json:"env"`
	Processes map[string]string `json:"processes"`
	Checks    map[string]struct {
		Path      string   `json:"path"`
		Port      int      `json:"port"`
		Processes []string `json:"processes"`
	} `json:"checks"`
}

// readTOML reads fly.toml as flyctl does, and looks whether a deploy by it goes machine by machine, each when it is ready.
func (d *deployment) readTOML(ctx context.Context, toml *flyTOML) []doctor.Finding {
	if _, err := os.Stat(d.config); err != nil {
		return []doctor.Finding{problem("fly.toml", err.Error(), "run it where flaudebot's repository is, or name the file with --config")}
	}
	if err := d.ask(ctx, toml, "config", "show", "--local", "--config", d.config); err != nil {
		return []doctor.Finding{problem("fly.toml", err.Error(), d.login("correct "+d.config+", if it is that"))}
	}
	d.app = toml.App
	var out []doctor.Finding
	bad := func(what, fix string) { out = append(out, problem("fly.toml", what, "in "+d.config+" "+fix)) }
	if toml.App == d.sessions {
		bad(toml.App+" is the app of the session machines (FLAUDEBOT_FLY_APP), which the bot would share a network and secrets with", "name another app, which `fly apps create` makes")
	}
	if toml.Deploy.Strategy != "rolling" {
		bad(fmt.Sprintf("the strategy of deploys is %q: all machines might be replaced at once", toml.Deploy.Strategy), `set strategy = "rolling" below [deploy]`)
	}
	if toml.Processes[botGroup] != "serve" {
		bad("no process "+botGroup+" runs serve", `set `+botGroup+` = "serve" below [processes]`)
	}
	port := 0 // on which it is asked whether it is ready
	for _, c := range toml.Checks {
		if c.Path == "/readyz" && (len(c.Processes) == 0 || slices.Contains(c.Processes, botGroup)) {
			port = c.Port
		}
	}
	switch answers := toml.Env["FLAUDEBOT_HTTP"]; {
	case port != 0 && answers != fmt.Sprintf(":%d", port):
		bad(fmt.Sprintf("port %d is asked for /readyz, and FLAUDEBOT_HTTP below [env] is %q: nobody answers there", port, answers), fmt.Sprintf(`set FLAUDEBOT_HTTP = ":%d" below [env]`, port))
	case port == 0:
		bad("no check asks /readyz: a release that does not work would replace the one that does", "put [checks.ready] back, as flaudebot's repository has it")
	}
	for f := range reflect.TypeFor[settings]().Fields() {
		if name := f.Tag.Get("envconfig"); f.Tag.Get("secret") != "" && toml.Env[name] != "" {
			bad(name+" stands below [env], where all can read it who may see the app", "remove it, and set it with `fly secrets import`")
		}
	}
	if out == nil {
		out = append(out, fine("fly.toml", "deploys of "+toml.App+" go machine by machine, each when it is ready"))
	}
	return out
}

// lookAtSecrets looks whether the app is there, and has all that serve needs. Fly tells the names of secrets, and not their values.
func (d *deployment) lookAtSecrets(ctx context.Context, toml flyTOML) []doctor.Finding {
	var secrets []struct { // flyctl, internal/command/secrets/list.go
		Name string `json:"name"`
	}
	if err := d.ask(ctx, &secrets, "secrets", "list", "--json", "--app", d.app); err != nil {
		return []doctor.Finding{problem("secrets", err.Error(), d.login("`fly apps create "+d.app+"`, or correct the name in "+d.config+", if there is no such app of yours"))}
	}
	set := map[string]bool{}
	for _, s := range secrets {
		set[s.Name] = true
	}
	imports := "fly secrets import --stage -a " + d.app + " < " + cmp.Or(d.file, "flaudebot.env")
	out := slices.Concat(
		unknownFindings(slices.Collect(maps.Keys(toml.Env)), "fly.toml", " below [env] in "+d.config),
		unknownFindings(slices.Collect(maps.Keys(set)), "secrets", " among the secrets of "+d.app),
	)
	for _, name := range slices.Sorted(maps.Keys(toml.Env)) {
		if set[name] { // https://fly.io/docs/reference/configuration/#the-env-variables-section
			out = append(out, warning("secrets", name+" is a secret of "+d.app+" as well, which counts more than what "+d.config+" sets", "fly secrets unset --stage -a "+d.app+" "+name+", unless you mean it"))
		}
		set[name] = set[name] || toml.Env[name] != ""
	}
	var missing []string
	for f := range reflect.TypeFor[settings]().Fields() {
		if name := f.Tag.Get("envconfig"); f.Tag.Get("needs") != "" && !set[name] {
			missing = append(missing, name)
		}
	}
	switch oauth, key := "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_API_KEY"; {
	case !set[oauth] && !set[key]:
		missing = append(missing, oauth+" or "+key)
	case set[oauth] && set[key]:
		out = append(out, problem("secrets", oauth+" and "+key+" are both set in "+d.app+", which the bot refuses", "fly secrets unset --stage -a "+d.app+" "+key+" (or the other one)"))
	}
	if missing != nil {
		out = append(out, problem("secrets", d.app+" lacks "+strings.Join(missing, ", "), imports))
	} else if !doctor.Bad(out) {
		out = append(out, fine("secrets", d.app+" has all that the bot needs"))
	}
	if d.file == "" {
		return out
	}
	file, err := readEnvFile(d.file, false)
	if err != nil {
		return append(out, problem("settings", err.Error(), "see that it can be read"))
	}
	values := file.values()
	var left []string
	for f := range reflect.TypeFor[settings]().Fields() {
		name := f.Tag.Get("envconfig")
		switch before, _, comment := strings.Cut(values[name], "#"); {
		case comment && strings.Count(before, `"`)%2 == 0: // flyctl, internal/command/secrets/parser.go
			out = append(out, warning("secrets", "`fly secrets import` takes what stands behind a # for a comment, and so cuts "+name+" short", "fly secrets set --stage -a "+d.app+" '"+name+"=…'"))
		case values[name] != "" && !set[name] && !slices.Contains(missing, name):
			left = append(left, name)
		}
	}
	if left != nil {
		out = append(out, warning("secrets", d.file+" sets what "+d.app+" does not have: "+strings.Join(left, ", "), imports))
	}
	return out
}

// botMachine is what matters here of a machine, in the form of `flyctl machine list` (fly-go, machine_types.go).
type botMachine struct {
	ID         string `json:"id"`
	State      string `json:"state"`
	HostStatus string `json:"host_status"`
	Checks     []struct {
		Name   string `json:"name"`
		Status string `json:"status"`
		Output string `json:"output"`
	} `json:"checks"`
	Config     *botMachineConfig `json:"config"`
	Incomplete *botMachineConfig `json:"incomplete_config"` // instead of Config, when its host is away
}

type botMachineConfig struct {
	Metadata map[string]string `json:"metadata"`
	Standbys []string          `json:"standbys"` // the machines that it waits for to die
}

func (m botMachine) config() botMachineConfig {
	switch {
	case m.Config != nil:
		return *m.Config
	case m.Incomplete != nil:
		return *m.Incomplete
	}
	return botMachineConfig{}
}

// machines are those that run the bot, or are to.
func (d *deployment) machines(ctx context.Context) ([]botMachine, error) {
	var all []botMachine
	if err := d.ask(ctx, &all, "machine", "list", "--json", "--app", d.app); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(m botMachine) bool {
		return oneOf(m.State, "destroyed", "destroying") || m.config().Metadata["fly_process_group"] != botGroup // others are of release commands and consoles
	}), nil
}

// lookAtMachines looks whether each machine that there is will run.
func (d *deployment) lookAtMachines(ctx context.Context) []doctor.Finding {
	all, err := d.machines(ctx)
	if err != nil {
		return []doctor.Finding{problem("machines", err.Error(), d.login("see https://status.flyio.net"))}
	}
	var out []doctor.Finding
	for _, m := range all {
		if of := m.config().Standbys; len(of) > 0 {
			out = append(out, problem("machines", "machine "+m.ID+" sleeps until the host of "+strings.Join(of, ", ")+" is gone, and runs no bot",
				"fly machine destroy --force -a "+d.app+" "+m.ID+", and the deploy makes one that does"))
		}
	}
	switch {
	case out != nil:
	case len(all) < botMachines:
		out = append(out, fine("machines", fmt.Sprintf("%s has %s: the deploy makes %d of them", d.app, count(len(all), "machine"), botMachines)))
	default:
		out = append(out, fine("machines", fmt.Sprintf("%s has %s", d.app, count(len(all), "machine"))))
	}
	return out
}

// scale makes the machines that are missing, and leaves more than that alone.
func (d *deployment) scale(ctx context.Context) error {
	all, err := d.machines(ctx)
	if err != nil || len(all) >= botMachines {
		return err
	}
	return d.run(ctx, "scale", "count", fmt.Sprintf("%s=%d", botGroup, botMachines), "--yes", "--app", d.app)
}

// after looks at the machines until all of them work, or time is over.
func (d *deployment) after(ctx context.Context) []doctor.Finding {
	over := time.Now().Add(d.wait)
	pause := min(max(d.wait/60, 100*time.Millisecond), 5*time.Second)
	for {
		found := d.health(ctx)
		if !doctor.Bad(found) || !time.Now().Before(over) {
			return found
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return found
		}
	}
}

// health says of each machine whether it works.
func (d *deployment) health(ctx context.Context) []doctor.Finding {
	all, err := d.machines(ctx)
	if err != nil {
		return []doctor.Finding{problem("machines", err.Error(), "`fly status -a "+d.app+"` shows how they are")}
	}
	var out []doctor.Finding
	if len(all) < botMachines {
		out = append(out, problem("machines", fmt.Sprintf("%s has %s, and not %d", d.app, count(len(all), "machine"), botMachines), fmt.Sprintf("fly scale count %s=%d -a %s", botGroup, botMachines, d.app)))
	}
	for _, m := range all {
		name, logs := "machine "+m.ID, "`fly logs -a "+d.app+" --machine "+m.ID+"` tells why"
		var failing []string
		for _, c := range m.Checks {
			if c.Status != "passing" {
				failing = append(failing, strings.TrimSpace(c.Name+" is "+cmp.Or(c.Status, "unknown")+" "+c.Output))
			}
		}
		switch {
		case m.HostStatus != "" && m.HostStatus != "ok":
			out = append(out, problem("machines", name+" is on a host that is "+m.HostStatus, "see https://status.flyio.net, or fly machine destroy --force -a "+d.app+" "+m.ID+", and deploy again"))
		case m.State != "started":
			out = append(out, problem("machines", name+" is "+cmp.Or(m.State, "in no state")+", and not started", "fly machine start -a "+d.app+" "+m.ID+"; "+logs))
		case len(m.Checks) == 0:
			out = append(out, problem("machines", name+" has no checks", "put [checks.ready] back into "+d.config+", and deploy again"))
		case failing != nil:
			out = append(out, problem("machines", name+" does not pass its checks: "+strings.Join(failing, "; "), logs+", and docs/operations.md what a check asks for"))
		default:
			out = append(out, fine("machines", fmt.Sprintf("%s is started, and passes %s", name, count(len(m.Checks), "check"))))
		}
	}
	return out
}

// login is what to do about a refusal of flyctl's.
func (d *deployment) login(otherwise string) string {
	fix := "`fly auth login`, if flyctl is not logged in; "
	if slices.ContainsFunc(d.environ, func(v string) bool { return strings.HasPrefix(v, "FLY_API_TOKEN=") }) {
		fix = "`unset FLY_API_TOKEN`, which flyctl prefers to its login, if that is the token of another app; "
	}
	return fix + otherwise
}

// ask has flyctl answer a question, in JSON.
func (d *deployment) ask(ctx context.Context, into any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "flyctl", args...)
	cmd.Env = d.environ // and not with the file's FLY_API_TOKEN, which is for the sessions
	var said strings.Builder
	cmd.Stderr = &said
	raw, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(raw, into)
	} else if text := strings.TrimSpace(said.String()); text != "" {
		err = errors.New(text)
	}
	if err != nil {
		return fmt.Errorf("flyctl %s %s: %w", args[0], args[1], err)
	}
	return nil
}

// run has flyctl do something, for everybody to see.
func (d *deployment) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "flyctl", args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = d.environ, d.stdin, d.stdout, d.stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it gives its leases of the machines back
	cmd.WaitDelay = 30 * time.Second
	fmt.Fprintf(d.stdout, "\nflyctl %s\n", strings.Join(args, " "))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("flyctl %s: %w", args[0], err)
	}
	return nil
}

func problem(about, what, fix string) doctor.Finding {
	return doctor.Finding{Level: doctor.Problem, About: about, What: what, Fix: fix}
}

func warning(about, what, fix string) doctor.Finding {
	return doctor.Finding{Level: doctor.Warning, About: about, What: what, Fix: fix}
}

func fine(about, what string) doctor.Finding {
	return doctor.Finding{Level: doctor.OK, About: about, What: what}
}
