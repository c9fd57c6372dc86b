package slack

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

func (s *Server) methods() map[string]func(*call) (fields, error) {
	return map[string]func(*call) (fields, error){
		"auth.test": s.authTest, "apps.connections.open": s.connectionsOpen, "team.info": teamInfo, "bots.info": botsInfo,
		"chat.postMessage": s.postMessage, "chat.update": s.update, "chat.delete": s.remove, "chat.postEphemeral": s.postEphemeral, "chat.getPermalink": s.permalink,
		"conversations.list": s.list, "conversations.info": s.info, "conversations.members": s.members, "conversations.open": s.openDM,
		"conversations.history": s.history, "conversations.replies": s.replies, "conversations.join": s.info,
		"reactions.add": s.react, "reactions.remove": s.unreact, "reactions.get": s.reactions,
		"users.info": usersInfo, "users.list": usersList, "usergroups.users.list": func(*call) (fields, error) { return fields{"users": []string{}}, nil },
		"files.getUploadURLExternal": s.uploadURL, "files.completeUploadExternal": s.completeUpload, "files.info": s.fileInfo,
		"views.open": s.viewOpen, "views.update": s.viewUpdate, "views.push": s.viewOpen, "views.publish": s.viewUpdate,
		"agents.sessions.setStatus": s.setStatus, "agents.sessions.rename": s.setStatus,
		"assistant.threads.setStatus": func(*call) (fields, error) { return nil, nil }, "assistant.threads.setTitle": func(*call) (fields, error) { return nil, nil },
		"assistant.threads.setSuggestedPrompts": func(*call) (fields, error) { return nil, nil },
	}
}

func (s *Server) authTest(c *call) (fields, error) {
	if c.app {
		return nil, refuse("not_allowed_token_type")
	}
	out := fields{"url": "http://" + c.r.Host + "/", "team": "Local", "team_id": c.caller.team, "user": c.caller.name, "user_id": c.caller.id}
	if c.caller.bot {
		out["bot_id"], out["app_id"] = botID, appID
	}
	return out, nil
}

func teamInfo(*call) (fields, error) {
	return fields{"team": fields{"id": teamID, "name": "Local", "domain": "local"}}, nil
}

func botsInfo(*call) (fields, error) {
	return fields{"bot": fields{"id": botID, "app_id": appID, "user_id": botUser, "name": "flaudebot"}}, nil
}

func (p person) shown() fields {
	return fields{
		"id": p.id, "name": p.name, "team_id": p.team, "real_name": p.real, "is_admin": p.admin, "is_owner": p.admin, "is_bot": p.bot,
		"is_restricted": p.restricted, "is_ultra_restricted": p.ultraRestricted, "is_stranger": p.away, "deleted": false, "tz": "Etc/UTC",
		"profile": fields{"display_name": p.name, "real_name": p.real},
	}
}

func usersInfo(c *call) (fields, error) {
	p, ok := userByID(c.str("user"))
	if !ok {
		return nil, refuse("user_not_found")
	}
	return fields{"user": p.shown()}, nil
}

func usersList(*call) (fields, error) {
	var all []fields
	for _, p := range people() {
		all = append(all, p.shown())
	}
	return fields{"members": all}, nil
}

