package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A channel may name the hosts that are to be reached from its sessions. All that runs as Claude's user then runs in a network of its own (a network namespace
// of Linux), which has a loopback and nothing else: no route, no name server, no other machine. In it listen the gateway and a proxy, which are the runner's
// and reach the world outside: the gateway one fixed place, the proxy the hosts that are named. What does not ask the proxy reaches nothing.

// NoHosts in the place of hosts says that none may be reached.
const NoHosts = "none"

// maxHosts is how many hosts can be named.
const maxHosts = 200

var hostName = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$`)

// CheckHosts refuses what the proxy could not hold to: want names such as docs.python.org, *.python.org for all below one, or [NoHosts] alone. They are reached by
// HTTP and HTTPS on their usual ports.
func CheckHosts(hosts []string) error {
	if len(hosts) > maxHosts {
		return fmt.Errorf("%d hosts are named: want at most %d", len(hosts), maxHosts)
	}
	for _, h := range hosts {
		switch {
		case h == NoHosts && len(hosts) > 1:
			return fmt.Errorf("%q stands beside others: want it alone, or the others", h)
		case h == NoHosts, len(h) <= 253 && hostName.MatchString(strings.ToLower(h)):
		default:
			return fmt.Errorf("%q is no host that access can be held to: want a name such as docs.python.org, or *.python.org for all below it, without https://, port, path or address in numbers", h)
		}
	}
	return nil
}

// reach is something that the proxy lets through.
type reach struct {
	name   string // "*.x" for all below x
	port   string // "": 80 and 443
	inside bool   // it may have an address that is not public
}

func (p reach) has(host, port string) bool {
	if p.port != port && (p.port != "" || port != "80" && port != "443") {
		return false
	}
	if below, ok := strings.CutPrefix(p.name, "*"); ok {
		return strings.HasSuffix(host, below)
	}
	return host == p.name
}

// reaches are those that a turn may reach: the named ones, and where its repositories are, whatever network that is in.
func reaches(hosts []string, repos []Repo) []reach {
	var out []reach // the repositories first: their hosts may be named as well
	for _, r := range repos {
		u, err := url.Parse(r.URL)
		if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
		}
		out = append(out, reach{name: strings.ToLower(u.Hostname()), port: port, inside: true})
	}
	for _, h := range hosts {
		if h != NoHosts {
			out = append(out, reach{name: strings.ToLower(h)})
		}
	}
	return out
}

// enclosure is the network of what runs as Claude's user, where hosts are named. It stays for as long as the runner: so may Claude Code.
type enclosure struct {
	mu      sync.Mutex
	ns      namespace         // guarded by mu
	proxy   net.Listener      // guarded by mu; nil: it was not made yet
	plain   http.Handler      // what is asked for by plain HTTP
	allowed []reach           // guarded by mu; to the turn at work
	refuse  unreached         // guarded by mu
	refused []string          // guarded by mu; the hosts that were told of
	tunnels map[net.Conn]bool // guarded by mu; to what was reached by CONNECT
}

// unreached is what becomes of hosts that are asked for and are not allowed.
type unreached struct {
	hide func(host string) string // takes secrets out
	tell func(host string)        // once of each
}

// open has a turn in it reach those places, and nothing else.
func (e *enclosure) open(allowed []reach, refuse unreached) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.proxy == nil {
		if err := e.make(); err != nil {
			return err
		}
	}
	e.allowed, e.refuse, e.refused = allowed, refuse, nil
	for c := range e.tunnels { // of the turn before, which may have reached others
		_ = c.Close()
	}
	e.tunnels = map[net.Conn]bool{}
	return nil
}

// make makes the network, with its proxy. e.mu must be held.
func (e *enclosure) make() error {
	ns, err := newNamespace()
	if err != nil {
		return fmt.Errorf("make a network without a way out: %w", err)
	}
	err = ns.do(func() (err error) {
		e.proxy, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("listen in the network without a way out: %w", err), ns.close())
	}
	e.ns = ns
	e.plain = &httputil.ReverseProxy{
		Rewrite:      func(p *httputil.ProxyRequest) { p.Out.Host = p.In.Host },
		Transport:    &http.Transport{DialContext: e.dial, DisableKeepAlives: true, ResponseHeaderTimeout: 5 * time.Minute},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { refuseProxy(w, r.URL.Host, err) },
		ErrorLog:     log.New(discard{}, "", 0), FlushInterval: -1,
	}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(discard{}, "", 0)}
	go func(l net.Listener) { _ = srv.Serve(l) }(e.proxy)
	return nil
}

// do does something on a thread that is in the network: what is started or listened on there is in it too.
func (e *enclosure) do(what func() error) error {
	e.mu.Lock()
	ns := e.ns
	e.mu.Unlock()
	return ns.do(what)
}

// env has programs ask the proxy.
func (e *enclosure) env() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, not := "http://"+e.proxy.Addr().String(), "127.0.0.1,localhost,::1"
	return []string{
		"HTTP_PROXY=" + at, "HTTPS_PROXY=" + at, "http_proxy=" + at, "https_proxy=" + at, "NO_PROXY=" + not, "no_proxy=" + not, "NODE_USE_ENV_PROXY=1",
	}
}

// find returns the place that a host and port are allowed as.
func (e *enclosure) find(host, port string) (reach, bool) {
	asked := strings.TrimSuffix(host, ".")
	host = strings.ToLower(asked)
	_, err := netip.ParseAddr(host)
	literal := err == nil // its zone may end like a name
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.allowed, func(p reach) bool { return p.has(host, port) && (!literal || p.inside) })
	if i < 0 {
		if port != "80" && port != "443" {
			asked = net.JoinHostPort(asked, port)
		}
		e.note(asked)
		return reach{}, false
	}
	return e.allowed[i], true
}

// note tells of a host that is not allowed. e.mu must be held.
func (e *enclosure) note(host string) {
	if e.refuse.hide == nil { // nobody is to be told
		return
	}
	host = e.refuse.hide(host)
	if len(e.refused) < maxRefused && !slices.Contains(e.refused, host) {
		e.refused = append(e.refused, host)
		e.refuse.tell(host)
	}
}

// maxRefused is how many hosts are told of that were asked for and are not allowed.
const maxRefused = 10

// asked are the hosts that were asked for since it was opened and are not allowed, secrets taken out.
func (e *enclosure) asked() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.refused)
}

// dialTime bounds how long the proxy tries to reach a host.
const dialTime = 30 * time.Second

// dial connects to an allowed place. Where its name leads is looked at when that is known, so that none leads into the network of the machines.
func (e *enclosure) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p, ok := e.find(host, port)
	if !ok {
		return nil, errNotAllowed
	}
	d := net.Dialer{Timeout: dialTime, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !p.inside && !isPublic(at.Addr().WithZone("")) {
			return errNotPublic
		}
		return nil
	}}
	return d.DialContext(ctx, network, addr)
}

var (
	errNotAllowed = errors.New("the settings of this channel do not name this host")
	errNotPublic  = errors.New("this name leads to an address that is not public")
)

// isPublic reports whether an address is one of the Internet: neither of this machine, nor of a network of one's own, as that of Fly's machines is.
func isPublic(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, net := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", // RFC 6890
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10",
	} {
		if netip.MustParsePrefix(net).Contains(a) {
			return false
		}
	}
	return true
}

// ServeHTTP is the proxy: CONNECT for HTTPS, and plain HTTP.
func (e *enclosure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		e.tunnel(w, r)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		e.plain.ServeHTTP(w, r)
	default:
		http.Error(w, "this is a proxy", http.StatusBadRequest)
	}
}

func refuseProxy(w http.ResponseWriter, host string, err error) {
	code := http.StatusBadGateway
	if errors.Is(err, errNotAllowed) || errors.Is(err, errNotPublic) {
		code = http.StatusForbidden
	}
	http.Error(w, fmt.Sprintf("flaudebot: %s: %v", host, err), code)
}

func (e *enclosure) tunnel(w http.ResponseWriter, r *http.Request) {
	out, err := e.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		refuseProxy(w, r.Host, err)
		return
	}
	e.mu.Lock()
	e.tunnels[out] = true
	e.mu.Unlock()
	defer func() {
		_ = out.Close()
		e.mu.Lock()
		delete(e.tunnels, out)
		e.mu.Unlock()
	}()
	in, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = in.Close() }()
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	carry := func(to net.Conn, from io.Reader) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	both.Go(func() { carry(out, buf) })
	both.Go(func() { carry(in, out) })
	both.Wait()
}

// start starts a command that runs as Claude's user, in the network that is its own if hosts are named.
func (c Config) start(what func() error) error {
	if !c.enclosed {
		return what()
	}
	return c.enclosure.do(what)
}

// enclose has all that the turn runs as Claude's user run where it reaches the named hosts alone. After an error nothing of it may be run.
func (t *turn) enclose() error {
	if len(t.Settings.Hosts) == 0 {
		return nil
	}
	if t.cfg.UID < 0 {
		return errors.New("Claude Code runs as the runner's own user here, whom nothing holds to some hosts: name none in this channel's settings, or use the session image")
	}
	if repo := SSHBesideHosts(t.Repos); repo != "" {
		return fmt.Errorf("%s is not reached by HTTPS: where hosts are named, all repositories have to be", repo)
	}
	if repo := onLoopback(t.Repos); repo != "" {
		return fmt.Errorf("%s is on this machine's own loopback, which nothing reaches where hosts are named: begin with repo:none, or have the repository elsewhere", repo)
	}
	hide, lower := redactor(t.secrets), redactor(t.secrets.inLowerCase())
	err := t.cfg.enclosure.open(reaches(t.Settings.Hosts, t.Repos), unreached{
		hide: func(host string) string { return clip(lower.Replace(strings.ToLower(hide.Replace(host))), 253) },
		tell: func(host string) { // under e.mu
			t.journal.add("", Event{Kind: KindNote, Text: host + " is not among the hosts that this channel's settings name"})
		},
	})
	if err != nil {
		return fmt.Errorf("this machine cannot hold Claude's user to the hosts that the channel's settings name: %w", err)
	}
	t.cfg.enclosed = true
	t.cfg.warm.endFree(t.cfg)
	return nil
}

// onLoopback is the first repository on the machine's own loopback, for which no program asks a proxy; "": none is.
func onLoopback(repos []Repo) string {
	for _, r := range repos {
		u, err := url.Parse(r.URL)
		if err != nil {
			continue
		}
		if at, err := netip.ParseAddr(u.Hostname()); err == nil && at.IsLoopback() || u.Hostname() == "localhost" {
			return r.URL
		}
	}
	return ""
}

// SSHBesideHosts is the first repository that is reached by SSH or Git's own protocol, which no proxy holds to a host; "": none is.
func SSHBesideHosts(repos []Repo) string {
	for _, r := range repos {
		scheme, _, named := strings.Cut(r.URL, "://")
		if scheme == "ssh" || scheme == "git" || !named && strings.Contains(scheme, "@") {
			return r.URL
		}
	}
	return ""
}

// reachesOut names what of a request has the API itself reach other hosts for it; "": nothing does. What it cannot read the API will refuse.
func reachesOut(body []byte) string {
	var in struct {
		Servers  []any `json:"mcp_servers"`
		Tools    []struct{ Type string }
		Messages any
		System   any
	}
	if json.Unmarshal(body, &in) != nil {
		return "what cannot be read"
	}
	if len(in.Servers) > 0 {
		return "MCP servers"
	}
	for _, tool := range in.Tools {
		name := strings.TrimRight(tool.Type, "0123456789")
		if name != "" && !slices.Contains([]string{"custom", "bash_", "text_editor_", "computer_", "memory_", "tool_search_tool_regex_", "tool_search_tool_bm"}, name) {
			return "the tool " + strings.TrimRight(name, "_")
		}
	}
	if hasAddress(in.Messages) || hasAddress(in.System) {
		return "an address in the place of a file"
	}
	return ""
}

// hasAddress reports whether a part of a prompt is to be fetched by the API.
func hasAddress(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, hasAddress)
	case map[string]any:
		if source, ok := v["source"].(map[string]any); ok && source["type"] == "url" {
			return true
		}
		for name, part := range v {
			if name != "input" && hasAddress(part) { // what a tool was given is nobody's to fetch
				return true
			}
		}
	}
	return false
}
