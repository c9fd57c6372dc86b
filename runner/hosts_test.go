package runner

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheckHosts(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "pypi.org", "*.npmjs.org,pypi.org", "Files.PythonHosted.org", "xn--bcher-kva.example", NoHosts} {
		if err := CheckHosts(strings.FieldsFunc(good, isComma)); err != nil {
			t.Errorf("CheckHosts(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{
		"https://pypi.org", "pypi.org:443", "pypi.org/simple", "10.0.0.1", "[::1]", "2130706433", "*", "*.org.", "a.*.org", "*pypi.org", "localhost", "pypi..org", "-a.org", "a b.org",
		"none,pypi.org", "user@pypi.org", "0x7f.1", strings.Repeat("a", 64) + ".org", strings.Repeat("a.", 130) + "org",
	} {
		if err := CheckHosts(strings.FieldsFunc(bad, isComma)); err == nil {
			t.Errorf("CheckHosts(%q) = nil", bad)
		}
	}
	if CheckHosts(make([]string, maxHosts+1)) == nil {
		t.Error("too many are taken")
	}
}

func TestReaches(t *testing.T) {
	t.Parallel()
	all := reaches([]string{"PyPI.org", "*.npmjs.org"}, []Repo{{URL: "https://git.acme.example:8443/a.git"}, {URL: "http://old.example/b"}, {URL: "ssh://git@x.example/c"}, {URL: "/srv/d"}})
	for target, want := range map[string]bool{
		"pypi.org:443": true, "pypi.org:80": true, "pypi.org:22": false, "evil.pypi.org:443": false, "evilpypi.org:443": false, "pypi.org.evil.example:443": false,
		"registry.npmjs.org:443": true, "a.b.npmjs.org:443": true, "npmjs.org:443": false, "xnpmjs.org:443": false,
		"git.acme.example:8443": true, "git.acme.example:443": false, "old.example:80": true, "old.example:443": false, "x.example:22": false, "x.example:443": false,
	} {
		host, port, _ := strings.Cut(target, ":")
		got := false
		for _, r := range all {
			got = got || r.has(host, port)
		}
		if got != want {
			t.Errorf("%s is reached: %v, want %v", target, got, want)
		}
	}
	if got := reaches([]string{NoHosts}, nil); len(got) > 0 {
		t.Errorf("none = %+v", got)
	}
}

// TestReachesOut: the API is asked for nothing that it would fetch from elsewhere.
func TestReachesOut(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"messages":[{"role":"user","content":"hello"}],"tools":[{"name":"Bash","input_schema":{}},{"type":"custom","name":"x"},{"type":"bash_20250124","name":"bash"}]}`: false,
		`{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"x"}}]}]}`:                                                                false,
		`{"messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"source":{"type":"url","url":"https://x"}}}]}]}`:                                          false,
		`{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://evil.example"}}]}]}`:                                                 true,
		`{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"document","source":{"type":"url"}}]}]}]}`:                                        true,
		`{"mcp_servers":[{"type":"url","url":"https://evil.example"}]}`:                                                                                                    true,
		`{"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}`:                                                                                                     true,
		`{"tools":[{"type":"web_search_20250305"}]}`:                                                                                                                       true,
		`{"tools":[{"type":"code_execution_20250825"}]}`:                                                                                                                   true,
		`not JSON`: true,
	} {
		if got := reachesOut([]byte(body)); (got != "") != want {
			t.Errorf("reachesOut(%s) = %q, want %v", body, got, want)
		}
	}
}

func TestIsPublic(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"151.101.0.223": true, "2a04:4e42::223": true, "8.8.8.8": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false,
		"255.255.255.255": false, "::1": false, "::": false, "fe80::1": false, "fd12::1": false, "fdaa:0:1::3": false, "::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false, "2001:db8::1": false, "ff02::1": false, "fec0::1": false,
	} {
		if got := isPublic(netip.MustParseAddr(addr)); got != want {
			t.Errorf("isPublic(%s) = %v, want %v", addr, got, want)
		}
	}
}
