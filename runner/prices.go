package runner

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Price is what a model costs, in USD for a million tokens. A cache is written for 1.25 times Input where it stays for five minutes, and for twice
// that where it stays for an hour.
type Price struct {
	Input     float64 `json:"input"`
	Output    float64 `json:"output"`
	CacheRead float64 `json:"cache_read"`
}

// Prices are what models cost whose name has that text in it, the longest one counting. They go before those that the runner knows.
type Prices map[string]Price

// ParsePrices reads prices as "claude-next-1=5/25,other=1/5/0.05": USD for a million tokens of input and output, and of input that was in the cache;
// without that it is a tenth of the input.
func ParsePrices(text string) (Prices, error) {
	out := Prices{}
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		name, amounts, ok := strings.Cut(entry, "=")
		parts := strings.Split(amounts, "/")
		if name = strings.TrimSpace(name); !ok || name == "" || len(parts) < 2 || len(parts) > 3 {
			return nil, fmt.Errorf("%q is no price: want MODEL=INPUT/OUTPUT or MODEL=INPUT/OUTPUT/CACHED in USD for a million tokens, such as claude-opus-5=5/25/0.5", entry)
		}
		var usd [3]float64
		for i, part := range parts {
			n, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
			if err != nil || !(n >= 0 && n <= 10_000) {
				return nil, fmt.Errorf("%q: %q is no amount in USD for a million tokens", entry, part)
			}
			usd[i] = n
		}
		if len(parts) == 2 {
			usd[2] = usd[0] / 10
		}
		out[strings.ToLower(name)] = Price{Input: usd[0], Output: usd[1], CacheRead: usd[2]}
	}
	return out, nil
}

func (ps Prices) String() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(ps)) {
		p := ps[name]
		out = append(out, fmt.Sprintf("%s=%g/%g/%g", name, p.Input, p.Output, p.CacheRead))
	}
	return strings.Join(out, ",")
}

// listPrices are Anthropic's list prices in November 2026 (https://platform.claude.com/docs/en/about-claude/pricing).
func listPrices() Prices {
	return Prices{
		"fable-5": {10, 50, 1}, "fable-5-1": {10, 50, 0.25}, "mythos-5": {10, 50, 1}, "mythos-5-1": {10, 50, 0.25},
		"opus-5-5": {4, 20, 0.2}, "opus-5": {5, 25, 0.5},
		"opus-4-8": {5, 25, 0.5}, "opus-4-7": {5, 25, 0.5}, "opus-4-6": {5, 25, 0.5}, "opus-4-5": {5, 25, 0.5},
		"opus-4-1": {15, 75, 1.5}, "opus-4": {15, 75, 1.5}, "3-opus": {15, 75, 1.5},
		"sonnet-5-5": {2, 10, 0.1}, "sonnet-5": {2, 10, 0.2}, "sonnet-4": {3, 15, 0.3}, "3-7-sonnet": {3, 15, 0.3}, "3-5-sonnet": {3, 15, 0.3},
		"haiku-5-5": {0.1, 0.5, 0.01}, "haiku-4-5": {1, 5, 0.1}, "3-5-haiku": {0.8, 4, 0.08}, "3-haiku": {0.25, 1.25, 0.03},
	}
}

const (
	// longHaiku is from how many tokens of a prompt on Haiku 5.5 costs longHaikuTimes as much.
	longHaiku, longHaikuTimes = 100_000, 5
	// searchUSD is what one of the API's own web searches costs.
	searchUSD = 0.01
)

// fastTimes is how many times as much a model costs in its fast mode: the dearest of those that are listed, where it is not.
func fastTimes(model string) float64 {
	if strings.Contains(model, "opus-4-8") {
		return 2
	}
	return 6
}

// of is the price of a model, and whether it is one of those that were given. One that nobody knows costs as much as the dearest that is listed.
func (ps Prices) of(model string) (p Price, given bool) {
	model = strings.ToLower(model)
	for i, list := range []Prices{ps, listPrices()} {
		best := ""
		for name := range list {
			if len(name) > len(best) && names(model, name) {
				best = name
			}
		}
		if best != "" {
			return list[best], i == 0
		}
	}
	var dearest Price
	for _, p := range listPrices() {
		if p.Output > dearest.Output {
			dearest = p
		}
	}
	return dearest, false
}

// names reports whether a model's name has a text in it that no further digit follows: "opus-4-1" is not in "opus-4-10".
func names(model, text string) bool {
	for rest := model; ; {
		i := strings.Index(rest, text)
		if i < 0 {
			return false
		}
		rest = rest[i+len(text):]
		if rest == "" || rest[0] < '0' || rest[0] > '9' {
			return true
		}
	}
}

// apiUsage is what the Messages API says that a response took: https://platform.claude.com/docs/en/api/messages.
type apiUsage struct {
	Input      int64 `json:"input_tokens"`
	Output     int64 `json:"output_tokens"`
	CacheRead  int64 `json:"cache_read_input_tokens"`
	CacheWrite int64 `json:"cache_creation_input_tokens"`
	Written    struct {
		Hour int64 `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	Server struct {
		Searches int64 `json:"web_search_requests"`
	} `json:"server_tool_use"`
	Speed string `json:"speed"`
	// Iterations are the calls of models that a response is made of where it is made of several: compaction, the advisor. Not all of them are in the sums.
	Iterations []iteration `json:"iterations"`
}

// iteration is one of them; Model is empty where it is the response's.
type iteration struct {
	Model      string `json:"model"`
	Input      int64  `json:"input_tokens"`
	Output     int64  `json:"output_tokens"`
	CacheRead  int64  `json:"cache_read_input_tokens"`
	CacheWrite int64  `json:"cache_creation_input_tokens"`
}

// and takes in what a later event of the same response says: its counts are of the whole.
func (u apiUsage) and(later apiUsage) apiUsage {
	u.Input, u.Output = max(u.Input, later.Input), max(u.Output, later.Output)
	u.CacheRead, u.CacheWrite = max(u.CacheRead, later.CacheRead), max(u.CacheWrite, later.CacheWrite)
	u.Written.Hour, u.Server.Searches = max(u.Written.Hour, later.Written.Hour), max(u.Server.Searches, later.Server.Searches)
	u.Speed = cmp.Or(later.Speed, u.Speed)
	if len(later.Iterations) > len(u.Iterations) {
		u.Iterations = later.Iterations
	}
	return u
}

// cost is what a response costs, in USD: by its sums, or by what it is made of, whichever is more.
func (ps Prices) cost(model string, u apiUsage) float64 {
	parts := 0.0
	for _, i := range u.Iterations {
		parts += ps.tokens(cmp.Or(i.Model, model), apiUsage{Input: i.Input, Output: i.Output, CacheRead: i.CacheRead, CacheWrite: i.CacheWrite, Speed: u.Speed})
	}
	return max(ps.tokens(model, u), parts) + float64(u.Server.Searches)*searchUSD
}

// tokens is what the tokens of a call of a model cost.
func (ps Prices) tokens(model string, u apiUsage) float64 {
	p, given := ps.of(model)
	hour := min(u.Written.Hour, u.CacheWrite)
	tokens := float64(u.Input)*p.Input + float64(u.Output)*p.Output + float64(u.CacheRead)*p.CacheRead +
		float64(u.CacheWrite-hour)*p.Input*1.25 + float64(hour)*p.Input*2
	switch {
	case u.Speed == "fast":
		tokens *= fastTimes(model)
	case !given && names(model, "haiku-5-5") && u.Input+u.CacheRead+u.CacheWrite > longHaiku:
		tokens *= longHaikuTimes
	}
	return tokens / 1e6
}
