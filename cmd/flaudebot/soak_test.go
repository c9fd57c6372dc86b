//go:build soak

package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// TestSoak has people begin sessions, follow up and end them for a while (FLAUDEBOT_TEST_SOAK, 30m if it is not set), and looks whether the bot keeps its size: memory in use, goroutines
// and file handles of the last third of the time are those of the second, and Redis keeps for good no more than two keys for each thread. `make soak` runs it.
func TestSoak(t *testing.T) {
	t.Parallel()
	lasts := 30 * time.Minute
	if raw := os.Getenv("FLAUDEBOT_TEST_SOAK"); raw != "" {
		var err error
		if lasts, err = time.ParseDuration(raw); err != nil || lasts < time.Minute {
			t.Fatalf("FLAUDEBOT_TEST_SOAK=%s: want a time of a minute or more, such as 2h", raw)
		}
	}
	address := freeAddr(t)
	w := splitWorld(t, "--generosity", "20")
	w.env = append(w.env, "FLAUDEBOT_HTTP="+address, "FLAUDEBOT_LOG_LEVEL=info", "FLAUDEBOT_REAP_EVERY=5s", "FLAUDEBOT_SLACK_PACE_PERCENT=2000") // as generous: what waits for Slack is no growth of the bot's
	start(t, w.env, "serve")
	general := w.channel("general")
	ends := time.Now().Add(lasts)
	var turns, threads atomic.Int64
	var people sync.WaitGroup
	for who := range 4 {
		people.Go(func() {
			for n := 0; time.Now().Before(ends); n++ {
				root := w.say(member, general, "", fmt.Sprintf("%sremember the number %d", mention, 100*who+n))
				ask := []string{root}
				for range 2 {
					ask = append(ask, w.say(member, general, root, "what number did I ask you to remember?"))
				}
				for _, ts := range ask {
					if text, code := w.answer(general, root, ts); code != "0" || !strings.Contains(text, strconv.Itoa(100*who+n)) {
						t.Errorf("answer = %q (exit %s)", text, code)
						return
					}
					turns.Add(1)
				}
				w.say(member, general, root, "!end")
				w.until("its end", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "The session has ended") })
				threads.Add(1)
			}
		})
	}
	var samples []map[string]float64
	tick := time.NewTicker(lasts / 120)
	defer tick.Stop()
	for time.Now().Before(ends) {
		<-tick.C
		samples = append(samples, scrape(t, "http://"+address+"/metrics"))
	}
	people.Wait()
	t.Logf("%d turns in %d threads, all answered", turns.Load(), threads.Load())
	third := len(samples) / 3
	for name, more := range map[string]func(float64) float64{
		"go_memstats_heap_alloc_bytes":  func(x float64) float64 { return 1.2*x + 4<<20 },
		"process_resident_memory_bytes": func(x float64) float64 { return 1.2*x + 8<<20 },
		"go_goroutines":                 func(x float64) float64 { return x + 5 },
		"process_open_fds":              func(x float64) float64 { return x + 5 },
	} {
		second, last := least(samples[third:2*third], name), least(samples[2*third:], name)
		t.Logf("%s: %.0f, then %.0f", name, second, last)
		if last > more(second) || second == 0 {
			t.Errorf("%s has grown from %.0f to %.0f", name, second, last)
		}
	}
	rdb := goredis.NewClient(&goredis.Options{Addr: strings.TrimPrefix(w.redis, "redis://")})
	defer func() { _ = rdb.Close() }()
	kept, all := keysFor(t, rdb)
	t.Logf("Redis has %d keys, %d of them for good", all, kept)
	if most := 2*int(threads.Load()) + 30; kept > most {
		t.Errorf("Redis keeps %d keys for good, want %d at most", kept, most)
	}
	if m, v := flyList(t, "http://"+w.fly, "test-app", "machines"), flyList(t, "http://"+w.fly, "test-app", "volumes"); len(m)+len(v) > 0 {
		t.Errorf("%d machines and %d volumes are left", len(m), len(v))
	}
}

// scrape reads the metrics that have no labels.
func scrape(t *testing.T, url string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok {
			if x, err := strconv.ParseFloat(value, 64); err == nil {
				out[name] = x
			}
		}
	}
	return out
}

// least is the lowest of a figure: what is there between two collections of garbage, and between two bursts, is no growth.
func least(samples []map[string]float64, name string) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, s[name])
	}
	return slices.Min(all)
}

// keysFor counts the keys that never expire, and all.
func keysFor(t *testing.T, rdb *goredis.Client) (kept, all int) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	keys := rdb.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		all++
		if rdb.PTTL(ctx, keys.Val()).Val() == -1 {
			kept++
		}
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return kept, all
}
