package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestSetup: from nothing to a bot that runs, by answers on standard input.
func TestSetup(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	where := []string{"SLACK_API_URL=" + w.base + "/api/", "FLY_FLAPS_BASE_URL=http://" + w.fly, "FLY_API_BASE_URL=http://" + w.fly, "ANTHROPIC_BASE_URL=http://" + w.claude}
	ask := func(t *testing.T, file string, env []string, answers ...string) (printed string, code int) {
		t.Helper()
		cmd := self(t.Context(), slices.Concat(where, env), "setup", "--env-file", file)
		cmd.Stdin = strings.NewReader(strings.Join(answers, "\n") + "\n")
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	read := func(t *testing.T, file string) map[string]string {
		t.Helper()
		f, err := readEnvFile(file, false)
		if err != nil {
			t.Fatal(err)
		}
		return f.values()
	}
	file := filepath.Join(t.TempDir(), "flaudebot.env")
	good := []string{"xoxb-local", "xapp-local", w.redis, "fly-local-org", "acme", "setup-app", "", "sk-ant-local", "", ""}
	t.Run("each answer is tried as it comes, and a wrong one asked for again", func(t *testing.T) {
		answers := slices.Concat(
			[]string{"xapp-local", "", "xoxb-gone"}, good[:2], // of the wrong kind, none, and refused
			[]string{"redis://127.0.0.1:1"}, good[2:3], []string{"gone"}, good[3:4], []string{"Acme Inc."}, good[4:6], []string{"fra,here", "fra"}, []string{"sk-ant-gone"}, good[7:],
		)
		printed, code := ask(t, file, nil, answers...)
		if code != 0 {
			t.Fatalf("exit %d:\n%s", code, printed)
		}
		rest := printed
		for _, want := range []string{
			"asks for what is missing in " + file + " (10 questions), tries each answer, and writes it there at once", "https://api.slack.com/apps?new_app=1&manifest_yaml=",
			"SLACK_BOT_TOKEN holds the app-level token, which is for SLACK_APP_TOKEN. Fix: want the bot token, which begins with xoxb-", "an answer is needed here (Ctrl-C ends it)\nanother answer > ",
			"Slack refuses SLACK_BOT_TOKEN: invalid_auth", "ok       slack     SLACK_BOT_TOKEN is of @flaudebot", "SLACK_APP_TOKEN opens sockets",
			"[redis://127.0.0.1:6379/0] > ", "Redis at 127.0.0.1:1 does not answer", "the user of Redis has the rights", "Fly refuses FLY_API_TOKEN", "Fly knows the token",
			"FLAUDEBOT_FLY_ORG=Acme Inc.. Fix: want the organization's slug", "another answer, or Enter for personal > ",
			"the app setup-app does not exist yet: the bot makes it, in the organization acme", "[fra] > ", `"here" is no Fly region`, "Fly has room for a machine",
			"refuses ANTHROPIC_API_KEY", "Claude's API takes ANTHROPIC_API_KEY", "FLAUDEBOT_SECRETS_KEY is made", " is written, for your eyes alone",
			"fly apps create setup-app --org acme --network setup-app", "FLAUDEBOT_FLY_APP=setup-app make images", " doctor --live --env-file " + file, " serve --env-file " + file,
		} {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Fatalf("printed\n%s\nwant %q, after what comes before it", printed, want)
			}
			rest = after
		}
		for _, secret := range []string{"xoxb-", "xapp-local", "fly-local-org", "sk-ant-local", read(t, file)["FLAUDEBOT_SECRETS_KEY"]} {
			if strings.Contains(strings.ReplaceAll(printed, "begins with xoxb-", ""), secret+"local") || secret != "xoxb-" && strings.Contains(printed, secret) {
				t.Errorf("%s is shown:\n%s", secret, printed)
			}
		}
		got := read(t, file)
		want := map[string]string{
			"SLACK_BOT_TOKEN": "xoxb-local", "SLACK_APP_TOKEN": "xapp-local", "REDIS_URL": w.redis, "FLY_API_TOKEN": "fly-local-org", "FLAUDEBOT_FLY_ORG": "acme",
			"FLAUDEBOT_FLY_APP": "setup-app", "FLAUDEBOT_REGIONS": "fra", "ANTHROPIC_API_KEY": "sk-ant-local", "FLAUDEBOT_SECRETS_KEY": got["FLAUDEBOT_SECRETS_KEY"],
		}
		for name, value := range want {
			if got[name] != value || value == "" {
				t.Errorf("%s = %q, want %q", name, got[name], value)
			}
		}
		if len(got) != len(want) {
			t.Errorf("the file sets %v", got)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
	})
	t.Run("what is there is not asked for again", func(t *testing.T) {
		before, _ := os.ReadFile(file)
		printed, code := ask(t, file, nil)
		if after, _ := os.ReadFile(file); code != 0 || !strings.HasPrefix(printed, "nothing is missing") || string(before) != string(after) {
			t.Errorf("exit %d, printed\n%s", code, printed)
		}
	})
	t.Run("doctor finds it well, and the bot runs with it", func(t *testing.T) {
		out, err := self(t.Context(), append(where, "FLAUDEBOT_IMAGE="+w.fly+"/setup-app:session"), "doctor", "--env-file", file).CombinedOutput()
		if err != nil {
			t.Errorf("doctor = %v:\n%s", err, out)
		}
		start(t, append(where, "FLAUDEBOT_IMAGE="+w.fly+"/setup-app:session"), "serve", "--env-file", file).stop()
	})
	t.Run("what else is in the file stays, and nothing is written to it without leave", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		before := "# our settings\nTHEIRS=of another program = yes\n\nSLACK_BOT_TOKEN=xoxb-local\nFLAUDEBOT_LOG_LEVEL=warn\n"
		if err := os.WriteFile(file, []byte(before), 0o644); err != nil { //nolint:gosec // too open, as it may be
			t.Fatal(err)
		}
		missing := good[1:]
		if printed, code := ask(t, file, nil, "n"); code != 1 || !strings.Contains(printed, "exists. Add what is missing to it") || !strings.Contains(printed, "nothing was written") || strings.Contains(printed, "\nSLACK_APP_TOKEN") {
			t.Errorf("exit %d, printed\n%s\nwant to be asked before anything else", code, printed)
		}
		if now, _ := os.ReadFile(file); string(now) != before {
			t.Fatalf("the file is now\n%s", now)
		}
		printed, code := ask(t, file, []string{"ANTHROPIC_API_KEY=sk-ant-local"}, append([]string{"y"}, slices.DeleteFunc(slices.Clone(missing), func(s string) bool { return s == "sk-ant-local" })...)...)
		now, _ := os.ReadFile(file)
		if code != 0 || !strings.HasPrefix(string(now), before) || strings.Contains(string(now), "ANTHROPIC_API_KEY") || !strings.Contains(string(now), "\nSLACK_APP_TOKEN=xapp-local\n") {
			t.Errorf("exit %d, printed\n%s\nthe file is now\n%s", code, printed, now)
		}
		if !strings.Contains(printed, "Set in the environment, and not in the file: ANTHROPIC_API_KEY") {
			t.Errorf("printed\n%s\nwant what is not in the file", printed)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
	})
	t.Run("an answer with a problem can be used all the same", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		answers := slices.Clone(good)
		answers[2] = "redis://redis.internal.invalid:6379\n" // as seen from elsewhere
		if printed, code := ask(t, file, nil, answers...); code != 0 || read(t, file)["REDIS_URL"] != "redis://redis.internal.invalid:6379" {
			t.Errorf("exit %d, printed\n%s", code, printed)
		}
	})
	t.Run("when the answers end early each is written, and the next time the rest is asked for", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		printed, code := ask(t, file, nil)
		if _, err := os.Stat(file); code != 1 || err == nil || !strings.Contains(printed, "ask for SLACK_BOT_TOKEN: the answers came to their end; nothing was written") {
			t.Errorf("exit %d, %v, printed\n%s", code, err, printed)
		}
		for n, rest := 0, good; len(rest) > 0; n += 3 {
			now := rest[:min(3, len(rest))]
			answers := now
			if rest = rest[len(now):]; n > 0 {
				answers = append([]string{"y"}, now...)
			}
			printed, code := ask(t, file, nil, answers...)
			if len(rest) == 0 {
				if code != 0 || !strings.Contains(printed, " is written, for your eyes alone") {
					t.Errorf("exit %d, printed\n%s", code, printed)
				}
				break
			}
			if code != 1 || !strings.Contains(printed, "the answers came to their end; what was answered is in "+file+", and ") || !strings.Contains(printed, " setup --env-file "+file+" asks for the rest") {
				t.Errorf("exit %d, printed\n%s", code, printed)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v; want 0600", info, err)
			}
		}
		got := read(t, file)
		for name, want := range map[string]string{"SLACK_BOT_TOKEN": "xoxb-local", "REDIS_URL": w.redis, "FLAUDEBOT_FLY_APP": "setup-app", "ANTHROPIC_API_KEY": "sk-ant-local"} {
			if got[name] != want {
				t.Errorf("%s = %q, want %q", name, got[name], want)
			}
		}
		if text, _ := os.ReadFile(file); strings.Count(string(text), "\n# FLAUDEBOT_REPOS=\n") != 1 || strings.Count(string(text), "# Settings of flaudebot") != 1 || got["FLAUDEBOT_SECRETS_KEY"] == "" {
			t.Errorf("the file is\n%s", text)
		}
	})
	t.Run("what one service says to two tokens is printed once", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		printed, _ := ask(t, file, []string{"SLACK_API_URL=http://127.0.0.1:1/", "SLACK_BOT_TOKEN=xoxb-local"}, "xapp-local")
		if n := strings.Count(printed, "Slack at 127.0.0.1:1 does not answer"); n != 1 {
			t.Errorf("it is printed %d times:\n%s", n, printed)
		}
	})
	t.Run("the file may be named before the command", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "other.env")
		cmd := self(t.Context(), where, "--env-file", file, "setup")
		cmd.Dir = t.TempDir()
		cmd.Stdin = strings.NewReader("xoxb-local\n")
		out, _ := cmd.CombinedOutput()
		if files, err := os.ReadDir(cmd.Dir); err != nil || len(files) > 0 {
			t.Errorf("it wrote %v, %v", files, err)
		}
		if got := read(t, file); got["SLACK_BOT_TOKEN"] != "xoxb-local" {
			t.Errorf("the file has %v; printed\n%s", got, out)
		}
	})
	t.Run("quotes around an answer are left out, so that the file can be read", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		answers := slices.Clone(good)
		answers[0], answers[7], answers[8] = "'xoxb-local'", `"'sk-ant-local' "`, `""`
		printed, code := ask(t, file, nil, answers...)
		if got := read(t, file); code != 0 || got["SLACK_BOT_TOKEN"] != "xoxb-local" || got["ANTHROPIC_API_KEY"] != "sk-ant-local" || got["FLAUDEBOT_REPOS"] != "" {
			t.Errorf("exit %d, %v, printed\n%s", code, got, printed)
		}
	})
	// begin starts it, and returns as it asks its first question.
	begin := func(t *testing.T, file string, env []string) (cmd *exec.Cmd, in io.Writer, out io.Reader, said *strings.Builder) {
		t.Helper()
		cmd, said = self(t.Context(), slices.Concat(where, env), "setup", "--env-file", file), &strings.Builder{}
		stdin, _ := cmd.StdinPipe()
		t.Cleanup(func() { _ = stdin.Close() })
		cmd.Stderr = said
		stdout, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitPrompt(t, stdout)
		return cmd, stdin, stdout, said
	}
	t.Run("what somebody else has put into the file meanwhile stays, and is not added once more", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		cmd, in, out, said := begin(t, file, nil)
		theirs := "SLACK_BOT_TOKEN=xoxb-local\nCLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat-theirs\nFLAUDEBOT_SECRETS_KEY=" + strings.Repeat("QUFB", 10) + "QUE=\n"
		if err := os.WriteFile(file, []byte(theirs), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(in, strings.Join(good, "\n")+"\n")
		printed, _ := io.ReadAll(out)
		_ = cmd.Wait()
		now, _ := os.ReadFile(file)
		if !strings.HasPrefix(string(now), theirs) || strings.Contains(string(now), "ANTHROPIC_API_KEY") || !strings.Contains(string(now), "\nFLAUDEBOT_FLY_APP=setup-app\n") {
			t.Errorf("the file is now\n%s", now)
		}
		for _, name := range []string{"SLACK_BOT_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "FLAUDEBOT_SECRETS_KEY"} {
			if strings.Count(string(now), name) != 1 || !strings.Contains(string(printed), name+" is in "+file+" meanwhile, and stays as it is there\n") {
				t.Errorf("%s: the file is now\n%s\nprinted\n%s", name, now, printed)
			}
		}
		if code := cmd.ProcessState.ExitCode(); code != 0 || strings.Contains(string(printed), "FLAUDEBOT_SECRETS_KEY is made") {
			t.Errorf("exit %d, printed\n%s\n%s", code, printed, said)
		}
	})
	t.Run("Ctrl-C while an answer is tried ends it, and says nothing of the answer", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
		cmd, in, out, said := begin(t, file, []string{"SLACK_API_URL=http://" + silent.Addr().String() + "/"})
		_, _ = io.WriteString(in, "xoxb-local\n")
		tried, err := silent.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tried.Close() }()
		_ = cmd.Process.Signal(syscall.SIGINT)
		printed, _ := io.ReadAll(out)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 || strings.TrimSpace(string(printed)) != "" || said.String() != "\nnothing was written\n" {
			t.Errorf("exit %d, printed %q, said %q", code, printed, said)
		}
	})
	t.Run("Ctrl-C ends it, and what was answered is written", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "settings")
		cmd, in, out, said := begin(t, file, nil)
		_, _ = io.WriteString(in, "xoxb-local\n")
		awaitPrompt(t, out)
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		if got := read(t, file); cmd.ProcessState.ExitCode() != 130 || len(got) != 1 || got["SLACK_BOT_TOKEN"] != "xoxb-local" || !strings.Contains(said.String(), "what was answered is in "+file) {
			t.Errorf("exit %d, %v, said %s; want 130 and the answer", cmd.ProcessState.ExitCode(), got, said.String())
		}
	})
}

