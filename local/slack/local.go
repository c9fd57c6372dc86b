package slack

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
)

// local is what people do and Slack has no method for.
func (s *Server) local(w http.ResponseWriter, r *http.Request) {
	c, err := s.open(r)
	if err == nil && c.caller.id == "" {
		err = refuse("not_allowed_token_type")
	}
	var out fields
	if err == nil {
		switch r.PathValue("method") {
		case "command":
			out, err = s.command(c)
		case "click":
			out, err = s.click(c)
		case "shortcut":
			out, err = s.shortcut(c)
		case "submit":
			out, err = s.submit(c)
		case "stop":
			out, err = s.nativeStop(c)
		case "seen":
			out, err = s.seen(c)
		case "socket":
			s.closeConns(c.str("close"))
		default:
			err = refuse("unknown_method")
		}
	}
	reply(w, out, err)
}

// trigger makes a trigger id for a person. s.mu must be held.
func (s *Server) trigger(user string) string {
	id := s.id("Tr")
	s.triggers[id] = user
	return id
}

// responseURL makes an address that answers an interaction. s.mu must be held.
func (s *Server) responseURL(host string, to response) string {
	id := newUUID()
	s.responses[id] = to
	return "http://" + host + "/response/" + id
}

func (p person) inPayload() fields {
	return fields{"id": p.id, "username": p.name, "name": p.name, "team_id": p.team}
}

// command is a slash command, typed into the composer of a channel. Slack refuses them in threads.
func (s *Server) command(c *call) (fields, error) {
	if c.str("thread_ts") != "" {
		return nil, refuse("command_not_supported_in_threads")
	}
	s.mu.Lock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	name := ch.name
	if ch.im != "" {
		name = "directmessage"
	}
	before := len(s.ephemeral)
	payload := fields{
		"token": "local", "team_id": teamID, "team_domain": "local", "channel_id": ch.id, "channel_name": name, "user_id": c.caller.id,
		"user_name": c.caller.name, "command": c.str("command"), "text": c.str("text"), "api_app_id": appID, "is_enterprise_install": "false",
		"trigger_id": s.trigger(c.caller.id), "response_url": s.responseURL(c.r.Host, response{user: c.caller.id, channel: ch.id}),
	}
	s.mu.Unlock()
	ack, ok := s.pass(&envelope{kind: "slash_commands", payload: payload}, 0)
	if !ok {
		return nil, refuse("operation_timeout", c.str("command")+" did not respond")
	}
	var body fields
	_ = json.Unmarshal(ack, &body) // an empty ack has none
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(body) > 0 {
		s.answerInteraction(response{user: c.caller.id, channel: ch.id}, body)
		return fields{"response": body}, nil
	}
	for _, e := range s.ephemeral[before:] {
		if e.user == c.caller.id {
			return fields{"response": e.fields}, nil
		}
	}
	return fields{"response": nil}, nil
}

// answerInteraction shows the answer to a command or a click. s.mu must be held.
func (s *Server) answerInteraction(to response, body fields) {
	if blocks, ok := body["blocks"].([]any); ok {
		if problems := checkBlocks(blocks, false); len(problems) > 0 {
			s.log.Warn("answer with blocks that Slack would refuse", "problems", texts(problems))
			return
		}
	}
	kept := fields{}
	for _, k := range []string{"text", "blocks"} {
		if v, ok := body[k]; ok {
			kept[k] = v
		}
	}
	if body["delete_original"] == true || body["replace_original"] == true {
		s.changeOriginal(to, body["delete_original"] == true, kept)
		return
	}
	thread := to.thread
	if t, ok := body["thread_ts"].(string); ok {
		thread = t
	}
	if body["response_type"] == "in_channel" {
		for _, ch := range s.channels {
			if ch.id == to.channel {
				bot, _ := userByID(botUser)
				s.post(ch, bot, thread, kept, nil)
			}
		}
		return
	}
	s.whisper(to.user, to.channel, thread, kept)
}

// changeOriginal replaces or removes the message that was clicked. s.mu must be held.
func (s *Server) changeOriginal(to response, remove bool, body fields) {
	defer s.changed(to.channel)
	for i, e := range s.ephemeral {
		if e.fields["ts"] != to.ts {
			continue
		}
		if remove {
			s.ephemeral = append(s.ephemeral[:i:i], s.ephemeral[i+1:]...)
			return
		}
		delete(e.fields, "blocks")
		maps.Copy(e.fields, body)
		return
	}
	for _, ch := range s.channels {
		if m := ch.find(to.ts); m != nil && ch.id == to.channel {
			m.deleted = remove
			maps.Copy(m.fields, body)
		}
	}
}

