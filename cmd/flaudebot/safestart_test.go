package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"flaudebot/sessions"
)

// TestSafeStart: the settings that docs/security.md has a company begin with are taken as they stand, and bound what that page says they do.
func TestSafeStart(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "\n## For a company: a safe start\n")
	_, after, _ = strings.Cut(after, "\n```\n")
	fragment, _, found := strings.Cut(after, "\n```\n")
	if !found {
		t.Fatal("the page has no settings")
	}
	name := filepath.Join(t.TempDir(), "flaudebot.env")
	if err := os.WriteFile(name, []byte(fragment+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := readEnvFile(name, false)
	if err != nil {
		t.Fatal(err)
	}
	values := file.values()
	var lines []string
	for name, value := range values {
		lines = append(lines, name+"="+value)
	}
	if unknown := unknownSettings(lines); len(unknown) > 0 {
		t.Errorf("settings that are none: %v", unknown)
	}
	s := goodSettings()
	fields := reflect.ValueOf(&s).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Tag.Get("envconfig")
		if value, set := values[name]; set {
			fields.Field(i).SetString(value)
			delete(values, name)
		}
	}
	if len(values) > 0 {
		t.Errorf("nothing reads %v", values)
	}
	c, err := s.check(allParts()...)
	if err != nil {
		t.Fatal(err)
	}
	b, l := c.budgets, c.limits
	if b.PerTurn <= 0 || b.PerThread <= 0 || b.PerPerson <= 0 || b.PerChannel <= 0 || b.All <= 0 || l.Running <= 0 || l.RunningPerUser <= 0 || l.PerUser <= 0 {
		t.Errorf("budgets %+v, limits %+v: some are off", b, l)
	}
	if len(c.allowedUsers) == 0 || len(c.allowedChannels) == 0 || len(c.hosts) == 0 || len(c.namedRepos) > 0 || !c.isolate || c.redis.one.TLSConfig == nil {
		t.Errorf("users %v, channels %v, hosts %v, named repositories %v, isolated %v: not as narrow as the page says",
			c.allowedUsers, c.allowedChannels, c.hosts, c.namedRepos, c.isolate)
	}
}

// TestChannelLifts: what docs/security.md says that a channel's settings may be, whatever the bot's own say, they are not refused as.
func TestChannelLifts(t *testing.T) {
	t.Parallel()
	s := sessions.Settings{
		Hosts: []string{"*.example.com"}, BudgetUSD: new(0.0), VolumeGB: 500, Timeout: new(time.Duration(0)), TTL: new(time.Duration(0)), Linger: new(time.Hour),
		Guest: sessions.Guest{CPUKind: "performance", CPUs: 16, MemoryMB: 131072}, Region: "fra",
	}
	if err := s.Check(nil); err != nil {
		t.Error(err)
	}
	c, err := goodSettings().check(allParts()...)
	if err != nil || s.Guest.MemoryMB <= c.maxMemoryMB || s.VolumeGB <= c.maxVolumeGB {
		t.Errorf("%v; %d MB and %d GB are not above what people may choose with a button: %d and %d", err, s.Guest.MemoryMB, s.VolumeGB, c.maxMemoryMB, c.maxVolumeGB)
	}
}
