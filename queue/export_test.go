package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// What the model test drives one script at a time.

// Script runs one script with its arguments after the prefix.
func (q *Queue) Script(ctx context.Context, name string, args ...any) (any, error) {
	return q.run(ctx, name, args...).Result()
}

// EnqueueHere enqueues as a replica does that has a slot: what need not wait is claimed at once.
func (q *Queue) EnqueueHere(ctx context.Context, j Job, how Enqueue) (Enqueued, []*Claim, error) {
	return q.enqueue(ctx, j, how, true)
}

// Oversleep has a claim's lease be over by the replica's own clock.
func (c *Claim) Oversleep() { c.extend(time.Now().Add(-time.Millisecond)) }

// Claims reads the claims that a step or an adopt replied.
func (q *Queue) Claims(list any) []*Claim {
	l, _ := list.([]any)
	return q.claims(l, time.Now())
}

// Replace puts another text in the place of a script, or of what all of them begin with ("common").
func (q *Queue) Replace(name, text string) error {
	common, err := scripts.ReadFile("lua/common.lua")
	if err != nil {
		return fmt.Errorf("read the scripts: %w", err)
	}
	if name != "common" {
		q.script[name] = redis.NewScript(assemble(string(common), text))
		return nil
	}
	for n := range q.script {
		body, err := scripts.ReadFile("lua/" + n + ".lua")
		if err != nil {
			return fmt.Errorf("read the scripts: %w", err)
		}
		q.script[n] = redis.NewScript(assemble(strings.TrimRight(text, "\n"), string(body)))
	}
	return nil
}

// Commands are those that the rights of the user are checked for.
func Commands() []string { return commands() }
