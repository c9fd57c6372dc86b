package sessions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

func newTestStore(t *testing.T) (*store, *miniredis.Miniredis) {
	t.Helper()
	mini := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mini.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	return newStore(rdb, testPrefix), mini
}

// roundTrips is a hook that counts how often Redis was waited for, but for the greetings of a connection.
type roundTrips struct{ n atomic.Int64 }

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "hmget" || cmd.Name() == "zrevrange" {
			r.n.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "hmget" {
			r.n.Add(1)
		}
		return next(ctx, cmds)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	put := func(t *testing.T, st *store, s Session, fence int64) {
		t.Helper()
		if err := st.Put(t.Context(), s, fence); err != nil {
			t.Fatal(err)
		}
	}
	get := func(t *testing.T, st *store, th Thread) *Session {
		t.Helper()
		s, err := st.Get(t.Context(), th)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("a thread that never had a session has none", func(t *testing.T) {
		t.Parallel()
		st, _ := newTestStore(t)
		if s := get(t, st, thread()); s != nil {
			t.Errorf("Get = %+v", s)
		}
	})
	t.Run("what was put comes back", func(t *testing.T) {
		t.Parallel()
		st, _ := newTestStore(t)
		s := Session{
			SessionID: "s1", MachineID: "m", VolumeID: "v", AppName: "a", Region: "fra", CreatedAt: at("2026-01-01T00:00:00Z"), TTLSeconds: 60,
			Thread: thread(), Owner: "U1", Turns: 2, CostUSD: 1.5, LastID: "t2", Handed: true, Left: []Remains{{SessionID: "s0", VolumeID: "v0"}},
		}
		put(t, st, s, 1)
		got := get(t, st, thread())
		if got.SessionID != "s1" || got.MachineID != "m" || got.VolumeID != "v" || got.AppName != "a" || got.Region != "fra" || !got.CreatedAt.Equal(s.CreatedAt) ||
			got.TTLSeconds != 60 || got.Thread != s.Thread || got.Turns != 2 || got.CostUSD != 1.5 || got.LastID != "t2" || !got.Handed || len(got.Left) != 1 || got.Left[0] != s.Left[0] {
			t.Errorf("Get = %+v, want %+v", got, s)
		}
	})
	t.Run("a write under an older claim is refused, one under the same or a newer is not", func(t *testing.T) {
		t.Parallel()
		st, _ := newTestStore(t)
		s := Session{SessionID: "new", Thread: thread()}
		put(t, st, s, 7)
		if err := st.Put(t.Context(), Session{SessionID: "old", Thread: thread()}, 6); !errors.Is(err, errStale) {
			t.Errorf("Put with an older fence = %v, want errStale", err)
		}
		if got := get(t, st, thread()); got.SessionID != "new" {
			t.Errorf("the record is %q", got.SessionID)
		}
		for _, fence := range []int64{7, 8} {
			s.Turns++
			put(t, st, s, fence)
		}
		if got := get(t, st, thread()); got.Turns != 2 {
			t.Errorf("the record is %+v", got)
		}
	})
	t.Run("what is nobody's claim writes where no session is, also beside a note that outlived one", func(t *testing.T) {
		t.Parallel()
		st, mini := newTestStore(t)
		put(t, st, Session{SessionID: "s", Thread: thread()}, 7)
		mini.FlushAll()
		if _, err := st.Keep(t.Context(), thread(), Kept{}, Kept{Session: "s"}, nil); err != nil {
			t.Fatal(err)
		}
		put(t, st, Session{SessionID: "s", Thread: thread()}, 0)
		if err := st.Put(t.Context(), Session{SessionID: "other", Thread: thread()}, 0); !errors.Is(err, errStale) {
			t.Errorf("Put where a session is = %v, want errStale", err)
		}
	})
	t.Run("the record of a thread never expires, ended or not", func(t *testing.T) {
		t.Parallel()
		st, mini := newTestStore(t)
		put(t, st, Session{SessionID: "s", Thread: thread(), EndedAt: at("2026-01-01T00:00:00Z")}, 1)
		mini.FastForward(10 * 365 * 24 * time.Hour)
		if got := get(t, st, thread()); got == nil || !got.Ended() {
			t.Errorf("after ten years: %+v", got)
		}
	})
	t.Run("the list has what is live or has something on Fly, the one used last first, by thread", func(t *testing.T) {
		t.Parallel()
		st, _ := newTestStore(t)
		ended, used := at("2026-01-09T00:00:00Z"), at("2026-01-01T00:00:00Z")
		for i, s := range []Session{
			{SessionID: "oldest", Thread: Thread{"T1", "C1", "1"}, LastTurn: used},
			{SessionID: "newest", Thread: Thread{"T1", "C2", "2"}, LastTurn: used.Add(3 * time.Hour)},
			{SessionID: "middle", Thread: Thread{"T1", "C1", "3"}, LastTurn: used.Add(2 * time.Hour)},
			{SessionID: "other team", Thread: Thread{"T2", "C1", "4"}, LastTurn: used.Add(time.Hour)},
			{SessionID: "longer channel", Thread: Thread{"T1", "C11", "5"}, LastTurn: used.Add(30 * time.Minute)},
			{SessionID: "gone", Thread: Thread{"T1", "C1", "6"}, LastTurn: ended, EndedAt: ended},
			{SessionID: "half gone", Thread: Thread{"T1", "C1", "7"}, LastTurn: used.Add(-time.Hour), EndedAt: ended, VolumeID: "v"},
			{SessionID: "leaves something", Thread: Thread{"T1", "C1", "8"}, LastTurn: used.Add(-2 * time.Hour), EndedAt: ended, Left: []Remains{{SessionID: "s"}}},
		} {
			put(t, st, s, int64(i+1))
		}
		for prefix, want := range map[string][]string{
			"":       {"newest", "middle", "other team", "longer channel", "oldest", "half gone", "leaves something"},
			"T1:":    {"newest", "middle", "longer channel", "oldest", "half gone", "leaves something"},
			"T1:C1:": {"middle", "oldest", "half gone", "leaves something"},
			"T3:":    nil,
		} {
			all, err := st.All(t.Context(), prefix)
			if got := names(all); err != nil || !slices.Equal(got, want) {
				t.Errorf("All(%q) = %v, %v, want %v", prefix, got, err, want)
			}
		}
	})
	t.Run("a session that ends leaves the list, and comes back with the next one of its thread", func(t *testing.T) {
		t.Parallel()
		st, _ := newTestStore(t)
		s := Session{SessionID: "s1", Thread: thread()}
		put(t, st, s, 1)
		s.EndedAt = at("2026-01-01T00:00:00Z")
		put(t, st, s, 2)
		if all, err := st.All(t.Context(), ""); err != nil || len(all) != 0 {
			t.Errorf("All = %v, %v, want none", names(all), err)
		}
		put(t, st, Session{SessionID: "s2", Thread: thread()}, 3)
		if all, err := st.All(t.Context(), ""); err != nil || !slices.Equal(names(all), []string{"s2"}) {
			t.Errorf("All = %v, %v, want s2", names(all), err)
		}
	})
	t.Run("a record that cannot be read is said, and hides no other", func(t *testing.T) {
		t.Parallel()
		st, mini := newTestStore(t)
		put(t, st, Session{SessionID: "good", Thread: thread()}, 1)
		bad := Thread{"T1", "C1", "9"}
		put(t, st, Session{SessionID: "bad", Thread: bad}, 1)
		mini.HSet(st.session(bad), "json", "{")
		all, err := st.All(t.Context(), "")
		if !errors.Is(err, errUnreadable) || !slices.Equal(names(all), []string{"good"}) {
			t.Errorf("All = %v, %v, want the good one and an error", names(all), err)
		}
	})
	t.Run("many are listed in few round trips, and in order", func(t *testing.T) {
		t.Parallel()
		st, _ := newTestStore(t)
		const n = readAtOnce + 1
		for i := range n {
			put(t, st, Session{SessionID: strconv.Itoa(i), Thread: Thread{"T1", "C1", strconv.Itoa(i)}, LastTurn: time.Unix(int64(n-i), 0)}, 1)
		}
		trips := &roundTrips{}
		st.rdb.AddHook(trips)
		all, err := st.All(t.Context(), "")
		if err != nil || len(all) != n || !slices.IsSortedFunc(all, func(a, b Session) int { return b.LastTurn.Compare(a.LastTurn) }) {
			t.Errorf("All = %d sessions, %v, want %d, the one used last first", len(all), err, n)
		}
		if got := trips.n.Load(); got != 3 { // the list, and twice records
			t.Errorf("%d sessions took %d round trips, want 3", n, got)
		}
	})
	t.Run("something is done once, until it is forgotten or its time is over", func(t *testing.T) {
		t.Parallel()
		st, mini := newTestStore(t)
		once := func() bool {
			first, err := st.Once(t.Context(), "key", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			return first
		}
		if !once() || once() {
			t.Error("Once is not once")
		}
		if err := st.Forget(t.Context(), "key"); err != nil || !once() {
			t.Errorf("Forget = %v, or did not", err)
		}
		mini.FastForward(2 * time.Hour)
		if !once() {
			t.Error("its time is not over")
		}
	})
	t.Run("without Redis there is an error, and nothing is made up", func(t *testing.T) {
		t.Parallel()
		st, mini := newTestStore(t)
		put(t, st, Session{SessionID: "s", Thread: thread()}, 1)
		mini.SetError("LOADING")
		if s, err := st.Get(t.Context(), thread()); err == nil || s != nil {
			t.Errorf("Get = %v, %v", s, err)
		}
		if all, err := st.All(t.Context(), ""); err == nil || all != nil {
			t.Errorf("All = %v, %v", all, err)
		}
		if err := st.Put(t.Context(), Session{Thread: thread()}, 2); err == nil || errors.Is(err, errStale) {
			t.Errorf("Put = %v, want Redis's error", err)
		}
	})
}

func names(all []Session) []string {
	var out []string
	for _, s := range all {
		out = append(out, s.SessionID)
	}
	return out
}

func TestThread(t *testing.T) {
	t.Parallel()
	if got, ok := ParseThread(thread().Key()); !ok || got != thread() {
		t.Errorf("ParseThread(%q) = %+v, %v", thread().Key(), got, ok)
	}
	for _, key := range []string{"", "T:C", "T:C:1:2", ":C:1", "T::1", "T:C:"} {
		if got, ok := ParseThread(key); ok {
			t.Errorf("ParseThread(%q) = %+v", key, got)
		}
	}
}

// TestStoreCommands: the rights that a start asks for are those of every command in the scripts.
func TestStoreCommands(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.lua")
	if err != nil || len(files) < 2 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`redis\.call\('([A-Z]+)'`).FindAllSubmatch(text, -1) {
			name := strings.ToLower(string(m[1]))
			if !slices.ContainsFunc(storeCommands(), func(line string) bool { return strings.HasPrefix(line, name+" ") }) {
				t.Errorf("%s calls %s, which storeCommands does not have", file, name)
			}
		}
	}
}