// awaitPrompt reads until a prompt.
func awaitPrompt(t *testing.T, from io.Reader) string {
	t.Helper()
	var seen []byte
	b := make([]byte, 1024)
	for !strings.HasSuffix(string(seen), "> ") {
		n, err := from.Read(b)
		if seen = append(seen, b[:n]...); err != nil {
			t.Fatalf("it ended with %v after %s", err, seen)
		}
	}
	return string(seen)
}

// TestEnvFile: the file is what Docker and Fly read as well.
func TestEnvFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	for text, want := range map[string]string{
		"A=1\nB=x y = z\n# C=3\n\nA=2\n": "",
		"A=1\r\nB=2\r\n":                 "",
		"":                               "",
		"export A=1\n":                   "line 1: want NAME=value",
		"A=1\nnonsense\n":                "line 2: want NAME=value",
		"A=\"secret\"\n":                 "line 1: leave the quotes around the value of A out",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := readEnvFile(name, false)
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", text, err, want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%q: %v shows a value", text, err)
		}
		if v := f; want == "" && strings.HasPrefix(text, "A=1\nB") && (v.values()["A"] != "2" || v.values()["B"] != "x y = z" || len(v.values()) != 2) {
			t.Errorf("values = %v", v.values())
		}
	}
	if _, err := readEnvFile(filepath.Join(dir, "none"), false); err == nil {
		t.Error("a file that does not exist is read")
	}
	// Written again it has the same lines, with line ends of Unix, none that is empty at its end, and for its owner's eyes alone.
	if err := os.WriteFile(name, []byte("A=1\r\n\r\n# C\r\nB=2\n\n\n"), 0o640); err != nil { //nolint:gosec // too open, as it may be
		t.Fatal(err)
	}
	again, err := readEnvFile(name, false)
	if err == nil {
		err = again.write(name)
	}
	text, _ := os.ReadFile(name)
	if info, statErr := os.Stat(name); err != nil || statErr != nil || string(text) != "A=1\n\n# C\nB=2\n" || info.Mode().Perm() != 0o600 {
		t.Errorf("it is %q with mode %v, %v, %v", text, info.Mode(), err, statErr)
	}
	// By a link to it the file is replaced, and not the link.
	link := filepath.Join(dir, "link")
	if err := os.Symlink(name, link); err != nil {
		t.Fatal(err)
	}
	f := &envFile{}
	f.add("A", "1")
	f.decline("B")
	if err := f.write(link); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != name {
		t.Errorf("the link leads to %s, %v", to, err)
	}
	if got, err := readEnvFile(name, false); err != nil || !got.declined("B") || got.values()["A"] != "1" {
		t.Errorf("read %v, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".flaudebot-*")); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	if out, err := exec.CommandContext(context.Background(), "sh", "-c", ". "+name+" && echo $A").Output(); err != nil || !regexp.MustCompile(`^1\s*$`).Match(out) {
		t.Errorf("a shell reads %q, %v", out, err)
	}
}
