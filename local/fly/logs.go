package fly

import (
	"bufio"
	"cmp"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// logLine is a line of a machine's output.
type logLine struct {
	token                     int64 // unix ns, of no other line
	id, text, machine, region string
}

// How many lines of a machine are kept, and how many Fly answers with at once.
const (
	keptLines = 1000
	pageLines = 100
)

// newToken is the time in ns, or just after the last token: lines of one nanosecond are told apart. s.mu must be held.
func (s *Server) newToken() int64 {
	s.logged = max(time.Now().UnixNano(), s.logged+1)
	return s.logged
}

// collect keeps a machine's output.
func (s *Server) collect(id, region string, out io.ReadCloser) {
	defer func() { _ = out.Close() }()
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			text = strings.TrimRight(text, "\r\n")
			s.mu.Lock()
			kept := append(s.logs[id], logLine{token: s.newToken(), id: s.ids.next(), text: text, machine: id, region: region})
			s.logs[id] = kept[max(0, len(kept)-keptLines):]
			s.mu.Unlock()
			s.log.Debug("machine says", "machine", id, "text", text)
		}
		if err != nil {
			return
		}
	}
}

// readLogs answers as Fly's log API does: the newest lines, or with a next_token the oldest ones that came after it.
func (s *Server) readLogs(r *http.Request) (any, error) {
	q := r.URL.Query()
	var after int64
	if t := q.Get("next_token"); t != "" {
		n, err := strconv.ParseInt(t, 10, 64)
		if err != nil {
			return nil, fail(400, "invalid_argument: next_token: %q is no time in nanoseconds", t)
		}
		after = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.appOf(r); err != nil {
		return nil, err
	}
	var lines []logLine
	for id, m := range s.state.Machines {
		if m.OwnedBy != r.PathValue("app") || (q.Get("instance") != "" && q.Get("instance") != id) {
			continue
		}
		for _, l := range s.logs[id] {
			if l.token > after && (q.Get("region") == "" || q.Get("region") == l.region) {
				lines = append(lines, l)
			}
		}
	}
	slices.SortFunc(lines, func(a, b logLine) int { return cmp.Compare(a.token, b.token) })
	if after == 0 {
		lines = lines[max(0, len(lines)-pageLines):]
	} else {
		lines = lines[:min(len(lines), pageLines)]
	}
	data := []any{}
	for _, l := range lines {
		after = l.token
		data = append(data, map[string]any{"id": l.id, "type": "log", "attributes": map[string]any{
			"timestamp": time.Unix(0, l.token).UTC().Format(time.RFC3339Nano), "message": l.text, "level": "info", "instance": l.machine, "region": l.region,
			"meta": map[string]any{"instance": l.machine, "region": l.region, "event": map[string]any{"provider": "app"}},
		}})
	}
	if after == 0 {
		after = s.newToken()
	}
	return map[string]any{"data": data, "meta": map[string]any{"next_token": strconv.FormatInt(after, 10)}}, nil
}
