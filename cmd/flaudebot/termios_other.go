//go:build !linux

package main

import "golang.org/x/sys/unix"

// How the state of a terminal is asked for, and set: as BSD does, which macOS comes from.
const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
)
