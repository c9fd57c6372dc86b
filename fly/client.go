package fly

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Config says how to reach Fly. Zero values mean what each comment says.
type Config struct {
	BaseURL     string // of the Machines API, a /v1 at its end is left out; "": https://api.machines.dev
	LogsBaseURL string // "": https://api.fly.io
	Token       string // as flyctl prints it
	HTTP        *http.Client
	Log         *slog.Logger
	UserAgent   string
	// Unlimited switches the client-side rate limits off, for a server that has none.
	Unlimited bool
	// Tries is how often a request is sent at most; 0: 5.
	Tries int
	// Observe is told of every request that was sent, and of those that were not for our own rate limits; it must not block. nil: nobody
	// wants to know.
	Observe func(Call)
}

// Call is one request, as [Config.Observe] is told: a call that is repeated is several.
type Call struct {
	Action string        // what was asked for, as in "start" or "exec": a word of this package's, with no name in it
	Err    error         // nil: Fly did it
	Held   time.Duration // how long our own limits held it back
	Took   time.Duration // from when it was sent until the answer was read; 0: it was not sent
}

// Client speaks to the Machines API. It is safe for concurrent use.
type Client struct {
	cfg   Config
	auth  string
	log   *slog.Logger
	limit limits
}

// New checks the configuration.
func New(cfg Config) (*Client, error) {
	if cfg.BaseURL == "" {
		cfg.BaseURL = "https://api.machines.dev"
	}
	if cfg.LogsBaseURL == "" {
		cfg.LogsBaseURL = "https://api.fly.io"
	}
	cfg.BaseURL = strings.TrimRight(strings.TrimSuffix(strings.TrimRight(cfg.BaseURL, "/"), "/v1"), "/")
	cfg.LogsBaseURL = strings.TrimRight(cfg.LogsBaseURL, "/")
	for _, base := range []string{cfg.BaseURL, cfg.LogsBaseURL} {
		if u, err := url.Parse(base); err != nil || u.Host == "" {
			return nil, fmt.Errorf("%q is no base address of Fly's API", base)
		}
	}
	if cfg.Token == "" {
		return nil, errors.New("a Fly token is needed")
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tries == 0 {
		cfg.Tries = 5
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Call) {}
	}
	return &Client{cfg: cfg, auth: authorization(cfg.Token), log: cfg.Log}, nil
}

// authorization follows Fly's own client: macaroons go as FlyV1, all else as Bearer.
func authorization(token string) string {
	token = strings.TrimSpace(token)
	for _, scheme := range []string{"FlyV1 ", "Bearer "} {
		token = strings.TrimPrefix(token, scheme)
	}
	for part := range strings.SplitSeq(token, ",") {
		if strings.HasPrefix(part, "fm1r_") || strings.HasPrefix(part, "fm1a_") || strings.HasPrefix(part, "fm2_") {
			return "FlyV1 " + token
		}
	}
	return "Bearer " + token
}

// Deadlines of one try. wait and exec add what they were asked to wait for.
const (
	readTimeout  = 15 * time.Second
	writeTimeout = 60 * time.Second
	listTimeout  = 60 * time.Second // a list of 10,000 machines is 20 MB
)

// request is one call of the API.
type request struct {
	op     string // for errors: "start machine 148e…"
	method string
	path   string // below /v1, or with logs below the logs' base
	query  url.Values
	body   any
	nonce  string
	// limit names the bucket of Fly's rate limit: action and machine or app.
	action, subject string
	// once: not idempotent; repeated on 429 only.
	once    bool
	timeout time.Duration // of one try
	logs    bool
	// taken are further status codes that mean success.
	taken []int
}

// does says what the request asks for, with no name in it.
func (r request) does() string {
	switch {
	case r.action != "":
		return r.action
	case r.logs:
		return "logs"
	}
	return "apps"
}

