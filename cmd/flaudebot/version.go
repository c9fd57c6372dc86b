package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"flaudebot/deploy"
)

// version prints what this binary was built from.
func version(_ context.Context, c cli) error {
	_, err := fmt.Fprintln(c.stdout, "flaudebot", buildVersion(), strings.Join(builtFrom(), ", "))
	return err
}

// buildVersion is the module's version, or the commit that was built.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if commit := vcs(info, "vcs.revision"); commit != "" {
		return commit[:min(len(commit), 12)]
	}
	return "devel"
}

// builtFrom tells the commit, whether it was changed, and with what it was built, as far as the binary knows.
func builtFrom() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var out []string
	if commit := vcs(info, "vcs.revision"); commit != "" {
		out = append(out, "commit "+commit)
	}
	if vcs(info, "vcs.modified") == "true" {
		out = append(out, "changed since")
	}
	return append(out, info.GoVersion, runtime.GOOS+"/"+runtime.GOARCH)
}

func vcs(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// manifest prints the manifest from which Slack makes the app, or the link that has it do so.
func manifest(_ context.Context, c cli) error {
	flags := c.flags()
	link := flags.Bool("link", false, "print a link to the page of Slack that makes the app")
	if err := c.parse(flags); err != nil {
		return err
	}
	if *link {
		_, err := fmt.Fprintln(c.stdout, deploy.ManifestLink())
		return err
	}
	_, err := c.stdout.Write(deploy.Manifest())
	return err
}
