package fly_test

import (
	"strings"
	"testing"

	"flaudebot/local/fly"
)

// TestBoundedVolume: a volume can be made to hold as little as a test needs, keeps what is on it, and grows with the boot after its extension.
func TestBoundedVolume(t *testing.T) {
	t.Parallel()
	isolated(t)
	w := newWorld(t, fly.Config{})
	v := w.volume()
	id := w.started("m", mounting(v, "/data"))
	if code, out := w.exec(id, "echo kept > /data/kept"); code != 0 {
		t.Fatalf("exec = %v, %s", code, out)
	}
	w.do("POST", "/local/trouble", obj{"machine": id, "gb_of_mb": 2}).is(200, `"ok":false`, "not stopped")
	w.stopped(id)
	w.local("trouble", obj{"machine": id, "gb_of_mb": 2})
	w.start(id)
	w.wait(id, "started")
	fill := func(mb string) (full bool) {
		t.Helper()
		code, out := w.exec(id, "cat /data/kept; dd if=/dev/zero of=/data/big bs=1M count="+mb+" 2>&1")
		if !strings.HasPrefix(out, "kept\n") {
			t.Errorf("exec = %v, %s: what was on it is gone", code, out)
		}
		return code != 0 && strings.Contains(out, "No space left on device")
	}
	if fill("1") || !fill("3") {
		t.Error("it does not hold 2 MB")
	}
	if got := w.do("PUT", "/v1/apps/acme/volumes/"+v+"/extend", obj{"size_gb": 2}).is(200).obj(); got["needs_restart"] != true {
		t.Errorf("extend = %v, want that the machine has to start anew", got)
	}
	if !fill("3") {
		t.Error("it grew under what runs")
	}
	w.stopped(id)
	w.start(id)
	w.wait(id, "started")
	if fill("3") || !fill("5") {
		t.Error("it does not hold 4 MB")
	}
}

// TestFull: Fly makes nothing in a region, for each of its reasons, and in its words.
func TestFull(t *testing.T) {
	t.Parallel()
	for why, c := range map[string]struct {
		status      int
		text, code  string
		forVolumes  bool
		stopsStarts bool
	}{
		"region":    {422, "could not find a candidate host", "insufficient_capacity", false, false},
		"host":      {409, "aborted: could not reserve resource for machine: insufficient memory available to fulfill request", "", false, true},
		"placement": {412, "insufficient resources to create new machine with existing volume id", "volume_placement_capacity", false, false},
		"volume":    {400, "no capacity", "", true, false},
		"quota":     {403, "of memory in fra which is over the allowed quota. please consider other regions", "", false, false},
		"payment":   {422, "please add a payment method", "", false, false},
		"account":   {422, "Add a credit card or buy credit", "", true, false},
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fly.Config{})
			there := w.started("there", nil)
			w.stopped(there)
			w.local("trouble", obj{"full": obj{"fra": why}})
			made := func(region string) []answer {
				return []answer{
					w.do("POST", "/v1/apps/acme/volumes", obj{"name": "v", "region": region, "size_gb": 1}),
					w.do("POST", "/v1/apps/acme/machines", obj{"name": "m-" + region, "region": region, "config": obj{"image": "i"}}),
				}
			}
			refused := made("fra")
			if !c.forVolumes {
				refused[0], refused[1] = refused[1], refused[0]
			}
			if refused[0].refused(c.status, c.text); c.code != "" && !strings.Contains(refused[0].raw, `"status":"`+c.code+`"`) {
				t.Errorf("answer = %s, want the status %s", refused[0].raw, c.code)
			}
			refused[1].is(200)
			for _, a := range made("ams") {
				a.is(200)
			}
			if c.stopsStarts {
				w.until("its start is refused for that", func() bool { return w.do("POST", of(there, "start"), nil).status == c.status })
				w.do("POST", of(there, "start"), nil).refused(c.status, c.text)
				w.local("trouble", obj{})
			}
			w.start(there)
		})
	}
}