// respond is a response_url.
func (s *Server) respond(w http.ResponseWriter, r *http.Request) {
	var body fields
	err := json.NewDecoder(r.Body).Decode(&body)
	s.mu.Lock()
	defer s.mu.Unlock()
	to, ok := s.responses[r.PathValue("id")]
	if err != nil || !ok {
		http.Error(w, "used_url", http.StatusNotFound)
		return
	}
	s.answerInteraction(to, body)
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte("ok"))
}

// click presses a button of a message that the person can see.
func (s *Server) click(c *call) (fields, error) {
	s.mu.Lock()
	if c.str("view_id") != "" {
		v := s.views[c.str("view_id")]
		if v == nil || v.user != c.caller.id {
			s.mu.Unlock()
			return nil, refuse("not_found")
		}
		payload := s.interaction(c, "block_actions")
		payload["view"], payload["container"] = v.shown(), fields{"type": "view", "view_id": v.id}
		payload["actions"] = []fields{{"type": "button", "action_id": c.str("action_id"), "value": c.str("value"), "block_id": "b", "action_ts": s.stamp()}}
		s.mu.Unlock()
		return s.interact(payload)
	}
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	shown, private := s.visible(c.caller.id, ch, c.str("ts"))
	if shown == nil {
		s.mu.Unlock()
		return nil, refuse("message_not_found")
	}
	button := findButton(shown["blocks"], c.str("action_id"), c.str("value"))
	if button == nil {
		s.mu.Unlock()
		return nil, refuse("action_not_found")
	}
	thread, _ := shown["thread_ts"].(string)
	payload := s.interaction(c, "block_actions")
	payload["channel"] = fields{"id": ch.id, "name": ch.name}
	container := fields{"type": "message", "message_ts": c.str("ts"), "channel_id": ch.id, "is_ephemeral": private}
	if thread != "" {
		container["thread_ts"] = thread
	}
	payload["container"] = container
	if !private {
		payload["message"] = shown
	}
	payload["response_url"] = s.responseURL(c.r.Host, response{user: c.caller.id, channel: ch.id, thread: thread, ts: c.str("ts"), ephemeral: private})
	payload["actions"] = []fields{{
		"type": "button", "action_id": button["action_id"], "value": button["value"], "text": button["text"], "block_id": "b", "action_ts": s.stamp(),
	}}
	s.mu.Unlock()
	return s.interact(payload)
}

// interaction begins the payload of one. s.mu must be held.
func (s *Server) interaction(c *call, kind string) fields {
	return fields{
		"type": kind, "team": fields{"id": teamID, "domain": "local"}, "user": c.caller.inPayload(), "api_app_id": appID, "token": "local",
		"trigger_id": s.trigger(c.caller.id), "is_enterprise_install": false, "enterprise": nil,
	}
}

func (s *Server) interact(payload fields) (fields, error) {
	ack, ok := s.pass(&envelope{kind: "interactive", payload: payload}, 0)
	if !ok {
		return nil, refuse("operation_timeout", "the app did not respond")
	}
	var body fields
	_ = json.Unmarshal(ack, &body) // an empty ack has none
	return fields{"response": body}, nil
}

// visible is a message as the person sees it. s.mu must be held.
func (s *Server) visible(user string, ch *channel, ts string) (shown fields, private bool) {
	if m := ch.find(ts); m != nil {
		return m.shown(true), false
	}
	for _, e := range s.ephemeral {
		if e.user == user && e.channel == ch.id && e.fields["ts"] == ts {
			return e.fields, true
		}
	}
	return nil, false
}

// findButton looks for a button; an empty value matches any.
func findButton(v any, action, value string) map[string]any {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if b := findButton(e, action, value); b != nil {
				return b
			}
		}
	case map[string]any:
		if v["action_id"] == action && (value == "" || v["value"] == value) {
			return v
		}
		for _, k := range []string{"elements", "accessory", "blocks", "element"} {
			if b := findButton(v[k], action, value); b != nil {
				return b
			}
		}
	}
	return nil
}

