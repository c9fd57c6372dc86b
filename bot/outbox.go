package bot

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// urgency is what goes first where a limit of Slack's makes calls wait.
type urgency int

const (
	leisurely urgency = iota // progress, marks, and reading back: what may come late
	usual
	urgent // answers, and what shows that a turn is over
)

type urgencyKey struct{}

func withUrgency(ctx context.Context, u urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

func urgencyOf(ctx context.Context) urgency {
	if u, ok := ctx.Value(urgencyKey{}).(urgency); ok {
		return u
	}
	return usual
}

// Limits of Slack's, in calls a minute for an app in a workspace: https://docs.slack.dev/apis/web-api/rate-limits, and each method's page.
const (
	tier2   = 20
	tier3   = 50
	tier4   = 100
	tierX   = 300 // "special"
	perPost = 60  // chat.postMessage, in each channel
)

// tiers are the limits of the methods that the bot calls; others are taken for Tier 3.
func tiers() map[string]int {
	return map[string]int{
		"auth.test": tierX, "users.info": tier4, "usergroups.list": tier2, "usergroups.users.list": tier2,
		"chat.postMessage": tierX, "chat.postEphemeral": tier4, "chat.getPermalink": tierX,
		"conversations.members": tier4, "conversations.list": tier2, "reactions.remove": tier2,
		"files.getUploadURLExternal": tier4, "files.completeUploadExternal": tier4, "files.info": tier4,
		"views.open": tier4, "views.push": tier4, "views.update": tier4, "assistant.threads.setSuggestedPrompts": tier4,
	}
}

// outbox makes all calls of Slack's methods, within their limits, the urgent ones first. Slack grants a limit to the whole app: replicas share
// it without knowing of each other, so each goes slower for a while when Slack asks one of them to.
type outbox struct {
	http  *http.Client
	base  string // what addresses of methods begin with
	share float64
	tiers map[string]int // never written after newOutbox

	observe func(Call) // told of each call

	mu    sync.Mutex
	paces map[string]*pace // guarded by mu; :: method, and method and channel where Slack counts so
}

// newOutbox calls as often as Slack grants, times share.
func newOutbox(c *http.Client, base string, share float64) *outbox {
	return &outbox{http: c, base: base, share: share, tiers: tiers(), paces: map[string]*pace{}, observe: func(Call) {}}
}

// waiting is how many calls wait for a limit.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, p := range o.paces {
		n += p.queued()
	}
	return n
}

// maxPaces bounds how many are kept; those that nobody used for long go first.
const maxPaces = 2000

// pace returns what paces a method, in a channel if that is not empty.
func (o *outbox) pace(method, channel string) *pace {
	key, perMinute, share := method+" "+channel, o.tiers[method], shareOfBurst
	switch {
	case channel != "":
		perMinute, share = perPost, shareOfPosts
	case perMinute == 0:
		perMinute = tier3
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.paces[key]
	if p == nil {
		if len(o.paces) >= maxPaces {
			for k, old := range o.paces {
				if old.rested() {
					delete(o.paces, k)
				}
			}
		}
		p = newPace(float64(perMinute)*o.share, share)
		o.paces[key] = p
	}
	return p
}

// ticketKey is where a context has the right to a call that was waited for already.
type ticketKey struct{}

type ticket struct {
	method string
	held   time.Duration // for which it was waited for
	used   atomic.Bool
}

// ahead waits for a call of a method before it is known what it will say: the context is for that call.
func (o *outbox) ahead(ctx context.Context, method string) (context.Context, error) {
	asked := time.Now()
	if err := o.pace(method, "").wait(ctx, urgencyOf(ctx)); err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, ticketKey{}, &ticket{method: method, held: time.Since(asked)}), nil
}

// spare is ahead for a call that is left out rather than waited for.
func (o *outbox) spare(ctx context.Context, method string) (context.Context, bool) {
	if !o.pace(method, "").take(leisurely) {
		return ctx, false
	}
	return context.WithValue(ctx, ticketKey{}, &ticket{method: method}), true
}

// wholeKey marks a context whose call is waited for once it is on its way.
type wholeKey struct{}

