package slack

import (
	"maps"
	"slices"
	"time"
)

// view is a modal that a person has open. Those of a person form a stack, the newest on top.
type view struct {
	id, root, previous, user string // previous: the one that it lies on
	hash                     string
	fields                   fields
}

func (v *view) shown() fields {
	out := fields{
		"id": v.id, "root_view_id": v.root, "team_id": teamID, "app_id": appID, "bot_id": botID, "state": fields{"values": fields{}}, "hash": v.hash,
		"private_metadata": "", "callback_id": "", "external_id": "", "previous_view_id": nil,
	}
	if v.previous != "" {
		out["previous_view_id"] = v.previous
	}
	maps.Copy(out, v.fields)
	return out
}

// maxStack is how many modals may lie on each other.
const maxStack = 3

// view finds an open modal of a person, "" for anyone's. s.mu must be held.
func (s *Server) view(id, user string) *view {
	for _, v := range s.views {
		if (v.id == id || (id != "" && v.fields["external_id"] == id)) && (user == "" || v.user == user) {
			return v
		}
	}
	return nil
}

// modal reads and checks the argument view.
func (c *call) modal() (fields, error) {
	body, _ := c.value("view").(map[string]any)
	if body == nil {
		return nil, refuse("invalid_arguments", "[ERROR] missing required field: view")
	}
	if problems := checkView(body); len(problems) > 0 {
		return nil, refuse("invalid_arguments", texts(problems)...)
	}
	blocks, _ := body["blocks"].([]any)
	nameBlocks(blocks)
	return body, nil
}

func (s *Server) viewOpen(c *call) (fields, error) {
	body, err := c.modal()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, err := s.exchange(c.str("trigger_id"))
	if err != nil {
		return nil, err
	}
	s.views = slices.DeleteFunc(s.views, func(v *view) bool { return v.user == user }) // one stack at a time
	return fields{"view": s.showView(user, "", body).shown()}, nil
}

func (s *Server) viewPush(c *call) (fields, error) {
	body, err := c.modal()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, err := s.exchange(c.str("trigger_id"))
	if err != nil {
		return nil, err
	}
	v, err := s.pushView(user, body)
	if err != nil {
		return nil, err
	}
	return fields{"view": v.shown()}, nil
}

// pushView lays a modal on those that a person has open. s.mu must be held.
func (s *Server) pushView(user string, body fields) (*view, error) {
	root, top, n := "", "", 0
	for _, v := range s.views {
		if v.user == user {
			root, top, n = v.root, v.id, n+1
		}
	}
	switch n {
	case 0:
		return nil, refuse("not_found")
	case maxStack:
		return nil, refuse("push_limit_reached")
	}
	v := s.showView(user, root, body)
	v.previous = top
	return v, nil
}

// showView opens a modal. s.mu must be held.
func (s *Server) showView(user, root string, body fields) *view {
	v := &view{id: s.id("V"), root: root, user: user, hash: s.stamp(), fields: body}
	if root == "" {
		v.root = v.id
	}
	s.views = append(s.views, v)
	s.changed("views")
	return v
}

// exchange uses up a trigger id. s.mu must be held.
func (s *Server) exchange(id string) (user string, err error) {
	t := s.triggers[id]
	switch {
	case t == nil:
		return "", refuse("invalid_trigger_id")
	case t.used:
		return "", refuse("exchanged_trigger_id")
	case time.Since(t.made) > s.cfg.TriggerLife:
		return "", refuse("expired_trigger_id")
	}
	t.used = true
	return t.user, nil
}

func (s *Server) viewUpdate(c *call) (fields, error) {
	body, err := c.modal()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := c.str("view_id")
	if id == "" {
		id = c.str("external_id")
	}
	v := s.view(id, "")
	switch {
	case v == nil:
		return nil, refuse("not_found")
	case c.str("hash") != "" && c.str("hash") != v.hash:
		return nil, refuse("hash_conflict")
	}
	s.changeView(v, body)
	return fields{"view": v.shown()}, nil
}

