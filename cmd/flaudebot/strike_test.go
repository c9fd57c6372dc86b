package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// striker stands between a replica and what it talks to, counts the replica's requests, and kills it around one of them: just before
// it is passed on, or just after it took effect, with its answer lost. Or it pauses the replica: then the request takes effect, and
// its answer is there when the replica wakes up.
type striker struct {
	at    int    // number of the request, from 1; 0: none
	only  string // requests with this word in their name alone are counted
	after bool   // it takes effect first
	kill  func()
	pause func() // nil: it kills

	mu    sync.Mutex
	count int    // guarded by mu
	what  string // guarded by mu; the request around which it was killed; "": it was not
	all   []string
}

// hit counts a request and says whether to kill around it.
func (s *striker) hit(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.what != "" {
		return false
	}
	s.all = append(s.all, what)
	if !strings.Contains(what, s.only) {
		return false
	}
	s.count++
	if s.count != s.at {
		return false
	}
	s.what = what
	if s.pause != nil {
		s.pause()
		return false
	}
	return true
}

// requests are those that were counted.
func (s *striker) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// landed names the request around which the replica was killed.
func (s *striker) landed() (what string, requests int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.what, s.count
}

// proxyHTTP passes requests on to a server.
func (s *striker) proxyHTTP(t *testing.T, name, upstream string) (base string) {
	t.Helper()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.hit(name + " " + r.Method + " " + r.URL.Path) {
			proxy.ServeHTTP(w, r)
			return
		}
		if s.after {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		s.kill()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(h.Close)
	return h.URL
}

// proxyRedis passes commands on to a Redis.
func (s *striker) proxyRedis(t *testing.T, upstream string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.redisConn(c, upstream)
		}
	}()
	return l.Addr().String()
}

// idle are commands that are sent whether something happens or not.
func idle(command string) bool {
	return slices.Contains([]string{"HELLO", "CLIENT", "PING", "BLPOP", "INFO"}, command)
}

// stageOf names the stage that a command writes.
func stageOf(raw []byte) string {
	for _, stage := range []string{"starting", "started", "result", "posting", "posted"} {
		if bytes.Contains(raw, []byte("\r\n"+stage+"\r\n")) {
			return " " + stage
		}
	}
	return ""
}

func (s *striker) redisConn(client net.Conn, upstream string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", upstream)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	lose, answered := make(chan struct{}), make(chan struct{})
	go func() {
		defer func() { _ = client.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			select {
			case <-lose:
				close(answered)
				return
			default:
			}
			if err != nil {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	in := bufio.NewReader(client)
	for {
		name, raw, err := readCommand(in)
		if err != nil {
			return
		}
		struck := !idle(name) && s.hit("redis "+name+stageOf(raw))
		if struck && !s.after {
			s.kill()
			return
		}
		if struck {
			close(lose)
		}
		if _, err := server.Write(raw); err != nil {
			return
		}
		if struck {
			select {
			case <-answered:
			case <-time.After(5 * time.Second): // it did not take effect: the run says so
			}
			s.kill()
			return
		}
	}
}

// readCommand reads one command of the Redis protocol, an array of bulk strings.
func readCommand(in *bufio.Reader) (name string, raw []byte, err error) {
	var all bytes.Buffer
	number := func(mark byte) (int, error) {
		line, err := in.ReadBytes('\n')
		all.Write(line)
		if err != nil {
			return 0, err
		}
		if line[0] != mark {
			return 0, fmt.Errorf("%q where %c is due", line, mark)
		}
		return strconv.Atoi(strings.TrimSpace(string(line[1:])))
	}
	n, err := number('*')
	if err != nil {
		return "", nil, err
	}
	for i := range n {
		size, err := number('$')
		if err != nil {
			return "", nil, err
		}
		arg := make([]byte, size+2)
		if _, err := io.ReadFull(in, arg); err != nil {
			return "", nil, err
		}
		if i == 0 {
			name = strings.ToUpper(string(arg[:size]))
		}
		all.Write(arg)
	}
	return name, all.Bytes(), nil
}
