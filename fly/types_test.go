package fly_test

import (
	"encoding/json"
	"testing"
	"time"

	"flaudebot/fly"
)

// TestDecoding: Fly's forms differ by time and place; all that were seen are read.
func TestDecoding(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request string // of the exit event
		code    int
		oom     bool
	}{
		"today's form":              {`{"restart_count":0,"exit_event":{"exit_code":137,"oom_killed":true,"requested_stop":false,"signal":9,"exited_at":"2026-08-20T10:00:00Z"}}`, 137, true},
		"a time that is a number":   {`{"exit_event":{"exit_code":1,"exited_at":1653047898717}}`, 1, false},
		"the older form":            {`{"MonitorEvent":{"exit_event":{"exit_code":2,"exited_at":1653047898717}}}`, 2, false},
		"both: the older one first": {`{"MonitorEvent":{"exit_event":{"exit_code":3}},"exit_event":{"exit_code":4}}`, 3, false},
		"zero values left out":      {`{"exit_event":{}}`, 0, false},
		"nothing at all":            {`{}`, 0, false},
	} {
		t.Run("an exit in "+name, func(t *testing.T) {
			t.Parallel()
			body := `{"id":"m","events":[{"type":"start","request":null},{"type":"exit","timestamp":1698719726615,"request":` + c.request + `},
				{"type":"exit","timestamp":1,"request":{"exit_event":{"exit_code":99}}}]}`
			m, err := always(200, body).client(t).Machine(t.Context(), "a", "m")
			if err != nil {
				t.Fatal(err)
			}
			exit, ok := m.LastExit()
			if !ok || exit.ExitCode != c.code || exit.OOMKilled != c.oom || !exit.At.Equal(time.UnixMilli(1698719726615)) {
				t.Errorf("LastExit = %+v, %v, want the newest, %d", exit, ok, c.code)
			}
		})
	}
	t.Run("a machine without exits has none", func(t *testing.T) {
		t.Parallel()
		m, err := always(200, `{"id":"m","events":[{"type":"start"},{"type":"exit"}]}`).client(t).Machine(t.Context(), "a", "m")
		if err != nil {
			t.Fatal(err)
		}
		if exit, ok := m.LastExit(); ok {
			t.Errorf("LastExit = %+v, want none", exit)
		}
	})
	t.Run("a host that cannot be reached leaves no config", func(t *testing.T) {
		t.Parallel()
		m, err := always(200, `{"id":"m","config":null,"incomplete_config":{"image":"i"},"host_status":"unreachable"}`).client(t).Machine(t.Context(), "a", "m")
		if err != nil || m.Config != nil || m.HostStatus != "unreachable" {
			t.Errorf("Machine = %+v, %v", m, err)
		}
	})
	t.Run("volumes on their way out are not listed", func(t *testing.T) {
		t.Parallel()
		body := `[{"id":"1","state":"created","attached_machine_id":null},{"id":"2","state":"pending_destroy"},{"id":"3","state":"scheduling_destroy"},
			{"id":"4","state":"hydrating","attached_machine_id":"m"},{"id":"5","state":"waiting_for_detach"},{"id":"6","state":"fork_cleanup"},{"id":"7","state":"destroyed"}]`
		got, err := always(200, body).client(t).Volumes(t.Context(), "a")
		if err != nil || len(got) != 2 || got[0].ID != "1" || got[1].AttachedMachineID != "m" {
			t.Errorf("Volumes = %v, %v, want 1 and 4", got, err)
		}
	})
	t.Run("a log's token may be in quotes or bare, and is kept as it is", func(t *testing.T) {
		t.Parallel()
		for _, token := range []string{`"1779235200000000001"`, `1779235200000000001`} {
			body := `{"data":[{"id":"1","attributes":{"timestamp":"t","message":"m","level":"info","instance":"i","region":"fra"}}],"meta":{"next_token":` + token + `}}`
			page, err := always(200, body).client(t).Logs(t.Context(), "a", fly.Logs{})
			want := fly.LogEntry{ID: "1", Timestamp: "t", Message: "m", Machine: "i", Region: "fra", Level: "info"}
			if err != nil || page.NextToken != "1779235200000000001" || len(page.Entries) != 1 || page.Entries[0] != want {
				t.Errorf("Logs = %+v, %v", page, err)
			}
		}
		if page, err := always(200, `{"data":[],"meta":{"next_token":null}}`).client(t).Logs(t.Context(), "a", fly.Logs{}); err != nil || page.NextToken != "" {
			t.Errorf("Logs = %+v, %v, want no token", page, err)
		}
	})
	t.Run("a lease is in an envelope", func(t *testing.T) {
		t.Parallel()
		body := `{"status":"success","data":{"nonce":"5c35","expires_at":1708569778,"owner":"a@b.c","description":"","version":"01V"}}`
		got, err := always(201, body).client(t).AcquireLease(t.Context(), "a", "m", time.Minute, "")
		if want := (fly.Lease{Nonce: "5c35", ExpiresAt: 1708569778, Owner: "a@b.c", Version: "01V"}); err != nil || *got != want {
			t.Errorf("AcquireLease = %+v, %v, want %+v", got, err, want)
		}
	})
	t.Run("a command that says nothing ended well", func(t *testing.T) {
		t.Parallel()
		got, err := always(200, `{"stdout":"x"}`).client(t).Exec(t.Context(), "a", "m", fly.Exec{}, "")
		if err != nil || got.ExitCode != 0 || got.Stdout != "x" {
			t.Errorf("Exec = %+v, %v", got, err)
		}
	})
}

