package sessions

import "errors"

var (
	// ErrNoSession says that a thread has no live session.
	ErrNoSession = errors.New("this thread has no live session")
	// ErrMessageGone says that a turn's message was deleted: [Front].Prompt wraps it, and is not asked again.
	ErrMessageGone = errors.New("the message is gone")
)
