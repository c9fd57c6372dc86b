package queue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// TestMain keeps the client's own log of failed connections out of the tests' output.
func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	os.Exit(m.Run())
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// toxic is a network between a replica and Redis that a test makes bad.
type toxic struct {
	*testing.T
	proxy *toxiproxy.Proxy
	addr  string
}

func newToxic(t *testing.T, upstream string) *toxic {
	t.Helper()
	log := zerolog.Nop()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), log), "redis", "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &toxic{T: t, proxy: p, addr: p.Listen}
}

// add makes the network bad for every connection, old and new; kind is toxiproxy's.
func (x *toxic) add(kind string, attributes map[string]any) {
	x.Helper()
	body, err := json.Marshal(map[string]any{"name": kind, "type": kind, "stream": "downstream", "attributes": attributes})
	if err != nil {
		x.Fatal(err)
	}
	if _, err := x.proxy.Toxics.AddToxicJson(bytes.NewReader(body)); err != nil {
		x.Fatal(err)
	}
}

// heal takes everything bad away.
func (x *toxic) heal() { x.proxy.Toxics.ResetToxics(context.WithoutCancel(x.Context())) }

// down closes every connection, and takes no new one until up.
func (x *toxic) down() { x.proxy.Stop() }

func (x *toxic) up() {
	x.Helper()
	if err := x.proxy.Start(); err != nil {
		x.Fatal(err)
	}
}
