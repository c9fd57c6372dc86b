package sessions

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"flaudebot/runner"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestSession(t *testing.T) {
	t.Parallel()
	s := Session{SessionID: "id", CreatedAt: at("2026-01-01T00:00:00Z"), TTLSeconds: 3600, LastTurn: at("2026-01-01T00:00:00Z")}
	t.Run("expires a TTL after its creation", func(t *testing.T) {
		t.Parallel()
		if end, why := s.endsAt(0); !end.Equal(at("2026-01-01T01:00:00Z")) || why != EndByTTL {
			t.Errorf("it ends %v, %s, want an hour after its creation", end, why)
		}
		forever := s
		forever.TTLSeconds = 0
		if end, _ := forever.endsAt(0); !end.IsZero() {
			t.Errorf("a session without a TTL ends %v", end)
		}
	})
	t.Run("has the seed system's fields on the wire", func(t *testing.T) {
		t.Parallel()
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"session_id", "machine_id", "volume_id", "app_name", "region", "created_at", "ttl_seconds"} {
			if !strings.Contains(string(raw), `"`+name+`"`) {
				t.Errorf("the record has no %s: %s", name, raw)
			}
		}
		if !strings.Contains(string(raw), `"created_at":"2026-01-01T00:00:00Z"`) {
			t.Errorf("created_at is not RFC 3339 in UTC: %s", raw)
		}
	})
	t.Run("names the work that is nowhere else", func(t *testing.T) {
		t.Parallel()
		s := Session{State: []runner.RepoState{{Dir: "clean"}, {Dir: "changed", Changed: 2}, {Dir: "ahead", Unpushed: 1}, {Dir: "unknown", Unknown: true}}}
		if got := s.Unpushed(); len(got) != 3 || got[0].Dir != "changed" || got[1].Dir != "ahead" || got[2].Dir != "unknown" {
			t.Errorf("Unpushed = %v, want changed, ahead and unknown", got)
		}
		s.Unsure, s.Repos = true, []runner.Repo{{URL: "https://h/clean"}, {URL: "https://h/never.git"}}
		got := s.Unpushed()
		if len(got) != 5 || got[0] != (runner.RepoState{Dir: "clean", Unknown: true}) || got[4] != (runner.RepoState{Dir: "never", Unknown: true}) {
			t.Errorf("Unpushed after a machine died = %v, want all five", got)
		}
		if s.State[0].Unknown {
			t.Error("the record was changed")
		}
		lost := Session{Unsure: true, State: []runner.RepoState{}, Repos: []runner.Repo{}}
		if got := lost.Unpushed(); len(got) != 1 || got[0] != (runner.RepoState{Dir: "workspace", Unknown: true}) {
			t.Errorf("Unpushed of a session of which no repository is known = %v", got)
		}
	})
}

func TestEndsAt(t *testing.T) {
	t.Parallel()
	created, used := at("2026-01-01T00:00:00Z"), at("2026-01-05T00:00:00Z")
	for name, c := range map[string]struct {
		ttl, idle time.Duration
		want      string
		why       EndReason
	}{
		"never, without limits":                      {0, 0, "", ""},
		"by its TTL, counted from its creation":      {240 * time.Hour, 0, "2026-01-11T00:00:00Z", EndByTTL},
		"by idleness, counted from its last turn":    {0, 48 * time.Hour, "2026-01-07T00:00:00Z", EndByIdle},
		"by whichever comes first: idleness":         {240 * time.Hour, 48 * time.Hour, "2026-01-07T00:00:00Z", EndByIdle},
		"by whichever comes first: its time to live": {120 * time.Hour, 480 * time.Hour, "2026-01-06T00:00:00Z", EndByTTL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Session{CreatedAt: created, LastTurn: used, TTLSeconds: int64(c.ttl / time.Second)}
			got, why := s.endsAt(c.idle)
			want := time.Time{}
			if c.want != "" {
				want = at(c.want)
			}
			if !got.Equal(want) || why != c.why {
				t.Errorf("endsAt = %v %q, want %v %q", got, why, want, c.why)
			}
		})
	}
}
