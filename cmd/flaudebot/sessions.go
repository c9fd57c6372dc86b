package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"flaudebot/sessions"
)

// sessionsCommand lists or ends sessions from the command line.
func sessionsCommand(ctx context.Context, c cli) error {
	if len(c.args) == 0 || !oneOf(c.args[0], "list", "end") || (c.args[0] == "end") != (len(c.args) == 2) {
		fmt.Fprint(c.stderr, "Usage: flaudebot sessions list\n       flaudebot sessions end THREAD   (as list prints it)\n")
		return errUsage
	}
	cfg, err := loadConfig("redis")
	if err != nil {
		return err
	}
	log := cfg.logger(c.stderr)
	rdb, err := openRedis(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer rdb.close()
	q, err := openQueue(ctx, cfg, rdb, log)
	if err != nil {
		return err
	}
	service, err := sessions.NewService(sessions.ServiceConfig{Redis: rdb.calls, Prefix: cfg.Prefix, Queue: q, Log: log})
	if err != nil {
		return err
	}
	if c.args[0] == "list" {
		return listSessions(ctx, c, service)
	}
	thread, ok := sessions.ParseThread(c.args[1])
	if !ok {
		return fmt.Errorf("%q is no thread: want TEAM:CHANNEL:TS, as `flaudebot sessions list` prints it", c.args[1])
	}
	ending, err := service.End(ctx, thread, "operator", "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "ending %s: the bot removes it as soon as its running turn has stopped\n", ending.Session.SessionID)
	return err
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
