package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"flaudebot/monitor"
)

// ask gets a page of a replica's own listener.
func ask(t *testing.T, address, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// readiness is what /readyz tells.
func readiness(t *testing.T, address string) (status int, r monitor.Readiness) {
	t.Helper()
	status, body := ask(t, address, "/readyz")
	if status != 0 {
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatalf("/readyz: %v: %s", err, body)
		}
	}
	return status, r
}

// TestMonitored: a replica tells how it is doing: before Redis is there, after a turn, and when Redis is away.
func TestMonitored(t *testing.T) {
	t.Parallel()
	redis, dir, address := freeAddr(t), t.TempDir(), freeAddr(t)
	w := splitWorldOn(t, "redis://"+redis)
	w.env = append(w.env, "FLAUDEBOT_HTTP="+address)
	bot := launch(t, w.env, "serve")
	w.until("it says that Redis is not there", func() bool {
		status, r := readiness(t, address)
		return status == http.StatusServiceUnavailable && r.Why == "Redis has not answered yet"
	})
	if status, body := ask(t, address, "/healthz"); status != http.StatusOK {
		t.Errorf("it waits for Redis, and /healthz = %d %s", status, body)
	}
	kill := startRedis(t, redis, dir)
	bot.awaitReady()

	general := w.channel("general")
	root := w.say(member, general, "", mention+"remember the number 42")
	w.answer(general, root, root)
	w.answer(general, root, w.say(member, general, root, "what number did I ask you to remember?"))
	status, r := readiness(t, address)
	if status != http.StatusOK || !r.Ready || r.Parts.Redis.State != "ok" || r.Parts.Fly.State != "ok" || r.Parts.Slack.State != "ok" ||
		*r.Parts.Slack.Sockets == 0 || time.Since(*r.Parts.Slack.LastEvent) > testPatience || r.Parts.Fly.Counts {
		t.Errorf("/readyz = %d %s", status, toJSON(t, r))
	}
	if status, body := ask(t, address, "/healthz"); status != http.StatusOK || !strings.Contains(body, `"alive":true`) || strings.Contains(body, `"round":null`) {
		t.Errorf("/healthz = %d %s", status, body)
	}
	_, page := ask(t, address, "/metrics")
	t.Run("metrics tell of the turns, of Slack and of Fly", func(t *testing.T) { metricsTell(t, address) })
	t.Run("metrics name nobody, and tell no secret", func(t *testing.T) {
		for _, name := range []string{general, root, "U0MEMBER", "T0", "xoxb", "xapp", "fly-local", "sk-ant", "fb-", "remember"} {
			if line := regexp.MustCompile(`(?m)^.*\{.*` + regexp.QuoteMeta(name) + `.*\}.*$`).FindString(page); line != "" {
				t.Errorf("a label has %s: %s", name, line)
			}
		}
	})
	t.Run("every alert is about metrics that there are", func(t *testing.T) { alertsAreAboutSomething(t, page) })
	t.Run("the documentation lists them all", func(t *testing.T) { docsListMetrics(t, page) })

	kill()
	w.until("it says that Redis is away", func() bool {
		status, r := readiness(t, address)
		return status == http.StatusServiceUnavailable && r.Parts.Redis.State == "away" && r.Parts.Redis.Code == "NETWORK"
	})
	if status, body := ask(t, address, "/healthz"); status != http.StatusOK {
		t.Errorf("Redis is away, and /healthz = %d %s: a restart would mend nothing", status, body)
	}
	startRedis(t, redis, dir)
	w.until("it is ready again", func() bool { status, _ := readiness(t, address); return status == http.StatusOK })
	if status, _ := ask(t, address, "/"); status != http.StatusNotFound {
		t.Errorf("GET / = %d, want 404", status)
	}
}

// TestAddressTaken: a replica that cannot be asked how it is doing, where it was told to be, does not start.
func TestAddressTaken(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	env := []string{
		"SLACK_APP_TOKEN=xapp-local", "SLACK_BOT_TOKEN=xoxb-local", "REDIS_URL=redis://" + freeAddr(t), "FLY_API_TOKEN=fly-local", "FLAUDEBOT_FLY_APP=test-app",
		"ANTHROPIC_API_KEY=sk-ant-local", "FLAUDEBOT_HTTP=" + taken.Addr().String(),
	}
	raw, err := self(t.Context(), env, "serve").CombinedOutput()
	if want := "flaudebot: FLAUDEBOT_HTTP=" + taken.Addr().String() + ": listen tcp"; err == nil || !strings.Contains(string(raw), want) {
		t.Errorf("serve = %v: %s, want %q", err, raw, want)
	}
}

