package sessions

import "errors"

var (
	// ErrNoSession says that a thread has no live session.
	ErrNoSession = errors.New("this thread has no live session")
	// ErrBegunSince says that what is live in a thread began after its end was asked for.
	ErrBegunSince = errors.New("this thread's session began after its end was asked for")
	// ErrMessageGone says that a turn's message was deleted: [Front].Prompt wraps it, and is not asked again.
	ErrMessageGone = errors.New("the message is gone")
)
