package slack

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Longest texts, in characters: chat.postMessage cuts, chat.update refuses.
const (
	maxText       = 40000
	maxUpdateText = 4000
)

// content is what a message is to hold, after all checks.
type content struct {
	body     fields
	meta     map[string]any
	dropMeta bool     // it was {}: none any more
	warnings []string // what Slack says beside ok
}

// content checks and collects text, blocks and metadata of a message.
func (c *call) content() (*content, error) {
	out := &content{body: fields{}}
	text := c.str("text")
	blocks, err := c.blocks()
	if err != nil {
		return nil, err
	}
	if md := c.str("markdown_text"); md != "" {
		if text != "" || len(blocks) > 0 {
			return nil, refuse("markdown_text_conflict")
		}
		if utf8.RuneCountInString(md) > maxMarkdown {
			return nil, refuse("msg_too_long")
		}
		text, blocks = md, []any{fields{"type": "markdown", "text": md}}
	}
	attachments, err := c.attachments()
	if err != nil {
		return nil, err
	}
	if text == "" && len(blocks) == 0 && len(attachments) == 0 {
		return nil, refuse("no_text")
	}
	if utf8.RuneCountInString(text) > maxText {
		text = string([]rune(text)[:maxText])
		out.warnings = append(out.warnings, "message_truncated")
	}
	if problems := checkBlocks(blocks, message); len(problems) > 0 {
		return nil, refuse(problems[0].code, texts(problems)...)
	}
	out.body["text"] = text
	if len(blocks) > 0 {
		nameBlocks(blocks)
		out.body["blocks"] = blocks
	}
	if len(attachments) > 0 {
		out.body["attachments"] = attachments
	}
	if raw, ok := c.value("metadata").(map[string]any); ok {
		warning := metadataWarning(raw)
		switch {
		case len(raw) == 0:
			out.dropMeta = true
		case warning != "":
			out.warnings = append(out.warnings, warning)
		default:
			out.meta = raw
		}
	}
	return out, nil
}

// blocks decodes the argument of that name.
func (c *call) blocks() ([]any, error) {
	raw := c.args["blocks"]
	if raw == nil || raw == "" {
		return nil, nil
	}
	blocks, ok := c.value("blocks").([]any)
	if !ok {
		return nil, refuse("invalid_blocks_format")
	}
	return blocks, nil
}

// maxAttachments is how many attachments a message takes.
const maxAttachments = 100

// attachments decodes the argument of that name: the old form of blocks, which apps use still. What marks a forwarded message is Slack's alone.
func (c *call) attachments() ([]any, error) {
	raw := c.args["attachments"]
	if raw == nil || raw == "" {
		return nil, nil
	}
	list, ok := c.value("attachments").([]any)
	if !ok {
		return nil, refuse("invalid_attachments")
	}
	if len(list) > maxAttachments {
		return nil, refuse("too_many_attachments")
	}
	for i, a := range list {
		a, ok := a.(map[string]any)
		if !ok {
			return nil, refuse("invalid_attachments")
		}
		blocks, _ := a["blocks"].([]any)
		if problems := checkBlocks(blocks, message); len(problems) > 0 {
			return nil, refuse(problems[0].code, texts(problems)...)
		}
		for _, name := range []string{"is_share", "is_msg_unfurl", "message_blocks"} {
			delete(a, name)
		}
		a["id"] = i + 1
	}
	return list, nil
}

// nameBlocks gives blocks and what can be pressed in them the ids that Slack makes for those that have none.
func nameBlocks(blocks []any) {
	for i, b := range blocks {
		b, ok := b.(map[string]any)
		if !ok {
			continue
		}
		if id, _ := b["block_id"].(string); id == "" || b["type"] == "markdown" {
			b["block_id"] = fmt.Sprintf("b%d", i)
		}
		elements, _ := b["elements"].([]any)
		for j, e := range append(slices.Clone(elements), b["accessory"]) {
			e, ok := e.(map[string]any)
			if id, _ := e["action_id"].(string); ok && e["type"] == "button" && id == "" {
				e["action_id"] = fmt.Sprintf("a%d-%d", i, j)
			}
		}
	}
}

