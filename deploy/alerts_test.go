package deploy_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestAlerts: each alert has its page in docs/operations.md, and each page its alert; a page says what it means and what to do.
func TestAlerts(t *testing.T) {
	t.Parallel()
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	docs := read(t, "../docs/operations.md")
	var alerts []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alert)
			if want := "docs/operations.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
				t.Errorf("%s: its page is %q, want %s", r.Alert, r.Annotations["runbook_url"], want)
			}
			if r.Annotations["summary"] == "" || !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) {
				t.Errorf("%s lacks a summary or a severity: %v, %v", r.Alert, r.Annotations, r.Labels)
			}
			if !strings.Contains(r.Expr, "flaudebot_") || strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") {
				t.Errorf("%s: no expression over our metrics: %s", r.Alert, r.Expr)
			}
			_, page, found := strings.Cut(docs, "\n#### "+r.Alert+"\n")
			if page, _, _ = strings.Cut(page, "\n#"); !found || len(strings.Fields(page)) < 20 {
				t.Errorf("%s has no page in docs/operations.md that says what to do: %q", r.Alert, page)
			}
		}
	}
	if len(alerts) < 10 {
		t.Errorf("%d alerts: the rules are not read well", len(alerts))
	}
	for _, m := range regexp.MustCompile(`(?m)^#### (Flaudebot\w+)$`).FindAllStringSubmatch(docs, -1) {
		if !slices.Contains(alerts, m[1]) {
			t.Errorf("docs/operations.md has a page on %s, and there is no such alert", m[1])
		}
	}
}

// TestOutcomes: docs/operations.md has each outcome of a turn, and the alert leaves out those that it calls people's own doing.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	_, after, _ := strings.Cut(read(t, "../docs/operations.md"), "\n#### Outcomes\n")
	section, _, _ := strings.Cut(after, "\n#### ")
	var listed, theirs []string
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) != 3 {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(cells[0], -1) {
			listed = append(listed, m[1])
			switch strings.TrimSpace(cells[2]) {
			case "people's", "nobody's", "the channel's admins":
				theirs = append(theirs, m[1])
			}
		}
	}
	have := []string{"ok"}
	constant := regexp.MustCompile(`(?m)^\tFail\w+ +Failure += "([a-z]+)"`)
	for _, file := range []string{"../runner/wire.go", "../sessions/turn.go"} {
		for _, m := range constant.FindAllStringSubmatch(read(t, file), -1) {
			have = append(have, m[1])
		}
	}
	slices.Sort(have)
	slices.Sort(listed)
	if !slices.Equal(listed, have) || len(have) < 30 {
		t.Errorf("docs/operations.md lists %v, want %v", listed, have)
	}
	_, rule, _ := strings.Cut(read(t, "alerts.yaml"), "alert: FlaudebotTurnsFail")
	rule, _, _ = strings.Cut(rule, "alert: ")
	slices.Sort(theirs)
	left := regexp.MustCompile(`outcome!~"([a-z|]+)"`).FindAllStringSubmatch(rule, -1)
	if len(left) != 3 {
		t.Fatalf("the alert leaves outcomes out %d times: %s", len(left), rule)
	}
	for _, m := range left {
		got := strings.Split(strings.TrimPrefix(m[1], "ok|"), "|")
		if slices.Sort(got); !slices.Equal(got, theirs) {
			t.Errorf("the alert leaves out %v, want what is people's own doing: %v", got, theirs)
		}
	}
}
