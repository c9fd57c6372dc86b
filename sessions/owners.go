package sessions

import (
	"cmp"
	"net/http"

	"flaudebot/queue"
)

// OwnersOnly returns a transport that sends nothing for a turn that may be another replica's by now: where no fence is known, what a
// process that was asleep still had on its mind would come after what the next owner did. next nil: the default one.
func OwnersOnly(next http.RoundTripper) http.RoundTripper {
	return ownersOnly{cmp.Or(next, http.DefaultTransport)}
}

type ownersOnly struct{ next http.RoundTripper }

func (o ownersOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := queue.Held(r.Context()); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	return o.next.RoundTrip(r)
}
