package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Server is what a Redis says of itself with INFO. Fields are empty that it does not tell, as managed ones and miniredis do not.
type Server struct {
	Version   string // redis_version
	Name      string // of one that is not Redis's own, such as valkey: its redis_version is made up
	AOF       string // "0": appendonly is off
	Policy    string // maxmemory-policy
	MaxMemory int64  // bytes; 0: no limit
	Used      int64  // bytes
}

func serverOf(info string) Server {
	f := fields(info)
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(f[name], 10, 64)
		return n
	}
	return Server{
		Version: f["redis_version"], Name: f["server_name"], AOF: f["aof_enabled"], Policy: f["maxmemory_policy"],
		MaxMemory: number("maxmemory"), Used: number("used_memory"),
	}
}

// warnings say what may lose data.
func (s Server) warnings() []string {
	if s.AOF == "0" {
		return []string{"appendonly is off: a restart of Redis loses what was accepted since its last snapshot"}
	}
	return nil
}

// Old reports whether it is a Redis before 7, which has not all that the queue needs.
func (s Server) Old() bool { return s.Version != "" && major(s.Version) < 7 && s.Name == "" }

// Evicts reports whether it drops what is queued when it is full.
func (s Server) Evicts() bool { return s.MaxMemory > 0 && s.Policy != "" && s.Policy != "noeviction" }

// unfit returns an [UnfitError] if the server must not be used.
func (s Server) unfit() error {
	switch {
	case s.Old():
		return &UnfitError{fmt.Sprintf("Redis %s: want 7 or later", s.Version)}
	case s.Evicts():
		return &UnfitError{fmt.Sprintf("maxmemory-policy is %s: Redis would silently drop queued turns; set it to noeviction", s.Policy)}
	}
	return nil
}

// Look is what [Queue.Look] finds.
type Look struct {
	Lacks  error // an [UnfitError] that names the rights which the user lacks; nil: none
	Layout int   // of the data that is there; 0: none is
	Known  int   // the newest layout that this program knows
	Server Server
	Silent bool // INFO is not allowed
}

// Look finds out what [Queue.Check] decides on, all of it whatever is wrong, and writes nothing.
func (q *Queue) Look(ctx context.Context) (Look, error) {
	l := Look{Known: version}
	var unfit *UnfitError
	if err := CheckRights(ctx, q.rdb, q.prefix, commands()...); errors.As(err, &unfit) {
		l.Lacks = unfit
	} else if err != nil {
		return l, err
	}
	have, err := q.rdb.HGet(ctx, q.prefix+"meta", "ver").Int()
	if t := TroubleOf(err); err != nil && !errors.Is(err, redis.Nil) && t.Code != "NOPERM" { // that is said with the rights
		return l, fmt.Errorf("read the layout: %w", err)
	}
	l.Layout = have
	info, err := q.info(ctx)
	switch t := TroubleOf(err); {
	case err == nil:
		l.Server = serverOf(info)
	case t.Code == "NOPERM" || t.Code == "ERR":
		l.Silent = true
	default:
		return l, fmt.Errorf("ask for the settings: %w", err)
	}
	return l, nil
}
