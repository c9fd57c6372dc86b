package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"path"
	"sync"
	"time"
)

// meter counts what the API's responses cost, as they come, and keeps a turn from asking for more than it is allowed.
type meter struct {
	mu     sync.Mutex
	turn   *turn   // guarded by mu; that is at work; nil: none is
	usd    float64 // guarded by mu; since the turn before that was settled
	told   float64 // guarded by mu; of that, what the journal has
	denied bool    // guarded by mu; the turn asked for more
	shut   bool    // guarded by mu; the last turn had a budget, and the next one has not begun

	asked   int           // guarded by mu; requests that are on their way
	atMost  float64       // guarded by mu; USD that these may cost
	changed chan struct{} // guarded by mu; closed and replaced when one of them is over; nil: nobody waits
}

// serve charges a turn from here on.
func (m *meter) serve(t *turn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn, m.told, m.denied, m.shut = t, 0, false, false
	m.stir()
}

// settle returns what the turn has cost, when what it asked for is over, or after some time. What comes after it, from a process that stays, is the next
// turn's; after one with a budget nothing does.
func (m *meter) settle() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for late, waits := time.After(settleTime), true; waits && m.asked > 0; {
		changed := m.change()
		m.mu.Unlock()
		select {
		case <-changed:
		case <-late:
			waits = false
		}
		m.mu.Lock()
	}
	usd := m.usd
	m.shut = m.budget() != nil
	m.turn, m.usd = nil, 0
	return usd
}

// settleTime bounds the wait for requests of a turn that is over: they end with its process.
const settleTime = 2 * time.Second

// limited reports whether a turn is at work, or was at work last, that has a budget.
func (m *meter) limited() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shut || m.budget() != nil
}

// add charges the turn with more of what a response costs.
func (m *meter) add(usd float64, of *request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.usd += usd
	if of != nil {
		of.heard = true
	}
}

// tell notes in the journal what the turn has cost so far, if there is a budget: another turn may have the same one.
func (m *meter) tell() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.budget() != nil && m.usd > m.told {
		m.told = m.usd
		m.turn.journal.add("", Event{Kind: KindSpent, USD: m.usd})
	}
}

// request is one that is on its way within a budget.
type request struct {
	worst   float64 // USD that it costs at most, about
	unheard float64 // that it is taken to have cost if the API never says: the prompt alone, where the answer would have come bit by bit
	heard   bool    // guarded by meter.mu; the API told what it costs
	done    bool    // guarded by meter.mu; it was answered, as far as the API is concerned
}

// requestKey is where the context of a request has its [request].
type requestKey struct{}

// newRequest reads what a request may cost off its body.
func (m *meter) newRequest(body []byte) *request {
	var in struct {
		Model     string
		MaxTokens int64 `json:"max_tokens"`
		Stream    bool
	}
	_ = json.Unmarshal(body, &in) // the API will refuse it
	u := apiUsage{Input: int64(len(body)) / bytesPerToken}
	r := &request{unheard: m.prices().cost(in.Model, u)}
	u.Output = in.MaxTokens
	r.worst = m.prices().cost(in.Model, u)
	if !in.Stream {
		r.unheard = r.worst
	}
	return r
}