// warn adds warnings to an answer.
func (out *content) warn(answer fields) fields {
	if len(out.warnings) > 0 {
		answer["warning"] = strings.Join(out.warnings, ",")
		answer["response_metadata"] = fields{"warnings": out.warnings}
	}
	return answer
}

func (s *Server) postMessage(c *call) (fields, error) {
	what, err := c.content()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.writable(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	thread := ch.threadOf(c.str("thread_ts"))
	if thread != "" && c.flag("reply_broadcast") {
		what.body["subtype"], what.body["root"] = "thread_broadcast", ch.find(thread).shown(false)
	}
	m := s.post(ch, c.caller, thread, what.body, what.meta)
	return what.warn(fields{"channel": ch.id, "ts": m.str("ts"), "message": m.shown(true)}), nil
}

// writable finds a channel that the caller may write in. s.mu must be held.
func (s *Server) writable(c *call, id string) (*channel, error) {
	ch, err := s.channelOf(c, id)
	if err == nil && ch.archived {
		err = refuse("is_archived")
	}
	return ch, err
}

// threadOf returns the thread that a reply to ts goes to: that of the message, and none where it is gone, since Slack then
// posts beside the thread.
func (ch *channel) threadOf(ts string) string {
	if ts == "" {
		return ""
	}
	m := ch.find(ts)
	if m == nil {
		return ""
	}
	if m.root() {
		return ts
	}
	return ch.threadOf(m.str("thread_ts"))
}

// post adds a message and tells the app. s.mu must be held.
func (s *Server) post(ch *channel, by person, thread string, body fields, meta map[string]any) *msg {
	m := &msg{fields: fields{"type": "message", "user": by.id, "team": by.team, "ts": s.stamp()}, metadata: meta}
	maps.Copy(m.fields, body)
	if thread != "" {
		m.fields["thread_ts"] = thread
		if root := ch.find(thread); root != nil {
			m.fields["parent_user_id"] = root.str("user")
		}
	}
	if by.bot {
		m.fields["bot_id"], m.fields["app_id"] = by.botID, by.appID
		m.fields["bot_profile"] = fields{"id": by.botID, "app_id": by.appID, "name": by.real, "team_id": by.team, "deleted": false}
	} else {
		m.fields["client_msg_id"] = newUUID()
		if m.fields["blocks"] == nil && m.str("text") != "" {
			m.fields["blocks"] = []any{typed(m.str("text"))}
		}
	}
	ch.messages = append(ch.messages, m)
	s.announce(ch, m, by)
	s.changed(ch.id)
	return m
}

// special is what stands between < and >.
var special = regexp.MustCompile(`<([^<>\n]+)>`)

// typed is the rich text that Slack makes of what is typed: enough of it for an app that reads blocks.
func typed(text string) map[string]any {
	parts := []any{}
	plain := func(s string) {
		if s != "" {
			parts = append(parts, fields{"type": "text", "text": unescape(s)})
		}
	}
	at := 0
	for _, m := range special.FindAllStringSubmatchIndex(text, -1) {
		plain(text[at:m[0]])
		at = m[1]
		what, label, _ := strings.Cut(text[m[2]:m[3]], "|")
		switch what[0] {
		case '@':
			parts = append(parts, fields{"type": "user", "user_id": what[1:]})
		case '#':
			parts = append(parts, fields{"type": "channel", "channel_id": what[1:]})
		case '!':
			parts = append(parts, fields{"type": "broadcast", "range": what[1:]})
		default:
			link := fields{"type": "link", "url": unescape(what)}
			if label != "" {
				link["text"] = unescape(label)
			}
			parts = append(parts, link)
		}
	}
	plain(text[at:])
	return fields{"type": "rich_text", "block_id": "typed", "elements": []any{fields{"type": "rich_text_section", "elements": parts}}}
}

// unescape undoes the three entities that Slack's text has.
func unescape(s string) string {
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(s)
}

// announce sends the events of a new message: message, and app_mention besides where a person mentions the app in a
// channel. s.mu must be held.
func (s *Server) announce(ch *channel, m *msg, by person) {
	event := m.shown(true)
	event["channel"], event["event_ts"], event["channel_type"] = ch.id, m.str("ts"), ch.kind()
	if by.away {
		event["user_team"], event["source_team"] = by.team, by.team
	}
	s.sendEvent(ch, event)
	s.announceMention(ch, event, by)
}

func (s *Server) announceMention(ch *channel, event fields, by person) {
	text, _ := event["text"].(string)
	if ch.im != "" || by.bot || !(strings.Contains(text, "<@"+botUser+">") || strings.Contains(text, "<@"+botUser+"|")) {
		return
	}
	mention := maps.Clone(event)
	mention["type"] = "app_mention"
	delete(mention, "channel_type")
	delete(mention, "subtype")
	s.sendEvent(ch, mention)
}

func (s *Server) update(c *call) (fields, error) {
	if utf8.RuneCountInString(c.str("text")) > maxUpdateText {
		return nil, refuse("msg_too_long")
	}
	what, err := c.content()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, err := s.messageOf(c)
	switch {
	case err != nil:
		return nil, err
	case ch.archived:
		return nil, refuse("is_archived")
	case m.str("user") != c.caller.id:
		return nil, refuse("cant_update_message")
	}
	before := s.rewrite(m, c.caller, what.body)
	switch {
	case what.dropMeta:
		m.metadata = nil
	case what.meta != nil:
		m.metadata = what.meta
	}
	s.changedMessage(ch, m, before)
	if !c.caller.bot && before["text"] != m.fields["text"] {
		event := m.shown(true)
		event["channel"], event["event_ts"] = ch.id, s.stamp()
		s.announceMention(ch, event, c.caller)
	}
	return what.warn(fields{"channel": ch.id, "ts": m.str("ts"), "text": m.str("text"), "message": m.shown(false)}), nil
}

// rewrite gives a message a new body and returns it as it was. An edit with blocks leaves no "(edited)". s.mu must be held.
func (s *Server) rewrite(m *msg, by person, body fields) (before fields) {
	before = m.shown(true)
	delete(m.fields, "blocks")
	maps.Copy(m.fields, body)
	if body["blocks"] == nil {
		if !by.bot {
			m.fields["blocks"] = []any{typed(m.str("text"))}
		}
		m.fields["edited"] = fields{"user": by.id, "ts": s.stamp()}
	}
	return before
}

// changedMessage sends the event of an edit. s.mu must be held.
func (s *Server) changedMessage(ch *channel, m *msg, before fields) {
	s.tellChanged(ch, m.shown(true), before)
}

// tellChanged sends the event of a message that reads otherwise now. s.mu must be held.
func (s *Server) tellChanged(ch *channel, now, before fields) {
	ts := s.stamp()
	s.sendEvent(ch, fields{
		"type": "message", "subtype": "message_changed", "hidden": true, "channel": ch.id, "channel_type": ch.kind(), "ts": ts, "event_ts": ts,
		"message": now, "previous_message": before,
	})
	s.changed(ch.id)
}

// messageOf finds the message of channel and ts. s.mu must be held.
func (s *Server) messageOf(c *call) (*channel, *msg, error) {
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, nil, err
	}
	m := ch.find(c.str("ts"))
	if m == nil {
		return nil, nil, refuse("message_not_found")
	}
	return ch, m, nil
}

