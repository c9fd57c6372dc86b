package fly_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flaudebot/fly"
)

func TestRequests(t *testing.T) {
	t.Parallel()
	cfg := &fly.MachineConfig{Image: "i", Mounts: []fly.Mount{{Volume: "v", Path: "/data"}}, StopConfig: &fly.StopConfig{Signal: "SIGTERM", Timeout: fly.Duration(time.Minute)}}
	for _, c := range []struct {
		name string
		do   func(context.Context, *fly.Client) error
		want string // method, path?query, body
		head string // nonce
	}{
		{
			"create app", func(ctx context.Context, c *fly.Client) error {
				return c.CreateApp(ctx, fly.CreateApp{Name: "a", OrgSlug: "o", Network: "n"})
			},
			`POST /v1/apps {"name":"a","network":"n","org_slug":"o"}`, "",
		},
		{"list apps", func(ctx context.Context, c *fly.Client) error { _, err := c.Apps(ctx, "o"); return err }, `GET /v1/apps?org_slug=o `, ""},
		{"create volume: not in zones of their own unless asked", func(ctx context.Context, c *fly.Client) error {
			_, err := c.CreateVolume(ctx, "a", fly.CreateVolume{Name: "v", Region: "fra", SizeGB: 1, Compute: &fly.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 256}})
			return err
		}, `POST /v1/apps/a/volumes {"compute":{"cpu_kind":"shared","cpus":1,"memory_mb":256},"name":"v","region":"fra","require_unique_zone":false,"size_gb":1}`, ""},
		{"extend volume", func(ctx context.Context, c *fly.Client) error {
			_, _, err := c.ExtendVolume(ctx, "a", "v", 2)
			return err
		}, `PUT /v1/apps/a/volumes/v/extend {"size_gb":2}`, ""},
		{"create machine", func(ctx context.Context, c *fly.Client) error {
			_, err := c.CreateMachine(ctx, "a", fly.CreateMachine{Name: "m", Region: "fra", Config: cfg, SkipSecrets: true, LeaseTTL: 9})
			return err
		}, `POST /v1/apps/a/machines {"config":{"image":"i","mounts":[{"path":"/data","volume":"v"}],"stop_config":{"signal":"SIGTERM","timeout":"1m0s"}},"lease_ttl":9,"name":"m","region":"fra","skip_secrets":true}`, ""},
		{"list by metadata", func(ctx context.Context, c *fly.Client) error {
			_, err := c.Machines(ctx, "a", fly.MachineFilter{Metadata: map[string]string{"k": "v w"}, States: []string{"started", "stopped"}, Region: "fra", IncludeDeleted: true, Summary: true})
			return err
		}, `GET /v1/apps/a/machines?include_deleted=true&metadata.k=v+w&region=fra&state=started%2Cstopped&summary=true `, ""},
		{"update", func(ctx context.Context, c *fly.Client) error {
			_, err := c.UpdateMachine(ctx, "a", "m", fly.UpdateMachine{Config: cfg, CurrentVersion: "01V"}, "n")
			return err
		}, `POST /v1/apps/a/machines/m {"config":{"image":"i","mounts":[{"path":"/data","volume":"v"}],"stop_config":{"signal":"SIGTERM","timeout":"1m0s"}},"current_version":"01V"}`, "n"},
		{"start", func(ctx context.Context, c *fly.Client) error { return c.StartMachine(ctx, "a", "m", "n") }, `POST /v1/apps/a/machines/m/start `, "n"},
		{"stop", func(ctx context.Context, c *fly.Client) error {
			return c.StopMachine(ctx, "a", "m", fly.StopMachine{Signal: "SIGTERM", Timeout: 30 * time.Second}, "n")
		}, `POST /v1/apps/a/machines/m/stop {"signal":"SIGTERM","timeout":"30s"}`, "n"},
		{"signal", func(ctx context.Context, c *fly.Client) error { return c.SignalMachine(ctx, "a", "m", "SIGUSR1") }, `POST /v1/apps/a/machines/m/signal {"signal":"SIGUSR1"}`, ""},
		{"delete", func(ctx context.Context, c *fly.Client) error { return c.DeleteMachine(ctx, "a", "m", false, "n") }, `DELETE /v1/apps/a/machines/m `, "n"},
		{"delete by force", func(ctx context.Context, c *fly.Client) error { return c.DeleteMachine(ctx, "a", "m", true, "") }, `DELETE /v1/apps/a/machines/m?force=true `, ""},
		{"lease: the ttl in both forms, a second at least", func(ctx context.Context, c *fly.Client) error {
			_, err := c.AcquireLease(ctx, "a", "m", time.Millisecond, "why")
			return err
		}, `POST /v1/apps/a/machines/m/lease?ttl=1 {"description":"why","ttl":1}`, ""},
		{
			"refresh", func(ctx context.Context, c *fly.Client) error {
				_, err := c.RefreshLease(ctx, "a", "m", time.Minute, "n")
				return err
			},
			`POST /v1/apps/a/machines/m/lease?ttl=60 {"description":"","ttl":60}`, "n",
		},
		{"release", func(ctx context.Context, c *fly.Client) error { return c.ReleaseLease(ctx, "a", "m", "n") }, `DELETE /v1/apps/a/machines/m/lease `, "n"},
		{"exec: part of a second is one", func(ctx context.Context, c *fly.Client) error {
			_, err := c.Exec(ctx, "a", "m", fly.Exec{Command: []string{"x", "y z"}, Stdin: "in", Timeout: 1500 * time.Millisecond}, "n")
			return err
		}, `POST /v1/apps/a/machines/m/exec {"command":["x","y z"],"stdin":"in","timeout":2}`, "n"},
		{"metadata", func(ctx context.Context, c *fly.Client) error { return c.SetMetadata(ctx, "a", "m", "k", "v") }, `POST /v1/apps/a/machines/m/metadata/k {"value":"v"}`, ""},
		{"events", func(ctx context.Context, c *fly.Client) error {
			_, err := c.Events(ctx, "a", "m", 50)
			if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) {
				return nil // the fake says {}
			}
			return err
		}, `GET /v1/apps/a/machines/m/events?limit=50 `, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				good := named
				if r.Method == http.MethodGet && (strings.HasSuffix(r.URL.Path, "/machines") || strings.HasSuffix(r.URL.Path, "/events")) {
					good = `[]`
				}
				say(w, 200, good)
			}}
			if err := c.do(t.Context(), f.client(t)); err != nil {
				t.Fatal(err)
			}
			first := f.calls[0]
			body := first.body
			if body != "" {
				var v any
				if err := json.Unmarshal([]byte(body), &v); err != nil {
					t.Fatal(err)
				}
				body = toJSON(v) // keys in order
			}
			got := first.method + " " + first.path + map[bool]string{true: "?" + first.query}[first.query != ""] + " " + body
			if got != c.want || first.header.Get("Fly-Machine-Lease-Nonce") != c.head {
				t.Errorf("request = %s with nonce %q\nwant %s with %q", got, first.header.Get("Fly-Machine-Lease-Nonce"), c.want, c.head)
			}
		})
	}
}

