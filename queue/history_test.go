package queue_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"

	"flaudebot/queue"
)

// TestHistory: many clients behind a network that cuts replies, so that a script has run and nobody is told. What each of them
// saw must be explained by one order of all calls, key by key (linearizable), where a call that failed may have
// happened or not, at any time after it began. And no claim leaks in silence: at the end the lease set is what clients were told of, and
// what calls that failed for all to see may have claimed.
//
// A client that repeats commands by itself is found out by the same eyes: this is why MaxRetries is -1 everywhere.
func TestHistory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		retries int
		good    bool
	}{
		{"every doubtful call is visible, and the history is linearizable", -1, true},
		{"a client that repeats by itself leaks claims, or contradicts itself", 3, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, c.retries)
			h.play()
			verdict, leaked := h.linearizable(), h.leaked()
			t.Logf("%d calls, %d of them without an answer; history %s; claims nobody knows of: %v", len(h.ops), h.failed, verdict, leaked)
			if h.failed < 20 && c.good {
				t.Errorf("only %d calls failed: the network is too good to prove anything", h.failed)
			}
			if good := verdict == porcupine.Ok && len(leaked) == 0; good != c.good {
				t.Errorf("history %s, claims nobody knows of: %v; want that good: %v", verdict, leaked, c.good)
			}
		})
	}
}

const (
	historyClients, historyCalls = 6, 250
	historyKeys                  = 24
	never                        = math.MaxInt64
)

// history is what clients of a queue saw.
type history struct {
	*testing.T
	rdb     *redis.Client // past the bad network
	clients []*historyClient
	began   time.Time

	mu     sync.Mutex
	ops    []porcupine.Operation // guarded by mu
	failed int                   // guarded by mu
	ids    int                   // guarded by mu
	known  []string              // guarded by mu; key and id of jobs that were enqueued, to be repeated or cancelled
}

// historyClient is one replica, which does one thing after the other.
type historyClient struct {
	*history
	n     int
	owner string
	q     *queue.Queue
	rnd   *rand.Rand
	mine  map[string]historyIn // :: key → claim that it was told of
	doubt int64                // when the first claim began whose answer is missing; 0: there is none
	lost  int                  // how many answers of claims are missing
}

// historyIn is a call, historyOut its answer. what is enqueue, claim, finish or cancel; a claim takes what it was given, since it
// cannot ask for a key.
type historyIn struct {
	what, key, id string
	fence         int64
}

type historyOut struct {
	status string // "": unknown
	ahead  int64
}

func newHistory(t *testing.T, retries int) *history {
	t.Helper()
	addr := realRedis(t)
	h := &history{T: t, rdb: redis.NewClient(&redis.Options{Addr: addr}), began: time.Now()}
	t.Cleanup(func() { _ = h.rdb.Close() })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for n := range historyClients {
		bad := newToxic(t, addr)
		bad.add("limit_data", map[string]any{"bytes": 700 + 131*n})
		rdb := redis.NewClient(&redis.Options{
			Addr: bad.addr, MaxRetries: retries, Protocol: 2, DisableIdentity: true, MinRetryBackoff: time.Millisecond, MaxRetryBackoff: 2 * time.Millisecond,
		})
		t.Cleanup(func() { _ = rdb.Close() })
		c := &historyClient{history: h, n: n, owner: fmt.Sprint("r", n), rnd: rand.New(rand.NewPCG(seed, uint64(n))), mine: map[string]historyIn{}}
		var err error
		if c.q, err = queue.New(rdb, queue.Config{Prefix: "h:", Owner: c.owner, Limits: queue.Limits{PerKey: 1000}}); err != nil {
			t.Fatal(err)
		}
		tamper(t.Fatal, c.q)
		h.clients = append(h.clients, c)
	}
	return h
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) play() {
	var wait sync.WaitGroup
	for _, c := range h.clients {
		wait.Go(func() {
			for range historyCalls {
				switch n := c.rnd.IntN(100); {
				case n < 40:
					c.enqueue()
				case n < 70:
					c.claim()
				case n < 95:
					c.finish()
				default:
					c.cancel()
				}
			}
		})
	}
	wait.Wait()
}

