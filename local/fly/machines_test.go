package fly_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flaudebot/local/fly"
)

// kinds are a machine's events as "type/status", the oldest first.
func (w *world) kinds(id string) []string {
	w.t.Helper()
	var out []string
	for _, e := range w.do("GET", of(id, "events?limit=50"), nil).is(200).list() {
		out = append(out, fmt.Sprintf("%s/%s", e["type"], e["status"]))
	}
	slices.Reverse(out)
	return out
}

func TestCreate(t *testing.T) {
	t.Parallel()
	t.Run("the answer is a machine that was created, which then starts", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{BootDelay: 100 * time.Millisecond})
		began := time.Now()
		got := w.create("m", nil).is(200)
		if s := got.str("state"); s != "created" {
			t.Errorf("state = %s, want created", s)
		}
		id := got.str("id")
		if !regexp.MustCompile(`^[0-9a-f]{14}$`).MatchString(id) {
			t.Errorf("id = %s, want 14 hex characters", id)
		}
		if v := got.str("instance_id"); !regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`).MatchString(v) || v != got.str("version") {
			t.Errorf("instance_id = %s, want a ULID that is the version %s", v, got.str("version"))
		}
		w.do("POST", of(id, "start"), nil).refused(412, "failed_precondition: unable to start machine from current state: 'created'")
		w.wait(id, "started")
		if d := time.Since(began); d < 100*time.Millisecond {
			t.Errorf("started after %s, want the boot delay first", d)
		}
		want := []string{"launch/pending", "launch/created", "start/starting", "start/started"}
		if got := w.kinds(id); !slices.Equal(got, want) {
			t.Errorf("events = %v, want %v", got, want)
		}
	})
	t.Run("with skip_launch it comes to rest", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.do("POST", machines, obj{"config": obj{"image": "any"}, "skip_launch": true}).is(200, `"state":"created"`).str("id")
		w.wait(id, "stopped")
		if got := w.exits(id); len(got) != 0 {
			t.Errorf("exits = %v, want none: it never ran", got)
		}
		w.start(id)
		w.wait(id, "started")
	})
	t.Run("what Fly would refuse is refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		vol := w.volume()
		for _, c := range []struct {
			name   string
			body   obj
			status int
			text   string
		}{
			{"no image", obj{"config": obj{}}, 400, "invalid_argument: config.image is required"},
			{"no config", obj{}, 400, "invalid_argument: config.image is required"},
			{"a bad name", obj{"name": "a_b", "config": obj{"image": "any"}}, 400, "invalid machine name"},
			{"a volume that there is not", obj{"config": obj{"image": "any", "mounts": []obj{{"volume": "vol_1", "path": "/data"}}}}, 400, "volume not found"},
			{"two volumes", obj{"config": obj{"image": "any", "mounts": []obj{{"volume": vol, "path": "/a"}, {"volume": vol, "path": "/b"}}}}, 400, "only one mount"},
			{"a path that is not absolute", obj{"config": obj{"image": "any", "mounts": []obj{{"volume": vol, "path": "data"}}}}, 400, "absolute"},
			{"another region than the volume's", obj{"region": "ams", "config": obj{"image": "any", "mounts": []obj{{"volume": vol, "path": "/data"}}}}, 400, "is in region fra"},
			{"metadata that is no text", obj{"config": obj{"image": "any", "metadata": obj{"a": 1}}}, 400, "invalid_argument: config"},
		} {
			got := w.do("POST", machines, c.body)
			if got.status != c.status || !strings.Contains(got.raw, c.text) {
				t.Errorf("%s: %d %s, want %d %s", c.name, got.status, got.raw, c.status, c.text)
			}
		}
		if got := w.do("GET", machines, nil).list(); len(got) != 0 {
			t.Errorf("machines = %v, want none", got)
		}
	})
	t.Run("a name is of one living machine, whose id is told", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.create("m", nil).refused(409, "already_exists: unique machine name violation, machine ID "+id+` already exists with name "m"`)
		w.do("DELETE", of(id, "?force=true"), nil).is(200)
		w.wait(id, "destroyed")
		w.create("m", nil).is(200)
	})
	t.Run("its region is the volume's, the first that is liked, or the usual one", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{Region: "cdg"})
		vol := w.volume()
		for region, want := range map[string]string{"": "cdg", "any": "cdg", "ams": "ams", "lhr,eu": "lhr", "sa": "gru"} {
			if got := w.do("POST", machines, obj{"region": region, "config": obj{"image": "any"}}).is(200).str("region"); got != want {
				t.Errorf("region %q = %s, want %s", region, got, want)
			}
		}
		cfg := obj{"image": "any", "mounts": []obj{{"volume": vol, "path": "/data"}}}
		if got := w.do("POST", machines, obj{"region": "ams,eu", "config": cfg}).is(200).str("region"); got != "fra" {
			t.Errorf("region = %s, want the volume's", got)
		}
	})
	t.Run("what it does not know of a config is kept", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.machine("m", obj{"services": []obj{{"internal_port": 8080, "autostop": "suspend"}}, "new_thing": obj{"a": []int{1}}})
		w.do("GET", of(id, ""), nil).is(200, `"new_thing":{"a":[1]}`, `"autostop":"suspend"`)
	})
	t.Run("an image is taken apart", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		for image, want := range map[string]obj{
			"registry.fly.io/app:session":   {"registry": "registry.fly.io", "repository": "app", "tag": "session", "digest": ""},
			"registry.fly.io/app@sha256:ab": {"registry": "registry.fly.io", "repository": "app", "tag": "", "digest": "sha256:ab"},
			"library/nginx":                 {"registry": "docker-hub-mirror.fly.io", "repository": "library/nginx", "tag": "", "digest": ""},
			"host:5000/app:v1":              {"registry": "host:5000", "repository": "app", "tag": "v1", "digest": ""},
		} {
			got := w.do("POST", machines, obj{"config": obj{"image": image}}).is(200).obj()["image_ref"]
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("image_ref of %s = %v, want %v", image, got, want)
			}
		}
	})
}

func TestStates(t *testing.T) {
	t.Parallel()
	t.Run("a stopped machine is still active for a moment", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.stopped(id)
		w.do("POST", of(id, "start"), nil).refused(412, "failed_precondition: machine still active, refusing to start")
		w.start(id)
		w.wait(id, "started")
	})
	t.Run("a start tells the state before, and does no harm to a started one", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.do("POST", of(id, "start"), nil).is(200, `"previous_state":"started"`, `"migrated":false`)
		if got := w.kinds(id); got[len(got)-1] != "start/started" || len(got) != 4 {
			t.Errorf("events = %v, want no second start", got)
		}
	})
	t.Run("a stop is answered at once, and again", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", running(`trap '' TERM; echo deaf; while :; do sleep 0.02; done`))
		w.until("it hears no TERM", func() bool { return strings.Contains(w.logged(id), "deaf") })
		w.do("POST", of(id, "stop"), obj{"signal": "SIGTERM", "timeout": "60s"}).is(200, `{"ok":true}`)
		if got := w.state(id); got != "stopping" {
			t.Errorf("state = %s, want stopping", got)
		}
		w.do("POST", of(id, "exec"), obj{"cmd": "true"}).refused(412, "failed_precondition: machine not running, current state: 'stopping'")
		w.do("POST", of(id, "stop"), obj{"signal": "SIGKILL"}).is(200)
		w.wait(id, "stopped")
		w.do("POST", of(id, "stop"), obj{}).is(200, `{"ok":true}`)
		if got := w.kinds(id); !slices.Equal(got[4:], []string{"stop/stopping", "exit/stopped"}) {
			t.Errorf("events = %v, want one stop and one exit", got)
		}
	})
	t.Run("a stop that is not understood is refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.do("POST", of(id, "stop"), []string{}).refused(400, "unmarshal")
		w.do("POST", of(id, "stop"), obj{"signal": "SIGNONSENSE"}).refused(400, "unknown signal")
		w.do("POST", of(id, "stop"), obj{"timeout": "long"}).refused(400, "long")
		if got := w.state(id); got != "started" {
			t.Errorf("state = %s, want started", got)
		}
	})
	t.Run("a stop overtakes a boot", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.stopped(id)
		w.local("trouble", obj{"machine": id, "stuck": true})
		w.start(id)
		w.stopped(id)
		w.local("trouble", obj{"machine": id})
		w.start(id)
		w.wait(id, "started")
		if got := w.kinds(id); !slices.Equal(got[len(got)-4:], []string{"stop/stopping", "exit/stopped", "start/starting", "start/started"}) {
			t.Errorf("events = %v, want that the first boot came to nothing", got)
		}
	})
	t.Run("a running machine is not deleted without force", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.do("DELETE", of(id, ""), nil).refused(412, "not in a stopped state: 'started'")
		w.stopped(id)
		w.do("DELETE", of(id, ""), nil).is(200, `{"ok":true}`)
		w.wait(id, "destroyed")
	})
	t.Run("a destroyed one answers for a while, then it is not found", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{Remembered: 700 * time.Millisecond})
		id := w.started("m", nil)
		w.do("DELETE", of(id, "?force=true"), nil).is(200)
		w.wait(id, "destroyed").is(200, `"state":"destroyed"`)
		w.do("DELETE", of(id, "?force=true"), nil).is(200)
		if got := w.do("GET", machines, nil).list(); len(got) != 0 {
			t.Errorf("list = %v, want it empty", got)
		}
		if got := w.do("GET", machines+"?include_deleted=true", nil).list(); len(got) != 1 {
			t.Errorf("list with deleted = %v, want it", got)
		}
		w.until("it is not found", func() bool { return w.do("GET", of(id, ""), nil).status == 404 })
		w.do("GET", of(id, "wait?state=destroyed&timeout=1"), nil).refused(404, "machine not found")
	})
	t.Run("one that cannot boot has failed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{Runner: []string{"/nowhere/at/all"}, Plain: true})
		id := w.machine("m", nil)
		w.wait(id, "failed")
		w.do("POST", of(id, "start"), nil).refused(412, "unable to start machine from current state: 'failed'")
		w.do("DELETE", of(id, ""), nil).is(200)
	})
	t.Run("it is cordoned and uncordoned", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.machine("m", nil)
		w.do("POST", of(id, "cordon"), nil).is(200)
		w.do("GET", of(id, ""), nil).is(200, `"cordoned":true`)
		w.do("POST", of(id, "uncordon"), nil).is(200)
		w.do("GET", of(id, ""), nil).is(200, `"cordoned":false`)
	})
}

func TestSuspend(t *testing.T) {
	t.Parallel()
	// all says whether every process with a mark is stopped, or none of them is. One that is stopped between vfork and exec
	// holds its parent in state D.
	all := func(t *testing.T, mark string, stopped bool) bool {
		t.Helper()
		var states strings.Builder
		for _, pid := range withMark(t, mark) {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if _, state, ok := strings.Cut(string(stat), ") "); ok {
				states.WriteString(state[:1])
			}
		}
		if !stopped {
			return states.String() != "" && !strings.Contains(states.String(), "T")
		}
		return strings.Contains(states.String(), "T") && strings.Trim(states.String(), "TD") == ""
	}
	t.Run("its processes stop as they are, and a start lets them go on", func(t *testing.T) {
		t.Parallel()
		eachKind(t, func(t *testing.T, cfg fly.Config) {
			mark := fmt.Sprintf("suspend-%d-%v", os.Getpid(), cfg.Plain)
			w := newWorld(t, cfg)
			id := w.started("m", running("# "+mark+`
				(while :; do sleep 0.02; done) &
				n=0; while :; do n=$((n+1)); echo $n > "$FLAUDEBOT_DATA/n"; sleep 0.02; done`))
			count := func() int {
				_, out := w.exec(id, `cat "$FLAUDEBOT_DATA/n"`)
				n, _ := strconv.Atoi(strings.TrimSpace(out))
				return n
			}
			w.until("it counts", func() bool { return count() > 1 })
			before := count()
			w.do("POST", of(id, "suspend"), nil).is(200, `{"ok":true}`)
			w.wait(id, "suspended")
			w.until("all of it has stopped", func() bool { return all(t, mark, true) })
			w.do("POST", of(id, "suspend"), nil).is(200)
			w.do("POST", of(id, "exec"), obj{"cmd": "true"}).is(412)
			w.start(id)
			w.wait(id, "started")
			w.until("all of it goes on", func() bool { return all(t, mark, false) })
			w.until("it counts on from where it was", func() bool { return count() > before+2 })
			want := []string{"suspend/suspending", "suspend/suspended", "start/starting", "start/started"}
			if got := w.kinds(id); !slices.Equal(got[4:], want) || len(w.exits(id)) != 0 {
				t.Errorf("events = %v, want %v and no exit", got[4:], want)
			}
		})
	})
	t.Run("a stop drops what was kept", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.do("POST", of(id, "suspend"), nil).is(200)
		w.wait(id, "suspended")
		w.stopped(id)
		if got := w.exits(id); len(got) != 1 || got[0]["requested_stop"] != true {
			t.Errorf("exits = %v, want one on request", got)
		}
	})
	t.Run("it is deleted without force", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.do("POST", of(id, "suspend"), nil).is(200)
		w.wait(id, "suspended")
		w.do("DELETE", of(id, ""), nil).is(200)
		w.wait(id, "destroyed")
	})
	t.Run("large ones and those with swap or a schedule are not suspended", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		for name, more := range map[string]obj{
			"large": {"guest": obj{"memory_mb": 4096}}, "swap": {"init": obj{"swap_size_mb": 512}}, "scheduled": {"schedule": "daily"},
		} {
			w.do("POST", of(w.started(name, more), "suspend"), nil).refused(412, "cannot be suspended")
		}
		w = newWorld(t, fly.Config{Unsettled: fly.Unsettled{SuspendMemory: 4096}})
		w.do("POST", of(w.started("large", obj{"guest": obj{"memory_mb": 4096}}), "suspend"), nil).is(200)
	})
	t.Run("only what is started is suspended", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.stopped(id)
		w.do("POST", of(id, "suspend"), nil).refused(412, "current state: 'stopped'")
	})
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	t.Run("by POST and PUT it replaces the whole config, in a new version, and restarts", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		for _, method := range []string{"POST", "PUT"} {
			id := w.started("by-"+strings.ToLower(method), obj{"metadata": obj{"a": "b"}, "env": obj{"A": "b"}})
			old := w.do("GET", of(id, ""), nil).str("instance_id")
			got := w.do(method, of(id, ""), obj{"config": obj{"image": "other", "restart": obj{"policy": "no"}}}).is(200)
			if v := got.str("instance_id"); v == old || v != got.str("version") || got.str("id") != id {
				t.Errorf("instance_id = %s after %s, want another one", v, old)
			}
			w.do("GET", of(id, "wait?timeout=30&version="+got.str("instance_id")), nil).is(200)
			cfg, _ := w.do("GET", of(id, ""), nil).obj()["config"].(obj)
			if cfg["image"] != "other" || cfg["env"] != nil || cfg["metadata"] != nil {
				t.Errorf("config = %v, want nothing of the former one", cfg)
			}
			if x := w.exits(id); len(x) != 1 || x[0]["requested_stop"] != true || x[0]["exit_code"] == 137.0 {
				t.Errorf("exits = %v, want one by the stop signal", x)
			}
			versions := w.do("GET", of(id, "versions"), nil).is(200).list()
			if len(versions) != 2 || versions[1]["version"] != old || at(versions[1], "user_config.env.A") != "b" || at(versions[0], "user_config.image") != "other" {
				t.Errorf("versions = %v, want both, the newest first", versions)
			}
		}
	})
	t.Run("while it is replaced it is neither started, stopped nor replaced", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", running(`trap '' TERM INT; echo deaf; while :; do sleep 0.02; done`))
		w.until("it is deaf", func() bool { return strings.Contains(w.logged(id), "deaf") })
		w.do("POST", of(id, ""), obj{"config": obj{"image": "other"}}).is(200, `"state":"replacing"`)
		w.do("POST", of(id, "start"), nil).refused(412, "failed_precondition: machine getting replaced, refusing to start")
		w.do("POST", of(id, "stop"), nil).refused(412, "getting replaced")
		w.do("POST", of(id, ""), obj{"config": obj{"image": "third"}}).refused(409, "aborted: machine update failed due to concurrent update")
		w.do("POST", of(id, "signal"), obj{"signal": 9}).is(200)
		w.wait(id, "started").is(200, `"image":"other"`)
	})
	t.Run("with skip_launch it comes to rest", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.do("POST", of(id, ""), obj{"config": obj{"image": "other"}, "skip_launch": true}).is(200)
		w.wait(id, "stopped")
		if got := w.kinds(id); !slices.Equal(got[4:], []string{"update/replacing", "exit/stopped", "update/stopped"}) {
			t.Errorf("events = %v", got)
		}
	})
	t.Run("what cannot change is refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		vol, other := w.volume(), w.volume()
		id := w.started("m", mounting(vol, "/data"))
		bare := w.started("bare", nil)
		with := func(vol string) obj {
			return obj{"image": "any", "mounts": []obj{{"volume": vol, "path": "/data"}}}
		}
		version := w.do("GET", of(id, ""), nil).str("instance_id")
		w.do("POST", of(id, ""), obj{"config": with(vol), "current_version": "01H"}).refused(409, "aborted: current version is "+version)
		w.do("POST", of(id, ""), obj{"config": with(vol), "region": "ams"}).refused(400, "region cannot change")
		w.do("POST", of(id, ""), obj{"config": with(other)}).refused(400, "volume cannot change")
		w.do("POST", of(bare, ""), obj{"config": with(other)}).refused(400, "volume cannot change")
		w.do("POST", of(id, ""), obj{"config": obj{}}).refused(400, "config.image is required")
		if got := w.do("GET", of(id, ""), nil).str("instance_id"); got != version {
			t.Errorf("version = %s, want that nothing changed", got)
		}
		w.do("POST", of(id, ""), obj{"config": with(vol), "current_version": version, "region": "fra", "lease_ttl": 9}).is(200, `"nonce":"`)
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fly.Config{})
	id := w.started("m", running(idle))
	version := w.do("GET", of(id, ""), nil).str("instance_id")
	for _, c := range []struct {
		name, query string
		status      int
		text        string
	}{
		{"started is what it waits for unless it is told", "timeout=1", 200, `"state":"started"`},
		{"the answer names version and event", "timeout=1", 200, `"version":"` + version + `"`},
		{"0 s is too short", "timeout=0", 400, "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range [1s, 1m0s]"},
		{"61 s is too long", "timeout=61", 400, "value must be inside range [1s, 1m0s]"},
		{"nonsense is no time", "timeout=soon", 400, "value must be inside range"},
		{"60 s are taken", "timeout=60", 200, `"ok":true`},
		{"states may be joined", "timeout=1&state=stopped,started", 200, `"state":"started"`},
		{"states may be repeated", "timeout=1&state=stopped&state=started", 200, `"state":"started"`},
		{"settled is any that lasts", "timeout=1&state=settled", 200, `"state":"started"`},
		{"a state that there is not", "timeout=1&state=asleep", 400, "cannot wait for state"},
		{"a timeout names what was wanted and what is", "timeout=1&state=stopped,suspended", 408, "deadline_exceeded: machine failed to reach desired state, stopped, suspended, currently started"},
		{"its version", "timeout=1&version=" + version, 200, `"state":"started"`},
		{"its version by the older name", "timeout=1&instance_id=" + version, 200, `"state":"started"`},
		{"a version that there is not", "timeout=1&version=01HZZZ", 404, "machine version not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w.in(t).do("GET", of(id, "wait?"+c.query), nil).is(c.status, c.text)
		})
	}
	t.Run("it answers when the state comes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		got := make(chan answer)
		go func() { got <- w.do("GET", of(id, "wait?state=stopped&timeout=60"), nil) }()
		w.do("POST", of(id, "stop"), nil).is(200)
		(<-got).is(200, `"state":"stopped"`)
	})
	t.Run("a former version was replaced, whatever the new one does", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		old := w.do("GET", of(id, ""), nil).str("instance_id")
		w.do("POST", of(id, ""), obj{"config": obj{"image": "any"}}).is(200)
		w.wait(id, "started")
		w.do("GET", of(id, "wait?timeout=1&version="+old), nil).refused(408, "started, currently replaced")
		w.do("GET", of(id, "wait?timeout=1&state=replaced&version="+old), nil).is(200, `"state":"replaced"`)
	})
	t.Run("with an event it looks at what came after, though it passed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.machine("m", running("exit 3"))
		w.wait(id, "stopped")
		first, _ := w.do("GET", of(id, "events"), nil).list()[0]["id"].(string)
		w.do("GET", of(id, "wait?timeout=1&state=stopped&from_event_id="+first), nil).refused(408, "currently stopped")
		w.start(id)
		got := w.do("GET", of(id, "wait?timeout=30&state=stopped&from_event_id="+first), nil).is(200, `"state":"stopped"`)
		passed := w.do("GET", of(id, "wait?timeout=1&state=started&from_event_id="+first), nil).is(200, `"state":"started"`)
		if passed.str("event_id") >= got.str("event_id") {
			t.Errorf("events = %s and %s, want started before stopped", passed.str("event_id"), got.str("event_id"))
		}
	})
	t.Run("just after a start the former state does not count", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		w.stopped(id)
		w.start(id)
		w.do("GET", of(id, "wait?timeout=1&state=stopped"), nil).is(408)
	})
	t.Run("a version is needed for stopped where it is switched on", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{Unsettled: fly.Unsettled{WaitNeedsVersion: true}})
		got := w.create("m", nil).is(200)
		w.do("GET", of(got.str("id"), "wait?timeout=1&state=stopped"), nil).refused(400, "instance ID is required")
		w.do("GET", of(got.str("id"), "wait?timeout=1&state=stopped&version="+got.str("instance_id")), nil).is(408)
	})
}

