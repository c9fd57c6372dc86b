package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Check looks at the server's settings and at the rights of the user. An [UnfitError] says why it must not be used, any other error is
// Redis's own; the warnings say what may lose data. What the server does not tell, as managed ones and miniredis do not, is warned of or passed over.
func (q *Queue) Check(ctx context.Context) (warnings []string, err error) {
	if err := CheckRights(ctx, q.rdb, q.prefix, commands()...); err != nil {
		return nil, err
	}
	if err := q.checkLayout(ctx); err != nil {
		return nil, err
	}
	info, err := q.info(ctx)
	if err != nil {
		if t := TroubleOf(err); t.Code != "NOPERM" && t.Code != "ERR" {
			return nil, fmt.Errorf("ask for the settings: %w", err)
		}
		return []string{"INFO is not allowed: persistence and eviction policy are not known"}, nil
	}
	server := serverOf(info)
	return server.warnings(), server.unfit()
}

// info asks the node of a cluster that has our keys.
func (q *Queue) info(ctx context.Context) (string, error) {
	sections := []string{"server", "memory", "persistence"}
	cluster, ok := q.rdb.(*redis.ClusterClient)
	if !ok {
		return q.rdb.Info(ctx, sections...).Result()
	}
	node, err := cluster.MasterForKey(ctx, q.prefix+"meta")
	if err != nil {
		return "", err
	}
	return node.Info(ctx, sections...).Result()
}

// checkLayout marks an empty Redis with our layout's version, and refuses a newer one.
func (q *Queue) checkLayout(ctx context.Context) error {
	have, err := q.rdb.HGet(ctx, q.prefix+"meta", "ver").Int()
	if errors.Is(err, redis.Nil) { // nothing is written to one that was marked: it may be full
		have, err = version, q.rdb.HSetNX(ctx, q.prefix+"meta", "ver", version).Err()
	}
	if err != nil {
		return fmt.Errorf("mark the layout: %w", err)
	}
	if have > version {
		return &UnfitError{fmt.Sprintf("the data in Redis has layout %d and this flaudebot knows %d: run the newer one", have, version)}
	}
	return nil
}

func fields(info string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(info) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[k] = v
		}
	}
	return out
}

func major(v string) int {
	head, _, _ := strings.Cut(v, ".")
	n, _ := strconv.Atoi(head)
	return n
}
