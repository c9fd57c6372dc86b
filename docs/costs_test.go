package docs_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	"flaudebot/sessions"
)

// TestCostsOfLingering: what the page says that a wait costs follows from the prices, and so does what it says of a cent.
func TestCostsOfLingering(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("costs.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	_, table, ok := strings.Cut(page, "| linger |")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")
	if !ok || len(rows) < 5 {
		t.Fatalf("no table of lingering in the page: %q", table)
	}
	cells := func(row string) []string {
		var out []string
		for cell := range strings.SplitSeq(strings.Trim(row, "| "), "|") {
			out = append(out, strings.TrimSpace(cell))
		}
		return out
	}
	var guests []sessions.Guest
	for _, size := range cells(rows[0]) {
		g, err := sessions.ParseGuest(size)
		if err != nil {
			t.Fatalf("%s: %v", size, err)
		}
		guests = append(guests, g)
	}
	for _, row := range rows[2:] {
		row := cells(row)
		linger, err := time.ParseDuration(row[0])
		if err != nil || len(row) != len(guests)+1 {
			t.Fatalf("the row %q: %v", row, err)
		}
		for i, g := range guests {
			if want := fmt.Sprintf("%.2f", 100*linger.Seconds()*g.PricePerSecond()); row[i+1] != want {
				t.Errorf("to linger %s costs %s cents with %s, the page says %s", row[0], want, sessions.GuestText(g), row[i+1])
			}
		}
	}
	for _, g := range guests {
		if want := fmt.Sprintf("%s %d min", sessions.GuestText(g), int(0.01/g.PricePerSecond()/60)); !strings.Contains(page, want) {
			t.Errorf("the page does not say how long a cent lasts: %s", want)
		}
	}
	settings, err := os.ReadFile("configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	byDefault := func(name string) string {
		m := regexp.MustCompile("(?m)^\\| `" + name + "` \\| (\\S+) \\|").FindStringSubmatch(string(settings))
		if m == nil {
			t.Fatalf("configuration.md has no default of %s", name)
		}
		return m[1]
	}
	standard, err := sessions.ParseGuest(byDefault("FLAUDEBOT_GUEST"))
	if err != nil {
		t.Fatal(err)
	}
	linger, err := time.ParseDuration(byDefault("FLAUDEBOT_LINGER"))
	if err != nil {
		t.Fatal(err)
	}
	if usd := linger.Seconds() * standard.PricePerSecond(); usd >= 0.01 {
		t.Errorf("to linger %s, the default, costs $%f, want less than a cent", linger, usd)
	}
	month := standard.PricePerSecond() * fly.BillingMonth.Seconds()
	for _, want := range []string{
		fmt.Sprintf("`FLAUDEBOT_LINGER=%s` with `FLAUDEBOT_GUEST=%s`, costs %.2f cents when nobody comes",
			byDefault("FLAUDEBOT_LINGER"), sessions.GuestText(standard), 100*linger.Seconds()*standard.PricePerSecond()),
		fmt.Sprintf("costs %.0f dollars a month or %.2f cents a minute", month, 6000*standard.PricePerSecond()),
		fmt.Sprintf("costs %.2f dollars a month", fly.PriceVolumeGB+fly.PriceRootfsGB),
		fmt.Sprintf("shared CPU %v, dedicated CPU %v, 1 GB of memory %v", fly.PriceSharedCPU, fly.PricePerformanceCPU, fly.PriceMemoryGB),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := len(regexp.MustCompile(`\| 0\.15 for 1 GB and month \|`).FindAllString(page, -1)); n != 2 || fly.PriceVolumeGB != 0.15 || fly.PriceRootfsGB != 0.15 {
		t.Errorf("the page has %d prices of 0.15, want those of volume and image", n)
	}
}
