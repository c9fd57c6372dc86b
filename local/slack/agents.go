package slack

import (
	"slices"
	"unicode/utf8"
)

// setStatus keeps Slack's own status of an agent's session, whose processing shows a Stop button in the thread.
func (s *Server) setStatus(c *call) (fields, error) {
	if !slices.Contains([]string{"active", "processing", "suspended", "closed"}, c.str("status")) || utf8.RuneCountInString(c.str("title")) > maxTitle {
		return nil, refuse("invalid_arguments")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.threadOfSession(c)
	if err != nil {
		return nil, err
	}
	key := ch.id + ":" + c.str("thread_ts")
	if _, has := s.sessions[key]; !has {
		s.titles[key] = c.str("title")
	}
	s.sessions[key] = c.str("status")
	s.changed(ch.id)
	return nil, nil
}

// maxTitle is the longest title of a session, in characters.
const maxTitle = 200

// rename names a session.
func (s *Server) rename(c *call) (fields, error) {
	if n := utf8.RuneCountInString(c.str("title")); n < 1 || n > maxTitle {
		return nil, refuse("invalid_arguments")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.threadOfSession(c)
	if err != nil {
		return nil, err
	}
	s.titles[ch.id+":"+c.str("thread_ts")] = c.str("title")
	s.changed(ch.id)
	return fields{"title": c.str("title")}, nil
}

// maxPrompts is how many prompts may be suggested.
const maxPrompts = 4

// suggestion is the prompts that somebody finds in their direct messages with the app.
type suggestion struct {
	title   string
	prompts []any
}

// suggestPrompts keeps the prompts of a DM. For an agent, which this app is, Slack does nothing where a thread is named, and does not say so.
func (s *Server) suggestPrompts(c *call) (fields, error) {
	list, ok := c.value("prompts").([]any)
	if !ok || len(list) == 0 || len(list) > maxPrompts {
		return nil, refuse("invalid_arguments", "[ERROR] must have between 1 and 4 items [json-pointer:/prompts]")
	}
	for _, p := range list {
		p, _ := p.(map[string]any)
		title, _ := p["title"].(string)
		words, _ := p["message"].(string)
		if title == "" || words == "" {
			return nil, refuse("invalid_arguments", "[ERROR] missing required field [json-pointer:/prompts]")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel_id"))
	switch {
	case err != nil:
		return nil, err
	case ch.im == "":
		return nil, refuse("channel_not_found")
	case c.str("thread_ts") == "":
		ch.suggested = suggestion{c.str("title"), list}
		s.changed(ch.id)
	}
	return nil, nil
}

// openTab is somebody looking at their direct messages with the app.
func (s *Server) openTab(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	switch {
	case err != nil:
		return nil, err
	case ch.im == "":
		return nil, refuse("channel_not_found")
	}
	s.sendEvent(ch, fields{"type": "app_home_opened", "user": c.caller.id, "channel": ch.id, "tab": "messages", "event_ts": s.stamp()})
	return nil, nil
}

// threadOfSession finds the channel of a session's thread. s.mu must be held.
func (s *Server) threadOfSession(c *call) (*channel, error) {
	ch, err := s.channelOf(c, c.str("channel_id"))
	if err != nil {
		return nil, err
	}
	if ts := c.str("thread_ts"); ts != "" && ch.find(ts) == nil {
		return nil, refuse("invalid_thread_ts")
	}
	return ch, nil
}

// nativeStop is Slack's own Stop button, shown while a session's status is processing. Slack leaves the status as it is.
func (s *Server) nativeStop(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	if s.sessions[ch.id+":"+c.str("thread_ts")] != "processing" {
		return nil, refuse("not_processing")
	}
	s.sendEvent(ch, fields{
		"type": "agent_session_stopped", "channel": ch.id, "thread_ts": c.str("thread_ts"), "user": c.caller.id,
		"streaming_message_ts": []string{}, "event_ts": s.stamp(),
	})
	return nil, nil
}
