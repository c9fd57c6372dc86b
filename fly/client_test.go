package fly_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flaudebot/fly"
)

func TestAuthorization(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{
		"fo1_abc":                   "Bearer fo1_abc",
		"Bearer fo1_abc":            "Bearer fo1_abc",
		"FlyV1 fm2_abc":             "FlyV1 fm2_abc",
		"fm2_abc":                   "FlyV1 fm2_abc",
		"fm1r_abc":                  "FlyV1 fm1r_abc",
		"fm1a_abc":                  "FlyV1 fm1a_abc",
		"FlyV1 fm2_a,fm2_b,fo1_c":   "FlyV1 fm2_a,fm2_b,fo1_c",
		"fo1_c,fm2_a":               "FlyV1 fo1_c,fm2_a",
		"Bearer fm2_abc":            "FlyV1 fm2_abc",
		" FlyV1 fm2_abc\n":          "FlyV1 fm2_abc",
		"fly-local":                 "Bearer fly-local",
		"FlyV1 not_one_of_the_kind": "Bearer not_one_of_the_kind",
	} {
		f := always(200, `{}`)
		if _, err := f.client(t, func(c *fly.Config) { c.Token = token }).App(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if got := f.calls[0].header.Get("Authorization"); got != want {
			t.Errorf("token %q: Authorization = %q, want %q", token, got, want)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	t.Run("the base is without /v1, with or without a slash", func(t *testing.T) {
		t.Parallel()
		for _, base := range []string{"", "/", "/v1", "/v1/"} {
			var got string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.URL.Path; say(w, 200, `{}`) }))
			c, err := fly.New(fly.Config{BaseURL: srv.URL + base, Token: "x"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.App(t.Context(), "acme"); err != nil || got != "/v1/apps/acme" {
				t.Errorf("base %q: path = %q, %v, want /v1/apps/acme", base, got, err)
			}
			srv.Close()
		}
	})
	t.Run("Fly's own is the usual one, and the logs have another", func(t *testing.T) {
		t.Parallel()
		var hosts []string
		f := &fake{answer: func(_ int, w http.ResponseWriter, r *http.Request) {
			hosts = append(hosts, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path)
			say(w, 200, `{}`)
		}}
		c := f.client(t)
		_, err1 := c.App(t.Context(), "a")
		_, err2 := c.Logs(t.Context(), "a", fly.Logs{Machine: "m", NextToken: "5"})
		want := []string{"https://api.machines.dev/v1/apps/a", "https://api.fly.io/api/v1/apps/a/logs"}
		if err := errors.Join(err1, err2); err != nil || !slices.Equal(hosts, want) {
			t.Errorf("addresses = %v, %v, want %v", hosts, err, want)
		}
		if got := f.calls[1].query; got != "instance=m&next_token=5" {
			t.Errorf("query = %s", got)
		}
	})
	t.Run("a mistake is said at the start", func(t *testing.T) {
		t.Parallel()
		for _, cfg := range []fly.Config{{}, {Token: "x", BaseURL: "api.machines.dev"}, {Token: "x", LogsBaseURL: "::"}} {
			if _, err := fly.New(cfg); err == nil {
				t.Errorf("New(%+v) = nil, want an error", cfg)
			}
		}
	})
	t.Run("names cannot leave their place", func(t *testing.T) {
		t.Parallel()
		var got string
		f := &fake{answer: func(_ int, w http.ResponseWriter, r *http.Request) { got = r.URL.EscapedPath(); say(w, 200, named) }}
		_, err := f.client(t).Machine(t.Context(), "../x", "a/b?c")
		if want := "/v1/apps/..%2Fx/machines/a%2Fb%3Fc"; err != nil || got != want {
			t.Errorf("path = %s, %v, want %s", got, err, want)
		}
	})
}

// TestRetries: what may be repeated is, all else is sent once.
func TestRetries(t *testing.T) {
	t.Parallel()
	calls := map[string]func(context.Context, *fly.Client) error{
		"App":       func(ctx context.Context, c *fly.Client) error { _, err := c.App(ctx, "a"); return err },
		"Apps":      func(ctx context.Context, c *fly.Client) error { _, err := c.Apps(ctx, "o"); return err },
		"CreateApp": func(ctx context.Context, c *fly.Client) error { return c.CreateApp(ctx, fly.CreateApp{Name: "a"}) },
		"CreateVolume": func(ctx context.Context, c *fly.Client) error {
			_, err := c.CreateVolume(ctx, "a", fly.CreateVolume{})
			return err
		},
		"Volume":       func(ctx context.Context, c *fly.Client) error { _, err := c.Volume(ctx, "a", "v"); return err },
		"Volumes":      func(ctx context.Context, c *fly.Client) error { _, err := c.Volumes(ctx, "a"); return err },
		"DeleteVolume": func(ctx context.Context, c *fly.Client) error { return c.DeleteVolume(ctx, "a", "v") },
		"CreateMachine": func(ctx context.Context, c *fly.Client) error {
			_, err := c.CreateMachine(ctx, "a", fly.CreateMachine{})
			return err
		},
		"Machine": func(ctx context.Context, c *fly.Client) error { _, err := c.Machine(ctx, "a", "m"); return err },
		"Machines": func(ctx context.Context, c *fly.Client) error {
			_, err := c.Machines(ctx, "a", fly.MachineFilter{})
			return err
		},
		"UpdateMachine": func(ctx context.Context, c *fly.Client) error {
			_, err := c.UpdateMachine(ctx, "a", "m", fly.UpdateMachine{}, "")
			return err
		},
		"StartMachine": func(ctx context.Context, c *fly.Client) error { return c.StartMachine(ctx, "a", "m", "") },
		"StopMachine": func(ctx context.Context, c *fly.Client) error {
			return c.StopMachine(ctx, "a", "m", fly.StopMachine{}, "")
		},
		"DeleteMachine": func(ctx context.Context, c *fly.Client) error { return c.DeleteMachine(ctx, "a", "m", true, "") },
		"AcquireLease": func(ctx context.Context, c *fly.Client) error {
			_, err := c.AcquireLease(ctx, "a", "m", time.Second, "")
			return err
		},
		"RefreshLease": func(ctx context.Context, c *fly.Client) error {
			_, err := c.RefreshLease(ctx, "a", "m", time.Second, "n")
			return err
		},
		"Lease":        func(ctx context.Context, c *fly.Client) error { _, err := c.Lease(ctx, "a", "m"); return err },
		"ReleaseLease": func(ctx context.Context, c *fly.Client) error { return c.ReleaseLease(ctx, "a", "m", "n") },
		"Exec": func(ctx context.Context, c *fly.Client) error {
			_, err := c.Exec(ctx, "a", "m", fly.Exec{}, "")
			return err
		},
		"Metadata":       func(ctx context.Context, c *fly.Client) error { _, err := c.Metadata(ctx, "a", "m"); return err },
		"SetMetadata":    func(ctx context.Context, c *fly.Client) error { return c.SetMetadata(ctx, "a", "m", "k", "v") },
		"DeleteMetadata": func(ctx context.Context, c *fly.Client) error { return c.DeleteMetadata(ctx, "a", "m", "k") },
		"Events":         func(ctx context.Context, c *fly.Client) error { _, err := c.Events(ctx, "a", "m", 5); return err },
		"Logs":           func(ctx context.Context, c *fly.Client) error { _, err := c.Logs(ctx, "a", fly.Logs{}); return err },
	}
	lists := []string{"Volumes", "Machines", "Events"}
	once := []string{"CreateApp", "CreateVolume", "CreateMachine", "UpdateMachine", "Exec"}
	for name, do := range calls {
		good := `{}`
		switch {
		case slices.Contains(lists, name):
			good = `[]`
		case slices.Contains([]string{"CreateVolume", "Volume", "CreateMachine", "Machine", "AcquireLease"}, name):
			good = named
		}
		for _, c := range []struct {
			what   string
			status int
			twice  bool // sent again
		}{
			{"429", 429, true},
			{"408", 408, !slices.Contains(once, name)},
			{"500", 500, !slices.Contains(once, name)},
			{"503", 503, !slices.Contains(once, name)},
			{"no answer", dropped, !slices.Contains(once, name)},
			{"400", 400, false},
			{"401", 401, false},
			{"403", 403, false},
			{"422", 422, false},
		} {
			t.Run(name+" after "+c.what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := first(good, c.status)
					err := do(t.Context(), f.client(t))
					if want := map[bool]int{true: 2, false: 1}[c.twice]; f.count() != want || (err == nil) != c.twice {
						t.Errorf("sent %d times, %v; want %d", f.count(), err, want)
					}
				})
			})
		}
	}
	for name, do := range calls {
		t.Run(name+" that the transport must not send", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				why, tries := errors.New("it is another's by now"), 0
				refuse := roundTripper(func(*http.Request) (*http.Response, error) {
					tries++
					return nil, fmt.Errorf("%w: %w", fly.ErrUnsent, why)
				})
				err := do(t.Context(), always(200, "").client(t, func(c *fly.Config) { c.HTTP = &http.Client{Transport: refuse} }))
				if tries != 1 || !errors.Is(err, why) || errors.Is(err, fly.ErrUnavailable) {
					t.Errorf("tried %d times, %v; want once, and why", tries, err)
				}
			})
		})
	}
	t.Run("it gives up after as many tries as it is told", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := always(503, "")
			_, err := f.client(t, func(c *fly.Config) { c.Tries = 3 }).App(t.Context(), "a")
			if f.count() != 3 || !errors.Is(err, fly.ErrUnavailable) {
				t.Errorf("sent %d times, %v, want 3 and ErrUnavailable", f.count(), err)
			}
		})
	})
	t.Run("half an answer is asked for again", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fake{answer: func(n int, w http.ResponseWriter, _ *http.Request) {
				say(w, 200, []string{`{"name":`, `{"name":"a"}`}[min(n, 1)])
			}}
			if app, err := f.client(t).App(t.Context(), "a"); err != nil || app.Name != "a" {
				t.Errorf("App = %v, %v", app, err)
			}
		})
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPauses(t *testing.T) {
	t.Parallel()
	// gaps are the pauses between the calls of one that gets the same answer until it gives up.
	gaps := func(t *testing.T, status int, retryAfter string) (out []time.Duration, err error) {
		t.Helper()
		f := &fake{answer: func(_ int, w http.ResponseWriter, _ *http.Request) {
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			say(w, status, "")
		}}
		_, err = f.client(t).App(t.Context(), "a")
		for i := 1; i < len(f.calls); i++ {
			out = append(out, f.calls[i].at.Sub(f.calls[i-1].at))
		}
		return out, err
	}
	for _, c := range []struct {
		name       string
		status     int
		retryAfter string
		least      []time.Duration
		most       []time.Duration
	}{
		{"Retry-After is kept", 429, "7", []time.Duration{7e9, 7e9, 7e9, 7e9}, []time.Duration{7.3e9, 7.3e9, 7.3e9, 7.3e9}},
		{"of a server in trouble as well", 503, "3", []time.Duration{3e9, 3e9, 3e9, 3e9}, []time.Duration{3.3e9, 3.3e9, 3.3e9, 3.3e9}},
		{"without it 429 doubles from a second", 429, "", []time.Duration{1e9, 2e9, 4e9, 8e9}, []time.Duration{1.3e9, 2.3e9, 4.3e9, 8.3e9}},
		{"nonsense in it is as none", 429, "Wed, 21 Oct 2015 07:28:00 GMT", []time.Duration{1e9, 2e9, 4e9, 8e9}, []time.Duration{1.3e9, 2.3e9, 4.3e9, 8.3e9}},
		{"trouble is tried again soon, with jitter", 503, "", []time.Duration{1, 1, 1, 1}, []time.Duration{0.6e9, 1.1e9, 2.1e9, 4.1e9}},
		{"who is asked to come back much later gives up", 429, "3600", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got, err := gaps(t, c.status, c.retryAfter)
				if err == nil || len(got) != len(c.least) {
					t.Fatalf("pauses = %v, %v, want %d", got, err, len(c.least))
				}
				for i, d := range got {
					if d < c.least[i] || d > c.most[i] {
						t.Errorf("pause %d = %s, want %s to %s", i+1, d, c.least[i], c.most[i])
					}
				}
			})
		})
	}
}

