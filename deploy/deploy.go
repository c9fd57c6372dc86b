// Package deploy holds what flaudebot needs to run for real: images, the bot's fly.toml, and the manifest of the Slack app,
// which the binary carries so that `flaudebot manifest` prints it.
package deploy

import _ "embed"

//go:embed slack-manifest.yaml
var manifest []byte

// Manifest is the manifest from which Slack makes the app.
func Manifest() []byte { return manifest }
