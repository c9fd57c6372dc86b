package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestWithoutAccounts: what the README says to try without accounts, line by line, with other ports.
func TestWithoutAccounts(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "local.env")
	said := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^bin/flaudebot ([a-z]+)( .*local\.env)`).FindAllStringSubmatch(string(page), -1) {
		said[m[1]] = append([]string{m[1]}, strings.Fields(strings.ReplaceAll(m[2], "local.env", file))...)
	}
	if len(said) != 4 {
		t.Fatalf("the README says %v, want four commands", said)
	}
	ports := []string{"--slack", "127.0.0.1:0", "--fly", "127.0.0.1:0", "--claude", "127.0.0.1:0", "--git", "127.0.0.1:0"}
	p := start(t, nil, slices.Concat(said["local"], ports)...)
	setup := self(t.Context(), nil, said["setup"]...)
	setup.Stdin = strings.NewReader("y\n" + redisServer(t) + "\n\n") // may it write, Redis, regions
	if out, err := setup.CombinedOutput(); err != nil || !strings.Contains(string(out), "(2 questions)") {
		t.Fatalf("setup = %v:\n%s", err, out)
	}
	if out, err := self(t.Context(), nil, said["doctor"]...).CombinedOutput(); err != nil || !strings.Contains(string(out), "Claude Code answered a turn") {
		t.Fatalf("doctor = %v:\n%s", err, out)
	}
	start(t, nil, said["serve"]...)
	w := newSlackWorld(t, p)
	general := w.channel("general")
	root := w.say(member, general, "", mention+"remember the number 42")
	if text, code := w.answer(general, root, root); code != "0" {
		t.Errorf("answer = %q (exit %s)", text, code)
	}
	t.Run("a file that is there is left alone", func(t *testing.T) {
		out, err := self(t.Context(), nil, slices.Concat(said["local"], ports)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), file+" exists, and may hold other settings") {
			t.Errorf("local = %v:\n%s", err, out)
		}
	})
}

// TestTakenPort: where a port is taken, it is said how to take another one, and make hands that on.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ports := []string{"--slack", l.Addr().String(), "--fly", "127.0.0.1:0", "--claude", "127.0.0.1:0", "--git", "127.0.0.1:0"}
	for _, command := range []string{"demo", "local"} {
		out, err := self(t.Context(), nil, append([]string{command}, ports...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), `--slack 127.0.0.1:0 takes a free port, and make demo ARGS="--slack 127.0.0.1:0"`) {
			t.Errorf("%s = %v:\n%s", command, err, out)
		}
	}
	out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "--no-print-directory", "-n", "demo", "ARGS=--slack 127.0.0.1:0").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "bin/flaudebot demo --slack 127.0.0.1:0\n") {
		t.Errorf("make demo = %v:\n%s", err, out)
	}
}
