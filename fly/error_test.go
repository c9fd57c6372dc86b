package fly_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
)

// TestErrors goes through what Fly refuses with, and what a caller may decide on.
func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   error
	}{
		{"a bad parameter", 400, `{"error":"invalid_argument: config.image is required"}`, fly.ErrInvalid},
		{"a bad id", 400, `{"error":"invalid machine ID, 'x'"}`, fly.ErrInvalid},
		{"no room for a volume", 400, `{"error":"no capacity"}`, fly.ErrCapacity},
		{"a volume that is on its way out", 400, `{"error":"invalid_argument: volume not found"}`, fly.ErrNotFound},
		{"a bad token", 401, `{"error":"Authenticate: token validation error"}`, fly.ErrUnauthorized},
		{"another organization's app", 403, `{"error":"unauthorized"}`, fly.ErrForbidden},
		{"a quota", 403, `{"error":"organization \"X\" is using 204800 MB of memory in dfw which is over the allowed quota. please consider other regions"}`, fly.ErrQuota},
		{"gone", 404, `{"error":"not_found: machine not found"}`, fly.ErrNotFound},
		{"a host that does not answer in time", 408, `{"error":"deadline_exceeded: request took too long"}`, fly.ErrTimeout},
		{"a lease", 409, `{"error":"machine ID 148e lease currently held by a@b.c, expires at 2026-08-20T10:00:00Z"}`, fly.ErrLeaseHeld},
		{"a lease in the older form", 409, `{"status":"error","message":"machine ID 148e lease currently held by a@b.c, expires at 2026-08-20T10:00:00Z"}`, fly.ErrLeaseHeld},
		{"another version", 409, `{"error":"aborted: machine update failed due to concurrent update"}`, fly.ErrPrecondition},
		{"a name", 409, `{"error":"already_exists: unique machine name violation, machine ID 148e already exists with name \"t\""}`, fly.ErrNameTaken},
		{"no memory on the host", 409, `{"error":"aborted: could not reserve resource for machine: insufficient memory available to fulfill request"}`, fly.ErrHostCapacity},
		{"no CPUs on the host", 409, `{"error":"aborted: could not reserve resource for machine: insufficient CPUs available to fulfill request"}`, fly.ErrHostCapacity},
		{"nothing on the host", 409, `{"error":"aborted: insufficient resources available to fulfill request"}`, fly.ErrHostCapacity},
		{"no room on the host", 409, `{"error":"aborted: no capacity"}`, fly.ErrCapacity},
		{"a closed host", 409, `{"error":"deploys to this host are temporarily disabled"}`, fly.ErrHostCapacity},
		{"still active", 412, `{"error":"failed_precondition: machine still active, refusing to start"}`, fly.ErrPrecondition},
		{"getting replaced", 412, `{"error":"failed_precondition: machine getting replaced, refusing to start"}`, fly.ErrPrecondition},
		{"from created", 412, `{"error":"failed_precondition: unable to start machine from current state: 'created'"}`, fly.ErrPrecondition},
		{"no room beside the volume", 412, `{"error":"insufficient resources to create new machine with existing volume id 'vol_x'","status":"volume_placement_capacity"}`, fly.ErrHostCapacity},
		{"no room beside the volume, in other words", 412, `{"error":"something new","status":"volume_placement_capacity"}`, fly.ErrHostCapacity},
		{"a bound volume", 400, `{"error":"failed_precondition: volume is currently bound to machine: 148e"}`, fly.ErrPrecondition},
		{"an app's name", 422, `{"error":"Validation failed: Name has already been taken","status":"name_taken"}`, fly.ErrNameTaken},
		{"a bad name", 422, `{"error":"Validation failed: Name under 63 chars using numbers, lowercase letters and dashes"}`, fly.ErrInvalid},
		{"no room in the region", 422, `{"error":"could not find a candidate host","status":"insufficient_capacity"}`, fly.ErrCapacity},
		{"no room in the region, in other words", 422, `{"error":"something new","status":"insufficient_capacity"}`, fly.ErrCapacity},
		{"too many machines", 422, `{"error":"your organization has reached its machine limit of 50"}`, fly.ErrQuota},
		{"too many machines, in other words", 403, `{"error":"machine count limit reached"}`, fly.ErrQuota},
		{"no payment method", 422, `{"error":"To create more than 1 machine per app please add a payment method. https://fly.io/dashboard/personal/billing"}`, fly.ErrPayment},
		{"no credit", 422, `{"error":"We need your payment information to continue! Add a credit card or buy credit: https://fly.io/dashboard/personal/billing"}`, fly.ErrPayment},
		{"a trial that is over", 403, `{"error":"trial has ended, please add a credit card"}`, fly.ErrPayment},
		{"payment, by its status", 402, ``, fly.ErrPayment},
		{"too often", 429, `{"error":"rate limit exceeded"}`, fly.ErrRateLimited},
		{"Fly itself", 500, `{"error":"internal"}`, fly.ErrUnavailable},
		{"a gateway", 502, `<html>bad gateway</html>`, fly.ErrUnavailable},
		{"away", 503, ``, fly.ErrUnavailable},
		{"a gateway that waits no longer", 504, `{}`, fly.ErrUnavailable},
		{"no answer", dropped, ``, fly.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// CreateMachine is sent once, whatever comes back but 429.
			client := always(c.status, c.body).client(t, func(c *fly.Config) { c.Tries = 1 })
			_, err := client.CreateMachine(t.Context(), "a", fly.CreateMachine{Name: "t", Region: "fra"})
			e, ok := errors.AsType[*fly.Error](err)
			if !ok || !errors.Is(err, c.want) {
				t.Fatalf("error = %v, want %v", err, c.want)
			}
			for _, other := range []error{
				fly.ErrNotFound, fly.ErrNameTaken, fly.ErrLeaseHeld, fly.ErrPrecondition, fly.ErrCapacity, fly.ErrHostCapacity, fly.ErrQuota, fly.ErrPayment,
				fly.ErrUnauthorized, fly.ErrForbidden, fly.ErrRateLimited, fly.ErrTimeout, fly.ErrUnavailable, fly.ErrInvalid,
			} {
				if errors.Is(err, other) && !errors.Is(c.want, other) {
					t.Errorf("error = %v, is %v as well", err, other)
				}
			}
			if !strings.HasPrefix(err.Error(), "create machine t in fra: ") {
				t.Errorf("error = %q, want what was being done", err)
			}
			if c.status == dropped {
				return
			}
			if e.Status != c.status || e.RequestID != "01REQ-fra" || !strings.HasSuffix(err.Error(), " (request 01REQ-fra)") {
				t.Errorf("error = %q with status %d, want the request's id and %d", err, e.Status, c.status)
			}
		})
	}
}

