// Package deploy holds what flaudebot needs to run for real: images, the bot's fly.toml, and the manifest of the Slack app,
// which the binary carries so that `flaudebot manifest` prints it.
package deploy

import (
	_ "embed"
	"net/url"
	"strings"

	"gopkg.in/yaml.v3"
)

//go:embed slack-manifest.yaml
var manifest []byte

// Manifest is the manifest from which Slack makes the app.
func Manifest() []byte { return manifest }

// ManifestLink leads to the page of Slack that makes the app of the manifest (https://docs.slack.dev/app-manifests/): whoever opens it chooses
// the workspace and confirms.
func ManifestLink() string {
	return "https://api.slack.com/apps?new_app=1&manifest_yaml=" + strings.ReplaceAll(url.QueryEscape(string(manifest)), "+", "%20") // spaces as everybody reads them
}

// BotScopes are the scopes that the manifest asks for.
func BotScopes() []string {
	var m struct {
		OAuth struct {
			Scopes struct {
				Bot []string `yaml:"bot"`
			} `yaml:"scopes"`
		} `yaml:"oauth_config"`
	}
	_ = yaml.Unmarshal(manifest, &m) // a test reads it
	return m.OAuth.Scopes.Bot
}