func TestEnsureApp(t *testing.T) {
	t.Parallel()
	// world is a fake with one app: whether it is there, and what is said to its creation and to those who look for it.
	for _, c := range []struct {
		name    string
		answers []int // in their order; get, create, get, …
		took    bool  // the creation took effect
		calls   int
		want    error
	}{
		{"one that is there is read", []int{200}, false, 1, nil},
		{"one that is missing is made", []int{404, 201, 200}, true, 3, nil},
		{"Fly may not know it at once", []int{404, 201, 404, 401, 200}, true, 5, nil},
		{"another made it meanwhile", []int{404, 422, 200}, true, 3, nil},
		{"an answer that was lost is looked for", []int{404, 408, 200}, true, 3, nil},
		{"a creation that was lost fails", []int{404, dropped, 404}, false, 3, fly.ErrUnavailable},
		{"another organization's is not ours", []int{403}, false, 1, fly.ErrForbidden},
		{"who may not make one is told", []int{404, 403}, false, 2, fly.ErrForbidden},
		{"a bad token is told at once", []int{401}, false, 1, fly.ErrUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{answer: func(n int, w http.ResponseWriter, _ *http.Request) {
					body := `{"name":"a","network":"n"}`
					switch status := c.answers[min(n, len(c.answers)-1)]; status {
					case 422:
						say(w, status, `{"error":"Validation failed: Name has already been taken","status":"name_taken"}`)
					default:
						say(w, status, body)
					}
				}}
				app, err := f.client(t).EnsureApp(t.Context(), fly.CreateApp{Name: "a", OrgSlug: "o"})
				if f.count() != c.calls || !errors.Is(err, c.want) || (err == nil && app.Name != "a") {
					t.Errorf("EnsureApp = %v, %v after %d calls, want %v after %d", app, err, f.count(), c.want, c.calls)
				}
			})
		})
	}
	t.Run("one that never appears is given up after a minute", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fake{answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				say(w, map[string]int{http.MethodGet: 404, http.MethodPost: 201}[r.Method], `{}`)
			}}
			began := time.Now()
			_, err := f.client(t).EnsureApp(t.Context(), fly.CreateApp{Name: "a"})
			if d := time.Since(began); !errors.Is(err, fly.ErrNotFound) || d < time.Minute || d > 62*time.Second {
				t.Errorf("EnsureApp = %v after %s, want ErrNotFound after a minute", err, d)
			}
		})
	})
}