// remove deletes a message: one's own, and an admin's choice of any.
func (s *Server) remove(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, err := s.messageOf(c)
	if err != nil {
		return nil, err
	}
	if m.str("user") != c.caller.id && !c.caller.admin {
		return nil, refuse("cant_delete_message")
	}
	s.deleteMessage(ch, m)
	return fields{"channel": ch.id, "ts": m.str("ts")}, nil
}

// deleteMessage takes a message away and tells the app: of a first message that has replies as of an edit, since a tombstone stays of it until
// the last of these goes. s.mu must be held.
func (s *Server) deleteMessage(ch *channel, m *msg) {
	before := ch.standing(m, true)
	m.deleted = true
	if left := ch.standing(m, false); left != nil {
		s.tellChanged(ch, left, before)
		return
	}
	s.tellDeleted(ch, before)
	for _, root := range ch.messages {
		if root.deleted && root != m && root.str("ts") == m.str("thread_ts") && ch.standing(root, false) == nil {
			s.tellDeleted(ch, tombstone(root.str("ts")))
		}
	}
}

// tellDeleted sends the event of a message that is gone. s.mu must be held.
func (s *Server) tellDeleted(ch *channel, before fields) {
	ts := s.stamp()
	s.sendEvent(ch, fields{
		"type": "message", "subtype": "message_deleted", "hidden": true, "channel": ch.id, "channel_type": ch.kind(), "ts": ts, "event_ts": ts,
		"deleted_ts": before["ts"], "previous_message": before,
	})
	s.changed(ch.id)
}