// channelOf finds a channel that the caller may see. s.mu must be held.
func (s *Server) channelOf(c *call, id string) (*channel, error) {
	for _, ch := range s.channels {
		if ch.id != id && (ch.name == "" || ch.name != strings.TrimPrefix(id, "#")) {
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

func (ch *channel) shown() fields {
	if ch.im != "" {
		return fields{"id": ch.id, "is_im": true, "user": ch.im, "is_channel": false}
	}
	return fields{
		"id": ch.id, "name": ch.name, "is_channel": true, "is_im": false, "is_private": false, "is_member": true, "is_archived": ch.archived,
		"is_ext_shared": ch.name == "general", "num_members": len(ch.members),
	}
}

func (s *Server) list(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []fields{}
	types := c.str("types")
	for _, ch := range s.channels {
		if ch.members[c.caller.id] && (ch.im == "" || strings.Contains(types, "im")) {
			shown := ch.shown()
			if ch.im != "" && !c.caller.bot {
				shown["user"] = botUser
			}
			out = append(out, shown)
		}
	}
	return fields{"channels": out, "response_metadata": fields{"next_cursor": ""}}, nil
}

func (s *Server) info(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	return fields{"channel": ch.shown()}, nil
}

func (s *Server) members(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for id := range ch.members {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return fields{"members": ids}, nil
}

func (s *Server) openDM(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := c.str("users")
	for _, ch := range s.channels {
		if ch.im != "" && ((c.caller.bot && ch.im == want) || (ch.im == c.caller.id && want == botUser)) {
			return fields{"channel": ch.shown()}, nil
		}
	}
	return nil, refuse("users_not_found")
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

func (m *msg) inThread(ts string) bool { return m.str("thread_ts") == ts || m.str("ts") == ts }

// shown is the message as a method returns it: metadata only where it was asked for.
func (m *msg) shown(withMetadata bool) fields {
	out := fields{}
	maps.Copy(out, m.fields)
	if m.metadata != nil {
		meta := fields{"event_type": m.metadata["event_type"]}
		if withMetadata {
			meta["event_payload"] = m.metadata["event_payload"]
		}
		out["metadata"] = meta
	}
	return out
}

func (s *Server) history(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	out := []fields{}
	for _, m := range slices.Backward(ch.messages) {
		if m.deleted || (m.str("thread_ts") != "" && m.str("thread_ts") != m.str("ts")) || !within(m.str("ts"), c) {
			continue
		}
		shown := m.shown(c.flag("include_all_metadata"))
		if n := ch.replyCount(m.str("ts")); n > 0 {
			shown["reply_count"], shown["thread_ts"] = n, m.str("ts")
		}
		out = append(out, shown)
	}
	return fields{"messages": out, "has_more": false}, nil
}

func (ch *channel) replyCount(ts string) int {
	n := 0
	for _, m := range ch.messages {
		if m.str("thread_ts") == ts && m.str("ts") != ts && !m.deleted {
			n++
		}
	}
	return n
}

func within(ts string, c *call) bool {
	oldest, latest := c.str("oldest"), c.str("latest")
	inclusive := c.flag("inclusive")
	return (oldest == "" || ts > oldest || (inclusive && ts == oldest)) && (latest == "" || ts < latest || (inclusive && ts == latest))
}

func (s *Server) replies(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	ts, out := c.str("ts"), []fields{}
	for _, m := range ch.messages {
		if !m.deleted && m.inThread(ts) && (m.str("ts") == ts || within(m.str("ts"), c)) {
			shown := m.shown(c.flag("include_all_metadata"))
			if n := ch.replyCount(ts); n > 0 && m.str("ts") == ts {
				shown["reply_count"], shown["thread_ts"] = n, ts
			}
			out = append(out, shown)
		}
	}
	if len(out) == 0 {
		return nil, refuse("thread_not_found")
	}
	return fields{"messages": out, "has_more": false, "response_metadata": fields{"next_cursor": ""}}, nil
}

// maxText is the longest text that chat.postMessage keeps; chat.update refuses above 4,000.
const maxText = 40000

func (s *Server) postMessage(c *call) (fields, error) {
	body, meta, err := content(c, maxText)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	if ch.archived {
		return nil, refuse("is_archived")
	}
	thread := c.str("thread_ts")
	if thread != "" && ch.find(thread) == nil {
		thread = "" // Slack posts it beside the thread whose root is gone
	}
	m := s.post(ch, c.caller, thread, body, meta)
	return fields{"channel": ch.id, "ts": m.str("ts"), "message": m.shown(true)}, nil
}

// content checks and collects text, blocks and metadata of a message.
func content(c *call, most int) (body fields, meta map[string]any, err error) {
	text := c.str("text")
	blocks, _ := c.value("blocks").([]any)
	if text == "" && len(blocks) == 0 {
		return nil, nil, refuse("no_text")
	}
	if utf8.RuneCountInString(text) > most {
		if most < maxText {
			return nil, nil, refuse("msg_too_long")
		}
		text = string([]rune(text)[:most])
	}
	if problems := checkBlocks(blocks, false); len(problems) > 0 {
		return nil, nil, refuse(problems[0].code, texts(problems)...)
	}
	body = fields{"text": text}
	if len(blocks) > 0 {
		for i, b := range blocks {
			if b, ok := b.(map[string]any); ok && b["block_id"] == nil {
				b["block_id"] = fmt.Sprintf("b%d", i)
			}
		}
		body["blocks"] = blocks
	}
	if raw, ok := c.value("metadata").(map[string]any); ok && metadataFits(raw) {
		meta = raw
	}
	return body, meta, nil
}

// post adds a message and tells the app. s.mu must be held.
func (s *Server) post(ch *channel, by person, thread string, body fields, meta map[string]any) *msg {
	m := &msg{fields: fields{"type": "message", "user": by.id, "team": by.team, "ts": s.stamp()}, metadata: meta}
	maps.Copy(m.fields, body)
	if thread != "" {
		m.fields["thread_ts"] = thread
	}
	if by.bot {
		m.fields["bot_id"], m.fields["app_id"] = botID, appID
	} else {
		m.fields["client_msg_id"] = newUUID()
		if m.fields["blocks"] == nil {
			m.fields["blocks"] = []any{typed(m.str("text"))}
		}
	}
	ch.messages = append(ch.messages, m)
	s.announce(ch, m, by)
	s.changed(ch.id)
	return m
}

// typed is the rich text that Slack makes of what is typed: enough of it for a bot that reads blocks.
func typed(text string) map[string]any {
	var parts []any
	for text != "" {
		before, rest, ok := strings.Cut(text, "<@")
		id, after, closed := strings.Cut(rest, ">")
		if !ok || !closed {
			parts = append(parts, fields{"type": "text", "text": text})
			break
		}
		if before != "" {
			parts = append(parts, fields{"type": "text", "text": before})
		}
		parts = append(parts, fields{"type": "user", "user_id": id})
		text = after
	}
	return fields{"type": "rich_text", "block_id": "typed", "elements": []any{fields{"type": "rich_text_section", "elements": parts}}}
}

// announce sends the events of a new message: message, and app_mention besides where the app is mentioned by a person
// in a channel. s.mu must be held.
func (s *Server) announce(ch *channel, m *msg, by person) {
	if !ch.members[botUser] {
		return
	}
	event := m.shown(true)
	event["channel"], event["event_ts"], event["channel_type"] = ch.id, m.str("ts"), "channel"
	if ch.im != "" {
		event["channel_type"] = "im"
	}
	if by.away {
		event["user_team"], event["source_team"] = by.team, by.team
	}
	s.sendEvent(ch, event)
	if ch.im == "" && !by.bot && strings.Contains(m.str("text"), "<@"+botUser+">") {
		mention := fields{}
		maps.Copy(mention, event)
		mention["type"] = "app_mention"
		delete(mention, "channel_type")
		delete(mention, "subtype")
		s.sendEvent(ch, mention)
	}
}

func (s *Server) update(c *call) (fields, error) {
	most := 4000
	if c.value("blocks") != nil {
		most = maxText
	}
	body, meta, err := content(c, most)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, err := s.own(c, "cant_update_message")
	if err != nil {
		return nil, err
	}
	before := m.shown(true)
	hadBlocks := m.fields["blocks"] != nil
	delete(m.fields, "blocks")
	maps.Copy(m.fields, body)
	if meta != nil {
		m.metadata = meta
	}
	if !c.caller.bot {
		m.fields["blocks"] = []any{typed(m.str("text"))}
	}
	if !c.caller.bot || (!hadBlocks && body["blocks"] == nil) {
		m.fields["edited"] = fields{"user": c.caller.id, "ts": s.stamp()}
	}
	s.sendEvent(ch, fields{
		"type": "message", "subtype": "message_changed", "hidden": true, "channel": ch.id, "channel_type": ch.kind(), "ts": s.stamp(), "event_ts": s.stamp(),
		"message": m.shown(true), "previous_message": before,
	})
	s.changed(ch.id)
	return fields{"channel": ch.id, "ts": m.str("ts"), "text": m.str("text"), "message": m.shown(false)}, nil
}

func (ch *channel) kind() string {
	if ch.im != "" {
		return "im"
	}
	return "channel"
}

// own finds the caller's own message. s.mu must be held.
func (s *Server) own(c *call, refusal string) (*channel, *msg, error) {
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, nil, err
	}
	m := ch.find(c.str("ts"))
	if m == nil {
		return nil, nil, refuse("message_not_found")
	}
	if m.str("user") != c.caller.id {
		return nil, nil, refuse(refusal)
	}
	return ch, m, nil
}

func (s *Server) remove(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, err := s.own(c, "cant_delete_message")
	if err != nil {
		return nil, err
	}
	m.deleted = true
	s.sendEvent(ch, fields{
		"type": "message", "subtype": "message_deleted", "hidden": true, "channel": ch.id, "channel_type": ch.kind(), "ts": s.stamp(), "event_ts": s.stamp(),
		"deleted_ts": m.str("ts"), "previous_message": m.shown(true),
	})
	s.changed(ch.id)
	return fields{"channel": ch.id, "ts": m.str("ts")}, nil
}

func (s *Server) postEphemeral(c *call) (fields, error) {
	body, _, err := content(c, maxText)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	if !ch.members[c.str("user")] {
		return nil, refuse("user_not_in_channel")
	}
	ts := s.whisper(c.str("user"), ch.id, c.str("thread_ts"), body)
	return fields{"message_ts": ts}, nil
}

// whisper shows a message to one person. s.mu must be held.
func (s *Server) whisper(user, channel, thread string, body fields) string {
	f := fields{"type": "message", "user": botUser, "bot_id": botID, "ts": s.stamp(), "is_ephemeral": true}
	maps.Copy(f, body)
	if thread != "" {
		f["thread_ts"] = thread
	}
	s.ephemeral = append(s.ephemeral, ephemeral{user: user, channel: channel, fields: f})
	s.changed(channel)
	return f["ts"].(string)
}

func (s *Server) permalink(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	m := ch.find(c.str("message_ts"))
	if m == nil {
		return nil, refuse("message_not_found")
	}
	link := "http://" + c.r.Host + "/archives/" + ch.id + "/p" + strings.Replace(m.str("ts"), ".", "", 1)
	if t := m.str("thread_ts"); t != "" {
		link += "?thread_ts=" + url.QueryEscape(t) + "&cid=" + ch.id
	}
	return fields{"channel": ch.id, "permalink": link}, nil
}

// reacted finds the message of a reaction and the index of it. s.mu must be held.
func (s *Server) reacted(c *call) (ch *channel, m *msg, list []any, at int, err error) {
	if ch, err = s.channelOf(c, c.str("channel")); err != nil {
		return nil, nil, nil, 0, err
	}
	if m = ch.find(c.str("timestamp")); m == nil {
		return nil, nil, nil, 0, refuse("message_not_found")
	}
	list, _ = m.fields["reactions"].([]any)
	at = slices.IndexFunc(list, func(r any) bool { return r.(fields)["name"] == c.str("name") })
	return ch, m, list, at, nil
}

func (s *Server) react(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, list, at, err := s.reacted(c)
	if err != nil {
		return nil, err
	}
	if c.str("name") == "" {
		return nil, refuse("invalid_name")
	}
	if at < 0 {
		list = append(list, fields{"name": c.str("name"), "users": []string{}, "count": 0})
		at = len(list) - 1
	}
	r := list[at].(fields)
	users := r["users"].([]string)
	if slices.Contains(users, c.caller.id) {
		return nil, refuse("already_reacted")
	}
	users = append(slices.Clone(users), c.caller.id)
	list = slices.Clone(list)
	list[at] = fields{"name": c.str("name"), "users": users, "count": len(users)}
	m.fields["reactions"] = list
	s.sendEvent(ch, fields{
		"type": "reaction_added", "user": c.caller.id, "reaction": c.str("name"), "item_user": m.str("user"), "event_ts": s.stamp(),
		"item": fields{"type": "message", "channel": ch.id, "ts": m.str("ts")},
	})
	s.changed(ch.id)
	return nil, nil
}

func (s *Server) unreact(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, list, at, err := s.reacted(c)
	if err != nil {
		return nil, err
	}
	if at < 0 || !slices.Contains(list[at].(fields)["users"].([]string), c.caller.id) {
		return nil, refuse("no_reaction")
	}
	users := slices.DeleteFunc(slices.Clone(list[at].(fields)["users"].([]string)), func(u string) bool { return u == c.caller.id })
	list = slices.Clone(list)
	if len(users) == 0 {
		list = slices.Delete(list, at, at+1)
	} else {
		list[at] = fields{"name": c.str("name"), "users": users, "count": len(users)}
	}
	m.fields["reactions"] = list
	s.changed(ch.id)
	return nil, nil
}

func (s *Server) reactions(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, _, _, err := s.reacted(c)
	if err != nil {
		return nil, err
	}
	return fields{"type": "message", "channel": ch.id, "message": m.shown(false)}, nil
}

// setStatus keeps Slack's own status of an agent's session, whose processing shows a Stop button.
func (s *Server) setStatus(c *call) (fields, error) {
	status := c.str("status")
	if status != "" && !slices.Contains([]string{"active", "processing", "suspended", "closed"}, status) {
		return nil, refuse("invalid_arguments")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if status != "" {
		s.sessions[c.str("channel_id")+":"+c.str("thread_ts")] = status
		s.changed(c.str("channel_id"))
	}
	return nil, nil
}