// TestLostCreation: a creation is sent once, and what came of one whose answer was lost is found by its name.
func TestLostCreation(t *testing.T) {
	t.Parallel()
	made := 0
	f := &fake{answer: func(_ int, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet:
			say(w, 200, `[{"id":"148e","name":"t","config":{"metadata":{"k":"v"}}}]`)
		case made > 0:
			say(w, 409, `{"error":"already_exists: unique machine name violation, machine ID 148e already exists with name \"t\""}`)
		default:
			made++
			say(w, 408, `{"error":"deadline_exceeded"}`)
		}
	}}
	c := f.client(t)
	_, err := c.CreateMachine(t.Context(), "a", fly.CreateMachine{Name: "t"})
	if !errors.Is(err, fly.ErrTimeout) || f.count() != 1 {
		t.Fatalf("CreateMachine = %v after %d calls, want ErrTimeout after one", err, f.count())
	}
	found, err := c.Machines(t.Context(), "a", fly.MachineFilter{Metadata: map[string]string{"k": "v"}})
	if err != nil || len(found) != 1 || found[0].Name != "t" || found[0].Config.Metadata["k"] != "v" {
		t.Errorf("Machines = %v, %v, want the one", found, err)
	}
	_, err = c.CreateMachine(t.Context(), "a", fly.CreateMachine{Name: "t"})
	if e, ok := errors.AsType[*fly.Error](err); !ok || !errors.Is(err, fly.ErrNameTaken) || e.MachineID != found[0].ID {
		t.Errorf("CreateMachine = %v, want ErrNameTaken by %s", err, found[0].ID)
	}
}

// TestAnswersOfNothing: an answer that does not say of what it is leaves open what happened, as none does.
func TestAnswersOfNothing(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*fly.Client) error{
		"CreateVolume": func(c *fly.Client) error { _, err := c.CreateVolume(t.Context(), "a", fly.CreateVolume{}); return err },
		"Volume":       func(c *fly.Client) error { _, err := c.Volume(t.Context(), "a", "v"); return err },
		"CreateMachine": func(c *fly.Client) error {
			_, err := c.CreateMachine(t.Context(), "a", fly.CreateMachine{})
			return err
		},
		"Machine": func(c *fly.Client) error { _, err := c.Machine(t.Context(), "a", "m"); return err },
		"AcquireLease": func(c *fly.Client) error {
			_, err := c.AcquireLease(t.Context(), "a", "m", time.Minute, "")
			return err
		},
	} {
		for _, body := range []string{"", "{}", "null", "<html>welcome</html>"} {
			c := always(200, body).client(t, func(cfg *fly.Config) { cfg.Tries = 1 })
			if err := do(c); !errors.Is(err, fly.ErrUnavailable) {
				t.Errorf("%s answered %q = %v, want ErrUnavailable", name, body, err)
			}
		}
	}
}

// TestLists: the list of an app is read whole, however long it is, or not at all: what is missing in it could be taken for gone.
func TestLists(t *testing.T) {
	t.Parallel()
	const long = 40 << 20 // bytes, about what 20,000 machines take
	var many strings.Builder
	want := 0
	for ; many.Len() < long; want++ {
		_, _ = fmt.Fprintf(&many, `,{"id":"m%d","config":{"image":"i","env":{"BIG":"%s"}}}`, want, strings.Repeat("x", 1<<20))
	}
	for _, c := range []struct {
		name, body string
		want       int // -1: none can be read
	}{
		{"none", "[]", 0},
		{"none, in another form", "null", 0},
		{"two", `[{"id":"a"},{"id":"b"}]`, 2},
		{"a long one", "[" + many.String()[1:] + "]", want},
		{"cut between entries", `[{"id":"a"},{"id":"b"}`, -1},
		{"cut in an entry", `[{"id":"a"},{"id":"b`, -1},
		{"nothing at all", "", -1},
		{"no list", `{"id":"a"}`, -1},
		{"a page", "<html>welcome</html>", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := always(200, c.body).client(t, func(cfg *fly.Config) { cfg.Tries = 1 })
			machines, err := f.Machines(t.Context(), "a", fly.MachineFilter{})
			volumes, volErr := f.Volumes(t.Context(), "a")
			if c.want >= 0 && (err != nil || volErr != nil || len(machines) != c.want || len(volumes) != c.want) {
				t.Errorf("%d machines, %v, and %d volumes, %v, want %d", len(machines), err, len(volumes), volErr, c.want)
			}
			if c.want < 0 && (!errors.Is(err, fly.ErrUnavailable) || !errors.Is(volErr, fly.ErrUnavailable) || len(machines)+len(volumes) > 0) {
				t.Errorf("%d machines, %v, and %d volumes, %v, want ErrUnavailable", len(machines), err, len(volumes), volErr)
			}
		})
	}
}

