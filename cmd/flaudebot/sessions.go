package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"flaudebot/sessions"
)

// sessionsCommand lists or ends sessions from the command line, or accounts for what is on Fly.
func sessionsCommand(ctx context.Context, c cli) error {
	flags := c.settingsFlags()
	dry := flags.Bool("dry-run", false, "with reap: print what would be done, and do nothing")
	words, err := c.parseWords(flags)
	if err != nil {
		return err
	}
	end := len(words) == 2 && words[0] == "end"
	if !end && !oneOf(strings.Join(words, " "), "list", "reap") || *dry && words[0] != "reap" {
		fmt.Fprint(c.stderr, "Usage: flaudebot sessions list\n       flaudebot sessions end THREAD   (as list prints it)\n"+
			"       flaudebot sessions reap [--dry-run]   (prints what is on Fly; removes what was left behind, stops what runs for nobody)\n")
		return errUsage
	}
	service, leave, err := lookAtSessions(ctx, c, words[0] == "reap")
	if err != nil {
		return err
	}
	defer leave()
	switch words[0] {
	case "list":
		return listSessions(ctx, c, service)
	case "reap":
		return reapSessions(ctx, c, service, time.Now(), *dry)
	}
	thread, ok := sessions.ParseThread(words[1])
	if !ok {
		return fmt.Errorf("%q is no thread: want TEAM:CHANNEL:TS, as `flaudebot sessions list` prints it", words[1])
	}
	ending, err := service.End(ctx, thread, sessions.Operator, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "ending %s: the bot removes it as soon as its running turn has stopped\n", ending.Session.SessionID)
	return err
}

// lookAtSessions opens the sessions as the environment says, and warns of what it may say by mistake: it may be in which Redis they are.
func lookAtSessions(ctx context.Context, c cli, withFly bool) (service *sessions.Service, leave func(), err error) {
	parts := []string{"redis"}
	if withFly {
		parts = append(parts, "fly")
	}
	cfg, err := loadConfig(parts...)
	if err != nil {
		return nil, nil, err
	}
	warnOfUnknown(os.Environ(), cfg.logger(c.stderr))
	return openSessions(ctx, c, cfg, withFly)
}

// openSessions opens the sessions to look at them, with Fly if what is there counts. It gives up on a Redis that does not answer.
func openSessions(ctx context.Context, c cli, cfg config, withFly bool) (service *sessions.Service, leave func(), err error) {
	log := cfg.logger(c.stderr)
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	rdb, err := openRedis(ctx, cfg, log)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			rdb.close()
		}
	}()
	q, err := openQueue(ctx, cfg, rdb, log)
	if err != nil {
		return nil, nil, err
	}
	sc := sessions.ServiceConfig{Redis: rdb.calls, Prefix: cfg.Prefix, Queue: q, IdleTTL: cfg.idleTTL, AuditFor: cfg.auditFor, Log: log}
	if withFly {
		if sc.Machines, err = openMachines(cfg, log, nil); err != nil {
			return nil, nil, err
		}
	}
	service, err = sessions.NewService(sc)
	return service, rdb.close, err
}

// reapSessions prints what is ours on Fly and what is to happen to it, and has that happen unless it is only to be printed.
func reapSessions(ctx context.Context, c cli, service *sessions.Service, now time.Time, dry bool) error {
	all, err := service.Holdings(ctx, now)
	if err != nil && len(all) == 0 {
		return err
	}
	tw := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ON FLY\tSTATE\tSESSION\tTHREAD\tOWNER\tAGE\tCOST (EST.)\tVERDICT\tWHY")
	sum := map[sessions.Verdict]int{}
	usd := 0.0
	for _, h := range all {
		sum[h.Verdict]++
		usd += h.USD
		fmt.Fprintf(tw, "%s%s\t%s\t%s\t%s\t%s\t%s\t$%.2f\t%s\t%s\n", h.Machine, h.Volume, h.State, orDash(h.Session), threadName(h.Thread), orDash(h.Owner),
			h.Age.Round(time.Minute), h.USD, h.Verdict, h.Why)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%d machines and volumes, about $%.2f so far: %d to stop, %d to remove\n", len(all), usd, sum[sessions.VerdictStop], sum[sessions.VerdictRemove])
	if dry {
		fmt.Fprintln(c.stdout, "nothing was done (--dry-run)")
		return err
	}
	return errors.Join(err, service.Sweep(ctx, all))
}

func orDash(s string) string { return cmp.Or(s, "-") }

func threadName(t sessions.Thread) string {
	if t == (sessions.Thread{}) {
		return "-"
	}
	return t.Key()
}

func listSessions(ctx context.Context, c cli, service *sessions.Service) error {
	all, err := service.List(ctx, "", "")
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "THREAD\tSESSION\tOWNER\tTURNS\tCOST\tLAST TURN\tMACHINE\tVOLUME")
	for _, s := range all {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t$%.2f\t%s\t%s\t%s\n", s.Thread.Key(), s.SessionID, s.Owner, s.Turns, s.CostUSD,
			s.LastTurn.Format(time.RFC3339), s.MachineID, s.VolumeID)
	}
	return tw.Flush()
}