// metricsTell: what a replica has done is in its metrics, and comes there within moments.
func metricsTell(t *testing.T, address string) {
	t.Helper()
	for _, want := range []string{
		`^flaudebot_turns_total\{kind="turn",lane="machine",outcome="ok"\} 1$`, `^flaudebot_turns_total\{kind="turn",lane="start",outcome="ok"\} 1$`,
		`^flaudebot_turn_seconds_count\{kind="turn",lane="machine"\} 1$`, `^flaudebot_turn_step_seconds_count\{step="queued"\} 2$`,
		`^flaudebot_turn_step_seconds_count\{step="creating"\} 1$`, `^flaudebot_turn_step_seconds_count\{step="running"\} 2$`,
		`^flaudebot_turns_running 0$`, `^flaudebot_turns_left_total\{why="done"\} 2$`, `^flaudebot_leases_lost_total 0$`, `^flaudebot_takeovers_total 0$`,
		`^flaudebot_slack_calls_total\{method="chat.postMessage",result="ok"\} [4-9]$`, `^flaudebot_slack_call_seconds_count\{method="chat.postMessage"\} [4-9]$`,
		`^flaudebot_fly_calls_total\{action="exec",result="ok"\} \d+$`, `^flaudebot_fly_call_seconds_count\{action="create"\} 1$`,
		`^flaudebot_queue_jobs\{state="ready"\} 0$`, `^flaudebot_queue_oldest_seconds 0$`, `^flaudebot_sessions_live 1$`,
		`^flaudebot_slack_sockets 2$`, `^flaudebot_slack_calls_waiting \d+$`, `^flaudebot_slack_last_event_timestamp_seconds 1\.\d+e\+09$`,
		`^flaudebot_ready 1$`, `^flaudebot_up\{part="fly"\} 1$`, `^flaudebot_model_usd_total 0\.0*[1-9]`, `^flaudebot_machine_seconds_total 0*[1-9.]`,
		`^flaudebot_build_info\{.*goversion="go1`, `^go_goroutines \d+$`, `^process_resident_memory_bytes `,
	} {
		pattern := regexp.MustCompile("(?m)" + want)
		page := ""
		ok := false
		for end := time.Now().Add(testPatience / 3); !ok && time.Now().Before(end); {
			_, page = ask(t, address, "/metrics")
			ok = pattern.MatchString(page)
		}
		if !ok {
			name := regexp.MustCompile(`flaudebot_\w+|go_\w+|process_\w+`).FindString(want)
			t.Errorf("no line %s, but\n%s", want, strings.Join(regexp.MustCompile(`(?m)^`+name+`.*$`).FindAllString(page, 40), "\n"))
		}
	}
}

// alertsAreAboutSomething: each name of ours in an alert's expression is on a page of metrics.
func alertsAreAboutSomething(t *testing.T, page string) {
	t.Helper()
	for _, name := range namesIn(t, "../../deploy/alerts.yaml") {
		if !regexp.MustCompile(`(?m)^` + name + `[ {]`).MatchString(page) {
			t.Errorf("alerts.yaml names %s, which no replica has", name)
		}
	}
}

// namesIn are the names of our metrics in a file.
func namesIn(t *testing.T, file string) []string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\bflaudebot_\w+`).FindAllString(string(raw), -1)
	if len(names) < 10 {
		t.Fatalf("%s names %d metrics: it is not read well", file, len(names))
	}
	return names
}

// docsListMetrics: docs/operations.md names every metric of ours, and no other.
func docsListMetrics(t *testing.T, page string) {
	t.Helper()
	documented := namesIn(t, "../../docs/operations.md")
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (flaudebot_\w+) `).FindAllStringSubmatch(page, -1) {
		have = append(have, m[1])
		if !slices.Contains(documented, m[1]) {
			t.Errorf("docs/operations.md lacks %s", m[1])
		}
	}
	for _, name := range documented {
		if !slices.Contains(have, name) {
			t.Errorf("docs/operations.md names %s, which no replica has", name)
		}
	}
}

// TestLogsOfTurn: what is logged while turns are worked on says of which turn and session it is, whoever logs it, and holds no words of anybody.
func TestLogsOfTurn(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	w.env = append(w.env, "FLAUDEBOT_LOG_FORMAT=json")
	first := start(t, w.env, "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"remember the number 4711")
	w.answer(general, root, root)
	busy := w.say(member, general, root, "take 3 seconds")
	w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "sleep 3") })
	first.kill()
	second := start(t, w.env, "serve")
	w.answer(general, root, busy)
	w.typed(member, general, "end "+linkTo(general, root))
	w.until("it is gone", func() bool {
		return strings.Contains(second.logs(), `"end:`) && strings.Contains(lastLineOf(second.logs(), `"end:`), "turn finished")
	})

	sessionOf, finished := map[string]string{}, map[string]bool{}
	for line := range strings.Lines(first.logs() + second.logs()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Errorf("no line of JSON: %s", line)
			continue
		}
		turn, _ := l["turn"].(string)
		session, _ := l["session"].(string)
		message, _ := l["msg"].(string)
		switch {
		case strings.HasPrefix(message, "turn ") && turn == "":
			t.Errorf("a line about a turn does not say which: %s", line)
		case (l["machine"] != nil || l["volume"] != nil) && session == "":
			t.Errorf("a line about a machine does not say of which session: %s", line)
		case session != "" && sessionOf[turn] == "":
			sessionOf[turn] = session
		case message == "turn finished" && session == "", session == "" && sessionOf[turn] != "" && message != "turn claimed":
			t.Errorf("a line of a turn does not say in which session: %s", line)
		}
		finished[turn] = finished[turn] || message == "turn finished"
		for _, words := range []string{"4711", "remember", "seconds", "sk-ant", "xoxb", "fly-local"} {
			if strings.Contains(line, words) {
				t.Errorf("a line holds %q: %s", words, line)
			}
		}
	}
	one := sessionOf["T0LOCAL:"+general+":"+root]
	for _, turn := range []string{"T0LOCAL:" + general + ":" + root, "T0LOCAL:" + general + ":" + busy, "end:" + one} {
		if one == "" || !finished[turn] || sessionOf[turn] != one {
			t.Errorf("turn %s: finished %t, in session %q, want %q", turn, finished[turn], sessionOf[turn], one)
		}
	}
}

// lastLineOf is the last line of a log that has a word.
func lastLineOf(log, word string) string {
	last := ""
	for line := range strings.Lines(log) {
		if strings.Contains(line, word) {
			last = line
		}
	}
	return last
}