// TestPagesForAnswers: a page that something before Fly answers with is not Fly's word that a request took effect, also where nobody
// reads the answer: a machine that is taken for stopped goes on, and so does its bill.
func TestPagesForAnswers(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*fly.Client) error{
		"CreateApp":      func(c *fly.Client) error { return c.CreateApp(t.Context(), fly.CreateApp{}) },
		"StartMachine":   func(c *fly.Client) error { return c.StartMachine(t.Context(), "a", "m", "") },
		"StopMachine":    func(c *fly.Client) error { return c.StopMachine(t.Context(), "a", "m", fly.StopMachine{}, "") },
		"DeleteMachine":  func(c *fly.Client) error { return c.DeleteMachine(t.Context(), "a", "m", true, "") },
		"DeleteVolume":   func(c *fly.Client) error { return c.DeleteVolume(t.Context(), "a", "v") },
		"ReleaseLease":   func(c *fly.Client) error { return c.ReleaseLease(t.Context(), "a", "m", "n") },
		"SetMetadata":    func(c *fly.Client) error { return c.SetMetadata(t.Context(), "a", "m", "k", "v") },
		"DeleteMetadata": func(c *fly.Client) error { return c.DeleteMetadata(t.Context(), "a", "m", "k") },
	} {
		for body, want := range map[string]error{"<html>welcome</html>": fly.ErrUnavailable, `{"ok":true}`: nil, "": nil} {
			c := always(200, body).client(t, func(cfg *fly.Config) { cfg.Tries = 1 })
			if err := do(c); !errors.Is(err, want) {
				t.Errorf("%s answered %q = %v, want %v", name, body, err, want)
			}
		}
	}
}

func TestStartMachine(t *testing.T) {
	t.Parallel()
	refused := `{"error":"failed_precondition: machine still active, refusing to start"}`
	// world refuses the first starts, and shows a state.
	world := func(refusals int, state string) *fake {
		starts := 0
		return &fake{answer: func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				say(w, 200, `{"id":"m","state":"`+state+`"}`)
				return
			}
			if starts++; starts <= refusals {
				say(w, 412, refused)
				return
			}
			say(w, 200, `{"message":"ok","status":"x","previous_state":"stopped"}`)
		}}
	}
	for _, c := range []struct {
		name        string
		refusals    int
		state       string
		ok          bool
		least, most time.Duration
	}{
		{"one that may start does", 0, "stopped", true, 0, 0},
		{"one that is still active is tried again soon", 2, "stopped", true, 750 * time.Millisecond, 750 * time.Millisecond},
		{"one that goes on being active is given up after 30 s", 1000, "stopped", false, 30 * time.Second, 32 * time.Second},
		{"one that has started meanwhile is fine", 1000, "started", true, 0, 0},
		{"one that is starting is fine", 1000, "starting", true, 0, 0},
		{"one that is gone is not waited for", 1000, "destroyed", false, 0, 0},
		{"one that has failed is not waited for", 1000, "failed", false, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := world(c.refusals, c.state).client(t).StartMachine(t.Context(), "a", "m", "")
				if d := time.Since(began); (err == nil) != c.ok || d < c.least || d > c.most {
					t.Errorf("StartMachine = %v after %s, want ok %v after %s to %s", err, d, c.ok, c.least, c.most)
				}
				if !c.ok && !errors.Is(err, fly.ErrPrecondition) {
					t.Errorf("StartMachine = %v, want ErrPrecondition", err)
				}
			})
		})
	}
}