// whole marks a context so.
func whole(ctx context.Context) context.Context { return context.WithValue(ctx, wholeKey{}, true) }

// Do implements what slack-go wants of a client. A call that cannot be made before its context ends is answered as Slack would: that it is
// limited.
func (o *outbox) Do(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	method, ok := strings.CutPrefix(r.URL.String(), o.base)
	if !ok { // the bytes of a file
		return o.http.Do(r)
	}
	method, _, _ = strings.Cut(method, "?")
	paces := []*pace{o.pace(method, "")}
	if method == "chat.postMessage" {
		paces = append(paces, o.pace(method, channelOf(r)))
	}
	call, asked := Call{Method: method}, time.Now()
	t, ok := ctx.Value(ticketKey{}).(*ticket)
	paid := ok && t.method == method && !t.used.Swap(true)
	if paid {
		call.Held = t.held
	}
	if !paid || paces[0].held() { // Slack may want to be left alone since
		for _, p := range slices.Backward(paces) {
			if p.wait(ctx, urgencyOf(ctx)) != nil {
				call.Status, call.Held = http.StatusTooManyRequests, call.Held+time.Since(asked)
				o.observe(call)
				return limited(r, p.free(urgencyOf(ctx))), nil //nolint:bodyclose // it has none
			}
		}
	}
	sent := time.Now()
	call.Held += sent.Sub(asked)
	done := func() {}
	if ctx.Value(wholeKey{}) != nil {
		ctx, done = context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		r = r.WithContext(ctx)
	}
	res, err := o.http.Do(r)
	if err != nil {
		done()
		call.Took, call.Err = time.Since(sent), err
		o.observe(call)
		return nil, err
	}
	call.Status = res.StatusCode
	res.Body = &endingBody{ReadCloser: res.Body, done: func(begin []byte) {
		done()
		call.Took, call.Refused = time.Since(sent), isRefusal(begin)
		o.observe(call)
	}}
	if res.StatusCode == http.StatusTooManyRequests {
		after, _ := strconv.Atoi(res.Header.Get("Retry-After")) // without one: what whoever calls makes of it
		paces[len(paces)-1].slower(time.Duration(after) * time.Second)
	}
	return res, nil
}

// endingBody is the body of an answer with what is to be done once it was read, with how it began.
type endingBody struct {
	io.ReadCloser

	begin []byte // at most 64 bytes
	done  func(begin []byte)
	once  sync.Once
}

func (b *endingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.begin = append(b.begin, p[:min(n, 64-len(b.begin))]...)
	return n, err
}

func (b *endingBody) Close() error {
	defer b.once.Do(func() { b.done(b.begin) })
	return b.ReadCloser.Close()
}

// limited is Slack's answer to a call above a limit.
func limited(r *http.Request, after time.Duration) *http.Response {
	return &http.Response{
		Status: "429 Too Many Requests", StatusCode: http.StatusTooManyRequests, Body: http.NoBody, Request: r,
		Header: http.Header{"Retry-After": {strconv.Itoa(int(math.Ceil(max(after, time.Second).Seconds())))}},
	}
}

// channelOf is the channel in the form of a request.
func channelOf(r *http.Request) string {
	if r.GetBody == nil {
		return ""
	}
	body, err := r.GetBody()
	if err != nil {
		return ""
	}
	defer func() { _ = body.Close() }()
	raw, err := io.ReadAll(body)
	if err != nil {
		return ""
	}
	form, _ := url.ParseQuery(string(raw)) // what it says for sure
	return form.Get("channel")
}

// pace keeps one limit: a bucket of tokens of which those who have time leave some to the others, and who waits for it.
type pace struct {
	every time.Duration // between two calls, in the long run
	burst float64       // calls at once

	mu      sync.Mutex
	tokens  float64   // guarded by mu
	at      time.Time // guarded by mu; when tokens were counted
	speed   float64   // guarded by mu; the share of the limit that is ours, at most 1
	until   time.Time // guarded by mu; Slack wants to be left alone until then
	waiting [urgent + 1][]chan struct{}
	timer   *time.Timer // guarded by mu; nil: nobody waits
}

