package runner

import (
	"errors"
	"fmt"
	"syscall"
)

// refused is an error of a request that cannot be carried out, with what that means for its turn.
type refused struct {
	error

	failure Failure
}

func (r refused) Unwrap() error { return r.error }

func refuse(f Failure, format string, args ...any) error {
	return refused{fmt.Errorf(format, args...), f}
}

// refusal is the answer to a request that was refused.
func refusal(err error) (status Status, failure Failure, reason string) {
	if errors.Is(err, errFenced) {
		return StatusFenced, FailNone, ""
	}
	return StatusInvalid, failureOf(err), err.Error()
}

// failureOf tells what an error means for the turn. A full volume is one wherever it shows.
func failureOf(err error) Failure {
	var r refused
	switch {
	case isFull(err):
		return FailDisk
	case errors.As(err, &r):
		return r.failure
	}
	return FailHandover
}

// errFull says that the volume has less room than it must keep.
var errFull = errors.New("the volume is nearly full")

func isFull(err error) bool {
	return errors.Is(err, errFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
