//go:build nofence_clock

package main

// unfenced: who overslept a lease goes on until somebody says so.
func unfenced() []piece { return []piece{pauses("/machines/:12")} }
