package main

import (
	"context"
	"fmt"
	"runtime/debug"

	"flaudebot/deploy"
)

// version prints what this binary was built from.
func version(_ context.Context, c cli) error {
	_, err := fmt.Fprintln(c.stdout, "flaudebot", buildVersion())
	return err
}

// buildVersion is the module's version, or the commit that was built.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	out := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (out == "" || out == "(devel)") {
			out = s.Value[:min(len(s.Value), 12)]
		}
	}
	if out == "" {
		return "devel"
	}
	return out
}

// manifest prints the manifest from which Slack makes the app.
func manifest(_ context.Context, c cli) error {
	_, err := c.stdout.Write(deploy.Manifest())
	return err
}