// shortcut is a message shortcut, from the menu of a message.
func (s *Server) shortcut(c *call) (fields, error) {
	s.mu.Lock()
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	m := ch.find(c.str("ts"))
	if m == nil {
		s.mu.Unlock()
		return nil, refuse("message_not_found")
	}
	payload := s.interaction(c, "message_action")
	payload["callback_id"], payload["message"], payload["message_ts"] = c.str("callback_id"), m.shown(true), m.str("ts")
	payload["channel"], payload["action_ts"] = fields{"id": ch.id, "name": ch.name}, s.stamp()
	payload["response_url"] = s.responseURL(c.r.Host, response{user: c.caller.id, channel: ch.id, thread: m.str("thread_ts")})
	s.mu.Unlock()
	return s.interact(payload)
}

// nativeStop is Slack's own Stop button, shown while a session's status is processing.
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
		"type": "agent_session_stopped", "channel": ch.id, "thread_ts": c.str("thread_ts"), "user": c.caller.id, "streaming_message_ts": []string{}, "event_ts": s.stamp(),
	})
	return nil, nil
}

// seen is all that a person sees of a channel or a thread.
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
		root := m.str("thread_ts") == "" || m.str("thread_ts") == m.str("ts")
		if m.deleted || (thread != "" && !m.inThread(thread)) || (thread == "" && !root) {
			continue
		}
		shown := m.shown(true)
		if n := ch.replyCount(m.str("ts")); n > 0 {
			shown["reply_count"] = n
		}
		messages = append(messages, shown)
	}
	for _, e := range s.ephemeral {
		in, _ := e.fields["thread_ts"].(string)
		if e.user == c.caller.id && e.channel == ch.id && in == thread {
			private = append(private, e.fields)
		}
	}
	for _, v := range s.views {
		if v.user == c.caller.id {
			open = append(open, v.shown())
		}
	}
	return fields{"messages": messages, "ephemeral": private, "views": open, "status": s.sessions[ch.id+":"+thread]}, nil
}

// view is a modal that a person has open.
type view struct {
	id, user string
	fields   map[string]any
}

func (v *view) shown() fields {
	out := fields{"id": v.id, "team_id": teamID, "app_id": appID, "state": fields{"values": fields{}}, "hash": v.id}
	maps.Copy(out, v.fields)
	return out
}

func (s *Server) viewOpen(c *call) (fields, error) {
	body, _ := c.value("view").(map[string]any)
	if body == nil {
		return nil, refuse("invalid_arguments")
	}
	blocks, _ := body["blocks"].([]any)
	if problems := checkBlocks(blocks, true); len(problems) > 0 {
		return nil, refuse("invalid_arguments", texts(problems)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, ok := s.triggers[c.str("trigger_id")]
	if !ok {
		return nil, refuse("invalid_trigger")
	}
	delete(s.triggers, c.str("trigger_id"))
	v := &view{id: s.id("V"), user: user, fields: body}
	s.views[v.id] = v
	s.changed("views")
	return fields{"view": v.shown()}, nil
}

func (s *Server) viewUpdate(c *call) (fields, error) {
	body, _ := c.value("view").(map[string]any)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.str("user_id") != "" && c.str("view_id") == "" { // the Home tab, which the page does not show
		return fields{"view": fields{"id": s.id("V"), "type": "home"}}, nil
	}
	v := s.views[c.str("view_id")]
	if v == nil || body == nil {
		return nil, refuse("not_found")
	}
	v.fields = body
	s.changed("views")
	return fields{"view": v.shown()}, nil
}

// submit sends a modal, or closes it.
func (s *Server) submit(c *call) (fields, error) {
	s.mu.Lock()
	v := s.views[c.str("view_id")]
	if v == nil || v.user != c.caller.id {
		s.mu.Unlock()
		return nil, refuse("not_found")
	}
	if c.flag("close") {
		delete(s.views, v.id)
		s.changed("views")
		s.mu.Unlock()
		return nil, nil
	}
	payload := s.interaction(c, "view_submission")
	shown := v.shown()
	shown["state"] = fields{"values": c.value("values")}
	payload["view"] = shown
	s.mu.Unlock()
	out, err := s.interact(payload)
	if err != nil {
		return nil, err
	}
	body, _ := out["response"].(map[string]any)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch body["response_action"] {
	case "errors":
	case "update":
		v.fields, _ = body["view"].(map[string]any)
	default:
		delete(s.views, v.id)
	}
	s.changed("views")
	return out, nil
}

// texts of problems, for response_metadata.
func texts(problems []problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, "[ERROR] "+strings.TrimSpace(p.text))
	}
	return out
}
