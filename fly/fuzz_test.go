package fly

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answers is a transport that always answers the same.
type answers struct {
	status int
	body   []byte
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status, Status: http.StatusText(a.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}, "Fly-Request-Id": {"01-fra"}}, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r,
	}, nil
}

// FuzzAnswers: whatever Fly answers, or something before it, the client has a result or an error, and the error does not say our token.
func FuzzAnswers(f *testing.F) {
	const token = "FlyV1 fm2_a-token-of-ours"
	for _, seed := range []struct {
		status int
		body   string
	}{
		{200, `{"id":"148e","state":"started","instance_id":"01","config":{"guest":{"cpus":"x"},"mounts":null,"metadata":{"a":1}},"events":[{"type":"exit","timestamp":1e30,"request":{"exit_event":{"exit_code":"?"}}}]}`},
		{200, `[{"id":"148e"},{"id":null},7]`},
		{200, `[`},
		{200, `null`},
		{200, ``},
		{200, "<html>"},
		{200, `{"exit_code":0,"stdout":"{}"}`},
		{200, `{"data":{"nonce":7}}`},
		{200, `{"data":[{"id":"1","attributes":{"message":"x","timestamp":"?"}}],"meta":{"next_token":7}}`},
		{401, `{"error":"` + token + `"}`},
		{403, `{"error":{"code":1}}`},
		{404, `{"error":["x"]}`},
		{409, `{"error":"already_exists: unique machine name violation, machine ID 148e already exists"}`},
		{422, `{"error":"insufficient resources"}`},
		{503, ``},
		{204, ``},
		{600, `x`},
		{302, ``},
	} {
		f.Add(seed.status, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 999 {
			return
		}
		c, err := New(Config{Token: token, HTTP: &http.Client{Transport: answers{status, body}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, Unlimited: true, Tries: 1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // what waits for a state asks on
		defer cancel()
		var all []error
		note := func(_ any, err error) { all = append(all, err) }
		note(c.Machine(ctx, "app", "148e"))
		note(c.Machines(ctx, "app", MachineFilter{}))
		note(c.Volumes(ctx, "app"))
		note(c.Volume(ctx, "app", "vol_1"))
		note(c.CreateMachine(ctx, "app", CreateMachine{Name: "n", Config: &MachineConfig{}}))
		note(c.CreateVolume(ctx, "app", CreateVolume{Name: "v", SizeGB: 1}))
		note(c.Exec(ctx, "app", "148e", Exec{Command: []string{"true"}, Timeout: time.Second}, ""))
		note(c.AcquireLease(ctx, "app", "148e", time.Second, "fuzz"))
		note(nil, c.StartMachine(ctx, "app", "148e", ""))
		note(nil, c.DeleteMachine(ctx, "app", "148e", true, ""))
		note(c.EnsureApp(ctx, CreateApp{Name: "app", OrgSlug: "personal"}))
		for _, err := range all {
			if err != nil && strings.Contains(err.Error(), "fm2_a-token-of-ours") {
				t.Errorf("an error says the token: %s", err)
			}
		}
	})
}