func TestErrorDetails(t *testing.T) {
	t.Parallel()
	refusal := func(t *testing.T, status int, body string) *fly.Error {
		t.Helper()
		err := always(status, body).client(t, func(c *fly.Config) { c.Tries = 1 }).StopMachine(t.Context(), "a", "m", fly.StopMachine{}, "")
		e, ok := errors.AsType[*fly.Error](err)
		if !ok {
			t.Fatalf("error = %v, want a *fly.Error", err)
		}
		return e
	}
	t.Run("a lease tells its owner and its end", func(t *testing.T) {
		t.Parallel()
		e := refusal(t, 409, `{"error":"machine ID 148e lease currently held by Fly.io system, expires at 2026-08-20T10:00:00Z"}`)
		if e.Owner != "Fly.io system" || !e.ExpiresAt.Equal(time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC)) {
			t.Errorf("owner = %q until %s", e.Owner, e.ExpiresAt)
		}
	})
	t.Run("a name tells by which machine it is taken, so that it can be adopted", func(t *testing.T) {
		t.Parallel()
		e := refusal(t, 409, `{"error":"already_exists: unique machine name violation, machine ID 148e21a3b5c6d7 already exists with name \"t\""}`)
		if e.MachineID != "148e21a3b5c6d7" {
			t.Errorf("machine = %q", e.MachineID)
		}
	})
	t.Run("a proxy's page is cut, a long text as well", func(t *testing.T) {
		t.Parallel()
		if e := refusal(t, 502, strings.Repeat("x", 10000)); len(e.Message) != 200 {
			t.Errorf("%d bytes of a page, want 200", len(e.Message))
		}
		if e := refusal(t, 500, `{"error":"`+strings.Repeat("ä", 10000)+`"}`); len(e.Message) > 4096 || len(e.Message) < 4000 || strings.ContainsRune(e.Message, '\uFFFD') {
			t.Errorf("%d bytes of a text, want 4096 that are valid", len(e.Message))
		}
	})
	t.Run("without words the status speaks", func(t *testing.T) {
		t.Parallel()
		if got := refusal(t, 503, "").Error(); got != "stop machine m: 503 Service Unavailable (request 01REQ-fra)" {
			t.Errorf("error = %q", got)
		}
	})
	t.Run("what is gone need not be removed", func(t *testing.T) {
		t.Parallel()
		c := always(http.StatusNotFound, `{"error":"not_found: lease not found"}`).client(t)
		for name, err := range map[string]error{
			"DeleteMachine": c.DeleteMachine(t.Context(), "a", "m", true, ""), "DeleteVolume": c.DeleteVolume(t.Context(), "a", "v"),
			"ReleaseLease": c.ReleaseLease(t.Context(), "a", "m", "n"), "DeleteMetadata": c.DeleteMetadata(t.Context(), "a", "m", "k"),
		} {
			if err != nil {
				t.Errorf("%s = %v, want nil", name, err)
			}
		}
		if _, err := c.Lease(t.Context(), "a", "m"); !errors.Is(err, fly.ErrNotFound) {
			t.Errorf("Lease = %v, want ErrNotFound", err)
		}
	})
	t.Run("a lease that is not found by another status is released", func(t *testing.T) {
		t.Parallel()
		if err := always(400, `{"error":"lease not found"}`).client(t).ReleaseLease(t.Context(), "a", "m", "n"); err != nil {
			t.Errorf("ReleaseLease = %v, want nil", err)
		}
	})
}
