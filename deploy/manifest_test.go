package deploy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"flaudebot/deploy"
)

// manifest are the fields of Slack's app manifest that the bot depends on.
type manifest struct {
	Display struct {
		Name string `yaml:"name"`
		Desc string `yaml:"description"`
	} `yaml:"display_information"`
	Features struct {
		Bot struct {
			Name string `yaml:"display_name"`
		} `yaml:"bot_user"`
		Commands []struct {
			Command string `yaml:"command"`
			Escape  bool   `yaml:"should_escape"`
		} `yaml:"slash_commands"`
		Shortcuts []struct {
			Name     string `yaml:"name"`
			Type     string `yaml:"type"`
			Callback string `yaml:"callback_id"`
		} `yaml:"shortcuts"`
	} `yaml:"features"`
	OAuth struct {
		Scopes struct {
			Bot []string `yaml:"bot"`
		} `yaml:"scopes"`
	} `yaml:"oauth_config"`
	Settings struct {
		Events struct {
			Bot []string `yaml:"bot_events"`
		} `yaml:"event_subscriptions"`
		Interactivity struct {
			Enabled bool `yaml:"is_enabled"`
		} `yaml:"interactivity"`
		Socket bool `yaml:"socket_mode_enabled"`
	} `yaml:"settings"`
}

// usage is what the bot's source asks of Slack.
type usage struct {
	methods   map[string]bool // of slack-go's client, the suffix Context left out
	events    map[string]bool // types of events that it acts on
	commands  map[string]bool // slash commands that it names to people
	callbacks map[string]bool // of shortcuts
	downloads bool            // it fetches people's files
	buttons   bool            // it acts on clicks
}

var named = regexp.MustCompile("`(/[a-z]+)")

// botUsage reads the bot's source.
func botUsage(t *testing.T) usage {
	t.Helper()
	u := usage{methods: map[string]bool{}, events: map[string]bool{}, commands: map[string]bool{}, callbacks: map[string]bool{}}
	names, err := filepath.Glob("../bot/*.go")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files of the bot, %v", len(names), err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, u.see)
	}
	return u
}

func (u *usage) see(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		method, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if field, ok := method.X.(*ast.SelectorExpr); ok && field.Sel.Name == "api" {
			u.methods[strings.TrimSuffix(method.Sel.Name, "Context")] = true
		}
	case *ast.BinaryExpr:
		if s, ok := n.X.(*ast.SelectorExpr); ok && n.Op == token.EQL {
			switch value := literal(n.Y); {
			case s.Sel.Name == "CallbackID":
				u.callbacks[value] = true
			case value == "block_actions":
				u.buttons = true
			}
		}
	case *ast.SwitchStmt:
		cases := map[string]bool{}
		for _, c := range n.Body.List {
			for _, e := range c.(*ast.CaseClause).List {
				cases[literal(e)] = true
			}
		}
		if cases["app_mention"] { // the switch over the types of events
			maps.Copy(u.events, cases)
		}
	case *ast.BasicLit:
		for _, m := range named.FindAllStringSubmatch(literal(n), -1) {
			u.commands[m[1]] = true
		}
		u.downloads = u.downloads || strings.Contains(n.Value, "url_private_download")
	}
	return true
}

// literal is the value of a string, "" for anything else.
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		if s, err := strconv.Unquote(l.Value); err == nil {
			return s
		}
	}
	return ""
}

// everywhere is a scope for each kind of conversation.
func everywhere(what string) []string {
	return []string{"channels:" + what, "groups:" + what, "im:" + what, "mpim:" + what}
}

// methodScopes is what Slack asks for each method of its client, by slack-go's names.
func methodScopes() map[string][]string {
	chat := []string{"chat:write"}
	return map[string][]string{
		"AuthTest": nil, "StartSocketMode": nil, "OpenView": nil, "PushView": nil, "UpdateView": nil, "PublishView": nil,
		"PostMessage": chat, "PostMessageWithResponse": chat, "PostEphemeral": chat, "UpdateMessage": chat, "DeleteMessage": chat,
		"GetPermalink": nil, "AddReaction": {"reactions:write"}, "RemoveReaction": {"reactions:write"}, "GetReactions": {"reactions:read"},
		"GetConversationReplies": everywhere("history"), "GetConversationHistory": everywhere("history"),
		"GetConversationsForUser": everywhere("read"), "GetConversationInfo": everywhere("read"), "GetUsersInConversation": everywhere("read"), "OpenConversation": {"im:write"},
		"GetUserInfo": {"users:read"}, "GetUserGroupMembers": {"usergroups:read"}, "GetUserGroups": {"usergroups:read"},
		"UploadFile": {"files:write"}, "GetFileInfo": {"files:read"}, "SetAgentSessionStatus": {"assistant:write"}, "SetAssistantThreadsSuggestedPrompts": {"assistant:write"},
	}
}

// eventScopes is what Slack calls each type of event in a manifest, and the scope that it asks for it.
func eventScopes() map[string]map[string]string {
	return map[string]map[string]string{
		"app_mention":           {"app_mention": "app_mentions:read"},
		"agent_session_stopped": {"agent_session_stopped": "assistant:write"},
		"app_home_opened":       {"app_home_opened": ""},
		"reaction_added":        {"reaction_added": "reactions:read"},
		"message": {
			"message.channels": "channels:history", "message.groups": "groups:history", "message.im": "im:history", "message.mpim": "mpim:history",
		},
	}
}