// TestConfig: an update replaces the whole config, so that what was read goes back.
func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, read string
		change     func(*fly.MachineConfig)
		want       string
	}{
		{
			"what is not ours goes back as it came",
			`{"image":"i","services":[{"autostop":"suspend","internal_port":80},{"autostop":true}],"new":{"big":12345678901234567890,"f":1.50}}`, nil,
			`{"image":"i","new":{"big":12345678901234567890,"f":1.50},"services":[{"autostop":"suspend","internal_port":80},{"autostop":true}]}`,
		},
		{
			"also inside of what is ours",
			`{"image":"i","guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256,"kernel_args":["a"]},"mounts":[{"volume":"v","path":"/data","size_gb_limit":9}]}`,
			func(c *fly.MachineConfig) { c.Guest.MemoryMB = 512; c.Mounts[0].Path = "/d" },
			`{"guest":{"cpu_kind":"shared","cpus":1,"kernel_args":["a"],"memory_mb":512},"image":"i","mounts":[{"path":"/d","size_gb_limit":9,"volume":"v"}]}`,
		},
		{
			"what was removed does not come back",
			`{"image":"i","env":{"A":"1","B":"2"},"metadata":{"k":"v"},"restart":{"policy":"always","max_retries":3},"auto_destroy":true,"mounts":[{"volume":"v","path":"/data"}]}`,
			func(c *fly.MachineConfig) {
				delete(c.Env, "A")
				c.Metadata, c.Mounts, c.AutoDestroy, c.Restart = nil, nil, false, &fly.Restart{Policy: "no"}
			},
			`{"env":{"B":"2"},"image":"i","restart":{"policy":"no"}}`,
		},
		{
			"files of others stay whole, wherever ours is among them",
			`{"image":"i","files":[{"guest_path":"/ours","raw_value":"YQ==","mode":384},{"guest_path":"/theirs","secret_name":"S","mode":420}]}`,
			func(c *fly.MachineConfig) {
				c.Files = append(c.Files[1:], fly.File{GuestPath: "/new", RawValue: "Yg=="})
			},
			`{"files":[{"guest_path":"/theirs","mode":420,"secret_name":"S"},{"guest_path":"/new","raw_value":"Yg=="}],"image":"i"}`,
		},
		{"a duration is read in both forms", `{"image":"i","stop_config":{"timeout":5000000000}}`, nil, `{"image":"i","stop_config":{"timeout":"5s"}}`},
		{"null is nothing", `{"image":"i","env":null,"mounts":null,"guest":null,"services":null}`, nil, `{"image":"i","services":null}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var cfg fly.MachineConfig
			if err := json.Unmarshal([]byte(c.read), &cfg); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(&cfg)
			}
			if got := toJSON(cfg); got != c.want {
				t.Errorf("config = %s\nwant     %s", got, c.want)
			}
		})
	}
	t.Run("a duration that is none is said", func(t *testing.T) {
		t.Parallel()
		for _, read := range []string{`{"stop_config":{"timeout":"long"}}`, `{"stop_config":{"timeout":true}}`} {
			var cfg fly.MachineConfig
			if err := json.Unmarshal([]byte(read), &cfg); err == nil {
				t.Errorf("%s was read as %+v", read, cfg.StopConfig)
			}
		}
	})
}
