package slack

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"
)

// trigger is what lets an app open a modal: once, for a short while.
type trigger struct {
	user string
	made time.Time
	used bool
}

// response is where a response_url leads.
type response struct {
	user, channel, ts string // ts: of the message that was clicked
	made              time.Time
	uses              int
}

// A response_url takes 5 posts within 30 minutes.
const (
	responseUses = 5
	responseLife = 30 * time.Minute
)

// newTrigger makes a trigger id for a person. s.mu must be held.
func (s *Server) newTrigger(user string) string {
	id := s.id("Tr")
	s.triggers[id] = &trigger{user: user, made: time.Now()}
	return id
}

// responseURL makes an address that answers an interaction. s.mu must be held.
func (s *Server) responseURL(host string, to response) string {
	id := newUUID()
	to.made = time.Now()
	s.responses[id] = &to
	return "http://" + host + "/response/" + id
}

// command is a slash command, typed into the composer of a channel. Slack refuses them in threads.
func (s *Server) command(c *call) (fields, error) {
	if c.str("thread_ts") != "" {
		return nil, refuse("command_not_supported_in_threads")
	}
	if c.str("command") != "/flaude" {
		return nil, refuse("invalid_command", c.str("command")+" is not a valid command")
	}
	s.mu.Lock()
	ch, err := s.writable(c, c.str("channel"))
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	name := ch.name
	if ch.im != "" {
		name = "directmessage"
	}
	to := response{user: c.caller.id, channel: ch.id}
	before := s.stamp()
	payload := fields{
		"token": "local", "team_id": teamID, "team_domain": "local", "channel_id": ch.id, "channel_name": name, "user_id": c.caller.id,
		"user_name": c.caller.name, "command": c.str("command"), "text": c.str("text"), "api_app_id": appID, "is_enterprise_install": "false",
		"trigger_id": s.newTrigger(c.caller.id), "response_url": s.responseURL(c.r.Host, to),
	}
	s.mu.Unlock()
	body, err := s.ask(&envelope{kind: "slash_commands", payload: encoded(payload)}, c.str("command"))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(body) > 0 {
		if err := s.answerInteraction(to, body); err != nil {
			s.log.Warn("the answer to a command is not shown: Slack would refuse it", "err", err)
			return fields{"response": nil}, nil
		}
		return fields{"response": body}, nil
	}
	for _, e := range s.ephemeral { // what the app said by itself before it acked
		if e.user == c.caller.id && e.channel == ch.id && e.fields["ts"].(string) > before {
			return fields{"response": maps.Clone(e.fields)}, nil
		}
	}
	return fields{"response": nil}, nil
}

// ask passes something that Slack never sends again, and returns what the ack holds. what names it for the person.
func (s *Server) ask(e *envelope, what string) (fields, error) {
	s.mu.Lock()
	p := s.begin(e, 0)
	s.mu.Unlock()
	if p == nil {
		return nil, refuse("dispatch_failed", what+" failed: the app is not connected")
	}
	got, ok := s.acked(p, s.cfg.AskTimeout)
	if !ok {
		return nil, refuse("operation_timeout", what+" failed: the app did not respond")
	}
	var body fields
	_ = json.Unmarshal(got.Payload, &body) // an empty ack has none
	return body, nil
}

func (s *Server) interact(payload fields) (fields, error) {
	body, err := s.ask(&envelope{kind: "interactive", payload: encoded(payload)}, "this")
	if err != nil {
		return nil, err
	}
	return fields{"response": body}, nil
}

// answerInteraction shows the answer to a command or a click. s.mu must be held.
func (s *Server) answerInteraction(to response, body fields) error {
	blocks, _ := body["blocks"].([]any)
	if problems := checkBlocks(blocks, message); len(problems) > 0 {
		return refuse(problems[0].code, texts(problems)...)
	}
	nameBlocks(blocks)
	kept := fields{}
	for _, k := range []string{"text", "blocks"} {
		if v, ok := body[k]; ok {
			kept[k] = v
		}
	}
	if body["delete_original"] == true || body["replace_original"] == true {
		return s.changeOriginal(to, body["delete_original"] == true, kept)
	}
	if len(kept) == 0 {
		return refuse("no_text")
	}
	thread, _ := body["thread_ts"].(string)
	if body["response_type"] != "in_channel" {
		s.whisper(to.user, to.channel, thread, kept)
		return nil
	}
	bot, _ := userByID(botUser)
	for _, ch := range s.channels {
		if ch.id == to.channel {
			s.post(ch, bot, ch.threadOf(thread), kept, nil)
		}
	}
	return nil
}

// changeOriginal replaces or removes the message that was clicked. s.mu must be held.
func (s *Server) changeOriginal(to response, remove bool, body fields) error {
	defer s.changed(to.channel)
	at := slices.IndexFunc(s.ephemeral, func(e ephemeral) bool { return e.user == to.user && e.channel == to.channel && e.fields["ts"] == to.ts })
	if at >= 0 && remove {
		s.ephemeral = slices.Delete(s.ephemeral, at, at+1)
		return nil
	}
	if at >= 0 {
		f := s.ephemeral[at].fields
		delete(f, "blocks")
		delete(f, "text")
		maps.Copy(f, body)
		return nil
	}
	bot, _ := userByID(botUser)
	for _, ch := range s.channels {
		m := ch.find(to.ts)
		switch {
		case ch.id != to.channel || m == nil:
		case remove:
			s.deleteMessage(ch, m)
			return nil
		default:
			s.changedMessage(ch, m, s.rewrite(m, bot, body))
			return nil
		}
	}
	return refuse("message_not_found")
}

