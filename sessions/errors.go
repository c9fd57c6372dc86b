package sessions

import "errors"

// ErrNoSession says that a thread has no live session.
var ErrNoSession = errors.New("this thread has no live session")