// note adds a call that began at some time; err: it has no answer.
func (c *historyClient) note(in historyIn, began int64, out historyOut, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	op := porcupine.Operation{ClientId: c.n, Input: in, Call: began, Output: out, Return: c.now()}
	if err != nil {
		c.failed++
		op.Output, op.Return = historyOut{}, never
	}
	c.ops = append(c.ops, op)
}

// some returns a job that was enqueued before.
func (c *historyClient) some() (key, id string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) == 0 {
		return "", "", false
	}
	key, id, ok = strings.Cut(c.known[c.rnd.IntN(len(c.known))], " ")
	return key, id, ok
}

func (c *historyClient) enqueue() {
	key, id, ok := c.some()
	if !ok || c.rnd.IntN(6) > 0 { // else the same again
		key = fmt.Sprint("k", c.rnd.IntN(historyKeys))
		c.mu.Lock()
		c.ids++
		id = fmt.Sprint("j", c.ids)
		c.known = append(c.known, key+" "+id)
		c.mu.Unlock()
	}
	began := c.now()
	if c.lost == 0 && c.rnd.IntN(2) == 0 { // with a claim in the same call, if the key is idle; not while in doubt, as a replica
		c.enqueueAndClaim(key, id, began)
		return
	}
	res, err := c.q.Enqueue(c.Context(), job(key, id), queue.Enqueue{})
	c.note(historyIn{what: "enqueue", key: key, id: id}, began, historyOut{string(res.Status), res.Ahead}, err)
}

func (c *historyClient) enqueueAndClaim(key, id string, began int64) {
	reply, err := c.q.Script(c.Context(), "enqueue", key, id, "u", "g", "payload", "", 1000, 0, 0, 0, "0", c.owner, 3_600_000, 0, 0, 0)
	list, _ := reply.([]any)
	var out historyOut
	if err == nil {
		out.status = fmt.Sprint(list[0])
		_, _ = fmt.Sscan(fmt.Sprint(list[1]), &out.ahead)
	}
	c.note(historyIn{what: "enqueue", key: key, id: id}, began, out, err)
	if err != nil {
		c.lost, c.doubt = 1, began
		return
	}
	c.got(c.q.Claims(list[2]), began)
}

func (c *historyClient) cancel() {
	key, id, ok := c.some()
	if !ok {
		return
	}
	began := c.now()
	res, err := c.q.Cancel(c.Context(), key, id)
	c.note(historyIn{what: "cancel", key: key, id: id}, began, historyOut{status: string(res)}, err)
}

// claim asks for one job. When the answer is missing it asks, soon or later, what it holds.
func (c *historyClient) claim() {
	if c.doubt > 0 && c.rnd.IntN(2) == 0 {
		_ = c.adopt()
		return
	}
	began := c.now()
	reply, err := c.q.Script(c.Context(), "step", c.owner, 3_600_000, 1, 0, 0, 0)
	if err != nil {
		c.mu.Lock()
		c.failed++
		c.mu.Unlock()
		if c.lost++; c.lost == 1 {
			c.doubt = began
		}
		return
	}
	list, _ := reply.([]any)
	c.got(c.q.Claims(list[1]), began)
}

// adopt asks for what it holds and was not told of: every such claim must be one of a call that failed.
func (c *historyClient) adopt() error {
	args := []any{c.owner, 3_600_000}
	for key := range c.mine {
		args = append(args, key)
	}
	reply, err := c.q.Script(c.Context(), "adopt", args...)
	if err != nil {
		return err
	}
	claims := c.q.Claims(reply)
	if len(claims) > c.lost {
		c.Errorf("%s is given back %d claims, and %d calls for one had no answer", c.owner, len(claims), c.lost)
	}
	c.got(claims, c.doubt)
	c.doubt, c.lost = 0, 0
	return nil
}

func (c *historyClient) got(claims []*queue.Claim, began int64) {
	for _, cl := range claims {
		in := historyIn{what: "claim", key: cl.Job.Key, id: cl.Job.ID, fence: cl.Fence}
		c.note(in, began, historyOut{status: "OK"}, nil)
		c.mine[cl.Job.Key] = in
	}
}