// do sends a request, again where that is safe, and decodes the answer into out if that is not nil.
func (c *Client) do(ctx context.Context, r request, out any) error {
	for try := 1; ; try++ {
		asked := time.Now()
		if err := c.limit.wait(ctx, c.cfg.Unlimited, r.action, r.subject); err != nil {
			e := &Error{Op: r.op, cause: err}
			if ctx.Err() == nil { // its turn would come after the deadline
				e.kind = ErrRateLimited
			}
			c.cfg.Observe(Call{Action: r.does(), Err: e, Held: time.Since(asked)})
			return e
		}
		sent := time.Now()
		err := c.send(ctx, r, out)
		c.cfg.Observe(Call{Action: r.does(), Err: err, Held: sent.Sub(asked), Took: time.Since(sent)})
		if err == nil {
			return nil
		}
		var e *Error
		if !errors.As(err, &e) || ctx.Err() != nil || try >= c.cfg.Tries || !repeatable(r, e) {
			return err
		}
		if e.RetryAfter > longestPause {
			return err
		}
		pause := backoff(try, e)
		c.log.DebugContext(ctx, "Fly asked again", "op", r.op, "attempt", try, "pause", pause, "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func repeatable(r request, e *Error) bool {
	if errors.Is(e, ErrRateLimited) {
		return true
	}
	return !r.once && (errors.Is(e, ErrUnavailable) || (errors.Is(e, ErrTimeout) && r.action != "wait"))
}

// longestPause is the longest that Fly may ask us to wait before the next try; who is asked to wait longer gets the error.
const longestPause = time.Minute

// backoff is what Fly asks for; else after 429 a second that doubles up to 15 s; else full jitter below a bound that
// doubles from half a second to 8 s.
func backoff(try int, e *Error) time.Duration {
	switch {
	case e.RetryAfter > 0:
		return e.RetryAfter + rand.N(250*time.Millisecond) //nolint:gosec // jitter
	case errors.Is(e, ErrRateLimited):
		return min(time.Second<<(try-1), 15*time.Second) + rand.N(250*time.Millisecond) //nolint:gosec // jitter
	default:
		bound := min(500*time.Millisecond<<(try-1), 8*time.Second)
		return 50*time.Millisecond + rand.N(bound) //nolint:gosec // jitter
	}
}

func (c *Client) send(ctx context.Context, r request, out any) error {
	timeout := r.timeout
	if timeout == 0 {
		timeout = writeTimeout
		if r.method == http.MethodGet {
			timeout = readTimeout
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := c.request(ctx, r)
	if err != nil {
		return &Error{Op: r.op, cause: err}
	}
	res, err := c.cfg.HTTP.Do(req)
	if errors.Is(err, ErrUnsent) {
		return &Error{Op: r.op, cause: withoutAddress(err)}
	}
	if err != nil {
		return &Error{Op: r.op, kind: ErrUnavailable, cause: withoutAddress(err)}
	}
	defer func() { _ = res.Body.Close() }()
	if l, ok := out.(entries); ok && res.StatusCode/100 == 2 {
		if err := l.read(res.Body); err != nil {
			return undecoded(r, res, err)
		}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 32<<20))
	if err != nil {
		return &Error{Op: r.op, kind: ErrUnavailable, cause: withoutAddress(err)}
	}
	if res.StatusCode/100 != 2 {
		if slices.Contains(r.taken, res.StatusCode) {
			return nil
		}
		return newError(r.op, res, c.redacted(body))
	}
	if len(body) == 0 {
		return nil
	}
	if out == nil {
		out = new(json.RawMessage) // a page that something before Fly answers with says nothing of the request
	}
	if err := json.Unmarshal(body, out); err != nil {
		return undecoded(r, res, err)
	}
	return nil
}

func undecoded(r request, res *http.Response, err error) error {
	return &Error{Op: r.op, kind: ErrUnavailable, RequestID: res.Header.Get("Fly-Request-Id"), cause: fmt.Errorf("decode the answer: %w", withoutAddress(err))}
}

// entries is an answer that is decoded as it comes.
type entries interface{ read(io.Reader) error }

// list is a list of which no more than one entry is held as text: that of an app's machines is as long as the app is large.
type list[T any] []T

// read takes all of it or nothing.
func (l *list[T]) read(body io.Reader) error {
	*l = nil
	d := json.NewDecoder(body)
	open, err := d.Token()
	if err != nil || open == nil { // null: there are none
		return err
	}
	if open != json.Delim('[') {
		return fmt.Errorf("it is no list, it begins with %v", open)
	}
	var all []T
	for d.More() {
		var one T
		if err := d.Decode(&one); err != nil {
			return err
		}
		all = append(all, one)
	}
	if _, err := d.Token(); err != nil { // it was cut
		return err
	}
	*l = all
	return nil
}

// identified refuses an answer that does not name what it is about: whether the request took effect is open.
func identified(op, id string) error {
	if id == "" {
		return &Error{Op: op, kind: ErrUnavailable, cause: errors.New("the answer does not say of what")}
	}
	return nil
}

// redacted is an answer without our token, should Fly or somebody between say it back.
func (c *Client) redacted(body []byte) []byte {
	_, token, _ := strings.Cut(c.auth, " ")
	for part := range strings.SplitSeq(token, ",") {
		if part != "" {
			body = bytes.ReplaceAll(body, []byte(part), []byte("[redacted]"))
		}
	}
	return body
}

// withoutAddress drops the address from an error of net/http: Op says enough.
func withoutAddress(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (c *Client) request(ctx context.Context, r request) (*http.Request, error) {
	base := c.cfg.BaseURL + "/v1"
	if r.logs {
		base = c.cfg.LogsBaseURL + "/api/v1"
	}
	address := base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		raw, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", c.auth)
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.nonce != "" {
		req.Header.Set("Fly-Machine-Lease-Nonce", r.nonce)
	}
	if c.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", c.cfg.UserAgent)
	}
	return req, nil
}

// limits keeps Fly's documented rate limits: 1 request a second, burst 3, for each action and machine or
// app; 5 and 10 for reading one machine.
type limits struct {
	mu      sync.Mutex
	buckets map[string]*rate.Limiter // guarded by mu; :: action and subject → bucket
}

// maxBuckets bounds the memory for buckets; a full bucket that is forgotten loses nothing.
const maxBuckets = 10000

func (l *limits) wait(ctx context.Context, unlimited bool, action, subject string) error {
	if unlimited || action == "" {
		return nil
	}
	return l.bucket(action, subject).Wait(ctx)
}

func (l *limits) bucket(action, subject string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := action + " " + subject
	if b := l.buckets[key]; b != nil {
		return b
	}
	if l.buckets == nil || len(l.buckets) >= maxBuckets {
		l.buckets = map[string]*rate.Limiter{}
	}
	b := rate.NewLimiter(1, 3)
	if action == "get" {
		b = rate.NewLimiter(5, 10)
	}
	l.buckets[key] = b
	return b
}
