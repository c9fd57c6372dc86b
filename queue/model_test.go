package queue_test

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"flaudebot/queue"
)

// TestModel runs random operations, script by script, of three replicas on four keys against a model of
// what was promised, and looks at all that is in Redis after each of them: what layout.go says that holds
// between any two scripts is checked in full. Time is the queue's own clock, moved by the test.
func TestModel(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s server) {
		shards := 3 // of 100 cases each, unless -rapid.checks says otherwise
		if s.mini == nil {
			shards = 1
		}
		for i := range shards {
			t.Run(fmt.Sprintf("shard %d", i+1), func(t *testing.T) {
				rdb := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
				t.Cleanup(func() { _ = rdb.Close() })
				rapid.Check(t, func(t *rapid.T) { runModel(t, rdb, fmt.Sprintf("model%d:", i)) })
			})
		}
	})
}

// keyOf: every other key has a part that ids begin with as well.
func keyOf(r rune) string {
	if r%2 == 0 {
		return "t:" + string(r)
	}
	return string(r)
}

const (
	modelLease = 55 * time.Second // time moves in steps of 20 s, so that nothing here is ever exactly due
	modelKeys  = "abcdef"
)

// drawLimits: narrow ones are met more often, and what they park with them.
func drawLimits(t *rapid.T) queue.Limits {
	return queue.Limits{
		PerKey: 4, PerUser: 6, PerGroup: 7, Total: 9, Running: 3,
		RunningPerUser: rapid.IntRange(1, 2).Draw(t, "limit per user"), RunningPerGroup: rapid.IntRange(1, 2).Draw(t, "limit per group"),
	}
}

// model is what should be so.
type model struct {
	*rapid.T
	ctx    context.Context
	rdb    *redis.Client
	prefix string
	limits queue.Limits
	q      map[string]*queue.Queue // :: replica's name → its queue
	clock  time.Duration           // how far time was moved
	key    map[string]*modelKey
	seen   map[string]bool
	ids    int
	claims []*modelClaim // all that were ever handed out
	before dump          // what was in Redis after the operation before
}

type modelKey struct {
	jobs         []*modelJob
	place        string // waits (ready or parked), lease, orphan, delay; "": idle
	stage, att   string // of the head; stage "": never claimed
	owner        string
	fence        int64
	until        time.Duration // lease or delay ends
	cancel       bool
	tries, takes int
	last         string // id@fence finished last
}

type modelJob struct {
	id, user, group, order, rev, payload string
}

// modelClaim is what a replica believes to hold; it may be long over.
type modelClaim struct {
	key, id, owner string
	fence          int64
}

