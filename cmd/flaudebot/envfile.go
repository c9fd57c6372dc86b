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
	var v validator
	for n, line := range strings.Split(strings.TrimRight(string(raw), "\n"), "\n") {
		line = strings.TrimRight(line, "\r")
		f.lines = append(f.lines, line)
		setting, value, ok := cutSetting(line)
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case !ok:
			v.add("%s, line %d: want NAME=value, or a comment that begins with #", name, n+1)
		case unquoted(value) != value:
			v.add("%s, line %d: leave the quotes around the value of %s out: Docker takes them for a part of it", name, n+1, setting)
		}
	}
	if v.bad != nil {
		return nil, v.bad
	}
	return f, nil
}

// cutSetting splits NAME=value.
func cutSetting(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, "=")
	return name, value, ok && settingName.MatchString(name)
}

// unquoted is a value without quotes around it.
func unquoted(value string) string {
	if len(value) > 1 && strings.ContainsRune(`"'`, rune(value[0])) && value[0] == value[len(value)-1] {
		return value[1 : len(value)-1]
	}
	return value
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

// add appends a setting, unless it is there: what is there may be in use already.
func (f *envFile) add(name, value string) {
	if f.values()[name] == "" {
		f.lines = append(f.lines, name+"="+value)
	}
}

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

// loadEnvFile puts what a file sets into the environment. What the environment has set already stands.
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

// envFileName is the file that --env-file names; "": none. Two of them would be a riddle, since the environment that the first has set stands.
type envFileName string

func (n *envFileName) String() string { return string(*n) }

// Set makes a flag of it.
func (n *envFileName) Set(name string) error {
	switch {
	case name == "":
		return errors.New("want the name of a file")
	case *n != "" && string(*n) != name:
		return fmt.Errorf("%s is named already, and one file it is", *n)
	}
	*n = envFileName(name)
	return nil
}

// take takes --env-file and its value from the front of arguments.
func (n *envFileName) take(args []string) (rest []string, err error) {
	for len(args) > 0 {
		flag, value, ok := strings.Cut(args[0], "=")
		if !oneOf(flag, "--env-file", "-env-file") {
			break
		}
		if args = args[1:]; !ok && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		if err := n.Set(value); err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
	}
	return args, nil
}