// respond is a response_url.
func (s *Server) respond(w http.ResponseWriter, r *http.Request) {
	var body fields
	err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&body)
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.responses[r.PathValue("id")]
	switch {
	case err != nil:
		http.Error(w, "invalid_payload", http.StatusBadRequest)
		return
	case to == nil || to.uses == responseUses:
		http.Error(w, "used_url", http.StatusNotFound)
		return
	case time.Since(to.made) > responseLife:
		http.Error(w, "expired_url", http.StatusNotFound)
		return
	}
	to.uses++
	if err := s.answerInteraction(*to, body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte("ok"))
}

// interaction begins the payload of one. s.mu must be held.
func (s *Server) interaction(c *call, kind string) fields {
	return fields{
		"type": kind, "team": fields{"id": teamID, "domain": "local"}, "user": c.caller.inPayload(), "api_app_id": appID, "token": "local",
		"trigger_id": s.newTrigger(c.caller.id), "is_enterprise_install": false, "enterprise": nil,
	}
}

// click presses a button of a message, or of a modal, that the person can see.
func (s *Server) click(c *call) (fields, error) {
	payload, err := s.pressed(c)
	if err != nil {
		return nil, err
	}
	return s.interact(payload)
}

// pressed is the payload of a click.
func (s *Server) pressed(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := c.str("view_id"); id != "" {
		v := s.view(id, c.caller.id)
		if v == nil {
			return nil, refuse("not_found")
		}
		action := s.action(v.fields["blocks"], c)
		if action == nil {
			return nil, refuse("action_not_found")
		}
		payload := s.interaction(c, "block_actions")
		payload["view"], payload["container"], payload["actions"] = v.shown(), fields{"type": "view", "view_id": v.id}, []fields{action}
		return payload, nil
	}
	ch, err := s.channelOf(c, c.str("channel"))
	if err != nil {
		return nil, err
	}
	shown, private := s.visible(c.caller.id, ch, c.str("ts"))
	if shown == nil {
		return nil, refuse("message_not_found")
	}
	action := s.action(shown["blocks"], c)
	if action == nil {
		return nil, refuse("action_not_found")
	}
	payload := s.interaction(c, "block_actions")
	payload["channel"] = fields{"id": ch.id, "name": ch.name}
	container := fields{"type": "message", "message_ts": c.str("ts"), "channel_id": ch.id, "is_ephemeral": private}
	if thread, _ := shown["thread_ts"].(string); thread != "" {
		container["thread_ts"] = thread
	}
	payload["container"], payload["actions"], payload["state"] = container, []fields{action}, fields{"values": fields{}}
	if !private {
		payload["message"] = shown
	}
	payload["response_url"] = s.responseURL(c.r.Host, response{user: c.caller.id, channel: ch.id, ts: c.str("ts")})
	return payload, nil
}

// action is a press of the button that the call names, nil if the blocks have none such; an empty value matches any. Of a select it is the choice of
// the option with that value.
// s.mu must be held.
func (s *Server) action(blocks any, c *call) fields {
	list, _ := blocks.([]any)
	for _, b := range list {
		b, _ := b.(map[string]any)
		elements, _ := b["elements"].([]any)
		for _, e := range append(slices.Clone(elements), b["accessory"]) {
			e, _ := e.(map[string]any)
			if e == nil || e["action_id"] != c.str("action_id") {
				continue
			}
			out := fields{"action_ts": s.stamp(), "block_id": b["block_id"]}
			if e["type"] == "static_select" {
				if out["selected_option"] = optionOf(e, c.str("value")); out["selected_option"] == nil {
					continue
				}
			} else if c.str("value") != "" && e["value"] != c.str("value") {
				continue
			}
			for _, k := range []string{"type", "action_id", "value", "text", "style", "url"} {
				if v, ok := e[k]; ok {
					out[k] = v
				}
			}
			return out
		}
	}
	return nil
}

// optionOf is the option of a select with that value, nil if it has none such.
func optionOf(element map[string]any, value string) any {
	options, _ := element["options"].([]any)
	for _, o := range options {
		if o, _ := o.(map[string]any); o["value"] == value {
			return o
		}
	}
	return nil
}

// shortcut is a message shortcut, from the menu of a message.
func (s *Server) shortcut(c *call) (fields, error) {
	if c.str("callback_id") != "manage_session" {
		return nil, refuse("shortcut_not_found")
	}
	payload, err := s.shortcutOn(c)
	if err != nil {
		return nil, err
	}
	return s.interact(payload)
}

// shortcutOn is the payload of a shortcut.
func (s *Server) shortcutOn(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, m, err := s.messageOf(c)
	if err != nil {
		return nil, err
	}
	payload := s.interaction(c, "message_action")
	payload["callback_id"], payload["message"], payload["message_ts"] = c.str("callback_id"), m.shown(true), m.str("ts")
	payload["channel"], payload["action_ts"] = fields{"id": ch.id, "name": ch.name}, s.stamp()
	payload["response_url"] = s.responseURL(c.r.Host, response{user: c.caller.id, channel: ch.id})
	return payload, nil
}
