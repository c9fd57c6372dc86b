package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Check looks at the server's settings: the error says why it must not be used, the warnings what
// may lose data. What the server does not tell, as managed ones and miniredis do not, is warned of or passed over.
func (q *Queue) Check(ctx context.Context) (warnings []string, err error) {
	if err := q.checkLayout(ctx); err != nil {
		return nil, err
	}
	info, err := q.rdb.Info(ctx, "server", "memory", "persistence").Result()
	if err != nil {
		return []string{"INFO is not allowed: persistence and eviction policy are not known"}, nil //nolint:nilerr // managed servers refuse it
	}
	field := fields(info)
	if v := field["redis_version"]; v != "" && major(v) < 7 && field["server_name"] == "" {
		return nil, fmt.Errorf("Redis %s: want 7 or later", v) //nolint:staticcheck // a name
	}
	if field["aof_enabled"] == "0" {
		warnings = append(warnings, "appendonly is off: a restart of Redis loses what was accepted since its last snapshot")
	}
	policy, limited := field["maxmemory_policy"], field["maxmemory"] != "" && field["maxmemory"] != "0"
	if limited && policy != "" && policy != "noeviction" {
		return warnings, fmt.Errorf("maxmemory-policy is %s: Redis would silently drop queued turns; set it to noeviction", policy)
	}
	return warnings, nil
}

// checkLayout marks an empty Redis with our layout's version, and refuses a newer one.
func (q *Queue) checkLayout(ctx context.Context) error {
	if err := q.rdb.HSetNX(ctx, q.prefix+"meta", "ver", version).Err(); err != nil {
		return fmt.Errorf("mark the layout: %w", err)
	}
	have, err := q.rdb.HGet(ctx, q.prefix+"meta", "ver").Int()
	if err != nil {
		return fmt.Errorf("read the layout's version: %w", err)
	}
	if have > version {
		return fmt.Errorf("the data in Redis has layout %d and this flaudebot knows %d: run the newer one", have, version)
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
