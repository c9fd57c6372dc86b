package runner

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Permission modes of Claude Code. There is nobody in a turn who could be asked: what a mode would ask for is denied, and the
// outcome says so.
const (
	ModeBypass      = "bypassPermissions" // everything is allowed; the default
	ModeAcceptEdits = "acceptEdits"       // files of the workspace may be changed
	ModeDefault     = "default"           // reading, and what AllowedTools names
	ModeDontAsk     = "dontAsk"           // the same, and Claude is told that nobody is asked
	ModePlan        = "plan"              // reading alone
	ModeAuto        = "auto"              // a classifier of Claude Code's decides, at the price of further requests
)

// PermissionModes lists the modes, the default first.
func PermissionModes() []string {
	return []string{ModeBypass, ModeAcceptEdits, ModeAuto, ModeDefault, ModeDontAsk, ModePlan}
}

// Efforts lists the efforts that Claude Code takes, the least first.
func Efforts() []string { return []string{"low", "medium", "high", "xhigh", "max"} }

// Mode is the permission mode that the turn runs in. Naming the tools that are allowed says that others are not.
func (s Settings) Mode() string {
	switch {
	case s.PermissionMode != "":
		return s.PermissionMode
	case len(s.AllowedTools) > 0:
		return ModeDontAsk
	}
	return ModeBypass
}

// modelName is 150 characters long at most: more is no value that can be chosen in a modal of Slack.
var modelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/\[\]-]{0,149}$`)

// CheckModel refuses what can be no model's name. Which models there are only the API knows.
func CheckModel(name string) error {
	if !modelName.MatchString(name) {
		return fmt.Errorf("%q is no name of a model: want one such as opus, sonnet or claude-sonnet-5", name)
	}
	return nil
}

var toolRule = regexp.MustCompile(`^[A-Za-z*][A-Za-z0-9_*-]*(\([^()\n]*\))?$`)

// CheckTool refuses what is no tool, nor a tool with a rule such as Bash(git log *).
func CheckTool(rule string) error {
	if !toolRule.MatchString(rule) {
		return fmt.Errorf("%q is no tool: want a name such as Edit, or one with a rule such as Bash(git log *)", rule)
	}
	return nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// CheckEnvName refuses names that no variable can have, or that the runner sets itself.
func CheckEnvName(name string) error {
	if !envName.MatchString(name) {
		return fmt.Errorf("%q is no name of a variable: want letters, digits and _, no digit first", name)
	}
	reserved := slices.Contains([]string{"HOME", "PATH", "USER", "IS_SANDBOX", "DISABLE_AUTOUPDATER", "NODE_OPTIONS", "BUN_OPTIONS", "BASH_ENV", "XDG_CONFIG_HOME"}, name)
	for _, prefix := range []string{"ANTHROPIC_", "CLAUDE", "FLAUDE", "GIT_", "LD_"} {
		reserved = reserved || strings.HasPrefix(name, prefix)
	}
	if reserved {
		return fmt.Errorf("%s is set by flaudebot itself: choose another name", name)
	}
	return nil
}

// CheckMCP refuses what Claude Code's --mcp-config would not take: {"mcpServers":{"name":{"command":…} or {"type":"http","url":…}}}.
func CheckMCP(config string) error {
	_, err := mcpServers(config)
	return err
}

// MCPServers are the names of the servers of a configuration, in order.
func MCPServers(config string) []string {
	servers, _ := mcpServers(config)
	return servers
}

func mcpServers(config string) ([]string, error) {
	if strings.TrimSpace(config) == "" {
		return nil, nil
	}
	var in struct {
		Servers map[string]struct {
			Type    string            `json:"type"`
			Command string            `json:"command"`
			Args    []string          `json:"args"`
			Env     map[string]string `json:"env"`
			URL     string            `json:"url"`
			Headers map[string]string `json:"headers"`
		} `json:"mcpServers"`
	}
	d := json.NewDecoder(strings.NewReader(config))
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("this is no JSON of MCP servers: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the JSON of MCP servers")
	}
	if len(in.Servers) == 0 {
		return nil, errors.New(`no server is named: want {"mcpServers": {"name": {"command": "…"}}}`)
	}
	var names []string
	for name, s := range in.Servers {
		switch {
		case !mcpName.MatchString(name):
			return nil, fmt.Errorf("%q is no name for an MCP server: want letters, digits, _ and -", name)
		case slices.Contains([]string{"http", "sse", "ws"}, s.Type) && s.URL == "":
			return nil, fmt.Errorf("the MCP server %s needs a url", name)
		case slices.Contains([]string{"", "stdio"}, s.Type) && s.Command == "":
			return nil, fmt.Errorf("the MCP server %s needs a command, or a type and a url", name)
		case !slices.Contains([]string{"", "stdio", "http", "sse", "ws"}, s.Type):
			return nil, fmt.Errorf("%q is no type of an MCP server: want stdio, http or sse", s.Type)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

var mcpName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// check refuses settings that would be something else on a command line or in an environment.
func (s Settings) check() error {
	for _, model := range append(strings.FieldsFunc(s.Fallback, isComma), s.Model) {
		if model != "" && CheckModel(model) != nil {
			return CheckModel(model)
		}
	}
	if s.Effort != "" && !slices.Contains(Efforts(), s.Effort) {
		return fmt.Errorf("%q is no effort: want one of %s", s.Effort, strings.Join(Efforts(), ", "))
	}
	if !slices.Contains(PermissionModes(), s.Mode()) {
		return fmt.Errorf("%q is no permission mode: want one of %s", s.PermissionMode, strings.Join(PermissionModes(), ", "))
	}
	for _, rule := range s.AllowedTools {
		if err := CheckTool(rule); err != nil {
			return err
		}
	}
	if err := CheckHosts(s.Hosts); err != nil {
		return err
	}
	for name, value := range s.Env {
		if err := checkVariable(name, value); err != nil {
			return err
		}
	}
	return CheckMCP(s.MCP)
}

func isComma(r rune) bool { return r == ',' }

func checkVariable(name, value string) error {
	if strings.ContainsRune(value, 0) {
		return fmt.Errorf("the value of %s holds a NUL byte", name)
	}
	return CheckEnvName(name)
}

// commandEnv are the variables that the channel's admins give to commands: the secrets are among them since the commands are to use them.
func (t *turn) commandEnv() []string {
	all := map[string]string{}
	maps.Copy(all, t.Settings.Env)
	maps.Copy(all, t.secrets.Env)
	aroundProxy(all)
	var out []string
	for name, value := range all {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// aroundProxy keeps a proxy that is meant for the commands out of Claude Code's way to the gateway.
func aroundProxy(env map[string]string) {
	for name := range env {
		if !slices.Contains([]string{"http_proxy", "https_proxy", "all_proxy"}, strings.ToLower(name)) {
			continue
		}
		direct := "127.0.0.1,localhost"
		if more := cmp.Or(env["NO_PROXY"], env["no_proxy"]); more != "" {
			direct += "," + more
		}
		env["NO_PROXY"], env["no_proxy"] = direct, direct
		return
	}
}

// WireSize is how many bytes settings and secrets take of the request that hands a turn over, of which [MaxBody] is the whole: JSON
// within the JSON of an exec.
func WireSize(s Settings, secrets map[string]string) int {
	var inner, outer bytes.Buffer
	_ = json.NewEncoder(&inner).Encode(map[string]any{"s": s, "e": secrets}) // these types always encode
	_ = json.NewEncoder(&outer).Encode(inner.String())
	return outer.Len()
}
