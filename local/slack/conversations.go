package slack

import (
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
)

type channel struct {
	id, name string
	im       string // the person of a DM
	members  map[string]bool
	archived bool
	private  bool
	messages []*msg
	// suggested is what a DM offers to begin with.
	suggested suggestion
}

// msg is a message as it goes over the wire; metadata is kept apart, since it is shown on demand only.
type msg struct {
	fields   fields
	metadata map[string]any
	deleted  bool
}

func (m *msg) str(name string) string {
	s, _ := m.fields[name].(string)
	return s
}

// root tells whether the message begins a thread or could.
func (m *msg) root() bool { return m.str("thread_ts") == "" || m.str("thread_ts") == m.str("ts") }

func (m *msg) inThread(ts string) bool { return m.str("thread_ts") == ts || m.str("ts") == ts }

// shown is the message as a method returns it: the payload of its metadata only where it was asked for.
func (m *msg) shown(withMetadata bool) fields {
	out := maps.Clone(m.fields)
	if m.metadata != nil {
		meta := fields{"event_type": m.metadata["event_type"]}
		if withMetadata {
			meta["event_payload"] = m.metadata["event_payload"]
		}
		out["metadata"] = meta
	}
	return out
}

// standing is the message at its place in a conversation: a first message tells of its replies, and stays as a tombstone
// when it was deleted and has some. nil means that there is nothing to show.
func (ch *channel) standing(m *msg, withMetadata bool) fields {
	ts := m.str("ts")
	var users []string
	n, latest := 0, ""
	if m.root() {
		for _, r := range ch.messages {
			if r.deleted || r == m || r.str("thread_ts") != ts {
				continue
			}
			n, latest = n+1, r.str("ts")
			if !slices.Contains(users, r.str("user")) {
				users = append(users, r.str("user"))
			}
		}
	}
	var out fields
	switch {
	case !m.deleted:
		out = m.shown(withMetadata)
	case n > 0:
		out = tombstone(ts)
	default:
		return nil
	}
	if n > 0 {
		out["thread_ts"], out["reply_count"], out["latest_reply"] = ts, n, latest
		out["reply_users"], out["reply_users_count"] = users, len(users)
	}
	return out
}

// tombstone is what stays of a deleted first message while it has replies.
func tombstone(ts string) fields {
	return fields{
		"type": "message", "subtype": "tombstone", "user": "USLACKBOT", "hidden": true, "text": "This message was deleted.", "ts": ts, "thread_ts": ts,
	}
}

// find returns the message with a ts. s.mu must be held.
func (ch *channel) find(ts string) *msg {
	for _, m := range ch.messages {
		if m.str("ts") == ts && !m.deleted {
			return m
		}
	}
	return nil
}

func (ch *channel) kind() string {
	switch {
	case ch.im != "":
		return "im"
	case ch.private:
		return "group"
	}
	return "channel"
}

// channelOf finds a channel that the caller may see. To the app a person's id names their DM. s.mu must be held.
func (s *Server) channelOf(c *call, id string) (*channel, error) {
	for _, ch := range s.channels {
		dm := c.caller.bot && ch.im != "" && ch.im == id
		if ch.id != id && !dm && (ch.name == "" || ch.name != strings.TrimPrefix(id, "#")) {
			continue
		}
		if !ch.members[c.caller.id] {
			if c.caller.bot {
				return nil, refuse("not_in_channel")
			}
			return nil, refuse("channel_not_found")
		}
		return ch, nil
	}
	return nil, refuse("channel_not_found")
}

// shownTo is the channel as the caller sees it: a DM is with the other one.
func (ch *channel) shownTo(p person) fields {
	if ch.im != "" {
		other := ch.im
		if !p.bot {
			other = botUser
		}
		return fields{"id": ch.id, "is_im": true, "user": other, "is_channel": false, "is_archived": ch.archived}
	}
	return fields{
		"id": ch.id, "name": ch.name, "name_normalized": ch.name, "is_channel": true, "is_im": false, "is_private": ch.private, "is_member": ch.members[p.id],
		"is_archived": ch.archived, "is_general": ch.name == "general", "is_ext_shared": ch.name == "general", "num_members": len(ch.members),
	}
}

