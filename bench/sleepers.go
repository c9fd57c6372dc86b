package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
	"flaudebot/sessions"
)

// sleepers makes sessions whose machines are stopped: in a fleet, and on record in Redis.
type sleepers struct {
	fleet *fleet
	rdb   *redis.Client
	// One session that the product itself made, whose machine and volume are copied.
	first  sessions.Session
	config []byte // of its machine
}

// newSleepers has the product make a session, and Redis know that it has lost nothing.
func newSleepers(ctx context.Context, f *fleet, rdb *redis.Client) (*sleepers, error) {
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	m, err := sessions.NewMachines(sessions.MachinesConfig{
		Fly: client, App: benchApp, Org: "personal", Regions: []string{"iad"}, Image: "registry.fly.io/" + benchApp + ":session",
	})
	if err != nil {
		return nil, err
	}
	s := &sleepers{fleet: f, rdb: rdb}
	s.first = m.Begin(sessions.Spec{Thread: sessions.Thread{Team: "T0", Channel: "C0", TS: "1.000001"}, Owner: "U0MEMBER"}, time.Now())
	if err := m.Create(ctx, &s.first, func(context.Context, sessions.Session) error { return nil }); err != nil {
		return nil, fmt.Errorf("make a session: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.config = f.machines[0].Config
	f.machines, f.volumes, f.byID = nil, nil, map[string]*fleetMachine{}
	if err := rdb.HSet(ctx, keys+"memory", "epoch", "bench").Err(); err != nil {
		return nil, fmt.Errorf("mark that Redis remembers: %w", err)
	}
	return s, nil
}

// keys is what the keys of sessions begin with.
const keys = "fb:{sessions}:"

// add makes sessions of threads whose last turn was then.
func (s *sleepers) add(ctx context.Context, threads []sessions.Thread, lastTurn func(int) time.Time) error {
	for part := range slices.Chunk(slices.Collect(indexes(len(threads))), 1000) {
		pipe := s.rdb.Pipeline()
		for _, i := range part {
			one, err := s.sleeper(threads[i], lastTurn(i))
			if err != nil {
				return err
			}
			raw, err := json.Marshal(one)
			if err != nil {
				return fmt.Errorf("encode a session: %w", err)
			}
			pipe.HSet(ctx, keys+"s:"+one.Thread.Key(), "json", raw, "fence", 0)
			pipe.ZAdd(ctx, keys+"live", redis.Z{Score: float64(one.LastTurn.Unix()), Member: one.Thread.Key()})
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("record sessions: %w", err)
		}
	}
	return nil
}

// sleeper makes the machine and the volume of a session that had three turns.
func (s *sleepers) sleeper(thread sessions.Thread, last time.Time) (sessions.Session, error) {
	one := s.first
	one.SessionID, one.Thread, one.CreatedAt, one.LastTurn = uuid.NewString(), thread, last.Add(-time.Hour).UTC().Truncate(time.Second), last.UTC()
	one.Turns, one.Handed, one.State, one.CostUSD = 3, true, nil, 0.42
	one.About, one.Since, one.LastID = "What is wrong with the build?", thread.TS, sessions.TurnID(thread.Key())
	// The names are what the product makes of the session's id, with and without hyphens.
	named := strings.NewReplacer(s.first.SessionID, one.SessionID, plain(s.first.SessionID), plain(one.SessionID))
	f := s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.addVolume("fb_"+plain(one.SessionID), s.first.Region, 1, one.CreatedAt)
	one.VolumeID = v.ID
	config := named.Replace(string(s.config))
	config = strings.NewReplacer(s.first.VolumeID, v.ID, s.first.Thread.Key(), thread.Key()).Replace(config)
	if bytes.Contains([]byte(config), []byte(s.first.SessionID)) {
		return one, errors.New("a machine's config still names another session")
	}
	m, err := f.addMachine("fb-"+one.SessionID, s.first.Region, json.RawMessage(config), one.CreatedAt)
	if err != nil {
		return one, err
	}
	one.MachineID, m.State, m.UpdatedAt = m.ID, "stopped", last.UTC().Format(time.RFC3339)
	m.Events = nil
	for i, e := range []fleetEvent{
		{Type: "exit", Status: "stopped", Source: "flyd"},
		{Type: "start", Status: "started", Source: "flyd"},
		{Type: "start", Status: "starting", Source: "user"},
		{Type: "exit", Status: "stopped", Source: "flyd"},
		{Type: "start", Status: "started", Source: "flyd"},
	} {
		e.ID, e.Timestamp = newID(26), last.Add(-time.Duration(i)*time.Minute).UnixMilli()
		if e.Type == "exit" {
			if e.Request, err = json.Marshal(exitRequest(false, last)); err != nil {
				return one, fmt.Errorf("encode an exit: %w", err)
			}
		}
		m.Events = append(m.Events, e)
	}
	return one, nil
}

// plain is as much of a session's id as a volume's name has.
func plain(id string) string { return strings.ReplaceAll(id, "-", "")[:27] }

// check has the product count its sessions, and judge what is on Fly: all of it has to be theirs.
func (s *sleepers) check(ctx context.Context, want int) error {
	q, err := queue.New(s.rdb, queue.Config{Prefix: "fb:"})
	if err != nil {
		return err
	}
	client, err := s.fleet.client()
	if err != nil {
		return err
	}
	m, err := sessions.NewMachines(sessions.MachinesConfig{Fly: client, App: benchApp, Regions: []string{"iad"}, Image: "any"})
	if err != nil {
		return err
	}
	sv, err := sessions.NewService(sessions.ServiceConfig{Redis: s.rdb, Prefix: "fb:", Queue: q, Machines: m})
	if err != nil {
		return err
	}
	all, err := sv.List(ctx, "", "")
	if err != nil || len(all) != want {
		return fmt.Errorf("%d of %d sessions are on record: %w", len(all), want, errors.Join(err, errMissed))
	}
	held, err := sv.Holdings(ctx, time.Now())
	if err != nil {
		return fmt.Errorf("judge what is on Fly: %w", err)
	}
	strange := slices.DeleteFunc(slices.Clone(held), func(h sessions.Holding) bool { return h.Known && h.Verdict == sessions.VerdictKeep })
	if len(held) != 2*want || len(strange) > 0 {
		return fmt.Errorf("of %d machines and volumes %d are known, %d are not: %w", 2*want, len(held)-len(strange), len(strange), errMissed)
	}
	return nil
}

func indexes(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}
