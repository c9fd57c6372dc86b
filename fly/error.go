package fly

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// What a caller may decide on.
var (
	ErrNotFound     = errors.New("not found")
	ErrNameTaken    = errors.New("name taken")         // Error.MachineID says by which machine
	ErrLeaseHeld    = errors.New("lease held")         // Error.Owner and Error.ExpiresAt say by whom
	ErrPrecondition = errors.New("not in that state")  // 412: may pass
	ErrCapacity     = errors.New("no capacity")        // no room on the host or in the region
	ErrQuota        = errors.New("over quota")         // the organization may not have more, there or anywhere
	ErrPayment      = errors.New("payment wanted")     // the organization has to look after its billing
	ErrUnauthorized = errors.New("token refused")      // 401
	ErrForbidden    = errors.New("not allowed")        // 403
	ErrRateLimited  = errors.New("rate limited")       // 429
	ErrTimeout      = errors.New("timed out at Fly")   // 408: whether it took effect is open
	ErrUnavailable  = errors.New("Fly is unavailable") //nolint:staticcheck // a name; 5xx and network: whether it took effect is open
	ErrInvalid      = errors.New("invalid request")    // 400, 422

	// ErrHostCapacity is an [ErrCapacity] of one host: another one in the region may have room.
	ErrHostCapacity = fmt.Errorf("%w on the host", ErrCapacity)

	// ErrUnsent is what a transport wraps that must not send a request, now or later: it is not repeated.
	ErrUnsent = errors.New("not sent")
)

// Error is every failure of the API.
type Error struct {
	Op         string // what was being done
	Status     int    // HTTP status; 0: there was no answer
	Message    string // Fly's own words
	RequestID  string // for Fly's support
	RetryAfter time.Duration
	MachineID  string // of the machine that has the name, with ErrNameTaken
	Owner      string // of the lease, with ErrLeaseHeld
	ExpiresAt  time.Time

	kind  error
	cause error
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Op + ": "
	switch {
	case e.Status == 0:
		s += e.cause.Error()
	case e.Message == "":
		s += fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	default:
		s += fmt.Sprintf("%d %s", e.Status, e.Message)
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	return s
}

// Unwrap makes errors.Is find the sentinel, and the network's error.
func (e *Error) Unwrap() []error {
	var out []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

var (
	machineInText = regexp.MustCompile(`machine ID ([0-9a-z]+) already exists`)
	leaseInText   = regexp.MustCompile(`lease currently held by (.+?),? expires at (\S+)`)
)

// maxMessage bounds what is kept of Fly's words, in bytes.
const maxMessage = 4096

// newError reads a refusal.
func newError(op string, res *http.Response, body []byte) *Error {
	e := &Error{Op: op, Status: res.StatusCode, RequestID: res.Header.Get("Fly-Request-Id")}
	var form struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Status  string `json:"status"`
	}
	if json.Unmarshal(body, &form) == nil {
		e.Message = form.Error
		if e.Message == "" {
			e.Message = form.Message
		}
	} else {
		e.Message = strings.TrimSpace(string(body[:min(len(body), 200)])) // of a proxy
	}
	e.Message = strings.ToValidUTF8(e.Message[:min(len(e.Message), maxMessage)], "")
	if d, err := time.ParseDuration(res.Header.Get("Retry-After") + "s"); err == nil {
		e.RetryAfter = d
	}
	if m := machineInText.FindStringSubmatch(e.Message); m != nil {
		e.MachineID = m[1]
	}
	if m := leaseInText.FindStringSubmatch(e.Message); m != nil {
		e.Owner = m[1]
		e.ExpiresAt, _ = time.Parse(time.RFC3339, strings.TrimRight(m[2], "."))
	}
	e.kind = kindOf(e.Status, e.Message, form.Status)
	return e
}

// kindOf sorts a refusal. Fly uses 403, 408, 409, 412 and 422 for several things each: the text decides.
func kindOf(status int, text, code string) error {
	t := strings.ToLower(text)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(t, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("lease currently held"):
		return ErrLeaseHeld
	case code == "name_taken" || has("already been taken", "unique machine name violation"):
		return ErrNameTaken
	case code == "insufficient_capacity" || has("candidate host"):
		return ErrCapacity
	case code == "volume_placement_capacity" || has("insufficient resources", "insufficient memory", "insufficient cpu", "could not reserve resource",
		"deploys to this host are temporarily disabled"):
		return ErrHostCapacity
	case has("insufficient capacity", "no capacity", "not enough capacity"):
		return ErrCapacity
	case status == http.StatusPaymentRequired || has("payment", "billing", "credit card", "trial", "high risk"):
		return ErrPayment
	case has("quota", "limit of", "machine limit", "count limit"):
		return ErrQuota
	case status == http.StatusUnauthorized:
		return ErrUnauthorized
	case status == http.StatusForbidden:
		return ErrForbidden
	case status == http.StatusNotFound || has("volume not found"):
		return ErrNotFound
	case status == http.StatusTooManyRequests:
		return ErrRateLimited
	case status == http.StatusRequestTimeout:
		return ErrTimeout
	case status >= 500:
		return ErrUnavailable
	case status == http.StatusPreconditionFailed || status == http.StatusConflict || has("failed_precondition"):
		return ErrPrecondition
	default:
		return ErrInvalid
	}
}
