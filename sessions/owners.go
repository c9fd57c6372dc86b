package sessions

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"

	"flaudebot/fly"
	"flaudebot/queue"
)

// OwnersOnly returns a transport that sends nothing for a turn that may be another replica's by now: where no fence is known, what a
// process that was asleep still had on its mind would come after what the next owner did. next nil: the default one. Its errors wrap
// [fly.ErrUnsent] and [queue.ErrLost].
func OwnersOnly(next http.RoundTripper) http.RoundTripper {
	return ownersOnly{cmp.Or(next, http.DefaultTransport)}
}

type ownersOnly struct{ next http.RoundTripper }

func (o ownersOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := mayBeSent(r.Context()); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	if r.Body == nil || r.Body == http.NoBody {
		return o.next.RoundTrip(r)
	}
	asking := r.WithContext(r.Context()) // a copy
	asking.Body = ownersBody{r.Body, r.Context()}
	if r.GetBody != nil {
		asking.GetBody = func() (io.ReadCloser, error) {
			body, err := r.GetBody()
			return ownersBody{body, r.Context()}, err
		}
	}
	return o.next.RoundTrip(asking)
}

func mayBeSent(ctx context.Context) error {
	if err := queue.Held(ctx); err != nil {
		return fmt.Errorf("%w: %w", fly.ErrUnsent, err)
	}
	return nil
}

// ownersBody asks once more when the request is written: a connection may have taken its time, and a request without its body is none.
type ownersBody struct {
	io.ReadCloser

	ctx context.Context //nolint:containedctx // of the request
}

func (b ownersBody) Read(p []byte) (int, error) {
	if err := mayBeSent(b.ctx); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}