// How much of a limit may be called at once: Slack tolerates bursts, and does not say how long. In a channel, where it counts by the second, it is less.
const (
	shareOfBurst = 0.2
	shareOfPosts = 0.15
)

// newPace keeps below so many calls in any minute, that share of them at once.
func newPace(perMinute, share float64) *pace {
	perMinute = math.Max(perMinute, 2)
	burst := math.Max(math.Round(perMinute*share), 1)
	every := time.Duration(float64(time.Minute) / (perMinute - burst))
	return &pace{every: every, burst: burst, tokens: burst, at: time.Now(), speed: 1}
}

// left is what a call leaves to those that are more urgent.
func (p *pace) left(u urgency) float64 {
	return p.burst * [urgent + 1]float64{leisurely: 0.4, usual: 0.2}[u]
}

// Going slower: to half of the speed, and from a quarter at least back to all of it within some minutes.
const (
	slowest  = 0.25
	recovery = 5 * time.Minute
)

// count brings the tokens up to date. p.mu must be held.
func (p *pace) count(now time.Time) {
	gone := now.Sub(p.at)
	p.tokens = min(p.burst, p.tokens+float64(gone)/float64(p.every)*p.speed)
	p.speed = min(1, p.speed+float64(gone)/float64(recovery))
	p.at = now
}

// due is when a call may be made if nobody is before it. p.mu must be held, and the tokens up to date.
func (p *pace) due(u urgency) time.Time {
	at := p.at
	if missing := p.left(u) + 1 - p.tokens; missing > 0 {
		at = at.Add(time.Duration(missing*float64(p.every)/p.speed) + time.Microsecond)
	}
	if at.Before(p.until) {
		at = p.until
	}
	return at
}

// take makes a call if it may be made at once.
func (p *pace) take(u urgency) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(time.Now())
	for _, w := range p.waiting[u:] {
		if len(w) > 0 {
			return false
		}
	}
	if p.due(u).After(p.at) {
		return false
	}
	p.tokens--
	return true
}

// wait waits for a call.
func (p *pace) wait(ctx context.Context, u urgency) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.take(u) {
		return nil
	}
	turn := make(chan struct{})
	p.mu.Lock()
	p.waiting[u] = append(p.waiting[u], turn)
	p.arm()
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.waiting[u], turn)
	if i < 0 { // it has come
		return nil
	}
	p.waiting[u] = slices.Delete(p.waiting[u], i, i+1)
	p.arm()
	return ctx.Err()
}

// arm sets the timer for who is next. p.mu must be held.
func (p *pace) arm() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.count(time.Now())
	if u, ok := p.next(); ok {
		p.timer = time.AfterFunc(p.due(u).Sub(p.at), p.serve)
	}
}

// next is the most urgent that somebody waits for. p.mu must be held.
func (p *pace) next() (urgency, bool) {
	for u := urgent; u >= leisurely; u-- {
		if len(p.waiting[u]) > 0 {
			return u, true
		}
	}
	return 0, false
}

// serve lets those go whose turn it is.
func (p *pace) serve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(time.Now())
	for u, ok := p.next(); ok && !p.due(u).After(p.at); u, ok = p.next() {
		close(p.waiting[u][0])
		p.waiting[u] = p.waiting[u][1:]
		p.tokens--
	}
	p.arm()
}

// slower notes that Slack wants to be left alone for so long.
func (p *pace) slower(wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(time.Now())
	p.until = p.at.Add(wait)
	p.tokens, p.speed = min(p.tokens, 0), max(p.speed/2, slowest)
	p.arm()
}

// queued is how many wait.
func (p *pace) queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, w := range p.waiting {
		n += len(w)
	}
	return n
}

// held reports whether Slack wants to be left alone just now.
func (p *pace) held() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.until)
}

// free is in how long a call may be made.
func (p *pace) free(u urgency) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(time.Now())
	return p.due(u).Sub(p.at)
}

// rested reports whether nothing would be lost if it were forgotten.
func (p *pace) rested() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(time.Now())
	_, waits := p.next()
	return !waits && p.tokens == p.burst && p.speed == 1
}
