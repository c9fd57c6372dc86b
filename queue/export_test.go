package queue

import (
	"context"
	"time"
)

// What the model test drives one script at a time.

// Script runs one script with its arguments after the prefix.
func (q *Queue) Script(ctx context.Context, name string, args ...any) (any, error) {
	return q.run(ctx, name, args...).Result()
}

// Claims reads the claims that a step or an adopt replied.
func (q *Queue) Claims(list any) []*Claim {
	l, _ := list.([]any)
	return q.claims(l, time.Now())
}
