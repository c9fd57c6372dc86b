package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flaudebot/queue"
)

type part struct {
	name string
	run  func(context.Context, bench) error
}

func parts() []part {
	return []part{
		{"throughput", reportThroughput},
		{"latency", reportLatency},
		{"idle", reportIdle},
		{"growth", reportGrowth},
		{"memory", reportMemory},
		{"takeover", reportTakeover},
		{"acks", reportAcks},
		{"turns", reportTurns},
		{"warm", reportWarm},
		{"load", reportLoad},
		{"sleeping", reportSleeping},
	}
}

// of collects a figure from all rounds.
func (s series) of(name string) []float64 {
	var out []float64
	for _, f := range s {
		out = append(out, f[name])
	}
	return out
}

// ratio collects the ratio of two series within each round.
func ratio(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// row prints a figure: the median, from the least to the most, and how it compares with what is wanted.
func row(what string, list []float64, unit string, atLeast, atMost float64) {
	m, verdict := median(list), ""
	switch {
	case atLeast > 0:
		verdict = fmt.Sprintf("at least %s%s: %s", number(atLeast), unit, met(m >= atLeast))
	case atMost > 0:
		verdict = fmt.Sprintf("at most %s%s: %s", number(atMost), unit, met(m <= atMost))
	}
	fmt.Printf("%-66s %10s%-4s (%s to %s)  %s\n", what, number(m), unit, number(slices.Min(list)), number(slices.Max(list)), verdict)
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}

func number(x float64) string {
	switch {
	case x >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

func reportThroughput(ctx context.Context, b bench) error {
	fmt.Println("\nJobs per second: 10,000 no-op jobs over 1,000 keys, 200 bytes, 10 producers. asynq gives no order per key; the queue does.")
	for _, workers := range []int{10, 50} {
		t := task{What: "throughput", Workers: workers, Jobs: b.size(10_000, 200), Keys: b.size(1000, 20)}
		theirs := t
		t.Impl, theirs.Impl = "flaudebot", "asynq"
		got, err := b.compare(ctx, t, theirs)
		if err != nil {
			return err
		}
		must := map[string]map[int]float64{"drain": {10: 1.3, 50: 2}, "mixed": {10: 1.2, 50: 1.8}}
		for _, name := range []string{"enqueue", "drain", "mixed"} {
			row(fmt.Sprintf("%d workers, %s, asynq", workers, name), got[1].of(name), "/s", 0, 0)
			row(fmt.Sprintf("%d workers, %s", workers, name), got[0].of(name), "/s", 0, 0)
			row("  ratio within a round", ratio(got[0].of(name), got[1].of(name)), "x", must[name][workers], 0)
		}
		for i, impl := range []string{"", ", asynq"} {
			for _, name := range []string{"drain", "mixed"} {
				row(fmt.Sprintf("%d workers, %s, script calls per job%s", workers, name, impl), got[i].of(name+" calls"), "", 0, 0)
				row(fmt.Sprintf("%d workers, %s, script time per job%s", workers, name, impl), got[i].of(name+" µs"), "µs", 0, 0)
			}
		}
	}
	return nil
}

func reportLatency(ctx context.Context, b bench) error {
	fmt.Println("\nIdle queue, from before the enqueue to the first line of the handler; PINGs in between, in the same idle state.")
	got, err := b.compare(ctx, task{What: "latency", Jobs: b.size(400, 10)})
	if err != nil {
		return err
	}
	s := got[0]
	row("PING, p50", s.of("ping p50"), "ms", 0, 0)
	row("  p99", s.of("ping p99"), "ms", 0, 0)
	row("the replica that enqueues has a free slot, p50", s.of("own p50"), "ms", 0, 0)
	row("  in PINGs", ratio(s.of("own p50"), s.of("ping p50")), "x", 0, 1.8)
	row("  p99", s.of("own p99"), "ms", 0, 3)
	row("another replica, by the doorbell, p50", s.of("other p50"), "ms", 0, 0)
	row("  in PINGs", ratio(s.of("other p50"), s.of("ping p50")), "x", 0, 2.8)
	row("  p99", s.of("other p99"), "ms", 0, 3)
	return nil
}

func reportIdle(ctx context.Context, b bench) error {
	fmt.Println("\nAn idle replica with the product's settings.")
	got, err := b.compare(ctx, task{What: "idle", Seconds: b.size(20, 1)})
	if err != nil {
		return err
	}
	row("commands that it sends to Redis", got[0].of("commands"), "/s", 0, 2)
	return nil
}

func reportGrowth(ctx context.Context, b bench) error {
	fmt.Println("\nScript time per operation with so many sleeping sessions, the sizes taken in turn.")
	sizes := []int{1000, b.size(10_000, 1000), b.size(100_000, 1000)}
	got, err := b.compare(ctx, task{What: "growth", Sizes: sizes, Rounds: b.size(5, 1), Jobs: b.size(400, 20)})
	if err != nil {
		return err
	}
	for _, op := range []string{"enqueue", "claim and finish"} {
		for i, n := range sizes {
			row(fmt.Sprintf("%s, %d sessions", op, n), got[0].of(fmt.Sprint(op, " ", i)), "µs", 0, 0)
		}
	}
	for i, n := range sizes[1:] {
		row(fmt.Sprintf("a turn at %d sessions, of one at %d", n, sizes[0]), got[0].of(fmt.Sprint("ratio ", i+1)), "x", 0, 1.1)
	}
	return nil
}

func reportMemory(ctx context.Context, b bench) error {
	fmt.Println("\nMemory in Redis, per session, 200 bytes of payload; what is queued with its mark of what was seen.")
	got, err := b.compare(ctx, task{What: "memory", Keys: b.size(20_000, 500)})
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name string
		most float64
	}{{"idle session", 250}, {"first queued turn, with the session", 1000}, {"second queued turn", 450}, {"third queued turn", 450}} {
		row(r.name, got[0].of(r.name), "B", 0, r.most)
	}
	return nil
}

// reportTakeover has a second replica take over from one that is killed, or told to leave.
func reportTakeover(ctx context.Context, b bench) error {
	fmt.Printf("\nTakeover, leases of %s.\n", takeoverLease)
	for _, c := range []struct {
		name   string
		signal syscall.Signal
		most   float64
	}{{"after a kill, from the kill to the handler", syscall.SIGKILL, (takeoverLease + 2*time.Second).Seconds()}, {"after SIGTERM, to the handler of the other", syscall.SIGTERM, 0.1}} {
		var took []float64
		for range b.size(b.rounds, 1) {
			d, err := takeover(ctx, b, c.signal)
			if err != nil {
				return err
			}
			took = append(took, d.Seconds())
		}
		row(c.name, took, "s", 0, c.most)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkTakeover$", "-benchtime", "3x", "-count", strconv.Itoa(b.rounds), "flaudebot/queue")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run the benchmark of the queue: %w\n%s", err, out)
	}
	var ms []float64
	for _, found := range regexp.MustCompile(`(\d+(?:\.\d+)?) ns/op`).FindAllSubmatch(out, -1) {
		ns, _ := strconv.ParseFloat(string(found[1]), 64)
		ms = append(ms, ns/1e6)
	}
	if len(ms) == 0 {
		return fmt.Errorf("the benchmark of the queue: %w: %s", errMissed, out)
	}
	row("2,000 leases that ran out, reaped and attached to", ms, "ms", 0, 50)
	return nil
}

// takeoverLease is shorter than the product's 15 s to save time: what is measured is what comes on top of it.
const takeoverLease = 3 * time.Second

func takeover(ctx context.Context, b bench, signal syscall.Signal) (time.Duration, error) {
	rdb := client(b.redis, 0, 10)
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return 0, fmt.Errorf("empty Redis: %w", err)
	}
	first, err := b.command(ctx, task{What: "replica"})
	if err != nil {
		return 0, err
	}
	told, err := first.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := first.Start(); err != nil {
		return 0, fmt.Errorf("start a replica: %w", err)
	}
	defer func() { _ = first.Process.Kill(); _ = first.Wait() }()
	q, err := queue.New(rdb, queue.Config{Prefix: prefix, Lease: takeoverLease})
	if err != nil {
		return 0, err
	}
	if _, err := q.Enqueue(ctx, jobOf(1, 1, nil), queue.Enqueue{}); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(told).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "claimed" {
		return 0, fmt.Errorf("the first replica said %q: %w", line, err)
	}
	ctx, leave := context.WithCancel(ctx)
	at, ended := make(chan time.Time, 1), make(chan error, 1)
	go func() {
		ended <- q.Run(ctx, func(_ context.Context, c *queue.Claim) queue.Verdict {
			if c.Attach {
				at <- time.Now()
			}
			return queue.Done()
		})
	}()
	defer func() { leave(); <-ended }()
	time.Sleep(takeoverLease * 3 / 4) // the second one beats by now: it has just been there before
	began := time.Now()
	if err := first.Process.Signal(signal); err != nil {
		return 0, fmt.Errorf("signal the first replica: %w", err)
	}
	select {
	case t := <-at:
		return t.Sub(began), nil
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("the takeover: %w within a minute", errMissed)
	}
}
