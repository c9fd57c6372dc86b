package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one of a Dockerfile, its continued lines joined.
type instruction struct {
	name  string // in capitals
	flags map[string]string
	args  string
}

// stage is what a FROM begins.
type stage struct {
	base, name string
	all        []instruction
}

// dockerfile reads a Dockerfile.
func dockerfile(t *testing.T, text string) []stage {
	t.Helper()
	var out []stage
	joined := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if more, ok := strings.CutSuffix(line, `\`); ok {
			joined += more + " "
			continue
		}
		in := instruction{flags: map[string]string{}}
		in.name, in.args, _ = strings.Cut(strings.TrimSpace(joined+line), " ")
		joined = ""
		for strings.HasPrefix(in.args, "--") {
			var flag string
			flag, in.args, _ = strings.Cut(in.args, " ")
			key, value, _ := strings.Cut(flag[2:], "=")
			in.flags[key] = value
		}
		in.name = strings.ToUpper(in.name)
		if in.name == "FROM" {
			words := strings.Fields(in.args)
			s := stage{base: words[0]}
			if len(words) == 3 && strings.EqualFold(words[1], "AS") {
				s.name = words[2]
			}
			out = append(out, s)
			continue
		}
		if len(out) == 0 {
			t.Fatalf("%s before the first FROM", in.name)
		}
		out[len(out)-1].all = append(out[len(out)-1].all, in)
	}
	if joined != "" {
		t.Fatal("the last line is continued into nothing")
	}
	return out
}

func (s stage) of(name string) []instruction {
	var out []instruction
	for _, in := range s.all {
		if in.name == name {
			out = append(out, in)
		}
	}
	return out
}

// last is the words of the last instruction of a name, in the exec form; nil: there is none.
func (s stage) last(t *testing.T, name string) []string {
	t.Helper()
	all := s.of(name)
	if len(all) == 0 {
		return nil
	}
	var out []string
	if err := json.Unmarshal([]byte(all[len(all)-1].args), &out); err != nil {
		t.Errorf("%s %s: %v, want the exec form: the shell would be process 1", name, all[len(all)-1].args, err)
	}
	return out
}

// runs are the commands of a stage, one by one.
func (s stage) runs() []string {
	var out []string
	for _, in := range s.of("RUN") {
		for c := range strings.SplitSeq(in.args, "&&") {
			out = append(out, strings.TrimSpace(c))
		}
	}
	return out
}

// run is the stage's one command that has the text.
func (s stage) run(t *testing.T, text string) string {
	t.Helper()
	for _, c := range s.runs() {
		if strings.Contains(c, text) {
			return c
		}
	}
	t.Errorf("stage %q runs no %s", s.name, text)
	return ""
}

var (
	pinned    = regexp.MustCompile(`^[a-z0-9./-]+(:[a-z0-9.-]+|@sha256:[0-9a-f]{64})$`)
	secretive = regexp.MustCompile(`(?i)\b\w*(token|api_?key|secret|password)\w*\s*=`)
)

func TestDockerfiles(t *testing.T) {
	t.Parallel()
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))[1]
	for _, name := range []string{"Dockerfile", "session.Dockerfile"} {
		stages := dockerfile(t, read(t, name))
		t.Run(name+": each stage begins with a pinned image", func(t *testing.T) {
			t.Parallel()
			for _, s := range stages {
				if !pinned.MatchString(s.base) || strings.HasSuffix(s.base, ":latest") {
					t.Errorf("FROM %s: want a version", s.base)
				}
				if strings.HasPrefix(s.base, "golang:") && !strings.HasPrefix(s.base, "golang:"+version+"-") {
					t.Errorf("FROM %s: go.mod says %s", s.base, version)
				}
			}
		})
		t.Run(name+": what is copied is there", func(t *testing.T) {
			t.Parallel()
			for i, s := range stages {
				for _, c := range s.of("COPY") {
					checkCopy(t, stages[:i], c)
				}
			}
		})
		t.Run(name+": the binary is static and without the paths of this machine", func(t *testing.T) {
			t.Parallel()
			build := stages[0].run(t, "go build")
			if !strings.HasPrefix(build, "CGO_ENABLED=0 ") || !strings.Contains(build, "-trimpath") || !strings.HasSuffix(build, " ./cmd/flaudebot") {
				t.Errorf("built by %q", build)
			}
		})
		t.Run(name+": no credential is in the image", func(t *testing.T) {
			t.Parallel()
			for _, s := range stages {
				for _, in := range s.all {
					if secretive.MatchString(in.args) || in.name == "ARG" || in.name == "ADD" {
						t.Errorf("%s %s: looks like a secret, or brings something from outside", in.name, in.args)
					}
				}
			}
		})
		t.Run(name+": the program that starts is in it", func(t *testing.T) {
			t.Parallel()
			final := stages[len(stages)-1]
			entry := final.last(t, "ENTRYPOINT")
			if len(entry) == 0 {
				t.Fatal("no ENTRYPOINT")
			}
			if !slices.ContainsFunc(final.of("COPY"), func(c instruction) bool { return strings.HasSuffix(c.args, " "+entry[0]) }) {
				t.Errorf("ENTRYPOINT %v: nothing is copied there", entry)
			}
		})
	}
	bot := dockerfile(t, read(t, "Dockerfile"))
	session := dockerfile(t, read(t, "session.Dockerfile"))
	t.Run("the bot serves, and is not root", func(t *testing.T) {
		t.Parallel()
		final := bot[len(bot)-1]
		users := final.of("USER")
		if len(users) != 1 || users[0].args == "root" || users[0].args == "0" {
			t.Errorf("USER = %v, want one that is not root", users)
		}
		if got := append(final.last(t, "ENTRYPOINT"), final.last(t, "CMD")...); !slices.Equal(got, []string{"/usr/local/bin/flaudebot", "serve"}) {
			t.Errorf("it starts %v", got)
		}
		if len(final.of("EXPOSE")) > 0 || len(final.of("RUN")) > 0 {
			t.Error("the image opens a port, or needs a shell")
		}
	})
	t.Run("the runner is process 1 of a session, as root", func(t *testing.T) {
		t.Parallel()
		final := session[len(session)-1]
		if got := append(final.last(t, "ENTRYPOINT"), final.last(t, "CMD")...); !slices.Equal(got, []string{"/usr/local/bin/flaudebot", "runner"}) {
			t.Errorf("it starts %v", got)
		}
		if users := final.of("USER"); len(users) > 0 {
			t.Errorf("USER = %v: the runner makes Claude Code another user, and must be root for it", users)
		}
	})
	t.Run("Claude Code is pinned, and has a user of its own", func(t *testing.T) {
		t.Parallel()
		final := session[len(session)-1]
		add := strings.Fields(final.run(t, "useradd"))
		if i := slices.Index(add, "--uid"); i < 0 || add[i+1] != "10001" || add[len(add)-1] != "claude" {
			t.Errorf("useradd = %v, want claude with the uid 10001, the runner's default", add)
		}
		for _, s := range session {
			if s.name != "claude" {
				continue
			}
			if !strings.HasPrefix(s.run(t, "npm"), "npm ci ") || !strings.Contains(fmt.Sprint(s.of("COPY")), "package-lock.json") {
				t.Error("Claude Code is not installed from its lock file")
			}
			return
		}
		t.Error("no stage is named claude")
	})
	t.Run("what turns use is there", func(t *testing.T) {
		t.Parallel()
		packages := strings.Fields(session[len(session)-1].run(t, "apt-get install"))
		for _, want := range []string{"ca-certificates", "git", "gh", "jq", "ripgrep"} {
			if !slices.Contains(packages, want) {
				t.Errorf("apt-get installs %v, want %s too", packages, want)
			}
		}
	})
}

// checkCopy checks that the sources of a COPY exist: in an earlier stage something made them, or they are in the repository.
func checkCopy(t *testing.T, earlier []stage, c instruction) {
	t.Helper()
	words := strings.Fields(c.args)
	sources := words[:len(words)-1]
	from, staged := c.flags["from"]
	if !staged {
		for _, src := range sources {
			if _, err := os.Stat(filepath.Join("..", src)); err != nil {
				t.Errorf("COPY %s: %v", c.args, err)
			}
			for ignored := range strings.Lines(read(t, "../.dockerignore")) {
				if ignored = strings.TrimSpace(ignored); src == ignored || strings.HasPrefix(src, ignored+"/") {
					t.Errorf("COPY %s: .dockerignore leaves it out", c.args)
				}
			}
		}
		return
	}
	i := slices.IndexFunc(earlier, func(s stage) bool { return s.name == from })
	if i < 0 {
		t.Errorf("COPY --from=%s: no earlier stage has this name", from)
		return
	}
	for _, src := range sources {
		made := func(c string) bool { return slices.Contains(strings.Fields(c), src) }
		if !slices.ContainsFunc(earlier[i].runs(), made) {
			t.Errorf("COPY --from=%s %s: nothing in that stage makes it", from, src)
		}
	}
}
