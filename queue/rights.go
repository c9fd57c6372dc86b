package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// commands are all that the queue and its scripts send, with arguments as Redis wants them before it looks at rights. KEY stands for a key.
func commands() []string {
	return []string{
		"evalsha x 1 KEY", "eval x 1 KEY",
		"exists KEY", "set KEY x", "del KEY", "expire KEY 1", "persist KEY", "time",
		"hget KEY f", "hset KEY f v", "hsetnx KEY f v", "hdel KEY f", "hmget KEY f", "hincrby KEY f 1", "hexists KEY f",
		"rpush KEY e", "rpop KEY", "lpop KEY", "blpop KEY 1", "lrange KEY 0 1", "lindex KEY 0", "linsert KEY before e f", "llen KEY", "lrem KEY 1 e", "lset KEY 0 e",
		"sadd KEY m", "srem KEY m", "smembers KEY",
		"pttl KEY", "zadd KEY 1 m", "zrem KEY m", "zrange KEY 0 1", "zrangebyscore KEY 0 1", "zcard KEY",
	}
}

// Missing returns the names of those commands that the user of a client may not send, or not for keys that begin with prefix. Each command has its
// arguments, with KEY for a key. A Redis that does not tell, as one before 7 and some that speak its protocol, has nothing missing.
func Missing(ctx context.Context, rdb redis.Scripter, prefix string, commands ...string) ([]string, error) {
	const ask = `
local out = {}
if not redis.acl_check_cmd then return out end
for i = 2, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[i], '%S+') do words[#words + 1] = word == 'KEY' and ARGV[1] or word end
  if not redis.acl_check_cmd(unpack(words)) then out[#out + 1] = words[1] end
end
return out`
	args := []any{prefix + "rights"}
	for _, c := range commands {
		args = append(args, c)
	}
	missing, err := rdb.Eval(ctx, ask, nil, args...).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("ask for the rights of the user: %w", err)
	}
	return missing, nil
}

// UnfitError says why a Redis must not be used as it is: its settings, or the rights of the user. Waiting does not help.
type UnfitError struct{ Why string }

func (e *UnfitError) Error() string { return e.Why }

// CheckRights returns an [UnfitError] that names the commands which the user of a client lacks for keys of that prefix.
func CheckRights(ctx context.Context, rdb redis.Scripter, prefix string, commands ...string) error {
	missing, err := Missing(ctx, rdb, prefix, commands...)
	if err != nil {
		return err
	}
	switch {
	case len(missing) == 0:
		return nil
	case len(missing) >= len(slices.DeleteFunc(slices.Clone(commands), func(c string) bool { return !strings.Contains(c, "KEY") })):
		return &UnfitError{fmt.Sprintf("the user of Redis lacks the right to keys that begin with %s", prefix)}
	}
	return &UnfitError{fmt.Sprintf("the user of Redis lacks rights: %s, for keys that begin with %s", strings.Join(missing, ", "), prefix)}
}
