package slack

import (
	"slices"
	"unicode/utf8"
)

// setStatus keeps Slack's own status of an agent's session, whose processing shows a Stop button in the thread.
func (s *Server) setStatus(c *call) (fields, error) {
	if !slices.Contains([]string{"active", "processing", "suspended", "closed"}, c.str("status")) {
		return nil, refuse("invalid_arguments")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, err := s.threadOfSession(c)
	if err != nil {
		return nil, err
	}
	s.sessions[ch.id+":"+c.str("thread_ts")] = c.str("status")
	s.changed(ch.id)
	return nil, nil
}

// rename names a session; the page shows no names.
func (s *Server) rename(c *call) (fields, error) {
	if n := utf8.RuneCountInString(c.str("title")); n < 1 || n > 200 {
		return nil, refuse("invalid_arguments")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.threadOfSession(c)
	return nil, err
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
