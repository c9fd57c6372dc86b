package main

import "golang.org/x/sys/unix"

// How the state of a terminal is asked for, and set.
const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)
