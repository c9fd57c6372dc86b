package slack

import "strings"

// share forwards a message: what a person's client does, for which Slack has no method. The copy is an attachment of a new message.
func (s *Server) share(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, m, err := s.messageOf(c)
	if err != nil {
		return nil, err
	}
	to, err := s.writable(c, c.str("to"))
	if err != nil {
		return nil, err
	}
	author, _ := userByID(m.str("user"))
	copied := fields{
		"id": 1, "is_share": true, "is_msg_unfurl": true, "ts": m.str("ts"), "author_id": author.id, "author_name": author.real, "author_subname": author.name,
		"channel_id": from.id, "channel_team": teamID, "text": m.str("text"), "fallback": "[" + m.str("ts") + "] " + author.name + ": " + m.str("text"),
		"from_url": linkTo(c.r.Host, from, m), "mrkdwn_in": []string{"text"}, "footer": "Slack conversation",
		"message_blocks": []any{fields{"team": teamID, "channel": from.id, "ts": m.str("ts"), "message": fields{"blocks": m.fields["blocks"]}}},
	}
	if from.name != "" && !from.private {
		copied["channel_name"], copied["footer"] = from.name, "Posted in #"+from.name
	}
	if files := m.fields["files"]; files != nil {
		copied["files"] = files
	}
	body := fields{"text": c.str("text"), "attachments": []any{copied}}
	posted := s.post(to, c.caller, to.threadOf(c.str("thread_ts")), body, nil)
	return fields{"channel": to.id, "ts": posted.str("ts")}, nil
}

// linkTo is the address of a message.
func linkTo(host string, ch *channel, m *msg) string {
	link := "http://" + host + "/archives/" + ch.id + "/p" + strings.Replace(m.str("ts"), ".", "", 1)
	if t := m.str("thread_ts"); t != "" {
		link += "?thread_ts=" + t + "&cid=" + ch.id
	}
	return link
}