// finish ends one of its claims, again and again until it has an answer, as a replica does.
func (c *historyClient) finish() {
	keys := make([]string, 0, len(c.mine))
	for key := range c.mine {
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	cl := c.mine[keys[c.rnd.IntN(len(keys))]]
	in := historyIn{"finish", cl.key, cl.id, cl.fence}
	for c.Context().Err() == nil {
		began := c.now()
		reply, err := c.q.Script(c.Context(), "step", c.owner, 3_600_000, 0, 0, 0, 0, in.key, in.id, in.fence)
		if err != nil {
			c.note(in, began, historyOut{}, err)
			continue
		}
		list, _ := reply.([]any)
		finished, _ := list[0].([]any)
		c.note(in, began, historyOut{status: fmt.Sprint(finished[0])}, nil)
		delete(c.mine, cl.key)
		return
	}
}

// leaked names the claims that are leased to a client which neither was told of them nor has a claim without an answer. The others
// are given back by adopt, and are part of the history.
func (h *history) leaked() []string {
	h.Helper()
	var out []string
	for _, c := range h.clients {
		for _, key := range h.rdb.SMembers(h.Context(), "h:{queue}:own:"+c.owner).Val() {
			if _, told := c.mine[key]; !told {
				out = append(out, c.owner+" "+key)
			}
		}
	}
	if n := h.rdb.ZCard(h.Context(), "h:{queue}:lease").Val(); int(n) != len(out)+h.told() {
		h.Errorf("%d keys are leased, want %d", n, len(out)+h.told())
	}
	return out
}

func (h *history) told() (n int) {
	for _, c := range h.clients {
		n += len(c.mine)
	}
	return n
}

// linearizable looks for one order of all calls that explains every answer.
func (h *history) linearizable() porcupine.CheckResult {
	h.Helper()
	for _, c := range h.clients { // what is still in doubt
		for end := time.Now().Add(soon); c.doubt > 0 && c.adopt() != nil; {
			if time.Now().After(end) {
				h.Fatal("adopt never gets an answer")
			}
		}
	}
	return porcupine.CheckOperationsTimeout(historyModel(), h.ops, time.Minute)
}

// keyState is a key as it should be. It is compared and hashed as text.
type keyState struct {
	waiting string // ids, each with a blank behind it; the claimed one first
	seen    string // the same
	runs    bool
	fence   int64  // the highest
	last    string // id@fence finished last
}

func historyModel() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, op := range all {
				in, _ := op.Input.(historyIn)
				byKey[in.key] = append(byKey[in.key], op)
			}
			var out [][]porcupine.Operation
			for _, ops := range byKey {
				out = append(out, ops)
			}
			return out
		},
		Init: func() []any { return []any{keyState{}} },
		Step: func(state, input, output any) []any {
			s, _ := state.(keyState)
			in, _ := input.(historyIn)
			out, _ := output.(historyOut)
			after, want := s.after(in)
			switch {
			case out.status == "": // it has happened, or it never will
				return []any{s, after}
			case out == want:
				return []any{after}
			}
			return nil
		},
	}
	return m.ToModel()
}

// after is what a call makes of a key, and what it answers.
func (s keyState) after(in historyIn) (keyState, historyOut) {
	item := in.id + " "
	head := strings.HasPrefix(s.waiting, item)
	queued := strings.Contains(" "+s.waiting, " "+item)
	claim := fmt.Sprintf("%s@%d", in.id, in.fence)
	switch in.what {
	case "enqueue":
		if strings.Contains(" "+s.seen, " "+item) {
			return s, historyOut{status: "DUP"}
		}
		ahead := int64(strings.Count(s.waiting, " "))
		s.waiting, s.seen = s.waiting+item, s.seen+item
		return s, historyOut{"OK", ahead}
	case "claim":
		if s.runs || !head || in.fence <= s.fence {
			return s, historyOut{status: "impossible"}
		}
		s.runs, s.fence = true, in.fence
		return s, historyOut{status: "OK"}
	case "finish":
		if s.runs && head && s.fence == in.fence {
			s.runs, s.last, s.waiting = false, claim, strings.TrimPrefix(s.waiting, item)
			return s, historyOut{status: "OK"}
		}
		if s.last == claim {
			return s, historyOut{status: "ALREADY"}
		}
		return s, historyOut{status: "STALE"}
	default: // cancel
		switch {
		case head && s.runs:
			return s, historyOut{status: "SIGNALLED"}
		case queued:
			s.waiting = strings.TrimPrefix(strings.Replace(" "+s.waiting, " "+item, " ", 1), " ")
			return s, historyOut{status: "CANCELLED"}
		}
		return s, historyOut{status: "GONE"}
	}
}
