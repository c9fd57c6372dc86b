package runner

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"time"
)

// bootPatience is how long a verb waits for a runner that is still coming up.
const bootPatience = 5 * time.Second

// Verb is the exec'd side: it passes one request from stdin to the running runner and its reply to stdout. A
// runner that is still coming up is waited for.
func Verb(ctx context.Context, cfg Config, verb string, stdin io.Reader, stdout io.Writer) error {
	client := &http.Client{Transport: unixTransport(cfg.socket())}
	defer client.CloseIdleConnections() // the runner stays until its last reply was read
	body, err := io.ReadAll(io.LimitReader(stdin, 4*MaxBody))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	res, err := post(ctx, client, verb, body)
	for end := time.Now().Add(bootPatience); err != nil && time.Now().Before(end) && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		res, err = post(ctx, client, verb, body)
	}
	if err != nil {
		return fmt.Errorf("no runner answers at %s: %w", cfg.socket(), err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("the runner refuses %s: %s: %s", verb, res.Status, text)
	}
	_, err = io.Copy(stdout, res.Body)
	return err
}

var verbName = regexp.MustCompile(`^[a-z]+$`)

func post(ctx context.Context, c *http.Client, verb string, body []byte) (*http.Response, error) {
	if !verbName.MatchString(verb) {
		return nil, fmt.Errorf("%q is no verb", verb)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runner/"+verb, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return c.Do(req)
}

func unixTransport(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
}
