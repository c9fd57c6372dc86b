//go:build nofence

package main

// unfenced: nobody refuses anything, and nobody looks.
func unfenced() []piece { return []piece{kills("/exec:4"), pauses("EVALSHA:8")} }
