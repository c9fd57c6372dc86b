package slack

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/time/rate"
)

// method is a method of the Web API.
type method struct {
	do        func(*call) (fields, error)
	perMinute int  // its tier, for the app
	app, bot  bool // for the app-level token; for the bot only
}

// Calls of a method in a minute that Slack grants an app in a workspace, at least.
const (
	tier2 = 20
	tier3 = 50
	tier4 = 100
	tierX = 300 // of their own, far away
)

func (s *Server) methodTable() map[string]method {
	return map[string]method{
		"auth.test":             {do: s.authTest, perMinute: tierX},
		"team.info":             {do: teamInfo, perMinute: tier3},
		"bots.info":             {do: botsInfo, perMinute: tier3},
		"apps.connections.open": {do: s.connectionsOpen, perMinute: tier3, app: true},

		"users.info":            {do: usersInfo, perMinute: tier4},
		"users.list":            {do: usersList, perMinute: tier2},
		"usergroups.list":       {do: usergroupsList, perMinute: tier2},
		"usergroups.users.list": {do: usergroupUsers, perMinute: tier2},

		"chat.postMessage":   {do: s.postMessage}, // one a second and channel
		"chat.postEphemeral": {do: s.postEphemeral, perMinute: tier4},
		"chat.update":        {do: s.update, perMinute: tier3},
		"chat.delete":        {do: s.remove, perMinute: tier3},
		"chat.getPermalink":  {do: s.permalink, perMinute: tierX},

		"conversations.list":      {do: s.list, perMinute: tier2},
		"users.conversations":     {do: s.list, perMinute: tier3}, // a list shows nobody more than what they are in
		"conversations.info":      {do: s.info, perMinute: tier3},
		"conversations.members":   {do: s.members, perMinute: tier4},
		"conversations.open":      {do: s.openDM, perMinute: tier3},
		"conversations.history":   {do: s.history, perMinute: tier3},
		"conversations.replies":   {do: s.replies, perMinute: tier3},
		"conversations.archive":   {do: s.archive(true), perMinute: tier2},
		"conversations.unarchive": {do: s.archive(false), perMinute: tier2},

		"conversations.kick":   {do: s.kick, perMinute: tier3},
		"conversations.invite": {do: s.invite, perMinute: tier3},

		"admin.conversations.convertToPrivate": {do: s.convertToPrivate, perMinute: tier2},

		"reactions.add":    {do: s.react, perMinute: tier3},
		"reactions.remove": {do: s.unreact, perMinute: tier2},
		"reactions.get":    {do: s.reactions, perMinute: tier3},

		"files.getUploadURLExternal":   {do: s.uploadURL, perMinute: tier4},
		"files.completeUploadExternal": {do: s.completeUpload, perMinute: tier4},
		"files.info":                   {do: s.fileInfo, perMinute: tier4},

		"views.open":   {do: s.viewOpen, perMinute: tier4, bot: true},
		"views.push":   {do: s.viewPush, perMinute: tier4, bot: true},
		"views.update": {do: s.viewUpdate, perMinute: tier4, bot: true},

		"agents.sessions.setStatus": {do: s.setStatus, perMinute: tier3, bot: true},
		"agents.sessions.rename":    {do: s.rename, perMinute: tier3, bot: true},

		"assistant.threads.setSuggestedPrompts": {do: s.suggestPrompts, perMinute: tier4, bot: true},
	}
}

// postBurst is how many messages a channel takes at once, above its one a second.
const postBurst = 10

// allowed keeps the rate limits for the app; people type as they like. Bursts are tolerated: Slack does not say how long.
func (s *Server) allowed(w http.ResponseWriter, c *call, name string, m method) bool {
	if !s.cfg.RateLimits || !(c.caller.bot || c.app) {
		return true
	}
	perMinute := m.perMinute * s.cfg.Generosity
	key, limit, burst, code := name, rate.Limit(float64(perMinute)/60), perMinute/2, "ratelimited"
	if m.perMinute == 0 {
		key, limit, burst, code = name+" "+c.str("channel"), rate.Limit(s.cfg.Generosity), postBurst*s.cfg.Generosity, "rate_limited"
	}
	if c.caller.appID != appID && !c.app { // each app has limits of its own
		key = c.caller.appID + " " + key
	}
	s.mu.Lock()
	b := s.buckets[key]
	if b == nil {
		b = rate.NewLimiter(limit, burst)
		s.buckets[key] = b
	}
	s.mu.Unlock()
	r := b.Reserve()
	wait := r.Delay()
	if wait == 0 {
		return true
	}
	r.Cancel()
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write([]byte(`{"ok":false,"error":"` + code + `"}`))
	return false
}

// about tells the page who answers.
func (s *Server) about(w http.ResponseWriter, _ *http.Request) {
	reply(w, fields{"agent": s.cfg.Agent, "note": s.cfg.Note}, nil)
}

// changed tells the pages what to look at again. s.mu must be held.
func (s *Server) changed(what string) {
	for w := range s.watchers {
		select {
		case w <- what:
		default: // it has something to look at already
		}
	}
}

// beat keeps a page's stream alive, and tells the server that the page has gone.
const beat = 15 * time.Second

// watch is a stream of changes for a page: ids of channels, and "views".
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	ch := make(chan string, 64)
	s.mu.Lock()
	s.watchers[ch] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, ch)
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w)
	alive := time.NewTicker(beat)
	defer alive.Stop()
	line := ": hello\n\n"
	for {
		if _, err := w.Write([]byte(line)); err != nil {
			return
		}
		_ = flush.Flush()
		select {
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		case <-alive.C:
			line = ": still here\n\n"
		case what := <-ch:
			line = "data: " + what + "\n\n"
		}
	}
}
