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
