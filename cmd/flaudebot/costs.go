package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"flaudebot/sessions"
)

// costsCommand prints what sessions have cost in a month.
func costsCommand(ctx context.Context, c cli) error {
	now := time.Now()
	flags := c.settingsFlags()
	month := flags.String("month", sessions.CostMonth(now), "which `month`, in UTC, such as 2026-11")
	by := flags.String("by", string(sessions.CostBySession), "what they are added up by: `session`, channel or person")
	asJSON := flags.Bool("json", false, "print JSON: the month, the sums and the total")
	if err := c.parseAll(flags, " besides its flags (costs --help)"); err != nil {
		return err
	}
	_, _, err := sessions.ParseMonth(*month)
	switch {
	case err != nil:
		fmt.Fprintf(c.stderr, "flaudebot costs: --month: %s\n", err)
		return errUsage
	case !oneOf(*by, string(sessions.CostBySession), string(sessions.CostByChannel), string(sessions.CostByPerson)):
		fmt.Fprintf(c.stderr, "flaudebot costs: --by %s: want session, channel or person\n", *by)
		return errUsage
	}
	service, leave, err := lookAtSessions(ctx, c, false)
	if err != nil {
		return err
	}
	defer leave()
	all, err := service.Costs(ctx, "", *month, now)
	if err != nil {
		return err
	}
	sums := sessions.SumCosts(all, sessions.CostBy(*by))
	var total sessions.Cost
	for _, s := range sessions.SumCosts(all, "") { // at most one
		total = s
	}
	if *asJSON {
		enc := json.NewEncoder(c.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{"month": *month, "by": *by, "costs": sums, "total": total})
	}
	tw := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	switch sessions.CostBy(*by) {
	case sessions.CostBySession:
		fmt.Fprint(tw, "THREAD\tSESSION")
	case sessions.CostByChannel:
		fmt.Fprint(tw, "TEAM\tCHANNEL")
	case sessions.CostByPerson:
		fmt.Fprint(tw, "PERSON\t")
	}
	fmt.Fprintln(tw, "\tTURNS\tMODEL\tMACHINE s\tMACHINE (EST.)\tDISK GB-DAYS\tDISK (EST.)\tTOTAL (EST.)")
	row := func(a, b string, s sessions.Cost) {
		fmt.Fprintf(tw, "%s\t%s\t%d\t$%.2f\t%.0f\t$%.4f\t%.2f\t$%.4f\t$%.2f\n", a, b, s.Turns, s.ModelUSD, s.MachineSeconds, s.MachineUSD, s.DiskGBDays, s.DiskUSD, s.TotalUSD)
	}
	for _, s := range sums {
		switch sessions.CostBy(*by) {
		case sessions.CostBySession:
			row(s.Thread.Key(), s.Session, s)
		case sessions.CostByChannel:
			row(s.Thread.Team, s.Thread.Channel, s)
		case sessions.CostByPerson:
			row(s.Person, "", s)
		}
	}
	row("all of "+*month, "", total)
	return tw.Flush()
}
