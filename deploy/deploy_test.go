package deploy_test

import (
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"flaudebot/deploy"
)

func read(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestFlyTOML(t *testing.T) {
	t.Parallel()
	toml := read(t, "fly.toml")
	for _, want := range []string{`kill_signal = "SIGTERM"`, `kill_timeout = "30s"`, `bot = "serve"`, `strategy = "rolling"`, `FLAUDEBOT_HTTP = ":8080"`, `path = "/readyz"`, `path = "/healthz"`, `path = "/metrics"`} {
		if !strings.Contains(toml, want) {
			t.Errorf("fly.toml lacks %s", want)
		}
	}
	if strings.Contains(toml, "[http_service]") || strings.Contains(toml, "[[services]]") {
		t.Error("fly.toml opens a public port")
	}
	if n := strings.Count(toml, "port = 8080"); n != 3 {
		t.Errorf("%d of three checks and scrapes are of the port of FLAUDEBOT_HTTP", n)
	}
}

func TestPinOfClaudeCode(t *testing.T) {
	t.Parallel()
	var pkg struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err := json.Unmarshal([]byte(read(t, "../tools/claude-code/package.json")), &pkg); err != nil {
		t.Fatal(err)
	}
	v := pkg.Dependencies["@anthropic-ai/claude-code"]
	if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(v) {
		t.Errorf("version = %q, want one exact version", v)
	}
	if strings.Contains(read(t, "../tools/claude-code/package-lock.json"), `"resolved"`) {
		t.Error("the lock file names a registry's host")
	}
}

func TestStaticBinary(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "flaudebot")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, "../cmd/flaudebot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux") // as in the images
	if raw, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, raw)
	}
	t.Run("it needs no interpreter and no library", func(t *testing.T) {
		t.Parallel()
		f, err := elf.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("the binary has a segment %v, want neither interpreter nor dynamic linking", p.Type)
			}
		}
		if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
			t.Errorf("libraries = %v, %v, want none", libs, err)
		}
	})
	t.Run("it carries the manifest", func(t *testing.T) {
		t.Parallel()
		if runtime.GOOS != "linux" {
			t.Skip("left out: the binary is for Linux")
		}
		raw, err := exec.CommandContext(t.Context(), out, "manifest").Output()
		if err != nil || string(raw) != string(deploy.Manifest()) {
			t.Errorf("flaudebot manifest = %d bytes, %v, want the manifest", len(raw), err)
		}
	})
}