func TestLease(t *testing.T) {
	t.Parallel()
	t.Run("the ttl is in the query or in the body", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.machine("m", nil)
		now := time.Now().Unix()
		for _, c := range []struct {
			query string
			body  any
			ttl   int64
		}{{"lease?ttl=100", nil, 100}, {"lease", obj{"ttl": 200, "description": "why"}, 200}, {"lease?ttl=300", obj{"ttl": 1}, 300}, {"lease", nil, 13}} {
			got := w.do("POST", of(id, c.query), c.body).is(201, `"status":"success"`).obj()
			expires, _ := at(got, "data.expires_at").(float64)
			if left := int64(expires) - now; left < c.ttl || left > c.ttl+30 {
				t.Errorf("%s %v: %d s left, want %d", c.query, c.body, left, c.ttl)
			}
			if at(got, "data.version") != w.do("GET", of(id, ""), nil).str("instance_id") || at(got, "data.owner") == "" {
				t.Errorf("lease = %v, want the machine's version and an owner", got)
			}
			nonce, _ := at(got, "data.nonce").(string)
			w.do("DELETE", of(id, "lease"), nil, "Fly-Machine-Lease-Nonce: "+nonce).is(200, `{"data":{"ok":true},"status":"success"}`)
		}
		w.do("POST", of(id, "lease?ttl=long"), nil).is(400)
		w.do("POST", of(id, "lease?ttl=-1"), nil).is(400)
	})
	t.Run("it guards what changes the machine, by text with owner and time", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.started("m", nil)
		nonce, _ := at(w.do("POST", of(id, "lease?ttl=60"), nil).is(201).obj(), "data.nonce").(string)
		held := regexp.MustCompile(`machine ID ` + id + ` lease currently held by \S+, expires at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
		for _, c := range []struct{ method, call string }{
			{"POST", ""},
			{"PUT", ""},
			{"DELETE", ""},
			{"POST", "start"},
			{"POST", "stop"},
			{"POST", "suspend"},
			{"POST", "restart"},
			{"POST", "cordon"},
			{"POST", "exec"},
			{"POST", "lease"},
			{"DELETE", "lease"},
		} {
			for _, header := range []string{"X: none", "Fly-Machine-Lease-Nonce: wrong"} {
				got := w.do(c.method, of(id, c.call), obj{"command": []string{"true"}}, header)
				if got.status != 409 || !held.MatchString(got.raw) {
					t.Errorf("%s %s with %s = %d %s, want 409", c.method, c.call, header, got.status, got.raw)
				}
			}
		}
		w.do("GET", of(id, ""), nil).is(200)
		w.do("GET", of(id, "wait?timeout=1"), nil).is(200)
		w.do("POST", of(id, "metadata/a"), obj{"value": "b"}).is(204)
		w.do("POST", of(id, "signal"), obj{"signal": "SIGHUP"}).is(200)
		w.do("POST", of(id, "stop"), nil, "Fly-Machine-Lease-Nonce: "+nonce).is(200)
	})
	t.Run("its holder refreshes it, and nobody else reads the nonce", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.machine("m", nil)
		got := w.do("POST", of(id, "lease"), obj{"ttl": 20, "description": "why"}).is(201).obj()
		nonce, _ := at(got, "data.nonce").(string)
		more := w.do("POST", of(id, "lease?ttl=500"), nil, "Fly-Machine-Lease-Nonce: "+nonce).is(201).obj()
		if at(more, "data.nonce") != nonce || at(more, "data.expires_at").(float64) <= at(got, "data.expires_at").(float64) {
			t.Errorf("refreshed = %v after %v, want the same nonce for longer", more, got)
		}
		read := w.do("GET", of(id, "lease"), nil).is(200, `"description":"why"`)
		if strings.Contains(read.raw, nonce) {
			t.Errorf("lease = %s, want it without its nonce", read.raw)
		}
		w.do("GET", of(id, "?include_leases=true"), nil).is(200, `"lease":{"description":"why"`)
		w.do("GET", machines+"?include_leases=true&summary=true", nil).is(200, `"lease":{"description":"why"`)
		if got := w.do("GET", of(id, ""), nil); strings.Contains(got.raw, `"lease"`) {
			t.Errorf("machine = %s, want no lease that was not asked for", got.raw)
		}
	})
	t.Run("it expires", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.machine("m", nil)
		w.do("POST", of(id, "lease?ttl=1"), nil).is(201)
		w.do("GET", of(id, "lease"), nil).is(200)
		w.until("it has expired", func() bool { return w.do("GET", of(id, "lease"), nil).status == 404 })
		w.do("DELETE", of(id, "lease"), nil).refused(404, "lease not found")
		w.do("POST", of(id, "lease?ttl=60"), nil).is(201)
	})
	t.Run("a machine can be made with one", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		got := w.do("POST", machines, obj{"config": obj{"image": "any"}, "lease_ttl": 60}).is(200)
		w.do("DELETE", of(got.str("id"), "?force=true"), nil).is(409)
		w.do("DELETE", of(got.str("id"), "?force=true"), nil, "Fly-Machine-Lease-Nonce: "+got.str("nonce")).is(200)
	})
	t.Run("a stop hangs on one where it is switched on", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{Unsettled: fly.Unsettled{LeasedStopHangs: true}})
		id := w.started("m", nil)
		w.do("POST", of(id, "lease?ttl=1"), nil).is(201)
		w.do("POST", of(id, "stop"), nil).is(200)
		w.do("GET", of(id, "lease"), nil).is(404)
	})
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fly.Config{})
	id := w.machine("m", obj{"metadata": obj{"a": "1"}})
	w.machine("other", obj{"metadata": nil})
	version := w.do("GET", of(id, ""), nil).str("instance_id")
	w.do("POST", of(id, "metadata/b"), obj{"value": "2"}).is(204)
	w.do("GET", of(id, "metadata/b"), nil).is(200, `{"value":"2"}`)
	w.do("GET", of(id, "metadata/nonsense"), nil).is(404)
	w.do("PATCH", of(id, "metadata"), obj{"metadata": obj{"c": "3", "a": nil}, "machine_version": version}).is(204)
	w.do("PUT", of(id, "metadata"), obj{"metadata": obj{"d": "4"}, "machine_version": "01H"}).refused(412, "machine version is "+version)
	w.do("DELETE", of(id, "metadata/c"), nil).is(204)
	w.do("PUT", of(id, "metadata"), obj{"metadata": obj{"d": "4"}}).is(204)
	w.do("GET", of(id, "metadata"), nil).is(200, `{"b":"2","d":"4"}`)
	w.do("GET", of(id, ""), nil).is(200, `"metadata":{"b":"2","d":"4"}`, `"instance_id":"`+version+`"`)
	for query, want := range map[string]int{
		"": 2, "metadata.b=2": 1, "metadata.b=2&metadata.d=4": 1, "metadata.b=2&metadata.d=5": 0, "metadata.a=1": 0,
	} {
		if got := w.do("GET", machines+"?"+query, nil).is(200).list(); len(got) != want {
			t.Errorf("list with %q has %d, want %d", query, len(got), want)
		}
	}
	t.Run("one that had null gets some", func(t *testing.T) {
		w := w.in(t)
		other, _ := w.do("GET", machines, nil).list()[1]["id"].(string)
		w.do("POST", of(other, "metadata/b"), obj{"value": "2"}).is(204)
		w.do("GET", of(other, "metadata"), nil).is(200, `{"b":"2"}`)
	})
	t.Run("a version keeps what it had", func(t *testing.T) {
		w := w.in(t)
		w.do("GET", of(id, "versions"), nil).is(200, `"metadata":{"a":"1"}`)
	})
	t.Run("a value's length is limited where it is switched on", func(t *testing.T) {
		w := newWorld(t, fly.Config{Unsettled: fly.Unsettled{MetadataValue: 3}})
		id := w.machine("m", nil)
		w.do("POST", of(id, "metadata/a"), obj{"value": "1234"}).refused(400, "longer than 3")
		w.do("POST", of(id, "metadata/a"), obj{"value": "123"}).is(204)
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fly.Config{})
	first := w.started("first", nil)
	second := w.do("POST", machines, obj{"name": "second", "region": "ams", "config": obj{"image": "any"}, "skip_launch": true}).is(200).str("id")
	w.wait(second, "stopped")
	for query, want := range map[string][]string{
		"": {first, second}, "state=started": {first}, "state=stopped,suspended": {second}, "state=started,stopped": {first, second},
		"region=ams": {second}, "region=ams&state=started": {},
	} {
		got := []string{}
		for _, m := range w.do("GET", machines+"?"+query, nil).is(200).list() {
			id, _ := m["id"].(string)
			got = append(got, id)
		}
		if !slices.Equal(got, want) {
			t.Errorf("list with %q = %v, want %v", query, got, want)
		}
	}
	summary := w.do("GET", machines+"?summary=true", nil).is(200).list()[0]
	for _, field := range []string{"config", "events", "host_status"} {
		if _, there := summary[field]; there {
			t.Errorf("summary = %v, want no %s", summary, field)
		}
	}
	if summary["state"] != "started" || summary["id"] != first {
		t.Errorf("summary = %v, want state and id", summary)
	}
	w.do("POST", "/v1/apps", obj{"name": "empty"}).is(201)
	if got := w.do("GET", "/v1/apps/empty/machines", nil).is(200).raw; got != "[]" {
		t.Errorf("list of none = %s, want []", got)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fly.Config{})
	id := w.machine("m", obj{"init": obj{"exec": []string{"/bin/sh", "-c", "exit 1"}}, "restart": obj{"policy": "on-failure", "max_retries": 12}})
	w.until("it has given up", func() bool { return len(w.exits(id)) >= 12 && w.state(id) == "stopped" })
	for _, c := range []struct {
		query string
		want  int
	}{{"", 20}, {"?limit=5", 5}, {"?limit=50", 50}, {"?limit=500", 50}} {
		events := w.do("GET", of(id, "events"+c.query), nil).is(200).list()
		if len(events) != c.want {
			t.Errorf("events%s: %d, want %d", c.query, len(events), c.want)
		}
		for i := range events[1:] {
			if newer, older := events[i]["id"].(string), events[i+1]["id"].(string); newer <= older || events[i]["timestamp"].(float64) < events[i+1]["timestamp"].(float64) {
				t.Fatalf("event %s is shown before %s, want the newest first", newer, older)
			}
		}
	}
	if got, _ := w.do("GET", of(id, ""), nil).obj()["events"].([]any); len(got) != 20 {
		t.Errorf("the machine shows %d events, want 20", len(got))
	}
}