func (s *Server) postEphemeral(c *call) (fields, error) {
	what, err := c.content()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.writable(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	if !ch.members[c.str("user")] {
		return nil, refuse("user_not_in_channel")
	}
	return fields{"message_ts": s.whisper(c.str("user"), ch.id, c.str("thread_ts"), what.body)}, nil
}

// ephemeral is a message that one person sees.
type ephemeral struct {
	user, channel string
	fields        fields
}

// whisper shows a message to one person. s.mu must be held.
func (s *Server) whisper(user, channel, thread string, body fields) (ts string) {
	ts = s.stamp()
	f := fields{"type": "message", "user": botUser, "bot_id": botID, "ts": ts, "is_ephemeral": true}
	maps.Copy(f, body)
	if thread != "" {
		f["thread_ts"] = thread
	}
	s.ephemeral = append(s.ephemeral, ephemeral{user: user, channel: channel, fields: f})
	s.changed(channel)
	return ts
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
	return fields{"channel": ch.id, "permalink": linkTo(c.r.Host, ch, m)}, nil
}

// reactionName is what may name an emoji.
var reactionName = regexp.MustCompile(`^[a-z0-9_+'-]{1,100}(::skin-tone-[2-6])?$`)

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
	return ch, m, slices.Clone(list), at, nil
}

func (s *Server) react(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !reactionName.MatchString(c.str("name")) {
		return nil, refuse("invalid_name")
	}
	ch, m, list, at, err := s.reacted(c)
	if err != nil {
		return nil, err
	}
	if at < 0 {
		list = append(list, fields{"name": c.str("name"), "users": []string{}, "count": 0})
		at = len(list) - 1
	}
	users := list[at].(fields)["users"].([]string)
	if slices.Contains(users, c.caller.id) {
		return nil, refuse("already_reacted")
	}
	users = append(slices.Clone(users), c.caller.id)
	list[at] = fields{"name": c.str("name"), "users": users, "count": len(users)}
	m.fields["reactions"] = list
	s.sendReaction(c, "reaction_added", ch, m)
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
	if len(users) == 0 {
		list = slices.Delete(list, at, at+1)
	} else {
		list[at] = fields{"name": c.str("name"), "users": users, "count": len(users)}
	}
	m.fields["reactions"] = list
	if len(list) == 0 {
		delete(m.fields, "reactions")
	}
	s.sendReaction(c, "reaction_removed", ch, m)
	return nil, nil
}

// sendReaction sends the event of a reaction. s.mu must be held.
func (s *Server) sendReaction(c *call, kind string, ch *channel, m *msg) {
	s.sendEvent(ch, fields{
		"type": kind, "user": c.caller.id, "reaction": c.str("name"), "item_user": m.str("user"), "event_ts": s.stamp(),
		"item": fields{"type": "message", "channel": ch.id, "ts": m.str("ts")},
	})
	s.changed(ch.id)
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
