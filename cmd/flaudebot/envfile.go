package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// envFile is a file of settings: NAME=value lines, comments that begin with #, and nothing else. That is what `docker run --env-file` and
// `fly secrets import` read as well, so a value is all that stands behind the first =, quotes included. (`fly secrets import` takes a # in a
// value for the begin of a comment, of which deploy warns.)
type envFile struct {
	lines []string
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// readEnvFile reads a file; one that does not exist has no lines if that is allowed.
func readEnvFile(name string, mayMiss bool) (*envFile, error) {
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && mayMiss {
		return &envFile{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	f := &envFile{}
	var wrong badSettings
	for n, line := range strings.Split(strings.TrimRight(string(raw), "\n"), "\n") {
		line = strings.TrimRight(line, "\r")
		f.lines = append(f.lines, line)
		setting, value, ok := cutSetting(line)
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%s, line %d: want NAME=value, or a comment that begins with #", name, n+1))
		case len(value) > 1 && strings.ContainsRune(`"'`, rune(value[0])) && value[0] == value[len(value)-1]:
			wrong = append(wrong, fmt.Sprintf("%s, line %d: leave the quotes around the value of %s out: Docker takes them for a part of it", name, n+1, setting))
		}
	}
	if wrong != nil {
		return nil, wrong
	}
	return f, nil
}

// cutSetting splits NAME=value.
func cutSetting(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, "=")
	return name, value, ok && settingName.MatchString(name)
}

// values are what the file sets; of a name that stands there twice the last one counts, as with Docker.
func (f *envFile) values() map[string]string {
	out := map[string]string{}
	for _, line := range f.lines {
		if name, value, ok := cutSetting(line); ok {
			out[name] = value
		}
	}
	return out
}

// declined reports whether somebody has said that a setting is to stay away: its line is a comment.
func (f *envFile) declined(name string) bool { return slices.Contains(f.lines, "# "+name+"=") }

// add appends a setting.
func (f *envFile) add(name, value string) { f.lines = append(f.lines, name+"="+value) }

// decline notes that a setting is to stay away.
func (f *envFile) decline(name string) {
	if !f.declined(name) {
		f.lines = append(f.lines, "# "+name+"=")
	}
}

// write replaces the file at once, for its owner's eyes alone.
func (f *envFile) write(name string) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".flaudebot-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = tmp.WriteString(strings.Join(f.lines, "\n") + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// load puts what a file sets into the environment. What the environment has set already stands.
func loadEnvFile(name string) error {
	f, err := readEnvFile(name, false)
	if err != nil {
		return err
	}
	for setting, value := range f.values() {
		if _, set := os.LookupEnv(setting); set {
			continue
		}
		if err := os.Setenv(setting, value); err != nil {
			return fmt.Errorf("set %s of %s: %w", setting, name, err)
		}
	}
	return nil
}

// takeEnvFile takes --env-file and its value from the front of arguments; "": it is not there.
func takeEnvFile(args []string) (name string, rest []string) {
	if len(args) == 0 {
		return "", args
	}
	for _, flag := range []string{"--env-file", "-env-file"} {
		if value, ok := strings.CutPrefix(args[0], flag+"="); ok {
			return value, args[1:]
		}
		if args[0] == flag && len(args) > 1 {
			return args[1], args[2:]
		}
	}
	return "", args
}