func TestWaitMachine(t *testing.T) {
	t.Parallel()
	isWait := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/wait") }
	// machine answers waits by what wait says, and reads by the state that it names for the n-th read.
	machine := func(wait func(n int, w http.ResponseWriter, r *http.Request), state func(n int) string) *fake {
		waits, reads := 0, 0
		return &fake{answer: func(_ int, w http.ResponseWriter, r *http.Request) {
			if isWait(r) {
				wait(waits, w, r)
				waits++
				return
			}
			say(w, 200, `{"id":"m","state":"`+state(reads)+`"}`)
			reads++
		}}
	}
	reached := func(_ int, w http.ResponseWriter, _ *http.Request) { say(w, 200, `{"ok":true}`) }
	t.Run("it asks in slices that Fly accepts, until the state is reached", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := machine(func(n int, w http.ResponseWriter, r *http.Request) {
				if n < 4 {
					d, _ := time.ParseDuration(r.URL.Query().Get("timeout") + "s")
					if d < time.Second || d > time.Minute {
						t.Errorf("timeout = %s, want 1 to 60 s", d)
					}
					time.Sleep(d) // in fake time
					say(w, 408, `{"error":"deadline_exceeded: machine failed to reach desired state, started, currently starting"}`)
					return
				}
				reached(n, w, r)
			}, func(int) string { return "started" })
			m, err := f.client(t).WaitMachine(t.Context(), "a", "m", fly.WaitMachine{States: []string{"started", "stopped"}, InstanceID: "01V", FromEventID: "01E"})
			if err != nil || m.State != "started" || f.count() != 6 {
				t.Errorf("WaitMachine = %v, %v after %d calls, want started after 6", m, err, f.count())
			}
			q, _ := url.ParseQuery(f.calls[0].query)
			if fmt.Sprint(q) != "map[from_event_id:[01E] state:[started stopped] timeout:[30] version:[01V]]" {
				t.Errorf("query = %v", q)
			}
		})
	})
	t.Run("a read that shows the former state is repeated, not at once", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := machine(reached, func(n int) string { return []string{"starting", "starting", "started"}[n] })
			began := time.Now()
			m, err := f.client(t).WaitMachine(t.Context(), "a", "m", fly.WaitMachine{States: []string{"started"}})
			if err != nil || m.State != "started" || time.Since(began) != 500*time.Millisecond {
				t.Errorf("WaitMachine = %v, %v after %s, want started after 0.5 s", m, err, time.Since(began))
			}
		})
	})
	t.Run("a state that has passed is looked for after its event", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := machine(func(n int, w http.ResponseWriter, _ *http.Request) {
				say(w, 200, fmt.Sprintf(`{"ok":true,"event_id":"01E%d"}`, n+1))
			}, func(n int) string { return []string{"stopped", "started"}[n] })
			if _, err := f.client(t).WaitMachine(t.Context(), "a", "m", fly.WaitMachine{States: []string{"started"}, FromEventID: "01E0"}); err != nil {
				t.Fatal(err)
			}
			for i, want := range map[int]string{0: "01E0", 2: "01E1"} {
				if q, _ := url.ParseQuery(f.calls[i].query); q.Get("from_event_id") != want {
					t.Errorf("call %d asks from %s, want %s", i, q.Get("from_event_id"), want)
				}
			}
		})
	})
	t.Run("settled is any state that lasts", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := machine(reached, func(n int) string { return []string{"replacing", "stopped"}[n] })
			m, err := f.client(t).WaitMachine(t.Context(), "a", "m", fly.WaitMachine{States: []string{"settled"}})
			if err != nil || m.State != "stopped" {
				t.Errorf("WaitMachine = %v, %v, want stopped", m, err)
			}
		})
	})
	t.Run("one that is gone is not waited for", func(t *testing.T) {
		t.Parallel()
		f := always(404, `{"error":"not_found: machine not found"}`)
		if _, err := f.client(t).WaitMachine(t.Context(), "a", "m", fly.WaitMachine{States: []string{"destroyed"}}); !errors.Is(err, fly.ErrNotFound) || f.count() != 1 {
			t.Errorf("WaitMachine = %v after %d calls, want ErrNotFound after one", err, f.count())
		}
	})
	t.Run("a bad parameter is not repeated", func(t *testing.T) {
		t.Parallel()
		f := always(400, `{"error":"invalid_argument: x"}`)
		if _, err := f.client(t).WaitMachine(t.Context(), "a", "m", fly.WaitMachine{States: []string{"asleep"}}); !errors.Is(err, fly.ErrInvalid) || f.count() != 1 {
			t.Errorf("WaitMachine = %v after %d calls, want ErrInvalid after one", err, f.count())
		}
	})
}
