package runner

import (
	"math"
	"strings"
	"testing"
)

func TestCost(t *testing.T) {
	t.Parallel()
	million := apiUsage{Input: 1e6}
	hour := apiUsage{CacheWrite: 1e6}
	hour.Written.Hour = 400_000
	searched := apiUsage{}
	searched.Server.Searches = 3
	for name, c := range map[string]struct {
		model string
		usage apiUsage
		want  float64
	}{
		"input":                               {"claude-opus-5-5", million, 4},
		"output":                              {"claude-sonnet-5-5-20260901", apiUsage{Output: 1e6}, 10},
		"what was in the cache":               {"claude-opus-5-5", apiUsage{CacheRead: 1e6}, 0.2},
		"what goes into the cache":            {"claude-sonnet-4-5", apiUsage{CacheWrite: 1e6}, 3.75},
		"and for an hour":                     {"claude-sonnet-4-5", hour, 0.6*3.75 + 0.4*6},
		"web searches":                        {"claude-sonnet-4-5", searched, 0.03},
		"all together":                        {"claude-haiku-4-5-20251001", apiUsage{Input: 1e6, Output: 1e6, CacheRead: 1e6}, 6.1},
		"an older model of the same name":     {"claude-opus-4-20250514", million, 15},
		"another place's name for it":         {"us.anthropic.claude-opus-4-1-20250805-v1:0", million, 15},
		"a window of a million":               {"claude-sonnet-5[1m]", million, 2},
		"the fast mode":                       {"claude-opus-4-8", apiUsage{Input: 1e6, Speed: "fast"}, 10},
		"the fast mode of others":             {"claude-opus-4-6", apiUsage{Input: 1e6, Speed: "fast"}, 30},
		"a short prompt":                      {"claude-haiku-5-5", apiUsage{Input: 100_000}, 0.01},
		"a long one":                          {"claude-haiku-5-5", apiUsage{Input: 50_000, CacheRead: 50_001}, (50_000*0.5 + 50_001*0.05) / 1e6},
		"a model that is not known":           {"claude-saga-9", million, 15},
		"what the sums leave out":             {"claude-haiku-4-5", apiUsage{Input: 1e6, Iterations: []iteration{{Input: 1e6}, {Model: "claude-opus-4-8", Output: 1e6}}}, 26},
		"a number that a known one's begins":  {"claude-haiku-4-50", million, 15},
		"none, as where the API says nothing": {"", million, 15},
	} {
		if got := (Prices)(nil).cost(c.model, c.usage); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s (%s) costs %g, want %g", name, c.model, got, c.want)
		}
	}
}

func TestParsePrices(t *testing.T) {
	t.Parallel()
	ps, err := ParsePrices(" claude-next-1=5/25, house = 1/2/0.5 ,")
	if err != nil || ps.String() != "claude-next-1=5/25/0.5,house=1/2/0.5" {
		t.Errorf("prices = %v, %v", ps, err)
	}
	if got := ps.cost("The-House-model", apiUsage{Input: 1e6, Output: 1e6, CacheRead: 1e6}); got != 3.5 {
		t.Errorf("cost = %g, want 3.5: the given price", got)
	}
	if got := ps.cost("claude-opus-5-5", apiUsage{Input: 1e6}); got != 4 {
		t.Errorf("cost = %g, want 4: the list price", got)
	}
	if got := ps.cost("claude-haiku-5-5", apiUsage{Input: 200_000}); got != 0.1 {
		t.Errorf("cost = %g, want 0.1: prices of others change nothing of a long prompt's", got)
	}
	for _, bad := range []string{"5/25", "a=5", "a=5/25/1/2", "a=-1/2", "a=x/2", "=1/2", "a=NaN/2", "a=1/99999"} {
		if _, err := ParsePrices(bad); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(bad)) {
			t.Errorf("ParsePrices(%q) = %v, want an error that names it", bad, err)
		}
	}
}