func (s *Server) list(c *call) (fields, error) {
	types := strings.Split(c.str("types"), ",")
	if c.str("types") == "" {
		types = []string{"public_channel"}
	}
	for i, t := range types {
		types[i] = strings.TrimSpace(t)
		if !slices.Contains([]string{"public_channel", "private_channel", "mpim", "im"}, types[i]) {
			return nil, refuse("invalid_types")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []*channel
	for _, ch := range s.channels {
		kind := map[string]string{"im": "im", "group": "private_channel", "channel": "public_channel"}[ch.kind()]
		if ch.members[c.caller.id] && slices.Contains(types, kind) && !(ch.archived && c.flag("exclude_archived")) {
			mine = append(mine, ch)
		}
	}
	mine, next, err := pages[*channel]{usual: 100, most: 1000, key: func(ch *channel) string { return ch.id }}.cut(c, mine)
	if err != nil {
		return nil, err
	}
	out := []fields{}
	for _, ch := range mine {
		out = append(out, ch.shownTo(c.caller))
	}
	return withCursor(fields{"channels": out}, next), nil
}

func (s *Server) info(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.visibleChannel(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	return fields{"channel": ch.shownTo(c.caller)}, nil
}

// visibleChannel finds a channel that the caller may know of: one that they are in, and for full members and apps any public one. s.mu must be held.
func (s *Server) visibleChannel(c *call, id string) (*channel, error) {
	ch, err := s.channelOf(c, id)
	if err == nil || c.caller.restricted || c.caller.away {
		return ch, err
	}
	for _, ch := range s.channels {
		if ch.id == id && ch.kind() == "channel" {
			return ch, nil
		}
	}
	return nil, refuse("channel_not_found")
}

func (s *Server) members(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	ids, next, err := pages[string]{usual: 100, most: 1000, key: func(id string) string { return id }}.cut(c, slices.Sorted(maps.Keys(ch.members)))
	if err != nil {
		return nil, err
	}
	return withCursor(fields{"members": ids}, next), nil
}

func (s *Server) openDM(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := c.str("channel"); id != "" {
		ch, err := s.channelOf(c, id)
		if err != nil {
			return nil, err
		}
		return fields{"channel": ch.shownTo(c.caller)}, nil
	}
	want := c.str("users")
	for _, ch := range s.channels {
		if ch.im != "" && ((c.caller.bot && ch.im == want) || (ch.im == c.caller.id && want == botUser)) {
			return fields{"channel": ch.shownTo(c.caller), "already_open": true, "no_op": true}, nil
		}
	}
	return nil, refuse("user_not_found")
}

// archive closes a channel, or opens it again: admins may.
func (s *Server) archive(closed bool) func(*call) (fields, error) {
	return func(c *call) (fields, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		ch, err := s.channelOf(c, c.str("channel"))
		switch {
		case err != nil:
			return nil, err
		case !c.caller.admin:
			return nil, refuse("restricted_action")
		case ch.im != "":
			return nil, refuse("method_not_supported_for_channel_type")
		case ch.archived == closed && closed:
			return nil, refuse("already_archived")
		case ch.archived == closed:
			return nil, refuse("not_archived")
		}
		ch.archived = closed
		kind := "channel_unarchive"
		if closed {
			kind = "channel_archive"
		}
		s.sendEvent(ch, fields{"type": kind, "channel": ch.id, "user": c.caller.id, "event_ts": s.stamp()})
		s.changed(ch.id)
		return nil, nil
	}
}

// convertToPrivate makes a channel a private one, which keeps its id: admins may.
func (s *Server) convertToPrivate(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel_id"))
	switch {
	case err != nil:
		return nil, err
	case !c.caller.admin || ch.im != "":
		return nil, refuse("restricted_action")
	}
	ch.private = true
	s.changed(ch.id)
	return nil, nil
}

// kick takes somebody out of a channel.
func (s *Server) kick(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	switch {
	case err != nil:
		return nil, err
	case !ch.members[c.str("user")] || ch.im != "":
		return nil, refuse("not_in_channel")
	case c.str("user") == c.caller.id:
		return nil, refuse("cant_kick_self")
	}
	delete(ch.members, c.str("user"))
	s.changed(ch.id)
	return nil, nil
}

// invite takes somebody into a channel.
func (s *Server) invite(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	if p, ok := userByID(c.str("users")); !ok || ch.members[p.id] {
		return nil, refuse("already_in_channel")
	}
	ch.members[c.str("users")] = true
	s.sendEvent(ch, fields{"type": "member_joined_channel", "user": c.str("users"), "channel": ch.id, "team": teamID, "inviter": c.caller.id, "event_ts": s.stamp()})
	s.changed(ch.id)
	return fields{"channel": ch.shownTo(c.caller)}, nil
}

func (s *Server) history(c *call) (fields, error) {
	in, err := span(c)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	all := []fields{}
	for _, m := range slices.Backward(ch.messages) {
		if !(m.root() || m.str("subtype") == "thread_broadcast") || !in(m.str("ts")) {
			continue
		}
		if shown := ch.standing(m, c.flag("include_all_metadata")); shown != nil {
			all = append(all, shown)
		}
	}
	out, next, err := pages[fields]{usual: 100, most: 999, key: tsOf, from: notAfter}.cut(c, all)
	if err != nil {
		return nil, err
	}
	return withCursor(fields{"messages": out, "has_more": next != ""}, next), nil
}

func (s *Server) replies(c *call) (fields, error) {
	in, err := span(c)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	ts, all := c.str("ts"), []fields{}
	for _, m := range ch.messages {
		// The first message comes whatever the span is.
		if !m.inThread(ts) || (m.str("ts") != ts && (m.deleted || !in(m.str("ts")))) {
			continue
		}
		if shown := ch.standing(m, c.flag("include_all_metadata")); shown != nil {
			all = append(all, shown)
		}
	}
	if len(all) == 0 {
		return nil, refuse("thread_not_found")
	}
	out, next, err := pages[fields]{usual: 1000, most: 1000, key: tsOf, from: notBefore}.cut(c, all)
	if err != nil {
		return nil, err
	}
	return withCursor(fields{"messages": out, "has_more": next != ""}, next), nil
}

// micros reads a ts: microseconds since 1970.
func micros(ts string) (int64, bool) {
	sec, frac, _ := strings.Cut(ts, ".")
	if len(frac) > 6 {
		return 0, false
	}
	n, err := strconv.ParseInt(sec+frac+strings.Repeat("0", 6-len(frac)), 10, 64)
	return n, err == nil && n >= 0
}

// span tells what lies between oldest and latest.
func span(c *call) (func(ts string) bool, error) {
	oldest, latest := int64(-1), int64(1)<<62
	var ok bool
	if v := c.str("oldest"); v != "" {
		if oldest, ok = micros(v); !ok {
			return nil, refuse("invalid_ts_oldest")
		}
	}
	if v := c.str("latest"); v != "" && v != "now" {
		if latest, ok = micros(v); !ok {
			return nil, refuse("invalid_ts_latest")
		}
	}
	inclusive := c.flag("inclusive")
	return func(ts string) bool {
		n, _ := micros(ts)
		return (n > oldest && n < latest) || (inclusive && (n == oldest || n == latest))
	}, nil
}

// pages says how a method gives its list page by page.
type pages[T any] struct {
	usual, most int
	key         func(T) string
	// from tells whether a page that the cursor's key begins begins here; nil: where the key is.
	from func(key, cursor string) bool
}

// cut returns the page that limit and cursor ask for. next is "" at the end.
func (p pages[T]) cut(c *call, all []T) (out []T, next string, err error) {
	limit := p.usual
	if v := c.str("limit"); v != "" && v != "0" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > p.most {
			return nil, "", refuse("invalid_limit")
		}
	}
	from := 0
	if v := c.str("cursor"); v != "" {
		raw, err := base64.StdEncoding.DecodeString(v)
		cursor, ok := strings.CutPrefix(string(raw), "next:")
		if err != nil || !ok {
			return nil, "", refuse("invalid_cursor")
		}
		begins := p.from
		if begins == nil {
			begins = func(key, cursor string) bool { return key == cursor }
		}
		if from = slices.IndexFunc(all, func(t T) bool { return begins(p.key(t), cursor) }); from < 0 {
			return nil, "", refuse("invalid_cursor")
		}
	}
	to := min(from+limit, len(all))
	if to < len(all) {
		next = base64.StdEncoding.EncodeToString([]byte("next:" + p.key(all[to])))
	}
	return all[from:to], next, nil
}

// Messages come and go between two pages, so that the cursor is a time and not a place.
func tsOf(m fields) string { ts, _ := m["ts"].(string); return ts }

func notAfter(key, cursor string) bool  { a, _ := micros(key); b, _ := micros(cursor); return a <= b }
func notBefore(key, cursor string) bool { return notAfter(cursor, key) }

func withCursor(out fields, next string) fields {
	out["response_metadata"] = fields{"next_cursor": next}
	return out
}
