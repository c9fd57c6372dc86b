//go:build image && linux

package deploy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flaudebot/local/claude"
	"flaudebot/runner"
)

// imageTime bounds every wait for something in the image.
const imageTime = 2 * time.Minute

// TestSessionImage builds session.Dockerfile without a Docker engine and has a turn of the real Claude Code run in it. The base image is made with
// debootstrap, the commands of the last stage are run in it as they stand, what is copied comes from where the other stages take it, and the entry
// point is process 1, as root. `make image-test` runs it: it needs root, debootstrap and a Debian mirror.
func TestSessionImage(t *testing.T) {
	t.Parallel()
	stages := dockerfile(t, read(t, "session.Dockerfile"))
	api := httptest.NewServer(claude.New(claude.Config{}).Handler())
	t.Cleanup(api.Close)
	m := bootImage(t, stages)

	if got := uids(t, m.pid); got != "0 0 0 0" {
		t.Errorf("process 1 has the user ids %s, want root's", got)
	}
	secrets := runner.Secrets{AnthropicAPIKey: "sk-ant-local", AnthropicBaseURL: api.URL}
	take := func(id, prompt string) {
		t.Helper()
		reply := verb[runner.TakeReply](t, m, "take", runner.TakeRequest{Fence: 1, Secrets: secrets, Turn: runner.Turn{
			ID: id, SessionID: "5f0c1d2e-0000-4000-8000-000000000001", Prompt: prompt,
		}})
		if reply.Status != runner.StatusAccepted {
			t.Fatalf("take = %+v", reply)
		}
	}
	result := func(id string) string {
		t.Helper()
		for end := time.Now().Add(imageTime); ; {
			reply := verb[runner.EventsReply](t, m, "events", runner.EventsRequest{Turn: id, After: 1 << 20, WaitMS: 1000})
			if reply.Status == runner.StatusDone {
				if reply.Outcome.ExitCode != 0 || reply.Outcome.Failure != runner.FailNone {
					t.Errorf("the turn ended with %+v", reply.Outcome)
				}
				text := verb[runner.ResultReply](t, m, "result", runner.ResultRequest{Turn: id}).Text
				verb[runner.AckReply](t, m, "ack", runner.AckRequest{Turn: id, Fence: 1})
				return text
			}
			if time.Now().After(end) {
				t.Fatalf("the turn does not end: %+v", reply)
			}
		}
	}

	const goOn = "/data/workspace/go"
	take("T:C:1", "run: touch begun; until [ -e "+goOn+" ]; do sleep 0.1; done; id -u; id -un; touch /usr/none; git --version && gh --version && jq --version && rg --version && curl --version && ps --version")
	m.until(t, "the command at work", func() bool { _, err := os.Stat(m.path("/data/workspace/begun")); return err == nil })
	own := m.owners(t)
	if got := own["claude"]; got != "10001 10001 10001 10001" {
		t.Errorf("Claude Code has the user ids %q among %v, want its own", got, own)
	}
	if got := own["flaudebot"]; got != "0 0 0 0" {
		t.Errorf("the runner has the user ids %q, want root's", got)
	}
	if err := os.WriteFile(m.path(goOn), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	answer := result("T:C:1")
	for _, want := range []string{"10001\nclaude\n", "Permission denied", "git version", "gh version", "jq-", "ripgrep", "curl 7", "procps"} {
		if !strings.Contains(answer, want) {
			t.Errorf("%q is missing in the answer:\n%s", want, answer)
		}
	}
	if strings.Contains(answer, "sk-ant-local") {
		t.Error("the answer has a credential")
	}
}

// image is a machine of the session image that runs.
type image struct {
	pid int // of process 1, on this side
}

// path is where something of the image is, seen from here.
func (m image) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(m.pid), "root", name)
}

func (m image) until(t *testing.T, what string, look func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(imageTime); !look(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, imageTime)
		}
	}
}

// owners are the user ids of the image's processes, by their programs.
func (m image) owners(t *testing.T) map[string]string {
	t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		ns, err := os.Readlink(filepath.Join(dir, "ns", "pid"))
		exe, exeErr := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || exeErr != nil || ns != own {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			out[filepath.Base(exe)] = uids(t, pid)
		}
	}
	return out
}

// uids are the real, effective, saved and file system's user ids of a process.
func uids(t *testing.T, pid int) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			return strings.Join(strings.Fields(ids), " ")
		}
	}
	return ""
}

