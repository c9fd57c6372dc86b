package slack

import "cmp"

// Ids of the workspace.
const (
	teamID  = "T0LOCAL"
	botUser = "U0FLAUDE"
	botID   = "B0FLAUDE"
	appID   = "A0FLAUDE"
)

type person struct {
	id, name, real, token, team              string
	admin, restricted, ultraRestricted, away bool // away: of another workspace
	bot                                      bool
	botID, appID                             string // of an app
}

func people() []person {
	return []person{
		{id: "U0ADMIN", name: "ada", real: "Ada (admin)", token: "xoxp-local-admin", team: teamID, admin: true},
		{id: "U0MEMBER", name: "mira", real: "Mira (member)", token: "xoxp-local-member", team: teamID},
		{id: "U0GUEST", name: "gus", real: "Gus (guest)", token: "xoxp-local-guest", team: teamID, restricted: true, ultraRestricted: true},
		{id: "U0STRANGER", name: "stan", real: "Stan (another workspace)", token: "xoxp-local-stranger", team: "T0OTHER", away: true},
		{id: botUser, name: "flaudebot", real: "flaudebot", token: "xoxb-local", team: teamID, bot: true, botID: botID, appID: appID},
		{id: "U0CI", name: "ci", real: "CI", token: "xoxb-local-ci", team: teamID, bot: true, botID: "B0CI", appID: "A0CI"}, // another app, without a socket
	}
}

func personBy(match func(person) bool) (person, bool) {
	for _, p := range people() {
		if match(p) {
			return p, true
		}
	}
	return person{}, false
}

func userByID(id string) (person, bool) { return personBy(func(p person) bool { return p.id == id }) }

// shown is a person as users.info gives it.
func (p person) shown() fields {
	return fields{
		"id": p.id, "name": p.name, "team_id": p.team, "real_name": p.real, "is_admin": p.admin, "is_owner": p.admin, "is_bot": p.bot,
		"is_restricted": p.restricted, "is_ultra_restricted": p.ultraRestricted, "is_stranger": p.away, "deleted": false, "tz": "Etc/UTC",
		"profile": fields{"display_name": p.name, "real_name": p.real},
	}
}

func (p person) inPayload() fields {
	return fields{"id": p.id, "username": p.name, "name": p.name, "team_id": p.team}
}

func (s *Server) authTest(c *call) (fields, error) {
	out := fields{
		"url": "http://" + c.r.Host + "/", "team": "Local", "team_id": c.caller.team, "user": c.caller.name, "user_id": c.caller.id,
		"is_enterprise_install": false,
	}
	if c.caller.bot {
		out["bot_id"], out["app_id"] = c.caller.botID, c.caller.appID
	}
	return out, nil
}

func teamInfo(*call) (fields, error) {
	return fields{"team": fields{"id": teamID, "name": "Local", "domain": "local"}}, nil
}

// botsInfo tells of a bot of any app, or of the caller's own.
func botsInfo(c *call) (fields, error) {
	p, ok := personBy(func(p person) bool { return p.bot && p.botID == cmp.Or(c.str("bot"), c.caller.botID) })
	if !ok {
		return nil, refuse("bot_not_found")
	}
	return fields{"bot": fields{"id": p.botID, "app_id": p.appID, "user_id": p.id, "name": p.name}}, nil
}

func usersInfo(c *call) (fields, error) {
	p, ok := userByID(c.str("user"))
	if !ok {
		return nil, refuse("user_not_found")
	}
	return fields{"user": p.shown()}, nil
}

func usersList(c *call) (fields, error) {
	all, next, err := pages[person]{usual: 1000, most: 1000, key: func(p person) string { return p.id }}.cut(c, people())
	if err != nil {
		return nil, err
	}
	out := []fields{}
	for _, p := range all {
		out = append(out, p.shown())
	}
	return withCursor(fields{"members": out}, next), nil
}

// usergroupsList names the user groups of the workspace: it has one.
func usergroupsList(*call) (fields, error) {
	return fields{"usergroups": []fields{{
		"id": "S0TEAM", "team_id": teamID, "is_usergroup": true, "name": "The team", "handle": "team", "description": "Its full members", "date_delete": 0, "user_count": 2,
	}}}, nil
}

// usergroupUsers tells who is in a user group; the workspace has one, of its full members.
func usergroupUsers(c *call) (fields, error) {
	if c.str("usergroup") != "S0TEAM" {
		return nil, refuse("no_such_subteam")
	}
	return fields{"users": []string{"U0ADMIN", "U0MEMBER"}}, nil
}