// TestRateLimit: one a second with a burst of 3 for each action and machine or app, so that Fly has nothing to refuse.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	limited := func(c *fly.Config) { c.Unlimited = false }
	// spent is how long n calls take.
	spent := func(n int, do func()) time.Duration {
		began := time.Now()
		for range n {
			do()
		}
		return time.Since(began)
	}
	t.Run("after a burst of 3 it is one a second", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := always(200, `{}`).client(t, limited)
			if d := spent(3, func() { _ = c.SetMetadata(t.Context(), "a", "m", "k", "v") }); d != 0 {
				t.Errorf("3 calls took %s, want none", d)
			}
			if d := spent(4, func() { _ = c.SetMetadata(t.Context(), "a", "m", "k", "v") }); d.Round(time.Millisecond) != 4*time.Second {
				t.Errorf("4 more took %s, want 4 s", d)
			}
		})
	})
	t.Run("another machine and another action have their own", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := always(200, `{}`).client(t, limited)
			if d := spent(3, func() {
				_ = c.SetMetadata(t.Context(), "a", "m1", "k", "v")
				_ = c.SetMetadata(t.Context(), "a", "m2", "k", "v")
				_ = c.StopMachine(t.Context(), "a", "m1", fly.StopMachine{}, "")
				_ = c.DeleteVolume(t.Context(), "a", "v1")
			}); d != 0 {
				t.Errorf("the calls took %s, want none", d)
			}
		})
	})
	t.Run("reading one machine is 5 a second after a burst of 10", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := always(200, `{}`).client(t, limited)
			if d := spent(20, func() { _, _ = c.Machine(t.Context(), "a", "m") }); d.Round(time.Millisecond) != 2*time.Second {
				t.Errorf("20 calls took %s, want 2 s", d)
			}
		})
	})
	t.Run("an app is read once a second as well: each new session looks for it", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := always(200, `{}`).client(t, limited)
			if d := spent(7, func() { _, _ = c.App(t.Context(), "a") }); d.Round(time.Millisecond) != 4*time.Second {
				t.Errorf("7 calls took %s, want 4 s", d)
			}
		})
	})
	t.Run("a repeated request is counted", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := always(503, "")
			c := f.client(t, limited, func(c *fly.Config) { c.Tries = 30 })
			began := time.Now()
			_ = c.SetMetadata(t.Context(), "a", "m", "k", "v")
			if d := time.Since(began); d < 27*time.Second {
				t.Errorf("30 tries took %s, want 27 s at least", d)
			}
		})
	})
	t.Run("whoever counts is told of each request, how long it was held back, and what it came to", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fake{answer: func(n int, w http.ResponseWriter, _ *http.Request) {
				time.Sleep(300 * time.Millisecond)
				say(w, []int{200, 200, 200, 200, 404, 503, 200}[n], `{}`)
			}}
			var told []string
			c := f.client(t, limited, func(c *fly.Config) {
				c.Observe = func(call fly.Call) {
					word := "ok"
					for _, err := range []error{fly.ErrUnavailable, fly.ErrNotFound, fly.ErrRateLimited} {
						if errors.Is(call.Err, err) {
							word = err.Error()
						}
					}
					told = append(told, fmt.Sprintf("%s %s held %t took %s", call.Action, word, call.Held > 0, call.Took))
				}
			})
			for range 4 {
				_ = c.StopMachine(t.Context(), "a", "m", fly.StopMachine{}, "")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_ = c.StopMachine(ctx, "a", "m", fly.StopMachine{}, "")
			_, _ = c.Machine(t.Context(), "a", "gone")
			_, _ = c.Machine(t.Context(), "a", "m") // it is repeated
			want := []string{
				"stop ok held false took 300ms", "stop ok held false took 300ms", "stop ok held false took 300ms", "stop ok held true took 300ms",
				"stop rate limited held false took 0s", "get not found held false took 300ms",
				"get Fly is unavailable held false took 300ms", "get ok held false took 300ms",
			}
			if !slices.Equal(told, want) {
				t.Errorf("told of\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
			}
		})
	})
	t.Run("who has no time to wait for his turn is told at once", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := always(200, `{}`)
			c := f.client(t, limited)
			for range 3 {
				_ = c.SetMetadata(t.Context(), "a", "m", "k", "v")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := c.SetMetadata(ctx, "a", "m", "k", "v")
			if !errors.Is(err, fly.ErrRateLimited) || time.Since(began) != 0 || f.count() != 3 {
				t.Errorf("SetMetadata = %v after %s, want ErrRateLimited at once, unsent", err, time.Since(began))
			}
		})
	})
}