// verb asks the runner as Fly's exec does: as root, beside process 1.
func verb[Reply any](t *testing.T, m image, name string, request any) Reply {
	t.Helper()
	raw, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var reply Reply
	m.until(t, "an answer to "+name, func() bool {
		cmd := exec.CommandContext(t.Context(), "nsenter", "--target", strconv.Itoa(m.pid), "--mount", "--pid", "--root", "--wd=/", "--",
			"/usr/local/bin/flaudebot", "runner", name)
		cmd.Env = imageEnv()
		cmd.Stdin = bytes.NewReader(raw)
		out, err := cmd.Output()
		return err == nil && json.Unmarshal(out, &reply) == nil // before it is up it cannot be asked
	})
	return reply
}

func imageEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
}

// bootScript is process 1 of the machine: a root in memory from an archive, with what is copied in it, and then the entry point. $1 is where, $2 the
// archive; then pairs of what is copied and where to, --, and the entry point.
const bootScript = `set -e
mount --make-rprivate /
mount -t tmpfs -o size=2g,mode=755 tmpfs "$1"
tar -C "$1" -xf "$2"
root=$1
shift 2
while [ "$1" != -- ]; do
	mkdir -p "$root$(dirname "$2")"
	cp -L "$1" "$root$2"
	chmod 755 "$root$2"
	shift 2
done
shift
mkdir -p "$root/data"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp /etc/resolv.conf "$root/etc/resolv.conf"
exec chroot "$root" "$@"`

func bootImage(t *testing.T, stages []stage) image {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the session image can be tried by root only")
	}
	final := stages[len(stages)-1]
	args := []string{"-c", bootScript, "sh", t.TempDir(), rootArchive(t, final)}
	for _, c := range final.of("COPY") {
		words := strings.Fields(c.args)
		args = append(args, copied(t, stages, c.flags["from"], words[0]), words[1])
	}
	cmd := exec.Command("/bin/sh", append(append(args, "--"), append(final.last(t, "ENTRYPOINT"), final.last(t, "CMD")...)...)...)
	var log bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = imageEnv(), &log, &log, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("process 1 logged:\n%s", log.String())
		}
	})
	m := image{pid: cmd.Process.Pid}
	m.until(t, "the entry point at work", func() bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", m.pid))
		return err == nil && strings.HasSuffix(exe, "/flaudebot")
	})
	return m
}

// rootArchive is the file system of a stage that begins with Debian, before anything is copied: made once for each wording of its commands.
func rootArchive(t *testing.T, s stage) string {
	t.Helper()
	suites := map[string]string{"debian:12-slim": "bookworm", "debian:13-slim": "trixie"}
	suite := suites[s.base]
	if suite == "" {
		t.Fatalf("FROM %s: no suite of debootstrap is known for it", s.base)
	}
	mirror := os.Getenv("FLAUDEBOT_TEST_DEBIAN")
	if mirror == "" {
		mirror = "http://deb.debian.org/debian"
	}
	var runs []string
	for _, in := range s.of("RUN") {
		runs = append(runs, in.args)
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{s.base, mirror}, runs...), "\n")))
	archive, err := filepath.Abs(filepath.Join("..", ".tools", fmt.Sprintf("session-root-%x.tar", sum[:6])))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	t.Logf("making %s with debootstrap", archive)
	const script = `set -e
mount --make-rprivate /
mount -t tmpfs -o size=2g,mode=755 tmpfs "$1"
debootstrap --variant=minbase "$2" "$1" "$3"
root=$1 archive=$4
shift 4
mount -t proc proc "$root/proc"
for run; do DEBIAN_FRONTEND=noninteractive chroot "$root" /bin/sh -c "$run"; done
umount "$root/proc"
mkdir -p "$(dirname "$archive")"
tar -C "$root" -cf "$archive.new" .
mv "$archive.new" "$archive"`
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", t.TempDir(), suite, mirror, archive}, runs...)...)
	cmd.Env = append(imageEnv(), "DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the root is not made: %v\n%s", err, out[max(0, len(out)-4000):])
	}
	return archive
}

// copied is a file here in the place of one that an earlier stage makes: the program by that stage's own command, Claude Code from where its lock
// file was installed.
func copied(t *testing.T, stages []stage, from, name string) string {
	t.Helper()
	i := slices.IndexFunc(stages, func(s stage) bool { return s.name == from })
	if i < 0 {
		t.Fatalf("COPY --from=%s: there is no such stage", from)
	}
	if from == "claude" {
		path, err := exec.LookPath(os.Getenv("FLAUDEBOT_TEST_CLAUDE"))
		if err != nil {
			t.Fatal("FLAUDEBOT_TEST_CLAUDE is not set to the pinned Claude Code")
		}
		return path
	}
	out := filepath.Join(t.TempDir(), filepath.Base(name))
	build := strings.Replace(stages[i].run(t, "go build"), "-o "+name+" ", "-o '"+out+"' ", 1)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", build)
	cmd.Dir = ".."
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, said)
	}
	return out
}