// TestScopesAreTold: docs/security.md says of each scope and event of the manifest what it is for, and of no other.
func TestScopesAreTold(t *testing.T) {
	t.Parallel()
	var m manifest
	if err := yaml.Unmarshal(deploy.Manifest(), &m); err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(read(t, "../docs/security.md"), "\n## What Slack gives it\n")
	section, _, _ := strings.Cut(after, "\n## ")
	scopes, events, both := strings.Cut(section, "\n| Event |")
	if !both {
		t.Fatal("docs/security.md has no tables of scopes and events")
	}
	for _, table := range []struct {
		what, text string
		want       []string
	}{{"scopes", scopes, m.OAuth.Scopes.Bot}, {"events", events, m.Settings.Events.Bot}} {
		var told []string
		for line := range strings.Lines(table.text) {
			first, purpose, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
			if !strings.HasPrefix(line, "| `") {
				continue
			}
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
				told = append(told, m[1])
			}
			if len(strings.Fields(purpose)) < 3 {
				t.Errorf("what is it for? %s", line)
			}
		}
		want := slices.Sorted(slices.Values(table.want))
		if slices.Sort(told); !slices.Equal(told, want) {
			t.Errorf("docs/security.md tells of the %s %v, want those of the manifest: %v", table.what, told, want)
		}
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	var m manifest
	if err := yaml.Unmarshal(deploy.Manifest(), &m); err != nil {
		t.Fatal(err)
	}
	used := botUsage(t)
	scopes, events := map[string]bool{}, map[string]bool{}
	for method := range used.methods {
		needs, known := methodScopes()[method]
		if !known {
			t.Errorf("the bot calls %s: say in this test which scopes Slack wants for it", method)
		}
		for _, s := range needs {
			scopes[s] = true
		}
	}
	for event := range used.events {
		subscribed, known := eventScopes()[event]
		if !known {
			t.Errorf("the bot acts on %s: say in this test which scopes Slack wants for it", event)
		}
		for name, scope := range subscribed {
			events[name] = true
			if scope != "" {
				scopes[scope] = true
			}
		}
	}
	if used.downloads {
		scopes["files:read"] = true
	}
	if len(used.commands) > 0 {
		scopes["commands"] = true
	}
	same := func(t *testing.T, what string, got []string, want map[string]bool) {
		t.Helper()
		slices.Sort(got)
		if expect := slices.Sorted(maps.Keys(want)); !slices.Equal(got, expect) {
			t.Errorf("%s of the manifest = %v, want what the bot uses: %v", what, got, expect)
		}
	}
	t.Run("the scopes are those that the bot's calls and events need, and no others", func(t *testing.T) {
		t.Parallel()
		same(t, "scopes", slices.Clone(m.OAuth.Scopes.Bot), scopes)
	})
	t.Run("the events are those that the bot acts on", func(t *testing.T) {
		t.Parallel()
		same(t, "events", slices.Clone(m.Settings.Events.Bot), events)
	})
	t.Run("the slash commands are those that the bot names to people, with names made into ids", func(t *testing.T) {
		t.Parallel()
		var got []string
		for _, c := range m.Features.Commands {
			got = append(got, c.Command)
			if !c.Escape {
				t.Errorf("%s: should_escape is off", c.Command)
			}
		}
		same(t, "commands", got, used.commands)
	})
	t.Run("the shortcuts are those that the bot knows", func(t *testing.T) {
		t.Parallel()
		var got []string
		for _, s := range m.Features.Shortcuts {
			got = append(got, s.Callback)
			if s.Type != "message" || len(s.Name) > 24 {
				t.Errorf("shortcut %q of type %s, want one of a message with at most 24 characters", s.Name, s.Type)
			}
		}
		same(t, "shortcuts", got, used.callbacks)
	})
	t.Run("the scopes are those that it asks for, and its link brings all of it to Slack", func(t *testing.T) {
		t.Parallel()
		if got := deploy.BotScopes(); !slices.Equal(got, m.OAuth.Scopes.Bot) || len(got) == 0 {
			t.Errorf("BotScopes = %v, want %v", got, m.OAuth.Scopes.Bot)
		}
		u, err := url.Parse(deploy.ManifestLink())
		if err != nil || u.Query().Get("manifest_yaml") != string(deploy.Manifest()) || len(u.String()) > 8000 { // servers take no more as a rule
			t.Errorf("the link of %d characters brings %q, %v", len(u.String()), u.Query(), err)
		}
	})
	t.Run("people mention the bot by the name of its slash command, as the pages do", func(t *testing.T) {
		t.Parallel()
		name := m.Features.Bot.Name
		if len(m.Features.Commands) != 1 || m.Features.Commands[0].Command != "/"+name {
			t.Errorf("the bot is called %q, and its commands are %v", name, m.Features.Commands)
		}
		if readme := read(t, "../README.md"); !strings.Contains(readme, "`/invite @"+name+"`") || !strings.Contains(readme, "`@"+name+" stop`") {
			t.Errorf("the README mentions the bot by another name than %q", name)
		}
	})
	t.Run("clicks and events come over the socket", func(t *testing.T) {
		t.Parallel()
		if !m.Settings.Socket || m.Settings.Interactivity.Enabled != used.buttons {
			t.Errorf("Socket Mode %v, interactivity %v, want true and %v", m.Settings.Socket, m.Settings.Interactivity.Enabled, used.buttons)
		}
	})
	t.Run("names are as short as Slack wants them", func(t *testing.T) {
		t.Parallel()
		if len(m.Display.Name) > 35 || len(m.Display.Desc) > 140 {
			t.Errorf("name has %d and description %d characters, want at most 35 and 140", len(m.Display.Name), len(m.Display.Desc))
		}
	})
}
