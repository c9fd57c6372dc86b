package runner

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// volume is a runner's folders, without a runner.
func volume(t *testing.T) Config {
	t.Helper()
	cfg := Config{Data: t.TempDir(), RunDir: t.TempDir(), UID: -1}.withDefaults()
	if err := cfg.makeDirs(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func newTestJournal(t *testing.T, c Config, id string) *journal {
	t.Helper()
	j, err := newJournal(c, id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJournal(t *testing.T) {
	t.Parallel()
	t.Run("events are numbered and kept, lines that are none beside them", func(t *testing.T) {
		t.Parallel()
		c := volume(t)
		j := newTestJournal(t, c, "a")
		j.add("raw of both", Event{Kind: KindInit}, Event{Kind: KindPhase, Phase: PhaseRunning})
		j.add("raw of none")
		j.add("", Event{Kind: KindText, Text: "said"})
		j.close()
		got := c.kept("a")
		if len(got) != 3 || got[0].N != 1 || got[2].N != 3 || got[2].Text != "said" {
			t.Errorf("kept = %+v", got)
		}
		raw, err := os.ReadFile(c.turnFile("a", ".ndjson"))
		if err != nil || strings.Count(string(raw), "raw of both") != 1 || !strings.Contains(string(raw), "raw of none") {
			t.Errorf("journal = %s, %v, want each line of Claude Code's once", raw, err)
		}
	})
	t.Run("a torn last line is passed over", func(t *testing.T) {
		t.Parallel()
		c := volume(t)
		j := newTestJournal(t, c, "a")
		for range 3 {
			j.add("", Event{Kind: KindText, Text: "said"})
		}
		j.close()
		whole, err := os.Stat(c.turnFile("a", ".ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(c.turnFile("a", ".ndjson"), whole.Size()-5); err != nil {
			t.Fatal(err)
		}
		if got := c.kept("a"); len(got) != 2 || !c.heard("a") {
			t.Errorf("kept = %+v, want the two whole ones", got)
		}
	})
	t.Run("a line that did not fit costs no other one", func(t *testing.T) {
		t.Parallel()
		c := volume(t)
		j := newTestJournal(t, c, "a")
		j.add("", Event{Kind: KindText, Text: "first"})
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip("left out: there is no /dev/full here")
		}
		_, _ = j.file.WriteString(`{"n":2,"kind":"te`)
		file := j.file
		j.file = full
		j.add("", Event{Kind: KindText, Text: "second"})
		j.file = file
		j.add("", Event{Kind: KindText, Text: "third"})
		j.close()
		got := c.kept("a")
		if len(got) != 2 || got[1].N != 3 || got[1].Text != "third" {
			t.Errorf("kept = %+v, want the first and the third", got)
		}
		s := &server{cfg: c, stir: make(chan struct{}, 1)}
		if r := s.events(t.Context(), EventsRequest{Turn: "a", After: 2}); len(r.Events) != 1 || r.Events[0].N != 3 {
			t.Errorf("events after 2 = %+v, want the third", r.Events)
		}
	})
	t.Run("what it takes of the volume is bounded", func(t *testing.T) {
		t.Parallel()
		c := volume(t)
		j := newTestJournal(t, c, "a")
		line := strings.Repeat("x", 2*maxRaw)
		for range 2 * maxRaws / maxRaw {
			j.add(line, Event{Kind: KindText, Text: "said"})
		}
		j.close()
		if got := size(c.turnFile("a", ".ndjson")); got > maxRaws+maxRaws/4 {
			t.Errorf("the journal has %d bytes, want about %d", got, maxRaws)
		}
		if got := c.kept("a"); len(got) != 2*maxRaws/maxRaw {
			t.Errorf("%d events are kept, want them all", len(got))
		}
	})
	t.Run("an event fits into a reply whatever it holds", func(t *testing.T) {
		t.Parallel()
		c := volume(t)
		j := newTestJournal(t, c, "a")
		var todos []Todo
		for range 50 {
			todos = append(todos, Todo{Text: strings.Repeat("<", 200), State: "pending"})
		}
		j.add("", Event{Kind: KindTodo, Todos: todos, Text: strings.Repeat("\x01", 5000), Tool: strings.Repeat("&", 5000), Model: strings.Repeat("\u2028", 900)})
		events, _ := j.after(0)
		if got := jsonSize(EventsReply{Events: events}); got > eventsBudget || len(events[0].Todos) == 0 {
			t.Errorf("the reply has %d bytes and %d todos, want at most %d", got, len(events[0].Todos), eventsBudget)
		}
		j.close()
	})
	t.Run("journals of old turns are emptied, but heard of", func(t *testing.T) {
		t.Parallel()
		c := volume(t)
		for i := range maxJournals + 3 {
			id := fmt.Sprint("turn", i)
			j := newTestJournal(t, c, id)
			j.add("", Event{Kind: KindText, Text: "said"})
			j.close()
			if err := c.finish(id, record{Outcome: Outcome{Turn: id}}); err != nil {
				t.Fatal(err)
			}
			at := time.Now().Add(time.Duration(i-100) * time.Minute)
			if err := os.Chtimes(c.turnFile(id, ".ndjson"), at, at); err != nil {
				t.Fatal(err)
			}
			if i != 1 { // nobody acknowledged the second
				if err := c.save(c.turnFile(id, ".acked"), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.prune()
		for i, want := range map[int]int{0: 0, 1: 1, 2: 0, 3: 1, maxJournals + 2: 1} {
			id := fmt.Sprint("turn", i)
			if _, ok := c.outcome(id); len(c.kept(id)) != want || !c.heard(id) || !ok {
				t.Errorf("%s: %d events, heard of: %v, outcome: %v, want %d events and the rest", id, len(c.kept(id)), c.heard(id), ok, want)
			}
		}
	})
	t.Run("a turn's file is in its folder whatever its id is", func(t *testing.T) {
		t.Parallel()
		c := volume(t)
		seen := map[string]bool{}
		for _, id := range []string{"T1:C1:1.2", "T1_C1_1.2", "../../x", "a/b", strings.Repeat("x", 500), "é", ""} {
			name := strings.TrimPrefix(c.turnFile(id, ".json"), c.own()+"/turns/")
			if strings.Contains(name, "/") || len(name) > 120 || seen[name] {
				t.Errorf("the file of %q is %s", id, name)
			}
			seen[name] = true
		}
	})
}

func TestResult(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"empty": "", "short": "hello", "runes": strings.Repeat("€", 100_000), "escapes": strings.Repeat("<\x01\"\n", 10_000),
		"four bytes": strings.Repeat("x𝄞", 30_000),
	} {
		t.Run("an answer of "+name+" arrives whole in replies that fit", func(t *testing.T) {
			t.Parallel()
			c := volume(t)
			files := make([]string, 200)
			for i := range files {
				files[i] = strings.Repeat("f", 40)
			}
			out := Outcome{Turn: "a", AnswerBytes: int64(len(answer)), Error: strings.Repeat("e", 2000), Files: files}
			if err := c.finish("a", record{Outcome: out, Answer: answer}); err != nil {
				t.Fatal(err)
			}
			s := &server{cfg: c, stir: make(chan struct{}, 1)}
			var got strings.Builder
			for int64(got.Len()) < out.AnswerBytes {
				r := s.result(t.Context(), ResultRequest{Turn: "a", Offset: int64(got.Len())})
				if raw, _ := json.Marshal(r); len(raw) > MaxBody || r.Text == "" {
					t.Fatalf("a reply has %d bytes, %d of text", len(raw), len(r.Text))
				}
				got.WriteString(r.Text)
			}
			if got.String() != answer {
				t.Errorf("the answer has %d bytes and differs, want %d", got.Len(), len(answer))
			}
			whole := s.events(t.Context(), EventsRequest{Turn: "a"})
			if fits := len(answer) < 1000; (whole.Outcome != nil) != fits || fits && whole.Text != answer || jsonSize(whole) > MaxBody {
				t.Errorf("events = %v, %d bytes of text, want the outcome with the answer if it fits", whole.Outcome, len(whole.Text))
			}
		})
	}
}