func TestContext(t *testing.T) {
	t.Parallel()
	hang := func() *fake {
		return &fake{answer: func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}
	}
	for name, f := range map[string]func() *fake{
		"while a request is under way":  hang,
		"in a pause before the next":    func() *fake { return always(503, "") },
		"in a long pause after 429":     func() *fake { return &fake{answer: retryIn("50")} },
		"while it waits for the state":  func() *fake { return always(408, "") },
		"while a start is not accepted": func() *fake { return always(412, `{"error":"failed_precondition: machine still active"}`) },
	} {
		t.Run("it ends "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := f().client(t, func(c *fly.Config) { c.Tries = 1000 })
				for op, do := range map[string]func(context.Context) error{
					"get":   func(ctx context.Context) error { _, err := c.App(ctx, "a"); return err },
					"wait":  func(ctx context.Context) error { _, err := c.WaitMachine(ctx, "a", "m", fly.WaitMachine{}); return err },
					"start": func(ctx context.Context) error { return c.StartMachine(ctx, "a", "m", "") },
				} {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(1700*time.Millisecond, cancel)
					began := time.Now()
					err := do(ctx)
					if d := time.Since(began); err == nil || d > 1701*time.Millisecond {
						t.Errorf("%s = %v after %s, want an error by 1.7 s", op, err, d)
					}
					cancel()
				}
			})
		})
	}
	t.Run("a request that hangs is given up and sent again", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fake{answer: func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 0 {
					<-r.Context().Done()
				}
				say(w, 200, `{"name":"a"}`)
			}}
			began := time.Now()
			if app, err := f.client(t).App(t.Context(), "a"); err != nil || app.Name != "a" || time.Since(began) > 16*time.Second {
				t.Errorf("App = %v, %v after %s, want it after 15 s", app, err, time.Since(began))
			}
		})
	})
}

func retryIn(seconds string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", seconds)
		say(w, 429, "")
	}
}

// TestNoToken: whatever goes wrong, the token is in no error and in no log.
func TestNoToken(t *testing.T) {
	t.Parallel()
	const secret = "fm2_SECRETSECRET"
	var log strings.Builder
	for name, f := range map[string]*fake{
		"a server that says it back": always(400, `{"error":"bad token `+secret+`"}`),
		"a proxy that says it back":  always(502, "<html>Authorization: FlyV1 "+secret+"</html>"),
		"no answer":                  always(dropped, ""),
		"half an answer":             always(200, `{"name":`),
	} {
		synctest.Test(t, func(t *testing.T) {
			c := f.client(t, func(c *fly.Config) {
				c.Token, c.Log = "FlyV1 "+secret, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			_, err := c.App(t.Context(), "a")
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: error = %v, want one without the token", name, err)
			}
		})
	}
	c, err := fly.New(fly.Config{Token: "FlyV1 " + secret + "\nX: y"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.App(t.Context(), "a"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a token with a line's end: error = %v, want one without the token", err)
	}
	if strings.Contains(log.String(), secret) || !strings.Contains(log.String(), "Fly asked again") {
		t.Errorf("log = %s, want it without the token", log.String())
	}
}