func runModel(t *rapid.T, rdb *redis.Client, prefix string) {
	m := &model{
		T: t, ctx: context.Background(), rdb: rdb, prefix: prefix + "{queue}:", limits: drawLimits(t), q: map[string]*queue.Queue{},
		key: map[string]*modelKey{}, seen: map[string]bool{},
	}
	if err := rdb.FlushAll(m.ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range modelKeys {
		m.key[keyOf(r)] = &modelKey{}
	}
	for _, owner := range []string{"r1", "r2", "r3"} {
		q, err := queue.New(rdb, queue.Config{Prefix: prefix, Owner: owner, Lease: modelLease, Limits: m.limits})
		if err != nil {
			t.Fatal(err)
		}
		tamper(t.Fatal, q)
		m.q[owner] = q
	}
	m.before = m.look()
	t.Repeat(map[string]func(*rapid.T){
		"enqueue":    m.step(m.enqueue),
		"enqueue 2":  m.step(m.enqueue),
		"claim":      m.step(m.claim),
		"claim 2":    m.step(m.claim),
		"finish":     m.step(m.finish),
		"put off":    m.step(func() { m.release("retry") }),
		"hand off":   m.step(func() { m.release("handoff") }),
		"yield":      m.step(func() { m.release("yield") }),
		"stage":      m.step(m.setStage),
		"beat":       m.step(m.beat),
		"adopt":      m.step(m.adopt),
		"tick":       m.step(m.tick),
		"cancel":     m.step(m.cancel),
		"edit":       m.step(m.edit),
		"forestall":  m.step(m.forestall),
		"close":      m.step(m.closeKey),
		"time":       m.step(m.pass),
		"forget key": m.step(m.forgetIdle),
		"":           func(*rapid.T) {},
	})
	m.T = t
	m.drain()
}

// step lets an operation draw from the case's current source, and checks everything after it.
func (m *model) step(op func()) func(*rapid.T) {
	return func(t *rapid.T) {
		m.T = t
		op()
		now := m.look()
		m.check(now)
		m.before = now
	}
}

func (m *model) enqueue() {
	key, k := m.drawKey()
	id := m.drawID(m.draw("kind", "t:", "u"))
	job := queue.Job{
		Key: key, ID: id, User: m.draw("user", "u1", "u2", "u3"), Group: m.draw("group", "g1", "g2"),
		Payload: []byte(m.draw("payload", "", "x", "\x1f\x00 \xff{}")), Order: m.draw("order", "", "1", "2", "3", strings.TrimPrefix(id, "t:")),
	}
	idle := rapid.Bool().Draw(m.T, "only if idle")
	owner, slot := m.drawOwner(), rapid.Bool().Draw(m.T, "with a slot")
	free := slot && len(m.places("orphan")) == 0 && len(m.before.zset["ready"]) == 0
	var claims []*queue.Claim
	var got queue.Enqueued
	var err error
	if slot {
		got, claims, err = m.q[owner].EnqueueHere(m.ctx, job, queue.Enqueue{OnlyIfIdle: idle})
	} else {
		got, err = m.q[owner].Enqueue(m.ctx, job, queue.Enqueue{OnlyIfIdle: idle})
	}
	if err != nil {
		m.Fatal(err)
	}
	waiting := len(k.jobs)
	if k.runs() {
		waiting--
	}
	want := queue.Enqueued{Status: queue.Queued, Ahead: int64(k.ahead(job.Order))}
	refuse := func(s queue.Status) { want = queue.Enqueued{Status: s, Ahead: int64(len(k.jobs))} }
	all, user, group := m.count(job.User, job.Group)
	switch {
	case m.seen[job.ID]:
		want = queue.Enqueued{Status: queue.Duplicate}
	case idle && len(k.jobs) > 0:
		refuse(queue.Busy)
	case waiting >= m.limits.PerKey:
		refuse(queue.FullKey)
	case user >= m.limits.PerUser:
		refuse(queue.FullUser)
	case group >= m.limits.PerGroup:
		refuse(queue.FullGroup)
	case all >= m.limits.Total:
		refuse(queue.FullTotal)
	}
	if got != want {
		m.Fatalf("enqueue %s under %s = %+v, want %+v", job.ID, key, got, want)
	}
	if got.Status != queue.Queued {
		m.unchanged()
		if len(claims) > 0 {
			m.Fatalf("%s was refused and claimed", job.ID)
		}
		return
	}
	m.accept(key, &modelJob{id: job.ID, user: job.User, group: job.Group, order: job.Order, payload: string(job.Payload)})
	if due := free && len(k.jobs) == 1 && m.mayStart(k.jobs[0]); (len(claims) == 1) != due {
		m.Fatalf("%s was claimed as it was enqueued: %v, want %v", job.ID, len(claims) == 1, due)
	}
	for _, c := range claims {
		m.own(owner, c, k)
		if rapid.Float64Range(0, 1).Draw(m.T, "reply lost") >= 0.1 {
			m.claims = append(m.claims, &modelClaim{c.Job.Key, c.Job.ID, owner, c.Fence})
		}
	}
}

func (m *model) accept(key string, j *modelJob) {
	k := m.key[key]
	m.seen[j.id] = true
	i := k.ahead(j.order)
	k.jobs = slices.Insert(k.jobs, i, j)
	if len(k.jobs) == 1 {
		k.place = "waits"
	}
}

// ahead is how many jobs stay before one of an order: all before the first that was never claimed and is of a later one.
func (k *modelKey) ahead(order string) int {
	for i, j := range k.jobs {
		if order != "" && j.order > order && (i > 0 || k.stage == "") {
			return i
		}
	}
	return len(k.jobs)
}

func (m *model) claim() {
	owner, n := m.drawOwner(), rapid.IntRange(0, 3).Draw(m.T, "how many")
	m.rdb.LPop(m.ctx, m.prefix+"wake") // the token that woke it
	m.before = m.look()
	orphans := m.places("orphan")
	claims := m.q[owner].Claims(m.stepReply(owner, n)[1])
	lost := rapid.Float64Range(0, 1).Draw(m.T, "reply lost") < 0.1
	if len(claims) > n {
		m.Fatalf("%d claims, want at most %d", len(claims), n)
	}
	attached := 0
	for _, c := range claims {
		k := m.key[c.Job.Key]
		if k.place == "orphan" {
			if attached++; slices.Index(orphans, c.Job.Key) < 0 {
				m.Fatalf("%s was attached to and no orphan before", c.Job.Key)
			}
		} else if attached < len(orphans) {
			m.Fatalf("%s was started before the orphans %v", c.Job.Key, orphans)
		}
		m.own(owner, c, k)
		if !lost {
			m.claims = append(m.claims, &modelClaim{c.Job.Key, c.Job.ID, owner, c.Fence})
		}
	}
	if len(claims) < n && len(m.places("orphan")) > 0 {
		m.Fatalf("%d claims of %d, and orphans are left", len(claims), n)
	}
	if all, _, _ := m.running(nil); len(claims) < n && all < m.limits.Running {
		for key, k := range m.key {
			if k.place == "waits" && m.mayStart(k.jobs[0]) {
				m.Fatalf("%d claims of %d, and %s may start", len(claims), n, key)
			}
		}
	}
}

// own checks that a claim is due to its key, and enters it.
func (m *model) own(owner string, c *queue.Claim, k *modelKey) {
	if k.place != "waits" && k.place != "orphan" {
		m.Fatalf("%s was claimed while it is in %q", c.Job.Key, k.place)
	}
	head := k.jobs[0]
	if k.place == "waits" && !m.mayStart(head) {
		m.Fatalf("%s was started above a limit", c.Job.Key)
	}
	if c.Fence <= k.fence {
		m.Fatalf("fence of %s is %d after %d", c.Job.Key, c.Fence, k.fence)
	}
	k.place, k.owner, k.fence, k.until = "lease", owner, c.Fence, m.clock+modelLease
	attach := k.stage != ""
	if !attach {
		k.stage = "claimed"
	}
	m.told(c, k, attach)
}

func (m *model) told(c *queue.Claim, k *modelKey, attach bool) {
	type all struct {
		id, user, group, order, payload, stage, att string
		attach, cancel                              bool
		tries, takes                                int
	}
	cancelled := false
	select {
	case <-c.Cancelled():
		cancelled = true
	default:
	}
	got := all{c.Job.ID, c.Job.User, c.Job.Group, c.Job.Order, string(c.Job.Payload), c.Stage, string(c.Att), c.Attach, cancelled, c.Tries, c.Takes}
	j := k.jobs[0]
	want := all{j.id, j.user, j.group, j.order, j.payload, k.stage, k.att, attach, k.cancel, k.tries, k.takes}
	if got != want {
		m.Fatalf("claim of %s = %+v, want %+v", c.Job.Key, got, want)
	}
}

func (m *model) finish() {
	c := m.drawClaim()
	if c == nil {
		return
	}
	k := m.key[c.key]
	reply := m.stepReply(c.owner, 0, c.key, c.id, c.fence)
	got, want := fmt.Sprint(reply[0]), "["+m.holds(c)+"]"
	if got != want {
		m.Fatalf("finish %+v = %s, want %s", *c, got, want)
	}
	if want != "[OK]" {
		m.unchanged("fair", "wake") // it looks after what is left over anyway
		return
	}
	k.last = c.id + "@" + strconv.FormatInt(c.fence, 10)
	k.pop()
}

func (m *model) release(mode string) {
	c := m.drawClaim()
	if c == nil {
		return
	}
	delay := time.Duration(rapid.SampledFrom([]int{-10, 30, 70}).Draw(m.T, "delay")) * time.Second
	want := m.holds(c)
	m.reply(want, "release", c.owner, c.key, c.id, c.fence, mode, delay.Milliseconds())
	if want != "OK" {
		m.unchanged()
		return
	}
	k := m.key[c.key]
	k.owner = ""
	if mode == "handoff" {
		k.place = "orphan"
		return
	}
	if first := k.earlier(); mode == "yield" && first > 0 && !k.cancel {
		k.jobs = slices.Concat(k.jobs[1:first+1], k.jobs[:1], k.jobs[first+1:])
		k.forget()
		return
	}
	k.place, k.until = "delay", m.clock+delay
	k.tries++
}

// earlier is how many jobs go first when the head yields: all up to the last of an earlier order.
func (k *modelKey) earlier() int {
	for i, j := range slices.Backward(k.jobs) {
		if j.order != "" && j.order < k.jobs[0].order {
			return i
		}
	}
	return 0
}

func (m *model) setStage() {
	c := m.drawClaim()
	if c == nil {
		return
	}
	stage, att := m.draw("stage", "waking", "running", "posting"), m.draw("att", "", "notes")
	want := m.holds(c)
	m.reply(want, "stage", c.owner, c.key, c.id, c.fence, stage, att)
	if want != "OK" {
		m.unchanged()
		return
	}
	m.key[c.key].stage, m.key[c.key].att = stage, att
}

func (m *model) beat() {
	owner := m.drawOwner()
	args, wantLost, wantCancelled := []any{owner, modelLease.Milliseconds()}, []any{}, []any{}
	for _, c := range m.claims {
		if c.owner != owner {
			continue
		}
		k := m.key[c.key]
		args = append(args, c.key, c.fence)
		switch {
		case k.place != "lease" || k.fence != c.fence:
			wantLost = append(wantLost, c.key)
		default:
			k.until = m.clock + modelLease
			if k.cancel {
				wantCancelled = append(wantCancelled, c.key)
			}
		}
	}
	got, err := m.q[owner].Script(m.ctx, "beat", args...)
	if err != nil {
		m.Fatal(err)
	}
	if want := []any{wantLost, wantCancelled}; !reflect.DeepEqual(got, any(want)) {
		m.Fatalf("beat of %s = %v, want %v", owner, got, want)
	}
}

// adopt finds the claims of a replica whose reply was lost, and nothing else. They begin anew, under a higher fence.
func (m *model) adopt() {
	owner := m.drawOwner()
	args, known := []any{owner, modelLease.Milliseconds()}, map[string]bool{}
	for _, c := range m.claims {
		if c.owner == owner && m.holds(c) == "OK" {
			args, known[c.key] = append(args, c.key), true
		}
	}
	reply, err := m.q[owner].Script(m.ctx, "adopt", args...)
	if err != nil {
		m.Fatal(err)
	}
	want := 0
	for key, k := range m.key {
		if k.place == "lease" && k.owner == owner && !known[key] {
			want++
			k.until = m.clock + modelLease
		}
	}
	if want == 0 {
		m.unchanged()
	}
	got := m.q[owner].Claims(reply)
	if len(got) != want {
		m.Fatalf("adopt of %s = %d claims, want %d", owner, len(got), want)
	}
	for _, c := range got {
		k := m.key[c.Job.Key]
		if known[c.Job.Key] || k.owner != owner || c.Fence <= k.fence {
			m.Fatalf("adopt of %s gave %+v, after fence %d", owner, c, k.fence)
		}
		k.fence = c.Fence
		m.told(c, k, true)
		m.claims = append(m.claims, &modelClaim{c.Job.Key, c.Job.ID, owner, c.Fence})
	}
}

func (m *model) tick() {
	got, err := m.q["r1"].Script(m.ctx, "tick", 500, m.limits.RunningPerUser, m.limits.RunningPerGroup)
	if err != nil {
		m.Fatal(err)
	}
	wait, _ := got.(int64)
	defer func() { m.checkDue(time.Duration(wait) * time.Millisecond) }()
	for _, k := range m.key {
		switch {
		case k.place == "lease" && k.until < m.clock:
			k.place, k.owner = "orphan", ""
			k.takes++
		case k.place == "delay" && k.until < m.clock:
			k.place = "waits"
		}
	}
}

// checkDue: a tick tells when the next lease or delay ends, or to look again in an hour.
func (m *model) checkDue(wait time.Duration) {
	next := time.Hour
	for _, k := range m.key {
		if k.place == "lease" || k.place == "delay" {
			next = min(next, k.until-m.clock)
		}
	}
	if early := next - wait; early < 0 || early > 15*time.Second { // a case takes less
		m.Fatalf("a tick says that something is due in %s, want %s", wait, next)
	}
}

func (m *model) cancel() {
	key, k := m.drawKey()
	i, id := m.drawJob(k)
	got, err := m.q[m.drawOwner()].Cancel(m.ctx, key, id)
	if err != nil {
		m.Fatal(err)
	}
	want := queue.CancelledQueued
	switch {
	case i < 0:
		want = queue.CancelledGone
	case i == 0 && k.stage != "":
		want = queue.CancelledSignalled
	}
	if got != want {
		m.Fatalf("cancel %s of %s = %s, want %s", id, key, got, want)
	}
	switch {
	case got == queue.CancelledGone:
		m.unchanged()
	case got == queue.CancelledSignalled:
		k.cancel = true
		m.checkMailed(key, k)
		if !k.runs() {
			k.place = "waits"
		}
	case i == 0:
		k.pop()
	default:
		k.jobs = slices.Delete(k.jobs, i, i+1)
	}
}

// checkMailed: whoever owns a job that was cancelled is told at once.
func (m *model) checkMailed(key string, k *modelKey) {
	if k.owner == "" {
		return
	}
	if got := m.rdb.LIndex(m.ctx, m.prefix+"ctl:"+k.owner, -1).Val(); got != key+"\x1f"+k.jobs[0].id {
		m.Fatalf("the mailbox of %s ends with %q, want %s of %s: it was cancelled", k.owner, got, k.jobs[0].id, key)
	}
}

func (m *model) edit() {
	key, k := m.drawKey()
	i, id := m.drawJob(k)
	rev, payload := m.draw("revision", "1", "2", "3"), m.draw("new payload", "edited", "")
	got, err := m.q[m.drawOwner()].Edit(m.ctx, key, id, rev, []byte(payload))
	if err != nil {
		m.Fatal(err)
	}
	want := queue.EditedOK
	switch {
	case i < 0:
		want = queue.EditedGone
	case i == 0 && k.stage != "":
		want = queue.EditedRunning
	case rev <= k.jobs[i].rev:
		want = queue.EditedOld
	}
	if got != want {
		m.Fatalf("edit %s of %s = %s, want %s", id, key, got, want)
	}
	if got != queue.EditedOK {
		m.unchanged()
		return
	}
	k.jobs[i].rev, k.jobs[i].payload = rev, payload
}

// forestall: who does it first keeps the job out for good.
func (m *model) forestall() {
	id := m.drawID(m.draw("kind", "t:", "u"))
	got, err := m.q[m.drawOwner()].Forestall(m.ctx, id)
	if err != nil {
		m.Fatal(err)
	}
	if got == m.seen[id] {
		m.Fatalf("forestall %s = %v, and it was seen before: %v", id, got, m.seen[id])
	}
	if m.seen[id] {
		m.unchanged()
	}
	m.seen[id] = true
}

func (m *model) closeKey() {
	key, k := m.drawKey()
	last := queue.Job{Key: key, ID: m.drawID("t:end"), User: m.draw("user", "u1", "u2"), Group: "g1", Payload: []byte("end")}
	got, err := m.q[m.drawOwner()].Close(m.ctx, last)
	if err != nil {
		m.Fatal(err)
	}
	if m.seen[last.ID] {
		if !got.Repeated {
			m.Fatalf("close %s = %+v, want repeated", last.ID, got)
		}
		m.unchanged()
		return
	}
	keep := 0
	if len(k.jobs) > 0 && k.stage != "" {
		keep = 1
	}
	running := ""
	if keep == 1 {
		running = k.jobs[0].id
		k.cancel = true
		m.checkMailed(key, k)
		if !k.runs() {
			k.place = "waits"
		}
	}
	var want, have []string
	for _, j := range k.jobs[keep:] {
		want = append(want, j.id)
	}
	for _, j := range got.Dropped {
		have = append(have, j.ID)
	}
	if got.Repeated || got.Running != running || !slices.Equal(have, want) {
		m.Fatalf("close %s = %+v, want running %q, dropped %v", key, got, running, want)
	}
	k.jobs = k.jobs[:keep]
	m.accept(key, &modelJob{id: last.ID, user: last.User, group: last.Group, payload: "end"})
}

func (m *model) pass() {
	m.move(time.Duration(rapid.IntRange(1, 5).Draw(m.T, "times 20 s")) * 20 * time.Second)
}

func (m *model) move(by time.Duration) {
	m.clock += by
	if err := m.rdb.HSet(m.ctx, m.prefix+"meta", "skew", m.clock.Milliseconds()).Err(); err != nil {
		m.Fatal(err)
	}
}

// forgetIdle is the end of an idle key's hash after its 30 days. Its fence has to rise all the same.
func (m *model) forgetIdle() {
	key, k := m.drawKey()
	if len(k.jobs) > 0 {
		return
	}
	m.move(30*24*time.Hour + 10*time.Second)
	if err := m.rdb.Del(m.ctx, m.prefix+"s:"+key).Err(); err != nil {
		m.Fatal(err)
	}
	k.last = ""
}

// drain lets everything end, and finds next to nothing left.
func (m *model) drain() {
	for range 200 {
		all, _, _ := m.count("", "")
		if all == 0 {
			break
		}
		m.move(100 * time.Second)
		m.tick()
		claims := m.q["r1"].Claims(m.stepReply("r1", 3)[1])
		for _, c := range claims {
			m.own("r1", c, m.key[c.Job.Key])
		}
		for _, c := range claims {
			k := m.key[c.Job.Key]
			m.stepReply("r1", 0, c.Job.Key, c.Job.ID, c.Fence)
			k.last = c.Job.ID + "@" + strconv.FormatInt(c.Fence, 10)
			k.pop()
		}
		m.check(m.look())
	}
	if all, _, _ := m.count("", ""); all > 0 {
		m.Fatalf("%d jobs never ended", all)
	}
	m.stepReply("r1", 1) // one look at what is left over, as every replica takes now and then
	end := m.look()
	for name := range end.all() {
		ok := name == "meta" || name == "wake"
		for _, p := range []string{"s:", "d:", "ctl:"} {
			ok = ok || strings.HasPrefix(name, p)
		}
		if !ok {
			m.Fatalf("%s is left at the end: %v", name, end.all()[name])
		}
	}
}

// check compares what is in Redis with the model, and with what layout.go says.
func (m *model) check(d dump) {
	in := map[string][]string{} // :: key → places
	for name, z := range d.zset {
		if len(z) == 0 {
			m.Fatalf("%s is empty and there", name)
		}
		for key := range z {
			in[key] = append(in[key], name)
		}
	}
	run, counted := map[string]int{}, map[string]int{}
	for key, k := range m.key {
		s := d.hash["s:"+key]
		// What is idle is forgotten some day, and nothing else is.
		if ttl := d.ttl["s:"+key]; s != nil && (ttl > 0) != (len(k.jobs) == 0) {
			m.Fatalf("%s has %d jobs, and its hash has a life of %s", key, len(k.jobs), ttl)
		}
		if len(k.jobs) == 0 {
			if len(in[key]) > 0 || s["in"] != "" || s["run"] != "" {
				m.Fatalf("idle key %s is in %v: %v", key, in[key], s)
			}
		} else {
			m.checkKey(key, k, s, in[key], d)
		}
		for i, element := range d.list["q:"+key] {
			f := strings.SplitN(element, "\x1f", 6)
			j := k.jobs[i]
			if want := []string{shortOrder(key, j), short(key, j.id), j.user, j.group, j.rev, j.payload}; !slices.Equal(f, want) {
				m.Fatalf("element %d of %s = %q, want %q", i, key, f, want)
			}
			for _, before := range k.jobs[:i] {
				if j.order != "" && before.order > j.order && (before != k.jobs[0] || k.stage == "") {
					m.Fatalf("%s of %s is behind a later one", j.id, key)
				}
			}
			counted["all"]++
			counted["u:"+j.user]++
			counted["g:"+j.group]++
			if i == 0 && k.runs() {
				run["all"]++
				run["u:"+j.user]++
				run["g:"+j.group]++
			}
		}
		if len(d.list["q:"+key]) != len(k.jobs) {
			m.Fatalf("%s has %d jobs, want %d", key, len(d.list["q:"+key]), len(k.jobs))
		}
	}
	for name, ttl := range d.ttl {
		if strings.HasPrefix(name, "ctl:") && ttl <= 0 { // its owner may be gone for good
			m.Fatalf("the mailbox %s stays for ever", name)
		}
	}
	m.sameCounts("run", d.hash["run"], run)
	m.sameCounts("count", d.hash["count"], counted)
	m.checkLimits(run)
	m.checkOwners(d)
	m.checkParked(d)
	m.checkFair(d)
	if n := len(d.list["wake"]); n > 4 {
		m.Fatalf("%d tokens at the doorbell", n)
	} else if n == 0 && (len(d.zset["orphan"]) > 0 || len(d.zset["ready"]) > 0 && run["all"] < m.limits.Running) {
		m.Fatalf("there is work and nobody is woken: ready %v, orphan %v", d.zset["ready"], d.zset["orphan"])
	}
}

// short is an id as it stands in the list of a key.
func short(key, id string) string {
	same := key[:strings.LastIndex(key, ":")+1]
	if !strings.HasPrefix(id, same) {
		same = ""
	}
	return string(rune(32+len(same))) + id[len(same):]
}

// shortOrder is an order as it stands there.
func shortOrder(key string, j *modelJob) string {
	if j.order == short(key, j.id)[1:] {
		return "="
	}
	return j.order
}

func (m *model) checkKey(key string, k *modelKey, s map[string]string, in []string, d dump) {
	if len(in) != 1 || s["in"] != in[0] {
		m.Fatalf("%s is in %v, and says %q", key, in, s["in"])
	}
	place := in[0]
	if place == "ready" || strings.HasPrefix(place, "park:") {
		place = "waits"
	}
	if place != k.place {
		m.Fatalf("%s is in %s, want %s", key, in[0], k.place)
	}
	run := ""
	if k.runs() {
		run = k.jobs[0].id
	}
	if s["run"] != run || s["own"] != k.owner || s["stage"] != k.stage || s["att"] != k.att || (s["cancel"] == "1") != k.cancel {
		m.Fatalf("%s = %v, want run %q, own %q, stage %q, att %q, cancel %t", key, s, run, k.owner, k.stage, k.att, k.cancel)
	}
	if k.fence > 0 && s["fence"] != "" && s["fence"] != strconv.FormatInt(k.fence, 10) {
		m.Fatalf("fence of %s = %s, want %d", key, s["fence"], k.fence)
	}
	if k.place == "lease" || k.place == "delay" {
		start := time.UnixMilli(int64(d.zset[k.place][key])).Add(-k.until)
		if away := time.Since(start).Abs(); away > 15*time.Second { // a case takes less
			m.Fatalf("%s in %s is %s off", key, k.place, away)
		}
	}
}

func (m *model) sameCounts(name string, got map[string]string, want map[string]int) {
	text := map[string]string{}
	for k, n := range want {
		text[k] = strconv.Itoa(n)
	}
	if !maps.Equal(got, text) {
		m.Fatalf("%s = %v, want %v", name, got, text)
	}
}

func (m *model) checkLimits(run map[string]int) {
	for name, n := range run {
		limit := m.limits.Running
		switch name[:2] {
		case "u:":
			limit = m.limits.RunningPerUser
		case "g:":
			limit = m.limits.RunningPerGroup
		}
		if n > limit {
			m.Fatalf("%d jobs of %s run, at most %d may", n, name, limit)
		}
	}
}

// checkOwners: the sets own:… partition the leased keys.
func (m *model) checkOwners(d dump) {
	owned := 0
	for name, set := range d.set {
		owner, ok := strings.CutPrefix(name, "own:")
		if !ok {
			continue
		}
		for _, key := range set {
			if owned++; m.key[key].owner != owner || m.key[key].place != "lease" {
				m.Fatalf("%s holds %s, want %q", name, key, m.key[key].owner)
			}
		}
	}
	if owned != len(d.zset["lease"]) {
		m.Fatalf("%d keys have owners, %d are leased", owned, len(d.zset["lease"]))
	}
}

// checkFair: what is given a place later comes after what its user has in one already.
func (m *model) checkFair(d dump) {
	for key, tag := range d.zset["ready"] {
		if last, _ := strconv.ParseFloat(d.hash["fair"][m.key[key].jobs[0].user], 64); last < tag {
			m.Fatalf("%s is ready at %.0f, and the last of its user was at %.0f", key, tag, last)
		}
	}
}

// checkParked: who is parked waits for a limit that is reached, or somebody before it is on its way.
func (m *model) checkParked(d dump) {
	var names []string
	for name, z := range d.zset {
		limit, ok := strings.CutPrefix(name, "park:")
		if !ok {
			continue
		}
		names = append(names, name)
		most := m.limits.RunningPerUser
		if limit[0] == 'g' {
			most = m.limits.RunningPerGroup
		}
		n, _ := strconv.Atoi(d.hash["run"][limit])
		if n >= most {
			continue
		}
		moving := false
		for key := range d.zset["ready"] {
			j := m.key[key].jobs[0]
			moving = moving || "u:"+j.user == limit || "g:"+j.group == limit
		}
		if !moving {
			m.Fatalf("%v are parked for %s, which has %d running", z, limit, n)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, d.set["parks"]) {
		m.Fatalf("parks = %v, want %v", d.set["parks"], names)
	}
}

// unchanged: a refusal leaves everything as it was.
func (m *model) unchanged(but ...string) {
	was, now := m.before.all(), m.look().all()
	for _, name := range but {
		delete(was, name)
		delete(now, name)
	}
	if !reflect.DeepEqual(was, now) {
		m.Fatalf("a refused call wrote something\nbefore %v\nafter  %v", was, now)
	}
}

func (m *model) reply(want, script, owner string, args ...any) {
	got, err := m.q[owner].Script(m.ctx, script, args...)
	if err != nil {
		m.Fatal(err)
	}
	if got != want {
		m.Fatalf("%s %v = %v, want %s", script, args, got, want)
	}
}

func (m *model) stepReply(owner string, n int, done ...any) []any {
	l := m.limits
	args := append([]any{owner, modelLease.Milliseconds(), n, l.Running, l.RunningPerUser, l.RunningPerGroup}, done...)
	got, err := m.q[owner].Script(m.ctx, "step", args...)
	if err != nil {
		m.Fatal(err)
	}
	if there := m.rdb.Exists(m.ctx, m.prefix+"fair").Val() > 0; there && m.rdb.Exists(m.ctx, m.prefix+"ready", m.prefix+"parks").Val() == 0 {
		m.Fatalf("nobody waits, and tags are kept")
	}
	list, _ := got.([]any)
	return list
}

func (m *model) holds(c *modelClaim) string {
	k := m.key[c.key]
	switch {
	case k.place == "lease" && k.fence == c.fence && k.jobs[0].id == c.id:
		return "OK"
	case k.last == c.id+"@"+strconv.FormatInt(c.fence, 10):
		return "ALREADY"
	default:
		return "STALE"
	}
}

func (m *model) count(user, group string) (all, ofUser, ofGroup int) {
	for _, k := range m.key {
		for _, j := range k.jobs {
			all++
			if j.user == user {
				ofUser++
			}
			if j.group == group {
				ofGroup++
			}
		}
	}
	return all, ofUser, ofGroup
}

func (m *model) running(of *modelJob) (all, user, group int) {
	for _, k := range m.key {
		if !k.runs() {
			continue
		}
		all++
		if of != nil && k.jobs[0].user == of.user {
			user++
		}
		if of != nil && k.jobs[0].group == of.group {
			group++
		}
	}
	return all, user, group
}

func (m *model) mayStart(j *modelJob) bool {
	all, user, group := m.running(j)
	return all < m.limits.Running && user < m.limits.RunningPerUser && group < m.limits.RunningPerGroup
}

func (m *model) places(place string) []string {
	var out []string
	for key, k := range m.key {
		if k.place == place {
			out = append(out, key)
		}
	}
	return out
}

func (k *modelKey) runs() bool { return k.place == "lease" || k.place == "orphan" }

// pop takes the head off: what was known of it goes with it.
func (k *modelKey) pop() {
	k.jobs = k.jobs[1:]
	k.forget()
}

// forget forgets what was known of the head: another one stands there.
func (k *modelKey) forget() {
	k.stage, k.att, k.owner, k.cancel, k.tries, k.takes = "", "", "", false, 0, 0
	k.place = ""
	if len(k.jobs) > 0 {
		k.place = "waits"
	}
}

func (m *model) draw(label string, from ...string) string {
	return rapid.SampledFrom(from).Draw(m.T, label)
}
func (m *model) drawOwner() string { return m.draw("replica", "r1", "r2", "r3") }

func (m *model) drawKey() (string, *modelKey) {
	key := keyOf(rapid.SampledFrom([]rune(modelKeys)).Draw(m.T, "key"))
	return key, m.key[key]
}

// drawID gives a new id, or now and then one that was used.
func (m *model) drawID(kind string) string {
	if m.ids > 0 && rapid.IntRange(0, 9).Draw(m.T, "repeat") == 0 {
		return fmt.Sprint(kind, rapid.IntRange(1, m.ids).Draw(m.T, "old"))
	}
	m.ids++
	return fmt.Sprint(kind, m.ids)
}

// drawJob gives a job of a key, or now and then one that is not there.
func (m *model) drawJob(k *modelKey) (int, string) {
	if len(k.jobs) == 0 || rapid.IntRange(0, 9).Draw(m.T, "unknown") == 0 {
		return -1, "nobody"
	}
	i := rapid.IntRange(0, len(k.jobs)-1).Draw(m.T, "job")
	return i, k.jobs[i].id
}

// drawClaim prefers a late claim: most of the early ones are over.
func (m *model) drawClaim() *modelClaim {
	if len(m.claims) == 0 {
		return nil
	}
	back := rapid.IntRange(1, min(6, len(m.claims))).Draw(m.T, "claim from the end")
	return m.claims[len(m.claims)-back]
}

// dump is everything under the prefix.
type dump struct {
	hash map[string]map[string]string
	zset map[string]map[string]float64
	set  map[string][]string
	list map[string][]string
	str  map[string]string        // without values
	ttl  map[string]time.Duration // of hashes and lists; not in all
}

func (d dump) all() map[string]any {
	out := map[string]any{}
	for k, v := range d.hash {
		out[k] = v
	}
	for k, v := range d.zset {
		out[k] = v
	}
	for k, v := range d.set {
		out[k] = v
	}
	for k, v := range d.list {
		out[k] = v
	}
	for k, v := range d.str {
		out[k] = v
	}
	return out
}

func (m *model) look() dump {
	names, err := m.rdb.Keys(m.ctx, m.prefix+"*").Result()
	if err != nil {
		m.Fatal(err)
	}
	d := dump{map[string]map[string]string{}, map[string]map[string]float64{}, map[string][]string{}, map[string][]string{}, map[string]string{}, map[string]time.Duration{}}
	var read []func() error
	pipe := m.rdb.Pipeline()
	for _, full := range names {
		name := strings.TrimPrefix(full, m.prefix)
		kind, _, _ := strings.Cut(name, ":")
		switch kind {
		case "meta", "run", "count", "fair", "s":
			c := pipe.HGetAll(m.ctx, full)
			read = append(read, func() (err error) { d.hash[name], err = c.Result(); return err })
			ttl := pipe.TTL(m.ctx, full)
			read = append(read, func() (err error) { d.ttl[name], err = ttl.Result(); return err })
		case "ready", "lease", "orphan", "delay", "park":
			c := pipe.ZRangeWithScores(m.ctx, full, 0, -1)
			read = append(read, func() error {
				d.zset[name] = map[string]float64{}
				for _, z := range c.Val() {
					d.zset[name][fmt.Sprint(z.Member)] = z.Score
				}
				return c.Err()
			})
		case "parks", "own":
			c := pipe.SMembers(m.ctx, full)
			read = append(read, func() (err error) { d.set[name], err = c.Result(); slices.Sort(d.set[name]); return err })
		case "q", "wake", "ctl":
			c, ttl := pipe.LRange(m.ctx, full, 0, -1), pipe.TTL(m.ctx, full)
			read = append(read, func() (err error) { d.list[name], err = c.Result(); return err })
			read = append(read, func() (err error) { d.ttl[name], err = ttl.Result(); return err })
		case "d":
			d.str[name] = ""
		default:
			m.Fatalf("a key that layout.go does not name: %s", full)
		}
	}
	if _, err := pipe.Exec(m.ctx); err != nil {
		m.Fatal(err)
	}
	for _, r := range read {
		if err := r(); err != nil {
			m.Fatal(err)
		}
	}
	return d
}
