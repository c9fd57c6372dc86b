package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"time"

	"flaudebot/sessions"
)

// auditCommand prints who asked, and what ran, a line of JSON for each entry.
func auditCommand(ctx context.Context, c cli) error {
	var filter sessions.AuditFilter
	flags := c.settingsFlags()
	flags.Func("since", "leave out what is older: a `date` such as 2026-11-01, in UTC, or a time such as 2026-11-01T12:00:00Z", day(&filter.Since))
	flags.Func("until", "leave out what is of that `date` or later", day(&filter.Until))
	flags.StringVar(&filter.Channel, "channel", "", "of one channel: its `id`")
	flags.StringVar(&filter.Person, "person", "", "of one person: the Slack `id`")
	if err := c.parseAll(flags, " besides its flags (audit --help)"); err != nil {
		return err
	}
	service, leave, err := lookAtSessions(ctx, c, false)
	if err != nil {
		return err
	}
	defer leave()
	out := bufio.NewWriter(c.stdout)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := service.Audit(ctx, filter, func(e sessions.Entry) error { return enc.Encode(e) }); err != nil {
		return err
	}
	return out.Flush()
}

// day reads a date, or a time.
func day(to *time.Time) func(string) error {
	return func(text string) (err error) {
		for _, form := range []string{time.DateOnly, time.RFC3339} {
			if *to, err = time.Parse(form, text); err == nil {
				return nil
			}
		}
		return errors.New("want a date such as 2026-11-01, or a time such as 2026-11-01T12:00:00Z")
	}
}