// admit waits until the turn may ask for a further response: when what is on its way cannot use up the budget, or is over. That one response crosses it cannot be
// helped; that several do at once is kept from happening. false: the budget is used up, or nobody waits any more. The first time that it is, the turn is stopped.
func (m *meter) admit(ctx context.Context, r *request) bool {
	for {
		m.mu.Lock()
		switch b := m.budget(); {
		case m.shut:
			m.mu.Unlock()
			return false
		case b != nil && m.usd >= b.USD:
			if !m.denied {
				m.denied = true
				m.turn.interrupt(FailBudget)
			}
			m.mu.Unlock()
			return false
		case b == nil, m.asked == 0, m.usd+m.atMost+r.worst <= b.USD:
			m.asked++
			m.atMost += r.worst
			m.mu.Unlock()
			return true
		}
		changed := m.change()
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// over notes that a request is over. Where its sender broke it off before the API said what it costs, or that cannot be read, it is taken to have cost something.
func (m *meter) over(r *request, brokenOff bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked--
	m.atMost -= r.worst
	if (brokenOff || r.done) && !r.heard {
		m.usd += r.unheard
	}
	m.stir()
}

// change is closed when a request is over, or a turn begins. m.mu must be held.
func (m *meter) change() <-chan struct{} {
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// stir has those look again who wait. m.mu must be held.
func (m *meter) stir() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// budget is the turn's; nil: there is no turn, or no bound. m.mu must be held.
func (m *meter) budget() *Budget {
	if m.turn == nil {
		return nil
	}
	return m.turn.Budget
}

func (m *meter) prices() Prices {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.budget(); b != nil {
		return b.Prices
	}
	return nil
}

// costs reports whether a request has the API do something that costs, and whether that is counted. Batches, for one, are answered another day.
func costs(r *http.Request) (costs, counted bool) {
	if r.Method != http.MethodPost {
		return false, true
	}
	switch path.Base(r.URL.Path) {
	case "messages":
		return true, true
	case "count_tokens":
		return false, true
	}
	return true, false
}

// measure has the meter read along with a response that costs.
func (m *meter) measure(res *http.Response) error {
	if spends, counted := costs(res.Request); !spends || !counted || res.StatusCode != http.StatusOK {
		return nil
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	of, _ := res.Request.Context().Value(requestKey{}).(*request)
	if of != nil {
		m.mu.Lock()
		of.done = true
		m.mu.Unlock()
	}
	res.Body = &measured{body: res.Body, meter: m, of: of, streams: kind == "text/event-stream"}
	return nil
}

// longestLine is up to how many bytes of a response, or of a line of a stream of events, are looked at. What tells of usage is far shorter.
const longestLine = 8 << 20

// measured is the body of a response, of which the cost is added up as it passes.
type measured struct {
	body    io.ReadCloser
	meter   *meter
	of      *request // nil: there is no budget
	streams bool

	line    bytes.Buffer
	model   string
	usage   apiUsage
	guessed int64   // bytes of output that no usage tells of yet
	final   bool    // the usage tells of all the output
	usd     float64 // that was charged
}

func (b *measured) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.take(p[:n])
	if err != nil {
		b.end()
	}
	return n, err
}

func (b *measured) Close() error {
	b.end()
	return b.body.Close()
}

func (b *measured) take(p []byte) {
	for b.streams {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		b.keep(p[:i])
		b.event(b.line.Bytes())
		b.line.Reset()
		p = p[i+1:]
	}
	b.keep(p)
}

func (b *measured) keep(p []byte) {
	if b.line.Len()+len(p) <= longestLine {
		b.line.Write(p)
	}
}

// event takes in a line of a stream: https://platform.claude.com/docs/en/build-with-claude/streaming.
func (b *measured) event(line []byte) {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok {
		return
	}
	var e struct {
		Type    string
		Message struct {
			Model string
			Usage apiUsage
		}
		Usage apiUsage
		Delta struct {
			Text     string
			Thinking string
			Input    string `json:"partial_json"`
		}
	}
	if json.Unmarshal(data, &e) != nil {
		return
	}
	switch e.Type {
	case "message_start":
		b.model, b.usage = e.Message.Model, e.Message.Usage
	case "content_block_delta":
		b.guessed += int64(len(e.Delta.Text) + len(e.Delta.Thinking) + len(e.Delta.Input))
		return // too many to charge each
	case "message_delta":
		b.usage, b.final = b.usage.and(e.Usage), true
	case "message_stop":
	default:
		return
	}
	b.charge()
	if e.Type != "message_start" {
		b.meter.tell()
	}
}

// bytesPerToken is about how much text a token of output is. It counts only where a response is broken off: the API then says nothing of what it wrote.
const bytesPerToken = 3

// charge adds what the response costs by now and was not added.
func (b *measured) charge() {
	u := b.usage
	if !b.final {
		u.Output = max(u.Output, (b.guessed+bytesPerToken-1)/bytesPerToken)
	}
	if usd := b.meter.prices().cost(b.model, u); usd > b.usd {
		b.meter.add(usd-b.usd, b.of)
		b.usd = usd
	}
}

// end charges what a response that has ended is known to cost.
func (b *measured) end() {
	if !b.streams && b.line.Len() > 0 {
		var whole struct {
			Model string
			Usage apiUsage
		}
		if json.Unmarshal(b.line.Bytes(), &whole) == nil {
			b.model, b.usage, b.final = whole.Model, whole.Usage, true
		}
		b.line.Reset()
	}
	if b.model != "" {
		b.charge()
		b.meter.tell()
	}
}