// changeView replaces what a modal shows. s.mu must be held.
func (s *Server) changeView(v *view, body fields) {
	v.fields, v.hash = body, s.stamp()
	s.changed("views")
}

// closeView takes a modal off, and all of its stack. s.mu must be held.
func (s *Server) closeView(v *view, all bool) {
	s.views = slices.DeleteFunc(s.views, func(o *view) bool { return o == v || (all && o.user == v.user) })
	s.changed("views")
}

// submit sends a modal; with {"close": true} it only closes it.
func (s *Server) submit(c *call) (fields, error) {
	s.mu.Lock()
	v := s.view(c.str("view_id"), c.caller.id)
	if v == nil {
		s.mu.Unlock()
		return nil, refuse("not_found")
	}
	shown := v.shown()
	if c.flag("close") {
		s.closeView(v, false)
		payload := s.interaction(c, "view_closed")
		payload["view"], payload["is_cleared"] = shown, false
		s.mu.Unlock()
		if v.fields["notify_on_close"] == true {
			return s.interact(payload)
		}
		return nil, nil
	}
	if v.fields["submit"] == nil {
		s.mu.Unlock()
		return nil, refuse("not_submittable")
	}
	values, ok := c.value("values").(map[string]any)
	if !ok {
		values = fields{}
	}
	if missing := unfilled(v.fields["blocks"], values); missing != "" {
		s.mu.Unlock()
		return nil, refuse("missing_value", missing+" is required")
	}
	payload := s.interaction(c, "view_submission")
	shown["state"] = fields{"values": values}
	payload["view"], payload["response_urls"] = shown, []any{}
	s.mu.Unlock()
	out, err := s.interact(payload)
	if err != nil {
		return nil, err
	}
	body, _ := out["response"].(map[string]any)
	s.mu.Lock()
	defer s.mu.Unlock()
	return out, s.submitted(v, body)
}

// submitted does what the ack of a submission says. s.mu must be held.
func (s *Server) submitted(v *view, body fields) error {
	next, _ := body["view"].(map[string]any)
	if next != nil {
		if problems := checkView(next); len(problems) > 0 {
			return refuse("invalid_arguments", texts(problems)...)
		}
		blocks, _ := next["blocks"].([]any)
		nameBlocks(blocks)
	}
	switch body["response_action"] {
	case "errors":
		told, _ := body["errors"].(map[string]any)
		for id := range told {
			if !hasInput(v.fields["blocks"], id) { // Slack says that it had trouble connecting
				return refuse("invalid_errors", "no input block has the id "+id)
			}
		}
	case "update":
		if next == nil {
			return refuse("invalid_arguments")
		}
		s.changeView(v, next)
	case "push":
		if next == nil {
			return refuse("invalid_arguments")
		}
		_, err := s.pushView(v.user, next)
		return err
	default:
		s.closeView(v, body["response_action"] == "clear")
	}
	return nil
}

// inputs are the input blocks of a modal.
func inputs(blocks any) []fields {
	list, _ := blocks.([]any)
	var out []fields
	for _, b := range list {
		if m, _ := b.(map[string]any); m["type"] == "input" {
			out = append(out, m)
		}
	}
	return out
}

func hasInput(blocks any, id string) bool {
	return slices.ContainsFunc(inputs(blocks), func(b fields) bool { return b["block_id"] == id })
}

// unfilled is the label of an input that has to be filled in and is not, "" if there is none: Slack's client does not send such a modal.
func unfilled(blocks any, values fields) string {
	for _, b := range inputs(blocks) {
		element, _ := b["element"].(map[string]any)
		id, _ := b["block_id"].(string)
		action, _ := element["action_id"].(string)
		block, _ := values[id].(map[string]any)
		value, _ := block[action].(map[string]any)
		given := false
		for name, v := range value {
			list, isList := v.([]any)
			given = given || name != "type" && v != nil && v != "" && (!isList || len(list) > 0)
		}
		if label, _ := b["label"].(map[string]any); !given && b["optional"] != true {
			text, _ := label["text"].(string)
			return text
		}
	}
	return ""
}
