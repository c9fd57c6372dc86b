package slack

import (
	"maps"
	"net/http"
	"slices"
)

// local is what people do and Slack has no method for. It answers 200 always.
func (s *Server) local(w http.ResponseWriter, r *http.Request) {
	do, known := map[string]func(*call) (fields, error){
		"command": s.command, "click": s.click, "shortcut": s.shortcut, "submit": s.submit, "seen": s.seen, "stop": s.nativeStop, "share": s.share, "open": s.openTab,
		"socket": s.socket, "trouble": s.makeTrouble, "deliveries": s.deliveries,
	}[r.PathValue("method")]
	c, err := open(r, true)
	var out fields
	switch {
	case err != nil:
	case !known:
		err = refuse("unknown_method")
	case c.app || c.caller.bot:
		err = refuse("not_allowed_token_type")
	default:
		out, err = do(c)
	}
	reply(w, out, err)
}

// seen is all that a person sees of a channel, or of a thread.
func (s *Server) seen(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	thread := c.str("thread_ts")
	messages, private, open := []fields{}, []fields{}, []fields{}
	for _, m := range ch.messages {
		if thread != "" && !m.inThread(thread) || thread == "" && !m.root() && m.str("subtype") != "thread_broadcast" {
			continue
		}
		if shown := ch.standing(m, true); shown != nil {
			messages = append(messages, shown)
		}
	}
	for _, e := range s.ephemeral {
		in, _ := e.fields["thread_ts"].(string)
		if e.user == c.caller.id && e.channel == ch.id && in == thread {
			private = append(private, maps.Clone(e.fields))
		}
	}
	for _, v := range s.views {
		if v.user == c.caller.id {
			open = append(open, v.shown())
		}
	}
	out := fields{"messages": messages, "ephemeral": private, "views": open, "status": s.sessions[ch.id+":"+thread], "title": s.titles[ch.id+":"+thread]}
	if thread == "" && len(ch.suggested.prompts) > 0 {
		out["suggested"] = fields{"title": ch.suggested.title, "prompts": ch.suggested.prompts}
	}
	return out, nil
}

// visible is a message as the person sees it. s.mu must be held.
func (s *Server) visible(user string, ch *channel, ts string) (shown fields, private bool) {
	if m := ch.find(ts); m != nil {
		return m.shown(true), false
	}
	at := slices.IndexFunc(s.ephemeral, func(e ephemeral) bool { return e.user == user && e.channel == ch.id && e.fields["ts"] == ts })
	if at < 0 {
		return nil, false
	}
	return maps.Clone(s.ephemeral[at].fields), true
}
