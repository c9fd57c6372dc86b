package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"flaudebot/local/claude"
	"flaudebot/runner"
)

// TestRealClaudeFindsNoKey has the real Claude Code run a program that looks for the keys of its machine wherever its user gets: environments, command lines and
// memory of all processes, the volume, homes and sockets, Git, the gateway, Fly's own socket. What it finds is read from the disk, where nothing is redacted.
// The same search finds what was put there on purpose.
func TestRealClaudeFindsNoKey(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("left out: only root on Linux can have Claude Code run as another user, and look into processes")
	}
	const key, git = "sk-ant-api03-the-key-that-is-looked-for-0001", "ghp_theTokenThatIsLookedFor0000000000000001"
	api := httptest.NewServer(claude.New(claude.Config{Key: key}).Handler())
	t.Cleanup(api.Close)
	m := newRealMachine(t, realClaude(t))
	m.key, m.api = key, strings.TrimPrefix(api.URL, "http://")
	finder := filepath.Join(filepath.Dir(m.cfg.Data), "finder")
	copyFile(t, os.Args[0], finder)
	m.boot()
	look := func(planted map[string]string) string {
		t.Helper()
		m.settings.Env = planted
		m.turns++
		turn := fmt.Sprintf("T:C:%d", m.turns)
		r := askRunner[runner.TakeReply](m, "take", runner.TakeRequest{
			Secrets: runner.Secrets{AnthropicAPIKey: key, GitToken: git, AnthropicBaseURL: api.URL},
			Turn: runner.Turn{
				ID: turn, SessionID: m.session, Settings: m.settings,
				Prompt: "run: " + findVariable + "=" + hex.EncodeToString([]byte(key)) + "," + hex.EncodeToString([]byte(git)) + " " + finder + " " + m.cfg.Data + " " + m.cfg.RunDir + " > found; echo ended",
			},
		})
		if r.Status != runner.StatusAccepted {
			t.Fatalf("take = %+v, want accepted", r)
		}
		m.follow(turn, func(runner.Event) bool { return false })
		found, err := os.ReadFile(filepath.Join(m.cfg.Data, "workspace", "found"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(found), "ended as user 10001\n") {
			t.Fatalf("it did not look everywhere, as Claude's user: %s", found)
		}
		return string(found)
	}
	if found := look(nil); strings.Contains(found, "FOUND") {
		t.Errorf("a key was found:\n%s", found)
	}
	if err := os.WriteFile(filepath.Join(m.cfg.Data, "workspace", "planted"), []byte("export TOKEN="+git+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	found := look(map[string]string{"PLANTED": key})
	for _, want := range []string{"FOUND 0 in the environment of", "FOUND 1 in the file " + filepath.Join(m.cfg.Data, "workspace", "planted"), "FOUND 0 in the memory of"} {
		if !strings.Contains(found, want) {
			t.Errorf("what was planted was not found: %q is missing in\n%s", want, found)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o755); err != nil {
		t.Fatal(err)
	}
}

// findVariable has this program be the one that looks for keys: they are in it as hexadecimal digits, which nobody takes for them.
const findVariable = "FLAUDEBOT_TEST_FIND"

// finder looks for keys and tells where they are, without saying them.
type finder struct {
	keys [][]byte
	out  io.Writer
}

// findKeys looks for the keys below the folders, and all around this process.
func findKeys(keys string, folders []string, out io.Writer) {
	f := finder{out: out}
	for one := range strings.SplitSeq(keys, ",") {
		key, err := hex.DecodeString(one)
		if err != nil || len(key) == 0 {
			fmt.Fprintln(out, "no key to look for")
			return
		}
		f.keys = append(f.keys, key)
	}
	f.processes()
	for _, dir := range append(folders, "/.fly", "/run", "/etc", "/root", "/home", os.Getenv("HOME"), os.Getenv("CLAUDE_CONFIG_DIR")) {
		f.folder(dir)
	}
	f.sockets(append(folders, "/.fly"))
	f.gateway()
	fmt.Fprintf(out, "ended as user %d\n", os.Getuid())
}

func (f finder) look(what string, raw []byte) {
	for i, key := range f.keys {
		if bytes.Contains(raw, key) {
			fmt.Fprintf(f.out, "FOUND %d in the %s\n", i, what)
		}
	}
}

func (f finder) processes() {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		for name, what := range map[string]string{"environ": "environment", "cmdline": "command line"} {
			if raw, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				f.look(what+" of "+pid, raw)
			}
		}
		if pid != strconv.Itoa(os.Getpid()) { // which knows them
			f.memory(dir, pid)
		}
	}
}

// memory reads what of a process can be read, in pieces that overlap.
func (f finder) memory(dir, pid string) {
	maps, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return
	}
	mem, err := os.Open(filepath.Join(dir, "mem"))
	if err != nil {
		return
	}
	defer func() { _ = mem.Close() }()
	const piece, overlap = 4 << 20, 256
	buf := make([]byte, piece)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || to-from > 1<<30 {
			continue
		}
		for at := from; at < to; at += piece - overlap {
			n, err := mem.ReadAt(buf[:min(piece, to-at)], at)
			f.look("memory of "+pid, buf[:n])
			if err != nil {
				break
			}
		}
	}
}

func (f finder) folder(dir string) {
	if dir == "" {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // it is closed to us
		}
		if info, err := d.Info(); err != nil || info.Size() > 64<<20 {
			return nil //nolint:nilerr // as above
		}
		if raw, err := os.ReadFile(path); err == nil {
			f.look("file "+path, raw)
		}
		return nil
	})
}

// sockets asks whoever listens: the runner, Git's helper, Fly.
func (f finder) sockets(folders []string) {
	for _, dir := range folders {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Type()&fs.ModeSocket == 0 {
				return nil //nolint:nilerr // it is closed to us
			}
			for _, request := range []string{"GET / HTTP/1.0\r\n\r\n", "GET /v1/tokens/oidc HTTP/1.0\r\n\r\n", credentialRequest("github.com"), credentialRequest("example.com")} {
				c, err := net.DialTimeout("unix", path, time.Second)
				if err != nil {
					continue
				}
				_ = c.SetDeadline(time.Now().Add(2 * time.Second))
				_, _ = io.WriteString(c, request)
				raw, _ := io.ReadAll(io.LimitReader(c, 1<<20))
				f.look("answer of "+path, raw)
				_ = c.Close()
			}
			return nil
		})
	}
}

func credentialRequest(host string) string {
	body := fmt.Sprintf(`{"protocol":"https","host":%q,"path":"acme/site"}`, host)
	return fmt.Sprintf("POST /credential HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// gateway asks what adds the key to Claude Code's requests.
func (f finder) gateway() {
	for _, path := range []string{"/", "/v1/models", "/debug/vars", "/../", "/v1/messages/count_tokens"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodTrace} {
			req, err := http.NewRequest(method, os.Getenv("ANTHROPIC_BASE_URL")+path, strings.NewReader("{}")) //nolint:noctx // it ends with the program
			if err != nil {
				continue
			}
			req.Header.Set("X-Api-Key", os.Getenv("ANTHROPIC_API_KEY"))
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				continue
			}
			raw, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
			_ = res.Body.Close()
			f.look("gateway's answer to "+method+" "+path, []byte(fmt.Sprint(res.Header)+string(raw)))
		}
	}
}
